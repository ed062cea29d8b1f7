"""What a reader can take away: each chapter and how to run it again, and what is of the whole book.

All of it is made when the pages are, from the frozen notebooks and the results beside them.
"""

import html
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from llmft.book import figures, gate, stamp


FILES = {
    "chapters/{}.ipynb": "the chapter as a notebook",
    "data/results/{}.csv": "what its runs measured, a row a run",
    "data/results/{}.parquet": "their answer to every pair",
}
"""The files of a chapter that a reader may want."""


def of_chapter(chapter: str, root: Path, folder: Path) -> str:
    """Links to the files of a chapter that there are, which are copied beside the pages."""
    items = ""
    for pattern, what in FILES.items():
        file = pattern.format(chapter)
        if (root / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, folder / file)
            link = f'<a href="../{quote(file)}" download>{html.escape(Path(file).name)}</a>'
            items += f"<li>{link} ({_size(root / file)}): {what}</li>"
    if not items:
        return ""
    head = '<nav class="downloads" aria-label="Downloads"><p>Download, and run again</p>'
    items += "".join(f"<li>{line}</li>" for line in _again(chapter, root))
    return f"{head}<ul>{items}</ul></nav>"


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def _again(chapter: str, root: Path) -> Iterator[str]:
    """How to run the chapter again, here and elsewhere, and what it cost when it was measured."""
    command = f"papermill chapters/{chapter}.ipynb out.ipynb -k python3"
    yield f"run it again: <code>{html.escape(command)}</code>{_cost(chapter, root)}"
    yield "hold a sample of the published runs against the code: <code>llmft verify</code>"
    book = published(root)
    place = urlsplit(str(book.get("repo-url", "")))
    if place.hostname == "github.com":
        name, branch = place.path.strip("/"), book.get("repo-branch", "main")
        path = f"chapters/{quote(chapter)}.ipynb"
        colab = f"https://colab.research.google.com/github/{name}/blob/{branch}/{path}"
        binder = f"https://mybinder.org/v2/gh/{name}/{branch}?labpath={quote(path, safe='')}"
        package = html.escape(f"pip install git+{book['repo-url']}")
        yield (
            f'elsewhere: <a href="{html.escape(binder)}">on Binder</a>, or '
            f'<a href="{html.escape(colab)}">on Colab</a>, after <code>{package}</code> there'
        )


def _cost(chapter: str, root: Path) -> str:
    """Minutes and memory of the chapter's published runs, a study at a time."""
    file = root / "data" / "results" / f"{chapter}.csv"
    if not file.is_file():
        return ""
    import pandas as pd  # here, as the commands that render nothing begin faster without

    rows = pd.read_csv(file, low_memory=False)
    if not {"study", "task", "train_seconds", "eval_seconds", "peak_memory_mib"} <= {*rows.columns}:
        return ""
    parts = []
    for study, own in rows.groupby("study", sort=False):
        minutes = (_training(own) + own["eval_seconds"].sum()) / 60
        memory = own["peak_memory_mib"].max() / 1024
        parts.append(
            f"{html.escape(str(study))} {minutes:,.0f} minutes of training and scoring, "
            f"at most {memory:.1f} GiB"
        )
    return f" (measured: {'; '.join(parts)})"


def _training(rows: Any) -> float:
    """Seconds of training, each once: a recursion's later round has those of its earlier ones, too.

    So does a student that is asked in two ways (`scoring`). Of runs that are set alike but for
    that, the longest counts: what is set stands before what was measured, or came later.
    """
    columns = list(rows.columns)
    set_ = columns[columns.index("task") : columns.index("train_seconds")]
    later = ["prefix", "divergence", "teacher", "fresh", "context_share", "purity", "mixed"]
    alike = [name for name in [*set_, *later] if name in columns and name != "rounds"]
    return float(rows.groupby(alike, dropna=False)["train_seconds"].max().sum())


def published(root: Path) -> dict[str, Any]:
    """What the publishing profile says of the book's addresses; nothing without that profile."""
    file = root / "_quarto-publish.yml"
    if "publish" not in os.environ.get("QUARTO_PROFILE", "").split(",") or not file.is_file():
        return {}
    return dict(yaml.safe_load(file.read_text(encoding="utf-8"))["book"])


# --- of the whole book -------------------------------------------------------------------------


def of_book(root: Path, folder: Path) -> str:
    """Write `llms.txt`, the claims as JSON, and the data's cards; links to them.

    The chapters' own files are there already.
    """
    links = [(file.name, f"the whole book as PDF ({_size(file)})") for file in folder.glob("*.pdf")]
    links.append(("llms.txt", "the book in a page of plain text, for language models, too"))
    results = root / "data" / "results"
    if (results / "comparison-claims.json").is_file():
        shutil.copyfile(results / "comparison-claims.json", folder / "claims.json")
        links.append(("claims.json", "each claim of the comparison, with its differences"))
    for card in sorted((root / "data" / "cards").glob("*.md")):
        (folder / "data" / "cards").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(card, folder / "data" / "cards" / card.name)
        title = card.read_text(encoding="utf-8").partition("\n# ")[2].partition("\n")[0]
        links.append((f"data/cards/{card.name}", f"a card of the data: {title}"))
    (folder / "llms.txt").write_text("\n".join(_llms(root, folder)) + "\n", encoding="utf-8")
    items = "".join(f'<li><a href="{quote(to)}">{to}</a>: {what}</li>' for to, what in links)
    head = '<nav class="machines" aria-label="Downloads"><p>The book to take away</p>'
    return f"{head}<ul>{items}</ul></nav>"


def _llms(root: Path, folder: Path) -> Iterator[str]:
    """The book in a page of Markdown (https://llmstxt.org): what it found, and its data."""
    book = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    yield f"# {book.get('title', 'Book')}\n"
    yield f"> {book.get('description', book.get('subtitle', ''))}\n"
    findings = root / "data" / "results" / "comparison.md"
    if findings.is_file():
        yield f"## Findings\n\n{findings.read_text(encoding='utf-8').strip()}\n"
    yield "## Chapters\n"
    for path in gate.chapters(root):
        title, _, rest = stamp.read(path)["cells"][0]["source"].partition("\n")
        title = title.lstrip("# ").partition(" {#")[0]
        words = re.sub(r" \(@[\w-]+\)", "", rest.strip().partition("\n")[0])
        first = re.split(r"(?<=[.?!])\s", words)[0]
        yield f"- [{title}](chapters/{path.stem}.html): {first}"
    yield "\n## Data\n"
    if (folder / "claims.json").is_file():
        yield "- [claims.json](claims.json): each claim, its differences and intervals by study"
    for file in sorted((folder / "data").rglob("*.*")):
        name = file.relative_to(folder).as_posix()
        if file.suffix in (".csv", ".parquet", ".md"):
            yield f"- [{name}]({quote(name)})"


def card(root: Path, folder: Path) -> str:
    """Write the picture of the book that other sites show, and name it in a page's head.

    "" where the book has no main figure, or its address is not known: it must be whole.
    """
    site = str(published(root).get("site-url", "")).rstrip("/")
    there = (root / "data" / "results" / "comparison.svg").is_file()
    drawn = figures.png(_card(root)) if there else b""
    if drawn:
        (folder / "card.png").write_bytes(drawn)
    tag = f'<meta property="og:image" content="{html.escape(site)}/card.png">\n'
    return tag if site and drawn else ""


def _card(root: Path) -> str:
    """A picture of 1,200 x 630 px: title, the answer, main figure."""
    book = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    results = root / "data" / "results"
    figure, _ = figures.apart((results / "comparison.svg").read_text(encoding="utf-8"))
    size = re.search(r'<svg[^>]*? width="([\d.]+)"[^>]*? height="([\d.]+)"', figure)
    wide, high = (float(one) for one in size.groups()) if size else (700.0, 500.0)
    scale = min(540 / wide, 590 / high)
    findings = results / "comparison-answer.md"
    answer = findings.read_text(encoding="utf-8") if findings.is_file() else ""
    found = re.search(r"\*\*(.+?)\*\*", answer)
    words, at = "", 50
    title, finding = str(book.get("title", "")), found[1] if found else ""
    for text, width, font, weight in ((title, 19, 56, "bold"), (finding, 42, 28, "normal")):
        for line in textwrap.wrap(text, width):
            at += round(1.25 * font)
            words += (
                f'<text x="40" y="{at}" font-size="{font}" font-weight="{weight}" '
                f'font-family="sans-serif" fill="#1f2328">{html.escape(line)}</text>'
            )
        at += 40
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'width="600" height="315" viewBox="0 0 1200 630">'
        f'<rect width="1200" height="630" fill="#ffffff"/>{words}'
        f'<g transform="translate({1180 - scale * wide:.1f} 20) scale({scale:.4f})">'
        f"{figure[figure.index('<svg') :]}</g></svg>"
    )
