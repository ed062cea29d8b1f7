"""The book in a real browser; and the checks themselves, on a site with every fault."""

import json
import shutil
from pathlib import Path

import altair as alt
import pandas as pd
import pytest

from llmft import ROOT
from llmft.book import render
from llmft.report import interactive
from llmft.report.renderings import Svg
from tests import chromium, site, toy_book


pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium on PATH, nor in $CHROMIUM: pages are not looked at"
)

BROKEN = """<!DOCTYPE html><html lang="en"><head><title>Broken</title>
<link rel="preconnect" href="https://fonts.example.org"><link rel="icon" href="data:,">
<style>.pale { color: #bbb } .box { overflow-x: auto } td { white-space: nowrap }
.cut { overflow: hidden; white-space: nowrap } .card { background: #fff; height: 200px }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }</style></head>
<body><main><h1>One</h1><h3>Three</h3>
<p class="pale">pale words</p>
<p><a href="gone.html">x</a> <a href="#nowhere">y</a> <a href="good.html#there">z</a></p>
<p><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="> <img src="gone.png" alt="gone"></p>
<table id="wide"><tr><td>WIDE</td></tr></table>
<div class="box"><table id="boxed"><tr><td>WIDE</td></tr></table></div>
<p class="cut" id="cut">WIDE</p><div class="card" id="card"></div><p>0.5 [0.4, 0.6]</p>
<figure id="float"><p>A sentence that has fallen into the box of a figure.</p></figure>
<svg id="axis" role="img" aria-label="An axis"><g class="role-axis-label">
<text x="9" y="20">1,000</text><text x="19" y="20">1,001</text></g></svg>
<svg id="white" aria-label="White" width="400" height="99" style="background: #fff"></svg>
<img id="drawn" alt="Drawn" src="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'
width='99' height='40'%3E%3Ctext x='60' y='20'%3Ecut off%3C/text%3E%3C/svg%3E">
<script>console.error("a complaint"); setTimeout(() => { undefinedFunction() }, 0);
fetch("https://example.org/beacon").catch(() => 0)</script></main></body></html>""".replace(
    "WIDE", "wide " * 300
)

GOOD = """<!DOCTYPE html><html lang="en"><head><title>Good</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>div { overflow-x: auto } td { white-space: nowrap }
td:first-child { position: sticky; left: 0 }</style>
</head><body><main><h1 id="there">Good</h1><p><a href="#there">here</a> 0.5 [0.4,&nbsp;0.6]</p>
<div><table><tr><td>a</td><td>WIDE</td></tr></table></div></main></body></html>
""".replace("WIDE", "wide " * 300)


def test_every_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(BROKEN)
    (tmp_path / "good.html").write_text(GOOD)
    found = site.look(tmp_path)
    said = "\n".join(found["broken.html"].wrong)
    for what in (
        "the page is ",
        "in #wide ends at",
        "<img> has no alt text",
        "<img> shows no image",
        "404 for gone.png",
        'heading "Three" leaves out a level',
        "contrast 1.9 of rgb(187, 187, 187) on rgb(255,255,255)",
        "<link> is from https://fonts.example.org",
        "requests https://example.org/beacon",
        "console: a complaint",
        "exception: ReferenceError: undefinedFunction",
        "links to gone.html, which does not exist",
        "links to broken.html#nowhere, which does not exist",
        "<p> in #cut is cut off",
        "<table> in #boxed scrolls, and its first column with it",
        "<p> in #float is text within a figure",
        "has an interval that may break: [0.4, 0.6]",
        '<svg> in #axis has words that lie over each other: "1,000" and "1,001"',
        '<img> in #drawn cuts off "cut off"',
        "<svg> in #white is a white card on a dark page",
        "<div> in #card is a white card on a dark page",
    ):
        assert what in said
    assert "#boxed ends" not in said
    white = next(line for line in site.problems(found) if "white card" in line)
    assert "[1280 dark, 390 dark]" in white
    assert "good.html#there" not in said
    assert found["good.html"].wrong == {}
    assert "[390 light, 390 dark]: the page is" not in "\n".join(site.problems(found))
    (tmp_path / "good.html").write_text(GOOD.replace("light dark", "light"))
    assert list(site.look(tmp_path)["good.html"].wrong) == ["is not dark"]


DATA = ("results", "pocket", "students", "cards", "mnli-hans")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the book is rendered from."""
    copy = tmp_path_factory.mktemp("book")
    for name in ("chapters", "params", *(f"data/{part}" for part in DATA)):
        shutil.copytree(ROOT / name, copy / name)
    for pattern in ("*.yml", "*.qmd", "*.bib", "*.scss", "*.svg"):
        for path in ROOT.glob(pattern):
            shutil.copyfile(path, copy / path.name)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "quarto"])
def test_the_book_has_no_fault(book: Path, how: str) -> None:
    if how == "quarto" and render.find() is None:
        pytest.skip("no Quarto on PATH: only the plain pages are looked at")
    render.render(book, plain=how == "plain")
    found = site.look(book / "_book", views=site.TWO_VIEWS)
    assert len(found) > 5
    assert site.problems(found) == []


METHODS = ["fine-tuning", "LoRA"]


def answering() -> Svg:
    frame = pd.DataFrame({"method": METHODS, "at": [1, 2], "accuracy": [0.61234, 0.7]})
    chart = alt.Chart(frame).mark_point(filled=True, size=400, opacity=1)
    return interactive.figure(
        chart.encode(x="at:Q", y="accuracy:Q", color="method:N"),
        "method",
        tooltip=["method", alt.Tooltip("accuracy:Q", title="share right", format=".2f")],
    )


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """The plain pages of a book whose chapter shows an interactive figure."""
    path = toy_book.make(tmp_path / "book")
    notebook = json.loads(path.read_text())
    shown = {"output_type": "display_data", "metadata": {}}
    shown["data"] = {"image/svg+xml": answering().svg}
    notebook["cells"][3]["outputs"] = [shown]
    path.write_text(json.dumps(notebook))
    render.render(tmp_path / "book", plain=True)
    return tmp_path / "book" / "_book"


def opacities(tab: chromium.Tab) -> list[float]:
    marks = 'document.querySelectorAll(".mark-symbol.role-mark path")'
    return list(tab.run(f"[...{marks}].map((e) => +(e.getAttribute('opacity') ?? 1))"))


def test_an_interactive_figure_answers(rendered: Path) -> None:
    assert "vega.js" not in (rendered / "index.html").read_text()
    with site.served(rendered) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/toy.html")
        assert site._events(tab, address) == []
        assert tab.run('document.querySelector("figure svg").ariaLabel') == "A diagonal line."
        assert not tab.run('document.querySelector("figure img").checkVisibility()')
        assert opacities(tab) == [1, 1]
        mark = 'document.querySelector(".mark-symbol.role-mark path").getBoundingClientRect()'
        tab.mouse(tab.run(f"{mark}.x") + 8, tab.run(f"{mark}.y") + 8)
        said = tab.run('document.querySelector("#vg-tooltip-element").innerText')
        assert said.split() == ["method", "fine-tuning", "share", "right", "0.61"]
        tab.run('document.querySelector(".vega-bind input").click()')
        tab.settle(0.1)
        assert opacities(tab) == [interactive.FAINT, 1]
        names = tab.run(
            '[...document.querySelectorAll(".vega-bind")].map((e) => e.innerText.trim())'
        )
        assert names == METHODS


def test_without_its_script_a_figure_stays_static(rendered: Path) -> None:
    (rendered / "vega.js").write_text("")
    with site.served(rendered) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/toy.html")
        assert site._events(tab, address) == []
        assert tab.run('document.querySelector("figure img").checkVisibility()')
        assert tab.run('document.querySelectorAll("figure svg").length') == 0
