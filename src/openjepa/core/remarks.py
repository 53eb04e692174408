"""Remarks that need no action of the user: one line on stderr."""

from __future__ import annotations

import os
import sys


def remark(message: str) -> None:
    """Print one line on stderr, in the main process only."""
    if is_main_process():
        print("openjepa: " + " ".join(message.split()), file=sys.stderr)


def is_main_process() -> bool:
    """False in the processes that DDP started besides the first: they run the same command line, but print nothing."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0
