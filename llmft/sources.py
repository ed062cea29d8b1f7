"""Where sentence pairs come from: files, MNLI and HANS, all parsed to one table.

The table has the columns `id`, `premise`, `hypothesis` and `label` (0 entailment, 1 not
entailment; MultiNLI's neutral is dropped), and for HANS its `heuristic` and `subcase`. What is
downloaded is pinned: GLUE by its revision on the Hugging Face Hub, HANS by commit and SHA-256.
"""

import csv
import hashlib
import os
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd

from llmft import UserError


GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
HANS_COMMIT = "7299f6f657089ce06a0f98e7e81f8d0f5b7741ce"
HANS_SHA256 = "c55b62feef9913070e88f38938dc2492018c945ac81f70139346472494124e79"

SUFFIXES = (".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet")
"""The formats that `read` takes."""

_HANS_NAME = "heuristics_evaluation_set.txt"

_BINARY = {
    "entailment": 0,
    "contradiction": 1,
    "non-entailment": 1,
    "not_entailment": 1,
    "not entailment": 1,
}


def from_mnli(frame: pd.DataFrame, source: str = "mnli") -> pd.DataFrame:
    """Binary NLI pairs from MNLI's columns `premise`, `hypothesis`, `label` (and `idx`, or `id`).

    Args:
        frame: labels as MNLI's numbers (0 entailment, 1 neutral, 2 contradiction) or as words.
        source: the beginning of each id, such as "train" in "train-17".

    Returns:
        A frame with `id`, `premise`, `hypothesis`, `label`, in the same order, without neutral.

    Raises:
        UserError: a missing column, an unknown label, or the numbers 0 and 1 alone, which MNLI
            and two-way data read differently.
    """
    _need(frame, ("premise", "hypothesis", "label"), source)
    label = frame["label"].astype(str).str.strip().str.lower()
    if len(label) and label.isin(["0", "1"]).all():
        raise UserError(
            f"{source}: labels 0 and 1 can mean neutral or not; write entailment, neutral, "
            "contradiction or not_entailment"
        )
    label = label.replace({"0": "entailment", "1": "neutral", "2": "contradiction"})
    numbers = frame[next((c for c in ("id", "idx", "pairID") if c in frame), "label")].astype(str)
    if numbers.name == "label":
        numbers = pd.Series(range(len(frame)), index=frame.index).astype(str)
    return _pairs(
        source + "-" + numbers, frame["premise"], frame["hypothesis"], label, source, drop="neutral"
    )


def from_hans(frame: pd.DataFrame, source: str = "hans") -> pd.DataFrame:
    """Binary NLI pairs from HANS's columns, with its `heuristic` and `subcase`.

    Args:
        frame: `gold_label` (entailment or non-entailment), `sentence1`, `sentence2`, `pairID`,
            `heuristic`, `subcase`; others are ignored.
        source: the beginning of each id.

    Raises:
        UserError: a missing column or an unknown label.
    """
    columns = ("gold_label", "sentence1", "sentence2", "pairID", "heuristic", "subcase")
    _need(frame, columns, source)
    ids = source + "-" + frame["pairID"].astype(str)
    label = frame["gold_label"].astype(str).str.strip().str.lower()
    pairs = _pairs(ids, frame["sentence1"], frame["sentence2"], label, source)
    return pairs.assign(
        heuristic=frame["heuristic"].astype(str).to_numpy(),
        subcase=frame["subcase"].astype(str).to_numpy(),
    )


def hans_file() -> Path:
    """The official HANS file at its pinned commit: from the cache, else downloaded and checked.

    The cache is `$XDG_CACHE_HOME/llmft` (`~/.cache/llmft`); a copy put there by hand does as well.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmft"
    path = cache / _HANS_NAME
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == HANS_SHA256:
        return path
    url = f"https://raw.githubusercontent.com/tommccoy1/hans/{HANS_COMMIT}/{_HANS_NAME}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise UserError(
            f"HANS cannot be downloaded from {url} ({error}): load it where there is a network, or "
            f"put the file at {path}"
        ) from error
    if hashlib.sha256(content).hexdigest() != HANS_SHA256:
        raise UserError(f"HANS from {url} is not the pinned file (wrong SHA-256): try again later")
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
    return path


def glue_mnli() -> tuple[pd.DataFrame, pd.DataFrame]:
    """MNLI's training and matched validation pairs at the pinned revision of GLUE.

    Raises:
        UserError: they are not in the Hugging Face cache and cannot be downloaded.
    """
    import datasets  # here: it takes seconds, and only this source needs it

    name, revision = GLUE
    try:
        glue = datasets.load_dataset(name, "mnli", revision=revision)
        train, matched = (glue[split].to_pandas() for split in ("train", "validation_matched"))
    except Exception as error:  # the Hub's clients raise many kinds
        raise UserError(
            f"MNLI ({name} at {revision[:8]}) is not on this machine and cannot be downloaded "
            f"({type(error).__name__}): load it once where there is a network"
        ) from error
    return from_mnli(train, "train"), from_mnli(matched, "matched")


def find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first file in `folder` with one of `names` and a suffix of `SUFFIXES`."""
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read(path: Path) -> pd.DataFrame:
    """The table at `path`, all text: "n/a" is a hypothesis in MNLI, not a missing value."""
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if ".jsonl" in path.suffixes:
            return pd.read_json(path, lines=True, dtype=False)
        plain = path.suffix == ".csv"
        return pd.read_csv(
            path,
            sep="," if plain else "\t",
            quoting=csv.QUOTE_MINIMAL if plain else csv.QUOTE_NONE,
            dtype=str,
            keep_default_na=False,
        )
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({line}): restore it") from error


def _need(frame: pd.DataFrame, columns: tuple[str, ...], source: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(f"{source}: no column {', '.join(missing)} (needed: {', '.join(columns)})")


def _pairs(
    ids: pd.Series,
    premise: pd.Series,
    hypothesis: pd.Series,
    label: pd.Series,
    source: str,
    drop: str = "",
) -> pd.DataFrame:
    unknown = np.flatnonzero(~label.isin([*_BINARY, drop]))
    if len(unknown):
        first = int(unknown[0])
        raise UserError(f"{source}: unknown label {label.iloc[first]!r} in row {first + 1}")
    if premise.isna().any() or hypothesis.isna().any():
        raise UserError(f"{source}: a premise or hypothesis is missing")
    frame = pd.DataFrame(
        {
            "id": ids,
            "premise": premise.astype(str).str.strip(),
            "hypothesis": hypothesis.astype(str).str.strip(),
            "label": label.map(_BINARY),
        }
    )
    return frame[label != drop].astype({"label": "int64"}).reset_index(drop=True)
