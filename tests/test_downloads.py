"""What the pages offer to take away, where their numbers come from, and what figures become."""

import base64
import json
import re
from pathlib import Path

import pytest

from llmft import ROOT
from llmft.book import downloads, figures, gate, origins, pages, render, stamp
from llmft.report import renderings
from tests import toy_book
from tests.toy_book import read, write


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" viewBox="0 0 40 30">'
    '<rect width="40" height="30" fill="red"/></svg>'
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A book with a figure, a computed sentence, and rows of runs."""
    path = toy_book.make(tmp_path / "book")
    notebook = read(path)
    shown = [{"image/svg+xml": SVG}, {"text/markdown": "| a |\n|--|\n| 1 |\n"}]
    for index, data in zip((3, 4), shown, strict=True):
        notebook["cells"][index]["outputs"] = [
            {"output_type": "display_data", "metadata": {}, "data": data}
        ]
    said = toy_book.cell("code", "x = 1")
    said["outputs"] = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"text/markdown": "It is 0.52 [0.43, 0.61], n = 10 × 400, at 95 %."},
        }
    ]
    notebook["cells"].append(said)
    write(path, notebook)
    head = "key,study,task,data_seed,rounds,train_seconds,eval_seconds,peak_memory_mib\n"
    rows = [  # the second round's seconds are those of the first, too
        "a,tiny,toy,0,1,40,30,1024",
        "b,tiny,toy,0,2,60,30,9",
        "c,tiny,toy,1,,,60,9",
    ]
    (tmp_path / "book/data/results/toy.csv").write_text(head + "\n".join(rows) + "\n")
    (tmp_path / "book/data/results/toy.parquet").write_bytes(b"answers")
    return tmp_path / "book"


def test_a_figure_comes_as_svg_and_png_with_its_data(root: Path) -> None:
    render.render(root, plain=True)
    page = (root / "_book/chapters/toy.html").read_text()
    for end in ("svg", "png"):
        assert f'<a href="../figures/fig-line.{end}" download>' in page
    assert (root / "_book/figures/fig-line.svg").read_text() == SVG
    assert (root / "_book/figures/fig-line.png").read_bytes().startswith(b"\x89PNG")
    assert '<a href="../data/results/toy.csv" download>data' in page


def test_a_figure_that_answers_has_its_specification(root: Path) -> None:
    path = root / "chapters/toy.ipynb"
    notebook = read(path)
    spec = SVG.replace("<rect", '<metadata id="vega-lite">{"a": "x &lt; y"}</metadata><rect')
    notebook["cells"][3]["outputs"][0]["data"]["image/svg+xml"] = spec
    page = '<figure id="fig-line"></figure>'
    (root / "out").mkdir()
    found = figures.links(page, notebook, "toy", root / "out")
    assert "fig-line.json" in found
    assert json.loads((root / "out/figures/fig-line.json").read_text()) == {"a": "x < y"}


def test_a_chapter_says_how_to_run_it_again_and_what_it_cost(root: Path) -> None:
    render.render(root, plain=True)
    page = (root / "_book/chapters/toy.html").read_text()
    assert "papermill chapters/toy.ipynb out.ipynb -k python3" in page
    assert "tiny 3 minutes of training and scoring" in page
    assert "at most 1.0 GiB" in page
    assert "colab" not in page


def test_only_the_publishing_profile_links_to_other_machines(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "book:\n  site-url: https://a.example/b\n  repo-url: https://github.com/some/one\n"
    (root / "_quarto-publish.yml").write_text(text)
    render.render(root, plain=True)
    assert "binder" not in (root / "_book/chapters/toy.html").read_text()
    monkeypatch.setenv("QUARTO_PROFILE", "publish")
    (root / "data/results/comparison.svg").write_text(SVG)
    render.render(root, plain=True)
    page = (root / "_book/chapters/toy.html").read_text()
    assert "https://mybinder.org/v2/gh/some/one/main?labpath=chapters%2Ftoy.ipynb" in page
    assert "https://colab.research.google.com/github/some/one/blob/main/chapters/toy.ipynb" in page
    assert '<meta property="og:image" content="https://a.example/b/card.png">' in page
    assert (root / "_book/card.png").read_bytes().startswith(b"\x89PNG")


def test_the_book_in_a_page_of_text(root: Path) -> None:
    render.render(root, plain=True)
    text = (root / "_book/llms.txt").read_text()
    assert text.startswith("# Toy\n")
    assert "- [A toy](chapters/toy.html): " in text
    assert "- [data/results/toy.csv](data/results/toy.csv)" in text
    assert 'href="llms.txt"' in (root / "_book/index.html").read_text()
    (root / "_book/Toy.pdf").write_bytes(b"%PDF" * 50_000)
    assert '<a href="Toy.pdf">Toy.pdf</a>: the whole book as PDF (0.2 MB)' in downloads.of_book(
        root, root / "_book"
    )


def test_the_claims_of_the_comparison_are_a_file_of_the_site(root: Path) -> None:
    (root / "data/results/comparison-claims.json").write_text("[]\n")
    render.render(root, plain=True)
    assert (root / "_book/claims.json").read_text() == "[]\n"
    assert 'href="claims.json"' in (root / "_book/index.html").read_text()
    assert "(claims.json)" in (root / "_book/llms.txt").read_text()


def test_an_interval_links_to_its_code_and_rows(root: Path) -> None:
    render.render(root, plain=True)
    page = (root / "_book/chapters/toy.html").read_text()
    link = re.search(r'<a class="from" href="#(from-\d+)">0.52 \[0.43,\u00a00.61\]</a>', page)
    assert link
    note = page.partition(f'id="{link[1]}"')[2]
    assert "3 runs" in note.partition("</p>")[0]
    assert "../data/results/toy.csv" in note.partition("</p>")[0]
    assert "llmft verify" in note.partition("</p>")[0]
    assert note.partition("</p>")[2].startswith('<div class="sourceCode"')  # in the code's fold
    assert "n\u00a0=\u00a010\u00a0×\u00a0400, at 95\u00a0%" in page


def test_code_and_tables_keep_their_numbers() -> None:
    page = (
        '<main><details><summary>Code</summary>\n<div class="sourceCode cell-code">'
        "<pre>0.5 [0.4, 0.6]</pre></div></details><table><td>0.5 [0.4, 0.6]</td></table>"
        "<p><code>0.5 [0.4, 0.6]</code> 0.5 [0.4, 0.6]</p></main><p>0.5 [0.4, 0.6]</p>"
    )
    found = origins.link(page, "note")
    assert found.count("[0.4,\u00a00.6]") == 2
    assert found.count('class="from" href') == 1
    assert '<p class="from" id="from-1">note</p><div class="sourceCode cell-code">' in found
    assert origins.link(page).count("href") == 0


def test_text_leaves_the_float_that_swallowed_it() -> None:
    table = "<figure><figcaption><p>Caption</p></figcaption><p>Head</p><table></table>"
    assert (
        figures.free(f"{table}<p>Words</p>\n<ul><li>more</li></ul></figure>")
        == f"{table}</figure><p>Words</p>\n<ul><li>more</li></ul>"
    )
    figure = '<figcaption><p>Caption</p></figcaption>{}<p><img src="a"></p>'
    swallowed = f"<figure>{figure.format('<p>Words</p>')}</figure>"
    assert figures.free(swallowed) == f"<p>Words</p><figure>{figure.format('')}</figure>"
    assert figures.free(f"{table}</figure>") == f"{table}</figure>"


PARTED = """<div id="fig-x" class="quarto-float"><figure class="quarto-float-fig">
<figcaption class="quarto-uncaptioned" id="c">
Figure&nbsp;2.8
</figcaption>
<div aria-describedby="c">
<div id="fig-x-1" class="quarto-float"><figure class="quarto-subfloat-fig">
<figcaption id="c-1">
(a) The <em>caption</em>.
</figcaption>
<div aria-describedby="c-1">
<p>Words.</p>
</div>
</figure></div>
<div class="cell-output">
<div id="fig-x-2" class="quarto-float"><figure class="quarto-subfloat-fig">
<figcaption id="c-2">
(b)
</figcaption>
<div aria-describedby="c-2">
<img src="a.svg">
</div>
</figure></div>
</div>
</div>
</figure></div>"""


def test_words_that_quarto_made_a_figure_of_stand_before_it() -> None:
    found = " ".join(figures.free(PARTED).split())
    assert found == (
        '<div id="fig-x" class="quarto-float"><p>Words.</p> <figure class="quarto-float-fig"> '
        "<figcaption>Figure&nbsp;2.8: The <em>caption</em>.</figcaption>"
        '<img src="a.svg"> </figure></div>'
    )
    assert figures.free(PARTED + PARTED) == 2 * figures.free(PARTED)


def test_a_sentence_names_a_chapter_and_a_table_its_title() -> None:
    link = '<a href="c.html" class="quarto-xref"><span>{}</span></a>'
    title = link.format("10&nbsp; Comparison")
    found = pages.chapters_named(f'in {title} <td style="left">{title}</td>')
    assert found == f'in {link.format("Chapter&nbsp;10")} <td style="left">{title}</td>'
    assert link.format("Appendix&nbsp;B") in pages.chapters_named(
        f"in {link.format('Appendix B — The world')}"
    )
    others = " ".join(map(link.format, ("Chapter 4", "Appendix B", "Section 2.1")))
    assert pages.chapters_named(others) == others


def test_a_method_has_one_colour_in_every_figure() -> None:
    found: dict[str, dict[str, str]] = {}
    mark = re.compile(r'aria-label="[^"]*?\bmethod: ([^;"]+)[^>]*?\b(?:fill|stroke)="(#\w{6})"')
    for path in gate.chapters(ROOT):
        for label, svg in figures.labelled(stamp.read(path)):
            marks = set(mark.findall(svg))
            names, colours = ({one[i] for one in marks} for i in (0, 1))
            if len(marks) == len(names) == len(colours):  # colours stand for methods there
                for name, colour in marks:
                    found.setdefault(name, {}).setdefault(colour.lower(), f"{path.stem}/{label}")
    assert {"ICL", "full fine-tuning", "LoRA", "cue classifier", "zero-shot"} <= found.keys()
    several = {name: colours for name, colours in found.items() if len(colours) > 1}
    assert several == {}


def test_a_figure_that_answers_is_dark_on_a_dark_page() -> None:
    style = figures.dark_style()
    assert 'body.quarto-dark .vega-embed [fill="#ffffff"] { fill: #15191e }' in style
    assert 'body:not(.quarto-light) .vega-embed [stroke="#0072B2"]' in style


# --- the drawing for a phone ---------------------------------------------------------------------


PAGE = '<svg xmlns="http://www.w3.org/2000/svg" width="640" viewBox="0 0 640 9"><g id="a"/></svg>'
PHONE = '<svg xmlns="http://www.w3.org/2000/svg" width="360" viewBox="0 0 360 9"><g id="b"/></svg>'
WHOLE = renderings.with_phone(PAGE, PHONE)


def test_what_was_put_together_comes_apart() -> None:
    assert figures.apart(WHOLE) == (PAGE, PHONE)
    assert figures.apart(PAGE) == (PAGE, "")


@pytest.mark.parametrize("as_file", [True, False])
def test_a_page_has_both_drawings(tmp_path: Path, as_file: bool) -> None:
    page = tmp_path / "icl.html"
    (tmp_path / "icl_files").mkdir()
    (tmp_path / "icl_files/a b.svg").write_text(WHOLE)
    data = figures.DATA + base64.b64encode(WHOLE.encode()).decode()
    source = "icl_files/a%20b.svg" if as_file else data
    text = figures.drawings(f'<img src="{source}" class="x" alt="A line.">', page)
    assert text.index("<picture><source media=") < text.index('class="phone x" alt="A line."')
    if as_file:
        assert 'srcset="icl_files/a%20b-phone.svg"' in text
        assert (tmp_path / "icl_files/a b.svg").read_text() == PAGE
        assert (tmp_path / "icl_files/a b-phone.svg").read_text() == PHONE
    else:
        for svg in (PAGE, PHONE):
            assert base64.b64encode(svg.encode()).decode() in text


def test_other_images_stay_and_small_drawings_fit(tmp_path: Path) -> None:
    for name, svg in (("wide", PAGE), ("small", PHONE)):
        (tmp_path / f"{name}.svg").write_text(svg)
    images = [f'<img src="{name}">' for name in ("wide.svg", "gone.svg", "https://x.org/small.svg")]
    text = figures.drawings("".join([*images, '<img src="small.svg">']), tmp_path / "icl.html")
    assert text == "".join([*images, '<img class="phone" src="small.svg">'])
