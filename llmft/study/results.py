"""What a grid measured: a row a run, a row an answer, and which runs are for what.

Everything that a chapter shows is computed from these two frames.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft import UserError
from llmft.engine.spec import Spec
from llmft.nli.tasks import DOMAINS
from llmft.study import methods, store
from llmft.study.grids import Grid
from llmft.study.metrics import LOGP


ANSWER = ("key", "domain", "id", "label", *LOGP)
"""The columns of an answer that are stored; the others follow from its run and its pair."""

FIELDS = tuple(
    "method shots pattern data_seed order_seed init_seed objective selection learning_rate rank "
    "targets queries rounds temperature prefix purity mixed split context divergence teacher fresh "
    "context_share scoring".split()
)
"""The fields of a run that each of its answers carries."""

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Spec)}

LATER = [field.name for field in fields(Spec) if "later" in field.metadata]
"""The fields that older rows lack, which have their defaults."""

SEEDS = ("data_seed", "order_seed", "init_seed")
"""The fields by which the draws of one kind of run differ."""

MACHINE = ("device_name", "threads", "clock", "memory_kind")
"""What must be one for two runs' seconds and memory to be compared."""


@dataclass(frozen=True)
class Results:
    """The runs of a grid.

    `rows`: a row a run, with its `study`, `key`, the fields of its `Spec`, and its measurements.
    `predictions`: a row a run and query: `ANSWER` (domain: "in-domain", "out-of-domain",
    "content-free" or "validation"; log-probabilities in float32), study, the task's heuristic and
    subcase where it has them, the `FIELDS` of the run, and `draw`, the id of its draw of examples,
    orders and initialisation, the same for all methods ("" for zero-shot, which draws nothing).
    `groups`: the keys of the runs by the name of what they are for, and by study.
    """

    rows: pd.DataFrame
    predictions: pd.DataFrame
    groups: dict[str, dict[str, list[str]]]

    def part(self, *names: str) -> "Results":
        """The runs of these groups, in their order, with a column `group` in both frames.

        A run that is in two of them is there twice.

        Raises:
            UserError: there is no such group.
        """
        chosen = list(dict.fromkeys(names))
        for name in chosen:
            if name not in self.groups:
                raise UserError(f"no runs are for {name!r}: there are {', '.join(self.groups)}")
        members = pd.DataFrame(
            [
                (name, study, key)
                for name in chosen
                for study, keys in self.groups[name].items()
                for key in dict.fromkeys(keys)
            ],
            columns=["group", "study", "key"],
        )
        rows, answers = (
            members.merge(frame, on=[name for name in members.columns if name in frame])
            for frame in (self.rows, self.predictions)
        )
        return Results(rows, answers, {name: self.groups[name] for name in chosen})

    def has(self, name: str, study: str) -> bool:
        """Whether the study has runs of this group."""
        return study in self.groups.get(name, {})

    def answers(self) -> pd.DataFrame:
        """The predictions as they are stored, once where two studies share a run."""
        answers = self.predictions[list(ANSWER)]
        return answers.drop_duplicates(["key", "domain", "id"], ignore_index=True)

    def csv(self) -> bytes:
        """The rows as CSV, learning curves as JSON."""
        texts = self.rows.assign(curve=self.rows["curve"].map(json.dumps))
        unused = [name for name in LATER if (texts[name] == DEFAULTS[name]).all()]
        return texts.drop(columns=unused).to_csv(index=False).encode()


def loaded(
    rows: Sequence[dict[str, Any]], folder: Path, groups: dict[str, list[str]], study: str
) -> Results:
    """The results of a study's runs that the store has."""
    frame = _typed(pd.DataFrame(rows).assign(study=study))
    answers = _whole(frame, store.answers(folder, list(frame["key"])))
    return Results(frame, answers, {name: {study: keys} for name, keys in groups.items()})


def joined(parts: Sequence[Results]) -> Results:
    """The results of several studies as one."""
    names = dict.fromkeys(name for part in parts for name in part.groups)
    return Results(
        pd.concat([part.rows for part in parts], ignore_index=True),
        pd.concat([part.predictions for part in parts], ignore_index=True),
        {
            name: {k: v for part in parts for k, v in part.groups.get(name, {}).items()}
            for name in names
        },
    )


def read(files: Sequence[Path]) -> Results:
    """What `runs.run` left in CSV files and the Parquet files beside them, in no groups.

    Raises:
        UserError: a file is not there, cannot be read, or has no answers to a run of its rows.
    """
    frames, answers = [], []
    for file in files:
        try:
            rows = _typed(pd.read_csv(file))
            frames.append(rows.assign(curve=rows["curve"].map(json.loads)))
            answers.append(pd.read_parquet(file.with_suffix(".parquet"), columns=list(ANSWER)))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file} and its .parquet cannot be read ({why}): run the chapter {file.stem} "
                "first, with the same parameters"
            ) from error
        if missing := set(frames[-1]["key"]) - set(answers[-1]["key"]):
            raise UserError(f"{file}: no answers of run {min(missing)}: run its chapter again")
    rows = pd.concat(frames, ignore_index=True).drop_duplicates(["study", "key"], ignore_index=True)
    found = pd.concat(answers, ignore_index=True).drop_duplicates(["key", "domain", "id"])
    return Results(rows, _whole(rows, found), {})


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with every field of a run, each of its type, or a ValueError.

    Older rows lack those that came `later`; CSV has a gap for an empty text, and a whole number
    beside a gap was read as 1.0.
    """
    if lacking := {"key", "study", "curve", *DEFAULTS} - {*table, *LATER}:
        raise ValueError(f"no column {min(lacking)}")
    for name, default in DEFAULTS.items():
        given = table[name] if name in table else pd.Series(None, table.index, dtype=object)
        filled = given.astype(object).where(given.notna(), default).map(type(default))
        table = table.assign(**{name: filled})
    return table


def select(results: Results, grids: dict[str, Grid]) -> Results:
    """The runs of these grids, by the names of studies, with the grids' groups.

    Raises:
        UserError: a run is not among the results, or two are, of different data or weights.
    """
    names = [name for name in DEFAULTS if name != "revision"]  # resolved in rows
    parts = []
    for study, grid in grids.items():
        own = results.rows[results.rows["study"] == study]
        for key in own.loc[own.duplicated(names), "key"]:
            raise UserError(
                f"the results of {study} have two runs for one, {key} the second, of different "
                "data, weights or protocol: run its chapters again"
            )
        specs = own[names].itertuples(index=False, name=None)
        key_of = dict(zip(specs, own["key"], strict=True))
        groups: dict[str, dict[str, list[str]]] = {name: {study: []} for name in grid}
        for group, spec in [(group, spec) for group, specs in grid.items() for spec in specs]:
            key = key_of.get(attrgetter(*names)(spec))
            if key is None:
                raise UserError(
                    f"the results of {study} have no run {spec}: run its chapter with its "
                    "parameters"
                )
            groups[group][study].append(key)
        keys = {key for group in groups.values() for key in group[study]}
        rows, answers = (
            frame[(frame["study"] == study) & frame["key"].isin(keys)]
            for frame in (results.rows, results.predictions)
        )
        parts.append(Results(rows, answers, groups))
    return joined(parts)


def _whole(rows: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with what their run and their pair say of them."""
    drawn = rows[list(SEEDS)].astype(str).agg("-".join, axis=1)
    about = rows[["key", "study", *FIELDS]]
    about = about.assign(draw=drawn.where(rows["method"] != "zero-shot", ""))
    parts = []
    for _, own in rows.groupby(["task", "limit", "labels", "rows"], sort=False):
        task, limit, labels, table = own[["task", "limit", "labels", "rows"]].iloc[0]
        read = methods.task_of(task, int(limit), labels, table)
        if set(own.get("task_digest", [])) - {read.digest, read.digest_of(1.0)}:
            raise UserError(
                f"the data of task {task} is not what was measured: run its chapters again"
            )
        pairs = pd.concat([read.validation, *read.domains.values()])
        extra = [column for column in ("heuristic", "subcase") if column in pairs]
        part = answers[answers["key"].isin(own["key"])]
        part = part.merge(pairs[["id", *extra]], on="id", how="left")
        parts.append(part.merge(about.loc[own.index], on="key", how="left"))
    return pd.concat(parts, ignore_index=True)


# --- frames ------------------------------------------------------------------------------------


def by_domain(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a run and domain: columns domain, accuracy, nll, brier, ece, share_entailment, n.

    The runs' other columns are kept. A domain on which a run was not scored has no row.
    """
    stems = {domain: f"{domain.replace('-', '_')}_" for domain in DOMAINS}
    common = [name for name in rows.columns if not name.startswith(tuple(stems.values()))]
    parts = []
    for domain, stem in stems.items():
        own = {c.removeprefix(stem): rows[c] for c in rows.columns if c.startswith(stem)}
        parts.append(rows[common].assign(domain=domain, **own))
    return pd.concat([part[part["n"] > 0] for part in parts], ignore_index=True)


def curves(rows: pd.DataFrame, names: Sequence[str] = ()) -> pd.DataFrame:
    """The runs' learning curves: a row a run and measurement.

    Columns: key, the columns `names` of the rows, update, epoch, train_loss, train_accuracy,
    validation_loss, validation_accuracy (losses in nats, without dropout).
    """
    points = rows[["key", *names, "curve"]].explode("curve").dropna(subset=["curve"])
    points = points.reset_index(drop=True)
    return points.drop(columns="curve").join(pd.DataFrame(points["curve"].tolist()))


def on_one_machine(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose seconds and memory can be compared: of each study, those of one machine.

    It is the one that made the most kinds of runs, and of several the one that made the most runs:
    a grid of hours may have been spread over machines, and what another made counts for accuracy
    alone. A kind is all of a run but its seeds; one that this machine never made has no cost.
    """
    kind, machine = (
        rows.groupby(list(names), dropna=False, sort=False).ngroup().to_numpy()
        for names in ([name for name in FIELDS if name not in SEEDS], MACHINE)
    )
    chosen = np.zeros(len(rows), dtype=bool)
    for study in rows["study"].unique():
        own = (rows["study"] == study).to_numpy()
        runs = pd.Series(kind[own]).groupby(machine[own]).agg(["nunique", "size"])
        first = runs.sort_values(["nunique", "size"], ascending=False, kind="stable").index[0]
        chosen |= own & (machine == first)
    return rows[chosen]
