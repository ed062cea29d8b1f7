import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llmft import ROOT, UserError, params
from llmft.book import freeze, gate, stamp
from tests import toy_book
from tests.toy_book import cell, read, write


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen book; tests work on copies."""
    root = tmp_path_factory.mktemp("frozen") / "book {1}"  # papermill formats paths with braces
    toy_book.make(root)
    freeze.run("toy", root=root)
    return root


@pytest.fixture
def root(frozen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(frozen, tmp_path / "book"))


def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "chapters" / "toy.ipynb"
    notebook = read(path)
    change(notebook)
    write(path, notebook)


def problems(root: Path) -> str:
    return "\n".join(map(str, gate.check(root)))


def everything(root: Path) -> dict[str, bytes]:
    """The bytes of all that is frozen."""
    files = [*(root / "chapters").glob("[!.]*"), *(root / "data").rglob("*")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files if file.is_file()}


# Freezing


def test_frozen_chapter_passes_and_is_clean(root: Path) -> None:
    assert problems(root) == ""
    notebook = read(root / "chapters" / "toy.ipynb")
    assert set(notebook["metadata"]) == {"kernelspec", "language_info", "llmft"}
    assert all(set(c["metadata"]) <= {"tags"} for c in notebook["cells"])
    assert len(notebook["cells"]) == 5, "the defaults need no injected cell"
    assert "progress" not in str(notebook["cells"][4]["outputs"])
    made = notebook["metadata"]["llmft"]
    assert made["parameters"] == {
        "studies": ["pocket"],
        "shots": None,
        "repeats": None,
        "store": None,
    }
    assert set(made["modules"]) == {"llmft/__init__.py", "llmft/params.py"}
    assert set(made["data"]) == {"data/pocket/test.csv", "params/pocket.yaml"}
    assert set(made["results"]) == {"data/results/toy.csv", "data/results/toy.svg"}
    assert made["versions"]["torch"]
    assert made["device"]
    assert made["seconds"] > 0
    assert (root / "data/results/toy.csv").read_text() == "repeats\n10\n"
    assert freeze.is_current(root / "chapters" / "toy.ipynb", root)


def test_the_book_s_studies_are_injected_hidden_and_forgotten(root: Path, tmp_path: Path) -> None:
    (root / "params" / "book.yaml").write_text("studies: [smoke]\n")
    assert "was run with studies = ['pocket']; the published book has ['smoke']" in problems(root)
    freeze.run("toy", root=root)
    notebook = read(root / "chapters" / "toy.ipynb")
    injected = notebook["cells"][2]
    assert injected["id"] == "injected-parameters"
    assert injected["metadata"]["tags"] == ["injected-parameters", "remove-cell"]
    assert not "".join(injected["source"]).endswith("\n")  # the linter reads chapters, too
    assert "| 2 | 6 |" in str(notebook["cells"][5]["outputs"])
    assert set(notebook["metadata"]["llmft"]["data"]) >= {"params/smoke.yaml", "params/pocket.yaml"}
    assert problems(root) == ""
    # The injected cell must not stick: the next run is the pocket study's again.
    (root / "params" / "book.yaml").write_text("studies: [pocket]\n")
    freeze.run("toy", root=root)
    assert problems(root) == ""
    assert (root / "data/results/toy.csv").read_text() == "repeats\n10\n"


def test_a_changed_parameter_file_makes_its_chapters_stale(root: Path) -> None:
    with (root / "params" / "smoke.yaml").open("a") as file:
        file.write("# of no chapter\n")
    assert problems(root) == ""
    with (root / "params" / "pocket.yaml").open("a") as file:
        file.write("# of this one\n")
    assert "stale: params/pocket.yaml changed after the run" in problems(root)


def test_results_are_this_run_s_own(root: Path) -> None:
    """Another run of the chapter with the same store leaves its results there meanwhile."""
    other = "from pathlib import Path\n\nPath('runs/toy.csv').write_text('repeats\\n2\\n')"
    (root / "runs").mkdir()
    edit(root, lambda n: n["cells"].append(cell("code", other)))
    freeze.run("toy", root=root)
    assert (root / "data/results/toy.csv").read_text() == "repeats\n10\n"
    assert (root / "runs/toy.csv").read_text() == "repeats\n2\n"
    assert not (root / "chapters/.toy.run").exists()
    assert problems(root) == ""


def test_what_the_kernel_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(params.COLLECT, "before")
    with freeze._environment(root, 5):
        assert (os.environ[params.COLLECT], os.environ[params.SINCE]) == (str(root), "5")
    assert os.environ[params.COLLECT] == "before"
    assert params.SINCE not in os.environ


def test_code_beside_the_book_is_not_executed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_up = tmp_path / "ipython" / "profile_default" / "startup"
    start_up.mkdir(parents=True)
    (start_up / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (root / "colorsys.py").write_text("raise ValueError('not Python's own')")
    edit(root, lambda n: n["cells"].append(cell("code", "import colorsys")))
    freeze.run("toy", root=root)
    assert problems(root) == "colorsys.py: could be imported in place of a package: remove it"
    assert not (tmp_path / "ran").exists()


def test_another_folder_leaves_the_frozen_book(root: Path, tmp_path: Path) -> None:
    before = everything(root)
    out = tmp_path / "out"
    values = {"studies": "smoke", "shots": "[2, 8]", "store": str(tmp_path / "store")}
    made = freeze.run("toy", values=values, out=out, root=root)
    assert made == out / "toy.ipynb"
    assert (out / "toy.csv").read_text() == "repeats\n2\n"
    assert "| 2 | 10 |" in made.read_text()
    assert everything(root) == before
    # Nor may it be moved into the book by hand.
    shutil.copyfile(made, root / "chapters" / "toy.ipynb")
    assert "was run with studies = ['smoke']" in problems(root)


def test_a_run_elsewhere_is_current_until_something_changes(root: Path, tmp_path: Path) -> None:
    path, out, own = root / "chapters" / "toy.ipynb", tmp_path / "out", tmp_path / "own.yaml"
    data = tmp_path / "data" / "train.csv"
    data.parent.mkdir()
    data.write_text("premise\n")
    own.write_text(f"repeats: 3\ntask: {data.parent}\n")
    values = {"studies": str(own)}

    def current(**more: object) -> bool:
        return freeze.is_current(path, root, values={**values, **more}, out=out)

    assert not current()
    freeze.run("toy", values=values, out=out, root=root)
    assert current()
    assert current(repeats="3") is False
    changes = {
        own: "repeats: 4\n",
        data: "premise\nmore\n",
        out / "toy.csv": "repeats\n99\n",
        out / "toy.ipynb": "{",
        path: path.read_text().replace("Mail me", "Write to me"),
        root / "llmft" / "params.py": (root / "llmft/params.py").read_text() + "x = 1\n",
    }
    for file, text in changes.items():
        before = file.read_text()
        file.write_text(text)
        assert not current(), file
        file.write_text(before)
    assert current()
    with pytest.raises(UserError, match="the book's own: choose another"):
        freeze.is_current(path, root, values=values, out=root / "chapters")


# Failing: one line, and everything as it was


def test_an_author_s_draft_is_just_not_run(root: Path) -> None:
    toy_book.make(root / "draft")
    found = [str(problem) for problem in gate.check(root / "draft")]
    assert "toy: was never run: it has no stamp" in found
    assert not [line for line in found if "hollow" in line]


@pytest.mark.parametrize("code", ["%time from llmft import other", "x = !ls", "import ("])
def test_a_cell_that_cannot_be_read_is_refused_before_it_runs(root: Path, code: str) -> None:
    edit(root, lambda n: n["cells"].append(cell("code", code)))
    assert "is not plain Python" in problems(root)
    before = everything(root)
    with pytest.raises(UserError, match="is not plain Python: write it without magics"):
        freeze.run("toy", root=root)
    assert everything(root) == before


def test_a_read_only_checkout_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(freeze, "FileLock", refuse)
    with pytest.raises(UserError, match=r"Read-only file system; --out FOLDER"):
        freeze.run("toy", root=root)


def test_a_chapter_that_raises(root: Path) -> None:
    edit(root, lambda n: n["cells"].insert(4, cell("code", "raise ValueError('two\\nlines')")))
    before = everything(root)
    with pytest.raises(UserError) as caught:
        freeze.run("toy", root=root)
    assert "ValueError: two lines" in str(caught.value)
    assert "code cell 4" in str(caught.value)
    failed = root / "runs" / "toy.failed.ipynb"
    assert str(failed) in str(caught.value)
    assert "ValueError" in failed.read_text()
    assert "\n" not in str(caught.value)
    assert everything(root) == before


def test_a_chapter_that_kills_its_kernel(root: Path) -> None:
    edit(root, lambda n: n["cells"].insert(2, cell("code", "import os\n\nos._exit(9)")))
    before = everything(root)
    with pytest.raises(UserError, match="kernel died"):
        freeze.run("toy", root=root)
    assert everything(root) == before


def test_a_chapter_that_stops_early_is_hollow(root: Path) -> None:
    """papermill takes `SystemExit` for success: the gate does not."""
    edit(root, lambda n: n["cells"].insert(4, cell("code", "raise SystemExit(0)")))
    freeze.run("toy", root=root)
    assert "error output" in problems(root) or "hollow" in problems(root)


def test_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(notebook: stamp.Notebook, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    before = everything(root)
    monkeypatch.setattr(stamp, "write", refuse)
    with pytest.raises(UserError, match="disk is full"):
        freeze.run("toy", root=root)
    assert everything(root) == before


def test_one_run_of_a_chapter_at_a_time(root: Path) -> None:
    with (
        FileLock(root / "chapters" / ".toy.lock"),
        pytest.raises(UserError, match="another process"),
    ):
        freeze.run("toy", root=root)
    out = root / "out"
    assert freeze.run("toy", values={"store": str(out)}, out=out, root=root) == out / "toy.ipynb"


def test_killed_while_running(root: Path) -> None:
    path = root / "chapters" / "toy.ipynb"
    edit(root, lambda n: n["cells"].insert(3, cell("code", "import time\n\ntime.sleep(60)")))
    before = everything(root)
    script = (
        "from pathlib import Path; from llmft.book import freeze; "
        f"freeze.run('toy', root=Path({str(root)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    running = root / "chapters" / ".toy.run" / "running.ipynb"
    deadline = time.monotonic() + 60
    while not (running.exists() and '"completed"' in running.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert everything(root) == before
    edit(root, lambda n: n["cells"].pop(3))
    freeze.run("toy", root=root)  # the lock went with the process
    assert problems(root) == ""
    assert not running.parent.exists()
    assert path.exists()


def test_killed_between_the_moves(root: Path) -> None:
    """The results of the next run have come, its notebook has not."""
    (root / "data/results/toy.csv").write_text("repeats\n11\n")
    assert "data/results/toy.csv edited by hand or half written" in problems(root)
    assert not freeze.is_current(root / "chapters" / "toy.ipynb", root)


# The gate: what was changed after the run


def test_prose_and_captions_may_be_edited(root: Path) -> None:
    def change(notebook: dict[str, Any]) -> None:
        notebook["cells"][0]["source"] = toy_book.TITLE + "\n\nMore prose."
        source = "".join(notebook["cells"][3]["source"])
        notebook["cells"][3]["source"] = source.replace("A line.", "A better caption.")

    edit(root, change)
    assert problems(root) == ""


def test_a_changed_module_is_named(root: Path) -> None:
    with (root / "llmft" / "params.py").open("a") as file:
        file.write("# a comment, which changes nothing\n")
    assert problems(root) == ""
    with (root / "llmft" / "params.py").open("a") as file:
        file.write("x = 1\n")
    assert "stale: llmft/params.py changed after the run" in problems(root)


def test_a_module_that_the_chapter_does_not_use(root: Path) -> None:
    (root / "llmft" / "other.py").write_text("x = 2\n")
    assert problems(root) == ""


def test_changed_and_new_data(root: Path) -> None:
    (root / "data/pocket/test.csv").write_text("premise\nmore\n")
    (root / "data/pocket/new.csv").write_text("")
    assert "data/pocket/new.csv, data/pocket/test.csv changed" in problems(root)


@pytest.mark.parametrize(
    "code",
    [
        *("import os", "repeats = 1 + 1", "repeats, seed = 3, 4", "secret = 3", "repeats += 1"),
        *("%ls", "repeats: __import__('os').getpid() = 3"),  # an annotation is evaluated
    ],
)
def test_an_injected_cell_does_nothing_but_inject(root: Path, code: str) -> None:
    extra = cell("code", code, tags=["injected-parameters"]) | {"execution_count": 5}
    edit(root, lambda n: n["cells"].append(extra))
    found = problems(root)
    assert re.search("is not `NAME = VALUE`|is not plain Python|is not a parameter", found)
    freeze.run("toy", root=root)  # which puts it right
    assert problems(root) == ""


def test_the_book_s_parameters_are_complete(root: Path) -> None:
    file = root / "params" / "pocket.yaml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith("repeats:")))
    found = problems(root)
    assert "params: parameter repeats is missing: how many seeds a point" in found
    assert "toy: parameter repeats is missing" in found


def test_a_stray_file_among_the_results(root: Path) -> None:
    (root / "data/results/icl.csv").write_text("")
    assert problems(root) == "data/results/icl.csv: is not the result of a chapter's run"


@pytest.mark.parametrize("number", ["0.93", ".93", "93 %", "36 times"])
def test_a_number_typed_into_a_page(root: Path, number: str) -> None:
    text = (
        root / "index.qmd"
    ).read_text() + "\n`0.5` [a](b-1.5.html) {.y-1.5} 95 % OPT-1.3b 80 % power 0.1.0\n"
    (root / "index.qmd").write_text(text)
    assert problems(root) == ""
    (root / "index.qmd").write_text(f"{text}It is right {number} of them.\n")
    assert f"index.qmd: has the number {number}, typed" in problems(root)


def test_a_page_hides_nothing(root: Path) -> None:
    text = (root / "index.qmd").read_text()
    (root / "index.qmd").write_text(
        f"{text}\n<!-- a whole comment -->\n\n::: {{.content-hidden}}\n"
    )
    assert "index.qmd: has `content-hidden`" in problems(root)


def test_dependencies_are_followed(tmp_path: Path) -> None:
    """Through another module, relatively, inside a function and a package, and round a circle."""
    package = tmp_path / "llmft"
    (package / "pocket").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "a.py": "def f():\n    from . import b\n",
        "b.py": "import llmft.pocket.deep\nfrom llmft.a import f\n",
        "pocket/__init__.py": "",
        "pocket/deep.py": "from .near import x\nfrom ..c import y\n",
        "pocket/near.py": "x = 1\n",
        "c.py": "y = 2\n",
        "unused.py": "",
    }
    for name, source in files.items():
        (package / name).write_text(source)
    notebook = {"cells": [cell("code", "import os\nfrom llmft import a")]}
    found = stamp.module_digests(notebook, tmp_path)
    assert set(found) == {f"llmft/{name}" for name in files if name != "unused.py"}


def test_data_named_in_the_code_and_by_the_studies(tmp_path: Path) -> None:
    for name in (
        "book/data/prior/runs.csv",
        "book/data/prior/.hidden",
        "book/data/results/icl.csv",
        "book/data/results/toy.csv",
        "book/data/pocket/test.csv",
        "book/params/opt.yaml",
        "book/params/smoke.yaml",
        "out/icl.csv",
        "out/toy.csv",
        "mine/train.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    shutil.copyfile(ROOT / "params/pocket.yaml", tmp_path / "book/params/pocket.yaml")
    code = 'a = ROOT / "data/prior"\nb = "data/results/"\nc = "params/opt.yaml"'

    def found(given: str) -> set[str]:
        declares = cell("code", 'studies: list[str] = ["pocket"]' + given, tags=["parameters"])
        notebook = {"cells": [declares, cell("code", code)]}
        return {*stamp.data_digests(notebook, "toy", tmp_path / "book")}

    usual = {"data/prior/runs.csv", "params/opt.yaml", "params/pocket.yaml"}
    pocket, own = {"data/pocket/test.csv"}, f"{tmp_path}/mine"
    assert found("") == usual | pocket | {"data/results/icl.csv"}
    results = f"\nresults: str = {str(tmp_path / 'out')!r}"
    assert found(results) == usual | pocket | {f"{tmp_path}/out/icl.csv"}
    task = f"{results}\ntask: str = {own!r}"
    assert found(task) == usual | pocket | {f"{tmp_path}/out/icl.csv", f"{own}/train.csv"}
    assert "data/pocket/test.csv" not in found(f"{task}\nmodel: str = 'org/name'")


# The gate: how a chapter must be


def mutate_source(index: int, old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        source = "".join(notebook["cells"][index]["source"])
        assert old in source
        notebook["cells"][index]["source"] = source.replace(old, new)

    return change


def add_output(**output: Any) -> Callable[[dict[str, Any]], None]:
    return lambda notebook: notebook["cells"][2]["outputs"].append(output)


def shows(**data: str) -> Callable[[dict[str, Any]], None]:
    named = {name.replace("_", "/"): value for name, value in data.items()}
    return add_output(output_type="display_data", metadata={}, data=named)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: n["cells"][4].update(source="p  # edited"), "a code cell was changed"),
        (lambda n: n["cells"][4]["outputs"][0].update(data={}), "its outputs were edited"),
        (lambda n: n["metadata"]["llmft"].update(parameters={"repeats": 3}), "not those of its"),
        (mutate_source(0, "# A toy {#sec-toy}", "# A toy"), "# Title {#sec-name}"),
        (mutate_source(0, "@tbl-runs", "@tbl-run"), "@tbl-run refers to nothing"),
        (mutate_source(0, "@tbl-runs", "@smith2020"), "@smith2020 is not in references.bib"),
        (mutate_source(0, "@tbl-runs", "the table"), "nothing refers to @tbl-runs"),
        (mutate_source(4, "@eq-a", "@eq-b"), "@eq-b refers to nothing"),
        (mutate_source(3, "#| fig-cap: A line.\n", ""), "no `#| fig-cap:`"),
        (mutate_source(3, "#| fig-alt: A diagonal line.\n", ""), "no `#| fig-alt:`"),
        (mutate_source(4, "#| tbl-cap: Runs, see @eq-a.\n", ""), "no `#| tbl-cap:`"),
        (mutate_source(3, "fig-cap: A line.", "fig-cap: A: line."), "not YAML"),
        (mutate_source(3, "fig-line", "line"), "must start with `fig-`"),
        (mutate_source(3, "#| fig-alt", "#| output: false\n#| fig-alt"), "`#| output:`"),
        (mutate_source(4, "#| tbl-cap", "#| include: false\n#| tbl-cap"), "`#| include:`"),
        (lambda n: n["cells"][4]["metadata"].update(tags=["remove-cell"]), "tag remove-cell"),
        (lambda n: n["cells"][3]["metadata"].update(tags=["hide-output"]), "tag hide-output"),
        (lambda n: n["cells"][0]["metadata"].update(tags=["remove-cell"]), "tag remove-cell"),
        (mutate_source(0, "$$a", "::: {.content-hidden}\n\n$$a"), "`content-hidden`"),
        (mutate_source(0, "$$a", "<div style='display: none'>\n\n$$a"), "`display: none`"),
        (mutate_source(0, "$$a", "<!-- \n\n$$a"), "`<!--`"),
        (lambda n: n["cells"].append(cell("raw", "---\necho: false\n---")), "a raw cell"),
        (mutate_source(3, "fig-line", "fig-my_line"), "label `fig-my_line`"),
        (mutate_source(3, "fig-line", "tbl-runs"), "is also in toy"),
        (mutate_source(1, "repeats", "repeated"), "unknown parameter 'repeated'"),
        (lambda n: n["cells"][3].update(outputs=[]), "shows no figure"),
        (lambda n: n["cells"][4].update(execution_count=7), "execution counts"),
        (lambda n: n["cells"][4].update(execution_count=None), "hollow"),
        (lambda n: n["metadata"].pop("llmft"), "never run"),
        (lambda n: n["metadata"].update(widgets={}), "widget"),
        (add_output(output_type="error", ename="E", evalue="v", traceback=[]), "error output: E"),
        (add_output(output_type="stream", name="stdout", text="/home/me/x"), "path of one machine"),
        (shows(text_html="<b>x</b>"), "text/html output"),
        (shows(text_markdown="<script>x</script>"), "raw HTML"),
        (shows(text_markdown="see @fig-none"), "@fig-none refers to nothing"),
        (shows(text_plain="x" * 5_000_000), "MB, above the"),
    ],
)
def test_the_gate_names(root: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    edit(root, change)
    assert words in problems(root)


def test_chapters_and_the_list_of_chapters(root: Path) -> None:
    shutil.copyfile(root / "chapters/toy.ipynb", root / "chapters/more.ipynb")
    listing = (root / "_quarto.yml").read_text().replace("index.qmd", "none.qmd")
    (root / "_quarto.yml").write_text(listing)
    found = problems(root)
    assert "more: is not listed in _quarto.yml" in found
    assert "lists none.qmd, which does not exist" in found


def test_a_page_that_a_part_names_is_a_page(root: Path) -> None:
    listing = (root / "_quarto.yml").read_text()
    (root / "_quarto.yml").write_text(
        listing.replace("chapters:\n", "chapters:\n    - part: parts/none.qmd\n", 1)
    )
    assert "lists parts/none.qmd, which does not exist" in problems(root)


def test_a_module_that_does_not_parse_is_a_line(root: Path) -> None:
    (root / "llmft" / "params.py").write_text("(\n")
    assert "does not parse" in problems(root) or "not plain Python" in problems(root)


EMPTY = '{"cells": [{"cell_type": "code"}], "metadata": {}}'


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"cells": 3}', '{"cells": [3]}', "[]", EMPTY]
)
def test_a_broken_notebook_is_one_line(root: Path, text: str) -> None:
    (root / "chapters/toy.ipynb").write_text(text)
    with pytest.raises(UserError, match="not a notebook"):
        gate.check(root)
