"""The figures, tables and paragraphs of the chapter on the task and its data."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from llmft import inert
from llmft.engine import sanity
from llmft.nli import cues, prompts, tasks
from llmft.params import Study
from llmft.pocket.grammar import PEOPLE
from llmft.report import conclusions, figures, prior, sections, stats, theme


FIRST = 500
"""The in-domain pairs on which tokens are counted."""

BINS = {
    "to 50 %": 0.5,
    "to 70 %": 0.7,
    "to 80 %": 0.8,
    "to 90 %": 0.9,
    "below 100 %": 0.999,
    "100 %": 1.0,
}
"""The bins of `overlap`: the largest share of words in each."""


# --- the sets ----------------------------------------------------------------------------------


def labels(studies: Sequence[Study]) -> None:
    """What each label in each file was taken to mean; which pairs and files are suspicious."""
    sections.table(
        sections.each(studies, lambda study: sections.hide(study, sections.task_of(study).labels))
    )
    sections.findings(studies, _suspicious)


def _suspicious(study: Study) -> list[str]:
    task = sections.task_of(study)
    found = [
        f"{row['pairs']:,} of the {row['of']:,} pairs of {row['set']} are "
        f"{'there twice' if row['also_in'] == row['set'] else 'also in ' + row['also_in']}, such "
        f"as {inert.escape(row['example'])}."
        for _, row in tasks.shared_pairs(task).iterrows()
    ]
    found = found or ["No pair occurs twice, within a set or in two of them."]
    if task.unread:
        names = ", ".join(inert.code(name) for name in task.unread)
        found.append(f"Files in the folder that are not read: {names}.")
    return found


@sections.table_by_study({"words, premise": ".1f", "words, hypothesis": ".1f"})
def sets(study: Study) -> list[dict[str, Any]]:
    """Pairs, share entailed and mean lengths of the sets."""
    return [
        {
            "set": name,
            "pairs": len(frame),
            "entailed": str(stats.wilson(int((frame["label"] == 0).sum()), len(frame))),
            "words, premise": frame["premise"].map(cues.words).map(len).mean(),
            "words, hypothesis": frame["hypothesis"].map(cues.words).map(len).mean(),
        }
        for name, frame in _sets(study).items()
    ]


def _sets(study: Study) -> dict[str, pd.DataFrame]:
    """The task's sets by the names that the tables have for them."""
    task = sections.task_of(study)
    tests = {f"{name} test": frame for name, frame in task.domains.items()}
    return {"train": task.train, "validation": task.validation, **tests}


def _sizes(studies: Sequence[Study], what: str = "") -> str:
    """How many pairs each domain has, for a figure's note."""
    parts = []
    for study in studies:
        domains = sections.task_of(study).domains.items()
        each = conclusions.joined([f"{len(frame):,} {name}" for name, frame in domains])
        parts.append(each + what + f" ({theme.study(study.study)})" * (len(studies) > 1))
    return "; ".join(parts)


# --- pairs to read -----------------------------------------------------------------------------


def in_domain(studies: Sequence[Study]) -> None:
    """A few in-domain pairs of each label, drawn by the study's seed."""

    def some(study: Study) -> pd.DataFrame:
        pairs = sections.task_of(study).in_domain
        each = min(3, *pairs["label"].value_counts())
        drawn = tasks.sample(pairs, 2 * each, study.seed).sort_values("label", kind="stable")
        return _printed(study, drawn)[["premise", "hypothesis", "label"]]

    sections.table(sections.each(sections.readable(studies) or studies, some))


def sample(studies: Sequence[Study], n: int = 4) -> None:
    """The training sample of `n` with the study's first seed."""

    def drawn(study: Study) -> pd.DataFrame:
        pairs = tasks.sample(sections.task_of(study).train, n, study.seed)
        return _printed(study, pairs)[["id", "premise", "hypothesis", "label"]]

    sections.table(sections.each(sections.readable(studies) or studies, drawn))


def _printed(study: Study, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with their labels' names in place of the numbers, and what may be printed."""
    return sections.hide(
        study, pairs.assign(label=pairs["label"].map(dict(enumerate(tasks.LABELS))))
    )


def out_of_domain(studies: Sequence[Study]) -> None:
    """The out-of-domain subcases with one pair each; by label where there are no subcases.

    In-domain pairs where a task has no out-of-domain set.
    """
    domains = {study.study: sections.task_of(study).domains for study in studies}
    pairs = {name: own.get("out-of-domain", own["in-domain"]) for name, own in domains.items()}
    group = "subcase" if all("subcase" in out for out in pairs.values()) else "group"

    def one(study: Study) -> pd.DataFrame:
        out = _printed(study, pairs[study.study])
        groups = out.groupby(out.get("subcase", out["label"]).rename(group), sort=True)
        texts = groups[["label", "premise", "hypothesis"]].first()
        texts.insert(0, "pairs", groups.size())
        return texts.reset_index()

    sections.table(sections.each(studies, one), {group: inert.code})
    text = "This task has no out-of-domain set: these are in-domain pairs."
    sections.headed(
        studies,
        lambda study: text * ("out-of-domain" not in domains[study.study]),
    )


# --- cues --------------------------------------------------------------------------------------


def cue_accuracies(studies: Sequence[Study]) -> pd.DataFrame:
    """A row a study, domain and cue: what the cue alone is worth, `mean` with `lo`, `hi`; n.

    The cue that is worth most in-domain comes first.
    """

    def rows_of(study: Study) -> pd.DataFrame:
        nouns = PEOPLE if study.task == "pocket" else ()  # there it is known which words are nouns
        lines = []
        for domain, frame in sections.task_of(study).domains.items():
            n = len(frame)
            for cue, mean in cues.accuracies(frame, nouns).items():
                ends = stats.wilson(round(mean * n), n)
                about = {"cue": cue, "domain": domain, "mean": mean}
                lines.append(about | {"lo": ends.lo, "hi": ends.hi, "n": n})
        rows = pd.DataFrame(lines)
        inside = rows[rows["domain"] == "in-domain"].sort_values("mean", ascending=False)
        return rows.set_index("cue").loc[inside["cue"]].reset_index()

    return sections.each(studies, rows_of)


def cue_figure(worth: pd.DataFrame, studies: Sequence[Study]) -> Any:
    """What a single cue is worth in both domains; `worth`: `cue_accuracies`."""
    note = f"Wilson intervals; n = {_sizes(studies)}"
    return sections.by_study(figures.forest, worth, studies, "cue", "domain", note=note)


@sections.table_by_study()
def cue_table(study: Study) -> Iterator[dict[str, Any]]:
    """How often the two documented cues occur with each label, in all sets."""
    columns = {"negation": "negated hypothesis", "overlap": "all words in the premise"}
    for name, frame in _sets(study).items():
        for label, own in cues.table(frame).groupby(frame["label"]):
            shares = {
                column: str(stats.wilson(int(own[cue].sum()), len(own)))
                for cue, column in columns.items()
            }
            about = {"set": name, "label": tasks.LABELS[int(label)]}
            yield about | shares | {"n": len(own)}


@sections.text_by_study
def best_cues(worth: pd.DataFrame, study: Study) -> str:
    """Say which cue is worth most in each domain; `worth`: `cue_accuracies`."""
    best = _of_domains(worth, study)
    inside = best["in-domain"]
    found = (
        f"In-domain, the best single cue is *{inside.idxmax()}*, right on {inside.max():.2f} "
        f"of the pairs; negation in the hypothesis is right on {inside['negation']:.2f}."
    )
    if "out-of-domain" in best:
        outside = best["out-of-domain"]
        found += (
            f" Out-of-domain the best of all {len(outside)} cues is *{outside.idxmax()}* with "
            f"{outside.max():.2f}. So a method that does well in-domain but is near one "
            "half out-of-domain may have learned no more than a cue."
        )
    return found


def _of_domains(worth: pd.DataFrame, study: Study) -> dict[str, pd.Series]:
    """Each domain's accuracies by cue, in the order of `worth`: the study's `cue_accuracies`."""
    return {
        domain: sections.rows_at(worth, domain=domain).set_index("cue")["mean"]
        for domain in sections.task_of(study).domains
    }


def overlap(studies: Sequence[Study]) -> Any:
    """The share of the hypothesis's words that are in the premise, by domain and label."""
    titles = {"share": "hypothesis words in the premise", "pairs": "pairs of that label (%)"}
    return _bars(_overlap, studies, titles)


def lengths(studies: Sequence[Study]) -> Any:
    """The share of premises and hypotheses by number of words, in both domains."""
    return _bars(_lengths, studies, {"words": "words", "share": "sentences (%)"})


def _bars(
    counts: Callable[[Study], pd.DataFrame], studies: Sequence[Study], titles: dict[str, str]
) -> Any:
    """Bars of the counts of each study by `series`; `titles`: those of x and y, by column."""
    (x, x_title), (y, y_title) = titles.items()
    return sections.by_study(
        figures.bars,
        sections.each(studies, counts),
        studies,
        x,
        y,
        "series",
        x_title=x_title,
        y_title=y_title,
        note=f"n = {_sizes(studies, ' pairs')}",
    )


def _overlap(study: Study) -> pd.DataFrame:
    names, edges, parts = list(BINS), [-0.01, *BINS.values()], []
    for domain, frame in sections.task_of(study).domains.items():
        share = pd.cut(cues.table(frame)["share of words"], edges, labels=names)
        groups = frame.assign(share=share).groupby(["label", "share"], observed=False)
        found = groups.size().rename("pairs").reset_index()
        found["pairs"] *= 100 / found.groupby("label")["pairs"].transform("sum")
        series = [f"{domain}, {tasks.LABELS[value]}" for value in found["label"]]
        parts.append(found.assign(series=series))
    return pd.concat(parts)


def _lengths(study: Study) -> pd.DataFrame:
    lengths = {
        f"{domain}, {side}": frame[side].map(cues.words).map(len)
        for side in ("premise", "hypothesis")
        for domain, frame in sections.task_of(study).domains.items()
    }
    # The same bins for all of a study's sentences, and few, also of long ones.
    most = max(int(length.max()) for length in lengths.values())
    longest, step = min(40, most), 5 if most > 40 else 1
    parts = []
    for series, length in lengths.items():
        bins = length.clip(upper=longest) // step * step
        share = 100 * bins.value_counts(normalize=True)
        parts.append(pd.DataFrame({"from": share.index, "share": share, "series": series}))
    whole = pd.concat(parts).sort_values("from", kind="stable")
    names = {n: f"{n} to {n + step - 1}" if step > 1 else f"{n}" for n in whole["from"]}
    if most > longest:
        names[longest] = f"from {longest}"
    return whole.assign(words=whole["from"].map(names))


# --- patterns and models -----------------------------------------------------------------------


def patterns(studies: Sequence[Study]) -> None:
    """The patterns, and what a pair takes in each; how many tokens are unknown to the model."""
    _patterns(studies)
    _unknown(studies)


@sections.table_by_study({"tokens": ".1f", "text": inert.code})
def _patterns(study: Study) -> Iterator[dict[str, Any]]:
    tokenizer = sections.model_of(study).tokenizer
    pairs = sections.task_of(study).in_domain.head(FIRST)
    for name, pattern in prompts.PATTERNS.items():
        ids = prompts.encode(tokenizer, pattern, pairs, None, 100_000)
        yield {
            "model": study.model,
            "pattern": name,
            "text": pattern.fill("PREMISE", "HYPOTHESIS").replace("\n", "↵"),
            "label words": ", ".join(pattern.verbalizer),
            "tokens": sum(map(len, ids)) / len(ids),
            "n": len(ids),
        }


@sections.text_by_study
def _unknown(study: Study) -> str:
    pairs = sections.task_of(study).in_domain.head(FIRST)
    texts = [*pairs["premise"], *pairs["hypothesis"]]
    share = prompts.unknown_share(sections.model_of(study).tokenizer, texts)
    return (
        f"{share:.1%} of the tokens of the first in-domain pairs are unknown to the tokenizer "
        f"of {inert.escape(study.model)}; above {prompts.UNKNOWN:.0%}, a run is refused."
    )


@sections.table_by_study()
def word_order(study: Study) -> pd.DataFrame:
    """Does each model find sentences likelier than their words shuffled?"""
    return sanity.table([sections.model_of(study)], sections.task_of(study))


# --- what it comes to --------------------------------------------------------------------------


@sections.findings_by_study
def summary(worth: pd.DataFrame, study: Study) -> list[str]:
    """What a constant and one cue get right, and how well a single run is known."""
    domains = sections.task_of(study).domains
    share = {name: frame["label"].mean() for name, frame in domains.items()}
    constant = [f"{max(mean, 1 - mean):.2f} {name}" for name, mean in share.items()]
    best = [f"{own.max():.2f} {name}" for name, own in _of_domains(worth, study).items()]
    n = len(domains["in-domain"])
    return [
        f"A constant predictor is right on {' and '.join(constant)}: the floor for every method.",
        f"Reading one cue is worth up to {' and '.join(best)}.",
        f"With {n:,} in-domain test pairs, a single run's accuracy near one half is known to "
        f"about ±{100 * (stats.wilson(n // 2, n).hi - 0.5):.1f} points; with "
        f"{prior.EXAMPLES} pairs, as in the earlier study, to about "
        f"±{100 * (stats.wilson(prior.EXAMPLES / 2, prior.EXAMPLES).hi - 0.5):.0f}.",
    ]
