"""Placebos: contexts that look like demonstrations of a task, and say nothing of it.

What a placebo does for a model, the content of the true demonstrations does not: it is the format,
the label words, the kind of text, or just the tokens (Min et al. 2022, arXiv:2202.12837, change the
labels; here other parts are changed, too).
"""

from typing import Any

import numpy as np
import pandas as pd

from llmft import UserError
from llmft.nli import prompts, tasks
from llmft.nli.cues import words


def shuffled(demonstrations: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The demonstrations, exactly half of each label's (rounded down) with the other label.

    So a pair's label says nothing of it, and the labels are as many as before.
    """
    rng, label = np.random.default_rng([seed, 3]), demonstrations["label"].to_numpy()
    changed = label.copy()
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(label == value))
        changed[rows[: len(rows) // 2]] = 1 - value
    return demonstrations.assign(label=changed)


def other_task(pool: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Demonstrations of another task on pairs of the same `pool`: is the premise a long one?

    Label 0 where it has more words than the pool's median: a rule that the pair itself shows, and
    that says nothing of the hypothesis.

    Raises:
        UserError: too few premises are longer than the median, as where all are as long.
    """
    length = pool["premise"].map(lambda text: len(words(text)))
    labels = (length <= length.median()).astype(int)
    if min(labels.sum(), len(labels) - labels.sum()) < n // 2:
        raise UserError(
            "context 'other task' asks whether a premise is longer than most: too few of this "
            "task's are, use another context"
        )
    return tasks.sample(pool.assign(label=labels), n, seed)


def filler(
    pool: pd.DataFrame,
    demonstrations: pd.DataFrame,
    seed: int,
    tokenizer: Any,
    pattern: prompts.Pattern,
) -> pd.DataFrame:
    """Plain sentences of `pool`, as many as fit into the tokens of the `demonstrations`.

    Premises in random order, without hypotheses and labels (there is no column `label`), each of
    them that still fits: of the tokens at most a few fewer than a sentence has are left over.
    """
    rest = pool[~pool["id"].isin(demonstrations["id"])].drop(columns="label")
    rest = rest.iloc[np.random.default_rng([seed, 4]).permutation(len(rest))]
    room = len(prompts.token_ids(tokenizer, [prompts.context(pattern, demonstrations)])[0])
    after = [pattern.separator + premise for premise in rest["premise"]]
    sizes = [len(ids) for ids in prompts.token_ids(tokenizer, after, special=False)]
    room += len(prompts.token_ids(tokenizer, [pattern.separator], special=False)[0])
    room -= len(prompts.token_ids(tokenizer, [""])[0])  # what stands before every text
    chosen = []
    for row, size in enumerate(sizes):
        if size <= room:
            chosen.append(row)
            room -= size
    return rest.iloc[chosen]
