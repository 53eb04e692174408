"""What `openjepa adapt` gains on judged collections, arm by arm: nDCG@10 with 95 % bootstrap intervals over queries.

    python benchmarks/bench_adapt.py --base path/to/sentence-encoder cranfield/ cisi/ cacm/ > adapt.md

Each collection is a folder in BEIR's layout. The encoder reads it once, by `openjepa adapt`; all arms are made from
those latents. Maps see no judgement. `--curve` adds the gain against the number of documents that maps are fitted to,
`--against` another encoder that is adapted likewise, such as one of train_last_blocks.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

import openjepa
from openjepa.adaptation.decision import decided
from openjepa.adaptation.documents import texts
from openjepa.adaptation.latents import DocumentLatents
from openjepa.adaptation.maps import PredictorSums, Whitening
from openjepa.adaptation.statistics import Block, Statistics
from openjepa.core.seeding import generator_for
from openjepa.core.tasks import Search
from openjepa.data.files.records import Counts
from openjepa.data.text.sources import DataConfig
from openjepa.evals.features import embedder_of, unit_rows
from openjepa.evals.scores import Score, difference_interval
from openjepa.evals.search import answers_in, ndcg
from openjepa.tasks.beir import read_beir

SIZES = (50, 100, 200, 400, 800)
DRAWS = 3
CUTS = (256, 128, 64)


@dataclass(frozen=True)
class Collection:
    """A judged collection with the encoder's latents, unit rows in float64."""

    name: str
    task: Search
    queries: np.ndarray  # [Q, D]
    documents: np.ndarray  # [N, D], in the order of the task
    block: Block  # parts, and the task's document of each
    seconds: float  # of openjepa adapt
    result: dict

    @classmethod
    def read(cls, folder: Path, base: str, out: Path) -> Collection:
        """Encode a collection by `openjepa adapt`."""
        began = time.perf_counter()
        run = openjepa.adapt(base, data=str(folder), out=out)
        seconds = time.perf_counter() - began
        task = read_beir(folder, folder.resolve().name, "test", 0, Counts())
        latents = DocumentLatents.open(out / "latents")
        data = DataConfig(source=str(folder / "corpus.jsonl"))
        read = [text.whole for text in texts(data, "title", "sentences", Counts())]
        number = {" ".join(text.split()): place for place, text in enumerate(task.documents)}
        places = np.array([number[" ".join(text.split())] for text in read])
        documents = np.zeros((len(task.documents), latents.documents.shape[1]))
        documents[places] = latents.documents
        owner = places[latents.owner]
        order = np.argsort(owner, kind="stable")
        parts = np.asarray(latents.parts, np.float64)[order]
        start = embedder_of(openjepa.load(out).fresh())
        queries = unit_rows(start(task.queries).astype(np.float64))
        return cls(task.name, task, queries, documents, Block(parts, owner[order]), seconds, run.adaptation())

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """nDCG@10 of each query [Q], for scores [Q, N]."""
        found = []
        for row, gains in zip(scores.round(6), self.task.gains, strict=True):
            every = np.zeros(len(row))
            every[list(gains)] = list(gains.values())
            found.append(ndcg(answers_in(row, every)))
        return np.array(found)


@dataclass(frozen=True)
class Maps:
    """Whitening and the predictor, fitted to a block."""

    whitening: Whitening
    query_map: np.ndarray

    @classmethod
    def fitted(cls, of: Collection, block: Block, shrinkage: float = 0.6, ridge: float = 0.03) -> Maps:
        whitening = Whitening.fitted(Statistics.of(block), shrinkage)
        sums = PredictorSums(block.parts.shape[1])
        parts = block.usable(2)
        sums.add(whitening(parts.parts), whitening(of.documents)[parts.owner])
        return cls(whitening, sums.query_map(ridge))


def arms_of(of: Collection) -> Iterator[tuple[str, np.ndarray]]:
    """Name and scores [Q, N] of every arm."""
    start = of.queries @ of.documents.T
    words = word_scores(of.task.queries, of.task.documents)
    yield "start", start
    yield "TF-IDF", words
    yield "start + TF-IDF", start + words
    for shrinkage in (0.2, 0.4, 0.6, 0.8):
        whitening = Whitening.fitted(Statistics.of(of.block), shrinkage)
        yield f"whitening, s = {shrinkage}", whitening(of.queries) @ whitening(of.documents).T
    whole = Whitening.fitted(of_all(of), 0.6)
    yield "whitening of all sentences, not within documents, s = 0.6", whole(of.queries) @ whole(of.documents).T
    for ridge in (0.03, 0.3):
        maps = Maps.fitted(of, of.block, ridge=ridge)
        yield f"whitening s = 0.6, predictor ridge {ridge}", scores_of(maps, of)
    defaults = Maps.fitted(of, of.block)
    yield from hybrids(of, defaults, words)
    yield from cuts(of, defaults)


def hybrids(of: Collection, maps: Maps, words: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The defaults with the best sentence and with words, as `openjepa search` adds them."""
    adapted, sentence = scores_of(maps, of), best_sentence(maps, of)
    yield "defaults + 0.5 best sentence", adapted + 0.5 * sentence
    yield "defaults + 0.5 TF-IDF", adapted + 0.5 * words
    yield "defaults + TF-IDF", adapted + words
    yield "defaults + 0.5 best sentence + 0.5 TF-IDF (openjepa search)", adapted + 0.5 * sentence + 0.5 * words
    yield "defaults + 0.5 best sentence + TF-IDF", adapted + 0.5 * sentence + words


def cuts(of: Collection, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
    """The first dimensions alone, of the start and of the defaults."""
    whitened = maps.whitening(of.queries), maps.whitening(of.documents)
    mapped = whitened[0] @ maps.query_map, whitened[1]
    vectors = {"start": (of.queries, of.documents), "whitening s = 0.6": whitened, "defaults": mapped}
    for size in CUTS:
        for name, (queries, documents) in vectors.items():
            yield f"{name}, first {size} dimensions", unit_rows(queries[:, :size]) @ unit_rows(documents[:, :size]).T


def trials(of: Collection) -> Iterator[tuple[str, np.ndarray]]:
    """Other predictors and other ways to use it, to see whether one beats the defaults; each is one change to them."""
    whitening = Whitening.fitted(Statistics.of(of.block), 0.6)
    block = of.block.usable(2)
    parts, owner = whitening(block.parts), block.owner
    documents, queries = whitening(of.documents), whitening(of.queries)
    sums = np.zeros_like(documents)
    np.add.at(sums, owner, parts)
    rest = unit_rows(sums[owner] - parts)
    is_first = np.r_[True, owner[1:] != owner[:-1]]
    per_document = 1 / np.bincount(owner)[owner]
    nearness = np.partition(parts @ documents.T, -10, axis=1)[:, -10:].mean(axis=1)  # to the ten nearest documents
    plain = query_map(parts, documents[owner])

    def searched(mapped: np.ndarray) -> np.ndarray:
        return unit_rows(mapped) @ documents.T

    yield "target: the rest of the document", searched(queries @ query_map(parts, rest))
    first = query_map(parts[is_first], documents[owner[is_first]], ridge=0.1)
    yield "context: the first part alone (the title, if there is one)", searched(queries @ first)
    yield "every document weighs the same", searched(queries @ query_map(parts, documents[owner], per_document))
    rarity = np.clip(1 - nearness, 0.05, None)
    yield "parts weigh by their rarity", searched(queries @ query_map(parts, documents[owner], rarity))
    for strength in (0.5, 2.0):
        moved = queries + strength * queries @ (plain - np.eye(len(plain)))
        yield f"strength of the predictor {strength} instead of 1", searched(moved)
    yield "shrinkage 0.3, 0.6 and 0.9, cosines added", several_shrinkages(of)
    for width in (1.0, 2.0):
        yield (
            f"nonlinear predictor: 2,000 random features, width {width}",
            searched(with_random_features(parts, documents[owner], queries, width)),
        )
    top = np.argsort(-searched(queries @ plain), axis=1)[:, :3]
    feedback = unit_rows(queries @ plain) + 0.5 * unit_rows(documents[top].mean(axis=1))
    yield "half the mean of the first three documents added to the query", searched(feedback)


def query_map(
    parts: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, ridge: float = 0.03
) -> np.ndarray:
    """[D, D] the map of queries by a predictor from parts [P, D] to targets [P, D], of weights [P]."""
    root = np.ones((len(parts), 1)) if weights is None else np.sqrt(weights / weights.mean())[:, None]
    sums = PredictorSums(parts.shape[1])
    sums.add(parts * root, targets * root)
    return sums.query_map(ridge)


def several_shrinkages(of: Collection) -> np.ndarray:
    """[Q, N] the sum of the defaults' scores at three shrinkages."""
    return np.sum([scores_of(Maps.fitted(of, of.block, shrinkage), of) for shrinkage in (0.3, 0.6, 0.9)], axis=0)


def with_random_features(parts: np.ndarray, targets: np.ndarray, queries: np.ndarray, width: float) -> np.ndarray:
    """Queries [Q, D] moved by ridge regression on the latents and 2,000 random Fourier features of them."""
    random = np.random.default_rng(0)
    size, dim = 2000, parts.shape[1]
    frequencies, phases = width * random.standard_normal((dim, size)), random.uniform(0, 2 * np.pi, size)

    def features(rows: np.ndarray) -> np.ndarray:
        return np.c_[rows, np.sqrt(2 / size) * np.cos(rows @ frequencies + phases)]

    inputs = features(parts)
    moments = inputs.T @ inputs / len(inputs)
    variances = np.diag(moments)
    ridge = np.r_[np.full(dim, 0.03 * variances[:dim].mean()), np.full(size, 3 * variances[dim:].mean())]
    weights = np.linalg.solve(moments + np.diag(ridge), inputs.T @ targets / len(inputs))
    length = np.sqrt(np.square(inputs @ weights).sum(axis=1).mean())
    return queries + features(queries) @ weights / length


def of_all(of: Collection) -> Statistics:
    """Statistics that take all sentences for one document."""
    return Statistics.of(Block(of.block.parts, np.zeros(len(of.block.owner), np.int64)))


def scores_of(maps: Maps, of: Collection) -> np.ndarray:
    """[Q, N] of the defaults."""
    return unit_rows(maps.whitening(of.queries) @ maps.query_map) @ maps.whitening(of.documents).T


def best_sentence(maps: Maps, of: Collection) -> np.ndarray:
    """[Q, N] the highest cosine of a query with a document's parts; 0 where there are none."""
    cosines = maps.whitening(of.queries) @ maps.whitening(of.block.parts).T  # [Q, P]
    found = np.zeros((len(of.queries), len(of.documents)))
    numbers, starts = np.unique(of.block.owner, return_index=True)
    found[:, numbers] = np.maximum.reduceat(cosines, starts, axis=1)
    return found


def word_scores(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """[Q, N] cosines of TF-IDF, as `openjepa search` has them."""
    words = TfidfVectorizer(sublinear_tf=True)
    rows = sparse.csr_array(words.fit_transform(documents))
    return (sparse.csr_array(words.transform(queries)) @ rows.T).toarray()


def curve_of(of: Collection) -> dict[str, list[float]]:
    """Mean gain over the start of whitening, and of the defaults, by documents fitted to; all are searched."""
    start = of.ndcg(of.queries @ of.documents.T).mean()
    usable = np.unique(of.block.usable(2).owner)
    gains: dict[str, list[float]] = {}
    for size in [*(size for size in SIZES if size < len(usable)), len(usable)]:
        found = []
        for draw in range(DRAWS if size < len(usable) else 1):
            chosen = np.random.default_rng(draw).choice(usable, size, replace=False)
            kept = np.isin(of.block.owner, chosen)
            maps = Maps.fitted(of, Block(of.block.parts[kept], of.block.owner[kept]))
            whitened = maps.whitening(of.queries) @ maps.whitening(of.documents).T
            found.append([of.ndcg(whitened).mean() - start, of.ndcg(scores_of(maps, of)).mean() - start])
        gains[str(size)] = np.mean(found, axis=0).round(4).tolist()
    return gains


def interval(arm: np.ndarray, start: np.ndarray, name: str) -> tuple[float, float]:
    """95 % paired bootstrap interval of the gain."""
    return difference_interval(Score(arm, None), Score(start, None), generator_for(0, "bench", name), resamples=5000)


def measured(of: Collection, curve: bool, tried: Mapping[str, np.ndarray]) -> dict:
    """All figures of a collection; `tried` are scores [Q, N] that are compared with the defaults, by name."""
    arms = {name: of.ndcg(scores) for name, scores in arms_of(of)}
    start = arms["start"]
    others = {name: of.ndcg(scores) for name, scores in tried.items()}
    defaults = arms["whitening s = 0.6, predictor ridge 0.03"]
    statistics = Statistics.of(of.block)
    return {
        "documents": len(of.documents),
        "queries": len(of.queries),
        "effective_rank": round(statistics.effective_rank, 1),
        "cohesion": round(statistics.cohesion, 3),
        "kept": decided(statistics, of.result["documents_of_three_parts"]).kept,
        "adapt_s": round(of.seconds, 1),
        "arms": {
            name: [float(items.mean()), *(items.mean() - start.mean(),), *interval(items, start, name)]
            for name, items in arms.items()
        },
        "trials": {
            name: [float(items.mean()), items.mean() - defaults.mean(), *interval(items, defaults, name)]
            for name, items in others.items()
        },
        "curve": curve_of(of) if curve else {},
    }


def as_markdown(found: dict[str, dict]) -> str:
    """A table of arms by collections, and what is known of each collection."""
    names = list(found)
    lines = ["| arm | " + " | ".join(names) + " | mean gain |", "|---" * (len(names) + 2) + "|"]
    for arm in next(iter(found.values()))["arms"]:
        values = [found[name]["arms"][arm] for name in names]
        cells = ["{:.3f}, {:+.3f} ({:+.3f} to {:+.3f})".format(*value) for value in values]
        if arm == "start":
            cells = [f"{value[0]:.3f}" for value in values]
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {np.mean([value[1] for value in values]):+.3f} |")
    if tried := next(iter(found.values()))["trials"]:
        lines += ["", "| trial, against the defaults | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for trial in tried:
            values = [found[name]["trials"][trial] for name in names]
            cells = ["{:.3f}, {:+.3f} ({:+.3f} to {:+.3f})".format(*value) for value in values]
            lines.append(f"| {trial} | " + " | ".join(cells) + " |")
    for name, of in found.items():
        facts = {key: value for key, value in of.items() if key not in ("arms", "trials", "curve")}
        lines += ["", f"{name}: {json.dumps(facts)}"]
        if of["curve"]:
            lines.append(f"gain of whitening and of the defaults by documents fitted to: {json.dumps(of['curve'])}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=Path, help="folders in BEIR's layout")
    parser.add_argument("--base", required=True, help="a sentence-transformers or transformers folder or hub id")
    parser.add_argument("--curve", action="store_true", help="also fit to 50, 100, ... documents, three draws each")
    parser.add_argument("--trials", action="store_true", help="also other predictors, compared with the defaults")
    parser.add_argument(
        "--against",
        metavar="ENCODER",
        help="another encoder, adapted likewise and compared with the defaults; {} in it is the collection's name",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for collection in options.collections:
            out = Path(folder) / collection.resolve().name
            of = Collection.read(collection, options.base, out / "base")
            others = dict(trials(of)) if options.trials else {}
            if options.against:
                encoder = options.against.replace("{}", collection.resolve().name)
                other = Collection.read(collection, encoder, out / "against")
                others[f"defaults from {options.against}"] = scores_of(Maps.fitted(other, other.block), other)
            found[of.name] = measured(of, options.curve, others)
    show(json.dumps(found, indent=2) if options.json else as_markdown(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
