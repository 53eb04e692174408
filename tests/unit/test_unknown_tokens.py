"""[UNK]s are counted wherever texts are tokenised, and training does not learn from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from openjepa import api
from openjepa.core.errors import UserError
from openjepa.data.questions.batches import TokenizedQuestions
from openjepa.data.questions.dataset import Question
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.choice import TextTokenizer, TokenizerConfig, train_tokenizer
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens, require_known
from openjepa.experiments.text import train_and_eval
from openjepa.preflight.checks import check_recipe
from openjepa.recipes import nano_jepa, t_jepa, vl_jepa
from tests.tiny import TINY, VL, build_recipe

ENGLISH = [f"the garden of house number {i} is green and quiet in the morning light" for i in range(300)]
RUSSIAN = [f"сад у дома номер {i} зелёный и тихий в утреннем свете" for i in range(300)]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TokenizerConfig(vocab_size=400), ENGLISH)


def counted(tokenizer: TextTokenizer, *texts: str) -> UnknownTokens:
    found = UnknownTokens(tokenizer)
    found.add(tokenizer.encode_content(texts))
    return found


def test_share_is_unknown_over_content(tokenizer: TextTokenizer) -> None:
    found = UnknownTokens(tokenizer)
    assert (found.share, found.sentence(True)) == (0, None)  # nothing counted yet
    found.add([np.array([2, 7, 1, 8, 9, 3, 0, 0], dtype=np.int32), np.array([1], dtype=np.int32)])
    found.add([])
    assert (found.tokens, found.unknown, found.share) == (5, 2, 0.4)  # [CLS], [SEP], [PAD] are no content
    assert counted(tokenizer, "the garden", "сад").share == pytest.approx(1 / 3)
    assert counted(tokenizer, *ENGLISH).share == 0


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_byte_level_vocabularies_know_every_text(kind: str) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=400), ENGLISH)
    found = counted(tokenizer, *RUSSIAN, "😀")
    assert tokenizer.unknown_id is None
    assert (found.share, found.sentence(False)) == (0, None)
    assert found.tokens > 1000


def test_it_is_said_from_five_percent_on(tokenizer: TextTokenizer) -> None:
    for unknown, said in ((4, False), (5, True)):
        found = UnknownTokens(tokenizer, tokens=100, unknown=unknown)
        assert (found.sentence(True) is not None) == (found.sentence(False) is not None) == said
    found = UnknownTokens(tokenizer, tokens=100, unknown=41)
    world = "this run knows only the words of its synthetic world: 41 % of these tokens are unknown to it"
    assert found.sentence(synthetic_world=True) == world
    other = found.sentence(synthetic_world=False)
    assert other is not None
    assert other.startswith("41 % of these tokens are unknown to this run's tokenizer (WordPiece, ")


def test_worlds_are_known_by_their_source() -> None:
    assert [recipe.Config().data.synthetic for recipe in (t_jepa, nano_jepa)] == [True, True]
    assert not t_jepa.Config.load({"data": "corpus.jsonl"}).data.synthetic
    assert not nano_jepa.Config.load({"data": "questions.jsonl"}).data.synthetic


TEXT_RECIPES = ("t_jepa", "lang_jepa", "nano_jepa", "mlm", "next_token", "simcse")


@pytest.mark.parametrize("recipe", TEXT_RECIPES)
def test_every_text_recipe_says_that_its_vocabulary_is_of_a_world(recipe: str, tmp_path: Path) -> None:
    assert build_recipe(recipe, tmp_path).embedding.inputs.synthetic_world  # ty: ignore[unresolved-attribute]


def test_more_than_a_fifth_is_too_much(tokenizer: TextTokenizer) -> None:
    require_known(UnknownTokens(tokenizer, 100, 20))
    with pytest.raises(UserError, match=r"21 % of the training data's tokens are unknown.*tokenizer\.kind=bpe"):
        require_known(UnknownTokens(tokenizer, 100, 21))


@pytest.fixture
def foreign(tokenizer: TextTokenizer, tmp_path: Path) -> tuple[str, ...]:
    """Settings of a Russian corpus that is read with a vocabulary of English."""
    (tmp_path / "russian.txt").write_text("\n".join(RUSSIAN))
    tokenizer.save(tmp_path / "english" / "tokenizer.json")
    given = (f"data.source={tmp_path / 'russian.txt'}", "data.documents=0", "data.eval_fraction=0.2", "train.steps=1")
    return (*TINY, f"tokenizer.kind={tmp_path / 'english'}", *given)


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_training_stops_before_its_first_step(streaming: str, foreign: tuple[str, ...], tmp_path: Path) -> None:
    settings = (*foreign, f"data.streaming={streaming}")
    match = r"\d\d % of the training data's tokens are unknown to its tokenizer \(WordPiece, \d+ tokens\)"
    with pytest.raises(UserError, match=match) as caught:
        api.train("t_jepa", out=tmp_path / "run", overrides=settings, progress=False)
    share = int(re.findall(r"\d+ %", str(caught.value))[0][:-2])
    assert 50 < share < 100
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(UserError, match=match):
        check_recipe("t_jepa", overrides=settings)


def test_with_bytes_the_same_corpus_is_learned(
    foreign: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [setting for setting in foreign if not setting.startswith("tokenizer.kind")]
    api.train("t_jepa", out=tmp_path / "run", overrides=[*settings, "tokenizer.kind=bytes"])
    assert "tokens unknown" not in capsys.readouterr().err  # bytes know every text
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    assert notes["unknown_share"] == 0


def test_the_share_is_shown_and_kept(
    tokenizer: TextTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [f"{text} сад" if i % 2 else text for i, text in enumerate(ENGLISH)]
    (tmp_path / "mixed.txt").write_text("\n".join(mixed))
    tokenizer.save(tmp_path / "english" / "tokenizer.json")
    given = (f"data.source={tmp_path / 'mixed.txt'}", "data.documents=0", "data.eval_fraction=0.2", "train.steps=1")
    run = api.train("t_jepa", out=tmp_path / "run", overrides=[*TINY, f"tokenizer.kind={tmp_path / 'english'}", *given])
    notes = json.loads((run.path / "summary.json").read_text())["notes"]
    rows = run.experiment.train_data
    ids = np.concatenate([rows[i].ids for i in range(len(rows))])
    assert notes["data"]["tokens to train on"] == len(ids)
    assert notes["data"]["unknown tokens to train on"] == (ids == 1).sum() > 0
    assert notes["unknown_share"] == pytest.approx((ids == 1).mean(), abs=1e-6)
    assert 0.02 < notes["unknown_share"] < 0.1
    assert f"{100 * notes['unknown_share']:.2g} % of the tokens unknown" in capsys.readouterr().err


def test_corpora_and_streams_count_alike(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "mixed.txt").write_text("\n".join([*ENGLISH, *RUSSIAN]))
    cfg = DataConfig(source=str(tmp_path / "mixed.txt"), eval_fraction=0.2)
    kept, _ = train_and_eval(cfg, TextRows(tokenizer, 16))
    streamed, _ = train_and_eval(cfg.model_copy(update={"streaming": True}), TextRows(tokenizer, 16))
    assert (kept.unknown.tokens, kept.unknown.unknown) == (streamed.unknown.tokens, streamed.unknown.unknown)
    assert kept.unknown.share > 0.3
    small = cfg.model_copy(update={"streaming": True, "shuffle_window": 100})
    window, _ = train_and_eval(small, TextRows(tokenizer, 16))
    assert window.unknown.share == 0  # the first window, which is English


def test_questions_and_captions_are_counted(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    found = [Question("the green garden", "сад", "a:1"), Question("the house", "quiet", "a:2")]
    asked = TokenizedQuestions(lambda: found, tokenizer, 64)
    expected = counted(tokenizer, *(text for row in found for text in (row.question, row.answer)))
    assert (asked.unknown.tokens, asked.unknown.unknown) == (expected.tokens, expected.unknown)
    assert asked.unknown.unknown == 1
    tokenizer.save(tmp_path / "english" / "tokenizer.json")
    config = vl_jepa.Config.load(overrides=[*VL, f"tokenizer.kind={tmp_path / 'english'}"])
    from openjepa.core.experiment import BuildContext

    experiment = vl_jepa.build(config, BuildContext(tmp_path / "assets"))
    captions = list(experiment.train_data.texts())
    assert experiment.unknown().tokens == counted(tokenizer, *captions).tokens
