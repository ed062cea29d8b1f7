"""What the chapter on keeping a context counts and says, by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.report import costs, stats
from llmft.report.chapters import keeping
from llmft.report.stats import Interval
from llmft.study import metrics

from .training import tiny


def run(place: str, **changes: Any) -> pd.Series:
    """A run of 1,000 weights, whose queries have 10 tokens, the first 2 of them in common."""
    usual = {
        "place": place,
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


def test_what_each_method_keeps_reads_and_computes() -> None:
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


def price(place: str, make: float, answer: float, **more: Any) -> pd.Series:
    return pd.Series({"place": place, "method": place, "make": make, "answer": answer} | more)


def test_a_method_has_paid_when_its_answers_saved_what_it_cost_more() -> None:
    prompt, cache = price(keeping.PROMPT, 0, 10), price(keeping.CACHE, 8, 2)
    assert keeping.pays_after(price(keeping.PREFIX, 90, 1), prompt) == 10
    assert keeping.pays_after(price(keeping.PREFIX, 90, 1), cache) == 82
    assert keeping.pays_after(price(keeping.PREFIX, 90, 2), cache) == float("inf")
    assert keeping.pays_after(price(keeping.PREFIX, 5, 1), cache) == 0
    assert np.isnan(keeping.pays_after(cache, cache))
    text = keeping._break_even(pd.DataFrame([price(keeping.LORA, 85, 2)]), prompt, cache)
    assert "its cache pays after 1 answer, LoRA after 11 answers" in text
    assert "Against the cache, LoRA never pays." in text


def gap(mean: float, half: float) -> Interval:
    return Interval(mean, mean - half, mean + half, "t", 10, 100, se=half / 2, df=20)


def test_the_smallest_is_shown_to_be_near_the_prompt() -> None:
    cache = price(keeping.CACHE, 8, 2, bytes=10_000)
    own = pd.DataFrame(
        [
            price("open", 0, 0, bytes=100),
            price("near", 0, 0, bytes=2_000),
            price("nearer", 0, 0, bytes=5_000),
        ]
    )
    gaps = {"open": gap(0.0, 0.06), "near": gap(-0.02, 0.02), "nearer": gap(0.0, 0.01)}
    inside = {(name, "in-domain"): one for name, one in gaps.items()}
    text = keeping._smallest(own, inside, cache)
    assert "near takes the fewest bytes: 2 kB, 20.0% of the cache's 10 kB" in text
    text = keeping._smallest(own[:1], inside, cache)
    assert "No trained method has an accuracy shown to be" in text
    text = keeping._against_the_prompt(gaps, "in-domain", {})
    assert "shown to be within 0.05 of the prompt's with near and nearer." in text
    assert (
        "neither to differ from the prompt's nor to be within 0.05 of it with open (a true" in text
    )
    worse = {"open": gap(-0.2, 0.05), "near": gap(0.0, 0.2)}
    text = keeping._against_the_prompt(worse, "in-domain", {})
    assert "shown to be below the prompt's with open." in text
    assert "nor to be within 0.05 of it with near (a true difference of" in text


def test_of_constants_no_equality_is_claimed() -> None:
    gaps = {"flat": gap(0.0, 0.01), "flatter": gap(0.0, 0.06), "near": gap(0.0, 0.01)}
    shares = {"prompt": 0.98, "flat": 0.994, "flatter": 1.0}
    text = keeping._against_the_prompt(gaps, "out-of-domain", shares)
    assert "within 0.05 of the prompt's with near." in text
    assert "the prompt, flat and flatter are nearly constants" in text
    assert "98% to 100% of the pairs" in text
    assert "nor to be within" not in text


def answers(method: str, *runs: list[int]) -> pd.DataFrame:
    """A draw a run, with its answers to pairs of which every second one is not entailed."""
    lines: list[dict[str, Any]] = []
    for draw, labels in enumerate(runs):
        for i, label in enumerate(labels):
            p = 0.2 if label else 0.8
            at = {"method": method, "domain": "out-of-domain", "key": f"{method}{draw}"}
            right = {"draw": str(draw), "label": i % 2, "correct": float(label == i % 2)}
            lines.append(at | right | dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True)))
    return pd.DataFrame(lines)


def test_a_constant_fails_in_every_draw() -> None:
    study = params.study("smoke")
    prompt = answers(keeping.whole(study), [0, 0, 0, 0], [1, 1, 1, 1])
    others = [answers("flat", [0] * 4, [0, 0, 1, 1]), answers("not flat", [0] * 4, [0, 1, 0, 1])]
    shares = keeping.constants(pd.concat([prompt, *others]), study, "out-of-domain")
    assert shares == {keeping.whole(study): 1.0, "flat": 0.75}
    assert keeping.constants(pd.concat(others), study, "out-of-domain") == {}


def test_what_is_forgotten_is_a_ratio_to_the_prompt_with_its_interval() -> None:
    study, nothing = params.study("smoke"), keeping.NOTHING
    prompt, noise = keeping.whole(study), [0.0, 0.1, -0.1, 0.05, -0.05]
    lines: list[dict[str, Any]] = [
        {"place": place, "method": name, "data_seed": seed, "text_nll": nll + step}
        for place, name, nll, of in (
            (keeping.PROMPT, prompt, 2.0, 0.0),
            (keeping.LORA, "LoRA", 3.0, 0.01),
            (keeping.WEIGHTS, "all weights", 2.0, 1.0),
        )
        for seed, step in enumerate(np.array(noise) * of)
    ]
    rows = pd.DataFrame(lines).sample(frac=1, random_state=0)
    logs = keeping.over_prompt(rows, study)
    assert {name: log.mean for name, log in logs.items()} == pytest.approx(
        {"LoRA": 1.0, "all weights": 0.0}
    )
    assert {log.level for log in logs.values()} == {stats.together(2)}
    table = pd.DataFrame({"method": [nothing, prompt], "perplexity": ["7.00", "7.39"]})
    text = keeping._forgetting(rows, table, study)
    assert "7.00 with nothing kept and 7.39 behind the prompt" in text
    assert "2.72 [2.71, 2.72] with LoRA" in text
    assert "1.00 [0.88, 1.13] with all weights (a true ratio of 1.17 either way" in text


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
