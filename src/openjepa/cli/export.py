"""The verb `export`: a run's encoder in the formats of other libraries, with proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openjepa.cli.compute import TrustCode
from openjepa.cli.output import AsJson, print_json, remark, stdout
from openjepa.core.errors import UserError

if TYPE_CHECKING:
    from openjepa.export.bundle import Exported, Format
    from openjepa.run.opened import Run

Target = Literal["sentence-transformers", "transformers", "onnx", "model2vec", "all"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    to: Annotated[Target, typer.Option("--to", help="The format; all = a folder for each that can express the run.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; an earlier export in it is replaced.")],
    int8: Annotated[bool, typer.Option("--int8", help="For onnx: also a model with 8-bit weights.")] = False,
    licence: Annotated[
        str, typer.Option("--licence", help="Of the weights, for the model card, such as apache-2.0.")
    ] = "unknown",
    with_code: Annotated[
        bool,
        typer.Option("--with-code", help="Allow a file of code in the folder, where the run needs one (LANG-JEPA)."),
    ] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Take a run's encoder to another library. The export opens there without openjepa and gives the same vectors.

    It is opened in a fresh process and compared with the run on fixed inputs (short, long, non-Latin texts; images of
    several sizes). Where the vectors differ by more than 1e-5 (onnx: 1e-4) nothing is kept. A model card is written
    with it. model2vec is a table of token vectors without a network: an approximation, and it says how good a one.

    Examples:
      openjepa export runs/first --to sentence-transformers --out exported
      openjepa export runs/first --to onnx --int8 --out exported-onnx
      openjepa export runs/first --to all --out exports --licence apache-2.0
    """
    from openjepa import api

    opened = api.load(run)
    done = (
        _all_formats(opened, out, int8, licence, with_code)
        if to == "all"
        else [opened.export(to, out, int8, licence, with_code)]
    )
    if as_json:
        print_json({"run": str(run), "exports": [export.to_json() for export in done]})
        return
    for export in done:
        for proof in export.proofs:
            stdout().print(proof.sentence(), soft_wrap=True, markup=False)
        stdout().print(f"written: {export.folder} (README.md says how to use it)", soft_wrap=True, markup=False)


def _all_formats(run: Run, out: Path, int8: bool, licence: str, with_code: bool) -> list[Exported]:
    """One folder a format within `out`; formats that cannot express the run are said. Raises UserError if none can."""
    from openjepa.export.bundle import FORMATS

    done: list[Exported] = []
    reasons: dict[Format, str] = {}
    for format_name in FORMATS:
        try:
            done.append(run.export(format_name, out / format_name, int8, licence, with_code))
        except UserError as error:
            reasons[format_name] = str(error)
            remark(f"{format_name}: left out: {error}")
    if not done:
        raise UserError(f"no format can express {run.path}: {next(iter(reasons.values()))}")
    return done
