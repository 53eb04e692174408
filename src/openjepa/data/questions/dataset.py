"""Questions with their answers: the data of recipes that predict the latent of an answer from its question.

`questions(cfg, split)` reads one source of any kind as clean `Question`s:

    arithmetic                  the offline synthetic world: no file, no network
    train.jsonl qa/ 'a/*.gz'    JSON, CSV, Parquet, ... (see `files`) with a column each: a file, a folder or a pattern
    owner/name  hub:name:config a data set of the Hugging Face hub, e.g. openai/gsm8k:main

The schema is that of GSM8K: a worked solution ends in `#### 72`, and `answer: final` keeps only the 72. The hash of a
question's words decides what is held out, as for texts (`held_out.is_held_out`); the world has splits of its own.
Unlike texts, questions are few and small, so they are a list in memory: 50,000 of the world take 3 s and 20 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from openjepa.core.config import BaseConfig
from openjepa.core.errors import UserError
from openjepa.data.files.discovery import WITHOUT_COLUMNS, extension, find_files, kind_of
from openjepa.data.files.readers import Counts, Hints, ReaderOptions, Record, hub_shards, read_files
from openjepa.data.loading.held_out import is_held_out, nothing_held_out, nothing_to_train_on
from openjepa.data.questions.numbers import plain_number
from openjepa.data.text.sources import clean_text, nothing_usable, source_kind
from openjepa.data.worlds import arithmetic

Split = Literal["train", "eval"]
WORLD = "arithmetic"
WORLD_SEED = 0  # of the problems; a run's seed varies the model and the order, not the data
KEPT = "questions"
FINAL = "####"  # GSM8K's mark before the final answer
REWRITTEN = "mended: answer in plain digits"
HINTS = Hints(column="data.question_column", label="data.answer_column", world=WORLD)


class QuestionConfig(BaseConfig):
    """Section `data` of a question-answer recipe. A plain string stands for `source`."""

    LOCATIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"source": (WORLD,)}

    SHORTHAND = "source"
    FIRST = ("source", "question_column", "answer_column", "answer", "documents")

    source: str = Field(WORLD, min_length=1)
    """arithmetic (a synthetic world), a file, folder or glob, or hub owner/name[:config]; files have a column
    each: .jsonl, .ndjson, .json, .csv, .tsv (all also as .gz or .zst), .parquet, .arrow, .feather, .xlsx; a folder may
    also be one of save_to_disk"""
    question_column: str = "question"
    """column or JSON key of the question; dotted for one within another"""
    answer_column: str = "answer"
    """column or JSON key of the answer; dotted for one within another"""
    answer: Literal["final", "worked"] = "final"
    """worked = the answer as it is; final = what follows its ####; without one, all of it; a number in plain digits:
    $1,080.00 becomes 1080"""
    split: str = "train"
    """split to read of a hub data set, or of a folder that DatasetDict.save_to_disk wrote"""
    documents: int = Field(0, ge=0)
    """questions to take from the start of the source, 0 = all of them (of arithmetic: world_documents); only usable
    ones count, held-out ones included"""
    world_documents: int = Field(100_000, ge=1)
    """how many questions arithmetic has where `documents` is 0; not used for other sources"""
    eval_fraction: float = Field(0.05, gt=0, lt=1)
    """share of the questions held out from training, chosen by their content"""

    @property
    def synthetic(self) -> bool:
        """Whether the questions are generated: a tokenizer trained on them knows few of the words that people use."""
        return self.source.strip() == WORLD


@dataclass(frozen=True)
class Question:
    """One usable question and its answer, both non-empty."""

    question: str
    answer: str
    id: str  # where it came from: "train.jsonl:17" (line), "a.parquet:3" (row), "owner/name:3", "arithmetic:train:12"


def questions(cfg: QuestionConfig, split: Split = "train", counts: Counts | None = None) -> list[Question]:
    """The usable questions of a split, in the source's order; `eval` of the world is its `test` split.

    `counts` is filled while reading: kept questions of both splits, and rows mended or dropped, by reason.
    Raises UserError if the source cannot be read, or holds no usable question of this split.
    """
    counts = Counts() if counts is None else counts
    if _kind(cfg) == "world":
        return _from_world(cfg, "train" if split == "train" else "test", counts)
    usable = list(_usable(cfg, counts))
    if not usable:
        raise nothing_usable(cfg.source, f"question ({HINTS.column}, {HINTS.label})", counts)
    found = [row for row in usable if is_held_out(row.question, cfg.eval_fraction) == (split == "eval")]
    if not found and split == "eval":
        raise nothing_held_out(cfg.source, cfg.eval_fraction, (row.question for row in usable), {}, "question")
    if not found:
        raise nothing_to_train_on(cfg.source, cfg.eval_fraction, len(usable), "question")
    return found


def held_out_splits(cfg: QuestionConfig) -> dict[str, list[Question]]:
    """Questions that training never sees, by what is new: `test`; of the world also `templates` and `numbers`."""
    if _kind(cfg) != "world":
        return {"test": questions(cfg, "eval")}
    return {split: _from_world(cfg, split, Counts()) for split in arithmetic.SPLITS if split != "train"}


def final_answer(answer: str) -> str:
    """What follows the last ####, or all of it without ####, trimmed; a number in plain digits (`plain_number`)."""
    found = _after_mark(answer)
    return plain_number(found) or found


def _after_mark(answer: str) -> str:
    return answer.rpartition(FINAL)[2].strip()


def _kind(cfg: QuestionConfig) -> str:
    return source_kind(cfg.source, WORLD)[0]


def _from_world(cfg: QuestionConfig, split: arithmetic.Split, counts: Counts) -> list[Question]:
    total = cfg.documents or cfg.world_documents
    held_out = max(1, round(total * cfg.eval_fraction))
    size = max(1, total - held_out) if split == "train" else held_out
    world = arithmetic.Arithmetic(split, size, WORLD_SEED)
    found = []
    for index in range(size):
        problem = world[index]
        answer = str(problem.value) if cfg.answer == "final" else problem.answer
        found.append(Question(problem.question, answer, f"{WORLD}:{split}:{index}"))
        counts.add(KEPT, found[-1].id)
    return found


def _usable(cfg: QuestionConfig, counts: Counts) -> Iterator[Question]:
    """Clean rows of files or the hub, `cfg.documents` of them at most."""
    rows = (_clean(record, cfg.answer, counts) for record in _records(cfg, counts))
    for row in islice((row for row in rows if row), cfg.documents or None):
        counts.add(KEPT, row.id)
        yield row


def _records(cfg: QuestionConfig, counts: Counts) -> Iterator[Record]:
    """Rows with the question as the text and the answer as the label."""
    columns = (cfg.question_column, cfg.answer_column)
    kind, location = source_kind(cfg.source, WORLD)
    if kind == "hub":
        name, _, config = location.partition(":")
        (read,) = hub_shards(name, config or None, cfg.split, False, *columns, HINTS)
        return read(0)
    files = find_files(location, counts, HINTS, cfg.split)
    tables = [file for file in files if kind_of(file) not in WITHOUT_COLUMNS]
    for file in files:
        if kind_of(file) in WITHOUT_COLUMNS:
            counts.add("file without columns", str(file))
    if not tables:
        kinds = ", ".join(sorted({extension(file) for file in files}))
        raise UserError(
            f"data.source {location} has only {kinds} files; questions and answers need columns: .jsonl, .csv, .parquet"
        )
    root = Path(location).expanduser()
    return read_files(tables, ReaderOptions(*columns, hints=HINTS, root=root if root.is_dir() else None), counts)


def _clean(record: Record, answer: Literal["final", "worked"], counts: Counts) -> Question | None:
    """The row as a Question, or None with the reason counted."""
    texts = []
    for name, value in (("question", record.value), ("answer", record.label)):
        text = clean_text(value, name, record.origin, counts)
        if text is None:
            return None
        if not text:
            counts.add(f"{name} is missing or empty", record.origin)
            return None
        texts.append(text)
    if answer == "final":
        written = _after_mark(texts[1])
        texts[1] = final_answer(texts[1])
        if written != texts[1]:
            counts.add(REWRITTEN, record.origin)
        if not texts[1]:
            counts.add(f"answer has nothing after {FINAL}", record.origin)
            return None
    return Question(*texts, record.origin)
