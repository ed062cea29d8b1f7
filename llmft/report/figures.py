"""Figures of the book, drawn from frames whose intervals are already computed.

Series are named where their line ends instead of in a legend, chance is a dashed line, and a note
under the figure says which intervals these are. Intervals arrive as columns (mean, lo, hi of
`stats.summary`): Altair computes none, so a figure cannot disagree with its table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from llmft.report import stats, theme
from llmft.report.theme import HEIGHT, WIDTH


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

    `frame`: a row a point, columns x (0 allowed: it stands apart, joined by no line), series, and
    y, lo, hi as `stats.summary` returns them (NaN: no interval). `draws`: every single draw (x,
    series, `draws_y`), as faint dots. `facet`: one panel a value, on the same axes. `chance`,
    called `chance_name`: a dashed line, or None. `rules`: a thin line a row, of the columns rule
    (its name), accuracy (its height) and, with panels, `facet`. `doublings=False`: a linear axis.
    """
    names, values = theme.order(frame[series]), theme.order(frame[facet]) if facet else [None]
    room = 8 * max(len(str(name)) for name in [*names, chance_name]) + 12  # for names at the ends
    columns = _columns(values)
    width = width or (WIDTH if not facet else (600 - room) // columns)
    levels = [] if chance is None else [chance]
    extra = [*levels, *_numbers(draws, draws_y), *_numbers(rules, "accuracy")]
    domain = list(y_domain) if y_domain else theme.span(frame, [y, lo, hi], extra)
    step = theme.steps(frame[x], doublings)
    layout = _Layout(x, series, y, names, step, _shift(names, step, width), domain, height)
    zero = (frame[x] == 0) & doublings
    frame = frame.assign(_x=layout.place(frame), _zero=zero).reset_index(drop=True)

    def panel(number: int, value: Any) -> Any:
        layers = [theme.chance(level, y, "y") for level in levels]
        if rules is not None:
            layers += _rule_lines(_part(rules, facet, value), layout)
        if draws is not None:
            layers += _draw_dots(_part(draws, facet, value), draws_y, layout)
        axes = layout.axes(x_title, None if number % columns else y_title, flush=bool(facet))
        rows = _part(frame, facet, value)
        layers += _lines_and_points(rows, lo, hi, axes, layout)
        # Only a row's last panel names the series: the order and the colours are the same in all.
        if number % columns == columns - 1 or number == len(values) - 1:
            layers += _end_names(rows, chance_name, levels, layout)
        return _with_title(alt.layer(*layers).properties(width=width, height=height), value)

    if not facet:
        return theme.finish(panel(0, None), note, width + room)
    grid = alt.concat(*[panel(*at) for at in enumerate(values)], columns=columns, spacing=26)
    return theme.finish(grid, note, 640)


@dataclass(frozen=True)
class _Layout:
    """What the panels of a `curve` have in common: columns, series, where everything stands."""

    x: str
    series: str
    y: str
    names: list[Any]  # of the series, in their order
    step: dict[float, float]  # where each x stands
    shift: dict[Any, float]  # how far beside it each series stands
    domain: list[float]  # of y
    height: int  # of a panel, in pixels

    @property
    def left(self) -> float:
        return min(self.step.values()) - 0.35

    @property
    def right(self) -> float:
        return max(self.step.values()) + 0.2

    def pixels(self, number: float) -> float:
        """The height of so many pixels, on the y axis."""
        return number / self.height * (self.domain[1] - self.domain[0])

    def place(self, rows: pd.DataFrame) -> pd.Series:
        """Where the rows stand on the x axis."""
        step, shift = rows[self.x].map(self.step), rows[self.series].map(self.shift)
        return step.astype(float) + shift.astype(float)

    def axes(self, x_title: str, y_title: str | None, *, flush: bool) -> dict[str, Any]:
        """Both axes; a panel beside the first has no `y_title` and no numbers at its y axis."""
        # Vega writes a real minus: 0 stands at -1 where the axis begins with 1.
        labels = {f"{v:.6f}".replace("-", "−"): f"{k:,.0f}" for k, v in self.step.items()}
        x_axis = alt.Axis(
            values=sorted(self.step.values()),
            labelExpr=f"{labels!r}[format(datum.value, '.6f')]",
            title=x_title,
            tickSize=4,
        )
        # Flush: a label that stands out at the top would lift this panel's heading alone.
        y_axis = alt.Axis(title=y_title, labels=y_title is not None, labelFlush=flush)
        x_scale = alt.Scale(domain=[self.left, self.right], nice=False, zero=False)
        y_scale = alt.Scale(domain=self.domain, nice=False, zero=False)
        return {
            "x": alt.X("_x:Q", axis=x_axis, scale=x_scale),
            "y": alt.Y(f"{self.y}:Q", axis=y_axis, scale=y_scale),
        }


def _shift(names: Sequence[Any], step: dict[float, float], width: int) -> dict[Any, float]:
    """Neighbouring series stand a few pixels apart, so that no interval hides another."""
    pixel = (max(step.values()) - min(step.values()) + 0.55) / width
    dodge = min(8.0, 16 / len(names)) * pixel
    return {name: dodge * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def _rule_lines(rules: pd.DataFrame, layout: _Layout) -> list[Any]:
    return theme.rule_lines(rules, layout.y, layout.left, layout.pixels(14))


def _draw_dots(draws: pd.DataFrame, y: str, layout: _Layout) -> list[Any]:
    """Every single draw as a faint dot."""
    series = layout.series
    dots = alt.Chart(draws.assign(_x=layout.place(draws))[["_x", series, y]])
    colour, shape = theme.colour(series, layout.names), theme.shape(series, layout.names)
    marks = dots.mark_point(filled=True, size=16, opacity=0.28)
    return [marks.encode(x="_x:Q", y=f"{y}:Q", color=colour, shape=shape)]


def _lines_and_points(
    rows: pd.DataFrame, lo: str, hi: str, axes: dict[str, Any], layout: _Layout
) -> list[Any]:
    """The lines of the series, their intervals where there are any, and their points."""
    series, y, names = layout.series, layout.y, layout.names
    colour, dash = theme.colour(series, names), theme.dash(series, names)
    path = alt.Chart(rows.loc[~rows["_zero"], ["_x", series, y]]).mark_line(strokeWidth=2)
    layers = [path.encode(**axes, color=colour, strokeDash=dash, detail=f"{series}:N")]
    if lo in rows and hi in rows:
        bars = alt.Chart(rows[["_x", series, lo, hi]].dropna()).mark_rule(strokeWidth=1.6)
        layers.append(bars.encode(x="_x:Q", y=f"{lo}:Q", y2=f"{hi}:Q", color=colour))
    points = alt.Chart(rows[[c for c in ("_x", series, y, lo, hi, "_zero") if c in rows]])
    marks = points.mark_point(filled=True, size=70, opacity=1, stroke="white", strokeWidth=0.8)
    layers.append(marks.encode(**axes, color=colour, shape=theme.shape(series, names)))
    return layers


def _end_names(
    rows: pd.DataFrame, chance_name: str, levels: Sequence[float], layout: _Layout
) -> list[Any]:
    """The name of each series at its line's end, unless there is only one, and that of chance."""
    ends = rows.sort_values("_x").groupby(layout.series, sort=False).tail(1)
    if len(layout.names) < 2:
        ends = ends.iloc[:0]
    names = list(ends[layout.series])
    heights = theme.spread([*ends[layout.y], *levels], layout.pixels(16))
    layers = []
    for name, height in zip([*names, chance_name], heights, strict=False):
        ink = theme.COLOURS[layout.names.index(name) % 7] if name in names else theme.QUIET
        end = pd.DataFrame({"_x": [layout.right], layout.y: [height], "_text": [str(name)]})
        layers.append(_text_at(end, "_x", layout.y, ink, "bold" if name in names else "normal"))
    return layers


def _text_at(end: pd.DataFrame, x: str, y: str, ink: str, weight: Any) -> Any:
    """The column `_text` to the right of the point (x, y)."""
    text = alt.Chart(end).mark_text(align="left", dx=8, fontSize=13, fontWeight=weight, color=ink)
    return text.encode(x=f"{x}:Q", y=f"{y}:Q", text="_text:N")


def _columns(values: Sequence[Any]) -> int:
    """How many panels stand side by side: up to three, more in twos."""
    return len(values) if len(values) <= 3 else 2


def _numbers(frame: pd.DataFrame | None, column: str) -> list[float]:
    return [] if frame is None else frame[column].astype(float).tolist()


def _part(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    """The rows of one panel; all where there is one panel and so no value."""
    return frame if value is None else frame[frame[column] == value]


def _with_title(chart: Any, value: Any) -> Any:
    """The chart with its panel's heading, if it has one."""
    return chart if value is None else chart.properties(title=theme.panel_title(value))


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
    charts = [
        _with_title(draw(_part(frame, by, value), ""), value) for value in theme.order(frame[by])
    ]
    return theme.finish(alt.concat(*charts, columns=columns, spacing=26), note, 640)


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
    columns = _columns(values)
    width = WIDTH if not facet else 600 // columns - 20
    # Room inside the axes: a draw at an end is not cut.
    scales = [
        alt.Scale(domain=theme.span(frame, [c], []), nice=False, zero=False, padding=8)
        for c in (x, y)
    ]
    charts = []
    for number, value in enumerate(values):
        rows = _part(frame, facet, value)
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
            line = alt.Chart(pd.DataFrame({x: ends, y: level + slope * ends}))
            layers.append(
                line.mark_line(color=theme.QUIET, strokeWidth=1.5, clip=True).encode(**at)
            )
        points = base.mark_point(filled=True, size=60, opacity=0.75, color=theme.COLOURS[0])
        layers.append(points.encode(**at))
        charts.append(_with_title(alt.layer(*layers).properties(width=width, height=height), value))
    return theme.finish(alt.concat(*charts, columns=columns, spacing=26), note, 640)


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
    domain = theme.span(frame, [y], [] if chance is None else [chance])
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
            phases = alt.Chart(spans[spans["_row"] == row]).mark_text(**text)
            layers.append(phases.encode(x="_middle:Q", y=alt.value(offset), text="_text:N"))
    dash = theme.dash(series, names)
    paths = alt.Chart(frame[[x, y, series]]).mark_line(strokeWidth=2)
    layers.append(paths.encode(**at, color=theme.colour(series, names), strokeDash=dash))
    for name, end_y in zip(ends[series], heights, strict=True):
        ink = theme.COLOURS[names.index(name) % 7]
        end = pd.DataFrame({x: [last], y: [end_y], "_text": [str(name)]})
        layers.append(_text_at(end, x, y, ink, "bold"))
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
    levels = [] if chance is None else [chance]
    domain = list(x_domain) if x_domain else theme.span(frame, [x, lo, hi], levels)
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    extent = int(7.2 * max(len(str(name)) for name in frame[y])) + 10
    blocks = theme.order(frame[group]) if group else [None]
    charts = []
    for number, value in enumerate(blocks):
        rows = _part(frame, group, value)
        first, last = number == 0, number == len(blocks) - 1
        axis = alt.Axis(
            title=x_title if last else None, labels=last, ticks=last, domain=last, grid=True
        )
        category = _categories(rows, y, extent)
        at: dict[str, Any] = {"x": alt.X(f"{x}:Q", axis=axis, scale=scale), "y": category}
        if series:
            legend = theme.legend() if first else None
            at["shape"] = theme.shape(series, names, legend)
            at["color"] = theme.colour(series, names, legend)
        layers = [theme.chance(level, x, "x", scale) for level in levels]
        layers += [_chance_heading(level, x) for level in levels if first]
        for i, name in enumerate(names or [None]):
            part = _part(rows, series, name)
            # The same offsets in every block keep a series at its place within a row.
            offset = 9 * (i - (len(names) - 1) / 2) if names else 0.0
            mark: dict[str, Any] = {"yOffset": offset, "color": theme.COLOURS[i % 7]}
            bars = alt.Chart(part[[y, lo, hi]].dropna()).mark_rule(strokeWidth=1.8, **mark)
            layers.append(bars.encode(x=alt.X(f"{lo}:Q", scale=scale), x2=f"{hi}:Q", y=category))
            points = alt.Chart(part[[y, x, *([series] if series else [])]])
            layers.append(points.mark_point(filled=True, size=80, opacity=1, **mark).encode(**at))
        height = max(26, 9 * len(names) + 14) * len(theme.order(rows[y]))
        charts.append(_with_title(alt.layer(*layers).properties(width=width, height=height), value))
    stack = charts[0] if len(charts) == 1 else alt.vconcat(*charts, spacing=12)
    return theme.finish(stack, note, width + 180)


def _categories(rows: pd.DataFrame, y: str, extent: int) -> Any:
    """The y axis of one block, with the same room for labels in all: headings begin at one edge."""
    order = theme.order(rows[y])
    axis = alt.Axis(
        title=None,
        labelLimit=260,
        labelFontSize=13,
        labelColor=theme.INK,
        grid=False,
        minExtent=extent,
        maxExtent=extent,
    )
    return alt.Y(f"{y}:N", sort=order, axis=axis, scale=alt.Scale(domain=order))


def _chance_heading(level: float, x: str) -> Any:
    """The word above the first block."""
    word = alt.Chart(pd.DataFrame({x: [level]})).mark_text(color=theme.QUIET, fontSize=12)
    return word.encode(x=f"{x}:Q", y=alt.value(-8), text=alt.value("chance"))


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

    A dot's place beside the middle follows from its rank, so the figure is the same each time.
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


def stack(charts: Sequence[Any], note: str = "") -> Any:
    """Charts one above the other, with one note under them."""
    # Bars beside each other are as wide as their own chart's categories let them be.
    stack = alt.vconcat(*charts, spacing=18).resolve_scale(xOffset="independent")
    return theme.finish(stack, note, 640)


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
