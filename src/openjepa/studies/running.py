"""Trains the unfinished cells of a study, one after another in this process, or several at a time in processes.

The progress of a cell is read from its run folder, not from its process. Ctrl-C and SIGTERM stop all processes; what
they have written stays, and the same command resumes from there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from openjepa.core.errors import UserError
from openjepa.studies.cells import Cell, threads_of
from openjepa.studies.worker import finish

POLL_S = 0.3
GRACE_S = 20  # for an interrupted process to end by itself
LOG = "cell.log"  # output of a process, in its run folder


class Watcher(Protocol):
    """An observer of a study's progress."""

    def on_step(self, cell: Cell, step: int) -> None: ...

    def on_end(self, cell: Cell) -> None: ...


def run_cells(cells: Sequence[Cell], jobs: int, watcher: Watcher) -> None:
    """Finish all cells, `jobs` at a time. Raises UserError with the message of the first cell that cannot be run."""
    if jobs == 1:
        for cell in cells:
            hooks = [lambda progress, output, stats, cell=cell: watcher.on_step(cell, progress.step)]
            finish(cell.path, hooks, cell.suite)
            watcher.on_end(cell)
    else:
        _in_processes(list(cells), jobs, watcher)


def _in_processes(todo: list[Cell], jobs: int, watcher: Watcher) -> None:
    running: dict[subprocess.Popen, Cell] = {}
    with _interrupted_by_sigterm():
        try:
            while todo or running:
                while todo and len(running) < jobs:
                    cell = todo.pop(0)
                    running[start_worker(cell, jobs)] = cell
                time.sleep(POLL_S)
                for process, cell in list(running.items()):
                    watcher.on_step(cell, cell.done_steps)
                    if process.poll() is not None:
                        del running[process]
                        _require_end(process, cell)
                        watcher.on_end(cell)
        finally:
            _stop(list(running))


@contextmanager
def _interrupted_by_sigterm() -> Generator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, so that processes are stopped before this one ends."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_worker(cell: Cell, jobs: int) -> subprocess.Popen:
    """A process that trains the cell, with the threads of one of `jobs`."""
    threads = threads_of(cell.arm.config.train, jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "openjepa.studies.worker", str(cell.path)]
    if cell.suite is not None:
        command.append(str(cell.suite.path))
    with (cell.path / LOG).open("w", encoding="utf-8") as log:
        return subprocess.Popen(  # in a new session: Ctrl-C reaches it once, through `_stop`
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )


def _require_end(process: subprocess.Popen, cell: Cell) -> None:
    if process.returncode in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    if process.returncode or not cell.finished:
        raise UserError(f"{cell.arm.label}, seed {cell.seed}: {_last_line(cell.path / LOG)} (all in {cell.path / LOG})")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "the process ended without output"


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
