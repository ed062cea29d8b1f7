"""Records under real faults: kills at random moments, a disk that is full, bytes that changed."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from llmft import ROOT, UserError, files
from llmft.study import store


FRAME = pd.DataFrame({"id": [f"e{i}" for i in range(2000)], "logp": range(2000)})

WRITER = """
import itertools, sys
from pathlib import Path
import pandas as pd
from llmft.study import store
folder = store.prepare(Path(sys.argv[1]))
frame = pd.DataFrame({"id": [f"e{i}" for i in range(2000)], "logp": range(2000)})
print("ready", flush=True)
for i in itertools.count():
    key = f"k{i % 7}"
    with store.claim(folder, key, wait=True):
        store.keep(folder, key, {"key": key, "round": i}, frame)
"""


def writer(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    folder = store.prepare(tmp_path / "new")
    row = {"accuracy": 0.1 + 0.2, "n": 3, "name": "größer"}
    store.keep(folder, "k", row, FRAME)
    assert store.read(folder, "k") == row
    assert store.answers(folder, ["k"]).drop(columns="key").equals(FRAME)
    assert store.read(folder, "other") is None


def test_killed_at_any_moment_every_record_is_whole(tmp_path: Path):
    """Kills of a process that does nothing but write records, over one another."""
    random.seed(0)
    whole = 0
    for _ in range(4):
        process = writer(tmp_path)
        while len(list((tmp_path / "records").glob("*.json"))) < 2:
            time.sleep(0.005)
        time.sleep(random.uniform(0.01, 0.25))
        kill(process)
        for path in (tmp_path / "records").glob("*.json"):
            row = store.read(tmp_path, path.stem)
            # A kill between the two files leaves new predictions beside an old row: that is
            # found out, and the run is done again. It is never taken for a finished run.
            whole += row is not None
            if row is not None:
                assert len(store.answers(tmp_path, [path.stem])) == 2000
    assert whole >= 4
    with store.claim(tmp_path, "k0", wait=True):  # the dead process holds nothing
        pass
    for i in range(7):
        with store.claim(tmp_path, f"k{i}", wait=False) as mine:
            assert mine
    assert not list((tmp_path / "records").glob(".*"))  # and what it left is swept away


def test_one_process_claims_a_run_at_a_time(tmp_path: Path):
    store.prepare(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom llmft.study import store\n"
        "with store.claim(Path(sys.argv[1]), 'k', wait=False) as mine: print(mine)"
    )

    def other() -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    with store.claim(tmp_path, "k", wait=False) as mine:
        assert mine
        assert other() == "False"
    assert other() == "True"


@pytest.mark.parametrize(
    "damage",
    ["cut", "changed row", "changed predictions", "gone", "empty", "other", "deep", "swapped"],
)
def test_damage_is_found_and_said(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]):
    folder = store.prepare(tmp_path)
    store.keep(folder, "k", {"accuracy": 0.75}, FRAME)
    row, predictions = folder / "records/k.json", folder / "records/k.parquet"
    if damage == "cut":
        row.write_bytes(row.read_bytes()[:40])
    elif damage == "changed row":
        row.write_text(row.read_text().replace("0.75", "0.95"))
    elif damage == "changed predictions":
        content = bytearray(predictions.read_bytes())
        content[len(content) // 2] ^= 1
        predictions.write_bytes(content)
    elif damage == "gone":
        predictions.unlink()
    elif damage == "empty":
        row.write_bytes(b"")
    elif damage == "deep":
        row.write_text("[" * 100_000)
    elif damage == "swapped":  # whole, but another run's
        store.keep(folder, "j", {"accuracy": 0.5}, FRAME.iloc[:5])
        for file in (row, predictions):
            file.write_bytes(file.with_stem("j").read_bytes())
    else:
        row.write_text(json.dumps([1, 2]))
    assert store.read(folder, "k") is None
    line = capsys.readouterr().err
    assert "record k" in line
    assert "damaged" in line


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path):
    """RLIMIT_FSIZE stands in for the disk: the kernel refuses the write in the same way."""
    folder = store.prepare(tmp_path)
    path = folder / "icl.csv"
    files.write(path, b"before")
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*icl\.csv.*make room") as error:
            files.write(path, b"x" * 5000)
        with pytest.raises(UserError):
            store.keep(folder, "k", {"accuracy": 1.0}, FRAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert store.read(folder, "k") is None
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["icl.csv"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        store.prepare(tmp_path / "file" / "store")


def test_answers_that_cannot_be_read_are_one_line(tmp_path: Path):
    folder = store.prepare(tmp_path)
    store.keep(folder, "k", {"accuracy": 0.75}, FRAME)
    (folder / "records/k.parquet").write_bytes(b"nonsense")
    for key in ("k", "none"):
        with pytest.raises(UserError, match=f"answers of run {key} cannot be read"):
            store.answers(folder, [key])


def test_records_of_before_count_as_none(tmp_path: Path):
    folder = store.prepare(tmp_path)
    store.keep(folder, "k", {"accuracy": 0.75}, FRAME)
    time = (folder / "records/k.json").stat().st_mtime_ns
    assert store.read(folder, "k", since=time - 1) == {"accuracy": 0.75}
    assert store.read(folder, "k", since=time) is None
    assert store.read(folder, "k") == {"accuracy": 0.75}


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path):
    folder = store.prepare(tmp_path / "store")
    shutil.rmtree(folder)
    with store.claim(folder, "k", wait=False) as mine:
        assert mine
        store.keep(folder, "k", {"accuracy": 0.75}, FRAME)
    assert store.read(folder, "k") == {"accuracy": 0.75}


def test_a_published_run_is_there_for_a_store_that_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BOOK", tmp_path / "book")
    own, other = (store.prepare(tmp_path / name) for name in ("own", "other"))
    for key in ("a", "b"):
        store.keep(own, key, {"key": key}, FRAME)
    assert store.read(other, "a") is None
    assert store.copy(own, ["a", "missing"]) == (1, 1)
    row = store.read(other, "a")
    assert row == {"key": "a"}
    assert store.answers(other, ["a"])["id"].tolist() == FRAME["id"].tolist()
    assert store.read(other, "b") is None
    assert store.read(other, "a", since=time.time_ns()) is None  # measured again all the same
    store.keep(other, "a", {"key": "a", "again": 1}, FRAME)
    assert store.read(other, "a") == {"key": "a", "again": 1}  # one's own comes first

    assert store.copy(own, ["a", "b"]) == (2, 1)
    assert store.copy(other, ["b"]) == (1, 0)  # from the published ones themselves
    assert {path.name for path in (tmp_path / "book" / "records").iterdir()} == {
        "b.json", "b.parquet",
    }  # fmt: skip


def test_a_damaged_published_run_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "BOOK", tmp_path / "book")
    own = store.prepare(tmp_path / "own")
    store.keep(own, "a", {"key": "a"}, FRAME)
    store.copy(own, ["a"])
    (tmp_path / "book" / "records" / "a.parquet").write_bytes(b"")
    empty = store.prepare(tmp_path / "empty")
    assert store.read(empty, "a") is None
    assert f"record a in {tmp_path / 'book'} is damaged" in capfd.readouterr().err
