"""The figures, tables and paragraphs of the chapter on low-rank adaptation.

`main` has the predictions of LoRA and of full fine-tuning with every number of examples, `compared`
those of the cue classifier, too, and `ruled` is `main` with the columns of `sections.with_rule`.
What is compared beside the main curves has one number of examples, `grids.side`, and fewer draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from peft.tuners.lora import LoraLayer

from llmft import inert
from llmft.engine import learner
from llmft.engine.learner import ALL_LAYERS
from llmft.nli import prompts
from llmft.params import Study
from llmft.report import conclusions, costs, figures, sections, stats, tables
from llmft.study import grids
from llmft.study.results import Results, curves, on_one_machine


METHODS = {"fine-tuning": "full", "lora": "LoRA", "bitfit": "BitFit", "zero-shot": "zero-shot"}
"""The methods' names in this chapter's tables and figures."""

BOTH = ("full fine-tuning", "LoRA")
"""The groups of runs of the main comparison."""

SLOW = "LoRA at 1e-5"
"""LoRA at the earlier study's learning rate."""


def scored(results: Results, *groups: str) -> pd.DataFrame:
    """The predictions of these groups, with scores and with the methods' names of this chapter."""
    answers = sections.scored(results.part(*groups))
    return answers.assign(method=answers["method"].map(METHODS))


def three(main: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """The rows with the fewest, some, and the most examples."""
    return sections.where(
        main, studies, lambda study: {"shots": sections.three(study.train_shots, grids.side(study))}
    )


def beside(results: Results, studies: Sequence[Study], *groups: str) -> Results:
    """The runs of these groups that have the number of examples and the draws of the others."""
    return sections.only(
        results.part(*groups),
        studies,
        lambda study: {"shots": [grids.side(study)], "data_seed": grids.few(study)},
    )


# --- the method --------------------------------------------------------------------------------


def corrected(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """W₀ x + (α / r) B A x, (..., d_out), for x (..., d_in): a layer with its correction."""
    a: torch.Tensor = layer.lora_A["default"].weight  # (r, d_in)
    b: torch.Tensor = layer.lora_B["default"].weight  # (d_out, r)
    scale: float = layer.scaling["default"]  # α / r
    pretrained: torch.Tensor = layer.base_layer(x)
    return pretrained + scale * (x @ a.T @ b.T)


def forward(study: Study) -> None:
    """Say how far `corrected` is from what the model computes, in the first layer with LoRA."""
    model = sections.model_of(study)
    spec = grids.spec(study, "lora", objective="label words")
    words = prompts.label_tokens(model.tokenizer, spec.wording)
    with learner.learner(model, spec, words) as learning, torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        layers: list[tuple[str, Any]] = list(learning.reader.named_modules())
        name, layer = next(one for one in layers if isinstance(one[1], LoraLayer))
        b = layer.lora_B["default"].weight
        b.copy_(torch.randn(b.shape))  # as if it had learnt: it starts at zero
        x = torch.randn(8, layer.in_features).to(b)
        expected, found = corrected(layer, x), layer(x)
    gap = float((expected - found).abs().max() / expected.abs().max())
    agree = "is the same up to rounding" if gap < 100 * torch.finfo(b.dtype).eps else "differs"
    tables.say(
        f"What the model itself computes {agree}: in the layer {inert.code(name)}, with $B$ and "
        "$x$ drawn at random."
    )


# --- accuracy ----------------------------------------------------------------------------------


def _minus_full(main: pd.DataFrame, study: Study, domain: str) -> dict[int, stats.Interval]:
    """LoRA minus full fine-tuning by number of examples; the intervals of all hold together."""
    pairs = {
        shots: tuple({"shots": shots, "method": name} for name in ("LoRA", "full"))
        for shots in study.train_shots
    }
    return sections.differences(sections.rows_at(main, domain=domain), pairs)


@sections.table_by_study()
def differences(main: pd.DataFrame, study: Study) -> Iterator[dict[str, Any]]:
    """Accuracy of both methods by number of examples, and LoRA minus full fine-tuning, paired."""
    for domain in sections.task_of(study).domains:
        for shots, gap in _minus_full(main, study, domain).items():
            at: dict[str, Any] = {"domain": domain, "shots": shots}
            own = sections.rows_at(main, **at)
            texts = {name: str(sections.interval(own, method=name)) for name in ("LoRA", "full")}
            texts["LoRA − full"] = str(gap)
            yield at | texts | {"shown from": gap.detectable, "n": gap.n}


@sections.and_missing
@sections.text_by_study
def accuracy(results: Results, main: pd.DataFrame, compared: pd.DataFrame, study: Study) -> str:
    """Say how LoRA compares with zero-shot, full fine-tuning, and the best single cue."""
    most, with_zero = study.train_shots[-1], pd.concat([main, scored(results, "zero-shot")])
    own = sections.rows_at(with_zero, domain="in-domain")
    gain = sections.minus(own, {"shots": most, "method": "LoRA"}, {"shots": 0})
    gaps = _minus_full(own, study, "in-domain")
    above, below, _ = conclusions.sides(gaps)
    kinds = {
        "above": above,
        "below": below,
        "shown to be within 0.05 of": [n for n, g in gaps.items() if max(-g.lo, g.hi) < 0.05],
    }
    clear = "; ".join(
        f"LoRA is {kind} full fine-tuning with {', '.join(f'{n:,}' for n in sizes)} examples"
        for kind, sizes in kinds.items()
        if sizes
    )
    return (
        f"In-domain with {most:,} examples, LoRA minus zero-shot is {gain}, and LoRA minus "
        f"full fine-tuning of the same samples {gaps[most]}{sections.unresolved(gaps[most])}. "
        f"Size by size, {clear or 'no difference is shown, nor that they are within 0.05'}; "
        "these intervals hold together.\n\n"
        f"{sections.above_floors(compared, study, 'method', most)}"
    )


def calibration(results: Results, studies: Sequence[Study]) -> None:
    """Expected calibration error of both methods with few, some and many examples."""
    rows = three(results.part(*BOTH).rows, studies)
    rows = rows.assign(method=rows["method"].map(METHODS))
    sections.calibration_table(replace(results, rows=rows), ["study", "method", "domain", "shots"])


def subcases(main: pd.DataFrame) -> Any:
    """LoRA's out-of-domain accuracy by construction (rows) and number of examples (columns)."""
    own = sections.rows_at(main, method="LoRA")
    return sections.subcases(own, "shots", x_title="training examples")


# --- what is changed ---------------------------------------------------------------------------


def ranks(results: Results, studies: Sequence[Study]) -> None:
    """Accuracy by what is changed, and the difference from LoRA as reported, paired."""
    groups = [name for name in ("ranks", "other layers", "BitFit") if name in results.groups]
    others = beside(results, studies, "LoRA", *groups, "full fine-tuning")
    ranked = [study.study for study in studies if results.has("ranks", study.study)]
    rows, answers = (  # the rank of the chapter is among the ranks
        _changes(frame[(frame["group"] != "LoRA") | ~frame["study"].isin(ranked)])
        for frame in (others.rows, sections.scored(others))
    )
    reported = sections.scored(beside(results, studies, "LoRA"))
    lines = []
    for (study, name), part in rows.groupby(["study", "change"], sort=False):
        own = sections.rows_at(answers, study=study, change=name)
        base = reported[reported["study"] == study]
        counted, whole = part.iloc[0][["trainable_parameters", "parameters"]]
        same = set(own["key"]) == set(base["key"])
        for domain in own["domain"].unique():
            a, b = (sections.chosen(frame, domain=domain) for frame in (own, base))
            interval, gap = stats.interval(a), None if same else stats.difference(a, b)
            about = {"study": study, "what is changed": name, "weights": counted}
            about |= {"share": counted / whole, "domain": domain, "accuracy": str(interval)}
            lines.append(about | sections.beside("minus LoRA", gap) | {"n": interval.n})
    sections.table(lines, {"share": ".2%"})


def _changes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `change`: what their run changes, in words."""
    rank = frame["rank"].map("LoRA, rank {}".format)
    words = {"BitFit": "BitFit", "full fine-tuning": "all weights"}
    change = frame["group"].map(words).fillna(rank)
    other = rank + ", " + frame["targets"].replace({ALL_LAYERS: "every linear layer"})
    return frame.assign(change=change.where(frame["group"] != "other layers", other))


@sections.text_by_study
def weights(results: Results, study: Study) -> str:
    """Say how many weights LoRA changes: by the formula, and counted."""
    expected = costs.trainable(grids.spec(study, "lora"), sections.model_of(study))
    counted = beside(results, [study], "LoRA").rows["trainable_parameters"].iloc[0]
    return (
        f"The number of weights is as the formula has it: {expected:,} by "
        "$r (d_\\text{in} + d_\\text{out})$ summed over the target layers, "
        f"{counted:,} counted. All with {grids.side(study):,} training examples."
    )


# --- the earlier study's learning rate ---------------------------------------------------------


def rates(results: Results, studies: Sequence[Study]) -> Results:
    """The runs of full fine-tuning, of LoRA as reported, and of LoRA at the rate of old."""
    found = beside(results, studies, *BOTH, "not learning")
    names = {"full fine-tuning": "full", "LoRA": "LoRA", "not learning": SLOW}
    rows, answers = (
        frame.assign(method=frame["group"].map(names)) for frame in (found.rows, found.predictions)
    )
    return replace(found, rows=rows, predictions=answers)


@sections.where_run("not learning")
def untrained(results: Results, studies: Sequence[Study]) -> Any:
    """Training loss by update at the learning rates of this chapter and of the earlier study."""
    course = curves(rates(results, studies).rows, ["study", "method"])
    means = stats.over_draws(course, ["study", "method", "update"], "train_loss")
    sizes = dict.fromkeys(f"{grids.side(study):,}" for study in studies)
    return figures.loss_curve(
        means,
        "update",
        "method",
        facet=sections.facet(studies),
        x_title="updates",
        y_title="training loss (nats)",
        note=f"{' and '.join(sizes)} examples; {stats.caption(means)}",
    )


@sections.where_run("not learning")
def changed_nothing(results: Results, studies: Sequence[Study]) -> None:
    """Training loss at both ends, and accuracy minus zero-shot, at those learning rates."""
    found = rates(results, studies)
    course, answers = curves(found.rows, ["study", "method"]), sections.scored(found)
    zero, lines = scored(results, "zero-shot"), []
    for (study, name), part in course.groupby(["study", "method"], sort=False):
        start, end = (part[part["update"] == at] for at in (0, part["update"].max()))
        line = {
            "study": study,
            "method": name,
            "loss at the start": sections.over(start["train_loss"]),
            "loss at the end": sections.over(end["train_loss"]),
        }
        own = sections.rows_at(answers, study=study, method=name)
        for domain in own["domain"].unique():
            gap = stats.difference(
                sections.chosen(own, domain=domain),
                sections.chosen(zero, study=study, domain=domain),
            )
            line[f"{domain}, minus zero-shot"] = str(gap)
        lines.append(line | {"n": gap.n})
    sections.table(lines)


# --- costs and findings ------------------------------------------------------------------------


def timed(results: Results) -> pd.DataFrame:
    """The runs whose costs are compared."""
    groups = [name for name in (*BOTH, "BitFit") if name in results.groups]
    rows = results.part(*groups).rows
    return rows.assign(method=rows["method"].map(METHODS))


@sections.text_by_study
def cost(results: Results, _study: Study) -> str:
    """Say how many times as long LoRA takes as full fine-tuning, and what memory it saves."""
    rows = on_one_machine(timed(results))
    rows = rows.assign(added=rows["peak_memory_mib"] - rows["memory_before_mib"])
    lora, full = (
        sections.rows_at(rows, method=name).set_index(["shots", "data_seed"])
        for name in ("LoRA", "full")
    )
    same = lora.index.intersection(full.index)
    if same.empty:
        return ""  # the machine that is compared did other samples with each
    times = ["train_seconds", "eval_seconds"]
    ratios = lora.loc[same, times] / full.loc[same, times]
    train, score = (stats.t_interval(ratios[name]) for name in times)
    counted, whole = lora.iloc[0][["trainable_parameters", "parameters"]]
    low, high = (frame["added"][same].mean() for frame in (lora, full))
    return (
        f"Training with LoRA takes {train} times as long as full fine-tuning of the same "
        f"sample, and scoring {score} times as long (ratios by sample, n = {train.draws}; the "
        "corrections are kept apart, not added into the weights). At its peak a run adds "
        f"{low:,.0f} MiB to the memory in use with LoRA, and {high:,.0f} MiB with full "
        "fine-tuning (means over the same samples). What has to be stored for a task is "
        f"{whole / counted:,.0f} times smaller: {counted * 4 / 1024:,.0f} KiB in place of "
        f"{whole * 4 / 1024:,.0f} KiB."
    )


@sections.findings_by_study
def summary(
    results: Results, main: pd.DataFrame, ruled: pd.DataFrame, study: Study
) -> Iterator[str]:
    """The chapter's findings in a few lines."""
    row = beside(results, [study], "LoRA").rows.iloc[0]
    least, most = study.train_shots[0], study.train_shots[-1]
    at: dict[str, Any] = {"shots": most, "method": "LoRA", "domain": "in-domain"}
    out = at | {"domain": "out-of-domain"}
    split = sections.summary(
        sections.by_cue(sections.rows_at(main, shots=most), [study]), ["method", "cue"]
    )
    lora, full = (
        sections.point(split, method=name, cue="cue misleads") for name in ("LoRA", "full")
    )
    mine = sections.rows_at(main, method="LoRA")
    yield (
        f"With {row['trainable_parameters'] / row['parameters']:.1%} of the weights and "
        f"{most:,} examples, LoRA has an in-domain accuracy of {sections.interval(main, **at)}, "
        "and agrees with “not entailed if either sentence is negated” on "
        f"{sections.interval(ruled, 'follows', **at)} of the pairs."
    )
    yield sections.failures(mine, least, most, "training examples")
    if "out-of-domain" in set(main["domain"]):
        yield (
            f"Out-of-domain its AUC is {sections.interval(main, 'auc', **out)} and its accuracy "
            f"{sections.interval(main, **out)}."
        )
    yield (
        f"Where negation in the hypothesis misleads, LoRA is right on {lora} of the in-domain "
        f"pairs and full fine-tuning on {full}."
    )
    if "not learning" in grids.lora(study):
        slow = rates(results, [study]).rows
        yield _flat(curves(slow[slow["method"] == SLOW]))


def _flat(course: pd.DataFrame) -> str:
    """What the earlier study's learning rate does to the training loss."""
    updates = course["update"].max()
    start, end = (course[course["update"] == u]["train_loss"].mean() for u in (0, updates))
    return (
        f"At the earlier study's learning rate the training loss goes from {start:.3f} to "
        f"{end:.3f} nats in {updates} updates"
        + ": the model is still the untrained one" * bool(end > 0.95 * start)
        + "."
    )
