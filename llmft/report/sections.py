"""What several chapters show in the same way: each table and comparison is defined once.

`answers` are predictions with scores (`scored`): a row a study, run and query. `single` has a row a
study, run and domain (`results.by_domain`). Everything is shown by study where there are several.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft import ROOT, UserError, inert
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.nli import cues, tasks
from llmft.params import Study
from llmft.report import figures, stats, tables
from llmft.study import baselines, grids, methods, metrics
from llmft.study.results import Results, by_domain, joined, on_one_machine


_ADDED_UP = ("train_seconds", "train_tokens", "teacher_seconds", "teacher_tokens")


WITHIN = ("label", "subcase")
"""What the design of every test set holds fixed: as many pairs of each label (and subcase)."""

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


def scored(results: Results, name: str = "") -> pd.DataFrame:
    """The answers of a part of the results on test pairs, with `correct`, `nll`, `auc` and others.

    See `metrics.with_scores`. `name`: a method's, in place of the runs' own.
    """
    answers = results.predictions[results.predictions["split"] == "test"]
    return metrics.with_scores(answers.assign(**({"method": name} if name else {})))


def headed(studies: Sequence[Study], text: Callable[[Study], str]) -> None:
    """Say something of each study, under its name where there are several."""
    several = len(studies) > 1
    found = [(study, text(study)) for study in studies]
    heads = {study.study: f"**{inert.escape(study.study)}.** " * several for study in studies}
    if any(words for _, words in found):
        tables.say("\n\n".join(heads[study.study] + words for study, words in found if words))


def having(results: Results, studies: Sequence[Study], *groups: str) -> list[Study]:
    """The studies that made the runs of all these groups; of the others it is said what they lack.

    A study leaves runs out with its parameter `without`.
    """

    def absent(study: Study) -> list[str]:
        return [name for name in groups if not results.has(name, study.study)]

    words = "This study leaves out: {}; nothing is shown of them."
    headed(
        studies, lambda study: words.format(", ".join(lacks)) if (lacks := absent(study)) else ""
    )
    return [study for study in studies if not absent(study)]


def rows_at(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows where each column has its value."""
    return frame[np.logical_and.reduce([frame[name] == value for name, value in values.items()])]


def chosen(
    answers: pd.DataFrame, value: str = "correct", *, clusters: str = "", **where: Any
) -> stats.Sample:
    """One value by draw and example, of the rows where each column has its value.

    Examples vary within their label and subcase; `clusters="subcase"` lets whole subcases vary.

    Raises:
        UserError: there is no such row, or the runs differ in their examples.
    """
    rows = rows_at(answers, **where)
    if rows.empty:
        raise UserError(f"no run with {', '.join(f'{k} = {v}' for k, v in where.items())}")
    within = ("label",) if clusters else WITHIN
    return stats.sample(rows, value, within=within, clusters=clusters)


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


def summary(answers: pd.DataFrame, by: Sequence[str], value: str = "correct") -> pd.DataFrame:
    """The interval of `value` in each group: columns of `by`, then an Interval's fields."""
    return stats.summary(answers, by, value, within=WITHIN)


def unresolved(interval: stats.Interval, digits: int = 2) -> str:
    """Beside a difference that is not shown: the smallest that this design would have shown.

    Empty where the interval leaves out zero, or where there is none.
    """
    if not np.isfinite(interval.lo) or interval.lo > 0 or interval.hi < 0:
        return ""
    return (
        f" (a true difference of {stats.number(interval.detectable, digits)} would have been shown "
        "with 80 % power)"
    )


def against_first(
    answers: pd.DataFrame,
    column: str,
    values: Sequence[Any],
    where: Mapping[str, Any],
    *,
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """A table's lines: accuracy where `column` has each value, and the difference from the first.

    Paired over draws and pairs; `columns` are the fields that a line begins with.
    """
    first, lines = {**where, column: values[0]}, []
    for value in values:
        own = {**where, column: value}
        interval = stats.interval(chosen(answers, **own))
        gap = "–" if own == first else str(difference(answers, own, first))
        line = {name: own[name] for name in columns}
        lines.append(line | {"accuracy": str(interval), "difference": gap, "n": interval.n})
    return lines


def source(*things: Any) -> None:
    """Show the code of functions of the package: what a chapter teaches is what it runs."""
    text = "\n\n".join(inspect.getsource(thing).rstrip() for thing in things)
    tables.say(inert.fence(text, "python"))


def table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], formats: Any = None) -> None:
    """Show a table; the study's column only where there are several."""
    frame = pd.DataFrame(rows)
    if "study" in frame:  # the lines of a study together, studies in their order
        order = {study: i for i, study in enumerate(frame["study"].unique())}
        frame = frame.sort_values("study", key=lambda c: c.map(order), kind="stable")
    tables.table(frame[_varying(frame, [str(name) for name in frame])], formats or {})


def facet(studies: Sequence[Study]) -> str:
    """The column by which a figure has panels: the study's, where there are several."""
    return "study" if len(studies) > 1 else ""


def point(summary: pd.DataFrame, **where: Any) -> str:
    """`0.81 [0.78, 0.84]` of the row of a `summary` where each column has its value.

    A dash where there is none, as for pairs of a kind that a small test set lacks.
    """
    return " ".join(stats.as_text(row) for _, row in rows_at(summary, **where).iterrows()) or "–"


def accuracy_table(answers: pd.DataFrame, by: Sequence[str]) -> None:
    """Accuracy over draws and examples; the median draw, the range, and how many draws failed.

    A mean over draws of which some fail describes none of them: the last columns show that.
    """
    wide = tables.with_interval(summary(answers, by), "accuracy", 3)
    wide = wide.merge(spread(answers, by), how="left", on=list(by))
    columns = ["accuracy", "median draw", "lowest to highest", "failed draws", "n"]
    table(wide[[*by, *columns]])


def of_draws(answers: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row a run and group of `by`: draw, accuracy, called (share called entailed), constant.

    `constant` is what a constant predictor gets right at best on the same pairs.
    """
    called = answers[metrics.LOGP].to_numpy().argmax(axis=1) == 0
    groups = answers.assign(called=called).groupby([*by, "key", "draw"], sort=False)
    found = groups.agg(
        accuracy=("correct", "mean"), called=("called", "mean"), constant=("label", "mean")
    ).reset_index()
    return found.assign(constant=np.maximum(found["constant"], 1 - found["constant"]))


def spread(answers: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How the draws of each group lie: median, range, and how many failed (see `FAILED`).

    Dashes where nothing was drawn.
    """
    lines = []
    for group, part in of_draws(answers, by).groupby(list(by), sort=False):
        accuracy = part["accuracy"]
        failed = int((accuracy < part["constant"] + FAILED).sum())
        low, high = (stats.number(end, 3) for end in (accuracy.min(), accuracy.max()))
        drawn = (part["draw"] != "").all()
        lines.append(
            dict(zip(by, group, strict=True))
            | {
                "median draw": stats.number(float(accuracy.median()), 3) if drawn else "–",
                "lowest to highest": f"{low} to {high}" if drawn else "–",
                "failed draws": f"{failed} of {len(part)}" if drawn else "–",
            }
        )
    return pd.DataFrame(lines)


def learned_table(answers: pd.DataFrame, by: Sequence[str]) -> None:
    """What was learned: AUC first, then accuracy, then how far answers follow negation.

    `answers` has the columns of `with_rule`. Columns: AUC and accuracy with intervals; agreement
    with two rules of negation; the AUC of pairs without negation, where these are silent; and the
    share called entailed, mean over draws with the lowest and the highest.
    """
    wide = tables.with_interval(summary(answers, by, "auc"), "AUC")
    silent = answers[answers["silent"]]
    if len(silent):
        silent = metrics.with_scores(silent).dropna(subset="auc")  # NaN: one label only
    for name, frame in (
        ("accuracy", summary(answers, by)),
        ("agrees: either negated", summary(answers, by, "follows")),
        ("agrees: exactly one", summary(answers, by, "follows_one")),
        ("AUC, none negated", summary(silent, by, "auc")),
    ):
        one = tables.with_interval(frame, name).drop(columns="n")
        wide = wide.merge(one, how="left", on=list(by))
    shares = (
        of_draws(answers, by).groupby(list(by))["called"].agg(["mean", "min", "max"]).reset_index()
    )
    shares["called entailed"] = [
        stats.number(r["mean"])
        + f" ({stats.number(r['min'])} to {stats.number(r['max'])})" * (r["min"] < r["max"])
        for _, r in shares.iterrows()
    ]
    wide = wide.merge(shares[[*by, "called entailed"]], how="left", on=list(by))
    columns = [c for c in wide if c not in (*by, "n")]
    table(wide[[*by, *columns, "n"]])


def ends(answers: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Of these methods all answers, of the others those with the most examples."""
    most = answers.groupby("study")["shots"].transform("max")
    return answers[answers["method"].isin(names) | (answers["shots"] == most)]


def with_rule(answers: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with `follows` and `follows_one` (1 where a prediction is the rule's) and `silent`.

    Two rules that part where both sentences are negated: not entailed if either sentence is negated
    (`baselines.negation_rule`), or if exactly one is. Both are silent where neither is.
    """
    here = pd.Series(np.nan, index=answers.index)
    for study in studies:
        pairs = pd.concat(task_of(study).domains.values())
        count = baselines.negations(pairs).set_axis(pairs["id"])
        mine = answers["study"] == study.study
        here[mine] = answers["id"][mine].map(count)
    predicted = answers[metrics.LOGP].to_numpy().argmax(axis=1)
    return answers.assign(
        follows=(predicted == (here > 0)).astype(float),
        follows_one=(predicted == (here == 1)).astype(float),
        silent=here == 0,
    )


def with_silent_auc(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers `with_rule`, with the AUC among in-domain pairs without negation: `auc_silent`.

    NaN for other pairs.
    """
    quiet = answers[answers["silent"] & (answers["domain"] == tasks.DOMAINS[0])]
    if quiet.empty:
        return answers.assign(auc_silent=np.nan)
    found = metrics.with_scores(quiet)["auc"]
    return answers.assign(auc_silent=found.reindex(answers.index))


def constructions(answers: pd.DataFrame, by: Sequence[str]) -> None:
    """Out-of-domain AUC and accuracy with two intervals each: other pairs, other constructions.

    A test of constructions stands for more pairs of these constructions, or for other ones: then
    whole subcases vary, of which there are few. Where there are no subcases there is one interval,
    and where there is no out-of-domain set the pairs are in-domain ones.
    """
    domain = tasks.DOMAINS[int((answers["domain"] == tasks.DOMAINS[1]).any())]
    rows = answers[answers["domain"] == domain]
    kinds = {"these constructions": stats.THESE_CONSTRUCTIONS}
    if "subcase" in rows and not rows["subcase"].isna().all():
        kinds["new constructions"] = stats.NEW_CONSTRUCTIONS
    columns = {}
    for value, name in (("auc", "AUC"), ("correct", "accuracy")):
        for kind, design in kinds.items():
            frame = tables.with_interval(stats.summary(rows, by, value, **design), "text")
            heading = f"{name}, {kind}" if len(kinds) > 1 else name
            columns[heading] = frame.set_index(list(by))
    wide = pd.DataFrame({name: frame["text"] for name, frame in columns.items()})
    wide = wide.assign(n=next(iter(columns.values()))["n"]).reset_index()
    tables.table(wide[[*_varying(wide, by), *(c for c in wide if c not in by)]])


# --- what needs no model -----------------------------------------------------------------------


def with_classifier(
    answers: pd.DataFrame, studies: Sequence[Study], sizes: Callable[[Study], Sequence[int]]
) -> pd.DataFrame:
    """The answers, and after them those of the cue classifier, trained on the same draws.

    `sizes`: the numbers of labelled examples of a study. Its draws have the methods' ids.
    """
    parts = [answers]
    for study in studies:
        found = baselines.classifier(task_of(study), sizes(study), grids.draws(study))
        drawn = found["data_seed"].astype(str) + "-0-0"
        key = study.study + " " + found["key"]  # of two tasks they are two classifiers
        parts.append(metrics.with_scores(found).assign(draw=drawn, key=key, study=study.study))
    return pd.concat(parts, ignore_index=True)


def accuracy_figure(
    answers: pd.DataFrame,
    studies: Sequence[Study],
    series: str,
    *,
    x: str = "shots",
    x_title: str,
    draws: bool = True,
    **options: Any,
) -> Any:
    """Accuracy against the number of labelled examples, beside what needs no model.

    A panel a domain (and study), a line a value of `series`, with `draws` small marks for single
    draws; thin lines for the constant predictor and the best single cue of the training pool.
    """
    by = [*_varying(answers, ["study"]), "domain"]
    group = answers[by[0]] if len(by) == 1 else answers[by[0]] + ", " + answers[by[1]]
    panelled = answers.assign(panel=group)
    points = summary(panelled, ["panel", series, x])
    single = of_draws(panelled[panelled["draw"] != ""], ["panel", series, x])
    floors = pd.concat(
        baselines.floors(task_of(study)).assign(study=study.study) for study in studies
    )
    rules = answers[by].drop_duplicates().assign(panel=group).merge(floors, on=by)
    return figures.curve(
        points,
        x,
        series,
        facet="panel",
        chance=None,
        rules=rules,
        draws=single if draws else None,
        draws_y="accuracy",
        x_title=x_title,
        note=stats.caption(points),
        **options,
    )


def above_floors(answers: pd.DataFrame, study: Study, series: str, size: int) -> str:
    """Say how each series, with `size` examples, compares in-domain with the best single cue.

    The cue is the training pool's best; the pairs are the same.
    """
    task = task_of(study)
    rule, pairs = baselines.best_rule(task.train), task.in_domain
    right = (rule.labels(pairs) == pairs["label"]).astype(float).set_axis(pairs["id"])
    inside = answers[(answers["domain"] == tasks.DOMAINS[0]) & (answers["shots"] == size)]
    inside = inside[inside["study"] == study.study]
    inside = inside.assign(gap=inside["correct"] - inside["id"].map(right))
    found = []
    for name, part in inside.groupby(series, sort=False):
        gap = stats.interval(stats.sample(part, "gap", within=WITHIN))
        where = "above" if gap.lo > 0 else "below" if gap.hi < 0 else "not shown to differ from"
        article = "the " * (name == baselines.CLASSIFIER)
        found.append(f"{article}{name} is {where} it (minus the cue: {gap}{unresolved(gap)})")
    return (
        f"The best single cue of the training pool, *{rule.cue}*, is right on {right.mean():.2f} "
        f"of the in-domain pairs. With {size:,} labelled examples, {'; '.join(found)}."
    )


GUESSES = {
    "nll": (0.6931, "ln 2", "negative log-likelihood (nats)"),
    "auc": (0.5, "chance", "AUC"),
}
"""By measure: what a guess gets, what that is called, and the measure's name on an axis."""


def measure_figure(
    answers: pd.DataFrame, series: str, measure: str, x_title: str, by: str = ""
) -> Any:
    """A measure of `GUESSES` against the number of examples, a line a value of `series`.

    A panel a value of `by`, and a study; the dashed line is what a guess gets.
    """
    panels = [*_varying(answers, ["study"]), *([by] if by else [])]
    panel = answers[panels].agg(", ".join, axis=1) if panels else None
    panelled = answers.assign(panel="" if panel is None else panel)
    points = summary(panelled, ["panel", series, "shots"], measure)
    guess, name, title = GUESSES[measure]
    return figures.curve(
        points,
        "shots",
        series,
        facet="panel" if panels else "",
        chance=guess,
        chance_name=name,
        x_title=x_title,
        y_title=title,
        note=stats.caption(points),
    )


def ranking(
    answers: pd.DataFrame,
    studies: Sequence[Study],
    sizes: Callable[[Study], Sequence[int]],
    what: str,
) -> None:
    """Say what the most and the fewest examples change in the AUC, in a sentence a domain.

    `what` the examples are called; zero-shot's answers are those with 0 `shots`.
    """
    headed(studies, lambda study: _ranking(answers, study, sizes(study), what))


def _ranking(answers: pd.DataFrame, study: Study, sizes: Sequence[int], what: str) -> str:
    own, lines = answers[answers["study"] == study.study], []
    least, most = sizes[0], sizes[-1]
    for domain in own["domain"].unique():

        def minus(a: int, b: int, domain: str = domain) -> str:
            at = {"domain": domain, "shots": a}, {"domain": domain, "shots": b}
            gap = difference(own, *at, "auc")
            return f"{gap}{unresolved(gap)}"

        text = (
            f"{domain.capitalize()}, the AUC with {most:,} {what} minus zero-shot's is "
            f"{minus(most, 0)}"
        )
        if least < most:
            text += (
                f", with {least:,} it is {minus(least, 0)}; the AUC with {most:,} minus that with "
                f"{least:,} is {minus(most, least)}"
            )
        lines.append(f"{text}.")
    paired = "Differences are paired over draws and pairs; each interval is one by itself."
    return f"{' '.join(lines)} {paired}"


def gains_table(
    answers: pd.DataFrame, studies: Sequence[Study], sizes: Callable[[Study], Sequence[int]]
) -> None:
    """What each number of examples changes against zero-shot, and what would have been shown."""
    lines = []
    for study in studies:
        own = answers[answers["study"] == study.study]
        for domain in own["domain"].unique():
            for shots in sizes(study):
                at = {"domain": domain, "shots": shots}, {"domain": domain, "shots": 0}
                right, area = (difference(own, *at, value) for value in ("correct", "auc"))
                lines.append(
                    {
                        "study": study.study,
                        "domain": domain,
                        "shots": shots,
                        "accuracy, minus zero-shot's": str(right),
                        "accuracy: shown from": right.detectable,
                        "AUC, minus zero-shot's": str(area),
                        "AUC: shown from": area.detectable,
                        "n": right.n,
                    }
                )
    table(lines, dict.fromkeys(["accuracy: shown from", "AUC: shown from"], ".2f"))


def reliability_figure(answers: pd.DataFrame, studies: Sequence[Study], what: str) -> Any:
    """Confidence against accuracy with the most examples, all draws together; `what` they are."""
    most = answers["shots"] == answers.groupby("study")["shots"].transform("max")
    parts = answers[most].groupby(["study", "domain"], sort=False)
    bins = pd.concat(
        metrics.reliability(part[metrics.LOGP].to_numpy(), part["label"].to_numpy()).assign(
            study=str(study), domain=str(domain)
        )
        for (study, domain), part in parts
    )
    few = int(min(30, bins.groupby("study")["n"].max().min()))  # a bin with fewer says nothing
    sizes = " and ".join(str(n) for n in answers[most]["shots"].unique())
    draws = answers[most].groupby("study")["draw"].nunique().max()
    return figures.panels(
        bins[bins["n"] >= few],
        facet(studies),
        lambda part, note: figures.reliability(
            part, "domain", note=note, size=250 if len(studies) > 1 else 340
        ),
        note=f"{sizes} {what}, {draws} draws; bins of at least {few} predictions",
        columns=2,
    )


def cue_figure(answers: pd.DataFrame, studies: Sequence[Study], x_title: str) -> Any:
    """In-domain accuracy against the number of examples, where negation is right and misleads."""
    split = summary(by_cue(answers, studies), ["study", "cue", "shots"])
    return figures.curve(
        split, "shots", "cue", facet=facet(studies), x_title=x_title, note=stats.caption(split)
    )


def failures(answers: pd.DataFrame, least: int, most: int, what: str) -> str:
    """How many in-domain draws of one study's method fail, with the fewest and most examples."""
    inside = answers[answers["domain"] == tasks.DOMAINS[0]]
    found = spread(inside, ["domain", "shots"]).set_index("shots")

    def of(size: int) -> str:
        return f"{found['failed draws'][size]}"

    text = f"With {least} {what} {of(least)} draws fail (median draw {found['median draw'][least]})"
    if most > least:
        text += f", with {most} {of(most)} (median {found['median draw'][most]})"
    return f"{text}."


def floors_text(studies: Sequence[Study]) -> str:
    """For a figure's note: what a constant and the best single cue get right in each domain."""
    parts = []
    for study in studies:
        for rule, part in baselines.floors(task_of(study)).groupby("rule", sort=False):
            values = dict(zip(part["domain"], part["accuracy"].map(stats.number), strict=True))
            each = [f"{value} {domain}" for domain, value in values.items()]
            of = f" ({study.study})" * (len(studies) > 1)
            parts.append(f"{rule}{of} {' and '.join(each)}")
    return "without a model: " + "; ".join(parts)


def twins(studies: Sequence[Study]) -> None:
    """Say what the names of the subcases say of their labels, where they do."""
    headed(studies, _twins)


def _twins(study: Study) -> str:
    """Where what stands before the first `_` of a name (HANS: `le`, `sn`) fixes the label."""
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
    return f"Subcases whose names begin with {entailed} are entailed, those with {others} are not."


# --- the luck of the draw ----------------------------------------------------------------------


def validity(single: pd.DataFrame, task: tasks.Task) -> pd.Series:
    """How well the negation rule predicts the labels of each run's own examples, a share.

    `single` has `examples`, the ids of a run's labelled examples.
    """
    right = pd.Series(
        (baselines.negation_rule(task.train) == task.train["label"]).astype(float).to_numpy(),
        index=task.train["id"],
    )
    return single["examples"].map(lambda ids: float(right.loc[_ids(ids, set(right.index))].mean()))


def _ids(text: str, known: Collection[str]) -> list[str]:
    """The ids that a run's row joins with spaces; an id of a user's own data may hold some itself.

    Raises:
        UserError: some of them are none of the task's.
    """
    found, part = [], ""
    for word in text.split(" "):
        part = f"{part} {word}" if part else word
        if part in known:
            found.append(part)
            part = ""
    if part:
        raise UserError(f"the runs were made with another training pool: it has no {part[:60]!r}")
    return found


def correlations(found: Mapping[int, stats.Interval]) -> str:
    """Correlations over draws by number of examples, as text: `0.71 [0.20, 0.92] with 8 examples`.

    With the number of draws where there is no interval, and in words where one side never varies.
    """
    answers = []
    for size, r in found.items():
        text = str(r)
        if not np.isfinite(r.lo):
            text += f" ({r.draws} draws, no interval)"
        if not np.isfinite(r.mean):
            text = "not defined, as one of them does not vary,"
        answers.append(f"{text} with {size:,} examples")
    return ", ".join(answers)


def luck(
    results: Results,
    studies: Sequence[Study],
    sizes: Callable[[Study], Sequence[int]],
    x_title: str,
) -> Any:
    """In-domain accuracy of single draws against `validity`, a panel a number of examples.

    Also says the correlation in each panel, with its interval (Fisher's z).
    """
    single, parts = by_domain(results.rows), []
    for study in studies:
        mine = single[(single["study"] == study.study) & single["shots"].isin(list(sizes(study)))]
        mine = mine[mine["domain"] == tasks.DOMAINS[0]]
        parts.append(mine.assign(validity=validity(mine, task_of(study))))
    frame = pd.concat(parts, ignore_index=True)

    def found(study: Study) -> str:
        own = frame[frame["study"] == study.study]
        each = {
            size: stats.correlation(part["validity"], part["accuracy"])
            for size in sorted({int(shots) for shots in own["shots"]})
            for part in [own[own["shots"] == size]]
        }
        return (
            "Correlation, over draws, of in-domain accuracy with how well the negation rule "
            f"predicts the draw's own labels: {correlations(each)} (Pearson's r with Fisher's "
            "interval)."
        )

    headed(studies, found)
    panel = frame["shots"].map("{} examples".format)
    if len(studies) > 1:
        panel = frame["study"] + ", " + panel
    return figures.scatter(
        frame.assign(panel=panel),
        "validity",
        "accuracy",
        facet="panel",
        x_title=x_title,
        note="a dot a draw, darker where dots coincide; the line is that of least squares",
    )


def search_table(results: Results, studies: Sequence[Study], parameter: str) -> None:
    """Accuracy and likelihood on validation pairs by learning rate; which is best, which is used.

    `results`: the search's. `parameter`: the study's one that has the rate of the reported runs.
    """
    rows, by = results.rows, ["study", "learning_rate"]
    studies = [study for study in studies if study.study in set(rows["study"])]
    accuracy, nll = (
        stats.over_draws(rows, by, f"validation_{what}") for what in ("accuracy", "nll")
    )
    wide = tables.with_interval(accuracy, "accuracy", 3)
    wide["NLL"] = tables.with_interval(nll, "NLL", 3)["NLL"]
    wide = wide.rename(columns={"n": "draws", "learning_rate": "learning rate"})
    columns = [*_varying(rows, ["study"]), "learning rate", "accuracy", "NLL", "draws"]
    tables.table(wide[columns], {"learning rate": ".2g"})

    def best(study: Study) -> str:
        own, losses = (f[f["study"] == study.study] for f in (accuracy, nll))
        surest = own["learning_rate"].iloc[int(own["mean"].argmax())]
        likeliest = losses["learning_rate"].iloc[int(losses["mean"].argmin())]
        used = getattr(study, parameter)
        shots = rows[rows["study"] == study.study]["shots"].iloc[0]
        neither = ", which is best by neither" * (not np.isclose([surest, likeliest], used).any())
        return (
            f"With {shots} examples, accuracy is highest at a learning rate of {surest:.2g} and "
            f"the NLL lowest at {likeliest:.2g}; the reported runs use {used:.2g}{neither}."
        )

    headed(studies, best)


def calibration_table(results: Results, by: Sequence[str]) -> None:
    """Expected calibration error, mean over draws."""
    single = by_domain(results.rows)
    wide = tables.with_interval(stats.over_draws(single, by, "ece"), "ECE", 3)
    tables.table(wide.rename(columns={"n": "draws"})[[*_varying(wide, by), "ECE", "draws"]])


def subcases(answers: pd.DataFrame, x: str, *, x_title: str = "") -> Any:
    """A heat map of out-of-domain accuracy by subcase (rows) and `x` (columns), a panel a study.

    In-domain where the task has no other domain, and by gold label where it has no subcases: both
    show whether a model leans to one answer.
    """
    domain = tasks.DOMAINS[int((answers["domain"] == tasks.DOMAINS[1]).any())]
    own, rows = answers[answers["domain"] == domain], "subcase"
    if rows not in own or own[rows].isna().all():
        own, rows = own.assign(gold=own["label"].map(dict(enumerate(tasks.LABELS)))), "gold"
    fewest = int(own.groupby(rows)["id"].nunique().min())
    what = "subcase" if rows == "subcase" else f"label; {domain} by label, as there are no subcases"
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


def missing(studies: Sequence[Study]) -> None:
    """Say of a study without an out-of-domain set that nothing is shown of one."""
    text = "This task has no out-of-domain set: nothing is shown of one."
    headed(studies, lambda study: text * (len(task_of(study).domains) < len(tasks.DOMAINS)))


def by_cue(answers: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The in-domain answers, with a `cue` that says whether negation is right on the pair."""
    names = {True: "cue is right", False: "cue misleads"}
    parts = []
    for study in studies:
        pairs = task_of(study).in_domain
        negated = cues.table(pairs)["negation"].to_numpy() > 0
        right = dict(zip(pairs["id"], negated == (pairs["label"] == 1).to_numpy(), strict=True))
        mine = (answers["study"] == study.study) & (answers["domain"] == "in-domain")
        inside = answers[mine]
        parts.append(inside.assign(cue=inside["id"].map(right).map(names)))
    return pd.concat(parts, ignore_index=True)


def cost_table(rows: pd.DataFrame, by: Sequence[str]) -> None:
    """Seconds, memory and weights of a run, means over runs, on what hardware.

    By the columns `by`, the study's only where there are several.

    Raises:
        UserError: the runs' times cannot be compared.
    """
    timed = on_one_machine(rows)
    kind = " or ".join(timed["memory_kind"].unique())
    # What the run added: the libraries' own memory is no method's.
    added = timed["peak_memory_mib"] - timed["memory_before_mib"]
    peak, extra = f"peak memory, {kind} (MiB)", "of it the run's (MiB)"
    cost = timed.assign(added=added).groupby(_varying(rows, by), sort=False)
    table(
        cost.agg(
            **{
                "weights trained": ("trainable_parameters", "first"),
                "tokens trained on": ("train_tokens", "mean"),
                "training (s)": ("train_seconds", "mean"),
                "scoring (s)": ("eval_seconds", "mean"),
                peak: ("peak_memory_mib", "mean"),
                extra: ("added", "mean"),
                "runs": ("key", "size"),
            }
        ).reset_index(),
        {
            "tokens trained on": ",.0f",
            "training (s)": ".2f",
            "scoring (s)": ".2f",
            peak: ",.0f",
            extra: ",.0f",
        },
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
    tables.say(text)


def made(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs that were made, with `answers`; what was done once is in one row only.

    The row of a recursive round holds the seconds and tokens of the rounds before it, too: here
    each has its own.
    """
    alike = [f.name for f in fields(Spec) if f.name not in ("rounds", "revision")]
    ordered = rows.sort_values("rounds", kind="stable")
    there = [name for name in _ADDED_UP if name in ordered]
    ordered[there] = ordered[there].fillna(0)
    before = ordered.groupby(alike, sort=False)[there].shift(fill_value=0)
    answers = (rows["examples_per_second"] * rows["eval_seconds"]).round()
    return (ordered.assign(**(ordered[there] - before)).sort_index()).assign(answers=answers)


def effort(results: Results) -> None:
    """Say what the chapter's runs cost together, for who thinks of running them again."""
    rows = results.rows
    seconds = made(rows)["train_seconds"].sum() + rows["eval_seconds"].sum()
    memory = rows["peak_memory_mib"].max()
    tables.say(
        f"The {len(rows):,} runs of this chapter took {seconds:,.0f} s of training and scoring in "
        f"all and at most {memory:,.0f} MiB ({rows['memory_kind'].iloc[0]}). Runs that the store "
        "already holds are not made again."
    )
    hardware(rows, rows)


def _varying(frame: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The columns of `by`, the study's only where there are several."""
    return [name for name in by if name != "study" or len(set(frame[name])) > 1]


# --- side by side ------------------------------------------------------------------------------


def facing(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """In-domain as x, x_lo, x_hi and out-of-domain as y, y_lo, y_hi, a row a group of `by`.

    `frame` has a row a group and domain: `mean`, and lo, hi where there are intervals.
    """
    wide = frame.assign(**{c: frame.get(c, np.nan) for c in ("lo", "hi")})
    sides = [
        wide[wide["domain"] == domain][[*by, "mean", "lo", "hi"]].rename(
            columns={"mean": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"}
        )
        for axis, domain in (("x", "in-domain"), ("y", "out-of-domain"))
    ]
    return sides[0].merge(sides[1], on=list(by))


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


def costs(rows: pd.DataFrame, size: int, series: str = "group") -> pd.DataFrame:
    """A row a value of `series`, of runs with `size` examples or as near as there are, their means.

    Columns: the series, examples, to adapt (s), 1,000 answers (s), peak memory (MiB), tokens an
    answer, adapt and answer (FLOPs, see `operations`), runs.
    """
    lines = []
    for name, part in operations(rows).groupby(series, sort=False):
        near = min(part["shots"], key=lambda at: abs(np.log2(max(at, 1)) - np.log2(size)))
        own = part[part["shots"] == near]
        asked = own["examples_per_second"] * own["eval_seconds"]
        lines.append(
            {
                series: name,
                "examples": int(near),
                "to adapt (s)": own["train_seconds"].mean(),
                "1,000 answers (s)": (1_000 * own["eval_seconds"] / asked).mean(),
                "peak memory (MiB)": own["peak_memory_mib"].mean(),
                "tokens an answer": own["tokens"].mean(),
                "adapt": own["adapt"].mean(),
                "answer": own["answer"].mean(),
                "runs": len(own),
            }
        )
    return pd.DataFrame(lines)


def export(summary: pd.DataFrame, stem: Path) -> None:
    """A table with `stats.Interval`s as STEM.csv, three columns each, and STEM.tex (booktabs)."""
    plain, text = summary.copy(), summary.copy()
    for name in summary:
        if isinstance(summary[name].iloc[0], stats.Interval):
            text[name] = text[name].map(str)
            for end in ("lo", "hi"):
                plain[f"{name}_{end}"] = plain[name].map(lambda i, end=end: getattr(i, end))
            plain[name] = plain[name].map(lambda i: i.mean)
    plain.to_csv(stem.with_suffix(".csv"), index=False)
    latex = text.to_latex(index=False, float_format="%.2f", escape=True)
    stem.with_suffix(".tex").write_text(latex, encoding="utf-8")


# --- training


def where(
    frame: pd.DataFrame,
    studies: Sequence[Study],
    wanted: Callable[[Study], Mapping[str, Collection[Any]]],
) -> pd.DataFrame:
    """The rows whose columns have one of the values that are `wanted` of their study."""
    there = pd.Series(False, index=frame.index)
    for study in studies:
        own = frame["study"] == study.study
        for name, values in wanted(study).items():
            own &= frame[name].isin(list(values))
        there |= own
    return frame[there]


def only(
    results: Results,
    studies: Sequence[Study],
    wanted: Callable[[Study], Mapping[str, Collection[Any]]],
) -> Results:
    """The runs, with their predictions, whose fields have one of the values `wanted` (`where`)."""
    rows, answers = (where(f, studies, wanted) for f in (results.rows, results.predictions))
    return Results(rows, answers, results.groups)


def three(sizes: Sequence[int], between: int) -> list[int]:
    """The fewest examples, some `between`, and the most."""
    return sorted({sizes[0], between, sizes[-1]})


def losses(course: pd.DataFrame) -> pd.DataFrame:
    """Learning curves with a row a `set` ("train", "validation"), its loss as `loss`."""
    sets = ("train", "validation")
    return pd.concat(
        [course.assign(set=name, loss=course[f"{name}_loss"]) for name in sets], ignore_index=True
    )


def loss_figure(
    course: pd.DataFrame, studies: Sequence[Study], series: str, panel: str, note: str = ""
) -> Any:
    """Mean loss (nats) by update of `losses`, a line a value of `series`, a panel one of `panel`.

    The dashed line is what one half for each label pays; `note` stands before the intervals'.
    """
    means = stats.over_draws(course, ["study", panel, series, "update"], "loss")
    return figures.panels(
        means,
        facet(studies),
        lambda part, note: figures.curve(
            part,
            "update",
            series,
            facet=panel,
            doublings=False,
            chance=0.6931,
            chance_name="ln 2",
            x_title="updates",
            y_title="loss (nats)",
            note=note,
        ),
        note=f"{note}{stats.caption(means)}",
    )


def mean_loss(values: Any) -> str:
    """The mean of some runs' losses, with Student's interval, as text."""
    return str(stats.t_interval(values, bounds=(0, np.inf)))


# --- data


def each(studies: Sequence[Study], frame_of: Callable[[Study], pd.DataFrame]) -> pd.DataFrame:
    """The frames of the studies one below the other, each with its study's name first."""
    parts = []
    for study in studies:
        frame = frame_of(study).reset_index(drop=True)
        frame.insert(0, "study", study.study)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def bullets(lines: Sequence[str], studies: Sequence[Study] = ()) -> str:
    """The lines as a list in Markdown, apart from the name that `headed` puts before several."""
    return "\n\n" * (len(studies) > 1) + "\n".join(f"- {line}" for line in lines)


def result_files(files: Sequence[str], studies: Sequence[Study]) -> list[Path]:
    """The other chapters' results, "data/results/icl.csv" and others, or those of another run.

    These have the same names in the studies' `results`. Each file once.
    """
    paths = [
        Path(study.results) / Path(file).name if study.results else ROOT / file
        for study in studies
        for file in files
    ]
    return list(dict.fromkeys(paths))


# --- comparing


def by_method(
    results: Results, studies: Sequence[Study], names: Callable[[Study], Mapping[str, str]]
) -> Results:
    """Each study's runs of these groups, in their order; `method` is what the group is called.

    `names`: of a study, what each of the groups is called in the chapter.
    """
    parts = []
    for study in studies:
        called, part = names(study), results.part(*names(study))
        rows, answers = (
            own[own["study"] == study.study].assign(method=own["group"].map(called))
            for own in (part.rows, part.predictions)
        )
        parts.append(Results(rows, answers, part.groups))
    return joined(parts)


def text_term(results: Results, studies: Sequence[Study]) -> Results:
    """The runs of `grids.text_term`: `method` is the method, `term` "without" or "with".

    Of the studies that have them; nothing where none has.
    """
    studies = [study for study in studies if text_groups(results, study)]
    if not studies:
        return Results(results.rows.iloc[:0], results.predictions.iloc[:0], {})
    names = {name: name.split(", ") for study in studies for name in text_groups(results, study)}
    part = by_method(
        results,
        studies,
        lambda study: {name: names[name][0] for name in text_groups(results, study)},
    )
    terms = {name: both[1].split()[0] for name, both in names.items()}
    rows, answers = (
        own.assign(term=own["group"].map(terms)) for own in (part.rows, part.predictions)
    )
    return Results(rows, answers, part.groups)


def text_groups(results: Results, study: Study) -> list[str]:
    """The groups of `grids.text_term` that the study has runs of."""
    return [name for name in grids.text_term(study) if results.has(name, study.study)]


def term_effects(
    text: Results, answers: pd.DataFrame, study: Study
) -> tuple[dict[tuple[str, str], pd.Series], dict[str, stats.Interval]]:
    """What `conclusions.forgetting` takes of a study: losses on text, changes of accuracy.

    `answers` are those of `text`, with scores. The losses are by method and term, a value a draw;
    the changes, by method, are in-domain and paired.
    """
    rows = text.rows[text.rows["study"] == study.study]
    losses = {
        (str(method), str(term)): part["text_nll"]
        for (method, term), part in rows.groupby(["method", "term"], sort=False)
    }
    inside = {"study": study.study, "domain": tasks.DOMAINS[0]}
    changes = {}
    for method in dict.fromkeys(method for method, _ in losses):
        at = inside | {"method": method}
        changes[method] = difference(answers, at | {"term": "with"}, at | {"term": "without"})
    return losses, changes


def start_nll(results: Results, study: Study) -> float:
    """The loss on plain sentences before training, nats a token."""
    rows = results.part("zero-shot").rows
    return float(rows[rows["study"] == study.study]["text_nll"].iloc[0])


def machines(rows: pd.DataFrame) -> str:
    """What the runs were made on, for a figure's note."""
    names = rows["device_name"] + ", " + rows["threads"].astype(str) + " thread(s)"
    return "; ".join(names.unique())


# --- what the chapters' modules share ----------------------------------------------------------


def model_of(study: Study) -> Model:
    """The study's model, loaded once a process."""
    return methods.model_of(study.model, "", study.device, study.dtype)


def interval(answers: pd.DataFrame, value: str = "correct", **where: Any) -> stats.Interval:
    """The mean of `value` over draws and examples, of the rows where each column has its value."""
    return stats.interval(chosen(answers, value, **where))


def minus(answers: pd.DataFrame, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """`difference` of accuracies as text; if it is not shown, with what would have been."""
    gap = difference(answers, a, b)
    return f"{gap}{unresolved(gap)}"


def against(
    answers: pd.DataFrame, by: Sequence[str], base: Mapping[str, Any], name: str = "difference"
) -> pd.DataFrame:
    """Accuracy in each group of `by`, and minus that of the group with the values of `base`.

    The differences, in the column `name`, are paired over draws and pairs. Columns: by, accuracy,
    `name`, n; domain by domain.
    """
    lines = []
    for group in answers[list(by)].drop_duplicates().itertuples(index=False):
        own = dict(zip(by, group, strict=True))
        accuracy, first = interval(answers, **own), {**own, **base}
        gap = "–" if own == first else str(difference(answers, own, first))
        lines.append(own | {"accuracy": str(accuracy), name: gap, "n": accuracy.n})
    return pd.DataFrame(lines).sort_values("domain", kind="stable", ignore_index=True)


def over(values: pd.Series) -> str:
    """The mean over draws with Student's interval, as text.

    The last word of the column's name says what is measured, and so its bounds: `held_out_kl`.
    """
    kind = str(values.name).rpartition("_")[2]
    return str(stats.t_interval(values, bounds=stats.bounds_of(kind)))


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


def findings(studies: Sequence[Study], lines: Callable[[Study], Sequence[str]]) -> None:
    """What a chapter found: a list a study."""
    headed(studies, lambda study: bullets(lines(study), studies))
