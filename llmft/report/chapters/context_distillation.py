"""The figures, tables and paragraphs of the chapter on context distillation.

`students` are the runs side by side: start, teacher, rival and all students, `method` being what
the chapter calls them. `main` has their answers (`sections.scored`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmft import inert
from llmft.engine import distill
from llmft.nli import prompts, tasks
from llmft.params import Study
from llmft.report import compare, conclusions, figures, sections, stats, tables
from llmft.study import grids
from llmft.study.results import Results, by_domain, on_one_machine


START = "zero-shot (the start)"

ONE_SIDED = 0.9
"""A draw that calls more of the pairs by one label than this has become a constant."""

NAMES = {
    "query": "answer and query",
    "vocabulary": "answer alone",
    "label words": "label words alone",
}
"""What teacher and student are compared over, by objective."""


def teacher(study: Study) -> str:
    """What the chapter calls in-context learning with the context."""
    return f"ICL, {study.context_shots} shots (the teacher)"


def rival(study: Study) -> str:
    """What the chapter calls fine-tuning on the same labels."""
    return f"fine-tuning on the {study.context_shots} labels (the rival)"


def student(study: Study, queries: int = 0, lora: bool = False) -> str:
    """What the chapter calls a student of one round; by default of the middle number of queries."""
    n = queries or grids.middle(study.queries)
    return f"distilled{' by LoRA' * lora}, {n:,} queries"


def names(study: Study) -> dict[str, str]:
    """The groups of runs that are set side by side, and what the chapter calls them."""
    titles = {
        "zero-shot": START,
        "ICL": teacher(study),
        "full fine-tuning": rival(study),
        **{f"distillation, {n:,} queries": student(study, n) for n in study.queries},
        "LoRA student": student(study, lora=True),
        **{f"round {n}": f"recursive, round {n}" for n in range(2, study.rounds + 1)},
    }
    groups = grids.context_distillation(study)
    return {name: title for name, title in titles.items() if name in groups}


def of_students(study: Study) -> list[str]:
    """The students among `names`."""
    return [name for name in names(study).values() if name.startswith(("distilled", "recursive"))]


def one_sided(share: pd.Series) -> str:
    """How many draws are `ONE_SIDED`; `share`: of pairs that each calls entailed."""
    return f"{(np.maximum(share, 1 - share) > ONE_SIDED).sum()} of {len(share)}"


# --- the method --------------------------------------------------------------------------------


def alignment(studies: Sequence[Study], shots: int = 2) -> None:
    """Show the last tokens of one query's prompt as the teacher reads it, and as the student.

    Of the first study whose sentences may be printed.
    """
    study = (sections.readable(studies) or [*studies])[0]
    task = sections.task_of(study)
    model = sections.model_of(study)
    pattern = prompts.pattern_named(study.pattern, study.verbalizer)
    context = tasks.sample(task.train, shots, study.seed)
    query = distill.queries(task.train, 1, study.seed, context)  # it comes without a label
    context, query = (sections.hide(study, pairs) for pairs in (context, query))
    with_context, alone = (
        prompts.encode(model.tokenizer, pattern, query, before, model.max_positions)
        for before in (context, context.iloc[:0])
    )
    common = distill.shared_tokens(with_context, alone)[0]

    def last_tokens(ids: Sequence[int]) -> str:
        return " ".join(f"|{model.tokenizer.decode([i])}|" for i in ids[-common - 3 :])

    both = f"teacher  ... {last_tokens(with_context[0])}\nstudent  {last_tokens(alone[0])}"
    tables.say(
        f"{inert.fence(both)}\n\nThe teacher's prompt has {len(with_context[0])} tokens, the "
        f"student's {len(alone[0])}; the last {common} are common."
    )


def search(results: Results, studies: Sequence[Study]) -> None:
    """Fidelity and loss on text by learning rate; which is nearest, and which is used."""
    rows = results.part("search").rows
    sections.fidelity_by_rate(rows, [], **{"nats a token": "text_nll"})
    _nearest(rows, studies)


@sections.text_by_study
def _nearest(rows: pd.DataFrame, study: Study) -> str:
    means = rows.groupby("learning_rate")["held_out_kl"].mean()
    return (
        f"With {grids.middle(study.queries)} queries the KL is lowest at a learning rate of "
        f"{means.idxmin():.2g}; the reported runs use {study.distill_learning_rate:.2g}."
    )


# --- how much is kept --------------------------------------------------------------------------


def accuracy(main: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """A row a method: accuracy in each domain, beside the classifier's on the same labels."""
    rows = sections.with_classifier(main, studies, lambda study: [study.context_shots])
    points = sections.summary(rows, ["study", "method", "domain"])
    return figures.forest(
        points,
        "method",
        "domain",
        group=sections.facet(studies),
        note=f"{stats.caption(points)}; {sections.floors_text(studies)}",
    )


@sections.and_missing
@sections.table_by_study()
def gains(main: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Accuracy by method and domain, minus the teacher's, and the share of the teacher's gain."""
    context, by, name = teacher(study), ["domain", "method"], "minus the teacher"
    table = sections.against(main, by, {"method": context}, name)
    places = zip(table["domain"], table["method"], strict=True)
    shares = pd.Series(
        ["–" if method == START else str(_share(main, study, method, at)) for at, method in places]
    )
    table["share of the gain"] = shares.mask((table["method"] == context) & (shares != "–"), "1")
    return table[[*by, "accuracy", name, "shown from", "share of the gain", "n"]]


def _share(
    main: pd.DataFrame, study: Study, method: str, domain: str = "in-domain"
) -> stats.Interval:
    """The share of the teacher's gain; no numbers where that is not clearly above zero."""
    own, context, base = (
        sections.chosen(main, domain=domain, method=name)
        for name in (method, teacher(study), START)
    )
    return stats.share(own, context, base)


@sections.text_by_study
def shares(main: pd.DataFrame, study: Study) -> str:
    """Say how much of the teacher's gain each student has, and compare the last with the rival."""
    own = {n: _share(main, study, student(study, n)) for n in study.queries}
    clear = [f"{one} with {n:,} queries" for n, one in own.items() if np.isfinite(one.mean)]
    text = f"Of the teacher's in-domain gain the student has {', '.join(clear)}."
    if not clear:
        text = "The teacher has no clear in-domain gain, so no share of it is given."
    at, most = {"domain": "in-domain"}, study.queries[-1]
    gap = sections.difference(
        main, at | {"method": student(study, most)}, at | {"method": rival(study)}
    )
    return (
        f"{text} The student of {most:,} queries minus fine-tuning on the same "
        f"{study.context_shots} labelled examples is {gap} in accuracy (paired)"
        f"{sections.unresolved(gap)}."
    )


@sections.table_by_study()
def fidelity(students: Results, main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """How near each student is to its teacher: on queries, and on the pairs of both domains."""
    agreement = sections.agreement(main, sections.rows_at(main, method=teacher(study)))
    for name in of_students(study):
        rows = sections.rows_at(students.rows, method=name)
        yield {
            "student": name,
            "KL, training": sections.over(rows["train_kl"]),
            "KL, held-out": sections.over(rows["first_kl"]),
            "agreement, held-out": sections.over(rows["first_agreement"]),
            **agreement[name],
            "draws": len(rows),
        }


# --- round after round -------------------------------------------------------------------------


def in_rounds(frame: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows of plain distillation and of its further rounds, round by round."""
    first = frame["study"].map({study.study: student(study) for study in studies})
    own = frame[(frame["method"] == first) | frame["group"].str.startswith("round ")]
    return own.sort_values("rounds", kind="stable")


def rounds_figure(students: Results, main: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy by round of recursive distillation, a line a domain, with single draws."""
    points = sections.summary(in_rounds(main, studies), ["study", "domain", "rounds"])
    rows = sections.with_classifier(main, studies, lambda study: [study.context_shots])
    lines = sections.classifier_lines(rows)
    return figures.curve(
        points,
        "rounds",
        "domain",
        facet=sections.facet(studies),
        doublings=False,
        draws=by_domain(in_rounds(students.rows, studies)),
        rules=lines.assign(rule=lines["rule"] + ", " + lines["domain"]),
        x_title="rounds",
        note=f"{stats.caption(points)}; {sections.floors_text(studies)}",
    )


@sections.table_by_study()
def rounds_table(students: Results, study: Study) -> list[dict[str, Any]]:
    """By round: how near the student is to its own teacher and to the first; draws that failed."""
    single = sections.rows_at(by_domain(in_rounds(students.rows, [study])), domain="in-domain")
    return [
        {
            "round": number,
            "KL to its teacher": sections.over(own["held_out_kl"]),
            "KL to the first": sections.over(own["first_kl"]),
            "agreement with the first": sections.over(own["first_agreement"]),
            "its teacher's": "1" if number == 1 else sections.over(own["teacher_agreement"]),
            "in-domain accuracy, lowest to highest": (
                f"{own['accuracy'].min():.2f} to {own['accuracy'].max():.2f}"
            ),
            "one-sided draws": one_sided(own["share_entailment"]),
        }
        for number, own in single.groupby("rounds", sort=False)
    ]


@sections.text_by_study
def recursion(students: Results, main: pd.DataFrame, study: Study) -> str:
    """Say what the rounds change, and where the chain leaves the first teacher."""
    if f"round {study.rounds}" not in names(study):
        return ""
    last, at = f"recursive, round {study.rounds}", {"domain": "in-domain"}
    change = sections.difference(main, at | {"method": last}, at | {"method": student(study)})
    first, second, own = (
        sections.rows_at(students.rows, method=name)
        for name in (student(study), "recursive, round 2", last)
    )
    claim = conclusions.recursion(
        change, study.rounds, study.distill_learning_rate, own["first_kl"]
    ).claim
    stops = (own["first_kl"].to_numpy() > first["first_kl"].to_numpy()).sum()
    return (
        f"{claim} From round 1 to round {study.rounds}, in-domain accuracy changes by {change} "
        f"(paired){sections.unresolved(change)}. Each student is near its own teacher (KL "
        f"{sections.over(own['held_out_kl'])} nats on held-out queries), but the KL to the "
        f"first teacher is {sections.over(own['first_kl'])} nats. Without the context the "
        "student of round 1 agrees with the first teacher on "
        f"{sections.over(first['first_agreement'])} of the held-out queries; with the context "
        "before the query, where it was never trained, on "
        f"{sections.over(second['teacher_agreement'])}. That student with the context is the "
        'teacher of round 2. A stop on fidelity to the first teacher (`selection="best"`) '
        f"would end {stops} of {len(own)} recursions before this last round."
    )


# --- what is compared, and what is forgotten ---------------------------------------------------


@sections.where_run("objectives", "temperature")
@sections.table_by_study()
def objectives(results: Results, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy, fidelity and loss on text by what teacher and student are compared over."""
    plain = f"distillation, {grids.middle(study.queries):,} queries"
    part = sections.only(
        results.part(plain, "objectives", "temperature"),
        [study],
        lambda study: {"data_seed": grids.few(study)},
    )
    answers = sections.scored(part)
    kinds: Any = part.rows.groupby(["objective", "temperature"], sort=False)
    for (objective, temperature), own in kinds:
        softened = f", temperature {temperature:g}" * (temperature != study.temperature)
        at = {"objective": objective, "temperature": temperature}
        accuracies = {
            domain: sections.interval(answers, domain=domain, **at)
            for domain in sections.task_of(study).domains
        }
        yield {
            "compared over": NAMES[objective] + softened,
            **{domain: str(interval) for domain, interval in accuracies.items()},
            "agreement, held-out": sections.over(own["held_out_agreement"]),
            "text (nats a token)": sections.over(own["text_nll"]),
            "n": accuracies["in-domain"].n,
        }


def _with_term(text: Results, studies: Sequence[Study]) -> list[Study]:
    """The studies that train without and with the text term."""
    return sections.having(text, studies, *text.groups) if text.groups else []


def forgetting_figure(text: Results, start: Results, studies: Sequence[Study]) -> Any:
    """Accuracy against the perplexity of plain sentences, each method without and with the term.

    `text`: `sections.text_term`; `start`: where the zero-shot runs are.
    """
    studies = _with_term(text, studies)
    if not studies:
        return None
    by, answers = ["study", "method", "term"], sections.scored(text)
    rows = sections.with_classifier(answers, studies, lambda study: [study.context_shots])
    lines = sections.rows_at(sections.classifier_lines(rows), domain="in-domain")
    right = sections.summary(answers[answers["domain"] == "in-domain"], by)
    both = right.merge(stats.over_draws(text.rows, by, "text_nll"), on=by, suffixes=("", "_nll"))
    for end in ("mean", "lo", "hi"):
        both[f"{end}_text"] = np.exp(both[f"{end}_nll"])
    before = {study.study: np.exp(sections.start_nll(start, study)) for study in studies}
    sizes = conclusions.joined(list(dict.fromkeys(str(s.context_shots) for s in studies)))
    queries = dict.fromkeys(f"{grids.middle(study.queries):,}" for study in studies)
    return figures.panels(
        both,
        sections.facet(studies),
        lambda part, note: compare.forgetting(
            part,
            start=before[part["study"].iloc[0]],
            rules=sections.rows_at(lines, study=part["study"].iloc[0]),
            note=note,
        ),
        note=f"{sizes} labelled examples, {conclusions.joined(list(queries))} queries; "
        f"{stats.caption(right)}",
    )


def forgetting_table(text: Results, start: Results, studies: Sequence[Study]) -> None:
    """Accuracy and perplexity of each method without and with the text term; what it does."""
    studies = _with_term(text, studies)
    if not studies:
        return
    answers = sections.scored(text)
    _forgetting(text, answers, studies)
    _forgotten(text, start, answers, studies)


@sections.table_by_study()
def _forgetting(text: Results, answers: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    losses, changes = sections.term_effects(text, answers, study)
    inside = sections.rows_at(answers, domain="in-domain")
    for (method, term), nll in losses.items():
        interval = sections.interval(inside, method=method, term=term)
        change = changes[method] if term == "with" else None
        yield (
            {"method": method, "text term": term, "accuracy": str(interval)}
            | sections.beside("with minus without", change)
            | {"perplexity": conclusions.perplexity(nll), "n": interval.n}
        )


@sections.text_by_study
def _forgotten(text: Results, start: Results, answers: pd.DataFrame, study: Study) -> str:
    losses, changes = sections.term_effects(text, answers, study)
    return str(conclusions.forgetting(losses, sections.start_nll(start, study), changes))


def perplexity(students: Results) -> None:
    """The perplexity of plain sentences after each method."""
    losses = students.rows.groupby(["study", "method"], sort=False)["text_nll"]
    found = losses.agg(perplexity=conclusions.perplexity, draws="size")
    sections.table(found.reset_index())


# --- when it pays ------------------------------------------------------------------------------


def cost(students: Results, studies: Sequence[Study]) -> None:
    """What distilling costs, means over draws, and after how many answers it has paid."""
    rows = on_one_machine(students.rows)
    _costs(rows, studies)
    sections.hardware(students.rows, rows)


@sections.table_by_study(
    dict.fromkeys(["teacher (s)", "training (s)"], ".2f")
    | dict.fromkeys(
        ["tokens an answer, with context", "without", "pays after (operations)"], ",.0f"
    )
)
def _costs(rows: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """A line a student of one round."""
    own = sections.operations(rows)
    queries = own["in_domain_n"] + own["out_of_domain_n"] + len(prompts.CONTENT_FREE)
    own = own.assign(per_answer=own["eval_seconds"] / queries)
    columns = "per_answer tokens adapt answer train_seconds teacher_seconds".split()
    means, runs = own.groupby("method", sort=False)[columns].mean(), own["method"].value_counts()
    context = means.loc[teacher(study)]
    for name in [n for n in of_students(study) if n.startswith("distilled")]:
        one = means.loc[name]
        saving = context["per_answer"] - one["per_answer"]
        lora = name == student(study, lora=True)
        pays = f"{one['train_seconds'] / saving:,.0f}" if saving > 0 else "never"
        yield {
            "student": name.split(", ")[-1] + f", LoRA of rank {study.lora_rank}" * lora,
            "teacher (s)": one["teacher_seconds"],
            "training (s)": one["train_seconds"] - one["teacher_seconds"],
            "tokens an answer, with context": context["tokens"],
            "without": one["tokens"],
            "pays after (operations)": one["adapt"] / (context["answer"] - one["answer"]),
            "pays after (seconds)": pays,
            "runs": int(runs[name]),
        }


@sections.findings_by_study
def summary(main: pd.DataFrame, study: Study) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    most = student(study, study.queries[-1])
    share = _share(main, study, most)
    if np.isfinite(share.mean):
        yield (
            f"Without demonstrations in its prompt and without any label but those "
            f"{study.context_shots} in the teacher's context, the student of "
            f"{study.queries[-1]:,} queries has {share} of its teacher's in-domain gain."
        )
    else:
        yield "The teacher has no clear gain in in-domain accuracy: there is no share to give."
    inside = main[main["domain"] == "in-domain"]
    context, own, start = ({"method": name} for name in (teacher(study), most, START))
    pairs = {
        "the teacher minus zero-shot": (context, start),
        "the student minus zero-shot": (own, start),
        "the student minus its teacher": (own, context),
    }
    gaps = sections.differences(inside, pairs, "auc")
    texts = [f"{name} is {gap}{sections.unresolved(gap)}" for name, gap in gaps.items()]
    yield (
        "By in-domain AUC, which a lean to one answer does not change, "
        f"{conclusions.joined(texts)}; the three intervals hold together."
    )
    if "out-of-domain" in sections.task_of(study).domains:
        out = main[main["domain"] == "out-of-domain"]
        gap = sections.difference(out, own, context)
        yield (
            f"Out-of-domain the student's accuracy minus its teacher's is {gap}"
            f"{sections.unresolved(gap)}."
        )
    if "LoRA student" in names(study):
        lora = student(study, lora=True)
        gap = sections.difference(inside, {"method": lora}, {"method": student(study)})
        yield (
            f"In in-domain accuracy, the LoRA student minus the full one is {gap} (paired)"
            f"{sections.unresolved(gap)}."
        )
