"""A trained model knows word order, a random one does not."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import OPTForCausalLM

from llmft.engine import models, sanity
from llmft.engine.scoring import score_plainly
from llmft.nli import prompts, tasks


@pytest.fixture(scope="module")
def pocket() -> models.Model:
    return models.load("pocket", device="cpu")


def test_the_pocket_checkpoint_knows_its_language_and_random_weights_do_not(pocket: Any) -> None:
    torch.manual_seed(0)
    random = dataclasses.replace(pocket, model=OPTForCausalLM(pocket.model.config).eval())
    result = sanity.table([pocket, random], tasks.load("pocket"))
    assert list(result.model) == ["pocket", "pocket"]
    trained, untrained = result.to_dict("records")
    assert trained["difference"] > 3
    assert trained["likelier"] == 1
    assert abs(untrained["difference"]) < 0.2
    assert 0 < untrained["likelier"] < 1
    again = sanity.table([pocket], tasks.load("pocket"))
    pd.testing.assert_frame_equal(again, result.iloc[:1], atol=1e-6)  # repeatable


def test_it_is_the_mean_log_probability_of_a_token(pocket: Any) -> None:
    text = "The tall senator taught the banker."
    ids = list(pocket.tokenizer(text)["input_ids"])
    expected = np.mean(
        [
            score_plainly(pocket.model, [ids[:i]], range(pocket.model.config.vocab_size))[0, ids[i]]
            for i in range(1, len(ids))
        ]
    )
    result = sanity.word_order(pocket, [text])
    assert result["as written"] == pytest.approx(float(expected), abs=1e-4)
    assert result["difference"] == pytest.approx(result["as written"] - result["shuffled"])


def test_the_mark_stays_and_the_words_are_the_same(
    pocket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = []

    def token_ids(tokenizer: Any, texts: list[str]) -> Any:
        sentences.extend(texts)
        return prompts.token_ids(tokenizer, texts)

    monkeypatch.setattr(sanity, "token_ids", token_ids)
    sanity.word_order(pocket, ["Who saw the old cat ?"])
    first, *others = sentences
    assert first == "Who saw the old cat ?"
    assert len(others) == sanity.SHUFFLES
    assert all(text.endswith(" ?") for text in others)
    assert {tuple(sorted(text.split())) for text in others} == {tuple(sorted(first.split()))}
    assert len(set(sentences)) > 2
