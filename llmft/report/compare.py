"""Figures that set methods side by side: one domain against the other, accuracy against cost.

As in `figures`, intervals arrive as columns and Altair computes none.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from llmft.report import theme


def against(
    frame: pd.DataFrame,
    series: str,
    quantities: Sequence[str],
    *,
    names: Sequence[str] = (),
    size: str = "",
    highlight: str = "",
    note: str = "",
    side: int = 235,
) -> Any:
    """A panel a quantity: out-of-domain (upwards) against in-domain (to the right), with intervals.

    `frame`: a row a method, number of examples and quantity, with the columns `quantity`, `series`
    and for both domains x, x_lo, x_hi (in-domain) and y, y_lo, y_hi; NaN intervals are left out.
    `names`: of all series, where other figures beside this one have more. `size`: a column of
    numbers, larger marks for larger ones. Dashed lines lead from both axes to
    the point of the series `highlight`. The grey diagonal is where both domains are equal.
    """
    names = names or theme.order(frame[series])
    legend = theme.legend()
    legend.columns = 3
    panels = []
    for number, quantity in enumerate(quantities):
        part = frame[frame["quantity"] == quantity].reset_index(drop=True)
        own_legend = legend if number == 0 else None
        encoding: dict[str, Any] = {
            "color": theme.colour(series, names, own_legend),
            "shape": theme.shape(series, names, own_legend),
        }
        if size:
            scale = alt.Scale(type="sqrt", domain=[0, float(frame[size].max())], range=[30, 190])
            encoding["size"] = alt.Size(f"{size}:Q", scale=scale, legend=None)
        marks = alt.Chart(part[["x", "y", series, *([size] if size else [])]])
        chart = _panel(part, marks, encoding, series, highlight)
        title = theme.panel_title(quantity)
        panels.append(chart.properties(width=side, height=side, title=title))
    rows = [alt.hconcat(*panels[i : i + 2], spacing=30) for i in range(0, len(panels), 2)]
    return theme.finish(alt.vconcat(*rows, spacing=22), note, 600)


def _panel(
    part: pd.DataFrame, marks: Any, encoding: dict[str, Any], series: str, highlight: str
) -> Any:
    """One quantity's panel: equal axes, the diagonal, intervals, marks, lines to the highlight."""
    domain = theme.span(part, ["x", "x_lo", "x_hi", "y", "y_lo", "y_hi"], [])
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    x = alt.X("x:Q", title="in-domain", scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", title="out-of-domain", scale=scale, axis=alt.Axis(tickCount=5))
    same = alt.Chart(pd.DataFrame({"x": domain, "y": domain}))
    layers: list[Any] = [same.mark_line(color="#8c959f", strokeWidth=1).encode(x=x, y=y)]
    point = part[part[series] == highlight]
    if len(point):
        style: Any = {"color": theme.QUIET, "strokeDash": [3, 3]}
        at = pd.DataFrame({"x": point["x"], "y": point["y"], "x0": domain[0], "y0": domain[0]})
        lines = alt.Chart(at)
        layers.append(lines.mark_rule(**style).encode(x="x:Q", y="y0:Q", y2="y:Q"))
        layers.append(lines.mark_rule(**style).encode(x="x0:Q", x2="x:Q", y="y:Q"))
    colour = encoding["color"]
    bars = alt.Chart(part[["x", "y", "x_lo", "x_hi", "y_lo", "y_hi", series]].dropna())
    thin: Any = {"strokeWidth": 1, "opacity": 0.55}
    layers.append(bars.mark_rule(**thin).encode(x="x_lo:Q", x2="x_hi:Q", y="y:Q", color=colour))
    layers.append(bars.mark_rule(**thin).encode(x="x:Q", y="y_lo:Q", y2="y_hi:Q", color=colour))
    points = marks.mark_point(filled=True, opacity=0.9, stroke="white", strokeWidth=0.7)
    return alt.layer(*layers, points.encode(x=x, y=y, **encoding))


def frontier(
    frame: pd.DataFrame,
    x: str,
    series: str,
    *,
    y: str = "mean",
    lo: str = "lo",
    hi: str = "hi",
    x_title: str = "",
    y_title: str = "accuracy",
    columns: Sequence[str] = (),
    rules: pd.DataFrame,
    names: Sequence[str] = (),
    note: str = "",
    width: int = 560,
    height: int = 330,
) -> Any:
    """Accuracy against a cost on a logarithmic axis, and the steps of what is best for its cost.

    `frame`: a row a method and number of examples; `columns`: further ones in the marks' data, for
    `interactive.figure` to show; `rules`: what needs no model, as in `figures.curve`; `names` as in
    `against`. The grey steps join the points that are above every cheaper one (`pareto`).
    """
    names = names or theme.order(frame[series])
    domain = theme.span(frame, [y, lo, hi], rules["accuracy"])
    ends = float(frame[x].min()) / 1.5, float(frame[x].max()) * 1.5
    scale = alt.Scale(type="log", domain=list(ends), nice=False)
    at: dict[str, Any] = {
        "x": alt.X(f"{x}:Q", title=x_title or x, scale=scale, axis=alt.Axis(format="~s")),
        "y": alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(domain=domain, zero=False, nice=False)),
    }
    best = pareto(frame, x, y)
    steps = pd.concat(
        [best[[x, y]], pd.DataFrame({x: [ends[1]], y: [best[y].max()]})], ignore_index=True
    )
    legend = theme.legend()
    legend.columns = 3
    colour = theme.colour(series, names, legend)
    line = alt.Chart(steps).mark_line(
        interpolate="step-after", color="#8c959f", strokeWidth=5, opacity=0.35
    )
    bars = alt.Chart(frame[[x, lo, hi, series]].dropna()).mark_rule(strokeWidth=1.2, opacity=0.6)
    points = alt.Chart(frame[list(dict.fromkeys([x, y, series, *columns]))]).mark_point(
        filled=True, size=90, opacity=0.95, stroke="white", strokeWidth=0.8
    )
    chart = alt.layer(
        *theme.rule_lines(rules, y, None, 14 / height * (domain[1] - domain[0])),
        line.encode(**at),
        bars.encode(x=at["x"], y=f"{lo}:Q", y2=f"{hi}:Q", color=colour),
        points.encode(
            **at,
            color=colour,
            shape=theme.shape(series, names, legend),
        ),
    ).properties(width=width, height=height)
    return theme.finish(chart, note, width + 60)


def forgetting(
    frame: pd.DataFrame,
    series: str,
    term: str,
    *,
    start: float,
    note: str = "",
    width: int = 560,
    height: int = 300,
) -> Any:
    """Accuracy against perplexity (logarithmic): each series without and with the text term.

    `frame`: a row a series and value of `term` ("without", "with"), with the accuracy as mean, lo,
    hi and the perplexity as mean_text, lo_text, hi_text; NaN intervals are left out. A hollow mark
    is without, a full one with, and a line joins them. `start`: the perplexity before training.
    """
    names = theme.order(frame[series])
    frame = frame.reset_index(drop=True)
    domain = theme.span(frame, ["mean", "lo", "hi"], [])
    extent = [*frame["mean_text"], *frame["lo_text"].dropna(), *frame["hi_text"].dropna(), start]
    scale = alt.Scale(type="log", domain=[min(extent) / 1.3, max(extent) * 1.3], nice=False)
    x = alt.X(
        "mean_text:Q",
        title="perplexity of plain sentences",
        scale=scale,
        axis=alt.Axis(format="~s", tickCount=6),
    )
    y = alt.Y(
        "mean:Q", title="in-domain accuracy", scale=alt.Scale(domain=domain, zero=False, nice=False)
    )
    legend = theme.legend()
    colour = theme.colour(series, names, legend)
    shape = theme.shape(series, names, legend)
    numbers = ["mean_text", "lo_text", "hi_text", "mean", "lo", "hi"]
    bars = alt.Chart(frame[[*numbers, series]].dropna())
    thin: Any = {"strokeWidth": 1, "opacity": 0.6}
    layers: list[Any] = [
        theme.chance(start, "mean_text", "x", scale),
        alt.Chart(frame[["mean_text", "mean", series]])
        .mark_line(strokeWidth=1.6)
        .encode(x=x, y=y, color=colour),
        bars.mark_rule(**thin).encode(x=x, y="lo:Q", y2="hi:Q", color=colour),
        bars.mark_rule(**thin).encode(x="lo_text:Q", x2="hi_text:Q", y=y, color=colour),
    ]
    for value, filled in (("without", False), ("with", True)):
        rows = frame.loc[frame[term] == value, ["mean_text", "mean", series]]
        marks: Any = {"size": 110, "opacity": 1, "strokeWidth": 2}
        marks |= {"filled": filled} if filled else {"filled": False, "fill": "white"}
        points = alt.Chart(rows).mark_point(**marks)
        layers.append(points.encode(x=x, y=y, color=colour, shape=shape))
    chart = alt.layer(*layers).properties(width=width, height=height)
    return theme.finish(chart, note, width + 60)


def pareto(frame: pd.DataFrame, cost: str, gain: str) -> pd.DataFrame:
    """The rows that have more gain than every row of the same or a lower cost, cheapest first."""
    rows = frame.sort_values([cost, gain], ascending=[True, False], kind="stable")
    best_cheaper = rows[gain].cummax().shift(fill_value=-np.inf)
    return rows[rows[gain] > best_cheaper].reset_index(drop=True)
