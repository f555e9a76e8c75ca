"""The user's own entries of the catalog, from a TOML, JSON or CSV file."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headstart.core.errors import PlanError, nearest
from headstart.core.registry import names
from headstart.core.settings import Pretrained, parse
from headstart.core.types import Form
from headstart.select.entry import Entry

FACTS = ("parameters_m", "gmacs", "activations_m", "input_side")
"""Taken from the catalog's entry of the same architecture where the file does not say them."""
_PATHS = ("weights", "folder", "vectors")
_KEY = "network"


class Own(BaseModel):
    """A network as a file describes it: `name` and `encoder` at least, where the architecture is in the catalog."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)

    name: str = Field(min_length=1)
    encoder: dict[str, Any]
    like: str = ""
    """The catalog's entry that facts are taken from where they are not given; one of the same architecture if empty."""
    modality: Literal["image", "text"] | None = None
    forms: tuple[Form, ...] = ()
    parameters_m: float | None = Field(default=None, gt=0)
    gmacs: float | None = Field(default=None, gt=0)
    activations_m: float | None = Field(default=None, gt=0)
    input_side: int | None = Field(default=None, ge=1)
    pretraining: str = "unknown"
    scores: dict[str, float] = {}
    licence: str = "unknown"


def read_own(file: Path, known: Sequence[Entry], forms: Mapping[str, tuple[Form, ...]]) -> tuple[Entry, ...]:
    """Read a file of networks; PlanError says the file, the row and what is wrong with it.

    TOML holds a table `[[network]]` for each, JSON a list (or an object with the list `network`), CSV a row each, with
    columns such as `encoder.weights` and `scores.imagenet`. Paths are meant from the file's folder.
    """
    readers: Mapping[str, Callable[[Path], list[tuple[str, Any]]]] = {
        ".toml": _toml,
        ".json": _json,
        ".csv": _csv,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None or not file.is_file():
        raise PlanError(
            f"the catalog {file} {'is no file' if reader else 'is of an unknown kind'}",
            expected="a .toml, .json or .csv file of networks",
            fix="correct the path",
        )
    entries: dict[str, Entry] = {}
    for place, values in reader(file):
        where = f"{file}, {place}"
        every = (*known, *entries.values())
        entry = _entry(values, where=where, folder=file.parent, known=every, forms=forms)
        if entry.name in entries:
            raise PlanError(
                f"{where}: there are two networks called '{entry.name}'",
                expected="a name of its own for each",
                fix="rename one of them",
            )
        entries[entry.name] = entry
    if not entries:
        raise PlanError(f"the catalog {file} is empty", expected="at least one network", fix=_example(file))
    return tuple(entries.values())


def _entry(
    values: Any, *, where: str, folder: Path, known: Sequence[Entry], forms: Mapping[str, tuple[Form, ...]]
) -> Entry:
    """Check a row and return it as an entry."""
    row = _checked(values, where)
    if "name" not in row.encoder:
        raise PlanError(
            f"{where}: encoder.name is missing",
            expected="the network that the weights are for, such as timm:resnet18",
            fix="add it",
        )
    encoder = {key: _from(folder, key, value) for key, value in row.encoder.items()}
    settings = parse(Pretrained, encoder, what=f"{where}, encoder")
    _require_source(settings.name, where)
    alike = _alike(row, settings.name, where, known)
    given = {name: getattr(row, name) for name in FACTS}
    facts: dict[str, Any] = {
        name: getattr(alike, name, None) if value is None else value for name, value in given.items()
    }
    missing = [name for name, value in facts.items() if value is None]
    if missing:
        raise PlanError(
            f"{where}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, and the catalog knows no "
            f"network {settings.name} to take them from",
            expected="millions of parameters, GMACs and millions of activations of an item, and its side",
            fix="add them, or say with `like` which network of the catalog is as large",
        )
    modality = row.modality or (alike.modality if alike else None)
    if modality is None:
        raise PlanError(f"{where}: modality is missing", expected="image or text", fix="add it")
    return Entry(
        name=row.name, modality=modality, forms=row.forms or (alike.forms if alike else forms[modality]),
        pretraining=row.pretraining, scores=row.scores, licence=row.licence, encoder=encoder, **facts,
    )  # fmt: skip


def _alike(row: Own, network: str, where: str, known: Sequence[Entry]) -> Entry | None:
    """Return the catalog's entry that a row names as `like`, or else one of the same architecture, if there is one."""
    if not row.like:
        return next((one for one in known if _architecture(one) == _architecture_of(network)), None)
    by_name = {one.name: one for one in known}
    if row.like not in by_name:
        raise PlanError(
            f"{where}: like: there is no network '{row.like}' in the catalog{nearest(row.like, by_name)}",
            expected="a network that `headstart models` lists",
            fix="correct the name",
        )
    return by_name[row.like]


def _checked(values: Any, where: str) -> Own:
    """Validate a row; the error names the first field that is wrong."""
    try:
        return Own.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        is_unknown = first["type"] == "extra_forbidden"
        hint = nearest(field, Own.model_fields) if is_unknown else ""
        said = "unknown field" if is_unknown else f"{first['msg'][0].lower()}{first['msg'][1:]}"
        given = "" if first["type"] in ("missing", "extra_forbidden") else f" (it is {first['input']!r})"
        raise PlanError(
            f"{where}: {field or 'the row'}: {said}{hint}{given}",
            expected=f"the fields {', '.join(Own.model_fields)}; name and encoder are needed",
            fix="correct that line",
        ) from error


def _require_source(name: str, where: str) -> None:
    """Refuse a network of an unknown library."""
    library = name.partition(":")[0]
    if library not in names("encoder"):
        raise PlanError(
            f"{where}: unknown network '{name}'{nearest(library, names('encoder'))}",
            expected="what --encoder takes; `headstart models` lists it",
            fix="correct encoder.name",
        )


def _from(folder: Path, key: str, value: Any) -> Any:
    """Return a setting with the paths in it meant from the file's folder, where such a file is there."""
    if key in _PATHS and isinstance(value, str) and value not in ("pretrained", "random"):
        return str((folder / Path(value).expanduser()).resolve())
    library, colon, rest = value.partition(":") if key == "name" and isinstance(value, str) else ("", "", "")
    if library in ("transformers", "recurrent") and rest and (folder / rest).exists():
        return f"{library}{colon}{(folder / rest).resolve()}"
    return value


def _architecture(entry: Entry) -> str:
    """Return an entry's architecture."""
    return _architecture_of(str(entry.encoder["name"]))


def _architecture_of(name: str) -> str:
    """Return the name of a network without the tag of its weights (`timm:resnet50.a1_in1k` -> `timm:resnet50`)."""
    return name.partition(".")[0] if name.startswith(("timm:", "torchvision:")) else name


def _toml(file: Path) -> list[tuple[str, Any]]:
    """Return the tables `[[network]]` of a TOML file, each with its place."""
    try:
        values = tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(file, str(error)) from error
    return _listed(file, values)


def _json(file: Path) -> list[tuple[str, Any]]:
    """Return the networks of a JSON file, each with its place."""
    try:
        values = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise _unreadable(file, str(error)) from error
    return _listed(file, {_KEY: values} if isinstance(values, list) else values)


def _listed(file: Path, values: Any) -> list[tuple[str, Any]]:
    """Return what stands under `network`, each with its place."""
    others = sorted({*values} - {_KEY}) if isinstance(values, dict) else ["no object"]
    rows = values.get(_KEY, []) if isinstance(values, dict) else []
    if others or not isinstance(rows, list):
        raise _unreadable(
            file, f"beside `{_KEY}` it holds {', '.join(others)}" if others else f"{_KEY} is no list"
        )
    return [(f"network {number}", _with_encoder(row)) for number, row in enumerate(rows, 1)]


def _with_encoder(row: Any) -> Any:
    """Return a row in which `encoder` may be the name alone."""
    if isinstance(row, dict) and isinstance(row.get("encoder"), str):
        return {**row, "encoder": {"name": row["encoder"]}}
    return row


def _csv(file: Path) -> list[tuple[str, Any]]:
    """Return the rows of a CSV file, each with its line; cells that are empty are not there."""
    reader = csv.DictReader(_text(file).splitlines(), skipinitialspace=True)
    rows: list[tuple[str, Any]] = []
    for cells in reader:
        place = f"line {reader.line_num}"
        if None in cells or None in cells.values():
            raise _unreadable(
                file, f"{place} has not as many cells as the header ({len(reader.fieldnames or ())})"
            )
        row: dict[str, Any] = {}
        for column, cell in cells.items():
            if cell.strip():
                _put(row, column.strip(), cell.strip())
        if row:
            rows.append((place, row))
    return rows


def _put(row: dict[str, Any], column: str, cell: str) -> None:
    """Put a cell where its column says: `encoder` is short for `encoder.name`, `forms` holds several words."""
    outer, dot, inner = ("encoder", ".", "name") if column == "encoder" else column.partition(".")
    if dot:
        nested = cast("dict[str, Any]", row.setdefault(outer, {}))
        nested[inner] = cell if inner in ("name", *_PATHS) else _value(cell)
    else:
        row[column] = cell.replace(",", " ").split() if column == "forms" else cell


def _value(cell: str) -> Any:
    """Read JSON (224, [0.5, 0.5, 0.5]), or else take the text as it is."""
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def _text(file: Path) -> str:
    """Read a text file, with or without a byte-order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(file, str(error)) from error


def _unreadable(file: Path, why: str) -> PlanError:
    """Return the error for a file that is no list of networks."""
    return PlanError(
        f"the catalog {file} cannot be read: {why}",
        expected="a TOML, JSON or CSV file (UTF-8) of networks",
        fix=_example(file),
    )


def _example(file: Path) -> str:
    """Return a small file of the same kind."""
    return {
        ".toml": '[[network]] name = "mine" encoder = { name = "timm:resnet18", weights = "mine.safetensors" }, each '
        "on a line of its own",
        ".csv": "a header `name,encoder,encoder.weights` and a line `mine,timm:resnet18,mine.safetensors`",
    }.get(
        file.suffix.lower(),
        '[{"name": "mine", "encoder": {"name": "timm:resnet18", "weights": "mine.safetensors"}}]',
    )
