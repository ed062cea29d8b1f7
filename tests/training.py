"""Small things to train, shared by the tests of learners and of the loop."""

from typing import Any

import numpy as np
import torch

from llmft.engine.learner import KEYS_VALUES_HIDDEN
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.engine.training import Examples, Job

from .tiny import MODELS, POSITIONS, VOCABULARY


LABELS = (7, 42)

LEARNERS = [
    ("fine-tuning", "label words"),
    ("fine-tuning", "head"),
    ("lora", "label words"),
    ("lora", "head"),
    ("bitfit", "label words"),
    ("rslora", "label words"),
    ("dora", "label words"),
    ("vera", "label words"),
    ("ia3", "label words"),
    ("probe", "head"),
]
"""Methods and objectives whose weights differ."""

SHAPES = [
    (shape, *learner)
    for shape in MODELS
    for learner in LEARNERS
    if (shape, learner[0]) != ("llama", "bitfit")  # it has no biases
]


def spec(method: str = "fine-tuning", objective: str = "label words", **changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "learning_rate": 1e-2,
        "updates": 5,
        "batch_size": 3,
        "selection": "last",
    }
    if method in ("lora", "rslora", "dora"):
        fields |= {"rank": 2, "alpha": 4.0, "targets": "q_proj,v_proj"}
    if method == "vera":
        fields |= {"rank": 2, "targets": "q_proj,v_proj"}
    if method == "ia3":
        fields |= {"targets": KEYS_VALUES_HIDDEN}
    return Spec(method=method, objective=objective, **fields | changes)


def tiny(shape: str = "opt", *, dropout: float = 0.0, dtype: Any = None) -> Model:
    """A tiny model; `dropout` is of attention weights and, where the shape has it, of the rest."""
    rest = {} if shape == "llama" else {"dropout": dropout}
    causal_lm = MODELS[shape](attention_dropout=dropout, **rest).to(dtype)
    return Model(causal_lm, None, shape, "", "", torch.device("cpu"), POSITIONS, 0)


def examples(n: int, seed: int, longest: int = 9) -> Examples:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, VOCABULARY, rng.integers(3, longest)).tolist() for _ in range(n)]
    return Examples(prompts, torch.tensor(rng.integers(0, 2, (n, 1))))


def job(seed: int = 0) -> Job:
    """Another seed, other examples of another length."""
    train = examples(4, seed, longest=9 + 4 * seed)
    return Job(train, examples(2, 100 + seed), seed, seed)
