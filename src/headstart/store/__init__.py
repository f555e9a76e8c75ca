"""Content-addressed results on disk."""

from headstart.store._store import (
    MANIFEST,
    Entry,
    Store,
    atomic_write,
    drop_folder,
    explained,
    fault_of,
    fsync_folder,
    replace_folder,
    seal,
)

__all__ = [
    "MANIFEST",
    "Entry",
    "Store",
    "atomic_write",
    "drop_folder",
    "explained",
    "fault_of",
    "fsync_folder",
    "replace_folder",
    "seal",
]
