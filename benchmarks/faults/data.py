"""D: files that are broken or lie, folders that mislead, splits that leak, labels that are wrong."""

from __future__ import annotations

import csv
import struct
import time
import unicodedata
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults._catalogue import Bench, Fault, Verdict, apart
from benchmarks.faults._pictures import CLASSES, folder_of, picture
from benchmarks.faults._process import Subject
from benchmarks.faults.config import refused
from headstart import api
from headstart.core.machine import read_machine
from headstart.core.types import Audit, InputContract
from headstart.modalities import image

Prepare = Callable[[Path], str]
"""Puts a fault into a folder of pictures and returns the name that a finding must hold."""
_PLANTED = 50


def _finds(
    prepare: Prepare, *, codes: tuple[str, ...], splits: tuple[str, ...] = ("",), dropped: bool
) -> Callable[[Subject, Bench], Verdict]:
    """Return a check that the audit reports one of `codes` for what `prepare` planted (and leaves it out)."""

    def check(_subject: Subject, bench: Bench) -> Verdict:
        root = folder_of(bench.folder() / "data", splits=splits)
        name = prepare(root)
        found = api.audit(root)
        return _found(found, codes, name, dropped=dropped)

    return check


def _found(found: Audit, codes: tuple[str, ...], name: str, *, dropped: bool) -> Verdict:
    """Judge findings."""
    named = [
        finding
        for code in codes
        for finding in found.by_code(code)
        if name in finding.message or any(name in item for item in finding.items)
    ]
    if not named:
        return Verdict(False, f"found only {[finding.code for finding in found.findings]}")
    if dropped and found.num_kept >= found.num_items:
        return Verdict(False, f"{named[0].code}, but kept")
    return Verdict(True, f"{named[0].code}: {named[0].message[:90]}")


def _truncated(root: Path) -> str:
    path = root / "bee" / "0009.jpg"
    path.write_bytes(path.read_bytes()[:900])
    return path.name


def _written(name: str, content: bytes) -> Prepare:
    def write(root: Path) -> str:
        (root / "bee" / name).write_bytes(content)
        return name

    return write


def _wrong_extension(_subject: Subject, bench: Bench) -> Verdict:
    """Name a PNG .jpg: it must be read for what it is."""
    root = folder_of(bench.folder() / "data")
    picture(99).save(root / "bee" / "png.jpg", format="PNG")
    found = api.audit(root)
    return Verdict(found.num_kept == found.num_items, f"{found.num_kept} of {found.num_items} kept")


def _formats(_subject: Subject, bench: Bench) -> Verdict:
    """Save one picture in every mode; each must come out nearly the same."""
    folder = bench.folder()
    contract = InputContract((64, 64), (0.5,) * 3, (0.5,) * 3, crop=1.0)
    grey = picture(5).convert("L")
    modes = {"grey.png": "L", "rgb.png": "RGB", "rgba.png": "RGBA", "cmyk.tif": "CMYK", "palette.png": "P"}
    for name, mode in modes.items():
        grey.convert(mode).save(folder / name)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    grey.save(folder / "moving.gif", save_all=True, append_images=[grey.rotate(90)])
    turned = Image.Exif()
    turned[0x0112] = 6
    grey.rotate(90, expand=True).save(folder / "turned.png", exif=turned)
    reference = image.prepare(folder / "rgb.png", contract).pixels.astype(int)
    wrong = {
        path.name: round(difference, 1)
        for path in sorted(folder.iterdir())
        if (difference := float(np.abs(image.prepare(path, contract).pixels - reference).mean())) > 3
    }
    return Verdict(
        not wrong, f"mean difference above 3 of 255: {wrong}" if wrong else "8 forms alike within 3 of 255"
    )


def _bomb(_subject: Subject, bench: Bench) -> Verdict:
    """Add a small PNG of 400 million pixels; it must be named and never decoded."""
    root = folder_of(bench.folder() / "data")
    side = 20_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(side // 20)) + rows.flush()
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b"")]
    (root / "bee" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    start = time.perf_counter()
    verdict = _found(api.audit(root), ("oversized",), "bomb.png", dropped=True)
    spent = time.perf_counter() - start
    return Verdict(verdict.survived and spent < 5, f"{verdict.seen}, in {spent:.1f} s")


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _empty_class(root: Path) -> str:
    (root / "dog").mkdir()
    return "dog"


def _one_class(_subject: Subject, bench: Bench) -> Verdict:
    """Leave a single class."""
    root = folder_of(bench.folder() / "data")
    for name in CLASSES[1:]:
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()
    return refused(lambda: api.plan(root, encoder="tiny-cnn"), "only one class")


def _lone_item(root: Path) -> str:
    (root / "dog").mkdir()
    picture(77).save(root / "dog" / "only.jpg")
    return "dog"


def _only_in_validation(root: Path) -> str:
    (root / "validation" / "dog").mkdir()
    for number in range(5):
        picture(70 + number).save(root / "validation" / "dog" / f"{number}.jpg")
    return "dog"


def _spelling(root: Path) -> str:
    name = "caf\u00e9"
    for number, spelled in enumerate((name, unicodedata.normalize("NFD", name))):
        (root / spelled).mkdir()
        for index in range(5):
            picture(200 + 10 * number + index).save(root / spelled / f"{index}.jpg")
    return name


def _copied(root: Path) -> str:
    source = next((root / "train" / "ant").iterdir())
    (root / "test" / "ant" / "copy.jpg").write_bytes(source.read_bytes())
    return source.name


def _near_copies(_subject: Subject, bench: Bench) -> Verdict:
    """Plant pictures in test that are train pictures resized, brightened and compressed anew."""
    root = folder_of(bench.folder() / "data", per_class=60, splits=_BOTH)
    sources = sorted((root / "train").glob("*/*.jpg"))[:_PLANTED]
    for number, path in enumerate(sources):
        again = Image.open(path).resize((80, 80)).point(lambda level: min(255, level + 6))
        again.save(root / "test" / path.parent.name / f"again{number}.jpg", quality=80)
    named = {item for finding in api.audit(root).by_code("leak-near") for item in finding.items}
    planted = {path.relative_to(root).as_posix() for path in sources}
    recall, wrong = len(named & planted) / _PLANTED, len(named - planted) / (180 - _PLANTED)
    return Verdict(recall >= 0.95 and wrong <= 0.01, f"recall {recall:.2f}, false positives {wrong:.3f}")


def _group_leak(_subject: Subject, bench: Bench) -> Verdict:
    """Put a patient into train and test by a table; with `strict` that is refused."""
    root = folder_of(bench.folder() / "data")
    rows = [(path.relative_to(root).as_posix(), path.parent.name) for path in sorted(root.glob("*/*.jpg"))]
    with (root / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "split", "group"))
        for number, row in enumerate(rows):
            writer.writerow((*row, ("train", "validation", "test")[number % 3], f"patient{number // 4}"))
    table = root / "table.csv"
    found = _found(api.audit(table), ("group-leak",), "patient0", dropped=False)
    return found if not found.survived else refused(lambda: api.audit(table, strict=True), "patient0")


def _wrong_labels(_subject: Subject, bench: Bench) -> Verdict:
    """Swap 5 % of the labels; the suspects that are named must be right 7 times of 10."""
    root = folder_of(bench.folder() / "data", per_class=40)
    for number, path in enumerate(sorted(root.glob("*/*.jpg"))[::20]):
        other = CLASSES[(CLASSES.index(path.parent.name) + 1) % 3]
        path.rename(root / other / f"wrong{number}.jpg")
    machine = read_machine(store=root.parent / "store", threads=1)

    def work() -> Verdict:
        result = api.fit(root, encoder="tiny-cnn", output=root.parent / "model", machine=machine)
        suspects = [item for finding in result.audit.by_code("label-suspect") for item in finding.items]
        right = sum("wrong" in item for item in suspects)
        seen = f"{right} of {len(suspects)} suspects are wrong labels"
        return Verdict(bool(suspects) and right >= 0.7 * len(suspects), seen)

    return apart(work, root.parent)


def _no_labels(_subject: Subject, bench: Bench) -> Verdict:
    """Leave labels empty, NaN and None in a table."""
    root = folder_of(bench.folder() / "data")
    rows = [[path.relative_to(root).as_posix(), path.parent.name] for path in sorted(root.glob("*/*.jpg"))]
    for row, label in zip(rows, ("", "NaN", "None"), strict=False):
        row[1] = label
    with (root / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "label"], *rows])
    found = api.audit(root / "table.csv")
    verdict = _found(found, ("missing-label",), rows[0][0], dropped=True)
    return Verdict(
        verdict.survived and found.num_kept == len(rows) - 3,
        f"{verdict.seen}; {found.num_kept} of {len(rows)} kept",
    )


_BOTH = ("train", "test")
_NAMED = "found before training, named, left out"
_SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"

_no_picture = partial(_finds, codes=("not-an-image", "unreadable"), dropped=True)
_report = partial(_finds, dropped=False)
FAULTS = (
    Fault("D1", "truncated JPEG", _NAMED, _finds(_truncated, codes=("unreadable",), dropped=True)),
    Fault("D2", "file of zero bytes", _NAMED, _finds(_written("zero.jpg", b""), codes=("empty-file",), dropped=True)),
    Fault("D3", "PNG named .jpg", "read for what it is", _wrong_extension),
    Fault("D4", "text named .jpg", _NAMED, _no_picture(_written("text.jpg", b"hello\n"))),
    Fault("D5", "grey, 16-bit, RGBA, palette, CMYK, animated, rotated", "all decode alike", _formats),
    Fault("D6", "PNG of 400 million pixels", "refused undecoded, named", _bomb),
    Fault("D7", "SVG named .jpg", _NAMED, _no_picture(_written("drawing.jpg", _SVG))),
    Fault("D7", "PDF named .jpg", _NAMED, _no_picture(_written("page.jpg", b"%PDF-1.7\n%%EOF"))),
    Fault("D8", "empty class folder", "reported", _report(_empty_class, codes=("empty-class",))),
    Fault("D9", "one class", "refused before training", _one_class),
    Fault("D10", "class of one item", "reported", _report(_lone_item, codes=("small-class",))),
    Fault(
        "D11", "class in validation only", "reported",
        _report(_only_in_validation, codes=("missing-class",), splits=("train", "validation")),
    ),
    Fault(
        "D12", "class names that differ in Unicode form alone", "reported",
        _report(_spelling, codes=("label-spelling",)),
    ),
    Fault(
        "D13", "copies of training pictures in test", "found, training copy left out",
        _finds(_copied, codes=("leak-exact",), splits=_BOTH, dropped=True),
    ),
    Fault("D14", "50 near copies across splits", "recall >= .95, false positives <= .01", _near_copies),
    Fault("D15", "a patient in train and in test", "reported; refused by --strict", _group_leak),
    Fault("D16", "5 % wrong labels", "suspects named, 7 of 10 right", _wrong_labels),
    Fault("D17", "empty, NaN and None labels", _NAMED, _no_labels),
)  # fmt: skip
