"""What the rendered pages get from neither renderer: downloads, and figures that answer.

Both are added to the written HTML, so that Quarto's pages and the plain ones have the same.
"""

import base64
import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


BUNDLE = "vega.js"
"""Vega, Vega-Lite and vega-embed in one file, from vl-convert: no page asks another host for it."""

DOWNLOADS = (
    ("chapters/{}.ipynb", "the chapter as a notebook"),
    ("data/results/{}.csv", "what its runs measured, a row a run"),
    ("data/results/{}.parquet", "what they said to every pair"),
)
"""The files of a chapter that a reader may want."""

MARK = b'<metadata id="vega-lite">'
"""What `interactive.figure` leaves in an SVG."""

SCRIPT = r"""
for (const img of document.querySelectorAll("img[data-vega]")) (async () => {
  const svg = await (await fetch(img.src)).text();
  const data = new DOMParser().parseFromString(svg, "image/svg+xml").querySelector("#vega-lite");
  const figure = document.createElement("div");
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true };
  img.after(figure);
  try {
    const made = await vegaEmbed(figure, JSON.parse(data.textContent), options);
    figure.querySelector("svg").setAttribute("role", "img");
    figure.querySelector("svg").setAttribute("aria-label", img.alt);
    img.hidden = true;
    figure.vega = made.view;
  } catch (error) {
    figure.remove();
    console.warn("the figure stays static:", error);
  }
})();
"""

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
    """Add the downloads to the chapters' pages, and the script to those with interactive figures.

    Args:
        root: the book's folder.
        folder: where it was rendered.
    """
    interactive = False
    for page in sorted(folder.rglob("*.html")):
        before = text = page.read_text(encoding="utf-8")
        here = "../" * (len(page.relative_to(folder).parts) - 1)
        if page.parent == folder / "chapters":
            box = _downloads(page.stem, here, root, folder)
            text = text.replace("</main>", f"{box}</main>", 1)
        marked = _marked(text, page)
        if marked != text:
            interactive = True
            script = f'<script src="{here}{BUNDLE}"></script>\n<script>{SCRIPT}</script>\n'
            text = marked.replace("</head>", f"<style>{STYLE}</style>\n</head>", 1)
            text = text.replace("</body>", f"{script}</body>", 1)
        if text != before:
            page.write_text(text, encoding="utf-8")
    if interactive:
        from vl_convert import javascript_bundle

        bundle = javascript_bundle()  # type: ignore[call-arg]  # its stub has no default
        (folder / BUNDLE).write_text(bundle, encoding="utf-8")


def _downloads(chapter: str, here: str, root: Path, folder: Path) -> str:
    """Links to the files of a chapter that there are, which are copied beside the pages."""
    lines = []
    for pattern, what in DOWNLOADS:
        file = pattern.format(chapter)
        if (root / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, folder / file)
            name = html.escape(Path(file).name)
            link = f'<a href="{here}{quote(file)}" download>{name}</a>'
            size = (root / file).stat().st_size / 1e6
            lines.append(f"<li>{link} ({size:.1f} MB): {what}</li>")
    items = "".join(lines)
    head = '<nav class="downloads" aria-label="Downloads"><p>Download</p>'
    return f"{head}<ul>{items}</ul></nav>" if lines else ""


def _marked(text: str, page: Path) -> str:
    """The page with a mark on every image that carries an interactive figure."""

    def mark(match: re.Match[str]) -> str:
        carries = any(MARK in data for data in _svg(html.unescape(match[1]), page))
        return match[0].replace("<img", "<img data-vega", 1) if carries else match[0]

    return re.sub(r'<img\b[^>]*?\bsrc="([^"]+)"[^>]*>', mark, text)


def _svg(source: str, page: Path) -> Iterator[bytes]:
    """The bytes of an image, when it is an SVG of this site."""
    if source.startswith("data:image/svg+xml;base64,"):
        yield base64.b64decode(source.partition(",")[2])
    elif source.endswith(".svg") and (page.parent / source).is_file():
        yield (page.parent / source).read_bytes()
