"""The pocket model in a page: its files, its log-probabilities in a browser, and what it shows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from llmft import ROOT, params
from llmft.book import live
from llmft.nli import prompts, tasks
from llmft.report import sections
from tests import chromium, site


browser = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium on PATH, nor in $CHROMIUM: pages are not looked at"
)

PAGE = f"""<!DOCTYPE html><html lang="en"><head><title>Live</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
{live.HEAD}</head><body><main><h1>Live</h1>
<div class="pocket-model"><p>A model, with scripts.</p></div></main></body></html>"""

READ = """(async () => {
  const { load, encode, read, nothing } = await import("../model.js");
  const model = await load("../pocket/model"), { Yes, No } = model.vocabulary;
  const past = {};
  return CASES.map(({ head, tail }) => {
    const begin = [model.vocabulary["</s>"]];
    if (head) past[head] ??= read(model, [...begin, ...encode(model, head)]).past;
    const ids = encode(model, tail);
    const { logp } = head ? read(model, ids, past[head]) : read(model, [...begin, ...ids]);
    const log = Math.log(Math.exp(logp[Yes]) + Math.exp(logp[No]));
    return [logp[Yes] - log, logp[No] - log];
  });
})()"""

USE = """(async () => {
  const wait = async (until) => {
    for (let i = 0; i < 600 && !until(); i++) await new Promise((done) => setTimeout(done, 100));
  };
  const all = (name) => [...document.querySelectorAll(`.pocket-model ${name}`)];
  const button = (text) => all("button").find((one) => one.textContent.includes(text));
  const answers = () => all(".pm-row").map((row) => row.innerText.replace("\\n", ": "));
  const before = all("input").length;
  button("Run").click();
  await wait(() => all(".pm-row").length);
  const [premise, hypothesis] = all("input");
  const write = (place, text) => {
    place.value = text;
    place.dispatchEvent(new Event("input"));
  };
  write(premise, "The poet met the doctor.");
  write(hypothesis, "The poet met the doctor.");
  const plain = answers();
  button("Put “never”").click();
  const negated = [hypothesis.value, ...answers()];
  button("Take “never”").click();
  const again = [hypothesis.value, ...answers()];
  button("Flip all labels").click();
  const turned = answers();
  write(hypothesis, "The cat met the doctor.");
  const unknown = document.querySelector(".pm-unknown").textContent;
  return { before, plain, negated, again, turned, unknown, active: document.activeElement.id };
})()"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("site")
    live.write(ROOT, found)
    (found / "chapters").mkdir()
    (found / "chapters" / "page.html").write_text(PAGE, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[chromium.Tab]:
    with site.served(folder) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/page.html")
        yield tab


def test_the_site_gets_less_than_three_megabytes_with_pairs_of_both_labels(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 3e6
    pairs = json.loads((folder / "pocket" / "pairs.json").read_text())
    assert set(pairs) == {"train", "in-domain", "out-of-domain"}
    for some in pairs.values():
        assert {pair["entailed"] for pair in some} == {True, False}
    # As many demonstrations of each label as a reader can ask for.
    assert min(pd.DataFrame(pairs["train"])["entailed"].value_counts()) >= 16


def cases() -> list[dict[str, object]]:
    """Some pairs of both domains, zero-shot and with demonstrations, and the frozen answers."""
    study = params.study("pocket")
    task, pattern = sections.task_of(study), prompts.pattern_named(study.pattern)
    rows = pd.read_csv(ROOT / "data" / "results" / "icl.csv")
    answers = pd.read_parquet(ROOT / "data" / "results" / "icl.parquet").set_index("key")
    found = []
    for shots, count in ((0, 30), (8, 15), (32, 5)):
        own = sections.rows_at(
            rows, study="pocket", split="test", pattern=study.pattern, shots=shots, data_seed=0,
            order_seed=0,
        )  # fmt: skip
        shown = tasks.sample(task.train, shots, 0) if shots else None
        head = prompts.context(pattern, shown)
        for domain, pairs in task.domains.items():
            frozen = answers.loc[own["key"].item()]
            frozen = frozen[frozen["domain"] == domain].set_index("id")
            for pair in pairs.head(count).itertuples():
                text = pattern.fill(pair.premise, pair.hypothesis)
                tail = pattern.separator + text if head else text
                logp = frozen.loc[pair.id, ["logp_entailment", "logp_not"]].tolist()
                found.append({"head": head, "tail": tail, "frozen": logp})
    return found


@browser
def test_the_browser_reads_prompts_as_the_engine_does(page: chromium.Tab) -> None:
    wanted = cases()
    assert len(wanted) == 100
    found = page.run(READ.replace("CASES", json.dumps(wanted)))
    gaps = [
        abs(a - b)
        for case, own in zip(wanted, found, strict=True)
        for a, b in zip(case["frozen"], own, strict=True)  # type: ignore[call-overload]
    ]
    assert max(gaps) < 1e-3


@browser
def test_a_reader_writes_negates_and_flips_labels(page: chromium.Tab) -> None:
    found = page.run(USE)
    assert found["before"] == 0  # nothing is loaded before it is asked for
    assert [line.split(":")[0] for line in found["plain"]] == [
        "zero-shot",
        "after 8 demonstrations",
        "the rule “No if exactly one sentence has never”",
    ]
    assert found["plain"][2].endswith("Yes")
    assert found["negated"][0] == "The poet never met the doctor."
    assert found["negated"][3].endswith("No")
    assert found["again"] == ["The poet met the doctor.", *found["plain"]]
    assert found["turned"][0] == found["plain"][0]
    assert found["turned"][1] != found["plain"][1]
    assert found["unknown"] == "The pocket model has never seen: cat."
    assert found["active"] == "pm-premise"
