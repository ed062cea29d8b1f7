"""Run a chapter and freeze it: executed in a temporary file, cleaned, stamped, moved into place.

papermill writes as it goes, and leaves a failed notebook behind. So a chapter is never run in
place, and its results are collected in a folder of this run alone: a run that fails, at whatever
moment, leaves the frozen chapter and its results as they were. A kill between the last moves leaves
results that their chapter's stamp does not know; the gate sees that, and the next run, which finds
every measurement in the store, puts it right.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmft import ROOT, UserError, params, provenance
from llmft.book import gate, stamp


VERSIONS = ("llmft", "torch", "transformers", "datasets", "peft", "numpy", "pandas", "papermill")
"""The packages whose versions the stamp records."""


def chapter_path(name: str, root: Path = ROOT) -> Path:
    """The notebook of a chapter, which may be named `icl`, `icl.ipynb` or `chapters/icl.ipynb`.

    Raises:
        UserError: there is no such chapter.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    known = {path.stem: path for path in gate.chapters(root)}
    if stem not in known:
        raise UserError(params.unknown(stem, list(known), "chapter"))
    return known[stem]


def is_current(
    path: Path,
    root: Path = ROOT,
    *,
    values: Mapping[str, object] | None = None,
    out: str | Path | None = None,
) -> bool:
    """Whether what a chapter shows is true of the code, the data and the parameters as they are.

    That is the frozen chapter, or its run in the folder `out` with these `values`: see `run`. Such
    a run also has today's text.

    Raises:
        UserError: as `run`, of the values and the folder.
    """
    if out is None:
        return not any(problem.stale for problem in gate.check_chapter(path, root))
    folder = params.not_own(params.located(out), root)
    notebook = _bare(stamp.read(path))
    right, _ = _given(notebook, values or {}, path.stem, root)
    right = stamp.declared(notebook) | right
    try:
        ran = stamp.read(folder / path.name)
        same = _sources(ran) == _sources(notebook)
        return same and not gate.stale_by(ran, path.stem, right, folder, root)
    except UserError:  # no such run, or none that can be read
        return False


def declared(path: Path) -> dict[str, object]:
    """The parameters of a chapter, by name, with their defaults."""
    return stamp.declared(stamp.read(path))


def known_by_some(values: Mapping[str, object], paths: list[Path]) -> None:
    """Refuse a parameter that none of the chapters has.

    Raises:
        UserError: it names the closest one that they have.
    """
    known = {name: None for path in paths for name in declared(path)}
    for name in values:
        if name not in known:
            raise UserError(params.unknown(name, known))


def run(
    name: str,
    *,
    values: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    since: int = 0,
    root: Path = ROOT,
) -> Path:
    """Run a chapter from its first cell to its last and freeze what it shows.

    The kernel works in the book's folder, as for `papermill chapters/icl.ipynb out.ipynb` there,
    and imports nothing from it but what is installed.

    Args:
        name: the chapter, see `chapter_path`.
        values: parameters in place of the published book's, which the chapter must declare.
        out: a folder to put the run in, with its results; by default the chapter is frozen, and
            takes no `values`.
        since: measure again what was measured before this time (nanoseconds).
        root: the book's folder.

    Returns:
        The notebook that was written.

    Raises:
        UserError: an unknown parameter or a wrong value; the chapter fails (the message says in
            which cell, and where the failed notebook is); it runs elsewhere; the disk is full.
    """
    path = chapter_path(name, root)
    notebook = _bare(stamp.read(path))
    stamp.module_digests(notebook, root)  # a cell that cannot be read is refused before it runs
    given, store = _given(notebook, values or {}, path.stem, root)
    if out is None and values:
        raise UserError(
            f"{path.stem}: a frozen chapter has the parameters of the book (params/book.yaml): "
            "add --out FOLDER to run it there with others"
        )
    target = path if out is None else params.not_own(params.located(out), root) / path.name
    try:
        with _alone(path.stem, {target.parent, store}):
            private = store / f".{path.stem}.run"
            shutil.rmtree(private, ignore_errors=True)  # of a run that was killed
            private.mkdir()
            try:
                started = time.perf_counter()
                with _environment(private, since):
                    ran = _execute(notebook, path.stem, given, private, root)
                seconds = time.perf_counter() - started
                return _finish(ran, path, private, target, seconds, root)
            finally:
                shutil.rmtree(private, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = (
            "the disk is full: make room"
            if full
            else f"cannot write {error.filename}: {error.strerror}; other places are given by "
            "--out FOLDER and -p store=FOLDER"
        )
        raise UserError(f"{path.stem}: {why} (the frozen chapter is as it was)") from None


def _given(
    notebook: stamp.Notebook, values: Mapping[str, object], chapter: str, root: Path
) -> tuple[dict[str, object], Path]:
    """What to inject (only what differs from the chapter's defaults), and the store it will use."""
    known = stamp.declared(notebook)
    for name in values:
        if name not in known:
            raise UserError(f"{chapter}: {params.unknown(name, known)}")
    wanted = {"studies": params.published(root, chapter)} if "studies" in known else {}
    given = {**wanted, **values, **params.absolute(values)}
    if "studies" not in known:
        return given, params.store_folder("runs", root)
    names = params.studies_named(given["studies"])
    if "studies" in values:
        names = [str(params.located(n)) if "/" in n or "." in n else n for n in names]
    given["studies"] = names
    own = {name: value for name, value in given.items() if name != "studies"}
    checked = [params.study(name, own, root) for name in names]
    resolved = {name: getattr(checked[0], name) for name in own} | {"studies": names}
    store = params.store_folder(checked[0].store, root)
    return {name: value for name, value in resolved.items() if value != known[name]}, store


def _bare(notebook: stamp.Notebook) -> stamp.Notebook:
    """The author's notebook: without outputs, stamp, and the cells that papermill adds.

    An injected cell of an earlier run would otherwise stay, and go on overriding the defaults.
    """
    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [dict(cell) for cell in notebook["cells"] if not added & set(stamp.tags(cell))]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    about = {
        key: value
        for key, value in notebook.get("metadata", {}).items()
        if key not in ("papermill", "llmft", "widgets")
    }
    return {**notebook, "cells": cells, "metadata": about}


def _sources(notebook: stamp.Notebook) -> list[tuple[str, str]]:
    """What the author wrote: the kind and the text of each cell."""
    cells = _bare(notebook)["cells"]
    return [(cell["cell_type"], stamp.text(cell["source"])) for cell in cells]


@contextlib.contextmanager
def _alone(chapter: str, folders: set[Path]) -> Iterator[None]:
    """Let one process at a time run a chapter from a store or to a place; a lock dies with it."""
    with contextlib.ExitStack() as locks:
        for folder in sorted({folder.resolve() for folder in folders}):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(FileLock(folder / f".{chapter}.lock", timeout=0))
            except Timeout:
                raise UserError(f"{chapter} is being run by another process") from None
        yield


@contextlib.contextmanager
def _environment(private: Path, since: int) -> Iterator[None]:
    """What the kernel is told by environment variables, and this process no longer afterwards."""
    told = {
        params.COLLECT: str(private),
        params.SINCE: str(since),
        "IPYTHONDIR": str(private / "ipython"),  # a user's start-up files are not the chapter's
        # tqdm tells every reader that it found no widgets; a frozen page has no use for them.
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore:IProgress not found"),
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _execute(
    notebook: stamp.Notebook, chapter: str, given: dict[str, object], private: Path, root: Path
) -> stamp.Notebook:
    """The executed notebook. A failed one stays in the store, and the error names it."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    running, failed = private / "running.ipynb", private.parent / f"{chapter}.failed.ipynb"
    _write(notebook, running)
    target = str(running).replace("{", "{{").replace("}", "}}")  # papermill formats the path
    try:
        papermill.execute_notebook(
            target,
            target,
            parameters=given,
            kernel_name="python3",
            language="python",
            cwd=str(root),
            progress_bar=False,
            stderr_file=sys.stderr,
            extra_arguments=[
                "--IPKernelApp.log_level=50",  # its notices are not the chapter's
                "--InteractiveShellApp.ignore_cwd=True",  # a pandas.py in the book is not pandas
            ],
        )
        return stamp.read(running)
    except papermill.PapermillExecutionError as error:
        line = " ".join(str(error.evalue).split()) or "no message"
        what = line if error.ename == "UserError" else f"{error.ename}: {line}"
        number = sum(1 for c in notebook["cells"][: error.cell_index] if c["cell_type"] == "code")
        raise UserError(_failure(chapter, what, number + 1, running, failed)) from None
    except DeadKernelError:
        what = "the kernel died, most likely for want of memory"
        raise UserError(_failure(chapter, what, 0, running, failed)) from None


def _failure(chapter: str, what: str, cell: int, running: Path, failed: Path) -> str:
    """Keep the failed notebook, and say in one line what happened."""
    running.replace(failed)
    where = f" in code cell {cell}" if cell else ""
    return f"{chapter}: {what[:600]} (it stopped{where}: {failed}; the frozen chapter is as it was)"


def clean(notebook: stamp.Notebook) -> stamp.Notebook:
    """A run without what differs from run to run or dies when frozen.

    Goes: papermill's and Jupyter's time stamps, progress on standard error, HTML, JavaScript and
    widgets that have another representation. The injected cell gets a fixed id and is hidden.
    """
    about = {
        key: value
        for key, value in notebook["metadata"].items()
        if key not in ("papermill", "widgets", "llmft")
    }
    about["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about["language_info"] = {"name": "python"}
    cells = []
    for cell in notebook["cells"]:
        noise = ("papermill", "execution")
        plain = {k: v for k, v in cell["metadata"].items() if k not in noise and v != []}
        cell = {**cell, "metadata": plain}
        if "injected-parameters" in stamp.tags(cell):
            cell["id"] = "injected-parameters"
            cell["source"] = stamp.text(cell["source"]).rstrip("\n")  # as the linter wants it
            plain["tags"] = ["injected-parameters", "remove-cell"]
        if cell["cell_type"] == "code":
            cell["outputs"] = [
                _light(output)
                for output in cell["outputs"]
                if not (output["output_type"] == "stream" and output["name"] == "stderr")
            ]
        cells.append(cell)
    return {**notebook, "cells": cells, "metadata": about}


def _light(output: dict[str, Any]) -> dict[str, Any]:
    """An output without its representations that need a browser's scripts, if it has others."""
    data = output.get("data", {})
    light = {kind: value for kind, value in data.items() if kind in gate.MIME_TYPES}
    return {**output, "data": light} if light else output


def _finish(
    ran: stamp.Notebook,
    path: Path,
    private: Path,
    target: Path,
    seconds: float,
    root: Path,
) -> Path:
    """Stamp the run and move it into place, results first: see the module's docstring."""
    notebook = clean(ran)
    results = root / "data" / "results" if target == path else target.parent
    moves: list[tuple[Path, Path]] = []
    try:
        for suffix in stamp.RESULT_SUFFIXES:
            result = private / f"{path.stem}{suffix}"
            if result.is_file():
                moves.append(_stage(results / result.name, partial(shutil.copyfile, result)))
        notebook["metadata"]["llmft"] = {
            "code": stamp.code_digest(notebook),
            "modules": stamp.module_digests(notebook, root),
            "data": stamp.data_digests(notebook, path.stem, root, outside=target != path),
            "results": {
                f"data/results/{final.name}": stamp.file_digests(new.parent, [new])[new.name]
                for new, final in moves
            },
            "outputs": stamp.output_digest(notebook),
            "parameters": stamp.parameters(notebook),
            "seconds": round(seconds, 1),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": provenance.commit(root),
            **machine(),
        }
        moves.append(_stage(target, partial(_write, notebook)))
        with _undisturbed():
            for new, final in moves:
                new.replace(final)
            if target == path:
                current = {final for _, final in moves}
                for suffix in stamp.RESULT_SUFFIXES:
                    if (old := results / f"{path.stem}{suffix}") not in current:
                        old.unlink(missing_ok=True)
    finally:
        for new, _ in moves:
            new.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C and a request to end wait: for the moves, which take no time."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stage(final: Path, write: Callable[[Path], object]) -> tuple[Path, Path]:
    """Write a file beside its final place and see it on the disk, ready to be moved."""
    final.parent.mkdir(parents=True, exist_ok=True)
    new = final.with_name(f".{final.name}.new")
    try:
        write(new)
        with new.open("rb+") as stream:
            os.fsync(stream.fileno())
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return new, final


def machine() -> dict[str, object]:
    """Where a chapter ran: versions, devices, threads that computed."""
    versions = {"python": platform.python_version()}
    for package in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    import torch

    from llmft.hardware import device_name  # imported here for torch's sake, as torch is

    device = device_name(torch.device("cpu"))
    if torch.cuda.is_available():
        device = f"{device_name(torch.device('cuda'))}; {device}"
    return {"versions": versions, "device": device, "threads": torch.get_num_threads()}


def _write(notebook: stamp.Notebook, path: Path) -> None:
    """A notebook, as nbformat writes it."""
    body = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
    path.write_text(body + "\n", encoding="utf-8")


def assignments(pairs: tuple[str, ...]) -> dict[str, object]:
    """`NAME=VALUE` words as parameters; the types are settled by `params.study`.

    Raises:
        UserError: a word without `=`, or a name twice.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(
                f"-p {params.abbreviated(pair)} must be NAME=VALUE, such as -p repeats=2"
            )
        if name.strip() in values:
            raise UserError(f"-p {name.strip()} is given twice")
        values[name.strip()] = value
    return values
