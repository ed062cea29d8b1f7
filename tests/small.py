"""Runs on a tiny model and task, shared by the tests of grids and of their results."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft.engine.spec import Spec
from llmft.study import runs
from llmft.study.results import Results


PEOPLE = ["doctor", "lawyer", "judge", "artist", "senator", "actor"]

LORA: dict[str, Any] = {
    "method": "lora",
    "learning_rate": 1e-2,
    "updates": 3,
    "batch_size": 2,
    "objective": "label words",
    "selection": "last",
    "rank": 2,
    "alpha": 4.0,
    "targets": "q_proj,v_proj",
}
FINE_TUNING = LORA | {"method": "fine-tuning", "rank": 0, "alpha": 0.0, "targets": ""}
BITFIT = FINE_TUNING | {"method": "bitfit"}
DISTILLATION = LORA | {
    "method": "distillation",
    "objective": "query",
    "queries": 4,
    "rounds": 1,
    "temperature": 1.0,
}
ZERO_SHOT: dict[str, Any] = {"method": "zero-shot", "shots": 0}

MEASURED = [
    "in_domain_accuracy",
    "in_domain_nll",
    "in_domain_ece",
    "out_of_domain_accuracy",
    "out_of_domain_nll",
    "content_free_p_entailment",
    "prefix_tokens",
]
"""Columns of a row that are the same wherever a run is done."""


def pairs(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        a, b = rng.choice(PEOPLE, 2, replace=False)
        label = i % 2
        rows.append(
            {
                "premise": f"The {a} saw the {b} {'in ' * (seed + i)}.",
                "hypothesis": f"The {b} ran ." if label else f"The {a} saw the {b} .",
                "label": 2 * label,
                "idx": i,
            }
        )
    return pd.DataFrame(rows)


def write_task(folder: Path) -> Path:
    """24 pairs to train on, 6 to validate on, 10 in-domain, 8 out-of-domain of two subcases."""
    pairs(24, 1).to_csv(folder / "train.csv", index=False)
    pairs(6, 2).to_csv(folder / "validation.csv", index=False)
    pairs(10, 3).to_csv(folder / "test.csv", index=False)
    hans = pairs(8, 4).rename(
        columns={"premise": "sentence1", "hypothesis": "sentence2", "idx": "pairID"}
    )
    hans = hans.assign(
        gold_label=hans["label"].map({0: "entailment", 2: "non-entailment"}),
        heuristic="lexical_overlap",
        subcase=["swap", "passive"] * 4,
    )
    hans.drop(columns="label").to_csv(folder / "hans.tsv", sep="\t", index=False)
    return folder


QUERIES = 10 + 8 + 3
"""What a run is asked: both domains, and the content-free queries."""


def run(grid: list[Spec] | dict[str, list[Spec]], store: Path, **options: Any) -> Results:
    return runs.run_grid(grid, **{"store": store, "device": "cpu"} | options)


def stored(store: Path) -> dict[str, int]:
    """The finished runs and when each was written."""
    return {p.stem: p.stat().st_mtime_ns for p in (store / "records").glob("*.json")}
