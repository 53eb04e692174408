"""One self-contained HTML page: no script, no font and no picture from elsewhere; light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from openjepa.core.config import BaseConfig
from openjepa.core.describe import settings_in_use
from openjepa.core.picture import Patches, Pieces
from openjepa.core.values import as_yaml
from openjepa.pages.masks import draw
from openjepa.pages.masks.figures import Figure, coverage
from openjepa.pages.masks.sampling import Sampled
from openjepa.pages.parts.document import base_styles, document, style_sheet, table


def page(
    recipe: str,
    config: BaseConfig,
    sampled: Sampled,
    found: Mapping[str, Figure],
    command: str,
    remarks: Sequence[str] = (),
) -> str:
    """The whole page; `remarks` name the settings that the masks cannot follow."""
    count = len(sampled.epochs[0].valid)
    sections = [
        f"<h1>What {escape(recipe)} hides</h1>",
        f"<p>Masks of {count} training samples, drawn as training draws them. "
        f"Made by <code>{escape(command)}</code></p>",
        settings(config),
        *(f"<p><b>Note:</b> {escape(remark)}.</p>" for remark in remarks),
        "<h2>Samples</h2>",
        samples(sampled),
        "<h2>How often each position is chosen</h2>",
        _coverage(sampled),
        "<h2>Figures</h2>",
        _table(found),
    ]
    return document(f"Masks of {recipe}", sections, [*base_styles(), style()])


def style() -> str:
    """The style sheet of mask drawings, to add to `base_styles`."""
    return style_sheet("openjepa.pages.masks", "page.css")


def settings(config: BaseConfig) -> str:
    """The settings in use of the section `mask` of a configuration, if any; strategies use different ones."""
    used = mask_settings(config)
    if not used:
        return ""
    text = as_yaml({"mask": used}, default_flow_style=None)
    return f"<pre>{escape(text)}</pre>"


def mask_settings(config: BaseConfig) -> dict[str, Any]:
    """The settings in use of the section `mask`, in types of YAML and JSON."""
    return {
        key.removeprefix("mask."): value for key, value in settings_in_use(config).items() if key.startswith("mask.")
    }


def samples(sampled: Sampled) -> str:
    """The pictured rows with their masks in both epochs."""
    first = sampled.epochs[0]
    pictures = sampled.pictures[0]
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
    masks = sampled.epochs[epoch]
    picture = sampled.pictures[epoch][row]
    assert isinstance(picture, Pieces)
    return draw.text_sample(picture, masks.valid[row], masks.hidden[row], masks.shown[row])


def _image_row(sampled: Sampled, row: int) -> str:
    panels = []
    for number, (masks, pictures) in enumerate(zip(sampled.epochs, sampled.pictures, strict=True), start=1):
        picture = pictures[row]
        assert isinstance(picture, Patches)
        if number == 1:
            panels.append(draw.image_panel(picture, None, picture.caption or "the sample"))
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
        charts = draw.position_chart(covered["hidden"], covered["rows"], "Samples that hide each position")
    shares = first.hidden.sum(1) / first.valid.sum(1)  # [R]
    return charts + draw.histogram(shares, "Share of the samples by how much of them is hidden")


def _table(found: Mapping[str, Figure]) -> str:
    rows = [
        [
            escape(name.replace("_", " ")),
            *(_number(name, value) for value in figure[:3]),
            f'<span class="meaning">{escape(figure.meaning)}</span>',
        ]
        for name, figure in found.items()
    ]
    return table(["", "mean", "least", "most", ""], rows, "figures")


def _number(name: str, value: float) -> str:
    if "share" in name or "overlap" in name:
        return f"{100 * value:.1f} %"
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
