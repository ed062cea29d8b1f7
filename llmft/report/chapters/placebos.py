"""The figure, table and findings on placebos: contexts with the form of one, and no content.

They are a part of the chapter on context distillation. `answers` are those of in-context learning
and of its distillation by `context`, beside zero-shot's (`contexts`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from llmft.engine.spec import PLACEBOS
from llmft.params import Study
from llmft.report import conclusions, figures, sections, stats
from llmft.study import grids
from llmft.study.results import Results


TRUE = "demonstrations"
"""What the true context is called beside placebos."""

NONE = {"method": "zero-shot", "context": "none"}

SCORES = {"correct": "accuracy", "auc": "AUC"}

At = dict[str, Any]
"""Columns of answers and the value that each has."""


def _groups(study: Study) -> dict[str, str]:
    """The groups of runs with a context, a placebo or none that the study has, and the methods."""
    found = {
        "zero-shot": "zero-shot",
        "ICL": "ICL",
        "placebo, icl": "ICL",
        f"distillation, {grids.middle(study.queries):,} queries": "distilled",
        "placebo, distillation": "distilled",
    }
    made = grids.context_distillation(study)
    return {group: name for group, name in found.items() if group in made}


def contexts(results: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """The answers of ICL and its distillation by `context`, and zero-shot's, with scores.

    None where no study has placebos.
    """
    if not studies:
        return results.predictions.iloc[:0]
    answers = sections.scored(sections.by_method(results, studies, _groups))
    is_placebo = answers["context"].isin(PLACEBOS)
    answers["context"] = answers["context"].where(is_placebo, TRUE)
    return answers.assign(context=answers["context"].mask(answers["method"] == "zero-shot", "none"))


def figure(answers: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy by context, of in-context learning and its distillation, a block a domain."""
    if not studies:
        return None
    points = sections.summary(answers, ["study", "domain", "context", "method"])
    return figures.forest(
        points.assign(block=sections.panel(points, "domain")),
        "context",
        "method",
        group="block",
        note=f"{stats.caption(points)}; {sections.floors_text(studies)}",
    )


def _against(
    answers: pd.DataFrame, domain: str, value: str
) -> list[dict[tuple[str, str], stats.Interval]]:
    """By method and placebo: minus the true context's, and minus zero-shot's.

    The differences of a domain and a score hold together.
    """
    made = answers[answers["context"].isin(PLACEBOS)][["method", "context"]].drop_duplicates()
    places = {
        (method, context): {"domain": domain, "method": method, "context": context}
        for method, context in made.itertuples(index=False, name=None)
    }
    level = stats.together(2 * len(places))
    return [
        sections.differences(
            answers, {k: (at, at | base) for k, at in places.items()}, value, level
        )
        for base in ({"context": TRUE}, NONE)
    ]


@sections.table_by_study()
def compare(answers: pd.DataFrame, study: Study, value: str) -> Iterator[dict[str, Any]]:
    """A score by context, minus the true context's and minus zero-shot's."""
    for domain in sections.task_of(study).domains:
        less, more = _against(answers, domain, value)
        for (method, context), gap in less.items():
            at: At = {"domain": domain, "method": method, "context": context}
            mean, start = sections.interval(answers, value, **at), more[method, context]
            yield (
                at
                | {SCORES[value]: str(mean)}
                | sections.beside("minus demonstrations", gap)
                | {
                    "minus zero-shot": str(start),
                    "shown from (zero-shot)": stats.number(start.detectable),
                    "n": mean.n,
                }
            )


@sections.findings_by_study
def content(answers: pd.DataFrame, study: Study) -> Iterator[str]:
    """Say what of a context's gain is its content's, by domain and score."""
    for domain in sections.task_of(study).domains:
        for value, score in SCORES.items():
            less, _ = _against(answers, domain, value)
            for method in dict.fromkeys(method for method, _ in less):
                true = {"domain": domain, "method": method, "context": TRUE}
                gain = sections.difference(answers, true, true | NONE, value)
                own = {context: gap for (name, context), gap in less.items() if name == method}
                yield (
                    f"{domain.capitalize()}, {method}: {score} minus zero-shot's is {gain} with "
                    f"the demonstrations; it is {_less(own)}.{_left(own, gain)}"
                )


def _less(gaps: Mapping[str, stats.Interval]) -> str:
    """With which contexts it is shown to be less than with the demonstrations, with which not."""
    less = [name for name, gap in gaps.items() if gap.hi < 0]
    alike = [name for name in gaps if name not in less]
    words = [f"shown to be less with {conclusions.joined(less)}"] if less else []
    if alike:
        each = ", ".join(f"{gaps[name]}{sections.unresolved(gaps[name])}" for name in alike)
        words.append(f"not shown to be less with {conclusions.joined(alike)} ({each})")
    return " and ".join(words)


def _left(gaps: Mapping[str, stats.Interval], gain: stats.Interval) -> str:
    """By how much at most a placebo is below, where that is less than half of a gain's mean."""
    most = {name: -gap.lo for name, gap in gaps.items() if -gap.lo < gain.mean / 2}
    if gain.lo <= 0 or not most:
        return ""
    each = conclusions.joined([f"{stats.number(loss)} with {name}" for name, loss in most.items()])
    return f" It is lower by at most {each}, which is less than half of the mean gain."
