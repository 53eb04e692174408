"""The Gradio page: a tab for each run, in it one for each panel and one for its training.

It works without a network: no analytics, no sharing, no fonts or scripts from elsewhere. No file of the machine is
served; uploads have a limited size and are deleted once read. A run without a checkpoint gets its panels when the page
is loaded after the first one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.demo import render, render_training
from openjepa.demo.controls import ONE_AT_A_TIME, Controls
from openjepa.demo.limits import Guard, RateLimit
from openjepa.demo.runs import ShownRun, names_of
from openjepa.demo.training import EVERY_S, Signature
from openjepa.demo.uploads import MOST_MB
from openjepa.pages.parts.document import style_sheet

FONT = ["system-ui", "sans-serif"]  # local fonts; Gradio's default is loaded from a server
MONO = ["ui-monospace", "monospace"]
WAITING = 20  # longest queue of questions
KEPT_S = 3600  # uploads that no panel has read are deleted after it


def _gradio() -> Any:
    """Import Gradio without analytics. Raises UserError if it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError:
        raise UserError('the demo needs Gradio: pip install "openjepa[demo]"') from None
    return gradio


def build(runs: Sequence[Run], limit: RateLimit) -> Any:
    """The page of some runs, a `gradio.Blocks`. Raises UserError if Gradio is missing or a run cannot be opened."""
    gr = _gradio()
    shown = [ShownRun(run, name) for run, name in zip(runs, names_of([run.path for run in runs]), strict=True)]
    controls = Controls(gr, limit)
    title = f"OpenJEPA: {', '.join(run.name for run in shown)}"
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True, delete_cache=(KEPT_S, KEPT_S)) as page:
        if len(shown) == 1:
            _add_run(gr, page, controls, shown[0])
        else:
            for run in shown:
                with gr.Tab(run.name):
                    _add_run(gr, page, controls, run)
    return page.queue(max_size=WAITING)


def serve(runs: Sequence[Run], host: str, port: int, limit: RateLimit | None = None) -> Any:
    """Show the page at http://host:port until the returned page's `close()`. Raises UserError if it cannot."""
    gr = _gradio()
    from starlette.middleware import Middleware

    limit = limit or RateLimit()
    page = build(runs, limit)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            max_file_size=f"{MOST_MB}mb",
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            theme=gr.themes.Default(font=FONT, font_mono=MONO),
            css=style_sheet("openjepa.demo", "page.css"),
            head=f"<style>{render_training.styles()}</style>",
            prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(Guard, limit=limit)]},
        )
    except OSError as error:
        raise UserError(f"cannot serve at {host}:{port}: {error}; choose another --port or --host") from None
    return page


def _add_run(gr: Any, page: Any, controls: Controls, run: ShownRun) -> None:
    if run.step is not None:
        _add_heading(gr, run)
        _add_panels(gr, controls, run)
        with gr.Tab(run.training.title):
            _add_training(gr, page, run)
        return

    @gr.render(triggers=[page.load], **ONE_AT_A_TIME)
    def later() -> None:
        try:
            run.open()
        except UserError as error:  # its data may have gone since
            gr.HTML(render.cannot_open(str(error)), padding=False)
        _add_heading(gr, run)
        if run.step is not None:
            _add_panels(gr, controls, run)
        else:
            gr.HTML(render.nothing_yet(), padding=False)

    _add_training(gr, page, run)


def _add_heading(gr: Any, run: ShownRun) -> None:
    gr.HTML(render.heading(run.name, run.run.recipe, run.step), padding=False)


def _add_panels(gr: Any, controls: Controls, run: ShownRun) -> None:
    if not run.panels:
        gr.HTML(render.nothing_to_ask(run.run.recipe), padding=False)
    for panel in run.panels:
        with gr.Tab(panel.title):
            controls.add(panel)


def _add_training(gr: Any, page: Any, run: ShownRun) -> None:
    """Words and charts that follow the run's log files; charts are sent only when a file has changed."""
    progress = gr.HTML(padding=False)
    charts = gr.HTML(padding=False)
    drawn = gr.State(None)
    due = [page.load, gr.Timer(EVERY_S).tick]
    gr.on(due, _look(gr, run), drawn, [progress, charts, drawn], queue=False, show_progress="hidden")


def _look(gr: Any, run: ShownRun) -> Callable[[Signature | None], tuple[Any, Any, Signature | None]]:
    def look(drawn: Signature | None) -> tuple[Any, Any, Signature | None]:
        try:
            signature = run.training.signature()
            state = run.training.state()
        except (UserError, OSError) as error:  # the folder may have gone since
            return render_training.unreadable(str(error)), gr.skip(), drawn
        changed = drawn is None or signature != drawn
        return render_training.progress(state), render_training.charts(state) if changed else gr.skip(), signature

    return look
