"""Record the reference training curves: `make golden`, or `python -m tests.golden.record`.

A curve is a fingerprint of everything between the data and the optimiser. If it moved and you did not mean it to, look
for the reason; if you did, record it again and say in the commit why it moved.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from openjepa import api
from openjepa.core.json_files import read_jsonl
from openjepa.core.rundir import write_json
from tests.tiny import TINY

GOLDEN = Path(__file__).with_name("t_jepa.json")
SETTINGS = (
    *TINY,
    "mask.mean_span=12",  # what could be tuned in the preset is fixed here
    "regularizer.covariance=1",
    "regularizer.mean=0",
    "train.lr=1e-3",
    "train.threads=0",
    "train.workers=0",
    "train.steps=30",
    "train.warmup_steps=5",
    "train.log_every=1",
    "train.checkpoint_every=0",
)
MEASURED = ("loss", "grad_norm", "lr", "tokens")


def curve(folder: Path) -> dict[str, Any]:
    """30 steps in fp32 on one thread: each measure at each step."""
    torch.set_num_threads(1)
    run = api.train("t_jepa", out=folder / "run", overrides=SETTINGS, progress=False)
    rows = list(read_jsonl(run.path / "metrics.jsonl"))
    return {name: [row[name] for row in rows] for name in MEASURED}


def main() -> None:
    """Write GOLDEN and say by how much it moved."""
    before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else None
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OPENJEPA_CACHE"] = f"{folder}/cache"  # made from scratch, as in the test
        now = curve(Path(folder))
    write_json(GOLDEN, now)
    pairs = zip(before["loss"], now["loss"], strict=True) if before else ()
    moved = max((abs(new / old - 1) for old, new in pairs), default=None)
    print(f"{GOLDEN}: final loss {now['loss'][-1]:.5f}", "(new)" if moved is None else f"(moved by up to {moved:.1e})")


if __name__ == "__main__":
    main()
