"""A device without memory, for what must hold on a GPU where there is none.

Tensors on it have shapes and no values. Torch refuses to mix them with tensors of the CPU, and refuses whatever would
make the host wait for a value: `.item()`, `bool()`, `nonzero()`, boolean indexing. Code that takes another way on the
CPU takes the GPU's way, since the device's type is not "cpu".
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from openjepa.core.batch import Batch

DEVICE = torch.device("meta")
WAITS = (DataDependentOutputException, DynamicOutputShapeException)  # the host would wait for the device


@contextmanager
def autocast_knows_it() -> Generator[None]:
    """Within the block `torch.autocast` does nothing on this device, which it does not know."""
    autocast = torch.autocast

    def known(kind: str, *args: Any, **options: Any) -> Any:
        return nullcontext() if kind == DEVICE.type else autocast(kind, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", known)
        yield


class FakeDevice:
    """Moves modules and batches to the fake device; torch runs on it within `FakeDevice.on`."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode()

    @classmethod
    @contextmanager
    def on(cls) -> Generator[FakeDevice]:
        """Everything that torch does within the block may use the device."""
        device = cls()
        with autocast_knows_it(), device.mode:
            yield device

    def tensor(self, tensor: Tensor) -> Tensor:
        """The tensor without its values, on the device."""
        return self.mode.from_tensor(tensor).to(DEVICE)

    def module(self, module: nn.Module) -> nn.Module:
        """The module itself, with its parameters and buffers on the device: it is of no more use elsewhere."""
        return module._apply(self.tensor)  # noqa: SLF001 - torch has no public name for it

    def batch(self, batch: Batch) -> Batch:
        """The batch as `Batch.to` moves it. Its masks must be known before the mode is entered: `batch.indexed()`."""
        return batch.with_each_tensor(self.tensor)
