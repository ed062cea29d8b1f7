"""What needs no language model: a constant, the best single cue, and a small classifier.

The classifier learns from the same labelled examples of the same draws as a method, and its
predictions have the columns of a run's, so it is scored, compared and drawn like every method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
import pandas as pd

from llmft.nli import cues, tasks
from llmft.nli.tasks import Task
from llmft.study import metrics


CLASSIFIER = "cue classifier"
"""The name of `classifier` in tables and figures."""

LEAST = float(np.log(np.finfo(np.float64).tiny))
"""The log-probability of what the classifier takes for impossible."""


def features(pairs: pd.DataFrame) -> pd.DataFrame:
    """What the classifier sees of each pair: every cue of `cues.table`, and `alignment`."""
    both = zip(pairs["premise"], pairs["hypothesis"], strict=True)
    return pd.DataFrame([_features(p, h) for p, h in both], index=pairs.index)


@lru_cache(maxsize=200_000)  # a chapter asks for the same pool several times
def _features(premise: str, hypothesis: str) -> dict[str, float]:
    return cues.pair_cues(premise, hypothesis) | alignment(
        cues.words(premise), cues.words(hypothesis)
    )


def alignment(premise: Sequence[str], hypothesis: Sequence[str]) -> dict[str, float]:
    """How the words of two sentences align, as numbers (a yes is 1)."""
    sides = premise, hypothesis
    words = set(premise)
    negation = [any(w in cues.NEGATIONS for w in side) for side in sides]
    pairs_of = [set(pairwise(side)) for side in sides]
    text, part = (f" {' '.join(side)} " for side in sides)
    places = [premise.index(w) for w in hypothesis if w in words]
    steps = list(pairwise(places))
    features = {
        "one negated": negation[0] != negation[1],
        "premise negated": negation[0],
        "copied whole": part in text,
        "share of word pairs": len(pairs_of[0] & pairs_of[1]) / max(1, len(pairs_of[1])),
        "new words": sum(w not in words for w in hypothesis),
        "same first word": premise[:1] == hypothesis[:1],
        "same order": sum(a <= b for a, b in steps) / max(1, len(steps)),
    }
    return {name: float(value) for name, value in features.items()}


def negations(pairs: pd.DataFrame) -> pd.Series:
    """How many of the two sentences of each pair are negated: 0, 1 or 2."""
    table = features(pairs)
    return (table["premise negated"] + table["negation"]).astype(int)


def negation_rule(pairs: pd.DataFrame) -> pd.Series:
    """The label by one rule: not entailed (1) where a sentence is negated, else entailed (0)."""
    return (negations(pairs) > 0).astype(int)


@dataclass(frozen=True)
class Rule:
    """One cue and a threshold: the label is `above` where the cue is larger, else the other."""

    cue: str
    threshold: float
    above: int

    def labels(self, pairs: pd.DataFrame) -> pd.Series:
        """The rule's label of each pair, 0 or 1."""
        is_above = features(pairs)[self.cue] > self.threshold
        return is_above.map({True: self.above, False: 1 - self.above})


def best_rule(pairs: pd.DataFrame) -> Rule:
    """The single cue and threshold that are right most often on `pairs`, the training pool."""
    label = pairs["label"].to_numpy()
    best, rule = -1.0, None
    for name, values in features(pairs).items():
        for threshold in np.unique(values)[:-1]:
            right = float(((values > threshold).to_numpy() == (label == 1)).mean())
            for above, accuracy in ((1, right), (0, 1 - right)):
                if accuracy > best:
                    best, rule = accuracy, Rule(str(name), float(threshold), above)
    if rule is None:
        return Rule("overlap", -np.inf, int(label.mean() > 0.5))  # no cue varies: a constant
    return rule


def floors(task: Task) -> pd.DataFrame:
    """Accuracy of the constant predictor and of the best single cue, a row a rule and domain.

    Both are chosen on the training pool. Columns: rule, domain, accuracy, n.
    """
    rule = best_rule(task.train)
    constant = int(task.train["label"].mean() > 0.5)
    lines = []
    for domain, pairs in task.domains.items():
        for name, prediction in (
            ("constant", constant),
            (f"best cue: {rule.cue}", rule.labels(pairs)),
        ):
            accuracy = float((pairs["label"] == prediction).mean())
            lines.append({"rule": name, "domain": domain, "accuracy": accuracy, "n": len(pairs)})
    return pd.DataFrame(lines)


def classifier(
    task: Task,
    shots: Sequence[int],
    seeds: Sequence[int],
    purity: float = 0.0,
    mixed: float = 0.0,
) -> pd.DataFrame:
    """Logistic regression on `features`, trained on the very samples that the methods learn from.

    `seeds` are of the draws (`tasks.labelled`) of each number of `shots`. Returns the columns of
    `Results.predictions` with the fields method, shots and data_seed: a row a classifier and pair
    of both domains, with normalised log-probabilities.
    """
    # Imported here: no process that runs a model needs them, and they take it half a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    test = pd.concat(
        [pairs.assign(domain=domain) for domain, pairs in task.domains.items()], ignore_index=True
    )
    test_features = features(test)
    pool = pd.concat([task.train, task.mixed])
    pool_features = features(pool).set_index(pool["id"])
    columns = [c for c in ("domain", "id", "label", "heuristic", "subcase") if c in test]
    parts = []
    for n, seed in product(shots, seeds):
        sample = tasks.labelled(task, n, seed, purity, mixed)
        # C = 1, scikit-learn's default: nothing of it was tuned here.
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        model.fit(pool_features.loc[sample["id"]], sample["label"])
        part = test[columns].assign(key=f"{CLASSIFIER} {n} {seed}")
        with np.errstate(divide="ignore"):  # a pair unlike any of the sample has odds beyond floats
            logp = model.predict_log_proba(test_features)
        part[metrics.LOGP] = np.maximum(logp, LEAST)
        parts.append(part.assign(method=CLASSIFIER, shots=n, data_seed=seed))
    return pd.concat(parts, ignore_index=True)
