"""What a number is worth: intervals over draws and examples, paired comparisons, power.

A few-shot result varies twice: with the demonstrations that are drawn, and with the examples that
are scored. So every mean here has a standard error with both parts, from the two-way analysis of
variance of draws x examples, times Student's t (Owen 2007, 10.1214/07-AOAS122). Examples that
belong together are clusters, and methods are compared example by example (Miller 2024,
arXiv:2411.00640). Where few vary, such an interval cannot be trusted (Bowyer et al. 2025,
arXiv:2503.01747). `tests/benchmarks/intervals.py` simulates how often the truth is inside at .95:
.93 to .99 where draws spread smoothly, from 5 draws on; .86 to .95 where a third of them fail, and
.71 to .93 where an eighth does. So where draws fail, tables have the median draw and the failures.

Values are carried with the ids of their draws and examples (`Sample`): nothing is paired by its
position.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special
from scipy import stats as scipy_stats

from llmft import UserError


Floats = npt.NDArray[np.float64]
Bounds = tuple[float, float]

FEWEST = 5
"""Draws that an interval needs. With fewer, t is so large or the spread so badly known that an
interval says less than the draws themselves: their range is given in its place."""

UNBOUNDED: Bounds = (-np.inf, np.inf)

_SHARES = (
    "correct accuracy follows follows_one auc auc_silent ece brier share_entailment share "
    "agreement confidence recall f1"
)
_LOSSES = "nll loss losses kl divergence perplexity train_loss val_loss"
BOUNDS: dict[str, Bounds] = dict.fromkeys(_SHARES.split(), (0.0, 1.0)) | dict.fromkeys(
    _LOSSES.split(), (0.0, np.inf)
)
"""What values of these names cannot leave."""

THESE_CONSTRUCTIONS: dict[str, Any] = {"within": ("subcase", "label")}
NEW_CONSTRUCTIONS: dict[str, Any] = {"within": ("label",), "clusters": "subcase"}
"""The two populations that a test of constructions (HANS) may stand for, for `sample` and
`summary`: other pairs of the same subcases, or other subcases. A subcase fixes the label."""


def bounds_of(value: str) -> Bounds:
    """The bounds of a column by its name, with or without `validation_`; else `UNBOUNDED`."""
    return BOUNDS.get(value.removeprefix("validation_"), UNBOUNDED)


def number(value: float | np.integer[Any] | None, digits: int = 2) -> str:
    """A number as the book prints it: `0.81`, `1,200`, and `–` where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    return f"{round(float(value), digits) + 0.0:,.{digits}f}"  # + 0.0: no sign before a zero


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, and everything a caption must say about it.

    `lo` and `hi` are not numbers where there is no interval: below `FEWEST` draws.
    """

    mean: float
    lo: float
    hi: float
    recipe: str  # such as "two-way t", "t over draws" or "Wilson"
    draws: int  # draws of demonstrations (or seeds); 0 where examples alone were counted
    examples: int  # examples per draw; 0 where only draws were
    level: float = 0.95
    se: float = np.nan  # standard error of the mean
    df: float = np.nan  # degrees of freedom of its t
    lowest: float = np.nan  # the lowest draw, and
    highest: float = np.nan  # the highest; no numbers where nothing was drawn

    def __str__(self) -> str:
        return as_text(vars(self))

    @property
    def n(self) -> str:
        """The sample as text: `10 × 1,200` (draws × examples), or the one side that counts."""
        return " × ".join(f"{size:,}" for size in (self.draws, self.examples) if size) or "0"

    @property
    def text(self) -> str:
        """For prose: `0.81 [0.78, 0.84], n = 10 × 1,200`."""
        return f"{self}, n = {self.n}"

    @property
    def detectable(self) -> float:
        """The smallest true difference from zero that would be shown with 80 % power, at `level`.

        (t(1 - alpha / 2) + t(.8)) se; no number where there is no interval.
        """
        if not np.isfinite(self.lo):
            return np.nan
        return (quantile(self.level, self.df) + quantile(0.6, self.df)) * self.se


FIELDS = tuple(f.name for f in fields(Interval))
"""The columns that `summary` and `over_draws` add to those they group by."""


def as_text(row: Mapping[str, Any] | pd.Series, digits: int = 2) -> str:
    """The text of an Interval's fields, such as a row of `summary`.

    `0.81 [0.78, 0.84]`; `0.81 (3 draws: 0.74 to 0.86)` where there are too few draws for an
    interval; the mean alone where there is neither.
    """
    mean, lo, hi, lowest, highest = (
        number(row[name], digits) for name in ("mean", "lo", "hi", "lowest", "highest")
    )
    if lo != "–":
        return f"{mean} [{lo}, {hi}]"
    if lowest == "–":
        return mean
    return (
        f"{mean} (1 draw)"
        if row["draws"] == 1
        else (f"{mean} ({row['draws']} draws: {lowest} to {highest})")
    )


def caption(intervals: pd.DataFrame | Interval) -> str:
    """What a caption says of intervals: of which kind, over how many draws and examples.

    `intervals`: one, or a frame of `summary` or `over_draws`; where rows differ, the range is
    given.
    """
    frame = pd.DataFrame([vars(intervals)]) if isinstance(intervals, Interval) else intervals
    if frame.empty:
        return "no intervals"

    def span(counts: pd.Series) -> str:
        low, high = int(counts.min()), int(counts.max())
        return f"{low:,}" if low == high else f"{low:,}–{high:,}"

    def size(rows: pd.DataFrame) -> str:
        draws, examples = rows["draws"], rows["examples"]
        parts = []
        if draws.max() > 0:
            parts.append(f"{span(draws[draws > 0])} draw{'s' if draws.max() != 1 else ''}")
        if examples.max() > 0:
            parts.append(f"{span(examples)} examples")
        return " × ".join(parts)

    few = frame[(frame["draws"] > 0) & frame["lo"].isna()]
    others = frame.drop(index=few.index)
    parts = []
    if len(others):
        level = f"{100 * float(others['level'].iloc[0]):.3g} %"
        # How examples vary (within label, within subcase) differs by domain: the text says it.
        kinds = others["recipe"].astype(str).str.replace(r" \([^)]*\)$", "", regex=True)
        recipes = " and ".join(dict.fromkeys(kinds))
        parts.append(f"{level} intervals, {recipes}: {size(others)}")
    if len(few):
        parts.append(f"no interval below {FEWEST} draws, but their range: {size(few)}")
    return "; ".join(parts)


# --- values with their ids ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """One value by draw and example, with the ids of both.

    `draws` is empty where nothing was drawn, as zero-shot: `values` then has one row, and only
    examples vary. Examples vary within `strata`, which the design holds fixed (as many of each
    label), and as whole `clusters`, if there are any (what was written together).

    Raises:
        UserError: shapes and ids that do not go together, an id twice, a value that is no number.
    """

    values: Floats  # (draws, examples)
    draws: tuple[str, ...]  # (draws,), or none
    examples: tuple[str, ...]  # (examples,)
    strata: tuple[str, ...] = ()  # (examples,), or none: all examples are one stratum
    clusters: tuple[str, ...] = ()  # (examples,), or none: every example is one of its own
    bounds: Bounds = UNBOUNDED
    design: str = field(default="")  # of strata and clusters, for a caption: "within label"

    def __post_init__(self) -> None:
        rows, columns = max(1, len(self.draws)), len(self.examples)
        if self.values.shape != (rows, columns) or not columns:
            raise UserError(
                f"values of shape {self.values.shape} are not {rows} draws x {columns} examples"
            )
        for what, ids in (("strata", self.strata), ("clusters", self.clusters)):
            if ids and len(ids) != columns:
                raise UserError(f"{len(ids)} {what} do not go with {columns} examples")
        for what, ids in (("draw", self.draws), ("example", self.examples)):
            if len(set(ids)) < len(ids):
                raise UserError(f"{what} {_twice(ids)!r} is there twice")
        if not np.isfinite(self.values).all():
            row, column = np.argwhere(~np.isfinite(self.values))[0]
            where = f" in draw {self.draws[row]!r}" if self.draws else ""
            raise UserError(f"example {self.examples[column]!r}{where} has no number")


def sample(
    frame: pd.DataFrame,
    value: str = "correct",
    *,
    draw: str = "draw",
    example: str = "id",
    within: Sequence[str] = ("label",),
    clusters: str = "",
    bounds: Bounds | None = None,
) -> Sample:
    """The values of a long frame, a row a run and query, as a `Sample`.

    Args:
        frame: with the columns `value`, `draw` (the id of what was drawn, "" where nothing was),
            `example`.
        value: the column of which the mean is wanted.
        draw: the column with the draws' ids.
        example: the column with the examples' ids.
        within: columns whose values the design fixes; those that the frame lacks, or that are
            missing throughout, are ignored.
        clusters: the column of which whole values vary, or "".
        bounds: of the values; None for what is known by the name `value`.

    Raises:
        UserError: no rows or columns; a draw without an example that another has, or with one
            twice; a value that is no number; an example of two strata or clusters.
    """
    columns = [value, draw, example, *([clusters] if clusters else [])]
    _check_columns(frame, columns)
    keys = pd.DataFrame({"draw": frame[draw].astype(str), "example": frame[example].astype(str)})
    keys = keys.reset_index(drop=True)
    draws, examples = (tuple(keys[name].drop_duplicates()) for name in ("draw", "example"))
    _check_complete(keys, draws, examples, value)
    row, column = keys["draw"].map(_positions(draws)), keys["example"].map(_positions(examples))
    values = np.empty((len(draws), len(examples)))
    values[row, column] = frame[value].to_numpy(dtype=np.float64)
    strata = [name for name in within if name in frame and not frame[name].isna().all()]
    design = [f"whole {clusters}s"] * bool(clusters)
    design += [f"within {' and '.join(strata)}"] * bool(strata)
    return Sample(
        values,
        () if draws == ("",) else draws,
        examples,
        _tags(frame, strata, keys["example"], examples),
        _tags(frame, [clusters] if clusters else [], keys["example"], examples),
        bounds_of(value) if bounds is None else bounds,
        ", ".join(design),
    )


def _check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a frame without rows, without one of the columns, or with a gap in it."""
    if frame.empty:
        raise UserError(f"no rows to take {names[0]!r} from")
    for name in names:
        if name not in frame:
            raise UserError(f"there is no column {name!r}; there are {', '.join(map(str, frame))}")
        if frame[name].isna().any():
            raise UserError(f"{int(frame[name].isna().sum())} of {len(frame)} rows lack {name!r}")


def _check_complete(
    keys: pd.DataFrame, draws: Sequence[str], examples: Sequence[str], value: str
) -> None:
    """Refuse keys that are not every draw with every example, once each."""
    if (repeats := keys.duplicated()).any():
        first = keys[repeats].iloc[0]
        where = f"draw {first['draw']!r}" if first["draw"] else "what was not drawn"
        raise UserError(f"example {first['example']!r} is there twice in {where}")
    if "" in draws and len(draws) > 1:
        raise UserError(f"some rows have no draw and others have {len(draws) - 1}: choose one kind")
    if len(keys) < len(draws) * len(examples):
        counts = keys.groupby("draw", sort=False).size()
        least = str(counts.idxmin())
        present = set(keys.loc[keys["draw"] == least, "example"])
        missing = next(example for example in examples if example not in present)
        raise UserError(
            f"runs differ in their examples, so {value!r} has no interval: draw {least!r} lacks "
            f"{len(examples) - counts.min()}, such as {missing!r}"
        )


def _tags(
    frame: pd.DataFrame, names: Sequence[str], ids: pd.Series, examples: Sequence[str]
) -> tuple[str, ...]:
    """The values of the columns `names` by example; nothing where there are no names."""
    if not names:
        return ()
    rows = frame[list(names)].astype(str).set_axis(ids.array).reset_index().drop_duplicates()
    if len(rows) > len(examples):
        raise UserError(f"example {_twice(rows.iloc[:, 0])!r} has two values of {', '.join(names)}")
    tags = {example: " / ".join(values) for example, *values in rows.itertuples(index=False)}
    return tuple(tags[name] for name in examples)


def _positions(ids: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(ids)}


def _twice(ids: Any) -> str:
    """The first id that occurs again."""
    series = pd.Series(list(ids))
    return str(series[series.duplicated()].iloc[0])


# --- the two-way standard error ----------------------------------------------------------------


@dataclass(frozen=True)
class Units:
    """What varies on the examples' side: examples or clusters, within strata."""

    of_example: npt.NDArray[np.intp]  # (examples,): the unit
    stratum: npt.NDArray[np.intp]  # (examples,)
    scale: Floats  # (units,): sqrt(K / (K - 1)), for K units in the stratum
    df: int  # units less strata


def units(strata: Sequence[str], clusters: Sequence[str], examples: int) -> Units:
    """The units of `examples` examples.

    Clusters that lie in one stratum each vary within the strata; where a cluster crosses strata
    (a premise with two hypotheses), all vary together, and each stratum keeps its weight as by
    post-stratification. A stratum of one unit shows no variance: such strata are put together (the
    survey's collapsed strata, on the safe side).
    """
    stratum = np.unique(list(strata) or [""] * examples, return_inverse=True)[1]
    unit = np.unique(list(clusters), return_inverse=True)[1] if clusters else np.arange(examples)
    count = int(unit.max()) + 1
    owner = np.zeros(count, dtype=np.intp)
    owner[unit] = stratum
    if (owner[unit] != stratum).any():
        scale = np.full(count, np.sqrt(count / (count - 1)) if count > 1 else np.nan)
        return Units(unit, stratum, scale, count - 1)
    alone = np.bincount(owner)[owner] == 1
    if alone.any():
        owner[alone] = owner[~alone][0] if alone.sum() == 1 and count > 1 else owner.max() + 1
        owner = np.unique(owner, return_inverse=True)[1]
    size = np.bincount(owner).astype(np.float64)
    with np.errstate(divide="ignore"):
        scale = np.sqrt(size / (size - 1))[owner] if count > 1 else np.full(1, np.nan)
    return Units(unit, owner[unit], scale, count - len(size))


def influence(values: Floats, layout: Units) -> Floats:
    """What each unit adds to each draw's mean, less what its stratum adds on average.

    `values`: (..., draws, examples). Returns (..., draws, units), scaled so that the sum of squares
    over units is the variance of the draw's mean over examples.
    """
    examples, count = values.shape[-1], len(layout.scale)
    member = np.eye(int(layout.stratum.max()) + 1)[layout.stratum]
    residuals = values - (values @ member / member.sum(0))[..., layout.stratum]
    if count < examples:
        order = np.argsort(layout.of_example, kind="stable")
        starts = np.searchsorted(layout.of_example[order], np.arange(count))
        residuals = np.add.reduceat(residuals[..., order], starts, axis=-1)
    return np.asarray(residuals * layout.scale / examples)


def components(means: Floats, influences: Floats) -> Floats:
    """The variances that make the two-way standard error, (..., 3): draws, units, both.

    `means`: (..., draws); `influences`: (..., draws, units) of `influence`. The first is the
    variance of the mean if draws alone varied, the second if units alone did, and the third the
    noise that both of these hold.
    """
    draws = means.shape[-1]
    average = influences.mean(-2)
    of_units = (average**2).sum(-1)
    if draws == 1:
        return np.stack([np.zeros_like(of_units), of_units, np.zeros_like(of_units)], axis=-1)
    of_draws = means.var(-1, ddof=1) / draws
    noise = ((influences - average[..., None, :]) ** 2).sum((-2, -1)) / (draws * (draws - 1))
    return np.stack([of_draws, of_units, noise], axis=-1)


def two_way(parts: Floats) -> Floats:
    """The two-way variance of a mean from its `components` (..., 3); returns (...).

    Draws + units - noise is unbiased. It is raised to the largest of the three, as if a component
    estimated below zero were zero: otherwise it could be zero or less, and the interval a point.
    This widens the intervals of draws that hardly differ by up to a twelfth.
    """
    return np.asarray(np.maximum(parts.sum(-1) - 2 * parts[..., 2], parts.max(-1)))


def quantile(level: float, df: float) -> float:
    """Student's t that a two-sided interval at `level` takes; no number without any freedom."""
    return float(special.stdtrit(df, (1 + level) / 2)) if df > 0 else np.nan


def ends(mean: float, half: float, bounds: Bounds) -> Bounds:
    """The mean -/+ half, taken on a scale without bounds: logit between two, log above one.

    A mean of draws near a bound is skewed, and the scale takes the skewness away: at draws of sd
    .13 around .8 the truth was inside .94-.97 times, with ends clipped to the bounds .93-.95.
    (By the delta method: half is divided by the mean's distances from the bounds.)
    """
    low, high = bounds
    if half > 0 and np.isfinite(low) and low < mean < high:
        if np.isfinite(high):
            share, reach = (mean - low) / (high - low), half / (high - low)
            scale = np.array([-1, 1]) * reach / (share * (1 - share))
            lo, hi = low + (high - low) * special.expit(special.logit(share) + scale)
        else:
            lo, hi = low + (mean - low) * np.exp(np.array([-1, 1]) * half / (mean - low))
        return float(lo), float(hi)
    return clip(mean, half, bounds)


def clip(mean: float, half: float, bounds: Bounds) -> Bounds:
    """The mean -/+ half, clipped to the bounds."""
    low, high = bounds  # the order below keeps an end that is no number
    return max(mean - half, low), min(mean + half, high)


def _estimate(
    data: Sample, recipe: str, level: float, to_ends: Callable[[float, float, Bounds], Bounds]
) -> Interval:
    """The interval of the mean of `data`.

    It has D - 1 degrees of freedom, or those of the units where these are fewer: known before there
    are data, so that a design's power is, too. Satterthwaite's number is an estimate, and would
    save a twentieth of the width.
    """
    draws, layout = len(data.draws), units(data.strata, data.clusters, len(data.examples))
    means = data.values.mean(1)
    parts = components(means, influence(data.values, layout))
    se = float(np.sqrt(two_way(parts))) if layout.df > 0 else np.nan
    df = min(draws - 1, layout.df) if draws else layout.df
    mean = float(means.mean())
    lo = hi = lowest = highest = np.nan
    if not draws or draws >= FEWEST:
        lo, hi = to_ends(mean, se * quantile(level, df), data.bounds)
    if draws:
        lowest, highest = float(means.min()), float(means.max())
    size = len(data.examples)
    return Interval(mean, lo, hi, recipe, draws, size, level, se, df, lowest, highest)


def _recipe(data: Sample, paired: bool = False) -> str:
    kind = "two-way t" if data.draws else "t over examples"
    return ("paired " if paired else "") + kind + (f" ({data.design})" if data.design else "")


# --- intervals ---------------------------------------------------------------------------------


def interval(data: Sample, *, level: float = 0.95) -> Interval:
    """The mean over draws and examples, with its interval (Owen 2007, Miller 2024).

    Between one and `FEWEST` draws there is no interval; without draws, examples alone vary. Where
    nothing varies, as with a constant predictor on as many of each label, its width is zero.
    """
    return _estimate(data, _recipe(data), level, ends)


def difference(
    a: Sample, b: Sample, *, level: float = 0.95, same_examples: bool = True
) -> Interval:
    """mean(a) - mean(b) with its interval, paired by the ids of draws and of examples.

    A sample of which nothing was drawn is compared with every draw of the other. Where one has
    all draws of the other, and more, they are compared at the other's.
    `same_examples=False` is for two domains: the draws are paired, the examples are not. The ends
    are clipped to what a difference can be.

    Raises:
        UserError: other draws, examples, or strata of an example, with the ids that differ.
    """
    a, b = _common(a, b)
    gap = _minus(a, b) if same_examples else _side_by_side(a, b)
    result = _estimate(gap, _recipe(gap, True), level, clip)
    return replace(result, examples=min(len(a.examples), len(b.examples)))


def share(a: Sample, b: Sample, base: Sample, *, level: float = 0.95) -> Interval:
    """(mean(a) - mean(base)) / (mean(b) - mean(base)): the share of b's gain that a has.

    Fieller's interval (1954, 10.1111/j.2517-6161.1954.tb00159.x): the ratios r for which
    gain(a) - r gain(b) is not shown to differ from zero, by the two-way error that all means have.
    Where b's own gain is not clearly above zero (its interval, at `level`, holds it or there is
    none) there is nothing to have a share of: mean and ends are not numbers.

    Raises:
        UserError: as `difference`.
    """
    a, b, base = _common(a, b, base)
    gain_a, gain_b = _minus(a, base), _minus(b, base)
    both = _minus(gain_a, gain_b)
    draws, size = len(both.draws), len(both.examples)
    layout = units(both.strata, both.clusters, size)
    df = min(draws - 1, layout.df) if draws else layout.df
    t = quantile(level, df) if not draws or draws >= FEWEST else np.nan
    values = np.stack([*_broadcast(gain_a.values, _align(gain_a, gain_b)), both.values])
    means = values.mean(-1)
    parts = components(means, influence(values, layout))
    # The variance is the largest of four quadratic forms in r, so each has an interval of its own,
    # in closed form, and the widest ends are those of the largest.
    forms = np.vstack([parts.T, parts.sum(-1) - 2 * parts[:, 2]]) * t**2
    top, bottom = means[0].mean(), means[1].mean()
    of_top, of_bottom, of_both = forms.T
    square = bottom**2 - of_bottom
    mean = lo = hi = np.nan
    if bottom > 0 and (square > 0).all():
        middle = top * bottom - (of_top + of_bottom - of_both) / 2
        root = middle**2 - square * (top**2 - of_top)
        real = root >= -1e-12 * middle**2  # a form that is negative there has no interval
        reach = np.sqrt(np.maximum(root, 0))
        mean = float(top / bottom)
        lo = float(((middle - reach) / square)[real].min())
        hi = float(((middle + reach) / square)[real].max())
    recipe = _recipe(both, True).replace("paired", "ratio, paired")
    return Interval(mean, lo, hi, recipe, draws, size, level, df=df)


def _common(*samples: Sample) -> list[Sample]:
    """The samples at the draws of the one that has the fewest, if the others have these, too."""
    fewest = min((one.draws for one in samples if one.draws), key=len, default=())
    if any(one.draws and set(fewest) - set(one.draws) for one in samples):
        return list(samples)  # left to be refused
    return [
        replace(one, draws=fewest, values=one.values[[one.draws.index(name) for name in fewest]])
        if len(one.draws) > len(fewest)
        else one
        for one in samples
    ]


def _minus(a: Sample, b: Sample) -> Sample:
    """The differences a - b by draw and example, as a sample; the order is a's."""
    values = a.values - _align(a, b)
    place = _positions(b.examples)
    for what in ("strata", "clusters"):
        ours, theirs = getattr(a, what), getattr(b, what)
        theirs = tuple(theirs[place[name]] for name in a.examples) if theirs else ()
        if ours != theirs:
            raise UserError(f"the two do not have the same {what}: {a.design!r} and {b.design!r}")
    return replace(a, values=values, draws=a.draws or b.draws, bounds=_difference_bounds(a, b))


def _align(a: Sample, b: Sample) -> Floats:
    """The values of b in the order of a's draws and examples."""
    _check_same("examples", a.examples, b.examples)
    place = _positions(b.examples)
    return b.values[np.ix_(_rows(a, b), [place[name] for name in a.examples])]


def _rows(a: Sample, b: Sample) -> list[int]:
    """The rows of b in the order of a's draws; as they are where one of the two was not drawn."""
    if not a.draws or not b.draws:
        return list(range(len(b.values)))
    _check_same("draws", a.draws, b.draws)
    place = _positions(b.draws)
    return [place[name] for name in a.draws]


def _side_by_side(a: Sample, b: Sample) -> Sample:
    """Both samples' examples as one sample, weighted so that its mean is mean(a) - mean(b)."""
    size = len(a.examples) + len(b.examples)
    own, other = _broadcast(a.values, b.values[_rows(a, b)])
    values = np.hstack([own * (size / len(a.examples)), other * (-size / len(b.examples))])

    def both(ids: Callable[[Sample], Sequence[str]]) -> tuple[str, ...]:
        return tuple(f"{side}: {name}" for side, x in (("a", a), ("b", b)) for name in ids(x))

    return Sample(
        values,
        a.draws or b.draws,
        both(lambda x: x.examples),
        both(lambda x: x.strata or [""] * len(x.examples)),
        both(lambda x: x.clusters or x.examples) if a.clusters or b.clusters else (),
        _difference_bounds(a, b),
        " and ".join(dict.fromkeys(x.design for x in (a, b) if x.design)),
    )


def _broadcast(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Both with as many rows: one row is every draw's."""
    rows = max(len(a), len(b))
    return tuple(np.broadcast_to(x, (rows, x.shape[1])) for x in (a, b))  # type: ignore[return-value]


def _difference_bounds(a: Sample, b: Sample) -> Bounds:
    """The bounds of a difference."""
    return a.bounds[0] - b.bounds[1], a.bounds[1] - b.bounds[0]


def _check_same(what: str, a: Sequence[str], b: Sequence[str]) -> None:
    """Refuse ids that are not the same, in any order."""
    sides = []
    for which, only in (("first", set(a) - set(b)), ("second", set(b) - set(a))):
        if only:
            some = ", ".join(repr(name) for name in sorted(only)[:3])
            sides.append(f"only the {which} has {some}{' ...' if len(only) > 3 else ''}")
    if sides:
        raise UserError(f"not the same {what}: {'; '.join(sides)}")


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
    return Interval(share, lo, hi, "Wilson", 0, int(n), level)


def t_interval(values: Any, level: float = 0.95, bounds: Bounds = UNBOUNDED) -> Interval:
    """Student's interval for the mean over draws, one value a draw; none below `FEWEST` draws.

    It says how much the choice of demonstrations matters, with the examples held as they are.
    `bounds` are the values' own, as of `bounds_of`.

    Raises:
        UserError: no values, or one that is no number.
    """
    x = _draws(values)
    mean, n = float(x.mean()), len(x)
    se = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    half = se * quantile(level, n - 1) if n >= FEWEST else np.nan
    lo, hi = ends(mean, half, bounds)
    return Interval(mean, lo, hi, "t over draws", n, 0, level, se, n - 1, x.min(), x.max())


def correlation(x: Any, y: Any, level: float = 0.95) -> Interval:
    """Pearson's correlation over draws with Fisher's interval (1915); none below `FEWEST` draws.

    Where x or y is the same in every draw there is no correlation: no numbers.

    Raises:
        UserError: no values, other lengths, or one that is no number.
    """
    a, b = _draws(x), _draws(y)
    if len(a) != len(b):
        raise UserError(f"{len(a)} and {len(b)} draws do not go together")
    n, recipe = len(a), "Pearson's r, Fisher's z"
    if n < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(np.nan, np.nan, np.nan, recipe, n, 0, level)
    r = float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
    half = scipy_stats.norm.ppf((1 + level) / 2) / np.sqrt(n - 3) if n >= FEWEST else np.nan
    with np.errstate(divide="ignore"):  # |r| = 1: the ends are r
        lo, hi = np.tanh(np.arctanh(r) + np.array([-1, 1]) * half)
    return Interval(r, float(lo), float(hi), recipe, n, 0, level)


def _draws(values: Any) -> Floats:
    """One number a draw, as (draws,)."""
    x = np.asarray(values, dtype=np.float64).ravel()
    if not len(x) or not np.isfinite(x).all():
        raise UserError(f"{int((~np.isfinite(x)).sum())} of {len(x)} draws have no number")
    return x


# --- several at once ---------------------------------------------------------------------------


def pairwise(samples: Mapping[str, Sample], level: float = 0.95) -> pd.DataFrame:
    """Every two samples compared, so that all intervals hold together at `level` (Bonferroni).

    Returns a row a pair: first, second, difference (`Interval`, first - second).

    Raises:
        UserError: as `difference`.
    """
    pairs = list(combinations(samples, 2))
    each = 1 - (1 - level) / max(1, len(pairs))
    rows = [(a, b, difference(samples[a], samples[b], level=each)) for a, b in pairs]
    return pd.DataFrame(rows, columns=["first", "second", "difference"])


@dataclass(frozen=True)
class Best:
    """The sample with the highest mean, and the others by how they compare with it."""

    first: str
    below: dict[str, Interval]  # shown to be below it: first - other, the highest other first
    open: dict[str, Interval]  # not shown to differ from it


def best(samples: Mapping[str, Sample], level: float = 0.95) -> Best:
    """The highest of `samples`, and which others are shown to be below it.

    The same data choose the highest, so all pairs are compared: each claim must hold whichever
    sample comes out first. With comparisons of the highest alone, 9 in 100 claims were false for
    five equal methods.

    Raises:
        UserError: no samples; as `difference`.
    """
    if not samples:
        raise UserError("there is nothing to choose the best of")
    samples = dict(zip(samples, _common(*samples.values()), strict=True))
    order = sorted(samples, key=lambda name: -samples[name].values.mean())
    gaps = pairwise({name: samples[name] for name in order}, level)
    own = gaps[gaps["first"] == order[0]]
    gap_below = dict(zip(own["second"], own["difference"], strict=True))
    below = {name: gap for name, gap in gap_below.items() if gap.lo > 0}
    return Best(order[0], below, {k: gap for k, gap in gap_below.items() if k not in below})


# --- frames ------------------------------------------------------------------------------------


def summary(
    frame: pd.DataFrame,
    by: Sequence[str],
    value: str = "correct",
    *,
    draw: str = "draw",
    example: str = "id",
    within: Sequence[str] = ("label",),
    clusters: str = "",
    level: float = 0.95,
) -> pd.DataFrame:
    """`interval` of `value` in each group: columns of `by`, then an Interval's fields.

    Raises:
        UserError: as `sample`; a column of `by` that is called like a field of an Interval.
    """
    return _by_group(
        frame,
        by,
        lambda part: interval(
            sample(part, value, draw=draw, example=example, within=within, clusters=clusters),
            level=level,
        ),
    )


def over_draws(rows: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """`t_interval` of one value a run, within the value's bounds; columns as in `summary`.

    Raises:
        UserError: as `t_interval`; a column of `by` that is called like a field of an Interval; a
            draw (column `draw`, where there is one) twice in a group.
    """

    def mean(part: pd.DataFrame) -> Interval:
        if "draw" in part and part["draw"].duplicated().any():
            raise UserError(f"draw {_twice(part['draw'])!r} is there twice: group by what differs")
        return t_interval(part[value], bounds=bounds_of(value))

    return _by_group(rows, by, mean)


def _by_group(
    frame: pd.DataFrame, by: Sequence[str], estimate: Callable[[pd.DataFrame], Interval]
) -> pd.DataFrame:
    """The Interval of each group, in order of appearance; a missing key is a group, too."""
    if clash := [name for name in by if name in FIELDS]:
        raise UserError(f"rename the column {clash[0]!r} to group by it: an interval has that name")
    rows = []
    for group, part in frame.groupby(list(by), sort=False, dropna=False):
        rows.append(dict(zip(by, group, strict=True)) | vars(estimate(part)))
    return pd.DataFrame(rows, columns=[*by, *FIELDS])
