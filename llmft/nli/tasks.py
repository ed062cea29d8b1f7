"""NLI tasks: training, validation and test sets, and how few-shot samples are drawn.

A task has a training pool (demonstrations, few-shot samples), a validation set, and two test
domains: in-domain (as MultiNLI's matched set, Williams et al. 2018) and out-of-domain (as HANS,
McCoy et al. 2019, where word overlap says nothing), which a user's own task may lack.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from llmft import ROOT, UserError, params
from llmft.nli import cues, selection, sources


DOMAINS = ("in-domain", "out-of-domain")
"""The names of the two test domains, in the order of every table."""

LABELS = selection.LABELS
"""The names of labels 0 and 1."""

VALIDATION = 2_000
"""Training pairs set aside for validation where a task brings no validation file of its own."""

MOST_SHARED = 0.01
"""The largest share of a validation or test set that may be in a set before it, too. Large real
sets have a few such pairs; with more, memory would be measured."""

FILES = {
    "train": ("train",),
    "mixed": ("mixed",),
    "validation": ("validation",),
    "in-domain": ("test",),
    "out-of-domain": ("hans", "out-of-domain"),
}
"""The sets of a task in order, and what a folder calls their files."""

_SIMILAR = (
    "train dev devel development valid validation val eval evaluation test "
    "indomain ood outofdomain hans"
).split()
"""Names of files that were probably meant to be read, without marks and capitals."""

OWN = ("pocket", "pocket-rules")
"""The tasks in the book's own `data`: the pocket world's, and the one of its chapter on rules."""

_DATA = (
    ".csv .tsv .txt .json .jsonl .ndjson .parquet .arrow .feather .xlsx .xls .gz .bz2 .xz .zst .zip"
).split()


@dataclass(frozen=True)
class Task:
    """Frames with the columns `id`, `premise`, `hypothesis`, `label` (0 or 1).

    They have `heuristic` and `subcase`, too, where their source has them. `out_of_domain` has no
    rows where the task has no such set, and so has `mixed`: pairs of another kind than `train`'s,
    which may be put among the labelled examples (`labelled`). Ids are unique in a task. `digest` is
    a SHA-256 (16 hex digits) of the source files or pinned revisions, and of the mapping of labels;
    of `mixed` it is unless `mixed_digest` is (`digest_of`).
    `labels` says what each label in each `file` means (`sources.parse`). `unread` names the data
    files in the folder that the task does not read.
    """

    name: str
    train: pd.DataFrame
    validation: pd.DataFrame
    in_domain: pd.DataFrame
    out_of_domain: pd.DataFrame
    digest: str
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    unread: tuple[str, ...] = ()
    mixed: pd.DataFrame = field(default_factory=pd.DataFrame)
    mixed_digest: str = ""

    def digest_of(self, mixed: float) -> str:
        """What stands for the data of a run with this share of `mixed` pairs.

        Where that set came later than published runs, those without such pairs stay what they are.
        """
        return f"{self.digest} {self.mixed_digest}" if mixed and self.mixed_digest else self.digest

    @property
    def domains(self) -> dict[str, pd.DataFrame]:
        """The test sets by name, in the order of `DOMAINS`, without one that is empty."""
        sets = dict(zip(DOMAINS, (self.in_domain, self.out_of_domain), strict=True))
        return {name: frame for name, frame in sets.items() if len(frame)}

    @property
    def sets(self) -> dict[str, pd.DataFrame]:
        """All sets by name: train, mixed where there is one, validation, and the domains."""
        mixed = {"mixed": self.mixed} if len(self.mixed) else {}
        return {"train": self.train, **mixed, "validation": self.validation} | self.domains


def load(name: str, *, limit: int = 0, labels: str = "", rows: str = "") -> Task:
    """The task `name`: one of `OWN`, "mnli-hans", or a folder.

    A folder holds `train` and `test`, and may hold `validation`, `out-of-domain` (or `hans`) and
    `mixed`, each in a format of `sources.SUFFIXES`, with the columns that `sources.parse` reads. A
    relative path starts where the program was started, `~` is the home folder.

    Args:
        name: the task.
        limit: test examples kept in each domain, 0 = all; stratified by label and subcase.
        labels: what labels mean in all files, where that is not the usual (`sources.meanings`).
        rows: of "mnli-hans", a file of `selection.COLUMNS`: the smallest sets of these rows only,
            with its labels.

    Raises:
        UserError: an unknown task; a missing, unread or damaged file; a set without both labels;
            pairs that are trained on and tested on; no network where one is needed.
    """
    if rows and (name != "mnli-hans" or labels):
        raise UserError(f"rows = {rows}: only of mnli-hans, and without labels: leave one out")
    if rows:
        task = _from_rows(Path(rows).expanduser())
    else:
        task = _mnli_hans(labels) if name == "mnli-hans" else _from_folder(name, labels)
    if not limit:
        return task
    in_domain, out_of_domain = (_stratify(f, limit) for f in (task.in_domain, task.out_of_domain))
    task = replace(task, in_domain=in_domain, out_of_domain=out_of_domain)
    for domain, frame in task.domains.items():
        if frame["label"].nunique() < len(LABELS):
            raise UserError(f"limit = {limit} keeps one label {domain}: give a larger one")
    return task


def shared_pairs(task: Task) -> pd.DataFrame:
    """How many pairs of a set stand in another set, or twice in the same one, word for word.

    Returns a row for each two sets that share pairs: `set`, `also_in` (an earlier set or the same
    one), `pairs` (how many of `set`), `of` (the size of `set`) and `example` (the id of one).
    """
    rows = []
    texts: dict[str, pd.Series] = {}
    for name, frame in task.sets.items():
        texts[name] = own = frame["premise"] + "\0" + frame["hypothesis"]
        for other in texts:
            same = own.duplicated() if other == name else own.isin(texts[other])
            if same.any():
                rows.append((name, other, int(same.sum()), len(own), frame["id"][same].iloc[0]))
    return pd.DataFrame(rows, columns=["set", "also_in", "pairs", "of", "example"])


def sample(pool: pd.DataFrame, n: int, seed: int, purity: float = 0.0) -> pd.DataFrame:
    """`n` examples of `pool`, half of each label, in random order, without replacement.

    With a `purity`, in each label that share of the examples, to the nearest one, are pairs on
    which negation in the hypothesis is right (`cues.negation_is_right`).

    Samples of one seed are nested as sets: the 8 of seed 3 contain the 4 of seed 3. So along a
    curve over shots a draw only gains examples, and neighbouring points are paired. The order is
    shuffled anew for each `n`. Samples are the same on every platform (PCG64).

    Raises:
        UserError: `n` is negative, odd, or more than the pool can balance.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 or n % 2:
        raise UserError(f"cannot draw {n} examples: give an even number, half for each label")
    rng = np.random.default_rng([seed, 0])
    label = pool["label"].to_numpy()
    right = cues.negation_is_right(pool) if purity else None
    parts = []
    for value in range(len(LABELS)):
        rows, what = np.flatnonzero(label == value), f"of label {LABELS[value]!r}"
        if right is None:
            kinds = {what: (rows, n // 2)}
        else:
            against = int(n / 2 * (1 - purity) + 0.5)
            kinds = {
                f"{what} that contradict the cue": (rows[~right[rows]], against),
                f"{what} that follow it": (rows[right[rows]], n // 2 - against),
            }
        for kind, (own, wanted) in kinds.items():
            if len(own) < wanted:
                raise UserError(f"cannot draw {n} examples: the pool has {len(own)} {kind}")
            parts.append(rng.permutation(own)[:wanted])
    order = np.random.default_rng([seed, 1, n]).permutation(n)
    return pool.iloc[np.concatenate(parts)[order]].reset_index(drop=True)


def labelled(
    task: Task, n: int, seed: int, purity: float = 0.0, mixed: float = 0.0
) -> pd.DataFrame:
    """`n` labelled examples of a task, a `sample` of its training pool of this `purity`.

    The share `mixed` of each label, to the nearest example, are pairs of the set `mixed` instead,
    in no order that tells them apart. Larger shares of one seed keep the smaller ones' pairs.

    Raises:
        UserError: as `sample`; the task has no such pairs.
    """
    others = mixed_pairs(n, mixed)
    own = sample(task.train, n - others, seed, purity)
    if not others:
        return own
    if task.mixed.empty:
        raise UserError(f"task {task.name} has no set `mixed`: give it one, or leave `mixed` at 0")
    both = pd.concat([own, sample(task.mixed, others, seed)], ignore_index=True)
    return both.iloc[np.random.default_rng([seed, 3, n]).permutation(n)].reset_index(drop=True)


def mixed_pairs(n: int, mixed: float) -> int:
    """How many of `n` labelled examples are from the set `mixed`, with this share: even."""
    return 2 * int(n / 2 * mixed + 0.5)


def _mnli_hans(labels: str) -> Task:
    hans, mnli = sources.read(sources.hans_file()), sources.glue()
    tables = {
        "train": ("train", mnli["train"]),
        "in-domain": ("matched", mnli["matched"]),
        "out-of-domain": ("hans", hans),
    }
    source = f"{sources.GLUE} {sources.HANS_SHA256} {VALIDATION} {labels}"
    return _task("mnli-hans", tables, labels, source.encode())


def _from_rows(path: Path) -> Task:
    table = selection.load(path)
    table = table[table["size"] == table.groupby("set")["size"].transform("min")]
    tables = {}
    for part, frame in table.groupby("set", sort=False):
        file = str(part) if part in ("mixed", "validation") else selection.ORIGIN[str(part)]
        groups = [] if selection.ORIGIN[str(part)] == "hans" else ["heuristic", "subcase"]
        tables[str(part)] = file, frame.drop(columns=groups)
    is_mixed = table["set"] == "mixed"
    without, mixed = (table[rows].to_csv(index=False).encode() for rows in (~is_mixed, is_mixed))
    task = _task("mnli-hans", {part: tables[part] for part in FILES if part in tables}, "", without)
    if not is_mixed.any():
        return task
    return replace(task, mixed_digest=hashlib.sha256(mixed).hexdigest()[:16])


def _from_folder(name: str, labels: str) -> Task:
    folder = ROOT / "data" / name if name in OWN else _folder(name)
    found = {part: sources.find(folder, names) for part, names in FILES.items()}
    paths = {part: path for part, path in found.items() if path}
    unread = _unread(folder, [path.name for path in paths.values()])
    kinds = ", ".join(sources.SUFFIXES)
    for part in ("train", "in-domain"):
        if part not in paths:
            there = f"; there: {', '.join(unread)}" if unread else ""
            raise UserError(f"task {name}: {folder} has no {FILES[part][0]} file ({kinds}){there}")
    content = labels.encode()  # the usual meanings are not in it
    tables = {}
    for part, path in paths.items():
        tables[part] = path.name, sources.read(path)
        content += path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest()
    return replace(_task(name, tables, labels, content), unread=unread)


def _folder(name: str) -> Path:
    """The folder of a user's task."""
    path = params.located(name)
    if not path.is_dir():
        choice = "use pocket, mnli-hans, or a folder with train and test files"
        where = f"{str(path)!r} is {'a file' if path.is_file() else 'no folder'}"
        raise UserError(f"unknown task {name!r}: {choice}; {where}")
    return path


def _unread(folder: Path, read: list[str]) -> tuple[str, ...]:
    """The data files of a folder that are not read; one that was meant to be is refused."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _DATA)
    unread = [name for name in names if name not in read]
    similar = [n for n in unread if re.sub("[^a-z]", "", n.split(".")[0].lower()) in _SIMILAR]
    if similar:
        names = [" or ".join(kind) for kind in FILES.values()]
        right = f"the names are {', '.join(names)}, with {', '.join(sources.SUFFIXES)}"
        raise UserError(f"{folder}: not read: {', '.join(similar)}; {right}: rename or move it")
    return tuple(unread)


def _task(
    name: str, tables: dict[str, tuple[str, pd.DataFrame]], labels: str, content: bytes
) -> Task:
    """A task from its sets' tables, with the checks that every source must pass.

    Each table, in the order of `FILES`, comes with the name of its file, whose stem begins its
    pairs' ids; `content` is what the digest is of.
    """
    sets, meanings = {}, []
    for part, (file, table) in tables.items():
        sets[part], meaning = sources.parse(table, file.split(".")[0], labels)
        meaning.insert(0, "file", file)
        meanings.append(meaning)
    all_labels = pd.concat(meanings, ignore_index=True)
    # A misspelt label in the mapping would silently leave the real one its usual meaning.
    there = {*all_labels["label"]}
    if unused := sources.meanings(labels).keys() - sources.meanings() - {sources.MISSING} - there:
        what = f"labels = {labels!r}: task {name} has no label {sorted(unused)[0]!r}"
        raise UserError(f"{what}; there are {', '.join(sorted(there))}")
    for (part, frame), meaning in zip(sets.items(), meanings, strict=True):
        _check_labels(f"task {name}: {part} ({tables[part][0]})", frame, meaning, labels)
    if "validation" not in sets:
        sets["train"], sets["validation"] = _split(sets["train"])
        if sets["validation"]["label"].nunique() < len(LABELS):
            what = f"task {name}: {tables['train'][0]} has too few examples to set some aside"
            raise UserError(f"{what}: add a validation file")
    train, validation, in_domain = sets["train"], sets["validation"], sets["in-domain"]
    out_of_domain, mixed = (
        sets.get(part, in_domain.iloc[:0]) for part in ("out-of-domain", "mixed")
    )
    digest = hashlib.sha256(content).hexdigest()[:16]
    domains = in_domain, out_of_domain
    task = Task(name, train, validation, *domains, digest, all_labels, mixed=mixed)
    _check_pairs(task)
    return task


def _check_labels(where: str, frame: pd.DataFrame, meanings: pd.DataFrame, labels: str) -> None:
    """Refuse a set with one label: a constant would be right."""
    if frame["label"].nunique() == len(LABELS):
        return
    is_dropped = meanings["meaning"] == "drop"
    names = ", ".join(meanings["label"][~is_dropped])
    dropped = meanings[is_dropped].set_index("label")["rows"]
    line = f"only {LABELS[frame['label'].iloc[0]]} pairs ({names})" if len(frame) else "no pairs"
    if len(dropped):
        line += ", without " + ", ".join(f"{label} ({rows})" for label, rows in dropped.items())
    line += ": both labels are needed"
    # Neutral pairs would be the missing label, unless a mapping has already said what they are.
    if "neutral" in dropped and "neutral" not in labels.lower() and set(frame["label"]) <= {0}:
        mapping = sources.with_more(labels, "neutral: not entailment")
        line += f'; with the parameter labels, "{mapping}", it has {dropped["neutral"]}'
        line += " not entailment"
    raise UserError(f"{where} has {line}")


def _check_pairs(task: Task) -> None:
    """Refuse an id that is there twice, and test pairs that may have been learnt."""
    ids = pd.concat([frame["id"] for frame in task.sets.values()])
    if not ids.is_unique:
        what = f"task {task.name}: the id {ids[ids.duplicated()].iloc[0]!r} appears twice"
        raise UserError(f"{what}: make ids unique, or remove the column")
    for row in shared_pairs(task).to_dict("records"):
        leaks = row["set"] != row["also_in"] and row["also_in"] not in DOMAINS
        if leaks and row["pairs"] > MOST_SHARED * row["of"]:
            what = f"{row['pairs']} of the {row['of']} pairs of {row['set']} stand in"
            also = f"{row['also_in']}, too, such as {row['example']!r}"
            raise UserError(f"task {task.name}: {what} {also}: remove them from one of the two")


def _split(train: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training pool and validation set: a fixed draw, at most a tenth of the pairs."""
    n = min(VALIDATION, len(train) // 10)
    held_out = np.zeros(len(train), dtype=bool)
    held_out[np.random.default_rng(0).permutation(len(train))[:n]] = True
    return train[~held_out].reset_index(drop=True), train[held_out].reset_index(drop=True)


def _stratify(frame: pd.DataFrame, limit: int) -> pd.DataFrame:
    """`limit` rows, always the same: each label keeps its share, and in it each subcase."""
    if limit >= len(frame):
        return frame
    label = frame["label"].to_numpy()
    group = frame["subcase"].to_numpy(dtype=str) if "subcase" in frame else label
    rng = np.random.default_rng(0)
    parts = []
    values, sizes = np.unique(label, return_counts=True)
    for value, quota in zip(values, _shares(sizes, limit), strict=True):
        rows = np.flatnonzero(label == value)
        names, sizes = np.unique(group[rows], return_counts=True)
        for name, count in zip(names, _shares(sizes, quota), strict=True):
            parts.append(rng.permutation(rows[group[rows] == name])[:count])
    return frame.iloc[np.sort(np.concatenate(parts))].reset_index(drop=True)


def _shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """`total` in proportion to `sizes`, in whole numbers, by largest remainder."""
    share = sizes * total / sizes.sum()
    count: np.ndarray = np.floor(share).astype(int)
    count[np.argsort(count - share, kind="stable")[: total - count.sum()]] += 1
    return count
