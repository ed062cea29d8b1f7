"""What a page gets from neither renderer: downloads, figures that answer, boxes that compute.

It is added to the written HTML, so that Quarto's pages and the plain ones have the same.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from llmft.book import downloads, figures, live, origins, stamp


def finish(root: Path, folder: Path, lines: Mapping[str, str]) -> None:
    """Add the downloads to the rendered book and its pages, and scripts to those that ask for them.

    `lines` of HTML begin pages, by the page's source ("chapters/icl.ipynb").
    """
    head = f"<style>{figures.STYLE}{origins.STYLE}</style>\n{downloads.card(root, folder)}"
    begin = {(folder / source).with_suffix(".html"): line for source, line in lines.items()}
    for page in [*sorted(folder.glob("chapters/*.html")), *sorted(folder.glob("*.html"))]:
        text, own, files = page.read_text(encoding="utf-8"), head, ""
        notebook = page.relative_to(folder).with_suffix(".ipynb")
        if (root / notebook).is_file():
            cells = stamp.read(root / notebook)
            files = downloads.of_chapter(page.stem, root, folder)
            text = figures.links(figures.free(text), cells, page.stem, folder)
            text = figures.answering(text, cells, folder)
            text = origins.link(text, origins.note(cells, page.stem, root))
            own += live.boxes(text, root, folder)
        elif page == folder / "index.html":
            files = downloads.of_book(root, folder)
            text = origins.link(chapters_named(text))
        text = figures.drawings(text, page)
        if page in begin and (main := re.search("<main[^>]*>", text)):
            text = text[: main.end()] + begin[page] + text[main.end() :]
        text = text.replace("</main>", f"{files}</main>", 1)
        page.write_text(text.replace("</head>", f"{own}</head>", 1), encoding="utf-8")


def chapters_named(text: str) -> str:
    """A page's HTML whose sentences refer to "Chapter 10", not to "10 Comparison and conclusions".

    A page without a number, as the first is, gets the latter from Quarto. In a table it is better.
    """
    title = r'(?<!">)(<a [^>]*class="quarto-xref"><span>)(?:Appendix )?(\w+)(?:&nbsp; | — )[^<]*'

    def named(match: re.Match[str]) -> str:
        return f"{match[1]}{'Chapter' if match[2].isdigit() else 'Appendix'}&nbsp;{match[2]}"

    return re.sub(title, named, text)
