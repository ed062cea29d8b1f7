"""The figures, tables and paragraphs of the chapter on where a context is kept.

`contexts` are the runs side by side (`side_by_side`): `place` is where the context is kept, and
`method` what exactly is. `main` has their answers (`sections.scored`), `prices` what each costs.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from llmft.engine import distill, learner
from llmft.engine.models import Model
from llmft.nli import prompts
from llmft.params import Study
from llmft.report import compare, conclusions, costs, figures, sections, stats, theme
from llmft.study import grids, methods
from llmft.study.results import Results, on_one_machine


NOTHING, PROMPT, CACHE, PREFIX, LORA, WEIGHTS = (
    "nothing kept", "prompt", "cache", "prefix", "LoRA", "all weights"
)  # fmt: skip

STUDENTS = [PREFIX, LORA, WEIGHTS]
"""What is trained to stand for the context."""

HALF = 2
"""Bytes of a number that is kept, in half precision, and of a token's id."""


def names(study: Study) -> dict[str, str]:
    """The groups of runs that are set side by side, and where each keeps the context."""
    places = {"zero-shot": NOTHING, "shorter prompts": PROMPT, "ICL": PROMPT}
    starts = {"prefix": PREFIX, "LoRA student": LORA, "distillation": WEIGHTS}
    groups = grids.keeping(study)
    for name, (start, place) in itertools.product(groups, starts.items()):
        if name.startswith(start):
            places[name] = place
    return {name: place for name, place in places.items() if name in groups}


def side_by_side(results: Results, studies: Sequence[Study]) -> Results:
    """The runs to compare, each with the `place` of its context and a name, `method`.

    The loss on plain sentences, `text_nll`, is that with the context in front where it is kept
    there (`behind_the_prompt`); of shorter prompts it is not.
    """
    runs = sections.by_method(results, studies, names)
    rows, answers = (
        own.assign(place=own["method"], method=own.apply(_name, axis=1))
        for own in (runs.rows, runs.predictions)
    )
    for study in studies:
        at = (rows["study"] == study.study) & (rows["method"] == whole(study))
        rows.loc[at, "text_nll"] = [behind_the_prompt(study, n) for n in rows["data_seed"][at]]
    return Results(rows, answers, runs.groups)


def behind_the_prompt(study: Study, seed: int) -> float:
    """The loss on plain sentences, nats a token, behind a draw's whole context.

    It is measured here, as it is for a prefix: the runs of a prompt have the model's own loss.
    """
    model, task = sections.model_of(study), sections.task_of(study)
    run = replace(grids.spec(study, "distillation"), data_seed=int(seed))
    context = distill.context_ids(model, run, methods.examples(task, run))
    run = replace(run, prefix=len(context))  # a prefix of all of it, which nothing trains
    labels = prompts.label_tokens(model.tokenizer, run.wording)
    with learner.learner(model, run, labels, context) as learning:
        return methods.text_nll(learning.model, task, run, study.token_budget)


def _name(run: pd.Series) -> str:
    """What the chapter calls a run of `sections.by_method`, whose `method` is the place."""
    place = str(run["method"])
    if place == PROMPT:
        return _prompt(run["shots"])
    return f"{place} of {int(run['prefix']):,}" if place == PREFIX else place


def _prompt(shots: int) -> str:
    return f"prompt of {shots:,} shots"


def whole(study: Study) -> str:
    """What the chapter calls the prompt that all other methods are to stand for."""
    return _prompt(study.context_shots)


def students(rows: pd.DataFrame) -> list[str]:
    """The methods of a study's runs that train something, in their order."""
    return list(rows[rows["place"].isin(STUDENTS)]["method"].unique())


# --- the learning rate -------------------------------------------------------------------------


@sections.where_run("search for a prefix", "search for LoRA")
def search(results: Results, studies: Sequence[Study]) -> None:
    """Fidelity by what is trained and learning rate; which rate is nearest, and which is used."""
    rows = results.part("search for a prefix", "search for LoRA").rows
    what = "prefix of " + rows["prefix"].astype(int).astype(str)
    rows = rows.assign(method=what.where(rows["prefix"] > 0, LORA))
    sections.fidelity_by_rate(rows, ["method"])
    _nearest(rows, studies)


@sections.text_by_study
def _nearest(rows: pd.DataFrame, study: Study) -> str:
    clauses = []
    rates = {"a prefix": study.prefix_learning_rate, LORA: study.lora_learning_rate}
    for what, rate in rates.items():
        means = rows[(rows["prefix"] > 0) == (what != LORA)].groupby("learning_rate")["held_out_kl"]
        clauses.append(
            f"for {what} the mean KL is lowest at a learning rate of {means.mean().idxmin():.2g}, "
            f"and the reported runs use {rate:.2g}"
        )
    return f"By the search, {'; '.join(clauses)}."


# --- what is kept ------------------------------------------------------------------------------


@sections.and_missing
@sections.table_by_study()
def accuracy(main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy by method and domain, draws that fail, AUC; accuracy minus the prompt's, jointly."""
    gaps = differences(main, study)
    spread = sections.spread(main, ["method", "domain"]).set_index(["method", "domain"])
    domains = sections.task_of(study).domains
    for domain, method in itertools.product(domains, _in_tables(main, study)):
        at: dict[str, Any] = {"domain": domain, "method": method}
        right = sections.interval(main, **at)
        yield (
            at
            | {
                "accuracy": str(right),
                **spread.loc[(method, domain), ["median draw", "failed draws"]],
                "AUC": str(sections.interval(main, "auc", **at)),
            }
            | sections.beside("minus the prompt", gaps.get((method, domain)))
            | {"n": right.n}
        )


def _in_tables(own: pd.DataFrame, study: Study) -> list[str]:
    """The methods that tables show: all but the shorter prompts."""
    is_shorter = own["place"].isin([PROMPT, CACHE]) & (own["method"] != whole(study))
    return list(own[~is_shorter]["method"].unique())


def differences(main: pd.DataFrame, study: Study) -> dict[tuple[str, str], stats.Interval]:
    """By method and domain: accuracy minus the whole prompt's, paired; they hold together."""
    others = [name for name in _in_tables(main, study) if name != whole(study)]
    pairs = {
        (name, domain): tuple({"method": n, "domain": domain} for n in (name, whole(study)))
        for domain in sections.task_of(study).domains
        for name in others
    }
    return sections.differences(main, pairs)


@sections.text_by_study
def lead(main: pd.DataFrame, contexts: Results, study: Study) -> str:
    """Say which share of the prompt's gain each method keeps, and which differ from the prompt."""
    gaps, every, shares = differences(main, study), students(contexts.rows), []
    for name in every:
        samples = [
            sections.chosen(main, domain="in-domain", method=method)
            for method in (name, whole(study), NOTHING)
        ]
        shares.append(stats.share(*samples, level=stats.together(len(every))))
    if not all(np.isfinite(share.mean) for share in shares):
        return "The prompt has no clear in-domain gain, so there is none to keep."
    parts = [f"{share} ({name})" for name, share in zip(every, shares, strict=True)]
    sentences = [
        "The share of the prompt's in-domain gain over nothing kept that is kept: "
        f"{conclusions.joined(parts)}; these intervals hold together."
    ]
    main = main[main["method"].isin([*every, whole(study)])]
    for domain in sections.task_of(study).domains:
        own = {name: gaps[name, domain] for name in every}
        sentences.append(_against_the_prompt(own, domain, constants(main, study, domain)))
    return " ".join(sentences)


def constants(main: pd.DataFrame, study: Study, domain: str) -> dict[str, float]:
    """By method of which every draw fails: the share of pairs with the commoner answer.

    It is the mean over draws. None where a draw of the prompt does not fail.
    """
    draws = sections.of_draws(sections.rows_at(main, domain=domain), ["method"])
    draws = draws.assign(commoner=np.maximum(draws["called"], 1 - draws["called"]))
    means = draws.groupby("method")[["failed", "commoner"]].mean()
    shares = means.loc[means["failed"] == 1, "commoner"]
    return {str(name): float(share) for name, share in shares.items() if whole(study) in shares}


def _against_the_prompt(
    gaps: Mapping[str, stats.Interval], domain: str, flat: Mapping[str, float]
) -> str:
    """Say which methods are below the prompt in a domain, above it, within the margin, or open.

    A method that is shown to be below, or above, may be within the margin as well: it is named
    there. `flat`: the `constants`, of which no equality is claimed.
    """
    margin, where = conclusions.MARGIN, domain.capitalize()
    above, below, _ = conclusions.sides(gaps)
    near = [n for n, gap in gaps.items() if max(-gap.lo, gap.hi) < margin and n not in flat]
    kinds = {"below": below, "above": above, f"within {margin:.2f} of": near}
    clauses = [
        f"{kind} the prompt's with {conclusions.joined(names)}"
        for kind, names in kinds.items()
        if names
    ]
    sentences = [f"{where}, accuracy is shown to be {'; '.join(clauses)}."] * bool(clauses)
    if rest := [n for n in gaps if n not in (*above, *below, *near, *flat)]:
        texts = [
            f"{name} (a true difference of {stats.number(gaps[name].detectable)} would have been "
            "shown with 80 % power)"
            if np.isfinite(gaps[name].lo)
            else f"{name} (too few draws)"
            for name in rest
        ]
        sentences.append(
            f"{where}, it is shown neither to differ from the prompt's nor to be within "
            f"{margin:.2f} of it with {conclusions.joined(texts)}."
        )
    if names := [name for name in gaps if name in flat]:
        ends = (f"{end:.0%}" for end in (min(flat.values()), max(flat.values())))
        sentences.append(
            f"{where}, {conclusions.joined(['the prompt', *names])} are nearly constants: every "
            f"draw fails, and {' to '.join(dict.fromkeys(ends))} of the pairs get the commoner "
            "answer. Equal accuracies say nothing there."
        )
    return " ".join(sentences)


def rivals(main: pd.DataFrame, prices: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Compare each prefix with the longest prompt whose cache is no larger, or with nothing."""
    _rivals(main, prices, [study for study in studies if PREFIX in names(study).values()])


@sections.table_by_study()
def _rivals(main: pd.DataFrame, prices: pd.DataFrame, _study: Study) -> list[dict[str, Any]]:
    cheaper = prices[prices["place"].isin([CACHE, NOTHING])].sort_values("bytes")
    inside = sections.rows_at(main, domain="in-domain")
    duels = [
        (one, cheaper[cheaper["bytes"] <= one["bytes"]].iloc[-1])
        for _, one in prices[prices["place"] == PREFIX].iterrows()
    ]
    pairs = {
        one["method"]: ({"method": one["method"]}, {"method": rival["method"]})
        for one, rival in duels
    }
    gaps = sections.differences(inside, pairs)
    return [
        {
            "method": one["method"],
            "positions": int(one["positions"]),
            "rival": rival["method"],
            "its positions": round(rival["positions"]),
            **sections.beside("prefix minus rival", gaps[one["method"]]),
            "n": gaps[one["method"]].n,
        }
        for one, rival in duels
    ]


@sections.text_by_study
def training(contexts: Results, _study: Study) -> str:
    """Say what training adds to a prefix that begins as the context's first tokens."""
    own, parts = sections.rows_at(contexts.rows, place=PREFIX), []
    for name, part in own.groupby("method", sort=False):
        ends = [part["curve"].map(lambda curve, i=i: curve[i]) for i in (0, -1)]
        first, last = (
            sections.over(points.map(lambda p: p["validation_loss"]).rename("held_out_kl"))
            for points in ends
        )
        parts.append(f"from {first} to {last} nats ({name})")
    if not parts:
        return ""
    return (
        "Before training, a prefix is a prompt that breaks off. On the held-out queries that a "
        "learning curve reads, training takes its KL to the whole prompt "
        f"{conclusions.joined(parts)}."
    )


# --- what it costs -----------------------------------------------------------------------------


def prices(contexts: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """What each method keeps and costs, means over draws; each prompt is there as its cache, too.

    Columns: study, place, method, and those of `price`; seconds (to make) and ms (an answer), where
    they were measured on the machine that made most kinds of runs; perplexity, as text.
    """
    lines = []
    for study in studies:
        own, model = sections.rows_at(contexts.rows, study=study.study), sections.model_of(study)
        context = sections.rows_at(own, method=whole(study))["prefix_tokens"].mean()
        on_machine = own["key"].isin(set(on_one_machine(own)["key"]))
        answers = own["in_domain_n"] + own["out_of_domain_n"] + len(prompts.CONTENT_FREE)
        seconds = own["train_seconds"].where(own["queries"] > 0)
        own = own.assign(ms=1_000 * own["eval_seconds"] / answers, seconds=seconds)
        own[["ms", "seconds"]] = own[["ms", "seconds"]].where(on_machine)
        is_prompt = own["place"] == PROMPT  # all are scored behind the cache of what they share
        both = [own.assign(ms=own["ms"].mask(is_prompt)), own[is_prompt].assign(place=CACHE)]
        lines += [
            {**run[["study", "place", "method", "seconds", "ms"]], **price(run, model, context)}
            for _, run in pd.concat(both).iterrows()
        ]
    by = ["study", "place", "method"]
    means = pd.DataFrame(lines).groupby(by, sort=False).mean().reset_index()
    texts = contexts.rows.groupby(["study", "method"], sort=False)["text_nll"]
    means = means.merge(texts.agg(perplexity=conclusions.perplexity).reset_index())
    order = [NOTHING, PROMPT, CACHE, *STUDENTS]
    return means.sort_values("place", key=lambda places: places.map(order.index), kind="stable")


def price(run: pd.Series, model: Model, context: float) -> dict[str, float]:
    """What a run keeps (positions ahead of a query, bytes), and what it computes.

    Counted are the tokens read for an answer, and operations to make what is kept and to answer: as
    `sections.operations` does, and attention's, which it leaves out (`costs.attention`). For its
    gradients attention takes twice as much again. `context`: tokens of the teacher's context.
    """
    weights, place = run["parameters"], run["place"]
    ahead = {PROMPT: 0, CACHE: run["prefix_tokens"]}.get(place, run["prefix"])
    tokens = run["query_tokens"] + run["prefix_tokens"] * (place != CACHE)
    beside = ahead + tokens / 2  # what a token of a query looks at, on average
    answer = 2 * weights * tokens + costs.attention(model, tokens * beside)
    make, numbers = 0.0, ahead * costs.position(model)
    if place == CACHE:
        make = 2 * weights * ahead + costs.attention(model, ahead**2 / 2)
    if run["queries"]:
        step = 4 if run["trainable_parameters"] < weights else 6
        teacher = run["teacher_tokens"]
        looks = context**2 / 2 + (teacher - context) * (context + tokens / 2)
        looks += 3 * run["train_tokens"] * beside
        make = weights * (step * run["train_tokens"] + 2 * teacher) + costs.attention(model, looks)
    if place in (LORA, WEIGHTS):
        numbers = run["trainable_parameters"]
    if place == PROMPT:
        numbers = run["prefix_tokens"]  # a prompt is its tokens' ids
    return {
        "positions": ahead,
        "bytes": HALF * numbers,
        "tokens": tokens,
        "answer": answer,
        "make": make,
    }


def pays_after(one: pd.Series, rival: pd.Series) -> float:
    """After how many answers `one` has saved what it cost more than `rival`; inf for never.

    No number where one is the rival itself, or keeps nothing.
    """
    more, less = one["make"] - rival["make"], rival["answer"] - one["answer"]
    if one["place"] in (NOTHING, rival["place"]):
        return float("nan")
    return float("inf") if less <= 0 else max(0.0, more / less)


def choice(
    contexts: Results, main: pd.DataFrame, prices: pd.DataFrame, studies: Sequence[Study]
) -> None:
    """One line a method: what it does, keeps, costs, and when it has paid."""
    _choice(main, prices, studies)
    sections.hardware(contexts.rows, on_one_machine(contexts.rows))


def _table_prices(prices: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The prices of the methods that tables show, and what these call them (`label`)."""
    own = prices[prices["method"].isin(_in_tables(prices, study))]
    cache = own["place"].map({CACHE: ", as its cache"}).fillna("")
    return own.assign(label=own["method"] + cache)


def _answers(number: float) -> str:
    """A number of answers; a dash where none is meant, "never" where there is none."""
    if np.isnan(number):
        return "–"
    return "never" if np.isinf(number) else f"{_first_answer(number):,}"


@sections.table_by_study(
    {
        "kB": ",.0f",
        "tokens an answer": ",.0f",
        "made in (s)": ".1f",
        "pays after, read whole": _answers,
        "pays after, cached": _answers,
    }
)
def _choice(main: pd.DataFrame, prices: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    own = _table_prices(prices, study)
    prompt, cache = (own[own["place"] == place].iloc[0] for place in (PROMPT, CACHE))
    for _, one in own.iterrows():
        at = {"method": one["method"]}
        right = {
            domain: str(sections.interval(main, domain=domain, **at))
            for domain in sections.task_of(study).domains
        }
        yield {
            "method": one["label"],
            **right,
            "perplexity": one["perplexity"],
            "kB": one["bytes"] / 1_000,
            "tokens an answer": one["tokens"],
            "made in (s)": one["seconds"],
            "pays after, read whole": pays_after(one, prompt),
            "pays after, cached": pays_after(one, cache) if one["place"] != PROMPT else np.nan,
        }


@sections.table_by_study()
def fidelity(contexts: Results, main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """How near each trained method is to the prompt: KL and agreement."""
    agreement = sections.agreement(main, sections.rows_at(main, method=whole(study)))
    for name in students(contexts.rows):
        rows = sections.rows_at(contexts.rows, method=name)
        yield {
            "method": name,
            "KL, held-out": sections.over(rows["held_out_kl"]),
            "agreement, held-out": sections.over(rows["held_out_agreement"]),
            **agreement[name],
            "draws": len(rows),
        }


@sections.table_by_study(
    {
        "positions ahead": ",.0f",
        "to make (GFLOPs)": ",.1f",
        "an answer (GFLOPs)": ".3f",
        "an answer (ms)": ".2f",
    }
)
def operations(prices: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Operations to make what is kept and to answer, and the milliseconds of an answer."""
    own = _table_prices(prices, study)
    return pd.DataFrame(
        {
            "method": own["label"],
            "positions ahead": own["positions"],
            "to make (GFLOPs)": own["make"] / 1e9,
            "an answer (GFLOPs)": own["answer"] / 1e9,
            "an answer (ms)": own["ms"],
        }
    )


def figure(main: pd.DataFrame, prices: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy against the bytes that are kept, a mark a method, a panel a domain."""
    by = ["study", "domain", "method"]
    points = sections.summary(main[main["place"] != NOTHING], by)
    points = points.merge(prices, on=["study", "method"])
    points = points.assign(panel=sections.panel(points, "domain"))
    rules = sections.each(studies, lambda study: _rules(main, study))
    rules = rules.assign(panel=sections.panel(rules, "domain"))
    domain = theme.span(points["mean"], points["lo"], points["hi"], rules["accuracy"])
    return figures.panels(
        points,
        "panel",
        lambda part, note: compare.frontier(
            part,
            "bytes",
            "place",
            x_title="bytes kept (half precision)",
            columns=["method"],
            names=theme.order(points["place"]),
            rules=sections.rows_at(rules, panel=part["panel"].iloc[0]),
            y_domain=domain,
            note=note,
        ),
        note=stats.caption(points),
    )


def _rules(main: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The accuracy of what keeps nothing, by domain: zero-shot, the cue classifier, the floors."""
    own = sections.rows_at(main, study=study.study, method=NOTHING)
    means = own.groupby("domain", sort=False)["correct"].mean().reset_index(name="accuracy")
    return pd.concat([means.assign(rule=NOTHING), sections.without_model(study)], ignore_index=True)


# --- what to choose ----------------------------------------------------------------------------


@sections.findings_by_study
def choose(contexts: Results, main: pd.DataFrame, prices: pd.DataFrame, study: Study) -> list[str]:
    """Say what keeps the accuracy in the fewest bytes, when each method pays, what is forgotten."""
    gaps = differences(main, study)
    prompt, cache = (
        sections.rows_at(prices, place=place, method=whole(study)).iloc[0]
        for place in (PROMPT, CACHE)
    )
    own = prices[prices["method"].isin(students(contexts.rows))]
    return [
        _smallest(own, gaps, cache),
        _break_even(own, prompt, cache),
        _forgetting(contexts.rows, prices, study),
    ]


def _smallest(
    own: pd.DataFrame, gaps: Mapping[tuple[str, str], stats.Interval], cache: pd.Series
) -> str:
    """Which of the trained methods keeps the in-domain accuracy in the fewest bytes."""
    near = [gaps[name, "in-domain"].lo > -conclusions.MARGIN for name in own["method"]]
    limit = f"shown to be less than {conclusions.MARGIN:.2f} below the prompt's in-domain accuracy"
    size = f"{cache['bytes'] / 1_000:,.0f} kB"
    if not any(near):
        return f"No trained method has an accuracy {limit}; the cache takes {size}."
    best = own[near].sort_values("bytes", kind="stable").iloc[0]
    share = best["bytes"] / cache["bytes"]
    return (
        f"Of the trained methods with an accuracy {limit}, {best['method']} takes the fewest "
        f"bytes: {best['bytes'] / 1_000:,.0f} kB, {share:.1%} of the cache's {size}."
    )


def _break_even(own: pd.DataFrame, prompt: pd.Series, cache: pd.Series) -> str:
    """After how many answers each method has paid, against the prompt and against its cache."""

    def after(rival: pd.Series, some: pd.DataFrame) -> str:
        return conclusions.joined(
            [f"{one['method']} {_after(pays_after(one, rival))}" for _, one in some.iterrows()]
        )

    return (
        "In operations, against a prompt that is read whole for every answer, its cache pays "
        f"{_after(pays_after(cache, prompt))}, {after(prompt, own)}. Against the cache, "
        f"{after(cache, own)}."
    )


def _after(number: float) -> str:
    if np.isinf(number):
        return "never pays"
    answers = _first_answer(number)
    return f"after {answers:,} {'answer' if answers == 1 else 'answers'}"


def _first_answer(number: float) -> int:
    """The first whole number of answers after which something has paid."""
    return max(1, int(np.ceil(round(number, 6))))


def over_prompt(rows: pd.DataFrame, study: Study) -> dict[str, stats.Interval]:
    """By trained method, its loss on plain sentences minus the prompt's, by draw, nats a token.

    The intervals hold together.
    """
    losses = {
        str(name): own.set_index("data_seed")["text_nll"]
        for name, own in rows.groupby("method", sort=False)
    }
    names, prompt = students(rows), losses[whole(study)]
    level = stats.together(len(names))
    return {name: stats.t_interval((losses[name] - prompt).dropna(), level) for name in names}


def _forgetting(rows: pd.DataFrame, prices: pd.DataFrame, study: Study) -> str:
    """What plain sentences cost with nothing kept, behind the prompt, and over that by method."""
    of = prices.drop_duplicates("method").set_index("method")["perplexity"]
    logs = over_prompt(rows, study)
    each = [f"{conclusions.ratio(log)} with {name}" for name, log in logs.items()]
    return (
        f"The perplexity of plain sentences is {of[NOTHING]} with nothing kept and "
        f"{of[whole(study)]} behind the prompt or its cache. Over the prompt's it is jointly "
        f"{conclusions.joined(each)}{conclusions.power(logs.values(), logs=True)}. Only a change "
        "of all weights cannot be taken away again: a copy of the model must be kept."
    )
