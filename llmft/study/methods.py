"""What a run is and does: from a specification to label log-probabilities and their cost.

A specification (`spec.py`) says everything that decides the numbers, and `execute` turns it into
them: examples are drawn and shown (ICL) or trained on, then every query of both domains and the
content-free ones is asked in one call of `scoring.score`, and time and memory of just that are
measured. Every method ends in `evaluate`, so a column means the same in every row.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from llmft import ROOT, UserError
from llmft.engine import distill, learner, models, scoring, training
from llmft.engine.spec import TRAINED, Spec
from llmft.hardware import device_name, one_thread, peak_memory
from llmft.nli import prompts, tasks
from llmft.study import metrics


POCKET = ROOT / "data" / "pocket"
"""The pocket world's task."""

WORDS = 1_000
"""Pairs of training and of each domain on whose words a tokenizer is tried (`_check_words`)."""

TEXTS = 256
"""Sentences whose likelihood says whether a trained model still knows its language (`text_nll`)."""


@dataclass(frozen=True)
class Result:
    """A finished run: `row` holds its measurements, `predictions` what it said to each query.

    `predictions` has the columns domain, id, label, logp_entailment, logp_not (float32).
    """

    row: dict[str, Any]
    predictions: pd.DataFrame


def task_of(name: str, limit: int, labels: str = "") -> tasks.Task:
    """The task, read once a process, and again when a file of its folder has changed.

    Which examples a limit keeps is the same for every run.
    """
    files: list[tuple[Any, ...]] = []
    with suppress(OSError, ValueError, RuntimeError):  # `tasks.load` puts it into words
        folder = POCKET if name == "pocket" else Path(name).expanduser()
        there = sorted(path for path in folder.iterdir() if path.is_file())
        files = [(path.name, *models.version(path)) for path in there]
    return _task(name, limit, labels, tuple(files))


@lru_cache(maxsize=4)
def _task(name: str, limit: int, labels: str, _files: tuple[Any, ...]) -> tasks.Task:
    return tasks.load(name, limit=limit, seed=0, labels=labels)


def model_of(name: str, revision: str, device: str, dtype: str) -> models.Model:
    """The model, loaded once a process and asked one question, so that no run pays for warming up.

    Only the last one is kept: two large models may not fit beside each other. One whose files have
    changed is loaded again.
    """
    return _model(name, revision, device, dtype, models.identity(name, revision))


@lru_cache(maxsize=1)
def _model(
    name: str, revision: str, device: str, dtype: str, _identity: tuple[str, str]
) -> models.Model:
    model = models.load(name, revision=revision, device=device, dtype=dtype)
    start = model.tokenizer.bos_token_id or 0
    scoring.score(model.model, [[start, start]], [0, 1])
    return model


@lru_cache(maxsize=16)
def _unknown_share(
    task: str, limit: int, labels: str, model: str, revision: str, device: str, dtype: str
) -> float:
    """The share of a task's tokens that a model does not know, counted once a process."""
    said = task_of(task, limit, labels)
    texts = [
        text
        for pairs in (said.train, *said.domains.values())
        for column in ("premise", "hypothesis")
        for text in pairs[column].iloc[:WORDS]
    ]
    return prompts.unknown_share(model_of(model, revision, device, dtype).tokenizer, texts)


def _check_words(spec: Spec, device: str) -> None:
    """Refuse a model that reads most of a task as one and the same unknown word."""
    share = _unknown_share(
        spec.task, spec.limit, spec.labels, spec.model, spec.revision, device, spec.dtype
    )
    if share > prompts.UNKNOWN:
        raise UserError(
            f"{share:.0%} of the tokens of task {spec.task} are unknown to the tokenizer of model "
            f"{spec.model}, and at most {prompts.UNKNOWN:.0%} may be: use a model that spells "
            "unknown words, as byte-level tokenizers do (OPT's, GPT-2's, SmolLM2's)"
        )


def examples(task: tasks.Task, spec: Spec) -> pd.DataFrame:
    """The labelled examples of a run; for ICL in the order shown. No rows for zero-shot."""
    drawn = tasks.sample(task.train, spec.shots, spec.data_seed)
    if spec.order_seed and spec.method == "icl":
        drawn = drawn.iloc[np.random.default_rng(spec.order_seed).permutation(len(drawn))]
    return drawn.reset_index(drop=True)


def execute(
    specs: Sequence[Spec],
    *,
    device: str = "auto",
    token_budget: int = 0,
    save: Mapping[Spec, Path] | None = None,
) -> Generator[tuple[Spec, Result]]:
    """Do runs that differ by their seeds (and rounds) only.

    `save` says for which of them the trained model is kept, and in which folder. Each result comes
    as soon as it is there.

    Raises:
        UserError: as `execute` does; it names the run, or the first of those trained together.
    """
    spec = specs[0]
    task = task_of(spec.task, spec.limit, spec.labels)
    model = model_of(spec.model, spec.revision, device, spec.dtype)
    try:
        _check_words(spec, device)
        with one_thread() if model.parameters <= training.SMALL else nullcontext():
            if spec.method in TRAINED:
                yield from _trained(specs, task, model, token_budget, save or {})
                return
            for spec in specs:
                shown = examples(task, spec)
                row, predictions = evaluate(model, task, spec, shown, token_budget)
                yield spec, _result(spec, model, shown, row, predictions)
    except UserError as error:
        raise UserError(f"run {spec}: {error}") from error


def _trained(
    specs: Sequence[Spec],
    task: tasks.Task,
    model: models.Model,
    token_budget: int,
    save: Mapping[Spec, Path],
) -> Generator[tuple[Spec, Result]]:
    """Runs of a method that trains: round by round, together, then each asked as it then is."""
    first = specs[0]
    labels = prompts.label_tokens(model.tokenizer, first.wording)
    distils = first.method == "distillation"
    loss = distill.divergence(first.temperature) if distils else training.cross_entropy
    # What a run is until its last round: the runs of a recursion are one, asked after each round.
    runs = list(dict.fromkeys(replace(spec, rounds=min(spec.rounds, 1)) for spec in specs))
    frames = {run: examples(task, run) for run in runs}
    state: dict[Spec, training.Trained] = {}
    fidelity: dict[Spec, dict[str, float]] = {}
    taught_first: dict[Spec, training.Examples] = {}
    stopped: set[Spec] = set()
    with learner.learner(model, first, labels) as learning:
        for number in range(1, max(1, *(spec.rounds for spec in specs)) + 1):
            going = [run for run in runs if run not in stopped]
            with peak_memory(model.device) as memory:
                started = time.perf_counter()
                jobs = [
                    _job(learning, task, run, frames[run], number, state.get(run), token_budget)
                    for run in going
                ]
                prepared = (time.perf_counter() - started) / max(1, len(going))
                trained = training.train(learning, jobs, loss, token_budget=token_budget)
            for run, job, one in zip(going, jobs, trained, strict=True):
                after = one if run not in state else one.after(state[run])
                after = replace(after, seconds=after.seconds + prepared)
                if distils:
                    taught_first.setdefault(run, job.validation)
                    so_far = fidelity.get(run, {"teacher_seconds": 0.0, "teacher_tokens": 0.0})
                    found = _fidelity(learning, one, job, taught_first[run]) | {
                        "teacher_seconds": so_far["teacher_seconds"] + prepared,
                        "teacher_tokens": so_far["teacher_tokens"] + job.train.read,
                    }
                    early = run in state and run.selection == "best"
                    if early and found["first_kl"] > fidelity[run]["first_kl"]:
                        # It was nearer to the first teacher a round ago; this round was paid, too.
                        stopped.add(run)
                        state[run] = replace(state[run], seconds=after.seconds, tokens=after.tokens)
                        spent = ("teacher_seconds", "teacher_tokens")
                        fidelity[run] |= {name: found[name] for name in spent}
                        continue
                    fidelity[run] = found
                state[run] = after
            for spec in specs:
                if max(1, spec.rounds) != number:
                    continue
                run = replace(spec, rounds=min(spec.rounds, 1))
                with learner.applied(learning, state[run].weights) as changed:
                    if spec in save:
                        learner.save(learning, save[spec], asdict(spec))
                    nothing = frames[run].iloc[:0]
                    row, predictions = evaluate(changed, task, spec, nothing, token_budget)
                if memory["peak_memory_mib"] > row["peak_memory_mib"]:
                    row |= memory
                row |= state[run].row() | fidelity.get(run, {})
                row["train_peak_memory_mib"] = memory["peak_memory_mib"]
                row["train_dtype"] = str(training.precision(model.model.dtype))[6:]
                yield spec, _result(spec, model, frames[run], row, predictions)


def _job(
    learning: learner.Learner,
    task: tasks.Task,
    run: Spec,
    frame: pd.DataFrame,
    number: int,
    before: training.Trained | None,
    token_budget: int,
) -> training.Job:
    """One run's part of a round's training: what it learns from, and what it is measured on."""
    if run.method == "distillation":
        # No label of either is used, nor is there a column for it.
        asked = distill.queries(task.train, run.queries, run.data_seed, frame)
        most = min(distill.HELD_OUT, len(task.validation))
        held_out = distill.queries(task.validation, most, run.data_seed, frame)
        with (
            learner.applied(learning, before.weights)
            if before
            else nullcontext(learning.model) as teacher
        ):
            train, validation = (
                distill.taught(teacher, run, part, frame, token_budget)
                for part in (asked, held_out)
            )
    else:
        # As many validation pairs as a curve reads, or as the smaller label has: balanced.
        fewest = int(task.validation["label"].value_counts().reindex([0, 1], fill_value=0).min())
        n = 2 * min(training.CURVE_EXAMPLES // 2, fewest)
        if not n:
            raise UserError(f"task {task.name} has no validation pairs of both labels")
        held_out = tasks.sample(task.validation, n, run.data_seed)
        train, validation = (
            training.labelled(part, run, learning.model) for part in (frame, held_out)
        )
    begin = before.weights if before else None
    return training.Job(
        train, validation, run.init_seed, run.order_seed, str(run), begin, number - 1
    )


def _fidelity(
    learning: learner.Learner,
    one: training.Trained,
    job: training.Job,
    first: training.Examples,
) -> dict[str, float]:
    """KL to the teacher (nats) and agreement with it, over what is distilled.

    On training queries, on held-out ones, and on these to the first round's teacher; and how often
    this round's teacher agrees with that one.
    """
    stack = {name: weight.unsqueeze(0) for name, weight in one.weights.items()}
    loss = distill.divergence(1.0)
    n = min(len(job.train), distill.HELD_OUT)
    row: dict[str, float] = {}
    for name, part in (
        ("train", job.train.part(range(n))),
        ("held_out", job.validation),
        ("first", first),
    ):
        found = training.measure(learning, stack, [part], loss)[0]
        row |= {f"{name}_kl": found["loss"], f"{name}_agreement": found["accuracy"]}
    return row | {"teacher_agreement": distill.agreement(job.validation, first)}


def _result(
    spec: Spec,
    model: models.Model,
    frame: pd.DataFrame,
    row: dict[str, Any],
    predictions: pd.DataFrame,
) -> Result:
    """The run's row, with what is said of every run: methods that train nothing say so."""
    trained_nothing = {
        "train_seconds": 0.0,
        "train_tokens": 0,
        "train_peak_memory_mib": 0.0,
        "train_dtype": "",
        "trainable_parameters": 0,
        "stacked": 1,
        "kept_update": 0,
        "curve": [],
    }
    about = {
        "parameters": model.parameters,
        "device": model.device.type,
        "device_name": device_name(model.device),
        "threads": torch.get_num_threads(),
        "examples": " ".join(frame["id"].astype(str)),
    }
    return Result(asdict(spec) | trained_nothing | row | about, predictions)


def evaluate(
    model: models.Model,
    task: tasks.Task,
    spec: Spec,
    shown: pd.DataFrame,
    token_budget: int = 0,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Ask the model every query of each domain, and the content-free ones, behind `shown`.

    A run asked for "validation" is asked those pairs in place of the domains'. The content-free
    queries are no domain of the task but what contextual calibration needs.

    Returns the measurements (by domain: metrics, seconds, the most memory in use, or an n of 0 for
    one that the task lacks; tokens) and the predictions. The seconds count tokenising and scoring;
    loading the model and the data is not in them.
    """
    domains = task.domains if spec.split == "test" else {spec.split: task.validation}
    sets = domains | {"content-free": prompts.content_free_queries()}
    labels = prompts.label_tokens(model.tokenizer, spec.wording)
    ids: list[list[int]] = []
    row: dict[str, Any] = {"eval_seconds": 0.0}
    if spec.split == "test":
        row |= {f"{name.replace('-', '_')}_n": 0 for name in tasks.DOMAINS}
    answers: list[Any] = []
    memories: list[dict[str, Any]] = []
    for name, queries in sets.items():
        start = time.perf_counter()
        encoded = prompts.encode(
            model.tokenizer,
            spec.wording,
            queries,
            shown,
            model.max_positions,
            explained=spec.context == "explained",
        )
        seconds = time.perf_counter() - start
        scoring.probe(model.model, encoded)  # of the model, not of the run: it counts for none
        with peak_memory(model.device, clear=not memories) as memory:
            start = time.perf_counter()
            logp = scoring.score(model.model, encoded, labels, token_budget=token_budget).numpy()
            seconds += time.perf_counter() - start
        ids += encoded
        answers.append(logp)
        memories.append(memory)
        row["eval_seconds"] += seconds
        if name not in domains:
            continue
        gold, stem = queries["label"].to_numpy(), name.replace("-", "_")
        row |= {
            f"{stem}_accuracy": metrics.accuracy(logp, gold),
            f"{stem}_nll": metrics.nll(logp, gold),
            f"{stem}_brier": metrics.brier(logp, gold),
            f"{stem}_ece": metrics.ece(logp, gold),
            f"{stem}_share_entailment": metrics.share_entailment(logp),
            f"{stem}_n": len(gold),
            f"{stem}_seconds": seconds,
            f"{stem}_peak_memory_mib": memory["peak_memory_mib"],
        }
    prefix = scoring.common_prefix(ids)
    row |= {
        "content_free_p_entailment": float(np.exp(answers[-1][:, 0]).mean()),
        "prefix_tokens": prefix,
        "query_tokens": sum(len(prompt) - prefix for prompt in ids) / len(ids),
        "text_nll": scoring.text_nll(model.model, _texts(model, task), token_budget=token_budget),
        "examples_per_second": len(ids) / row["eval_seconds"],
        **max(memories, key=lambda found: found["peak_memory_mib"]),
    }
    asked = [part[["id", "label"]].assign(domain=name) for name, part in sets.items()]
    predictions = pd.concat(asked, ignore_index=True)[["domain", "id", "label"]]
    logps = np.concatenate(answers).astype(np.float32)
    return row, predictions.assign(**dict(zip(metrics.LOGP, logps.T, strict=True)))


def _texts(model: models.Model, task: tasks.Task) -> list[list[int]]:
    """Plain sentences: the first premises of validation, as the model has always read sentences."""
    return prompts.token_ids(model.tokenizer, list(task.validation["premise"].iloc[:TEXTS]))
