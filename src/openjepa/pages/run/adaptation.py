"""The section of an adapted encoder: what was kept and why, what was measured, and what that can and cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from openjepa.pages.parts.document import number, table

KEPT = {
    "start": "The encoder was kept as it was",
    "whitening": "Kept: whitening within documents",
    "predictor": "Kept: whitening within documents, and a predictor of the document for queries",
}


def adaptation(found: Mapping[str, Any]) -> str:
    """The section, from what `openjepa adapt` wrote."""
    decision = found["decision"]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision["reasons"])
    parts = [
        f"<p><b>{KEPT[decision['kept']]}.</b></p><ul>{reasons}</ul>",
        _documents(found),
        _held_out(found["held_out"]),
        _guard(found.get("guard")),
    ]
    return "".join(parts)


def _documents(found: Mapping[str, Any]) -> str:
    rows = [
        ["base", escape(str(found["base"]))],
        ["documents", f"{found['documents']:,}, of which {found['documents_of_one_part']:,} have one part"],
        ["parts", f"{found['parts']:,}"],
        ["effective rank within documents", f"{number(found['effective_rank'], 1)} of {found['dim']} dimensions"],
        ["cohesion of documents (0 = none)", number(found["cohesion"])],
        ["seconds", number(found["seconds"], 0)],
    ]
    return table(["", ""], rows, "documents")


def _held_out(evidence: Mapping[str, Mapping[str, Any]]) -> str:
    if not evidence:
        return "<p>Nothing was compared on held-out documents.</p>"
    rows = [
        [escape(name), number(one["part_finds_rest"]), number(one["first_finds_rest"]), number(one["neighbours_kept"])]
        for name, one in evidence.items()
    ]
    head = ["on held-out documents", "part finds the rest (MRR)", "first part does (MRR)", "neighbours kept"]
    return table(head, rows, "held-out documents") + (
        "<p>A part asks for one document, a searcher for a topic: on judged collections these measures fell where "
        "search became better. They show that maps carry over to documents they were not fitted to, no more.</p>"
    )


def _guard(guard: Mapping[str, Any] | None) -> str:
    if guard is None:
        return "<p>No guard was given: nothing judged by people was measured.</p>"
    return "<p>Guarded measures, start to result:</p><ul>" + "".join(
        f"<li>{escape(line)}</li>" for line in guard["lines"]
    ) + "</ul>"  # fmt: skip
