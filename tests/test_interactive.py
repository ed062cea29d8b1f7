"""Interactive figures as the notebook holds them: static SVG that carries what a page needs."""

import json
import re
from html import unescape
from typing import Any

import altair as alt
import pandas as pd

from llmft.report import figures, interactive
from llmft.report.renderings import Svg


FRAME = pd.DataFrame(
    [
        {"shots": k, "method": name, "mean": at, "lo": at - 0.1, "hi": at + 0.1}
        for name, at in (("in-context <b> & 'learning'", 0.5), ("LoRA", 0.7))
        for k in (2, 8)
    ]
)
CHART = figures.curve(FRAME, "shots", "method")


def carried(figure: Svg) -> dict[str, Any]:
    result = re.search(r'<metadata id="vega-lite">(.*?)</metadata>', figure.svg, re.DOTALL)
    assert result
    spec: dict[str, Any] = json.loads(unescape(result[1]))
    return spec


def test_a_notebook_holds_the_static_figure_alone() -> None:
    figure = interactive.figure(CHART, "method", tooltip=["mean"])
    assert set(figure._repr_mimebundle_()) == {"image/svg+xml"}
    static = re.sub(r"<metadata.*?</metadata>", "", figure.svg, flags=re.DOTALL)
    assert static == CHART._repr_mimebundle_()["image/svg+xml"]
    assert figure == interactive.figure(CHART, "method", tooltip=["mean"])
    assert "http" not in figure.svg.replace("http://www.w3.org", "")


def test_every_layer_with_the_column_follows_the_boxes_and_no_other_does() -> None:
    spec = carried(interactive.figure(CHART, "method", tooltip=["method", "mean"]))
    assert [p["bind"]["name"] for p in spec["params"]] == list(FRAME["method"].unique())
    layers = spec["layer"]
    data = [spec["datasets"][layer["data"]["name"]][0] for layer in layers]
    follows = ["condition" in layer["encoding"].get("opacity", {}) for layer in layers]
    names = set(FRAME["method"])
    assert follows == ["method" in row or row.get("_text") in names for row in data]
    assert {layer["mark"]["type"] for layer in layers if "tooltip" in layer["encoding"]} == {
        "point"
    }
    [tooltips] = [
        layer["encoding"]["tooltip"] for layer in layers if "tooltip" in layer["encoding"]
    ]
    assert [line["field"] for line in tooltips] == ["method", "mean"]


def test_what_was_faint_stays_so() -> None:
    chart = alt.Chart(FRAME).mark_point(opacity=0.3).encode(x="shots:Q", y="mean:Q")
    opacity = carried(interactive.figure(chart, "method", tooltip=["mean"]))["encoding"]["opacity"]
    assert opacity["value"] == 0.3
    assert opacity["condition"]["value"] == interactive.FAINT
