"""Pretraining of the pocket checkpoint: a small OPT on the pocket world's text, from a seed.

The curriculum is a table, `PHASES`. What a phase is for stands beside it; the appendix chapter
shows the curve. The loss is a weighted sum of means over three kinds of tokens, because label
tokens are one in fifteen: ordinary tokens, quiz answers and in-context labels. Documents begin at a
random position, so that every position of the model's table is trained although most documents are
short.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import OPTConfig, OPTForCausalLM

from llmft.engine import scoring
from llmft.hardware import device_name
from llmft.nli import prompts, tasks
from llmft.pocket import crossed
from llmft.pocket.data import reported_premises, write
from llmft.pocket.text import LABEL, PLAIN, QUIZ, VOCABULARY, Mix, Pool, batches, pool, tokenizer


POOL = 100_000
POSITIONS = 1024
WEIGHTS = {PLAIN: 0.1, QUIZ: 1.0, LABEL: 2.0}
"""What a kind of token weighs in the loss: the weight times its mean cross-entropy in the batch."""

EASY = ("negated", "transitive", "voice", "passive", "clause", "joined", "adjective", "place")
HARD = ("overlap", "subject", "object", "verb")

SHOTS, QUERIES, DRAWS = (0, 8), 200, 4
"""Of `probe`: numbers of demonstrations, and how many pairs and draws of demonstrations."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the curriculum."""

    name: str
    steps: int
    mix: Mix
    documents: int = 4  # in a batch: small, because the circuits take steps rather than tokens
    length: int = 64  # tokens of a document
    rate: float = 1e-3  # AdamW's peak learning rate
    warmup: int = 100  # steps
    grown: bool = False  # twice as wide from here on
    every: int = 500  # steps between two lines of the log
    decay: float = 0.0  # share of the phase's steps in which the rate falls linearly to a tenth


PHASES = (
    # Named questions about pairs, and word lookups: the features.
    Phase("quiz", 4000, Mix(quiz=0.75, units=(0.0, 1.0, 0.0, 0.0, 0.0), noise=(0.0,))),
    # Copying and looking up, where nearly every token can be known: induction heads (Olsson et
    # al. 2022). Without this phase, 6,000 steps of the next one stayed on its plateau (0.67).
    Phase(
        "copy",
        4500,
        Mix(quiz=0.1, units=(0.4, 0.4, 0.2, 0.0, 0.0), noise=(0.0,)),
        documents=8,
        decay=0.3,
    ),
    # The in-context circuit where it is easiest: a word's label is its last one, or its class's.
    Phase("recall", 2000, Mix(quiz=0.1, units=(0.0, 0.7, 0.3, 0.0, 0.0), noise=(0.0,))),
    # The same circuit over features of a sentence, then of a pair.
    Phase(
        "sentences",
        4000,
        Mix(quiz=0.2, units=(0.0, 0.1, 0.1, 0.4, 0.4), rules=EASY[:3], hinted=0.0, noise=(0.0,)),
        length=128,
    ),
    # Every rule, read off noisy labels: real cues are right only most of the time.
    Phase(
        "rules",
        6000,
        Mix(units=(0.0, 0.05, 0.05, 0.1, 0.8), rules=EASY * 2 + HARD, hinted=0.1),
        length=256,
        rate=7e-4,
    ),
    # Twice as wide, documents long enough for 32 demonstrations, and a falling rate.
    Phase(
        "long",
        2000,
        Mix(quiz=0.15, rules=EASY[:4] * 3 + EASY[4:] + HARD, hinted=0.05),
        documents=2,
        length=640,
        rate=5e-4,
        decay=0.7,
        grown=True,
    ),
)


# --- the model -----------------------------------------------------------------------------------


def initial(seed: int, layers: int = 5, hidden: int = 64, heads: int = 4) -> OPTForCausalLM:
    """A small OPT of the published architecture, initialised so that attention is learnt sooner.

    Positions start as sinusoids (Vaswani et al. 2017) and every layer's query and key projections
    start equal, so that a token attends to tokens like it (mimetic initialisation, Trockman and
    Kolter 2023). Both are only a start: all of it is trained. Dropout is off here, because the text
    never repeats.
    """
    config = OPTConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        ffn_dim=4 * hidden,
        max_position_embeddings=POSITIONS,
        init_std=0.05,
        dropout=0.0,
    )
    torch.manual_seed(seed)
    model = OPTForCausalLM(config)
    decoder = model.model.decoder
    with torch.no_grad():
        table = decoder.embed_positions.weight  # (positions + 2, hidden)
        rate = torch.exp(
            -torch.arange(0, hidden, 2) / hidden * math.log(len(table) / (2 * math.pi))
        )
        angle = torch.arange(len(table))[:, None] * rate
        table.copy_(0.07 * torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1))
        for layer in decoder.layers:
            basis, _ = torch.linalg.qr(torch.randn(hidden, hidden))
            layer.self_attn.q_proj.weight.copy_(basis)
            layer.self_attn.k_proj.weight.copy_(basis)
    return model


def grow(model: OPTForCausalLM, seed: int) -> OPTForCausalLM:
    """The same function at twice the width and heads (Net2Net, Chen et al. 2016, arXiv:1511.05641).

    Every hidden unit is there twice, so each weight matrix is split over the two copies of its
    input: W x is (W/2 + N) x + (W/2 - N) x for any N, and a random N lets the copies part in
    training. The last layer norm is halved, because the tied output embedding now sums over both
    copies.
    """
    sizes = ("hidden_size", "word_embed_proj_dim", "ffn_dim", "num_attention_heads")
    old = model.config.to_dict()
    config = OPTConfig(**(old | {name: 2 * old[name] for name in sizes}))
    generator = torch.Generator().manual_seed(seed)
    wide = OPTForCausalLM(config)
    state = {}
    for name, w in model.state_dict().items():
        if "embed" in name or "lm_head" in name:
            state[name] = torch.cat([w, w], dim=1)
        elif w.ndim == 1:
            last_norm = "final_layer_norm" in name and "layers" not in name
            state[name] = torch.cat([w, w]) * (0.5 if last_norm else 1.0)
        else:
            noise = 0.5 * w.std() * torch.randn(2 * len(w), w.shape[1], generator=generator)
            half = torch.cat([w, w]) / 2
            state[name] = torch.cat([half + noise, half - noise], dim=1)
    wide.load_state_dict(state)
    return wide


# --- training ------------------------------------------------------------------------------------


def losses(
    model: OPTForCausalLM, ids: torch.Tensor, kinds: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, each token's cross-entropy in nats, and whether it was predicted.

    ids, kinds: (documents, length); offsets: (documents,) positions at which the documents begin.
    The last two are (documents, length - 1): the first token is given.
    """
    targets, kinds = ids[:, 1:], kinds[:, 1:]
    weight = torch.zeros(kinds.shape)
    for kind, w in WEIGHTS.items():
        of = kinds == kind
        weight[of] = w / max(1, int(of.sum()))
    positions = torch.arange(ids.shape[1]) + offsets[:, None]
    logits = model(ids, position_ids=positions, use_cache=False).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    ).view_as(targets)
    return (nll * weight).sum(), nll.detach(), logits.argmax(-1) == targets


def _measures(
    nll: torch.Tensor, right: torch.Tensor, kinds: torch.Tensor, rules: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """What a batch shows, by column of the log: losses by kind of token, and accuracies.

    An item counts as late from its document's seventh on.
    """
    for kind, name in ((PLAIN, "plain"), (QUIZ, "quiz"), (LABEL, "label")):
        if (of := kinds == kind).any():
            yield f"loss_{name}", float(nll[of].mean())
            if kind == QUIZ:
                yield "quiz", float(right[of].float().mean())
    for i, rule in enumerate(rules):
        late = right[i][kinds[i] == LABEL][6:].float()
        if rule and len(late):
            yield "late", float(late.mean())
            yield f"late {rule}", float(late.mean())


def train_phase(
    model: OPTForCausalLM, items: Pool, phase: Phase, seed: int
) -> Iterator[dict[str, Any]]:
    """Train on one phase's documents in place; a row of the log now and then, and at the end.

    Its tokens and seconds are those since the last row. Each phase has its own AdamW (betas .9 and
    .98, weight decay .05), and gradients are clipped to norm 1.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    stream = batches(items, phase.mix, documents=phase.documents, length=phase.length, seed=seed)
    falling = max(1, round(phase.decay * phase.steps))
    found: dict[str, list[float]] = defaultdict(list)
    began, tokens = time.perf_counter(), 0
    model.train()
    for step in range(1, phase.steps + 1):
        left = min(1.0, (phase.steps - step) / falling) if phase.decay else 1.0
        warm = min(1.0, step / phase.warmup)
        optimiser.param_groups[0]["lr"] = phase.rate * warm * (0.1 + 0.9 * left)
        ids, kinds, rules = next(stream)
        offsets = torch.randint(0, POSITIONS - phase.length + 1, (len(ids),), generator=generator)
        x, k = torch.from_numpy(ids), torch.from_numpy(kinds)
        loss, nll, right = losses(model, x, k, offsets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for name, value in _measures(nll, right, k[:, 1:], rules):
            found[name].append(value)
        tokens += x.numel()
        if step % phase.every == 0 or step == phase.steps:
            means = {name: float(np.mean(values)) for name, values in sorted(found.items())}
            seconds = time.perf_counter() - began
            yield {"phase": phase.name, "step": step, "tokens": tokens, "seconds": seconds} | means
            found.clear()
            began, tokens = time.perf_counter(), 0
    model.eval()


def probe(model: OPTForCausalLM, folder: Path) -> dict[str, float]:
    """In-context accuracy on the NLI task by number of demonstrations, on validation pairs alone.

    The only look at the task during pretraining: it steered the curriculum and the choice of
    phases. Demonstrations come from the training set.
    """
    task = tasks.load(str(folder))
    words, found = tokenizer(), {}
    pattern = prompts.PATTERNS["minimal"]
    labels = prompts.label_tokens(words, pattern)
    for shots in SHOTS:
        right = []
        for draw in range(DRAWS if shots else 1):
            pairs = task.validation.iloc[draw * QUERIES : (draw + 1) * QUERIES]
            examples = tasks.sample(task.train, shots, draw) if shots else None
            ids = prompts.encode(words, pattern, pairs, examples, POSITIONS)
            chosen = scoring.score(model, ids, labels).argmax(1).numpy()
            right.append(float((chosen == pairs["label"].to_numpy()).mean()))
        found[f"nli_{shots}"] = float(np.mean(right))
    return found


def pretrain(folder: Path, seed: int = 0, phases: Sequence[Phase] = PHASES) -> None:
    """Make `folder`/model from the data sets in `folder`, `folder`/model-1 with seed 1.

    Beside the checkpoint: training.csv, a line of the curve every few hundred steps, and
    training.json, what the whole took (tokens, seconds, machine, versions). Those of a seed are
    training-1.csv, training-1.json, and its weights are stored in 16 bits.
    """
    end = f"-{seed}" if seed else ""
    torch.set_num_threads(1)  # at this size a second thread costs more than it gives
    items = pool(seed, POOL, reported_premises(folder))
    model, rows = initial(seed), []
    tokens, seconds = 0, 0.0
    for number, phase in enumerate(phases):
        if phase.grown:
            model = grow(model, seed)
        for row in train_phase(model, items, phase, seed=1000 * seed + number):
            tokens, seconds = tokens + row["tokens"], seconds + row["seconds"]
            row |= {"tokens": tokens, "seconds": seconds}
            if row["step"] == phase.steps or row["step"] % (5 * phase.every) == 0:
                row |= probe(model, folder)
            rows.append(row)
            print(row, flush=True)
    model.config.dropout = 0.1  # as OPT: for whoever trains it further
    place = folder / f"model{end}"
    if seed:
        torch.nn.Module.half(model)
    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    pd.DataFrame(rows).to_csv(folder / f"training{end}.csv", index=False, float_format="%.5g")
    record = {
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "seconds": round(seconds),
        "machine": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    (folder / f"training{end}.json").write_text(json.dumps(record, indent=2) + "\n")


def sentences(folder: Path, seed: int = 0) -> set[str]:
    """The sentences that the model of a seed, made from `folder`, was trained on."""
    items = pool(seed, POOL, reported_premises(folder))["sentence"]
    words = ([VOCABULARY[i] for i in ids] for (ids,) in items.ids)
    return {" ".join(one[:-1]) + one[-1] for one in words}


def main(folder: Path) -> None:
    """Make the whole pocket world in `folder`, and beside it the task of the chapter on rules."""
    write(folder)
    crossed.write(folder.with_name("pocket-rules"), sentences(folder))
    pretrain(folder)
