"""Answers of the image panels as HTML: patches, maps of cosines, captions and thumbnails."""

from __future__ import annotations

import math
from collections.abc import Sequence

from openjepa.demo.answers import Chance, beginning
from openjepa.demo.drawing import cosine_map, legend, patch_figure, thumbnail
from openjepa.demo.held_out_images import ImageMatch
from openjepa.demo.hidden_patches import OTHER, YOURS, PatchAnswer, PatchPrediction, TriedCaption
from openjepa.demo.render import chance_line, escaped, note_line, page
from openjepa.demo.similar_images import SimilarImagesAnswer
from openjepa.demo.views import ViewsAnswer


def hidden_patches(answer: PatchAnswer) -> str:
    """The mask, the map of the prediction, its cosine beside random pairs, captions and neighbours."""
    picture = answer.picture
    prediction = answer.prediction
    hidden = answer.hidden
    shown = answer.shown
    neither = ~(answer.hidden | answer.shown)
    figures = [
        patch_figure(picture, hidden | ~hidden, "the image as the run reads it"),
        patch_figure(picture, shown, f"visible: {shown.sum()} of {len(shown)} patches"),
        patch_figure(picture, hidden, f"hidden: {hidden.sum()} patches to be predicted"),
    ]
    rest = f" {neither.sum()} patches are neither visible nor predicted." if neither.any() else ""
    return page(
        "<h3>What the run reads and what it predicts</h3>",
        f'<div class="figures">{"".join(figures)}</div>',
        f'<p class="quiet">The run does not read the hatched patches.{rest}</p>',
        note_line(answer.note),
        "<h3>Cosine of each predicted latent with its target</h3>",
        f'<div class="figures maps">{_maps(answer)}</div>',
        legend(prediction.chance.mean),
        *_cosine_and_skill(prediction),
        *_captions(answer),
        *_nearest(answer.nearest, answer.nearest_chance),
    )


def _maps(answer: PatchAnswer) -> str:
    """The map of the prediction, and for a run with captions that of another image's caption."""
    low = answer.prediction.chance.mean
    if not answer.tried:
        return cosine_map(answer.picture, answer.prediction.cosine, low, f"mean {answer.prediction.mean:.3f}")
    given = next(one for one in answer.tried if one.prediction is answer.prediction)
    drawn = [(given, "your caption" if given.kind == YOURS else "no caption")]
    if answer.other is not None:
        drawn.append((answer.other, "another image's caption"))
    return "".join(
        cosine_map(answer.picture, one.prediction.cosine, low, f"{name}, mean {one.prediction.mean:.3f}")
        for one, name in drawn
    )


def _cosine_and_skill(prediction: PatchPrediction) -> list[str]:
    mean = prediction.mean
    chance = prediction.chance
    same = ""
    if not math.isnan(prediction.same_position):
        same = f", those at the same position {prediction.same_position:.3f}"
    return [
        f'<p class="big">mean cosine {mean:.3f}, random pairs {chance.mean:.3f}</p>',
        f"<p>The random pairs are {escaped(chance.pairs)} (standard deviation {chance.std:.3f}{same}).</p>",
        f"<p>Skill on this image {prediction.skill:.2f}, on the other images {prediction.skill_others:.2f} "
        "(1 = perfect, 0 = the best constant prediction).</p>",
    ]


def _captions(answer: PatchAnswer) -> list[str]:
    if not answer.tried:
        return []
    others = sum(one.kind == OTHER for one in answer.tried)
    ranked = "You gave no caption."
    if answer.rank is not None:
        ranked = f"Your caption has rank <b>{answer.rank}</b> of {others + 1}, among those of {others} other images."
    head = (
        '<tr><th>caption</th><th class="number">skill</th><th class="number drawn">mean cosine</th>'
        '<th class="number drawn">random pairs</th></tr>'
    )
    return [
        "<h3>The same hidden patches with other captions, best first</h3>",
        f"<p>{ranked} The more a caption helps, the higher the skill.</p>",
        f'<table class="captions">{head}{"".join(map(_caption_row, answer.tried))}</table>',
    ]


def _caption_row(tried: TriedCaption) -> str:
    marks = [name for name, given in (("yours", tried.kind == YOURS), ("right", tried.is_right)) if given]
    mark = "".join(f'<span class="mark">{name}</span>' for name in marks)
    text = escaped(beginning(tried.caption)) if tried.caption else '<span class="quiet">no caption</span>'
    prediction = tried.prediction
    cells = (
        f'<td class="number">{prediction.skill:.3f}</td><td class="number drawn">{prediction.mean:.3f}</td>'
        f'<td class="number drawn">{prediction.chance.mean:.3f}</td>'
    )
    return f"<tr><td>{mark}{text}</td>{cells}</tr>"


def views(answer: ViewsAnswer) -> str:
    """The views with their cosines, the agreement, the prediction, and neighbours."""
    figures = [f"<figure>{thumbnail(answer.pixels, 'the image')}<figcaption>the image</figcaption></figure>"]
    for number, view in enumerate(answer.views, 1):
        label = f"view {number}, {view.kind}"
        caption = f"{label}: cosine {view.cosine:.3f}, z {view.z:+.1f}"
        figures.append(f"<figure>{thumbnail(view.pixels, label)}<figcaption>{caption}</figcaption></figure>")
    return page(
        "<h3>Views of the image, and the mean cosine of each with the others</h3>",
        f'<div class="figures">{"".join(figures)}</div>',
        note_line(answer.note),
        f'<p class="big">mean cosine of two views {answer.agreement:.3f}, random pairs {answer.chance.mean:.3f}</p>',
        chance_line(answer.chance),
        "<h3>One view predicts the others</h3>",
        f"<p>The prediction from {answer.context} has a cosine of {answer.predicted:.3f} with its target "
        f"(z {answer.predicted_chance.z(answer.predicted):+.1f}), rank <b>{answer.rank}</b> of {answer.candidates} "
        "targets (1 = nearest).</p>",
        chance_line(answer.predicted_chance),
        *_nearest(answer.nearest, answer.nearest_chance),
    )


def similar_images(answer: SimilarImagesAnswer) -> str:
    """The image and its neighbours."""
    image = f'<div class="figures"><figure>{thumbnail(answer.pixels, "the image as the run reads it")}</figure></div>'
    return page(
        "<h3>The image as the run reads it</h3>",
        image,
        note_line(answer.note),
        *_nearest(answer.nearest, answer.nearest_chance),
    )


def _nearest(found: Sequence[ImageMatch], chance: Chance) -> list[str]:
    figures = "".join(
        f"<figure>{thumbnail(match.pixels, match.caption or 'a held-out image')}<figcaption>cosine {match.cosine:.3f}"
        f"<br>z {match.z:+.1f}</figcaption></figure>"
        for match in found
    )
    return [
        "<h3>Nearest held-out images</h3>",
        f'<div class="figures small">{figures}</div>',
        chance_line(chance),
    ]
