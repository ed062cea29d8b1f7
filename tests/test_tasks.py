"""Tasks: labels, ids, splits and samples are what they say, and damage is one clear line."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft import ROOT, UserError
from llmft.nli.tasks import Task, labelled, load, sample, shared_pairs
from tests.pairs import FORMATS, hans, mnli, pairs_of


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


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_a_task(folder: Path, suffix: str) -> None:
    expected = load(str(folder))
    for path in [*folder.iterdir()]:
        records = pd.read_csv(path, sep=None, engine="python").to_dict("records")
        path.unlink()
        FORMATS[suffix](records, folder / f"{path.stem}{suffix}")
    task = load(str(folder))
    for name, frame in expected.sets.items():
        pd.testing.assert_frame_equal(task.sets[name], frame)


def content(task: Task) -> str:
    """A digest of every cell of every set, and of what the labels were taken to mean."""
    labels = task.labels.assign(file=task.labels["file"].str.split(".").str[0])
    frames = task.sets | {"labels": labels}
    text = "".join(name + frame.to_csv(index=False) for name, frame in frames.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_content_of_a_task_stays_in_every_format(tmp_path: Path, suffix: str) -> None:
    # Computed before `sources` was rewritten: what is stored was measured on these very tables.
    for name, frame in (("train", mnli(300, "t")), ("test", mnli(120)), ("hans", hans(120))):
        FORMATS[suffix](frame.to_dict("records"), tmp_path / f"{name}{suffix}")
    tasks = [load(str(tmp_path), limit=n, labels="neutral: not entailment") for n in (0, 16)]
    assert [content(task) for task in tasks] == ["997584082ade730b", "e11d6e2a0bc5bfad"]
    if suffix == ".csv":
        assert [task.digest for task in tasks] == ["cf0562ee496a7a09"] * 2


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
    message = load(str(folder), labels="neutral: not entailment")
    assert message.digest != usual.digest
    assert len(message.in_domain) == 120 > len(usual.in_domain)
    pd.testing.assert_frame_equal(message.out_of_domain, usual.out_of_domain)  # HANS is binary
    with pytest.raises(UserError, match=f"task {folder} has no label 'netural'"):
        load(str(folder), labels="netural: not entailment")


def test_without_validation_train_must_be_large_enough(folder: Path) -> None:
    (folder / "validation.csv").unlink()
    mnli(12).to_csv(folder / "train.csv", index=False)
    with pytest.raises(UserError, match="too few examples to set some aside: add a validation"):
        load(str(folder))


def test_without_a_validation_file_it_comes_from_train(folder: Path) -> None:
    (folder / "validation.csv").unlink()
    task = load(str(folder))
    assert len(task.validation) == 20
    assert len(task.train) == 180
    assert set(task.validation.premise.str[:5]) == {"train"}
    assert not set(task.validation.id) & set(task.train.id)
    pd.testing.assert_frame_equal(load(str(folder)).validation, task.validation)


@pytest.mark.parametrize("limit", [2, 7, 40, 79])
def test_limit_keeps_each_stratums_share(folder: Path, limit: int) -> None:
    whole, task = load(str(folder)), load(str(folder), limit=limit)
    for part, full in (
        (task.in_domain, whole.in_domain),
        (task.out_of_domain, whole.out_of_domain),
    ):
        assert len(part) == limit
        assert part.id.is_unique
        assert list(part.id) == [i for i in full.id if i in set(part.id)]  # file order
        share = full.groupby("label").size() * limit / len(full)
        assert (part.groupby("label").size() - share).abs().max() < 1
        if "subcase" in full:
            of = part.groupby("label").size() / full.groupby("label").size()
            share = full.groupby(["label", "subcase"]).size() * of
            counts = part.groupby(["label", "subcase"]).size()
            assert (counts.reindex(share.index, fill_value=0) - share).abs().max() < 1
    pd.testing.assert_frame_equal(task.train, whole.train)


@pytest.mark.parametrize("limit", [10, 14, 20, 40, 100])
def test_a_limit_keeps_the_labels_balance_however_many_subcases(folder: Path, limit: int) -> None:
    # As HANS: thirty subcases of equal size, each with one label. Their first ones are entailed.
    names = [f"l{'en'[i % 2]}_{i // 2:02}" for i in range(30)] * 10
    frame = hans(300).assign(subcase=names)
    frame.to_csv(folder / "hans.tsv", sep="\t", index=False)
    part = load(str(folder), limit=limit).out_of_domain
    assert part.label.value_counts().to_dict() == {0: limit // 2, 1: limit // 2}


def test_a_limit_keeps_groups_without_a_name(folder: Path) -> None:
    rows = hans(120).to_dict("records")
    (folder / "hans.tsv").unlink()
    nameless = [
        row | {"subcase": row["subcase"] if i % 4 > 1 else None} for i, row in enumerate(rows)
    ]
    for suffix, write in FORMATS.items():
        write(nameless, folder / f"hans{suffix}")
        part = load(str(folder), limit=60).out_of_domain
        assert len(part) == 60
        assert (part.subcase == "no subcase").sum() == 30
        (folder / f"hans{suffix}").unlink()


def test_a_limit_that_keeps_one_label_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="limit = 1 keeps one label in-domain: give a larger one"):
        load(str(folder), limit=1)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "test.csv").unlink(), "has no test file"),
        (lambda f: (f / "train.tsv").write_text(""), "has both train.csv and train.tsv: keep one"),
        (lambda f: mnli(9).to_csv(f / "out-of-domain.csv"), "has both hans.tsv and out-of-domain"),
        (lambda f: (f / "train.csv").write_text("premise;hypothesis;label\na;b;1\n"), "no column"),
        (lambda f: (f / "test.csv").write_text("premise,hypothesis,label\n"), "has no pairs: both"),
        (lambda f: mnli(9).assign(idx=7).to_csv(f / "test.csv"), "id 'test-7' appears twice"),
    ],
)
def test_damaged_files_are_one_line(folder: Path, damage: Any, line: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=line) as error:
        load(str(folder))
    assert "\n" not in str(error.value)


def test_a_folder_is_looked_up_where_the_program_was_started(
    folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    digest = load(str(folder)).digest
    monkeypatch.chdir(folder.parent)
    assert load(folder.name).digest == load(f"./{folder.name}").digest == digest
    monkeypatch.chdir(folder)
    assert load(".").digest == digest
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load(f"~/{folder.name}").digest == digest
    with pytest.raises(UserError, match="unknown task 'snli': use pocket, mnli-han") as e:
        load("snli")
    assert f"{str(folder / 'snli')!r} is no folder" in str(e.value)  # where it looked
    with pytest.raises(UserError, match=r"train.csv' is a file"):
        load("train.csv")


@pytest.mark.parametrize(
    "name", ["", "~nosuchuser/x", "a\0b", "x" * 5_000, "x/" * 2_400, "a\nb", "Pocket", "mnli"]
)
def test_no_folders_name_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown task|not a path|path is empty") as error:
        load(name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "name",
    (
        "dev.csv ood.csv out_of_domain.csv valid.tsv Train.csv validation.json test.CSV "
        "validation.csv.gz test.xlsx hans.txt Out-of-Domain.jsonl"
    ).split(),
)
def test_a_file_that_was_meant_and_is_not_read_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("premise,hypothesis,label\n")
    with pytest.raises(UserError, match=f"not read: {name}; the names are train, mixed") as e:
        load(str(folder))
    assert "mixed, validation, test, hans or out-of-domain, with .csv" in str(e.value)
    (folder / name).rename(folder / "notes.csv")  # as it says
    assert load(str(folder)).unread == ("notes.csv",)


def test_other_files_are_listed_and_left_alone(folder: Path) -> None:
    for name in ("test_mismatched.tsv", "README.md", "train.py", "test.csv.bak"):
        (folder / name).write_text("")
    assert load(str(folder)).unread == ("test_mismatched.tsv",)


def test_a_misnamed_training_file_is_named(folder: Path) -> None:
    (folder / "train.csv").rename(folder / "training.csv")
    with pytest.raises(UserError, match=r"has no train file \(.*\); there: training.csv"):
        load(str(folder))


@pytest.mark.parametrize("part", ["train", "validation", "test", "out-of-domain"])
@pytest.mark.parametrize(("word", "label"), [("entailment", 0), ("contradiction", 1)])
def test_a_set_with_one_label_is_refused(folder: Path, part: str, word: str, label: int) -> None:
    (folder / "hans.tsv").unlink()
    for name in {part, "out-of-domain"}:
        mnli(60, name).to_csv(folder / f"{name}.csv", index=False)
    one = mnli(60, part)
    one = one.assign(label=[word, "neutral"] * 30)
    one.to_csv(folder / f"{part}.csv", index=False)
    name = ("entailment", "not entailment")[label]
    with pytest.raises(
        UserError, match=f"has only {name} pairs \\({word}\\), without neutral \\(30\\)"
    ) as error:
        load(str(folder))
    assert f"({part}.csv)" in str(error.value)
    if label == 0:  # what it advises works
        message = str(error.value).split('"')[1]
        assert message == "neutral: not entailment"
        assert str(error.value).endswith("it has 30 not entailment")
        assert (load(str(folder), labels=message).labels.meaning != "drop").all()


def test_a_set_of_which_all_is_dropped_is_refused(folder: Path) -> None:
    hans(120).assign(gold_label="neutral").to_csv(folder / "hans.tsv", sep="\t", index=False)
    with pytest.raises(
        UserError, match=r"out-of-domain \(hans.tsv\) has no pairs, without neutral"
    ):
        load(str(folder))


def test_an_id_is_the_same_whatever_its_type(folder: Path) -> None:
    (folder / "test.csv").unlink()
    rows_of_file = mnli(30).to_dict("records")
    for ids in (["3", 3], [3, 3.0], ["3.0", 3]):
        twice = [row | {"idx": idx} for row, idx in zip(rows_of_file[::29], ids, strict=True)]
        FORMATS[".jsonl"]([twice[0], *rows_of_file[4:29], twice[1]], folder / "test.jsonl")
        with pytest.raises(UserError, match="the id 'test-3' appears twice: make ids unique, or"):
            load(str(folder))


def test_what_each_label_meant_is_told_with_an_example(folder: Path) -> None:
    result = load(str(folder)).labels
    assert list(result.columns) == ["file", "label", "meaning", "rows", "premise", "hypothesis"]
    assert result[result.file == "test.csv"].to_numpy().tolist() == [
        ["test.csv", "0", "entailment", 40, "test0", "h0"],
        ["test.csv", "1", "drop", 40, "test1", "h1"],
        ["test.csv", "2", "not entailment", 40, "test2", "h2"],
    ]
    assert list(result[result.file == "hans.tsv"].label) == ["entailment", "non-entailment"]


def test_pairs_that_are_learnt_are_not_tested_on(folder: Path) -> None:
    train, test = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "test"))
    texts = ["premise", "hypothesis"]
    test.loc[:5, texts] = train.loc[:5, texts]
    test.to_csv(folder / "test.csv", index=False)
    with pytest.raises(UserError, match="4 of the 80 pairs of in-domain stand in train, too, such"):
        load(str(folder))
    test[6:].to_csv(folder / "test.csv", index=False)  # as it says
    assert shared_pairs(load(str(folder))).empty


def test_few_shared_pairs_are_counted(folder: Path) -> None:
    task = load(str(folder))
    assert shared_pairs(task).empty
    large = pd.concat([task.in_domain] * 2, ignore_index=True)  # each pair twice
    large.loc[3, ["premise", "hypothesis"]] = task.train.loc[7, ["premise", "hypothesis"]]
    result = shared_pairs(replace(task, in_domain=large))
    assert result.to_numpy().tolist() == [
        ["in-domain", "train", 1, 160, large.id[3]],
        ["in-domain", "in-domain", 79, 160, large.id[80]],
    ]


POOL = pairs_of(mnli(600))


@given(half=st.integers(0, 200), seed=st.integers(0, 2**31))
def test_samples_are_balanced_distinct_and_repeatable(half: int, seed: int) -> None:
    result = sample(POOL, 2 * half, seed)
    assert result.label.value_counts().to_dict() == ({0: half, 1: half} if half else {})
    assert result.id.is_unique
    assert set(result.id) <= set(POOL.id)
    assert list(result.columns) == list(POOL.columns)
    pd.testing.assert_frame_equal(sample(POOL, 2 * half, seed), result)


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


@pytest.fixture(scope="module")
def pocket() -> Task:
    return load("pocket")


def test_the_pocket_task(pocket: Task) -> None:
    assert len(pocket.in_domain) >= 1000
    assert len(pocket.out_of_domain) >= 1000
    assert {"heuristic", "subcase"} <= set(pocket.out_of_domain)
    for frame in (pocket.train, pocket.validation, pocket.in_domain, pocket.out_of_domain):
        assert set(frame.label) == {0, 1}
    training = set(zip(pocket.train.premise, pocket.train.hypothesis, strict=True))
    for frame in (pocket.validation, pocket.in_domain, pocket.out_of_domain):
        assert not training & set(zip(frame.premise, frame.hypothesis, strict=True))
    assert shared_pairs(pocket).empty


def test_the_pocket_tasks_digest_stays(pocket: Task, tmp_path: Path) -> None:
    # The published results are keyed by it.
    assert pocket.digest == "ce0c4765950563d5"
    shutil.copytree(ROOT / "data" / "pocket", tmp_path / "copy")
    assert load(str(tmp_path / "copy")).digest == pocket.digest
    assert pocket.train.id.iloc[-1] == "train-5999"
    few = load("pocket", limit=16)
    assert few.digest == pocket.digest
    assert [content(pocket), content(few)] == ["b3b4f6d1cd6125a0", "2de41e0d1d3d3636"]
    assert pocket.labels.groupby("file").rows.sum().to_dict() == {
        "train.csv": 6000,
        "validation.csv": 1200,
        "test.csv": 1200,
        "hans.tsv": 1200,
    }


@pytest.fixture(scope="module")
def crossed() -> Task:
    return load("pocket-rules")


@pytest.mark.parametrize(
    ("n", "purity", "against"),
    [(32, 0.5, 8), (32, 0.625, 6), (32, 1.0, 0), (2, 0.5, 1), (512, 0.9, 26)],
)
def test_each_label_has_its_share_of_pairs_that_contradict_the_cue(
    crossed: Task, n: int, purity: float, against: int
) -> None:
    result = sample(crossed.train, n, 3, purity)
    negated = result.hypothesis.str.contains(" never ")
    assert result.id.is_unique
    assert result.label.value_counts().to_dict() == {0: n // 2, 1: n // 2}
    for label in (0, 1):
        wrong = negated[result.label == label] != bool(label)
        assert wrong.sum() == against
    assert set(sample(crossed.train, 2, 3, purity).id) <= set(result.id)


def test_a_pool_that_lacks_pairs_against_the_cue_is_refused(pocket: Task) -> None:
    line = "cannot draw 512 examples: the pool has 93 of label 'entailment' that contradict the cue"
    with pytest.raises(UserError, match=line):
        sample(pocket.train, 512, 0, 0.5)


def test_mixed_pairs_take_the_place_of_others_in_each_label(crossed: Task) -> None:
    draws = [labelled(crossed, 32, 5, 0.75, share) for share in (0.0, 0.25, 1.0)]
    kinds = [[*draw[draw.id.str.startswith("mixed")].label] for draw in draws]
    assert [(k.count(0), k.count(1)) for k in kinds] == [(0, 0), (4, 4), (16, 16)]
    assert {*draws[0].id} >= {i for i in draws[1].id if i.startswith("train")}
    assert {*draws[2].id} >= {i for i in draws[1].id if i.startswith("mixed")}
    last = [draw.id.str.startswith("mixed").to_numpy().nonzero()[0].max() for draw in draws[1:]]
    assert last[0] > 8  # they do not come first
    pd.testing.assert_frame_equal(draws[0], sample(crossed.train, 32, 5, 0.75))
    pd.testing.assert_frame_equal(labelled(crossed, 8, 1), sample(crossed.train, 8, 1))


def test_a_task_without_mixed_pairs_has_none_to_draw(pocket: Task) -> None:
    with pytest.raises(UserError, match="task pocket has no set `mixed`"):
        labelled(pocket, 8, 0, mixed=0.5)


def test_mixed_pairs_are_not_tested_on(folder: Path) -> None:
    test = pd.read_csv(folder / "test.csv")
    test.iloc[:40].to_csv(folder / "mixed.csv", index=False)
    with pytest.raises(UserError, match="of in-domain stand in mixed, too"):
        load(str(folder))
