"""What the chapter on equal tuning budgets computes, on frames counted by hand."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.engine.spec import Spec
from llmft.report import stats, tables
from llmft.report.chapters import budgets
from llmft.study import grids, metrics
from llmft.study.results import Results


STUDY = params.study("smoke", {"repeats": 10, "without": []})
"""Five draws, two rates a method."""

DRAWS = grids.few(STUDY)


def loss_of(spec: Spec) -> float:
    """Validation chooses the higher rate in draw 0, the lower one in the others."""
    is_high = spec.learning_rate in {one.learning_rate for one in grids.contenders(STUDY).values()}
    return 0.1 if is_high == (spec.data_seed == 0) else 0.9


def results() -> Results:
    """The chapter's runs; of four pairs a run is right on three, at the lower rate on all."""
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    groups: dict[str, dict[str, list[str]]] = {}
    for group, specs in grids.budgets(STUDY).items():
        keys = [str(hash(spec)) for spec in specs]
        groups[group] = {STUDY.study: keys}
        for spec, key in zip(specs, keys, strict=True):
            about = spec.record() | {"study": STUDY.study, "key": key}
            draw = "" if spec.method == "zero-shot" else f"{spec.data_seed}-0-0"
            rows.append(
                about
                | {"text_nll": 2.0 if spec.objective == "query" else 3.0, "kept_update": 2}
                | {"trainable_parameters": 1, "parameters": 10}
                | {"curve": [{"update": 0, "validation_loss": 5.0}]}
            )
            rows[-1]["curve"].append({"update": 2, "validation_loss": loss_of(spec)})
            number = 4 if loss_of(spec) < 0.5 and spec.data_seed else 3
            for i, label in enumerate((0, 1, 0, 1)):
                p = 0.8 if (label == 0) == (i < number) else 0.2
                logp = dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
                pair = {"domain": "in-domain", "id": str(i), "label": label, "draw": draw}
                answers.append(about | pair | logp)
    return Results(pd.DataFrame(rows), pd.DataFrame(answers), groups)


@pytest.fixture(scope="module")
def found() -> budgets.Found:
    return budgets.read(results(), [STUDY])


def test_a_rate_is_chosen_draw_by_draw_by_the_validation_loss(found: budgets.Found) -> None:
    best = found.rows[
        (found.rows["place"] == 1) & (~found.rows["method"].str.endswith(budgets.TERM))
    ]
    assert len(best) == len(grids.contenders(STUDY)) * len(DRAWS)
    for name, own in best.groupby("method"):
        middle = grids.contenders(STUDY)[str(name)].learning_rate
        chosen = own.set_index("data_seed")["learning_rate"].to_dict()
        low = middle * STUDY.tried_rates[0]
        assert chosen == {seed: low if seed else middle for seed in DRAWS}
    assert set(found.best["method"]) == set(grids.contenders(STUDY))
    assert not found.best.duplicated(["method", "draw", "id"]).any()


def test_with_the_text_term_a_run_has_the_place_of_the_run_without(found: budgets.Found) -> None:
    losses = budgets.text_losses(found, STUDY)
    for name in grids.WITH_TEXT:
        assert losses[name].tolist() == [3.0] * len(DRAWS)
        assert losses[name + budgets.TERM].tolist() == [2.0] * len(DRAWS)


def test_chances_are_those_of_all_choices() -> None:
    for tried in range(1, 7):
        for k in range(1, tried + 1):
            choices = [min(some) for some in combinations(range(tried), k)]
            shares = [choices.count(i) / len(choices) for i in range(tried)]
            assert budgets.chances(tried, k) == pytest.approx(shares)


def test_the_expected_result_is_the_mean_over_all_choices_of_rates() -> None:
    rng = np.random.default_rng(0)
    draws, pairs = ("0", "1", "2"), ("a", "b")
    places = [
        stats.Sample(rng.random((3, 2)), draws, pairs, ("", ""), pairs, (0.0, 1.0))
        for _ in range(4)
    ]
    for k in range(1, 5):
        by_hand = [places[min(some)].values for some in combinations(range(4), k)]
        result = budgets.best_of(k, places)
        np.testing.assert_allclose(result.values, np.mean(by_hand, axis=0))
        assert result.draws == draws


def test_fewer_rates_are_worse_where_they_differ(found: budgets.Found) -> None:
    points = budgets.of_k(found)
    own = points[points["method"] == budgets.FULL].set_index("k")["mean"]
    # The chosen rate is right on all pairs in four of five draws; all others on three of four.
    assert own.to_dict() == pytest.approx({1: (0.95 + 0.75) / 2, 2: (4 + 0.75) / 5})


def test_one_rate_each_is_counted_pair_by_pair(found: budgets.Found) -> None:
    rows = budgets.one_rate(found, STUDY)
    assert set(rows["pairs"]) == {len(STUDY.tried_rates) ** 2}
    assert set(rows["other"]) == {0}  # all methods are alike: there is no order to turn round
    assert {gap.mean for gap in rows["gap"]} == {0.0}
    # Low against high: right on more pairs in draws 1 to 4; the other way round, on fewer.
    assert set(rows["better"]) == set(rows["worse"])


def test_the_ratio_of_the_rates_is_a_geometric_mean(found: budgets.Found) -> None:
    for log in budgets.ratios(found, STUDY).values():
        ratio = budgets.times(log)
        assert (ratio.mean, ratio.lo, ratio.hi) == (10.0, 10.0, 10.0)
    log = stats.t_interval(np.log([1.0, 10.0, 100.0, 10.0, 10.0]))
    assert budgets.times(log).mean == 10.0
    assert budgets.times(log).lo < 10 < budgets.times(log).hi


def test_a_verdict_names_who_is_shown_to_differ() -> None:
    def gap(mean: float, half: float) -> stats.Interval:
        return stats.Interval(mean, mean - half, mean + half, "", 5, 4, se=half / 2, df=4)

    gaps = {"a": gap(-0.2, 0.1), "b": gap(0.2, 0.1), "c": gap(0.0, 0.04), "d": gap(0.0, 0.2)}
    said = budgets.verdict(gaps)
    assert "a (-0.20 [-0.30, -0.10]) is shown to be worse than full fine-tuning" in said
    assert "b (0.20 [0.10, 0.30]) is shown to be better than full fine-tuning" in said
    assert "of the other 2, shown to be within 0.05 of it: c" in said
    assert "no method is shown to be worse or better" in budgets.verdict({"c": gaps["c"]})
    assert budgets.shown(gaps) == (["a"], ["b"])


def test_a_study_without_the_runs_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tables, "say", said.append)
    study = params.study("smoke", {"repeats": 10, "without": ["rates of *"]})
    part = results().part("zero-shot")
    nothing = budgets.read(Results(part.rows, part.predictions, part.groups), [study])
    assert len(said) == 1
    assert said[0].startswith("Not run for this study, and so not shown: rates of full; rates of r")
    assert budgets.accuracy(nothing) is None
    budgets.differences(nothing)
    budgets.summary(nothing)
    assert len(said) == 1
