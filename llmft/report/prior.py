"""The earlier study's published numbers, and what follows from them alone.

It measured six methods of adapting OPT-125m and OPT-350m on 50 pairs of MultiNLI and 50 of HANS,
and published a row a run: accuracy, loss, time and memory, no predictions of single pairs
(`data/prior/`, with the source). Its repeats were all scored on the same 50 pairs, so ten repeats
are not 500 pairs. Where it read the prediction from generated text, its "loss" depends on counts
alone, and can be solved for them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from llmft import ROOT
from llmft.nli.tasks import DOMAINS
from llmft.report import stats


FOLDER = "data/prior"
"""Where the published files are; a chapter that reads them says it, so that its stamp has them."""

EXAMPLES = 50
"""Pairs a domain; `read` holds the published rates and accuracies to it."""

METHODS = {
    "zeroshot": "zero-shot",
    "icl": "ICL",
    "fewshot": "full",
    "fewshot_lora": "LoRA",
    "context_distillation": "distilled",
    "recursive_context_distillation": "recursive",
}
"""The published names of the methods, and ours."""

FROM_TEXT = ("zero-shot", "ICL", "distilled", "recursive")
"""Methods whose prediction was read from generated text: 0 for "Yes" (entailment), 1 for "No", and
for any other text the wrong label. The others have a classifier's head and a true loss."""

NO = float(np.log1p(np.e))
"""The loss of a wrong 1 there, log(1 + e); a right 1 costs 1 less."""


def read(folder: str = FOLDER) -> pd.DataFrame:
    """The published runs: a row a run and domain.

    Columns: method, model, shots (0 for zero-shot; for distillation the number of queries), repeat
    (from 0), domain, accuracy, loss, seconds and memory (MiB) of its 50 answers, train_loss (mean
    over the epochs, nats), batch, updates; and for `FROM_TEXT` methods what `predictions` finds
    (else missing).
    """
    table = pd.read_csv(ROOT / folder / "combined_metrics.csv")
    table = table.rename(columns={"model_name": "model", "sample_size": "shots"})
    table["method"] = table["finetuning_method"].map(METHODS)
    table.loc[table["method"] == "zero-shot", "shots"] = 0  # it gives the evaluation pairs there
    table["repeat"] = table.groupby(["method", "model", "shots"]).cumcount()
    table["batch"] = table["train_samples_per_second"] / table["train_steps_per_second"]
    table["updates"] = table["train_steps_per_second"] * table["train_runtime"]
    parts = []
    for domain, stem in zip(DOMAINS, ("eval_in_", "eval_out_"), strict=True):
        own = table.assign(
            domain=domain,
            accuracy=table[f"{stem}accuracy"],
            loss=table[f"{stem}loss"],
            seconds=table[f"{stem}runtime"],
            memory=table[f"{stem}peak_memory_gb"] * 1024,  # their gigabytes are of 1,024 MiB
        )
        texts = own[own["method"].isin(FROM_TEXT)]
        shares = predictions(texts["loss"], texts["accuracy"])
        parts.append(own.join(shares.set_index(texts.index)))
    columns = "method model shots repeat domain accuracy loss seconds memory train_loss batch"
    order = {name: i for i, name in enumerate(METHODS.values())}
    runs = pd.concat(parts, ignore_index=True)
    runs = runs.sort_values("method", key=lambda names: names.map(order), kind="stable")
    return runs[[*columns.split(), "updates", *shares.columns]].reset_index(drop=True)


def histories(folder: str = FOLDER) -> pd.DataFrame:
    """The published training histories of the two methods that train from labels.

    Columns: method, model, shots, repeat, epoch (1 to 40), train_loss (of the step, not the epoch,
    of that number), val_loss (nats).
    """
    parts = []
    for name in ("fewshot", "fewshot_lora"):
        table = pd.read_csv(ROOT / folder / f"{name}_history.csv")
        table = table.rename(columns={"model_name": "model", "sample_size": "shots"})
        table["repeat"] = table.groupby(["model", "shots", "epoch"]).cumcount()
        parts.append(table.assign(method=METHODS[name]))
    return pd.concat(parts, ignore_index=True)


# --- what the loss of a hard prediction says ----------------------------------------------------


def hard_losses(predictions: Any, labels: Any) -> stats.Floats:
    """The earlier study's loss of generated answers: 0 or 1 taken for the logit of label 1.

    `predictions`, `labels`: (n,) zeros and ones. A prediction x costs softplus(x) - x * label nats:
    ln 2 for a 0, right or wrong; 0.313 for a right 1; 1.313 for a wrong 1. Returns (n,).
    """
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    return np.asarray(np.logaddexp(0, x) - x * y)


def predictions(losses: Any, accuracies: Any) -> pd.DataFrame:
    """What a model predicted for 50 pairs, solved from its mean of `hard_losses` and its accuracy.

    A loss is (z ln 2 + (n - z) log(1 + e) - r) / n for z predictions of 0 and r right ones of 1,
    n = 50. No other whole numbers z, r come within 0.005 / n of it; 2e-4 / n is allowed for
    rounding.

    Returns:
        A row a run: share_entailment (of predictions 0), entailed (share of true labels 0), both
        of n, and kind: "constant" (one label for all pairs), "always wrong" (as text that is no
        answer was counted), or "".

    Raises:
        ValueError: a loss or an accuracy that no predictions give.
    """
    n, rows = EXAMPLES, []
    zeros = np.arange(n + 1)
    for loss, accuracy in zip(losses, accuracies, strict=True):
        ones_right = zeros * np.log(2) + (n - zeros) * NO - n * loss
        whole = np.round(ones_right)
        fits = (np.abs(ones_right - whole) < 2e-4) & (whole >= 0) & (whole <= n - zeros)
        if fits.sum() != 1:
            raise ValueError(f"no predictions of {n} pairs have the loss {loss}")
        z, right = int(zeros[fits][0]), int(whole[fits][0])
        zeros_right = round(accuracy * n) - right
        if not 0 <= zeros_right <= z:
            raise ValueError(f"no predictions have the loss {loss} and the accuracy {accuracy}")
        kind = "constant" if z in (0, n) else "always wrong" if not accuracy else ""
        true_zeros = zeros_right + n - z - right
        rows.append({"share_entailment": z / n, "entailed": true_zeros / n, "kind": kind})
    return pd.DataFrame(rows, columns=["share_entailment", "entailed", "kind"])


# --- what repeats on the same pairs are worth --------------------------------------------------


def interval(accuracies: Any) -> stats.Interval:
    """Interval of the mean accuracy of repeats that were all scored on the same 50 pairs.

    The mean's variance has a part of the pairs and a part of the repeats. Without the predictions
    of single pairs the first is unknown: it is at most p(1 - p) / 50, as if all repeats
    predicted alike. The second is estimated from the repeats. Wilson's interval, with the effective
    number of examples that has both (Kish 1965), is then never too narrow; that number is at most
    50, however many the repeats. For one run it is Wilson's own.
    """
    runs = np.asarray(accuracies, dtype=np.float64)
    p, draws = float(runs.mean()), len(runs)
    of_pairs = p * (1 - p) / EXAMPLES
    of_draws = float(runs.var(ddof=1)) / draws if draws > 1 else 0.0
    effective = EXAMPLES * of_pairs / (of_pairs + of_draws) if of_pairs else EXAMPLES
    wilson = stats.wilson(p * effective, effective)
    if draws == 1:
        return replace(wilson, examples=EXAMPLES)
    recipe = "Wilson, widest for repeats on the same pairs"
    return replace(wilson, recipe=recipe, draws=draws, examples=EXAMPLES)


def summary(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The `interval` of accuracy in each group: columns of `by`, then an Interval's fields."""
    return stats.by_group(runs, by, lambda part: interval(part["accuracy"]))


QUANTITIES = ("accuracy", "loss (NLL, nats)", "time to answer (s)", "peak memory (MiB)")
"""What it compared, and its figure's four panels."""


def quantities(runs: pd.DataFrame) -> pd.DataFrame:
    """The published runs of one model, a row a method, size, domain and quantity.

    Columns: method, shots, domain, quantity, mean, and for accuracy an Interval's fields. The loss
    is that of the methods that have one: not of hard predictions.
    """
    by = ["method", "shots", "domain"]
    true = runs.assign(loss=runs["loss"].mask(runs["method"].isin(FROM_TEXT)))
    means = true.groupby(by, sort=False)[["loss", "seconds", "memory"]].mean().reset_index()
    parts = [summary(runs, by).assign(quantity=QUANTITIES[0])]
    for name, column in zip(QUANTITIES[1:], ("loss", "seconds", "memory"), strict=True):
        own = means[[*by, column]].rename(columns={column: "mean"}).dropna()
        parts.append(own.assign(quantity=name))
    return pd.concat(parts, ignore_index=True)
