"""The grid: every run done once, kept for good, whatever happens in between.

A run's key is a hash of its specification and of everything else that decides its numbers: the
task's data, the model's weights, the code, the versions of the packages that compute, the kind of
device and how exactly it multiplies. `run_grid` does the runs that the
store lacks, so a grid can be killed at any moment and started again, and several processes, on one
machine or on several that share the folder, can work on one grid.
"""

import gc
import hashlib
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from llmft import ROOT, UserError, files, params
from llmft.engine.spec import TRAINED, Spec
from llmft.nli.tasks import DOMAINS
from llmft.params import Params
from llmft.study import methods
from llmft.study import store as records
from llmft.study.methods import Result, execute
from llmft.study.metrics import LOGP


__all__ = [
    "Result",
    "Spec",
    "by_domain",
    "comparable",
    "curves",
    "execute",
    "grid",
    "key_of",
    "predictions",
    "run_grid",
    "select",
]

CODE = tuple(
    "nli.sources nli.tasks nli.prompts engine.spec engine.models engine.attention engine.scoring "
    "engine.learner engine.training engine.distill study.metrics study.methods "
    "hardware".split()
)
"""The modules whose code decides a run's numbers: it is part of its key, comments and docstrings
left out, so that a better sentence does not throw away what was measured."""

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy")
"""The packages that compute: their versions are part of a run's key, too."""


def grid(base: Spec, **axes: Sequence[Any]) -> list[Spec]:
    """Every combination of the axes' values, the last axis fastest.

    Raises:
        UserError: a name that is no field of `Spec`, or a value that does not fit it.
    """
    for name in axes:
        if name not in asdict(base):
            raise UserError(f"a run has no {name!r}: it has {', '.join(asdict(base))}")
    return [
        replace(base, **dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]


def asked_for(p: Params, method: str, **fields: Any) -> Spec:
    """The run of `method` that the parameters ask for, of the first model; `fields` win over them.

    Its examples are as many as the context to distil has. A distillation has the middle one of the
    numbers of queries, each of which comes up at least once, and one round.

    Raises:
        UserError: an unknown method, or fields that do not go together.
    """
    common: dict[str, Any] = {
        "task": p.task,
        "labels": p.labels,
        "model": p.models[0],
        "pattern": p.pattern,
        "verbalizer": p.verbalizer,
        "limit": p.limit,
        "dtype": p.dtype,
        "shots": 0 if method == "zero-shot" else p.context_shots,
    }
    training: dict[str, Any] = {}
    if method in ("fine-tuning", "lora", "bitfit"):
        training = {
            "learning_rate": p.learning_rate,
            "updates": p.updates,
            "batch_size": p.batch_size,
            "objective": p.objective,
            "selection": p.selection,
        }
    if method == "lora":
        training |= {"learning_rate": p.lora_learning_rate} | low_rank(p)
    if method == "distillation":
        queries = int(fields.get("queries", p.queries[len(p.queries) // 2]))
        training = {
            "learning_rate": p.distill_learning_rate,
            "updates": max(p.distill_updates, -(-queries // p.distill_batch_size)),
            "batch_size": p.distill_batch_size,
            "objective": p.distill_objective,
            "selection": "last",
            "context": p.context.replace("demonstrations", ""),
            "queries": queries,
            "rounds": 1,
            "temperature": p.temperature,
        }
    return Spec(**common | {"method": method} | training | fields)


def low_rank(p: Params) -> dict[str, Any]:
    """The fields of a run that changes weights by LoRA alone."""
    return {"rank": p.lora_rank, "alpha": p.lora_alpha, "targets": p.lora_targets}


@lru_cache(maxsize=1)
def _code_digest() -> str:
    digest = hashlib.sha256()
    for module in CODE:
        source = (ROOT / "llmft" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        digest.update(f"{module}\n{files.code_only(source)}".encode())
    return digest.hexdigest()[:16]


def key_of(spec: Spec, *, device: str = "auto") -> str:
    """24 hex digits that stand for the run: the same numbers, the same key.

    Two spellings of one run (an empty revision and the pinned one, "auto" and "cpu") share a key.
    """
    return records.digest(_identity(spec, device))[:24]


def _identity(spec: Spec, device: str) -> dict[str, Any]:
    model = methods.model_of(spec.model, spec.revision, device, spec.dtype)
    return asdict(spec) | {
        "revision": model.revision,
        "task_digest": methods.task_of(spec.task, spec.limit, spec.labels).digest,
        "model_digest": model.digest,
        "code_digest": _code_digest(),
        "device": model.device.type,
        "versions": _versions(),
        # "highest" unless somebody allowed TF32 (or less) in place of float32.
        "float32_matmul": torch.get_float32_matmul_precision(),
    }


def _versions() -> str:
    return ", ".join(f"{package} {version(package)}" for package in _PACKAGES)


# --- the grid ----------------------------------------------------------------------------------


def run_grid(
    specs: Sequence[Spec],
    *,
    store: str | Path = "runs",
    name: str = "",
    scheduler: str = "",
    device: str = "auto",
    token_budget: int = 0,
    stack: int = 0,
    save_models: bool = False,
) -> pd.DataFrame:
    """Do the runs that the store lacks, and return all of them: a row a run, in the order asked.

    Args:
        specs: the runs; one asked twice is done and returned once.
        store: the folder of finished runs, see `params.store_folder`.
        name: when given, the rows are also written to `<store>/<name>.csv` and the predictions to
            `<store>/<name>.parquet`: under `llmft run`, into the folder of what it freezes.
        scheduler: "" = in this process; "local" = a Dask cluster on this machine, a worker for each
            GPU, or without one a worker for each two CPU cores; else a Dask scheduler's address,
            whose workers must see the same store.
        device: as in `models.load`, chosen where the run is done.
        token_budget: tokens that go through the model at once, as in `scoring.score` and
            `training.train`; it changes no number.
        stack: runs trained together, at most: 0 = all repeats of a point that fit the memory; 1
            for runs whose time and memory are their own.
        save_models: also keep what is trained, in `<store>/models/<key>`, for `models.load`; runs
            whose model is not there are done again.

    Raises:
        UserError: a run that cannot be done, or a store that cannot be written (a full disk): what
            was finished stays, and the next call goes on from there.
    """
    if not specs:
        raise UserError("no runs were asked for")
    wanted, folder = list(dict.fromkeys(specs)), records.opened(params.store_folder(store))
    options = {
        "device": device,
        "token_budget": token_budget,
        "save_models": save_models,
        "since": int(os.environ.get(params.SINCE, "0")),
    }
    groups = _groups(wanted, stack)
    if scheduler:
        done = _spread(groups, folder, scheduler, options)
    else:
        done = _here(groups, folder, options)
    keys = [done[spec] for spec in wanted]
    found = []
    for key in keys:
        row = records.read(folder, key)
        if row is None:  # another process may be at it (`--force`)
            with records.claimed(folder, key, wait=True):
                row = records.read(folder, key)
        if row is None:
            raise UserError(f"store {folder} has no run {key}: do all workers share this folder?")
        found.append({"key": key, **row})
    rows = pd.DataFrame(found)
    if name:
        place = Path(os.environ.get(params.COLLECT) or folder)
        texts = rows.assign(curve=rows["curve"].map(json.dumps))
        files.write(place / f"{name}.csv", texts.to_csv(index=False).encode())
        files.write(place / f"{name}.parquet", records.parquet(records.answers(folder, keys)))
    return rows


def _groups(specs: Sequence[Spec], stack: int) -> list[list[Spec]]:
    """Runs that differ by their seeds only and are trained together, `stack` at most; else one."""
    alike: dict[Spec, list[Spec]] = {}
    for spec in specs:
        # The rounds of one distillation come one from another.
        rounds = min(spec.rounds, 1)
        seedless = replace(spec, data_seed=0, order_seed=0, init_seed=0, rounds=rounds)
        alike.setdefault(seedless if spec.method in TRAINED else spec, []).append(spec)
    return [
        group[start : start + (stack or len(group))]
        for group in alike.values()
        for start in range(0, len(group), stack or len(group))
    ]


def _here(groups: Sequence[list[Spec]], folder: Path, options: dict[str, Any]) -> dict[Spec, str]:
    """Each group in turn; what another process has claimed is left to the end, then waited for."""
    keys: dict[Spec, str] = {}
    progress = _Progress(sum(map(len, groups)))
    gc.collect()
    gc.freeze()  # what is there now stays: no run has to look through it for garbage (0.25 s each)
    try:
        for wait in (False, True):
            for group in groups:
                for spec, key, seconds in finish(
                    [spec for spec in group if spec not in keys], folder, wait=wait, **options
                ):
                    keys[spec] = key
                    progress.step(spec, seconds)
    finally:
        gc.unfreeze()
    return keys


def finish(
    specs: Sequence[Spec],
    folder: Path,
    *,
    wait: bool,
    device: str = "auto",
    token_budget: int = 0,
    save_models: bool = False,
    since: int = 0,
) -> list[tuple[Spec, str, float]]:
    """See to it that the store holds the runs of a group; those it holds now.

    Each with its key and the seconds it took, 0 if it was there. A run that another process has
    claimed is left out when `wait` is false; one that was done before `since` is done again.
    """
    identities = {spec: _identity(spec, device) for spec in specs}
    keys = {spec: records.digest(identities[spec])[:24] for spec in specs}

    def there(spec: Spec) -> bool:
        saved = not save_models or spec.method not in TRAINED or _saved(folder, keys[spec]).is_dir()
        return saved and records.read(folder, keys[spec], since=since) is not None

    done = [(spec, keys[spec], 0.0) for spec in specs if there(spec)]
    had = {spec for spec, _, _ in done}
    with ExitStack() as claims:
        mine = []
        # In the order of their keys: two processes that wait for each other's would never end.
        for spec in sorted(set(specs) - had, key=keys.__getitem__):
            if claims.enter_context(records.claimed(folder, keys[spec], wait=wait)):
                if there(spec):  # done by another while this one waited
                    done.append((spec, keys[spec], 0.0))
                else:
                    mine.append(spec)
        mine.sort(key=list(specs).index)
        start = time.perf_counter()
        save = {spec: _saved(folder, keys[spec]) for spec in mine} if save_models else {}
        if not mine:
            return done
        # Closed here whatever happens: the model, which later runs share, is then as it was.
        results = claims.enter_context(
            closing(
                methods.execute_together(mine, device=device, token_budget=token_budget, save=save)
            )
        )
        for spec, result in results:
            row = result.row | identities[spec] | _provenance()
            records.keep(folder, keys[spec], row, result.predictions)
            done.append((spec, keys[spec], time.perf_counter() - start))
            start = time.perf_counter()
    return done


def _saved(folder: Path, key: str) -> Path:
    """Where the trained model of a run is kept."""
    return folder / "models" / key


def _spread(
    groups: Sequence[list[Spec]], folder: Path, scheduler: str, options: dict[str, Any]
) -> dict[Spec, str]:
    """The same on a Dask cluster: a task a group, tried again when its worker dies."""
    try:
        distributed: Any = importlib.import_module("distributed")  # an extra, and slow to import
    except ImportError:
        raise UserError("a scheduler needs Dask: pip install 'llmft[cluster]'") from None
    progress = _Progress(sum(map(len, groups)))
    keys: dict[Spec, str] = {}
    with _cluster(distributed, scheduler) as address:
        try:
            client = distributed.Client(address, timeout=20)
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler at {scheduler!r}: {error}") from None
        with client:
            futures = [
                client.submit(finish, group, folder, wait=True, **options, pure=False)
                for group in groups
            ]
            try:
                for _, done in distributed.as_completed(futures, with_results=True):
                    for spec, key, seconds in done:
                        keys[spec] = key
                        progress.step(spec, seconds)
            except distributed.KilledWorker as error:
                raise UserError(f"workers died over one run (out of memory?): {error}") from None
    return keys


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


class _Progress:
    """A plain line on standard error for each run that was done, with the time left."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.measured, self.start = total, 0, 0, time.perf_counter()

    def step(self, spec: Spec, seconds: float) -> None:
        self.done += 1
        if not seconds:
            return
        self.measured += 1
        left = (time.perf_counter() - self.start) / self.measured * (self.total - self.done)
        note = f", about {left:.0f} s left" if self.done < self.total else ""
        files.say(f"{self.done}/{self.total} {spec}: {seconds:.1f} s{note}")


def _provenance() -> dict[str, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "versions": f"python {python}, {_versions()}",
        "commit": files.commit(ROOT),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# --- frames ------------------------------------------------------------------------------------


def stored(files: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows and the answers that `run_grid` left as `NAME.csv` and `NAME.parquet`, each once.

    Args:
        files: the CSV files; each has its answers beside it.

    Raises:
        UserError: a file is not there, cannot be read, or has no answers to a run of its rows.
    """
    frames, answers = [], []
    for file in files:
        try:
            frames.append(_rows(pd.read_csv(file)))
            answers.append(_answers(pd.read_parquet(file.with_suffix(".parquet"))))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file} and its .parquet cannot be read ({why}): run the chapter {file.stem} "
                "first, with the same parameters"
            ) from error
        if missing := set(frames[-1]["key"]) - set(answers[-1]["key"]):
            raise UserError(f"{file}: no answers of run {min(missing)}: run its chapter again")
    rows = pd.concat(frames, ignore_index=True).drop_duplicates("key", ignore_index=True)
    said = pd.concat(answers, ignore_index=True).drop_duplicates(["key", "domain", "id"])
    return rows, said.reset_index(drop=True)


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows as `run_grid` gave them, from those of its CSV file.

    Raises:
        ValueError, TypeError, RecursionError: they are not.
    """
    names = {field.name: type(field.default) for field in fields(Spec)}
    if lacking := [name for name in ("key", "curve", *names) if name not in table]:
        raise ValueError(f"no column {lacking[0]}")
    for name, kind in names.items():
        if kind is str:  # an empty text is no missing value
            table[name] = table[name].astype(object).fillna("").astype(str)
    for key, *values in table[["key", *names]].itertuples(index=False, name=None):
        try:
            Spec(**dict(zip(names, values, strict=True)))
        except UserError as error:
            raise ValueError(f"run {key}: {error}") from None
    curves = table["curve"].map(json.loads)
    for key, curve in zip(table["key"], curves, strict=True):
        if not isinstance(curve, list) or not all(isinstance(point, dict) for point in curve):
            raise ValueError(f"run {key}: its curve is none")
    return table.assign(curve=curves)


def _answers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, if it has the columns of answers; else a ValueError."""
    if lacking := {"key", "domain", "id", "label", *LOGP} - set(frame):
        raise ValueError(f"no column {min(lacking)} in the .parquet")
    return frame


def predictions(
    rows: pd.DataFrame, store: str | Path | pd.DataFrame = "runs", names: Sequence[str] = ()
) -> pd.DataFrame:
    """What the runs of `rows` said to every query: a row a run and query.

    Args:
        rows: of `run_grid` or `stored`.
        store: the folder of finished runs, or the answers that `stored` read.
        names: fields of the runs' rows, such as shots, to group by.

    Returns:
        Columns key, domain ("in-domain", "out-of-domain", "content-free"), id, label,
        logp_entailment, logp_not (float32); the task's heuristic and subcase where it has them;
        draw, the id of the run's draw of examples, orders and initialisation ("" where a method
        draws nothing: zero-shot), the same for all methods; and the columns `names`.
    """
    if isinstance(store, pd.DataFrame):
        frame = store
    else:
        frame = records.answers(params.store_folder(store), list(rows["key"]))
    parts = []
    for _, own in rows.groupby(["task", "limit", "labels"], sort=False):
        task, limit, labels = own[["task", "limit", "labels"]].iloc[0]
        asked = pd.concat(methods.task_of(task, int(limit), labels).domains.values())
        extra = [column for column in ("heuristic", "subcase") if column in asked]
        part = frame[frame["key"].isin(own["key"])]
        parts.append(part.merge(asked[["id", *extra]], on="id", how="left"))
    drawn = rows[["data_seed", "order_seed", "init_seed"]].astype(str).agg("-".join, axis=1)
    fields = rows[["key", *names]].assign(draw=drawn.where(rows["method"] != "zero-shot", ""))
    return pd.concat(parts, ignore_index=True).merge(fields, on="key", how="left")


def select(rows: pd.DataFrame, specs: Sequence[Spec]) -> pd.DataFrame:
    """The rows of these specifications, in their order: a part of a grid that was run as one.

    Raises:
        UserError: a run is not among them.
    """
    names = [name for name in asdict(specs[0]) if name != "revision"]  # resolved in the rows
    at = {values: i for i, values in enumerate(rows[names].itertuples(index=False, name=None))}
    wanted = [tuple(asdict(spec)[name] for name in names) for spec in specs]
    for spec, values in zip(specs, wanted, strict=True):
        if values not in at:
            raise UserError(f"the results have no run {spec}: run its chapter with its parameters")
    places = [at[values] for values in wanted]
    return rows.iloc[list(dict.fromkeys(places))].reset_index(drop=True)


def by_domain(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a run and domain: columns domain, accuracy, nll, brier, ece, share_entailment, n.

    The runs' other columns are kept. A domain that a run was not asked about has no row.
    """
    stems = {domain: f"{domain.replace('-', '_')}_" for domain in DOMAINS}
    own = [c for c in rows.columns if c.startswith(tuple(stems.values()))]
    parts = [
        rows.drop(columns=own).assign(
            domain=domain, **{c.removeprefix(stem): rows[c] for c in own if c.startswith(stem)}
        )
        for domain, stem in stems.items()
    ]
    return pd.concat([part[part["n"] > 0] for part in parts], ignore_index=True)


def curves(rows: pd.DataFrame, fields: Sequence[str] = ()) -> pd.DataFrame:
    """The runs' learning curves: a row a run and measurement.

    Columns: key, the `fields` of the runs' rows, update, epoch, train_loss, train_accuracy,
    validation_loss, validation_accuracy (losses in nats, without dropout).
    """
    named = ["key", *fields]
    return pd.DataFrame(
        [
            dict(zip(named, values, strict=True)) | point
            for *values, curve in rows[[*named, "curve"]].itertuples(index=False, name=None)
            for point in curve
        ]
    )


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, when their seconds and memory were measured on one device in one way.

    Raises:
        UserError: they were not, so a figure of their cost would compare machines, not methods.
    """
    for column in ("device_name", "threads", "memory_kind", "stacked"):
        values = rows[column].astype(str).unique()
        if len(values) > 1:
            raise UserError(
                f"times and memory of different runs cannot be compared: {column} is "
                f"{' and '.join(values)}; run the grid again in a new store on one machine"
            )
    return rows
