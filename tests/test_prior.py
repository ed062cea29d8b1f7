"""The earlier study's numbers: the copy is whole, and what is solved from them was predicted."""

import contextlib
import hashlib
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft import ROOT
from llmft.report import prior, stats


def test_the_files_are_those_that_the_readme_names() -> None:
    sums = dict(
        re.findall(
            r"(?m)^\| `(\S+\.csv)` .*`([0-9a-f]{16})`",
            (ROOT / prior.FOLDER / "README.md").read_text(),
        )
    )
    actual = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in (ROOT / prior.FOLDER).glob("*.csv")
    }
    assert sums == actual
    assert len(actual) == 3


def test_every_published_run_is_read() -> None:
    runs = prior.read()
    sizes = runs[runs["domain"] == "in-domain"].groupby("method", sort=False).count()["model"]
    assert sizes.to_dict() == {
        "zero-shot": 2,
        "ICL": 80,
        "full": 80,
        "LoRA": 80,
        "distilled": 4,
        "recursive": 4,
    }
    repeated = runs[runs["method"].isin(["ICL", "full", "LoRA"])]
    assert (
        repeated.groupby(["method", "model", "shots", "domain"])["repeat"].nunique() == 10
    ).all()
    assert set(runs[runs["method"] == "zero-shot"]["shots"]) == {0}


def test_quantities_are_means_over_the_repeats() -> None:
    runs = prior.read()
    found = prior.quantities(runs[runs["model"] == "opt-350m"])
    means = found.set_index(["domain", "quantity", "method", "shots"])["mean"]
    table = pd.read_csv(ROOT / prior.FOLDER / "combined_metrics.csv")
    own = table.query("model_name == 'opt-350m' and finetuning_method == 'fewshot'")
    eight = own[own["sample_size"] == 8].mean(numeric_only=True)
    for domain, stem in (("in-domain", "eval_in"), ("out-of-domain", "eval_out")):
        for quantity, column, unit in (
            ("accuracy", "accuracy", 1),
            ("loss (NLL, nats)", "loss", 1),
            ("time to answer (s)", "runtime", 1),
            ("peak memory (MiB)", "peak_memory_gb", 1024),
        ):
            expected = eight[f"{stem}_{column}"] * unit
            assert means[domain, quantity, "full", 8] == pytest.approx(expected)
    assert {m for _, q, m, _ in means.index if q.startswith("loss")} == {"full", "LoRA"}


def test_all_runs_were_scored_on_pairs_with_the_same_labels() -> None:
    """Solved from each loss by itself, the labels' shares agree: the repeats share their pairs."""
    runs = prior.read()
    shares = runs.dropna(subset="kind").groupby("domain")["entailed"].agg(["min", "max", "size"])
    assert shares.loc["in-domain"].tolist() == [0.5, 0.5, 90]
    assert shares.loc["out-of-domain"].tolist() == [0.46, 0.46, 90]


def test_the_longest_contexts_are_constant_or_always_wrong() -> None:
    runs = prior.read()
    longest = runs[(runs["method"] == "ICL") & (runs["shots"] == 16)]
    assert set(longest["kind"]) == {"constant", "always wrong"}
    assert longest["kind"].value_counts().to_dict() == {"constant": 32, "always wrong": 8}
    trained = runs[runs["method"].isin(["full", "LoRA"])]
    assert trained["kind"].isna().all(), "a true loss says nothing of counts"


def test_histories_hold_forty_epochs_of_every_trained_run() -> None:
    table = prior.histories()
    epochs = table.groupby(["method", "model", "shots", "repeat"]).size()
    assert len(epochs) == 2 * 2 * 4 * 10
    assert (epochs == 40).all()


# --- the loss of hard predictions --------------------------------------------------------------


def test_the_loss_of_a_hard_prediction_in_closed_form() -> None:
    result = prior.hard_losses([0, 0, 1, 1], [0, 1, 1, 0])
    right_one, wrong_one = math.log1p(math.exp(-1)), math.log(1 + math.e)
    assert result == pytest.approx([math.log(2), math.log(2), right_one, wrong_one])


@given(
    st.integers(0, prior.EXAMPLES).flatmap(
        lambda entailed: st.tuples(
            st.just(entailed), st.integers(0, entailed), st.integers(0, prior.EXAMPLES - entailed)
        )
    )
)
def test_predictions_are_found_from_loss_and_accuracy(counts: tuple[int, int, int]) -> None:
    entailed, entailed_called_so, others_called_so = counts
    labels = np.arange(prior.EXAMPLES) >= entailed
    predictions = np.ones(prior.EXAMPLES)
    predictions[:entailed_called_so] = 0
    predictions[entailed : entailed + others_called_so] = 0
    accuracy = float((predictions == labels).mean())
    loss = float(np.float32(prior.hard_losses(predictions, labels).mean()))  # as it was published
    result = prior.predictions([loss], [accuracy]).iloc[0]
    assert result["share_entailment"] == pytest.approx(
        (entailed_called_so + others_called_so) / prior.EXAMPLES
    )
    assert result["entailed"] == pytest.approx(entailed / prior.EXAMPLES)
    if len(set(predictions)) == 1:
        assert result["kind"] == "constant"
    else:
        assert result["kind"] == ("" if accuracy else "always wrong")


def test_a_loss_that_no_predictions_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no predictions of 50 pairs"):
        prior.predictions([0.7], [0.5])
    with pytest.raises(ValueError, match="accuracy"):
        prior.predictions([math.log(2)], [1.2])


# --- repeats on the same pairs -----------------------------------------------------------------


def test_a_true_loss_is_hardly_ever_one_of_hard_predictions() -> None:
    runs = prior.read()
    trained, solved = runs[runs["kind"].isna()], 0
    for loss, accuracy in zip(trained["loss"], trained["accuracy"], strict=True):
        with contextlib.suppress(ValueError):
            solved += len(prior.predictions([loss], [accuracy]))
    assert solved <= 0.01 * len(trained)


def test_one_run_is_wilson() -> None:
    one, wilson = prior.interval([0.54]), stats.wilson(27, 50)
    assert (one.mean, one.lo, one.hi) == pytest.approx((wilson.mean, wilson.lo, wilson.hi))
    assert one.n == "50"


def test_repeats_that_agree_are_worth_one() -> None:
    ten, one = prior.interval([0.54] * 10), prior.interval([0.54])
    assert (ten.lo, ten.hi) == pytest.approx((one.lo, one.hi))
    assert ten.n == "10 × 50"


def test_repeats_that_differ_add_their_variance() -> None:
    """Half at .4 and half at .6: the effective number of pairs in closed form."""
    result = prior.interval([0.4] * 5 + [0.6] * 5)
    of_pairs, of_draws = 0.25 / 50, (0.1**2 * 10 / 9) / 10
    effective = 0.25 / (of_pairs + of_draws)
    wilson = stats.wilson(0.5 * effective, effective)
    assert (result.lo, result.hi) == pytest.approx((wilson.lo, wilson.hi))
    assert result.hi - result.lo > 2 * (stats.wilson(25, 50).hi - 0.5)


def test_extremes_stay_within_shares() -> None:
    assert prior.interval([0.0] * 3).lo == 0
    assert prior.interval([1.0] * 3).hi == 1


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_the_interval_holds_its_level_however_much_repeats_agree(shared: float) -> None:
    """Pairs and repeats drawn anew: the true accuracy lies inside at least 95 % of the time."""
    rng, truth, trials, inside = np.random.default_rng(7), 0.6, 400, 0
    for _ in range(trials):
        common = rng.random((1, 50)) < truth
        own = rng.random((10, 50)) < truth
        same = rng.random((1, 50)) < shared  # pairs on which all repeats answer alike
        interval = prior.interval(np.where(same, common, own).mean(axis=1))
        inside += interval.lo <= truth <= interval.hi
    assert inside / trials >= 0.93  # 0.95 less two standard errors of 400 trials


def test_summary_has_an_interval_for_every_group() -> None:
    runs = prior.read()
    table = prior.summary(runs, ["method", "model", "shots", "domain"])
    assert len(table) == 2 * (2 + 3 * 8 + 4 + 4)
    assert (table["examples"] == 50).all()
    assert (table["hi"] - table["lo"] > 0.25).all(), "no interval is narrower than 50 pairs allow"
