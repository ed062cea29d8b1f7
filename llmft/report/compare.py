"""Figures that set methods side by side: one domain against the other, accuracy against cost.

As in `figures`, intervals arrive as columns and Altair computes none.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from llmft.report import renderings, theme


@renderings.twice
def against(
    frame: pd.DataFrame, quantities: Sequence[str], *, names: Sequence[str] = (), note: str = ""
) -> Any:
    """A panel a quantity: out-of-domain (upwards) against in-domain (to the right), with intervals.

    `frame`: a row a method, number of examples and quantity, with the columns method, shots,
    quantity, and for both domains x, x_lo, x_hi (in-domain) and y, y_lo, y_hi; NaN intervals are
    left out. More shots have a larger mark; dashed lines lead from both axes to zero-shot; the grey
    diagonal is where both domains are equal. `names`: of all methods, where other figures beside
    this one have more.
    """
    names = names or theme.order(frame["method"])
    scale = alt.Scale(type="sqrt", domain=[0, float(frame["shots"].max())], range=[50, 190])
    charts: list[Any] = []
    for quantity in quantities:
        part = frame[frame["quantity"] == quantity]
        look = theme.look("method", names, None if charts else theme.legend(columns=3))
        look["size"] = alt.Size("shots:Q", scale=scale, legend=None)
        side = theme.PHONE if theme.phone() else 235
        chart = theme.sized(alt.layer(*_both_domains(part, look)), side, side)
        charts.append(theme.headed(chart, quantity))
    beside = 1 if theme.phone() else 2
    rows = [alt.hconcat(*charts[i : i + beside], spacing=30) for i in range(0, len(charts), beside)]
    return theme.finish(alt.vconcat(*rows, spacing=22), note, 600)


def _both_domains(part: pd.DataFrame, look: dict[str, Any]) -> list[Any]:
    """One quantity's panel: equal axes, the diagonal, lines to zero-shot, intervals, marks."""
    numbers = ["x", "x_lo", "x_hi", "y", "y_lo", "y_hi"]
    domain = theme.span(*(part[name] for name in numbers))
    scale, axis = theme.within(domain), alt.Axis(tickCount=5, labelOverlap="parity")
    x = alt.X("x:Q", title="in-domain", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="out-of-domain", scale=scale, axis=axis)
    same = alt.Chart(pd.DataFrame({"x": domain, "y": domain}))
    layers: list[Any] = [same.mark_line(color=theme.GREY, strokeWidth=1).encode(x=x, y=y)]
    point = part.loc[part["method"] == "zero-shot", ["x", "y"]]
    if len(point):
        at = alt.Chart(point.assign(x0=domain[0], y0=domain[0]))
        lines = at.mark_rule(color=theme.QUIET, strokeDash=[3, 3])
        layers.append(lines.encode(x=alt.X("x:Q"), y=alt.Y("y0:Q"), y2=alt.Y2("y:Q")))
        layers.append(lines.encode(x=alt.X("x0:Q"), x2=alt.X2("x:Q"), y=alt.Y("y:Q")))
    intervals = alt.Chart(part[[*numbers, "method"]].dropna())
    bars = intervals.mark_rule(strokeWidth=1, opacity=0.55, aria=False)
    layers.append(
        bars.encode(x=alt.X("x_lo:Q"), x2=alt.X2("x_hi:Q"), y=alt.Y("y:Q"), color=look["color"])
    )
    layers.append(
        bars.encode(x=alt.X("x:Q"), y=alt.Y("y_lo:Q"), y2=alt.Y2("y_hi:Q"), color=look["color"])
    )
    points = alt.Chart(part[["x", "y", "method", "shots"]]).mark_point(
        filled=True, opacity=0.9, stroke="white", strokeWidth=0.7
    )
    return [*layers, points.encode(x=x, y=y, **look)]


@renderings.twice
def frontier(
    frame: pd.DataFrame,
    x: str,
    series: str,
    *,
    x_title: str,
    columns: Sequence[str],
    rules: pd.DataFrame,
    names: Sequence[str],
    y_domain: Sequence[float] | None = None,
    note: str = "",
) -> Any:
    """Accuracy against a cost on a logarithmic axis, and the steps of what is best for its cost.

    `frame`: a row a method and number of examples, with mean, lo, hi; `columns`: further ones in
    the marks' data, for `interactive.figure` to show; `rules`: what needs no model, as in
    `figures.curve`; `names`: as in `against`; `y_domain`: the ends of the accuracies' axis, by
    default those of the points and rules. The grey steps join the points that are above every
    cheaper one (`pareto`).
    """
    width, height = theme.PHONE if theme.phone() else 560, 330
    domain = y_domain or theme.span(frame["mean"], frame["lo"], frame["hi"], rules["accuracy"])
    ends = float(frame[x].min()) / 1.5, float(frame[x].max()) * 1.5
    scale = alt.Scale(type="log", domain=list(ends), nice=False)
    axis = alt.Axis(format="~s", labelOverlap="greedy", labelSeparation=8)
    at: dict[str, Any] = {
        "x": alt.X(f"{x}:Q", title=theme.lines(x_title, width), scale=scale, axis=axis),
        "y": alt.Y("mean:Q", title="accuracy", scale=theme.within(domain)),
    }
    best = pareto(frame, x, "mean")[[x, "mean"]]
    end = pd.DataFrame({x: [ends[1]], "mean": [best["mean"].max()]})
    steps = alt.Chart(pd.concat([best, end], ignore_index=True)).mark_line(
        interpolate="step-after", color=theme.GREY, strokeWidth=5, opacity=0.35
    )
    look = theme.look(series, names, theme.legend(columns=3))
    bars = alt.Chart(frame[[x, "lo", "hi", series]].dropna())
    points = alt.Chart(frame[list(dict.fromkeys([x, "mean", series, *columns]))]).mark_point(
        filled=True, size=90, opacity=0.95, stroke="white", strokeWidth=0.8
    )
    panel = _panel(width, height, domain, frame, x, ends)
    chart = alt.layer(
        *theme.rule_lines(rules, panel),
        steps.encode(**at),
        bars.mark_rule(strokeWidth=1.2, opacity=0.6).encode(
            x=at["x"], y=alt.Y("lo:Q"), y2=alt.Y2("hi:Q"), color=look["color"]
        ),
        points.encode(**at, **look),
    )
    return theme.finish(theme.having(chart, width=width, height=height), note, 620)


@renderings.twice
def forgetting(frame: pd.DataFrame, *, start: float, rules: pd.DataFrame, note: str = "") -> Any:
    """Accuracy against perplexity (logarithmic): each method without and with the text term.

    `frame`: a row a `method` and `term` ("without", "with"), with the accuracy as mean, lo, hi and
    the perplexity as mean_text, lo_text, hi_text; NaN intervals are left out. A hollow mark is
    without, a full one with, and a line joins them. `start`: the perplexity before training.
    `rules`: what needs no language model, as in `figures.curve`.
    """
    names, width, height = theme.order(frame["method"]), theme.PHONE if theme.phone() else 560, 300
    ends = _perplexities(frame[["mean_text", "lo_text", "hi_text"]], start)
    scale, axis = alt.Scale(type="log", domain=ends, nice=False), alt.Axis(format="~s", tickCount=6)
    x = alt.X("mean_text:Q", title="perplexity of plain sentences", scale=scale, axis=axis)
    domain = theme.span(frame["mean"], frame["lo"], frame["hi"], rules["accuracy"])
    y = alt.Y("mean:Q", title="in-domain accuracy", scale=theme.within(domain))
    look = theme.look("method", names, theme.legend())
    colour = look["color"]
    lines = alt.Chart(frame[["mean_text", "mean", "method"]]).mark_line(strokeWidth=1.6)
    numbers = ["mean_text", "lo_text", "hi_text", "mean", "lo", "hi"]
    bars = alt.Chart(frame[[*numbers, "method"]].dropna()).mark_rule(strokeWidth=1, opacity=0.6)
    layers: list[Any] = [
        theme.chance(start, "mean_text", "x", scale),
        *theme.rule_lines(rules, _panel(width, height, domain, frame, "mean_text", ends)),
        lines.encode(x=x, y=y, color=colour),
        bars.encode(x=x, y=alt.Y("lo:Q"), y2=alt.Y2("hi:Q"), color=colour),
        bars.encode(x=alt.X("lo_text:Q"), x2=alt.X2("hi_text:Q"), y=y, color=colour),
    ]
    fills: dict[str, Any] = {
        "without": {"filled": False, "fill": "white"},
        "with": {"filled": True},
    }
    for value, fill in fills.items():
        rows = frame.loc[frame["term"] == value, ["mean_text", "mean", "method"]]
        points = alt.Chart(rows).mark_point(size=110, opacity=1, strokeWidth=2, **fill)
        layers.append(points.encode(x=x, y=y, **look))
    return theme.finish(theme.having(alt.layer(*layers), width=width, height=height), note, 620)


def _panel(
    width: int, height: int, domain: Sequence[float], frame: pd.DataFrame, x: str, ends: Any
) -> theme.Panel:
    """The panel of the frame's marks, on an x axis that is logarithmic between its ends."""
    panel = theme.Panel(width, height, domain, [])
    at = np.log(frame[x] / ends[0]) / np.log(ends[1] / ends[0]) * width
    panel.mark(at, frame["lo"].fillna(frame["mean"]), frame["hi"].fillna(frame["mean"]))
    return panel


def _perplexities(values: Any, start: float) -> list[float]:
    """The ends of the logarithmic axis of perplexities and the one before training."""
    low, high = min(np.nanmin(values), start), max(np.nanmax(values), start)
    return [low / 1.3, high * 1.3]


def tradeoff(frame: pd.DataFrame, *, names: Sequence[str], start: float, note: str = "") -> Any:
    """Accuracy against perplexity (logarithmic), a panel a method, its points joined in order.

    `frame`: a row a `method` and learning rate, the lowest rate first, with the accuracy as mean,
    lo, hi, the `perplexity` with lo_text, hi_text, and whether the rate is the `chosen` one, whose
    mark is full; NaN intervals are left out. The line of "full" is grey in every panel. `start`:
    the perplexity before training, dashed.
    """
    ends = _perplexities(frame[["perplexity", "lo_text", "hi_text"]], start)
    scale = alt.Scale(type="log", domain=ends, nice=False)
    axis = alt.Axis(format="~s", tickCount=4)
    columns, width = (2, 132) if theme.phone() else (3, 165)
    y_scale = theme.within(theme.span(frame["mean"], frame["lo"], frame["hi"]))
    charts = []
    looks = theme.looks([str(name).partition(" + ")[0] for name in names])  # as without an addition
    for number, (name, look) in enumerate(zip(names, looks, strict=True)):
        x_title = theme.lines("perplexity of plain sentences", width + 20)
        x_title = x_title if number >= len(names) - columns else None
        at: dict[str, Any] = {
            "x": alt.X("perplexity:Q", title=x_title, scale=scale, axis=axis),
            "y": alt.Y("mean:Q", title=None if number % columns else "accuracy", scale=y_scale),
            "order": alt.Order("_order:Q"),
        }
        own, other = (
            part.assign(_order=range(len(part)))
            for part in (frame[frame["method"] == which] for which in (name, "full"))
        )
        line = alt.Chart(own[["perplexity", "mean", "_order"]])
        marks: dict[str, Any] = {"size": 60, "opacity": 1, "strokeWidth": 1.6, "shape": look[1]}
        numbers = ["perplexity", "lo_text", "hi_text", "mean", "lo", "hi"]
        bars = alt.Chart(own[numbers].dropna()).mark_rule(
            strokeWidth=1.2, color=look[0], opacity=0.6
        )
        layers: list[Any] = [
            theme.chance(start, "perplexity", "x", scale),
            alt.Chart(other[["perplexity", "mean", "_order"]])
            .mark_line(color=theme.GREY, strokeWidth=3, opacity=0.5)
            .encode(**at),
            line.mark_line(color=look[0], strokeWidth=1.6).encode(**at),
            bars.encode(x=at["x"], y=alt.Y("lo:Q"), y2=alt.Y2("hi:Q")),
            bars.encode(x=alt.X("lo_text:Q"), x2=alt.X2("hi_text:Q"), y=at["y"]),
        ]
        for is_chosen, fill in ((False, "white"), (True, look[0])):
            rows = own.loc[own["chosen"] == is_chosen, ["perplexity", "mean"]]
            points = alt.Chart(rows).mark_point(fill=fill, stroke=look[0], **marks)
            layers.append(points.encode(x=at["x"], y=at["y"]))
        chart = theme.having(alt.layer(*layers), width=width, height=140)
        charts.append(theme.headed(chart, name))
    return theme.finish(alt.concat(*charts, columns=columns, spacing=16), note, 620)


def pareto(frame: pd.DataFrame, cost: str, gain: str) -> pd.DataFrame:
    """The rows that have more gain than every row of the same or a lower cost, cheapest first."""
    rows = frame.sort_values([cost, gain], ascending=[True, False], kind="stable")
    best_cheaper = rows[gain].cummax().shift(fill_value=-np.inf)
    return rows[rows[gain] > best_cheaper].reset_index(drop=True)
