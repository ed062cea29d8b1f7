"""Text that a float has swallowed: what a cell prints beside its table or figure.

Both renderers put all outputs of a cell with a label into the float, where a sentence scrolls with
the table and reads as a part of the caption. Behind the last table, and on both sides of a figure,
it is taken out again; between tables it heads the next one, and stays. Before a figure Quarto makes
a figure "(a)" of it, with the caption, and of the figure itself a "(b)": these become one again.
"""

import re


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
    """The page with the text around tables and figures beside the floats."""
    return FIGURE.sub(lambda match: _apart(match[0]), PARTED.sub(_whole, page))


def _whole(match: re.Match[str]) -> str:
    """The words that Quarto made a figure of, and the figure with its caption."""
    caption = f"<figcaption>{match['name']}: {match['caption']}</figcaption>"
    return f"{match['words']}{match['open']}{caption}{match['shown']}</figure>"


def _apart(figure: str) -> str:
    """A float, and the text that it is freed of."""
    found = list(SHOWN.finditer(figure))
    if not found:
        return figure
    first = figure.find("</figcaption>") + 1, found[0].start()
    before, after = "", ""
    tail = figure[found[-1].end() :]
    after = "".join(WORDS.findall(tail))
    figure = figure[: found[-1].end()] + WORDS.sub("", tail)
    if found[0][0].startswith("<img"):
        head = figure[first[0] : first[1]]
        before = "".join(WORDS.findall(head))
        figure = figure[: first[0]] + WORDS.sub("", head) + figure[first[1] :]
    return f"{before}{figure}{after}"
