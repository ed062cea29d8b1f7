"""Render the frozen book: by Quarto, or, where there is none to be had, as plain HTML pages.

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
import time
from pathlib import Path

import click

from llmft import ROOT, UserError
from llmft.book import gate, pages


QUARTO = "1.10.19"
"""The version that the published book is rendered with, here and in `.github/workflows/`."""

PATIENCE = 240
"""Seconds that getting Quarto from PyPI may take: its package downloads a release from GitHub."""

HELP = (
    "for the full book install Quarto (https://quarto.org/docs/get-started, "
    "or conda install -c conda-forge quarto) and run `llmft render` again"
)

UNRESOLVED = re.compile(
    r"WARN.*(unable to resolve|citation|not found|crossref|could not|duplicate)", re.IGNORECASE
)


def render(root: Path = ROOT, *, plain: bool = False) -> tuple[Path, str]:
    """Write the book into `_book/`.

    Args:
        root: the book's folder.
        plain: make the plain pages, without looking for Quarto.

    Returns:
        The first page, and a line about how the book was rendered.

    Raises:
        UserError: Quarto fails, or warns of something that does not resolve; the pages cannot be
            written. `_book/` is then as it was.
    """
    gate.listed(root)  # in the book's folder, or not at all
    quarto = None if plain else find() or fetch()
    book = root / "_book"
    try:
        with tempfile.TemporaryDirectory(prefix="_book.", dir=root) as beside:
            new = Path(beside) / "new"
            if quarto is None:
                from llmft.book import plain as plain_pages

                how = "plain pages" + ("" if plain else f", without Quarto; {HELP}")
                first = plain_pages.write(root, new).relative_to(new)
            else:
                how, first = f"by {quarto}", Path("index.html")
                _quarto(quarto, root, new)
            pages.finish(root, new)
            if book.exists():
                book.replace(Path(beside) / "old")
            new.replace(book)
    except OSError as error:
        raise UserError(
            f"cannot write the pages ({error.strerror}: {error.filename or root}); what was in "
            "_book/ is as it was: make room, or render a copy of the book elsewhere"
        ) from None
    return book / first, how


def _quarto(quarto: str, root: Path, folder: Path) -> None:
    """Render into a folder of the book's folder; what Quarto warns of is an error."""
    into = folder.relative_to(root).as_posix()
    command = [quarto, "render", str(root), "--no-execute", "--to", "html", "--output-dir", into]
    environment = {**os.environ, "NO_COLOR": "1", "QUARTO_PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    said = (done.stdout + done.stderr).splitlines()
    wrong = [" ".join(line.split()) for line in said if UNRESOLVED.search(line)]
    if done.returncode:
        wrong = wrong or [" ".join(line.split()) for line in said if line.strip()][-3:]
        raise UserError(f"quarto render failed: {'; '.join(wrong)}")
    if wrong:
        raise UserError(f"quarto render warns: {'; '.join(wrong)}")
    if not (folder / "index.html").is_file():
        raise UserError(f"{quarto} wrote no index.html")


def find() -> str | None:
    """Quarto's command: on PATH, or beside this Python."""
    return shutil.which("quarto") or shutil.which("quarto", path=sysconfig.get_path("scripts"))


def fetch() -> str | None:
    """Try, quietly and for a limited time, to get Quarto from PyPI into a virtual environment.

    After a failure it is not tried again for a day.
    """
    tried = Path(sys.prefix) / ".no-quarto"
    recently = tried.exists() and time.time() - tried.stat().st_mtime < 86_400
    if sys.prefix == sys.base_prefix or recently:
        return None
    click.echo(f"looking for Quarto on PyPI (at most {PATIENCE} s) ...", err=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "0"]
    try:
        subprocess.run(
            [*command, f"quarto-cli=={QUARTO}"], capture_output=True, check=True, timeout=PATIENCE
        )
        if found := find():
            subprocess.run([found, "--version"], capture_output=True, check=True, timeout=60)
            return found
    except (subprocess.SubprocessError, OSError):
        tried.touch()
    return None
