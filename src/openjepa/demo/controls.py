"""The inputs of each panel in Gradio: on the left what is asked, on the right the answer.

Questions are answered one at a time, as the model is shared, and are counted for each client. What is wrong with an
input is said on the page. Uploads and held-out images lead to the same question: a panel does not know which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.images.decode import SUFFIXES
from openjepa.demo import hidden_sentence, render, render_images, similar_images, similar_texts
from openjepa.demo import views as several_views
from openjepa.demo.answers import MOST_CHARS, beginning
from openjepa.demo.held_out_images import Chosen, Refused
from openjepa.demo.hidden_patches import HiddenPatches
from openjepa.demo.hidden_sentence import HiddenSentence
from openjepa.demo.limits import RateLimit, client_of
from openjepa.demo.panels import Panel
from openjepa.demo.questions import Questions
from openjepa.demo.similar_images import SimilarImages
from openjepa.demo.similar_texts import SimilarTexts
from openjepa.demo.uploads import MOST_MB
from openjepa.demo.views import SeveralViews

LABEL_CHARS = 55  # of an example's name; Gradio cuts longer ones within a word
LEAST_SIDE = 160  # pixels of a thumbnail to click
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
ImagePanel = HiddenPatches | SeveralViews | SimilarImages


class Controls:
    """Adds panels to the page that is being built. `gr` is the module gradio."""

    def __init__(self, gr: Any, limit: RateLimit) -> None:
        self.gr = gr
        self.limit = limit

    def add(self, panel: Panel) -> None:
        """The inputs and the answer of a panel."""
        if isinstance(panel, HiddenSentence):
            self._add_hidden_sentence(panel)
        elif isinstance(panel, Questions):
            self._add_text(panel, panel.about, "Question", 3, "Predict the answer", render.question)
        elif isinstance(panel, SimilarTexts):
            self._add_text(panel, similar_texts.ABOUT, "Texts, one a line", 8, "Compare", render.similar_texts)
        elif isinstance(panel, HiddenPatches):
            self._add_image(
                panel, panel.about, "Predict the hidden patches", "Hide other patches", render_images.hidden_patches
            )
        elif isinstance(panel, SeveralViews):
            self._add_image(panel, several_views.ABOUT, "Compare its views", "Draw other views", render_images.views)
        else:
            self._add_image(panel, similar_images.ABOUT, "Find similar images", "", render_images.similar_images)

    def answering(self, ask: Callable[..., Any], show: Callable[[Any], str]) -> Callable[..., str]:
        """From inputs to HTML: the answer, or the error."""

        def answer(request: Any, *inputs: Any) -> str:
            try:
                self.take(request)
                return show(ask(*inputs))
            except UserError as error:
                return render.error(str(error))

        return self.with_request(answer)

    def take(self, request: Any) -> None:
        """Count a question of the client that sent it. Raises UserError above the limit."""
        self.limit.take(client_of(request.client))

    def with_request(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose first argument, `request`, Gradio fills in: it looks for this type."""
        function.__annotations__ = {"request": self.gr.Request}
        return function

    def _add_text(self, panel: Any, about: str, label: str, lines: int, verb: str, show: Callable[[Any], str]) -> None:
        """A panel with one input box."""
        gr = self.gr
        gr.Markdown(about)
        answer = self.answering(panel.ask, show)
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
                result = gr.HTML(render.waiting(), padding=False)
        button.click(answer, box, result, **ONE_AT_A_TIME)
        chosen.click(lambda sample: sample[0], chosen, box).then(answer, box, result, **ONE_AT_A_TIME)

    def _add_hidden_sentence(self, panel: HiddenSentence) -> None:
        """A paragraph, and a choice among its sentences."""
        gr = self.gr
        gr.Markdown(hidden_sentence.ABOUT)
        examples = panel.examples()
        answer = self.answering(panel.ask, render.hidden_sentence)

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
                result = gr.HTML(render.waiting(), padding=False)
        paragraph.change(
            choices, [paragraph, hidden], hidden, show_progress="hidden", trigger_mode="always_last", **ONE_AT_A_TIME
        )
        settled = button.click(lambda: None, None, None, **ONE_AT_A_TIME)  # behind changes of the choices in the queue
        settled.then(answer, [paragraph, hidden], result, **ONE_AT_A_TIME)
        chosen.click(load, chosen, [paragraph, hidden]).then(answer, [paragraph, hidden], result, **ONE_AT_A_TIME)

    def _add_image(self, panel: ImagePanel, about: str, verb: str, again: str, show: Callable[[Any], str]) -> None:
        """An image to upload or to choose, and where the panel takes them a caption and other random draws."""
        gr = self.gr
        gr.Markdown(about)
        reads_captions = isinstance(panel, HiddenPatches) and panel.reads_captions
        image = gr.State(None)
        draw = gr.State(0)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                upload = gr.UploadButton(f"Upload an image (at most {MOST_MB} MB)", file_types=list(SUFFIXES))
                gr.Markdown("Or click one of the held-out images:")
                examples = gr.Gallery(
                    [_enlarged(pixels) for pixels in panel.held_out.examples()],
                    label="Held-out images",
                    show_label=False,
                    columns=4,
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_classes="oj-gallery",
                )
                caption = gr.Textbox(
                    label="Caption", lines=2, max_lines=6, max_length=MOST_CHARS, visible=reads_captions
                )
                button = gr.Button(verb, variant="primary")
                other = gr.Button(again, visible=bool(again))
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(render.waiting(), padding=False)
        inputs = [image, *([draw] if again else []), *([caption] if reads_captions else [])]
        answer = self.answering(panel.ask, show)
        asked = {"fn": answer, "inputs": inputs, "outputs": result, **ONE_AT_A_TIME}
        button.click(**asked)
        other.click(lambda number: number + 1, draw, draw).then(**asked)
        examples.select(self._example(panel), None, [image, caption]).then(**asked)
        read = self._upload(panel)
        upload.upload(read, [upload, image, caption], [image, caption, result], **ONE_AT_A_TIME).success(**asked)

    def _example(self, panel: ImagePanel) -> Callable[..., Any]:
        def load(event: Any) -> tuple[Chosen, str]:
            chosen = panel.held_out.example(int(event.index))
            return chosen, panel.held_out.caption(chosen.number)

        load.__annotations__ = {"event": self.gr.SelectData}
        return load

    def _upload(self, panel: ImagePanel) -> Callable[..., Any]:
        """Read an uploaded file and delete it: what a client gave is kept in memory only, for that client.

        What is wrong with it is the answer, and the image before it is forgotten. The caption of an example does not
        stay with another image.
        """

        def read(file: str, before: Chosen | None, caption: str) -> tuple[Chosen | Refused, str, str]:
            path = Path(file)
            if isinstance(before, Chosen) and caption == panel.held_out.caption(before.number):
                caption = ""
            try:
                return panel.held_out.upload(path.read_bytes()), caption, render.waiting()
            except UserError as error:
                return Refused(str(error)), caption, render.waiting()
            finally:
                path.unlink(missing_ok=True)

        return read


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """An image [S, S, 3], every pixel repeated until it is as large as a thumbnail: browsers would smooth it."""
    times = -(-LEAST_SIDE // pixels.shape[0])
    return pixels.repeat(times, 0).repeat(times, 1)
