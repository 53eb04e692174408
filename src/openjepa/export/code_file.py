"""The file of code that travels with an export where a plain tokenizer cannot do what the run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError
from openjepa.core.json_files import read_json
from openjepa.core.rundir import write_json
from openjepa.data.text import sentence_rules, sentence_spans
from openjepa.export.source import Source

MODULE = Path(__file__).with_name("marked_sentences.py")
CLASS = "MarkedSentences"
OURS = "from openjepa"  # imports that do not exist where the export is opened


def require_rules(source: Source) -> None:
    """Raises UserError if texts are split by another splitter than the built-in rules."""
    sentences = source.texts.sentences
    if sentences is not None and sentences.splitter != "rules":
        raise UserError(
            f"{source.name} splits texts by sentences.splitter={sentences.splitter}, which an export cannot carry; "
            "openjepa embed writes its vectors to a file"
        )


def add_sentence_marks(source: Source, folder: Path) -> None:
    """Make the first module of a sentence-transformers folder one that marks sentences, and put its code beside it."""
    sentences = source.texts.sentences
    assert sentences is not None
    files = [Path(str(module.__file__)) for module in (sentence_rules, sentence_spans)]
    (folder / MODULE.name).write_text(_one_file([*files, MODULE]), encoding="utf-8")
    _change(folder / "modules.json", lambda modules: modules[0].update(type=f"{MODULE.stem}.{CLASS}"))
    prefix, _ = source.wrapping
    settings = {"min_chars": sentences.min_chars, "max_chars": sentences.max_chars, "prefix": prefix}
    _change(folder / "sentence_bert_config.json", lambda config: config.update(settings))


def _one_file(files: list[Path]) -> str:
    """The sources one after the other, with imports of the future once at the head and none of each other."""
    future = "from __future__ import annotations\n"
    parts = []
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        parts.append("".join(line for line in lines if line != future and not line.startswith(OURS)))
    return f"{future}\n" + "\n\n".join(parts)


def _change(file: Path, change: Callable[[Any], None]) -> None:
    value = read_json(file)
    change(value)
    write_json(file, value)
