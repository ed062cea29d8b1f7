"""Where a number in the text comes from: each interval links to the code and the rows behind it.

A chapter's prose has no typed results (the gate sees to it), so an interval in the text was printed
by the nearest code above it. There, in the fold of the code, a note names the runs, their files,
how intervals are made, and the commands that measure again. A link to it opens the fold.
"""

import html
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from llmft.book import stamp


NUMBER = r"[-−]?\d[\d,]*(?:\.\d+)?"
BRACKETS = re.compile(rf"\[({NUMBER}), ({NUMBER})\]")
SAMPLE = re.compile(r"n = (?=\d)")
TIMES = re.compile(r"(?<=\d) × (?=\d)")
PER_CENT = re.compile(r"(?<=\d) %")
INTERVAL = re.compile(rf"{NUMBER} \[{NUMBER},\u00a0{NUMBER}\]")

TAG = re.compile(r"(<[^>]*>)")
LITERAL = ("pre", "code", "script", "style", "svg", "math")
"""Elements whose text stays as it is."""
QUIET = (*LITERAL, "table", "figcaption", "a", "h1", "h2", "h3", "h4")
"""Elements in which no number becomes a link."""

STYLE = """.from { color: inherit; text-decoration: underline dotted; text-underline-offset: .2em; }
.from { white-space: nowrap; }
p.from { text-decoration: none; white-space: normal; font-size: .85rem; scroll-margin-top: 5rem; }
p.from:target { outline: 2px solid #2a78c8; outline-offset: .3rem; }
"""


def link(page: str, note: str = "") -> str:
    """The page with its intervals unbroken, and linked to where the `note` says they come from."""
    start, end = page.find("<main"), page.find("</main>")
    parts: list[str] = []
    notes: dict[int, int] = {}
    inside: Counter[str] = Counter()
    number = 0
    for part in TAG.split(page[start:end]):
        if part.startswith("<"):
            name = part.strip("</>").partition(" ")[0]
            if name in QUIET:
                inside[name] += -1 if part.startswith("</") else 1
            if _begins_code(part, parts):
                number += 1
                notes[number] = len(parts)
                parts.append("")
        elif not any(inside[name] for name in LITERAL):
            part = TIMES.sub("\u00a0×\u00a0", PER_CENT.sub("\u00a0%", part))
            part = SAMPLE.sub("n\u00a0=\u00a0", BRACKETS.sub("[\\1,\u00a0\\2]", part))
            if number and note and not any(inside[name] for name in QUIET):
                part, found = INTERVAL.subn(
                    f'<a class="from" href="#from-{number}">\\g<0></a>', part
                )
                if found:
                    parts[notes[number]] = f'<p class="from" id="from-{number}">{note}</p>'
        parts.append(part)
    return f"{page[:start]}{''.join(parts)}{page[end:]}"


def _begins_code(tag: str, before: Sequence[str]) -> bool:
    """Whether the tag begins a cell's code, on Quarto's pages and on the plain ones."""
    if tag.startswith('<div class="sourceCode cell-code"'):
        return True
    last = next((part for part in reversed(before) if part.strip()), "")
    return tag.startswith('<div class="sourceCode"') and last == "</summary>"


def note(notebook: stamp.Notebook, chapter: str, root: Path) -> str:
    """What is said of the chapter's numbers; nothing where it has no runs."""
    code = "\n".join(stamp.code(cell) for cell in stamp.code_cells(notebook))
    named = [f"data/results/{chapter}.csv", *re.findall(r'"(data/results/[\w-]+\.csv)"', code)]
    links = []
    for name in dict.fromkeys(named):
        answers = Path(name).with_suffix(".parquet").as_posix()
        if (root / answers).is_file() and (root / name).is_file():
            with (root / name).open(encoding="utf-8") as file:
                runs = sum(1 for _ in file) - 1
            links.append(
                f'{runs:,} runs (<a href="../{quote(name)}">a row and a key each</a>, '
                f'<a href="../{quote(answers)}">their answers</a>)'
            )
    if not links:
        return ""
    again = html.escape(f"papermill chapters/{chapter}.ipynb out.ipynb -k python3")
    return (
        f"The numbers below come from this code and from {', '.join(links)}. Intervals have the "
        'error of draws and of pairs: <a href="icl.html#tbl-icl">how they are made</a>. '
        f"Measured again by <code>{again}</code>, checked by <code>llmft verify</code>."
    )
