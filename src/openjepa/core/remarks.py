"""What a user should know and need not mend: one line on stderr."""

from __future__ import annotations

import os
import sys


def remark(message: str) -> None:
    """One line on stderr. Only one of several processes speaks."""
    if is_main_process():
        print("openjepa: " + " ".join(message.split()), file=sys.stderr)


def is_main_process() -> bool:
    """False in the processes that DDP started besides the first: they run the same command line, but stay silent."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0
