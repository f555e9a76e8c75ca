"""Pictures in the style of others: how bright, how coloured, how hazy they are, with what they show left as it is.

Two ways, both without training, for batches uint8 [N, C, H, W]; source pictures in the style of target pictures train a
network that meets the target.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Style = Literal["fourier", "colour", "both"]
SHARE = 0.01
"""Half-width of the window of exchanged frequencies, as a share of the shorter side."""


def restyle(
    pictures: Tensor,
    styles: Tensor,
    *,
    generator: np.random.Generator,
    kind: Style = "both",
    chance: float = 0.5,
    share: float = SHARE,
) -> Tensor:
    """Return pictures uint8 [N, C, H, W], each with this chance in the style of a drawn one of `styles` [M, C, H, W].

    `both` draws one of the two ways for each picture. The number of draws depends on N alone.
    """
    count = len(pictures)
    chosen = torch.from_numpy(generator.integers(len(styles), size=count))
    is_changed, is_fourier = torch.from_numpy(generator.random((2, count))) < torch.tensor([[chance], [0.5]])
    if kind != "both":
        is_fourier = torch.full_like(is_fourier, kind == "fourier")
    out, models = pictures.clone(), styles[chosen]
    for rows, change in (
        (is_changed & is_fourier, lambda one, two: swap_amplitude(one, two, share=share)),
        (is_changed & ~is_fourier, match_colours),
    ):
        if rows.any():
            out[rows] = change(pictures[rows], models[rows])
    return out


def swap_amplitude(pictures: Tensor, styles: Tensor, *, share: float = SHARE) -> Tensor:
    """Give pictures the amplitudes of low frequencies of styles (both uint8 [N, C, H, W]); phases stay.

    FDA (Yang & Soatto 2020, arXiv 2004.05498): with F the Fourier transform of a channel, x' = F^-1(|F(style)| inside
    the window |u|, |v| <= b and |F(x)| outside, at the phase of F(x)), b = floor(share x shorter side).
    """
    height, width = pictures.shape[-2:]
    reach = int(share * min(height, width))
    first, second = (torch.fft.rfft2(batch.float()) for batch in (pictures, styles))
    rows = torch.fft.fftfreq(height, 1 / height, device=pictures.device).abs() <= reach
    columns = torch.fft.rfftfreq(width, 1 / width, device=pictures.device) <= reach
    inside = rows[:, None] & columns[None]
    mixed = torch.polar(torch.where(inside, second.abs(), first.abs()), first.angle())
    return _bytes(torch.fft.irfft2(mixed, s=(height, width)))


def match_colours(pictures: Tensor, styles: Tensor) -> Tensor:
    """Give each channel of pictures the mean and standard deviation that it has in styles (both uint8 [N, C, H, W]).

    Reinhard et al. 2001, "Color transfer between images": x' = (x - mean(x)) std(style) / std(x) + mean(style), here
    in the picture's own channels.
    """
    (mean, spread), (new_mean, new_spread) = (_moments(batch.float()) for batch in (pictures, styles))
    return _bytes((pictures.float() - mean) * (new_spread / spread.clamp(min=1)) + new_mean)


def _moments(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, [N, C, 1, 1]."""
    return pictures.mean((2, 3), keepdim=True), pictures.std((2, 3), keepdim=True, correction=0)


def _bytes(pictures: Tensor) -> Tensor:
    """Round to uint8 in the memory layout of pictures."""
    return pictures.round().clamp(0, 255).to(torch.uint8)
