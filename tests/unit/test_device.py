"""On the best device that is here, a GPU where there is one: every method fits, reports and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import api
from headstart.core.machine import read_machine
from headstart.data import from_arrays, from_texts


def _pictures() -> Any:
    """Return 60 noisy pictures of two brightnesses."""
    draws = np.random.default_rng(0)
    targets = ["dark", "bright"] * 30
    base = np.array([60 if name == "dark" else 190 for name in targets])[:, None, None, None]
    return from_arrays((base + draws.integers(-40, 40, (60, 32, 32, 3))).astype(np.uint8), targets)


def _texts() -> Any:
    """Return 60 texts of two kinds."""
    draws = np.random.default_rng(0)
    words = {"good": ["lovely", "bright", "warm"], "bad": ["dull", "cold", "grey"]}
    targets = ["good", "bad"] * 30
    return from_texts(
        [" ".join(draws.choice(words[name], 9)) + f" {number}" for number, name in enumerate(targets)],
        targets,
    )


@pytest.mark.parametrize(
    ("data", "encoder", "method"),
    [
        (_pictures, "tiny-cnn", "extract"),
        (_pictures, "tiny-cnn", "finetune"),
        (_texts, "tiny-text-transformer", "finetune"),
        (_texts, "recurrent:bilstm", "finetune"),
        (_texts, "tiny-text-transformer", "fewshot"),
    ],
)
def test_the_device_that_auto_takes_does_all(data: Any, encoder: str, method: Any, tmp_path: Path) -> None:
    machine = read_machine(store=tmp_path / "store", device="auto")
    given = data()
    result = api.fit(given, encoder=encoder, method=method, output=tmp_path / "model", machine=machine)
    assert (result.folder / "report.html").stat().st_size > 10_000
    said = api.predict(result.folder, [given[0].input, given[1].input], machine=machine)
    assert len(said) == 2
