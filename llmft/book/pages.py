"""What a chapter's page gets from neither renderer: downloads, figures that answer, a live model.

They are added to the written HTML, so that Quarto's pages and the plain ones have the same.
"""

import html
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from llmft.book import live, phone


BUNDLE = "vega.js"
"""Vega, Vega-Lite and vega-embed in one file, from vl-convert: no page asks another host for it."""

DOWNLOADS = {
    "chapters/{}.ipynb": "the chapter as a notebook",
    "data/results/{}.csv": "what its runs measured, a row a run",
    "data/results/{}.parquet": "their answer to every pair",
}
"""The files of a chapter that a reader may want."""

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


def finish(root: Path, folder: Path) -> None:
    """Add the downloads to the chapters' pages, and scripts to those that ask for them.

    Args:
        root: the book's folder.
        folder: where it was rendered.
    """
    for page in sorted((folder / "chapters").glob("*.html")):
        text = page.read_text(encoding="utf-8")
        text = phone.finish(text, page)
        text = text.replace("</main>", f"{_downloads(page.stem, root, folder)}</main>", 1)
        notebook = root / "chapters" / f"{page.stem}.ipynb"
        if notebook.is_file() and MARK in notebook.read_text(encoding="utf-8"):
            from vl_convert import javascript_bundle

            bundle = javascript_bundle()  # type: ignore[call-arg]  # its stub has no default
            (folder / BUNDLE).write_text(bundle, encoding="utf-8")
            script = f'<script src="../{BUNDLE}"></script>\n<script>{SCRIPT}</script>\n'
            text = text.replace("</head>", f"<style>{STYLE}</style>\n</head>", 1)
            text = text.replace("</body>", f"{script}</body>", 1)
        if live.MARK in text:
            live.write(root, folder)
            text = text.replace("</head>", f"{live.HEAD}</head>", 1)
        page.write_text(text, encoding="utf-8")


def head(folder: Path, lines: Mapping[str, str]) -> None:
    """Begin each page with a line of HTML, by the page's source ("chapters/icl.ipynb")."""
    for source, line in lines.items():
        page = (folder / source).with_suffix(".html")
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            before, main, after = re.split(r"(<main\b[^>]*>)", text, maxsplit=1)
            page.write_text(f"{before}{main}{line}{after}", encoding="utf-8")


def _downloads(chapter: str, root: Path, folder: Path) -> str:
    """Links to the files of a chapter that there are, which are copied beside the pages."""
    items = ""
    for pattern, what in DOWNLOADS.items():
        file = pattern.format(chapter)
        if (root / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, folder / file)
            link = f'<a href="../{quote(file)}" download>{html.escape(Path(file).name)}</a>'
            size = (root / file).stat().st_size / 1e6
            items += f"<li>{link} ({size:.1f} MB): {what}</li>"
    head = '<nav class="downloads" aria-label="Downloads"><p>Download</p>'
    return f"{head}<ul>{items}</ul></nav>" if items else ""
