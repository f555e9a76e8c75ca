"""The verbs, one function each: fit (plan, then run), explain, audit, rank, prove, labels, pretrain, adapt, ..."""

from headstart.api._given import Data, Progress
from headstart.api.fitting import METHODS, explain, fit, foresee, open_plan, plan, run
from headstart.api.looking import audit, labels, prove, rank
from headstart.api.moving import adapt, chain, explain_chain, open_chain, pretrain, shift
from headstart.api.using import evaluate, load, predict

__all__ = [
    "Data",
    "METHODS",
    "Progress",
    "adapt",
    "audit",
    "chain",
    "evaluate",
    "explain",
    "explain_chain",
    "fit",
    "foresee",
    "labels",
    "load",
    "open_chain",
    "open_plan",
    "plan",
    "predict",
    "pretrain",
    "prove",
    "rank",
    "run",
    "shift",
]
