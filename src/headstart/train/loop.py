"""The one training loop, for every method: optimiser, schedule, device, precision, checkpoints.

It is handed a module, a loss over a batch, a source of batches by (epoch, step) and parameter groups; it knows nothing
of data, encoders or tasks. Everything it draws is keyed by (seed, step), so a run that was cut and started again ends
with the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import Interrupted, TrainingError
from headstart.core.hashing import plain
from headstart.train.batches import Batch, BatchSource, prefetch
from headstart.train.checkpoint import Checkpoints, open_checkpoints, refuse_changes
from headstart.train.optim import ParameterGroup, build_optimizer, require_trainable, set_mode
from headstart.train.position import LoopSettings, Position, Trained, Validate, Validation
from headstart.train.runtime import Context, Event, computing, lacks_exact_kernel, loosen, seed_step
from headstart.train.signals import Stop, stopping
from headstart.train.step import FINDER_HINT, Gradients, Loss, accumulate, clip, is_out_of_memory, too_large
from headstart.train.weights import (
    Averaged,
    copies,
    copy_into,
    moving_tensors,
    optimizer_tensors,
    restore_optimizer,
    state_digest,
    versions,
)

SAVE_SECONDS = 60.0
"""Time between checkpoints inside an epoch where no number of steps is given."""
EXPLODED = 10.0
"""The smoothed loss may rise to this many times the larger of its start and chance."""
AT_CHANCE = 0.97
"""A training loss that never falls below this share of chance has not learned."""


def train(
    module: nn.Module,
    *,
    loss: Loss,
    source: BatchSource,
    groups: Sequence[ParameterGroup],
    validate: Validate,
    settings: LoopSettings,
    context: Context,
) -> Trained:
    """Train `module` in place and leave it with the weights (best of start and epochs) that validate best, or with
    those of the last epoch, as `settings.keep` says.

    Continues from the newest sound checkpoint of `context.folder` where there is one. Raises TrainingError (nothing
    to train, not finite, exploding, out of memory), ResumeError (checkpoints of another run, all damaged), StoreError
    (folder in use, disk full), Interrupted (SIGTERM, SIGINT; its state is saved).
    """
    require_trainable(groups)
    with (
        computing(context),
        _checkpoints(context) as checkpoints,
        stopping(context.command) as stop,
    ):
        run = _Run(module, loss, source, groups, settings, context, checkpoints=checkpoints, stop=stop)
        run.resume()
        try:
            run.all_epochs(validate)
        except Interrupted as error:
            run.save()
            run.tell(f"{error.given} after step {run.position.step}; {error.fix}")
            raise
        return run.result()


class _Run:
    """One run of the loop: the tensors that move, and the position."""

    def __init__(  # noqa: PLR0913 - private, and each is used throughout
        self,
        module: nn.Module,
        loss: Loss,
        source: BatchSource,
        groups: Sequence[ParameterGroup],
        settings: LoopSettings,
        context: Context,
        *,
        checkpoints: Checkpoints | None,
        stop: Stop,
    ) -> None:
        self.module, self.loss, self.source, self.groups = module, loss, source, groups
        self.settings, self.context, self.checkpoints, self.stop = settings, context, checkpoints, stop
        self.moving = moving_tensors(module, groups)
        self.parameters = [parameter for group in groups for parameter in group.parameters.values()]
        self.optimizer = build_optimizer(groups)
        self.averaged = Averaged(self.moving, settings.ema) if settings.ema else None
        self.gradients = Gradients(context.device, settings.micro, settings.precision, settings.clip_norm)
        self.position = Position(micro=settings.micro)
        self.best: dict[str, Tensor] = {}
        shapes = {name: list(tensor.shape) for name, tensor in self.moving.items()}
        parts = {**settings.identity, "seed": context.seed, "start": state_digest(module), "tensors": shapes}
        self.identity: dict[str, Any] = plain(parts)
        self.mode_epoch: int | None = None
        self.saved_at: tuple[int, int] | None = None
        self.saved_time = self.lap = time.monotonic()

    # -- epochs ------------------------------------------------------------------------------------------------

    def all_epochs(self, validate: Validate) -> None:
        """Run from the position to the end."""
        if self.position.validated < 0:
            self.close_epoch(validate)
        while not self.is_over:
            with closing(self.batches()) as batches:
                self.run_to_end(batches, validate)

    @property
    def is_over(self) -> bool:
        """Tell whether the run is finished, or has come as far as this call shall."""
        return self.position.finished or self.position.validated >= self.settings.last

    @property
    def total(self) -> int:
        """Steps that this call takes in all, those before it counted."""
        return self.settings.last * self.source.steps

    def run_to_end(self, batches: Iterator[Batch], validate: Validate) -> None:
        """Take steps and close epochs until finished."""
        position, steps = self.position, self.source.steps
        while not self.is_over:
            if position.step // steps > position.validated:
                self.close_epoch(validate)
                continue
            self.stop.check()
            self.take(next(batches))
            if position.step % steps and self.is_time_to_save():
                self.save()

    def batches(self) -> Generator[Batch, None, None]:
        """Yield the batches that are left."""
        steps = self.source.steps
        left = range(self.position.step, self.total)
        return prefetch(
            self.source,
            ((step // steps, step % steps) for step in left),
            workers=self.context.workers,
            timeout=self.context.timeout,
            check=self.stop.check,
            progress=self.context.progress,
        )

    def take(self, batch: Batch) -> None:
        """Take one optimiser step; everything it draws comes from (seed, step)."""
        position, step = self.position, self.position.step
        epoch = step // self.source.steps
        if self.mode_epoch != epoch:
            set_mode(self.module, self.groups, epoch=epoch, freeze_statistics=self.settings.freeze_statistics)
            self.mode_epoch = epoch
        self.optimizer.scale_rates(self.settings.factor(step))
        value = self.gradient(batch)
        clip(
            [parameter for parameter in self.parameters if parameter.grad is not None], self.gradients, batch
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged:
            self.averaged.update(self.moving, step)
        position.step += 1
        position.loss_sum += value * len(batch)
        position.items += len(batch)
        self.watch(value)
        self.context.progress(
            Event(self.settings.stage, step + 1, self.total, "", {"loss": value, "epoch": epoch + 1})
        )

    def gradient(self, batch: Batch) -> float:
        """Return the batch's loss with its gradients in place; smaller parts each time memory runs out."""
        # A step that is abandoned part-way must leave no trace in BatchNorm's running statistics.
        buffers = {} if self.settings.freeze_statistics else copies(dict(self.module.named_buffers()))
        while True:
            seed_step(self.context.seed, self.position.step)
            try:
                return accumulate(self.module, self.loss, batch, self.gradients, check=self.stop.check)
            except (RuntimeError, MemoryError, Interrupted) as error:
                self.optimizer.zero_grad()
                copy_into(dict(self.module.named_buffers()), buffers)
                if lacks_exact_kernel(error):
                    self.note(loosen(error))
                elif is_out_of_memory(error):
                    self.shrink(error)
                else:
                    raise

    def shrink(self, error: BaseException) -> None:
        """Halve the items of one pass, keeping the items of one step; TrainingError where it is one item already."""
        if self.gradients.micro == 1:
            raise too_large(error) from error
        self.gradients.micro = self.position.micro = -(-min(self.gradients.micro, self.settings.micro) // 2)
        if self.context.device.type == "cuda":
            torch.cuda.empty_cache()
        self.note(
            f"memory ran out: {self.gradients.micro} items a pass from step {self.position.step} on, gradients "
            "accumulated to the same batch"
        )

    def watch(self, value: float) -> None:
        """Stop a run whose loss explodes."""
        position, number = self.position, self.position.step
        if number == 1:
            position.first_loss = value
        position.smoothed = value if number == 1 else 0.8 * position.smoothed + 0.2 * value
        limit = EXPLODED * max(position.first_loss, self.settings.chance or 1.0)
        if position.smoothed > limit:
            raise TrainingError(
                f"the loss explodes: {position.smoothed:.3g} at step {number}, {position.first_loss:.3g} at the start",
                expected=f"a loss below {limit:.3g}",
                fix=FINDER_HINT,
            )

    def close_epoch(self, validate: Validate) -> None:
        """Validate, keep the best, decide whether to go on, save."""
        position = self.position
        score = self.evaluate(validate)
        epoch = position.validated + 1
        best = Validation(*position.scores[position.best_epoch]) if position.scores else None
        is_best = self.settings.keep == "last" or score.beats(best)
        is_lower = position.lowest is None or score.loss < position.lowest
        position.lowest = score.loss if is_lower else position.lowest
        # While groups are still to open, a standstill says nothing.
        waiting = epoch <= max(group.opens for group in self.groups)
        position.stale = 0 if is_best or is_lower or waiting else position.stale + 1
        position.scores.append((score.loss, score.quality))
        if is_best:
            position.best_epoch = epoch
            self.best = copies(self.averaged.tensors if self.averaged and epoch else self.moving)
        position.validated = epoch
        self.record(epoch, score)
        if epoch == self.settings.epochs or position.stale >= self.settings.patience:
            self.finish(epoch)
        if self.checkpoints and is_best:
            position.best_number = self.checkpoints.next_number()
        self.save()

    def evaluate(self, validate: Validate) -> Validation:
        """Validate with the averaged weights where there are any; the training weights come back afterwards."""
        kept = copies(self.moving) if self.averaged else {}
        if self.averaged:
            copy_into(self.moving, self.averaged.tensors)
        self.module.eval()
        self.mode_epoch = None
        try:
            with torch.no_grad():
                return validate(self.stop.check)
        finally:
            copy_into(self.moving, kept)

    def record(self, epoch: int, score: Validation) -> None:
        """Add the epoch's row to the history and tell it."""
        position = self.position
        self.count_time()
        row = {
            "epoch": float(epoch), "validation_loss": score.loss, "validation_quality": score.quality, **score.more
        }  # fmt: skip
        if epoch:
            last = position.step - 1
            row["train_loss"] = position.loss_sum / max(1, position.items)
            row["learning_rate"] = max(group.learning_rate for group in self.groups) * self.settings.factor(
                last
            )
            row["seconds"] = position.seconds - sum(before["seconds"] for before in position.history)
            row["stage"] = float(sum(group.opens < epoch for group in self.groups) - 1)
            position.history.append(row)
        position.loss_sum, position.items = 0.0, 0
        text = f"epoch {epoch}: validation {self.settings.quality} {score.quality:.3f}, loss {score.loss:.3f}"
        if math.isnan(score.quality):  # There was nothing to validate on.
            text = f"epoch {epoch}: training loss {row.get('train_loss', math.nan):.3f}"
        self.context.progress(Event(self.settings.stage, position.step, self.total, text, row))

    def count_time(self) -> None:
        """Add the time since the last look to the run's seconds."""
        now = time.monotonic()
        self.position.seconds += now - self.lap
        self.lap = now

    def finish(self, epoch: int) -> None:
        """Mark the run as done and say what is worth saying."""
        self.position.finished = True
        if epoch < self.settings.epochs:
            self.note(
                f"stopped early after epoch {epoch}: {self.position.stale} epochs without a better validation"
            )
        chance = self.settings.chance
        rows = self.position.history
        if chance is not None and rows and min(row["train_loss"] for row in rows) > AT_CHANCE * chance:
            self.note(
                f"did not learn: the training loss stayed at chance ({chance:.3f}); check the labels, or raise "
                "finetune.learning_rate or finetune.train_last"
            )

    def result(self) -> Trained:
        """Put the best weights into the module and say how the run went."""
        copy_into(self.moving, self.best)
        self.module.eval()
        position = self.position
        scores = [Validation(*score) for score in position.scores]
        best = position.best_epoch
        history, notes = tuple(position.history), tuple(position.notes)
        if not position.finished:
            notes += (
                f"training ended after epoch {position.validated} of {self.settings.epochs}, as asked for",
            )
        return Trained(history, scores[0], scores[best], best, position.step, notes)

    def note(self, text: str) -> None:
        """Keep a sentence for the report and tell it now."""
        self.position.notes.append(text)
        self.tell(text)

    def tell(self, text: str) -> None:
        """Tell a sentence."""
        self.context.progress(Event(self.settings.stage, self.position.step, self.total, text))

    # -- checkpoints -------------------------------------------------------------------------------------------

    def is_time_to_save(self) -> bool:
        """Tell whether a checkpoint inside the epoch is due."""
        if self.settings.checkpoint_steps:
            return self.position.step % self.settings.checkpoint_steps == 0
        return time.monotonic() - self.saved_time > SAVE_SECONDS

    def save(self) -> None:
        """Write a checkpoint unless this very position is saved already."""
        here = (self.position.step, self.position.validated)
        if self.checkpoints is None or self.saved_at == here or self.position.validated < 0:
            return
        self.count_time()
        state = {"identity": self.identity, "versions": versions(self.context), **asdict(self.position)}
        tensors = {"weights": self.moving, "optimizer": optimizer_tensors(self.optimizer, self.moving)}
        tensors["best"] = self.best
        if self.averaged:
            tensors["ema"] = self.averaged.tensors
        self.checkpoints.save(state=state, tensors=tensors, best=self.position.best_number)
        self.saved_at, self.saved_time = here, time.monotonic()

    def resume(self) -> None:
        """Continue from the newest sound checkpoint, where there is one and it belongs to this run."""
        found = self.checkpoints.latest() if self.checkpoints else None
        if found is None or self.checkpoints is None:
            return
        state = dict(found.state)
        refuse_changes(state["identity"], self.identity, folder=self.checkpoints.folder)
        if state["validated"] > self.settings.last:
            self.tell(f"{found.folder.name} is beyond epoch {self.settings.last}: training begins anew")
            return
        self.position = Position(**{name: state[name] for name in asdict(self.position)})
        self.position.scores = [(loss, accuracy) for loss, accuracy in self.position.scores]
        self.gradients.micro = self.position.micro
        copy_into(self.moving, found.tensors["weights"])
        restore_optimizer(self.optimizer, self.moving, found.tensors["optimizer"])
        if self.averaged:
            copy_into(self.averaged.tensors, found.tensors["ema"])
        self.best = found.tensors["best"]
        self.saved_at = (self.position.step, self.position.validated)
        self.tell(f"resumed after step {self.position.step} from {found.folder.name}")
        self.warn_of_versions(state["versions"])

    def warn_of_versions(self, before: Mapping[str, Any]) -> None:
        """Record and warn where a library, the device or the number of threads is another than before."""
        now = versions(self.context)
        changed = [
            f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]
        ]
        if changed:
            text = (
                f"resumed under other versions ({', '.join(changed)}): results may differ in the last digits"
            )
            self.note(text)
            warnings.warn(text, stacklevel=4)


def _checkpoints(context: Context) -> AbstractContextManager[Checkpoints | None]:
    """Open the run's checkpoints, where it keeps any."""
    if context.folder is None:
        return nullcontext(None)
    return open_checkpoints(Path(context.folder), progress=context.progress)
