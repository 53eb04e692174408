"""Images of the hub: a loopback hub serves a data set as Hugging Face stores images, broken ones among them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.hub import serving

NAME = "someone/pictures"
SHARDS = (25, 15)
BROKEN, ANIMALS = 7, ["cat", "dog"]
FEATURES = {
    "img": {"_type": "Image"},
    "animal": {"names": ANIMALS, "_type": "ClassLabel"},
}
READ = """
import json, sys
from openjepa.data.images.sources import ImageDataConfig
from openjepa.tasks.images import image_tasks
from openjepa.data.images.dataset import ImageSet
cfg = ImageDataConfig(source=sys.argv[1], streaming=sys.argv[2] == "true", size=16, column="img", label="animal",
                      eval_fraction=0.3)
found = {split: ImageSet(cfg, split) for split in ("train", "eval")}
rows = {s: [[images.origin(i), images.labels[i], images[i].mean().item()] for i in range(len(images))]
        for s, images in found.items()}
(task,) = image_tasks(cfg)
print(json.dumps({"counts": found["train"].counts, "rows": rows, "classes": task.classes}))
"""


def picture(number: int) -> np.ndarray:
    return np.full((16, 16, 3), 5 * number, dtype=np.uint8)


def repository() -> dict[str, bytes]:
    """Two Parquet files, with the features in their metadata."""
    files, start = {}, 0
    meta = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}
    for shard, size in enumerate(SHARDS):
        images = []
        for number in range(start, start + size):
            file = io.BytesIO()
            Image.fromarray(picture(number)).save(file, "PNG")
            images.append({"bytes": b"torn" if number == BROKEN else file.getvalue(), "path": f"{number}.png"})
        labels = [number % 2 for number in range(start, start + size)]
        kinds = {"img": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "animal": pa.int64()}
        table = pa.table({"img": images, "animal": labels}, schema=pa.schema(kinds.items(), metadata=meta))
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        files[f"data/train-{shard:05d}-of-00002.parquet"] = buffer.getvalue()
        start += size
    return files


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_images_of_the_hub_are_read_and_broken_ones_counted(streaming: str, tmp_path: Path) -> None:
    with serving(NAME, repository()) as hub:
        env = {**os.environ, **hub, "HF_HOME": str(tmp_path / "hf"), "OPENJEPA_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", READ, NAME, streaming]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["counts"] == {"images": sum(SHARDS) - 1, "image cannot be decoded": 1}
    rows = found["rows"]["train"] + found["rows"]["eval"]
    assert sorted(mean for _, _, mean in rows) == [5.0 * i for i in range(sum(SHARDS)) if i != BROKEN]
    assert all(label == str(int(mean / 5) % 2) for _, label, mean in rows)
    assert all(origin.startswith(NAME) for origin, _, _ in rows)
    assert min(len(part) for part in found["rows"].values()) > 3
