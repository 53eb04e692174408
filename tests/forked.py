"""Command lines in processes of their own, forked from one that has imported the package: a second each, not five."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Forking:
    """A process that runs commands one after another, each in a fork of itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], path: Sequence[str] = ()) -> Done:
        """Run `openjepa words...` in the folder `cwd`, in this environment, with `path` before all else in sys.path."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"words": list(words), "cwd": str(cwd), "env": dict(env), "path": list(path)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        out, err = ((cwd / name).read_text(errors="replace") for name in (".stdout", ".stderr"))
        return Done(code, out, err)


@contextmanager
def forking() -> Iterator[Forking]:
    """Within the block, commands can be run."""
    process = subprocess.Popen([sys.executable, "-m", "tests.forked"], stdin=-1, stdout=-1, text=True, cwd=ROOT)
    try:
        yield Forking(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


ROOT = Path(__file__).parents[1]


def _child(job: dict) -> None:
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.path[:0] = job["path"]
    for number, name in ((1, ".stdout"), (2, ".stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - until the process ends
    from openjepa.cli import main

    code = 1
    try:
        code = main(job["words"])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve() -> None:
    import torch

    import openjepa.api
    import openjepa.cli
    import openjepa.pages.run
    import openjepa.training.loop  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
