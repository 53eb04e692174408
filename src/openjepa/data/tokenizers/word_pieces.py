"""BERT's tokenizer from its vocab.txt: a word piece on every line, whose number is its id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from openjepa.core.errors import UserError
from openjepa.data.tokenizers.text_tokenizer import SPECIALS


def from_vocabulary(file: Path) -> Tokenizer:
    """BERT's way of cutting and folding text; tokenizer_config.json next to the file may set what is folded.

    Without it, case is folded unless the vocabulary has capital letters. Raises UserError if the file is none.
    """
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error})") from error
    vocab = {line.rstrip("\r"): number for number, line in enumerate(lines)}
    if "[UNK]" not in vocab:
        raise UserError(f"{file} is no vocabulary of BERT's kind: it has no [UNK]; it should hold one token a line")
    config = _tokenizer_config(file.with_name("tokenizer_config.json"))
    cased = any(token != token.lower() for token in vocab if not token.startswith("["))
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", not cased),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([name for name in SPECIALS if name in vocab])
    if "[CLS]" in vocab and "[SEP]" in vocab:
        backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return backend


def _tokenizer_config(file: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json; empty if there is none."""
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error})") from error
    return config if isinstance(config, dict) else {}
