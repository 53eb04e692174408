"""The two options of every verb that runs a network: device and precision."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Device = Annotated[
    str, typer.Option("--device", help="Where the network runs: auto = a GPU if there is one; cpu, cuda, cuda:1, mps.")
]
ModelPrecision = Annotated[
    Literal["auto", "32", "bf16"],
    typer.Option("--precision", help="Of its matrix products: auto = bf16 on CUDA, 32 (fp32) elsewhere."),
]
