"""The grid: every run done once, kept for good, whatever happens in between.

A run's key is a hash of what decides its numbers: its specification, the task's data, the model's
weights, and `PROTOCOL`. `run_grid` does the runs that the store lacks, so a grid can be killed at
any moment and started again, and several processes, on one machine or on several that share the
folder, can work on one grid.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import torch

from llmft import ROOT, LeftOutError, UserError, files, params, provenance
from llmft.engine import models
from llmft.engine.spec import TRAINED, Spec
from llmft.params import Study
from llmft.study import grids, methods, results
from llmft.study import store as records
from llmft.study.grids import Grid
from llmft.study.results import Results


PROTOCOL = 1
"""Raised by hand when measured numbers change: what was stored before then counts no longer."""

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy")
"""The packages that compute: a run's row says their versions."""

WORKER = 1.5
"""GiB of memory that a worker takes beside the model."""

WORTH = 4
"""Pieces of work for which a worker is worth its start, which takes some ten seconds."""

Piece = list[Spec]
"""What is done in one go: a run, or the rounds of one distillation."""

Done = list[tuple[Spec, float]]
"""Runs that the store holds, with the seconds that each took; 0: it was there."""


def key_of(spec: Spec) -> str:
    """24 hex digits that stand for the run: the same numbers, the same key.

    Digests stand for the task and the model, wherever they are on this machine.
    """
    return _key(_identities([spec])[spec])


def _key(identity: dict[str, Any]) -> str:
    digested = ("task", "rows", "labels", "model", "revision")
    decides = {name: value for name, value in identity.items() if name not in digested}
    return records.digest(decides)[:24]


def _identities(specs: Iterable[Spec]) -> dict[Spec, dict[str, Any]]:
    """What each run's key is made of; a model or a task that several share is looked at once."""
    model_of, task_of = cache(models.identity), cache(methods.task_of)
    found = {}
    for spec in specs:
        revision, digest = model_of(spec.model, spec.revision)
        found[spec] = spec.record() | {
            "revision": revision,
            "task_digest": task_of(spec.task, spec.limit, spec.labels, spec.rows).digest_of(
                spec.mixed
            ),
            "model_digest": digest,
            "protocol": PROTOCOL,
        }
    return found


# --- the grid ----------------------------------------------------------------------------------


def run(grid: Callable[[Study], Grid], studies: Sequence[Study], name: str = "") -> Results:
    """Do a chapter's runs for each of its studies, and return them together.

    `grid` is a function of `grids`. What was measured under a `name` is also written to
    `<store>/<name>.csv` and `.parquet`: under `llmft run`, into the folder of what it freezes.

    Raises:
        LeftOutError: no study has any of these runs.
        UserError: as `run_grid` does.
    """
    for study in studies:
        grids.check(study)
    if not any(grid(study) for study in studies):
        left = ", ".join(study.study for study in studies)
        raise LeftOutError(
            f"all of its runs are left out (`without`) of {left}: name another study"
        )
    options = {"study", "store", "device", "token_budget", "workers", "save_models"}
    found = results.joined(
        [run_grid(grid(study), **study.model_dump(include=options)) for study in studies]
    )
    if name:
        folder = studies[0].folder
        files.write(folder / f"{name}.csv", found.csv())
        files.write(folder / f"{name}.parquet", records.parquet(found.answers()))
    return found


def publish(studies: Sequence[Study]) -> tuple[int, int, int]:
    """Put the finished runs of all chapters of these studies, and no others, into the book.

    Returns how many runs the studies have, how many of them are published now, and how many new.
    """
    if len({study.store for study in studies}) > 1:
        raise UserError("the studies have several stores: publish from one")
    specs = [s for study in studies for own in grids.every(study).values() for s in own]
    keys = list(dict.fromkeys(_key(one) for one in _identities(specs).values()))
    finished, new = records.copy(params.store_folder(studies[0].store), keys)
    return len(keys), finished, new


def run_grid(
    grid: Grid | Sequence[Spec],
    *,
    study: str = "",
    store: str | Path = "runs",
    device: str = "auto",
    token_budget: int = 0,
    workers: int = 1,
    save_models: bool = False,
) -> Results:
    """Do the runs that the store lacks, and return all of them, a row a run, in their order.

    Args:
        grid: the runs, by the names of what they are for; one that stands twice is done once.
        study: whose they are, in the rows and predictions.
        store: the folder of finished runs, see `params.store_folder`.
        device: as in `models.load`, chosen where the run is done.
        token_budget: tokens that go through the model at once, as in `scoring.score` and
            `training.train`; of training it changes what dropout drops.
        workers: processes of this machine that share the runs, each on one thread; 0 = as many as
            `_workers` says.
        save_models: also keep what is trained, in `<store>/models/<key>`, for `models.load`; runs
            whose model is not there are done again.

    Raises:
        UserError: a run that cannot be done, or a store that cannot be written (a full disk): what
            was finished stays, and the next call goes on from there.
    """
    groups = grid if isinstance(grid, dict) else {"": list(grid)}
    specs = list(dict.fromkeys(spec for group in groups.values() for spec in group))
    if not specs:
        raise UserError("no runs were asked for")
    folder = records.prepare(params.store_folder(store))
    how: dict[str, Any] = {
        "folder": folder,
        "device": device,
        "token_budget": token_budget,
        "save_models": save_models,
        "since": int(os.environ.get(params.SINCE, "0")),
    }
    identities = _identities(specs)
    keys = {spec: _key(one) for spec, one in identities.items()}
    wanted = {key: spec for spec, key in keys.items()}  # two spellings of one run are one
    found = {k: _there(folder, k, s, save_models, how["since"]) for k, s in wanted.items()}
    if missing := [wanted[key] for key, row in found.items() if row is None]:
        # Pieces of one model stand together, as a process holds one model at a time.
        pieces = sorted(methods.recursions(missing), key=lambda piece: piece[0].model)
        number = min(workers or _workers(pieces, device), len(pieces))
        with _pool(number) if number > 1 else nullcontext() as pool:
            _do(pieces, len(wanted), pool, how)
    # The task and the model by their names of now: who did a run may have had them elsewhere.
    rows = [
        {"key": key, "clock": "wall"}  # the first records do not name their clock
        | (found[key] or _row(folder, key))
        | identities[spec]
        for key, spec in wanted.items()
    ]
    named = {name: [keys[spec] for spec in group] for name, group in groups.items()}
    return results.loaded(rows, folder, named, study)


def _do(pieces: list[Piece], total: int, pool: Executor | None, how: dict[str, Any]) -> None:
    """All pieces; what another process has claimed is left to the end, then waited for.

    Each run that is done, of the grid's `total`, is a line on standard error, with the time left.
    """
    there, measured, start = total - sum(map(len, pieces)), 0, time.perf_counter()
    for wait in (False, True):
        left = []
        for piece, done in _each(pieces, pool, {"wait": wait, **how}):
            for spec, seconds in done:
                there += 1
                if seconds:
                    measured += 1
                    rest = (time.perf_counter() - start) / measured * (total - there)
                    note = f", about {rest:.0f} s left" if there < total else ""
                    files.say(f"{there}/{total} {spec}: {seconds:.1f} s{note}")
            left.append([spec for spec in piece if spec not in dict(done)])
        pieces = [piece for piece in left if piece]


def _each(
    pieces: list[Piece], pool: Executor | None, how: dict[str, Any]
) -> Iterator[tuple[Piece, Done]]:
    """Each piece with the runs of it that are done now: in this process, or by those of a pool."""
    if pool is None:
        gc.collect()
        gc.freeze()  # no run has to look through what is there now for garbage (0.3 s each)
        try:
            for piece in pieces:
                yield piece, finish(piece, **how)
        finally:
            gc.unfreeze()
    else:
        with _apart():
            futures = {pool.submit(finish, piece, **how): piece for piece in pieces}
        for future in as_completed(futures):
            yield futures[future], future.result()


def finish(
    specs: Sequence[Spec],
    *,
    folder: Path,
    wait: bool,
    device: str,
    token_budget: int,
    save_models: bool,
    since: int,
) -> Done:
    """See to it that the store holds these runs; those it holds now, with the seconds each took.

    0 seconds: it was there. A run that another process has claimed is left out when `wait` is
    false; one that was done before `since` is done again.
    """
    identities = _identities(specs)
    keys = {spec: _key(identities[spec]) for spec in specs}
    done: Done = []
    with ExitStack() as claims:
        mine = []
        # In the order of their keys: two processes that wait for each other's would never end.
        for spec in sorted(specs, key=keys.__getitem__):
            if claims.enter_context(records.claim(folder, keys[spec], wait=wait)):
                if _there(folder, keys[spec], spec, save_models, since):
                    done.append((spec, 0.0))
                else:
                    mine.append(spec)
        if not mine:
            return done
        mine.sort(key=list(specs).index)
        save = {spec: folder / "models" / keys[spec] for spec in mine} if save_models else {}
        # Closed here whatever happens: the model, which later runs share, is then as it was.
        found = claims.enter_context(
            closing(methods.execute_all(mine, device=device, token_budget=token_budget, save=save))
        )
        start = time.perf_counter()
        for spec, result in found:
            row = result.row | identities[spec] | _provenance()
            records.keep(folder, keys[spec], row, result.predictions)
            done.append((spec, time.perf_counter() - start))
            start = time.perf_counter()
    return done


def _there(
    folder: Path, key: str, spec: Spec, save_models: bool, since: int
) -> dict[str, Any] | None:
    """The row of a finished run; None for one that is still to do."""
    if save_models and spec.method in TRAINED and not (folder / "models" / key).is_dir():
        return None
    return records.read(folder, key, since=since)


def _row(folder: Path, key: str) -> dict[str, Any]:
    """The row of a run that was just done, here or by another process."""
    row = records.read(folder, key)
    if row is None:  # another process may be at it (`--force`)
        with records.claim(folder, key, wait=True):
            row = records.read(folder, key)
    if row is None:
        raise UserError(
            f"store {folder} has no run {key}: do all workers share this folder, its task and its "
            "model, and did none of them change meanwhile?"
        )
    return row


def _provenance() -> dict[str, str]:
    return {
        "versions": _versions(),
        "float32_matmul": torch.get_float32_matmul_precision(),  # "highest": no TF32
        "commit": provenance.commit(ROOT),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache  # each is read from a file
def _versions() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"python {python}", *(f"{name} {version(name)}" for name in PACKAGES)])


# --- several processes -------------------------------------------------------------------------


def _workers(pieces: list[Piece], device: str) -> int:
    """One a core on a CPU, as far as the free memory goes; one with a GPU, which they would share.

    Chapters that run at once share cores and memory. None that has fewer than `WORTH` pieces to do.
    A model is often stored in 16 bits: ten times as many bytes hold it in float32 with gradients,
    Adam's two moments, and activations.
    """
    if models.choose_device(device).type != "cpu":
        return 1
    each = {(spec.model, spec.revision) for piece in pieces for spec in piece}
    need = WORKER + 10 * max(models.weight(*one) for one in each) / 2**30
    free = psutil.virtual_memory().available / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chapters = int(os.environ.get(params.AT_ONCE, "1"))
    shares = (cores or 1) // chapters, int(free / need / chapters)
    return max(1, min(*shares, len(pieces) // WORTH))


@contextmanager
def _pool(number: int) -> Iterator[Executor]:
    """`number` processes of this machine, which end with the block."""
    context = get_context("spawn")  # torch's threads do not survive a fork
    others = set(active_children())
    with ProcessPoolExecutor(number, context, _follow, (os.getpid(),)) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(
                "a worker died, most likely for want of memory: set workers to 1; finished runs "
                "are kept"
            ) from None
        except BaseException:
            # The error is reported at once: workers are stopped, and their runs are done again
            # later. (What they wrote is whole.) A worker that ended by itself while it still
            # starts would print an error of its own.
            for worker in set(active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _apart() -> Iterator[None]:
    """Processes that start here do not run the caller's script again, and do not hear of Ctrl-C."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(parent: int) -> None:
    """Let a worker end with its parent, also when that one is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # what it was at is done again; what it wrote is whole

    threading.Thread(target=watch, daemon=True).start()
    torch.set_num_threads(1)
    gc.freeze()  # as in `_each`
