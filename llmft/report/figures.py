"""Figures of the book, drawn from frames whose intervals are already computed.

Series are named where their line ends instead of in a legend, chance is a dashed line, and a note
under the figure says which intervals are drawn. They arrive as columns (mean, lo, hi from
`stats.summary`): Altair computes none, so a figure cannot disagree with its table. Tables and
numbers in prose are `table` and `say`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from llmft.report import stats, theme
from llmft.report.tables import markdown, say, table, with_interval
from llmft.report.theme import HEIGHT, WIDTH


__all__ = [
    "bars",
    "curve",
    "dots",
    "forest",
    "heat",
    "lines",
    "markdown",
    "panels",
    "reliability",
    "say",
    "scatter",
    "stacked",
    "table",
    "with_interval",
]


def curve(
    frame: pd.DataFrame,
    x: str,
    series: str,
    *,
    facet: str = "",
    y: str = "mean",
    lo: str = "lo",
    hi: str = "hi",
    draws: pd.DataFrame | None = None,
    draws_y: str = "mean",
    x_title: str = "demonstrations",
    y_title: str = "accuracy",
    chance: float | None = 0.5,
    chance_name: str = "chance",
    rules: pd.DataFrame | None = None,
    y_domain: Sequence[float] | None = None,
    doublings: bool = True,
    note: str = "",
    width: int = 0,
    height: int = HEIGHT,
) -> Any:
    """Points with intervals along an axis of doublings, one line a series, named at its end.

    With `doublings` false the axis is linear: updates, rounds.

    `frame`: a row a point, columns x (0 allowed: it stands apart, joined by no line), series, and
    y, lo, hi as `stats.summary` makes them. `draws`: every single draw (x, series, `draws_y`) as
    faint dots behind. `facet`: one panel a value, up to three side by side and more in twos, on the
    same axes. Series are drawn
    in the order in which the frame first shows them. NaN intervals are left out, their points not.
    `chance`, called `chance_name`, is a dashed line; None draws none. `rules`: what needs no model,
    a row a line with the columns rule (its name), accuracy (its height) and, where there are
    panels, `facet`; a thin line with its name on it.
    """
    frame = frame.reset_index(drop=True)
    names, values = theme.order(frame[series]), theme.order(frame[facet]) if facet else [None]
    ends_room = 8 * max(len(str(name)) for name in [*names, chance_name]) + 12
    columns = len(values) if len(values) <= 3 else 2
    width = width or (WIDTH if not facet else (600 - ends_room) // columns)
    step = theme.steps(frame[x], doublings)
    # Neighbouring series stand a few pixels apart, so that no interval hides another.
    pixel = (max(step.values()) - min(step.values()) + 0.55) / width
    dodge = min(8.0, 16 / len(names)) * pixel
    shift = {name: dodge * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}

    def place(rows: pd.DataFrame) -> pd.Series:
        return rows[x].map(step).astype(float) + rows[series].map(shift).astype(float)

    data = frame.assign(_x=place(frame), _zero=(frame[x] == 0) & doublings)
    extra = [] if chance is None else [chance]
    others = [] if draws is None else draws[draws_y].astype(float).tolist()
    others += [] if rules is None else rules["accuracy"].astype(float).tolist()
    domain = list(y_domain) if y_domain else theme.span(frame, [y, lo, hi], [*extra, *others])
    # Vega writes a real minus: 0 stands at -1 where the axis begins with 1.
    labels = {f"{v:.6f}".replace("-", "−"): f"{k:,.0f}" for k, v in step.items()}
    last = max(step.values())
    x_axis = alt.Axis(
        values=sorted(step.values()),
        labelExpr=f"{labels!r}[format(datum.value, '.6f')]",
        title=x_title,
        tickSize=4,
    )
    x_scale = alt.Scale(domain=[min(step.values()) - 0.35, last + 0.2], nice=False, zero=False)
    y_scale = alt.Scale(domain=domain, nice=False, zero=False)
    colour = theme.colour(series, names)

    def panel(number: int, value: Any) -> Any:
        first = number % columns == 0
        # Flush: a label that stands out at the top would lift this panel's heading alone.
        y_axis = alt.Axis(title=y_title if first else None, labels=first, labelFlush=bool(facet))
        at = {
            "x": alt.X("_x:Q", axis=x_axis, scale=x_scale),
            "y": alt.Y(f"{y}:Q", axis=y_axis, scale=y_scale),
        }
        rows = data if value is None else data[data[facet] == value]
        layers: list[alt.Chart] = []
        if chance is not None:
            layers.append(theme.chance(chance, y, "y"))
        if rules is not None:
            here = rules if value is None else rules[rules[facet] == value]
            layers += theme.ruled(here, y, x_scale.domain[0], 14 / height * (domain[1] - domain[0]))
        if draws is not None:
            faint = draws if value is None else draws[draws[facet] == value]
            faint = faint.assign(_x=place(faint))
            layers.append(
                alt.Chart(faint[["_x", series, draws_y]])
                .mark_point(filled=True, size=16, opacity=0.28)
                .encode(x="_x:Q", y=f"{draws_y}:Q", color=colour, shape=theme.shape(series, names))
            )
        base = alt.Chart(rows[[c for c in ("_x", series, y, lo, hi, "_zero") if c in rows]])
        drawn = rows[~rows["_zero"]]
        layers.append(
            alt.Chart(drawn[["_x", series, y]])
            .mark_line(strokeWidth=2)
            .encode(**at, color=colour, strokeDash=theme.dash(series, names), detail=f"{series}:N")
        )
        if lo in rows and hi in rows:
            bars = alt.Chart(rows[["_x", series, lo, hi]].dropna())
            layers.append(
                bars.mark_rule(strokeWidth=1.6).encode(
                    x="_x:Q", y=f"{lo}:Q", y2=f"{hi}:Q", color=colour
                )
            )
        layers.append(
            base.mark_point(
                filled=True, size=70, opacity=1, stroke="white", strokeWidth=0.8
            ).encode(**at, color=colour, shape=theme.shape(series, names))
        )
        # Only a row's last panel names the series: the order and the colours are the same in all.
        if number % columns == columns - 1 or number == len(values) - 1:
            ends = rows.sort_values("_x").groupby(series, sort=False).tail(1)
            named = list(ends[series]) if len(names) > 1 else []
            wished = ends[y].tolist() if len(names) > 1 else []
            gap = 16 / height * (domain[1] - domain[0])
            heights = theme.spread([*wished, *extra], gap)
            for name, at_y in zip([*named, chance_name], heights, strict=False):
                ink = theme.COLOURS[names.index(name) % 7] if name in named else theme.QUIET
                weight: Any = "bold" if name in named else "normal"
                layers.append(
                    alt.Chart(pd.DataFrame({"_x": [last + 0.2], y: [at_y], "_text": [str(name)]}))
                    .mark_text(align="left", dx=8, fontSize=13, fontWeight=weight, color=ink)
                    .encode(x="_x:Q", y=f"{y}:Q", text="_text:N")
                )
        shown = alt.layer(*layers).properties(width=width, height=height)
        return shown if value is None else shown.properties(title=theme.panel_title(value))

    if not facet:
        return theme.finish(panel(0, None), note, width + ends_room)
    joined = alt.concat(*[panel(*at) for at in enumerate(values)], columns=columns, spacing=26)
    return theme.finish(joined, note, 640)


def panels(
    frame: pd.DataFrame,
    by: str,
    draw: Callable[[pd.DataFrame, str], Any],
    *,
    note: str = "",
    columns: int = 1,
) -> Any:
    """`draw(part, note)` for each value of the column `by`, which heads its panel.

    The note stands under all of them. Where `by` is "", it is `draw(frame, note)`.
    """
    if not by:
        return draw(frame, note)
    drawn = [
        draw(frame[frame[by] == value], "").properties(title=theme.panel_title(value))
        for value in theme.order(frame[by])
    ]
    return theme.finish(alt.concat(*drawn, columns=columns, spacing=26), note, 640)


def scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    facet: str = "",
    x_title: str = "",
    y_title: str = "accuracy",
    note: str = "",
    height: int = 220,
) -> Any:
    """A dot a row, and the line of least squares through each panel's: does x go with y?

    `facet`: one panel a value, up to three side by side and more in twos, on the same axes.
    """
    values = theme.order(frame[facet]) if facet else [None]
    columns = len(values) if len(values) <= 3 else 2
    width = WIDTH if not facet else 600 // columns - 20
    # Room inside the axes: a draw at an end is not cut.
    scales = [
        alt.Scale(domain=theme.span(frame, [c], []), nice=False, zero=False, padding=8)
        for c in (x, y)
    ]
    drawn = []
    for number, value in enumerate(values):
        rows = frame if value is None else frame[frame[facet] == value]
        base = alt.Chart(rows[[x, y]].reset_index(drop=True))
        first = number % columns == 0
        at: dict[str, Any] = {
            "x": alt.X(f"{x}:Q", title=x_title or x, scale=scales[0], axis=alt.Axis(tickCount=4)),
            "y": alt.Y(f"{y}:Q", title=y_title if first else None, scale=scales[1]),
        }
        layers: list[Any] = []
        if np.ptp(rows[x].to_numpy(float)) > 0:
            slope, level = np.polyfit(rows[x].to_numpy(float), rows[y].to_numpy(float), 1)
            ends = np.array([rows[x].min(), rows[x].max()], dtype=float)
            fitted = alt.Chart(pd.DataFrame({x: ends, y: level + slope * ends}))
            layers.append(
                fitted.mark_line(color=theme.QUIET, strokeWidth=1.5, clip=True).encode(**at)
            )
        points = base.mark_point(filled=True, size=60, opacity=0.75, color=theme.COLOURS[0])
        layers.append(points.encode(**at))
        chart = alt.layer(*layers).properties(width=width, height=height)
        drawn.append(chart if value is None else chart.properties(title=theme.panel_title(value)))
    return theme.finish(alt.concat(*drawn, columns=columns, spacing=26), note, 640)


def lines(
    frame: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    *,
    x_title: str = "",
    y_title: str = "",
    chance: float | None = 0.5,
    marks: pd.Series | None = None,
    note: str = "",
    height: int = HEIGHT,
) -> Any:
    """Curves over a linear axis (tokens, steps), each named at its end: training curves.

    `marks`: x positions with a name each (the index), such as the ends of a curriculum's phases;
    drawn as thin vertical lines, the name before its line.
    """
    names = theme.order(frame[series])
    extra = [] if chance is None else [chance]
    domain = theme.span(frame, [y], extra)
    width = 700 - 70 - 8 * max(len(str(name)) for name in names) - 12
    last = float(frame[x].max())
    ends = frame.sort_values(x).groupby(series, sort=False).tail(1)
    heights = theme.spread(ends[y].tolist(), 16 / height * (domain[1] - domain[0]))
    at: dict[str, Any] = {
        "x": alt.X(f"{x}:Q", title=x_title or x, scale=alt.Scale(domain=[0, last], nice=False)),
        "y": alt.Y(f"{y}:Q", title=y_title or y, scale=alt.Scale(domain=domain, zero=False)),
    }
    layers: list[Any] = [] if chance is None else [theme.chance(chance, y, "y")]
    if marks is not None:
        begins = [0.0, *marks.tolist()[:-1]]
        spans = pd.DataFrame({x: marks.to_numpy(), "_text": marks.index.astype(str)})
        spans["_middle"] = (spans[x] + begins) / 2
        spans["_row"] = np.where(np.arange(len(spans)) % 2, 0.0, 1.0)  # short phases: two heights
        base = alt.Chart(spans)
        layers.append(base.mark_rule(color=theme.FAINT, strokeWidth=1.5).encode(x=f"{x}:Q"))
        text: dict[str, Any] = {
            "align": "center",
            "baseline": "top",
            "fontSize": 12,
            "color": theme.QUIET,
        }
        for row, offset in ((0.0, -16), (1.0, -32)):
            named = alt.Chart(spans[spans["_row"] == row]).mark_text(**text)
            layers.append(named.encode(x="_middle:Q", y=alt.value(offset), text="_text:N"))
    dash = theme.dash(series, names)
    drawn = alt.Chart(frame[[x, y, series]]).mark_line(strokeWidth=2)
    layers.append(drawn.encode(**at, color=theme.colour(series, names), strokeDash=dash))
    for name, at_y in zip(ends[series], heights, strict=True):
        ink = theme.COLOURS[names.index(name) % 7]
        end = alt.Chart(pd.DataFrame({x: [last], y: [at_y], "_text": [str(name)]}))
        word = end.mark_text(align="left", dx=8, fontSize=13, fontWeight="bold", color=ink)
        layers.append(word.encode(x=f"{x}:Q", y=f"{y}:Q", text="_text:N"))
    return theme.finish(alt.layer(*layers).properties(width=width, height=height), note, 640)


def forest(
    frame: pd.DataFrame,
    y: str,
    series: str = "",
    *,
    group: str = "",
    x: str = "mean",
    lo: str = "lo",
    hi: str = "hi",
    x_title: str = "accuracy",
    chance: float | None = 0.5,
    x_domain: Sequence[float] | None = None,
    note: str = "",
    width: int = 400,
) -> Any:
    """Rows of points with intervals, one row a category: subcases, methods, patterns.

    `frame`: a row a point with columns y, x, lo, hi; `series` tells points of one row apart
    (colour and shape, a legend on top); `group` stacks blocks of rows under headings (heuristics).
    """
    frame = frame.reset_index(drop=True)
    names = theme.order(frame[series]) if series else []
    extra = [] if chance is None else [chance]
    domain = list(x_domain) if x_domain else theme.span(frame, [x, lo, hi], extra)
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    extent = int(7.2 * max(len(str(name)) for name in frame[y])) + 10
    blocks = theme.order(frame[group]) if group else [None]
    # The same offsets in every block keep a series at its place within a row.
    shift = {name: 9 * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    row = max(26, 9 * len(names) + 14)
    charts = []
    for number, value in enumerate(blocks):
        rows = frame if value is None else frame[frame[group] == value]
        order = theme.order(rows[y])
        closing = number == len(blocks) - 1
        x_axis = alt.Axis(
            title=x_title if closing else None,
            labels=closing,
            ticks=closing,
            domain=closing,
            grid=True,
        )
        # The same room for labels in every block, so that their headings begin at one edge.
        y_axis = alt.Axis(
            title=None,
            labelLimit=260,
            labelFontSize=13,
            labelColor=theme.INK,
            grid=False,
            minExtent=extent,
            maxExtent=extent,
        )
        layers: list[alt.Chart] = []
        if chance is not None:
            layers.append(theme.chance(chance, x, "x", scale))
            if number == 0:
                word = alt.Chart(pd.DataFrame({x: [chance]})).mark_text(
                    color=theme.QUIET, fontSize=12
                )
                layers.append(word.encode(x=f"{x}:Q", y=alt.value(-8), text=alt.value("chance")))
        for i, name in enumerate(names or [None]):
            part = rows if name is None else rows[rows[series] == name]
            at = alt.Y(f"{y}:N", sort=order, axis=y_axis, scale=alt.Scale(domain=order))
            offset = shift.get(name, 0.0)
            ink = theme.COLOURS[i % 7]
            layers.append(
                alt.Chart(part[[y, lo, hi]].dropna())
                .mark_rule(strokeWidth=1.8, color=ink, yOffset=offset)
                .encode(x=alt.X(f"{lo}:Q", scale=scale), x2=f"{hi}:Q", y=at)
            )
            points = alt.Chart(part[[y, x, *([series] if series else [])]])
            encoding: dict[str, Any] = {
                "x": alt.X(f"{x}:Q", axis=x_axis, scale=scale),
                "y": at,
            }
            if series:
                legend = theme.legend() if number == 0 else None
                encoding["shape"] = theme.shape(series, names, legend)
                encoding["color"] = theme.colour(series, names, legend)
            layers.append(
                points.mark_point(
                    filled=True, size=80, opacity=1, yOffset=offset, color=ink
                ).encode(**encoding)
            )
        chart = alt.layer(*layers).properties(width=width, height=row * len(order))
        charts.append(chart if value is None else chart.properties(title=theme.panel_title(value)))
    joined = charts[0] if len(charts) == 1 else alt.vconcat(*charts, spacing=12)
    return theme.finish(joined, note, width + 180)


def dots(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    x_title: str = "",
    y_title: str = "accuracy",
    chance: float | None = 0.5,
    chance_name: str = "chance",
    y_domain: Sequence[float] | None = None,
    note: str = "",
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Any:
    """Every draw as a dot, one column a category, the mean as a short bar: sensitivity at a glance.

    Dots are set aside by their rank, not at random, so that the figure is the same each time.
    `chance`, called `chance_name`, is a dashed line; None draws none.
    """
    names = theme.order(frame[x])
    place = {name: float(i) for i, name in enumerate(names)}
    rank = frame.groupby(x, sort=False)[y].rank(method="first")
    aside = ((rank * 0.618034) % 1 - 0.5) * 0.36  # golden ratio: neighbours in rank fall apart
    data = pd.DataFrame({"_x": frame[x].map(place).astype(float) + aside, y: frame[y], x: frame[x]})
    means = data.groupby(x, sort=False)[y].mean().reset_index()
    middle = means[x].map(place).astype(float)
    means = means.assign(_x=middle - 0.27, _x2=middle + 0.27)
    domain = (
        list(y_domain) if y_domain else theme.span(frame, [y], [] if chance is None else [chance])
    )
    axis = alt.Axis(
        values=list(place.values()),
        labelExpr=f"{[str(name) for name in names]!r}[datum.value]",
        title=x_title or None,
        labelFontSize=13,
    )
    scale = alt.Scale(domain=[-0.6, len(names) - 0.4], nice=False)
    at_y = alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(domain=domain, zero=False, nice=False))
    layers: list[alt.Chart] = []
    if chance is not None:
        layers.append(theme.chance(chance, y, "y"))
        word = alt.Chart(pd.DataFrame({"_x": [len(names) - 0.4], y: [chance]}))
        layers.append(
            word.mark_text(align="left", dx=8, color=theme.QUIET, fontSize=12).encode(
                x="_x:Q", y=f"{y}:Q", text=alt.value(chance_name)
            )
        )
    layers.append(
        alt.Chart(data[["_x", y]])
        .mark_point(filled=True, size=46, opacity=0.55, color=theme.COLOURS[0])
        .encode(x=alt.X("_x:Q", axis=axis, scale=scale), y=at_y)
    )
    layers.append(
        alt.Chart(means)
        .mark_rule(strokeWidth=3, color=theme.INK)
        .encode(x="_x:Q", x2="_x2:Q", y=f"{y}:Q")
    )
    return theme.finish(alt.layer(*layers).properties(width=width, height=height), note, width)


def stacked(charts: Sequence[Any], note: str = "") -> Any:
    """Charts one above the other, with one note under them."""
    # Bars beside each other are as wide as their own chart's categories let them be.
    joined = alt.vconcat(*charts, spacing=18).resolve_scale(xOffset="independent")
    return theme.finish(joined, note, 640)


def bars(
    frame: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    *,
    x_title: str = "",
    y_title: str = "",
    y_format: str = "",
    note: str = "",
    width: int = WIDTH,
    height: int = 240,
) -> Any:
    """Counts or shares side by side by category (lengths, labels, cues); zero is on the axis."""
    names = theme.order(frame[series])
    categories = theme.order(frame[x])
    y_axis = alt.Axis(format=y_format) if y_format else alt.Axis()
    chart = (
        alt.Chart(frame[[x, y, series]])
        .mark_bar()
        .encode(
            x=alt.X(f"{x}:N", sort=categories, title=x_title or None, axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset(f"{series}:N", sort=names),
            y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=True), axis=y_axis),
            color=alt.Color(
                f"{series}:N",
                scale=alt.Scale(domain=names, range=theme.COLOURS[: len(names)]),
                legend=alt.Legend(
                    orient="top",
                    title=None,
                    symbolType="square",
                    labelFontSize=13,
                    columnPadding=18,
                    columns=2 if len(names) > 2 else 0,
                    labelLimit=400,
                ),
            ),
        )
        .properties(width=width, height=height)
    )
    return theme.finish(chart, note, width)


def heat(
    frame: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    *,
    middle: float = 0.5,
    span: float = 0.5,
    x_title: str = "",
    y_title: str = "",
    note: str = "",
    cell: tuple[int, int] = (72, 34),
) -> Any:
    """A table of numbers on colours from orange (below `middle`) over white to blue (above it).

    The number stands in every cell; the ends of the scale are middle - span and middle + span.
    """
    columns, rows = theme.order(frame[x]), theme.order(frame[y])
    at: dict[str, Any] = {
        "x": alt.X(
            f"{x}:N",
            sort=columns,
            title=x_title or None,
            axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False),
        ),
        "y": alt.Y(
            f"{y}:N",
            sort=rows,
            title=y_title or None,
            axis=alt.Axis(labelLimit=260, labelFontSize=13, labelColor=theme.INK),
        ),
    }
    scale = alt.Scale(
        domain=[middle - span, middle, middle + span],
        range=["#C45A00", "#ffffff", "#005F97"],
        interpolate="rgb",
        clamp=True,
    )
    far = abs(frame[value] - middle) > 0.62 * span
    data = pd.DataFrame(
        {
            x: frame[x],
            y: frame[y],
            value: frame[value],
            "_far": far,
            "_text": frame[value].map(stats.number),
        }
    )
    base = alt.Chart(data)
    squares = base.mark_rect(stroke="white", strokeWidth=2).encode(
        **at, color=alt.Color(f"{value}:Q", scale=scale, legend=None)
    )
    text = base.mark_text(fontSize=13).encode(
        **at,
        text="_text:N",
        color=alt.condition("datum._far", alt.value("white"), alt.value(theme.INK)),
    )
    size = {"width": cell[0] * len(columns), "height": cell[1] * len(rows)}
    return theme.finish(alt.layer(squares, text).properties(**size), note, max(size["width"], 420))


def reliability(
    frame: pd.DataFrame, series: str, *, note: str = "", size: int = 340, low: float = 0.5
) -> Any:
    """Accuracy against confidence by bin: `metrics.reliability` with a series column.

    The diagonal is perfect calibration, below it the model is too sure of itself; a point's area is
    its share of the examples.
    """
    names = theme.order(frame[series])
    share = frame["n"] / frame.groupby(series, sort=False)["n"].transform("sum")
    data = frame[["confidence", "accuracy", series]].assign(_share=share)
    bottom = min(low, float(np.floor(frame["accuracy"].min() * 10) / 10))
    diagonal = pd.DataFrame({"confidence": [low, 1.0], "accuracy": [low, 1.0]})
    tenths = [round(0.1 * i, 1) for i in range(11)]
    x = alt.X(
        "confidence:Q",
        title="confidence: probability of the predicted label",
        scale=alt.Scale(domain=[low, 1], nice=False, padding=8),
        axis=alt.Axis(format=".1f", values=tenths),
    )
    y = alt.Y(
        "accuracy:Q",
        title="accuracy",
        scale=alt.Scale(domain=[bottom, 1], nice=False, padding=8),
        axis=alt.Axis(format=".1f", values=tenths),
    )
    line = alt.Chart(diagonal).mark_line(color="#8c959f", strokeDash=[4, 4], strokeWidth=1)
    legend = theme.legend()
    colour = theme.colour(series, names, legend)
    path = alt.Chart(data).mark_line(strokeWidth=1.6)
    points = alt.Chart(data).mark_point(filled=True, opacity=1, stroke="white", strokeWidth=0.7)
    chart = alt.layer(
        line.encode(x=x, y=y),
        path.encode(x=x, y=y, color=colour),
        points.encode(
            x=x,
            y=y,
            color=colour,
            shape=theme.shape(series, names, legend),
            size=alt.Size("_share:Q", scale=alt.Scale(domain=[0, 1], range=[36, 700]), legend=None),
        ),
    ).properties(width=size, height=int(size * 0.9))
    return theme.finish(chart, note, size + 60)
