"""Why nothing is held out, with an advice that works; and copies of a document, counted or dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from openjepa.core.errors import ConfigError, UserError
from openjepa.data.text.corpus import TokenizedCorpus
from openjepa.data.text.rows import RowMaker, SentenceRows, TextRows
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.text.sources import Counts, DataConfig, documents, held_out_texts
from openjepa.data.text.streaming import StreamedCorpus
from openjepa.data.tokenizers.choice import TokenizerConfig, load_or_train


def write(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def maker(assets: Path, sentences: bool = False) -> RowMaker:
    data = DataConfig(documents=50)
    tokenizer = load_or_train(TokenizerConfig(kind="bytes", vocab_size=300), data, assets)
    return SentenceRows(tokenizer, SentencesConfig(), 64) if sentences else TextRows(tokenizer, 64)


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        ask()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_few_or_equal_documents_are_told_how_many_are_needed(tmp_path: Path, streaming: bool) -> None:
    rows = maker(tmp_path / "assets")
    dups = write(tmp_path / "dups.txt", [f"sentence number {i % 5} about trains and winter snow" for i in range(500)])
    cfg = DataConfig(source=dups, streaming=streaming, eval_fraction=0.05)
    message = refusal(lambda: len(TokenizedCorpus(cfg, rows)))
    assert "holds out none of 500 documents, of which only 5 are different; give at least 20 different ones" in message
    assert refusal(lambda: held_out_texts(cfg, 3)) == message
    three = write(tmp_path / "three.txt", [f"document {i} about trains and snow" for i in range(3)])
    message = refusal(lambda: len(TokenizedCorpus(DataConfig(source=three, eval_fraction=0.02), rows)))
    assert "data.eval_fraction=0.02 holds out none of 3 documents; give at least 20" in message


@pytest.mark.parametrize("count", [20, 40, 300])
def test_the_fraction_that_is_suggested_holds_out_a_document(tmp_path: Path, count: int) -> None:
    rows = maker(tmp_path / "assets")
    source = write(tmp_path / "a.txt", [f"document {i} about trains and snow" for i in range(count)] * 2)
    message = refusal(lambda: len(TokenizedCorpus(DataConfig(source=source, eval_fraction=1e-6), rows)))
    found = re.search(r"data\.eval_fraction=([\d.]+) would hold out (\d+)", message)
    assert found is not None
    assert len(found.group(1)) < 9
    cfg = DataConfig(source=source, eval_fraction=float(found.group(1)))
    assert len({document.text for document in held_out_texts(cfg, 1000)}) == int(found.group(2)) > 0
    assert len(TokenizedCorpus(cfg, rows, "eval")) == 2 * int(found.group(2))


def test_documents_of_one_sentence_are_named_as_the_cause(tmp_path: Path) -> None:
    rows = maker(tmp_path / "assets", sentences=True)
    titles = [f"Late trains in winter number {i}" for i in range(500)]
    cfg = DataConfig(source=write(tmp_path / "a.txt", titles), eval_fraction=0.5)
    message = refusal(lambda: len(TokenizedCorpus(cfg, rows)))
    assert "every document is one sentence" in message
    assert "eval_fraction" not in message
    mixed = [*titles, *(f"One sentence here, number {i}. Another one follows it here." for i in range(3))]
    cfg = DataConfig(source=write(tmp_path / "b.txt", mixed), eval_fraction=0.05)
    message = refusal(lambda: len(TokenizedCorpus(cfg, rows)))
    assert "none of 3 documents (others cannot be used: 500 x document of one sentence); give at least 20" in message
    short = DataConfig(source=write(tmp_path / "c.txt", ["a b"] * 30), eval_fraction=0.5)
    assert "every document is too short" in refusal(lambda: len(TokenizedCorpus(short, maker(tmp_path / "assets"))))


def test_all_held_out_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", [f"document {i} about trains and snow" for i in range(3)])
    cfg = DataConfig(source=source, eval_fraction=0.999999)
    message = refusal(lambda: len(TokenizedCorpus(cfg, maker(tmp_path / "assets"))))
    assert "holds out every one of 3 documents; lower it" in message


def test_copies_are_counted_and_dropped_on_request(tmp_path: Path) -> None:
    lines = [f"Document number {i % 120}" for i in range(480)]
    lines[200] = lines[200].upper().replace(" ", "   ")  # case and white space make no other document
    cfg = DataConfig(source=write(tmp_path / "a.txt", lines))
    counts = Counts()
    assert len(list(documents(cfg, counts=counts))) == 480
    assert counts == {"documents": 480, "copies of an earlier document": 360}
    assert counts.first["copies of an earlier document"] == "a.txt:121"

    dropping = cfg.model_copy(update={"drop_duplicates": True})
    counts = Counts()
    assert [document.text for document in documents(dropping, counts=counts)] == lines[:120]
    assert counts == {"documents": 120, "dropped as copies of an earlier document": 360}
    split = [document.text for kind in ("train", "eval") for document in documents(dropping, kind)]
    assert sorted(split) == sorted(lines[:120])
    first = dropping.model_copy(update={"documents": 100})
    assert [document.text for document in documents(first)] == lines[:100]

    rows = maker(tmp_path / "assets")
    kept, dropped = TokenizedCorpus(cfg, rows), TokenizedCorpus(dropping, rows)
    assert (len(kept), kept.counts["copies of an earlier document"]) == (4 * len(dropped), 360)


def test_where_training_streams_copies_are_not_remembered(tmp_path: Path) -> None:
    lines = [f"document number {i % 30} of many" for i in range(300)]
    cfg = DataConfig(source=write(tmp_path / "a.txt", lines), streaming=True, eval_fraction=0.3, shuffle_window=40)
    counts = Counts()
    assert len(list(documents(cfg, counts=counts))) == 300
    assert counts == {"documents": 300}
    stream = StreamedCorpus(cfg, maker(tmp_path / "assets"))
    assert sum(len(window.rows) for window in stream.windows()) == len(list(documents(cfg, "train")))
    with pytest.raises(ConfigError, match="drop_duplicates remembers every document"):
        DataConfig.load({"source": cfg.source, "streaming": True, "drop_duplicates": True})
    assert DataConfig.load({"streaming": True, "drop_duplicates": True, "documents": 10}).drop_duplicates
