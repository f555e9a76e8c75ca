"""On an NVIDIA GPU: the CPU's numbers, every way of training, the same bits after a break, and lack of memory told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chain_parts import data as chain_data
from chain_parts import links
from finetune_parts import Coloured, Parts
from finetune_parts import model as fresh_model
from picture_parts import digit_folder, digits
from sentence_parts import texts
from torch import nn

from headstart import api
from headstart.core.errors import Interrupted, PlanError, TrainingError
from headstart.core.machine import Machine
from headstart.core.settings import Adapt, FineTune, Pretrain, Pretrained
from headstart.data import TableDataset, from_memory
from headstart.features.encode import encode
from headstart.heads import LinearHead
from headstart.methods.adapt import Changes, adapt
from headstart.methods.finetune import FineTuned, finetune
from headstart.methods.pretrain import pretrain
from headstart.methods.retention.ewc import fisher
from headstart.methods.statistics import reestimate
from headstart.modalities.hiding import hide_blocks
from headstart.model import open_encoder
from headstart.store import Store
from headstart.tasks.classification import Classification
from headstart.train.batches import Batch, Items
from headstart.train.guard import Part, Past
from headstart.train.loop import train
from headstart.train.optim import ParameterGroup
from headstart.train.position import LoopSettings, Validation
from headstart.train.runtime import Context, Event, choose_device, exactly, ignore

if not torch.cuda.is_available():
    pytest.skip("no CUDA device: `pytest tests/cuda` on a machine that has one", allow_module_level=True)

NETWORKS = ("tiny-cnn", "tiny-transformer", "tiny-gru", "tiny-text-transformer", "efficientnet-lite0")
TOLERANCE = 1e-4
"""Largest difference of a feature between devices, as a share of the largest feature."""


def machine(root: Path, device: str = "cuda") -> Machine:
    """Return a machine with a store of its own."""
    return Machine(store=root / f"store-{device}", device=device, threads=2)


def context(
    root: Path, progress: Callable[[Event], None] = ignore, *, device: str = "cuda", folder: str | None = None
) -> Context:
    """Return a context with a store and perhaps a checkpoint folder under `root`."""
    place = root / folder if folder else None
    return Context(Store(root / f"store-{device}"), choose_device(device), 2, 0, progress, place)


def network(name: str, *, size: int | None = None, weights: str = "pretrained") -> Any:
    """Open a network, a real one at a small size."""
    size = size or (64 if name.startswith("efficientnet") else None)
    return open_encoder(Pretrained(name=name, image_size=size, weights=weights))


def items(encoder: Any, each: int = 8, *, skip: int = 0) -> TableDataset:
    """Return what a network reads: digits, or texts."""
    is_text = encoder.spec.modality == "text"
    return from_memory(*(texts(each, seed=skip) if is_text else digits(each, skip=skip)))


def parts_of(name: str, labels: tuple[str, ...]) -> Parts:
    """Return a network with a head of zeros."""
    encoder = network(name)
    return Parts(encoder, LinearHead(encoder.spec.width["pooled"], len(labels)), Classification(labels))


def tuned(root: Path, name: str, progress: Callable[[Event], None] = ignore, **settings: Any) -> Any:
    """Fine-tune a fresh network on the GPU; return its parts and how it went."""
    data = items(network(name), 10)
    parts = parts_of(name, data.labels)
    values = {"epochs": 3, "learning_rate": 5e-3, "batch_size": 6, "checkpoint_steps": 2, **settings}
    done = finetune(
        parts, training=data, validation=items(parts.encoder, 5, skip=20), settings=FineTune(**values),
        context=context(root, progress, folder="run"),
    )  # fmt: skip
    return parts, done


def state(parts: Parts) -> dict[str, torch.Tensor]:
    """Return copies of all tensors of encoder and head, on the CPU."""
    both = {"encoder": parts.encoder.module, "head": parts.head}
    return {
        f"{part}.{name}": tensor.detach().cpu().clone()
        for part, module in both.items()
        for name, tensor in module.state_dict().items()
    }


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of the tensors of which any bit changed."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def interrupting(stage: str, step: int) -> Callable[[Event], None]:
    """Return a progress that stops a run after a step."""

    def progress(event: Event) -> None:
        if event.stage == stage and event.done == step and not event.message:
            raise Interrupted("stopped", expected="nothing", fix="go on")

    return progress


# -- frozen features ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pooled", "depths"])
@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_the_cpu_whichever_device_the_network_lies_on(
    tmp_path: Path, name: str, form: Any
) -> None:
    encoder = network(name)
    data = items(encoder, 12)
    ours = np.asarray(encode(data, encoder, form=form, context=context(tmp_path)).features)
    # The same object, which lies on the GPU by now; and back again, under another view.
    theirs = np.asarray(encode(data, encoder, form=form, context=context(tmp_path, device="cpu")).features)
    again = np.asarray(encode(data, encoder, form=form, context=context(tmp_path / "again")).features)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()
    assert np.array_equal(ours, again)


def test_statistics_of_other_items_are_those_of_the_cpu(tmp_path: Path) -> None:
    found = [
        reestimate(network("tiny-cnn"), items(network("tiny-cnn")), context=context(tmp_path, device=device))
        for device in ("cuda", "cpu")
    ]
    assert all(torch.allclose(found[0][name].cpu(), found[1][name], rtol=1e-4) for name in found[1])


# -- from data to a saved model, and on the CPU ----------------------------------------------------------------


FITS: list[tuple[str, Any, dict[str, Any]]] = [
    ("tiny-cnn", "extract", {"extract.views": 2}),
    ("efficientnet-lite0", "extract", {"extract.views": 1, "encoder.image_size": 64}),
    ("tiny-cnn", "finetune", {"finetune.epochs": 3}),
    ("tiny-transformer", "finetune", {"finetune.epochs": 3, "finetune.train_last": 2, "finetune.views": 2}),
    ("tiny-transformer", "finetune", {"finetune.epochs": 3, "finetune.lora_rank": 2, "finetune.train_last": 2}),
    ("tiny-transformer", "finetune", {"finetune.epochs": 3, "finetune.precision": "bfloat16"}),
    ("tiny-text-transformer", "finetune", {"finetune.epochs": 3}),
    ("tiny-gru", "finetune", {"finetune.epochs": 3}),
    ("recurrent:bilstm", "finetune", {"finetune.epochs": 3}),
    ("tiny-cnn", "fewshot", {"fewshot.train_last": 1, "extract.views": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method", "settings"), FITS)
def test_a_model_that_a_gpu_made_answers_the_same_on_a_cpu(
    tmp_path: Path, name: str, method: Any, settings: dict[str, Any]
) -> None:
    is_text = ":" in name or name in ("tiny-text-transformer", "tiny-gru")
    given, labels = texts(16) if is_text else digits(16)
    result = api.fit(
        (given, labels), encoder=name, method=method, settings=settings, output=tmp_path / "model",
        machine=machine(tmp_path),
    )  # fmt: skip
    if not is_text:  # Untrained networks over few texts learn little in three epochs.
        assert result.evaluation.primary.value > 0.5
    said = {
        device: api.predict(result.folder, given[::4], machine=machine(tmp_path / "fresh", device))
        for device in ("cuda", "cpu")
    }
    assert [row.label for row in said["cuda"]] == [row.label for row in said["cpu"]]
    for ours, theirs in zip(said["cuda"], said["cpu"], strict=True):
        assert list(ours.probabilities.values()) == pytest.approx(
            list(theirs.probabilities.values()), abs=2e-3
        )


# -- fine-tuning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny-cnn", {"train_last": 2}),
        ("tiny-cnn", {"train_last": 2, "views": 2}),
        ("tiny-transformer", {"train_last": 2}),
        ("tiny-transformer", {"train_last": 2, "lora_rank": 2, "learning_rate": 2e-2}),
        ("tiny-text-transformer", {"train_last": 1, "learning_rate": 2e-2}),
        ("tiny-gru", {"train_last": 1, "learning_rate": 2e-2}),
        ("efficientnet-lite0", {"train_last": 2, "views": 1, "learning_rate": 1e-3}),
    ],
)
def test_it_learns_and_what_is_frozen_keeps_its_bits_statistics_too(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    data = items(network(name), 10)
    before = state(parts_of(name, data.labels))
    parts, done = tuned(tmp_path, name, **settings)
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    after, groups = state(parts), parts.encoder.layer_groups()
    behind = {f"encoder.{key}" for group in groups[done.depth :] for key in group.parameters}
    changed = moved(before, after)
    assert changed & behind or done.kept == "start"
    assert changed <= behind | {"head.weight", "head.bias"}, "no frozen tensor and no running statistic"


def test_all_groups_train_with_the_statistics_of_the_data(tmp_path: Path) -> None:
    before = state(fresh_model("cnn"))
    parts = fresh_model("cnn")
    done = finetune(
        parts, training=Coloured(24, name="train"), validation=Coloured(12, name="validation"),
        settings=FineTune(epochs=4, learning_rate=5e-3, batch_size=4, freeze_statistics=False, mixup=0.2, ema=0.9),
        context=context(tmp_path),
    )  # fmt: skip
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    assert any("running_mean" in name for name in moved(before, state(parts)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny-cnn", {"freeze_statistics": False}),
        ("tiny-cnn", {"train_last": 2}),
        ("tiny-transformer", {"accumulate": 2, "ema": 0.9}),
        ("tiny-transformer", {"precision": "bfloat16"}),
        ("tiny-text-transformer", {}),
        ("tiny-gru", {}),
        ("efficientnet-lite0", {"epochs": 1}),
    ],
)
def test_a_run_that_was_cut_ends_with_the_same_bits(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    whole, wanted = tuned(tmp_path / "whole", name, **settings)
    assert not any("exact" in note for note in wanted.notes)
    with pytest.raises(Interrupted):
        tuned(tmp_path / "cut", name, interrupting("finetune", 3), **settings)
    resumed, found = tuned(tmp_path / "cut", name, **settings)
    assert found.steps == wanted.steps
    figures = [[{**row, "seconds": 0.0} for row in done.history] for done in (wanted, found)]
    assert figures[0] == figures[1]
    assert not moved(state(whole), state(resumed))


def test_an_operation_without_an_exact_kernel_trains_and_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 2))
    pictures, targets = torch.randn(8, 3, 16, 16), torch.arange(8) % 2
    gpu = module.to(choose_device("cuda"))
    with pytest.warns(UserWarning, match="deterministic"):
        done = train(
            gpu,
            loss=lambda batch: nn.functional.cross_entropy(gpu(batch.tensors[0]), batch.tensors[1]),
            source=Items(8, 4, lambda rows, _: (pictures[rows], targets[rows]), str),
            groups=[ParameterGroup("all", (gpu,), dict(gpu.named_parameters()), 1e-2)],
            validate=lambda check: Validation(0.0, 0.0),
            settings=LoopSettings(
                stage="finetune", epochs=2, factor=lambda step: 1.0, micro=4, clip_norm=1.0, patience=2
            ),
            context=context(tmp_path),
        )  # fmt: skip
    assert any("adaptive_avg_pool2d" in note and "no exact kernel" in note for note in done.notes)
    assert not torch.are_deterministic_algorithms_enabled()


# -- learning without labels, other domains, chains, proofs ----------------------------------------------------


OBJECTIVES = [
    ("tiny-cnn", "spark"), ("tiny-cnn", "simmim"), ("tiny-cnn", "lejepa"), ("tiny-transformer", "mae"),
    ("tiny-transformer", "simmim"), ("tiny-gru", "causal_language"), ("tiny-text-transformer", "masked_language"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "objective"), OBJECTIVES)
def test_pretraining_learns_and_goes_on_to_the_same_bits(tmp_path: Path, name: str, objective: str) -> None:
    def learnt(folder: str, progress: Callable[[Event], None] = ignore) -> Any:
        encoder = network(name, weights="random")
        done = pretrain(
            encoder, dataset=items(encoder), settings=Pretrain(epochs=6, objective=objective, decoder_width=16),
            context=context(tmp_path, progress, folder=folder), is_pretrained=False,
        )  # fmt: skip
        return done, {key: tensor.cpu().clone() for key, tensor in encoder.module.state_dict().items()}

    done, wanted = learnt("whole")
    if objective == "lejepa":  # Its loss depends on the number of items, of which few are held out.
        assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    else:
        assert done.history[-1]["validation_loss"] < done.start_loss
    assert len(done.seen) == (0 if objective == "lejepa" else done.num_held_out)
    with pytest.raises(Interrupted):
        learnt("cut", interrupting("pretrain", 4))
    assert not moved(wanted, learnt("cut")[1])


@pytest.mark.parametrize(
    ("terms", "settings"),
    [
        (("dann", "mcc"), {}),
        (("cdan",), {"train_last": None}),
        (("mmd", "coral", "afn"), {"train_last": 2, "views": 1}),
        (("fixmatch",), {"train_last": 2}),
        (("masked",), {"train_last": None}),
        (("shot",), {"train_last": 2}),
    ],
)
def test_adapting_by_terms_trains_and_goes_on_to_the_same_bits(
    tmp_path: Path, terms: tuple[str, ...], settings: dict[str, Any]
) -> None:
    source = from_memory(*digits(8))
    pictures, labels = digits(8, skip=20)
    night = from_memory([(0.4 * one).astype(np.uint8) for one in pictures], labels)

    def adapted(folder: str, progress: Callable[[Event], None] = ignore) -> Any:
        parts = parts_of("tiny-cnn", source.labels)
        nn.init.constant_(parts.head.weight, 0.01)
        values = {"epochs": 2, "batch_size": 8, "checkpoint_steps": 1, **settings}
        done = adapt(
            parts, source=source, target=replace(night, targets=[None] * len(night)),
            settings=Adapt(terms=dict.fromkeys(terms), **values),
            context=context(tmp_path, progress, folder=folder),
            held_out=None if "shot" in terms else from_memory(*digits(4, skip=40)),
            changes=Changes(hide=partial(hide_blocks, block=8)),
        )  # fmt: skip
        return done, state(parts)

    done, wanted = adapted("whole")
    assert np.isfinite([row["train_loss"] for row in done.history]).all()
    assert moved(state(parts_of("tiny-cnn", source.labels)), wanted) if done.head == "linear" else True
    with pytest.raises(Interrupted):
        adapted("cut", interrupting("adapt", 3))
    assert not moved(wanted, adapted("cut")[1])


def test_a_model_is_adapted_to_pictures_by_night(tmp_path: Path) -> None:
    day = digit_folder(tmp_path / "day", 24)
    settings = {"finetune.epochs": 6, "finetune.learning_rate": 5e-3, "finetune.train_last": 2}
    where = {"output": tmp_path / "model", "machine": machine(tmp_path)}
    api.fit(day, encoder="tiny-cnn", method="finetune", settings=settings, **where)
    pictures, _ = digits(24, skip=30)
    night = [(0.3 * one).astype(np.uint8) for one in pictures]
    found = api.adapt(
        tmp_path / "model", night, output=tmp_path / "adapted", machine=machine(tmp_path),
        settings={"adapt.terms": {"mcc": None, "dann": None}, "adapt.epochs": 2},
    )  # fmt: skip
    assert {row.family for row in found.tried} >= {"nothing", "statistics", "trained"}
    assert len(api.predict(tmp_path / "adapted", night[:3], machine=machine(tmp_path, "cpu"))) == 3


def test_a_chain_of_two_keeps_what_was_learnt_by_every_guard_and_a_floor(tmp_path: Path) -> None:
    asked = links(
        {name: place for name, place in chain_data(tmp_path / "tasks", 14).items() if name != "turned"},
        retention__guards={"ewc": None, "lwf": None, "replay": None, "l2_sp": None}, retention__floor=0.9,
        retention__samples=20,
    )  # fmt: skip
    done = api.chain(asked, output=tmp_path / "out", machine=machine(tmp_path))
    assert list(done.results) == ["plain", "inverted"]
    assert done.lineage is not None
    assert done.lineage.alpha is not None
    assert done.tested[0].share is not None
    # A second store holds nothing: the same bits once more, the guards' own numbers (Fisher information) included.
    again = api.chain(asked, output=tmp_path / "again", machine=machine(tmp_path / "other"))
    ours, theirs = (one.last.folder / "model.safetensors" for one in (done, again))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("name", ["tiny-cnn", "tiny-gru"])
def test_fisher_information_is_that_of_the_cpu(tmp_path: Path, name: str) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for device in ("cuda", "cpu"):
        encoder, where = network(name), context(tmp_path, device=device)
        encoder.module.to(where.device)
        data = items(encoder, 4)
        head = LinearHead(encoder.spec.width["pooled"], len(data.labels))
        nn.init.constant_(head.weight, 0.1)

        def opened(data: TableDataset, encoder: Any = encoder) -> Any:
            return lambda rows, _: encoder.collate([data[int(row)].input for row in rows])

        parameters = dict(encoder.module.named_parameters())
        part = Part(encoder.network("pooled"), parameters, opened, opened, where)
        square = fisher(part, Past("earlier", Classification(data.labels), head, data), samples=6)
        found.append({key: tensor.cpu() for key, tensor in square.items()})
    largest = max(float(tensor.max()) for tensor in found[1].values())
    assert largest > 0
    assert all(torch.allclose(found[0][key], found[1][key], atol=1e-3 * largest) for key in found[1])


def test_what_transfer_gained_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.runs.SCRATCH_EPOCHS", (2, 3))
    monkeypatch.setattr("headstart.runs.SCRATCH_SIZE", 16)
    monkeypatch.setattr("headstart.proving.proof.TIMINGS", 1)
    monkeypatch.setattr("headstart.proving.proof.SPARE", 0.0)
    proof = api.prove(
        digit_folder(tmp_path / "digits", 14), encoder="tiny-cnn", machine=machine(tmp_path), output=tmp_path / "out",
        settings={
            "finetune.epochs": 2, "finetune.train_last": 1, "finetune.augment": "none", "extract.heads": ["ridge"],
            "prove.minutes": 5.0, "prove.seeds": 2,
        },
    )  # fmt: skip
    assert [arm.name for arm in proof.arms] == ["frozen", "finetune", "scratch"]
    assert proof.verdict in ("worth it", "not worth it", "undecided")


# -- what cannot be -------------------------------------------------------------------------------------------


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(PlanError, match="'cuda:99' is not there") as error:
        choose_device("cuda:99")
    assert "cuda:0" in str(error.value)


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Let torch have no more of the GPU's memory than it has now and this much."""
    choose_device("cuda")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 2**20) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def large_pictures(count: int) -> TableDataset:
    """Return pictures that take 50 MB each inside the tiny network at 1024 pixels."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(count)]
    return from_memory(pictures, ["odd" if number % 2 else "even" for number in range(count)])


def test_features_go_through_in_halves_where_memory_is_short(tmp_path: Path) -> None:
    encoder, data = network("tiny-cnn", size=1024), large_pictures(24)
    with little_memory(400):
        ours = np.asarray(encode(data, encoder, form="pooled", context=context(tmp_path)).features)
    theirs = np.asarray(encode(data, encoder, form="pooled", context=context(tmp_path / "roomy")).features)
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()
    with little_memory(20), pytest.raises(TrainingError, match="memory ran out while tiny-cnn") as error:
        encode(data, encoder, form="pooled", context=context(tmp_path / "short"))
    assert "--device cpu" in str(error.value)


def test_training_takes_fewer_items_a_pass_where_memory_is_short_and_says_so(tmp_path: Path) -> None:
    data = large_pictures(16)

    def tune(megabytes: int, folder: str) -> tuple[Parts, FineTuned]:
        encoder = network("tiny-cnn", size=1024)
        parts = Parts(encoder, LinearHead(encoder.spec.width["pooled"], 2), Classification(data.labels))
        settings = FineTune(epochs=1, batch_size=16, augment="none")
        where = context(tmp_path, folder=folder)
        with little_memory(megabytes):
            return parts, finetune(
                parts, training=data, validation=large_pictures(2), settings=settings, context=where
            )

    _, done = tune(450, "short")
    assert any("memory ran out" in note and "items a pass" in note for note in done.notes)
    assert np.isfinite(done.history[0]["train_loss"])
    with pytest.raises(TrainingError, match="memory ran out") as error:
        tune(60, "shorter")
    assert "smaller picture size" in str(error.value) or "single item" in str(error.value)


def test_settings_of_the_process_are_as_before_afterwards(tmp_path: Path) -> None:
    tuned(tmp_path, "tiny-cnn", epochs=1)
    assert not torch.are_deterministic_algorithms_enabled()
    assert exactly(choose_device("cuda"), torch.are_deterministic_algorithms_enabled)
    assert isinstance(Batch(("a",), (torch.zeros(1),)).to(choose_device("cuda")).tensors[0], torch.Tensor)
