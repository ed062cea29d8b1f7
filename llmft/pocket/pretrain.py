"""Pretraining of the pocket checkpoint: a small OPT on the pocket world's text, from a seed.

The curriculum is a table, `PHASES`. What a phase is for stands beside it; the appendix chapter
shows the curve. The loss is a weighted sum of means over three kinds of tokens, because label
tokens are one in fifteen: ordinary tokens, quiz answers and in-context labels. Documents begin at a
random position, so that every position of the model's table is trained although most documents are
short.

`pretrain` may be killed at any moment: each finished phase is kept and the next call goes on from
there.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import OPTConfig, OPTForCausalLM

from llmft import ROOT
from llmft.engine import scoring
from llmft.hardware import device_name
from llmft.nli import prompts, tasks
from llmft.pocket.data import reported_premises, write
from llmft.pocket.text import LABEL, PLAIN, QUIZ, VOCABULARY, Mix, Pool, batches, pool, tokenizer


Row = dict[str, Any]
POOL = 100_000
POSITIONS = 1024
WEIGHTS = {PLAIN: 0.1, QUIZ: 1.0, LABEL: 2.0}
"""What a kind of token weighs in the loss: the weight times its mean cross-entropy in the batch."""

EASY = ("negated", "transitive", "voice", "passive", "clause", "joined", "adjective", "place")
HARD = ("overlap", "subject", "object", "verb")


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
    Phase("quiz", 4000, Mix(plain=0.05, quiz=0.75, units=(0.0, 1.0, 0.0, 0.0, 0.0), noise=(0.0,))),
    # Copying and looking up, where nearly every token can be known: induction heads (Olsson et
    # al. 2022). Without this phase, 6,000 steps of the next one stayed on its plateau (0.67).
    Phase(
        "copy",
        4500,
        Mix(plain=0.05, quiz=0.1, units=(0.4, 0.4, 0.2, 0.0, 0.0), noise=(0.0,)),
        documents=8,
        decay=0.3,
    ),
    # The in-context circuit where it is easiest: a word's label is its last one, or its class's.
    Phase("recall", 2000, Mix(plain=0.05, quiz=0.1, units=(0.0, 0.7, 0.3, 0.0, 0.0), noise=(0.0,))),
    # The same circuit over features of a sentence, then of a pair.
    Phase(
        "sentences",
        4000,
        Mix(
            plain=0.05,
            quiz=0.2,
            units=(0.0, 0.1, 0.1, 0.4, 0.4),
            rules=EASY[:3],
            hinted=0.0,
            noise=(0.0,),
        ),
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


@dataclass
class Tally:
    """What was seen between two rows of the log: losses by kind of token, accuracies by name."""

    loss: dict[int, list[float]] = field(default_factory=lambda: {PLAIN: [], QUIZ: [], LABEL: []})
    right: dict[str, list[float]] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """The means, by column of the log; then starts again."""
        names = {PLAIN: "loss_plain", QUIZ: "loss_quiz", LABEL: "loss_label"}
        row = {names[k]: float(np.mean(v)) for k, v in self.loss.items() if v}
        row |= {name: float(np.mean(v)) for name, v in sorted(self.right.items())}
        for seen in self.loss.values():
            seen.clear()
        self.right.clear()
        return row


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


def _note(
    tally: Tally, nll: torch.Tensor, right: torch.Tensor, kinds: torch.Tensor, rules: list[str]
) -> None:
    """Add a batch to the tally; an item counts as late from its document's seventh on."""
    for kind, losses in tally.loss.items():
        if bool((of := kinds == kind).any()):
            losses.append(float(nll[of].mean()))
    if bool((of := kinds == QUIZ).any()):
        tally.right.setdefault("quiz", []).append(float(right[of].float().mean()))
    for i, rule in enumerate(rules):
        late = right[i][kinds[i] == LABEL][6:].float()
        if rule and len(late):
            tally.right.setdefault("late", []).append(float(late.mean()))
            tally.right.setdefault(f"late {rule}", []).append(float(late.mean()))


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
            state[name] = torch.cat([w, w]) * (
                0.5 if "final_layer_norm" in name and "layers" not in name else 1.0
            )
        else:
            noise = 0.5 * w.std() * torch.randn(2 * len(w), w.shape[1], generator=generator)
            half = torch.cat([w, w]) / 2
            state[name] = torch.cat([half + noise, half - noise], dim=1)
    wide.load_state_dict(state)
    return wide


def train_phase(
    model: OPTForCausalLM,
    items: Pool,
    phase: Phase,
    *,
    seed: int,
    start: tuple[int, float] = (0, 0.0),
) -> Iterator[Row]:
    """Train on one phase's documents in place; a row of the log now and then, and at the end.

    `start` holds the tokens and seconds before the phase. Each phase has its own AdamW (betas .9
    and .98, weight decay .05), and gradients are clipped to norm 1.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    stream = batches(items, phase.mix, documents=phase.documents, length=phase.length, seed=seed)
    tally, (tokens, seconds) = Tally(), start
    falling = max(1, round(phase.decay * phase.steps))
    model.train()
    for step in range(1, phase.steps + 1):
        began = time.perf_counter()
        left = min(1.0, (phase.steps - step) / falling) if phase.decay else 1.0
        optimiser.param_groups[0]["lr"] = (
            phase.rate * min(1.0, step / phase.warmup) * (0.1 + 0.9 * left)
        )
        ids, kinds, rules = next(stream)
        offsets = torch.randint(0, POSITIONS - phase.length + 1, (len(ids),), generator=generator)
        x, k = torch.from_numpy(ids), torch.from_numpy(kinds)
        loss, nll, right = losses(model, x, k, offsets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        _note(tally, nll, right, k[:, 1:], rules)
        tokens += x.numel()
        seconds += time.perf_counter() - began
        if step % phase.every == 0 or step == phase.steps:
            at = {"phase": phase.name, "step": step, "tokens": tokens, "seconds": seconds}
            yield at | tally.row()
    model.eval()  # type: ignore[no-untyped-call]


def probe(
    model: OPTForCausalLM,
    folder: Path,
    shots: Sequence[int] = (0, 8),
    queries: int = 200,
    draws: int = 4,
) -> dict[str, float]:
    """In-context accuracy on the NLI task by number of demonstrations, on validation pairs alone.

    The only look at the task during pretraining: it steered the curriculum and the choice of
    phases. Demonstrations come from the training set.
    """
    task = tasks.load(str(folder))
    words, found = tokenizer(), {}
    pattern = prompts.PATTERNS["minimal"]
    labels = prompts.label_tokens(words, pattern)
    for k in shots:
        right = []
        for draw in range(draws if k else 1):
            pairs = task.validation.iloc[draw * queries : (draw + 1) * queries]
            examples = tasks.sample(task.train, k, draw) if k else None
            ids = prompts.encode(words, pattern, pairs, examples, POSITIONS)
            chosen = scoring.score(model, ids, labels).argmax(1).numpy()
            right.append(float((chosen == pairs["label"].to_numpy()).mean()))
        found[f"nli_{k}"] = float(np.mean(right))
    return found


def pretrain(folder: Path, work: Path, seed: int = 0, phases: Sequence[Phase] = PHASES) -> None:
    """Make `folder`/model from the data sets in `folder`; finished phases are kept in `work`.

    Beside the checkpoint: training.csv, a line of the curve every few hundred steps, and
    training.json, what the whole took (tokens, seconds, machine, versions).
    """
    torch.set_num_threads(1)  # at this size a second thread costs more than it gives
    work.mkdir(parents=True, exist_ok=True)
    items = pool(seed, POOL, reported_premises(folder))
    model, start, rows = initial(seed), (0, 0.0), []
    for number, phase in enumerate(phases):
        if phase.grown:
            model = grow(model, seed)
        phase_file = work / f"{number}-{phase.name}.pt"
        if phase_file.exists():
            state = torch.load(phase_file, weights_only=False)
            if state["phase"] == repr(phase) and state["before"] == start:
                model.load_state_dict(state["model"])
                start, rows = state["start"], state["rows"]
                continue
        before = start
        for row in train_phase(model, items, phase, seed=1000 * seed + number, start=start):
            if row["step"] == phase.steps or int(row["step"]) % (5 * phase.every) == 0:
                row |= probe(model, folder)
            rows.append(row)
            start = (int(row["tokens"]), float(row["seconds"]))
            print(
                "  ".join(
                    f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
                ),
                flush=True,
            )
        torch.save(
            {
                "phase": repr(phase),
                "before": before,
                "model": model.state_dict(),
                "start": start,
                "rows": rows,
            },
            f"{phase_file}.tmp",
        )
        Path(f"{phase_file}.tmp").replace(phase_file)
    save(model, folder, rows, start, seed)


def save(
    model: OPTForCausalLM, folder: Path, rows: list[Row], took: tuple[int, float], seed: int
) -> None:
    """Put checkpoint, tokenizer, curve and record into `folder`, each whole or not at all."""
    model.config.dropout = 0.1  # as OPT: for whoever trains it further
    record = {
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": took[0],
        "seconds": round(took[1]),
        "machine": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        staged = Path(temporary)
        model.save_pretrained(staged / "model")
        tokenizer().save_pretrained(staged / "model")
        pd.DataFrame(rows).to_csv(staged / "training.csv", index=False, float_format="%.5g")
        (staged / "training.json").write_text(json.dumps(record, indent=2) + "\n")
        (folder / "model").mkdir(exist_ok=True)
        for file in sorted(staged.rglob("*")):
            if file.is_file():
                file.replace(folder / file.relative_to(staged))


def main(folder: Path, seed: int = 0) -> None:
    """Make the whole pocket world in `folder`: data sets, then checkpoint. Resumes when killed."""
    write(folder, seed)
    pretrain(folder, ROOT / "runs" / "pocket", seed)
