"""The published rows: balanced, disjoint, without text, chosen again and found again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmft import UserError
from llmft.engine.spec import Spec
from llmft.nli import selection, sources
from llmft.nli.selection import COLUMNS, ROWS_FILE, digest, find, load
from llmft.nli.tasks import load as task
from llmft.study.runs import key_of
from tests.pairs import FORMATS, chooser, hans


ROWS, CHOOSER = sources.read(ROWS_FILE), chooser()


def test_the_published_rows_are_balanced_and_hold_no_text() -> None:
    assert tuple(ROWS) == COLUMNS
    assert ROWS["digest"].str.fullmatch("[0-9a-f]{16}").all()
    assert ROWS["digest"].is_unique  # so no pair is in two sets
    assert ROWS["pair"].str.fullmatch(r"(ex\d+)?").all()
    for name, rows in ROWS.groupby("set"):
        assert (rows["pair"] != "").all() == (name in ("mixed", "out-of-domain"))
        for size in CHOOSER.SIZES[str(name)]:
            inside = rows[rows["size"].astype(int) <= size]
            assert inside["label"].value_counts().tolist() == [size // 2] * 2
            assert set(inside.groupby("subcase").size()) in ({size}, {size // 30}, {size // 16})


def test_a_family_of_constructions_is_seen_or_not() -> None:
    hans = ROWS[ROWS["subcase"] != ""].drop_duplicates(["set", "subcase"])
    subcases = [name for family in selection.FAMILIES.values() for name in family.split()]
    scored = hans[hans["set"] == "out-of-domain"].set_index("subcase")["label"]
    assert sorted(subcases) == sorted(scored.index)
    assert {*hans["subcase"][hans["set"] == "mixed"]} == selection.SEEN
    for names in (selection.SEEN, {*subcases} - selection.SEEN):
        assert len({*scored[[*names]].value_counts()}) == 1
    for family in selection.FAMILIES.values():
        assert len({name in selection.SEEN for name in family.split()}) == 1
    assert not any("PP" in name or "preposition" in name or "relative" in name
                   for name in selection.SEEN)  # fmt: skip


def test_the_published_rows_are_chosen_again_and_found(
    shared: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(selection, "ROWS_FILE", tmp_path / "rows.csv")
    monkeypatch.setattr("sys.argv", ["selection", str(shared / "data")])
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    CHOOSER.main()
    assert (tmp_path / "rows.csv").read_bytes() == ROWS_FILE.read_bytes()
    found = load(ROWS_FILE, str(shared / "data"))
    assert found.groupby("set", sort=False).size().tolist() == [640, 6000, 400, 560, 900]
    assert found["premise"].str.lower().is_unique  # in one set or two
    scored = found[found["set"] == "out-of-domain"]
    assert set(scored["heuristic"].value_counts()) == {300}
    smallest = task("mnli-hans", rows=str(ROWS_FILE))  # from the cache
    # The first is what published runs were made with, before there were mixed pairs.
    assert smallest.digest == smallest.digest_of(0.0) == "0db18158fa73a992"
    assert smallest.digest_of(0.5) == "0db18158fa73a992 e4c9cd80fa773b4d"
    assert [len(frame) for frame in smallest.sets.values()] == [6000, 640, 400, 400, 450]
    assert set(smallest.in_domain["id"].str.removeprefix("matched-")) < set(found["id"])


def test_mixed_pairs_are_drawn_last_and_of_seen_subcases(
    data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Rows that were there before they came stay the same, and so do the keys of their runs."""
    before = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False)
    monkeypatch.setattr(selection, "SEEN", {"e0", "n0"})
    pools = selection.pools_of(str(data))
    table = CHOOSER.choose(pools, 1, {"mixed": (8,), **SMALL})
    rest = table[table["set"] != "mixed"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, before, check_dtype=False)
    own = table[table["set"] == "mixed"]
    assert own.groupby("subcase").size().to_dict() == {"e0": 4, "n0": 4}
    assert not {*own["pair"]} & {*rest["pair"]}
    table.to_csv(tmp_path / "more.csv", index=False)
    for name in ("rows", "more"):
        load(tmp_path / f"{name}.csv", str(data))
    old, new = (task("mnli-hans", rows=str(tmp_path / f"{name}.csv")) for name in ("rows", "more"))
    assert (len(old.mixed), len(new.mixed)) == (0, 8)
    assert old.digest == old.digest_of(1.0) == new.digest == new.digest_of(0.0)
    assert new.digest_of(0.5) == new.digest_of(1.0) != new.digest
    assert new.mixed["id"].str.fullmatch(r"mixed-ex\d+").all()
    specs = [Spec(task="mnli-hans", rows=str(tmp_path / f"{n}.csv")) for n in ("rows", "more")]
    keys = [[key_of(replace(spec, mixed=share)) for spec in specs] for share in (0.0, 0.5)]
    assert keys[0][0] == keys[0][1]
    assert keys[1][0] != keys[1][1]


SMALL = {"train": (8,), "validation": (4,), "in-domain": (4, 8), "out-of-domain": (6, 12)}


def pairs(n: int, source: str) -> list[dict[str, Any]]:
    words = ("entailment", "neutral", "contradiction")
    return [
        {"premise": f"{source}  {i} caf\u00e9", "hypothesis": f"h {i}", "label": words[i % 3]}
        for i in range(n)
    ]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: Any) -> Path:
    """A folder as `load` reads it, and no cache yet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    for name in ("mnli", "hans"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("train", "validation"):
        FORMATS[".jsonl.gz"](pairs(60, name), tmp_path / "data" / "mnli" / f"{name}.jsonl.gz")
    frame = hans(60)
    # As HANS, a subcase has one label.
    frame["subcase"] = frame["gold_label"].str[0] + (frame.index // 2 % 3).astype(str)
    path = tmp_path / "data" / "hans" / selection._HANS_FILES[0]
    frame.to_csv(path, sep="\t", index=False)
    table = CHOOSER.choose(selection.pools_of(str(tmp_path / "data")), 1, SMALL)
    table.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "data"


def test_a_digest_is_of_the_text_and_not_of_its_spaces() -> None:
    for written in ((" a  b\n", "caf\u00e9"), ("a\tb", "cafe\u0301")):
        assert digest(*written) == digest("a b", "caf\u00e9")
    assert len({digest("a", "b"), digest("A", "b"), digest("a b", ""), digest("", "a b")}) == 4


def test_a_choice_is_repeatable_and_disjoint(data: Path) -> None:
    pools = selection.pools_of(str(data))
    table = CHOOSER.choose(pools, 1, SMALL)
    pd.testing.assert_frame_equal(CHOOSER.choose(pools, 1, SMALL), table)
    assert not CHOOSER.choose(pools, 2, SMALL).equals(table)
    found = find(table.astype(str), pools, "here")
    assert found["premise"].is_unique
    assert found.groupby("set").size().to_dict() == {k: v[-1] for k, v in SMALL.items()}
    assert set(table[table["subcase"] != ""].groupby(["subcase", "size"]).size()) == {1}
    pools["train"] = pools["train"].head(10)
    with pytest.raises(UserError, match=r"train: \d pairs of \d, not 4"):
        CHOOSER.choose(pools, 1, SMALL)


def test_the_cache_is_used_checked_and_made_again(data: Path, tmp_path: Path) -> None:
    first = load(tmp_path / "rows.csv", str(data))
    pd.testing.assert_frame_equal(load(tmp_path / "rows.csv", "/no/such/folder"), first)
    [cached] = (tmp_path / "home" / "llmft").iterdir()
    first.assign(hypothesis="another").to_parquet(cached, index=False)
    pd.testing.assert_frame_equal(load(tmp_path / "rows.csv", str(data)), first)


def test_rows_that_are_not_there_are_counted_and_the_first_is_named(
    data: Path, tmp_path: Path
) -> None:
    rows = sources.read(tmp_path / "rows.csv")
    rows.loc[[3, 5], "digest"] = ["0123456789abcdef", "f" * 16]
    rows.loc[7, "label"] = {"entailment": "not entailment"}.get(rows.label[7], "entailment")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(UserError, match=r"3 of 32 rows are not in .*, the first of them 01234567"):
        load(tmp_path / "rows.csv", str(data))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: rows.drop(columns="digest"), "lacks a column"),
        (lambda rows: rows.assign(set="dev"), "lacks a column or set"),
        (lambda rows: rows.iloc[:9], "lacks a column or set"),
        (lambda rows: rows.assign(label="1"), "another label or size: restore it"),
        (lambda rows: rows.assign(size="all"), "another label or size: restore it"),
    ],
)
def test_a_damaged_file_of_rows(data: Path, tmp_path: Path, change: Any, line: str) -> None:
    change(sources.read(tmp_path / "rows.csv")).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(UserError, match=line):
        load(tmp_path / "rows.csv", str(data))


def test_a_folder_without_the_files_says_what_it_needs(data: Path, tmp_path: Path) -> None:
    (data / "mnli" / "validation.jsonl.gz").unlink()
    with pytest.raises(UserError, match=r"has no matched file: it needs mnli/train, mnli/valid"):
        load(tmp_path / "rows.csv", str(data))


def test_rows_make_a_task(data: Path, tmp_path: Path) -> None:
    load(tmp_path / "rows.csv", str(data))
    small = task("mnli-hans", rows=str(tmp_path / "rows.csv"))
    assert [len(frame) for frame in small.sets.values()] == [8, 4, 4, 6]
    assert set(small.in_domain) == {"id", "premise", "hypothesis", "label"}
    assert small.out_of_domain.groupby("subcase").size().tolist() == [1] * 6
    assert small.train["id"].str.fullmatch("train-[0-9a-f]{16}").all()
    assert small.out_of_domain["id"].str.fullmatch(r"hans-ex\d+").all()
    for name, words in (("pocket", {}), ("mnli-hans", {"labels": "neutral: drop"})):
        with pytest.raises(UserError, match="only of mnli-hans, and without labels"):
            task(name, rows="rows.csv", **words)
