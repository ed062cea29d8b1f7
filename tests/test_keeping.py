"""What the chapter on keeping a context counts and says, by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft.report import costs
from llmft.report.chapters import keeping
from llmft.report.stats import Interval

from .training import tiny


def run(way: str, **changes: Any) -> pd.Series:
    """A run of 1,000 weights, whose queries have 10 tokens, the first 2 of them in common."""
    usual = {
        "way": way,
        "parameters": 1_000,
        "trainable_parameters": 1_000,
        "prefix_tokens": 2,
        "query_tokens": 8.0,
        "prefix": 0,
        "queries": 0,
        "train_tokens": 0,
        "teacher_tokens": np.nan,
    }
    return pd.Series(usual | changes)


POSITION, PAIR = 2 * 2 * 2 * 8, 4 * 2 * 4 * 8
"""Of the tiny Llama: two layers, four heads, two for keys and values, of eight numbers each."""


def test_a_position_and_a_pair_of_tokens() -> None:
    assert costs.position(tiny("llama")) == POSITION
    assert costs.position(tiny("opt")) == 2 * 2 * 32
    assert costs.attention(tiny("llama"), 3) == 3 * PAIR


def test_what_each_way_keeps_reads_and_computes() -> None:
    model, context = tiny("llama"), 100.0
    prompt = {"prefix_tokens": 100, "query_tokens": 8.0}
    found = {
        keeping.PROMPT: keeping.price(run(keeping.PROMPT, **prompt), model, context),
        keeping.CACHE: keeping.price(run(keeping.CACHE, **prompt), model, context),
    }
    assert found[keeping.PROMPT] == {
        "positions": 0,
        "bytes": 2 * 100,
        "tokens": 108,
        "answer": 2 * 1_000 * 108 + PAIR * 108 * 54,
        "make": 0,
    }
    assert found[keeping.CACHE] == {
        "positions": 100,
        "bytes": 2 * 100 * POSITION,
        "tokens": 8,
        "answer": 2 * 1_000 * 8 + PAIR * 8 * 104,
        "make": 2 * 1_000 * 100 + PAIR * 100 * 50,
    }
    # A prompt is its cache, made for every answer.
    prompt_answer = found[keeping.CACHE]["make"] + found[keeping.CACHE]["answer"]
    assert found[keeping.PROMPT]["answer"] == prompt_answer


def test_what_training_costs() -> None:
    model, context = tiny("llama"), 100.0
    spent: dict[str, Any] = {"queries": 5, "train_tokens": 50, "teacher_tokens": 140.0}
    teacher = 2 * 1_000 * 140 + PAIR * (100 * 50 + 40 * 105)
    prefix = run(keeping.PREFIX, prefix=6, trainable_parameters=5 * POSITION, **spent)
    found = keeping.price(prefix, model, context)
    assert found["bytes"] == 2 * 6 * POSITION
    assert found["positions"] == 6
    assert found["answer"] == 2 * 1_000 * 10 + PAIR * 10 * 11
    assert found["make"] == teacher + 4 * 1_000 * 50 + 3 * PAIR * 50 * 11
    lora = keeping.price(run(keeping.LORA, trainable_parameters=70, **spent), model, context)
    assert lora["bytes"] == 2 * 70
    assert lora["make"] == teacher + 4 * 1_000 * 50 + 3 * PAIR * 50 * 5
    whole = keeping.price(run(keeping.WEIGHTS, **spent), model, context)
    assert whole["bytes"] == 2 * 1_000
    assert whole["make"] - lora["make"] == 2 * 1_000 * 50
    assert whole["answer"] == 2 * 1_000 * 10 + PAIR * 10 * 5


def priced(way: str, make: float, answer: float, **more: Any) -> pd.Series:
    return pd.Series({"way": way, "method": way, "make": make, "answer": answer} | more)


def test_a_way_has_paid_when_its_answers_saved_what_it_cost_more() -> None:
    prompt, cache = priced(keeping.PROMPT, 0, 10), priced(keeping.CACHE, 8, 2)
    assert keeping.pays_after(priced(keeping.PREFIX, 90, 1), prompt) == 10
    assert keeping.pays_after(priced(keeping.PREFIX, 90, 1), cache) == 82
    assert keeping.pays_after(priced(keeping.PREFIX, 90, 2), cache) == float("inf")
    assert keeping.pays_after(priced(keeping.PREFIX, 5, 1), cache) == 0
    assert np.isnan(keeping.pays_after(cache, cache))
    said = keeping._paying(pd.DataFrame([priced(keeping.LORA, 85, 2)]), prompt, cache)
    assert "its cache pays after 1 answer, LoRA after 11 answers" in said
    assert "Against the cache, LoRA never pays." in said


def gap(mean: float, half: float) -> Interval:
    return Interval(mean, mean - half, mean + half, "t", 10, 100, se=half / 2, df=20)


def test_the_smallest_is_shown_to_be_near_the_prompt() -> None:
    cache = priced(keeping.CACHE, 8, 2, bytes=10_000)
    ways = pd.DataFrame(
        [
            priced("open", 0, 0, bytes=100),
            priced("near", 0, 0, bytes=2_000),
            priced("nearer", 0, 0, bytes=5_000),
        ]
    )
    gaps = {
        ("open", "in-domain"): gap(0.0, 0.06),
        ("near", "in-domain"): gap(-0.02, 0.02),
        ("nearer", "in-domain"): gap(0.0, 0.01),
    }
    assert "near takes the fewest bytes: 2 kB, 20.0% of the cache's 10 kB" in keeping._smallest(
        ways, gaps, cache
    )
    assert "No trained way has an accuracy shown to be" in keeping._smallest(ways[:1], gaps, cache)
    said = keeping._against_the_prompt(gaps, ["open", "near", "nearer"], "in-domain")
    assert "shown to be within 0.05 of the prompt's with near and nearer." in said
    assert (
        "neither to differ from the prompt's nor to be within 0.05 of it with open (a true" in said
    )
    worse = {("open", "in-domain"): gap(-0.2, 0.05), ("near", "in-domain"): gap(0.0, 0.2)}
    said = keeping._against_the_prompt(worse, ["open", "near"], "in-domain")
    assert "shown to be below the prompt's with open." in said
    assert "nor to be within 0.05 of it with near (a true difference of" in said


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"method": keeping.NOTHING}, "nothing kept"),
        ({"method": keeping.PROMPT}, "prompt of 32 shots"),
        ({"method": keeping.PREFIX, "prefix": 16.0}, "prefix of 16"),
        ({"method": keeping.LORA}, "LoRA"),
    ],
)
def test_a_method_is_named_by_what_is_kept(fields: dict[str, Any], name: str) -> None:
    usual = {"shots": 32, "prefix": 0}
    assert keeping._name(pd.Series(usual | fields)) == name
