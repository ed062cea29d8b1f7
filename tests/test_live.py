"""The pocket model in a page: its files, its log-probabilities in a browser, and what it shows."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import load_file

from llmft import ROOT, cli, params
from llmft.book import live
from llmft.engine import models, scoring
from llmft.nli import prompts, tasks
from llmft.pocket import students
from llmft.report import sections, theme
from llmft.study import runs
from llmft.study.metrics import LOGP
from tests import chromium, site


browser = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium on PATH, nor in $CHROMIUM: pages are not looked at"
)

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js on PATH")


def html(classes: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en"><head><title>Live</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
</head><body><main><h1>Live</h1>
<div class="{classes}"><p>A model, with scripts.</p></div></main></body></html>"""


READ = """(async () => {
  const { load, encode, read, student } = await import("SITE/model.js");
  const start = await load("ADDRESS/pocket/model"), { Yes, No } = start.vocabulary;
  const model = "FILE" ? await student(start, "ADDRESS/pocket/students/FILE") : start;
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
    (found / "chapters").mkdir()
    for name, classes in (("page", "pocket-model"), ("students", "pocket-model students")):
        page = html(classes)
        page = page.replace("</head>", f"{live.boxes(page, ROOT, found)}</head>")
        (found / "chapters" / f"{name}.html").write_text(page, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[chromium.Tab]:
    with site.served(folder) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/page.html")
        yield tab


def test_the_site_gets_less_than_three_megabytes_with_pairs_of_both_labels(folder: Path) -> None:
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    own = {file for file in sizes if file.parent.name == "students"}
    assert sum(sizes[file] for file in sizes.keys() - own) < 3e6
    assert len(own) == 3
    assert sum(sizes[file] for file in own) < 2.4e6
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
                text = pattern.fill(str(pair.premise), str(pair.hypothesis))
                tail = pattern.separator + text if head else text
                logp = frozen.loc[pair.id, ["logp_entailment", "logp_not"]].tolist()
                found.append({"head": head, "tail": tail, "frozen": logp})
    return found


def by_node(folder: Path, script: str) -> object:
    """The value of a script that the site's own JavaScript runs with, outside a browser."""
    with site.served(folder) as address:
        text = script.replace("SITE", str(folder)).replace("ADDRESS/", address)
        command = ["node", "--input-type=module", "-"]
        done = subprocess.run(
            command,
            input=f"console.log(JSON.stringify(await {text}))",
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def gaps(wanted: list[dict[str, object]], found: object) -> list[float]:
    assert isinstance(found, list)
    return [
        abs(a - b)
        for case, own in zip(wanted, found, strict=True)
        for a, b in zip(case["frozen"], own, strict=True)  # type: ignore[call-overload]
    ]


@browser
def test_the_browser_reads_prompts_as_the_engine_does(page: chromium.Tab) -> None:
    wanted = cases()
    assert len(wanted) == 100
    script = READ.replace("SITE", "..").replace("ADDRESS", "..").replace("FILE", "")
    found = page.run(script.replace("CASES", json.dumps(wanted)))
    assert max(gaps(wanted, found)) < 1e-3


@needs_node
def test_node_reads_prompts_as_the_engine_does(folder: Path) -> None:
    (folder / "package.json").write_text('{"type": "module"}')  # as `<script type="module">` says
    wanted = cases()
    found = by_node(folder, READ.replace("FILE", "").replace("CASES", json.dumps(wanted)))
    assert max(gaps(wanted, found)) < 1e-3


# --- the students -------------------------------------------------------------------------------


def published(key: str, count: int) -> list[dict[str, object]]:
    """A student's published answers to the first pairs of each domain."""
    file = ROOT / "data" / "results" / "context-distillation.parquet"
    answers = pd.read_parquet(file, filters=[("key", "==", key)]).set_index(["domain", "id"])
    study = params.study("pocket")
    task, pattern = sections.task_of(study), prompts.pattern_named(study.pattern)
    return [
        {
            "head": "",
            "tail": pattern.fill(str(pair.premise), str(pair.hypothesis)),
            "frozen": answers.loc[[(domain, str(pair.id))], LOGP].to_numpy()[0].tolist(),
        }
        for domain, pairs in task.domains.items()
        for pair in pairs.head(count).itertuples()
    ]


def kept() -> list[dict[str, object]]:
    """What is kept of each student."""
    about = json.loads((ROOT / "data" / "students" / "students.json").read_text())
    return list(about["students"])


def test_the_students_are_those_of_published_runs_with_their_context() -> None:
    rows = pd.read_csv(ROOT / "data" / "results" / "context-distillation.csv", low_memory=False)
    keys = {spec.rounds: runs.key_of(spec) for spec in students.specs().values()}
    assert keys == {one["round"]: one["key"] for one in kept()}
    assert set(keys.values()) <= set(rows["key"])
    about = json.loads((ROOT / "data" / "students" / "students.json").read_text())
    assert about["demonstrations"] == students.context()
    assert len(about["demonstrations"]) == params.study("pocket").context_shots


@needs_node
@pytest.mark.parametrize("number", [0, 1])
def test_a_student_of_the_page_gives_the_published_answers(folder: Path, number: int) -> None:
    own = kept()[number]
    wanted = published(str(own["key"]), 100)
    (folder / "package.json").write_text('{"type": "module"}')
    script = READ.replace("FILE", str(own["file"])).replace("CASES", json.dumps(wanted))
    found = by_node(folder, script)
    # The run was done again on another processor, which moves trained weights a little.
    assert np.mean(gaps(wanted, found)) < 0.015
    said = np.array(found).argmax(1) != np.array([case["frozen"] for case in wanted]).argmax(1)
    assert said.mean() <= 0.01


@pytest.mark.slow
def test_the_command_makes_a_published_student_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one round: three take three times as long, and the answers of both are tested above."""
    one = {"round-1": students.specs()["round-1"]}
    monkeypatch.setattr(students, "specs", lambda: one)
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.setattr(cli.gate, "listed", list)
    done = CliRunner().invoke(cli.cli, ["pocket", "--students"])
    assert done.exit_code == 0, done.output
    model = models.load("pocket", device="cpu")
    start = load_file(models.POCKET / "model.safetensors")
    begin, labels = (
        model.tokenizer.bos_token_id,
        prompts.label_tokens(model.tokenizer, prompts.pattern_named("minimal")),
    )
    for own in kept()[:1]:
        with safe_open(tmp_path / "data" / "students" / str(own["file"]), "np") as file:
            scales = file.metadata()
            numbers = {name: file.get_tensor(name) for name in scales}
        weights = students.added(start, numbers, scales)
        state = {name: torch.tensor(values) for name, values in weights.items()}
        model.model.load_state_dict(state, strict=False)
        wanted = published(str(own["key"]), 100)
        ids = [[begin, *model.tokenizer.encode(case["tail"])] for case in wanted]
        ids = [one[1:] if one[1] == begin else one for one in ids]
        found = scoring.score(model.model, ids, labels).numpy()
        assert np.mean(gaps(wanted, found.tolist())) < 0.015


def test_eight_bits_move_a_students_answers_by_less_than_a_hundredth() -> None:
    model = models.load("pocket", device="cpu")
    start = load_file(models.POCKET / "model.safetensors")
    generator = np.random.default_rng(0)
    end = {
        name: values + generator.normal(0, 0.1 * values.std() + 1e-4, values.shape)
        for name, values in start.items()
    }
    numbers, scales = students.difference(start, end)
    task, pattern = sections.task_of(params.study("pocket")), prompts.pattern_named("minimal")
    pairs = task.domains["in-domain"].head(200)
    ids = prompts.encode(model.tokenizer, pattern, pairs, pairs.iloc[:0], model.max_positions)
    labels = prompts.label_tokens(model.tokenizer, pattern)
    answers = []
    for weights in (end, students.added(start, numbers, scales)):
        state = {
            name: torch.tensor(values, dtype=torch.float32) for name, values in weights.items()
        }
        model.model.load_state_dict(state, strict=False)
        answers.append(scoring.score(model.model, ids, labels).numpy())
    assert np.abs(answers[0] - answers[1]).max() < 0.01


def test_a_students_file_is_read_as_it_was_written() -> None:
    for own in kept():
        with safe_open(ROOT / "data" / "students" / str(own["file"]), "np") as file:
            assert set(file.metadata()) == set(file.keys())
            assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"int8"}  # noqa: SIM118


def test_a_method_has_the_colour_of_the_figures() -> None:
    css = Path(live.__file__).with_name("live.css").read_text()
    found = dict(re.findall(r'data-method="([^"]+)"\] { background: (#\w+)', css))
    names = ["zero-shot", "ICL", "distillation", "recursive distillation"]
    wanted = {name: look[0].lower() for name, look in zip(names, theme.looks(names), strict=True)}
    assert found == wanted


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


ASK = """(async () => {
  const wait = async (until) => {
    for (let i = 0; i < 600 && !until(); i++) await new Promise((done) => setTimeout(done, 100));
  };
  const all = (name) => [...document.querySelectorAll(`.pocket-model ${name}`)];
  const answers = () => all(".pm-row").map((row) => row.innerText.replace("\\n", ": "));
  all("button")[0].click();
  await wait(() => all(".pm-row").length);
  const first = answers();
  all("button").find((one) => one.textContent === "Flip all labels").click();
  const turned = answers();
  all("button").find((one) => one.textContent.includes("first demonstrations again")).click();
  return { first, turned, again: answers(), demonstrations: all(".pm-list li").length };
})()"""


@browser
def test_students_answer_beside_the_model_and_keep_what_they_were_taught(folder: Path) -> None:
    with site.served(folder) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/students.html", 390, "dark")
        found = tab.run(ASK)
        assert tab.run(site.SCRIPT)["wrong"] == []
        assert site._events(tab, address) == []
    names = ["zero-shot", "after 32 demonstrations", "distilled", "recursive, round 3"]
    assert [line.split(":")[0] for line in found["first"][:4]] == names
    changed = [a != b for a, b in zip(found["first"], found["turned"], strict=True)]
    assert changed[:4] == [False, True, False, False]
    assert found["again"] == found["first"]
    assert found["demonstrations"] == 32


def press(tab: chromium.Tab, key: str, code: int, text: str = "") -> None:
    """Press and release a key."""
    about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
    tab.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
    tab.send("Input.dispatchKeyEvent", type="keyUp", **about)


@browser
def test_the_model_is_used_by_the_keyboard_alone(folder: Path) -> None:
    words = "document.activeElement.textContent"
    with site.served(folder) as address, chromium.tab() as tab:
        tab.show(f"{address}chapters/page.html")
        press(tab, "Tab", 9)
        assert tab.run(words).startswith("Run the pocket model here")
        press(tab, "Enter", 13, "\r")
        tab.settle(1)
        assert tab.run("document.activeElement.id") == "pm-premise"
        before = tab.run("document.querySelector('#pm-hypothesis').value")
        for name in ("pm-hypothesis", ""):
            press(tab, "Tab", 9)
            assert tab.run("document.activeElement.id") == name
        assert "“never”" in tab.run(words)
        press(tab, " ", 32, " ")
        after = tab.run("document.querySelector('#pm-hypothesis').value")
        assert ("never" in before) != ("never" in after)
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert tab.run(outline) == "solid"
