"""The verbs that evaluate a run: `eval`, `similar`, `diagnose`; and `check`, which tests a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjepa.cli.arguments import ConfigFile, Preset, words_of
from openjepa.cli.compute import Device, ModelPrecision, TrustCode
from openjepa.cli.output import FAILED, AsJson, Long, print_json, remark, stderr, stdout
from openjepa.cli.progress import ProbeProgress
from openjepa.core.errors import UserError
from openjepa.core.rundir import RunDir
from openjepa.core.tables import folding_table
from openjepa.core.trust import UntrustedCode

if TYPE_CHECKING:
    from openjepa.api import Run
    from openjepa.data.text.inputs import LongTexts
    from openjepa.evals.scorecard import Scorecard
    from openjepa.evals.suite_file import Suite

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def evaluate(
    run: RunFolder,
    suite: Annotated[
        Path | None, typer.Option("--suite", help="Only these tasks: a YAML file that names them.")
    ] = None,
    sts: Annotated[
        list[str] | None,
        typer.Option(
            "--sts",
            metavar="[NAME=]FILE",
            help="Only these (repeatable): .jsonl, .csv, .tsv of sentence1, sentence2, score; or the STS benchmark.",
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Compare encoders, layers and poolings, chosen on validation.")
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
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate whether training helped, on all tasks of the run's recipe and data, always with baselines.

    Labels and the factors of the stories world are tested by k-NN and logistic probes, paraphrases by triplets; recipes
    that predict sentences or answers have to retrieve the right one. The baselines: the run's initialisation, a random
    one, TF-IDF (raw pixels for images), chance. Where there is no task (t_jepa on data without data.label), give
    --suite or --sts. Results are in RUN/evals.

    --suite has the same tasks for any text run: rated pairs, labelled texts, retrieval (BEIR's layout, with BM25),
    hidden sentences of documents, tasks of mteb; docs/how-to/evaluate.md has an example. --sts is short for rated pairs
    only.

    --sweep probes student and teacher, every layer, and mean, max and learned (attentive) pooling on a fifth of the
    training inputs; only the best one is evaluated on the test inputs.

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
    tasks = None if suite is None else read_suite(suite)
    with stderr().status("evaluating the run, its initialisation, a random one and baselines without learning"):
        scorecard = _evaluated(opened, sts or [], long) if tasks is None else opened.evaluate_suite(tasks, long)
    if as_json:
        print_json(
            {
                "run": str(run),
                "sentence": scorecard.sentence(),
                "eval": scorecard.to_json(),
                "figures": [str(file) for file in drawn],
                "notes": {} if tasks is None else tasks.notes,
                "peak_memory_gb": opened.peak_memory(),
            }
        )
    else:
        print_scorecard(scorecard)
        print_peak_memory(opened.peak_memory())
        for file in drawn:
            stdout().print(f"figure: {file}", markup=False, soft_wrap=True)
    if fail_if_worse:
        _exit_if_worse(scorecard)


def _exit_if_worse(scorecard: Scorecard) -> None:
    """Exit code 1 if training made a task worse; says also what could not be judged."""
    if untested := scorecard.untested():
        remark(f"not judged, as they have no test items, or of too few documents: {', '.join(untested)}")
    if worse := scorecard.worse():
        remark(f"worse than its own initialisation: {', '.join(worse)}")
        raise typer.Exit(FAILED)


def read_suite(file: Path) -> Suite:
    """Read a suite with its data; prints a remark on everything that was left out."""
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


def named_files(words: Sequence[str]) -> dict[str, Path]:
    """Files given as NAME=FILE, or as FILE and named by its stem. Raises UserError for names that tasks cannot have."""
    from openjepa.data.files.discovery import COMPRESSED
    from openjepa.evals.suite_file import TAKEN

    files: dict[str, Path] = {}
    for item in words:
        name, sep, path = item.partition("=")
        if not sep or Path(item).exists():
            file = Path(item)
            name = Path(file.stem).stem if file.suffix in COMPRESSED else file.stem
            path = item
        if not name.strip() or name.startswith(".") or "/" in name or name in TAKEN:
            raise UserError(f"--sts {item}: a task cannot be named {name!r}; write --sts NAME={path}")
        if name in files:
            raise UserError(f"--sts: two files are named {name!r}; give one another name: --sts NAME={path}")
        files[name] = Path(path)
    return files


def _sweep(run: Run, other_options: bool, as_json: bool) -> None:
    from openjepa.cli.printing import print_peak_memory, print_sweep

    if other_options:
        raise UserError("--sweep cannot be combined with --suite, --sts, --figures or --fail-if-worse")
    with ProbeProgress(stderr()) as progress:
        result = run.sweep(progress)
    if as_json:
        print_json({"run": str(run.path), **result.to_json()})
    else:
        print_sweep(result)
        print_peak_memory(run.peak_memory())


def similar(
    run: RunFolder,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Two texts or more; none = three everyday sentences.")
    ] = None,
    background: Annotated[
        Path | None, typer.Option("--background", help="Texts for the random pairs: a file or folder, as for embed.")
    ] = None,
    long: Long = "windows",
    device: Device = "auto",
    precision: ModelPrecision = "auto",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Print cosines of texts, relative to those of random pairs, without which a cosine means nothing.

    Without texts, three sentences of everyday English: an original, a variation and an unrelated one. A run that does
    not know their words, such as one of a synthetic world, says so instead.

    Examples:
      openjepa similar runs/first "The chef cooked a soup." "A cook made broth." "The train was late."
      openjepa similar runs/adapted
    """
    from openjepa import api
    from openjepa.cli.printing import print_similar

    opened = api.load(run, device, precision)
    if not texts:
        result = opened.general_check()
    elif len(texts) < 2:
        raise UserError("give at least two texts, each in quotes")
    else:
        others = None if background is None else api.read_texts(background)
        result = opened.similar(texts, others, long)
    if as_json:
        print_json({"run": str(run), **result})
    else:
        print_similar(result)


def diagnose(run: RunFolder, trust_code: TrustCode = False, as_json: AsJson = False) -> None:
    """Print the newest health verdict with evidence and advice, and all health checks before it.

    If the run is not healthy, the advice ends with a command: the same run with the suggested settings.

    Example:  openjepa diagnose runs/first
    """
    from openjepa import api
    from openjepa.cli.printing import print_trend, print_verdict

    folder = RunDir.open(run)
    records = list(folder.health_records())
    if not records:
        raise UserError(f"{run} has no health record yet; training writes the first one at step 0")
    recipe, _ = folder.recipe_and_values()
    try:
        override = api.load(run, "cpu").suggested_overrides()
    except UntrustedCode as error:
        remark(f"no settings are suggested: {error}")
        override = []
    if as_json:
        print_json({"run": str(run), "latest": records[-1], "override": override, "history": records})
        return
    print_verdict(records[-1])
    if override:
        words = ["openjepa", "train", recipe, "--config", str(folder.config_file), *override]
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
    """Check a recipe, built-in or your own, before training. Exits with 1 if a check fails.

    Among the checks: the prediction does not depend on hidden content, every parameter learns, the target moves.

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
    """Print a line for each check: whether it passed, and its figures."""
    from rich.text import Text

    table = folding_table(["check", "", "detail"])
    for result in results:
        word = Text("passed", style="green") if result.passed else Text("FAILED", style="bold red")
        table.add_row(result.name, word, Text(result.detail))
    stdout().print(table)
    stdout().print(f"{sum(r.passed for r in results)} of {len(results)} checks passed")
