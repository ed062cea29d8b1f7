"""What the chapter on recursion and the section on placebos compute, on frames counted by hand."""

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
        assert len(kinds) == 2 * len(grids.ARMS) * 2 * 2
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
    ("lost", "others", "words"),
    [
        (
            [0.5, 0.6],
            [0.9, 1.0],
            "Accuracy is shown to fall where the teacher has left the first one far",
        ),
        ([0.5, 0.95], [0.9, 1.0], "does not by itself tell where"),
        ([], [0.9], "No recursion is shown to lose accuracy"),
        ([0.5], [], "Every recursion loses accuracy"),
    ],
)
def test_whether_the_teachers_agreement_tells_arms_apart(
    lost: list[float], others: list[float], words: str
) -> None:
    said = recursion._separated(lost, others, 3)
    assert words in said
    assert "the teacher of round 3" in said


def test_placebos_stand_beside_the_true_context_and_none() -> None:
    found = placebos.contexts(runs_of(grids.context_distillation(STUDY)), [STUDY])
    by_method = found.groupby("method")["context"].unique().map(set).to_dict()
    every = {placebos.TRUE, *PLACEBOS}
    assert by_method == {"zero-shot": {"none"}, "ICL": every, "distilled": every}
    less, more = placebos._against(found, "in-domain", "correct")
    made = [(method, name) for method in ("ICL", "distilled") for name in PLACEBOS]
    assert [*less] == [*more] == made
    assert {gap.mean for gap in (*less.values(), *more.values())} == {0.0}


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
