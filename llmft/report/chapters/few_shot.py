"""The figures, tables and paragraphs of the chapter on few-shot fine-tuning.

`curve` has the predictions zero-shot and of full fine-tuning with every number of examples
(`sections.scored`), `compared` those of the cue classifier, too, and `ruled` is that with the
columns of `sections.with_rule`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from llmft import inert
from llmft.engine import learner, scoring, training
from llmft.nli import prompts, tasks
from llmft.params import Study
from llmft.report import sections, tables
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


@sections.and_missing
@sections.text_by_study
def accuracy(curve: pd.DataFrame, compared: pd.DataFrame, study: Study) -> str:
    """Say what training changes, in-domain and out-of-domain, and what it is above."""
    least, most = study.train_shots[0], study.train_shots[-1]
    inside, out = ({"domain": domain, "shots": most} for domain in tasks.DOMAINS)
    found = (
        f"In-domain, accuracy with {most:,} examples minus zero-shot is "
        f"{sections.minus(curve, inside, inside | {'shots': 0})}"
    )
    if most > least:
        gap = sections.minus(curve, inside, inside | {"shots": least})
        found += f", and minus that with {least:,} examples {gap}"
    found += " (paired)."
    if "out-of-domain" in set(curve["domain"]):
        found += (
            f" Out-of-domain, accuracy with {most:,} examples minus zero-shot is "
            f"{sections.minus(curve, out, out | {'shots': 0})}; in-domain minus out-of-domain "
            f"accuracy is {sections.difference(curve, inside, out)}."
        )
    return f"{found}\n\n{sections.above_floors(compared, study, 'method', most)}"


def losses(results: Results, studies: Sequence[Study]) -> Any:
    """Training and validation loss by update, a panel for few, some and many examples."""
    course = sections.where(
        curves(results.part(NAME).rows, ["study", "shots"]),
        studies,
        lambda study: {"shots": sections.three(study.train_shots, grids.middle(study.train_shots))},
    )
    sized = sections.losses(course).assign(size=lambda f: f["shots"].map("{:,} examples".format))
    return sections.loss_figure(sized, studies, "set", "size")


def ends(results: Results) -> None:
    """Losses before and after training by number of examples, and how often each was seen."""
    by = ["study", "shots"]
    course = curves(results.part(NAME).rows, by)
    last = course["update"] == course.groupby(by)["update"].transform("max")
    before, after = (
        course[there].groupby(by, sort=False) for there in (course["update"] == 0, last)
    )
    table = pd.DataFrame(
        {
            "epochs": after["epoch"].first(),
            "training loss before": before["train_loss"].agg(sections.over),
            "after": after["train_loss"].agg(sections.over),
            "validation loss before": before["validation_loss"].agg(sections.over),
            "after ": after["validation_loss"].agg(sections.over),
            "draws": after.size(),
        }
    )
    sections.table(table.rename_axis(["study", "examples"]).reset_index(), {"epochs": ",.3g"})


@sections.where_run("not varied", "training orders", "initialisations")
@sections.table_by_study(dict.fromkeys(["over samples", "over orders", "over dropout"], ".3f"))
def spread(results: Results, study: Study) -> Iterator[dict[str, Any]]:
    """Standard deviations of accuracy: over samples, and over orders and dropout of a sample."""
    rows = by_domain(results.part("not varied", "training orders", "initialisations").rows)

    def within(part: pd.DataFrame) -> float:
        """Within a sample: the square root of the mean variance."""
        return float(part.groupby("data_seed")["accuracy"].var().mean() ** 0.5)

    for domain, part in rows.groupby("domain", sort=False):
        samples = part[part["group"] == "not varied"]["accuracy"]
        yield {
            "domain": domain,
            "over samples": samples.std(),
            "over orders": within(part[part["init_seed"] == 0]),
            "over dropout": within(part[part["order_seed"] == 0]),
            "n": f"{len(samples)} samples × 2 seeds, {grids.side(study):,} examples",
        }


@sections.where_run("not varied", "objectives", "selections")
@sections.table_by_study()
def objectives(results: Results, study: Study) -> pd.DataFrame:
    """Accuracy by objective and by the weights kept, and the difference from the study's own."""
    own = sections.scored(results.part("not varied", "objectives", "selections"))
    kind = ["objective", "selection"]
    found = sections.against(own, ["domain", *kind], {n: getattr(study, n) for n in kind})
    found = found.rename(columns={"objective": "loss over", "selection": "weights"})
    return sections.across(found, ["loss over", "weights"])


@sections.findings_by_study
def summary(
    results: Results, curve: pd.DataFrame, ruled: pd.DataFrame, study: Study
) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    least, most = study.train_shots[0], study.train_shots[-1]
    inside: dict[str, Any] = {"domain": "in-domain", "shots": most, "method": NAME}
    out = inside | {"domain": "out-of-domain"}
    pairs = sections.task_of(study).in_domain
    alone = float((baselines.negation_rule(pairs) == pairs["label"]).mean())
    split = sections.summary(sections.by_cue(curve, [study]), ["cue", "shots"])
    rows = results.part(NAME).rows
    course = curves(rows[rows["shots"] == least])
    last = course[course["update"] == course["update"].max()]
    yield (
        f"With {most:,} examples the in-domain predictions agree with “not entailed if either "
        f"sentence is negated” on {sections.interval(ruled, 'follows', **inside)} of the pairs, "
        f"and with “if exactly one is” on {sections.interval(ruled, 'follows_one', **inside)}. "
        f"The first rule alone is right on {alone:.2f}."
    )
    yield (
        f"The model is right on {sections.point(split, cue='cue is right', shots=most)} of the "
        "in-domain pairs where negation in the hypothesis gives the right answer, and on "
        f"{sections.point(split, cue='cue misleads', shots=most)} of those where it misleads."
    )
    if "out-of-domain" in set(curve["domain"]):
        yield (
            f"Out-of-domain with {most:,} examples the AUC is "
            f"{sections.interval(curve, 'auc', **out)} and the accuracy "
            f"{sections.interval(curve, **out)}."
        )
    yield sections.failures(curve, least, most, "examples")
    yield (
        f"With {least:,} examples the training loss ends at {last['train_loss'].mean():.3f} "
        f"nats and the validation loss at {last['validation_loss'].mean():.2f}, against "
        "ln 2 = 0.69 for a model that does not know."
    )
