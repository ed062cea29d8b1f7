"""The figures, tables and paragraphs of the chapter on in-context learning.

`curve` has the answers zero-shot and of ICL with every number of demonstrations
(`sections.scored`), `compared` those of the cue classifier, too.
"""

from collections.abc import Sequence
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

    Of the first study whose sentences may be printed; of others the pattern alone.
    """
    study = next(iter(sections.readable(studies)), None)
    if study is None:
        pattern = prompts.pattern_named(studies[0].pattern, studies[0].verbalizer)
        blank = pattern.fill("PREMISE", "HYPOTHESIS")
        tables.say(inert.fence(pattern.separator.join([f"{blank} LABEL WORD"] * shots + [blank])))
        return
    task, pattern = sections.task_of(study), prompts.pattern_named(study.pattern, study.verbalizer)
    demonstrations = tasks.sample(task.train, shots, study.seed)
    query = task.in_domain.iloc[0]
    text = pattern.fill(query.premise, query.hypothesis)
    before = prompts.context(pattern, demonstrations)
    tables.say(inert.fence(f"{before}{pattern.separator}{text}"))


def accuracy(curve: pd.DataFrame, compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say what demonstrations change, in-domain and out-of-domain, and what they are above."""
    sections.headed(studies, lambda study: _accuracy(curve, compared, study))
    sections.missing(studies)


def _accuracy(curve: pd.DataFrame, compared: pd.DataFrame, study: Study) -> str:
    own, most = curve[curve["study"] == study.study], study.shots[-1]
    floors = baselines.floors(sections.task_of(study)).set_index(["domain", "rule"])["accuracy"]

    def at(domain: str, shots: int) -> dict[str, Any]:
        return {"domain": domain, "shots": shots}

    def cell(domain: str, shots: int) -> stats.Interval:
        return stats.interval(sections.chosen(own, **at(domain, shots)))

    def change(domain: str) -> str:
        gap = sections.difference(own, at(domain, most), at(domain, 0))
        return f"{gap}{sections.unresolved(gap)}"

    constant = floors["in-domain", "constant"]
    clear = [f"{k}" for k in study.shots if cell("in-domain", k).lo > constant]
    above = (
        f"It is shown to be above a constant with {conclusions.joined(clear)} demonstrations."
        if clear
        else "It is not shown to be above a constant with any number of demonstrations."
    )
    text = (
        f"In-domain, accuracy is {cell('in-domain', 0)} zero-shot and {cell('in-domain', most)} "
        f"with {most} demonstrations; the difference is {change('in-domain')}. {above}"
    )
    if "out-of-domain" in set(own["domain"]):
        gap = sections.difference(own, at("in-domain", most), at("out-of-domain", most))
        text += (
            f" Out-of-domain it is {cell('out-of-domain', 0).text} zero-shot and "
            f"{cell('out-of-domain', most)} with {most} demonstrations; the difference is "
            f"{change('out-of-domain')}. With {most} demonstrations, in-domain minus out-of-domain "
            f"accuracy is {gap}."
        )
    return f"{text} {sections.above_floors(compared, study, 'method', most)}"


def learned(ruled: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say whether more than negation was learned; `ruled`: `compared` with `sections.with_rule`."""

    def text(study: Study) -> str:
        most = study.shots[-1]
        inside = {"study": study.study, "domain": "in-domain", "shots": most}
        found = conclusions.rule(
            ruled,
            {f"ICL, {most} demonstrations": inside | {"method": "ICL"}},
            inside | {"method": baselines.CLASSIFIER},
        )
        return f"{found.claim} {found.evidence}"

    sections.headed(studies, text)


def sensitivity(results: Results, studies: Sequence[Study]) -> Any:
    """A dot a run in-domain, with one number of demonstrations: draws by pattern, other orders."""
    studies = sections.having(results, studies, "orders", "patterns")
    if not studies:
        return None
    rows = pd.concat(
        [
            at_middle(results, studies).assign(what=lambda f: "pattern " + f["pattern"]),
            results.part("orders").rows.assign(what="other orders"),
            results.part("patterns").rows.assign(what=lambda f: "pattern " + f["pattern"]),
        ]
    )
    inside = by_domain(rows)
    return figures.panels(
        inside[inside["domain"] == "in-domain"],
        sections.facet(studies),
        lambda part, note: figures.dots(part, "what", "accuracy", note=note),
        note=f"{_middles(studies)} demonstrations, in-domain; {sections.floors_text(studies)}",
    )


def at_middle(results: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows of the curve with the number of demonstrations that orders and patterns have."""
    rows = results.part("ICL").rows
    middle = {study.study: grids.middle(study.shots) for study in studies}
    return rows[rows["shots"] == rows["study"].map(middle)]


def _middles(studies: Sequence[Study]) -> str:
    return conclusions.joined(
        list(dict.fromkeys(str(grids.middle(study.shots)) for study in studies))
    )


def spread(results: Results, studies: Sequence[Study]) -> None:
    """Standard deviations of accuracy: over draws, and over the orders of some of them."""
    studies = sections.having(results, studies, "orders")
    if not studies:
        return
    rows = by_domain(pd.concat([at_middle(results, studies), results.part("orders").rows]))
    of, lines = {study.study: study for study in studies}, []
    for (study, domain), part in rows.groupby(["study", "domain"], sort=False):
        drawn = part[part["order_seed"] == 0]["accuracy"]
        within = part.groupby("data_seed")["accuracy"].var().mean() ** 0.5
        lines.append(
            {
                "study": study,
                "domain": domain,
                "sd over draws": drawn.std(),
                "sd over orders": within,
                "lowest draw": drawn.min(),
                "highest draw": drawn.max(),
                "n": f"{len(drawn)} draws, {len(grids.few(of[str(study)]))} of them × 3 orders",
            }
        )
    kinds = ["sd over draws", "sd over orders", "lowest draw", "highest draw"]
    sections.table(lines, dict.fromkeys(kinds, ".3f"))


def patterns(results: Results, studies: Sequence[Study]) -> None:
    """Accuracy by pattern on the same draws, and the paired difference from the study's own."""
    studies = sections.having(results, studies, "patterns")
    if not studies:
        return
    answers = sections.scored(results.part("ICL", "patterns"))
    lines = []
    for study in studies:
        own = answers[answers["study"] == study.study]
        own = own[own["shots"] == grids.middle(study.shots)]
        own = own[own["data_seed"].isin(grids.few(study))]
        names = [study.pattern, *(n for n in prompts.PATTERNS if n != study.pattern)]
        lines += [
            {"study": study.study, **line}
            for domain in own["domain"].unique()
            for line in sections.against_first(
                own, "pattern", names, {"domain": domain}, columns=("domain", "pattern")
            )
        ]
    sections.table(lines)


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


def bias_figure(bias: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy by number of demonstrations under each correction; `bias`: `corrected`."""
    return sections.accuracy_figure(
        bias, studies, "correction", x_title="demonstrations", draws=False
    )


def bias_table(bias: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Each correction with no, some and the most demonstrations: what it changes, and the lean."""
    lines = []
    for study in studies:
        own = bias[bias["study"] == study.study]
        sizes = dict.fromkeys([0, grids.middle(study.shots), study.shots[-1]])
        for domain in own["domain"].unique():
            for shots in sizes:
                for name in own["correction"].unique():
                    at: dict[str, Any] = {"domain": domain, "shots": shots}
                    here = at | {"correction": name}
                    right = stats.interval(sections.chosen(own, **here))
                    drawn = sections.of_draws(sections.rows_at(own, **here), ["domain"])
                    gap = sections.difference(own, here, at | {"correction": "none"})
                    ends = (drawn["called"].min(), drawn["called"].max())
                    lines.append(
                        {
                            "study": study.study,
                            **at,
                            "correction": name,
                            "accuracy": str(right),
                            "minus none": "–" if name == "none" else str(gap),
                            "NLL": stats.interval(sections.chosen(own, "nll", **here)).mean,
                            "called entailed": " to ".join(stats.number(end) for end in ends),
                            "n": right.n,
                        }
                    )
    sections.table(lines)


def bias_text(bias: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say how much of what a label bias hides each correction brings out, in-domain."""

    def text(study: Study) -> str:
        own = bias[bias["study"] == study.study]
        at: dict[str, Any] = {"domain": "in-domain", "shots": study.shots[-1]}
        level = 1 - 0.05 / (own["correction"].nunique() - 1)
        gaps = {
            name: sections.difference(
                own, at | {"correction": name}, at | {"correction": "none"}, level=level
            )
            for name in own["correction"].unique()
            if name != "none"
        }
        found: dict[str, list[str]] = {"rises": [], "falls": [], "is not shown to change": []}
        for name, gap in gaps.items():
            verb = conclusions.verdict(gap, *found)
            found[verb].append(f"{CORRECTIONS[name]} ({gap}{sections.unresolved(gap)})")
        clauses = [
            f"{verb} with {conclusions.joined(names)}" for verb, names in found.items() if names
        ]
        area = stats.interval(sections.chosen(own, "auc", correction="none", **at))
        return (
            f"In-domain with {study.shots[-1]} demonstrations, accuracy "
            f"{conclusions.joined(clauses)}; in brackets is corrected minus raw accuracy, with "
            "intervals that hold together. No correction changes how the pairs are ranked: the AUC "
            f"is {area}."
        )

    sections.headed(studies, text)


def tokens(results: Results, studies: Sequence[Study]) -> Any:
    """Thousands of tokens read in a run, with every prompt whole and with the prefix read once."""
    rows = results.part("zero-shot", "ICL").rows
    queries = rows["in_domain_n"] + rows["out_of_domain_n"] + len(prompts.CONTENT_FREE)
    prefix, each = rows["prefix_tokens"], rows["query_tokens"]
    parts = [
        rows[["study", "shots"]].assign(reading=reading, tokens=count / 1e3)
        for reading, count in (
            ("every prompt whole", (prefix + each) * queries),
            ("prefix read once", prefix + each * queries),
        )
    ]
    by = ["study", "shots", "reading"]
    counted = pd.concat(parts).groupby(by, sort=False)["tokens"].mean().reset_index()
    counted = counted.sort_values("shots", kind="stable")
    return figures.panels(
        counted.assign(shots=counted["shots"].astype(str)),
        sections.facet(studies),
        lambda part, note: figures.bars(
            part,
            "shots",
            "tokens",
            "reading",
            x_title="demonstrations",
            y_title="tokens a run (thousands)",
            note=note,
        ),
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


def summary(curve: pd.DataFrame, studies: Sequence[Study]) -> None:
    """The chapter's findings in a few lines a study."""
    sections.headed(studies, lambda study: _summary(curve, studies, study))


def _summary(curve: pd.DataFrame, studies: Sequence[Study], study: Study) -> str:
    own = curve[curve["study"] == study.study]
    most, least = study.shots[-1], study.shots[0]
    inside: dict[str, Any] = {"domain": "in-domain"}
    lines = []
    if most > least:
        change = sections.difference(own, inside | {"shots": most}, inside | {"shots": least})
        lines.append(
            f"From {least} to {most} demonstrations, in-domain accuracy changes by {change} "
            "(paired over draws and pairs)."
        )
    lines.append(sections.failures(own, least, most, "demonstrations"))
    split = sections.summary(sections.by_cue(own, [study]), ["cue", "shots"])
    misled = sections.point(split, cue="cue misleads", shots=most)
    if misled != "–":
        lines.append(
            f"Where negation in the hypothesis misleads, accuracy with {most} demonstrations is "
            f"{misled}; without any use of the cue it would be that of the other pairs."
        )
    if "out-of-domain" in set(own["domain"]):
        out: dict[str, Any] = {"domain": "out-of-domain", "shots": most}
        area = stats.interval(sections.chosen(own, "auc", **out))
        right = stats.interval(sections.chosen(own, **out))
        called = sections.of_draws(sections.rows_at(own, **out), ["domain"])["called"].mean()
        lines.append(
            f"Out-of-domain with {most} demonstrations the AUC is {area} and the accuracy {right}; "
            f"{called:.2f} of the pairs are called entailed."
        )
    return "\n\n" * (len(studies) > 1) + "\n".join(f"- {line}" for line in lines)
