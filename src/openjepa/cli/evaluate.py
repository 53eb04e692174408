"""The verbs that ask what a run has learned: `eval`, `similar`, `diagnose`; and `check`, which asks a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjepa.cli.arguments import ConfigFile, Preset, words_of
from openjepa.cli.compute import Device, ModelPrecision
from openjepa.cli.output import FAILED, AsJson, Long, print_json, remark, stderr, stdout
from openjepa.cli.progress import ProbeProgress
from openjepa.core.errors import UserError
from openjepa.core.tables import folding_table

if TYPE_CHECKING:
    from openjepa.api import Run
    from openjepa.data.text.inputs import LongTexts
    from openjepa.evals.scorecard import Scorecard
    from openjepa.evals.suite_file import Suite

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def evaluate(
    run: RunFolder,
    suite: Annotated[Path | None, typer.Option("--suite", help="Ask only this: a YAML file that names tasks.")] = None,
    sts: Annotated[
        list[str] | None,
        typer.Option(
            "--sts",
            metavar="[NAME=]FILE",
            help="Ask only this (repeatable): .jsonl, .csv, .tsv of sentence1, sentence2, score; or the STS benchmark.",
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Compare encoders, layers and poolings: which should be used?")
    ] = False,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also draw what the run predicts (vl_jepa), into RUN/evals.")
    ] = False,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit 1 if training lowered a measure beyond its interval.")
    ] = False,
    long: Long = "windows",
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    as_json: AsJson = False,
) -> None:
    """Did training help? What the run's recipe and data can be asked, always beside baselines.

    Labels and the factors of the stories world are asked by k-NN and logistic probes, paraphrases by triplets; recipes
    that predict sentences or answers have to find the right one among others. The baselines: the run's own
    initialisation, a random one, TF-IDF (raw pixels for images), chance. Where there is nothing to ask (t_jepa on data
    without data.label), give --suite or --sts. Results are kept in RUN/evals.

    --suite asks the same of any text run: rated pairs, labelled texts, retrieval (BEIR's layout, beside BM25), hidden
    sentences of documents, tasks of mteb; docs/how-to/evaluate.md has an example. --sts is short for rated pairs alone.

    --sweep probes student and teacher, every layer, and mean, max and learned (attentive) pooling on a fifth of the
    training inputs; the best one alone is asked about the test inputs.

    Examples:
      openjepa eval runs/first
      openjepa eval runs/first --sweep
      openjepa eval runs/pictures --figures
      openjepa eval runs/first --suite suite.yaml
      openjepa eval runs/first --sts stsb=sts-dev.csv --fail-if-worse
    """
    from openjepa import api
    from openjepa.cli.printing import print_peak_memory, print_scorecard

    opened = api.load(run, device, precision)
    if sweep:
        _sweep(opened, bool(suite or sts or figures or fail_if_worse), as_json)
        return
    if suite and sts:
        raise UserError("give --suite or --sts, not both: rated pairs are a task of a suite, too")
    drawn = opened.draw() if figures else []
    read = None if suite is None else read_suite(suite)
    with stderr().status("evaluating the run beside its initialisation, a random one and baselines without learning"):
        scorecard = _evaluated(opened, sts or [], long) if read is None else opened.evaluate_suite(read, long)
    if as_json:
        print_json(
            {
                "run": str(run),
                "sentence": scorecard.sentence(),
                "eval": scorecard.to_json(),
                "figures": [str(file) for file in drawn],
                "notes": {} if read is None else read.notes,
                "peak_memory_gb": opened.peak_memory(),
            }
        )
    else:
        print_scorecard(scorecard)
        print_peak_memory(opened.peak_memory())
        for file in drawn:
            stdout().print(f"figure: {file}", markup=False, soft_wrap=True)
    if fail_if_worse and (untested := scorecard.untested()):
        remark(f"not judged, as they come without test items, or of too few documents: {', '.join(untested)}")
    if fail_if_worse and (worse := scorecard.worse()):
        remark(f"worse than its own initialisation: {', '.join(worse)}")
        raise typer.Exit(FAILED)


def read_suite(file: Path) -> Suite:
    """The suite with its data, and a remark on everything that was left out."""
    from openjepa.evals.suite_file import Suite

    suite = Suite.open(file)
    for line in suite.remarks:
        remark(line)
    return suite


def _evaluated(run: Run, sts: Sequence[str], long: LongTexts) -> Scorecard:
    from openjepa.evals.similarity import read_similarity

    files = named_files(sts)
    tasks = [read_similarity(file, name) for name, file in files.items()] or None
    return run.evaluate(tasks, "-".join(files) or "default", long)


def named_files(given: Sequence[str]) -> dict[str, Path]:
    """Files given as NAME=FILE, or as FILE and named by its stem. Raises UserError for names that tasks cannot have."""
    from openjepa.data.files.discovery import COMPRESSED
    from openjepa.evals.suite_file import TAKEN

    files: dict[str, Path] = {}
    for item in given:
        name, named, place = item.partition("=")
        if not named or Path(item).exists():
            file = Path(item)
            name, place = Path(file.stem).stem if file.suffix in COMPRESSED else file.stem, item
        if not name.strip() or name.startswith(".") or "/" in name or name in TAKEN:
            raise UserError(f"--sts {item}: a task cannot be named {name!r}; write --sts NAME={place}")
        if name in files:
            raise UserError(f"--sts: two files are named {name!r}; give one another name: --sts NAME={place}")
        files[name] = Path(place)
    return files


def _sweep(run: Run, more_asked: bool, as_json: bool) -> None:
    from openjepa.cli.printing import print_peak_memory, print_sweep

    if more_asked:
        raise UserError(
            "--sweep is a question of its own: give no --suite, --sts, --figures or --fail-if-worse beside it"
        )
    with ProbeProgress(stderr()) as progress:
        found = run.sweep(progress)
    if as_json:
        print_json({"run": str(run.path), **found.to_json()})
    else:
        print_sweep(found)
        print_peak_memory(run.peak_memory())


def similar(
    run: RunFolder,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help="Two texts or more.")],
    background: Annotated[
        Path | None, typer.Option("--background", help="Texts for the random pairs: a file or folder, as for embed.")
    ] = None,
    long: Long = "windows",
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    as_json: AsJson = False,
) -> None:
    """How alike are texts to this run? Cosines, beside those of random pairs, without which a cosine means nothing.

    Example:  openjepa similar runs/first "The chef cooked a soup." "A cook made broth." "The train was late."
    """
    from openjepa import api
    from openjepa.cli.printing import print_similar

    if len(texts) < 2:
        raise UserError("give at least two texts, each in quotes")
    known = None if background is None else api.read_texts(background)
    result = api.load(run, device, precision).similar(texts, known, long)
    if as_json:
        print_json({"run": str(run), **result})
    else:
        print_similar(result)


def diagnose(run: RunFolder, as_json: AsJson = False) -> None:
    """Is the run healthy? The newest verdict with its evidence, what to change, and every check on the way there.

    If it is not, the last line of advice is a command: the same run with the settings that treat what was found.

    Example:  openjepa diagnose runs/first
    """
    from openjepa import api
    from openjepa.cli.printing import print_trend, print_verdict

    opened = api.load(run, "cpu")
    records = opened.health()
    if not records:
        raise UserError(f"{run} has no health record yet; training writes the first one at step 0")
    override = opened.suggested_overrides()
    if as_json:
        print_json({"run": str(run), "latest": records[-1], "override": override, "history": records})
        return
    print_verdict(records[-1])
    if override:
        words = ["openjepa", "train", opened.recipe, "--config", str(opened.folder.config_file), *override]
        stdout().print(f"try: {shlex.join(words)}", markup=False, soft_wrap=True)
    print_trend(records)


def check(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="RECIPE|KEY=VALUE", help="What to check: a name, a .py file, settings.")
    ],
    preset: Preset = None,
    config: ConfigFile = None,
    device: Device = "cpu",
    precision: ModelPrecision = "32",
    as_json: AsJson = False,
) -> None:
    """Preflight of a recipe, built-in or your own: does it keep the contract? Exits with 1 if a check fails.

    Among the checks: the prediction cannot see what is hidden, every parameter learns, the target moves.

    Examples:
      openjepa check t_jepa
      openjepa check ./my_method.py
    """
    from openjepa.core.compute import compute_for
    from openjepa.preflight.checks import check_recipe

    target, overrides = words_of(context, words)
    if target is None:
        raise UserError("give a recipe or a .py file to check")
    results = check_recipe(target, preset, config, overrides, compute_for(device, precision))
    failed = [result.name for result in results if not result.passed]
    if as_json:
        checks = [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in results]
        print_json({"recipe": target, "passed": not failed, "checks": checks})
    else:
        print_checks(results)
    if failed:
        raise typer.Exit(FAILED)


def print_checks(results: list) -> None:
    """A line for each law: whether it holds, and its figures."""
    from rich.text import Text

    table = folding_table(["check", "", "detail"])
    for result in results:
        word = Text("passed", style="green") if result.passed else Text("FAILED", style="bold red")
        table.add_row(result.name, word, Text(result.detail))
    stdout().print(table)
    stdout().print(f"{sum(r.passed for r in results)} of {len(results)} checks passed")
