"""Weights from files, from the hub and from nowhere: all of them really move, or an error says what did not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.core.errors import EncoderError, PlanError
from headstart.core.plan import Plan
from headstart.core.settings import Pretrained
from headstart.core.types import InputContract
from headstart.encoders._network import state_sha256
from headstart.encoders._weights import fill
from headstart.encoders.module import from_module
from headstart.model import open_encoder
from headstart.testing import check_encoder

SMALL = "timm:test_resnet"


def donor(name: str = "test_resnet", **values: Any) -> nn.Module:
    """Return a network of timm's with its own random numbers, BatchNorm statistics too."""
    torch.manual_seed(7)
    network = timm.create_model(name, pretrained=False, **values)
    with torch.no_grad():
        for tensor in network.buffers():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return network


def opened(weights: str | Path, name: str = SMALL, **values: Any):
    """Open an encoder with these weights at 64 pixels."""
    settings = {"image_size": None if name.startswith("tiny") else 64, **values}
    return open_encoder(Pretrained(name=name, weights=str(weights), **settings))


def same(module: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Tell whether every tensor of a module is the one of this name."""
    return all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_a_safetensors_file_is_loaded_whole(tmp_path: Path) -> None:
    state = donor().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    encoder = opened(tmp_path / "w.safetensors")
    assert same(encoder.module, state)
    assert encoder.receipt.transferred == 1.0
    assert encoder.receipt.source == str(tmp_path / "w.safetensors")


@pytest.mark.parametrize("key", [None, "state_dict", "state_dict_ema", "model", "model_state_dict"])
def test_a_pth_file_is_loaded_whether_bare_or_under_a_usual_key(tmp_path: Path, key: str | None) -> None:
    state = donor().state_dict()
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "w.pth")
    assert same(opened(tmp_path / "w.pth").module, state)


def test_names_of_data_parallel_training_are_understood(tmp_path: Path) -> None:
    state = donor().state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    assert same(opened(tmp_path / "w.pth").module, state)


def test_a_file_for_another_number_of_classes_is_loaded_without_its_head(tmp_path: Path) -> None:
    state = donor(num_classes=7).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    encoder = opened(tmp_path / "w.safetensors")
    assert same(encoder.module, state)
    assert all("fc" not in tensor.name for tensor in encoder.receipt.tensors)


def test_weights_of_another_architecture_are_refused_with_every_kind_of_misfit(tmp_path: Path) -> None:
    save_file(donor("test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(EncoderError) as caught:
        opened(tmp_path / "w.safetensors")
    text = str(caught.value)
    assert " missing (" in text and " unexpected (" in text and " wrong shape" in text
    assert "layer1.0.conv1.weight" in text or "conv1" in text


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    state = donor().state_dict()
    name = next(name for name, tensor in state.items() if tensor.dim() == 4)
    shape = tuple(state[name].shape)
    state[name] = torch.zeros(1, 2, 3, 4)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError) as caught:
        opened(tmp_path / "w.safetensors")
    assert f"1 wrong shape ({name} (1, 2, 3, 4) instead of {shape})" in str(caught.value)


def test_one_missing_tensor_is_enough_to_refuse(tmp_path: Path) -> None:
    state = donor().state_dict()
    name = next(name for name in state if name.endswith("running_mean"))
    del state[name]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=f"1 missing .{name}."):
        opened(tmp_path / "w.safetensors")


def test_a_missing_step_counter_of_batchnorm_is_no_reason_to_refuse(tmp_path: Path) -> None:
    state = {n: t for n, t in donor().state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    assert opened(tmp_path / "w.safetensors").receipt.transferred > 0.99


def test_a_network_that_is_mostly_head_did_not_load() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    counters = nn.Module()
    for number in range(9):
        counters.register_buffer(f"a{number}_num_batches_tracked", torch.zeros(4))
    network.append(counters)
    with pytest.raises(
        EncoderError, match=r"only 20\.0% of the network's numbers|only \d+\.\d% of the network"
    ):
        fill(network, state, source="here")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": donor().state_dict(), "x": Evil(tmp_path / "owned")}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="cannot be read as weights"):
        opened(tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    (tmp_path / f"w.{ending}").write_bytes(content)
    with pytest.raises(EncoderError, match=r"(?s)cannot be read as weights.*fix: convert it"):
        opened(tmp_path / f"w.{ending}")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_file(donor().state_dict(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderError, match="cannot be read as weights"):
        opened(tmp_path / "w.safetensors")


def test_a_file_of_no_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="holds no tensors"):
        opened(tmp_path / "w.pth")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(EncoderError, match=r"there is no weights file gone\.safetensors"):
        opened("gone.safetensors")


@pytest.mark.parametrize("name", [SMALL, "tiny-cnn", "tiny-transformer"])
def test_random_weights_have_a_receipt_of_nothing_and_are_the_same_each_time(name: str) -> None:
    torch.manual_seed(1)
    first = opened("random", name)
    torch.manual_seed(2)
    second = opened("random", name)
    assert first.receipt.transferred == 0.0
    assert "0.0%" in first.receipt.summary()
    assert first.spec.weights_sha256 == second.spec.weights_sha256


def test_opening_a_random_network_leaves_torch_s_own_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    opened("random")
    assert torch.equal(torch.rand(2), expected)


def test_the_hash_tells_pretrained_from_random_weights() -> None:
    assert (
        opened("pretrained", "tiny-cnn").spec.weights_sha256
        != opened("random", "tiny-cnn").spec.weights_sha256
    )


def test_the_hash_is_of_names_types_shapes_and_bytes() -> None:
    one = nn.Linear(2, 3)
    hashes = {state_sha256(one)}
    with torch.no_grad():
        one.weight[0, 0] += 1e-6
    hashes.add(state_sha256(one))
    hashes.add(state_sha256(nn.Sequential(one)))
    hashes.add(state_sha256(one.double()))
    assert len(hashes) == 4


# -- channels -------------------------------------------------------------------------------------------------


def first_convolution(module: nn.Module) -> Tensor:
    """Return the weights of the first convolution."""
    return next(part for part in module.modules() if isinstance(part, nn.Conv2d)).weight


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_channel_numbers_keep_the_pretrained_weights(tmp_path: Path, channels: int) -> None:
    state = donor().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    encoder = opened(tmp_path / "w.safetensors", channels=channels)
    first = first_convolution(encoder.module)
    source = next(tensor for tensor in state.values() if tensor.dim() == 4)
    expected = source.sum(1, keepdim=True) if channels == 1 else None
    if expected is None:
        expected = source.repeat(1, 2, 1, 1)[:, :channels] * 3 / channels
    assert torch.allclose(first, expected, atol=1e-6)
    others = {n: t for n, t in encoder.module.state_dict().items() if t.shape == state[n].shape}
    assert len(others) == len(encoder.module.state_dict()) - 1
    assert all(torch.equal(tensor, state[name]) for name, tensor in others.items())
    assert encoder.receipt.transferred == 1.0
    assert encoder.spec.contract.channels == channels
    assert len(encoder.spec.contract.mean) == len(encoder.spec.contract.std) == channels


def test_the_receipt_says_which_tensor_was_adapted(tmp_path: Path) -> None:
    save_file(donor().state_dict(), tmp_path / "w.safetensors")
    receipt = opened(tmp_path / "w.safetensors", channels=1).receipt
    adapted = [tensor.name for tensor in receipt.tensors if tensor.origin == "adapted"]
    assert len(adapted) == 1 and adapted[0].endswith("weight")


def test_a_grey_picture_gives_the_same_features_through_one_channel_as_through_three(tmp_path: Path) -> None:
    save_file(donor().state_dict(), tmp_path / "w.safetensors")
    three = opened(tmp_path / "w.safetensors", mean=(0.5,) * 3, std=(0.5,) * 3)
    one = opened(tmp_path / "w.safetensors", channels=1, mean=(0.5,), std=(0.5,))
    grey = torch.randint(
        0, 256, (2, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        wide, narrow = three(grey.repeat(1, 3, 1, 1), "pooled").value, one(grey, "pooled").value
    assert torch.allclose(wide, narrow, rtol=1e-4, atol=1e-5)


# -- names and the hub ----------------------------------------------------------------------------------------


def test_an_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(
        PlanError, match=r"unknown encoder 'eficientnet-lite'.*did you mean 'efficientnet-lite0'"
    ):
        open_encoder(Pretrained(name="eficientnet-lite"))


def test_an_unknown_timm_network_names_the_nearest() -> None:
    with pytest.raises(EncoderError, match=r"timm has no network 'resnet5O' \(did you mean 'resnet50'\?\)"):
        open_encoder(Pretrained(name="timm:resnet5O"))


def test_an_unreachable_hub_is_a_plain_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def unreachable(name: str, *, pretrained: bool = False, **values: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=False, **values)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(EncoderError) as caught:
        open_encoder(Pretrained(name=SMALL))
    assert "cannot be fetched (OSError: no route to host)" in caught.value.given
    assert "encoder.weights=FILE.safetensors" in caught.value.fix
    assert "--encoder efficientnet-lite0" in caught.value.fix


def test_weights_of_the_hub_are_loaded_with_a_full_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    create, state = timm.create_model, donor().state_dict()

    def reachable(name: str, *, pretrained: bool = False, **values: Any) -> nn.Module:
        network = create(name, pretrained=False, **values)
        if pretrained:
            network.load_state_dict(state)
        return network

    monkeypatch.setattr(timm, "create_model", reachable)
    encoder = open_encoder(Pretrained(name=SMALL, image_size=64))
    assert same(encoder.module, state)
    assert encoder.receipt.transferred == 1.0
    assert encoder.receipt.source == "hub weights of test_resnet"


# -- a network of the user's own ------------------------------------------------------------------------------

CONTRACT = InputContract((16, 16), (0.5,) * 3, (0.5,) * 3)


def own() -> nn.Sequential:
    """Return a small network that ends in a map."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3))


def test_a_module_with_layer_groups_is_an_encoder() -> None:
    network = own()
    encoder = from_module(network, {"stem": ["0", network[1]], "last": [network[3]]}, contract=CONTRACT)
    assert [group.name for group in encoder.layer_groups()] == ["stem", "last"]
    assert encoder.spec.width == {"pooled": 6, "depths": 14, "map": 6}
    assert encoder.receipt.transferred == 1.0
    assert encoder.receipt.source == "the caller's network"
    assert encoder.split(1, "pooled") is not None


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"stem": ["0"], "last": ["3"]}, "do not cover each of its parameters once"),
        ({"stem": ["0", "1"], "last": ["3", "0"]}, "do not cover each of its parameters once"),
        (
            {"stem": ["0", "1"], "last": ["9"]},
            "layer group 'last' names '9', which the network does not have",
        ),
        ({"stem": ["0", "1"], "last": [nn.Linear(2, 2)]}, "which the network does not have"),
    ],
)
def test_groups_that_do_not_hold_each_parameter_once_are_refused(layers: Any, said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        from_module(own(), layers, contract=CONTRACT)


@pytest.mark.parametrize(
    ("end", "width"), [([], 6), ([nn.AdaptiveAvgPool2d(1), nn.Flatten()], 6), ([nn.Flatten(2)], 144)]
)
def test_a_module_may_end_in_a_map_in_tokens_or_in_a_vector(end: list[nn.Module], width: int) -> None:
    network = nn.Sequential(*own(), *end)
    encoder = from_module(network, {"all": ["0", "1", "3"]}, contract=CONTRACT)
    assert encoder.spec.width["pooled"] == width


def test_a_module_with_another_end_is_refused() -> None:
    network = nn.Sequential(*own(), nn.Unflatten(1, (2, 3)))
    with pytest.raises(EncoderError, match=r"the network gives \(1, 2, 3, 12, 12\) for one picture"):
        from_module(network, {"all": ["0", "1", "3"]}, contract=CONTRACT)


def test_a_module_takes_weights_from_a_file(tmp_path: Path) -> None:
    state = {name: tensor + 1 for name, tensor in own().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    encoder = from_module(own(), {"all": ["0", "1", "3"]}, contract=CONTRACT, weights=weights)
    assert same(encoder.module, state)
    assert encoder.receipt.source == weights


# -- arguments of an architecture -------------------------------------------------------------------------------


def test_weights_from_tensorflow_get_its_padding_by_an_argument() -> None:
    """Padding by "same" puts the odd pixel behind, which an even size at stride 2 shows."""
    usual = opened("random", "timm:mobilenetv2_100")
    same_padded = opened("random", "timm:mobilenetv2_100", arguments={"pad_type": "same"})
    picture = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert same(usual.module, same_padded.module.state_dict())
    with torch.inference_mode():
        features = [encoder(picture, "map").value for encoder in (usual, same_padded)]
    assert features[0].shape == features[1].shape
    assert not torch.allclose(*features, rtol=1e-2, atol=1e-2)
    check_encoder(same_padded)


def test_an_argument_that_a_network_does_not_take_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"test_resnet cannot be made with \{'wings': 2\}.*wings"):
        opened("random", arguments={"wings": 2})


def test_arguments_are_part_of_the_plan_s_key() -> None:
    plans = [
        Plan(encoder=Pretrained(name=SMALL, arguments=arguments)) for arguments in ({}, {"pad_type": "same"})
    ]
    assert plans[0].key != plans[1].key
    assert Plan.from_json(plans[1].to_json()) == plans[1]
