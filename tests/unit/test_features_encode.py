"""Each item is encoded once; what came of it depends on the item alone; bad items are listed, not fatal."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_parts import context, digit_folder, digits
from PIL import Image

from headstart.core.errors import Interrupted
from headstart.core.settings import Pretrained, Source
from headstart.core.types import Limits
from headstart.data import TableDataset, from_arrays, open_dataset
from headstart.features import encode as module
from headstart.features import runtime
from headstart.features.encode import Encoded, encode, feature_key
from headstart.features.runtime import choose_runtime, onnx_runtime
from headstart.model import open_encoder
from headstart.train.runtime import Event


@cache
def encoder(name: str = "tiny-cnn"):
    return open_encoder(Pretrained(name=name))


def dataset(each: int = 4, *, skip: int = 0) -> TableDataset:
    pictures, labels = digits(each, skip=skip)
    return from_arrays(pictures, labels)


def encoded(data: TableDataset, root: Path, *, view: int = 0, threads: int = 1, **values) -> Encoded:
    network = values.pop("network", encoder())
    form = values.pop("form", "depths")
    return encode(data, network, form=form, context=context(root, threads=threads, **values), view=view)


def test_features_are_those_of_the_network(tmp_path: Path) -> None:
    data, network = dataset(), encoder()
    found = encoded(data, tmp_path)
    with torch.inference_mode():
        expected = network(network.collate(data.inputs), "depths").value.numpy()
    assert found.indices == tuple(range(12))
    assert found.features.dtype == np.float32
    assert np.abs(found.features - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_second_run_encodes_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = encoded(dataset(), tmp_path), encoded(dataset(), tmp_path)
    assert (first.num_encoded, first.num_stored) == (12, 0)
    assert (second.num_encoded, second.num_stored) == (0, 12)
    assert np.array_equal(first.features, second.features)
    assert {row: facts.phash for row, facts in first.facts.items()} == {
        row: facts.phash for row, facts in second.facts.items()
    }


def test_ten_added_images_encode_ten(tmp_path: Path) -> None:
    pictures, labels = digits(10)
    before = from_arrays(pictures[:20], labels[:20])
    encoded(before, tmp_path)
    seen: list[Event] = []
    after = encode(
        from_arrays(pictures, labels),
        encoder(),
        form="depths",
        context=context(tmp_path, progress=seen.append),
    )
    assert (after.num_encoded, after.num_stored) == (10, 20)
    assert [(event.done, event.total) for event in seen if event.stage == "encode"][-1] == (10, 10)


def test_a_renamed_or_moved_file_is_not_encoded_again(tmp_path: Path) -> None:
    encoded(open_dataset(Source(uri=str(digit_folder(tmp_path / "a", 2)))), tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b" / "one").rename(tmp_path / "b" / "eins")
    again = encoded(open_dataset(Source(uri=str(tmp_path / "b"))), tmp_path)
    assert again.num_encoded == 0


def test_one_picture_that_is_there_three_times_is_encoded_once(tmp_path: Path) -> None:
    pictures, _ = digits(1)
    found = encoded(from_arrays([pictures[0]] * 3 + [pictures[1]], list("abca")), tmp_path)
    assert found.indices == (0, 1, 2, 3)
    assert found.num_encoded == 2
    assert np.array_equal(found.features[0], found.features[2])


def test_changed_weights_form_and_seed_of_a_view_have_features_of_their_own(tmp_path: Path) -> None:
    random = open_encoder(Pretrained(name="tiny-cnn", weights="random"))
    smaller = open_encoder(Pretrained(name="tiny-cnn", image_size=24))
    keys = [
        feature_key(encoder(), "pooled", 0, 0),
        feature_key(encoder(), "depths", 0, 0),
        feature_key(random, "pooled", 0, 0),
        feature_key(smaller, "pooled", 0, 0),
        feature_key(encoder(), "pooled", 0, 1),
        feature_key(encoder(), "pooled", 1, 1),
        feature_key(encoder(), "pooled", 1, 2),
    ]
    assert len(set(keys)) == len(keys)
    assert feature_key(encoder(), "pooled", 5, 0) == keys[0], "the picture itself is the same for every seed"


@pytest.mark.parametrize("name", ["tiny-cnn", "tiny-transformer"])
def test_features_have_the_same_bits_whatever_is_encoded_beside_an_item_and_by_how_many_threads(
    tmp_path: Path, name: str
) -> None:
    network, pictures = encoder(name), digits(7)[0]
    whole = encoded(from_arrays(pictures, [str(n) for n in range(21)]), tmp_path / "a", network=network)
    threaded = encoded(
        from_arrays(pictures[::-1], [str(n) for n in range(21)]), tmp_path / "b", network=network, threads=3
    )
    assert np.array_equal(threaded.features[::-1], whole.features)
    for row in (0, 9, 20):
        alone = encoded(from_arrays([pictures[row]], ["x"]), tmp_path / f"alone {row}", network=network)
        assert np.array_equal(alone.features[0], whole.features[row])


def test_a_view_is_drawn_from_the_item_and_the_seed_and_differs_from_the_picture(tmp_path: Path) -> None:
    plain, first, second = (encoded(dataset(), tmp_path, view=view) for view in range(3))
    assert not np.array_equal(plain.features, first.features)
    assert not np.array_equal(first.features, second.features)
    reverse = dataset().subset(range(11, -1, -1))
    again = encoded(reverse, tmp_path / "other", view=1, threads=2)
    assert np.array_equal(again.features[::-1], first.features)
    other_seed = encoded(dataset(), tmp_path / "other", view=1, seed=1)
    assert not np.array_equal(other_seed.features, first.features)
    assert first.facts == {}


def test_a_corrupt_shard_is_a_warning_and_its_items_are_encoded_again(tmp_path: Path) -> None:
    first = encoded(dataset(), tmp_path)
    (path,) = (tmp_path / "store").rglob("features.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is corrupt"):
        second = encoded(dataset(), tmp_path)
    assert (second.num_encoded, second.num_stored) == (12, 0)
    assert np.array_equal(first.features, second.features)


def test_what_an_interrupted_run_had_encoded_stays(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.stage == "encode" and event.done >= 16:
            raise Interrupted("asked to stop", expected="-", fix="run it again")

    pictures, labels = digits(10)
    data = from_arrays(pictures, labels)
    with pytest.raises(Interrupted):
        encode(data, encoder(), form="depths", context=context(tmp_path, progress=stop))
    after = encoded(data, tmp_path)
    assert (after.num_encoded, after.num_stored) == (14, 16)
    assert np.array_equal(after.features, encoded(data, tmp_path / "whole").features)


def test_shards_that_were_full_before_a_kill_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 8)

    def die(event: Event) -> None:
        if event.done >= 24:
            raise KeyboardInterrupt

    pictures, labels = digits(10)
    data = from_arrays(pictures, labels)
    with pytest.raises(KeyboardInterrupt):
        encode(data, encoder(), form="depths", context=context(tmp_path, progress=die))
    after = encoded(data, tmp_path)
    assert (after.num_encoded, after.num_stored) == (14, 16)


def test_unreadable_items_are_listed_with_their_reason_and_the_others_go_on(tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "data", 3)
    (folder / "one" / "empty.png").write_bytes(b"")
    (folder / "one" / "text.jpg").write_text("no picture")
    whole = sorted((folder / "zero").glob("*.png"))[0].read_bytes()
    (folder / "zero" / "cut.png").write_bytes(whole[: len(whole) // 2])
    data = open_dataset(Source(uri=str(folder)))
    found = encoded(data, tmp_path)
    bad = {Path(data.ids[row]).name: reason for row, reason in found.failures.items()}
    assert set(bad) == {"empty.png", "text.jpg", "cut.png"}
    assert "empty" in bad["empty.png"]
    assert len(found.indices) == 9 and not set(found.indices) & set(found.failures)
    assert (found.num_encoded, found.num_stored) == (9, 0)
    assert (encoded(data, tmp_path).num_encoded, encoded(data, tmp_path).num_stored) == (0, 9)


def test_a_picture_beyond_the_limit_is_listed_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    Image.new("L", (2000, 1000)).save(tmp_path / "data" / "a" / "big.png")
    data = open_dataset(Source(uri=str(tmp_path / "data")))
    small = open_encoder(Pretrained(name="tiny-cnn"), limits=Limits(megapixels=1))
    found = encode(data, small, form="pooled", context=context(tmp_path))
    assert found.indices == ()
    assert "oversized" in found.failures[0]


def test_where_nothing_can_be_read_there_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.png").write_bytes(b"")
    found = encoded(open_dataset(Source(uri=str(tmp_path / "data"))), tmp_path)
    assert found.features.shape[0] == 0 and found.num_encoded == 0 and len(found.failures) == 1


# -- runtimes -------------------------------------------------------------------------------------------------


def test_a_graph_that_differs_from_torch_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = context(tmp_path)
    choose_runtime(encoder(), "pooled", where)
    monkeypatch.setattr(runtime, "TOLERANCE", -1.0)
    given = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.warns(UserWarning, match=r"onnxruntime differs from torch by .* torch runs it"):
        run = choose_runtime(encoder(), "pooled", where)
    with torch.inference_mode():
        expected = encoder()(torch.from_numpy(given).permute(0, 3, 1, 2), "pooled").value.numpy()
    assert np.allclose(run(given), expected, rtol=1e-5)


def test_a_network_whose_features_are_not_finite_is_run_by_torch(tmp_path: Path) -> None:
    broken = open_encoder(Pretrained(name="tiny-cnn"))
    with torch.no_grad():
        next(broken.module.parameters()).fill_(float("nan"))
    with pytest.warns(UserWarning, match="differs from torch by nan"):
        onnx_runtime(broken, "pooled", context(tmp_path))
    (parity,) = (tmp_path / "store").rglob("parity.json")
    assert set(json.loads(parity.read_text())) == {"relative_difference"}


def test_a_corrupt_graph_is_exported_anew(tmp_path: Path) -> None:
    where, given = context(tmp_path), np.ones((2, 32, 32, 3), np.uint8)
    first = choose_runtime(encoder(), "pooled", where)(given)
    (graph,) = (tmp_path / "store").rglob("graph.onnx")
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="is corrupt"):
        run = choose_runtime(encoder(), "pooled", where)
    assert np.array_equal(run(given), first)
