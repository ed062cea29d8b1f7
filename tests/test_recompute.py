"""The comparison that a reader makes in the page: its runs, its differences, its intervals."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import ROOT, params
from llmft.book import recompute
from llmft.report import stats
from llmft.study import grids
from tests import chromium, site


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js on PATH")
browser = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium on PATH, nor in $CHROMIUM: pages are not looked at"
)

PAGE = f"""<!DOCTYPE html><html lang="en"><head><title>Box</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
{recompute.HEAD}</head><body><main><h1>Box</h1>
<div class="recompute"><p>Differences, with scripts.</p></div></main></body></html>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("site")
    recompute.write(ROOT, found)
    (found / "chapters").mkdir()
    (found / "chapters" / "page.html").write_text(PAGE, encoding="utf-8")
    (found / "package.json").write_text('{"type": "module"}')  # as `<script type="module">` says
    return found


def result(chapter: str, study: str) -> pd.DataFrame:
    rows = pd.read_csv(ROOT / "data" / "results" / f"{chapter}.csv", low_memory=False)
    return rows[rows["study"] == study]


@pytest.mark.parametrize("name", params.published())
def test_the_runs_are_those_of_the_comparison(name: str) -> None:
    study = params.study(name)
    wanted = {
        (group, spec.shots, "" if group == "zero-shot" else str(spec.data_seed)): spec.record()
        for group, specs in grids.comparison(study).items()
        for spec in specs
    }
    found = {}
    for chapter in recompute.CHAPTERS:
        rows = result(chapter, name)
        keys = recompute.chosen(rows, study)
        for row in rows[rows["key"].isin(keys.keys())].to_dict("records"):
            about = keys[row["key"]]
            spec = wanted[about["method"], about["size"], about["draw"]]
            own = {column: "" if pd.isna(row[column]) else row[column] for column in spec}
            assert own == spec
            found[about["method"], about["size"], about["draw"]] = row["key"]
    measured = {method for method, _, _ in found}
    assert found.keys() == {one for one in wanted if one[0] in measured}
    assert measured >= {"zero-shot", "ICL", "full fine-tuning", "LoRA"}


def test_the_answers_are_small(folder: Path) -> None:
    assert (folder / "answers.json").stat().st_size < 1e6


CHOICES = [
    ("full fine-tuning", "ICL", 32, "in-domain"),
    ("ICL", "zero-shot", 8, "out-of-domain"),
    ("recursive distillation", "distillation", 32, "in-domain"),
]

COMPUTE = """
import { readFileSync } from "fs";
const { bootstrap, gaps } = await import("FOLDER/recompute.js");
const study = JSON.parse(readFileSync("FOLDER/answers.json")).pocket;
console.log(JSON.stringify(CHOICES.map(([a, b, size, domain]) => {
  const rows = gaps(study, a, b, size, domain);
  const of = (what) => bootstrap(rows, study.strata[domain], what);
  return { n: rows.length, draws: of("draws"), pairs: of("pairs"), both: of("both") };
})));"""


def answers(method: str, size: int, domain: str) -> pd.DataFrame:
    """The right answers of the pocket study by pandas, with the draw and the subcase of each."""
    study = params.study("pocket")
    parts = []
    for chapter in recompute.CHAPTERS:
        keys = recompute.chosen(result(chapter, "pocket"), study)
        own = {k: v for k, v in keys.items() if (v["method"], v["size"]) == (method, size)}
        table = pd.read_parquet(ROOT / "data" / "results" / f"{chapter}.parquet")
        table = table[table["key"].isin(own.keys()) & (table["domain"] == domain)]
        parts.append(table.assign(draw=table["key"].map(lambda key, own=own: own[key]["draw"])))
    found = pd.concat(parts).drop_duplicates(["key", "id"])
    hans = pd.read_csv(ROOT / "data" / "pocket" / "hans.tsv", sep="\t")
    subcases = dict(zip("hans-" + hans["pairID"], hans["subcase"], strict=True))
    said = np.where(found["logp_entailment"] > found["logp_not"], 0, 1)
    return found.assign(correct=said == found["label"], subcase=found["id"].map(subcases))


@needs_node
def test_differences_and_intervals_are_those_of_the_book(folder: Path) -> None:
    script = COMPUTE.replace("FOLDER", str(folder)).replace("CHOICES", json.dumps(CHOICES))
    done = subprocess.run(
        ["node", "--input-type=module", "-"], input=script, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for (a, b, size, domain), found in zip(CHOICES, json.loads(done.stdout), strict=True):
        first, second = (
            stats.sample(answers(method, 0 if method == "zero-shot" else size, domain))
            for method in (a, b)
        )
        wanted = stats.difference(first, second)
        assert found["n"] == wanted.draws == 10
        for what in ("draws", "pairs", "both"):
            assert found[what]["mean"] == pytest.approx(wanted.mean, abs=1e-9)
        check(found, wanted)


def check(found: dict[str, Any], wanted: stats.Interval) -> None:
    """The resampled interval is the two-way one, but for Student's t and the noise."""
    width = {what: found[what]["high"] - found[what]["low"] for what in ("draws", "pairs", "both")}
    normal = 2 * 1.96 * wanted.se
    assert 0.85 * normal < width["both"] < 1.25 * normal
    # Each side alone is less than both, but for the chance of the resamples.
    assert max(width["draws"], width["pairs"]) < 1.1 * width["both"]
    assert found["both"]["low"] == pytest.approx(wanted.lo, abs=0.02)
    assert found["both"]["high"] == pytest.approx(wanted.hi, abs=0.02)


CHOOSE = """(async () => {
  const all = (name) => [...document.querySelectorAll(`.recompute ${name}`)];
  const wait = () => new Promise((done) => setTimeout(done, 100));
  for (let i = 0; i < 100 && !all("select").length; i++) await wait();
  const said = () => document.querySelector("#rc-output").textContent;
  const choose = (id, value) => {
    const select = document.querySelector(`#rc-${id}`);
    select.value = value;
    select.dispatchEvent(new Event("change"));
  };
  const begun = said();
  choose("study", "smollm2");
  const real = said();
  choose("study", "pocket");
  choose("first", "distillation");
  choose("domain", "out-of-domain");
  choose("what", "pairs");
  const sizes = [...document.querySelector("#rc-size").options].map((o) => o.value);
  const distilled = said();
  choose("second", "distillation");
  const labels = all("label").map((label) => label.control.id);
  return { begun, real, sizes, distilled, same: said(), labels };
})()"""


@browser
def test_a_reader_chooses_two_methods(folder: Path) -> None:
    with site.served(folder) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/page.html", 390, "dark")
        found = tab.run(CHOOSE)
        assert tab.run(site.SCRIPT)["wrong"] == []
        assert site._events(tab, address) == []
    assert "10 × 400 (draws × pairs), 2,000 resamples of draws and pairs." in found["begun"]
    assert "10 × 400 (draws × pairs), 2,000 resamples of draws and pairs." in found["real"]
    assert found["sizes"] == ["32"]
    assert found["distilled"].endswith("10 × 1,200 (draws × pairs), 2,000 resamples of pairs.")
    assert found["same"].startswith("0.00 [0.00,\N{NO-BREAK SPACE}0.00]")
    assert len(found["labels"]) == 6
