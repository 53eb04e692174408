"""Evaluate a method without changing its state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from openjepa.core.compute import Compute
from openjepa.core.distributed import alone
from openjepa.core.seeding import seed_global

Answer = TypeVar("Answer")


@contextmanager
def evaluating(method: nn.Module, compute: Compute | None = None) -> Generator[None, None, None]:
    """Eval mode without gradients, torch's generators at a fixed address; the state before is restored afterwards.

    Every rank evaluates the same rows, so collectives are the identity. `compute` is the method's device and precision.
    The mode is restored module by module: a teacher that is always in eval mode stays so.
    """
    modes = [(module, module.training) for module in method.modules()]
    devices = {p.device.index for p in method.parameters() if p.device.type == "cuda"}
    precision = nullcontext() if compute is None else compute.autocast()
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]), torch.no_grad(), precision, alone():
        seed_global(0, "evaluating")
        method.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def once_per_method(ask: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """`ask` with its result cached for each method; the cache keeps no method alive.

    For trained methods only: it does not notice that one is trained further.
    """
    cached: WeakKeyDictionary[nn.Module, Answer] = WeakKeyDictionary()

    def answer(method: Any) -> Answer:
        if method not in cached:
            cached[method] = ask(method)
        return cached[method]

    return answer
