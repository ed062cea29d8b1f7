"""Several chapters at once: what reads another's results comes after it, and an error ends all."""

import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from llmft import ROOT, UserError
from llmft.book import gate, several
from tests import toy_book


@pytest.fixture
def chapters(tmp_path: Path) -> list[Path]:
    """`last` reads the results of `first` and `slow`, and stands between them."""
    sources = {
        "slow": "1",
        "last": 'FILES = ["data/results/first.csv", "data/results/slow.csv", "data/pocket"]',
        "first": "1",
    }
    paths = [tmp_path / f"{name}.ipynb" for name in sources]
    for path, source in zip(paths, sources.values(), strict=True):
        cells = [toy_book.cell("code", source)]
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        toy_book.write(path, notebook)
    return paths


def note(log: Path, path: Path) -> None:
    if path.stem == "slow":
        time.sleep(0.3)
    with log.open("a") as file:
        file.write(f"{path.stem}\n")


def fail(path: Path) -> None:
    if path.stem == "first":
        raise UserError("the first one fails")
    time.sleep(60)


def always(_: Path) -> bool:
    return True


def test_a_chapter_waits_for_those_whose_results_it_reads(
    chapters: list[Path], tmp_path: Path
) -> None:
    several.run(chapters, always, partial(note, tmp_path / "log"), 2)
    assert (tmp_path / "log").read_text().split() == ["first", "slow", "last"]
    some = [path for path in chapters if path.stem != "slow"]
    several.run(some, lambda path: path.stem == "last", partial(note, tmp_path / "new"), 2)
    assert (tmp_path / "new").read_text().split() == ["last"]


def test_the_chapter_that_published_most_begins_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("data/results", "chapters"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(several, "reads", lambda paths: {path: set() for path in paths})
    paths = [tmp_path / "chapters" / f"{name}.ipynb" for name in ("none", "small", "large", "same")]
    for name, size in (("small", 1), ("large", 9), ("same", 1)):
        (tmp_path / "data/results" / f"{name}.csv").write_text("x" * size)
    asked: list[str] = []
    several.run(paths, lambda path: bool(asked.append(path.stem)), fail, 2)
    assert asked == ["large", "small", "same", "none"]


def test_one_at_a_time_is_in_the_book_s_order(chapters: list[Path], tmp_path: Path) -> None:
    several.run(chapters, always, partial(note, tmp_path / "log"), 1)
    assert (tmp_path / "log").read_text().split() == ["slow", "last", "first"]


def test_the_first_error_ends_the_others(chapters: list[Path]) -> None:
    """Those that run, and those that wait for a process."""
    for name in "abcd":
        path = chapters[0].with_name(f"{name}.ipynb")
        shutil.copy(chapters[0], path)
        chapters.append(path)
    start = time.monotonic()
    with pytest.raises(UserError, match="the first one fails"):
        several.run(chapters, always, fail, 2)
    assert time.monotonic() - start < 30


def test_in_the_book_s_order_no_chapter_comes_before_what_it_reads() -> None:
    """With one at a time, as on a GPU, the order of the book has to do."""
    paths = gate.chapters()
    for path, before in several.reads(paths).items():
        assert all(paths.index(other) < paths.index(path) for other in before), path.stem
    assert any(several.reads(paths).values()), ROOT
