"""A comparison that the reader makes in the page: the right and wrong answers, as bits.

A page asks for it with `<div class="recompute">`, which holds what stands there without scripts.
The box is `recompute.js`. Which runs are compared is what the comparison chapter says
(`grids.comparison`; the tests hold them to be the same), read here from the results' own columns,
because the pages are made without any model.
"""

import base64
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft import params
from llmft.book import stamp


if TYPE_CHECKING:
    import pandas as pd


MARK = 'class="recompute"'
"""What a page has where the box goes."""

HEAD = """<link rel="stylesheet" href="../live.css">
<script type="module" src="../recompute.js"></script>
"""
"""What such a page, in a folder of the site, loads."""

CHAPTERS = ("icl", "few-shot", "lora", "context-distillation")
"""The chapters whose results are compared."""

DOMAINS = ("in-domain", "out-of-domain")


def write(root: Path, folder: Path) -> None:
    """Put the script, and the answers of the comparison's studies, into the site.

    Args:
        root: the book's folder, with `data/results` and `params`.
        folder: the site's.
    """
    for name in ("recompute.js", "live.css"):
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    notebook = stamp.read(root / "chapters" / "comparison.ipynb")
    values = {name: value for name, value in stamp.parameters(notebook).items() if value}
    names = params.studies_named(values.pop("studies", []))
    found = {name: answers(root, params.study(name, values, root)) for name in names}
    text = json.dumps({name: one for name, one in found.items() if one["runs"]})
    (folder / "answers.json").write_text(text, encoding="utf-8")


def answers(root: Path, study: params.Study) -> dict[str, Any]:
    """What the compared runs of a study got right.

    `strata` has, by domain, a number for each pair: pairs of one label and subcase share it.
    `runs` has, of each run, its method, number of labelled examples (`size`), draw ("" where
    nothing was drawn), and by domain a bit a pair in base64: 1 is right, first bits first.
    """
    import pandas as pd  # here, as the commands that render nothing begin faster without

    order: dict[str, pd.DataFrame] = {}
    runs: dict[str, dict[str, Any]] = {}
    for chapter in CHAPTERS:
        file = root / "data" / "results" / f"{chapter}.csv"
        if not file.is_file():
            continue
        rows = pd.read_csv(file, low_memory=False)
        keys = chosen(rows[rows["study"] == study.study], study)
        new = list(keys.keys() - runs.keys())  # some runs stand in two chapters
        if not new:
            continue
        wanted = [("key", "in", new), ("domain", "in", DOMAINS)]
        table = pd.read_parquet(file.with_suffix(".parquet"), filters=wanted)
        entailed = table["logp_entailment"] > table["logp_not"]
        table["right"] = entailed == (table["label"] == 0)
        for (key, domain), own in table.groupby(["key", "domain"], sort=False):
            pairs = own.set_index("id")
            first = order.setdefault(str(domain), pairs)
            about = runs.setdefault(str(key), keys[str(key)])
            about[str(domain)] = _bits(pairs.loc[first.index, "right"].to_list())
    strata = {domain: _strata(root, study, pairs) for domain, pairs in order.items()}
    return {"strata": strata, "runs": list(runs.values())}


def chosen(rows: "pd.DataFrame", study: params.Study) -> dict[str, dict[str, Any]]:
    """The key of each run that is compared, with its method, size and draw."""
    common = {"pattern": study.pattern, "limit": study.limit, "split": "test", "order_seed": 0}
    trained = {"init_seed": 0, "objective": study.objective, "selection": study.selection}
    distilled = {
        "method": "distillation",
        "shots": [study.context_shots],
        "learning_rate": study.distill_learning_rate,
        "objective": study.distill_objective,
        "queries": study.queries[len(study.queries) // 2],
        "temperature": study.temperature,
        "rank": 0,
        "init_seed": 0,
    }
    wanted: dict[str, dict[str, Any]] = {
        "zero-shot": {"method": "zero-shot"},
        "ICL": {"method": "icl", "shots": study.shots, "context": ""},
        "full fine-tuning": trained
        | {
            "method": "fine-tuning",
            "shots": study.train_shots,
            "learning_rate": study.learning_rate,
        },
        "LoRA": trained
        | {
            "method": "lora",
            "shots": study.train_shots,
            "learning_rate": study.lora_learning_rate,
            "rank": study.lora_rank,
            "alpha": study.lora_alpha,
            "targets": study.lora_targets,
        },
        "distillation": distilled | {"rounds": 1},
        "recursive distillation": distilled | {"rounds": study.rounds},
    }
    rows = rows.astype({"context": object, "targets": object})
    rows = rows.fillna({"context": "", "targets": ""})
    found = {}
    for name, fields in wanted.items():
        own = rows
        for column, value in (common | fields).items():
            own = own[own[column].isin(value if isinstance(value, list) else [value])]
        for key, size, seed in zip(own["key"], own["shots"], own["data_seed"], strict=True):
            draw = "" if name == "zero-shot" else str(seed)
            found[str(key)] = {"method": name, "size": int(size), "draw": draw}
    return found


def _strata(root: Path, study: params.Study, pairs: "pd.DataFrame") -> list[int]:
    """Of each pair the number of its stratum: its label, and its subcase where it has one."""
    import pandas as pd

    if study.task == "pocket":
        table = pd.read_csv(root / "data" / "pocket" / "hans.tsv", sep="\t")
        table = table.rename(columns={"pairID": "pair"})
    elif study.rows:
        table = pd.read_csv(study.rows)
    else:
        table = pd.DataFrame(columns=["pair", "subcase"])
    named = table.dropna(subset=["pair"]).assign(id=lambda t: "hans-" + t["pair"].astype(str))
    subcases = dict(zip(named["id"], named["subcase"], strict=True))
    groups = [f"{label} {subcases.get(pair)}" for pair, label in pairs["label"].items()]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


def _bits(values: list[bool]) -> str:
    """Eight values a byte, the first in the highest bit, in base64."""
    text = "".join("01"[value] for value in values).ljust(-(-len(values) // 8) * 8, "0")
    octets = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    return base64.b64encode(octets).decode()
