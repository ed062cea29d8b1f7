"""NLI tasks: what is learnt from, what is reported on, and how few-shot samples are drawn.

A task has a training pool (demonstrations, few-shot samples), a validation set that comes from the
training data and never from what is reported, and two test domains: in-domain (as MultiNLI's
matched set, Williams et al. 2018) and out-of-domain (as HANS, McCoy et al. 2019, where word overlap
says nothing), which a user's own task may lack. The pocket world, the real data and a user's folder
come through the same parsers (`sources.py`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llmft import ROOT, UserError
from llmft.sources import (
    GLUE,
    HANS_SHA256,
    SUFFIXES,
    find,
    from_hans,
    from_mnli,
    glue_mnli,
    hans_file,
    labels_in,
    meanings,
    read,
)


DOMAINS = ("in-domain", "out-of-domain")
"""The names of the two reported domains, in the order of every table."""

LABELS = ("entailment", "not entailment")
"""The names of labels 0 and 1."""

VALIDATION = 2_000
"""Training pairs set aside for validation where a task brings no validation file of its own."""


@dataclass(frozen=True)
class Task:
    """Four frames with the columns `id`, `premise`, `hypothesis`, `label` (0 or 1).

    They have `heuristic` and `subcase`, too, where their source has them. `out_of_domain` has no
    rows where the task has no such set. Ids are unique in a task. `digest` is a SHA-256 (16 hex
    digits) of the source files or pinned revisions, and of what the labels were said to mean.
    """

    name: str
    train: pd.DataFrame
    validation: pd.DataFrame
    in_domain: pd.DataFrame
    out_of_domain: pd.DataFrame
    digest: str

    @property
    def domains(self) -> dict[str, pd.DataFrame]:
        """The reported test sets by name, in the order of `DOMAINS`, without one that is empty."""
        sets = dict(zip(DOMAINS, (self.in_domain, self.out_of_domain), strict=True))
        return {name: frame for name, frame in sets.items() if len(frame)}


def load(name: str, *, limit: int = 0, seed: int = 0, labels: str = "") -> Task:
    """The task `name`: "pocket", "mnli-hans", or a folder.

    A folder holds `train` and `test`, and may hold `validation` and `out-of-domain` (or `hans`),
    each as .csv, .tsv, .jsonl, .jsonl.gz or .parquet with MNLI's columns (premise, hypothesis,
    label) or HANS's (sentence1, sentence2, gold_label), and `heuristic` and `subcase` if it likes.

    Args:
        name: the task.
        limit: test examples kept in each domain, 0 = all; stratified by label and subcase.
        seed: draws which examples `limit` keeps.
        labels: what the labels mean, where they are other words or should mean something else
            (`sources.meanings`): in all files of a folder, and in MNLI of mnli-hans.

    Raises:
        UserError: an unknown task, a missing or damaged file, no network where one is needed.
    """
    if limit < 0:
        raise UserError(f"limit is {limit}: give a number of examples, or 0 for all")
    if name == "mnli-hans":
        task = _mnli_hans(labels)
    else:
        folder = ROOT / "data" / "pocket" if name == "pocket" else Path(name).expanduser()
        if not name or not folder.is_dir():
            raise UserError(
                f"unknown task {name!r}: use pocket, mnli-hans, or a folder with train and test "
                "files"
            )
        task = _from_folder(name, folder, labels)
    ids = pd.concat([task.train.id, task.validation.id, task.in_domain.id, task.out_of_domain.id])
    if not ids.is_unique:
        raise UserError(
            f"task {name}: the id {ids[ids.duplicated()].iloc[0]!r} appears twice: make ids "
            "unique, or remove the column"
        )
    if not limit:
        return task
    return Task(
        task.name,
        task.train,
        task.validation,
        _stratified(task.in_domain, limit, seed),
        _stratified(task.out_of_domain, limit, seed),
        task.digest,
    )


def sample(pool: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """`n` examples of `pool`, half of each label, in random order, without replacement.

    Samples of one seed are nested as sets: the 8 of seed 3 contain the 4 of seed 3. So along a
    curve over shots each draw only gains examples, and neighbouring points are paired; the order
    is shuffled anew for each `n`. The same numbers come out on every platform (PCG64).

    Raises:
        UserError: `n` is negative, odd, or more than the pool can balance.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 or n % 2:
        raise UserError(f"cannot draw {n} examples: give an even number, half for each label")
    rng = np.random.default_rng([seed, 0])
    label = pool["label"].to_numpy()
    chosen = []
    for value in range(len(LABELS)):
        having = np.flatnonzero(label == value)
        if len(having) < n // 2:
            raise UserError(
                f"cannot draw {n} examples: the pool has {len(having)} of label {LABELS[value]!r}"
            )
        chosen.append(rng.permutation(having)[: n // 2])
    order = np.random.default_rng([seed, 1, n]).permutation(n)
    return pool.iloc[np.concatenate(chosen)[order]].reset_index(drop=True)


def _mnli_hans(labels: str) -> Task:
    hans = from_hans(read(hans_file()))
    _all_there(labels, {"0", "1", "2"}, "mnli-hans")
    train, matched = glue_mnli(labels)
    kept, validation = _split(train)
    sources = f"{GLUE} {HANS_SHA256} {VALIDATION} {labels}"
    digest = hashlib.sha256(sources.encode()).hexdigest()[:16]
    return Task("mnli-hans", kept, validation, matched, hans, digest)


def _from_folder(name: str, folder: Path, labels: str) -> Task:
    paths = {
        part: find(folder, names)
        for part, names in {
            "train": ("train",),
            "validation": ("validation",),
            "test": ("test",),
            "out-of-domain": ("hans", "out-of-domain"),
        }.items()
    }
    for part in ("train", "test"):
        if paths[part] is None:
            raise UserError(f"task {name}: {folder} has no {part} file ({', '.join(SUFFIXES)})")
    # Only a mapping that was given is in the digest.
    digest, found = hashlib.sha256(labels.encode()), set()
    frames = {}
    for part, path in paths.items():
        if path is None:
            continue
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        frame = read(path)
        frames[part] = from_mnli(frame, path.name.split(".")[0], labels)
        found |= set(labels_in(frame, path.name))
        if frames[part].empty:
            raise UserError(f"{path} has no examples: fill it or remove it")
    _all_there(labels, found, name)
    if "validation" not in frames:
        frames["train"], frames["validation"] = _split(frames["train"])
        if frames["validation"].empty:
            raise UserError(
                f"{paths['train']} has too few examples to set some aside: add a validation file"
            )
    return Task(
        name,
        frames["train"],
        frames["validation"],
        frames["test"],
        frames.get("out-of-domain", frames["test"].iloc[:0]),
        digest.hexdigest()[:16],
    )


def _all_there(labels: str, found: set[str], name: str) -> None:
    """Refuse a misspelt label: what was meant would keep its usual meaning without a word."""
    if unused := meanings(labels).keys() - meanings().keys() - found:
        raise UserError(f"labels = {labels!r}: task {name} has no label {sorted(unused)[0]!r}")


def _split(train: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training pool and validation set: a fixed draw, at most a tenth of the pairs."""
    n = min(VALIDATION, len(train) // 10)
    held_out = np.zeros(len(train), dtype=bool)
    held_out[np.random.default_rng(0).permutation(len(train))[:n]] = True
    return train[~held_out].reset_index(drop=True), train[held_out].reset_index(drop=True)


def _stratified(frame: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """`limit` rows in file order: each label and subcase keeps its share, by largest remainder."""
    if limit >= len(frame):
        return frame
    by = ["label", "subcase"] if "subcase" in frame else ["label"]
    strata = [np.asarray(rows) for _, rows in sorted(frame.groupby(by).indices.items())]
    share = np.array([len(rows) for rows in strata]) * limit / len(frame)
    count = np.floor(share).astype(int)
    count[np.argsort(count - share, kind="stable")[: limit - count.sum()]] += 1
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(rows)[:k] for rows, k in zip(strata, count, strict=True)]
    return frame.iloc[np.sort(np.concatenate(kept))].reset_index(drop=True)
