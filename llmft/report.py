"""What several chapters show in the same way: each table and comparison is defined once.

`said` is what runs said to every query, with a column `correct` (`metrics.with_scores` of
`runs.predictions`) and the fields of the runs that are grouped by; `single` has a row a run and
domain (`runs.by_domain`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmft import UserError, cues, inert, plots, runs, stats, tables, tasks
from llmft.spec import Spec


_ADDED_UP = ("train_seconds", "train_tokens", "teacher_seconds", "teacher_tokens")


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
    said: pd.DataFrame,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    value: str = "correct",
    level: float = 0.95,
) -> stats.Interval:
    """The mean of `value` where columns are as in `a`, less that of `b`.

    Paired on the examples where both are of one domain, and on the draws where there are equally
    many.
    """
    return stats.crossed_difference(
        chosen(said, value, **a),
        chosen(said, value, **b),
        same_examples=a.get("domain") == b.get("domain"),
        level=level,
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
            f"{f'**{inert.escape(model)}.** ' if first else ''}"
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
    groups = own.groupby(["model", rows, x], sort=False, observed=True)
    found = groups["correct"].mean().reset_index()
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
        f"The {len(rows):,} runs of this chapter took {seconds:,.0f} s of training and asking in "
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
