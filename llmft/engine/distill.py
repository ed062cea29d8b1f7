"""Context distillation: what a context does for a model, moved into its weights.

The teacher is the model with the context before the query, the student the same model with the
query alone. The student is trained on the teacher's predictions: the loss is KL(teacher ‖ student),
at the answer position, on queries without labels (Askell et al. 2021, arXiv:2112.00861; Snell et
al. 2022, arXiv:2209.15189). *Plain* distillation has a frozen teacher. In *recursive* distillation
the student of a round, with the context, is the next round's teacher, or one of `next_teacher`'s.

The teacher's targets are computed before the round, with the context read once
(`scoring.distributions`): no gradient reaches the teacher, and no epoch runs it again.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from llmft import UserError
from llmft.engine import scoring
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.engine.training import Examples, Loss
from llmft.nli import prompts


HELD_OUT = 128
"""The most validation queries on which a student's fidelity to its teacher is measured."""

KEPT = 0.5
"""How much of an average teacher stays when a round's student is added to it."""

EVERY = 16
"""Where a student practises behind the context as well, one in so many queries stands there: such a
prompt costs as much as fifty without a context."""

Weights = Mapping[str, torch.Tensor]
"""Weights that training changes, by their names."""


def queries(pool: pd.DataFrame, n: int, seed: int, context: pd.DataFrame) -> pd.DataFrame:
    """`n` pairs of `pool` at random, none of them in `context`, without their labels.

    Raises:
        UserError: the pool has fewer.
    """
    rest = pool[~pool["id"].isin(context["id"])].drop(columns="label")
    if len(rest) < n:
        raise UserError(f"cannot draw {n} queries: the pool has {len(rest)} besides the context")
    order = np.random.default_rng([seed, 2]).permutation(len(rest))[:n]
    return rest.iloc[order].reset_index(drop=True)


def next_teacher(kind: str, teacher: Weights | None, student: Weights) -> Weights | None:
    """The weights of the next round's teacher, from this round's and those that its student learnt.

    None is the model as it came, which an average is not given.

    By `kind`, a `Spec.teacher`: "" is the student, "first" stays the same. "average" is a moving
    average over rounds, phi <- `KEPT` phi + (1 - `KEPT`) theta. A mean teacher (Tarvainen & Valpola
    2017, arXiv:1703.01780) averages over updates; here targets are computed before a round, so that
    no update runs the teacher.
    """
    if kind == "first":
        return teacher
    if kind == "average":
        assert teacher
        return {name: KEPT * teacher[name] + (1 - KEPT) * new for name, new in student.items()}
    return student


def teacher_targets(
    teacher: Model,
    spec: Spec,
    queries: pd.DataFrame,
    context: pd.DataFrame,
    token_budget: int = 0,
    context_share: float = 0.0,
) -> Examples:
    """The student's prompts, and as targets the log-probabilities of `teacher` behind the context.

    The student's are the queries alone. With a `context_share` it, too, reads every `EVERY`th
    behind the context, with the same targets at the same tokens, and these few, as far as there are
    any, weigh that share of the loss.

    They are over the vocabulary at the answer position; with objective "label words", over these
    alone. With "query", each of the query's own tokens has a target, too: student and teacher have
    read the same tokens of the query up to there. A student with a prefix reads its prompts behind
    that, and has its targets at the same tokens.
    """
    reading = teacher.tokenizer, spec.wording, queries
    none, most, explained = context.iloc[:0], teacher.max_positions, spec.context == "explained"
    with_context = prompts.encode(*reading, context, most, explained=explained)
    alone = prompts.encode(*reading, none, most)
    own = prompts.encode(*reading, none, most, behind=True) if spec.prefix else alone
    student, weights = own, torch.empty(0)
    if context_share:
        behind = torch.arange(len(queries)) % EVERY == 0
        student = [both[one] for *both, one in zip(own, with_context, behind, strict=True)]
        share = behind.float().mean()
        weights = torch.where(behind, context_share / share, (1 - context_share) / (1 - share))
    prefix = scoring.common_prefix(with_context)  # read once
    read = prefix + sum(len(prompt) - prefix for prompt in with_context)
    if spec.objective == "label words":
        labels = prompts.label_tokens(teacher.tokenizer, spec.wording)
        logp = scoring.score(teacher.model, with_context, labels, token_budget=token_budget)
        return Examples(student, logp.clone().unsqueeze(1), read=read, weights=weights)
    counts = shared_tokens(with_context, alone) if spec.objective == "query" else [1] * len(alone)
    logp = scoring.distributions(teacher.model, with_context, counts, token_budget=token_budget)
    places = [torch.arange(len(ids) - n, len(ids)) for ids, n in zip(student, counts, strict=True)]
    return Examples(
        student,
        pad_sequence(list(torch.split(logp, counts)), batch_first=True),
        pad_sequence(places, batch_first=True, padding_value=-1),
        read,
        weights,
    )


def context_ids(model: Model, spec: Spec, context: pd.DataFrame) -> list[int]:
    """The tokens that the teacher reads before the separator and the query."""
    explained = spec.context == "explained"
    text = prompts.context(spec.wording, context, explained=explained)
    return prompts.token_ids(model.tokenizer, [text])[0]


def shared_tokens(
    with_context: Sequence[Sequence[int]], alone: Sequence[Sequence[int]]
) -> list[int]:
    """How many last tokens each prompt shares with itself behind the context."""
    return [
        scoring.in_common(one[::-1], other[::-1])
        for one, other in zip(with_context, alone, strict=True)
    ]


def agreement(a: Examples, b: Examples) -> float:
    """The share of prompts whose likeliest answer token is the same in two sets of targets."""
    answers = [
        part.targets[torch.arange(len(part)), (part.places >= 0).sum(1) - 1].argmax(-1)
        for part in (a, b)
    ]
    return float((answers[0] == answers[1]).float().mean())


def divergence(temperature: float, kind: str = "") -> Loss:
    """How far the student is from its teacher, in nats, both softened by `temperature`.

    KL(teacher ‖ student); of kind "reverse", KL(student ‖ teacher); of kind "jsd", the
    Jensen-Shannon divergence, the mean of both's KL to their mean (Lin 1991, 10.1109/18.61115).
    Times the square of the temperature, which keeps the gradient's size (Hinton et al. 2015,
    1503.02531). It takes (places, classes) logits of the student and log-probabilities of the
    teacher.
    """

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (p.exp() * (p - q)).sum(dim=-1)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        student = (logits / temperature).log_softmax(dim=-1)
        teacher = (targets / temperature).log_softmax(dim=-1)
        if kind == "reverse":
            return temperature**2 * kl(student, teacher)
        if kind == "jsd":
            mean = torch.logaddexp(student, teacher) - math.log(2)
            return temperature**2 * (kl(teacher, mean) + kl(student, mean)) / 2
        return temperature**2 * kl(teacher, student)

    return loss
