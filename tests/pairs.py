"""Small tables of sentence pairs in MNLI's and HANS's columns, and files of every format."""

import csv
import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from llmft.nli.selection import ROWS_FILE
from llmft.nli.sources import parse


def chooser() -> Any:
    """The module beside the published rows that chose them."""
    spec: Any = importlib.util.spec_from_file_location("choose", ROWS_FILE.with_name("choose.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mnli(n: int, source: str = "p") -> pd.DataFrame:
    """`n` rows in MNLI's columns, labels 0, 1, 2 in turn."""
    return pd.DataFrame(
        {
            "premise": [f"{source}{i}" for i in range(n)],
            "hypothesis": [f"h{i}" for i in range(n)],
            "label": [i % 3 for i in range(n)],
            "idx": range(n),
        }
    )


def hans(n: int) -> pd.DataFrame:
    """`n` rows in HANS's columns: three subcases of unequal size."""
    return pd.DataFrame(
        {
            "gold_label": [("entailment", "non-entailment")[i % 2] for i in range(n)],
            "sentence1": [f"s{i}" for i in range(n)],
            "sentence2": [f"t{i}" for i in range(n)],
            "pairID": [f"ex{i}" for i in range(n)],
            "heuristic": "lexical_overlap",
            "subcase": [("a", "b", "b", "c", "c", "c")[i % 6] for i in range(n)],
            "template": "temp1",
        }
    )


def pairs_of(frame: pd.DataFrame, source: str = "mnli", labels: str = "") -> pd.DataFrame:
    """The pairs of a table, without what its labels were taken to mean."""
    return parse(frame, source, labels)[0]


Row = dict[str, Any]


def delimited(rows: list[Row], path: Path) -> None:
    """CSV or TSV as a spreadsheet writes it: quotes where they are needed, none for None."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]], delimiter="," if path.suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)


def json_lines(rows: list[Row], path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)


FORMATS: dict[str, Callable[[list[Row], Path], None]] = {
    ".csv": delimited,
    ".tsv": delimited,
    ".jsonl": json_lines,
    ".jsonl.gz": json_lines,
    ".parquet": lambda rows, path: pd.DataFrame(rows).to_parquet(path, index=False),
}
"""How the rows of a table are written in each format."""
