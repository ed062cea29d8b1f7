"""A conclusion says what its interval shows, and no more."""

import re

import numpy as np
import pandas as pd
import pytest

from llmft import conclusions, metrics, report, stats


DRAWS, EXAMPLES = 8, 300


def frame(
    way: str,
    share: float,
    seed: int,
    domain: str = "in-domain",
    *,
    draws: int = DRAWS,
    called: float = 0.5,
    size: int = 32,
    scatter: float = 0.01,
) -> pd.DataFrame:
    """Runs of a method that is right on `share` of the pairs of each label, draws a little apart.

    `called`: the share of draws' answers that lean to entailment: .5 for no lean, 1 for a constant.
    """
    rng = np.random.default_rng(seed)
    label = np.arange(EXAMPLES) % 2
    parts = []
    for draw in range(draws):
        right = rng.random(EXAMPLES) < share + rng.normal(0, scatter)
        answer = np.where(right, label, 1 - label)
        answer = np.where(rng.random(EXAMPLES) < 2 * abs(called - 0.5), int(called < 0.5), answer)
        p = np.where(answer == 0, 0.7, 0.3) + rng.normal(0, 0.05, EXAMPLES)
        logp = np.log(np.stack([p, 1 - p], axis=1))
        parts.append(
            pd.DataFrame(
                {
                    "model": "m",
                    "way": way,
                    "size": size,
                    "domain": domain,
                    "key": f"{way}-{size}-{domain}-{draw}",
                    "draw": f"{draw}-0-0",
                    "id": [f"{domain}-{i}" for i in range(EXAMPLES)],
                    "label": label,
                    "subcase": [f"s{i % 10}" for i in range(EXAMPLES)],
                    **dict(zip(metrics.LOGP, logp.T, strict=True)),
                }
            )
        )
    return metrics.with_scores(pd.concat(parts, ignore_index=True))


def at(way: str, domain: str = "in-domain") -> dict[str, object]:
    return {"way": way, "size": 32, "domain": domain}


def said(shares: dict[str, float], domain: str = "in-domain", draws: int = DRAWS) -> pd.DataFrame:
    parts = [
        frame(way, share, i, domain, draws=draws) for i, (way, share) in enumerate(shares.items())
    ]
    return pd.concat(parts, ignore_index=True)


def numbers(text: str) -> list[float]:
    """Every number with two decimals in a text."""
    return [float(x) for x in re.findall(r"-?\d+\.\d\d", text)]


# --- what needs no model -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "claim"),
    [
        (
            {"a": 0.6, "b": 0.7},
            "In-domain, every method is less accurate than a classifier on surface cues",
        ),
        ({"a": 0.8, "b": 0.7}, "In-domain, no method is shown to be more accurate than"),
        ({"a": 0.95, "b": 0.7}, "In-domain, a is above a classifier on surface cues"),
        ({"a": 0.95, "b": 0.95}, "In-domain, a and b are above a classifier"),
    ],
)
def test_methods_are_held_against_the_classifier(shares: dict[str, float], claim: str) -> None:
    rows = said({**shares, "cues": 0.8})
    found = conclusions.floors(rows, {w: at(w) for w in shares}, at("cues"), "overlap", 0.89)
    assert found.claim.startswith(claim)
    assert "*overlap* alone is right on 0.89" in found.evidence
    assert numbers(found.evidence)[0] == pytest.approx(0.8, abs=0.03)


# --- which is the best -------------------------------------------------------------------------


def test_a_clear_winner_is_named() -> None:
    rows = said({"a": 0.9, "b": 0.6, "c": 0.5})
    found = conclusions.best(rows, {w: at(w) for w in "abc"}, "Here")
    assert found.claim == "Here, a is the most accurate method."
    assert "It is above b by 0." in found.evidence
    assert "c by 0." in found.evidence
    assert "Not shown" not in found.evidence


def test_equals_are_not_ranked() -> None:
    rows = said({"a": 0.8, "b": 0.8})
    found = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here")
    assert found.claim == "Here, no method is shown to be more accurate than another."
    assert "would have been shown" in found.evidence


def test_a_leader_with_equals_says_with_whom_and_what_would_have_been_shown() -> None:
    rows = said({"a": 0.8, "b": 0.8, "c": 0.5})
    found = conclusions.best(rows, {w: at(w) for w in "abc"}, "Here")
    first, second = ("a", "b") if "a has the highest" in found.claim else ("b", "a")
    assert found.claim == (
        f"Here, {first} has the highest accuracy, and is not shown to differ from {second}."
    )
    gap = stats.difference(report.chosen(rows, **at(first)), report.chosen(rows, **at(second)))
    together = 1 - 0.05 / 3
    wide = stats.difference(
        report.chosen(rows, **at(first)), report.chosen(rows, **at(second)), level=together
    )
    assert wide.detectable > gap.detectable
    assert f"{wide.detectable:.2f} would have been shown" in found.evidence


def test_below_five_draws_nothing_is_claimed() -> None:
    rows = said({"a": 0.9, "b": 0.5}, draws=4)
    found = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here")
    assert found.claim == "Here, no method is shown to be more accurate than another."
    assert "4 draws" in found.evidence
    low = conclusions.low_rank(rows.assign(size=32), at("a"), at("b"), [32], (1, 100))
    assert "is not shown to differ" in low.claim


def test_what_is_not_even_handed_is_said_first() -> None:
    rows = said({"a": 0.9, "b": 0.6})
    found = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here", "a was rehearsed.")
    assert found.limit.startswith("a was rehearsed. Learning rates")


# --- out-of-domain -----------------------------------------------------------------------------


OUT = "out-of-domain"


def test_beyond_chance_goes_by_the_auc() -> None:
    found = conclusions.beyond(said({"a": 0.5}, OUT), {"a": at("a", OUT)}, "There")
    assert found.claim == "There, no method is shown to rank the pairs better than chance."
    clear = conclusions.beyond(said({"a": 0.9}, OUT), {"a": at("a", OUT)}, "There")
    assert clear.claim == "There, a ranks the pairs better than chance."


def test_a_lean_to_one_answer_is_counted_and_does_not_hide_a_ranking() -> None:
    rows = frame("a", 0.9, 0, OUT)
    leaning = rows.assign(**{metrics.LOGP[0]: rows[metrics.LOGP[0]] + 3})  # all called entailed
    leaning = metrics.with_scores(leaning)
    assert leaning["correct"].mean() == 0.5
    found = conclusions.beyond(leaning, {"a": at("a", OUT)}, "There")
    assert found.claim == "There, a ranks the pairs better than chance."
    assert "a (8 of 8)" in found.evidence


def test_what_holds_on_these_constructions_alone_says_so() -> None:
    rows = frame("a", 0.5, 0, OUT)
    right = rows["subcase"].isin(["s0", "s1"])  # two constructions are ranked right, eight are not
    sure = np.where(rows["label"] == 0, 2.0, -2.0)
    first = np.where(right, sure, rows[metrics.LOGP[0]])
    rows = metrics.with_scores(rows.assign(**{metrics.LOGP[0]: first}))
    found = conclusions.beyond(rows, {"a": at("a", OUT)}, "There")
    these = stats.interval(report.chosen(rows, "auc", **at("a", OUT)))
    new = stats.interval(report.chosen(rows, "auc", clusters="subcase", **at("a", OUT)))
    assert these.lo > 0.5 > new.lo
    assert found.claim == "There, a ranks the pairs better than chance, on these constructions."
    assert "for other constructions [" in found.evidence


# --- what was learned --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "claim"),
    [
        (0.5, "In-domain, no method is shown to have learned more than one rule, negation."),
        (0.9, "a learned more in-domain than one rule, negation."),
    ],
)
def test_is_more_than_the_rule_learned(left: float, claim: str) -> None:
    rows = frame("a", left, 0).assign(follows=1.0, silent=True)
    rows["auc_silent"] = rows["auc"]
    found = conclusions.rule(rows, {"a": at("a")}, 0.87)
    assert found.claim == claim
    assert "1.00 [1.00, 1.00] (a)" in found.evidence
    assert "right on 0.87" in found.evidence


# --- LoRA --------------------------------------------------------------------------------------


def sizes(shares: dict[int, tuple[float, float]], scatter: float = 0.01) -> pd.DataFrame:
    """LoRA's and full's accuracy by number of examples."""
    parts = [
        frame(way, share, 10 * size + i, size=size, scatter=scatter)
        for size, pair in shares.items()
        for i, (way, share) in enumerate(zip(("lora", "full"), pair, strict=True))
    ]
    return pd.concat(parts, ignore_index=True)


def test_lora_is_compared_at_every_size() -> None:
    rows = sizes({2: (0.9, 0.6), 8: (0.6, 0.9), 32: (0.985, 0.985)})
    found = conclusions.low_rank(rows, at("lora"), at("full"), [2, 8, 32], (1, 100))
    assert found.claim == (
        "LoRA, with 1.0% of the weights, is more accurate than full fine-tuning with 2 examples, "
        "is less accurate than full fine-tuning with 8 examples and is equal to full fine-tuning "
        "within 0.05 with 32 examples."
    )


def test_an_open_difference_is_not_called_equal() -> None:
    rows = sizes({2: (0.7, 0.7), 32: (0.985, 0.985)}, scatter=0.1)
    found = conclusions.low_rank(rows, at("lora"), at("full"), [2], (1, 100))
    assert "is not shown to differ from full fine-tuning." in found.claim
    assert "would have been shown" in found.evidence


# --- distillation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "word"),
    [(0.9, "nearly all"), (0.78, "most"), (0.6, "a part"), (0.4, "not shown to keep")],
)
def test_what_distillation_keeps(student: float, word: str) -> None:
    rows = said({"student": student, "teacher": 0.9, "start": 0.5})
    found = conclusions.kept(rows, at("student"), at("teacher"), at("start"), 256)
    assert word in found.claim
    assert "256 unlabelled queries" in found.evidence


def test_without_a_gain_there_is_nothing_to_distil() -> None:
    rows = said({"student": 0.6, "teacher": 0.6, "start": 0.6})
    found = conclusions.kept(rows, at("student"), at("teacher"), at("start"), 256)
    assert "nothing to distil" in found.claim


@pytest.mark.parametrize(
    ("last", "word"), [(0.5, "spoils"), (0.9, "improves"), (0.7, "not shown to change")]
)
def test_recursion_names_its_conditions(last: float, word: str) -> None:
    rows = said({"first": 0.7, "last": last})
    change = report.difference(rows, at("last"), at("first"))
    found = conclusions.recursion(change, 3, 0.002, [1.0, 2.0, 3.0, 2.0, 2.0])
    assert word in found.claim
    for condition in (
        "without an anchor",
        "learning rate of 0.002",
        "the context before the query",
    ):
        assert condition in found.claim
    assert "2.00 [" in found.evidence


# --- what is forgotten -------------------------------------------------------------------------


def test_perplexity_is_a_geometric_mean_with_an_interval_or_a_range() -> None:
    values = np.log([2.0, 4.0, 8.0, 4.0, 4.0])
    found = stats.t_interval(values)
    assert conclusions.perplexity(values) == (
        f"4.0 [{np.exp(found.lo):.1f}, {np.exp(found.hi):.1f}]"
    )
    assert conclusions.perplexity(values, start=np.log(2)).startswith("2.0 [")
    assert conclusions.perplexity(values[:3]) == "4.0 (3 draws: 2.0 to 8.0)"
    assert conclusions.perplexity([1.0]) == "2.7"
    assert conclusions.perplexity([1.0, 1.0]) == "2.7"
    assert conclusions.perplexity([np.log(127_131.0)]) == "130,000"


def test_the_text_term_is_told_from_the_method() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (4, 8))
    found = conclusions.forgotten(
        {
            ("full", "without"): 5 + noise[0],
            ("full", "with"): 1.2 + noise[1],
            ("distillation", "without"): 9 + noise[2],
            ("distillation", "with"): 1.1 + noise[3],
        },
        1.0,
    )
    assert found.claim.startswith("The text term decides how much is forgotten, with every method")
    assert found.evidence.index("(full)") < found.evidence.index("(distillation)")
    assert "is 2.7 before training" in found.evidence
    some = conclusions.forgotten(
        {
            ("full", "without"): 5 + noise[0],
            ("full", "with"): 1.2 + noise[1],
            ("LoRA", "without"): 1.2 + noise[2],
            ("LoRA", "with"): 1.2 + noise[3],
        },
        1.0,
    )
    assert some.claim == "With the text term, the model keeps more of its language by full."
    none = conclusions.forgotten(
        {("LoRA", "without"): 1.2 + noise[2], ("LoRA", "with"): 1.2 + noise[3]}, 1.0
    )
    assert none.claim == "The text term is not shown to change how much is forgotten."


# --- the luck of the draw, and the price -------------------------------------------------------


def test_luck_counts_failures_and_says_what_goes_with_them() -> None:
    good = [frame("a", 0.9, i, size=2, draws=1).assign(draw=f"{i}-0-0") for i in range(5)]
    bad = [frame("a", 0.5, i, size=2, draws=1).assign(draw=f"{i}-0-0") for i in range(5, 8)]
    few = pd.concat(good + bad).assign(key=lambda f: f["draw"])
    many = frame("a", 0.9, 9, size=128)
    validity = ([1.0] * 4 + [0.9] + [0.5] * 3, [0.9] * 5 + [0.5, 0.51, 0.5])
    found = conclusions.luck(pd.concat([few, many]), "a", [2, 128], {8: validity})
    assert found.claim == (
        "With few examples a is a lottery, and the winning draws are those that show the negation "
        "rule."
    )
    assert "With 2 examples 3 of 8 draws fail" in found.evidence
    assert "with 128, 0 of 8" in found.evidence
    calm = conclusions.luck(many.assign(size=2), "a", [2], {})
    assert calm.claim == "No draw of a fails, even with 2 examples."


def test_the_price_of_a_context_has_both_conditions() -> None:
    costs = {
        "ICL": {"tokens": 500.0, "answer": 500.0, "adapt": 0.0, "seconds": 2.0},
        "tuned": {"tokens": 10.0, "answer": 10.0, "adapt": 4_900.0, "seconds": 1.0},
    }
    found = conclusions.price(costs, "ICL", "tuned")
    assert "50 times as much as with tuned if every prompt is read whole" in found.claim
    assert "2.0 times as much if the demonstrations are read once" in found.claim
    assert "after 10 answers" in found.evidence
    even = conclusions.price({**costs, "ICL": costs["tuned"]}, "ICL", "tuned")
    assert "as cheaply" in even.claim


def test_the_verdict_follows_the_interval() -> None:
    def interval(lo: float, hi: float) -> stats.Interval:
        return stats.Interval((lo + hi) / 2, lo, hi, "t over draws", 5, 0)

    words = [
        conclusions.verdict(interval(*ends), "up", "down", "open")
        for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (np.nan, np.nan))
    ]
    assert words == ["up", "down", "open", "open"]
