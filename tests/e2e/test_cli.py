"""The command line as a user meets it: in this process where that is the same and faster, else in a fresh one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

import openjepa
from openjepa import api
from openjepa.api import Run
from openjepa.cli import main
from openjepa.core.compute import ON_CPU
from openjepa.core.configure import configure
from openjepa.core.describe import describe
from openjepa.core.json_files import read_jsonl
from openjepa.core.locate import built_in_recipes
from openjepa.evals.scorecard import Measure, Scorecard
from openjepa.training import checkpoint
from openjepa.training.checkpoint import WEIGHTS
from openjepa.training.hooks import CsvHook
from tests.tiny import NANO

SUBJECTS = {"cooking": "soup bread salt oven spoon butter", "sailing": "boat wind rope harbour wave anchor"}
TINY = [
    *("data.label=topic", "data.eval_fraction=0.2", "tokenizer.vocab_size=300", "tokenizer.kind=bytes"),
    *("encoder.dim=16", "encoder.depth=1", "encoder.heads=2", "predictor.width=16", "predictor.heads=2"),
    *("train.batch_tokens=0", "train.batch_size=8", "train.log_every=1", "train.health_every=2"),
    *("train.checkpoint_every=2", "train.precision=32-true", "train.accelerator=cpu", "train.steps=6"),
]


def corpus(folder: Path) -> Path:
    """120 labelled texts of 16 words in two topics."""
    rows = []
    for number in range(120):
        topic = sorted(SUBJECTS)[number % 2]
        words = SUBJECTS[topic].split()
        text = " ".join(words[(number * i + i) % 6] for i in range(1, 16)) + f" {number}"
        rows.append(json.dumps({"text": text, "topic": topic}))
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    return folder / "corpus.jsonl"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENJEPA_CACHE", str(folder / "cache"))
        yield corpus(folder)


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A finished run, evaluated."""
    out = data.parent / "run"
    assert main(["train", "t_jepa", f"data.source={data}", *TINY, "--out", str(out)]) == 0
    return out


def answer(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> dict:
    """What a verb prints with --json: one document on stdout, nothing else."""
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_help_and_listings_import_nothing_heavy() -> None:
    script = """
import sys
import openjepa
from openjepa.cli import main
for argv in (["--help"], ["train", "--help"], ["config", "--help"], ["recipes"], ["recipes", "--json"]):
    assert main(argv) == 0, argv
assert {"train", "load", "Run"} <= set(dir(openjepa))
heavy = {"torch", "numpy", "transformers", "lightning_fabric", "sklearn", "datasets", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"openjepa {verb}" in done.stdout for verb in ("train", "similar", "config explain"))


def test_the_names_of_the_package_are_those_of_the_python_interface() -> None:
    assert (openjepa.train, openjepa.load, openjepa.Run) == (api.train, api.load, api.Run)


def test_a_run_folder_holds_what_the_documentation_says(run: Path) -> None:
    for name in ("config.yaml", "env.json", "metrics.jsonl", "metrics.csv", "health.jsonl", "evals/default.json"):
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    assert {"recipe", "steps", "train_s", "tokens_per_s", "loss", "skill", "verdict", "eval", "semantic"} <= set(
        summary
    )
    assert summary["steps"] == 6
    assert summary["notes"]["data"]["documents"] == 120
    assert json.loads((run / "env.json").read_text())["notes"] == summary["notes"]
    assert set(summary["eval"]) == {"topic_knn", "topic_logistic"}
    assert {"run", "init", "random", "tfidf", "chance"} <= set(summary["eval"]["topic_knn"])
    assert summary["semantic"]["labels"] == ["first half", "second half", "another text"]
    steps = [line.partition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 7))]


def test_train_prints_pure_json_and_is_reproducible(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    again = answer(capsys, "train", "t_jepa", *TINY, "--data.source", data, "--no-eval", "--out", tmp_path / "again")
    assert again["run"] == str(tmp_path / "again")
    assert again["loss"] == json.loads((run / "summary.json").read_text())["loss"]
    assert "eval" not in again


def test_an_interrupted_run_says_how_to_go_on_and_ends_like_an_uninterrupted_one(
    run: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = CsvHook.__call__

    def interrupt(hook: CsvHook, progress, output, stats) -> None:
        log(hook, progress, output, stats)
        if progress.step == 5:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(CsvHook, "__call__", interrupt)
        assert main(["train", "t_jepa", f"data={data}", *TINY, "--no-eval", "--out", str(out)]) == 130
    assert (
        capsys.readouterr().err.splitlines()[-1] == f"openjepa: interrupted; resume with: openjepa train --resume {out}"
    )
    resumed = answer(capsys, "train", "--resume", out, "--no-eval")
    whole = json.loads((run / "summary.json").read_text())
    assert (resumed["loss"], resumed["skill"], resumed["steps"]) == (whole["loss"], whole["skill"], 6)
    rows = (out / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 7)]


def test_a_failed_start_can_be_mended_in_the_same_folder(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start = ["train", "t_jepa", *TINY, "train.steps=1", "--no-eval", "--out", str(tmp_path / "run")]
    assert main([*start, "data.source=misspelt.jsonl"]) == 2
    assert main([*start, f"data.source={data}"]) == 0
    capsys.readouterr()
    assert main([*start, f"data.source={data}"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_similar_without_texts_compares_everyday_sentences_unless_a_run_knows_a_world_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"The market number {n} fell on a Monday. A fox jumps over the dog." for n in range(100)]
    own = openjepa.train("t_jepa", data=texts, steps=1, health_every=1, out=tmp_path / "own", progress=False)
    assert main(["similar", str(own.path)]) == 0
    shown = capsys.readouterr().out
    assert "variation: A fast fox" in shown
    assert "random pairs: mean" in shown
    small = {"steps": 1, "health_every": 1, "health_samples": 32, "data.world_documents": 300}
    world = openjepa.train("t_jepa", out=tmp_path / "world", progress=False, **small)
    assert main(["similar", str(world.path)]) == 2
    said = capsys.readouterr()
    assert "knows only the words of its synthetic world" in said.err
    assert said.out == ""


def test_similar_shows_every_pair_beside_random_ones(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = answer(capsys, "similar", run, "soup bread salt", "oven butter", "boat wind")
    assert np.array(result["cosine"]).shape == (3, 3)
    assert {"mean", "std"} <= set(result["random_pairs"])
    assert main(["similar", str(run), "soup [bread]", "boat"]) == 0
    shown = capsys.readouterr().out
    assert "soup [bread]" in shown
    assert "random pairs: mean" in shown


def test_embed_rows_are_the_runs_vectors_in_the_order_of_the_input(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = [json.loads(line)["text"] for line in data.read_text().splitlines()]
    expected = openjepa.load(run).encode(texts)
    result = answer(capsys, "embed", run, data, "--out", tmp_path / "v.npy", "--batch-tokens", 64, "--precision", 32)
    assert (result["rows"], result["dim"]) == (120, 16)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
    (tmp_path / "in.txt").write_text(f"{texts[0]}\n\n{texts[1]}\n")
    assert (
        main(["embed", str(run), str(tmp_path / "in.txt"), "--out", str(tmp_path / "v.parquet"), "--precision", "32"])
        == 0
    )
    assert "rows without a text: 1, given zero vectors, the first at in.txt:2" in capsys.readouterr().err
    vectors = np.stack(pq.read_table(tmp_path / "v.parquet")["vector"].to_numpy())
    np.testing.assert_allclose(vectors, [expected[0], np.zeros(16), expected[1]], atol=1e-5)


def test_eval_on_rated_pairs_is_kept_in_the_run(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pairs = [("soup bread", "bread soup", 5), ("soup oven", "boat wind", 1), ("boat wave", "wave rope", 4)]
    rows = (json.dumps({"sentence1": a, "sentence2": b, "score": s}) for a, b, s in pairs)
    (tmp_path / "rated.jsonl").write_text("\n".join(rows))
    result = answer(capsys, "eval", run, "--sts", tmp_path / "rated.jsonl")
    assert {"run", "init", "random", "tfidf"} <= set(result["eval"]["rated"])
    assert json.loads((run / "evals" / "rated.json").read_text()) == result["eval"]


def test_long_texts_are_read_whole_and_said_where_they_are_cut(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "long.jsonl"
    texts = ["soup and bread " * 200, "soup and bread " * 200 + "the wind of the sea " * 50, "the wind", " "]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    whole = answer(capsys, "embed", run, file, "--out", tmp_path / "whole.npy")
    assert (whole["reading"]["long_texts"], whole["reading"]["tokens_left_out"]) == (2, 0)
    assert main(["embed", str(run), str(file), "--out", str(tmp_path / "cut.npy"), "--long", "cut"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "were cut" in line]
    assert len(said) == 1
    assert said[0].startswith("openjepa: 2 of 3 texts are longer than")
    vectors = {name: np.load(tmp_path / f"{name}.npy") for name in ("whole", "cut")}
    assert not np.allclose(vectors["whole"][0], vectors["whole"][1], atol=1e-5)
    np.testing.assert_allclose(vectors["cut"][0], vectors["cut"][1], atol=1e-6)
    assert answer(capsys, "similar", run, *texts[:2], "--long", "cut")["reading"]["long_texts"] == 2


def test_a_small_background_gives_no_percentages(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few.txt").write_text("soup and bread\nthe wind of the sea\na late train\nan old map\n")
    assert main(["similar", str(run), "soup", "bread", "--background", str(tmp_path / "few.txt")]) == 0
    out = capsys.readouterr().out
    assert "of only 6 pairs of 4 texts: too few for percentages" in out
    assert "%" not in out
    (tmp_path / "two.txt").write_text("soup and bread\nthe wind of the sea\n")
    assert main(["similar", str(run), "soup", "bread", "--background", str(tmp_path / "two.txt")]) == 2
    assert "--background FILE" in capsys.readouterr().err


def test_eval_on_the_sts_benchmark_under_a_name_of_ones_own(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = [("soup bread", 'bread "soup', 5.0), ("soup oven", "boat wind", 1.2), ("boat wave", "wave rope", 4.0)]
    lines = (
        "\t".join(["main", "own", "2012test", f"{n:04}", str(score), a, b]) for n, (a, b, score) in enumerate(pairs)
    )
    (tmp_path / "sts-dev.csv").write_text("\n".join(lines))
    assert main(["eval", str(run), "--sts", f"stsb={tmp_path / 'sts-dev.csv'}"]) == 0
    assert "stsb" in capsys.readouterr().out
    assert set(json.loads((run / "evals" / "stsb.json").read_text())) >= {"stsb"}
    result = answer(capsys, "eval", run, "--sts", tmp_path / "sts-dev.csv")
    assert "sts-dev" in result["eval"]


def test_a_folder_is_embedded_as_it_is_trained_on(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.md").write_text("# Soup\n\nbread *salt*")
    (tmp_path / "in" / "b.csv").write_text('id,text\n1,"boat\nwind"\n2,\n')
    (tmp_path / "in" / "deep" / "c.txt").write_bytes(b"caf\xe9 rope\n")
    (tmp_path / "in" / "d.pdf").write_bytes(b"x")
    result = answer(capsys, "embed", run, tmp_path / "in", "--out", tmp_path / "v.parquet")
    assert (result["rows"], result["without_text"]) == (4, 1)
    assert result["counts"] == {"texts": 3, "empty": 1, "mended: not UTF-8": 1, "left out: .pdf": 1}
    assert pq.read_table(tmp_path / "v.parquet")["id"].to_pylist() == ["a.md", "b.csv:2", "b.csv:4", "deep/c.txt:1"]
    assert main(["embed", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "v.npy")]) == 0
    assert "data: 3 texts, 1 empty, 1 mended: not UTF-8; left out: 1 x .pdf" in capsys.readouterr().err
    assert main(["embed", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "v.npy"), "--txt", "words"]) == 2
    assert "--txt words: there are auto, paragraphs, lines, files" in capsys.readouterr().err


@pytest.fixture(scope="module")
def suite(data: Path) -> Path:
    """Rated pairs, topics, retrieval and hidden sentences, made of the words of the corpus."""
    folder = data.parent / "suite"
    (folder / "find" / "qrels").mkdir(parents=True)
    texts = [" ".join(words.split()[i : i + 3]) for words in SUBJECTS.values() for i in range(4)]
    files = {
        "pairs.jsonl": [
            {"sentence1": text, "sentence2": texts[n // 2], "score": n % 3} for n, text in enumerate(texts)
        ],
        "find/corpus.jsonl": [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(texts)],
        "find/queries.jsonl": [{"_id": f"q{n}", "text": text.split()[0]} for n, text in enumerate(texts)],
        "stories.jsonl": [
            {"text": " ".join(f"{w.capitalize()} is {n}." for w in t.split())} for n, t in enumerate(texts)
        ],
    }
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(len(texts)))
    (folder / "find" / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}q99\td0\t1\n")
    tasks = [
        {"kind": "sts", "name": "pairs", "file": "pairs.jsonl"},
        {"kind": "probe", "name": "subject", "train": str(data), "label": "topic", "train_limit": 60},
        {"kind": "retrieval", "name": "find", "folder": "find"},
        {"kind": "hidden_sentence", "name": "story", "source": "stories.jsonl", "documents": 6},
    ]
    (folder / "words.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    return folder / "words.yaml"


MEASURES = ["pairs", "subject_knn", "subject_logistic", "find_ndcg10", "find_recall10"] + [
    f"story_{pool}_{measure}" for pool in ("within", "elsewhere") for measure in ("top1", "mrr")
]


@pytest.mark.slow
def test_a_suite_asks_what_its_file_names(run: Path, suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = answer(capsys, "eval", run, "--suite", suite)
    assert list(result["eval"]) == MEASURES
    assert json.loads((run / "evals" / "words.json").read_text()) == result["eval"]
    assert result["notes"] == {"find: judged query that is not in queries.jsonl": 1}
    assert all({"run", "init", "random", "tfidf"} <= set(row) for row in result["eval"].values())
    assert {name for name, row in result["eval"].items() if "bm25" in row} == set(MEASURES[3:])
    assert result["eval"]["find_recall10"]["bm25"] == 1
    assert result["eval"]["subject_knn"]["tfidf"] > 0.9
    assert main(["eval", str(run), "--suite", str(suite)]) == 0
    assert "bm25 is above the run on" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_names_the_best_latents_and_keeps_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = answer(capsys, "eval", run, "--sweep")
    best = max(point["validation"] for point in result["points"])
    assert result["chosen"]["validation"] == best
    assert {point["encoder"] for point in result["points"]} == {"embedding", "student", "teacher"}
    assert json.loads((run / "evals" / "sweep.json").read_text())["chosen"] == result["chosen"]
    assert main(["eval", str(run), "--sweep"]) == 0
    shown = capsys.readouterr().out
    assert "best on validation" in shown
    assert "attentive" in shown


def test_the_best_vectors_of_a_sweep_can_be_exported(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    best = {"encoder": "teacher", "layer": 0, "pooling": "max", "validation": 0.9}
    learned = best | {"layer": 1, "pooling": "attentive", "validation": 1.0}
    plain = {"encoder": "embedding", "layer": 0, "pooling": "mean", "validation": 0.5}
    scorecard = json.loads((run / "evals" / "default.json").read_text())
    sweep = {"chosen": best, "points": [plain, learned, best], "test": scorecard}
    (run / "evals" / "sweep.json").write_text(json.dumps(sweep))
    (tmp_path / "texts.txt").write_text("soup and bread\nthe wind\n")
    command = ["embed", run, tmp_path / "texts.txt", "--out", tmp_path / "v.npy"]
    assert answer(capsys, *command)["latents"] == "embedding"
    result = answer(capsys, *command, "--best")
    assert result["latents"] == "teacher layer 0, max"
    opened = openjepa.load(run)
    batch = opened.experiment.embedding.inputs(["soup and bread", "the wind"])
    layers = opened.experiment.method.encoders()["teacher"].states(batch.ids, batch.valid)
    expected = layers[0].masked_fill(~batch.valid[..., None], -float("inf")).amax(1)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected.detach().numpy(), atol=1e-5)
    (run / "evals" / "sweep.json").unlink()
    assert main([str(word) for word in (*command, "--best")]) == 2
    assert "--sweep finds the best latents" in capsys.readouterr().err


@pytest.mark.parametrize(("interval", "code"), [((-0.3, -0.1), 1), ((-0.3, 0.1), 0)])
def test_eval_fails_where_training_hurt_and_only_there(
    run: Path, monkeypatch: pytest.MonkeyPatch, interval: tuple[float, float], code: int
) -> None:
    values = {"run": 0.4, "init": 0.6, "random": 0.5, "tfidf": 0.7}
    scorecard = Scorecard({"topic_knn": Measure(values, 0.5, interval)})
    monkeypatch.setattr(Run, "evaluate", lambda *arguments: scorecard)
    assert main(["eval", str(run), "--fail-if-worse"]) == code


def test_diagnose_gives_the_latest_verdict_and_an_override_that_is_valid(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = answer(capsys, "diagnose", run)
    assert [record["step"] for record in result["history"]] == [0, 2, 4, 6]
    assert result["latest"] == result["history"][-1]
    configure("t_jepa", overrides=result["override"])
    assert main(["diagnose", str(run)]) == 0
    assert f"verdict: {result['latest']['status']}" in capsys.readouterr().out


def test_diagnose_leaves_no_step_out(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    long = tmp_path / "long"
    shutil.copytree(run, long)
    (record, *_) = openjepa.load(run).health()
    steps = range(0, 400, 10)
    (long / "health.jsonl").write_text("".join(json.dumps({**record, "step": step}) + "\n" for step in steps))
    assert main(["diagnose", str(long)]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()]
    assert [word for word in first if word.isdigit()] == [str(step) for step in steps]


def test_a_recipe_without_texts_is_not_reproached_for_having_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "tasks", lambda run: [])
    assert main(["train", "nano_jepa", *NANO, "train.steps=1", "--out", str(tmp_path / "run")]) == 0
    assert "no similarity check" not in capsys.readouterr().err


def test_masks_of_a_run_and_of_a_recipe_are_one_page_each(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = answer(capsys, "masks", run, "mask.ratio=0.25", "--samples", 2)
    assert (result["page"], result["recipe"]) == (str(run / "masks.html"), "t_jepa")
    assert result["samples"] == len(openjepa.load(run).experiment.train_data)
    assert result["figures"]["hidden_share"]["mean"] == pytest.approx(0.25, abs=0.02)
    page = (run / "masks.html").read_text()
    assert page.count('class="text"') == 2 * 2  # samples, epochs
    assert "://" not in page.replace("http://www.w3.org", "")  # nothing from elsewhere
    words = ["i_jepa", "data.images=60", "data.size=24", "encoder.patch=4", "--out", str(tmp_path / "page.html")]
    assert main(["masks", *words]) == 0
    shown = capsys.readouterr().out
    assert "smallest context" in shown
    assert str(tmp_path / "page.html") in shown
    assert (tmp_path / "page.html").read_text().count("<img ") == 6 * 5


@pytest.mark.parametrize("passed", [True, False])
def test_check_exits_with_1_if_a_law_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, passed: bool
) -> None:
    seen = []

    def check_recipe(*arguments):
        seen.append(arguments)
        return [SimpleNamespace(name="no leak", passed=passed, detail="moved by 0")]

    monkeypatch.setattr("openjepa.preflight.checks.check_recipe", check_recipe)
    result = answer(capsys, "check", "t_jepa", "mask.ratio=0.5", code=0 if passed else 1)
    assert seen == [("t_jepa", None, None, ["mask.ratio=0.5"], ON_CPU)]
    assert result["passed"] is passed


@pytest.mark.parametrize("recipe", built_in_recipes())
def test_the_first_view_of_a_recipes_settings_is_one_screen_and_the_rest_is_a_word_away(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["config", "explain", recipe]) == 0
    shown = capsys.readouterr().out
    assert 20 <= len(shown.splitlines()) <= 40
    every = answer(capsys, "config", "explain", recipe)
    keys = [row["key"] for row in every]
    listed = [line.split()[0] for line in shown.splitlines() if line.strip() and line.split()[0] in keys]
    assert {"data.source", "train.steps", "train.batch_size", "train.lr", "train.seed"} <= set(listed)
    assert f"{len(listed)} of {len(keys)} settings" in shown
    assert main(["config", "explain", recipe, "--all"]) == 0
    full = capsys.readouterr().out
    assert all(key in full for key in ("train.grad_clip", *(key for key in keys if len(key) < 16)))
    assert main(["config", "explain", recipe, "train"]) == 0
    section = capsys.readouterr().out
    assert "train.grad_clip" in section
    assert "data.source" not in section


@pytest.mark.parametrize("recipe", built_in_recipes())
def test_a_copied_configuration_loads_back_equal_and_every_key_is_explained(
    recipe: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    assert main(["config", "copy", recipe, str(file)]) == 0
    assert main(["config", "validate", str(file)]) == 0
    assert configure(recipe, config=file)[1] == configure(recipe)[1]
    assert [setting.key for setting in describe(configure(recipe)[1]) if not setting.doc] == []
    capsys.readouterr()
    assert main(["config", "show", recipe]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == answer(capsys, "config", "show", recipe)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("trian t_jepa", "train"),
        ("train t_jpea", "did you mean 't_jepa'"),
        ("train t_jepa stps=3 lr=abc", "did you mean 'steps'"),
        ("train t_jepa stps=3 lr=abc", "train.lr"),
        ("train t_jepa --presets tiny", "did you mean --preset?"),
        ("train t_jepa --preset huge", "has no preset 'huge'"),
        ("train", "give a recipe"),
        ("train --config {tmp}/none.yaml", "no configuration file at"),
        ("train --resume {run} steps=3", "train.steps cannot be changed in a run that exists"),
        ("train t_jepa --resume {run}", "own configuration"),
        ("train ./none.py", "no recipe file at"),
        ("similar {tmp} a b", "is not a run folder"),
        ("similar {run} a", "at least two texts"),
        ("embed {run} {tmp}/none.txt --out {tmp}/v.npy", "none.txt matches no file or folder"),
        ("embed {run} {data} --out {tmp}/v.csv", ".npy or .parquet"),
        ("embed {run} {data} --column body --out {tmp}/v.npy", "has no column 'body'"),
        ("eval {run} --sts {data}", "no field 'sentence1'"),
        ("eval", "Missing argument 'RUN'"),
        ("eval {run} --suite {tmp}/none.yaml", "no suite file at"),
        ("eval {run} --suite {broken}", "line 3 is not valid YAML"),
        ("eval {run} --suite {broken} --sts {data}", "not both"),
        ("eval {run} --sweep --fail-if-worse", "cannot be combined with"),
        ("masks mask.ratio=0.5", "give a run folder or a recipe"),
        ("masks {run} --preset tiny", "no --preset"),
        ("masks lejepa data.images=60 --out {tmp}/m.html", "nothing is hidden with these settings"),
        ("config explain t_jepa mosk", "did you mean 'mask'"),
        ("config validate {broken}", "line 3 is not valid YAML"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    line: str, hint: str, run: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("recipe: t_jepa\ntrain: [1\n")
    capsys.readouterr()
    code = main([word.format(tmp=tmp_path, run=run, data=data, broken=broken) for word in line.split()])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (message,) = captured.err.splitlines()
    assert message.startswith("openjepa: ")
    assert hint in message


@pytest.mark.slow
def test_two_processes_train_the_run_of_one_and_speak_once(data: Path, tmp_path: Path) -> None:
    settings = ("train.steps=4", "train.predictor_only_fraction=0.5", "train.accumulate=2", "train.log_every=2",
                "train.loggers=[tensorboard]")  # fmt: skip
    words = ["train", "t_jepa", f"data.source={data}", *TINY, *settings, "--no-eval", "--out"]
    command = [sys.executable, "-m", "openjepa", *words, str(tmp_path / "run"), "train.devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.partition(" ")[0] for line in done.stdout.splitlines()]
    assert said.count("verdict:") == said.count("run:") == 1
    assert done.stderr.count("step 4/4") == 1
    assert "Initializing" not in done.stderr
    assert main([*words, str(tmp_path / "alone")]) == 0
    logs = [list(read_jsonl(tmp_path / run / "metrics.jsonl")) for run in ("run", "alone")]
    assert [row["step"] for row in logs[0]] == [2, 4]
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 1  # one rank writes
    for ours, theirs in zip(*logs, strict=True):
        names = [name for name in ours if name.startswith(("loss", "grad_norm", "tokens", "samples"))]
        same = [name for name in names if not name.endswith("_per_s")]
        assert {"loss", "loss_prediction", "grad_norm", "grad_norm_max", "tokens", "samples"} < set(same)
        assert {name: ours[name] for name in same} == pytest.approx({name: theirs[name] for name in same}, rel=1e-4)
    weights = [load_file(checkpoint.newest(tmp_path / run / "checkpoints") / WEIGHTS) for run in ("run", "alone")]
    noise = "qkv.bias"  # keys' biases change nothing: their gradient is rounding, which Adam blows up
    ours, theirs = ({name: w for name, w in found.items() if not name.endswith(noise)} for found in weights)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
