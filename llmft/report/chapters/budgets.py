"""The figures, tables and paragraphs of the chapter on methods at an equal tuning budget.

A method is called as in `grids.contenders`; `full` is what the others are compared with. `found`
(`read`) has the runs at every learning rate. Where all rates are looked at, or plain sentences, it
is with the first of the study's numbers of examples (`budget_shots`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from llmft.nli import tasks
from llmft.params import Study
from llmft.report import compare, conclusions, figures, sections, stats
from llmft.study import baselines, grids
from llmft.study.results import Results, curves


FULL = "full"

TERM = grids.AND_TEXT
"""What follows a method's name where it learns with the text term."""

INSIDE = tasks.DOMAINS[0]

WITHOUT_REGRET = 10
"""How many times full fine-tuning's best rate LoRA's is in "LoRA Without Regret"."""


@dataclass(frozen=True)
class Found:
    """The runs at all learning rates, of the studies that have them.

    `rows`: a row a run, with its `loss` on validation pairs and, by this loss, its `place` among
    the rates of its study, method, number of examples, and draw: the first is the chosen one.
    `tried`: the answers to test pairs with their `place`; with the text term a run has that of the
    run without. `start`: by study, the loss on plain sentences before training.
    """

    studies: list[Study]
    rows: pd.DataFrame
    tried: pd.DataFrame
    start: dict[str, float]

    @property
    def best(self) -> pd.DataFrame:
        """The answers at the chosen rates, without the text term."""
        is_plain = ~self.tried["method"].str.endswith(TERM)
        return self.tried[is_plain & (self.tried["place"] == 1)]


def read(results: Results, studies: Sequence[Study]) -> Found:
    """What the runs found; says which studies leave them out (by `without`)."""
    sections.having(results, studies, *grids.budgets(studies[0].model_copy(update={"without": []})))
    there = [study for study in studies if results.has(grids.RATES_OF + FULL, study.study)]
    start = {study.study: sections.start_nll(results, study) for study in there}
    if not there:
        return Found([], results.rows.iloc[:0], results.predictions.iloc[:0], start)
    part = results.part(*(name for name in results.groups if name.startswith(grids.RATES_OF)))
    rows, answers = (
        frame.assign(method=frame["group"].str.removeprefix(grids.RATES_OF))
        for frame in (part.rows, part.predictions)
    )
    kept = curves(rows, ["kept_update"]).query("update == kept_update")
    rows["loss"] = rows["key"].map(kept.set_index("key")["validation_loss"])
    rows["plain"] = rows["method"].str.removesuffix(TERM)
    run = ["study", "plain", "shots", "data_seed"]
    without = rows[rows["method"] == rows["plain"]]
    place = without.groupby(run)["loss"].rank(method="first").astype(int)
    ranked = without[[*run, "learning_rate"]].assign(place=place)
    rows = rows.merge(ranked, on=[*run, "learning_rate"]).drop(columns="plain")
    tried = sections.scored(replace(part, predictions=answers))
    return Found(
        there, rows, tried.merge(rows[["study", "key", "place"]], on=["study", "key"]), start
    )


def where_run(show: Callable[..., Any]) -> Callable[..., Any]:
    """`show`, of what was found and of the studies that have the runs; nothing without any."""

    @wraps(show)
    def shown(found: Found) -> Any:
        return show(found, found.studies) if found.studies else None

    return shown


def examples(found: Found) -> str:
    """With how many examples all learning rates are looked at."""
    counts = dict.fromkeys(f"{study.budget_shots[0]:,}" for study in found.studies)
    return f"{conclusions.joined(list(counts))} training examples"


def first_size(frame: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with the first number of examples of their study."""
    return sections.where(frame, studies, lambda study: {"shots": study.budget_shots[:1]})


# --- the methods, and the search ---------------------------------------------------------------


def plain(found: Found) -> pd.DataFrame:
    """The rows of the runs without the text term."""
    return found.rows[~found.rows["method"].str.endswith(TERM)]


@where_run
@sections.table_by_study({"share": ".2%"})
def changed(found: Found, study: Study) -> Iterator[dict[str, Any]]:
    """How many weights each method changes, the rates it tried, and how often each was chosen."""
    rows = sections.rows_at(plain(found), study=study.study)
    for (shots, name), own in rows.groupby(["shots", "method"], sort=False):
        counted, whole = own.iloc[0][["trainable_parameters", "parameters"]]
        chosen = own.loc[own["place"] == 1, "learning_rate"].value_counts().sort_index()
        yield {
            "examples": shots,
            "method": name,
            "weights": counted,
            "share": counted / whole,
            "rates tried": f"{own['learning_rate'].min():g} to {own['learning_rate'].max():g}",
            "chosen (draws)": ", ".join(f"{rate:g} ({n})" for rate, n in chosen.items()),
        }


@where_run
@sections.table_by_study()
def search(found: Found, study: Study) -> Iterator[dict[str, Any]]:
    """Validation loss by multiple of the middle learning rate; and whose best is at an end."""
    rows = sections.rows_at(plain(found), study=study.study)
    for shots, (name, one) in product(study.budget_shots, grids.contenders(study).items()):
        own = sections.rows_at(rows, method=name, shots=shots)
        if own.empty:
            continue
        means = own.groupby("learning_rate")["loss"].mean()
        losses = {f: means[one.learning_rate * f] for f in study.tried_rates}
        at_an_end = min(losses, key=lambda f: losses[f]) in (min(losses), max(losses))
        yield (
            {"examples": shots, "method": name}
            | {f"× {f:g}": f"{loss:.3f}" for f, loss in losses.items()}
            | {"lowest at an end": "yes" if at_an_end else "no"}
        )


# --- accuracy at the chosen rates --------------------------------------------------------------


def compared(found: Found) -> pd.DataFrame:
    """The answers at the chosen rates, and those of the cue classifier on the same draws."""
    every = sections.with_classifier(found.best, found.studies, lambda study: study.budget_shots)
    return sections.where(every, found.studies, lambda study: {"data_seed": grids.few(study)})


@where_run
def accuracy(found: Found, studies: Sequence[Study]) -> Any:
    """Accuracy of each method at its chosen rates, both domains, and of the cue classifier."""
    every = compared(found)
    every = every.assign(examples=every["shots"].map("{:,} examples".format))
    every = every.assign(panel=sections.panel(every, "examples"))
    points = sections.summary(every, ["panel", "method", "domain"])
    return figures.forest(
        points,
        "method",
        "domain",
        group="panel",
        note=f"{stats.caption(points)}; {sections.floors_text(studies)}",
    )


def gaps(
    answers: pd.DataFrame, study: Study, shots: int, value: str = "correct", level: float = 0.0
) -> dict[str, dict[str, stats.Interval]]:
    """By domain and method, its accuracy (or another `value`) minus full fine-tuning's, paired.

    All intervals of one number of examples hold together, or each alone at its `level`.
    """
    own = sections.rows_at(answers, study=study.study, shots=shots)
    domains = own["domain"].unique()
    pairs = {n: ({"method": n}, {"method": FULL}) for n in own["method"].unique() if n != FULL}
    level = level or stats.together(len(pairs) * len(domains))
    return {
        domain: sections.differences(sections.rows_at(own, domain=domain), pairs, value, level)
        for domain in domains
    }


@where_run
@sections.and_missing
@sections.table_by_study()
def differences(found: Found, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy and AUC of each method at its chosen rates, and both minus full fine-tuning's."""
    every = compared(found)
    for shots in study.budget_shots:
        own = sections.rows_at(every, study=study.study, shots=shots)
        right, area = (gaps(found.best, study, shots, value) for value in ("correct", "auc"))
        for domain, name in product(right, own["method"].unique()):
            at = {"domain": domain, "method": name}
            accuracy, auc = (sections.interval(own, v, **at) for v in ("correct", "auc"))
            yield (
                {"examples": shots, **at, "accuracy": str(accuracy)}
                | sections.beside("minus full", right[domain].get(name))
                | {
                    "AUC": str(auc),
                    "AUC, minus full": str(area[domain].get(name, "–")),
                    "n": accuracy.n,
                }
            )


def shown(gaps: Mapping[str, stats.Interval]) -> tuple[list[str], list[str]]:
    """The names whose difference is shown to be below zero, and those of the ones above."""
    above, below, _ = conclusions.sides(gaps)
    return below, above


def verdict(gaps: Mapping[str, stats.Interval]) -> str:
    """Which methods are shown to be worse or better than full fine-tuning, and what is open."""
    worse, better = shown(gaps)
    told = [
        f"{conclusions.joined([f'{name} ({gaps[name]})' for name in names])} "
        f"{'is' if len(names) == 1 else 'are'} shown to be {kind} than full fine-tuning"
        for kind, names in (("worse", worse), ("better", better))
        if names
    ] or ["no method is shown to be worse or better than full fine-tuning"]
    rest = {name: gap for name, gap in gaps.items() if name not in worse + better}
    small = [name for name, gap in rest.items() if max(-gap.lo, gap.hi) < conclusions.MARGIN]
    power = [gap.detectable for gap in rest.values() if np.isfinite(gap.detectable)]
    if rest:
        near = conclusions.joined(small) or "none"
        told.append(
            f"of the {'other ' * bool(worse + better)}{len(rest)}, shown to be within "
            f"{conclusions.MARGIN} of it: {near}"
        )
    if power:
        told[-1] += (
            f" (true differences of {stats.number(min(power))} to {stats.number(max(power))} would "
            "have been shown with 80 % power)"
        )
    return "; ".join(told)


@where_run
@sections.findings_by_study
def against_full(found: Found, study: Study) -> Iterator[str]:
    """Say which methods are shown to be worse or better than full fine-tuning, size by size."""
    every = compared(found)
    floors = every[every["method"].isin([FULL, baselines.CLASSIFIER])]
    for shots in study.budget_shots:
        for domain, own in gaps(found.best, study, shots).items():
            yield f"With {shots:,} examples, {domain}: {verdict(own)}."
        yield sections.above_floors(floors, study, "method", shots)


# --- fewer rates -------------------------------------------------------------------------------


def chances(tried: int, k: int) -> list[float]:
    """How likely the best of all `tried` rates is the best of k of them, then the second best, ...

    The k are drawn at random, none twice.
    """
    return [math.comb(tried - i, k - 1) / math.comb(tried, k) for i in range(1, tried + 1)]


def best_of(k: int, places: Sequence[stats.Sample]) -> stats.Sample:
    """What is right on average over all choices of k rates; `places`: at the best rate, ..."""
    first = places[0]
    same = [place.at(first.draws, first.examples).values for place in places]
    mean = np.tensordot(chances(len(places), k), same, axes=1)
    return replace(first, values=mean)


def of_k(found: Found) -> pd.DataFrame:
    """Expected accuracy by study, method, domain and `k`, the number of rates that are tried."""
    tried = first_size(found.tried[~found.tried["method"].str.endswith(TERM)], found.studies)
    lines = []
    for (study, method, domain), own in tried.groupby(["study", "method", "domain"], sort=False):
        places = [sections.chosen(own, place=i) for i in sorted(own["place"].unique())]
        for k in range(1, len(places) + 1):
            at = {"study": study, "method": method, "domain": domain, "k": k}
            lines.append(at | vars(stats.interval(best_of(k, places))))
    return pd.DataFrame(lines)


@where_run
def budget(found: Found, _: Sequence[Study]) -> Any:
    """Expected accuracy against the number of rates tried, a panel a method, a line a domain."""
    points = of_k(found)
    return figures.curve(
        points.assign(panel=sections.panel(points, "method")),
        "k",
        "domain",
        facet="panel",
        doublings=False,
        x_title="learning rates tried",
        height=130,
        note=f"{examples(found)}; {stats.caption(points)}",
    )


def one_rate(found: Found, study: Study) -> pd.DataFrame:
    """What a comparison with full fine-tuning says if each method tries one rate.

    A row a domain and method: the difference at the chosen rates (`gap`); the number of `pairs` of
    a rate of full fine-tuning and one of the method; in how many the order is the `other` way
    round, and the method is shown (each interval alone) to be `worse` or `better`.
    """
    lines, shots = [], study.budget_shots[0]
    for domain, own_gaps in gaps(found.best, study, shots, level=0.95).items():
        own = sections.rows_at(found.tried, study=study.study, shots=shots, domain=domain)
        at_rate = {
            name: [sections.chosen(part, learning_rate=r) for r in part["learning_rate"].unique()]
            for name, part in own.groupby("method", sort=False)
        }
        for name, gap in own_gaps.items():
            each = [stats.difference(*pair) for pair in product(at_rate[name], at_rate[FULL])]
            lines.append(
                {
                    "domain": domain,
                    "method": name,
                    "gap": gap,
                    "pairs": len(each),
                    "other": sum(one.mean * gap.mean < 0 for one in each),
                    "worse": sum(one.hi < 0 for one in each),
                    "better": sum(one.lo > 0 for one in each),
                }
            )
    return pd.DataFrame(lines)


@where_run
def one_rate_table(found: Found, studies: Sequence[Study]) -> None:
    """The rows of `one_rate`, and how often it turns an order round or shows a difference."""
    rows = sections.each(studies, lambda study: one_rate(found, study))
    names = {
        "gap": "minus full, all rates tried",
        "pairs": "pairs of rates",
        "other": "other order",
        "worse": "shown worse",
        "better": "shown better",
    }
    sections.table(rows.assign(gap=rows["gap"].map(str)).rename(columns=names))
    _one_rate(rows, studies)


@sections.text_by_study
def _one_rate(rows: pd.DataFrame, study: Study) -> str:
    said = []
    for domain, own in sections.rows_at(rows, study=study.study).groupby("domain", sort=False):
        pairs, worse, better = (int(own[name].sum()) for name in ("pairs", "worse", "better"))
        with_all = sum(map(len, shown(dict(zip(own["method"], own["gap"], strict=True)))))
        said.append(
            f"{domain}, of the {pairs:,} pairs of one rate each, {own['other'].sum() / pairs:.0%} "
            "put the two methods in the order opposite to that at the chosen rates, and "
            f"{(worse + better) / pairs:.0%} “show” a difference ({worse:,} against the method, "
            f"{better:,} for it); with all rates tried, one is shown for {with_all} of {len(own)} "
            "methods"
        )
    return f"With {study.budget_shots[0]:,} examples, each interval alone: {'; '.join(said)}."


# --- the ratio of the best rates ---------------------------------------------------------------


def ratios(found: Found, study: Study) -> dict[tuple[int, int], stats.Interval]:
    """By number of examples and rank, log of LoRA's chosen rate over full fine-tuning's, by draw.

    Student's intervals over draws; they hold together.
    """
    rows = sections.rows_at(plain(found), study=study.study, place=1)
    rates = rows.set_index(["shots", "method", "data_seed"])["learning_rate"].sort_index()
    there = [rank for rank in grids.RANKS if f"rank-{rank} LoRA" in set(rows["method"])]
    each = list(product(study.budget_shots, there))
    level = stats.together(len(each))
    logs = {
        (shots, rank): np.log(rates[shots, f"rank-{rank} LoRA"] / rates[shots, FULL])
        for shots, rank in each
    }
    return {at: stats.t_interval(log, level) for at, log in logs.items()}


def times(log: stats.Interval) -> stats.Interval:
    """A difference of logarithms as a factor, its interval rounded to six digits."""
    names = ("mean", "lo", "hi", "lowest", "highest")
    ends: dict[str, Any] = {name: float(f"{np.exp(getattr(log, name)):.6g}") for name in names}
    return replace(log, **ends)


@where_run
def ratio_table(found: Found, studies: Sequence[Study]) -> None:
    """LoRA's chosen rate over full fine-tuning's by rank, beside the ten times of others."""
    _ratios(found, studies)
    _ten_times(found, studies)


@sections.table_by_study()
def _ratios(found: Found, study: Study) -> Iterator[dict[str, Any]]:
    for (shots, rank), log in ratios(found, study).items():
        at = {"examples": shots, "rank": rank}
        yield at | {"LoRA's rate over full's": str(times(log)), "draws": log.draws}


@sections.text_by_study
def _ten_times(found: Found, study: Study) -> str:
    each = {at: times(log) for at, log in ratios(found, study).items()}
    said = [f"{one} at rank {rank} ({shots:,} examples)" for (shots, rank), one in each.items()]
    known = [one for one in each.values() if np.isfinite(one.lo)]
    inside = sum(one.lo <= WITHOUT_REGRET <= one.hi for one in known)
    same = sum(one.lo <= 1 <= one.hi for one in known)
    ten = (
        f" Of {len(known)} intervals, {inside} contain {WITHOUT_REGRET}, and {same} contain 1 (the "
        "same rate for both)."
    )
    return (
        f"LoRA's chosen rate over full fine-tuning's is {conclusions.joined(said)}: geometric "
        f"means over draws, of rates on a coarse grid.{ten * bool(known)}"
    )


# --- learning against forgetting ---------------------------------------------------------------


@where_run
def tradeoff(found: Found, studies: Sequence[Study]) -> Any:
    """Accuracy against perplexity, a mark a learning rate, a panel a method with full beside it."""
    by = ["study", "method", "learning_rate"]
    answers, rows = (first_size(frame, studies) for frame in (found.tried, found.rows))
    points = sections.summary(sections.rows_at(answers, domain=INSIDE), by)
    means = rows.groupby(by, sort=False)[["text_nll", "loss"]].mean().reset_index()
    points = points.merge(means, on=by)
    lowest = points.groupby(by[:2])["loss"].transform("min")
    points = points.assign(perplexity=np.exp(points["text_nll"]), chosen=points["loss"] == lowest)
    return figures.panels(
        points.sort_values("learning_rate", kind="stable"),
        sections.facet(studies),
        lambda own, note: compare.tradeoff(
            own,
            names=list(dict.fromkeys(rows["method"])),
            start=float(np.exp(found.start[own["study"].iloc[0]])),
            note=note,
        ),
        note=f"{examples(found)}; {stats.caption(points)}",
    )


def text_losses(found: Found, study: Study) -> dict[str, pd.Series]:
    """By method, the loss on plain sentences at the chosen rates, nats a token, by draw."""
    at = {"study": study.study, "shots": study.budget_shots[0], "place": 1}
    rows = sections.rows_at(found.rows, **at)
    return {
        str(name): own.set_index("data_seed")["text_nll"].sort_index()
        for name, own in rows.groupby("method", sort=False)
    }


def more_forgotten(losses: Mapping[str, pd.Series]) -> dict[str, stats.Interval]:
    """Each method's loss on text minus full fine-tuning's, paired; the intervals hold together."""
    level = stats.together(len(losses) - 1)
    return {
        name: stats.t_interval(own - losses[FULL], level)
        for name, own in losses.items()
        if name != FULL
    }


@where_run
@sections.table_by_study()
def forgotten(found: Found, study: Study) -> Iterator[dict[str, Any]]:
    """Perplexity of plain sentences at the chosen rates, and over full fine-tuning's."""
    losses = text_losses(found, study)
    over_full = {name: str(times(gap)) for name, gap in more_forgotten(losses).items()}
    for name, own in losses.items():
        yield {
            "method": name,
            "perplexity": conclusions.perplexity(own),
            "over the start's": conclusions.perplexity(own, found.start[study.study]),
            "over full's": over_full.get(name, "–"),
            "draws": len(own),
        }


@where_run
@sections.text_by_study
def least_forgotten(found: Found, study: Study) -> str:
    """Say who forgets least among those that are as accurate, and what the text term does."""
    losses, shots = text_losses(found, study), study.budget_shots[0]
    right = gaps(found.best, study, shots)[INSIDE]
    nats = {name: gap for name, gap in more_forgotten(losses).items() if TERM not in name}
    less, more = (conclusions.joined(names) or "none" for names in shown(nats))
    said = [
        f"Plain sentences have a perplexity of {np.exp(found.start[study.study]):.2f} before "
        f"training, and of {conclusions.perplexity(losses[FULL])} after full fine-tuning. "
        f"Shown to forget less than it: {less}; more: {more}."
    ]
    equal = [name for name in right if name not in shown(right)[0]]
    if equal:
        least = min(equal, key=lambda name: float(losses[name].mean()))
        said.append(
            f"Of the {len(equal)} methods that are not shown to be less accurate in-domain "
            f"than full fine-tuning, {least} leaves the lowest perplexity: "
            f"{times(nats[least])} times full fine-tuning's; its accuracy minus full "
            f"fine-tuning's is {right[least]}."
        )
    at = {"study": study.study, "shots": shots, "place": 1, "domain": INSIDE}
    answers = sections.rows_at(found.tried, **at)
    for name in (name for name in grids.WITH_TEXT if name + TERM in losses):
        change = times(stats.t_interval(losses[name + TERM] - losses[name]))
        gap = sections.minus(answers, {"method": name + TERM}, {"method": name})
        said.append(
            f"With the text term, at the rates that are chosen without it, {name} leaves "
            f"{change} times the perplexity of {name} without it, and its accuracy changes by "
            f"{gap}; each interval holds alone."
        )
    return " ".join(said)


@where_run
@sections.findings_by_study
def summary(found: Found, study: Study) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    for shots in study.budget_shots:
        for domain, own in gaps(found.best, study, shots).items():
            worse, better = (conclusions.joined(names) or "none" for names in shown(own))
            yield (
                f"At an equal budget, {shots:,} examples, {domain}: of {len(own)} methods, "
                f"shown to be worse than full fine-tuning: {worse}; better: {better}."
            )
    one = sections.rows_at(one_rate(found, study), domain=INSIDE)
    yield (
        f"With one rate each, {one['other'].sum() / one['pairs'].sum():.0%} of the in-domain "
        "comparisons with full fine-tuning come out in the order opposite to that at the chosen "
        "rates."
    )
    each = [f"{times(log)} (rank {rank})" for (_, rank), log in ratios(found, study).items()]
    yield f"LoRA's chosen rate over full fine-tuning's: {conclusions.joined(each)}."
