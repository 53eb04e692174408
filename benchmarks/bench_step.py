"""How fast is a training step? OpenJEPA's recipe against the same method as its original writes it, in one process.

    python benchmarks/bench_step.py t_jepa --data summaries.parquet --seconds 60

Both sides train the same architecture from the same texts, by turns in short blocks, so that whatever else the machine
does slows both. Speed is real (unpadded) tokens per second, data loading and masking included, warm-up excluded. The
bf16 matrix products of the machine are timed in each block too: the share of that rate which our step reaches says how
much is left to gain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reference_t_jepa import LENGTH, ReferenceTJEPA
from stepping import Read, Side, compare, machine, profile
from torch import Tensor

from openjepa.core.batch import Batch
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Progress
from openjepa.core.seeding import generator_for, seed_global
from openjepa.data.loader import train_batches
from openjepa.data.sources import DataConfig
from openjepa.data.tokenizer import TextTokenizer, TokenizerConfig, load_or_train
from openjepa.train.loop import make_fabric
from openjepa.train.optim import build_optimizer

RESULTS = Path(__file__).parent / "results"
FOREVER = 1_000_000  # steps of a run that is never finished
MOST_DOCUMENTS = 20_000


@dataclass(frozen=True)
class Size:
    """An encoder and a batch."""

    layers: int
    dim: int
    heads: int
    vocab: int
    batch_tokens: int

    def products(self) -> list[tuple[int, int, int]]:
        """(rows, inner, outer) of the encoder's matrix products, for half a batch."""
        rows, wide = self.batch_tokens // 2, 4 * self.dim
        return [(rows, self.dim, self.dim), (rows, self.dim, wide), (rows, wide, self.dim)]


DISTILBERT = Size(layers=6, dim=768, heads=12, vocab=30_522, batch_tokens=2048)
TOY = Size(layers=2, dim=64, heads=2, vocab=1000, batch_tokens=512)


@dataclass(frozen=True)
class Bench:
    """What both sides are made from."""

    size: Size
    data: DataConfig
    assets: Path  # an encoder's folder: config.json and tokenizer.json
    tokenizer: TextTokenizer
    overrides: Sequence[str]  # key=value for the recipe


def make_bench(size: Size, data: DataConfig, assets: Path, overrides: Sequence[str]) -> Bench:
    """Train a vocabulary on the texts, and write the config of a DistilBERT of this size for it."""
    from transformers import DistilBertConfig

    wanted = TokenizerConfig(kind="wordpiece", vocab_size=size.vocab)
    tokenizer = load_or_train(wanted, data, assets / "tokenizer.json")
    DistilBertConfig(
        vocab_size=tokenizer.vocab_size,
        pad_token_id=tokenizer.pad_id,
        n_layers=size.layers,
        dim=size.dim,
        n_heads=size.heads,
        hidden_dim=4 * size.dim,
    ).save_pretrained(assets)
    return Bench(size, data, assets, tokenizer, overrides)


def our_t_jepa(bench: Bench, assets: Path) -> tuple[Side, Experiment]:
    """The recipe as users run it with `encoder.name`, `train.batch_tokens` and `train.precision=bf16-mixed`."""
    from openjepa.recipes.t_jepa import Config, build

    config = Config.load(
        {
            "data": bench.data.model_dump(),
            "encoder": {"name": str(bench.assets), "weights": False, "max_len": LENGTH},
            "train": {
                "steps": FOREVER,
                "batch_tokens": bench.size.batch_tokens,
                "batch_size": bench.size.batch_tokens // 8,
                "precision": "bf16-mixed",
                "accelerator": "cpu",
            },
        },
        bench.overrides,
    )
    seed_global(config.train.seed, "weights")
    experiment = build(config, BuildContext(assets))

    def encoded(batch: Any) -> list[Tensor]:
        student = batch.context_valid if config.mask.how == "drop" else batch.valid
        teacher = batch.hidden_valid if config.teacher_reads == "spans" else batch.valid
        other_view = [batch.hidden_valid] if config.invariance * config.regularizer.weight else []
        return [student, teacher, *other_view]

    return side_of(experiment, encoded), experiment


def side_of(experiment: Experiment, encoded: Callable[[Batch], list[Tensor]]) -> Side:
    """The step of `openjepa.train.loop.fit`, on the recipe's own batches."""
    config = experiment.train
    fabric = make_fabric(config)
    method, optimizer = fabric.setup(experiment.method, build_optimizer(experiment.method, config))
    method.train()
    batches = enumerate(train_batches(experiment, 0))

    def step() -> Read:
        number, batch = next(batches)
        seed_global(config.seed, "step", number)
        fabric.backward(method(batch).loss)
        fabric.clip_gradients(method, optimizer, max_norm=config.grad_clip, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        experiment.method.after_step(Progress(number, config.steps))
        return Read(batch.tokens, encoded(batch))

    return Side(step, sum(p.numel() for p in experiment.method.parameters() if p.requires_grad))


def original_t_jepa(bench: Bench, data: Any) -> Side:
    """The original's step on the same documents, each cut at 128 tokens, with as many real tokens a batch as ours."""
    reference = ReferenceTJEPA(bench.assets, bench.tokenizer.pad_id, bench.tokenizer.mask_id)
    owners = [data[i].document for i in range(len(data))]
    starts = [i for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]  # the first row of each document
    mean_length = statistics.fmean(int(data.lengths[i]) for i in starts)
    rows = min(len(starts), max(2, round(bench.size.batch_tokens / mean_length)))

    def shuffled() -> Iterator[list[Any]]:
        epoch = 0
        while True:
            order = torch.randperm(len(starts), generator=generator_for(0, "order", epoch)).tolist()
            for first in range(0, len(order) - rows + 1, rows):
                yield [data[starts[i]].ids for i in order[first : first + rows]]
            epoch += 1

    batches = shuffled()

    def step() -> Read:
        texts = next(batches)
        valid = reference.step(texts)
        return Read(sum(len(text) for text in texts), [valid, valid])

    return Side(step, sum(p.numel() for p in reference.trained))


RECIPES = {"t_jepa": (our_t_jepa, original_t_jepa)}


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['name']} on {result['data']}, {result['threads']} threads, load average {result['load_average']}"
    ]
    lines.append(f"{'':12}{'real tokens/s':>14}{'ms/step':>10}{'steps':>7}{'padding':>9}{'parameters':>13}")
    for name in ("ours", "reference"):
        side = result[name]
        lines.append(
            f"{name:12}{side['tokens_per_s']:>14,.0f}{side['step_ms']:>10,.0f}{side['steps']:>7}"
            f"{side['padding_share']:>9.1%}{side['trained_parameters']:>13,}"
        )
    ratio = result["ratio"]
    lines.append(f"ratio {ratio['median']} (blocks: {ratio['min']} to {ratio['max']})")
    lines.append(
        f"our step reaches {result['ours_gflop_per_s']:,.0f} GFLOP/s, {result['share_of_bf16_matmul_rate']:.0%} of the "
        f"{result['bf16_matmul_gflop_per_s']:,.0f} GFLOP/s of plain bf16 matrix products"
    )
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe, for our side")
    parser.add_argument("--data", default="stories", help="text file, folder or 'stories' (default)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time to measure, about; a block has at least 1 step"
    )
    parser.add_argument("--batch-tokens", type=int, help=f"tokens a step, about (default {DISTILBERT.batch_tokens})")
    parser.add_argument("--toy", action="store_true", help="a tiny encoder, to try the benchmark itself")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--profile", action="store_true", help="print our step's top operators and stop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    size = TOY if args.toy else DISTILBERT
    size = replace(size, batch_tokens=args.batch_tokens or size.batch_tokens)
    data = DataConfig(source=args.data, documents=MOST_DOCUMENTS)
    make_ours, make_reference = RECIPES[args.recipe]
    with tempfile.TemporaryDirectory() as folder:
        bench = make_bench(size, data, Path(folder, "encoder"), args.overrides)
        ours, experiment = make_ours(bench, Path(folder, "assets"))
        if args.profile:
            print(profile(ours.step))
            return
        reference = make_reference(bench, experiment.train_data)
        result: dict[str, Any] = {
            "name": f"step_{args.recipe}{'_toy' if args.toy else ''}",
            "data": Path(args.data).name,
        }
        result |= {"overrides": list(args.overrides), "size": asdict(size), "vocabulary": bench.tokenizer.vocab_size}
        result |= machine() | compare(ours, reference, size.products(), args.seconds)
    args.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2)
    (args.results / f"{result['name']}.json").write_text(text + "\n", encoding="utf-8")
    print(text if args.json else table(result))


if __name__ == "__main__":
    main()
