"""The verbs `index` and `search`: documents by a run's vectors, their best sentence and their words."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjepa.cli.arguments import words_of
from openjepa.cli.compute import Device, ModelPrecision, TrustCode
from openjepa.cli.output import AsJson, print_json, remark, stderr, stdout
from openjepa.cli.progress import documents_in, row_progress
from openjepa.core.errors import UserError

if TYPE_CHECKING:
    from openjepa.retrieval.weights import ChosenWeights

SHOWN = 300  # characters of a reason


def index(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="RUN|KEY=VALUE", help="A run folder, and data=...")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the index; new documents are added to it.")],
    judged: Annotated[
        Path | None,
        typer.Option("--judged", help="A BEIR folder of judged queries, by which the weights of search are chosen."),
    ] = None,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Put documents into a search index. The same command adds new ones later, or goes on after a stop.

    Documents are read like data.source in training; title=COLUMN names titles, parts=paragraphs splits by blank lines.
    A document of the same words as one in the index is not added again. OUT/documents.npy holds their vectors, of unit
    length, for NumPy, FAISS or sqlite-vec.

    Examples:
      openjepa index runs/adapted data=my_docs/ --out my.index
      openjepa search my.index "Where is my parcel?"
    """
    from openjepa import api
    from openjepa.data.files.records import counts_line

    run, overrides = words_of(context, words)
    if run is None:
        raise UserError("give a run folder (openjepa index runs/adapted data=my_docs/ --out my.index)")
    opened = api.load(run, device, precision).for_bulk()[0]
    with row_progress(stderr(), "documents", partial(documents_in, overrides)) as progress:
        added = api.build_index(opened, out=out, overrides=overrides, on_documents=progress.add)
    remark("data: " + counts_line(added.counts))
    chosen = None if judged is None else api.choose_weights(api.open_index(out, device, precision, trust_code), judged)
    if as_json:
        print_json(added.to_json() | ({} if chosen is None else {"weights": chosen.to_json()}))
        return
    there = f", {added.there:,} were in it already" if added.there else ""
    sentences = f"{added.sentences:,} sentences"
    print(f"{added.added:,} documents added{there}; {out} holds {added.documents:,} documents, {sentences}")
    if chosen is not None:
        print_weights(chosen)


def print_weights(chosen: ChosenWeights) -> None:
    """Print what the judged queries say of the weights of search."""
    best = chosen.best_weights
    left_out = f" ({chosen.left_out} more have no answer in the index)" if chosen.left_out else ""
    print(f"{chosen.queries} judged queries{left_out}: nDCG@10 {chosen.defaults:.3f} with the default weights")
    gain = "95 % of the gain {:+.3f} to {:+.3f}".format(*chosen.gain)
    print(f"  best: --sentence {best.sentence:g} --words {best.words:g}: {chosen.best:.3f} ({gain})")
    print("  kept: the best" if chosen.changed else "  kept: the defaults, than which none is clearly better")


def search(
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="The folder of an index.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is asked, in quotes.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Documents to show.")] = 5,
    document: Annotated[
        float | None, typer.Option("--document", min=0, help="Weight of the document's vector; unset = the index's.")
    ] = None,
    sentence: Annotated[
        float | None, typer.Option("--sentence", min=0, help="Weight of its nearest sentence; likewise.")
    ] = None,
    words: Annotated[
        float | None, typer.Option("--words", min=0, help="Weight of the words it shares (TF-IDF); likewise.")
    ] = None,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Search an index, exactly. Each hit shows its nearest sentence, and what each part adds to its score.

    Example:  openjepa search my.index "Where is my parcel?" --top 3
    """
    from openjepa import api

    opened = api.open_index(path, device, precision, trust_code)
    given = {"document": document, "sentence": sentence, "words": words}
    weights = replace(opened.weights, **{name: value for name, value in given.items() if value is not None})
    hits = opened.search(query, top, weights)
    if as_json:
        print_json({"query": query, "hits": [hit.to_json() for hit in hits]})
        return
    for rank, hit in enumerate(hits, start=1):
        shares = ", ".join(f"{name} {share:.2f}" for name, share in hit.shares.items())
        stdout().print(f"{rank}. {hit.id}  {hit.score:.2f} ({shares})", soft_wrap=True, markup=False)
        shown = " ".join((hit.reason or hit.text).split())
        cut = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]} ..."
        stdout().print(f"   {cut}", soft_wrap=True, markup=False, highlight=False)
