"""Networks of torchvision: the same numbers as torchvision's own, their layers in order, weights and contracts."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from headstart.core.errors import EncoderError
from headstart.core.settings import Pretrained
from headstart.model import open_encoder
from headstart.testing import check_encoder

SIDES = {
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_0": 40,
    "squeezenet1_1": 40,
}
"""One network of each family that is small enough, and its image size."""
GROUPS = {
    "squeezenet1_1": ["features.0", *(f"features.{place}" for place in (3, 4, 6, 7, 9, 10, 11, 12))],
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": ["features.conv0", *(f"features.{part}" for part in (
        "denseblock1", "transition1", "denseblock2", "transition2", "denseblock3", "transition3", "denseblock4"))],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{number}" for number in range(1, 5))],
    "mobilenet_v3_small": [*(f"features.{number}" for number in range(13)), "classifier.0"],
}  # fmt: skip
INCEPTIONS = ("googlenet", "inception_v3")


@cache
def donor(name: str) -> Any:
    """Return torchvision's own network with random numbers, BatchNorm statistics too."""
    extra = {"init_weights": False} if name in INCEPTIONS else {}
    torch.manual_seed(3)
    network = models.get_model(name, weights=None, **extra).eval()
    with torch.no_grad():
        for tensor in network.buffers():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def opened(name: str, folder: Path, **values: Any):
    """Open a network with its donor's weights from a file."""
    file = folder / f"{name}.safetensors"
    if not file.exists():
        save_file(donor(name).state_dict(), file)
    settings = {"image_size": SIDES[name], **values}
    return open_encoder(Pretrained(name=f"torchvision:{name}", weights=str(file), **settings))


def pictures(encoder: Any) -> Tensor:
    contract = encoder.spec.contract
    shape = (3, *contract.size, contract.channels)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).permute(
        0, 3, 1, 2
    )


def normalised(given: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (given / 255 - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def before_the_classifier(network: Any, inputs: Tensor) -> Tensor:
    """Return what torchvision's own forward hands to its last layer with parameters, averaged where it is a map."""
    layers = [
        part
        for part in network.modules()
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.weight.shape[0] == 1000
    ]
    seen: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        network(inputs)
    handle.remove()
    return seen[0].mean((2, 3)) if seen[0].dim() == 4 else seen[0]


@pytest.mark.parametrize("name", SIDES)
def test_a_network_gives_what_torchvision_s_own_hands_to_its_classifier(name: str, folder: Path) -> None:
    encoder = opened(name, folder)
    given, contract = pictures(encoder), encoder.spec.contract
    with torch.inference_mode():
        ours = encoder(given, "pooled").value
    theirs = before_the_classifier(donor(name), normalised(given, contract.mean, contract.std))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    assert encoder.receipt.transferred == 1.0


@pytest.mark.parametrize("name", SIDES)
def test_a_network_keeps_the_contract_and_can_be_cut_after_every_layer(name: str, folder: Path) -> None:
    encoder = opened(name, folder)
    check_encoder(encoder)
    groups = encoder.layer_groups()
    assert all(encoder.split(depth, "pooled") is not None for depth in range(1, len(groups) + 1))
    if name in GROUPS:
        assert [group.name for group in groups] == GROUPS[name]


@pytest.mark.parametrize("name", SIDES)
def test_the_dropout_in_front_of_the_old_classifier_goes_with_it(name: str, folder: Path) -> None:
    encoder = opened(name, folder)
    assert not [part for part in encoder.module.modules() if isinstance(part, nn.Dropout)]
    assert not [key for key, tensor in encoder.module.state_dict().items() if tensor.shape[:1] == (1000,)]


def test_weights_for_caffe_s_inputs_are_opened_by_settings_alone(folder: Path) -> None:
    """Blue, green, red minus their means, not scaled."""
    means = (104.0, 117.0, 123.0)
    encoder = opened(
        "squeezenet1_1", folder, mean=tuple(mean / 255 for mean in means), std=(1 / 255,) * 3, order="bgr"
    )
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    encoder_input = encoder.collate([np.kron(picture, np.ones((2, 2, 1), np.uint8))])
    with torch.inference_mode():
        ours = encoder(encoder_input, "map").value
        blue_first = encoder.prepare(np.kron(picture, np.ones((2, 2, 1), np.uint8))).value.astype(np.float32)
        tensor = torch.from_numpy(blue_first - np.array(means, np.float32)).permute(2, 0, 1)[None]
        theirs = donor("squeezenet1_1").features(tensor)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    red_first = opened("squeezenet1_1", folder).prepare(np.kron(picture, np.ones((2, 2, 1), np.uint8))).value
    assert np.array_equal(blue_first[:, :, ::-1], red_first)


@pytest.mark.parametrize("channels", [1, 5])
def test_the_first_convolution_is_fitted_to_any_number_of_channels(folder: Path, channels: int) -> None:
    encoder = opened("squeezenet1_1", folder, channels=channels)
    own = donor("squeezenet1_1").features[0].weight
    fitted = encoder.module.features[0].weight
    assert fitted.shape[1] == channels
    torch.testing.assert_close(fitted.sum(1), own.sum(1) if channels == 1 else (own * 2 - own * torch.tensor(
        [0.0, 0.0, 1.0]).view(1, 3, 1, 1)).sum(1) * 3 / 5)  # fmt: skip
    assert {tensor.origin for tensor in encoder.receipt.tensors if tensor.name == "features.0.weight"} == {
        "adapted"
    }
    check_encoder(encoder)


@pytest.mark.parametrize(
    ("name", "size", "crop", "interpolation", "mean"),
    [
        ("squeezenet1_1", 224, 224 / 256, "bilinear", (0.485, 0.456, 0.406)),
        ("efficientnet_b1.IMAGENET1K_V1", 240, 240 / 256, "bicubic", (0.485, 0.456, 0.406)),
        ("efficientnet_b1", 240, 240 / 255, "bilinear", (0.485, 0.456, 0.406)),
        ("googlenet", 224, 224 / 256, "bilinear", (0.5, 0.5, 0.5)),
    ],
)
def test_the_input_contract_is_that_of_the_named_weights(
    name: str, size: int, crop: float, interpolation: str, mean: tuple[float, ...]
) -> None:
    contract = open_encoder(Pretrained(name=f"torchvision:{name}", weights="random")).spec.contract
    assert contract.size == (size, size)
    assert contract.crop == pytest.approx(crop)
    assert contract.interpolation == interpolation
    assert contract.mean == pytest.approx(mean)


def test_random_weights_are_the_same_each_time_and_belong_to_nobody() -> None:
    one, other = (
        open_encoder(Pretrained(name="torchvision:squeezenet1_1", weights="random", image_size=40)).spec
        for _ in range(2)
    )
    assert one.weights_sha256 == other.weights_sha256
    assert one.licence == "unknown"


def test_old_names_of_densenet_s_layers_are_understood(tmp_path: Path) -> None:
    own = donor("densenet121").state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): tensor for key, tensor in own.items()
    }
    assert set(old) != set(own)
    torch.save(old, tmp_path / "old.pth")
    settings = Pretrained(name="torchvision:densenet121", weights=str(tmp_path / "old.pth"), image_size=32)
    assert open_encoder(settings).receipt.transferred == 1.0


def test_weights_of_a_network_with_auxiliary_heads_are_loaded_without_these(folder: Path) -> None:
    encoder = opened("googlenet", folder)
    assert any(name.startswith("aux1.") for name in encoder.receipt.unused)
    assert not any("aux" in name for name in encoder.module.state_dict())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(donor("squeezenet1_0").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match="does not fit this network"):
        open_encoder(
            Pretrained(
                name="torchvision:squeezenet1_1", weights=str(tmp_path / "w.safetensors"), image_size=40
            )
        )


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"name": "torchvision:squeezenet1_2"}, r"no image classification network 'squeezenet1_2'.*did you mean"),
        ({"name": "torchvision:fasterrcnn_resnet50_fpn"}, "no image classification network"),
        ({"name": "torchvision:resnet18.IMAGENET1K_V9"}, r"no weights 'IMAGENET1K_V9' of resnet18 \(did you mean"),
        ({"name": "torchvision:resnet18", "arguments": {"wings": 2}}, "cannot be made like this.*wings"),
    ],
)  # fmt: skip
def test_a_name_or_argument_that_is_none_is_refused(settings: dict[str, Any], given: str) -> None:
    with pytest.raises(EncoderError, match=given):
        open_encoder(Pretrained(weights="random", **settings))


def test_weights_that_cannot_be_fetched_are_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        EncoderError, match="pretrained weights of 'torchvision:squeezenet1_1' cannot be fetched"
    ) as caught:
        open_encoder(Pretrained(name="torchvision:squeezenet1_1"))
    assert "encoder.weights=FILE" in caught.value.fix
