"""Asked to stop, a run finishes its step and saves; and checkpoints by the clock, beside those by the step.

SLURM and spot machines send SIGTERM (or a signal of one's choice, such as SIGUSR1) before they take a machine away, a
closed terminal sends SIGHUP, Ctrl-C SIGINT. The process then ends with 128 + the signal's number. A second Ctrl-C
leaves at once. Several ranks may get a signal between different steps, and have different clocks: they agree after
every step by a message over gloo, which waits for no GPU.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist

from openjepa.core.distributed import world_size
from openjepa.core.errors import StoppedBySignal
from openjepa.core.remarks import is_main_process

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


def stopped_by(number: int, step: int, run: Path) -> StoppedBySignal:
    """The end of a run that a signal asked to stop, with how to go on."""
    name = signal.Signals(number).name
    return StoppedBySignal(
        f"{name}: stopped after step {step}, which is saved; resume with: openjepa train --resume {run}", number
    )


class StopRequests:
    """Signals that arrived, as a context in which they are caught.

    `checkpoint_seconds`: seconds between checkpoints by the clock; 0 = none.
    """

    def __init__(self, checkpoint_seconds: float = 0.0) -> None:
        self.checkpoint_seconds = checkpoint_seconds
        self.received = 0  # number of the first signal
        self._saved_at = time.monotonic()
        self._pid = os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        self._group = dist.new_group(backend="gloo") if world_size() > 1 else None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other thread may set a handler
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def saved(self) -> None:
        """A checkpoint was written: the clock starts again."""
        self._saved_at = time.monotonic()

    def agreed(self) -> tuple[int, bool]:
        """The signal to stop at, 0 if none, and whether a checkpoint is due by the clock; the same on all ranks."""
        due = self.checkpoint_seconds > 0 and time.monotonic() - self._saved_at >= self.checkpoint_seconds
        if self._group is None:
            return self.received, due
        asked = torch.tensor([self.received, int(due)])
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self._group)
        return int(asked[0]), bool(asked[1])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a data loading process: it goes on until the main one has what it needs
            return
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        first = not self.received
        self.received = self.received or number
        if first and is_main_process():
            name = signal.Signals(number).name
            line = f"openjepa: {name}: the step is finished and saved first; Ctrl-C leaves at once\n"
            os.write(2, line.encode())  # print may be what was interrupted
