"""The tables that chapters share, on frames small enough to count by hand."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import asdict
from html import unescape
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import UserError, params
from llmft.engine.spec import Spec
from llmft.nli import tasks
from llmft.params import Study
from llmft.report import sections, stats, tables
from llmft.study import baselines, metrics
from llmft.study.results import FIELDS, Results


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is shown comes to stand here."""
    texts: list[str] = []
    monkeypatch.setattr(tables, "say", texts.append)
    return texts


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Study]]:
    """Studies of these tasks, by their names, with other parameters than the pocket world's."""

    def studies(given: dict[str, tasks.Task], **changes: Any) -> list[Study]:
        monkeypatch.setattr(sections, "task_of", lambda study: given[study.study])
        usual = params.study("pocket")
        return [usual.model_copy(update={"study": name, **changes}) for name in given]

    return studies


def results(rows: pd.DataFrame) -> Results:
    return Results(rows, pd.DataFrame(), {})


DRAWN = "median draw (lowest to highest)"


def read(text: str) -> pd.DataFrame:
    """A Markdown table as a frame of texts; what heads some lines is the column `of`."""
    head, _, *rows = [
        [unescape(cell.strip()) for cell in line.strip("|").split("|")]
        for line in text.splitlines()
    ]
    frame = pd.DataFrame(rows, columns=head)
    heads = frame[head[0]].str.extract(r"^\*\*(.*)\*\*$", expand=False)
    if heads.notna().any():
        assert (frame[heads.notna()].iloc[:, 1:] == "").all(axis=None)
        frame = frame.assign(of=heads.ffill())[heads.isna()].reset_index(drop=True)
    return frame


def answers_of(right: dict[tuple[str, int], list[list[int]]], study: str = "opt") -> pd.DataFrame:
    """Rows from (domain, shots) and, a row a draw, which of its examples were right.

    Labels alternate, and a prediction is right or wrong with probability 0.8.
    """
    rows = []
    for (domain, shots), draws in right.items():
        for draw, examples in enumerate(draws):
            for i, correct in enumerate(examples):
                label = i % 2
                p = 0.8 if (label == 0) == bool(correct) else 0.2
                rows.append(
                    {
                        "key": f"{study}-{shots}-{draw}",
                        "study": study,
                        "shots": shots,
                        "draw": f"{draw}-0-0" if shots else "",
                        "domain": domain,
                        "id": f"{domain}-{i}",
                        "label": label,
                        metrics.LOGP[0]: np.log(p),
                        metrics.LOGP[1]: np.log(1 - p),
                    }
                )
    return metrics.with_scores(pd.DataFrame(rows))


INSIDE, OUTSIDE = "in-domain", "out-of-domain"
ANSWERS = answers_of(
    {
        (INSIDE, 0): [[1, 0, 0, 1]],
        (INSIDE, 8): [[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 0, 1]],
        (OUTSIDE, 8): [[1, 0], [0, 0], [1, 1], [1, 0], [1, 0]],
    }
)
BY = ["study", "domain", "shots"]


def test_what_is_chosen_has_a_row_a_draw_with_its_id() -> None:
    found = sections.chosen(ANSWERS, shots=8, domain=OUTSIDE)
    assert found.values.tolist() == [[1, 0], [0, 0], [1, 1], [1, 0], [1, 0]]
    assert found.draws == tuple(f"{i}-0-0" for i in range(5))
    assert found.examples == (f"{OUTSIDE}-0", f"{OUTSIDE}-1")
    assert found.strata == ("0", "1")
    twice = ANSWERS.assign(nll=2 * ANSWERS["correct"])
    none = sections.chosen(twice, "nll", shots=0)
    assert none.values.tolist() == [[2, 0, 0, 2]]
    assert none.draws == ()


def test_choosing_what_is_not_there_is_one_line() -> None:
    missing: list[dict[str, Any]] = [{"shots": 16}, {"shots": 0, "domain": OUTSIDE}]
    for where in missing:
        with pytest.raises(UserError, match="no run with shots = ") as caught:
            sections.chosen(ANSWERS, **where)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no run with shots = 4, domain = in-domain"):
        sections.difference(ANSWERS, {"shots": 8}, {"shots": 4, "domain": INSIDE})


def test_a_difference_is_paired_on_draws_and_on_examples_of_one_domain() -> None:
    which: list[dict[str, Any]] = [
        {"shots": shots, "domain": domain}
        for shots, domain in ((8, INSIDE), (0, INSIDE), (8, OUTSIDE))
    ]
    eight, none, outside = which
    found = sections.difference(ANSWERS, eight, none)
    assert found.mean == pytest.approx(16 / 20 - 1 / 2)
    a, b, out = (sections.chosen(ANSWERS, **where) for where in which)
    assert found == stats.difference(a, b)
    same = sections.difference(ANSWERS, eight, eight)
    assert (same.lo, same.mean, same.hi) == (0, 0, 0)
    mixed = ANSWERS.sample(frac=1, random_state=1)  # rows in another order are the same runs
    again = sections.difference(mixed, eight, none)
    assert (again.lo, again.mean, again.hi) == pytest.approx((found.lo, found.mean, found.hi))
    other = sections.difference(ANSWERS, eight, outside)
    assert other.mean == pytest.approx(16 / 20 - 5 / 10)
    assert other == stats.difference(a, out, same_examples=False)


def test_beside_a_null_is_what_would_have_been_shown() -> None:
    null = stats.Interval(0.01, -0.1, 0.12, "two-way t", 10, 100, se=0.05, df=9)
    assert sections.unresolved(null) == (
        f" (a true difference of {null.detectable:.2f} would have been shown with 80 % power)"
    )
    shown = stats.Interval(0.2, 0.1, 0.3, "two-way t", 10, 100, se=0.05, df=9)
    few = stats.Interval(0.2, np.nan, np.nan, "two-way t", 3, 100, se=0.05, df=2)
    assert sections.unresolved(shown) == sections.unresolved(few) == ""


def test_accuracy_with_the_median_draw_and_the_draws_that_failed(messages: list[str]) -> None:
    sections.accuracy_table(ANSWERS, BY)
    table = read(messages[0])
    inside, outside = (
        [f"{name}, {domain}" for name in ("accuracy", DRAWN, "failed draws")]
        for domain in (INSIDE, OUTSIDE)
    )
    both = [name for pair in zip(inside, outside, strict=True) for name in pair]
    assert list(table) == ["shots", *both, "n"]
    none, eight = table.to_dict("records")
    for line, names, domain in (
        (none, inside, INSIDE),
        (eight, inside, INSIDE),
        (eight, outside, OUTSIDE),
    ):
        interval = stats.interval(sections.chosen(ANSWERS, domain=domain, shots=int(line["shots"])))
        assert line[names[0]] == stats.as_text(vars(interval), 3)
        assert interval.n in line["n"]
    assert [none[name] for name in inside[1:]] == ["–", "–"]
    assert [none[name] for name in outside] == ["–"] * 3  # nothing is measured there
    assert [eight[name] for name in inside[1:]] == ["0.750 (0.500 to 1.000)", "1 of 5"]
    assert [eight[name] for name in outside[1:]] == ["0.500 (0.000 to 1.000)", "4 of 5"]


def test_the_study_is_named_where_there_are_several(messages: list[str]) -> None:
    right = {(INSIDE, shots): [[0, 0, 0, 1]] * 5 for shots in (8, 16)}
    several = pd.concat([ANSWERS, answers_of(right, "pocket")])
    sections.accuracy_table(several, BY)
    table = read(messages[0])
    assert table["of"].tolist() == ["opt", "opt", "pocket", "pocket"]
    assert table["shots"].tolist() == ["0", "8", "8", "16"]
    assert str(table.iloc[2, 1]).startswith("0.250 [")


def test_what_a_table_is_of_heads_its_lines_unless_each_is_of_another(messages: list[str]) -> None:
    frame = pd.DataFrame({"study": ["a", "b"] * 4, "domain": [INSIDE] * 4 + [OUTSIDE] * 4})
    frame["x"] = range(8)
    for part in (frame, frame[frame["study"] == "a"], frame.iloc[:2], frame.iloc[:4]):
        sections.table(part)
    both, one, two, four = map(read, messages)
    assert both["x"].tolist() == ["0", "2", "4", "6", "1", "3", "5", "7"]
    assert both["of"].unique().tolist() == [
        f"{study}, {domain}" for study in "ab" for domain in (INSIDE, OUTSIDE)
    ]
    assert list(both) == list(one) == ["x", "of"]
    assert one["of"].tolist() == [INSIDE] * 2 + [OUTSIDE] * 2
    assert two.to_numpy().tolist() == [["a", INSIDE, "0"], ["b", INSIDE, "1"]]
    assert four["of"].tolist() == ["a", "a", "b", "b"]
    assert four["domain"].unique().tolist() == [INSIDE]


def test_how_well_a_null_was_looked_for_is_said_in_full_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "explained", set())
    null = stats.Interval(0.01, -0.1, 0.12, "two-way t", 10, 100, se=0.05, df=9)
    would = sections.unresolved(null)
    short = f" ({null.detectable:.2f} would have been shown)"
    assert tables.briefly(f"a{would}, b{would}") == f"a{would}, b{short}"
    assert tables.briefly(f"c{would}") == f"c{short}"


def test_what_was_learned(messages: list[str]) -> None:
    answers = ANSWERS.assign(
        follows=[1.0, 0.0] * (len(ANSWERS) // 2),
        follows_one=1.0,
        auc_silent=ANSWERS["auc"].where(ANSWERS["id"].str[-1].isin(["0", "1"])),
    )
    sections.learned_table(answers, BY)
    table = read(messages[0]).set_index(["domain", "shots"])
    assert list(table) == [
        "AUC", "accuracy", "agrees: either negated", "agrees: exactly one", "AUC, none negated",
        "called entailed", "n",
    ]  # fmt: skip
    inside = table.loc[(INSIDE, "8")]
    assert inside["AUC"].startswith(
        f"{answers[(answers['shots'] == 8) & (answers['domain'] == INSIDE)]['auc'].mean():.2f} ["
    )
    assert inside["agrees: either negated"].startswith("0.50 [")
    silent = answers.dropna(subset="auc_silent")
    area = stats.interval(sections.chosen(silent, "auc_silent", shots=8, domain=INSIDE))
    assert inside["AUC, none negated"] == str(area)
    # By draw: two of four, one, three, two, none.
    assert inside["called entailed"] == "0.40 (0.00 to 0.75)"
    assert table.loc[(INSIDE, "0"), "called entailed"] == "0.50"


def test_out_of_domain_has_two_intervals_where_there_are_constructions(messages: list[str]) -> None:
    rows = answers_of({(OUTSIDE, 8): [[1, 0, 1, 1, 0, 1, 1, 1]] * 4 + [[0] * 8]})
    sections.constructions(rows.assign(subcase=["a", "b", "c", "d"] * (len(rows) // 4)), BY)
    assert list(read(messages[0]))[2:] == [
        "AUC, these constructions",
        "AUC, new constructions",
        "accuracy, these constructions",
        "accuracy, new constructions",
        "n",
    ]
    sections.constructions(rows, BY)
    assert list(read(messages[1]))[2:] == ["AUC", "accuracy", "n"]


def test_the_search_says_which_learning_rate_is_best_and_which_is_used(
    messages: list[str], world: Callable[..., list[Study]], pocket: tasks.Task
) -> None:
    runs = [
        ("x", 1e-5, 0.5, 0.7), ("x", 1e-5, 0.6, 0.7), ("x", 1e-4, 0.7, 0.4), ("x", 1e-4, 0.6, 0.5),
        ("x", 1e-3, 0.8, 0.9), ("x", 1e-3, 0.9, 0.5), ("y", 3e-4, 0.9, 0.1),
    ]  # fmt: skip
    names = ["study", "learning_rate", "validation_accuracy", "validation_nll"]
    rows = pd.DataFrame(runs, columns=names).assign(shots=1024)
    studies = world({"x": pocket, "y": pocket, "none": pocket}, learning_rate=3e-4)
    sections.search_table(results(rows), studies, "learning_rate")
    table = read(messages[0])
    assert table["of"].tolist() == ["x", "x", "x", "y"]
    assert table["learning rate"].tolist() == ["1e-05", "0.0001", "0.001", "0.0003"]
    assert [text.split()[0] for text in table["accuracy"]] == ["0.550", "0.650", "0.850", "0.900"]
    assert table["NLL"].tolist()[0] == "0.700 (2 draws: 0.700 to 0.700)"
    assert [text.split()[0] for text in table["NLL"]] == ["0.700", "0.450", "0.700", "0.100"]
    assert table["draws"].tolist() == ["2", "2", "2", "1"]
    first, second = messages[1].split("\n\n")
    assert first.startswith("**x.** With 1,024 examples")
    assert re.findall(r"0\.\d+", first) == ["0.001", "0.0001", "0.0003"]
    assert "best by neither" in first
    assert re.findall(r"0\.\d+", second) == ["0.0003"] * 3
    assert "neither" not in second


def test_calibration_is_a_mean_over_draws(messages: list[str]) -> None:
    inside, outside = [0.1, 0.2], [0.3, 0.3, 0.3, 0.2, 0.4]
    rows = pd.DataFrame(
        {
            "study": "opt",
            "shots": 8,
            "in_domain_ece": [*inside, *[0.0] * 5],
            "in_domain_n": [4] * 2 + [0] * 5,
            "out_of_domain_ece": [*[0.0] * 2, *outside],
            "out_of_domain_n": [0] * 2 + [4] * 5,
        }
    )
    sections.calibration_table(results(rows), BY)
    table = read(messages[0])
    assert list(table) == ["shots", "draws", "ECE, in-domain", "ECE, out-of-domain"]
    assert table["ECE, in-domain"][0] == "0.150 (2 draws: 0.100 to 0.200)"
    assert table["ECE, out-of-domain"][1].startswith("0.300 [")


def test_subcases_are_the_out_of_domain_means() -> None:
    out = answers_of({(OUTSIDE, 0): [[1, 1, 0, 0]], (OUTSIDE, 8): [[1, 1, 1, 0], [0, 1, 1, 0]]})
    answers = pd.concat([ANSWERS[ANSWERS["domain"] == INSIDE], out])
    swapped = answers["id"].isin([f"{OUTSIDE}-0", f"{OUTSIDE}-1"])
    answers = answers.assign(subcase=np.where(swapped, "swap", "passive"))
    chart = sections.subcases(answers, "shots", x_title="examples").to_dict()
    [rows] = [rows for rows in chart["datasets"].values() if "correct" in rows[0]]
    found = {(row["subcase"], row["shots"]): row["correct"] for row in rows}
    assert found == {
        ("swap", 0): 1.0, ("swap", 8): 0.75, ("passive", 0): 0.0, ("passive", 8): 0.5,
    }  # fmt: skip
    assert "means over up to 2 draws, at least 2 pairs a subcase" in str(chart)


def test_without_subcases_the_map_shows_labels_and_each_study_has_one() -> None:
    several = pd.concat([ANSWERS, answers_of({(INSIDE, 8): [[0, 0, 0, 1]] * 2}, "pocket")])
    inside = several[several["domain"] == INSIDE]
    inside = inside.assign(label=inside["id"].str.endswith(("0", "1")).astype(int))
    chart = sections.subcases(inside, "shots", x_title="examples").to_dict()
    assert [panel["title"]["text"] for panel in chart["concat"]] == ["opt", "pocket world"]
    assert "in-domain by label, as there are no subcases" in " ".join(chart["title"]["text"])
    found = [row for rows in chart["datasets"].values() for row in rows if "gold" in row]
    assert {(r["gold"], r["correct"]) for r in found if r["shots"] == 8} >= {
        ("not entailment", 0.0),
        ("entailment", 0.5),
    }


def test_by_cue_tells_where_negation_is_right(world: Callable[..., list[Study]]) -> None:
    """A negation says "not entailment", none says "entailment"."""
    pairs = plain(4).assign(
        hypothesis=["The judge did not run ."] * 2 + ["The judge ran ."] * 2, label=[1, 0, 0, 1]
    )
    found = sections.by_cue(ANSWERS, world({"opt": foreign(pairs.iloc[::-1])}))
    assert set(found["domain"]) == {INSIDE}
    assert len(found) == (ANSWERS["domain"] == INSIDE).sum()
    cues = found.drop_duplicates("id").set_index("id")["cue"]
    assert cues.to_dict() == {
        f"{INSIDE}-0": "cue is right",
        f"{INSIDE}-1": "cue misleads",
        f"{INSIDE}-2": "cue is right",
        f"{INSIDE}-3": "cue misleads",
    }


def cost(**changes: Any) -> dict[str, Any]:
    return (
        dict.fromkeys(FIELDS, "")
        | {
            "key": "k",
            "study": "opt",
            "shots": 8,
            "trainable_parameters": 1200,
            "train_tokens": 3000,
            "train_seconds": 2.0,
            "eval_seconds": 1.0,
            "peak_memory_mib": 900.0,
            "memory_before_mib": 600.0,
            "memory_kind": "resident",
            "device_name": "a machine",
            "device": "cpu",
            "threads": 2,
            "clock": "wall",
            "dtype": "float32",
        }
        | changes
    )


def test_cost_is_the_mean_over_runs_and_what_they_added(messages: list[str]) -> None:
    rows = pd.DataFrame(
        [
            cost(),
            cost(train_seconds=4.0, eval_seconds=2.0, peak_memory_mib=1500.0, train_tokens=5000),
            cost(shots=0, train_seconds=0.0, trainable_parameters=0, memory_before_mib=899.0),
        ]
    )
    sections.cost_table(rows, ["shots"])
    assert read(messages[0]).iloc[0].to_dict() == {
        "shots": "8",
        "weights trained": "1,200",
        "tokens trained on": "4,000",
        "training (s)": "3.00",
        "scoring (s)": "1.50",
        "peak memory, resident (MiB)": "1,200",
        "of it the run's (MiB)": "600",
        "runs": "2",
    }
    assert read(messages[0]).iloc[1]["of it the run's (MiB)"] == "1"
    assert messages[1] == "Hardware: a machine, 2 thread(s), float32, seconds by the wall clock."
    messages.clear()
    specs = pd.DataFrame([asdict(Spec(data_seed=i)) for i in range(len(rows))])
    columns = {name: rows[name] for name in rows if name not in FIELDS or name == "shots"}
    columns |= {"examples_per_second": 1.0}
    whole = specs.assign(**columns, rounds=0, data_seed=range(len(rows)))
    sections.effort(results(whole))
    assert "3 runs" in messages[0]
    assert "10 s of training and scoring in all and at most 1,500 MiB (resident)" in messages[0]


def test_costs_are_those_of_the_machine_that_made_all(messages: list[str]) -> None:
    slow = cost(device_name="another", train_seconds=50.0)
    rows = pd.DataFrame([slow, cost(), cost(shots=16), cost(), slow])
    sections.cost_table(rows, ["shots"])
    assert read(messages[0])["training (s)"].tolist() == ["2.00", "2.00"]
    assert read(messages[0])["runs"].tolist() == ["2", "1"]
    assert "Hardware: another, 2 thread(s)" in messages[1]
    assert messages[1].endswith(
        "Seconds and memory are those of 3 of the 5 runs, each study's on one machine: a machine, "
        "2 thread(s)."
    )


def test_operations_are_counted_by_token() -> None:
    rows = pd.DataFrame(
        {
            "parameters": 1_000,
            "trainable_parameters": [0, 1_000, 10],
            "prefix_tokens": [90, 2, 2],
            "query_tokens": 8.0,
            "train_tokens": [0, 50, 50],
            "teacher_tokens": [np.nan, np.nan, 100.0],
        }
    )
    found = sections.operations(rows)
    assert found["tokens"].tolist() == [98, 10, 10]
    assert found["answer"].tolist() == [2_000 * n for n in (98, 10, 10)]
    assert found["adapt"].tolist() == [0, 300_000, 200_000 + 2 * 100 * 1_000]


# --- on the pocket world's own pairs -----------------------------------------------------------


@pytest.fixture(scope="module")
def pocket() -> tasks.Task:
    return tasks.load("pocket", limit=120)


def test_the_rule_and_where_it_is_silent(
    pocket: tasks.Task, world: Callable[..., list[Study]]
) -> None:
    pairs = pd.concat([f.assign(domain=d) for d, f in pocket.domains.items()])
    rule = pd.concat([baselines.negation_rule(f) for f in pocket.domains.values()])
    p = np.where(rule == 0, 0.9, 0.1)
    answers = pairs.assign(
        key="k", study="m", **dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
    )
    studies = world({"m": pocket})
    ruled = sections.with_rule(answers, studies)
    assert ruled["follows"].eq(1).all()
    assert ruled["silent"].tolist() == (rule == 0).tolist()
    assert ruled["auc_silent"].notna().tolist() == ruled["silent"].tolist()
    both = pd.concat([baselines.negations(f) for f in pocket.domains.values()]) == 2
    assert ruled["follows_one"].tolist() == (~both).astype(float).tolist()
    assert not ruled[ruled["domain"] == INSIDE]["silent"].all()
    flipped = answers.assign(
        **{metrics.LOGP[0]: answers[metrics.LOGP[1]], metrics.LOGP[1]: np.log(p)}
    )
    assert sections.with_rule(flipped, studies)["follows"].eq(0).all()


def test_the_classifier_stands_with_every_study_on_its_own_draws(
    pocket: tasks.Task, world: Callable[..., list[Study]]
) -> None:
    pairs = pocket.in_domain
    answers = pd.concat(
        [
            pairs.assign(
                study=m, method="ICL", shots=4, data_seed=3, draw="3-0-0", key=m, domain=INSIDE,
                **dict(zip(metrics.LOGP, np.log(np.full((2, len(pairs)), 0.5)), strict=True)),
            )
            for m in ("x", "y")
        ]
    )  # fmt: skip
    studies = world({"x": pocket, "y": pocket}, seed=3, repeats=1)
    compared = sections.with_classifier(metrics.with_scores(answers), studies, lambda _: [4])
    own = compared[compared["method"] == baselines.CLASSIFIER]
    assert set(own["study"]) == {"x", "y"}
    assert set(own["draw"]) == {"3-0-0"}
    gap = sections.difference(
        compared,
        {"study": "x", "method": "ICL", "domain": INSIDE},
        {"study": "x", "method": baselines.CLASSIFIER, "domain": INSIDE},
    )
    assert gap.draws == 1
    figure = sections.accuracy_figure(compared, studies, "method", x_title="labelled examples")
    drawn = str(figure.to_dict())
    for name in ("constant", "best cue: overlap", "x, in-domain", "y, in-domain", "cue classifier"):
        assert name in drawn


def test_a_good_draw_shows_the_rule(
    pocket: tasks.Task, messages: list[str], world: Callable[..., list[Study]]
) -> None:
    [study] = world({"m": pocket})
    rule = baselines.negation_rule(pocket.train).set_axis(pocket.train["id"])
    label = pocket.train.set_index("id")["label"]
    validity = []
    for seed in range(6):
        drawn = tasks.sample(pocket.train, 4, seed)["id"]
        validity.append(float((rule[drawn] == label[drawn]).mean()))
    rows = pd.DataFrame(
        {
            "study": "m",
            "shots": [4] * 6 + [1024],
            "data_seed": [*range(6), 0],
            "in_domain_accuracy": [*(0.5 + share / 4 for share in validity), 1.0],
            "in_domain_n": 4,
            "out_of_domain_n": 0,
        }
    )
    single = sections.single_draws(rows, study, [4])
    assert single["validity"].tolist() == validity
    assert len(set(validity)) > 1
    figure = sections.luck(results(rows[:6]), [study], lambda _: [4, 1024], "rule")
    assert "1.00 [1.00, 1.00] with 4 examples" in messages[0]
    assert "4 examples" in str(figure.to_dict())


def test_a_correlation_without_an_interval_or_without_sense_says_so() -> None:
    one = stats.correlation([0.5, 0.6, 0.7], [0.1, 0.2, 0.3])
    none = stats.correlation([0.5] * 6, [0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    many = stats.correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])
    assert sections.correlations({2: one, 1024: none, 8: many}) == (
        "1.00 (3 draws, no interval) with 2 examples, not defined, as one of them does not vary, "
        f"with 1,024 examples, {many} with 8 examples"
    )


def test_names_that_say_their_label_are_explained(
    pocket: tasks.Task, messages: list[str], world: Callable[..., list[Study]]
) -> None:
    sections.twins(world({"m": pocket}))
    out = pocket.out_of_domain
    # As in HANS, where three heuristics have such twins.
    heuristic = np.where(np.arange(len(out)) % 2, "l", "s")
    hans = out.assign(subcase=heuristic + out["subcase"].str[1:])
    sections.twins(world({"m": dataclasses.replace(pocket, out_of_domain=hans)}))
    assert messages == [
        "Subcases whose names begin with `le_` are entailed, those with `ln_` are not.",
        "Subcases whose names begin with `le_`, `se_` are entailed, those with `ln_`, `sn_` are "
        "not.",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda out: out.assign(subcase="s"),
        lambda out: out.assign(subcase="le_" + out["subcase"]),  # the same start, both labels
        lambda out: out.assign(subcase=[f"{i}_pair" for i in range(len(out))]),  # one each
        lambda out: out.assign(subcase=out["subcase"].where(out["label"] == 0, "no subcase")),
        lambda out: out.drop(columns="subcase"),
        lambda out: out.iloc[:0],
    ],
)
def test_names_that_say_nothing_are_not_explained(
    pocket: tasks.Task, messages: list[str], world: Callable[..., list[Study]], change: Any
) -> None:
    task = dataclasses.replace(pocket, out_of_domain=change(pocket.out_of_domain))
    sections.twins(world({"m": task}))
    assert messages in ([], [""])


# --- a task that is neither HANS nor the pocket world ------------------------------------------


def plain(n: int = 40) -> pd.DataFrame:
    """Pairs without a negation, half of them entailed."""
    return pd.DataFrame(
        {
            "id": [f"{INSIDE}-{i}" for i in range(n)],
            "premise": [f"The cat saw dog number {i} ." for i in range(n)],
            "hypothesis": [f"The {('cat', 'bird')[i % 2]} saw dog number {i} ." for i in range(n)],
            "label": [i % 2 for i in range(n)],
        }
    )


def foreign(pairs: pd.DataFrame) -> tasks.Task:
    """A task of one domain."""
    return tasks.Task("mine", pairs, pairs, pairs, pairs.iloc[:0], "d")


def test_gains_are_paired_with_zero_shot_and_say_what_would_have_been_shown(
    messages: list[str],
) -> None:
    study = params.study("pocket").model_copy(update={"study": "opt"})
    inside = ANSWERS[ANSWERS["domain"] == INSIDE]
    sections.gains_table(inside, [study], lambda _: [8])
    (line,) = read(messages[0]).to_dict("records")
    gap = sections.difference(inside, {"shots": 8}, {"shots": 0})
    assert line["accuracy, minus zero-shot's"] == str(gap)
    assert line["accuracy: shown from"] == f"{gap.detectable:.2f}"
    assert line["n"] == "5 × 4"
    area = sections.difference(inside, {"shots": 8}, {"shots": 0}, "auc")
    assert line["AUC, minus zero-shot's"] == str(area)
    more = pd.concat([inside, inside[inside["shots"] == 8].assign(shots=1024)])
    sections.ranking(more, [study], lambda _: [8, 1024], "examples")
    would = sections.unresolved(area)
    assert messages[1] == (
        f"In-domain, the AUC with 1,024 examples minus zero-shot's is {area}{would}, with 8 it is "
        f"{area}{would}; the AUC with 1,024 minus that with 8 is 0.00 [0.00, 0.00] (a true "
        "difference of 0.00 would have been shown with 80 % power). Differences are paired over "
        "draws and pairs; each interval holds alone."
    )
    sections.ranking(inside, [study], lambda _: [8], "examples")
    assert "with 8 it is" not in messages[2]


def test_a_task_of_one_domain_says_so_and_its_tables_are_of_that_domain(
    messages: list[str], world: Callable[..., list[Study]]
) -> None:
    studies = world({"opt": foreign(plain(4))})
    sections.missing(studies)
    assert messages == ["This task has no out-of-domain set: nothing is shown of one."]
    messages.clear()
    answers = ANSWERS[ANSWERS["domain"] == INSIDE]
    sections.constructions(answers, ["study", "shots"])
    assert list(read(messages[0])) == ["shots", "AUC", "accuracy", "n"]
    assert (
        sections.floors_text(studies)
        == "without a model: constant 0.50 in-domain; best cue: overlap 1.00 in-domain"
    )
    ruled = sections.with_rule(answers, studies)
    assert ruled["silent"].all()
    sections.learned_table(ruled, BY)
    table = read(messages[1])
    assert table["AUC, none negated"].tolist() == table["AUC"].tolist()
    # The rule is silent throughout, so its answer is always "entailed".
    assert [text[:4] for text in table["agrees: either negated"]] == table["called entailed"].str[
        :4
    ].tolist()


@pytest.mark.parametrize("hypothesis", ["The dog never ran .", "The dog ran ."])
def test_where_the_rule_is_never_silent_or_leaves_one_label_there_is_no_auc(
    messages: list[str], world: Callable[..., list[Study]], hypothesis: str
) -> None:
    pairs = plain(4).assign(premise="The dog ran .", hypothesis=hypothesis)
    pairs.loc[pairs["label"] == 1, "hypothesis"] = "The dog never ran ."
    inside = ANSWERS[ANSWERS["domain"] == INSIDE]
    ruled = sections.with_rule(inside, world({"opt": foreign(pairs)}))
    sections.learned_table(ruled, BY)
    assert set(read(messages[0])["AUC, none negated"]) == {"–"}


def test_a_method_that_is_not_shown_to_differ_from_the_cue_says_what_would_have_been(
    pocket: tasks.Task, world: Callable[..., list[Study]]
) -> None:
    [study] = world({"m": pocket})
    pairs, rng = pocket.in_domain, np.random.default_rng(0)
    rule = baselines.best_rule(pocket.train)
    right = (rule.labels(pairs) == pairs["label"]).to_numpy()
    parts = []
    for name, accuracy in (("above", 1.0), ("level", right.mean()), ("below", 0.5)):
        for draw in range(6):
            hit = rng.random(len(pairs)) < accuracy
            p = np.where(hit == (pairs["label"] == 0), 0.8, 0.2)
            logp = dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
            parts.append(
                pairs.assign(key=f"{name} {draw}", draw=f"{draw}-0-0", method=name, domain=INSIDE,
                             study="m", shots=4, **logp)
            )  # fmt: skip
    answers = metrics.with_scores(pd.concat(parts))
    text = sections.above_floors(answers, study, "method", 4)
    assert f"is right on {right.mean():.2f} of the in-domain pairs" in text
    assert "above is above it (minus the cue: 0." in text
    assert "below is below it (minus the cue: -0." in text
    assert "level is not shown to differ from it" in text
    assert text.count("would have been shown with 80 % power") == 1
    few = sections.above_floors(answers[answers["draw"] < "4"], study, "method", 4)
    assert few.count("not shown to differ from it") == 3
    assert "would have been" not in few


# --- functions of one study --------------------------------------------------------------------


def test_a_function_of_one_study_gets_its_rows_and_is_shown_of_each(messages: list[str]) -> None:
    frame = pd.DataFrame({"study": ["a", "b", "b"], "n": [1, 2, 3]})
    runs, by_study = Results(frame, frame, {}), {"a": "first", "b": "second"}
    studies = [params.study("pocket").model_copy(update={"study": name}) for name in "ab"]

    @sections.text_by_study
    def text(found: Results, own: pd.DataFrame, name: str, study: Study, more: int) -> str:
        return f"{study.study} {name}: {[*found.rows['n']]}, {own['n'].sum() + more}"

    @sections.table_by_study({"n": ".1f"})
    def table(own: pd.DataFrame, _study: Study) -> pd.DataFrame:
        return own[["n"]]

    @sections.findings_by_study
    def lines(own: pd.DataFrame, _study: Study) -> Any:
        yield from own["n"].map(str)

    text(runs, frame, by_study, studies, 10)
    table(frame, studies)
    table(frame, [])
    lines(frame, studies[1:])
    assert messages[0] == "**a.** a first: [1], 11\n\n**b.** b second: [2, 3], 15"
    assert read(messages[1]).to_numpy().tolist() == [["a", "1.0"], ["b", "2.0"], ["b", "3.0"]]
    assert messages[2:] == ["- 2\n- 3"]


def test_what_a_study_leaves_out_or_lacks_is_said(
    messages: list[str], world: Callable[..., list[Study]]
) -> None:
    usual = sections.task_of(params.study("smoke"))
    one_domain = dataclasses.replace(usual, out_of_domain=usual.out_of_domain.iloc[:0])
    studies = world({"a": one_domain, "b": usual})
    runs = Results(pd.DataFrame(), pd.DataFrame(), {"orders": {"b": ["key"]}})

    @sections.where_run("orders")
    def names(_results: Results, there: list[Study]) -> list[str]:
        return [study.study for study in there]

    @sections.and_missing
    @sections.text_by_study
    def text(study: Study) -> str:
        return study.study

    assert names(runs, studies) == ["b"]
    assert names(runs, studies[:1]) is None
    assert messages[0] == "**a.** Not run for this study, and so not shown: orders."
    text(studies)
    assert messages[2:] == [
        "**a.** a\n\n**b.** b",
        "**a.** This task has no out-of-domain set: nothing is shown of one.",
    ]


def test_differences_hold_together_and_are_told_by_what_they_show() -> None:
    draws = [[1, 0] * 20] * 5
    answers = answers_of({("in-domain", 2): draws, ("in-domain", 4): [[1, 1] * 20] * 5})
    pairs = {"two": ({"shots": 4}, {"shots": 2}), "none": ({"shots": 2}, {"shots": 2})}
    found = sections.differences(answers, pairs)
    assert {name: gap.mean for name, gap in found.items()} == {"two": 0.5, "none": 0.0}
    assert {gap.level for gap in found.values()} == {0.975}
    assert [*sections.moves(found)] == ["rises", "is not shown to change"]
    assert sections.beside("minus", None) == {"minus": "–", "shown from": "–"}
    assert sections.beside("minus", found["two"])["minus"] == str(found["two"])
