"""A conclusion says what its interval shows, and no more."""

import re

import numpy as np
import pandas as pd
import pytest

from llmft.report import conclusions, sections, stats
from llmft.study import metrics


DRAWS, EXAMPLES = 8, 300


def frame(
    method: str,
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
                    "method": method,
                    "shots": size,
                    "domain": domain,
                    "key": f"{method}-{size}-{domain}-{draw}",
                    "draw": f"{draw}-0-0",
                    "id": [f"{domain}-{i}" for i in range(EXAMPLES)],
                    "label": label,
                    "subcase": [f"s{i % 10}" for i in range(EXAMPLES)],
                    **dict(zip(metrics.LOGP, logp.T, strict=True)),
                }
            )
        )
    return metrics.with_scores(pd.concat(parts, ignore_index=True))


def at(method: str, domain: str = "in-domain") -> dict[str, object]:
    return {"method": method, "shots": 32, "domain": domain}


def answers(
    shares: dict[str, float], domain: str = "in-domain", draws: int = DRAWS
) -> pd.DataFrame:
    parts = [
        frame(method, share, i, domain, draws=draws)
        for i, (method, share) in enumerate(shares.items())
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
            "In-domain, every method given 32 labels is less accurate than a classifier",
        ),
        (
            {"a": 0.8, "b": 0.7},
            "In-domain with 32 labels, no method is shown to be more accurate than",
        ),
        ({"a": 0.95, "b": 0.7}, "In-domain with 32 labels, a is more accurate than a classifier"),
        (
            {"a": 0.95, "b": 0.95},
            "In-domain with 32 labels, a and b are more accurate than a classifier",
        ),
    ],
)
def test_methods_are_held_against_the_classifier(shares: dict[str, float], claim: str) -> None:
    rows = answers({**shares, "cues": 0.8})
    found = conclusions.floors(rows, {w: at(w) for w in shares}, at("cues"), "overlap", 0.89, 6_000)
    assert found.claim.startswith(claim)
    assert "*overlap* is right on 0.89, but was chosen by all 6,000 labels" in found.evidence
    assert numbers(found.evidence)[0] == pytest.approx(0.8, abs=0.03)
    level = 1 - 0.05 / len(shares)
    for method in shares:
        own, cue = (sections.chosen(rows, **at(name)) for name in (method, "cues"))
        gap = stats.difference(own, cue, level=level)
        would = f"; {gap.detectable:.2f} would have been shown" if gap.lo < 0 < gap.hi else ""
        assert f"{gap} ({method}{would})" in found.evidence


# --- which is the best -------------------------------------------------------------------------


def test_a_clear_winner_is_named() -> None:
    rows = answers({"a": 0.9, "b": 0.6, "c": 0.5})
    found = conclusions.best(rows, {w: at(w) for w in "abc"}, "Here")
    assert found.claim == "Here, a is the most accurate method."
    assert "It is above b by 0." in found.evidence
    assert "c by 0." in found.evidence
    assert "Not shown" not in found.evidence


def test_equals_are_not_ranked() -> None:
    rows = answers({"a": 0.8, "b": 0.8})
    found = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here")
    assert re.fullmatch(
        "Here, [ab] has the highest accuracy, and is not shown to differ from any other method.",
        found.claim,
    )
    assert "would have been shown" in found.evidence


def test_a_leader_with_equals_says_with_whom_and_what_would_have_been_shown() -> None:
    rows = answers({"a": 0.8, "b": 0.8, "c": 0.5})
    found = conclusions.best(rows, {w: at(w) for w in "abc"}, "Here")
    first, second = ("a", "b") if "a has the highest" in found.claim else ("b", "a")
    assert found.claim == (
        f"Here, {first} has the highest accuracy, and is not shown to differ from {second}."
    )
    gap = stats.difference(sections.chosen(rows, **at(first)), sections.chosen(rows, **at(second)))
    together = 1 - 0.05 / 3
    wide = stats.difference(
        sections.chosen(rows, **at(first)), sections.chosen(rows, **at(second)), level=together
    )
    assert wide.detectable > gap.detectable
    assert f"{wide.detectable:.2f} would have been shown" in found.evidence


def test_what_is_not_even_handed_is_said_first() -> None:
    rows = answers({"a": 0.9, "b": 0.6})
    found = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here", "a was rehearsed.")
    assert found.limit.startswith("a was rehearsed. Learning rates")
    alone = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here")
    assert alone.limit.startswith("learning rates")


# --- out-of-domain -----------------------------------------------------------------------------


OUT = "out-of-domain"


def test_beyond_chance_goes_by_the_auc() -> None:
    found = conclusions.beyond(answers({"a": 0.5}, OUT), {"a": at("a", OUT)}, "There")
    assert found.claim == "There, no method is shown to rank the pairs better than chance."
    clear = conclusions.beyond(answers({"a": 0.9}, OUT), {"a": at("a", OUT)}, "There")
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
    these = stats.interval(sections.chosen(rows, "auc", **at("a", OUT)))
    new = stats.interval(sections.chosen(rows, "auc", clusters="subcase", **at("a", OUT)))
    assert these.lo > 0.5 > new.lo
    assert found.claim == "There, a ranks the pairs better than chance, on these constructions."
    assert f"and [{new.lo:.2f}, {new.hi:.2f}] (a) for new ones" in found.evidence


def test_what_holds_on_new_constructions_too_is_told_from_what_does_not() -> None:
    rows = frame("a", 0.5, 0, OUT)
    sure = np.where(rows["label"] == 0, 2.0, -2.0)
    first = np.where(rows["subcase"].isin(["s0", "s1"]), sure, rows[metrics.LOGP[0]])
    rows = metrics.with_scores(rows.assign(**{metrics.LOGP[0]: first}))
    both = pd.concat([rows, frame("b", 0.9, 1, OUT)])
    found = conclusions.beyond(both, {w: at(w, OUT) for w in "ab"}, "There")
    assert found.claim == (
        "There, a and b rank the pairs better than chance, on these constructions (on new ones, b "
        "alone)."
    )


def test_a_ranking_below_chance_is_said_and_a_null_has_what_would_have_been_shown() -> None:
    rows = answers({"a": 0.2, "b": 0.5}, OUT)
    found = conclusions.beyond(rows, {w: at(w, OUT) for w in "ab"}, "There")
    assert found.claim == (
        "There, no method is shown to rank the pairs better than chance, and a ranks them worse "
        "than chance."
    )
    null = stats.interval(sections.chosen(rows, "auc", **at("b", OUT)), level=0.975)
    assert f"{null} (b; {0.5 + null.detectable:.2f} would have been shown)" in found.evidence
    assert found.evidence.count("would have been shown") == 1


def test_without_subcases_or_with_one_nothing_is_said_of_new_constructions() -> None:
    rows = answers({"a": 0.9}, OUT)
    for other in (rows.drop(columns="subcase"), rows.assign(subcase=None)):
        found = conclusions.beyond(other, {"a": at("a", OUT)}, "There")
        assert found.claim == "There, a ranks the pairs better than chance."
        assert "construction" not in str(found)
    one = conclusions.beyond(rows.assign(subcase="swap"), {"a": at("a", OUT)}, "There")
    assert one.claim == "There, a ranks the pairs better than chance, on these constructions."
    assert "has no interval for new ones" in one.evidence


def test_no_shift_is_named_that_the_data_may_not_have() -> None:
    found = conclusions.beyond(answers({"a": 0.9}, OUT), {"a": at("a", OUT)}, "There")
    assert not re.search("overlap|HANS|le_|ln_", str(found))


# --- what was learned --------------------------------------------------------------------------


def ruled(left: float, spoken: int = 60, right: float = 0.9, draws: int = DRAWS) -> pd.DataFrame:
    """A method that follows the rule where it speaks, and is right on `left` where it is silent.

    The rule speaks of `spoken` pairs and is right on `right` of those.
    """
    rows = frame("a", left, 0, draws=draws)
    place = rows["id"].str.split("-").str[-1].astype(int)
    speaks = (place % 2 == 1) & (place < 2 * round(spoken * right))  # label 1 at odd places
    speaks |= (place % 2 == 0) & (place < 2 * (spoken - round(spoken * right)))
    rows = rows.assign(follows=1.0, silent=~speaks)
    auc = metrics.with_scores(rows[rows["silent"]])[["key", "id", "auc"]]
    return rows.merge(auc.rename(columns={"auc": "auc_silent"}), how="left", on=["key", "id"])


@pytest.mark.parametrize(
    ("left", "claim"),
    [
        (0.5, "In-domain, no method is shown to use more than whether a negation is there."),
        (0.9, "In-domain, a uses more than whether a negation is there."),
    ],
)
def test_is_more_than_the_rule_learned(left: float, claim: str) -> None:
    rows = ruled(left)
    found = conclusions.rule(rows, {"a": at("a")}, at("a"))
    assert found.claim == claim
    assert "agree with it on 1.00 [1.00, 1.00] (a)." in found.evidence
    assert f"negated in 60 of 300 pairs, of which {stats.wilson(54, 60)} are not" in found.evidence
    one = rows[rows["draw"] == "0-0-0"]
    right = float((one["label"] == (~one["silent"]).astype(int)).mean())
    assert f"is right on {right:.2f} of all pairs" in found.evidence
    auc = stats.interval(sections.chosen(rows[rows["silent"]], "auc_silent", **at("a")))
    would = "" if auc.lo > 0.5 else f"; {0.5 + auc.detectable:.2f} would have been shown"
    assert bool(would) == ("no method" in claim)
    assert f"Among the 240 pairs without negation the AUC is {auc} (a{would})." in found.evidence
    assert found.evidence.endswith(f"The cue classifier's is {auc} there.")


def test_a_rule_that_the_data_do_not_have_is_not_spoken_of() -> None:
    """On pairs without negation, and where a negated hypothesis is as often entailed."""
    none = conclusions.rule(ruled(0.9, 0), {"a": at("a")})
    assert none.claim == "In-domain there is no negation rule to learn."
    for right in (0.5, 0.1):
        chance = conclusions.rule(ruled(0.9, 60, right), {"a": at("a")})
        assert chance.claim == "In-domain, negation is not shown to say anything of the label."
        assert str(stats.wilson(round(60 * right), 60)) in chance.evidence


def test_where_the_rule_leaves_one_label_nothing_more_can_be_seen() -> None:
    rows = ruled(0.9)
    silent = rows["label"] == 0
    found = conclusions.rule(rows.assign(silent=silent, auc_silent=np.nan), {"a": at("a")})
    assert found.claim.startswith("In-domain, these pairs cannot show whether more than")
    assert "All pairs without negation have one label" in found.evidence


# --- LoRA --------------------------------------------------------------------------------------


def sizes(shares: dict[int, tuple[float, float]], scatter: float = 0.01) -> pd.DataFrame:
    """LoRA's and full's accuracy by number of examples."""
    parts = [
        frame(method, share, 10 * size + i, size=size, scatter=scatter)
        for size, pair in shares.items()
        for i, (method, share) in enumerate(zip(("lora", "full"), pair, strict=True))
    ]
    return pd.concat(parts, ignore_index=True)


def test_lora_is_compared_at_every_size() -> None:
    rows = sizes({2: (0.9, 0.6), 8: (0.6, 0.9), 32: (0.985, 0.985), 1024: (0.986, 0.986)})
    found = conclusions.low_rank(rows, at("lora"), at("full"), [2, 8, 32, 1024], (1, 100))
    assert found.claim == (
        "LoRA, with 1.0% of the weights, is more accurate than full fine-tuning with 2 examples, "
        "less accurate than full fine-tuning with 8 examples and equal to full fine-tuning within "
        "0.05 with 32 and 1,024 examples."
    )
    gaps = [
        sections.difference(
            rows, {**at("lora"), "shots": k}, {**at("full"), "shots": k}, level=1 - 0.05 / 4
        )
        for k in (2, 8, 32, 1024)
    ]
    able = sorted(gap.detectable for gap in gaps)
    assert f"would have been shown is {able[0]:.2f} to {able[-1]:.2f}." in found.evidence
    assert f"{gaps[0]} with 2 examples" in found.evidence


def test_an_open_difference_is_not_called_equal() -> None:
    rows = sizes({2: (0.7, 0.7), 32: (0.985, 0.985)}, scatter=0.1)
    alone = conclusions.low_rank(rows, at("lora"), at("full"), [2], (1, 100))
    assert alone.claim.endswith(
        "is not shown to differ from full fine-tuning, nor to equal it within 0.05."
    )
    assert re.search(r"would have been shown is 0\.\d\d\.", alone.evidence)  # one size, one number
    calm = pd.concat([rows[rows["shots"] == 2], sizes({32: (0.985, 0.985)})])
    found = conclusions.low_rank(calm, at("lora"), at("full"), [2, 32], (1, 100))
    assert found.claim.endswith(
        "is equal to full fine-tuning within 0.05 with 32 examples; with 2 examples neither a "
        "difference nor equality is shown."
    )


def test_a_small_difference_that_is_shown_is_not_called_equality() -> None:
    rows = sizes({32: (0.97, 0.99)}, scatter=0.001)
    found = conclusions.low_rank(rows, at("lora"), at("full"), [32], (1, 100))
    gap = sections.difference(rows, at("lora"), at("full"))
    assert -0.05 < gap.lo < gap.hi < 0
    assert found.claim.endswith("is less accurate than full fine-tuning with 32 examples.")


# --- distillation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "word"),
    [(0.9, "nearly all"), (0.78, "most"), (0.6, "a part"), (0.4, "not shown to keep")],
)
def test_what_distillation_keeps(student: float, word: str) -> None:
    rows = answers({"student": student, "teacher": 0.9, "start": 0.5})
    found = conclusions.distillation(rows, at("student"), at("teacher"), at("start"), 256)
    assert word in found.claim
    assert "256 unlabelled queries" in found.evidence


def test_without_a_gain_there_is_nothing_to_distil() -> None:
    rows = answers({"student": 0.6, "teacher": 0.6, "start": 0.6})
    found = conclusions.distillation(rows, at("student"), at("teacher"), at("start"), 256)
    assert found.claim == "The context is not shown to give a gain, so there is nothing to distil."
    assert "would have been shown" in found.evidence


@pytest.mark.parametrize(
    ("last", "word"), [(0.5, "spoils"), (0.9, "improves"), (0.7, "not shown to change")]
)
def test_recursion_names_its_conditions(last: float, word: str) -> None:
    rows = answers({"first": 0.7, "last": last})
    change = sections.difference(rows, at("last"), at("first"))
    found = conclusions.recursion(change, 3, 0.002, [1.0, 2.0, 3.0, 2.0, 2.0])
    assert word in found.claim
    for condition in (
        "no anchor to the first teacher",
        "learning rate of 0.002",
        "the context before the query",
    ):
        assert condition in found.claim
    assert "2.00 [" in found.evidence
    assert ("would have been shown" in found.evidence) == ("not shown" in found.claim)


# --- what is forgotten -------------------------------------------------------------------------


def test_perplexity_is_a_geometric_mean_with_an_interval_or_a_range() -> None:
    values = np.log([2.0, 4.0, 8.0, 4.0, 4.0])
    found = stats.t_interval(values)
    assert conclusions.perplexity(values) == (
        f"4.00 [{np.exp(found.lo):.2f}, {np.exp(found.hi):.2f}]"
    )
    assert conclusions.perplexity(values, start=np.log(2)).startswith("2.00 [")
    assert conclusions.perplexity(values[:3]) == "4.00 (3 draws: 2.00 to 8.00)"
    assert conclusions.perplexity([1.0]) == "2.72"
    assert conclusions.perplexity([1.0, 1.0]) == "2.72"
    assert conclusions.perplexity([np.log(127_131.0)]) == "127,000"
    assert conclusions.perplexity([np.log(69.23)]) == "69.2"
    assert conclusions.perplexity([np.log(538.7)]) == "539"


NOISE = np.random.default_rng(0).normal(0, 0.05, (4, 8))
NOISE -= NOISE.mean(axis=1, keepdims=True)


def nll(draws: int = 8, **means: tuple[float, float]) -> dict[tuple[str, str], np.ndarray]:
    """By method: nats without and with the text term."""
    values = [(m, term, at) for m, pair in means.items() for term, at in zip(
        ("without", "with"), pair, strict=True)]  # fmt: skip
    return {(m, term): at + NOISE[i, :draws] for i, (m, term, at) in enumerate(values)}


def test_the_text_term_is_told_from_the_method() -> None:
    found = conclusions.forgetting(nll(distillation=(9, 1.1), full=(5, 1.2)), 1.0)
    assert found.claim == (
        "With the text term, every trained method forgets far less than without it; without it, "
        "distillation as trained here forgets more than full."
    )
    assert found.evidence.index("(full)") < found.evidence.index("(distillation)")
    assert "is 2.72 before training" in found.evidence
    values = nll(distillation=(9, 1.1), full=(5, 1.2))
    assert f"{conclusions.perplexity(values['full', 'without'], 1.0)} (full)" in found.evidence


@pytest.mark.parametrize(
    ("means", "claim"),
    [
        (
            {"full": (5, 1.2), "LoRA": (1.2, 1.2)},
            "With the text term, full forgets far less than without it; no change is shown for "
            "LoRA; without it, full as trained here forgets more than LoRA.",
        ),
        (
            {"full": (1.6, 1.2), "LoRA": (1.6, 1.2)},
            "With the text term, every trained method forgets less than without it.",
        ),
        ({"LoRA": (5, 1.2)}, "With the text term, LoRA forgets far less than without it."),
        ({"LoRA": (1.2, 5)}, "With the text term, LoRA forgets more than without it."),
        ({"LoRA": (1.2, 1.2)}, "The text term is not shown to change how much is forgotten."),
    ],
)
def test_what_the_text_term_does_follows_the_intervals(
    means: dict[str, tuple[float, float]], claim: str
) -> None:
    found = conclusions.forgetting(nll(**means), 1.0)
    assert found.claim == claim
    null = "no change" in claim or "not shown" in claim
    assert ("A change by a factor of" in found.evidence) == null


# --- the luck of the draw, and the price -------------------------------------------------------


def draws_of(shares: list[float], size: int) -> pd.DataFrame:
    """One draw of each accuracy."""
    parts = [
        frame("a", share, i, size=size, draws=1).assign(draw=f"{i}-0-0", key=f"{size} {i}")
        for i, share in enumerate(shares)
    ]
    return pd.concat(parts, ignore_index=True)


def test_luck_counts_failures_and_says_what_goes_with_them() -> None:
    rows = pd.concat([draws_of([0.9] * 5 + [0.5] * 3, 2), frame("a", 0.9, 9, size=128)])
    validity = ([1.0] * 4 + [0.9] + [0.5] * 3, [0.9] * 5 + [0.5, 0.51, 0.5])
    found = conclusions.luck(rows, "a", [2, 128], {8: validity})
    assert found.claim == (
        "With 2 examples a is a lottery: 3 of 8 draws fail; with 8 examples, draws in which the "
        "negation rule holds more often do better."
    )
    assert "With 2 examples 3 of 8 draws fail" in found.evidence
    assert "With 128 examples 0 of 8 draws fail" in found.evidence
    assert f"is {stats.correlation(*validity)} with 8 examples." in found.evidence
    open_ = ([0.5, 1, 0.5, 1, 0.5, 1], [0.7, 0.7, 0.8, 0.8, 0.9, 0.9])
    other = conclusions.luck(rows, "a", [2, 128], {8: open_})
    assert other.claim == "With 2 examples a is a lottery: 3 of 8 draws fail."


def test_one_number_of_examples_is_said_once() -> None:
    found = conclusions.luck(draws_of([0.9] * 6, 2), "a", [2], {})
    assert found.claim == "With 2 examples no draw of a fails."
    assert found.evidence.count("With 2 examples") == 1
    assert "correlation" not in found.evidence
    assert not re.search(r"[,:] +(examples|;|\.)", found.evidence)  # no empty list in a sentence
    all_fail = conclusions.luck(draws_of([0.5] * 6, 2), "a", [2], {})
    assert all_fail.claim == "With 2 examples every draw of a fails."


def test_the_price_of_a_context_has_both_conditions() -> None:
    costs = {
        "ICL": {"tokens": 500.0, "answer": 500.0, "adapt": 0.0, "seconds": 2.0, "training": 0.0},
        "tuned": {
            "tokens": 10.0,
            "answer": 10.0,
            "adapt": 4_900.0,
            "seconds": 1.0,
            "training": 3.0,
        },
    }
    found = conclusions.price(costs, "ICL", "tuned")
    assert "takes 50 times the operations that it takes after tuned" in found.claim
    assert "2.0 times the seconds if the demonstrations are read once" in found.claim
    assert "after 10 answers in operations" in found.evidence
    assert "read once, after 3,000." in found.evidence  # 3 s, a thousandth of a second an answer
    slow = conclusions.price({**costs, "ICL": {**costs["ICL"], "seconds": 1.0}}, "ICL", "tuned")
    assert "read once, never." in slow.evidence
    near = conclusions.price({**costs, "ICL": {**costs["ICL"], "answer": 14.0}}, "ICL", "tuned")
    assert "takes 1.4 times the operations" in near.claim
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


def gap(lo: float, hi: float) -> stats.Interval:
    return stats.Interval((lo + hi) / 2, lo, hi, "two-way t", 5, 300, se=0.01, df=4)


UP, DOWN, OPEN, NONE = gap(0.1, 0.2), gap(-0.2, -0.1), gap(-0.1, 0.1), gap(np.nan, np.nan)


@pytest.mark.parametrize(
    ("inside", "outside", "claim"),
    [
        (
            UP,
            DOWN,
            "Training ranks in-domain pairs better than 32 demonstrations do and ranks "
            "out-of-domain pairs worse than 32 demonstrations do.",
        ),
        (
            UP,
            OPEN,
            "Training ranks in-domain pairs better than 32 demonstrations do and is not shown to "
            "rank out-of-domain pairs differently from 32 demonstrations.",
        ),
        (
            OPEN,
            OPEN,
            "Training is not shown to rank in-domain and out-of-domain pairs differently from 32 "
            "demonstrations.",
        ),
    ],
)
def test_training_is_held_against_showing_in_both_domains(
    inside: stats.Interval, outside: stats.Interval, claim: str
) -> None:
    gaps = {"in-domain": (OPEN, UP, inside), OUT: (UP, DOWN, outside)}
    found = conclusions.contrast(gaps, "32 demonstrations", "training", more=True)
    assert found.claim == claim
    assert found.limit.startswith("training has more labels than 32 demonstrations; ")
    assert f"after training minus that with 32 demonstrations {outside.text}" in found.evidence
    assert found.evidence.endswith("The differences of a domain hold together.")
    same = conclusions.contrast({"in-domain": (UP, UP, UP)}, "a", "b", more=False)
    assert same.claim == "B ranks in-domain pairs better than a do."
    assert "more labels" not in same.limit


def test_with_few_draws_training_is_not_shown_to_differ() -> None:
    few = stats.Interval(0.2, np.nan, np.nan, "two-way t", 4, 300, lowest=0.1, highest=0.3)
    found = conclusions.contrast({"in-domain": (few, few, few)}, "a", "b", more=False)
    assert found.claim == "B is not shown to rank in-domain pairs differently from a."
    assert "hold together" not in found.evidence
    assert found.evidence.endswith("Below 5 draws there is no interval, and nothing is claimed.")


@pytest.mark.parametrize(
    ("gaps", "studies", "where"),
    [
        ([UP, UP], 2, "in both"),
        ([UP, UP, UP], 3, "in all"),
        ([UP, UP], 3, "in s0 and s1"),
        ([UP], 2, "in s0"),
        ([DOWN, DOWN], 2, "the reverse in both"),
        ([OPEN, NONE], 2, "not shown either way"),
        ([UP, OPEN], 2, "in s0; not shown either way in s1"),
        ([UP, DOWN], 2, "in s0; the reverse in s1"),
        ([DOWN, OPEN, UP], 3, "in s2; the reverse in s0; not shown either way in s1"),
    ],
)
def test_where_a_claim_holds(gaps: list[stats.Interval], studies: int, where: str) -> None:
    assert conclusions.holds({f"s{i}": one for i, one in enumerate(gaps)}, studies) == where


# --- too few draws -----------------------------------------------------------------------------


FEW = answers({"a": 0.9, "b": 0.5, "c": 0.8}, draws=4)
FEW_OUT = answers({"a": 0.9, "b": 0.5}, OUT, draws=4)
WHERE = {w: at(w) for w in "ab"}


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        (conclusions.floors(FEW, WHERE, at("c"), "overlap", 0.9, 9), "no method is shown to be"),
        (conclusions.best(FEW, WHERE, "Here"), "not shown to differ from any other method"),
        (
            conclusions.beyond(FEW_OUT, {w: at(w, OUT) for w in "ab"}, "There"),
            "no method is shown to rank the pairs better than chance.",
        ),
        (conclusions.rule(ruled(0.9, draws=4), {"a": at("a")}), "no method is shown to use"),
        (
            conclusions.low_rank(FEW, at("a"), at("b"), [32], (1, 100)),
            "not shown to differ from full fine-tuning, nor to equal it within 0.05.",
        ),
        (
            conclusions.distillation(FEW, at("c"), at("a"), at("b"), 256),
            "gain is kept is not shown.",
        ),
        (
            conclusions.recursion(
                sections.difference(FEW, at("b"), at("a")), 3, 0.1, [1.0, 2, 3, 4]
            ),
            "is not shown to change the student's accuracy.",
        ),
        (
            conclusions.forgetting(nll(4, full=(5, 1.2), LoRA=(9, 1.2)), 1.0),
            "The text term is not shown to change how much is forgotten.",
        ),
    ],
    ids="floors best beyond rule low_rank distillation recursion forgetting".split(),
)
def test_below_five_draws_nothing_is_claimed(found: conclusions.Conclusion, claim: str) -> None:
    """Though the differences are large."""
    assert claim in found.claim
    assert "(4 draws: " in found.evidence
    assert found.evidence.endswith("Below 5 draws there is no interval, and nothing is claimed.")
    assert "–" not in str(found)


def test_with_few_draws_luck_claims_no_correlation() -> None:
    rows = draws_of([0.9, 0.9, 0.5], 2)
    found = conclusions.luck(rows, "a", [2], {2: ([1.0, 1.0, 0.5], [0.9, 0.9, 0.5])})
    assert found.claim == "With 2 examples a is a lottery: 1 of 3 draws fail."
    assert "is 1.00 (3 draws, no interval) with 2 examples." in found.evidence
