"""What needs no language model: a constant, the best single cue, and a small classifier.

A method that does no better than these has not been shown to understand anything. The classifier is
given exactly what a method is given, the same labelled examples of the same draws, and its answers
have the columns of a run's, so it is scored, paired and drawn as every method is.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from llmft import cues, metrics, tasks
from llmft.tasks import Task


CLASSIFIER = "cue classifier"
"""The name of `classifier` in tables and figures."""


def features(pairs: pd.DataFrame, nouns: Collection[str] = ()) -> pd.DataFrame:
    """What the classifier sees: every cue of `cues.table`, and how the two sentences align.

    Returns a row a pair, in the pairs' order, of numbers: none of them needs a parser or a model.
    """
    aligned = [
        alignment(cues.words(p), cues.words(h))
        for p, h in zip(pairs["premise"], pairs["hypothesis"], strict=True)
    ]
    return cues.table(pairs, nouns).join(pd.DataFrame(aligned, index=pairs.index))


def alignment(premise: Sequence[str], hypothesis: Sequence[str]) -> dict[str, float]:
    """How the words of two sentences line up, as numbers (a yes is 1)."""
    known, negated = (
        set(premise),
        [any(w in cues.NEGATIONS for w in s) for s in (premise, hypothesis)],
    )
    joined, part = f" {' '.join(premise)} ", f" {' '.join(hypothesis)} "
    pairs_of = [set(pairwise(s)) for s in (premise, hypothesis)]
    places = [premise.index(w) for w in hypothesis if w in known]
    steps = list(pairwise(places))
    found = {
        "one negated": negated[0] != negated[1],
        "premise negated": negated[0],
        "copied whole": part in joined,
        "share of word pairs": len(pairs_of[0] & pairs_of[1]) / max(1, len(pairs_of[1])),
        "new words": sum(w not in known for w in hypothesis),
        "same first word": premise[:1] == hypothesis[:1],
        "same order": sum(a <= b for a, b in steps) / max(1, len(steps)),
    }
    return {name: float(value) for name, value in found.items()}


def negation_rule(pairs: pd.DataFrame) -> pd.Series:
    """The label by one rule: not entailed (1) where exactly one sentence is negated, else 0.

    The rule is silent, and says "entailed", where none or both are: see `features`' "one negated".
    """
    one = [
        alignment(cues.words(p), cues.words(h))["one negated"]
        for p, h in zip(pairs["premise"], pairs["hypothesis"], strict=True)
    ]
    return pd.Series(one, index=pairs.index).astype(int)


@dataclass(frozen=True)
class Rule:
    """One cue and a threshold: the label is `above` where the cue is larger, else the other."""

    cue: str
    threshold: float
    above: int

    def labels(self, pairs: pd.DataFrame, nouns: Collection[str] = ()) -> pd.Series:
        """The rule's label of each pair, 0 or 1."""
        return (features(pairs, nouns)[self.cue] > self.threshold).map(
            {True: self.above, False: 1 - self.above}
        )


def best_rule(pairs: pd.DataFrame, nouns: Collection[str] = ()) -> Rule:
    """The single cue and threshold that are right most often on `pairs`, the training pool."""
    label = pairs["label"].to_numpy()
    best, rule = -1.0, None
    for name, values in features(pairs, nouns).items():
        for threshold in np.unique(values)[:-1]:
            right = float(((values > threshold).to_numpy() == (label == 1)).mean())
            for above, accuracy in ((1, right), (0, 1 - right)):
                if accuracy > best:
                    best, rule = accuracy, Rule(str(name), float(threshold), above)
    if rule is None:
        return Rule("overlap", 0.0, 0)  # no cue varies: the rule is a constant
    return rule


def floors(task: Task, nouns: Collection[str] = ()) -> pd.DataFrame:
    """Accuracy of the constant predictor and of the best single cue, a row a rule and domain.

    The constant is the training pool's larger label, the cue and its threshold are the training
    pool's best: nothing is chosen on the pairs that are reported. Columns: rule, domain, accuracy,
    n.
    """
    rule = best_rule(task.train, nouns)
    constant = int(task.train["label"].mean() > 0.5)
    lines = []
    for domain, pairs in task.domains.items():
        label = pairs["label"]
        for name, answer in (
            ("constant", pd.Series(constant, index=pairs.index)),
            (f"best cue: {rule.cue}", rule.labels(pairs, nouns)),
        ):
            accuracy = float((answer == label).mean())
            lines.append({"rule": name, "domain": domain, "accuracy": accuracy, "n": len(pairs)})
    return pd.DataFrame(lines)


def classifier(
    task: Task, shots: Sequence[int], seeds: Sequence[int], nouns: Collection[str] = ()
) -> pd.DataFrame:
    """Logistic regression on `features`, trained on the very samples that the methods are given.

    Args:
        task: as the runs have it.
        shots: numbers of labelled examples.
        seeds: of the draws (`tasks.sample`).
        nouns: words that count as nouns, where the task knows them.

    Returns:
        The columns of `runs.predictions` with the fields method, shots and data_seed: a row a
        classifier and pair of both domains, with log-probabilities that are normalised.
    """
    tested = pd.concat(
        [pairs.assign(domain=domain) for domain, pairs in task.domains.items()], ignore_index=True
    )
    seen = features(tested, nouns)
    extra = [column for column in ("heuristic", "subcase") if column in tested]
    of_pool = features(task.train, nouns).set_index(task.train["id"])
    done = []
    for n in shots:
        for seed in seeds:
            drawn = tasks.sample(task.train, n, seed)
            # C = 1, scikit-learn's default: nothing of it was tuned here.
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
            model.fit(of_pool.loc[drawn["id"]], drawn["label"])
            logp: dict[str, Any] = dict(
                zip(metrics.LOGP, model.predict_log_proba(seen).T, strict=True)
            )
            fields: dict[str, Any] = {"method": CLASSIFIER, "shots": n, "data_seed": seed}
            answered = tested[["domain", "id", "label", *extra]]
            done.append(answered.assign(key=f"{CLASSIFIER} {n} {seed}", **logp, **fields))
    return pd.concat(done, ignore_index=True)
