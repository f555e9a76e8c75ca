"""The one training loop and what it stands on: optimiser, schedules, device, precision, checkpoints."""
