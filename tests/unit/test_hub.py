"""A hub that is not there: said in one line within seconds, by whoever wanted something of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openjepa.core import hub
from openjepa.core.errors import UserError
from openjepa.core.vocabulary import NamedEncoder, Vocabulary
from openjepa.data.images.dataset import ImageSet
from openjepa.data.images.sources import ImageDataConfig
from openjepa.data.questions.dataset import QuestionConfig, questions
from openjepa.data.text.sources import DataConfig, documents
from openjepa.data.tokenizers.choice import TokenizerConfig, load_or_train
from openjepa.models.pretrained import PretrainedEncoder
from openjepa.models.pretrained_vision import PretrainedViT

LIMIT_S = 5.0


@pytest.fixture(params=["refuses", "never answers"])
def absent(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a hub that does not answer; with empty caches. Says how it does so."""
    from huggingface_hub import constants

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if request.param == "never answers":
            server.listen(64)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
        monkeypatch.setattr(hub, "answers", {})
        yield address


def tokenizer_of(
    kind: str | None, name: str | None, weights: bool, section: str = "encoder"
) -> Callable[[Path], object]:
    def ask(folder: Path) -> object:
        return load_or_train(TokenizerConfig(kind=kind), DataConfig(), folder, NamedEncoder(name, weights, section))

    return ask


ASKED: dict[str, tuple[Callable[[Path], object], str]] = {
    "tokenizer": (tokenizer_of("some/one", None, False), "tokenizer.kind=some/one"),
    "gpt2": (tokenizer_of("gpt2", None, False), "tokenizer.kind=gpt2"),
    "the tokenizer of an encoder": (tokenizer_of(None, "some/one", True), "encoder.name=some/one"),
    "the tokenizer of an architecture": (tokenizer_of(None, "some/one", False), "encoder.name=some/one"),
    "the tokenizer of a text encoder": (tokenizer_of(None, "some/one", True, "text_encoder"), "text_encoder.name="),
    "weights": (lambda _: PretrainedEncoder("some/one"), "encoder.name='some/one'"),
    "an architecture": (lambda _: PretrainedEncoder("some/one", False, 9, Vocabulary(9, 0), "text_encoder.name"),
                        "text_encoder.name='some/one'"),
    "a vision encoder": (lambda _: PretrainedViT("some/one", 48), "encoder.name='some/one'"),
    "documents": (lambda _: next(documents(DataConfig(source="some/one"))), "data.source=some/one"),
    "a stream": (lambda _: next(documents(DataConfig(source="some/one", streaming=True))), "data.source=some/one"),
    "questions": (lambda _: questions(QuestionConfig(source="some/one"), "train"), "data.source=some/one"),
    "images": (lambda _: len(ImageSet(ImageDataConfig(source="some/one"), "train")), "data.source=some/one"),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_an_absent_hub_is_one_line_within_seconds(
    what: str, absent: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ask, named = ASKED[what]
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        ask(tmp_path / "tokenizer.json")
    assert time.monotonic() - start < LIMIT_S
    message = str(caught.value)
    assert message.startswith(named)
    assert f"the hub ({absent}) cannot be reached" in message
    assert "\n" not in message
    assert "HF_ENDPOINT" in message
    assert "folder" in message  # a way on that needs no hub
    assert capfd.readouterr() == ("", "")


def test_an_absent_hub_is_asked_once(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.absence() is not None
    monkeypatch.setattr(hub, "ask_hub", lambda: pytest.fail("asked again"))
    assert hub.absence() in ("Connection refused", f"no answer within {hub.PATIENCE_S:g} s")


def test_offline_mode_asks_nobody(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "ask_hub", lambda: pytest.fail("asked"))
    assert hub.absence() == "HF_HUB_OFFLINE is set"


def test_what_was_changed_for_a_request_is_put_back(absent: str) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    with hub.reaching():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert logging.get_verbosity() == level


def test_names_of_repositories() -> None:
    assert all(map(hub.is_repository, ("gpt2", "owner/name.v1", "google/vit-base")))
    assert not any(map(hub.is_repository, ("./here", "/abs/path", "a/b/c", "~/models/x", "../up")))
