"""The figures, tables and sentences of the chapter that sets the methods side by side.

Nothing is run: everything is computed from what the other chapters measured. `methods` are the runs
that are compared (`method` is the method's name), `compared` their answers and the cue
classifier's, `ruled` the same with what the rule of negation says.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmft import inert
from llmft.nli import tasks
from llmft.params import Study
from llmft.report import (
    compare,
    conclusions,
    figures,
    interactive,
    prior,
    sections,
    stats,
    tables,
    theme,
)
from llmft.report.conclusions import Conclusion
from llmft.report.stats import Interval
from llmft.study import baselines, grids, metrics, results
from llmft.study.results import Results, by_domain, on_one_machine


METHODS = {
    "zero-shot": "zero-shot",
    "ICL": "ICL",
    "full fine-tuning": "full",
    "LoRA": "LoRA",
    "distillation": "distilled",
    "recursive distillation": "recursive",
}
"""What is compared, in its order, and the short names for a crowded axis."""

CUES = baselines.CLASSIFIER

BY = ["study", "domain", "method", "shots"]

SHOWN = "demonstrations rank pairs better than none"
TRAINED = "training ranks pairs better than none"
APART = "training on the most examples ranks pairs better than the most demonstrations"
"""The claims of which the first conclusion is made."""

ANSWERS = 1_000
"""As many pairs are answered where a method's whole cost is counted."""


def read(files: Sequence[str], studies: Sequence[Study]) -> Results:
    """The other chapters' results: these files, or those of their names in the studies' `results`.

    Raises:
        UserError: one is not there, or cannot be read.
    """
    return results.read(sections.result_files(files, studies))


def select(found: Results, studies: Sequence[Study]) -> Results:
    """The runs that are compared, and those without and with the text term.

    LoRA and distillation are left out of a study that has no results of them; `counts` says so.

    Raises:
        UserError: the other chapters were run with other parameters.
    """
    chosen = {}
    for study in studies:
        there = set(found.rows[found.rows["study"] == study.study]["method"])
        lacking = {"lora", "distillation"} - there
        whole = grids.comparison(study)
        if "distillation" in there:  # the chapter whose runs the text term's are
            whole = whole | grids.text_term(study)
        chosen[study.study] = {
            name: specs for name, specs in whole.items() if specs[0].method not in lacking
        }
    return results.select(found, chosen)


def side_by_side(chosen: Results, studies: Sequence[Study]) -> Results:
    """The runs of `METHODS`."""
    return sections.by_method(
        chosen, studies, lambda study: {n: n for n in METHODS if chosen.has(n, study.study)}
    )


def sizes(study: Study) -> list[int]:
    """The numbers of labelled examples that the cue classifier has: the training methods'."""
    return sorted({*study.train_shots, study.context_shots})


def at_size(frame: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with as many labelled examples as the context that is distilled, and zero-shot's."""
    return sections.where(frame, studies, lambda study: {"shots": [0, study.context_shots]})


def counts(found: Results, methods: Results, studies: Sequence[Study]) -> None:
    """Say how many runs there are, and how many are compared on how many pairs."""
    single = by_domain(methods.rows)

    def text(study: Study) -> str:
        there, own = (f[f["study"] == study.study] for f in (found.rows, methods.rows))
        pairs = single[single["study"] == study.study].groupby("domain", sort=False)["n"].max()
        each = [f"{int(n):,} pairs {domain}" for domain, n in pairs.items()]
        lacks = [name for name in METHODS if name not in set(own["method"])]
        return (
            f"The results of the other chapters hold {len(there):,} runs; {len(own):,} of them are "
            f"compared here: up to {study.repeats} draws a point, and {' and '.join(each)} a run. "
            "The others were searches and ablations."
            f"{f' Not measured for this study: {conclusions.joined(lacks)}.' * bool(lacks)}"
        )

    sections.headed(studies, text)
    sections.missing(studies)


# --- accuracy ----------------------------------------------------------------------------------


def accuracy(compared: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy against labelled examples by method; also saved for the first page and README."""
    figure = sections.accuracy_figure(
        compared, studies, "method", x_title="labelled examples", draws=False, height=340
    )
    figure.save(str(studies[0].folder / "comparison.svg"))
    return figure


def table(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Every method with the same number of examples, and with the most; stored as CSV and LaTeX."""
    lines = []
    for study in studies:
        ends, own = (
            (0, study.context_shots, study.train_shots[-1]),
            compared["study"] == study.study,
        )
        for method in (CUES, *METHODS):
            part = compared[own & (compared["method"] == method) & compared["shots"].isin(ends)]
            for (shots, domain), rows in part.groupby(["shots", "domain"]):
                at = {"study": study.study, "method": method, "examples": shots, "domain": domain}
                lines.append(at | _measures(rows))
    whole = pd.DataFrame(lines)
    sections.table(whole.astype(dict.fromkeys(["accuracy", "AUC", "NLL", "ECE"], str)))
    sections.export(whole, studies[0].folder / "comparison")


def _measures(rows: pd.DataFrame) -> dict[str, Any]:
    """What is measured of one method with one number of examples in one domain."""
    values: dict[str, Any] = {
        name: stats.interval(sections.chosen(rows, value, domain=rows["domain"].iloc[0]))
        for name, value in (("accuracy", "correct"), ("AUC", "auc"), ("NLL", "nll"))
    }
    errors = [
        metrics.ece(part[metrics.LOGP].to_numpy(), part["label"].to_numpy())
        for _, part in rows.groupby("key")
    ]
    return values | {
        "ECE": stats.t_interval(errors, bounds=stats.bounds_of("ece")),
        "called entailed": sections.of_draws(rows, ["domain"])["called"].mean(),
        "n": values["accuracy"].n,
    }


def shares(methods: Results, studies: Sequence[Study]) -> Any:
    """The share of pairs that each draw calls entailed, a panel a domain (and study)."""
    single = at_size(by_domain(methods.rows), studies)
    single = single.assign(method=single["method"].map(METHODS))
    drawn = [
        figures.dots(
            single[(single["study"] == study.study) & (single["domain"] == domain)],
            "method",
            "share_entailment",
            y_title="share called entailed",
            x_title=f"{study.study}, {domain}" if len(studies) > 1 else domain,
            y_domain=(0, 1),
            height=200,
            chance_name="one half",
        )
        for study in studies
        for domain in sections.task_of(study).domains
    ]
    return figures.stack(drawn, note=_same_size(studies))


def _same_size(studies: Sequence[Study]) -> str:
    """For a figure's note: how many labelled examples, and how many draws."""
    several = len(studies) > 1
    return "; ".join(
        f"{study.study}: " * several
        + f"{study.context_shots} labelled examples, {study.repeats} draws (1 for zero-shot)"
        for study in studies
    )


def subcases(compared: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Out-of-domain accuracy by construction (rows) and method (columns)."""
    own = at_size(compared[compared["method"] != CUES], studies)
    names = pd.Categorical(own["method"].map(METHODS), list(METHODS.values()))
    return sections.subcases(own.assign(method=names), "method")


# --- one domain against the other --------------------------------------------------------------


def domains(compared: pd.DataFrame, methods: Results, studies: Sequence[Study]) -> Any:
    """Out-of-domain against in-domain: accuracy, loss, seconds, memory; a mark a method and size.

    Where no study has an out-of-domain set, the loss by the number of examples.
    """
    own = compared[compared["method"] != CUES]
    right, loss = sections.summary(own, BY), sections.summary(own, BY, "nll")
    timed = on_one_machine(methods.rows)
    means = by_domain(timed).groupby(BY, sort=False)[["seconds", "peak_memory_mib"]].mean()
    means = means.reset_index()
    measured = (
        right,
        loss,
        means.rename(columns={"seconds": "mean"}),
        means.rename(columns={"peak_memory_mib": "mean"}),
    )
    facing = pd.concat(
        [
            sections.facing(frame, ["study", "method", "shots"]).assign(quantity=name)
            for name, frame in zip(prior.QUANTITIES, measured, strict=True)
        ],
        ignore_index=True,
    )
    if facing.empty:
        return sections.measure_figure(own, "method", "nll", "labelled examples")
    names = theme.order(facing["method"])  # of all studies: a method looks the same in all panels
    return figures.panels(
        facing,
        sections.facet(studies),
        lambda part, note: compare.against(
            part,
            "method",
            prior.QUANTITIES,
            names=names,
            size="shots",
            highlight="zero-shot",
            note=note,
        ),
        note=f"{stats.caption(right)}; time and memory: {sections.machines(timed)}",
    )


def earlier() -> Any:
    """The four panels of `domains` from what the earlier study published for OPT-125m."""
    runs = prior.read()
    found = prior.quantities(runs[runs["model"] == "opt-125m"])
    facing = sections.facing(found, ["method", "shots", "quantity"])
    facing["method"] = facing["method"].replace({short: name for name, short in METHODS.items()})
    # Of a distillation, `shots` are unlabelled queries there: small marks.
    facing["shots"] = facing["shots"].where(~facing["method"].str.contains("distillation"), 0)
    return compare.against(
        facing,
        "method",
        prior.QUANTITIES,
        size="shots",
        highlight="zero-shot",
        note="50 pairs a domain, 10 repeats (1 of zero-shot and of distillation); accuracy with "
        "intervals that 50 pairs allow; no loss where the answer was read from generated text",
    )


def curves(methods: Results, studies: Sequence[Study]) -> Any:
    """Training and validation loss by update, full fine-tuning beside LoRA."""
    size = {
        s.study: s.context_shots if s.context_shots in s.train_shots else s.train_shots[-1]
        for s in studies
    }
    rows = methods.rows[methods.rows["method"].isin(["full fine-tuning", "LoRA"])]
    rows = rows[rows["shots"] == rows["study"].map(size)]
    course = results.curves(rows, ["study", "method"])
    named = sections.losses(course).assign(set=lambda f: f["set"] + " loss")
    counted = conclusions.joined(list(dict.fromkeys(str(n) for n in size.values())))
    return sections.loss_figure(named, studies, "method", "set", f"{counted} examples; ")


def costs(methods: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """`sections.costs` of each study, with as many examples as the context that is distilled.

    Raises:
        UserError: the times of a study's runs cannot be compared.
    """
    rows, parts = on_one_machine(methods.rows), []
    for study in studies:
        own = rows[rows["study"] == study.study]
        found = sections.costs(own, study.context_shots, "method")
        parts.append(found.assign(study=study.study))
    return pd.concat(parts, ignore_index=True)


def cost_table(cost: pd.DataFrame, methods: Results) -> None:
    """Seconds, memory, tokens and operations by method."""
    giga = cost.assign(
        **{"to adapt (GFLOPs)": cost["adapt"] / 1e9, "an answer (GFLOPs)": cost["answer"] / 1e9}
    )
    columns = [c for c in giga if c not in ("study", "adapt", "answer")]
    formats = {"to adapt (s)": ".2f", "1,000 answers (s)": ".2f", "an answer (GFLOPs)": ".3f"}
    formats |= dict.fromkeys(["peak memory (MiB)", "tokens an answer", "to adapt (GFLOPs)"], ",.0f")
    sections.table(giga[["study", *columns]], formats)
    sections.hardware(methods.rows, on_one_machine(methods.rows))


def frontier(compared: pd.DataFrame, methods: Results, studies: Sequence[Study]) -> Any:
    """Accuracy against the operations to adapt and to answer `ANSWERS` pairs; interactive."""
    each = sections.operations(methods.rows)
    each = each.assign(total=each["adapt"] + ANSWERS * each["answer"])
    by = ["study", "method", "shots"]
    spent = each.groupby(by, sort=False)[["total", "tokens"]].mean().reset_index()
    inside = compared[(compared["domain"] == "in-domain") & (compared["method"] != CUES)]
    points = sections.summary(inside, by).merge(spent, on=by)
    note = stats.caption(points)  # before `examples` is the number of labels
    points = points.assign(
        accuracy=[stats.as_text(row, 3) for _, row in points.iterrows()],
        examples=points["shots"],
        gigaflops=(points["total"] / 1e9).round(1),
        tokens=points["tokens"].round(0),
    )
    columns = ["examples", "accuracy", "gigaflops", "tokens"]
    rules = sections.each(studies, lambda study: baselines.floors(sections.task_of(study)))
    rules = rules[rules["domain"] == "in-domain"]
    chart = figures.panels(
        points,
        sections.facet(studies),
        lambda part, note: compare.frontier(
            part,
            "gigaflops",
            "method",
            x_title=f"operations to adapt and to answer {ANSWERS:,} pairs (GFLOPs)",
            columns=columns,
            names=theme.order(points["method"]),
            rules=rules[rules["study"] == part["study"].iloc[0]],
            note=note,
        ),
        note=note,
    )
    return interactive.figure(chart, "method", tooltip=["method", *columns])


# --- what is shown -----------------------------------------------------------------------------


def places(compared: pd.DataFrame, study: Study, domain: str) -> dict[str, dict[str, Any]]:
    """Where the rows of each method with the same number of examples are; those that there are."""
    there = set(zip(compared["study"], compared["method"], compared["shots"], strict=True))
    found = {}
    for method in METHODS:
        shots = 0 if method == "zero-shot" else study.context_shots
        if (study.study, method, shots) in there:
            at = {"study": study.study, "method": method, "shots": shots, "domain": domain}
            found[method] = at
    return found


def pairs(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Every two methods, minus each other: a table a domain, and what could have been shown."""
    sentences = []
    for study in studies:
        for domain in sections.task_of(study).domains:
            at = places(compared, study, domain)
            found = stats.pairwise({k: sections.chosen(compared, **v) for k, v in at.items()})
            gaps, names = found["difference"], list(at)
            wide = found.assign(difference=gaps.map(str)).pivot_table(
                "difference", "first", "second", aggfunc="first"
            )
            wide = wide.reindex(index=names[:-1], columns=names[1:]).fillna("").reset_index()
            heading = f"{study.study}, {domain}" if len(studies) > 1 else domain
            tables.table(wide.rename(columns={"first": heading}))
            clear = sum(gap.lo > 0 or gap.hi < 0 for gap in gaps)
            able = sorted(gap.detectable for gap in gaps if np.isfinite(gap.lo))
            text = f"**{inert.escape(heading)}.** {clear} of {len(gaps)} differences are shown."
            if able:
                text += (
                    " The smallest that a comparison would have shown with 80 % power runs from "
                    f"{stats.number(able[0])} to {stats.number(able[-1])}."
                )
            sentences.append(text)
    tables.say("\n\n".join(sentences))


# --- what holds where --------------------------------------------------------------------------


def claims(compared: pd.DataFrame, study: Study, domain: str) -> dict[str, Interval]:
    """Claims that each rest on one difference in AUC: a claim holds where that is above zero.

    A claim without runs is left out. Those of a domain hold together (Bonferroni).
    """
    few, most = study.context_shots, study.train_shots[-1]
    zero, shown, shown_few = ("zero-shot", 0), ("ICL", study.shots[-1]), ("ICL", few)
    trained, trained_few = ("full fine-tuning", most), ("full fine-tuning", few)
    sides = {
        SHOWN: (shown, zero),
        TRAINED: (trained, zero),
        APART: (trained, shown),
        "with the same few labels, training ranks pairs better than ICL": (trained_few, shown_few),
        "with the same few labels, a cue classifier ranks pairs better than ICL": (
            (CUES, few),
            shown_few,
        ),
        "training all weights ranks pairs better than LoRA": (trained, ("LoRA", most)),
    }
    if study.context == "demonstrations":  # else the teacher is another than ICL
        text = "a teacher ranks pairs better than its student"
        sides[text] = shown_few, ("distillation", few)
    own = compared[(compared["study"] == study.study) & (compared["domain"] == domain)]
    there = set(zip(own["method"], own["shots"], strict=True))
    found = {}
    for text, pair in sides.items():
        if {*pair} <= there:
            a, b = ({"domain": domain, "method": m, "shots": shots} for m, shots in pair)
            found[text] = sections.difference(own, a, b, "auc", 1 - 0.05 / len(sides))
    return found


def both(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Which claims hold in which study: the difference that each rests on, and the verdict."""
    lines = []
    for domain in tasks.DOMAINS:
        found = {
            study.study: claims(compared, study, domain)
            for study in studies
            if domain in sections.task_of(study).domains
        }
        for text in dict.fromkeys(text for own in found.values() for text in own):
            gaps = {name: own[text] for name, own in found.items() if text in own}
            line = {"claim": f"{domain}: {text}"} | {s.study: "–" for s in studies}
            for name, gap in gaps.items():
                would = f" ({stats.number(gap.detectable)})" * bool(sections.unresolved(gap))
                line[name] = f"{gap}{would}"
            lines.append(line | {"holds": conclusions.holds(gaps, len(studies))})
    tables.table(pd.DataFrame(lines))


# --- conclusions -------------------------------------------------------------------------------


def findings(
    chosen: Results, compared: pd.DataFrame, ruled: pd.DataFrame, cost: pd.DataFrame, study: Study
) -> list[Conclusion]:
    """The chapter's conclusions for a study, each computed from what it rests on.

    `chosen`: the runs of `select`; `cost`: the costs of `costs`.
    """
    rows = side_by_side(chosen, [study]).rows
    forgets = []
    if sections.text_groups(chosen, study):
        text = sections.text_term(chosen, [study])
        losses, changes = sections.term_effects(text, sections.scored(text), study)
        start = sections.start_nll(chosen, study)
        forgets = [conclusions.forgetting(losses, start, changes)]
    return [
        *_of_accuracy(compared, ruled, study),
        *_of_methods(compared, rows, study),
        *forgets,
        conclusions.price(_prices(cost, study), "ICL", "full fine-tuning"),
        _of_luck(compared, rows, study),
    ]


def _of_accuracy(compared: pd.DataFrame, ruled: pd.DataFrame, study: Study) -> list[Conclusion]:
    """What is more accurate than what, in-domain and out-of-domain, and what was learned."""
    task, k = sections.task_of(study), study.context_shots
    cue, pairs = baselines.best_rule(task.train), task.in_domain
    right = float((cue.labels(pairs) == pairs["label"]).mean())
    inside = places(compared, study, "in-domain")
    given = {name: at for name, at in inside.items() if name != "zero-shot"}
    classifier = {"study": study.study, "method": CUES, "shots": k, "domain": "in-domain"}
    uneven = []
    if "distillation" in inside:
        queries = grids.middle(study.queries)
        uneven.append(f"Distillation was also given {queries:,} unlabelled pairs.")
    if study.model == "pocket":
        uneven.append(
            "The pocket model was rehearsed for in-context learning in its pretraining, with "
            "negation as a frequent rule; fine-tuning was not."
        )
    where = f"In-domain, with {k} labelled examples"
    found = [
        conclusions.floors(compared, given, classifier, cue.cue, right, len(task.train)),
        conclusions.best(compared, inside, where, " ".join(uneven)),
        conclusions.rule(ruled, given, classifier),
    ]
    if "out-of-domain" in task.domains:
        outside = places(compared, study, "out-of-domain")
        where = f"Out-of-domain, with {k} labelled examples"
        other = classifier | {"domain": "out-of-domain"}
        found.append(conclusions.beyond(compared, outside, where, other))
    return [_contrast(compared, study), *found]


def _contrast(compared: pd.DataFrame, study: Study) -> Conclusion:
    """The most demonstrations against training on the most examples."""
    shown, trained = study.shots[-1], study.train_shots[-1]
    gaps = {}
    for domain in sections.task_of(study).domains:
        found = claims(compared, study, domain)
        gaps[domain] = found[SHOWN], found[TRAINED], found[APART]
    return conclusions.contrast(
        gaps, f"{shown} demonstrations", f"training on {trained:,} examples", trained > shown
    )


def _of_methods(compared: pd.DataFrame, rows: pd.DataFrame, study: Study) -> list[Conclusion]:
    """LoRA beside full fine-tuning, student beside teacher, the last round beside the first."""
    at, found = places(compared, study, "in-domain"), []
    if {"LoRA", "full fine-tuning"} <= {*at}:
        lora = rows[rows["method"] == "LoRA"].iloc[0]
        weights = int(lora["trainable_parameters"]), int(lora["parameters"])
        full = at["full fine-tuning"]
        found.append(conclusions.low_rank(compared, at["LoRA"], full, study.train_shots, weights))
    if {"ICL", "distillation"} <= {*at}:
        sides = at["distillation"], at["ICL"], at["zero-shot"]
        queries = grids.middle(study.queries)
        found.append(conclusions.distillation(compared, *sides, queries))
    if {"recursive distillation", "distillation"} <= {*at} and study.rounds > 1:
        last = rows[rows["method"] == "recursive distillation"]
        change = sections.difference(compared, at["recursive distillation"], at["distillation"])
        rate = study.distill_learning_rate
        found.append(conclusions.recursion(change, study.rounds, rate, last["first_kl"]))
    return found


def _prices(cost: pd.DataFrame, study: Study) -> dict[str, dict[str, float]]:
    """The costs of a study's methods, by the names that `conclusions.price` has for them."""
    names = {
        "tokens": "tokens an answer",
        "adapt": "adapt",
        "answer": "answer",
        "seconds": "1,000 answers (s)",
        "training": "to adapt (s)",
    }
    own = cost[cost["study"] == study.study]
    return {
        str(line["method"]): {name: float(line[column]) for name, column in names.items()}
        for _, line in own.iterrows()
    }


def _of_luck(compared: pd.DataFrame, rows: pd.DataFrame, study: Study) -> Conclusion:
    """How often single draws of full fine-tuning fail, and which do."""
    single = by_domain(rows[rows["method"] == "full fine-tuning"])
    single = single[single["domain"] == "in-domain"]
    single = single.assign(validity=sections.validity(single, sections.task_of(study)))
    some = study.train_shots[1:4] or study.train_shots
    parts = {shots: single[single["shots"] == shots] for shots in some}
    validity = {shots: (part["validity"], part["accuracy"]) for shots, part in parts.items()}
    own = compared[compared["study"] == study.study]
    return conclusions.luck(own, "full fine-tuning", study.train_shots, validity)


def conclude(found: dict[str, list[Conclusion]], studies: Sequence[Study]) -> None:
    """Say each study's conclusions; and as `comparison.md`, which the first page shows.

    `found`: the conclusions by the names of studies.
    """
    lines = []
    for study in studies:
        heading = [f"**{inert.escape(study.study)}**\n"] * (len(studies) > 1)
        own = found[study.study]
        tables.say("\n".join([*heading, *(f"{i}. {one}" for i, one in enumerate(own, 1))]))
        lines += [*heading, *(f"- {one}" for one in own), ""]
    file = studies[0].folder / "comparison.md"
    file.write_text("\n".join(lines), encoding="utf-8")
