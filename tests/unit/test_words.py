from __future__ import annotations

import pytest

from openjepa.cli.arguments import split_words
from openjepa.core.errors import UserError


@pytest.mark.parametrize(
    ("words", "recipe", "overrides"),
    [
        ([], None, []),
        (["t_jepa", "steps=3"], "t_jepa", ["steps=3"]),
        (["--train.steps", "100", "t_jepa"], "t_jepa", ["train.steps=100"]),
        (["t_jepa", "--train.batch-size=8"], "t_jepa", ["train.batch_size=8"]),
        (["t_jepa", "--lr", "-1"], "t_jepa", ["lr=-1"]),
        (["t_jepa", "--tokenizer.lowercase", "--steps", "3"], "t_jepa", ["tokenizer.lowercase=true", "steps=3"]),
        (["./my.py", "data=a=b.txt"], "./my.py", ["data=a=b.txt"]),
    ],
)
def test_every_spelling_becomes_an_override(words: list[str], recipe: str | None, overrides: list[str]) -> None:
    assert split_words(words) == (recipe, overrides)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["t_jepa", "other"], "already 't_jepa'"),
        (["t_jepa", "-x"], "no option -x"),
        (["t_jepa", "--resme", "run"], "did you mean --resume"),
        (["t_jepa", "out=run"], "write --out run"),
    ],
)
def test_what_is_no_setting_is_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_words(words, ["--resume", "--out"])
