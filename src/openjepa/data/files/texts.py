"""Plain text, Markdown and HTML: lines of bounded length, and documents out of them.

A line longer than the limit is skipped without being held in memory, and counted: one line of 500 MB, or a compressed
file of nothing but NULs, is one count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from openjepa.data.files.discovery import Kind, head_of, open_bytes
from openjepa.data.files.records import UNUSABLE, Counts, ReaderOptions, Record

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

NOT_UTF8 = "mended: not UTF-8"
BLOCK = re.compile(
    "(?:address|article|aside|blockquote|br|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|"
    "footer|form|h[1-6]|header|hr|legend|li|main|nav|ol|option|p|pre|section|summary|table|tr|ul)$"
)  # HTML elements that begin and end a line
PARAGRAPH = re.compile("(?:blockquote|h[1-6]|hr|ol|p|pre|table|ul)$")  # those with a blank line around them
UNSEEN = ("script", "style", "noscript", "template", "title", "svg", "textarea", "select")  # no text of the page
FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.{0,65536}?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def raw_lines(stream: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """Lines with their ends; None for one of more than `limit` bytes."""
    while raw := stream.readline(limit + 1):
        if len(raw) <= limit or raw.endswith(b"\n"):
            yield raw
        else:
            while (more := stream.readline(2**20)) and not more.endswith(b"\n"):
                pass
            yield None


def text_lines(stream: BinaryIO, name: str, reading: ReaderOptions, counts: Counts) -> Iterator[tuple[int, str | None]]:
    """Numbered lines as text with their ends; None for one that is too long, which is counted.

    Bytes that are not UTF-8 become U+FFFD and are counted.
    """
    for number, raw in enumerate(raw_lines(stream, reading.max_bytes), start=1):
        origin = f"{name}:{number}"
        if raw is None:
            counts.add(reading.too_long("line"), origin)
            yield number, None
        else:
            yield number, decoded(raw, origin, counts, "utf-8-sig" if number == 1 else "utf-8")


def decoded(raw: bytes, origin: str, counts: Counts, encoding: str = "utf-8") -> str:
    """Bytes as text; what is not UTF-8 becomes U+FFFD and is counted."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        counts.add(NOT_UTF8, origin)
        return raw.decode(errors="replace")


def read_txt(file: Path, name: str, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """The documents of a plain text file, by `reading.txt`."""
    rule = reading.txt
    if rule == "files":
        yield _whole(file, name, reading, counts)
        return
    if rule == "auto":
        head = head_of(file).splitlines()
        blank = sum(not line.strip() for line in head)
        rule = "paragraphs" if blank * 20 >= len(head) else "lines"
    with open_bytes(file) as stream:
        read = paragraphs if rule == "paragraphs" else lines
        yield from read(stream, name, reading, counts)


def lines(stream: BinaryIO, name: str, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """A record a line, blank ones included."""
    for number, line in text_lines(stream, name, reading, counts):
        yield Record(UNUSABLE if line is None else line.rstrip("\r\n"), None, f"{name}:{number}")


def paragraphs(stream: BinaryIO, name: str, reading: ReaderOptions, counts: Counts) -> Iterator[Record]:
    """A record a paragraph: lines without a blank one between them."""
    paragraph: list[str] = []
    start = size = 0
    for number, line in text_lines(stream, name, reading, counts):
        if line is not None and not line.strip():
            if start:
                yield _paragraph(paragraph, f"{name}:{start}")
            paragraph = []
            start = 0
            size = 0
            continue
        start = start or number
        before = size
        size = size + len(line or "")
        if line is not None and size <= reading.max_bytes:
            paragraph.append(line.rstrip("\r\n"))
        elif before <= reading.max_bytes < size:
            counts.add(reading.too_long("paragraph"), f"{name}:{start}")
            paragraph.clear()
    if start:
        yield _paragraph(paragraph, f"{name}:{start}")


def _paragraph(paragraph: list[str], origin: str) -> Record:
    """The lines as one record; without any, they were too long, which is counted."""
    return Record("\n".join(paragraph) if paragraph else UNUSABLE, None, origin)


def _whole(file: Path, name: str, reading: ReaderOptions, counts: Counts) -> Record:
    raw = _content(file, name, reading, counts)
    if raw is None:
        return Record(UNUSABLE, None, name)
    lines = decoded(raw, name, counts, "utf-8-sig").split("\n")
    return Record("\n".join(line.rstrip("\r") for line in lines), None, name)


def _content(file: Path, name: str, reading: ReaderOptions, counts: Counts) -> bytes | None:
    """All of a file; None, counted, if it is longer than a line may be."""
    raw = head_of(file, reading.max_bytes + 1)
    if len(raw) <= reading.max_bytes:
        return raw
    counts.add(reading.too_long("file"), name)
    return None


def read_markup(file: Path, name: str, kind: Kind, reading: ReaderOptions, counts: Counts) -> Record:
    """The text of a Markdown or HTML file, without markup, links' addresses and scripts."""
    raw = _content(file, name, reading, counts)
    if raw is None:
        return Record(UNUSABLE, None, name)
    try:
        if kind == "markdown":
            return Record(markdown_text(decoded(raw, name, counts, "utf-8-sig")), None, name)
        return Record(html_text(_decoded_html(raw, name, counts)), None, name)
    except (RecursionError, AssertionError, ValueError):  # what the parsers raise on hostile input
        counts.add(f"file that is not readable {kind}", name)
        return Record(UNUSABLE, None, name)


def _decoded_html(raw: bytes, name: str, counts: Counts) -> str:
    """HTML as text: UTF-8, or else the encoding that it declares; with neither, a guess, which is counted."""
    from bs4.dammit import UnicodeDammit

    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        guess = UnicodeDammit(raw, is_html=True)
        if guess.declared_html_encoding is None or guess.contains_replacement_characters:
            counts.add(NOT_UTF8, name)
        return guess.unicode_markup or raw.decode(errors="replace")


def markdown_text(source: str) -> str:
    """CommonMark (and tables) as plain text, without YAML front matter."""
    from markdown_it import MarkdownIt

    found = FRONT_MATTER.match(source)
    if found and _is_yaml_mapping(found.group(1)):
        source = source[found.end() :]
    return html_text(MarkdownIt("commonmark").enable("table").render(source))


def _is_yaml_mapping(text: str) -> bool:
    import yaml

    try:
        return isinstance(yaml.safe_load(text), dict)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def html_text(source: str) -> str:
    """The text of an HTML page: a block element begins a new line, paragraphs are separated by a blank one."""
    from bs4 import BeautifulSoup

    return re.sub("[ \v\f]+", _line_break, "".join(_pieces(BeautifulSoup(source, "html.parser")))).strip()


def _pieces(soup: BeautifulSoup) -> Iterator[str]:
    """The page's texts in order; \\f stands for the end of a paragraph, \\v for that of a line."""
    from bs4.element import NavigableString, PreformattedString, Tag

    open_tags: list[tuple[str, Iterator[Any]]] = [("", iter(soup.contents))]  # a list, for pages of any depth
    preformatted = 0
    while open_tags:
        name, children = open_tags[-1]
        child = next(children, None)
        if child is None:
            open_tags.pop()
            preformatted -= name == "pre"
            yield _gap(name)
        elif isinstance(child, Tag) and child.name not in UNSEEN:
            open_tags.append((child.name, iter(child.contents)))
            preformatted += child.name == "pre"
            yield _gap(child.name)
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):  # no comment or the like
            yield str(child) if preformatted else re.sub(r"\s+", " ", child)


def _gap(name: str) -> str:
    """The separator before and after an element's text."""
    if PARAGRAPH.match(name):
        return "\f"
    return "\v" if BLOCK.match(name) else " " if name in ("td", "th") else ""


def _line_break(gap: re.Match[str]) -> str:
    found = gap.group()
    if "\f" in found:
        return "\n\n"
    return "\n" if "\v" in found else found
