"""Are the published numbers still what this code measures? Some runs are done again and compared.

`data/results/verified.json` says which code the published results were last verified with, by a
hash of the modules that measure (`provenance`). Where the hash differs, `llmft check` says so, and
`llmft verify` does a random sample of the runs again and compares every prediction.
"""

import json
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft import UserError, files
from llmft.engine.spec import Spec
from llmft.params import Study
from llmft.provenance import code_digest
from llmft.study import methods, metrics, results
from llmft.study.metrics import LOGP
from llmft.study.runs import PACKAGES, PROTOCOL, key_of


SCORED = 1e-3
"""Of a method that trains nothing: the largest difference in a log-probability, nats, that counts
as the same number. Another order of additions on another machine makes 1e-5."""

EXACT = 1e-5
"""The largest difference of a row's measure from the same of its answers, which are float32."""

MOST_CHANGED = 0.02
"""Of a method that trains: the largest share of its answers that may change. Each update multiplies
the differences of the ones before it."""


def verify(
    files_: Sequence[Path], studies: Sequence[Study], sample: int, seed: int
) -> dict[str, Any]:
    """Do a random sample of published runs again, and compare every prediction.

    `files_` are the CSV files of the published results, `studies` those whose runs may be drawn.
    Returns what `verified.json` holds: the code's hash, PROTOCOL, the runs with their largest
    difference, share of changed answers and device; versions, date.

    Raises:
        UserError: no results, data or weights that are not those of a run, or a run that differs by
            more than the tolerance (after all were done; the message names the first).
    """
    published = results.read(files_)
    answers = published.predictions
    where = {study.study: study for study in studies}
    rows = published.rows[published.rows["study"].isin(list(where))]
    rows = rows.drop_duplicates("key").sort_values("key", ignore_index=True)
    if rows.empty:
        raise UserError("no published run is of these studies")
    drawn = sorted(random.Random(seed).sample(range(len(rows)), min(sample, len(rows))))
    found = []
    for number, row in enumerate(rows.iloc[drawn].to_dict("records"), 1):
        mine = (answers["key"] == row["key"]) & (answers["study"] == row["study"])
        one = _done_again(row, answers[mine], where[str(row["study"])])
        found.append(one)
        files.say(
            f"{number}/{len(drawn)} {one['run']}: largest difference {one['largest']:.2g} nats, "
            f"{one['changed']:.2%} of the answers changed"
        )
    if wrong := [one for one in found if not one["same"]]:
        raise UserError(
            f"{len(wrong)} of {len(found)} runs differ from what is published, {wrong[0]['run']} "
            f"by {wrong[0]['largest']:.2g} nats and in {wrong[0]['changed']:.2%} of its answers: "
            "if the numbers are meant to change, raise PROTOCOL in llmft/study/runs.py and run the "
            "chapters again"
        )
    return {
        "code": code_digest(),
        "protocol": PROTOCOL,
        "draws": [{"seed": seed, "runs": len(found), "of": len(rows)}],
        "runs": found,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _done_again(row: Mapping[Any, Any], before: pd.DataFrame, study: Study) -> dict[str, Any]:
    """A published run, whose answers were those `before`, done again and compared."""
    spec = Spec(**{f.name: row.get(f.name, f.default) for f in fields(Spec)})
    if key_of(spec) != row["key"]:
        raise UserError(
            f"run {spec} was published with other data, weights or another PROTOCOL than are here: "
            "run its chapter again"
        )
    _check_measures(row, before)
    again = methods.execute(spec, device=study.device, token_budget=study.token_budget)
    one = {"key": row["key"], "run": str(spec), "device": again.row["device_name"]}
    one |= compared(before, again.predictions)
    return one | {"same": _same(spec.method, one)}


def compared(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """Two runs' largest difference in a log-probability (nats), and the share of answers changed.

    Raises:
        UserError: they have not answered the same queries, or these have other labels.
    """
    both = before.merge(after, on=["domain", "id"], suffixes=("", "_again"), how="outer")
    again = both[[f"{name}_again" for name in LOGP]].to_numpy(dtype=np.float64)
    first = both[LOGP].to_numpy(dtype=np.float64)
    if np.isnan(again).any() or np.isnan(first).any():
        raise UserError("the published runs answer other queries than this code asks")
    if (both["label"] != both["label_again"]).any():
        raise UserError("the published queries have other labels than this code reads")
    return {
        "largest": float(np.abs(first - again).max()),
        "changed": float((first.argmax(axis=1) != again.argmax(axis=1)).mean()),
    }


def _check_measures(row: Mapping[Any, Any], answers: pd.DataFrame) -> None:
    """Refuse a published row whose measures are not those of its published answers."""
    for domain, part in answers[answers["domain"] != "content-free"].groupby("domain"):
        found = metrics.summary(part[LOGP].to_numpy(), part["label"].to_numpy())
        for name, value in found.items():
            column = f"{str(domain).replace('-', '_')}_{name}"
            if not abs(value - row[column]) <= EXACT:
                raise UserError(
                    f"run {row['key']}: its published {column} is {row[column]:.6f}, and by its "
                    f"published answers {value:.6f}: run its chapter again"
                )


def _same(method: str, found: dict[str, Any]) -> bool:
    if method in ("zero-shot", "icl"):
        return bool(found["largest"] <= SCORED)
    return bool(found["changed"] <= MOST_CHANGED)


def write(record: dict[str, Any], root: Path) -> Path:
    """Keep a record in `data/results/verified.json`, with those of the same code before it."""
    path = root / "data" / "results" / "verified.json"
    if path.is_file():
        before = json.loads(path.read_bytes())
        if all(before.get(name) == record[name] for name in ("code", "protocol", "versions")):
            new = {one["key"] for one in record["runs"]}
            old = [one for one in before["runs"] if one["key"] not in new]
            record = record | {
                "draws": before.get("draws", []) + record["draws"],
                "runs": old + record["runs"],
            }
    files.write(path, json.dumps(record, indent=1).encode() + b"\n")
    return path
