"""Scores with intervals, per class and per domain; calibration; abstention. Numpy only, no torch."""

from headstart.evaluation.calibrate import conformal_threshold, fit_temperature, softmax
from headstart.evaluation.metrics import BINS, CONFIDENCE, METRICS, wilson
from headstart.evaluation.scores import (
    Bin,
    ClassRow,
    Confusion,
    DomainRow,
    Evaluation,
    evaluate,
    paired_difference,
)
from headstart.evaluation.suspects import likely_wrong

__all__ = [
    "BINS",
    "CONFIDENCE",
    "METRICS",
    "Bin",
    "ClassRow",
    "Confusion",
    "DomainRow",
    "Evaluation",
    "conformal_threshold",
    "evaluate",
    "fit_temperature",
    "likely_wrong",
    "paired_difference",
    "softmax",
    "wilson",
]
