"""What the hub gave once works without it, and without it nothing is waited for: each in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from tests.hub import serving

GONE = "http://127.0.0.1:9"  # the port of "discard"; nothing listens there
TEXTS = [f"number {i} of many quiet words about gardens, rivers and {i % 7} old houses" for i in range(200)]
READ = {
    "models": """
import json
from openjepa.core.vocabulary import Vocabulary
from openjepa.data.tokenizers.choice import pretrained_tokenizer
from openjepa.models.pretrained import PretrainedEncoder
tokenizer = pretrained_tokenizer("some/model")
encoder = PretrainedEncoder("some/model", True, 16, tokenizer.vocabulary)
weights = float(encoder.model.get_input_embeddings().weight.detach().sum())
print(json.dumps([tokenizer.encode(["quiet words about gardens"])[0].tolist(), weights]))
""",
    "datasets": """
import json
from openjepa.data.text.sources import DataConfig, documents
print(json.dumps([document.text for document in documents(DataConfig(source="some/model"))]))
""",
}


def repository(kind: str, folder: Path) -> dict[str, bytes]:
    """A tiny DistilBERT with its tokenizer, or a data set of texts."""
    folder.mkdir()
    if kind == "datasets":
        pq.write_table(pa.table({"text": TEXTS}), folder / "train.parquet")
    else:
        from transformers import AutoConfig, AutoModel

        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)
        tokenizer.save(folder / "tokenizer.json")
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": tokenizer.vocab_size}
        AutoModel.from_config(AutoConfig.for_model("distilbert", **sizes)).save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", READ)
def test_what_the_hub_gave_works_without_it(kind: str, tmp_path: Path) -> None:
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}

    def read(more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", READ[kind]], env={**env, **more}, capture_output=True, text=True, timeout=100
        )

    offline = {"HF_ENDPOINT": GONE, "HF_HUB_OFFLINE": "0"}
    before = read(offline)
    assert before.returncode != 0
    assert "cannot be reached (Connection refused)" in before.stderr
    with serving("some/model", repository(kind, tmp_path / "repository"), kind) as hub:
        online = read(hub)
    assert online.returncode == 0, online.stderr
    assert len(json.loads(online.stdout)) > 1
    if kind == "models":  # a data set that is prepared may show how far it is
        assert online.stderr == ""
    for without in (offline, {"HF_HUB_OFFLINE": "1"}):
        cached = read(without)
        assert cached.returncode == 0, cached.stderr
        assert cached.stdout == online.stdout
        if kind == "models":
            assert cached.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "setting"),
    [("t_jepa", "encoder.name=some/model"), ("t_jepa", "data.source=some/model"), ("nano_jepa", "tokenizer.kind=gpt2"),
     ("vl_jepa", "encoder.name=some/vit"), ("vl_jepa", "text_encoder.name=some/bert")],
)  # fmt: skip
def test_the_command_line_says_it_in_one_line(recipe: str, setting: str, tmp_path: Path) -> None:
    caches = {"HF_HOME": str(tmp_path / "hf"), "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "openjepa", "train", recipe, setting, "--out", str(tmp_path / "run")],
        env={**os.environ, **caches, "HF_ENDPOINT": GONE, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    name, _, value = setting.partition("=")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(
        (f"openjepa: {name}={value}: the hub", f"openjepa: {name}={value!r} cannot be loaded")
    )
    assert f"the hub ({GONE}) cannot be reached (Connection refused)" in done.stderr
