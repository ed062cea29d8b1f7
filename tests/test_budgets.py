"""What the chapter on equal tuning budgets computes, on frames counted by hand."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.engine.spec import Spec
from llmft.report import conclusions, stats, tables
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
def tuning() -> budgets.Tuning:
    return budgets.read(results(), [STUDY])


def test_a_rate_is_chosen_draw_by_draw_by_the_validation_loss(tuning: budgets.Tuning) -> None:
    best = tuning.rows[
        (tuning.rows["place"] == 1) & (~tuning.rows["method"].str.endswith(budgets.TERM))
    ]
    assert len(best) == len(grids.contenders(STUDY)) * len(DRAWS)
    for name, own in best.groupby("method"):
        middle = grids.contenders(STUDY)[str(name)].learning_rate
        chosen = own.set_index("data_seed")["learning_rate"].to_dict()
        low = middle * STUDY.tried_rates[0]
        assert chosen == {seed: low if seed else middle for seed in DRAWS}
    assert set(tuning.best["method"]) == set(grids.contenders(STUDY))
    assert not tuning.best.duplicated(["method", "draw", "id"]).any()


def test_with_the_text_term_a_run_has_the_place_of_the_run_without(tuning: budgets.Tuning) -> None:
    losses = budgets.text_losses(tuning, STUDY)
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


def test_fewer_rates_are_worse_where_they_differ(tuning: budgets.Tuning) -> None:
    points = budgets.of_k(tuning)
    own = points[points["method"] == budgets.FULL].set_index("k")["mean"]
    # The chosen rate is right on all pairs in four of five draws; all others on three of four.
    assert own.to_dict() == pytest.approx({1: (0.95 + 0.75) / 2, 2: (4 + 0.75) / 5})


def test_one_rate_each_is_counted_pair_by_pair(tuning: budgets.Tuning) -> None:
    rows = budgets.one_rate(tuning, STUDY)
    assert set(rows["pairs"]) == {len(STUDY.tried_rates) ** 2}
    assert {gap.mean for gap in rows["gap"]} == {0.0}
    # Low against high: right on more pairs in draws 1 to 4; the other way round, on fewer.
    assert set(rows["better"]) == set(rows["worse"])


def test_the_ratio_of_the_rates_is_a_geometric_mean(tuning: budgets.Tuning) -> None:
    for log in budgets.ratios(tuning, STUDY).values():
        assert np.exp([log.mean, log.lo, log.hi]) == pytest.approx([10.0, 10.0, 10.0])


def test_a_verdict_names_who_is_shown_to_differ() -> None:
    def gap(mean: float, half: float) -> stats.Interval:
        return stats.Interval(mean, mean - half, mean + half, "", 5, 4, se=half / 2, df=4)

    gaps = {"a": gap(-0.2, 0.1), "b": gap(0.2, 0.1), "c": gap(0.0, 0.04), "d": gap(0.0, 0.2)}
    text = budgets.verdict(gaps)
    assert "a (-0.20 [-0.30, -0.10]) is shown to be worse than full fine-tuning" in text
    assert "b (0.20 [0.10, 0.30]) is shown to be better than full fine-tuning" in text
    assert "of the other 2, shown to be within 0.05 of it: c (true differences of" in text
    assert "no method is shown to be worse or better" in budgets.verdict({"c": gaps["c"]})


def test_all_rates_in_place_of_one_gain_what_the_curves_end_above_their_start(
    tuning: budgets.Tuning,
) -> None:
    gains = budgets.search_gains(tuning, STUDY)
    assert {domain: gap.mean for domain, gap in gains.items()} == pytest.approx(
        {"in-domain": (4 + 0.75) / 5 - (0.95 + 0.75) / 2}
    )
    assert "Trying 2 rates in place of one at random" in budgets.search_text(tuning, STUDY)


def losses(**means: float) -> dict[str, pd.Series]:
    """Losses on text in ten draws, whose differences between methods spread by hundredths."""
    noise = np.random.default_rng(0).normal(0, 0.01, (len(means), 10))
    return {
        name: pd.Series(mean + own) for (name, mean), own in zip(means.items(), noise, strict=True)
    }


def test_the_lowest_loss_is_compared_with_each_other_among_all_pairs() -> None:
    name, logs = budgets.lowest(losses(full=3.0, a=1.0, b=1.0, c=2.0))
    assert name in ("a", "b")
    assert set(logs) == {"full", "a", "b", "c"} - {name}
    assert {one.level for one in logs.values()} == {stats.together(6)}
    assert logs["full"].hi < 0
    assert logs["c"].mean == pytest.approx(-1.0, abs=0.02)


@pytest.mark.parametrize(
    ("means", "claim"),
    [
        ({"full": 3.0, "IA3": 1.0}, "lower than that of full."),
        ({"full": 1.0, "IA3": 1.0}, "it is not shown to be lower than that of"),
        ({"full": 3.0, "IA3": 1.0, "VeRA": 1.0}, "of full, not shown to be lower than that of"),
        ({"full": 1.0, "a": 1.0, "b": 1.0, "c": 1.0}, "of any of the other 3 (true ratios of 1.0"),
    ],
)
def test_who_forgets_least_is_claimed_where_it_is_shown(
    tuning: budgets.Tuning, monkeypatch: pytest.MonkeyPatch, means: dict[str, float], claim: str
) -> None:
    even = stats.Interval(0.0, -0.1, 0.1, "t", 10, 100, se=0.05, df=9)
    rivals = [name for name in means if name != budgets.FULL]
    gaps = {"in-domain": dict.fromkeys(rivals, even)}
    monkeypatch.setattr(budgets, "gaps", lambda *_: gaps)
    monkeypatch.setattr(budgets, "text_losses", lambda *_: losses(**means))
    assert claim in budgets.least(tuning, STUDY)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.00"),
        (0.0351, "0.035"),
        (0.000082, "0.000082"),
        (31.57, "31.6"),
        (1e9, "> 1,000,000"),
        (1e-9, "< 1/1,000,000"),
        (np.nan, "–"),
    ],
)
def test_a_ratio_has_two_digits_or_is_beyond_a_limit(value: float, text: str) -> None:
    assert conclusions.factor(float(np.log(value))) == text


def test_beside_ratios_stands_what_would_have_been_shown() -> None:
    logs = [stats.t_interval(np.log([1 / ratio, ratio] * 5)) for ratio in (2, 2, 4)]
    assert conclusions.ratio(logs[0]) == "1.00 [0.59, 1.69]"
    few = stats.t_interval(np.log([1.0, 10.0]))
    assert conclusions.ratio(few) == "3.16 (2 draws: 1.00 to 10.0)"
    one, wide = (conclusions.factor(log.detectable) for log in logs[1:])
    assert conclusions.power(logs[:2], logs=True).startswith(f" (a true ratio of {one} either way")
    assert f"true ratios of {one} to {wide} either way" in conclusions.power(logs, logs=True)
    assert f"{stats.number(logs[0].detectable)} would have" in conclusions.power(logs[:1])
    assert conclusions.power([few, stats.t_interval([1.0, 1.1, 1.2, 1.1, 1.0])]) == ""


def test_the_summary_answers_each_question(
    tuning: budgets.Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(tables, "say", texts.append)
    budgets.summary(tuning)
    lines = texts[0].splitlines()
    starts = ["- At an equal budget", "- Trying 2 rates", "- In-domain with one rate each"]
    starts += ["- LoRA's chosen rate over", "- Of the"]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts
    assert "has the lowest mean perplexity of plain sentences, 20.1; it is not shown" in lines[-1]
    text = budgets.text_term(tuning, STUDY)
    assert "multiplies perplexity by 0.37 [0.37, 0.37] (full) and 0.37 [0.37, 0.37]" in text


def test_a_study_without_the_runs_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(tables, "say", texts.append)
    study = params.study("smoke", {"repeats": 10, "without": ["rates of *"]})
    part = results().part("zero-shot")
    nothing = budgets.read(Results(part.rows, part.predictions, part.groups), [study])
    assert len(texts) == 1
    assert texts[0].startswith(
        "Not run for this study, and so not shown: rates of full; rates of r"
    )
    assert budgets.accuracy(nothing) is None
    budgets.differences(nothing)
    budgets.summary(nothing)
    assert len(texts) == 1
