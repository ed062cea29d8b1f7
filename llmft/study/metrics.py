"""What label log-probabilities say: accuracy, likelihood, calibration.

Everything starts from one table: a row an example, a column a label, entries log p(label)
normalised over the labels (label 0 = entailment, 1 = not entailment). In a frame the table is the
two columns `LOGP`, beside `label`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata


Floats = npt.NDArray[np.float64]

LOGP = ["logp_entailment", "logp_not"]
"""The columns that hold a prediction, in the order of the labels."""


def _check(logp: Any, labels: Any) -> tuple[Floats, npt.NDArray[np.int64]]:
    table, gold = np.asarray(logp, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or len(table) != len(gold) or len(gold) == 0:
        raise ValueError(f"log-probabilities {table.shape} do not go with {gold.shape} labels")
    if gold.min() < 0 or gold.max() >= table.shape[1]:
        raise ValueError("a label is outside the table: content-free queries have no gold label")
    return table, gold


def correct(logp: Any, labels: Any) -> Floats:
    """1.0 where the likelier label is the gold one, 0.0 elsewhere; (n, labels), (n,) -> (n,).

    A tie counts for the first label, so a model that says nothing is a constant predictor.
    """
    table, gold = _check(logp, labels)
    return np.asarray(table.argmax(1) == gold, dtype=np.float64)


def losses(logp: Any, labels: Any) -> Floats:
    """Negative log-likelihood of the gold label by example, in nats; (n, labels), (n,) -> (n,)."""
    table, gold = _check(logp, labels)
    return np.asarray(-table[np.arange(len(gold)), gold])


def accuracy(logp: Any, labels: Any) -> float:
    """Share of examples whose likelier label is the gold one."""
    return float(correct(logp, labels).mean())


def nll(logp: Any, labels: Any) -> float:
    """Mean negative log-likelihood in nats; log 2 = 0.693 is what p = 1/2 everywhere would get."""
    return float(losses(logp, labels).mean())


def brier(logp: Any, labels: Any) -> float:
    """Mean squared error of p(gold label), in [0, 1]; 0.25 is what p = 1/2 would get (Brier 1950).

    For two labels: (1 - p(gold))^2, half of the sum over both labels.
    """
    return float(((1 - np.exp(-losses(logp, labels))) ** 2).mean())


def reliability(logp: Any, labels: Any, bins: int = 10) -> pd.DataFrame:
    """Confidence against accuracy in bins of confidence, empty bins left out.

    Confidence is the probability of the predicted label; the bins cut its range, [1/labels, 1],
    into equal widths. Columns: confidence, accuracy (means in the bin), n.
    """
    table, gold = _check(logp, labels)
    confidence, right = np.exp(table.max(1)), correct(table, gold)
    low = 1 / table.shape[1]
    bin_of = np.clip(((confidence - low) / (1 - low) * bins).astype(int), 0, bins - 1)
    frame = pd.DataFrame({"bin": bin_of, "confidence": confidence, "accuracy": right})
    groups = frame.groupby("bin")
    return groups.mean().assign(n=groups.size()).reset_index(drop=True)


def ece(logp: Any, labels: Any, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017): mean |accuracy - confidence| of the bins."""
    table = reliability(logp, labels, bins)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["n"]).sum() / table["n"].sum())


def auc_parts(logp: Any, labels: Any) -> Floats:
    """One value an example whose mean is the AUC; (n, 2), (n,) -> (n,).

    The AUC (area under the ROC curve) is how often an entailed pair is ranked above one that is
    not, whatever the threshold. Ties count one half. NaN if all labels are the same.

    In DeLong et al. (1988) an example's part is V, the share of the other label's examples that it
    is ranked rightly against. Here it is AUC + n / n_label (V - AUC), so that the mean over all
    examples has the AUC's own variance when examples vary within their label.
    """
    table, gold = _check(logp, labels)
    score = table[:, 0] - table[:, 1]  # high: entailment, label 0
    first = gold == 0
    n, n0 = len(gold), int(first.sum())
    if n0 in (0, n):
        return np.full(n, np.nan)
    ranks = rankdata(score)
    own = np.empty(n)
    own[first], own[~first] = rankdata(score[first]), rankdata(score[~first])
    below = ranks - own  # of the other label, a tie counts one half
    right = np.where(first, below / (n - n0), 1 - below / n0)
    area = right[first].mean()
    return np.asarray(area + n / np.where(first, n0, n - n0) * (right - area))


def share_entailment(logp: Any) -> float:
    """Share of examples the model calls entailment; 0 or 1 betrays a constant predictor."""
    return float((np.asarray(logp).argmax(1) == 0).mean())


def summary(logp: Any, labels: Any) -> dict[str, Any]:
    """What a run's row says of the answers to a set, and how many there are."""
    return {
        "accuracy": accuracy(logp, labels),
        "nll": nll(logp, labels),
        "brier": brier(logp, labels),
        "ece": ece(logp, labels),
        "share_entailment": share_entailment(logp),
        "n": len(labels),
    }


def calibrate(logp: Any, content_free: Any) -> Floats:
    """Contextual calibration (Zhao et al. 2021, arXiv:2102.09690): divide by the prompt's own bias.

    `logp` (n, labels) are the queries' log-probabilities, `content_free` (m, labels) those of
    queries without content after the same demonstrations. The probability of each label is divided
    by its mean over those, and the result normalised again (the paper's W = diag(p_cf)^-1, b = 0).
    With the queries' own log-probabilities in their place it is batch calibration (Zhou et al.
    2023, arXiv:2309.17249), which needs labels that are about balanced. Returns (n, labels).
    """
    table, blank = np.asarray(logp, np.float64), np.atleast_2d(np.asarray(content_free, np.float64))
    bias = np.log(np.exp(blank).mean(0))
    logp = table - bias
    return np.asarray(logp - np.logaddexp.reduce(logp, axis=1, keepdims=True))


def with_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """The frame with the scores of each prediction: `correct` (0/1), `nll` (nats) and `auc`.

    `auc` is the prediction's part of its run's AUC in its domain (`auc_parts`). Content-free
    queries, which have no gold label, are left out.
    """
    scored = predictions[predictions["domain"] != "content-free"]
    logp, labels = scored[LOGP].to_numpy(), scored["label"].to_numpy()
    parts = np.empty(len(scored))
    for rows in scored.groupby(["key", "domain"], sort=False).indices.values():
        parts[rows] = auc_parts(logp[rows], labels[rows])
    return scored.assign(correct=correct(logp, labels), nll=losses(logp, labels), auc=parts)


def threshold(logp: Any, labels: Any) -> float:
    """The log-odds of entailment above which calling entailed is right most often; (n, 2), (n,).

    Of several that are equally good, the median. It lies half way between two examples' log-odds.
    """
    table, gold = _check(logp, labels)
    odds = table[:, 0] - table[:, 1]
    order = np.argsort(odds, kind="stable")
    # Calling the k lowest not entailed is right on those of them with label 1, and label 0 above.
    right = np.concatenate([[0], np.cumsum(np.where(gold[order] == 1, 1, -1))])
    ends = np.concatenate([[odds[order[0]] - 1], odds[order], [odds[order[-1]] + 1]])
    right[1:-1][np.diff(odds[order]) == 0] = right.min() - 1  # between equal ones there is no place
    best = np.flatnonzero(right == right.max())
    at = best[len(best) // 2]
    return float((ends[at] + ends[at + 1]) / 2)


CORRECTIONS = ("none", "contextual", "batch", "threshold")
"""What may be done about a lean to one label: nothing; dividing by the label probabilities of
content-free queries, or by the mean of all queries; a threshold fitted on labelled pairs."""


def with_corrections(predictions: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    """The test predictions under each of `CORRECTIONS`, in the column `correction`.

    `validation` is what the same runs predict for labelled validation pairs; its column `of` is the
    key of the run in `predictions`. Runs without any have no threshold.
    """
    fitted = {
        key: threshold(part[LOGP].to_numpy(), part["label"].to_numpy())
        for key, part in validation.groupby("of", sort=False)
    }
    parts = []
    for key, run in predictions.groupby("key", sort=False):
        blank = run["domain"] == "content-free"
        for _, part in run[~blank].groupby("domain", sort=False):
            logp = part[LOGP].to_numpy(np.float64)
            found = {
                "none": logp,
                "contextual": calibrate(logp, run.loc[blank, LOGP].to_numpy()),
                "batch": calibrate(logp, logp),
            }
            if key in fitted:
                found["threshold"] = calibrate(logp, [[fitted[key], 0.0]])
            for name, values in found.items():
                new = pd.DataFrame(values.astype(np.float32), part.index, LOGP)
                parts.append(part.assign(correction=name, **new))
    return pd.concat(parts, ignore_index=True)
