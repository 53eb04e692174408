"""The one training loop and what it needs: optimiser, checkpoints, hooks.

The package shares its name with the library's first verb, so it is callable: `openjepa.train("t_jepa", steps=100)` is
`openjepa.api.train`. Whichever of the two is imported first, both work.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _PackageAndVerb(ModuleType):
    @property
    def __call__(self) -> Callable[..., Any]:
        return importlib.import_module("openjepa.api").train


sys.modules[__name__].__class__ = _PackageAndVerb
