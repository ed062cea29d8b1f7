"""Figures of the book, drawn from frames whose intervals are already computed.

Series are named where their line ends instead of in a legend, chance is a dashed line, and a note
under the figure says which intervals these are. Intervals arrive as columns (mean, lo, hi of
`stats.summary`, NaN where there is none): Altair computes none, so a figure cannot disagree with
its table. Each is drawn twice (`renderings.twice`): on a phone, panels stand one above the other,
and names stand above what they name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from llmft.report import renderings, stats, theme
from llmft.report.theme import HEIGHT, NOTE, PHONE, WIDTH


# --- panels ------------------------------------------------------------------------------------


@renderings.twice
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
    values = theme.order(frame[by])
    charts = [theme.headed(draw(_part(frame, by, value), ""), value) for value in values]
    return _grid(charts, columns, note)


@renderings.twice
def stack(charts: Sequence[Any], note: str = "") -> Any:
    """Charts one above the other, with one note under them."""
    # Bars beside each other are as wide as their own chart's categories let them be.
    parts = [renderings.part(chart) for chart in charts]
    stack = alt.vconcat(*parts, spacing=18).resolve_scale(xOffset="independent")
    return theme.finish(stack, note, 640)


def _grid(charts: Sequence[Any], columns: int, note: str) -> Any:
    columns = 1 if theme.phone() else columns
    return theme.finish(alt.concat(*charts, columns=columns, spacing=26), note, 640)


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    """The values that have a panel each; where there is no column, one panel of no value."""
    return theme.order(frame[column]) if column else [None]


def _part(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    """The rows of one panel."""
    return frame if value is None else frame[frame[column] == value]


def _columns(number: int) -> int:
    """How many of so many panels stand side by side: up to three, more in twos."""
    return 1 if theme.phone() else number if number <= 3 else 2


# --- along an axis -----------------------------------------------------------------------------


@renderings.twice
def curve(
    frame: pd.DataFrame,
    x: str,
    series: str,
    *,
    facet: str = "",
    draws: pd.DataFrame | None = None,
    x_title: str = "demonstrations",
    y_title: str = "accuracy",
    chance: float | None = 0.5,
    chance_name: str = "chance",
    rules: pd.DataFrame | None = None,
    y_domain: Sequence[float] | None = None,
    doublings: bool = True,
    note: str = "",
    height: int = HEIGHT,
) -> Any:
    """Points with intervals along an axis of doublings, one line a series, named at its end.

    `frame`: a row a point, columns x (0 allowed: it stands apart, joined by no line), series, mean,
    lo, hi. `draws`: every single draw (x, series, accuracy), as faint dots. `facet`: one panel a
    value, on the same axes. `chance`, called `chance_name`: a dashed line, or None. `rules`: a thin
    line a row, of the columns rule (its name), accuracy (its height) and, with panels, `facet`.
    `doublings=False`: a linear axis. Where not all series end at the right edge of a row's last
    panel, or too many end at one height, a legend above names them.
    """
    names, values = theme.order(frame[series]), _values(frame, facet)
    columns = _columns(len(values))
    height = min(height, 220) if theme.phone() else height
    levels = {} if chance is None else {chance_name: chance}
    domain = _y_domain(frame, draws, rules, levels, y_domain, height)
    gap = theme.pixels(16, height, domain)
    parts = [_part(frame.assign(_zero=(frame[x] == 0) & doublings), facet, v) for v in values]
    at_ends = not theme.phone() and _ends_apart(parts, columns, x, series, gap, levels)
    room = (8 * max(len(str(name)) for name in [*names, *levels]) + 12) * at_ends
    width = PHONE if theme.phone() else (632 - room) // columns - 26 if facet else WIDTH
    step = theme.steps(frame[x], doublings)
    ends = min(step.values()) - 0.35, max(step.values()) + 0.2
    parts = [_placed(part, x, series, names, step, width) for part in parts]
    draws = None if draws is None else _placed(draws, x, series, names, step, width)
    charts = []
    for number, (value, rows) in enumerate(zip(values, parts, strict=True)):
        place = number % columns
        legend = None if at_ends or number else _above(rows, series, names)
        layers = [theme.chance(level, "mean", "y") for level in levels.values()]
        dots = None if draws is None else _part(draws, facet, value)
        layers += [] if dots is None else [_dots(dots, series, names, legend)]
        panel = _marked(theme.Panel(width, height, domain, []), rows, dots, series, ends)
        if rules is not None:
            layers += theme.rule_lines(_part(rules, facet, value), panel)
        x_axis = _steps_axis(step, set(rows[x]), ends, x_title, width)
        axes = {"x": x_axis, "y": _y_axis(None if place else y_title, domain, facet)}
        layers += _lines_and_points(rows, series, names, axes, legend)
        if not at_ends:
            layers += [panel.name(name, level, right=True) for name, level in levels.items()]
        elif place == columns - 1 or number == len(values) - 1:
            axis = "_x", "mean", series, names, ends[1]
            layers += _end_names(rows, parts[number - place], *axis, gap, domain[1], levels)
        charts.append(theme.headed(theme.sized(alt.layer(*layers), width, height), value))
    return _grid(charts, columns, note) if facet else theme.finish(charts[0], note, width + room)


def _marked(
    panel: theme.Panel,
    rows: pd.DataFrame,
    dots: pd.DataFrame | None,
    series: str,
    ends: tuple[float, float],
) -> theme.Panel:
    """The panel that knows where intervals, lines and `dots` are; its axis has these `ends`."""
    pixels = panel.width / (ends[1] - ends[0])
    lows, highs = rows["lo"].fillna(rows["mean"]), rows["hi"].fillna(rows["mean"])
    panel.mark((rows["_x"] - ends[0]) * pixels, lows, highs)
    for _, line in rows[~rows["_zero"]].sort_values("_x").groupby(series):
        places = np.linspace(line["_x"].min(), line["_x"].max(), 40)
        means = np.interp(places, line["_x"], line["mean"])
        panel.mark((places - ends[0]) * pixels, means, means)
    if dots is not None:
        panel.mark((dots["_x"] - ends[0]) * pixels, dots["accuracy"], dots["accuracy"])
    return panel


def loss_curve(frame: pd.DataFrame, x: str, series: str, **options: Any) -> Any:
    """A `curve` of losses (nats) over training, with ln 2, which one half for each label costs."""
    return curve(frame, x, series, doublings=False, chance=0.6931, chance_name="ln 2", **options)


def _ends_apart(
    parts: Sequence[pd.DataFrame],
    columns: int,
    x: str,
    series: str,
    gap: float,
    levels: Mapping[str, float],
) -> bool:
    """Whether each row of panels has room for each series' name beside its line's end.

    All end in the last panel, at its right edge, and no name is more than its height away.
    """
    right = max(part[x].max() for part in parts)
    for first in range(0, len(parts), columns):
        row = parts[first : first + columns]
        names, ends = {name for part in row for name in part[series]}, _ends(row[-1], x, series)
        targets = [*ends["mean"], *levels.values()]
        moved = np.subtract(theme.spread(targets, gap), targets)
        reach = set(ends.loc[ends[x] == right, series]) == names
        if len(names) > 1 and not (reach and np.abs(moved).max() < 1.1 * gap):
            return False
    return True


def _placed(
    rows: pd.DataFrame,
    x: str,
    series: str,
    names: Sequence[Any],
    step: Mapping[float, float],
    width: int,
) -> pd.DataFrame:
    """The rows with `_x`, where they stand.

    Neighbouring series stand a few pixels apart, so that no interval hides another.
    """
    pixel = (max(step.values()) - min(step.values()) + 0.55) / width
    dodge = min(8.0, 16 / len(names)) * pixel
    shift = {name: dodge * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    return rows.assign(_x=rows[x].map(step).astype(float) + rows[series].map(shift).astype(float))


def _steps_axis(
    step: Mapping[float, float],
    measured: set[float],
    ends: tuple[float, float],
    title: str,
    width: int,
) -> alt.X:
    """The x axis, with a tick and a label at each step that was measured."""
    step = {size: at for size, at in step.items() if size in measured}
    # Vega writes a real minus: 0 stands at -1 where the axis begins with 1.
    labels = {f"{v:.6f}".replace("-", "−"): f"{k:,.10g}" for k, v in step.items()}
    axis = alt.Axis(
        values=sorted(step.values()),
        tickCount=len(step),  # else Vega leaves out every second value of a narrow axis
        labelExpr=f"{labels!r}[format(datum.value, '.6f')]",
        title=theme.lines(title, width),
        tickSize=4,
        labelOverlap="greedy",  # no label is left out but one that would lie over another
    )
    return alt.X("_x:Q", axis=axis, scale=theme.within([*ends]))


def _y_domain(
    frame: pd.DataFrame,
    draws: pd.DataFrame | None,
    rules: pd.DataFrame | None,
    levels: Mapping[str, float],
    given: Sequence[float] | None,
    height: int,
) -> list[float]:
    """The ends of the y axis: the given ones, or those of all that is drawn.

    There is room for the highest mark, which above the top would lift a heading.
    """
    others = [[*levels.values()], *(own["accuracy"] for own in (draws, rules) if own is not None)]
    low, top = given or theme.span(frame["mean"], frame["lo"], frame["hi"], *others)
    highest = min(frame["mean"].max(), top) + theme.pixels(6, height, [low, top])
    return [low, max(top, highest)]


def _y_axis(title: str | None, domain: Sequence[float], facet: str) -> alt.Y:
    """The y axis; a panel beside the first has no title and no numbers at it."""
    # Flush: a label that stands out at the top would lift this panel's heading alone.
    axis = alt.Axis(title=title, labels=title is not None, labelFlush=bool(facet))
    return alt.Y("mean:Q", axis=axis, scale=theme.within(domain))


def _dots(rows: pd.DataFrame, series: str, names: Sequence[Any], legend: alt.Legend | None) -> Any:
    """Every single draw as a faint dot."""
    dots = alt.Chart(rows[["_x", series, "accuracy"]]).mark_point(
        filled=True, size=16, opacity=0.4, aria=False
    )
    return dots.encode(x=alt.X("_x:Q"), y=alt.Y("accuracy:Q"), **theme.look(series, names, legend))


def _lines_and_points(
    rows: pd.DataFrame,
    series: str,
    names: Sequence[Any],
    at: dict[str, Any],
    legend: alt.Legend | None,
) -> list[Any]:
    """The lines of the series, their intervals where there are any, and their points."""
    look, dash = theme.look(series, names, legend), theme.dash(series, names)
    lines = alt.Chart(rows.loc[~rows["_zero"], ["_x", series, "mean"]]).mark_line(strokeWidth=2)
    bars = alt.Chart(rows[["_x", series, "lo", "hi"]].dropna()).mark_rule(strokeWidth=1.6)
    points = alt.Chart(rows[["_x", series, "mean", "lo", "hi", "_zero"]]).mark_point(
        filled=True, size=70, opacity=1, stroke="white", strokeWidth=0.8
    )
    return [
        lines.encode(**at, color=look["color"], strokeDash=dash, detail=alt.Detail(f"{series}:N")),
        bars.encode(x=alt.X("_x:Q"), y=alt.Y("lo:Q"), y2=alt.Y2("hi:Q"), color=look["color"]),
        points.encode(**at, **look),
    ]


def _ends(rows: pd.DataFrame, x: str, series: str) -> pd.DataFrame:
    """The last point of each series."""
    return rows.sort_values(x).groupby(series, sort=False).tail(1)


def _above(rows: pd.DataFrame, series: str, names: Sequence[Any]) -> alt.Legend | None:
    """A legend of several series, in the order of their lines' ends in the first panel."""
    ends = _ends(rows, "_x", series).sort_values("mean", ascending=False)[series]
    values = list(dict.fromkeys([*ends, *names]))
    return theme.legend(values=values, columns=min(4, len(names))) if len(names) > 1 else None


def _end_names(
    rows: pd.DataFrame,
    first: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    names: Sequence[Any],
    right: float,
    gap: float,
    top: float,
    levels: Mapping[str, float],
) -> list[Any]:
    """The names of several series at their lines' ends, and those of the levels, `gap` apart.

    None stands above the `top`, where it would lift its panel's heading.

    Lines that end at one height, by that of a name, are named in the order of the panel `first`.
    """
    ends = _ends(rows, x, series) if len(names) > 1 else rows[:0]
    before = ends[series].map(_ends(first, x, series).set_index(series)[y])
    ends = ends.assign(_band=(ends[y] / gap).round(), _first=before).sort_values(
        ["_band", "_first"]
    )
    colours = dict(zip(names, (look[0] for look in theme.looks(names)), strict=True))
    heights = theme.spread([*np.maximum.accumulate(ends[y].to_numpy()), *levels.values()], gap)
    above = len(heights) - 0.5 - np.argsort(np.argsort(heights))  # how many names, and a half
    heights = list(np.minimum(heights, top - gap * above))
    layers = []
    for name, height in zip([*ends[series], *levels], heights, strict=True):
        own = name in list(ends[series])
        text = alt.Chart(pd.DataFrame({x: [right], y: [height], "_text": [str(name)]})).mark_text(
            align="left",
            dx=8,
            fontSize=13,
            fontWeight="bold" if own else "normal",
            color=colours[name] if own else theme.QUIET,
        )
        layers.append(text.encode(x=alt.X(f"{x}:Q"), y=alt.Y(f"{y}:Q"), text=alt.Text("_text:N")))
    return layers


@renderings.twice
def lines(
    frame: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    *,
    x_title: str,
    y_title: str,
    marks: pd.Series,
) -> Any:
    """Curves over a linear axis (tokens), each named at its end, with chance: training curves.

    `marks`: x positions with a name each (the index), such as the ends of a curriculum's phases;
    drawn as thin vertical lines, the name before its line.
    """
    names, last = theme.order(frame[series]), float(frame[x].max())
    domain = theme.span(frame[y], [0.5])
    at: dict[str, Any] = {
        "x": alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(domain=[0, last], nice=False)),
        "y": alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(domain=domain, zero=False)),
    }
    spans = pd.DataFrame({x: marks.to_numpy(), "_text": marks.index.astype(str)})
    spans["_middle"] = (spans[x] + [0.0, *marks.tolist()[:-1]]) / 2
    phases = alt.Chart(spans).mark_rule(color=theme.FAINT, strokeWidth=1.5)
    layers = [theme.chance(0.5, y, "y"), phases.encode(x=alt.X(f"{x}:Q"))]
    for first, offset in ((1, -16), (0, -32)):  # short phases: their names at two heights
        text = alt.Chart(spans[first::2]).mark_text(
            align="center", baseline="top", fontSize=12, color=theme.QUIET
        )
        layers.append(
            text.encode(x=alt.X("_middle:Q"), y=alt.value(offset), text=alt.Text("_text:N"))
        )
    legend = (
        theme.legend(symbolType="stroke", symbolStrokeWidth=2, offset=44) if theme.phone() else None
    )
    colour, dash = theme.colour(series, names, legend), theme.dash(series, names)
    paths = alt.Chart(frame[[x, y, series]]).mark_line(strokeWidth=2)
    layers.append(paths.encode(**at, color=colour, strokeDash=dash))
    if theme.phone():
        return theme.having(alt.layer(*layers), width=PHONE, height=220)
    gap = theme.pixels(16, HEIGHT, domain)
    layers += _end_names(frame, frame, x, y, series, names, last, gap, domain[1], {})
    room = 8 * max(len(str(name)) for name in names) + 12
    return theme.having(alt.layer(*layers), width=700 - 70 - room, height=HEIGHT)


@renderings.twice
def scatter(
    frame: pd.DataFrame, x: str, y: str, *, facet: str, x_title: str, note: str = ""
) -> Any:
    """A dot a row, and the line of least squares through each panel's: does x go with y?

    `facet`: one panel a value, up to three side by side and more in twos, on the same axes.
    """
    values = theme.order(frame[facet])
    columns = _columns(len(values))
    # Room inside the axes: a draw at an end is not cut.
    scales = [theme.within(theme.span(frame[c]), padding=8) for c in (x, y)]
    charts = []
    for number, value in enumerate(values):
        rows = frame.loc[frame[facet] == value, [x, y]].reset_index(drop=True)
        y_title = "accuracy" if number % columns == 0 else None
        title, axis = theme.lines(x_title, 600 // columns - 20), alt.Axis(tickCount=4)
        at: dict[str, Any] = {
            "x": alt.X(f"{x}:Q", title=title, scale=scales[0], axis=axis),
            "y": alt.Y(f"{y}:Q", title=y_title, scale=scales[1]),
        }
        layers: list[Any] = []
        if np.ptp(rows[x]) > 0:
            slope, level = np.polyfit(rows[x].to_numpy(float), rows[y].to_numpy(float), 1)
            ends = np.array([rows[x].min(), rows[x].max()], dtype=float)
            line = alt.Chart(pd.DataFrame({x: ends, y: level + slope * ends}))
            line = line.mark_line(color=theme.QUIET, strokeWidth=1.5, clip=True)
            layers.append(line.encode(**at))
        points = alt.Chart(rows).mark_point(filled=True, size=60, opacity=0.75, color=theme.QUIET)
        layers.append(points.encode(**at))
        chart = theme.sized(alt.layer(*layers), 600 // columns - 20, 220)
        charts.append(theme.headed(chart, value))
    return _grid(charts, columns, note)


# --- by category -------------------------------------------------------------------------------


@renderings.twice
def forest(frame: pd.DataFrame, y: str, series: str, *, group: str = "", note: str = "") -> Any:
    """Rows of points with intervals, one row a category: subcases, methods, patterns.

    `frame`: a row a point with columns y, mean, lo, hi; `series` tells points of one row apart
    (colour and shape, a legend on top); `group` stacks blocks of rows under headings (heuristics).
    """
    frame = frame.reset_index(drop=True)
    names, blocks = theme.order(frame[series]), _values(frame, group)
    scale = theme.within(theme.span(frame["mean"], frame["lo"], frame["hi"], [0.5]))
    extent = int(7.2 * max(len(str(name)) for name in frame[y])) + 10
    charts = []
    for number, value in enumerate(blocks):
        rows = _part(frame, group, value)
        first, last = number == 0, number == len(blocks) - 1
        axis = alt.Axis(
            title="accuracy" if last else None,
            labels=last,
            ticks=last,
            domain=last,
            grid=True,
            tickCount=8,
        )
        category = _categories(rows, y, 0 if theme.phone() else extent)
        look = theme.look(series, names, theme.legend() if first else None)
        at: dict[str, Any] = {"x": alt.X("mean:Q", axis=axis, scale=scale), "y": category, **look}
        layers = [theme.chance(0.5, "mean", "x", scale)]
        if first:
            word = alt.Chart(pd.DataFrame({"mean": [0.5]})).mark_text(
                color=theme.QUIET, fontSize=12
            )
            layers.append(word.encode(x=alt.X("mean:Q"), y=alt.value(-8), text=alt.value("chance")))
        for i, (name, (colour, _, _)) in enumerate(zip(names, theme.looks(names), strict=True)):
            part = rows[rows[series] == name]
            # The same offsets in every block keep a series at its place within a row.
            offset = 9 * (i - (len(names) - 1) / 2) + 8 * theme.phone()
            mark: dict[str, Any] = {"yOffset": offset, "color": colour}
            bars = alt.Chart(part[[y, "lo", "hi"]].dropna()).mark_rule(strokeWidth=1.8, **mark)
            layers.append(bars.encode(x=alt.X("lo:Q", scale=scale), x2=alt.X2("hi:Q"), y=category))
            points = alt.Chart(part[[y, "mean", series]])
            layers.append(points.mark_point(filled=True, size=80, opacity=1, **mark).encode(**at))
        width, height = 400, max(26, 9 * len(names) + 14)
        if theme.phone():
            layers.append(_names_above(rows, y, category, height / 2))
            width, height = NOTE - 10, height + 18
        height *= len(theme.order(rows[y]))
        chart = theme.having(alt.layer(*layers), width=width, height=height)
        charts.append(theme.headed(chart, value))
    stack = charts[0] if len(charts) == 1 else alt.vconcat(*charts, spacing=12)
    return theme.finish(stack, note, 580)


def _names_above(rows: pd.DataFrame, y: str, category: Any, up: float) -> Any:
    """For a phone, each row's name, so many pixels above its middle."""
    names = alt.Chart(pd.DataFrame({y: theme.order(rows[y])})).mark_text(
        align="left", dx=2, dy=-up, fontSize=12, color=theme.INK, limit=NOTE
    )
    return names.encode(x=alt.value(0), y=category, text=alt.Text(f"{y}:N"))


def _categories(rows: pd.DataFrame, y: str, extent: int) -> Any:
    """The y axis of one block, with the same room for labels in all: headings begin at one edge.

    Without room (0) it has no labels.
    """
    order = theme.order(rows[y])
    axis = alt.Axis(
        labels=extent > 0,
        title=None,
        labelLimit=260,
        labelFontSize=13,
        labelColor=theme.INK,
        grid=False,
        minExtent=extent,
        maxExtent=extent,
    )
    return alt.Y(f"{y}:N", sort=order, axis=axis, scale=alt.Scale(domain=order))


@renderings.twice
def dots(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    x_title: str = "",
    y_title: str = "accuracy",
    chance: float = 0.5,
    chance_name: str = "chance",
    y_domain: Sequence[float] | None = None,
    note: str = "",
    height: int = HEIGHT,
) -> Any:
    """Every draw as a dot, one column a category, the mean as a short bar: sensitivity at a glance.

    A dot's place beside the middle follows from its rank, so the figure is the same each time.
    `chance`, called `chance_name`, is a dashed line.
    """
    names = [str(name) for name in theme.order(frame[x])]
    places = pd.Series(pd.factorize(frame[x])[0], index=frame.index, dtype=float)
    rank = frame.groupby(x, sort=False)[y].rank(method="first")
    aside = ((rank * 0.618034) % 1 - 0.5) * 0.36  # golden ratio: neighbours in rank fall apart
    data = pd.DataFrame({"_x": places + aside, y: frame[y]})
    means = frame.groupby(x, sort=False)[y].mean().reset_index()
    means = means.assign(_x=means.index - 0.27, _x2=means.index + 0.27)
    axis = alt.Axis(
        values=[float(place) for place in range(len(names))],
        labelExpr=f"{names!r}[datum.value]",
        title=x_title or None,
        labelFontSize=13,
        labelAngle=-40 if theme.phone() else 0,
        labelOverlap=False,
        labelLimit=120,
    )
    x_scale = alt.Scale(domain=[-0.6, len(names) - 0.4], nice=False)
    y_scale = theme.within(y_domain or theme.span(frame[y], [chance]))
    place: Any = {"align": "right", "dy": -8} if theme.phone() else {"align": "left", "dx": 8}
    word = alt.Chart(pd.DataFrame({"_x": [len(names) - 0.4], y: [chance]}))
    word = word.mark_text(color=theme.QUIET, fontSize=12, **place)
    points = alt.Chart(data).mark_point(filled=True, size=46, opacity=0.55, color=theme.QUIET)
    bars = alt.Chart(means).mark_rule(strokeWidth=3, color=theme.INK)
    chart = alt.layer(
        theme.chance(chance, y, "y"),
        word.encode(x=alt.X("_x:Q"), y=alt.Y(f"{y}:Q"), text=alt.value(chance_name)),
        points.encode(
            x=alt.X("_x:Q", axis=axis, scale=x_scale),
            y=alt.Y(f"{y}:Q", title=y_title, scale=y_scale),
        ),
        bars.encode(x=alt.X("_x:Q"), x2=alt.X2("_x2:Q"), y=alt.Y(f"{y}:Q")),
    )
    return theme.finish(theme.sized(chart, WIDTH, height), note, WIDTH)


@renderings.twice
def bars(
    frame: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    *,
    x_title: str = "",
    y_title: str = "",
    note: str = "",
    width: int = WIDTH,
    height: int = 240,
) -> Any:
    """Counts or shares side by side by category (lengths, labels, cues); zero is on the axis."""
    names = theme.order(frame[series])
    kinds = [str(name).partition(", ")[0] for name in names]  # a domain, in the domain's colour
    fills = alt.Scale(domain=names, range=[look[0] for look in theme.looks(kinds)])
    later = [0.45 if kind in kinds[:place] else 1 for place, kind in enumerate(kinds)]
    shades = alt.Scale(type="ordinal", domain=names, range=later)
    legend = theme.legend(
        symbolOpacity=alt.Undefined,
        symbolSize=alt.Undefined,
        symbolType="square",
        columns=2 if len(names) > 2 else 0,
        labelLimit=400,
    )
    axis = alt.Axis(labelAngle=-40 if theme.phone() else 0)
    chart = alt.Chart(frame[[x, y, series]]).mark_bar()
    chart = chart.encode(
        x=alt.X(f"{x}:N", sort=theme.order(frame[x]), title=x_title or None, axis=axis),
        xOffset=alt.XOffset(f"{series}:N", sort=names),
        y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=True), axis=alt.Axis()),
        color=alt.Color(f"{series}:N", scale=fills, legend=legend),
        opacity=alt.Opacity(f"{series}:N", scale=shades, legend=legend),
    )
    return theme.finish(theme.sized(chart, width, height), note, width)


@renderings.twice
def heat(
    frame: pd.DataFrame, x: str, y: str, value: str, *, x_title: str = "", note: str = ""
) -> Any:
    """A table of shares, their numbers on colours from orange (0) over white (0.5) to blue (1)."""
    columns, rows = theme.order(frame[x]), theme.order(frame[y])
    commas = "isNumber(datum.value) ? format(datum.value, ',') : datum.label"
    x_axis = alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False, labelExpr=commas)
    y_axis = alt.Axis(labelLimit=260, labelFontSize=13, labelColor=theme.INK)
    y_scale = alt.Scale(domain=rows)
    if theme.phone():  # a row's name stands above it
        y_axis = alt.Axis(labels=False, ticks=False, domain=False)
        y_scale = alt.Scale(domain=rows, paddingInner=0.42, paddingOuter=0.42)
    at: dict[str, Any] = {
        "x": alt.X(f"{x}:N", sort=columns, title=x_title or None, axis=x_axis),
        "y": alt.Y(f"{y}:N", sort=rows, title=None, axis=y_axis, scale=y_scale),
    }
    scale = alt.Scale(
        domain=[0.0, 0.5, 1.0],
        range=["#C45A00", "#ffffff", "#005F97"],
        interpolate="rgb",
        clamp=True,
    )
    far, text = abs(frame[value] - 0.5) > 0.31, frame[value].map(stats.number)
    base = alt.Chart(frame[[x, y, value]].assign(_far=far, _text=text))
    dark, light = theme.ON_CELLS
    ink = alt.condition("datum._far", alt.value(light), alt.value(dark))
    chart = alt.layer(
        base.mark_rect(stroke="white", strokeWidth=2).encode(
            **at, color=alt.Color(f"{value}:Q", scale=scale, legend=None)
        ),
        base.mark_text(fontSize=13).encode(**at, text=alt.Text("_text:N"), color=ink),
    )
    if theme.phone():
        chart += _names_above(frame, y, at["y"], 26)
        return theme.finish(theme.having(chart, width=NOTE, height=54 * len(rows)), note, NOTE)
    width = min(72, 480 // len(columns)) * len(columns)
    chart = theme.having(chart, width=width, height=34 * len(rows))
    return theme.finish(chart, note, max(width, 420))


@renderings.twice
def reliability(frame: pd.DataFrame, series: str, *, note: str = "", size: int = 340) -> Any:
    """Accuracy against confidence by bin: `metrics.reliability` with a series column.

    The diagonal is perfect calibration, below it the model is too sure of itself; a point's area is
    its share of the examples.
    """
    names = theme.order(frame[series])
    share = frame["n"] / frame.groupby(series, sort=False)["n"].transform("sum")
    data = frame[["confidence", "accuracy", series]].assign(_share=share)
    bottom = min(0.5, float(np.floor(frame["accuracy"].min() * 10) / 10))
    axis = alt.Axis(format=".1f", values=[round(0.1 * i, 1) for i in range(11)])
    x_scale, y_scale = (alt.Scale(domain=[low, 1], nice=False, padding=8) for low in (0.5, bottom))
    at: dict[str, Any] = {
        "x": alt.X(
            "confidence:Q",
            title=theme.lines("confidence: probability of the predicted label", size),
            scale=x_scale,
            axis=axis,
        ),
        "y": alt.Y("accuracy:Q", title="accuracy", scale=y_scale, axis=axis),
    }
    look = theme.look(series, names, theme.legend())
    area = alt.Size("_share:Q", scale=alt.Scale(domain=[0, 1], range=[36, 700]), legend=None)
    diagonal = alt.Chart(pd.DataFrame({"confidence": [0.5, 1.0], "accuracy": [0.5, 1.0]}))
    points = alt.Chart(data).mark_point(filled=True, opacity=1, stroke="white", strokeWidth=0.7)
    chart = alt.layer(
        diagonal.mark_line(color=theme.GREY, strokeDash=[4, 4], strokeWidth=1).encode(**at),
        alt.Chart(data).mark_line(strokeWidth=1.6).encode(**at, color=look["color"]),
        points.encode(**at, **look, size=area),
    )
    size = PHONE if theme.phone() else size
    return theme.finish(theme.having(chart, width=size, height=int(size * 0.9)), note, size + 60)
