"""The figures, tables and paragraphs of the chapter on the earlier study.

First what its published numbers say: `published` is `prior.read`, `accuracy` its `prior.summary`.
Then its shortcuts, switched on one at a time: `switched` has the `Shortcuts` of each study by name,
`effects` what they change (`effects_of`), `icl` the scored predictions zero-shot and of ICL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import binom

from llmft.engine import distill, learner, scoring, training
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.nli import prompts, tasks
from llmft.params import Study
from llmft.report import figures, prior, sections, stats, tables
from llmft.study import grids, methods, metrics
from llmft.study.results import Results


RUN = ["method", "model", "shots"]
"""What tells the published runs apart, but for their repeats."""

PICKS = 4_000
"""How often `fifty` looks at one draw on a few pairs."""

HELD_OUT = 16
"""Examples of its own on which a run's learning curve is measured here: none is shown."""


# --- what 50 pairs can tell --------------------------------------------------------------------


def accuracy_figure(accuracy: pd.DataFrame) -> Any:
    """Accuracy against the number of examples, of the methods that were repeated."""
    repeated = accuracy[accuracy["draws"] > 0]
    panels = repeated.assign(panel=repeated["model"] + ", " + repeated["domain"])
    ends = [np.floor(10 * repeated["lo"].min()) / 10, np.ceil(10 * repeated["hi"].max()) / 10]
    small, large = (
        figures.curve(
            panels[panels["model"] == model],
            "shots",
            "method",
            facet="panel",
            x_title="examples",
            height=210,
            y_domain=ends,
            note=note,
        )
        for model, note in (("opt-125m", ""), ("opt-350m", stats.caption(repeated)))
    )
    return small & large


def single_figure(accuracy: pd.DataFrame) -> Any:
    """Accuracy of the methods with one run each."""
    single = accuracy[accuracy["draws"] == 0].sort_values("model", kind="stable")
    names = [
        f"{method}, {k:,} queries" if k else method
        for method, k in zip(single["method"], single["shots"], strict=True)
    ]
    return figures.forest(
        single.assign(run=names), "run", "domain", group="model", note=stats.caption(single)
    )


def accuracy_table(published: pd.DataFrame) -> None:
    """Accuracy with the interval that 50 pairs allow, and with that of the repeats alone."""
    lines = []
    for group, part in published.groupby(RUN, sort=False):
        line: dict[str, Any] = dict(zip(RUN, group, strict=True))
        for domain, own in part.groupby("domain")["accuracy"]:
            over = stats.t_interval(own, bounds=(0, 1))
            line[str(domain)] = str(prior.interval(own))
            line[f"{domain} [repeats]"] = f"[{over.lo:.2f}, {over.hi:.2f}]" if len(own) > 1 else "–"
        lines.append(line | {"n": prior.interval(own).n})
    tables.table(pd.DataFrame(lines).rename(columns={"shots": "examples"}))


def apart(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The points whose interval excludes one half."""
    return accuracy[(accuracy["lo"] > 0.5) | (accuracy["hi"] < 0.5)]


def chance(accuracy: pd.DataFrame) -> None:
    """Say how many points can be told from chance, and why so few."""
    repeated = accuracy[accuracy["draws"] > 0]
    n = prior.EXAMPLES
    enough = next(k for k in range(n) if stats.wilson(k, n).lo > 0.5)
    independent = stats.wilson(0.5 * 10 * n, 10 * n)
    tables.say(
        f"Of the {len(accuracy)} points, {len(apart(accuracy)) or 'none'} can be told from chance. "
        f"With {n} pairs a run has to be right on {enough} of them, an accuracy of "
        f"{enough / n:.2f}, before its interval excludes one half; the best mean of ten is "
        f"{repeated['mean'].max():.2f}. The median interval of such a mean is "
        f"{(repeated['hi'] - repeated['lo']).median():.2f} wide. Counting the repeats as new pairs "
        f"would make it {independent.hi - independent.lo:.2f}, and would be wrong."
    )


# --- what the models predicted -----------------------------------------------------------------


def solved(published: pd.DataFrame) -> pd.DataFrame:
    """The runs whose predictions follow from their loss: those that generated text."""
    return published.dropna(subset="kind")


def constants_of(published: pd.DataFrame) -> list[float]:
    """The two out-of-domain accuracies of a constant, that of “Yes” first.

    It is the share of the pairs that are entailed, the same in all runs.
    """
    own = solved(published)
    entailed = float(own[own["domain"] == "out-of-domain"]["entailed"].min())
    return [entailed, 1 - entailed]


def as_constant(accuracies: pd.Series, published: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which out-of-domain accuracies are exactly a constant's; (n,)."""
    near = np.isclose(accuracies.to_numpy()[:, None], constants_of(published))
    return np.asarray(near.any(axis=1))


def losses(published: pd.DataFrame) -> None:
    """Say that the losses can be solved, and that they agree on the pairs' labels."""
    own = solved(published)
    shares = own.groupby("domain", sort=False)["entailed"].agg(["min", "max"])
    found = [
        " to ".join(dict.fromkeys([f"{low:.0%}", f"{high:.0%}"])) + f" {domain}"
        for domain, low, high in shares.itertuples()
    ]
    tables.say(
        f"All {len(own)} losses of generated answers can be solved. They agree on "
        f"how many of the pairs are entailed: {' and '.join(found)}, in every run of every method, "
        "as it has to be if all were scored on the same pairs, which the code draws once and "
        "@eq-earlier-variance supposes. A constant “No” scores "
        f"{constants_of(published)[1]:.2f} out-of-domain."
    )


def share_figure(published: pd.DataFrame) -> Any:
    """The share of out-of-domain pairs that each run called entailed, a dot a run."""
    own = solved(published)
    out = own[(own["domain"] == "out-of-domain") & (own["kind"] != "always wrong")]
    demonstrations = "ICL, " + out["shots"].astype(str)
    return figures.dots(
        out.assign(column=out["method"].mask(out["method"] == "ICL", demonstrations)),
        "column",
        "share_entailment",
        chance=constants_of(published)[0],
        y_domain=[0, 1],
        chance_name="true share",
        y_title="share called entailed",
        note=f"{len(out)} runs of both models, one dot each, {prior.EXAMPLES} pairs a run",
    )


def constants_table(published: pd.DataFrame) -> None:
    """How many runs of each method are constant, always wrong, or as accurate as a constant."""
    demonstrations = "ICL, " + published["shots"].astype(str) + " shots"
    names = published["method"].mask(published["method"] == "ICL", demonstrations)
    lines = []
    for name, part in published.groupby(names, sort=False):
        inside, out = (part[part["domain"] == domain] for domain in tasks.DOMAINS)
        counts: dict[str, Any] = {
            "constant, in-domain": (inside["kind"] == "constant").sum(),
            "constant, out-of-domain": (out["kind"] == "constant").sum(),
            "always wrong": (out["kind"] == "always wrong").sum(),
        }
        if part["kind"].isna().all():
            counts = dict.fromkeys(counts, "–")
        same = as_constant(out["accuracy"], published)
        lines.append(
            {"method": name, "runs": len(out)}
            | {column: f"{count}" for column, count in counts.items()}
            | {"accuracy of a constant": f"{same.sum()} ({same.mean():.0%})"}
        )
    tables.table(pd.DataFrame(lines))


def longest(published: pd.DataFrame) -> pd.DataFrame:
    """The rows of ICL with the most demonstrations."""
    own: pd.DataFrame = published[published["method"] == "ICL"]
    most: pd.DataFrame = own[own["shots"] == own["shots"].max()]
    return most


def constants(published: pd.DataFrame) -> None:
    """Say what the constants mean for the study's conclusions."""
    most, n = longest(published), prior.EXAMPLES
    guess = sum(binom.pmf(round(share * n), n, 0.5) for share in constants_of(published))
    out = published[published["domain"] == "out-of-domain"]
    same = as_constant(out[out["kind"].isna()]["accuracy"], published)
    students = out[out["method"].isin(["distilled", "recursive"])]
    best = students[np.isclose(students["accuracy"], students["accuracy"].max())]
    zero = " and ".join(f"{a:.2f}" for a in out[out["method"] == "zero-shot"]["accuracy"])
    tables.say(
        f"With {most['shots'].iloc[0]} demonstrations, {(most['kind'] == 'constant').sum()} of "
        f"{len(most)} evaluations are of a constant and {(most['kind'] == 'always wrong').sum()} "
        "are wrong throughout: no run answers its query. Of the trained classifiers "
        f"{same.mean():.0%} have a constant's accuracy out-of-domain; guessing would give that to "
        f"{guess:.0%}, so many of these, too, are likely to be constants. The study's headline was "
        "that distillation is more accurate out-of-domain than zero-shot. The best accuracy of a "
        f"distillation there, {best['accuracy'].iloc[0]:.2f}, is that of the constant “No”, and "
        f"{(best['kind'] == 'constant').sum()} of the {len(best)} runs that reach it are that "
        f"constant; zero-shot has {zero}, on the same {n} pairs."
    )


# --- what was trained --------------------------------------------------------------------------


def loss_figure(history: pd.DataFrame) -> Any:
    """Training loss by epoch, OPT-125m with 8 examples; `history`: `prior.histories`."""
    epochs = history["epoch"].isin([1, 2, 5, 10, 20, 40])
    own = history[(history["model"] == "opt-125m") & (history["shots"] == 8) & epochs]
    course = stats.over_draws(own, ["method", "epoch"], "train_loss")
    return figures.loss_curve(
        course,
        "epoch",
        "method",
        x_title="epochs",
        y_title="training loss (nats)",
        note=stats.caption(course),
    )


def trained(published: pd.DataFrame) -> pd.DataFrame:
    """A row a run that was trained from labels."""
    labelled = published["method"].isin(["full", "LoRA"])
    return published[(published["domain"] == "in-domain") & labelled]


def updates_table(published: pd.DataFrame) -> None:
    """Batch, optimiser steps and training loss by model and number of examples."""
    groups = trained(published).groupby(RUN, sort=False)
    table = pd.DataFrame(
        {
            "batch": groups["batch"].mean().round().astype(int),
            "steps": groups["updates"].mean().round(-1),
            "training loss": groups["train_loss"].agg(sections.over),
        }
    )
    names = ["method", "model", "examples"]
    tables.table(table.rename_axis(names).reset_index(), {"steps": ",.0f"})


def updates(published: pd.DataFrame) -> None:
    """Say how the two methods' training losses and steps differ."""
    steps = trained(published).groupby(["model", "shots"])["updates"].mean()
    loss = trained(published).groupby(["method", "model"])["train_loss"].mean()
    tables.say(
        f"LoRA's mean training loss is {loss['LoRA', 'opt-125m']:.2f} nats with OPT-125m and "
        f"{loss['LoRA', 'opt-350m']:.2f} with OPT-350m, against {loss['full', 'opt-125m']:.2f} and "
        f"{loss['full', 'opt-350m']:.2f} of full fine-tuning and ln 2 = {np.log(2):.2f} of not "
        "knowing. And the batch shrank as the model and the sample grew, so one run has "
        f"{steps.min():.0f} steps and another {steps.max():.0f}: along the number of examples, two "
        "things change."
    )


# --- the shortcuts, switched on ----------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A study's task, model and prompts; `queries` are the test pairs with their domain."""

    study: Study
    task: tasks.Task
    model: Model
    pattern: prompts.Pattern
    queries: pd.DataFrame


@dataclass(frozen=True)
class Shortcuts:
    """What the shortcuts do in one study.

    `predictions`: scored, with the columns `shortcut` (its short name), `switched_on` (what tables
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


def switch_on(
    results: Results, icl: pd.DataFrame, studies: Sequence[Study]
) -> dict[str, Shortcuts]:
    """The `Shortcuts` of each study, by its name."""
    return {study.study: _switch_on(results, icl, study) for study in studies}


def _switch_on(results: Results, icl: pd.DataFrame, study: Study) -> Shortcuts:
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
    kept = f"{min(share, 1):.0%} of the prompt kept, {most} shots"
    shortcuts = [
        ("cut", f"the query cut off ({kept})", longest, cut[cut["shots"] == most]),
        ("words", f"demonstrations say {foreign}, the answer is read as {own}", longest, words),
        ("alignment", "teacher and student compared from the left", aligned, students),
        ("rate", f"LoRA at 1e-5, {grids.side(study)} examples", lora, slow),
        ("labels", f"a sample of one label, {study.train_shots[0]} examples", mixed, alike),
    ]
    parts = [
        frame.assign(study=study.study, shortcut=short, switched_on=name, on=on)
        for short, name, *frames in shortcuts
        for on, frame in zip((False, True), frames, strict=True)
    ]
    distilled = sections.rows_at(results.part("distillation").rows, study=study.study)
    return Shortcuts(
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
                logp = score(at, [ids[:limit] for ids in whole], labels)
                found.append(predictions(at, logp, seed, shots))
            if shots == at.study.shots[-1]:
                lengths.append(np.mean([len(ids) for ids in whole]))
    return found, limit, limit / float(np.mean(lengths))


def other_words(pattern: prompts.Pattern) -> prompts.Pattern:
    """The pattern with label words that are another pattern's."""
    known = [other.verbalizer for other in prompts.PATTERNS.values()]
    words = next(words for words in known if words != pattern.verbalizer)
    return replace(pattern, name="foreign", verbalizer=words)


def foreign_words(at: Setting) -> tuple[pd.DataFrame, pd.DataFrame, list[float]]:
    """ICL with demonstrations whose label words are not those that the answer is sought among.

    Returns:
        The predictions read as the pattern's own words, and as those shown; and by draw the share
        of the four words' probability that the own ones hold.
    """
    foreign, shots = other_words(at.pattern), at.study.shots[-1]
    own, theirs = (prompts.label_tokens(at.model.tokenizer, p) for p in (at.pattern, foreign))
    as_own, as_shown, weights = [], [], []
    for seed in grids.few(at.study):
        logp = score(at, encoded(at, foreign, shots, seed), [*own, *theirs])
        as_own.append(predictions(at, logp[:, :2], seed, shots))
        as_shown.append(predictions(at, logp[:, 2:], seed, shots))
        weights.append(float(logp[:, :2].exp().sum(dim=1).mean()))
    return pd.concat(as_own), pd.concat(as_shown), weights


def train_unaligned(at: Setting) -> tuple[pd.DataFrame, list[float]]:
    """Students that are compared with their teachers from the left: predictions, text NLL."""
    spec = grids.spec(at.study, "distillation", objective="query")
    seeds = grids.few(at.study)
    sets = [unaligned(at, replace(spec, data_seed=seed)) for seed in seeds]
    jobs = [training.Job(one, one.part(range(min(HELD_OUT, len(one))))) for one in sets]
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
    places = torch.tensor([[j if j < len(ids) else -1 for j in range(most)] for ids in student])
    return training.Examples(student, expected.expand(len(student), -1, -1), places)


def train_one_label(at: Setting) -> pd.DataFrame:
    """Predictions after fine-tuning on as many pairs as the smallest sample has, of one label."""
    spec = grids.spec(at.study, "fine-tuning", shots=at.study.train_shots[0])
    jobs = []
    for seed in grids.few(at.study):
        pool = at.task.train[at.task.train["label"] == seed % 2]
        sample = pool.sample(spec.shots, random_state=seed)
        examples = training.labelled(sample, spec, at.model)
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


def cut_figure(switched: Mapping[str, Shortcuts], studies: Sequence[Study]) -> Any:
    """Accuracy with whole prompts and with prompts that are cut; also says where they are cut."""
    sections.headed(
        studies, lambda study: f"Prompts are cut after {switched[study.study].cut_at} tokens."
    )
    both = pd.concat([switched[study.study].cut for study in studies], ignore_index=True)
    return sections.accuracy_figure(both, studies, "prompt", x_title="demonstrations", draws=False)


def effects_of(switched: Mapping[str, Shortcuts], studies: Sequence[Study]) -> pd.DataFrame:
    """What each shortcut changes: a row a study, shortcut and domain.

    Columns: study, shortcut, switched_on (its name), domain, right and switched (accuracies without
    and with it), and the fields of the change's Interval.
    """
    by, lines = ["study", "shortcut", "switched_on", "domain"], []
    for study in studies:
        for group, part in switched[study.study].predictions.groupby(by, sort=False):
            off, on = (sections.chosen(part, on=is_on) for is_on in (False, True))
            right = {"right": stats.interval(off).mean, "switched": stats.interval(on).mean}
            change = vars(stats.difference(on, off))
            lines.append(dict(zip(by, group, strict=True)) | right | change)
    return pd.DataFrame(lines)


def effects_table(
    switched: Mapping[str, Shortcuts], effects: pd.DataFrame, studies: Sequence[Study]
) -> None:
    """Accuracy as this book does it, what each shortcut changes, and the share called entailed."""
    every = pd.concat([switched[study.study].predictions for study in studies])
    changes, lines = tables.with_interval(effects, "change"), []
    for (study, name), part in changes.groupby(["study", "switched_on"], sort=False):
        here = sections.rows_at(every, study=study, switched_on=name)
        line = {"study": study, "switched on": name}
        for domain, change in zip(part["domain"], part["change"], strict=True):
            line[domain] = str(sections.interval(here, on=False, domain=domain))
            line[f"{domain}, change"] = change
        inside = sections.rows_at(here, on=True, domain="in-domain")
        called = sections.of_draws(inside, ["domain"])["called"]
        line["called entailed"] = f"{called.min():.2f} to {called.max():.2f}"
        lines.append(line | {"n": " and ".join(part["n"].unique())})
    sections.table(lines)


def effects_text(
    switched: Mapping[str, Shortcuts], effects: pd.DataFrame, studies: Sequence[Study]
) -> None:
    """Say how many shortcuts lower accuracy, and what lies behind two of them."""

    def text(study: Study) -> str:
        here, own = switched[study.study], effects[effects["study"] == study.study]
        inside, outside = (own[own["domain"] == domain] for domain in tasks.DOMAINS)
        as_own = sections.interval(here.predictions, domain="in-domain", shortcut="words", on=True)
        as_shown = sections.interval(here.as_shown, domain="in-domain")
        pattern = prompts.pattern_named(study.pattern, study.verbalizer)
        left, aligned = (sections.over(nll) for nll in here.text_nll)
        little = (
            " Out-of-domain the methods have little to lose: done right, the most accurate of "
            f"these has {outside['right'].max():.2f}."
        ) * (len(outside) > 0)
        wrong = ", and here it is mostly the wrong one" * (as_own.hi < 0.5)
        return (
            f"In-domain, {(inside['hi'] < 0).sum()} of the {len(inside)} lower the accuracy, with "
            f"an interval that excludes zero.{little}\n\n"
            f"After demonstrations that say {' and '.join(other_words(pattern).verbalizer)}, "
            f"“{pattern.verbalizer[0]}” and “{pattern.verbalizer[1]}” hold "
            f"{np.mean(here.weights):.1g} of the probability of the four words (mean over "
            f"{len(here.weights)} draws), so which of the two is larger is a by-product of "
            f"predicting others{wrong}. Read as the words that were shown, the same predictions "
            f"are right on {as_shown} of the in-domain pairs (n = {as_shown.n}).\n\n"
            f"The unaligned student unlearns its language, too: it needs {left} nats a token on "
            f"plain sentences, the aligned one {aligned} (means over {len(here.weights)} draws)."
        )

    sections.headed(studies, text)


def loss_table(icl: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Accuracy, NLL and the loss of hard predictions of ICL, and of two constants."""
    inside = icl[icl["domain"] == "in-domain"]
    hard = inside[metrics.LOGP].to_numpy().argmax(axis=1)
    inside = inside.assign(hard=prior.hard_losses(hard, inside["label"]))
    columns = {"accuracy": "correct", "NLL": "nll", "loss of hard predictions": "hard"}

    def constant_losses(study: Study) -> list[float]:
        gold = sections.task_of(study).in_domain["label"].to_numpy()
        return [float(prior.hard_losses(np.full(len(gold), y), gold).mean()) for y in (0, 1)]

    def lines(study: Study) -> pd.DataFrame:
        found = []
        for k in study.shots:
            intervals = {
                title: sections.interval(inside, value, study=study.study, shots=k)
                for title, value in columns.items()
            }
            texts = {title: str(interval) for title, interval in intervals.items()}
            found.append({"predictor": f"ICL, {k} shots"} | texts | {"n": intervals["NLL"].n})
        gold = sections.task_of(study).in_domain["label"]
        words = prompts.pattern_named(study.pattern, study.verbalizer).verbalizer
        for y, loss in enumerate(constant_losses(study)):
            found.append(
                {
                    "predictor": f"always “{words[y]}”",
                    "accuracy": stats.number(float((gold == y).mean())),
                    "NLL": "–",
                    "loss of hard predictions": stats.number(loss),
                    "n": f"{len(gold):,}",
                }
            )
        return pd.DataFrame(found)

    def text(study: Study) -> str:
        entailed, other = constant_losses(study)
        return (
            f"Two predictors that know equally little differ by {abs(entailed - other):.2f} nats "
            "in the loss of hard predictions: it rewards the label that has the number 0, whatever "
            "is asked."
        )

    sections.table(sections.each(studies, lines))
    sections.headed(studies, text)


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
    sections.table(
        [
            {
                "study": row["study"],
                "domain": row["domain"],
                "shots": row["shots"],
                "accuracy": str(row["accuracy"]),
                "pairs": row["pairs"],
                "accuracy on these": f"{row['low']:.2f} to {row['high']:.2f}",
                "other": row["other"],
                "minus the other": str(row["difference"]),
                "no better than the other": f"{row['flipped']:.0%}",
                "n": row["difference"].n,
            }
            for _, row in looks.iterrows()
        ]
    )


# --- beside Mosbach et al. ---------------------------------------------------------------------


DESIGNS = {
    "models": ("OPT, 125 million to 30 billion parameters", "OPT-125m, OPT-350m"),
    "demonstrations": ("2, 16, 32; balanced", "2, 4, 8, 16; not balanced"),
    "training examples": ("16 to 128; not balanced", "2, 4, 8, 16; not balanced"),
    "draws": ("10", "10; 1 for distillation"),
    "in-domain pairs": ("6,692 (MultiNLI matched, binary)", f"{prior.EXAMPLES}"),
    "out-of-domain pairs": ("all of HANS's lexical overlap, by label", f"{prior.EXAMPLES}"),
    "learning rate, full / LoRA": ("1e-5 / 2e-4", "1e-5 / 1e-5"),
    "validation on": ("the reported sets", "10 of the reported pairs"),
}
"""What Mosbach et al. 2023 did, and what the earlier study did."""


def designs(studies: Sequence[Study]) -> None:
    """The design of three comparisons."""
    columns = ["Mosbach et al. 2023", "the earlier study"]
    table = pd.DataFrame.from_dict(DESIGNS, orient="index", columns=columns)
    for study in studies:
        table["this book" + f", {study.study}" * (len(studies) > 1)] = pd.Series(_design(study))
    tables.table(table.reset_index(names=""))


def _design(study: Study) -> dict[str, str]:
    task = sections.task_of(study)
    few, out = len(grids.few(study)), task.out_of_domain
    by = ", by subcase" * ("subcase" in out)
    return {
        "models": study.model,
        "demonstrations": f"{', '.join(map(str, study.shots))}; balanced",
        "training examples": f"{study.train_shots[0]} to {study.train_shots[-1]}; balanced",
        "draws": f"{study.repeats}; {few} in this chapter",
        "in-domain pairs": f"{len(task.in_domain):,}",
        "out-of-domain pairs": f"{len(out):,}" + by if len(out) else "none",
        "learning rate, full / LoRA": f"{study.learning_rate:g} / {study.lora_learning_rate:g}",
        "validation on": "validation pairs of the training data",
    }


# --- what it comes to --------------------------------------------------------------------------


def summary(
    published: pd.DataFrame,
    accuracy: pd.DataFrame,
    effects: pd.DataFrame,
    looks: pd.DataFrame,
    studies: Sequence[Study],
) -> None:
    """What the published numbers say, and what the shortcuts and few pairs do here."""
    kinds = solved(published)["kind"]
    general = [
        f"Of the earlier study's {len(accuracy)} points, {len(apart(accuracy)) or 'none'} can be "
        f"told from chance with {prior.EXAMPLES} pairs: they do not show that a method learnt "
        "anything, nor that it did not.",
        f"{(kinds != '').mean():.0%} of the evaluations of generated answers are of a constant or "
        f"of a run that is wrong throughout; with {longest(published)['shots'].iloc[0]} "
        "demonstrations all are.",
    ]

    def text(study: Study) -> str:
        own = looks[(looks["study"] == study.study) & (looks["domain"] == "in-domain")]
        fewer = own[own["other"] != "zero-shot"].iloc[0]
        gap: stats.Interval = fewer["difference"]
        changes = effects[(effects["study"] == study.study) & (effects["domain"] == "in-domain")]
        move = {row["shortcut"]: stats.as_text(row) for _, row in changes.iterrows()}
        lines = [
            f"Switched on here, in-domain: cutting off the query changes accuracy by "
            f"{move['cut']}, other label words by {move['words']}, unaligned distillation by "
            f"{move['alignment']}, LoRA at 1e-5 by {move['rate']}, and a sample of one label by "
            f"{move['labels']}.",
            f"Over all pairs, in-domain accuracy with {fewer['shots']} demonstrations minus that "
            f"with {fitting(study)} is {gap}{sections.unresolved(gap)}. With one draw on "
            f"{fewer['pairs']} pairs it would have looked no better {fewer['flipped']:.0%} of the "
            "time.",
        ]
        return sections.bullets(general * (len(studies) == 1) + lines, studies)

    if len(studies) > 1:
        tables.say(sections.bullets(general))
    sections.headed(studies, text)
