"""The result in plain words: sentences and the way that numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core.registry import resolve
from headstart.report.floors import commonest, floor_of, quoted
from headstart.report.metrics import figure, interval, metric, percent

if TYPE_CHECKING:
    from headstart.evaluation import Evaluation
    from headstart.result import Result

FINE_TUNED = "fine-tuned"
"""Name that a fine-tuned model goes by in the race against its own start."""
CONTRASTED = "tuned by contrast, logistic head"
"""Name that a tuned body goes by in the few-shot race."""
NAMES: Mapping[str, tuple[str, str]] = {
    "classification": ("Class", "Classes"),
    "multilabel": ("Label", "Labels"),
    "regression": ("Number", "Numbers"),
    "tagging": ("Entity type", "Entity types"),
}
"""What a task's names are called."""
_METHODS = {
    "extract": "A new head on the frozen network {}",
    "finetune": "The network {}, fine-tuned with a new head,",
    "fewshot": "The network {}, tuned by contrast with a new head,",
}
_DEFINED_FLOORS = ("Always the mean", "Marking nothing")


def nouns(result: Result) -> tuple[str, str]:
    """Return what one item and several are called: `text`, `texts`."""
    return resolve("modality", result.modality).NOUN


def names(evaluation: Evaluation) -> tuple[str, str]:
    """Return what one name and several are called: `Class`, `Classes`."""
    return NAMES.get(evaluation.task, ("Name", "Names"))


def labels(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the names that a model tells apart; of tags (`B-person`, `I-person`, `O`) their types."""
    if evaluation.task != "tagging":
        return evaluation.labels
    return tuple(dict.fromkeys(tag.partition("-")[2] or tag for tag in evaluation.labels if tag != "O"))


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


def headline(evaluation: Evaluation) -> str:
    """Say what the first figure is: `right`, or the name of the score."""
    primary = evaluation.primary
    return "right" if primary.name == "accuracy" else metric(primary.name).title


def verdict(result: Result) -> list[str]:
    """Say in a few sentences what was trained, how good it is, and whether the transfer gained anything."""
    model = _METHODS[trained_by(result)].format(result.plan.encoder.name)
    said = _SAID.get(result.evaluation.task, _said_plainly)
    sentences = [said(result, model), *_floor_sentence(result)]
    return [*sentences, *([compared(result)] if result.baseline else [])]


def _said_of_classes(result: Result, model: str) -> str:
    """Say how good a classification is."""
    accuracy = result.evaluation.primary
    return (
        f"{model} tells {count(len(result.evaluation.labels), 'class')} apart and names {percent(accuracy.value)} of "
        f"{_tests(result)} rightly (95% interval {interval(accuracy)})."
    )


def _said_of_labels(result: Result, model: str) -> str:
    """Say how good several labels an item are."""
    exact = _value(result.evaluation, "exact_match")
    whole = f"; for {percent(exact)} of them it gives just the right labels" if exact is not None else ""
    return (
        f"{model} gives each {nouns(result)[0]} any of {count(len(result.evaluation.labels), 'label')} and reaches "
        f"{_reached(result)}{whole}."
    )


def _said_of_numbers(result: Result, model: str) -> str:
    """Say how good predicted numbers are."""
    error = _value(result.evaluation, "mae")
    off = f"; on average it is {figure('mae', error)} off" if error is not None else ""
    return f"{model} predicts a number for each {nouns(result)[0]} and reaches {_reached(result)}{off}."


def _said_of_spans(result: Result, model: str) -> str:
    """Say how good marked entities are."""
    precision, recall = (_value(result.evaluation, f"span_{name}") for name in ("precision", "recall"))
    parts = (
        f": {percent(precision)} of what it marks is right, and it finds {percent(recall)} of what is there"
        if precision is not None and recall is not None
        else ""
    )
    types = count(len(labels(result.evaluation)), "type")
    return f"{model} marks entities of {types} and reaches {_reached(result)}{parts}."


def _said_plainly(result: Result, model: str) -> str:
    """Say the primary score."""
    return f"{model} reaches {_reached(result)}."


_SAID = {
    "classification": _said_of_classes,
    "multilabel": _said_of_labels,
    "regression": _said_of_numbers,
    "tagging": _said_of_spans,
}


def _reached(result: Result) -> str:
    """Say the primary score with its interval and items."""
    score = result.evaluation.primary
    return (
        f"{_article(metric(score.name).title)} of {figure(score.name, score.value)} on {_tests(result)} "
        f"(95% interval {interval(score)})"
    )


def _article(title: str) -> str:
    """Write a metric's title inside a sentence: `a macro F1`, `an R\N{SUPERSCRIPT TWO}`, `an accuracy`."""
    lower = title[0].lower() + title[1:] if title[1:2].islower() else title
    return f"{'an' if lower[0] in 'aeioFHLMNRSX' else 'a'} {lower}"


def _tests(result: Result) -> str:
    """Write the number of test items with their noun."""
    return count(result.evaluation.n, f"test {nouns(result)[0]}")


def _value(evaluation: Evaluation, name: str) -> float | None:
    """Return one metric's value, None where it is not defined on these items."""
    return next((score.value for score in evaluation.scores if score.name == name), None)


def _floor_sentence(result: Result) -> list[str]:
    """Say what answering without looking would score."""
    evaluation = result.evaluation
    if evaluation.task == "classification":
        label, share = commonest(evaluation)
        return [f"Always answering {quoted(label)} would be right for {percent(share)}."]
    floor = floor_of(result)
    if floor is None:
        return []
    reached = figure(evaluation.primary.name, floor.value) if floor.name not in _DEFINED_FLOORS else "0"
    return [f"{floor.name} would reach {reached}."]


def trained_by(result: Result) -> str:
    """Return the method that made the model; a fine-tuning that lost to its own start leaves an extracted head."""
    chosen = next((row.name for row in result.race if row.chosen), FINE_TUNED)
    return result.plan.method.kind if chosen in (FINE_TUNED, CONTRASTED) else "extract"


def compared(result: Result) -> str:
    """Say what the baseline reaches and whether these test items tell the two apart."""
    baseline = result.baseline
    assert baseline is not None
    primary, gain, many = baseline.evaluation.primary, baseline.difference, nouns(result)[1]
    lead = f"The baseline ({baseline.name}) reaches {figure(primary.name, primary.value)}"
    value, low, high = (_gain(result, number) for number in (gain.value, gain.low, gain.high))
    what = _PAIRED.get(result.evaluation.task, "")
    if gain.low > 0:
        gained = f"the transfer gained {value.removeprefix('+')}{what}"
        return f"{lead}: {gained}, and these test {many} prove a gain (95% interval {low} to {high})."
    if gain.high < 0:
        lost = _gain(result, -gain.value).removeprefix("+")
        return f"{lead}: the transfer lost {lost}{what} ({low} to {high}). Use the baseline."
    return (
        f"{lead}. The difference of {value}{what} (95% interval {low} to {high}) may be chance: "
        f"more test {many} would tell."
    )


_PAIRED = {
    "classification": " points",
    "multilabel": " points of overlap between the labels given and the true ones",
    "regression": " of mean absolute error",
    "tagging": " points of texts with every entity right",
}
"""What the paired difference of a task counts, item by item."""


def _gain(result: Result, value: float) -> str:
    """Write a paired difference: of numbers in the units of the target, else in percentage points."""
    if result.evaluation.task == "regression":
        return f"{'+' if value > 0 else ''}{figure('mae', value)}"
    return points(value)


def cautions(result: Result) -> list[str]:
    """Say what should make a reader careful."""
    evaluation, said = result.evaluation, [*result.notes, *result.evaluation.notes]
    primary = evaluation.primary
    if metric(primary.name).kind != "amount" and primary.high - primary.low > 0.1:
        title = _article(metric(primary.name).title).partition(" ")[2]
        small = f"the test set is small ({count(evaluation.n, nouns(result)[0])})"
        said.append(f"{small}: a true {title} anywhere from {interval(primary)} would fit")
    if len(evaluation.per_domain) > 1:
        said += _domain_caution(evaluation)
    errors = [finding for finding in result.audit.findings if finding.severity == "error"]
    said += [
        f"the audit found: {item.message}" + (f" ({item.action})" if item.action else "") for item in errors
    ]
    return [sentence[0].upper() + sentence[1:].rstrip(".") + "." for sentence in said if sentence]


def _domain_caution(evaluation: Evaluation) -> list[str]:
    """Name the worst and the best domain where their intervals do not meet."""
    rows = sorted(evaluation.per_domain, key=lambda row: row.scores[0].value)
    (low, least), (high, most) = ((row.domain, row.scores[0]) for row in (rows[0], rows[-1]))
    if least.high >= most.low:
        return []
    return [
        f"domains differ: {figure(least.name, least.value)} on {low}, {figure(most.name, most.value)} on {high}"
    ]


@dataclass(frozen=True, slots=True)
class Use:
    """How a model is used: arguments on the command line, an input in Python, what is printed of a prediction."""

    arguments: str
    example: str
    shown: str


def use_of(result: Result) -> Use:
    """Return how a model of this modality and task is used."""
    shown = _SHOWN.get(result.evaluation.task, "prediction")
    if result.modality == "text":
        return Use('"A text of your own" more.txt', '"A text of your own"', shown)
    return Use("photos/*.jpg", '"photo.jpg"', shown)


_SHOWN = {
    "classification": "prediction.label, prediction.probability",
    "multilabel": "prediction.labels, prediction.probabilities",
    "regression": "prediction.value, prediction.low, prediction.high",
    "tagging": "prediction.spans",
}


def title(result: Result) -> str:
    """Name the data, by the last part of where they lie."""
    plan = result.plan
    return _last_part(plan.data.uri) or plan.name or f"{nouns(result)[1]} in memory"


def settings_of(result: Result) -> dict[str, Any]:
    """Return the plan as JSON values; of folders only their last part, as the rest may name a person."""
    return _without_folders(result.plan.model_dump(mode="json"))


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Cut paths in a dumped plan, and in the plans that it continues, to their last part."""
    if "folder" in values:
        return {**values, "folder": _last_part(values["folder"])}
    data = {**values["data"], "uri": _last_part(values["data"]["uri"])}
    encoder = {**values["encoder"], "weights": _last_part(values["encoder"]["weights"])}
    start = _without_folders(values["start"]) if values["start"] else None
    return {**values, "data": data, "encoder": encoder, "start": start}


def _last_part(path: str) -> str:
    """Return the last part of a path of any system."""
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
