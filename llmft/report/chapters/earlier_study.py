"""The figures, tables and paragraphs of the chapter on the earlier study.

What its published numbers say: `published` is `prior.read`, `accuracy` its `prior.summary`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom

from llmft.nli import tasks
from llmft.params import Study
from llmft.report import figures, prior, sections, stats, tables
from llmft.study import grids


RUN = ["method", "model", "shots"]
"""What tells the published runs apart, but for their repeats."""


# --- what 50 pairs can tell --------------------------------------------------------------------


def accuracy_figure(accuracy: pd.DataFrame) -> Any:
    """Accuracy against the number of examples, of the methods that were repeated."""
    repeated = accuracy[accuracy["draws"] > 0]
    panels = repeated.assign(panel=repeated["model"] + ", " + repeated["domain"])
    ends = [np.floor(10 * repeated["lo"].min()) / 10, np.ceil(10 * repeated["hi"].max()) / 10]
    small, large = (
        figures.curve(
            panels[panels["model"] == model],
            "shots",
            "method",
            facet="panel",
            x_title="examples",
            height=210,
            y_domain=ends,
            note=note,
        )
        for model, note in (("opt-125m", ""), ("opt-350m", stats.caption(repeated)))
    )
    return figures.stack([small, large])


def single_figure(accuracy: pd.DataFrame) -> Any:
    """Accuracy of the methods with one run each."""
    single = accuracy[accuracy["draws"] == 0].sort_values("model", kind="stable")
    names = [
        f"{method}, {k:,} queries" if k else method
        for method, k in zip(single["method"], single["shots"], strict=True)
    ]
    return figures.forest(
        single.assign(run=names), "run", "domain", group="model", note=stats.caption(single)
    )


def accuracy_table(published: pd.DataFrame) -> None:
    """Accuracy with the interval that 50 pairs allow, and with that of the repeats alone."""
    lines = []
    for group, part in published.groupby(RUN, sort=False):
        line: dict[str, Any] = dict(zip(RUN, group, strict=True))
        for domain, own in part.groupby("domain")["accuracy"]:
            over = stats.t_interval(own, bounds=(0, 1))
            line[str(domain)] = str(prior.interval(own))
            line[f"{domain} [repeats]"] = f"[{over.lo:.2f}, {over.hi:.2f}]" if len(own) > 1 else "–"
        lines.append(line | {"n": prior.interval(own).n})
    tables.table(pd.DataFrame(lines).rename(columns={"shots": "examples"}))


def apart(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The points whose interval excludes one half."""
    return accuracy[(accuracy["lo"] > 0.5) | (accuracy["hi"] < 0.5)]


def chance(accuracy: pd.DataFrame) -> None:
    """Say how many points can be told from chance, and why so few."""
    repeated = accuracy[accuracy["draws"] > 0]
    n = prior.EXAMPLES
    enough = next(k for k in range(n) if stats.wilson(k, n).lo > 0.5)
    independent = stats.wilson(0.5 * 10 * n, 10 * n)
    tables.say(
        f"Of the {len(accuracy)} points, {len(apart(accuracy)) or 'none'} can be told from chance. "
        f"With {n} pairs a run has to be right on {enough} of them, an accuracy of "
        f"{enough / n:.2f}, before its interval excludes one half; the best mean of ten is "
        f"{repeated['mean'].max():.2f}. The median interval of such a mean is "
        f"{(repeated['hi'] - repeated['lo']).median():.2f} wide. Counting the repeats as new pairs "
        f"would make it {independent.hi - independent.lo:.2f}, and would be wrong."
    )


# --- what the models predicted -----------------------------------------------------------------


def solved(published: pd.DataFrame) -> pd.DataFrame:
    """The runs whose predictions follow from their loss: those that generated text."""
    return published.dropna(subset="kind")


def constants_of(published: pd.DataFrame) -> list[float]:
    """The two out-of-domain accuracies of a constant, that of “Yes” first.

    It is the share of the pairs that are entailed, the same in all runs.
    """
    own = solved(published)
    entailed = float(own[own["domain"] == "out-of-domain"]["entailed"].min())
    return [entailed, 1 - entailed]


def as_constant(accuracies: pd.Series, published: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which out-of-domain accuracies are exactly a constant's; (n,)."""
    near = np.isclose(accuracies.to_numpy()[:, None], constants_of(published))
    return np.asarray(near.any(axis=1))


def losses(published: pd.DataFrame) -> None:
    """Say that the losses can be solved, and that they agree on the pairs' labels."""
    own = solved(published)
    shares = own.groupby("domain", sort=False)["entailed"].agg(["min", "max"])
    found = [
        " to ".join(dict.fromkeys([f"{low:.0%}", f"{high:.0%}"])) + f" {domain}"
        for domain, low, high in shares.itertuples()
    ]
    tables.say(
        f"All {len(own)} losses of generated answers can be solved. They agree on "
        f"how many of the pairs are entailed: {' and '.join(found)}, in every run of every method, "
        "as it has to be if all were scored on the same pairs, which the code draws once and "
        "@eq-earlier-variance supposes. A constant “No” scores "
        f"{constants_of(published)[1]:.2f} out-of-domain."
    )


def share_figure(published: pd.DataFrame) -> Any:
    """The share of out-of-domain pairs that each run called entailed, a dot a run."""
    own = solved(published)
    out = own[(own["domain"] == "out-of-domain") & (own["kind"] != "always wrong")]
    demonstrations = "ICL, " + out["shots"].astype(str)
    return figures.dots(
        out.assign(column=out["method"].mask(out["method"] == "ICL", demonstrations)),
        "column",
        "share_entailment",
        chance=constants_of(published)[0],
        y_domain=[0, 1],
        chance_name="true share",
        y_title="share called entailed",
        note=f"{len(out)} runs of both models, one dot each, {prior.EXAMPLES} pairs a run",
    )


def constants_table(published: pd.DataFrame) -> None:
    """How many runs of each method are constant, always wrong, or as accurate as a constant."""
    demonstrations = "ICL, " + published["shots"].astype(str) + " shots"
    names = published["method"].mask(published["method"] == "ICL", demonstrations)
    lines = []
    for name, part in published.groupby(names, sort=False):
        inside, out = (part[part["domain"] == domain] for domain in tasks.DOMAINS)
        counts: dict[str, Any] = {
            "constant, in-domain": (inside["kind"] == "constant").sum(),
            "constant, out-of-domain": (out["kind"] == "constant").sum(),
            "always wrong": (out["kind"] == "always wrong").sum(),
        }
        if part["kind"].isna().all():
            counts = dict.fromkeys(counts, "–")
        same = as_constant(out["accuracy"], published)
        lines.append(
            {"method": name, "runs": len(out)}
            | {column: f"{count}" for column, count in counts.items()}
            | {"accuracy of a constant": f"{same.sum()} ({same.mean():.0%})"}
        )
    tables.table(pd.DataFrame(lines))


def longest(published: pd.DataFrame) -> pd.DataFrame:
    """The rows of ICL with the most demonstrations."""
    own: pd.DataFrame = published[published["method"] == "ICL"]
    most: pd.DataFrame = own[own["shots"] == own["shots"].max()]
    return most


def constants(published: pd.DataFrame) -> None:
    """Say what the constants mean for the study's conclusions."""
    most, n = longest(published), prior.EXAMPLES
    guess = sum(binom.pmf(round(share * n), n, 0.5) for share in constants_of(published))
    out = published[published["domain"] == "out-of-domain"]
    same = as_constant(out[out["kind"].isna()]["accuracy"], published)
    students = out[out["method"].isin(["distilled", "recursive"])]
    best = students[np.isclose(students["accuracy"], students["accuracy"].max())]
    zero = " and ".join(f"{a:.2f}" for a in out[out["method"] == "zero-shot"]["accuracy"])
    tables.say(
        f"With {most['shots'].iloc[0]} demonstrations, {(most['kind'] == 'constant').sum()} of "
        f"{len(most)} evaluations are of a constant and {(most['kind'] == 'always wrong').sum()} "
        "are wrong throughout: no run answers its query. Of the trained classifiers "
        f"{same.mean():.0%} have a constant's accuracy out-of-domain; guessing would give that to "
        f"{guess:.0%}, so many of these, too, are likely to be constants. The study's headline was "
        "that distillation is more accurate out-of-domain than zero-shot. The best accuracy of a "
        f"distillation there, {best['accuracy'].iloc[0]:.2f}, is that of the constant “No”, and "
        f"{(best['kind'] == 'constant').sum()} of the {len(best)} runs that reach it are that "
        f"constant; zero-shot has {zero}, on the same {n} pairs."
    )


# --- what was trained --------------------------------------------------------------------------


def loss_figure(history: pd.DataFrame) -> Any:
    """Training loss by epoch, OPT-125m with 8 examples; `history`: `prior.histories`."""
    epochs = history["epoch"].isin([1, 2, 5, 10, 20, 40])
    own = history[(history["model"] == "opt-125m") & (history["shots"] == 8) & epochs]
    course = stats.over_draws(own, ["method", "epoch"], "train_loss")
    return figures.loss_curve(
        course,
        "epoch",
        "method",
        x_title="epochs",
        y_title="training loss (nats)",
        note=stats.caption(course),
    )


def trained(published: pd.DataFrame) -> pd.DataFrame:
    """A row a run that was trained from labels."""
    labelled = published["method"].isin(["full", "LoRA"])
    return published[(published["domain"] == "in-domain") & labelled]


def updates_table(published: pd.DataFrame) -> None:
    """Batch, optimiser steps and training loss by model and number of examples."""
    groups = trained(published).groupby(RUN, sort=False)
    table = pd.DataFrame(
        {
            "batch": groups["batch"].mean().round().astype(int),
            "steps": groups["updates"].mean().round(-1),
            "training loss": groups["train_loss"].agg(sections.over),
        }
    )
    names = ["method", "model", "examples"]
    tables.table(table.rename_axis(names).reset_index(), {"steps": ",.0f"})


def updates(published: pd.DataFrame) -> None:
    """Say how the two methods' training losses and steps differ."""
    steps = trained(published).groupby(["model", "shots"])["updates"].mean()
    loss = trained(published).groupby(["method", "model"])["train_loss"].mean()
    tables.say(
        f"LoRA's mean training loss is {loss['LoRA', 'opt-125m']:.2f} nats with OPT-125m and "
        f"{loss['LoRA', 'opt-350m']:.2f} with OPT-350m, against {loss['full', 'opt-125m']:.2f} and "
        f"{loss['full', 'opt-350m']:.2f} of full fine-tuning and ln 2 = {np.log(2):.2f} of not "
        "knowing. And the batch shrank as the model and the sample grew, so one run has "
        f"{steps.min():.0f} steps and another {steps.max():.0f}: along the number of examples, two "
        "things change."
    )


# --- beside Mosbach et al. ---------------------------------------------------------------------


DESIGNS = {
    "models": ("OPT, 125 million to 30 billion parameters", "OPT-125m, OPT-350m"),
    "demonstrations": ("2, 16, 32; balanced", "2, 4, 8, 16; not balanced"),
    "training examples": ("16 to 128; not balanced", "2, 4, 8, 16; not balanced"),
    "draws": ("10", "10; 1 for distillation"),
    "in-domain pairs": ("6,692 (MultiNLI matched, binary)", f"{prior.EXAMPLES}"),
    "out-of-domain pairs": ("all of HANS's lexical overlap, by label", f"{prior.EXAMPLES}"),
    "learning rate, full / LoRA": ("1e-5 / 2e-4", "1e-5 / 1e-5"),
    "validation on": ("the reported sets", "10 of the reported pairs"),
}
"""What Mosbach et al. 2023 did, and what the earlier study did."""


def designs(studies: Sequence[Study]) -> None:
    """The design of three comparisons."""
    columns = ["Mosbach et al. 2023", "the earlier study"]
    table = pd.DataFrame.from_dict(DESIGNS, orient="index", columns=columns)
    for study in studies:
        table[f"this book, {study.study}"] = pd.Series(_design(study))
    tables.table(table.reset_index(names=""))


def _design(study: Study) -> dict[str, str]:
    task = sections.task_of(study)
    few, out = len(grids.few(study)), task.out_of_domain
    by = ", by subcase" * ("subcase" in out)
    return {
        "models": study.model,
        "demonstrations": f"{', '.join(map(str, study.shots))}; balanced",
        "training examples": f"{study.train_shots[0]} to {study.train_shots[-1]}; balanced",
        "draws": f"{study.repeats}; {few} where bugs are shown",
        "in-domain pairs": f"{len(task.in_domain):,}",
        "out-of-domain pairs": f"{len(out):,}" + by if len(out) else "none",
        "learning rate, full / LoRA": f"{study.learning_rate:g} / {study.lora_learning_rate:g}",
        "validation on": "validation pairs of the training data",
    }


# --- what it comes to --------------------------------------------------------------------------


def summary(published: pd.DataFrame, accuracy: pd.DataFrame) -> None:
    """What the published numbers say."""
    kinds = solved(published)["kind"]
    lines = [
        f"Of the earlier study's {len(accuracy)} points, {len(apart(accuracy)) or 'none'} can be "
        f"told from chance with {prior.EXAMPLES} pairs: they do not show that a method learnt "
        "anything, nor that it did not.",
        f"{(kinds != '').mean():.0%} of the evaluations of generated answers are of a constant or "
        f"of a run that is wrong throughout; with {longest(published)['shots'].iloc[0]} "
        "demonstrations all are.",
    ]
    tables.say(sections.bullets(lines))
