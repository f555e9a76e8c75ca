"""The model card: README.md of a model folder, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from headstart.core.lineage import is_noncommercial
from headstart.report.document import versions
from headstart.report.metrics import exact, metric, percent
from headstart.report.words import cautions, count, labels, names, nouns, title, use_of, verdict

if TYPE_CHECKING:
    from headstart.core.lineage import Lineage
    from headstart.core.types import EncoderSpec
    from headstart.result import Result

_HUB_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc0-1.0",
    ]
)
_HUB_METRICS = {
    "accuracy": "accuracy", "macro_f1": "f1", "micro_f1": "f1", "auroc": "roc_auc", "span_f1": "f1",
    "span_precision": "precision", "span_recall": "recall", "mae": "mae", "rmse": "rmse", "r2": "r_squared",
    "spearman": "spearmanr", "mean_average_precision": "average_precision", "exact_match": "exact_match",
}  # fmt: skip
_PIPELINES = {
    ("image", "classification"): ("image-classification", "Image classification"),
    ("image", "multilabel"): ("image-classification", "Image classification"),
    ("text", "classification"): ("text-classification", "Text classification"),
    ("text", "multilabel"): ("text-classification", "Text classification"),
    ("text", "regression"): ("text-classification", "Text classification"),
    ("text", "tagging"): ("token-classification", "Token classification"),
}
"""The hub's names for what a model of a modality and task does; it has none for pictures to numbers."""
_TAGS = {
    "multilabel": ["multi-label-classification"],
    "regression": ["regression"],
    "tagging": ["named-entity-recognition"],
}


_ELSEWHERE = {
    "image": "other cameras, places or times",
    "text": "other authors, subjects, languages or times",
}


def card(result: Result, spec: EncoderSpec) -> str:
    """Return the card as Markdown with YAML front matter; names from the data are escaped in both."""
    evaluation = result.evaluation
    named = ", ".join(f"`{_code(label)}`" for label in labels(evaluation))
    parts = [
        f"---\n{_front_matter(result, spec)}---",
        f"# {_text(title(result))}: {_text(result.plan.encoder.name)}",
        "\n".join(_text(sentence) for sentence in verdict(result)),
        *([f"## {names(evaluation)[1]}\n\n{named}"] if named else []),
        f"## Use\n\n{_use(result)}",
        f"## Scores\n\n{_scores(result)}",
        *([f"## Per {names(evaluation)[0].lower()}\n\n{_classes(result)}"] if evaluation.per_class else []),
        f"## Limits\n\n{_limits(result)}",
        f"## Training\n\n{_training(result, spec)}",
        *([f"## Lineage\n\n{_lineage(result.lineage)}"] if result.lineage else []),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(result: Result, spec: EncoderSpec) -> str:
    """Return the front matter; every value is JSON, which is YAML too, so nothing is escaped by hand."""
    metrics = [
        {
            "type": _HUB_METRICS[score.name],
            "name": metric(score.name).title,
            "value": round(score.value, 4),
        }
        for score in result.evaluation.scores
        if score.name in _HUB_METRICS
    ]
    pipeline, task = _PIPELINES.get((result.modality, result.evaluation.task), ("", ""))
    tags = [*([pipeline] if pipeline else []), *_TAGS.get(result.evaluation.task, [])]
    licence = _licence(result, spec)
    known = licence.lower() in _HUB_LICENCES
    values: dict[str, Any] = {
        "license": licence.lower() if known else "other",
        **({} if known else {"license_name": licence or "unknown"}),
        "library_name": "headstart",
        **({"pipeline_tag": pipeline} if pipeline else {}),
        "tags": ["headstart", *tags, "transfer-learning", spec.name],
        "model-index": [
            {
                "name": title(result),
                "results": [
                    {
                        "task": {"type": pipeline or "other", "name": task or "Other"},
                        "dataset": {"type": _dataset(result), "name": title(result), "split": "test"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _licence(result: Result, spec: EncoderSpec) -> str:
    """Return the licence of the result: the network's own, unless something in the chain forbids commercial use."""
    own = result.plan.data.licence
    every = [spec.licence, own, *_licences(result.lineage)]
    return next((name for name in every if name and is_noncommercial(name)), spec.licence)


def _licences(lineage: Lineage | None) -> list[str | None]:
    """Return the licences of every link's network and data."""
    return [name for link in lineage.links for name in (link.licence, link.data_licence)] if lineage else []


def _lineage(lineage: Lineage) -> str:
    """Return the table of the links with data fingerprints and licences, and what was kept of the earlier tasks."""
    rows = [
        "| link | method | data | fingerprint | licence of the data | network | its licence | test score |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for link in lineage.links:
        score = f"{metric(link.score.name).title} {link.score.value:.3f}" if link.score else ""
        cells = (
            _text(link.name), link.method, _text(link.data or "in memory"), f"`{link.fingerprint[:12]}`",
            _text(link.data_licence or "not stated"), _text(link.encoder), _text(link.licence or "unknown"), score,
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    kept = [
        f"- {_text(row.name)}: {percent(row.share.value)} of its validation score is kept by this network "
        f"({percent(row.share.low)} to {percent(row.share.high)})."
        for row in lineage.kept
        if row.share
    ]
    marks = [f"- **Not for commercial use**: {_text(one)}." for one in lineage.restricted]
    parts = ["\n".join(rows), *(["\n".join(kept)] if kept else []), *(["\n".join(marks)] if marks else [])]
    return "\n\n".join(parts)


def _dataset(result: Result) -> str:
    """Return the kind of file or folder that the data came from."""
    return PurePath(result.plan.data.uri).suffix.removeprefix(".").lower() or "folder"


def _use(result: Result) -> str:
    """Return how to use the model from the command line and from Python."""
    use = use_of(result)
    return (
        f"```bash\nheadstart predict . {use.arguments}\n```\n\n"
        "```python\nimport headstart\n\n"
        f'model = headstart.load(".")\nfor prediction in headstart.predict(model, [{use.example}]):\n'
        f"    print({use.shown})\n```"
    )


def _scores(result: Result) -> str:
    """Return the table of metrics."""
    rows = ["| metric | value | 95% interval | n |", "|---|---|---|---|"]
    for score in result.evaluation.scores:
        name = metric(score.name).title
        value, low, high = (exact(score.name, number) for number in (score.value, score.low, score.high))
        rows.append(f"| {name} | {value} | {low} to {high} | {score.n} |")
    return "\n".join(rows)


def _classes(result: Result) -> str:
    """Return the table of classes."""
    rows = [
        f"| {names(result.evaluation)[0].lower()} | n | recall | 95% interval | precision |",
        "|---|---|---|---|---|",
    ]
    for row in result.evaluation.per_class:
        spread = "" if row.low is None or row.high is None else f"{percent(row.low)} to {percent(row.high)}"
        recall = "" if row.recall is None else percent(row.recall)
        precision = "" if row.precision is None else percent(row.precision)
        rows.append(f"| {_text(row.label)} | {row.support} | {recall} | {spread} | {precision} |")
    return "\n".join(rows)


def _limits(result: Result) -> str:
    """Return what to be careful about."""
    one, many = nouns(result)
    fixed = [
        f"The scores hold for {many} like the test set; {_ELSEWHERE.get(result.modality, 'others')} may score lower."
    ]
    if result.evaluation.task == "classification":
        fixed.append(
            f"A {one} of none of these classes is given one all the same, unless an abstention threshold is set."
        )
    if result.modality == "text":
        fixed.append(
            "The language of the training texts was not recorded: it is not known to work in any other."
        )
    return "\n".join(f"- {_text(sentence)}" for sentence in [*cautions(result), *fixed])


def _training(result: Result, spec: EncoderSpec) -> str:
    """Return how the model was made."""
    audit, plan = result.audit, result.plan
    rows = [
        f"Encoder: {spec.name} ({spec.licence or 'licence unknown'}), {result.receipt.summary()}.",
        *([f"Chosen: {'; '.join(result.selection.reasons)}."] if result.selection else []),
        f"Method: {plan.method.kind}, seed {plan.seed}. Plan `{plan.key[:12]}` is in `headstart.json`.",
        f"Data: {count(audit.num_kept, nouns(result)[0])} of {audit.num_items:,} kept by the audit"
        + (f" (licence: {plan.data.licence})." if plan.data.licence else "."),
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}.",
    ]
    return "\n".join(f"- {_text(row) if '`' not in row else row}" for row in rows)


def _text(words: str) -> str:
    """Escape what Markdown or HTML would read as markup."""
    plain = " ".join(escape(words, quote=False).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)


def _code(words: str) -> str:
    """Make words fit for a code span."""
    return " ".join(words.replace("`", "'").split())
