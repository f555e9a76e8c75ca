"""The model card: README.md of a model folder, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from headstart.report.document import versions
from headstart.report.words import METRIC_NAMES, cautions, count, percent, title, verdict

if TYPE_CHECKING:
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
_HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "auroc": "roc_auc"}


def card(result: Result, spec: EncoderSpec) -> str:
    """Return the card as Markdown with YAML front matter; names from the data are escaped in both."""
    parts = [
        f"---\n{_front_matter(result, spec)}---",
        f"# {_text(title(result))}: {_text(result.plan.encoder.name)}",
        "\n".join(_text(sentence) for sentence in verdict(result)),
        f"## Classes\n\n{', '.join(f'`{_code(label)}`' for label in result.evaluation.labels)}",
        f"## Use\n\n{_use()}",
        f"## Scores\n\n{_scores(result)}",
        f"## Per class\n\n{_classes(result)}",
        f"## Limits\n\n{_limits(result)}",
        f"## Training\n\n{_training(result, spec)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(result: Result, spec: EncoderSpec) -> str:
    """Return the front matter; every value is JSON, which is YAML too, so nothing is escaped by hand."""
    metrics = [
        {
            "type": _HUB_METRICS[score.name],
            "name": METRIC_NAMES[score.name][0],
            "value": round(score.value, 4),
        }
        for score in result.evaluation.scores
        if score.name in _HUB_METRICS
    ]
    known = spec.licence.lower() in _HUB_LICENCES
    values: dict[str, Any] = {
        "license": spec.licence.lower() if known else "other",
        **({} if known else {"license_name": spec.licence or "unknown"}),
        "library_name": "headstart",
        "pipeline_tag": "image-classification",
        "tags": ["headstart", "image-classification", "transfer-learning", spec.name],
        "model-index": [
            {
                "name": title(result),
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {"type": "folder", "name": title(result), "split": "test"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _use() -> str:
    """Return how to use the model from the command line and from Python."""
    return (
        "```bash\nheadstart predict . photos/*.jpg\n```\n\n"
        "```python\nimport headstart\n\n"
        'model = headstart.load(".")\nheadstart.predict(model, ["photo.jpg"])\n```'
    )


def _scores(result: Result) -> str:
    """Return the table of metrics."""
    rows = ["| metric | value | 95% interval | n |", "|---|---|---|---|"]
    for score in result.evaluation.scores:
        name = METRIC_NAMES[score.name][0]
        rows.append(f"| {name} | {score.value:.3f} | {score.low:.3f} to {score.high:.3f} | {score.n} |")
    return "\n".join(rows)


def _classes(result: Result) -> str:
    """Return the table of classes."""
    rows = ["| class | n | recall | 95% interval | precision |", "|---|---|---|---|---|"]
    for row in result.evaluation.per_class:
        spread = "" if row.low is None or row.high is None else f"{percent(row.low)} to {percent(row.high)}"
        recall = "" if row.recall is None else percent(row.recall)
        precision = "" if row.precision is None else percent(row.precision)
        rows.append(f"| {_text(row.label)} | {row.support} | {recall} | {spread} | {precision} |")
    return "\n".join(rows)


def _limits(result: Result) -> str:
    """Return what to be careful about."""
    fixed = [
        "The scores hold for pictures like the test set; other cameras, places or times may score lower.",
        "A picture of none of these classes is given one all the same, unless an abstention threshold is set.",
    ]
    return "\n".join(f"- {_text(sentence)}" for sentence in [*cautions(result), *fixed])


def _training(result: Result, spec: EncoderSpec) -> str:
    """Return how the model was made."""
    audit, plan = result.audit, result.plan
    rows = [
        f"Encoder: {spec.name} ({spec.licence or 'licence unknown'}), {result.receipt.summary()}.",
        f"Method: {plan.method.kind}, seed {plan.seed}. Plan `{plan.key[:12]}` is in `headstart.json`.",
        f"Data: {count(audit.num_kept, 'picture')} of {audit.num_items:,} kept by the audit.",
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
