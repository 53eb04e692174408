"""`openjepa adapt`: a pretrained sentence encoder and documents in, an adapted encoder or the start out, with evidence.

encode once -> statistics -> decide -> compare on held-out documents -> fit on all -> write the run -> guard
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openjepa.adaptation import adapted
from openjepa.adaptation.decision import Choice, Decision, decided
from openjepa.adaptation.documents import beir_corpus, texts
from openjepa.adaptation.evidence import Candidate, compared
from openjepa.adaptation.guard import guard_suite, guarded
from openjepa.adaptation.latents import DocumentLatents, encoded
from openjepa.adaptation.maps import PredictorSums, Whitening
from openjepa.adaptation.statistics import Statistics
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext
from openjepa.core.rundir import RunDir, write_json
from openjepa.data.files.records import Counts
from openjepa.data.objects import with_objects
from openjepa.evals.features import unit_rows
from openjepa.run.opened import Run, load
from openjepa.training import checkpoint

RECIPE = "openjepa.adaptation.adapted"
HELD_OUT_SHARE = 0.2
LATENTS = "latents"


@dataclass(frozen=True)
class Fit:
    """The maps that are fitted to some documents."""

    whitening: Whitening
    query_map: np.ndarray | None  # [D, D]; None = too few documents

    def candidates(self) -> dict[str, Candidate]:
        """The start and what the maps make of it."""
        found = {
            "start": Candidate(unit_rows, unit_rows),
            "whitening": Candidate(self.whitening, self.whitening),
        }
        if (query_map := self.query_map) is not None:
            found["predictor"] = Candidate(self.whitening, lambda latents: self.whitening(latents) @ query_map)
        return found


def adapt(
    base: str | Path,
    out: Path,
    config: adapted.Config,
    choice: Choice = "auto",
    guard: Sequence[Path] = (),
    *,
    max_loss: float = 1.0,
    device: str = "auto",
    precision: str = "auto",
    processes: int = 1,
    update: bool = False,
    on_documents: Callable[[int, int], None] | None = None,
) -> Run:
    """Adapt `base` to the documents of `config.data`, into the run folder `out`.

    Args:
        base: a sentence-transformers or transformers folder or hub id, or a run folder.
        out: a folder that holds no run yet.
        config: the documents, their parts and titles; its encoder's name is `base`.
        choice: "auto", or what is kept whatever is expected.
        guard: suites, BEIR folders or files of rated pairs that the result is compared with the start on.
        max_loss: points (hundredths) that a measure of them may lose; if one loses more, the start is kept.
        device: where the encoder runs, as for `load`.
        precision: of its matrix products; auto = bf16 where it keeps vectors to a cosine of 0.999.
        processes: how many have a copy of the encoder; see `Run.embed_file`.
        update: `base` is a run that this function made; its documents' latents are taken over, and not encoded again.
        on_documents: called with (documents, texts encoded) on the way.

    Raises UserError if the encoder or the documents cannot be read, or `out` holds a run.
    """
    began = time.perf_counter()
    earlier = _earlier(base, config) if update else None
    run_folder = RunDir.create(out, RECIPE, config)
    suite = guard_suite(guard, out)
    _write_start(run_folder, base, config, earlier)
    opened = load(out, device, precision).for_bulk()[0]
    counts = Counts()
    documents = texts(config.data, config.title, config.parts, counts)
    before = None if earlier is None else earlier.path / LATENTS
    latents, known, again = encoded(
        documents, opened.encoding(processes), out / LATENTS, HELD_OUT_SHARE, before, on_documents
    )
    statistics = statistics_of(latents)
    predictable = int((latents.part_counts >= 3).sum())
    decision = decided(statistics, predictable, choice)
    fit = None
    evidence = {}
    if decision.kept != "start":
        fit = fitted(latents, statistics, decision)
        without_held_out = fitted(latents, statistics_of(latents, held_out=False), decision, held_out=False)
        evidence = compared(latents, without_held_out.candidates())
    run = _written(run_folder, config, decision, fit, device, precision)
    checked = None if suite is None or fit is None else guarded(run, suite, max_loss)
    if checked is not None and not checked.held:
        reason = f"a guarded measure lost more than {max_loss:g} points; the start is kept"
        decision = Decision("start", (*decision.reasons, reason))
        run = _written(run_folder, config, decision, None, device, precision)
    result = {
        "base": str(base),
        "documents_before": known,
        "documents_again": again,
        **_facts(latents, statistics, predictable, counts),
        "decision": decision.to_json(),
        "held_out": {name: found.to_json() for name, found in evidence.items()},
        "guard": None if checked is None else checked.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(run_folder.adaptation, result)
    return run


@contextmanager
def withdrawn_on_failure(out: Path) -> Generator[None]:
    """If the block fails, remove the half of a run that it has made in `out`, so that it can be given again."""
    folder = RunDir(out)
    begun = folder.has_begun()
    try:
        yield
    except BaseException:
        if not begun:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            shutil.rmtree(out / LATENTS, ignore_errors=True)
        raise


def _written(
    folder: RunDir, config: adapted.Config, decision: Decision, fit: Fit | None, device: str, precision: str
) -> Run:
    """Write what is kept into the run, and open it."""
    kept = config.model_copy(update={"whitening": decision.kept != "start", "query_map": decision.kept == "predictor"})
    folder.write_config(kept, RECIPE)
    _write_weights(folder, kept, fit)
    return load(folder.path, device, precision)


@contextmanager
def _stock_folder(base: str | Path) -> Generator[str]:
    """`base` as a folder or name that encoders are read from; a run of ours is exported to one first."""
    if not (Path(base) / "config.yaml").is_file():
        yield str(base)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "base"
        load(base, "cpu").export("sentence-transformers", folder)
        yield str(folder)


def _earlier(base: str | Path, config: adapted.Config) -> RunDir:
    """The folder of an adapted run. Raises UserError if its latents do not go with new ones."""
    run = load(base, "cpu")
    if not (run.path / LATENTS).is_dir():
        raise UserError(f"{base} has no {LATENTS}/ to add to; adapt to all documents in one command, without --update")
    if (config.parts, config.encoder) != (run.config.parts, run.config.encoder):
        raise UserError(f"{base} has other parts= or encoder settings; adapt to all documents anew, without --update")
    return run.folder


def _write_start(folder: RunDir, base: str | Path, config: adapted.Config, earlier: RunDir | None) -> None:
    """Write the encoder as it is before adaptation into the run: `base`, or what an earlier run began with."""
    if earlier is not None:
        shutil.copytree(earlier.assets, folder.assets, dirs_exist_ok=True)
        _write_weights(folder, config)
        return
    with _stock_folder(base) as name:
        start = config.model_copy(update={"encoder": config.encoder.model_copy(update={"name": name})})
        folder.write_config(start, RECIPE)
        _write_weights(folder, start)
    folder.write_config(config, RECIPE)


def settings_of(run: Run) -> dict[str, Any]:
    """The settings of an adapted run, for more documents. Raises UserError for another run."""
    run.adaptation()  # says what is wrong with another run
    return {**run.config.model_dump(), "whitening": False, "query_map": False}


def _write_weights(folder: RunDir, config: adapted.Config, fit: Fit | None = None) -> None:
    """Build the encoder with its maps, set these, and keep the weights as the run's only checkpoint."""
    method = adapted.build(config, BuildContext(folder.assets)).method
    assert isinstance(method, adapted.Adapted)
    folder.seal()  # the build has filled the assets
    if fit is not None:
        mean, matrix = (torch.from_numpy(part).float() for part in (fit.whitening.mean, fit.whitening.matrix))
        adapted.set_whitening(method.head, mean, matrix)
        if fit.query_map is not None:
            adapted.set_query_map(method.head, torch.from_numpy(fit.query_map).float())
    checkpoint.save_weights(folder.checkpoints, 1, method)


def statistics_of(latents: DocumentLatents, held_out: bool | None = None) -> Statistics:
    """The sums over all documents, or over those that are, or are not, held out."""
    found = Statistics.empty(latents.documents.shape[1])
    for block, _ in latents.blocks(held_out):
        found = found.merged(Statistics.of(block))
    return found


def fitted(latents: DocumentLatents, statistics: Statistics, decision: Decision, held_out: bool | None = None) -> Fit:
    """The maps that were decided on.

    `statistics` are of the documents they are fitted to: all, or those that are, or are not, held out.
    """
    whitening = Whitening.fitted(statistics)
    if decision.kept == "whitening":
        return Fit(whitening, None)
    sums = PredictorSums(latents.documents.shape[1])
    first = 0
    for block, documents in latents.blocks(held_out):
        parts = block.usable(2)
        if len(parts.parts):
            targets = whitening(documents)[parts.owner - first]  # [P, D]
            sums.add(whitening(parts.parts), targets)
        first += len(documents)
    return Fit(whitening, sums.query_map())


def _facts(latents: DocumentLatents, statistics: Statistics, predictable: int, counts: Counts) -> dict[str, Any]:
    """What is known of the documents."""
    return {
        "documents": len(latents.documents),
        "documents_of_one_part": int((latents.part_counts < 2).sum()),
        "documents_of_three_parts": predictable,
        "parts": len(latents.parts),
        "dim": latents.documents.shape[1],
        "effective_rank": round(statistics.effective_rank, 1) if statistics.parts else None,
        "cohesion": round(statistics.cohesion, 4),
        "counts": dict(counts),
    }


def with_documents(config: adapted.Config, objects: Any) -> adapted.Config:
    """The same with documents given as objects in a file, with their titles. Raises UserError for other objects."""
    labelled = config.model_copy(update={"data": config.data.model_copy(update={"label": config.title})})
    written = with_objects(labelled, objects)
    return config.model_copy(update={"data": written.data.model_copy(update={"label": config.data.label})})


def source_of(config: adapted.Config) -> adapted.Config:
    """The same with a folder in BEIR's layout read as its corpus, with titles."""
    corpus = beir_corpus(config.data.source)
    if corpus is None:
        return config
    data = config.data.model_copy(update={"source": str(corpus)})
    return config.model_copy(update={"data": data, "title": config.title or "title"})
