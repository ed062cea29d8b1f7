"""What a run does: from a specification to label log-probabilities and their cost.

A specification (`engine/spec.py`) says everything that decides the numbers. Examples are drawn and
put into the prompt (ICL) or trained on, then every query of both domains and the content-free ones
is scored, and time and memory of just that are measured. Every method ends in `evaluate`, so a
column means the same in every row.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from llmft import ROOT, UserError, files
from llmft.engine import attention, distill, learner, models, scoring, training
from llmft.engine.spec import TRAINED, Spec
from llmft.hardware import clock, device_name, one_thread, peak_memory
from llmft.nli import placebo, prompts, tasks
from llmft.study import metrics


WORDS = 1_000
"""Pairs of training and of each domain on whose words a tokenizer is tried (`_check_words`)."""

SMALL = 20_000_000
"""Parameters up to which a model is small: on the CPU it computes on one thread."""

TEXTS = 256
"""Sentences whose likelihood says whether a trained model still knows its language (`text_nll`)."""

FRESH = 10_000
"""What a round adds to the seed of its draw of demonstrations, where each has a fresh one."""

_KNOWN: dict[tuple[str, ...], float] = {}
"""What is the same for all runs of a task and a model as it came, computed once a process."""


@dataclass(frozen=True)
class Result:
    """A finished run: `row` holds its measurements, `predictions` what it said to each query.

    `predictions` has the columns domain, id, label, logp_entailment, logp_not (float32).
    """

    row: dict[str, Any]
    predictions: pd.DataFrame


def task_of(name: str, limit: int, labels: str = "", rows: str = "") -> tasks.Task:
    """The task, read once a process, and again when a file of its folder has changed.

    A relative path of `rows` starts at the book's folder.
    """
    rows = str(ROOT / Path(rows).expanduser()) if rows else ""
    versions: list[tuple[Any, ...]] = []
    with suppress(OSError, ValueError, RuntimeError):  # `tasks.load` puts it into words
        folder = ROOT / "data" / name if name in tasks.OWN else Path(name).expanduser()
        there = [Path(rows)] if rows else sorted(folder.iterdir())
        versions = [(path.name, *files.version(path)) for path in there if path.is_file()]
    return _task(name, limit, labels, rows, tuple(versions))


@lru_cache(maxsize=4)
def _task(name: str, limit: int, labels: str, rows: str, _files: tuple[Any, ...]) -> tasks.Task:
    return tasks.load(name, limit=limit, labels=labels, rows=rows)


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


def _once(compute: Callable[[], float], *key: str) -> float:
    if key not in _KNOWN:
        _KNOWN[key] = compute()
    return _KNOWN[key]


def _check_words(model: models.Model, task: tasks.Task, spec: Spec) -> None:
    """Refuse a model that reads most of a task as one and the same unknown word."""

    def share_of_unknown() -> float:
        parts = [task.train.iloc[:WORDS], *(pairs.iloc[:WORDS] for pairs in task.domains.values())]
        texts = [text for part in parts for text in (*part["premise"], *part["hypothesis"])]
        return prompts.unknown_share(model.tokenizer, texts)

    share = _once(share_of_unknown, "unknown", model.digest, task.digest, str(spec.limit))
    if share > prompts.UNKNOWN:
        raise UserError(
            f"{share:.0%} of the tokens of task {spec.task} are unknown to the tokenizer of model "
            f"{spec.model}, and at most {prompts.UNKNOWN:.0%} may be: use a model that spells "
            "unknown words, as byte-level tokenizers do (OPT's, GPT-2's, SmolLM2's)"
        )


def examples(task: tasks.Task, spec: Spec, tokenizer: Any = None) -> pd.DataFrame:
    """The labelled examples of a run, for ICL in the prompt's order. No rows for zero-shot.

    Or the placebo that stands in their place; filler is counted in tokens of the `tokenizer`.
    """
    drawn = tasks.labelled(task, spec.shots, spec.data_seed, spec.purity, spec.mixed)
    if spec.context == "shuffled":
        drawn = placebo.shuffled(drawn, spec.data_seed)
    elif spec.context == "other task":
        drawn = placebo.other_task(task.train, spec.shots, spec.data_seed)
    elif spec.context == "filler":
        drawn = placebo.filler(task.train, drawn, spec.data_seed, tokenizer, spec.wording)
    if spec.order_seed and spec.method == "icl":
        drawn = drawn.iloc[np.random.default_rng(spec.order_seed).permutation(len(drawn))]
    return drawn.reset_index(drop=True)


def execute(spec: Spec, *, device: str = "auto", token_budget: int = 0) -> Result:
    """Do one run, here and now.

    Raises:
        UserError: a task, model, pattern or size that cannot be; see `tasks`, `prompts`, `models`,
            `learner` and `training`.
    """
    return next(execute_all([spec], device=device, token_budget=token_budget))[1]


def recursions(specs: Sequence[Spec]) -> list[list[Spec]]:
    """The runs that are done in one go: the rounds of one distillation, or any other run alone.

    A student that is asked alone and behind the context is trained once.
    """
    together: dict[Spec, list[Spec]] = {}
    for spec in specs:
        together.setdefault(_first_round(spec), []).append(spec)
    return list(together.values())


def _first_round(spec: Spec) -> Spec:
    return replace(spec, rounds=min(spec.rounds, 1), scoring="")


def threads(model: models.Model) -> AbstractContextManager[None]:
    """Compute with a small model on one thread while the block runs, with others on all."""
    return one_thread() if model.parameters <= SMALL else nullcontext()


def execute_all(
    specs: Sequence[Spec],
    *,
    device: str = "auto",
    token_budget: int = 0,
    save: Mapping[Spec, Path] | None = None,
) -> Generator[tuple[Spec, Result]]:
    """Do runs one after another, the rounds of one distillation together; each as soon as it is.

    `save` says for which of them the trained model is kept, and in which folder.

    Raises:
        UserError: as `execute` does; it names the run.
    """
    for some in recursions(specs):
        run = some[0]
        task = task_of(run.task, run.limit, run.labels, run.rows)
        model = model_of(run.model, run.revision, device, run.dtype)
        try:
            _check_words(model, task, run)
            with threads(model):
                if run.method in TRAINED:
                    yield from _trained(some, task, model, token_budget, save or {})
                else:
                    demonstrations = examples(task, run, model.tokenizer)
                    row, predictions = evaluate(model, task, run, demonstrations, token_budget)
                    yield run, _result(run, model, demonstrations, row, predictions)
        except UserError as error:
            raise UserError(f"run {run}: {error}") from error


def _trained(
    specs: Sequence[Spec],
    task: tasks.Task,
    model: models.Model,
    token_budget: int,
    save: Mapping[Spec, Path],
) -> Generator[tuple[Spec, Result]]:
    """Runs of a method that trains: one recursion, evaluated after the rounds that were asked."""
    run = _first_round(specs[0])
    frame = examples(task, run, model.tokenizer)
    labels = prompts.label_tokens(model.tokenizer, run.wording)
    last = max(max(1, spec.rounds) for spec in specs)
    context = distill.context_ids(model, run, frame) if run.prefix else []
    with learner.learner(model, run, labels, context) as learning:
        rounds = _rounds(learning, task, run, frame, last, token_budget)
        for number, (trained, fidelity, memory) in enumerate(rounds, start=1):
            for spec in specs:
                if max(1, spec.rounds) != number:
                    continue
                with learner.with_weights(learning, trained.weights) as changed:
                    if spec in save:
                        learner.save(learning, save[spec], spec.record())
                    before = frame if spec.scoring == "context" else frame.iloc[:0]
                    row, predictions = evaluate(changed, task, spec, before, token_budget)
                if memory["peak_memory_mib"] > row["peak_memory_mib"]:
                    row |= memory
                row |= trained.row() | fidelity
                row["train_peak_memory_mib"] = memory["peak_memory_mib"]
                row["train_dtype"] = str(training.precision(learning.dtype))[6:]
                yield spec, _result(spec, model, frame, row, predictions)


@dataclass(frozen=True)
class Round:
    """Where a round begins: its number from 1 on, what was learnt before, its teacher's weights.

    None: nothing, and the model as it came.
    """

    number: int
    before: training.Trained | None
    teacher: distill.Weights | None


def _rounds(
    learning: learner.Learner,
    task: tasks.Task,
    run: Spec,
    frame: pd.DataFrame,
    last: int,
    token_budget: int,
) -> Iterator[tuple[training.Trained, dict[str, float], dict[str, Any]]]:
    """After each round: what was learnt so far, a student's fidelity, and the training's memory.

    With selection "best" a recursion stops where it would leave its first teacher; every round
    after that gives what the best one gave.
    """
    distils = run.method == "distillation"
    loss: training.Loss = training.cross_entropy
    if distils:
        loss = distill.divergence(run.temperature, run.divergence)
    before: training.Trained | None = None
    teacher: distill.Weights | None = None
    if run.teacher == "average":
        teacher = learner.start(learning, run.init_seed)
    fidelity: dict[str, float] = {}
    first: training.Examples | None = None
    stopped = False
    for number in range(1, last + 1):
        if not stopped:
            with peak_memory(learning.model.device) as memory:
                started, _ = clock(learning.model.device)
                job = _job(learning, task, run, frame, Round(number, before, teacher), token_budget)
                prepared = clock(learning.model.device)[0] - started
                trained = training.train(learning, job, loss, token_budget=token_budget)
            after = trained if before is None else trained.after(before)
            after = replace(after, seconds=after.seconds + prepared)
            if distils:
                teacher = distill.next_teacher(run.teacher, teacher, trained.weights)
                first = job.validation if first is None else first
                found = _fidelity(learning, trained, job, first)
                spent = {
                    "teacher_seconds": fidelity.get("teacher_seconds", 0.0) + prepared,
                    "teacher_tokens": fidelity.get("teacher_tokens", 0.0) + job.train.read,
                }
                if before and run.selection == "best" and found["first_kl"] > fidelity["first_kl"]:
                    # It was nearer to the first teacher a round ago; this round was paid, too.
                    stopped, found = True, fidelity
                    after = replace(before, seconds=after.seconds, tokens=after.tokens)
                fidelity = found | spent
            before = after
        assert before
        yield before, fidelity, memory


def _job(
    learning: learner.Learner,
    task: tasks.Task,
    run: Spec,
    frame: pd.DataFrame,
    place: Round,
    token_budget: int,
) -> training.Job:
    """A round's training: what the run learns from, and what it is measured on."""
    if run.method == "distillation":
        # No label of either is used, nor is there a column for it.
        queries = distill.queries(task.train, run.queries, run.data_seed, frame)
        most = min(distill.HELD_OUT, len(task.validation))
        held_out = distill.queries(task.validation, most, run.data_seed, frame)
        if run.fresh and place.number > 1:
            pool = task.train[~task.train["id"].isin(queries["id"])]
            frame = tasks.sample(pool, run.shots, run.data_seed + FRESH * (place.number - 1))
        weights = place.teacher
        there = learner.with_weights(learning, weights) if weights else nullcontext(learning.base)
        with there as teacher:
            train, validation = (
                distill.teacher_targets(teacher, run, part, frame, token_budget, share)
                for part, share in ((queries, run.context_share), (held_out, 0.0))
            )
    else:
        # As many validation pairs as a curve reads, or as the smaller label has: balanced.
        fewest = int(task.validation["label"].value_counts().min())
        n = 2 * min(training.CURVE_EXAMPLES // 2, fewest)
        held_out = tasks.sample(task.validation, n, run.data_seed)
        train, validation = (
            training.labelled(part, run, learning.model) for part in (frame, held_out)
        )
    begin = place.before.weights if place.before else None
    return training.Job(train, validation, run.init_seed, run.order_seed, begin, place.number - 1)


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
    loss = distill.divergence(1.0)

    def to(targets: training.Examples) -> dict[str, float]:
        return training.measure(learning, one.weights, targets, loss)

    n = min(len(job.train), distill.HELD_OUT)
    found = {"train": to(job.train.part(range(n))), "held_out": to(job.validation)}
    # In round 1 the teacher is the first one.
    found["first"] = found["held_out"] if first is job.validation else to(first)
    row: dict[str, float] = {}
    for name, measured in found.items():
        row |= {f"{name}_kl": measured["loss"], f"{name}_agreement": measured["accuracy"]}
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
        "kept_update": 0,
        "curve": [],
    }
    about = {
        "parameters": model.parameters,
        "device": model.device.type,
        "device_name": device_name(model.device),
        "threads": torch.get_num_threads(),
        "clock": clock(model.device)[1],
        "examples": " ".join(frame["id"].astype(str)),
    }
    return Result(spec.record() | trained_nothing | row | about, predictions)


def evaluate(
    model: models.Model,
    task: tasks.Task,
    spec: Spec,
    demonstrations: pd.DataFrame,
    token_budget: int = 0,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Ask the model every query of each domain, and the content-free ones, behind `demonstrations`.

    A run of the split "validation" is asked those pairs in place of the domains'. The content-free
    queries are no domain of the task but what contextual calibration needs.

    Returns the measurements (by domain: metrics, seconds, the most memory in use, or an n of 0 for
    one that the task lacks; tokens) and the predictions. The seconds count tokenising and scoring;
    loading the model and the data is not in them.
    """
    domains = task.domains if spec.split == "test" else {spec.split: task.validation}
    sets = domains | {"content-free": prompts.content_free_queries()}
    row: dict[str, Any] = {"eval_seconds": 0.0}
    if spec.split == "test":
        row |= {f"{name.replace('-', '_')}_n": 0 for name in tasks.DOMAINS}
    ids: list[list[int]] = []
    answers: list[Any] = []
    memories: list[dict[str, Any]] = []
    for name, queries in sets.items():
        encoded, logp, seconds, memory = _ask(
            model, spec, queries, demonstrations, token_budget, clear=not memories
        )
        ids += encoded
        answers.append(logp)
        memories.append(memory)
        row["eval_seconds"] += seconds
        if name in domains:
            found = metrics.summary(logp, queries["label"].to_numpy())
            found |= {"seconds": seconds, "peak_memory_mib": memory["peak_memory_mib"]}
            row |= {f"{name.replace('-', '_')}_{what}": value for what, value in found.items()}
    prefix = scoring.common_prefix(ids)
    row |= {
        "content_free_p_entailment": float(np.exp(answers[-1][:, 0]).mean()),
        "prefix_tokens": prefix,
        "query_tokens": sum(len(prompt) - prefix for prompt in ids) / len(ids),
        "text_nll": text_nll(model, task, spec, token_budget),
        "examples_per_second": len(ids) / row["eval_seconds"],
        **max(memories, key=lambda found: found["peak_memory_mib"]),
    }
    predictions = pd.concat(
        [queries[["id", "label"]].assign(domain=name) for name, queries in sets.items()],
        ignore_index=True,
    )[["domain", "id", "label"]]
    logps = np.concatenate(answers).astype(np.float32)
    return row, predictions.assign(**dict(zip(metrics.LOGP, logps.T, strict=True)))


def _ask(
    model: models.Model,
    spec: Spec,
    queries: pd.DataFrame,
    demonstrations: pd.DataFrame,
    token_budget: int,
    *,
    clear: bool,
) -> tuple[list[list[int]], Any, float, dict[str, Any]]:
    """The prompts behind `demonstrations`, their answers, and the seconds and memory it took."""
    start, _ = clock(model.device)
    encoded = prompts.encode(
        model.tokenizer,
        spec.wording,
        queries,
        demonstrations,
        model.max_positions,
        explained=spec.context == "explained",
        behind=attention.prefix_length(model.model) > 0,
    )
    labels = prompts.label_tokens(model.tokenizer, spec.wording)
    seconds = clock(model.device)[0] - start
    scoring.probe(model.model, encoded)  # of the model, not of the run: it counts for none
    with peak_memory(model.device, clear=clear) as memory:
        start, _ = clock(model.device)
        logp = scoring.score(model.model, encoded, labels, token_budget=token_budget).numpy()
        seconds += clock(model.device)[0] - start
    return encoded, logp, seconds, memory


def text_nll(model: models.Model, task: tasks.Task, spec: Spec, token_budget: int) -> float:
    """Nats a token on plain sentences: the first premises of validation, as sentences are read.

    Behind a prefix that is after the separator, as queries are.
    """

    def measured() -> float:
        texts = list(task.validation["premise"].iloc[:TEXTS])
        if behind := attention.prefix_length(model.model) > 0:
            texts = [spec.wording.separator + text for text in texts]
        ids = prompts.token_ids(model.tokenizer, texts, special=not behind)
        return scoring.text_nll(model.model, ids, token_budget=token_budget)

    if spec.method in TRAINED:
        return measured()
    where = (str(model.device), spec.dtype, str(token_budget))
    return _once(measured, "text", model.digest, task.digest, *where)
