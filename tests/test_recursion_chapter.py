"""What the chapter on recursion and the section on placebos compute, on frames counted by hand."""

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.engine.spec import PLACEBOS
from llmft.report import sections
from llmft.report.chapters import placebos, recursion
from llmft.report.stats import Interval
from llmft.study import grids, metrics
from llmft.study.results import Results


STUDY = params.study("smoke", {"without": []})
RATE = STUDY.distill_learning_rate
SLOW = RATE * grids.RATES[0]


def runs_of(grid: grids.Grid) -> Results:
    """A grid's runs; of its four pairs a run gets the first two right, in round 2 the last two."""
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    groups: dict[str, dict[str, list[str]]] = {}
    names = ("context", "teacher", "fresh", "context_share", "scoring", "learning_rate", "rounds")
    for group, specs in grid.items():
        groups[group] = {STUDY.study: [str(spec) for spec in specs]}
        for spec in specs:
            about: dict[str, Any] = {
                "study": STUDY.study,
                "key": str(spec),
                "method": spec.method,
                "data_seed": spec.data_seed,
                "draw": "" if spec.method == "zero-shot" else f"{spec.data_seed}-0-0",
                "split": spec.split,
            } | {name: getattr(spec, name) for name in names}
            if any(row["key"] == about["key"] for row in rows):
                continue
            rows.append(about)
            for i, label in enumerate((0, 1, 0, 1)):
                right = (i < 2) == (spec.rounds < 2)
                p = 0.8 if (label == 0) == right else 0.2
                logp = dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
                answers.append(about | {"domain": "in-domain", "id": str(i), "label": label} | logp)
    return Results(pd.DataFrame(rows), pd.DataFrame(answers), groups)


@pytest.fixture(scope="module")
def results() -> Results:
    return runs_of(grids.recursion(STUDY))


def test_arms_that_differ_later_have_the_live_recursions_first_round(results: Results) -> None:
    found = recursion.arms(results, [STUDY])
    for frame in (found.rows, found.predictions):
        assert set(frame["method"]) == set(grids.ARMS)
        kinds = frame.groupby(["learning_rate", "method", "rounds", "scoring"]).size()
        assert len(kinds) == 2 * len(grids.ARMS) * (2 + 1)  # behind the context: round 1 alone
    first = sections.rows_at(found.rows, method="anchored", rounds=1, learning_rate=SLOW)
    assert set(first["key"]) == set(
        sections.rows_at(found.rows, method="live", rounds=1, learning_rate=SLOW)["key"]
    )
    own = sections.rows_at(found.rows, method=grids.PRACTISED, rounds=1)
    assert (own["context_share"] > 0).all()
    assert not found.rows.duplicated(["method", "key"]).any()


def test_agreement_is_with_the_first_teacher_of_the_draw(results: Results) -> None:
    arms = recursion.arms(results, [STUDY])
    main = recursion.with_agreement(sections.scored(arms), results)
    assert len(main) == len(arms.predictions)
    means = main.groupby("rounds")["agreement"].mean()
    assert means.to_dict() == {1: 1.0, 2: 0.0}


def test_cells_are_those_that_the_study_makes() -> None:
    assert [*recursion.cells(STUDY).values()] == [
        (rate, arm) for rate in (RATE, SLOW) for arm in grids.ARMS
    ]
    fewer = STUDY.model_copy(update={"without": ["recursion, [acf]*"]})
    assert [*recursion.cells(fewer).values()] == [(RATE, "live"), (SLOW, "live")]


def gap(lo: float, hi: float) -> Interval:
    return Interval((lo + hi) / 2, lo, hi, "t", 10, 0, se=0.1, df=9)


def test_a_change_is_shown_or_not() -> None:
    gaps = {"a": gap(-0.3, -0.1), "b": gap(0.1, 0.2), "c": gap(-0.1, 0.1), "d": gap(-0.2, -0.1)}
    found = sections.moves(gaps)
    assert [*found] == ["rises", "falls", "is not shown to change"]
    assert [text[0] for text in found["falls"]] == ["a", "d"]
    assert "would have been shown" in found["is not shown to change"][0]


@pytest.mark.parametrize(
    ("gaps", "text"),
    [
        ({"a": gap(-0.3, -0.1), "b": gap(-0.2, -0.01)}, "falls in any arm"),
        (
            {"a": gap(-0.3, -0.1), "b": gap(0.1, 0.2), "c": gap(-0.3, 0.1), "d": gap(-0.02, 0.04)},
            "falls (a), rises (b), is not shown to change (c) and stays within 0.05 (d)",
        ),
        ({"a": gap(0.01, 0.03), "b": gap(-0.02, 0.06)}, "rises (a) and is not shown to change (b)"),
    ],
)
def test_what_is_shown_of_each_arm(gaps: dict[str, Interval], text: str) -> None:
    assert recursion._kinds(gaps) == text


def test_a_student_is_ranked_beside_its_teacher_draw_by_draw() -> None:
    rows = pd.DataFrame(
        [
            {"data_seed": draw, "rounds": number, "scoring": scoring}
            | {"teacher_agreement": agrees, "in_domain_accuracy": 0.5 + sign * agrees / 2}
            for draw in range(5)
            for agrees in (0.2, 0.4, 0.9)
            for number, scoring, sign in ((3, "", 1), (3, "context", -1), (2, "", -1))
        ]
    )
    found = Results(rows, pd.DataFrame(), {})
    assert len(recursion._last_students(found)) == 15
    assert "is 1.00 [1.00, 1.00] (mean over 5 draws)" in recursion._ranks(found)
    same = Results(rows.assign(teacher_agreement=1.0), pd.DataFrame(), {})
    assert recursion._ranks(same) == ""


def test_placebos_stand_beside_the_true_context_and_none() -> None:
    found = placebos.contexts(runs_of(grids.context_distillation(STUDY)), [STUDY])
    by_method = found.groupby("method")["context"].unique().map(set).to_dict()
    every = {placebos.TRUE, *PLACEBOS}
    assert by_method == {"zero-shot": {"none"}, "ICL": every, "distilled": every}
    for method in ("ICL", "distilled"):
        gains, losses = placebos._against(found, "in-domain", method, "correct").values()
        assert [*gains] == [placebos.TRUE, *losses] == [placebos.TRUE, *PLACEBOS]
        assert {gap.mean for gap in (*gains.values(), *losses.values())} == {0.0}
        assert {gap.level for gap in gains.values()} == {1 - 0.05 / 4}
        assert {gap.level for gap in losses.values()} == {1 - 0.05 / 3}


UP, DOWN, NULL = gap(0.1, 0.3), gap(-0.3, -0.1), gap(-0.1, 0.1)
WIDE = Interval(0.0, -0.4, 0.4, "t", 10, 0, se=0.2, df=9)


def by_base(true: Interval, placebo: Interval, loss: Interval) -> dict[str, placebos.Gaps]:
    """Differences from zero-shot, of the demonstrations and of one placebo, and what it lacks."""
    return {
        "zero-shot's": {placebos.TRUE: true, "filler": placebo},
        "the demonstrations'": {"filler": loss},
    }


@pytest.mark.parametrize(
    ("accuracy", "area", "lines"),
    [
        (
            by_base(UP, NULL, DOWN),
            by_base(UP, NULL, DOWN),
            [
                f"A, accuracy minus zero-shot's: {UP} with demonstrations; no difference is shown "
                f"with filler ({NULL}){sections.unresolved(NULL)}.",
                f"A, accuracy minus the demonstrations': {DOWN} with filler.",
            ],
        ),
        (
            by_base(UP, DOWN, DOWN),
            by_base(UP, UP, NULL),
            [
                f"A, accuracy minus zero-shot's: {UP} with demonstrations and {DOWN} with filler.",
                f"A, AUC minus zero-shot's: {UP} with filler.",
                f"A, accuracy minus the demonstrations': {DOWN} with filler.",
                "A, AUC minus the demonstrations': no difference is shown with filler "
                f"({NULL}){sections.unresolved(NULL)}.",
            ],
        ),
        (
            by_base(NULL, WIDE, NULL),
            by_base(UP, WIDE, NULL),
            [
                "A: no context's accuracy is shown to differ from zero-shot's, and no placebo's "
                f"from the demonstrations'{sections.unresolved(WIDE)}.",
                f"A, AUC minus zero-shot's: {UP} with demonstrations; no difference is shown with "
                f"filler ({WIDE}){sections.unresolved(WIDE)}.",
                "A, AUC minus the demonstrations': no difference is shown with filler "
                f"({NULL}){sections.unresolved(NULL)}.",
            ],
        ),
    ],
)
def test_the_auc_is_named_where_it_shows_something_else(
    accuracy: dict[str, placebos.Gaps], area: dict[str, placebos.Gaps], lines: list[str]
) -> None:
    assert [*placebos._lines("A", accuracy, area)] == lines


def test_placebos_are_said_in_lines_with_their_n_once() -> None:
    found = placebos.contexts(runs_of(grids.context_distillation(STUDY)), [STUDY])
    text = inspect.unwrap(placebos.content)(both_domains(found), STUDY)
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line.split(":")[0] for line in lines] == [
        f"- {domain}, {method}"
        for domain in ("In-domain", "Out-of-domain")
        for method in ("ICL", "distilled")
    ]
    assert text.count("n = ") == 1
    assert f"(n = {STUDY.repeats} × 4):" in text


def both_domains(answers: pd.DataFrame) -> pd.DataFrame:
    """The in-domain answers, and the same as out-of-domain ones."""
    return pd.concat([answers, answers.assign(domain="out-of-domain")], ignore_index=True)


def test_studies_without_placebos_show_none_of_them(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    found = placebos.contexts(results, [])
    assert found.empty
    assert placebos.figure(found, []) is None
    placebos.content(found, [])
    placebos.compare(found, [], "auc")
    assert capsys.readouterr().out == ""


def test_a_rate_is_named_by_its_share_of_the_studys(results: Results) -> None:
    found = recursion.by_rate(results, [STUDY])
    assert found.rows.groupby("method")["rate"].unique().map(list).to_dict() == {
        weights: ["published rate", "0.3 of it", "0.1 of it"] for weights in recursion.WEIGHTS
    }
