"""The figures, tables and paragraphs of the chapter on recursion and placebos.

`arms` are the recursions side by side, `method` being what the chapter calls them and `rounds` the
round; `main` has their answers with scores, and `agreement`: 1 where the first teacher's is the
same. `scoring` says whether the student was asked alone ("") or behind the context ("context").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmft import LeftOutError
from llmft.engine.spec import PLACEBOS
from llmft.nli import tasks
from llmft.params import Study
from llmft.report import conclusions, figures, sections, stats
from llmft.report.chapters.context_distillation import ONE_SIDED
from llmft.study import baselines, grids, metrics
from llmft.study.results import Results, by_domain


INSIDE = tasks.DOMAINS[0]

LIVE, ANCHORED = "live", "anchored"

WEIGHTS = ("all weights", "LoRA")

TRUE = "demonstrations"
"""What the chapter calls the true context beside placebos."""

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
    """The answers with `agreement`: 1 where the first teacher, of the same draw, says the same."""
    return sections.agreeing(answers, results.part("ICL").predictions)


def last(main: pd.DataFrame) -> int:
    """The last round."""
    return int(main["rounds"].max())


def at(study: Study, method: str, rate: float, number: int, scoring: str = "") -> At:
    """In-domain answers of a round's students."""
    return {
        "study": study.study,
        "domain": INSIDE,
        "method": method,
        "learning_rate": rate,
        "rounds": number,
        "scoring": scoring,
    }


def _runs(found: Results, study: Study, method: str, rate: float, number: int) -> pd.DataFrame:
    """The rows of a round's students, asked alone."""
    cell = at(study, method, rate, number)
    return sections.rows_at(found.rows, **{k: cell[k] for k in cell if k != "domain"})


# --- the mechanism -----------------------------------------------------------------------------


def mechanism(main: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """By round and arm: agreement with the first teacher alone and behind the context; accuracy.

    A row of panels each, a panel a learning rate.
    """
    inside = sections.rows_at(main, domain=INSIDE)
    inside = inside.assign(rate=inside["learning_rate"].map("at {:.2g}".format))
    by = ["study", "rate", "method", "rounds"]
    shown = {
        "agreement alone": ("", "agreement"),
        "agreement behind": ("context", "agreement"),
        "accuracy": ("", "correct"),
    }
    points = pd.concat(
        sections.summary(sections.rows_at(inside, scoring=scoring), by, value).assign(measure=name)
        for name, (scoring, value) in shown.items()
    )
    places = points[["study", "measure", "rate"]].drop_duplicates()
    floors = sections.each(studies, _floors).assign(measure="accuracy").merge(places)
    return figures.curve(
        points.assign(panel=sections.panel(points, "measure", "rate")),
        "rounds",
        "method",
        facet="panel",
        chance=None,
        doublings=False,
        rules=floors.assign(panel=sections.panel(floors, "measure", "rate")),
        x_title="round",
        y_title="share of test pairs",
        note=stats.caption(points),
        height=220,
    )


def _floors(study: Study) -> pd.DataFrame:
    """In-domain accuracy of what needs no language model: rule, accuracy."""
    task, names_of = sections.task_of(study), ["rule", "accuracy"]
    found = sections.rows_at(baselines.floors(task), domain=INSIDE)[names_of]
    answers = baselines.classifier(task, [study.context_shots], grids.draws(study))
    inside = sections.rows_at(metrics.with_scores(answers), domain=INSIDE)
    classifier = pd.DataFrame([(baselines.CLASSIFIER, inside["correct"].mean())], columns=names_of)
    return pd.concat([found, classifier], ignore_index=True)


def fidelity(found: Results, main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """By rate and arm: how near the last student, and its teacher, are to the first teacher."""
    lines, end = [], last(main)
    for study in studies:
        for rate, arm in cells(study).values():
            rows = _runs(found, study, arm, rate, end)
            lines.append(
                {
                    "study": study.study,
                    "learning rate": rate,
                    "recursion": arm,
                    "its teacher's agreement": sections.over(rows["teacher_agreement"]),
                    "its own": sections.over(rows["first_agreement"]),
                    "KL to its teacher": sections.over(rows["held_out_kl"]),
                    "KL to the first": sections.over(rows["first_kl"]),
                    "perplexity of text": conclusions.perplexity(rows["text_nll"]),
                    "draws": len(rows),
                }
            )
    sections.table(lines, {"learning rate": ".2g"})


def lag(main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say how near a live student is to what the one before it said behind the context."""
    by = ["study", "learning_rate", "data_seed", "rounds"]
    live = sections.rows_at(main, domain=INSIDE, method=LIVE)
    behind, alone = (
        sections.rows_at(live, scoring=scoring).groupby(by)["agreement"].mean().rename(name)
        for scoring, name in (("context", "behind"), ("", "alone"))
    )
    after = alone.reset_index().assign(rounds=lambda frame: frame["rounds"] - 1)
    pairs = behind.reset_index().merge(after, on=by)

    def text(study: Study) -> str:
        own = sections.rows_at(pairs, study=study.study)
        span = " to ".join(map(stats.number, (own["behind"].min(), own["behind"].max())))
        apart = (own["alone"] - own["behind"]).abs().groupby(own["data_seed"]).mean()
        return (
            "Behind the context, live students that have a next round agree with the first teacher "
            f"on {span} of the pairs, by draw, rate and round. From that share the next student's "
            f"agreement, asked alone, differs by {sections.over(apart.rename('agreement'))} on "
            "average over rates and rounds."
        )

    sections.headed(studies, text)


# --- what the rounds change --------------------------------------------------------------------


def changes(
    main: pd.DataFrame, study: Study, value: str = "correct"
) -> dict[tuple[float, str], stats.Interval]:
    """Last round minus first, by rate and arm, in-domain, paired; the intervals hold together."""
    made, end = cells(study).values(), last(main)
    level = stats.together(len(made))
    return {
        (rate, arm): sections.difference(
            main, at(study, arm, rate, end), at(study, arm, rate, 1), value, level
        )
        for rate, arm in made
    }


def accuracy(found: Results, main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Accuracy by round, rate and arm; last minus first, and the same of the AUC."""
    single, end = by_domain(found.rows), last(main)
    lines = []
    for study in studies:
        areas = changes(main, study, "auc")
        for (rate, arm), gap in changes(main, study).items():
            rows = sections.rows_at(single, **at(study, arm, rate, end))
            share = np.maximum(rows["share_entailment"], 1 - rows["share_entailment"])
            line = {"study": study.study, "learning rate": rate, "recursion": arm}
            for number in range(1, end + 1):
                cell = sections.interval(main, **at(study, arm, rate, number))
                line[f"round {number}"] = str(cell)
            line |= {
                f"{end} minus 1": str(gap),
                "shown from": stats.number(gap.detectable),
                f"AUC, {end} minus 1": str(areas[rate, arm]),
                "one-sided draws": f"{int((share > ONE_SIDED).sum())} of {len(rows)}",
                "n": gap.n,
            }
            lines.append(line)
    sections.table(lines, {"learning rate": ".2g"})


def _does(gaps: Mapping[str, stats.Interval]) -> dict[str, list[str]]:
    """The names by what is shown of them: a fall, a rise, or neither; each with its interval."""
    found: dict[str, list[str]] = {"falls": [], "rises": [], "is not shown to change": []}
    for name, gap in gaps.items():
        kind = "falls" if gap.hi < 0 else "rises" if gap.lo > 0 else "is not shown to change"
        found[kind].append(f"{name} ({gap}{sections.unresolved(gap)})")
    return {kind: names for kind, names in found.items() if names}


def verdict(found: Results, main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say which recursions lose, hold and gain, and whether the last teachers tell them apart."""

    def text(study: Study) -> str:
        gaps, end, parts = changes(main, study), last(main), []
        for rate in dict.fromkeys(rate for rate, _ in gaps):
            kinds = _does({arm: gap for (of, arm), gap in gaps.items() if of == rate})
            some = "; ".join(f"accuracy {kind}: {', '.join(a)}" for kind, a in kinds.items())
            parts.append(f"At a learning rate of {rate:.2g}, from round 1 to round {end}, {some}.")
        kept: dict[bool, list[float]] = {True: [], False: []}
        for (rate, arm), gap in gaps.items():
            rows = _runs(found, study, arm, rate, end)
            kept[gap.hi < 0].append(rows["teacher_agreement"].mean())
        head = _separated(kept[True], kept[False], end)
        return f"{head} {' '.join(parts)} All of these hold together."

    sections.headed(studies, text)


def _separated(lost: Sequence[float], others: Sequence[float], end: int) -> str:
    """The sentence that says whether the last teacher's agreement goes with a loss."""
    what = f"the teacher of round {end} agrees with the first teacher on"
    spans = [
        stats.number(min(own)) + f" to {stats.number(max(own))}" * (len(own) > 1)
        for own in (lost, others)
        if own
    ]
    if not lost:
        return f"**No recursion is shown to lose accuracy; {what} {spans[0]} of held-out queries.**"
    if not others:
        return f"**Every recursion loses accuracy; {what} {spans[0]} of held-out queries.**"
    told = "How far its teacher has left the first one does not by itself tell where accuracy falls"
    if max(lost) < min(others):
        told = "Accuracy is shown to fall where the teacher has left the first one farthest"
    return (
        f"**{told}: {what} {spans[0]} of held-out queries where it does, and on {spans[1]} "
        "where it is not shown to.**"
    )


def why_it_gains(main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say, for the low rate, what a second round gives, and what of it the live teacher gives."""
    needed = {f"recursion, {arm}, slow" for arm in (LIVE, ANCHORED)}

    def text(study: Study) -> str:
        if not needed <= {*cells(study)}:
            return ""
        rate = study.distill_learning_rate * grids.RATES[0]
        one, two = (at(study, LIVE, rate, number) for number in (1, 2))
        anchored, level = at(study, ANCHORED, rate, 2), stats.together(3)
        live, more, gap = (
            sections.difference(main, a, b, level=level)
            for a, b in ((two, one), (anchored, one), (two, anchored))
        )
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

    sections.headed(studies, text)


def bias(main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say, by rate, whether the live recursion's loss is one of the threshold alone."""

    def text(study: Study) -> str:
        rates, end = [rate for rate, arm in cells(study).values() if arm == LIVE], last(main)
        live = sections.rows_at(main, study=study.study, domain=INSIDE, method=LIVE, scoring="")
        moved, level = metrics.with_scores(_calibrated(live)), stats.together(3 * len(rates))
        parts = []
        for rate in rates:
            a, b = (at(study, LIVE, rate, number) for number in (end, 1))
            plain, area = (sections.difference(live, a, b, v, level) for v in ("correct", "auc"))
            corrected = sections.difference(moved, a, b, level=level)
            told = "no loss is shown"
            if plain.hi < 0:
                told = "the loss is not shown to be more than a lean to one label"
            if corrected.hi < 0 and area.hi < 0:
                told = "the loss is more than a lean to one label"
            parts.append(
                f"At {rate:.2g} {told}: from round 1 to round {end} accuracy changes by {plain}, "
                f"after batch calibration by {corrected}{sections.unresolved(corrected)}, and the "
                f"AUC, which no threshold moves, by {area}{sections.unresolved(area)}."
            )
        return f"{' '.join(parts)} These {3 * len(rates)} intervals hold together."

    sections.headed(studies, text)


def _calibrated(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of one domain, each run's after batch calibration."""
    parts = []
    for _, own in answers.groupby("key", sort=False):
        logp = own[metrics.LOGP].to_numpy()
        found = pd.DataFrame(metrics.calibrate(logp, logp), own.index, metrics.LOGP)
        parts.append(own.assign(**found))
    return pd.concat(parts)


def variants(results: Results, studies: Sequence[Study]) -> None:
    """The live recursion with other divergences, and without the text term, at both rates."""
    usual = "as published"
    names_of = {"recursion by rate, all weights": usual}
    names_of |= {f"recursion, {name}": name for name in grids.VARIANTS}
    studies = sections.having(results, studies, *names_of)
    lines = []
    for study in studies:
        part = sections.by_method(results, [study], lambda _: names_of)
        answers = sections.scored(part)
        rates = [study.distill_learning_rate * share for share in (1.0, grids.RATES[0])]
        made = [(rate, name) for rate in rates for name in names_of.values()]
        end, level = last(answers), stats.together(len(made))
        for rate, name in made:
            a, b = (at(study, name, rate, number) for number in (end, 1))
            right, area = (sections.difference(answers, a, b, v, level) for v in SCORES)
            rows = sections.rows_at(
                part.rows, study=study.study, method=name, learning_rate=rate, rounds=end
            )
            lines.append(
                {
                    "study": study.study,
                    "learning rate": rate,
                    "loss": name,
                    "round 1": str(sections.interval(answers, **b)),
                    f"round {end}": str(sections.interval(answers, **a)),
                    f"{end} minus 1": str(right),
                    "shown from": stats.number(right.detectable),
                    f"AUC, {end} minus 1": str(area),
                    "its teacher's agreement": sections.over(rows["teacher_agreement"]),
                    "n": right.n,
                }
            )
    if lines:
        sections.table(lines, {"learning rate": ".2g"})


# --- learning rates ----------------------------------------------------------------------------


def by_rate(results: Results, studies: Sequence[Study]) -> Results:
    """The live recursion at each rate; `method` is what it changes, `rate` the rate's name."""
    groups = {f"recursion by rate, {weights}": weights for weights in WEIGHTS}
    there = {group: name for group, name in groups.items() if group in results.groups}
    found = sections.by_method(results, studies, lambda _: there)
    shown = {
        (study.study, weights): base
        for study in studies
        for weights, base in zip(
            WEIGHTS, (study.distill_learning_rate, study.lora_learning_rate), strict=True
        )
    }

    def named(frame: pd.DataFrame) -> pd.DataFrame:
        base = pd.Series(list(zip(frame["study"], frame["method"], strict=True)), frame.index)
        share = frame["learning_rate"] / base.map(shown)
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
    points["method"] = pd.Categorical(points["method"], WEIGHTS)
    points = points.sort_values("method", kind="stable").assign(method=points["method"].astype(str))
    panels = points[["study", "method"]].drop_duplicates()
    floors = sections.each(studies, _floors).merge(panels)
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
    answers, lines = sections.scored(found), []
    end = last(answers)
    for study in studies:
        own = sections.rows_at(found.rows, study=study.study, rounds=1)
        made = [*own[["method", "learning_rate"]].drop_duplicates().itertuples(index=False)]
        level = stats.together(len(made))
        for weights, rate in sorted(made, key=lambda one: (WEIGHTS.index(one[0]), one[1])):
            rows = sections.rows_at(own, method=weights, learning_rate=rate)
            a, b = (at(study, weights, rate, number) for number in (end, 1))
            gap = sections.difference(answers, a, b, level=level)
            lines.append(
                {
                    "study": study.study,
                    "student": weights,
                    "learning rate": rate,
                    "KL, round 1": sections.over(rows["held_out_kl"]),
                    "agreement, round 1": sections.over(rows["held_out_agreement"]),
                    "round 1": str(sections.interval(answers, **b)),
                    f"{end} minus 1": str(gap),
                    "shown from": stats.number(gap.detectable),
                    "n": gap.n,
                }
            )
    sections.table(lines, {"learning rate": ".2g"})

    def chosen(study: Study) -> str:
        own = [line for line in lines if line["study"] == study.study]
        rows = sections.rows_at(found.rows, study=study.study, rounds=1)
        parts = []
        for weights in dict.fromkeys(line["student"] for line in own):
            kl = sections.rows_at(rows, method=weights).groupby("learning_rate")["held_out_kl"]
            rate = kl.mean().idxmin()
            line = next(x for x in own if (x["student"], x["learning rate"]) == (weights, rate))
            parts.append(
                f"for {weights} that is {rate:.2g}, where rounds 1 to {end} change accuracy by "
                f"{line[f'{end} minus 1']}"
            )
        return (
            "By fidelity alone, the lowest KL of round 1 on held-out queries, the rate would be "
            f"chosen so: {'; '.join(parts)} (the differences of the table hold together)."
        )

    sections.headed(studies, chosen)


# --- the context once more ---------------------------------------------------------------------


def reprompted(main: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say what the context does for a student of round 1 that has it in its weights already."""

    def text(study: Study) -> str:
        asked = [cell for cell in cells(study).values() if cell[1] in (LIVE, grids.PRACTISED)]
        level, parts = stats.together(len(asked)), []
        for rate, arm in asked:
            behind, alone = (at(study, arm, rate, 1, scoring) for scoring in ("context", ""))
            gap = sections.difference(main, behind, alone, level=level)
            how = "not trained behind it" if arm == LIVE else "trained behind it, too"
            parts.append(f"{gap}{sections.unresolved(gap)} at {rate:.2g}, {how}")
        return (
            "With the context in its prompt once more, the accuracy of a student of round 1 minus "
            f"its own without is {'; '.join(parts)}. These hold together."
        )

    sections.headed(studies, text)


# --- placebos ----------------------------------------------------------------------------------


def contexts(results: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """The answers of ICL and its distillation by `context`, and zero-shot's, with scores."""
    groups = {
        "zero-shot": "zero-shot",
        "ICL": "ICL",
        "placebo, icl": "ICL",
        "distillation": "distilled",
        "placebo, distillation": "distilled",
    }
    there = {group: name for group, name in groups.items() if group in results.groups}
    answers = sections.scored(sections.by_method(results, studies, lambda _: there))
    is_placebo = answers["context"].isin(PLACEBOS)
    answers["context"] = answers["context"].where(is_placebo, TRUE)
    return answers.assign(context=answers["context"].mask(answers["method"] == "zero-shot", "none"))


def placebo_figure(answers: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy by context, of in-context learning and its distillation, a block a domain."""
    points = sections.summary(answers, ["study", "domain", "context", "method"])
    return figures.forest(
        points.assign(block=sections.panel(points, "domain")),
        "context",
        "method",
        group="block",
        note=f"{stats.caption(points)}; {sections.floors_text(studies)}",
    )


def _against(
    answers: pd.DataFrame, study: Study, domain: str, value: str
) -> dict[tuple[str, str], dict[str, stats.Interval]]:
    """By method and placebo: its mean, minus the true context's, minus zero-shot's.

    The differences of a domain and a score hold together.
    """
    where = {"study": study.study, "domain": domain}
    start, found = where | {"method": "zero-shot"}, {}
    own = answers[answers["context"].isin(PLACEBOS)]
    made = own[["method", "context"]].drop_duplicates()
    level = stats.together(2 * len(made))
    for method, context in made.itertuples(index=False):
        true = where | {"method": method, "context": TRUE}
        found[method, context] = {
            "mean": sections.interval(answers, value, **true | {"context": context}),
            TRUE: sections.difference(answers, true | {"context": context}, true, value, level),
            "zero-shot": sections.difference(
                answers, true | {"context": context}, start, value, level
            ),
        }
    return found


def placebos(answers: pd.DataFrame, studies: Sequence[Study], value: str) -> None:
    """A score by context, minus the true context's and minus zero-shot's."""
    lines = []
    for study in studies:
        for domain in sections.task_of(study).domains:
            for (method, context), of in _against(answers, study, domain, value).items():
                lines.append(
                    {
                        "study": study.study,
                        "domain": domain,
                        "method": method,
                        "context": context,
                        SCORES[value]: str(of["mean"]),
                        "minus demonstrations": str(of[TRUE]),
                        "shown from": stats.number(of[TRUE].detectable),
                        "minus zero-shot": str(of["zero-shot"]),
                        "shown from (zero-shot)": stats.number(of["zero-shot"].detectable),
                        "n": of["mean"].n,
                    }
                )
    sections.table(lines)


def content(answers: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say what of a context's gain is its content's, by domain and score."""

    def text(study: Study) -> str:
        parts = []
        for domain in sections.task_of(study).domains:
            for value, score in SCORES.items():
                found = _against(answers, study, domain, value)
                for method in dict.fromkeys(method for method, _ in found):
                    own = {context: of for (name, context), of in found.items() if name == method}
                    parts.append(_content(answers, study, domain, method, value, score, own))
        return sections.bullets(parts, studies)

    sections.headed(studies, text)


def _content(
    answers: pd.DataFrame,
    study: Study,
    domain: str,
    method: str,
    value: str,
    score: str,
    own: Mapping[str, Mapping[str, stats.Interval]],
) -> str:
    """The sentence of one domain, method and score."""
    where = {"study": study.study, "domain": domain}
    gain = sections.difference(
        answers,
        where | {"method": method, "context": TRUE},
        where | {"method": "zero-shot"},
        value,
    )
    less = [name for name, of in own.items() if of[TRUE].hi < 0]
    alike = [name for name in own if name not in less]
    words = []
    if less:
        words.append(f"shown to be less with {conclusions.joined(less)}")
    if alike:
        gaps = ", ".join(f"{own[n][TRUE]}{sections.unresolved(own[n][TRUE])}" for n in alike)
        words.append(f"not shown to be less with {conclusions.joined(alike)} ({gaps})")
    return (
        f"{domain.capitalize()}, {method}: {score} minus zero-shot's is {gain} with the "
        f"demonstrations; it is {' and '.join(words)}."
    )


def summary(main: pd.DataFrame, answers: pd.DataFrame, studies: Sequence[Study]) -> None:
    """The chapter's findings in a few lines a study."""

    def lines(study: Study) -> list[str]:
        gaps, rate, end = changes(main, study), study.distill_learning_rate, last(main)
        found = [
            f"In-domain, round {end} minus round 1 at a learning rate of {rate:.2g}: "
            f"{', '.join(f'{gap} ({arm})' for (of, arm), gap in gaps.items() if of == rate)}."
        ]
        own = _against(answers, study, INSIDE, "correct")
        each = [f"{of[TRUE]} with {name}" for (method, name), of in own.items() if method == "ICL"]
        found.append(
            "In-domain, ICL's accuracy with a placebo minus that with the demonstrations is "
            f"{', '.join(each)}."
        )
        return found

    sections.findings(studies, lines)
