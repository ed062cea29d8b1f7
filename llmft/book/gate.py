"""The gate: what is wrong with a frozen chapter, or with the book as a whole.

A frozen book can be wrong in silent ways: a chapter whose code was edited after it ran, a module
changed under it, an output touched by hand, a smoke run committed, a figure without a caption, a
reference that resolves to nothing. Quarto renders all of these happily. Two kinds of problem:
stale ones, which running the chapter again puts right, and the author's, which only an edit does.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmft import ROOT, UserError, inert, params, provenance
from llmft.book import stamp


SIZE_CAP = 4_000_000
"""Bytes of a chapter; above it, aggregate before plotting or show fewer marks."""

MIME_TYPES = frozenset(
    {"text/plain", "text/markdown", "text/latex", "image/svg+xml", "image/png", "image/jpeg"}
)
"""What a frozen output may hold: everything that needs no JavaScript, and so no network."""

ABSOLUTE = re.compile(r"(?<![\w:/.>])/(home|root|Users|tmp|var|private|mnt|work|scratch)/[\w.-]+")
LABEL = re.compile(r"(fig|tbl|sec|eq)-[a-z0-9]+(-[a-z0-9]+)*")
REFERENCE = re.compile(r"(?<![\w@/.:\\])@(\{[^}\s]+\}|[A-Za-z0-9_][\w:.#$%&+?<>~/-]*)")
CODE = re.compile(r"(?ms)^(`{3,}|~{3,}).*?^\1\s*$|`+[^`]*`+|<!--.*?-->")
"""What of a page's Markdown is no prose."""

NOTES = "tried.qmd"
"""The page of dated notes. Its numbers were written down when they were seen, as it says itself."""

INCLUDE = r"\{\{<\s*include\s+(\S+)\s*>\}\}"
"""Quarto's shortcode for the text of another file."""

OPTIONS = frozenset(
    "label fig-cap fig-alt tbl-cap tbl-colwidths code-fold code-summary echo".split()
)
"""The `#|` options that a cell may have: none of them hides or changes what it shows."""

TAGS = frozenset({"parameters", "injected-parameters", "papermill-error-cell-tag"})
"""The tags that a cell may have; Quarto hides by others."""

HIDDEN = re.compile(r"content-(?:hidden|visible)|display\s*:\s*none|<!--(?!.*?-->)", re.S)
"""What in prose would hide what comes after it."""

USUAL = r"95\s?%|80\s?% power|\d+\.\d+\.\d"  # of intervals and of designs; a version
TYPED = re.compile(rf"(?<!\w)(?<!\w-)(?<!\.)(?!{USUAL})(?:\d*\.\d+|\d+\s?%|\d+ times\b)")
"""A number that a page states by itself: a decimal or a percentage, but for what is `USUAL`."""

VERIFIED = "data/results/verified.json"
"""What `llmft verify` leaves."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `stale` when running the chapter again puts it right."""

    chapter: str
    what: str
    stale: bool = False

    def __str__(self) -> str:
        return f"{self.chapter}: {self.what}"


# --- the book ------------------------------------------------------------------------------------


def listed(root: Path = ROOT) -> list[str]:
    """The sources that `_quarto.yml` lists, in the book's order, parts and appendices included.

    Raises:
        UserError: there is no such file, or it is not a book's.
    """
    try:
        book = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
        return [*_sources(book.get("chapters", [])), *_sources(book.get("appendices", []))]
    except OSError as error:
        raise UserError(
            f"{root / '_quarto.yml'}: {error.strerror}; llmft works in a clone of its book, "
            "installed by pip install -e . there"
        ) from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise UserError("_quarto.yml does not describe a book") from None


def _sources(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            pages = (str(entry.get(key, "")) for key in ("part", "href", "file"))
            yield from (page for page in pages if page.endswith((".qmd", ".ipynb", ".md")))
            yield from _sources(entry.get("chapters", []))


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks of the book in its order, then those in `chapters/` that it does not list."""
    known = [root / source for source in listed(root) if source.endswith(".ipynb")]
    found = sorted((root / "chapters").glob("[!.]*.ipynb"))
    return [p for p in known if p.is_file()] + [p for p in found if p not in known]


def check(root: Path = ROOT) -> list[Problem]:
    """Every problem of the book: of its chapters, its order and its references."""
    problems: list[Problem] = []
    sources = {source: root / source for source in listed(root)}
    for source, file in sources.items():
        if not file.is_file():
            problems.append(Problem("_quarto.yml", f"lists {source}, which does not exist"))
    for path in chapters(root):
        problems += check_chapter(path, root)
        if path not in sources.values():
            problems.append(Problem(path.stem, "is not listed in _quarto.yml"))
            sources[f"chapters/{path.name}"] = path
    files = [file for file in sources.values() if file.is_file()]
    pages = {file for file in files if file.suffix != ".ipynb"} | {*root.glob("*.qmd")}
    for page in sorted(pages):
        problems += [Problem(page.name, what) for what in _page(page, root)]
    for figure in sorted(root.glob("data/results/*.svg")):
        live = inert.svg_problems(figure.read_text(encoding="utf-8"))
        problems += [Problem(figure.name, f"has {what}") for what in live]
    return [*problems, *_around(root), *check_links(files, root)]


def _page(page: Path, root: Path) -> Iterator[str]:
    """What is wrong with a page that is no notebook."""
    for what in inert.markdown_problems(page_text(page, root)):
        yield f"has {what}"
    text = page.read_text(encoding="utf-8")
    # Prose without links' targets, attributes and citations.
    prose = re.sub(r"\]\([^)]*\)|\{[^{}]*\}|@[\w:.-]+", " ", CODE.sub(" ", text))
    for number in TYPED.findall(prose) if page.name != NOTES else []:
        yield f"has the number {number}, typed: include a result instead"
    for hides in HIDDEN.findall(text):
        yield f"has `{hides}`, which could hide a result"


def page_text(path: Path, root: Path) -> str:
    """The text of a page that is no notebook, with the files of the book that it includes."""

    def included(match: re.Match[str]) -> str:
        file = (path.parent / match[1]).resolve()
        known = file.is_relative_to(root.resolve()) and file.is_file()
        return file.read_text(encoding="utf-8") if known else match[0]

    return re.sub(INCLUDE, included, path.read_text(encoding="utf-8"))


def _around(root: Path) -> Iterator[Problem]:
    """What is wrong beside the chapters and pages: in parameters, results, and other files."""
    try:
        for name in params.published(root):
            params.study(name, root=root)
    except UserError as error:
        yield Problem("params", str(error))
    stamps = (stamp.read(path)["metadata"].get("llmft", {}) for path in chapters(root))
    results = {name for stamped in stamps for name in stamped.get("results", {})} | {VERIFIED}
    for file in sorted((root / "data" / "results").rglob("[!.]*")):
        name = file.relative_to(root).as_posix()
        if file.is_file() and name not in results:
            yield Problem(name, "is not the result of a chapter's run")
    modules = [*root.glob("*.py"), *root.glob("chapters/*.py"), *root.glob("*/__init__.py")]
    for name in sorted(module.relative_to(root).as_posix() for module in modules):
        if name.split("/")[0] not in ("llmft", "tests", "conftest.py"):
            yield Problem(name, "could be imported in place of a package: remove it")


def unverified(root: Path = ROOT) -> str:
    """One line where the code that measures is not the one that results were last verified with."""
    try:
        record = json.loads((root / VERIFIED).read_text(encoding="utf-8"))
        then, when = record["code"], record["date"][:10]
    except (OSError, ValueError, KeyError, TypeError):
        return "the results were never verified: `llmft verify` does some of the runs again"
    if then == provenance.code_digest(root):
        return ""
    return (
        f"the code that measures has changed since the results were verified on {when}: "
        "`llmft verify` does some of the runs again"
    )


# --- a chapter after its run ---------------------------------------------------------------------


def check_chapter(path: Path, root: Path = ROOT) -> list[Problem]:
    """Every problem of one chapter by itself."""
    notebook = stamp.read(path)
    try:
        right = {"studies": params.published(root, path.stem)}
        stale = stale_by(notebook, path.stem, right, root / "data" / "results", root)
        edits = [*_outputs(notebook, root), *_author(notebook)]
    except UserError as error:  # code or parameters that cannot be read
        return [Problem(path.stem, str(error), stale=True)]
    size = path.stat().st_size
    if size > SIZE_CAP:
        edits.append(f"is {size / 1e6:.1f} MB, above the {SIZE_CAP / 1e6:.0f} MB cap")
    problems = [Problem(path.stem, what, stale=True) for what in stale]
    return problems + [Problem(path.stem, what) for what in edits]


def stale_by(
    notebook: stamp.Notebook, chapter: str, right: Mapping[str, object], results: Path, root: Path
) -> list[str]:
    """Why a run of a chapter is not, or no longer, true; nothing where it is.

    `right` are the parameters that it should have run with, the others should be None; `results`
    is the folder of what it measured.

    Raises:
        UserError: its code or its parameters cannot be read.
    """
    then = notebook["metadata"].get("llmft")
    if then is None:
        return ["was never run: it has no stamp"]
    now = stamp.digests(notebook, chapter, results, root)
    found = [
        what
        for kind, what in (
            ("code", "stale: a code cell was changed after the run"),
            ("outputs", "its outputs were edited after the run"),
            ("parameters", "its injected parameters are not those of its stamp"),
        )
        if then.get(kind) != now[kind]
    ]
    for kind, what in (
        ("modules", "changed after the run"),
        ("data", "changed after the run"),
        ("results", "edited by hand or half written"),
    ):
        old, new = then.get(kind, {}), now[kind]
        changed = sorted(file for file in {*old, *new} if old.get(file) != new.get(file))
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        found += [f"stale: {', '.join(changed[:4])}{more} {what}"] if changed else []
    found += [
        f"was run with {name} = {value!r}; the published book has {right.get(name)!r}"
        for name, value in now["parameters"].items()
        if value != right.get(name)
    ]
    return [*found, *_execution(notebook)]


def _execution(notebook: stamp.Notebook) -> Iterator[str]:
    """Signs that the outputs do not come from one whole run, top to bottom."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code" and c["source"]]
    outputs = [output for cell in cells for output in cell["outputs"]]
    for error in (output for output in outputs if output.get("output_type") == "error"):
        yield f"holds an error output: {error.get('ename')}: {error.get('evalue')}"
    counts = [cell["execution_count"] for cell in cells]
    if not outputs or None in counts:
        yield "hollow: a code cell without a sign of execution, or no output at all"
    elif counts != list(range(1, len(counts) + 1)):
        yield "its cells were not run once each from top to bottom (execution counts)"
    for cell in stamp.code_cells(notebook):
        kinds = "".join(kind for output in cell["outputs"] for kind in output.get("data", {}))
        label = str(cell_options(cell).get("label"))
        if label.startswith("fig-") and "image/" not in kinds:
            yield f"hollow: {_name(cell)} shows no figure"
        if label.startswith("tbl-") and "text/markdown" not in kinds:
            yield f"hollow: {_name(cell)} shows no table"
    if any("papermill-error-cell-tag" in stamp.tags(cell) for cell in notebook["cells"]):
        yield "holds the error marks of a failed papermill run"
    if "widgets" in notebook["metadata"]:
        yield "holds the state of a widget, which is dead when frozen"


def _outputs(notebook: stamp.Notebook, root: Path) -> Iterator[str]:
    """Outputs that would need JavaScript or a network, or that show one machine's paths."""
    outputs = [(cell, output) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    for cell, output in outputs:
        data = output.get("data", {})
        for kind in sorted(set(data) - MIME_TYPES):
            yield f"{_name(cell)} has a {kind} output; show Markdown, SVG or PNG"
        for text in (output.get("text", ""), *(data[k] for k in data if k.startswith("text/"))):
            path = ABSOLUTE.search(text)
            if path or (len(root.parts) > 2 and str(root) in text):
                yield f"{_name(cell)} shows a path of one machine: {path[0] if path else root}"
        for what in _live(data, output.get("text", "")):
            yield f"{_name(cell)} shows {what}"


def _live(data: dict[str, Any], printed: str) -> Iterator[str]:
    """What a page would act upon in an output; printed and plain text is code there."""
    yield from inert.markdown_problems(data.get("text/markdown", ""))
    yield from inert.markdown_problems(data.get("text/latex", ""))
    if "image/svg+xml" in data:
        yield from inert.svg_problems(data["image/svg+xml"])
    plain = data["text/plain"] if set(data) == {"text/plain"} else ""
    yield from inert.printed_problems(plain + printed)


# --- what its author wrote -----------------------------------------------------------------------


def _author(notebook: stamp.Notebook) -> Iterator[str]:
    """What every chapter must have: a title with a label, known parameters, captions, alt text."""
    cells = notebook["cells"]
    first = cells[0]["source"] if cells and cells[0]["cell_type"] == "markdown" else ""
    if not re.match(r"# \S.* \{#sec-[a-z0-9-]+\}\s*(\n|$)", first):
        yield "its first cell must be Markdown that starts with `# Title {#sec-name}`"
    for name in stamp.declared(notebook):
        if name not in (*params.Study.model_fields, "studies"):
            yield params.unknown(name, params.Study.model_fields) + " (llmft/params.py)"
    for cell in cells:
        known = TAGS | {"remove-cell"} if "injected-parameters" in stamp.tags(cell) else TAGS
        for tag in sorted(set(stamp.tags(cell)) - known):
            yield f"{_name(cell)} has the tag {tag}, which could hide it"
        text = cell["source"].partition("\n")[0][:40]
        if cell["cell_type"] == "raw":
            yield f"a raw cell, `{text}`: pages show raw cells as they are; use Markdown"
        elif cell["cell_type"] == "markdown":
            if hides := HIDDEN.search(cell["source"]):
                yield f"the text `{text}` has `{hides[0]}`, which could hide what a run shows"
            for what in inert.markdown_problems(cell["source"]):
                yield f"the text `{text}` has {what}"
    for cell in stamp.code_cells(notebook):
        for what in _options(cell_options(cell)):
            yield f"{_name(cell)} has {what}"


def _options(options: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the `#|` options of a cell."""
    for option, value in options.items():
        if option not in OPTIONS:
            yield f"`#| {option}:`, which could hide or change what it shows"
        for what in inert.markdown_problems(str(value)):
            yield f"in `#| {option}:` {what}"
    kind = str(options.get("label", "")).partition("-")[0]
    for other in {"fig", "tbl"} - {kind}:
        if options.get(f"{other}-cap"):
            yield f"a {other}-cap, so its label must start with `{other}-`"
    needed = {"fig": ("fig-cap", "fig-alt"), "tbl": ("tbl-cap",)}
    for option in needed.get(kind, ()):
        if not str(options.get(option) or "").strip():
            yield f"no `#| {option}:`"


def cell_options(cell: stamp.Cell) -> dict[str, Any]:
    """The `#|` options at the top of a code cell, or the one option "(not YAML)"."""
    lines = []
    for line in cell["source"].splitlines():
        if not line.startswith("#|"):
            break
        lines.append(line[2:].removeprefix(" "))
    try:
        options = yaml.safe_load("\n".join(lines))
    except yaml.YAMLError:
        options = {"(not YAML)": ""}
    return {str(k): value for k, value in options.items()} if isinstance(options, dict) else {}


def _name(cell: stamp.Cell) -> str:
    """How to find a cell: by its label, else by its first line of code."""
    label = cell_options(cell).get("label")
    line = stamp.code(cell).partition("\n")[0]
    return f"cell `{label}`" if label else f"the cell `{line[:40]}`"


# --- references ----------------------------------------------------------------------------------


def links_of(path: Path) -> tuple[list[str], list[str]]:
    """The labels, and the references and citations, of a chapter or a `.qmd` page."""
    labels, prose = [], []
    if path.suffix != ".ipynb":
        prose.append(path.read_text(encoding="utf-8"))
    for cell in stamp.read(path)["cells"] if path.suffix == ".ipynb" else []:
        if cell["cell_type"] != "code":
            prose.append(cell["source"])
            continue
        options = cell_options(cell)
        labels += [str(options["label"])] if "label" in options else []
        prose += [str(value) for name, value in options.items() if name.endswith("-cap")]
        prose += [output.get("data", {}).get("text/markdown", "") for output in cell["outputs"]]
    references = []
    for text in (CODE.sub(" ", part) for part in prose):
        labels += re.findall(r"\{(?:[^{}]*\s)?#([\w:.-]+)[^{}]*\}", text)
        references += [key.strip("{}").rstrip(".,;:?!*_") for key in REFERENCE.findall(text)]
    return labels, references


def check_links(files: list[Path], root: Path = ROOT) -> Iterator[Problem]:
    """References and citations that resolve to nothing, labels that are malformed or used twice."""
    links = {file.stem: links_of(file) for file in files}
    bibliography = root / "references.bib"
    entries = bibliography.read_text(encoding="utf-8") if bibliography.is_file() else ""
    keys = set(re.findall(r"(?m)^\s*@\w+\s*\{\s*([^,\s]+)\s*,", entries))
    defined: dict[str, str] = {}
    for name, (labels, _) in links.items():
        for label in labels:
            if label in defined:
                yield Problem(name, f"label `{label}` is also in {defined[label]}")
            elif label != "refs":
                defined[label] = name
    cited = {key for _, references in links.values() for key in references}
    for label, name in defined.items():
        if not LABEL.fullmatch(label):
            what = f"label `{label}` must be fig-, tbl-, sec- or eq-, a-z, 0-9 and hyphens"
            yield Problem(name, what)
        elif label.startswith(("fig-", "tbl-")) and label not in cited:
            yield Problem(name, f"nothing refers to @{label}: say in prose what it shows")
    for name, (_, references) in links.items():
        for key in dict.fromkeys(references):
            if LABEL.match(key) and key not in defined:
                yield Problem(name, f"@{key} refers to nothing")
            elif not LABEL.match(key) and key not in keys:
                yield Problem(name, f"citation @{key} is not in references.bib")
