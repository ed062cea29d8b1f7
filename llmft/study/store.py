"""Finished runs on disk: each one whole or not there, whatever happens while it is written.

A record is two files, `records/KEY.parquet` (predictions) and then `records/KEY.json` (the row,
with a checksum of its key and of both): a run is there when its JSON is. Each file is written
beside its place, forced to the disk and renamed, so a kill, a crash or a full disk leaves what was
there before. A lock held by the operating system claims a run, and dies with the process that held
it. (On a network file system that needs working `flock`, as NFS 4 and Lustre have.)
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from llmft import ROOT, UserError, files


BOOK = ROOT / "data" / "runs"
"""A store that is only read, filled by `llmft publish`: the runs of studies that take hours."""


def prepare(folder: Path) -> Path:
    """The folder, prepared to hold records, or a UserError if it cannot be written."""
    with files.writing(folder):
        for part in ("records", "locks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def claim(folder: Path, key: str, *, wait: bool) -> Iterator[bool]:
    """True in the block if this process may do the run; False if another has it (no `wait`)."""
    lock = FileLock(folder / "locks" / f"{key}.lock")
    try:
        with files.writing(folder):
            lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        with files.writing(folder):
            # Files of a process that was killed: no other writes this run while we have the lock.
            for leftover in (folder / "records").glob(f".{key}.*"):
                leftover.unlink(missing_ok=True)
        yield True
    finally:
        lock.release()


def read(folder: Path, key: str, *, since: int = 0) -> dict[str, Any] | None:
    """The row of a finished run whose record is whole, or None.

    A damaged record counts as none, with a message: its run will be done again. One written before
    `since` (nanoseconds, of its file) counts as none, too.
    """
    path = _place(folder, key)
    try:
        if since and path.stat().st_mtime_ns <= since:
            return None
        record = json.loads(path.read_bytes())
        row: dict[str, Any] = record["row"]
        if record["sha256"] == _seal(key, row, path.with_suffix(".parquet").read_bytes()):
            return row
    except FileNotFoundError as error:
        if Path(error.filename) == path:
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    except OSError as error:
        raise UserError(f"store {folder} cannot be read: {error.strerror}") from error
    files.say(f"record {key} in {path.parents[1]} is damaged: doing this run again")
    return None


def _place(folder: Path, key: str) -> Path:
    """Where a run's row is, or would be: in the store, or, where it is only there, published."""
    own, other = (place / "records" / f"{key}.json" for place in (folder, BOOK))
    return other if other.exists() and not own.exists() else own


def copy(folder: Path, keys: Sequence[str]) -> tuple[int, int]:
    """Publish the runs that the store has finished, and no others: how many are there, and new."""
    there = BOOK / "records"
    before = {path.stem for path in there.glob("*.json")}
    finished = [key for key in keys if read(folder, key)]
    for key in finished:
        for suffix in (".parquet", ".json"):  # the row last: then it is a run
            path = _place(folder, key).with_suffix(suffix)
            if path.parent != there:
                files.write(there / path.name, path.read_bytes())
    for path in there.glob("*"):
        if path.stem not in finished:
            path.unlink()
    return len(finished), len({*finished} - before)


def keep(folder: Path, key: str, row: Mapping[str, Any], predictions: pd.DataFrame) -> None:
    """Write a finished run, or raise a UserError and change nothing."""
    content = parquet(predictions)
    record = {"row": row, "sha256": _seal(key, row, content)}
    files.write(folder / "records" / f"{key}.parquet", content)
    files.write(folder / "records" / f"{key}.json", json.dumps(record, indent=1).encode() + b"\n")


def _seal(key: str, row: Mapping[str, Any], content: bytes) -> str:
    """The checksum of a whole record: a row or predictions of another run's key do not fit it."""
    predictions = hashlib.sha256(content).hexdigest()
    return digest({"key": key, "row": row, "predictions": predictions})


def answers(folder: Path, keys: Sequence[str]) -> pd.DataFrame:
    """The predictions of these runs, one after another, with a first column `key`.

    Raises:
        UserError: a run is not there, or cannot be read.
    """
    parts = []
    for key in keys:
        try:
            part = pd.read_parquet(_place(folder, key).with_suffix(".parquet"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"store {folder}: the answers of run {key} cannot be read: run its grid again"
            ) from error
        part.insert(0, "key", key)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def parquet(frame: pd.DataFrame) -> bytes:
    """The bytes of a Parquet file of the frame, to be written whole or not at all."""
    content: bytes = frame.to_parquet(index=False, compression="zstd")
    return content


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted names, no spaces, floats as Python writes them."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
