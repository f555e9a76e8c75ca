"""The program `headstart`: its verbs, in the order in which a newcomer meets them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from headstart.cli._end import explain_on_one_line
from headstart.cli.adapt import adapt
from headstart.cli.audit import audit
from headstart.cli.cache import cache
from headstart.cli.chain import chain
from headstart.cli.evaluate import evaluate
from headstart.cli.explain import explain
from headstart.cli.fit import fit
from headstart.cli.labels import labels
from headstart.cli.models import models
from headstart.cli.predict import predict
from headstart.cli.pretrain import pretrain
from headstart.cli.prove import prove
from headstart.cli.rank import rank
from headstart.cli.report import report
from headstart.cli.shift import shift

EXIT_CODES = (
    "Exit codes: 0 done, 1 a fault of headstart, 2 plan or arguments, 3 data, 4 network or weights, "
    "5 model folder, 6 checkpoints, 7 training, 8 store or disk, 130 Ctrl-C, 141 nobody reads the output, "
    "143 told to stop."
)

VERBS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (
        fit,
        (
            "headstart fit photos/",
            "headstart fit photos/ --method finetune --set finetune.train_last=2 --output flowers",
            "headstart fit photos/ --encoder auto --minutes 10",
            "headstart fit cases.csv --set data.label_column=diagnosis --set data.group_column=patient",
            "headstart fit reviews.csv --output reviews_model",
            "headstart fit essays.csv --set data.label_column=grade --set data.task=regression",
            "headstart fit entities/ (train.conll, dev.conll, test.conll)",
            "headstart explain photos/ --json > plan.json; headstart fit --plan plan.json",
        ),
    ),
    (
        predict,
        (
            "headstart predict flowers new/*.jpg",
            "headstart predict flowers new/ --format csv --output labels.csv",
            "headstart predict flowers new/ --abstain 0.05",
            'headstart predict reviews_model "Arrived late and broken."',
            "headstart predict reviews_model new.csv --set data.text_column=body --format csv",
            "headstart predict reviews_model - < lines.txt",
        ),
    ),
    (evaluate, ("headstart evaluate flowers labelled/", "headstart evaluate reviews_model later.csv --json")),
    (report, ("headstart report flowers --open", "headstart report flowers --json")),
    (
        rank,
        (
            "headstart rank photos/",
            "headstart rank photos/ --offline --licence Apache-2.0 -o ranking.html",
            "headstart rank reviews.csv --candidates minilm,transformers:distilbert-base-uncased --json",
        ),
    ),
    (
        prove,
        (
            "headstart prove photos/",
            "headstart prove photos/ --minutes 5 --target 0.95 -o proof",
            "headstart prove reviews.csv --encoder minilm --json",
        ),
    ),
    (
        pretrain,
        (
            "headstart pretrain photos/ --encoder timm:resnet18 --set encoder.weights=random -o birds_network",
            "headstart pretrain reviews.csv --encoder minilm --set pretrain.epochs=5",
            "headstart pretrain photos/ --pilot",
            "headstart fit labelled/ --encoder birds_network",
        ),
    ),
    (
        chain,
        (
            "headstart chain tasks.yaml",
            "headstart chain tasks.yaml --compare -o models",
            "headstart explain tasks.yaml",
        ),
    ),
    (
        shift,
        ("headstart shift flowers garden/", "headstart shift day/ night/ --encoder efficientnet-lite0"),
    ),
    (
        adapt,
        (
            "headstart adapt flowers --target garden/",
            "headstart adapt flowers --target garden/ --ask 30",
            "headstart adapt flowers --target garden/ --labels adapted/flowers-garden-ask.csv",
            "headstart adapt flowers --target garden/ --set 'adapt.terms={\"mcc\": 1}'",
        ),
    ),
    (
        models,
        (
            "headstart models",
            "headstart models --for image --max-parameters 10 --licence permissive --sort accuracy",
            "headstart models 'vit_*dinov2*' --offline",
            "headstart models birds --catalog my_networks.toml",
            "headstart models 'resnet*' --source timm",
        ),
    ),
    (
        explain,
        (
            "headstart explain photos/",
            "headstart explain photos/ --method finetune --json > plan.json",
            "headstart explain --schema",
        ),
    ),
    (
        labels,
        (
            "headstart labels photos/ --next 30",
            "headstart labels photos/ --answers labels/photos/next_labels.csv --output second",
            "headstart fit photos/ --set data.answers=labels/photos/next_labels.csv",
            "headstart labels reviews.csv --next 0 --json",
        ),
    ),
    (audit, ("headstart audit photos/", "headstart audit reviews.csv --strict --json")),
)
"""The verbs, each with examples for its help."""

app = typer.Typer(
    name="headstart",
    help="Transfer learning: from a folder of data to a proven, saved, usable model.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on `arguments` (the command line's own by default); ends with SystemExit and its code."""
    # Before torch is imported: threads that wait by spinning take the processor from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():
        warnings.showwarning = explain_on_one_line
        app(args=arguments, prog_name="headstart")


def _print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headstart {version('headstart')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Transfer learning: from a folder of data to a proven, saved, usable model."""


for verb, examples in VERBS:
    app.command(epilog="\n\n".join(["Examples:", *(f"  {example}" for example in examples)]))(verb)
app.add_typer(cache, name="cache")
