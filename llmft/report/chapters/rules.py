"""The figures, tables and paragraphs of the chapter on which rule a method learns.

`main` has the answers by the purity of the cue in the labelled examples, `shared` those by the
share of pairs without a cue among them; both have the cue classifier's on the same draws, too. In
both, `learned` is False where a training is not shown to have learned its own examples: of these
nothing is claimed where no effect is shown.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from llmft.nli import cues, selection, tasks
from llmft.params import Study
from llmft.report import conclusions, figures, sections, stats, tables
from llmft.report.stats import Interval
from llmft.study import baselines, grids, methods, metrics
from llmft.study.results import Results, curves


FULL = "full fine-tuning"
TRAINED_ON = ["method", "shots", "purity", "mixed", "passes"]
METHODS = ("ICL", FULL, "LoRA")

OPEN = "left open (not shown to be trained)"
"""What is said of a point where no effect is shown, and no training either."""

Name = TypeVar("Name")

Place = tuple[str, int]
"""A method and its number of examples."""

UNSEEN, SEEN = "unseen", "seen"
"""Out-of-domain constructions that no labelled example has, and those that mixed pairs have."""


def crossed(studies: Sequence[Study], folder: str) -> list[Study]:
    """The studies on the task that is in this folder of the book (`grids.crossed`).

    The chapter names it, so that other data make the chapter stale.
    """
    return [grids.crossed(study, Path(folder).name) for study in studies]


def with_purity(studies: Sequence[Study]) -> list[Study]:
    """The studies whose examples have cues of several purities; says which have not."""
    words = (
        "Its examples are real pairs as they come, so nothing is shown by the cue's purity; pairs "
        "without a cue are put among them (@sec-rules-mixed)."
    )
    sections.headed(studies, lambda study: words * (not names(study, "purity")))
    return [study for study in studies if names(study, "purity")]


def names(study: Study, axis: str) -> dict[str, str]:
    """The groups of an axis ("purity", "mixed") that the study has, and their methods."""
    found = {f"{axis}, {method}": method for method in METHODS}
    return {group: method for group, method in found.items() if group in grids.rules(study)}


def by_purity(results: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """The answers by purity, of the methods and of the cue classifier; none without studies."""
    if not studies:
        return results.predictions.iloc[:0].assign(learned=True)
    part = sections.by_method(results, studies, lambda study: names(study, "purity"))
    return _with_learned(_with_classifier(part.predictions, studies), results, studies)


def by_share(results: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """The answers by share of mixed pairs (`grids.mixing`), and of which constructions a pair is.

    The column `constructions` is `UNSEEN` or `SEEN`, and "" in-domain.
    """
    absent = "Not run for this study, and so not shown: pairs without a cue."
    sections.headed(studies, lambda study: absent * (not names(study, "mixed")))
    mixed = sections.by_method(results, studies, lambda study: names(study, "mixed"))
    both = _with_learned(_with_classifier(mixed.predictions, studies), results, studies)
    real = both["subcase"].isin(selection.SEEN).map({True: SEEN, False: UNSEEN})
    own = both["heuristic"].where(both["heuristic"].isin((SEEN, UNSEEN)), real)
    return both.assign(constructions=own.where(both["domain"] == tasks.DOMAINS[1], ""))


def _with_classifier(answers: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The answers, and after them the classifier's, trained on every draw that a method had."""
    parts, point = [answers], ["shots", "purity", "mixed"]
    for study in studies:
        own = sections.rows_at(answers, study=study.study)
        samples: Any = own.groupby(point, sort=False)
        for (shots, purity, mixed), runs in samples:
            seeds = list(runs["data_seed"].unique())
            task = sections.task_of(study)
            found = baselines.classifier(task, [shots], seeds, float(purity), float(mixed))
            key = f"{study.study} {purity} {mixed} " + found["key"]
            draw = found["data_seed"].astype(str) + "-0-0"
            about = {"study": study.study, "purity": purity, "mixed": mixed}
            parts.append(found.assign(key=key, draw=draw, **about))
    every = pd.concat(parts, ignore_index=True)
    order = every["method"].map([*METHODS, baselines.CLASSIFIER].index)
    by = ["shots", "order", "purity", "mixed"]
    return every.assign(order=order).sort_values(by, kind="stable", ignore_index=True)


def _with_learned(
    answers: pd.DataFrame, results: Results, studies: Sequence[Study]
) -> pd.DataFrame:
    """The answers with `learned`, which is True where nothing was trained, too."""
    not_shown = [
        (study.study, *place)
        for study in studies
        for place, learned in _trainings(results, study).items()
        if not learned
    ]
    places = pd.MultiIndex.from_frame(answers[["study", *TRAINED_ON[:-1]]])
    return answers.assign(learned=~places.isin(not_shown) if not_shown else True)


def where_cue(answers: pd.DataFrame, studies: Sequence[Study], *, right: bool) -> pd.DataFrame:
    """The in-domain answers, with scores, to pairs on which the cue is right, or misleads.

    `follows` is 1 where the answer is the cue's. The AUC is of these pairs alone.
    """
    parts = []
    for study in studies:
        pairs = sections.task_of(study).in_domain
        chosen = pairs["id"][cues.negation_is_right(pairs) == right]
        own = sections.rows_at(answers, study=study.study)
        parts.append(own[own["id"].isin(set(chosen))])
    if not parts:
        return answers
    scored = metrics.with_scores(pd.concat(parts, ignore_index=True))
    return scored.assign(follows=scored["correct"] if right else 1 - scored["correct"])


def out_of_domain(shared: pd.DataFrame, constructions: str = UNSEEN) -> pd.DataFrame:
    """The answers, with scores, to out-of-domain pairs of these constructions alone; "": in-domain.

    `called` is 1 where the answer is entailed.
    """
    rows = sections.rows_at(shared, constructions=constructions)
    if rows.empty:
        return rows
    called = rows[metrics.LOGP].to_numpy().argmax(axis=1) == 0
    return metrics.with_scores(rows.assign(called=called.astype(float)))


# --- the pairs ---------------------------------------------------------------------------------


def kinds(studies: Sequence[Study]) -> None:
    """An example of each kind of pair, its label, and what the cue says; how many there are."""
    if not studies:
        return
    pool = sections.task_of(studies[0]).train
    right = cues.negation_is_right(pool)
    pool = pool.assign(right=right).sort_values(["label", "right"], ascending=[True, False])
    lines = []
    for kind, own in pool.groupby("subcase", sort=False):
        pair = own.iloc[0]
        lines.append(
            {
                "kind": kind,
                "premise": pair["premise"],
                "hypothesis": pair["hypothesis"],
                "label": tasks.LABELS[pair["label"]],
                "the cue says": tasks.LABELS[int(pair["label"] == pair["right"])],
                "in the pool": len(own),
            }
        )
    tables.table(pd.DataFrame(lines))


def usual_purity(studies: Sequence[Study]) -> None:
    """Say how pure the cue is in the pocket task of the other chapters, and here."""
    if not studies:
        return
    usual = methods.task_of("pocket", 0).train
    here = sections.task_of(studies[0])
    share = stats.number(float(cues.negation_is_right(usual).mean()))
    tested = int((~cues.negation_is_right(here.in_domain)).sum())
    tables.say(
        f"In the training pool of the other chapters the cue is right on {share} of the pairs. Of "
        f"the {len(here.in_domain):,} in-domain test pairs here it misleads on {tested:,}, half of "
        "them entailed."
    )


def families() -> None:
    """HANS's subcases by what they are made with, and whether examples are of these."""
    lines = []
    for family, subcases in selection.FAMILIES.items():
        own = subcases.split()
        of_label = {
            name: ", ".join(one for one in own if one[1] == mark) or "–"
            for name, mark in zip(tasks.LABELS, "en", strict=True)
        }
        side = SEEN if {*own} <= selection.SEEN else UNSEEN
        lines.append({"made with": family, "constructions": side, **of_label})
    tables.table(pd.DataFrame(lines))


@sections.text_by_study
def without_cue(shared: pd.DataFrame, study: Study) -> str:
    """Say how many pairs without a cue there are to train on and to score."""
    if shared.empty:
        return ""
    number = shared.groupby("constructions")["id"].nunique()
    return (
        f"{len(sections.task_of(study).mixed):,} pairs without a cue are there to train on; "
        f"{number[UNSEEN]:,} of unseen constructions and {number[SEEN]:,} of seen ones are scored."
    )


# --- purity ------------------------------------------------------------------------------------


def _sized(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows, fewest examples first, with the `panel` of their study and number of examples."""
    frame = frame.iloc[np.lexsort((frame["shots"], pd.factorize(frame["study"])[0]))]
    size = frame["shots"].map("{:,} examples".format)
    return frame.assign(panel=sections.panel(frame.assign(size=size), "size"))


def _figure(rows: pd.DataFrame, x: str, value: str, **options: Any) -> Any:
    """A value along an axis of shares, a line a method, a panel a number of examples."""
    sized = _sized(rows)
    points = sections.summary(sized, ["panel", "method", x], value)
    return figures.curve(
        points, x, "method", facet="panel", doublings=False, note=stats.caption(points), **options
    )


def following(misled: pd.DataFrame) -> Any:
    """Share of answers that follow the cue where it misleads, against its purity."""
    if misled.empty:
        return None
    return _figure(
        misled,
        "purity",
        "follows",
        x_title="purity of the cue in the labelled examples",
        y_title="share that follows the cue",
        chance_name="neither",
    )


def _detectable(summary: pd.DataFrame) -> list[float]:
    """The smallest true distance that would have been shown, by row of a summary."""
    return [Interval(*row).detectable for row in summary[list(stats.FIELDS)].to_numpy()]


def following_table(misled: pd.DataFrame, answers: pd.DataFrame, studies: Sequence[Study]) -> None:
    """By method, size and purity: what is followed, by label too; where the cue is right; AUC."""
    if misled.empty:
        return
    by = ["study", "method", "shots", "purity"]
    inside = metrics.with_scores(sections.rows_at(answers, domain=tasks.DOMAINS[0]))
    right = where_cue(answers, studies, right=True)
    of_label = {
        f"follows, {name}": sections.summary(sections.rows_at(misled, label=label), by, "follows")
        for label, name in enumerate(("entailed", "not entailed"))
    }
    followed = sections.summary(misled, by, "follows")
    wide = sections.columns(
        by,
        {
            "follows the cue": followed,
            **of_label,
            "accuracy where the cue is right": sections.summary(right, by),
            "AUC, all pairs": sections.summary(inside, by, "auc"),
        },
    )
    wide.insert(5, "shown from .5 ±", _detectable(followed))
    every = sections.columns(by, {"AUC": sections.summary(inside, by, "auc")})
    wide = wide.rename(columns={"n": "n, cue misleads"})
    wide = wide.merge(every[[*by, "n"]].rename(columns={"n": "n, all pairs"}), on=by)
    sections.table(wide, {"purity": ".4g"})


def _intervals(
    rows: pd.DataFrame, x: str, value: str
) -> dict[tuple[str, int], dict[float, Interval]]:
    """Of one study, the interval of a value by method and size, and by `x`.

    Those of a method and size hold together.
    """
    found: dict[tuple[str, int], dict[float, Interval]] = {}
    places: Any = rows.groupby(["method", "shots"], sort=False)
    for (method, shots), own in places:
        level = stats.together(own[x].nunique())
        found[method, shots] = {
            float(at): stats.interval(stats.sample(part, value), level=level)
            for at, part in own.groupby(x)
        }
    return found


def _points(values: Sequence[float]) -> str:
    return conclusions.joined([f"{value:.4g}" for value in values])


def _name(method: str, shots: int) -> str:
    """A method with its number of examples, in the middle of a sentence."""
    return f"{'the ' * (method == baselines.CLASSIFIER)}{method} with {shots:,} examples"


def _where(some: Sequence[float], every: Collection[float]) -> str:
    """Which of a curve's points these are, its ends as such: "at 0.25 and from 0.75 on"."""
    order = sorted(every)
    there = [point in some for point in order]
    if all(there) and len(order) > 1:
        return f"from {order[0]:.4g} to {order[-1]:.4g}"
    first = (*there, False).index(False)  # so many at the start, and so many at the end
    last = (*there[::-1], False).index(False)
    first, last = first * (first > 1), last * (last > 1)
    alone = [order[i] for i in range(first, len(order) - last) if there[i]]
    parts = [f"up to {order[first - 1]:.4g}"] if first else []
    parts += [f"at {_points(alone)}"] if alone else []
    parts += [f"from {order[-last]:.4g} on"] if last else []
    return conclusions.joined(parts)


def _learned_at(rows: pd.DataFrame, x: str) -> dict[tuple[str, int], list[float]]:
    """Of one study, by method and size, the points along `x` whose trainings learned."""
    places: Any = rows.groupby(["method", "shots"], sort=False)
    return {place: sorted(own.loc[own["learned"], x].unique()) for place, own in places}


def _sides(
    found: Mapping[Name, Interval], learned: Collection[Name], null: float = 0.0
) -> tuple[list[Name], ...]:
    """Whose interval lies above `null`, whose below; whose does neither, learned, and did not."""
    above, below, neither = conclusions.sides(found, null)
    tested = [name for name in neither if name in learned]
    return above, below, tested, [name for name in neither if name not in learned]


def _parts(
    found: Mapping[float, Interval],
    learned: Collection[float],
    words: tuple[str, str, str],
    null: float = 0.0,
) -> list[str]:
    """At which points an interval is above `null`, below, or neither, in these words.

    With what would have been shown. Apart from these, where neither effect nor training is shown.
    """
    above, below, neither, left = _sides(found, learned, null)
    sides = zip(words, (above, below), strict=False)
    parts = [f"{word} {_where(some, found)}" for word, some in sides if some]
    if neither:
        power = _power(found, neither) if null else _would([found[at] for at in neither])
        parts.append(f"{words[-1]} at {_points(neither)}{power}")
    return parts + [f"{OPEN} {_where(left, found)}"] * bool(left)


def _told(
    found: Mapping[float, Interval], above: str, below: str, learned: Collection[float]
) -> str:
    """Where the interval is above one half, where below, and where it holds one half."""
    words = (above, below, "not shown to differ from one half")
    return "; ".join(_parts(found, learned, words, null=0.5))


def _would(found: Sequence[Interval], what: str = "") -> str:
    """In parentheses, the smallest true differences that would have been shown, least to most."""
    least = [one.detectable for one in found if np.isfinite(one.detectable)]
    if not least:
        return ""
    ends = dict.fromkeys(stats.number(end) for end in (min(least), max(least)))
    power = " with 80 % power" * bool(what)
    return f" ({what}{' to '.join(ends)} would have been shown{power})"


def _power(found: Mapping[float, Interval], places: Sequence[float]) -> str:
    """What distance from one half would have been shown at each of these places."""
    widest = max(found[place].detectable for place in places)
    if not np.isfinite(widest):
        return ""
    if widest >= 0.5:
        return " (no true distance from it would have been shown with 80 % power)"
    return f" (a true distance of {stats.number(widest)} would have been shown with 80 % power)"


@sections.text_by_study
def follow(misled: pd.DataFrame, _study: Study) -> str:
    """Say from which purity on each method follows the cue more often than not, or less."""
    lines, learned = [], _learned_at(misled, "purity")
    for place, found in _intervals(misled, "purity", "follows").items():
        told = _told(found, "above .50", "below .50", learned[place])
        least, most = min(found), max(found)
        lines.append(
            f"{conclusions.capital(_name(*place))}: {found[least]} at purity {least:.3g} and "
            f"{found[most]} at {most:.3g}. {conclusions.capital(told)}."
        )
    return (
        "Where the share of answers that follow the cue leaves .50 (@fig-rules-following), by the "
        f"purity of the cue; the intervals of a line hold together:\n\n{sections.bullets(lines)}"
    )


@sections.text_by_study
def beyond(answers: pd.DataFrame, _study: Study) -> str:
    """Say where more than the cue, or its opposite, was learned: by the AUC of all pairs."""
    inside = sections.rows_at(answers, domain=tasks.DOMAINS[0])
    learned = _learned_at(inside, "purity")
    lines = [
        f"{conclusions.capital(_name(*place))}: {found[min(found)]} at purity {min(found):.4g}; "
        f"{_told(found, 'above one half', 'below it', learned[place])}."
        for place, found in _intervals(metrics.with_scores(inside), "purity", "auc").items()
    ]
    return (
        "The AUC on all in-domain pairs, in which the cue says nothing of the label; the "
        f"intervals of a line hold together:\n\n{sections.bullets(lines)}"
    )


def _gaps(misled: pd.DataFrame, method: str, value: str) -> dict[tuple[int, float], Interval]:
    """The method minus full fine-tuning by size and purity, where both were run; paired.

    The intervals hold together.
    """
    place = ["shots", "purity"]
    some, full = (
        sections.rows_at(misled, method=name)[place].drop_duplicates() for name in (method, FULL)
    )
    pairs = {}
    for shots, purity in some.merge(full, on=place).itertuples(index=False, name=None):
        at = {"shots": shots, "purity": purity}
        pairs[int(shots), float(purity)] = at | {"method": method}, at | {"method": FULL}
    return sections.differences(misled, pairs, value)


@sections.table_by_study({"purity": ".4g"})
def compare(misled: pd.DataFrame, _study: Study) -> Iterator[dict[str, Any]]:
    """At equal purity, one method's following minus full fine-tuning's, and the AUC's."""
    for name in ("ICL", "LoRA", baselines.CLASSIFIER):
        followed, area = (_gaps(misled, name, value) for value in ("follows", "auc"))
        for (shots, purity), gap in followed.items():
            yield {
                "method": name,
                "examples": shots,
                "purity": purity,
                "follows, minus full fine-tuning's": str(gap),
                "shown from": gap.detectable,
                "AUC, minus full fine-tuning's": str(area[shots, purity]),
                "AUC: shown from": area[shots, purity].detectable,
                "n": gap.n,
            }


@sections.text_by_study
def compared(misled: pd.DataFrame, _study: Study) -> str:
    """Say who follows the cue more at equal purity: ICL or LoRA against full fine-tuning."""
    kinds = ("more at purity", "less at purity", "no difference is shown at", f"{OPEN} at")
    sentences, learned = [], _learned_at(misled, "purity")
    for name in ("ICL", "LoRA"):
        found = _gaps(misled, name, "follows")
        both = [(n, at) for n, at in found if at in learned[name, n] and at in learned[FULL, n]]
        sides = _sides(found, both)
        power = ("", "", _would([found[at] for at in sides[2]]), "")
        parts = [
            f"{kind} {_points([purity for _, purity in some])}{more}"
            for kind, some, more in zip(kinds, sides, power, strict=True)
            if some
        ]
        sizes = conclusions.joined([f"{n:,}" for n in dict.fromkeys(n for n, _ in found)])
        if found:
            sentences.append(
                f"With the same {sizes} examples, {name} follows the cue, against full "
                f"fine-tuning: {'; '.join(parts)}."
            )
    return " ".join(sentences)


# --- pairs without a cue -----------------------------------------------------------------------


PARTS = {"unseen": UNSEEN, "seen": SEEN, "in-domain": ""}
"""What pairs without a cue may change: the AUC on pairs of each kind."""


def leaving(unseen: pd.DataFrame) -> Any:
    """AUC on constructions that no example has, against the share of pairs without a cue.

    A number of examples with one share has no panel: the table has it.
    """
    if unseen.empty:
        return None
    shares = unseen.groupby(["study", "shots"])["mixed"].transform("nunique")
    return _figure(
        unseen[shares > 1],
        "mixed",
        "auc",
        x_title="share of pairs without a cue",
        y_title="AUC, unseen constructions",
    )


def _gains(rows: pd.DataFrame, value: str = "auc") -> dict[tuple[str, int], dict[float, Interval]]:
    """Of one study, by method and size, the value at each share minus that without such pairs.

    Paired over draws and pairs; those of a method and size hold together. Where there is no share
    of 0, or no other, there is none.
    """
    found: dict[tuple[str, int], dict[float, Interval]] = {}
    places: Any = rows.groupby(["method", "shots"], sort=False)
    for place, own in places:
        shares = [float(share) for share in own["mixed"].unique() if share]
        if 0 < len(shares) < own["mixed"].nunique():
            pairs = {share: ({"mixed": share}, {"mixed": 0.0}) for share in shares}
            found[place] = sections.differences(own, pairs, value)
    return found


def _at_shares(shared: pd.DataFrame) -> Iterator[tuple[dict[str, Any], tuple[str, int], float]]:
    """Cells that name a method, size and share of one study; and these again, to look it up."""
    columns = ["method", "shots", "mixed"]
    for method, shots, share in shared[columns].drop_duplicates().itertuples(index=False):
        cells = {"method": method, "examples": shots, "mixed": share}
        yield cells, (method, shots), float(share)


@sections.table_by_study({"mixed": ".4g"})
def leaving_table(shared: pd.DataFrame, _study: Study) -> Iterator[dict[str, Any]]:
    """By method, size and share: the AUC on unseen constructions, and minus that at a share of 0.

    Both with what would have been shown.
    """
    if shared.empty:
        return
    unseen = out_of_domain(shared)
    area, gains = _intervals(unseen, "mixed", "auc"), _gains(unseen)
    for cells, place, share in _at_shares(shared):
        one, gap = area[place][share], gains.get(place, {}).get(share)
        gain = sections.beside("minus that at 0", gap)
        yield (
            cells
            | {"AUC, unseen": str(one), "shown from .5 ±": one.detectable}
            | gain
            | {"n": one.n}
        )


@sections.table_by_study({"mixed": ".4g"})
def beside_table(shared: pd.DataFrame, _study: Study) -> Iterator[dict[str, Any]]:
    """By method, size and share, what else changes: thresholds, seen constructions, in-domain."""
    if shared.empty:
        return
    rows = {name: out_of_domain(shared, kind) for name, kind in PARTS.items()}
    gains = {name: _gains(own) for name, own in rows.items()}
    for cells, (method, shots), share in _at_shares(shared):
        at: dict[str, Any] = {"method": method, "shots": shots, "mixed": share}
        unseen = {
            name: str(sections.interval(rows["unseen"], value, **at))
            for name, value in (("accuracy, unseen", "correct"), ("called entailed", "called"))
        }
        found = {name: sections.interval(own, "auc", **at) for name, own in rows.items()}
        areas: dict[str, str] = {}
        for name in ("seen", "in-domain"):
            gap = gains[name].get((method, shots), {}).get(share)
            areas[f"AUC, {name}"] = str(found[name])
            areas[f"{name}: minus that at 0"] = "–" if gap is None else str(gap)
        sizes = "; ".join(area.n for area in found.values())
        yield cells | unseen | areas | {"n, unseen; seen; in-domain": sizes}


@sections.text_by_study
def leave(shared: pd.DataFrame, _study: Study) -> str:
    """Say at which shares each method's AUC is shown to leave one half, and to have changed."""
    if shared.empty:
        return ""
    lines, unseen = [], out_of_domain(shared)
    gains, learned = _gains(unseen), _learned_at(unseen, "mixed")
    for place, found in _intervals(unseen, "mixed", "auc").items():
        both = dict.fromkeys((min(found), max(found)))
        ends = conclusions.joined([f"{found[share]} at {share:.4g}" for share in both])
        told = _told(found, "above .50", "below .50", learned[place])
        gap = gains.get(place, {})
        line = f"{conclusions.capital(_name(*place))}: {ends}; {told}."
        lines.append(f"{line} {_changed(gap, _with_base(learned)[place])}" if gap else line)
    return (
        "Where the AUC on constructions that no labelled example has leaves .50 "
        "(@fig-rules-leaving), by the share of pairs without a cue; the intervals of a line hold "
        f"together:\n\n{sections.bullets(lines)}"
    )


def _with_base(learned: Mapping[Place, list[float]]) -> dict[Place, list[float]]:
    """The points that learned, of methods and sizes that did so at a share of 0, too."""
    return {place: some if 0.0 in some else [] for place, some in learned.items()}


def _changed(gaps: Mapping[float, Interval], learned: Collection[float]) -> str:
    """At which shares something is shown to be more or less than at 0; what would have been."""
    told = "; ".join(_parts(gaps, learned, ("higher", "lower", "no change is shown")))
    last = max(gaps)
    return f"Against a share of 0, {told}. The change at {last:.4g} is {gaps[last]}."


@sections.text_by_study
def explain(shared: pd.DataFrame, _study: Study) -> str:
    """Say what else goes with a gain: on seen constructions, in-domain, in a classifier of cues."""
    if shared.empty:
        return ""
    gains = {name: _gains(out_of_domain(shared, kind)) for name, kind in PARTS.items()}
    called, lines = _gains(out_of_domain(shared), "called"), []
    for place in gains["unseen"]:
        last = max(gains["unseen"][place])
        parts = [f"{name} {gains[name][place][last]}" for name in PARTS]
        parts.append(f"called entailed {called[place][last]}")
        lines.append(f"{conclusions.capital(_name(*place))}, at {last:.4g}: {'; '.join(parts)}.")
    return (
        "The change from a share of 0 to the largest one, of the AUC on constructions that no "
        "example has, on other pairs of those that examples have, and in-domain; and of the share "
        f"of answers “entailed” on the first:\n\n{sections.bullets(lines)}\n\n"
        f"{_beyond_cues(shared)}"
    )


def _beyond_cues(shared: pd.DataFrame) -> str:
    """How each method's AUC on unseen constructions compares with the cue classifier's."""
    unseen = out_of_domain(shared)
    pairs: dict[tuple[str, int], dict[float, Any]] = {}
    for _, place, share in _at_shares(unseen[unseen["method"] != baselines.CLASSIFIER]):
        at = {"shots": place[1], "mixed": share}
        own = at | {"method": place[0]}, at | {"method": baselines.CLASSIFIER}
        pairs.setdefault(place, {})[share] = own
    lines, learned = [], _learned_at(unseen, "mixed")
    for place, some in pairs.items():
        gaps = sections.differences(unseen, some, "auc")
        words = ("above it", "below it", "not shown to differ from it")
        lines.append(f"{_name(*place)} is {'; '.join(_parts(gaps, learned[place], words))}")
    return (
        "Against the classifier on surface cues that learned from the same examples, by the AUC on "
        f"unseen constructions: {'. '.join(map(conclusions.capital, lines))}."
    )


# --- was it trained, and what was found --------------------------------------------------------


def _ends(results: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """The last point of each training's learning curve, with what it was trained on."""
    part = sections.by_method(
        results, studies, lambda study: names(study, "purity") | names(study, "mixed")
    )
    rows = part.rows.drop_duplicates("key")
    rows = rows.assign(passes=rows["updates"] * rows["batch_size"] / rows["shots"])
    course = curves(rows, ["study", *TRAINED_ON])
    return course[course["update"] == course.groupby("key")["update"].transform("max")]


def trained(results: Results, studies: Sequence[Study]) -> None:
    """Loss and accuracy on the labelled examples themselves, after training."""
    found = _ends(results, studies).groupby(["study", *TRAINED_ON], sort=False)
    table = found.agg(
        **{
            "training loss": ("train_loss", sections.over),
            "training accuracy": ("train_accuracy", sections.over),
            "draws": ("key", "size"),
        }
    )
    named = table.reset_index().rename(columns={"shots": "examples"})
    formats: dict[str, Any] = {
        "purity": lambda purity: f"{purity:.4g}" if purity else "–"
    }  # pairs as they come
    sections.table(named, formats | {"mixed": ".4g", "passes": ".3g"})


def _trainings(results: Results, study: Study) -> dict[tuple[str, int, float, float], bool]:
    """By method, size, purity and share: is the training loss shown to be below ln 2, a guess's?

    The intervals of a method and size hold together.
    """
    if {*names(study, "purity").values(), *names(study, "mixed").values()} <= {"ICL"}:
        return {}
    groups: Any = _ends(results, [study]).groupby(TRAINED_ON, sort=False)
    number = Counter((method, shots) for (method, shots, *_), _ in groups)
    found, bounds = {}, stats.bounds_of("loss")
    for (method, shots, purity, mixed, _), own in groups:
        level = stats.together(number[method, shots])
        loss = stats.t_interval(own["train_loss"], level, bounds)
        found[method, int(shots), float(purity), float(mixed)] = bool(loss.hi < np.log(2))
    return found


@sections.text_by_study
def untrained(results: Results, study: Study) -> str:
    """Say for which samples the training loss is not shown to be below that of a guess, ln 2."""
    left: dict[Place, dict[str, list[float]]] = {}
    found = _trainings(results, study)
    for (method, shots, purity, mixed), learned in found.items():
        if not learned:
            kinds = left.setdefault((method, shots), {})
            kind = "a share without a cue of" if mixed else "purity" if purity else "a share of"
            kinds.setdefault(kind, []).append(mixed or purity)
    told = [
        f"{_name(*place)} at {' and at '.join(f'{k} {_points(at)}' for k, at in kinds.items())}"
        for place, kinds in left.items()
    ]
    how = (
        "have learned their own examples, by a training loss below ln 2 = 0.693 nats (the "
        "intervals of a method and number of examples hold together)"
    )
    if not found:
        return ""
    if not told:
        return f"All trainings are shown to {how}."
    return (
        f"Not shown to {how}: {'; '.join(told)}. What these miss on test pairs says nothing about "
        "the method beyond this training."
    )


@sections.text_by_study
def zero_shot(results: Results, study: Study) -> str:
    """Say what the model does where the cue misleads, before it has seen an example."""
    misled = where_cue(results.part("zero-shot").predictions, [study], right=False)
    followed, area = (
        sections.interval(misled, value, domain=tasks.DOMAINS[0]) for value in ("follows", "auc")
    )
    return (
        f"Zero-shot, {followed} of the answers are the cue's where it misleads, and the AUC on "
        f"these pairs is {area}."
    )


def _leaves(
    found: Mapping[Place, Mapping[float, Interval]],
    learned: Mapping[Place, Collection[float]],
    kinds: tuple[str, str],
    what: str,
    null: float = 0.0,
) -> str:
    """Of each method and size, where it leaves `null`, `kinds`: above, below; then which do not.

    No point that has not learned is among the latter.
    """
    lines, nowhere, tested, left = [], [], [], []
    for place, one in found.items():
        above, below, neither, _ = _sides(one, learned[place], null)
        sides = zip(kinds, (above, below), strict=True)
        parts = [f"{kind} {_where(some, one)}" for kind, some in sides if some]
        if parts:
            lines.append(f"{_name(*place)} {' and '.join(parts)}")
        elif neither:
            trained = f" (trained {_where(neither, one)})" * (len(neither) < len(one))
            nowhere.append(f"{_name(*place)}{trained}")
            tested += [one[point] for point in neither]
        else:
            left.append(_name(*place))
    if nowhere:
        power = _would(tested, f"a true {'distance' if null else 'change'} of ")
        lines.append(f"at no {what} {conclusions.joined(nowhere)}{power}")
    if left:
        lines.append(f"{OPEN}: {conclusions.joined(left)}")
    return "; ".join(lines)


@sections.findings_by_study
def summary(
    misled: pd.DataFrame, main: pd.DataFrame, shared: pd.DataFrame, _study: Study
) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    kinds = ("above", "below")

    def half(rows: pd.DataFrame, x: str, value: str, what: str) -> str:
        return _leaves(_intervals(rows, x, value), _learned_at(rows, x), kinds, what, 0.5)

    def moved(rows: pd.DataFrame) -> str:
        learned = _with_base(_learned_at(rows, "mixed"))
        return _leaves(_gains(rows), learned, ("better", "worse"), "share")

    if len(main):
        inside = metrics.with_scores(sections.rows_at(main, domain=tasks.DOMAINS[0]))
        yield (
            "Where the cue misleads, the share of answers that follow it is shown to leave .50, by "
            f"the cue's purity in the examples: {half(misled, 'purity', 'follows', 'purity')}."
        )
        yield (
            "The AUC on all in-domain pairs, .50 for the cue and for its opposite, is shown to "
            f"leave it: {half(inside, 'purity', 'auc', 'purity')}."
        )
    if len(shared):
        unseen = out_of_domain(shared)
        yield (
            "The AUC on pairs of unseen constructions is shown to leave .50, by the share of "
            f"labelled pairs without a cue: {half(unseen, 'mixed', 'auc', 'share')}."
        )
        yield (
            f"Shown to rank them better, or worse, than without such pairs: {moved(unseen)}. Of "
            "the constructions that examples have, other pairs: "
            f"{moved(out_of_domain(shared, SEEN))}."
        )
    if not (main["learned"].all() and shared["learned"].all()):
        yield (
            "“Trained” is what is shown to have learned its own examples (@tbl-rules-trained). "
            "Where a training is not, a missing effect is no finding."
        )


@sections.text_by_study
def extent(main: pd.DataFrame, shared: pd.DataFrame, study: Study) -> str:
    """Say for which methods, sizes and numbers of draws purity and share vary, and why no more."""
    purity, shares = _crossed(main, "purity"), _crossed(shared, "mixed")
    more = [one for one in shares if one not in purity]
    if purity and len(more) == len(shares) - len(purity):
        shares = ["the same", *more]
    axes = {"the purity of the cue": purity, "the share of pairs without a cue": shares}
    tried = [f"{axis} varies for {conclusions.joined(some)}" for axis, some in axes.items() if some]
    every, same = len(grids.PURITIES), list[str]()
    if purity:
        for n in study.train_shots:
            against = {tasks.mixed_pairs(n, 1 - purity) for purity in grids.PURITIES}
            same += [f"{n:,}"] * (len(against) < every)
    few = f"{conclusions.joined(same)} examples cannot have all {every} purities, and " * bool(same)
    absent = [name for name in METHODS if name not in {*main["method"], *shared["method"]}]
    left_out = conclusions.joined([*absent, "distillation", "other numbers of examples"])
    return (
        f"Not everything was crossed: {'; '.join(tried)}. Left out are {left_out}: "
        f"{few}all of it with {study.repeats} draws would take hours of a core."
    )


def _crossed(rows: pd.DataFrame, x: str) -> list[str]:
    """The methods and sizes that were run along `x`, with their numbers of draws."""
    own = rows[rows["method"] != baselines.CLASSIFIER]
    found: Any = own.groupby(["method", "shots", x], sort=False)["draw"].nunique()
    texts = []
    for place, some in found.groupby(["method", "shots"], sort=False):
        number = " to ".join(dict.fromkeys(f"{n:,}" for n in (some.min(), some.max())))
        alone = f" at {some.index[0][-1]:.4g} alone" * (len(some) == 1)
        texts.append(f"{_name(*place)}{alone} ({number} draws)")
    return texts
