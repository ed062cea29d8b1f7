"""The figures, tables and paragraphs of the chapter on where a context is kept.

`kept` are the runs side by side (`side_by_side`): `way` is where the context is, `method` what
exactly. `main` has their answers (`sections.scored`), `prices` what each costs (`prices`).
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

HALF = 2
"""Bytes of a number that is kept, in half precision, and of a token's id."""


def names(study: Study) -> dict[str, str]:
    """The groups of runs that are set side by side, and where each keeps the context."""
    found = {"zero-shot": NOTHING, "shorter prompts": PROMPT, "ICL": PROMPT}
    starts = {"prefix": PREFIX, "LoRA student": LORA, "distillation": WEIGHTS}
    made = grids.keeping(study)
    for name, (start, way) in itertools.product(made, starts.items()):
        if name.startswith(start):
            found[name] = way
    return {name: way for name, way in found.items() if name in made}


def side_by_side(results: Results, studies: Sequence[Study]) -> Results:
    """The runs to compare, each with the `way` its context is kept and a name, `method`.

    The loss on plain sentences, `text_nll`, is that with the context in front where it is kept
    there (`behind_the_prompt`); of shorter prompts it is not.
    """
    found = sections.by_method(results, studies, names)
    rows, answers = (
        own.assign(way=own["method"], method=own.apply(_name, axis=1))
        for own in (found.rows, found.predictions)
    )
    for study in studies:
        at = (rows["study"] == study.study) & (rows["method"] == whole(study))
        rows.loc[at, "text_nll"] = [behind_the_prompt(study, n) for n in rows["data_seed"][at]]
    return Results(rows, answers, found.groups)


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
    """What the chapter calls a run of `sections.by_method`, whose `method` is the way."""
    way = str(run["method"])
    if way == PROMPT:
        return _prompt(run["shots"])
    return f"{way} of {int(run['prefix']):,}" if way == PREFIX else way


def _prompt(shots: int) -> str:
    return f"prompt of {shots:,} shots"


def whole(study: Study) -> str:
    """What the chapter calls the prompt that all other ways are to keep."""
    return _prompt(study.context_shots)


def trained(rows: pd.DataFrame) -> list[str]:
    """The methods of a study's runs that train something, in their order."""
    return list(rows[rows["way"].isin([PREFIX, LORA, WEIGHTS])]["method"].unique())


# --- the learning rate -------------------------------------------------------------------------


@sections.where_run("search for a prefix", "search for LoRA")
def search(results: Results, studies: Sequence[Study]) -> None:
    """Fidelity by what is trained and learning rate; which rate is nearest, and which is used."""
    rows = results.part("search for a prefix", "search for LoRA").rows
    what = "prefix of " + rows["prefix"].astype(int).astype(str)
    rows = rows.assign(trained=what.where(rows["prefix"] > 0, LORA))
    sections.fidelity_by_rate(rows, ["trained"])
    _nearest(rows, studies)


@sections.text_by_study
def _nearest(rows: pd.DataFrame, study: Study) -> str:
    found = []
    used = {"a prefix": study.prefix_learning_rate, LORA: study.lora_learning_rate}
    for what, rate in used.items():
        means = rows[(rows["prefix"] > 0) == (what != LORA)].groupby("learning_rate")["held_out_kl"]
        found.append(
            f"for {what} the mean KL is lowest at a learning rate of {means.mean().idxmin():.2g}, "
            f"and the reported runs use {rate:.2g}"
        )
    return f"Over all lengths of a prefix, {'; '.join(found)}."


# --- what is kept ------------------------------------------------------------------------------


@sections.and_missing
@sections.table_by_study()
def accuracy(main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy by way and domain, draws that fail, AUC; accuracy minus the prompt's, together."""
    gaps = differences(main, study)
    spread = sections.spread(main, ["method", "domain"]).set_index(["method", "domain"])
    for domain, method in itertools.product(sections.task_of(study).domains, _shown(main, study)):
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


def _shown(own: pd.DataFrame, study: Study) -> list[str]:
    """The methods that tables show: all but the shorter prompts."""
    is_shorter = own["way"].isin([PROMPT, CACHE]) & (own["method"] != whole(study))
    return list(own[~is_shorter]["method"].unique())


def differences(main: pd.DataFrame, study: Study) -> dict[tuple[str, str], stats.Interval]:
    """By method and domain: accuracy minus the whole prompt's, paired; they hold together."""
    others = [name for name in _shown(main, study) if name != whole(study)]
    pairs = {
        (name, domain): tuple({"method": n, "domain": domain} for n in (name, whole(study)))
        for domain in sections.task_of(study).domains
        for name in others
    }
    return sections.differences(main, pairs)


@sections.text_by_study
def lead(main: pd.DataFrame, kept: Results, study: Study) -> str:
    """Say which share of the prompt's gain each way keeps, and which differ from the prompt."""
    gaps, ways, shares = differences(main, study), trained(kept.rows), []
    for name in ways:
        samples = [
            sections.chosen(main, domain="in-domain", method=method)
            for method in (name, whole(study), NOTHING)
        ]
        shares.append(stats.share(*samples, level=stats.together(len(ways))))
    if not all(np.isfinite(share.mean) for share in shares):
        return "The prompt has no clear in-domain gain, so there is none to keep."
    parts = [f"{share} ({name})" for name, share in zip(ways, shares, strict=True)]
    said = (
        "The share of the prompt's in-domain gain over nothing kept that is kept: "
        f"{conclusions.joined(parts)}; these intervals hold together."
    )
    domains = sections.task_of(study).domains
    return " ".join([said, *(_against_the_prompt(gaps, ways, domain) for domain in domains)])


def _against_the_prompt(
    gaps: Mapping[tuple[str, str], stats.Interval], ways: Sequence[str], domain: str
) -> str:
    """Say which ways are below the prompt in a domain, above it, within the margin, or open.

    A way that is shown to be below, or above, may be within the margin as well: it is named there.
    """
    own, margin = {name: gaps[name, domain] for name in ways}, conclusions.MARGIN
    above, below, _ = conclusions.sides(own)
    kinds = {
        "below": below,
        "above": above,
        f"within {margin:.2f} of": [n for n, gap in own.items() if max(-gap.lo, gap.hi) < margin],
    }
    found = [
        f"{kind} the prompt's with {conclusions.joined(some)}"
        for kind, some in kinds.items()
        if some
    ]
    said = f"{domain.capitalize()}, accuracy is shown to be {'; '.join(found)}." if found else ""
    if rest := [name for name in ways if not any(name in some for some in kinds.values())]:
        open_ = [
            f"{name} (a true difference of {stats.number(own[name].detectable)} would have been "
            "shown with 80 % power)"
            if np.isfinite(own[name].lo)
            else f"{name} (too few draws)"
            for name in rest
        ]
        said += (
            f" {domain.capitalize()}, it is shown neither to differ from the prompt's nor to be "
            f"within {margin:.2f} of it with {conclusions.joined(open_)}."
        )
    return said.strip()


def rivals(main: pd.DataFrame, prices: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Compare each prefix with the longest prompt whose cache is no larger, and with nothing."""
    _rivals(main, prices, [study for study in studies if PREFIX in names(study).values()])


@sections.table_by_study()
def _rivals(main: pd.DataFrame, prices: pd.DataFrame, _study: Study) -> list[dict[str, Any]]:
    cheaper = prices[prices["way"].isin([CACHE, NOTHING])].sort_values("bytes")
    inside = sections.rows_at(main, domain="in-domain")
    found = [
        (one, cheaper[cheaper["bytes"] <= one["bytes"]].iloc[-1])
        for _, one in prices[prices["way"] == PREFIX].iterrows()
    ]
    pairs = {
        one["method"]: ({"method": one["method"]}, {"method": rival["method"]})
        for one, rival in found
    }
    gaps = sections.differences(inside, pairs)
    return [
        {
            "trained": one["method"],
            "positions": int(one["positions"]),
            "rival": rival["method"],
            "its positions": round(rival["positions"]),
            **sections.beside("trained minus rival", gaps[one["method"]]),
            "n": gaps[one["method"]].n,
        }
        for one, rival in found
    ]


@sections.text_by_study
def training(kept: Results, _study: Study) -> str:
    """Say what training adds to a prefix that begins as the context's first tokens."""
    own = sections.rows_at(kept.rows, way=PREFIX)
    found = []
    for name, part in own.groupby("method", sort=False):
        ends = [part["curve"].map(lambda curve, i=i: curve[i]) for i in (0, -1)]
        first, last = (
            sections.over(points.map(lambda p: p["validation_loss"]).rename("held_out_kl"))
            for points in ends
        )
        found.append(f"from {first} to {last} nats ({name})")
    if not found:
        return ""
    return (
        "Before training, a prefix is a prompt that breaks off. On the held-out queries that a "
        "learning curve reads, training takes its KL to the whole prompt "
        f"{conclusions.joined(found)}."
    )


# --- what it costs -----------------------------------------------------------------------------


def prices(kept: Results, studies: Sequence[Study]) -> pd.DataFrame:
    """What each method keeps and costs, means over draws; each prompt is there as its cache, too.

    Columns: study, way, method, and those of `price`; seconds (to make) and ms (an answer), where
    they were measured on the machine that made most kinds of runs; perplexity, as text.
    """
    found = []
    for study in studies:
        own, model = sections.rows_at(kept.rows, study=study.study), sections.model_of(study)
        context = sections.rows_at(own, method=whole(study))["prefix_tokens"].mean()
        timed = set(on_one_machine(own)["key"])
        asked = own["in_domain_n"] + own["out_of_domain_n"] + len(prompts.CONTENT_FREE)
        made = own["train_seconds"].where(own["queries"] > 0)
        own = own.assign(ms=1_000 * own["eval_seconds"] / asked, seconds=made)
        own[["ms", "seconds"]] = own[["ms", "seconds"]].where(own["key"].isin(timed))
        read_whole = own["way"] == PROMPT  # all are scored behind the cache of what they share
        both = [own.assign(ms=own["ms"].mask(read_whole)), own[read_whole].assign(way=CACHE)]
        found += [
            {**run[["study", "way", "method", "seconds", "ms"]], **price(run, model, context)}
            for _, run in pd.concat(both).iterrows()
        ]
    by = ["study", "way", "method"]
    means = pd.DataFrame(found).groupby(by, sort=False).mean().reset_index()
    texts = kept.rows.groupby(["study", "method"], sort=False)["text_nll"]
    means = means.merge(texts.agg(perplexity=conclusions.perplexity).reset_index())
    order = [NOTHING, PROMPT, CACHE, PREFIX, LORA, WEIGHTS]
    return means.sort_values("way", key=lambda ways: ways.map(order.index), kind="stable")


def price(run: pd.Series, model: Model, context: float) -> dict[str, float]:
    """What a run keeps (positions ahead of a query, bytes), and what it computes.

    Counted are the tokens read for an answer, and operations to make what is kept and to answer: as
    `sections.operations` does, and attention's, which it leaves out (`costs.attention`). For its
    gradients attention takes twice as much again. `context`: tokens of the teacher's context.
    """
    weights, way = run["parameters"], run["way"]
    ahead = {PROMPT: 0, CACHE: run["prefix_tokens"]}.get(way, run["prefix"])
    tokens = run["query_tokens"] + run["prefix_tokens"] * (way != CACHE)
    beside = ahead + tokens / 2  # what a token of a query looks at, on average
    answer = 2 * weights * tokens + costs.attention(model, tokens * beside)
    make, numbers = 0.0, ahead * costs.position(model)
    if way == CACHE:
        make = 2 * weights * ahead + costs.attention(model, ahead**2 / 2)
    if run["queries"]:
        step = 4 if run["trainable_parameters"] < weights else 6
        taught = run["teacher_tokens"]
        looks = context**2 / 2 + (taught - context) * (context + tokens / 2)
        looks += 3 * run["train_tokens"] * beside
        make = weights * (step * run["train_tokens"] + 2 * taught) + costs.attention(model, looks)
    if way in (LORA, WEIGHTS):
        numbers = run["trainable_parameters"]
    kept = run["prefix_tokens"] if way == PROMPT else numbers  # a prompt is its tokens' ids
    return {
        "positions": ahead,
        "bytes": HALF * kept,
        "tokens": tokens,
        "answer": answer,
        "make": make,
    }


def pays_after(one: pd.Series, rival: pd.Series) -> float:
    """After how many answers `one` has saved what it cost more than `rival`; inf for never.

    No number where one is the rival itself, or keeps nothing.
    """
    more, saved = one["make"] - rival["make"], rival["answer"] - one["answer"]
    if one["way"] in (NOTHING, rival["way"]):
        return float("nan")
    return float("inf") if saved <= 0 else max(0.0, more / saved)


def choice(
    kept: Results, main: pd.DataFrame, prices: pd.DataFrame, studies: Sequence[Study]
) -> None:
    """One line a way: what it does, keeps, costs, and when it has paid."""
    _choice(main, prices, studies)
    sections.hardware(kept.rows, on_one_machine(kept.rows))


def _priced(prices: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The prices of the methods that tables show, and what these call them (`kept`)."""
    own = prices[prices["method"].isin(_shown(prices, study))]
    return own.assign(kept=own["method"] + own["way"].map({CACHE: ", as its cache"}).fillna(""))


def _answers(number: float) -> str:
    """A number of answers; a dash where none is meant, "never" where there is none."""
    return "–" if np.isnan(number) else "never" if np.isinf(number) else f"{_first_paid(number):,}"


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
    own = _priced(prices, study)
    prompt, cache = (own[own["way"] == way].iloc[0] for way in (PROMPT, CACHE))
    for _, one in own.iterrows():
        at = {"method": one["method"]}
        right = {
            domain: str(sections.interval(main, domain=domain, **at))
            for domain in sections.task_of(study).domains
        }
        yield {
            "kept": one["kept"],
            **right,
            "perplexity": one["perplexity"],
            "kB": one["bytes"] / 1_000,
            "tokens an answer": one["tokens"],
            "made in (s)": one["seconds"],
            "pays after, read whole": pays_after(one, prompt),
            "pays after, cached": pays_after(one, cache) if one["way"] != PROMPT else np.nan,
        }


@sections.table_by_study()
def fidelity(kept: Results, main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """How near each way is to the prompt: KL, agreement; and what an answer costs."""
    agreement = sections.agreement(main, sections.rows_at(main, method=whole(study)))
    for name in trained(kept.rows):
        rows = sections.rows_at(kept.rows, method=name)
        yield {
            "trained": name,
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
    own = _priced(prices, study)
    return pd.DataFrame(
        {
            "kept": own["kept"],
            "positions ahead": own["positions"],
            "to make (GFLOPs)": own["make"] / 1e9,
            "an answer (GFLOPs)": own["answer"] / 1e9,
            "an answer (ms)": own["ms"],
        }
    )


def figure(main: pd.DataFrame, prices: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """Accuracy against the bytes that are kept, a mark a method, a panel a domain."""
    by = ["study", "domain", "method"]
    points = sections.summary(main[main["way"] != NOTHING], by)
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
            "way",
            x_title="bytes kept (half precision)",
            columns=["method"],
            names=theme.order(points["way"]),
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
def choose(kept: Results, main: pd.DataFrame, prices: pd.DataFrame, study: Study) -> list[str]:
    """Say what keeps the accuracy in the fewest bytes, when each way pays, what is forgotten."""
    gaps = differences(main, study)
    prompt, cache = (
        sections.rows_at(prices, way=way, method=whole(study)).iloc[0] for way in (PROMPT, CACHE)
    )
    ways = prices[prices["method"].isin(trained(kept.rows))]
    return [
        _smallest(ways, gaps, cache),
        _paying(ways, prompt, cache),
        _forgotten(prices, ways, study),
    ]


def _smallest(
    ways: pd.DataFrame, gaps: Mapping[tuple[str, str], stats.Interval], cache: pd.Series
) -> str:
    """Which of the trained `ways` keeps the in-domain accuracy in the fewest bytes."""
    near = [gaps[name, "in-domain"].lo > -conclusions.MARGIN for name in ways["method"]]
    limit = f"shown to be less than {conclusions.MARGIN:.2f} below the prompt's in-domain accuracy"
    cached = f"{cache['bytes'] / 1_000:,.0f} kB"
    if not any(near):
        return f"No trained way has an accuracy {limit}; the cache takes {cached}."
    best = ways[near].sort_values("bytes", kind="stable").iloc[0]
    share = best["bytes"] / cache["bytes"]
    return (
        f"Of the trained ways with an accuracy {limit}, {best['method']} takes the fewest bytes: "
        f"{best['bytes'] / 1_000:,.0f} kB, {share:.1%} of the cache's {cached}."
    )


def _paying(ways: pd.DataFrame, prompt: pd.Series, cache: pd.Series) -> str:
    """After how many answers each way has paid, against the prompt and against its cache."""

    def after(rival: pd.Series, some: pd.DataFrame) -> str:
        return conclusions.joined(
            [f"{one['method']} {_after(pays_after(one, rival))}" for _, one in some.iterrows()]
        )

    return (
        "In operations, against a prompt that is read whole for every answer, its cache pays "
        f"{_after(pays_after(cache, prompt))}, {after(prompt, ways)}. Against the cache, "
        f"{after(cache, ways)}."
    )


def _after(number: float) -> str:
    if np.isinf(number):
        return "never pays"
    answers = _first_paid(number)
    return f"after {answers:,} {'answer' if answers == 1 else 'answers'}"


def _first_paid(number: float) -> int:
    """The first whole number of answers after which something has paid."""
    return max(1, int(np.ceil(round(number, 6))))


def _forgotten(prices: pd.DataFrame, ways: pd.DataFrame, study: Study) -> str:
    """What plain sentences cost without and with what each way keeps."""
    of = prices.drop_duplicates("method").set_index("method")["perplexity"]
    each = [f"{of[name]} with {name}" for name in ways["method"]]
    return (
        f"The perplexity of plain sentences is {of[NOTHING]} with nothing kept, {of[whole(study)]} "
        f"behind the prompt or its cache, {conclusions.joined(each)}. A prompt, a cache, a prefix "
        "and LoRA's matrices can be taken away again, and the model is what it was; of weights "
        "that were changed, a copy must be kept."
    )
