"""K: settings with unknown keys, changed seeds and versions, weights that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from benchmarks.faults._catalogue import Bench, Fault, Verdict, plain
from benchmarks.faults._process import Subject, complete
from benchmarks.faults.subjects.tiny import TinyNet
from headstart.core.errors import HeadstartError
from headstart.core.plan import Plan
from headstart.encoders._weights import fill
from headstart.store import seal


def refused(work: Callable[[], object], *words: str) -> Verdict:
    """Judge work that must end in one of headstart's own errors, with these words in it."""
    try:
        work()
    except HeadstartError as error:
        lacking = [word for word in words if word not in str(error)]
        first = str(error).splitlines()[0][:110]
        return Verdict(
            not lacking, f"{type(error).__name__}: {first}" + (f" (lacks {lacking})" if lacking else "")
        )
    return Verdict(False, "accepted")


def _unknown_key(_subject: Subject, _bench: Bench) -> Verdict:
    """Misspell a setting in a plan."""
    text = json.dumps({"method": {"kind": "finetune", "layer_decai": 0.5}})
    return refused(lambda: Plan.from_json(text), "layer_decai", "layer_decay")


def _other_versions(subject: Subject, bench: Bench) -> Verdict:
    """Resume a checkpoint that another version of torch wrote."""
    run = bench.run(at=10)
    complete(subject, run)
    for folder in run.checkpoints.glob("checkpoint-*"):
        state = json.loads((folder / "state.json").read_text())
        state["versions"]["torch"] = "1.0"
        (folder / "state.json").write_text(json.dumps(state))
        seal(folder)
    end = complete(subject, plain(run))
    told = "1.0 ->" in end.output and any("1.0 ->" in line for line in run.notes("remarks"))
    return Verdict(bool(end.digest) and told, f"{end}; {'warned and recorded' if told else 'not a word'}")


def _other_weights(_subject: Subject, bench: Bench) -> Verdict:
    """Load weights of which one is missing, one misshapen and one unknown."""
    net = TinyNet(bench.run())
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    del state["body.0.weight"]
    state |= {"head.weight": torch.zeros(9, 9), "stranger.weight": torch.zeros(1)}
    return refused(
        lambda: fill(net, state, source="weights"), "body.0.weight", "head.weight", "stranger.weight"
    )


FAULTS = (
    Fault("K4", "unknown key in the settings", "refused, with the nearest known name", _unknown_key),
    Fault("K5", "resumed under another library version", "recorded and warned of", _other_versions),
    Fault("K6", "weights that do not fit", "lists what is missing, unexpected, misshapen", _other_weights),
)
