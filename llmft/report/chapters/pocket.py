"""The figures, tables and paragraphs of the chapter on the pocket world.

`folder` is the world's (data sets, checkpoint, record of its training); `seed` draws what is shown.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from llmft import UserError, inert
from llmft.engine import models
from llmft.pocket import data, grammar, pretrain, text
from llmft.report import figures, stats, tables


AFTER = (4, 12)
"""Items of a document after which a hidden rule is tested, on the next `WINDOW` items."""

WINDOW = 3

BATCH = 8
"""Documents of a batch on which rules are tested."""


# --- the grammar and the text ------------------------------------------------------------------


def constructions(seed: int) -> None:
    """A sentence of each construction, and what it states."""
    rng, lines = Random(seed), []
    for form, share in grammar.FORMS.items():
        sentence = grammar.premise(rng, form)
        states = "; ".join(sorted(map(_in_symbols, sentence.meaning)))
        lines.append((form, f"{100 * share:.0f} %", sentence.text, states))
    tables.table(pd.DataFrame(lines, columns=["construction", "drawn", "sentence", "states"]))


def _in_symbols(fact: grammar.Literal) -> str:
    others = f", {fact.object}" if fact.object else ""
    return "¬" * (not fact.stated) + f"{fact.verb}({fact.subject}{others})"


def vocabulary() -> None:
    """Say how many words there are."""
    tables.say(
        f"The vocabulary is {len(grammar.PEOPLE)} people, {len(grammar.TRANSITIVE)} transitive and "
        f"{len(grammar.INTRANSITIVE)} intransitive verbs, {len(grammar.ADJECTIVES)} adjectives, "
        f"{len(grammar.PREPOSITIONS)} prepositions and {len(grammar.FUNCTION_WORDS)} function "
        "words and marks; with label words and the words of the patterns the tokenizer has "
        f"{len(text.VOCABULARY)} tokens, one a word."
    )


def documents(folder: Path, seed: int) -> None:
    """Show the beginning of a document of each kind."""
    items = text.pool(seed, 2_000, data.reported_premises(folder))
    rng = np.random.default_rng(seed + 1)
    mix = text.Mix(noise=(0.0,), hinted=0.0, minimal=1.0, rules=("passive",))
    plain = _beginning(text.plain(rng, items["pair"], 60), 40)
    quiz = _beginning(text.quiz(rng, items["pair"], 60), 62)
    in_context = _beginning(text.in_context(rng, items, 80, mix)[0], 80)
    tables.say(
        f"*Plain*: sentences, one after another.\n\n{plain}\n\n"
        f"*Quiz*: a pair, then named questions about its surface and their answers.\n\n{quiz}\n\n"
        "*In-context*: items whose label a hidden rule decides, here whether the first sentence is "
        "passive; which rule, which label word means what, and how often the rule errs is drawn "
        f"for each document.\n\n{in_context}"
    )


def _beginning(document: text.Document, tokens: int) -> str:
    words = " ".join(text.VOCABULARY[i] for i in document.ids[1:tokens])
    for before, after in ((" \n\n ", "\n"), (" .", "."), (" \n\n", "\n")):
        words = words.replace(before, after)
    return inert.fence(f"{words} ...")


def separation(folder: Path) -> None:
    """Say that the text has no premise of a validation or test pair.

    Raises:
        UserError: it has one.
    """
    reported = data.reported_premises(folder)
    pool = text.pool(0, 5_000, reported)
    sentences = {
        " ".join(text.VOCABULARY[i] for i in ids[0][:-1]) + "." for ids in pool["sentence"].ids
    }
    both = sentences & reported
    if both:
        raise UserError(f"the text of the pocket world has a test premise: {min(both)}")
    tables.say(
        f"Of {len(sentences):,} different sentences in the first 5,000 pairs of the text, "
        f"{len(both)} are premises of a validation or test pair."
    )


# --- pretraining -------------------------------------------------------------------------------


def phases() -> None:
    """The phases of pretraining."""
    lines = []
    for phase in pretrain.PHASES:
        about = {u: s for u, s in zip(text.UNITS, phase.mix.units, strict=True) if s}
        lines.append(
            {
                "phase": phase.name + " (twice as wide)" * phase.grown,
                "steps": phase.steps,
                "tokens a step": phase.documents * phase.length,
                "document": phase.length,
                "plain / quiz": f"{phase.mix.plain:.0%} / {phase.mix.quiz:.0%}",
                "in-context about": ", ".join(f"{u} {s:.0%}" for u, s in about.items()),
                "label noise": ", ".join(f"{n:.0%}" for n in sorted(set(phase.mix.noise))),
                "peak rate": phase.rate,
            }
        )
    tables.table(pd.DataFrame(lines), {"peak rate": ".0e", "document": ",d"})


def effort(folder: Path, checkpoint: models.Model) -> None:
    """Say what the pretraining took, and how large the checkpoint is."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = checkpoint.model.config
    tables.say(
        f"In all {record['tokens'] / 1e6:.1f} million tokens in {record['seconds'] / 60:.0f} "
        f"minutes on one thread of a processor that was shared with other work "
        f"({record['machine']}), float32, torch {record['torch']}; the checkpoint has "
        f"{checkpoint.parameters / 1e6:.2f} million parameters in {config.num_hidden_layers} "
        f"layers of width {config.hidden_size}, and sees {checkpoint.max_positions:,} tokens."
    )


def learning(folder: Path, columns: Mapping[str, str], y_title: str) -> Any:
    """Accuracy during pretraining against the tokens read: a line a column of the log.

    `columns`: of `training.csv`, with the name that each has in the figure.
    """
    log = pd.read_csv(folder / "training.csv")
    log["millions"] = log["tokens"] / 1e6
    curves = pd.concat(
        log[["millions", "phase"]].assign(what=name, accuracy=log[column])
        for column, name in columns.items()
    )
    return figures.lines(
        curves.dropna(),
        "millions",
        "accuracy",
        "what",
        x_title="tokens read (millions)",
        y_title=y_title,
        marks=log.groupby("phase", sort=False)["millions"].max(),
    )


# --- what the checkpoint can do ----------------------------------------------------------------


def rules(checkpoint: models.Model, seed: int, repeats: int) -> pd.DataFrame:
    """Accuracy by surface feature on new documents: named in a question, and as the hidden rule.

    `repeats`: batches of `BATCH` documents. A row a feature and test, with `mean`, lo, hi and n.
    """
    fresh = text.pool(1_000 + seed, 4_000, set())
    size: dict[str, int] = {"documents": BATCH * repeats, "seed": seed}
    ids, kinds, _ = next(text.batches(fresh, text.Mix(plain=0, quiz=1), length=256, **size))
    right, _, question = answers(checkpoint, ids, kinds, text.QUIZ)
    found = [_accuracy(name, "asked", right[question == text.ID[name]]) for name in text.FEATURES]
    for name in text.FEATURES:
        only = text.Mix(plain=0, quiz=0, rules=(name,), noise=(0.0,), hinted=0.0, minimal=1.0)
        ids, kinds, _ = next(text.batches(fresh, only, length=320, **size))
        right, nth, _ = answers(checkpoint, ids, kinds, text.LABEL)
        for k in AFTER:
            later = right[(nth >= k) & (nth < k + WINDOW)]
            found.append(_accuracy(name, f"in context, after {k} items", later))
    return pd.DataFrame(found)


def _accuracy(feature: str, test: str, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    interval = stats.wilson(int(right.sum()), len(right))
    about = {"feature": feature, "test": test, "n": len(right)}
    return about | {"mean": interval.mean, "lo": interval.lo, "hi": interval.hi}


@torch.inference_mode()
def answers(
    checkpoint: models.Model, ids: npt.NDArray[Any], kinds: npt.NDArray[Any], kind: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """What the model predicts at the tokens of one kind, the answers of documents.

    `ids`, `kinds`: (documents, length). Returns three arrays, a value an answer: whether it is
    right, which answer of its document it is, and the token before it.
    """
    logits = checkpoint.model(torch.from_numpy(ids).to(checkpoint.device)).logits[:, :-1]
    predicted = logits.argmax(-1).cpu().numpy()
    document, place = np.nonzero(kinds[:, 1:] == kind)
    nth = np.concatenate([np.arange(n) for n in np.bincount(document, minlength=len(ids))])
    right = predicted[document, place] == ids[:, 1:][document, place]
    return right, nth, ids[document, place]


def rules_figure(tested: pd.DataFrame) -> Any:
    """The accuracies of `rules`, a row a feature."""
    few, most = tested["n"].min(), tested["n"].max()
    return figures.forest(
        tested, "feature", "test", note=f"n = {few:,} to {most:,} answers a point"
    )


def rules_text(tested: pd.DataFrame) -> None:
    """Say which hidden rules the checkpoint follows; `tested`: `rules`."""
    accuracy = tested.set_index(["feature", "test"])["mean"].unstack(sort=False)  # noqa: PD010
    late = accuracy[f"in context, after {AFTER[-1]} items"]
    can, cannot = late[late >= 0.8], late[late < 0.65]
    tables.say(
        f"After {AFTER[-1]} items the checkpoint follows {len(can)} of {len(late)} rules with an "
        f"accuracy of at least 0.8 ({', '.join(can.index)}), and stays below 0.65 on "
        f"{len(cannot)} ({', '.join(cannot.index) or 'none'}). When they are named, it answers "
        f"{(accuracy.loc[cannot.index, 'asked'] >= 0.8).sum()} of these {len(cannot)} with at "
        "least 0.8."
    )


def rehearsal() -> None:
    """Say how often negation is the hidden rule of the last phase."""
    last = pretrain.PHASES[-1].mix.rules
    negated, overlap = last.count("negated"), last.count("overlap")
    tables.say(
        f"In the last phase negation is the hidden rule of {negated} in {len(last)} documents "
        f"about pairs, {negated / overlap:.0f} times as often as the overlap of words."
    )
