"""The health monitor: checks a method on the same held-out batches during training, relative to the first check.

Batches are many enough for a verdict whatever their size (`enough_batches`). The monitor keeps the first record (the
reference of relative limits) and the best one (whose checkpoint is kept), and passes every record to `write`. Records
are dicts of numbers and strings, one JSON line each, and enough to restore a monitor. Under DDP every rank must call
`check`, because losses may communicate with the other ranks; only one should write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.method import Method, StepOutput, latents_of
from openjepa.core.progress import Progress
from openjepa.health.metrics import HealthSample, health
from openjepa.health.verdict import Verdict, judge

Record = dict[str, Any]
Watch = Callable[[nn.Module], Mapping[str, float]]

COLLAPSED_SCORE = -1.0  # below every other encoder, whose score is in [0, 1]


class HealthMonitor:
    """Judges a method on held-out batches. `first` and `best` are records, None before the first check."""

    def __init__(
        self,
        batches: Iterable[Batch],
        write: Callable[[Record], None] | None = None,
        watch: Watch | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`batches` are read once, kept and judged together; `watch` computes further metrics of the method.

        `settings` are those in use, by dotted key, for advice. Raises UserError without batches.
        """
        self.batches = list(batches)
        if not self.batches:
            raise UserError("no held-out batch to check health on: the eval split is empty")
        self.write = write
        self.watch = watch
        self.settings = settings
        self.first: Record | None = None
        self.best: Record | None = None

    def check(
        self,
        method: Method,
        progress: Progress,
        to_device: Callable[[Batch], Batch] = lambda batch: batch,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Record:
        """Judge the method on all batches, in eval mode and under `autocast`.

        The record: step, status, kind, score, best (is this the highest score so far), evidence, advice, also, the mean
        held-out loss and its terms (`loss`, `loss_<term>`), every finite metric of `metrics.health`, and those of
        `watch`, in eval mode as well.
        """
        with evaluating(method):
            with autocast():
                looks = [look(method, replace(to_device(batch), progress=progress)) for batch in self.batches]
            watched = dict(self.watch(method)) if self.watch is not None else {}
        outputs = [output for output, _ in looks]
        metrics = health(join([sample for _, sample in looks]))
        verdict = judge(metrics, self.first, progress.fraction, self.settings)
        score = health_score(metrics, verdict)
        record: Record = {
            "step": progress.step,
            **asdict(verdict),
            "also": [*verdict.also],
            "score": score,
            "best": self.best is None or score > self.best["score"],
            **{name: value for name, value in (_losses(outputs) | metrics | watched).items() if math.isfinite(value)},
        }
        self._remember(record)
        if self.write is not None:
            self.write(record)
        return record

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Restore the state of the run that wrote `records`."""
        self.first = self.best = None
        for record in records:
            self._remember(dict(record))

    def _remember(self, record: Record) -> None:
        self.first = self.first or record
        if self.best is None or record["score"] > self.best["score"]:
            self.best = record


def enough_batches(batches: Iterable[Batch], samples: int) -> list[Batch]:
    """The first batches with at least `samples` rows in total, or all of them; at least one if there is any."""
    first: list[Batch] = []
    rows = 0
    for batch in batches:
        first.append(batch)
        rows += batch.size
        if rows >= samples:
            break
    return first


def health_score(metrics: Mapping[str, float], verdict: Verdict) -> float:
    """The score that the best checkpoint maximises: skill (at least 0) x rank / its cap, in [0, 1]; -1 if collapsed.

    Neither factor suffices: a collapsed encoder is easy to predict, and noise has full rank. 0 where there were
    too few samples to judge.
    """
    if verdict.status == "collapsed":
        return COLLAPSED_SCORE
    if verdict.status == "not judged":
        return 0.0
    return max(0.0, metrics["skill"]) * metrics["rank_frac"]


def look(method: Method, batch: Batch) -> tuple[StepOutput, HealthSample]:
    """A method's output and health sample for one batch, in eval mode. Raises UserError if it returns no latents."""
    output = method(batch)
    more = method.inspect(batch)
    latents = latents_of(method, output)
    return output, HealthSample(
        predicted=latents.predicted,
        target=latents.target,
        embedding=method.embed(batch),
        rows=more.rows,
        positions=more.positions,
        copied=more.copied,
        teacher=more.teacher,
    )


def join(samples: Sequence[HealthSample]) -> HealthSample:
    """Samples of several batches as if they were one, on the CPU.

    Row numbers are shifted by the rows before them. An optional field that any sample lacks is left out.
    """
    joined: dict[str, Tensor] = {}
    sizes = [len(sample.embedding) for sample in samples]
    for field in fields(HealthSample):
        values = [getattr(sample, field.name) for sample in samples]
        if any(value is None for value in values):
            continue
        values = [value.detach().cpu() for value in values]
        if field.name == "rows":
            values = [rows + sum(sizes[:i]) for i, rows in enumerate(values)]
        joined[field.name] = torch.cat(values)
    return HealthSample(**joined)


def _losses(outputs: Sequence[StepOutput]) -> dict[str, float]:
    """Mean over batches of the loss and of each of its terms."""
    losses = {"loss": [float(o.loss) for o in outputs]}
    losses |= {f"loss_{name}": [float(o.terms[name]) for o in outputs] for name in outputs[0].terms}
    return {name: sum(values) / len(values) for name, values in losses.items()}
