"""The pocket world's data sets: pairs in MNLI's columns (in-domain) and in HANS's (out-of-domain).

In-domain, two cues go with the label, as documented for MultiNLI, and neither always: an entailed
hypothesis repeats the premise's words, a contradicted one is mostly negated. Out-of-domain, as in
HANS, every word of the hypothesis is in the premise, nothing is negated and half the hypotheses are
not entailed; the pairs are chosen by a linear programme so that no surface cue goes with the label.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from llmft.nli import cues
from llmft.pocket.grammar import (
    INTRANSITIVE,
    PEOPLE,
    TRANSITIVE,
    Literal,
    Sentence,
    entails,
    premise,
    say,
)


SIZES = {"test": 1200, "validation": 1200, "train": 6000}
"""Pairs of the in-domain sets, in the order in which they are drawn."""
PER_SUBCASE = 120
CANDIDATES = 60_000
"""Pairs from which the out-of-domain set is drawn."""
SUBCASES = {  # construction -> HANS-like names of its not-entailed and its entailed twin
    "active": ("ln_subject/object_swap", "le_adjective"),
    "passive": ("ln_passive", "le_passive"),
    "preposition": ("ln_preposition", "le_around_prepositional_phrase"),
    "relative clause": ("ln_relative_clause", "le_relative_clause"),
    "conjunction": ("ln_conjunction", "le_conjunction"),
}
Pair = tuple[Sentence, Sentence]
Group = tuple[bool, str, tuple[float, ...]]
"""Entailed or not, the construction, the values of all surface cues."""


def recombinations(sentence: Sentence) -> list[Sentence]:
    """Every short sentence made of this one's words alone, in a fixed order, true of it or not."""
    known = set(sentence.words) | {"the"}
    nouns = [n for n in PEOPLE if n in known]
    candidates = [
        say(Literal(a, v, b), passive=passive)
        for v in TRANSITIVE
        if v in known
        for a, b in itertools.permutations(nouns, 2)
        for passive in (False, True)
    ] + [say(Literal(a, u)) for u in INTRANSITIVE if u in known for a in nouns]
    return [s for s in candidates if set(s.words) <= known | {"The"} and s.words != sentence.words]


def other_words(rng: Random, p: Sentence, literal: Literal) -> Literal:
    """The literal with another person or another verb than the premise has."""
    other = rng.choice([name for name in PEOPLE if name not in p.words])
    verbs = TRANSITIVE if literal.object else INTRANSITIVE
    verb = rng.choice([one for one in verbs if one not in p.words])
    new = [replace(literal, subject=other), replace(literal, verb=verb)]
    if literal.object:
        new.append(replace(literal, object=other))
    return rng.choice(new)


def in_domain_pair(rng: Random) -> Pair:
    """A pair as the in-domain sets have them, half of them entailed.

    Entailed: a literal of the premise, now and then in the other voice. Not entailed: seven in ten
    are the premise's literal negated, the others replace a person or a verb, or recombine the
    premise's own words.
    """
    while True:
        p = premise(rng)
        literal = rng.choice(sorted(p.meaning, key=repr))
        passive = rng.random() < (0.9 if "was" in p.words else 0.1)
        if rng.random() < 0.5:
            h = say(literal, passive=passive)
            if h.words == p.words:
                continue
            return p, h
        kind = rng.random()
        if kind < 0.70:
            h = say(replace(literal, stated=not literal.stated), passive=passive)
        elif kind < 0.88:
            h = say(replace(other_words(rng, p, literal), stated=True), passive=passive)
        else:
            wrong = [s for s in recombinations(p) if not entails(p, s)]
            if not wrong:
                continue
            h = rng.choice(wrong)
        if not entails(p, h):
            return p, h


def in_domain(rng: Random, n: int, taken: set[str]) -> pd.DataFrame:
    """Draw n pairs, half of them entailed, in GLUE-MNLI's columns (0 entailment, 2 contradiction).

    No premise is in `taken`, to which theirs are added: so sets drawn in turn share no premise.
    """
    room = {True: n - n // 2, False: n // 2}
    labels: dict[tuple[str, str], int] = {}
    while len(labels) < n:
        p, h = in_domain_pair(rng)
        entailed = entails(p, h)
        if p.text in taken or (p.text, h.text) in labels or not room[entailed]:
            continue
        room[entailed] -= 1
        labels[p.text, h.text] = 0 if entailed else 2
    taken.update(p for p, _ in labels)
    rows = [(p, h, label) for (p, h), label in labels.items()]
    rng.shuffle(rows)
    return pd.DataFrame(rows, columns=["premise", "hypothesis", "label"]).assign(idx=range(n))


def out_of_domain(
    rng: Random,
    forms: Sequence[str] = tuple(SUBCASES),
    per_subcase: int = PER_SUBCASE,
    taken: Collection[str] = (),
) -> pd.DataFrame:
    """So many pairs of each of these constructions' subcases, in HANS's columns.

    No premise is in `taken`. Candidates are grouped by subcase and by all their surface cues at
    once; `_balanced` says how many to draw from each group.
    """
    groups: dict[Group, list[Pair]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for _ in range(CANDIDATES):
        p = premise(rng, rng.choice(list(forms)))
        h = rng.choice(recombinations(p) or [p])
        if h is p or (p.text, h.text) in seen or p.text in taken:
            continue
        seen.add((p.text, h.text))
        signature = tuple(cues.pair_cues(p.text, h.text, PEOPLE).values())
        groups[entails(p, h), p.form, signature].append((p, h))

    names = sorted(groups)
    plan = _balanced(names, np.array([len(groups[name]) for name in names]), per_subcase)
    rows = []
    for name, count in zip(names, _rounded(plan, names, per_subcase), strict=True):
        entailed, form, _ = name
        label = "entailment" if entailed else "non-entailment"
        for p, h in rng.sample(groups[name], count):
            rows.append((label, p.text, h.text, SUBCASES[form][entailed], form))
    rng.shuffle(rows)
    columns = ["gold_label", "sentence1", "sentence2", "subcase", "template"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(3, "pairID", [f"ood{i}" for i in range(len(frame))])
    frame.insert(4, "heuristic", "lexical_overlap")
    return frame


def _balanced(names: list[Group], room: np.ndarray, per_subcase: int) -> np.ndarray:
    """How many pairs to draw from each group: (groups,) numbers, by linear programming.

    Exactly: each subcase gets its number of pairs, and each value of each cue as many entailed as
    not entailed pairs. As far as that allows: so does each combination of cue values, and the draw
    spreads over all groups.
    """
    signatures = sorted({name[2] for name in names})
    sign = np.array([1.0 if entailed else -1.0 for entailed, _, _ in names])
    subcases = sorted({name[:2] for name in names})
    exact: list[Any] = [[name[:2] == subcase for name in names] for subcase in subcases]
    target = [float(per_subcase)] * len(exact)
    for cue in range(len(signatures[0])):
        for value in sorted({s[cue] for s in signatures}):
            exact.append(sign * [name[2][cue] == value for name in names])
            target.append(0.0)
    # The unknowns: n counts, m imbalances, and the largest share drawn of a group.
    n, m = len(names), len(signatures)
    imbalance = np.array([[s == name[2] for name in names] for s in signatures]) * sign
    at_most = np.block(
        [
            [imbalance, -np.eye(m), np.zeros((m, 1))],
            [-imbalance, -np.eye(m), np.zeros((m, 1))],
            [np.diag(1 / room), np.zeros((n, m)), -np.ones((n, 1))],
        ]
    )
    plan = linprog(
        np.concatenate([np.zeros(n), np.ones(m), [per_subcase]]),
        A_ub=at_most,
        b_ub=np.zeros(2 * m + n),
        A_eq=np.hstack([np.array(exact, float), np.zeros((len(exact), m + 1))]),
        b_eq=target,
        bounds=[(0, r) for r in room] + [(0, None)] * m + [(0, 1)],
    )
    return np.asarray(plan.x)[:n]


def _rounded(plan: np.ndarray, names: list[Group], per_subcase: int) -> list[int]:
    """Whole counts near the plan's, each subcase's adding up exactly (largest remainders)."""
    counts = np.floor(plan + 1e-9).astype(int)
    for subcase in {name[:2] for name in names}:
        mine = [j for j, name in enumerate(names) if name[:2] == subcase]
        short = per_subcase - counts[mine].sum()
        for j in sorted(mine, key=lambda j: counts[j] - plan[j])[:short]:
            counts[j] += 1
    return [int(c) for c in counts]


def write(folder: Path, seed: int = 0) -> None:
    """The data sets of a seed as files, CSV in GLUE's columns and HANS's tab-separated file.

    No two share a premise.
    """
    rng = Random(f"pocket data {seed}")
    hans = out_of_domain(rng)
    taken = set(hans["sentence1"])
    folder.mkdir(parents=True, exist_ok=True)
    hans.to_csv(folder / "hans.tsv", sep="\t", index=False, lineterminator="\n")
    for name, n in SIZES.items():
        frame = in_domain(rng, n, taken)
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def reported_premises(folder: Path) -> set[str]:
    """The premises of all that a chapter may report on or select with."""
    validation, test = (pd.read_csv(folder / f"{name}.csv") for name in ("validation", "test"))
    hans = pd.read_csv(folder / "hans.tsv", sep="\t")
    return {*validation["premise"], *test["premise"], *hans["sentence1"]}
