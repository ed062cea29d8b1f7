"""One look for all figures: colours, shapes, type, and the parts that figures are built from.

The Okabe-Ito colours (told apart with every common colour blindness) with a shape and a dash beside
each, no text below 12 px, a white card that reads on a light page and on a dark one. Importing this
enables the theme and static SVG output, which needs no script and no network to be read.
"""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression


INK, QUIET, GREY, FAINT = "#1f2328", "#57606a", "#8c959f", "#e4e7eb"

LOOKS: list[tuple[str, str, list[int], str]] = [
    ("#0072B2", "circle", [1, 0], "ICL"),
    ("#D55E00", "square", [6, 3], "full fine-tuning, full"),
    ("#009E73", "triangle-up", [2, 2], "LoRA, rank-1 LoRA, rank-4 LoRA, rank-16 LoRA"),
    ("#CC79A7", "diamond", [8, 3, 2, 3], "distillation, distilled, all weights"),
    ("#56B4E9", "triangle-down", [4, 2], "recursive distillation, recursive, live, cache"),
    ("#E69F00", "cross", [10, 3], "BitFit"),
    ("#000000", "triangle-right", [1, 3], "cue classifier"),
    (QUIET, "circle", [1, 0], "zero-shot"),
    ("#334155", "circle", [1, 0], "in-domain"),
    ("#9467bd", "square", [6, 3], "out-of-domain"),
    ("#7f7f00", "diamond", [8, 3, 2, 3], "rank-16 rsLoRA"),
    ("#8c2d04", "triangle-down", [4, 2], "rank-4 DoRA"),
    ("#005f5f", "cross", [10, 3], "VeRA"),
    ("#7a0177", "triangle-right", [1, 3], "IA3"),
    ("#4d4d4d", "triangle-up", [2, 2], "linear probe"),
    ("#8c564b", "diamond", [4, 2], "prefix"),
]
"""Colour, shape and dash, and the methods and domains that have them in the whole book.

Any other series has one of the first seven: the colours of Okabe & Ito (2008), the two with the
most contrast on white first, yellow left out.
"""
PLACES = {name: place for place, look in enumerate(LOOKS) for name in look[3].split(", ")}
STUDIES = {"smollm2": "SmolLM2-135M", "pocket": "pocket world"}
"""What the book's own studies are called in figures; a user's study keeps its name."""

FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
WIDTH, HEIGHT = 520, 300  # of the plotting area, px; with axes and end labels a page's 700
PHONE, NOTE = 280, 330  # on a phone: of the plotting area, and of the small print under it
ON_CELLS = "#1e2227", "#fefefe"
"""Ink on light and on dark cells, which stay as they are on a dark page, and so do these two."""

ON_A_PHONE: ContextVar[bool | None] = ContextVar("ON_A_PHONE", default=None)
"""Whether a figure's drawing for a phone is being made; None while none is (`renderings.twice`)."""


@alt.theme.register("llmft", enable=True)
def config() -> alt.theme.ThemeConfig:
    """The book's Vega-Lite configuration; no text below 12 px."""
    axis: Any = {
        "labelColor": QUIET,
        "titleColor": INK,
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 6,
        "labelFlush": False,
        "labelSeparation": 6,  # readers' fonts may be wider than the one that is measured
        "domainColor": GREY,
        "tickColor": GREY,
        "gridColor": FAINT,
    }
    return {
        "config": {
            "background": "#ffffff",
            "padding": {"left": 22, "right": 26, "top": 14, "bottom": 14},
            "font": FONT,
            "view": {"continuousWidth": WIDTH, "continuousHeight": HEIGHT, "stroke": None},
            "axis": axis,
            "axisX": {"grid": False},
            "axisY": {"domain": False, "ticks": False},
            "header": {
                "labelFontSize": 14,
                "labelFontWeight": "bold",
                "labelColor": INK,
                "titleFontSize": 13,
                "titleColor": QUIET,
            },
            "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelColor": INK},
            "title": {
                "fontSize": 12,
                "fontWeight": "normal",
                "color": QUIET,
                "anchor": "start",
                "orient": "bottom",
                "offset": 14,
                "lineHeight": 17,
            },
            "range": {"category": [x[0] for x in LOOKS[:7]], "symbol": [x[1] for x in LOOKS[:7]]},
        }
    }


alt.renderers.enable("svg")


def phone() -> bool:
    """Whether what is drawn now is for a phone, where 344 px are all there is."""
    return bool(ON_A_PHONE.get())


def order(values: pd.Series) -> list[Any]:
    """The distinct values in the frame's order, not the alphabet's."""
    return list(dict.fromkeys(values))


def legend(**options: Any) -> alt.Legend:
    """A legend above the figure, for series that no line's end can name."""
    usual = {"orient": "top", "title": None, "symbolSize": 90, "labelFontSize": 13}
    # Else a legend of faint dots is faint, and the dashes of lines fray its symbols.
    usual |= {"symbolOpacity": 1, "symbolStrokeWidth": 0}
    narrow = {"columns": 1, "labelLimit": NOTE - 40} if phone() else {}
    return alt.Legend(**(usual | {"columnPadding": 30} | options | narrow))


def looks(names: Sequence[Any]) -> list[tuple[str, str, list[int]]]:
    """Each name's colour, shape and dash: its own where it has one, else the next that is free."""
    known = [PLACES.get(str(name)) for name in names]
    free = [place for place in range(7) if place not in known] or [*range(7)]
    others = itertools.cycle(free)
    return [LOOKS[next(others) if place is None else place][:3] for place in known]


def colour(series: str, names: Sequence[Any], legend: alt.Legend | None = None) -> alt.Color:
    """The series' colours; no legend unless one is given."""
    return alt.Color(f"{series}:N", scale=_scale(names, 0), legend=legend)


def look(series: str, names: Sequence[Any], legend: alt.Legend | None = None) -> dict[str, Any]:
    """The encodings of the series' points: colour and shape."""
    shape = alt.Shape(f"{series}:N", scale=_scale(names, 1), legend=legend)
    return {"color": colour(series, names, legend), "shape": shape}


def dash(series: str, names: Sequence[Any]) -> alt.StrokeDash:
    """The series' line dashes, to go with `colour`."""
    return alt.StrokeDash(f"{series}:N", scale=_scale(names, 2), legend=None)


def _scale(names: Sequence[Any], part: int) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[look[part] for look in looks(names)])


def within(domain: Sequence[float], **options: Any) -> alt.Scale:
    """A scale of just these ends, whatever the data."""
    return alt.Scale(domain=list(domain), nice=False, zero=False, **options)


def study(name: str) -> str:
    """What a study is called in figures."""
    return STUDIES.get(name, name)


def lines(title: str, width: int) -> Any:
    """An axis title as Vega takes it, in as many lines as an axis of this width needs."""
    wrapped = textwrap.wrap(title, (min(width, PHONE) if phone() else width) // 7)
    return wrapped if len(wrapped) > 1 else title


def span(*values: Any) -> list[float]:
    """A round range that holds every finite one of the values; shares stay within 0 and 1."""
    numbers = np.concatenate([np.asarray(own, dtype=float) for own in values])
    numbers = numbers[np.isfinite(numbers)]
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    room = 0.03 * (high - low or 1.0)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if high - low <= 10 * s), None)
    step = step or 10 ** np.floor(np.log10(high - low))
    bottom, top = step * np.floor((low - room) / step), step * np.ceil((high + room) / step)
    return [
        float(max(bottom, 0.0) if low >= 0 else bottom),
        float(min(top, 1.0) if high <= 1 else top),
    ]


def pixels(number: float, height: int, domain: Sequence[float]) -> float:
    """How much of the y axis so many pixels of a panel of this height are."""
    return number / height * (domain[1] - domain[0])


def spread(targets: Sequence[float], gap: float) -> list[float]:
    """Heights as near as possible to the targets and at least `gap` apart, in the same order.

    Less the room that they need, they are to rise: an isotonic regression.
    """
    order, room = np.argsort(targets, kind="stable"), gap * np.arange(len(targets))
    heights = np.empty(len(targets))
    heights[order] = isotonic_regression(np.asarray(targets)[order] - room).x + room
    return [float(height) for height in heights]


def having(chart: Any, **properties: Any) -> Any:
    """The chart, given these properties. Altair's `properties` copies it and all that is in it."""
    for name, value in properties.items():
        chart[name] = value
    return chart


def sized(chart: Any, width: int, height: int) -> Any:
    """The chart with a plotting area of this size, on a phone as wide as that is."""
    return having(chart, width=PHONE if phone() else width, height=height)


def finish(chart: Any, note: str, width: int) -> Any:
    """The chart with its note (which intervals, what n) as small print under it."""
    letters = int((NOTE if phone() else width) / 7)  # of 12 px, in a wide font
    lines = textwrap.wrap(note, letters, break_long_words=False, break_on_hyphens=False)
    return having(chart, title=alt.Title(lines)) if note else chart


def headed(chart: Any, value: Any) -> Any:
    """One panel of several, its heading above it on the left; none for None.

    A heading that is a study, or begins with one and a comma, has the study's name in figures.
    """
    if value is None:
        return chart
    first, comma, rest = str(value).partition(",")
    text, width = f"{study(first)}{comma}{rest}", getattr(chart, "width", alt.Undefined)
    heading = alt.Title(
        lines(text, width + 16) if isinstance(width, int) else text,
        orient="top",
        fontSize=14,
        fontWeight="bold",
        color=INK,
        anchor="start",
        frame="group",  # over the plotting area, so that all panels' headings stand at one height
        offset=8,
    )
    return having(chart, title=heading)


def chance(at: float, field: str, channel: str, scale: alt.Scale | None = None) -> Any:
    """The dashed line at chance, on the axis of the other layers unless it has a `scale`."""
    line = alt.Chart(pd.DataFrame({field: [at]})).mark_rule(color=GREY, strokeDash=[4, 4])
    position: Any = alt.X if channel == "x" else alt.Y
    return line.encode(**{channel: position(f"{field}:Q", scale=scale or alt.Undefined)})


@dataclass(frozen=True)
class Panel:
    """A plotting area in pixels, the ends of its y axis, and the boxes that its marks take up.

    A box: from and to which pixel of the x axis, from and to which value of the y axis.
    """

    width: int
    height: int
    domain: Sequence[float]
    boxes: list[Sequence[float]]

    def mark(self, x: Iterable[float], low: Iterable[float], high: Iterable[float]) -> None:
        """Take up the places of marks with intervals."""
        room = pixels(3, self.height, self.domain)
        self.boxes.extend(
            (at - 5, at + 5, bottom - room, top + room)
            for at, bottom, top in zip(x, low, high, strict=True)
        )

    def name(self, text: str, level: float, right: bool = False) -> Any:
        """The name of a line across the panel, beside it at an edge or where it hides least."""
        wide = 6.5 * len(text) + 6
        choices = []
        for down in (3, -15, 18, -30):  # pixels from the line to the top of its name
            top, bottom = (level - pixels(y, self.height, self.domain) for y in (down, down + 12))
            for along in (right, not right, 0.75, 0.5, 0.25):
                left = (self.width - wide) * along
                hidden = sum(
                    x0 < left + wide and x1 > left and low < top and high > bottom
                    for x0, x1, low, high in self.boxes
                )
                outside = bottom < self.domain[0] or top > self.domain[1]
                choices.append((hidden + 99 * outside, down, left, bottom, top))
        _, down, left, bottom, top = min(choices, key=lambda choice: choice[0])
        self.boxes.append((left, left + wide, bottom, top))
        words = alt.Chart(pd.DataFrame({"mean": [level], "_text": [text]})).mark_text(
            align="left", baseline="top", dx=3, dy=down, fontSize=12, color=QUIET
        )
        return words.encode(x=alt.value(left), y=alt.Y("mean:Q"), text=alt.Text("_text:N"))


def rule_lines(rules: pd.DataFrame, panel: Panel) -> list[Any]:
    """A thin line at each rule's accuracy, on the axis `mean`, and its name where there is room.

    Lines that have no room for a name between them are drawn as one, with all names.
    """
    ordered = rules.sort_values("accuracy", ascending=False, kind="stable")
    apart = -ordered["accuracy"].diff() >= pixels(14, panel.height, panel.domain)
    panel.boxes.extend((0, panel.width, level, level) for level in ordered["accuracy"])
    layers: list[Any] = []
    for _, group in ordered.groupby(apart.cumsum()):
        at = group["accuracy"].astype(float).tolist()
        lines = alt.Chart(pd.DataFrame({"mean": at})).mark_rule(
            color=QUIET, strokeWidth=1, strokeDash=[1, 2]
        )
        layers += [lines.encode(y=alt.Y("mean:Q")), panel.name(", ".join(group["rule"]), at[0])]
    return layers


def steps(values: Iterable[float], doublings: bool = True) -> dict[float, float]:
    """Where each x stands on an axis of doublings; 0, which has no logarithm, one step before.

    Without `doublings` the axis is linear, and the mean distance of the values is one step.
    """
    distinct = sorted(set(values))
    if not doublings:
        step_size = (distinct[-1] - distinct[0]) / max(1, len(distinct) - 1) or 1.0
        return {v: v / step_size for v in distinct}
    step = {v: float(np.log2(v)) for v in distinct if v > 0}
    return step | ({0: min(step.values()) - 1.0} if 0 in distinct else {})
