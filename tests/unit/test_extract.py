"""The race of heads: the best by cross-validation, fitted on all, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_parts import context

from headstart.core.errors import TrainingError
from headstart.core.settings import Extract
from headstart.methods import extract as module
from headstart.methods.extract import Extracted, extract
from headstart.tasks.classification import Classification
from headstart.train.runtime import Event

COUNT, CLASSES = 60, 3
TARGETS = np.arange(COUNT) % CLASSES
TASK = Classification([f"class {number}" for number in range(CLASSES)])


def features(width: int = 8, *, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return clouds around class centres, float32 [COUNT, width]."""
    centres = np.random.default_rng(99).normal(size=(CLASSES, width))
    drawn = np.random.default_rng(seed).normal(size=(COUNT, width))
    return (centres[TARGETS] + noise * drawn).astype(np.float32)


def raced(
    root: Path, given: dict | None = None, *, groups=None, progress=lambda _: None, **settings
) -> Extracted:
    """Race heads with these settings."""
    return extract(
        given or {"pooled": [features()]}, TARGETS, groups or [""] * COUNT,
        task=TASK, settings=Extract(**settings), context=context(root, progress=progress),
    )  # fmt: skip


def test_the_head_of_the_best_score_wins_and_log_loss_breaks_ties(tmp_path: Path) -> None:
    done = raced(tmp_path, {"pooled": [features(noise=2.0)]})
    (winner,) = [entry for entry in done.race if entry.chosen]
    assert (winner.score, -winner.log_loss) == max((entry.score, -entry.log_loss) for entry in done.race)
    assert len({entry.name for entry in done.race}) == len(done.race)


def test_the_winner_s_held_out_logits_are_what_its_score_was_measured_on(tmp_path: Path) -> None:
    done = raced(tmp_path, {"pooled": [features(noise=2.0)]})
    (winner,) = [entry for entry in done.race if entry.chosen]
    assert done.held_out_logits.shape == (COUNT, CLASSES)
    assert winner.score == pytest.approx((done.held_out_logits.argmax(1) == TARGETS).mean())
    assert 0 < winner.standard_error < 0.1


def test_classes_that_lie_apart_are_told_apart(tmp_path: Path) -> None:
    done = raced(tmp_path, {"pooled": [features(noise=0.1)]})
    with torch.no_grad():
        found = done.head(torch.from_numpy(features(noise=0.1, seed=1))).argmax(1).numpy()
    assert (found == TARGETS).all()


def test_the_form_that_tells_more_wins(tmp_path: Path) -> None:
    noise, good = features(noise=50.0), features(12, noise=0.2)
    done = raced(tmp_path, {"pooled": [noise], "depths": [np.concatenate([noise, good], 1)]})
    (winner,) = [entry for entry in done.race if entry.chosen]
    assert winner.name.endswith("(several depths)")
    assert done.head.form == "depths"


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    one, other = raced(tmp_path), raced(tmp_path)
    assert all(
        torch.equal(tensor, other.head.state_dict()[name]) for name, tensor in one.head.state_dict().items()
    )
    assert np.array_equal(one.held_out_logits, other.held_out_logits)


@pytest.mark.parametrize("head", ["logistic", "ridge", "prototype", "knn"])
def test_only_the_heads_asked_for_race(tmp_path: Path, head: str) -> None:
    done = raced(tmp_path, heads=(head,))
    assert {entry.name.split(",")[0].split(" ")[0] for entry in done.race} == {head}


def test_views_train_but_are_never_scored(tmp_path: Path) -> None:
    views = [features(noise=1.0), features(noise=1.0) + 0.05, features(noise=1.0) - 0.05]
    done = raced(tmp_path, {"pooled": views})
    assert done.held_out_logits.shape == (COUNT, CLASSES)


def test_a_copy_in_another_view_does_not_give_its_item_away(tmp_path: Path) -> None:
    """Noise without any signal stays at chance although every item is there three times."""
    noise = np.random.default_rng(0).normal(size=(COUNT, 40)).astype(np.float32)
    done = raced(tmp_path, {"pooled": [noise, noise, noise]}, heads=("knn", "ridge"))
    assert max(entry.score for entry in done.race) < 0.6


def test_items_of_one_group_are_never_trained_and_scored_at_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(COUNT // 6, 40))
    copies = np.repeat(noise, 6, 0).astype(np.float32)
    targets = np.repeat(np.arange(COUNT // 6) % CLASSES, 6)
    groups = [str(row // 6) for row in range(COUNT)]

    def best(names: list[str]) -> float:
        done = extract(
            {"pooled": [copies]}, targets, names,
            task=TASK, settings=Extract(heads=("knn",)), context=context(tmp_path),
        )  # fmt: skip
        return max(entry.score for entry in done.race)

    assert best([""] * COUNT) == 1.0
    assert best(groups) < 0.75


def test_features_that_are_not_finite_are_an_error_that_says_so(tmp_path: Path) -> None:
    given = features()
    given[3, 2] = np.nan
    with pytest.raises(TrainingError, match=r"not finite \(pooled features\)"):
        raced(tmp_path, {"pooled": [given]})


def test_a_constant_feature_and_fewer_items_than_features_are_fine(tmp_path: Path) -> None:
    given = features(200)
    given[:, 5] = 1.0
    done = raced(tmp_path, {"pooled": [given]})
    assert all(np.isfinite([entry.score, entry.log_loss]).all() for entry in done.race)


def test_many_items_race_by_a_sample_and_the_winner_is_fitted_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = raced(tmp_path, heads=("ridge",))
    monkeypatch.setattr(module, "MAX_RACED", 40)
    done = raced(tmp_path, heads=("ridge",))
    (winner,) = [entry for entry in done.race if entry.chosen]
    (of_all,) = [entry for entry in whole.race if entry.chosen]
    assert done.held_out_logits.shape == (40, CLASSES)
    if winner.name == of_all.name:
        assert torch.allclose(done.head.weight, whole.head.weight)
    assert torch.allclose(done.head.mean, torch.from_numpy(features().mean(0)), atol=1e-5)


def test_neighbours_leave_the_race_where_there_are_too_many_to_remember(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    assert not any(entry.name.startswith("knn") for entry in raced(tmp_path).race)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[Event] = []
    raced(tmp_path, progress=seen.append)
    assert [event.done for event in seen] == [0, 1, 2, 3, 4]
    assert {event.total for event in seen} == {4}
