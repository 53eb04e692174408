"""Training of a run into its folder: logs and health checks during training, and the summary at its end.

All ranks have the same folder. The main process writes logs, progress and summary; every rank takes part in the health
checks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from rich.console import Console

from openjepa.core.config import TrainConfig
from openjepa.core.describe import settings_in_use
from openjepa.core.errors import NonFinite, StoppedBySignal, UserError, WriteError
from openjepa.core.experiment import Experiment, StreamedData
from openjepa.core.memory import peak_memory
from openjepa.core.method import Hook
from openjepa.core.remarks import remark
from openjepa.core.rundir import PEAK_MEMORY, RunDir, append_jsonl, write_json
from openjepa.data.files.records import counts_line
from openjepa.data.loading.loader import eval_batches
from openjepa.data.text.token_cache import UNKNOWN
from openjepa.data.tokenizers.unknown_tokens import require_known
from openjepa.evals.alignment import curve_point
from openjepa.health.monitor import HealthMonitor, enough_batches
from openjepa.training import checkpoint
from openjepa.training.hooks import HealthObserver, Hooks, default_hooks
from openjepa.training.room import require_room

LOGGED = {"step", "loss", "tokens", "tokens_per_s", "samples"}  # what a summary is made of
MOST_ROLLBACKS = 5  # each halves the learning rate


def train_into(
    folder: RunDir,
    fabric: Any,
    build: Callable[[], Experiment],
    config: Any,
    hooks: Sequence[Hook],
    resume: bool,
    progress: bool,
) -> None:
    """Train the experiment that `build` makes of `config`, from the newest checkpoint if `resume`.

    With `train.on_nonfinite=rollback`, NaN or infinity costs the steps since the last checkpoint and half the learning
    rate. Raises UserError if training has to stop.
    """
    settings = settings_in_use(config)
    lr_factor: float | None = None  # None = that of the checkpoint
    with peak_memory() as peak:
        for rollbacks in count():
            try:
                experiment = _trained(folder, fabric, build, settings, hooks, resume, progress, lr_factor)
                break
            except NonFinite as found:
                if config.train.on_nonfinite == "stop" or rollbacks == MOST_ROLLBACKS:
                    raise
                resume = True
                lr_factor = found.lr_factor / 2
                remark(f"{found}; back to the last checkpoint, with {lr_factor:g} times the learning rate")
    if fabric.is_global_zero:
        memory = {} if peak.gb is None else {"training": round(peak.gb, 3)}
        write_json(folder.summary, {**_summary(folder), "notes": _notes(experiment), PEAK_MEMORY: memory})


def _trained(
    folder: RunDir,
    fabric: Any,
    build: Callable[[], Experiment],
    settings: Mapping[str, Any],
    hooks: Sequence[Hook],
    resume: bool,
    progress: bool,
    lr_factor: float | None,
) -> Experiment:
    from openjepa.training.loop import fit

    with fabric.rank_zero_first():  # the first build writes the assets, the other ranks read them
        experiment = _built(build, fabric)
        if fabric.is_global_zero:
            folder.seal()
    main = fabric.is_global_zero
    # None: a new run, or one that stopped before its first checkpoint and starts over
    found = checkpoint.newest_resumable(folder.checkpoints) if main and resume else None
    start_from = fabric.broadcast(found)
    if main:
        folder.forget_after(-1 if start_from is None else checkpoint.step_of(start_from))
        for line in _remarks(experiment, folder, start_from is not None, progress):
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
        folder.add_notes(_notes(experiment))
    fabric.barrier()
    if lr_factor is None:
        lr_factor = 1.0 if start_from is None else checkpoint.load_lr_factor(start_from)
    require_room(experiment, fabric.device, fabric.world_size)
    with _observers(folder, experiment, hooks, progress) if main else _no_observers() as observers:
        monitor = _health_monitor(experiment, folder, settings, observers.on_health)
        try:
            with compute_threads(experiment.train.threads):
                fit(fabric, experiment, folder, observers.on_step, monitor, start_from, lr_factor)
        except WriteError as error:
            raise WriteError(f"{error}. The run so far is intact: openjepa train --resume {folder.path}") from error
        except NonFinite as found:
            append_jsonl(folder.nonfinite, {"step": found.step, "rank": fabric.global_rank, "batches": found.batches})
            advice = _advised(str(found), folder, experiment.train)
            raise NonFinite(advice, found.step, lr_factor=lr_factor) from None
        except StoppedBySignal:
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; resume with: openjepa train --resume {folder.path}") from None
    return experiment


def _built(build: Callable[[], Experiment], fabric: Any) -> Experiment:
    """The experiment on its device, with its texts tokenised. Raises UserError if its tokens are mostly unknown."""
    experiment = build()
    experiment.method.to(fabric.device)  # data sets run frozen encoders on the device of training
    for rows in (experiment.train_data, experiment.eval_data):
        if not isinstance(rows, StreamedData):
            len(rows)  # ty: ignore[invalid-argument-type]  - tokenises once
    if experiment.unknown is not None:
        require_known(experiment.unknown())
    return experiment


def _remarks(experiment: Experiment, folder: RunDir, resumed: bool, progress: bool) -> Iterator[str]:
    """What a user has to know before the first step."""
    before = folder.notes().get("data") if resumed else None
    if before not in (None, data_counts(experiment)):
        yield f"the data have changed since the run began: {counts_line(before)} then"
    if progress:
        if data := _data_line(experiment):
            yield f"data: {data}"
        yield from _warmup_lines(experiment.train)
        yield from experiment.remarks()


def _advised(found: str, folder: RunDir, config: TrainConfig) -> str:
    """What was found, which samples it was, and a command that goes on."""
    return (
        f"{found}. The samples of that step are in {folder.nonfinite}. Go on with a lower learning rate: "
        f"openjepa train --resume {folder.path} train.lr={config.lr / 2:g} --force "
        "(train.on_nonfinite=rollback does so by itself)"
    )


def data_counts(experiment: Experiment) -> dict[str, int]:
    """The training data's counts: rows kept, repaired and dropped, by reason; empty if there are none."""
    return dict(getattr(experiment.train_data, "counts", {}))  # optional part of the data set protocol


def _notes(experiment: Experiment) -> dict[str, Any]:
    counts = data_counts(experiment)
    config = experiment.train
    notes: dict[str, Any] = {"data": counts} if counts else {}
    if experiment.unknown is not None:
        notes["unknown_share"] = round(experiment.unknown().share, 6)
    if config.joint_steps < config.steps:
        notes["predictor_alone_after_step"] = config.joint_steps
    if config.fitted_warmup_steps != config.warmup_steps:
        notes["warmup_steps"] = config.fitted_warmup_steps
    return {**notes, **experiment.notes()}


def _warmup_lines(config: TrainConfig) -> list[str]:
    """A warning if the warm-up is longer than the run."""
    if config.fitted_warmup_steps == config.warmup_steps:
        return []
    steps = config.joint_steps or config.steps
    return [
        f"train.warmup_steps={config.warmup_steps} is more than the {steps} steps there are: the learning rate rises "
        f"in the first {config.fitted_warmup_steps}"
    ]


def _data_line(experiment: Experiment) -> str:
    """Counts of the data, the most frequent first (usually the rows kept), and the share of [UNK] tokens."""
    line = counts_line({reason: count for reason, count in data_counts(experiment).items() if reason != UNKNOWN})
    unknown = None if experiment.unknown is None else experiment.unknown()
    if unknown is None or unknown.unknown_id is None:
        return line
    share = f"{100 * unknown.share:.2g} % of the tokens unknown"
    return f"{line}, {share}" if line else share


@contextlib.contextmanager
def compute_threads(count: int) -> Generator[None]:
    """Limit torch to `count` CPU threads within the block; 0, or more than it has, changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(count or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _summary(folder: RunDir) -> dict[str, Any]:
    """A summary of the whole run from its logs, the same for a resumed run as for an uninterrupted one.

    Raises UserError if nothing is left of a log.
    """
    recipe, _ = folder.recipe_and_values()
    rows = [row for row in folder.log_rows() if row.keys() >= LOGGED and row["tokens_per_s"] > 0]
    records = list(folder.health_records())
    if not rows or not records:
        lost = folder.health if rows else folder.metrics
        raise UserError(
            f"{lost} holds no whole record of the run any more, so it gets no {folder.summary.name}; its weights are "
            f"as they were: openjepa eval {folder.path}"
        )
    health = records[-1]
    tokens, samples = (sum(row[name] for row in rows) for name in ("tokens", "samples"))
    train_s = sum(row["tokens"] / row["tokens_per_s"] for row in rows)  # without health checks and checkpoints
    return {
        "recipe": recipe,
        "steps": rows[-1]["step"],
        "train_s": round(train_s, 2),
        "tokens_per_s": round(tokens / train_s, 1),
        "samples_per_s": round(samples / train_s, 2),
        "loss": rows[-1]["loss"],
        "skill": health.get("skill"),
        "verdict": health["status"],
        "health": health,
    }


@contextlib.contextmanager
def _observers(folder: RunDir, experiment: Experiment, hooks: Sequence[Hook], progress: bool) -> Generator[Hooks]:
    """The hooks of the main process: log files, progress, trackers and the caller's."""
    console = Console(stderr=True) if progress else None
    with default_hooks(folder, console, experiment.train.loggers) as default:
        yield Hooks([*default.on_step, *hooks], default.on_health)


def _no_observers() -> contextlib.nullcontext[Hooks]:
    return contextlib.nullcontext(Hooks([], []))


def _health_monitor(
    experiment: Experiment, folder: RunDir, settings: Mapping[str, Any], on_health: Sequence[HealthObserver]
) -> HealthMonitor:
    def write(record: Mapping[str, Any]) -> None:
        for observer in on_health:
            observer(record)

    batches = enough_batches(eval_batches(experiment), experiment.train.health_samples)
    watch = None if experiment.watch is None else partial(curve_point, experiment.watch())
    monitor = HealthMonitor(batches, write, watch, settings)
    monitor.restore(folder.health_records())
    return monitor
