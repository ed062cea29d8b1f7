"""Metrics and intervals against closed forms, other implementations, and simulated coverage."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from llmft import UserError, metrics, stats


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


def test_t_interval_is_scipys_and_one_draw_has_none():
    x = [0.61, 0.72, 0.70, 0.55, 0.81]
    low, high = scipy_stats.t.interval(0.95, 4, np.mean(x), scipy_stats.sem(x))
    assert (stats.t_interval(x).lo, stats.t_interval(x).hi) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    assert math.isnan(stats.t_interval([0.7]).lo)


def test_crossed_interval_of_one_draw_is_the_binomial_one():
    right = np.r_[np.ones(700), np.zeros(300)]
    crossed, closed = stats.crossed_interval(right), stats.wilson(700, 1000)
    assert crossed.lo == pytest.approx(closed.lo, abs=0.004)
    assert crossed.hi == pytest.approx(closed.hi, abs=0.004)
    assert (crossed.draws, crossed.examples) == (1, 1000)


def test_crossed_interval_is_seeded_and_degenerate_where_nothing_varies():
    values = np.random.default_rng(1).random((4, 50))
    assert stats.crossed_interval(values) == stats.crossed_interval(values)
    assert stats.crossed_interval(values, seed=1) != stats.crossed_interval(values)
    same = stats.crossed_interval(np.ones((3, 7)))
    assert (same.lo, same.mean, same.hi) == (1, 1, 1)


def test_chunks_do_not_change_what_is_estimated():
    # 30,000 examples are resampled a few at a time: the interval must still be the closed form's.
    right = (np.arange(30_000) % 4 < 3).astype(float)
    crossed = stats.crossed_interval(right, resamples=1000)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 30_000)
    assert crossed.hi - crossed.lo == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(("draws", "draw_sd"), [(10, 1.0), (10, 0.1), (5, 1.0)])
def test_crossed_interval_covers_in_simulation(draws: int, draw_sd: float):
    """Accuracy with random draws and random examples: the truth lies inside about 95 times in 100.

    Resampling examples alone, as is often done, covers about half of the time here.
    """
    rng, worlds = np.random.default_rng(0), 300
    # P(right) = sigmoid(draw effect + example effect): the truth by plain simulation.
    truth_rng = np.random.default_rng(1)
    effect = truth_rng.normal(0, draw_sd, 400_000) + truth_rng.normal(1, 1, 400_000)
    truth = (1 / (1 + np.exp(-effect))).mean()
    inside = examples_only = 0
    for _ in range(worlds):
        effect = rng.normal(0, draw_sd, (draws, 1)) + rng.normal(1, 1, (1, 200))
        right = (rng.random((draws, 200)) < 1 / (1 + np.exp(-effect))).astype(float)
        interval = stats.crossed_interval(right, resamples=500)
        inside += interval.lo <= truth <= interval.hi
        narrow = stats.crossed_interval(right.mean(0), resamples=500)
        examples_only += narrow.lo <= truth <= narrow.hi
    assert 0.91 <= inside / worlds <= 1.0
    if draw_sd == 1.0:
        assert examples_only / worlds < 0.75


def test_difference_pairs_by_draw_and_example():
    rng = np.random.default_rng(0)
    b = (rng.random((6, 300)) < 0.6).astype(float)
    a = b.copy()
    a[:, :15] = 1.0
    paired = stats.crossed_difference(a, b)
    assert paired.mean == pytest.approx(a.mean() - b.mean())
    loose = stats.crossed_difference(a, b, same_examples=False)
    assert 0 < paired.hi - paired.lo < 0.5 * (loose.hi - loose.lo)
    zero = stats.crossed_difference(b, b)
    assert (zero.lo, zero.hi) == (0, 0)


def test_difference_from_one_row_is_the_difference_from_that_row_repeated():
    rng = np.random.default_rng(0)
    many, one = rng.random((5, 40)), rng.random((1, 40))
    short = stats.crossed_difference(many, one)
    long = stats.crossed_difference(many, np.repeat(one, 5, axis=0))
    assert (short.lo, short.hi) == (pytest.approx(long.lo), pytest.approx(long.hi))


def test_difference_refuses_other_examples_or_draws():
    with pytest.raises(ValueError, match="examples"):
        stats.crossed_difference(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="draws"):
        stats.crossed_difference(np.ones((2, 3)), np.ones((3, 3)))


def three_of(
    rng: np.random.Generator, draws: int = 6, examples: int = 200, own: float = 0.0
) -> list[np.ndarray]:
    """Right or wrong: a, b and their start, with P(right) about .62, .66 and .5.

    What a draw and an example are like is much the same for the three; `own` is the spread of what
    a draw does to one of them alone.
    """
    draw, example = rng.normal(0, 0.3, (draws, 1)), rng.normal(0, 1, (1, examples))
    right = []
    for p in (0.65, 0.7, 0.5):
        x = np.log(p / (1 - p)) + draw + example + rng.normal(0, own, (draws, 1))
        right.append((rng.random(x.shape) < 1 / (1 + np.exp(-x))).astype(float))
    return right


def test_a_share_is_the_part_of_a_gain() -> None:
    a, b, base = three_of(np.random.default_rng(0))
    found = stats.crossed_share(a, b, base)
    assert found.mean == pytest.approx((a.mean() - base.mean()) / (b.mean() - base.mean()))
    assert found.lo < found.mean < found.hi
    assert (found.draws, found.examples) == (6, 200)
    # A start that is one run, as zero-shot's, is every draw's.
    one, repeated = (stats.crossed_share(a, b, x) for x in (base[:1], base[:1].repeat(6, 0)))
    assert (one.lo, one.mean, one.hi) == pytest.approx((repeated.lo, repeated.mean, repeated.hi))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0, 1.5])
def test_a_share_that_is_the_same_everywhere_has_no_width(share: float) -> None:
    """Draws and examples are resampled together: what they have in common cancels."""
    _, b, base = three_of(np.random.default_rng(1))
    found = stats.crossed_share(base + share * (b - base), b, base)
    assert (found.lo, found.mean, found.hi) == pytest.approx((share, share, share))


def test_there_is_no_share_of_a_gain_that_is_not_clear() -> None:
    a, b, base = three_of(np.random.default_rng(2))
    little = np.roll(base, 1, axis=1)
    little[0, little[0].argmin()] = 1
    for unclear, sign in ((base, 0), (little, 1), (1 - b, -1)):
        gain = stats.crossed_difference(unclear, base)
        assert gain.lo <= 0
        assert np.sign(gain.mean) == sign
        found = stats.crossed_share(a, unclear, base)
        assert np.isnan([found.lo, found.mean, found.hi]).all()
        assert found.n == "6 × 200"
    assert np.isfinite(stats.crossed_share(a, b, base).mean)


def test_a_share_of_a_gain_that_is_barely_clear_has_ends_of_its_own() -> None:
    """Some resamples have no gain or a loss: no division by zero, and no end that is no number."""
    a, b, base = np.zeros((3, 1, 40))
    a[0, :4], b[0, :9], b[0, 9:11] = 1, 1, -1
    assert 0 < stats.crossed_difference(b, base).lo <= 1 / 40, "the gain is not barely clear"
    found = stats.crossed_share(a, b, base)
    assert found.mean == pytest.approx(4 / 7)
    assert 0 < found.lo < 0.3
    assert 2 < found.hi < np.inf


def test_a_share_refuses_other_examples_or_draws() -> None:
    one = np.ones((2, 3))
    for a, b, base, word in (
        (np.ones((2, 4)), one, one, "examples"),
        (one, one, np.ones((2, 4)), "examples"),
        (np.ones((3, 3)), one, one, "draws"),
        (one, one, np.ones((3, 3)), "draws"),
    ):
        with pytest.raises(ValueError, match=word):
            stats.crossed_share(a, b, base)


@pytest.mark.parametrize("own", [0.0, 0.2])
def test_a_share_covers_in_simulation(own: float) -> None:
    """The truth, by a world so large that it hardly varies, is inside 95 times in 100 or more.

    More where draws do the same to all three: noise that is neither a draw's nor an example's is
    resampled twice (Owen 2007).
    """
    a, b, base = (m.mean() for m in three_of(np.random.default_rng(1), 20_000, 200, own))
    truth, rng, worlds, inside = (a - base) / (b - base), np.random.default_rng(0), 150, 0
    for _ in range(worlds):
        found = stats.crossed_share(*three_of(rng, 8, 400, own), resamples=300)
        inside += found.lo <= truth <= found.hi
    assert 0.91 <= inside / worlds <= 1.0


def test_mcnemar_counts_only_disagreements():
    a = np.array([1] * 9 + [0] * 1 + [1] * 50, bool)
    b = np.array([0] * 9 + [1] * 1 + [1] * 50, bool)
    assert stats.mcnemar(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert stats.mcnemar(a, a) == 1.0


def test_holm_against_its_definition():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


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


def test_summary_reports_what_it_counted():
    frame = metrics.with_scores(frame_of(["k1", "k2", "k3"], 20)).assign(shots=8)
    row = stats.summary(frame, ["shots", "domain"]).iloc[0]
    assert (row["shots"], row["draws"], row["examples"]) == (8, 3, 20)
    assert row["mean"] == pytest.approx(frame["correct"].mean())
    assert stats.how(stats.summary(frame, ["shots"])) == (
        "95 % intervals, crossed bootstrap: 3 draws × 20 examples, B = 4,000"
    )


def test_matrix_keeps_the_order_of_draws_and_refuses_holes():
    frame = metrics.with_scores(frame_of(["z", "a"], 5))
    assert stats.matrix(frame)[0].tolist() == frame.query("key == 'z'")["correct"].tolist()
    with pytest.raises(UserError, match="differ in their examples"):
        stats.matrix(frame.drop(index=0))


def test_calibrated_frame_has_no_content_free_rows_and_new_probabilities():
    frame = frame_of(["k1", "k2"], 6)
    blank = frame.groupby("key").head(2).assign(domain="content-free", label=-1)
    done = metrics.with_calibration(pd.concat([frame, blank], ignore_index=True))
    assert set(done["domain"]) == {"in-domain"}
    assert len(done) == len(frame)
    part = frame[frame["key"] == "k2"][metrics.LOGP].to_numpy()
    expected = metrics.calibrate(part, part[:2])
    assert np.allclose(done[done["key"] == "k2"][metrics.LOGP], expected, atol=1e-6)


def test_texts():
    interval = stats.Interval(0.8123, 0.78, 0.84, "crossed bootstrap", 10, 1200, 4000)
    assert interval.text == "0.81 [0.78, 0.84], n = 10 × 1,200"
    assert stats.number(float("nan")) == "–"
    assert stats.how(stats.wilson(5, 10)) == "95 % intervals, Wilson: 10 examples"
    assert stats.how(stats.t_interval([1, 2])) == "95 % intervals, t over draws: 2 draws"


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert stats.number(-0.004) == "0.00"
    assert stats.number(-0.006) == "-0.01"
    assert str(stats.Interval(-0.001, -0.01, 0.001, "t over draws", 3, 0)) == "0.00 [-0.01, 0.00]"
