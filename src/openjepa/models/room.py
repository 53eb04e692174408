"""Networks that are too large for this machine are refused before they are made.

Most networks are small, and made at once. Where their tensors add up to more than SMALL, making them stops; then they
are made once more on torch's meta device, which takes no memory, to learn their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from openjepa.core.experiment import Experiment
from openjepa.core.room import require_memory

SMALL = 2**28  # bytes
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class _Larger(Exception):
    """The tensors so far are more than SMALL."""


class _Watch(TorchFunctionMode):
    """Stops before a tensor is made with which all of them are larger than SMALL."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FACTORIES:
            size = args[0] if args and isinstance(args[0], tuple | list) else args
            self.bytes += 4 * math.prod(one for one in size if isinstance(one, int))
            if self.bytes > SMALL:
                raise _Larger
        return func(*args, **(kwargs or {}))


def built(build: Callable[[], Experiment], way: str) -> Experiment:
    """The experiment that `build` makes, on the CPU. It may be called three times, and has to give the same each time.

    Raises UserError, with a `way` on, if its networks need more memory than there is.
    """
    try:
        with _Watch():
            return build()
    except _Larger:
        size = _size_of(build)
    if size is not None:
        require_memory(size, "building these networks", way)
    return build()


def _size_of(build: Callable[[], Experiment]) -> int | None:
    """Bytes of all weights; None for networks that cannot be made without them."""
    try:
        with torch.device("meta"):
            method = build().method
    except Exception:  # whatever a recipe does with numbers that are not there
        return None
    return sum(tensor.numel() * tensor.element_size() for tensor in (*method.parameters(), *method.buffers()))
