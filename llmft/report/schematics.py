"""Pictures of the ideas: what a prompt, LoRA, a distillation and its recursion are made of.

Each is one SVG of 360 units across, about as many pixels as a phone has, in the book's colours and
type. Bars in them stand for probabilities, not for measured ones.
"""

from collections.abc import Sequence
from html import escape

from llmft.report import theme
from llmft.report.renderings import Svg, in_the_dark


WIDTH = 360  # units across
ON_A_PAGE = 1.4  # pixels a unit where there is room
PAPER = "#ffffff"

TEACHER, STUDENT, RECURSIVE, CORRECTION = (
    theme.looks([name])[0][0] for name in ("ICL", "distillation", "recursive distillation", "LoRA")
)


def prompt() -> Svg:
    """In-context learning: demonstrations, a query, and the words expected at its end."""
    parts = [
        _text(8, 20, "k demonstrations", weight="bold"),
        _text(352, 20, "read once", anchor="end"),
    ]
    for y, number, label in ((30, "1", "Yes"), (84, "k", "No")):
        parts.append(_box(8, y, 278, 30, f"premise {number}, hypothesis {number} ?"))
        parts.append(_box(292, y, 60, 30, label, edge=TEACHER, ink=TEACHER))
    parts += [
        _text(147, 77, "⋮", anchor="middle"),
        _text(8, 140, "query", weight="bold"),
        _text(352, 140, "answer", anchor="end"),
        _box(8, 150, 278, 30, "premise, hypothesis ?", edge=theme.INK),
        _box(292, 150, 60, 30, "?", edge=TEACHER, dash=True, fill=PAPER),
        _arrow((322, 180), (322, 206), (132, 206), (132, 236)),
        _text(8, 226, "expected next", weight="bold"),
        *_bars(70, 242, [("Yes", 92, TEACHER), ("No", 34, TEACHER), ("others", 56, theme.GREY)]),
        _path((170, 242), (178, 242), (178, 274), (170, 274)),
        _text(186, 254, "answer: these two,"),
        _text(186, 271, "made to sum to 1"),
    ]
    return _figure(
        304,
        parts,
        "A prompt: k demonstrations with their label words, then the query, whose label word is "
        "missing. At its end the model expects Yes, No and other words, each with some "
        "probability; those of Yes and No are the answer, made to sum to 1.",
    )


def low_rank() -> Svg:
    """LoRA: a fixed matrix, and beside it two thin ones that are learnt."""
    parts = [
        _text(10, 138, "x", weight="bold", size=15),
        _arrow((24, 133), (46, 133), (46, 66), (92, 66)),
        _arrow((46, 133), (46, 206), (70, 206)),
        _box(94, 12, 108, 108, ""),
        _text(148, 62, "W₀", weight="bold", size=15, anchor="middle"),
        _text(148, 82, "fixed", anchor="middle"),
        _box(72, 195, 90, 22, "A", edge=CORRECTION, ink=CORRECTION),
        _text(117, 236, "r rows, learnt", anchor="middle"),
        _arrow((162, 206), (202, 206)),
        _text(182, 198, "r", anchor="middle"),
        _box(204, 152, 22, 108, "B", edge=CORRECTION, ink=CORRECTION),
        _text(234, 238, "r columns,"),
        _text(234, 255, "learnt"),
        _path((226, 206), (316, 206), (316, 146)),
        _text(270, 198, "× α / r", anchor="middle"),
        _path((202, 66), (316, 66), (316, 120)),
        f'<circle cx="316" cy="133" r="13" fill="{PAPER}" stroke="{theme.INK}"/>',
        _text(316, 138, "+", anchor="middle", size=15, weight="bold"),
        _text(346, 138, "h", weight="bold", size=15, anchor="middle"),
        _path((329, 133), (338, 133)),
    ]
    return _figure(
        272,
        parts,
        "LoRA: x goes through the fixed matrix W0, and beside it through A, which makes r numbers "
        "of it, and B; their product, times alpha over r, is added to give h. Only A and B, which "
        "are thin, are learnt.",
    )


def distillation() -> Svg:
    """Context distillation: a teacher that reads the context, a student that does not."""
    parts = [
        _text(8, 18, "teacher, fixed: with the context", weight="bold", ink=TEACHER),
        _box(8, 30, 116, 30, "demonstrations", edge=TEACHER, ink=TEACHER),
        _box(130, 30, 126, 30, "query"),
        _arrow((258, 45), (276, 45)),
        *_bars(312, 28, [("Yes", 38, TEACHER), ("No", 10, TEACHER)]),
        _box(130, 142, 126, 30, "query"),
        _arrow((258, 157), (276, 157)),
        *_bars(312, 140, [("Yes", 26, STUDENT), ("No", 22, STUDENT)]),
        _text(8, 198, "student, learns: without it", weight="bold", ink=STUDENT),
    ]
    for x in (148, 178, 208, 238, 318):
        parts.append(_arrow((x, 114), (x, 136), dash=True))
        parts.append(_path((x, 70), (x, 92), dash=True))
    parts.append(_text(180, 107, "KL at each token, too", anchor="middle"))
    parts.append(_text(318, 107, "KL", anchor="middle", weight="bold"))
    return _figure(
        210,
        parts,
        "Context distillation: the teacher reads the demonstrations and then the query, the "
        "student the query alone. The student's weights are changed so that the KL divergence "
        "between the two falls, at the answer, and with the text term at every token of the query.",
    )


def recursion() -> Svg:
    """Recursive distillation: each student, given the context, is the next teacher."""
    parts = []
    edges = [theme.QUIET, STUDENT, RECURSIVE, RECURSIVE]
    for number, x in enumerate((8, 130, 252)):
        parts += [
            _text(x, 18, f"round {number + 1}", weight="bold"),
            _box(x, 28, 34, 30, "θ" + "₀₁₂"[number], edge=edges[number]),
            _box(x + 38, 28, 62, 30, "context", edge=TEACHER, ink=TEACHER),
            _arrow((x + 17, 58), (x + 17, 118)),
            _text(x + 26, 93, "teaches"),
            _box(x, 120, 34, 30, "θ" + "₁₂₃"[number], edge=edges[number + 1]),
        ]
        if number < 2:
            into = (x + 111, 135), (x + 111, 43), (x + 120, 43)
            parts.append(_arrow((x + 34, 135), *into, dash=True))
    return _figure(
        160,
        parts,
        "Recursive distillation in three rounds: the model with the context teaches a student "
        "without it; this student, given the context, is the teacher of the next round, and so on.",
    )


# --- what they are drawn with --------------------------------------------------------------------


def _figure(height: int, parts: Sequence[str], words: str) -> Svg:
    """The picture, `words` its text alternative."""
    width, tall = WIDTH * ON_A_PAGE, height * ON_A_PAGE
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(words)}" '
        f'width="{width:g}" height="{tall:g}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="{theme.FONT}"><title>{escape(words)}</title>'
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>{"".join(parts)}</svg>'
    )
    return Svg(in_the_dark(svg))


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    size: int = 13,
    ink: str = "",
) -> str:
    """Words whose baseline begins, is centred or ends at a point."""
    ink = ink or (theme.INK if weight == "bold" else theme.QUIET)
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}" '
        f'font-size="{size}" fill="{ink}">{escape(words)}</text>'
    )


def _box(
    x: float,
    y: float,
    width: float,
    height: float,
    words: str,
    *,
    edge: str = theme.GREY,
    ink: str = theme.INK,
    fill: str = theme.FAINT,
    dash: bool = False,
) -> str:
    """A box with words in its middle."""
    dashes = ' stroke-dasharray="4 3"' * dash
    box = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" '
        f'stroke="{edge}" stroke-width="1.5"{dashes}/>'
    )
    return box + _text(x + width / 2, y + height / 2 + 4.5, words, anchor="middle", ink=ink)


def _path(*points: tuple[float, float], dash: bool = False) -> str:
    """A line through points."""
    through = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashes = ' stroke-dasharray="4 3"' * dash
    return (
        f'<polyline points="{through}" fill="none" stroke="{theme.QUIET}" stroke-width="1.5"'
        f"{dashes}/>"
    )


def _arrow(*points: tuple[float, float], dash: bool = False) -> str:
    """A line through points, along the axes at its end, with an arrow's head there."""
    (x0, y0), (x, y) = points[-2:]
    along = (1 if x > x0 else -1, 0) if y == y0 else (0, 1 if y > y0 else -1)
    back = x - 7 * along[0], y - 7 * along[1]
    across = 4 * along[1], 4 * along[0]
    corners = (x, y), *((back[0] + s * across[0], back[1] + s * across[1]) for s in (1, -1))
    head = " ".join(f"{a:g},{b:g}" for a, b in corners)
    return _path(*points[:-1], back, dash=dash) + f'<polygon points="{head}" fill="{theme.QUIET}"/>'


def _bars(x: float, y: float, words: Sequence[tuple[str, float, str]]) -> list[str]:
    """A bar to the right of x for each word's probability, and the word before it."""
    parts = []
    for row, (word, length, fill) in enumerate(words):
        top = y + 19 * row
        parts.append(_text(x - 6, top + 11, word, anchor="end"))
        parts.append(f'<rect x="{x:g}" y="{top:g}" width="{length:g}" height="13" fill="{fill}"/>')
    return parts
