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


def mnli(n: int, source: str = "p") -> pd.DataFrame:
    """`n` rows in MNLI's columns, labels 0, 1, 2 in turn."""
    return pd.DataFrame(
        {
            "premise": [f"{source}{i}" for i in range(n)],
            "hypothesis": [f"h{i}" for i in range(n)],
            "label": [i % 3 for i in range(n)],
            "idx": range(n),
        }
    )


def hans(n: int) -> pd.DataFrame:
    """`n` rows in HANS's columns: three subcases of unequal size."""
    return pd.DataFrame(
        {
            "gold_label": [("entailment", "non-entailment")[i % 2] for i in range(n)],
            "sentence1": [f"s{i}" for i in range(n)],
            "sentence2": [f"t{i}" for i in range(n)],
            "pairID": [f"ex{i}" for i in range(n)],
            "heuristic": "lexical_overlap",
            "subcase": [("a", "b", "b", "c", "c", "c")[i % 6] for i in range(n)],
            "template": "temp1",
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mnli(300, "train").to_csv(tmp_path / "train.csv", index=False)
    mnli(60, "validation").to_csv(tmp_path / "validation.csv", index=False)
    mnli(120, "test").to_csv(tmp_path / "test.csv", index=False)
    hans(120).to_csv(tmp_path / "hans.tsv", index=False, sep="\t")
    return tmp_path


def test_mnlis_numbers_become_binary_and_neutral_goes() -> None:
    found = from_mnli(mnli(6), "train")
    assert list(found.columns) == ["id", "premise", "hypothesis", "label"]
    assert list(found.id) == ["train-0", "train-2", "train-3", "train-5"]
    assert list(found.label) == [0, 1, 0, 1]
    assert list(found.premise) == ["p0", "p2", "p3", "p5"]


def test_words_mean_what_the_numbers_mean() -> None:
    frame = mnli(6)
    words = frame.assign(
        label=frame.label.map(["entailment", "neutral", "contradiction"].__getitem__)
    )
    pd.testing.assert_frame_equal(from_mnli(words), from_mnli(frame))


def test_two_numbers_alone_are_ambiguous() -> None:
    with pytest.raises(UserError, match="labels 0 and 1 can mean neutral or not"):
        from_mnli(mnli(6).query("label != 2"))


def test_labels_can_be_said_to_mean_something_else() -> None:
    frame = mnli(6)
    kept = from_mnli(frame, labels="neutral: not entailment")
    assert list(kept.label) == [0, 1, 1] * 2
    letters = frame.assign(label=frame.label.map(list("ENC").__getitem__))
    said = from_mnli(letters, labels="e: entailment, n: drop, c: not entailment")
    pd.testing.assert_frame_equal(said, from_mnli(frame))
    two = frame.assign(label=[1, 0, 1, 0, 1, 0])
    assert list(from_mnli(two, labels="1: entailment, 0: not entailment").label) == [0, 1] * 3
    as_float = two.assign(label=two.label.astype(float))
    assert list(from_mnli(as_float, labels="0:entailment,1:not entailment").label) == [1, 0] * 3
    colon = frame.assign(label="a:b")
    assert set(from_mnli(colon, labels="a:b: not entailment").label) == {1}


def test_numbers_that_are_said_stand_in_place_of_mnlis() -> None:
    with pytest.raises(UserError, match="unknown label '2' in row 3"):
        from_mnli(mnli(6), labels="0: entailment, 1: not entailment")


@pytest.mark.parametrize("labels", ["e", "e: yes", ": drop", "e: drop, E: entailment", "e=drop"])
def test_mappings_that_cannot_be_read(labels: str) -> None:
    with pytest.raises(UserError, match="is not one of LABEL: entailment") as error:
        meanings(labels)
    assert "\n" not in str(error.value)


def test_the_columns_of_rte_and_of_mnlis_own_files() -> None:
    frame = mnli(6).rename(columns={"premise": "sentence1", "hypothesis": "sentence2"})
    pd.testing.assert_frame_equal(from_mnli(frame), from_mnli(mnli(6)))
    own = frame.rename(columns={"label": "gold_label", "idx": "pairID"})
    pd.testing.assert_frame_equal(from_mnli(own), from_mnli(mnli(6)))
    grouped = from_mnli(mnli(6).assign(subcase="genre"))
    assert set(grouped.subcase) == {"genre"}


def test_hans_keeps_heuristic_and_subcase() -> None:
    found = from_hans(hans(4))
    assert list(found.columns) == ["id", "premise", "hypothesis", "label", "heuristic", "subcase"]
    assert list(found.label) == [0, 1, 0, 1]
    assert list(found.id) == ["hans-ex0", "hans-ex1", "hans-ex2", "hans-ex3"]
    assert list(found.subcase) == ["a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda frame: frame.drop(columns="label"), "no column label"),
        (lambda frame: frame.assign(label="perhaps"), "unknown label 'perhaps' in row 1"),
        (lambda frame: frame.assign(label=[0, 2, -1]), "unknown label '-1' in row 3"),
        (lambda frame: frame.assign(premise=["a", None, "b"]), "is missing in row 2"),
        (lambda frame: frame.rename(columns={"label": "y"}), r"there: premise, hypothesis, y, idx"),
    ],
)
def test_damaged_frames(change: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        from_mnli(change(mnli(3)))


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


def test_hans_is_checked_and_cached(shared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    source = shared / "data" / "hans" / "heuristics_evaluation_set.txt.gz"
    (tmp_path / "llmft").mkdir()
    cached = tmp_path / "llmft" / "heuristics_evaluation_set.txt"
    with gzip.open(source) as packed, cached.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    path = hans_file()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == HANS_SHA256
    found = from_hans(read(path))
    assert len(found) == 30_000
    assert found.groupby(["heuristic", "label"]).size().tolist() == [5000] * 6
    assert found.heuristic.value_counts().tolist() == [10_000] * 3
    assert found.label.value_counts().tolist() == [15_000] * 2
    assert found.subcase.value_counts().tolist() == [1000] * 30
    assert found.id.is_unique
    for subcase, part in found.groupby("subcase"):
        assert set(part.label) == {int(str(subcase)[1] == "n")}


def no_network(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("Name or service not known")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty cache, and no Hub behind it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def test_no_network_is_one_line(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    (home / "llmft").mkdir()
    (home / "llmft" / "heuristics_evaluation_set.txt").write_text("cut short")
    with pytest.raises(UserError, match=r"HANS cannot be downloaded .* or put the file") as error:
        load("mnli-hans")
    assert "\n" not in str(error.value)


def test_another_file_than_the_pinned_one_is_refused(home: Path, monkeypatch: Any) -> None:
    (home / "other").write_text("gold_label\n")
    real = urllib.request.urlopen
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: real((home / "other").as_uri()))
    with pytest.raises(UserError, match="not the pinned file"):
        hans_file()


def test_real_mnli_goes_through_the_same_parser(shared: Path) -> None:
    frame = pd.read_json(shared / "data" / "mnli" / "validation.jsonl.gz", lines=True, dtype=False)
    found = from_mnli(frame, "validation")
    assert len(found) == (frame.label != "neutral").sum()
    assert 0.4 < found.label.mean() < 0.6


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
