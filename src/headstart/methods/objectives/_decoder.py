"""A small transformer that fills hidden patches in: thrown away after pretraining."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEAD_WIDTH = 32


class Block(nn.Module):
    """Self-attention and a two-layer network, each normalised before and added after."""

    def __init__(self, width: int) -> None:
        """Make the layers; heads are about HEAD_WIDTH wide."""
        super().__init__()
        self.heads = next(count for count in range(max(1, width // HEAD_WIDTH), 0, -1) if width % count == 0)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [N, T, D] to tokens."""
        parts = self.mix(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        return tokens + self.network(self.norm2(tokens))


class PatchDecoder(nn.Module):
    """Tokens [N, K, W] of the visible patches to a prediction [N, T, P] for all T patches of a grid."""

    positions: Tensor

    def __init__(self, inputs: int, outputs: int, *, grid: tuple[int, int], width: int, depth: int) -> None:
        """Make the layers; positions are sines and cosines of row and column."""
        super().__init__()
        self.enter, self.token = nn.Linear(inputs, width), nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, outputs)
        self.register_buffer("positions", waves(grid, width), persistent=False)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Predict; `places` [N, K] say which patches the tokens are of."""
        entered = self.enter(tokens)
        all_tokens = self.token.to(entered.dtype).expand(len(tokens), len(self.positions), -1)
        index = places[..., None].expand(-1, -1, entered.shape[2])
        return self.leave(self.norm(self.blocks(all_tokens.scatter(1, index, entered) + self.positions)))


def waves(grid: tuple[int, int], width: int) -> Tensor:
    """Return positions [rows x columns, width]: sines and cosines of the row, then of the column (Vaswani 2017)."""
    quarter = -(-width // 4)
    rates = 10_000 ** (-torch.arange(quarter) / quarter)
    rows, columns = torch.meshgrid(*(torch.arange(count) for count in grid), indexing="ij")
    angles = [place.flatten()[:, None] * rates for place in (rows, columns)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)[:, :width]
