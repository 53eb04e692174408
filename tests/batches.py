"""What a batch holds, its parts included, so that two batches can be compared."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def tensors_of(part: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of a batch by name; those of a part as "part.name"."""
    if isinstance(part, Tensor):
        return {name: part}
    if not is_dataclass(part):
        return {}
    found = {}
    for field in fields(part):
        found |= tensors_of(getattr(part, field.name), f"{name}.{field.name}".lstrip("."))
    return found


def values_of(batch: Any) -> dict[str, Any]:
    """What is neither a tensor nor a part; `selections` are of its tensors."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "selections"}
    return {name: value for name, value in values.items() if not isinstance(value, Tensor) and not is_dataclass(value)}


def assert_same(one: Any, other: Any) -> None:
    """Both batches hold the same values."""
    assert type(one) is type(other)
    assert values_of(one) == values_of(other)
    mine, yours = tensors_of(one), tensors_of(other)
    assert mine.keys() == yours.keys()
    for name, value in mine.items():
        assert value.dtype == yours[name].dtype, name
        assert torch.equal(value, yours[name]), name
