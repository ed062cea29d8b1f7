"""A figure that answers: hover for the numbers, boxes to tick for what is compared.

What a chapter shows and freezes stays a static SVG. The interactive figure's Vega-Lite
specification travels inside that SVG, as `<metadata>`, which no viewer draws. When the book is
rendered, `pages.finish` adds one local script to the pages that hold such a figure; it reads the
specification and puts the interactive figure in the static one's place. Without JavaScript, or
without the script, the static figure stays.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import pandas as pd


FAINT = 0.07
"""The opacity of what is not ticked: context, no longer a value to read."""

POINTS = ("point", "circle", "square", "bar", "rect", "tick")
"""The marks that say their numbers when hovered over."""

Spec = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure as a notebook shows it: SVG alone."""

    svg: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"image/svg+xml": self.svg}


def figure(
    chart: Any, by: str, names: Sequence[str] = (), *, tooltip: Sequence[Any] = ()
) -> Figure:
    """The chart, static in the notebook and interactive on the book's pages.

    Args:
        chart: an Altair chart, layered or concatenated ones included.
        by: the column whose values are ticked and unticked, such as "method". Marks whose data has
            this column follow the boxes, and so do `theme`'s names at the lines' ends.
        names: the values to tick, in their order; all that the chart's data holds, if empty.
        tooltip: columns of the points' data that a point says when hovered over (`["method",
            alt.Tooltip("mean:Q", title="accuracy", format=".3f")]`); if empty, all that do not
            begin with an underscore.

    Raises:
        ValueError: no data of the chart has the column `by`.
    """
    svg = StringIO()
    chart.save(svg, format="svg")
    spec = chart.to_dict()
    spec.pop("$schema", None)
    units = list(_units(spec, spec.get("datasets", {}), []))
    values = [row[by] for _, rows in units for row in rows if by in row]
    if not values:
        raise ValueError(f"no data of the chart has a column {by!r}")
    names = list(names) or list(dict.fromkeys(values))
    spec["params"] = spec.get("params", []) + [
        {"name": f"show{i}", "value": True, "bind": {"input": "checkbox", "name": str(name)}}
        for i, name in enumerate(names)
    ]
    boxes = f"[{', '.join(f'show{i}' for i in range(len(names)))}]"
    for unit, rows in units:
        mark = {"type": unit["mark"]} if isinstance(unit["mark"], str) else unit["mark"]
        encoding = unit.setdefault("encoding", {})
        column = by if any(by in row for row in rows) else "_text"
        if any(row.get(column) in names for row in rows):
            place = f"indexof({json.dumps(names)}, datum[{json.dumps(column)}])"
            usual = encoding.get("opacity", {"value": mark.get("opacity", 1)})
            test = f"{place} >= 0 && !{boxes}[{place}]"
            encoding["opacity"] = {"condition": {"test": test, "value": FAINT}, **usual}
        if mark["type"] in POINTS and column == by:
            encoding["tooltip"] = _tooltip(rows, tooltip)
    data = escape(json.dumps(spec, separators=(",", ":"), ensure_ascii=False), quote=False)
    head, end, rest = svg.getvalue().partition(">")
    return Figure(f'{head}{end}<metadata id="vega-lite">{data}</metadata>{rest}')


def _units(spec: Spec, data: dict[str, Any], above: list[Any]) -> Iterator[tuple[Spec, list[Any]]]:
    """Every part of the specification that draws marks, with the rows that it draws."""
    own = spec.get("data") or {}
    rows = own.get("values", data.get(own.get("name", ""), above))
    if "mark" in spec:
        yield spec, rows
    for key in ("layer", "concat", "hconcat", "vconcat"):
        for part in spec.get(key, []):
            yield from _units(part, data, rows)
    if isinstance(spec.get("spec"), dict):
        yield from _units(spec["spec"], data, rows)


def _tooltip(rows: list[Any], fields: Sequence[Any]) -> list[Spec]:
    """What a point says: these fields, else all columns that are not the figure's own."""
    frame = pd.DataFrame(rows)
    numbers = set(frame.select_dtypes("number"))

    def column(name: str) -> Spec:
        kind = (
            {"type": "quantitative", "format": ",.4~g"} if name in numbers else {"type": "nominal"}
        )
        return {"field": name, **kind}

    if not fields:
        return [column(name) for name in map(str, frame) if not name.startswith("_")]
    return [column(entry) if isinstance(entry, str) else entry.to_dict() for entry in fields]
