"""Exports opened in the process of the tests, as a fresh process opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.export import opened


def in_process(format_name: str, folder: Path, inputs: Sequence[Any], file: str | None) -> np.ndarray:
    """What a fresh process does, in this one: faster."""
    if format_name == "transformers":
        return opened.by_transformers(folder, inputs)
    if format_name == "onnx":
        assert file is not None
        return opened.by_onnx(folder, inputs, file)
    return opened.by_sentence_transformers(folder, inputs)
