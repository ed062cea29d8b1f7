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
from contextlib import suppress
from functools import lru_cache
from importlib.util import resolve_name
from itertools import dropwhile
from pathlib import Path
from typing import Any

import nbformat

from llmft import UserError, files, params, provenance


Notebook = dict[str, Any]
Cell = dict[str, Any]

RESULT_SUFFIXES = tuple(".csv .parquet .svg .tex .md -answer.md -answers.json -claims.json".split())
"""What a chapter may leave in the store under its own name, to be committed in `data/results/`."""


# --- notebooks -----------------------------------------------------------------------------------


def read(path: Path) -> Notebook:
    """A notebook; what nbformat stores as a list of lines is one text.

    Raises:
        UserError: no such file, or not a notebook.
    """
    broken = UserError(f"{path} is not a notebook: bring it back with git, then run it")
    try:
        notebook: Notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise broken from None
    for cell in notebook["cells"]:
        of_code = {"outputs", "execution_count"} if cell.get("cell_type") == "code" else set()
        if not cell.keys() >= {"cell_type", "metadata", "source"} | of_code:
            raise broken
        texts = [cell["source"]]
        for output in cell.get("outputs", []):
            data = output.get("data", {}).items()
            texts += [output.get("text", ""), *(v for k, v in data if "json" not in k)]
        if not all(isinstance(text, str) for text in texts):
            raise broken
    return notebook


def write(notebook: Notebook, path: Path) -> None:
    """Write a notebook as Jupyter does."""
    text = nbformat.v4.writes(nbformat.from_dict(notebook))
    path.write_text(f"{text}\n", encoding="utf-8")


def tags(cell: Cell) -> list[str]:
    """The tags of a cell."""
    return list(cell["metadata"].get("tags", []))


def code_cells(notebook: Notebook) -> list[Cell]:
    """The code cells that the author wrote: not the parameters that papermill injected."""
    return [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "injected-parameters" not in tags(cell)
    ]


def code(cell: Cell) -> str:
    """A cell's Python: its source without the `#|` options at its top, which only steer Quarto."""
    lines = cell["source"].splitlines(keepends=True)
    python = dropwhile(lambda line: line.startswith("#|") or not line.strip(), lines)
    return "".join(python).rstrip()


def tree(source: str) -> ast.Module:
    """The parsed code of a cell.

    Raises:
        UserError: it is not Python alone, so what it imports and reads cannot be told.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        line = next(iter(source.splitlines()), "")[:40]
        raise UserError(
            f"the code `{line}` is not plain Python: write it without magics (%) and commands (!)"
        ) from None


def declared(notebook: Notebook) -> dict[str, object]:
    """The names and defaults in the cell tagged `parameters`, in their order.

    Raises:
        UserError: the cell does anything else.
    """
    return _assigned(notebook, "parameters")


def parameters(notebook: Notebook) -> dict[str, object]:
    """The parameters that the notebook ran with: its defaults, then what papermill injected.

    Raises:
        UserError: an injected cell does anything but give declared names a value.
    """
    known, given = declared(notebook), _assigned(notebook, "injected-parameters")
    for name in given.keys() - known.keys():
        raise UserError(f"the injected cell has `{name}`, which is not a parameter of the chapter")
    return known | given


def _assigned(notebook: Notebook, tag: str) -> dict[str, object]:
    """The values that the cells with a tag give to names."""
    values: dict[str, object] = {}
    cells = [cell for cell in notebook["cells"] if tag in tags(cell)]
    for line in (line for cell in cells for line in tree(code(cell)).body):
        # Python evaluates an annotation: an injected cell has none.
        annotated = isinstance(line, ast.AnnAssign) and tag == "parameters"
        match line:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(
                ast.Name(name), _, ast.expr() as value
            ):
                if name not in values and (annotated or isinstance(line, ast.Assign)):
                    with suppress(ValueError):
                        values[name] = ast.literal_eval(value)
                        continue
        words = ast.unparse(line)[:40]
        raise UserError(f"the cell of {tag} has `{words}`, which is not `NAME = VALUE`")
    return values


# --- hashes --------------------------------------------------------------------------------------


def digests(notebook: Notebook, chapter: str, results: Path, root: Path) -> dict[str, Any]:
    """What the stamp says of a run, and the gate compares with what is there.

    Prose and `#|` options may change without a new run, and so may comments and docstrings.

    `results` is the folder of what it measured.

    Raises:
        UserError: its code or its parameters cannot be read.
    """
    outputs = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    own = {suffix: results / f"{chapter}{suffix}" for suffix in RESULT_SUFFIXES}
    return {
        "code": digest(json.dumps([code(cell) for cell in code_cells(notebook)])),
        "modules": module_digests(notebook, root),
        "data": data_digests(notebook, chapter, root),
        "results": {
            f"data/results/{chapter}{suffix}": files.sha256(file)[:16]
            for suffix, file in own.items()
            if file.is_file()
        },
        "outputs": digest(json.dumps(outputs, sort_keys=True)),
        "parameters": parameters(notebook),
    }


def digest(text: str) -> str:
    """The first 16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def module_digests(notebook: Notebook, root: Path) -> dict[str, str]:
    """The hash of every `llmft` file that the chapter imports, directly or through another."""
    found: dict[str, str] = {}
    todo = {"llmft"}.union(*(_imports(code(cell), "llmft") for cell in code_cells(notebook)))
    while todo:
        parts = todo.pop().split(".")
        stems = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        for file in (f"{stem}{end}" for stem in stems for end in (".py", "/__init__.py")):
            if parts[0] == "llmft" and file not in found and (root / file).is_file():
                source = (root / file).read_text(encoding="utf-8")
                todo |= _imports(source, file.rpartition("/")[0].replace("/", "."))
                found[file] = digest(provenance.code_only(source))
    return dict(sorted(found.items()))


@lru_cache(maxsize=1024)
def _imports(source: str, package: str) -> frozenset[str]:
    """The dotted names that code in a package imports; for `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def files_named(notebook: Notebook) -> set[str]:
    """Every path under `data/` or `params/` that stands in a code cell as one string."""
    return {
        node.value.rstrip("/")
        for cell in code_cells(notebook)
        for node in ast.walk(tree(code(cell)))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(data|params)/[\w./-]+", node.value)
    }


def data_digests(notebook: Notebook, chapter: str, root: Path) -> dict[str, str]:
    """The hash of every data file that the chapter depends on, by its path in the book.

    These are the parameter files of its studies; the pocket world's data where a study's task or
    model is "pocket", and a study's own folders; and every path that a code cell names
    (`files_named`: `ROOT / "data/prior/runs.csv"`), files of a folder included. Results come from
    where the studies have them (`results`); the chapter's own are not its input. A file that is not
    in the book has its whole path.
    """
    named = files_named(notebook)
    others = {name for name in named if f"{name}/".startswith("data/results/")}
    paths, places = {root / name for name in named - others}, set()
    values = {name: value for name, value in parameters(notebook).items() if value is not None}
    for name in params.studies_named(values.pop("studies", [])):
        study = params.study(name, values, root)
        paths |= {root / "params" / "pocket.yaml", params.study_file(name, root)}
        paths |= {Path(f) for f in (study.task, study.model, study.rows) if Path(f).is_absolute()}
        paths |= {root / "data" / "pocket"} if "pocket" in (study.task, study.model) else set()
        places.add(Path(study.results or root / "data" / "results"))
    paths |= {place / Path(name).relative_to("data/results") for place in places for name in others}
    found = {(file, path) for path in paths for file in (path, *path.rglob("*")) if file.is_file()}
    return {
        (file.relative_to(root) if file.is_relative_to(root) else file).as_posix(): (
            files.sha256(file)[:16]
        )
        for file, path in sorted(found)
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
        and not (file.parent in places and file.stem == chapter)
    }
