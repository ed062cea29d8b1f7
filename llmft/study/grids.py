"""Which runs a chapter shows: one function a chapter, from a study to named lists of runs.

The lists' names are what the chapter's figures and tables speak of. The same functions serve the
comparison, which looks at the other chapters' runs, and the prediction of what a study costs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from llmft import UserError
from llmft.engine.learner import ALL_LAYERS
from llmft.engine.spec import DISTILLED, OBJECTIVES, SELECTIONS, Spec
from llmft.nli import prompts
from llmft.params import Study


Grid = dict[str, list[Spec]]
"""Runs by the name of what they are for; a run may stand under several names."""

TEXT_TERM = {"without": "vocabulary", "with": "query"}
"""The objectives without and with the loss on the pair's own words (the text term)."""


def spec(study: Study, method: str, **fields: Any) -> Spec:
    """The run of `method` that the study's parameters describe; `fields` win over them.

    Its examples are as many as the context to distil has. A distillation has the middle one of the
    numbers of queries, each of which comes up at least once, and one round.

    Raises:
        UserError: an unknown method, or fields that do not go together.
    """
    common: dict[str, Any] = {
        "task": study.task,
        "rows": study.rows,
        "labels": study.labels,
        "model": study.model,
        "pattern": study.pattern,
        "verbalizer": study.verbalizer,
        "limit": study.limit,
        "dtype": study.dtype,
        "shots": 0 if method == "zero-shot" else study.context_shots,
    }
    training: dict[str, Any] = {}
    if method in ("fine-tuning", "lora", "bitfit"):
        training = {
            "learning_rate": study.learning_rate,
            "updates": study.updates,
            "batch_size": study.batch_size,
            "objective": study.objective,
            "selection": study.selection,
        }
    if method == "lora":
        training |= {"learning_rate": study.lora_learning_rate} | low_rank(study)
    if method == "distillation":
        queries = int(fields.get("queries", middle(study.queries)))
        training = {
            "learning_rate": study.distill_learning_rate,
            "updates": max(study.distill_updates, -(-queries // study.distill_batch_size)),
            "batch_size": study.distill_batch_size,
            "objective": study.distill_objective,
            "selection": "last",
            "context": study.context.replace("demonstrations", ""),
            "queries": queries,
            "rounds": 1,
            "temperature": study.temperature,
        }
    return Spec(**common | {"method": method} | training | fields)


def low_rank(study: Study) -> dict[str, Any]:
    """The fields of a run that changes weights by LoRA alone."""
    return {"rank": study.lora_rank, "alpha": study.lora_alpha, "targets": study.lora_targets}


def product(base: Spec, **axes: Sequence[Any]) -> list[Spec]:
    """Every combination of the axes' values, the last axis fastest.

    Raises:
        UserError: a name that is no field of `Spec`, or a value that does not fit it.
    """
    for name in axes:
        if name not in asdict(base):
            raise UserError(f"a run has no {name!r}: it has {', '.join(asdict(base))}")
    return [
        replace(base, **dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def draws(study: Study) -> range:
    """The seeds of a point's draws of examples."""
    return range(study.seed, study.seed + study.repeats)


def few(study: Study) -> range:
    """Half of the draws, for what is compared beside the main curves."""
    return draws(study)[: max(2, study.repeats // 2)]


def apart(study: Study, most: int) -> range:
    """At most so many draws that no reported run has, for searches."""
    return range(study.seed + 1_000, study.seed + 1_000 + min(most, study.repeats))


def middle(sizes: Sequence[int]) -> int:
    """The middle one of some numbers of examples, the upper one of two."""
    return sizes[len(sizes) // 2]


def upper(sizes: Sequence[int]) -> int:
    """The number of examples next above the middle one, where there are more than two."""
    return sizes[len(sizes) // 2 + 1 if len(sizes) > 2 else -1]


# --- the chapters' grids -----------------------------------------------------------------------


def icl(study: Study) -> Grid:
    """In-context learning: the curve, the same demonstrations in other orders, other patterns."""
    base, size = spec(study, "icl"), [middle(study.shots)]
    seeds = draws(study)
    others = [name for name in prompts.PATTERNS if name != study.pattern]
    return {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(base, shots=study.shots, data_seed=seeds),
        "orders": product(base, shots=size, data_seed=seeds, order_seed=[1, 2]),
        "patterns": product(base, pattern=others, shots=size, data_seed=seeds),
    }


def few_shot(study: Study) -> Grid:
    """Full fine-tuning: its search, its curve, what else varies, other losses and selections."""
    base = spec(study, "fine-tuning")
    at = {"shots": [middle(study.train_shots)], "data_seed": few(study)}
    objectives = [name for name in OBJECTIVES if name != study.objective]
    selections = [name for name in SELECTIONS if name != study.selection]
    return {
        "search": search(base, study, [0.25, 0.5, 1.0, 2.0], [upper(study.train_shots)]),
        "zero-shot": [spec(study, "zero-shot")],
        "full fine-tuning": product(base, shots=study.train_shots, data_seed=draws(study)),
        "middle": product(base, **at),
        "orders": product(base, **at, order_seed=[1, 2]),
        "initialisations": product(base, **at, init_seed=[1, 2]),
        "objectives": product(base, **at, objective=objectives),
        "selections": product(base, **at, selection=selections),
    }


def search(
    base: Spec, study: Study, factors: Sequence[float], shots: Sequence[int], most: int = 3
) -> list[Spec]:
    """A search of the learning rate on validation pairs, with draws of its own."""
    return product(
        base,
        split=["validation"],
        shots=shots,
        learning_rate=[base.learning_rate * factor for factor in factors],
        data_seed=apart(study, most),
    )


def lora(study: Study) -> Grid:
    """LoRA beside full fine-tuning: search, curves, ranks, every layer, biases alone, no change."""
    full, base = spec(study, "fine-tuning"), spec(study, "lora")
    size, seeds = [upper(study.train_shots)], draws(study)
    at = {"shots": size, "data_seed": few(study)}
    scale = study.lora_alpha / study.lora_rank
    biases = replace(full, method="bitfit", learning_rate=study.lora_learning_rate)
    return {
        "search": search(base, study, [0.1, 0.3, 1.0, 3.0], size),
        "zero-shot": [spec(study, "zero-shot")],
        "full fine-tuning": product(full, shots=study.train_shots, data_seed=seeds),
        "LoRA": product(base, shots=study.train_shots, data_seed=seeds),
        "ranks": [
            one
            for rank in (1, 2, 4, 8)
            for one in product(replace(base, rank=rank, alpha=scale * rank), **at)
        ],
        "all layers": product(base, **at, targets=[ALL_LAYERS]),
        "BitFit": product(biases, **at),
        "not learning": product(base, **at, rank=[4], learning_rate=[1e-5]),
    }


def context_distillation(study: Study) -> Grid:
    """Distillation: search, teachers, rivals, students by queries and rounds, the text term."""
    plain, seeds = spec(study, "distillation"), draws(study)
    rival = spec(study, "fine-tuning")
    adapter = replace(plain, learning_rate=study.lora_learning_rate, **low_rank(study))
    objectives = [name for name in DISTILLED if name != study.distill_objective]
    rounds = range(2, study.rounds + 1)
    return {
        "search": search(plain, study, [0.3, 1.0, 3.0], [plain.shots], most=2),
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl", context=plain.context), data_seed=seeds),
        "full fine-tuning": product(rival, data_seed=seeds),
        **{
            f"distillation, {n:,} queries": product(
                spec(study, "distillation", queries=n), data_seed=seeds
            )
            for n in study.queries
        },
        "LoRA student": product(adapter, data_seed=seeds),
        **{f"round {n}": product(plain, data_seed=seeds, rounds=[n]) for n in rounds},
        **text_term(study),
        "objectives": product(plain, data_seed=few(study), objective=objectives),
        "temperature": product(plain, data_seed=few(study), temperature=[2 * study.temperature]),
    }


def text_term(study: Study) -> Grid:
    """Each method that trains, without and with the loss on the pair's own words."""
    methods = {"full fine-tuning": "fine-tuning", "LoRA": "lora", "distillation": "distillation"}
    return {
        f"{name}, {term} the text term": product(
            spec(study, method, objective=objective), data_seed=draws(study)
        )
        for name, method in methods.items()
        for term, objective in TEXT_TERM.items()
    }


def comparison(study: Study) -> Grid:
    """The methods side by side, by runs that the other chapters made."""
    plain, seeds = spec(study, "distillation"), draws(study)
    return {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl"), shots=study.shots, data_seed=seeds),
        "full fine-tuning": product(
            spec(study, "fine-tuning"), shots=study.train_shots, data_seed=seeds
        ),
        "LoRA": product(spec(study, "lora"), shots=study.train_shots, data_seed=seeds),
        "distillation": product(plain, data_seed=seeds),
        "recursive distillation": product(plain, rounds=[study.rounds], data_seed=seeds),
    }


def earlier_study(study: Study) -> Grid:
    """What the earlier study's faults are shown on."""
    seeds = few(study)
    base, size = spec(study, "lora"), [upper(study.train_shots)]
    return {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl"), shots=study.shots, data_seed=seeds),
        "LoRA": product(base, shots=size, data_seed=seeds),
        "not learning": product(base, shots=size, data_seed=seeds, rank=[4], learning_rate=[1e-5]),
        "distillation": product(spec(study, "distillation", objective="query"), data_seed=seeds),
        "fewest": product(spec(study, "fine-tuning", shots=study.train_shots[0]), data_seed=seeds),
    }


CHAPTERS = {
    "icl": icl,
    "few-shot": few_shot,
    "lora": lora,
    "context-distillation": context_distillation,
    "earlier-study": earlier_study,
}
"""The chapters that make runs, by their names, in the book's order."""
