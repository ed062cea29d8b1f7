"""What `llmft run --out FOLDER` left there, as a book of its own, beside the published one.

It has the published pages, with the folder's notebooks and results in place of theirs, a first page
of its own, and on each page a line that says whose numbers these are.
"""

import html
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from llmft import UserError, inert
from llmft.book import gate, stamp


COPIED = ("_quarto.yml", "*.qmd", "*.bib", "*.scss", "*.svg")
"""The files at the top of the book that its pages are rendered with."""

PLACES = ("results", "store")
"""The parameters that say where something is, not what was measured."""

FIGURE = (
    "![Accuracy against the number of labelled examples, by method, in-domain and out-of-domain."
    "](data/results/comparison.svg)"
    '{#fig-abstract fig-alt="Accuracy against labelled examples, one line for each method."}'
)


def runs(root: Path, folder: Path) -> dict[str, stamp.Notebook]:
    """The chapters that were run into a folder, by their names, in the book's order.

    Raises:
        UserError: there is none, or a notebook that `llmft run` did not leave.
    """
    files = [folder / path.name for path in gate.chapters(root)]
    found = {file.stem: stamp.read(file) for file in files if file.is_file()}
    if not found:
        raise UserError(f"{folder} has no chapter: `llmft run --out {folder}` runs them")
    for name, notebook in found.items():
        if "llmft" not in notebook["metadata"]:
            raise UserError(
                f"{folder}/{name}.ipynb has no stamp: `llmft run {name} --out {folder}`"
            )
    return found


def assemble(root: Path, folder: Path, book: Path) -> dict[str, str]:
    """Put the folder's book together in the empty folder `book`, ready to be rendered.

    Returns a line of HTML for the top of each page, by the page's source.
    """
    chapters = runs(root, folder)
    results = book / "data" / "results"
    parts = ("chapters", "data/results", "data/pocket", "data/students")
    for part in (part for part in parts if (root / part).is_dir()):
        shutil.copytree(root / part, book / part, ignore=shutil.ignore_patterns(".*"))
    for file in (file for pattern in COPIED for file in root.glob(pattern)):
        shutil.copyfile(file, book / file.name)
    for name in chapters:
        shutil.copyfile(folder / f"{name}.ipynb", book / "chapters" / f"{name}.ipynb")
        for result in (f"{name}{suffix}" for suffix in stamp.RESULT_SUFFIXES):
            (results / result).unlink(missing_ok=True)
            if (folder / result).is_file():
                shutil.copyfile(folder / result, results / result)
    (book / "index.qmd").write_text("\n".join(_index(chapters, results)), encoding="utf-8")
    return {source: _line(source, chapters) for source in gate.listed(root)}


def _index(chapters: dict[str, stamp.Notebook], results: Path) -> Iterator[str]:
    """The lines of the first page: which chapters were run, with what, and what they found."""
    yield "# Run on this machine {#sec-preface .unnumbered}\n"
    yield "The chapters of this list were run here; others, if any, are as published.\n"
    yield "| chapter | parameters | run at | seconds |\n| :--- | :--- | :--- | ---: |"
    for chapter, notebook in chapters.items():
        about = notebook["metadata"]["llmft"]
        title = notebook["cells"][0]["source"].splitlines()[0]
        title = title.removeprefix("# ").partition(" {#")[0]
        given = {
            name: ", ".join(map(str, value)) if isinstance(value, list) else value
            for name, value in stamp.parameters(notebook).items()
            if value is not None and name not in PLACES
        }
        words = inert.escape("; ".join(f"{name}: {value}" for name, value in given.items()))
        date, seconds = inert.escape(about["date"]), about["seconds"]
        yield f"| [{title}](chapters/{chapter}.ipynb) | {words} | {date} | {seconds:.0f} |"
    if "comparison" in chapters and (results / "comparison-answer.md").is_file():
        yield "\n{{< include data/results/comparison-answer.md >}}\n"
    if "comparison" in chapters and (results / "comparison.md").is_file():
        yield "\n## What it found {.unnumbered}\n\n{{< include data/results/comparison.md >}}\n"
        if (results / "comparison.svg").is_file():
            yield f"@fig-abstract shows most of it in one picture.\n\n{FIGURE}\n"


def _line(source: str, chapters: dict[str, stamp.Notebook]) -> str:
    """What stands at the top of a page, with a link to the published one."""
    name, page = Path(source).stem, Path(source).with_suffix(".html").as_posix()
    words = "A book of this machine's numbers."
    if name in chapters and source.endswith(".ipynb"):
        about = chapters[name]["metadata"]["llmft"]
        words = f"This machine's numbers ({about['device']}, {about['date'][:10]})."
    elif source.endswith(".ipynb"):
        words = "As published: this chapter was not run on this machine."
    link = f'<a href="{"../" * (page.count("/") + 1)}{quote(page)}">The published page</a>'
    style = "border-left: 4px solid #0072b2; padding: .1rem 1rem"
    return f'<p style="{style}">{html.escape(words)} {link}.</p>'
