"""The verb `report`: one HTML page of a run or a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.compute import Device, ModelPrecision, TrustCode
from openjepa.cli.output import AsJson, print_json, stderr, stdout


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN|STUDY", help="A run folder, or one of ablate or compare.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page; default report.html in that folder.")] = None,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page: verdict, curves, scorecard, embeddings, similarity, masks, how to repeat it.

    The page of a study has its tables with intervals and corrected p-values, and quality against cost. It is a single
    file that needs no network. What a run does not have is left out with the reason. Nothing is trained.

    Examples:
      openjepa report runs/first
      openjepa report runs/objectives --out objectives.html
      openjepa train t_jepa --report --out runs/live
    """
    from openjepa.pages.writing import write_report

    with stderr().status("making the report"):
        file = write_report(folder, out, device, precision)
    if as_json:
        print_json({"page": str(file), "bytes": file.stat().st_size})
    else:
        stdout().print(f"page: {file}", soft_wrap=True, markup=False)
