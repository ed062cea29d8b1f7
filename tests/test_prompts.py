"""Prompts hold what they should, whole, and end where the label word comes next."""

import re
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft import UserError
from llmft.nli.prompts import (
    CONTENT_FREE,
    PATTERNS,
    Pattern,
    content_free_queries,
    context,
    encode,
    label_tokens,
    pattern_named,
    token_ids,
    unknown_share,
)


PAIRS = pd.DataFrame(
    {
        "premise": ["The doctor saw the judge .", "The lawyer ran .", "N/A {x}", "The judge ran ."],
        "hypothesis": ["The judge saw the doctor .", "The lawyer ran .", "", "The doctor ran ."],
        "label": [1, 0, 1, 0],
    }
)
MINIMAL = PATTERNS["minimal"]


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
    assert context(MINIMAL, PAIRS[:2]) == (
        "The doctor saw the judge . The judge saw the doctor . ? No\n\n"
        "The lawyer ran . The lawyer ran . ? Yes"
    )
    assert context(MINIMAL, None) == context(MINIMAL, PAIRS[:0]) == ""


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_label_tokens_continue_a_prompt(tiny_tokenizer: Any, name: str) -> None:
    ids = label_tokens(tiny_tokenizer, PATTERNS[name])
    assert [tiny_tokenizer.decode([i]) for i in ids] == [
        f" {word}" for word in PATTERNS[name].verbalizer
    ]
    # A demonstration's label word is the token that is scored.
    prompt = encode(tiny_tokenizer, PATTERNS[name], PAIRS[1:2], None, 512)[0]
    shown = encode(tiny_tokenizer, PATTERNS[name], PAIRS[:1], PAIRS[1:2], 512)[0]
    assert shown[: len(prompt) + 1] == [*prompt, ids[0]]


def test_label_tokens_of_whole_words(word_tokenizer: Any) -> None:
    assert word_tokenizer.convert_ids_to_tokens(label_tokens(word_tokenizer, MINIMAL)) == [
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
    with pytest.raises(UserError, match="'nli': use one of minimal, gpt-3, eval-harness, or a te"):
        pattern_named("nli")


def test_a_pattern_and_label_words_of_ones_own(tiny_tokenizer: Any) -> None:
    text = "{hypothesis} {{?}}\nfollows from: {premise}:"
    pattern = pattern_named(text, " True ,False")
    assert pattern.verbalizer == ("True", "False")
    assert pattern.fill("A {b}.", "C.") == "C. {?}\nfollows from: A {b}.:"
    assert "\n" not in pattern.name
    assert context(pattern, PAIRS[:1]).endswith((": True", ": False"))
    result = encode(tiny_tokenizer, pattern, PAIRS, PAIRS[:2], 512)
    head = context(pattern, PAIRS[:2]) + "\n\n"
    texts = [
        head + pattern.fill(p, h) for p, h in zip(PAIRS.premise, PAIRS.hypothesis, strict=True)
    ]
    assert result == tiny_tokenizer(texts)["input_ids"]
    assert [tiny_tokenizer.decode([i]) for i in label_tokens(tiny_tokenizer, pattern)] == [
        " True",
        " False",
    ]
    assert pattern_named("gpt-3", "True, False").template == PATTERNS["gpt-3"].template
    assert pattern_named("eval-harness") == PATTERNS["eval-harness"]


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "{premise} so",
        "{premise} {hypothesis} {premise}",
        "{premise} {hypothesis} {label}",
        "{premise} {}",
        "{premise} {0}",
        "{premise.__class__} {hypothesis}",
        "{premise[0]} {hypothesis}",
        "{premise!r} {hypothesis}",
        "{premise:>9} {hypothesis}",
        "{premise:{hypothesis}}",
        "{premise} {hypothesis",
        "{premise} } {hypothesis}",
        "{premise} {hypothesis} ",
        "{premise} {hypothesis}:\n",
    ],
)
def test_a_wrong_pattern_is_one_line(pattern: str) -> None:
    rule = "write {{ for a brace itself|a text with {premise} and {hypothesis}, each once, just so"
    with pytest.raises(UserError, match=rule) as error:
        pattern_named(pattern)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", ["Yes", "Yes,", "Yes, No, Maybe", ", No", "No, No", ","])
def test_a_wrong_verbalizer_is_one_line(words: str) -> None:
    with pytest.raises(UserError, match="give two different words with a comma between them"):
        pattern_named("minimal", words)


def test_label_words_that_would_do_are_proposed_and_do(
    tiny_tokenizer: Any, word_tokenizer: Any
) -> None:
    for tokenizer, words in (
        (tiny_tokenizer, "Nevertheless, No"),
        (tiny_tokenizer, "No way, Yes"),
        (word_tokenizer, "Maybe, No"),
    ):
        with pytest.raises(UserError, match="use a verbalizer of single tokens") as error:
            label_tokens(tokenizer, pattern_named("minimal", words))
        proposed = re.findall("such as '(.*?)'", str(error.value))[0]
        assert len(set(label_tokens(tokenizer, pattern_named("minimal", proposed)))) == 2


def test_the_tokens_of_a_long_label_word_are_named(tiny_tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"'No way' is \d+ tokens .*' No'.*, and must be one"):
        label_tokens(tiny_tokenizer, pattern_named("minimal", "Yes, No way"))


def test_a_label_word_that_merges_with_the_patterns_end_is_its_own_line() -> None:
    pattern = pattern_named("{premise} {hypothesis} ?")
    with pytest.raises(UserError, match="become one token: end the pattern with another character"):
        label_tokens(merging_tokenizer(), pattern)


def test_a_closing_token_is_dropped(tiny_tokenizer: Any) -> None:
    """A prompt ends where it goes on: no `</s>` behind it (F7)."""
    backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    closing = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert closing("The doctor")["input_ids"][-1] == 2
    assert label_tokens(closing, MINIMAL) == label_tokens(tiny_tokenizer, MINIMAL)
    for shots in (0, 2):
        result = encode(closing, MINIMAL, PAIRS, PAIRS[:shots], 512)
        usual = encode(tiny_tokenizer, MINIMAL, PAIRS, PAIRS[:shots], 512)
        assert result == [[0, *ids[1:]] for ids in usual]


def test_a_tokenizer_without_tokens_is_its_own_line() -> None:
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    with pytest.raises(UserError, match="has no tokens for a text: its files are missing"):
        label_tokens(empty, MINIMAL)


@pytest.mark.parametrize("mark", ["</s>", "<s>", "<pad>"])
def test_a_special_token_in_a_text_is_text(tiny_tokenizer: Any, mark: str) -> None:
    queries = PAIRS.assign(premise=f"He typed {mark} twice {mark}.")
    for ids in encode(tiny_tokenizer, MINIMAL, queries, queries[:2], 512):
        assert ids[0] == 2
        assert not {0, 1, 2} & set(ids[1:])
        assert tiny_tokenizer.decode(ids[1:]).count(f"typed {mark} twice {mark}.") == 3


def test_a_special_token_that_cannot_be_text_is_one_line() -> None:
    """A vocabulary of whole words, in which the mark is one."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "a": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<end>"
    )
    with pytest.raises(UserError, match="a text holds '<end>', which this model's tokenizer takes"):
        token_ids(tokenizer, ["a <end> a"])


def test_the_share_of_unknown_tokens(tiny_tokenizer: Any, word_tokenizer: Any) -> None:
    assert unknown_share(word_tokenizer, ["The doctor ran", "The zebra ran"]) == 1 / 6
    assert unknown_share(tiny_tokenizer, ["The zebra naïvely ran"]) == 0
    assert unknown_share(tiny_tokenizer, []) == 0


def whole(tokenizer: Any, name: str, queries: Any, demonstrations: Any) -> list[list[int]]:
    """Every prompt's text tokenised as a whole, "<s>" in it as text: what `encode` must give."""
    pattern, head = PATTERNS[name], context(PATTERNS[name], demonstrations)
    texts = [
        (head + pattern.separator if head else "") + pattern.fill(p, h)
        for p, h in zip(queries.premise, queries.hypothesis, strict=True)
    ]
    found: list[list[int]] = tokenizer(texts, split_special_tokens=True)["input_ids"]
    return found


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
        result = encode(tokenizer, PATTERNS[name], PAIRS, PAIRS[:shots], 512)
        assert result == whole(tokenizer, name, PAIRS, PAIRS[:shots])


def test_the_merging_tokenizer_does_merge_over_the_boundary() -> None:
    tokenizer = merging_tokenizer()  # else the test above would not reach the fallback
    apart = tokenizer("? Yes")["input_ids"] + tokenizer("\n\nThe lawyer")["input_ids"]
    assert tokenizer("? Yes\n\nThe lawyer")["input_ids"] != apart


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example([("", "<s>"), ("</s>", "a <pad>")])
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=6))
def test_any_text_is_tokenised_whole(tiny_tokenizer: Any, pairs: list[tuple[str, str]]) -> None:
    queries = pd.DataFrame(pairs, columns=["premise", "hypothesis"])
    result = encode(tiny_tokenizer, MINIMAL, queries, PAIRS, 10_000)
    assert result == whole(tiny_tokenizer, "minimal", queries, PAIRS)


def test_a_prompt_begins_with_bos_and_ends_before_the_answer(tiny_tokenizer: Any) -> None:
    for ids in encode(tiny_tokenizer, MINIMAL, PAIRS, PAIRS, 512):
        assert ids[0] == 2
        assert ids.count(2) == 1
        assert tiny_tokenizer.decode(ids[-1:]) == " ?"


def test_too_long_is_an_error_and_nothing_is_cut(tiny_tokenizer: Any) -> None:
    longest = max(map(len, encode(tiny_tokenizer, MINIMAL, PAIRS, PAIRS, 512)))
    assert encode(tiny_tokenizer, MINIMAL, PAIRS, PAIRS, longest)
    with pytest.raises(UserError, match=f"4 demonstrations has {longest} .* takes {longest - 1} "):
        encode(tiny_tokenizer, MINIMAL, PAIRS, PAIRS, longest - 1)


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
        encode(tiny_tokenizer, MINIMAL, queries, demonstrations, 512)
    assert "fewer shots" not in str(error.value)  # they would not help
    assert "shorten or remove the pair" in str(error.value)
    shorter = [
        None if frame is None else frame[frame.get("id", frame.premise) != "t-6"]
        for frame in (queries, demonstrations)
    ]
    assert encode(tiny_tokenizer, MINIMAL, *shorter, 512)


def test_a_prompt_of_too_many_shots_names_its_query_and_fewer_do(tiny_tokenizer: Any) -> None:
    queries = PAIRS.assign(id=["t-1", "t-2", "t-3", "t-4"])
    with pytest.raises(UserError, match=r"the pair 't-1' with 40 demonst.*: use fewer shots"):
        encode(tiny_tokenizer, MINIMAL, queries, pd.concat([PAIRS] * 10), 200)
    assert encode(tiny_tokenizer, MINIMAL, queries, PAIRS, 200)


def test_no_queries(tiny_tokenizer: Any) -> None:
    assert encode(tiny_tokenizer, MINIMAL, PAIRS[:0], PAIRS, 512) == []
    assert encode(tiny_tokenizer, MINIMAL, PAIRS[:0], None, 512) == []


def test_content_free_queries(tiny_tokenizer: Any) -> None:
    queries = content_free_queries()
    assert list(queries.premise) == list(queries.hypothesis) == list(CONTENT_FREE)
    assert (queries.label == -1).all()
    assert queries.id.is_unique
    ids = encode(tiny_tokenizer, MINIMAL, queries, PAIRS, 512)
    assert ids == whole(tiny_tokenizer, "minimal", queries, PAIRS)


def test_opts_own_tokenizer(shared: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "opt" / "tokenizer")
    for name in PATTERNS:
        result = encode(tokenizer, PATTERNS[name], PAIRS, PAIRS, 2048)
        assert result == whole(tokenizer, name, PAIRS, PAIRS)
        assert all(ids[0] == 2 and ids.count(2) == 1 for ids in result)
    assert tokenizer.convert_ids_to_tokens(label_tokens(tokenizer, PATTERNS["gpt-3"])) == [
        "ĠYes",
        "ĠNo",
    ]


def test_the_pocket_tokenizer_reads_every_pattern() -> None:
    from llmft.engine.models import POCKET

    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    for name in PATTERNS:
        label_tokens(tokenizer, PATTERNS[name])
        result = encode(tokenizer, PATTERNS[name], PAIRS, PAIRS, 512)
        assert result == whole(tokenizer, name, PAIRS, PAIRS)
