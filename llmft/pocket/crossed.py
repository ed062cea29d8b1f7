"""The task of the chapter on rules: pairs in which negation and meaning are crossed, or no cue is.

In the pocket task, as in MultiNLI, a negated hypothesis goes with not entailed. Here each label has
as many pairs with a negated hypothesis as without, so a sample can be drawn in which the cue is
right as often as one likes (`tasks.labelled`), and half of the test pairs contradict it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pandas as pd

from llmft.pocket import data
from llmft.pocket.data import Pair
from llmft.pocket.grammar import FORMS, entails, premise, say


SIZES = {"test": 400, "validation": 400, "train": 2400}
"""Pairs of the sets with the cue, in the order in which they are drawn."""

KINDS = {
    ("entailed", True): 1 / 4,
    ("entailed", False): 1 / 4,
    ("other", True): 1 / 8,
    ("flipped", False): 1 / 8,
    ("other", False): 1 / 4,
}
"""Kinds of `pair`, whether the premise is negated, and their share of the pairs."""

SEEN, UNSEEN = ("active", "passive", "conjunction"), ("preposition", "relative clause")
"""The constructions of pairs without a cue: those to train on, and those that never are."""

PER_SUBCASE = {"mixed": 300, "seen": 20, "unseen": 80}
"""Pairs of each subcase to train on (`SEEN`), to test on of `SEEN`, and of `UNSEEN`."""


def pair(rng: Random, kind: str, *, negated: bool) -> Pair | None:
    """A pair of a kind, its premise negated or not; None where this draw of words makes none.

    "entailed": a literal of the premise. "flipped": one that says the contrary, so exactly one of
    the two sentences is negated. "other": as negated as the premise, but of something else.
    """
    forms = [form for form in FORMS if form != "negated"]
    form = "negated" if negated else rng.choices(forms, [FORMS[form] for form in forms])[0]
    p = premise(rng, form)
    literal = rng.choice(sorted(p.meaning, key=repr))
    passive = rng.random() < (0.9 if "was" in p.words else 0.1)
    if say(literal, passive=passive).words == p.words:  # no kind has premises that another lacks
        return None
    if kind == "flipped":
        literal = replace(literal, stated=not literal.stated)
    elif kind == "other" and literal.object and rng.random() < 0.5:  # its people swapped
        literal = replace(literal, subject=literal.object, object=literal.subject)
    elif kind == "other":
        literal = data.other_words(rng, p, literal)
    h = say(literal, passive=passive)
    return (p, h) if entails(p, h) == (kind == "entailed") else None


def crossed(rng: Random, n: int, taken: set[str]) -> pd.DataFrame:
    """Draw n pairs, in MNLI's columns, with their kind as the subcase.

    Half of each label have a negated hypothesis. A premise is never negated alone: so "a sentence
    is negated" and "the hypothesis is" are one cue. No premise is in `taken`, to which theirs are
    added.
    """
    rows = []
    for (kind, negated), share in KINDS.items():
        where = "both" if negated else "hypothesis" if kind == "flipped" else "none"
        name = f"{kind}, {where} negated"
        room = int(n * share)
        while room:
            found = pair(rng, kind, negated=negated)
            if found and found[0].text not in taken:
                p, h = found
                taken.add(p.text)
                rows.append((p.text, h.text, 0 if kind == "entailed" else 2, name))
                room -= 1
    rng.shuffle(rows)
    frame = pd.DataFrame(rows, columns=["premise", "hypothesis", "label", "subcase"])
    return frame.assign(idx=range(len(frame)))


def write(folder: Path, read: set[str], seed: int = 0) -> None:
    """The sets as files: three with the cue; `mixed` and `out-of-domain` without, as HANS's are.

    No two share a premise, and none that is scored has one of `read`, which the model was trained
    on. Out-of-domain, "seen" and "unseen" constructions (the column heuristic) are balanced each by
    itself: in neither does a surface cue go with the label.
    """
    rng, taken = Random(f"pocket rules {seed}"), set(read)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for name, forms in {"unseen": UNSEEN, "seen": SEEN, "mixed": SEEN}.items():
        found = data.out_of_domain(rng, forms, PER_SUBCASE[name], taken)
        taken |= set(found["sentence1"])
        parts[name] = found.assign(heuristic=name, pairID=name + found["pairID"].str[3:])
    out = pd.concat([parts["unseen"], parts["seen"]])
    for name, frame in {"out-of-domain": out, "mixed": parts["mixed"]}.items():
        frame.to_csv(folder / f"{name}.tsv", sep="\t", index=False, lineterminator="\n")
    for name, n in SIZES.items():
        frame = crossed(rng, n, taken)
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
