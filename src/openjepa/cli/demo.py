"""The verb `demo`: an interactive page of one run or several."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.compute import Device, ModelPrecision, TrustCode
from openjepa.cli.output import remark, stderr


def demo(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders; each gets a tab.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 = open to others.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 7860,
    per_minute: Annotated[
        int, typer.Option("--per-minute", min=1, help="Questions a minute that each client may ask.")
    ] = 60,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
) -> None:
    r"""Explore runs in the browser. Ctrl-C ends it. Needs: pip install "openjepa\[demo]"

    What a run's tab shows depends on what it reads. Texts: their similarity to one another and to held-out ones; of
    documents of sentences also the prediction of a hidden sentence, of questions that of the answer, decoded to text if
    the run has a readout (openjepa readout RUN). Images (upload one, or click a held-out one): what is hidden, a map of
    how near each predicted patch is to its target, right and wrong captions, views, and the nearest held-out images.

    Every run also shows its training, live while it goes on; before its first checkpoint it shows only that.

    Examples:
      openjepa demo runs/first
      openjepa demo runs/first runs/second --port 8000
    """
    from openjepa import api
    from openjepa.demo import page
    from openjepa.demo.limits import RateLimit

    folders = list({run.resolve(): run for run in runs}.values())
    opened = [api.load(folder, device, precision) for folder in folders]
    with stderr().status("reading held-out data"):
        served = page.serve(opened, host, port, RateLimit(per_minute))
    if not is_local(host):
        remark(f"--host {host} opens the page to everyone who can reach this machine; it asks for no password")
    remark(f"http://{host}:{port} shows {', '.join(map(str, folders))}; Ctrl-C ends it")
    try:
        wait()
    except KeyboardInterrupt:  # the way to end it, no failure
        served.close(verbose=False)


def wait() -> None:
    """Wait for Ctrl-C, which raises KeyboardInterrupt."""
    threading.Event().wait()


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")
