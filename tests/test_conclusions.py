"""A conclusion says what its interval shows, and no more."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft.report import conclusions, sections, stats
from llmft.report.stats import Interval
from llmft.study import metrics


DRAWS, EXAMPLES = 8, 300
OUT = "out-of-domain"


def frame(
    method: str,
    share: float,
    seed: int,
    domain: str = "in-domain",
    *,
    draws: int = DRAWS,
    size: int = 32,
    scatter: float = 0.01,
) -> pd.DataFrame:
    """Runs of a method that is right on `share` of the pairs of each label, or nearly."""
    rng = np.random.default_rng(seed)
    label = np.arange(EXAMPLES) % 2
    parts = []
    for draw in range(draws):
        right = rng.random(EXAMPLES) < share + rng.normal(0, scatter)
        answer = np.where(right, label, 1 - label)
        p = np.where(answer == 0, 0.7, 0.3) + rng.normal(0, 0.05, EXAMPLES)
        logp = dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
        pairs = {
            "id": [f"{domain}-{i}" for i in range(EXAMPLES)],
            "label": label,
            "subcase": [f"s{i % 10}" for i in range(EXAMPLES)],
        }
        run = {"method": method, "shots": size, "domain": domain, "draw": f"{draw}-0-0"}
        parts.append(pd.DataFrame({**pairs, **logp}).assign(**run, key=f"{method}-{size}-{draw}"))
    return metrics.with_scores(pd.concat(parts, ignore_index=True))


def at(method: str, domain: str = "in-domain") -> dict[str, Any]:
    return {"method": method, "shots": 32, "domain": domain}


def answers(
    shares: dict[str, float], domain: str = "in-domain", draws: int = DRAWS
) -> pd.DataFrame:
    parts = [
        frame(method, share, i, domain, draws=draws)
        for i, (method, share) in enumerate(shares.items())
    ]
    return pd.concat(parts, ignore_index=True)


def gap(lo: float, hi: float) -> Interval:
    return Interval((lo + hi) / 2, lo, hi, "two-way t", 5, 300, se=0.01, df=4)


UP, DOWN, OPEN, NONE = gap(0.1, 0.2), gap(-0.2, -0.1), gap(-0.1, 0.1), gap(np.nan, np.nan)


def test_what_an_interval_shows() -> None:
    every = {"up": UP, "down": DOWN, "open": OPEN, "none": NONE}
    words = [conclusions.verdict(one, "up", "down", "else") for one in every.values()]
    assert words == ["up", "down", "else", "else"]
    assert conclusions.sides(every) == (["up"], ["down"], ["open", "none"])
    assert conclusions.sides(every, 0.3)[1] == ["up", "down", "open"]


# --- accuracy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "claim"),
    [
        (0.6, 0.7, "In-domain, every method given 32 labels is less accurate than a classifier"),
        (0.8, 0.7, "In-domain with 32 labels, no method is shown to be more accurate than"),
        (0.95, 0.7, "In-domain with 32 labels, a is more accurate than a classifier"),
        (0.95, 0.95, "In-domain with 32 labels, a and b are more accurate than a classifier"),
    ],
)
def test_methods_are_held_against_the_classifier(a: float, b: float, claim: str) -> None:
    rows = answers({"a": a, "b": b, "cues": 0.8})
    found = conclusions.floors(rows, {w: at(w) for w in "ab"}, at("cues"), "overlap", 0.89, 6_000)
    assert found.claim.startswith(claim)
    who = {(0.95, 0.7): "a beats", (0.95, 0.95): "a and b beat"}.get(
        (a, b), "no method is shown to beat"
    )
    assert found.answer == f"with 32 labels {who} a small classifier on surface cues"
    assert "*overlap* is right on 0.89, but all 6,000 labels of the" in found.evidence
    own = sections.chosen(rows, **at("cues"))
    assert f"The classifier has {stats.interval(own).text}" in found.evidence
    for method in "ab":
        for value in ("correct", "auc"):
            one, other = (sections.chosen(rows, value, **at(name)) for name in (method, "cues"))
            apart = stats.difference(one, other, level=1 - 0.05 / 4)
            null = apart.lo < 0 < apart.hi
            would = f"; {apart.detectable:.2f} would have been shown" if null else ""
            assert f"{apart} ({method}{would})" in found.evidence


@pytest.mark.parametrize(
    ("shares", "claim"),
    [
        ({"a": 0.9, "b": 0.6, "c": 0.5}, "Here, a is the most accurate method."),
        (
            {"a": 0.8, "b": 0.8},
            "Here, [ab] has the highest accuracy, and is not shown to differ from any other "
            "method.",
        ),
        (
            {"a": 0.8, "b": 0.8, "c": 0.5},
            "Here, [ab] has the highest accuracy, and is not shown to differ from [ab].",
        ),
    ],
)
def test_the_best_is_named_with_its_equals(shares: dict[str, float], claim: str) -> None:
    rows = answers(shares)
    found = conclusions.best(rows, {w: at(w) for w in shares}, "Here")
    assert re.fullmatch(claim, found.claim)
    assert ("It is above" in found.evidence) == ("c" in shares)
    assert ("would have been shown" in found.evidence) == ("not shown" in claim)
    a, b = (sections.chosen(rows, **at(w)) for w in "ab")
    pairs = len(shares) * (len(shares) - 1) / 2
    apart = stats.difference(a, b, level=1 - 0.05 / pairs)  # every two methods are compared
    assert f"{abs(apart.mean):.2f} [" in found.evidence
    if "not shown" in claim:
        assert f"{apart.detectable:.2f} would have been shown" in found.evidence


def test_what_is_not_even_handed_is_said_first() -> None:
    rows, places = answers({"a": 0.9, "b": 0.6}), {w: at(w) for w in "ab"}
    found = conclusions.best(rows, places, "Here", "a was rehearsed.")
    assert found.limit.startswith("a was rehearsed. Learning rates")
    assert conclusions.best(rows, places, "Here").limit.startswith("learning rates")


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
            "rank out-of-domain pairs any differently.",
        ),
        (
            OPEN,
            OPEN,
            "Training is not shown to rank in-domain or out-of-domain pairs differently from 32 "
            "demonstrations.",
        ),
    ],
)
def test_training_is_held_against_showing_in_both_domains(
    inside: Interval, outside: Interval, claim: str
) -> None:
    gaps = {"in-domain": (OPEN, UP, inside), OUT: (UP, DOWN, outside)}
    cues = {"in-domain": OPEN, OUT: DOWN}
    found = conclusions.contrast(gaps, cues, "32 demonstrations", "training", more=True)
    assert found.claim == claim
    beats = "beats" if inside == UP else "is not shown to differ from"
    assert found.answer == f"in-domain, training {beats} 32 demonstrations"
    assert found.limit.startswith("training has more labels than 32 demonstrations; ")
    assert f"minus that with 32 demonstrations {outside}" in found.evidence
    assert f"trained on the same labels {DOWN}" in found.evidence
    assert ("unless a classifier" in found.use) == (inside == UP)
    assert found.evidence.endswith("The differences of a domain hold together.")
    up = {"in-domain": (UP, UP, UP)}
    same = conclusions.contrast(up, {"in-domain": UP}, "a", "b", more=False, rehearsed="A was.")
    assert same.use == "B is worth it where queries are like the training pairs."
    assert same.claim == "B ranks in-domain pairs better than a do."
    assert same.limit == "A was. Another model may differ."


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
        ([DOWN, OPEN, UP], 3, "in s2; the reverse in s0; not shown either way in s1"),
    ],
)
def test_where_a_claim_holds(gaps: list[Interval], studies: int, where: str) -> None:
    assert conclusions.holds({f"s{i}": one for i, one in enumerate(gaps)}, studies) == where


# --- out-of-domain -----------------------------------------------------------------------------


def sure_of(rows: pd.DataFrame, subcases: list[str]) -> pd.DataFrame:
    """The rows, with the pairs of these subcases far apart by their labels."""
    sure = np.where(rows["label"] == 0, 2.0, -2.0)
    first = np.where(rows["subcase"].isin(subcases), sure, rows[metrics.LOGP[0]])
    return metrics.with_scores(rows.assign(**{metrics.LOGP[0]: first}))


def beyond(rows: pd.DataFrame, methods: str = "a") -> conclusions.Conclusion:
    places = {w: at(w, OUT) for w in methods}
    return conclusions.beyond(rows, places, "There", at("a", OUT))


def test_beyond_chance_goes_by_the_auc() -> None:
    null = beyond(answers({"a": 0.5}, OUT))
    assert null.claim == "There, no method is shown to rank the pairs better than chance."
    assert null.answer.endswith(", none is shown to rank the pairs better than chance")
    rows = answers({"a": 0.9}, OUT)
    # All called entailed: a lean to one answer is counted, and does not hide a ranking.
    leaning = metrics.with_scores(rows.assign(**{metrics.LOGP[0]: rows[metrics.LOGP[0]] + 3}))
    assert leaning["correct"].mean() == 0.5
    for one in (rows, leaning):
        assert beyond(one).claim == "There, a ranks the pairs better than chance."
        assert beyond(one).answer.endswith(", a ranks the pairs better than chance")
    assert "a (8 of 8)" in beyond(leaning).evidence
    assert not re.search("overlap|HANS|le_|ln_", str(beyond(rows)))  # of data that may not have it


def test_what_holds_on_these_constructions_is_told_from_what_holds_on_new_ones() -> None:
    rows = sure_of(frame("a", 0.5, 0, OUT), ["s0", "s1"])  # two of ten are ranked right
    found = beyond(rows)
    these = stats.interval(sections.chosen(rows, "auc", **at("a", OUT)))
    new = stats.interval(sections.chosen(rows, "auc", clusters="subcase", **at("a", OUT)))
    assert these.lo > 0.5 > new.lo
    assert found.claim == "There, a ranks the pairs better than chance, on these constructions."
    assert f"and [{new.lo:.2f}, {new.hi:.2f}] (a) for new ones" in found.evidence
    both = beyond(pd.concat([rows, frame("b", 0.9, 1, OUT)]), "ab")
    assert both.claim == (
        "There, a and b rank the pairs better than chance, on these constructions (on new ones, b "
        "alone)."
    )


def test_a_ranking_below_chance_is_said_and_a_null_has_what_would_have_been_shown() -> None:
    rows = answers({"a": 0.2, "b": 0.5}, OUT)
    found = beyond(rows, "ab")
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
        found = beyond(other)
        assert found.claim == "There, a ranks the pairs better than chance."
        assert "construction" not in str(found)
    one = beyond(rows.assign(subcase="swap"))
    assert one.claim == "There, a ranks the pairs better than chance, on these constructions."
    assert "has no interval for new ones" in one.evidence


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


def rule(rows: pd.DataFrame) -> conclusions.Conclusion:
    return conclusions.rule(rows, {"a": at("a")}, at("a"))


@pytest.mark.parametrize(
    ("left", "claim"),
    [
        (0.5, "In-domain, a is not shown to use more than the presence of a negation."),
        (0.9, "In-domain, a uses more than the presence of a negation."),
    ],
)
def test_is_more_than_the_rule_learned(left: float, claim: str) -> None:
    rows = ruled(left)
    found = rule(rows)
    assert found.claim == claim
    assert "agree with it on 1.00 [1.00, 1.00] (a)." in found.evidence
    assert "In 60 of 300 pairs at least one sentence is negated; " in found.evidence
    assert f"{stats.wilson(54, 60)} of these pairs are not entailed" in found.evidence
    one = rows[rows["draw"] == "0-0-0"]
    right = float((one["label"] == (~one["silent"]).astype(int)).mean())
    assert f"is right on {right:.2f} of all pairs" in found.evidence
    auc = stats.interval(sections.chosen(rows[rows["silent"]], "auc_silent", **at("a")))
    would = "" if auc.lo > 0.5 else f"; {0.5 + auc.detectable:.2f} would have been shown"
    assert bool(would) == ("not shown" in claim)
    assert f"Among the 240 pairs without negation the AUC is {auc} (a{would})." in found.evidence
    assert found.evidence.endswith(f"The cue classifier's is {auc} there.")


def test_a_rule_that_the_data_do_not_have_is_not_spoken_of() -> None:
    """On pairs without negation, and where a negated hypothesis is as often entailed."""
    assert rule(ruled(0.9, 0)).claim == "In-domain there is no negation rule to learn."
    for right in (0.5, 0.1):
        chance = rule(ruled(0.9, 60, right))
        assert chance.claim == "In-domain, negation is not shown to say anything of the label."
        assert str(stats.wilson(round(60 * right), 60)) in chance.evidence


def test_where_the_rule_leaves_one_label_nothing_more_can_be_seen() -> None:
    rows = ruled(0.9)
    found = rule(rows.assign(silent=rows["label"] == 0, auc_silent=np.nan))
    assert found.claim.startswith("In-domain, these pairs cannot show whether more than")
    assert "All pairs without negation have one label" in found.evidence


# --- LoRA and distillation ---------------------------------------------------------------------


def lora_beside_full(
    shares: dict[int, tuple[float, float]], scatter: float = 0.01
) -> tuple[conclusions.Conclusion, list[Interval]]:
    """What is concluded of LoRA's and full's accuracy by number of examples, and their gaps."""
    rows = pd.concat(
        frame(method, share, 10 * size + i, size=size, scatter=scatter)
        for size, pair in shares.items()
        for i, (method, share) in enumerate(zip(("lora", "full"), pair, strict=True))
    )
    level = 1 - 0.05 / len(shares)
    gaps = [
        sections.difference(
            rows, {**at("lora"), "shots": k}, {**at("full"), "shots": k}, level=level
        )
        for k in shares
    ]
    return conclusions.low_rank(rows, at("lora"), at("full"), list(shares), 0.01), gaps


def test_lora_is_compared_at_every_size() -> None:
    shares = {2: (0.9, 0.6), 8: (0.6, 0.9), 32: (0.985, 0.985), 1024: (0.986, 0.986)}
    found, gaps = lora_beside_full(shares)
    assert found.evidence.endswith(" The intervals compared here hold together.")
    assert found.claim == (
        "LoRA, with 1.0% of the weights, is more accurate than full fine-tuning with 2 examples, "
        "less accurate than full fine-tuning with 8 examples and equal to full fine-tuning within "
        "0.05 with 32 and 1,024 examples."
    )
    able = sorted(one.detectable for one in gaps)
    assert f"would have been shown is {able[0]:.2f} to {able[-1]:.2f}." in found.evidence
    assert f"{gaps[0]} with 2 examples" in found.evidence


def test_an_open_difference_is_not_called_equal_nor_a_small_one_that_is_shown() -> None:
    alone, _ = lora_beside_full({2: (0.7, 0.7)}, scatter=0.1)
    assert alone.claim.endswith(
        "is not shown to differ from full fine-tuning, nor to equal it within 0.05."
    )
    assert re.search(r"would have been shown is 0\.\d\d\.", alone.evidence)  # one size, one number
    found, _ = lora_beside_full({2: (0.7, 0.7), 32: (0.985, 0.985)})
    assert found.claim.endswith(
        "is equal to full fine-tuning within 0.05 with 32 examples; with 2 examples neither a "
        "difference nor equality is shown."
    )
    small, (apart,) = lora_beside_full({32: (0.97, 0.99)}, scatter=0.001)
    assert -0.05 < apart.lo < apart.hi < 0
    assert small.claim.endswith("is less accurate than full fine-tuning with 32 examples.")


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        (0.9, 0.9, ["nearly all", "256 unlabelled queries"]),
        (0.78, 0.9, ["most", "256 unlabelled queries"]),
        (0.6, 0.9, ["a part", "256 unlabelled queries"]),
        (0.4, 0.9, ["not shown to keep", "256 unlabelled queries"]),
        (0.5, 0.5, ["not shown to give a gain, so there is nothing", "would have been shown"]),
    ],
)
def test_what_distillation_keeps(student: float, teacher: float, words: list[str]) -> None:
    rows = answers({"student": student, "teacher": teacher, "start": 0.5})
    found = conclusions.distillation(rows, at("student"), at("teacher"), at("start"), 256)
    assert [word for word in words if word not in str(found)] == []


@pytest.mark.parametrize(
    ("change", "word"), [(DOWN, "spoils"), (UP, "improves"), (OPEN, "not shown to change")]
)
def test_recursion_names_its_conditions(change: Interval, word: str) -> None:
    found = conclusions.recursion(change, 3, 0.002, [1.0, 2.0, 3.0, 2.0, 2.0])
    for part in (
        word,
        "no anchor to the first teacher",
        "learning rate of 0.002",
        "the context before the query",
    ):
        assert part in found.claim
    assert "2.00 [" in found.evidence
    assert ("would have been shown" in found.evidence) == (change is OPEN)


# --- what is forgotten -------------------------------------------------------------------------


def test_perplexity_is_a_geometric_mean_with_an_interval_or_a_range() -> None:
    values = np.log([2.0, 4.0, 8.0, 4.0, 4.0])
    found = stats.t_interval(values)
    assert conclusions.perplexity(values) == (
        f"4.00 [{np.exp(found.lo):.2f}, {np.exp(found.hi):.2f}]"
    )
    assert conclusions.perplexity(values, start=np.log(2)).startswith("2.00 [")
    assert conclusions.perplexity(values[:3]) == "4.00 (3 draws: 2.00 to 8.00)"
    for nats, text in ((1.0, "2.72"), (np.log(69.23), "69.2"), (np.log(538.7), "539")):
        assert conclusions.perplexity([nats]) == conclusions.perplexity([nats] * 2) == text
    assert conclusions.perplexity([np.log(127_131.0)]) == "127,000"


NOISE = np.random.default_rng(0).normal(0, 0.05, (4, 8))
NOISE -= NOISE.mean(axis=1, keepdims=True)


def forgetting(draws: int = 8, **means: tuple[float, float]) -> conclusions.Conclusion:
    """Of methods by their nats without and with the text term; 1 before training."""
    nll, rows = {}, iter(NOISE)
    for method, pair in means.items():
        for term, mean in zip(("without", "with"), pair, strict=True):
            nll[method, term] = mean + next(rows)[:draws]
    return conclusions.forgetting(nll, 1.0, dict.fromkeys(means, UP))


@pytest.mark.parametrize(
    ("means", "claim"),
    [
        (
            {"distillation": (9, 1.1), "full": (5, 1.2)},
            "With the text term, every trained method forgets far less than without it; without "
            "it, distillation as trained here forgets more than full.",
        ),
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
def test_the_text_term_is_told_from_the_method(
    means: dict[str, tuple[float, float]], claim: str
) -> None:
    found = forgetting(**means)
    assert found.claim == claim
    null = "no change" in claim or "not shown" in claim
    assert ("A change by a factor of" in found.evidence) == null
    assert "is 2.72 before training" in found.evidence
    assert f"It changes in-domain accuracy by {UP} (" in found.evidence
    least = min(means, key=lambda method: means[method][0])
    first = conclusions.perplexity(means[least][0] + NOISE[2 * list(means).index(least)], 1.0)
    assert f"multiplied by {first} ({least})" in found.evidence


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
    found = conclusions.luck(rows, "a", [2, 128], {8: UP})
    assert found.claim == (
        "With 2 examples a is a lottery: 3 of 8 draws fail; with 8 examples, draws in which the "
        "negation rule holds more often do better."
    )
    assert "With 2 examples 3 of 8 draws fail" in found.evidence
    assert "With 128 examples 0 of 8 draws fail" in found.evidence
    assert f"is {UP} with 8 examples." in found.evidence
    for other in (OPEN, stats.correlation([1.0, 1.0, 0.5], [0.9, 0.9, 0.5])):
        found = conclusions.luck(rows, "a", [2, 128], {8: other})
        assert found.claim == "With 2 examples a is a lottery: 3 of 8 draws fail."
    assert "is 1.00 (3 draws, no interval) with 8 examples." in found.evidence


def test_one_number_of_examples_is_said_once() -> None:
    found = conclusions.luck(draws_of([0.9] * 6, 2), "a", [2], {})
    assert found.claim == "With 2 examples no draw of a fails."
    assert found.evidence.count("With 2 examples") == 1
    assert "correlation" not in found.evidence
    all_fail = conclusions.luck(draws_of([0.5] * 6, 2), "a", [2], {})
    assert all_fail.claim == "With 2 examples every draw of a fails."


def test_the_price_of_a_context_has_both_conditions() -> None:
    columns = ["tokens an answer", "answer", "adapt", "1,000 answers (s)", "to adapt (s)"]
    values = {"ICL": [500.0, 500.0, 0.0, 2.0, 0.0], "tuned": [10.0, 10.0, 4_900.0, 1.0, 3.0]}
    costs = pd.DataFrame(values, index=columns).T
    found = conclusions.price(costs, "ICL", "tuned", 16)
    assert "an answer takes 50 times as many operations as after tuned" in found.claim
    assert "If the demonstrations are read once for many queries, it takes 2.0 times" in found.claim
    assert "counted in operations, after 10 answers" in found.evidence
    assert "read once, after 3,000." in found.evidence  # 3 s, a thousandth of a second an answer
    costs.loc["ICL", ["answer", "1,000 answers (s)"]] = 14.0, 1.0
    near = conclusions.price(costs, "ICL", "tuned", 16)
    assert "1.4 times as many operations" in near.claim
    assert "read once, never." in near.evidence


# --- too few draws -----------------------------------------------------------------------------


FEW = answers({"a": 0.9, "b": 0.5, "c": 0.8}, draws=4)
WHERE = {w: at(w) for w in "ab"}
APART = Interval(0.2, np.nan, np.nan, "two-way t", 4, 300, lowest=0.1, highest=0.3)


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        (conclusions.floors(FEW, WHERE, at("c"), "overlap", 0.9, 9), "no method is shown to be"),
        (conclusions.best(FEW, WHERE, "Here"), "not shown to differ from any other method"),
        (
            conclusions.contrast(
                {"in-domain": (APART, APART, APART)}, {"in-domain": APART}, "a", "b", more=False
            ),
            "B is not shown to rank in-domain pairs differently from a.",
        ),
        (
            beyond(answers({"a": 0.9, "b": 0.5}, OUT, draws=4), "ab"),
            "no method is shown to rank the pairs better than chance.",
        ),
        (rule(ruled(0.9, draws=4)), "a is not shown to use"),
        (
            conclusions.low_rank(FEW, at("a"), at("b"), [32], 0.01),
            "not shown to differ from full fine-tuning, nor to equal it within 0.05.",
        ),
        (
            conclusions.distillation(FEW, at("c"), at("a"), at("b"), 256),
            "gain is kept is not shown.",
        ),
        (
            conclusions.recursion(APART, 3, 0.1, [1.0, 2, 3, 4]),
            "is not shown to change the student's accuracy.",
        ),
        (
            forgetting(4, full=(5, 1.2), LoRA=(9, 1.2)),
            "The text term is not shown to change how much is forgotten.",
        ),
    ],
    ids="floors best contrast beyond rule low_rank distillation recursion forgetting".split(),
)
def test_below_five_draws_nothing_is_claimed(found: conclusions.Conclusion, claim: str) -> None:
    """Though the differences are large."""
    assert claim in found.claim
    assert "(4 draws: " in found.evidence
    few = "Below 5 draws there is no interval, and nothing is claimed."
    assert few in found.evidence
    assert "hold together" not in found.evidence
    assert "–" not in str(found)
