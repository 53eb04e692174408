"""One self-contained HTML page: no script, no font and no picture from elsewhere; light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources

import yaml

from openjepa.core.config import BaseConfig
from openjepa.core.picture import Patches, Pieces
from openjepa.mask_page import draw
from openjepa.mask_page.figures import Figure, coverage
from openjepa.mask_page.sampling import Sampled


def page(recipe: str, config: BaseConfig, sampled: Sampled, found: Mapping[str, Figure], command: str) -> str:
    """The whole page."""
    style = resources.files("openjepa.mask_page").joinpath("page.css").read_text(encoding="utf-8")
    count = len(sampled.epochs[0].valid)
    sections = [
        f"<h1>What {escape(recipe)} hides</h1>",
        f"<p>Masks of {count} training samples, drawn as training draws them. "
        f"Made by <code>{escape(command)}</code></p>",
        _settings(config),
        "<h2>Samples</h2>",
        _samples(sampled),
        "<h2>How often each place is chosen</h2>",
        _coverage(sampled),
        "<h2>Figures</h2>",
        _table(found),
    ]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta name="viewport" content="width=device-width"><title>Masks of {escape(recipe)}</title>',
        f"<style>{style}</style></head><body>",
        *sections,
        "</body></html>",
    ]
    return "\n".join(parts)


def _settings(config: BaseConfig) -> str:
    mask = vars(config).get("mask")
    if not isinstance(mask, BaseConfig):
        return ""
    text = yaml.safe_dump({"mask": mask.model_dump(mode="json")}, sort_keys=False, default_flow_style=None)
    return f"<pre>{escape(text)}</pre>"


def _samples(sampled: Sampled) -> str:
    first, pictures = sampled.epochs[0], sampled.pictures[0]
    if not pictures:
        bare = [draw.strip(first.valid[i], first.hidden[i], first.shown[i]) for i in range(min(8, len(first.valid)))]
        return _legend() + "".join(bare)
    if isinstance(pictures[0], Patches):
        return f'<div class="images">{"".join(_image_row(sampled, i) for i in range(len(pictures)))}</div>'
    rows = [
        f"<h3>epoch 1</h3>{_text(sampled, 0, i)}<h3>epoch 2</h3>{_text(sampled, 1, i)}" for i in range(len(pictures))
    ]
    return _legend() + "".join(f'<section class="sample">{row}</section>' for row in rows)


def _text(sampled: Sampled, epoch: int, row: int) -> str:
    masks, picture = sampled.epochs[epoch], sampled.pictures[epoch][row]
    assert isinstance(picture, Pieces)
    return draw.text_sample(picture, masks.valid[row], masks.hidden[row], masks.shown[row])


def _image_row(sampled: Sampled, row: int) -> str:
    panels = []
    for number, (masks, pictures) in enumerate(zip(sampled.epochs, sampled.pictures, strict=True), start=1):
        picture = pictures[row]
        assert isinstance(picture, Patches)
        if number == 1:
            panels.append(draw.image_panel(picture, None, escape(picture.caption) or "the sample"))
        panels.append(draw.image_panel(picture, masks.shown[row], f"epoch {number}: context"))
        panels.append(draw.image_panel(picture, masks.hidden[row], f"epoch {number}: to be predicted"))
    return f'<div class="row">{"".join(panels)}</div>'


def _legend() -> str:
    marks = [("shown", "context"), ("hidden", "hidden: to be predicted"), ("unused", "neither")]
    return '<p class="legend">' + " ".join(f'<span class="{kind}">{name}</span>' for kind, name in marks) + "</p>"


def _coverage(sampled: Sampled) -> str:
    first = sampled.epochs[0]
    covered = coverage(first)
    if sampled.grid is not None:
        names = {"hidden": "to be predicted", "shown": "in the context"}
        parts = [
            draw.heat_map(covered[kind], sampled.grid, kind, f"{name}, % of the samples")
            for kind, name in names.items()
        ]
        charts = f'<div class="row">{"".join(parts)}</div>'
    else:
        charts = draw.place_chart(covered["hidden"], covered["rows"], "Samples that hide each place")
    shares = first.hidden.sum(1) / first.valid.sum(1)  # [R]
    return charts + draw.histogram(shares, "Share of the samples by how much of them is hidden")


def _table(found: Mapping[str, Figure]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th>"
        + "".join(f"<td>{_number(name, value)}</td>" for value in figure[:3])
        + f"<td class='meaning'>{escape(figure.meaning)}</td></tr>"
        for name, figure in found.items()
    )
    head = "<tr><th></th><th>mean</th><th>least</th><th>most</th><th></th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _number(name: str, value: float) -> str:
    if "share" in name or "overlap" in name:
        return f"{100 * value:.1f} %"
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
