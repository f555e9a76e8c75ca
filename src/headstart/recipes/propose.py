"""Which method suits so many items on such a machine, by what was measured (docs/benchmarks.md)."""

from __future__ import annotations

from headstart.core.settings import Extract, FewShot, FineTune
from headstart.recipes.facts import Facts

FEW = 100
"""With fewer training pictures, cached augmented views gain more than the seconds they cost."""
VIEWS_OF_FEW = 4
MANY, FOLDS_OF_MANY = 1000, 3
"""With more training items, three folds rank heads as well as five."""
ENOUGH_TO_TUNE = 500
"""With fewer training items, fine-tuning seldom beats heads on features of several depths."""
FEW_A_CLASS = 64
"""With at most so many labelled texts a class, unlabelled ones and tuning by contrast add to what heads reach."""
TEXT_RATE, TEXT_DECAY, TEXT_EPOCHS = 2e-4, 0.9, 5
"""Rates suit networks of MiniLM's size; larger ones want less."""
TAG_RATE, TAG_BATCH = 1e-3, 16
"""Few words of a text are names, so tags want more and larger steps, and no smoothing of their labels."""


def propose(facts: Facts, method: str) -> tuple[Extract | FewShot | FineTune, Extract | None]:
    """Return (method, the extraction that it starts from).

    `auto` learns texts with few labels a class by the few-shot race, extracts else on a processor, and fine-tunes on a
    GPU where there is enough to learn from; tags and untrained networks of texts are fine-tuned.
    """
    views = VIEWS_OF_FEW if facts.num_items < FEW and facts.modality == "image" else 1
    folds = FOLDS_OF_MANY if facts.num_items > MANY else 5
    extraction = Extract(views=views, folds=folds)
    if method == "fewshot" or (method == "auto" and _is_few_shot(facts)):
        return FewShot(), extraction
    if not (method == "finetune" or (method == "auto" and _is_worth_tuning(facts))):
        return extraction, None
    if facts.modality == "text" and not facts.is_pretrained:
        # Nothing was learnt yet, so there are no features that a head could begin from.
        return FineTune(train_last=None, learning_rate=3e-3, layer_decay=1.0, epochs=20), None
    start = extraction.model_copy(update={"use_validation": False})
    if facts.task == "tagging":
        # Fine-tuning begins from a linear head, so no other need race.
        start = start.model_copy(update={"heads": ("logistic", "ridge")})
        tags = FineTune(
            learning_rate=TAG_RATE,
            layer_decay=TEXT_DECAY,
            epochs=TEXT_EPOCHS,
            batch_size=TAG_BATCH,
            label_smoothing=0.0,
        )
        return tags, start
    if facts.modality == "text":
        return FineTune(learning_rate=TEXT_RATE, layer_decay=TEXT_DECAY, epochs=TEXT_EPOCHS), start
    return FineTune(), start


def _is_few_shot(facts: Facts) -> bool:
    """Tell whether few labelled texts a class are to be told apart by a network that has learnt before."""
    is_fitting = facts.modality == "text" and facts.task == "classification" and facts.is_pretrained
    return is_fitting and facts.per_class <= FEW_A_CLASS


def _is_worth_tuning(facts: Facts) -> bool:
    """Tell whether fine-tuning should beat heads on frozen features by more than it costs."""
    if facts.task == "tagging" or (facts.modality == "text" and not facts.is_pretrained):
        return True
    return facts.has_gpu and facts.num_items >= ENOUGH_TO_TUNE
