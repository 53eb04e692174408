"""Processes that a launcher has started: as many as `train.devices` says, or none is trained.

Two processes of torchrun that each believed to be alone would both train the whole run into one folder.
"""

from __future__ import annotations

import os

from openjepa.core.errors import UserError

FEWEST_PROCESSES = 8  # that any machine may start, to try DDP on a CPU
# the variable with the number of processes, and one that is set with it in each of them
LAUNCHERS = {
    "torchrun": ("WORLD_SIZE", "RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
}


def launched_processes() -> tuple[str, int] | None:
    """The launcher that started this process, and how many it started; None if there was none."""
    for launcher, (size, rank) in LAUNCHERS.items():
        if size in os.environ and rank in os.environ:
            return launcher, int(os.environ[size])
    return None


def require_devices(accelerator: str, devices: int) -> None:
    """Raises UserError if one machine cannot have so many processes, unless a launcher started them."""
    import torch

    if launched_processes() is not None or accelerator == "mps":
        return
    on_gpus = accelerator == "cuda" or (accelerator == "auto" and torch.cuda.is_available())
    most = torch.cuda.device_count() if on_gpus else max(FEWEST_PROCESSES, os.cpu_count() or 1)
    if devices > most:
        there = f"{most} GPUs" if on_gpus else f"{os.cpu_count()} cores, for at most {most} processes"
        raise UserError(f"train.devices={devices}: this machine has {there}; lower it")


def require_launched(devices: int) -> None:
    """Raises UserError if a launcher has started another number of processes than `train.devices`."""
    launched = launched_processes()
    if launched is not None and launched[1] != devices:
        launcher, processes = launched
        raise UserError(
            f"{launcher} has started {processes} processes, but train.devices={devices}: give train.devices="
            f"{processes}, or start one process, which starts the others by itself"
        )
