"""Where sentence pairs come from: files, MNLI and HANS, all parsed to one table.

The table has the columns `id`, `premise`, `hypothesis` and `label` (0 entailment, 1 not
entailment; MultiNLI's neutral is dropped unless a mapping of labels says otherwise), and where the
source has them, as HANS, `heuristic` and `subcase`. `read` turns a file of any format into a table
as it is written; every table, also MNLI's and HANS's own, then passes through `_pairs`, so what one
source refuses, every source refuses. What is downloaded is pinned: GLUE by its revision on the
Hugging Face Hub, HANS by commit and SHA-256.
"""

import csv
import gzip
import hashlib
import http.client
import json
import numbers
import os
import re
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute, parquet, types

from llmft import UserError
from llmft.nli import hub


GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
MNLI = {"train": "mnli/train-*.parquet", "matched": "mnli/validation_matched-*.parquet"}
"""What is needed of GLUE, and how ids begin."""

HANS_URL = (
    "https://raw.githubusercontent.com/tommccoy1/hans/7299f6f657089ce06a0f98e7e81f8d0f5b7741ce/"
    "heuristics_evaluation_set.txt"
)
HANS_SHA256 = "c55b62feef9913070e88f38938dc2492018c945ac81f70139346472494124e79"

HANS_COPY = ("jhu-cogsci/hans", "refs/convert/parquet", "plain_text/validation/*.parquet")
"""The Hub's own conversion. Its commit may change, its content may not: see `hans_file`."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet")
"""The formats that `read` takes."""

LARGEST_FILE = 2**30
"""Bytes that a file may have, and characters that it may unpack to."""

MOST_ROWS = 5_000_000
LONGEST_LINE = 1_000_000
LONGEST_TEXT = 100_000
"""Rows of a file, characters of a line, and characters of one value, at most."""

_HANS_COLUMNS = {
    "gold_label": "label",
    "sentence1_binary_parse": "binary_parse_premise",
    "sentence2_binary_parse": "binary_parse_hypothesis",
    "sentence1_parse": "parse_premise",
    "sentence2_parse": "parse_hypothesis",
    "sentence1": "premise",
    "sentence2": "hypothesis",
    "pairID": "",
    "heuristic": "heuristic",
    "subcase": "subcase",
    "template": "template",
}
"""The official file's columns, in order, and what the Hub's copy calls them."""

_MEANINGS = {
    "entailment": 0,
    **{f"{no}{mark}entailment": 1 for no in ("not", "non") for mark in " _-"},
    "contradiction": 1,
}
"""What the usual words mean; HANS's are among them."""

_TARGETS = {"entailment": 0, "not entailment": 1, "drop": -1}
"""What a mapping may map a label to; pairs of -1 are dropped."""

_MNLI_NUMBERS = {"0": "entailment", "1": "neutral", "2": "contradiction"}

MISSING = "missing"
DROP_MISSING = "missing: drop"
"""What a mapping calls a label that is not there, and the mapping that drops rows without a label,
premise or hypothesis."""

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
_NEEDED = (*_TEXTS, "label")
_KNOWN = {alias for aliases in _NAMES.values() for alias in aliases}

_BLANK = " \t\r\n\xa0\u200b\u200c\u200d\u2060\ufeff"
"""What a text of nothing else is empty by: white space, also of no width."""

_KINDS = {
    list: "a list",
    dict: "a mapping",
    bool: "true or false",
    numbers.Number: "a number",
    bytes: "bytes",
}


def meanings(labels: str = "") -> dict[str, int]:
    """What each label means, 0, 1 or -1 (drop): the usual words, and what `labels` adds.

    Args:
        labels: what differs, such as "neutral: not entailment" or "e: entailment, n: drop, c: not
            entailment"; "missing: drop" drops the rows without a label, premise or hypothesis.

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
    given: dict[str, int] = {}
    for part in filter(None, (part.strip(", \t\r\n") for part in parts)):
        name, _, target = (_folded(text) for text in part.rpartition(":"))
        known = target in _TARGETS and (name != MISSING or target == "drop")
        if not name or not known or name in given:
            raise UserError(
                f"labels = {_shown(labels)}: {_shown(part)} is not one of LABEL: entailment, "
                "LABEL: not entailment, LABEL: drop, missing: drop, each label once, with commas "
                "between"
            )
        given[name] = _TARGETS[target]
    return _MEANINGS | {"neutral": -1} | given


def from_mnli(frame: pd.DataFrame, source: str = "mnli", labels: str = "") -> pd.DataFrame:
    """Binary NLI pairs from the columns `premise`, `hypothesis`, `label`, or as HANS calls them.

    Args:
        frame: labels as MNLI's numbers (0 entailment, 1 neutral, 2 contradiction) or as words. The
            column `id`, `idx` or `pairID` numbers the pairs, else their order does; `heuristic`
            and `subcase` are kept. Names of columns may be in upper or lower case.
        source: the beginning of each id, such as "train" in "train-17".
        labels: what other labels mean, or these; see `meanings`.

    Returns:
        A frame with `id`, `premise`, `hypothesis`, `label`, in the same order, without those that
        are dropped: neutral, unless `labels` says otherwise.

    Raises:
        UserError: a missing or repeated column; a value that is missing, no text, too long or
            cannot be written as UTF-8; unknown labels; numbers without both 0 and 2, which MNLI
            and two-way data read differently, where `labels` says nothing about them.
    """
    return parse(frame, source, labels)[0]


def from_hans(frame: pd.DataFrame, source: str = "hans") -> pd.DataFrame:
    """Binary NLI pairs from HANS's columns, with its `heuristic` and `subcase`.

    Args:
        frame: `gold_label` (entailment or non-entailment), `sentence1`, `sentence2`, `pairID`,
            `heuristic`, `subcase`; others are ignored.
        source: the beginning of each id.

    Raises:
        UserError: a missing column or an unknown label, and as `from_mnli` does.
    """
    columns = ("gold_label", "sentence1", "sentence2", "pairID", "heuristic", "subcase")
    _need(frame, columns, source)
    return parse(frame, source)[0]


def parse(frame: pd.DataFrame, source: str, labels: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs of a table, and what its labels were taken to mean: all data passes through here.

    Args:
        frame: as in `from_mnli`.
        source: as in `from_mnli`.
        labels: as in `from_mnli`.

    Returns:
        The pairs, as `from_mnli`; and a row for each label as it stands in the table, in order of
        appearance: `label`, `meaning` ("entailment", "not entailment" or "drop"), `rows`, and an
        example's `premise` and `hypothesis`.

    Raises:
        UserError: as `from_mnli` does.
    """
    columns = _columns(frame, source)
    written = _words(columns["label"], "label", source)
    compared = {word: _folded(word) or MISSING for word in set(written)}
    label = pd.Series([compared[word] for word in written], dtype=object)
    meaning = _meaning(label, source, labels)
    texts: dict[str, list[str]] = {}
    for name in _TEXTS:
        texts[name], empty = _texts(columns[name], name, source)
        if empty and MISSING not in meaning:
            raise UserError(
                f"{source}: the {name} is missing in row {empty[0] + 1}; complete or remove such "
                f'rows, or drop them with the parameter labels: "{added(labels, DROP_MISSING)}"'
            )
        label[empty] = MISSING
    groups = {
        name: [word or f"no {name}" for word in _words(columns[name], name, source)]
        for name in ("heuristic", "subcase")
        if name in columns
    }
    ids = [str(row) for row in range(len(frame))]
    if "id" in columns:
        ids = _words(columns["id"], "id", source)
        if not all(ids):
            raise UserError(
                f"{source}: the id is missing in row {ids.index('') + 1}: complete the ids, or "
                "remove the column"
            )
    value = label.map(meaning)
    named = {"id": [f"{source}-{own}" for own in ids]} | texts | groups
    pairs = pd.DataFrame(named, dtype="str")
    pairs.insert(3, "label", value)
    names = {number: name for name, number in _TARGETS.items()}
    first = pairs.assign(
        label=label, meaning=value.map(names), rows=label.map(label.value_counts())
    )
    first = first.loc[~label.duplicated(), ["label", "meaning", "rows", *_TEXTS]]
    return pairs[value >= 0].reset_index(drop=True), first.reset_index(drop=True)


def hans_file(home: Path | None = None) -> Path:
    """The official HANS file at its pinned commit: from the cache, else downloaded and checked.

    Where the authors' own cannot be had, it is rebuilt byte for byte from the copy that the Hugging
    Face Hub converted to Parquet; both must have the one SHA-256. The cache is `$HF_HOME/llmft`
    (`~/.cache/huggingface/llmft`), or `home`'s; a copy put there by hand does as well.

    Raises:
        UserError: neither can be had, or what comes is not the pinned file.
    """
    path = hub.cache(home) / HANS_URL.rpartition("/")[2]
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == HANS_SHA256:
        return path
    if hub.is_offline():
        raise UserError(
            f"HANS is not whole on this machine ({path}), and HF_HUB_OFFLINE is set: run `llmft "
            "fetch` where there is a network"
        )
    try:
        with urllib.request.urlopen(HANS_URL, timeout=60) as answer:
            content: bytes = answer.read()
        source = HANS_URL
    except (OSError, http.client.HTTPException) as error:
        source = HANS_COPY[0]
        try:
            content = _converted_hans(home)
        except UserError as why:
            raise UserError(
                f"HANS cannot be downloaded from {HANS_URL} ({error}), nor the Hub's copy ({why}); "
                f"or put the file at {path}"
            ) from error
    if hashlib.sha256(content).hexdigest() != HANS_SHA256:
        raise UserError(
            f"HANS from {source} is not the pinned file (wrong SHA-256): run it again, or put the "
            f"file at {path}"
        )
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}; make room, or choose another disk with HF_HOME"
        ) from error
    return path


def _converted_hans(home: Path | None) -> bytes:
    """The official file's bytes from the Hub's copy, which lacks `pairID`: it counts the rows."""
    name, revision, files = HANS_COPY
    folder = hub.snapshot("dataset", name, revision, [files], home=home)
    tables = [pd.read_parquet(path) for path in sorted(folder.glob(files))]
    if not tables or not {*_HANS_COLUMNS.values()} - {""} <= {*tables[0]}:
        raise UserError(f"data set {name} has other files or columns than it had: {folder}")
    copy = pd.concat(tables, ignore_index=True)
    copy["label"] = copy["label"].map({0: "entailment", 1: "non-entailment"})
    copy[""] = [f"ex{row}" for row in range(len(copy))]
    rows = copy[list(_HANS_COLUMNS.values())].astype(str).itertuples(index=False)
    return "".join("\t".join(row) + "\n" for row in [tuple(_HANS_COLUMNS), *rows]).encode()


def glue_mnli(labels: str = "", home: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """MNLI's training and matched validation pairs at the pinned revision of GLUE.

    Args:
        labels: as in `from_mnli`.
        home: the folder to use in HF_HOME's place.

    Raises:
        UserError: they are not in the Hugging Face cache and cannot be downloaded.
    """
    tables = glue_tables(home)
    train, matched = (from_mnli(tables[source], source, labels) for source in MNLI)
    return train, matched


def glue_tables(home: Path | None = None) -> dict[str, pd.DataFrame]:
    """The tables behind `glue_mnli` as they are written, by the names of `MNLI`."""
    import datasets  # here: it takes seconds, and only this source needs it

    folder = hub.snapshot("dataset", *GLUE, list(MNLI.values()), home=home)
    tables = {}
    for source, files in MNLI.items():
        paths = [str(path) for path in sorted(folder.glob(files))]
        if not paths:
            raise UserError(f"data set {GLUE[0]} at {GLUE[1][:8]} has no {files}")
        try:
            with tempfile.TemporaryDirectory() as cache:  # the snapshot is the cache
                table = datasets.Dataset.from_parquet(paths, cache_dir=cache, keep_in_memory=True)
                tables[source] = table.to_pandas()
        except (OSError, datasets.exceptions.DatasetGenerationError) as error:
            raise UserError(
                f"{folder} has a damaged {files}: remove it and fetch it again"
            ) from error
    return tables


def find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The file in `folder` with one of `names` and a suffix of `SUFFIXES`, if there is one.

    Raises:
        UserError: there are several, or it is no file (a folder, a pipe, a device).
    """
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    found = [path for path in candidates if path.exists()]
    if len(found) > 1:
        raise UserError(f"{folder} has both {found[0].name} and {found[1].name}: keep one of them")
    if found and not found[0].is_file():
        raise UserError(f"{found[0]} is not a file: put the data there as one")
    return found[0] if found else None


def read(path: Path) -> pd.DataFrame:
    """The table at `path`, as it is written: a column is text, or what JSON and Parquet hold.

    Nothing is taken for a missing value: "n/a" is a hypothesis in MNLI.

    Raises:
        UserError: a damaged, cut off or too large file; a row of another length than the header;
            another encoding than UTF-8.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _too_large(path)
        if path.suffix == ".parquet":
            return _parquet(path)
        return _json_lines(path) if ".jsonl" in path.suffixes else _delimited(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (
        OSError,
        EOFError,
        ValueError,
        RecursionError,
        csv.Error,
        zlib.error,
        pa.ArrowException,
    ) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({line}): restore it") from error


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path} has more than {LARGEST_FILE:,} bytes or {MOST_ROWS:,} rows, packed or unpacked: "
        "take a sample of it"
    )


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with or without gzip, with their ends; sizes are checked first."""
    characters = rows = 0
    opened: Any = gzip.open if path.suffix == ".gz" else open
    # Spreadsheets begin a file with a byte order mark: utf-8-sig.
    with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
        while line := stream.readline(LONGEST_LINE + 1):
            characters, rows = characters + len(line), rows + 1
            if len(line) > LONGEST_LINE:
                raise UserError(
                    f"{path}: line {rows} has more than {LONGEST_LINE:,} characters: shorten it"
                )
            if characters > LARGEST_FILE or rows > MOST_ROWS:
                raise _too_large(path)
            if "\0" in line:
                raise UserError(f"{path} is not UTF-8 text (NUL in line {rows}): save it as UTF-8")
            yield line


def _delimited(path: Path) -> pd.DataFrame:
    """CSV, or TSV: as MNLI's own, without quotes, or as pandas and spreadsheets write it."""
    comma, lines = path.suffix == ".csv", _lines(path)
    first = next(lines, "")
    quoted = comma or first.startswith('"')
    reader = csv.reader(
        chain([first], lines),
        delimiter="," if comma else "\t",
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    records = filter(None, reader)  # without blank lines
    header = [name.strip() for name in next(records, [])]
    rows: list[list[str]] = []
    try:
        for row in records:
            if len(row) != len(header):
                raise UserError(
                    f"{path}: row {len(rows) + 1} has {len(row)} values and the header "
                    f"{len(header)}: complete the row, or write the file as .jsonl"
                )
            rows.append(row)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    if not header:
        raise ValueError("no header")
    if not quoted:
        rows = [[_unquoted(value) if '"' in value else value for value in row] for row in rows]
    return pd.DataFrame(rows, columns=header, dtype=object)


def _unquoted(value: str) -> str:
    """A value of a TSV file without the quotes that a writer put around it.

    A writer that quotes doubles the quotes inside; all others, also a lone one, are the text's own.
    """
    inner = value[1:-1]
    if value[0] == value[-1] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return value


def _json_lines(path: Path) -> pd.DataFrame:
    """The columns that are known."""
    rows: list[dict[str, Any]] = []
    names: dict[str, bool] = {}  # and whether a column is known
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except ValueError as error:
            raise ValueError(f"line {number}: {getattr(error, 'msg', error)}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        for name in row:
            if name not in names:
                names[name] = _folded(name) in _KNOWN
        rows.append({name: value for name, value in row.items() if names[name]})
    if not rows:
        raise ValueError("no examples")
    _columns(pd.DataFrame(columns=[*names]), path.name)  # its message has all names
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in rows], dtype=object)
            for name, known in names.items()
            if known
        }
    )


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in items:
        if name in found:
            raise ValueError(f"the column {_shown(name)} occurs twice")
        found[name] = value
    return found


def _parquet(path: Path) -> pd.DataFrame:
    """The columns that are known, after a check of what they unpack to."""
    with parquet.ParquetFile(path) as file:
        schema, about = file.schema_arrow, file.metadata
    _columns(pd.DataFrame(columns=schema.names), path.name)  # its message has all names
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    if (
        max([about.num_rows, *(chunk.num_values for chunk in chunks)]) > MOST_ROWS
        or sum(chunk.total_uncompressed_size for chunk in chunks) > LARGEST_FILE
    ):
        raise _too_large(path)
    # A text that is repeated is stored once, and kept once here: its length is added up for each
    # row before there is a copy for each row.
    known = [name for name in schema.names if _folded(name) in _KNOWN]
    texts = [
        name
        for name in known
        if types.is_string(schema.field(name).type)
        or types.is_large_string(schema.field(name).type)
    ]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        table = file.read(columns=known)
    characters = sum(
        compute.sum(compute.take(compute.binary_length(chunk.dictionary), chunk.indices)).as_py()
        or 0
        for column in table.columns
        if types.is_dictionary(column.type) and not types.is_primitive(column.type.value_type)
        for chunk in column.chunks
    )
    if characters > LARGEST_FILE:
        raise _too_large(path)
    return pd.DataFrame(
        {name: pd.Series(table.column(name).to_pylist(), dtype=object) for name in known}
    )


def _need(frame: pd.DataFrame, columns: tuple[str, ...], source: str) -> None:
    there = [_folded(name) for name in frame]
    missing = [column for column in columns if column.lower() not in there]
    if missing:
        shown = ", ".join(" ".join(str(name).split())[:40] for name in frame.columns[:20])
        raise UserError(
            f"{source}: no column {', '.join(missing)} (needed: {', '.join(columns)}; "
            f"there: {shown}{', ...' if len(there) > 20 else ''})"
        )


def _columns(frame: pd.DataFrame, source: str) -> dict[str, pd.Series]:
    """The columns that are known by their names of `_NAMES`, numbered from 0."""
    there = [_folded(name) for name in frame]
    twice = next((name for i, name in enumerate(there) if name and name in there[:i]), None)
    if twice is not None:
        raise UserError(f"{source}: the column {_shown(twice)} occurs twice: keep one of them")
    found = {
        column: next((name for name in names if name in there), None)
        for column, names in _NAMES.items()
    }
    _need(frame, tuple(found[column] or column for column in _NEEDED), source)
    return {
        column: frame.iloc[:, there.index(name)].reset_index(drop=True)
        for column, name in found.items()
        if name
    }


def _meaning(label: pd.Series, source: str, labels: str) -> dict[str, int]:
    """What the labels of a table mean; numbers are MNLI's where they can be nothing else.

    Raises:
        UserError: labels without a meaning, all of them at once, with a mapping to complete.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(label, 1):
        first.setdefault(name, row)
    figures = {name for name in first if name.isdecimal()}
    meaning = meanings(labels)
    said = any(name.isdecimal() for name in meaning)
    if not said and {"0", "2"} <= figures <= _MNLI_NUMBERS.keys():
        meaning |= {number: meaning[word] for number, word in _MNLI_NUMBERS.items()}
    unknown = [name for name in first if name not in meaning]
    if not unknown:
        return meaning
    advice = [DROP_MISSING if name == MISSING else f"{name[:40]}: ?" for name in unknown[:10]]
    how = "say what each means, entailment, not entailment or drop, with the parameter labels:"
    if unknown == [MISSING]:
        what = f"label missing in row {first[MISSING]}"
        how = "complete or remove such rows, or drop them with the parameter labels:"
    elif set(unknown) == {"0", "1"}:
        what = "labels 0 and 1 can mean neutral or not"
        how = "write words, or say it with the parameter labels, such as"
        advice = ["0: entailment, 1: not entailment"]
    elif len(unknown) == 1:
        what = f"unknown label {_shown(unknown[0])} in row {first[unknown[0]]}"
    else:
        what = "unknown labels " + ", ".join(
            f"{_shown(name)} (row {first[name]})" for name in unknown[:10]
        )
        what += f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    raise UserError(f'{source}: {what}; {how} "{added(labels, *advice)}"')


def added(labels: str, *more: str) -> str:
    """A mapping of labels with more at its end."""
    return ", ".join(filter(None, (labels.strip(", \t\r\n"), *more)))


def _texts(column: pd.Series, name: str, source: str) -> tuple[list[str], list[int]]:
    """A column's texts without space around them, and the rows (from 0) where there is none."""
    values = _values(column)
    if not {*map(type, values)} <= {str}:
        row = next(i for i, value in enumerate(values) if not isinstance(value, str))
        raise _wrong(source, name, row, f"{_kind(values[row])}, not text")
    texts = [value.strip() for value in values]
    _writable(texts, name, source)
    return texts, [row for row, text in enumerate(texts) if not text.strip(_BLANK)]


def _words(column: pd.Series, name: str, source: str) -> list[str]:
    """A column's values as text, whichever type a format gave them: 1.0 as 1, none as ''."""
    values = _values(column)
    if not {*map(type, values)} <= {str}:
        for row, value in enumerate(values):
            if not isinstance(value, str | numbers.Number | np.bool_):
                raise _wrong(source, name, row, f"{_kind(value)}, not a word or a number")
    words = [_whole(str(value).strip(_BLANK)) for value in values]
    _writable(words, name, source)
    return words


def _values(column: pd.Series) -> list[Any]:
    """A column's values, with '' in place of any kind of none."""
    values = column.astype(object).tolist()
    for row in np.flatnonzero(column.isna().to_numpy()):
        values[row] = ""
    return values


def _writable(texts: Sequence[str], name: str, source: str) -> None:
    """Refuse what no tokenizer and no file takes: NUL, half a surrogate pair, a whole book."""
    joined = "".join(texts)
    try:
        joined.encode()
    except UnicodeEncodeError:
        pass
    else:
        if "\0" not in joined and max(map(len, texts), default=0) <= LONGEST_TEXT:
            return
    for row, text in enumerate(texts):
        if len(text) > LONGEST_TEXT:
            raise _wrong(source, name, row, f"longer than {LONGEST_TEXT:,} characters")
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise _wrong(source, name, row, "not text: it holds NUL or half a surrogate pair")


def _wrong(source: str, name: str, row: int, what: str) -> UserError:
    return UserError(f"{source}: the {name} in row {row + 1} is {what}: correct or remove the row")


def _kind(value: object) -> str:
    return next(
        (word for kind, word in _KINDS.items() if isinstance(value, kind)),
        f"a {type(value).__name__}",
    )


def _folded(name: object) -> str:
    """A label or a column's name as it is compared: lower case, single spaces, 1.0 as 1."""
    return _whole(" ".join(str(name).split()).lower())


def _whole(word: str) -> str:
    return re.sub(r"^(-?[0-9]+)\.0+$", r"\1", word) if ".0" in word else word


def _shown(text: str) -> str:
    """A word from data in a message: one line, and no longer than one."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
