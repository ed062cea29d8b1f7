"""Surface cues, against values worked out by hand and by brute force."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.nli import cues


def test_words_split_contractions_and_drop_punctuation() -> None:
    assert cues.words("The doctor didn't pay, did he?") == [
        *("the", "doctor", "did", "n't", "pay", "did", "he")
    ]


def test_cues_of_a_pair_by_hand() -> None:
    result = cues.pair_cues(
        "The old doctor was paid by the lawyer.",
        "The lawyer never paid the doctor.",
        {"doctor", "lawyer"},
    )
    assert result == {
        "negation": 1,
        "overlap": 0,
        "share of words": 5 / 6,
        "premise length": 8,
        "hypothesis length": 6,
        "length difference": 2,
        "same last word": 0,
        "premise passive": 1,
        "hypothesis passive": 0,
        "same voice": 0,
        "same first noun": 0,
        "same last noun": 0,
    }


@pytest.mark.parametrize(
    ("sentence", "passive"),
    [
        ("the doctor was never paid by the lawyer", True),
        ("the doctor was near the lawyer", False),
        ("the doctor stood by the lawyer", False),
    ],
)
def test_passive_needs_be_and_by(sentence: str, passive: bool) -> None:
    assert cues.passive(sentence.split()) is passive


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=12))
def test_best_accuracy_is_the_best_of_all_thresholds(pairs: list[tuple[int, int]]) -> None:
    cue, label = (np.array(side) for side in zip(*pairs, strict=True))
    rules = [cue >= t for t in range(6)]
    by_hand = max(max((r == label).mean(), (r != label).mean()) for r in rules)
    assert cues.best_accuracy(cue.astype(float), label) == pytest.approx(by_hand)


def test_accuracies_name_every_cue() -> None:
    pairs = pd.DataFrame(
        {
            "premise": ["A cat sat."] * 4,
            "hypothesis": ["A cat sat.", "A dog sat.", "A cat sat.", "No cat sat."],
            "label": [0, 1, 0, 1],
        }
    )
    result = cues.accuracies(pairs)
    assert result["overlap"] == 1
    assert result["negation"] == 0.75
    assert "same first noun" not in result
