"""OpenJEPA: joint-embedding predictive architectures for language and vision-language.

    import openjepa

    run = openjepa.train("t_jepa", data="corpus.jsonl", steps=500)
    run = openjepa.load("runs/t_jepa-20260101-120000")
    run.encode(["a text", "another text"])  # [2, D] float32

Names are loaded when they are first used, so that `import openjepa` costs milliseconds and imports neither torch nor
transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "adapt", "build_index", "choose_weights", "load", "open_index", "recipes", "train"]


def __getattr__(name: str) -> Any:
    if name == "recipes":
        return importlib.import_module("openjepa.recipes")
    if name in __all__:
        return getattr(importlib.import_module("openjepa.api"), name)
    raise AttributeError(f"module 'openjepa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
