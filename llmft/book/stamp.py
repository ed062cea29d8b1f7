"""What a frozen chapter was made from: the hashes that the stamp records and the gate compares.

A chapter's outputs are true of its code cells, of the `llmft` modules that these import (one
through another), of the data they read, and of the parameters. The stamp, `metadata.llmft` of the
notebook, holds a hash of each. Everything here is static: nothing is imported or executed, so that
a check of the whole book takes milliseconds and needs no torch.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmft import UserError, files, params, provenance


class UnreadableError(UserError):
    """Code of a chapter that says more than can be read from it without executing it."""


Notebook = dict[str, Any]
Cell = dict[str, Any]

RESULT_SUFFIXES = (".csv", ".parquet", ".svg", ".tex", ".md")
"""What a chapter may leave in the store under its own name, to be committed in `data/results/`."""


def read(path: Path) -> Notebook:
    """A notebook as plain JSON.

    Raises:
        UserError: no such file, or not a notebook.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [dict(cell) for cell in notebook["cells"]]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is not a notebook: bring it back with git, then run it") from None
    return {**notebook, "cells": cells}


def text(value: str | list[str]) -> str:
    """Notebook text, which nbformat stores as one string or as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def tags(cell: Cell) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def code_cells(notebook: Notebook) -> list[Cell]:
    """The code cells that the author wrote: not the parameters that papermill injected."""
    return [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in tags(cell)
    ]


def code(cell: Cell) -> str:
    """A cell's Python: its source without the `#|` options at its top, which only steer Quarto."""
    lines = text(cell["source"]).splitlines(keepends=True)
    while lines and (lines[0].startswith("#|") or not lines[0].strip()):
        del lines[0]
    return "".join(lines).rstrip()


def tree(source: str) -> ast.Module:
    """The parsed code of a cell.

    Raises:
        UnreadableError: it is not Python alone, so what it imports and reads cannot be told.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        line = next(iter(source.splitlines()), "")[:40]
        raise UnreadableError(
            f"the code `{line}` is not plain Python: write it without magics (%) and commands (!)"
        ) from None


def declared(notebook: Notebook) -> dict[str, object]:
    """The names and defaults in the cell tagged `parameters`, in their order."""
    found: dict[str, object] = {}
    for cell in code_cells(notebook):
        if "parameters" in tags(cell):
            for line in tree(code(cell)).body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    name, value = line.target.id, line.value
                elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                    name, value = line.targets[0].id, line.value
                else:
                    continue
                try:
                    found[name] = None if value is None else ast.literal_eval(value)
                except ValueError:
                    found[name] = None
    return found


def injected(notebook: Notebook) -> dict[str, object]:
    """The parameters that papermill injected.

    Raises:
        UnreadableError: a cell with its tag does not just give declared names a value.
    """
    known, values = declared(notebook), {}
    cells = [cell for cell in notebook["cells"] if "injected-parameters" in tags(cell)]
    for cell in cells:
        for line in tree(text(cell["source"])).body:
            try:
                [target] = line.targets  # type: ignore[attr-defined]
                name, value = target.id, ast.literal_eval(line.value)  # type: ignore[attr-defined]
            except (AttributeError, ValueError):
                name, value = "", None
            if name not in known or name in values:
                code = ast.unparse(line)[:40]
                raise UnreadableError(
                    f"the injected cell has `{code}`, which is not `NAME = VALUE`"
                )
            values[name] = value
    return values


def digest(data: bytes | str) -> str:
    """The first 16 hex digits of SHA-256."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def code_digest(notebook: Notebook) -> str:
    """The hash of the author's code cells. Prose and `#|` options may change without a re-run."""
    return digest(json.dumps([code(cell) for cell in code_cells(notebook)]))


def output_digest(notebook: Notebook) -> str:
    """The hash of all outputs, whichever of nbformat's two spellings of text they are in."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k != "execution_count"}
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            return "".join(value)
        return [plain(v) for v in value] if isinstance(value, list) else value

    outputs = [c.get("outputs", []) for c in notebook["cells"] if c["cell_type"] == "code"]
    return digest(json.dumps([[plain(o) for o in cell] for cell in outputs], sort_keys=True))


def module_digests(notebook: Notebook, root: Path) -> dict[str, str]:
    """The hash of every `llmft` file that the chapter imports, directly or through another."""
    found = {"llmft/__init__.py"}
    todo = {name for cell in code_cells(notebook) for name in _imports(tree(code(cell)), "")}
    while todo:
        name = todo.pop()
        for file in _files(name, root):
            if file not in found:
                found.add(file)
                todo |= _module_imports(root / file, file, files.version(root / file))
    return file_digests(root, (root / file for file in found))


def data_digests(
    notebook: Notebook, chapter: str, root: Path, *, outside: bool = False
) -> dict[str, str]:
    """The hash of every data file that the chapter depends on.

    These are the parameter files of its studies; the pocket world's data where a study's task or
    model is "pocket", and a study's own folders; and every path under `data/` or `params/` that
    stands in a code cell as one string (`ROOT / "data/prior/runs.csv"`), files of a folder
    included. Results come from where the studies have them (`results`); the chapter's own are not
    its input. Files that are not in the book count only if `outside`: another clone has them not.
    """
    named = {
        node.value.rstrip("/")
        for cell in code_cells(notebook)
        for node in ast.walk(tree(code(cell)))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(data|params)/[\w./-]+", node.value)
    }
    others = {name for name in named if f"{name}/".startswith("data/results/")}
    paths, places = {root / name for name in named - others}, {root / "data" / "results"}
    values = {name: value for name, value in parameters(notebook).items() if value is not None}
    if "studies" in values:
        paths.add(root / "params" / "pocket.yaml")
        places.clear()
        for name in params.studies_named(values.pop("studies")):
            study = params.study(name, values, root)
            folders = {study.task, study.model, study.rows or "pocket"} - {"pocket"}
            paths |= {params.study_file(name, root), *map(Path, folders)}
            paths |= {root / "data" / "pocket"} if "pocket" in (study.task, study.model) else set()
            places.add(Path(study.results) if study.results else root / "data" / "results")
    paths |= {place / Path(name).relative_to("data/results") for place in places for name in others}
    found = {(file, path) for path in paths for file in (path, *path.rglob("*"))}
    return file_digests(
        root,
        {
            file
            for file, path in found
            if (outside or file.is_relative_to(root))
            and file.is_file()
            and not any(part.startswith(".") for part in _below(file, root, path))
            and not (file.parent in places and file.stem == chapter)
        },
    )


def _below(file: Path, root: Path, folder: Path) -> tuple[str, ...]:
    """The parts of the file's path in the book, or, outside of it, in the folder that was named."""
    return file.relative_to(root if file.is_relative_to(root) else folder).parts


def result_digests(chapter: str, folder: Path) -> dict[str, str]:
    """The hash of a chapter's results in a folder, by the names that they have in the book."""
    found = (folder / f"{chapter}{suffix}" for suffix in RESULT_SUFFIXES)
    digests = file_digests(folder, (file for file in found if file.is_file()))
    return {f"data/results/{name}": value for name, value in digests.items()}


def parameters(notebook: Notebook) -> dict[str, object]:
    """The parameters that the notebook ran with: its defaults, then what papermill injected."""
    return declared(notebook) | injected(notebook)


def file_digests(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The hash of each file by its path in the book: its bytes, of a module its code alone.

    A comment or a docstring changes nothing that a chapter shows. A file that is not in the book
    has its whole path.
    """
    return {
        (f.relative_to(root) if f.is_relative_to(root) else f).as_posix(): _file_digest(
            f, files.version(f)
        )
        for f in sorted(paths)
    }


@lru_cache(maxsize=1024)
def _file_digest(file: Path, _version: tuple[int, ...]) -> str:
    if file.suffix == ".py":
        return digest(provenance.code_only(file.read_text(encoding="utf-8")))
    return files.sha256(file)[:16]


@lru_cache(maxsize=1024)
def _module_imports(path: Path, file: str, _version: tuple[int, ...]) -> frozenset[str]:
    package = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if path.name != "__init__.py":
        package = package.rpartition(".")[0]
    return frozenset(_imports(tree(path.read_text(encoding="utf-8")), package))


def _imports(module: ast.Module, package: str) -> Iterator[str]:
    """The dotted names that the code imports; for `from a import b` both a and a.b."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files(name: str, root: Path) -> Iterator[str]:
    """The files of the book that importing `name` executes."""
    parts = name.split(".")
    if parts[0] != "llmft":
        return
    for n in range(1, len(parts) + 1):
        stem = "/".join(parts[:n])
        for file in (f"{stem}/__init__.py", f"{stem}.py"):
            if (root / file).is_file():
                yield file
