"""The Python interface, which the command line also uses: `train`, `load` and what a loaded run can do.

    run = openjepa.train("t_jepa", data="corpus.jsonl", steps=500)
    vectors = run.encode(["A label-free embedding.", "Another one."])  # [2, D]

A run is used from its folder alone: `openjepa.load("runs/...")` gives what `train` gave.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from openjepa.core.config import override_key
from openjepa.core.configure import configure, recipe_with
from openjepa.core.errors import UserError
from openjepa.core.inside import named_by_user
from openjepa.core.method import Hook
from openjepa.core.published import folder_of
from openjepa.core.rundir import RunDir, default_folder
from openjepa.core.trust import trust
from openjepa.core.values import as_overrides
from openjepa.data.objects import with_objects, without_objects
from openjepa.encoding.rows import text_rows
from openjepa.run.opened import Run, load
from openjepa.run.weights import BACKGROUND_TEXTS, require_there
from openjepa.training import checkpoint
from openjepa.training.lock import training_lock
from openjepa.training.optim import build_optimizer
from openjepa.training.run import train_into
from openjepa.training.stages import freeze_all_but_predictor

if TYPE_CHECKING:
    from openjepa.adaptation.decision import Choice
    from openjepa.retrieval.index import Added
    from openjepa.retrieval.search import Index
    from openjepa.retrieval.weights import ChosenWeights

UNCHANGEABLE = ("train.optimizer", "train.optimizer_args", "train.seed")  # the state of a run depends on them


def train(
    recipe: str,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    overrides: Sequence[str] = (),
    progress: bool = True,
    trust_code: bool = False,
    force: bool = False,
    **settings: Any,
) -> Run:
    """Train a recipe and return its run.

    Args:
        recipe: a built-in name ("t_jepa"), a dotted module path, or a recipe file ("./my_method.py"); with `resume`,
            that of the run, or "".
        preset: a shipped size ("tiny", "small", ...); "tiny" if nothing is given.
        config: a YAML file, used instead of a preset.
        out: the run folder; default `runs/<recipe>-<time>`.
        resume: continue the run in `out` from its newest checkpoint. Its own config is used; settings may only say
            where its files are now, see `relocate`.
        hooks: called at every log step with (progress, output, stats), besides those that write the run's logs.
        overrides: "key=value" strings, spelled as on the command line.
        progress: show a progress line on stderr.
        force: with `resume`, let settings of `train` be others from here on, see `relocate`.
        trust_code: with `resume`, let the run import code of its own, as `load`.
        **settings: Python values by keyword, taken as they are: `steps=500`, `betas=(0.9, 0.95)`, `label=None`,
            `data="corpus.jsonl"`, `encoder={"dim": 64}` (the rest of the section stays). `data` may also be a list of
            texts or dicts, a DataFrame, Series, Dataset or Table, or a function that returns an iterator: see
            `data.files.objects`.

    Raises:
        UserError: bad configuration, unreadable data, a folder that already holds a run or is being trained, or
            training that had to stop.
    """
    from openjepa.training.loop import make_fabric
    from openjepa.training.optimizers import require_optimizer
    from openjepa.training.tracking import require_trackers

    if resume:
        if out is None:
            raise UserError("resume needs the run folder: out=RUN")
        if preset is not None or config is not None:
            raise UserError("resume goes on with the run's own config: leave preset and config out")
        with training_lock(RunDir.open(folder_of(out)).path):
            if overrides or settings:
                _relocated(out, overrides, settings, trust_code, force)
            run = load(out, "cpu", trust_code=trust_code)
            if recipe and Path(recipe).stem != Path(run.recipe).stem:
                raise UserError(
                    f"{out} is a run of {run.recipe}, not of {recipe}; resume it as train({run.recipe!r}, ...)"
                )
            named_by_user(run.config.locations().values())
            fabric = make_fabric(run.config.train)
            fabric.launch()
            train_into(run.folder, fabric, run.untrained, run.config, hooks, resume, progress)
    else:
        given, objects = without_objects(settings)
        module, chosen = configure(recipe, preset, config, overrides, given)
        recipe = recipe_with(preset, recipe)
        require_optimizer(chosen.train)
        require_trackers(chosen.train.loggers)
        chosen = with_objects(chosen, objects).with_absolute_paths()
        fabric = make_fabric(chosen.train)
        path = Path(out) if out else default_folder(Path(recipe).stem)
        with training_lock(path):
            fabric.launch()
            run = _created(fabric.broadcast(path), fabric, recipe, chosen, module)
            train_into(run.folder, fabric, run.untrained, run.config, hooks, resume, progress)
    return load(run.path, run.config.train.accelerator, trust_code=run.trust_code)


def _created(path: Path, fabric: Any, recipe: str, config: Any, module: ModuleType) -> Run:
    """A new run in the folder `path`, which the main process makes."""
    if fabric.is_global_zero:
        RunDir.create(path, recipe, config)
    fabric.barrier()
    folder = RunDir.open(path)
    trust(folder.code_names(recipe, config.model_dump(mode="json")))  # the caller has named it
    named_by_user(config.locations().values())
    return Run(folder, recipe, config, module, trust_code=True)


def adapt(
    base: str | Path,
    *,
    out: str | Path,
    keep: Choice = "auto",
    guard: Sequence[str | Path] = (),
    max_loss: float = 1.0,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    processes: int = 1,
    update: bool = False,
    on_documents: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Run:
    """Fit a pretrained sentence encoder to documents without labels, in closed form; see `adaptation`.

    Args:
        base: a sentence-transformers or transformers folder or hub id, or a run folder.
        out: the run folder to write.
        keep: "auto": the maps expected to help, else the unchanged encoder; "start", "whitening" or "predictor"
            (whitening, and a predictor for queries) force that choice.
        guard: what must not get worse: suite files, BEIR folders, files of rated pairs.
        max_loss: points (hundredths) that a guarded measure may lose before the start is kept instead.
        overrides: "key=value" strings, spelled as on the command line.
        device: where the encoder runs, as for `load`.
        precision: of its matrix products, as for `load`.
        processes: how many encode, each with a copy of the encoder, as for `Run.embed_file`.
        update: add the documents to those of `base`, an adapted run, whose own are not read again; its settings hold.
        on_documents: called with numbers of (documents, texts) that were encoded since the last call.
        **settings: `data` as for `train`, `title` (a column), `parts` ("sentences" or "paragraphs"), `max_len`, ...

    The run's `encode_query` and `encode_document` search; `run.adaptation()` is what was measured and decided. Raises
    UserError if the encoder or the documents cannot be read, or `out` holds a run.
    """
    from openjepa.adaptation import adapt as adaptation
    from openjepa.adaptation.adapted import Config

    given, objects = without_objects(settings)
    begun = adaptation.settings_of(load(base, device)) if update else {"encoder": {"name": str(base)}}
    wanted = Config.load(begun, overrides, given)
    config = adaptation.source_of(adaptation.with_documents(wanted, objects)).with_absolute_paths()
    paths = [Path(path) for path in guard]
    with training_lock(Path(out)), adaptation.withdrawn_on_failure(Path(out)):
        return adaptation.adapt(
            base,
            Path(out),
            config,
            keep,
            paths,
            max_loss=max_loss,
            device=device,
            precision=precision,
            processes=processes,
            update=update,
            on_documents=on_documents,
        )


def build_index(
    run: Run | str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    on_documents: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Added:
    """Add documents to a search index in the folder `out`, which is made if there is none.

    Args:
        run: the run that makes the vectors, or its folder; an index belongs to one run.
        out: the folder of the index.
        overrides: "key=value" strings, spelled as on the command line.
        on_documents: called with (documents, texts encoded) on the way.
        **settings: `data` as for `train`; `title` (a column), `parts` ("sentences" or "paragraphs").

    Documents of the same words as one in the index are not added again, so that new ones are added by the same call.
    Returns what was added. Raises UserError as `adapt` does, or if another run made the index.
    """
    from openjepa.adaptation import adapt as adaptation
    from openjepa.adaptation.adapted import Config
    from openjepa.retrieval.index import add_documents

    opened = run if isinstance(run, Run) else load(run)
    given, objects = without_objects(settings)
    documents = adaptation.source_of(adaptation.with_documents(Config.load({}, overrides, given), objects))
    return add_documents(opened, documents.data, Path(out), documents.title, documents.parts, on_documents)


def open_index(path: str | Path, device: str = "auto", precision: str = "auto", trust_code: bool = False) -> Index:
    """A search index: `openjepa.open_index("my.index").search("a question")`.

    `device`, `precision` and `trust_code` are for the run that encodes the queries, as for `load`. Raises UserError if
    there is no index.
    """
    from openjepa.retrieval.search import Index

    return Index(Path(path), device, precision, trust_code)


class Moved(NamedTuple):
    """A setting of a run that named a path, and what it names now."""

    key: str
    old: Any
    new: Any


def choose_weights(index: Index | str | Path, judged: str | Path, split: str = "test") -> ChosenWeights:
    """Choose the weights of a search index by judged queries, and keep them in it.

    Args:
        index: an opened index, or its folder.
        judged: a folder in BEIR's layout, whose documents are in the index.
        split: which judgements of it, qrels/<split>.tsv.

    Of a small grid the best is kept if it is clearly better than the defaults, else the defaults. Raises UserError if
    the folder cannot be read, or fewer than 20 of its queries have an answer in the index.
    """
    from openjepa.data.files.records import Counts
    from openjepa.retrieval import weights
    from openjepa.retrieval.search import Index
    from openjepa.tasks.beir import read_beir

    opened = index if isinstance(index, Index) else Index(Path(index))
    folder = Path(judged)
    return weights.choose_weights(opened, read_beir(folder, folder.resolve().name, split, 0, Counts()))


def relocate(
    path: str | Path,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    trust_code: bool = False,
    force: bool = False,
) -> list[Moved]:
    """Tell a run where the files that it was made from are now; its config.yaml is written anew.

    `overrides` are "key=value" strings, and `settings` Python values by key, of the settings that may hold a path
    (`encoder.name`, `data.source`, ...): what else a run is made of is fixed. With `force`, settings of `train` may be
    changed too, as far as the newest checkpoint can still be resumed with them. Returns what changed. Raises UserError
    for any other setting, and while the run is being trained.
    """
    with training_lock(RunDir.open(folder_of(path)).path):
        return _relocated(path, overrides, settings or {}, trust_code, force)


def _relocated(
    path: str | Path, overrides: Sequence[str], settings: Mapping[str, Any], trust_code: bool, force: bool
) -> list[Moved]:
    run = load(path, "cpu", trust_code=trust_code)
    config = type(run.config)
    keys = run.config.location_keys()
    wanted = list(dict.fromkeys(config.setting_key(key) for key in [*map(override_key, overrides), *settings]))
    moved = config.load(run.config.model_dump(mode="json"), overrides, settings).with_absolute_paths()
    changes = [Moved(key, run.config.setting(key), moved.setting(key)) for key in wanted]
    changes = [change for change in changes if change.old != change.new]
    fixed = [change for change in changes if change.key not in keys]
    if not force and (named := [key for key in wanted if key not in keys]):
        raise UserError(_refusal(run, named, fixed, [*overrides, *as_overrides(settings)]))
    for key in wanted:
        if key in keys:
            require_there(moved, key, "give the folder or file as it is named now")
    if fixed:
        _require_resumable(run, moved, [change.key for change in fixed])
        steps = [checkpoint.step_of(path) for path in checkpoint.finished(run.folder.checkpoints)]
        run.folder.add_change({"after_step": max(steps, default=0), "settings": [change._asdict() for change in fixed]})
    run.folder.write_config(moved, run.recipe)
    return changes


def _refusal(run: Run, named: Sequence[str], fixed: Sequence[Moved], overrides: Sequence[str]) -> str:
    """Why settings are not changed, what would change, and the commands that do change them."""
    words = shlex.join(overrides)
    differences = ", ".join(f"{change.key}: {change.old} -> {change.new}" for change in fixed) or "as they are"
    return (
        f"{', '.join(named)} cannot be changed in a run that exists ({differences}); only where its files are can: "
        f"{', '.join(run.config.location_keys())}. To go on with other settings of train from the newest checkpoint: "
        f"openjepa train --resume {run.path} {words} --force. As a new run: openjepa train {run.recipe} --config "
        f"{run.folder.config_file} {words}"
    )


def _require_resumable(run: Run, config: Any, keys: Sequence[str]) -> None:
    """Raises UserError if the newest checkpoint cannot be gone on with under `config`."""
    other = [key for key in keys if not key.startswith("train.") or key in UNCHANGEABLE]
    if other:
        raise UserError(f"{', '.join(other)}: not even --force changes this in a run that exists; train a new run")
    found = checkpoint.newest_resumable(run.folder.checkpoints)
    if found is None:
        return
    method = replace(run, config=config).untrained(random_init=True).method
    if checkpoint.step_of(found) > config.train.joint_steps:
        freeze_all_but_predictor(method)
    checkpoint.load(found, method, build_optimizer(method, config.train))


def read_texts(source: str | Path, column: str = "text", limit: int | None = BACKGROUND_TEXTS) -> list[str]:
    """The first `limit` texts of a file or folder of texts; None = all."""
    return list(islice((row.text for row in text_rows(str(source), column) if row.text is not None), limit))
