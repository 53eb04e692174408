"""The verb `push`: a run on the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from openjepa.cli.compute import TrustCode
from openjepa.cli.output import AsJson, print_json, remark, stderr, stdout
from openjepa.core.errors import UserError


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The model on the hub; made if it is new.")],
    to: Annotated[
        Literal["sentence-transformers", "transformers", "onnx"] | None,
        typer.Option("--to", help="Format at its top; default sentence-transformers, for images transformers."),
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Of the weights, for the model card, such as apache-2.0.")
    ] = "unknown",
    public: Annotated[bool, typer.Option("--public", help="Make a new model public; default: private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before uploading.")] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Publish a run on the Hugging Face hub: an export that others open without openjepa, its card, and the run.

    Then openjepa.load("owner/name"), and every verb that takes a run folder, open it from there. Of absolute paths only
    the last part is uploaded; training data, optimiser state and the machine's description are not. You are asked
    before anything is sent. Log in with `hf auth login`, or set HF_TOKEN; HF_ENDPOINT names another hub.

    Examples:
      openjepa push runs/first someone/first
      openjepa push runs/first someone/first --licence apache-2.0 --public --yes
    """
    from openjepa import api
    from openjepa.core import hub

    opened = api.load(run)
    target = to or opened.usual_format
    seen = "public" if public else "private"
    question = f"upload {run} with an export to {target} to {hub.endpoint()}/{name} ({seen}, if it is new)?"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"{question} add --yes to do it without being asked")
        if not typer.confirm(question, err=True):
            remark("nothing was uploaded")
            return
    with stderr().status("exporting, comparing and uploading"):
        published = opened.push(name, target, licence, private=not public)
    if as_json:
        print_json(published.to_json())
    else:
        stdout().print(
            f"{published.address}: {len(published.files)} files, {published.size_mb} MB; open it with "
            f'openjepa.load("{name}")',
            soft_wrap=True,
            markup=False,
        )
