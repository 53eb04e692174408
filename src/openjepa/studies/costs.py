"""The cost of a training step in floating-point operations, tokens and time, from a few real batches.

FLOPs are counted by torch's counter (two a multiply-add, matrix products only) over the forward and backward pass of
real training batches, and stated per token: other batches have other shapes, but nearly the same cost per token.
Attention is counted as its matrix products. Not counted: element-wise work, embedding look-ups, the optimiser and the
EMA update, together a few per cent at most widths. A teacher's forward pass is counted, as is every second view.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from openjepa.core.batch import Batch
from openjepa.core.experiment import Experiment
from openjepa.core.method import Method
from openjepa.core.progress import Progress
from openjepa.data.loading.loader import train_batches
from openjepa.training.optim import build_optimizer
from openjepa.training.stages import freeze_all_but_predictor

COUNTED = 2  # batches whose FLOPs are counted
SIZED = 20  # batches whose tokens are counted
# warm-up steps, and timed steps
WARM = 2
TIMED = 6


@dataclass(frozen=True)
class Cost:
    """The cost of training, on any device."""

    flops_per_token: float
    tokens_per_step: float


def measure(experiment: Experiment, sized: int = SIZED) -> Cost:
    """Count the FLOPs of COUNTED batches and the tokens of `sized` ones. The method is not changed."""
    batches = list(islice(train_batches(experiment, 0), max(COUNTED, sized)))
    mean_tokens = sum(batch.tokens for batch in batches) / len(batches)
    flops = _mean_of_parts(experiment, lambda probe, at: _flops_per_token(probe, batches[:COUNTED], at))
    return Cost(flops, mean_tokens * experiment.train.accumulate)


def seconds_per_step(experiment: Experiment) -> float:
    """Wall time of an optimiser step on this machine: the median of TIMED steps, after WARM others."""
    return _mean_of_parts(experiment, lambda probe, at: _median_step_s(probe, experiment, at))


def _mean_of_parts(experiment: Experiment, cost: Callable[[Method, Progress], float]) -> float:
    """The mean cost of a step over a whole run, some of whose steps may train only the predictor (`training.stages`).

    Those are counted as the last one is; the others as the first one, so without a contrast that starts late.
    """
    train = experiment.train
    joint = train.joint_steps / train.steps
    probe = copy.deepcopy(experiment.method).cpu().train()
    mean = joint * cost(probe, Progress(0, train.steps)) if joint else 0.0
    if joint < 1:
        freeze_all_but_predictor(probe)
        mean += (1 - joint) * cost(probe, Progress(train.steps, train.steps))
    return mean


def _flops_per_token(probe: Method, batches: Sequence[Batch], progress: Progress) -> float:
    flops = 0
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):  # fused kernels hide their products
        for batch in batches:
            with FlopCounterMode(display=False) as counter:
                probe(replace(batch, progress=progress)).loss.backward()
            flops += counter.get_total_flops()
    return flops / sum(batch.tokens for batch in batches)


def _median_step_s(probe: Method, experiment: Experiment, progress: Progress) -> float:
    """Median time of steps at constant `progress`, so that schedules do not change between them."""
    train = experiment.train
    batches = islice(train_batches(experiment, 0), (WARM + TIMED) * train.accumulate)
    optimizer = build_optimizer(probe, train)
    spans = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(min(WARM + TIMED, train.steps)):
            began = time.perf_counter()
            for batch in islice(batches, train.accumulate):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=train.precision == "bf16-mixed"):
                    loss = probe(replace(batch, progress=progress)).loss
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            probe.after_step(progress)
            spans.append(time.perf_counter() - began)
    timed = sorted(spans[WARM:] or spans)
    return timed[len(timed) // 2]
