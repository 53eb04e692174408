"""A retrieval data set in BEIR's layout (Thakur et al. 2021) as a search task.

    corpus.jsonl       {"_id", "title", "text"}     queries.jsonl    {"_id", "text"}
    qrels/test.tsv     query-id, corpus-id, score, separated by tabs; a header is skipped

As BEIR does, a document is its title and its text, only judged queries are used, a score above 0 means relevant, and a
document with the id of the query is no candidate for it. Unusable judgements (of unknown ids, given twice, queries
without a relevant document) are left out and counted; what cannot be read at all is a UserError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.core.tasks import Search
from openjepa.data.files.readers import Counts
from openjepa.tasks.sampling import drawn

LAYOUT = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"


def read_beir(folder: Path, name: str, split: str, limit: int, counts: Counts) -> Search:
    """The queries of a split, at most `limit` of them (0 = all), over the whole corpus.

    Raises UserError naming the file and line that cannot be read, or if no query has an answer.
    """
    judged = _judgements(folder / "qrels" / f"{split}.tsv", counts)
    documents = dict(_texts(folder / "corpus.jsonl", counts))
    queries = dict(_texts(folder / "queries.jsonl", counts))
    numbers = {id_: number for number, id_ in enumerate(documents)}
    answers: dict[str, dict[int, float]] = {}
    for query, scores in judged.items():
        if query not in queries:
            counts.add("judged query that is not in queries.jsonl", query)
            continue
        relevant = {}
        for document, score in scores.items():
            if document not in numbers:
                counts.add("judged document that is not in corpus.jsonl", document)
            elif score > 0 and document != query:
                relevant[numbers[document]] = score
        if relevant:
            answers[query] = relevant
        else:
            counts.add("judged query without an answer", query)
    if not answers or len(documents) < 2:
        raise UserError(f"{folder}: no query of qrels/{split}.tsv has an answer among two documents of corpus.jsonl")
    chosen = drawn(answers, limit, lambda query: query)
    return Search(
        name=name,
        queries=[queries[query] for query in chosen],
        documents=list(documents.values()),
        gains=[answers[query] for query in chosen],
        left_out={number: numbers[query] for number, query in enumerate(chosen) if query in numbers},
    )


def _texts(file: Path, counts: Counts) -> Iterator[tuple[str, str]]:
    """(id, title and text) of each row; the first one of an id, and none without words."""
    seen: set[str] = set()
    for origin, line in _lines(file):
        try:
            row = json.loads(line)
            id_ = str(row["_id"])
            text = " ".join(str(row.get(key) or "") for key in ("title", "text")).strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{origin} is no JSON object with _id and text") from None
        if id_ in seen:
            counts.add(f"id given twice in {file.name}", origin)
        elif not text:
            counts.add(f"row without a text in {file.name}", origin)
        else:
            seen.add(id_)
            yield id_, text


def _judgements(file: Path, counts: Counts) -> dict[str, dict[str, float]]:
    """Query -> document -> score; the first one where a pair is judged twice."""
    judged: dict[str, dict[str, float]] = {}
    for number, (origin, line) in enumerate(_lines(file)):
        try:
            query, document, score = line.rstrip("\r\n").split("\t")
            value = float(score)
        except ValueError:
            if number == 0:  # the header
                continue
            raise UserError(f"{origin} must be query-id, corpus-id and a score, separated by tabs") from None
        if document in judged.setdefault(query, {}):
            counts.add("pair judged twice", origin)
        else:
            judged[query][document] = value
    return judged


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with its origin."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{file}:{number}", line
    except FileNotFoundError:
        raise UserError(f"there is no {file}; {LAYOUT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None
