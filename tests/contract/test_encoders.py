"""Every encoder of the registry and one of each timm family keep the encoder's contract."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from picture_parts import context
from text_parts import folder_of
from torch import Tensor, nn

from headstart.core.registry import names
from headstart.core.settings import Pretrained
from headstart.core.types import Form, InputContract
from headstart.encoders.module import from_module
from headstart.encoders.recurrent import KINDS, vocabulary
from headstart.features.runtime import choose_runtime
from headstart.model import open_encoder
from headstart.testing import check_encoder
from headstart.train.optim import freeze

CASES: dict[str, Pretrained] = {
    "tiny-cnn": Pretrained(name="tiny-cnn"),
    "tiny-transformer": Pretrained(name="tiny-transformer"),
    "efficientnet-lite0": Pretrained(name="efficientnet-lite0", image_size=64),
    "efficientnet-lite1": Pretrained(name="efficientnet-lite1", weights="random", image_size=64),
    "efficientnet-lite2": Pretrained(name="efficientnet-lite2", weights="random", image_size=64),
    "torchvision": Pretrained(name="torchvision:squeezenet1_1", weights="random", image_size=64),
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
TEXTS = [
    "Short.",
    "Many words, " * 30,
    "é and \N{GRINNING FACE}, apart",
    ("words", "given", "one", "by", "one"),
]
TEXT_CASES: dict[str, Pretrained] = {
    "tiny-gru": Pretrained(name="tiny-gru"),
    "tiny-text-transformer": Pretrained(name="tiny-text-transformer"),
    "minilm": Pretrained(name="minilm", window=16),
    **{kind: Pretrained(name=f"recurrent:{kind}", weights="random", window=16) for kind in KINDS},
    "gpt2": Pretrained(name="transformers:gpt2", window=32),
    "llama": Pretrained(name="transformers:llama", window=32),
}
"""Those of the recurrent source get a vocabulary, those of transformers a tiny random network in a folder."""
WITHOUT_ONNX = {"vgg"}
"""Its pooling of maps smaller than 7 pixels has no place in ONNX."""
UNCUT = {"vit that cannot be traced"}


@cache
def opened(case: str):
    """Open each network once; the checks leave it as it was."""
    return open_encoder(CASES[case])


@cache
def opened_text(case: str):
    """Open each text network once; the checks leave it as it was."""
    settings, folder = TEXT_CASES[case], Path(mkdtemp())
    if case in KINDS:
        (folder / "tokenizer.json").write_bytes(vocabulary(TEXTS, settings))
        settings = settings.model_copy(update={"folder": str(folder)})
    elif settings.name.startswith("transformers:"):
        settings = settings.model_copy(update={"name": f"transformers:{folder_of(folder / case, case)}"})
    return open_encoder(settings)


def features(case: str, form: Form) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the prepared texts and their features by torch."""
    encoder = opened_text(case)
    values = [encoder.prepare(text).value for text in TEXTS]
    with torch.inference_mode():
        return values, encoder.rows(values, encoder.network(form)(encoder.batch(values)), form)


def pictures(case: str, count: int) -> np.ndarray:
    """Return random pictures uint8 [count, H, W, C] of the size that a network takes."""
    contract = opened(case).spec.contract
    shape = (count, *contract.size, contract.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_encoder_of_the_registry_is_checked() -> None:
    checked = [*CASES.values(), *TEXT_CASES.values()]
    assert set(names("encoder")) <= {settings.name.partition(":")[0] for settings in checked}


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


# -- texts ----------------------------------------------------------------------------------------------------

every_text_case = pytest.mark.parametrize("case", TEXT_CASES)


@every_text_case
def test_a_text_encoder_keeps_the_contract(case: str) -> None:
    check_encoder(opened_text(case))
    check_encoder(opened_text(case), TEXTS)


@every_text_case
def test_a_text_network_is_cut_after_every_layer_group_embeddings_first(case: str) -> None:
    encoder = opened_text(case)
    groups = encoder.layer_groups()
    assert groups[0].name.startswith("embedding")
    assert len(groups) >= 2
    for form in ("pooled", "sequence"):
        assert all(encoder.split(depth, form) is not None for depth in range(1, len(groups) + 1))
        assert encoder.split(0, form) is None
        assert encoder.split(len(groups) + 1, form) is None
    assert encoder.split(1, "depths") is None


@every_text_case
@pytest.mark.parametrize("form", ["pooled", "depths", "sequence"])
def test_onnxruntime_gives_torch_s_features_of_texts(tmp_path: Path, case: str, form: Form) -> None:
    encoder = opened_text(case)
    values, expected = features(case, form)
    run = choose_runtime(encoder, form, context(tmp_path))
    together = run(values)
    largest = max(float(np.abs(row).max()) for row in expected)
    for ours, theirs in zip(together, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-4 * largest
    for value, row in zip(values, together, strict=True):
        assert np.array_equal(run([value])[0], row), "other bits for a text by itself"


@every_text_case
def test_onnxruntime_gives_torch_s_activations_of_a_cut(tmp_path: Path, case: str) -> None:
    encoder = opened_text(case)
    values = [encoder.prepare(text).value for text in TEXTS]
    parts = encoder.split(2, "pooled")
    with torch.inference_mode():
        expected = parts[1](parts[0](encoder.batch(values))).numpy()
        rows = choose_runtime(encoder, "pooled", context(tmp_path), depth=2)(values)
        given = parts[1](encoder.stack(rows)).numpy()
    assert np.abs(given - expected).max() <= 1e-4 * np.abs(expected).max()


@every_text_case
def test_padding_changes_no_feature_of_a_text(case: str) -> None:
    encoder = opened_text(case)
    values, expected = features(case, "pooled")
    batch = encoder.batch(values)
    wide = torch.full((batch.shape[0], batch.shape[1] + 2, batch.shape[2] + 5, 2), -1)
    wide[:, : batch.shape[1], : batch.shape[2]] = batch
    if case not in (*KINDS, "tiny-gru"):
        wide = wide[:, :, : encoder.spec.contract.window]  # Positions end there.
    with torch.inference_mode():
        found = encoder.network("pooled")(wide).numpy()
    assert np.abs(found - np.stack(expected)).max() <= 1e-5 * np.abs(found).max()


@every_text_case
def test_frozen_groups_of_a_text_network_stay_equal_to_the_bit_and_the_others_move(case: str) -> None:
    encoder = opened_text(case)
    groups = encoder.layer_groups()
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    encoder.module.train()
    with freeze(encoder.module, groups[:-1]):
        step(encoder.network("pooled")(encoder.collate(TEXTS)), groups[-1].parameters.values())
    after = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    encoder.module.eval()
    encoder.module.load_state_dict(before)
    frozen = {name for group in groups[:-1] for name in group.parameters}
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert any(not torch.equal(after[name], before[name]) for name in groups[-1].parameters)


def step(outputs: Tensor, parameters) -> None:
    """Take one plain gradient step."""
    outputs.square().mean().backward()
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
                parameter.grad = None


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


def test_the_check_finds_text_features_that_depend_on_padding() -> None:
    encoder = opened_text("tiny-text-transformer")

    def network(form: Form) -> nn.Module:
        return Added(encoder.network(form))

    broken = BrokenText(network=network, split=lambda depth, form: None)
    with pytest.raises(AssertionError, match="depend on the batch"):
        check_encoder(broken)  # type: ignore[arg-type]


class BrokenText(Broken):
    """A text encoder with one promise broken."""

    def __init__(self, **changes: object) -> None:
        self._inner, self._changes = opened_text("tiny-text-transformer"), changes


class Added(nn.Module):
    """Features and something of the padding beside them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch) + 0.1 * batch.shape[2]


class MinusBatchMean(nn.Module):
    """What no encoder may do: look at the other items."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps - maps.mean(0, keepdim=True)
