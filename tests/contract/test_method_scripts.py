"""The pages in examples/methods are the methods: each has its recipe's loss, term by term, and its gradient.

A page's own networks get the weights of the recipe's, which are moved away from their initialisation first, so that
teacher and student differ and no bias is 0. Where a recipe has switches, the page is its default.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openjepa.core.method import Method
from openjepa.core.progress import START, Progress
from openjepa.data.loading.loader import train_batches
from tests.tiny import build_recipe

METHODS = Path(__file__).parents[2] / "examples" / "methods"
PAGES = sorted(METHODS.glob("*.py"))
LATE = Progress(7, 10)  # schedules are under way
EXACT = {"rtol": 1e-5, "atol": 1e-6}

Networks = dict[str, tuple[nn.Module, nn.Module]]  # by name: the recipe's, the page's
Loss = Callable[[Any], dict[str, Tensor]]  # of a recipe's batch, by the page


def page(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"page_{name}", METHODS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- the names of a recipe's weights in its page ----


def renamed(name: str) -> str:
    for ours, theirs in (
        (r"\bposition_embedding\b", "position"),
        (r"\bblocks\b", "layers"),
        (r"\bqkv\.", "self_attn.in_proj_"),
        (r"(layers\.\d+)\.out\.", r"\1.self_attn.out_proj."),
        (r"\bmlp\.0\.", "linear1."),
        (r"\bmlp\.2\.", "linear2."),
    ):
        name = re.sub(ours, theirs, name)
    return name


def by_page_name(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {renamed(name): tensor for name, tensor in tensors.items()}


def copy_weights(networks: Networks) -> None:
    """Into the page's networks; constants, such as sines and cosines, are the page's own and have to be equal."""
    for ours, theirs in networks.values():
        constants = dict(theirs.named_buffers())
        found = by_page_name(dict(ours.named_buffers()))
        assert set(constants) == set(found)
        for name, constant in constants.items():
            torch.testing.assert_close(constant, found[name])
        theirs.load_state_dict(by_page_name(ours.state_dict()))


def move(method: Method) -> None:
    """Every weight by noise of its own."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Those that are not 0, by name."""
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None and gradient.any()}


def depth_and_heads(trunk: Any) -> tuple[int, int]:
    return len(trunk.blocks), trunk.blocks[0].heads


def text_encoder(new: Any, ours: Any) -> nn.Module:
    return new(ours.token.num_embeddings, ours.dim, *depth_and_heads(ours.trunk), ours.max_len)


def predictor_sizes(ours: Any) -> tuple[int, int, int, int]:
    """Width, depth, heads, positions."""
    return ours.enter.out_features, *depth_and_heads(ours.trunk), ours.position_embedding.num_embeddings


# ---- each recipe's batch as its page takes it ----


def t_jepa(method: Any) -> tuple[Networks, Loss]:
    code = page("t_jepa")
    student, teacher = (text_encoder(code.Encoder, method.student) for _ in range(2))
    predictor = code.Predictor(method.student.dim, *predictor_sizes(method.predictor))
    networks: Networks = {
        "student": (method.student, student),
        "teacher": (method.teacher.module, teacher),
        "predictor": (method.predictor, predictor),
    }
    return networks, lambda batch: code.loss_terms(student, teacher, predictor, batch.ids, batch.valid, batch.hidden)


def by_sentence(batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """ids [B, S, L], which of them are real, and which sentences are hidden [B, S]."""
    assert torch.equal(batch.segment >= 0, batch.valid)
    tokens = batch.all_tokens
    number, within = tokens.segment[batch.valid], tokens.positions[batch.valid]  # [tokens]
    at = batch.document[number], batch.position[number], within
    ids = torch.zeros([int(axis.max()) + 1 for axis in at], dtype=torch.int64)
    ids[at] = batch.ids[batch.valid]
    real = torch.zeros_like(ids, dtype=torch.bool)
    real[at] = True
    hidden = torch.zeros(ids.shape[:2], dtype=torch.bool)
    hidden[batch.document[batch.hidden_segments], batch.position[batch.hidden_segments]] = True
    return ids, real, hidden


def lang_jepa(method: Any) -> tuple[Networks, Loss]:
    code = page("lang_jepa")
    student, teacher = (text_encoder(code.Encoder, method.student) for _ in range(2))
    predictor = code.Predictor(method.student.dim, *predictor_sizes(method.predictor))
    networks: Networks = {
        "student": (method.student, student),
        "teacher": (method.teacher.module, teacher),
        "predictor": (method.predictor, predictor),
    }

    def loss(batch: Any) -> dict[str, Tensor]:
        return code.loss_terms(student, teacher, predictor, *by_sentence(batch), batch.progress.fraction)

    return networks, loss


def nano_jepa(method: Any) -> tuple[Networks, Loss]:
    code = page("nano_jepa")
    student, teacher = (text_encoder(code.Decoder, method.decoder) for _ in range(2))
    targets = code.Targets(method.decoder.dim)
    networks: Networks = {"decoder": (method.decoder, student), "teacher": (method.teacher.module, teacher)}

    def loss(batch: Any) -> dict[str, Tensor]:
        at = torch.arange(batch.ids.shape[1])
        question = batch.valid & ~batch.hidden & (at < batch.pred_at[:, None])
        return code.loss_terms(student, teacher, targets, batch.ids, question, batch.hidden)

    return networks, loss


def i_jepa(method: Any) -> tuple[Networks, Loss]:
    code = page("i_jepa")
    ours = method.student
    student, teacher = (
        code.Encoder(ours.grid[0], ours.patch, ours.dim, *depth_and_heads(ours.trunk)) for _ in range(2)
    )
    predictor = code.Predictor(ours.dim, *predictor_sizes(method.predictor))
    networks: Networks = {
        "student": (ours, student),
        "teacher": (method.teacher.module, teacher),
        "predictor": (method.predictor, predictor),
    }
    return networks, lambda batch: code.loss_terms(student, teacher, predictor, batch.images, batch.shown, batch.hidden)


def vl_jepa(method: Any) -> tuple[Networks, Loss]:
    code = page("vl_jepa")
    ours, reader = method.student, method.reader
    student, teacher = (
        code.VisionEncoder(ours.grid[0], ours.patch, ours.dim, *depth_and_heads(ours.trunk)) for _ in range(2)
    )
    words = text_encoder(code.TextEncoder, reader.encoder)
    width, depth, heads, _ = predictor_sizes(method.predictor)
    predictor = code.Predictor(ours.dim, reader.width, width, depth, heads, ours.max_len, reader.max_len)
    joined = nn.ModuleDict({**dict(method.predictor.named_children()), "join": reader.join})
    joined.register_parameter("mask_token", method.predictor.mask_token)
    networks: Networks = {
        "student": (ours, student),
        "teacher": (method.teacher.module, teacher),
        "text encoder": (reader.encoder, words),
        "predictor": (joined, predictor),
    }

    def loss(batch: Any) -> dict[str, Tensor]:
        patches = (batch.images, batch.shown, batch.hidden)
        return code.loss_terms(student, teacher, words, predictor, *patches, batch.text_ids, batch.text_valid)

    return networks, loss


AS_PAGE = {"t_jepa": t_jepa, "lang_jepa": lang_jepa, "nano_jepa": nano_jepa, "i_jepa": i_jepa, "vl_jepa": vl_jepa}
DEEPER = {  # the order of blocks counts; and some patches are neither shown nor hidden
    "nano_jepa": ("decoder.depth=2",),
    "i_jepa": ("encoder.depth=2", "mask.context_area=[0.4,0.6]"),
}


# ---- the proofs ----


def test_every_page_is_proven() -> None:
    assert [path.stem for path in PAGES] == sorted(AS_PAGE)


@pytest.mark.parametrize("progress", [START, LATE], ids=["start", "late"])
@pytest.mark.parametrize("name", AS_PAGE)
def test_a_page_has_the_loss_of_its_recipe(name: str, progress: Progress, tmp_path: Path) -> None:
    experiment = build_recipe(name, tmp_path, *DEEPER.get(name, ("encoder.depth=2",)))
    method = experiment.method.train()
    move(method)
    networks, loss = AS_PAGE[name](method)
    copy_weights(networks)
    batches = train_batches(experiment, 0)
    for _ in range(2):  # the second batch meets statistics of the first
        batch = replace(next(batches), progress=progress)
        ours, theirs = method(batch), loss(batch)
        assert set(theirs) == set(ours.terms)
        assert ("contrast" in theirs) == (name == "lang_jepa" and progress is LATE)
        for term, value in ours.terms.items():
            assert value.item() > 0, term
            torch.testing.assert_close(theirs[term], value, **EXACT, msg=lambda text, term=term: f"{term}: {text}")
        torch.testing.assert_close(sum(theirs.values()), ours.loss, **EXACT)
    ours.loss.backward()
    sum(theirs.values()).backward()
    for network, modules in networks.items():
        expected, found = (gradients(module) for module in modules)
        expected = by_page_name(expected)
        assert set(found) == set(expected)
        assert bool(found) == (network != "teacher")
        scale = sum(gradient.square().sum() for gradient in expected.values()) ** 0.5
        for parameter, gradient in expected.items():
            assert (found[parameter] - gradient).norm() <= 1e-5 * scale, f"{network}.{parameter}"


@pytest.mark.parametrize("name", AS_PAGE)
def test_a_page_moves_its_teacher_as_its_recipe_does(name: str, tmp_path: Path) -> None:
    method = build_recipe(name, tmp_path).method
    move(method)
    networks, _ = AS_PAGE[name](method)
    copy_weights(networks)
    (ours, teacher), (_, student) = networks["teacher"], next(iter(networks.values()))
    before = [parameter.clone() for parameter in teacher.parameters()]
    method.after_step(LATE)
    page(name).update_teacher(teacher, student, LATE.fraction)
    assert not any(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    found = by_page_name(dict(ours.named_parameters()))
    for parameter, value in teacher.named_parameters():
        torch.testing.assert_close(value, found[parameter])


# ---- what is hidden ----


def runs(mask: Tensor) -> int:
    return int((mask & ~nn.functional.pad(mask, (1, -1))).sum())


def test_spans_and_sentences_are_hidden_in_the_promised_number() -> None:
    torch.manual_seed(0)
    spans, sentences = page("t_jepa").hide_spans, page("lang_jepa").hide_sentences
    for length in range(8, 60):
        hidden = spans(length, 5)
        assert int(hidden.sum()) == length // 2
        assert runs(hidden) == max(1, round(length // 2 / 5))
    assert all(1 <= int(sentences(count).sum()) == round(count / 2) < count for count in range(3, 12))
    assert torch.stack([spans(30, 5) for _ in range(400)]).any(0).all()
    assert torch.stack([sentences(4) for _ in range(100)]).any(0).all()


def test_blocks_of_patches_are_hidden_in_the_promised_share() -> None:
    torch.manual_seed(0)
    masks = [page("i_jepa").multi_block(8) for _ in range(400)]
    assert all(visible.any() and hidden.any() and not (visible & hidden).any() for visible, hidden in masks)
    assert torch.stack([hidden for _, hidden in masks]).any(0).all()
    assert 0.3 < torch.stack([hidden for _, hidden in masks]).float().mean() < 0.6
    blocks = torch.stack([page("vl_jepa").hide_block(8) for _ in range(400)])  # [400, N]
    assert blocks.any(0).all()
    assert (blocks.float().mean(1) - 0.75).abs().max() < 0.07
    for block in blocks.view(-1, 8, 8):
        rows, columns = block.any(1), block.any(0)
        assert torch.equal(block, rows[:, None] & columns)
        assert runs(rows) == runs(columns) == 1


# ---- the pages themselves ----


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_as_it_stands_and_learns(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    first, last = (float(re.search(r"prediction (\S+)", line)[1]) for line in (lines[0], lines[-1]))  # type: ignore[index]
    assert last < 0.8 * first


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_a_page_and_needs_torch_alone(path: Path) -> None:
    code = path.read_text()
    assert len(code.splitlines()) <= 150
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in found for alias in node.names if isinstance(node, ast.Import)}
    names |= {str(node.module) for node in found if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {"torch", "math", "copy"}
