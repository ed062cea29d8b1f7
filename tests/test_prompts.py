"""Prompts hold what they should, whole, and end where the label word comes next."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft import UserError
from llmft.prompts import (
    CONTENT_FREE,
    PATTERNS,
    Pattern,
    content_free_queries,
    context,
    encode,
    label_tokens,
    pattern_named,
)


PAIRS = pd.DataFrame(
    {
        "premise": ["The doctor saw the judge .", "The lawyer ran .", "N/A {x}", "The judge ran ."],
        "hypothesis": ["The judge saw the doctor .", "The lawyer ran .", "", "The doctor ran ."],
        "label": [1, 0, 1, 0],
    }
)


def test_the_patterns_are_written_out() -> None:
    shown = {
        name: pattern.fill("P.", "H.") + "|" + "/".join(pattern.verbalizer)
        for name, pattern in PATTERNS.items()
    }
    assert shown == {
        "minimal": "P. H. ?|Yes/No",
        "gpt-3": "P. question: H. Yes or No? answer:|Yes/No",
        "eval-harness": "P. \nQuestion: H. True or False? \nAnswer:|True/False",
    }
    assert not any(pattern.template[-1].isspace() for pattern in PATTERNS.values())


def test_demonstrations_are_in_the_querys_pattern_with_the_scored_words() -> None:
    assert context("minimal", PAIRS[:2]) == (
        "The doctor saw the judge . The judge saw the doctor . ? No\n\n"
        "The lawyer ran . The lawyer ran . ? Yes"
    )
    assert context("minimal", None) == context("minimal", PAIRS[:0]) == ""


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_label_tokens_continue_a_prompt(tiny_tokenizer: Any, name: str) -> None:
    ids = label_tokens(tiny_tokenizer, name)
    assert [tiny_tokenizer.decode([i]) for i in ids] == [
        f" {word}" for word in PATTERNS[name].verbalizer
    ]
    # A demonstration's label word is the token that is scored.
    prompt = encode(tiny_tokenizer, name, PAIRS[1:2], None, 512)[0]
    shown = encode(tiny_tokenizer, name, PAIRS[:1], PAIRS[1:2], 512)[0]
    assert shown[: len(prompt) + 1] == [*prompt, ids[0]]


def test_label_tokens_of_whole_words(word_tokenizer: Any) -> None:
    assert word_tokenizer.convert_ids_to_tokens(label_tokens(word_tokenizer, "minimal")) == [
        "Yes",
        "No",
    ]


@pytest.mark.parametrize(
    ("verbalizer", "line"),
    [
        (("Yes", "Nevertheless"), "'Nevertheless' is .* tokens"),
        (("Yes", "No way"), "'No way' is .* tokens"),
        (("Yes", "Yes"), "one and the same token"),
    ],
)
def test_a_label_word_must_be_one_token_of_its_own(
    tiny_tokenizer: Any, verbalizer: tuple[str, str], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        label_tokens(tiny_tokenizer, Pattern("own", "{premise} {hypothesis} ?", verbalizer))


def test_a_label_word_must_be_known(word_tokenizer: Any) -> None:
    pattern = Pattern("own", "{premise} {hypothesis} ?", ("Yes", "Maybe"))
    with pytest.raises(UserError, match="lacks the label word 'Maybe'"):
        label_tokens(word_tokenizer, pattern)


def test_unknown_pattern_lists_the_known() -> None:
    with pytest.raises(UserError, match="'nli': use one of minimal, gpt-3, eval-harness"):
        pattern_named("nli")


def whole(tokenizer: Any, name: str, queries: Any, demonstrations: Any) -> list[list[int]]:
    """Every prompt's text tokenised as a whole: what `encode` must give."""
    pattern, head = PATTERNS[name], context(name, demonstrations)
    return [
        tokenizer((head + pattern.separator if head else "") + pattern.fill(p, h))["input_ids"]
        for p, h in zip(queries.premise, queries.hypothesis, strict=True)
    ]


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """One that merges anything with anything, also a label word with the separator after it."""
    tokenizer = Tokenizer(models.BPE(unk_token="</s>"))
    text = ["? Yes\n\nThe lawyer", "? No\n\nThe doctor"] * 9
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"])
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="</s>")


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_a_prompt_is_its_text_tokenised_whole(
    tiny_tokenizer: Any, word_tokenizer: Any, name: str, shots: int
) -> None:
    for tokenizer in (tiny_tokenizer, word_tokenizer, merging_tokenizer()):
        found = encode(tokenizer, name, PAIRS, PAIRS[:shots], 512)
        assert found == whole(tokenizer, name, PAIRS, PAIRS[:shots])


def test_the_merging_tokenizer_does_merge_over_the_boundary() -> None:
    tokenizer = merging_tokenizer()  # else the test above would not reach the fallback
    apart = tokenizer("? Yes")["input_ids"] + tokenizer("\n\nThe lawyer")["input_ids"]
    assert tokenizer("? Yes\n\nThe lawyer")["input_ids"] != apart


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=6))
def test_any_text_is_tokenised_whole(tiny_tokenizer: Any, pairs: list[tuple[str, str]]) -> None:
    queries = pd.DataFrame(pairs, columns=["premise", "hypothesis"])
    found = encode(tiny_tokenizer, "minimal", queries, PAIRS, 10_000)
    assert found == whole(tiny_tokenizer, "minimal", queries, PAIRS)


def test_a_prompt_begins_with_bos_and_ends_before_the_answer(tiny_tokenizer: Any) -> None:
    for ids in encode(tiny_tokenizer, "minimal", PAIRS, PAIRS, 512):
        assert ids[0] == 2
        assert ids.count(2) == 1
        assert tiny_tokenizer.decode(ids[-1:]) == " ?"


def test_too_long_is_an_error_and_nothing_is_cut(tiny_tokenizer: Any) -> None:
    longest = max(map(len, encode(tiny_tokenizer, "minimal", PAIRS, PAIRS, 512)))
    assert encode(tiny_tokenizer, "minimal", PAIRS, PAIRS, longest)
    with pytest.raises(UserError, match=f"4 demonstrations has {longest} .* takes {longest - 1} "):
        encode(tiny_tokenizer, "minimal", PAIRS, PAIRS, longest - 1)


LONG = PAIRS.assign(premise=["a", "b " * 800, "c", "d"], id=["t-5", "t-6", "t-7", "t-8"])


@pytest.mark.parametrize(
    ("queries", "demonstrations"),
    [(LONG, None), (LONG, PAIRS[:2]), (PAIRS, LONG[:2])],
    ids=["zero-shot", "query", "demonstration"],
)
def test_a_pair_that_is_too_long_by_itself_is_named(
    tiny_tokenizer: Any, queries: pd.DataFrame, demonstrations: pd.DataFrame | None
) -> None:
    with pytest.raises(UserError, match=r"the pair 't-6' has 1[0-9]+ tokens in") as error:
        encode(tiny_tokenizer, "minimal", queries, demonstrations, 512)
    assert "fewer shots" not in str(error.value)  # they would not help
    assert "shorten or remove the pair" in str(error.value)
    shorter = [
        None if frame is None else frame[frame.get("id", frame.premise) != "t-6"]
        for frame in (queries, demonstrations)
    ]
    assert encode(tiny_tokenizer, "minimal", *shorter, 512)


def test_a_prompt_of_too_many_shots_names_its_query_and_fewer_do(tiny_tokenizer: Any) -> None:
    queries = PAIRS.assign(id=["t-1", "t-2", "t-3", "t-4"])
    with pytest.raises(UserError, match=r"the pair 't-1' with 40 demonst.*: use fewer shots"):
        encode(tiny_tokenizer, "minimal", queries, pd.concat([PAIRS] * 10), 200)
    assert encode(tiny_tokenizer, "minimal", queries, PAIRS, 200)


def test_no_queries(tiny_tokenizer: Any) -> None:
    assert encode(tiny_tokenizer, "minimal", PAIRS[:0], PAIRS, 512) == []
    assert encode(tiny_tokenizer, "minimal", PAIRS[:0], None, 512) == []


def test_content_free_queries(tiny_tokenizer: Any) -> None:
    queries = content_free_queries()
    assert list(queries.premise) == list(queries.hypothesis) == list(CONTENT_FREE)
    assert (queries.label == -1).all()
    assert queries.id.is_unique
    ids = encode(tiny_tokenizer, "minimal", queries, PAIRS, 512)
    assert ids == whole(tiny_tokenizer, "minimal", queries, PAIRS)


def test_opts_own_tokenizer(shared: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "opt" / "tokenizer")
    for name in PATTERNS:
        found = encode(tokenizer, name, PAIRS, PAIRS, 2048)
        assert found == whole(tokenizer, name, PAIRS, PAIRS)
        assert all(ids[0] == 2 and ids.count(2) == 1 for ids in found)
    assert tokenizer.convert_ids_to_tokens(label_tokens(tokenizer, "gpt-3")) == ["ĠYes", "ĠNo"]


def test_the_pocket_tokenizer_reads_every_pattern() -> None:
    from llmft.models import POCKET

    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    for name in PATTERNS:
        label_tokens(tokenizer, name)
        found = encode(tokenizer, name, PAIRS, PAIRS, 512)
        assert found == whole(tokenizer, name, PAIRS, PAIRS)
