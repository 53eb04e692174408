"""Pretrained tokenizers, from a folder or file in any of the usual layouts, from tiktoken's cache, or from the hub.

    tokenizer.json            the tokenizers library
    vocab.json + merges.txt   byte pairs (GPT-2, RoBERTa)
    encoder.json + vocab.bpe  the same, under GPT-2's original names
    *.tiktoken                the same, as tiktoken keeps them
    vocab.txt                 BERT's word pieces

All of these are read here, without `transformers`: it takes seconds to import, and for a folder with none of them it
makes a tokenizer without a vocabulary. It is used only for the formats of SentencePiece.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from openjepa.core import hub
from openjepa.core.errors import UserError
from openjepa.data.tokenizers.byte_pairs import from_tiktoken, from_vocabulary_and_merges
from openjepa.data.tokenizers.text_tokenizer import OWN_KINDS, UNK_NAMES, TextTokenizer
from openjepa.data.tokenizers.word_pieces import from_vocabulary

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
SENTENCE_SETTINGS = "sentence_bert_config.json"
SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model")
LAYOUTS = "tokenizer.json, vocab.json + merges.txt, encoder.json + vocab.bpe, a .tiktoken file or vocab.txt"
SUFFIXES = (".json", ".tiktoken", ".txt")  # of single files that hold a tokenizer
FEWEST_TOKENS = 50  # besides special ones; letters at the start and inside of words are more
GPT2_NAMES = ("gpt2", "openai-community/gpt2")
GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"


def pretrained_tokenizer(name: str, setting: str = "tokenizer.kind") -> TextTokenizer:
    """The tokenizer of a pretrained model: a file, a local folder or a hub name, given as `setting`.

    Raises UserError, naming the setting and what would work, if there is none or its vocabulary is almost empty.
    """
    path = Path(name).expanduser()
    found = _read(path) if os.path.exists(path) else _from_hub(name, setting)
    if found is None:
        raise UserError(f"{setting}={name}: no tokenizer files in it; put there {LAYOUTS}")
    _require_vocabulary(found, f"{setting}={name}")
    return found


def own_tokenizer(name: str, setting: str) -> TextTokenizer | None:
    """The tokenizer of the folder or hub model `name`; None if it has none. Raises UserError if it cannot be read."""
    path = Path(name).expanduser()
    if os.path.exists(path):
        return None if _layout(path) is None else pretrained_tokenizer(name, setting)
    found = _from_hub(name, setting)
    return found if found is not None and vocabulary_size(found) >= FEWEST_TOKENS else None


def _require_vocabulary(tokenizer: TextTokenizer, what: str) -> None:
    """Raises UserError for a tokenizer whose vocabulary is almost empty; `what` names its source."""
    size = vocabulary_size(tokenizer)
    if size < FEWEST_TOKENS:
        raise UserError(
            f"{what}: a vocabulary of {size} tokens besides special ones is too small to read text (at least "
            f"{FEWEST_TOKENS}); give a whole tokenizer ({LAYOUTS}), or one of {', '.join(OWN_KINDS)}"
        )


def vocabulary_size(tokenizer: TextTokenizer) -> int:
    """Tokens that stand for text."""
    vocab = tokenizer.backend.get_vocab(with_added_tokens=True)
    return len(set(vocab.values()) - {*tokenizer.special_ids, *(vocab[name] for name in UNK_NAMES if name in vocab)})


def _read(path: Path) -> TextTokenizer | None:
    """The tokenizer in a file or folder; None if there is none. Raises UserError for one that is damaged."""
    files = _layout(path)
    if files is None:
        return None
    found = _of_layout(path, files)
    return _lowercasing(found) if _is_lowercased(files[0].parent) else found


def _of_layout(path: Path, files: tuple[Path, ...]) -> TextTokenizer:
    first = files[0]
    if first.name in SENTENCEPIECE:
        return _with_transformers(path)
    if first.suffix == ".tiktoken":
        return TextTokenizer(from_tiktoken(first))
    if first.suffix == ".txt":
        return TextTokenizer(from_vocabulary(first))
    if len(files) == 2:
        return TextTokenizer(from_vocabulary_and_merges(*files))
    return TextTokenizer.load(first)


def _is_lowercased(folder: Path) -> bool:
    """Whether this is a sentence-transformers model that folds case before its tokenizer reads a text."""
    settings = folder / SENTENCE_SETTINGS
    return settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case") is True


def _lowercasing(tokenizer: TextTokenizer) -> TextTokenizer:
    """The tokenizer with case folded before anything else."""
    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    first = [normalizers.Lowercase(), *([] if backend.normalizer is None else [backend.normalizer])]
    backend.normalizer = normalizers.Sequence(first)
    return TextTokenizer(backend)


def _layout(path: Path) -> tuple[Path, ...] | None:
    """The files of the first layout that `path` has; a single file is a layout."""
    if path.is_file():
        return (path,) if path.suffix in SUFFIXES else None
    candidates = [("tokenizer.json",), *PAIRS, *_tiktoken(path), ("vocab.txt",), *((name,) for name in SENTENCEPIECE)]
    return next((found for names in candidates if all(map(Path.is_file, found := _in(path, names)))), None)


def _in(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(folder / name for name in names)


def _tiktoken(folder: Path) -> list[tuple[str, ...]]:
    names = sorted(file.name for file in folder.glob("*.tiktoken"))
    if len(names) > 1:
        raise UserError(f"{folder} holds {len(names)} .tiktoken files ({', '.join(names)}); name one of them")
    return [(name,) for name in names]


def _with_transformers(path: Path) -> TextTokenizer:
    from transformers import AutoTokenizer

    folder = path if path.is_dir() else path.parent
    try:
        pretrained: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        return TextTokenizer(Tokenizer.from_str(pretrained.backend_tokenizer.to_str()))
    except Exception as error:  # transformers, sentencepiece and protobuf share no base class
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"{folder} has a SentencePiece model that transformers cannot read ({reason}); put there tokenizer.json"
        ) from error


def _from_hub(name: str, setting: str) -> TextTokenizer | None:
    """The tokenizer of a hub model; None if it has none. GPT-2's is also looked up in tiktoken's cache."""
    if not hub.is_repository(name) or name.endswith(SUFFIXES):
        raise UserError(f"{setting}={name}: no such file or folder; {_ways_on(setting)}")
    if name in GPT2_NAMES and (kept := _kept_by_tiktoken()) is not None:
        return TextTokenizer(from_vocabulary_and_merges(*kept))
    folder = _downloaded(name, setting)
    if _layout(folder) is None and hub.absence() is not None:  # other files of the model may be in the cache
        raise _unavailable(name, setting, FileNotFoundError())
    return _read(folder)


def _downloaded(name: str, setting: str) -> Path:
    """Folder of the hub's cache with the tokenizer files of `name`, fetched unless the hub cannot be reached."""
    from huggingface_hub import snapshot_download

    wanted = ["tokenizer.json", *(file for pair in PAIRS for file in pair), "*.tiktoken", "vocab.txt", *SENTENCEPIECE]
    try:
        with hub.reaching(bars=False):
            return Path(snapshot_download(name, allow_patterns=[*wanted, "tokenizer_config.json", SENTENCE_SETTINGS]))
    except Exception as error:  # the client's own and httpx's share no base class
        raise _unavailable(name, setting, error) from error


def _unavailable(name: str, setting: str, error: Exception) -> UserError:
    where = f"; tiktoken's copy of it would be found in {tiktoken_cache()}" if name in GPT2_NAMES else ""
    return UserError(f"{setting}={name}: {hub.failure(error, 'model')}; {_ways_on(setting)}{where}")


def _ways_on(setting: str) -> str:
    if setting == "tokenizer.kind":
        return f"give a folder with {LAYOUTS}, one of {', '.join(OWN_KINDS)}, or set HF_ENDPOINT to a mirror"
    return (
        f"give a folder with config.json, model.safetensors and a tokenizer ({LAYOUTS}), set HF_ENDPOINT to a mirror, "
        f"or leave {setting} empty for a network of OpenJEPA's own"
    )


def tiktoken_cache() -> Path:
    """The folder where the library tiktoken keeps its downloads."""
    configured = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return Path(configured or Path(tempfile.gettempdir()) / "data-gym-cache")


def _kept_by_tiktoken() -> tuple[Path, Path] | None:
    """GPT-2's vocabulary and merges in tiktoken's cache, where files are named by the hash of their address."""
    vocabulary, merges = (
        tiktoken_cache() / hashlib.sha1(f"{GPT2_URL}{name}".encode()).hexdigest()
        for name in ("encoder.json", "vocab.bpe")
    )
    return (vocabulary, merges) if vocabulary.is_file() and merges.is_file() else None
