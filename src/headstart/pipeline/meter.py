"""The forgetting meter: earlier tasks scored again, each by its own head, on the same validation items as then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from headstart.core.lineage import Kept
from headstart.core.protocols import Encoder, Task
from headstart.core.types import Score, Target
from headstart.data import TableDataset
from headstart.evaluation.metrics import blocks_of, draw_weights
from headstart.evaluation.scores import score_of
from headstart.features.feed import as_floats
from headstart.train.runtime import Context, limited_threads

BATCH = 32
RESAMPLES, SLOW_RESAMPLES = 1000, 200
"""Of accuracy, and of measures that each resample computes anew."""


@dataclass(frozen=True)
class Earlier:
    """A task of an earlier link: its goal and head, its training items, and the validation items with the outputs that
    its own network gave then; `why_not` says why there are none.
    """

    name: str
    key: str
    task: Task
    head: Any
    training: TableDataset | None = None
    validation: TableDataset | None = None
    outputs: Any = None
    why_not: str = ""
    is_seen: bool = False
    """Its head may have been fitted on the validation items: the score then is too good."""

    @property
    def targets(self) -> list[Target]:
        """The truth of the validation items."""
        return cast("list[Target]", list(self.validation.targets)) if self.validation else []


class Probe:
    """The validation items of an earlier task as they cross into what trains, so that it alone is run again."""

    def __init__(self, encoder: Encoder, earlier: Earlier, context: Context, *, depth: int = 0) -> None:
        """Run the first `depth` layer groups, which rest, once."""
        assert earlier.validation is not None, "it can be scored"
        self.earlier, self.context = earlier, context
        encoder.module.to(context.device)
        form = earlier.head.form
        parts = encoder.split(depth, form) if depth else None
        self.body = parts[1] if parts else encoder.network(form)
        data = earlier.validation
        self.entering: list[torch.Tensor] = []
        prefix = parts[0].eval() if parts else None
        with torch.inference_mode(), limited_threads(context.threads):
            for start in range(0, len(data), BATCH):
                rows = range(start, min(start + BATCH, len(data)))
                inputs = encoder.batch([encoder.prepare(data[row].input).value for row in rows])
                self.entering.append(prefix(inputs.to(context.device)).cpu() if prefix else inputs)

    def outputs(self) -> Any:
        """Return the outputs of the earlier head on the network as it is: [n, C], or a list of [L, C] for words."""
        head, place = self.earlier.head.eval(), self.context.device
        head.to(place)
        modes = [(module, module.training) for module in self.body.modules()]
        self.body.eval()
        found: list[np.ndarray] = []
        try:
            with torch.inference_mode(), limited_threads(self.context.threads):
                for batch in self.entering:
                    found.extend(head(self.body(as_floats(batch.to(place)))).float().cpu().numpy())
        finally:
            head.cpu()
            for module, mode in modes:
                module.training = mode
        if found[0].ndim == 1:
            return np.stack(found)
        # Words are padded to the longest text of the batch.
        return [
            row[: len(cast("Any", target))] for row, target in zip(found, self.earlier.targets, strict=True)
        ]


def scored_again(earlier: Earlier, outputs: Any, *, seed: int) -> Kept:
    """Compare outputs now with those then, item by item; the intervals draw the same items (or groups) for both."""
    if earlier.validation is None:
        nothing = Score("none", 0.0, 0.0, 0.0, 0)
        return Kept(earlier.name, earlier.task.quality_name, 0.0, 0.0, nothing, None, 0, earlier.why_not)
    then, now = quality(earlier, earlier.outputs), quality(earlier, outputs)
    old, new = _drawn_again(earlier, outputs, seed=seed)
    name, count = earlier.task.quality_name, len(earlier.targets)
    change = score_of(f"{name}_change", now - then, new - old, count)
    shares = new / np.where(old > 0, old, np.nan)
    share = score_of(f"{name}_kept", now / then, shares, count) if then > 0 else None
    return Kept(earlier.name, name, then, now, change, share, count, is_seen=earlier.is_seen)


def _drawn_again(earlier: Earlier, outputs: Any, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the measure then and now [R] on resamples of the validation items, the same items (or groups) for both."""
    task, targets = earlier.task, earlier.targets
    assert earlier.validation is not None, "it can be scored"
    blocks, _ = blocks_of(earlier.validation.groups, len(targets))
    if task.quality_name == "accuracy":
        items = [
            np.asarray(task.item_quality(task.probabilities(rows, 1.0), targets), np.float64)
            for rows in (earlier.outputs, outputs)
        ]
        drawn = [
            [row @ weights / weights.sum(0) for row in items]
            for weights in draw_weights(blocks, RESAMPLES, seed)
        ]
        old, new = (np.concatenate([pair[side] for pair in drawn]) for side in (0, 1))
        return old, new
    # Other measures are no means over items.
    weights = np.concatenate(list(draw_weights(blocks, SLOW_RESAMPLES, seed)), 1).astype(int)
    pairs: list[tuple[float, float]] = []
    for times in weights.T:
        rows = np.repeat(np.arange(len(targets)), times).tolist()
        chosen = [targets[row] for row in rows]
        before, after = (
            task.score(taken(part, rows), chosen)["quality"] for part in (earlier.outputs, outputs)
        )
        pairs.append((before, after))
    old, new = np.array(pairs).T
    return old, new


def taken(outputs: Any, rows: Sequence[int]) -> Any:
    """Return some items' outputs."""
    return outputs[list(rows)] if isinstance(outputs, np.ndarray) else [outputs[row] for row in rows]


def quality(earlier: Earlier, outputs: Any) -> float:
    """Return the measure that decides."""
    return float(earlier.task.score(outputs, earlier.targets)["quality"])


def share_kept(earlier: Earlier, outputs: Any) -> float:
    """Return the score now as a share of that then; 1 where there was nothing to lose."""
    then = quality(earlier, earlier.outputs)
    return quality(earlier, outputs) / then if then > 0 else 1.0


def measured(encoder: Encoder, tasks: Sequence[Earlier], context: Context, *, seed: int) -> tuple[Kept, ...]:
    """Score each earlier task again on the network as it is."""
    return tuple(
        scored_again(one, Probe(encoder, one, context).outputs() if one.validation else None, seed=seed)
        for one in tasks
    )
