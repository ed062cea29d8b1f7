"""What several chapters show in the same way: each table and comparison is defined once.

`said` is what runs said to every query, with a column `correct` (`metrics.with_scores` of
`runs.predictions`) and the fields of the runs that are grouped by; `single` has a row a run and
domain (`runs.by_domain`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmft import UserError, cues, plots, runs, stats, tables, tasks


def chosen(said: pd.DataFrame, value: str = "correct", **where: Any) -> stats.Floats:
    """One value by run and example, (runs, examples), of the rows where each column has its value.

    Raises:
        UserError: there is none.
    """
    there = np.logical_and.reduce([said[name] == wanted for name, wanted in where.items()])
    if not there.any():
        raise UserError(f"no run with {', '.join(f'{k} = {v}' for k, v in where.items())}")
    return stats.matrix(said[there], value)


def difference(
    said: pd.DataFrame, a: Mapping[str, Any], b: Mapping[str, Any], value: str = "correct"
) -> stats.Interval:
    """The mean of `value` where columns are as in `a`, less that of `b`.

    Paired on the examples where both are of one domain, and on the draws where there are equally
    many.
    """
    return stats.crossed_difference(
        chosen(said, value, **a),
        chosen(said, value, **b),
        same_examples=a.get("domain") == b.get("domain"),
    )


def point(summary: pd.DataFrame, **where: Any) -> str:
    """`0.81 [0.78, 0.84]` of the row of a `stats.summary` where each column has its value.

    A dash where there is none, as for pairs of a kind that a small test set lacks.
    """
    there = np.logical_and.reduce([summary[name] == wanted for name, wanted in where.items()])
    rows = summary[there]
    return (
        " ".join(f"{r['mean']:.2f} [{r['lo']:.2f}, {r['hi']:.2f}]" for _, r in rows.iterrows())
        or "–"
    )


def accuracy_table(said: pd.DataFrame, single: pd.DataFrame, by: Sequence[str]) -> None:
    """Accuracy over draws and examples, over draws alone, and the spread of draws."""
    both = tables.with_interval(stats.summary(said, by), "accuracy [draws and examples]", 3)
    draws = tables.with_interval(stats.over_draws(single, by, "accuracy"), "[draws]", 3)
    spread = single.groupby(list(by))["accuracy"].std().rename("sd").reset_index()
    wide = both.merge(draws.drop(columns="n"), how="left", on=list(by))
    wide = wide.merge(spread, how="left", on=list(by))
    columns = ["accuracy [draws and examples]", "[draws]", "sd", "n"]
    tables.table(wide[[*_varying(wide, by), *columns]], {"sd": ".3f"})


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
            f"{f'**{model}.** ' if first else ''}"
            f"With {rows['shots'].iloc[0]} examples, accuracy is highest at a learning rate of "
            f"{surest:.2g} and the NLL lowest at "
            f"{likeliest:.2g}; the reported runs use {used:.2g}."
        )


def calibration_table(single: pd.DataFrame, by: Sequence[str]) -> None:
    """Expected calibration error, and the share called entailment with its lowest and highest."""
    ece = tables.with_interval(stats.over_draws(single, by, "ece"), "ECE", 3)
    shares = single.groupby(list(by))["share_entailment"].agg(["mean", "min", "max"]).reset_index()
    shares["called entailment"] = [
        f"{share['mean']:.2f} ({share['min']:.2f} to {share['max']:.2f})"
        for _, share in shares.iterrows()
    ]
    wide = ece.merge(shares, on=list(by)).rename(columns={"n": "draws"})
    tables.table(wide[[*_varying(wide, by), "ECE", "called entailment", "draws"]])


def subcases(said: pd.DataFrame, x: str, *, x_title: str, note: str) -> Any:
    """A heat map of out-of-domain accuracy by subcase (rows) and `x` (columns), a panel a model.

    In-domain where the task has no other domain, and by gold label where it has no subcases: both
    show whether a model leans to one answer.
    """
    domain = tasks.DOMAINS[int((said["domain"] == tasks.DOMAINS[1]).any())]
    own, rows = said[said["domain"] == domain], "subcase"
    if rows not in own or own[rows].isna().all():
        own, rows = own.assign(gold=own["label"].map(dict(enumerate(tasks.LABELS)))), "gold"
    fewest = own.groupby(rows)["id"].nunique().min()
    what = "subcase" if rows == "subcase" else f"label; {domain} by label, as there are no subcases"
    found = own.groupby(["model", rows, x], sort=False)["correct"].mean().reset_index()
    return plots.panels(
        found.sort_values([rows, x], kind="stable"),  # the models stay in their order
        "".join(_varying(found, ["model"])),
        lambda part, note: plots.heat(part, x, rows, "correct", x_title=x_title, note=note),
        note=f"{note}, at least {fewest:,} pairs a {what}",
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
                "ask": "asking (s)",
                "peak": peak,
                "added": extra,
            }
        ),
        {
            "tokens trained on": ",.0f",
            "training (s)": ".2f",
            "asking (s)": ".2f",
            peak: ",.0f",
            extra: ",.0f",
        },
    )
    hardware(rows)


def hardware(rows: pd.DataFrame) -> None:
    """Say what the runs were made on."""
    first = rows.iloc[0]
    tables.say(f"Hardware: {first['device_name']}, {first['threads']} thread(s), {first['dtype']}.")


def effort(rows: pd.DataFrame) -> None:
    """Say what the chapter's runs cost together, for who thinks of running them again."""
    seconds = rows["train_seconds"].sum() + rows["eval_seconds"].sum()
    memory = rows["peak_memory_mib"].max()
    tables.say(
        f"The {len(rows):,} runs of this chapter took {seconds:,.0f} s of training and asking in "
        f"all and at most {memory:,.0f} MiB ({rows['memory_kind'].iloc[0]}). Runs that the store "
        "already holds are not made again."
    )
    hardware(rows)


def _varying(frame: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The columns of `by`, the model's only where there are several."""
    return [name for name in by if name != "model" or len(set(frame[name])) > 1]
