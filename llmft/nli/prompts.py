"""Prompts: from sentence pairs to token ids that end where the label word comes next.

The patterns and label words (verbalizers; Schick & Schütze 2021) are those of Mosbach et al. 2023,
arXiv:2305.16938, without three faults of their code: a prompt ends without a space (a byte-level
BPE would have to begin the answer with a second one), line breaks are real, and demonstrations are
in exactly the query's pattern, with the label words that are scored.

Text is only ever text: `</s>` or `<|endoftext|>` in a premise is encoded as these characters, not
as the special token. Of the special tokens that a tokenizer adds, those before a text are kept and
those after it are not, since a prompt ends where the answer begins.
"""

from collections.abc import Sequence
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
EXPLANATIONS = ("because the first sentence says so", "because the first sentence does not say so")
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
    ids = [f"content-free-{i}" for i in range(len(CONTENT_FREE))]
    texts = {"premise": CONTENT_FREE, "hypothesis": CONTENT_FREE}
    return pd.DataFrame({"id": ids} | texts | {"label": -1})


def pattern_named(name: str, verbalizer: str = "") -> Pattern:
    """The pattern of that name, or `name` itself as a template of one's own.

    Args:
        name: one of `PATTERNS`, or a text with `{premise}` and `{hypothesis}`, each once, that ends
            where the answer's word would come after a space.
        verbalizer: label words of one's own, entailment's first: "Yes, No"; "" = the pattern's.

    Raises:
        UserError: neither a name nor such a text, or not two different words.
    """
    pattern = PATTERNS.get(name) or _template(name)
    if not verbalizer.strip():
        return pattern
    words = tuple(word.strip() for word in verbalizer.split(","))
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise UserError(
            f"verbalizer {verbalizer!r}: give two different words with a comma between them, "
            "entailment's first, such as 'Yes, No'"
        )
    return replace(pattern, verbalizer=words)


def _template(text: str) -> Pattern:
    """A pattern of one's own; its name is its text, in quotes and on one line."""
    try:
        parts = [rest for _, *rest in Formatter().parse(text) if rest[0] is not None]
    except ValueError as error:
        raise UserError(f"pattern {text!r}: {error}; write {{{{ for a brace itself") from None
    is_plain = all(part[1:] == ["", None] for part in parts)
    names = sorted(str(name) for name, *_ in parts)
    if not is_plain or names != ["hypothesis", "premise"] or text[-1].isspace():
        raise UserError(
            f"unknown pattern {text!r}: use one of {', '.join(PATTERNS)}, or a text with "
            "{premise} and {hypothesis}, each once, just so and no other field, that ends where "
            "the answer goes, without the space before it"
        )
    return Pattern(repr(text), text)


def label_tokens(tokenizer: Any, pattern: Pattern) -> tuple[int, ...]:
    """The token that each label's word is, label 0's first, after a filled template and a space.

    Raises:
        UserError: a word that is no single known token there, or the same token as another's.
    """
    prefix = token_ids(tokenizer, [stem := pattern.fill("a", "b")])[0]
    if not prefix:
        raise UserError("this model's tokenizer has no tokens for a text: its files are missing")
    tokens: list[int] = []
    for word in pattern.verbalizer:
        ids = token_ids(tokenizer, [f"{stem} {word}"])[0]
        own = ids[len(prefix) :]
        if ids[: len(prefix)] != prefix:
            raise UserError(
                f"pattern {pattern.name}: for this model its end and the label word {word!r} "
                "become one token: end the pattern with another character, such as ':' or '?'"
            )
        wrong = ""
        if tokenizer.unk_token_id in own:
            wrong = f"this model's vocabulary lacks the label word {word!r}"
        elif len(own) != 1:
            pieces = ", ".join(repr(tokenizer.decode([token])) for token in own)
            wrong = f"the label word {word!r} is {len(own)} tokens for this model ({pieces}), and "
            wrong += "must be one"
        elif own[0] in tokens:
            wrong = "its label words are one and the same token"
        if wrong:
            remedy = _proposal(tokenizer, stem, prefix)
            raise UserError(f"pattern {pattern.name}: {wrong}: {remedy}")
        tokens.append(int(own[0]))
    return tuple(tokens)


def _proposal(tokenizer: Any, stem: str, prefix: Sequence[int]) -> str:
    """Label words that are single tokens for this model after this template."""
    words: dict[int, str] = {}
    for word in ANSWERS:
        own = token_ids(tokenizer, [f"{stem} {word}"])[0][len(prefix) :]
        if len(own) == 1 and own[0] != tokenizer.unk_token_id:
            words.setdefault(own[0], word)
    first, more = ", ".join([*words.values()][:2]), ", ".join([*words.values()][2:6])
    return f"use a verbalizer of single tokens, such as '{first}' (also: {more})"


def unknown_share(tokenizer: Any, texts: Sequence[str]) -> float:
    """The share of tokens of `texts` that are the tokenizer's unknown word."""
    tokens = [token for ids in token_ids(tokenizer, texts, special=False) for token in ids]
    return tokens.count(tokenizer.unk_token_id) / max(1, len(tokens))


def encode(
    tokenizer: Any,
    pattern: Pattern,
    queries: pd.DataFrame,
    demonstrations: pd.DataFrame | None,
    max_positions: int,
    *,
    explained: bool = False,
    behind: bool = False,
) -> list[list[int]]:
    """Whole prompts as token ids: beginning-of-text as the tokenizer has it, demonstrations, query.

    Args:
        tokenizer: a transformers tokenizer.
        pattern: for the demonstrations and the queries alike.
        queries: columns `premise` and `hypothesis`; one prompt a row, in order.
        demonstrations: these and `label`, in the order to show them in; without `label`, their
            premises alone are shown, as plain text. None for zero-shot.
        max_positions: the longest prompt that the model takes.
        explained: the demonstrations come with an instruction and explanations.
        behind: the model has a beginning already, as keys and values: what is read after it begins
            with the separator.

    Raises:
        UserError: a prompt longer than `max_positions`. Nothing is truncated.
    """
    head = context(pattern, demonstrations, explained=explained)
    texts = _filled(pattern, queries)
    if behind:
        start = pattern.separator + f"{head}{pattern.separator}" * bool(head)
        ids = token_ids(tokenizer, [start + text for text in texts], special=False)
    elif head:
        ids = _after_head(tokenizer, head, [pattern.separator + text for text in texts])
    else:
        ids = token_ids(tokenizer, texts)
    if max(map(len, ids), default=0) > max_positions:
        examples = queries.iloc[:0] if demonstrations is None else demonstrations
        raise _too_long(tokenizer, pattern, queries, examples, ids, max_positions)
    return ids


def _filled(pattern: Pattern, pairs: pd.DataFrame) -> list[str]:
    return [pattern.fill(p, h) for p, h in zip(pairs["premise"], pairs["hypothesis"], strict=True)]


def _too_long(
    tokenizer: Any,
    pattern: Pattern,
    queries: pd.DataFrame,
    demonstrations: pd.DataFrame,
    ids: Sequence[Sequence[int]],
    most: int,
) -> UserError:
    """What to do about the longest prompt: a pair that is too long by itself, or fewer shots."""
    pairs, remedy = pd.concat([queries, demonstrations]), "shorten or remove the pair"
    lengths, others = list(map(len, token_ids(tokenizer, _filled(pattern, pairs)))), ""
    if max(lengths) <= most:
        pairs, remedy = queries, "use fewer shots"
        lengths, others = list(map(len, ids)), f" with {len(demonstrations)} demonstrations"
    row = lengths.index(max(lengths))
    name = repr(pairs["id"].iloc[row]) if "id" in pairs else f"in row {row + 1}"
    return UserError(
        f"the pair {name}{others} has {lengths[row]} tokens in pattern {pattern.name}, and the "
        f"model takes {most} (nothing is ever truncated): {remedy}, or take a model with more "
        "positions"
    )


def context(
    pattern: Pattern, demonstrations: pd.DataFrame | None, *, explained: bool = False
) -> str:
    """The text before the query: demonstrations and their label words, no separator at the end.

    `explained` adds the instruction before them and an explanation to each. Demonstrations without
    a column `label` are plain text: their premises.
    """
    if demonstrations is None or not len(demonstrations):
        return ""
    if "label" not in demonstrations:
        return pattern.separator.join(demonstrations["premise"])
    parts = [INSTRUCTION] if explained else []
    for text, label in zip(_filled(pattern, demonstrations), demonstrations["label"], strict=True):
        reason = f", {EXPLANATIONS[label]}." if explained else ""
        parts.append(f"{text} {pattern.verbalizer[label]}{reason}")
    return pattern.separator.join(parts)


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
    start = token_ids(tokenizer, [head])[0]
    ids = [start + own for own in token_ids(tokenizer, tails, special=False)]
    if [ids[i] for i in witnesses] == token_ids(tokenizer, [head + tails[i] for i in witnesses]):
        return ids
    return token_ids(tokenizer, [head + tail for tail in tails])


def token_ids(tokenizer: Any, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """The ids of plain texts, with the special tokens that the tokenizer puts before one.

    Raises:
        UserError: a special token written in a text, and a tokenizer that takes it for one.
    """
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
    prefix = []
    if special:  # those before a text, not those after it
        example = tokenizer("a", return_special_tokens_mask=True)
        marked = zip(example["input_ids"], example["special_tokens_mask"], strict=True)
        prefix = [token for token, _ in takewhile(lambda item: item[1], marked)]
    return [prefix + ids for ids in sequences]
