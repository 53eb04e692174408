"""Peak memory of a part of a program: of the GPU where it computes on one, else of the process.

On Linux the kernel keeps the largest resident size of a process and lets it be reset (`/proc/self/clear_refs`), so
each part has a separate peak. Elsewhere the peak is that of the whole process until the end of the part: never too low.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GB = 1e9  # bytes
RESET = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # the value that resets the peak


@dataclass
class PeakMemory:
    """The largest memory in use within a block."""

    gb: float | None = None  # 10^9 bytes; None before the block ends, and where it is unknown (Windows)


@contextmanager
def peak_memory() -> Generator[PeakMemory]:
    """Measure a block: `with peak_memory() as peak: ...`, then `peak.gb`. Of this process only; blocks do not nest.

    If torch holds memory of a CUDA device within the block, the peak is what it allocated there
    (`torch.cuda.max_memory_allocated`); else the resident size of the process, interpreter and libraries included.
    """
    peak = PeakMemory()
    _reset()
    yield peak
    peak.gb = _cuda_gb() or _resident_gb()


def listed_peaks(peaks: Mapping[str, float]) -> str:
    """The peaks of several parts for people: "training 2.9 GB, evaluation 3.4 GB"."""
    return ", ".join(f"{part} {gb:.1f} GB" for part, gb in peaks.items())


def _reset() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        RESET.write_text(RESET_PEAK)
    except OSError:  # not Linux, or not allowed: the peak so far remains
        return


def _cuda_gb() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / GB if torch.cuda.is_initialized() else 0.0


def _resident_gb() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB
