"""Every chapter, from first cell to last, on `params/smoke.yaml` into a temporary folder."""

import re
import subprocess
import sys
from pathlib import Path

import papermill
import pytest

from llmft import ROOT, book, gate, params, stamp


CHAPTERS = gate.chapters()


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all chapters, as the book has."""
    return tmp_path_factory.mktemp("store")


def smoke(chapter: Path, store: Path, out: Path) -> Path:
    """The chapter, run on tiny parameters into `out`; first those whose results it reads."""
    declared = book.declared(chapter)
    values = {name: str(store) for name in ("store", "results") if name in declared}
    if "results" in declared:
        for file in stamp.data_digests(stamp.read(chapter), chapter.stem, ROOT):
            other = ROOT / "chapters" / f"{Path(file).stem}.ipynb"
            if other.is_file() and not (store / f"{other.stem}.csv").is_file():
                smoke(other, store, out)
    return book.run(chapter.stem, file=ROOT / "params/smoke.yaml", values=values, out=out)


def test_runs_on_smoke_parameters(chapter: Path, store: Path, tmp_path: Path) -> None:
    frozen = chapter.read_bytes()
    made = smoke(chapter, store, tmp_path)
    assert chapter.read_bytes() == frozen
    wrong = [p.what for p in gate.check_chapter(made)]
    assert [w for w in wrong if "smoke" not in w and "params/pocket.yaml" not in w] == [
        # Its results are beside it, not in data/results/.
        w
        for w in wrong
        if w.startswith("stale: data/results/")
    ]
    for cell in stamp.code_cells(stamp.read(made)):
        assert cell["execution_count"]


def test_help_lists_every_parameter(chapter: Path) -> None:
    declared = book.declared(chapter)
    found = papermill.inspect_notebook(str(chapter))
    assert list(found) == list(declared)
    for name, about in found.items():
        assert about["help"].strip(), f"{name} has no help"
        assert about["inferred_type_name"] not in ("", "None"), f"{name} has no type"
        assert declared[name] == getattr(params.Params(), name)


def test_help_notebook(chapter: Path) -> None:
    command = [sys.executable, "-m", "papermill", "--help-notebook", str(chapter)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for name in book.declared(chapter):
        assert re.search(rf"\b{name}:", done.stdout)


def test_commands_in_the_text_would_work(chapter: Path) -> None:
    """The lines that tell how to run the chapter again name real parameters and files."""
    prose = "\n".join(
        stamp.text(c["source"])
        for c in stamp.read(chapter)["cells"]
        if c["cell_type"] == "markdown"
    )
    commands = re.findall(r"(?m)^\s*papermill (\S+\.ipynb) .*$", prose)
    assert f"chapters/{chapter.name}" in commands, "a chapter says how to run it again"
    for line in re.findall(r"(?m)^\s*(papermill .*|llmft run .*)$", prose):
        for name in re.findall(r"-p (\w+)[ =]", line):
            assert name in book.declared(chapter), line
        for file in re.findall(r"(?:-f|--params) (\S+)", line):
            assert params.load(ROOT / file), line
