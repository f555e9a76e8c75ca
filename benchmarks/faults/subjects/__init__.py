"""Training systems under test, one a file, on the same tiny network and items."""
