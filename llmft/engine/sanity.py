"""Does a model know its language? Sentences against the same words in random order.

A checkpoint can load without an error and still be wrong: random weights, an output embedding that
lost its tie. To such a model no order of words is likelier than another, and every method would be
at chance. A trained model of any size gives plain English a far higher probability than the same
words in random order.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llmft.engine.models import Model
from llmft.engine.scoring import text_nll
from llmft.nli.prompts import token_ids
from llmft.nli.tasks import Task


ENGLISH = (
    "The train to the coast leaves every morning at nine.",
    "She opened the window because the room was too warm.",
    "After a long winter the river finally began to thaw.",
    "Most of the students had already read the first chapter.",
    "He wrote a short letter to his sister and posted it on Monday.",
    "The museum near the old harbour is closed for repairs.",
    "If it rains tomorrow, we will have dinner inside.",
    "My neighbour keeps two dogs and a very old cat.",
    "The company said that prices would rise by three percent.",
    "Nobody knows who painted the small picture in the hall.",
    "We walked home slowly, talking about the film.",
    "It takes about an hour to cook the potatoes in the oven.",
)
"""Plain sentences, written for this."""

SHUFFLES = 5


def word_order(model: Model, texts: Sequence[str]) -> dict[str, float]:
    """Mean log-probability, nats a token, of `texts` and of their words in random orders.

    Each text is shuffled `SHUFFLES` times; its last mark stays at the end. A text's first token is
    not predicted (it is the beginning-of-text token, where the tokenizer has one).

    Returns:
        `as written` and `shuffled` (means over all tokens), `difference`, and `likelier`: the share
        of texts whose mean log-probability is above that of their shuffles; one half is chance.
    """
    rng = np.random.default_rng(0)
    logp = np.zeros((len(texts), 1 + SHUFFLES))
    tokens = np.zeros_like(logp)
    for i, text in enumerate(texts):
        words = text.rstrip(" .!?")
        mark = text[len(words) :]
        shuffles = [" ".join(rng.permutation(words.split())) + mark for _ in range(SHUFFLES)]
        for j, ids in enumerate(token_ids(model.tokenizer, [text, *shuffles])):
            logp[i, j], tokens[i, j] = -text_nll(model.model, [ids]), len(ids) - 1
    plain = float(np.average(logp[:, 0], weights=tokens[:, 0]))
    random = float(np.average(logp[:, 1:], weights=tokens[:, 1:]))
    return {
        "as written": plain,
        "shuffled": random,
        "difference": plain - random,
        "likelier": float((logp[:, 0] > logp[:, 1:].mean(axis=1)).mean()),
    }


def table(models: Sequence[Model], task: Task) -> pd.DataFrame:
    """A row a model: `model`, `texts` (how many), and the columns of `word_order`.

    In the pocket world these are sentences of its validation premises, else plain English.
    """
    pocket = task.name == "pocket"
    texts = list(task.validation["premise"].unique()[: len(ENGLISH)]) if pocket else list(ENGLISH)
    rows = [{"model": m.name, "texts": len(texts)} | word_order(m, texts) for m in models]
    return pd.DataFrame(rows)
