"""Goals: one file per task."""
