"""What several chapters show in the same way: each table and comparison is defined once.

`answers` are predictions with scores (`scored`): a row a study, run and query. Everything is shown
by study where there are several.
"""

import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft import ROOT, UserError, inert
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.nli import cues, tasks
from llmft.params import Study
from llmft.report import figures, stats, tables, theme
from llmft.study import baselines, grids, methods, metrics
from llmft.study.results import Results, by_domain, joined, on_one_machine


Sizes = Callable[[Study], Sequence[int]]
"""Of a study, some numbers of labelled examples."""

Wanted = Callable[[Study], Mapping[str, Collection[Any]]]
"""Of a study, the values that some columns may have."""

summary = stats.summary
"""The interval of a value in each group of some columns."""

FAILED = 0.05
"""A draw has failed when its accuracy is less than this above the constant predictor's."""


def task_of(study: Study) -> tasks.Task:
    """The study's task, read once a process."""
    return methods.task_of(study.task, study.limit, study.labels, study.rows)


def readable(studies: Sequence[Study]) -> list[Study]:
    """The studies whose sentences a chapter may print: those of MultiNLI and HANS are not ours."""
    return [study for study in studies if study.task != "mnli-hans"]


def hide(study: Study, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs without the sentences that a chapter may not print."""
    if readable([study]):
        return pairs
    return pairs.assign(premise="not printed", hypothesis="not printed")


# --- sentences, tables, code -------------------------------------------------------------------


def headed(studies: Sequence[Study], text: Callable[[Study], str]) -> None:
    """Say something of each study, under its name where there are several."""
    parts = []
    for study in studies:
        head = f"**{inert.escape(study.study)}.** " * (len(studies) > 1)
        if words := text(study):
            parts.append(head + words)
    if parts:
        tables.say("\n\n".join(parts))


def bullets(lines: Sequence[str], studies: Sequence[Study] = ()) -> str:
    """The lines as a list in Markdown, apart from the name that `headed` puts before several."""
    return "\n\n" * (len(studies) > 1) + "\n".join(f"- {line}" for line in lines)


def having(results: Results, studies: Sequence[Study], *groups: str) -> list[Study]:
    """The studies that made all these groups' runs; says what others leave out (by `without`)."""

    def absent(study: Study) -> str:
        return "; ".join(name for name in groups if not results.has(name, study.study))

    words = "Not run for this study, and so not shown: {}."
    headed(studies, lambda study: words.format(absent(study)) * bool(absent(study)))
    return [study for study in studies if not absent(study)]


def missing(studies: Sequence[Study]) -> None:
    """Say of a study without an out-of-domain set that nothing is shown of one."""
    text = "This task has no out-of-domain set: nothing is shown of one."
    headed(studies, lambda study: text * (len(task_of(study).domains) < len(tasks.DOMAINS)))


def source(*things: Any) -> None:
    """Show the code of functions of the package: what a chapter teaches is what it runs."""
    text = "\n\n".join(inspect.getsource(thing).rstrip() for thing in things)
    tables.say(inert.fence(text, "python"))


def table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], formats: Any = None) -> None:
    """Show a table, the lines of a study together, and of a domain; each under its name.

    A study is named only where there are several. What heads one line only is a column.
    """
    frame = pd.DataFrame(rows)
    by = _varying(frame, [name for name in ("study", "domain") if name in frame])
    by = [name for name in by if len(frame[name].unique()) > 1]
    while by and len(frame) < 2 * len(frame[by].drop_duplicates()):
        by.pop()
    for name in reversed(by):
        frame = pd.concat([lines for _, lines in frame.groupby(name, sort=False)])
    heads = frame[by].agg(", ".join, axis=1).tolist() if by else []
    columns = [name for name in _varying(frame, list(frame.columns)) if name not in by]
    tables.table(frame[columns], formats, heads)


def _varying(frame: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The columns of `by`, the study's only where there are several."""
    return [name for name in by if name != "study" or len(frame[name].unique()) > 1]


def facet(studies: Sequence[Study]) -> str:
    """The column by which a figure has panels: the study's, where there are several."""
    return "study" if len(studies) > 1 else ""


def by_study(
    draw: Callable[..., Any],
    frame: pd.DataFrame,
    studies: Sequence[Study],
    *columns: str,
    note: str,
    **options: Any,
) -> Any:
    """A figure of `figures`, a panel a study: `draw(part, *columns, note=note, **options)`."""
    return figures.panels(
        frame,
        facet(studies),
        lambda part, text: draw(part, *columns, note=text, **options),
        note=note,
    )


def panel(frame: pd.DataFrame, *by: str) -> pd.Series | str:
    """What heads the panel of each row: its study where there are several, and the columns `by`."""
    names = _varying(frame, ["study", *by])
    if not names:
        return ""
    return frame[names[0]].str.cat(frame[names[1:]], sep=", ")


# --- choosing and comparing --------------------------------------------------------------------


def scored(results: Results, name: str = "") -> pd.DataFrame:
    """The answers on test pairs `metrics.with_scores`; `name`: a method's, for the runs' own."""
    answers = results.predictions[results.predictions["split"] == "test"]
    return metrics.with_scores(answers.assign(method=name) if name else answers)


def rows_at(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows where each column has its value."""
    return frame[np.logical_and.reduce([frame[name] == value for name, value in values.items()])]


def where(frame: pd.DataFrame, studies: Sequence[Study], wanted: Wanted) -> pd.DataFrame:
    """The rows whose columns have one of the values that are `wanted` of their study."""
    there = pd.Series(False, index=frame.index)
    for study in studies:
        own = frame["study"] == study.study
        for name, values in wanted(study).items():
            own &= frame[name].isin(list(values))
        there |= own
    return frame[there]


def only(results: Results, studies: Sequence[Study], wanted: Wanted) -> Results:
    """The runs, with their predictions, whose fields have one of the values `wanted`."""
    rows, answers = (where(f, studies, wanted) for f in (results.rows, results.predictions))
    return Results(rows, answers, results.groups)


def three(sizes: Sequence[int], between: int) -> list[int]:
    """The fewest examples, some `between`, and the most."""
    return sorted({sizes[0], between, sizes[-1]})


def ends(answers: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Of these methods all answers, of the others those with the most examples of a study."""
    most = answers["shots"] == answers.groupby("study")["shots"].transform("max")
    return answers[most | answers["method"].isin(names)] if names else answers[most]


def chosen(
    answers: pd.DataFrame, value: str = "correct", *, clusters: str = "", **where: Any
) -> stats.Sample:
    """One value by draw and example (`stats.sample`), of the rows where each column has its value.

    Raises:
        UserError: there is no such row, or the runs differ in their examples.
    """
    rows = rows_at(answers, **where)
    if rows.empty:
        raise UserError(f"no run with {', '.join(f'{k} = {v}' for k, v in where.items())}")
    return stats.sample(rows, value, clusters=clusters)


def interval(
    answers: pd.DataFrame, value: str = "correct", level: float = 0.95, **where: Any
) -> stats.Interval:
    """The mean of `value` over draws and examples, of the rows where each column has its value."""
    return stats.interval(chosen(answers, value, **where), level=level)


def difference(
    answers: pd.DataFrame,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    value: str = "correct",
    level: float = 0.95,
) -> stats.Interval:
    """The mean of `value` where columns are as in `a`, minus that of `b`.

    Paired on the draws, and on the examples where both are of one domain.
    """
    return stats.difference(
        chosen(answers, value, **a),
        chosen(answers, value, **b),
        same_examples=a.get("domain") == b.get("domain"),
        level=level,
    )


def agreeing(answers: pd.DataFrame, teacher: pd.DataFrame) -> pd.DataFrame:
    """The answers with `agreement`: 1 where the teacher's, of the same draw and pair, is the same.

    Answers to pairs that the teacher was not asked, or with another draw, are left out.
    """
    pair = ["study", "data_seed", "domain", "id"]
    first = teacher[pair].assign(_first=teacher[metrics.LOGP].to_numpy().argmax(axis=1))
    both = answers.merge(first, on=pair)
    same = both[metrics.LOGP].to_numpy().argmax(axis=1) == both["_first"]
    return both.drop(columns="_first").assign(agreement=same.astype(float))


def unresolved(gap: stats.Interval) -> str:
    """Beside an interval that holds zero: the smallest difference that would have been shown."""
    if not gap.lo <= 0 <= gap.hi:
        return ""
    return (
        f" (a true difference of {stats.number(gap.detectable)} would have been shown "
        "with 80 % power)"
    )


def point(summary: pd.DataFrame, **where: Any) -> str:
    """`0.81 [0.78, 0.84]` of the row of a `summary` where each column has its value, or a dash."""
    return " ".join(stats.as_text(row) for _, row in rows_at(summary, **where).iterrows()) or "–"


def gains_table(answers: pd.DataFrame, studies: Sequence[Study], sizes: Sizes) -> None:
    """What each number of examples changes against zero-shot, and what would have been shown."""
    lines: list[dict[str, Any]] = []
    for study in studies:
        own = rows_at(answers, study=study.study)
        for domain, shots in itertools.product(own["domain"].unique(), sizes(study)):
            line = {"study": study.study, "domain": domain, "shots": shots}
            a, b = ({"domain": domain, "shots": size} for size in (shots, 0))
            for name, value in (("accuracy", "correct"), ("AUC", "auc")):
                gap = difference(own, a, b, value)
                line |= {f"{name}, minus zero-shot's": str(gap)}
                line |= {f"{name}: shown from": gap.detectable}
            lines.append(line | {"n": gap.n})
    table(lines)


def ranking(answers: pd.DataFrame, studies: Sequence[Study], sizes: Sizes, what: str) -> None:
    """Say what the most and the fewest examples change in the AUC, in a sentence a domain.

    `what` the examples are called; zero-shot's answers are those with 0 `shots`.
    """

    def text(study: Study) -> str:
        own, sentences = rows_at(answers, study=study.study), []
        least, most = sizes(study)[0], sizes(study)[-1]
        for domain in own["domain"].unique():
            found = {}
            for pair in ((most, 0), (least, 0), (most, least)):
                a, b = ({"domain": domain, "shots": shots} for shots in pair)
                gap = difference(own, a, b, "auc")
                found[pair] = f"{gap}{unresolved(gap)}"
            sentence = f"{domain.capitalize()}, the AUC with {most:,} {what} minus zero-shot's is "
            sentence += found[most, 0]
            if least < most:
                sentence += (
                    f", with {least:,} it is {found[least, 0]}; the AUC with {most:,} minus that "
                    f"with {least:,} is {found[most, least]}"
                )
            sentences.append(f"{sentence}.")
        paired = "Differences are paired over draws and pairs; each interval holds alone."
        return " ".join([*sentences, paired])

    headed(studies, text)


# --- accuracy, draw by draw --------------------------------------------------------------------


def of_draws(answers: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row a run and group of `by`: draw, accuracy, called (share called entailed), failed."""
    called = answers[metrics.LOGP].to_numpy().argmax(axis=1) == 0
    groups = answers.assign(called=called).groupby([*by, "key", "draw"], sort=False)
    found = groups.agg(
        accuracy=("correct", "mean"), called=("called", "mean"), label=("label", "mean")
    ).reset_index()
    constant = np.maximum(found["label"], 1 - found["label"])
    return found.assign(failed=found["accuracy"] < constant + FAILED).drop(columns="label")


def spread(answers: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row a group: median draw, range, how many failed; dashes where nothing was drawn."""
    lines = []
    for group, part in of_draws(answers, by).groupby(list(by), sort=False):
        kinds = part["accuracy"].agg(["median", "min", "max"])
        median, low, high = (stats.number(value, 3) for value in kinds)
        texts = [median, f"{low} to {high}", f"{part['failed'].sum()} of {len(part)}"]
        lines.append([*group, *(["–"] * 3 if (part["draw"] == "").any() else texts)])
    return pd.DataFrame(lines, columns=[*by, "median draw", "lowest to highest", "failed draws"])


def failures(answers: pd.DataFrame, least: int, most: int, what: str) -> str:
    """How many in-domain draws of one study's method fail, with the fewest and most examples."""
    found = spread(rows_at(answers, domain=tasks.DOMAINS[0]), ["shots"]).set_index("shots")
    failed, median = found["failed draws"], found["median draw"]
    text = f"With {least:,} {what} {failed[least]} draws fail (median draw {median[least]})"
    if most > least:
        text += f", with {most:,} {failed[most]} (median {median[most]})"
    return f"{text}."


def accuracy_table(answers: pd.DataFrame, by: Sequence[str]) -> None:
    """Accuracy by domain; and the draws, as a mean of which some failed describes none of them."""
    long = tables.with_interval(summary(answers, by), "accuracy", 3)
    drawn = spread(answers, by).set_index(list(by))
    span = " (" + drawn.pop("lowest to highest") + ")"
    drawn["median draw"] += span.where(drawn["median draw"] != "–", "")
    drawn = drawn.rename(columns={"median draw": "median draw (lowest to highest)"})
    long = long.join(drawn, on=list(by))
    table(across(long, [name for name in by if name != "domain"]))


def across(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row a group of `by`, with the other columns once a domain: "accuracy, in-domain".

    The domains' `n`, where there is one, is the last column: once where it is the same.
    """
    parts = {
        str(domain): part.set_index(list(by))
        for domain, part in frame.groupby("domain", sort=False)
    }
    names = [name for name in frame if name not in (*by, "domain", "n")]
    places = [(name, domain) for name in names for domain in parts]
    columns = [parts[domain][name].rename(f"{name}, {domain}") for name, domain in places]
    if "n" in frame:
        sizes = pd.concat([part["n"] for part in parts.values()], axis=1)
        rows = sizes.itertuples(index=False)
        texts = ["; ".join(dict.fromkeys(n for n in row if isinstance(n, str))) for row in rows]
        wide = pd.concat(columns, axis=1).assign(n=pd.Series(texts, index=sizes.index))
    else:
        wide = pd.concat(columns, axis=1)
    return wide.reset_index()


def columns(by: Sequence[str], found: Mapping[str, pd.DataFrame], digits: int = 2) -> pd.DataFrame:
    """Summaries side by side: a row a group of the first one, a column of text each, then its n."""
    texts = [
        tables.with_interval(frame, name, digits).set_index(list(by))
        for name, frame in found.items()
    ]
    wide = pd.concat([*(text.drop(columns="n") for text in texts), texts[0]["n"]], axis=1)
    return wide.reindex(texts[0].index).reset_index()


def calibration_table(results: Results, by: Sequence[str]) -> None:
    """Expected calibration error, mean over draws, a column a domain."""
    ece = stats.over_draws(by_domain(results.rows), by, "ece")
    long = columns(by, {"ECE": ece}, 3).rename(columns={"n": "draws"})
    table(across(long, [str(name) for name in long if name not in ("domain", "ECE")]))


def search_table(results: Results, studies: Sequence[Study], parameter: str) -> None:
    """Validation accuracy and NLL by learning rate; which is best, which the `parameter` is."""
    rows, by = results.rows, ["study", "learning rate"]
    named = rows.rename(columns={"learning_rate": "learning rate"})
    accuracy, nll = (
        stats.over_draws(named, by, f"validation_{what}") for what in ("accuracy", "nll")
    )
    wide = columns(by, {"accuracy": accuracy, "NLL": nll}, 3).rename(columns={"n": "draws"})
    table(wide, {"learning rate": ".2g"})

    def best(study: Study) -> str:
        own, losses = (rows_at(f, study=study.study) for f in (accuracy, nll))
        surest = own["learning rate"].iloc[own["mean"].argmax()]
        likeliest = losses["learning rate"].iloc[losses["mean"].argmin()]
        used = getattr(study, parameter)
        shots = rows_at(rows, study=study.study)["shots"].iloc[0]
        neither = ", which is best by neither" * (not np.isclose([surest, likeliest], used).any())
        return (
            f"With {shots:,} examples, accuracy is highest at a learning rate of {surest:.2g} and "
            f"the NLL lowest at {likeliest:.2g}; the reported runs use {used:.2g}{neither}."
        )

    headed([study for study in studies if study.study in set(rows["study"])], best)


# --- what was learned --------------------------------------------------------------------------


def with_rule(answers: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with `follows` and `follows_one` (1 where a prediction is the rule's) and `silent`.

    Two rules that part where both sentences are negated: not entailed if either sentence is negated
    (`baselines.negation_rule`), or if exactly one is. Both are silent where neither is; the AUC of
    these pairs alone is `auc_silent`, NaN for other pairs.
    """
    negated = pd.Series(np.nan, index=answers.index)
    for study in studies:
        pairs = pd.concat(task_of(study).domains.values())
        count = baselines.negations(pairs).set_axis(pairs["id"])
        mine = answers["study"] == study.study
        negated[mine] = answers["id"][mine].map(count)
    predicted = answers[metrics.LOGP].to_numpy().argmax(axis=1)
    silent, area = negated == 0, pd.Series(np.nan, index=answers.index)
    if silent.any():
        area[silent] = metrics.with_scores(answers[silent])["auc"].to_numpy()
    return answers.assign(
        follows=(predicted == (negated > 0)).astype(float),
        follows_one=(predicted == (negated == 1)).astype(float),
        silent=silent,
        auc_silent=area,
    )


def learned_table(answers: pd.DataFrame, by: Sequence[str]) -> None:
    """AUC, accuracy, agreement with two rules of negation, the AUC where they are silent, the lean.

    `answers` has the columns of `with_rule`; the lean is the share called entailed, by draw.
    """
    silent = answers.dropna(subset="auc_silent")
    wide = columns(
        by,
        {
            "AUC": summary(answers, by, "auc"),
            "accuracy": summary(answers, by),
            "agrees: either negated": summary(answers, by, "follows"),
            "agrees: exactly one": summary(answers, by, "follows_one"),
            "AUC, none negated": summary(silent, by, "auc_silent"),
        },
    )
    shares = of_draws(answers, by).groupby(list(by))["called"].agg(["mean", "min", "max"])
    texts = shares.map(stats.number)
    span = " (" + texts["min"] + " to " + texts["max"] + ")"
    called = texts["mean"] + span.where(shares["min"] < shares["max"], "")
    wide = wide.merge(called.rename("called entailed"), left_on=list(by), right_index=True)
    table(wide[[*(name for name in wide if name != "n"), "n"]])


def _outside(answers: pd.DataFrame) -> pd.DataFrame:
    """The out-of-domain answers; those in-domain where there are no others."""
    outside = answers[answers["domain"] == tasks.DOMAINS[1]]
    return answers if outside.empty else outside


def has_subcases(answers: pd.DataFrame) -> bool:
    """Whether it is known of which subcase a pair is."""
    return "subcase" in answers and not answers["subcase"].isna().all()


def constructions(answers: pd.DataFrame, by: Sequence[str]) -> None:
    """Out-of-domain AUC and accuracy with two intervals each: other pairs, other constructions.

    One where there are no subcases; in-domain where there is no out-of-domain set.
    """
    rows, designs = _outside(answers), {"": ""}
    if has_subcases(rows):
        designs = {", these constructions": "", ", new constructions": "subcase"}
    found = {
        name + kind: summary(rows, by, value, clusters=clusters)
        for name, value in (("AUC", "auc"), ("accuracy", "correct"))
        for kind, clusters in designs.items()
    }
    table(columns(by, found))


def subcases(answers: pd.DataFrame, x: str, *, x_title: str = "") -> Any:
    """A heat map of out-of-domain accuracy by subcase (rows) and `x` (columns), a panel a study.

    In-domain where there is no out-of-domain set, and by gold label where there are no subcases.
    """
    own, rows, what = _outside(answers), "subcase", "subcase"
    if not has_subcases(own):
        own, rows = own.assign(gold=own["label"].map(dict(enumerate(tasks.LABELS)))), "gold"
        what = f"label; {own['domain'].iloc[0]} by label, as there are no subcases"
    fewest = int(own.groupby(rows)["id"].nunique().min())
    draws = own.groupby(["study", x], observed=True)["draw"].nunique().max()
    groups = own.groupby(["study", rows, x], sort=False, observed=True)
    found = groups["correct"].mean().reset_index()
    return figures.panels(
        found.sort_values([rows, x], kind="stable"),  # the studies stay in their order
        "".join(_varying(found, ["study"])),
        lambda part, note: figures.heat(part, x, rows, "correct", x_title=x_title, note=note),
        note=f"means over up to {draws} draws, at least {fewest:,} "
        f"pair{'s' * (fewest != 1)} a {what}",
    )


def twins(studies: Sequence[Study]) -> None:
    """Say it where the names of the subcases tell the label, by what is before the first `_`."""

    def text(study: Study) -> str:
        out = task_of(study).out_of_domain
        if "subcase" not in out or out.empty:
            return ""
        start = out["subcase"].astype(str).str.extract(r"^([^_]+_).", expand=False)
        labels = out.groupby(start)["label"].agg(["min", "max"]).sort_index()
        fixed = start.notna().all() and (labels["min"] == labels["max"]).all()
        # A start that each subcase has for itself is a name, not a sign.
        if not fixed or labels["min"].nunique() < 2 or 2 * len(labels) > out["subcase"].nunique():
            return ""
        entailed, others = (
            ", ".join(inert.code(name) for name in labels.index[labels["min"] == label])
            for label in (0, 1)
        )
        return (
            f"Subcases whose names begin with {entailed} are entailed, those with {others} are not."
        )

    headed(studies, text)


def by_cue(answers: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The in-domain answers, with a `cue` that says whether negation is right on the pair."""
    parts = []
    for study in studies:
        pairs = task_of(study).in_domain
        negated = cues.table(pairs)["negation"].to_numpy() > 0
        names = np.where(negated == (pairs["label"] == 1), "cue is right", "cue misleads")
        inside = rows_at(answers, study=study.study, domain=tasks.DOMAINS[0])
        parts.append(inside.assign(cue=inside["id"].map(pd.Series(names, index=pairs["id"]))))
    return pd.concat(parts, ignore_index=True)


def cue_figure(answers: pd.DataFrame, studies: Sequence[Study], x_title: str) -> Any:
    """In-domain accuracy against the number of examples, where negation is right and misleads."""
    split = summary(by_cue(answers, studies), ["study", "cue", "shots"])
    return figures.curve(
        split, "shots", "cue", facet=facet(studies), x_title=x_title, note=stats.caption(split)
    )


# --- what needs no model -----------------------------------------------------------------------


def with_classifier(answers: pd.DataFrame, studies: Sequence[Study], sizes: Sizes) -> pd.DataFrame:
    """The answers, and after them those of the cue classifier, trained on the same draws."""
    parts = [answers]
    for study in studies:
        found = baselines.classifier(task_of(study), sizes(study), grids.draws(study))
        drawn = found["data_seed"].astype(str) + "-0-0"
        key = study.study + " " + found["key"]  # of two tasks they are two classifiers
        parts.append(metrics.with_scores(found).assign(draw=drawn, key=key, study=study.study))
    return pd.concat(parts, ignore_index=True)


def classifier_lines(answers: pd.DataFrame) -> pd.DataFrame:
    """The cue classifier with the most labels among the `answers`, as a line of a figure.

    Columns: study, domain, rule (its name), accuracy (mean over draws and pairs).
    """
    own = ends(rows_at(answers, method=baselines.CLASSIFIER))
    groups = own.groupby(["study", "domain", "shots"], sort=False)["correct"]
    lines = groups.mean().reset_index(name="accuracy")
    return lines.assign(rule=baselines.CLASSIFIER + lines["shots"].map(", {:,} labels".format))


def above_floors(answers: pd.DataFrame, study: Study, series: str, size: int) -> str:
    """Say how each series, with `size` examples, compares with the training pool's best cue."""
    task = task_of(study)
    rule, pairs = baselines.best_rule(task.train), task.in_domain
    right = (rule.labels(pairs) == pairs["label"]).astype(float).set_axis(pairs["id"])
    inside = rows_at(answers, study=study.study, domain=tasks.DOMAINS[0], shots=size)
    inside = inside.assign(gap=inside["correct"] - inside["id"].map(right))
    found = []
    for name, part in inside.groupby(series, sort=False):
        gap = stats.interval(stats.sample(part, "gap"))
        place = "above" if gap.lo > 0 else "below" if gap.hi < 0 else "not shown to differ from"
        article = "the " * (name == baselines.CLASSIFIER)
        found.append(f"{article}{name} is {place} it (minus the cue: {gap}{unresolved(gap)})")
    return (
        f"The best single cue of the training pool, *{rule.cue}*, is right on {right.mean():.2f} "
        f"of the in-domain pairs. With {size:,} labelled examples, {'; '.join(found)}."
    )


def floors_text(studies: Sequence[Study]) -> str:
    """For a figure's note: what a constant and the best single cue get right in each domain."""
    parts = []
    for study in studies:
        of = f" ({theme.study(study.study)})" * (len(studies) > 1)
        for rule, part in baselines.floors(task_of(study)).groupby("rule", sort=False):
            each = part["accuracy"].map(stats.number) + " " + part["domain"]
            parts.append(f"{rule}{of} {' and '.join(each)}")
    return "without a model: " + "; ".join(parts)


# --- figures -----------------------------------------------------------------------------------


GUESSES: dict[str, tuple[float | None, str, str]] = {
    "correct": (None, "chance", "accuracy"),  # what needs no model is drawn in its place
    "nll": (0.6931, "ln 2", "negative log-likelihood (nats)"),
    "auc": (0.5, "chance", "AUC"),
}
"""By measure: what a guess gets, what that is called, and the measure's name on an axis."""


def measure_figure(
    answers: pd.DataFrame, series: str, measure: str, x_title: str, by: str = "", **options: Any
) -> Any:
    """A measure of `GUESSES` by number of examples, a line a `series`, a panel a `by` and study."""
    panelled = answers.assign(panel=panel(answers, *[by] * bool(by)))
    points = summary(panelled, ["panel", series, "shots"], measure)
    guess, name, title = GUESSES[measure]
    return figures.curve(
        points,
        "shots",
        series,
        facet="panel" if points["panel"].any() else "",
        chance=guess,
        chance_name=name,
        x_title=x_title,
        y_title=title,
        note=stats.caption(points),
        **options,
    )


def accuracy_figure(
    answers: pd.DataFrame,
    studies: Sequence[Study],
    series: str,
    *,
    x_title: str,
    draws: bool = True,
    **options: Any,
) -> Any:
    """`measure_figure` of accuracy by domain, with small marks for single `draws`.

    Thin lines are what needs no model: the constant predictor and the training pool's best cue.
    """
    panelled = answers.assign(panel=panel(answers, "domain"))
    if draws:
        drawn = panelled[panelled["draw"] != ""]
        options["draws"] = of_draws(drawn, ["panel", series, "shots"])
    floors = each(studies, lambda study: baselines.floors(task_of(study)))
    places = panelled[["study", "domain", "panel"]].drop_duplicates()
    rules = places.merge(floors, on=["study", "domain"])
    return measure_figure(answers, series, "correct", x_title, "domain", rules=rules, **options)


def reliability_figure(answers: pd.DataFrame, studies: Sequence[Study], what: str) -> Any:
    """Confidence against accuracy with the most examples, all draws together; `what` they are."""
    most = ends(answers)
    bins = pd.concat(
        metrics.reliability(part[metrics.LOGP].to_numpy(), part["label"].to_numpy()).assign(
            study=str(study), domain=str(domain)
        )
        for (study, domain), part in most.groupby(["study", "domain"], sort=False)
    )
    few = int(min(30, bins.groupby("study")["n"].max().min()))  # a bin with fewer says nothing
    sizes = " and ".join(f"{n:,}" for n in most["shots"].unique())
    draws = most.groupby("study")["draw"].nunique().max()
    return figures.panels(
        bins[bins["n"] >= few],
        facet(studies),
        lambda part, note: figures.reliability(
            part, "domain", note=note, size=250 if len(studies) > 1 else 340
        ),
        note=f"{sizes} {what}, {draws} draws; bins of at least {few} predictions",
        columns=2,
    )


def losses(course: pd.DataFrame) -> pd.DataFrame:
    """Learning curves with a row a `set` ("train", "validation"), its loss as `loss`."""
    sets = ("train", "validation")
    return pd.concat(
        [course.assign(set=name, loss=course[f"{name}_loss"]) for name in sets], ignore_index=True
    )


def loss_figure(
    course: pd.DataFrame, studies: Sequence[Study], series: str, panel: str, note: str = ""
) -> Any:
    """Mean loss (nats) of `losses` by update, a line a `series`, a panel a value of `panel`."""
    means = stats.over_draws(course, ["study", panel, series, "update"], "loss")
    return by_study(
        figures.loss_curve,
        means,
        studies,
        "update",
        series,
        facet=panel,
        x_title="updates",
        y_title="loss (nats)",
        note=f"{note}{stats.caption(means)}",
    )


# --- the luck of the draw ----------------------------------------------------------------------


def single_draws(rows: pd.DataFrame, study: Study, sizes: Sequence[int]) -> pd.DataFrame:
    """A study's runs with these numbers of examples, with their in-domain measurements.

    `validity` is the share of a run's own examples whose label the negation rule predicts.
    """
    single = rows_at(by_domain(rows), study=study.study, domain=tasks.DOMAINS[0])
    single = single[single["shots"].isin(list(sizes))]
    pool = task_of(study).train
    pool = pool.assign(right=baselines.negation_rule(pool) == pool["label"])
    drawn = zip(single["shots"], single["data_seed"], strict=True)
    return single.assign(validity=[tasks.sample(pool, *one)["right"].mean() for one in drawn])


def luck_by_size(single: pd.DataFrame) -> dict[Any, stats.Interval]:
    """By number of examples, the correlation of accuracy with `validity`, of `single_draws`.

    The intervals hold together.
    """
    level = stats.together(single["shots"].nunique())
    return {
        shots: stats.correlation(part["validity"], part["accuracy"], level)
        for shots, part in single.groupby("shots")
    }


def correlations(found: Mapping[int, stats.Interval]) -> str:
    """Correlations over draws by number of examples: `0.71 [0.20, 0.92] with 8 examples`."""
    answers = []
    for size, r in found.items():
        text = str(r)
        if not np.isfinite(r.lo):
            text += f" ({r.draws} draws, no interval)"
        if not np.isfinite(r.mean):
            text = "not defined, as one of them does not vary,"
        answers.append(f"{text} with {size:,} examples")
    return ", ".join(answers)


def luck(results: Results, studies: Sequence[Study], sizes: Sizes, x_title: str) -> Any:
    """Accuracy against `validity` in-domain, a panel a number of examples; with correlations."""
    single = pd.concat([single_draws(results.rows, study, sizes(study)) for study in studies])

    def found(study: Study) -> str:
        by_size = luck_by_size(rows_at(single, study=study.study))
        return (
            "Correlation, over draws, of in-domain accuracy with how well the negation rule "
            f"predicts the draw's own labels: {correlations(by_size)} (Pearson's r with Fisher's "
            "interval; they hold together)."
        )

    headed(studies, found)
    single = single.assign(size=single["shots"].map("{:,} examples".format))
    return figures.scatter(
        single.assign(panel=panel(single, "size")),
        "validity",
        "accuracy",
        facet="panel",
        x_title=x_title,
        note="a dot a draw, darker where dots coincide; the line is that of least squares",
    )


# --- costs -------------------------------------------------------------------------------------


def operations(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `tokens` an answer reads, and FLOPs to adapt (`adapt`) and to answer.

    With N weights a token read costs 2 N, a token trained on 6 N, or 4 N where few weights change
    (no gradient for the others); attention is left out (Kaplan et al. 2020, arXiv:2001.08361,
    section 2.1). Every prompt is read whole.
    """
    n, tokens = rows["parameters"], rows["prefix_tokens"] + rows["query_tokens"]
    step = np.where(rows["trainable_parameters"] < n, 4, 6)
    taught = rows.get("teacher_tokens", pd.Series(0.0, index=rows.index)).fillna(0)
    adapt = n * (step * rows["train_tokens"] + 2 * taught)
    return rows.assign(tokens=tokens, adapt=adapt, answer=2 * n * tokens)


def cost_table(rows: pd.DataFrame, by: Sequence[str]) -> None:
    """Seconds, memory and weights of a run, means over runs, on what hardware."""
    timed = on_one_machine(rows)
    peak = f"peak memory, {' or '.join(timed['memory_kind'].unique())} (MiB)"
    # What the run added: the libraries' own memory is no method's.
    added = timed["peak_memory_mib"] - timed["memory_before_mib"]
    groups = timed.assign(added=added).groupby(_varying(rows, by), sort=False)
    formats = dict.fromkeys(["tokens trained on", peak, "of it the run's (MiB)"], ",.0f")
    formats |= dict.fromkeys(["training (s)", "scoring (s)"], ".2f")
    table(
        groups.agg(
            **{
                "weights trained": ("trainable_parameters", "first"),
                "tokens trained on": ("train_tokens", "mean"),
                "training (s)": ("train_seconds", "mean"),
                "scoring (s)": ("eval_seconds", "mean"),
                peak: ("peak_memory_mib", "mean"),
                "of it the run's (MiB)": ("added", "mean"),
                "runs": ("key", "size"),
            }
        ).reset_index(),
        formats,
    )
    hardware(rows, timed)


def hardware(rows: pd.DataFrame, timed: pd.DataFrame) -> None:
    """Say what the runs were done on, each machine once, and which of them were `timed`."""
    kinds = rows[["device_name", "threads", "dtype", "clock"]].drop_duplicates()
    each = [
        f"{inert.escape(name)}, {threads} thread(s), {dtype}, seconds by the {clock} clock"
        for name, threads, dtype, clock in kinds.itertuples(index=False)
    ]
    text = f"Hardware: {'; '.join(each)}."
    if len(timed) < len(rows):
        text += (
            f" Seconds and memory are those of {len(timed)} of the {len(rows)} runs, each study's "
            f"on one machine: {inert.escape(machines(timed))}."
        )
    columns = ["study", "method", "shots"]
    here = {*timed[columns].itertuples(index=False, name=None)}
    every = rows[columns].drop_duplicates().itertuples(index=False, name=None)
    of = " ({})" * (len({*rows["study"]}) > 1)
    untimed = [
        f"{method} with {shots:,} examples{of.format(inert.escape(study))}"
        for study, method, shots in every
        if (study, method, shots) not in here
    ]
    if untimed:
        text += f" Not timed there: {', '.join(untimed)}."
    tables.say(text)


def machines(rows: pd.DataFrame) -> str:
    """What the runs were made on, for a figure's note."""
    names = rows["device_name"] + ", " + rows["threads"].astype(str) + " thread(s)"
    return "; ".join(names.unique())


def own_costs(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `answers`, and costs so that what was done once is in one row only.

    The row of a recursive round holds the seconds and tokens of the rounds before it, too: here
    each has its own. A student that is asked alone and behind the context was trained once.
    """
    alike = [f.name for f in fields(Spec) if f.name not in ("rounds", "scoring", "revision")]
    ordered = rows.sort_values(["rounds", "scoring"], kind="stable")
    summed = ["train_seconds", "train_tokens", "teacher_seconds", "teacher_tokens"]
    there = [name for name in summed if name in ordered]
    ordered[there] = ordered[there].fillna(0)
    before = ordered.groupby(alike, sort=False)[there].shift(fill_value=0)
    answers = (rows["examples_per_second"] * rows["eval_seconds"]).round()
    return (ordered.assign(**(ordered[there] - before)).sort_index()).assign(answers=answers)


def effort(results: Results) -> None:
    """Say what the chapter's runs cost together, for who thinks of running them again."""
    rows = results.rows
    seconds = own_costs(rows)["train_seconds"].sum() + rows["eval_seconds"].sum()
    memory = rows["peak_memory_mib"].max()
    tables.say(
        f"The {len(rows):,} runs of this chapter took {seconds:,.0f} s of training and scoring in "
        f"all and at most {memory:,.0f} MiB ({rows['memory_kind'].iloc[0]}). Runs that the store "
        "already holds are not made again."
    )
    hardware(rows, rows)


# --- the runs of several studies and chapters --------------------------------------------------


def each(studies: Sequence[Study], frame_of: Callable[[Study], pd.DataFrame]) -> pd.DataFrame:
    """The frames of the studies one below the other, each with its study's name first."""
    frames = {study.study: frame_of(study) for study in studies}
    return pd.concat(frames, names=["study"]).reset_index("study").reset_index(drop=True)


def result_files(files: Sequence[str], studies: Sequence[Study]) -> list[Path]:
    """The other chapters' results, or the files of these names in the studies' `results`."""
    paths = [
        Path(study.results) / Path(file).name if study.results else ROOT / file
        for study in studies
        for file in files
    ]
    return list(dict.fromkeys(paths))


def by_method(
    results: Results, studies: Sequence[Study], names: Callable[[Study], Mapping[str, str]]
) -> Results:
    """Each study's runs of some groups; `names`: what `method` is, by the names of the groups."""
    parts = []
    for study in studies:
        called, part = names(study), results.part(*names(study))
        rows, answers = (
            rows_at(own, study=study.study).assign(method=own["group"].map(called))
            for own in (part.rows, part.predictions)
        )
        parts.append(Results(rows, answers, part.groups))
    return joined(parts)


def text_term(results: Results, studies: Sequence[Study]) -> Results:
    """The runs of `grids.text_term`, if any: `method`, and `term`, which is "without" or "with"."""

    def names(study: Study) -> dict[str, str]:
        there = [name for name in grids.text_term(study) if results.has(name, study.study)]
        return {name: name.split(", ")[0] for name in there}

    there = [study for study in studies if names(study)]
    if not there:
        return Results(results.rows.iloc[:0], results.predictions.iloc[:0], {})
    part = by_method(results, there, names)
    rows, answers = (
        own.assign(term=own["group"].str.extract(r", (\w+)", expand=False))
        for own in (part.rows, part.predictions)
    )
    return Results(rows, answers, part.groups)


def term_effects(
    text: Results, answers: pd.DataFrame, study: Study
) -> tuple[dict[tuple[str, str], pd.Series], dict[str, stats.Interval]]:
    """Of a study, losses on text by method and term, and what the term changes in accuracy.

    `text`: of `text_term`; `answers`: its own, with scores. The changes are in-domain.
    """
    rows = rows_at(text.rows, study=study.study)
    losses: Any = dict(iter(rows.groupby(["method", "term"], sort=False)["text_nll"]))
    changes = {}
    for method in rows["method"].unique():
        at = {"study": study.study, "domain": tasks.DOMAINS[0], "method": method}
        changes[method] = difference(answers, at | {"term": "with"}, at | {"term": "without"})
    return losses, changes


def start_nll(results: Results, study: Study) -> float:
    """The loss on plain sentences before training, nats a token."""
    return float(rows_at(results.part("zero-shot").rows, study=study.study)["text_nll"].iloc[0])


# --- what the chapters' modules share ----------------------------------------------------------


def model_of(study: Study) -> Model:
    """The study's model, loaded once a process."""
    return methods.model_of(study.model, "", study.device, study.dtype)


def minus(answers: pd.DataFrame, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """`difference` of accuracies as text; if it is not shown, with what would have been."""
    gap = difference(answers, a, b)
    return f"{gap}{unresolved(gap)}"


def against(
    answers: pd.DataFrame, by: Sequence[str], base: Mapping[str, Any], name: str = "difference"
) -> pd.DataFrame:
    """Accuracy in each group of `by`, and minus that of the group with the values of `base`.

    The differences, in the column `name`, are paired over draws and pairs; beside each, from where
    on the design would have shown one. Columns: by, accuracy, `name`, shown from, n; domain by
    domain.
    """
    lines = []
    for group in answers[list(by)].drop_duplicates().itertuples(index=False):
        own = dict(zip(by, group, strict=True))
        accuracy, first = interval(answers, **own), {**own, **base}
        gap = None if own == first else difference(answers, own, first)
        found = {name: "–" if gap is None else str(gap)}
        found["shown from"] = "–" if gap is None else stats.number(gap.detectable)
        lines.append(own | {"accuracy": str(accuracy), **found, "n": accuracy.n})
    return pd.DataFrame(lines).sort_values("domain", kind="stable", ignore_index=True)


def over(values: pd.Series) -> str:
    """The mean over draws with Student's interval, as text.

    The last word of the column's name says what is measured, and so its bounds: `held_out_kl`.
    """
    kind = str(values.name).rpartition("_")[2]
    return str(stats.t_interval(values, bounds=stats.bounds_of(kind)))


def findings(studies: Sequence[Study], lines: Callable[[Study], Sequence[str]]) -> None:
    """What a chapter found: a list a study."""
    headed(studies, lambda study: bullets(lines(study), studies))


# --- a function of one study, called with several ----------------------------------------------


def _of_each(part: Callable[..., Any], show: Callable[..., None]) -> Callable[..., None]:
    """`part`, of one `study`, as a function of several there.

    Of what is passed before the studies `part` gets the study's own: of frames and results the
    rows, of a mapping by study the entry.
    """
    place = _place(part)

    @wraps(part)
    def wrapper(*values: Any) -> None:
        before, studies, after = values[:place], values[place], values[place + 1 :]
        show(studies, lambda study: part(*(_own(one, study) for one in before), study, *after))

    return wrapper


def _place(part: Callable[..., Any]) -> int:
    """Which of the parameters is the study, `_study` where it is not used."""
    return [name.lstrip("_") for name in inspect.signature(part).parameters].index("study")


def _own(value: Any, study: Study) -> Any:
    """What is the study's of a frame, of results or of a mapping; anything else as it is."""
    if isinstance(value, dict):
        return value.get(study.study, value)
    if isinstance(value, Results):
        return replace(
            value, **{n: _own(getattr(value, n), study) for n in ("rows", "predictions")}
        )
    if isinstance(value, pd.DataFrame) and "study" in value:
        own = value["study"] == study.study
        return value if own.all() else value[own]
    return value


def text_by_study(text: Callable[..., str]) -> Callable[..., None]:
    """The text of one `study`, said of each of those that are passed for it (`headed`)."""
    return _of_each(text, headed)


def findings_by_study(lines: Callable[..., Iterable[str]]) -> Callable[..., None]:
    """What a chapter found of one `study`, as a list of each that is passed for it."""
    return _of_each(lines, lambda studies, of: findings(studies, lambda study: list(of(study))))


def table_by_study(formats: Any = None) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """The rows of one `study`, as a table of all those that are passed for it; none without any."""

    def show(studies: Sequence[Study], rows: Callable[[Study], Any]) -> None:
        if studies:
            table(each(studies, lambda study: pd.DataFrame(rows(study))), formats)

    return lambda rows: _of_each(rows, show)


def and_missing(show: Callable[..., None]) -> Callable[..., None]:
    """Before `text_by_study` or `table_by_study`: `missing` is said after it."""
    place = _place(show)

    @wraps(show)
    def wrapper(*values: Any) -> None:
        show(*values)
        missing(values[place])

    return wrapper


def where_run(*groups: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function of results and studies, for those alone that are `having` these groups' runs."""

    def of(show: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(show)
        def wrapper(results: Results, studies: Sequence[Study]) -> Any:
            there = having(results, studies, *groups)
            return show(results, there) if there else None

        return wrapper

    return of


def differences(
    answers: pd.DataFrame,
    pairs: Mapping[Any, Sequence[Mapping[str, Any]]],
    value: str = "correct",
    level: float = 0.0,
) -> dict[Any, stats.Interval]:
    """The `difference` of each pair by its name; all hold together, or each at its `level`."""
    level = level or stats.together(len(pairs))
    return {name: difference(answers, a, b, value, level) for name, (a, b) in pairs.items()}


def beside(name: str, gap: stats.Interval | None) -> dict[str, str]:
    """Two cells of a table: a difference and from where on it would be shown; or dashes."""
    texts = ("–", "–") if gap is None else (str(gap), stats.number(gap.detectable))
    return dict(zip((name, "shown from"), texts, strict=True))


def without_model(study: Study) -> pd.DataFrame:
    """What needs no language model: domain, rule (its name), accuracy.

    The floors, and the cue classifier with as many labels as a context has, on the same draws.
    """
    task = task_of(study)
    found = baselines.classifier(task, [study.context_shots], grids.draws(study))
    right = metrics.with_scores(found).groupby("domain", sort=False)["correct"].mean()
    classifier = right.reset_index(name="accuracy").assign(rule=baselines.CLASSIFIER)
    return pd.concat([baselines.floors(task), classifier], ignore_index=True)


def fidelity_by_rate(rows: pd.DataFrame, by: Sequence[str], **more: str) -> None:
    """Show how near students are to their teacher by learning rate and the columns `by`.

    `more`: further columns, and of which measurement each is the mean.
    """
    groups = rows.groupby(["study", *by, "learning_rate"], sort=False)
    measured = {"KL": "held_out_kl", "agreement": "held_out_agreement", **more}
    found = {name: groups[column].agg(over) for name, column in measured.items()}
    wide = pd.DataFrame(found | {"draws": groups.size()})
    table(wide.reset_index(names=["study", *by, "learning rate"]), {"learning rate": ".2g"})


def agreement(answers: pd.DataFrame, teacher: pd.DataFrame) -> dict[str, dict[str, str]]:
    """By method, cells with the share of each domain's pairs on which it agrees with the teacher.

    Both have one study's answers.
    """
    both = agreeing(answers, teacher)
    drawn = both.groupby(["method", "domain", "data_seed"], sort=False)["agreement"].mean()
    found: dict[str, dict[str, str]] = {}
    for (method, domain), own in drawn.groupby(["method", "domain"], sort=False):
        found.setdefault(str(method), {})[f"agreement, {domain}"] = over(own)
    return found


def moves(gaps: Mapping[str, stats.Interval]) -> dict[str, list[str]]:
    """The names by what is shown of each: it rises, falls, or neither; with the intervals."""
    found: dict[str, list[str]] = {"rises": [], "falls": [], "is not shown to change": []}
    for name, gap in gaps.items():
        kind = "rises" if gap.lo > 0 else "falls" if gap.hi < 0 else "is not shown to change"
        found[kind].append(f"{name} ({gap}{unresolved(gap)})")
    return {kind: names for kind, names in found.items() if names}
