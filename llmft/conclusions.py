"""Conclusions as functions from results to sentences, so that no claim can outlive its evidence.

Each function looks at intervals, says what they show (better, worse, or not shown to differ), the
numbers that it rests on, and what it does not show. `said` has a row a run and query: the columns
of `report`, and `way` (the method's name in the chapter) and `size` (labelled examples).
Comparisons that one sentence makes together hold together (Bonferroni): all of them are true with
the confidence that it states. Beside a difference that is not shown stands the smallest one that
the design would have shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmft import report, stats


MARGIN = 0.05
"""Accuracies that differ by less than this are called equal where an interval shows it."""

Places = Mapping[str, Mapping[str, Any]]
"""By name of a method, the columns (and their values) by which its rows are found."""


@dataclass(frozen=True)
class Conclusion:
    """A claim, the numbers that it rests on, and what it does not show."""

    claim: str
    evidence: str
    limit: str

    def __str__(self) -> str:
        return f"**{self.claim}** {self.evidence} *Limit:* {self.limit}"


def verdict(interval: stats.Interval, above: str, below: str, otherwise: str) -> str:
    """`above` where the interval lies above zero, `below` where below, else `otherwise`."""
    return above if interval.lo > 0 else below if interval.hi < 0 else otherwise


def floors(
    said: pd.DataFrame, places: Places, classifier: Mapping[str, Any], cue: str, right: float
) -> Conclusion:
    """Are the methods above a classifier on surface cues that was trained on the same labels?

    `classifier`: where its rows are in `said`; `cue`: the name of the best single cue, and how
    often it is `right` on the same pairs.
    """
    own = report.chosen(said, **classifier)
    level = 1 - 0.05 / max(1, len(places))
    gaps = {
        name: stats.difference(report.chosen(said, **at), own, level=level)
        for name, at in places.items()
    }
    above = [name for name, gap in gaps.items() if gap.lo > 0]
    below = [name for name, gap in gaps.items() if gap.hi < 0]
    what = "a classifier on surface cues that was trained on the same labels"
    if above:
        claim = f"In-domain, {joined(above)} {'is' if len(above) == 1 else 'are'} above {what}."
    elif len(below) == len(gaps):
        claim = f"In-domain, every method is less accurate than {what}."
    else:
        claim = f"In-domain, no method is shown to be more accurate than {what}."
    return Conclusion(
        claim,
        f"The classifier has {stats.interval(own).text}; the single cue *{cue}* alone is right on "
        f"{right:.2f}, with no labels but the training pool's. Method minus classifier on "
        f"the same draws and pairs: {joined([f'{gap} ({name})' for name, gap in gaps.items()])}.",
        "the classifier is given cues that somebody thought of; a model has to find its own.",
    )


def best(said: pd.DataFrame, places: Places, where: str, rehearsed: str = "") -> Conclusion:
    """Which method is the most accurate, and which of the others are not shown to differ from it.

    `rehearsed`: what of the comparison is not even-handed, in a sentence, if anything.
    """
    found = stats.best({name: report.chosen(said, **at) for name, at in places.items()})
    top = stats.interval(report.chosen(said, **places[found.first]))
    below = [f"{name} by {gap}" for name, gap in found.below.items()]
    level = [
        f"{name} ({gap}; {stats.number(gap.detectable)} would have been shown)"
        for name, gap in found.open.items()
    ]
    if not found.open:
        claim = f"{where}, {found.first} is the most accurate method."
    elif not found.below:
        claim = f"{where}, no method is shown to be more accurate than another."
    else:
        claim = (
            f"{where}, {found.first} has the highest accuracy, and is not shown to differ from "
            f"{joined(list(found.open))}."
        )
    parts = [f"{found.first} has {top.text}."]
    parts += [f"It is above {joined(below)}."] * bool(below)
    parts += [f"Not shown to differ: {joined(level)}."] * bool(level)
    return Conclusion(
        claim,
        " ".join(parts) + " (Paired differences of all pairs of methods, which hold together.)",
        " ".join(
            filter(
                None,
                [
                    rehearsed,
                    "Learning rates were searched on a few validation draws, so near ties may be "
                    "the tuning's.",
                ],
            )
        ),
    )


def beyond(said: pd.DataFrame, places: Places, where: str) -> Conclusion:
    """Does any method rank out-of-domain pairs better than chance, and is it one answer to all?

    By the AUC, because a lean to one answer moves the accuracy and not the AUC.
    """
    level = 1 - 0.05 / max(1, len(places))
    these = {
        name: stats.interval(report.chosen(said, "auc", **at), level=level)
        for name, at in places.items()
    }
    clusters = "subcase" if "subcase" in said and not said["subcase"].isna().all() else ""
    new = {
        name: stats.interval(report.chosen(said, "auc", clusters=clusters, **at), level=level)
        for name, at in places.items()
        if clusters
    }
    above = [name for name, interval in these.items() if interval.lo > 0.5]
    holds = [name for name in above if new and new[name].lo > 0.5]
    constant = []
    for name, at in places.items():
        own = said[np.logical_and.reduce([said[c] == v for c, v in at.items()])]
        called = report.of_draws(own, ["domain"])["called"]
        n = int(((called > 0.9) | (called < 0.1)).sum())
        constant += [f"{name} ({n} of {len(called)})"] * (n > len(called) / 2)
    if not above:
        claim = f"{where}, no method is shown to rank the pairs better than chance."
    else:
        claim = (
            f"{where}, {joined(above)} rank{'s' * (len(above) == 1)} the pairs better than chance"
        )
        claim += ", on these constructions." if new and len(holds) < len(above) else "."
    evidence = "The AUC is " + joined([f"{i} ({name})" for name, i in these.items()])
    evidence += " for other pairs of these constructions" if new else ""
    if new:
        evidence += ", and for other constructions "
        evidence += joined(
            [f"[{stats.number(i.lo)}, {stats.number(i.hi)}] ({n})" for n, i in new.items()]
        )
    evidence += "."
    if constant:
        evidence += (
            " Draws that give more than nine in ten pairs one answer, and so have a constant's "
            f"accuracy: {joined(constant)}."
        )
    return Conclusion(
        claim,
        evidence,
        "the out-of-domain pairs are built against one cue, word overlap; other shifts may differ.",
    )


def rule(said: pd.DataFrame, places: Places, alone: float) -> Conclusion:
    """Is what was learned more than the negation rule?

    `said` has the columns of `report.with_rule` (follows, silent), with the AUC of the pairs on
    which the rule is silent as `auc_silent`; `alone`: how often the rule itself is right.
    """
    silent = said[said["silent"]]
    level = 1 - 0.05 / max(1, len(places))
    follows = {
        name: stats.interval(report.chosen(said, "follows", **at), level=level)
        for name, at in places.items()
    }
    left = {
        name: stats.interval(report.chosen(silent, "auc_silent", **at), level=level)
        for name, at in places.items()
    }
    more = [name for name, interval in left.items() if interval.lo > 0.5]
    claim = (
        f"{joined(more)} learned more in-domain than one rule, negation."
        if more
        else "In-domain, no method is shown to have learned more than one rule, negation."
    )
    return Conclusion(
        claim,
        "The share of answers that are this rule's is "
        f"{joined([f'{i} ({name})' for name, i in follows.items()])}; where it is silent the AUC "
        f"is {joined([f'{i} ({name})' for name, i in left.items()])}. The rule alone is right on "
        f"{alone:.2f} of the pairs.",
        "agreement with a rule is not proof of it: another cue may go with it on these pairs.",
    )


def low_rank(
    said: pd.DataFrame,
    lora: Mapping[str, Any],
    full: Mapping[str, Any],
    sizes: Sequence[int],
    weights: tuple[int, int],
) -> Conclusion:
    """LoRA against full fine-tuning of the same samples, at every number of examples.

    `lora`, `full`: where their rows are, but for the size; the intervals hold together.
    """
    level = 1 - 0.05 / len(sizes)
    gaps = {
        k: report.difference(said, {**lora, "size": k}, {**full, "size": k}, level=level)
        for k in sizes
    }
    groups = {
        "is more accurate than full fine-tuning": [k for k, g in gaps.items() if g.lo > 0],
        "is less accurate than full fine-tuning": [k for k, g in gaps.items() if g.hi < 0],
        f"is equal to full fine-tuning within {MARGIN:.2f}": [
            k for k, g in gaps.items() if max(abs(g.lo), abs(g.hi)) < MARGIN
        ],
    }
    known = [
        f"{what} with {joined(list(map(str, ks)))} examples" for what, ks in groups.items() if ks
    ]
    rest = [k for k in sizes if not any(k in ks for ks in groups.values())]
    claim = f"LoRA, with {weights[0] / weights[1]:.1%} of the weights, "
    claim += joined(known) if known else "is not shown to differ from full fine-tuning"
    claim += f"; with {joined(list(map(str, rest)))} neither is shown." if known and rest else "."
    return Conclusion(
        claim,
        "LoRA minus full, in-domain accuracy: "
        + joined([f"{gap} with {k}" for k, gap in gaps.items()])
        + f" examples. The smallest difference that would have been shown runs from "
        f"{stats.number(min(g.detectable for g in gaps.values()))} to "
        f"{stats.number(max(g.detectable for g in gaps.values()))}.",
        "each at its own learning rate; at the other's, either may fail.",
    )


def kept(
    said: pd.DataFrame,
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    start: Mapping[str, Any],
    queries: int,
) -> Conclusion:
    """How much of what the context gave is in the student's weights."""
    own, taught, base = (report.chosen(said, **at) for at in (student, teacher, start))
    share = stats.share(own, taught, base)
    gap = stats.difference(own, taught)
    if not np.isfinite(share.mean):
        claim = "The context gives no clear gain, so there is nothing to distil."
        evidence = f"Teacher minus zero-shot is {stats.difference(taught, base).text}."
    else:
        much = "nearly all" if share.lo > 0.8 else "most" if share.lo > 0.5 else "a part"
        claim = f"Distillation moves {much} of the context's in-domain gain into the weights."
        claim = claim if share.lo > 0 else "Distillation is not shown to keep the context's gain."
        evidence = (
            f"With {queries:,} unlabelled queries the student keeps {share} of it; student minus "
            f"teacher is {gap.text} in accuracy."
        )
    limit = "the context holds demonstrations of one task; instructions and documents may differ."
    return Conclusion(claim, evidence, limit)


def recursion(
    change: stats.Interval, rounds: int, learning_rate: float, divergence: Sequence[float]
) -> Conclusion:
    """Whether further rounds of distillation improve, hold, or spoil the student.

    `change`: in-domain accuracy of the last round minus the first; `divergence`: KL of the last
    round's students to the first teacher, nats, one a draw.
    """
    how = (
        f"without an anchor to the first teacher, at a learning rate of {learning_rate:g}, and "
        "with the context before the query again in each round"
    )
    claim = verdict(
        change,
        f"Recursive distillation improves the student, {how}.",
        f"Recursive distillation spoils the student, {how}.",
        f"Recursive distillation is not shown to change the student's accuracy, {how}.",
    )
    kl = stats.t_interval(divergence, bounds=stats.bounds_of("kl"))
    return Conclusion(
        claim,
        f"From round 1 to {rounds} in-domain accuracy changes by {change.text}; the last student's "
        f"KL to the first teacher is {kl} nats on held-out queries.",
        "another learning rate, an anchor, or a student that also practises with the context may "
        "well change this: none was tried.",
    )


def perplexity(nll: Any, start: float = 0.0) -> str:
    """The exponential of a mean loss, with Student's interval taken on the log scale.

    `nll`: nats a token, one a draw; `start` is subtracted first, so that it is a factor.
    """
    values = np.asarray(nll, dtype=np.float64) - start
    if len(values) == 1 or np.ptp(values) == 0:
        return _power(values[0])
    found = stats.t_interval(values)
    if np.isfinite(found.lo):
        return f"{_power(found.mean)} [{_power(found.lo)}, {_power(found.hi)}]"
    span = f"{_power(values.min())} to {_power(values.max())}"
    return f"{_power(found.mean)} ({found.draws} draws: {span})"


def _power(nats: float) -> str:
    value = float(np.exp(nats))
    return f"{value:,.1f}" if value < 1_000 else f"{float(f'{value:.2g}'):,.0f}"


def forgotten(nll: Mapping[tuple[str, str], Any], start: float) -> Conclusion:
    """What the text term and what the method does to sentences that the model could predict before.

    `nll`: by method and text term ("without", "with"), the negative log-likelihood of plain
    sentences, nats a token, one a draw, in the same order of draws; `start`: before training. A
    difference is Student's over draws, on the log scale; all hold together.
    """
    methods = list(dict.fromkeys(method for method, _ in nll))
    level = 1 - 0.05 / max(1, len(methods))
    spared = {
        method: stats.t_interval(
            np.asarray(nll[method, "without"]) - np.asarray(nll[method, "with"]), level
        )
        for method in methods
    }
    kept = [method for method, gap in spared.items() if gap.lo > 0]
    order = sorted(methods, key=lambda method: float(np.mean(nll[method, "without"])))
    claim = (
        "The text term decides how much is forgotten, with every method: with it the model keeps "
        "far more of its language than without."
        if len(kept) == len(methods)
        else f"With the text term, the model keeps more of its language by {joined(kept)}."
        if kept
        else "The text term is not shown to change how much is forgotten."
    )
    times = {
        term: joined([f"{perplexity(nll[method, term], start)} ({method})" for method in order])
        for term in ("without", "with")
    }
    return Conclusion(
        claim,
        f"The perplexity of plain sentences is {_power(start)} before training. Without the text "
        f"term it is multiplied by {times['without']}; with it, by {times['with']}.",
        "the sentences are like those of the pairs trained on; other text may fare worse.",
    )


def luck(
    said: pd.DataFrame,
    way: str,
    sizes: Sequence[int],
    validity: Mapping[int, tuple[Sequence[float], Sequence[float]]],
) -> Conclusion:
    """How often single draws fail, with the fewest and with the most examples, and why.

    `validity`: by size, how well the negation rule predicts the labels of each draw's examples,
    and that draw's in-domain accuracy.
    """
    inside = said[(said["way"] == way) & (said["domain"] == "in-domain")]
    lines = report.spread(inside[inside["size"].isin(list(sizes))], ["size"]).set_index("size")
    few, many = lines.loc[min(sizes)], lines.loc[max(sizes)]
    found = {size: stats.correlation(*pair) for size, pair in validity.items()}
    clear = [size for size, r in found.items() if r.lo > 0]
    claim = f"With few examples {way} is a lottery"
    claim += ", and the winning draws are those that show the negation rule." if clear else "."
    if few["failed draws"].startswith("0 "):
        claim = f"No draw of {way} fails, even with {min(sizes)} examples."
    return Conclusion(
        claim,
        f"With {min(sizes)} examples {few['failed draws']} draws fail (accuracy less than "
        f"{report.FAILED:.2f} above a constant's), the median draw has {few['median draw']}, and "
        f"they run from {few['lowest to highest']}; with {max(sizes)}, {many['failed draws']}, "
        f"median {many['median draw']}. Correlation of a draw's accuracy with how well negation "
        f"predicts its labels: {joined([f'{r} with {k}' for k, r in found.items()])} examples.",
        "draws are balanced between the labels; unbalanced ones would spread further.",
    )


def price(costs: Mapping[str, Mapping[str, float]], context: str, without: str) -> Conclusion:
    """What an answer costs with the context in the prompt and without, and after how many it pays.

    `costs`: by method, the `tokens` that an answer reads if each prompt is read whole, its FLOPs
    (`answer`), the FLOPs before the first answer (`adapt`), and the `seconds` for a thousand
    answers as measured, with the demonstrations read once for all of them.
    """
    reads, alone = costs[context]["tokens"], costs[without]["tokens"]
    saved = costs[context]["answer"] - costs[without]["answer"]
    limit = (
        "operations leave attention out; seconds are of this machine and of many queries at once."
    )
    tokens = (
        f"An answer reads {reads:,.0f} tokens with the demonstrations in its prompt and "
        f"{alone:,.0f} without."
    )
    if saved <= 0:
        return Conclusion(f"{context} answers as cheaply as {without}.", tokens, limit)
    ratio = costs[context]["answer"] / costs[without]["answer"]
    cached = costs[context]["seconds"] / costs[without]["seconds"]
    after = max(0.0, costs[without]["adapt"] - costs[context]["adapt"]) / saved
    return Conclusion(
        f"{context} needs no training, but an answer costs {ratio:,.0f} times as much as with "
        f"{without} if every prompt is read whole, and {cached:.1f} times as much if the "
        "demonstrations are read once for many queries.",
        f"{tokens} Read whole, {without} has saved what its training cost after {after:,.0f} "
        "answers, counted in operations. The second ratio is of measured seconds.",
        limit,
    )


def joined(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]
