"""The demo's pictures are what they say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "digits.py"


def test_the_digits_are_written_as_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["digits.py", str(tmp_path / "digits"), "--per-class", "2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert sorted(folder.name for folder in (tmp_path / "digits").iterdir()) == [
        str(digit) for digit in range(10)
    ]
    pictures = sorted((tmp_path / "digits").glob("*/*.png"))
    assert len(pictures) == 20
    first = np.asarray(Image.open(pictures[0]))
    assert (first.shape, first.dtype) == ((8, 8), np.uint8)
    assert first.max() > 200
