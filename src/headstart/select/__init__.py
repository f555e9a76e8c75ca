"""Which pretrained network to start from: the catalog, the ranking, the race."""
