"""The verb `demo`: an interactive page of a run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.compute import Device, ModelPrecision
from openjepa.cli.output import remark, stderr


def demo(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 = open to others.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 7860,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
) -> None:
    r"""Explore a run in the browser. Ctrl-C ends it. Needs: pip install "openjepa\[demo]"

    Runs on texts (t_jepa) compare texts with one another and with held-out ones; runs on sentences (lang_jepa) also
    predict a hidden sentence of a paragraph, runs on questions (nano_jepa) the answer. If the run has a readout
    (openjepa readout RUN), predicted latents are decoded to text.

    Examples:
      openjepa demo runs/first
      openjepa demo runs/first --port 8000
    """
    from openjepa import api
    from openjepa.demo import page

    opened = api.load(run, device, precision)
    with stderr().status("reading held-out texts"):
        served = page.serve(opened, host, port)
    remark(f"http://{host}:{port} shows {run}; Ctrl-C ends it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:  # the way to end it, no failure
        served.close(verbose=False)
