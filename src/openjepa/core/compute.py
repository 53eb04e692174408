"""Device and precision of a trained network: `device` and `precision` of every verb that runs one.

compute = compute_for("auto", "auto")  # a GPU if there is one, in bf16 on CUDA; else the CPU in fp32
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from openjepa.core.errors import UserError

Precision = Literal["auto", "32", "bf16"]
DEVICES = "auto, cpu, cuda, cuda:N (the N-th GPU, from 0) or mps"


@dataclass(frozen=True)
class Compute:
    """A device, and whether matrix products on it are in bfloat16 (autocast) or everything is in fp32."""

    device: torch.device
    bf16: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """The context to run the network in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()


ON_CPU = Compute(torch.device("cpu"))  # in fp32: what every other device is compared with


def compute_for(device: str = "auto", precision: str = "auto") -> Compute:
    """The device of this name, with `auto` a GPU if there is one; precision `auto` is bf16 on CUDA and fp32 elsewhere.

    Raises UserError for a device that does not exist here, or an unknown precision.
    """
    if precision not in get_args(Precision):
        raise UserError(f"precision={precision}: no such precision; give {', '.join(get_args(Precision))}")
    chosen = _device(device)
    automatic = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Compute(chosen, bf16=automatic if precision == "auto" else precision == "bf16")


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has matrix units for bfloat16 (AMX), which make its products several times as fast as fp32."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported is not None else False


def in_fp32(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast on `device`, for the products of losses and statistics, which stay in fp32."""
    return torch.autocast(device.type, enabled=False)


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters; the CPU if it has none."""
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _device(name: str) -> torch.device:
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not number.isdecimal())):
        raise UserError(f"device={name}: no such device; give {DEVICES}")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"device={name}: there is no CUDA device on this machine; give auto or cpu")
        if number and int(number) >= count:
            raise UserError(f"device={name}: this machine has {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device={name}: there is no Apple GPU that torch can use here; give auto or cpu")
    return torch.device(name)
