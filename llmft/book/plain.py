"""The book as plain HTML pages, made by pandoc, for where Quarto is not installed.

Pandoc, which Quarto is built on, reads the Markdown, sets the citations and the code, and writes
the HTML; `plain.lua`, which it runs, adds what it does not know: numbers, references and links from
page to page; `plain.html` is the frame. Nothing is loaded from a network, and raw HTML is shown.
"""

import base64
import json
import posixpath
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import yaml

from llmft import UserError
from llmft.book import gate, stamp


def write(root: Path, folder: Path) -> None:
    """Write the pages, and the files of the book that they show or link to.

    Raises:
        UserError: pandoc is not installed, or fails.
    """
    about = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    icon, bibliography = root / str(about.get("favicon", "")), root / "references.bib"
    pages = list(_pages(root, about.get("appendices", [])))
    answer = _pandoc(
        title=str(about.get("title", "Book")),
        icon=base64.b64encode(icon.read_bytes() if icon.is_file() else b"").decode(),
        bibliography=str(bibliography) if bibliography.is_file() else [],
        template=Path(__file__).with_name("plain.html").read_text(encoding="utf-8"),
        pages=pages,
    )
    for page, text in zip(pages, answer["texts"], strict=True):
        path = folder / unquote(page["href"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for href, link in answer["files"]:
        file = posixpath.join(posixpath.dirname(unquote(href)), unquote(link))
        if (root / file).is_file() and (folder / file).resolve().is_relative_to(folder.resolve()):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, folder / file)


def _pages(root: Path, appendices: list[str]) -> Iterator[dict[str, Any]]:
    """The pages in the book's order, as `plain.lua` reads them."""
    numbers, letters = map(str, range(1, 1000)), iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for source in gate.listed(root):
        path, number = root / source, ""
        if path.suffix == ".ipynb":
            number = next(letters if source in appendices else numbers)
            cells = [part for cell in stamp.read(path)["cells"] for part in _cell(cell)]
        else:
            cells = [{"markdown": gate.page_text(path, root), "more": "+yaml_metadata_block"}]
        href = quote(posixpath.splitext(source)[0] + ".html")
        yield {"href": href, "up": "../" * href.count("/"), "number": number, "cells": cells}


def _cell(cell: stamp.Cell) -> Iterator[dict[str, Any]]:
    """A cell's prose, or its code and what it shows; nothing of one that papermill injected."""
    if cell["cell_type"] == "markdown":
        yield {"markdown": cell["source"]}
    elif cell["cell_type"] == "code" and "injected-parameters" not in stamp.tags(cell):
        options = gate.cell_options(cell)
        label = str(options.get("label", ""))
        outputs = (_output(output) for output in cell.get("outputs", []))
        yield {
            "code": stamp.code(cell) if options.get("echo", True) else "",
            "open": options.get("code-fold") is False,
            "summary": str(options.get("code-summary", "Code")),
            "label": label,
            "caption": str(options.get(f"{label.partition('-')[0]}-cap") or ""),
            "alt": str(options.get("fig-alt", "")),
            "outputs": [output for output in outputs if output],
        }


def _output(output: dict[str, Any]) -> dict[str, str]:
    """One output, in the representation that Quarto would choose."""
    data = output.get("data", {})
    if "text/markdown" in data:
        return {"markdown": data["text/markdown"]}
    for kind in ("image/svg+xml", "image/png", "image/jpeg"):
        if kind in data:
            svg = kind == "image/svg+xml"
            content = base64.b64encode(data[kind].encode()).decode() if svg else data[kind]
            return {"image": f"data:{kind};base64,{''.join(content.split())}"}
    words = output.get("text") or data.get("text/plain", "")
    return {"text": words} if words else {}


def _pandoc(**book: Any) -> dict[str, Any]:
    """What `plain.lua` makes of the book, run by the pandoc of PyPI's package or one on PATH."""
    try:
        import pypandoc

        command = [pypandoc.get_pandoc_path(), "lua", str(Path(__file__).with_name("plain.lua"))]
    except (ImportError, OSError):
        raise UserError(
            "rendering needs Quarto, or pandoc: `pip install -e '.[book]'` brings the latter"
        ) from None
    text = json.dumps(book)
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8")
    if done.returncode:
        cause = re.sub(r"(?s)\[WARNING\][^\n]*\n|stack traceback:.*", "", done.stderr)
        raise UserError(f"pandoc failed: {' '.join(cause.split())}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
