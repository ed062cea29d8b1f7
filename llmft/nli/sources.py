"""Where sentence pairs come from: files, MNLI and HANS, all parsed to one table.

`read` returns a file's table as it is written; `parse` turns any table into pairs, so every source
is checked alike. Downloads are pinned: GLUE by its revision on the Hub, HANS by commit and SHA-256.

Parquet is read by `datasets`, CSV and JSON by the standard library: the readers of `datasets` guess
types (007 becomes 7, a premise 2024-01-01 a date), lose the first value of rows that are longer
than the header, fill shorter ones, and take quotes out of a TSV's sentences.
"""

import csv
import glob
import gzip
import hashlib
import http.client
import io
import json
import numbers
import re
import tempfile
import urllib.request
import zlib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from llmft import UserError, files
from llmft.nli import hub


GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
MNLI = {"train": "mnli/train-*.parquet", "matched": "mnli/validation_matched-*.parquet"}
"""The files of GLUE that are needed, by the beginning of their pairs' ids."""

HANS_URL = (
    "https://raw.githubusercontent.com/tommccoy1/hans/7299f6f657089ce06a0f98e7e81f8d0f5b7741ce/"
    "heuristics_evaluation_set.txt"
)
HANS_SHA256 = "c55b62feef9913070e88f38938dc2492018c945ac81f70139346472494124e79"

SUFFIXES = (".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet")
"""The formats that `read` takes."""

MISSING, DROP_MISSING = "missing", "missing: drop"
"""A mapping's name for no label, and the mapping that drops rows without a label, premise or
hypothesis."""

_COMPLETE = "complete or remove such rows, or drop them with the parameter labels:"

_MEANINGS = {"entailment": 0, "contradiction": 1, "neutral": -1} | {
    f"{no}{mark}entailment": 1 for no in ("not", "non") for mark in " _-"
}
"""What the usual words mean, HANS's among them."""

_TARGETS = {"entailment": 0, "not entailment": 1, "drop": -1}
"""What a mapping may map a label to; pairs of -1 are dropped."""

_MNLI_NUMBERS = {"0": "entailment", "1": "neutral", "2": "contradiction"}

_NAMES = {
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "label": ("label", "gold_label"),
    "id": ("id", "idx", "pairid"),
    "heuristic": ("heuristic",),
    "subcase": ("subcase",),
}
"""A column's names: MNLI's on the Hub first, then those of HANS, RTE and MNLI's own files."""

_TEXTS = ("premise", "hypothesis")

_BLANK = " \t\r\n\xa0\u200b\u200c\u200d\u2060\ufeff"
"""White space, also of no width: a text of nothing else is empty."""

_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def meanings(labels: str = "") -> dict[str, int]:
    """What each label means, 0, 1 or -1 (drop): the usual words, and what `labels` adds.

    `labels` is such as "e: entailment, n: drop, c: not entailment"; "missing: drop" drops the rows
    without a label, premise or hypothesis.

    Raises:
        UserError: a mapping that cannot be read.
    """
    parts = [""]
    for piece in labels.split(","):
        parts[-1] += piece
        if ":" in piece:
            parts.append("")
        else:  # the comma is the label's own
            parts[-1] += ","
    meaning: dict[str, int] = {}
    for part in filter(None, (part.strip(", \t\r\n") for part in parts)):
        name, _, target = (_fold(text) for text in part.rpartition(":"))
        is_target = target in _TARGETS and (name != MISSING or target == "drop")
        if not name or not is_target or name in meaning:
            raise UserError(
                f"labels = {_quote(labels)}: {_quote(part)} is not one of LABEL: entailment, "
                "LABEL: not entailment, LABEL: drop, missing: drop, each label once"
            )
        meaning[name] = _TARGETS[target]
    return _MEANINGS | meaning


def with_more(labels: str, *more: str) -> str:
    """A mapping of labels with more at its end."""
    return ", ".join(filter(None, (labels.strip(", \t\r\n"), *more)))


def parse(frame: pd.DataFrame, source: str, labels: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Binary pairs from a table, and what its labels mean.

    Args:
        frame: the columns of `_NAMES`, in upper or lower case; others are not read. Labels are
            words, or MNLI's numbers (0 entailment, 1 neutral, 2 contradiction). Without ids the
            order numbers the pairs.
        source: the beginning of each id, such as "train" in "train-17".
        labels: what other labels mean, or these; see `meanings`.

    Returns:
        The pairs that are not dropped, in the same order: `id`, `premise`, `hypothesis`, `label` (0
        entailment, 1 not), and `heuristic` and `subcase` where the table has them. And a row for
        each label in order of appearance: `label`, `meaning` ("entailment", "not entailment" or
        "drop"), `rows`, and an example's `premise` and `hypothesis`.

    Raises:
        UserError: a missing or repeated column; a value that is missing, no text or cannot be
            written as UTF-8; unknown labels; numbers without both 0 and 2, which MNLI and two-way
            data read differently, where `labels` says nothing about them.
    """
    places = _columns(frame.columns, source)
    values = {name: _strings(frame.iloc[:, at], name, source) for name, at in places.items()}
    label = pd.Series([_fold(word) or MISSING for word in values["label"]], dtype=object)
    meaning = _meaning(label, source, labels)
    for name in _TEXTS:
        empty = [row for row, text in enumerate(values[name]) if not text.strip(_BLANK)]
        if empty and MISSING not in meaning:
            what = f"{source}: the {name} is missing in row {empty[0] + 1}"
            raise UserError(f'{what}; {_COMPLETE} "{with_more(labels, DROP_MISSING)}"')
        label[empty] = MISSING
    own = values.get("id", [str(row) for row in range(len(frame))])
    if "" in own:
        what = f"{source}: the id is missing in row {own.index('') + 1}"
        raise UserError(f"{what}: complete the ids, or remove the column")
    columns = {"id": [f"{source}-{number}" for number in own]}
    columns |= {name: values[name] for name in _TEXTS}
    for name in ("heuristic", "subcase"):
        if name in values:
            columns[name] = [word or f"no {name}" for word in values[name]]
    pairs = pd.DataFrame(columns, dtype="str")
    value = label.map(meaning)
    pairs.insert(3, "label", value)
    words = {number: word for word, number in _TARGETS.items()}
    rows = label.map(label.value_counts())
    about = pd.DataFrame({"label": label, "meaning": value.map(words), "rows": rows})
    first = about.join(pairs[[*_TEXTS]])[~label.duplicated()]
    return pairs[value >= 0].reset_index(drop=True), first.reset_index(drop=True)


def hans_file() -> Path:
    """The official HANS file at its pinned commit: from the cache, else downloaded and checked.

    The cache is `llmft/` in HF_HOME; one may put a copy there by hand.

    Raises:
        UserError: it cannot be downloaded, or is not the pinned file.
    """
    path = hub.cache() / HANS_URL.rpartition("/")[2]
    if path.is_file() and files.sha256(path) == HANS_SHA256:
        return path
    way_out = f"run `llmft fetch` where there is a network, or put {HANS_URL} at {path}"
    if hub.is_offline():
        raise UserError(f"HANS is not on this machine, and HF_HUB_OFFLINE is set: {way_out}")
    try:
        with urllib.request.urlopen(HANS_URL, timeout=60) as answer:
            content: bytes = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"HANS cannot be downloaded ({error}): {way_out}") from error
    if hashlib.sha256(content).hexdigest() != HANS_SHA256:
        raise UserError(f"HANS is not the pinned file (wrong SHA-256) now: {way_out}")
    files.write(path, content)
    return path


def glue() -> dict[str, pd.DataFrame]:
    """MNLI's training and matched validation rows at the pinned revision of GLUE, as in `MNLI`.

    Raises:
        UserError: they are not in the Hub's cache and cannot be downloaded, or are damaged.
    """
    folder = hub.snapshot("dataset", *GLUE, [*MNLI.values()])
    return {
        name: pd.concat([read(path) for path in sorted(folder.glob(shards))], ignore_index=True)
        for name, shards in MNLI.items()
    }


def find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The file in `folder` with one of `names` and a suffix of `SUFFIXES`, if there is one.

    Raises:
        UserError: there are several.
    """
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    paths = [path for path in candidates if path.is_file()]
    if len(paths) > 1:
        raise UserError(f"{folder} has both {paths[0].name} and {paths[1].name}: keep one of them")
    return paths[0] if paths else None


def read(path: Path) -> pd.DataFrame:
    """The table at `path`, as it is written: a column is text, or what JSON and Parquet hold.

    No text counts as a missing value: "n/a" is a hypothesis in MNLI. Of Parquet only the columns
    that `parse` reads are there.

    Raises:
        UserError: a damaged or cut off file; a row of another length than the header; another
            encoding than UTF-8.
    """
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")  # spreadsheets begin a file with a byte order mark
        return _json_lines(text) if ".jsonl" in path.suffixes else _csv(text, path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (
        OSError, EOFError, ValueError, RecursionError, zlib.error, pa.ArrowException,
    ) as error:  # fmt: skip
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({line}): restore it, or fetch it again") from error


def _csv(text: str, path: Path) -> pd.DataFrame:
    """CSV, or TSV: without quotes as MNLI's own, or with, as pandas and spreadsheets write it."""
    comma = path.suffix == ".csv"
    quotes = comma or text.startswith('"')
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter="," if comma else "\t",
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    records = filter(None, reader)  # without blank lines
    rows: list[list[str]] = []
    try:
        header = [name.strip() for name in next(records, [])]
        if not header:
            raise ValueError("no header")
        for row in records:
            if len(row) != len(header):
                what = f"row {len(rows) + 1} has {len(row)} values and the header {len(header)}"
                raise UserError(f"{path}: {what}: complete the row, or write the file as .jsonl")
            rows.append(row if quotes else [_unquote(value) for value in row])
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    return pd.DataFrame(rows, columns=header, dtype=object)


def _unquote(value: str) -> str:
    """A value of a TSV file without the quotes that a writer put around it.

    Such a writer doubles the quotes inside; all other quotes, also a lone one, are the text's own.
    """
    inner = value[1:-1]
    if '""' in inner and value[0] == value[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return value


def _json_lines(text: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except ValueError as error:
            raise ValueError(f"line {number}: {getattr(error, 'msg', error)}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append(row)
    if not rows:
        raise ValueError("no examples")
    return pd.DataFrame(rows, dtype=object)


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(row := dict(items)) < len(items):
        names = [name for name, _ in items]
        raise ValueError(f"the column {_quote(max(names, key=names.count))} occurs twice")
    return row


def _parquet(path: Path) -> pd.DataFrame:
    import datasets  # here: it takes half a second, and only this format needs it

    names = parquet.read_schema(path).names
    columns = [names[at] for at in _columns(names, path.name).values()]
    with tempfile.TemporaryDirectory() as cache:  # streaming copies nothing, but leaves locks
        stream = datasets.IterableDataset.from_parquet(
            glob.escape(str(path)),  # it takes a path for a pattern
            split="train",
            columns=columns,
            cache_dir=cache,
        )
        tables = stream.with_format("arrow").iter(10_000)
        rows = [row for table in tables for row in table.to_pylist()]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _columns(names: Collection[object], source: str) -> dict[str, int]:
    """The places of the columns of `_NAMES`."""
    keys = [_fold(name) for name in names]
    twice = next((name for i, name in enumerate(keys) if name and name in keys[:i]), None)
    if twice is not None:
        raise UserError(f"{source}: the column {_quote(twice)} occurs twice: keep one of them")
    places = {}
    for column, aliases in _NAMES.items():
        if at := [keys.index(name) for name in aliases if name in keys]:
            places[column] = at[0]
    required = (*_TEXTS, "label")
    if missing := [column for column in required if column not in places]:
        what = f"{source}: no column {', '.join(missing)} (needed: {', '.join(required)}"
        there = ", ".join(" ".join(str(name).split()) for name in names)
        raise UserError(f"{what}; there: {there})")
    return places


def _meaning(label: pd.Series, source: str, labels: str) -> dict[str, int]:
    """What the labels of a table mean; numbers are MNLI's if they can be nothing else."""
    distinct = label.drop_duplicates()
    first = dict(zip(distinct, distinct.index + 1, strict=True))  # the row in which each is first
    meaning = meanings(labels)
    figures = {name for name in first if name.isdecimal()}
    has_numbers = any(name.isdecimal() for name in meaning)
    if not has_numbers and {"0", "2"} <= figures <= _MNLI_NUMBERS.keys():
        meaning |= {number: meaning[word] for number, word in _MNLI_NUMBERS.items()}
    unknown = [name for name in first if name not in meaning]
    if not unknown:
        return meaning
    advice = [DROP_MISSING if name == MISSING else f"{name[:40]}: ?" for name in unknown[:10]]
    remedy = "say what each means, entailment, not entailment or drop, with the parameter labels:"
    if unknown == [MISSING]:
        what = f"label missing in row {first[MISSING]}"
        remedy = _COMPLETE
    elif set(unknown) == {"0", "1"}:
        what = "labels 0 and 1 can mean neutral or not"
        remedy = "write words, or say it with the parameter labels, such as"
        advice = ["0: entailment, 1: not entailment"]
    else:
        what = "unknown label" + "s" * (len(unknown) > 1) + " "
        what += ", ".join(f"{_quote(name)} (row {first[name]})" for name in unknown[:10])
        what += f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    raise UserError(f'{source}: {what}; {remedy} "{with_more(labels, *advice)}"')


def _strings(column: pd.Series, name: str, source: str) -> list[str]:
    """A column's values as text, whatever their type in the file: 1.0 as 1, none as ''."""
    is_text = name in _TEXTS
    kinds = (str,) if is_text else (str, numbers.Number, np.bool_)
    strings = []
    for row, value in enumerate(column.astype(object).where(column.notna(), ""), 1):
        if not isinstance(value, kinds):
            expected = "text" if is_text else "a word or a number"
            wrong = f"of type {type(value).__name__}, not {expected}"
        elif _UNWRITABLE.search(text := str(value)):
            wrong = "not text: it holds NUL or half a surrogate pair"
        else:
            strings.append(text.strip() if is_text else _whole(text.strip(_BLANK)))
            continue
        raise UserError(f"{source}: the {name} in row {row} is {wrong}: correct or remove the row")
    return strings


@lru_cache(maxsize=10_000)
def _fold(name: object) -> str:
    """A label or a column's name as it is compared: lower case, single spaces, 1.0 as 1."""
    return _whole(" ".join(str(name).split()).lower())


def _whole(word: str) -> str:
    return re.sub(r"^(-?[0-9]+)\.0+$", r"\1", word) if ".0" in word else word


def _quote(text: str) -> str:
    """A word from data for a message, in one short line."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
