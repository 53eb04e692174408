"""Every command and Python block of the site, README and CONTRIBUTING runs, page by page and in order, on small data.

Settings are those of the page where it gives some; models, data and numbers of steps are made tiny by settings behind
them. The files that the pages speak of, and do not write themselves, are made up here.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

import openjepa
from openjepa import api
from openjepa.cli import main
from openjepa.core.configure import configure
from openjepa.data.tokenizers.choice import TokenizerConfig, train_tokenizer
from openjepa.data.worlds import scenes, stories
from openjepa.data.worlds.arithmetic import Arithmetic
from openjepa.training import checkpoint
from tests.docs.pages import OUTSIDE, ROOT, SITE, Step, steps
from tests.opened import in_process
from tests.tiny import EVERY_RECIPE, TINY, without

ELSEWHERE = {  # pages whose steps are executed by other tests
    "docs/how-to/find-similar-tickets.md": "test_how_to.py",
    "docs/tutorials/export-and-search.md": "test_export_guide.py",
    "docs/how-to/adapt-to-your-documents.md": "test_adapt_guide.py",
    "docs/methods/adapt.md": "test_adapt_guide.py",
}
PAGES = tuple(page for page in (*OUTSIDE, *SITE) if page not in ELSEWHERE and any(steps(page)))
SLOW = ("docs/how-to/evaluate.md", "docs/methods/baselines.md")  # they train and score many runs
SKIPPED = {
    **dict.fromkeys(
        ("openjepa demo runs/mine", "openjepa demo runs/texts runs/scenes", "openjepa demo runs/new --port 8000"),
        "serves a page until it is stopped; tests/unit/test_demo*.py and tests/e2e/test_demo_browser.py",
    ),
    "openjepa train t_jepa --preset small data.source=HuggingFaceFW/fineweb-edu:sample-10BT data.streaming=true": "a "
    "data set of the hub; tests/e2e/test_streaming_hub.py streams one from a hub on the same machine",
    "openjepa report runs/stories": "of the study that is skipped; other pages report runs",
    "python benchmarks/bench_embed.py --model FOLDER --short titles.txt --paragraphs abstracts.txt": "of a pretrained "
    "model; tests/unit/test_bench.py runs the benchmark",
    "python benchmarks/bench_adapt.py --base all-MiniLM-L6-v2/ cranfield/ cisi/ cacm/ --curve --trials": "of a "
    "pretrained model; tests/unit/test_bench.py runs the benchmark",
    "python benchmarks/train_last_blocks.py --base all-MiniLM-L6-v2/ --data cranfield/ --out trained/cranfield "
    "--objective ema --steps 300 --lr 1e-4": "of a pretrained model; tests/unit/test_bench.py runs the benchmark",
    'python benchmarks/bench_adapt.py --base all-MiniLM-L6-v2/ --against "trained/{}" cranfield/ cisi/ cacm/': "of a "
    "pretrained model; tests/unit/test_bench.py runs the benchmark",
    "python benchmarks/gpu_check.py": "needs a GPU; tests/unit/test_gpu_check.py tries it on the CPU",
    "openjepa train t_jepa --preset small data=corpus.jsonl train.accelerator=cuda train.devices=2 --out runs/two": (
        "needs two GPUs; tests/contract/test_ddp.py has two ranks on the CPU"
    ),
    "python benchmarks/soak.py --events 50": "takes minutes; tests/contract/test_soak.py runs it with ten events",
    "python examples/minimal_jepa.py": "tests/contract/test_examples.py runs it",
    "python examples/plot_run.py runs/first first.png": "tests/contract/test_examples.py runs it",
    **dict.fromkeys(
        (
            "openjepa adapt sentence-transformers/all-MiniLM-L6-v2 data=my_docs/ --out runs/adapted",
            "openjepa index runs/adapted data=my_docs/ --out my.index",
            "openjepa eval runs/adapted --sts stsb=sts-dev.csv",
            'openjepa search my.index "Where is my parcel?"',
        ),
        "of a pretrained encoder; tests/docs/test_adapt_guide.py runs these verbs on a small one",
    ),
    "openjepa train lang_jepa --preset concepts data=docs.jsonl encoder.name=all-MiniLM-L6-v2/ data.eval_fraction=0.2 "
    "sentences.min_chars=20 --out runs/concepts": "tests/unit/test_concepts.py trains the preset",
    "make docs": "tests/docs/test_site.py builds the site",
    'import ray\n\nrows = ray.data.read_json("documents.jsonl")\nrows.map_batches(Encode, '
    'fn_constructor_args=["runs/mine"], batch_size=1000, concurrency=2).write_parquet("vectors")\n': "Ray is a quarter "
    "of a gigabyte, so dev does not have it; the block before is what it calls",
    **dict.fromkeys(
        (
            "python -m venv .venv",
            ".venv/bin/pip install -c constraints.txt -e .",
            '.venv/bin/pip install -c constraints.txt -e ".[export]"',
            "source .venv/bin/activate",
            "make demo",
            "make test",
            "make test-all",
            "make lint",
            "make types",
            "make wheel",
            "make api",
        ),
        "makes an environment, or runs the tests in one",
    ),
}
STUDIES = "a study of an hour as it was run; other pages compare, and the test below reads its arms and settings"
FAILING = {"check ./leaky.py data=corpus.jsonl"}  # made to show what a failure looks like: exit code 1
BUDGETS = {
    "flops=2e13": "flops=2e9",
    "matryoshka=[32,64]": "matryoshka=[8,16]",
}  # of the pages, and what a few steps cost
SHORTER = {  # what blocks read or make, so that they take seconds
    'library.rglob("*.py")': 'library.glob("[a-f]*.py")',
    "range(4000)": "range(120)",
    "zip(digits.images, digits.target, strict=True)": "list(zip(digits.images, digits.target, strict=True))[:300]",
}
STEPS = ("train.steps=2", "train.warmup_steps=1", "train.health_samples=32", "train.checkpoint_every=1")
RECIPES = {name: settings for name, (_, settings) in EVERY_RECIPE.items()}
RECIPES["my_method"] = RECIPES["leaky"] = without(TINY, "predictor.")
DOCUMENTS = 240
TOPICS = {
    "sea": "wave harbour sail fish salt tide anchor crew gull storm",
    "kitchen": "soup oven bread spoon onion cook plate pepper butter flour",
    "garden": "rose soil spade apple bee hedge seed rain shed path",
}


def text(number: int, sentences: int = 4) -> tuple[str, str]:
    """A made-up document, and its topic."""
    rng = np.random.default_rng(number)
    topic = list(TOPICS)[number % len(TOPICS)]
    words = TOPICS[topic].split()
    said = ("The {} is near the {}, and the {} was {} days old.".format(*rng.choice(words, 3), rng.integers(2, 99))
            for _ in range(sentences))  # fmt: skip
    return " ".join(said), topic


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    """A table without quotes: nothing in it holds the delimiter."""
    delimiter = "\t" if file.suffix == ".tsv" else ";"
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    file.write_text("".join(delimiter.join(map(str, line)) + "\n" for line in lines))


def texts_of_the_pages() -> None:
    """Corpora, notes and rated pairs."""
    documents = [dict(zip(("text", "topic"), text(n), strict=True)) for n in range(DOCUMENTS)]
    documents = [{**row, "package": row["topic"]} for row in documents]  # as the tutorial on texts calls its label
    write_lines(Path("corpus.jsonl"), documents)
    write_lines(Path("documents.jsonl"), documents[:20])
    write_table(Path("documents.csv"), documents[:20])
    write_table(Path("tickets.csv"), [{"id": n, "body": row["text"]} for n, row in enumerate(documents)])
    Path("articles.txt").write_text("".join(f"# Article {n}\n{row['text']}\n" for n, row in enumerate(documents)))
    Path("wiki.txt").write_text("".join(row["text"] + "\n" for row in documents))
    Path("notes").mkdir()
    for number in range(60):
        Path(f"notes/{number}.md").write_text(f"# Note {number}\n\n{text(number)[0]}\n")
    Path("articles").mkdir()
    for number in range(3):
        pq.write_table(pa.Table.from_pylist(documents[number::3]), f"articles/{number}.parquet")
    pairs = [{"sentence1": text(n, 1)[0], "sentence2": text(n + n % 4, 1)[0], "score": 5 - n % 4} for n in range(40)]
    write_table(Path("pairs.csv"), pairs)
    write_lines(Path("pairs.jsonl"), pairs)
    write_lines(Path("stsb-dev.jsonl"), pairs)


def suite_of_the_page() -> None:
    """The suite of the guide as it stands, and its files; but for mteb, which is not installed (test_suites.py)."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/how-to/evaluate.md").read_text(), re.M | re.S)
    suite = yaml.safe_load(block)
    suite["tasks"] = [task for task in suite["tasks"] if task["kind"] != "mteb"]
    Path("suite.yaml").write_text(yaml.safe_dump(suite))
    one, other = text(0, 1)[0], text(1, 1)[0]
    write_lines(Path("triplets.jsonl"), [{"anchor": one, "positive": text(3 * n, 1)[0], "negative": other}
                                         for n in range(1, 21)])  # fmt: skip
    write_lines(Path("questions.jsonl"), [{"first": text(n, 1)[0], "second": text(n + 100, 1)[0]} for n in range(20)])
    reviews = [{"text": text(n, 1)[0], "label": text(n)[1]} for n in range(90)]
    write_lines(Path("reviews-train.jsonl"), reviews[:60])
    write_lines(Path("reviews-test.jsonl"), reviews[60:])
    rows = [dict(zip(("text", "topic"), text(n), strict=True)) for n in range(DOCUMENTS)]
    pq.write_table(pa.Table.from_pylist([*rows, {"text": one, "topic": "Uncategorized"}]), "articles.parquet")
    write_lines(Path("scifact/corpus.jsonl"), [{"_id": f"d{n}", "title": "", "text": text(n)[0]} for n in range(20)])
    write_lines(Path("scifact/queries.jsonl"), [{"_id": f"q{n}", "text": text(n, 1)[0]} for n in range(10)])
    Path("scifact/qrels").mkdir()
    judged = [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1} for n in range(10)]
    write_table(Path("scifact/qrels/test.tsv"), judged)


def pictures_of_the_pages() -> None:
    """Photos in a folder a kind, the same for COCO, and captions of both."""
    rng = np.random.default_rng(0)
    names = [f"{kind}/{number:03}.jpg" for kind in ("cats", "dogs") for number in range(1, 31)]
    for folder, name in itertools.product(("photos", "photos-test", "train2017"), names):
        file = Path(folder, name.replace("/", "-") if folder == "train2017" else name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).resize((120, 100)).save(file)
    guide = (ROOT / "docs/tutorials/captions.md").read_text()
    table = re.findall(r"^\| (image|cats/\S+) \| (.+) \|$", guide, re.M)  # as the page shows it, and more of the kind
    assert len(table) == 3
    said = {name: f"a {'cat' if name.startswith('cats') else 'dog'} number {name[5:8]} on a chair" for name in names}
    rows = "".join(f"{name}\t{caption}\n" for name, caption in [*table, *said.items()])
    Path("captions.tsv").write_text(rows)
    coco = {
        "images": [{"id": n, "file_name": name.replace("/", "-")} for n, name in enumerate(names)],
        "annotations": [{"image_id": n, "caption": said[name]} for n, name in enumerate(names)],
    }
    Path("captions_train2017.json").write_text(json.dumps(coco))


def pretrained_model() -> None:
    """A BERT of this moment with the words of the texts, and the settings of one without weights or words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for number in range(DOCUMENTS) for word in re.findall(r"\w+|[.,]", text(number)[0].lower())})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=128)  # fmt: skip
    BertModel(config).save_pretrained("path/to/model")
    BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)}).save_pretrained("path/to/model")
    config.save_pretrained("path/to/config-folder")


def pretrained_decoder() -> None:
    """A GPT-2 of this moment with byte pairs of the arithmetic world, and problems of that world."""
    from transformers import GPT2Config, GPT2LMHeadModel

    problems = [Arithmetic("train", 200)[number] for number in range(200)]
    write_lines(Path("problems.jsonl"), [{"question": one.question, "answer": one.answer} for one in problems])
    pairs = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=400), [one.question for one in problems])
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    torch.manual_seed(0)
    gpt2 = GPT2Config(vocab_size=pairs.vocab_size, bos_token_id=0, eos_token_id=0, **sizes)
    GPT2LMHeadModel(gpt2).save_pretrained("path/to/decoder")
    pairs.save(Path("path/to/decoder/tokenizer.json"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that a page names, and the run that guides begin with."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        texts_of_the_pages()
        suite_of_the_page()
        pictures_of_the_pages()
        pretrained_model()
        pretrained_decoder()
        shutil.copy(ROOT / "examples" / "my_method.py", "my_method.py")
        shutil.copytree(ROOT / "tests" / "collapses", "tests/collapses")
        assert main(small("train t_jepa data=corpus.jsonl data.label=topic --out runs/mine")) == 0
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one page. Worlds ask a few questions of each kind, not thousands."""
    for world in (stories, scenes):
        monkeypatch.setattr(world, "factor_tasks", partial(world.factor_tasks, 60, 40))
    monkeypatch.setattr(stories, "triplets", partial(stories.triplets, 40))
    own = tmp_path / "page"
    shutil.copytree(prepared, own)
    monkeypatch.chdir(own)
    return own


def small(command: str) -> list[str]:
    """The words of a command, with settings behind them that make it short; those it gives itself stay, but steps."""
    words = [BUDGETS.get(word, word) for word in shlex.split(command)]
    verb, given = words[0], {word.partition("=")[0] for word in words}
    if verb == "train" and "--resume" not in words:
        words.append("--no-eval")
    if verb in ("ablate", "compare"):
        words += ["--seeds", "1", "--jobs", "1"]
    if verb == "readout":
        words += ["steps=2", "eval_batches=1"]
    if "--resume" in words or verb not in ("train", "check", "masks", "align", "ablate", "compare"):
        return words
    if "--config" in words:
        return [*words, *STEPS]
    settings = settings_for([Path(word).stem for word in words if Path(word).stem in RECIPES], given)
    words = [word for word in words if not word.startswith("steps=")]
    return [*words, *(setting for setting in settings if setting.partition("=")[0] not in given)]


def settings_for(recipes: Sequence[str], given: Set[str]) -> tuple[str, ...]:
    """Tiny settings that all the recipes know. Pretrained networks bring their own sizes and words."""
    first, *others = [RECIPES[recipe] for recipe in recipes]
    settings = tuple(setting for setting in first if all(setting in other for other in others))
    if "encoder.name" in given:
        settings = without(settings, "encoder.")
        settings = settings if "encoder.weights" in given else without(settings, "tokenizer.")
    if "decoder.name" in given:
        settings = without(settings, "decoder.", "tokenizer.")
    return (*settings, *STEPS)


def run(command: str) -> None:
    """One command of a page; runs that it trains anew, or goes on with, are first as it expects them."""
    words = small(command)
    if "--resume" in words:
        stop_early(Path(words[words.index("--resume") + 1]))
    elif words[0] == "train" and "--out" in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    assert main(words) == (command in FAILING), command
    if "--out" in words:
        assert Path(words[words.index("--out") + 1]).exists(), command


def stop_early(folder: Path) -> None:
    """Leave of a run what a crash after its first checkpoint leaves."""
    (folder / "summary.json").unlink()
    shutil.rmtree(checkpoint.newest(folder / "checkpoints"))
    assert checkpoint.newest_step(folder / "checkpoints") == 1


def run_block(code: str, names: dict[str, Any]) -> None:
    """One Python block of a page, with the names that blocks before it left."""
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    exec(compile(code, "block", "exec"), names)


def train_small(recipe: str, **given: Any) -> api.Run:
    """What `openjepa.train` of a page does, with a tiny model and two steps."""
    return api.train(recipe, **given | {"steps": 2, "progress": False, "overrides": RECIPES[recipe]})


def given_names() -> dict[str, Any]:
    """What a block may take for granted: texts, and a table of them."""
    rows = [text(number) for number in range(DOCUMENTS)]
    return {"openjepa": openjepa, "texts": [body for body, _ in rows],
            "frame": pd.DataFrame(rows, columns=["body", "topic"])}  # fmt: skip


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW), id=page.removesuffix(".md")) for page in PAGES],
)
def test_every_step_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(openjepa), "train", train_small)
    monkeypatch.setattr("openjepa.export.proof.opened_elsewhere", in_process)
    monkeypatch.setattr("openjepa.cli.compute.trust_everything", lambda: None)  # this process has made the run, so it
    names = given_names()  # trusts its code; other tests are of a process that trusts nothing
    for step in steps(page):
        if step.text in SKIPPED or is_study(page, step):
            continue
        if step.kind == "python":
            run_block(step.text, names)
        else:
            run(step.text.removeprefix("openjepa "))
            if "--resume" in step.text:
                assert checkpoint.newest_step(folder / "runs/mine/checkpoints") == 2


def is_study(page: str, step: Step) -> bool:
    """STUDIES: the comparisons of the pages of results."""
    return page.startswith("docs/results/") and step.text.startswith("openjepa compare")


def test_arms_and_settings_of_the_studies_are_real() -> None:
    """Each configures: preset, settings of the arm, settings of all."""
    for page in SITE:
        for step in (step for step in steps(page) if is_study(page, step)):
            words = itertools.takewhile(lambda word: not word.startswith("--"), shlex.split(step.text)[2:])
            arms_and_shared = list(words)
            shared = [word for word in arms_and_shared if "=" in word.partition("+")[0]]
            for arm in (word for word in arms_and_shared if word not in shared):
                recipe, *settings = arm.split("+")
                name, _, preset = recipe.partition(":")
                configure(name, preset or None, None, [*settings, *shared])


def test_what_is_skipped_or_replaced_is_on_a_page() -> None:
    written = [step.text for page in (*OUTSIDE, *SITE) for step in steps(page)]
    assert set(SKIPPED) <= set(written)
    assert {f"openjepa {command}" for command in FAILING} <= set(written)
    assert set(BUDGETS) <= {word for command in written for word in command.split()}
    assert [part for part in SHORTER if not any(part in step for step in written)] == []
    assert set(ELSEWHERE) <= set(SITE)
    assert set(SLOW) <= set(PAGES)
