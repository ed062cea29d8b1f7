"""How often the truth is inside the intervals of `llmft.report.stats`, by simulation.

    python -m tests.benchmarks.intervals

In a world an example is harder or easier, a draw of demonstrations is better or worse and leans to
one of two labels, and may fail: every example then has the same answer. The variances, t and the
ends are the package's own. Prints three Markdown tables: coverage, the same of recipes that were
not chosen, and false claims of a best method. Two to three minutes on one core.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from llmft.report import stats


DRAWS = (3, 5, 10, 20)
SIZES = {200: 3_000, 1_200: 700}  # examples: worlds
SLICE = 100  # worlds at a time
LOG_ODDS, LEAN = 1.6, 0.5  # of a right answer, accuracy about .80; sd of a draw's lean to a label
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
CHOSEN = "as chosen"


@dataclass(frozen=True)
class World:
    """How draws and examples vary."""

    name: str
    sd: float = 0.02  # of the draws' accuracy
    fail: float = 0.0  # the share of draws with one answer to everything
    subcases: int = 0  # that examples are grouped in, each of one label; 0 for no groups


SMOOTH = tuple(World(f"draws' sd .{sd:02.0f}", sd / 100) for sd in (2, 6, 13))
BIMODAL = tuple(World(f"{share} % of draws fail", fail=share / 100) for share in (35, 12))
CONSTANT = World("constant predictor", fail=1.0)
CLUSTERS = tuple(World(f"{n} whole subcases, sd .06", 0.06, subcases=n) for n in (10, 30))


def accuracy(log_odds: stats.Floats | float, sd: float) -> stats.Floats:
    """P(right) over examples whose log-odds have this mean and standard deviation."""
    return special.expit(np.asarray(log_odds)[..., None] + sd * NODES) @ WEIGHTS


def spread(world: World) -> tuple[float, float]:
    """Standard deviations of the log-odds: over examples (leans included), and over draws."""
    within = np.sqrt(1 + LEAN**2 + (world.subcases > 0))
    above, below = (accuracy(LOG_ODDS + step, within) for step in (1e-3, -1e-3))
    return float(within), world.sd * 2e-3 / float(above - below)


def truth(world: World) -> float:
    within, between = spread(world)
    working = accuracy(LOG_ODDS + between * NODES, within) @ WEIGHTS
    return float((1 - world.fail) * working + world.fail * 0.5)


def examples_of(rng: np.random.Generator, world: World, size: int) -> stats.Floats:
    """How easy each example of each world is, log-odds, (SLICE, 1, size)."""
    easy = rng.standard_normal((SLICE, 1, size))
    if world.subcases:
        easy += rng.standard_normal((SLICE, 1, world.subcases))[
            ..., np.arange(size) % world.subcases
        ]
    return easy


def right(rng: np.random.Generator, world: World, draws: int, easy: stats.Floats) -> stats.Floats:
    """Right or wrong, (SLICE, draws, examples); labels take turns."""
    side = np.where(np.arange(easy.shape[-1]) % 2, 1.0, -1.0)
    of_draw = LOG_ODDS + spread(world)[1] * rng.standard_normal((SLICE, draws, 1))
    lean = LEAN * rng.standard_normal((SLICE, draws, 1))
    log_odds = (of_draw + lean * side + easy).astype(np.float32)
    found = rng.random(log_odds.shape, dtype=np.float32) < special.expit(log_odds)
    answer = rng.choice([-1.0, 1.0], (SLICE, draws, 1))
    failed = rng.random((SLICE, draws, 1)) < world.fail
    return np.where(failed, side == answer, found).astype(np.float64)


def layout(world: World, size: int) -> stats.Units:
    labels = [str(i % 2) for i in range(size)]
    return stats.units(labels, [str(i % (world.subcases or size)) for i in range(size)])


def moments(values: stats.Floats, units: stats.Units) -> tuple[stats.Floats, stats.Floats]:
    """The mean of each world and its three variances, (worlds,) and (worlds, 3)."""
    means = values.mean(-1)
    return means.mean(-1), stats.components(means, stats.influence(values, units))


def recipes(
    mean: stats.Floats, parts: stats.Floats, draws: int, units: stats.Units, bounds: stats.Bounds
) -> Iterator[tuple[str, stats.Floats]]:
    """The ends that each recipe gives, (worlds, 2)."""
    paired = bounds[0] < 0

    def drawn(variance: stats.Floats, t: stats.Floats | float, to_ends: Callable) -> stats.Floats:
        half = np.sqrt(np.maximum(variance, 0)) * t
        return np.array([to_ends(m, h, bounds) for m, h in zip(mean, half, strict=True)])

    scale = stats.clip if paired else stats.ends
    variance, free = stats.two_way(parts), min(draws - 1, units.df)
    t = stats.quantile(0.95, free)
    yield CHOSEN, drawn(variance, t, scale)
    yield "no floor", drawn(parts.sum(-1) - 2 * parts[:, 2], t, scale)
    shares = parts**2 / np.array([draws - 1, units.df, (draws - 1) * units.df])
    freedom = np.maximum(variance**2 / np.maximum(shares.sum(-1), 1e-300), 1)
    yield "Satterthwaite", drawn(variance, scipy_stats.t.ppf(0.975, freedom), scale)
    yield (
        ("logit, too" if paired else "cut off"),
        drawn(variance, t, stats.ends if paired else stats.clip),
    )


def simulate(
    rng: np.random.Generator, world: World, draws: int, size: int, paired: bool
) -> dict[str, tuple[float, float]]:
    """Coverage and mean width by recipe. Paired: with a method whose draws have sd .02."""
    other = CONSTANT if world is CONSTANT else SMOOTH[0]
    target = truth(world) - (truth(other) if paired else 0)
    units, found = layout(world, size), defaultdict(list)
    for _ in range(SIZES[size] // SLICE):
        easy = examples_of(rng, world, size)
        values = right(rng, world, draws, easy)
        if paired:
            values -= right(rng, other, draws, easy)
        bounds = (-1.0, 1.0) if paired else (0.0, 1.0)
        for name, ends in recipes(*moments(values, units), draws, units, bounds):
            found[name].append(ends)
    return {
        name: (
            float(((ends[:, 0] <= target + 1e-9) & (target - 1e-9 <= ends[:, 1])).mean()),
            float((ends[:, 1] - ends[:, 0]).mean()),
        )
        for name, ends in ((name, np.concatenate(parts)) for name, parts in found.items())
    }


def false_claims(rng: np.random.Generator, draws: int, size: int) -> tuple[float, float]:
    """How often the best of five equal methods (sd .06) is said to be above another.

    By all pairs, as `stats.best`, and by its own four comparisons alone.
    """
    methods, world, claims = 5, SMOOTH[1], []
    pairs, units = list(combinations(range(methods), 2)), layout(world, size)
    for _ in range(SIZES[size] // SLICE):
        easy = examples_of(rng, world, size)
        several = [right(rng, world, draws, easy) for _ in range(methods)]
        first = np.argmax([values.mean((1, 2)) for values in several], axis=0)
        largest = np.zeros(SLICE)
        for a, b in pairs:
            mean, parts = moments(several[a] - several[b], units)
            ratio = np.where(first == a, mean, np.where(first == b, -mean, 0))
            largest = np.maximum(largest, ratio / np.sqrt(stats.two_way(parts)))
        claims.append(
            [
                largest > stats.quantile(1 - 0.05 / comparisons, draws - 1)
                for comparisons in (len(pairs), methods - 1)
            ]
        )
    every, alone = np.concatenate(claims, axis=1).mean(1)
    return float(every), float(alone)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> str:
    return row(*cells) + "\n" + row(*["---"] * len(cells))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    rng, start = np.random.default_rng(parser.parse_args().seed), time.perf_counter()
    places = [(size, draws) for size in SIZES for draws in DRAWS]
    print("Coverage at .95 (mean width). Below 5 draws the package gives no interval.\n")
    print(head("", *(f"{draws} draws x {size:,}" for size, draws in places)))
    others: dict[tuple[str, bool, int], list[tuple[float, float]]] = defaultdict(list)
    worlds = [(w, p) for p in (False, True) for w in (*SMOOTH, *BIMODAL, CONSTANT)]
    for world, paired in [*worlds, *((world, False) for world in CLUSTERS)]:
        cells = []
        for size, draws in places:
            found = simulate(rng, world, draws, size, paired)
            cells.append("{:.3f} ({:.2f})".format(*found[CHOSEN]))
            if world in SMOOTH:
                for name, pair in found.items():
                    others[name, paired, draws].append(pair)
        print(row(f"{'difference' if paired else 'mean'}, {world.name}", *cells), flush=True)
    print("\nSmooth worlds by recipe: lowest to highest coverage (mean width).\n")
    print(head("recipe", *(f"{draws} draws" for draws in DRAWS)))
    for name, paired in dict.fromkeys((name, paired) for name, paired, _ in others):
        cells = []
        for draws in DRAWS:
            inside, widths = zip(*others[name, paired, draws], strict=True)
            cells.append(f"{min(inside):.3f}-{max(inside):.3f} ({np.mean(widths):.3f})")
        print(row(f"{'difference' if paired else 'mean'}, {name}", *cells))
    print("\nThe best of five equal methods is said to be above another (nominal .05).\n")
    places = [(size, draws) for size, draws in places if draws >= stats.FEWEST]
    print(head("comparisons", *(f"{draws} draws x {size:,}" for size, draws in places)))
    rates = [false_claims(rng, draws, size) for size, draws in places]
    for name, of in zip(
        ("all pairs, as `best`", "of the best alone"), zip(*rates, strict=True), strict=True
    ):
        print(row(name, *(f"{rate:.3f}" for rate in of)))
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
