"""What a grid measured: its parts, its joins, and its files read back."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import UserError
from llmft.engine.spec import Spec
from llmft.study import grids, metrics, results
from llmft.study.results import ANSWER, FIELDS, Results

from .small import QUERIES, ZERO_SHOT, run


@pytest.fixture
def grid(base: Spec) -> grids.Grid:
    """The run of two shots and draw 0 is in three groups."""
    return {
        "ICL": grids.product(base, shots=[4, 2], data_seed=[0, 1]),
        "orders": grids.product(base, order_seed=[1, 0]),
        "middle": [base],
        "zero-shot": [replace(base, **ZERO_SHOT)],
        "none": [],
    }


@pytest.fixture
def found(grid: grids.Grid, tmp_path: Path) -> Results:
    return run(grid, tmp_path / "store", study="tiny")


def write(folder: Path, name: str, found: Results) -> Path:
    """What `runs.run` leaves of a chapter."""
    (folder / f"{name}.csv").write_bytes(found.csv())
    found.answers().to_parquet(folder / f"{name}.parquet", index=False)
    return folder / f"{name}.csv"


def test_each_answer_has_what_its_run_and_its_pair_say(found: Results) -> None:
    rows, answers = found.rows, found.predictions
    assert len(rows) == 6  # 4 of the curve, another order, zero-shot
    assert len(answers) == 6 * QUERIES
    named = rows.set_index("key")
    for name in (*FIELDS, "study"):
        assert answers[name].tolist() == answers["key"].map(named[name]).tolist()
    drawn = answers.drop_duplicates("key").set_index("key")["draw"]
    assert drawn[rows["key"]].tolist() == ["0-0-0", "1-0-0", "0-0-0", "1-0-0", "0-1-0", ""]
    out = answers[answers["domain"] == "out-of-domain"]
    assert set(out["subcase"]) == {"swap", "passive"}
    assert set(out["heuristic"]) == {"lexical_overlap"}
    assert answers.loc[answers["domain"] == "in-domain", "subcase"].isna().all()
    assert found.answers().columns.tolist() == list(ANSWER)


def test_a_part_is_the_runs_of_its_groups_in_their_order(found: Results) -> None:
    part = found.part("orders", "middle")
    assert part.rows["group"].tolist() == ["orders", "orders", "middle"]
    assert part.rows["order_seed"].tolist() == [1, 0, 0]
    assert part.predictions["group"].tolist() == ["orders"] * 2 * QUERIES + ["middle"] * QUERIES
    assert list(part.groups) == ["orders", "middle"]
    again = part.part("middle")  # a part of a part is no other
    pd.testing.assert_frame_equal(again.rows, found.part("middle").rows)
    pd.testing.assert_frame_equal(again.predictions, found.part("middle").predictions)
    curve = found.part("ICL").rows
    assert curve[["shots", "data_seed"]].to_numpy().tolist() == [[4, 0], [4, 1], [2, 0], [2, 1]]
    assert len(found.part("ICL", "ICL").rows) == 4
    assert found.part("none").rows.empty
    assert len(found.part("none", "middle").rows) == 1
    with pytest.raises(UserError, match="no runs are for 'round 2': there are ICL, orders"):
        found.part("round 2")


def test_studies_are_joined_and_kept_apart(found: Results, base: Spec, tmp_path: Path) -> None:
    """The other study has the same runs for something else."""
    other = {"ICL": [base], "more": [replace(base, shots=4)], "none": [base]}
    both = results.joined([found, run(other, tmp_path / "store", study="other")])
    assert len(both.rows) == 6 + 2
    assert both.part("ICL").rows.groupby("study").size().to_dict() == {"tiny": 4, "other": 1}
    assert both.part("none").rows["study"].tolist() == ["other"]
    assert both.part("more").predictions["study"].unique().tolist() == ["other"]
    assert len(both.answers()) == 6 * QUERIES, "what both share is stored once"
    assert both.rows["study"].isin(["tiny", "other"]).all()


def test_what_a_grid_left_is_read_back(
    base: Spec, lora: Spec, found: Results, grid: grids.Grid, tmp_path: Path
) -> None:
    more = {"search": grids.product(lora, learning_rate=[lora.learning_rate * 0.3, 1e-5])}
    more["middle"] = [base]
    second = run(more, tmp_path / "store", study="tiny")
    files = [write(tmp_path, "icl", found), write(tmp_path, "lora", second)]
    read = results.read(files)
    assert read.rows["key"].tolist() == [*found.rows["key"], *second.rows["key"][:2]]
    chosen = results.select(read, {"tiny": grid | more})
    assert list(chosen.groups) == [*grid, "search"]
    for whole, name in [*((found, name) for name in grid), (second, "search")]:
        one, other = whole.part(name), chosen.part(name)
        columns = [*ANSWER, *FIELDS, "study", "draw", "heuristic", "subcase"]
        order = ["key", "domain", "id"]
        pd.testing.assert_frame_equal(
            *(f.predictions[columns].sort_values(order, ignore_index=True) for f in (one, other)),
            check_dtype=False,  # no row to tell it from where there is none
        )
        for column in ("curve", "in_domain_accuracy", "eval_seconds", "objective", "alpha"):
            assert one.rows[column].tolist() == other.rows[column].tolist()
    with pytest.raises(UserError, match=r"the results of tiny have no run icl .* draw 7"):
        results.select(read, {"tiny": {"ICL": [replace(base, data_seed=7)]}})
    with pytest.raises(UserError, match="the results of huge have no run icl"):
        results.select(read, {"huge": {"ICL": [base]}})


def test_a_run_of_other_data_in_another_chapter_is_one_line(found: Results, base: Spec) -> None:
    """As when one chapter was run again since the weights changed, and another was not."""
    second = Results(found.rows.assign(key=found.rows["key"].str[::-1]), found.predictions, {})
    with pytest.raises(
        UserError, match=r"two runs for one, .* of different data, weights"
    ) as error:
        results.select(results.joined([found, second]), {"tiny": {"ICL": [base]}})
    assert "\n" not in str(error.value)


def test_results_of_other_data_are_one_line(found: Results, base: Spec, tmp_path: Path) -> None:
    file = write(tmp_path, "icl", found)
    test = Path(base.task) / "test.csv"
    before = test.read_bytes()
    try:
        test.write_bytes(before + b"The doctor ran .,The doctor sat .,0,77\n")
        with pytest.raises(UserError, match=r"the data of task .* is not what was measured"):
            results.read([file])
    finally:
        test.write_bytes(before)
    assert len(results.read([file]).rows) == 6


def test_results_that_are_not_there_are_one_line(found: Results, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv.*run the chapter none first"):
        results.read([tmp_path / "none.csv"])
    file = write(tmp_path, "half", found)
    pd.read_parquet(tmp_path / "half.parquet").iloc[:0].to_parquet(tmp_path / "half.parquet")
    with pytest.raises(UserError, match="no answers of run"):
        results.read([file])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="curve"), "no column curve"),
        (lambda t: t.drop(columns="shots"), "no column shots"),
        (lambda t: t.drop(columns="study"), "no column study"),
        (lambda t: t.assign(curve="rubbish"), "Expecting value"),
        (lambda t: t.assign(curve="[" * 100_000), "recursion"),
        (lambda t: t.assign(curve=None), "JSON object"),
        (lambda t: t.assign(shots="many"), "invalid literal for int"),
    ],
)
def test_results_with_rubbish_are_one_line(
    base: Spec, tmp_path: Path, change: Any, words: str
) -> None:
    file = write(tmp_path, "icl", run([base], tmp_path, study="tiny"))
    change(pd.read_csv(file, keep_default_na=False)).to_csv(file, index=False)
    with pytest.raises(UserError, match=words) as caught:
        results.read([file])
    assert "run the chapter icl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answers_with_rubbish_are_one_line(base: Spec, tmp_path: Path) -> None:
    file = write(tmp_path, "icl", run([base], tmp_path, study="tiny"))
    answers = pd.read_parquet(tmp_path / "icl.parquet")
    answers.drop(columns="logp_not").to_parquet(tmp_path / "icl.parquet")
    with pytest.raises(UserError, match=r"\.parquet cannot be read .*logp_not"):
        results.read([file])
    (tmp_path / "icl.parquet").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="run the chapter icl"):
        results.read([file])
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="run the chapter icl"):
        results.read([file])


# --- frames ------------------------------------------------------------------------------------


def test_by_domain(found: Results) -> None:
    rows = found.part("ICL").rows
    long = results.by_domain(rows)
    assert len(long) == 8
    part = long[long["domain"] == "out-of-domain"].reset_index()
    for name in ("accuracy", "nll", "brier", "ece", "share_entailment"):
        assert part[name].tolist() == rows[f"out_of_domain_{name}"].tolist()
    assert part["n"].eq(8).all()
    mine = found.predictions[found.predictions["key"] == rows["key"][0]]
    mine = mine[mine["domain"] == "out-of-domain"]
    assert part["accuracy"][0] == metrics.accuracy(mine[metrics.LOGP], mine["label"])


def test_curves_are_a_row_a_run_and_measurement(lora: Spec, tmp_path: Path) -> None:
    found = run(grids.product(lora, init_seed=[0, 1]), tmp_path, study="tiny")
    curves = results.curves(found.rows, ["init_seed"])
    assert curves["init_seed"].tolist() == [0] * 4 + [1] * 4
    assert curves["update"].tolist() == [0, 1, 2, 3] * 2
    assert curves["epoch"].tolist() == [0, 1, 2, 3] * 2
    assert curves["validation_loss"].tolist()[:4] == [
        p["validation_loss"] for p in found.rows["curve"][0]
    ]
    assert curves["train_loss"][0] == pytest.approx(curves["train_loss"][4]), "no LoRA as yet"
    read = results.read([write(tmp_path, "lora", found)])
    assert results.curves(read.rows, ["init_seed"]).equals(curves)


@pytest.mark.parametrize("column", ["device_name", "threads", "clock", "memory_kind"])
def test_costs_are_compared_on_one_machine(base: Spec, tmp_path: Path, column: str) -> None:
    both = [*grids.product(base, data_seed=[0, 1]), replace(base, data_seed=0, pattern="gpt-3")]
    rows = run(both, tmp_path, study="tiny").rows
    assert results.on_one_machine(rows).equals(rows)
    spread = rows.assign(**{column: ["a", "b", "b"]})
    assert results.on_one_machine(spread)["data_seed"].tolist() == [1, 0], "b made every kind"
    parts = [spread, rows.assign(study="other")]
    assert len(results.on_one_machine(pd.concat(parts))) == 2 + 3, "each study has its machine"
    four = pd.concat([rows, rows[:1], rows[2:], rows[:1]], ignore_index=True)
    able = four.assign(**{column: ["a", "b", "a", "b", "b", "b"]})
    assert results.on_one_machine(able).index.tolist() == [1, 3, 4, 5], "b made more"
    unknown = rows.assign(**{column: [None, "b", "b"]})
    assert len(results.on_one_machine(unknown)) == 2
    # No machine made both kinds: that which made more runs, and the other kind has no cost.
    assert len(results.on_one_machine(rows.assign(**{column: ["a", "a", "b"]}))) == 2


def test_a_later_field_that_some_rows_lack_has_its_type() -> None:
    """Pandas makes a float of a whole number beside a gap."""
    table = pd.DataFrame([asdict(Spec())] * 2).assign(key="k", study="s", curve="[]")
    table = table.drop(columns="purity").assign(fresh=[1.0, np.nan], teacher=[np.nan, "first"])
    filled = results._typed(table)
    assert filled["fresh"].tolist() == [1, 0]
    assert filled["fresh"].dtype == int
    assert filled["teacher"].tolist() == ["", "first"]
    assert filled["purity"].tolist() == [0.0, 0.0]
