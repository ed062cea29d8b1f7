"""Render the frozen book: by Quarto, or, where it is not installed, as plain HTML pages.

Neither executes anything. Quarto ends well when a reference resolves to nothing or a citation is
missing; here these warnings are errors. The pages are written beside `_book/` and take its place
when they are whole.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from llmft import ROOT, UserError, files
from llmft.book import gate, local, pages
from llmft.book import plain as plain_pages


QUARTO = "1.10.19"
"""The version that the published book is rendered with, here and in `.github/workflows/`."""

HELP = (
    f", without Quarto; for the full book install it (version {QUARTO}: "
    "https://quarto.org/docs/get-started, or conda install -c conda-forge quarto) and run "
    "`llmft render` again"
)

UNRESOLVED = re.compile(
    r"WARN.*(unable to resolve|citation|not found|crossref|could not|duplicate)", re.IGNORECASE
)


def render(
    root: Path = ROOT, *, plain: bool = False, folders: Sequence[Path] = ()
) -> tuple[list[Path], str]:
    """Write the book into `_book/`.

    `plain` makes the plain pages, without looking for Quarto. The book of each of the `folders`
    that `llmft run --out` filled goes into `_book/`, too, into a folder of the same name, and
    changes nothing in the published pages. Returns the first page of each, the published one first,
    and a line about how they were rendered.

    Raises:
        UserError: Quarto fails, or warns of something that does not resolve; the pages cannot be
            written; a folder holds no run, or has the name of another or of a part of the book.
            `_book/` is then as it was.
    """
    gate.listed(root)  # in the book's folder, or not at all
    for folder in folders:
        local.runs(root, folder)
    quarto = None if plain else find()
    book = root / "_book"
    try:
        with tempfile.TemporaryDirectory(prefix="_book.", dir=root) as beside:
            new = Path(beside) / "new"
            _write(quarto, root, new)
            for folder in folders:
                _beside(quarto, root, folder, new)
            if book.exists():
                book.replace(Path(beside) / "old")
            new.replace(book)
    except OSError as error:
        raise UserError(
            f"cannot write the pages ({error.strerror}: {error.filename or root}); what was in "
            "_book/ is as it was: make room, or render a copy of the book elsewhere"
        ) from None
    how = f"by {quarto}" if quarto else "plain pages" + ("" if plain else HELP)
    return [book / "index.html", *(book / folder.name / "index.html" for folder in folders)], how


def _beside(quarto: str | None, root: Path, folder: Path, new: Path) -> None:
    """Render a folder's book into a folder of the new pages."""
    if (new / folder.name).exists():
        raise UserError(f"_book/ has another {folder.name}: rename the folder {folder}")
    with tempfile.TemporaryDirectory(prefix="llmft.") as place:
        book = Path(place).resolve()  # outside of the book, which is a project of Quarto's
        lines = local.assemble(root, folder, book)
        try:
            _write(quarto, book, book / "_book", lines)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        shutil.move(book / "_book", new / folder.name)


def _write(quarto: str | None, root: Path, folder: Path, lines: Mapping[str, str] = {}) -> None:
    """Render a book into a folder of its own folder, its pages with `lines` at their heads."""
    if quarto:
        _quarto(quarto, root, folder)
    else:
        plain_pages.write(root, folder)
    pages.finish(root, folder, lines)


def _quarto(quarto: str, root: Path, folder: Path) -> None:
    """Render the pages, and every other format that `_quarto.yml` names, into a folder of the book.

    A book whose PDF fails (Typst and pandoc change often) is a book: that is said, and no error.
    """
    _one(quarto, root, folder, "html")
    if not (folder / "index.html").is_file():
        raise UserError(f"{quarto} wrote no index.html")
    book = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
    for form in book.get("format", []):
        if form != "html":
            try:
                _one(quarto, root, folder, form)
            except UserError as error:
                files.say(f"the pages are made, but not {form}: {error}")
                (root / "index.typ").unlink(missing_ok=True)  # Quarto leaves what it could not set


def _one(quarto: str, root: Path, folder: Path, form: str) -> None:
    """Render one format, beside those that are there; what Quarto warns of is an error."""
    into = folder.relative_to(root).as_posix()
    command = [quarto, "render", str(root), "--no-execute", "--to", form, "--output-dir", into]
    environment = {**os.environ, "NO_COLOR": "1", "QUARTO_PYTHON": sys.executable}
    done = subprocess.run(
        [*command, "--no-clean"], capture_output=True, text=True, env=environment, cwd=root
    )
    lines = [" ".join(line.split()) for line in (done.stdout + done.stderr).splitlines()]
    wrong = [line for line in lines if UNRESOLVED.search(line)]
    if done.returncode:
        wrong = wrong or [line for line in lines if line][-3:]
        raise UserError(f"quarto render failed: {'; '.join(wrong)}")
    if wrong:
        raise UserError(f"quarto render warns: {'; '.join(wrong)}")


def find() -> str | None:
    """Quarto's command: on PATH, or beside this Python."""
    return shutil.which("quarto") or shutil.which("quarto", path=sysconfig.get_path("scripts"))
