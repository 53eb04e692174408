"""Exports: the same vectors in other libraries, opened without openjepa; planted faults leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from openjepa.api import Run
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.export import bundle, card, usage
from openjepa.export.bundle import DESCRIPTION, export
from openjepa.export.inputs import TEXTS, as_squares, proof_images, proof_texts
from openjepa.export.proof import prove
from openjepa.export.source import Source
from openjepa.export.twins import stock_model
from openjepa.export.writers import write_sentence_transformers
from openjepa.models.decoder import Decoder, DecoderConfig
from openjepa.models.transformer import TextEncoder
from openjepa.models.vit import ViT, ViTConfig
from tests.opened import in_process
from tests.tiny import IMAGE, NANO, TINY

pytest.importorskip("sentence_transformers")
pytest.importorskip("onnxruntime")

V, D, T = 50, 16, 12


# ---- stock classes ----


def scattered(module: torch.nn.Module) -> Any:
    """With weights that are not those of an initialisation: zeros and ones would hide a swap."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("pad_id", [0, 7])
def test_a_text_encoder_equals_its_stock_class(pad_id: int) -> None:
    encoder = scattered(TextEncoder(V, D, 2, 4, T))
    ids = torch.randint(8, V, (3, T))
    valid = torch.arange(T) < torch.tensor([[T], [5], [1]])
    ids = ids.masked_fill(~valid, pad_id)
    model = stock_model(encoder, pad_id)
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=valid.long()).last_hidden_state
        torch.testing.assert_close(states[valid], encoder(ids, valid)[valid], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "made", [lambda: Decoder(DecoderConfig(dim=D, max_len=T), V), lambda: TextEncoder(V, D, 2, 4, T)]
)
def test_a_causal_encoder_equals_its_stock_class(made: Callable[[], TextEncoder]) -> None:
    encoder, ids = scattered(made()), torch.randint(0, V, (2, T))
    past = torch.ones(2, T, T, dtype=torch.bool).tril()
    with torch.no_grad():
        states = stock_model(encoder, 0, causal=True)(input_ids=ids).last_hidden_state
        torch.testing.assert_close(states, encoder(ids, past), atol=1e-6, rtol=0)


def test_a_vit_equals_its_stock_class() -> None:
    encoder = scattered(ViT(ViTConfig(patch=4, dim=D, depth=2, heads=2), 12))
    images = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        states = stock_model(encoder)(pixel_values=images).last_hidden_state
        torch.testing.assert_close(states, encoder(images), atol=1e-5, rtol=0)


def test_a_convolutional_stem_has_no_stock_class_and_says_what_goes() -> None:
    with pytest.raises(UserError, match=r"stem=conv has no stock class .* --to onnx"):
        stock_model(ViT(ViTConfig(patch=4, dim=D, depth=1, heads=2, stem="conv"), 12))


# ---- whole runs ----

SETTINGS = {"t_jepa": TINY, "nano_jepa": NANO, "lang_jepa": TINY, "i_jepa": IMAGE, "baselines/next_token": TINY[:8]}
TEXT_RUNS = ("t_jepa", "nano_jepa", "baselines/next_token")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A run of each recipe, trained for two steps when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(recipe: str) -> Run:
        from openjepa import api

        if recipe not in made:
            out = folder / recipe.replace("/", "_")
            settings = [*(s for s in SETTINGS[recipe] if "predictor" not in s or "next" not in recipe), "steps=2"]
            assert main(["train", recipe, *settings, "--out", str(out), "--no-eval"]) == 0
            made[recipe] = api.load(out)
        return made[recipe]

    return run


@pytest.mark.parametrize("to", ["transformers", "sentence-transformers", "onnx"])
@pytest.mark.parametrize("recipe", TEXT_RUNS)
def test_texts_have_the_same_vectors_everywhere(recipe: str, to: Any, runs: Any, tmp_path: Path) -> None:
    source = runs(recipe).export_source()
    done = export(source, to, tmp_path / "out", opened=in_process)
    (proof,) = done.proofs
    assert proof.inputs == len(proof_texts(source.max_row)) > len(TEXTS)
    assert proof.to_json()["smallest_cosine"] > 1 - 1e-6
    assert json.loads((done.folder / DESCRIPTION).read_text())["proof"] == [proof.to_json()]
    assert not [file for file in tmp_path.iterdir() if file.name != "out"]


@pytest.mark.parametrize("to", ["transformers", "sentence-transformers", "onnx"])
def test_images_have_the_same_vectors_everywhere(to: Any, runs: Any, tmp_path: Path) -> None:
    (proof,) = export(runs("i_jepa").export_source(), to, tmp_path / "out", opened=in_process).proofs
    assert proof.holds


@pytest.mark.slow
@pytest.mark.parametrize("to", ["sentence-transformers", "onnx"])
def test_the_verb_proves_in_a_process_that_does_not_know_openjepa(
    to: str, runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "out", runs("t_jepa")
    capsys.readouterr()
    assert main(["export", str(run.path), "--to", to, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["exports"][0]["proofs"][0]["largest_difference"] <= 1e-5
    assert "openjepa" not in (out / "README.md").read_text().partition("## Use")[2].partition("```")[0]


@pytest.mark.parametrize("to", ["onnx", "transformers", "sentence-transformers"])
def test_the_code_on_the_card_runs_and_cuts_long_texts(to: Any, runs: Any, tmp_path: Path) -> None:
    source, out = runs("t_jepa").export_source(), tmp_path / "out"
    text = (export(source, to, out, opened=in_process).folder / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0].replace(usage.FOLDER, str(out))
    exec(compile(code.replace("The ferry left at nine.", "The ferry left at nine. " * 200), "README.md", "exec"), {})


def test_int8_has_a_proof_of_its_own(runs: Any, tmp_path: Path) -> None:
    exact, int8 = export(runs("t_jepa").export_source(), "onnx", tmp_path / "out", int8=True, opened=in_process).proofs
    assert exact.holds
    assert int8.to_json()["tolerance"] is None
    assert exact.to_json()["largest_difference"] < int8.to_json()["largest_difference"]
    assert int8.to_json()["smallest_cosine"] > 0.9


def test_a_static_table_opens_and_says_what_it_loses(runs: Any, tmp_path: Path) -> None:
    from model2vec import StaticModel

    (proof,) = export(runs("t_jepa").export_source(), "model2vec", tmp_path / "out").proofs
    assert -1 <= proof.to_json()["kept_order"] < 1
    vectors = StaticModel.from_pretrained(tmp_path / "out").encode(["the chef", "the chef cooked"])
    assert vectors.shape == (2, 32)
    assert np.isfinite(vectors).all()


# ---- planted faults ----


def rewritten(change: Callable[[Path], None]) -> Callable[[Source, Path], None]:
    """The writer of sentence-transformers' format, then a change of its files."""

    def write(source: Source, folder: Path) -> None:
        write_sentence_transformers(source, folder)
        change(folder)

    return write


def other_pooling(folder: Path) -> None:
    file = folder / "1_Pooling" / "config.json"
    file.write_text(file.read_text().replace('"mean"', '"cls"'))


def added_normalization(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    kind = modules[1]["type"].rpartition(".")[0].rpartition(".")[0]
    (folder / "2_Normalize").mkdir()
    (folder / "2_Normalize" / "config.json").write_text("{}")
    modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kind}.normalize.Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))


def swapped_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    kept = json.loads(file.read_text())
    vocabulary = kept["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)
    kept["model"]["vocab"] = dict(zip(names, [*range(5), *range(len(names) - 1, 4, -1)], strict=True))
    file.write_text(json.dumps(kept))


def stale_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = max(tensors, key=lambda name: tensors[name].numel())
    save_file(
        {**tensors, name: tensors[name] + 0.01 * torch.randn_like(tensors[name])}, file, metadata={"format": "pt"}
    )


@pytest.mark.parametrize("fault", [other_pooling, added_normalization, swapped_tokenizer, stale_weights])
def test_planted_faults_are_refused_and_leave_nothing(
    fault: Callable[[Path], None], runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = runs("t_jepa").export_source()
    monkeypatch.setitem(bundle.WRITERS, "sentence-transformers", rewritten(fault))
    with pytest.raises(UserError, match="gives other vectors than the run and was not kept"):
        export(source, "sentence-transformers", tmp_path / "out", opened=in_process)
    assert not list(tmp_path.iterdir())


def test_vectors_of_another_shape_or_not_finite_are_refused(tmp_path: Path) -> None:
    expected = np.ones((2, 3), dtype=np.float32)
    for wrong in (expected[:, :2], np.full_like(expected, np.nan)):
        with pytest.raises(UserError, match="gives vectors of shape"):
            prove("onnx", tmp_path, ["a", "b"], expected, opened=lambda *_, wrong=wrong: wrong)


# ---- what cannot be exported ----


def test_sentence_marks_are_said_and_refused(runs: Any, tmp_path: Path) -> None:
    source = runs("lang_jepa").export_source()
    for to, with_code in (("onnx", True), ("transformers", True), ("sentence-transformers", False)):
        with pytest.raises(UserError, match=r"marks the end of each sentence .* a plain tokenizer cannot.*--with-code"):
            export(source, to, tmp_path / "out", with_code=with_code)
    assert not list(tmp_path.iterdir())


def test_a_run_whose_export_needs_code_is_not_pushed_and_the_way_is_told(
    runs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(runs("lang_jepa").path), "someone/stories", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "push uploads none" in said
    assert "--to sentence-transformers --with-code --out FOLDER" in said


def test_sentences_are_marked_by_a_file_of_code_that_is_loaded_on_request_only(runs: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    source, out = runs("lang_jepa").export_source(), tmp_path / "out"
    (proof,) = export(source, "sentence-transformers", out, with_code=True, opened=in_process).proofs
    assert proof.holds
    assert "import openjepa" not in (out / "marked_sentences.py").read_text()
    assert "trust_remote_code=True" in (out / "README.md").read_text()
    with pytest.raises(Exception, match="trust_remote_code"):
        SentenceTransformer(str(out), device="cpu")


def test_a_folder_with_other_files_is_not_touched(
    runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", str(runs("t_jepa").path), "--to", "onnx", "--out", str(tmp_path)]) == 2
    assert "is no earlier export" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_earlier_export_is_replaced(runs: Any, tmp_path: Path) -> None:
    source, out = runs("t_jepa").export_source(), tmp_path / "out"
    export(source, "onnx", out, opened=in_process)
    (out / "old.txt").write_text("old")
    export(source, "transformers", out, opened=in_process)
    assert not (out / "old.txt").exists()
    assert not (out / "model.onnx").exists()


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, runs: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'openjepa\[export\]'"):
        export(runs("t_jepa").export_source(), "onnx", tmp_path / "out")


def test_all_writes_a_folder_each_and_says_what_is_left_out(
    runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openjepa.export.proof.opened_elsewhere", in_process)
    assert main(["export", str(runs("i_jepa").path), "--to", "all", "--out", str(tmp_path)]) == 0
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["onnx", "sentence-transformers", "transformers"]
    assert "model2vec: left out" in capsys.readouterr().err


# ---- the card ----


def test_the_card_is_valid_for_the_hub_and_holds_the_runs_figures(runs: Any, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    run = runs("t_jepa")
    measures = run.evaluate(run.tasks()[:1]).measures
    export(run.export_source("apache-2.0"), "transformers", tmp_path / "out", opened=in_process)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    card.data.to_dict()
    assert "synthetic world" in card.text
    measure = next(iter(measures.values()))
    assert f"{measure.values['init']:.3f}" in card.text
    assert "95 % interval" in card.text


def test_an_export_names_no_folder_of_this_machine(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openjepa import api

    corpus, run = tmp_path / "jane doe" / "my letters.txt", tmp_path / "jane doe" / "run"
    corpus.parent.mkdir()
    corpus.write_text("".join(f"Letter {i} is about the weather in town {i % 7}.\n" for i in range(60)))
    arguments = ["train", "t_jepa", f"data={corpus}", *TINY, "data.eval_fraction=0.2", "steps=2", "--out", str(run)]
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "openjepa"), *arguments])
    assert main([*arguments, "--no-eval"]) == 0
    for to in ("onnx", "transformers"):
        folder = export(api.load(run).export_source(), to, tmp_path / to, opened=in_process).folder
        places = (str(tmp_path), "jane doe", str(Path(bundle.__file__).parent), str(Path(torch.__file__).parents[1]))
        for file in folder.rglob("*"):
            if file.is_file():
                held = file.read_bytes()
                assert [place for place in places if place.encode() in held] == [], file.name
    shown = (folder / "README.md").read_text()
    assert "Source: `my letters.txt`." in shown
    assert "source: my letters.txt" in shown
    assert "openjepa train t_jepa 'data=my letters.txt' data.documents=400" in shown
    assert "--out run\n" in shown
    assert "put your own there" in shown


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            "/opt/bin/openjepa train t_jepa data=/home/a/b.csv --out /tmp/runs/c",
            "openjepa train t_jepa data=b.csv --out c",
        ),
        ("/x/openjepa/__main__.py train t_jepa data=owner/name:config", "openjepa train t_jepa data=owner/name:config"),
        ("openjepa train t_jepa data=../b.csv train.lr=1e-3", "openjepa train t_jepa data=../b.csv train.lr=1e-3"),
        ("openjepa train 'data=/home/a b/[x].csv' --config=~/c.yaml", "openjepa train 'data=[x].csv' --config=c.yaml"),
        ("openjepa train 'files=[/home/a/b.csv, /home/a/c/]'", "openjepa train 'files=[b.csv, c/]'"),
        ("openjepa train data=https://host/a/b.csv", "openjepa train data=https://host/a/b.csv"),
        ("openjepa train data=/home/it's/b.csv", "openjepa train data=b.csv"),
    ],
)
def test_commands_keep_all_but_the_folders(command: str, shown: str) -> None:
    assert card.without_folders_of(command) == shown


def test_pictures_that_are_not_square_are_cut_as_the_run_cuts_them() -> None:
    images = proof_images(24)
    assert len({image.size for image in images}) == len(images)
    cut = as_squares(images, 24)
    assert all(image.width == image.height for image in cut)
    square = next(image for image in images if image.width == image.height)
    assert cut[images.index(square)] is square
    assert isinstance(square, Image.Image)
