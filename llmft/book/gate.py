"""The gate: what is wrong with a frozen chapter, or with the book as a whole.

A frozen book can be wrong in silent ways: a chapter whose code was edited after it ran, a module
changed under it, an output touched by hand, a smoke run committed, a figure without a caption, a
reference that resolves to nothing. Quarto renders all of these happily. Two kinds of problem:
stale ones, which running the chapter again puts right, and the author's, which only an edit does.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
LABEL = re.compile(r"(fig|tbl|sec|eq|lst)-[a-z0-9]+(-[a-z0-9]+)*")
REFERENCE = re.compile(r"(?<![\w@/.:\\])@(\{[^}\s]+\}|[A-Za-z0-9_][\w:.#$%&+?<>~/-]*)")
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

TYPED = re.compile(r"(?<!\w)(?<!\w-)(?<!\.)(?!95\s?%)(?:\d*\.\d+|\d+\s?%|\d+ times\b)")
"""A number that a page states by itself: a decimal or a percentage, but for 95 % intervals."""


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


@dataclass
class Links:
    """The labels, references and citations of one source of the book."""

    labels: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)


def listed(root: Path = ROOT) -> list[str]:
    """The sources that `_quarto.yml` lists, in the book's order, parts and appendices included.

    Raises:
        UserError: there is no such file, or it is not a book's.
    """
    try:
        book = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
        return list(_sources(book.get("chapters", []))) + list(_sources(book.get("appendices", [])))
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
            for key in ("part", "href", "file"):
                if str(entry.get(key, "")).endswith((".qmd", ".ipynb", ".md")):
                    yield entry[key]
            yield from _sources(entry.get("chapters", []))


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks of the book in its order, then those in `chapters/` that it does not list."""
    known = [root / source for source in listed(root) if source.endswith(".ipynb")]
    found = sorted((root / "chapters").glob("[!.]*.ipynb"))
    return [p for p in known if p.is_file()] + [p for p in found if p not in known]


def check(root: Path = ROOT) -> list[Problem]:
    """Every problem of the book: of its chapters, its order and its references."""
    sources = listed(root)
    problems = [
        Problem("_quarto.yml", f"lists {source}, which does not exist")
        for source in sources
        if not (root / source).is_file()
    ]
    links = {s: links_of(root / s) for s in sources if (root / s).is_file()}
    pages = [root / source for source in sources if not source.endswith(".ipynb")]
    for page in sorted({*pages, *root.glob("*.qmd"), *root.glob("data/results/*.svg")}):
        if page.is_file():
            text = page_text(page, root)
            find = inert.svg_problems if page.suffix == ".svg" else inert.markdown_problems
            problems += [Problem(page.name, f"has {what}") for what in find(text)]
    for path in chapters(root):
        source = path.relative_to(root).as_posix()
        problems += check_chapter(path, root)
        if source not in sources:
            problems.append(Problem(path.stem, "is not listed in _quarto.yml"))
            links[source] = links_of(path)
    return [*problems, *_around(root), *check_links(links, root)]


def _around(root: Path) -> Iterator[Problem]:
    """What is wrong beside the chapters: in parameters, results, other pages, and other files."""
    try:
        for name in params.published(root):
            params.study(name, root=root)
    except UserError as error:
        yield Problem("params", str(error))
    results = {name for path in chapters(root) for name in _results(path)}
    for found in sorted((root / "data" / "results").rglob("*")):
        name = found.relative_to(root).as_posix()
        if (
            name not in (*results, VERIFIED)
            and not found.is_dir()
            and not found.name.startswith(".")
        ):
            yield Problem(name, "is not the result of a chapter's run")
    for found in sorted(
        [*root.glob("*.py"), *root.glob("chapters/*.py"), *root.glob("*/__init__.py")]
    ):
        name = found.relative_to(root).as_posix()
        if name.split("/")[0] not in ("llmft", "tests", "conftest.py"):
            yield Problem(name, "could be imported in place of a package: remove it")
    for source in listed(root):
        if source.endswith((".qmd", ".md")) and (root / source).is_file():
            text = (root / source).read_text(encoding="utf-8")
            for number in TYPED.findall(_prose(text)):
                yield Problem(source, f"has the number {number}, typed: include a result instead")
            for hides in HIDDEN.findall(text):
                yield Problem(source, f"has `{hides}`, which could hide a result")


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


def _results(path: Path) -> list[str]:
    then = stamp.read(path).get("metadata", {}).get("llmft", {})
    return list(then.get("results", {}))


def _prose(text: str) -> str:
    """A page without code, comments, links' targets, attributes and citations."""
    code = r"(?ms)^(`{3,}|~{3,}).*?^\1\s*$|`+[^`]*`+|<!--.*?-->"
    return re.sub(r"\]\([^)]*\)|\{[^{}]*\}|@[\w:.-]+", " ", re.sub(code, " ", text))


def check_chapter(path: Path, root: Path = ROOT) -> list[Problem]:
    """Every problem of one chapter by itself."""
    notebook = stamp.read(path)
    try:
        right = {"studies": params.published(root, path.stem)}
        stale = stale_by(notebook, path.stem, right, root / "data" / "results", root)
        edits = [*_outputs(notebook, root), *_author(notebook)]
    except UserError as error:  # code or parameters that cannot be read
        return [Problem(path.stem, str(error), stale=True)]
    if path.stat().st_size > SIZE_CAP:
        edits.append(
            f"is {path.stat().st_size / 1e6:.1f} MB, above the {SIZE_CAP / 1e6:.0f} MB cap"
        )
    return [Problem(path.stem, what, stale=True) for what in stale] + [
        Problem(path.stem, what) for what in edits
    ]


def stale_by(
    notebook: stamp.Notebook, chapter: str, right: Mapping[str, object], results: Path, root: Path
) -> list[str]:
    """Why a run of a chapter is not, or no longer, true; nothing where it is.

    Args:
        notebook: what the run left.
        chapter: its name.
        right: the parameters that it should have run with; the others should be None.
        results: the folder of what it measured.
        root: the book's folder.

    Raises:
        UserError: its code or its parameters cannot be read.
    """
    if "llmft" not in notebook.get("metadata", {}):
        return ["was never run: it has no stamp"]
    return [*_stamp(notebook, chapter, right, results, root), *_execution(notebook)]


def _stamp(
    notebook: stamp.Notebook, chapter: str, right: Mapping[str, object], results: Path, root: Path
) -> Iterator[str]:
    """Where the stamp and what it was made from disagree."""
    stamped = notebook["metadata"]["llmft"]
    outside = results != root / "data" / "results"
    if stamped.get("code") != stamp.code_digest(notebook):
        yield "stale: a code cell was changed after the run"
    for kind, now in (
        ("modules", stamp.module_digests(notebook, root)),
        ("data", stamp.data_digests(notebook, chapter, root, outside=outside)),
        ("results", stamp.result_digests(chapter, results)),
    ):
        then = stamped.get(kind, {})
        changed = sorted(f for f in {*then, *now} if then.get(f) != now.get(f))
        if changed:
            verb = (
                "edited by hand or half written" if kind == "results" else "changed after the run"
            )
            more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
            yield f"stale: {', '.join(changed[:4])}{more} {verb}"
    if stamped.get("outputs") != stamp.output_digest(notebook):
        yield "its outputs were edited after the run"
    ran = stamp.parameters(notebook)
    if stamped.get("parameters") != ran:
        yield "its injected parameters are not those of its stamp"
    for name, value in ran.items():
        if value != right.get(name):
            yield f"was run with {name} = {value!r}; the published book has {right.get(name)!r}"


def _execution(notebook: stamp.Notebook) -> Iterator[str]:
    """Signs that the outputs do not come from one whole run, top to bottom."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code" and stamp.text(c["source"])]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [o for o in outputs if o.get("output_type") == "error"]
    if errors:
        yield f"holds an error output: {errors[0].get('ename')}: {errors[0].get('evalue')}"
    counts = [cell.get("execution_count") for cell in cells]
    if not outputs or None in counts:
        yield "hollow: a code cell without a sign of execution, or no output at all"
    elif counts != list(range(1, len(counts) + 1)):
        yield "its cells were not run once each from top to bottom (execution counts)"
    for cell in stamp.code_cells(notebook):
        kind = re.search(r"(?m)^#\| label: (fig|tbl)-", stamp.text(cell["source"]))
        kinds = {mime for o in cell.get("outputs", []) for mime in o.get("data", {})}
        want = "text/markdown" if kind and kind[1] == "tbl" else "image/"
        if kind and not any(mime.startswith(want) for mime in kinds):
            yield f"hollow: {_name(cell)} shows no {'table' if kind[1] == 'tbl' else 'figure'}"
    if any("papermill-error-cell-tag" in stamp.tags(cell) for cell in notebook["cells"]):
        yield "holds the error marks of a failed papermill run"
    if "widgets" in notebook.get("metadata", {}):
        yield "holds the state of a widget, which is dead when frozen"


def _outputs(notebook: stamp.Notebook, root: Path) -> Iterator[str]:
    """Outputs that would need JavaScript or a network, or that show one machine's paths."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in sorted(set(data) - MIME_TYPES):
                yield f"{_name(cell)} has a {kind} output; show Markdown, SVG or PNG"
            words = [stamp.text(v) for k, v in data.items() if k.startswith("text/")]
            words.append(stamp.text(output.get("text", "")))
            for text in words:
                path = ABSOLUTE.search(text)
                if path or (len(root.parts) > 2 and str(root) in text):
                    yield f"{_name(cell)} shows a path of one machine: {path[0] if path else root}"
            for what in _live(data, output.get("text", "")):
                yield f"{_name(cell)} shows {what}"


def _live(data: dict[str, Any], printed: str | list[str] = "") -> Iterator[str]:
    """What a page would act upon in an output; printed and plain text is code there."""
    for kind, value in data.items():
        if kind in ("text/markdown", "text/latex"):
            yield from inert.markdown_problems(stamp.text(value))
        elif kind == "image/svg+xml":
            yield from inert.svg_problems(stamp.text(value))
    plain = stamp.text(data.get("text/plain", "")) if set(data) == {"text/plain"} else ""
    yield from inert.printed_problems(plain + stamp.text(printed))


def _author(notebook: stamp.Notebook) -> Iterator[str]:
    """What every chapter must have: a title with a label, known parameters, captions, alt text."""
    cells = notebook["cells"]
    first = stamp.text(cells[0]["source"]) if cells and cells[0]["cell_type"] == "markdown" else ""
    if not re.match(r"# \S.* \{#sec-[a-z0-9-]+\}\s*(\n|$)", first):
        yield "its first cell must be Markdown that starts with `# Title {#sec-name}`"
    for name in stamp.declared(notebook):
        if name not in (*params.Study.model_fields, "studies"):
            yield params.unknown(name, params.Study.model_fields) + " (llmft/params.py)"
    for cell in cells:
        source = stamp.text(cell["source"])
        known = TAGS | {"remove-cell"} if "injected-parameters" in stamp.tags(cell) else TAGS
        for tag in sorted(set(stamp.tags(cell)) - known):
            yield f"{_name(cell)} has the tag {tag}, which could hide it"
        if cell["cell_type"] == "raw":
            yield f"a raw cell, {source[:40]!r}: pages show raw cells as they are; use Markdown"
        elif cell["cell_type"] == "markdown":
            first = next(iter(source.splitlines()), "")
            if hides := HIDDEN.search(source):
                yield f"the text `{first[:40]}` has `{hides[0]}`, which could hide what a run shows"
            yield from (
                f"the text `{first[:40]}` has {what}" for what in inert.markdown_problems(source)
            )
    for cell in stamp.code_cells(notebook):
        try:
            options = cell_options(cell)
        except yaml.YAMLError:
            yield f"{_name(cell)} has `#|` options that are not YAML"
            continue
        for option in sorted(set(map(str, options)) - OPTIONS):
            yield f"{_name(cell)} has `#| {option}:`, which could hide or change what it shows"
        for key, value in options.items():
            for what in inert.option_problems(str(key), value):
                yield f"{_name(cell)} has in `#| {key}:` {what}"
        label = str(options.get("label", ""))
        kind = label.split("-")[0]
        for other in ("fig", "tbl"):
            if options.get(f"{other}-cap") and kind != other:
                yield f"{_name(cell)} has a {other}-cap, so its label must start with `{other}-`"
        if kind in ("fig", "tbl"):
            needed = [f"{kind}-cap", "fig-alt"] if kind == "fig" else [f"{kind}-cap"]
            for option in needed:
                if not str(options.get(option) or "").strip():
                    yield f"{_name(cell)} has no `#| {option}:`"


def page_text(path: Path, root: Path) -> str:
    """The text of a page that is no notebook, with the files of the book that it includes."""

    def included(match: re.Match[str]) -> str:
        file = (path.parent / match[1]).resolve()
        known = file.is_relative_to(root.resolve()) and file.is_file()
        return file.read_text(encoding="utf-8") if known else match[0]

    return re.sub(INCLUDE, included, path.read_text(encoding="utf-8"))


def cell_options(cell: stamp.Cell) -> dict[str, Any]:
    """The `#|` options at the top of a code cell.

    Raises:
        yaml.YAMLError: they are not YAML.
    """
    lines = []
    for line in stamp.text(cell["source"]).splitlines():
        if not line.startswith("#|"):
            break
        lines.append(line[2:].removeprefix(" "))
    options = yaml.safe_load("\n".join(lines))
    return options if isinstance(options, dict) else {}


def _name(cell: stamp.Cell) -> str:
    """How to find a cell: by its label, else by its first line of code."""
    try:
        label = cell_options(cell).get("label")
    except yaml.YAMLError:
        label = None
    line = next(iter(stamp.code(cell).splitlines()), "")
    return f"cell `{label}`" if label else f"the cell `{line[:40]}`"


def links_of(path: Path) -> Links:
    """Labels and references of a chapter (its Markdown cells and outputs) or a `.qmd` page."""
    links = Links()
    if path.suffix != ".ipynb":
        prose = [path.read_text(encoding="utf-8")]
    else:
        prose = []
        for cell in stamp.read(path)["cells"]:
            if cell["cell_type"] == "markdown":
                prose.append(stamp.text(cell["source"]))
                continue
            try:
                options = cell_options(cell)
            except yaml.YAMLError:
                options = {}
            if options.get("label"):
                links.labels.append(str(options["label"]))
            prose += [str(v) for k, v in options.items() if str(k).endswith("-cap")]
            outputs = (o.get("data", {}).get("text/markdown", "") for o in cell.get("outputs", []))
            prose += [stamp.text(markdown) for markdown in outputs]
    for part in prose:
        plain = re.sub(r"(?ms)^(`{3,}|~{3,}).*?^\1\s*$|`+[^`]*`+|<!--.*?-->", " ", part)
        links.labels += re.findall(r"\{(?:[^{}]*\s)?#([\w:.-]+)[^{}]*\}", plain)
        for key in REFERENCE.findall(plain):
            links.references.append(key.strip("{}").rstrip(".,;:?!*_"))
    return links


def check_links(links: dict[str, Links], root: Path = ROOT) -> list[Problem]:
    """References and citations that resolve to nothing, labels that are malformed or used twice."""
    problems = []
    bibliography = root / "references.bib"
    entries = bibliography.read_text(encoding="utf-8") if bibliography.is_file() else ""
    keys = set(re.findall(r"(?m)^\s*@\w+\s*\{\s*([^,\s]+)\s*,", entries))
    defined: dict[str, str] = {}
    for source, found in links.items():
        name = Path(source).stem
        for label in found.labels:
            if label == "refs":
                continue
            if not LABEL.fullmatch(label):
                what = (
                    f"label `{label}` must be fig-, tbl-, sec-, eq- or lst-, a-z, 0-9 and hyphens"
                )
                problems.append(Problem(name, what))
            if label in defined:
                problems.append(Problem(name, f"label `{label}` is also in {defined[label]}"))
            defined[label] = name
    cited = {key for found in links.values() for key in found.references}
    for label, name in defined.items():
        if label.startswith(("fig-", "tbl-")) and label not in cited:
            what = f"nothing refers to @{label}: say in prose what it shows"
            problems.append(Problem(name, what))
    for source, found in links.items():
        for key in dict.fromkeys(found.references):
            if LABEL.match(key):
                if key not in defined:
                    problems.append(Problem(Path(source).stem, f"@{key} refers to nothing"))
            elif key not in keys:
                what = f"citation @{key} is not in references.bib"
                problems.append(Problem(Path(source).stem, what))
    return problems
