"""Every encoder of the registry and one of each timm family keep the encoder's contract."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_parts import context
from torch import nn

from headstart.core.registry import names
from headstart.core.settings import Pretrained
from headstart.core.types import InputContract
from headstart.encoders.module import from_module
from headstart.features.runtime import choose_runtime
from headstart.model import open_encoder
from headstart.testing import check_encoder

CASES: dict[str, Pretrained] = {
    "tiny-cnn": Pretrained(name="tiny-cnn"),
    "tiny-transformer": Pretrained(name="tiny-transformer"),
    "efficientnet-lite0": Pretrained(name="efficientnet-lite0", image_size=64),
    "resnet": Pretrained(name="timm:test_resnet", weights="random", image_size=64),
    "resnet10t": Pretrained(name="timm:resnet10t", weights="random", image_size=32),
    "vgg": Pretrained(name="timm:vgg11", weights="random", image_size=32),
    "inception": Pretrained(name="timm:inception_v3", weights="random", image_size=75),
    "efficientnet": Pretrained(name="timm:test_efficientnet", weights="random", image_size=64),
    "mobilenet": Pretrained(name="timm:mobilenetv3_small_050", weights="random", image_size=32),
    "convnext": Pretrained(name="timm:test_convnext", weights="random", image_size=64),
    "vit": Pretrained(name="timm:vit_tiny_patch16_224", weights="random", image_size=32),
    "vit that cannot be traced": Pretrained(name="timm:test_vit", weights="random", image_size=64),
    "swin": Pretrained(name="timm:swin_tiny_patch4_window7_224", weights="random", image_size=56),
}
WITHOUT_ONNX = {"vgg"}
"""Its pooling of maps smaller than 7 pixels has no place in ONNX."""
UNCUT = {"vit that cannot be traced"}


@cache
def opened(case: str):
    """Open each network once; the checks leave it as it was."""
    return open_encoder(CASES[case])


def pictures(case: str, count: int) -> np.ndarray:
    """Return random pictures uint8 [count, H, W, C] of the size that a network takes."""
    contract = opened(case).spec.contract
    shape = (count, *contract.size, contract.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_encoder_of_the_registry_is_checked() -> None:
    assert set(names("encoder")) <= {settings.name.partition(":")[0] for settings in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_an_encoder_keeps_the_contract(case: str) -> None:
    check_encoder(opened(case))


@pytest.mark.parametrize("case", sorted(set(CASES) - UNCUT))
def test_a_network_is_cut_after_every_layer_group(case: str) -> None:
    encoder = opened(case)
    depths = range(1, len(encoder.layer_groups()) + 1)
    assert all(encoder.split(depth, "pooled") is not None for depth in depths)
    assert encoder.split(0, "pooled") is None
    assert encoder.split(len(encoder.layer_groups()) + 1, "pooled") is None
    assert encoder.split(1, "depths") is None
    assert encoder.spec.width["depths"] > encoder.spec.width["pooled"]


@pytest.mark.parametrize("case", sorted(UNCUT))
def test_a_network_that_cannot_be_traced_has_no_cuts_and_one_depth(case: str) -> None:
    encoder = opened(case)
    assert all(encoder.split(depth, "pooled") is None for depth in range(1, len(encoder.layer_groups()) + 1))
    assert encoder.spec.width["depths"] == encoder.spec.width["pooled"]


@pytest.mark.parametrize("case", sorted(set(CASES) - WITHOUT_ONNX))
def test_onnxruntime_gives_torch_s_features_and_the_same_bits_in_any_batch(tmp_path: Path, case: str) -> None:
    encoder, given = opened(case), pictures(case, 8)
    run = choose_runtime(encoder, "depths", context(tmp_path))
    with torch.inference_mode():
        expected = encoder.network("depths")(torch.from_numpy(given).permute(0, 3, 1, 2)).numpy()
    together = run(given)
    assert np.abs(together - expected).max() <= 1e-4 * np.abs(expected).max()
    for size in (1, 3, 7):
        parts = [run(given[start : start + size]) for start in range(0, len(given), size)]
        assert np.array_equal(np.concatenate(parts), together), f"batches of {size}: other bits"


@pytest.mark.parametrize("case", sorted(WITHOUT_ONNX))
def test_a_network_that_onnx_cannot_express_is_run_by_torch_with_a_warning(tmp_path: Path, case: str) -> None:
    encoder, given = opened(case), pictures(case, 2)
    with pytest.warns(UserWarning, match=r"onnxruntime cannot be had .* torch runs it"):
        run = choose_runtime(encoder, "pooled", context(tmp_path))
    with torch.inference_mode():
        expected = encoder.network("pooled")(torch.from_numpy(given).permute(0, 3, 1, 2)).numpy()
    assert np.allclose(run(given), expected, rtol=1e-4, atol=1e-6)


def test_an_exported_graph_is_read_back_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = context(tmp_path)
    first = choose_runtime(opened("tiny-cnn"), "pooled", where)(pictures("tiny-cnn", 2))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("exported twice")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    second = choose_runtime(opened("tiny-cnn"), "pooled", where)(pictures("tiny-cnn", 2))
    assert np.array_equal(first, second)


def test_exporting_leaves_every_layer_in_eval_mode_and_warns_of_nothing(tmp_path: Path) -> None:
    encoder = open_encoder(Pretrained(name="tiny-cnn"))
    encoder.module.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_runtime(encoder, "pooled", context(tmp_path))
    assert not any(part.training for part in encoder.module.modules())


class Broken:
    """An encoder with one promise broken."""

    def __init__(self, **changes: object) -> None:
        self._inner = open_encoder(Pretrained(name="tiny-cnn"))
        self._changes = changes

    def __getattr__(self, name: str):
        return self._changes[name] if name in self._changes else getattr(self._inner, name)

    def __call__(self, *arguments: object):
        return self._inner(*arguments)  # type: ignore[arg-type]


def test_the_check_finds_a_parameter_that_no_group_holds() -> None:
    groups = open_encoder(Pretrained(name="tiny-cnn")).layer_groups()
    with pytest.raises(AssertionError, match="not in exactly one layer group"):
        check_encoder(Broken(layer_groups=lambda: groups[1:]))  # type: ignore[arg-type]


def test_the_check_finds_a_cut_that_is_not_the_whole() -> None:
    def split(depth: int, form: str):
        return nn.Identity(), nn.Flatten()

    with pytest.raises(AssertionError, match=r"(?s)other bits"):
        check_encoder(Broken(split=split))  # type: ignore[arg-type]


def test_the_check_finds_features_that_depend_on_the_batch() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), MinusBatchMean())
    contract = InputContract((16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(AssertionError, match="depend on the batch"):
        check_encoder(from_module(network, {"all": ["0"]}, contract=contract))


class MinusBatchMean(nn.Module):
    """What no encoder may do: look at the other items."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps - maps.mean(0, keepdim=True)
