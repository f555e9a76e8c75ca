"""The folder of a pretrained network: weights, how to open it, where it comes from, a card; nothing in it is code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from headstart.core.hashing import plain
from headstart.core.lineage import is_noncommercial
from headstart.core.settings import Pretrained
from headstart.model import FACTS, FORMAT, OWN_FILES, WEIGHTS
from headstart.pretraining.outcome import Outcome
from headstart.report.document import versions

if TYPE_CHECKING:
    from headstart.core.protocols import Encoder

OUTCOME, PAGE = "pretrain.json", "report.html"


def save(
    encoder: Encoder,
    settings: Pretrained,
    outcome: Outcome,
    folder: Path,
    *,
    before: tuple[Mapping[str, Any], ...],
) -> None:
    """Write the network into a folder that a chain can start from and `--encoder FOLDER` opens.

    `before` is the lineage of the folder that pretraining itself started from.
    """
    state = encoder.module.state_dict()
    tensors = {
        f"encoder.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()
    }
    save_file(tensors, folder / WEIGHTS)
    link = {
        "method": "pretrain", "objective": outcome.objective, "data": outcome.data,
        "data_fingerprint": outcome.fingerprint, "data_licence": outcome.data_licence, "encoder": outcome.encoder,
        "licence": outcome.licence, "items": outcome.num_trained, "settings": outcome.settings,
    }  # fmt: skip
    values = {
        "format": FORMAT,
        "task": None,
        "head": None,
        "encoder": settings.model_dump(mode="json"),
        "input": plain(encoder.spec.contract),
        "modality": encoder.spec.modality,
        "licence": outcome.licence,
        "lineage": [*before, link],
        "data_fingerprint": outcome.fingerprint,
        "versions": versions(),
    }
    for name, content in encoder.files().items():
        (folder / OWN_FILES).mkdir(exist_ok=True)
        (folder / OWN_FILES / name).write_bytes(content)
    (folder / FACTS).write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / OUTCOME).write_text(outcome.to_json(), encoding="utf-8")
    (folder / "README.md").write_text(card(outcome, (*before, link)), encoding="utf-8")


def card(outcome: Outcome, lineage: tuple[Mapping[str, Any], ...]) -> str:
    """Return the model card as Markdown with YAML front matter."""
    licence = outcome.licence.lower() if outcome.licence else "unknown"
    restricted = [
        str(name)
        for link in lineage
        for name in (link.get("licence"), link.get("data_licence"))
        if name and is_noncommercial(str(name))
    ]
    last = outcome.history[-1]
    lines = [
        "---", f"license: {licence if ' ' not in licence else 'other'}", "tags: [headstart, self-supervised]", "---",
        f"# {_plain(outcome.encoder)}, pretrained on {_plain(outcome.data)}", "",
        f"{outcome.num_trained:,} {outcome.modality} items without labels; objective {outcome.objective}, "
        f"{len(outcome.history)} epochs, {'from pretrained' if outcome.is_pretrained else 'from random'} weights. "
        f"It knows no task yet: `headstart fit DATA --encoder FOLDER` gives it one.", "",
        f"- loss on held-out items: {last['validation_loss']:.4g} (at the start {outcome.start_loss:.4g})",
        f"- rank of the features: {last['rank']:.1f} (at the start {outcome.start_rank:.1f})",
        f"- licence of the network: {outcome.licence}; of the data: {outcome.data_licence or 'not stated'}",
        *([f"- **no commercial use**: {', '.join(restricted)}"] if restricted else []), "",
        "## Lineage", "",
        *(f"{number}. {_plain(str(link.get('method', '')))} on {_plain(str(link.get('data', '')))} (fingerprint "
          f"{str(link.get('data_fingerprint', ''))[:12]}, licence {link.get('data_licence') or 'not stated'})"
          for number, link in enumerate(lineage, 1)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return a name without what Markdown or HTML would take for marks of its own."""
    return "".join(sign for sign in text if sign.isalnum() or sign in " ._-:/,")
