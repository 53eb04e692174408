"""The verb `embed`: vectors of a file of any size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.output import AsJson, print_json, remark, stderr


def embed(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help=".txt, .jsonl or .parquet (.gz too); - = stdin.")],
    out: Annotated[Path, typer.Option("--out", help="Where to: .npy (one row a text) or .parquet (id, vector).")],
    column: Annotated[str, typer.Option("--column", help="Key or column that holds the text.")] = "text",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts embedded at once.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Write one vector a text. Row i of the result is row i of the input; memory does not grow with the file.

    A row without a text gets a zero vector and is counted.

    Examples:
      openjepa embed runs/first corpus.jsonl --out vectors.npy
      zcat corpus.txt.gz | openjepa embed runs/first - --out vectors.parquet
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from openjepa import api
    from openjepa.data.vectors import count_rows

    console = stderr()
    opened = api.load(run)
    columns = (
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("texts, {task.fields[rate]:,.0f} a second"),
        TimeRemainingColumn(),
    )
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding", total=count_rows(source), rate=0.0)

        def advance(rows: int) -> None:
            done = bar.tasks[0].completed + rows
            bar.update(task, completed=done, rate=done / (time.perf_counter() - began))

        result = opened.embed_file(source, out, column, batch_size, advance)
    result["texts_per_s"] = round(result["rows"] / (time.perf_counter() - began), 1)
    if result["without_text"]:
        first = result["first_without_text"]
        remark(f"rows without a text: {result['without_text']}, given zero vectors, the first at {first}")
    if as_json:
        print_json(result)
    else:
        print(f"{result['rows']} vectors of {result['dim']} dimensions in {out} ({result['texts_per_s']:,.0f} texts/s)")
