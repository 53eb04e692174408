"""Arms built before anything is trained, to find errors beyond the configuration, and for costs."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from openjepa.core.errors import ConfigError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.locate import locate_recipe
from openjepa.core.seeding import seed_global
from openjepa.studies.cells import Arm
from openjepa.training.optimizers import require_optimizer
from openjepa.training.run import compute_threads


@contextmanager
def built(arm: Arm, threads: int = 0) -> Generator[Experiment]:
    """The untrained experiment of an arm, with at most `threads` CPU threads; 0 = as many as in training."""
    with tempfile.TemporaryDirectory() as assets, compute_threads(threads or arm.config.train.threads):
        seed_global(arm.config.train.seed, "init")
        yield locate_recipe(arm.recipe).build(arm.config, BuildContext(Path(assets)))


def require_buildable(arms: Sequence[Arm]) -> None:
    """Raises ConfigError naming the first arm that cannot be built; other UserErrors (of the data, say) pass."""
    for arm in arms:
        try:
            require_optimizer(arm.config.train)
            with built(arm):
                pass
        except ConfigError as error:
            raise ConfigError(f"{arm.label}: {error}") from None
