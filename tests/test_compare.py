"""Figures that set methods side by side."""

import numpy as np
import pandas as pd

from llmft.report import compare, theme


FRAME = pd.DataFrame(
    {
        "method": ["a", "a", "b", "c"],
        "cost": [1.0, 4.0, 2.0, 2.0],
        "mean": [0.5, 0.9, 0.7, 0.6],
        "lo": [0.4, 0.8, 0.6, 0.5],
        "hi": [0.6, 1.0, 0.8, 0.7],
    }
)


def test_the_frontier_is_what_nothing_cheaper_reaches() -> None:
    best = compare.pareto(FRAME, "cost", "mean")
    assert best["mean"].tolist() == [0.5, 0.7, 0.9]
    assert best["method"].tolist() == ["a", "b", "a"]


RULES = pd.DataFrame({"rule": ["constant"], "accuracy": [0.5]})


def test_what_is_dearer_and_no_better_is_not_on_the_frontier() -> None:
    frame = pd.DataFrame({"cost": [1, 2, 3], "mean": [0.8, 0.8, 0.7]})
    assert compare.pareto(frame, "cost", "mean")["cost"].tolist() == [1]


def test_the_steps_of_the_figure_go_on_to_its_end() -> None:
    spec = compare.frontier(
        FRAME, "cost", "method", x_title="cost", columns=[], rules=RULES, names=["a", "b", "c"]
    ).to_dict()
    steps = next(part for part in spec["layer"] if part["mark"].get("interpolate"))
    rows = spec["datasets"][steps["data"]["name"]]
    assert [row["mean"] for row in rows] == [0.5, 0.7, 0.9, 0.9]
    assert rows[-1]["cost"] > 4


def test_each_quantity_has_a_panel_with_equal_axes_and_the_diagonal() -> None:
    frame = pd.DataFrame(
        {
            "quantity": ["accuracy", "accuracy", "seconds"],
            "method": ["zero-shot", "some", "some"],
            "shots": [0, 8, 8],
            "x": [0.5, 0.8, 3.0],
            "x_lo": [0.4, 0.7, None],
            "x_hi": [0.6, 0.9, None],
            "y": [0.5, 0.6, 2.0],
            "y_lo": [0.4, 0.5, None],
            "y_hi": [0.6, 0.7, None],
        }
    )
    spec = compare.against(frame, ["accuracy", "seconds"]).to_dict()
    accuracy, seconds = spec["vconcat"][0]["hconcat"]
    for panel in (accuracy, seconds):
        axes = panel["layer"][0]["encoding"]
        assert axes["x"]["scale"]["domain"] == axes["y"]["scale"]["domain"]
    guides = [p for p in accuracy["layer"] if p["mark"].get("strokeDash")]
    assert len(guides) == 2  # from both axes to the marked one, which the other panel lacks
    assert not [p for p in seconds["layer"] if p["mark"].get("strokeDash")]
    bars = [p for p in seconds["layer"] if p["mark"]["type"] == "rule"]
    assert all(not spec["datasets"][bar["data"]["name"]] for bar in bars)  # no interval, no bar


def test_each_method_is_drawn_beside_the_base_along_its_learning_rates() -> None:
    names = ["full", "LoRA", "LoRA + text term"]
    points = [
        {"method": name, "mean": 0.6 + 0.1 * i, "lo": 0.5, "hi": 0.9, "perplexity": 5.0 + i}
        | {"lo_text": 4.5 + i, "hi_text": np.nan if i == 2 else 9.0, "chosen": i == 1}
        for name in names
        for i in range(3)
    ]
    chart = compare.tradeoff(pd.DataFrame(points), names=names, start=4.0)
    spec = chart.to_dict()
    panels, data = spec["concat"], spec["datasets"]
    assert [panel["title"]["text"] for panel in panels] == names
    for panel in panels:
        start, base, line, upright, level, hollow, full = panel["layer"]
        assert data[start["data"]["name"]] == [{"perplexity": 4.0}]
        assert base["mark"]["color"] == theme.GREY
        assert [row["_order"] for row in data[line["data"]["name"]]] == [0, 1, 2]
        assert len(data[upright["data"]["name"]]) == len(data[level["data"]["name"]]) == 2
        assert (level["encoding"]["x"]["field"], level["encoding"]["x2"]["field"]) == (
            "lo_text",
            "hi_text",
        )
        assert (len(data[hollow["data"]["name"]]), len(data[full["data"]["name"]])) == (2, 1)
    first, second, third = (panel["layer"][2]["mark"]["color"] for panel in panels)
    assert first != second == third
