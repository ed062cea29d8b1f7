"""Context distillation: what a context does for a model, moved into its weights.

The teacher is the model with the context before the query, the student the same model with the
query alone. The student is trained to say what the teacher says: the loss is KL(teacher ‖ student),
at the answer position, on queries whose labels nobody needs (Askell et al. 2021, arXiv:2112.00861;
Snell et al. 2022, arXiv:2209.15189). *Plain* distillation has a frozen teacher. *Recursive*
distillation goes on from there: the student of a round, with the context, is the next one's
teacher.

A teacher's targets are numbers computed before the round, with the context read once
(`scoring.distributions`): no gradient can reach it, and no epoch asks it again.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from llmft import UserError
from llmft.engine import scoring
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.engine.training import Examples, Loss
from llmft.nli import prompts


HELD_OUT = 128
"""Most validation queries on which a student's fidelity to its teacher is measured."""


def queries(pool: pd.DataFrame, n: int, seed: int, context: pd.DataFrame) -> pd.DataFrame:
    """`n` pairs of `pool` at random, none of them in `context`, without their labels.

    Raises:
        UserError: the pool has fewer.
    """
    there = pool[~pool["id"].isin(context["id"])].drop(columns="label")
    if len(there) < n:
        raise UserError(f"cannot draw {n} queries: the pool has {len(there)} besides the context")
    order = np.random.default_rng([seed, 2]).permutation(len(there))[:n]
    return there.iloc[order].reset_index(drop=True)


def taught(
    teacher: Model, spec: Spec, asked: pd.DataFrame, context: pd.DataFrame, token_budget: int = 0
) -> Examples:
    """The student's prompts, and what `teacher` says behind the context, as log-probabilities.

    Over the vocabulary at the answer position; with objective "label words" over these alone; with
    "query" also at the query's own tokens, each with itself: both have read the same last tokens.
    """
    encoded = [
        prompts.encode(
            teacher.tokenizer,
            spec.wording,
            asked,
            shown,
            teacher.max_positions,
            explained=spec.context == "explained",
        )
        for shown in (context, context.iloc[:0])
    ]
    with_context, alone = encoded
    prefix = scoring.common_prefix(with_context)  # read once
    read = prefix + sum(len(prompt) - prefix for prompt in with_context)
    if spec.objective == "label words":
        labels = prompts.label_tokens(teacher.tokenizer, spec.wording)
        logp = scoring.score(teacher.model, with_context, labels, token_budget=token_budget)
        return Examples(alone, logp.clone().unsqueeze(1), read=read)
    counts = aligned(with_context, alone) if spec.objective == "query" else [1] * len(alone)
    logp = scoring.distributions(teacher.model, with_context, counts, token_budget=token_budget)
    targets = torch.zeros(len(alone), max(counts), logp.shape[1])
    places = torch.full((len(alone), max(counts)), -1)
    for i, (own, n, prompt) in enumerate(
        zip(torch.split(logp, counts), counts, alone, strict=True)
    ):
        targets[i, :n] = own
        places[i, :n] = torch.arange(len(prompt) - n, len(prompt))
    return Examples(alone, targets, places, read)


def aligned(with_context: Sequence[Sequence[int]], alone: Sequence[Sequence[int]]) -> list[int]:
    """How many last tokens each prompt has in common with itself behind the context."""

    def common(a: Sequence[int], b: Sequence[int]) -> int:
        pairs = zip(reversed(a), reversed(b), strict=False)
        shorter = min(len(a), len(b))
        return next((i for i, (x, y) in enumerate(pairs) if x != y), shorter)

    return [common(a, b) for a, b in zip(with_context, alone, strict=True)]


def agreement(a: Examples, b: Examples) -> float:
    """The share of prompts whose answers' likeliest tokens are the same in two sets of targets."""
    answers = [
        part.targets[torch.arange(len(part)), (part.places >= 0).sum(1) - 1].argmax(-1)
        for part in (a, b)
    ]
    return float((answers[0] == answers[1]).float().mean())


def divergence(temperature: float) -> Loss:
    """KL(teacher ‖ student) in nats, both softened by `temperature`, times its square.

    The square keeps the gradient's size at every temperature (Hinton et al. 2015, 1503.02531). It
    takes (places, classes) logits of the student and log-probabilities of the teacher.
    """

    def kl(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        student = (logits / temperature).log_softmax(dim=-1)
        teacher = (targets / temperature).log_softmax(dim=-1)
        return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=-1)

    return kl
