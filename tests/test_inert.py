"""Text of data and names of models on the pages: shown as it is, never obeyed."""

import json
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

from llmft import inert, params
from llmft.book import gate, pages, plain, render
from llmft.report import figures, interactive, sections, tables
from llmft.report.renderings import Svg
from llmft.study.results import Results
from tests import chromium, site, toy_book
from tests.toy_book import cell, read, write


RUN = "window.ran=1"
PAYLOADS = [
    f"<img src=x onerror={RUN}>",
    f"<script>{RUN}</script>",
    f"</code></pre><script>{RUN}</script>",
    f"</td></tr></table><svg onload={RUN}>",
    f"```\n<script>{RUN}</script>\n```",
    f"````\n<img src=x onerror={RUN}>\n`````",
    f"~~~~\n<script>{RUN}</script>\n~~~~",
    f"` <script>{RUN}</script> ``",
    f"[x](javascript:{RUN})",
    f"[x](JaVa\tscript&colon;{RUN}) [y](&#x6a;avascript:{RUN})",
    f"[x]: javascript:{RUN}",
    "[x]: https://example.org/x\n[x]",
    f"![x](x.png){{onerror={RUN}}}",
    "![x](https://example.org/beacon.png)",
    f'<a href=" javascript:{RUN}">x</a>',
    f"<javascript:{RUN}>",
    "https://example.org me@example.org www.example.org",
    f'"><iframe srcdoc="<script>parent.{RUN}</script>">',
    "a | b\n| c \\| d",
    "| a |\n|---|\n| b |",
    '::: {.callout-note title="x"}\nx\n:::',
    f"`<script>{RUN}</script>`{{=html}}",
    f"```{{=html}}\n<script>{RUN}</script>\n```",
    "```{python}\nprint(1)\n```",
    "{{< include /etc/passwd >}} {{% env HOME %}}",
    "@fig-line and [@brown2020; -@zhao2021]",
    r"$\text{<script>window.ran=1</script>}$ $$a$$ \(b\) \[c\]",
    r"\begin{align} x \end{align} \emph{y} \\ \*",
    "*a* _b_ **c** __d__ ~~e~~ ^f^ ==g== a_b",
    "# heading {#sec-x}",
    "heading\n=======",
    "1. one\n2) two\n(a) three",
    "- a\n+ b\n* c",
    "> quote",
    "term\n: definition",
    "---",
    "a -- b ... 'c' \"d\"",
    "<!-- comment -->",
    "<!-- open",
    "&lt;script&gt; &amp; &#60; &copy; &nbsp",
    "\\",
    "a\\",
    "    indented",
    "[^1] and ^[note]",
    "- [ ] task [0.1, 0.2](y)",
    ":smile: a:b",
    "\x020\x03 \x1b[31mred",
    "Tom's dog sees l'été; “yes”, 50 % of 3 × 2!",
    "0.81 [0.78, 0.84]",
    "",
]
"""What premises, hypotheses, subcases and folders of models could hold."""


def words(text: str) -> str:
    """As a page shows it: white space as one space, what no page can hold as one sign."""
    shown = "".join(c if c.isspace() or c.isprintable() else "\ufffd" for c in text)
    return " ".join(shown.split())


class Seen(HTMLParser):
    """The elements of a page, and its text by element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in dict.fromkeys(self.open):
            self.text[tag][-1] += data

    def of(self, tag: str) -> list[str]:
        return [" ".join(text.split()) for text in self.text.get(tag, [])]


def in_pages(*pieces: str) -> list[Seen]:
    """Pieces of Markdown as plain pages show them, a page each."""
    names = [f"chapters/{i}.html" for i in range(len(pieces))]
    answer = plain._pandoc(
        title="Toy",
        icon="",
        bibliography=[],
        template="$body$",
        pages=[
            {"href": name, "up": "../", "number": "", "cells": [{"markdown": piece}]}
            for name, piece in zip(names, pieces, strict=True)
        ],
    )
    return [Seen(text) for text in answer["texts"]]


@cache
def prepared() -> dict[str, Seen]:
    """What many tests look at, made by one call of pandoc."""
    pieces = [form(text) for text in PAYLOADS for form in FORMS]
    pieces += [FENCED.format(inert.fence(text)) for text in PAYLOADS] + LIVE
    return dict(zip(pieces, in_pages(*pieces), strict=True))


def prose(markdown: str) -> Seen:
    """Markdown as a plain page shows it."""
    return prepared().get(markdown) or in_pages(markdown)[0]


def live(seen: Seen) -> list[str]:
    """What of a page's elements could run or load."""
    found = [tag for tag, _ in seen.elements if tag in ("script", "iframe", "svg", "object")]
    for _, attributes in seen.elements:
        found += [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            target = attributes.get(name) or ""
            if not inert.safe_link(target):
                found.append(target)
    return found


FORMS: dict[Callable[[str], str], str] = {
    inert.escape: "p",
    lambda text: f"**{inert.escape(text)}**": "strong",
    lambda text: f"- {inert.escape(text)}": "li",
    lambda text: f"Of {inert.escape(text)}: {inert.escape(text)}.": "p",
    lambda text: f"A {inert.code(text)}.": "p",
}
FENCED = "Before.\n\n{}\n\nAfter."


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_text_is_shown_literally_wherever_it_is_put(text: str) -> None:
    for form, tag in FORMS.items():
        markdown = form(text)
        seen = prose(markdown)
        if words(text):
            harmless = {"p", "strong", "ul", "li", "code"}
            assert {tag for tag, _ in seen.elements} <= harmless, markdown
            assert words(text) in seen.of(tag)[0], markdown
        assert list(inert.markdown_problems(markdown)) == []
        assert gate_references(markdown) == []


def gate_references(markdown: str) -> list[str]:
    """What `check` takes for a reference or a label."""
    plainly = re.sub("`[^`]*`", "", markdown)
    return gate.REFERENCE.findall(plainly) + re.findall(r"\{[^{}]*#[^{}]*\}", plainly)


@pytest.mark.parametrize("text", PAYLOADS)
def test_lines_in_a_fence_are_shown_literally(text: str) -> None:
    markdown = FENCED.format(inert.fence(text))
    seen = prose(markdown)
    assert {tag for tag, _ in seen.elements} <= {"p", "pre", "div", "span", "code"}
    assert [words(t.replace("\u2060", "")) for t in seen.of("pre")] == [words(text)]
    assert seen.of("p") == ["Before.", "After."]
    assert list(inert.markdown_problems(markdown)) == []


def test_a_table_shows_texts_names_and_code() -> None:
    frame = pd.DataFrame({text or "none": [text] for text in PAYLOADS})
    markdown = tables.markdown(frame, {PAYLOADS[0]: lambda text: text, PAYLOADS[1]: inert.code})
    assert len(markdown.splitlines()) == 3
    seen = prose(markdown)
    assert seen.of("td") == [words(text) for text in PAYLOADS]
    assert seen.of("th") == [words(text) or "none" for text in PAYLOADS]
    assert list(inert.markdown_problems(markdown)) == []
    assert seen.of("code") == []
    digests = tables.markdown(pd.DataFrame({"a": ["x y"]}), {"a": inert.code})
    assert prose(digests).of("code") == ["x y"]


def test_what_is_known_to_be_harmless_stays_readable() -> None:
    for text in (
        "opt-125m",
        "facebook/opt-125m",
        "0.81 [0.78, 0.84]",
        "– [–, –]",
        "-0.05",
        "The doctor saw the lawyer.",
        "called entailed (3 of 10), 50 %",
        "best cue: share of words",
        "1e-05 / 0.01",
        "ln_subject/object",
    ):
        assert inert.escape(text) == text
    assert inert.escape(inert.Markdown("*so*")) == "*so*"


def test_what_runs_say_of_a_study_shows_its_name(shown: list[str]) -> None:
    name = PAYLOADS[0]
    row = {"learning_rate": 0.1, "validation_accuracy": 0.5, "validation_nll": 0.7, "shots": 2}
    rows = pd.DataFrame([row | {"study": m, "data_seed": s} for m in (name, "b") for s in (0, 1)])
    studies = [params.study("pocket").model_copy(update={"study": m}) for m in (name, "b")]
    sections.search_table(Results(rows, rows, {}), studies, "learning_rate")
    one = {"device_name": name, "threads": 1, "dtype": "float32", "clock": "wall"}
    one |= {"study": name, "method": "LoRA"}
    made = pd.DataFrame([one | {"shots": 2}, one | {"shots": 4}])
    sections.hardware(made, made[:1])
    for markdown in shown:
        assert not live(prose(markdown))
        assert list(inert.markdown_problems(markdown)) == []
    assert f"{name}." in prose(shown[1]).of("strong")
    assert name in prose(shown[-1]).of("p")[0]
    assert shown[-1].endswith(" Not timed there: LoRA with 4 examples.")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Markdown that is shown."""
    said: list[str] = []
    monkeypatch.setattr(tables, "say", said.append)
    return said


# --- what a chapter must not hold ----------------------------------------------------------------

LIVE = [
    *(f"Text.\n\n{PAYLOADS[i]}" for i in (0, 1, 2, 3, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17)),
    *(PAYLOADS[i] for i in (21, 22, 23, 24, 37, 38)),
    "<IMG SRC=x>",
    "a <b>bold</b> word",
    "`$` and <b>x</b> `",
    "```\n<b>no end</b>\n",
    "```\na\n  ```\n<b>after</b>\n```",
    "``` a b\nx\n```\n\n<b>x</b>\n\n```\ny\n```",
    "$$\n```\n$$\n<b>x</b>\n\n```",
    "- a\n\n  ```\n<b>x</b>\n  ```",
    "[x]( <java\nscript:a> )",
    "[x](vbscript:a)",
    "[x](data:text/html,<b>)",
    "[x](data:text/html;base64,PGI+)",
    "[x](\u200bjavascript:a)",
    "[x](java\\script:a)",
    "[x](file:///etc/passwd)",
    "> [x]:\n> javascript:a",
    "[a\\]b]: javascript:a",
    '[text]{onclick="a"}',
    '# Title {.x\nONCLICK = "a"}',
    "`<b>`{=html}",
    "```{ojs}\nalert(1)\n```",
    '```{.text onclick="a"}\n\n```',
    "{{< video https://example.org >}}",
    "```\n{{< include x >}}\n```",
    "![x](//example.org/x.png)",
]
HARMLESS = [
    "A [link](https://example.org), <https://example.org>, [one](mailto:a@b.c), [here](#sec-a).",
    "$a < b$, 3 < 4 > 2, `a[i](b)`, &lt;b&gt;, a[1]: b.",
    '::: {.callout-tip title="Again"}\n```bash\nls <b>\n```\n:::',
    "Text.\n\n````text\n```\n<script>x</script>\n```\n````\n\nText.",
    "```{.text #lst-x}\n<b>\n```",
    '![A.](data/results/a.svg){#fig-a fig-alt="One = two."}',
    '[refs]: https://example.org "Title: x"',
]


@pytest.mark.parametrize("text", LIVE)
def test_live_markdown_is_found(text: str) -> None:
    assert list(inert.markdown_problems(text))
    assert not live(prose(text)), "and the plain pages do not obey it"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_markdown_is_not(text: str) -> None:
    assert list(inert.markdown_problems(text)) == []


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{}</svg>'


@pytest.mark.parametrize(
    "part",
    [
        "<script>x</script>",
        "<g onload='x'/>",
        "<g ONCLICK='x'/>",
        "<foreignObject><p>x</p></foreignObject>",
        "<p xmlns='http://www.w3.org/1999/xhtml'>x</p>",
        "<a href='javascript:x'><text>x</text></a>",
        "<a xlink:href=' java&#10;script:x'><text>x</text></a>",
        "<use href='https://example.org/x.svg#a'/>",
        "<image href='https://example.org/x.png'/>",
        "<image href='data:image/svg+xml;base64,PHN2Zz4='/>",
        "<set attributeName='href' to='javascript:x'/>",
        "<animate attributeName='href' values='javascript:x'/>",
        "<style>@import 'https://example.org/x.css';</style>",
        "<rect style='fill: url(https://example.org/x)'/>",
        "<rect fill='u\\72l(https://example.org)'/>",
        '<metadata id=\'vega-lite\'>{"data":{"url":"https://example.org"}}</metadata>',
        "<text>&open</text>",
        "<b>",
    ],
)
def test_a_live_svg_is_found(part: str) -> None:
    assert list(inert.svg_problems(SVG.format(part)))


def test_an_svg_with_a_document_type_is_found() -> None:
    assert list(inert.svg_problems('<!DOCTYPE svg [<!ENTITY a "b">]>' + SVG.format("")))


def figure() -> Svg:
    """An interactive figure whose series are named by payloads."""
    names = PAYLOADS[:6] + PAYLOADS[8:10]
    frame = pd.DataFrame({"method": names, "at": range(len(names)), "mean": 0.5})
    chart = alt.Chart(frame, title=PAYLOADS[0]).mark_point(size=400, filled=True)
    return interactive.figure(
        chart.encode(x="at:Q", y="mean:Q", color="method:N"), "method", tooltip=["method", "mean"]
    )


def test_figures_with_any_text_pass() -> None:
    frame = pd.DataFrame(
        [{"shots": k, "domain": t, "mean": 0.5, "lo": 0.4, "hi": 0.6} for t in PAYLOADS[:7]
         for k in (2, 4)]
    )  # fmt: skip
    drawn = figures.curve(frame, "shots", "domain", note=PAYLOADS[0])._repr_mimebundle_()
    for svg in (drawn["image/svg+xml"], figure().svg):
        assert list(inert.svg_problems(svg)) == []
    parts = '<defs><path id="a"/></defs><use href="#a"/><rect style="fill: url(#a)"/>'
    parts += '<a href="https://example.org"><text aria-label="javascript:x">x</text></a>'
    assert list(inert.svg_problems(SVG.format(parts))) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    toy_book.make(tmp_path / "book")
    return tmp_path / "book"


def change(root: Path, index: int, **made: Any) -> None:
    path = root / "chapters" / "toy.ipynb"
    notebook = read(path)
    notebook["cells"][index].update(made)
    write(path, notebook)


def output(**data: str) -> list[dict[str, Any]]:
    by_type = {kind.replace("__", "+").replace("_", "/"): value for kind, value in data.items()}
    return [{"output_type": "display_data", "metadata": {}, "data": by_type}]


@pytest.mark.parametrize(
    ("index", "made", "said"),
    [
        (0, {"source": toy_book.TITLE + "\n\n<script>x</script>"}, "text `# A toy {#sec-toy}` has"),
        (0, {"source": toy_book.TITLE + "\n\n[x](javascript:x)"}, "a link to 'javascript:x'"),
        (3, {"source": toy_book.FIGURE.replace("A line.", "A <b>line</b>.")}, "`#| fig-cap:` raw"),
        (3, {"source": "#| output: asis\nprint()"}, "has `#| output:`, which could"),
        (3, {"source": "#| attr-output: 'onclick=\"x\"'\nprint()"}, "has `#| attr-output:`, which"),
        (3, {"outputs": output(image_svg__xml=SVG.format("<g onload='x'/>"))}, "shows onload="),
        (
            4,
            {"outputs": output(text_markdown="<img src=x onerror=x>")},
            "`tbl-runs` shows raw HTML",
        ),
        (4, {"outputs": output(text_plain="{{< include x >}}")}, "a shortcode"),
        (4, {"outputs": [{"output_type": "stream", "text": "{{< env X >}}"}]}, "a shortcode"),
        (4, {"cell_type": "raw", "source": "x"}, "a raw cell"),
    ],
)
def test_check_knows_what_is_live(root: Path, index: int, made: dict[str, Any], said: str) -> None:
    before = "\n".join(map(str, gate.check(root)))
    assert said not in before
    change(root, index, **made)
    assert said in "\n".join(map(str, gate.check(root)))


@pytest.mark.parametrize("put", ["page", "included", "outside", "figure"])
def test_check_reads_pages_what_they_include_and_stored_figures(root: Path, put: str) -> None:
    assert [p for p in gate.check(root) if p.chapter != "toy"] == []
    index, more = root / "index.qmd", ""
    if put == "page":
        more = "\n<script>x</script>\n"
    elif put == "outside":
        (root.parent / "secret.md").write_text("a secret")
        more = "\n{{< include ../secret.md >}}\n"
    elif put == "included":
        (root / "data/results/toy.md").write_text("# <img src=x>\n")
        more = "\n{{< include data/results/toy.md >}}\n"
    else:
        (root / "data/results/toy.svg").write_text(SVG.format("<script/>"))
    index.write_text(index.read_text() + more)
    found = [str(p) for p in gate.check(root)]
    expected = {
        "page": "index.qmd: has raw HTML",
        "included": "index.qmd: has raw HTML",
        "outside": "index.qmd: has a shortcode",
        "figure": "toy.svg: has <script>",
    }
    assert any(line.startswith(expected[put]) for line in found)
    if put == "outside":
        plain.write(root, root / "_book")
        assert "a secret" not in (root / "_book/index.html").read_text()


def test_the_book_passes() -> None:
    found = [str(p) for p in gate.check() if not p.stale]
    kinds = "raw HTML|shortcode|a link to|that runs|a fence|a raw|has <|shows <"
    assert [line for line in found if re.search(kinds, line)] == []


# --- whole pages, without a browser and in one ---------------------------------------------------


@pytest.fixture
def hostile(root: Path) -> Path:
    """A book of texts that attack: escaped as chapters do it, and everywhere else unescaped."""
    frame = pd.DataFrame({"premise": PAYLOADS, PAYLOADS[0]: PAYLOADS[::-1]})
    listed = "\n".join(f"- {inert.escape(text)}" for text in PAYLOADS)
    fences = "\n\n".join(inert.fence(text) for text in PAYLOADS)
    shown = "\n\n".join([tables.markdown(frame), listed, fences])
    change(root, 4, outputs=output(text_markdown=shown))
    change(root, 3, outputs=output(image_svg__xml=figure().svg))
    path = root / "chapters" / "toy.ipynb"
    notebook = read(path)
    for text in [*PAYLOADS, *LIVE]:
        notebook["cells"].append(cell("markdown", text))
        options = f"#| label: fig-x{len(notebook['cells'])}\n#| fig-cap: {json.dumps(text)}\n"
        shows = cell("code", f"{options}#| fig-alt: {json.dumps(text)}\n1")
        shows["outputs"] = output(text_markdown=text) + output(text_plain=text)
        notebook["cells"].append(shows)
    pictures = cell("code", "2")
    pictures["outputs"] = output(image_png=f'x" onerror="{RUN}')
    notebook["cells"].append(pictures)
    write(path, notebook)
    (root / "data/results/a.md").write_text("\n\n".join(PAYLOADS))
    index = root / "index.qmd"
    index.write_text(
        index.read_text().replace("Preface", json.dumps(PAYLOADS[1]))
        + "\n{{< include data/results/a.md >}}\n\n"
        + f'![{PAYLOADS[1]}](a"onerror="{RUN}){{#fig-q fig-alt="{PAYLOADS[1]}"}}\n\n@evila @evilb\n'
    )
    links = {"a": f"url = {{javascript:{RUN}}}", "b": f"doi = {{{PAYLOADS[17]}}}"}
    references = root / "references.bib"
    references.write_text(
        references.read_text()
        + "".join(
            f"\n@misc{{evil{key},\n  title = {{{PAYLOADS[1]}}},\n  author = {{{PAYLOADS[0]}}},\n"
            f"  year = {{2020}},\n  {link},\n}}\n"
            for key, link in links.items()
        )
    )
    return root


def test_plain_pages_are_inert(hostile: Path) -> None:
    plain.write(hostile, hostile / "_book")
    for path in (hostile / "_book").rglob("*.html"):
        found = live(Seen(path.read_text()))
        assert [what for what in found if not what.startswith("data:image/")] == []
    references = (hostile / "_book/index.html").read_text().partition('id="refs"')[2]
    assert references.count("&lt;Script&gt;window.ran=1&lt;/Script&gt;") == 2
    toy = Seen((hostile / "_book/chapters/toy.html").read_text())
    expected = [words(text) for text in PAYLOADS]
    cells = toy.of("td")[: 2 * len(expected)]
    assert cells[::2] == expected
    assert cells[1::2] == expected[::-1]


@pytest.mark.skipif(chromium.find() is None, reason="no Chromium: pages are not looked at")
@pytest.mark.parametrize("how", ["plain", "quarto"])
def test_nothing_runs_in_a_browser(hostile: Path, how: str) -> None:
    if how == "quarto":
        if render.find() is None:
            pytest.skip("no Quarto on PATH: only the plain pages are looked at")
        # In Quarto's pages raw HTML is live; there the texts are inert that were escaped.
        path = hostile / "chapters" / "toy.ipynb"
        notebook = read(path)
        write(path, notebook | {"cells": notebook["cells"][:5]})
        toy_index = hostile / "index.qmd"
        toy_index.write_text(toy_book.INDEX)
        (hostile / "references.bib").write_text(toy_book.BIBLIOGRAPHY)
    render.render(hostile, plain=how == "plain")
    expected = [words(text) for text in PAYLOADS]
    with site.served(hostile / "_book") as address, chromium.tab() as tab:
        for page in ("index.html", "chapters/toy.html"):
            tab.show(address + page)
            assert tab.run("window.ran") is None
            assert tab.of("Page.javascriptDialogOpening") == []
            asked = [e["params"]["request"]["url"] for e in tab.of("Network.requestWillBeSent")]
            other = [url for url in asked if not url.startswith((address, "data:"))]
            assert other == []
            assert (
                tab.run(
                    "[...document.querySelectorAll('main *')].flatMap(e => [...e.attributes])"
                    ".filter(a => /^on/i.test(a.name)).length"
                )
                == 0
            )
            links = tab.run("[...document.querySelectorAll('a')].map(a => a.protocol)")
            assert set(links) <= {"http:", "https:", "mailto:", ":"}  # ":": no address at all
        texts = "[...document.querySelectorAll('{}')].map(e => e.textContent)"
        cells = [words(text) for text in tab.run(texts.format("td"))][: 2 * len(expected)]
        assert cells[::2] == expected
        items = [words(text) for text in tab.run(texts.format("li"))]
        assert [text for text in items if text in expected][: len(expected)] == expected
        blocks = tab.run(texts.format("figure pre"))
        blocks = [words(text.replace("\u2060", "")) for text in blocks]
        assert blocks[: len(expected)] == expected
        shown = tab.run("[...document.querySelectorAll('.vega-bind')].map(e => e.innerText)")
        assert words(shown[0]) == expected[0]
        for mark in range(8):
            at = f"document.querySelectorAll('.role-mark path')[{mark}].getBoundingClientRect()"
            tab.mouse(tab.run(f"{at}.x") + 8, tab.run(f"{at}.y") + 8)
        assert tab.run("window.ran") is None


def test_a_file_name_is_only_a_name(root: Path) -> None:
    name = "<img src=x onerror=x>"
    write(root / "chapters" / f"{name}.ipynb", read(root / "chapters" / "toy.ipynb"))
    (root / "_quarto.yml").write_text(
        toy_book.QUARTO.replace("[chapters/toy.ipynb]", f'["chapters/{name}.ipynb"]')
    )
    plain.write(root, root / "_book")
    pages.finish(root, root / "_book", {})
    for path in (root / "_book").rglob("*.html"):
        assert [tag for tag, about in Seen(path.read_text()).elements if "onerror" in about] == []
