"""The verb `embed`: vectors of a file of any size."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from openjepa.cli.compute import Device, ModelPrecision, Processes, TrustCode
from openjepa.cli.output import AsJson, Interrupted, Long, print_json, remark, stderr
from openjepa.cli.progress import row_progress


def embed(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A file, folder or pattern; - = stdin.")],
    out: Annotated[
        Path, typer.Option("--out", help="Where to: .npy (one row a text), .parquet (id, vector) or .faiss.")
    ],
    column: Annotated[str, typer.Option("--column", help="Key or column that holds the text.")] = "text",
    id_column: Annotated[
        str | None, typer.Option("--id-column", help="Key or column that names a row; default: where it stands.")
    ] = None,
    txt: Annotated[
        str, typer.Option("--txt", help="What a text of a .txt file is: lines, paragraphs, files or auto.")
    ] = "lines",
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=1, help="Tokens embedded at once.")] = 4096,
    best: Annotated[
        bool, typer.Option("--best", help="Vectors of the layer and pooling that eval --sweep found best.")
    ] = False,
    dims: Annotated[int | None, typer.Option("--dims", help="Keep the first so many dimensions alone.")] = None,
    quantize: Annotated[
        Literal["none", "int8", "binary"],
        typer.Option("--quantize", help="Smaller numbers: none, int8, or binary (one bit a dimension)."),
    ] = "none",
    processes: Processes = 1,
    max_line_mb: Annotated[
        int | None,
        typer.Option("--max-line-mb", min=1, help="Longest line or text in MiB; default: the run's data.max_line_mb."),
    ] = None,
    long: Long = "windows",
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write one vector a text. Row i of the result is record i of the input; memory does not grow with the file.

    The input is a file, folder or pattern that training can read: text, JSON, CSV, Markdown, HTML, Parquet, Arrow,
    Excel; or lines of stdin. --column and --txt say how, whatever the run's data.column and data.txt are. A record
    without a text gets a zero vector and is counted. The vectors are the run's embedding; with --best, those of
    the encoder, layer and pooling that were best on validation in `openjepa eval RUN --sweep`.

    A command that was stopped or killed goes on where it was when it is given again. Beside .npy and .faiss stands
    a file of ids, one a line (.ids.jsonl). For --dims and --quantize, the share of nearest neighbours that stay is
    measured on the first texts; train with train.matryoshka=[DIMS] if vectors are to be cut.

    Examples:
      openjepa embed runs/first corpus.jsonl --out vectors.npy
      openjepa embed runs/first notes/ --out notes.parquet
      openjepa embed runs/first corpus.csv --id-column sku --out vectors.faiss --dims 64
      zcat corpus.txt.gz | openjepa embed runs/first - --out vectors.parquet
    """
    from openjepa import api
    from openjepa.data.files.records import txt_rule
    from openjepa.encoding.rows import count_rows
    from openjepa.evals.layers import EMBEDDING

    rule = txt_rule(txt)
    opened, cosine = api.load(run, device, precision).for_bulk()
    point = opened.best_point() if best else EMBEDDING
    began = time.perf_counter()
    with row_progress(stderr(), "texts", partial(count_rows, source, rule)) as progress:

        def advance(rows: int, are_old: bool) -> None:
            progress.add(rows)
            if are_old:
                progress.restart()

        try:
            result = opened.embed_file(
                source,
                out,
                column=column,
                id_column=id_column,
                batch_tokens=batch_tokens,
                on_rows=advance,
                at=point,
                long=long,
                txt=rule,
                dims=dims,
                quantization=quantize,
                processes=processes,
                max_line_mb=max_line_mb,
            )
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; the same command goes on behind the rows that are kept beside {out}") from None
    result["latents"] = point.name
    new_rows = result["rows"] - result["resumed_rows"]
    result["texts_per_s"] = round(new_rows / (time.perf_counter() - began), 1)
    _say(result, cosine, dims in opened.config.train.matryoshka)
    if as_json:
        print_json(result)
    else:
        _print_result(result, point.name if best else "", quantize)


def _print_result(result: dict[str, Any], latents: str, quantize: str) -> None:
    """How many vectors were written, of which latents and numbers, where to and how fast."""
    of_latents = f" ({latents})" if latents else ""
    dimensions = f"{result['dim']} dimensions{'' if quantize == 'none' else ' as ' + quantize}"
    speed = f"{result['texts_per_s']:,.0f} texts/s"
    print(f"{result['rows']} vectors{of_latents} of {dimensions} in {' and '.join(result['files'])} ({speed})")


def _say(result: dict[str, Any], cosine: float | None, trained_for: bool) -> None:
    """What a user has to know of vectors that were made."""
    from openjepa.data.files.records import counts_line

    if result["resumed_rows"]:
        remark(f"went on behind {result['resumed_rows']} rows of a command that did not end")
    if cosine is not None:
        remark(f"in bf16: smallest cosine with fp32 {cosine:.6f} on fixed texts; --precision 32 embeds in fp32")
    remark("data: " + counts_line(result["counts"]))
    if result["without_text"]:
        first = result["first_without_text"]
        remark(f"rows without a text: {result['without_text']}, given zero vectors, the first at {first}")
    if result["neighbours_kept"] is not None:
        kept = f"{result['neighbours_kept']:.2f} of the 10 nearest neighbours stay, measured on the first texts"
        remark(f"smaller vectors: {kept}{'; the run was trained for this cut' if trained_for else ''}")
    if result["clipped"]:
        remark(f"int8: {result['clipped']} numbers were beyond those of the first texts, and clipped")
