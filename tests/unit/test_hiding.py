"""Hiding a part of an input: how much, where, and that nothing of it shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.core.errors import PlanError
from headstart.modalities.hiding import IGNORED, choose_blocks, enlarged, hide_blocks, hide_tokens


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_share_of_blocks_is_hidden_in_every_picture() -> None:
    mask = choose_blocks(50, (4, 6), ratio=0.75, generator=draws())
    assert mask.shape == (50, 4, 6)
    assert set(mask.flatten(1).sum(1).tolist()) == {18}
    assert len({tuple(row) for row in mask.flatten(1).tolist()}) > 40


def test_a_mask_of_blocks_covers_whole_squares_of_pixels() -> None:
    mask = torch.tensor([[[True, False], [False, False]]])
    assert enlarged(mask, 3)[0, 0, :3, :3].all()
    assert enlarged(mask, 3).sum() == 9


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_hidden_blocks_hold_the_mean_of_what_is_left_and_nothing_of_what_was_there(kind: torch.dtype) -> None:
    pictures = torch.randint(0, 256, (3, 2, 8, 8)).to(kind)
    hidden, mask = hide_blocks(pictures, ratio=0.5, block=4, generator=draws())
    where = enlarged(mask, 4).expand_as(pictures)
    other, _ = hide_blocks(
        torch.where(where, 255 - pictures, pictures), ratio=0.5, block=4, generator=draws()
    )
    assert torch.equal(hidden, other)
    assert torch.equal(hidden[~where], pictures[~where])
    first = pictures[0, 1][~where[0, 1]].float().mean()
    assert hidden[0, 1][where[0, 1]][0].float() == pytest.approx(float(first), abs=0.51)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5])
def test_hiding_nothing_or_everything_is_refused(ratio: float) -> None:
    with pytest.raises(PlanError, match="mask ratio"):
        hide_blocks(torch.zeros(1, 3, 8, 8), ratio=ratio, block=4, generator=draws())
    with pytest.raises(PlanError, match="mask ratio"):
        hide_tokens(
            torch.ones(1, 3, dtype=torch.int64),
            ratio=ratio,
            mask_id=0,
            vocabulary=9,
            special=(),
            generator=draws(),
        )


def test_blocks_that_do_not_divide_a_picture_are_refused() -> None:
    with pytest.raises(PlanError, match="do not divide"):
        hide_blocks(torch.zeros(1, 3, 8, 8), ratio=0.5, block=3, generator=draws())


def test_a_single_block_is_refused_as_nothing_would_be_left() -> None:
    with pytest.raises(PlanError, match="single block"):
        hide_blocks(torch.zeros(1, 3, 8, 8), ratio=0.5, block=8, generator=draws())


def test_chosen_tokens_become_mask_another_or_stay_in_the_shares_of_bert() -> None:
    ids = torch.randint(10, 1000, (400, 50))
    new, targets = hide_tokens(ids, ratio=0.3, mask_id=3, vocabulary=1000, special=(0, 1), generator=draws())
    chosen = targets != IGNORED
    assert float(chosen.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(new[~chosen], ids[~chosen])
    assert float((new[chosen] == 3).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((new[chosen] == ids[chosen]).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_special_tokens_and_padding_are_never_chosen_and_every_text_has_a_target() -> None:
    ids = torch.tensor([[0, 5, 1, -1, -1], [0, 6, 7, 8, 1], [0, 1, -1, -1, -1]])
    for seed in range(20):
        new, targets = hide_tokens(
            ids, ratio=0.1, mask_id=3, vocabulary=9, special=(0, 1), generator=draws(seed)
        )
        kept = (ids <= 1) & (ids != 5)
        assert (targets[kept] == IGNORED).all()
        assert torch.equal(new[kept], ids[kept])
        assert ((targets != IGNORED).sum(1) >= torch.tensor([1, 1, 0])).all()


def test_what_is_hidden_is_decided_by_the_generator_alone() -> None:
    pictures = torch.rand(4, 1, 16, 16)
    masks = [hide_blocks(pictures, ratio=0.6, block=4, generator=draws(seed))[1] for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
