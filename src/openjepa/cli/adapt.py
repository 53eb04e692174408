"""The verb `adapt`: a sentence encoder fitted to documents without labels."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openjepa.cli.arguments import words_of
from openjepa.cli.compute import Device, ModelPrecision, Processes, TrustCode
from openjepa.cli.output import FAILED, AsJson, print_json, remark, stderr, stdout
from openjepa.cli.progress import documents_in, row_progress
from openjepa.core.errors import UserError
from openjepa.core.tables import folding_table

if TYPE_CHECKING:
    from openjepa.run.opened import Run


def adapt(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="BASE|KEY=VALUE", help="An encoder, and data=... and other settings.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")],
    keep: Annotated[
        Literal["auto", "start", "whitening", "predictor"],
        typer.Option("--keep", help="auto = what is expected to help; or what to keep whatever is expected."),
    ] = "auto",
    guard: Annotated[
        list[Path] | None,
        typer.Option("--guard", help="What must not get worse: a suite (.yaml), a BEIR folder, a file of rated pairs."),
    ] = None,
    max_loss: Annotated[
        float, typer.Option("--max-loss", min=0, help="Points (hundredths) that a guarded measure may lose.")
    ] = 1.0,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit 1 if a guarded measure fell beyond its interval.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="BASE is a run of adapt: add these documents to those it knows.")
    ] = False,
    processes: Processes = 1,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Fit a sentence encoder to documents of your own without labels, in closed form, and export it or the start.

    BASE is a sentence-transformers or transformers folder or hub id, or a run. Documents are read like data.source in
    training; title=COLUMN names titles, parts=paragraphs splits by blank lines. Latents are whitened within documents,
    and queries are moved towards the document that a linear predictor expects. Where documents are few, short or in
    broad language, nothing is gained: then the start is kept, and the reason is said.

    The result is a run like any other, and beside it, in OUT/exported, a sentence-transformers folder: encode_query for
    queries, encode_document for documents. What was measured is in OUT/adaptation.json and openjepa report OUT.

    Examples:
      openjepa adapt sentence-transformers/all-MiniLM-L6-v2 data=my_docs/ --out runs/adapted
      openjepa adapt models/encoder data=corpus.jsonl title=title --guard suite.yaml --out runs/adapted
    """
    from openjepa import api

    base, overrides = words_of(context, words)
    if base is None:
        raise UserError("give an encoder: a folder or hub id (openjepa adapt MODEL data=my_docs/ --out runs/adapted)")
    with row_progress(stderr(), "documents", partial(documents_in, overrides)) as progress:
        run = api.adapt(
            base,
            out=out,
            keep=keep,
            guard=guard or [],
            max_loss=max_loss,
            overrides=overrides,
            device=device,
            precision=precision,
            processes=processes,
            update=update,
            on_documents=progress.add,
        )
    with stderr().status("exporting the encoder"):
        exported = _exported(run)
    result = run.adaptation()
    if as_json:
        print_json({"run": str(run.path), "exported": exported, **result})
    else:
        print_adaptation(result, run.path, exported)
    if fail_if_worse and result["guard"] and result["guard"]["worse"]:
        raise typer.Exit(FAILED)


def _exported(run: Run) -> str | None:
    """The folder of the export beside the run; None if the library is missing, which is said."""
    if importlib.util.find_spec("sentence_transformers") is None:
        remark("not exported: that needs sentence-transformers: pip install 'openjepa[export]'")
        return None
    return str(run.export("sentence-transformers", run.path / "exported").folder)


def print_adaptation(result: dict[str, Any], folder: Path, exported: str | None) -> None:
    """Print what is kept and why, and what was measured."""
    from openjepa.data.files.records import counts_line

    console = stdout()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    remark("data: " + counts_line(result["counts"]))
    names = {"start": "the start", "whitening": "whitening", "predictor": "whitening, and the predictor for queries"}
    say(f"kept: {names[result['decision']['kept']]}")
    for reason in result["decision"]["reasons"]:
        say(f"  {reason}")
    one = result["documents_of_one_part"]
    left_out = f", of which {one:,} have one part and are left out" if one else ""
    if again := result["documents_again"]:
        say(f"{again:,} documents of the same words as one of before are left out")
    say(f"{result['documents']:,} documents{left_out}; {result['parts']:,} parts; {result['seconds']:.0f} s")
    if result["held_out"]:
        table = folding_table(["on held-out documents"], ["part finds the rest", "first part does", "neighbours kept"])
        for name, found in result["held_out"].items():
            kept = found["neighbours_kept"]
            shown = "-" if kept is None else f"{kept:.2f}"
            table.add_row(name, f"{found['part_finds_rest']:.3f}", f"{found['first_finds_rest']:.3f}", shown)
        console.print(table)
        say("(a part asks for one document, a searcher for a topic: these do not tell which of them searches better)")
    if result["guard"]:
        for line in result["guard"]["lines"]:
            say(line)
    say(f"run: {folder}")
    if exported is not None:
        say(f"exported: {exported} (SentenceTransformer: encode_query, encode_document)")
