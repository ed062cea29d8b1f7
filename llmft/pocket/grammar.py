"""A grammar of English-like sentences about people, each with its meaning.

A sentence's meaning is a set of *literals*: who did what to whom, or that they never did. One
sentence entails another exactly when it states every literal of the other, so a label is true by
construction and needs no annotator. Adjectives and prepositional phrases state no literal (dropping
them keeps the meaning); a conjunction states its literal of each of its members; a relative clause
states one of its head.

The constructions are those of HANS (McCoy et al. 2019): active, passive, adjective, prepositional
phrase, conjunction, relative clause; and "never", one of the negation words that give away
MultiNLI's contradictions (Gururangan et al. 2018). Words are invented for this book.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


PEOPLE = (
    "doctor lawyer artist judge banker nurse pilot baker "
    "actor senator student tourist chef poet farmer singer"
).split()
TRANSITIVE = "helped called paid thanked advised followed met taught hired visited".split()
INTRANSITIVE = "danced slept laughed left waited sang ran arrived".split()
ADJECTIVES = "old young tall kind busy happy".split()
PREPOSITIONS = "near behind beside".split()
FUNCTION_WORDS = "The the was by who and never .".split()
WORDS = (*FUNCTION_WORDS, *PEOPLE, *TRANSITIVE, *INTRANSITIVE, *ADJECTIVES, *PREPOSITIONS)

FORMS = {
    "active": 0.22,
    "passive": 0.18,
    "preposition": 0.16,
    "conjunction": 0.18,
    "relative clause": 0.18,
    "negated": 0.08,
}
"""The premise's constructions and how often each is drawn."""


@dataclass(frozen=True)
class Literal:
    """Someone did (or, if `stated` is false, never did) something, perhaps to someone."""

    subject: str
    verb: str
    object: str | None = None
    stated: bool = True


@dataclass(frozen=True)
class Sentence:
    """Words (the full stop among them), what they mean, and the construction they were made by."""

    words: tuple[str, ...]
    meaning: frozenset[Literal]
    form: str

    @property
    def text(self) -> str:
        """The sentence as people write it: "The old doctor slept."""
        return " ".join(self.words[:-1]) + self.words[-1]


def entails(premise: Sentence, hypothesis: Sentence) -> bool:
    """Whether the premise states all that the hypothesis says."""
    return hypothesis.meaning <= premise.meaning


def _sentence(clause: str, literals: list[Literal], form: str) -> Sentence:
    words = clause.split()
    return Sentence(("The", *words[1:], "."), frozenset(literals), form)


def say(literal: Literal, *, passive: bool = False) -> Sentence:
    """A literal in words, in the passive voice on request (intransitive verbs have none)."""
    never = "" if literal.stated else "never "
    if literal.object is None:
        clause = f"the {literal.subject} {never}{literal.verb}"
    elif passive:
        clause = f"the {literal.object} was {never}{literal.verb} by the {literal.subject}"
    else:
        clause = f"the {literal.subject} {never}{literal.verb} the {literal.object}"
    return _sentence(clause, [literal], "passive" if passive and literal.object else "active")


def premise(rng: Random, form: str | None = None) -> Sentence:
    """A random sentence, of the construction `form` or of one drawn by the weights of `FORMS`."""
    if form is None:
        form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    a, b, c = rng.sample(PEOPLE, 3)
    v, w = rng.sample(TRANSITIVE, 2)
    u = rng.choice(INTRANSITIVE)

    def the(person: str, chance: float = 0.15) -> str:
        old = f"{rng.choice(ADJECTIVES)} " if rng.random() < chance else ""
        return f"the {old}{person}"

    if form == "active":
        options = [(f"{the(a, 0.5)} {v} {the(b)}", [Literal(a, v, b)])]
    elif form == "passive":
        options = [(f"{the(b)} was {v} by {the(a)}", [Literal(a, v, b)])]
    elif form == "preposition":
        place = rng.choice(PREPOSITIONS)
        options = [
            (f"{the(a)} {place} the {b} {u}", [Literal(a, u)]),
            (f"the {a} {place} the {b} {v} the {c}", [Literal(a, v, c)]),
            (f"the {a} {v} the {b} {place} the {c}", [Literal(a, v, b)]),
            (f"the {a} {place} the {b} was {v} by the {c}", [Literal(c, v, a)]),
        ]
    elif form == "conjunction":
        options = [
            (f"{the(a)} and {the(b)} {u}", [Literal(a, u), Literal(b, u)]),
            (f"the {a} {v} the {b} and the {c}", [Literal(a, v, b), Literal(a, v, c)]),
            (f"the {a} and the {b} {v} the {c}", [Literal(a, v, c), Literal(b, v, c)]),
            (f"the {a} was {v} by the {b} and the {c}", [Literal(b, v, a), Literal(c, v, a)]),
        ]
    elif form == "relative clause":
        options = [
            (f"{the(a)} who {v} {the(b)} {u}", [Literal(a, v, b), Literal(a, u)]),
            (f"the {a} {v} the {b} who {w} the {c}", [Literal(a, v, b), Literal(b, w, c)]),
            (f"the {a} who {v} the {b} {w} the {c}", [Literal(a, v, b), Literal(a, w, c)]),
            (f"the {a} who {v} the {b} was {w} by the {c}", [Literal(a, v, b), Literal(c, w, a)]),
        ]
    else:
        options = [
            (f"{the(a)} never {v} {the(b)}", [Literal(a, v, b, stated=False)]),
            (f"{the(a)} never {u}", [Literal(a, u, stated=False)]),
        ]
    clause, literals = rng.choice(options)
    return _sentence(clause, literals, form)
