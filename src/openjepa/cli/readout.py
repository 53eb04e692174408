"""The verb `readout`: decode a run's latents to text, and measure how much of it they encode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from openjepa.cli.arguments import words_of
from openjepa.cli.compute import Device, ModelPrecision, TrustCode
from openjepa.cli.output import AsJson, print_json, stderr, stdout
from openjepa.core.errors import UserError
from openjepa.core.tables import folding_table


def readout(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="RUN|KEY=VALUE", help="A run folder, and settings: steps=500 depth=3")
    ],
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train a small decoder from a finished run's frozen latents to text, and test it.

    Two decoders are trained: one on the latent of each text, one on shuffled latents, which can only use the language.
    Both are then tested on held-out texts, from their targets and from the run's predictions.
    For runs that predict whole texts: sentences (lang_jepa), answers (nano_jepa). Saved in RUN/readout.
    Settings: steps, lr, dim, depth, heads, max_len, seed, eval_batches, and learn_from=predicted to train on
    predictions instead of targets. Device and precision are those of the run's training unless they are given.

    Examples:
      openjepa train lang_jepa --out runs/lang
      openjepa readout runs/lang
      openjepa readout runs/lang steps=2000 dim=256
    """
    run, overrides = words_of(context, words)
    if run is None:
        raise UserError("give a run folder (openjepa readout runs/lang)")
    result = _train(Path(run), overrides, device, precision)
    if as_json:
        print_json({"run": run, **result})
    else:
        print_readout(result)
        stdout().print(f"readout: {Path(run) / 'readout'}", soft_wrap=True, markup=False)


def _train(run: Path, overrides: list[str], device: str, precision: str) -> dict[str, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from openjepa import api
    from openjepa.readout.training import ReadoutTraining

    console = stderr()
    steps = ReadoutTraining.load(overrides=overrides).steps
    columns = BarColumn(None), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("readout", total=steps, loss=float("nan"))
        opened = api.load(run, device, precision)
        return opened.train_readout(overrides, lambda step, loss: bar.update(task, completed=step, loss=loss))


def print_readout(result: dict[str, Any]) -> None:
    """Print the measures of a readout as a table, and examples."""
    from rich.text import Text

    console = stdout()
    table = folding_table(["from", "measure"], ["readout", "shuffled", "chance", "gain", "95 %"])
    for name, row in result["measures"].items():
        source, _, measure = name.partition("_")
        low, high = row["interval"]
        values = (f"{row[column]:.3f}" for column in ("readout", "shuffled", "chance"))
        table.add_row(source, measure.replace("_", " "), *values, f"{row['gain']:+.3f}", f"{low:+.2f} {high:+.2f}")
    console.print(table)
    console.print(
        f"{result['texts']} held-out texts; trained on {result['learn_from']} latents in {result['steps']} steps "
        f"({result['train_s']:.1f} s); gain = readout - shuffled, with its 95 % paired bootstrap interval over texts",
        soft_wrap=True,
    )
    shown = folding_table(["text", "read from its latent", "read from the prediction"])
    for example in result["examples"]:
        shown.add_row(*(Text(example[column]) for column in ("text", "target", "predicted")))
    console.print(shown)
