"""Whether this machine has the memory that settings need, told before it is taken.

Without this, sizes that a slip of the keyboard made absurd end in a process that the kernel kills without a word.
"""

from __future__ import annotations

import os
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.core.memory import GB

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # the limit of a container, if there is one


def available_bytes() -> int | None:
    """Bytes of memory that processes on this machine (or in this container) can still get; None if that is unknown."""
    free = _of_kernel()
    limit = _of_container()
    known = [number for number in (free, limit) if number is not None]
    return min(known) if known else None


def require_memory(needed: float, what: str, way: str, available: float | None = None) -> None:
    """Raises UserError if `what` needs more bytes than there are, with a `way` on.

    `available` = bytes there are; None = those of this machine. Where that is unknown, nothing is refused.
    """
    there = available_bytes() if available is None else available
    if there is not None and needed > there:
        raise UserError(f"{what} needs {_shown(needed)} of memory at least, and there is {_shown(there)}; {way}")


def _shown(number: float) -> str:
    return f"{number / GB:,.1f} GB" if number < 1e15 else f"{number / GB:.1e} GB"


def _of_kernel() -> int | None:
    """What the kernel could give without killing anything: free memory, caches, and swap."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _of_container() -> int | None:
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines()).get("file", "0")
        return int(limit) - int(used) + int(cached)
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None
