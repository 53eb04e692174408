"""Finish one cell: train it, or resume its training, then score it. Also a program:

    python -m openjepa.studies.worker runs/study/cells/base/seed-0 [suite.yaml]

One process per cell: each has its own threads and memory, and a crash affects no other.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from openjepa import api
from openjepa.core.errors import StoppedBySignal, TrainingStopped, UserError
from openjepa.core.method import Hook
from openjepa.core.rundir import write_json
from openjepa.evals.suite_file import Suite
from openjepa.studies import scoring
from openjepa.studies.cells import finished, stop_file
from openjepa.training.run import compute_threads


def finish(path: Path, hooks: Sequence[Hook] = (), suite: Suite | None = None) -> None:
    """Finish the cell in the run folder `path`: train it, and score it on `suite` or on its recipe's tasks.

    Training that stops with an error also finishes it. Raises UserError if another process works on it.
    """
    try:
        with FileLock(path / ".lock", timeout=0):
            _finish(path, hooks, suite)
    except Timeout:
        raise UserError(f"another process is working on {path}; wait for it or stop it") from None


def _finish(path: Path, hooks: Sequence[Hook], suite: Suite | None) -> None:
    if finished(path, suite):
        return
    run = scoring.loaded(path)
    if not run.folder.summary.exists():
        try:
            run = api.train(run.recipe, out=path, resume=True, hooks=hooks, progress=False)
        except TrainingStopped as stop:
            write_json(stop_file(path), {"error": str(stop)})
            return
    with compute_threads(run.config.train.threads):
        scoring.score(run, suite)


def main() -> int:
    """Return the exit code: 2, with a line on stderr, for user errors; 128 + a signal's number (Ctrl-C 130)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by default if a script started it with "&"
    try:
        finish(Path(sys.argv[1]), suite=Suite.open(sys.argv[2]) if len(sys.argv) > 2 else None)
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except StoppedBySignal as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
