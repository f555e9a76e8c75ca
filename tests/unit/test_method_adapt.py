"""Adaptation through the one loop: it helps where domains differ, looks at no target label, resumes to the bit."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_parts import ENCODERS, Parts, context, state
from torch import Tensor, nn

from headstart.core.errors import DataError, PlanError, ResumeError, TrainingError
from headstart.core.registry import names
from headstart.core.settings import Adapt, Pretrained
from headstart.data import TableDataset, from_arrays, from_texts
from headstart.encoders.tiny_text import open_tiny_text_transformer
from headstart.heads import BottleneckHead, LinearHead, NeighboursHead
from headstart.methods.adapt import Adapted, Changes, adapt
from headstart.methods.alignment.learner import own_statistics, trimmed
from headstart.methods.alignment.pairs import Pairs, Side, interleaved, joined
from headstart.methods.alignment.teacher import Teacher
from headstart.modalities.hiding import hide_blocks
from headstart.tasks.classification import Classification
from headstart.train.optim import ParameterGroup
from headstart.train.runtime import Event, draw

DIGITS = tuple("0123456789")


def digits(rows: slice, *, darkened: bool = False, masked: bool = False, classes: int = 10) -> TableDataset:
    """Return handwritten digits (scikit-learn's), 32 px; darkened ones are dim, noisy and of low contrast."""
    sklearn = pytest.importorskip("sklearn.datasets")
    loaded = sklearn.load_digits()
    kept = np.flatnonzero(loaded.target < classes)[rows]
    pictures = np.kron(loaded.images[kept] * 15.9, np.ones((4, 4)))
    if darkened:
        noise = draw(0, "noise", 0, 0).normal(0, 12, pictures.shape)
        pictures = pictures * 0.35 + 25 + noise
    found = np.clip(pictures, 0, 255).astype(np.uint8)
    made = from_arrays(list(found), [str(target) for target in loaded.target[kept]])
    return replace(made, targets=[None] * len(made)) if masked else made


def model(kind: str = "cnn", *, labels: tuple[str, ...] = DIGITS, head: str = "linear") -> Parts:
    """Return a fresh model: always the same one."""
    encoder = ENCODERS[kind](Pretrained(name=f"tiny-{kind}"))
    torch.manual_seed(0)
    kinds = {"linear": LinearHead, "bottleneck": BottleneckHead}
    return Parts(encoder, kinds[head](encoder.spec.width["pooled"], len(labels)), Classification(labels))


def run(
    root: Path,
    terms: tuple[str, ...] = ("mcc",),
    *,
    parts: Parts | None = None,
    source: TableDataset | None = None,
    target: TableDataset | None = None,
    progress: Any = lambda event: None,
    changes: Changes | None = None,
    is_free: bool = False,
    held_out: TableDataset | None = None,
    workers: int = 0,
    folder: str | None = "run",
    **settings: Any,
) -> tuple[Parts, Adapted]:
    """Adapt a fresh model for two epochs from some digits to darkened ones; keywords are settings."""
    parts = parts or model()
    values = {"epochs": 2, "batch_size": 8, "checkpoint_steps": 1, **settings}
    done = adapt(
        parts,
        source=None if is_free else source or digits(slice(0, 24)),
        target=digits(slice(24, 48), darkened=True, masked=True) if target is None else target,
        settings=Adapt(terms=dict.fromkeys(terms), **values),
        context=context(root, progress, workers=workers, folder=folder),
        held_out=held_out,
        changes=changes,
    )
    return parts, done


def accuracy(parts: Parts, dataset: TableDataset) -> float:
    """Return the share of right answers."""
    with torch.no_grad():
        inputs = parts.encoder.collate([dataset[index].input for index in range(len(dataset))])
        outputs = parts.head(parts.encoder(inputs, parts.head.form).value)
    truth = parts.task.encode([dataset[index].target for index in range(len(dataset))])
    return float((outputs.argmax(1).numpy() == truth).mean())


BLOCKS = partial(hide_blocks, block=8)
"""How the modality hides a part of a picture."""


# -- it helps -------------------------------------------------------------------------------------------------


WHOLE: dict[str, Any] = {
    "train_last": None, "learning_rate": 2e-2, "head_learning_rate": 2e-2, "augment": "none", "checkpoint_steps": None,
}  # fmt: skip
"""Training of everything that a few epochs suffice for."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a model that was trained on clean digits alone, and how well it reads darkened ones."""
    parts, _ = run(
        tmp_path_factory.mktemp("source"), (), source=digits(slice(0, 400)), target=digits(slice(0, 400), masked=True),
        epochs=8, batch_size=32, layer_decay=1, **WHOLE,
    )  # fmt: skip
    return {"body": parts.encoder.module.state_dict(), "head": parts.head.state_dict()}


def source_model(trained: dict[str, Any]) -> Parts:
    """Return the trained model anew."""
    parts = model()
    parts.encoder.module.load_state_dict(trained["body"])
    parts.head.load_state_dict(trained["head"])
    return parts


@pytest.mark.parametrize(("terms", "is_free"), [(("mcc",), False), (("mmd",), False), (("shot",), True)])
def test_it_lifts_a_model_on_darkened_digits(
    tmp_path: Path, trained: dict[str, Any], terms: tuple[str, ...], is_free: bool
) -> None:
    unseen, clean = digits(slice(800, 1100), darkened=True), digits(slice(800, 1100))
    parts = source_model(trained)
    before = accuracy(parts, unseen)
    assert accuracy(parts, clean) > 0.8 > 0.5 > before
    _, done = run(
        tmp_path, terms, parts=parts, source=digits(slice(0, 400)), is_free=is_free, held_out=clean,
        target=digits(slice(400, 800), darkened=True, masked=True), epochs=3, batch_size=32, **WHOLE,
    )  # fmt: skip
    assert accuracy(parts, unseen) > before + 0.3
    # What was known of the source is not forgotten: its own statistics bring it back.
    assert done.end.quality > 0.7


def test_a_new_head_over_fixed_features_learns_the_source_and_takes_the_place_of_the_old(
    tmp_path: Path,
) -> None:
    held_out = digits(slice(600, 700))
    parts, done = run(
        tmp_path, ("coral", "mmd", "afn"), source=digits(slice(0, 300)), head="bottleneck", epochs=8, batch_size=32,
        held_out=held_out, checkpoint_steps=None,
    )  # fmt: skip
    assert isinstance(parts.head, BottleneckHead)
    assert not parts.head.training
    assert done.head == "bottleneck"
    assert done.end.quality > done.start.quality + 0.2
    assert done.held_out is not None
    right = done.held_out.argmax(1) == parts.task.encode(held_out.targets)
    assert done.end.quality == pytest.approx(float(right.mean()))
    assert done.weights == {"coral": 1.0, "mmd": 1.0, "afn": 0.05}
    assert [row["epoch"] for row in done.history] == [float(epoch) for epoch in range(1, 9)]


# -- no leak --------------------------------------------------------------------------------------------------


class Forbidden(TableDataset):
    """A dataset that nobody may ask for a label."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        assert sample.target is None, "a label of the target reached the method"
        return sample


@pytest.mark.parametrize("settings", [{}, {"train_last": None}, {"head": "bottleneck"}])
def test_permuting_the_targets_labels_changes_no_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    target = digits(slice(24, 48), darkened=True)
    states: list[dict[str, bytes]] = []
    for name, order in (("a", range(24)), ("b", np.random.default_rng(0).permutation(24))):
        labelled = replace(target, targets=[target.targets[int(row)] for row in order])
        parts, _ = run(tmp_path / name, ("mcc", "fixmatch"), target=labelled, **settings)
        states.append(state(parts))
    assert states[0] == states[1]


def test_the_target_in_the_order_of_the_source_is_not_met_class_by_class() -> None:
    side = {"count": 64, "batch_size": 16, "open": lambda chosen, lap: torch.from_numpy(chosen), "item": str}
    pairs = Pairs(Side("source", **side), Side("target", **side), 0)
    first, second = (one.indices(0, 0)[0] for one in (pairs.source, pairs.target) if one)
    assert not np.array_equal(first, second)


# -- what rests and what moves --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_frozen_groups_stay_bit_identical_statistics_too(tmp_path: Path, kind: str) -> None:
    parts = model(kind)
    before = state(parts)
    groups = parts.encoder.layer_groups()
    # Hidden inputs must enter at the start, so here the frozen groups are part of the module that trains.
    run(
        tmp_path, ("mcc", "masked"), parts=parts, train_last=2, changes=Changes(hide=BLOCKS), head_learning_rate=1e-2,
        learning_rate=1e-2,
    )  # fmt: skip
    after = state(parts)
    module = parts.encoder.module
    frozen = {id(tensor) for group in groups[:2] for tensor in group.parameters.values()}
    frozen |= {id(tensor) for group in groups[:2] for part in group.modules for tensor in part.buffers()}
    names_of = {name for name, tensor in module.state_dict(keep_vars=True).items() if id(tensor) in frozen}
    assert names_of
    assert all(after[name] == before[name] for name in names_of)
    assert any(after[name] != before[name] for name in after)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


def test_with_the_head_alone_the_encoder_stays_as_it_is(tmp_path: Path) -> None:
    parts = model()
    before = state(parts)
    run(tmp_path, ("mcc",), parts=parts)
    after = state(parts)
    assert all(after[name] == value for name, value in before.items() if not name.startswith("head."))
    assert after["head.weight"] != before["head.weight"]


@pytest.mark.parametrize("head", ["linear", "bottleneck"])
def test_shot_leaves_the_classifier_as_it_is_and_needs_no_source(tmp_path: Path, head: str) -> None:
    parts = model(head=head)
    if head == "linear":
        nn.init.normal_(parts.head.weight)
    before = state(parts)
    _, done = run(tmp_path, ("shot",), parts=parts, is_free=True, train_last=0 if head == "bottleneck" else 2)
    after = state(parts)
    classifier = "head.classifier." if head == "bottleneck" else "head."
    assert all(after[name] == before[name] for name in before if name.startswith(classifier))
    moved = [name for name in before if after[name] != before[name]]
    assert moved
    assert all(name.startswith("head.below.") for name in moved) == (head == "bottleneck")
    assert done.steps == 6


def test_the_teacher_averages_weights_and_statistics_and_copies_counters() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    group = ParameterGroup("all", (network,), dict(network.named_parameters()), 1e-3)
    teacher = Teacher(network, (group,), 0.75)
    assert {*teacher.names} == {*network.state_dict()}
    inputs = torch.randn(4, 2)
    assert torch.equal(teacher.answer(network, inputs), network(inputs))
    before = {name: tensor.clone() for name, tensor in teacher.averages().items()}
    network.train()(10 * inputs)
    with torch.no_grad():
        network[0].weight.add_(1)
    teacher.update(network, 99)
    for name, now in network.state_dict().items():
        if "batches" in name:
            assert torch.equal(teacher.averages()[name], now)
        else:
            assert torch.allclose(teacher.averages()[name], 0.75 * before[name] + 0.25 * now)
    assert not torch.equal(before["1.running_var"], teacher.averages()["1.running_var"])
    assert network.training
    teacher.update(network, 0)  # At the start there is nothing to average.
    assert torch.equal(teacher.averages()["0.weight"], network[0].weight)


def test_only_inputs_that_will_be_met_move_running_statistics_and_one_row_has_none() -> None:
    norm, rows = nn.BatchNorm1d(2), torch.randn(8, 2) + 5
    with own_statistics(norm, count=8, is_recorded=False):
        assert float(norm(rows).detach().mean().abs()) < 1e-5
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0, 0]
    with own_statistics(norm, count=1, is_recorded=True):
        assert float(norm(rows[:1]).detach().min()) > 1
    with own_statistics(norm, count=8, is_recorded=True):
        norm(rows)
    assert float(norm.running_mean.min()) > 0.1
    assert norm.training
    assert norm.momentum == 0.1


# -- resume ---------------------------------------------------------------------------------------------------


class CutError(Exception):
    """Stands for a crash."""


RESUMED: list[dict[str, Any]] = [
    {"terms": ("mcc", "dann", "fixmatch")},
    {"terms": ("mcc", "masked", "cdan", "fixmatch"), "train_last": None, "changes": Changes(hide=BLOCKS)},
    {"terms": ("shot", "mcc"), "train_last": 2, "is_free": True},
    {"terms": ("fixmatch",), "train_last": 1, "views": 2},
]


@pytest.mark.parametrize("values", RESUMED)
def test_a_cut_after_any_step_changes_no_bit(tmp_path: Path, values: dict[str, Any]) -> None:
    whole, done = run(tmp_path / "whole", **values)
    for at in range(1, done.steps, 2):

        def crash(event: Event, at: int = at) -> None:
            if event.stage == "adapt" and event.done == at and not event.message:
                raise CutError

        with pytest.raises(CutError):
            run(tmp_path / "cut", progress=crash, workers=at % 3, **values)
    parts, again = run(tmp_path / "cut", **values)
    assert state(parts) == state(whole)
    assert [row["train_loss"] for row in again.history] == [row["train_loss"] for row in done.history]


def test_other_items_or_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ResumeError, match=r"settings\.temperature: checkpoint has 2\.5, this run has 1"):
        run(tmp_path, temperature=1.0)
    with pytest.raises(ResumeError, match="target: checkpoint has"):
        run(tmp_path, target=digits(slice(50, 70), masked=True))


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a", ("dann", "jdot" if _has_transport() else "mmd"))
    second, _ = run(tmp_path / "b", ("dann", "jdot" if _has_transport() else "mmd"), workers=2)
    assert state(first) == state(second)


def _has_transport() -> bool:
    try:
        import ot  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


# -- bad input and odd sizes ----------------------------------------------------------------------------------

FREE = ("afn", "fixmatch", "masked", "mcc", "shot")


@pytest.mark.parametrize("name", [name for name in names("term") if name not in ("udalm", "jdot")])
@pytest.mark.parametrize("count", [1, 3])
def test_every_term_trains_with_very_few_target_items(tmp_path: Path, name: str, count: int) -> None:
    _, done = run(
        tmp_path, (name,), target=digits(slice(24, 24 + count), darkened=True, masked=True), train_last=None,
        epochs=1, changes=Changes(hide=BLOCKS), folder=None,
    )  # fmt: skip
    assert all(np.isfinite(row["train_loss"]) for row in done.history)


def test_more_classes_than_items_in_a_batch(tmp_path: Path) -> None:
    _, done = run(tmp_path, ("mcc",), batch_size=4, train_last=None)
    assert done.steps == 12


@pytest.mark.parametrize("name", ["mcc", "fixmatch", "afn", "masked"])
def test_a_source_that_is_gone_is_no_hindrance_to_terms_that_need_none(tmp_path: Path, name: str) -> None:
    parts = model()
    nn.init.normal_(parts.head.weight)
    before = state(parts)
    run(
        tmp_path,
        (name,),
        parts=parts,
        is_free=True,
        train_last=2,
        changes=Changes(hide=BLOCKS),
        confidence=0.0,
    )
    assert state(parts) != before


def test_a_batch_in_parts_goes_on_as_long_as_each_part_holds_both_domains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pairs, "rows", property(lambda self: 3))
    _, done = run(tmp_path / "a", ("mcc", "coral", "fixmatch"), train_last=None)
    assert np.isfinite(done.history[-1]["train_loss"])
    monkeypatch.setattr(Pairs, "rows", property(lambda self: 1))
    with pytest.raises(TrainingError, match="1 items a pass do not hold both domains"):
        run(tmp_path / "b", ("mcc",), train_last=None)


def test_an_item_that_is_not_finite_is_named_with_its_domain(tmp_path: Path) -> None:
    def spoil(source: Tensor, target: Tensor, *, generator: np.random.Generator) -> Tensor:
        return source.float().index_fill(0, torch.tensor([0]), torch.nan)

    with pytest.raises(TrainingError, match=r"through source \d+ \(their inputs are not finite\)"):
        run(tmp_path, ("mcc",), train_last=None, changes=Changes(restyle=spoil), folder=None)


def test_an_unequal_batch_is_spread_so_that_every_part_holds_both() -> None:
    order = interleaved([6, 2])
    assert sorted(order.tolist()) == list(range(8))
    assert all((order[start : start + 4] >= 6).any() for start in (0, 4))
    assert interleaved([3, 3]).tolist() == [0, 3, 1, 4, 2, 5]


def test_texts_of_both_domains_are_padded_to_one_shape_and_cut_to_their_own() -> None:
    first, second = torch.ones(1, 1, 4, 2, dtype=torch.int64), torch.ones(2, 2, 3, 2, dtype=torch.int64)
    both = joined([first, second])
    assert both.shape == (3, 2, 4, 2)
    assert both[0, 1].unique().tolist() == [-1]
    assert trimmed(both[1:]).shape == (2, 2, 3, 2)
    assert trimmed(both[:1]).shape == (1, 1, 4, 2)
    assert torch.equal(joined([torch.ones(1, 2), torch.ones(1, 3)])[0], torch.tensor([1.0, 1, 0]))


@pytest.mark.parametrize(("settings", "said"), [
    ({"terms": ("dann",), "is_free": True}, "without a source"),
    ({"terms": (), "is_free": True}, "without a source"),
    ({"terms": ("masked",)}, "the encoder rests"),
    ({"terms": ("masked",), "train_last": None}, "nothing says how inputs are hidden"),
    ({"terms": ("udalm",), "train_last": None}, "no masked-language loss"),
    ({"terms": ("shot",)}, "leave the classifier as it is"),
    ({"terms": ("shot", "dann"), "train_last": None}, "shot lets the classifier and the source rest"),
    ({"terms": ("mcc",), "train_last": 9}, "has 4 layer groups"),
    ({"terms": ("dann",), "head": "own"}, "cannot be adapted by the terms dann"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_computed(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        run(tmp_path, **settings)
    assert not (tmp_path / "run").exists()


def test_an_empty_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="the target has 0 items"):
        run(tmp_path, target=digits(slice(0, 4)).subset([]))


@pytest.mark.parametrize("settings", [{}, {"train_last": 2}])
def test_source_items_without_a_label_are_left_out(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = digits(slice(0, 24))
    some = replace(source, targets=[*source.targets[:16], *[None] * 8])
    first, _ = run(tmp_path / "a", ("mmd",), source=some, **settings)
    second, _ = run(tmp_path / "b", ("mmd",), source=source.subset(range(16)), **settings)
    assert state(first) == state(second)
    with pytest.raises(DataError, match="the source has no labelled item"):
        run(tmp_path / "c", ("mcc",), source=replace(source, targets=[None] * 24), **settings)


def test_a_head_that_cannot_train_is_exchanged_where_there_is_a_source(tmp_path: Path) -> None:
    def neighbours() -> Parts:
        parts = model()
        parts.head = NeighboursHead(24, 10, count=2, neighbours=1, temperature=0.1)
        return parts

    parts, _ = run(tmp_path, ("mcc",), parts=neighbours(), train_last=1)
    assert isinstance(parts.head, BottleneckHead)
    with pytest.raises(PlanError, match="cannot be adapted"):
        run(tmp_path / "free", ("mcc",), parts=neighbours(), is_free=True, train_last=1)


# -- what callers hand in -------------------------------------------------------------------------------------


def test_the_source_is_shown_in_the_style_of_the_target(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def restyle(source: Tensor, target: Tensor, *, generator: np.random.Generator) -> Tensor:
        assert source.dtype == torch.uint8
        assert 0 <= generator.random() < 1
        seen.append((len(source), len(target)))
        return 255 - source

    plain, _ = run(tmp_path / "plain", (), train_last=None)
    styled, _ = run(tmp_path / "styled", (), train_last=None, changes=Changes(restyle=restyle))
    assert seen[:3] == [(8, 8)] * 3
    assert state(plain) != state(styled)


class LanguageLoss(nn.Module):
    """Stands for a masked-language loss: a head of its own over the encoder's word vectors."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.network, self.decoder = encoder.network("sequence"), nn.Linear(24, 7)

    def forward(self, inputs: Tensor, *, generator: np.random.Generator) -> Tensor:
        """Predict a drawn class for each word."""
        outputs = self.decoder(self.network(inputs))
        truth = torch.from_numpy(generator.integers(7, size=outputs.shape[:2]))
        return nn.functional.cross_entropy(outputs.flatten(0, 1), truth.flatten())


def texts(words: tuple[str, str], *, masked: bool = False) -> TableDataset:
    """Return texts of two classes, of very different lengths."""
    rows = [f"it was {words[index % 2]} " * (1 + index % 9) for index in range(40)]
    made = from_texts(rows, ["bad" if index % 2 else "good" for index in range(40)])
    return replace(made, targets=[None] * len(made)) if masked else made


def test_texts_adapt_with_the_mixed_loss_whose_own_parameters_train_along(tmp_path: Path) -> None:
    def parts() -> Parts:
        encoder = open_tiny_text_transformer(Pretrained(name="tiny-text-transformer"))
        return Parts(encoder, LinearHead(24, 2), Classification(("bad", "good")))

    source, target = texts(("fine", "dull")), texts(("tasty", "stale"), masked=True)
    adapted = parts()
    torch.manual_seed(1)
    language = LanguageLoss(adapted.encoder)
    before = language.decoder.weight.clone()
    _, done = run(
        tmp_path / "text", ("udalm", "mcc"), parts=adapted, source=source, target=target, train_last=None,
        changes=Changes(language=language), batch_size=32,
    )  # fmt: skip
    assert np.isfinite(done.history[-1]["train_loss"])
    assert not torch.equal(language.decoder.weight, before)
    cached, done = run(tmp_path / "cached", ("mmd",), parts=parts(), source=source, target=target, epochs=1)
    assert isinstance(cached.head, BottleneckHead)


def test_a_bottleneck_head_is_rebuilt_from_its_arguments_and_tensors() -> None:
    head = BottleneckHead(6, 3, bottleneck=4).eval()
    again = BottleneckHead(**head.arguments())
    again.load_state_dict(head.state_dict())
    inputs = torch.randn(5, 6)
    assert torch.equal(again.eval()(inputs), head(inputs))
    assert torch.equal(head(inputs), head.classifier(head.embed(inputs)))
    assert hashlib.sha256(head.embed(inputs).detach().numpy().tobytes()).digest()
