"""One tokenizer for all text recipes, on the `tokenizers` library: trained on the corpus or a pretrained one.

Own tokenizers have five special tokens with fixed ids ([PAD] 0 ... [MASK] 4) and add none of them to a text. Pretrained
ones keep their own vocabulary and wrap a text as their post-processor says ([CLS] ... [SEP]); what it adds is marked as
special. Text is data: a "[MASK]" written in a document is split into characters, never read as the special token.

Training is a pure function of the texts. The library's WordPiece trainer is not (it numbers the "##x" letters in the
order of a hash map, and ties between merges are broken by number), so we number them ourselves.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.cache import cache_dir
from openjepa.data.sources import DataConfig, documents, source_key

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # said outright, so that forking loader workers is no warning

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0-4 of every tokenizer trained here
PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>")
UNK_NAMES = ("[UNK]", "<unk>")
SEP_NAMES = ("[SEP]", "</s>", "<|sep|>")
MASK_NAMES = ("[MASK]", "<mask>", "<|mask|>")
OWN_KINDS = ("wordpiece", "bpe", "bytes")
FORMAT = 1  # of the cache; raise it when training changes
SAMPLE_TEXTS = 20_000
SAMPLE_CHARS = 20_000_000
LARGEST_ALPHABET = 1000  # rarer characters become [UNK] in WordPiece


class TokenizerConfig(BaseConfig):
    """Section `tokenizer` of a text recipe."""

    kind: str = "wordpiece"
    """wordpiece or bpe (trained on the corpus), bytes, or the folder or hub name of a pretrained model"""
    vocab_size: int = Field(8000, ge=300)
    """tokens of a trained vocabulary, special ones included; pretrained ones and bytes have their own"""
    lowercase: bool = True
    """fold case (and, in wordpiece, accents); pretrained tokenizers decide for themselves"""
    single_digits: bool = False
    """bpe: every digit is a token of its own, so that 12 and 13 share one; words are merged as usual"""

    @field_validator("kind")
    @classmethod
    def _not_misspelt(cls, kind: str) -> str:
        near = difflib.get_close_matches(kind, OWN_KINDS, n=1, cutoff=0.7)
        if near and kind not in OWN_KINDS and not Path(kind).exists():
            raise ValueError(f"unknown kind; did you mean {near[0]!r}?")
        return kind

    def for_encoder(self, name: str | None) -> TokenizerConfig:
        """The tokenizer for an encoder called `name`: its own if it is pretrained, this one for None (from scratch)."""
        return self if name is None else self.model_copy(update={"kind": name})


class TextTokenizer:
    """Text to ids and back. [PAD], [MASK] and [SEP] are appended to a vocabulary that lacks them (GPT-2's).

    Then `vocab_size` is larger than the pretrained embedding, which has to be resized.
    `special_ids` are the tokens that stand for no text: all special ones but [UNK].
    """

    def __init__(self, backend: Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.pad_id = _named_token(backend, PAD_NAMES)
        self.mask_id = _named_token(backend, MASK_NAMES)
        self.sep_id = _named_token(backend, SEP_NAMES)
        wrapped = np.array(backend.encode("a").special_tokens_mask, dtype=bool)
        ids = np.array(backend.encode("a").ids, dtype=np.int32)
        content = np.flatnonzero(~wrapped)
        self.prefix = ids[: content[0]]  # [P] int32, what goes before a text
        self.suffix = ids[content[-1] + 1 :]  # [S] int32, what goes after it
        added = backend.get_added_tokens_decoder().items()
        self.special_ids = tuple(sorted(i for i, token in added if token.special and token.content not in UNK_NAMES))
        vocab = backend.get_vocab(with_added_tokens=True)
        self.unknown_id = _unknown_id(backend)  # what stands for text outside the vocabulary; None = there is none
        unknown = next((vocab[name] for name in UNK_NAMES if name in vocab), self.pad_id)
        self.blank = np.array([unknown], dtype=np.int32)  # what stands for a text without content
        self.vocab_size = max(vocab.values()) + 1
        backend.encode_special_tokens = True  # special tokens written out in a text are plain text
        self.backend = backend

    def grown(self, name: str) -> tuple[TextTokenizer, int]:
        """A tokenizer that also has the special token `name`, at the end of the vocabulary if it is new; and its id."""
        backend = Tokenizer.from_str(self.backend.to_str())
        number = _named_token(backend, (name,))
        return TextTokenizer(backend), number

    def encode_content(self, texts: Sequence[str]) -> list[np.ndarray]:
        """[L] int32 for each text, nothing added. Runs on all cores."""
        return [
            np.array(encoding.ids, dtype=np.int32)
            for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def wrap(self, content: np.ndarray) -> np.ndarray:
        """[L] -> [P + L + S] with the tokenizer's own special tokens around the content."""
        return np.concatenate([self.prefix, content, self.suffix])

    def special_mask(self, length: int) -> np.ndarray:
        """[length] bool, True where `wrap` put the special tokens of a wrapped text of this length."""
        mask = np.zeros(length, dtype=bool)
        mask[: len(self.prefix)] = True
        mask[length - len(self.suffix) :] = True
        return mask

    def encode(self, texts: Sequence[str], max_len: int | None = None) -> list[np.ndarray]:
        """[L] int32 for each text, specials included; with `max_len`, its end is cut so that L <= max_len.

        A text without content (an empty one) becomes one [UNK] token (or [PAD], if there is none), so that L >= 1.
        """
        room = None if max_len is None else max(1, max_len - len(self.prefix) - len(self.suffix))
        return [self.wrap(content[:room] if len(content) else self.blank) for content in self.encode_content(texts)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special tokens are left out."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self.backend.to_str(),)  # the library's own pickling forgets `encode_special_tokens`

    @property
    def description(self) -> str:
        """Kind and size in a few words: "WordPiece, 8,000 tokens"."""
        return f"{type(self.backend.model).__name__}, {self.vocab_size:,} tokens"

    @property
    def fingerprint(self) -> str:
        """Equal for equal tokenizers."""
        return hashlib.blake2b(self.backend.to_str().encode(), digest_size=16).hexdigest()

    def save(self, path: Path) -> None:
        """Write `path` (a tokenizer.json); written aside and renamed, so a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.backend.save(str(aside))
        os.replace(aside, path)

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """A tokenizer.json, or a folder that holds one. Raises UserError if there is none or it is damaged."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"no tokenizer at {file}")
        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file} is not a tokenizer of the tokenizers library ({error})") from error


def _revive(state: str) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(state))


def train_tokenizer(cfg: TokenizerConfig, texts: Iterable[str]) -> TextTokenizer:
    """Learn a vocabulary of one of OWN_KINDS; the same texts give the same tokenizer, token for token."""
    if cfg.kind == "wordpiece":
        return TextTokenizer(_train_wordpiece(cfg, list(texts)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate((*SPECIALS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), *([normalizers.Lowercase()] if cfg.lowercase else [])]
    )
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cfg.kind == "bpe")
    alone = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([alone, bytewise]) if cfg.single_digits else bytewise
    backend.decoder = decoders.ByteLevel()
    if cfg.kind == "bpe":
        trainer = trainers.BpeTrainer(
            vocab_size=cfg.vocab_size,
            min_frequency=2,
            special_tokens=list(SPECIALS),
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
    else:
        backend.add_special_tokens(list(SPECIALS))
    return TextTokenizer(backend)


def pretrained_tokenizer(name: str) -> TextTokenizer:
    """The tokenizer of a pretrained model: a local folder or a hub name."""
    folder = Path(name).expanduser()
    if (folder / "tokenizer.json").is_file() or folder.suffix == ".json":
        return TextTokenizer.load(folder)
    from transformers import AutoTokenizer  # 5-8 s; also converts vocab.txt and the like

    try:
        pretrained: Any = AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else name)
        return TextTokenizer(Tokenizer.from_str(pretrained.backend_tokenizer.to_str()))
    except Exception as error:  # transformers and huggingface_hub share no base class
        raise UserError(
            f"tokenizer.kind {name!r} is none of {', '.join(OWN_KINDS)}, and no pretrained tokenizer of that name can "
            f"be loaded ({type(error).__name__}: {str(error).splitlines()[0][:150]}); give a folder with tokenizer.json"
        ) from error


def load_or_train(cfg: TokenizerConfig, data: DataConfig, path: Path) -> TextTokenizer:
    """The tokenizer kept in `path` (a folder or a .json file); on the first call trained or fetched, and kept there.

    It is trained on the first training documents, and also kept in `cache_dir()` for the next run on the same data.
    """
    file = _file(path)
    if file.is_file():
        return TextTokenizer.load(file)
    if cfg.kind in OWN_KINDS:
        key = json.dumps([FORMAT, cfg.model_dump(), source_key(data)]).encode()
        cached = cache_dir() / "tokenizers" / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.json"
        tokenizer = load_or_learn(cfg, lambda: (document.text for document in documents(data, "train")), cached)
    else:
        tokenizer = pretrained_tokenizer(cfg.kind)
    tokenizer.save(file)
    return tokenizer


def load_or_learn(cfg: TokenizerConfig, texts: Callable[[], Iterable[str]], path: Path) -> TextTokenizer:
    """The tokenizer kept in `path`; on the first call trained on the first of `texts()`, or fetched, and kept there."""
    file = _file(path)
    if not file.is_file():
        learnt = train_tokenizer(cfg, _first(texts())) if cfg.kind in OWN_KINDS else pretrained_tokenizer(cfg.kind)
        learnt.save(file)
    return TextTokenizer.load(file)


def _file(path: Path) -> Path:
    return path if path.suffix == ".json" else path / "tokenizer.json"


def _first(texts: Iterable[str]) -> Iterator[str]:
    """The first texts, at most SAMPLE_TEXTS of them and SAMPLE_CHARS characters."""
    room = SAMPLE_CHARS
    for number, text in enumerate(texts, start=1):
        yield text[:room]
        room -= len(text)
        if room <= 0 or number == SAMPLE_TEXTS:
            return


def _train_wordpiece(cfg: TokenizerConfig, texts: list[str]) -> Tokenizer:
    normalizer = normalizers.BertNormalizer(lowercase=cfg.lowercase)
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(normalizer.normalize_str(text))
    room = min(LARGEST_ALPHABET, (cfg.vocab_size - len(SPECIALS)) // 4)
    frequent = sorted((c for c in characters if not c.isspace()), key=lambda c: (-characters[c], c))[:room]
    alphabet = sorted(frequent)

    def bert(model: models.Model) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        return tokenizer

    learner = bert(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=cfg.vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIALS, *alphabet, *(f"##{c}" for c in alphabet)],  # numbered in this order
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    backend = bert(models.WordPiece(vocab=learner.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    backend.add_special_tokens(list(SPECIALS))
    return backend


def _named_token(backend: Tokenizer, names: Sequence[str]) -> int:
    """Id of the first name that the vocabulary has; if it has none, the first name is added at its end."""
    known = backend.get_vocab(with_added_tokens=True)
    name = next((name for name in names if name in known), names[0])
    backend.add_special_tokens([name])  # marks it as special; a new id only if it is new
    return backend.get_vocab(with_added_tokens=True)[name]


def _unknown_id(backend: Tokenizer) -> int | None:
    """Id of the token that the model puts for what it does not know; None if every text is known, as to bytes."""
    model: Any = backend.model
    if isinstance(model, models.Unigram):  # the library keeps the id to itself
        return json.loads(backend.to_str())["model"]["unk_id"]
    return None if model.unk_token is None else backend.token_to_id(model.unk_token)
