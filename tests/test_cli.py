import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from llmft import ROOT, UserError, book, cli


def llmft(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmft", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere"], "unknown chapter 'nowhere'"),
        (["run", "-p", "shots"], "must be NAME=VALUE"),
        (["run", "-p", "shotz=[2]"], "unknown parameter 'shotz'"),
        (["run", "--params", "nowhere.yaml", "-p", "zebra=1"], "zebra"),
        (["fetch", "--params", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_user_error_is_one_line(words: list[str], said: str) -> None:
    done = llmft(*words)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("llmft: ")
    assert said in line


def test_help_lists_the_commands() -> None:
    made = CliRunner().invoke(cli.cli, ["--help"])
    assert made.exit_code == 0
    assert all(name in made.output for name in ("run", "fetch", "check", "render", "pocket"))


def test_check_needs_no_torch_and_is_quick() -> None:
    script = (
        "import sys; from llmft import cli, gate; gate.check();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'papermill', 'pandas', 'altair')))"
    )
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert time.process_time() - started < 1


def test_assignments() -> None:
    assert book.assignments(("a=1", "b=[2, 8]", "c=x=y")) == {"a": "1", "b": "[2, 8]", "c": "x=y"}
    with pytest.raises(UserError, match="NAME=VALUE"):
        book.assignments(("=1",))
