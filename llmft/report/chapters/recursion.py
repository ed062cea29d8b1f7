"""The figures, tables and paragraphs of the chapter on recursion.

`arms` are the recursions side by side, `method` being what the chapter calls them and `rounds` the
round; `main` has their in-domain answers with scores, and `agreement`: 1 where the first teacher's
is the same. `scoring` says whether the student was asked alone ("") or behind the context
("context"), as those of round 1 are, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from llmft import LeftOutError
from llmft.nli import tasks
from llmft.params import Study
from llmft.report import conclusions, figures, sections, stats
from llmft.report.chapters.context_distillation import one_sided
from llmft.study import grids, metrics
from llmft.study.results import Results


INSIDE = tasks.DOMAINS[0]

LIVE, ANCHORED = "live", "anchored"

WEIGHTS = ("all weights", "LoRA")

RATES = {"learning rate": ".2g"}
"""How a table shows a learning rate."""

SCORES = {"correct": "accuracy", "auc": "AUC"}

At = dict[str, Any]
"""Columns of answers and the value that each has."""


def cells(study: Study) -> dict[str, tuple[float, str]]:
    """By group of runs its learning rate and its arm: those that the study makes."""
    made, rate = grids.recursion(study), study.distill_learning_rate
    found = {f"recursion, {arm}": (rate, arm) for arm in grids.ARMS}
    slow = rate * grids.RATES[0]
    found |= {f"recursion, {arm}, slow": (slow, arm) for arm in grids.ARMS}
    return {group: cell for group, cell in found.items() if group in made}


def with_arms(results: Results, studies: Sequence[Study]) -> list[Study]:
    """The studies that made recursions; says which groups of runs one left out.

    Raises:
        LeftOutError: none made any.
    """
    arms_and_rates = [f"recursion, {arm}{slow}" for arm in grids.ARMS for slow in ("", ", slow")]
    sections.having(
        results, studies, *arms_and_rates, *(f"recursion by rate, {w}" for w in WEIGHTS)
    )
    found = [study for study in studies if results.has(f"recursion, {LIVE}", study.study)]
    if not found:
        raise LeftOutError("no study here has runs of recursion: take them out of its `without`")
    return found


def arms(results: Results, studies: Sequence[Study]) -> Results:
    """The arms' runs. The first round of one that only differs later is the live recursion's."""
    found = sections.by_method(
        results, studies, lambda study: {group: arm for group, (_, arm) in cells(study).items()}
    )

    def whole(frame: pd.DataFrame) -> pd.DataFrame:
        first = sections.rows_at(frame, method=LIVE, rounds=1).drop(columns="method")
        made = frame[["study", "learning_rate", "method"]].drop_duplicates()
        later = made[~made["method"].isin([LIVE, grids.PRACTISED])]
        return pd.concat([frame, first.merge(later)], ignore_index=True)

    return Results(whole(found.rows), whole(found.predictions), found.groups)


def with_agreement(answers: pd.DataFrame, results: Results) -> pd.DataFrame:
    """In-domain answers with `agreement`: 1 where the first teacher, of the same draw, agrees."""
    inside = sections.rows_at(answers, domain=INSIDE)
    return sections.agreeing(inside, results.part("ICL").predictions)


def last(main: pd.DataFrame) -> int:
    """The last round."""
    return int(main["rounds"].max())


def at(method: str, rate: float, number: int, scoring: str = "") -> At:
    """A round's students."""
    return {
        "method": method,
        "learning_rate": rate,
        "rounds": number,
        "scoring": scoring,
    }


def change(
    main: pd.DataFrame, method: str, rate: float, level: float, value: str = "correct"
) -> stats.Interval:
    """Last round minus first, paired."""
    a, b = (at(method, rate, number) for number in (last(main), 1))
    return sections.difference(main, a, b, value, level)


def changes(
    main: pd.DataFrame, study: Study, value: str = "correct"
) -> dict[tuple[float, str], stats.Interval]:
    """`change` by rate and arm; the intervals hold together."""
    made = cells(study).values()
    level = stats.together(len(made))
    return {(rate, arm): change(main, arm, rate, level, value) for rate, arm in made}


def _round_cells(
    main: pd.DataFrame, method: str, rate: float, numbers: Sequence[int]
) -> dict[str, str]:
    """Cells of a table: the accuracy of rounds of these numbers."""
    return {f"round {n}": str(sections.interval(main, **at(method, rate, n))) for n in numbers}


# --- the mechanism -----------------------------------------------------------------------------


def mechanism(found: Results, main: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """By round and arm: how often teacher and student agree with the first teacher; accuracy.

    A row of panels each, a panel a learning rate.
    """
    by = ["study", "rate", "method", "rounds"]
    rows, alone = (
        sections.rows_at(frame, scoring="").assign(rate=_rate) for frame in (found.rows, main)
    )
    rows = rows.assign(agreement=rows["teacher_agreement"])
    points = pd.concat(
        [
            stats.over_draws(rows, by, "agreement").assign(measure="teacher agrees"),
            stats.summary(alone, by, "agreement").assign(measure="student agrees"),
            stats.summary(alone, by, "correct").assign(measure="accuracy"),
        ]
    )
    places = points[["study", "measure", "rate"]].drop_duplicates()
    floors = _floors(studies).assign(measure="accuracy").merge(places)
    return figures.curve(
        points.assign(panel=sections.panel(points, "measure", "rate")),
        "rounds",
        "method",
        facet="panel",
        chance=None,
        doublings=False,
        rules=floors.assign(panel=sections.panel(floors, "measure", "rate")),
        x_title="round",
        y_title="share of pairs",
        note=stats.caption(points),
        height=220,
    )


def _rate(frame: pd.DataFrame) -> pd.Series:
    """The learning rates as a panel's heading has them."""
    return frame["learning_rate"].map("at {:.2g}".format)


def _floors(studies: Sequence[Study]) -> pd.DataFrame:
    """In-domain accuracy of what needs no language model: study, rule, accuracy."""
    return sections.rows_at(sections.each(studies, sections.without_model), domain=INSIDE)


@sections.table_by_study(RATES)
def fidelity(found: Results, main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """By rate and arm: how near the last student, and its teacher, are to the first teacher."""
    for rate, arm in cells(study).values():
        rows = sections.rows_at(found.rows, **at(arm, rate, last(main)))
        yield {
            "learning rate": rate,
            "recursion": arm,
            "its teacher's agreement": sections.over(rows["teacher_agreement"]),
            "its own": sections.over(rows["first_agreement"]),
            "KL to its teacher": sections.over(rows["held_out_kl"]),
            "KL to the first": sections.over(rows["first_kl"]),
            "perplexity of text": conclusions.perplexity(rows["text_nll"]),
            "draws": len(rows),
        }


@sections.text_by_study
def lag(found: Results, _study: Study) -> str:
    """Say how near a live student is to what its teacher says."""
    later = found.rows[(found.rows["method"] == LIVE) & (found.rows["rounds"] > 1)]
    shares = later["teacher_agreement"]
    apart = (later["first_agreement"] - shares).abs().groupby(later["data_seed"]).mean()
    return (
        "After round 1, the teachers of the live recursion agree with the first one on "
        f"{stats.number(shares.min())} to {stats.number(shares.max())} of held-out queries, by "
        "draw, rate and round. From that share the agreement of their own student, asked alone, "
        f"differs by {sections.over(apart.rename('agreement'))} on average over rates and rounds."
    )


# --- what the rounds change --------------------------------------------------------------------


@sections.table_by_study(RATES)
def accuracy(found: Results, main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy by round, rate and arm; last minus first, and the same of the AUC."""
    end, areas = last(main), changes(main, study, "auc")
    for (rate, arm), gap in changes(main, study).items():
        rows = sections.rows_at(found.rows, **at(arm, rate, end))
        yield (
            {"learning rate": rate, "recursion": arm}
            | _round_cells(main, arm, rate, range(1, end + 1))
            | sections.beside(f"{end} minus 1", gap)
            | {
                f"AUC, {end} minus 1": str(areas[rate, arm]),
                "one-sided draws": one_sided(rows["in_domain_share_entailment"]),
                "n": gap.n,
            }
        )


@sections.text_by_study
def verdict(main: pd.DataFrame, study: Study) -> str:
    """Say, rate by rate, which recursions lose, stay and gain from the first round to the last."""
    gaps, heads, parts = changes(main, study), [], []
    for rate in dict.fromkeys(rate for rate, _ in gaps):
        own = {arm: gap for (of, arm), gap in gaps.items() if of == rate}
        heads.append(f"at a learning rate of {rate:.2g} accuracy {_kinds(own)}")
        each = "; ".join(f"{arm} {gap}{sections.unresolved(gap)}" for arm, gap in own.items())
        parts.append(f"At {rate:.2g}: {each}.")
    return (
        f"**From round 1 to round {last(main)}, {'; '.join(heads)}.** {' '.join(parts)} "
        f"These {len(gaps)} intervals hold together."
    )


def _kinds(gaps: Mapping[str, stats.Interval]) -> str:
    """Of which arms accuracy falls, rises, or stays, and of which neither is shown."""
    kinds: dict[str, list[str]] = {}
    for arm, gap in gaps.items():
        kind = "is not shown to change"
        if max(-gap.lo, gap.hi) < conclusions.MARGIN:
            kind = f"stays within {conclusions.MARGIN:g}"
        if gap.lo > 0 or gap.hi < 0:
            kind = "rises" if gap.lo > 0 else "falls"
        kinds.setdefault(kind, []).append(arm)
    if len(kinds) == 1:
        return f"{next(iter(kinds))} in any arm"
    return conclusions.joined(
        [f"{kind} ({conclusions.joined(arms)})" for kind, arms in kinds.items()]
    )


@sections.text_by_study
def follows(results: Results, found: Results, _study: Study) -> str:
    """Say, draw by draw, how a student's accuracy goes with its teacher's agreement."""
    rows, ranks = _last_students(found), _ranks(found)
    if not ranks:
        return ""
    agrees, right = rows["teacher_agreement"], rows["in_domain_accuracy"]
    middle = agrees.median()
    low, high = (stats.number(right[side].mean()) for side in (agrees <= middle, agrees > middle))
    called = results.part("ICL").rows["in_domain_share_entailment"]
    share = min(called.min(), 1 - called.max())
    return (
        f"A student of round {last(found.rows)} is the more accurate the nearer its teacher was "
        f"to the first one: {ranks}. The half of the {len(rows)} students whose teachers "
        f"agree least, on at most {stats.number(middle)} of the held-out queries, have a mean "
        f"accuracy of {low}, the others of {high}. One answer to all pairs may agree with the "
        f"first teacher on {stats.number(share)} to {stats.number(1 - share)}: such an agreement "
        "says no more than which answer that is."
    )


def _last_students(found: Results) -> pd.DataFrame:
    """The rows of the last round's students, asked alone."""
    return sections.rows_at(found.rows, scoring="", rounds=last(found.rows))


def _ranks(found: Results) -> str:
    """Spearman's correlation of accuracy with the teacher's agreement, over arms and rates.

    Nothing where either is the same in every arm.
    """
    both = ["teacher_agreement", "in_domain_accuracy"]
    by_draw = [
        own[both[0]].corr(own[both[1]], method="spearman")
        for _, own in _last_students(found).groupby("data_seed")
        if own[both].nunique().min() > 1
    ]
    if not by_draw:
        return ""
    mean = stats.t_interval(by_draw, bounds=(-1.0, 1.0))
    return (
        "within a draw, over arms and rates, Spearman's correlation of a student's accuracy with "
        f"its teacher's agreement is {mean} (mean over {mean.n} draws)"
    )


@sections.text_by_study
def why_it_gains(main: pd.DataFrame, study: Study) -> str:
    """Say, for the low rate, what a second round gives, and what of it the live teacher gives."""
    rate = study.distill_learning_rate * grids.RATES[0]
    if not {(rate, LIVE), (rate, ANCHORED)} <= {*cells(study).values()}:
        return ""
    one, two = (at(LIVE, rate, number) for number in (1, 2))
    anchored = at(ANCHORED, rate, 2)
    pairs = {"live": (two, one), "more": (anchored, one), "gap": (two, anchored)}
    live, more, gap = sections.differences(main, pairs).values()
    told = "a second round is not shown to help"
    if live.lo > 0 and more.lo > 0:
        told = "a second round helps, with the first teacher, too: it is more training"
    if live.lo > 0 and gap.lo > 0:
        told = "a second round helps with the live teacher, and more than with the first"
    return (
        f"At a learning rate of {rate:.2g}, {told}. In accuracy, round 2 minus round 1 is "
        f"{live} with the live teacher and {more} with the first one; the live one's minus "
        f"that of the first is {gap}{sections.unresolved(gap)}. These three hold together."
    )


@sections.text_by_study
def bias(main: pd.DataFrame, study: Study) -> str:
    """Say, by rate, whether the live recursion's loss is one of the threshold alone."""
    rates, end = [rate for rate, arm in cells(study).values() if arm == LIVE], last(main)
    live = sections.rows_at(main, method=LIVE, scoring="")
    moved, parts = metrics.with_scores(_calibrated(live)), []
    for rate in rates:
        plain, corrected, area = (
            change(answers, LIVE, rate, stats.together(3 * len(rates)), value)
            for answers, value in ((live, "correct"), (moved, "correct"), (live, "auc"))
        )
        told = "no loss of accuracy is shown"
        if plain.hi < 0:
            told = "the loss of accuracy is not shown to be more than a lean to one label"
        if corrected.hi < 0 and area.hi < 0:
            told = "the loss of accuracy is more than a lean to one label"
        parts.append(
            f"At {rate:.2g} {told}: from round 1 to round {end} accuracy changes by {plain}, "
            f"after batch calibration by {corrected}{sections.unresolved(corrected)}, and the "
            f"AUC, which no threshold moves, by {area}{sections.unresolved(area)}."
        )
    return f"{' '.join(parts)} These {3 * len(rates)} intervals hold together."


def _calibrated(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of one domain, each run's after batch calibration."""
    parts = []
    for _, own in answers.groupby("key", sort=False):
        logp = own[metrics.LOGP].to_numpy()
        found = pd.DataFrame(metrics.calibrate(logp, logp), own.index, metrics.LOGP)
        parts.append(own.assign(**found))
    return pd.concat(parts)


AS_PUBLISHED = "as published"

VARIANTS = {
    "recursion by rate, all weights": AS_PUBLISHED,
    "recursion, as published, slow": AS_PUBLISHED,
} | {f"recursion, {name}": name for name in grids.VARIANTS}
"""The groups of runs in which the live recursion has other losses, and what these are called."""


def _of_variants(
    results: Results, study: Study
) -> tuple[Results, pd.DataFrame, list[tuple[float, str]]]:
    """The runs with other losses, their in-domain answers, and their rates and losses."""
    found = sections.by_method(results, [study], lambda _: VARIANTS)
    found = Results(  # two groups have the published loss, and share runs
        found.rows.drop_duplicates("key"),
        found.predictions.drop_duplicates(["key", "domain", "id"]),
        found.groups,
    )
    answers = sections.rows_at(sections.scored(found), domain=INSIDE)
    rates = [study.distill_learning_rate * share for share in (1.0, grids.RATES[0])]
    run = {*zip(found.rows["learning_rate"], found.rows["method"], strict=True)}
    places = [(rate, name) for rate in rates for name in dict.fromkeys(VARIANTS.values())]
    return found, answers, [place for place in places if place in run]


@sections.where_run(*VARIANTS)
@sections.table_by_study(RATES)
def variants(results: Results, study: Study) -> Iterator[dict[str, Any]]:
    """The live recursion with other divergences, and without the text term, by rate."""
    found, answers, places = _of_variants(results, study)
    end, level = last(answers), stats.together(len(places))
    for rate, name in places:
        right, area = (change(answers, name, rate, level, value) for value in SCORES)
        rows = sections.rows_at(found.rows, **at(name, rate, end))
        yield (
            {"learning rate": rate, "loss": name}
            | _round_cells(answers, name, rate, (1, end))
            | sections.beside(f"{end} minus 1", right)
            | {
                f"AUC, {end} minus 1": str(area),
                "its teacher's agreement": sections.over(rows["teacher_agreement"]),
                "n": right.n,
            }
        )


Changes = dict[tuple[float, str], stats.Interval]
"""By rate and loss, what the loss changes after the last round."""


def loss_changes(results: Results, study: Study) -> tuple[Changes, Changes]:
    """Accuracy and AUC after the last round, minus those with the published loss; all together."""
    _, answers, places = _of_variants(results, study)
    end = last(answers)
    pairs = {
        (rate, name): (at(name, rate, end), at(AS_PUBLISHED, rate, end))
        for rate, name in places
        if name != AS_PUBLISHED
    }
    level = stats.together(len(SCORES) * len(pairs))
    right, area = (sections.differences(answers, pairs, value, level) for value in SCORES)
    return right, area


@sections.where_run(*VARIANTS)
@sections.text_by_study
def other_losses(results: Results, study: Study) -> str:
    """Say what another loss changes after the last round, by rate."""
    gaps, areas = loss_changes(results, study)
    parts = []
    for rate in dict.fromkeys(rate for rate, _ in gaps):
        own = [
            f"{name} {gap}{sections.unresolved(gap)} in accuracy, {areas[of, name]}"
            f"{sections.unresolved(areas[of, name])} in AUC"
            for (of, name), gap in gaps.items()
            if of == rate
        ]
        parts.append(f"At {rate:.2g}: {'; '.join(own)}.")
    return (
        f"**{conclusions.capital(_shown_of(gaps))}.** This is after the last round, with another "
        f"loss minus with the published one. {' '.join(parts)} These {2 * len(gaps)} intervals "
        "hold together."
    )


def _shown_of(gaps: Changes) -> str:
    """Which losses are shown to end more, or less, accurate than the published one."""
    more = [f"{name} at {rate:.2g}" for (rate, name), gap in gaps.items() if gap.lo > 0]
    less = [f"{name} at {rate:.2g}" for (rate, name), gap in gaps.items() if gap.hi < 0]
    return (
        "of other losses, shown to end more accurate than the published one: "
        f"{conclusions.joined(more or ['none'])}; less: {conclusions.joined(less or ['none'])}"
    )


# --- learning rates ----------------------------------------------------------------------------


def by_rate(results: Results, studies: Sequence[Study]) -> Results:
    """The live recursion at each rate; `method` is what it changes, `rate` the rate's name."""
    groups = {f"recursion by rate, {weights}": weights for weights in WEIGHTS}
    there = {group: name for group, name in groups.items() if group in results.groups}
    found = sections.by_method(results, studies, lambda _: there)

    def named(frame: pd.DataFrame) -> pd.DataFrame:
        rate = frame["learning_rate"]
        share = rate / rate.groupby([frame["study"], frame["method"]]).transform("max")
        called = {1.0: "published rate"} | {s: f"{s:g} of it" for s in grids.RATES if s < 1}
        ordered = frame.assign(rate=share.round(6).map(called))
        return ordered.sort_values("learning_rate", ascending=False, kind="stable")

    return Results(named(found.rows), named(found.predictions), found.groups)


def rates_figure(found: Results, studies: Sequence[Study]) -> Any:
    """In-domain accuracy by round, a line a learning rate, a panel for what is changed."""
    if found.rows.empty:
        return None
    inside = sections.rows_at(sections.scored(found), domain=INSIDE)
    points = sections.summary(inside, ["study", "method", "rate", "rounds"])
    points = points.sort_values("method", key=lambda m: m.map(WEIGHTS.index), kind="stable")
    floors = _floors(studies).merge(points[["study", "method"]].drop_duplicates())
    return figures.curve(
        points.assign(panel=sections.panel(points, "method")),
        "rounds",
        "rate",
        facet="panel",
        doublings=False,
        rules=floors.assign(panel=sections.panel(floors, "method")),
        x_title="round",
        note=stats.caption(points),
    )


def rates_table(found: Results, studies: Sequence[Study]) -> None:
    """By rate: how near round 1 is to the teacher, and what the later rounds change."""
    if found.rows.empty:
        return
    answers = sections.rows_at(sections.scored(found), domain=INSIDE)
    _rates(found.rows, answers, studies)
    _nearest(found.rows, answers, studies)


def _by_rate(
    rows: pd.DataFrame, answers: pd.DataFrame
) -> dict[tuple[str, float], tuple[pd.DataFrame, stats.Interval]]:
    """By what is changed and rate: the rows of round 1, and what the later rounds change."""
    first = sections.rows_at(rows, rounds=1)
    places: Any = first.groupby(["method", "learning_rate"])
    level = stats.together(len(places))
    return {
        (weights, rate): (own, change(answers, weights, rate, level))
        for (weights, rate), own in sorted(places, key=lambda one: WEIGHTS.index(one[0][0]))
    }


@sections.table_by_study(RATES)
def _rates(rows: pd.DataFrame, answers: pd.DataFrame, _study: Study) -> list[dict[str, Any]]:
    return [
        {
            "student": weights,
            "learning rate": rate,
            "KL, round 1": sections.over(own["held_out_kl"]),
            "agreement, round 1": sections.over(own["held_out_agreement"]),
        }
        | _round_cells(answers, weights, rate, (1,))
        | sections.beside(f"{last(answers)} minus 1", gap)
        | {"n": gap.n}
        for (weights, rate), (own, gap) in _by_rate(rows, answers).items()
    ]


@sections.text_by_study
def _nearest(rows: pd.DataFrame, answers: pd.DataFrame, _study: Study) -> str:
    """Say which rate would be chosen by fidelity, and what the rounds change there."""
    found, parts = _by_rate(rows, answers), []
    for weights in dict.fromkeys(weights for weights, _ in found):
        kl = {
            rate: own["held_out_kl"].mean() for (w, rate), (own, _) in found.items() if w == weights
        }
        rate = min(kl, key=lambda one: kl[one])
        parts.append(
            f"for {weights} that is {rate:.2g}, where rounds 1 to {last(answers)} change accuracy "
            f"by {found[weights, rate][1]}"
        )
    end = last(answers)
    pairs = {}
    for weights in dict.fromkeys(weights for weights, _ in found):
        rates = [rate for of, rate in found if of == weights]
        pairs[weights] = at(weights, min(rates), end), at(weights, max(rates), end)
    gaps = sections.differences(answers, pairs)
    each = [f"{gap}{sections.unresolved(gap)} for {weights}" for weights, gap in gaps.items()]
    return (
        "By fidelity alone, the lowest KL of round 1 on held-out queries, the rate would be "
        f"chosen so: {'; '.join(parts)} (the differences of the table hold together). After round "
        f"{end}, accuracy at the lowest rate minus that at the highest is "
        f"{conclusions.joined(each)} (jointly)."
    )


# --- the context once more ---------------------------------------------------------------------


@sections.text_by_study
def reprompted(results: Results, main: pd.DataFrame, study: Study) -> str:
    """Say what the context does for a student of round 1 that has it in its weights already."""
    places = [cell for cell in cells(study).values() if cell[1] in (LIVE, grids.PRACTISED)]
    pairs = {(rate, arm): (at(arm, rate, 1, "context"), at(arm, rate, 1)) for rate, arm in places}
    parts, gains = [], []
    for (rate, arm), gap in sections.differences(main, pairs).items():
        where = f"at {rate:.2g}, " + ("not trained" if arm == LIVE else "trained") + " behind it"
        parts.append(f"{gap}{sections.unresolved(gap)} {where}")
        if gap.lo > 0:
            gains.append(f"{where}, {_beyond_teacher(results, main, at(arm, rate, 1, 'context'))}")
    return (
        "With the context in its prompt once more, the accuracy of a student of round 1 minus "
        f"its own without is {'; '.join(parts)}. These hold together. "
        f"It gains {conclusions.joined(gains) or 'nowhere'}."
    )


def _beyond_teacher(results: Results, main: pd.DataFrame, student: At) -> str:
    """What a student has beyond its teacher, with the context in the prompts of both."""
    teacher = sections.rows_at(sections.scored(results.part("ICL"), "icl"), domain=INSIDE)
    answers = pd.concat([main, teacher], ignore_index=True)
    gap = sections.difference(answers, student, {"method": "icl"})
    return f"where its accuracy minus its teacher's is {gap}{sections.unresolved(gap)}"


@sections.findings_by_study
def summary(results: Results, found: Results, main: pd.DataFrame, study: Study) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    gaps, end = changes(main, study), last(main)
    for rate in dict.fromkeys(rate for rate, _ in gaps):
        own = {arm: gap for (of, arm), gap in gaps.items() if of == rate}
        widest = stats.number(max(gap.detectable for gap in own.values()))
        yield (
            f"At a learning rate of {rate:.2g}, from round 1 to round {end}, in-domain accuracy "
            f"{_kinds(own)}; in any arm {widest} would have been shown with 80 % power."
        )
    if all(results.has(name, study.study) for name in VARIANTS):
        yield f"{conclusions.capital(_shown_of(loss_changes(results, study)[0]))}."
    if ranks := _ranks(found):
        yield f"{conclusions.capital(ranks)}."
