"""Chains of tasks: each link begins with what the link before ended with, and the earlier tasks are watched."""
