"""Prefix caching: exact cuts, cached rows, views, the choice of depth, decoded pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_parts import Coloured, context, model
from PIL import Image

from headstart.core.errors import Interrupted, TrainingError
from headstart.features import prefix as module
from headstart.features.pictures import keep_pictures, shrunk
from headstart.features.prefix import (
    Figures,
    activation_key,
    activations,
    choose,
    cut,
    half,
    measure,
    view_of,
)
from headstart.features.runtime import Run
from headstart.train.runtime import Event


class Counted:
    """A prefix that counts the pictures it sees."""

    def __init__(self, run: Run) -> None:
        self.run, self.seen = run, 0

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        self.seen += len(pictures)
        return self.run(pictures)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_prefix_and_suffix_together_are_the_network(tmp_path: Path, depth: int) -> None:
    parts = model()
    place = cut(parts.encoder, depth, form="pooled", context=context(tmp_path))
    assert place is not None
    pictures = np.stack([picture[:32, :32] for picture in Coloured(4, name="x").pictures])
    with torch.no_grad():
        through = place.suffix(parts.encoder.stack(place.prefix(list(pictures))))
        whole = parts.encoder(torch.from_numpy(pictures).permute(0, 3, 1, 2), "pooled").value
    assert torch.allclose(through, whole, atol=1e-4)


def test_at_depth_zero_there_is_nothing_to_cut(tmp_path: Path) -> None:
    assert cut(model().encoder, 0, form="pooled", context=context(tmp_path)) is None


def cached(tmp_path: Path, dataset: Coloured, *, views: int = 2, progress=lambda event: None):
    """Compute activations at depth 2 and return them with the counting prefix."""
    parts, machine = model(), context(tmp_path, progress)
    place = cut(parts.encoder, 2, form="pooled", context=machine)
    assert place is not None
    counted = Counted(place.prefix)
    kept = activations(
        dataset, parts.encoder, counted, depth=2, views=views, strength="standard", context=machine
    )
    return kept, counted


def test_each_item_and_view_is_computed_once_and_ten_more_cost_ten(tmp_path: Path) -> None:
    _, first = cached(tmp_path, Coloured(20, name="x"))
    _, again = cached(tmp_path, Coloured(20, name="x"))
    _, more = cached(tmp_path, Coloured(30, name="x"))
    _, third_view = cached(tmp_path, Coloured(30, name="x"), views=3)
    assert [first.seen, again.seen, more.seen, third_view.seen] == [40, 0, 20, 30]


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    kept, counted = cached(tmp_path, Coloured(20, name="x"))
    indices, views = np.array([7, 0, 7, 19]), np.array([1, 0, 0, 1])
    rows = kept.gather(indices, views)
    assert {row.dtype for row in rows} == {np.dtype(np.float16)}
    for row, index, view in zip(rows, indices, views, strict=True):
        assert np.array_equal(row, kept.gather(np.array([index]), np.array([view]))[0])
    assert not np.array_equal(rows[0], rows[2])
    plain = model().encoder.collate([Coloured(20, name="x")[7].input]).permute(0, 2, 3, 1).numpy()
    assert np.allclose(rows[2], counted.run(plain)[0], atol=1e-2)


def test_twins_share_a_row(tmp_path: Path) -> None:
    dataset = Coloured(6, name="x")
    dataset.pictures[4] = dataset.pictures[1]
    _, counted = cached(tmp_path, dataset)
    assert counted.seen == 10


def test_a_cut_run_keeps_its_shards_and_makes_the_same_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 1)
    dataset = Coloured(40, name="x")
    whole, _ = cached(tmp_path / "a", dataset)

    class CutError(Exception):
        """Stands for a crash."""

    def crash(event: Event) -> None:
        if event.stage == "activations" and event.done == 4:
            raise CutError

    with pytest.raises(CutError):
        cached(tmp_path / "b", dataset, progress=crash)
    again, counted = cached(tmp_path / "b", dataset)
    assert 0 < counted.seen < 80
    everything = (np.tile(np.arange(40), 2), np.repeat([0, 1], 40))
    assert np.array_equal(whole.gather(*everything), again.gather(*everything))


def test_it_stops_on_request(tmp_path: Path) -> None:
    import signal

    def ask(event: Event) -> None:
        if event.stage == "activations" and event.done == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        cached(tmp_path, Coloured(40, name="x"), progress=ask)


def test_the_key_tells_depth_view_strength_and_seed_apart_but_not_for_the_picture_itself() -> None:
    encoder = model().encoder

    def key(depth: int = 1, view: int = 1, strength: str = "light", seed: int = 0) -> str:
        return activation_key(encoder, depth=depth, view=view, strength=strength, seed=seed)

    assert len({key(), key(depth=2), key(view=2), key(strength="strong"), key(seed=1), key(view=0)}) == 6
    assert key(view=0) == key(view=0, strength="strong", seed=1)


def test_every_item_goes_through_all_its_views_in_turn() -> None:
    indices = np.arange(50)
    shown = np.stack([view_of(0, epoch, indices, 4) for epoch in range(4)])
    assert all(sorted(column) == [0, 1, 2, 3] for column in shown.T)
    assert len(set(shown[0].tolist())) == 4


def test_activations_beyond_float16_are_refused() -> None:
    with pytest.raises(TrainingError, match="1e\\+05"):
        half(np.array([[1e5]], dtype=np.float32))


# -- choice of depth ------------------------------------------------------------------------------------------

LITE0 = [  # Measured milliseconds an item of EfficientNet-Lite0, as in the tables of the docs.
    Figures(0, 0.0, 0.132, 0), Figures(2, 0.020, 0.063, 150_000), Figures(4, 0.030, 0.041, 32_000),
    Figures(5, 0.033, 0.024, 44_000), Figures(6, 0.037, 0.0068, 18_000), Figures(7, 0.039, 0.0025, 32_000),
]  # fmt: skip


def test_the_shallowest_cut_that_takes_a_quarter_of_the_time_is_chosen_with_the_views_that_fit() -> None:
    # Everything: 10 x 132 ms an item, a quarter 330 ms. Depth 4: 30 + 410. Depth 5: 33 v + 240, so v <= 2.
    found = choose(LITE0, items=1000, epochs=10, most_bytes=10**12)
    assert found is not None
    assert (found.depth, found.views) == (5, 2)
    assert found.seconds == pytest.approx(1000 * (2 * 0.033 + 10 * 0.024))
    assert found.num_bytes == 1000 * 2 * 44_000


def test_the_disk_limits_views_then_depths() -> None:
    one_view = choose(LITE0, items=1000, epochs=10, most_bytes=50_000_000)
    deeper = choose(LITE0, items=1000, epochs=10, most_bytes=20_000_000)
    assert one_view is not None
    assert deeper is not None
    assert (one_view.depth, one_view.views) == (5, 1)
    assert (deeper.depth, deeper.views) == (6, 1)
    assert choose(LITE0, items=1000, epochs=10, most_bytes=10_000_000) is None


def test_where_no_cut_is_quick_enough_the_cheapest_is_taken() -> None:
    found = choose(LITE0, items=10, epochs=1, most_bytes=10**9, share=0.01)
    assert found is not None
    assert (found.depth, found.views) == (7, 1)


def test_views_are_at_most_one_an_epoch() -> None:
    found = choose(LITE0, items=10, epochs=3, most_bytes=10**9, share=1.0)
    assert found is not None
    assert found.views <= 3


def test_measuring_finds_each_cut_and_changes_nothing(tmp_path: Path) -> None:
    parts = model()
    before = {name: tensor.clone() for name, tensor in parts.encoder.module.state_dict().items()}
    inputs = parts.encoder.collate([Coloured(4, name="x")[index].input for index in range(4)])
    figures = measure(parts.encoder, parts.head, inputs, form="pooled", context=context(tmp_path))
    assert [row.depth for row in figures] == [0, 1, 2, 3, 4]
    assert all(row.step_seconds > 0 and row.prefix_seconds >= 0 for row in figures)
    assert figures[-1].row_bytes == 2 * parts.encoder.spec.width["pooled"]
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in parts.encoder.module.state_dict().items()
    )
    assert all(tensor.grad is None for tensor in parts.encoder.module.parameters())


# -- decoded pictures -----------------------------------------------------------------------------------------


def files(tmp_path: Path) -> list[Path]:
    """Write a wide JPEG, a grey PNG, a small PNG, one with transparency, and a broken file."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    paths = [tmp_path / name for name in ("wide.jpg", "grey.png", "small.png", "clear.png", "broken.jpg")]
    Image.fromarray(pixels).save(paths[0])
    Image.fromarray(pixels[:, :, 0]).save(paths[1])
    Image.fromarray(pixels[:20, :20]).save(paths[2])
    Image.fromarray(np.dstack([pixels, pixels[:, :, :1]])).save(paths[3])
    paths[4].write_bytes(b"no picture")
    return paths


def test_ordinary_pictures_are_shrunk_and_others_left_alone(tmp_path: Path) -> None:
    wide, grey, small, clear, broken = files(tmp_path)
    found = [shrunk(path, 42) for path in (wide, grey, small, clear, broken)]
    shapes = [picture.shape if picture is not None else None for picture in found]
    assert shapes == [(42, 63, 3), (42, 63, 1), None, None, None]
    assert shrunk(np.zeros((90, 90, 3), np.uint8), 42) is None


def test_pictures_are_decoded_once_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path)
    dataset = Coloured(5, name="x", inputs=paths)
    machine = context(tmp_path)
    kept = keep_pictures(dataset, model().encoder.spec.contract, context=machine)
    monkeypatch.setattr("headstart.features.pictures.shrunk", None)
    again = keep_pictures(dataset, model().encoder.spec.contract, context=machine)
    assert again[0].shape == (42, 63, 3)
    assert np.array_equal(again[0], kept[0])
    assert again[1].shape == (42, 63, 1)
    assert again[3] == paths[3]
