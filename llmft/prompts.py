"""Prompts: from sentence pairs to token ids that end where the label word comes next.

The patterns and label words (verbalizers; Schick & Schütze 2021) are those of Mosbach et al. 2023,
arXiv:2305.16938, with what was wrong in their code put right: no space after the last word of a
prompt (a byte-level BPE would have to begin the answer with a second one), real line breaks, and
demonstrations in exactly the query's pattern, with the label words that are scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
"""What an explained context has besides demonstrations: a first line, and a reason after each label
(as Askell et al. 2021 and Snell et al. 2022 distil instructions and reasons)."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs that say nothing: what the label words get then is bias (Zhao et al. 2021)."""


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


def pattern_named(name: str) -> Pattern:
    """The pattern of that name; UserError, listing the names, where there is none."""
    try:
        return PATTERNS[name]
    except KeyError:
        raise UserError(f"unknown pattern {name!r}: use one of {', '.join(PATTERNS)}") from None


def label_tokens(tokenizer: Any, pattern: Pattern | str) -> tuple[int, ...]:
    """The token that each label's word is, right after a filled template and a space.

    Returns:
        Token ids, label 0's first.

    Raises:
        UserError: a word that is no single known token there, or the same token as another's.
    """
    pattern = _pattern(pattern)
    stem = pattern.fill("a", "b")
    before = list(tokenizer(stem)["input_ids"])
    found = []
    for word in pattern.verbalizer:
        after = list(tokenizer(f"{stem} {word}")["input_ids"])
        own = after[len(before) :]
        if after[: len(before)] != before or len(own) != 1:
            raise UserError(
                f"pattern {pattern.name}: label word {word!r} is {len(own)} tokens for this "
                "model, and must be one: use another verbalizer"
            )
        if own[0] == tokenizer.unk_token_id:
            raise UserError(
                f"pattern {pattern.name}: this model's vocabulary lacks the label word {word!r}"
            )
        found.append(int(own[0]))
    if len(set(found)) < len(found):
        raise UserError(f"pattern {pattern.name}: its label words are one and the same token")
    return tuple(found)


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
    shown = queries.iloc[:0] if demonstrations is None else demonstrations
    for part, row in [(queries, longest), *((shown, i) for i in range(len(shown)))]:
        pair = part.iloc[row]
        alone = len(_ids(tokenizer, [pattern.fill(pair["premise"], pair["hypothesis"])])[0])
        if alone > max_positions:
            return UserError(
                f"{_pair(part, row)} has {alone} tokens in pattern {pattern.name}, and "
                f"the model takes {max_positions} (nothing is ever truncated): shorten or remove "
                "the pair, or take a model with more positions"
            )
    return UserError(
        f"{_pair(queries, longest)} with {len(shown)} demonstrations has {len(ids[longest])} "
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

    A token boundary falls between the two in every tokenizer that splits words before it merges
    (byte-level BPE, whole words). Three prompts are tokenised whole to see it; where a tokenizer
    merges across (some SentencePiece models), all of them are.
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


def _ids(tokenizer: Any, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    if not texts:
        return []
    # verbose=False: the limit is `encode`'s to check, not the tokenizer's to warn about.
    encoded = tokenizer(list(texts), add_special_tokens=special, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def _pattern(pattern: Pattern | str) -> Pattern:
    return pattern_named(pattern) if isinstance(pattern, str) else pattern
