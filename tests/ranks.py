"""Two processes that talk to each other as DDP's ranks do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD = 2


def measure_on_ranks(measure: Callable[[int, Path], Any], folder: Path) -> list[Any]:
    """What `measure(rank, folder)`, a function of a module, returns on each rank; in spawned processes.

    They are spawned because a fork hangs once threads have run.
    """
    mp.start_processes(_on_a_rank, (measure, folder), nprocs=WORLD, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def _on_a_rank(rank: int, measure: Callable[[int, Path], Any], folder: Path) -> None:
    """DDP leaks references to its group, so gloo's threads outlive the group and may abort a process that tears its
    interpreter down while they drop a tensor. A rank that has written its answer leaves without tearing down."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    torch.save(measure(rank, folder), folder / f"{rank}.pt")
    dist.barrier()  # the other rank may still need this one
    dist.destroy_process_group()
    os._exit(0)
