"""The figure, table and findings on placebos: contexts with the form of one, and no content.

They are a part of the chapter on context distillation. `answers` are those of in-context learning
and of its distillation by `context`, beside zero-shot's (`contexts`).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
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

Gaps = Mapping[str, stats.Interval]
"""By context, the difference of a score."""


def _groups(study: Study) -> dict[str, str]:
    """The groups of runs with a context, a placebo or none that the study has, and the methods."""
    names = {
        "zero-shot": "zero-shot",
        "ICL": "ICL",
        "placebo, icl": "ICL",
        f"distillation, {grids.middle(study.queries):,} queries": "distilled",
        "placebo, distillation": "distilled",
    }
    groups = grids.context_distillation(study)
    return {group: name for group, name in names.items() if group in groups}


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


def _methods(answers: pd.DataFrame) -> dict[str, list[str]]:
    """By method that has placebos, which it has."""
    rows = answers[answers["context"].isin(PLACEBOS)]
    groups = rows.groupby("method", sort=False)["context"]
    return {str(method): [*own.unique()] for method, own in groups}


def _against(answers: pd.DataFrame, domain: str, method: str, value: str) -> dict[str, Gaps]:
    """By what is subtracted, the differences of each context; those from the same hold together."""
    at: At = {"domain": domain, "method": method}
    placebos, true = _methods(answers)[method], at | {"context": TRUE}
    return {
        base: sections.differences(
            answers, {name: (at | {"context": name}, other) for name in names}, value
        )
        for base, names, other in (
            ("zero-shot's", [TRUE, *placebos], at | NONE),
            ("the demonstrations'", placebos, true),
        )
    }


@sections.table_by_study()
def compare(answers: pd.DataFrame, study: Study, value: str) -> Iterator[dict[str, Any]]:
    """A score by context, minus the true context's and minus zero-shot's."""
    for domain, method in product(sections.task_of(study).domains, _methods(answers)):
        gains, losses = _against(answers, domain, method, value).values()
        for context, gain in gains.items():
            at: At = {"domain": domain, "method": method, "context": context}
            mean = sections.interval(answers, value, **at)
            yield (
                at
                | {SCORES[value]: str(mean)}
                | sections.beside("minus demonstrations", losses.get(context))
                | {
                    "minus zero-shot": str(gain),
                    "shown from (zero-shot)": stats.number(gain.detectable),
                    "n": mean.n,
                }
            )


@sections.text_by_study
def content(answers: pd.DataFrame, study: Study) -> str:
    """Say what each context gives, and what a placebo lacks, by domain and method."""
    lines: list[str] = []
    gains, losses = [], []
    for domain, method in product(sections.task_of(study).domains, _methods(answers)):
        accuracy, area = (_against(answers, domain, method, value) for value in SCORES)
        lines += _lines(f"{domain.capitalize()}, {method}", accuracy, area)
        gain, *others = (gap.n for gaps in accuracy.values() for gap in gaps.values())
        gains.append(gain)
        losses += others
    n, own = (conclusions.joined([*dict.fromkeys(sizes)]) for sizes in (losses, gains))
    more = f"; {own} for the demonstrations minus zero-shot" * (own != n)
    return (
        "Differences of accuracy, and of the AUC where it shows something else; the intervals of "
        f"a line hold together (n = {n}{more}):\n\n{sections.bullets(lines)}"
    )


def _lines(place: str, accuracy: Mapping[str, Gaps], area: Mapping[str, Gaps]) -> Iterator[str]:
    """What accuracy shows, in one line if it is nothing, and the AUC where it is something else."""
    null = not _differs(accuracy)
    if null:
        every = [gap for gaps in accuracy.values() for gap in gaps.values()]
        yield (
            f"{place}: no context's accuracy is shown to differ from zero-shot's, and no "
            f"placebo's from the demonstrations'{_power(every)}."
        )
    for base, gaps in accuracy.items():
        if not null:
            yield _line(f"{place}, accuracy minus {base}", gaps)
        other = {
            name: gap
            for name, gap in area[base].items()
            if (_differs(area) if null else _side(gap) != _side(gaps[name]))
        }
        if other:
            yield _line(f"{place}, AUC minus {base}", other)


def _side(gap: stats.Interval) -> str:
    """Where the difference is shown to be."""
    return conclusions.verdict(gap, "above", "below", "neither")


def _differs(found: Mapping[str, Gaps]) -> bool:
    """Whether any of the differences is shown."""
    return any(_side(gap) != "neither" for gaps in found.values() for gap in gaps.values())


def _line(head: str, gaps: Gaps) -> str:
    """The differences that are shown, and those that are not, with the context of each."""
    above, below, neither = conclusions.sides(gaps)
    parts = [conclusions.joined([f"{gaps[name]} with {name}" for name in (*above, *below)])]
    if neither:
        each = conclusions.joined([f"{name} ({gaps[name]})" for name in neither])
        power = _power([gaps[name] for name in neither])
        parts.append(f"no difference is shown with {each}{power}")
    return f"{head}: {'; '.join(filter(None, parts))}."


def _power(gaps: Sequence[stats.Interval]) -> str:
    """Beside differences that are not shown, what would have been shown of each of them."""
    return sections.unresolved(max(gaps, key=lambda gap: np.nan_to_num(gap.detectable)))
