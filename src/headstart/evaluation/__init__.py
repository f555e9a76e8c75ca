"""Scores with intervals, per class and per domain; calibration; abstention. Numpy only, no torch."""

from headstart.evaluation.bio import spans_of, transitions, viterbi
from headstart.evaluation.calibrate import (
    conformal_reach,
    conformal_threshold,
    fit_label_temperature,
    fit_temperature,
    sigmoid,
    softmax,
)
from headstart.evaluation.metrics import BINS, CONFIDENCE, METRICS, wilson
from headstart.evaluation.multilabel import THRESHOLD, evaluate_labels
from headstart.evaluation.regression import evaluate_values
from headstart.evaluation.scores import (
    Bin,
    ClassRow,
    Confusion,
    DomainRow,
    Evaluation,
    evaluate,
    paired_gain,
)
from headstart.evaluation.spans import check_lengths, evaluate_spans, f1_of, span_counts
from headstart.evaluation.suspects import likely_wrong

__all__ = [
    "BINS",
    "CONFIDENCE",
    "METRICS",
    "THRESHOLD",
    "Bin",
    "ClassRow",
    "Confusion",
    "DomainRow",
    "Evaluation",
    "check_lengths",
    "conformal_reach",
    "conformal_threshold",
    "evaluate",
    "evaluate_labels",
    "evaluate_spans",
    "evaluate_values",
    "f1_of",
    "fit_label_temperature",
    "fit_temperature",
    "likely_wrong",
    "paired_gain",
    "sigmoid",
    "softmax",
    "span_counts",
    "spans_of",
    "transitions",
    "viterbi",
    "wilson",
]
