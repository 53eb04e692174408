"""Trackers of experiments: TensorBoard, Trackio, Weights & Biases and MLflow behind one small interface.

Each keeps what it gets in the run folder and asks no other machine for anything, unless the service's own environment
variables say so (WANDB_MODE=online, MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID, ...). When a tracker is called, what it
already has after a resume, and what happens if it fails is decided in `training.tracking`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from openjepa.core.remarks import remark
from openjepa.core.rundir import RunDir
from openjepa.core.values import as_yaml

PROJECT = "openjepa"  # under which a service lists the runs; WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME name another
VERDICT = "health/verdict_text"  # of the texts, beside the number health/verdict
WANDB_FLUSH_S = 0.1  # a process that is killed loses no more; its default is far longer than a checkpoint takes
MLFLOW_PARAMS = 100  # most that one call takes
MLFLOW_DEFAULTS = {  # a server that is gone is given up after seconds, not minutes, and nobody is told of the run
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Held(NamedTuple):
    """The newest steps that a tracker has: of log lines and of health checks."""

    metrics: int = -1
    health: int = -1


class Started(NamedTuple):
    """The id of a tracked run, and what it holds; None = what was sent to it."""

    run: str
    held: Held | None = None


class Tracker(Protocol):
    """One service, made from a run folder; its package is imported by the constructor."""

    def start(self, config: Mapping[str, Any], known: str | None) -> Started:
        """Begin a tracked run, or go on with the one whose id is `known`."""
        ...

    def log(self, step: int, scalars: Mapping[str, float], verdict: str | None) -> None:
        """Add the scalars of one step, and the verdict in words if there was a health check. Steps never decrease."""
        ...

    def close(self, status: str) -> None:
        """The run is "finished", "failed" or "interrupted"; all that was logged is kept from now on."""
        ...


class TensorBoard:
    """Event files in `<run>/tensorboard`; a resumed run adds another file of the same run."""

    def __init__(self, run: RunDir) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer_class = SummaryWriter
        self._folder = run.path / "tensorboard"

    def start(self, config: Mapping[str, Any], known: str | None) -> Started:
        # a tracked run that is not known yet hides what an earlier attempt may have left in the folder
        self._writer = self._writer_class(str(self._folder), purge_step=0 if known is None else None)
        if known is None:
            self._writer.add_text("config", f"```yaml\n{as_yaml(dict(config))}```", 0)
        return Started(str(self._folder))

    def log(self, step: int, scalars: Mapping[str, float], verdict: str | None) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if verdict is not None:
            self._writer.add_text(VERDICT, verdict, step)
        self._writer.flush()

    def close(self, status: str) -> None:
        self._writer.close()


class Trackio:
    """A SQLite file in `<run>/trackio` or TRACKIO_DIR; or the machine of TRACKIO_SPACE_ID or TRACKIO_SERVER_URL."""

    def __init__(self, run: RunDir) -> None:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        self._trackio = trackio
        self._storage = SQLiteStorage
        self._path = run.path.resolve()
        self._restore = contextlib.ExitStack()

    def start(self, config: Mapping[str, Any], known: str | None) -> Started:
        name = known or f"{self._path.name}-{uuid.uuid4().hex[:6]}"  # Trackio knows runs by name, and names come again
        is_local = not {"TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"} & set(os.environ)
        if is_local:
            self._stay_local()
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = self._trackio.init(
                project=PROJECT,
                name=name,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return Started(name, self._held(name) if is_local else None)

    def _stay_local(self) -> None:
        """Until `close`: the folder, which Trackio sets once a process, is this run's, and no account is asked for."""
        values: dict[str, Any] = {"_get_default_namespace": lambda: None}
        if "TRACKIO_DIR" not in os.environ:
            values["TRACKIO_DIR"] = self._path / "trackio"
        modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "trackio"]
        for module, (name, value) in itertools.product(modules, values.items()):
            if name in vars(module):
                self._restore.callback(setattr, module, name, vars(module)[name])
                setattr(module, name, value)

    def _held(self, name: str) -> Held:
        """By what is stored: Trackio writes twice a second, so a killed process may not have written its last rows."""
        rows = self._storage.get_logs(PROJECT, name)
        checks = [row["step"] for row in rows if VERDICT in row]
        return Held(max((row["step"] for row in rows if VERDICT not in row), default=-1), max(checks, default=-1))

    def log(self, step: int, scalars: Mapping[str, float], verdict: str | None) -> None:
        self._run.log({**scalars, **({} if verdict is None else {VERDICT: verdict})}, step=step)

    def close(self, status: str) -> None:
        with self._restore, contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()


class WandB:
    """Offline files in `<run>/wandb`, which `wandb sync` sends; WANDB_MODE=online sends them at once."""

    def __init__(self, run: RunDir) -> None:
        import wandb

        self._wandb = wandb
        self._path = run.path

    def start(self, config: Mapping[str, Any], known: str | None) -> Started:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        alone = mode in ("offline", "disabled")
        settings = self._wandb.Settings(
            console="off",
            silent=True,
            reinit="create_new",  # a run of the user's own goes on
            x_disable_stats=alone,  # measuring asks the network for what machine this is
            x_disable_meta=alone,
            x_transaction_log_flush_interval=WANDB_FLUSH_S,
        )
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self._path.resolve().name,
            id=known or uuid.uuid4().hex[:8],
            dir=os.environ.get("WANDB_DIR", str(self._path)),
            config=dict(config),
            resume="allow",
            mode=mode,
            settings=settings,
        )
        if mode == "offline":
            remark(
                f"wandb is offline and writes to {self._path / 'wandb'}; WANDB_MODE=online sends, `wandb sync` later"
            )
        return Started(str(self._run.id))

    def log(self, step: int, scalars: Mapping[str, float], verdict: str | None) -> None:
        self._run.log({**scalars, **({} if verdict is None else {VERDICT: verdict})}, step=step)

    def close(self, status: str) -> None:
        self._run.finish(exit_code=int(status != "finished"))


class MLflow:
    """A SQLite file `<run>/mlflow.db`, or the server of MLFLOW_TRACKING_URI."""

    def __init__(self, run: RunDir) -> None:
        for name, value in MLFLOW_DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        for logger in ("mlflow.store.db.utils", "alembic"):  # they tell of each table
            logging.getLogger(logger).setLevel(logging.WARNING)

        self._client_class = MlflowClient
        self._metric = Metric
        self._param = Param
        self._path = run.path.resolve()

    def start(self, config: Mapping[str, Any], known: str | None) -> Started:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = self._client_class(tracking_uri=uri or f"sqlite:///{self._path / 'mlflow.db'}")
        if known is not None:
            self._run = known
            self._client.update_run(known, status="RUNNING")
            return Started(known)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        artifacts = None if uri else (self._path / "mlflow-artifacts").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(name, artifacts)
        self._run = self._client.create_run(experiment, run_name=self._path.name).info.run_id
        params = [self._param(key, str(value)) for key, value in dotted(config).items()]
        for start in range(0, len(params), MLFLOW_PARAMS):
            self._client.log_batch(self._run, params=params[start : start + MLFLOW_PARAMS])
        return Started(self._run)

    def log(self, step: int, scalars: Mapping[str, float], verdict: str | None) -> None:
        now_ms = int(time.time() * 1000)
        self._client.log_batch(self._run, [self._metric(name, value, now_ms, step) for name, value in scalars.items()])
        if verdict is not None:  # MLflow keeps texts as tags, so only the newest
            self._client.set_tag(self._run, VERDICT, verdict)

    def close(self, status: str) -> None:
        ended = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[status]
        self._client.set_terminated(self._run, ended)


TRACKERS: dict[str, Callable[[RunDir], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
    "mlflow": MLflow,
}
PACKAGES = {  # to be imported; mlflow-skinny has no database of its own
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


def dotted(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings under keys such as "train.lr"."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= dotted(value, f"{before}{key}.") if isinstance(value, Mapping) and value else {f"{before}{key}": value}
    return flat
