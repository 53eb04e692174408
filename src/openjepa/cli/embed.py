"""The verb `embed`: vectors of a file of any size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.compute import Device, ModelPrecision
from openjepa.cli.output import AsJson, Long, print_json, remark, stderr


def embed(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A file, folder or pattern; - = stdin.")],
    out: Annotated[Path, typer.Option("--out", help="Where to: .npy (one row a text) or .parquet (id, vector).")],
    column: Annotated[str, typer.Option("--column", help="Key or column that holds the text.")] = "text",
    txt: Annotated[
        str, typer.Option("--txt", help="What a text of a .txt file is: lines, paragraphs, files or auto.")
    ] = "lines",
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=1, help="Tokens embedded at once.")] = 4096,
    best: Annotated[
        bool, typer.Option("--best", help="Vectors of the layer and pooling that eval --sweep found best.")
    ] = False,
    long: Long = "windows",
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    as_json: AsJson = False,
) -> None:
    """Write one vector a text. Row i of the result is record i of the input; memory does not grow with the file.

    The input is read like data.source in training: text, JSON, CSV, Markdown, HTML, Parquet, Arrow, Excel. A record
    without a text gets a zero vector and is counted. The vectors are the run's embedding; with --best, those of
    the encoder, layer and pooling that were best on validation in `openjepa eval RUN --sweep`.

    Examples:
      openjepa embed runs/first corpus.jsonl --out vectors.npy
      openjepa embed runs/first notes/ --out notes.parquet
      zcat corpus.txt.gz | openjepa embed runs/first - --out vectors.parquet
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from openjepa import api
    from openjepa.data.files.records import counts_line, txt_rule
    from openjepa.encoding.vectors import count_rows
    from openjepa.evals.layers import EMBEDDING

    rule = txt_rule(txt)
    console = stderr()
    opened, cosine = api.load(run, device, precision).for_bulk()
    point = opened.best_point() if best else EMBEDDING
    columns = (
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("texts, {task.fields[rate]:,.0f} a second"),
        TimeRemainingColumn(),
    )
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding", total=count_rows(source, rule), rate=0.0)

        def advance(rows: int) -> None:
            done = bar.tasks[0].completed + rows
            bar.update(task, completed=done, rate=done / (time.perf_counter() - began))

        result = opened.embed_file(source, out, column, batch_tokens, advance, point, long, rule)
    result["latents"] = point.name
    result["texts_per_s"] = round(result["rows"] / (time.perf_counter() - began), 1)
    if cosine is not None:
        remark(f"in bf16: smallest cosine with fp32 {cosine:.6f} on fixed texts; --precision 32 embeds in fp32")
    remark("data: " + counts_line(result["counts"]))
    if result["without_text"]:
        first = result["first_without_text"]
        remark(f"rows without a text: {result['without_text']}, given zero vectors, the first at {first}")
    if as_json:
        print_json(result)
    else:
        rows = result["rows"]
        latents = f" ({point.name})" if best else ""
        print(f"{rows} vectors{latents} of {result['dim']} dimensions in {out} ({result['texts_per_s']:,.0f} texts/s)")
