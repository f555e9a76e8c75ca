"""Write scikit-learn's handwritten digits (UCI, 8 x 8 pixels, BSD-3) as PNG files in one folder a class.

The pictures are real but tiny: enough to try everything on a laptop in a minute, without a download.

    python examples/digits.py demo/digits [--per-class 60]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

WHITE = 16
"""The brightest value of the data set."""


def write_digits(folder: Path, *, per_class: int) -> int:
    """Write the first `per_class` pictures of each digit; return how many there are."""
    pixels, targets = (np.asarray(part) for part in load_digits(return_X_y=True))
    pictures = np.round(pixels.reshape(-1, 8, 8) / WHITE * 255).astype(np.uint8)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(targets == digit)[:per_class]:
            Image.fromarray(pictures[index]).save(folder / str(digit) / f"{index:04d}.png")
    return sum(1 for _ in folder.glob("*/*.png"))


def main() -> None:
    """Read the arguments and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, default=60)
    arguments = parser.parse_args()
    number = write_digits(arguments.folder, per_class=arguments.per_class)
    print(f"{number} handwritten digits in {arguments.folder}")


if __name__ == "__main__":
    main()
