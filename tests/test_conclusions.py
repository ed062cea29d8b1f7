"""A conclusion says what its interval shows, and no more."""

import numpy as np
import pandas as pd
import pytest

from llmft import conclusions, stats


DRAWS, EXAMPLES = 8, 300


def frame(way: str, share: float, seed: int, domain: str = "in-domain") -> pd.DataFrame:
    """Runs of a way that is right on `share` of the pairs, the draws a little apart."""
    rng = np.random.default_rng(seed)
    rows = []
    for draw in range(DRAWS):
        right = rng.random(EXAMPLES) < share + rng.normal(0, 0.01)
        rows.append(
            pd.DataFrame(
                {
                    "model": "m",
                    "way": way,
                    "size": 32,
                    "domain": domain,
                    "key": f"{way}-{draw}",
                    "data_seed": draw,
                    "id": [f"{domain}-{i}" for i in range(EXAMPLES)],
                    "correct": right.astype(float),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def at(way: str, domain: str = "in-domain") -> dict[str, object]:
    return {"way": way, "size": 32, "domain": domain}


def said(shares: dict[str, float], domain: str = "in-domain") -> pd.DataFrame:
    parts = [frame(way, share, i, domain) for i, (way, share) in enumerate(shares.items())]
    return pd.concat(parts, ignore_index=True)


def test_a_clear_winner_is_named() -> None:
    rows = said({"a": 0.9, "b": 0.6, "c": 0.5})
    found = conclusions.best(rows, {w: at(w) for w in "abc"}, "Here")
    assert found.claim == "Here, a is the most accurate."
    assert "It is above b by 0." in found.evidence
    assert "c by 0." in found.evidence
    assert "Not shown" not in found.evidence


def test_equals_are_not_ranked() -> None:
    rows = said({"a": 0.8, "b": 0.8})
    found = conclusions.best(rows, {w: at(w) for w in "ab"}, "Here")
    assert found.claim == "Here, no way is shown to be better than another."
    assert "Not shown to differ" in found.evidence


def test_a_leader_with_equals_is_not_called_the_best() -> None:
    rows = said({"a": 0.8, "b": 0.8, "c": 0.5})
    found = conclusions.best(rows, {w: at(w) for w in "abc"}, "Here")
    assert found.claim.startswith("Here, no single way is shown to be the best.")
    assert "c by" in found.evidence.split("Not shown")[0]


def test_pairs_hold_together() -> None:
    rows = said({"a": 0.8, "b": 0.7, "c": 0.6})
    pairs = conclusions.pairwise(rows, {w: at(w) for w in "abc"})
    assert list(zip(pairs["first"], pairs["second"], strict=True)) == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert [i.level for i in pairs["difference"]] == pytest.approx([1 - 0.05 / 3] * 3)
    alone = conclusions.pairwise(rows, {w: at(w) for w in "ab"})["difference"].iloc[0]
    together = pairs["difference"].iloc[0]
    assert together.mean == alone.mean
    assert together.hi - together.lo > alone.hi - alone.lo


@pytest.mark.parametrize(
    ("share", "called", "claim", "constant"),
    [
        (0.5, [0.99, 0.98, 0.4], "no way is shown to be above chance", True),
        (0.5, [1.0, 0.0, 0.0], "no way is shown to be above chance", True),
        (0.5, [0.99, 0.5, 0.5], "no way is shown to be above chance", False),
        (0.8, [0.5, 0.5, 0.6], "a holds above chance", False),
    ],
)
def test_beyond_chance(share: float, called: list[float], claim: str, constant: bool) -> None:
    rows = said({"a": share}, "out-of-domain")
    single = pd.DataFrame([at("a", "out-of-domain") | {"share_entailment": c} for c in called])
    found = conclusions.beyond(rows, single, {"a": at("a", "out-of-domain")}, "There")
    assert claim in found.claim
    assert ("nine in ten pairs one answer" in found.evidence) == constant


@pytest.mark.parametrize(
    ("lora", "full", "word"),
    [
        (0.9, 0.6, "is more accurate"),
        (0.6, 0.9, "falls short"),
        (0.98, 0.98, "equal to within 0.05"),
    ],
)
def test_lora_against_full(lora: float, full: float, word: str) -> None:
    rows = said({"lora": lora, "full": full})
    found = conclusions.low_rank(rows, at("lora"), at("full"), (1, 100))
    assert word in found.claim
    assert "1.0%" in found.claim


def test_an_open_difference_is_not_called_equal() -> None:
    rows = said({"lora": 0.8, "full": 0.8})
    found = conclusions.low_rank(rows, at("lora"), at("full"), (1, 100), margin=0.001)
    assert "not to be told apart" in found.claim


@pytest.mark.parametrize(
    ("student", "word"),
    [(0.9, "nearly all"), (0.78, "most"), (0.6, "a part"), (0.4, "not shown to keep")],
)
def test_what_distillation_keeps(student: float, word: str) -> None:
    rows = said({"student": student, "teacher": 0.9, "start": 0.5})
    found = conclusions.kept(rows, at("student"), at("teacher"), at("start"), 256)
    assert word in found.claim


def test_without_a_gain_there_is_nothing_to_distil() -> None:
    rows = said({"student": 0.6, "teacher": 0.6, "start": 0.6})
    found = conclusions.kept(rows, at("student"), at("teacher"), at("start"), 256)
    assert "nothing to distil" in found.claim


@pytest.mark.parametrize(
    ("last", "word"), [(0.5, "spoils"), (0.9, "improves"), (0.7, "not shown to change")]
)
def test_recursion(last: float, word: str) -> None:
    rows = said({"first": 0.7, "last": last})
    found = conclusions.recursion(rows, at("first"), at("last"), [1.0, 2.0, 3.0], 3)
    assert word in found.claim
    assert "2.00" in found.evidence


def test_the_price_of_a_context() -> None:
    costs = {
        "ICL": {"tokens": 500.0, "answer": 500.0, "adapt": 0.0},
        "tuned": {"tokens": 10.0, "answer": 10.0, "adapt": 4_900.0},
    }
    found = conclusions.price(costs, "ICL", "tuned")
    assert "50 times as much" in found.claim
    assert "after 10 answers" in found.evidence
    even = conclusions.price({**costs, "ICL": costs["tuned"]}, "ICL", "tuned")
    assert "as cheaply" in even.claim


def test_what_is_forgotten_is_said_of_those_that_forget() -> None:
    nll = {"tuned": [3.0, 3.1, 2.9], "distilled": [1.01, 1.0, 0.99], "open": [0.9, 1.2, 1.5]}
    found = conclusions.forgotten(nll, 1.0)
    assert found.claim == "What the model knew of its language suffers by tuned, not by distilled."
    assert "2.7 before" in found.evidence
    assert "7.4 [" in found.evidence
    calm = conclusions.forgotten({"distilled": nll["distilled"]}, 1.0)
    assert calm.claim == "No way is shown to cost the model what it knew."


def test_luck() -> None:
    rows = []
    for size, values in ((2, [0.4, 0.6, 0.8]), (128, [0.85, 0.86, 0.87])):
        rows += [{"way": "a", "size": size, "domain": "in-domain", "accuracy": v} for v in values]
    found = conclusions.luck(pd.DataFrame(rows), "a", [2, 128])
    assert "says little" in found.claim
    assert "from 0.40 to 0.80" in found.evidence
    even = conclusions.luck(pd.DataFrame(rows), "a", [2, 2])
    assert "about equally" in even.claim


def test_the_verdict_follows_the_interval() -> None:
    def interval(lo: float, hi: float) -> stats.Interval:
        return stats.Interval((lo + hi) / 2, lo, hi, "t over draws", 3, 0)

    words = [
        conclusions.verdict(interval(*ends), "up", "down", "open")
        for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))
    ]
    assert words == ["up", "down", "open"]
