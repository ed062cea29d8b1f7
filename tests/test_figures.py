"""Figures as they leave the package: SVG that needs nothing else, legible, true to its frame."""

import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft import inert
from llmft.report import compare, figures, renderings, tables, theme
from llmft.report.renderings import Figure


def points(shots: tuple[int, ...] = (0, 2, 4, 8)) -> pd.DataFrame:
    rows = [
        {
            "shots": n,
            "domain": domain,
            "pattern": pattern,
            "mean": 0.5 + 0.02 * n * (domain == "in-domain"),
            "lo": 0.45 + 0.02 * n * (domain == "in-domain"),
            "hi": 0.55 + 0.02 * n * (domain == "in-domain"),
            "recipe": "two-way t",
            "draws": 10,
            "examples": 1200,
            "level": 0.95,
            "se": 0.02,
            "df": 9,
            "lowest": 0.4 + 0.02 * n * (domain == "in-domain"),
            "highest": 0.6 + 0.02 * n * (domain == "in-domain"),
        }
        for pattern in ("minimal", "gpt-3")
        for domain in ("in-domain", "out-of-domain")
        for n in shots
    ]
    return pd.DataFrame(rows)


def svg(chart: Figure) -> str:
    """The drawing for a page."""
    return renderings.drawn(chart.page)


def size(text: str) -> tuple[float, float]:
    result = re.search(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', text)
    assert result
    return float(result[1]), float(result[2])


MINIMAL = points().query("pattern == 'minimal'")
EIGHT = points((8,))
BINS = pd.DataFrame(
    {
        "confidence": [0.55, 0.75, 0.95] * 2,
        "accuracy": [0.5, 0.6, 0.7, 0.55, 0.75, 0.93],
        "n": [10, 20, 30] * 2,
        "which": ["as scored"] * 3 + ["calibrated"] * 3,
    }
)
FIGURES: dict[str, Callable[[], Figure]] = {
    "curve": lambda: figures.curve(
        MINIMAL, "shots", "domain", draws=MINIMAL.assign(accuracy=MINIMAL["mean"]), note="n " * 99
    ),
    "facets": lambda: figures.curve(points(), "shots", "pattern", facet="domain"),
    "many facets": lambda: figures.curve(
        pd.concat([points().assign(model=m) for m in ("a", "b")]).assign(
            panel=lambda f: f["model"] + ", " + f["domain"]
        ),
        "shots",
        "pattern",
        facet="panel",
    ),
    "panels": lambda: figures.panels(
        BINS, "which", lambda part, note: figures.reliability(part, "which", note=note), note="n"
    ),
    "forest": lambda: figures.forest(EIGHT, "pattern", "domain", note="n"),
    "blocks": lambda: figures.forest(EIGHT, "pattern", "domain", group="shots"),
    "dots": lambda: figures.dots(
        MINIMAL.assign(shots=MINIMAL["shots"].astype(str)), "shots", "mean"
    ),
    "bars": lambda: figures.bars(MINIMAL, "shots", "mean", "domain"),
    "heat": lambda: figures.heat(MINIMAL, "shots", "domain", "mean"),
    "reliability": lambda: figures.reliability(BINS, "which"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_static_legible_and_the_same_each_time(name: str):
    text = svg(FIGURES[name]())
    assert text == svg(FIGURES[name]())
    assert size(text)[0] <= 720  # the width of a page's text, nearly
    sizes = [float(s) for s in re.findall(r'font-size="([\d.]+)', text)]
    assert sizes
    assert min(sizes) >= 12
    assert "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_read_on_a_phone(name: str):
    """One output, SVG alone, holds the drawing for a page and, hidden, that for a phone."""
    (whole,) = FIGURES[name]()._repr_mimebundle_().values()
    assert not list(inert.svg_problems(whole))
    root = ElementTree.fromstring(whole)
    phone = root.find("{http://www.w3.org/2000/svg}svg[@id='phone']")
    assert phone is not None
    assert phone.get("display") == "none"
    assert float(phone.get("width", "")) <= 366
    assert min(float(e.get("font-size", "12").removesuffix("px")) for e in phone.iter()) >= 12
    words, every = ({t.text for t in e.iter() if t.tag.endswith("text")} for e in (phone, root))
    series = {"in-domain", "out-of-domain", "minimal", "gpt-3", "as scored", "calibrated"}
    assert words & series == every & series


def test_every_colour_of_the_book_has_one_for_the_dark():
    """But the two of heat maps, whose cells stay as they are, and orange, which both pages bear."""
    own = {theme.INK, theme.QUIET, theme.GREY, theme.FAINT, *(look[0] for look in theme.LOOKS)}
    assert own - {"#E69F00"} <= set(renderings.DARK)
    (whole,) = FIGURES["curve"]()._repr_mimebundle_().values()
    assert "@media (prefers-color-scheme:dark)" in whole


def test_a_curve_names_its_series_where_they_end_and_draws_chance():
    text = svg(FIGURES["curve"]())
    names = re.findall(r">(in-domain|out-of-domain|chance)<", text)
    assert sorted(names) == ["chance", "in-domain", "out-of-domain"]
    assert text.count("stroke-dasharray") >= 2  # the second series, and chance


def test_the_line_of_a_figure_of_dots_has_the_name_it_is_given():
    text = svg(figures.dots(MINIMAL, "domain", "mean", chance=0.4, chance_name="true share"))
    assert ">true share<" in text
    assert ">chance<" not in text


def test_more_than_three_panels_stand_in_twos_and_each_row_names_its_series():
    spec = FIGURES["many facets"]().to_dict()
    assert (spec["columns"], len(spec["concat"])) == (2, 4)
    texts = re.findall(r">(minimal|gpt-3|chance)<", svg(FIGURES["many facets"]()))
    assert sorted(texts) == ["chance"] * 2 + ["gpt-3"] * 2 + ["minimal"] * 2


def test_the_books_studies_have_names_in_figures_and_a_users_keeps_its_own():
    frame = pd.concat([MINIMAL.assign(panel=f"{s}, in-domain") for s in ("smollm2", "mine")])
    text = svg(figures.curve(frame, "shots", "domain", facet="panel"))
    assert ">SmolLM2-135M, in-domain<" in text
    assert ">mine, in-domain<" in text


def test_a_heat_maps_large_numbers_have_commas():
    text = svg(figures.heat(MINIMAL.assign(shots=1024), "shots", "domain", "mean"))
    assert ">1,024<" in text


def test_panels_are_headed_by_their_value_and_one_is_none():
    spec = FIGURES["panels"]().to_dict()
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["as scored", "calibrated"]
    assert "n" in spec["title"]["text"]
    alone = figures.panels(
        BINS, "", lambda part, note: figures.reliability(part, "which", note=note)
    )
    assert alone.to_dict() == figures.reliability(BINS, "which").to_dict()


def test_series_differ_in_shape_and_dash_as_well_as_in_colour():
    for part in range(3):
        assert len({str(look[part]) for look in theme.LOOKS[:7]}) == 7


def test_a_method_looks_the_same_in_every_figure():
    icl = theme.looks(["ICL"])[0]
    for names in (["zero-shot", "ICL"], ["LoRA", "a variant", "ICL", "b"], [*theme.PLACES]):
        looks = dict(zip(names, theme.looks(names), strict=True))
        assert looks["ICL"] == icl
        assert [own for name, own in looks.items() if own == icl and name != "ICL"] == []
    assert len({str(look) for look in theme.looks(list("abcdefg"))}) == 7
    assert len(theme.looks(list("abcdefgh"))) == 8  # then from the first again


def test_names_at_the_ends_are_in_the_order_of_the_lines_or_of_the_first_panel():
    rows = [("a", 0.9, 0.5), ("b", 0.6, 0.5), ("c", 0.75, 0.5)]
    frame = pd.DataFrame(
        [
            {"shots": shots, "series": name, "domain": domain, "mean": y, "lo": y, "hi": y}
            for name, *ends in rows
            for domain, y in zip(("in", "out"), ends, strict=True)
            for shots in (2, 4)
        ]
    )
    for part, order in ((frame, ["a", "c", "b"]), (frame[frame["domain"] == "in"], list("acb"))):
        text = svg(figures.curve(part, "shots", "series", facet="domain", chance=None))
        places = {
            name: float(re.search(rf"translate\([\d.]+,([\d.]+)\)[^>]*>{name}<", text)[1])
            for name in "abc"
        }
        assert sorted(places, key=places.__getitem__) == order
    # At heights of their own the last panel's lines are named, whatever the first one has.
    last = frame["domain"].eq("out") & frame["series"].eq("b")
    apart = frame.assign(mean=frame["mean"].where(~last, 0.55))
    text = svg(figures.curve(apart, "shots", "series", facet="domain", chance=None))
    found = re.findall(r"translate\([\d.]+,([\d.]+)\)[^>]*>([abc])<", text)
    assert [name for _, name in sorted((float(y), name) for y, name in found)] == ["b", "a", "c"]


def test_zero_shots_stand_one_step_before_the_first_and_are_joined_by_no_line():
    assert theme.steps([0, 2, 4, 32]) == {0: 0.0, 2: 1.0, 4: 2.0, 32: 5.0}
    spec = FIGURES["curve"]().to_dict()
    lines = [layer for layer in spec["layer"] if layer["mark"].get("type") == "line"]
    (data,) = [spec["datasets"][layer["data"]["name"]] for layer in lines]
    assert len(data) == 6  # 2 series at 2, 4 and 8


@pytest.mark.parametrize("shots", [(0, 1, 2), (0, 2, 4)])
def test_every_tick_has_its_label(shots: tuple[int, ...]):
    frame = points(shots).query("pattern == 'minimal' and domain == 'in-domain'")
    text = svg(figures.curve(frame, "shots", "domain", chance=None, y_domain=[0.3, 0.9]))
    assert [int(n) for n in re.findall(r">(\d+)<", text)] == list(shots)


def test_a_narrow_panel_has_every_size_that_was_measured():
    sizes = (0, 2, 4, 8, 16, 32, 64, 128, 1024)
    frame = points(sizes).query("pattern == 'minimal'")
    text = svg(figures.curve(frame, "shots", "pattern", facet="domain", y_domain=[0.3, 0.9]))
    assert re.findall(r">([\d,]+)<", text) == [f"{size:,}" for size in sizes] * 2


def test_a_panel_has_ticks_only_at_what_was_measured_in_it():
    parts = [points(sizes).assign(domain=str(sizes)) for sizes in ((2, 4, 8), (4, 1024))]
    frame = pd.concat(parts).query("pattern == 'minimal'")
    text = svg(figures.curve(frame, "shots", "pattern", facet="domain", y_domain=[0.3, 0.9]))
    assert re.findall(r">([\d,]+)<", text) == ["2", "4", "8", "4", "1,024"]


def test_a_legend_names_all_series_where_no_end_can():
    """One has no line in the first panel, one ends before the right edge of the last."""
    rows = [("a", "in", 8), ("a", "out", 8), ("b", "in", 8), ("b", "out", 4), ("c", "out", 8)]
    frame = pd.DataFrame(
        {"series": name, "domain": domain, "shots": shots, "mean": 0.6, "lo": 0.5, "hi": 0.7}
        for name, domain, last in rows
        for shots in (2, last)
    )
    figure = figures.curve(frame, "shots", "series", facet="domain")
    for drawing in (figure.page, figure.phone):
        text = renderings.drawn(drawing)
        assert sorted(re.findall(r">([abc])<", text)) == ["a", "b", "c"]
        assert "role-legend-label" in text


def test_the_name_of_a_line_stands_where_it_hides_nothing():
    panel = theme.Panel(300, 100, [0, 1], [(0, 140, 0.0, 1.0), (140, 300, 0.0, 0.5)])
    first, second = (panel.name("chance", 0.5, right=True).to_dict() for _ in range(2))
    assert first["encoding"]["x"]["value"] + 6.5 * 6 + 6 == 300
    assert first["mark"]["dy"] < 0  # above the line, at the right
    assert second["encoding"]["x"] != first["encoding"]["x"]  # where the first is not


def test_two_bars_of_a_domain_have_its_colour():
    frame = points((8,)).assign(part=lambda f: f["domain"] + ", " + f["pattern"])
    text = svg(figures.bars(frame, "shots", "mean", "part"))
    for domain in ("in-domain", "out-of-domain"):
        ((colour, *_),) = theme.looks([domain])
        bars = re.findall(rf'<path[^>]*fill="{colour}"[^>]*?(?: opacity="([\d.]+)")?/>', text)
        assert set(bars) >= {"0.45", "1"} or set(bars) >= {"0.45", ""}


def test_a_missing_interval_leaves_its_point():
    frame = points((2, 4)).query("pattern == 'minimal'").assign(lo=np.nan, hi=np.nan)
    spec = figures.curve(frame, "shots", "domain").to_dict()
    counts = [
        len(spec["datasets"][layer["data"]["name"]])
        for layer in spec["layer"]
        if layer["mark"].get("type") == "point"
    ]
    assert counts == [4]
    assert "NaN" not in svg(figures.curve(frame, "shots", "domain"))


def test_one_series_one_point():
    frame = points((8,)).query("pattern == 'minimal' and domain == 'in-domain'")
    assert "in-domain" not in re.findall(
        r">([\w-]+)<", svg(figures.curve(frame, "shots", "domain"))
    )


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.floats(0.01, 0.3),
)
def test_labels_are_set_apart_in_order_and_no_further_than_needed(targets: list[float], gap: float):
    heights = theme.spread(targets, gap)
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    for a, b in pairwise(order):
        assert heights[b] - heights[a] >= gap - 1e-9
    assert np.mean(heights) == pytest.approx(np.mean(targets))
    if len(targets) == 1:
        assert heights == targets


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_an_axis_holds_its_values_and_shares_stay_shares(values: list[float]):
    low, high = theme.span(values, [0.5])
    assert 0 <= low <= min(values)
    assert max(values) <= high <= 1


def test_with_interval_is_what_the_caption_counts():
    frame = points((8,)).query("pattern == 'minimal'")
    table = tables.with_interval(frame)
    assert table["accuracy"].tolist() == ["0.66 [0.61, 0.71]", "0.50 [0.45, 0.55]"]
    assert table["n"].tolist() == ["10 × 1,200"] * 2
    assert list(table) == ["shots", "domain", "pattern", "accuracy", "n"]
    lonely = tables.with_interval(frame.assign(lo=np.nan, hi=np.nan))
    assert lonely["accuracy"].tolist() == [
        "0.66 (10 draws: 0.56 to 0.76)",
        "0.50 (10 draws: 0.40 to 0.60)",
    ]


def test_markdown_is_a_pipe_table():
    frame = pd.DataFrame(
        {"name": ["a|b", "two\nlines"], "n": [1200, 7], "share": [0.123, np.nan], "p": [0.0004, 1]}
    )
    assert tables.markdown(frame, {"p": ".3f"}).splitlines() == [
        "| name | n | share | p |",
        "| :--- | ---: | ---: | ---: |",
        "| a&#124;b | 1,200 | 0.12 | 0.000 |",
        "| two lines | 7 | – | 1.000 |",
    ]


def test_tables_and_text_are_markdown_only(capsys: pytest.CaptureFixture[str]):
    from IPython.core.interactiveshell import InteractiveShell

    outputs = []
    shell = InteractiveShell.instance()
    publish, shell.display_pub.publish = (
        shell.display_pub.publish,
        lambda data, *_, **__: outputs.append(data),
    )
    try:
        tables.table(pd.DataFrame({"a": [1]}))
        tables.say("so")
    finally:
        shell.display_pub.publish = publish
        InteractiveShell.clear_instance()
    assert [set(data) for data in outputs] == [{"text/plain", "text/markdown"}] * 2


def test_what_needs_no_model_is_a_named_line_in_its_panel():
    rules = pd.DataFrame(
        {
            "rule": ["constant", "best cue", "constant"],
            "accuracy": [0.5, 0.505, 0.5],
            "domain": ["in-domain", "in-domain", "out-of-domain"],
        }
    )
    frame = points().query("pattern == 'minimal'")
    text = svg(figures.curve(frame, "shots", "pattern", facet="domain", chance=None, rules=rules))
    assert "best cue, constant" in text  # too near each other for a line of text each
    assert text.count(">constant<") == 1
    assert "chance" not in text


def test_a_scatter_has_a_dot_a_row_and_its_line_of_least_squares():
    frame = pd.DataFrame({"x": [0.2, 0.4, 0.6, 0.5], "y": [0.4, 0.8, 1.2, 0.7], "p": list("aaab")})
    chart = figures.scatter(frame, "x", "y", facet="p", x_title="share")
    text = str(chart.to_dict())
    assert "share" in text
    lines = [d for d in chart.to_dict()["datasets"].values() if len(d) == 2]
    [line] = lines  # one dot alone has no line
    assert [point["y"] for point in line] == pytest.approx([0.4, 1.2])


def test_forgetting_joins_a_method_without_and_with_the_text_term():
    rows = [
        {"method": m, "term": t, "mean": 0.8, "lo": 0.7, "hi": 0.9}
        | {"mean_text": x, "lo_text": x / 2, "hi_text": 2 * x}
        for m, x0, x1 in (("full", 70.0, 5.6), ("LoRA", 1e5, 6.0))
        for t, x in (("without", x0), ("with", x1))
    ]
    rules = pd.DataFrame({"rule": ["cue classifier"], "accuracy": [0.95]})
    frame = pd.DataFrame(rows)
    text = svg(compare.forgetting(frame, start=5.3, rules=rules, note="note"))
    for word in ("full", "LoRA", "perplexity of plain sentences", "cue classifier", "note"):
        assert word in text
