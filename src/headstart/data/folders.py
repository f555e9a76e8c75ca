"""A folder of class folders, with or without train/validation/test (or domain) folders above them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from headstart.core.errors import DataError
from headstart.core.types import Finding, SplitName
from headstart.data.dataset import TableDataset, sorted_labels
from headstart.modalities import image, text

SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Folder names and column values, in lower case, that mean a split."""

_Row = tuple[Path, str | None, str, SplitName | None]
"""Item, class, domain, split."""

_CONLL_2003: dict[str, str] = {"testa": "validation", "testb": "test"}
_OURS = {"cachedir.tag", "thumbs.db", "desktop.ini"}


def open_folder(root: Path, *, needs_label: bool = True) -> TableDataset:
    """List the items of a folder: ROOT/[SPLIT/][DOMAIN/]CLASS/**/ITEM, the class being a folder's name.

    Items are pictures, or text files where there are more of these.

    Split folders are taken for such when a train folder is among them. A level of folders that hold no items
    but the same class folders is taken for domains. DataError where there is nothing to learn from, or, without
    `needs_label`, where there are no items.
    """
    if not root.is_dir():
        raise _no_folder(root)
    modality = _modality(root)
    kinds = modality.EXTENSIONS
    splits: dict[Path, SplitName | None] = {
        folder: SPLIT_NAMES.get(folder.name.lower()) for folder in _folders(root)
    }
    if "train" not in splits.values():
        splits = {root: None}
    rows: list[_Row] = []
    ignored: list[Path] = (
        [] if root in splits else [folder for folder, name in splits.items() if name is None]
    )
    empty: list[Path] = []
    for top, split in splits.items():
        if split is None and top != root:
            continue
        for domain, folder in _class_folders(top, kinds):
            pictures = list(_items(folder, ignored, kinds))
            if not pictures:
                empty.append(folder)
            rows.extend((path, folder.name, domain, split) for path in pictures)
        rows.extend((path, None, "", split) for path in _items(top, ignored, kinds, deep=False))
    _require_items(root, rows, ignored, modality, needs_label=needs_label)
    rows.sort(key=lambda row: row[0].relative_to(root).as_posix())
    targets = [label for _, label, _, _ in rows]
    return TableDataset(
        inputs=[path for path, _, _, _ in rows],
        targets=targets,
        ids=[path.relative_to(root).as_posix() for path, _, _, _ in rows],
        domains=[domain for _, _, domain, _ in rows],
        groups=[""] * len(rows),
        splits=[split for _, _, _, split in rows],
        labels=sorted_labels(targets),
        root=root,
        modality="text" if modality is text else "image",
        notes=_notes(root, ignored, empty, sorted({domain for _, _, domain, _ in rows if domain}), modality),
    )


def split_of(name: str) -> SplitName | None:
    """Return the split that a file's name says (`train.csv`, `eng.testa`, `sst-dev-00000.parquet`), None for none."""
    parts = [_CONLL_2003.get(part, part) for part in re.split(r"[^a-z0-9]+", name.lower())]
    found: set[SplitName] = {SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def _modality(root: Path) -> ModuleType:
    """Return the modality of most of a folder's files: pictures, or texts."""
    endings = Counter(os.path.splitext(name)[1].lower() for _, _, files in os.walk(root) for name in files)
    pictures, texts = (sum(endings[ending] for ending in kind.EXTENSIONS) for kind in (image, text))
    return text if texts > pictures else image


def _folders(folder: Path) -> list[Path]:
    """Return the visible sub-folders, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))


def _is_hidden(name: str) -> bool:
    """Tell whether a name is hidden or left there by an operating system."""
    return name.startswith((".", "__MACOSX")) or name.lower() in _OURS


def _class_folders(top: Path, kinds: frozenset[str]) -> list[tuple[str, Path]]:
    """Return (domain, class folder) pairs; domains are empty unless a whole level of them is found."""
    folders = _folders(top)
    below = {folder: _folders(folder) for folder in folders}
    names = [{path.name for path in paths} for paths in below.values() if paths]
    are_domains = len(names) == len(folders) >= 2 and len(set.intersection(*names)) >= 2
    if are_domains and not any(_has_items(folder, kinds) for folder in folders):
        return [(folder.name, path) for folder, paths in below.items() for path in paths]
    return [("", folder) for folder in folders]


def _has_items(folder: Path, kinds: frozenset[str]) -> bool:
    """Tell whether an item lies directly in a folder."""
    return any(path.suffix.lower() in kinds for path in folder.iterdir() if path.is_file())


def _items(folder: Path, ignored: list[Path], kinds: frozenset[str], *, deep: bool = True) -> Iterator[Path]:
    """Yield the items in a folder (and below it), noting the other visible files in `ignored`."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name)) if deep else []
        for name in files:
            if os.path.splitext(name)[1].lower() in kinds and not name.startswith("."):
                yield Path(place, name)
            elif not _is_hidden(name):
                ignored.append(Path(place, name))


def _no_folder(root: Path) -> DataError:
    """Return the error for a path that is no folder."""
    return DataError(
        f"{root} {'is not a folder' if root.exists() else 'does not exist'}",
        expected="a folder of class folders, or a .csv, .tsv, .parquet, .jsonl or .conll file",
        fix="check the path for spelling",
    )


def _require_items(
    root: Path, rows: list[_Row], ignored: list[Path], modality: ModuleType, *, needs_label: bool
) -> None:
    """Refuse an empty folder and, with `needs_label`, items that all lie in no class folder."""
    noun, nouns = modality.NOUN
    if not rows:
        others = f" ({len(ignored)} other files, such as {ignored[0].name})" if ignored else ""
        inside = "CLASS/" if needs_label else ""
        raise DataError(
            f"{root} holds no {nouns}{others}",
            expected=f"{root.name}/{inside}{noun.upper()} with one of {' '.join(sorted(modality.EXTENSIONS))}",
            fix=f"put each class's {nouns} into a folder of its name"
            if needs_label
            else f"put {nouns} into it",
        )
    if needs_label and all(label is None for _, label, _, _ in rows):
        raise DataError(
            f"{root} holds {len(rows)} {nouns} but no class folders",
            expected=f"{root.name}/CLASS/{noun.upper()}, the folder's name being the class",
            fix=f"put each class's {nouns} into a folder of its name, or give a .csv with path and label columns",
        )


def _notes(
    root: Path, ignored: list[Path], empty: list[Path], domains: list[str], modality: ModuleType
) -> tuple[Finding, ...]:
    """Say what was not taken for an item, and what was taken for domains."""
    nouns = modality.NOUN[1]
    notes: list[Finding] = []
    if ignored:
        names = tuple(sorted(path.relative_to(root).as_posix() for path in ignored))
        endings = ", ".join(sorted({path.suffix.lower() or path.name for path in ignored})[:8])
        message = f"{len(names)} files or folders are no {nouns} by their name ({endings})"
        notes.append(
            Finding(
                "not-an-image" if nouns == "pictures" else "not-a-text", "info", message, "left out", names
            )
        )
    if empty:
        names = tuple(path.relative_to(root).as_posix() for path in empty)
        message = f"{len(names)} class folders hold no {nouns}: {', '.join(names[:10])}"
        notes.append(Finding("empty-class", "warning", message, "left out", names))
    if domains:
        notes.append(
            Finding("domains-from-folders", "info", f"the folders {', '.join(domains)} are taken for domains")
        )
    return tuple(notes)
