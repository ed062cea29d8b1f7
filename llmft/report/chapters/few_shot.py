"""The figures, tables and paragraphs of the chapter on few-shot fine-tuning.

`curve` has the predictions zero-shot and of full fine-tuning with every number of examples
(`sections.scored`), `compared` those of the cue classifier, too, and `ruled` is that with the
columns of `sections.with_rule`.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from llmft import inert
from llmft.engine import learner, scoring, training
from llmft.nli import prompts, tasks
from llmft.params import Study
from llmft.report import sections, stats, tables
from llmft.study import baselines, grids, methods
from llmft.study.results import Results, by_domain, curves


NAME = "full fine-tuning"
"""The method's name in tables and figures, and that of its group of runs."""


def two_losses(study: Study, pair: pd.DataFrame) -> tuple[torch.Tensor, float]:
    """Of one labelled pair, before any training: two log-probabilities, and the loop's loss.

    The log-probabilities of the label words are those by which every method is scored; the loss is
    what the training loop makes smaller.
    """
    spec = grids.spec(study, "fine-tuning", objective="label words")
    model = methods.model_of(study.model, "", study.device, study.dtype)
    words = prompts.label_tokens(model.tokenizer, spec.wording)
    ids = prompts.encode(model.tokenizer, spec.wording, pair, pair.iloc[:0], model.max_positions)

    logp = scoring.score(model.model, ids, words)[0]

    example = training.labelled(pair, spec, model)
    with learner.learner(model, spec, words) as learning, torch.no_grad():
        logits = training.logits(learning, example)
    loss = training.total_loss(logits, example, training.cross_entropy)
    return logp, loss.item()


def one_pair(studies: Sequence[Study]) -> None:
    """Say the untrained model's loss of one training pair, by hand and as the loop computes it.

    Of the first study whose sentences may be printed.
    """
    study = (sections.readable(studies) or [*studies])[0]
    pair = tasks.sample(sections.task_of(study).train, 2, study.seed).iloc[:1]
    wording = prompts.pattern_named(study.pattern, study.verbalizer)
    logp, loss = two_losses(study, pair)
    label = int(pair["label"].iloc[0])
    printed = sections.hide(study, pair).iloc[0]
    text = wording.fill(printed["premise"], printed["hypothesis"])
    tables.say(
        f"“{inert.escape(text)}” is labelled *{tasks.LABELS[label]}*. The untrained model gives "
        f"that label's word a probability of {logp[label].exp():.4f}, so the loss is "
        f"{-logp[label]:.4f} nats; the training loop's loss is {loss:.4f} nats."
    )


def accuracy(curve: pd.DataFrame, compared: pd.DataFrame, studies: Sequence[Study]) -> None:
    """Say what training changes, in-domain and out-of-domain, and what it is above."""
    sections.headed(studies, lambda study: _accuracy(curve, compared, study))
    sections.missing(studies)


def _accuracy(curve: pd.DataFrame, compared: pd.DataFrame, study: Study) -> str:
    own = curve[curve["study"] == study.study]
    least, most = study.train_shots[0], study.train_shots[-1]

    def minus(domain: str, shots: int) -> str:
        a, b = ({"domain": domain, "shots": size} for size in (most, shots))
        gap = sections.difference(own, a, b)
        return f"{gap}{sections.unresolved(gap)}"

    text = f"In-domain, accuracy with {most} examples minus zero-shot is {minus('in-domain', 0)}"
    if most > least:
        text += f", and minus that with {least} examples {minus('in-domain', least)}"
    text += " (paired)."
    if "out-of-domain" in set(own["domain"]):
        gap = sections.difference(
            own,
            {"domain": "in-domain", "shots": most},
            {"domain": "out-of-domain", "shots": most},
        )
        text += (
            f" Out-of-domain, accuracy with {most} examples minus zero-shot is "
            f"{minus('out-of-domain', 0)}; in-domain minus out-of-domain accuracy is {gap}."
        )
    return f"{text}\n\n{sections.above_floors(compared, study, 'method', most)}"


def losses(results: Results, studies: Sequence[Study]) -> Any:
    """Training and validation loss by update, a panel for few, some and many examples."""
    course = sections.where(
        curves(results.part(NAME).rows, ["study", "shots"]),
        studies,
        lambda study: {"shots": sections.three(study.train_shots, grids.middle(study.train_shots))},
    )
    sized = sections.losses(course).assign(size=lambda f: f["shots"].map("{} examples".format))
    return sections.loss_figure(sized, studies, "set", "size")


def ends(results: Results) -> None:
    """Losses before and after training by number of examples, and how often each was seen."""
    course = curves(results.part(NAME).rows, ["study", "shots"])
    lines = []
    for (study, shots), part in course.groupby(["study", "shots"], sort=False):
        last = part["update"].max()
        before, after = (part[part["update"] == update] for update in (0, last))
        lines.append(
            {
                "study": study,
                "examples": shots,
                "epochs": after["epoch"].iloc[0],
                "training loss before": sections.mean_loss(before["train_loss"]),
                "after": sections.mean_loss(after["train_loss"]),
                "validation loss before": sections.mean_loss(before["validation_loss"]),
                "after ": sections.mean_loss(after["validation_loss"]),
                "draws": len(after),
            }
        )
    sections.table(lines, {"epochs": ",.3g"})


def spread(results: Results, studies: Sequence[Study]) -> None:
    """Standard deviations of accuracy: over samples, and over orders and dropout of a sample."""
    groups = ("middle", "training orders", "initialisations")
    studies = sections.having(results, studies, *groups)
    if not studies:
        return
    sizes = {study.study: grids.middle(study.train_shots) for study in studies}
    rows = by_domain(results.part(*groups).rows)
    rows = rows[rows["study"].isin(sizes)]
    lines = []
    for (study, domain), part in rows.groupby(["study", "domain"], sort=False):
        samples = part[part["group"] == "middle"]["accuracy"]
        lines.append(
            {
                "study": study,
                "domain": domain,
                "over samples": samples.std(),
                "over orders": _within(part[part["init_seed"] == 0]),
                "over dropout": _within(part[part["order_seed"] == 0]),
                "n": f"{len(samples)} samples × 3 seeds, {sizes[str(study)]} examples",
            }
        )
    sections.table(lines, dict.fromkeys(["over samples", "over orders", "over dropout"], ".3f"))


def _within(part: pd.DataFrame) -> float:
    """The standard deviation within a sample: the square root of the mean variance."""
    return float(part.groupby("data_seed")["accuracy"].var().mean() ** 0.5)


def objectives(results: Results, studies: Sequence[Study]) -> None:
    """Accuracy by objective and by the weights kept, and the difference from the study's own."""
    names, groups = ["objective", "selection"], ("middle", "objectives", "selections")
    studies = sections.having(results, studies, *groups)
    if not studies:
        return
    found = results.part(*groups)
    answers, lines = sections.scored(found), []
    for study in studies:
        own = answers[answers["study"] == study.study]
        pairs = found.rows[found.rows["study"] == study.study][names].drop_duplicates()
        kinds = [dict(zip(names, values, strict=True)) for values in pairs.to_numpy()]
        for domain in own["domain"].unique():
            first = {"domain": domain, "objective": study.objective, "selection": study.selection}
            for kind in kinds:
                here = {"domain": domain, **kind}
                interval = stats.interval(sections.chosen(own, **here))
                gap = "–" if here == first else str(sections.difference(own, here, first))
                lines.append(
                    {
                        "study": study.study,
                        "domain": domain,
                        "loss over": kind["objective"],
                        "weights": kind["selection"],
                        "accuracy": str(interval),
                        "difference": gap,
                        "n": interval.n,
                    }
                )
    sections.table(lines)


def summary(
    results: Results, curve: pd.DataFrame, ruled: pd.DataFrame, studies: Sequence[Study]
) -> None:
    """The chapter's findings in a few lines a study."""
    sections.headed(studies, lambda study: _summary(results, curve, ruled, study, studies))


def _summary(
    results: Results,
    curve: pd.DataFrame,
    ruled: pd.DataFrame,
    study: Study,
    studies: Sequence[Study],
) -> str:
    own, rule = (frame[frame["study"] == study.study] for frame in (curve, ruled))
    least, most = study.train_shots[0], study.train_shots[-1]
    inside: dict[str, Any] = {"domain": "in-domain", "shots": most, "method": NAME}
    either, one = (
        stats.interval(sections.chosen(rule, name, **inside)) for name in ("follows", "follows_one")
    )
    pairs = sections.task_of(study).in_domain
    alone = float((baselines.negation_rule(pairs) == pairs["label"]).mean())
    split = sections.summary(sections.by_cue(own, [study]), ["cue", "shots"])
    helped, misled = (
        sections.point(split, cue=cue, shots=most) for cue in ("cue is right", "cue misleads")
    )
    lines = [
        f"With {most} examples the in-domain predictions agree with “not entailed if either "
        f"sentence is negated” on {either} of the pairs, and with “if exactly one is” on {one}. "
        f"The first rule alone is right on {alone:.2f}.",
        f"It is right on {helped} of the in-domain pairs where negation in the hypothesis gives "
        f"the right answer, and on {misled} of those where it misleads.",
    ]
    if "out-of-domain" in set(own["domain"]):
        area, right = (
            stats.interval(sections.chosen(own, value, domain="out-of-domain", shots=most))
            for value in ("auc", "correct")
        )
        lines.append(
            f"Out-of-domain with {most} examples the AUC is {area} and the accuracy {right}."
        )
    rows = results.part(NAME).rows
    course = curves(rows[(rows["study"] == study.study) & (rows["shots"] == least)])
    last = course[course["update"] == course["update"].max()]
    lines += [
        sections.failures(own, least, most, "examples"),
        f"With {least} examples the training loss ends at {last['train_loss'].mean():.3f} nats and "
        f"the validation loss at {last['validation_loss'].mean():.2f}, against ln 2 = 0.69 for a "
        "model that does not know.",
    ]
    return "\n\n" * (len(studies) > 1) + "\n".join(f"- {line}" for line in lines)
