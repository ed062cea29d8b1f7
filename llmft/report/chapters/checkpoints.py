"""The figures, tables and paragraphs of the chapter on other checkpoints.

`answers` has every method's predictions with scores, and the `checkpoint` that gave them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from llmft.engine import models
from llmft.params import Study
from llmft.report import conclusions, figures, sections, stats, tables
from llmft.report.stats import Floats, Interval, Sample
from llmft.study import grids, metrics
from llmft.study.results import Results


FULL = "full fine-tuning"
METHODS = ("zero-shot", "ICL", FULL, "LoRA", "distillation")
ORDERS = "training orders"

VALUES = {"accuracy": "correct", "AUC": "auc"}
"""What is compared, and the column of a prediction that has it."""

DIFFERENCES = "checkpoint", "draw", "pairs"
"""What may differ between two measurements of a method, beside the order of its examples."""


def _groups(study: Study, *names: str) -> dict[str, str]:
    """The groups of these methods that the study has, and the methods."""
    found = {f"checkpoints, {name}": name for name in names}
    return {group: name for group, name in found.items() if group in grids.checkpoints(study)}


def _seed(model: str) -> str:
    """What a checkpoint is called here."""
    return f"seed {model.removeprefix(grids.CHECKPOINTS[0]).removeprefix('-') or 0}"


def read(results: Results, studies: Sequence[Study], *names: str) -> pd.DataFrame:
    """The scored answers of these methods, by default `METHODS`, with their `checkpoint`."""
    found = sections.by_method(results, studies, lambda study: _groups(study, *(names or METHODS)))
    seeds = dict(zip(found.rows["key"], found.rows["model"].map(_seed), strict=True))
    answers = found.predictions.assign(checkpoint=found.predictions["key"].map(seeds))
    return metrics.with_scores(answers)


def cube(rows: pd.DataFrame, value: str) -> tuple[Floats, Sample]:
    """The values of one method and domain as (checkpoints, draws, pairs), and the first's sample.

    Every checkpoint had the same draws and pairs; zero-shot has one row of each.
    """
    parts: Any = rows.groupby("checkpoint", sort=True)
    samples = [stats.sample(part, value) for _, part in parts]
    first = samples[0]
    return np.stack([one.at(first.draws, first.examples).values for one in samples]), first


def over_checkpoints(values: Floats, first: Sample, *, level: float = 0.95) -> Interval:
    """The mean of a `cube` with its interval, when checkpoints, draws and pairs all vary.

    The variance of the checkpoints' means, and the two-way one of draws and pairs at the mean
    checkpoint, add up: what is noise of single runs is in both, which errs on the wide side. The
    degrees of freedom are those of the few checkpoints.
    """
    number = len(values)
    means, layout = values.mean((1, 2)), stats.units(first.strata, first.clusters)
    inner = values.mean(0)
    parts = stats.components(inner.mean(1), stats.influence(inner, layout))
    variance = float(stats.two_way(parts)) + means.var(ddof=1) / number
    se, mean = float(np.sqrt(variance)), float(means.mean())
    half = se * stats.quantile(level, number - 1)
    lo, hi = stats.ends(mean, half, first.bounds)
    recipe, size = "t over checkpoints, draws and pairs", len(first.examples)
    ends = means.min(), means.max()
    return Interval(mean, lo, hi, recipe, number, size, level, se, number - 1, *ends)


def spread(values: Floats, first: Sample) -> dict[str, float]:
    """Standard deviations of one run's mean when only the checkpoint, draw or pairs are others."""
    means = values.mean(2)  # (checkpoints, draws)
    layout = stats.units(first.strata, first.clusters)
    pairs = (stats.influence(values, layout) ** 2).sum(-1).mean()
    of_draws = means.var(1, ddof=1).mean() if first.draws else np.nan
    variances = means.var(0, ddof=1).mean(), of_draws, pairs
    return {name: float(one) ** 0.5 for name, one in zip(DIFFERENCES, variances, strict=True)}


def of_spread(sd: float, freedom: int) -> tuple[float, float]:
    """The 95 % interval of a standard deviation by the chi-squared distribution."""
    low, high = (float(scipy_stats.chi2.ppf(share, freedom)) for share in (0.975, 0.025))
    return sd * (freedom / low) ** 0.5, sd * (freedom / high) ** 0.5


LEARNED = 0.6
"""Accuracy on the hidden rules of late items from which on a checkpoint has learned to use its
context; one half is chance. By its pretraining log, so by nothing that is reported of the task."""


def logs(folder: Path) -> dict[str, pd.Series]:
    """The last line of each checkpoint's training log."""
    ends = {name: name.removeprefix(grids.CHECKPOINTS[0]) for name in grids.CHECKPOINTS}
    return {
        _seed(name): pd.read_csv(folder / f"training{end}.csv").iloc[-1]
        for name, end in ends.items()
    }


def learners(folder: Path) -> list[str]:
    """The checkpoints that have `LEARNED` to use their context."""
    return [name for name, last in logs(folder).items() if last["late"] >= LEARNED]


def spread_of(rows: pd.DataFrame) -> tuple[dict[str, float], str]:
    """`spread` of the accuracy of one method and domain, and the interval of the checkpoint's."""
    found = spread(*cube(rows, "correct"))
    ends = of_spread(found["checkpoint"], rows["checkpoint"].nunique() - 1)
    return found, f"[{', '.join(stats.number(end, 3) for end in ends)}]"


# --- what is shown -----------------------------------------------------------------------------


def training(folder: Path) -> None:
    """How well each checkpoint does what it was pretrained for, by its own training log."""
    names = {
        "loss_plain": "loss, plain",
        "quiz": "questions",
        "late": "hidden rules",
        "late negated": "negation as the rule",
    }
    table = pd.DataFrame(logs(folder)).T[[*names]].astype(float).rename(columns=names)
    digests = [models.identity(name)[1][:8] for name in grids.CHECKPOINTS]
    table = table.rename_axis("checkpoint").reset_index().assign(digest=digests)
    tables.table(table, dict.fromkeys(names.values(), ".2f"))


def learned(folder: Path) -> None:
    """Say which checkpoints learned to use their context, by the hidden rules of their text."""
    late = {name: float(last["late"]) for name, last in logs(folder).items()}
    can = learners(folder)
    failed = [f"{name} ({stats.number(late[name])})" for name in late if name not in can]
    others = [stats.number(late[name]) for name in can]
    tables.say(
        f"{len(can)} of {len(late)} checkpoints follow a hidden rule, with accuracies from "
        f"{min(others)} to {max(others)} on late items. Not so: "
        f"{conclusions.joined(failed) or 'none'}; one half is chance."
    )


def by_checkpoint(answers: pd.DataFrame) -> Any:
    """Accuracy of each method on each checkpoint, with intervals over draws and pairs."""
    points = sections.summary(answers, ["domain", "checkpoint", "method"])
    return figures.forest(
        points.sort_values("checkpoint", kind="stable"),
        "checkpoint",
        "method",
        group="domain",
        note=stats.caption(points),
    )


@sections.table_by_study(dict.fromkeys([*DIFFERENCES, "order"], ".3f"))
def spreads(answers: pd.DataFrame, orders: pd.DataFrame, _study: Study) -> Iterator[dict[str, Any]]:
    """Of one run's accuracy: what changes with another checkpoint, draw, order, other pairs."""
    places: Any = answers.groupby(["domain", "method"], sort=False)
    for (domain, method), rows in places:
        (found, interval), order = spread_of(rows), np.nan
        if method == FULL and len(orders):
            own = sections.rows_at(orders, domain=domain)
            runs = own.groupby(["checkpoint", "data_seed", "order_seed"])["correct"].mean()
            order = float(np.sqrt(runs.groupby(["checkpoint", "data_seed"]).var().mean()))
        yield {
            "domain": domain,
            "method": method,
            **found,
            "order": order,
            "95 % interval, checkpoint": interval,
            "n": _size(rows),
        }


def _size(rows: pd.DataFrame) -> str:
    """Checkpoints × draws × pairs."""
    numbers = (rows[name].nunique() for name in ("checkpoint", "draw", "id"))
    return " × ".join(f"{number:,}" for number in numbers)


def _gap(answers: pd.DataFrame, method: str, value: str) -> tuple[Floats, Sample]:
    """The method minus full fine-tuning, as a `cube`: on equal checkpoints, draws and pairs."""
    gaps_ = []
    for _, rows in answers.groupby("checkpoint", sort=True):
        own, full = (stats.sample(sections.rows_at(rows, method=m), value) for m in (method, FULL))
        draws = min(own.draws or full.draws, full.draws, key=len)
        own, full = (one.at(draws, full.examples) for one in (own, full))
        gaps_.append(own.values - full.values)
    low, high = full.bounds
    return np.stack(gaps_), replace(full, bounds=(low - high, high - low))


def gaps(answers: pd.DataFrame, value: str) -> dict[tuple[str, str], tuple[Interval, Floats]]:
    """Each method minus full fine-tuning by domain and method, and each checkpoint's own mean.

    The intervals of all methods and domains hold together.
    """
    places = answers[answers["method"] != FULL][["domain", "method"]].drop_duplicates()
    level, found = stats.together(len(places)), {}
    for domain, method in places.itertuples(index=False, name=None):
        values, first = _gap(sections.rows_at(answers, domain=domain), method, value)
        gap = over_checkpoints(values, first, level=level)
        found[domain, method] = gap, values.mean((1, 2))
    return found


@sections.table_by_study()
def compare(answers: pd.DataFrame, _study: Study) -> Iterator[dict[str, Any]]:
    """Each method minus full fine-tuning: on the book's checkpoint, and over all checkpoints."""
    for name, value in VALUES.items():
        for (domain, method), (gap, each) in gaps(answers, value).items():
            own = sections.rows_at(answers, domain=domain, checkpoint="seed 0")
            here = sections.difference(own, {"method": method}, {"method": FULL}, value)
            ends = " to ".join(stats.number(end) for end in (each.min(), each.max()))
            yield {
                "measure": name,
                "domain": domain,
                "method": method,
                "seed 0": str(here),
                "all checkpoints": str(gap),
                "lowest to highest": ends,
                "shown from": gap.detectable,
            }


@sections.text_by_study
def largest(answers: pd.DataFrame, _study: Study) -> str:
    """Say how the checkpoint's spread compares with the draw's and the pairs', in-domain."""
    lines = []
    inside = sections.rows_at(answers, domain="in-domain")
    places: Any = inside.groupby("method", sort=False)
    for method, rows in places:
        found, interval = spread_of(rows)
        others = [
            f"another draw by {stats.number(found['draw'], 3)}" * bool(rows["draw"].iloc[0]),
            f"other pairs by {stats.number(found['pairs'], 3)}",
        ]
        lines.append(
            f"{conclusions.capital(method)}: another checkpoint changes a run's accuracy by "
            f"{stats.number(found['checkpoint'], 3)} {interval}, "
            f"{' and '.join(filter(None, others))}."
        )
    return f"In-domain, as standard deviations:\n\n{sections.bullets(lines)}"


@sections.text_by_study
def of_differences(answers: pd.DataFrame, _study: Study) -> str:
    """Say how much of a single run's difference from full fine-tuning is the checkpoint's."""
    inside, lines = sections.rows_at(answers, domain="in-domain"), []
    for method in [name for name in dict.fromkeys(inside["method"]) if name != FULL]:
        found = spread(*_gap(inside, method, "correct"))
        parts = conclusions.joined(
            [f"{stats.number(found[name], 3)} ({name})" for name in DIFFERENCES]
        )
        lines.append(f"{conclusions.capital(method)}: {parts}.")
    return (
        "In-domain, a run's accuracy minus that of full fine-tuning on the same checkpoint and "
        "draw, as standard deviations when only one thing is another:\n\n"
        f"{sections.bullets(lines)}"
    )


def _told(found: dict[tuple[str, str], tuple[Interval, Floats]], name: str) -> str:
    """Which methods are shown to differ from full fine-tuning by a measure, and by how much."""
    more, less, _ = conclusions.sides({place: gap for place, (gap, _) in found.items()})
    told = [f"{method} {domain} ({found[domain, method][0]})" for domain, method in (*more, *less)]
    return f"shown to differ from full fine-tuning by {name}: {'; '.join(told) or 'nothing'}"


def _open(found: dict[tuple[str, str], tuple[Interval, Floats]], name: str) -> Iterator[str]:
    """Of each domain: which methods are not shown to differ from full fine-tuning, and power."""
    for domain in dict.fromkeys(domain for domain, _ in found):
        gaps_ = {method: gap for (at, method), (gap, _) in found.items() if at == domain}
        neither = conclusions.sides(gaps_)[2]
        if neither:
            widest = max(gaps_[method].detectable for method in neither)
            yield (
                f"{domain.capitalize()}, not shown to differ from it by {name}: "
                f"{conclusions.joined(neither)} (a true difference of {stats.number(widest)} "
                "would have been shown with 80 % power)."
            )


@sections.findings_by_study
def summary(answers: pd.DataFrame, folder: Path, _study: Study) -> Iterator[str]:
    """Which differences hold over checkpoints, and which are the one checkpoint's."""
    number, can = answers["checkpoint"].nunique(), learners(folder)
    some = answers[answers["checkpoint"].isin(can)]
    inside = sections.rows_at(answers, domain="in-domain")
    means = inside.groupby(["method", "checkpoint"], sort=False)["correct"].mean()
    ranges = [
        f"{method} {stats.number(each.min())} to {stats.number(each.max())}"
        for method, each in means.groupby("method", sort=False)
    ]
    yield f"In-domain accuracy from the lowest checkpoint to the highest: {'; '.join(ranges)}."
    for name, value in VALUES.items():
        found = gaps(answers, value)
        yield f"Over {number} checkpoints, {_told(found, name)}."
        yield from _open(found, name)
        mixed = [
            f"{method} {domain} ({stats.number(each.min())} to {stats.number(each.max())})"
            for (domain, method), (_, each) in found.items()
            if each.min() < 0 < each.max()
        ]
        yield (
            f"Above full fine-tuning by mean {name} on one checkpoint and below it on another, "
            f"which no interval here tests: {'; '.join(mixed) or 'none'}."
        )
        if 1 < len(can) < number:
            few = gaps(some, value)
            widest = stats.number(max(gap.detectable for gap, _ in few.values()))
            yield (
                f"Over the {len(can)} checkpoints alone that learned to use their context, "
                f"{_told(few, name)} (of any method {widest} would have been shown)."
            )
