"""The race of heads for labels, numbers and words: solvers against scikit-learn, folds, samples, saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_parts import context
from sklearn.linear_model import LogisticRegression, Ridge

from headstart.core.errors import PlanError
from headstart.core.registry import resolve
from headstart.core.settings import Extract
from headstart.methods import extract as module
from headstart.methods.extract import Extracted, extract
from headstart.methods.heads import knn, logistic, ridge
from headstart.methods.heads.folds import folds_of
from headstart.methods.heads.rows import Link, Rows
from headstart.methods.heads.space import principal_space
from headstart.tasks.multilabel import MultiLabel
from headstart.tasks.regression import Regression
from headstart.tasks.tagging import Tagging

TAGS = ("O", "B-person", "I-person", "B-place", "I-place")


def features(count: int = 90, width: int = 8, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return (draws.normal(size=(count, width)) * np.linspace(0.8, 2, width) + 3).astype(np.float32)


def encoded(link: Link, given: np.ndarray, *, noise: float = 0.5) -> np.ndarray:
    """Return shares of three labels [n, 3], or numbers [n], that linear maps of the features know in part."""
    draws = np.random.default_rng(1)
    signal = (given - given.mean(0)) @ np.random.default_rng(7).normal(size=(given.shape[1], 3))
    signal = signal / signal.std(0) + noise * draws.normal(size=signal.shape)
    if link == "identity":
        return (40 + 7 * signal[:, 0]).astype(np.float32)
    return (signal > np.array([-0.5, 0.3, 0.8])).astype(np.float32)


def rows(link: Link, count: int = 90, width: int = 8) -> Rows:
    given = features(count, width)
    targets = encoded(link, given)
    fold = folds_of(targets, [""] * count, None, link=link, folds=5, seed=0)
    columns = targets if targets.ndim == 2 else targets[:, None]
    return Rows(
        principal_space(torch.from_numpy(given), "pooled"),
        torch.from_numpy(columns),
        torch.from_numpy(fold),
        columns.shape[1],
        count,
        link,
    )


def standard(given: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (given - like.mean(0)) / like.std(0)


# -- solvers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(logistic.PENALTIES)))
def test_logistic_regression_of_labels_is_scikit_learn_s_of_each(index: int) -> None:
    given = rows("sigmoid", 200)
    penalty = logistic.PENALTIES[index]
    variant = logistic.variants(given)[index]
    head = variant.fit(given)
    raw, fresh = features(200), features(40, seed=5)
    with torch.no_grad():
        found = head(torch.from_numpy(fresh)).sigmoid().numpy()
    points, fold = given.space.points.double().numpy(), given.fold.numpy()
    for label in range(3):
        truth = given.targets[:, label].numpy()
        oracle = LogisticRegression(C=1 / (penalty * 200), max_iter=5000, tol=1e-6)
        oracle.fit(standard(raw, raw), truth)
        expected = oracle.predict_proba(standard(fresh, raw))[:, 1]
        assert np.allclose(found[:, label], expected, atol=0.02)
        here = fold == 0
        alone = LogisticRegression(C=1 / (penalty * (~here).sum()), max_iter=5000, tol=1e-6)
        expected = alone.fit(points[~here], truth[~here]).predict_proba(points[here])[:, 1]
        assert np.allclose(variant.logits[:, label].sigmoid().numpy()[here], expected, atol=0.05)


@pytest.mark.parametrize("link", ["sigmoid", "identity"])
@pytest.mark.parametrize(("count", "width"), [(90, 8), (24, 60)])
def test_ridge_of_labels_and_numbers_is_scikit_learn_s(link: Link, count: int, width: int) -> None:
    given = rows(link, count, width)
    points, fold, truth = given.space.points.numpy(), given.fold.numpy(), given.targets.numpy()

    def seen(predictions: np.ndarray) -> np.ndarray:
        return predictions if link == "identity" else ridge.SHARPNESS * (predictions - 0.5)

    for name, variant in zip(ridge.PENALTIES, ridge.variants(given), strict=True):
        alpha = name * float(given.space.variances.mean()) * count
        for number in range(given.num_folds):
            here = fold == number
            oracle = Ridge(alpha=alpha).fit(points[~here], truth[~here])
            expected = seen(oracle.predict(points[here]).reshape(here.sum(), -1))
            assert np.allclose(variant.logits.numpy()[here], expected, atol=0.02, rtol=1e-3)
        whole = Ridge(alpha=alpha).fit(points, truth)
        with torch.no_grad():
            found = variant.fit(given)(torch.from_numpy(features(count, width))).numpy()
        assert np.allclose(found, seen(whole.predict(points).reshape(count, -1)), atol=0.02, rtol=1e-3)


@pytest.mark.parametrize("link", ["sigmoid", "identity"])
def test_neighbours_answer_by_the_weighted_mean_of_other_folds(link: Link) -> None:
    given = rows(link)
    unit = given.space.points / given.space.points.norm(dim=1, keepdim=True)
    truth, fold = given.targets.numpy(), given.fold.numpy()
    similarity = (unit @ unit.T).numpy()
    similarity[fold[:, None] == fold[None]] = -2
    for count, variant in zip(knn.NEIGHBOURS, knn.variants(given), strict=True):
        nearest = np.argsort(-similarity, axis=1)[:, :count]
        near = np.take_along_axis(similarity, nearest, 1)
        weight = np.exp(near / knn.TEMPERATURE)[:, :, None]
        total, mean = weight.sum(1), (weight * truth[nearest]).sum(1)
        expected = mean / total
        if link == "sigmoid":
            expected = (mean + total / count / 2) / (total * (1 + 1 / count))
            expected = np.log(expected / (1 - expected))
        assert np.allclose(variant.logits.numpy(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
@pytest.mark.parametrize("solver", [logistic, ridge, knn])
def test_every_head_is_rebuilt_from_its_arguments_for_items_and_words(solver, link: Link) -> None:
    if link not in solver.LINKS:
        return
    given = rows("sigmoid" if link == "softmax" else link)
    if link == "softmax":
        given = Rows(given.space, given.targets[:, 0].long(), given.fold, 2, 90)
    head = solver.variants(given)[0].fit(given).eval()
    again = resolve("head", head.kind)(**head.arguments()).eval()
    again.load_state_dict(head.state_dict())
    items = torch.from_numpy(features())
    with torch.no_grad():
        expected = head(items)
        assert torch.equal(again(items), expected)
        assert torch.allclose(head(items.view(9, 10, 8)).flatten(0, 1), expected, atol=1e-5)


def test_the_fit_on_all_rows_does_not_depend_on_which_part_raced() -> None:
    given = features(300)
    targets = torch.from_numpy((given[:, 0] > 3).astype(np.int64) + (given[:, 1] > 3))

    def part(count: int) -> Rows:
        space = principal_space(torch.from_numpy(given[:count]), "pooled")
        return Rows(space, targets[:count], torch.arange(count) % 5, 3, count)

    whole, raced = part(300), part(100)
    for one, other in zip(logistic.variants(whole), logistic.variants(raced), strict=True):
        with torch.no_grad():
            found = [variant.fit(whole)(torch.from_numpy(given)).softmax(1) for variant in (one, other)]
        assert torch.allclose(*found, atol=0.02)


# -- folds ----------------------------------------------------------------------------------------------------


def test_folds_keep_labels_and_numbers_in_proportion() -> None:
    shares = np.zeros((100, 3), np.float32)
    shares[:10, 2] = shares[:60, 0] = 1
    fold = folds_of(shares, [""] * 100, None, link="sigmoid", folds=5, seed=0)
    assert np.bincount(fold[:10]).tolist() == [2] * 5
    values = np.arange(100, dtype=np.float32)
    fold = folds_of(values, [""] * 100, None, link="identity", folds=5, seed=0)
    assert all(len(set(fold[start : start + 10])) == 5 for start in range(0, 100, 10))


def test_a_label_of_one_item_takes_no_folds_away() -> None:
    shares = np.zeros((50, 2), np.float32)
    shares[0, 1] = 1
    assert folds_of(shares, [""] * 50, None, link="sigmoid", folds=5, seed=0).max() == 4
    assert folds_of(shares[:3], [""] * 3, None, link="sigmoid", folds=5, seed=0).max() == 2


def test_words_of_a_text_and_texts_of_a_document_share_a_fold() -> None:
    items = np.repeat(np.arange(40), 5)
    targets = np.tile([0, 0, 1, 2, 0], 40)
    groups = [f"document {item // 4}" if item < 20 else "" for item in items]
    fold = folds_of(targets, groups, items, link="softmax", folds=5, seed=0)
    assert all(len(set(fold[items == item])) == 1 for item in range(40))
    assert all(len(set(fold[(items // 4 == number) & (items < 20)])) == 1 for number in range(5))
    assert len(set(fold)) == 5


# -- the race -------------------------------------------------------------------------------------------------


def labelled(root: Path, link: Link, **settings) -> Extracted:
    given = features(120)
    task = MultiLabel(["a", "b", "c"]) if link == "sigmoid" else Regression()
    return extract(
        {"pooled": [given]}, encoded(link, given), [""] * 120,
        task=task, settings=Extract(**settings), context=context(root),
    )  # fmt: skip


def test_labels_race_by_macro_f1(tmp_path: Path) -> None:
    done = labelled(tmp_path, "sigmoid")
    (winner,) = [entry for entry in done.race if entry.chosen]
    assert {entry.name.split(",")[0] for entry in done.race} == {"knn", "ridge", "logistic"}
    assert winner.score == max(entry.score for entry in done.race) > 0.75
    truth = encoded("sigmoid", features(120))
    task = MultiLabel(["a", "b", "c"])
    assert task.measure(done.held_out_logits, truth)[0] == pytest.approx(winner.score)
    assert 0 < winner.standard_error < 0.1


def test_numbers_race_by_r2_and_come_out_in_their_own_unit(tmp_path: Path) -> None:
    done = labelled(tmp_path, "identity")
    (winner,) = [entry for entry in done.race if entry.chosen]
    assert {entry.name.split(",")[0] for entry in done.race} == {"knn", "ridge"}
    assert winner.score == max(entry.score for entry in done.race) > 0.6
    given = features(120)
    with torch.no_grad():
        found = done.head(torch.from_numpy(given)).numpy()
    assert found.shape == done.held_out_logits.shape == (120, 1)
    assert Regression().measure(found, encoded("identity", given))[0] >= winner.score


def test_heads_that_do_not_suit_the_task_leave_the_race(tmp_path: Path) -> None:
    done = labelled(tmp_path, "identity", heads=("logistic", "ridge"))
    assert all(entry.name.startswith("ridge") for entry in done.race)
    with pytest.raises(PlanError, match="none of the heads logistic, prototype suits"):
        labelled(tmp_path, "identity", heads=("logistic", "prototype"))


def words(texts: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return word features [m, 6], tag ids [m] and texts [m] of legal tags."""
    draws = np.random.default_rng(seed)
    lines = (("O", "B-person", "I-person", "O"), ("B-place", "O"), ("O", "O", "B-person"), ("O",))
    tags = [lines[draws.integers(0, 4)] for _ in range(texts)]
    ids = np.array([TAGS.index(tag) for line in tags for tag in line])
    items = np.repeat(np.arange(texts), [len(line) for line in tags])
    given = 3 * np.eye(5, 6)[ids] + draws.normal(size=(len(ids), 6))
    return given.astype(np.float32), ids, items


def tagged(root: Path, texts: int = 60, **settings) -> Extracted:
    given, ids, items = words(texts)
    return extract(
        {"sequence": [given]}, ids, [""] * len(ids),
        task=Tagging(TAGS), settings=Extract(**settings), context=context(root), items=items,
    )  # fmt: skip


def test_words_race_by_the_span_f1_of_whole_texts(tmp_path: Path) -> None:
    done = tagged(tmp_path)
    given, ids, items = words()
    (winner,) = [entry for entry in done.race if entry.chosen]
    quality, error, loss = Tagging(TAGS).measure(done.held_out_logits, ids, items)
    assert (winner.score, winner.standard_error, winner.log_loss) == pytest.approx((quality, error, loss))
    assert winner.score > 0.6 and winner.name.endswith("(word features)")
    assert done.head.form == "sequence"
    with torch.no_grad():
        assert done.head(torch.from_numpy(given).view(1, -1, 6)).shape == (1, len(ids), 5)


def test_many_words_race_by_a_sample_of_whole_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ids, items = words(200)
    monkeypatch.setattr(module, "MAX_RACED", 150)
    done = tagged(tmp_path, 200, heads=("logistic",))
    assert 75 < len(done.held_out) < 250
    for item in np.unique(items[done.held_out]):
        assert (items[done.held_out] == item).sum() == (items == item).sum()
    with torch.no_grad():
        found = done.head(torch.from_numpy(words(200)[0])).argmax(1).numpy()
    assert (found == ids).mean() > 0.85
