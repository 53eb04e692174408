"""The verb `train`: train and evaluate a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openjepa.cli.arguments import ConfigFile, Preset, words_of
from openjepa.cli.compute import TrustCode
from openjepa.cli.output import AsJson, Interrupted, print_json, remark, stderr, stdout
from openjepa.core.errors import StoppedBySignal, UserError
from openjepa.core.remarks import is_main_process

if TYPE_CHECKING:
    from openjepa.api import Run
    from openjepa.pages.run.live import LiveReport

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE|KEY=VALUE", help="What to train, and settings: train.steps=500 mask.ratio=0.5"),
]


def train(
    context: typer.Context,
    words: Words = None,
    preset: Preset = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/RECIPE-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Resume a stopped run.")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Keep RUN/report.html up to date, for an open browser.")
    ] = False,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Train only; openjepa eval RUN can follow.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --resume: other settings of train from here on."),
    ] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe into a run folder, then report whether it learned: verdict, evaluation, similarity.

    Settings are KEY=VALUE or --KEY VALUE, and steps=9 is train.steps=9. All of them: openjepa config explain RECIPE.
    Without data=..., a synthetic corpus is generated. Recipes and their sizes: openjepa recipes.

    Examples:
      openjepa train t_jepa
      openjepa train t_jepa data=corpus.jsonl steps=2000 --out runs/mine
      openjepa train --config my.yaml --train.seed 1
      openjepa train --resume runs/mine
      openjepa train --resume runs/mine train.lr=5e-4 --force
    """
    from openjepa import api
    from openjepa.cli.printing import print_verdict
    from openjepa.core.configure import recipe_of
    from openjepa.core.rundir import default_folder

    recipe, overrides = words_of(context, words or [])
    if resume is not None:
        _refuse_with_resume(recipe, preset, config, out)
        for moved in api.relocate(resume, overrides, force=force) if overrides else []:
            remark(f"{moved.key}: {moved.old} -> {moved.new}")
    elif recipe is None:
        if config is None:
            raise UserError("give a recipe (openjepa recipes lists them), --config FILE or --resume RUN")
        recipe = recipe_of(config)
    folder = resume or out or default_folder(Path(recipe or "").stem)
    try:
        run = api.train(
            recipe or "",
            preset=preset,
            config=config,
            out=folder,
            resume=resume is not None,
            hooks=[_live_report(folder)] if report else [],
            overrides=[] if resume else overrides,
        )
    except StoppedBySignal as stop:
        raise Interrupted(str(stop), stop.exit_code) from None
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop)) from None
    if not is_main_process():
        return
    if not as_json:
        print_verdict(run.summary()["health"])
    try:
        summary = run.summary() if no_eval else _judge(run, as_json)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; training is done, evaluate it with: openjepa eval {run.path}") from None
    if report:
        _whole_report(run)
    if as_json:
        print_json({"run": str(run.path), **summary})
    else:
        _close(run, summary)


def _live_report(folder: Path) -> LiveReport:
    from openjepa.pages.run.live import LiveReport

    return LiveReport(folder, on_failure=remark)


def _whole_report(run: Run) -> None:
    """Write the complete page. Training and evaluation are done, so any error here is only a remark."""
    from openjepa.pages.writing import write_report

    try:
        with stderr().status("making the report"):
            file = write_report(run.path, device=run.device)
    except Exception as error:
        remark(f"no report: {error}")
    else:
        remark(f"report: {file}")


def _refuse_with_resume(*options: Any) -> None:
    if any(options):
        raise UserError(
            "--resume RUN uses the run's own configuration; with it, give only the new paths of its files "
            "(data.source=..., encoder.name=...)"
        )


def _judge(run: Run, as_json: bool) -> dict[str, Any]:
    """Evaluate and add the results to the summary. What this data does not allow is left out with a remark."""
    from openjepa.cli.printing import print_scorecard, print_similar

    parts: dict[str, Any] = {}
    try:
        with stderr().status("evaluating the run, its initialisation, a random one and baselines without learning"):
            scorecard = run.evaluate()
        parts["eval"] = scorecard.to_json()
        if not as_json:
            print_scorecard(scorecard)
    except UserError as error:
        remark(f"no evaluation: {error}")
    if run.compares_texts:
        try:
            parts["semantic"] = run.semantic_check()
            if not as_json:
                print_similar(parts["semantic"])
        except UserError as error:
            remark(f"no similarity check: {error}")
    return run.add_to_summary(parts)


def _close(run: Run, summary: dict[str, Any]) -> None:
    from openjepa.cli.printing import print_peak_memory

    console = stdout()
    console.print(
        f"{summary['steps']} steps in {summary['train_s']:.1f} s, {summary['tokens_per_s']:,.0f} tokens/s, "
        f"{summary['samples_per_s']:,.1f} samples/s, loss {summary['loss']:.4f}",
        soft_wrap=True,
    )
    print_peak_memory(run.peak_memory())
    console.print(f"run: {run.path}", soft_wrap=True, markup=False)
    verb = 'similar {} "one text" "another"' if "semantic" in summary else "diagnose {}"
    console.print(f"next: openjepa {verb.format(run.path)}", soft_wrap=True, markup=False)
