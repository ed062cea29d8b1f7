"""Conclusions as functions from results to sentences, so that no claim can outlive its evidence.

Each function looks at intervals, says what they show (better, worse, or not to be told apart), the
numbers that it rests on, and what would have to be run to know more. `said` has a row a run and
query: the columns of `report`, and `way` (the method's name in the chapter) and `size` (labelled
examples). Comparisons that a sentence makes together are Bonferroni's: all of them hold at once
with the confidence that it states.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmft import report, stats


@dataclass(frozen=True)
class Conclusion:
    """A claim, the numbers that it rests on, and what it does not show."""

    claim: str
    evidence: str
    limit: str

    def __str__(self) -> str:
        return f"**{self.claim}** {self.evidence} *Limit:* {self.limit}"


def verdict(interval: stats.Interval, above: str, below: str, open_: str) -> str:
    """`above` where the interval lies above zero, `below` where below, else `open_`."""
    return above if interval.lo > 0 else below if interval.hi < 0 else open_


def pairwise(
    said: pd.DataFrame, places: Mapping[str, Mapping[str, Any]], value: str = "correct"
) -> pd.DataFrame:
    """Every pair of `places` compared on the same examples and draws, all intervals together 95 %.

    Returns a row a pair: first, second, difference (`stats.Interval`, first less second).
    """
    names = list(places)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    level = 1 - 0.05 / max(1, len(pairs))
    return pd.DataFrame(
        [
            {
                "first": a,
                "second": b,
                "difference": report.difference(said, places[a], places[b], value, level=level),
            }
            for a, b in pairs
        ]
    )


def best(said: pd.DataFrame, places: Mapping[str, Mapping[str, Any]], where: str) -> Conclusion:
    """Which way is the most accurate, and which the others cannot be told apart from it."""
    means = {name: report.chosen(said, **at).mean() for name, at in places.items()}
    first = max(means, key=lambda name: means[name])
    level = 1 - 0.05 / max(1, len(places) - 1)
    behind: list[str] = []
    level_with: list[str] = []
    for name in sorted(set(places) - {first}, key=lambda name: -means[name]):
        gap = report.difference(said, places[first], places[name], level=level)
        (behind if gap.lo > 0 else level_with).append(f"{name} by {gap}")
    top = stats.crossed_interval(report.chosen(said, **places[first]))
    if not level_with:
        claim = f"{where}, {first} is the most accurate."
    elif behind:
        claim = (
            f"{where}, no single way is shown to be the best. The most accurate is {first}, but "
            "not all others can be told apart from it."
        )
    else:
        claim = f"{where}, no way is shown to be better than another."
    parts = [f"{first} has {top.text}."]
    parts += [f"It is above {_joined(behind)}."] * bool(behind)
    parts += [f"Not shown to differ: {_joined(level_with)}."] * bool(level_with)
    return Conclusion(
        claim,
        " ".join(parts) + " (Paired differences; the intervals hold together.)",
        "learning rates were searched on a few validation draws, so near ties may be the tuning's.",
    )


def beyond(
    said: pd.DataFrame, single: pd.DataFrame, places: Mapping[str, Mapping[str, Any]], where: str
) -> Conclusion:
    """Whether any way is above chance out-of-domain, and whether what they say is one label."""
    level = 1 - 0.05 / max(1, len(places))
    found = {
        name: stats.crossed_interval(report.chosen(said, **at), level=level)
        for name, at in places.items()
    }
    above = [name for name, interval in found.items() if interval.lo > 0.5]
    one_sided = []
    for name, at in places.items():
        own = single[np.logical_and.reduce([single[c] == v for c, v in at.items()])]
        shares = own["share_entailment"]
        n = int(((shares > 0.9) | (shares < 0.1)).sum())
        if n > len(shares) / 2:
            one_sided.append(f"{name} ({n} of {len(shares)} draws)")
    if above:
        claim = f"{where}, {_joined(above)} hold{'s' * (len(above) == 1)} above chance."
    else:
        claim = f"{where}, no way is shown to be above chance."
    evidence = "Accuracy is " + _joined([f"{found[n]} ({n})" for n in found]) + "."
    if one_sided:
        evidence += (
            " A constant predictor would have one half, and these give more than nine in ten pairs "
            f"one answer: {_joined(one_sided)}."
        )
    return Conclusion(
        claim,
        evidence,
        "the out-of-domain pairs are built against one cue, word overlap; other shifts may differ.",
    )


def low_rank(
    said: pd.DataFrame,
    lora: Mapping[str, Any],
    full: Mapping[str, Any],
    weights: tuple[int, int],
    margin: float = 0.05,
) -> Conclusion:
    """LoRA against full fine-tuning on the same examples: better, worse, equal within `margin`?"""
    gap = report.difference(said, lora, full)
    share = weights[0] / weights[1]
    near = max(abs(gap.lo), abs(gap.hi)) < margin
    kind = f"are equal to within {margin:.2f}" if near else "are not to be told apart"
    claim = verdict(
        gap,
        f"LoRA, with {share:.1%} of the weights, is more accurate than full fine-tuning.",
        f"LoRA, with {share:.1%} of the weights, falls short of full fine-tuning.",
        f"LoRA, with {share:.1%} of the weights, and full fine-tuning {kind}.",
    )
    return Conclusion(
        claim,
        f"With {lora['size']} examples LoRA less full is {gap.text} in accuracy.",
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
    share = stats.crossed_share(own, taught, base)
    gap = stats.crossed_difference(own, taught)
    if not np.isfinite(share.mean):
        claim = "The context gives no clear gain, so there is nothing to distil."
        evidence = f"Teacher less zero-shot is {stats.crossed_difference(taught, base).text}."
    else:
        much = "nearly all" if share.lo > 0.8 else "most" if share.lo > 0.5 else "a part"
        claim = f"Distillation moves {much} of the context's gain into the weights."
        claim = claim if share.lo > 0 else "Distillation is not shown to keep the context's gain."
        evidence = (
            f"With {queries:,} unlabelled queries the student keeps {share} of it, and is "
            f"{gap.text} from its teacher in accuracy."
        )
    limit = "the context holds demonstrations of one task; instructions and documents may differ."
    return Conclusion(claim, evidence, limit)


def recursion(
    said: pd.DataFrame,
    first: Mapping[str, Any],
    last: Mapping[str, Any],
    divergence: Sequence[float],
    rounds: int,
) -> Conclusion:
    """Whether further rounds of distillation improve, hold, or spoil the student.

    `divergence`: KL of the last round's students to the first teacher, nats, one a draw.
    """
    change = report.difference(said, last, first)
    claim = verdict(
        change,
        "Recursive distillation improves the student.",
        "Recursive distillation spoils the student.",
        "Recursive distillation is not shown to change the student's accuracy.",
    )
    return Conclusion(
        claim,
        f"From round 1 to {rounds} in-domain accuracy changes by {change.text}; the last student's "
        f"KL to the first teacher is {stats.t_interval(divergence)} nats on held-out queries.",
        "every round has the same context, as many updates, and no anchor to the first teacher.",
    )


def forgotten(nll: Mapping[str, Sequence[float]], start: float, clear: float = 1.1) -> Conclusion:
    """Which ways cost the model the sentences that it could predict before.

    `nll`: by way, the negative log-likelihood of plain sentences, nats a token, one a draw;
    `start`: before. A way forgets where the perplexity is clearly above `clear` times the start's.
    """
    grown = {name: stats.t_interval(np.asarray(values) - start) for name, values in nll.items()}
    worse = [name for name, by in grown.items() if by.lo > np.log(clear)]
    kept = [name for name, by in grown.items() if by.hi < np.log(clear)]
    claim = "No way is shown to cost the model what it knew."
    if worse:
        claim = f"What the model knew of its language suffers by {_joined(worse)}"
        claim += f", not by {_joined(kept)}." if kept else "."
    times = [
        f"{np.exp(by.mean):,.1f} [{np.exp(by.lo):,.1f}, {np.exp(by.hi):,.1f}] ({name})"
        for name, by in grown.items()
    ]
    return Conclusion(
        claim,
        f"The perplexity of plain sentences, {np.exp(start):,.1f} before, is multiplied by "
        f"{_joined(times)}.",
        "nothing was done to keep it, such as training on some plain text meanwhile.",
    )


def luck(single: pd.DataFrame, way: str, sizes: Sequence[int]) -> Conclusion:
    """How far single draws of the examples lie apart, with the fewest and with the most."""
    few, many = (
        single[
            (single["way"] == way) & (single["size"] == size) & (single["domain"] == "in-domain")
        ]["accuracy"]
        for size in (min(sizes), max(sizes))
    )
    claim = f"A single draw of {min(sizes)} examples says little about {way}."
    if few.std() <= 2 * many.std():
        claim = f"Draws of {min(sizes)} and of {max(sizes)} examples spread about equally."
    return Conclusion(
        claim,
        f"Over {len(few)} draws in-domain accuracy runs from {few.min():.2f} to {few.max():.2f} "
        f"(sd {few.std():.3f}) with {min(sizes)} examples, and from {many.min():.2f} to "
        f"{many.max():.2f} (sd {many.std():.3f}) with {max(sizes)}.",
        "draws are balanced between the labels; unbalanced ones would spread further.",
    )


def price(costs: Mapping[str, Mapping[str, float]], context: str, without: str) -> Conclusion:
    """What an answer costs with the context in the prompt and without, and after how many it pays.

    `costs`: by way, the `tokens` that an answer reads, its FLOPs (`answer`), and the FLOPs before
    the first answer (`adapt`).
    """
    reads, alone = costs[context]["tokens"], costs[without]["tokens"]
    saved = costs[context]["answer"] - costs[without]["answer"]
    limit = "if many queries come at once, the demonstrations can be read once for all of them."
    tokens = (
        f"An answer reads {reads:,.0f} tokens with the demonstrations in its prompt and "
        f"{alone:,.0f} without."
    )
    if saved <= 0:
        return Conclusion(f"{context} answers as cheaply as {without}.", tokens, limit)
    ratio = costs[context]["answer"] / costs[without]["answer"]
    after = max(0.0, costs[without]["adapt"] - costs[context]["adapt"]) / saved
    return Conclusion(
        f"{context} costs nothing to begin with and {ratio:,.0f} times as much for every answer.",
        f"{tokens} By operations, {without} has paid for its training after {after:,.0f} answers.",
        limit,
    )


def _joined(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]
