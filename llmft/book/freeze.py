"""Run a chapter and freeze it: executed in a temporary folder, cleaned, stamped, moved into place.

papermill writes as it goes, and leaves a failed notebook behind. So a chapter is never run in
place, and its results are collected in a folder of this run alone: a run that fails, at whatever
moment, leaves the frozen chapter and its results as they were. A kill between the last moves leaves
results that their chapter's stamp does not know; the gate sees that, and the next run, which finds
every measurement in the store, puts it right.
"""

import contextlib
import errno
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from llmft import ROOT, LeftOutError, UserError, __version__, params, provenance
from llmft.book import gate, stamp


PACKAGES = ("torch", "transformers", "datasets", "peft", "numpy", "pandas", "papermill")
"""The packages whose versions the stamp records."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What a notebook says of itself, beside its stamp."""


def chapter_path(name: str, root: Path = ROOT) -> Path:
    """The notebook of a chapter, which may be named `icl`, `icl.ipynb` or `chapters/icl.ipynb`.

    Raises:
        UserError: there is no such chapter.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    known = {path.stem: path for path in gate.chapters(root)}
    if stem not in known:
        raise UserError(params.unknown(stem, known, "chapter"))
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
    right = stamp.declared(notebook) | _given(notebook, values or {}, path.stem, root)
    try:
        ran = stamp.read(folder / path.name)
        stale = gate.stale_by(ran, path.stem, right, folder, root)
    except UserError:  # no such run, or none that can be read
        return False
    return not stale and _sources(ran) == _sources(notebook)


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

    `values` are parameters in place of the published book's, which the chapter must declare. They
    go with `out`, a folder to put the run in, with its results; by default the chapter is frozen.
    What was measured before `since` (nanoseconds) is measured again. Returns the notebook's path.

    Raises:
        LeftOutError: the studies leave out all that the chapter shows.
        UserError: an unknown parameter or a wrong value; the chapter fails (the message says in
            which cell, and where the failed notebook is); it runs elsewhere; the disk is full.
    """
    path = chapter_path(name, root)
    notebook = _bare(stamp.read(path))
    stamp.module_digests(notebook, root)  # a cell that cannot be read is refused before it runs
    given = _given(notebook, values or {}, path.stem, root)
    if out is None and values:
        raise UserError(
            f"{path.stem}: a frozen chapter has the parameters of the book (params/book.yaml): "
            "add --out FOLDER to run it there with others"
        )
    folder = path.parent if out is None else params.not_own(params.located(out), root)
    results = root / "data" / "results" if out is None else folder
    failed = (root / "runs" if out is None else folder) / f"{path.stem}.failed.ipynb"
    with _private(folder, path.stem) as private:
        started = time.perf_counter()
        ran = clean(_execute(notebook, given, since, private, failed, root))
        seconds = round(time.perf_counter() - started, 1)
        about = {**stamp.digests(ran, path.stem, private, root), "seconds": seconds}
        ran["metadata"] = {**METADATA, "llmft": {**about, **_circumstances(root)}}
        stamp.write(ran, private / path.name)
        _move(private, path.stem, results, folder, frozen=out is None)
    return folder / path.name


@contextlib.contextmanager
def _private(folder: Path, chapter: str) -> Iterator[Path]:
    """A folder of this run alone, beside its notebook's place: a chapter runs once at a time."""
    private = folder / f".{chapter}.run"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{chapter}.lock", timeout=0):
            shutil.rmtree(private, ignore_errors=True)  # of a run that was killed
            private.mkdir()
            try:
                yield private
            finally:
                shutil.rmtree(private, ignore_errors=True)
    except Timeout:
        raise UserError(f"{chapter} is being run by another process") from None
    except OSError as error:
        why = f"cannot write {error.filename}: {error.strerror}; --out FOLDER gives another place"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full: make room"
        raise UserError(f"{chapter}: {why} (the frozen chapter is as it was)") from None


def _given(
    notebook: stamp.Notebook, values: Mapping[str, object], chapter: str, root: Path
) -> dict[str, object]:
    """What to inject, checked: only what differs from the chapter's defaults."""
    known = stamp.declared(notebook)
    if "studies" not in known:
        raise UserError(f"{chapter}: its cell tagged `parameters` must declare `studies`")
    for name in values:
        if name not in known:
            raise UserError(f"{chapter}: {params.unknown(name, known)}")
    given = {"studies": params.published(root, chapter), **values, **params.absolute(values)}
    names = params.studies_named(given.pop("studies"))
    names = [str(params.located(name)) if params.is_path(name) else name for name in names]
    first, *_ = [params.study(name, given, root) for name in names]
    typed = {name: getattr(first, name) for name in given} | {"studies": names}
    return {name: value for name, value in typed.items() if value != known[name]}


def _bare(notebook: stamp.Notebook) -> stamp.Notebook:
    """The author's notebook: without outputs, stamp, and the cells that papermill adds.

    An injected cell of an earlier run would otherwise stay, and go on overriding the defaults.
    """
    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [dict(cell) for cell in notebook["cells"] if not added & set(stamp.tags(cell))]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return {**notebook, "cells": cells, "metadata": METADATA}


def _sources(notebook: stamp.Notebook) -> list[tuple[str, str]]:
    """What the author wrote: the kind and the text of each cell."""
    return [(cell["cell_type"], cell["source"]) for cell in _bare(notebook)["cells"]]


def _execute(
    notebook: stamp.Notebook,
    given: dict[str, object],
    since: int,
    private: Path,
    failed: Path,
    root: Path,
) -> stamp.Notebook:
    """The executed notebook. A failed one is kept, and the error names it."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    running = private / "running.ipynb"
    stamp.write(notebook, running)
    target = str(running).replace("{", "{{").replace("}", "}}")  # papermill formats the path
    try:
        with _environment(private, since):
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
                    "--InteractiveShellApp.ignore_cwd=True",  # a pandas.py here is not pandas
                ],
            )
        return stamp.read(running)
    except papermill.PapermillExecutionError as error:
        line = " ".join(str(error.evalue).split()) or "no message"
        if error.ename == LeftOutError.__name__:
            raise LeftOutError(f"{failed.name.removesuffix('.failed.ipynb')}: {line}") from None
        what = line if error.ename == "UserError" else f"{error.ename}: {line}"
        before = notebook["cells"][: error.cell_index]
        where = f" in code cell {1 + sum(cell['cell_type'] == 'code' for cell in before)}"
    except DeadKernelError:
        what, where = "the kernel died, most likely for want of memory", ""
    failed.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(running, failed)
    chapter = failed.name.removesuffix(".failed.ipynb")
    raise UserError(
        f"{chapter}: {what[:600]} (it stopped{where}: {failed}; the frozen chapter is as it was)"
    )


@contextlib.contextmanager
def _environment(private: Path, since: int) -> Iterator[None]:
    """What the kernel is told by environment variables, and this process no longer afterwards."""
    before = dict(os.environ)
    os.environ[params.COLLECT] = str(private)
    os.environ[params.SINCE] = str(since)
    os.environ["IPYTHONDIR"] = str(private / "ipython")  # a user's start-up files are not run
    # tqdm tells every reader that it found no widgets; a frozen page has no use for them.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def clean(notebook: stamp.Notebook) -> stamp.Notebook:
    """A run without what differs from run to run or dies when frozen.

    Goes: papermill's and Jupyter's time stamps, progress on standard error, HTML, JavaScript and
    widgets that have another representation. The injected cell gets a fixed id and is hidden.
    """
    cells = []
    for cell in notebook["cells"]:
        noise = ("papermill", "execution")
        plain = {k: v for k, v in cell["metadata"].items() if k not in noise and v != []}
        cell = {**cell, "metadata": plain}
        if "injected-parameters" in stamp.tags(cell):
            cell["id"] = "injected-parameters"
            cell["source"] = cell["source"].rstrip("\n")  # as the linter wants it
            plain["tags"] = ["injected-parameters", "remove-cell"]
        if cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]
            for output in cell["outputs"]:
                data = output.get("data", {})
                light = {kind: value for kind, value in data.items() if kind in gate.MIME_TYPES}
                output.update({"data": light} if light else {})
        cells.append(cell)
    return {**notebook, "cells": cells, "metadata": METADATA}


def _circumstances(root: Path) -> dict[str, object]:
    """When and where a chapter ran: commit, versions, devices, threads that computed."""
    import torch

    from llmft.hardware import device_name  # imported here for torch's sake, as torch is

    device = device_name(torch.device("cpu"))
    if torch.cuda.is_available():
        device = f"{device_name(torch.device('cuda'))}; {device}"
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": provenance.commit(root),
        "versions": {"python": platform.python_version(), "llmft": __version__, **versions},
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _move(private: Path, chapter: str, results: Path, folder: Path, *, frozen: bool) -> None:
    """Move the run into place, its results first: see the module's docstring."""
    results.mkdir(parents=True, exist_ok=True)
    for suffix in stamp.RESULT_SUFFIXES:
        new, place = (where / f"{chapter}{suffix}" for where in (private, results))
        if new.is_file():
            new.replace(place)
        elif frozen:
            place.unlink(missing_ok=True)
    (private / f"{chapter}.ipynb").replace(folder / f"{chapter}.ipynb")


def assignments(pairs: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE` words as parameters, the last of a name; `params.study` settles the types.

    Raises:
        UserError: a word that is none.
    """
    for pair in pairs:
        if not re.match(r"\w+=", pair):
            short = params.abbreviated(pair)
            raise UserError(f"-p {short} must be NAME=VALUE, such as -p repeats=2")
    return dict(pair.split("=", 1) for pair in pairs)
