"""Choose the tokenizer of a run: the one that is set, that of its named encoder, or one trained on its data.

Pretrained weights are useless with other token ids, so with them only the encoder's own vocabulary is accepted. An
architecture with random weights takes any. The choice is saved with the run and loaded from there: neither the
encoder's folder nor the hub is read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.core.remarks import remark
from openjepa.core.vocabulary import OWN_ENCODER, NamedEncoder
from openjepa.data.loading.cache import cache_dir
from openjepa.data.text.sources import DataConfig, documents, source_key
from openjepa.data.tokenizers.files import LAYOUTS, own_tokenizer, pretrained_tokenizer
from openjepa.data.tokenizers.text_tokenizer import OWN_KINDS, TextTokenizer, TokenizerConfig
from openjepa.data.tokenizers.training import FORMAT, train_tokenizer

__all__ = [
    "TextTokenizer",
    "TokenizerConfig",
    "load_or_learn",
    "load_or_train",
    "pretrained_tokenizer",
    "train_tokenizer",
]

SAMPLE_TEXTS = 20_000
SAMPLE_CHARS = 20_000_000


def load_or_train(
    cfg: TokenizerConfig, data: DataConfig, path: Path, encoder: NamedEncoder = OWN_ENCODER
) -> TextTokenizer:
    """The tokenizer kept in `path` (a folder or a .json file); on the first call trained or fetched, and kept there.

    It is trained on the first training documents, and also kept in `cache_dir()` for the next run on the same data.
    Raises UserError if the encoder has pretrained weights and the tokenizer is not its own.
    """

    def trained(wanted: TokenizerConfig) -> TextTokenizer:
        key = json.dumps([FORMAT, wanted.model_dump(), source_key(data)]).encode()
        cached = cache_dir() / "tokenizers" / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.json"
        return _kept(
            cached, lambda: train_tokenizer(wanted, _first(document.text for document in documents(data, "train")))
        )

    return _kept(path, lambda: _chosen(cfg, encoder, trained))


def load_or_learn(
    cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], path: Path, encoder: NamedEncoder = OWN_ENCODER
) -> TextTokenizer:
    """`load_or_train` for texts that are not documents: `texts()` is called only to train a tokenizer."""
    return _kept(path, lambda: _chosen(cfg, encoder, lambda wanted: train_tokenizer(wanted, _first(texts()))))


def _kept(path: Path, make: Callable[[], TextTokenizer]) -> TextTokenizer:
    file = path if path.suffix == ".json" else path / "tokenizer.json"
    if not file.is_file():
        make().save(file)
    return TextTokenizer.load(file)


def _chosen(
    cfg: TokenizerConfig, encoder: NamedEncoder, trained: Callable[[TokenizerConfig], TextTokenizer]
) -> TextTokenizer:
    if encoder.name is not None and encoder.weights:
        return _of_weights(cfg, encoder)
    if cfg.kind is not None and cfg.kind not in OWN_KINDS:
        return pretrained_tokenizer(cfg.kind)
    if cfg.kind is None and encoder.name is not None:
        if (own := own_tokenizer(encoder.name, encoder.setting)) is not None:
            return own
        remark(
            f"{encoder.setting}={encoder.name} has no tokenizer files: a WordPiece vocabulary is learned from the data "
            "(tokenizer.kind and tokenizer.vocab_size choose another)"
        )
    return trained(cfg.model_copy(update={"kind": cfg.kind or "wordpiece"}))


def _of_weights(cfg: TokenizerConfig, encoder: NamedEncoder) -> TextTokenizer:
    """The tokenizer of an encoder with pretrained weights. Raises UserError if there is none, or another is set."""
    assert encoder.name is not None
    if cfg.kind in OWN_KINDS:
        raise UserError(
            f"tokenizer.kind={cfg.kind} does not go with the pretrained weights of {encoder.setting}={encoder.name}: "
            f"they need the token ids of their own vocabulary; leave tokenizer.kind empty, or set "
            f"{encoder.section}.weights=false for its architecture with random weights"
        )
    own = own_tokenizer(encoder.name, encoder.setting)
    if cfg.kind is None and own is None:
        raise UserError(
            f"{encoder.setting}={encoder.name} has pretrained weights and no tokenizer files; put there {LAYOUTS}, "
            f"name them with tokenizer.kind=FOLDER, or set {encoder.section}.weights=false for the architecture only"
        )
    if cfg.kind is None or cfg.kind == encoder.name:
        assert own is not None
        return own
    other = pretrained_tokenizer(cfg.kind)
    if own is not None and own.backend.get_vocab() != other.backend.get_vocab():
        raise UserError(
            f"tokenizer.kind={cfg.kind} has other token ids than the vocabulary of the pretrained weights of "
            f"{encoder.setting}={encoder.name}; leave tokenizer.kind empty, or set {encoder.section}.weights=false"
        )
    return other


def _first(texts: Iterable[str]) -> Iterator[str]:
    """The first texts, at most SAMPLE_TEXTS of them and SAMPLE_CHARS characters."""
    room = SAMPLE_CHARS
    for number, text in enumerate(texts, start=1):
        yield text[:room]
        room -= len(text)
        if room <= 0 or number == SAMPLE_TEXTS:
            return
