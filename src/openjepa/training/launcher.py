"""Processes that a launcher has started: as many as `train.devices` says, or none is trained.

Two processes of torchrun that each believed to be alone would both train the whole run into one folder.
"""

from __future__ import annotations

import os

from openjepa.core.errors import UserError

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


def require_launched(devices: int) -> None:
    """Raises UserError if a launcher has started another number of processes than `train.devices`."""
    launched = launched_processes()
    if launched is not None and launched[1] != devices:
        launcher, processes = launched
        raise UserError(
            f"{launcher} has started {processes} processes, but train.devices={devices}: give train.devices="
            f"{processes}, or start one process, which starts the others by itself"
        )
