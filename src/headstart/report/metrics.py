"""What each metric is called, what it means, and how its values are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from headstart.core.types import Score


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's title and meaning (`{one}` and `{many}` stand for the items), and of which kind its values are.

    `share`: 0 to 1, said in percent. `grade`: 0 to 1, said as a decimal. `free`: any number. `amount`: in the units of
    the target.
    """

    title: str
    meaning: str
    kind: Literal["share", "grade", "free", "amount"]


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("Accuracy", "share of test {many} named rightly", "share"),
    "balanced_accuracy": Metric(
        "Balanced accuracy", "mean of the share found in each class: all classes count the same", "share"
    ),
    "macro_f1": Metric(
        "Macro F1", "balance of precision and recall, mean over all names: rare ones count the same", "grade"
    ),
    "micro_f1": Metric(
        "Micro F1", "balance of precision and recall over all labels given: common ones count more", "grade"
    ),
    "auroc": Metric(
        "AUROC", "chance that one {one} of a class ranks above one of another; 0.5 is guessing", "grade"
    ),
    "mean_average_precision": Metric(
        "Mean average precision", "how well each label ranks its own {many} first, whatever the threshold", "grade"
    ),
    "exact_match": Metric("Exact match", "share of test {many} with nothing missed and nothing too many", "share"),
    "log_loss": Metric("Log-loss", "how surprised the probabilities are by the truth; lower is better", "free"),
    "calibration_error": Metric(
        "Calibration error", "mean gap between the stated probability and the share right", "grade"
    ),
    "r2": Metric(
        "R\N{SUPERSCRIPT TWO}", "share of the spread explained: 0 is answering the mean, 1 is perfect", "free"
    ),
    "mae": Metric("Mean absolute error", "how far off on average, in the target's units; lower is better", "amount"),
    "rmse": Metric("Root mean square error", "as above, but large errors weigh more; lower is better", "amount"),
    "spearman": Metric("Spearman's rank correlation", "whether the order is right, whatever the scale", "free"),
    "span_f1": Metric(
        "Span F1", "balance of the two below: a span counts where its words and its type are both right", "grade"
    ),
    "span_precision": Metric("Span precision", "of the spans marked, the share that are right", "share"),
    "span_recall": Metric("Span recall", "of the true spans, the share found", "share"),
    "token_accuracy": Metric(
        "Word accuracy", "share of words with the right tag, most of which are no entity", "share"
    ),
}  # fmt: skip
"""Every metric that an evaluation may hold."""


def metric(name: str) -> Metric:
    """Return what is known of a metric; one of a third party's task goes by its name."""
    return METRICS.get(name) or Metric(name.replace("_", " ").capitalize(), "", "free")


def meaning(name: str, nouns: Sequence[str]) -> str:
    """Say what a metric means, of pictures or of texts."""
    return metric(name).meaning.format(one=nouns[0], many=nouns[1])


def percent(value: float) -> str:
    """Write a share as `94.2%`."""
    return f"{100 * value:.1f}%"


def decimal(value: float | None) -> str:
    """Write a number with three decimals, or a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def amount(value: float) -> str:
    """Write a number of any size with four significant digits, `1,284`, `0.07125` or `3.2e-07`."""
    size = abs(value)
    if size and not 1e-4 <= size < 1e15:
        return f"{value:.3g}"
    digits = max(0, 3 - math.floor(math.log10(size))) if size else 0
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "\N{MINUS SIGN}")


def figure(name: str, value: float) -> str:
    """Write a value of a metric as its kind is read."""
    kind = metric(name).kind
    return percent(value) if kind == "share" else amount(value) if kind == "amount" else decimal(value)


def interval(score: Score) -> str:
    """Write the bounds of a score, `91.5 to 96.4%` of a share, `0.58 to 0.64` of another."""
    if metric(score.name).kind == "share":
        return f"{100 * score.low:.1f} to {percent(score.high)}"
    return f"{figure(score.name, score.low)} to {figure(score.name, score.high)}"


def exact(name: str, value: float) -> str:
    """Write a value for the table of metrics: shares as decimals too, so that columns compare."""
    return amount(value) if metric(name).kind == "amount" else decimal(value)
