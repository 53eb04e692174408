"""A run's tokenizer as one of `transformers`: the same ids, special tokens and longest row."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, normalizers, processors

from openjepa.data.tokenizers.text_tokenizer import TextTokenizer
from openjepa.export.source import Source

PADDED = "  a word  "  # a text that shows whether white space around it changes its tokens


def fast_tokenizer(source: Source) -> Any:
    """Return a `PreTrainedTokenizerFast` that makes the rows of `source`."""
    from transformers import PreTrainedTokenizerFast

    ours = source.tokenizer
    backend = _backend(source)

    def name(number: int) -> str:
        return _name(ours, number)

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=name(ours.pad_id),
        mask_token=name(ours.mask_id),
        sep_token=name(ours.sep_id),
        unk_token=None if ours.unknown_id is None else name(ours.unknown_id),
        model_max_length=source.max_row,
        model_input_names=["input_ids", "attention_mask"],
        split_special_tokens=True,  # "[MASK]" written in a text is text
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def _backend(source: Source) -> Tokenizer:
    """The library's tokenizer with the special tokens of a row, and without white space around a text if it matters."""
    ours = source.tokenizer
    backend = Tokenizer.from_str(ours.backend.to_str())
    if _white_space_matters(ours):
        strip = normalizers.Strip()
        backend.normalizer = normalizers.Sequence([strip, backend.normalizer]) if backend.normalizer else strip
    before, after = source.wrapping
    tokens = {number: _name(ours, number) for number in (*before, *after)}
    template = [*(tokens[n] for n in before), "$A", *(tokens[n] for n in after)]
    own_template = [*(_name(ours, n) for n in ours.prefix), "$A", *(_name(ours, n) for n in ours.suffix)]
    if template != own_template:
        marks = [(token, number) for number, token in tokens.items()]
        backend.post_processor = processors.TemplateProcessing(single=" ".join(template), special_tokens=marks)
    return backend


def _name(tokenizer: TextTokenizer, number: int) -> str:
    name = tokenizer.backend.id_to_token(int(number))
    assert name is not None
    return name


def _white_space_matters(tokenizer: TextTokenizer) -> bool:
    stripped, padded = tokenizer.encode_content([PADDED.strip(), PADDED])
    return stripped.tolist() != padded.tolist()
