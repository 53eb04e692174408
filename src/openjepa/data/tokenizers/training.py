"""Train a vocabulary on texts; the same texts give the same tokenizer, token for token.

The library's WordPiece trainer is not a function of the texts (it numbers the "##x" letters in the order of a hash map,
and ties between merges are broken by number), so we number them ourselves.

Different words get different ids in every script: nothing is folded but case, and Latin accents on request. BERT's
own normaliser would drop every combining mark, and with it the vowels of Hindi and Thai.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from openjepa.core.room import require_memory
from openjepa.data.tokenizers.text_tokenizer import SPECIALS, TextTokenizer, TokenizerConfig

BYTES_A_TOKEN = 72  # that the library reserves while it trains
FORMAT = 2  # of cached tokenizers; raise it when training changes
LARGEST_ALPHABET = 1000  # rarer characters become [UNK] in WordPiece
# control characters, but not those that separate words, nor the joiners that tell words of Persian and Sinhala apart
UNPRINTABLE = Regex(r"[\p{C}\x{FFFD}&&[^\t\n\r\x{200C}\x{200D}]]")
LATIN_ACCENTS = Regex(r"(?<=\p{Latin})[\x{0300}-\x{036F}]+")
# scripts without spaces: a run of letters is many words, and WordPiece gives up on "words" of over 100 characters
SPACELESS = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Hiragana}\p{Katakana}\x{30FC}"
SPACELESS_RUN = Regex(rf"(?:[{SPACELESS}]\p{{M}}*){{1,25}}")


def train_tokenizer(cfg: TokenizerConfig, texts: Iterable[str]) -> TextTokenizer:
    """Train a vocabulary of one of OWN_KINDS; `cfg.kind` unset is wordpiece. Raises UserError if it is too large."""
    if cfg.kind != "bytes":
        what = f"training a vocabulary of tokenizer.vocab_size={cfg.vocab_size}"
        require_memory(cfg.vocab_size * BYTES_A_TOKEN, what, "lower it; usual are 4,000 to 250,000")
    if cfg.kind in (None, "wordpiece"):
        return TextTokenizer(_train_wordpiece(cfg, list(texts)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate((*SPECIALS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    folding = [normalizers.Lowercase()] if cfg.lowercase else []
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), *folding, *_without_accents(cfg)])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cfg.kind == "bpe")
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


def _without_accents(cfg: TokenizerConfig) -> list[normalizers.Normalizer]:
    """The steps that fold the accents of Latin letters, if set; text is in NFC before and after."""
    if not cfg.strip_accents:
        return []
    return [normalizers.NFD(), normalizers.Replace(LATIN_ACCENTS, ""), normalizers.NFC()]


def _train_wordpiece(cfg: TokenizerConfig, texts: list[str]) -> Tokenizer:
    normalizer = word_normalizer(cfg)
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(normalizer.normalize_str(text))
    room = min(LARGEST_ALPHABET, (cfg.vocab_size - len(SPECIALS)) // 4)
    frequent = sorted((c for c in characters if not c.isspace()), key=lambda c: (-characters[c], c))[:room]
    alphabet = sorted(frequent)
    words = _word_splitter(alphabet)

    def tokenizer_of(model: models.Model) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = words
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        return tokenizer

    learner = tokenizer_of(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=cfg.vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIALS, *alphabet, *(f"##{c}" for c in alphabet)],  # numbered in this order
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    backend = tokenizer_of(models.WordPiece(vocab=learner.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    backend.add_special_tokens(list(SPECIALS))
    return backend


def word_normalizer(cfg: TokenizerConfig) -> normalizers.Normalizer:
    """BERT's normaliser, each Chinese character a separate word, but every mark is kept; ends in NFC."""
    bert = normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=cfg.lowercase)
    cleaned = [bert, normalizers.Replace(UNPRINTABLE, ""), normalizers.NFC()]
    return normalizers.Sequence([*cleaned, *_without_accents(cfg)])


def _word_splitter(alphabet: Iterable[str]) -> pre_tokenizers.PreTokenizer:
    """White space and punctuation separate words; runs of a script without spaces are cut, never before a mark."""
    bert = pre_tokenizers.BertPreTokenizer()
    cut = pre_tokenizers.Split(SPACELESS_RUN, "isolated")
    has_spaceless = any(cut.pre_tokenize_str(f"a{character}")[1:] for character in alphabet)
    return pre_tokenizers.Sequence([bert, cut]) if has_spaceless else bert
