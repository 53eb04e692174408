"""Laws of the readout: what it may read, what it says, and that its scores tell latents from language."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import openjepa
from openjepa.cli import main
from openjepa.core.batch import Batch
from openjepa.core.config import TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.errors import TrainingStopped, UserError
from openjepa.core.experiment import Experiment, Sample
from openjepa.core.method import Method, StepOutput
from openjepa.core.reading import ReadoutSource, TextLatents
from openjepa.core.seeding import generator_for, seed_global
from openjepa.data.loading.loader import eval_batches
from openjepa.data.questions.numbers import same_answer
from openjepa.data.text.masked import MaskedText
from openjepa.readout import store
from openjepa.readout.decoder import Aims, Readout, ReadoutConfig
from openjepa.readout.scores import compare
from openjepa.readout.training import Readings, ReadoutTraining, fit, shuffled
from openjepa.recipes import lang_jepa
from tests.tiny import NANO, TINY, build_nano, build_tiny

VOCAB, WIDTH, TEXTS = 12, 16, 24
BY_HEART = 0.75  # who knows all texts but not which is meant gets (1/12 + 1/2 + 2 or 4) of 4 or 6 tokens right: 0.70
SMALL = ReadoutConfig(dim=32, depth=1, heads=2, max_len=6)


@dataclass(kw_only=True)
class Numbers(Batch):
    """Which of the TEXTS texts each row is."""


class Toy(Method[Numbers]):
    """A method whose targets say exactly which text they stand for, and whose predictions say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(TEXTS, WIDTH)

    def forward(self, batch: Numbers) -> StepOutput:
        raise AssertionError("a readout never trains the method")

    def embed(self, batch: Numbers) -> Tensor:
        return self.table(batch.keys)

    def predict_from_context(self, batch: Numbers) -> Tensor:
        return torch.ones_like(self.embed(batch)).cumsum(1)


def texts() -> tuple[Tensor, Tensor]:
    """TEXTS different texts of 1 to 5 tokens, ids and valid [TEXTS, 5]."""
    generator = generator_for(0, "texts")
    ids = torch.randint(VOCAB, (TEXTS, 5), generator=generator)
    ids[:, 0] = torch.arange(TEXTS) % VOCAB
    lengths = torch.where(torch.arange(TEXTS) < VOCAB, 3, 5)
    return ids, torch.arange(5) < lengths[:, None]


def toy(poisoned: bool = False) -> Experiment:
    def read(method: Toy, batch: Numbers) -> TextLatents:
        assert not method.training
        assert not torch.is_grad_enabled()
        ids, valid = texts()
        target = method.embed(batch) * (torch.nan if poisoned else 1.0)
        return TextLatents(target, method.predict_from_context(batch), ids[batch.keys], valid[batch.keys])

    def collate(rows: Sequence[Sample]) -> Numbers:
        return Numbers(keys=torch.tensor([row.sample for row in rows]))

    seed_global(0, "toy")
    return Experiment(
        method=Toy(),
        train_data=list(range(TEXTS)),  # ty: ignore[invalid-argument-type]
        eval_data=list(range(TEXTS)),  # ty: ignore[invalid-argument-type]
        collate=collate,
        embedding=Embedding(lambda inputs: collate([])),
        train=TrainConfig(batch_size=TEXTS, accelerator="cpu"),
        readable=ReadoutSource(read, lambda ids: " ".join(map(str, ids)), VOCAB),
    )


@pytest.fixture
def readout() -> Readout:
    seed_global(0, "readout test")
    return Readout(SMALL, WIDTH, VOCAB)


class Speaker(Readout):
    """Says "1,000" (token by token), whatever the latent is."""

    def __init__(self) -> None:
        super().__init__(SMALL, WIDTH, VOCAB)

    def hits(self, latents: Tensor, aims: Aims) -> Tensor:
        return torch.zeros_like(aims.real)

    def greedy(self, latents: Tensor) -> Tensor:
        said = torch.tensor([1, 10, 0, 0, 0, self.end])
        return said.expand(len(latents), -1)


def test_a_number_may_be_spelled_otherwise() -> None:
    """What is decoded as "1,000" is right where the answer is 1000, and not where it is 100 or 1,5."""
    answers = ["1000", "100", "1,5", "10000"]
    tokens = [[10 if sign == "," else int(sign) for sign in answer] for answer in answers]
    ids = torch.tensor([row + [0] * (5 - len(row)) for row in tokens])
    valid = torch.arange(5) < torch.tensor([[len(row)] for row in tokens])
    latents = torch.zeros(len(answers), WIDTH)
    reading = TextLatents(latents, latents, ids, valid)

    def decode(ids: Sequence[int]) -> str:
        return "".join("," if token == 10 else str(token) for token in ids)

    def exact(same: Callable[[str, str], bool] | None) -> float:
        readable = ReadoutSource(lambda method, batch: reading, decode, VOCAB, same)
        measures, count = compare(Speaker(), Speaker(), [reading], readable)
        assert count == 4
        return measures["target_exact_match"]["readout"]

    assert exact(None) == 0
    assert exact(same_answer) == 0.25


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(TEXTS, WIDTH, generator=generator_for(0, "latents"))


# --- the decoder ---------------------------------------------------------------------------------------------------


def test_no_state_reads_a_later_token(readout: Readout, latents: Tensor) -> None:
    ids, _ = texts()
    states = readout(latents, ids)
    assert states.shape == (TEXTS, 6, 32)
    for position in range(5):
        other = ids.clone()
        other[:, position:] = (ids[:, position:] + 1) % VOCAB
        moved = readout(latents, other)
        assert torch.equal(moved[:, : position + 1], states[:, : position + 1])
        assert not torch.allclose(moved[:, position + 1], states[:, position + 1])


def test_every_state_reads_the_latent_by_its_direction_alone(readout: Readout, latents: Tensor) -> None:
    ids, _ = texts()
    states = readout(latents, ids)
    assert (readout(latents.roll(1, 0), ids) - states).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(readout(7 * latents, ids), states, rtol=1e-3, atol=1e-3)


def test_padding_says_nothing(readout: Readout, latents: Tensor) -> None:
    ids, valid = texts()
    noise = torch.where(valid, ids, (ids + 5) % VOCAB)
    wide, wide_valid = torch.cat([noise, noise], 1), torch.cat([valid, torch.zeros_like(valid)], 1)
    torch.testing.assert_close(readout.loss(latents, wide, wide_valid), readout.loss(latents, ids, valid))
    hits = readout.hits(latents, readout.aims(ids, valid))
    assert torch.equal(readout.hits(latents, readout.aims(wide, wide_valid))[:, :6], hits)


def test_a_text_that_is_too_long_is_cut_and_has_no_end(readout: Readout) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
    valid = torch.arange(8) < torch.tensor([[8], [6], [1]])
    aims = readout.aims(ids, valid)
    end = readout.end
    assert aims.whole.tolist() == [False, True, True]
    asked = [row[real].tolist() for row, real in zip(aims.ids, aims.real, strict=True)]
    assert asked == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, end], [1, end]]


def test_eight_latents_are_learned_by_heart(readout: Readout, latents: Tensor) -> None:
    (ids, valid), latents = (part[8:16] for part in texts()), latents[8:16]
    optimizer = torch.optim.AdamW(readout.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        readout.loss(latents, ids, valid).backward()
        optimizer.step()
    said = readout.greedy(latents)
    wanted = readout.aims(ids, valid).ids[:, : said.shape[1]]
    assert torch.equal(said, wanted)
    assert torch.equal(readout.sample(latents, generator_for(0, "s"), top_k=1), said)
    assert torch.equal(readout.sample(latents, generator_for(0, "s"), temperature=1e-3), said)


def test_greedy_gives_the_text_exactly_where_every_token_is_a_hit(readout: Readout, latents: Tensor) -> None:
    ids, valid = texts()
    optimizer = torch.optim.AdamW(readout.parameters(), lr=5e-3)
    for _ in range(14):  # half learned
        optimizer.zero_grad()
        readout.loss(latents, ids, valid).backward()
        optimizer.step()
    aims = readout.aims(ids, valid)
    exact = (readout.hits(latents, aims) == aims.real).all(1)
    said = readout.greedy(latents)
    padded = nn.functional.pad(said, (0, 7 - said.shape[1]), value=readout.end)[:, : aims.ids.shape[1]]
    assert torch.equal(exact, (padded == aims.ids).all(1))
    assert 0 < int(exact.sum()) < TEXTS


def test_samples_come_from_the_likeliest_tokens_and_follow_the_generator(readout: Readout, latents: Tensor) -> None:
    first = readout.sample(latents, generator_for(0, "a"), temperature=50.0, top_k=3)
    assert torch.equal(first, readout.sample(latents, generator_for(0, "a"), temperature=50.0, top_k=3))
    assert not torch.equal(first, readout.sample(latents, generator_for(0, "b"), temperature=50.0, top_k=3))
    likeliest = readout.logits(readout(latents, first[:, :0])[:, -1]).topk(3).indices  # [M, 3]
    assert (first[:, :1] == likeliest).any(1).all()
    assert len(set(first[:, 0].tolist())) > 1
    ended = (first == readout.end).cumsum(1) > 0
    assert (first[ended] == readout.end).all()


# --- the second stage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 3, 50])
def test_shuffling_leaves_no_latent_in_its_position(rows: int) -> None:
    latents = torch.arange(1.0, rows + 1)[:, None]
    moved = shuffled(latents, generator_for(0, "shuffle"))
    assert (moved != latents).all()
    assert sorted(moved[:, 0].tolist()) == latents[:, 0].tolist()
    assert shuffled(torch.ones(1, 3), generator_for(0, "shuffle")).tolist() == [[0.0, 0.0, 0.0]]


def test_scores_tell_latents_from_language() -> None:
    """Targets name their text, predictions say nothing, and shuffled latents teach only what all texts share."""
    config = ReadoutTraining(decoder=SMALL, steps=50, lr=8e-3, warmup_steps=5)
    _, result = store.train_and_judge(toy(), config)
    measures = result["measures"]
    assert result["texts"] == TEXTS
    assert measures["target_exact_match"]["readout"] == measures["target_token_accuracy"]["readout"] == 1
    assert measures["target_exact_match"]["shuffled"] < 0.2
    assert measures["target_token_accuracy"]["shuffled"] < BY_HEART
    assert measures["target_exact_match"]["interval"][0] > 0.5
    assert measures["predicted_exact_match"]["readout"] < 0.2
    assert measures["target_exact_match"]["chance"] == 1 / TEXTS
    assert result["shuffled_loss"] > result["loss"] + 0.5
    assert [example["text"] for example in result["examples"]] == [e["target"] for e in result["examples"]]
    assert len({example["predicted"] for example in result["examples"]}) == 1


def test_a_cut_text_is_never_an_exact_match() -> None:
    short = ReadoutConfig(dim=32, depth=1, heads=2, max_len=3)  # half of the texts have 3 tokens, the others 5
    _, result = store.train_and_judge(toy(), ReadoutTraining(decoder=short, steps=50, lr=8e-3, warmup_steps=5))
    assert result["measures"]["target_token_accuracy"]["readout"] == 1
    assert result["measures"]["target_exact_match"]["readout"] == 0.5


def test_learning_from_what_says_nothing_teaches_nothing() -> None:
    config = ReadoutTraining(decoder=SMALL, steps=25, lr=8e-3, warmup_steps=5, learn_from="predicted")
    _, result = store.train_and_judge(toy(), config)
    assert all(row["readout"] < BY_HEART for row in result["measures"].values())


def test_a_non_finite_gradient_stops_it() -> None:
    with pytest.raises(TrainingStopped, match="step 0 of the readout"):
        store.train_and_judge(toy(poisoned=True), ReadoutTraining(decoder=SMALL, steps=2))


def test_the_method_stays_as_it_was_and_the_seed_decides(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, recipe=lang_jepa)
    before = {name: value.clone() for name, value in experiment.method.state_dict().items()}
    modes = [module.training for module in experiment.method.modules()]
    fitted = {}
    for name, seed in (("once", 0), ("again", 0), ("other", 1)):
        config = ReadoutTraining(decoder=SMALL, steps=3, seed=seed)
        seed_global(seed + 5, "noise from elsewhere", name)
        fitted[name] = fit(Readings(experiment, config), config)
    assert all(torch.equal(before[name], value) for name, value in experiment.method.state_dict().items())
    assert [module.training for module in experiment.method.modules()] == modes
    assert all(p.grad is None for p in experiment.method.parameters())
    once, again, other = (one.readout.state_dict() for one in fitted.values())
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not all(torch.equal(once[name], other[name]) for name in once)


def test_what_is_read_are_the_hidden_sentences(tmp_path: Path) -> None:
    experiment = build_tiny(tmp_path, recipe=lang_jepa)
    (batch,), readable = list(eval_batches(experiment, 1)), experiment.readable
    assert readable is not None
    assert isinstance(batch, MaskedText)
    reading = readable.read(experiment.method.eval(), batch)
    found = [readable.decode(ids[valid].tolist()) for ids, valid in zip(reading.ids, reading.valid, strict=True)]
    wanted = [
        readable.decode(batch.ids[row][batch.segment[row] == number].tolist())
        for row in range(batch.size)
        for number in sorted(set(batch.segment[row][batch.hidden[row]].tolist()))
    ]
    assert found == wanted
    assert all(found)
    assert reading.target.shape == reading.predicted.shape == (len(found), 32)
    assert int(reading.ids[reading.valid].min()) > 0  # no special token
    assert int(reading.valid.sum()) == int(batch.hidden.sum()) - len(found)  # all but each [SEP]


def test_what_is_read_are_the_answers(tmp_path: Path) -> None:
    experiment = build_nano(tmp_path)
    (batch,), readable = list(eval_batches(experiment, 1)), experiment.readable
    assert readable is not None
    reading = readable.read(experiment.method.eval(), batch)
    rows = [experiment.eval_data[int(key)] for key in batch.keys]
    for ids, valid, row in zip(reading.ids, reading.valid, rows, strict=True):
        assert ids[valid].tolist() == row.answer.tolist()
    latents = experiment.method.eval()(batch).latents  # the same directions; under a cosine lengths mean nothing
    torch.testing.assert_close(nn.functional.normalize(reading.target, dim=-1), latents.target, rtol=1e-4, atol=1e-4)
    read, predicted = (nn.functional.normalize(x, dim=-1) for x in (reading.predicted, latents.predicted))
    torch.testing.assert_close(read, predicted, rtol=1e-4, atol=1e-4)


# --- kept in a run ---------------------------------------------------------------------------------------------------

BRIEF = ["train.steps=2", "train.health_samples=1", "--no-eval"]
BRIEF_READOUT = ["steps=3", "dim=16", "depth=1", "heads=2", "max_len=24", "eval_batches=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lang"
    assert main(["train", "lang_jepa", *TINY, *BRIEF, "--out", str(out)]) == 0
    return out


def test_a_run_keeps_its_readout(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no readout yet; train one: openjepa readout"):
        openjepa.load(run).readout()
    capsys.readouterr()
    assert main(["readout", str(run), *BRIEF_READOUT, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert set(result["measures"]) == {
        f"{source}_{measure}" for source in ("target", "predicted") for measure in ("token_accuracy", "exact_match")
    }
    assert all(0 <= row[c] <= 1 for row in result["measures"].values() for c in ("readout", "shuffled", "chance"))
    assert sorted(file.name for file in (run / "readout").iterdir()) == [
        "config.yaml",
        "manifest.json",
        "model.safetensors",
        "readout.json",
    ]
    assert {"run": str(run), **json.loads((run / "readout" / "readout.json").read_text())} == result

    opened = openjepa.load(run)
    reader = opened.readout()
    latents = torch.randn(3, 32, generator=generator_for(0, "latents"))
    assert reader.texts(latents) == reader.texts(latents.numpy())
    drawn = reader.texts(latents, temperature=1.0, top_k=20, seed=1)
    assert drawn == reader.texts(latents, temperature=1.0, top_k=20, seed=1) != reader.texts(latents, 1.0, 20, seed=2)
    first = result["examples"][0]
    config = ReadoutTraining.load(overrides=BRIEF_READOUT)
    reading = next(Readings(opened.experiment, config).held_out(1))
    assert (reader.texts(reading.target[:1]), reader.texts(reading.predicted[:1])) == (
        [first["target"]],
        [first["predicted"]],
    )

    step = run / "checkpoints" / "step-000002"
    step.rename(step.with_name("step-000003"))
    with pytest.raises(UserError, match="reads step-000002, but the run is at step-000003; train it again"):
        openjepa.load(run).readout()
    step.with_name("step-000003").rename(step)
    assert main(["readout", str(run), "steps=2", *BRIEF_READOUT[1:]]) == 0  # replaces it, and prints tables
    shown = capsys.readouterr().out
    assert "exact match" in shown
    assert "read from the prediction" in shown
    assert json.loads((run / "readout" / "readout.json").read_text())["steps"] == 2
    assert not (run / ".readout.tmp").exists()


def test_nano_jepa_is_read_through_the_same_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nano_jepa", *NANO, *BRIEF, "--out", str(tmp_path / "nano")]) == 0
    capsys.readouterr()
    assert main(["readout", str(tmp_path / "nano"), *BRIEF_READOUT, "learn_from=predicted", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["learn_from"] == "predicted"
    assert all(example["text"] for example in result["examples"])


def test_what_a_user_can_mend_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "plain"
    assert main(["train", "t_jepa", *TINY, *BRIEF, "--out", str(plain)]) == 0
    for words, hint in (
        (
            [str(plain)],
            "t_jepa has no latents of texts for a readout; recipes that have some: concept_jepa, lang_jepa, nano_jepa",
        ),
        ([str(run), "stps=3"], "did you mean 'steps'"),
        ([str(run), "heads=3"], "a width of 128 cannot be split into 3 heads"),
        ([str(tmp_path)], "is not a run folder"),
        (["steps=3"], "give a run folder"),
    ):
        capsys.readouterr()
        assert main(["readout", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert hint in captured.err
        assert len(captured.err.splitlines()) == 1
