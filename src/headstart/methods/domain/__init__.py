"""Adapting to another domain on cached features, in closed form or in seconds: one file and one paper each."""
