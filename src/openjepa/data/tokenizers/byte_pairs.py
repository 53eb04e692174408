"""Byte-pair tokenizers such as GPT-2's, from the usual file formats.

Every byte has a letter, so these tokenizers know every text. The ids depend on the vocabulary and on how text is cut
before bytes are paired: as GPT-2 does, unless the file's name tells another way.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from openjepa.core.errors import UserError

SPECIAL = ("<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>")  # special where a vocabulary has them
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = {  # how later vocabularies of tiktoken cut text, by a part of their file's name
    "cl100k": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + "?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS + "?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}  # fmt: skip

Merges = list[tuple[str, str]]


def from_vocabulary_and_merges(vocabulary: Path, merges: Path) -> Tokenizer:
    """GPT-2's vocab.json and merges.txt, under any names. Raises UserError naming the file and what is wrong in it."""
    try:
        vocab = json.loads(vocabulary.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{vocabulary} is not JSON ({error}); it should hold every token and its id") from error
    if not isinstance(vocab, dict) or not all(isinstance(number, int) for number in vocab.values()):
        raise UserError(f"{vocabulary} is not a vocabulary; it should hold every token and its id")
    return _byte_pairs(vocab, _read_merges(merges), vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False))


def from_tiktoken(file: Path) -> Tokenizer:
    """A .tiktoken file: a token in base64 and its rank on every line. Raises UserError naming a bad line."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise UserError(f"{file}:{number} is not a token in base64 and its rank ({error})") from error
    letters = byte_letters()
    names = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [(names[left], names[right]) for left, right in _merges_of(ranks)]
    words = next((Regex(pattern) for name, pattern in WORDS.items() if name in file.name), None)
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    if words is not None:
        cut = pre_tokenizers.Sequence([pre_tokenizers.Split(words, "isolated"), cut])
    return _byte_pairs({names[token]: rank for token, rank in ranks.items()}, merges, file, cut)


def _merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that together are a token, by the rank of that token: tiktoken merges them all."""
    found = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left = token[:cut]
            right = token[cut:]
            if left in ranks and right in ranks:
                found.append((rank, ranks[left], ranks[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _read_merges(file: Path) -> Merges:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines: a merge may hold other line ends
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error})") from error
    merges = []
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, space, right = line.partition(" ")
        if not (left and space and right) or " " in right:
            raise UserError(f"{file}:{number} is not two tokens with a space between them ({line[:40]!r})")
        merges.append((left, right))
    return merges


def _byte_pairs(vocab: dict[str, int], merges: Merges, file: Path, cut: pre_tokenizers.PreTokenizer) -> Tokenizer:
    missing = [letter for letter in byte_letters() if letter not in vocab]
    if missing:
        raise UserError(
            f"{file} is no vocabulary of byte pairs: {len(missing)} of 256 bytes are not in it; give tokenizer.json"
        )
    if any(right.endswith("</w>") for _, right in merges):
        raise UserError(f"{file} marks the ends of words (as CLIP's does), which is not read; give tokenizer.json")
    try:
        backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file} and its merges do not belong together ({error})") from error
    backend.pre_tokenizer = cut
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([name for name in SPECIAL if name in vocab])
    if "<s>" in vocab and "</s>" in vocab:  # RoBERTa's
        ends = [("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])]
        backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ends)
    return backend


def byte_letters() -> list[str]:
    """The letter that stands for each byte, 0 to 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
