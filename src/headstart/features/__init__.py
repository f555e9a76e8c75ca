"""Frozen encoding: runtimes, the activation cache, prefix caching."""
