"""Metrics and intervals against closed forms, other implementations, and simulated coverage."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from llmft import UserError
from llmft.report import stats
from llmft.study import metrics


HALF = [math.log(0.5)] * 2


def logp_of(p_entailment: list[float]) -> np.ndarray:
    p = np.asarray(p_entailment)
    return np.log(np.stack([p, 1 - p], axis=1))


def test_metrics_of_a_hand_counted_table():
    logp, labels = logp_of([0.9, 0.8, 0.3, 0.6]), [0, 1, 1, 0]
    assert metrics.correct(logp, labels).tolist() == [1, 0, 1, 1]
    assert metrics.accuracy(logp, labels) == 0.75
    expected = -(math.log(0.9) + math.log(0.2) + math.log(0.7) + math.log(0.6)) / 4
    assert metrics.nll(logp, labels) == pytest.approx(expected)
    assert metrics.brier(logp, labels) == pytest.approx((0.01 + 0.64 + 0.09 + 0.16) / 4)
    assert metrics.share_entailment(logp) == 0.75


def test_knowing_nothing_scores_as_the_closed_forms_say():
    logp, labels = np.array([HALF] * 10), [0, 1] * 5
    assert metrics.nll(logp, labels) == pytest.approx(math.log(2))
    assert metrics.brier(logp, labels) == pytest.approx(0.25)
    assert metrics.accuracy(logp, labels) == 0.5  # a tie counts for the first label
    assert metrics.ece(logp, labels) == pytest.approx(0)


def test_ece_is_the_distance_between_confidence_and_accuracy():
    assert metrics.ece(logp_of([0.95] * 10), [1] * 5 + [0] * 5) == pytest.approx(0.45)
    # Two bins, 8 and 2 examples, off by 0.2 and 0.4: weighted mean 0.24.
    logp = logp_of([0.8] * 8 + [0.6] * 2)
    assert metrics.ece(logp, [0] * 8 + [0] * 2, bins=10) == pytest.approx(0.24)


def test_reliability_keeps_the_extreme_confidences():
    logp = np.array([[0.0, -np.inf], HALF])
    table = metrics.reliability(logp, [0, 0])
    assert table["confidence"].tolist() == [0.5, 1.0]
    assert table["n"].sum() == 2


def test_content_free_queries_have_no_gold_label():
    with pytest.raises(ValueError, match="content-free"):
        metrics.nll(logp_of([0.5, 0.5]), [0, -1])
    frame = frame_of(["k"], 4)
    blank = frame.head(1).assign(domain="content-free", label=-1)
    assert len(metrics.with_scores(pd.concat([frame, blank]))) == 4


def test_mismatched_labels_are_refused():
    with pytest.raises(ValueError, match="do not go with"):
        metrics.accuracy(logp_of([0.5, 0.5]), [0])


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject):
    k = data.draw(st.integers(0, n))
    ours = stats.wilson(k, n)
    theirs = scipy_stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert ours.lo == pytest.approx(theirs.low, abs=1e-9)
    assert ours.hi == pytest.approx(theirs.high, abs=1e-9)


def test_calibration_removes_a_constant_bias_exactly():
    rng = np.random.default_rng(0)
    fair = logp_of(list(rng.uniform(0.05, 0.95, 50)))
    bias = np.log([0.8, 0.2])
    biased = fair + bias
    biased -= np.logaddexp.reduce(biased, axis=1, keepdims=True)
    blank = np.array([bias, bias, bias])
    assert np.allclose(metrics.calibrate(biased, blank), fair)


def test_calibration_averages_probabilities_not_logarithms():
    blank = np.log([[0.9, 0.1], [0.5, 0.5]])
    odds = np.diff(metrics.calibrate(np.array([HALF]), blank))[0, 0]
    assert odds == pytest.approx(math.log(0.7 / 0.3))


def frame_of(keys: list[str], n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for key in keys:
        p = rng.uniform(0.1, 0.9, n)
        parts.append(
            pd.DataFrame(
                {
                    "key": key,
                    "domain": "in-domain",
                    "id": [f"e{i}" for i in range(n)],
                    "label": np.arange(n) % 2,
                    "logp_entailment": np.log(p),
                    "logp_not": np.log(1 - p),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_each_correction_of_label_bias_is_beside_the_raw_predictions() -> None:
    frame = frame_of(["k1", "k2"], 6)
    blank = frame.groupby("key").head(2).assign(domain="content-free", label=-1)
    validation = frame[frame["key"] == "k1"].assign(of="k1", key="v1")
    whole = pd.concat([frame, blank], ignore_index=True)
    done = metrics.with_corrections(whole, validation)
    assert set(done["domain"]) == {"in-domain"}
    assert done.groupby("key")["correction"].unique().map(list).to_dict() == {
        "k1": [*metrics.CORRECTIONS],
        "k2": [*metrics.CORRECTIONS[:3]],
    }
    part = frame[frame["key"] == "k2"][metrics.LOGP].to_numpy()
    own = done[done["key"] == "k2"].set_index("correction")[metrics.LOGP]
    assert np.allclose(own.loc["none"], part, atol=1e-6)
    assert np.allclose(own.loc["contextual"], metrics.calibrate(part, part[:2]), atol=1e-6)
    batch = np.exp(own.loc["batch"].to_numpy())
    assert np.allclose(batch.sum(1), 1, atol=1e-6)
    assert np.allclose(own.loc["batch"], metrics.calibrate(part, part), atol=1e-6)
    scored = metrics.with_scores(done.assign(key=done["key"] + done["correction"]))
    means = scored.groupby("key")[["correct", "auc"]].mean()
    assert means["auc"].groupby(means.index.str[:2]).nunique().eq(1).all()  # the ranking stays
    assert means["correct"]["k1threshold"] == means["correct"].loc["k1none":"k1threshold"].max()


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 1)), min_size=1, max_size=12),
)
def test_no_other_threshold_is_right_more_often(pairs: list[tuple[int, int]]) -> None:
    odds, labels = np.array(pairs, dtype=float).T
    logp = np.stack([odds, np.zeros(len(odds))], axis=1)

    def right(at: float) -> float:
        return float(((odds <= at) == (labels == 1)).mean())

    found = metrics.threshold(logp, labels.astype(int))
    assert right(found) == max(right(at) for at in np.arange(-6, 7) + 0.5)
    assert found not in odds


# --- one value by draw and example -------------------------------------------------------------


def sample_of(
    values: Any, *, strata: Sequence[str] = (), clusters: Sequence[str] = (), **options: Any
) -> stats.Sample:
    """A sample of (draws, examples) with the ids d0, d1, ... and e0, e1, ..."""
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    examples = tuple(f"e{i}" for i in range(table.shape[1]))
    return stats.Sample(
        table,
        options.pop("draws", tuple(f"d{i}" for i in range(len(table)))),
        examples,
        tuple(strata) or ("",) * len(examples),
        tuple(clusters) or examples,
        **options,
    )


def long_of(values: Any, **columns: Sequence[Any]) -> pd.DataFrame:
    """The frame of (draws, examples), a row a draw and example; `columns` by example."""
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "draw": f"d{i}",
                    "id": [f"e{j}" for j in range(table.shape[1])],
                    "correct": row,
                    **columns,
                }
            )
            for i, row in enumerate(table)
        ],
        ignore_index=True,
    )


def right_or_wrong(seed: int, draws: int = 6, examples: int = 40, p: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    easy, good = rng.normal(0, 0.2, examples), rng.normal(0, 0.1, (draws, 1))
    return (rng.random((draws, examples)) < p + easy + good).astype(float)


def test_the_standard_error_is_the_two_way_analysis_of_variance() -> None:
    x = np.random.default_rng(0).normal(size=(6, 9)) + np.arange(9) + np.arange(6)[:, None]
    d, e = x.shape
    rows, columns, grand = x.mean(1), x.mean(0), x.mean()
    ms_rows = e * ((rows - grand) ** 2).sum() / (d - 1)
    ms_columns = d * ((columns - grand) ** 2).sum() / (e - 1)
    rest = x - rows[:, None] - columns + grand
    ms_rest = (rest**2).sum() / ((d - 1) * (e - 1))
    se = math.sqrt((ms_rows + ms_columns - ms_rest) / (d * e))
    result = stats.interval(sample_of(x))
    assert (result.mean, result.se, result.df) == pytest.approx((grand, se, 5))
    half = scipy_stats.t.ppf(0.975, 5) * se
    assert (result.lo, result.hi) == pytest.approx((grand - half, grand + half))
    assert (result.lowest, result.highest) == pytest.approx((rows.min(), rows.max()))
    assert (result.draws, result.examples, result.recipe) == (6, 9, "two-way t")


def test_one_side_that_does_not_vary_leaves_the_other() -> None:
    values = np.random.default_rng(0).random(8)
    draws = stats.interval(sample_of(np.repeat(values[:, None], 9, axis=1)))
    assert (draws.lo, draws.hi) == pytest.approx(
        (stats.t_interval(values).lo, stats.t_interval(values).hi)
    )
    examples = stats.interval(sample_of(np.repeat(values[None], 5, axis=0)))
    assert examples.se == pytest.approx(scipy_stats.sem(values))


def test_a_component_below_zero_does_not_make_the_error_smaller_than_one_side_alone() -> None:
    x = np.array([[1.0, 0.0] * 4, [0.0, 1.0] * 4] * 3)  # draws and examples all have one half
    x[0, :2] = 1
    layout = stats.units([""] * 8, [*"abcdefgh"])
    parts = stats.components(x.mean(1), stats.influence(x, layout))
    assert parts.sum() - 2 * parts[2] < 0, "the plain estimate is not below zero here"
    assert stats.interval(sample_of(x)).se == pytest.approx(math.sqrt(parts.max()))


def test_where_nothing_was_drawn_examples_alone_vary() -> None:
    x = np.random.default_rng(0).random(30)
    result = stats.interval(sample_of(x, draws=()))
    low, high = scipy_stats.t.interval(0.95, 29, x.mean(), scipy_stats.sem(x))
    assert (result.lo, result.hi) == pytest.approx((low, high))
    assert (result.draws, result.examples, result.recipe) == (0, 30, "t over examples")
    assert math.isnan(result.lowest)
    near = stats.interval(sample_of(np.r_[np.ones(700), np.zeros(300)], draws=(), bounds=(0, 1)))
    wilson = stats.wilson(700, 1000)
    assert (near.lo, near.hi) == pytest.approx((wilson.lo, wilson.hi), abs=5e-4)


@pytest.mark.parametrize("draws", [1, 2, 3, 4])
def test_below_five_draws_there_is_a_range_and_no_interval(draws: int) -> None:
    x = right_or_wrong(0, draws)
    result, rows = stats.interval(sample_of(x, bounds=(0, 1))), x.mean(1)
    gap = stats.difference(sample_of(x), sample_of(1 - x))
    alone = stats.t_interval(rows, bounds=(0, 1))
    for interval in (result, gap, alone):
        assert np.isnan([interval.lo, interval.hi, interval.detectable]).all()
    assert result.mean == pytest.approx(x.mean())
    assert (alone.lowest, alone.highest) == (result.lowest, result.highest)
    number = [stats.number(value) for value in (result.mean, rows.min(), rows.max())]
    expected = (
        "{} ({} draws: {} to {})".format(number[0], draws, *number[1:])
        if draws > 1
        else f"{number[0]} (1 draw)"
    )
    assert str(result) == str(alone) == expected
    assert stats.caption(pd.DataFrame([vars(result)])) == (
        f"no interval below 5 draws, but their range: {draws} draw{'s' * (draws > 1)} × 40 examples"
    )


def test_a_frame_with_few_and_many_draws_says_both_in_its_caption() -> None:
    many, few = (long_of(right_or_wrong(0, n), label=[0, 1] * 20) for n in (6, 3))
    none = few[few["draw"] == "d0"].assign(draw="")
    frame = pd.concat(
        [many.assign(shots=2), few.assign(shots=4), none.assign(shots=0)], ignore_index=True
    )
    table = stats.summary(frame, ["shots"])
    assert table.columns.tolist() == ["shots", *stats.FIELDS]
    assert table["draws"].tolist() == [6, 3, 0]
    assert table["lo"].isna().tolist() == [False, True, False]
    assert stats.caption(table) == (
        "95 % intervals, two-way t and t over examples: 6 draws × 40 examples; no interval below 5 "
        "draws, but their range: 3 draws × 40 examples"
    )
    assert [stats.as_text(row, 1) for _, row in table.iterrows()] == [
        stats.as_text(vars(stats.interval(stats.sample(part))), 1) for part in (many, few, none)
    ]
    five = stats.interval(sample_of(right_or_wrong(0, 5)), level=0.995)
    assert (
        stats.caption(pd.DataFrame([vars(five)]))
        == "99.5 % intervals, two-way t: 5 draws × 40 examples"
    )


# --- bounds ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=12), st.floats(0.5, 0.9999))
def test_an_interval_of_shares_stays_between_zero_and_one(values: list[float], level: float):
    result = stats.t_interval(values, level, stats.bounds_of("accuracy"))
    assert -1e-12 <= result.lo <= result.mean + 1e-12
    assert result.mean - 1e-12 <= result.hi <= 1 + 1e-12
    losses = stats.t_interval(np.asarray(values) * 9, level, stats.bounds_of("validation_nll"))
    assert 0 <= losses.lo <= losses.mean + 1e-9
    assert losses.mean <= losses.hi + 1e-9


def test_what_was_printed_beyond_its_bounds_is_within() -> None:
    """Accuracy [.231, 1.237] and NLL [-.3, 1.6] were printed."""
    rows = pd.DataFrame({"accuracy": [0.99, 0.98, 0.5, 0.97, 0.3], "nll": [0.1, 0.2, 2, 0.1, 0.1]})
    for value, high in (("accuracy", 1), ("nll", np.inf)):
        plain = stats.t_interval(rows[value])
        assert plain.lo < 0 or plain.hi > 1, "the plain interval is within its bounds"
        result = stats.over_draws(rows.assign(way="a"), ["way"], value).iloc[0]
        assert 0 < result["lo"] < result["mean"] < result["hi"] < high
    gap = stats.difference(
        *(sample_of(np.outer(x, [1, 1, 1]), bounds=(0, 1)) for x in ([1, 1, 1, 0, 1], [0] * 5))
    )
    assert -1 <= gap.lo < gap.mean < gap.hi == 1


def test_bounds_are_known_by_the_values_name() -> None:
    x = long_of(right_or_wrong(0), nll=[0.1] * 40, other=[0.1] * 40)
    assert stats.sample(x).bounds == (0, 1)
    assert stats.sample(x, "nll").bounds == (0, np.inf)
    assert stats.sample(x, "other").bounds == (-np.inf, np.inf)


# --- ids, strata, clusters ---------------------------------------------------------------------


def test_rows_in_another_order_are_the_same_sample() -> None:
    """Identical runs had a difference of [-.17, .17] when their rows were in another order."""
    frame = long_of(right_or_wrong(0), label=[0, 1] * 20)
    shuffled = frame.sample(frac=1, random_state=1)
    a, b = stats.sample(frame), stats.sample(shuffled)
    assert a.draws != b.draws
    assert a.examples != b.examples
    gap = stats.difference(a, b)
    assert (gap.lo, gap.mean, gap.hi, gap.lowest, gap.highest) == (0, 0, 0, 0, 0)
    assert vars(stats.interval(a)) == pytest.approx(vars(stats.interval(b)))
    other = stats.sample(long_of(right_or_wrong(1), label=[0, 1] * 20))
    swapped = stats.difference(b, other)
    assert (swapped.lo, swapped.hi) == pytest.approx(
        (stats.difference(a, other).lo, stats.difference(a, other).hi)
    )
    result, expected = stats.share(b, a, other), stats.share(a, a, other)
    assert (result.lo, result.mean, result.hi) == pytest.approx(
        (expected.lo, expected.mean, expected.hi), nan_ok=True
    )


def test_ids_of_any_kind() -> None:
    frame = long_of(right_or_wrong(0), label=[0, 1] * 20)
    numbers = frame.assign(
        draw=frame["draw"].str[1:].astype(int), id=frame["id"].str[1:].astype(int)
    )
    assert stats.sample(numbers).draws == ("0", "1", "2", "3", "4", "5")
    assert stats.interval(stats.sample(numbers)) == stats.interval(stats.sample(frame))


def test_a_constant_predictor_has_exactly_one_half() -> None:
    labels = [0, 1] * 300
    answers = np.random.default_rng(0).integers(2, size=(10, 1))  # one a draw
    frame = long_of(answers == np.array(labels), label=labels)
    for rows in (frame, frame[frame["draw"] == "d0"].assign(draw="")):
        result = stats.interval(stats.sample(rows))
        assert (result.lo, result.mean, result.hi) == (0.5, 0.5, 0.5)
    loose = stats.interval(stats.sample(frame.drop(columns="label")))
    assert loose.hi - loose.lo > 0.02


def test_a_lean_to_one_label_is_not_taken_for_noise_of_examples() -> None:
    """A draw that leans is better on one label and worse on the other: .5 each time."""
    labels = np.array([0, 1] * 50)
    lean = np.array([0.3, -0.2, 0.1, 0.4, -0.4, 0.2])[:, None]
    values = 0.5 + lean * np.where(labels, 1, -1)
    result = stats.interval(sample_of(values, strata=[str(x) for x in labels]))
    assert (result.mean, result.se) == pytest.approx((0.5, 0), abs=1e-12)


def test_constructions_of_one_set_and_new_ones() -> None:
    """Right on every pair of some subcases, wrong on the others: only whole subcases vary."""
    subcase, label = np.repeat([f"s{i}" for i in range(10)], 20), np.repeat([0, 1] * 5, 20)
    good = np.repeat([1.0, 1, 1, 0, 0, 0, 1, 1, 0, 1], 20)
    frame = long_of(np.tile(good, (10, 1)), subcase=subcase, label=label)
    these = stats.interval(stats.sample(frame))
    new = stats.interval(stats.sample(frame, clusters="subcase"))
    assert (these.lo, these.mean, these.hi) == pytest.approx((0.6, 0.6, 0.6), abs=1e-12)
    # Five subcases of each label, of which three were right: 2 of variance .3 / 5 with weight 1/4.
    assert (new.se, new.df) == pytest.approx((math.sqrt(0.3 / 5 / 2), 8))
    assert these.recipe == "two-way t (within label and subcase)"
    assert new.recipe == "two-way t (whole subcases, within label)"
    # In-domain pairs have no subcases; with none, labels alone are balanced.
    plain = stats.interval(stats.sample(frame.drop(columns="subcase")))
    assert plain == stats.interval(stats.sample(frame.assign(subcase=None)))
    assert plain.recipe == "two-way t (within label)"


def test_clusters_of_one_value_count_once() -> None:
    x = np.random.default_rng(0).random((6, 20))
    pairs = stats.interval(
        sample_of(np.repeat(x, 3, axis=1), clusters=[str(i) for i in range(20) for _ in range(3)])
    )
    single = stats.interval(sample_of(x))
    assert (pairs.se, pairs.df) == pytest.approx((single.se, single.df))


def test_clusters_across_strata_keep_the_balance() -> None:
    """A premise with one entailed and one other hypothesis: a constant predictor has one half."""
    labels, premise = [str(i % 2) for i in range(40)], [str(i // 2) for i in range(40)]
    constant = np.tile([float(x) for x in labels], (6, 1))
    result = stats.interval(sample_of(constant, strata=labels, clusters=premise))
    assert (result.lo, result.mean, result.hi) == (0.5, 0.5, 0.5)
    # Both pairs of a premise alike: as if each premise had been asked once.
    x = np.random.default_rng(0).random((6, 20))
    result = stats.interval(sample_of(np.repeat(x, 2, axis=1), strata=labels, clusters=premise))
    assert result.se == pytest.approx(stats.interval(sample_of(x)).se)


def test_a_stratum_of_one_is_put_with_others() -> None:
    x = np.random.default_rng(0).random((6, 12))
    loose = stats.interval(sample_of(x)).se
    for strata in ([str(i) for i in range(12)], ["a"] * 11 + ["b"]):
        assert stats.interval(sample_of(x, strata=strata)).se == pytest.approx(loose)
    two = stats.interval(sample_of(x, strata=["a"] * 10 + ["b", "c"]))
    assert two.se == pytest.approx(stats.interval(sample_of(x, strata=["a"] * 10 + ["b", "b"])).se)
    one = stats.interval(sample_of(x[:, :1]))
    assert (one.mean, math.isnan(one.lo)) == (pytest.approx(x[:, 0].mean()), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(index=3), "draw 'd0' has no 'correct' for example 'e3'"),
        (lambda f: pd.concat([f, f.tail(1)]), "example 'e5' is there twice in draw 'd5'"),
        (lambda f: f.assign(draw=""), "example 'e0' is there twice in draw ''"),
        (lambda f: f.assign(draw=f["draw"].replace("d0", "")), "some rows have no draw and others"),
        (
            lambda f: f.assign(correct=f["correct"].where(f.index != 2)),
            "draw 'd0' has no 'correct' for example 'e2'",
        ),
        (lambda f: f.assign(correct=np.inf), "draw 'd0' has no 'correct' for example 'e0'"),
        (lambda f: f.assign(label=range(36)), "example 'e0' has two values of label"),
    ],
)
def test_a_frame_that_is_no_sample_is_refused(change: Any, message: str) -> None:
    frame = long_of(right_or_wrong(0, 6, 6), label=[0, 1] * 3)
    assert stats.sample(frame).values.shape == (6, 6)
    with pytest.raises(UserError, match=message) as error:
        stats.sample(change(frame))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["recipe", "examples"])
def test_no_column_is_overwritten(name: str) -> None:
    frame = long_of(right_or_wrong(0)).assign(**{name: "icl"})
    with pytest.raises(UserError, match=f"rename the column '{name}'"):
        stats.summary(frame, [name])


def test_a_column_called_method_is_kept_and_so_is_a_missing_key() -> None:
    frame = long_of(right_or_wrong(0)).assign(method="icl", rank=np.nan)
    table = stats.summary(frame, ["method", "rank"])
    assert table["method"].tolist() == ["icl"]
    assert table["recipe"].tolist() == ["two-way t"]
    draws = frame.groupby(["draw", "method"])["correct"].mean().reset_index()
    assert stats.over_draws(draws, ["method"], "correct")["method"].tolist() == ["icl"]
    with pytest.raises(UserError, match="draw 'd0' is there twice"):
        stats.over_draws(pd.concat([draws, draws]), ["method"], "correct")


# --- differences and shares --------------------------------------------------------------------


def test_a_difference_is_the_mean_of_paired_differences() -> None:
    a, b = right_or_wrong(0), right_or_wrong(1)
    gap, own = stats.difference(sample_of(a), sample_of(b)), stats.interval(sample_of(a - b))
    assert (gap.lo, gap.mean, gap.hi, gap.se, gap.n) == (own.lo, own.mean, own.hi, own.se, own.n)
    assert gap.recipe == "paired two-way t"
    back = stats.difference(sample_of(b), sample_of(a))
    assert (back.lo, back.hi) == pytest.approx((-gap.hi, -gap.lo))


def test_what_was_not_drawn_is_compared_with_every_draw() -> None:
    many, one = np.random.default_rng(0).random((5, 40)), np.random.default_rng(1).random((1, 40))
    zero = sample_of(one, draws=())
    every = stats.difference(sample_of(many), sample_of(np.repeat(one, 5, axis=0)))
    for same in (True, False):
        short, back = (
            stats.difference(a, b, same_examples=same)
            for a, b in ((sample_of(many), zero), (zero, sample_of(many)))
        )
        assert (short.draws, back.draws) == (5, 5)
        assert (back.lo, back.hi) == pytest.approx((-short.hi, -short.lo))
        if same:
            assert (short.lo, short.hi) == pytest.approx((every.lo, every.hi))
    neither = stats.difference(zero, sample_of(one + 1, draws=()))
    assert (neither.lo, neither.hi, neither.n) == (pytest.approx(-1), pytest.approx(-1), "40")


def test_two_domains_share_their_draws_and_no_examples() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(0, 0.1, (8, 1))
    a, b = 0.8 + good + rng.normal(0, 0.01, (8, 50)), 0.6 + good + rng.normal(0, 0.1, (8, 30))
    gap = stats.difference(sample_of(a), sample_of(b), same_examples=False)
    assert gap.mean == pytest.approx(a.mean() - b.mean())
    assert gap.n == "8 × 30"
    # Draws cancel out; what the examples alone would give, side by side, is left.
    parts = sum(np.var(x.mean(0), ddof=1) / x.shape[1] for x in (a, b))
    assert gap.se == pytest.approx(math.sqrt(parts), rel=0.25)
    assert gap.se < 0.5 * stats.interval(sample_of(a)).se


@pytest.mark.parametrize("same", [True, False])
def test_other_draws_are_refused_by_name(same: bool) -> None:
    a = sample_of(np.ones((2, 3)))
    other = sample_of(np.ones((2, 3)), draws=("d0", "x"))
    with pytest.raises(UserError, match="not the same draws: only one of the two has 'd1', 'x'"):
        stats.difference(a, other, same_examples=same)


def test_of_more_draws_those_that_both_have_are_compared() -> None:
    rng = np.random.default_rng(1)
    many, few = rng.random((7, 30)), rng.random((5, 30))
    some = sample_of(few, draws=("d6", "d0", "d3", "d1", "d5"))
    same = sample_of(many[[6, 0, 3, 1, 5]], draws=some.draws)
    for same_examples in (True, False):
        one, other = (
            stats.difference(some, sample, same_examples=same_examples)
            for sample in (sample_of(many), same)
        )
        assert str(one) == str(other)
        assert one.n == "5 × 30"
        back = stats.difference(sample_of(many), some, same_examples=same_examples)
        assert back.mean == pytest.approx(-one.mean)
    best, _ = stats.best({"many": sample_of(many + 1), "few": sample_of(few, draws=some.draws)})
    assert best == "many"
    low = sample_of(np.r_[many[:5] - 1, np.full((2, 30), 9.0)])  # the best by draws of its own
    assert stats.best({"low": low, "few": sample_of(many[:5])})[0] == "few"
    own, taught, base = (sample_of((many > cut).astype(float)) for cut in (0.2, 0.3, 0.8))
    assert stats.share(sample_of(own.values[:5]), taught, base).draws == 5


def test_other_examples_or_strata_are_refused_by_name() -> None:
    a, b = sample_of(np.ones((2, 3))), sample_of(np.ones((2, 8)))
    with pytest.raises(UserError, match=r"examples: only one .* has 'e3', 'e4', 'e5' \.\.\."):
        stats.difference(a, b)
    with pytest.raises(UserError, match="not the same examples"):
        stats.share(a, a, b)
    with pytest.raises(UserError, match="not the same strata"):
        stats.difference(a, sample_of(np.ones((2, 3)), strata=["a", "b", "b"]))
    with pytest.raises(UserError, match="not the same draws"):
        stats.share(a, sample_of(np.ones((2, 3)), draws=("d0", "x")), a)


def three_of(
    rng: np.random.Generator, draws: int = 6, examples: int = 200, own: float = 0.0
) -> list[stats.Sample]:
    """Right or wrong: a, b and their start, with P(right) about .62, .66 and .5.

    What a draw and an example are like is much the same for the three; `own` is the spread of what
    a draw does to one of them alone.
    """
    draw, example = rng.normal(0, 0.3, (draws, 1)), rng.normal(0, 1, (1, examples))
    right = []
    for p in (0.65, 0.75, 0.5):
        x = np.log(p / (1 - p)) + draw + example + rng.normal(0, own, (draws, 1))
        right.append(sample_of(rng.random(x.shape) < 1 / (1 + np.exp(-x))))
    return right


def test_a_share_is_the_part_of_a_gain() -> None:
    a, b, base = three_of(np.random.default_rng(0))
    result, (top, middle, start) = stats.share(a, b, base), (x.values.mean() for x in (a, b, base))
    assert result.mean == pytest.approx((top - start) / (middle - start))
    assert result.lo < result.mean < result.hi
    assert result.n == "6 × 200"
    # By Fieller's definition, the ends are the ratios whose distance from zero is just not shown.
    for end in (result.lo, result.hi):
        rest = a.values - base.values - end * (b.values - base.values)
        edge = stats.interval(sample_of(rest))
        assert min(abs(edge.lo), abs(edge.hi)) == pytest.approx(0, abs=1e-9)
    # A start that was not drawn, as zero-shot, is every draw's.
    one = stats.share(a, b, sample_of(base.values[:1], draws=()))
    repeated = stats.share(a, b, sample_of(base.values[:1].repeat(6, 0)))
    assert (one.lo, one.mean, one.hi) == pytest.approx((repeated.lo, repeated.mean, repeated.hi))


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0, 1.5])
def test_a_share_that_never_varies_is_known(part: float) -> None:
    _, b, base = three_of(np.random.default_rng(1))
    result = stats.share(sample_of(base.values + part * (b.values - base.values)), b, base)
    assert (result.lo, result.mean, result.hi) == pytest.approx((part, part, part), abs=1e-6)


def test_there_is_no_share_of_a_gain_that_is_not_clear() -> None:
    a, b, base = three_of(np.random.default_rng(2))
    little = np.roll(base.values, 1, axis=1)
    little[0, little[0].argmin()] = 1
    for unclear in (base, sample_of(little), sample_of(1 - b.values)):
        assert stats.difference(unclear, base).lo <= 0
        result = stats.share(a, unclear, base)
        assert np.isnan([result.lo, result.mean, result.hi]).all()
        assert (str(result), result.n) == ("–", "6 × 200")
    assert stats.difference(b, base).lo > 0
    assert np.isfinite(stats.share(a, b, base).mean)
    few = stats.share(*three_of(np.random.default_rng(2), 4))
    assert np.isnan([few.lo, few.mean, few.hi]).all()


@pytest.mark.parametrize("own", [0.0, 0.2])
def test_a_share_covers_in_simulation(own: float) -> None:
    """More than 95 in 100 where draws do the same to all three: the error has a floor."""
    a, b, base = (x.values.mean() for x in three_of(np.random.default_rng(1), 1_000, 4_000, own))
    truth, rng, worlds = (a - base) / (b - base), np.random.default_rng(0), 200
    result = [stats.share(*three_of(rng, 8, 200, own)) for _ in range(worlds)]
    finite = [x for x in result if np.isfinite(x.mean)]
    assert len(finite) > 0.9 * worlds
    assert 0.925 <= np.mean([x.lo <= truth <= x.hi for x in finite]) <= (0.99 if own else 1)


# --- coverage, power, several at once ----------------------------------------------------------


@pytest.mark.parametrize(
    ("draws", "draw_sd", "lowest"),
    [(5, 1.0, 0.92), (10, 1.0, 0.92), (10, 0.1, 0.93), (20, 0.5, 0.93)],
)
def test_an_interval_covers_in_simulation(draws: int, draw_sd: float, lowest: float) -> None:
    """Accuracy with random draws and random examples: the truth is inside about 95 times in 100.

    With examples alone, as is often done, about half of the time here. The whole table:
    tests/benchmarks/intervals.py.
    """
    rng, worlds = np.random.default_rng(0), 300
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    effect = 1 + math.hypot(1, draw_sd) * nodes
    truth = float((weights / weights.sum()) @ (1 / (1 + np.exp(-effect))))
    inside = examples_only = 0
    for _ in range(worlds):
        effect = rng.normal(0, draw_sd, (draws, 1)) + rng.normal(1, 1, (1, 200))
        right = (rng.random((draws, 200)) < 1 / (1 + np.exp(-effect))).astype(float)
        interval = stats.interval(sample_of(right, bounds=(0, 1)))
        inside += interval.lo <= truth <= interval.hi
        if draw_sd == 1.0:
            narrow = stats.interval(sample_of(right.mean(0), draws=()))
            examples_only += narrow.lo <= truth <= narrow.hi
    assert lowest <= inside / worlds <= 0.99
    if draw_sd == 1.0:
        assert examples_only / worlds < 0.75


@pytest.mark.parametrize(
    ("draws", "examples", "expected"),
    [(5, 200, 0.111), (5, 1600, 0.088), (10, 200, 0.073), (10, 1600, 0.054), (20, 400, 0.047)],
)
def test_what_a_design_could_have_shown(draws: int, examples: int, expected: float) -> None:
    """The audit's table: draws' sd .05, examples' .2, and .4 of neither; and the power itself."""
    se = math.sqrt(0.05**2 / draws + 0.2**2 / examples + 0.4**2 / (draws * examples))
    result = stats.Interval(0, -1, 1, "t", draws, examples, se=se, df=draws - 1).detectable
    assert result == pytest.approx(expected, rel=0.06)
    power = 1 - scipy_stats.nct.cdf(scipy_stats.t.ppf(0.975, draws - 1), draws - 1, result / se)
    assert power == pytest.approx(0.8, abs=0.04)


def test_comparisons_made_together_are_wider_and_need_a_larger_difference() -> None:
    samples = {name: sample_of(right_or_wrong(i)) for i, name in enumerate("abcd")}
    table = stats.pairwise(samples)
    assert table.columns.tolist() == ["first", "second", "difference"]
    assert list(zip(table["first"], table["second"], strict=True)) == [
        ("a", "b"),
        ("a", "c"),
        ("a", "d"),
        ("b", "c"),
        ("b", "d"),
        ("c", "d"),
    ]
    for _, (first, second, gap) in table.iterrows():
        alone = stats.difference(samples[first], samples[second])
        t = scipy_stats.t.ppf(1 - 0.025 / 6, 5)
        assert gap.hi - gap.mean == pytest.approx(t * alone.se)
        assert gap.detectable > alone.detectable > 0
        assert gap.level == pytest.approx(1 - 0.05 / 6)
    assert stats.pairwise({"a": samples["a"]}).empty


def test_the_best_and_what_is_shown_to_be_below_it() -> None:
    x = right_or_wrong(0, 8, 200)
    worse = x * (np.arange(200) % 5 > 0)
    samples = {
        "worse": sample_of(worse),
        "good": sample_of(x),
        "alike": sample_of(np.roll(x, 1, 0)),
    }
    first, gaps = stats.best(samples)
    assert (first, list(gaps)) == ("good", ["alike", "worse"])
    assert gaps["worse"].lo > 0 > gaps["alike"].lo
    assert gaps["worse"].mean == pytest.approx(x.mean() - worse.mean())
    _, few = stats.best({name: sample_of(s.values[:3]) for name, s in samples.items()})
    assert all(np.isnan(gap.lo) for gap in few.values())
    assert stats.best({"one": samples["good"]}) == ("one", {})


def test_of_five_equal_methods_the_best_is_seldom_said_to_be_above_another() -> None:
    rng, worlds, false = np.random.default_rng(0), 150, 0
    for _ in range(worlds):
        easy = rng.normal(1.6, 1, (1, 60))
        samples = {}
        for name in "abcde":
            log_odds = easy + rng.normal(0, 0.4, (6, 1))
            samples[name] = sample_of(rng.random((6, 60)) < 1 / (1 + np.exp(-log_odds)))
        false += any(gap.lo > 0 for gap in stats.best(samples)[1].values())
    assert 0 < false / worlds <= 0.06


# --- draws alone -------------------------------------------------------------------------------


def test_draws_without_a_number_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 3 draws have no number"):
        stats.t_interval([0.1, np.nan, 0.3])
    with pytest.raises(UserError, match="0 of 0"):
        stats.t_interval([])


def test_t_interval_is_scipys() -> None:
    x = [0.61, 0.72, 0.70, 0.55, 0.81]
    low, high = scipy_stats.t.interval(0.95, 4, np.mean(x), scipy_stats.sem(x))
    result = stats.t_interval(x)
    assert (result.lo, result.hi) == (pytest.approx(low), pytest.approx(high))


def test_texts():
    interval = stats.Interval(0.8123, 0.78, 0.84, "two-way t", 10, 1200)
    assert interval.text == "0.81 [0.78, 0.84], n = 10 × 1,200"
    assert stats.as_text(vars(interval), 3) == "0.812 [0.780, 0.840]"
    assert str(stats.Interval(0.5, np.nan, np.nan, "t over examples", 0, 1)) == "0.50"
    few = stats.Interval(0.81, np.nan, np.nan, "t", 3, 9, lowest=0.74, highest=0.86)
    assert few.text == "0.81 (3 draws: 0.74 to 0.86), n = 3 × 9"
    assert stats.number(float("nan")) == "–"
    for interval, text in (
        (stats.wilson(5, 10), "95 % intervals, Wilson: 10 examples"),
        (stats.t_interval([1, 2, 3, 4, 5]), "95 % intervals, t over draws: 5 draws"),
    ):
        assert stats.caption(pd.DataFrame([vars(interval)])) == text


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert stats.number(-0.004) == "0.00"
    assert stats.number(-0.006) == "-0.01"
    assert str(stats.Interval(-0.001, -0.01, 0.001, "t over draws", 3, 0)) == "0.00 [-0.01, 0.00]"
    # But one that leaves out zero says on which side of it it is.
    assert str(stats.Interval(0.03, 0.002, 0.06, "t", 5, 0)) == "0.030 [0.002, 0.060]"
    assert str(stats.Interval(-0.03, -0.06, -0.002, "t", 5, 0)) == "-0.030 [-0.060, -0.002]"
