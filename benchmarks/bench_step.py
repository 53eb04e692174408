"""How fast is a training step? OpenJEPA's recipe against the same method as its original writes it, in one process.

    python benchmarks/bench_step.py t_jepa --data summaries.parquet --seconds 60
    python benchmarks/bench_step.py lang_jepa --data summaries.parquet --seconds 120
    python benchmarks/bench_step.py nano_jepa --data gsm8k.jsonl --seconds 120
    python benchmarks/bench_step.py i_jepa --seconds 60
    python benchmarks/bench_step.py vl_jepa --seconds 120

Of vl_jepa both sides are our own: with the latents of its frozen encoders read from disk, and computed in every step.
Both sides train the same architecture from the same data, by turns in short blocks, so that whatever else the machine
does slows both. Speed is real tokens, hidden sentences, questions or images per second, data loading and masking
included, warm-up excluded. The bf16 matrix products of the machine are timed in each block too: the share of that rate
which our step reaches says how much is left to gain. What of a ratio is due to bf16, and what to padding, two more runs
say: with --precision 32-true (our side), and with --padding batch (the reference).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from sides import Asked, Recipe, Size
from stepping import compare, machine, profile

RESULTS = Path(__file__).parent / "results"
RECIPES = ("i_jepa", "lang_jepa", "nano_jepa", "t_jepa", "vl_jepa")  # the RECIPE of sides_*.py
PRECISIONS = ("bf16-mixed", "32-true")
TOY = Size(layers=2, dim=64, heads=2, vocab=1000, batch_tokens=512)


def table(result: dict[str, Any]) -> str:
    unit = unit_of(result["item"])
    lines = [
        f"{result['name']} on {result['data']}, {result['threads']} threads, load average {result['load_average']}",
        f"ours in {result['precision']}, rows of the reference padded to the longest: "
        f"{result['reference_padding'] or 'of one length'}",
        f"{'':12}{result['item'] + 's/s':>20}{'ms/step':>10}{'steps':>7}{'padding':>9}{'parameters':>13}",
    ]
    for name in ("ours", "reference"):
        side = result[name]
        lines.append(
            f"{name:12}{side[f'{unit}s_per_s']:>20,.1f}{side['step_ms']:>10,.0f}{side['steps']:>7}"
            f"{side['padding_share']:>9.1%}{side['trained_parameters']:>13,}"
        )
    ratio = result["ratio"]
    lines.append(f"ratio {ratio['median']} (blocks: {ratio['min']} to {ratio['max']})")
    lines.append(
        f"our step reaches {result['ours_gflop_per_s']:,.0f} GFLOP/s, {result['share_of_bf16_matmul_rate']:.0%} of the "
        f"{result['bf16_matmul_gflop_per_s']:,.0f} GFLOP/s of plain bf16 matrix products"
    )
    return "\n".join(lines)


def unit_of(item: str) -> str:
    """How an item is called in keys: "hidden sentence" -> "sentence"."""
    return item.rpartition(" ")[2]


def name_of(recipe: str, toy: bool, precision: str, padding: str | None) -> str:
    """Of a result: what is not as usual is named, so that no run overwrites the file of another kind of run."""
    unusual = {"toy": toy, "fp32": precision == "32-true", f"padding_{padding}": padding is not None}
    return "_".join(["step", recipe, *(part for part, is_so in unusual.items() if is_so)])


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe, for our side")
    parser.add_argument("--data", help="file or folder, or the offline world (default): stories, arithmetic, scenes")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time to measure, about; a block has at least 1 step"
    )
    parser.add_argument("--batch-tokens", type=int, help="tokens a step, about (default: see README.md)")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of our side")
    parser.add_argument("--padding", choices=("max", "batch"), help="of the reference; default: as its original")
    parser.add_argument("--toy", action="store_true", help="a tiny model, to try the benchmark itself")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--profile", action="store_true", help="print our step's top operators and stop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    recipe: Recipe = import_module(f"sides_{args.recipe}").RECIPE
    size = TOY if args.toy else recipe.size
    size = replace(size, batch_tokens=args.batch_tokens or size.batch_tokens)
    if args.padding and recipe.padding is None:
        raise SystemExit(f"all rows of {args.recipe} are of one length: there is no --padding to choose")
    source, padding = args.data or recipe.world, args.padding or recipe.padding
    other_padding = None if padding == recipe.padding else padding
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(size, source, Path(folder), args.precision, padding, args.overrides)
        built = recipe.ours(asked)
        if args.profile:
            print(profile(built.side.step))
            return
        reference = recipe.original(asked, built)
        precision = built.config.train.precision
        result: dict[str, Any] = {"name": name_of(args.recipe, args.toy, precision, other_padding)}
        result |= {"data": Path(source).name, "overrides": list(args.overrides)}
        result |= {"precision": precision, "reference_padding": padding}
        result |= {"size": asdict(size), "vocabulary": built.vocabulary, "item": recipe.item}
        result |= machine()
        result |= compare(built.side, reference, unit_of(recipe.item), size.products(), args.seconds)
    args.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2)
    (args.results / f"{result['name']}.json").write_text(text + "\n", encoding="utf-8")
    print(text if args.json else table(result))


if __name__ == "__main__":
    main()
