"""The command line: verbs only. What they do is in `openjepa.api`, so Python users get the same.

`--help` imports neither torch nor transformers nor numpy: each verb imports what it needs when it runs. What users can
mend is one line on stderr and exit code 2; a signal is 128 + its number (Ctrl-C 130); a traceback means a bug. Results
go to stdout, progress and remarks to stderr, so `--json` can be piped.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

import typer

from openjepa.cli import (
    adapt,
    align,
    configs,
    demo,
    embed,
    evaluate,
    export,
    masks,
    next_sentence,
    push,
    readout,
    report,
    search,
    study,
    train,
)
from openjepa.cli.output import INTERRUPTED, USAGE, Interrupted, fail, version
from openjepa.core.atomic import write_failure
from openjepa.core.errors import ReadingWarning, UserError
from openjepa.core.remarks import is_main_process, remark

OUT_OF_MEMORY = ("can't allocate memory", "out of memory")  # in what torch raises, on the CPU and on a GPU
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]  # ClickException, of click or of typer's own copy

app = typer.Typer(
    name="openjepa",
    help="""Train joint-embedding predictive architectures (JEPAs), and find out whether they learned anything.

    [bold]A first run, offline, in a few minutes on a CPU:[/bold]
      openjepa train t_jepa --out runs/first
      openjepa similar runs/first "The chef cooked a soup." "A cook made broth." "The train was late."

    [bold]Your own texts:[/bold]  openjepa train t_jepa data=corpus.jsonl
    """,
    epilog="Every verb explains itself: openjepa train --help",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    show_version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("train", context_settings={"ignore_unknown_options": True})(train.train)
app.command("adapt", context_settings={"ignore_unknown_options": True})(adapt.adapt)
app.command("eval")(evaluate.evaluate)
app.command("similar")(evaluate.similar)
app.command("next")(next_sentence.next_sentence)
app.command("embed")(embed.embed)
app.command("index", context_settings={"ignore_unknown_options": True})(search.index)
app.command("search")(search.search)
app.command("export")(export.export)
app.command("push")(push.push)
app.command("diagnose")(evaluate.diagnose)
app.command("check", context_settings={"ignore_unknown_options": True})(evaluate.check)
app.command("masks", context_settings={"ignore_unknown_options": True})(masks.masks)
app.command("report")(report.report)
app.command("align", context_settings={"ignore_unknown_options": True})(align.align)
app.command("ablate", context_settings={"ignore_unknown_options": True})(study.ablate)
app.command("compare")(study.compare)
app.command("readout", context_settings={"ignore_unknown_options": True})(readout.readout)
app.command("demo")(demo.demo)
app.command("recipes")(configs.recipes)
app.add_typer(configs.app, name="config")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What users have to know is a remark; warnings of other packages keep their form."""
    if issubclass(category, ReadingWarning):
        remark(str(message))
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Raises only what is a bug."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ReadingWarning)
        warnings.showwarning = _show_warning  # ty: ignore[invalid-assignment]
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    try:
        code = app(argv, standalone_mode=False) or 0
        return fail("interrupted", code) if code == INTERRUPTED else code
    except UserError as error:
        return fail(str(error), USAGE)
    except CLICK_ERROR as error:
        return fail(f"{error.format_message()} (see openjepa --help)", USAGE)
    except (Interrupted, KeyboardInterrupt, typer.Abort) as error:
        return fail(str(error) or "interrupted", getattr(error, "exit_code", INTERRUPTED))
    except BrokenPipeError:  # the reader of a pipe has had enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = _line_of(error)
        if line is None or not is_main_process():
            raise
        return fail(line, USAGE)


def _line_of(error: Exception) -> str | None:
    """What a user can mend although nobody expected it: a file that cannot be opened, or no disk or memory left."""
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
        said = " ".join(str(error).split())[:200]
        return f"out of memory ({said}); lower train.batch_size, train.batch_tokens or the sizes of the networks"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    reason = write_failure(error)
    return None if reason is None else f"cannot write a file: {reason}"
