"""Every knob, once: typed, validated, with our best defaults; unknown keys are refused by name.

The command line's `--set finetune.layer_decay=0.65`, the JSON schema and the docs all come from these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headstart.core.schema import Settings, parse
from headstart.core.transfer_settings import Adapt, Pretrain, Retention
from headstart.core.types import Limits

__all__ = [
    "Adapt", "Auto", "Extract", "FewShot", "FineTune", "Method", "Pretrain", "Pretrained", "Prove", "Rank", "Retention",
    "Settings", "Source", "Split", "parse",
]  # fmt: skip


class Source(Settings):
    """Where the data are and which columns mean what."""

    uri: str = ""
    """A folder, a .csv, .tsv, .parquet, .jsonl or .conll file; empty for data in memory."""
    path_column: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    """One column, or several divided by commas that each say of one label (0 or 1) whether an item has it."""
    split_column: str | None = None
    group_column: str | None = None
    domain_column: str | None = None
    answers: str | tuple[str, ...] = ()
    """Tables of `id` and `label` (`headstart labels` makes such) whose filled labels go before those of the data."""
    task: Literal["classification", "multilabel", "regression"] | None = None
    """What the labels are where their look misleads: classes, several labels an item, or numbers to predict."""
    licence: str | None = None
    """The licence of the data, as their owner states it; the model card repeats it (CC-BY-4.0, CC-BY-NC-4.0, ...)."""
    max_bad: float = Field(default=0.01, ge=0, le=1)
    """Largest share of unreadable items that is dropped (and listed) rather than refused."""
    max_megapixels: float = Field(default=64, gt=0)
    """Larger pictures are refused before they are decoded (decompression bombs)."""
    max_characters: int = Field(default=200_000, gt=0)
    """Longer texts are refused (split them: a text is read in windows, never cut)."""

    @property
    def answer_files(self) -> tuple[str, ...]:
        """The tables of answers, of which a later one goes before an earlier one."""
        return (self.answers,) if isinstance(self.answers, str) else self.answers

    @property
    def limits(self) -> Limits:
        """What an item may be at most."""
        return Limits(self.max_megapixels, self.max_characters)


class Split(Settings):
    """How items are divided where the data do not say; groups and duplicates always stay together."""

    validation: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)
    respect: bool = True
    """Use the train/validation/test folders or column of the data where there are any."""


class Pretrained(Settings):
    """Which network to start from."""

    name: str = "efficientnet-lite0"
    """An embedded network, `timm:NAME[.TAG]`, `transformers:NAME` (or a folder), or `module:`
    for a network given in Python."""
    weights: str = "pretrained"
    """`pretrained`, `random`, or the path of a .safetensors or .pth file."""
    weights_sha256: str | None = None
    """The weights' hash, filled in when the plan is made; part of the plan's key."""
    files_sha256: str | None = None
    """The hash of the network's own files (tokenizer, configuration) where it has any, filled in likewise."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Height and width in pixels; the network's own where not given."""
    channels: int = Field(default=3, ge=1, le=512)
    """Input channels; the first convolution is adapted from the pretrained three."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    order: Literal["rgb", "bgr"] | None = None
    """Set with `mean` and `std` for weights trained on other statistics than the architecture's own."""
    window: int | None = Field(default=None, ge=8, le=131_072)
    """Tokens a window of text; the network's own where not given."""
    overlap: int | None = Field(default=None, ge=0)
    """Tokens that neighbouring windows of a long text share; an eighth of the window where not given."""
    folder: str | None = None
    """Where the network's own files lie beside its weights (tokenizer, configuration)."""
    vectors: str | None = None
    """A text file of word vectors that the embedding of a recurrent network starts from."""
    arguments: dict[str, bool | int | float | str] = Field(default={})
    """Of the architecture in its library (timm, torchvision), such as pad_type = same for weights from TensorFlow."""


class Extract(Settings):
    """Feature extraction: a frozen network, the best of several cheap heads by cross-validation."""

    kind: Literal["extract"] = "extract"
    heads: tuple[Literal["logistic", "ridge", "prototype", "knn"], ...] = (
        "logistic",
        "ridge",
        "prototype",
        "knn",
    )
    depths: bool = True
    """Race pooled features of several depths beside the final vector."""
    views: int = Field(default=1, ge=1, le=64)
    """Cached views an item: the picture itself and views - 1 augmented ones (training items only)."""
    folds: int = Field(default=5, ge=2, le=20)
    use_validation: bool = True
    """Train on the validation items too, as cross-validation needs none kept aside."""


class FineTune(Settings):
    """Fine-tuning of the last layer groups or of all, starting from an extracted head."""

    kind: Literal["finetune"] = "finetune"
    train_last: int | None = Field(default=None, ge=0)
    """How many layer groups train (0: the head alone); None: all of them."""
    epochs: int = Field(default=10, ge=1, le=10_000)
    stop_after: int | None = Field(default=None, ge=1)
    """Epochs (of the head alone counted) after which training ends although the schedule goes on; None: at its end.
    A race compares networks on the way."""
    head_epochs: int = Field(default=0, ge=0)
    """Epochs of the head alone first; 0 where a fitted head is there to start from."""
    schedule: Literal["cosine", "slanted"] = "cosine"
    """How the rate falls after the warm-up: as a cosine, or along a line to 1/32 (slanted triangular, ULMFiT)."""
    unfreeze: Literal["at_once", "gradual"] = "at_once"
    """`gradual` frees one more group, deep to shallow, at equal steps over the first half of the epochs."""
    learning_rate: float = Field(default=5e-4, gt=0)
    head_learning_rate: float | None = Field(default=None, gt=0)
    layer_decay: float = Field(default=0.75, gt=0, le=1)
    """Each shallower group's learning rate is this times the one above it."""
    weight_decay: float = Field(default=0.02, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly; it falls as a cosine afterwards."""
    batch_size: int | None = Field(default=None, ge=1)
    """Items a step; None: chosen from the size of the data and of the memory when the plan is made."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches whose gradients make one step of `batch_size` items."""
    augment: Literal["none", "light", "standard", "strong"] = "standard"
    views: int | None = Field(default=None, ge=1, le=64)
    """Cached augmented views an item of the frozen prefix; None: augment and recompute every epoch."""
    lora_rank: int = Field(default=0, ge=0, le=1024)
    """Train low-rank updates of the linear layers instead of their weights (LoRA, through peft); 0: none."""
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    """Beta parameter of mixup on the inputs of what trains; 0: none."""
    class_weights: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay a step of the averaged weights that are evaluated and kept; 0: none."""
    patience: int = Field(default=5, ge=1)
    """Epochs in which neither validation loss nor accuracy is better before training stops."""
    freeze_statistics: bool = True
    """Keep BatchNorm's running statistics while its scale and shift train: steadier with small batches."""
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints inside an epoch; None: by time (each minute). An epoch's end always saves."""


class Auto(Settings):
    """How a network is chosen where none is named (`--encoder auto`)."""

    minutes: float = Field(default=5, gt=0)
    """What ranking, race and training of the winner may take together."""
    finalists: int = Field(default=3, ge=1, le=20)
    """The best of the ranking that race by short fine-tunes."""
    download: bool = False
    """Let candidates come from the hub too; else only those whose weights are on this machine."""
    catalog: str | None = None
    """A file of candidates of one's own, beside those that headstart knows."""


class Rank(Settings):
    """Which networks are ranked, and by how many items (`rank.*`)."""

    sample: int = Field(default=1000, ge=10)
    """Items that each network is probed on, at most."""
    catalog: str | None = None
    """A file of candidates of one's own, beside those that headstart knows."""
    licence: str | None = None
    """Only networks of this licence: a name, or a class such as permissive."""
    max_parameters_m: float | None = Field(default=None, gt=0)
    """At most so many million parameters."""
    max_gmacs: float | None = Field(default=None, gt=0)
    """At most so many billion multiplications and additions an item."""
    offline: bool = False
    """Only networks whose weights are on this machine."""


class Prove(Settings):
    """How a transfer is proven (`prove.*`)."""

    minutes: float = Field(default=15, gt=0)
    """What all of it may take."""
    seeds: int = Field(default=5, ge=2)
    """How often each arm is trained: one seed says nothing of chance."""
    target: float = Field(default=0.9, le=1)
    """A score; the time and the labels that it takes are told."""
    selfsupervised: bool = False
    """Also pretrain the network further on the training inputs, without labels, and fine-tune it, in the same time."""


class FewShot(Settings):
    """Few labels a class: class means refined by unlabelled items, and a body tuned by contrast, raced with heads."""

    kind: Literal["fewshot"] = "fewshot"
    train_last: int | None = Field(default=None, ge=0)
    """How many layer groups are tuned by contrast; none given: the last five, or all of fewer; 0: everything stays
    frozen."""
    passes: int = Field(default=3, ge=1, le=1000)
    """How often each labelled item is seen in the end, after two thirds as often in each part of the cross-validation;
    up to 64 of them make one step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    folds: int = Field(default=2, ge=2, le=20)
    """Parts by which tuning is cross-validated, each left out once."""
    unlabelled: int = Field(default=1000, ge=0)
    """At most so many of the training items without a label refine class means; 0: labels alone decide."""
    sharpness: float = Field(default=20, gt=0)
    """How sure an item is of its class: the factor of the cosine in the softmax."""


Method = Annotated[Extract | FineTune | FewShot, Field(discriminator="kind")]
