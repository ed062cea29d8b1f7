"""The figures of a rendered page: freed of text, drawn for a phone, to take away, answering.

Both renderers put all outputs of a cell with a label into one float, where a sentence scrolls with
the table and reads as a part of the caption: `free` takes it out again. A figure's SVG holds,
hidden, its drawing for a phone (`report.renderings`), which `drawings` shows where the page is
narrow. On a dark page the SVG's own style sheet applies, by the page's `color-scheme`.
"""

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from llmft import dark
from llmft.book import gate, stamp


NARROW = "(max-width: 767.98px)"

STYLE = f"""
main figure img.phone {{ background: none; }}
body.quarto-dark main figure img {{ color-scheme: dark; }}
body.quarto-light main figure img {{ color-scheme: light; }}
@media {NARROW} {{
  main figure img.phone {{ width: 100% !important; max-width: 100% !important; height: auto; }}
}}
"""


# --- text around them --------------------------------------------------------------------------

FIGURE = re.compile(r"<figure\b[^>]*>.*?</figure>", re.DOTALL)
SHOWN = re.compile(r"</table>|<img\b[^>]*>|</picture>")
_DIV, _FIGURE, _CAPTION = r"<div\b[^>]*>\s*", r"<figure\b[^>]*>\s*", r"<figcaption\b[^>]*>\s*"
_END = r"\s*</figcaption>\s*"
PARTED = re.compile(
    rf"(?P<open>{_FIGURE})<figcaption\b[^>]*quarto-uncaptioned[^>]*>\s*(?P<name>[^<]*?){_END}{_DIV}"
    rf'<div id="[\w-]+-1"[^>]*>\s*{_FIGURE}{_CAPTION}\(a\)\s*(?P<caption>(?:(?!<fig).)*?){_END}'
    rf"{_DIV}(?P<words>(?:(?!<fig).)*?)</div>\s*</figure>\s*</div>\s*"
    rf"(?:{_DIV})?<div id=\"[\w-]+-2\"[^>]*>\s*{_FIGURE}{_CAPTION}\(b\){_END}"
    rf"{_DIV}(?P<shown>(?:(?!<fig).)*?)</div>\s*</figure>\s*</div>\s*(?:</div>\s*)?</div>\s*</figure>",
    re.DOTALL,
)
WORDS = re.compile(r"<p>(?:(?!<img\b|</?p\b).)+</p>\n?|<ul>.*?</ul>\n?", re.DOTALL)


def free(page: str) -> str:
    """The page with text that a float has swallowed beside it.

    Behind the last table, and on both sides of a figure; between tables it heads the next one.
    Before a figure Quarto makes a figure "(a)" of it, with the caption, and of the figure itself a
    "(b)": these become one again.
    """
    return FIGURE.sub(lambda match: _apart(match[0]), PARTED.sub(_whole, page))


def _whole(match: re.Match[str]) -> str:
    """The words that Quarto made a figure of, and the figure with its caption."""
    caption = f"<figcaption>{match['name']}: {match['caption']}</figcaption>"
    return f"{match['words']}{match['open']}{caption}{match['shown']}</figure>"


def _apart(figure: str) -> str:
    """A float, and the text that it is freed of."""
    content = list(SHOWN.finditer(figure))
    if not content:
        return figure
    start, end = content[0].start(), content[-1].end()
    caption = start  # where text above may begin; that above a table stays
    if content[0][0].startswith("<img"):
        caption = min(start, figure.find("</figcaption>") + 1)
    above, below = figure[caption:start], figure[end:]
    rest = figure[:caption] + WORDS.sub("", above) + figure[start:end] + WORDS.sub("", below)
    return f"{''.join(WORDS.findall(above))}{rest}{''.join(WORDS.findall(below))}"


# --- drawings ----------------------------------------------------------------------------------

HIDDEN = '<svg id="phone" display="none" '
DATA = "data:image/svg+xml;base64,"


def drawings(text: str, page: Path) -> str:
    """The page's HTML, with both drawings of every figure that has two.

    Drawings that are files are parted beside the `page`.
    """

    def both(match: re.Match[str]) -> str:
        image, source = match[0], match[1]
        wide, phone = apart(_read(source, page))
        if not phone:
            width = re.search(r'<svg\b[^>]* viewBox="0 0 (\d+)', wide)
            return _fitting(image) if width and int(width[1]) <= 366 else image
        other = f'<source media="{NARROW}" srcset="{_write(source, page, phone, "-phone")}">'
        image = image.replace(source, _write(source, page, wide, ""), 1)
        return f"<picture>{other}{_fitting(image)}</picture>"

    return re.sub(r'<img\b[^>]*?\bsrc="([^"]+)"[^>]*>', both, text)


def apart(svg: str) -> tuple[str, str]:
    """The drawing for a page and that for a phone; the latter is empty if the SVG has but one."""
    if HIDDEN not in svg:
        return svg, ""
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


# --- to take away ------------------------------------------------------------------------------

SPEC = re.compile(r'<metadata id="vega-lite">(.*?)</metadata>', re.DOTALL)
"""The Vega-Lite specification, with its data, in a figure that answers (`report.interactive`)."""


def links(text: str, notebook: stamp.Notebook, chapter: str, folder: Path) -> str:
    """The page's text with links under each figure: as SVG, as PNG, and its data.

    The data are those of the figure's Vega-Lite specification where it has one, else the rows that
    all figures of the chapter are made from.
    """
    place = folder / "figures"
    for label, svg in labelled(notebook):
        at = text.find("</figure>", text.find(f'id="{label}"'))
        if f'id="{label}"' not in text or at < 0:
            continue
        place.mkdir(exist_ok=True)
        svg, _ = apart(svg)
        (place / f"{label}.svg").write_text(svg, encoding="utf-8")
        files = [(f"figures/{label}.svg", "SVG")]
        if drawn := png(svg):
            (place / f"{label}.png").write_bytes(drawn)
            files.append((f"figures/{label}.png", "PNG"))
        if spec := SPEC.search(svg):
            (place / f"{label}.json").write_text(html.unescape(spec[1]), encoding="utf-8")
            files.append((f"figures/{label}.json", "data and specification (Vega-Lite)"))
        elif (folder / "data" / "results" / f"{chapter}.csv").is_file():
            files.append((f"data/results/{chapter}.csv", "data (the chapter’s runs, CSV)"))
        anchors = ", ".join(f'<a href="../{quote(to)}" download>{name}</a>' for to, name in files)
        at += len("</figure>")
        text = f'{text[:at]}<p class="figure-files">This figure: {anchors}</p>{text[at:]}'
    return text


def labelled(notebook: stamp.Notebook) -> Iterator[tuple[str, str]]:
    """The figures that the notebook shows, each with its label."""
    for cell in stamp.code_cells(notebook):
        label = str(gate.cell_options(cell).get("label", ""))
        found = [output.get("data", {}).get("image/svg+xml") for output in cell["outputs"]]
        if label.startswith("fig-") and any(found):
            yield label, next(filter(None, found))


def png(svg: str) -> bytes:
    """The figure as PNG, twice as large; nothing of an SVG that cannot be drawn."""
    from vl_convert import svg_to_png

    try:
        return bytes(svg_to_png(svg, scale=2))
    except ValueError:
        return b""


# --- figures that answer -----------------------------------------------------------------------

BUNDLE = "vega.js"
"""Vega, Vega-Lite and vega-embed in one file, from vl-convert: no page asks another host for it."""

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
""".replace("NARROW", NARROW)

ANSWERING = """
.vega-embed { display: block; background: #fff; color: #1f2328; color-scheme: light; }
.vega-embed { border-radius: .5rem; }
.vega-embed svg { background: none !important; } /* Vega's own is white in the dark, too */
.vega-embed > svg, .vega-embed .chart-wrapper > svg { max-width: 100%; height: auto; }
.vega-bindings { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0 14px 14px; }
.vega-bindings { position: sticky; left: 0; max-width: calc(100vw - 3rem); font-size: .85rem; }
.vega-bind label { display: flex; flex-direction: row-reverse; gap: .4rem; cursor: pointer; }
@media (max-width: 767.98px) { .vega-embed svg { min-width: 35rem; } }
"""


def dark_style() -> str:
    """The style of a figure that answers on a dark page, by Quarto's switch or the browser's."""
    rules = [(" .vega-embed", "background: none; color: inherit; color-scheme: dark")]
    for light, other in dark.COLOURS.items():
        rules += [
            (f' .vega-embed [{part}="{light}"]', f"{part}: {other}") for part in ("fill", "stroke")
        ]
    switched = "".join(f"body.quarto-dark{where} {{ {what} }}\n" for where, what in rules)
    usual = "".join(f"body:not(.quarto-light){where} {{ {what} }}\n" for where, what in rules)
    return f"{switched}@media (prefers-color-scheme: dark) {{\n{usual}}}\n"


def answering(text: str, notebook: stamp.Notebook, folder: Path) -> str:
    """The page with a script, if the notebook has figures that answer to the pointer."""
    if not any(SPEC.search(svg) for _, svg in labelled(notebook)):
        return text
    from vl_convert import javascript_bundle

    bundle = javascript_bundle()  # type: ignore[call-arg]  # its stub has no default
    (folder / BUNDLE).write_text(bundle, encoding="utf-8")
    script = f'<script src="../{BUNDLE}"></script>\n<script>{SCRIPT}</script>\n'
    text = text.replace("</head>", f"<style>{ANSWERING}{dark_style()}</style>\n</head>", 1)
    return text.replace("</body>", f"{script}</body>", 1)
