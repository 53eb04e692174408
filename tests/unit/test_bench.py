"""The benchmarks run and say what they promise. How fast anything is, is asked of no test."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(tmp_path: Path, recipe: str, corpus: Path, *more: str) -> dict[str, Any]:
    import bench_step

    asked = ["--toy", "--seconds", "0.1", "--json", "--results", str(tmp_path), "--data", str(corpus)]
    bench_step.main([recipe, *asked, *more])
    (written,) = tmp_path.glob(f"step_{recipe}_toy*.json")
    return json.loads(written.read_text())


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, Path]:
    """A small source for every recipe."""
    texts = [f"The {a} {b} sat on number {i}." for i, a in enumerate("abcdefghij") for b in "klmno"]
    documents = [" ".join(texts[i : i + 4]) for i in range(len(texts) - 4)]
    asked = [{"question": f"What is {i} more than {i + 2}?", "answer": f"Add.\n#### {2 * i + 2}"} for i in range(60)]
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    (tmp_path / "documents.txt").write_text("\n".join(documents))
    (tmp_path / "asked.jsonl").write_text("\n".join(json.dumps(row) for row in asked))
    pixels = np.random.default_rng(0)
    for number in range(60):
        (tmp_path / "images").mkdir(exist_ok=True)
        image = Image.fromarray(pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.save(tmp_path / "images" / f"{number}.png")
    files = {"t_jepa": "corpus.txt", "lang_jepa": "documents.txt", "nano_jepa": "asked.jsonl", "i_jepa": "images"}
    return {**{recipe: tmp_path / file for recipe, file in files.items()}, "vl_jepa": Path("scenes")}


@pytest.mark.parametrize(
    ("recipe", "item", "unit", "padding", "override"),
    [
        ("t_jepa", "real token", "token", "max", "mask.ratio=0.3"),
        ("lang_jepa", "hidden sentence", "sentence", "batch", "mask.ratio=0.3"),
        ("nano_jepa", "question", "question", "max", "decoder.max_len=48"),
        ("i_jepa", "image", "image", None, "mask.targets=3"),
        ("vl_jepa", "image", "image", None, "mask.ratio=0.5"),
    ],
)
def test_bench_step_writes_what_the_readme_lists(
    recipe: str, item: str, unit: str, padding: str | None, override: str,
    corpora: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    result = run(tmp_path, recipe, corpora[recipe], override)
    assert result["name"] == f"step_{recipe}_toy"
    assert json.loads(capsys.readouterr().out) == result
    for side in (result["ours"], result["reference"]):
        assert side["steps"] >= 5
        assert 0 <= side["padding_share"] < 1
        assert min(side[f"{unit}s_per_s"], side["step_ms"], side["trained_parameters"]) > 0
    assert 0 < result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
    assert min(result["share_of_bf16_matmul_rate"], result[f"ours_mflop_per_{unit}"]) > 0
    assert (result["item"], result["precision"], result["reference_padding"]) == (item, "bf16-mixed", padding)
    assert result["overrides"] == [override]
    assert {"data", "torch", "threads", "load_average", "vocabulary", "size"} <= set(result)
    assert str(tmp_path) not in json.dumps(result)  # results are shared: no paths of this machine
    if recipe != "t_jepa":  # whose original has another predictor
        assert result["ours"]["trained_parameters"] == result["reference"]["trained_parameters"]


@pytest.mark.slow
def test_bench_memory_measures_a_whole_training_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_memory

    monkeypatch.setenv("OPENJEPA_CACHE", str(tmp_path / "cache"))  # put back afterwards
    bench_memory.main(["--toy", "--steps", "2", "--results", str(tmp_path)])
    result = json.loads((tmp_path / "memory_vl_jepa_toy.json").read_text())
    assert 0.1 < result["peak_gb"] < 8


def test_precision_and_padding_are_told_apart(corpora: dict[str, Path], tmp_path: Path) -> None:
    result = run(tmp_path, "nano_jepa", corpora["nano_jepa"], "--precision", "32-true", "--padding", "batch")
    assert result["name"] == "step_nano_jepa_toy_fp32_padding_batch"
    assert (result["precision"], result["reference_padding"]) == ("32-true", "batch")


def test_the_result_in_the_repository_has_the_keys_that_are_written() -> None:
    kept = json.loads((BENCHMARKS / "results" / "step_t_jepa.json").read_text())
    assert min(kept["ours"]["tokens_per_s"], kept["reference"]["tokens_per_s"], kept["ours_mflop_per_token"]) > 0


def test_flops_of_a_step_are_counted_in_closed_form() -> None:
    from stepping import Read, count_flops

    x, weight = torch.ones(6, 4), torch.ones(4, 8, requires_grad=True)

    def step() -> Read:
        (x @ weight).sum().backward()  # forward 2 * 6 * 4 * 8, backward the same for the weight
        return Read(6, [])

    assert count_flops(step) == 2 * 2 * 4 * 8


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A folder with the config of a tiny encoder."""
    from transformers import DistilBertConfig

    DistilBertConfig(vocab_size=30, n_layers=1, dim=16, n_heads=2, hidden_dim=32).save_pretrained(tmp_path)
    return tmp_path


def test_the_t_jepa_reference_learns_hides_its_share_and_never_padding(encoder: Path) -> None:
    from reference_t_jepa import LENGTH, ReferenceTJEPA

    reference = ReferenceTJEPA(encoder, pad_id=0, mask_id=4)
    before = copy.deepcopy(reference.teacher)
    valid = reference.step([np.arange(5, 15, dtype=np.int32), np.full(200, 7, dtype=np.int32)])
    assert valid.sum(1).tolist() == [10, LENGTH]
    assert moved(before, reference.teacher)
    hidden = torch.zeros(LENGTH, dtype=torch.bool)
    reference.hide_spans(hidden, 10)
    assert int(hidden.sum()) == int(hidden[:10].sum()) == 4


@pytest.mark.parametrize(("padding", "widths"), [("batch", (9, 7)), ("max", (12, 12))])
def test_the_lang_jepa_reference_reads_a_context_for_every_hidden_sentence(
    encoder: Path, padding: Any, widths: tuple[int, int]
) -> None:
    from reference_lang_jepa import ReferenceLangJEPA, Sizes

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([int(word) for word in text.split()], dtype=np.int32) for text in texts]

    reference = ReferenceLangJEPA(encoder, encode, 0, Sizes(12, 8, 1, 2), hidden_share=0.5, padding=padding)
    documents = [["5 5", "6 6 6", "7 7 7 7", "8 8 8 8 8"], ["9 9 9 9 9 9 9", "10 10"]]
    contexts, sentences, numbers = reference.pairs(documents)
    assert len(contexts) == len(sentences) == len(numbers) == 2 + 1
    assert contexts[0] == contexts[1] == " ".join(s for s in documents[0] if s not in sentences)
    assert sentences == [documents[0][numbers[0]], documents[0][numbers[1]], documents[1][numbers[2]]]

    reference.pairs = lambda _: (["5 5 6 6 6 7 7 7 7", "10 10"], ["8 8 8 8 8", "9 9 9 9 9 9 9"], [3, 0])
    before = [copy.deepcopy(part) for part in (reference.student, reference.teacher, reference.predictor)]
    valid, sentence_valid = reference.step(documents)
    assert (valid.shape, sentence_valid.shape) == ((2, widths[0]), (2, widths[1]))
    assert (valid.sum(1).tolist(), sentence_valid.sum(1).tolist()) == ([9, 2], [5, 7])
    after = (reference.student, reference.teacher, reference.predictor)
    assert all(moved(old, new) for old, new in zip(before, after, strict=True))


def test_padding_changes_no_prediction_of_the_lang_jepa_reference() -> None:
    from reference_lang_jepa import Predictor, Sizes

    predictor, context = Predictor(16, Sizes(12, 8, 1, 2)).eval(), torch.randn(1, 5, 16)
    valid, number = torch.tensor([[1, 1, 1, 0, 0]]), torch.tensor([2])
    whole = predictor(context, valid, number)
    torch.testing.assert_close(whole, predictor(context[:, :3], valid[:, :3], number))
    assert not torch.allclose(whole, predictor(context, valid, torch.tensor([1])))  # it is told which sentence


def test_the_nano_jepa_reference_makes_three_passes_and_learns() -> None:
    from reference_nano_jepa import ReferenceNanoJEPA

    reference = ReferenceNanoJEPA(1, 16, 2, vocab=30, length=12, marks=(0, 3, 29))
    rows = [(np.array([5, 6, 7], dtype=np.int32), np.array([8], dtype=np.int32)), (np.arange(5, 11), np.arange(8, 11))]

    @torch.no_grad()
    def agreement() -> float:
        predicted = reference.last_states([np.append(question, 29) for question, _ in rows])[0]
        return float(torch.cosine_similarity(predicted, reference.last_states([a for _, a in rows])[0]).mean())

    states = reference.model.transformer(torch.tensor([[5, 6, 7]])).last_hidden_state
    torch.testing.assert_close(reference.last_states([np.array([5, 6])])[0], states[:, 1])  # causal, not on padding
    before = agreement()
    passes = reference.step(rows)
    assert [valid.sum(1).tolist() for valid in passes] == [[4, 7], [1, 3], [5, 10]]
    assert {valid.shape for valid in passes} == {(2, 12)}
    for _ in range(20):
        reference.step(rows)
    assert agreement() > before


def test_the_i_jepa_reference_hides_blocks_and_learns() -> None:
    from reference_i_jepa import ReferenceIJEPA, Sizes

    reference = ReferenceIJEPA(Sizes(32, 4, 16, 1, 2, 8, 1, 2))
    context_at, hidden_at = reference.masks(6)
    for seen, hidden in zip(context_at.tolist(), hidden_at.tolist(), strict=True):
        assert not set(seen) & set(hidden)
        assert seen == sorted(set(seen))
        assert max(seen + hidden) < 64
    images = list(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))
    before = [copy.deepcopy(part) for part in (reference.student, reference.teacher, reference.predictor)]
    reference.step(images)
    after = (reference.student, reference.teacher, reference.predictor)
    assert all(moved(old, new) for old, new in zip(before, after, strict=True))


def test_padding_is_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="of one length"):
        run(tmp_path, "i_jepa", tmp_path, "--padding", "max")


def moved(before: torch.nn.Module, after: torch.nn.Module) -> bool:
    return any(not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters(), strict=True))


def test_adaptation_is_measured_arm_by_arm(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    import bench_adapt

    from tests.docs.test_adapt_guide import judged
    from tests.e2e.test_adapt import corpus
    from tests.unit.test_sentence_head import SHAPES, sentence_model

    sentence_model(SHAPES["mean of unit length"]).save_pretrained(str(tmp_path / "base"), create_model_card=False)
    judged(tmp_path / "judged", corpus(90, 4))
    shown: list[str] = []
    base = str(tmp_path / "base")
    options = ["--base", base, str(tmp_path / "judged"), "--curve", "--trials", "--against", base]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_adapt, "CUTS", (8, 4))
        assert bench_adapt.main([*options, "--json"], shown.append) == 0
    found = json.loads(shown[0])["judged"]
    start, words = found["arms"]["start"], found["arms"]["TF-IDF"]
    assert start[1:] == [0, 0, 0]
    assert words[0] > 0.5  # queries are words of their documents
    assert list(found["curve"]) == ["50", "90"]
    assert found["queries"] == 20
    assert found["trials"]["strength of the predictor 0.5 instead of 1"][0] > 0
    same = found["trials"][f"defaults from {base}"]
    assert same[1:] == [0, 0, 0]  # an encoder against itself
    table = bench_adapt.as_markdown(json.loads(shown[0]))
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == len(found["arms"]) + 1 + len(found["trials"]) + 1


@pytest.mark.parametrize("objective", ["document", "views", "ema"])
def test_the_last_blocks_alone_are_trained_and_a_tether_holds_them(objective: str, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    import train_last_blocks
    from sentence_transformers import SentenceTransformer

    from tests.docs.test_adapt_guide import judged
    from tests.e2e.test_adapt import corpus
    from tests.unit.test_sentence_head import SHAPES, sentence_model

    base, data = tmp_path / "base", tmp_path / "judged"
    judged(data, corpus(30, 4))
    sentence_model(SHAPES["mean of unit length"]).save_pretrained(str(base), create_model_card=False)
    common = ["--base", str(base), "--data", str(data), "--objective", objective, "--blocks", "1", "--batch", "8"]
    difference = {}
    for tether in ("0", "1000"):
        shown: list[str] = []
        out = tmp_path / tether
        options = ["--out", str(out), "--tether", tether, "--steps", "5", "--lr", "1e-2"]
        assert train_last_blocks.main([*common, *options], shown.append) == 0
        difference[tether] = float(shown[-1].split("tether ")[1].split(",")[0])
        before, after = (dict(SentenceTransformer(str(one)).named_parameters()) for one in (base, out))
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert all("layer.1." in name for name in changed), changed
    assert difference["1000"] < difference["0"]
