"""Conclusions as functions from results to sentences, so that no claim can outlive its evidence.

Each function looks at intervals, says what they show (better, worse, or not shown to differ), the
numbers that it rests on, and what it does not show. `answers` has a row a run and query
(`sections.scored`), `method` being the method's name in the chapter. Comparisons that one sentence
makes together hold together (Bonferroni): all of them are true with the confidence that it states.
Beside a difference that is not shown stands the smallest one that the design would have shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from llmft.report import sections, stats
from llmft.report.stats import Interval


MARGIN = 0.05
"""Accuracies that differ by less than this are called equal where an interval shows it."""

FAR = 2.0
"""With a perplexity shown to be lower by more than this factor, far less is forgotten."""

MILLION = 1_000_000
"""A ratio beyond it, or below one over it, is not printed to the digit."""

Place = Mapping[str, Any]
"""The columns, and their values, by which a method's rows are found."""

Name = TypeVar("Name")


@dataclass(frozen=True)
class Conclusion:
    """A claim, the numbers that it rests on, and what it does not show.

    On the book's first page, which has some of them: the `answer` in a clause, the claim with its
    one `number`, and what to `use` it for.
    """

    claim: str
    evidence: str
    limit: str
    number: str = ""
    use: str = ""
    answer: str = ""

    def __str__(self) -> str:
        return f"**{self.claim}** {self.evidence} *Limit:* {self.limit}"


# --- what an interval shows --------------------------------------------------------------------


def verdict(interval: Interval, above: str, below: str, otherwise: str) -> str:
    """`above` where the interval lies above zero, `below` where below, else `otherwise`."""
    return above if interval.lo > 0 else below if interval.hi < 0 else otherwise


def sides(found: Mapping[Name, Interval], null: float = 0.0) -> tuple[list[Name], ...]:
    """Whose interval lies above `null`, whose below, and whose does neither."""
    above = [name for name, one in found.items() if one.lo > null]
    below = [name for name, one in found.items() if one.hi < null]
    return above, below, [name for name in found if name not in (*above, *below)]


def _measured(
    answers: pd.DataFrame, value: str, places: Mapping[str, Place], clusters: str = ""
) -> dict[str, Interval]:
    """The interval of `value` of each method; they hold together."""
    level = stats.together(len(places))
    return {
        name: stats.interval(sections.chosen(answers, value, clusters=clusters, **at), level=level)
        for name, at in places.items()
    }


def _would(found: Interval, null: float = 0.0) -> str:
    """What would have been shown, if the interval does not leave out `null`."""
    if not found.lo <= null <= found.hi:
        return ""
    return f"{stats.number(null + found.detectable)} would have been shown"


def _unless_shown(found: Interval) -> str:
    """In parentheses, what would have been shown, if the interval does not leave out zero."""
    return f" ({_would(found)})" if _would(found) else ""


def _listed(found: Mapping[str, Interval], null: float = 0.0) -> str:
    """The intervals, each with whose it is and with what would have been shown."""
    parts = []
    for name, one in found.items():
        about = f"{name}; {_would(one, null)}" if _would(one, null) else name
        parts.append(f"{one} ({about})")
    return joined(parts)


def _span(found: Mapping[str, Interval]) -> str:
    """The lowest and the highest interval, each with whose it is."""
    ends = sorted(found, key=lambda name: found[name].mean)
    first, last = ends[0], ends[-1]
    text = f"{found[first]} ({first})"
    return f"{text} to {found[last].text} ({last})" if first != last else text


def _few(found: Iterable[Interval]) -> str:
    """Where nothing can be shown because there are too few draws, that is answers."""
    if not any(i.draws and i.draws < stats.FEWEST for i in found):
        return ""
    return f" Below {stats.FEWEST} draws there is no interval, and nothing is claimed."


def _notes(found: Iterable[Interval]) -> str:
    """That several intervals hold together, or that there are too few draws for any."""
    found = list(found)
    together = len(found) > 1 and any(np.isfinite(one.lo) for one in found)
    return " The intervals compared here hold together." * together + _few(found)


# --- words -------------------------------------------------------------------------------------


def joined(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _subject(names: Sequence[str], verb: str, plural: str) -> str:
    """The names with the verb's form that goes with so many: "a is", "a and b are"."""
    return f"{joined(names)} {verb if len(names) == 1 else plural}"


def capital(text: str) -> str:
    """The text, its first letter a capital."""
    return text[:1].upper() + text[1:]


def _uneven(rehearsed: str, limit: str) -> str:
    """A limit, behind what is not even-handed, if anything."""
    return f"{rehearsed} {capital(limit)}" if rehearsed else limit


# --- accuracy ----------------------------------------------------------------------------------


def floors(
    answers: pd.DataFrame,
    places: Mapping[str, Place],
    classifier: Place,
    cue: str,
    right: float,
    pool: int,
) -> Conclusion:
    """Are the methods above a classifier on surface cues that was trained on the same labels?

    `cue`: the name of the single cue that is best in the `pool` labels of the training pool, and
    how often it is `right` on the same pairs.
    """
    own, size = sections.chosen(answers, **classifier), classifier["shots"]
    level = stats.together(2 * len(places))
    gaps, areas = (
        {
            name: sections.difference(answers, at, classifier, value, level)
            for name, at in places.items()
        }
        for value in ("correct", "auc")
    )
    above, below, _ = sides(gaps)
    if above:
        claim = f"In-domain with {size:,} labels, {_subject(above, 'is', 'are')} more accurate"
    elif len(below) == len(gaps):
        claim = f"In-domain, every method given {size:,} labels is less accurate"
    else:
        claim = f"In-domain with {size:,} labels, no method is shown to be more accurate"
    use = f"With {size:,} labels, try a classifier on a few features of the sentences first."
    best = _subject(above, "beats", "beat") if above else "no method is shown to beat"
    return Conclusion(
        f"{claim} than a classifier on surface cues that was trained on the same labels.",
        f"The classifier has {stats.interval(own).text} (draws × pairs). The single cue *{cue}* is "
        f"right on {right:.2f}, but all {pool:,} labels of the training pool chose it. Method "
        f"minus classifier on the same draws and pairs, in accuracy: {_listed(gaps)}; in AUC, "
        f"which a lean to one answer does not change: {_listed(areas)}.{_notes(gaps.values())}",
        "the classifier is given cues that somebody thought of; a model has to find its own.",
        f"Accuracy minus the classifier's: {_span(gaps)}. AUC minus its: {_span(areas)}.",
        "" if above else use,
        f"with {size:,} labels {best} a small classifier on surface cues",
    )


def best(
    answers: pd.DataFrame, places: Mapping[str, Place], where: str, rehearsed: str = ""
) -> Conclusion:
    """Which method is the most accurate, and which of the others are not shown to differ from it.

    `rehearsed`: what of the comparison is not even-handed, in a sentence, if anything.
    """
    samples = {name: sections.chosen(answers, **at) for name, at in places.items()}
    first, gaps = stats.best(samples)
    below, _, rest = sides(gaps)
    claim = f"{where}, {first} is the most accurate method."
    parts = [f"{capital(first)} has {stats.interval(samples[first]).text} (draws × pairs)."]
    if below:
        parts.append(f"It is above {joined([f'{name} by {gaps[name]}' for name in below])}.")
    if rest:
        others = joined(rest) if below else "any other method"
        claim = (
            f"{where}, {first} has the highest accuracy, and is not shown to differ from {others}."
        )
        equal = {name: gaps[name] for name in rest}
        parts.append(f"Its accuracy minus that of the others is {_listed(equal)}.")
    if any(np.isfinite(gap.lo) for gap in gaps.values()):
        parts.append("The differences are paired, and hold together with those of all other pairs.")
    tuned = (
        "learning rates were searched on few validation draws, so that near ties may come from "
        "the search."
    )
    return Conclusion(claim, " ".join(parts) + _few(gaps.values()), _uneven(rehearsed, tuned))


def contrast(
    gaps: Mapping[str, tuple[Interval, Interval, Interval]],
    cues: Mapping[str, Interval],
    demonstrations: str,
    training: str,
    more: bool,
    rehearsed: str = "",
) -> Conclusion:
    """Training against demonstrations, by the AUC, in each domain.

    `gaps`: by domain, demonstrations minus zero-shot, training minus zero-shot, and training minus
    demonstrations; `cues`: training minus the cue classifier on the same labels; those of a domain
    hold together. `demonstrations`, `training`: what the two are called; `more`: whether training
    has more labels; `rehearsed`: what else is not even-handed, in a sentence, if anything.
    """
    sentences, every = [], [*cues.values(), *(gap for three in gaps.values() for gap in three)]
    for domain, three in gaps.items():
        own, other, apart = (f"{gap}{_unless_shown(gap)}" for gap in three)
        sentences.append(
            f"{capital(domain)} (n = {three[2].n}), the AUC with {demonstrations} minus "
            f"zero-shot's is {own}, that after {training} minus zero-shot's {other}, minus that "
            f"with {demonstrations} {apart}, and minus that of a cue classifier trained on the "
            f"same labels {cues[domain]}{_unless_shown(cues[domain])}."
        )
    better, worse, rest = sides({domain: apart for domain, (_, _, apart) in gaps.items()})
    clauses = [
        f"ranks {joined(domains)} pairs {word} than {demonstrations} do"
        for word, domains in (("better", better), ("worse", worse))
        if domains
    ]
    if rest:
        how = "any differently" if clauses else f"differently from {demonstrations}"
        clauses.append(f"is not shown to rank {' or '.join(rest)} pairs {how}")
    if any(np.isfinite(gap.lo) for gap in every):
        sentences.append("The differences of a domain hold together.")
    parts = [f"{d} {apart.text}{_unless_shown(apart)}" for d, (_, _, apart) in gaps.items()]
    number = f"AUC after {training} minus that with {demonstrations}: {'; '.join(parts)}."
    if "in-domain" in cues:
        cue = cues["in-domain"]
        number += f" In-domain, minus a cue classifier's: {cue}{_unless_shown(cue)}."
    use = f"{capital(training)} is worth it where queries are like the training pairs"
    if "in-domain" in cues and not cues["in-domain"].lo > 0:
        use += ", unless a classifier on a few features does as well"
    if "out-of-domain" in (*worse, *rest):
        use += "; elsewhere no gain over demonstrations is shown"
    limits = [f"training has more labels than {demonstrations}"] * more
    if len(gaps) > 1:
        limits.append("the out-of-domain pairs are one kind of shift from the training pairs")
    limit = "; ".join(limits or ["another model may differ"]) + "."
    first = next(iter(gaps))
    beats = verdict(gaps[first][2], "beats", "loses to", "is not shown to differ from")
    return Conclusion(
        f"{capital(training)} {' and '.join(clauses)}.",
        " ".join(sentences) + _few(every),
        _uneven(rehearsed, limit),
        number,
        f"{use}." if "in-domain" in better else "",
        f"{first}, {training} {beats} {demonstrations}",
    )


def holds(gaps: Mapping[str, Interval], studies: int) -> str:
    """Which of so many studies show a claim; `gaps`: a difference by study, where there is one.

    The claim is that the difference is above zero.
    """
    yes, no, rest = sides(gaps)
    if not yes and not no:
        return "not shown either way"
    every = "in both" if studies == 2 else "in all"
    clauses = [
        before + (every if len(names) == studies else f"in {joined(names)}")
        for before, names in (("", yes), ("the reverse ", no), ("not shown either way ", rest))
        if names
    ]
    return "; ".join(clauses)


# --- out-of-domain, and what was learned -------------------------------------------------------


def beyond(
    answers: pd.DataFrame, places: Mapping[str, Place], where: str, classifier: Place
) -> Conclusion:
    """Does any method rank out-of-domain pairs better than chance, and is it one answer to all?

    By the AUC, because a lean to one answer moves the accuracy and not the AUC.
    """
    these, new = _measured(answers, "auc", places), {}
    if sections.has_subcases(answers):
        new = _measured(answers, "auc", places, clusters="subcase")
    above, below, _ = sides(these, 0.5)
    claim = f"{where}, no method is shown to rank the pairs better than chance"
    if above:
        claim = f"{where}, {_subject(above, 'ranks', 'rank')} the pairs better than chance"
        holds = [name for name in above if new and new[name].lo > 0.5]
        if new and len(holds) < len(above):
            claim += ", on these constructions"
            claim += f" (on new ones, {joined(holds)} alone)" * bool(holds)
    if below:
        claim += f", and {_subject(below, 'ranks', 'rank')} them worse than chance"
    evidence = f"The AUC is {_listed(these, 0.5)}"
    if new:
        others = [
            f"[{stats.number(i.lo)}, {stats.number(i.hi)}] ({name})"
            for name, i in new.items()
            if np.isfinite(i.lo)
        ]
        some = sections.rows_at(answers, **next(iter(places.values())))["subcase"].nunique()
        found = joined(others) if others else "has no interval"
        evidence += (
            f" for other pairs of these constructions, and {found} for new ones ({some} were tried)"
        )
    area = sections.interval(answers, "auc", **classifier)
    use = (
        "Where the shortcuts of the training data mislead, trust none of these methods before you "
        "have tested it on such pairs."
    )
    return Conclusion(
        f"{claim}.",
        f"{evidence}.{_notes(these.values())} The cue classifier's is {area}."
        + _constant(answers, places),
        "these pairs are one kind of shift from the training pairs; others may differ.",
        f"AUC: {_span(these)}; a constant has 0.50.",
        "" if above else use,
        "where the shortcuts of the training data fail, "
        + (_subject(above, "ranks", "rank") if above else "none is shown to rank")
        + " the pairs better than chance",
    )


def _constant(answers: pd.DataFrame, places: Mapping[str, Place]) -> str:
    """Which methods have become a constant in most of their draws, in a sentence, if any have."""
    found = []
    for name, at in places.items():
        called = sections.of_draws(sections.rows_at(answers, **at), ["domain"])["called"]
        constant = (called > 0.9) | (called < 0.1)
        if constant.mean() > 0.5:
            found.append(f"{name} ({constant.sum()} of {len(called)})")
    if not found:
        return ""
    return (
        " Methods that in most draws give more than nine in ten pairs one answer, and so have "
        f"nearly a constant's accuracy: {joined(found)}."
    )


def rule(answers: pd.DataFrame, places: Mapping[str, Place], classifier: Place) -> Conclusion:
    """Is what was learned more than whether a negation is there?

    `answers` has the columns of `sections.with_rule`. What the `classifier` reaches on the pairs
    without negation shows what there was to learn. Asked only where the rule is one: where it
    speaks, and its answer there (not entailed) is shown to be right more often than not (Wilson).
    """
    pairs = sections.rows_at(answers, **next(iter(places.values()))).drop_duplicates("id")
    quiet = pairs["silent"].astype(bool)
    spoken, words = pairs[~quiet]["label"], "negation is known by a list of words."
    if spoken.empty:
        claim = "In-domain there is no negation rule to learn."
        return Conclusion(claim, "In none of the pairs is a sentence negated.", words)
    sound = stats.wilson(int(spoken.sum()), len(spoken))
    evidence = (
        f"In {len(spoken):,} of {len(pairs):,} pairs at least one sentence is negated; {sound} of "
        "these pairs are not entailed"
    )
    if sound.lo <= 0.5:
        claim = "In-domain, negation is not shown to say anything of the label."
        return Conclusion(claim, f"{evidence}.", words)
    right = float((pairs["label"] == (~quiet).astype(int)).mean())
    follows = _measured(answers, "follows", places)
    evidence += (
        f"; the rule “not entailed if either sentence is negated” is right on {right:.2f} of all "
        "pairs. Predictions agree with it on "
        f"{joined([f'{one} ({name})' for name, one in follows.items()])}. "
    )
    if pairs[quiet]["label"].nunique() < 2:
        claim = "In-domain, these pairs cannot show whether more than negation was used."
        evidence += "All pairs without negation have one label, so that there is no AUC."
    else:
        silent = answers[answers["silent"].astype(bool)]
        left = _measured(silent, "auc_silent", places)
        more, _, _ = sides(left, 0.5)
        none = "no method is" if len(left) > 1 else f"{next(iter(left))} is not"
        users = _subject(more, "uses", "use") if more else f"{none} shown to use"
        claim = f"In-domain, {users} more than the presence of a negation."
        area = sections.interval(silent, "auc_silent", **classifier)
        evidence += (
            f"Among the {int(quiet.sum()):,} pairs without negation the AUC is "
            f"{_listed(left, 0.5)}. The cue classifier's is {area} there."
        )
    return Conclusion(
        claim,
        evidence + _notes(follows.values()),
        "agreement with a rule is not proof of it: another cue may go with it on these pairs.",
    )


# --- LoRA and distillation ---------------------------------------------------------------------


def low_rank(
    answers: pd.DataFrame, lora: Place, full: Place, sizes: Sequence[int], share: float
) -> Conclusion:
    """LoRA against full fine-tuning of the same samples, at every number of examples.

    `lora`, `full`: where their rows are, but for the size; the intervals hold together. `share`:
    of the weights that LoRA trains.
    """
    level = stats.together(len(sizes))
    gaps = {
        k: sections.difference(answers, {**lora, "shots": k}, {**full, "shots": k}, level=level)
        for k in sizes
    }
    better, worse, rest = sides(gaps)
    same = [k for k in rest if max(-gaps[k].lo, gaps[k].hi) < MARGIN]
    rest = [k for k in rest if k not in same]

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
    claim = f"not shown to differ from full fine-tuning, nor to equal it within {MARGIN:.2f}"
    if known:
        claim = joined(known)
        claim += f"; {counted(rest)} neither a difference nor equality is shown" * bool(rest)
    evidence = joined([f"{gap} {counted([k])}" for k, gap in gaps.items()])
    able = sorted(gap.detectable for gap in gaps.values() if np.isfinite(gap.detectable))
    if able:
        ends = dict.fromkeys(stats.number(end) for end in (able[0], able[-1]))
        evidence += f". The smallest difference that would have been shown is {' to '.join(ends)}"
    return Conclusion(
        f"LoRA, with {share:.1%} of the weights, is {claim}.",
        f"LoRA minus full, in-domain accuracy: {evidence}.{_notes(gaps.values())}",
        "each at its own learning rate; at the other's, either may fail. Where both follow one "
        "cue, equality is partly that of a ceiling; where neither has learned, that of a floor.",
    )


def distillation(
    answers: pd.DataFrame, student: Place, teacher: Place, start: Place, queries: int
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
        claim = "Distillation is not shown to keep the context's gain."
        if share.lo > 0:
            much = "nearly all" if share.lo > 0.8 else "most" if share.lo > 0.5 else "a part"
            claim = f"Distillation moves {much} of the context's in-domain gain into the weights."
        evidence = (
            f"With {queries:,} unlabelled queries the student keeps {share} of it; the student's "
            f"accuracy minus the teacher's is {gap.text}{sections.unresolved(gap)}."
        )
    limit = "the context holds demonstrations of one task; instructions and documents may differ."
    return Conclusion(claim, evidence + _few([gain]), limit)


def recursion(change: Interval, rounds: int, learning_rate: float, divergence: Any) -> Conclusion:
    """Whether further rounds of distillation improve, hold, or spoil the student.

    `change`: in-domain accuracy of the last round minus the first; `divergence`: KL of the last
    round's students to the first teacher, nats, one a draw.
    """
    does = verdict(
        change,
        "improves the student",
        "spoils the student",
        "is not shown to change the student's accuracy",
    )
    kl = stats.t_interval(divergence, bounds=stats.bounds_of("kl"))
    return Conclusion(
        "Recursive distillation as done here (no anchor to the first teacher, a learning rate of "
        f"{learning_rate:g}, the context before the query again in each round) {does}.",
        f"From round 1 to round {rounds}, in-domain accuracy changes by {change.text}"
        f"{sections.unresolved(change)}; the KL of the last student to the first teacher is {kl} "
        f"nats on held-out queries.{_few([change])}",
        "another learning rate, an anchor, or a student that also practises with the context may "
        "well change this; these runs try none of them.",
    )


# --- what is forgotten -------------------------------------------------------------------------


def perplexity(nll: Any, start: float = 0.0) -> str:
    """The exponential of a mean loss, with Student's interval taken on the log scale.

    `nll`: nats a token, one a draw; `start` is subtracted first, so that it is a factor.
    """
    values = np.asarray(nll, dtype=np.float64) - start
    if np.ptp(values) == 0:
        return _power(values[0])
    found = stats.t_interval(values)
    if np.isfinite(found.lo):
        return f"{_power(found.mean)} [{_power(found.lo)}, {_power(found.hi)}]"
    span = f"{_power(values.min())} to {_power(values.max())}"
    return f"{_power(found.mean)} ({found.draws} draws: {span})"


def _power(nats: float) -> str:
    """The exponential with two decimals, fewer of larger numbers, or three digits."""
    value = float(np.exp(nats))
    if value >= 1_000:
        value = float(f"{value:.3g}")
    return stats.number(value, 2 if value < 10 else 1 if value < 100 else 0)


def factor(log: float) -> str:
    """The exponential of a difference of logarithms; a limit where it is beyond a million."""
    if not np.isfinite(log):
        return "–"
    if abs(log) > np.log(MILLION):
        return f"> {MILLION:,}" if log > 0 else f"< 1/{MILLION:,}"
    if log > np.log(0.1):
        return _power(log)
    return np.format_float_positional(np.exp(log), 2, unique=False, fractional=False, trim="k")


def ratio(log: Interval) -> str:
    """A difference of logarithms as a ratio with its interval, or the range of few draws."""
    mean, lo, hi, lowest, highest = (
        factor(value) for value in (log.mean, log.lo, log.hi, log.lowest, log.highest)
    )
    if np.isfinite(log.lo):
        return f"{mean} [{lo}, {hi}]"
    return f"{mean} ({log.draws} draws: {lowest} to {highest})"


def power(gaps: Iterable[Interval], logs: bool = False) -> str:
    """Behind comparisons: what those that hold zero would have shown; of `logs`, as ratios."""
    limits = sorted(gap.detectable for gap in gaps if gap.lo <= 0 <= gap.hi)
    if not limits:
        return ""
    what, text = ("ratio", factor) if logs else ("difference", stats.number)
    ends = list(dict.fromkeys(text(limit) for limit in (limits[0], limits[-1])))
    start = f"a true {what}" if len(ends) == 1 else f"true {what}s"
    return (
        f" ({start} of {' to '.join(ends)}{' either way' * logs} would have been shown with 80 % "
        "power)"
    )


def forgetting(
    nll: Mapping[tuple[str, str], Any], start: float, accuracy: Mapping[str, Interval]
) -> Conclusion:
    """What the text term and what the method does to sentences that the model could predict before.

    The text term is the loss on the words of the pairs themselves, beside that on the answers.

    `nll`: by method and text term ("without", "with"), the negative log-likelihood of plain
    sentences, nats a token, one a draw, in the same order of draws; `start`: before training;
    `accuracy`: by method, what the term changes in accuracy. A difference is Student's over draws,
    on the log scale; all hold together.
    """
    values = {key: np.asarray(own, dtype=np.float64) for key, own in nll.items()}
    order = sorted(accuracy, key=lambda method: float(values[method, "without"].mean()))
    # The term's effect by method, and every two methods: which are the extremes, the data say.
    level = stats.together(len(order) * (len(order) + 1) / 2)
    effects = {m: stats.t_interval(values[m, "without"] - values[m, "with"], level) for m in order}
    clauses = _effects(effects)
    if len(order) > 1:
        apart = stats.t_interval(values[order[-1], "without"] - values[order[0], "without"], level)
        if apart.lo > 0:
            clauses.append(f"without it, {order[-1]} as trained here forgets more than {order[0]}")
    without, with_term = (
        joined([f"{perplexity(values[m, term], start)} ({m})" for m in order])
        for term in ("without", "with")
    )
    able = [
        f"{stats.number(float(np.exp(gap.detectable)), 1)} ({method})"
        for method, gap in effects.items()
        if gap.lo <= 0 <= gap.hi
    ]
    would = f" A change by a factor of {joined(able)} would have been shown." * bool(able)
    return Conclusion(
        f"{capital('; '.join(clauses))}.",
        f"The perplexity of plain sentences is {_power(start)} before training. Without the text "
        f"term it is multiplied by {without}; with it, by {with_term}. It changes in-domain "
        f"accuracy by {_listed(accuracy)}.{would}{_notes(effects.values())}",
        "each method has its own learning rate, number of examples read, and targets, so these "
        "runs do not show how much of a difference between methods is due to the method itself. "
        "The sentences are premises like those trained on; other text may fare worse.",
    )


def _effects(effects: Mapping[str, Interval]) -> list[str]:
    """What the text term does to each method, in clauses; `effects`: nats without minus with."""
    less, more, rest = sides(effects)
    if not less and not more:
        return ["the text term is not shown to change how much is forgotten"]
    clauses = []
    if less:
        who = _subject(less, "forgets", "forget")
        if len(less) == len(effects) > 1:
            who = "every trained method forgets"
        far = "far " * all(effects[method].lo > np.log(FAR) for method in less)
        clauses.append(f"with the text term, {who} {far}less than without it")
    if more:
        who = _subject(more, "forgets", "forget")
        clauses.append(f"with the text term, {who} more than without it")
    return clauses + [f"no change is shown for {joined(rest)}"] * bool(rest)


# --- the luck of the draw, and the price -------------------------------------------------------


def luck(
    answers: pd.DataFrame, method: str, sizes: Sequence[int], validity: Mapping[int, Interval]
) -> Conclusion:
    """How often single draws fail, with the fewest and with the most examples, and why.

    `validity`: by size, the correlation of a draw's in-domain accuracy with how well the negation
    rule predicts the labels of its examples (`sections.luck_by_size`).
    """
    inside = sections.rows_at(answers, method=method, domain="in-domain")
    lines = sections.spread(inside, ["shots"]).set_index("shots")
    few, many = min(sizes), max(sizes)
    failed = sections.of_draws(sections.rows_at(inside, shots=few), ["shots"])["failed"]
    does = f"{method} is a lottery: {lines['failed draws'][few]} draws fail"
    if failed.all() or not failed.any():
        does = f"{'every' if failed.all() else 'no'} draw of {method} fails"
    claim = f"With {few:,} examples {does}"
    if clear := [f"{size:,}" for size, r in validity.items() if r.lo > 0]:
        claim += (
            f"; with {joined(clear)} examples, draws in which the negation rule holds more often "
            "do better"
        )
    sentences = [
        f"With {size:,} examples {lines['failed draws'][size]} draws fail; the median draw has an "
        f"accuracy of {lines['median draw'][size]}, and they run from "
        f"{lines['lowest to highest'][size]}."
        for size in dict.fromkeys([few, many])
    ]
    sentences.append(
        f"A draw fails if its accuracy is less than {sections.FAILED:.2f} above a constant's."
    )
    if validity:
        sentences.append(
            "The correlation of a draw's accuracy with how well the negation rule predicts its "
            f"labels is {sections.correlations(validity)}.{_notes(validity.values())}"
        )
    return Conclusion(
        f"{claim}.",
        " ".join(sentences),
        "draws are balanced between the labels, so that the rule mostly holds as often as there "
        "are negated examples; unbalanced draws would spread further.",
    )


def price(costs: pd.DataFrame, context: str, without: str, size: int) -> Conclusion:
    """What an answer costs with the context in the prompt and without, and after how many it pays.

    `costs`: a row a method with `size` examples, which is the index; the columns of
    `comparison.costs`.
    """
    prompt, weights = costs.loc[context], costs.loc[without]
    saved, slower = (prompt[c] - weights[c] for c in ("answer", "1,000 answers (s)"))
    ratio, cached = (prompt[c] / weights[c] for c in ("answer", "1,000 answers (s)"))
    after = max(0.0, weights["adapt"] - prompt["adapt"]) / saved
    paid = f"after {1_000 * weights['to adapt (s)'] / slower:,.0f}" if slower > 0 else "never"
    return Conclusion(
        f"{context} needs no training, but with {size:,} demonstrations an answer takes "
        f"{_times(ratio)} as many operations as after {without} if every prompt is read whole. If "
        "the demonstrations are read once for many queries, it takes "
        f"{_times(cached)} as many seconds.",
        f"An answer reads {prompt['tokens an answer']:,.0f} tokens with the demonstrations in its "
        f"prompt and {weights['tokens an answer']:,.0f} without. The cost of training is "
        f"recovered, counted in operations, after {after:,.0f} answers, if prompts are read whole; "
        f"counted in seconds, with the demonstrations read once, {paid}.",
        "operations leave attention out; seconds are of this machine and of many queries at once, "
        "and have no interval; the search for a learning rate is not counted.",
        f"The cost of training on {size:,} examples is recovered after {after:,.0f} answers, "
        "counted in operations, if the demonstrations are read again for each.",
        "With demonstrations and many queries, read the demonstrations once and keep them; "
        "training pays only where it is shown to be as good.",
    )


def _times(ratio: Any) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
