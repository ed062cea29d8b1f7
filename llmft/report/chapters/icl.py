"""The figures, tables and paragraphs of the chapter on in-context learning.

`curve` has the answers zero-shot and of ICL with every number of demonstrations
(`sections.scored`), `compared` those of the cue classifier, too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from llmft import inert
from llmft.nli import prompts, tasks
from llmft.params import Study
from llmft.report import conclusions, figures, sections, stats, tables
from llmft.study import baselines, grids, metrics
from llmft.study.results import Results, by_domain, on_one_machine


def prompt(studies: Sequence[Study], shots: int = 2) -> None:
    """Show a whole prompt: the first draw of demonstrations, then the first in-domain pair.

    Of the first study whose sentences may be printed.
    """
    study = (sections.readable(studies) or [*studies])[0]
    task, pattern = sections.task_of(study), prompts.pattern_named(study.pattern, study.verbalizer)
    demonstrations, query = (
        sections.hide(study, pairs)
        for pairs in (tasks.sample(task.train, shots, study.seed), task.in_domain.head(1))
    )
    text = pattern.fill(query["premise"].iloc[0], query["hypothesis"].iloc[0])
    before = prompts.context(pattern, demonstrations)
    tables.say(inert.fence(f"{before}{pattern.separator}{text}"))


@sections.and_missing
@sections.text_by_study
def accuracy(curve: pd.DataFrame, compared: pd.DataFrame, study: Study) -> str:
    """Say what demonstrations change, in-domain and out-of-domain, and what they are above."""
    most = study.shots[-1]
    none: dict[str, Any] = {"domain": "in-domain", "shots": 0}
    none_out = none | {"domain": "out-of-domain"}
    many, many_out = none | {"shots": most}, none_out | {"shots": most}
    floors = sections.rows_at(
        baselines.floors(sections.task_of(study)), domain="in-domain", rule="constant"
    )
    level, constant = stats.together(len(study.shots)), floors["accuracy"].item()
    clear = [
        f"{n}"
        for n in study.shots
        if sections.interval(curve, level=level, **many | {"shots": n}).lo > constant
    ]
    above = (
        f"It is shown to be above a constant with {conclusions.joined(clear)} demonstrations "
        "(intervals that hold together)."
        if clear
        else "It is not shown to be above a constant with any number of demonstrations."
    )
    found = (
        f"In-domain, accuracy is {sections.interval(curve, **none)} zero-shot and "
        f"{sections.interval(curve, **many)} with {most} demonstrations; the difference is "
        f"{sections.minus(curve, many, none)}. {above}"
    )
    if "out-of-domain" in set(curve["domain"]):
        found += (
            f" Out-of-domain it is {sections.interval(curve, **none_out).text} zero-shot and "
            f"{sections.interval(curve, **many_out)} with {most} demonstrations; the difference "
            f"is {sections.minus(curve, many_out, none_out)}. With {most} demonstrations, "
            "in-domain minus out-of-domain accuracy is "
            f"{sections.difference(curve, many, many_out)}."
        )
    return f"{found} {sections.above_floors(compared, study, 'method', most)}"


@sections.text_by_study
def learned(ruled: pd.DataFrame, study: Study) -> str:
    """Say whether more than negation was learned; `ruled`: `compared` with `sections.with_rule`."""
    most = study.shots[-1]
    inside = {"domain": "in-domain", "shots": most}
    found = conclusions.rule(
        ruled,
        {f"ICL with {most} demonstrations": inside | {"method": "ICL"}},
        inside | {"method": baselines.CLASSIFIER},
    )
    return f"{found.claim} {found.evidence}"


# --- other orders, other patterns --------------------------------------------------------------


def at_middle(frame: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with the number of demonstrations that orders and patterns have."""
    return sections.where(frame, studies, lambda study: {"shots": [grids.middle(study.shots)]})


@sections.where_run("orders", "patterns")
def sensitivity(results: Results, studies: Sequence[Study]) -> Any:
    """A dot a run in-domain, with one number of demonstrations: draws by pattern, other orders."""
    rows = at_middle(results.part("ICL", "orders", "patterns").rows, studies)
    what = ("pattern " + rows["pattern"]).where(rows["group"] != "orders", "other orders")
    inside = by_domain(rows.assign(what=what)).query("domain == 'in-domain'")
    middles = dict.fromkeys(str(grids.middle(study.shots)) for study in studies)
    return sections.by_study(
        figures.dots,
        inside,
        studies,
        "what",
        "accuracy",
        note=f"{conclusions.joined(list(middles))} demonstrations, in-domain; "
        f"{sections.floors_text(studies)}",
    )


@sections.where_run("orders")
@sections.table_by_study(
    dict.fromkeys(["sd over draws", "sd over orders", "lowest draw", "highest draw"], ".3f")
)
def spread(results: Results, study: Study) -> Iterator[dict[str, Any]]:
    """Standard deviations of accuracy: over draws, and over the orders of some of them."""
    rows = by_domain(at_middle(results.part("ICL", "orders").rows, [study]))
    for domain, part in rows.groupby("domain", sort=False):
        drawn = part[part["order_seed"] == 0]["accuracy"]
        yield {
            "domain": domain,
            "sd over draws": drawn.std(),
            "sd over orders": part.groupby("data_seed")["accuracy"].var().mean() ** 0.5,
            "lowest draw": drawn.min(),
            "highest draw": drawn.max(),
            "n": f"{len(drawn)} draws, {len(grids.few(study))} of them × 3 orders",
        }


@sections.where_run("patterns")
@sections.table_by_study()
def patterns(results: Results, study: Study) -> pd.DataFrame:
    """Accuracy by pattern on the same draws, and the paired difference from the study's own."""
    own = at_middle(sections.scored(results.part("ICL", "patterns")), [study])
    own = own[own["data_seed"].isin(grids.few(study))]
    found = sections.against(own, ["domain", "pattern"], {"pattern": study.pattern})
    return sections.across(found, ["pattern"])


# --- label bias --------------------------------------------------------------------------------


CORRECTIONS = {
    "contextual": "contextual calibration",
    "batch": "batch calibration",
    "threshold": "a fitted threshold",
}
"""The corrections of label bias in a sentence."""


def corrected(results: Results) -> pd.DataFrame:
    """The answers zero-shot and of ICL with each correction of label bias, with scores.

    `correction` names it (`metrics.CORRECTIONS`); a study without validation runs has no threshold.
    """
    answers = results.part("zero-shot", "ICL").predictions.assign(method="ICL")
    own = ["study", "shots", "data_seed"]
    validation = results.predictions[results.predictions["domain"] == "validation"]
    keys = answers[[*own, "key"]].drop_duplicates().rename(columns={"key": "of"})
    fitted_on = validation.merge(keys, on=own)
    every = metrics.with_corrections(answers, fitted_on).groupby("correction", sort=False)
    # One by one: an AUC is of the answers to each pair once.
    return pd.concat([metrics.with_scores(part) for _, part in every], ignore_index=True)


@sections.table_by_study()
def bias_table(bias: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Each correction with no, some and the most demonstrations: what it changes, and the lean.

    `bias`: `corrected`.
    """
    by, sizes = ["domain", "shots", "correction"], [0, grids.middle(study.shots), study.shots[-1]]
    own = bias[bias["shots"].isin(sizes)]
    accuracy = sections.against(own, by, {"correction": "none"}, "minus none")
    called = sections.of_draws(own, by).groupby(by)["called"].agg(["min", "max"])
    ends = called["min"].map(stats.number) + " to " + called["max"].map(stats.number)
    more = pd.DataFrame({"NLL": own.groupby(by)["nll"].mean(), "called entailed": ends})
    wide = accuracy.join(more, on=by).sort_values(["domain", "shots"], kind="stable")
    return wide[[*(name for name in wide if name != "n"), "n"]]


@sections.text_by_study
def bias_text(bias: pd.DataFrame, study: Study) -> str:
    """Say how much of what a label bias hides each correction brings out, in-domain."""
    raw: dict[str, Any] = {
        "domain": "in-domain",
        "shots": study.shots[-1],
        "correction": "none",
    }
    names = [name for name in bias["correction"].unique() if name != "none"]
    pairs = {CORRECTIONS[name]: (raw | {"correction": name}, raw) for name in names}
    found = sections.moves(sections.differences(bias, pairs))
    clauses = [f"{verb} with {conclusions.joined(some)}" for verb, some in found.items()]
    return (
        f"In-domain with {study.shots[-1]} demonstrations, accuracy "
        f"{conclusions.joined(clauses)}; in brackets is corrected minus raw accuracy, with "
        "intervals that hold together. No correction changes how the pairs are ranked: the AUC "
        f"is {sections.interval(bias, 'auc', **raw)}."
    )


# --- costs and findings ------------------------------------------------------------------------


def tokens(results: Results, studies: Sequence[Study]) -> Any:
    """Thousands of tokens read in a run, with every prompt whole and with the prefix read once."""
    rows = results.part("zero-shot", "ICL").rows
    queries = rows["in_domain_n"] + rows["out_of_domain_n"] + len(prompts.CONTENT_FREE)
    prefix, each = rows["prefix_tokens"], rows["query_tokens"]
    readings = {
        "every prompt whole": (prefix + each) * queries / 1e3,
        "prefix read once": (prefix + each * queries) / 1e3,
    }
    means = rows.assign(**readings).groupby(["study", "shots"], sort=False)[[*readings]].mean()
    counted = means.reset_index().melt(["study", "shots"], var_name="reading", value_name="tokens")
    counted = counted.sort_values("shots", kind="stable")
    return sections.by_study(
        figures.bars,
        counted.assign(shots=counted["shots"].astype(str)),
        studies,
        "shots",
        "tokens",
        "reading",
        x_title="demonstrations",
        y_title="tokens a run (thousands)",
        note=f"{conclusions.joined([f'{int(n):,}' for n in queries.unique()])} queries a run",
    )


def cost(results: Results) -> None:
    """Tokens, seconds and memory of a run by number of demonstrations, means over draws."""
    rows = results.part("zero-shot", "ICL").rows
    timed = on_one_machine(rows)
    peak = f"peak memory, {' or '.join(timed['memory_kind'].unique())} (MiB)"
    whole = timed.groupby(["study", "shots"], sort=False).agg(
        **{
            "prefix tokens": ("prefix_tokens", "mean"),
            "tokens a query": ("query_tokens", "mean"),
            "seconds a run": ("eval_seconds", "mean"),
            "queries a second": ("examples_per_second", "mean"),
            peak: ("peak_memory_mib", "mean"),
            "runs": ("key", "size"),
        }
    )
    formats = dict.fromkeys(["prefix tokens", "queries a second", peak], ",.0f")
    formats |= {"tokens a query": ".1f", "seconds a run": ".1f"}
    sections.table(whole.reset_index(), formats)
    sections.hardware(rows, timed)


@sections.findings_by_study
def summary(curve: pd.DataFrame, study: Study) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    most, least = study.shots[-1], study.shots[0]
    inside: dict[str, Any] = {"domain": "in-domain", "shots": most}
    out = inside | {"domain": "out-of-domain"}
    if most > least:
        change = sections.minus(curve, inside, inside | {"shots": least})
        yield (
            f"From {least} to {most} demonstrations, in-domain accuracy changes by {change}, "
            "paired over draws and pairs."
        )
    yield sections.failures(curve, least, most, "demonstrations")
    split = sections.summary(sections.by_cue(curve, [study]), ["cue", "shots"])
    right, misled = (
        sections.point(split, cue=cue, shots=most) for cue in ("cue is right", "cue misleads")
    )
    if misled != "–":
        yield (
            f"With {most} demonstrations, accuracy is {right} where negation in the hypothesis "
            f"gives the right answer, and {misled} where it misleads. A model that follows the "
            "cue has the first far above the second; a lean to one answer moves the two apart in "
            "either direction."
        )
    if "out-of-domain" in set(curve["domain"]):
        called = sections.of_draws(sections.rows_at(curve, **out), ["domain"])["called"].mean()
        yield (
            f"Out-of-domain with {most} demonstrations the AUC is "
            f"{sections.interval(curve, 'auc', **out)} and the accuracy "
            f"{sections.interval(curve, **out)}; {called:.2f} of the pairs are called entailed."
        )
