"""What the measurements share: clocks, tables, a matrix product, and the real model."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from llmft import params
from llmft.engine import models
from llmft.engine.models import Model
from llmft.nli.tasks import Task
from llmft.params import Study
from llmft.study import methods


SIDE = 1024
"""Rows and columns of the matrices whose product is the measure of speed."""


def timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """(Wall seconds, this process's CPU seconds) of `work`, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


def table(found: Mapping[str, Any]) -> str:
    """Markdown rows, a name and its value each."""
    return "\n".join(
        f"| {name.replace('_', ' ')} | {shown(value)} |" for name, value in found.items()
    )


def shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine(threads: int) -> dict[str, Any]:
    return {"threads": threads, "torch": torch.__version__, "cores": os.cpu_count()}


def product() -> tuple[float, float]:
    """Seconds (wall, CPU) of a float32 product of two square matrices: the best of many."""
    a, b = torch.randn(2, SIDE, SIDE)
    torch.mm(a, b)
    taken = [timed(lambda: torch.mm(a, b))[0] for _ in range(30)]
    walls, cpus = zip(*taken, strict=True)
    return min(walls), min(cpus)


def real() -> tuple[Study, Model, Task]:
    """The study of SmolLM2-135M on MultiNLI and HANS: its parameters, model and pairs.

    Raises:
        UserError: they are not on this machine: `llmft fetch smollm2`.
    """
    study = params.study("smollm2")
    model = models.load(study.model, device="cpu")
    return study, model, methods.task_of(study.task, 0, "", study.rows)
