"""Measuring training steps side by side: blocks by turns, medians over blocks, and the machine's own bf16 rate."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

BLOCKS = 5  # turns of each side


class Read(NamedTuple):
    """What one step has read."""

    items: int  # what speed counts: real tokens, hidden sentences, questions
    encoded: Sequence[Tensor]  # of each encoder's input, which positions were real: bool


Step = Callable[[], Read]


@dataclass
class Side:
    """One of the two that are compared: its step, and what was measured of it."""

    step: Step
    trained_parameters: int
    step_s: list[float] = field(default_factory=list)
    block_items_per_s: list[float] = field(default_factory=list)
    real_positions: int = 0
    positions: int = 0

    def run_block(self, seconds: float) -> None:
        """Steps for about `seconds`, at least one."""
        items, spent_s = 0, 0.0
        while not items or spent_s < seconds:
            began = time.perf_counter()
            read = self.step()
            self.step_s.append(time.perf_counter() - began)
            spent_s += self.step_s[-1]
            items += read.items
            self.real_positions += sum(int(mask.sum()) for mask in read.encoded)
            self.positions += sum(mask.numel() for mask in read.encoded)
        self.block_items_per_s.append(items / spent_s)

    def summary(self, unit: str) -> dict[str, float]:
        return {
            f"{unit}s_per_s": round(statistics.median(self.block_items_per_s), 2),
            "step_ms": round(1000 * statistics.median(self.step_s), 1),
            "steps": len(self.step_s),
            "padding_share": round(1 - self.real_positions / self.positions, 3),
            "trained_parameters": self.trained_parameters,
        }


def compare(ours: Side, reference: Side, unit: str, shapes: Sequence[tuple[int, int, int]],
            seconds: float) -> dict[str, Any]:  # fmt: skip
    """A B A B ... for about `seconds` (a block has at least one step) after a warm-up step of each.

    `unit` is an item's name in the keys of the result, `shapes` are the (rows, inner, outer) of the matrix products by
    which the machine is measured.
    """
    flops_per_item = count_flops(ours.step)
    ours.step(), reference.step()
    rates = []  # FLOP/s
    for _ in range(BLOCKS):
        ours.run_block(0.4 * seconds / BLOCKS)
        rates.append(bf16_rate(shapes, 0.1 * seconds / BLOCKS))
        reference.run_block(0.5 * seconds / BLOCKS)
    pairs = zip(ours.block_items_per_s, reference.block_items_per_s, strict=True)
    ratios = [mine / theirs for mine, theirs in pairs]
    reached = [flops_per_item * speed for speed in ours.block_items_per_s]  # FLOP/s
    shares = [flops / rate for flops, rate in zip(reached, rates, strict=True)]
    return {
        "ours": ours.summary(unit),
        "reference": reference.summary(unit),
        "ratio": {
            "median": round(statistics.median(ratios), 2),
            "min": round(min(ratios), 2),
            "max": round(max(ratios), 2),
        },
        f"ours_mflop_per_{unit}": round(flops_per_item / 1e6, 1),
        "ours_gflop_per_s": round(statistics.median(reached) / 1e9, 1),
        "bf16_matmul_gflop_per_s": round(statistics.median(rates) / 1e9, 1),
        "share_of_bf16_matmul_rate": round(statistics.median(shares), 3),
    }


def count_flops(step: Step) -> float:
    """Floating-point operations an item, of the matrix products of one whole step (forward, backward, teacher)."""
    with FlopCounterMode(display=False) as counter:
        read = step()
    return counter.get_total_flops() / read.items


def bf16_rate(shapes: Sequence[tuple[int, int, int]], seconds: float) -> float:
    """The machine's FLOP/s at bf16 matrix products of the best of these (rows, inner, outer)."""
    return max(_rate_of(*shape, seconds / len(shapes)) for shape in shapes)


def _rate_of(rows: int, inner: int, outer: int, seconds: float) -> float:
    x = torch.randn(rows, inner).bfloat16()
    weight = torch.randn(outer, inner).bfloat16()
    F.linear(x, weight)  # warm-up
    runs, began = 0, time.perf_counter()
    while not runs or time.perf_counter() - began < seconds:
        F.linear(x, weight)
        runs += 1
    return 2 * rows * inner * outer * runs / (time.perf_counter() - began)


def profile(step: Step, steps: int = 3) -> str:
    """The operators that take the most time of their own in a few steps, as a table."""
    step()  # warm-up
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as record:
        for _ in range(steps):
            step()
    return record.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60)


def machine() -> dict[str, Any]:
    """What figures of speed depend on."""
    return {
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
    }
