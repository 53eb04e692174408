"""Trackers hold what metrics.jsonl and health.jsonl hold, once, also after a stop and a resume; no network is asked.

What a service has written is read from its files, not through its own client.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json, read_jsonl
from openjepa.core.method import Hook
from openjepa.core.rundir import RunDir
from openjepa.recipes import t_jepa
from openjepa.training import checkpoint
from openjepa.training.hooks import default_hooks
from openjepa.training.trackers import PACKAGES, TRACKERS, VERDICT, Held, Started, Trackio
from openjepa.training.tracking import VERDICTS
from tests.tiny import TINY

pytest.importorskip("tensorboard")
pytest.importorskip("trackio")
pytest.importorskip("wandb")
pytest.importorskip("mlflow")

SERVICES = tuple(TRACKERS)
STEPS = 12
SETTINGS = (
    *TINY,
    f"train.steps={STEPS}",
    "train.warmup_steps=2",
    "train.log_every=2",
    "train.health_every=4",
    "train.checkpoint_every=4",
    "train.health_samples=32",
    "data.eval_fraction=0.2",
)
TIMES = ("tokens_per_s", "samples_per_s", "batch_s")
Values = dict[tuple[str, int], list[float]]  # by name and step; more than one = sent twice
OWN_VARIABLES = ("WANDB_", "MLFLOW_", "TRACKIO_")


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """Only this machine can be reached; a token of the hub tempts, the user's variables are gone."""

    def connect(self: socket.socket, address: Any) -> None:
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        assert local, f"a tracker asked {address}"
        really_connect(self, address)

    really_connect = socket.socket.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        for name in [name for name in os.environ if name.startswith(OWN_VARIABLES)]:
            patch.delenv(name)
        patch.setenv("HF_TOKEN", "hf_nobody")
        yield


def train(out: Path, *more: str, hooks: tuple[Hook, ...] = (), services: tuple[str, ...] = SERVICES) -> api.Run:
    loggers = f"train.loggers=[{','.join(services)}]"
    return api.train("t_jepa", out=out, overrides=[*SETTINGS, loggers, *more], progress=False, hooks=hooks)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "straight").path


def stop_at(step: int, error: type[BaseException]) -> Hook:
    def stop(progress: Any, output: Any, stats: Any) -> None:
        if progress.step == step:
            raise error("the machine is needed for something else")

    return stop


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped at step 10, two steps behind a checkpoint, and resumed."""
    out = tmp_path_factory.mktemp("runs") / "resumed"
    with pytest.raises(RuntimeError, match="something else"):
        train(out, hooks=(stop_at(10, RuntimeError),))
    assert checkpoint.newest_step(out / "checkpoints") == 8
    api.train("", out=out, resume=True, progress=False)
    return out


def tensorboard_values(run: Path) -> Values:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()
    found: Values = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault((name, event.step), []).append(event.value)
    return found


def trackio_rows(run: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with sqlite3.connect(run / "trackio" / "openjepa.db") as store:
        runs = store.execute("select distinct run_name from metrics").fetchall()
        assert len(runs) == 1
        for step, metrics in store.execute("select step, metrics from metrics order by id"):
            yield step, json.loads(metrics)


def trackio_values(run: Path) -> Values:
    return collected(trackio_rows(run))


def wandb_rows(run: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from wandb.proto.wandb_internal_pb2 import Record

    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len({folder.name.split("-")[3] for folder in folders}) == 1  # the same tracked run
    for file in (file for folder in folders for file in folder.glob("*.wandb")):
        for data in leveldb_records(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
                       for item in record.history.item}  # fmt: skip
                yield record.history.step.num, row


def leveldb_records(data: bytes, header: int = 7, block: int = 32768) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of checksum, length, type (whole, first, middle, last) and bytes."""
    at, parts = header, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def wandb_values(run: Path) -> Values:
    return collected(wandb_rows(run))


def collected(rows: Iterator[tuple[int, dict[str, Any]]]) -> Values:
    found: Values = {}
    for step, row in rows:
        for name, value in row.items():
            if isinstance(value, int | float) and not name.startswith("_"):
                found.setdefault((name, step), []).append(value)
    return found


def mlflow_values(run: Path) -> Values:
    found: Values = {}
    with sqlite3.connect(run / "mlflow.db") as store:
        assert store.execute("select count(*) from runs").fetchone() == (1,)
        for name, step, value in store.execute("select key, step, value from metrics"):
            found.setdefault((name, step), []).append(value)
    return found


READERS: dict[str, Callable[[Path], Values]] = {
    "tensorboard": tensorboard_values,
    "trackio": trackio_values,
    "wandb": wandb_values,
    "mlflow": mlflow_values,
}


def expected(run: Path, leave_out: tuple[str, ...] = ()) -> Values:
    """What the run's own logs hold, under the names that trackers show."""
    values: Values = {}
    for row in read_jsonl(run / "metrics.jsonl"):
        add(values, row, "", leave_out)
    for record in read_jsonl(run / "health.jsonl"):
        add(values, record, "health/", leave_out)
        if record["status"] in VERDICTS:
            values["health/verdict", record["step"]] = [VERDICTS[record["status"]]]
    return values


def add(values: Values, row: Mapping[str, Any], before: str, leave_out: tuple[str, ...]) -> None:
    for key, value in row.items():
        name = key.replace("loss_", "terms/") if key.startswith("loss_") else key
        if isinstance(value, int | float) and key not in ("step", "best", *leave_out):
            values[before + name, row["step"]] = [value]


def assert_same(found: Values, wanted: Values, name: str) -> None:
    assert found.keys() == wanted.keys()
    precise = np.float32 if name == "tensorboard" else np.float64  # TensorBoard keeps single precision
    assert [key for key, value in found.items() if [*map(precise, value)] != [*map(precise, wanted[key])]] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_tracker_holds_what_the_logs_hold(name: str, straight: Path) -> None:
    found = READERS[name](straight)
    for shown in ("loss", "terms/prediction", "lr", "grad_norm", "tokens_per_s", "health/skill", "health/rank"):
        assert (shown, STEPS) in found
    assert_same(found, expected(straight), name)


@pytest.mark.parametrize("name", SERVICES)
def test_a_resumed_run_is_one_tracked_run_without_gap_or_duplicate(name: str, resumed: Path) -> None:
    found = {key: value for key, value in READERS[name](resumed).items() if key[0] not in TIMES}
    assert {step for (shown, step) in found if shown == "loss"} == {2, 4, 6, 8, 10, 12}
    assert {step for (shown, step) in found if shown == "health/skill"} == {0, 4, 8, 12}
    assert_same(found, expected(resumed, TIMES), name)


def test_trackers_say_nothing_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Results are printed there; Trackio would print when it starts, when it ends, and when Python does."""
    import trackio

    train(tmp_path / "run", "train.steps=2", services=("tensorboard", "trackio", "wandb"))
    said = capfd.readouterr()
    assert said.out == ""
    assert [line.partition(" is ")[0] for line in said.err.splitlines()] == ["openjepa: wandb"]
    assert trackio.context_vars.current_run.get() is None


def verdicts(run: Path) -> list[str]:
    return [f"{record['status']}: {record['evidence']}" for record in read_jsonl(run / "health.jsonl")]


def test_the_verdict_is_there_in_words(straight: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said = verdicts(straight)
    events = EventAccumulator(str(straight / "tensorboard")).Reload()
    assert [event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{VERDICT}/text_summary")] == said
    for rows in (trackio_rows, wandb_rows):
        assert [row[VERDICT] for _, row in rows(straight) if VERDICT in row] == said
    with sqlite3.connect(straight / "mlflow.db") as store:
        assert store.execute("select value from tags where key = ?", [VERDICT]).fetchall() == [(said[-1],)]


def test_the_configuration_and_the_end_are_there(straight: Path, resumed: Path) -> None:
    with sqlite3.connect(straight / "mlflow.db") as store:
        params = dict(store.execute("select key, value from params"))
        assert store.execute("select status, name from runs").fetchall() == [("FINISHED", "straight")]
    assert params["recipe"] == "t_jepa"
    assert params["train.steps"] == str(STEPS)
    with sqlite3.connect(straight / "trackio" / "openjepa.db") as store:
        assert store.execute("select count(*) from configs").fetchone() == (1,)
        (config,) = store.execute("select config from configs").fetchone()
    assert json.loads(config)["train"]["steps"] == STEPS
    with sqlite3.connect(resumed / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_a_stopped_run_is_closed_as_stopped(
    error: type[BaseException], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant(monkeypatch)
    with pytest.raises(error):
        train(tmp_path / "run", hooks=(stop_at(6, error),), services=("wandb",))
    assert planted.calls[-1] == ("close", status)


class Planted:
    """A tracker that keeps what it is called with, and fails from a given call on."""

    def __init__(self, fails_at: str = "", fails_from_step: int = 0) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fails_at, self.fails_from_step = fails_at, fails_from_step

    def start(self, config: Mapping[str, Any], known: str | None) -> Started:
        self._called("start", known)
        return Started("planted")

    def log(self, step: int, scalars: Mapping[str, float], verdict: str | None) -> None:
        self._called("log", step)

    def close(self, status: str) -> None:
        self._called("close", status)

    def _called(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if name == self.fails_at and (name != "log" or value >= self.fails_from_step):
            raise OSError(28, "No space left on device")


def plant(monkeypatch: pytest.MonkeyPatch, *args: Any) -> Planted:
    planted = Planted(*args)
    monkeypatch.setitem(TRACKERS, "wandb", lambda run: planted)
    return planted


@pytest.mark.parametrize("fails_at", ["start", "log", "close"])
def test_a_tracker_that_fails_is_said_once_and_stops_nothing(
    fails_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = plant(monkeypatch, fails_at, 4)
    run = train(tmp_path / "run", services=("wandb",))
    assert run.summary()["steps"] == STEPS
    said = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert len(said) == 1
    assert "wandb gets nothing more of this run (OSError: [Errno 28] No space left on device)" in said[0]
    assert planted.calls[-1][0] == fails_at  # it is not called again


def test_what_a_failed_tracker_lacks_is_sent_when_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "log", 4)
    run = train(tmp_path / "run", services=("wandb",))
    planted = plant(monkeypatch)
    api.train("", out=run.path, resume=True, progress=False)
    assert planted.calls[0] == ("start", "planted")
    assert [step for name, step in planted.calls if name == "log"] == [4, 4, 6, 8, 8, 10, 12, 12]


def test_trackio_sends_again_what_a_killed_process_had_not_written(straight: Path) -> None:
    """Its thread writes twice a second: rows that it was given, and lost, are not held."""
    with sqlite3.connect(straight / "trackio" / "openjepa.db") as store:
        kept = store.execute("select count(*) from metrics").fetchone()
    known = read_json(straight / "trackers.json")["trackio"]["run"]
    tracker = Trackio(RunDir(straight))
    assert tracker.start({}, known) == Started(known, Held(STEPS, STEPS))
    tracker.close("finished")
    with sqlite3.connect(straight / "trackio" / "openjepa.db") as store:
        assert store.execute("select count(*) from metrics").fetchone() == kept
        ends = store.execute("select max(id) from metrics").fetchone()
        store.execute("delete from metrics where id = ?", ends)  # the last health check
    tracker = Trackio(RunDir(straight))
    assert tracker.start({}, known).held == Held(STEPS, 8)
    tracker.close("finished")


@pytest.mark.parametrize("name", SERVICES)
def test_a_missing_package_is_one_line_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES[name]:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            said = rf"^train.loggers={name} needs the package {package}: pip install 'openjepa\[track\]'$"
            with pytest.raises(UserError, match=said):
                train(tmp_path / "run", services=(name,))
    assert not (tmp_path / "run").exists()


def test_wandb_goes_online_only_where_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    asked: list[str] = []

    def init(**settings: Any) -> Any:
        asked.append(settings["mode"])
        raise ConnectionError("no server")

    monkeypatch.setattr(wandb, "init", init)
    run = RunDir.create(tmp_path / "run", "t_jepa", t_jepa.Config())
    with default_hooks(run, None, ["wandb"]):
        pass
    monkeypatch.setenv("WANDB_MODE", "online")
    with default_hooks(run, None, ["wandb"]):
        pass
    assert asked == ["offline", "online"]
