"""The Gradio page: inputs on the left, the answer on the right, below each other on a narrow screen.

It works without a network: no analytics, no sharing, no fonts or scripts from elsewhere, and no access to files. Input
errors are shown on the page. One question is answered at a time, as the model is shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.demo import hidden_sentence, render, similar_texts
from openjepa.demo.answers import MOST_CHARS, beginning
from openjepa.demo.hidden_sentence import HiddenSentence
from openjepa.demo.panels import Panel, panels_of
from openjepa.demo.questions import Questions
from openjepa.demo.similar_texts import SimilarTexts
from openjepa.training import checkpoint

FONT = ["system-ui", "sans-serif"]  # local fonts; Gradio's default is loaded from a server
MONO = ["ui-monospace", "monospace"]
LABEL_CHARS = 55  # of an example's name; Gradio cuts longer ones within a word
WAITING = 20  # longest queue of questions
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
PAGE_CSS = (
    "main.fillable { max-width: 1240px !important; margin: 0 auto; }"
    "tr.tr-body td, tr.tr-body .sample-label { text-align: left; }" + render.CSS
)


def _gradio() -> Any:
    """Import Gradio without analytics. Raises UserError if it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError:
        raise UserError('the demo needs Gradio: pip install "openjepa[demo]"') from None
    return gradio


def build(run: Run) -> Any:
    """The page of a run, a `gradio.Blocks`. Raises UserError if Gradio is missing or the run reads no text."""
    gr = _gradio()
    panels = panels_of(run)
    with gr.Blocks(title=f"OpenJEPA: {run.path.name}", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(render.heading(run.path.name, run.recipe, checkpoint.newest_step(run.folder.checkpoints)))
        for panel in panels:
            with gr.Tab(panel.title):
                _add(gr, panel)
    return page.queue(max_size=WAITING)


def serve(run: Run, host: str, port: int) -> Any:
    """Show the page at http://host:port until the returned page's `close()`. Raises UserError if it cannot."""
    gr = _gradio()
    page = build(run)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            max_file_size=1,  # byte: nothing is uploaded here
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            theme=gr.themes.Default(font=FONT, font_mono=MONO),
            css=PAGE_CSS,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f"cannot serve at {host}:{port}: {error}; choose another --port or --host") from None
    return page


def _add(gr: Any, panel: Panel) -> None:
    if isinstance(panel, HiddenSentence):
        _add_hidden(gr, panel)
    elif isinstance(panel, Questions):
        _add_plain(gr, panel, panel.about, "Question", 3, "Predict the answer", render.question)
    elif isinstance(panel, SimilarTexts):
        _add_plain(gr, panel, similar_texts.ABOUT, "Texts, one a line", 8, "Compare", render.similar_texts)


def _add_plain(gr: Any, panel: Any, about: str, label: str, lines: int, verb: str, show: Callable[[Any], str]) -> None:
    """A panel with one input box."""
    gr.Markdown(about)
    answer = _answering(panel.ask, show)
    examples = panel.examples()
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            box = gr.Textbox(
                examples[0] if examples else "", label=label, lines=lines, max_lines=14, max_length=MOST_CHARS
            )
            button = gr.Button(verb, variant="primary")
            chosen = gr.Dataset(
                components=[gr.Textbox(visible=False)],
                samples=[[example] for example in examples],
                sample_labels=[beginning(example, LABEL_CHARS) for example in examples],
                label="Examples: click one",
                layout="table",
            )
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(render.waiting())
    button.click(answer, box, result, **ONE_AT_A_TIME)
    chosen.click(lambda sample: sample[0], chosen, box).then(answer, box, result, **ONE_AT_A_TIME)


def _add_hidden(gr: Any, panel: HiddenSentence) -> None:
    """A paragraph, and a choice among its sentences."""
    gr.Markdown(hidden_sentence.ABOUT)
    examples = panel.examples()
    answer = _answering(panel.ask, render.hidden_sentence)

    def choices(paragraph: str, chosen: int | None) -> Any:
        sentences = panel.sentences(paragraph)
        chosen = min(chosen or 0, len(sentences) - 1) if sentences else None
        options = [(f"{number}. {sentence}", number - 1) for number, sentence in enumerate(sentences, 1)]
        return gr.Radio(options, value=chosen, label="Hide this sentence")

    def load(sample: tuple[str, int]) -> tuple[str, Any]:
        return sample[0], choices(sample[0], int(sample[1]))

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            paragraph = gr.Textbox(examples[0][0], label="Paragraph", lines=6, max_lines=14, max_length=MOST_CHARS)
            hidden = choices(*examples[0])
            button = gr.Button("Predict the hidden sentence", variant="primary")
            chosen = gr.Dataset(
                components=[gr.Textbox(visible=False), gr.Number(visible=False)],
                samples=[list(example) for example in examples],
                sample_labels=[beginning(text, LABEL_CHARS) for text, _ in examples],
                label="Examples: click one",
                layout="table",
            )
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(render.waiting())
    paragraph.change(
        choices, [paragraph, hidden], hidden, show_progress="hidden", trigger_mode="always_last", **ONE_AT_A_TIME
    )
    button.click(answer, [paragraph, hidden], result, **ONE_AT_A_TIME)
    chosen.click(load, chosen, [paragraph, hidden]).then(answer, [paragraph, hidden], result, **ONE_AT_A_TIME)


def _answering(ask: Callable[..., Any], show: Callable[[Any], str]) -> Callable[..., str]:
    """From inputs to HTML: the answer, or the error."""

    def answer(*inputs: Any) -> str:
        try:
            return show(ask(*inputs))
        except UserError as error:
            return render.error(str(error))

    return answer
