"""What a run is and does: from a specification to label log-probabilities and their cost.

A specification says everything that decides the numbers, and `execute` turns it into them: the
demonstrations are drawn, every query of both domains and the content-free ones is asked behind
them in one call of `scoring.score`, and time and memory of just that are measured. Every method
ends in `evaluate`, so a column means the same in every row.
"""

import contextlib
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from llmft import UserError, metrics, models, prompts, scoring, tasks


METHODS = ("zero-shot", "icl")

DOMAINS = ("in-domain", "out-of-domain")
"""The two reported domains, in the order of every table; a third, "content-free", is no domain of
the task but what contextual calibration needs."""


@dataclass(frozen=True, order=True)
class Spec:
    """One run, complete: two runs with equal specifications give equal numbers.

    Raises:
        UserError: a field out of range, or fields that do not go together.
    """

    task: str = "pocket"
    model: str = "pocket"
    revision: str = ""  # of a model on the Hub; "" is the pinned one
    method: str = "icl"
    pattern: str = "minimal"
    shots: int = 8
    data_seed: int = 0  # draws the demonstrations
    order_seed: int = 0  # 0: in the order drawn; others shuffle the same demonstrations again
    limit: int = 0  # evaluation examples a domain, 0 = all
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if type(value) is not kind:
                raise UserError(f"run: {field.name} = {value!r} must be of type {kind.__name__}")
            if isinstance(value, int) and value < 0:
                raise UserError(f"run: {field.name} = {value} is less than 0")
        if self.method not in METHODS:
            raise UserError(f"unknown method {self.method!r}: use one of {', '.join(METHODS)}")
        if (self.method == "zero-shot") != (self.shots == 0):
            raise UserError(f"run: method {self.method} does not go with shots = {self.shots}")
        prompts.pattern_named(self.pattern)

    def __str__(self) -> str:
        """What tells this run from its neighbours in a grid."""
        seeds = f"draw {self.data_seed}" + (f", order {self.order_seed}" * bool(self.order_seed))
        shots = f", {self.shots} shots, {seeds}" if self.shots else ""
        return f"{self.method} of {self.model}{shots}, pattern {self.pattern}"


@dataclass(frozen=True)
class Result:
    """A finished run: `row` holds its measurements, `predictions` what it said to each query.

    `predictions` has the columns domain, id, label, logp_entailment, logp_not (float32).
    """

    row: dict[str, Any]
    predictions: pd.DataFrame


@lru_cache(maxsize=4)
def task_of(name: str, limit: int) -> tasks.Task:
    """The task, read once a process. Which examples a limit keeps is the same for every run."""
    return tasks.load(name, limit=limit, seed=0)


@lru_cache(maxsize=1)
def model_of(name: str, revision: str, device: str, dtype: str) -> models.Model:
    """The model, loaded once a process and asked one question, so that no run pays for warming up.

    Only the last one is kept: two large models may not fit beside each other.
    """
    model = models.load(name, revision=revision, device=device, dtype=dtype)
    start = model.tokenizer.bos_token_id or 0
    scoring.score(model.model, [[start, start]], [0, 1])
    return model


def demonstrations(task: tasks.Task, spec: Spec) -> pd.DataFrame:
    """The demonstrations of a run, in the order shown; no rows for zero-shot."""
    drawn = tasks.sample(task.train, spec.shots, spec.data_seed)
    if spec.order_seed:
        drawn = drawn.iloc[np.random.default_rng(spec.order_seed).permutation(len(drawn))]
    return drawn.reset_index(drop=True)


def execute(spec: Spec, *, device: str = "auto", token_budget: int = 0) -> Result:
    """Do one run, here and now.

    Raises:
        UserError: a task, model, pattern or size that cannot be; see `tasks`, `prompts`, `models`.
    """
    task = task_of(spec.task, spec.limit)
    model = model_of(spec.model, spec.revision, device, spec.dtype)
    try:
        shown = demonstrations(task, spec)
        with peak_memory(model.device) as memory:
            row, predictions = evaluate(model, task, spec.pattern, shown, token_budget)
    except UserError as error:
        raise UserError(f"run {spec}: {error}") from error
    row |= {
        "train_seconds": 0.0,
        "trainable_parameters": 0,
        "parameters": model.parameters,
        **memory,
        "device": model.device.type,
        "device_name": device_name(model.device),
        "threads": torch.get_num_threads(),
        "demonstrations": " ".join(shown["id"].astype(str)),
    }
    return Result(asdict(spec) | row, predictions)


def evaluate(
    model: models.Model,
    task: tasks.Task,
    pattern: str,
    shown: pd.DataFrame,
    token_budget: int = 0,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Ask the model every query of both domains, and the content-free ones, behind `shown`.

    Returns the measurements (metrics by domain, seconds, tokens) and the predictions. The seconds
    count tokenising and scoring; loading the model and the data is not in them.
    """
    parts = [task.in_domain, task.out_of_domain, prompts.content_free_queries()]
    names = [*DOMAINS, "content-free"]
    queries = pd.concat(
        [part.assign(domain=name) for part, name in zip(parts, names, strict=True)],
        ignore_index=True,
    )
    labels = prompts.label_tokens(model.tokenizer, pattern)
    start = time.perf_counter()
    ids = prompts.encode(model.tokenizer, pattern, queries, shown, model.max_positions)
    logp = scoring.score(model.model, ids, labels, token_budget=token_budget).numpy()
    seconds = time.perf_counter() - start
    if not np.isfinite(logp).all():
        raise UserError(f"model {model.name} gives NaN or infinity: use dtype float32")
    prefix = scoring.common_prefix(ids)
    row: dict[str, Any] = {}
    for name in DOMAINS:
        rows = np.flatnonzero(queries["domain"] == name)
        own, gold = logp[rows], queries["label"].to_numpy()[rows]
        stem = name.replace("-", "_")
        row |= {
            f"{stem}_accuracy": metrics.accuracy(own, gold),
            f"{stem}_nll": metrics.nll(own, gold),
            f"{stem}_brier": metrics.brier(own, gold),
            f"{stem}_ece": metrics.ece(own, gold),
            f"{stem}_share_entailment": metrics.share_entailment(own),
            f"{stem}_n": len(rows),
        }
    blank = logp[(queries["domain"] == "content-free").to_numpy()]
    row |= {
        "content_free_p_entailment": float(np.exp(blank[:, 0]).mean()),
        "prefix_tokens": prefix,
        "query_tokens": sum(len(prompt) - prefix for prompt in ids) / len(ids),
        "eval_seconds": seconds,
        "examples_per_second": len(ids) / seconds,
    }
    predictions = queries[["domain", "id", "label"]].assign(
        **dict(zip(metrics.LOGP, logp.astype(np.float32).T, strict=True))
    )
    return row, predictions


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, Any]]:
    """The most memory in use at once while the block runs, filled in when it ends.

    `peak_memory_mib`, and `memory_kind`, which says what was counted:
    "device": what torch allocated on the CUDA device, the model's weights included;
    "resident": this process's resident memory, libraries and model included (Linux: the kernel's
    own high-water mark, set back when the block begins);
    "resident since start": the same where the mark cannot be set back, so of the whole process.
    """
    found: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        mib, kind = torch.cuda.max_memory_allocated(device) / 2**20, "device"
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # 5: reset VmHWM, see proc(5)
            kind = "resident"
        except OSError:
            kind = "resident since start"
        yield found
        if kind == "resident":
            status = Path("/proc/self/status").read_text()
            mib = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**10
        else:  # bytes on macOS, KiB elsewhere
            unit = 2**20 if sys.platform == "darwin" else 2**10
            mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found |= {"peak_memory_mib": mib, "memory_kind": kind}


def device_name(device: torch.device) -> str:
    """The hardware's own name, such as "NVIDIA H200" or the processor's model."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    with contextlib.suppress(OSError):
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, check=False
            ).stdout.strip()
        if found := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            return found[1].strip()
    return platform.processor() or platform.machine()
