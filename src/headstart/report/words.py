"""The result in plain words: sentences and the way that numbers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.core.types import Score

if TYPE_CHECKING:
    from headstart.evaluation import Evaluation
    from headstart.result import Result

METRIC_NAMES = {
    "accuracy": ("Accuracy", "share of test pictures named rightly"),
    "balanced_accuracy": (
        "Balanced accuracy",
        "mean of the share found in each class: all classes count the same",
    ),
    "macro_f1": ("Macro F1", "as balanced accuracy, but calling a class wrongly costs too"),
    "auroc": ("AUROC", "chance that a picture of a class ranks above one of another; 0.5 is guessing"),
    "log_loss": ("Log-loss", "how surprised the probabilities are by the truth; lower is better"),
    "calibration_error": ("Calibration error", "mean gap between the stated probability and the share right"),
}
FINE_TUNED = "fine-tuned"
"""Name that a fine-tuned model goes by in the race against its own start."""
_METHODS = {
    "extract": "A new head on the frozen network {}",
    "finetune": "The network {}, fine-tuned with a new head,",
}


def percent(value: float) -> str:
    """Write a share as `94.2%`."""
    return f"{100 * value:.1f}%"


def interval(score: Score) -> str:
    """Write the bounds of a share as `91.5 to 96.4%`."""
    return f"{100 * score.low:.1f} to {percent(score.high)}"


def points(value: float) -> str:
    """Write a difference of shares in percentage points, `+23.2`."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(number: float, noun: str) -> str:
    """Write a number with its noun, `1 class`, `1,204 pictures`."""
    plural = noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """Write a time as `0.4 s`, `38 s`, `4 min 10 s` or `2 h 05 min`."""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def decimal(value: float | None) -> str:
    """Write a number with three decimals, or a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


def commonest(evaluation: Evaluation) -> tuple[str, float]:
    """Return the most common class of the test items and its share: what answering it always would score."""
    row = max(evaluation.per_class, key=lambda item: item.support)
    return row.label, row.support / evaluation.n


def verdict(result: Result) -> list[str]:
    """Say in a few sentences what was trained, how good it is, and whether the transfer gained anything."""
    accuracy = result.evaluation.score("accuracy")
    names = count(len(result.evaluation.labels), "class")
    model = _METHODS[trained_by(result)].format(result.plan.encoder.name)
    label, share = commonest(result.evaluation)
    sentences = [
        f"{model} tells {names} apart and names {percent(accuracy.value)} of "
        f"{count(accuracy.n, 'test picture')} rightly (95% interval {interval(accuracy)}).",
        f"Always answering \N{LEFT DOUBLE QUOTATION MARK}{label}\N{RIGHT DOUBLE QUOTATION MARK} "
        f"would be right for {percent(share)}.",
    ]
    return [*sentences, *([compared(result)] if result.baseline else [])]


def trained_by(result: Result) -> str:
    """Return the method that made the model; a fine-tuning that lost to its own start leaves an extracted head."""
    chosen = next((row.name for row in result.race if row.chosen), FINE_TUNED)
    return "extract" if chosen != FINE_TUNED else result.plan.method.kind


def compared(result: Result) -> str:
    """Say what the baseline reaches and whether these test items tell the two apart."""
    baseline = result.baseline
    assert baseline is not None
    reached = percent(baseline.evaluation.score("accuracy").value)
    gain = baseline.difference
    lead = f"The baseline ({baseline.name}) reaches {reached}"
    spread = f"{points(gain.low)} to {points(gain.high)}"
    if gain.low > 0:
        gained = f"the transfer gained {100 * gain.value:.1f} points"
        return f"{lead}: {gained}, and these test pictures prove a gain (95% interval {spread})."
    if gain.high < 0:
        return f"{lead}: the transfer lost {-100 * gain.value:.1f} points ({spread}). Use the baseline."
    return (
        f"{lead}. The difference of {points(gain.value)} points (95% interval {spread}) may be chance: "
        "more test pictures would tell."
    )


def cautions(result: Result) -> list[str]:
    """Say what should make a reader careful."""
    evaluation, said = result.evaluation, [*result.notes, *result.evaluation.notes]
    accuracy = evaluation.score("accuracy")
    if accuracy.high - accuracy.low > 0.1:
        small = f"the test set is small ({count(accuracy.n, 'picture')})"
        said.append(f"{small}: a true accuracy anywhere from {interval(accuracy)} would fit")
    if len(evaluation.per_domain) > 1:
        rows = sorted(evaluation.per_domain, key=lambda row: row.scores[0].value)
        worst, best = rows[0].scores[0], rows[-1].scores[0]
        if worst.high < best.low:
            apart = f"{percent(worst.value)} on {rows[0].domain}, {percent(best.value)} on {rows[-1].domain}"
            said.append(f"domains differ: {apart}")
    errors = [finding for finding in result.audit.findings if finding.severity == "error"]
    said += [
        f"the audit found: {item.message}" + (f" ({item.action})" if item.action else "") for item in errors
    ]
    return [sentence[0].upper() + sentence[1:].rstrip(".") + "." for sentence in said if sentence]


def title(result: Result) -> str:
    """Name the data, by the last part of where they lie."""
    return _last_part(result.plan.data.uri) or "pictures in memory"


def settings_of(result: Result) -> dict[str, Any]:
    """Return the plan as JSON values; of folders only their last part, as the rest may name a person."""
    return _without_folders(result.plan.model_dump(mode="json"))


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Cut paths in a dumped plan, and in the plans that it continues, to their last part."""
    data = {**values["data"], "uri": _last_part(values["data"]["uri"])}
    encoder = {**values["encoder"], "weights": _last_part(values["encoder"]["weights"])}
    start = _without_folders(values["start"]) if values["start"] else None
    return {**values, "data": data, "encoder": encoder, "start": start}


def _last_part(path: str) -> str:
    """Return the last part of a path of any system."""
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
