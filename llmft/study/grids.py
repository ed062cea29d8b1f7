"""Which runs a chapter shows: one function a chapter, from a study to named lists of runs.

The lists' names are what the chapter's figures and tables speak of. The comparison and the
prediction of what a study costs use the same functions.
"""

import fnmatch
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from llmft import ROOT, UserError
from llmft.engine.learner import ALL_LAYERS, KEYS_VALUES_HIDDEN
from llmft.engine.spec import (
    ADAPTERS,
    DISTILLATION_OBJECTIVES,
    OBJECTIVES,
    PLACEBOS,
    SELECTIONS,
    TRAINED,
    Spec,
)
from llmft.nli import prompts, tasks
from llmft.params import Study


Grid = dict[str, list[Spec]]
"""Runs by the name of what they are for; a run may stand under several names."""

Size = TypeVar("Size")
"""A number of examples, or a run with it."""

QUERIES_VALUES = "q_proj,v_proj"
"""The layers that LoRA's paper changes (Hu et al. 2022), by their usual names."""

TEXT_TERM = {"without": "vocabulary", "with": "query"}
"""The objectives without and with the loss on the pair's own words (the text term)."""

FULL_RATES = (0.25, 0.5, 1.0, 2.0)
LORA_RATES = (0.1, 0.3, 1.0, 3.0)
STUDENT_RATES = (0.3, 1.0, 3.0)
"""The rates of the searches for full fine-tuning, LoRA and a student, as shares of the study's."""

LORA_RANKS = (1, 2, 4, 8)
"""The ranks of the chapter on LoRA."""

ALPHA = 32.0
"""LoRA's alpha, whatever its rank, where its best learning rate is set beside full fine-tuning's:
that of "LoRA Without Regret" (Schulman and Thinking Machines Lab 2025)."""

RANKS = (1, 4, 16)
"""LoRA's ranks there."""

WITH_TEXT = ("full", f"rank-{RANKS[1]} LoRA")
"""The methods that learn with the text term, too."""

RATES_OF, AND_TEXT = "rates of ", " + text term"
"""A method's runs at all learning rates are the group `rates of METHOD`; with the text term, the
group `rates of METHOD + text term`."""


def spec(study: Study, method: str, **fields: Any) -> Spec:
    """The run of `method` that the study's parameters describe; `fields` win over them.

    Its examples are as many as the context to distil has. Training sees each of them as often as
    the study's `epochs` say, at least. A distillation has the middle one of the numbers of queries,
    each of which comes up at least once, and one round.
    """
    book = Path(study.rows)
    rows = book.relative_to(ROOT).as_posix() if book.is_relative_to(ROOT) else study.rows
    common: dict[str, Any] = {
        "task": study.task,
        "rows": rows,  # from the book's folder: a run is the same in every clone
        "labels": study.labels,
        "model": study.model,
        "pattern": study.pattern,
        "verbalizer": study.verbalizer,
        "limit": study.limit,
        "dtype": study.dtype,
        "shots": 0 if method == "zero-shot" else study.context_shots,
    }
    training: dict[str, Any] = {}
    if method in TRAINED and method != "distillation":
        passes = math.ceil(study.epochs * fields.get("shots", study.context_shots))
        training = {
            "learning_rate": study.learning_rate,
            "updates": max(study.updates, -(-passes // study.batch_size)),
            "batch_size": study.batch_size,
            "objective": study.objective,
            "selection": study.selection,
        }
    if method in ADAPTERS:
        own = {name: value for name, value in low_rank(study).items() if name in ADAPTERS[method]}
        training |= {"learning_rate": study.lora_learning_rate} | own
    if method == "probe":
        training["objective"] = "head"
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
    """Every combination of the axes' values, the last axis fastest."""
    return [
        replace(base, **dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def curve(study: Study, method: str, sizes: Sequence[int], **fields: Any) -> list[Spec]:
    """The runs of `method` with every one of these numbers of examples, a run a draw."""
    return [
        spec(study, method, shots=size, data_seed=seed, **fields)
        for size in sizes
        for seed in draws(study, size)
    ]


def draws(study: Study, size: int = 0) -> range:
    """The seeds of a point's draws; `size` examples or queries may be so many that half must do."""
    if 0 < study.half_from <= size:
        return few(study)
    return range(study.seed, study.seed + study.repeats)


def few(study: Study) -> range:
    """Half of the draws, for what is compared beside the main curves."""
    return draws(study)[: max(2, study.repeats // 2)]


def middle(sizes: Sequence[Size]) -> Size:
    """The middle one of some sizes, or of runs with these; the upper one of two."""
    return sizes[len(sizes) // 2]


def side(study: Study) -> int:
    """The number of training examples, nearest to `side_shots`, where variants are compared."""
    return min(study.train_shots, key=lambda size: abs(math.log(size / study.side_shots)))


# --- the chapters' grids -----------------------------------------------------------------------


def chapter(grid: Callable[[Study], Grid]) -> Callable[[Study], Grid]:
    """The grid without the groups that a study leaves out; none if it leaves out the chapter."""

    @wraps(grid)
    def of_study(study: Study) -> Grid:
        found, whole = grid(study), f"chapter {grid.__name__.replace('_', '-')}"
        names = [whole, *found]
        left_out = {name for pattern in study.without for name in fnmatch.filter(names, pattern)}
        if whole in left_out:
            return {}
        return {name: specs for name, specs in found.items() if name not in left_out}

    return of_study


def check(study: Study) -> None:
    """Refuse a name to leave out that no chapter has.

    Raises:
        UserError: there is one.
    """
    # A study that has every group.
    whole = study.model_copy(update={"without": [], "context_shots": 4, "model": CHECKPOINTS[0]})
    known = {name for grid in (*CHAPTERS.values(), comparison) for name in grid(whole)}
    known |= {f"chapter {name}" for name in CHAPTERS}
    for pattern in study.without:
        if not fnmatch.filter(known, pattern):
            raise UserError(
                f"study {study.study} is without {pattern!r}, and no chapter has such runs: use "
                f"{', '.join(sorted(known))}"
            )


@chapter
def icl(study: Study) -> Grid:
    """In-context learning: the curve, the same on validation pairs, other orders, other patterns.

    The validation pairs are for thresholds: what they are fitted on is not what is reported.
    """
    base, size = spec(study, "icl"), [middle(study.shots)]
    others = [name for name in prompts.PATTERNS if name != study.pattern]
    return {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": curve(study, "icl", study.shots),
        "validation, 0 shots": [spec(study, "zero-shot", split="validation")],
        **{
            f"validation, {size:,} shots": curve(study, "icl", [size], split="validation")
            for size in study.shots
        },
        "orders": product(base, shots=size, data_seed=few(study), order_seed=[1, 2]),
        "patterns": product(base, pattern=others, shots=size, data_seed=few(study)),
    }


@chapter
def few_shot(study: Study) -> Grid:
    """Full fine-tuning: its search, its curve, what else varies, other losses and selections."""
    base, at = spec(study, "fine-tuning", shots=side(study)), {"data_seed": few(study)}
    objectives = [name for name in OBJECTIVES if name != study.objective]
    selections = [name for name in SELECTIONS if name != study.selection]
    return {
        "search": search(study, base, FULL_RATES),
        "zero-shot": [spec(study, "zero-shot")],
        "full fine-tuning": curve(study, "fine-tuning", study.train_shots),
        "not varied": product(base, **at),
        "training orders": product(base, **at, order_seed=[1]),
        "initialisations": product(base, **at, init_seed=[1]),
        "objectives": product(base, **at, objective=objectives),
        "selections": product(base, **at, selection=selections),
    }


def search(study: Study, base: Spec, factors: Sequence[float], most: int = 1_000) -> list[Spec]:
    """A search of the learning rate on validation pairs, with at most so many draws of its own."""
    start = study.seed + 1_000  # no reported run has these draws
    return product(
        replace(base, split="validation"),
        learning_rate=[base.learning_rate * factor for factor in factors],
        data_seed=range(start, start + min(most, study.search_draws, study.repeats)),
    )


@chapter
def lora(study: Study) -> Grid:
    """LoRA beside full fine-tuning: search, curves, ranks, other layers, biases alone, too slow."""
    size, at = side(study), {"data_seed": few(study)}
    full, base = (spec(study, method, shots=size) for method in ("fine-tuning", "lora"))
    scale = study.lora_alpha / study.lora_rank
    biases = replace(full, method="bitfit", learning_rate=study.lora_learning_rate)
    other_layers = QUERIES_VALUES if study.lora_targets == ALL_LAYERS else ALL_LAYERS
    return {
        "search": search(study, base, LORA_RATES),
        "zero-shot": [spec(study, "zero-shot")],
        "full fine-tuning": curve(study, "fine-tuning", study.train_shots),
        "LoRA": curve(study, "lora", study.train_shots),
        "ranks": [
            one
            for rank in LORA_RANKS
            for one in product(replace(base, rank=rank, alpha=scale * rank), **at)
        ],
        "other layers": product(base, **at, targets=[other_layers]),
        "BitFit": product(biases, **at),
        "not learning": not_learning(study),
    }


def not_learning(study: Study) -> list[Spec]:
    """LoRA as the earlier study had it: of rank 4, at full fine-tuning's learning rate."""
    base = spec(study, "lora", shots=side(study), rank=4, learning_rate=1e-5)
    return product(base, data_seed=few(study))


def contenders(study: Study) -> dict[str, Spec]:
    """The methods that are compared at an equal budget, each at the middle of its learning rates.

    That is the study's for full fine-tuning, ten times this for what learns beside fixed weights,
    and a hundred times for VeRA's vectors and a probe, which have least to move; nobody searched.
    """
    everywhere: dict[str, Any] = {"targets": ALL_LAYERS, "alpha": ALPHA}
    most = RANKS[-1]
    full = {"full": spec(study, "fine-tuning")}
    ten = {
        **{f"rank-{r} LoRA": spec(study, "lora", **everywhere, rank=r) for r in RANKS},
        f"rank-{most} rsLoRA": spec(study, "rslora", **everywhere, rank=most),
        f"rank-{RANKS[1]} DoRA": spec(study, "dora", **everywhere, rank=RANKS[1]),
        "IA3": spec(study, "ia3", targets=KEYS_VALUES_HIDDEN),
        "BitFit": spec(study, "bitfit"),
    }
    hundred = {
        "VeRA": spec(study, "vera", targets=ALL_LAYERS, rank=4 * most),
        "linear probe": spec(study, "probe"),
    }
    return {
        name: replace(one, learning_rate=times * study.learning_rate)
        for times, some in ((1, full), (10, ten), (100, hundred))
        for name, one in some.items()
    }


def with_fewer_pairs(study: Study) -> Study:
    """The study as the budgets' runs have it: each is asked `budget_limit` pairs a domain, at most.

    There are hundreds of these runs, and half of their time would go into asking all pairs. With
    400 of 1,200, in-domain intervals over five draws are about a tenth wider (accuracy), or a third
    (AUC).
    """
    limits = [limit for limit in (study.limit, study.budget_limit) if limit]
    return study.model_copy(update={"limit": min(limits, default=0)})


@chapter
def budgets(study: Study) -> Grid:
    """Every method at as many learning rates; full fine-tuning and LoRA with the text term, too.

    Which rate is best is not chosen by what is reported: each run is measured on validation pairs
    after training (its row's `curve`), and then asked the test pairs.
    """
    study = with_fewer_pairs(study)
    rates = {
        name: product(
            one,
            shots=study.budget_shots,
            learning_rate=[one.learning_rate * factor for factor in study.tried_rates],
            data_seed=few(study),
        )
        for name, one in contenders(study).items()
    }
    text = {
        name: [
            replace(one, objective=TEXT_TERM["with"])
            for one in rates[name]
            if one.shots == study.budget_shots[0]
        ]
        for name in WITH_TEXT
    }
    return {
        "zero-shot": [spec(study, "zero-shot")],
        **{RATES_OF + name: specs for name, specs in rates.items()},
        **{RATES_OF + name + AND_TEXT: specs for name, specs in text.items()},
    }


@chapter
def context_distillation(study: Study) -> Grid:
    """Distillation: search, teachers, rivals, students by queries and round, losses, placebos."""
    plain, seeds = spec(study, "distillation"), draws(study)
    rival = spec(study, "fine-tuning")
    adapter = replace(plain, learning_rate=study.lora_learning_rate, **low_rank(study))
    objectives = [name for name in DISTILLATION_OBJECTIVES if name != study.distill_objective]
    rounds = range(2, study.rounds + 1)
    return {
        "search": search(study, plain, STUDENT_RATES, most=2),
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl", context=plain.context), data_seed=seeds),
        "full fine-tuning": product(rival, data_seed=seeds),
        **{
            f"distillation, {n:,} queries": product(
                spec(study, "distillation", queries=n), data_seed=draws(study, n)
            )
            for n in study.queries
        },
        "LoRA student": product(adapter, data_seed=seeds),
        **{
            f"round {n}": product(plain, data_seed=draws(study, plain.queries), rounds=[n])
            for n in rounds
        },
        **text_term(study),
        **placebos(study, draws(study, plain.queries)),
        "objectives": product(plain, data_seed=few(study), objective=objectives),
        "temperature": product(plain, data_seed=few(study), temperature=[2 * study.temperature]),
    }


@chapter
def keeping(study: Study) -> Grid:
    """A context kept in the prompt, as a trained prefix, by LoRA, in all weights.

    All that is trained has the same queries and updates. The rates of LoRA and of a prefix, at
    its middle size, are searched by fidelity alone, as distillation's is.
    """
    plain, seeds = spec(study, "distillation"), draws(study)
    adapter = replace(plain, learning_rate=study.lora_learning_rate, **low_rank(study))
    prefixes = [
        replace(plain, learning_rate=study.prefix_learning_rate, prefix=size)
        for size in study.prefixes
    ]
    prompt = spec(study, "icl", context=plain.context)
    fewer = [size for size in study.shots if size < study.context_shots]
    return {
        "search for a prefix": search(study, middle(prefixes), STUDENT_RATES, most=2),
        "search for LoRA": search(study, adapter, STUDENT_RATES, most=2),
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(prompt, data_seed=seeds),
        "shorter prompts": product(prompt, shots=fewer, data_seed=seeds),
        **{f"prefix of {base.prefix:,}": product(base, data_seed=seeds) for base in prefixes},
        "LoRA student": product(adapter, data_seed=seeds),
        f"distillation, {plain.queries:,} queries": product(plain, data_seed=seeds),
    }


@chapter
def text_term(study: Study) -> Grid:
    """Each method that trains, without and with the loss on the pair's own words."""
    methods = {"full fine-tuning": "fine-tuning", "LoRA": "lora", "distillation": "distillation"}
    return {
        f"{name}, {term} the text term": product(
            spec(study, method, objective=objective), data_seed=few(study)
        )
        for name, method in methods.items()
        for term, objective in TEXT_TERM.items()
    }


def placebos(study: Study, seeds: Sequence[int]) -> Grid:
    """Contexts with the form of the true one without its content; a context must have quarters."""
    if study.context_shots % 4:
        return {}
    return {
        f"placebo, {method}": product(spec(study, method), context=PLACEBOS, data_seed=seeds)
        for method in ("icl", "distillation")
    }


PURITIES = (0.5, 0.5625, 0.625, 0.75, 1.0)
"""How often the cue is right in the labelled examples of the chapter on rules."""

BESIDE = 0.75
"""The purity of the other examples, where some are pairs without a cue."""

SHARES: tuple[float, ...] = (0.0, 0.0625, 0.25, 0.5, 1.0)
"""Which share of the examples are pairs without a cue."""

FEWER_SHARES = (0.0, 0.25, 1.0)
"""The same of a study of real pairs, whose runs take minutes: none, some, and no others."""


def crossed(study: Study, task: str = "pocket-rules") -> Study:
    """The study on the pocket task in which cue and meaning are crossed.

    One of chosen real pairs (`rows`) stays as it is: some of these are for mixing in.
    """
    if study.rows:
        return study
    return study.model_copy(update={"task": task, "labels": ""})


def mixing(study: Study, points: Sequence[Spec]) -> list[Spec]:
    """These runs of a method at each share of pairs without a cue; the others are of one purity.

    Of real pairs the others come as they are, and for their hours there are fewer shares, draws
    where there is a share at all, and sizes.
    """
    shares, purity, seeds = SHARES, BESIDE, draws(study)
    if study.rows:
        shares, purity, seeds = FEWER_SHARES, 0.0, few(study)
    found: dict[tuple[Spec, int], Spec] = {}  # of few examples two shares may be as many pairs
    for share, point in itertools.product(shares, points):
        if not 0 < study.half_from <= point.shots and (not share or point.data_seed in seeds):
            pairs = tasks.mixed_pairs(point.shots, share)
            found.setdefault((point, pairs), replace(point, purity=purity, mixed=share))
    return [*found.values()]


@chapter
def rules(study: Study) -> Grid:
    """How pure the cue is in the labelled examples, and pairs without it among them."""
    study = crossed(study)
    size, every, half = side(study), draws(study), few(study)
    most = min(study.shots[-1], study.context_shots)
    found = {"zero-shot": [spec(study, "zero-shot")]}
    for name, method, seeds_of in (
        ("ICL", "icl", {most: every}),
        ("full fine-tuning", "fine-tuning", {study.train_shots[-1]: half, size: every}),
        ("LoRA", "lora", {size: half}),
    ):
        points = [
            spec(study, method, shots=n, data_seed=seed)
            for n, seeds in seeds_of.items()
            for seed in seeds
        ]
        found[f"purity, {name}"] = [replace(p, purity=share) for share in PURITIES for p in points]
        found[f"mixed, {name}"] = mixing(study, points)
    return found


@chapter
def comparison(study: Study) -> Grid:
    """The methods side by side, by runs that the other chapters made."""
    plain = spec(study, "distillation")
    seeds = draws(study, plain.queries)
    return {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": curve(study, "icl", study.shots),
        "full fine-tuning": curve(study, "fine-tuning", study.train_shots),
        "LoRA": curve(study, "lora", study.train_shots),
        "distillation": product(plain, data_seed=seeds),
        "recursive distillation": product(plain, rounds=[study.rounds], data_seed=seeds),
    }


@chapter
def bugs(study: Study) -> Grid:
    """What the bugs are shown on: each method as it should be, and LoRA at too low a rate."""
    seeds = few(study)
    return {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl"), shots=study.shots, data_seed=seeds),
        "LoRA": product(spec(study, "lora", shots=side(study)), data_seed=seeds),
        "not learning": not_learning(study),
        "distillation": product(spec(study, "distillation", objective="query"), data_seed=seeds),
        "fewest": product(spec(study, "fine-tuning", shots=study.train_shots[0]), data_seed=seeds),
    }


RATES = (0.1, 0.3, 1.0)
"""The learning rates of the recursions, as shares of the study's own."""

ARMS: dict[str, dict[str, Any]] = {
    "live": {},
    "anchored": {"teacher": "first"},
    "averaged": {"teacher": "average"},
    "fresh context": {"fresh": 1},
    "context mixed in": {"context_share": 0.5},
}
"""Kinds of recursion, and what of a run differs from the plain one, whose teacher is live."""

PRACTISED = "context mixed in"
"""The arm whose student also practises behind the context; its first round is its own."""


VARIANTS: dict[str, dict[str, Any]] = {
    "reverse KL": {"divergence": "reverse"},
    "Jensen-Shannon": {"divergence": "jsd"},
    "answer alone": {"objective": "vocabulary"},
}
"""Other losses of the live recursion: other divergences, and no text term (this at a low rate, too,
on all draws)."""


@chapter
def recursion(study: Study) -> Grid:
    """Recursions by teacher, context, rate, weights and divergence.

    Rounds differ by arm from the second one on, but for the arm that differs from the first. The
    students of round 1 are asked behind the context, too: a next round begins there.
    """
    plain, seeds = spec(study, "distillation"), draws(study)
    half = seeds[:5]  # an interval needs them
    adapter = replace(plain, learning_rate=study.lora_learning_rate, **low_rank(study))
    rounds = range(1, max(2, study.rounds) + 1)
    slow = plain.learning_rate * RATES[0]
    grid: Grid = {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl", context=plain.context), data_seed=seeds),
        "distillation": product(plain, data_seed=seeds),
    }
    for name, differs in ARMS.items():
        has_first = name in ("live", PRACTISED)
        for end, rate in (("", plain.learning_rate), (", slow", slow)):
            one = replace(plain, learning_rate=rate, **differs)
            arm = product(one, data_seed=half, rounds=rounds if has_first else rounds[1:])
            behind = product(one, data_seed=half, scoring=["context"]) if has_first else []
            grid[f"recursion, {name}{end}"] = arm + behind
    ends = [1, rounds[-1]]
    for name, changes in VARIANTS.items():
        one = replace(plain, **changes)
        grid[f"recursion, {name}"] = product(one, data_seed=half, rounds=ends)
        if "divergence" not in changes:  # five draws leave open what it does when slow
            slowly = replace(one, learning_rate=slow)
            grid[f"recursion, {name}"] += product(slowly, data_seed=seeds, rounds=ends)
    published = replace(plain, learning_rate=slow)
    grid["recursion, as published, slow"] = product(published, data_seed=seeds, rounds=ends)
    for name, one in (("all weights", plain), ("LoRA", adapter)):
        rates = [one.learning_rate * share for share in RATES]
        grid[f"recursion by rate, {name}"] = product(
            one, learning_rate=rates, data_seed=half, rounds=rounds
        )
    return grid


CHECKPOINTS = ("pocket", *(f"pocket-{seed}" for seed in range(1, 5)))
"""The pocket checkpoints, which differ by the seed of their pretraining (`llmft pocket --seed`)."""


@chapter
def checkpoints(study: Study) -> Grid:
    """The methods at one size on every pocket checkpoint; only of studies of the pocket model."""
    if study.model != CHECKPOINTS[0]:
        return {}
    full = spec(study, "fine-tuning")
    methods = {
        "zero-shot": [spec(study, "zero-shot")],
        "ICL": product(spec(study, "icl"), data_seed=few(study)),
        "full fine-tuning": product(full, data_seed=few(study)),
        "LoRA": product(spec(study, "lora"), data_seed=few(study)),
        "distillation": product(spec(study, "distillation"), data_seed=few(study)),
        "training orders": product(full, data_seed=few(study), order_seed=[0, 1]),
    }
    return {
        f"checkpoints, {name}": [replace(one, model=model) for model in CHECKPOINTS for one in runs]
        for name, runs in methods.items()
    }


CHAPTERS: dict[str, Any] = {
    "icl": icl,
    "few-shot": few_shot,
    "lora": lora,
    "budgets": budgets,
    "context-distillation": context_distillation,
    "recursion": recursion,
    "keeping": keeping,
    "rules": rules,
    "checkpoints": checkpoints,
    "bugs": bugs,
}
"""The chapters that make runs, by their names, in the book's order."""


def every(study: Study) -> dict[str, list[Spec]]:
    """Each chapter's runs by its name; a run that several do is the first one's."""
    found: dict[str, list[Spec]] = {}
    seen: set[Spec] = set()
    for chapter, grid in CHAPTERS.items():
        specs = [spec for group in grid(study).values() for spec in group]
        found[chapter] = [spec for spec in dict.fromkeys(specs) if spec not in seen]
        seen.update(found[chapter])
    return found
