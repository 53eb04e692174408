"""Configuration: every mistake named at once, short keys only where they are unique, and files that come back equal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.configure import configure, recipe_with
from openjepa.core.describe import describe
from openjepa.core.errors import ConfigError
from openjepa.core.locate import built_in_recipes, locate_recipe, presets
from openjepa.core.progress import Progress
from openjepa.core.values import AsWritten, as_overrides, as_yaml, read_yaml
from openjepa.data.text.sources import DataConfig
from openjepa.training.stages import learning_rate

CONFIGS = Path(str(resources.files("openjepa"))) / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


class Net(BaseConfig):
    width: int = Field(8, ge=1)
    name: str | None = None
    rate: float = 0.5
    bias: bool = False
    tags: tuple[str, ...] = ()


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
    overrides = [
        "data=ünïcode.jsonl",
        "lr=3e-5",
        "steps=7",
        "betas=[0.8, 0.99]",
        "net.name=1e-3",
        "loggers=tensorboard",
    ]
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


class Tuned(BaseConfig):
    """Sections whose defaults are not those of their classes."""

    data: DataConfig = DataConfig(column="body", min_words=3)
    net: Net = Net(width=16, rate=0.25)
    train: TrainConfig = TrainConfig(lr=0.5)


@pytest.mark.parametrize(
    "load",
    [
        lambda: Tuned.load(overrides=["data=x.csv"]),
        lambda: Tuned.load({"data": "x.csv"}),
        lambda: Tuned.load({"data": {"column": "gone"}}, ["data.column=body", "data=x.csv"]),
        lambda: Tuned.load(given={"data": Path("x.csv")}),
        lambda: Tuned.load(given={"data": {"source": "x.csv"}}),
        lambda: Tuned(data="x.csv"),
    ],
)
def test_a_plain_value_sets_the_source_and_keeps_the_rest_of_the_section(load: Callable[[], Tuned]) -> None:
    assert load().data == DataConfig(source="x.csv", column="body", min_words=3)


def test_a_part_of_a_section_keeps_what_the_recipe_has_set_in_the_rest() -> None:
    wanted = Net(width=16, rate=0.1)
    assert Tuned.load({"net": {"rate": 0.1}}).net == wanted
    assert Tuned.load(overrides=["net.rate=0.1"]).net == wanted
    assert Tuned.load(overrides=["net={rate: 0.1}"]).net == wanted
    assert Tuned.load(given={"net": {"rate": 0.1}}).net == wanted
    assert Tuned.model_validate({"net": {"rate": 0.1}}).net == wanted
    assert Tuned.load(given={"net": Net(rate=0.1)}).net == Net(rate=0.1)  # a whole section is taken as it is


def test_an_empty_heading_sets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("net:\ndata:\n  # source: x.csv\ntrain:\n  steps: 5\n")
    assert Tuned.load(read_yaml(file)) == Tuned(train=TrainConfig(lr=0.5, steps=5))


TEXTS = ["no", "on", "yes", "2024-01-01", "notes #1.jsonl", "12:30", "1e-3", "true", ".5", "[old] notes", "a: b", "-"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["loss.name", "net.name"])
def test_a_text_is_what_was_written_on_the_command_line_in_a_file_and_in_python(
    text: str, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.yaml"
    section, name = key.split(".")
    written = text if text in TEXTS[:4] + TEXTS[5:9] else f"'{text}'"  # what YAML itself needs quotes for
    file.write_text(f"{section}:\n  {name}: {written}\n")
    for config in (
        Config.load(overrides=[f"{key}={text}"]),
        Config.load(overrides=[f"{key}='{text}'"]),
        Config.load(read_yaml(file)),
        Config.load(given={key: text}),
    ):
        assert config.setting(key) == text
        config.dump(file)
        assert Config.load(read_yaml(file)) == config


@pytest.mark.parametrize("text", ["null", "none", "None", "~", ""])
def test_an_optional_text_is_unset_by_null_and_quotes_make_it_a_text(text: str) -> None:
    assert Config.load({"net": {"name": "x"}}, [f"net.name={text}"]).net.name is None
    assert Config.load(given={"net.name": None}).net.name is None
    assert Config.load({"net": {"name": "x"}}, [f"net.name='{text}'"]).net.name == text
    if text:
        assert Config.load(overrides=[f"loss.name={text}"]).loss.name == text  # which cannot be unset
    else:
        assert "loss.name: is empty; give a text" in problem("loss.name=")
        assert "data: is empty" in problem("data=")


def test_python_values_are_never_printed_and_parsed() -> None:
    config = Config.load(
        given={"betas": (0.8, 0.99), "data": "notes #1.jsonl", "label": None, "loggers": ["tensorboard"], "bias": True}
    )
    assert config.train.betas == (0.8, 0.99)
    assert config.train.loggers == ("tensorboard",)
    assert (config.data.source, config.data.label, config.net.bias) == ("notes #1.jsonl", None, True)
    assert Config.load(given={"net.rate": np.float32(0.25), "steps": np.int64(7)}).net.rate == 0.25
    assert Config.load(given={"net.name": "null"}).net.name == "null"
    assert Config.load(given={"net.name": "'quoted'"}).net.name == "'quoted'"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=true", "train.steps: give a number (given: 'true')"),
        ("lr=.inf", "train.lr: give a finite number"),
        ("lr=nan", "train.lr: give a finite number"),
        ("lr=1e999", "train.lr: give a finite number"),
        ("optimizer_args={eps: .nan}", "train.optimizer_args: give a finite number"),
        ("betas=[0.9, inf]", "train.betas: give a finite number"),
        ("betas=0.9,0.95", "train.betas: give a list in brackets, such as [0.9,0.95]"),
        ("betas=[0.9]", "train.betas: give a list of 2 values"),
        ("tags=a,b", "net.tags: give a list in brackets, such as [a,b]"),
        ("tags=[a", "net.tags: [a is no list or mapping"),
        ("bias=yes", "net.bias: give true (given: 'yes')"),
        ("bias=off", "net.bias: give false (given: 'off')"),
        ("bias=1", "net.bias: give true or false (given: '1')"),
        ("optimizer_args=5", "train.optimizer_args: give a mapping such as {key: value}"),
        ("train=3", "train: is a section of settings; set one of them, such as train.steps (given: '3')"),
        ("train={}", "train: is empty; set a key of it, such as train.steps"),
        ("train=", "train: is empty; set a key of it, such as train.steps"),
    ],
)
def test_a_value_of_another_kind_is_one_clear_line(override: str, said: str) -> None:
    message = problem(override)
    assert said in message
    assert ";" not in message.replace(said, "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": 3}, "train: is a section of settings; set one of them, such as train.steps (given: 3)"),
        ({"train": {}}, "train: is empty; set a key of it, such as train.steps"),
        ({"data": None}, "data: is a section of settings; set one of them, such as data.source (given: None)"),
        ({"steps": True}, "train.steps: give a number (given: True)"),
        ({"lr": float("nan")}, "train.lr: give a finite number (given: nan)"),
        ({"bias": 1}, "net.bias: give true or false (given: 1)"),
        ({"bias": "yes"}, "net.bias: give true (given: 'yes')"),
        ({"net.name": True}, "net.name: Input should be a valid string (given: True)"),
    ],
)
def test_a_python_value_of_another_kind_is_one_clear_line(given: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(given=given)
    assert str(caught.value) == said


def test_a_file_may_hold_a_plain_value_only_for_a_section_that_has_a_source(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: 3\n")
    with pytest.raises(ConfigError, match=r"^train: is a section of settings; set one of them, such as train\.steps"):
        Config.load(read_yaml(file))


def test_a_key_that_stands_twice_in_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train:\n  steps: 5\n  lr: 0.1\n  steps: 6\n")
    with pytest.raises(ConfigError, match=r"line 2 is not valid YAML: duplicate key 'steps'"):
        read_yaml(file)


@given(st.one_of(st.none(), st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()), st.text())
@example(value=None, text="0\x85")
@example(value=None, text="a\u2028b")
def test_values_spelled_for_the_command_line_come_back(value: object, text: str) -> None:
    settings = {"net.tags": (text, "a, b"), "optimizer_args": {"x": value}, "loss.name": text}
    settings |= {"net.name": value if value is None or isinstance(value, str) else text}
    assume(text.strip())
    assume(not isinstance(value, str) or value.strip())
    config = Config.load(given=settings)
    assert Config.load(overrides=as_overrides(settings)) == config
    assert Config.load(yaml.load(as_yaml(config.model_dump(mode="json")), Loader=AsWritten)) == config


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


def test_a_pipe_is_refused_since_it_can_be_read_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is a pipe; write the configuration to a file"):
        read_yaml(tmp_path / "pipe")


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    assert read_yaml(file) == {}


@pytest.mark.parametrize(("steps", "warmup", "expected"), [(1000, 100, 100), (50, 100, 5), (5, 100, 1), (7, 7, 7)])
def test_warmup_never_outlasts_the_run(steps: int, warmup: int, expected: int) -> None:
    config = TrainConfig(steps=steps, warmup_steps=warmup)
    assert (config.warmup_steps, config.fitted_warmup_steps) == (warmup, expected)  # what was set is not rewritten
    peak = max(range(steps), key=lambda step: learning_rate(config)(Progress(step, steps)))
    assert peak == min(expected, steps - 1)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(CONFIGS).with_suffix("")))
def test_every_preset_is_of_a_recipe_and_differs_from_its_defaults_only_where_it_says(file: Path) -> None:
    recipe, values = file.parent.relative_to(CONFIGS).as_posix(), read_yaml(file)
    config_class = locate_recipe(values.pop("recipe", recipe)).Config
    preset, default = settings_of(config_class.load(values)), settings_of(config_class())
    assert {key for key in preset if preset[key] != default[key]} <= set(flat(values))


@pytest.mark.parametrize("recipe", built_in_recipes())
def test_the_preset_tiny_the_defaults_and_a_file_with_nothing_but_the_recipe_are_one(
    recipe: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"recipe: {recipe}\n")
    _, default = configure(recipe)
    assert default == locate_recipe(recipe).Config()
    assert configure(recipe, preset="tiny")[1] == default
    assert configure(recipe, config=file)[1] == default
    assert "tiny" in presets(recipe)
    assert set(read_yaml(presets(recipe)["tiny"])) == {"recipe"}


@pytest.mark.parametrize("recipe", built_in_recipes())
def test_every_setting_of_the_other_presets_says_something(recipe: str) -> None:
    for name in set(presets(recipe)) - {"tiny"}:
        default = settings_of(locate_recipe(recipe_with(name, recipe)).Config())
        preset = settings_of(configure(recipe, preset=name)[1])
        said = set(flat({key: value for key, value in read_yaml(presets(recipe)[name]).items() if key != "recipe"}))
        assert said == {key for key in preset if preset[key] != default[key]}, name


def settings_of(config: BaseConfig) -> dict[str, object]:
    return {setting.key: setting.value for setting in describe(config)}


def flat(values: dict, prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]


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
