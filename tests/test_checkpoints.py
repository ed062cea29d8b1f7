"""What the chapter on checkpoints computes, on values whose spread is known."""

import numpy as np
import pytest

from llmft.report import stats
from llmft.report.chapters import checkpoints
from llmft.report.stats import Floats, Sample


PAIRS = tuple(map(str, range(200)))


def sample(values: Floats) -> Sample:
    """The first checkpoint's values, (draws, pairs), of pairs of one label."""
    draws = tuple(map(str, range(values.shape[1])))
    return Sample(values[0], draws, PAIRS, ("a",) * len(PAIRS), PAIRS)


def test_each_spread_is_that_of_what_changes() -> None:
    """Checkpoints at .6 and .8, draws .1 apart on each, pairs all alike."""
    means = np.array([[0.6, 0.7], [0.8, 0.9]])
    values = np.repeat(means[..., None], len(PAIRS), axis=2)
    found = checkpoints.spread(values, sample(values))
    assert found["checkpoint"] == pytest.approx(0.2 / np.sqrt(2))
    assert found["draw"] == pytest.approx(0.1 / np.sqrt(2))
    assert found["pairs"] == pytest.approx(0, abs=1e-12)


def test_pairs_alone_give_the_standard_error_of_a_share() -> None:
    values = np.tile(np.arange(len(PAIRS)) % 2.0, (3, 4, 1))
    found = checkpoints.spread(values, sample(values))
    assert found["pairs"] == pytest.approx(0.5 / np.sqrt(len(PAIRS) - 1))
    assert (found["checkpoint"], found["draw"]) == (0, 0)


@pytest.mark.parametrize("spreads", [(0.0, 0.05, 0.05), (0.05, 0.0, 0.0), (0.1, 0.02, 0.05)])
def test_the_interval_holds_the_truth_where_checkpoints_vary(
    spreads: tuple[float, float, float],
) -> None:
    """Of the mean of five checkpoints and ten draws: it errs on the wide side."""
    rng, inside, number = np.random.default_rng(0), 0, 200
    of_checkpoint, of_draw, of_both = spreads
    for _ in range(number):
        shares = (
            0.6
            + of_checkpoint * rng.standard_normal((5, 1, 1))
            + of_draw * rng.standard_normal((1, 10, 1))
            + of_both * rng.standard_normal((5, 10, 1))
        )
        values = (rng.random((5, 10, len(PAIRS))) < shares).astype(float)
        found = checkpoints.over_checkpoints(values, sample(values))
        inside += found.lo <= 0.6 <= found.hi
    assert inside / number > 0.91


def test_the_interval_of_a_spread_is_wide_with_five() -> None:
    """Chi-squared with four degrees of freedom: .60 to 2.87 times the estimate."""
    low, high = checkpoints.of_spread(1.0, 4)
    assert (round(low, 2), round(high, 2)) == (0.6, 2.87)


def test_one_checkpoint_alone_has_the_two_way_interval_inside() -> None:
    """With checkpoints that do not differ, only the degrees of freedom make it wider."""
    rng = np.random.default_rng(1)
    one = (rng.random((1, 10, len(PAIRS))) < 0.6).astype(float)
    values = np.repeat(one, 5, axis=0)
    found, usual = checkpoints.over_checkpoints(values, sample(values)), stats.interval(sample(one))
    assert found.mean == pytest.approx(usual.mean)
    assert found.se == pytest.approx(usual.se)
    assert found.hi - found.lo > usual.hi - usual.lo
