"""Tasks: labels, ids, splits and samples are what they say, and damage is one clear line."""

import gzip
import hashlib
import shutil
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft import ROOT, UserError
from llmft.sources import HANS_SHA256, from_hans, from_mnli, hans_file, meanings, read
from llmft.tasks import Task, load, sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mnli(300, "train").to_csv(tmp_path / "train.csv", index=False)
    mnli(60, "validation").to_csv(tmp_path / "validation.csv", index=False)
    mnli(120, "test").to_csv(tmp_path / "test.csv", index=False)
    hans(120).to_csv(tmp_path / "hans.tsv", index=False, sep="\t")
    return tmp_path


def test_a_folder_is_a_task(folder: Path) -> None:
    task = load(str(folder))
    assert [len(f) for f in (task.train, task.validation, task.in_domain, task.out_of_domain)] == [
        200,
        40,
        80,
        120,
    ]
    assert task.out_of_domain.subcase.nunique() == 3
    assert task.in_domain.id.iloc[1] == "test-2"
    assert len(task.digest) == 16


def test_the_digest_follows_the_content(folder: Path) -> None:
    before = load(str(folder)).digest
    assert load(str(folder)).digest == before
    assert load(str(folder), limit=10).digest == before
    path = folder / "hans.tsv"
    path.write_text(path.read_text().replace("s7\t", "s7.\t"))
    assert load(str(folder)).digest != before


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet", "tsv"])
def test_every_format_reads_alike(folder: Path, suffix: str) -> None:
    expected = load(str(folder)).train
    frame = pd.read_csv(folder / "train.csv")
    (folder / "train.csv").unlink()
    if suffix == "parquet":
        frame.to_parquet(folder / "train.parquet")
    elif suffix == "tsv":
        frame.to_csv(folder / "train.tsv", sep="\t", index=False)
    else:
        frame.to_json(folder / f"train.{suffix}", orient="records", lines=True)
    pd.testing.assert_frame_equal(load(str(folder)).train, expected)


def test_a_task_without_an_out_of_domain_set(folder: Path) -> None:
    both = load(str(folder))
    assert list(both.domains) == ["in-domain", "out-of-domain"]
    (folder / "hans.tsv").unlink()
    task = load(str(folder), limit=10)
    assert task.out_of_domain.empty
    assert list(task.domains) == ["in-domain"]
    assert len(task.domains["in-domain"]) == 10
    assert task.digest != both.digest


def test_the_mapping_is_part_of_the_task(folder: Path) -> None:
    usual = load(str(folder))
    said = load(str(folder), labels="neutral: not entailment")
    assert said.digest != usual.digest
    assert len(said.in_domain) == 120 > len(usual.in_domain)
    pd.testing.assert_frame_equal(said.out_of_domain, usual.out_of_domain)  # HANS is binary
    with pytest.raises(UserError, match=f"task {folder} has no label 'netural'"):
        load(str(folder), labels="netural: not entailment")


def test_without_validation_train_must_be_large_enough(folder: Path) -> None:
    (folder / "validation.csv").unlink()
    mnli(12).to_csv(folder / "train.csv", index=False)
    with pytest.raises(UserError, match="too few examples to set some aside: add a validation"):
        load(str(folder))


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_name(folder: Path) -> None:
    path = folder / "train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load(str(folder)).train) == 200


def test_na_is_text_not_a_missing_value(folder: Path) -> None:
    path = folder / "train.csv"
    path.write_text(path.read_text().replace("h0,", "n/a,", 1))
    assert load(str(folder)).train.hypothesis[0] == "n/a"


def test_without_a_validation_file_it_comes_from_train(folder: Path) -> None:
    (folder / "validation.csv").unlink()
    task = load(str(folder))
    assert len(task.validation) == 20
    assert len(task.train) == 180
    assert set(task.validation.premise.str[:5]) == {"train"}
    assert not set(task.validation.id) & set(task.train.id)
    pd.testing.assert_frame_equal(load(str(folder)).validation, task.validation)


@pytest.mark.parametrize("limit", [1, 2, 7, 40, 79])
def test_limit_keeps_each_stratums_share(folder: Path, limit: int) -> None:
    whole, task = load(str(folder)), load(str(folder), limit=limit, seed=1)
    for kept, full in (
        (task.in_domain, whole.in_domain),
        (task.out_of_domain, whole.out_of_domain),
    ):
        assert len(kept) == limit
        assert kept.id.is_unique
        assert list(kept.id) == [i for i in full.id if i in set(kept.id)]  # file order
        by = ["label", *(["subcase"] if "subcase" in full else [])]
        share = full.groupby(by).size() * limit / len(full)
        assert (kept.groupby(by).size().reindex(share.index, fill_value=0) - share).abs().max() < 1
    pd.testing.assert_frame_equal(task.train, whole.train)


def test_limit_is_drawn_by_its_seed(folder: Path) -> None:
    ids = [set(load(str(folder), limit=40, seed=seed).in_domain.id) for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_a_limit_above_the_number_keeps_all(folder: Path) -> None:
    assert len(load(str(folder), limit=10_000).in_domain) == 80


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "test.csv").unlink(), "has no test file"),
        (lambda f: (f / "train.tsv").write_text(""), "has both train.csv and train.tsv: keep one"),
        (lambda f: mnli(9).to_csv(f / "out-of-domain.csv"), "has both hans.tsv and out-of-domain"),
        (lambda f: (f / "train.csv").write_text("premise;hypothesis;label\na;b;1\n"), "no column"),
        (lambda f: (f / "train.csv").write_text(""), "cannot be read"),
        (lambda f: (f / "train.csv").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda f: (f / "train.csv").write_text("premise,hypothesis\na,b\n"), "no column label"),
        (lambda f: (f / "test.csv").write_text("premise,hypothesis,label\n"), "has no examples"),
        (lambda f: mnli(9).assign(idx=7).to_csv(f / "test.csv"), "id 'test-7' appears twice"),
        (lambda f: (f / "hans.tsv").write_text("gold_label\nx\n"), "no column premise"),
    ],
)
def test_damaged_files_are_one_line(folder: Path, damage: Any, line: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=line) as error:
        load(str(folder))
    assert "\n" not in str(error.value)


def test_a_truncated_parquet_is_one_line(folder: Path) -> None:
    (folder / "train.csv").unlink()
    (folder / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"train.parquet cannot be read"):
        load(str(folder))


def test_unknown_task_and_negative_limit() -> None:
    with pytest.raises(UserError, match="unknown task 'snli': use pocket, mnli-hans, or a folder"):
        load("snli")
    with pytest.raises(UserError, match="limit is -1"):
        load("pocket", limit=-1)


POOL = from_mnli(mnli(600))


@given(half=st.integers(0, 200), seed=st.integers(0, 2**31))
def test_samples_are_balanced_distinct_and_repeatable(half: int, seed: int) -> None:
    found = sample(POOL, 2 * half, seed)
    assert found.label.value_counts().to_dict() == ({0: half, 1: half} if half else {})
    assert found.id.is_unique
    assert set(found.id) <= set(POOL.id)
    assert list(found.columns) == list(POOL.columns)
    pd.testing.assert_frame_equal(sample(POOL, 2 * half, seed), found)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 99))
def test_samples_of_a_seed_are_nested(few: int, more: int, seed: int) -> None:
    few, more = sorted((few, more))
    assert set(sample(POOL, 2 * few, seed).id) <= set(sample(POOL, 2 * more, seed).id)


def test_a_sample_is_these_very_examples() -> None:
    # On any machine and with any later code: stored results are keyed by seeds.
    assert list(sample(POOL, 4, 3).id) == ["mnli-368", "mnli-452", "mnli-351", "mnli-426"]


def test_samples_differ_by_seed_and_are_shuffled() -> None:
    draws = [sample(POOL, 8, seed) for seed in range(40)]
    assert len({tuple(sorted(draw.id)) for draw in draws}) == 40
    # Each place holds either label about half of the time: 20 +- 4 standard deviations of 3.2.
    by_place = np.array([draw.label for draw in draws]).sum(axis=0)
    assert (np.abs(by_place - 20) < 13).all()
    assert {int(draw.label.iloc[0]) for draw in draws} == {0, 1}


@pytest.mark.parametrize("n", [-2, 3, 402, 2.0, True])
def test_impossible_samples(n: Any) -> None:
    with pytest.raises(UserError, match=f"cannot draw {n} examples"):
        sample(POOL, n, 0)


def test_no_network_is_one_line(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    (home / "llmft").mkdir()
    (home / "llmft" / "heuristics_evaluation_set.txt").write_text("cut short")
    with pytest.raises(UserError, match=r"HANS cannot be downloaded .* or put the file") as error:
        load("mnli-hans")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def pocket() -> Task:
    return load("pocket")


def test_the_pocket_task(pocket: Task) -> None:
    assert len(pocket.in_domain) >= 1000
    assert len(pocket.out_of_domain) >= 1000
    assert {"heuristic", "subcase"} <= set(pocket.out_of_domain)
    for frame in (pocket.train, pocket.validation, pocket.in_domain, pocket.out_of_domain):
        assert set(frame.label) == {0, 1}
    seen = set(zip(pocket.train.premise, pocket.train.hypothesis, strict=True))
    for frame in (pocket.validation, pocket.in_domain, pocket.out_of_domain):
        assert not seen & set(zip(frame.premise, frame.hypothesis, strict=True))
    assert (ROOT / "data" / "pocket" / "hans.tsv").is_file()
