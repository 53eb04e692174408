"""Whether an export gives the run's own vectors: opened in a fresh process, compared on fixed inputs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openjepa.core.errors import UserError
from openjepa.evals.features import cosine_rows

OPENED = Path(__file__).with_name("opened.py")
TOLERANCE = {"sentence-transformers": 1e-5, "transformers": 1e-5, "onnx": 1e-4}  # largest absolute difference, fp32
Opened = Callable[[str, Path, Sequence[Any], str | None], np.ndarray]
PATIENCE_S = 600  # for one format to be opened, on a slow machine


@dataclass(frozen=True)
class Proof:
    """How far the vectors of an export are from the run's."""

    format: str
    inputs: int
    largest_difference: float  # over all numbers; lower better
    smallest_cosine: float  # over all inputs, at most 1; higher better
    tolerance: float | None  # most that `largest_difference` may be; None = vectors are meant to differ

    @property
    def holds(self) -> bool:
        return self.tolerance is None or self.largest_difference <= self.tolerance

    def sentence(self) -> str:
        """One line for people."""
        limit = "" if self.tolerance is None else f" (tolerance {self.tolerance:.0e})"
        return (
            f"{self.format}: {self.inputs} inputs, largest difference {self.largest_difference:.1e}{limit}, smallest "
            f"cosine {self.smallest_cosine:.6f}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Approximation:
    """How much of the run is left in vectors that have axes of their own."""

    format: str
    inputs: int
    kept_order: float  # Spearman correlation of the cosines of all pairs, in [-1, 1]; higher better
    holds: bool = True

    def sentence(self) -> str:
        """One line for people."""
        return (
            f"{self.format}: an approximation; over all pairs of {self.inputs} texts its cosines have a rank "
            f"correlation of {self.kept_order:.3f} with the run's (1 = the same order)"
        )

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format, "inputs": self.inputs, "kept_order": self.kept_order}


def prove(
    format_name: str,
    folder: Path,
    inputs: Sequence[Any],
    expected: np.ndarray,
    file: str | None = None,
    tolerance: float | None = None,
    opened: Opened | None = None,
) -> Proof:
    """Open `folder` in a fresh process and compare its vectors of `inputs` with `expected` [N, D].

    `opened` opens it in another way: (format, folder, inputs, file) -> vectors [N, D]. Raises UserError if it cannot be
    opened, or gives vectors of another shape or that are not finite.
    """
    vectors = (opened or opened_elsewhere)(format_name, folder, inputs, file)
    if vectors.shape != expected.shape or not np.isfinite(vectors).all():
        raise UserError(f"{format_name}: the export gives vectors of shape {vectors.shape}, not {expected.shape}")
    return Proof(
        format_name if file is None else f"{format_name} ({file})",
        len(expected),
        float(np.abs(vectors - expected).max()),
        float(cosine_rows(vectors, expected).min()),
        tolerance,
    )


def opened_elsewhere(format_name: str, folder: Path, inputs: Sequence[Any], file: str | None) -> np.ndarray:
    """[N, D] the vectors that a fresh process gets. Raises UserError if it fails."""
    with tempfile.TemporaryDirectory(prefix="openjepa-proof-") as temporary:
        workspace = Path(temporary)
        given = _written(inputs, workspace)
        out = workspace / "vectors.npy"
        command = [sys.executable, "-I", str(OPENED), format_name, str(folder.resolve()), str(given), str(out)]
        done = subprocess.run(
            [*command, *([file] if file else [])],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            cwd=workspace,
        )
        if done.returncode:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise UserError(f"{format_name}: the export cannot be opened in a fresh process ({last})")
        return np.load(out)


def _written(inputs: Sequence[Any], folder: Path) -> Path:
    """Texts as JSON, images as arrays."""
    if isinstance(inputs[0], Image.Image):
        file = folder / "images.npz"
        arrays: dict[str, Any] = {str(number): np.asarray(image) for number, image in enumerate(inputs)}
        np.savez(file, **arrays)
        return file
    file = folder / "texts.json"
    file.write_text(json.dumps(list(inputs)), encoding="utf-8")
    return file
