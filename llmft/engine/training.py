"""Fine-tuning: one training loop, for all weights, a low-rank few, or the biases.

The prompt is zero-shot's, and the loss is the cross-entropy of the label word at the answer
position (pattern-based fine-tuning: Schick & Schütze 2021; Mosbach et al. 2023, arXiv:2305.16938).
What is learnt is read as every method is read, by `scoring.score`.

An update is the usual one: forward, loss, backward, clip, step. Two things make it fast: a batch's
prompts are packed end to end, so that no token is padding (`attention.run_packed`; Krell et al.
2021, arXiv:2107.02027), and logits are computed only where a target is (`learner.Reader`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F  # noqa: N812 (the usual name)
from torch.nn.utils.rnn import pad_sequence

from llmft import UserError
from llmft.engine import scoring
from llmft.engine.learner import Learner, holding, start
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.hardware import clock
from llmft.nli import prompts


WARMUP = 0.1
"""The share of updates in which the learning rate grows; it falls linearly to 0 in the others."""

WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.999)
CLIP = 1.0
"""AdamW's (Loshchilov & Hutter 2019), and the largest norm of a gradient (Pascanu 2013)."""

MEASUREMENTS = 4
"""Points of a learning curve after the start, evenly spaced over the updates."""

CURVE_EXAMPLES = 64
"""Most examples, of the training sample and of validation, that a point of the curve reads."""

PART = 32
"""Examples that a measurement reads at once."""

DIVERGED = 100.0
"""A mean loss, in nats, that only a run gone wrong has."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(positions, classes) logits and a target for each position to (positions,) losses in nats."""


@dataclass(frozen=True)
class Examples:
    """What a run learns from: prompts, and targets at some of their positions.

    `targets` is (examples, places, ...); `places` (examples, places) says at which token of its
    prompt each is read, in rising order, then -1 for none. By default there is one, the last: the
    answer position. `read` counts the tokens that a teacher read for the targets.
    `weights` (examples,) is how much each counts; the heavy ones, above 1, run apart. Empty: all
    count alike.
    """

    prompts: Sequence[Sequence[int]]
    targets: torch.Tensor
    places: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    read: int = 0
    weights: torch.Tensor = field(default_factory=lambda: torch.empty(0))

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
            [self.prompts[i] for i in chosen],
            self.targets[chosen],
            self.places[chosen],
            weights=self.weights[chosen] if len(self.weights) else self.weights,
        )

    def parts(self, size: int) -> Iterator["Examples"]:
        """All examples in their order, `size` at a time; those of weights above 1 after the others.

        These are long prompts: beside one of 600 tokens, each of 20 costs as much attention.
        """
        groups: list[Sequence[int]] = [range(len(self))]
        if len(self.weights):
            heavy = self.weights > 1
            groups = [torch.nonzero(heavy == kind).flatten().tolist() for kind in (False, True)]
        for group in groups:
            for first in range(0, len(group), size):
                yield self.part(group[first : first + size])


@dataclass(frozen=True)
class Job:
    """A run to train: its examples, what it is measured on meanwhile, its seeds."""

    train: Examples
    validation: Examples
    init_seed: int = 0
    order_seed: int = 0
    begin: Mapping[str, torch.Tensor] | None = None  # weights to go on from; None: the model's own
    round: int = 0  # how often it went on: another order and other dropout each time


@dataclass(frozen=True)
class Trained:
    """What a run has learnt.

    `weights` are those that changed, by their names in the learner's `reader`; `curve` has a row a
    measurement: update, epoch, and loss and accuracy on training and validation examples; `update`
    is the one whose weights these are; `tokens` were read in training, in `seconds`, measurements
    left out.
    """

    weights: dict[str, torch.Tensor]
    curve: list[dict[str, float]]
    update: int
    tokens: int
    seconds: float

    def after(self, before: "Trained") -> "Trained":
        """This and what the run did `before` as one: updates, epochs, tokens and time go on."""
        last = before.curve[-1]
        on = [point | {k: point[k] + last[k] for k in ("update", "epoch")} for point in self.curve]
        return replace(
            self,
            curve=[*before.curve, *on],
            update=self.update + int(last["update"]),
            tokens=self.tokens + before.tokens,
            seconds=self.seconds + before.seconds,
        )

    def row(self) -> dict[str, Any]:
        """What a run's row says of its training."""
        return {
            "train_seconds": self.seconds,
            "train_tokens": self.tokens,
            "trainable_parameters": sum(weight.numel() for weight in self.weights.values()),
            "kept_update": self.update,
            "curve": self.curve,
        }


# --- the loop ----------------------------------------------------------------------------------


def train(learner: Learner, job: Job, loss: Loss, *, token_budget: int = 0) -> Trained:
    """Train one run from the learner's model, which is afterwards as it was.

    `token_budget` counts tokens that go through the model at once, 0 = a whole batch. A batch is
    accumulated from smaller parts: that changes memory, not the result, except that dropout draws
    part by part.

    Raises:
        UserError: a model that cannot be packed (`scoring.probe`), a loss that is no number or runs
            away, or too little memory for one example.
    """
    model, given = learner.model, job.train.prompts
    scoring.check(model.model, given)
    longest = max(map(len, given))
    size = min(learner.spec.batch_size, len(given))
    part = min(size, max(1, token_budget // longest)) if token_budget else size
    with scoring.memory_suffices(model.device, f"to train on one prompt of {longest} tokens"):
        scoring.probe(model.model, given)
        return _train(learner, job, loss, size, part)


def _train(learner: Learner, job: Job, loss: Loss, size: int, part: int) -> Trained:
    """Train in batches of `size` examples, `part` of them at a time."""
    spec, device = learner.spec, learner.model.device
    order = _order(len(job.train), spec.updates * size, [job.order_seed, job.round])
    points = {round(spec.updates * i / MEASUREMENTS) for i in range(MEASUREMENTS + 1)}
    curve: list[dict[str, float]] = []
    weights = start(learner, job.init_seed)
    for name, value in (job.begin or {}).items():
        weights[name].copy_(value)
    best = float("inf"), spec.updates, weights  # validation loss, update, weights
    started, measuring = clock(device)[0], 0.0
    with holding(learner, weights) as parameters:
        optimizer = torch.optim.AdamW(
            parameters, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=device.type in ("cpu", "cuda")
        )
        for update in range(spec.updates + 1):
            if update in points:
                paused = clock(device)[0]
                point = _point(learner, weights, job, loss)
                _refuse_diverged(point["train_loss"], update, learner)
                curve.append({"update": update, "epoch": update * size / len(job.train), **point})
                if spec.selection == "best" and point["validation_loss"] < best[0]:
                    copy = {name: value.clone() for name, value in weights.items()}
                    best = point["validation_loss"], update, copy
                measuring += clock(device)[0] - paused
            if update == spec.updates:
                break
            batch = job.train.part(order[update * size : (update + 1) * size])
            seed = [job.init_seed, job.round, update]
            batch_loss, part = backward(learner, batch, loss, seed, part)
            _refuse_diverged(batch_loss, update, learner)
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * _schedule(update, spec.updates)
            optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = clock(device)[0] - started - measuring
    tokens = sum(len(job.train.prompts[i]) for i in order)
    return Trained(best[2], curve, best[1], tokens, seconds)


def _refuse_diverged(loss: float, update: int, learner: Learner) -> None:
    if loss < DIVERGED:
        return
    way_out = "use a smaller learning rate"
    if not update:  # nothing was learned yet
        half = learner.spec.dtype != "float32"
        way_out = "use dtype float32" if half else "the model's weights are damaged"
    raise UserError(
        f"the training loss is {loss:.3g} nats after {update} of {learner.spec.updates} updates: "
        f"{way_out}"
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


def backward(
    learner: Learner, batch: Examples, loss: Loss, seed: Sequence[int], part: int
) -> tuple[float, int]:
    """The batch's mean loss, whose gradient the parameters then have, `part` examples at a time.

    `seed` alone draws what dropout drops. Out of memory, it begins again with half as large parts;
    it returns the part that fitted, too.
    """
    device = learner.model.device
    drawing = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])

    def accumulate(part: int) -> float:
        total = 0.0
        learner.reader.zero_grad()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(drawing)
            for some in batch.parts(part):
                value = total_loss(logits(learner, some, dropout=True), some, loss) / len(batch)
                value.backward()  # type: ignore[no-untyped-call]
                total += float(value.detach())
        return total

    return scoring.halving(accumulate, part)


def logits(learner: Learner, examples: Examples, *, dropout: bool = False) -> torch.Tensor:
    """Float32 logits (reads, classes) of the reader at the examples' places, one after another."""
    reader, kind = learner.reader, precision(learner.dtype)
    if reader.training != dropout:  # a walk through all modules
        reader.train(dropout)
    with torch.autocast(learner.model.device.type, kind, enabled=kind != torch.float32):
        found: torch.Tensor = reader(examples.prompts, examples.places)
    return found


def precision(dtype: torch.dtype) -> torch.dtype:
    """The number type that a model of this type is trained in, the same on every device.

    A float32 model is trained in float32. One in half precision computes its matrices in bfloat16,
    which has float32's range (float16's gradients vanish); the weights that learn are float32.
    """
    return torch.float32 if dtype == torch.float32 else torch.bfloat16


def total_loss(logits: torch.Tensor, examples: Examples, loss: Loss) -> torch.Tensor:
    """The examples' losses added up, from their `logits`.

    An example's loss is that of its last place, the answer, and with it the mean of its others',
    times its weight.
    """
    read = examples.places >= 0
    others = read.sum(dim=1, keepdim=True) - 1
    shares = (read / others.clamp(min=1)).scatter(1, others, 1.0)
    if len(examples.weights):
        shares = shares * examples.weights.unsqueeze(1)
    share = shares[read]
    targets = examples.targets[read].to(logits.device)
    return (loss(logits, targets) * share.to(logits.device)).sum()


# --- what is measured --------------------------------------------------------------------------


def _point(
    learner: Learner, weights: Mapping[str, torch.Tensor], job: Job, loss: Loss
) -> dict[str, float]:
    """A point of the learning curve: losses as they are without dropout."""
    point: dict[str, float] = {}
    for name, examples in (("train", job.train), ("validation", job.validation)):
        some = examples.part(range(min(CURVE_EXAMPLES, len(examples))))
        found = measure(learner, weights, some, loss)
        point |= {f"{name}_{what}": value for what, value in found.items()}
    return point


@torch.no_grad()
def measure(
    learner: Learner, weights: Mapping[str, torch.Tensor], examples: Examples, loss: Loss
) -> dict[str, float]:
    """The mean `loss` on examples with these weights, without dropout.

    And `accuracy`: how often the likeliest class at the last place is the target, or where the
    target is a distribution, the target's likeliest class.
    """

    def totals(part: int) -> tuple[float, float]:
        total, right = 0.0, 0.0
        for some in examples.parts(part):
            found = logits(learner, some)
            read = some.places >= 0
            answers = read.sum(dim=1).cumsum(0) - 1
            targets = some.targets[read][answers]
            classes = targets.argmax(dim=-1) if targets.dim() == 2 else targets
            right += float((found.cpu()[answers].argmax(dim=-1) == classes).sum())
            total += float(total_loss(found, some, loss))
        return total, right

    with holding(learner, weights):
        (total, right), _ = scoring.halving(totals, PART)
    return {"loss": total / len(examples), "accuracy": right / len(examples)}


# --- what is learnt from labels ----------------------------------------------------------------


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p(target), nats: (places, classes) logits and (places,) classes to (places,)."""
    return F.cross_entropy(logits, targets, reduction="none")


def labelled(frame: pd.DataFrame, spec: Spec, model: Model) -> Examples:
    """The pairs of `frame` as the zero-shot prompts of `spec`, with their labels as targets.

    With objective "query" each of a prompt's tokens but the first is a target, too, at the token
    before it: the mean of their losses, which is transformers' own loss of the prompt as a text, is
    added to the answer's (`total_loss`).
    """
    ids = prompts.encode(model.tokenizer, spec.wording, frame, None, model.max_positions)
    labels = torch.tensor(frame["label"].to_numpy())
    if spec.objective in ("vocabulary", "query"):
        labels = torch.tensor(prompts.label_tokens(model.tokenizer, spec.wording))[labels]
    if spec.objective != "query":
        return Examples(ids, labels.unsqueeze(1))
    following = [
        torch.tensor([*prompt[1:], int(label)]) for prompt, label in zip(ids, labels, strict=True)
    ]
    places = [torch.arange(len(prompt)) for prompt in ids]
    return Examples(
        ids,
        pad_sequence(following, batch_first=True),
        pad_sequence(places, batch_first=True, padding_value=-1),
    )
