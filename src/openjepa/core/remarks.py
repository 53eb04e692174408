"""Remarks that need no action of the user: one line on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # of torchrun and Fabric, srun, mpirun


def remark(message: str) -> None:
    """Print one line on stderr, in the main process only."""
    if is_main_process():
        with suppress(OSError):  # stderr may be a file on the disk that is full
            print("openjepa: " + " ".join(message.split()), file=sys.stderr)


def is_main_process() -> bool:
    """False in the processes that DDP or a launcher started besides the first: they run the same command line."""
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0) == 0
