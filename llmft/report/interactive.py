"""A figure that answers: hover for the numbers, boxes to tick for what is compared.

What a chapter shows and freezes stays a static SVG. The interactive figure's Vega-Lite
specification travels inside that SVG, as `<metadata>`, which no viewer draws. When the book is
rendered, `pages.finish` adds one local script to the pages that hold such a figure; it reads the
specification and puts the interactive figure in the static one's place. Without JavaScript, or
without the script, the static figure stays.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from html import escape
from typing import Any

import altair as alt
import pandas as pd

from llmft.report import renderings
from llmft.report.renderings import Svg


FAINT = 0.07
"""The opacity of what is not ticked: context, no longer a value to read."""

Spec = dict[str, Any]


def figure(chart: Any, by: str, *, tooltip: Sequence[str | alt.Tooltip]) -> Svg:
    """The chart, static in the notebook and interactive on the book's pages.

    Args:
        chart: an Altair chart, or a `renderings.Figure`, whose chart for a page answers.
        by: the column whose values are ticked and unticked, such as "method". Marks whose data has
            this column follow the boxes, and so do `theme`'s names at the lines' ends.
        tooltip: what a point with this column says when hovered over, columns of its data
            (`["method", alt.Tooltip("mean:Q", title="accuracy", format=".3f")]`).
    """
    svg = chart.svg if isinstance(chart, renderings.Figure) else renderings.drawn(chart)
    spec = chart.to_dict()
    spec.pop("$schema")
    units = list(_units(spec, spec["datasets"], []))
    names = list(dict.fromkeys(row[by] for _, rows in units for row in rows if by in row))
    spec["params"] = [
        {"name": f"show{i}", "value": True, "bind": {"input": "checkbox", "name": str(name)}}
        for i, name in enumerate(names)
    ]
    boxes = f"[{', '.join(param['name'] for param in spec['params'])}]"
    for unit, rows in units:
        encoding = unit["encoding"]
        column = by if any(by in row for row in rows) else "_text"
        if any(row.get(column) in names for row in rows):
            place = f"indexof({json.dumps(names)}, datum[{json.dumps(column)}])"
            usual = encoding.get("opacity", {"value": unit["mark"].get("opacity", 1)})
            test = f"{place} >= 0 && !{boxes}[{place}]"
            encoding["opacity"] = {"condition": {"test": test, "value": FAINT}, **usual}
        if unit["mark"]["type"] == "point" and column == by:
            numbers = list(pd.DataFrame(rows).select_dtypes("number"))
            encoding["tooltip"] = [_line(one, numbers) for one in tooltip]
    data = escape(json.dumps(spec, separators=(",", ":"), ensure_ascii=False), quote=False)
    head, end, rest = svg.partition(">")
    return Svg(f'{head}{end}<metadata id="vega-lite">{data}</metadata>{rest}')


def _units(spec: Spec, data: dict[str, Any], above: list[Any]) -> Iterator[tuple[Spec, list[Any]]]:
    """Every part of the specification that draws marks, with the rows that it draws."""
    rows = data[spec["data"]["name"]] if "data" in spec else above
    if "mark" in spec:
        yield spec, rows
    for key in ("layer", "concat", "hconcat", "vconcat"):
        for part in spec.get(key, []):
            yield from _units(part, data, rows)


def _line(entry: str | alt.Tooltip, numbers: Collection[Any]) -> Any:
    """One line of what a point says; `numbers` are the columns that hold numbers."""
    if not isinstance(entry, str):
        return entry.to_dict()
    kind = {"type": "quantitative", "format": ",.4~g"} if entry in numbers else {"type": "nominal"}
    return {"field": entry, **kind}
