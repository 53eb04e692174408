"""The verb `next`: what a run that predicts sentences expects to follow a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openjepa.cli.compute import Device, ModelPrecision, TrustCode
from openjepa.cli.output import AsJson, print_json, stderr, stdout


def next_sentence(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of lang_jepa.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="One sentence or more, in quotes.")],
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="Documents whose sentences are ranked, all: a file or folder; unset = held out."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Sentences to show.")] = 5,
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Rank the sentences of a corpus by their cosine with what is expected to follow a text.

    The predictor estimates the latent of the sentence behind TEXT. No text is generated: the nearest sentences are
    shown, beside the cosine of random pairs of them, without which a cosine means nothing.

    Example:  openjepa next runs/concepts "The experiment failed twice." --corpus my_docs/
    """
    from openjepa import api

    opened = api.load(run, device, precision)
    with stderr().status("encoding the sentences of the corpus"):
        documents = None if corpus is None else api.read_texts(corpus, limit=None)
        found = opened.next_sentences(text, documents, top)
    if as_json:
        print_json({"run": str(run), "text": text, **found.to_json()})
        return
    for rank, (sentence, cosine) in enumerate(zip(found.sentences, found.cosines, strict=True), start=1):
        shown = " ".join(sentence.split())
        stdout().print(f"{rank}. {cosine:.2f}  {shown}", soft_wrap=True, markup=False, highlight=False)
    print(f"of {found.candidates:,} sentences; two random ones have a cosine of {found.random_pairs:.2f}")
