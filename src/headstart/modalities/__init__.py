"""What kinds of input there are: bytes, decoding, augmentation, batching; no networks, no tasks."""
