import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmft import ROOT, UserError, cli
from llmft.book import freeze
from tests import toy_book


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere"], "unknown chapter 'nowhere'"),
        (["run", "-p", "shots"], "must be NAME=VALUE"),
        (["run", "x" * 5000], "unknown chapter 'xxx"),
        (["run", "-p", "x" * 5000], "must be NAME=VALUE"),
        (["run", "-p", "x" * 5000 + "=1"], "unknown parameter 'xxx"),
        (["run", "-p", "shotz=[2]"], "unknown parameter 'shotz'"),
        (["fetch", "nowhere"], "unknown study 'nowhere'"),
        (["fetch", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_user_error_is_one_line(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["llmft", *words])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Ctrl-C remains pytest's
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("llmft: ")
    assert said in line
    assert len(line) < 1000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small book with the program in it: what the command does is done to that book."""
    root = tmp_path_factory.mktemp("made") / "book"
    toy_book.make(root)
    toy_book.add_other(root)
    shutil.copytree(ROOT / "llmft", root / "llmft", dirs_exist_ok=True)
    (root / "params/mine.yaml").write_text("repeats: 3\nupdates: 7\n")
    return root


def start(root: Path, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """The command of the book in `root`."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmft", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd or root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )


def said(root: Path, *words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """The exit code, the standard output and the standard error of the command."""
    process = start(root, *words, cwd=cwd)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


EACH = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from llmft import cli
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            cli.main()
        except SystemExit as done:
            answers.append((done.code, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""


def said_each(root: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """The same of several commands, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return [(code or 0, out, err) for code, out, err in json.loads(done.stdout)]


def test_a_whole_book_of_another_study_passes_its_own_check(made: Path) -> None:
    """What the book shows is said in one file; what is current is not run again."""
    (made / "params" / "book.yaml").write_text("studies: [mine]\n")
    code, _, err = said(made, "run")
    assert (code, err.count("done in")) == (0, 2), err
    code, out, err = said(made, "check", cwd=made / "params")
    assert (code, out) == (0, "2 chapters, no problem\n"), err
    assert "never verified: `llmft verify`" in err
    code, _, err = said(made, "run")
    assert (code, err) == (0, "toy: current\nother: current\n")
    (made / "params" / "book.yaml").write_text("studies: [pocket]\n")
    code, out, err = said(made, "check")
    assert code == 1
    assert "toy: was run with studies = ['mine']; the published book has ['pocket']" in out
    code, _, err = said(made, "run")
    assert (code, err.count("done in")) == (0, 2)
    words = ("-p", "repeats=2", "-p", "studies=[mine]")
    code, out, err = said(made, "run", "toy", "--force", "--out", "../out", *words)
    assert (code, (made.parent / "out/toy.csv").read_text()) == (0, "repeats\n2\n"), err


def test_a_book_of_one_s_own_goes_on_where_it_was_and_is_rendered(made: Path) -> None:
    """What `make book` does: the second time, nothing is run."""
    words = ("run", "--out", "../own", "-p", "studies=[mine]")
    code, _, err = said(made, *words)
    assert (code, err.count("done in")) == (0, 2), err
    (made.parent / "own/other.ipynb").unlink()  # as if it had been stopped there
    code, _, err = said(made, *words)
    assert (code, err.count("done in")) == (0, 1), err
    assert err.startswith("toy: current\nother: running ...\n")
    assert said(made, *words) == (0, "", "toy: current\nother: current\n")
    code, out, err = said(made, "render", "--plain", "../own")
    pages = [made / "_book/index.html", made / "_book/own/index.html"]
    assert (code, out.splitlines(), err) == (0, list(map(str, pages)), "rendered plain pages\n")
    assert "repeats: 3" not in pages[1].read_text()
    assert "studies: mine" in pages[1].read_text()


def test_a_chapter_that_the_studies_leave_out_stops_no_other(made: Path) -> None:
    path = made / "chapters" / "toy.ipynb"
    before, notebook = path.read_bytes(), toy_book.read(path)
    source = "from llmft import LeftOutError\n\n\nraise LeftOutError('nothing of it is run')"
    notebook["cells"].append(toy_book.cell("code", source))
    toy_book.write(path, notebook)
    words = ("--out", "../left", "-p", "studies=[mine]")
    code, _, err = said(made, "run", *words)
    again = said(made, "run", "toy", *words)
    path.write_bytes(before)
    assert (code, err.count("done in")) == (0, 1), err
    assert "left out: toy: nothing of it is run\n" in err
    assert (again[0], again[2].splitlines()[-1]) == (1, "llmft: toy: nothing of it is run")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code", "jobs"),
    [
        (signal.SIGINT, 130, 1),
        (signal.SIGTERM, 143, 1),
        (signal.SIGHUP, 129, 1),
        (signal.SIGINT, 130, 2),
        (signal.SIGTERM, 143, 2),
    ],
)
def test_a_stopped_run_leaves_nothing_behind(
    made: Path, tmp_path: Path, number: signal.Signals, code: int, jobs: int
) -> None:
    path = made / "chapters" / "toy.ipynb"
    if jobs > 1:  # beside one that has ended; their processes are a group, as in a terminal
        shutil.copy(path, path.with_name("twin.ipynb"))
    before = path.read_bytes()
    notebook = toy_book.read(path)
    tell = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    wait = f"import os, time\n\n{tell}\ntime.sleep(99)"
    notebook["cells"].insert(2, toy_book.cell("code", wait))
    toy_book.write(path, notebook)
    changed = path.read_bytes()
    try:
        chapters = ["toy", "twin"][:jobs]
        process = start(made, "run", *chapters, "--jobs", str(jobs))
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
        assert process.returncode == code, err
        told = [f"{chapter}: running ..." for chapter in chapters]
        of_twin = [line for line in err.splitlines() if line == "progress" or "done in" in line]
        others = [line for line in err.splitlines() if line not in of_twin]
        assert sorted(others) == sorted([*told, cli.STOPPED])
        assert jobs > 1 or not of_twin
        assert path.read_bytes() == changed
    finally:
        path.write_bytes(before)
        path.with_name("twin.ipynb").unlink(missing_ok=True)
    assert not list((made / "chapters").glob(".*.run"))
    assert not (made / "runs/toy.failed.ipynb").exists()
    kernel, ends = int((tmp_path / "pid").read_text()), time.monotonic() + 10
    while alive(kernel):
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_papermill_refuses_what_the_command_refuses(made: Path, tmp_path: Path) -> None:
    def papermill(*words: str) -> str:
        notebook = str(made / "chapters" / "toy.ipynb")
        command = [sys.executable, "-m", "papermill", notebook, "out.ipynb", "-k", "python3"]
        env = os.environ | {"PYTHONPATH": str(made)}
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, cwd=tmp_path, env=env
        )
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""

    missing = papermill("-p", "learning_rate", "1")
    assert "unknown parameter 'learning_rate'; known: studies, shots" in missing
    assert "did you mean 'repeats'" in papermill("-p", "repaets", "1")
    assert "the book's own" in papermill("-p", "store", str(made / "data/results"))
    assert not (tmp_path / "kept").exists()
    assert papermill("-p", "studies", "[mine]", "-p", "store", "kept") == ""
    assert (tmp_path / "kept/toy.csv").read_text() == "repeats\n3\n"


WRONG = [
    (["run", "--out", ""], "--out: the path is empty"),
    (["fetch", "pocket", "--to", ""], "--to: the path is empty"),
    (["run", "--out", "chapters"], "the book's own: choose another"),
    (["run", "--out", "~nosuchuser/x"], "'~nosuchuser/x' is not a path"),
    (["run", "--out", "out", "-p", "store=data/results"], "the book's own: choose another"),
    (["run", "-p", "repeats=2"], "add --out FOLDER"),
    (["run", "toy", "-p", "studies=[mine]"], "add --out FOLDER"),
    (["run", "toy", "-p", "store=elsewhere"], "add --out FOLDER"),
    (["run", "--out", "out", "-p", "shots=" + "[" * 3000], "nested too deeply"),
    (["run", "--out", "out", "-p", "repeats=" + "9" * 5000], "parameter repeats"),
    (["run", "other", "-p", "repeats=3"], "unknown parameter 'repeats'"),
    (["run", "--out", "out", "-p", "studies=mine", "-p", "repeats=0"], "parameter repeats"),
    (["render", "--plain", "out"], "out has no chapter: `llmft run --out"),
    (["render", "--plain", ""], "the path is empty"),
]


def test_nothing_is_done_after_a_wrong_word(made: Path) -> None:
    before = {p: p.read_bytes() for p in made.rglob("*.ipynb")}
    answers = said_each(made, *(words for words, _ in WRONG))
    for (words, line), (code, out, err) in zip(WRONG, answers, strict=True):
        assert (code, out) == (1, ""), words
        [last] = [row for row in err.splitlines() if not row.endswith("running ...")]
        assert last.startswith("llmft: "), words
        assert line in last
    assert {p: p.read_bytes() for p in made.rglob("*.ipynb")} == before


def test_not_in_a_clone_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "llmft", tmp_path / "llmft")
    commands = [["check"], ["run"], ["render", "--plain"], ["pocket"], ["run", "--help"]]
    *answers, (code, out, _) = said_each(tmp_path, *commands)
    for failed, _, err in answers:
        assert failed == 1
        assert "llmft works in a clone of its book" in err
        assert len(err.splitlines()) == 1
    assert (code, "--force" in out) == (0, True)


def test_help_lists_the_commands() -> None:
    made = CliRunner().invoke(cli.cli, ["--help"])
    assert made.exit_code == 0
    assert all(
        name in made.output for name in ("run", "fetch", "check", "verify", "render", "pocket")
    )


def test_check_needs_no_library_that_is_slow_to_import() -> None:
    script = (
        "import sys; from llmft import cli; from llmft.book import gate; gate.check();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'papermill', 'pandas', 'altair')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_assignments() -> None:
    assert freeze.assignments(("a=1", "b=[2, 8]", "c=x=y")) == {"a": "1", "b": "[2, 8]", "c": "x=y"}
    with pytest.raises(UserError, match="NAME=VALUE"):
        freeze.assignments(("=1",))
