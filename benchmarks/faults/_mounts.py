"""Small and read-only disks: memory filesystems in a mount namespace of this process alone (Linux, as root)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEW_MOUNTS, _PRIVATE = 0x20000, 0x4000 | 0x40000
_READ_ONLY, _REMOUNT = 1, 32


def with_own_mounts() -> None:
    """Leave the mounts of everybody else: what is mounted from here on ends with this process and its children."""
    _call("unshare", _NEW_MOUNTS)
    _mount("none", "/", "none", _PRIVATE, "")


def mount_memory(folder: Path, options: str) -> None:
    """Mount an empty memory filesystem."""
    _mount("tmpfs", str(folder), "tmpfs", 0, options)


def remount(folder: Path, *, read_only: bool) -> None:
    """Change whether a mounted filesystem may be written."""
    _mount("tmpfs", str(folder), "tmpfs", _REMOUNT | (_READ_ONLY if read_only else 0), "")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """Call mount(2)."""
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def _call(name: str, *arguments: object) -> None:
    """Call the C library; OSError where it fails."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
