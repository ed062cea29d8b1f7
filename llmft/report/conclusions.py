"""Conclusions as functions from results to sentences, so that no claim can outlive its evidence.

Each function looks at intervals, says what they show (better, worse, or not shown to differ), the
numbers that it rests on, and what it does not show. `answers` has a row a run and query
(`sections.scored`), `method` being the method's name in the chapter. Comparisons that one sentence
makes together hold together (Bonferroni): all of them are true with the confidence that it states.
Beside a difference that is not shown stands the smallest one that the design would have shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmft.report import sections, stats


MARGIN = 0.05
"""Accuracies that differ by less than this are called equal where an interval shows it."""

FAR = 2.0
"""With a perplexity shown to be lower by more than this factor, far less is forgotten."""

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
    answers: pd.DataFrame,
    places: Places,
    classifier: Mapping[str, Any],
    cue: str,
    right: float,
    pool: int,
) -> Conclusion:
    """Are the methods above a classifier on surface cues that was trained on the same labels?

    `classifier`: where its rows are in `answers`; `cue`: the name of the single cue that is best in
    the `pool` labels of the training pool, and how often it is `right` on the same pairs.
    """
    own = sections.chosen(answers, **classifier)
    level = 1 - 0.05 / max(1, len(places))
    gaps = {
        name: stats.difference(sections.chosen(answers, **at), own, level=level)
        for name, at in places.items()
    }
    above = [name for name, gap in gaps.items() if gap.lo > 0]
    below = [name for name, gap in gaps.items() if gap.hi < 0]
    size = classifier["shots"]
    what = "a classifier on surface cues that was trained on the same labels"
    if above:
        claim = (
            f"In-domain with {size:,} labels, {joined(above)} {_is(above)} more accurate than "
            f"{what}."
        )
    elif len(below) == len(gaps):
        claim = f"In-domain, every method given {size:,} labels is less accurate than {what}."
    else:
        claim = (
            f"In-domain with {size:,} labels, no method is shown to be more accurate than {what}."
        )
    return Conclusion(
        claim,
        f"The classifier has {stats.interval(own).text} (draws × pairs). The single cue *{cue}* is "
        f"right on {right:.2f}, but was chosen by all {pool:,} labels of the training pool. Method "
        "minus classifier on the same draws and pairs: "
        f"{joined([_gap(*one) for one in gaps.items()])}." + _few(gaps.values()),
        "the classifier is given cues that somebody thought of; a model has to find its own.",
    )


def best(answers: pd.DataFrame, places: Places, where: str, rehearsed: str = "") -> Conclusion:
    """Which method is the most accurate, and which of the others are not shown to differ from it.

    `rehearsed`: what of the comparison is not even-handed, in a sentence, if anything.
    """
    found = stats.best({name: sections.chosen(answers, **at) for name, at in places.items()})
    top = stats.interval(sections.chosen(answers, **places[found.first]))
    gaps = [*found.below.values(), *found.open.values()]
    below = [f"{name} by {gap}" for name, gap in found.below.items()]
    if not found.open:
        claim = f"{where}, {found.first} is the most accurate method."
    else:
        others = joined(list(found.open)) if found.below else "any other method"
        claim = (
            f"{where}, {found.first} has the highest accuracy, and is not shown to differ from "
            f"{others}."
        )
    parts = [f"{_capital(found.first)} has {top.text} (draws × pairs)."]
    parts += [f"It is above {joined(below)}."] * bool(below)
    if found.open:
        level = [_gap(name, gap) for name, gap in found.open.items()]
        parts.append(f"Its accuracy minus that of the others is {joined(level)}.")
    together = "The differences are paired, and hold together with those of all other pairs."
    parts += [together] * any(np.isfinite(gap.lo) for gap in gaps)
    tuned = (
        "learning rates were searched on few validation draws, so that near ties may come from "
        "the search."
    )
    limit = f"{rehearsed} {tuned.capitalize()}" if rehearsed else tuned
    return Conclusion(claim, " ".join(parts) + _few(gaps), limit)


def beyond(
    answers: pd.DataFrame,
    places: Places,
    where: str,
    classifier: Mapping[str, Any] | None = None,
) -> Conclusion:
    """Does any method rank out-of-domain pairs better than chance, and is it one answer to all?

    By the AUC, because a lean to one answer moves the accuracy and not the AUC. `classifier`: where
    the rows of the cue classifier are, to hold the methods against.
    """
    these, new = _measured(answers, "auc", places), {}
    if "subcase" in answers and not answers["subcase"].isna().all():
        new = _measured(answers, "auc", places, clusters="subcase")
    above = [name for name, interval in these.items() if interval.lo > 0.5]
    worse = [name for name, interval in these.items() if interval.hi < 0.5]
    holds = [name for name in above if new and new[name].lo > 0.5]
    claim = f"{where}, no method is shown to rank the pairs better than chance"
    if above:
        claim = f"{where}, {joined(above)} {_ranks(above)} the pairs better than chance"
        if new and len(holds) < len(above):
            claim += ", on these constructions"
            claim += f" (on new ones, {joined(holds)} alone)" * bool(holds)
    if worse:
        claim += f", and {joined(worse)} {_ranks(worse)} them worse than chance"
    evidence = f"The AUC is {joined([_auc(*one) for one in these.items()])}"
    if new:
        others = [
            f"[{stats.number(i.lo)}, {stats.number(i.hi)}] ({name})"
            for name, i in new.items()
            if np.isfinite(i.lo)
        ]
        some = sections.rows_at(answers, **next(iter(places.values())))["subcase"].nunique()
        ones = f"for new ones ({some} were tried)"
        evidence += " for other pairs of these constructions, and "
        evidence += f"{joined(others)} {ones}" if others else f"has no interval {ones}"
    evidence += f".{_few(these.values())}"
    if classifier is not None:
        area = stats.interval(sections.chosen(answers, "auc", **classifier))
        evidence += f" The cue classifier's is {area}."
    return Conclusion(
        f"{claim}.",
        evidence + _constant(answers, places),
        "these pairs are one kind of shift from the training pairs; others may differ.",
    )


def _ranks(names: Sequence[str]) -> str:
    return "ranks" if len(names) == 1 else "rank"


def _constant(answers: pd.DataFrame, places: Places) -> str:
    """Which methods have become a constant in most of their draws, in a sentence, if any have."""
    found = []
    for name, at in places.items():
        called = sections.of_draws(sections.rows_at(answers, **at), ["domain"])["called"]
        n = int(((called > 0.9) | (called < 0.1)).sum())
        found += [f"{name} ({n} of {len(called)})"] * (n > len(called) / 2)
    if not found:
        return ""
    return (
        " Draws that give more than nine in ten pairs one answer, and so have nearly a constant's "
        f"accuracy: {joined(found)}."
    )


def rule(
    answers: pd.DataFrame, places: Places, classifier: Mapping[str, Any] | None = None
) -> Conclusion:
    """Is what was learned more than whether a negation is there?

    `answers` has the columns of `sections.with_rule` (follows, silent), with the AUC of the pairs
    without negation as `auc_silent`. `classifier`: where the rows of the cue classifier are; what
    it reaches on those pairs shows what there was to learn.

    Asked only where the rule is one: where it speaks, and its answer there (not entailed) is shown
    to be right more often than not (Wilson).
    """
    pairs = sections.rows_at(answers, **next(iter(places.values()))).drop_duplicates("id")
    quiet = pairs["silent"].astype(bool)
    spoken = pairs[~quiet]["label"]
    limit = "agreement with a rule is not proof of it: another cue may go with it on these pairs."
    words = "negation is known by a list of words."
    if spoken.empty:
        claim = "In-domain there is no negation rule to learn."
        return Conclusion(claim, "In none of the pairs is a sentence negated.", words)
    sound = stats.wilson(int(spoken.sum()), len(spoken))
    speaks = (
        f"A sentence is negated in {len(spoken):,} of {len(pairs):,} pairs, of which {sound} are "
        "not entailed"
    )
    if not sound.lo > 0.5:
        claim = "In-domain, negation is not shown to say anything of the label."
        return Conclusion(claim, f"{speaks}.", words)
    right = float((pairs["label"] == (~quiet).astype(int)).mean())
    follows = _measured(answers, "follows", places)
    evidence = (
        f"{speaks}; the rule “not entailed if either sentence is negated” is right on {right:.2f} "
        "of all pairs. Predictions agree with it on "
        f"{joined([f'{i} ({name})' for name, i in follows.items()])}. "
    )
    if pairs[quiet]["label"].nunique() < 2:
        return Conclusion(
            "In-domain, these pairs cannot show whether more than negation was used.",
            f"{evidence}All pairs without negation have one label, so that there is no AUC."
            + _few(follows.values()),
            limit,
        )
    claim, silent = _without_negation(answers, places, classifier)
    return Conclusion(claim, f"{evidence}Among the {int(quiet.sum()):,} {silent}", limit)


def _without_negation(
    answers: pd.DataFrame, places: Places, classifier: Mapping[str, Any] | None
) -> tuple[str, str]:
    """What the AUC of the pairs without negation shows: the claim, and what it rests on."""
    silent = answers[answers["silent"].astype(bool)]
    left = _measured(silent, "auc_silent", places)
    more = [name for name, interval in left.items() if interval.lo > 0.5]
    claim = (
        f"In-domain, {joined(more)} {'use' if len(more) > 1 else 'uses'} more than whether a "
        "negation is there."
        if more
        else "In-domain, no method is shown to use more than whether a negation is there."
    )
    text = f"pairs without negation the AUC is {joined([_auc(*one) for one in left.items()])}."
    if classifier is not None:
        area = stats.interval(sections.chosen(silent, "auc_silent", **classifier))
        text += f" The cue classifier's is {area} there."
    return claim, text + _few(left.values())


def contrast(
    gaps: Mapping[str, tuple[stats.Interval, stats.Interval, stats.Interval]],
    shown: str,
    trained: str,
    more: bool,
) -> Conclusion:
    """Training against demonstrations, by the AUC, in each domain.

    `gaps`: by domain, demonstrations minus zero-shot, training minus zero-shot, and training minus
    demonstrations, which hold together; `shown`, `trained`: what the two are called; `more`:
    whether training has more labels.
    """
    found: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    told = []
    for domain, (own, other, apart) in gaps.items():
        found[verdict(apart, "better", "worse", "")].append(domain)
        told.append(
            f"{domain.capitalize()}, the AUC with {shown} minus zero-shot's is {own}{_would(own)}, "
            f"that after {trained} minus zero-shot's {other}{_would(other)}, and that after "
            f"{trained} minus that with {shown} {apart.text}{_would(apart)}."
        )
    clauses = [
        f"ranks {joined(domains)} pairs {word} than {shown} do"
        if word
        else f"is not shown to rank {joined(domains)} pairs differently from {shown}"
        for word, domains in found.items()
        if domains
    ]
    limits = [f"training has more labels than {shown}"] * more
    limits += ["the out-of-domain pairs are one kind of shift from the training pairs"] * (
        len(gaps) > 1
    )
    together = " The differences of a domain hold together."
    every = [gap for three in gaps.values() for gap in three]
    return Conclusion(
        f"{_capital(trained)} {' and '.join(clauses)}.",
        " ".join(told) + together * any(np.isfinite(gap.lo) for gap in every) + _few(every),
        "; ".join(limits or ["another model may differ"]) + ".",
    )


def holds(gaps: Mapping[str, stats.Interval], studies: int) -> str:
    """Which of so many studies show a claim; `gaps`: a difference by study, where there is one.

    The claim is that the difference is above zero.
    """
    found = {name: verdict(gap, "yes", "no", "") for name, gap in gaps.items()}
    yes, no = ([name for name, word in found.items() if word == one] for one in ("yes", "no"))
    every = {2: "in both"}.get(studies, "in all")
    clauses = []
    if yes:
        clauses.append(every if len(yes) == studies else f"in {joined(yes)}")
    if no:
        clauses.append(f"the reverse {every if len(no) == studies else f'in {joined(no)}'}")
    if rest := [name for name in found if name not in (*yes, *no)]:
        clauses.append(f"not shown either way in {joined(rest)}")
    return "; ".join(clauses) if yes or no else "not shown either way"


def low_rank(
    answers: pd.DataFrame,
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
        k: sections.difference(answers, {**lora, "shots": k}, {**full, "shots": k}, level=level)
        for k in sizes
    }
    better = [k for k, gap in gaps.items() if gap.lo > 0]
    worse = [k for k, gap in gaps.items() if gap.hi < 0]
    near = [k for k, gap in gaps.items() if max(abs(gap.lo), abs(gap.hi)) < MARGIN]
    same = [k for k in near if k not in (*better, *worse)]
    rest = [k for k in sizes if k not in (*better, *worse, *same)]

    def counted(ks: Sequence[int]) -> str:
        return f"with {joined([f'{k:,}' for k in ks])} examples"

    known = [
        f"{what} {counted(ks)}"
        for what, ks in (
            ("more accurate than full fine-tuning", better),
            ("less accurate than full fine-tuning", worse),
            (f"equal to full fine-tuning within {MARGIN:.2f}", same),
        )
        if ks
    ]
    claim = f"LoRA, with {weights[0] / weights[1]:.1%} of the weights, is "
    if known:
        claim += joined(known)
        claim += f"; {counted(rest)} neither a difference nor equality is shown" * bool(rest)
    else:
        claim += f"not shown to differ from full fine-tuning, nor to equal it within {MARGIN:.2f}"
    evidence = "LoRA minus full, in-domain accuracy: " + joined(
        [f"{gap} {counted([k])}" for k, gap in gaps.items()]
    )
    able = sorted(gap.detectable for gap in gaps.values() if np.isfinite(gap.detectable))
    if able:
        ends = list(dict.fromkeys(stats.number(end) for end in (able[0], able[-1])))
        evidence += f". The smallest difference that would have been shown is {' to '.join(ends)}"
    return Conclusion(
        f"{claim}.",
        f"{evidence}." + _few(gaps.values()),
        "each at its own learning rate; at the other's, either may fail. Where both follow one "
        "cue, equality is partly that of a ceiling.",
    )


def distillation(
    answers: pd.DataFrame,
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    start: Mapping[str, Any],
    queries: int,
) -> Conclusion:
    """How much of what the context gave is in the student's weights."""
    own, taught, base = (sections.chosen(answers, **at) for at in (student, teacher, start))
    share = stats.share(own, taught, base)
    gap, gain = stats.difference(own, taught), stats.difference(taught, base)
    if not np.isfinite(gain.lo):
        claim = "How much of the context's in-domain gain is kept is not shown."
        evidence = f"Teacher minus zero-shot is {gain}, and student minus teacher {gap}."
    elif not np.isfinite(share.mean):
        claim = "The context is not shown to give a gain, so there is nothing to distil."
        evidence = f"Teacher minus zero-shot is {gain.text}{sections.unresolved(gain)}."
    else:
        much = "nearly all" if share.lo > 0.8 else "most" if share.lo > 0.5 else "a part"
        claim = f"Distillation moves {much} of the context's in-domain gain into the weights."
        claim = claim if share.lo > 0 else "Distillation is not shown to keep the context's gain."
        evidence = (
            f"With {queries:,} unlabelled queries the student keeps {share} of it; student minus "
            f"teacher is {gap.text} in accuracy{sections.unresolved(gap)}."
        )
    limit = "the context holds demonstrations of one task; instructions and documents may differ."
    return Conclusion(claim, evidence + _few([gain]), limit)


def recursion(
    change: stats.Interval, rounds: int, learning_rate: float, divergence: Any
) -> Conclusion:
    """Whether further rounds of distillation improve, hold, or spoil the student.

    `change`: in-domain accuracy of the last round minus the first; `divergence`: KL of the last
    round's students to the first teacher, nats, one a draw.
    """
    how = (
        "Recursive distillation as done here (no anchor to the first teacher, a learning rate of "
        f"{learning_rate:g}, the context before the query again in each round)"
    )
    claim = verdict(
        change,
        f"{how} improves the student.",
        f"{how} spoils the student.",
        f"{how} is not shown to change the student's accuracy.",
    )
    kl = stats.t_interval(divergence, bounds=stats.bounds_of("kl"))
    return Conclusion(
        claim,
        f"From round 1 to round {rounds}, in-domain accuracy changes by {change.text}"
        f"{sections.unresolved(change)}; the KL of the last student to the first teacher is {kl} "
        f"nats on held-out queries.{_few([change])}",
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
    if value < 1_000:
        return (
            f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
        )
    return f"{float(f'{value:.3g}'):,.0f}"


def forgetting(
    nll: Mapping[tuple[str, str], Any],
    start: float,
    accuracy: Mapping[str, stats.Interval] | None = None,
) -> Conclusion:
    """What the text term and what the method does to sentences that the model could predict before.

    The text term is the loss on the words of the pairs themselves, beside that on the answers.

    `nll`: by method and text term ("without", "with"), the negative log-likelihood of plain
    sentences, nats a token, one a draw, in the same order of draws; `start`: before training;
    `accuracy`: by method, what the term changes in accuracy. A difference is Student's over draws,
    on the log scale; all hold together.
    """
    values = {key: np.asarray(own, dtype=np.float64) for key, own in nll.items()}
    order = sorted(
        dict.fromkeys(method for method, _ in nll), key=lambda m: float(values[m, "without"].mean())
    )
    # The term's effect by method, and every two methods: which are the extremes, the data say.
    level = 1 - 0.05 / (len(order) * (len(order) + 1) / 2)
    effects = {m: stats.t_interval(values[m, "without"] - values[m, "with"], level) for m in order}
    clauses = _effects(effects)
    if len(order) > 1:
        apart = stats.t_interval(values[order[-1], "without"] - values[order[0], "without"], level)
        if apart.lo > 0:
            clauses.append(f"without it, {order[-1]} as trained here forgets more than {order[0]}")
    claim = "; ".join(clauses)
    times = {
        term: joined([f"{perplexity(values[m, term], start)} ({m})" for m in order])
        for term in ("without", "with")
    }
    able = [
        f"{stats.number(float(np.exp(gap.detectable)), 1)} ({method})"
        for method, gap in effects.items()
        if gap.lo <= 0 <= gap.hi
    ]
    changed = [f"{gap} ({method})" for method, gap in (accuracy or {}).items()]
    costs = f" It changes in-domain accuracy by {joined(changed)}." if changed else ""
    would = f" A change by a factor of {joined(able)} would have been shown." if able else ""
    return Conclusion(
        f"{claim[0].upper()}{claim[1:]}.",
        f"The perplexity of plain sentences is {_power(start)} before training. Without the text "
        f"term it is multiplied by {times['without']}; with it, by {times['with']}."
        + costs
        + would
        + _few(effects.values()),
        "each method has its own learning rate, number of examples read, and targets, so how much "
        "of a difference between methods is the method's is not shown. The sentences are premises "
        "like those trained on; other text may fare worse.",
    )


def _effects(effects: Mapping[str, stats.Interval]) -> list[str]:
    """What the text term does to each method, in clauses; `effects`: nats without minus with."""
    less = [method for method, gap in effects.items() if gap.lo > 0]
    more = [method for method, gap in effects.items() if gap.hi < 0]
    rest = [method for method in effects if method not in (*less, *more)]
    clauses = []
    if less:
        who = "every trained method" if len(less) == len(effects) > 1 else joined(less)
        far = "far " * all(effects[method].lo > np.log(FAR) for method in less)
        verb = "forgets" if who == "every trained method" else f"forget{'s' * (len(less) == 1)}"
        clauses.append(f"with the text term, {who} {verb} {far}less than without it")
    if more:
        verb = f"forget{'s' * (len(more) == 1)}"
        clauses.append(f"with the text term, {joined(more)} {verb} more than without it")
    if not clauses:
        return ["the text term is not shown to change how much is forgotten"]
    return clauses + [f"no change is shown for {joined(rest)}"] * bool(rest)


def luck(
    answers: pd.DataFrame,
    method: str,
    sizes: Sequence[int],
    validity: Mapping[int, tuple[Any, Any]],
) -> Conclusion:
    """How often single draws fail, with the fewest and with the most examples, and why.

    `validity`: by size, how well the negation rule predicts the labels of each draw's examples,
    and that draw's in-domain accuracy; the correlations hold together.
    """
    inside = sections.rows_at(answers, method=method, domain="in-domain")
    inside = inside[inside["shots"].isin(list(sizes))]
    draws = sections.of_draws(inside, ["shots"]).assign(
        failed=lambda one: one["accuracy"] < one["constant"] + sections.FAILED
    )
    lines = sections.spread(inside, ["shots"]).set_index("shots")
    few, many = min(sizes), max(sizes)
    share = draws[draws["shots"] == few]["failed"].mean()
    level = 1 - 0.05 / max(1, len(validity))
    found = {size: stats.correlation(*pair, level=level) for size, pair in validity.items()}
    if share == 0:
        claim = f"With {few:,} examples no draw of {method} fails"
    elif share == 1:
        claim = f"With {few:,} examples every draw of {method} fails"
    else:
        failures = lines["failed draws"][few]
        claim = f"With {few:,} examples {method} is a lottery: {failures} draws fail"
    if clear := [f"{size:,}" for size, r in found.items() if r.lo > 0]:
        claim += (
            f"; with {joined(clear)} examples, draws in which the negation rule holds more often "
            "do better"
        )
    told = [
        f"With {size:,} examples {lines['failed draws'][size]} draws fail; the median draw has an "
        f"accuracy of {lines['median draw'][size]}, and they run from "
        f"{lines['lowest to highest'][size]}."
        for size in dict.fromkeys([few, many])
    ]
    told.append(
        f"A draw fails if its accuracy is less than {sections.FAILED:.2f} above a constant's."
    )
    if found:
        told.append(
            "The correlation of a draw's accuracy with how well the negation rule predicts its "
            f"labels is {sections.correlations(found)}."
        )
    return Conclusion(
        f"{claim}.",
        " ".join(told),
        "draws are balanced between the labels, so that the rule mostly holds as often as there "
        "are negated examples; unbalanced draws would spread further.",
    )


def price(costs: Mapping[str, Mapping[str, float]], context: str, without: str) -> Conclusion:
    """What an answer costs with the context in the prompt and without, and after how many it pays.

    `costs`: by method, the `tokens` that an answer reads if each prompt is read whole, its FLOPs
    (`answer`), the FLOPs before the first answer (`adapt`), the `seconds` for a thousand answers as
    measured, with the demonstrations read once for all of them, and those to adapt (`training`).
    """
    reads, alone = costs[context]["tokens"], costs[without]["tokens"]
    saved = costs[context]["answer"] - costs[without]["answer"]
    limit = (
        "operations leave attention out; seconds are of this machine and of many queries at once, "
        "and have no interval; the search for a learning rate is not counted."
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
    slower = (costs[context]["seconds"] - costs[without]["seconds"]) / 1_000
    paid = f"after {costs[without]['training'] / slower:,.0f}" if slower > 0 else "never"
    return Conclusion(
        f"{context} needs no training, but an answer takes {_times(ratio)} the operations that it "
        f"takes after {without} if every prompt is read whole, and {_times(cached)} the seconds if "
        "the demonstrations are read once for many queries.",
        f"{tokens} Training has paid after {after:,.0f} answers in operations, if prompts are read "
        f"whole; in seconds, with the demonstrations read once, {paid}.",
        limit,
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def _measured(
    answers: pd.DataFrame, value: str, places: Places, clusters: str = ""
) -> dict[str, stats.Interval]:
    """The interval of `value` of each method; they hold together."""
    level = 1 - 0.05 / max(1, len(places))
    return {
        name: stats.interval(sections.chosen(answers, value, clusters=clusters, **at), level=level)
        for name, at in places.items()
    }


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _gap(name: str, gap: stats.Interval) -> str:
    """A difference and whose it is, with what would have been shown where none is."""
    would = f"; {stats.number(gap.detectable)} would have been shown"
    return f"{gap} ({name}{would * bool(sections.unresolved(gap))})"


def _would(gap: stats.Interval) -> str:
    """Beside a difference that is not shown: what would have been."""
    shown = f" ({stats.number(gap.detectable)} would have been shown)"
    return shown * bool(sections.unresolved(gap))


def _auc(name: str, area: stats.Interval) -> str:
    """An AUC and whose it is, with what would have been shown where none above chance is."""
    null = area.lo <= 0.5 <= area.hi
    would = f"; {stats.number(0.5 + area.detectable)} would have been shown" if null else ""
    return f"{area} ({name}{would})"


def _few(found: Iterable[stats.Interval]) -> str:
    """Where nothing can be shown because there are too few draws, that is answers."""
    if not any(i.draws and i.draws < stats.FEWEST for i in found):
        return ""
    return f" Below {stats.FEWEST} draws there is no interval, and nothing is claimed."


def _capital(name: str) -> str:
    """The name at the beginning of a sentence."""
    return name[:1].upper() + name[1:]


def joined(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]
