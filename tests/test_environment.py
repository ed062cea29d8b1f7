"""What is installed, said three times (pip, conda, exact pins), must agree; so must the names."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llmft import ROOT, __version__, cli, params
from llmft.book import render, stamp
from tests import stress


CONDA_NAMES = {
    "torch": "pytorch",
    "huggingface-hub": "huggingface_hub",
    "pypandoc-binary": "pypandoc",
}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("book", "tests")


def required(*extras: str) -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_conda_has_what_pip_has() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {r.name: r.specifier for r in (Requirement(e) for e in entries if isinstance(e, str))}
    assert conda.pop("python") == Requirement(f"python{PROJECT['requires-python']}").specifier
    assert {"quarto", "pip"} <= set(conda)
    conda = {name: s for name, s in conda.items() if name not in ("quarto", "pip")}
    pip = {CONDA_NAMES.get(name, name): r.specifier for name, r in required(*EXTRAS).items()}
    assert conda == pip
    assert entries[-1] == {"pip": ["-e ."]}, "this package itself, with what conda installed"


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pins = pinned()
    for name, requirement in required(*EXTRAS).items():
        assert requirement.specifier.contains(pins[name]), requirement
    assert pins["torch"] == "2.13.0"


def test_pins_are_exact_and_sorted_once() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line) for line in lines)
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert len(set(names)) == len(names)


def test_versions_agree() -> None:
    assert PROJECT["version"] == __version__
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    day = cited["date-released"]
    first = (ROOT / "index.qmd").read_text()
    named = re.findall(r"Version ([\d.]+), (\d+ \w+ \d{4})", first)
    assert named == [(__version__, f"{day.day} {day:%B %Y}")] * 3
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    assert settings["format"]["typst"]["date"] == f"{day.day} {day:%B %Y}"
    about = settings["book"]
    assert (
        cited["title"] == f"{about['title']}: {about['subtitle'][0].lower()}{about['subtitle'][1:]}"
    )


def test_quarto_is_the_same_version_everywhere() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    steps = workflow["jobs"]["render"]["steps"]
    [quarto] = [s for s in steps if "quarto-actions/setup" in s.get("uses", "")]
    assert quarto["with"]["version"] == render.QUARTO


IMPORT_NAMES = {
    "yaml": "pyyaml",
    "IPython": "ipykernel",
    "nbclient": "papermill",
    "nbformat": "papermill",
    "pypandoc": "pypandoc-binary",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
}
"""What an import is called at PyPI, or which requirement brings it."""


def test_every_import_is_required() -> None:
    """What the package and the chapters import is declared, not there by luck."""
    names = {canonicalize_name(r.name) for r in required("book").values()}
    for path in [*(ROOT / "llmft").rglob("*.py"), *(ROOT / "chapters").glob("[!.]*.ipynb")]:
        if path.suffix == ".py":
            trees = [ast.parse(path.read_text())]
        else:
            trees = [stamp.tree(stamp.code(c)) for c in stamp.code_cells(stamp.read(path))]
        for node in (node for tree in trees for node in ast.walk(tree)):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                found = [str(node.module)]
            for top in {name.partition(".")[0] for name in found}:
                known = top in sys.stdlib_module_names or top == "llmft"
                name = canonicalize_name(IMPORT_NAMES.get(top, top))
                assert known or name in names, f"{path.name} imports {top}"


def test_every_file_of_the_package_is_packaged() -> None:
    tool: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    data = tool["setuptools"]["package-data"]
    listed = {ROOT / name.replace(".", "/") / file for name in data for file in data[name]}
    files = {path for path in (ROOT / "llmft").rglob("*") if path.is_file()}
    assert listed == {p for p in files if p.suffix != ".py" and "__pycache__" not in p.parts}


def test_shell_entry_points() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    makefile = (ROOT / "Makefile").read_text()
    [targets] = re.findall(r"(?m)^\.PHONY: (.*)$", makefile)
    for name in targets.split():
        assert re.search(rf"(?m)^([\w-]+ )*{name}( [\w-]+)*:", makefile), name
    assert {"book", "test", "quick", "stress"} <= set(targets.split())


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (
            [],
            [
                "run",
                "check",
                "run --out build/here -p studies=[here]",
                "render build/here",
            ],
        ),
        (
            ["FORCE=1"],
            [
                "run --force",
                "check",
                "run --force --out build/here -p studies=[here]",
                "render build/here",
            ],
        ),
        (
            ["STUDIES=opt-125m  opt-350m"],
            [
                "fetch opt-125m opt-350m",
                "run --out build/opt-125m+opt-350m -p studies=[opt-125m, opt-350m]",
                "render build/opt-125m+opt-350m",
            ],
        ),
    ],
)
def test_what_make_book_runs(words: list[str], commands: list[str]) -> None:
    """Every command is one that the program has, and the study of this machine is there."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "FORCE", "STUDIES")
    env = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(
        ["make", "-n", "book", *words], cwd=ROOT, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if "/llmft " in line]
    assert [" ".join(line[1:]) for line in lines] == commands
    for _, name, *rest in lines:
        cli.cli.commands[name].make_context(name, rest)
    assert params.study("here").repeats == 5


@pytest.mark.parametrize(
    ("code", "result"),
    [("print('one')", "passed"), ("exit(1)", "failed"), ("import time; time.sleep(9)", "too long")],
)
def test_a_run_on_a_busy_machine_says_what_became_of_it(code: str, result: str) -> None:
    limit = 1 if result == "too long" else 99
    found, seconds, said = stress.once([sys.executable, "-c", code], limit)
    assert (found, said) == (result, "one\n" if result == "passed" else "")
    assert seconds > 0
