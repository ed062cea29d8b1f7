"""What a number is worth: intervals over draws and examples, paired comparisons, tests.

A few-shot result varies for two reasons: other demonstrations could have been drawn, and other
examples could have been asked. So a point measured with several draws on the same examples is a
matrix, draws x examples, and its interval resamples both sides at once: the crossed (pigeonhole)
bootstrap of Owen (2007), with the percentiles widened for few draws as in Hesterberg (2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats as scipy_stats

from llmft import UserError


Floats = npt.NDArray[np.float64]

RESAMPLES = 4000
"""B, the number of bootstrap resamples: the ends of an interval then move by less than 0.002
when another seed is taken, at the sizes used here."""


def number(value: float | np.integer[Any] | None, digits: int = 2) -> str:
    """A number as the book prints it: `0.81`, `1,200`, and `–` where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    return f"{round(float(value), digits) + 0.0:,.{digits}f}"  # + 0.0: no sign before a zero


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, and everything a caption must say about it."""

    mean: float
    lo: float
    hi: float
    method: str  # "crossed bootstrap", "t over draws" or "Wilson"
    draws: int  # draws of demonstrations (or seeds); 0 where examples alone were counted
    examples: int  # examples per draw; 0 where only draws were
    resamples: int = 0  # B; 0 for a closed form
    level: float = 0.95

    def __str__(self) -> str:
        return f"{number(self.mean)} [{number(self.lo)}, {number(self.hi)}]"

    @property
    def n(self) -> str:
        """The sample as text: `10 × 1,200` (draws × examples), or the one side that counts."""
        return " × ".join(f"{size:,}" for size in (self.draws, self.examples) if size) or "0"

    @property
    def text(self) -> str:
        """For prose: `0.81 [0.78, 0.84], n = 10 × 1,200`."""
        return f"{self}, n = {self.n}"


def how(intervals: pd.DataFrame | Interval) -> str:
    """One sentence for a caption: which interval, over what, how many resamples.

    Takes an `Interval` or a frame made by `summary` / `over_draws` (columns method, draws,
    examples, resamples, level); where rows differ, the range is given.
    """
    frame = pd.DataFrame([vars(intervals)]) if isinstance(intervals, Interval) else intervals
    if frame.empty:
        return "no intervals"

    def span(column: str) -> str:
        low, high = int(frame[column].min()), int(frame[column].max())
        return f"{low:,}" if low == high else f"{low:,}–{high:,}"

    parts = []
    if frame["draws"].max() > 0:
        parts.append(f"{span('draws')} draw{'s' if frame['draws'].max() != 1 else ''}")
    if frame["examples"].max() > 0:
        parts.append(f"{span('examples')} examples")
    level = f"{100 * float(frame['level'].iloc[0]):.0f} %"
    methods = " and ".join(dict.fromkeys(frame["method"].astype(str)))
    resamples = int(frame["resamples"].max())
    tail = f", B = {resamples:,}" if resamples else ""
    return f"{level} intervals, {methods}: {' × '.join(parts)}{tail}"


# --- intervals ---------------------------------------------------------------------------------


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for a share of n independent examples (Wilson 1927).

    Both are counts; an effective number of examples need not be whole.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is no share")
    z = scipy_stats.norm.ppf((1 + level) / 2)
    share, shrink = successes / n, 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / shrink
    half = z / shrink * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    lo, hi = max(0.0, float(centre - half)), min(1.0, float(centre + half))  # against rounding
    return Interval(share, lo, hi, "Wilson", 0, int(n), 0, level)


def t_interval(values: Any, level: float = 0.95) -> Interval:
    """Student's interval for the mean over draws, one value a draw; NaN ends for a single draw.

    It says how much the choice of demonstrations matters, with the examples held as they are.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    mean, n = float(x.mean()), len(x)
    half = np.nan
    if n > 1:
        half = float(scipy_stats.t.ppf((1 + level) / 2, n - 1) * x.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, "t over draws", n, 0, 0, level)


def _tail(draws: int, examples: int, level: float) -> float:
    """The percentile to cut at each end, widened for small samples (Hesterberg 2015, section 4.4).

    A percentile bootstrap is too narrow by sqrt((n-1)/n) and by t/z; n is the number of draws
    where there are several, because that is the smaller side.
    """
    n = draws if draws > 1 else examples
    if n < 2:
        return (1 - level) / 2
    t = scipy_stats.t.ppf((1 + level) / 2, n - 1)
    return float(scipy_stats.norm.cdf(-np.sqrt(n / (n - 1)) * t))


def _counts(rng: np.random.Generator, n: int, resamples: int) -> Floats:
    """How often each of n items is drawn in a resample of n with replacement; (resamples, n)."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counted = np.bincount(drawn.ravel(), minlength=n * resamples)
    return counted.reshape(resamples, n).astype(np.float64)


def _bootstrap(
    pairs: Sequence[tuple[Floats, float]], same_examples: bool, resamples: int, seed: int
) -> Floats:
    """Signed sum of the resampled means of matrices that share their draws; (resamples,)."""
    rng = np.random.default_rng(seed)
    draws = max(len(matrix) for matrix, _ in pairs)
    widest = max(matrix.shape[1] for matrix, _ in pairs)
    step = max(1, int(4e6) // widest)  # resamples at a time: bounds the memory to about 100 MB
    means = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = _counts(rng, draws, size)
        columns, total = None, np.zeros(size)
        for matrix, sign in pairs:
            if columns is None or not same_examples:
                columns = _counts(rng, matrix.shape[1], size)
            weights = rows if len(matrix) == draws else np.ones((size, 1))
            by_draw = columns @ matrix.T  # (size, draws)
            total += sign * (weights * by_draw).sum(1) / weights.sum(1) / matrix.shape[1]
        means.append(total)
    return np.concatenate(means)


def _matrix(values: Any) -> Floats:
    matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"no complete matrix of draws x examples: shape {matrix.shape}")
    return matrix


def crossed_interval(
    values: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of the mean over draws and examples, both resampled (Owen 2007).

    `values`: (draws, examples), such as `correct` or `losses` of every run on the same examples;
    a vector is one draw. With one draw only the examples vary. Needs about five draws to hold its
    level; fewer give the range of what was seen.
    """
    matrix = _matrix(values)
    means = _bootstrap([(matrix, 1.0)], True, resamples, seed)
    draws, examples = matrix.shape
    tail = _tail(draws, examples, level)
    lo, hi = np.quantile(means, [tail, 1 - tail])
    method = "crossed bootstrap"
    mean = float(matrix.mean())
    return Interval(mean, float(lo), float(hi), method, draws, examples, resamples, level)


def crossed_difference(
    a: Any,
    b: Any,
    *,
    same_examples: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of mean(a) - mean(b), paired by draw and (unless told otherwise) by example.

    `a`, `b`: (draws, examples), rows in the order of the same draws; a matrix of one row (such as
    zero-shot) is compared with every draw of the other. `same_examples=False` is for two domains:
    the draws are paired, the examples are not.
    """
    first, second = _matrix(a), _matrix(b)
    if same_examples and first.shape[1] != second.shape[1]:
        raise ValueError(f"not the same examples: {first.shape[1]} and {second.shape[1]}")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(f"not the same draws: {len(first)} and {len(second)}")
    means = _bootstrap([(first, 1.0), (second, -1.0)], same_examples, resamples, seed)
    draws, examples = max(len(first), len(second)), min(first.shape[1], second.shape[1])
    tail = _tail(draws, examples, level)
    lo, hi = np.quantile(means, [tail, 1 - tail])
    mean = float(first.mean() - second.mean())
    method = "paired crossed bootstrap"
    return Interval(mean, float(lo), float(hi), method, draws, examples, resamples, level)


def crossed_share(
    a: Any, b: Any, base: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of (mean(a) - mean(base)) / (mean(b) - mean(base)): the share of b's gain a has.

    Draws and examples are resampled together for all three (as in `crossed_difference`), then the
    ratio is taken. Where b's own gain is not clearly above zero (its interval, at `level`, holds
    it) there is nothing to have a share of: mean and ends are not numbers.
    """
    matrices = [_matrix(values) for values in (a, b, base)]
    if len({matrix.shape[1] for matrix in matrices}) > 1:
        raise ValueError(f"not the same examples: {[matrix.shape[1] for matrix in matrices]}")
    first, second, third = matrices
    draws, examples = max(map(len, matrices)), first.shape[1]
    if len(first) != len(second) or len(third) not in (1, draws):
        raise ValueError(f"not the same draws: {[len(matrix) for matrix in matrices]}")
    tail, method = _tail(draws, examples, level), "ratio, paired crossed bootstrap"
    gained = crossed_difference(second, third, level=level, resamples=resamples, seed=seed)
    mean = lo = hi = float("nan")
    if gained.lo > 0:
        of_a, of_b = (
            _bootstrap([(matrix, 1.0), (third, -1.0)], True, resamples, seed)
            for matrix in (first, second)
        )
        mean = float((first.mean() - third.mean()) / (second.mean() - third.mean()))
        # In a few resamples, fewer than a tail, b has no gain: these lie beyond the ends.
        shares = np.divide(of_a, of_b, out=np.copysign(np.inf, of_a), where=of_b > 0)
        lo = float(np.quantile(shares, tail, method="higher"))
        hi = float(np.quantile(shares, 1 - tail, method="lower"))
    return Interval(mean, lo, hi, method, draws, examples, resamples, level)


# --- tests -------------------------------------------------------------------------------------


def mcnemar(a: Any, b: Any) -> float:
    """Exact two-sided p that two classifiers are right equally often (McNemar 1947).

    `a`, `b`: (n,) right or wrong by example, the same examples, one run each (draws must not be
    pooled: they are not independent). Conditions on the examples on which the two differ.
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"McNemar's test wants two vectors of one length: {x.shape}, {y.shape}")
    only_a, only_b = int((x & ~y).sum()), int((~x & y).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(scipy_stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having made them all, in the order given (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]


# --- frames ------------------------------------------------------------------------------------


def matrix(
    frame: pd.DataFrame, value: str = "correct", draw: str = "key", example: str = "id"
) -> Floats:
    """One value by draw and example as (draws, examples), rows in the order of first appearance.

    Raises `UserError` where a draw lacks an example: an interval over holes would be no interval.
    """
    # pivot, not pivot_table: an example asked twice must fail, not be averaged.
    wide = frame.pivot(index=draw, columns=example, values=value)  # noqa: PD010
    if wide.isna().to_numpy().any():
        raise UserError(f"runs differ in their examples, so {value!r} has no crossed interval")
    return np.asarray(wide.reindex(frame[draw].drop_duplicates()), dtype=np.float64)


def summary(
    frame: pd.DataFrame,
    by: Sequence[str],
    value: str = "correct",
    draw: str = "key",
    example: str = "id",
) -> pd.DataFrame:
    """Crossed interval of `value` in each group: columns of `by`, then an Interval's fields."""
    rows = []
    for group, part in frame.groupby(list(by), sort=False):
        interval = crossed_interval(matrix(part, value, draw, example))
        rows.append(dict(zip(by, group, strict=True)) | vars(interval))
    return pd.DataFrame(rows)


def over_draws(rows: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Student's interval over draws of one value a run, in each group; columns as in `summary`."""
    done = []
    for group, part in rows.groupby(list(by), sort=False):
        interval = t_interval(part[value].to_numpy())
        done.append(dict(zip(by, group, strict=True)) | vars(interval))
    return pd.DataFrame(done)
