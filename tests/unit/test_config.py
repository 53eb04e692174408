"""Configuration: every mistake named at once, short keys only where they are unique, and files that come back equal."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.errors import ConfigError
from openjepa.core.locate import built_in_recipes, locate_recipe
from openjepa.core.values import read_yaml
from openjepa.data.sources import DataConfig

CONFIGS = Path(str(resources.files("openjepa"))) / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


class Net(BaseConfig):
    width: int = Field(8, ge=1)
    name: str | None = None
    rate: float = 0.5


class Loss(BaseConfig):
    name: str = "mse"
    weight: float = Field(1.0, ge=0)


class Config(BaseConfig):
    data: DataConfig = DataConfig()
    net: Net = Net()
    loss: Loss = Loss()
    kind: Literal["a", "b"] = "a"
    train: TrainConfig = TrainConfig()


def problem(*overrides: str, **values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.load(values, overrides)
    return str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    message = problem("net.width=0", "kind=c", "train.stpes=5", "loss.weight=heavy", "no_equals_sign")
    for part in ("net.width", "kind", "train.stpes", "loss.weight", "no_equals_sign"):
        assert part in message
    assert message.count(";") >= 4
    assert "given: 0" in message
    assert "'a' or 'b'" in message


@pytest.mark.parametrize(
    ("key", "meant"), [("train.stpes", "train.steps"), ("net.widht", "net.width"), ("kidn", "kind")]
)
def test_an_unknown_key_comes_with_the_nearest_known_one(key: str, meant: str) -> None:
    assert f"unknown key {key!r}; did you mean {meant!r}?" in problem(f"{key}=1")


def test_the_last_part_of_a_key_is_enough_where_it_is_unique() -> None:
    config = Config.load(overrides=["width=3", "steps=7", "weight=0.5"])
    assert (config.net.width, config.train.steps, config.loss.weight) == (3, 7, 0.5)


def test_an_ambiguous_last_part_lists_what_it_could_be() -> None:
    assert "unknown key 'name'; it could be net.name or loss.name" in problem("name=x")


def test_a_top_level_key_wins_over_a_nested_one() -> None:
    assert Config.full_key("kind") == "kind"
    assert Config.full_key("--kind") == "--kind"  # dashes are the caller's to remove
    assert Config.load(overrides=["--kind=b"]).kind == "b"


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", ".001", "1E-3"])
def test_floats_that_yaml_1_1_takes_for_strings(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"train:\n  lr: {text}\n")
    assert Config.load(read_yaml(file)).train.lr == 1e-3
    assert Config.load(overrides=[f"lr={text}"]).train.lr == 1e-3


@pytest.mark.parametrize("text", ["2024", "1.5", "x: [", "a b"])
def test_strings_stay_strings_whatever_yaml_makes_of_them(text: str) -> None:
    assert Config.load(overrides=[f"loss.name={text}"]).loss.name == text


@pytest.mark.parametrize("text", ["null", "~"])
def test_null_unsets(text: str) -> None:
    assert Config.load({"net": {"name": "x"}}, [f"net.name={text}"]).net.name is None


def test_configurations_are_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.train.steps = 5


def test_loading_leaves_the_given_values_alone() -> None:
    values = {"net": {"width": 3}}
    assert Config.load(values, ["net.width=5", "net.rate=0.1"]).net.width == 5
    assert values == {"net": {"width": 3}}


def test_a_later_override_wins() -> None:
    assert Config.load({"train": {"steps": 1}}, ["steps=2", "train.steps=3"]).train.steps == 3


def test_dump_and_load_give_the_same_configuration(tmp_path: Path) -> None:
    overrides = ["data=ünïcode.jsonl", "lr=3e-5", "steps=7", "betas=[0.8, 0.99]", "net.name=1e-3", "track=tensorboard"]
    config = Config.load(overrides=overrides)
    config.dump(tmp_path / "config.yaml", recipe="mine")
    values = read_yaml(tmp_path / "config.yaml")
    assert next(iter(values)) == "recipe"
    assert values.pop("recipe") == "mine"
    assert Config.load(values) == config
    assert config.net.name == "1e-3"


def test_a_plain_string_stands_for_the_source_of_the_data() -> None:
    assert Config.load({"data": "corpus.jsonl"}).data == DataConfig(source="corpus.jsonl")
    assert Config.load(overrides=["data=corpus.jsonl"]).data == DataConfig(source="corpus.jsonl")
    both = Config.load({"data": "corpus.jsonl"}, ["data.column=body"]).data
    assert (both.source, both.column) == ("corpus.jsonl", "body")


@pytest.mark.parametrize("value", ["5", "text", "[1, 2]"])
def test_a_section_is_no_value(value: str) -> None:
    assert "net" in problem(f"net={value}")
    assert "net" in problem(f"net={value}", "net.width=3")  # a later key does not hide the mistake


def test_keys_name_every_setting() -> None:
    keys = list(Config.keys())
    assert len(keys) == len(set(keys))
    assert {"net", "net.width", "train.lr", "kind", "data.source"} <= set(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1", "not valid YAML"), ("a: b: c", "line 1"), ("- 1", "not a list"), ("just text", "not a str")],
)
def test_a_broken_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml") as caught:
        read_yaml(file)
    assert said in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file at .*gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=tmp_path.name):
        read_yaml(tmp_path)


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    assert read_yaml(file) == {}


@pytest.mark.parametrize(("steps", "warmup", "expected"), [(1000, 100, 100), (50, 100, 5), (5, 100, 1), (7, 7, 7)])
def test_warmup_never_outlasts_the_run(steps: int, warmup: int, expected: int) -> None:
    assert TrainConfig(steps=steps, warmup_steps=warmup).warmup_steps == expected


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(CONFIGS).with_suffix("")))
def test_every_shipped_file_parses_and_belongs_to_a_recipe(file: Path) -> None:
    folder, values = file.parent.relative_to(CONFIGS).as_posix(), read_yaml(file)
    recipe = values.pop("recipe", folder)
    if folder != "collapse":  # the gallery of collapses; its files name their recipe, all others lie in its folder
        assert recipe == folder
    locate_recipe(recipe).Config.load(values)


@pytest.mark.parametrize("recipe", built_in_recipes())
def test_every_setting_of_every_recipe_has_a_default_and_a_description(recipe: str, tmp_path: Path) -> None:
    config_class = locate_recipe(recipe).Config
    config = config_class()
    config.dump(tmp_path / "config.yaml")
    assert config_class.load(read_yaml(tmp_path / "config.yaml")) == config
    assert list(_undescribed(config_class)) == []


def _undescribed(config_class: type[BaseConfig], prefix: str = "") -> list[str]:
    missing = []
    for name, field in config_class.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseConfig):
            missing += _undescribed(field.annotation, f"{prefix}{name}.")
        elif not field.description:
            missing.append(prefix + name)
    return missing
