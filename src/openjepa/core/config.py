"""What recipes define their settings with: sections (`BaseConfig`, see `base_config`), and the one for training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from openjepa.core.base_config import BaseConfig, Interval, names_files, override_key
from openjepa.core.errors import did_you_mean

__all__ = ["OPTIMIZERS", "BaseConfig", "Interval", "TrainConfig", "fitting_warmup", "names_files", "override_key"]

OPTIMIZERS = ("adamw", "sgd", "muon", "lars")  # made in `training.optimizers`


class TrainConfig(BaseConfig):
    """How long, how fast and on what. One section shared by all recipes."""

    FIRST = (
        "steps",
        "batch_tokens",
        "batch_size",
        "lr",
        "warmup_steps",
        "precision",
        "accelerator",
        "threads",
        "seed",
    )

    steps: int = Field(1000, ge=1)
    """optimiser steps"""
    batch_tokens: int = Field(0, ge=0)
    """real tokens per batch, 0 = batch_size rows instead; rows are bucketed by length"""
    batch_size: int = Field(64, ge=1)
    """rows per batch over all ranks, with batch_tokens the most that it may have"""
    accumulate: int = Field(1, ge=1)
    """batches per optimiser step"""
    optimizer: str = "adamw"
    """adamw | sgd | muon | lars | package.module:Class; muon trains hidden matrices, and adamw the rest"""
    optimizer_args: dict[str, Any] = Field({})
    """the optimiser's own arguments, such as {momentum: 0.9} of sgd; lr, weight_decay and betas have settings here"""
    lr: float = Field(1e-3, gt=0)
    """peak learning rate; the default suits adamw and muon, sgd and lars want a higher one"""
    final_lr: float = Field(1e-6, ge=0)
    """learning rate at the last step"""
    warmup_steps: int = Field(100, ge=0)
    """steps of linear warm-up, from 0.2 of the peak; a run (or part of one) that is shorter warms up in a tenth of its
    steps"""
    predictor_only_fraction: float = Field(0.0, ge=0, le=1)
    """part of the run, its last, in which all but the predictor is frozen, and the rate has a warm-up and a cosine of
    its own; other schedules (weight decay, momentum, contrast) go by the whole run"""
    weight_decay: float = Field(0.04, ge=0)
    """at the start; biases, norms and other vectors never decay"""
    final_weight_decay: float | None = Field(None, ge=0)
    """at the last step, reached on a cosine; unset = constant"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay rates of adamw, and of the part that muon leaves to it"""
    grad_clip: float = Field(1.0, gt=0)
    """largest allowed gradient norm"""
    precision: Literal["bf16-mixed", "32-true"] = "32-true"
    """bf16-mixed is faster on CUDA and on CPUs with AMX; losses and statistics are fp32 in both"""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """device to train on"""
    devices: int = Field(1, ge=1)
    """processes, one a device; more than 1 trains under DDP"""
    threads: int = Field(0, ge=0)
    """most CPU threads a process computes with; 0 = torch's choice, 1 is faster for models of tiny width"""
    workers: int = Field(0, ge=0, le=256)
    """data loading processes per rank; changes nothing but speed"""
    seed: int = 0
    """of weights, order, masks and dropout"""
    log_every: int = Field(20, ge=1)
    """steps between log lines"""
    health_every: int = Field(100, ge=1)
    """steps between health checks on held-out batches"""
    health_samples: int = Field(256, ge=1)
    """held-out samples per health check, in batches of the training's size; fewer than 32 give no verdict"""
    checkpoint_every: int = Field(500, ge=0)
    """steps between checkpoints; 0 = at the end only"""
    checkpoint_seconds: float = Field(0.0, ge=0)
    """seconds after which a checkpoint is written, beside those of checkpoint_every; 0 = by steps alone"""
    keep_checkpoints: int = Field(2, ge=1)
    """newest checkpoints kept, besides the one with the best health"""
    matryoshka: tuple[int, ...] = ()
    """numbers of first dimensions of the embedding that are trained to suffice by themselves, such as [64, 128]; one of
    them, or all dimensions, is drawn for each step (nested dropout); for `embed --dims`"""
    on_collapse: Literal["warn", "stop"] = "warn"
    """what to do when the verdict is collapsed"""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """what to do at NaN or infinity in gradients or weights: rollback goes on from the last checkpoint at half the
    learning rate, at most 5 times"""
    loggers: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    """trackers that get the rows of metrics.jsonl and health.jsonl too, such as [trackio]: tensorboard, trackio, wandb,
    mlflow; all of them stay in the run folder unless their own environment variables name a server"""

    @field_validator("matryoshka")
    @classmethod
    def _sizes_are_positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in value):
            raise ValueError("numbers of dimensions are 1 or more")
        return value

    @field_validator("optimizer")
    @classmethod
    def _optimizer_is_known(cls, value: str) -> str:
        if value not in OPTIMIZERS and ":" not in value:
            raise ValueError(
                f"unknown optimiser{did_you_mean(value, OPTIMIZERS)}; known: {', '.join(OPTIMIZERS)}; "
                "or give package.module:Class"
            )
        return value

    @property
    def joint_steps(self) -> int:
        """Steps in which everything is trained; after them only the predictor is."""
        joint = round(self.steps * (1 - self.predictor_only_fraction))
        if 0 < self.predictor_only_fraction < 1:  # each part has at least one step
            joint = max(1, min(joint, self.steps - 1))
        return joint

    @property
    def fitted_warmup_steps(self) -> int:
        """`warmup_steps`, fitted to the part of the run in which everything is trained."""
        return fitting_warmup(self.warmup_steps, self.joint_steps or self.steps)


def fitting_warmup(warmup_steps: int, steps: int) -> int:
    """`warmup_steps` if `steps` are as many, else a tenth of those: short trial runs still warm up."""
    return warmup_steps if warmup_steps <= steps else max(1, steps // 10)
