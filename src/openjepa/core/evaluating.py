"""Look at a method without touching it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from openjepa.core.compute import Compute
from openjepa.core.seeding import seed_global

Answer = TypeVar("Answer")


@contextmanager
def evaluating(method: nn.Module, compute: Compute | None = None) -> Generator[None, None, None]:
    """Eval mode, no gradients, and torch's generators at a fixed address; afterwards everything is as it was.

    `compute` is where the method lives, and its precision. The mode is restored module by module: a teacher that stays
    in eval mode by itself keeps doing so.
    """
    modes = [(module, module.training) for module in method.modules()]
    devices = {p.device.index for p in method.parameters() if p.device.type == "cuda"}
    precision = nullcontext() if compute is None else compute.autocast()
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]), torch.no_grad(), precision:
        seed_global(0, "evaluating")
        method.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def once_per_method(ask: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """`ask`, called once for each method and remembered as long as that lives; what is remembered keeps none alive.

    For finished methods only: it does not notice that one is trained further.
    """
    known: WeakKeyDictionary[nn.Module, Answer] = WeakKeyDictionary()

    def answer(method: Any) -> Answer:
        if method not in known:
            known[method] = ask(method)
        return known[method]

    return answer
