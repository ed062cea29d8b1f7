"""The pocket world's pretraining text: what the small model reads before anyone asks about NLI.

Three kinds of documents, all about surface features of a pair of sentences ("is the hypothesis
negated?"), never about entailment:

- *plain*: sentences, one after another;
- *quiz*: a pair, then named questions about it with their answers ("overlap No passive Yes"). The
  dense supervision makes the features;
- *in-context*: items in an evaluation pattern whose label one hidden feature decides, by a rule
  that must be read off the items before: which feature, which label word means what (drawn per
  document), and how often the rule errs. Sometimes the document begins with its rule's name. This
  makes in-context learning.

Two things keep it honest, and a test proves both. Rules are functions of the words alone
(`FEATURES` gets no meaning), so the exact NLI question is not in the text; and no premise of a
validation, test or out-of-domain pair is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from llmft.pocket.data import in_domain_pair, recombinations
from llmft.pocket.grammar import (
    ADJECTIVES,
    INTRANSITIVE,
    PEOPLE,
    PREPOSITIONS,
    TRANSITIVE,
    WORDS,
    premise,
)


Words = tuple[str, ...]


def _nouns(s: Words) -> list[str]:
    return [w for w in s if w in PEOPLE]


FEATURES: dict[str, Callable[[Words, Words], bool]] = {
    "negated": lambda _p, h: "never" in h,
    "transitive": lambda _p, h: len(_nouns(h)) > 1,
    "voice": lambda _p, h: "was" in h,
    "passive": lambda p, _h: "was" in p,
    "adjective": lambda p, _h: any(w in ADJECTIVES for w in p),
    "clause": lambda p, _h: "who" in p,
    "joined": lambda p, _h: "and" in p,
    "place": lambda p, _h: any(w in PREPOSITIONS for w in p),
    "overlap": lambda p, h: {w.lower() for w in h} <= {w.lower() for w in p},
    "subject": lambda p, h: _nouns(p)[0] == _nouns(h)[0],
    "object": lambda p, h: _nouns(p)[-1] == _nouns(h)[-1],
    "verb": lambda p, h: {w for w in h if w in TRANSITIVE or w in INTRANSITIVE} <= set(p),
}
"""The rules: functions of the words of premise and hypothesis; none knows a meaning."""

OF_ONE_SENTENCE = ("negated", "transitive", "passive", "adjective", "clause", "joined", "place")
"""The features that a single sentence has."""
CLASSES = {"person": PEOPLE, "done to": TRANSITIVE, "done": INTRANSITIVE, "kind of": ADJECTIVES}
"""The rules of documents about single words: is it one of these?"""
LABEL_WORDS = (("Yes", "No"), ("True", "False"))
PATTERN_WORDS = "? : question answer Question Answer or".split()
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
"""At OPT's ids 0 to 3; "</s>" begins every text, as in OPT."""
VOCABULARY = (
    *SPECIALS,
    *("\n", "\n\n"),
    *WORDS,
    *PATTERN_WORDS,
    *(w for pair in LABEL_WORDS for w in pair),
    *(w for w in FEATURES if w not in WORDS),
)
ID = {word: i for i, word in enumerate(VOCABULARY)}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, mark or run of line ends; text begins with "</s>" (OPT's way)."""
    words = Tokenizer(WordLevel(ID, unk_token="<unk>"))
    words.pre_tokenizer = Split(Regex(r"\n+|\w+|[^\w\s]"), behavior="removed", invert=True)
    begin = ("</s>", ID["</s>"])
    words.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[begin])
    marks = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **marks)


def text_pair(rng: Random) -> tuple[Words, Words]:
    """A pair of the text: half are drawn as in-domain pairs, half of the premise's own words."""
    while True:
        if rng.random() < 0.5:
            p, h = in_domain_pair(rng)
            return p.words, h.words
        p = premise(rng)
        if own := recombinations(p):
            return p.words, rng.choice(own).words


@dataclass(frozen=True)
class Items:
    """What an in-context document can be about, as token ids, and the features rules may use.

    `ids` has an item's parts (a pair has two, a sentence or a word one), `names` the features,
    `features` (items, features) which item has which, and `split` for each feature the numbers of
    the items without it, and with it.
    """

    ids: list[tuple[list[int], ...]]
    names: tuple[str, ...]
    features: np.ndarray
    split: list[tuple[np.ndarray, np.ndarray]]


def _items(
    parts: Iterable[tuple[Words, ...]], names: Iterable[str], has: Callable[..., bool]
) -> Items:
    """Items of these parts (words), which each have a feature or not: `has(name, *parts)`."""
    parts, names = list(parts), tuple(names)
    ids = [tuple([ID[word] for word in part] for part in item) for item in parts]
    features = np.array([[has(name, *item) for name in names] for item in parts])
    split = [(np.flatnonzero(~column), np.flatnonzero(column)) for column in features.T]
    return Items(ids, names, features, split)


Pool = dict[str, Items]
"""The items of each unit: "word", "sentence" and "pair"."""


def pool(seed: int, size: int, excluded: set[str]) -> Pool:
    """The items of a seed: `size` distinct pairs, their sentences, and the words.

    No sentence of a pair is, as text, in `excluded`.
    """
    rng = Random(f"pocket text {seed}")
    pairs: dict[tuple[Words, Words], None] = {}  # in the order in which they were drawn
    while len(pairs) < size:
        pair = text_pair(rng)
        if not excluded.intersection(" ".join(words[:-1]) + words[-1] for words in pair):
            pairs[pair] = None
    sentences = dict.fromkeys((sentence,) for pair in pairs for sentence in pair)
    words = [((word,),) for word in WORDS if any(word in kind for kind in CLASSES.values())]
    return {
        "word": _items(words, CLASSES, lambda name, word: word[0] in CLASSES[name]),
        "sentence": _items(sentences, OF_ONE_SENTENCE, lambda name, s: FEATURES[name](s, s)),
        "pair": _items(pairs, FEATURES, lambda name, p, h: FEATURES[name](p, h)),
    }


UNITS = ("copy", "recall", "word", "sentence", "pair")
"""What an in-context document is about; the first two teach looking up what was said before."""


@dataclass(frozen=True)
class Mix:
    """What a phase of the curriculum is made of: shares of kinds of documents, and their rules.

    Documents that are neither plain nor quiz are in-context, about `units` (shares of `UNITS`).
    Those about pairs have one of `rules` (named twice: drawn twice as often), which a share of
    them, `hinted`, names first; a share of `minimal` is in the minimal pattern, the rest in the
    others. A document's labels are flipped at one of the rates `noise`.
    """

    plain: float = 0.05
    quiz: float = 0.25
    units: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 1.0)
    rules: tuple[str, ...] = tuple(FEATURES)
    hinted: float = 0.2
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    minimal: float = 0.7


PLAIN, QUIZ, LABEL = 0, 1, 2
"""What a token is, for the loss: ordinary, a quiz answer, an in-context label."""


class Document:
    """Token ids and their kinds, put together piece by piece."""

    def __init__(self) -> None:
        self.ids, self.kinds = [ID["</s>"]], [PLAIN]

    def add(self, ids: list[int], kind: int = PLAIN) -> None:
        """Append ids of one kind."""
        self.ids += ids
        self.kinds += [kind] * len(ids)


def _ids(text: str) -> list[int]:
    return [ID[w] for w in text.split(" ")]


_ITEMS = {  # pattern -> ids between premise and hypothesis, between hypothesis and label
    "minimal": ([], _ids("?")),
    "gpt-3": (_ids("question :"), _ids("Yes or No ? answer :")),
    "eval-harness": (_ids("\n Question :"), _ids("True or False ? \n Answer :")),
}
_BREAK = [ID["\n\n"]]
_ANSWERS = {True: [ID["Yes"]], False: [ID["No"]]}


def plain(rng: np.random.Generator, pairs: Items, length: int) -> Document:
    """Sentences of random pairs."""
    doc = Document()
    while len(doc.ids) < length:
        doc.add(pairs.ids[rng.integers(len(pairs.ids))][rng.integers(2)])
    return doc


def quiz(rng: np.random.Generator, pairs: Items, length: int, questions: int = 5) -> Document:
    """Pairs, each followed by a few named questions about it and their answers."""
    doc = Document()
    while len(doc.ids) < length:
        # Half of the pairs have a feature that was drawn, so rare ones come up, too.
        some = pairs.split[rng.integers(len(pairs.names))][rng.integers(2)]
        i = some[rng.integers(len(some))]
        for sentence in pairs.ids[i]:
            doc.add(sentence)
        doc.add(_ids("?"))
        for j in rng.permutation(len(pairs.names))[:questions]:
            doc.add([ID[pairs.names[j]]])
            doc.add(_ANSWERS[bool(pairs.features[i, j])], QUIZ)
        doc.add(_BREAK)
    return doc


def copy(rng: np.random.Generator, words: Items, length: int) -> Document:
    """A few random words over and over: from the second time on, each can be known."""
    doc = Document()
    period = [words.ids[i][0][0] for i in rng.integers(len(words.ids), size=rng.integers(4, 25))]
    doc.add(period)
    while len(doc.ids) < length:
        doc.add(period, LABEL)
    return doc


def recall(rng: np.random.Generator, words: Items, length: int) -> Document:
    """A few words, each with a label of its own drawn for this document and known from then on."""
    doc = Document()
    keys = rng.choice(len(words.ids), size=rng.integers(2, 9), replace=False)
    pair = LABEL_WORDS[int(rng.random() < 0.25)]
    label = {i: [ID[pair[rng.integers(2)]]] for i in keys}
    fill = rng.random() < 0.5
    seen = set()
    while len(doc.ids) < length:
        i = keys[rng.integers(len(keys))]
        doc.add(words.ids[i][0])
        if fill:
            doc.add(_ids("?"))
        doc.add(label[i], LABEL if i in seen else PLAIN)
        if fill:
            doc.add(_BREAK)
        seen.add(i)
    return doc


def in_context(
    rng: np.random.Generator, items: Pool, length: int, mix: Mix
) -> tuple[Document, str]:
    """Items of one unit whose label a hidden rule decides; and that rule's name."""
    unit = UNITS[rng.choice(len(UNITS), p=mix.units)]
    if unit in ("copy", "recall"):
        return (copy if unit == "copy" else recall)(rng, items["word"], length), unit
    of = items[unit]
    names = mix.rules if unit == "pair" else of.names
    name = names[rng.integers(len(names))]
    rule = of.names.index(name)
    other = unit == "pair" and rng.random() >= mix.minimal
    pattern = ("gpt-3", "eval-harness")[rng.integers(2)] if other else "minimal"
    words = LABEL_WORDS[{"gpt-3": 0, "eval-harness": 1}.get(pattern, int(rng.random() < 0.25))]
    labels = [[ID[w]] for w in (words if rng.random() < 0.5 else words[::-1])]
    noise = mix.noise[rng.integers(len(mix.noise))]
    between, cue = _ITEMS[pattern]
    doc = Document()
    if unit == "pair" and rng.random() < mix.hinted:
        doc.add([ID[name], ID[":"]])
    while len(doc.ids) < length:
        has = int(rng.random() < 0.5)  # every rule is balanced, however rare its feature
        candidates = of.split[rule][has]
        first, *second = of.ids[candidates[rng.integers(len(candidates))]]
        doc.add(first + (between + second[0] if second else []) + cue)
        doc.add(labels[has ^ int(rng.random() < noise)], LABEL)
        doc.add(_BREAK)
    return doc, name


def batches(
    items: Pool, mix: Mix, *, documents: int, length: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Endless batches: ids and kinds, both (documents, length), and rules' names, "" for none."""
    rng = np.random.default_rng(seed)
    while True:
        ids, kinds = np.zeros((2, documents, length), dtype=np.int64)
        rules = [""] * documents
        for i in range(documents):
            kind = rng.random()
            if kind < mix.plain:
                doc = plain(rng, items["pair"], length)
            elif kind < mix.plain + mix.quiz:
                doc = quiz(rng, items["pair"], length)
            else:
                doc, rules[i] = in_context(rng, items, length, mix)
            ids[i], kinds[i] = doc.ids[:length], doc.kinds[:length]
        yield ids, kinds, rules
