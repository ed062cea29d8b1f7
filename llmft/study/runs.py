"""The grid: every run done once, kept for good, whatever happens in between.

A run's key is a hash of what decides its numbers: its specification, the task's data, the model's
weights, and `PROTOCOL`. `run_grid` does the runs that the store lacks, so a grid can be killed at
any moment and started again, and several processes, on one machine or on several that share the
folder, can work on one grid. `verify.py` holds what is stored against the code as it is now.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from llmft import ROOT, UserError, files, params, provenance
from llmft.engine import models
from llmft.engine.spec import TRAINED, Spec
from llmft.params import Study
from llmft.study import methods, results
from llmft.study import store as records
from llmft.study.grids import Grid
from llmft.study.results import Results


PROTOCOL = 1
"""Raised by hand when measured numbers change: what was stored before then counts no longer."""

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy")
"""The packages that compute: a run's row says their versions."""

WORKER = 1.5
"""GiB of memory that a worker takes beside the model."""


def key_of(spec: Spec) -> str:
    """24 hex digits that stand for the run: the same numbers, the same key.

    The digests stand for the task and the model, wherever they are on this machine.
    """
    return _key(_identity(spec))


def _key(identity: dict[str, Any]) -> str:
    digested = ("task", "rows", "labels", "model", "revision")
    decides = {name: value for name, value in identity.items() if name not in digested}
    return records.digest(decides)[:24]


def _identity(spec: Spec) -> dict[str, Any]:
    revision, digest = models.identity(spec.model, spec.revision)
    task = methods.task_of(spec.task, spec.limit, spec.labels, spec.rows)
    return asdict(spec) | {
        "revision": revision,
        "task_digest": task.digest,
        "model_digest": digest,
        "protocol": PROTOCOL,
    }


# --- the grid ----------------------------------------------------------------------------------


def run(grid: Callable[[Study], Grid], studies: Sequence[Study], name: str = "") -> Results:
    """Do a chapter's runs for each of its studies, and return them together.

    Args:
        grid: a function of `grids`.
        studies: what to do them for, and where and how.
        name: when given, what was measured is also written to `<store>/<name>.csv` and `.parquet`:
            under `llmft run`, into the folder of what it freezes.

    Raises:
        UserError: as `run_grid` does.
    """
    parts = [run_grid(grid(study), **options(study)).of_study(study.study) for study in studies]
    found = results.joined(parts)
    if name:
        folder = studies[0].folder
        files.write(folder / f"{name}.csv", found.csv())
        files.write(folder / f"{name}.parquet", records.parquet(found.answers()))
    return found


def options(study: Study) -> dict[str, Any]:
    """Where and how a study's runs are done: `run_grid`'s arguments."""
    names = ("store", "scheduler", "device", "token_budget", "workers", "save_models")
    return {name: getattr(study, name) for name in names}


def run_grid(
    grid: Grid | Sequence[Spec],
    *,
    store: str | Path = "runs",
    scheduler: str = "",
    device: str = "auto",
    token_budget: int = 0,
    workers: int = 1,
    save_models: bool = False,
) -> Results:
    """Do the runs that the store lacks, and return all of them, a row a run, in their order.

    Args:
        grid: the runs, by the names of what they are for; one that stands twice is done once.
        store: the folder of finished runs, see `params.store_folder`.
        scheduler: "" = here; "local" = a Dask cluster on this machine, a worker for each GPU, or
            without one a worker for each two CPU cores; else a Dask scheduler's address, whose
            workers must see the same store.
        device: as in `models.load`, chosen where the run is done.
        token_budget: tokens that go through the model at once, as in `scoring.score` and
            `training.train`; it changes no number.
        workers: processes of this machine that share the runs; 0 = one a core on a CPU, as far as
            the memory goes, and one with a GPU. Each computes on one thread.
        save_models: also keep what is trained, in `<store>/models/<key>`, for `models.load`; runs
            whose model is not there are done again.

    Raises:
        UserError: a run that cannot be done, or a store that cannot be written (a full disk): what
            was finished stays, and the next call goes on from there.
    """
    groups = grid if isinstance(grid, dict) else {"": list(grid)}
    wanted = list(dict.fromkeys(spec for specs in groups.values() for spec in specs))
    if not wanted:
        raise UserError("no runs were asked for")
    folder = records.opened(params.store_folder(store))
    how: dict[str, Any] = {
        "device": device,
        "token_budget": token_budget,
        "save_models": save_models,
        "since": int(os.environ.get(params.SINCE, "0")),
    }
    identities = {spec: _identity(spec) for spec in wanted}
    keys = {spec: _key(identity) for spec, identity in identities.items()}
    missing = [s for s in wanted if not _there(folder, keys[s], s, save_models, how["since"])]
    progress = _Progress(len(wanted), len(wanted) - len(missing))
    tasks = _tasks(missing)
    number = workers or _workers(missing, device)
    if scheduler:
        _spread(tasks, folder, scheduler, how, progress)
    elif min(number, len(tasks)) > 1:
        _shared(tasks, folder, min(number, len(tasks)), how, progress)
    else:
        _here(tasks, folder, how, progress)
    rows = [_row(folder, keys[spec]) for spec in wanted]
    named = {name: [keys[spec] for spec in specs] for name, specs in groups.items()}
    return results.loaded(rows, folder, named)


def _tasks(specs: Sequence[Spec]) -> list[list[Spec]]:
    """What is done in one piece: a run, or the rounds of one distillation, each from the last."""
    together: dict[Spec, list[Spec]] = {}
    for spec in specs:
        together.setdefault(replace(spec, rounds=min(spec.rounds, 1)), []).append(spec)
    return list(together.values())


def _here(tasks: list[list[Spec]], folder: Path, how: dict[str, Any], progress: Any) -> None:
    """Each in turn; what another process has claimed is left to the end, then waited for."""
    left: list[list[Spec]] = []
    for wait, some in ((False, tasks), (True, left)):
        for task in some:
            done = finish(task, folder, wait=wait, **how)
            progress.step(done)
            if len(done) < len(task):
                left.append([spec for spec in task if spec not in {spec for spec, _ in done}])


def finish(
    specs: Sequence[Spec],
    folder: Path,
    *,
    wait: bool,
    device: str = "auto",
    token_budget: int = 0,
    save_models: bool = False,
    since: int = 0,
) -> list[tuple[Spec, float]]:
    """See to it that the store holds these runs; those it holds now, with the seconds each took.

    0 seconds: it was there. A run that another process has claimed is left out when `wait` is
    false; one that was done before `since` is done again.
    """
    identities = {spec: _identity(spec) for spec in specs}
    keys = {spec: _key(identities[spec]) for spec in specs}
    done: list[tuple[Spec, float]] = []
    with ExitStack() as claims:
        mine = []
        # In the order of their keys: two processes that wait for each other's would never end.
        for spec in sorted(specs, key=keys.__getitem__):
            if claims.enter_context(records.claimed(folder, keys[spec], wait=wait)):
                if _there(folder, keys[spec], spec, save_models, since):
                    done.append((spec, 0.0))
                else:
                    mine.append(spec)
        if not mine:
            return done
        mine.sort(key=list(specs).index)
        save = {spec: _saved(folder, keys[spec]) for spec in mine} if save_models else {}
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


def _there(folder: Path, key: str, spec: Spec, save_models: bool, since: int) -> bool:
    saved = not save_models or spec.method not in TRAINED or _saved(folder, key).is_dir()
    return saved and records.read(folder, key, since=since) is not None


def _saved(folder: Path, key: str) -> Path:
    """Where the trained model of a run is kept."""
    return folder / "models" / key


def _row(folder: Path, key: str) -> dict[str, Any]:
    row = records.read(folder, key)
    if row is None:  # another process may be at it (`--force`)
        with records.claimed(folder, key, wait=True):
            row = records.read(folder, key)
    if row is None:
        raise UserError(f"store {folder} has no run {key}: do all workers share this folder?")
    return {"key": key, **row}


def _provenance() -> dict[str, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return {
        "versions": f"python {python}, {versions}",
        "commit": provenance.commit(ROOT),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class _Progress:
    """A plain line on standard error for each run that was done, with the time left."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.measured, self.start = total, done, 0, time.perf_counter()

    def step(self, finished: Iterable[tuple[Spec, float]]) -> None:
        for spec, seconds in finished:
            self.done += 1
            if seconds:
                self.measured += 1
                left = (time.perf_counter() - self.start) / self.measured * (self.total - self.done)
                note = f", about {left:.0f} s left" if self.done < self.total else ""
                files.say(f"{self.done}/{self.total} {spec}: {seconds:.1f} s{note}")


# --- several processes -------------------------------------------------------------------------


def _workers(specs: Sequence[Spec], device: str) -> int:
    """One a core on a CPU, as far as the free memory goes; one with a GPU, which they would share.

    Of a model `models.weight` says the bytes; to train it takes five times as much (gradients,
    Adam's two moments, activations).
    """
    if not specs or models.choose_device(device).type != "cpu":
        return 1
    weight = max(
        models.weight(model, revision)
        for model, revision in {(spec.model, spec.revision) for spec in specs}
    )
    need = WORKER + 5 * weight / 2**30
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 0
    free = pages * os.sysconf("SC_PAGE_SIZE") / 2**30 if pages else need
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, int(free / need)))


def _shared(
    tasks: list[list[Spec]], folder: Path, number: int, how: dict[str, Any], progress: Any
) -> None:
    """The same in `number` processes, a task at a time each."""
    context = get_context("spawn")  # torch's threads do not survive a fork
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a worker loads torch
    try:
        with ProcessPoolExecutor(number, context, _follow, (os.getpid(),)) as pool:
            futures = [pool.submit(finish, task, folder, wait=True, **how) for task in tasks]
            try:
                for future in as_completed(futures):
                    progress.step(future.result())
            except BrokenProcessPool:
                raise UserError(
                    "a worker died, most likely for want of memory: set workers to 1; finished "
                    "runs are kept"
                ) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _follow(parent: int) -> None:
    """Let a worker end with the process that started it, also when that one is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # what it was at is done again; what it wrote is whole

    threading.Thread(target=watch, daemon=True).start()
    torch.set_num_threads(1)


def _spread(
    tasks: list[list[Spec]], folder: Path, scheduler: str, how: dict[str, Any], progress: Any
) -> None:
    """The same on a Dask cluster: a piece at a time, tried again when its worker dies."""
    try:
        distributed: Any = importlib.import_module("distributed")  # an extra, and slow to import
    except ImportError:
        raise UserError("a scheduler needs Dask: pip install 'llmft[cluster]'") from None
    with _cluster(distributed, scheduler) as address:
        try:
            client = distributed.Client(address, timeout=20)
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler at {scheduler!r}: {error}") from None
        with client:
            futures = [
                client.submit(finish, task, folder, wait=True, **how, pure=False) for task in tasks
            ]
            try:
                for _, done in distributed.as_completed(futures, with_results=True):
                    progress.step(done)
            except distributed.KilledWorker as error:
                raise UserError(f"workers died over one run (out of memory?): {error}") from None


@contextmanager
def _cluster(distributed: Any, scheduler: str) -> Iterator[Any]:
    """The address to connect to: the one given, or that of a cluster on this machine."""
    if scheduler != "local":
        yield scheduler
        return
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    n = gpus or max(1, cores // 2)
    workers = {
        i: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1,
                # Set before torch starts there: each worker has its GPU, or its share of cores.
                "env": {"CUDA_VISIBLE_DEVICES": str(i)} if gpus else {},
                "config": {
                    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": str(cores // n or 1)}
                },
            },
        }
        for i in range(n)
    }
    options = {"dashboard": False, "host": "127.0.0.1", "port": 0}
    with distributed.SpecCluster(
        workers=workers,
        scheduler={"cls": distributed.Scheduler, "options": options},
        silence_logs=40,  # errors only
    ) as cluster:
        yield cluster
