"""The comparison that a reader makes in the page: its differences and their intervals."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.book import live
from llmft.report import sections, stats
from llmft.report.chapters import comparison
from tests import chromium, site


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js on PATH")
browser = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium on PATH, nor in $CHROMIUM: pages are not looked at"
)

PAGE = """<!DOCTYPE html><html lang="en"><head><title>Box</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
</head><body><main><h1>Box</h1>
<div class="recompute"><p>Differences, with scripts.</p></div></main></body></html>"""

PAIRS = {"in-domain": 120, "out-of-domain": 160}


def answers() -> pd.DataFrame:
    """Two studies' answers: pairs are harder or easier, draws better or worse."""
    rng = np.random.default_rng(0)
    parts = []
    for domain, n in PAIRS.items():
        number = np.arange(n)
        pairs = pd.DataFrame({"id": [f"{domain} {i}" for i in number], "label": number % 2})
        if domain == "out-of-domain":
            pairs["subcase"] = [f"subcase {i % 4}" for i in number]
        for method, size in (("zero-shot", 0), ("ICL", 8), ("ICL", 32), ("distillation", 32)):
            ease = rng.normal(size=n)
            for draw in range(10 if size else 1):
                better = 0.4 * rng.normal() + size / 40
                about = {"draw": f"{draw}-0-0" if size else "", "domain": domain, "shots": size}
                right = (ease + better + 0.3 * rng.normal(size=n) > 0).astype(float)
                parts.append(pairs.assign(method=method, correct=right, **about))
    whole = pd.concat([*parts, *(part.assign(method=comparison.CUES) for part in parts[:1])])
    return pd.concat([whole.assign(study=name) for name in ("pocket", "smollm2")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, found = tmp_path_factory.mktemp("book"), tmp_path_factory.mktemp("site")
    (root / "data").mkdir()
    study = params.study("pocket", {"store": str(root / "data" / "results")})
    comparison.keep_answers(answers(), [study])
    (found / "chapters").mkdir()
    page = PAGE.replace("</head>", f"{live.boxes(PAGE, root, found)}</head>")
    (found / "chapters" / "page.html").write_text(page, encoding="utf-8")
    (found / "package.json").write_text('{"type": "module"}')  # as `<script type="module">` says
    return found


def test_a_page_without_answers_stays_as_it_is(tmp_path: Path) -> None:
    assert live.boxes(PAGE, tmp_path, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


CHOICES = [
    ("distillation", "ICL", 32, "in-domain"),
    ("distillation", "ICL", 32, "out-of-domain"),
    ("ICL", "zero-shot", 8, "out-of-domain"),
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


@needs_node
def test_differences_and_intervals_are_those_of_the_book(folder: Path) -> None:
    script = COMPUTE.replace("FOLDER", str(folder)).replace("CHOICES", json.dumps(CHOICES))
    done = subprocess.run(
        ["node", "--input-type=module", "-"], input=script, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for (a, b, size, domain), found in zip(CHOICES, json.loads(done.stdout), strict=True):
        own = answers()
        first, second = (
            {"study": "pocket", "method": m, "shots": size * (m != "zero-shot"), "domain": domain}
            for m in (a, b)
        )
        wanted = sections.difference(own, first, second)
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
    assert found["both"]["low"] == pytest.approx(wanted.lo, abs=0.6 * wanted.se)
    assert found["both"]["high"] == pytest.approx(wanted.hi, abs=0.6 * wanted.se)


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
    assert "10 × 120 (draws × pairs), 2,000 resamples of draws and pairs." in found["begun"]
    assert "10 × 120 (draws × pairs), 2,000 resamples of draws and pairs." in found["real"]
    assert found["sizes"] == ["32"]
    assert found["distilled"].endswith("10 × 160 (draws × pairs), 2,000 resamples of pairs.")
    assert found["same"].startswith("0.00 [0.00,\N{NO-BREAK SPACE}0.00]")
    assert len(found["labels"]) == 6
