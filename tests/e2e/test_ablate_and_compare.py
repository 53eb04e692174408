"""`ablate` and `compare` as a user meets them: small studies on 120 labelled texts, interrupted, resumed, extended."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openjepa import api
from openjepa.cli import main
from openjepa.core.errors import TrainingStopped, UserError
from openjepa.core.json_files import read_json, read_jsonl
from openjepa.core.rundir import write_json
from openjepa.studies import comparison, costs, running, worker
from openjepa.studies.cells import Cell, stop_reason
from openjepa.studies.comparison import Budget, comparison_arms, read_arm, within_budget
from openjepa.training.hooks import CsvHook
from tests.e2e.test_cli import TINY, answer, corpus

SETTINGS = [item for item in TINY if not item.startswith("predictor.")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        yield corpus(folder)


@pytest.fixture(scope="module")
def ablation(data: Path) -> Path:
    """A finished ablation of two arms, with one seed."""
    out = data.parent / "ablation"
    assert main(["ablate", "t_jepa", *ablated(data), "--jobs", "1", "--out", str(out)]) == 0
    return out


def ablated(data: Path, seeds: int = 1) -> list[str]:
    return ["mask.ratio=0.3,0.5", f"data.source={data}", *TINY, "--seeds", str(seeds)]


def cells(out: Path) -> dict[str, Path]:
    return {f"{path.parent.name} {path.name}": path for path in sorted(out.glob("cells/*/seed-*"))}


def test_a_study_leaves_results_a_table_a_figure_and_a_run_for_each_cell(ablation: Path) -> None:
    found = read_json(ablation / "results.json")
    assert [arm["label"] for arm in found["arms"]] == ["base", "mask.ratio=0.3"]
    assert found["headlines"] == ["skill", "topic_knn", "topic_logistic"]
    assert {row["measure"] for row in found["differences"]} == {"skill", "topic_knn", "topic_logistic"}
    assert set(found["baselines"]) == {"tfidf"}
    assert found["seeds"] == [0]
    assert (ablation / "results.png").read_bytes().startswith(b"\x89PNG")
    assert len(cells(ablation)) == 2
    for path in cells(ablation).values():
        assert api.load(path).summary()["steps"] == 6


def test_scores_are_those_of_an_evaluation_of_the_same_run(ablation: Path) -> None:
    run = api.load(cells(ablation)["base seed-0"])
    scorecard = run.evaluate(name="again").to_json()
    arm = read_json(ablation / "results.json")["arms"][0]
    for name in ("topic_knn", "topic_logistic"):
        assert arm["measures"][name]["by_seed"][0] == pytest.approx(scorecard[name]["run"])
    assert arm["skill_by_seed"]["0"] == run.summary()["skill"]
    assert arm["tokens"] == pytest.approx(sum(row["tokens"] for row in read_jsonl(run.folder.metrics)), rel=0.1)


def test_an_interrupted_study_goes_on_and_ends_like_an_uninterrupted_one(
    ablation: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, seen = CsvHook.__call__, []

    def interrupt(hook: CsvHook, progress, output, stats) -> None:
        log(hook, progress, output, stats)
        seen.append(progress.step)
        if len(seen) == 6 + 5:  # in the second cell, after its checkpoint of step 4
            raise KeyboardInterrupt

    out = tmp_path / "study"
    command = ["ablate", "t_jepa", *ablated(data), "--jobs", "1", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(CsvHook, "__call__", interrupt)
        assert main(command) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"openjepa: interrupted; resume with the same command and --out {out}"
    first, second = out / "cells" / "base" / "seed-0", out / "cells" / "mask.ratio=0.3" / "seed-0"
    assert (first / "summary.json").exists()
    assert not (second / "summary.json").exists()
    before = (first / "summary.json").stat().st_mtime_ns

    steps: list[int] = []
    monkeypatch.setattr(CsvHook, "__call__", lambda h, p, o, s: (log(h, p, o, s), steps.append(p.step))[0])
    result = answer(capsys, *command)
    assert (first / "summary.json").stat().st_mtime_ns == before  # finished cells are kept
    assert steps == [5, 6]  # the unfinished one resumes at its checkpoint
    whole = read_json(ablation / "results.json")
    for mine, theirs in zip(result["arms"], whole["arms"], strict=True):
        assert (mine["skill"], mine["measures"], mine["flops"]) == (
            theirs["skill"], theirs["measures"], theirs["flops"])  # fmt: skip
    assert result["differences"] == whole["differences"]


def test_more_seeds_are_added_to_what_there_is(
    ablation: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "more"
    shutil.copytree(ablation, out)
    trained = []
    train = api.train
    monkeypatch.setattr(api, "train", lambda *a, **k: trained.append(k["out"]) or train(*a, **k))
    result = answer(capsys, "ablate", "t_jepa", *ablated(data, seeds=2), "--jobs", "1", "--out", out)
    assert sorted(path.name for path in trained) == ["seed-1", "seed-1"]
    assert result["seeds"] == [0, 1]
    assert result["differences"][0]["seeds"] == 2
    for mine, theirs in zip(result["arms"], read_json(ablation / "results.json")["arms"], strict=True):
        assert mine["measures"]["topic_knn"]["by_seed"][0] == theirs["measures"]["topic_knn"]["by_seed"][0]
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["seed"]) for row in rows] == [
        ("base", "0"), ("base", "1"), ("mask.ratio=0.3", "0"), ("mask.ratio=0.3", "1")]  # fmt: skip


def test_a_cell_that_diverges_is_a_result(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, out = api.train, tmp_path / "x"

    def diverge(*arguments, **options):
        if "lr=0.5" in str(options["out"]):
            raise TrainingStopped("non-finite gradient at step 3")
        return train(*arguments, **options)

    monkeypatch.setattr(api, "train", diverge)
    command = ["ablate", "t_jepa", f"data.source={data}", *TINY, "train.lr=0.001,0.5", "--seeds", "1", "--jobs", "1"]
    result = answer(capsys, *command, "--out", out)
    assert [arm["verdict"] == "stopped" for arm in result["arms"]] == [False, False, True]  # the preset's own lr first
    assert stop_reason(cells(out)["train.lr=0.5 seed-0"]) == "non-finite gradient at step 3"
    assert {row["arm"] for row in result["differences"]} == {"train.lr=0.001"}
    monkeypatch.setattr(api, "train", lambda *arguments, **options: pytest.fail("it would stop again"))
    assert main([*command, "--out", str(out)]) == 0
    assert "stopped" in capsys.readouterr().out


def test_a_cell_has_one_worker_at_a_time(ablation: Path) -> None:
    from filelock import FileLock

    path = cells(ablation)["base seed-0"]
    with FileLock(path / ".lock"), pytest.raises(UserError, match="another process"):
        worker.finish(path)


@pytest.mark.slow
@pytest.mark.timeout(900)  # two processes import everything anew
def test_processes_give_the_same_results(ablation: Path, data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "parallel"
    result = answer(capsys, "ablate", "t_jepa", *ablated(data), "train.threads=1", "--jobs", 2, "--out", out)
    whole = read_json(ablation / "results.json")
    for mine, theirs in zip(result["arms"], whole["arms"], strict=True):
        assert mine["measures"]["topic_knn"]["by_seed"][0] == theirs["measures"]["topic_knn"]["by_seed"][0]


def test_a_process_that_fails_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker says (here it runs in this process, as importing takes seconds) is what the study ends with."""
    out, words = tmp_path / "broken", ["ablate", "t_jepa", "mask.ratio=0.3,0.5", "data.source=none.jsonl", *TINY]
    monkeypatch.setattr(running, "start_worker", ends_like_the_worker)
    assert main([*words, "--seeds", "1", "--jobs", "2", "--out", str(out)]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def ends_like_the_worker(cell: Cell, jobs: int) -> subprocess.Popen:
    """A process that leaves the log and the exit code of the cell's worker."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["worker", str(cell.path)])
        code = worker.main()
    assert code == 2
    (cell.path / running.LOG).write_text(said.getvalue())
    return subprocess.Popen(["sh", "-c", f"exit {code}"])


def test_an_arm_that_cannot_be_built_is_named_before_any_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "heads"
    words = ["encoder.heads=2,3", f"data.source={data}", *TINY]
    assert main(["ablate", "t_jepa", *words, "--seeds", "1", "--jobs", "1", "--out", str(out)]) == 2
    assert "encoder.heads=3: " in capsys.readouterr().err
    assert not out.exists()


def test_a_study_does_not_go_on_with_other_data(
    ablation: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "study"
    shutil.copytree(ablation, out)
    assert list(read_json(out / "data.json")) == [str(data)]
    write_json(out / "data.json", {str(data): [[str(data), 1, 1]]})
    assert main(["ablate", "t_jepa", *ablated(data, seeds=2), "--out", str(out)]) == 2
    assert f"{data} changed since {out} was begun with it" in " ".join(capsys.readouterr().err.split())
    assert len(cells(out)) == 2


@pytest.fixture(scope="module")
def comparison_folder(data: Path) -> Path:
    out = data.parent / "comparison"
    words = ["t_jepa", "t_jepa+mask.ratio=0.3", "baselines/mlm", f"data.source={data}", *SETTINGS[:-1]]
    assert main(["compare", *words, "--budget", "tokens=1500", "--seeds", "1", "--jobs", "1", "--out", str(out)]) == 0
    return out


def test_a_comparison_gives_every_arm_the_same_data_encoder_and_tokens(comparison_folder: Path) -> None:
    found = read_json(comparison_folder / "results.json")
    assert [arm["label"] for arm in found["arms"]] == ["t_jepa", "t_jepa+mask.ratio=0.3", "baselines/mlm"]
    assert found["budget"] == {"unit": "tokens", "amount": 1500}
    runs = [api.load(path) for path in cells(comparison_folder).values()]
    assert {run.recipe for run in runs} == {"t_jepa", "baselines/mlm"}
    assert all((run.config.data, run.config.encoder) == (runs[0].config.data, runs[0].config.encoder) for run in runs)
    for arm in found["arms"]:
        assert arm["tokens"] == pytest.approx(1500, rel=0.15)
        assert arm["flops"] > 0
    assert found["arms"][0]["flops"] != found["arms"][2]["flops"]
    assert (comparison_folder / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_suite_scores_trained_cells_anew_and_all_of_them_alike(
    comparison_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "train", lambda *arguments, **options: pytest.fail("all cells are trained"))
    words = ["t_jepa", "t_jepa+mask.ratio=0.3", "baselines/mlm", f"data.source={data}", *SETTINGS[:-1]]
    budget = ["--budget", "tokens=1500", "--seeds", "1", "--jobs", "1", "--out", comparison_folder]
    suite = tmp_path / "mine.yaml"

    def scored(limit: int) -> tuple[dict, int]:
        probe = f"{{kind: probe, name: subject, train: {data}, label: topic, train_limit: {limit}}}"
        hidden = f"{{kind: hidden_sentence, name: text, source: {tmp_path}/texts.txt}}"
        suite.write_text(f"tasks:\n  - {probe}\n  - {hidden}\n")
        found = answer(capsys, "compare", *words, *budget, "--suite", suite)
        return found, len(list(comparison_folder.glob("cells/*/*/evals/study-mine-*.json")))

    (tmp_path / "texts.txt").write_text("\n".join(f"It is {n}. They are red. All {n} of them." for n in range(20)))
    found, files = scored(limit=50)
    assert (found["suite"], files) == ("mine", 3)
    assert found["headlines"][1:] == [
        "subject_knn", "subject_logistic", *(f"text_{p}_{m}" for p in ("within", "elsewhere") for m in ("top1", "mrr"))
    ]  # fmt: skip
    assert {len(arm["measures"]) for arm in found["arms"]} == {6}
    assert set(found["baselines"]) == {"tfidf", "bm25"}
    (cell,) = comparison_folder.glob("cells/*mlm*/seed-0")
    (file,) = (cell / "evals").glob("study-mine-*.json")
    before = file.read_text()
    file.unlink()
    monkeypatch.setattr("sys.argv", ["worker", str(cell), str(suite)])
    assert worker.main() == 0  # as a process of its own does it
    assert file.read_text() == before
    assert scored(limit=50) == (found, 3)
    assert scored(limit=40)[1] == 6  # another suite: scored anew
    own = answer(capsys, "compare", *words, *budget)
    assert (own["suite"], own["headlines"][1]) == (None, "topic_knn")
    assert main([str(word) for word in ("compare", *words, *budget, "--suite", tmp_path / "none.yaml")]) == 2
    assert "no suite file at" in capsys.readouterr().err


def test_flops_are_the_matrix_products_of_a_step(data: Path, tmp_path: Path) -> None:
    """An MLM step of one block, by hand: 6 FLOPs a weight and token, attention, and the head at hidden tokens."""
    from openjepa.core.experiment import BuildContext
    from openjepa.data.loading.loader import train_batches
    from openjepa.recipes.baselines import mlm

    config = mlm.Config.load(overrides=[f"data.source={data}", *SETTINGS])
    experiment = mlm.build(config, BuildContext(tmp_path))
    cost = costs.measure(experiment)
    batches = [batch for batch, _ in zip(train_batches(experiment, 0), range(costs.COUNTED), strict=False)]
    dim, vocab, flops, tokens = 16, batches[0].vocab, 0.0, 0
    for batch in batches:
        rows, length, hidden = *batch.ids.shape, int(batch.hidden.sum())
        block = 6 * rows * length * 12 * dim * dim + 3 * 2 * 2 * rows * length * length * dim
        flops += block + 6 * hidden * (dim * dim + dim * vocab)
        tokens += batch.tokens
    assert cost.flops_per_token == pytest.approx(flops / tokens, rel=0.02)
    assert costs.seconds_per_step(experiment) > 0


def test_equal_flops_mean_fewer_steps_for_the_dearer_method(data: Path, tmp_path: Path) -> None:
    arms = comparison_arms(["t_jepa", "baselines/mlm"], [f"data.source={data}", *SETTINGS])
    budget, planned = within_budget(arms, Budget("flops", 3e8), tmp_path, None)
    assert planned[0].config.train.steps != planned[1].config.train.steps
    again = within_budget(arms, None, tmp_path, None)
    assert again == (budget, planned)  # the plan is kept
    assert all(arm.config.train.fitted_warmup_steps <= arm.config.train.steps for arm in planned)
    with pytest.raises(UserError, match="another --budget"):
        within_budget(arms, Budget("tokens", 5), tmp_path, None)


def test_without_a_budget_all_get_the_tokens_of_the_first(data: Path, tmp_path: Path) -> None:
    arms = comparison_arms(["t_jepa", "baselines/simcse"], [f"data.source={data}", *SETTINGS])
    budget, planned = within_budget(arms, None, tmp_path, None)
    assert budget.unit == "tokens"
    assert [arm.config.train.steps for arm in planned] == [6, 6]


def test_an_arm_is_a_recipe_a_preset_and_settings() -> None:
    assert read_arm("t_jepa") == ("t_jepa", None, [])
    assert read_arm("baselines/mlm:tiny+mask_ratio=0.3+train.lr=1e-3") == (
        "baselines/mlm", "tiny", ["mask_ratio=0.3", "train.lr=1e-3"])  # fmt: skip
    first, second = comparison_arms(["t_jepa", "lang_jepa+mask.ratio=0.2"], ["encoder.dim=64"])
    assert (second.config.encoder, second.config.data) == (first.config.encoder, first.config.data)
    assert second.config.mask.ratio == 0.2


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ablate t_jepa", "give a key several values"),
        ("ablate mask.ratio=0.3,0.5", "give a recipe"),
        ("ablate t_jepa mosk.ratio=0.3,0.5", "mosk"),
        ("ablate t_jepa mask.ratio=0.3,7", "mask.ratio"),
        ("ablate t_jepa mask.ratio=0.3,0.4 --seeds 0", "at least 1 seed"),
        ("ablate t_jepa mask.ratio=0.3,0.4 --jobs 0 --out {tmp}", "--jobs"),
        ("ablate t_jepa mask.ratio=0.3,0.4 --grids", "did you mean --grid"),
        ("compare t_jepa", "at least two recipes"),
        ("compare t_jepa t_jepa", "given twice"),
        ("compare t_jepa t_jepb", "did you mean 't_jepa'"),
        ("compare t_jepa t_jepa:huge", "has no preset 'huge'"),
        ("compare t_jepa lang_jepa --budget steps=3", "write tokens=2e6"),
        ("compare t_jepa lang_jepa --budget tokens=-3", "above 0"),
        ("compare t_jepa lang_jepa+encoder.dim=8", "encoder is the same for all arms"),
        ("compare t_jepa i_jepa", "on the same data"),
        ("compare t_jepa lang_jepa+mask", "not of the form key=value"),
        ("compare t_jepa lang_jepa --sees 3", "No such option"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    line: str, hint: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    capsys.readouterr()
    code = main(line.format(tmp=tmp_path).split())
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (message,) = captured.err.splitlines()
    assert hint in message


def test_json_is_all_there_is_on_stdout(comparison_folder: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["t_jepa", "t_jepa+mask.ratio=0.3", "baselines/mlm", f"data.source={data}", *SETTINGS[:-1]]
    result = answer(capsys, "compare", *words, "--budget", "tokens=1500", "--seeds", 1, "--out", comparison_folder)
    assert result == json.loads((comparison_folder / "results.json").read_text())
    assert comparison.PLAN in {file.name for file in comparison_folder.iterdir()}
