"""The options of every verb that opens a run or runs a network: device, precision, and trust in a run's own code."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from openjepa.core.trust import trust_everything

Device = Annotated[
    str, typer.Option("--device", help="Where the network runs: auto = a GPU if there is one; cpu, cuda, cuda:1, mps.")
]
ModelPrecision = Annotated[
    Literal["auto", "32", "bf16"],
    typer.Option(
        "--precision",
        help="Of its matrix products: auto = bf16 on CUDA, else 32 (fp32); embed, index and adapt: bf16 also on CPUs "
        "with AMX if vectors of fixed texts keep a cosine of 0.999.",
    ),
]


def _trust(wanted: bool) -> bool:
    if wanted:
        trust_everything()
    return wanted


TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", callback=_trust, help="Let a run import code outside OpenJEPA that it names. Read it first."
    ),
]
Processes = Annotated[
    int, typer.Option("--processes", min=1, help="Processes that embed, each a device or a part of the cores.")
]
