"""Two distilled students of the pocket world, small enough for a page that shows what they say.

The runs are published ones of the chapter on context distillation: the first draw's student after
one round, and after the last. A student is kept as its difference from the checkpoint that a page
loads anyway (in float16), each tensor as whole numbers of 8 bits times one scale, which the file's
metadata has under the tensor's name: a fourth of the size. The tests hold the answers of these
files against the published ones.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from llmft import files, params
from llmft.engine import models
from llmft.engine.spec import Spec
from llmft.study import grids, methods, runs


Weights = dict[str, Any]
"""Arrays by their names in a checkpoint."""

LEVEL = 127
"""The largest whole number of 8 bits that has its negative."""


def specs() -> dict[str, Spec]:
    """The runs whose students are kept, by the names of their files."""
    study = params.study("pocket")
    first = grids.spec(study, "distillation", data_seed=study.seed)
    return {f"round-{n}": replace(first, rounds=n) for n in (1, study.rounds)}


def main(folder: Path) -> None:
    """Do the runs, and write into the folder their students and the context that all share.

    `students.json` has the demonstrations (premise, hypothesis, entailed), and of each student its
    file, the run's key, and its round.
    """
    wanted = specs()
    with tempfile.TemporaryDirectory() as store:
        runs.run_grid(list(wanted.values()), store=store, device="cpu", save_models=True)
        found = {
            name: load_file(Path(store) / "models" / runs.key_of(spec) / "model.safetensors")
            for name, spec in wanted.items()
        }
    start = load_file(models.POCKET / "model.safetensors")
    for name, weights in found.items():
        numbers, scales = difference(start, weights)
        files.write(folder / f"{name}.safetensors", save(numbers, metadata=scales))
    about = [
        {"file": f"{name}.safetensors", "key": runs.key_of(spec), "round": spec.rounds}
        for name, spec in wanted.items()
    ]
    text = json.dumps({"demonstrations": context(), "students": about}, indent=1)
    files.write(folder / "students.json", f"{text}\n".encode())


def context() -> list[dict[str, Any]]:
    """The demonstrations of the students' teacher, in the prompt's order."""
    spec = specs()["round-1"]
    examples = methods.examples(methods.task_of(spec.task, spec.limit), spec)
    return [
        {"premise": premise, "hypothesis": hypothesis, "entailed": label == 0}
        for premise, hypothesis, label in zip(
            examples["premise"], examples["hypothesis"], examples["label"], strict=True
        )
    ]


def difference(start: Weights, end: Weights) -> tuple[Weights, dict[str, str]]:
    """`end` minus `start` in float16, in whole numbers of 8 bits; and each tensor's scale."""
    numbers, scales = {}, {}
    for name, weights in sorted(end.items()):
        gap = weights.astype(np.float32) - start[name].astype(np.float16).astype(np.float32)
        scale = float(np.abs(gap).max()) / LEVEL or 1.0
        numbers[name], scales[name] = np.rint(gap / scale).astype(np.int8), repr(scale)
    return numbers, scales


def added(start: Weights, numbers: Weights, scales: dict[str, str]) -> Weights:
    """The weights that a page computes with: float16 of the start, and the scaled difference."""
    return {
        name: start[name].astype(np.float16).astype(np.float32)
        + np.float32(scales[name]) * numbers[name].astype(np.float32)
        for name in numbers
    }
