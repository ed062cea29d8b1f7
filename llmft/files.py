"""Files written whole or not at all, told apart by their content, and lines for people.

Everything above may use this: it knows nothing of models, runs or books.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from filelock import Timeout

from llmft import UserError


def version(path: Path) -> tuple[int, ...]:
    """Numbers that are others when the file has been written again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def sha256(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file, computed once while it stays as it is."""
    return _sha256(path, version(path))


@lru_cache(maxsize=1024)
def _sha256(path: Path, _version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, content: bytes) -> None:
    """Put the file there whole or not at all.

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
