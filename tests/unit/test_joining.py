"""Line corpora become documents: articles by their headings, wherever reading starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from openjepa.core.errors import UserError
from openjepa.data.files.records import Counts
from openjepa.data.text.joining import BEFORE, DIVIDED, HEADING, JOINED
from openjepa.data.text.sources import DataConfig, documents

LINES = (
    "= Robert Boulter =",
    "",
    "Robert Boulter is an actor . He had a role .",
    "He had another role .",
    "",
    "= = Career = =",
    "",
    "In 2006 he played a part .",
    "",
    "= Du Fu =",
    "",
    "Du Fu was a poet .",
)
WIKI = "".join(f" {line} \n" for line in LINES)  # as WikiText has them


@pytest.fixture
def wiki(tmp_path: Path) -> DataConfig:
    (tmp_path / "wiki.txt").write_text(WIKI)
    return DataConfig(source=str(tmp_path / "wiki.txt"), txt="lines", join="headings")


def test_articles_are_their_paragraphs(wiki: DataConfig) -> None:
    counts = Counts()
    found = list(documents(wiki, counts=counts))
    assert [document.text for document in found] == [
        "Robert Boulter\n\nRobert Boulter is an actor . He had a role .\n\nHe had another role .\n\n= = Career = =\n\n"
        "In 2006 he played a part .",
        "Du Fu\n\nDu Fu was a poet .",
    ]
    assert (counts["documents"], counts[JOINED], counts[BEFORE]) == (2, 7, 0)


def test_reading_from_an_article_gives_the_rest(wiki: DataConfig) -> None:
    found = list(documents(wiki))
    assert list(documents(wiki, start=found[1].position)) == found[1:]


@pytest.mark.parametrize("line", ["= A title =", " = A title = ", "# A title", "  #  A title "])
def test_headings(line: str) -> None:
    match = HEADING.fullmatch(line)
    assert match is not None
    assert (match[1] or match[2]) == "A title"


@pytest.mark.parametrize("line", ["= = Section = =", "== Section ==", "## Section", "a = b", "#hashtag", "= x", ""])
def test_what_is_no_heading(line: str) -> None:
    assert HEADING.fullmatch(line) is None


def test_text_before_the_first_heading_is_counted_and_no_heading_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a stray line\n# One\nfirst words here\n")
    counts = Counts()
    cfg = DataConfig(source=str(file), txt="lines", join="headings")
    assert [document.text for document in documents(cfg, counts=counts)] == ["One\n\nfirst words here"]
    assert counts[BEFORE] == 1
    file.write_text("no heading\nat all\n")
    with pytest.raises(UserError, match=r"data\.join=headings: there is no line"):
        list(documents(cfg))


def test_an_endless_article_is_divided(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    line = "word " * 2000
    file.write_text("# One\n" + f"{line}\n" * 300)
    counts = Counts()
    cfg = DataConfig(source=str(file), txt="lines", join="headings", max_line_mb=1)
    found = list(documents(cfg, counts=counts))
    assert len(found) == 3
    assert counts[DIVIDED] == 2
    assert sum(document.text.count("word") for document in found) == 600_000
