"""Every chapter, from first cell to last, once a study, into a temporary folder.

Once on `params/smoke.yaml`, as `make book` would, once on two studies with models and data of a
user's own, and some of them once on real pairs. The chapters share a store, and read what the
others left in it, so one worker executes them all, in one kernel, which starts afresh but for the
libraries.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import papermill
import pytest
import yaml
from filelock import FileLock
from transformers import AutoTokenizer

from llmft import ROOT, params
from llmft.book import freeze, gate, stamp
from llmft.engine import models
from llmft.nli.sources import read

from .conftest import SHARED
from .kernel import one_kernel
from .tiny import small_opt


CHAPTERS = gate.chapters()


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def kernel() -> Iterator[None]:
    """One kernel for the chapters of this worker."""
    with one_kernel():
        yield


def run(chapter: Path, values: dict[str, object], folder: Path) -> Path:
    """The chapter with these parameters, into `folder`; first those whose results it reads.

    The folder is a study's: the chapters' notebooks and results, and in `runs` their store.
    """
    known = stamp.declared(stamp.read(chapter))
    values = {"studies": ["smoke"], "store": str(folder / "runs"), "results": str(folder)} | values
    if "results" in known:
        code = "".join(map(stamp.code, stamp.code_cells(stamp.read(chapter))))
        for name in re.findall(r'"data/results/([\w-]+)\.csv"', code):
            if not (folder / f"{name}.csv").is_file():
                run(freeze.chapter_path(name), values, folder)
    mine = {name: value for name, value in values.items() if name in known}
    # A chapter without a store of its own runs in the book's, one at a time.
    turn = nullcontext() if "store" in known else FileLock(ROOT / "runs" / ".tests.lock")
    (ROOT / "runs").mkdir(exist_ok=True)
    with turn:
        return freeze.run(chapter.stem, values=mine, out=folder)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pocket world with few pairs: no parameter limits the validation pairs that are asked."""
    folder = tmp_path_factory.mktemp("few")
    for name, rows in (("train", 200), ("validation", 16), ("test", 100)):
        pairs = pd.read_csv(models.POCKET.parent / f"{name}.csv")
        pairs.head(rows).to_csv(folder / f"{name}.csv", index=False)
    hans = pd.read_csv(models.POCKET.parent / "hans.tsv", sep="\t")
    hans.groupby("subcase").head(10).to_csv(folder / "hans.tsv", sep="\t", index=False)
    return str(folder)


@pytest.mark.usefixtures("kernel")
def test_runs_on_smoke_parameters(chapter: Path, smoke: Path, few: str) -> None:
    frozen = chapter.read_bytes()
    made = run(
        chapter, {"task": few} if "repeats" in stamp.declared(stamp.read(chapter)) else {}, smoke
    )
    assert chapter.read_bytes() == frozen
    wrong = [p.what for p in gate.check_chapter(made)]
    # Tiny, on few pairs from elsewhere, from the test's store, and its results are beside it.
    expected = ("was run with ", "stale: data/results/", f"stale: {few}/", f"stale: {smoke}/")
    assert [what for what in wrong if not what.startswith(expected)] == []
    for cell in stamp.code_cells(stamp.read(made)):
        assert cell["execution_count"]


TINY = {
    "shots": [4],
    "train_shots": [4],
    "updates": 2,
    "limit": 16,
    "distill_updates": 2,
    "queries": [4, 6],
    "search_draws": 1,
    "tried_rates": [1.0],
    "without": ["recursion, *, slow"],  # the same arms at another rate
}
"""Smaller than smoke, but with all kinds of runs: enough for each cell to have what it shows."""


def studies_of(models: list[str], values: dict[str, object], folder: Path) -> list[str]:
    """A parameter file for each model: what is not said is smoke's."""
    smoke = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
    files = []
    for model in models:
        files.append(str(folder / f"{Path(model).name}.yaml"))
        text = yaml.safe_dump(smoke | TINY | values | {"model": model})
        Path(files[-1]).write_text(text)
    return files


def two_opt(source: Path, vocabulary: int, make: pytest.TempPathFactory) -> list[str]:
    """Two random OPT with a tokenizer: "before" is pre-norm as opt-125m, "after" as opt-350m."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    folders = []
    for name, changes in (
        ("before", {}),
        ("after", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    ):
        folder = make.mktemp(name)
        model = small_opt(vocab_size=vocabulary, max_position_embeddings=2048, **changes)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two that read the pocket world's words."""
    vocabulary = len(AutoTokenizer.from_pretrained(models.POCKET))
    return two_opt(models.POCKET, vocabulary, tmp_path_factory)


@pytest.fixture(scope="module")
def own_task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's folder: no out-of-domain set, no validation file, labels of its own."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("train", "test"):
        pairs = pd.read_csv(ROOT / "data" / "pocket" / f"{name}.csv").head(400)
        pairs["label"] = pairs["label"].map({0: "e", 2: "c"})
        pairs.loc[::7, "label"] = "?"
        pairs.to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    return str(folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own-out")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One that reads OPT's tokens: shaped as opt-350m, which is the odd one."""
    return two_opt(SHARED / "opt" / "tokenizer", 50_272, tmp_path_factory)[1:]


def shown_by(chapter: Path, values: dict[str, object], folder: Path) -> dict[str, str]:
    """What a chapter run with these parameters shows, by label; "" is all that has none."""
    shown = {"": ""}
    made = run(chapter, values, folder)
    assert not [p.what for p in gate.check_chapter(made) if p.what.startswith("hollow")]
    for cell in stamp.code_cells(stamp.read(made)):
        name = re.search(r"(?m)^#\| label: ((?:fig|tbl)-\S+)", cell["source"])
        data = [output.get("data", {}) for output in cell["outputs"]]
        text = "\n".join(d.get("image/svg+xml", d.get("text/markdown", "")) for d in data)
        label = name[1] if name else ""
        shown[label] = shown.get(label, "") + text
    return shown


def of_a_task(chapter: Path) -> Path:
    """The chapter, if what it shows is of the task and the model that it is given."""
    own = chapter.stem in ("bugs", "checkpoints", "earlier-study", "pocket", "rules")
    if own or "repeats" not in stamp.declared(stamp.read(chapter)):
        pytest.skip("about one world or one study")
    return chapter


EARLIER = "fig-comparison-earlier"
"""What the earlier study published, whatever is shown beside it."""

IDEAS = tuple(f"fig-{name}-idea" for name in ("icl", "lora", "distillation", "recursion"))
OF_THE_TASK = ("tbl-icl-baselines", "fig-data", "tbl-data", EARLIER, *IDEAS)
"""Figures and tables of the task or of an idea, not of a study."""


def all_are_shown(names: list[str], shown: dict[str, str]) -> None:
    """Each of a chapter's figures and tables shows every study."""
    for label, text in shown.items():
        if label and not label.startswith(OF_THE_TASK):
            assert [name for name in names if Path(name).name not in text] == [], label


@pytest.mark.usefixtures("kernel")
def test_own_models_and_data(
    chapter: Path, tiny_models: list[str], own_task: str, own: Path
) -> None:
    """Two models, and a task with labels of its own and without an out-of-domain set."""
    values: dict[str, object] = {
        "task": own_task,
        "labels": "e: entailment, ?: drop, c: not entailment",
    }
    studies = studies_of(tiny_models, values, own)
    shown = shown_by(of_a_task(chapter), {"studies": studies}, own)
    all_are_shown(tiny_models, shown)
    text = "".join(part for label, part in shown.items() if label != EARLIER)
    assert "This task has no out-of-domain set" in text
    assert "ut-of-domain" not in text.replace("This task has no out-of-domain set", "")


@pytest.fixture(scope="module")
def real_task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few hundred pairs of MultiNLI, and HANS's in its own columns.

    What is taught is short, and little of it: a teacher's words are 50,272 numbers a token.
    """
    folder = tmp_path_factory.mktemp("mnli-hans")
    first, asked = (
        pd.read_json(
            SHARED / "data" / "mnli" / f"{name}.jsonl.gz", lines=True, dtype=False, nrows=rows
        )
        for name, rows in (("train", 900), ("validation", 100))
    )
    short = first[first["premise"].str.len() < 40]
    for name, pairs in (("train", short[12:]), ("validation", short[:12]), ("test", asked)):
        pairs.to_parquet(folder / f"{name}.parquet")
    hans = read(SHARED / "data" / "hans" / "heuristics_evaluation_set.txt.gz")
    hans.groupby("subcase").head(2).to_csv(folder / "hans.tsv", sep="\t", index=False)
    return str(folder)


@pytest.mark.usefixtures("shared", "kernel")
@pytest.mark.parametrize("name", ["data", "icl", "few-shot", "context-distillation"])
def test_real_pairs_and_the_real_tokenizer(
    name: str, request: pytest.FixtureRequest, real: Path
) -> None:
    """MultiNLI and HANS through OPT's tokenizer: shown, scored, trained on, distilled from.

    The other chapters do no more with a text.
    """
    model = request.getfixturevalue("real_model")
    values: dict[str, object] = {
        "task": request.getfixturevalue("real_task"),
        "pattern": "gpt-3",
        "limit": 40,
        "queries": [2, 3],
        "distill_objective": "vocabulary",  # and the chapter compares it with the others
    }
    studies = studies_of(model, values, real)
    shown = shown_by(freeze.chapter_path(name), {"studies": studies}, real)
    assert "out-of-domain" in "".join(shown.values())


def test_help_lists_every_parameter(chapter: Path) -> None:
    declared = stamp.declared(stamp.read(chapter))
    found = papermill.inspect_notebook(str(chapter))
    assert list(found) == list(declared)
    for name, about in found.items():
        assert about["help"].strip(), f"{name} has no help"
        assert about["inferred_type_name"] not in ("", "None"), f"{name} has no type"
        assert declared[name] is None or name == "studies"
        assert name == "studies" or name in params.Study.model_fields


def test_the_commands_of_the_text_find_papermill() -> None:
    command = [sys.executable, "-m", "papermill", "--help-notebook", str(CHAPTERS[0])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(f"{name}:" in done.stdout for name in stamp.declared(stamp.read(CHAPTERS[0])))


def test_commands_in_the_text_would_work(chapter: Path) -> None:
    """The lines that tell how to run the chapter again name real parameters and files."""
    prose = "\n".join(
        c["source"] for c in stamp.read(chapter)["cells"] if c["cell_type"] == "markdown"
    )
    commands = re.findall(r"(?m)^\s*papermill (\S+\.ipynb) .*$", prose)
    assert f"chapters/{chapter.name}" in commands, "a chapter says how to run it again"
    for line in re.findall(r"(?m)^\s*(papermill .*|llmft run .*)$", prose):
        for name in re.findall(r"-p (\w+)[ =]", line):
            assert name in stamp.declared(stamp.read(chapter)), line
        for names in re.findall(r"-p studies[ =]\"?(\[[^\]]*\]|\w+)", line):
            assert [params.study(name) for name in params.studies_named(names)], line
