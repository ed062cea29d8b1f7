"""The figures, tables and paragraphs of the chapter on bugs that look like results.

`switched` has the `Bugs` of each study by name, `effects` what they change (`effects_of`),
`icl` the scored predictions zero-shot and of ICL.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from llmft.engine import distill, learner, scoring, training
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.nli import prompts, tasks
from llmft.params import Study
from llmft.report import figures, prior, sections, stats, tables
from llmft.study import grids, methods, metrics
from llmft.study.results import Results


PICKS = 4_000
"""How often `fifty` looks at one draw on a few pairs."""

CURVE_SIZE = 16
"""Examples of its own on which a run's learning curve is measured here: none is shown."""


# --- the bugs, switched on ---------------------------------------------------------------------


NAMES = {
    "cut": "the query cut off",
    "words": "other label words",
    "alignment": "unaligned distillation",
    "rate": "LoRA at 1e-5",
    "labels": "samples of one label",
}
"""The bugs, by what they are called in code."""


@dataclass(frozen=True)
class Setting:
    """A study's task, model and prompts; `queries` are the test pairs with their domain."""

    study: Study
    task: tasks.Task
    model: Model
    pattern: prompts.Pattern
    queries: pd.DataFrame


@dataclass(frozen=True)
class Bugs:
    """What the bugs do in one study.

    `predictions`: scored, with the columns `bug` (its short name), `switched_on` (what tables
    call it) and `on` (whether it is). `cut`: ICL by number of demonstrations with `prompt` "whole"
    and "cut", which is after `cut_at` tokens. `as_shown`: the predictions read as the other label
    words, which were shown; `weights`: by draw the share of the four words' probability that the
    pattern's own hold. `text_nll`: nats a token on plain sentences, by draw, of the students that
    were compared from the left and of the aligned ones.
    """

    predictions: pd.DataFrame
    cut: pd.DataFrame
    cut_at: int
    as_shown: pd.DataFrame
    weights: list[float]
    text_nll: tuple[pd.Series, pd.Series]


def fitting(study: Study) -> int:
    """The number of demonstrations that still fits where prompts are cut: the middle one."""
    return study.shots[(len(study.shots) - 1) // 2]


def switch_on(results: Results, icl: pd.DataFrame, studies: Sequence[Study]) -> dict[str, Bugs]:
    """The `Bugs` of each study, by its name."""
    found = {}
    for study in studies:
        with methods.threads(sections.model_of(study)):
            found[study.study] = _switch_on(results, icl, study)
    return found


def _switch_on(results: Results, icl: pd.DataFrame, study: Study) -> Bugs:
    task, most = sections.task_of(study), study.shots[-1]
    at = Setting(
        study,
        task,
        sections.model_of(study),
        prompts.pattern_named(study.pattern, study.verbalizer),
        pd.concat([part.assign(domain=d) for d, part in task.domains.items()], ignore_index=True),
    )

    def usual(group: str) -> pd.DataFrame:
        return sections.rows_at(sections.scored(results.part(group)), study=study.study)

    whole = icl[(icl["study"] == study.study) & (icl["shots"] > 0)]
    longest = whole[whole["shots"] == most]
    aligned, lora, slow, mixed = map(usual, ("distillation", "LoRA", "not learning", "fewest"))
    shorter, cut_at, share = cut_prompts(at)
    cut = pd.concat([whole[whole["shots"] <= fitting(study)], *shorter])
    words, as_shown, weights = foreign_words(at)
    students, reading = train_unaligned(at)
    alike = train_one_label(at)
    own, foreign = (" / ".join(p.verbalizer) for p in (at.pattern, other_words(at.pattern)))
    rest = f"{min(share, 1):.0%} of the prompt kept, {most} shots"
    bugs = [
        ("cut", f"the query cut off ({rest})", longest, cut[cut["shots"] == most]),
        ("words", f"demonstrations say {foreign}, the answer is read as {own}", longest, words),
        ("alignment", "teacher and student compared from the left", aligned, students),
        ("rate", f"LoRA at 1e-5, {grids.side(study)} examples", lora, slow),
        ("labels", f"a sample of one label, {study.train_shots[0]} examples", mixed, alike),
    ]
    parts = [
        frame.assign(study=study.study, bug=short, switched_on=name, on=on)
        for short, name, *frames in bugs
        for on, frame in zip((False, True), frames, strict=True)
    ]
    distilled = sections.rows_at(results.part("distillation").rows, study=study.study)
    return Bugs(
        pd.concat(parts, ignore_index=True),
        pd.concat([whole.assign(prompt="whole"), cut.assign(prompt="cut", study=study.study)]),
        cut_at,
        as_shown,
        weights,
        (pd.Series(reading, name="text_nll"), distilled["text_nll"]),
    )


def encoded(at: Setting, pattern: prompts.Pattern, shots: int, seed: int) -> list[list[int]]:
    """Every query's prompt behind the draw's demonstrations."""
    demonstrations = tasks.sample(at.task.train, shots, seed)
    tokenizer, most = at.model.tokenizer, at.model.max_positions
    return prompts.encode(tokenizer, pattern, at.queries, demonstrations, most)


def score(at: Setting, ids: Sequence[Sequence[int]], words: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of the words behind each prompt, (n, words), normalised over them."""
    return scoring.score(at.model.model, ids, words, token_budget=at.study.token_budget)


def predictions(at: Setting, logp: torch.Tensor, seed: int, shots: int) -> pd.DataFrame:
    """The scored predictions of a draw from the log-probabilities of two words, (n, 2)."""
    columns = [c for c in ("domain", "id", "label", "subcase") if c in at.queries]
    values = dict(zip(metrics.LOGP, logp.log_softmax(dim=-1).numpy().T, strict=True))
    frame = at.queries[columns].assign(**values, shots=shots, key=f"draw {seed}")
    return metrics.with_scores(frame.assign(draw=f"{seed}-0-0"))


def cut_off(ids: Sequence[list[int]], limit: int) -> list[list[int]]:
    """The prompts' first tokens: the question, which is last, is what goes."""
    return [prompt[:limit] for prompt in ids]


def cut_prompts(at: Setting) -> tuple[list[pd.DataFrame], int, float]:
    """ICL with prompts cut from the right, as they were at 512 tokens.

    The limit is the longest prompt with the middle number of demonstrations.

    Returns:
        The predictions of each draw with more demonstrations; the limit; and which share it is of
        the mean prompt with the most.
    """
    labels = prompts.label_tokens(at.model.tokenizer, at.pattern)
    seeds, fits = grids.few(at.study), fitting(at.study)
    limit = max(len(ids) for seed in seeds for ids in encoded(at, at.pattern, fits, seed))
    found, lengths = [], []
    for shots in at.study.shots:
        for seed in seeds:
            whole = encoded(at, at.pattern, shots, seed)
            if shots > fits:
                logp = score(at, cut_off(whole, limit), labels)
                found.append(predictions(at, logp, seed, shots))
            if shots == at.study.shots[-1]:
                lengths.append(np.mean([len(ids) for ids in whole]))
    return found, limit, limit / float(np.mean(lengths))


def other_words(pattern: prompts.Pattern) -> prompts.Pattern:
    """The pattern with label words that are another pattern's."""
    known = [other.verbalizer for other in prompts.PATTERNS.values()]
    words = next(words for words in known if words != pattern.verbalizer)
    return replace(pattern, name="foreign", verbalizer=words)


def own_and_foreign(at: Setting, shots: int, seed: int) -> torch.Tensor:
    """Log-probabilities of the two words that are read, then of the two that are shown; (n, 4)."""
    foreign = other_words(at.pattern)
    own, theirs = (prompts.label_tokens(at.model.tokenizer, p) for p in (at.pattern, foreign))
    return score(at, encoded(at, foreign, shots, seed), [*own, *theirs])


def foreign_words(at: Setting) -> tuple[pd.DataFrame, pd.DataFrame, list[float]]:
    """ICL with demonstrations whose label words are not those that the answer is sought among.

    Returns:
        The predictions read as the pattern's own words, and as those shown; and by draw the share
        of the four words' probability that the own ones hold.
    """
    as_own, as_shown, weights, shots = [], [], [], at.study.shots[-1]
    for seed in grids.few(at.study):
        logp = own_and_foreign(at, shots, seed)
        as_own.append(predictions(at, logp[:, :2], seed, shots))
        as_shown.append(predictions(at, logp[:, 2:], seed, shots))
        weights.append(float(logp[:, :2].exp().sum(dim=1).mean()))
    return pd.concat(as_own), pd.concat(as_shown), weights


def train_unaligned(at: Setting) -> tuple[pd.DataFrame, list[float]]:
    """Students that are compared with their teachers from the left: predictions, text NLL."""
    spec = grids.spec(at.study, "distillation", objective="query")
    seeds = grids.few(at.study)
    sets = [unaligned(at, replace(spec, data_seed=seed)) for seed in seeds]
    jobs = [training.Job(one, one.part(range(min(CURVE_SIZE, len(one))))) for one in sets]
    return _train(at, spec, jobs, distill.divergence(at.study.temperature))


def unaligned(at: Setting, spec: Spec) -> training.Examples:
    """Student's prompts, each token with what the teacher expects at the token of the same number.

    That is somewhere in the first demonstrations, which all queries share.
    """
    context = tasks.sample(at.task.train, spec.shots, spec.data_seed)
    queries = distill.queries(at.task.train, spec.queries, spec.data_seed, context)
    teacher, student = (
        prompts.encode(at.model.tokenizer, at.pattern, queries, before, at.model.max_positions)
        for before in (context, context.iloc[:0])
    )
    most = max(map(len, student))
    expected = scoring.distributions(
        at.model.model, [teacher[0][:most]], [most], token_budget=at.study.token_budget
    )
    return from_the_left(student, expected)


def from_the_left(student: list[list[int]], expected: torch.Tensor) -> training.Examples:
    """The student's token j with what the teacher expects at its own token j; (tokens, words).

    There the teacher reads its first demonstration, and the student its query.
    """
    most = len(expected)
    places = torch.tensor([[j if j < len(ids) else -1 for j in range(most)] for ids in student])
    return training.Examples(student, expected.expand(len(student), -1, -1), places)


def one_label(pool: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """So many pairs of one label: what every second draw of two pairs is, if labels are ignored."""
    same = pool[pool["label"] == seed % 2]
    return same.sample(size, random_state=seed)


def train_one_label(at: Setting) -> pd.DataFrame:
    """Predictions after fine-tuning on as many pairs as the smallest sample has, of one label."""
    spec = grids.spec(at.study, "fine-tuning", shots=at.study.train_shots[0])
    jobs = []
    for seed in grids.few(at.study):
        examples = training.labelled(one_label(at.task.train, spec.shots, seed), spec, at.model)
        jobs.append(training.Job(examples, examples))
    return _train(at, spec, jobs, training.cross_entropy)[0]


def _train(
    at: Setting, spec: Spec, jobs: Sequence[training.Job], loss: training.Loss
) -> tuple[pd.DataFrame, list[float]]:
    """Train a job a draw: the scored predictions afterwards, and the text NLL of each."""
    frames, reading = [], []
    labels, none = prompts.label_tokens(at.model.tokenizer, at.pattern), at.task.train.iloc[:0]
    subcase = at.queries.set_index("id").get("subcase", pd.Series(dtype=object))
    with learner.learner(at.model, spec, labels) as learning:
        for seed, job in zip(grids.few(at.study), jobs, strict=True):
            done = training.train(learning, job, loss, token_budget=at.study.token_budget)
            with learner.with_weights(learning, done.weights) as model:
                row, answers = methods.evaluate(model, at.task, spec, none, at.study.token_budget)
            answers = answers.assign(key=f"draw {seed}", subcase=answers["id"].map(subcase))
            frames.append(metrics.with_scores(answers).assign(draw=f"{seed}-0-0"))
            reading.append(row["text_nll"])
    return pd.concat(frames), reading


# --- what they change --------------------------------------------------------------------------


def cut_figure(switched: Mapping[str, Bugs], studies: Sequence[Study]) -> Any:
    """Accuracy with whole prompts and with prompts that are cut; also says where they are cut."""
    sections.headed(
        studies, lambda study: f"Prompts are cut after {switched[study.study].cut_at} tokens."
    )
    both = pd.concat([switched[study.study].cut for study in studies], ignore_index=True)
    return sections.accuracy_figure(both, studies, "prompt", x_title="demonstrations", draws=False)


def effects_of(switched: Mapping[str, Bugs], studies: Sequence[Study]) -> pd.DataFrame:
    """What each bug changes: a row a study, bug and domain.

    Columns: study, bug, switched_on (its name), domain, right and switched (accuracies without
    and with it), and the fields of the change's Interval.
    """
    by, lines = ["study", "bug", "switched_on", "domain"], []
    for group, part in _every(switched, studies).groupby(by, sort=False):
        off, on = (sections.chosen(part, on=is_on) for is_on in (False, True))
        right = {"right": stats.interval(off).mean, "switched": stats.interval(on).mean}
        lines.append(dict(zip(by, group, strict=True)) | right | vars(stats.difference(on, off)))
    return pd.DataFrame(lines)


def write(effects: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Store the `effects` beside the other chapters' results."""
    effects.to_csv(studies[0].folder / "bugs.csv", index=False)


def _every(switched: Mapping[str, Bugs], studies: Sequence[Study]) -> pd.DataFrame:
    """The predictions of all bugs."""
    return pd.concat([switched[study.study].predictions for study in studies])


@sections.table_by_study()
def effects_table(switched: Bugs, effects: pd.DataFrame, _study: Study) -> Iterator[dict[str, str]]:
    """Accuracy as this book does it, what each bug changes, and the share called entailed."""
    changes = tables.with_interval(effects, "change")
    for name, part in changes.groupby("switched_on", sort=False):
        here = sections.rows_at(switched.predictions, switched_on=name)
        line = {"switched on": str(name)}
        for domain, change in zip(part["domain"], part["change"], strict=True):
            line[domain] = str(sections.interval(here, on=False, domain=domain))
            line[f"{domain}, change"] = change
        inside = sections.rows_at(here, on=True, domain="in-domain")
        called = sections.of_draws(inside, ["domain"])["called"]
        line["called entailed"] = f"{called.min():.2f} to {called.max():.2f}"
        yield line | {"n": " and ".join(part["n"].unique())}


def before_after(switched: Mapping[str, Bugs], studies: Sequence[Study]) -> Any:
    """In-domain accuracy with each bug and without it, a row a bug."""
    inside = sections.rows_at(_every(switched, studies), domain=tasks.DOMAINS[0])
    series = inside["on"].map({False: "without the bug", True: "with the bug"})
    called = inside["bug"].map(NAMES)
    inside = inside.assign(series=series, called=called, panel=sections.panel(inside))
    points = sections.summary(inside, ["panel", "called", "series"])
    return figures.forest(
        points,
        "called",
        "series",
        group="panel" if len(studies) > 1 else "",
        note=stats.caption(points),
    )


@sections.text_by_study
def at_a_glance(effects: pd.DataFrame, _study: Study) -> str:
    """Say how many bugs lower accuracy, and what there was to lose."""
    inside, outside = (sections.rows_at(effects, domain=domain) for domain in tasks.DOMAINS)
    little = (
        " Out-of-domain the methods have little to lose: done right, the most accurate of "
        f"these has {outside['right'].max():.2f}."
    ) * (len(outside) > 0)
    return (
        f"In-domain, {(inside['hi'] < 0).sum()} of the {len(inside)} lower the accuracy, with "
        f"an interval that excludes zero.{little} Each interval holds alone."
    )


@sections.text_by_study
def with_and_without(switched: Bugs, effects: pd.DataFrame, _study: Study, bug: str) -> str:
    """Say what a reader would have seen with a bug, what there is without it, and the change."""
    own = sections.rows_at(switched.predictions, bug=bug)
    changes = sections.rows_at(effects, bug=bug).set_index("domain")
    parts = []
    for domain in own["domain"].unique():
        before, after = (sections.interval(own, on=on, domain=domain) for on in (True, False))
        gap = stats.Interval(*changes.loc[domain, list(stats.FIELDS)])
        parts.append(
            f"{domain.capitalize()}, a reader would have seen an accuracy of {before}; without "
            f"the bug it is {after}. The bug changes it by {gap}{sections.unresolved(gap)}."
        )
    return " ".join(parts)


@sections.text_by_study
def as_shown_text(switched: Bugs, study: Study) -> str:
    """Say what lies behind the answers that are sought among other words than are shown."""
    as_own = sections.interval(switched.predictions, domain="in-domain", bug="words", on=True)
    as_shown = sections.interval(switched.as_shown, domain="in-domain")
    pattern = prompts.pattern_named(study.pattern, study.verbalizer)
    wrong = ", and here it is mostly the wrong one" * (as_own.hi < 0.5)
    return (
        f"After demonstrations that say {' and '.join(other_words(pattern).verbalizer)}, "
        f"“{pattern.verbalizer[0]}” and “{pattern.verbalizer[1]}” hold "
        f"{np.mean(switched.weights):.1g} of the probability of the four words (mean over "
        f"{len(switched.weights)} draws), so which of the two is larger is a by-product of "
        f"predicting others{wrong}. Read as the words that were shown, the same predictions "
        f"are right on {as_shown} of the in-domain pairs (n = {as_shown.n})."
    )


@sections.text_by_study
def unlearnt_text(switched: Bugs, _study: Study) -> str:
    """Say what the unaligned student does on plain sentences."""
    left, aligned = (sections.over(nll) for nll in switched.text_nll)
    return (
        f"On plain sentences the unaligned student needs {left} nats a token, the aligned one "
        f"{aligned} (means over {len(switched.weights)} draws)."
    )


def loss_table(icl: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Accuracy, NLL and the loss of hard predictions of ICL, and of two constants."""
    _losses(icl, studies)
    _constants(studies)


@sections.table_by_study()
def _losses(icl: pd.DataFrame, study: Study) -> list[dict[str, str]]:
    inside = sections.rows_at(icl, domain="in-domain")
    hard = prior.hard_losses(inside[metrics.LOGP].to_numpy().argmax(axis=1), inside["label"])
    inside, found = inside.assign(hard=hard), []
    for k in study.shots:
        right, nll, loss = (
            sections.interval(inside, value, shots=k) for value in ("correct", "nll", "hard")
        )
        found.append((f"ICL, {k} shots", str(right), str(nll), str(loss), nll.n))
    gold = sections.task_of(study).in_domain["label"]
    words = prompts.pattern_named(study.pattern, study.verbalizer).verbalizer
    for y, nats in enumerate(_constant_losses(study)):
        share = stats.number(float((gold == y).mean()))
        found.append((f"always “{words[y]}”", share, "–", stats.number(nats), f"{len(gold):,}"))
    names = ("predictor", "accuracy", "NLL", "loss of hard predictions", "n")
    return [dict(zip(names, line, strict=True)) for line in found]


def _constant_losses(study: Study) -> list[float]:
    gold = sections.task_of(study).in_domain["label"].to_numpy()
    return [float(prior.hard_losses(np.full(len(gold), y), gold).mean()) for y in (0, 1)]


@sections.text_by_study
def _constants(study: Study) -> str:
    entailed, other = _constant_losses(study)
    return (
        f"Two predictors that know equally little differ by {abs(entailed - other):.2f} nats "
        "in the loss of hard predictions: it rewards the label that has the number 0, whatever "
        "is asked."
    )


def fifty(icl: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """One draw on 50 pairs, picked again and again: how far it strays from all draws and pairs.

    A row a study, domain and other method. Columns: study, domain, other, shots (the most),
    accuracy (Interval), pairs, low and high (the middle 95 % of accuracies on so many pairs),
    difference (Interval), flipped (how often the method looks no better than the other).
    """
    lines = []
    for study in studies:
        rng, own = np.random.default_rng(0), icl[icl["study"] == study.study]
        most, fits = study.shots[-1], fitting(study)
        for domain in sections.task_of(study).domains:
            a = sections.chosen(own, domain=domain, shots=most)
            draws, examples = a.values.shape
            size = min(prior.EXAMPLES, examples)
            pairs = rng.random((PICKS, examples)).argsort(axis=1)[:, :size]
            draw = rng.integers(draws, size=PICKS)[:, None]
            look = a.values[draw, pairs].mean(axis=1)
            low, high = np.quantile(look, [0.025, 0.975])
            for name, shots in (("zero-shot", 0), (f"ICL, {fits} shots", fits)):
                b = sections.chosen(own, domain=domain, shots=shots)
                other = _in_order_of(a, b)[draw, pairs].mean(axis=1)
                lines.append(
                    {
                        "study": study.study,
                        "domain": domain,
                        "other": name,
                        "shots": most,
                        "accuracy": stats.interval(a),
                        "pairs": size,
                        "low": low,
                        "high": high,
                        "difference": stats.difference(a, b),
                        "flipped": float((look <= other).mean()),
                    }
                )
    return pd.DataFrame(lines)


def _in_order_of(a: stats.Sample, b: stats.Sample) -> stats.Floats:
    """The values of b, in the order of a's draws and examples; the same for all if not drawn."""
    draws = [b.draws.index(name) for name in a.draws] if b.draws else [0] * len(a.draws)
    return b.values[np.ix_(draws, [b.examples.index(name) for name in a.examples])]


def fifty_table(looks: pd.DataFrame) -> None:
    """The rows of `fifty` as a table."""
    table = {
        "study": looks["study"],
        "domain": looks["domain"],
        "shots": looks["shots"],
        "accuracy": looks["accuracy"].map(str),
        "pairs": looks["pairs"],
        "accuracy on these": [
            f"{low:.2f} to {high:.2f}"
            for low, high in zip(looks["low"], looks["high"], strict=True)
        ],
        "other": looks["other"],
        "minus the other": looks["difference"].map(str),
        "no better than the other": looks["flipped"].map("{:.0%}".format),
        "n": [gap.n for gap in looks["difference"]],
    }
    sections.table(pd.DataFrame(table))


# --- what it comes to --------------------------------------------------------------------------


@sections.findings_by_study
def summary(effects: pd.DataFrame, looks: pd.DataFrame, study: Study) -> list[str]:
    """What the bugs and few pairs do here."""
    own = sections.rows_at(looks, domain="in-domain")
    fewer = own[own["other"] != "zero-shot"].iloc[0]
    gap: stats.Interval = fewer["difference"]
    changes = sections.rows_at(effects, domain="in-domain")
    move = {row["bug"]: stats.as_text(row) for _, row in changes.iterrows()}
    return [
        f"Switched on here, in-domain: cutting off the query changes accuracy by "
        f"{move['cut']}, other label words by {move['words']}, unaligned distillation by "
        f"{move['alignment']}, LoRA at 1e-5 by {move['rate']}, and a sample of one label by "
        f"{move['labels']}.",
        f"Over all pairs, in-domain accuracy with {fewer['shots']} demonstrations minus that "
        f"with {fitting(study)} is {gap}{sections.unresolved(gap)}. With one draw on "
        f"{fewer['pairs']} pairs it would have looked no better {fewer['flipped']:.0%} of the "
        "time.",
    ]
