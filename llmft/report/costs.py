"""What the book costs: counted for runs that are done, predicted for others.

Both are one count. The row of a run says how many tokens it read and was trained on; where there is
no row, its specification and the mean length of the task's texts say it. Operations follow from
tokens and weights (`sections.operations`), hours from operations and an assumed speed. `grids` says
which runs a chapter has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from llmft import UserError
from llmft.engine import distill, gguf, learner, models
from llmft.engine.models import Model
from llmft.engine.spec import ADAPTERS, TRAINED, Spec
from llmft.nli import tasks
from llmft.nli.prompts import CONTENT_FREE
from llmft.report import sections


OPT: dict[str, dict[str, Any]] = {
    "facebook/opt-125m": {},
    "facebook/opt-350m": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "ffn_dim": 4096,
        "word_embed_proj_dim": 512,
        "do_layer_norm_before": False,
    },
}
"""Where the published configurations differ from `OPTConfig`'s defaults, which are opt-125m's."""

MNLI_HANS = (6_692, 30_000)
"""Pairs of MultiNLI's matched set without neutral, and of HANS."""


@dataclass(frozen=True)
class Texts:
    """What a count needs of a task: tokens of a filled template, and pairs, in each domain.

    Training pairs, demonstrations and validation pairs are as long as in-domain ones. A
    demonstration has two tokens more (its label word, the separator), a prompt one at its start.
    """

    tokens: float
    tokens_out: float
    pairs: int
    pairs_out: int = 0
    validation: int = tasks.VALIDATION


# --- which runs --------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def outline(name: str) -> Model:
    """A model's shape without its weights: "pocket", a folder, a GGUF model, or an OPT of the book.

    Raises:
        UserError: another model.
    """
    folder = models.own_folder(name) or Path(name)
    if gguf.is_one(name):
        folder = gguf.checkpoint(name)
    if name in OPT:
        config: Any = transformers.OPTConfig(**OPT[name])
    elif folder.is_dir():
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    else:
        raise UserError(f"the shape of model {name!r} is not known: use one of {', '.join(OPT)}")
    device = torch.device("meta")
    auto: Any = transformers.AutoModelForCausalLM
    with device:
        model = auto.from_config(config)
    weights = model.num_parameters()
    return Model(model, None, name, "", "", device, config.max_position_embeddings, weights)


# --- what they take ----------------------------------------------------------------------------


def trainable(spec: Spec, model: Model) -> int:
    """How many weights the run changes."""
    if spec.method not in TRAINED:
        return 0
    if spec.method == "probe":
        return 2 * int(model.model.get_output_embeddings().weight.shape[1])
    if spec.changes == "bitfit":
        weights = model.model.base_model.named_parameters()
        return sum(weight.numel() for name, weight in weights if learner.CHANGES["bitfit"](name))
    if spec.changes == "prefix":
        return (spec.prefix - learner.SINK) * position(model)
    if spec.changes in ADAPTERS:
        layers = learner.linear_layers(model)
        return sum(
            _beside(spec, name, *layers[name][0]) * layers[name][1]
            for name in learner.targets(spec.targets, layers)
        )
    return model.parameters


def position(model: Model) -> int:
    """Numbers that a cache keeps of a token: its key and its value in each layer."""
    config = model.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * _head(config))


def _head(config: Any) -> int:
    """Numbers of a key, in one head."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(size)


def attention(model: Model, pairs: float) -> float:
    """Operations of attention for so many pairs of a token and one that it looks at.

    A score and a share of the mixture: a product and a sum each, for every number of a key and of a
    value, in every head and layer.
    """
    config = model.model.config
    width = config.num_attention_heads * _head(config)
    return float(4 * config.num_hidden_layers * width * pairs)


def _beside(spec: Spec, name: str, d_out: int, d_in: int) -> int:
    """How many new weights a method puts beside one layer of this name and shape."""
    low_rank = spec.rank * (d_in + d_out)
    return {
        "lora": low_rank,
        "rslora": low_rank,
        "dora": low_rank + d_out,
        "vera": spec.rank + d_out,
        "ia3": d_in if name in learner.FEEDFORWARD else d_out,
    }[spec.changes]


def predict(specs: Sequence[Spec], texts: Texts) -> pd.DataFrame:
    """A row a run with the columns that `count` reads, from its specification alone."""
    lines = []
    for spec in specs:
        model, pair = outline(spec.model), texts.tokens
        pairs = [min(n, spec.limit or n) for n in (texts.pairs, texts.pairs_out)]
        if spec.split == "validation":
            pairs = [texts.validation, 0]
        mean = (pairs[0] * pair + pairs[1] * texts.tokens_out) / sum(pairs)
        context = spec.shots * (pair + 2)  # each with its label word and a separator
        prefix = context if spec.method == "icl" or spec.scoring else 0
        batch = min(spec.batch_size, spec.queries or spec.shots)
        behind = 1 / distill.EVERY if spec.context_share else 0  # of the student's prompts
        measured = {
            "parameters": model.parameters,
            "trainable_parameters": trainable(spec, model),
            "prefix_tokens": 1 + prefix,
            "query_tokens": mean,
            "answers": sum(pairs) + len(CONTENT_FREE),
            "out_of_domain_n": pairs[1],
            "train_tokens": spec.updates * batch * (1 + pair + behind * context),
            "teacher_tokens": (1 + context + spec.queries * pair) if spec.queries else 0,
        }
        lines.append(asdict(spec) | measured)
    return pd.DataFrame(lines)


def count(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `sections.own_costs` or `predict` with `read` tokens, and `flops` in all.

    `adapt` and `score` are the parts of `flops`. Demonstrations are read once for each set of
    queries (a domain, the content-free ones), as the book does it. Attention to earlier tokens,
    points of learning curves and the likelihood of plain text are left out.
    """
    costs = sections.operations(rows)
    sets = np.where(rows["out_of_domain_n"].fillna(0) > 0, 3, 2)
    tokens = sets * rows["prefix_tokens"] + rows["answers"] * rows["query_tokens"]
    score = 2 * rows["parameters"] * tokens
    read = tokens + rows["train_tokens"] + rows["teacher_tokens"]
    return costs.assign(read=read, score=score, flops=costs["adapt"] + score)


def texts_of(rows: pd.DataFrame) -> Texts:
    """The mean text of these runs, over both domains, and the pairs of each."""
    zero = rows[rows["method"] == "zero-shot"].iloc[0]
    length = float(zero["query_tokens"])
    pairs = rows[rows["split"] == "validation"]["answers"] - len(CONTENT_FREE)
    validation = int(pairs.iloc[0]) if len(pairs) else tasks.VALIDATION
    return Texts(length, length, int(zero["in_domain_n"]), int(zero["out_of_domain_n"]), validation)


def hours(flops: float, tflops: float, utilisation: float) -> float:
    """Hours for operations at this utilisation of a device's peak of `tflops` (10^12 a second)."""
    return flops / (tflops * 1e12 * utilisation) / 3600


def memory(parameters: int, trainable: int = 0) -> float:
    """GiB that weights take in float32, activations left out.

    Four bytes a weight; those that are trained have a copy, a gradient and Adam's two moments.
    """
    return float(4 * parameters + 16 * trainable) / 2**30


def teacher_targets(spec: Spec, texts: Texts, vocabulary: int) -> float:
    """GiB of main memory that the teacher's targets of one distillation take, at least.

    A float32 log-probability for every class at every place that is compared. Shorter queries that
    are filled up take more.
    """
    places = texts.tokens if spec.objective == "query" else 1
    classes = 2 if spec.objective == "label words" else vocabulary
    return spec.queries * places * classes * 4 / 2**30


# --- what rows say ------------------------------------------------------------------------------


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers as ranges: "0–9, 1000–1002"."""
    distinct = pd.Series(sorted(set(numbers))).astype(int)
    ranges = distinct.groupby(distinct - distinct.index)
    return ", ".join(
        str(low) if low == high else f"{low}–{high}"
        for low, high in zip(ranges.min(), ranges.max(), strict=True)
    )


def versions(rows: pd.DataFrame) -> dict[str, str]:
    """Each package that the runs were done with, and its version, or all of them."""
    names = rows["versions"].str.split(", ").explode().drop_duplicates().str.partition(" ")
    return dict(names.groupby(0, sort=False)[2].agg(", ".join))
