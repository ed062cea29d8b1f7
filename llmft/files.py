"""Files: written whole or not at all, their code read without its comments; and lines for people.

Everything above may use this: it knows nothing of models, runs or books.
"""

import ast
import io
import os
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from filelock import Timeout

from llmft import UserError


def write(path: Path, content: bytes) -> None:
    """Put the file there whole or not at all, also when the machine loses its power meanwhile.

    Raises:
        UserError: it could not be written; what was there before still is.
    """
    with writing(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            # The new name itself is safe only when the folder has been written, too.
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk, or one that may not be written, into one line."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another store, "
            "and run again (finished runs are kept)"
        ) from error


def say(line: str) -> None:
    """A plain line on standard error, which a frozen chapter does not keep."""
    print(f"llmft: {line}", file=sys.stderr, flush=True)


def code_only(source: str) -> str:
    """A module without its comments, its docstrings and other lone texts, and its empty lines.

    By their places in the text, not by writing the syntax tree again, which each Python does in its
    own way.
    """
    lines, inside = io.StringIO(source).readlines(), set()  # of a text: rows that go on in the next
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column]
        elif token.type in (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)):
            inside |= set(range(row - 1, token.end[0] - 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            if "".join(lines[first:last]).strip() == ast.get_source_segment(source, node):
                lines[first:last] = [""] * (last - first)  # it stands alone
                inside -= set(range(first, last))
    kept = [(row, line.removesuffix("\n")) for row, line in enumerate(lines)]
    return "\n".join(
        line if row in inside else line.rstrip()
        for row, line in kept
        if row in inside or line.strip()
    )


@lru_cache(maxsize=4)
def commit(folder: Path) -> str:
    """The commit that `folder` is at, with a + when files differ from it; "" outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
