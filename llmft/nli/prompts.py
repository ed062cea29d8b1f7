"""Prompts: from sentence pairs to token ids that end where the label word comes next.

The patterns and label words (verbalizers; Schick & Schütze 2021) are those of Mosbach et al. 2023,
arXiv:2305.16938, without three faults of their code: a prompt ends without a space (a byte-level
BPE would have to begin the answer with a second one), line breaks are real, and demonstrations are
in exactly the query's pattern, with the label words that are scored. One's own patterns and label
words are text (`pattern_named`).

Text is only ever text: `</s>` or `<|endoftext|>` in a premise is encoded as these characters, not
as the special token. Of the special tokens that a tokenizer adds, those before a text are kept and
those after it are not, since a prompt ends where the answer begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from string import Formatter
from typing import Any

import pandas as pd

from llmft import UserError


@dataclass(frozen=True)
class Pattern:
    """A template with `{premise}` and `{hypothesis}`, and a word for each label.

    A demonstration is the filled template, a space, and its label's word; `separator` stands
    between demonstrations and before the query.
    """

    name: str
    template: str
    verbalizer: tuple[str, str] = ("Yes", "No")
    separator: str = "\n\n"

    def fill(self, premise: str, hypothesis: str) -> str:
        """The template with its pair of sentences."""
        return self.template.format(premise=premise, hypothesis=hypothesis)


PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern("minimal", "{premise} {hypothesis} ?"),
        Pattern("gpt-3", "{premise} question: {hypothesis} Yes or No? answer:"),
        Pattern(
            "eval-harness",
            "{premise} \nQuestion: {hypothesis} True or False? \nAnswer:",
            ("True", "False"),
        ),
    )
}

INSTRUCTION = "Say whether the first sentence means that the second one is true."
EXPLANATIONS = (
    "because the first sentence says so",
    "because the first sentence does not say so",
)
"""What an explained context adds to demonstrations: a first line, and a reason after each label (as
Askell et al. 2021 and Snell et al. 2022 distil instructions and reasons)."""

ANSWERS = "Yes No True False yes no true false Right Wrong right wrong Good Bad".split()
"""Label words to propose in place of words that are no single tokens."""

UNKNOWN = 0.1
"""The largest share of a task's tokens that a model may not know (`unknown_share`)."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs that say nothing: the label words' probabilities are then bias (Zhao et al. 2021)."""


def content_free_queries() -> pd.DataFrame:
    """A query for each of `CONTENT_FREE`, in place of both sentences; their label is -1."""
    return pd.DataFrame(
        {
            "id": [f"content-free-{i}" for i in range(len(CONTENT_FREE))],
            "premise": CONTENT_FREE,
            "hypothesis": CONTENT_FREE,
            "label": -1,
        }
    )


def pattern_named(name: str, verbalizer: str = "") -> Pattern:
    """The pattern of that name, or `name` itself as a template of one's own.

    Args:
        name: one of `PATTERNS`, or a text with `{premise}` and `{hypothesis}`, each once, that ends
            where the answer's word would come after a space.
        verbalizer: label words of one's own, entailment's first: "Yes, No"; "" = the pattern's.

    Raises:
        UserError: neither a name nor such a text, or not two different words.
    """
    pattern = PATTERNS.get(name) or Pattern(_template(name), name)
    if not verbalizer.strip():
        return pattern
    words = tuple(word.strip() for word in verbalizer.split(","))
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise UserError(
            f"verbalizer {verbalizer!r}: give two different words with a comma between them, "
            "entailment's first, such as 'Yes, No'"
        )
    return replace(pattern, verbalizer=words)


def _template(text: str) -> str:
    """The name of a pattern of one's own: its text, in quotes and on one line.

    Raises:
        UserError: the text is no template.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"pattern {text!r}: {error}; write {{{{ for a brace itself") from None
    fields = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    if not fields:
        raise UserError(
            f"unknown pattern {text!r}: use one of {', '.join(PATTERNS)}, or a text of your own "
            "with {premise} and {hypothesis}"
        )
    allowed = [("premise", "", None), ("hypothesis", "", None)]
    if other := [name for name, *rest in fields if (name, *rest) not in allowed]:
        raise UserError(
            f"pattern {text!r} has a field {other[0]!r} or asks for its formatting: it may have "
            "{premise} and {hypothesis}, just so"
        )
    if sorted(fields) != sorted(allowed):
        raise UserError(f"pattern {text!r}: it must have {{premise}} and {{hypothesis}}, each once")
    if text[-1].isspace():
        raise UserError(
            f"pattern {text!r} ends with white space: end it where the answer goes; the space "
            "before the answer is added"
        )
    return repr(text)


def label_tokens(tokenizer: Any, pattern: Pattern | str) -> tuple[int, ...]:
    """The token that each label's word is, right after a filled template and a space.

    Returns:
        Token ids, label 0's first.

    Raises:
        UserError: a word that is no single known token there, or the same token as another's.
    """
    pattern = _pattern(pattern)
    prefix = _ids(tokenizer, [stem := pattern.fill("a", "b")])[0]
    if not prefix:
        raise UserError("this model's tokenizer has no tokens for a text: its files are missing")
    tokens = []
    for word in pattern.verbalizer:
        ids = _ids(tokenizer, [f"{stem} {word}"])[0]
        own = ids[len(prefix) :]
        if ids[: len(prefix)] != prefix:
            raise UserError(
                f"pattern {pattern.name}: for this model its end and the label word {word!r} "
                "become one token: end the pattern with another character, such as ':' or '?'"
            )
        if tokenizer.unk_token_id in own:
            raise UserError(
                f"pattern {pattern.name}: this model's vocabulary lacks the label word {word!r}: "
                f"{_proposal(tokenizer, stem, prefix)}"
            )
        if len(own) != 1:
            pieces = ", ".join(repr(tokenizer.decode([token])) for token in own)
            raise UserError(
                f"pattern {pattern.name}: the label word {word!r} is {len(own)} tokens for this "
                f"model ({pieces}), and must be one: {_proposal(tokenizer, stem, prefix)}"
            )
        tokens.append(int(own[0]))
    if len(set(tokens)) < len(tokens):
        raise UserError(
            f"pattern {pattern.name}: its label words are one and the same token: "
            f"{_proposal(tokenizer, stem, prefix)}"
        )
    return tuple(tokens)


def _proposal(tokenizer: Any, stem: str, prefix: Sequence[int]) -> str:
    """Label words that are single tokens for this model after this template."""

    def single() -> Iterator[str]:
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        words = (tokenizer.decode([token]).strip() for _, token in vocabulary)
        tokens: set[int] = set()
        for word in (*ANSWERS, *(word for word in words if len(word) > 1 and word.isalpha())):
            own = _ids(tokenizer, [f"{stem} {word}"])[0][len(prefix) :]
            if len(own) == 1 and own[0] not in {*tokens, tokenizer.unk_token_id}:
                tokens.add(own[0])
                yield word

    words = [word for word, _ in zip(single(), range(6), strict=False)]
    return f"use a verbalizer of single tokens, such as '{', '.join(words[:2])}' (also: " + (
        f"{', '.join(words[2:])})"
    )


def unknown_share(tokenizer: Any, texts: Sequence[str]) -> float:
    """The share of tokens of `texts` that are the tokenizer's unknown word."""
    tokens = [token for ids in _ids(tokenizer, texts, special=False) for token in ids]
    return tokens.count(tokenizer.unk_token_id) / max(1, len(tokens))


def encode(
    tokenizer: Any,
    pattern: Pattern | str,
    queries: pd.DataFrame,
    demonstrations: pd.DataFrame | None,
    max_positions: int,
    *,
    explained: bool = False,
) -> list[list[int]]:
    """Whole prompts as token ids: beginning-of-text as the tokenizer has it, demonstrations, query.

    Args:
        tokenizer: a transformers tokenizer.
        pattern: for the demonstrations and the queries alike, or its name.
        queries: columns `premise` and `hypothesis`; one prompt a row, in order.
        demonstrations: columns `premise`, `hypothesis`, `label`, in the order to show them in;
            None or no rows for zero-shot.
        max_positions: the longest prompt that the model takes.
        explained: the demonstrations come with an instruction and explanations.

    Raises:
        UserError: a prompt longer than `max_positions`. Nothing is truncated.
    """
    pattern = _pattern(pattern)
    head = context(pattern, demonstrations, explained=explained)
    texts = [
        pattern.fill(p, h) for p, h in zip(queries["premise"], queries["hypothesis"], strict=True)
    ]
    tails = [pattern.separator + text for text in texts] if head else texts
    ids = _after_head(tokenizer, head, tails) if head else _ids(tokenizer, tails)
    longest = max(range(len(ids)), key=lambda i: len(ids[i]), default=0)
    if ids and len(ids[longest]) > max_positions:
        raise _too_long(tokenizer, pattern, queries, demonstrations, longest, ids, max_positions)
    return ids


def _too_long(
    tokenizer: Any,
    pattern: Pattern,
    queries: pd.DataFrame,
    demonstrations: pd.DataFrame | None,
    longest: int,
    ids: Sequence[Sequence[int]],
    max_positions: int,
) -> UserError:
    """What to do about the longest prompt: a pair that is too long by itself, or fewer shots."""
    examples = queries.iloc[:0] if demonstrations is None else demonstrations
    for part, row in [(queries, longest), *((examples, i) for i in range(len(examples)))]:
        pair = part.iloc[row]
        alone = len(_ids(tokenizer, [pattern.fill(pair["premise"], pair["hypothesis"])])[0])
        if alone > max_positions:
            return UserError(
                f"{_pair(part, row)} has {alone} tokens in pattern {pattern.name}, and "
                f"the model takes {max_positions} (nothing is ever truncated): shorten or remove "
                "the pair, or take a model with more positions"
            )
    return UserError(
        f"{_pair(queries, longest)} with {len(examples)} demonstrations has {len(ids[longest])} "
        f"tokens in pattern {pattern.name}, and the model takes {max_positions} (nothing is ever "
        "truncated): use fewer shots, or a model with more positions"
    )


def _pair(pairs: pd.DataFrame, row: int) -> str:
    return f"the pair {pairs['id'].iloc[row]!r}" if "id" in pairs else f"the pair in row {row + 1}"


def context(
    pattern: Pattern | str, demonstrations: pd.DataFrame | None, *, explained: bool = False
) -> str:
    """The text before the query: demonstrations and their label words, no separator at the end.

    `explained` adds the instruction before them and an explanation to each.
    """
    pattern = _pattern(pattern)
    if demonstrations is None or not len(demonstrations):
        return ""
    reasons = [f", {reason}." if explained else "" for reason in EXPLANATIONS]
    begin = [INSTRUCTION] if explained else []
    return pattern.separator.join(
        begin
        + [
            f"{pattern.fill(premise, hypothesis)} {pattern.verbalizer[label]}{reasons[label]}"
            for premise, hypothesis, label in zip(
                demonstrations["premise"],
                demonstrations["hypothesis"],
                demonstrations["label"],
                strict=True,
            )
        ]
    )


def _after_head(tokenizer: Any, head: str, tails: Sequence[str]) -> list[list[int]]:
    """Ids of `head + tail` for each tail, with the long head tokenised once where that is exact.

    It is exact for every tokenizer that splits words before it merges (byte-level BPE, whole
    words). Three prompts are tokenised whole to check; if the tokenizer merges across the border
    (some SentencePiece models), all are.
    """
    if not tails:
        return []
    by_length = sorted(range(len(tails)), key=lambda i: len(tails[i]))
    witnesses = sorted({0, by_length[0], by_length[-1]})
    start = _ids(tokenizer, [head])[0]
    ids = [start + own for own in _ids(tokenizer, tails, special=False)]
    whole = _ids(tokenizer, [head + tails[i] for i in witnesses])
    if all(ids[i] == exact for i, exact in zip(witnesses, whole, strict=True)):
        return ids
    return _ids(tokenizer, [head + tail for tail in tails])


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of plain texts, with the special tokens that the tokenizer puts before one.

    Raises:
        UserError: a special token written in a text, and a tokenizer that takes it for one.
    """
    return _ids(tokenizer, texts)


def _ids(tokenizer: Any, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    if not texts:
        return []
    # verbose=False: the limit is `encode`'s to check, not the tokenizer's to warn about.
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    sequences = [list(ids) for ids in tokenizer(list(texts), **options)["input_ids"]]
    marks = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    marks.pop(tokenizer.unk_token_id, None)
    for token, mark in marks.items():
        if any(mark in text for text in texts) and any(token in ids for ids in sequences):
            raise UserError(
                f"a text holds {mark!r}, which this model's tokenizer takes for its special token: "
                "write it otherwise, such as with spaces"
            )
    prefix = _prefix(tokenizer) if special else []
    return [prefix + ids for ids in sequences]


def _prefix(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text, not those it puts after."""
    example = tokenizer("a", return_special_tokens_mask=True)
    special = zip(example["input_ids"], example["special_tokens_mask"], strict=True)
    return [token for token, _ in takewhile(lambda item: item[1], special)]


def _pattern(pattern: Pattern | str) -> Pattern:
    return pattern_named(pattern) if isinstance(pattern, str) else pattern
