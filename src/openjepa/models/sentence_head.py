"""What a sentence-transformers model puts behind its encoder: pooling, linear maps, unit length, and its prompts.

A folder or repository of that library has a `modules.json`; a transformers one has none, and its states are averaged.
Only data is read: JSON and safetensors, never pickles or code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openjepa.core import hub
from openjepa.core.embedding import Normalization
from openjepa.core.errors import UserError
from openjepa.core.rundir import write_json
from openjepa.models.pooling import StatePooling, pooled
from openjepa.models.quiet import quiet_transformers

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
OLD_POOLING: dict[str, StatePooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}  # the keys of releases before 6
POOLING: dict[str, StatePooling] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
ACTIVATIONS = {"torch.nn.modules.linear.Identity": nn.Identity, "torch.nn.modules.activation.Tanh": nn.Tanh}
HEAD = "sentence_transformers."  # what types of modules begin with


class SentenceHead(nn.Module):
    """States [B, T, D] to vectors [B, E]. Its weights stay as they are in training."""

    def __init__(
        self,
        pooling: StatePooling = "mean",
        maps: tuple[nn.Module, ...] = (),
        normalization: Normalization = "none",
        prompts: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
    ) -> None:
        super().__init__()
        self.pooling: StatePooling = pooling
        self.maps = nn.Sequential(*maps).requires_grad_(False)
        self.normalization: Normalization = normalization
        self.prompts, self.default_prompt = dict(prompts or {}), default_prompt

    @property
    def prompt(self) -> str:
        """The default prompt, which stands before every text."""
        return self.prompts.get(self.default_prompt, "") if self.default_prompt else ""

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """states [B, T, D], valid [B, T] bool -> [B, E] float32."""
        vectors = self.maps(pooled(states, valid, self.pooling).float())
        return F.normalize(vectors, dim=-1) if self.normalization == "unit" else vectors

    def keep(self, folder: Path) -> None:
        """Write it beside a kept encoder, as `read_head` reads it."""
        modules = [_entry(0, "", "Transformer"), _entry(1, "1_Pooling", "Pooling")]
        names = {ours: theirs for theirs, ours in POOLING.items()}
        _write(folder / "1_Pooling" / "config.json", {"pooling_mode": names[self.pooling]})
        linears = [module for module in self.maps if isinstance(module, nn.Linear)]
        activations = [module for module in self.maps if not isinstance(module, nn.Linear)]
        for linear, activation in zip(linears, activations, strict=True):
            name = f"{len(modules)}_Dense"
            settings = {
                "in_features": linear.in_features,
                "out_features": linear.out_features,
                "bias": linear.bias is not None,
                "activation_function": next(key for key, kind in ACTIVATIONS.items() if isinstance(activation, kind)),
            }
            _write(folder / name / "config.json", settings)
            weights = {f"linear.{key}": value.detach().cpu().contiguous() for key, value in linear.named_parameters()}
            save_file(weights, folder / name / "model.safetensors")
            modules.append(_entry(len(modules), name, "Dense"))
        if self.normalization == "unit":
            modules.append(_entry(len(modules), f"{len(modules)}_Normalize", "Normalize"))
        _write(folder / MODULES, modules)
        _write(folder / SETTINGS, {"prompts": self.prompts, "default_prompt_name": self.default_prompt})


def read_head(name: str) -> SentenceHead | None:
    """The head of a folder or hub repository; None if it is no sentence-transformers model.

    Raises UserError for modules that it cannot keep.
    """
    modules = stored_json(name, MODULES)
    if modules is None:
        return None
    pooling: StatePooling = "mean"
    maps: list[nn.Module] = []
    normalization: Normalization = "none"
    for module in modules[1:]:
        kind = str(module["type"]).rpartition(".")[2]
        if not str(module["type"]).startswith(HEAD) or kind not in ("Pooling", "Dense", "Normalize"):
            raise UserError(
                f"{name} has a module {module['type']!r} behind its encoder, which cannot be kept; give its plain "
                "transformers folder, whose states are averaged"
            )
        if kind == "Pooling":
            pooling = _pooling(name, stored_json(name, f"{module['path']}/config.json") or {})
        elif kind == "Dense":
            maps += _dense(name, module["path"])
        else:
            normalization = "unit"
    settings = stored_json(name, SETTINGS) or {}
    prompts = {key: value for key, value in dict(settings.get("prompts") or {}).items() if value}
    return SentenceHead(pooling, tuple(maps), normalization, prompts, settings.get("default_prompt_name"))


def _pooling(name: str, config: Mapping[str, Any]) -> StatePooling:
    if config.get("include_prompt") is False:
        raise UserError(f"{name} leaves its prompt out of the pooling, which cannot be kept; give another model")
    mode = config.get("pooling_mode")
    if isinstance(mode, str) and mode in POOLING:
        return POOLING[mode]
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if mode is None and len(chosen) == 1 and chosen[0] in OLD_POOLING:
        return OLD_POOLING[chosen[0]]
    raise UserError(
        f"{name} pools by {mode or ' and '.join(chosen) or 'nothing'}; mean, cls, max and lasttoken are read"
    )


def _dense(name: str, path: str) -> list[nn.Module]:
    """A linear layer and its activation."""
    config = stored_json(name, f"{path}/config.json") or {}
    file = _file(name, f"{path}/model.safetensors")
    activation = ACTIVATIONS.get(str(config.get("activation_function")))
    if file is None or activation is None or config.get("use_residual"):
        raise UserError(
            f"{name}: its Dense module {path} cannot be kept; it needs model.safetensors, an activation of Identity or "
            "Tanh, and no residual"
        )
    weights = load_file(file)
    linear = nn.Linear(weights["linear.weight"].shape[1], weights["linear.weight"].shape[0], "linear.bias" in weights)
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    return [linear, activation()]


def _file(name: str, path: str) -> Path | None:
    """A file of a folder or hub repository; None if it has no such file."""
    from transformers.utils import cached_file

    with hub.reaching(), quiet_transformers():
        found = cached_file(
            str(Path(name).expanduser()),
            path,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return None if found is None else Path(found)


def stored_json(name: str, path: str) -> Any:
    """The content of a JSON file of a folder or hub repository; None if it has no such file. Raises UserError."""
    file = _file(name, path)
    if file is None:
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not the JSON that sentence-transformers writes; remove it") from error


def _entry(number: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"{HEAD}models.{kind}"}


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, value)


def embedded(encoder: Any, ids: Tensor, valid: Tensor) -> Tensor:
    """ids, valid [B, T] -> [B, E] the vector of each row: by the encoder's own head, else the mean of its states."""
    states = encoder(ids, valid)
    head = getattr(encoder, "head", None)
    return pooled(states, valid, "mean") if head is None else head(states, valid)
