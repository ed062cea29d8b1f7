"""The figures, tables and paragraphs of the chapter on methods at an equal tuning budget.

A method is called as in `grids.contenders`; `full` is what the others are compared with. `tuning`
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

ROUNDING = 1e-9
"""By how much the logarithm of a ratio of rates may be off."""


@dataclass(frozen=True)
class Tuning:
    """The runs at all learning rates, of the studies that have them.

    `rows`: a row a run, with its `loss` on validation pairs and, by this loss, its `place` among
    the rates of its study, method, number of examples, and draw: the first is the chosen one.
    `answers`: those to test pairs with their `place`; with the text term a run has that of the run
    without. `start`: by study, the loss on plain sentences before training.
    """

    studies: list[Study]
    rows: pd.DataFrame
    answers: pd.DataFrame
    start: dict[str, float]

    @property
    def best(self) -> pd.DataFrame:
        """The answers at the chosen rates, without the text term."""
        return sections.rows_at(plain(self.answers), place=1)


def read(results: Results, studies: Sequence[Study]) -> Tuning:
    """What the runs tuning; says which studies leave them out (by `without`)."""
    sections.having(results, studies, *grids.budgets(studies[0].model_copy(update={"without": []})))
    made = [study for study in studies if results.has(grids.RATES_OF + FULL, study.study)]
    there = [grids.with_fewer_pairs(study) for study in made]
    start = {study.study: sections.start_nll(results, study) for study in there}
    if not there:
        return Tuning([], results.rows.iloc[:0], results.predictions.iloc[:0], start)
    part = results.part(*(name for name in results.groups if name.startswith(grids.RATES_OF)))
    rows, answers = (
        frame.assign(method=frame["group"].str.removeprefix(grids.RATES_OF))
        for frame in (part.rows, part.predictions)
    )
    ends = curves(rows, ["kept_update"]).query("update == kept_update")
    rows["loss"] = rows["key"].map(ends.set_index("key")["validation_loss"])
    rows["plain"] = rows["method"].str.removesuffix(TERM)
    run = ["study", "plain", "shots", "data_seed"]
    without = rows[rows["method"] == rows["plain"]]
    place = without.groupby(run)["loss"].rank(method="first").astype(int)
    places = without[[*run, "learning_rate"]].assign(place=place)
    rows = rows.merge(places, on=[*run, "learning_rate"]).drop(columns="plain")
    scores = sections.scored(replace(part, predictions=answers))
    scores = scores.merge(rows[["study", "key", "place"]], on=["study", "key"])
    return Tuning(there, rows, scores, start)


def where_run(show: Callable[..., Any]) -> Callable[..., Any]:
    """`show`, of the runs and of the studies that have them; nothing without any."""

    @wraps(show)
    def wrapper(tuning: Tuning) -> Any:
        return show(tuning, tuning.studies) if tuning.studies else None

    return wrapper


def examples(tuning: Tuning) -> str:
    """With how many examples all learning rates are looked at."""
    counts = dict.fromkeys(f"{study.budget_shots[0]:,}" for study in tuning.studies)
    return f"{conclusions.joined(list(counts))} training examples"


def first_size(frame: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with the first number of examples of their study."""
    return sections.where(frame, studies, lambda study: {"shots": study.budget_shots[:1]})


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the runs without the text term."""
    return frame[~frame["method"].str.endswith(TERM)]


# --- the methods, and the search ---------------------------------------------------------------


@where_run
@sections.table_by_study({"share": ".2%"})
def weights_table(tuning: Tuning, study: Study) -> Iterator[dict[str, Any]]:
    """How many weights each method changes, the rates it tried, and how often each was chosen."""
    rows = sections.rows_at(plain(tuning.rows), study=study.study)
    for (shots, name), own in rows.groupby(["shots", "method"], sort=False):
        weights, whole = own.iloc[0][["trainable_parameters", "parameters"]]
        counts = own.loc[own["place"] == 1, "learning_rate"].value_counts().sort_index()
        yield {
            "examples": shots,
            "method": name,
            "weights": weights,
            "share": weights / whole,
            "rates tried": f"{own['learning_rate'].min():g} to {own['learning_rate'].max():g}",
            "chosen (draws)": ", ".join(f"{rate:g} ({n})" for rate, n in counts.items()),
        }


@where_run
@sections.table_by_study()
def search(tuning: Tuning, study: Study) -> Iterator[dict[str, Any]]:
    """Validation loss by multiple of the middle learning rate; and whose best is at an end."""
    rows = sections.rows_at(plain(tuning.rows), study=study.study)
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


def beside_cues(tuning: Tuning) -> pd.DataFrame:
    """The answers at the chosen rates, and those of the cue classifier on the same draws."""
    every = sections.with_classifier(tuning.best, tuning.studies, lambda study: study.budget_shots)
    return sections.where(every, tuning.studies, lambda study: {"data_seed": grids.few(study)})


@where_run
def accuracy(tuning: Tuning, studies: Sequence[Study]) -> Any:
    """Accuracy of each method at its chosen rates, both domains, and of the cue classifier."""
    every = beside_cues(tuning)
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
def differences(tuning: Tuning, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy and AUC of each method at its chosen rates, and both minus full fine-tuning's."""
    every = beside_cues(tuning)
    for shots in study.budget_shots:
        own = sections.rows_at(every, study=study.study, shots=shots)
        right, area = (gaps(tuning.best, study, shots, value) for value in ("correct", "auc"))
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


def verdict(gaps: Mapping[str, stats.Interval]) -> str:
    """Which methods are shown to be worse or better than full fine-tuning, and what is open."""
    better, worse, rest = conclusions.sides(gaps)
    clauses = [
        f"{conclusions.joined([f'{name} ({gaps[name]})' for name in names])} "
        f"{'is' if len(names) == 1 else 'are'} shown to be {kind} than full fine-tuning"
        for kind, names in (("worse", worse), ("better", better))
        if names
    ] or ["no method is shown to be worse or better than full fine-tuning"]
    if rest:
        margin = conclusions.MARGIN
        near = [name for name in rest if max(-gaps[name].lo, gaps[name].hi) < margin]
        clauses.append(
            f"of the {'other ' * bool(worse + better)}{len(rest)}, shown to be within {margin} of "
            f"it: {conclusions.joined(near) or 'none'}{conclusions.power(gaps.values())}"
        )
    return "; ".join(clauses)


@where_run
@sections.findings_by_study
def against_full(tuning: Tuning, study: Study) -> Iterator[str]:
    """Say which methods are shown to be worse or better than full fine-tuning, size by size."""
    every = beside_cues(tuning)
    floors = every[every["method"].isin([FULL, baselines.CLASSIFIER])]
    for shots in study.budget_shots:
        for domain, own in gaps(tuning.best, study, shots).items():
            yield f"With {shots:,} examples, {domain}: {verdict(own)}."
        yield sections.above_floors(floors, study, "method", shots)


# --- fewer rates -------------------------------------------------------------------------------


def chances(rates: int, k: int) -> list[float]:
    """How likely the best of all `rates` is the best of k of them, then the second best, ...

    The k are drawn at random, none twice.
    """
    return [math.comb(rates - i, k - 1) / math.comb(rates, k) for i in range(1, rates + 1)]


def best_of(k: int, places: Sequence[stats.Sample]) -> stats.Sample:
    """What is right on average over all choices of k rates; `places`: at the best rate, ..."""
    first = places[0]
    same = [place.at(first.draws, first.examples).values for place in places]
    mean = np.tensordot(chances(len(places), k), same, axes=1)
    return replace(first, values=mean)


def by_place(
    tuning: Tuning, studies: Sequence[Study]
) -> Iterator[tuple[dict[str, Any], list[stats.Sample]]]:
    """By study, method and domain: what is right at the best rate, at the second best, ..."""
    answers, by = first_size(plain(tuning.answers), studies), ["study", "method", "domain"]
    for group, own in answers.groupby(by, sort=False):
        places = [sections.chosen(own, place=i) for i in sorted(own["place"].unique())]
        yield dict(zip(by, group, strict=True)), places


def of_k(tuning: Tuning) -> pd.DataFrame:
    """Expected accuracy by study, method, domain and `k`, the number of rates that are tried."""
    return pd.DataFrame(
        at | {"k": k} | vars(stats.interval(best_of(k, places)))
        for at, places in by_place(tuning, tuning.studies)
        for k in range(1, len(places) + 1)
    )


@where_run
def budget(tuning: Tuning, _: Sequence[Study]) -> Any:
    """Expected accuracy against the number of rates tried, a panel a method, a line a domain."""
    points = of_k(tuning)
    return figures.curve(
        points.assign(panel=sections.panel(points, "method")),
        "k",
        "domain",
        facet="panel",
        doublings=False,
        x_title="learning rates tried",
        height=130,
        note=f"{examples(tuning)}; {stats.caption(points)}",
    )


def search_gains(tuning: Tuning, study: Study) -> dict[str, stats.Interval]:
    """By domain, the best of all rates minus one rate at random: accuracy, the mean over methods.

    The intervals hold together.
    """
    pairs: dict[str, list[Any]] = {}
    for at, places in by_place(tuning, [study]):
        pair = [best_of(k, places) for k in (len(places), 1)]
        pairs.setdefault(at["domain"], []).append(pair)
    level = stats.together(len(pairs))
    return {
        domain: stats.difference(*map(_mean, zip(*own, strict=True)), level=level)
        for domain, own in pairs.items()
    }


def _mean(samples: Sequence[stats.Sample]) -> stats.Sample:
    """The mean of samples of the same draws and pairs."""
    first = samples[0]
    values = [sample.at(first.draws, first.examples).values for sample in samples]
    return replace(first, values=np.mean(values, axis=0))


def one_rate(tuning: Tuning, study: Study) -> pd.DataFrame:
    """What a comparison with full fine-tuning says if each method tries one rate.

    A row a domain and method: the difference at the chosen rates (`gap`); the number of `pairs` of
    a rate of full fine-tuning and one of the method; in how many the method is shown (each interval
    alone) to be `worse` or `better`.
    """
    lines, shots = [], study.budget_shots[0]
    for domain, own_gaps in gaps(tuning.best, study, shots, level=0.95).items():
        own = sections.rows_at(tuning.answers, study=study.study, shots=shots, domain=domain)
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
                    "worse": sum(one.hi < 0 for one in each),
                    "better": sum(one.lo > 0 for one in each),
                }
            )
    return pd.DataFrame(lines)


@where_run
def one_rate_table(tuning: Tuning, studies: Sequence[Study]) -> None:
    """The rows of `one_rate`, how often these show a difference, and what more rates gain."""
    rows = sections.each(studies, lambda study: one_rate(tuning, study))
    names = {
        "gap": "minus full, all rates tried",
        "pairs": "pairs of rates",
        "worse": "shown worse",
        "better": "shown better",
    }
    sections.table(rows.assign(gap=rows["gap"].map(str)).rename(columns=names))
    _few_rates(rows, tuning, studies)


@sections.text_by_study
def _few_rates(rows: pd.DataFrame, tuning: Tuning, study: Study) -> str:
    counts = [f"{domain}, {_claims(own)}" for domain, own in rows.groupby("domain", sort=False)]
    return (
        f"{search_text(tuning, study)} With one rate each (each interval alone): "
        f"{'; '.join(counts)}."
    )


def search_text(tuning: Tuning, study: Study) -> str:
    """Say what trying all rates adds to trying one."""
    each = []
    for domain, gap in search_gains(tuning, study).items():
        limit = f" ({gap.detectable:.3f} would have been shown with 80 % power)"
        limit *= gap.lo <= 0 <= gap.hi
        each.append(f"{stats.as_text(vars(gap), 3)} {domain}{limit}")
    return (
        f"Trying {len(study.tried_rates)} rates in place of one at random changes the expected "
        f"accuracy, on average over methods, by {conclusions.joined(each)}."
    )


def _claims(rows: pd.DataFrame) -> str:
    """How many of a domain's comparisons at one rate each show a difference."""
    pairs, worse, better = (int(rows[name].sum()) for name in ("pairs", "worse", "better"))
    above, below, _ = conclusions.sides(rows.set_index("method")["gap"].to_dict())
    return (
        f"{worse + better:,} of {pairs:,} comparisons with full fine-tuning “show” a difference "
        f"({worse:,} against the method, {better:,} for it), and {len(above + below)} of "
        f"{len(rows)} with all rates tried"
    )


# --- the ratio of the best rates ---------------------------------------------------------------


def ratios(tuning: Tuning, study: Study) -> dict[tuple[int, int], stats.Interval]:
    """By number of examples and rank, log of LoRA's chosen rate over full fine-tuning's, by draw.

    Student's intervals over draws; they hold together.
    """
    rows = sections.rows_at(plain(tuning.rows), study=study.study, place=1)
    rates = rows.set_index(["shots", "method", "data_seed"])["learning_rate"].sort_index()
    there = [rank for rank in grids.RANKS if f"rank-{rank} LoRA" in set(rows["method"])]
    each = list(product(study.budget_shots, there))
    level = stats.together(len(each))
    logs = {
        (shots, rank): np.log(rates[shots, f"rank-{rank} LoRA"] / rates[shots, FULL])
        for shots, rank in each
    }
    return {at: stats.t_interval(log, level) for at, log in logs.items()}


@where_run
def ratio_table(tuning: Tuning, studies: Sequence[Study]) -> None:
    """LoRA's chosen rate over full fine-tuning's by rank, beside the ten times of others."""
    _ratios(tuning, studies)
    _ten_times(tuning, studies)


@sections.table_by_study()
def _ratios(tuning: Tuning, study: Study) -> Iterator[dict[str, Any]]:
    for (shots, rank), log in ratios(tuning, study).items():
        yield {
            "examples": shots,
            "rank": rank,
            "LoRA's rate over full's": conclusions.ratio(log),
            "shown from": conclusions.factor(log.detectable),
            "draws": log.draws,
        }


@sections.text_by_study
def _ten_times(tuning: Tuning, study: Study) -> str:
    logs = ratios(tuning, study)
    each = [
        f"{conclusions.ratio(log)} at rank {rank} ({shots:,} examples)"
        for (shots, rank), log in logs.items()
    ]
    finite = [log for log in logs.values() if np.isfinite(log.lo)]
    ten, same = (
        sum(log.lo - ROUNDING <= np.log(ratio) <= log.hi + ROUNDING for log in finite)
        for ratio in (WITHOUT_REGRET, 1)
    )
    counts = (
        f" Of {len(finite)} intervals, {ten} contain {WITHOUT_REGRET}, and {same} contain 1, the "
        f"same rate for both{conclusions.power(finite, logs=True)}."
    )
    return (
        f"LoRA's chosen rate over full fine-tuning's is {conclusions.joined(each)}: geometric "
        f"means over draws, of rates on a coarse grid.{counts * bool(finite)}"
    )


# --- learning against forgetting ---------------------------------------------------------------


@where_run
def tradeoff(tuning: Tuning, studies: Sequence[Study]) -> Any:
    """Accuracy against perplexity, a mark a learning rate, a panel a method with full beside it."""
    by = ["study", "method", "learning_rate"]
    answers, rows = (first_size(frame, studies) for frame in (tuning.answers, tuning.rows))
    points = sections.summary(sections.rows_at(answers, domain=INSIDE), by)
    text = stats.over_draws(rows, by, "text_nll").rename(columns={"mean": "perplexity"})
    columns = ["perplexity", "lo", "hi"]
    text[columns] = np.exp(text[columns])
    losses = rows.groupby(by, sort=False)["loss"].mean().reset_index()
    text = text[[*by, *columns]]
    points = points.merge(text, on=by, suffixes=("", "_text")).merge(losses, on=by)
    lowest = points.groupby(by[:2])["loss"].transform("min")
    points = points.assign(chosen=points["loss"] == lowest)
    names = list(dict.fromkeys(rows["method"]))
    plain, others = ([name for name in names if (TERM in name) == has] for has in (False, True))
    return figures.panels(
        points.sort_values("learning_rate", kind="stable"),
        sections.facet(studies),
        lambda own, note: compare.tradeoff(
            own,
            names=[*plain, *sorted(others, key=len, reverse=True)],  # no long one at the right edge
            start=float(np.exp(tuning.start[own["study"].iloc[0]])),
            note=note,
        ),
        note=f"{examples(tuning)}; {stats.caption(points)}",
    )


def text_losses(tuning: Tuning, study: Study) -> dict[str, pd.Series]:
    """By method, the loss on plain sentences at the chosen rates, nats a token, by draw."""
    at = {"study": study.study, "shots": study.budget_shots[0], "place": 1}
    rows = sections.rows_at(tuning.rows, **at)
    return {
        str(name): own.set_index("data_seed")["text_nll"].sort_index()
        for name, own in rows.groupby("method", sort=False)
    }


def over_full(losses: Mapping[str, pd.Series]) -> dict[str, stats.Interval]:
    """Each method's loss on text minus full fine-tuning's, paired; the intervals hold together."""
    level = stats.together(len(losses) - 1)
    return {
        name: stats.t_interval(own - losses[FULL], level)
        for name, own in losses.items()
        if name != FULL
    }


def lowest(losses: Mapping[str, pd.Series]) -> tuple[str, dict[str, stats.Interval]]:
    """The method with the lowest mean loss on text, and its loss minus each other's, paired.

    The same draws choose the lowest, so the intervals hold together with those of all other pairs.
    """
    name = min(losses, key=lambda method: float(losses[method].mean()))
    level = stats.together(math.comb(len(losses), 2))
    return name, {
        other: stats.t_interval(losses[name] - own, level)
        for other, own in losses.items()
        if other != name
    }


@where_run
@sections.table_by_study()
def forgetting(tuning: Tuning, study: Study) -> Iterator[dict[str, Any]]:
    """Perplexity of plain sentences at the chosen rates, and over full fine-tuning's."""
    losses = text_losses(tuning, study)
    logs = over_full(losses)
    for name, own in losses.items():
        yield {
            "method": name,
            "perplexity": conclusions.perplexity(own),
            "over the start's": conclusions.perplexity(own, tuning.start[study.study]),
            "over full's": conclusions.ratio(logs[name]) if name in logs else "–",
            "shown from": conclusions.factor(logs[name].detectable) if name in logs else "–",
            "draws": len(own),
        }


@where_run
@sections.text_by_study
def least_forgetting(tuning: Tuning, study: Study) -> str:
    """Say who forgets least among those that are as accurate, and what the text term does."""
    losses = text_losses(tuning, study)
    logs = {name: log for name, log in over_full(losses).items() if TERM not in name}
    more, less, _ = (conclusions.joined(names) or "none" for names in conclusions.sides(logs))
    return (
        f"Plain sentences have a perplexity of {np.exp(tuning.start[study.study]):.2f} before "
        f"training, and of {conclusions.perplexity(losses[FULL])} after full fine-tuning. "
        f"Shown to forget less than it: {less}; more: {more}"
        f"{conclusions.power(logs.values(), logs=True)}. {least(tuning, study)} "
        f"{text_term(tuning, study)}"
    )


def least(tuning: Tuning, study: Study) -> str:
    """Which method has the lowest perplexity of those not shown to be less accurate than full."""
    right = gaps(tuning.best, study, study.budget_shots[0])[INSIDE]
    _, worse, _ = conclusions.sides(right)
    losses = text_losses(tuning, study)
    name, logs = lowest({n: losses[n] for n in (FULL, *right) if n not in worse})
    _, higher, rest = conclusions.sides(logs)
    claims = [f"shown to be lower than that of {conclusions.joined(higher)}"] * bool(higher)
    if rest:
        every = f"{'the other' if higher else 'any of the other'} {len(rest)}"
        others = conclusions.joined(rest) if len(rest) < 3 else every
        limit = conclusions.power(logs.values(), logs=True)
        claims.append(f"not shown to be lower than that of {others}{limit}")
    return (
        f"Of the {len(logs) + 1} methods not shown to be less accurate in-domain than full "
        f"fine-tuning, {name} has the lowest mean perplexity of plain sentences, "
        f"{conclusions.perplexity(losses[name])}; it is {', '.join(claims)}."
    )


def text_term(tuning: Tuning, study: Study) -> str:
    """What the text term does to perplexity and accuracy, at the rates chosen without it."""
    losses = text_losses(tuning, study)
    names = [name for name in grids.WITH_TEXT if name + TERM in losses]
    if not names:
        return ""
    at = {"study": study.study, "shots": study.budget_shots[0], "place": 1, "domain": INSIDE}
    pairs = {name: ({"method": name + TERM}, {"method": name}) for name in names}
    right = sections.differences(sections.rows_at(tuning.answers, **at), pairs)
    level = stats.together(len(names))
    logs = [stats.t_interval(losses[name + TERM] - losses[name], level) for name in names]
    each = [f"{conclusions.ratio(log)} ({name})" for name, log in zip(names, logs, strict=True)]
    changes = [f"{gap} ({name})" for name, gap in right.items()]
    return (
        "The text term, at the rates chosen without it, multiplies perplexity by "
        f"{conclusions.joined(each)}{conclusions.power(logs, logs=True)} and changes in-domain "
        f"accuracy by {conclusions.joined(changes)}{conclusions.power(right.values())}."
    )


@where_run
@sections.findings_by_study
def summary(tuning: Tuning, study: Study) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    for shots in study.budget_shots:
        for domain, own in gaps(tuning.best, study, shots).items():
            better, worse, _ = (
                conclusions.joined(names) or "none" for names in conclusions.sides(own)
            )
            yield (
                f"At an equal budget, {shots:,} examples, {domain}: of {len(own)} methods, shown "
                f"to be worse than full fine-tuning: {worse}; better: {better}"
                f"{conclusions.power(own.values())}."
            )
    yield search_text(tuning, study)
    inside = sections.rows_at(one_rate(tuning, study), domain=INSIDE)
    yield f"In-domain with one rate each, {_claims(inside)}; each interval holds alone."
    logs = ratios(tuning, study)
    each = [f"{conclusions.ratio(log)} at rank {rank}" for (_, rank), log in logs.items()]
    yield (
        f"LoRA's chosen rate over full fine-tuning's is {conclusions.joined(each)}"
        f"{conclusions.power(logs.values(), logs=True)}."
    )
    yield least(tuning, study)
