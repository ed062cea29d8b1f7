"""The figures, tables and sentences of the chapter that sets the methods side by side.

Nothing is run: everything is computed from what the other chapters measured. `methods` are the runs
that are compared (`method` is the method's name), `compared` their answers and the cue
classifier's, `ruled` the same with what the rule of negation says.
"""

import base64
import itertools
import json
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
from llmft.report.sections import rows_at
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

BY = ["study", "method", "shots", "domain"]

ICL_HELPS = "demonstrations rank pairs better than none"
TRAINING_HELPS = "training ranks pairs better than none"
APART = "training on the most examples ranks pairs better than the most demonstrations"
AGAINST_CUES = "training on the most examples ranks pairs better than a cue classifier on the same"
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
        lacking = {"lora", "distillation"} - set(rows_at(found.rows, study=study.study)["method"])
        whole = grids.comparison(study)
        if "distillation" not in lacking:  # the chapter whose runs the text term's are
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


@sections.and_missing
@sections.text_by_study
def counts(found: Results, methods: Results, study: Study) -> str:
    """Say how many runs there are, and how many are compared on how many pairs."""
    own = methods.rows
    pairs = by_domain(own).groupby("domain", sort=False)["n"].max()
    each = [f"{int(n):,} pairs {domain}" for domain, n in pairs.items()]
    lacks = [name for name in METHODS if name not in set(own["method"])]
    return (
        f"The results of the other chapters hold {len(found.rows):,} "
        f"runs; {len(own):,} of them are compared here: up to {study.repeats} draws a point, and "
        f"{' and '.join(each)} a run. The others were searches and ablations."
        f"{f' Not measured for this study: {conclusions.joined(lacks)}.' * bool(lacks)}"
    )


# --- accuracy ----------------------------------------------------------------------------------


def accuracy(compared: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy against labelled examples by method; also saved for the first page and README."""
    figure = sections.accuracy_figure(
        compared, studies, "method", x_title="labelled examples", draws=False, height=340
    )
    (studies[0].folder / "comparison.svg").write_text(figure.svg, "utf-8")
    return figure


def table(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Every method with the same number of examples, and with the most; stored as CSV and LaTeX."""
    own = sections.where(
        compared, studies, lambda study: {"shots": [0, study.context_shots, study.train_shots[-1]]}
    )
    own = own.assign(method=pd.Categorical(own["method"], [CUES, *METHODS]))
    lines = []
    for study in studies:
        groups = rows_at(own, study=study.study).groupby(BY[1:], observed=True)
        for (method, shots, domain), rows in groups:
            right, area, loss = (
                sections.interval(rows, value, domain=domain) for value in ("correct", "auc", "nll")
            )
            errors = [
                metrics.ece(run[metrics.LOGP].to_numpy(), run["label"].to_numpy())
                for _, run in rows.groupby("key")
            ]
            lines.append(
                {
                    "study": study.study,
                    "method": method,
                    "examples": shots,
                    "domain": domain,
                    "AUC": area,
                    "accuracy": right,
                    "NLL": loss,
                    "ECE": stats.t_interval(errors, bounds=stats.bounds_of("ece")),
                    "called entailed": sections.of_draws(rows, ["domain"])["called"].mean(),
                    "n": right.n,
                }
            )
    whole, stem = pd.DataFrame(lines), studies[0].folder / "comparison"
    measured = ["accuracy", "AUC", "NLL", "ECE"]
    text = whole.astype(dict.fromkeys(measured, str))
    sections.table(text)
    text.to_latex(stem.with_suffix(".tex"), index=False, float_format="%.2f", escape=True)
    for name in measured:
        whole[f"{name}_lo"] = [one.lo for one in whole[name]]
        whole[f"{name}_hi"] = [one.hi for one in whole[name]]
        whole[name] = [one.mean for one in whole[name]]
    whole.to_csv(stem.with_suffix(".csv"), index=False)


def shares(methods: Results, studies: Sequence[Study]) -> Any:
    """The share of pairs that each draw calls entailed, a panel a domain (and study)."""
    single = at_size(by_domain(methods.rows), studies)
    single = pd.concat([rows_at(single, study=study.study) for study in studies])
    single = single.assign(
        method=single["method"].map(METHODS), panel=sections.panel(single, "domain")
    )
    sizes = "; ".join(
        f"{theme.study(study.study)}: " * (len(studies) > 1)
        + f"{study.context_shots:,} labelled examples, {study.repeats} draws (1 for zero-shot)"
        for study in studies
    )
    return figures.panels(
        single,
        "panel",
        lambda part, note: figures.dots(
            part,
            "method",
            "share_entailment",
            y_title="share called entailed",
            y_domain=(0, 1),
            height=200,
            chance_name="one half",
            note=note,
        ),
        note=sizes,
    )


def subcases(compared: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Out-of-domain accuracy by construction (rows) and method (columns)."""
    own = at_size(compared[compared["method"] != CUES], studies)
    names = pd.Categorical(own["method"].map(METHODS), list(METHODS.values()))
    return sections.subcases(own.assign(method=names), "method")


def constructions(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Out-of-domain AUC and accuracy by method: other pairs, other constructions."""
    own = at_size(compared[compared["method"] != CUES], studies)
    sections.constructions(own, ["study", "method"])


# --- one domain against the other --------------------------------------------------------------


def facing(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """In-domain as x, x_lo, x_hi and out-of-domain as y, y_lo, y_hi, a row a group of `by`.

    `frame` has a row a group and domain: mean, and lo, hi (NaN where there is no interval).
    """
    inside, outside = (
        rows_at(frame, domain=domain)
        .rename(columns={"mean": axis, "lo": f"{axis}_lo", "hi": f"{axis}_hi"})
        .filter([*by, axis, f"{axis}_lo", f"{axis}_hi"])
        for axis, domain in zip("xy", tasks.DOMAINS, strict=True)
    )
    return inside.merge(outside, on=list(by))


def domains(compared: pd.DataFrame, methods: Results, studies: Sequence[Study]) -> Any:
    """Out-of-domain against in-domain: accuracy, loss, seconds, memory; a mark a method and size.

    Where no study has an out-of-domain set, the loss by the number of examples.
    """
    own = compared[compared["method"] != CUES]
    right, loss = sections.summary(compared, BY), sections.summary(own, BY, "nll")
    timed = on_one_machine(methods.rows)
    means = by_domain(timed).groupby(BY, sort=False)[["seconds", "peak_memory_mib"]].mean()
    spent = [means[c].rename("mean").reset_index() for c in means]
    measured = zip(prior.QUANTITIES, [right, loss, *spent], strict=True)
    whole = pd.concat([frame.assign(quantity=name) for name, frame in measured], ignore_index=True)
    both = facing(whole, [*BY[:3], "quantity"])
    if both.empty:
        return sections.measure_figure(own, "method", "nll", "labelled examples")
    return sections.by_study(
        compare.against,
        both,
        studies,
        quantities=prior.QUANTITIES,
        names=theme.order(both["method"]),  # a method looks the same in all studies' panels
        note=f"{stats.caption(right)}; time and memory: {sections.machines(timed)}",
    )


def earlier() -> Any:
    """The four panels of `domains` from what the earlier study published for OPT-125m."""
    runs = prior.read()
    found = prior.quantities(runs[runs["model"] == "opt-125m"])
    both = facing(found, ["method", "shots", "quantity"])
    both["method"] = both["method"].replace({short: name for name, short in METHODS.items()})
    # Of a distillation, `shots` are unlabelled queries there: small marks.
    both["shots"] = both["shots"].where(~both["method"].str.contains("distillation"), 0)
    return compare.against(
        both,
        prior.QUANTITIES,
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
    course = sections.losses(results.curves(rows, ["study", "method"]))
    counted = conclusions.joined(list(dict.fromkeys(f"{n:,}" for n in size.values())))
    return sections.loss_figure(
        course.assign(set=course["set"] + " loss"),
        studies,
        "method",
        "set",
        f"{counted} examples; ",
    )


# --- costs -------------------------------------------------------------------------------------


def costs(methods: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """A row a study and method, means over the runs with as many examples as the context.

    With the next number of examples where a method has no such runs. Columns: study, method,
    examples, to adapt (s), 1,000 answers (s), peak memory (MiB), tokens an answer, adapt and answer
    (FLOPs, see `sections.operations`), runs.
    """
    rows = sections.operations(on_one_machine(methods.rows))
    size = rows["study"].map({study.study: study.context_shots for study in studies})
    far = np.log2(rows["shots"].clip(lower=1) / size).abs()
    by = ["study", "method"]
    nearest = far.groupby([rows[name] for name in by]).transform("idxmin")
    own = rows[rows["shots"] == rows["shots"].loc[nearest].to_numpy()]
    groups = own.assign(answers=ANSWERS / own["examples_per_second"]).groupby(by, sort=False)
    found: pd.DataFrame = groups.agg(
        **{
            "examples": ("shots", "first"),
            "to adapt (s)": ("train_seconds", "mean"),
            "1,000 answers (s)": ("answers", "mean"),
            "peak memory (MiB)": ("peak_memory_mib", "mean"),
            "tokens an answer": ("tokens", "mean"),
            "adapt": ("adapt", "mean"),
            "answer": ("answer", "mean"),
            "runs": ("key", "size"),
        }
    )
    return found.reset_index()


def cost_table(cost: pd.DataFrame, methods: Results) -> None:
    """Seconds, memory, tokens and operations by method."""
    giga = cost.drop(columns=["adapt", "answer"]).assign(
        **{"to adapt (GFLOPs)": cost["adapt"] / 1e9, "an answer (GFLOPs)": cost["answer"] / 1e9}
    )
    formats = dict.fromkeys(["peak memory (MiB)", "tokens an answer", "to adapt (GFLOPs)"], ",.0f")
    formats |= {"to adapt (s)": ".2f", "1,000 answers (s)": ".2f", "an answer (GFLOPs)": ".3f"}
    sections.table(giga, formats)
    sections.hardware(methods.rows, on_one_machine(methods.rows))


def frontier(compared: pd.DataFrame, methods: Results, studies: Sequence[Study]) -> Any:
    """Accuracy against the operations to adapt and to answer `ANSWERS` pairs; interactive."""
    each = sections.operations(methods.rows)
    each = each.assign(total=each["adapt"] + ANSWERS * each["answer"])
    by = ["study", "method", "shots"]
    spent = each.groupby(by, sort=False)[["total", "tokens"]].mean().reset_index()
    inside = rows_at(compared[compared["method"] != CUES], domain="in-domain")
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
    rules = pd.concat([rules, sections.classifier_lines(compared)], ignore_index=True)
    rules = rows_at(rules, domain="in-domain")
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
            rules=rows_at(rules, study=part["study"].iloc[0]),
            note=note,
        ),
        note=note,
    )
    return interactive.figure(chart, "method", tooltip=["method", *columns])


# --- what is shown, and what holds where -------------------------------------------------------


def places(compared: pd.DataFrame, study: Study, domain: str) -> dict[str, dict[str, Any]]:
    """Where the rows of each method with the same number of examples are; those that there are."""
    found = {}
    for method in METHODS:
        shots = 0 if method == "zero-shot" else study.context_shots
        at = {"study": study.study, "method": method, "shots": shots, "domain": domain}
        if len(rows_at(compared, **at)):
            found[method] = at
    return found


def pairs(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Every two methods, minus each other: a table a domain, and what could have been shown."""
    sentences = []
    for study, domain in [(s, d) for s in studies for d in sections.task_of(s).domains]:
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
        text = f"**{inert.escape(heading)}.** {clear} of {len(gaps)} differences are shown."
        able = [gap.detectable for gap in gaps if np.isfinite(gap.lo)]
        if able:
            text += (
                " The smallest that a comparison would have shown with 80 % power runs from "
                f"{stats.number(min(able))} to {stats.number(max(able))}."
            )
        sentences.append(text)
    tables.say("\n\n".join(sentences))


def keep_answers(compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Store which answers are right, for the box of the page (`book/recompute.js`).

    `comparison-answers.json` has by study its `strata`, by domain a number for each pair (pairs of
    one label and subcase share it), and its `runs`: method, number of labelled examples (`size`),
    draw ("" where nothing was drawn), and by domain a bit a pair in base64, first bits first.
    """
    found: dict[str, dict[str, Any]] = {}
    own = compared[compared["method"] != CUES]
    own = own.assign(method=pd.Categorical(own["method"], list(METHODS)))
    for (study, domain), rows in own.groupby(["study", "domain"], sort=False):
        right = rows.pivot_table("correct", ["method", "shots", "draw"], "id", observed=True)
        pairs = rows.drop_duplicates("id").set_index("id").loc[right.columns]
        same = [name for name in stats.FIXED if name in pairs]
        one = found.setdefault(str(study), {"strata": {}, "runs": {}})
        one["strata"][domain] = pairs.groupby(same, dropna=False).ngroup().tolist()
        for run, bits in zip(right.index, np.packbits(right.to_numpy(bool), axis=1), strict=True):
            about = {"method": run[0], "size": int(run[1]), "draw": run[2]}
            one["runs"].setdefault(run, about)[domain] = base64.b64encode(bits).decode()
    text = json.dumps({n: one | {"runs": [*one["runs"].values()]} for n, one in found.items()})
    (studies[0].folder / "comparison-answers.json").write_text(text, encoding="utf-8")


def claims(compared: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """Claims that each rest on one difference in AUC: a claim holds where that is above zero.

    A row a domain, study and claim, with the `difference` (`stats.Interval`). A claim without runs
    is left out. Those of a domain and study hold together (Bonferroni).
    """
    lines = []
    for domain, study in itertools.product(tasks.DOMAINS, studies):
        few, most = study.context_shots, study.train_shots[-1]
        zero, icl, icl_few = ("zero-shot", 0), ("ICL", study.shots[-1]), ("ICL", few)
        full, full_few = ("full fine-tuning", most), ("full fine-tuning", few)
        same = "with the same few labels,"
        sides = {
            ICL_HELPS: (icl, zero),
            TRAINING_HELPS: (full, zero),
            APART: (full, icl),
            AGAINST_CUES: (full, (CUES, most)),
            f"{same} training ranks pairs better than ICL": (full_few, icl_few),
            f"{same} a cue classifier ranks pairs better than ICL": ((CUES, few), icl_few),
            "training all weights ranks pairs better than LoRA": (full, ("LoRA", most)),
        }
        if study.context == "demonstrations":  # else the teacher is another than ICL
            distilled = ("distillation", few)
            sides["a teacher ranks pairs better than its student"] = (icl_few, distilled)
        own = rows_at(compared, study=study.study, domain=domain)
        there = set(zip(own["method"], own["shots"], strict=True))
        for claim, pair in sides.items():
            if {*pair} <= there:
                a, b = ({"domain": domain, "method": m, "shots": shots} for m, shots in pair)
                gap = sections.difference(own, a, b, "auc", stats.together(len(sides)))
                lines.append((domain, study.study, claim, gap))
    return pd.DataFrame(lines, columns=["domain", "study", "claim", "difference"])


def both(claimed: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Which claims hold in which study: the difference that each rests on, and the verdict.

    And `comparison-claims.json`: a difference has its interval (`low`, `high`), and where nothing
    is shown the smallest true difference that would have been (`shown_from`).
    """
    lines, records = [], []
    for (domain, claim), rows in claimed.groupby(["domain", "claim"], sort=False):
        gaps = dict(zip(rows["study"], rows["difference"], strict=True))
        line = {"claim": f"{domain}: {claim}"} | {study.study: "–" for study in studies}
        numbers: dict[str, dict[str, float]] = {}
        for name, gap in gaps.items():
            null = gap.lo <= 0 <= gap.hi
            line[name] = f"{gap}" + f" ({stats.number(gap.detectable)})" * null
            known = {"difference": gap.mean, "low": gap.lo, "high": gap.hi}
            known |= {"shown_from": gap.detectable} if null else {}
            numbers[name] = {n: round(value, 4) for n, value in known.items() if np.isfinite(value)}
        about = {"claim": claim, "domain": domain, "measure": "AUC"}
        lines.append(line | {"holds": conclusions.holds(gaps, len(studies))})
        records.append(about | {"holds": lines[-1]["holds"], "studies": numbers})
    tables.table(pd.DataFrame(lines))
    text = json.dumps(records, indent=1, ensure_ascii=False)
    (studies[0].folder / "comparison-claims.json").write_text(f"{text}\n", encoding="utf-8")


# --- conclusions -------------------------------------------------------------------------------


def findings(
    chosen: Results,
    compared: pd.DataFrame,
    ruled: pd.DataFrame,
    cost: pd.DataFrame,
    claimed: pd.DataFrame,
    study: Study,
) -> list[Conclusion]:
    """The chapter's conclusions for a study, each computed from what it rests on.

    `chosen`: the runs of `select`; `cost`: the costs of `costs`; `claimed`: the `claims`.
    """
    rows = side_by_side(chosen, [study]).rows
    forgets = []
    text = sections.text_term(chosen, [study])
    if len(text.rows):
        losses, changes = sections.term_effects(text, sections.scored(text), study)
        start = sections.start_nll(chosen, study)
        forgets = [conclusions.forgetting(losses, start, changes)]
    full, some = "full fine-tuning", study.train_shots[1:4] or study.train_shots
    single = sections.single_draws(rows_at(rows, method=full), study, some)
    validity = sections.luck_by_size(single)
    own = rows_at(compared, study=study.study)
    return [
        _of_domains(rows_at(claimed, study=study.study), study),
        *_of_accuracy(compared, ruled, study),
        *_of_methods(compared, rows, study),
        *forgets,
        conclusions.price(
            rows_at(cost, study=study.study).set_index("method"), "ICL", full, study.context_shots
        ),
        conclusions.luck(own, full, study.train_shots, validity),
    ]


REHEARSED = (
    "The pocket model was rehearsed for in-context learning in its pretraining, with negation as a "
    "frequent rule; fine-tuning was not."
)
"""What is not even-handed where its demonstrations are compared with its training."""


def _of_domains(claimed: pd.DataFrame, study: Study) -> Conclusion:
    """The most demonstrations against training on the most examples, in each domain."""
    demonstrations, examples = study.shots[-1], study.train_shots[-1]
    gaps, cues = {}, {}
    for domain, rows in claimed.groupby("domain", sort=False):
        found = rows.set_index("claim")["difference"]
        gaps[str(domain)] = found[ICL_HELPS], found[TRAINING_HELPS], found[APART]
        cues[str(domain)] = found[AGAINST_CUES]
    return conclusions.contrast(
        gaps,
        cues,
        f"{demonstrations:,} demonstrations",
        f"training on {examples:,} examples",
        examples > demonstrations,
        REHEARSED if study.model == "pocket" else "",
    )


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
        uneven.append(REHEARSED)
    where = f"In-domain, with {k:,} labelled examples"
    found = [
        conclusions.floors(compared, given, classifier, cue.cue, right, len(task.train)),
        conclusions.best(compared, inside, where, " ".join(uneven)),
        conclusions.rule(ruled, given, classifier),
    ]
    if "out-of-domain" in task.domains:
        outside = places(compared, study, "out-of-domain")
        where = f"Out-of-domain, with {k:,} labelled examples"
        other = classifier | {"domain": "out-of-domain"}
        found.append(conclusions.beyond(compared, outside, where, other))
    return found


def _of_methods(compared: pd.DataFrame, rows: pd.DataFrame, study: Study) -> list[Conclusion]:
    """LoRA beside full fine-tuning, student beside teacher, the last round beside the first."""
    at, found = places(compared, study, "in-domain"), []
    if {"LoRA", "full fine-tuning"} <= {*at}:
        lora = rows_at(rows, method="LoRA").iloc[0]
        share = lora["trainable_parameters"] / lora["parameters"]
        full = at["full fine-tuning"]
        found.append(conclusions.low_rank(compared, at["LoRA"], full, study.train_shots, share))
    if {"ICL", "distillation"} <= {*at}:
        sides = at["distillation"], at["ICL"], at["zero-shot"]
        queries = grids.middle(study.queries)
        found.append(conclusions.distillation(compared, *sides, queries))
    if {"recursive distillation", "distillation"} <= {*at} and study.rounds > 1:
        last = rows_at(rows, method="recursive distillation")
        change = sections.difference(compared, at["recursive distillation"], at["distillation"])
        rate = study.distill_learning_rate
        found.append(conclusions.recursion(change, study.rounds, rate, last["first_kl"]))
    return found


def conclude(
    chosen: Results,
    compared: pd.DataFrame,
    ruled: pd.DataFrame,
    cost: pd.DataFrame,
    claimed: pd.DataFrame,
    studies: Sequence[Study],
) -> None:
    """Say each study's `findings`; and the first study's in short, for the book's first page.

    `comparison-answer.md` has the answer in one sentence, `comparison.md` the claims that have a
    number, and what to use.
    """
    found = {
        study.study: findings(chosen, compared, ruled, cost, claimed, study) for study in studies
    }
    lines = []
    for study in studies:
        heading = [f"**{inert.escape(study.study)}**\n"] * (len(studies) > 1)
        own = found[study.study]
        lines += [*heading, *(f"{i}. {one}" for i, one in enumerate(own, 1)), ""]
    tables.say("\n".join(lines))
    first = [one for one in found[studies[0].study] if one.number]
    short = [f"- **{one.claim}** {one.number}" for one in first]
    uses = [f"- {one.use}" for one in first if one.use]
    text = "\n".join([*short, "", "What to use:", "", *uses, ""])
    (studies[0].folder / "comparison.md").write_text(text, encoding="utf-8")
    answer = "; ".join(one.answer for one in first if one.answer)
    sentence = f"**{answer[:1].upper()}{answer[1:]}.**\n"
    (studies[0].folder / "comparison-answer.md").write_text(sentence, encoding="utf-8")
