"""The methods of transfer, one file each, over one training loop."""
