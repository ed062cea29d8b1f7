"""Where sentence pairs come from: files, MNLI and HANS, all parsed to one table.

The table has the columns `id`, `premise`, `hypothesis` and `label` (0 entailment, 1 not
entailment; MultiNLI's neutral is dropped unless a mapping of labels says otherwise), and where the
source has them, as HANS, `heuristic` and `subcase`. What is
downloaded is pinned: GLUE by its revision on the Hugging Face Hub, HANS by commit and SHA-256.
"""

import csv
import hashlib
import http.client
import os
import tempfile
import urllib.request
from pathlib import Path

import pandas as pd

from llmft import UserError, hub


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
    "not entailment": 1,
    "not_entailment": 1,
    "non-entailment": 1,
    "contradiction": 1,
}
"""What the usual words mean; HANS's are among them."""

_TARGETS = {"entailment": 0, "not entailment": 1, "drop": -1}
"""What a mapping may map a label to; pairs of -1 are dropped."""

_MNLI_NUMBERS = {"0": "entailment", "1": "neutral", "2": "contradiction"}

_NAMES = {
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "label": ("label", "gold_label"),
}
"""A column's names: MNLI's on the Hub first, then those of HANS, RTE and MNLI's own files."""


def meanings(labels: str = "") -> dict[str, int]:
    """What each label means, 0, 1 or -1 (drop): the usual words, and what `labels` adds.

    Args:
        labels: what differs, such as "neutral: not entailment" or "e: entailment, n: drop, c: not
            entailment".

    Raises:
        UserError: a mapping that cannot be read.
    """
    given = {}
    for part in filter(None, (part.strip() for part in labels.split(","))):
        name, _, target = (text.strip().lower() for text in part.rpartition(":"))
        if not name or target not in _TARGETS or name in given:
            raise UserError(
                f"labels = {labels!r}: {part!r} is not one of LABEL: entailment, LABEL: not "
                "entailment, LABEL: drop, each label once, with commas between"
            )
        given[name] = _TARGETS[target]
    return _MEANINGS | {"neutral": -1} | given


def from_mnli(frame: pd.DataFrame, source: str = "mnli", labels: str = "") -> pd.DataFrame:
    """Binary NLI pairs from the columns `premise`, `hypothesis`, `label`, or as HANS calls them.

    Args:
        frame: labels as MNLI's numbers (0 entailment, 1 neutral, 2 contradiction) or as words. The
            column `id`, `idx` or `pairID` numbers the pairs, else their order does; `heuristic`
            and `subcase` are kept.
        source: the beginning of each id, such as "train" in "train-17".
        labels: what other labels mean, or these; see `meanings`.

    Returns:
        A frame with `id`, `premise`, `hypothesis`, `label`, in the same order, without those that
        are dropped: neutral, unless `labels` says otherwise.

    Raises:
        UserError: a missing column, an unknown label, or the numbers 0 and 1 alone, which MNLI
            and two-way data read differently, where `labels` says nothing about them.
    """
    meaning, label = meanings(labels), labels_in(frame, source)
    if not any(name.isdigit() for name in meaning):  # nothing is said of numbers: they are MNLI's
        if len(label) and label.isin(["0", "1"]).all():
            raise UserError(
                f"{source}: labels 0 and 1 can mean neutral or not; say it with the parameter "
                'labels, such as "0: entailment, 1: not entailment"'
            )
        meaning |= {number: meaning[word] for number, word in _MNLI_NUMBERS.items()}
    return _pairs(frame, source, meaning)


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
    return _pairs(frame, source, _MEANINGS)


def labels_in(frame: pd.DataFrame, source: str) -> pd.Series:
    """The labels of a table as they are compared: text in lower case, 1.0 as 1.

    Raises:
        UserError: a missing column.
    """
    label = frame[_columns(frame, source)["label"]]
    return label.astype(str).str.strip().str.lower().str.removesuffix(".0")


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
    import datasets  # here: it takes seconds, and only this source needs it

    folder = hub.snapshot("dataset", *GLUE, list(MNLI.values()), home=home)
    parts = {}
    for source, files in MNLI.items():
        paths = [str(path) for path in sorted(folder.glob(files))]
        if not paths:
            raise UserError(f"data set {GLUE[0]} at {GLUE[1][:8]} has no {files}")
        try:
            with tempfile.TemporaryDirectory() as cache:  # the snapshot is the cache
                table = datasets.Dataset.from_parquet(paths, cache_dir=cache, keep_in_memory=True)
                parts[source] = from_mnli(table.to_pandas(), source, labels)
        except (OSError, datasets.exceptions.DatasetGenerationError) as error:
            raise UserError(
                f"{folder} has a damaged {files}: remove it and fetch it again"
            ) from error
    return parts["train"], parts["matched"]


def find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The file in `folder` with one of `names` and a suffix of `SUFFIXES`, if there is one.

    Raises:
        UserError: there are several.
    """
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} has both {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None


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
            encoding="utf-8-sig",  # spreadsheets begin a file with a byte order mark
        )
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({line}): restore it") from error


def _need(frame: pd.DataFrame, columns: tuple[str, ...], source: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(
            f"{source}: no column {', '.join(missing)} (needed: {', '.join(columns)}; "
            f"there: {', '.join(map(str, frame.columns))})"
        )


def _columns(frame: pd.DataFrame, source: str) -> dict[str, str]:
    """What the columns premise, hypothesis and label are called here."""
    found = {
        column: next((name for name in names if name in frame), column)
        for column, names in _NAMES.items()
    }
    _need(frame, tuple(found.values()), source)
    return found


def _pairs(frame: pd.DataFrame, source: str, meaning: dict[str, int]) -> pd.DataFrame:
    """The pairs whose label means 0 or 1."""
    found, label = _columns(frame, source), labels_in(frame, source)
    unknown = ~label.isin(list(meaning)).to_numpy()
    if unknown.any():
        first = int(unknown.argmax())
        raise UserError(
            f"{source}: unknown label {label.iloc[first]!r} in row {first + 1}; say what it means "
            f'with the parameter labels, such as "{label.iloc[first]}: drop"'
        )
    texts = frame[[found["premise"], found["hypothesis"]]]
    missing = texts.isna().any(axis=1).to_numpy()
    if missing.any():
        raise UserError(
            f"{source}: a premise or hypothesis is missing in row {int(missing.argmax()) + 1}: "
            "remove the row or complete it"
        )
    number = next((name for name in ("id", "idx", "pairID") if name in frame), None)
    numbers = frame[number] if number else pd.Series(range(len(frame)), index=frame.index)
    pairs = pd.DataFrame(
        {
            "id": source + "-" + numbers.astype(str),
            "premise": texts.iloc[:, 0].astype(str).str.strip(),
            "hypothesis": texts.iloc[:, 1].astype(str).str.strip(),
            "label": label.map(meaning),
            **{name: frame[name].astype(str) for name in ("heuristic", "subcase") if name in frame},
        }
    )
    return pairs[pairs["label"] >= 0].astype({"label": "int64"}).reset_index(drop=True)
