"""What several chapters show in the same way: each table and comparison is defined once.

`said` is what runs said to every query, with a column `correct` (`metrics.with_scores` of
`runs.predictions`) and the fields of the runs that are grouped by; `single` has a row a run and
domain (`runs.by_domain`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft import UserError, inert
from llmft.engine.spec import Spec
from llmft.nli import cues, tasks
from llmft.report import figures, stats, tables
from llmft.study import baselines, metrics, runs


_ADDED_UP = ("train_seconds", "train_tokens", "teacher_seconds", "teacher_tokens")


WITHIN = ("label", "subcase")
"""What the design of every test set holds fixed: as many pairs of each label (and subcase)."""

FAILED = 0.05
"""A draw has failed when its accuracy is less than this above the constant predictor's."""


def chosen(
    said: pd.DataFrame, value: str = "correct", *, clusters: str = "", **where: Any
) -> stats.Sample:
    """One value by draw and example, of the rows where each column has its value.

    Examples vary within their label and subcase; `clusters="subcase"` lets whole subcases vary.

    Raises:
        UserError: there is no such row, or the runs differ in their examples.
    """
    there = np.logical_and.reduce([said[name] == wanted for name, wanted in where.items()])
    if not there.any():
        raise UserError(f"no run with {', '.join(f'{k} = {v}' for k, v in where.items())}")
    within = ("label",) if clusters else WITHIN
    return stats.sample(said[there], value, within=within, clusters=clusters)


def difference(
    said: pd.DataFrame,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    value: str = "correct",
    level: float = 0.95,
) -> stats.Interval:
    """The mean of `value` where columns are as in `a`, minus that of `b`.

    Paired on the draws, and on the examples where both are of one domain.
    """
    return stats.difference(
        chosen(said, value, **a),
        chosen(said, value, **b),
        same_examples=a.get("domain") == b.get("domain"),
        level=level,
    )


def summary(said: pd.DataFrame, by: Sequence[str], value: str = "correct") -> pd.DataFrame:
    """The interval of `value` in each group: columns of `by`, then an Interval's fields."""
    return stats.summary(said, by, value, within=WITHIN)


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


def point(summary: pd.DataFrame, **where: Any) -> str:
    """`0.81 [0.78, 0.84]` of the row of a `summary` where each column has its value.

    A dash where there is none, as for pairs of a kind that a small test set lacks.
    """
    there = np.logical_and.reduce([summary[name] == wanted for name, wanted in where.items()])
    return " ".join(stats.shown(row) for _, row in summary[there].iterrows()) or "–"


def accuracy_table(said: pd.DataFrame, by: Sequence[str]) -> None:
    """Accuracy over draws and examples; the median draw, the range, and how many draws failed.

    A mean over draws of which some fail describes none of them: the last columns show that.
    """
    wide = tables.with_interval(summary(said, by), "accuracy", 3)
    wide = wide.merge(spread(said, by), how="left", on=list(by))
    columns = ["accuracy", "median draw", "lowest to highest", "failed draws", "n"]
    tables.table(wide[[*_varying(wide, by), *columns]])


def of_draws(said: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row a run and group of `by`: draw, accuracy, called (share called entailed), constant.

    `constant` is what a constant predictor gets right at best on the same pairs.
    """
    called = said[metrics.LOGP].to_numpy().argmax(axis=1) == 0
    groups = said.assign(called=called).groupby([*by, "key", "draw"], sort=False)
    found = groups.agg(
        accuracy=("correct", "mean"), called=("called", "mean"), constant=("label", "mean")
    ).reset_index()
    return found.assign(constant=np.maximum(found["constant"], 1 - found["constant"]))


def spread(said: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How the draws of each group lie: median, range, and how many failed (see `FAILED`).

    Dashes where nothing was drawn.
    """
    lines = []
    for group, part in of_draws(said, by).groupby(list(by), sort=False):
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


def learned_table(said: pd.DataFrame, by: Sequence[str]) -> None:
    """What was learned: AUC first, then accuracy, then how far answers follow negation.

    `said` has the columns of `with_rule`. Columns: AUC and accuracy with intervals; agreement with
    two rules of negation; the AUC of pairs without negation, where these are silent; and the share
    called entailed, mean over draws with the lowest and the highest.
    """
    wide = tables.with_interval(summary(said, by, "auc"), "AUC")
    silent = said[said["silent"]]
    if len(silent):
        silent = metrics.with_scores(silent).dropna(subset="auc")  # NaN: one label only
    for name, frame in (
        ("accuracy", summary(said, by)),
        ("agrees: either negated", summary(said, by, "follows")),
        ("agrees: exactly one", summary(said, by, "follows_one")),
        ("AUC, none negated", summary(silent, by, "auc")),
    ):
        one = tables.with_interval(frame, name).drop(columns="n")
        wide = wide.merge(one, how="left", on=list(by))
    shares = (
        of_draws(said, by).groupby(list(by))["called"].agg(["mean", "min", "max"]).reset_index()
    )
    shares["called entailed"] = [
        stats.number(r["mean"])
        + f" ({stats.number(r['min'])} to {stats.number(r['max'])})" * (r["min"] < r["max"])
        for _, r in shares.iterrows()
    ]
    wide = wide.merge(shares[[*by, "called entailed"]], how="left", on=list(by))
    columns = [c for c in wide if c not in (*by, "n")]
    tables.table(wide[[*_varying(wide, by), *columns, "n"]])


def with_rule(said: pd.DataFrame, task: tasks.Task) -> pd.DataFrame:
    """The rows with `follows` and `follows_one` (1 where a prediction is the rule's) and `silent`.

    Two rules that part where both sentences are negated: not entailed if either sentence is negated
    (`baselines.negation_rule`), or if exactly one is. Both are silent where neither is.
    """
    count = pd.concat(
        [baselines.negated(pairs).set_axis(pairs["id"]) for pairs in task.domains.values()]
    )
    here = said["id"].map(count)
    predicted = said[metrics.LOGP].to_numpy().argmax(axis=1)
    return said.assign(
        follows=(predicted == (here > 0)).astype(float),
        follows_one=(predicted == (here == 1)).astype(float),
        silent=here == 0,
    )


def constructions(said: pd.DataFrame, by: Sequence[str]) -> None:
    """Out-of-domain AUC and accuracy with two intervals each: other pairs, other constructions.

    A test of constructions stands for more pairs of these constructions, or for other ones: then
    whole subcases vary, of which there are few. Where there are no subcases there is one interval,
    and where there is no out-of-domain set the pairs are in-domain ones.
    """
    domain = tasks.DOMAINS[int((said["domain"] == tasks.DOMAINS[1]).any())]
    rows = said[said["domain"] == domain]
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
    said: pd.DataFrame, task: tasks.Task, shots: Sequence[int], seeds: Sequence[int]
) -> pd.DataFrame:
    """The rows, and after them those of the cue classifier, trained on the same draws.

    It stands with every model of `said`, and its draws have the ids that they have there.
    """
    one = metrics.with_scores(baselines.classifier(task, shots, seeds))
    one = one.assign(draw=one["data_seed"].astype(str) + "-0-0")
    return pd.concat(
        [said, *(one.assign(model=m) for m in dict.fromkeys(said["model"]))], ignore_index=True
    )


def accuracy_figure(
    said: pd.DataFrame,
    task: tasks.Task,
    series: str,
    *,
    x: str = "shots",
    x_title: str,
    draws: bool = True,
    **options: Any,
) -> Any:
    """Accuracy against the number of labelled examples, beside what needs no model.

    A panel a domain (and model), a line a value of `series`, with `draws` small marks for single
    draws; thin lines for the constant predictor and the best single cue of the training pool.
    """
    by = [*_varying(said, ["model"]), "domain"]
    group = said[by[0]] if len(by) == 1 else said[by[0]] + ", " + said[by[1]]
    panelled = said.assign(panel=group)
    points = summary(panelled, ["panel", series, x])
    single = of_draws(panelled[panelled["draw"] != ""], ["panel", series, x])
    floors = baselines.floors(task)
    rules = said[by].drop_duplicates().assign(panel=group).merge(floors, on="domain")
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
        note=stats.how(points),
        **options,
    )


def above_floors(said: pd.DataFrame, task: tasks.Task, series: str, size: int) -> str:
    """Say how each series, with `size` examples, compares in-domain with the best single cue.

    `said`: rows of one model. The cue is the training pool's best; the pairs are the same.
    """
    rule, pairs = baselines.best_rule(task.train), task.in_domain
    right = (rule.labels(pairs) == pairs["label"]).astype(float).set_axis(pairs["id"])
    inside = said[(said["domain"] == tasks.DOMAINS[0]) & (said["shots"] == size)]
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


def floors_text(task: tasks.Task) -> str:
    """For a figure's note: what a constant and the best single cue get right in each domain."""
    said = []
    for rule, part in baselines.floors(task).groupby("rule", sort=False):
        values = dict(zip(part["domain"], part["accuracy"].map(stats.number), strict=True))
        each = [f"{value} {domain}" for domain, value in values.items()]
        said.append(f"{rule} {' and '.join(each)}")
    return "without a model: " + "; ".join(said)


def twins(task: tasks.Task) -> str:
    """What the names of the subcases say of their labels, where they say it; else nothing.

    Where what stands before the first `_` of a name (HANS: `le`, `sn`) fixes the label.
    """
    out = task.out_of_domain
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
    said = []
    for size, r in found.items():
        text = str(r)
        if not np.isfinite(r.lo):
            text += f" ({r.draws} draws, no interval)"
        if not np.isfinite(r.mean):
            text = "not defined, as one of them does not vary,"
        said.append(f"{text} with {size:,} examples")
    return ", ".join(said)


def luck(single: pd.DataFrame, task: tasks.Task, sizes: Sequence[int], x_title: str) -> Any:
    """In-domain accuracy of single draws against `validity`, a panel a number of examples.

    Also says the correlation in each panel, with its interval (Fisher's z).
    """
    inside = single[(single["domain"] == tasks.DOMAINS[0]) & single["shots"].isin(list(sizes))]
    frame = inside.assign(validity=validity(inside, task))
    found = {}
    for size in sorted(set(frame["shots"])):
        part = frame[frame["shots"] == size]
        found[size] = stats.correlation(part["validity"], part["accuracy"])
    tables.say(
        "Correlation, over draws, of in-domain accuracy with how well the negation rule predicts "
        f"the draw's own labels: {correlations(found)} (Pearson's r with Fisher's interval)."
    )
    panel = frame["shots"].map("{} examples".format)
    model = frame["model"] + ", " if len(set(frame["model"])) > 1 else ""
    return figures.scatter(
        frame.assign(panel=model + panel),
        "validity",
        "accuracy",
        facet="panel",
        x_title=x_title,
        note="a dot a draw, darker where dots coincide; the line is that of least squares",
    )


def search_table(rows: pd.DataFrame, used: float) -> None:
    """Accuracy and likelihood on validation pairs by learning rate; which is best, which `used`."""
    by = ["model", "learning_rate"]
    accuracy, nll = (
        stats.over_draws(rows, by, f"validation_{what}") for what in ("accuracy", "nll")
    )
    wide = tables.with_interval(accuracy, "accuracy", 3)
    wide["NLL"] = tables.with_interval(nll, "NLL", 3)["NLL"]
    wide = wide.rename(columns={"n": "draws", "learning_rate": "learning rate"})
    first = _varying(rows, ["model"])
    columns = [*first, "learning rate", "accuracy", "NLL", "draws"]
    tables.table(wide[columns], {"learning rate": ".2g"})
    for model, of_model in accuracy.groupby("model", sort=False):
        surest = of_model["learning_rate"].iloc[int(of_model["mean"].argmax())]
        losses = nll[nll["model"] == model]
        likeliest = losses["learning_rate"].iloc[int(losses["mean"].argmin())]
        tables.say(
            f"{f'**{inert.escape(model)}.** ' if first else ''}"
            f"With {rows['shots'].iloc[0]} examples, accuracy is highest at a learning rate of "
            f"{surest:.2g} and the NLL lowest at "
            f"{likeliest:.2g}; the reported runs use {used:.2g}"
            f"{', which is best by neither' * (not np.isclose([surest, likeliest], used).any())}."
        )


def calibration_table(single: pd.DataFrame, by: Sequence[str]) -> None:
    """Expected calibration error, mean over draws."""
    wide = tables.with_interval(stats.over_draws(single, by, "ece"), "ECE", 3)
    tables.table(wide.rename(columns={"n": "draws"})[[*_varying(wide, by), "ECE", "draws"]])


def subcases(said: pd.DataFrame, x: str, *, x_title: str, note: str) -> Any:
    """A heat map of out-of-domain accuracy by subcase (rows) and `x` (columns), a panel a model.

    In-domain where the task has no other domain, and by gold label where it has no subcases: both
    show whether a model leans to one answer.
    """
    domain = tasks.DOMAINS[int((said["domain"] == tasks.DOMAINS[1]).any())]
    own, rows = said[said["domain"] == domain], "subcase"
    if rows not in own or own[rows].isna().all():
        own, rows = own.assign(gold=own["label"].map(dict(enumerate(tasks.LABELS)))), "gold"
    fewest = int(own.groupby(rows)["id"].nunique().min())
    what = "subcase" if rows == "subcase" else f"label; {domain} by label, as there are no subcases"
    groups = own.groupby(["model", rows, x], sort=False, observed=True)
    found = groups["correct"].mean().reset_index()
    return figures.panels(
        found.sort_values([rows, x], kind="stable"),  # the models stay in their order
        "".join(_varying(found, ["model"])),
        lambda part, note: figures.heat(part, x, rows, "correct", x_title=x_title, note=note),
        note=f"{note}, at least {fewest:,} pair{'s' * (fewest != 1)} a {what}",
    )


def missing(task: tasks.Task) -> list[str]:
    """What a chapter says where the task has no out-of-domain set; nothing where it has one."""
    both = len(task.domains) == len(tasks.DOMAINS)
    return [] if both else ["This task has no out-of-domain set: nothing is shown of one."]


def by_cue(said: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The in-domain rows, with a column that says whether the negation cue is right on the pair."""
    negated = cues.table(pairs)["negation"].to_numpy() > 0
    right = dict(zip(pairs["id"], negated == (pairs["label"] == 1).to_numpy(), strict=True))
    inside = said[said["domain"] == "in-domain"]
    names = {True: "cue is right", False: "cue misleads"}
    return inside.assign(cue=inside["id"].map(right).map(names))


def cost_table(rows: pd.DataFrame, by: Sequence[str]) -> None:
    """Seconds, memory and weights of a run, means over runs made alone, on what hardware.

    By the columns `by`, the model's only where there are several.

    Raises:
        UserError: the runs' times cannot be compared.
    """
    kind = runs.comparable(rows)["memory_kind"].iloc[0]
    # What the run added: the libraries' own memory is no method's.
    added = rows["peak_memory_mib"] - rows["memory_before_mib"]
    found = rows.assign(added=added).groupby(_varying(rows, by), sort=False)
    cost = found.agg(
        weights=("trainable_parameters", "first"),
        tokens=("train_tokens", "mean"),
        train=("train_seconds", "mean"),
        ask=("eval_seconds", "mean"),
        peak=("peak_memory_mib", "mean"),
        added=("added", "mean"),
        runs=("key", "size"),
    ).reset_index()
    peak, extra = f"peak memory, {kind} (MiB)", "of it the run's (MiB)"
    tables.table(
        cost.rename(
            columns={
                "weights": "weights trained",
                "tokens": "tokens trained on",
                "train": "training (s)",
                "ask": "scoring (s)",
                "peak": peak,
                "added": extra,
            }
        ),
        {
            "tokens trained on": ",.0f",
            "training (s)": ".2f",
            "scoring (s)": ".2f",
            peak: ",.0f",
            extra: ",.0f",
        },
    )
    hardware(rows)


def hardware(rows: pd.DataFrame) -> None:
    """Say what the runs were made on."""
    first = rows.iloc[0]
    name = inert.escape(first["device_name"])
    tables.say(f"Hardware: {name}, {first['threads']} thread(s), {first['dtype']}.")


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


def effort(rows: pd.DataFrame) -> None:
    """Say what the chapter's runs cost together, for who thinks of running them again."""
    seconds = made(rows)["train_seconds"].sum() + rows["eval_seconds"].sum()
    memory = rows["peak_memory_mib"].max()
    tables.say(
        f"The {len(rows):,} runs of this chapter took {seconds:,.0f} s of training and scoring in "
        f"all and at most {memory:,.0f} MiB ({rows['memory_kind'].iloc[0]}). Runs that the store "
        "already holds are not made again."
    )
    hardware(rows)


def _varying(frame: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The columns of `by`, the model's only where there are several."""
    return [name for name in by if name != "model" or len(set(frame[name])) > 1]


# --- side by side ------------------------------------------------------------------------------


def ways(rows: pd.DataFrame, grids: Mapping[str, Sequence[Spec]]) -> pd.DataFrame:
    """The rows that are runs of a grid but for their draw, with the grid's name as `way`.

    `size` is the number of labelled examples. So runs that were made alone, of draws of their own,
    are found by what they are.
    """
    names = [f.name for f in fields(Spec) if f.name not in ("data_seed", "revision")]
    way_of = {
        tuple(getattr(spec, name) for name in names): way
        for way, specs in grids.items()
        for spec in specs
    }
    found = [way_of.get(row) for row in rows[names].itertuples(index=False, name=None)]
    named = rows.assign(way=pd.Series(found, index=rows.index), size=rows["shots"])
    return named[named["way"].notna()].reset_index(drop=True)


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


def costs(rows: pd.DataFrame, size: int) -> pd.DataFrame:
    """A row a way, of runs made alone with `size` examples or as near as there are, their means.

    Columns: way, examples, to adapt (s), 1,000 answers (s), peak memory (MiB), tokens an answer,
    adapt and answer (FLOPs, see `operations`), runs.
    """
    lines = []
    for way, part in operations(rows).groupby("way", sort=False):
        near = min(part["size"], key=lambda at: abs(np.log2(max(at, 1)) - np.log2(size)))
        own = part[part["size"] == near]
        asked = own["examples_per_second"] * own["eval_seconds"]
        lines.append(
            {
                "way": way,
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
