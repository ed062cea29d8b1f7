"""Text that comes from data, or is a model's name, does nothing on a page: it is only shown.

Such text goes into Markdown through `escape`, `code` or `fence`, which Pandoc (Quarto), CommonMark
(Jupyter, GitHub) and the plain pages all show as it is. What a chapter holds in the end is read by
`markdown_problems` and `svg_problems`, which `llmft check` reports: in Quarto's pages, raw HTML
lives wherever Markdown does. They refuse more than is dangerous, so that they need not know where
the two readings of Markdown part.
"""

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree


SCHEMES = ("http", "https", "mailto")
"""What a link may begin with, unless it is relative or an anchor."""

INTERVAL = r"\[[–\d][-–−\d.,%×+ ]*\](?![\[({:])"  # 0.81 [0.78, 0.84]: no link has such brackets
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
SHORTCODE = re.compile(r"\{\{(?=[<%])")
ATTRIBUTES = r'\{[ \t]*[.#][\w-]+(?:[ \t]+(?:[.#][\w-]+|[\w-]+="[^"\n]*"))*[ \t]*\}'
FENCED = re.compile(
    r"(?ms)(?:\A|\n[ \t]*\n)(?::::[^\n]*\n)?"  # so that nothing before it can swallow its beginning
    rf"(`{{3,}})([ \t]*(?:[\w+#-]*|{ATTRIBUTES}))[ \t]*\n(?:.*?\n)?? {{0,3}}\1`*[ \t]*$"
)
DEFINITION = r"(?m)^[\s>*+\-\d.)]*\[(?:\\.|[^\]\\])*\]:([^\n]*(?:\n[^\n]+)?)"
LOADS = r"(?i)url\((?!\s*[\"']?#)|@import|javascript:|expression\(|\\"


class Markdown(str):
    """Text that is Markdown already: `escape` leaves it as it is."""

    __slots__ = ()


def escape(text: object) -> str:
    """Text as Markdown, on one line, that shows it literally; `Markdown` stays as it is.

    Whatever could begin markup is a character reference, which no reader takes for markup. What
    can only begin a list, a heading or a typographic sign (`.-+=():`) is one only where it could.
    """
    if isinstance(text, Markdown):
        return text
    words = CONTROL.sub("\ufffd", " ".join(str(text).split()))
    first = len(words.partition(" ")[0])

    def literal(match: re.Match[str]) -> str:
        sign, at = match[0], match.start()
        before, after = words[max(at - 1, 0) : at], words[at + 1 : at + 2]
        if sign == "_":
            plain = before.isalnum() and after.isalnum()
        elif sign == ":":
            plain = at > first and before != ":" and after == " "
        else:
            soft = sign in ".-+=()" and sign not in (before, after)
            plain = len(sign) > 1 or (soft and (at > first or after.isalnum()))
        return sign if plain else f"&#{ord(sign)};"

    return re.sub(rf"{INTERVAL}|[^\w\s,;?!%/\x80-\U0010ffff]|_", literal, words)


def code(text: object) -> Markdown:
    """Text as an inline code span; escaped where no code span shows it alike everywhere."""
    words = " ".join(str(text).split())
    span = f"`{words}`"
    odd = not words or re.search(rf"[`|\\]|{CONTROL.pattern}", words)
    return Markdown(escape(words) if odd or any(markdown_problems(span)) else span)


def fence(text: object, language: str = "text") -> Markdown:
    """Lines of text as a fenced block, its fence longer than any run of backticks in them.

    Quarto reads shortcodes even there: an invisible word joiner parts their braces.
    """
    lines = re.sub(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", str(text))
    lines = SHORTCODE.sub("{\u2060{", CONTROL.sub("\ufffd", lines))
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", lines))])
    return Markdown(f"{ticks}{language}\n{lines}\n{ticks}")


# --- what is found in a chapter ------------------------------------------------------------------

LIVE = {
    "raw HTML (show it in a fence, or write &lt;)": (
        r"<(?!(?:https?://|mailto:)[^\s<>\"']*>)[A-Za-z/!?]"
    ),
    "a raw block": r"\{[ \t]*=[ \t]*\w",
    "an attribute that runs": r"(?i)\{(?:[^{}\"']|\"[^\"]*\"|'[^']*')*?\bon[a-z]+\s*=",
    "a fence that not all read alike (begin and end it with ``` at the margin, after an empty "
    "line, with no more than a language or {.class} behind it)": (
        r"(?m)^[ \t>*+\-\d.)]*(?:`{3,}|~{3,})"
    ),
    "a picture from another host": r"!\[[^\]]*\]\(\s*<?(?:(?i:https?:)?//)",
}


def markdown_problems(markdown: str) -> Iterator[str]:
    """What in Markdown a browser or Quarto would act upon, a phrase each.

    Code in a fence at the margin, after an empty line, is left out; nothing else is.
    """
    text = re.sub(r"\r\n?", "\n", markdown)
    yield from printed_problems(text)
    prose = FENCED.sub(r"\n\2\n", text)
    for what, pattern in LIVE.items():
        for found in re.finditer(pattern, prose):
            yield f"{what}: {_short(prose[found.start() : found.end() + 40])}"
    links = [match[1] for match in re.finditer(r"\]\(([^)]*)", prose)]
    links += [match[1] for match in re.finditer(DEFINITION, prose)]
    yield from (f"a link to {_short(link)}" for link in links if not safe_link(link))


def printed_problems(text: str) -> Iterator[str]:
    """What Quarto would act upon in printed text, which pages show as code."""
    for found in SHORTCODE.finditer(text):
        yield f"a shortcode of Quarto: {_short(text[found.start() : found.end() + 40])}"


def safe_link(target: str) -> bool:
    """Whether a link leads to the web, a mail address, or within the book, however it is spelt."""
    plain = re.sub(r"\\(?=\W)", "", html.unescape(target))
    plain = re.sub(r"[\s<\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]", "", plain)
    scheme = re.match(r"([^/?#\"']*?):", plain)
    return scheme is None or scheme[1].lower() in SCHEMES


def svg_problems(svg: str) -> Iterator[str]:
    """What in an SVG a browser would run or load, a phrase each."""
    if re.search(r"<!(DOCTYPE|ENTITY)|<\?xml-stylesheet", svg, re.IGNORECASE):
        yield "a document type or a style sheet"
        return
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        yield f"no well-formed XML: {error}"
        return
    for element in root.iter():
        space, _, name = str(element.tag).lower().rpartition("}")
        if space not in ("", "{http://www.w3.org/2000/svg"):
            yield f"an element of {space[1:]}"
        if re.fullmatch("script|foreignobject|handler|listener|set|discard|animate.*", name):
            yield f"<{name}>"
        for key, value in element.attrib.items():
            key = key.rpartition("}")[2].lower()
            if key.startswith("on"):
                yield f"{key}="
            elif key in ("href", "src", "base"):
                within = value.startswith("#") or re.match("data:image/(png|jpeg);base64,", value)
                if not within and not (name == "a" and safe_link(value)):
                    yield f"{key}={_short(value)}"
            elif not key.startswith("aria-") and re.search(LOADS, value):
                yield f"{key}={_short(value)}"
        if name == "style" and re.search(LOADS, element.text or ""):
            yield f"a style that loads: {_short(element.text or '')}"
        if element.get("id") == "vega-lite" and re.search(
            r'"(url|href|usermeta)"\s*:', element.text or ""
        ):
            yield "an interactive figure that loads or leads elsewhere"


def _short(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 60 else f"{words[:60]}…")
