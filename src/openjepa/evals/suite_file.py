"""Evaluation suites: tasks in a YAML file, the same for every run of any recipe.

    name: english                      # default: the name of the file; results go to evals/<name>.json
    tasks:
      - {kind: sts, name: stsb, file: stsb-dev.jsonl}
      - {kind: triplets, name: paraphrases, file: triplets.jsonl}
      - {kind: alignment, name: answers, file: questions.jsonl}
      - {kind: probe, name: sst2, train: sst2/train.jsonl, test: sst2/test.jsonl, train_limit: 3000}
      - {kind: retrieval, name: scifact, folder: scifact}
      - {kind: hidden_sentence, name: wiki, source: wiki.parquet, documents: 500}
      - {kind: mteb, task: Banking77Classification}

Paths are relative to the file. All entries are validated before data is read, and all data is read before embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from openjepa.core.config import BaseConfig
from openjepa.core.errors import ConfigError, UserError
from openjepa.core.tasks import Task
from openjepa.core.values import read_yaml
from openjepa.data.files.discovery import files_behind
from openjepa.data.files.records import Counts, TxtRule
from openjepa.data.loading.cache import file_versions
from openjepa.data.text.sentences import SentencesConfig
from openjepa.data.text.sources import DataConfig, documents, source_kind
from openjepa.evals.mteb import mteb_task
from openjepa.evals.similarity import read_alignment_jsonl, read_similarity, read_triplets_jsonl
from openjepa.tasks.beir import read_beir
from openjepa.tasks.labelled import Columns, read_classification
from openjepa.tasks.missing_sentence import hidden_sentence_tasks

TAKEN = ("default", "study", "sweep")  # names of other files in a run's evals/
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]


class TextLines(BaseConfig):
    """Texts to compare, one group in each line of a file."""

    name: Name
    file: Path
    """JSON lines; rated pairs also as .csv or .tsv"""
    read: ClassVar[Callable[[Path, str], Task]]

    def tasks(self, folder: Path, counts: Counts) -> list[Task]:
        return [type(self).read(_existing(folder, self.file), self.name)]


class Sts(TextLines):
    """Rated pairs of sentences: Spearman's correlation of cosines with the ratings.

    JSON lines (or a .csv or .tsv) of sentence1, sentence2, score; or the STS benchmark's .csv files.
    """

    kind: Literal["sts"]
    read = staticmethod(read_similarity)


class TripletFile(TextLines):
    """Triplets: share of anchors nearer to the positive than to the negative. Lines of anchor, positive, negative."""

    kind: Literal["triplets"]
    read = staticmethod(read_triplets_jsonl)


class Alignment(TextLines):
    """Texts that belong together: the first has to retrieve its second among 100. Lines of first, second."""

    kind: Literal["alignment"]
    read = staticmethod(read_alignment_jsonl)


class Probe(BaseConfig):
    """Labelled texts: k-NN and logistic probes are fitted on train and evaluated on test."""

    kind: Literal["probe"]
    name: Name
    train: Path
    """a file with both columns (.jsonl, .csv, .tsv, .parquet, ...), or a folder of them"""
    test: Path | None = None
    """the same; unset = a part of train, see test_fraction"""
    text: str = "text"
    """key or column of the text"""
    label: str = "label"
    """key or column of the label"""
    ignore_labels: tuple[str, ...] = ()
    """labels that are left out"""
    train_limit: int = Field(0, ge=0)
    """training texts, drawn by their hash; 0 = all"""
    test_limit: int = Field(0, ge=0)
    """test texts, drawn by their hash; 0 = all"""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """without test: share of the texts of train to test on; includes those held out by a smaller data.eval_fraction"""

    def tasks(self, folder: Path, counts: Counts) -> list[Task]:
        columns = Columns(self.text, self.label, self.ignore_labels)
        train = _existing(folder, self.train)
        test = self.test and _existing(folder, self.test)
        limits = (self.train_limit, self.test_limit)
        return [read_classification(self.name, train, test, columns, limits, self.test_fraction, counts)]


class Search(BaseConfig):
    """Queries and documents in BEIR's layout: nDCG@10 and recall@10, with TF-IDF and BM25 as baselines."""

    kind: Literal["retrieval"]
    name: Name
    folder: Path
    """holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"""
    split: str = "test"
    """which judgements are used"""
    queries: int = Field(0, ge=0)
    """queries to evaluate, drawn by the hash of their ids; 0 = all that are judged"""

    def tasks(self, folder: Path, counts: Counts) -> list[Task]:
        return [read_beir(_existing(folder, self.folder), self.name, self.split, self.queries, counts)]


class HiddenSentence(BaseConfig):
    """Documents: the embedding of all sentences but one has to retrieve that one, within the document and elsewhere."""

    kind: Literal["hidden_sentence"]
    name: Name
    source: str
    """what data.source of a text recipe takes: a file, a folder, a glob, a hub data set"""
    column: str = "text"
    """column or key of the text"""
    txt: TxtRule = "auto"
    """what a document of a .txt file is"""
    documents: int = Field(500, ge=0)
    """documents to use, drawn by their hash; 0 = all"""
    sentences: int = Field(8, ge=3)
    """only this many first sentences of a document are used: an encoder may not read further"""
    held_out: float | None = Field(None, gt=0, lt=1)
    """only documents that runs with this data.eval_fraction were not trained on; unset = all"""
    splitter: str = "rules"
    """as sentences.splitter of lang_jepa"""

    def local(self, folder: Path) -> Path | None:
        """The files behind the source; None for a hub data set and the story world."""
        path = folder / Path(self.source).expanduser()
        return path if path.exists() or source_kind(self.source)[0] == "files" else None

    def data(self, folder: Path) -> DataConfig:
        """Raises UserError if there are no such files."""
        local = self.local(folder)
        if local is not None and not files_behind(local):
            raise UserError(f"there is no file or folder at {local}")
        values = {"source": str(local or self.source), "column": self.column, "txt": self.txt}
        return DataConfig.load(values if self.held_out is None else values | {"eval_fraction": self.held_out})

    def tasks(self, folder: Path, counts: Counts) -> list[Task]:
        dropped = Counts()
        config = SentencesConfig(splitter=self.splitter)
        split = "all" if self.held_out is None else "eval"
        texts = (document.text for document in documents(self.data(folder), split, dropped))
        tasks = hidden_sentence_tasks(self.name, texts, self.documents, self.sentences, config, counts)
        counts.update({reason: count for reason, count in dropped.items() if reason != "documents"})
        return [*tasks]


class Mteb(BaseConfig):
    """A task of the mteb package, if that is installed: its main score."""

    kind: Literal["mteb"]
    task: str
    """its name in mteb"""
    name: Name = ""
    """default: the task"""

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_task(cls, value: Any) -> Any:
        return {"name": value.get("task"), **value} if isinstance(value, Mapping) else value

    def tasks(self, folder: Path, counts: Counts) -> list[Task]:
        return [mteb_task(self.task, self.name)]


def _kind(entry: Any) -> str | None:
    kind = entry.get("kind") if isinstance(entry, Mapping) else getattr(entry, "kind", None)
    return None if kind is None else str(kind)


KINDS = ("sts", "probe", "retrieval", "hidden_sentence", "triplets", "alignment", "mteb")
Kind = (
    Annotated[Sts, Tag("sts")]
    | Annotated[Probe, Tag("probe")]
    | Annotated[Search, Tag("retrieval")]
    | Annotated[HiddenSentence, Tag("hidden_sentence")]
    | Annotated[TripletFile, Tag("triplets")]
    | Annotated[Alignment, Tag("alignment")]
    | Annotated[Mteb, Tag("mteb")]
)
UNKNOWN_KIND = f"kind must be one of {', '.join(KINDS)}"
Entry = Annotated[Kind, Discriminator(_kind, custom_error_type="kind", custom_error_message=UNKNOWN_KIND)]


class SuiteConfig(BaseConfig):
    """The content of a suite file."""

    name: Name = "suite"
    tasks: tuple[Entry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [entry.name for entry in self.tasks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"tasks share a name: {', '.join(sorted(twice))}")
        if self.name in TAKEN:
            raise ValueError(f"a suite cannot be named {self.name}: evals/{self.name}.json has another meaning")
        return self


@dataclass(frozen=True)
class Suite:
    """A valid suite file. Its data is read on first use."""

    path: Path
    config: SuiteConfig

    @classmethod
    def open(cls, path: str | Path) -> Suite:
        """Raises UserError naming the file and the key that is wrong."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"there is no suite file at {path}")
        values = {"name": path.stem, **read_yaml(path)}
        try:
            return cls(path, SuiteConfig.load(values))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @property
    def name(self) -> str:
        return self.config.name

    @cached_property
    def key(self) -> str:
        """Changes with the settings and with size or date of any file that is read: results belong to a key."""
        files = [file_versions(files_behind(path)) for path in self._paths()]
        content = json.dumps([self.config.model_dump(mode="json", exclude={"name"}), files])
        return hashlib.blake2b(content.encode(), digest_size=4).hexdigest()

    @cached_property
    def groups(self) -> dict[str, list[Task]]:
        """The tasks of each entry, by its name. Raises UserError naming the file and the entry."""
        return {name: tasks for name, (tasks, _) in self._read.items()}

    @cached_property
    def notes(self) -> dict[str, int]:
        """Counts of what was left out or is irregular, by "<entry>: <reason>"."""
        return {f"{name}: {reason}": n for name, (_, counts) in self._read.items() for reason, n in counts.items()}

    @property
    def remarks(self) -> list[str]:
        """The notes as readable lines."""
        return [f"{self.name}: {count} x {reason}" for reason, count in self.notes.items()]

    @cached_property
    def _read(self) -> dict[str, tuple[list[Task], Counts]]:
        found = {}
        for entry in self.config.tasks:
            counts = Counts()
            try:
                found[entry.name] = entry.tasks(self.path.parent, counts), counts
            except UserError as error:
                raise UserError(f"{self.path}, task {entry.name}: {error}") from None
        return found

    def _paths(self) -> list[Path]:
        """Files and folders that entries name."""
        folder = self.path.parent
        entries = self.config.tasks
        named = [value for entry in entries for value in vars(entry).values() if isinstance(value, Path)]
        sources = [entry.local(folder) for entry in entries if isinstance(entry, HiddenSentence)]
        return [*(folder / path.expanduser() for path in named), *(path for path in sources if path is not None)]


def _existing(folder: Path, name: Path) -> Path:
    path = folder / name.expanduser()
    if not path.exists():
        raise UserError(f"there is no file or folder at {path}")
    return path
