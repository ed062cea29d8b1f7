"""One look for all figures: colours, shapes, type, and the parts that figures are built from.

The Okabe-Ito colours (told apart with every common colour blindness) with a shape and a dash beside
each, no text below 12 px, a white card that reads on a light page and on a dark one. Importing this
enables the theme and static SVG output, which needs no script and no network to be read.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd


COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
"""Okabe & Ito (2008), the two with the most contrast on white first, yellow left out."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right"]
DASHES: list[list[int]] = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [10, 3], [1, 3]]
INK, QUIET, FAINT = "#1f2328", "#57606a", "#e4e7eb"
FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
WIDTH, HEIGHT = 520, 300  # of the plotting area, px; with axes and end labels a page's 700


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
        "domainColor": "#8c959f",
        "tickColor": "#8c959f",
        "gridColor": FAINT,
    }
    return {
        "config": {
            "background": "#ffffff",
            "padding": 14,
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
            "range": {"category": COLOURS, "symbol": SHAPES},
        }
    }


alt.renderers.enable("svg")


def order(values: pd.Series) -> list[Any]:
    """The distinct values in the frame's order, not the alphabet's."""
    return list(dict.fromkeys(values))


def legend() -> alt.Legend:
    """A legend above the figure, for series that no line's end can name."""
    return alt.Legend(orient="top", title=None, symbolSize=90, labelFontSize=13, columnPadding=18)


def colour(series: str, names: Sequence[Any], legend: alt.Legend | None = None) -> alt.Color:
    """The series' colours, in the order of `names`; no legend unless one is given."""
    scale = alt.Scale(domain=list(names), range=[COLOURS[i % 7] for i in range(len(names))])
    return alt.Color(f"{series}:N", scale=scale, legend=legend)


def shape(series: str, names: Sequence[Any], legend: alt.Legend | None = None) -> alt.Shape:
    """The series' point shapes, in the order of `names`, to go with `colour`."""
    scale = alt.Scale(domain=list(names), range=[SHAPES[i % 7] for i in range(len(names))])
    return alt.Shape(f"{series}:N", scale=scale, legend=legend)


def dash(series: str, names: Sequence[Any]) -> alt.StrokeDash:
    """The series' line dashes, in the order of `names`, to go with `colour`."""
    scale = alt.Scale(domain=list(names), range=[DASHES[i % 7] for i in range(len(names))])
    return alt.StrokeDash(f"{series}:N", scale=scale, legend=None)


def span(frame: pd.DataFrame, columns: Iterable[str], extra: Iterable[float]) -> list[float]:
    """A round range that holds every finite value of the columns; shares stay within 0 and 1."""
    values = [frame[c].to_numpy(dtype=float) for c in columns if c in frame]
    numbers = np.concatenate([*values, np.array(list(extra), dtype=float)])
    numbers = numbers[np.isfinite(numbers)]
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    room = 0.03 * (high - low or 1.0)
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1e9) if high - low <= 10 * s)
    step = step if step < 1e9 else 10 ** np.floor(np.log10(high - low))
    ends = step * np.floor((low - room) / step), step * np.ceil((high + room) / step)
    return [
        float(max(ends[0], 0.0) if low >= 0 else ends[0]),
        float(min(ends[1], 1.0) if high <= 1 else ends[1]),
    ]


def spread(targets: Sequence[float], gap: float) -> list[float]:
    """Heights as near as possible to the targets and at least `gap` apart, in the same order.

    As in isotonic regression: neighbours that would overlap become one block, centred on the mean
    of its members' targets.
    """
    order = np.argsort(targets, kind="stable")
    blocks: list[list[float]] = []  # each: where its members would have the block begin
    for rank in order:
        blocks.append([targets[rank]])
        while len(blocks) > 1:
            below, above = blocks[-2], blocks[-1]
            if np.mean(below) + gap * len(below) <= np.mean(above):
                break
            blocks[-2:] = [below + [begin - gap * len(below) for begin in above]]
    heights = [float(np.mean(block)) + gap * i for block in blocks for i in range(len(block))]
    spread_heights = [0.0] * len(targets)
    for rank, height in zip(order, heights, strict=True):
        spread_heights[rank] = height
    return spread_heights


def wrap(note: str, width: int) -> list[str]:
    """The note in lines that fit `width` pixels (about 6.1 a letter at 12 px)."""
    lines, letters = [""], int(width / 6.1)
    for word in note.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def finish(chart: Any, note: str, width: int) -> Any:
    """The chart with its note (which intervals, what n) as small print under it."""
    return chart.properties(title=alt.Title(wrap(note, width))) if note else chart


def chance(at: float, field: str, channel: str, scale: alt.Scale | None = None) -> Any:
    """The dashed line at chance, on the axis of the other layers unless it has a `scale`."""
    line = alt.Chart(pd.DataFrame({field: [at]})).mark_rule(color="#8c959f", strokeDash=[4, 4])
    position: Any = alt.X if channel == "x" else alt.Y
    options: dict[str, Any] = {"scale": scale} if scale is not None else {}
    return line.encode(**{channel: position(f"{field}:Q", **options)})


def rule_lines(rules: pd.DataFrame, field: str, edge: float | None, gap: float) -> list[Any]:
    """A thin line at each rule's accuracy, its name just below it at the left edge.

    `edge`: the left edge on the axis `_x`; None for a chart with another axis. Lines nearer to each
    other than `gap` are drawn as one, with all their names.
    """
    groups: list[pd.DataFrame] = []
    for _, rule in rules.sort_values("accuracy", ascending=False, kind="stable").iterrows():
        if groups and groups[-1]["accuracy"].iloc[-1] - rule["accuracy"] < gap:
            groups[-1].loc[len(groups[-1])] = rule
        else:
            groups.append(rule.to_frame().T.reset_index(drop=True))
    layers: list[Any] = []
    for group in groups:
        at = group["accuracy"].astype(float).tolist()
        base = alt.Chart(pd.DataFrame({field: at}))
        layers.append(
            base.mark_rule(color=QUIET, strokeWidth=1, strokeDash=[1, 2]).encode(y=f"{field}:Q")
        )
        name = pd.DataFrame({"_x": [edge], field: [at[0]], "_text": [", ".join(group["rule"])]})
        text: dict[str, Any] = {"align": "left", "baseline": "top", "dx": 3, "dy": 3}
        word = alt.Chart(name).mark_text(**text, fontSize=12, color=QUIET)
        place: Any = alt.value(0) if edge is None else "_x:Q"
        layers.append(word.encode(x=place, y=f"{field}:Q", text="_text:N"))
    return layers


def steps(values: Iterable[float], doublings: bool = True) -> dict[float, float]:
    """Where each x stands on an axis of doublings; 0, which has no logarithm, one step before.

    Without `doublings` the axis is linear, and the mean distance of the values is one step.
    """
    distinct = sorted(set(values))
    if not doublings:
        step_size = (distinct[-1] - distinct[0]) / max(1, len(distinct) - 1) or 1.0
        return {v: v / step_size for v in distinct}
    positive = [v for v in distinct if v > 0]
    if any(v < 0 for v in distinct) or not positive:
        raise ValueError(f"no axis of doublings for {distinct}")
    step = {v: float(np.log2(v)) for v in positive}
    return step | ({0: step[positive[0]] - 1.0} if 0 in distinct else {})


def panel_title(value: Any) -> alt.Title:
    """The heading of one panel of several, above it on the left."""
    return alt.Title(
        str(value),
        orient="top",
        fontSize=14,
        fontWeight="bold",
        color=INK,
        anchor="start",
        frame="group",  # over the plotting area, so that all panels' headings stand at one height
        offset=8,
    )
