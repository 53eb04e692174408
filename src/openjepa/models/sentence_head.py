"""What a sentence-transformers model puts behind its encoder: pooling, linear maps, unit length, and its prompts.

A folder or repository of that library has a `modules.json`; a transformers one has none, and its states are averaged.
Only data is read: JSON and safetensors, never pickles or code.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openjepa.core import hub
from openjepa.core.embedding import Normalization
from openjepa.core.errors import UserError
from openjepa.core.rundir import write_json
from openjepa.models.pooling import StatePooling, pooled
from openjepa.models.quiet import quiet_transformers

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
ROUTES = "router_config.json"
OLD_POOLING: dict[str, StatePooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}  # the keys of releases before 6
POOLING: dict[str, StatePooling] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
ACTIVATIONS = {"torch.nn.modules.linear.Identity": nn.Identity, "torch.nn.modules.activation.Tanh": nn.Tanh}
M = TypeVar("M", bound=nn.Module)
HEAD = "sentence_transformers."  # what types of modules begin with


class UnitLength(nn.Module):
    """Vectors divided by their length."""

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, E] -> [B, E]."""
        return F.normalize(vectors, dim=-1)


class SentenceHead(nn.Module):
    """States [B, T, D] to vectors [B, E]. Its weights stay as they are in training.

    Args:
        pooling: from the states of a text to one vector.
        maps: what follows: pairs of a linear layer and its activation, and `UnitLength` between them.
        normalization: of the vectors in the end.
        queries: a linear map of the vectors of queries, which are then scaled to unit length like all others; None =
            they are read like documents.
        prompts: what may stand before a text, by name.
        default_prompt: the name of the one that does.
    """

    def __init__(
        self,
        pooling: StatePooling = "mean",
        maps: Sequence[nn.Module] = (),
        normalization: Normalization = "none",
        queries: nn.Linear | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
    ) -> None:
        super().__init__()
        self.pooling: StatePooling = pooling
        self.maps = nn.Sequential(*maps).requires_grad_(False)
        self.normalization: Normalization = normalization
        self.queries = None if queries is None else queries.requires_grad_(False)
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt

    @property
    def prompt(self) -> str:
        """The default prompt, which stands before every text."""
        return self.prompts.get(self.default_prompt, "") if self.default_prompt else ""

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """states [B, T, D], valid [B, T] bool -> [B, E] float32."""
        return self._scaled(self.maps(pooled(states, valid, self.pooling).float()))

    def as_queries(self, vectors: Tensor) -> Tensor:
        """Vectors of texts [B, E] -> the same texts' as queries [B, E]."""
        return vectors if self.queries is None else self._scaled(self.queries(vectors))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.normalization == "unit" else vectors

    @property
    def steps(self) -> list[nn.Module]:
        """What follows the pooling, one step a module of sentence-transformers: linear maps with their activations."""
        steps: list[nn.Module] = []
        modules = iter(self.maps)
        for module in modules:
            steps.append(nn.Sequential(module, next(modules)) if isinstance(module, nn.Linear) else module)
        return [*steps, UnitLength()] if self.normalization == "unit" else steps

    def keep(self, folder: Path) -> None:
        """Write it beside a kept encoder, as `read_head` reads it."""
        modules = [_entry(0, "", "Transformer"), _entry(1, "1_Pooling", "Pooling")]
        names = {ours: theirs for theirs, ours in POOLING.items()}
        _write(folder / "1_Pooling" / "config.json", {"pooling_mode": names[self.pooling]})
        for step in self.steps:
            kind = "Normalize" if isinstance(step, UnitLength) else "Dense"
            name = f"{len(modules)}_{kind}"
            modules.append(_entry(len(modules), name, kind))
            if isinstance(step, nn.Sequential):
                _keep_dense(step, folder / name)
        if self.queries is not None:
            name = f"{len(modules)}_Router"
            modules.append(_entry(len(modules), name, "Router"))
            structure = {"query": ["query_0_Dense"], "document": []}
            types = {"query_0_Dense": f"{HEAD}models.Dense"}
            _write(folder / name / ROUTES, {"types": types, "structure": structure})
            _keep_dense(nn.Sequential(self.queries, nn.Identity()), folder / name / "query_0_Dense")
        _write(folder / MODULES, modules)
        _write(folder / SETTINGS, {"prompts": self.prompts, "default_prompt_name": self.default_prompt})


def _keep_dense(step: nn.Sequential, folder: Path) -> None:
    """Write a linear map and its activation as a Dense module."""
    linear, activation = step
    assert isinstance(linear, nn.Linear)
    settings = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": next(key for key, kind in ACTIVATIONS.items() if isinstance(activation, kind)),
    }
    _write(folder / "config.json", settings)
    weights = {f"linear.{key}": value.detach().cpu().contiguous() for key, value in linear.named_parameters()}
    save_file(weights, folder / "model.safetensors")


def read_head(name: str) -> SentenceHead | None:
    """The head of a folder or hub repository; None if it is no sentence-transformers model.

    Raises UserError for modules that it cannot keep.
    """
    modules = stored_json(name, MODULES)
    if modules is None:
        return None
    pooling: StatePooling = "mean"
    maps: list[nn.Module] = []
    queries: nn.Linear | None = None
    for module in modules[1:]:
        kind = str(module["type"]).rpartition(".")[2]
        path = module["path"]
        known = str(module["type"]).startswith(HEAD) and kind in ("Pooling", "Dense", "Normalize", "Router")
        if not known or queries is not None:
            raise UserError(
                f"{name} has a module {module['type']!r} behind its encoder, which cannot be kept; give its plain "
                "transformers folder, whose states are averaged"
            )
        match kind:
            case "Pooling":
                pooling = _pooling(name, stored_json(name, f"{path}/config.json") or {})
            case "Dense":
                maps += _dense(name, path)
            case "Normalize":
                maps.append(UnitLength())
            case "Router":
                queries = _query_map(name, path)
    is_unit = bool(maps) and isinstance(maps[-1], UnitLength)
    settings = stored_json(name, SETTINGS) or {}
    prompts = {key: value for key, value in dict(settings.get("prompts") or {}).items() if value}
    return SentenceHead(
        pooling,
        maps[:-1] if is_unit else maps,
        "unit" if is_unit else "none",
        queries,
        prompts,
        settings.get("default_prompt_name"),
    )


def _query_map(name: str, path: str) -> nn.Linear:
    """The linear map of queries in a Router that does nothing else but scale. Raises UserError for another one."""
    config = stored_json(name, f"{path}/{ROUTES}") or {}
    structure = dict(config.get("structure") or {})
    types = dict(config.get("types") or {})
    kinds = {route: [str(types.get(part)).rpartition(".")[2] for part in parts] for route, parts in structure.items()}
    scaled = {route: [kind for kind in found if kind != "Normalize"] for route, found in kinds.items()}
    if scaled != {"query": ["Dense"], "document": []}:
        raise UserError(
            f"{name} treats queries and documents in ways that cannot be kept ({kinds}); give another model"
        )
    dense = next(part for part in structure["query"] if str(types[part]).endswith("Dense"))
    linear, activation = _dense(name, f"{path}/{dense}")
    if not isinstance(linear, nn.Linear) or not isinstance(activation, nn.Identity):
        raise UserError(f"{name}: its map of queries has an activation, which cannot be kept; give another model")
    return linear


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


def in_bf16(module: M) -> M:
    """A copy whose weights are bfloat16, for a CPU: no cast at every product. Heads stay in fp32, as pooling is."""
    copied = copy.deepcopy(module).to(torch.bfloat16)
    for part in copied.modules():
        if isinstance(part, SentenceHead):
            part.float()
    return copied


def embedded(encoder: Any, ids: Tensor, valid: Tensor) -> Tensor:
    """ids, valid [B, T] -> [B, E] the vector of each row: by the encoder's own head, else the mean of its states."""
    states = encoder(ids, valid)
    head = getattr(encoder, "head", None)
    return pooled(states, valid, "mean") if head is None else head(states, valid)
