"""The parts of pages: charts that keep their values, tables for keyboards, and colours with enough contrast."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from openjepa.pages.parts.axis import Axis, axis
from openjepa.pages.parts.chart import COLOURS, Dot, Limit, Line, interval, line_chart, scatter, thinned
from openjepa.pages.parts.document import DEEPEST, base_styles, details, document, left_out, number, style_sheet, table
from openjepa.pages.parts.images import WIDEST, png_uri

SCHEMES = ("light", "dark")


def colours() -> dict[str, dict[str, tuple[float, ...]]]:
    """Every variable of base.css in both schemes, as sRGB in [0, 1]."""
    light, dark = style_sheet("openjepa.pages.parts", "base.css").split("@media (prefers-color-scheme: dark)")
    dark = dark.partition("body {")[0]
    light = light.partition("body {")[0]
    found = {}
    for scheme, css in zip(SCHEMES, (light, dark), strict=True):
        pairs = re.findall(r"--([\w-]+): #([0-9a-f]{6})", css)
        found[scheme] = {name: tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, value in pairs}
    return found


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2: relative luminances (L1 + 0.05) / (L2 + 0.05)."""

    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mixed(top: tuple[float, ...], below: tuple[float, ...], share: float) -> tuple[float, ...]:
    return tuple(share * a + (1 - share) * b for a, b in zip(top, below, strict=True))


def test_the_contrast_of_black_on_white_is_21() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_has_a_contrast_of_4_5_and_marks_of_3(scheme: str) -> None:
    known = colours()[scheme]
    assert set(known) == set(colours()["light"])  # no colour is forgotten in the dark
    grounds = ("paper", "card")
    texts = [*product(("ink", "muted", "link", "good", "risk", "bad"), grounds)]
    texts += [("hidden", "hidden-ground"), ("muted", "unused-ground"), ("shown", "paper")]
    for text, ground in texts:
        assert contrast(known[text], known[ground]) >= 4.5, (text, ground)
    for ground in grounds:
        deepest = mixed(known["c1"], known[ground], DEEPEST / 100)
        assert contrast(known["ink"], deepest) >= 4.5
        zone = mixed(known["bad"], known[ground], 0.09)
        assert contrast(known["muted"], zone) >= 4.5
    for colour, ground in product([f"c{i}" for i in range(COLOURS)], grounds):
        assert contrast(known[colour], known[ground]) >= 3, (colour, ground)


def test_the_page_says_nothing_that_a_browser_would_fetch() -> None:
    page = document("a <b>", ["<p>x</p>"], base_styles(), refresh_s=9)
    assert "<title>a &lt;b&gt;</title>" in page
    assert '<meta http-equiv="refresh" content="9">' in page
    assert not re.search(r"url\(|@import|<script|<link|https?:", page)
    assert "refresh" not in document("a", [], [])


def test_an_axis_maps_its_ends_to_0_and_1_and_what_is_beyond_onto_them() -> None:
    assert [Axis(-1, 3).share(v) for v in (-9, -1, 0, 1, 3, 9)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [Axis(0.01, 100, True).share(v) for v in (0, 0.01, 1, 100)] == pytest.approx([0, 0, 0.5, 1])


@pytest.mark.parametrize(
    "given", [Axis(0, 1), Axis(-0.37, 0.93), Axis(0, 128), Axis(1e-6, 3e-3), Axis(4.2e9, 7.9e9, True)]
)
def test_ticks_are_round_within_the_range_and_more_than_one(given: Axis) -> None:
    ticks = given.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(given.low <= tick * (1 + 1e-9) and tick <= given.high * (1 + 1e-9) for tick in ticks)
    assert all(len(f"{tick:.12g}".strip("-0.e+").replace(".", "")) <= 10 for tick in ticks)
    steps = np.diff(ticks)
    assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-6)


def test_logarithmic_ticks_are_decades() -> None:
    assert Axis(2e-5, 1.3, True).ticks() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])


def test_an_axis_of_values_holds_them_all_and_ignores_what_is_not_finite() -> None:
    found = axis([1.0, float("nan"), 3.0, float("inf")])
    assert found.low < 1 < 3 < found.high < 4
    assert axis([0.0, 1.0, 100.0], log=True).low > 0.1
    assert axis([2.0]).low < 2 < axis([2.0]).high
    assert axis([]).low < axis([]).high


def test_long_curves_are_averaged_and_keep_their_last_point() -> None:
    points = [(float(i), float(i % 2)) for i in range(10_001)]
    found = thinned(points, 100)
    assert len(found) == 100
    assert found[-1] == points[-1]
    assert all(y == pytest.approx(0.5, abs=0.02) for _, y in found[:-1])
    assert thinned(points[:50], 100) == points[:50]


def test_a_chart_draws_lines_limits_and_escaped_words_and_skips_what_is_not_finite() -> None:
    line = Line("<i>", [(0, 0.0), (5, float("nan")), (10, 1.0)])
    drawn = line_chart(
        "a & b", [line, Line("two", [])], Axis(0, 10), Axis(0, 1), limits=[Limit(0.25, "dead")], x_label="<x>"
    )
    assert "<i>" not in drawn
    assert "a &amp; b" in drawn
    assert "&lt;x&gt;" in drawn
    assert drawn.count('<circle class="dot"') == 2
    (points,) = re.findall(r'<polyline class="curve" points="([^"]+)"', drawn)
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points.split())
    zone = re.search(r'class="zone" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawn)
    assert zone is not None
    assert float(zone[1]) == pytest.approx(y0 + 0.25 * (y1 - y0), abs=0.1)
    assert float(zone[1]) + float(zone[2]) == pytest.approx(y0, abs=0.1)
    assert x1 > x0


def test_scatter_tells_groups_apart_by_shape_as_well() -> None:
    dots = [Dot(1, 1, "<one>", 0), Dot(2, 2, "two", 1), Dot(3, 3, "three", 2)]
    drawn = scatter(
        "t", dots, Axis(0, 4), Axis(0, 4), ["a", "b", "c"], x_label="cost", levels=[Limit(2, "chance", "level")]
    )
    assert "&lt;one&gt;" in drawn
    assert drawn.count("<circle") == 2  # the dot, and its key
    assert drawn.count("<polygon") == 4
    assert "zone" not in drawn


def test_an_interval_is_drawn_to_scale() -> None:
    at = [float(v) for v in re.findall(r'(?:x1|x2|cx)="([\d.]+)"', interval(0.5, 0.0, 1.0, 1.0, 0))]
    assert at == [60, 60, 60, 116, 88]


def test_tables_scroll_by_keyboard_and_name_their_rows() -> None:
    found = table(["a", "b"], [["x", "1"]], 'quo"te')
    assert 'tabindex="0" role="region" aria-label="quo&quot;te"' in found
    assert '<th scope="row">x</th><td>1</td>' in found
    assert "<details><summary>a&lt;" in details("a<", "")
    assert left_out("no <data>\nhere") == '<p class="left-out">Left out: no &lt;data&gt; here</p>'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0.000"),
        (0.12345, "0.123"),
        (1e-5, "1.0e-05"),
        (66.73, "66.7"),
        (12_345, "12,345"),
        (3e7, "3.0e+07"),
    ],
)
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_images_travel_within_the_page_and_large_ones_are_made_smaller() -> None:
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (400, 300, 3), dtype=np.uint8)
    head, _, data = png_uri(pixels, np.full((400, 300), 255, np.uint8)).partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/png;base64"
    assert max(image.size) <= WIDEST
    assert (np.asarray(image)[..., :3] == pixels[::3, ::3]).all()
