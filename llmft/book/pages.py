"""What a chapter's page gets from neither renderer: downloads, figures that answer, a live model.

They are added to the written HTML, so that Quarto's pages and the plain ones have the same.
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path

from llmft import dark
from llmft.book import downloads, floats, live, origins, phone, recompute, stamp


BUNDLE = "vega.js"
"""Vega, Vega-Lite and vega-embed in one file, from vl-convert: no page asks another host for it."""

MARK = r"<metadata id=\"vega-lite\">"
"""What `interactive.figure` leaves in a figure, as a notebook's JSON holds it."""

SCRIPT = r"""
for (const img of document.querySelectorAll("img[src*=svg]")) (async () => {
  const figure = document.createElement("div");
  if (img.closest("picture") && matchMedia("NARROW").matches) return; // drawn for a phone
  try {
    const svg = await (await fetch(img.src)).text();
    const data = new DOMParser().parseFromString(svg, "image/svg+xml").querySelector("#vega-lite");
    if (!data) return;
    const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true };
    img.after(figure);
    await vegaEmbed(figure, JSON.parse(data.textContent), options);
    figure.querySelector("svg").setAttribute("role", "img");
    figure.querySelector("svg").setAttribute("aria-label", img.alt);
    img.hidden = true;
  } catch (error) {
    figure.remove();
    console.warn("the figure stays static:", error);
  }
})();
""".replace("NARROW", phone.NARROW)

STYLE = """
.vega-embed { display: block; background: #fff; color: #1f2328; color-scheme: light; }
.vega-embed, .vega-embed svg { border-radius: .5rem; }
.vega-embed > svg, .vega-embed .chart-wrapper > svg { max-width: 100%; height: auto; }
.vega-bindings { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0 14px 14px; }
.vega-bindings { position: sticky; left: 0; max-width: calc(100vw - 3rem); font-size: .85rem; }
.vega-bind label { display: flex; flex-direction: row-reverse; gap: .4rem; cursor: pointer; }
@media (max-width: 767.98px) { .vega-embed svg { min-width: 35rem; } }
"""


def _dark() -> str:
    """The style of a figure that answers on a dark page, by Quarto's switch or the browser's."""
    rules = [(" .vega-embed", "background: none; color: inherit; color-scheme: dark")]
    for light, other in dark.COLOURS.items():
        rules += [(f' .vega-embed [{part}="{light}"]', f"{part}: {other}") for part in PAINT]
    switched = "".join(f"body.quarto-dark{where} {{ {what} }}\n" for where, what in rules)
    usual = "".join(f"body:not(.quarto-light){where} {{ {what} }}\n" for where, what in rules)
    return f"{switched}@media (prefers-color-scheme: dark) {{\n{usual}}}\n"


PAINT = ("fill", "stroke")
"""What of a mark has a colour."""


def finish(root: Path, folder: Path) -> None:
    """Add the downloads to the book and its pages, and scripts to the pages that ask for them.

    Args:
        root: the book's folder.
        folder: where it was rendered.
    """
    for page in sorted((folder / "chapters").glob("*.html")):
        text = floats.free(page.read_text(encoding="utf-8"))
        files = downloads.of_chapter(page.stem, root, folder)
        text = text.replace("</main>", f"{files}</main>", 1)
        notebook = root / "chapters" / f"{page.stem}.ipynb"
        if notebook.is_file():
            cells = stamp.read(notebook)
            text = downloads.figures(text, cells, page.stem, folder)
            text = origins.link(text, origins.note(cells, page.stem, root))
            text = text.replace("</head>", f"<style>{origins.STYLE}</style>\n</head>", 1)
        text = phone.finish(text, page)
        if notebook.is_file() and MARK in notebook.read_text(encoding="utf-8"):
            from vl_convert import javascript_bundle

            bundle = javascript_bundle()  # type: ignore[call-arg]  # its stub has no default
            (folder / BUNDLE).write_text(bundle, encoding="utf-8")
            script = f'<script src="../{BUNDLE}"></script>\n<script>{SCRIPT}</script>\n'
            text = text.replace("</head>", f"<style>{STYLE}{_dark()}</style>\n</head>", 1)
            text = text.replace("</body>", f"{script}</body>", 1)
        for part in (live, recompute):
            if part.MARK in text:
                part.write(root, folder)
                text = text.replace("</head>", f"{part.HEAD}</head>", 1)
        page.write_text(text, encoding="utf-8")
    first = folder / "index.html"
    text = phone.finish(chapters_named(first.read_text(encoding="utf-8")), first)
    whole = downloads.of_book(root, folder)
    text = origins.link(text)
    first.write_text(text.replace("</main>", f"{whole}</main>", 1), encoding="utf-8")
    announce(root, folder)


def chapters_named(text: str) -> str:
    """A page's HTML whose sentences refer to "Chapter 10", not to "10 Comparison and conclusions".

    A page without a number, as the first is, gets the latter from Quarto. In a table it is better.
    """
    title = r'(?<!">)(<a [^>]*class="quarto-xref"><span>)(?:Appendix )?(\w+)(?:&nbsp; | — )[^<]*'

    def named(match: re.Match[str]) -> str:
        return f"{match[1]}{'Chapter' if match[2].isdigit() else 'Appendix'}&nbsp;{match[2]}"

    return re.sub(title, named, text)


def announce(root: Path, folder: Path) -> None:
    """Name the book's card on each page, if the site's address is known: it must be whole."""
    site = str(downloads.published(root).get("site-url", "")).rstrip("/")
    if site and (folder / "card.png").is_file():
        line = f'<meta property="og:image" content="{html.escape(site)}/card.png">'
        for page in [*folder.glob("*.html"), *(folder / "chapters").glob("*.html")]:
            text = page.read_text(encoding="utf-8")
            page.write_text(text.replace("</head>", f"{line}\n</head>", 1), encoding="utf-8")


def head(folder: Path, lines: Mapping[str, str]) -> None:
    """Begin each page with a line of HTML, by the page's source ("chapters/icl.ipynb")."""
    for source, line in lines.items():
        page = (folder / source).with_suffix(".html")
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            before, main, after = re.split(r"(<main\b[^>]*>)", text, maxsplit=1)
            page.write_text(f"{before}{main}{line}{after}", encoding="utf-8")
