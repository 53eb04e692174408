"""LoRA: low-rank adapters beside the frozen weights of a pretrained model, by the library `peft` (extra `lora`).

A linear layer computes W x + (alpha / rank) B A x, A [rank, in] and B [out, rank], and only A and B are trained; B
starts at 0, so an adapted model starts as the model it adapts. Source: Hu et al. 2022, eq. 3.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any

from pydantic import Field

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError, first_line


class LoraConfig(BaseConfig):
    """Low-rank adapters in a pretrained model, whose own weights then stay as they are. A number stands for `rank`."""

    SHORTHAND = "rank"
    FIRST = ("rank",)

    rank: int = Field(0, ge=0)
    """rank of the adapters (needs the extra lora); 0 = none, all weights are trained"""
    alpha: float = Field(32.0, gt=0)
    """adapters are scaled by alpha / rank"""
    dropout: float = Field(0.0, ge=0, lt=1)
    """of the adapters' inputs in training"""
    target_modules: str = "all-linear"
    """layers with an adapter: all-linear (all but the output head), or a regular expression of module names"""


def add_adapters(model: Any, config: LoraConfig, setting: str) -> None:
    """Put adapters into a transformers model, in place, and freeze all else; `setting` is where `config` stands.

    Raises UserError without `peft`, or where no layer of the model has such a name.
    """
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise UserError(
            f"{setting}.rank={config.rank} needs the package peft: pip install 'openjepa[lora]', or set "
            f"{setting}.rank=0 to train all weights"
        ) from error
    adapters = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that GPT-2 stores its matrices transposed, which peft handles
            peft.inject_adapter_in_model(adapters, model)
    except ValueError as error:
        raise UserError(
            f"{setting}.target_modules={config.target_modules!r} fits no layer of {type(model).__name__} "
            f"({first_line(error)}); all-linear takes every linear layer but the head"
        ) from error


def merged(model: Any) -> Any:
    """A copy of a transformers model with its adapters, if any, added to the weights: W + (alpha / rank) B A."""
    whole = copy.deepcopy(model)
    for name, layer in list(whole.named_modules()):
        if hasattr(layer, "get_base_layer"):  # a layer of peft
            layer.merge()
            whole.set_submodule(name, layer.get_base_layer())
    return whole
