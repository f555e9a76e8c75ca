"""headstart's few-shot recipe without the audit and the report: what is left is what SetFit's `train` does.

Before: imports, opening the network and its exports. Counted as training: encoding the labelled and the unlabelled
texts (the store holds no features yet), the race of heads, refined class means, tuning by contrast, the final head.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._measure import Job, Watch
from benchmarks._texts import read
from headstart.core.registry import resolve
from headstart.core.settings import Extract, FewShot, Pretrained
from headstart.core.types import Audit
from headstart.data import from_texts
from headstart.features.encode import encode
from headstart.model import Model, open_encoder
from headstart.pipeline.course import Ledger
from headstart.pipeline.few import learn_few
from headstart.pipeline.heads import extract_heads
from headstart.pipeline.material import Material
from headstart.store import Store
from headstart.train.runtime import Context

BATCH = 32


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Train on the labelled and unlabelled texts, predict the test texts; `options["graphs"]` is kept between jobs."""
    texts = read(job.table)
    train = [item for item in texts if item.split != "test"]
    test = [item for item in texts if item.split == "test"]
    labels = sorted({item.label for item in train})
    pretrained, settings = Pretrained(name="minilm"), FewShot(**job.options.get("settings", {}))
    context = Context(
        Store(Path(job.folder) / "store"), torch.device("cpu"), job.options["threads"], job.seed
    )
    with watch.lap("open"):
        encoder = open_encoder(pretrained)
        _export(encoder, context, Path(job.options["graphs"]))
    model = Model(encoder, resolve("task", "classification")(tuple(labels)), None, pretrained)
    targets = [item.label if item.split == "train" else None for item in train]
    dataset = from_texts([item.text for item in train], targets, splits=["train"] * len(train))
    ledger = Ledger(context)
    with watch.lap("train"):
        with ledger.stage("encode"):
            encoded = encode(dataset, encoder, form="depths", context=context)
        material = Material(
            dataset, encoded, [f"#{row}" for row in range(len(train))], Audit(len(train), len(train))
        )
        with ledger.stage("heads"):
            race, _ = extract_heads(model, material, Extract(), "depths", context, ledger)
        with ledger.stage("fewshot"):
            course = learn_few(model, material, settings, race, "depths", context)
    with watch.lap("test"):
        answers = _answers(model, [item.text for item in test])
    named = {item.number: labels[answer] for item, answer in zip(test, answers, strict=True)}
    raced = [[one.name, one.score, one.log_loss, one.chosen] for one in course.race]
    facts = {"race": raced, "stages": ledger.stages, "notes": course.notes, "unlabelled": targets.count(None)}
    return {"predictions": named, "history": course.history, "facts": facts}


def _export(encoder: Any, context: Context, kept: Path) -> None:
    """Bring the exports of the network into the store, from an earlier job where there was one."""
    graphs = context.store.root / "graphs-v1"
    if kept.exists():
        shutil.copytree(kept, graphs)
    encode(from_texts(["A text that no set holds."]), encoder, form="depths", context=context)
    if not kept.exists():
        shutil.copytree(graphs, kept)


def _answers(model: Model, texts: list[str]) -> np.ndarray:
    """Return the class of each text, by torch as SetFit does: an export of a network used once would not pay."""
    answers = np.zeros(len(texts), np.int64)
    order = np.argsort([len(text) for text in texts], kind="stable")
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            batch = model.encoder.collate([texts[int(row)] for row in rows])
            answers[rows] = model.logits(batch).argmax(1).numpy()
    return answers
