"""Surface cues: what can be read off a pair of sentences without understanding either.

Word overlap is HANS's lexical-overlap heuristic (McCoy et al. 2019); negation in the hypothesis is
the best known annotation artefact of MultiNLI (Gururangan et al. 2018).
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pandas as pd


NEGATIONS = frozenset("no not never nobody nothing none neither nor n't cannot without".split())
_WORD = re.compile(r"n't\b|\w+(?=n't\b)|\w+", re.IGNORECASE)


def words(sentence: str) -> list[str]:
    """The sentence's words in lower case, without punctuation; "didn't" is "did", "n't"."""
    return _WORD.findall(sentence.lower())


def pair_cues(premise: str, hypothesis: str, nouns: Collection[str] = ()) -> dict[str, float]:
    """The cues of one pair, as numbers (a yes is 1): one a column in `table`.

    `nouns` names the words that count as nouns; without them the two noun cues are left out,
    because telling nouns from other words would take a parser.
    """
    p, h = words(premise), words(hypothesis)
    present = set(p)
    cues = {
        "negation": any(w in NEGATIONS for w in h),
        "overlap": all(w in present for w in h),
        "share of words": sum(w in present for w in h) / max(1, len(h)),
        "premise length": len(p),
        "hypothesis length": len(h),
        "length difference": len(p) - len(h),
        "same last word": p[-1:] == h[-1:],
        "premise passive": passive(p),
        "hypothesis passive": passive(h),
        "same voice": passive(p) == passive(h),
    }
    if nouns:
        pn, hn = [w for w in p if w in nouns], [w for w in h if w in nouns]
        cues |= {"same first noun": pn[:1] == hn[:1], "same last noun": pn[-1:] == hn[-1:]}
    return {name: float(value) for name, value in cues.items()}


def passive(sentence_words: list[str]) -> bool:
    """Whether a form of "be" is followed by a "by": a passive, as far as words can tell."""
    return any(
        w in ("was", "were", "is", "are", "been") and "by" in sentence_words[i + 2 : i + 5]
        for i, w in enumerate(sentence_words)
    )


def table(pairs: pd.DataFrame, nouns: Collection[str] = ()) -> pd.DataFrame:
    """One row a pair and one column a cue, in the pairs' order."""
    rows = [
        pair_cues(p, h, nouns) for p, h in zip(pairs["premise"], pairs["hypothesis"], strict=True)
    ]
    return pd.DataFrame(rows, index=pairs.index)


def negation_is_right(pairs: pd.DataFrame) -> np.ndarray:
    """Where "not entailed if the hypothesis is negated, else entailed" is the pair's label; (n,).

    The artefact of Gururangan et al. (2018), taken as a rule. Other pairs contradict it.
    """
    negated = [any(w in NEGATIONS for w in words(text)) for text in pairs["hypothesis"]]
    right: np.ndarray = np.equal(negated, pairs["label"].to_numpy() == 1)
    return right


def best_accuracy(cue: np.ndarray, label: np.ndarray) -> float:
    """The accuracy of the best rule "cue above t", or its opposite, over all t; in [0.5, 1].

    cue: (n,) numbers; label: (n,) zeros and ones. The threshold is fitted on these very pairs, so
    this is an upper bound on what the cue alone can give. Pairs with an equal cue stay together.
    """
    order = np.argsort(cue, kind="stable")
    values, positive = cue[order], label[order].astype(float)
    below = np.concatenate([[0.0], np.cumsum(positive)])  # positives among the first i
    i = np.arange(len(cue) + 1)
    right = (i - below) + (positive.sum() - below)  # "above t is positive" with i pairs below t
    cut = np.concatenate([[True], values[1:] != values[:-1], [True]])  # ties are never split
    accuracy = right[cut] / max(1, len(cue))
    return float(max(accuracy.max(), 1 - accuracy.min()))


def accuracies(pairs: pd.DataFrame, nouns: Collection[str] = ()) -> pd.Series:
    """For each cue, the best accuracy it alone can reach on these pairs."""
    label = pairs["label"].to_numpy()
    found = {
        name: best_accuracy(cue.to_numpy(), label) for name, cue in table(pairs, nouns).items()
    }
    return pd.Series(found)
