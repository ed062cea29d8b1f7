"""Figures on narrow and on dark pages.

A figure's SVG holds, hidden, its drawing for a phone (`report.renderings`). A page shows that one
where it is narrow. On a dark page the SVG's own style sheet applies, by the page's `color-scheme`.
"""

import base64
import re
from pathlib import Path
from urllib.parse import unquote


NARROW = "(max-width: 767.98px)"

STYLE = f"""
main figure img.phone {{ background: none; }}
body.quarto-dark main figure img {{ color-scheme: dark; }}
body.quarto-light main figure img {{ color-scheme: light; }}
@media {NARROW} {{
  main figure img.phone {{ width: 100% !important; max-width: 100% !important; height: auto; }}
}}
"""

HIDDEN = '<svg id="phone" display="none" '
DATA = "data:image/svg+xml;base64,"


def finish(text: str, page: Path) -> str:
    """The page's HTML, with both drawings of every figure that has two.

    Args:
        text: the page's HTML.
        page: where it is; drawings that are files are parted beside it.
    """

    def both(match: re.Match[str]) -> str:
        image, source = match[0], match[1]
        svg = _read(source, page)
        narrow = re.search(r'<svg\b[^>]* viewBox="0 0 (\d+)', svg)
        if HIDDEN not in svg:
            small = narrow is not None and int(narrow[1]) <= 366
            return _fitting(image) if small else image
        wide, phone = apart(svg)
        other = f'<source media="{NARROW}" srcset="{_write(source, page, phone, "-phone")}">'
        image = image.replace(source, _write(source, page, wide, ""), 1)
        return f"<picture>{other}{_fitting(image)}</picture>"

    text = re.sub(r'<img\b[^>]*?\bsrc="([^"]+)"[^>]*>', both, text)
    return text.replace("</head>", f"<style>{STYLE}</style>\n</head>", 1)


def apart(svg: str) -> tuple[str, str]:
    """The drawing for a page and that for a phone, of an SVG that holds both."""
    begin, end = svg.index(HIDDEN), svg.rindex("</svg>")
    return svg[:begin] + svg[end:], svg[begin:end].replace(HIDDEN, "<svg ", 1)


def _fitting(image: str) -> str:
    """The image, marked as one that fits a phone."""
    if 'class="' in image:
        return image.replace('class="', 'class="phone ', 1)
    return image.replace("<img", '<img class="phone"', 1)


def _read(source: str, page: Path) -> str:
    """The SVG of an image; "" where it is none, or no file of the page's."""
    if source.startswith(DATA):
        return base64.b64decode(source.removeprefix(DATA)).decode()
    path = page.parent / unquote(source)
    if not source.endswith(".svg") or re.match(r"\w+:|/", source) or not path.is_file():
        return ""
    return path.read_text(encoding="utf-8")


def _write(source: str, page: Path, svg: str, suffix: str) -> str:
    """What to put in the source's place to show this drawing."""
    if source.startswith(DATA):
        return DATA + base64.b64encode(svg.encode()).decode()
    name = source.removesuffix(".svg") + f"{suffix}.svg"
    (page.parent / unquote(name)).write_text(svg, encoding="utf-8")
    return name
