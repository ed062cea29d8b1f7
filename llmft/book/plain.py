"""The book as plain HTML pages, made by nbconvert, for where Quarto cannot be had.

They show what Quarto would: prose, folded code, figures and tables with their numbers and captions,
equations (as MathML), links between chapters, citations. There is no script in them (but for
interactive figures, `pages.finish`), nothing is loaded from a network, and raw HTML is only shown.
"""

import base64
import html
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import mistune
import yaml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from llmft import inert
from llmft.book import gate, stamp


STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --link: #6cb6ff; --page: #15191e; --ink: #dee2e6; } }
body { font: 17px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; }
body { background: var(--page, #fff); color: var(--ink, #1f2328); overflow-wrap: break-word; }
a { color: var(--link); }
nav { border-bottom: 1px solid var(--line); padding-bottom: .5rem; font-size: .9rem; }
nav a { margin-right: 1rem; display: inline-block; }
nav a[aria-current] { font-weight: bold; text-decoration: none; }
nav.downloads { border: 0; border-top: 1px solid var(--line); margin-top: 2rem; }
nav.downloads p { font-weight: bold; margin-bottom: 0; }
h1, h2, h3 { line-height: 1.25; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; }
pre { font-size: clamp(.5rem, 2.15vw, .82rem); }
details pre { font-size: .82rem; }
.highlight pre { background: none; }
table { border-collapse: collapse; font-size: .88rem; margin: auto; }
table { display: block; width: fit-content; max-width: 100%; overflow-x: auto; }
th, td { padding: .25rem .45rem; border-bottom: 1px solid var(--line); }
figure { margin: 1.5rem 0; overflow-x: auto; }
figcaption { font-size: .9rem; margin-bottom: .5rem; position: sticky; left: 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .5rem; }
@media (max-width: 600px) { figure img { width: 35rem; max-width: none; }
  td { min-width: 4.5rem; } td code { overflow-wrap: anywhere; } }
.note { border-left: 4px solid #0072b2; padding: .1rem 1rem; background: var(--soft); }
.note { margin: 1rem 0; }
.anchor-link { display: none; }
.equation { display: flex; justify-content: space-between; align-items: center; overflow-x: auto; }
.equation math { margin: auto; }
math { max-width: 100%; overflow-x: auto; overflow-y: hidden; }
summary { cursor: pointer; font-size: .85rem; }
footer { border-top: 1px solid var(--line); margin-top: 3rem; display: flex; gap: 2rem; }
"""

WORDS = {"fig": "Figure", "tbl": "Table", "eq": "Equation", "lst": "Listing"}


@dataclass
class Page:
    """One page of the book."""

    source: str
    cells: list[stamp.Cell]
    title: str = ""
    number: str = ""

    @property
    def href(self) -> str:
        """Where the page is written, as Quarto would."""
        return re.sub(r"\.\w+$", ".html", self.source)


@dataclass
class Book:
    """What a page needs to know of the others."""

    title: str
    pages: list[Page]
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)  # label -> page, words
    entries: dict[str, tuple[str, str]] = field(default_factory=dict)  # key -> short, in full
    icon: bytes = b""  # an SVG


def write(root: Path, folder: Path) -> Path:
    """Write the pages, and the files that they show, into a folder; the first page's path."""
    book = _read(root)
    shutil.rmtree(folder, ignore_errors=True)
    for page in book.pages:
        body, files = _body(page, book)
        path = folder / page.href
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_frame(page, book, body), encoding="utf-8")
        for file in files:
            source = (root / page.source).parent / file
            target = path.parent / file
            if source.is_file() and folder.resolve() in target.resolve().parents:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    return folder / book.pages[0].href


def _read(root: Path) -> Book:
    """All pages, with the numbers of what can be referred to."""
    about = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    book = Book(str(about.get("title", "Book")), [])
    icon = root / str(about.get("favicon", ""))
    book.icon = icon.read_bytes() if icon.is_file() else b""
    bibliography = root / "references.bib"
    if bibliography.is_file():
        book.entries = bibliography_entries(bibliography.read_text(encoding="utf-8"))
    numbers, letters = iter(range(1, 1000)), iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    appendices = about.get("appendices", [])
    for source in gate.listed(root):
        path = root / source
        if not path.is_file():
            continue
        page = Page(source, _cells(path, root))
        if path.suffix == ".ipynb":
            page.number = next(letters) if source in appendices else str(next(numbers))
        _label(page, book)
        book.pages.append(page)
    return book


def _cells(path: Path, root: Path) -> list[stamp.Cell]:
    if path.suffix == ".ipynb":
        return list(stamp.read(path)["cells"])

    text = gate.page_text(path, root)
    return [{"cell_type": "markdown", "source": text, "metadata": {}}]


def _label(page: Page, book: Book) -> None:
    """Give the page its title, and number its figures, tables and equations."""
    counts = dict.fromkeys(WORDS, 0)
    for cell in page.cells:
        source = stamp.text(cell["source"])
        if cell["cell_type"] == "code":
            found = [str(gate.cell_options(cell).get("label", ""))]
        else:
            found = re.findall(r"\{[^{}\n]*#((?:fig|tbl|eq|lst|sec)-[\w-]+)[^{}\n]*\}", source)
            heading = re.search(r"(?m)^# (.+?)\s*(?:\{.*\})?$", _unfenced(source))
            front = re.match(r"---\n(.*?)\n---", source, re.DOTALL)
            if front and not page.title:
                page.title = str((yaml.safe_load(front[1]) or {}).get("title", ""))
            page.title = page.title or (heading[1] if heading else "")
        for label in found:
            kind = label.partition("-")[0]
            if kind in counts:
                counts[kind] += 1
                number = ".".join(filter(None, (page.number, str(counts[kind]))))
                book.labels[label] = (page.href, f"{WORDS[kind]} {number}")
            elif kind == "sec":
                place = re.search(rf"(?m)^(#+) (.+?)\s*\{{[^}}]*#{label}\b", source)
                kind = "Appendix" if page.number.isalpha() else "Chapter"
                words = f"{kind} {page.number}" if page.number else "the preface"
                if place and place[1] != "#":
                    words = f"“{place[2]}”"
                book.labels[label] = (page.href, words)


def _unfenced(source: str) -> str:
    return re.sub(r"(?ms)^(`{3,}).*?^\1\s*$", "", source)


def _body(page: Page, book: Book) -> tuple[str, set[str]]:
    """The page's content, and the files that it refers to."""
    parts = []
    files: set[str] = set()
    for cell in page.cells:
        source = stamp.text(cell["source"])
        if {"remove-cell", "injected-parameters"} & set(stamp.tags(cell)):
            continue
        if cell["cell_type"] == "markdown":
            parts.append(_prose(source, page, book))
            files |= set(re.findall(r"!\[[^\]]*\]\(([^)\s:]+)\)", source))
            files |= set(re.findall(r"\]\((data/[^)\s:]+)\)", source))
        elif cell["cell_type"] == "code":
            parts.append(_code(cell, page, book))
    return "\n".join(parts), files


def _code(cell: stamp.Cell, page: Page, book: Book) -> str:
    """A code cell: its source, folded, and what it shows."""
    from nbconvert.filters import Highlight2HTML

    options = gate.cell_options(cell)
    hidden = {"hide-input", "hide-cell", "remove-input"} & set(stamp.tags(cell))
    shown = ""
    if options.get("echo", True) is not False and not hidden and stamp.code(cell):
        listing = Highlight2HTML(pygments_lexer="python")(stamp.code(cell))
        folded = "" if options.get("code-fold") is not False else " open"
        summary = html.escape(str(options.get("code-summary", "Code")))
        shown = f"<details{folded}><summary>{summary}</summary>{listing}</details>"
    if options.get("include", True) is False or options.get("output", True) is False:
        return shown
    label = str(options.get("label", ""))
    kind = label.partition("-")[0]
    alt = str(options.get("fig-alt", ""))
    outputs = "\n".join(_output(output, alt, page, book) for output in cell.get("outputs", []))
    if caption := options.get(f"{kind}-cap"):
        words = book.labels.get(label, ("", ""))[1]
        line = _prose(f"**{words}:** {caption}", page, book)
        outputs = (
            f'<figure id="{html.escape(label)}"><figcaption>{line}</figcaption>{outputs}</figure>'
        )
    return shown + outputs


def _output(output: dict[str, object], alt: str, page: Page, book: Book) -> str:
    """One output, in the representation that Quarto would choose."""
    data = output.get("data", {})
    if not isinstance(data, dict):
        return ""
    if "text/markdown" in data:
        return _prose(stamp.text(data["text/markdown"]), page, book)
    if "image/svg+xml" in data:
        encoded = base64.b64encode(stamp.text(data["image/svg+xml"]).encode()).decode()
        return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{encoded}">'
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            encoded = stamp.text(data[kind]).replace("\n", "")
            return f'<img alt="{html.escape(alt)}" src="data:{kind};base64,{html.escape(encoded)}">'
    words = stamp.text(data.get("text/plain", ""))
    if isinstance(output.get("text"), str | list):
        words = stamp.text(output["text"])  # type: ignore[arg-type]
    return f"<pre>{html.escape(words)}</pre>" if words else ""


def _prose(source: str, page: Page, book: Book) -> str:
    """Quarto's Markdown as HTML: equations, references, citations and callouts included."""
    renderer = _Renderer(page, book)
    markdown = mistune.create_markdown(renderer=renderer, plugins=PLUGINS)
    renderer.inline = markdown.inline
    for parser, rules in ((markdown.block, BLOCKS), (markdown.inline, INLINES)):
        for name, pattern in rules.items():
            parser.register(name, pattern, _token(name, pattern), before=parser.rules[0])
    return str(markdown(re.sub(r"\A---\n.*?\n---\n", "", source, flags=re.DOTALL)))


PLUGINS = ["table", "def_list", "strikethrough", "url"]
BLOCKS = {
    "equation": r"^ {0,3}\$\$(?P<tex>[\s\S]+?)\$\$(?:\s*\{#(?P<eq>eq-[\w-]+)\})?[ \t]*$",
    "division": r"^:{3,}[ \t]*(?P<attributes>\{[^}\n]*\})?[ \t]*$",
    "caption": r"^: (?P<words>.+?)\s*\{[^}\n]*#(?P<tbl>tbl-[\w-]+)[^}\n]*\}[ \t]*$",
    "figure": r"^!\[(?P<says>[^\]]*)\]\((?P<src>[^)\s]+)\)"
    r"\{(?P<about>[^}\n]*#(?P<fig>fig-[\w-]+)[^}\n]*)\}[ \t]*$",
}
INLINES = {
    "nothing": r"\{\{<.*?>\}\}|(?<=\))\{[^}\n]*\}",  # a shortcode, and a link's attributes
    "formula": r"(?<![\\$\w])\$(?=\S)(?P<formula_tex>[^$\n]+?)(?<=\S)\$(?![\d$])",
    "cited": r"\[(?P<cites>[^\[\]]*(?<!\w)-?@\w[^\[\]]*)\](?!\()",
    "reference": r"(?P<said>(?<![\w@/.:\\])-?@\{?(?P<key>[A-Za-z0-9](?:[\w:.-]*\w)?)\}?)",
}
"""The parts of Markdown that only Quarto knows. A method of `_Renderer` gets a pattern's groups."""


def _token(name: str, pattern: str) -> Callable[..., int]:
    """How mistune is told of what a pattern found."""

    def parse(_: object, match: re.Match[str], state: Any) -> int:
        groups = {group: match[group] or "" for group in re.compile(pattern).groupindex}
        state.append_token({"type": name, "attrs": groups})
        return match.end()

    return parse


class _Renderer(mistune.HTMLRenderer):
    """HTML of a page of the book. Raw HTML is shown, not obeyed, and links lead to no script."""

    SAFE_PROTOCOLS = tuple(f"{scheme}:" for scheme in inert.SCHEMES)
    GOOD_DATA_PROTOCOLS = ()

    def __init__(self, page: Page, book: Book) -> None:
        super().__init__(escape=True)
        self.book, self.here = book, "../" * page.href.count("/")
        self.inline: Callable[..., Any] = str

    def inner(self, markdown: str) -> str:
        """A caption's Markdown as HTML."""
        return self.render_tokens(self.inline(markdown, {"ref_links": {}}), mistune.BlockState())

    def named(self, label: str) -> str:
        """What a label is called: Figure 1.2."""
        return html.escape(self.book.labels.get(label, ("", ""))[1])

    def heading(self, text: str, level: int, **_: Any) -> str:
        label = re.search(r" \{[^}]*#([\w-]+)", text)
        words = text.partition(" {")[0]
        return super().heading(words, level, **({"id": label[1]} if label else {}))

    def text(self, text: str) -> str:
        return self.escape_attribute(text)  # character references are read, once

    def block_code(self, code: str, info: str | None = None) -> str:
        try:
            lexer = get_lexer_by_name(re.sub(r"^\W*|[\s}].*", "", info or ""))
        except ClassNotFound:
            return super().block_code(code)
        return str(highlight(code, lexer, HtmlFormatter()))

    def block_html(self, html: str) -> str:
        return "" if html.startswith("<!--") else super().block_html(html)

    def inline_html(self, html: str) -> str:
        return "" if html.startswith("<!--") else super().inline_html(html)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        within = re.sub(r"^([\w./-]+)\.(?:ipynb|qmd)(#[\w-]+)?$", r"\1.html\2", url)
        return super().link(text, within, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        here = not re.match(r"//|[^/]*:", url)  # a page loads nothing from another host
        return super().image(text, url, title) if here else text

    def equation(self, tex: str, eq: str) -> str:
        number = self.named(eq).removeprefix("Equation ")
        tag = f"<span>({number})</span>" if number else ""
        identity = f' id="{eq}"' if eq else ""
        return f'<div class="equation"{identity}>{_math(tex, "block")}{tag}</div>\n'

    def division(self, attributes: str) -> str:
        """The start of a fenced division, a callout with its title, or the end of one."""
        if not attributes:
            return "</div>\n"
        title = re.search(r'title="([^"]*)"', attributes)
        kind = "note" if "callout" in attributes else "division"
        words = f"<p><strong>{html.escape(title[1])}</strong></p>" if title else ""
        listed = _bibliography(self.book) if "#refs" in attributes else ""
        return f'<div class="{kind}">{words}{listed}\n'

    def caption(self, words: str, tbl: str) -> str:
        line = f"<strong>{self.named(tbl)}:</strong> {self.inner(words)}"
        return f'<p id="{tbl}">{line}</p>\n'

    def figure(self, says: str, src: str, about: str, fig: str) -> str:
        alt = re.search(r'fig-alt="([^"]*)"', about)
        image = self.image(html.escape(alt[1]) if alt else "", src)
        line = f"<strong>{self.named(fig)}:</strong> {self.inner(says)}"
        return f'<figure id="{fig}"><figcaption>{line}</figcaption>{image}</figure>\n'

    def nothing(self) -> str:
        return ""

    def formula(self, formula_tex: str) -> str:
        return _math(formula_tex, "inline")

    def cited(self, cites: str) -> str:
        return f"({self.inner(cites)})"

    def reference(self, said: str, key: str) -> str:
        if key in self.book.labels:
            return self.link(self.named(key), f"{self.here}{self.book.labels[key][0]}#{key}")
        if key in self.book.entries:
            words = html.escape(self.book.entries[key][0])
            return self.link(words, f"{self.here}{_references(self.book)}#ref-{key}")
        return html.escape(said)


def _math(latex: str, display: str) -> str:
    """LaTeX as MathML, which browsers show by themselves; what cannot be converted stays LaTeX."""
    from latex2mathml.converter import convert_to_element

    try:
        made = convert_to_element(latex.strip(), display=display)
    except Exception:  # its parser raises whatever it stumbles over
        return f"<code>{html.escape(latex.strip())}</code>"
    for element in made.iter():  # its own `convert` leaves the text of \text{} as it is: live HTML
        element.text = html.unescape(element.text) if element.text else None
        element.attrib.pop("href", None)
    return ElementTree.tostring(made, encoding="unicode")


def bibliography_entries(text: str) -> dict[str, tuple[str, str]]:
    """The entries of a BibTeX file: key -> ("Brown et al., 2020", the reference in full)."""
    entries = {}
    for key, body in re.findall(r"(?ms)^@\w+\{\s*([^,\s]+),\s*\n(.*?)^\}", text):
        fields = {
            name.lower(): _unicode(" ".join(value.split()))
            for name, value in re.findall(r"(?ms)^\s*(\w+)\s*=\s*\{(.*?)\},?\s*$", body)
        }
        authors = [_family(name) for name in fields.get("author", key).split(" and ")]
        short = authors[0] if len(authors) == 1 else f"{authors[0]} et al."
        if len(authors) == 2:
            short = " & ".join(authors)
        where = fields.get("journal") or fields.get("booktitle") or fields.get("publisher", "")
        link = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url", "")
        title = html.escape(fields.get("title", ""))
        if link and inert.safe_link(link):
            title = f'<a href="{html.escape(link)}">{title}</a>'
        year = fields.get("year", "")
        full = (
            f"{html.escape(', '.join(authors))} ({year}). {title}. <em>{html.escape(where)}</em>."
        )
        entries[key] = (f"{short}, {year}", full)
    return entries


def _unicode(latex: str) -> str:
    """BibTeX's text as it is read: accents put on their letters, braces gone."""
    marks = {
        "'": "\u0301",
        "`": "\u0300",
        "^": "\u0302",
        '"': "\u0308",
        "~": "\u0303",
        "c": "\u0327",
    }
    accent = r"\\(?:([\"'`^~])\s*\{?|(c)[ {]\s*\{?)(\w)"
    made = re.sub(accent, lambda m: m[3] + marks[m[1] or m[2]], latex)
    return unicodedata.normalize("NFC", re.sub(r"[{}]", "", made))


def _family(name: str) -> str:
    return name.split(",")[0].strip() if "," in name else name.split()[-1]


def _references(book: Book) -> str:
    """The page that lists the references: the one that asks for them, else the last."""
    for page in book.pages:
        if any("{#refs}" in stamp.text(cell["source"]) for cell in page.cells):
            return page.href
    return book.pages[-1].href


def _bibliography(book: Book) -> str:
    items = sorted(book.entries.items(), key=lambda entry: entry[1][0].lower())
    return "".join(f'<p id="ref-{html.escape(key)}">{full}</p>' for key, (_, full) in items)


def _frame(page: Page, book: Book, body: str) -> str:
    """A whole page: its head, the links to the others, and the content."""
    here = "../" * page.href.count("/")

    def link(other: Page, mark: str = "") -> str:
        current = ' aria-current="page"' if other is page else ""
        name = f"{other.number} {other.title}".strip()
        return f'<a href="{here}{quote(other.href)}"{current}>{mark}{html.escape(name)}</a>'

    around = [link(b, "Next: ") for a, b in pairwise(book.pages) if a is page]
    colours = "".join(
        f"@media (prefers-color-scheme: {scheme}) {{ {made.get_style_defs('.highlight')} }}\n"
        for scheme, style in (("light", "default"), ("dark", "github-dark"))
        for made in (HtmlFormatter(style=style),)
    )
    icon = base64.b64encode(book.icon).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(page.title)} – {html.escape(book.title)}</title>
<link rel="icon" href="data:image/svg+xml;base64,{icon}">
<style>{STYLE}{colours}</style>
</head>
<body>
<nav aria-label="Chapters">{"".join(link(other) for other in book.pages)}</nav>
<main>
{body}
</main>
<footer>{"".join(around)}</footer>
</body>
</html>
"""
