"""Fine-tuning: one training loop, for all weights, a low-rank few, or the biases.

The prompt is zero-shot's, and the loss is the cross-entropy of the label word at the answer
position (pattern-based fine-tuning: Schick & Schütze 2021; Mosbach et al. 2023, arXiv:2305.16938).
What is learnt is read as every method is read, by `scoring.score`.

Runs that differ by their seeds only are trained together: the weights that change are stacked along
a first dimension, one layer for each run, the others are shared, and `torch.func.vmap` turns the
one-run loss into the stack's. A run's numbers do not depend on the company it is trained in (up to
rounding): its batches, its clipping, its start and what dropout drops are its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.func import functional_call, vmap
from torch.nn import functional as F  # noqa: N812 (the usual name)

from llmft import UserError
from llmft.engine import scoring
from llmft.engine.dropout import Dropout
from llmft.engine.learner import Learner, Reader, start
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.nli import prompts


WARMUP = 0.1
"""The share of updates in which the learning rate grows; it falls linearly to 0 in the others."""

WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.999)
CLIP = 1.0
"""AdamW's (Loshchilov & Hutter 2019), and the largest norm of a run's gradient (Pascanu 2013)."""

MEASUREMENTS = 4
"""Points of a learning curve after the start, evenly spaced over the updates."""

CURVE_EXAMPLES = 64
"""Most examples, of the training sample and of validation, that a point of the curve reads."""

PART = 16
"""Examples of a run that a measurement asks at once."""

DIVERGED = 100.0
"""A mean loss, in nats, that only a run gone wrong has."""

STACK = 10
"""Runs in a stack on the CPU, at most: wider ones are no faster there, and take more memory."""

SMALL = 20_000_000
"""Parameters up to which a model is small on the CPU: its repeats are trained in stacks, and it
computes on one thread. Stacks of OPT-125m gain nothing there (tests/benchmarks/training.py)."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(positions, classes) logits and a target for each position to (positions,) losses in nats."""


@dataclass(frozen=True)
class Examples:
    """What a run learns from: prompts, and targets at some of their positions.

    `targets` is (examples, places, ...); `places` (examples, places) says at which token of its
    prompt each is read, in rising order, then -1 for none. By default there is one, the last: the
    answer position. `read` counts the tokens that a teacher read for the targets.
    """

    prompts: Sequence[Sequence[int]]
    targets: torch.Tensor
    places: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    read: int = 0

    def __post_init__(self) -> None:
        if not len(self.places):
            last = torch.tensor([[len(prompt) - 1] for prompt in self.prompts])
            object.__setattr__(self, "places", last)

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, rows: Sequence[int]) -> "Examples":
        """The examples of these numbers, in this order."""
        chosen = list(rows)
        return Examples(
            [self.prompts[i] for i in chosen], self.targets[chosen], self.places[chosen]
        )


@dataclass(frozen=True)
class Job:
    """One run's part of a stack: its examples, what it is measured on meanwhile, its seeds."""

    train: Examples
    validation: Examples
    init_seed: int = 0
    order_seed: int = 0
    name: str = ""  # for messages
    begin: Mapping[str, torch.Tensor] | None = None  # weights to go on from; None: the model's own
    round: int = 0  # how often it went on: another order and other dropout each time


@dataclass(frozen=True)
class Trained:
    """What a run has learnt.

    `weights` are those that changed, by their names in the learner's `reader`; `curve` has a row a
    measurement: update, epoch, and loss and accuracy on training and validation examples; `kept` is
    the update whose weights these are; `tokens` were read in training; `seconds` is the run's share
    of its stack's time, measurements left out; `stacked` runs were trained together.
    """

    weights: dict[str, torch.Tensor]
    curve: list[dict[str, float]]
    kept: int
    tokens: int
    seconds: float
    stacked: int

    def after(self, before: "Trained") -> "Trained":
        """This and what the run did `before` as one: updates, epochs, tokens and time go on."""
        last = before.curve[-1]
        on = [
            point
            | {"update": point["update"] + last["update"], "epoch": point["epoch"] + last["epoch"]}
            for point in self.curve
        ]
        return replace(
            self,
            curve=[*before.curve, *on],
            kept=self.kept + int(last["update"]),
            tokens=self.tokens + before.tokens,
            seconds=self.seconds + before.seconds,
        )

    def row(self) -> dict[str, Any]:
        """What a run's row says of its training."""
        return {
            "train_seconds": self.seconds,
            "train_tokens": self.tokens,
            "trainable_parameters": sum(weight.numel() for weight in self.weights.values()),
            "stacked": self.stacked,
            "kept_update": self.kept,
            "curve": self.curve,
        }


# --- the loop ----------------------------------------------------------------------------------


def train(
    learner: Learner, jobs: Sequence[Job], loss: Loss, *, token_budget: int = 0, stack: int = 0
) -> list[Trained]:
    """Train every job from the learner's model, several at once.

    Args:
        learner: what learns; its model is not changed.
        jobs: the runs, which may differ in examples (equally many) and seeds.
        loss: the loss at a place.
        token_budget: tokens of a run that go through the model at once, 0 = a whole batch. A batch
            is accumulated from smaller parts: that changes memory, not the result.
        stack: runs trained together, at most; 0 = as many as the device's memory holds.

    Returns:
        What each learnt, in the jobs' order.

    Raises:
        UserError: a loss that is no number or runs away, or too little memory for one example.
    """
    for job in jobs:
        scoring.check_tokens(learner.model.model.config, job.train.prompts)
    width = max(1, min(stack or len(jobs), _room(learner)))
    done: list[Trained] = []
    while len(done) < len(jobs):
        some = jobs[len(done) : len(done) + width]
        try:
            done += _train(learner, some, loss, token_budget)
        except RuntimeError as error:
            if not scoring.out_of_memory(error):
                raise
            if len(some) == 1:
                longest = max(map(len, some[0].train.prompts))
                raise UserError(
                    f"{learner.model.device} has too little memory to train on one prompt of "
                    f"{longest} tokens: use method lora, a smaller model or another device"
                ) from error
            width = (len(some) + 1) // 2
    return done


def _room(learner: Learner) -> int:
    """Runs to train together, by the device.

    On CUDA as many as half of the free memory holds the weights, gradients and moments of; on the
    CPU some of a small model, and a large one alone: its matrices keep the cores busy.
    """
    device = learner.model.device
    if device.type != "cuda":
        return STACK if learner.model.parameters <= SMALL else 1
    weights = dict(learner.reader.named_parameters())
    each = 4 * 4 * sum(weights[name].numel() for name in learner.names)
    return int(torch.cuda.mem_get_info(device)[0] // 2 // each)


def _train(learner: Learner, jobs: Sequence[Job], loss: Loss, budget: int) -> list[Trained]:
    """`train` for one stack."""
    spec, device = learner.spec, learner.model.device
    stack = _begin(learner, jobs)
    optimizer = torch.optim.AdamW(
        stack.values(), betas=BETAS, weight_decay=WEIGHT_DECAY, fused=device.type in ("cpu", "cuda")
    )
    size = min(spec.batch_size, len(jobs[0].train))
    longest = max(len(prompt) for job in jobs for prompt in job.train.prompts)
    part = min(size, max(1, budget // longest)) if budget else size
    orders = [
        _order(len(job.train), spec.updates * size, [job.order_seed, job.round]) for job in jobs
    ]
    points = {round(spec.updates * i / MEASUREMENTS) for i in range(MEASUREMENTS + 1)}
    curves: list[list[dict[str, float]]] = [[] for _ in jobs]
    kept = [(float("inf"), spec.updates, stack) for _ in jobs]  # validation loss, update, weights
    started, measuring = time.perf_counter(), 0.0
    for update in range(spec.updates + 1):
        if update in points:
            paused = time.perf_counter()
            for r, point in enumerate(_point(learner, stack, jobs, loss)):
                _refuse_diverged(point["train_loss"], update, learner, jobs[r])
                epoch = update * size / len(jobs[r].train)
                curves[r].append({"update": update, "epoch": epoch, **point})
                if spec.selection == "best" and point["validation_loss"] < kept[r][0]:
                    copy = {
                        name: value[r : r + 1].detach().clone() for name, value in stack.items()
                    }
                    kept[r] = point["validation_loss"], update, copy
            measuring += time.perf_counter() - paused
        if update == spec.updates:
            break
        batches = [
            job.train.part(order[update * size : (update + 1) * size])
            for job, order in zip(jobs, orders, strict=True)
        ]
        widths = [_width([batch]) for batch in batches]
        seeds = [(job.init_seed, job.round) for job in jobs]
        dropout = Dropout(seeds, update, size, widths, device)
        losses, part = _accumulate(learner.reader, stack, batches, loss, dropout, part)
        for job, value in zip(jobs, losses, strict=True):
            _refuse_diverged(value, update, learner, job)
        _clip(stack)
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * _schedule(update, spec.updates)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - started - measuring) / len(jobs)
    return [
        Trained(
            {name: value[r if chosen is stack else 0].detach() for name, value in chosen.items()},
            curves[r],
            update,
            sum(len(job.train.prompts[i]) for i in orders[r]),
            seconds,
            len(jobs),
        )
        for r, (job, (_, update, chosen)) in enumerate(zip(jobs, kept, strict=True))
    ]


def _refuse_diverged(loss: float, update: int, learner: Learner, job: Job) -> None:
    if loss < DIVERGED:
        return
    dtype = learner.model.model.dtype
    if update:
        way_out = "use a smaller learning rate"
    elif dtype == torch.float32:
        way_out = "the model's weights are damaged"
    else:
        way_out = f"use dtype float32 in place of {str(dtype).removeprefix('torch.')}"
    raise UserError(
        f"the training loss is {loss:.3g} nats after {update} of {learner.spec.updates} updates "
        f"({job.name}): {way_out}"
    )


def _order(examples: int, n: int, seed: Sequence[int]) -> list[int]:
    """`n` numbers of examples: all of them shuffled, again and again, one epoch after another."""
    rng = np.random.default_rng(list(seed))
    epochs = [rng.permutation(examples) for _ in range(-(-n // examples))]
    return [int(i) for i in np.concatenate(epochs)[:n]]


def _schedule(update: int, updates: int) -> float:
    """The learning rate's factor: up to 1 in the warm-up, then down towards 0."""
    warm = max(1, round(WARMUP * updates))
    return min((update + 1) / warm, (updates - update) / max(1, updates - warm))


def _clip(stack: Mapping[str, torch.Tensor]) -> None:
    """Scale each run's gradient down to norm `CLIP` where it is larger."""
    grads = [value.grad for value in stack.values() if value.grad is not None]
    norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
    factor = CLIP / norms.clamp(min=CLIP)
    for grad in grads:
        grad.mul_(factor.view(-1, *[1] * (grad.dim() - 1)))


def _accumulate(
    reader: Reader,
    stack: Mapping[str, torch.Tensor],
    batches: Sequence[Examples],
    loss: Loss,
    dropout: Dropout,
    part: int,
) -> tuple[list[float], int]:
    """The gradient of one update, left in `stack`, added up over `part` examples at a time.

    Out of memory, the update begins again with half as large parts. Returns each run's mean loss,
    and the part that fitted.
    """
    size = len(batches[0])
    while True:
        for value in stack.values():
            value.grad = None
        total = torch.zeros(len(batches), device=dropout.device)
        try:
            for first in range(0, size, part):
                some = [batch.part(range(first, min(first + part, size))) for batch in batches]
                losses = _summed(_logits(reader, stack, some, dropout.at(first)), some, loss) / size
                losses.sum().backward()  # type: ignore[no-untyped-call]
                total += losses.detach()
        except RuntimeError as error:
            if part == 1 or not scoring.out_of_memory(error):
                raise
            part = (part + 1) // 2
        else:
            return total.tolist(), part


def _summed(logits: torch.Tensor, batches: Sequence[Examples], loss: Loss) -> torch.Tensor:
    """Each run's loss (runs,), summed over its examples.

    An example's loss is that of its last place, the answer, and with it the mean of its others'.
    """
    targets = _stacked([batch.targets for batch in batches], 0).to(logits.device)
    places = _stacked([batch.places for batch in batches], -1).to(logits.device)
    at = loss(logits.flatten(0, 2), targets.flatten(0, 2)).view(places.shape)
    at = torch.where(places >= 0, at, 0.0)
    others = (places >= 0).sum(dim=2) - 1
    answer = at.gather(2, others.unsqueeze(2)).squeeze(2)
    return (answer + (at.sum(dim=2) - answer) / others.clamp(min=1)).sum(dim=1)


def _logits(
    reader: Reader,
    stack: Mapping[str, torch.Tensor],
    batches: Sequence[Examples],
    dropout: Dropout | None = None,
) -> torch.Tensor:
    """Float32 (runs, examples, places, classes): each run's weights asked its own prompts.

    Attention is transformers' own plain one: fused kernels know no stack, and drop by themselves.
    """
    device, config = reader.output.weight.device, reader.body.config
    ids = torch.zeros(len(batches), len(batches[0]), _width(batches), dtype=torch.long)
    for r, batch in enumerate(batches):
        for i, prompt in enumerate(batch.prompts):
            ids[r, i, : len(prompt)] = torch.tensor(prompt)
    places = _stacked([batch.places for batch in batches], -1)
    if dropout:
        dropout.rows, dropout.width = ids.shape[1:]
    inputs = [x.to(device) for x in (torch.arange(len(batches)), ids, places)]

    def one(weights: Any, run: torch.Tensor, ids: torch.Tensor, places: torch.Tensor) -> Any:
        if dropout:
            dropout.run = run
        return functional_call(reader, weights, (ids, places))

    kind = precision(reader.output.weight.dtype)
    usual, config._attn_implementation = config._attn_implementation, "eager"
    reader.train(dropout is not None)
    try:
        with (
            torch.autocast(device.type, kind, enabled=kind != torch.float32),
            dropout or nullcontext(),
        ):
            if len(batches) == 1:
                alone = {name: value[0] for name, value in stack.items()}
                logits: torch.Tensor = one(alone, *[x[0] for x in inputs]).unsqueeze(0)
            else:
                logits = vmap(one, randomness="same")(dict(stack), *inputs)
    finally:
        reader.eval()
        config._attn_implementation = usual
    return logits


def precision(dtype: torch.dtype) -> torch.dtype:
    """The number type that a model of this type is trained in, the same on every device.

    A float32 model is trained in float32. One in half precision computes its matrices in bfloat16,
    which has float32's range (float16's gradients vanish); the weights that learn are float32.
    """
    return torch.float32 if dtype == torch.float32 else torch.bfloat16


def _stacked(runs: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    """(runs, examples, places, ...), with `fill` at the places that a run has fewer of."""
    most = max(one.shape[1] for one in runs)
    padding = [0, 0] * (runs[0].dim() - 2)
    return torch.stack([F.pad(one, [*padding, 0, most - one.shape[1]], value=fill) for one in runs])


def _width(batches: Sequence[Examples]) -> int:
    return max(len(prompt) for batch in batches for prompt in batch.prompts)


def _begin(learner: Learner, jobs: Sequence[Job]) -> dict[str, torch.Tensor]:
    """The stack before training: each job's own weights to go on from, or the model's."""
    stack = start(learner, [job.init_seed for job in jobs])
    with torch.no_grad():
        for r, job in enumerate(jobs):
            for name, value in (job.begin or {}).items():
                stack[name][r] = value
    return stack


def _point(
    learner: Learner, stack: Mapping[str, torch.Tensor], jobs: Sequence[Job], loss: Loss
) -> list[dict[str, float]]:
    """A point of each run's learning curve: losses as they are without dropout."""
    points: list[dict[str, float]] = [{} for _ in jobs]
    for name in ("train", "validation"):
        sets: list[Examples] = [getattr(job, name) for job in jobs]
        n = min(CURVE_EXAMPLES, *map(len, sets))
        measured = measure(learner, stack, [one.part(range(n)) for one in sets], loss)
        for point, found in zip(points, measured, strict=True):
            point |= {f"{name}_{what}": value for what, value in found.items()}
    return points


@torch.no_grad()
def measure(
    learner: Learner,
    stack: Mapping[str, torch.Tensor],
    sets: Sequence[Examples],
    loss: Loss,
) -> list[dict[str, float]]:
    """Each run's mean `loss` on its own examples (equally many), without dropout.

    And `accuracy`: how often the likeliest class at the last place is the target, or where the
    target is a distribution, the target's likeliest class.
    """
    n = len(sets[0])
    found: dict[str, torch.Tensor] = {}
    first, part = 0, PART
    while first < n:
        some = [one.part(range(first, min(first + part, n))) for one in sets]
        try:
            logits = _logits(learner.reader, stack, some)
        except RuntimeError as error:
            if part == 1 or not scoring.out_of_memory(error):
                raise
            part = (part + 1) // 2
            continue
        targets = _stacked([one.targets for one in some], 0).to(logits.device)
        places = _stacked([one.places for one in some], -1).to(logits.device)
        classes = targets if targets.dim() == 3 else targets.argmax(dim=-1)
        last = (places >= 0).sum(dim=2, keepdim=True) - 1
        right = (logits.argmax(dim=-1) == classes).gather(2, last)[..., 0].float().sum(dim=1)
        for name, values in (("loss", _summed(logits, some, loss)), ("accuracy", right)):
            found[name] = found.get(name, torch.zeros_like(values)) + values / n
        first += part
    return [{name: float(values[r]) for name, values in found.items()} for r in range(len(sets))]


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p(target), nats: (places, classes) logits and (places,) classes to (places,)."""
    return F.cross_entropy(logits, targets, reduction="none")


def labelled(frame: pd.DataFrame, spec: Spec, model: Model) -> Examples:
    """The pairs of `frame` as the zero-shot prompts of `spec`, with their labels as targets.

    With objective "query" each of a prompt's tokens but the first is a target, too, at the token
    before it: the mean of their losses, which is transformers' own loss of the prompt as a text, is
    added to the answer's (`_summed`).
    """
    ids = prompts.encode(model.tokenizer, spec.wording, frame, frame.iloc[:0], model.max_positions)
    labels = torch.tensor(frame["label"].to_numpy())
    if spec.objective in ("vocabulary", "query"):
        labels = torch.tensor(prompts.label_tokens(model.tokenizer, spec.wording))[labels]
    if spec.objective != "query":
        return Examples(ids, labels.unsqueeze(1))
    following = [[*prompt[1:], int(label)] for prompt, label in zip(ids, labels, strict=True)]
    width = max(map(len, ids))
    padded = [F.pad(torch.tensor(one), [0, width - len(one)]) for one in following]
    places = [F.pad(torch.arange(len(one)), [0, width - len(one)], value=-1) for one in ids]
    return Examples(ids, torch.stack(padded), torch.stack(places))
