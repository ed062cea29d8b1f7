"""A study is a parameter file: one model, one task, and the sizes of its grid, validated once.

`params/pocket.yaml` is complete and the only place of the defaults; every other file names what
differs from it. A chapter's `parameters` cell names the studies that it shows, and parameters that
take the place of every study's own (None: the study's own counts). Its next cell has

    studies = params.studies(globals())
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from llmft import ROOT, UserError


COLLECT = "LLMFT_COLLECT"
"""The environment variable by which `llmft run` names the private folder of a chapter's results."""

SINCE = "LLMFT_SINCE"
"""The one by which `llmft run --force` says since when (in nanoseconds) a run counts as done."""

AT_ONCE = "LLMFT_AT_ONCE"
"""The one by which it says how many chapters share this machine's cores and memory."""

OWN = ("", "chapters", "data", "llmft", "params", "tests", "_book")
"""The book's own folders: no run is stored there, and nothing put out."""

NAMES = {
    "task": ("pocket", "mnli-hans"),
    "rows": ("",),
    "model": ("pocket",),
    "store": ("runs",),
    "results": ("",),
}
"""The parameters that may be paths, and the words that are none of a path there."""

DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?", re.ASCII)
"""How a number must be written: `010` is 8 in YAML 1.1 and 10 elsewhere, `1:30` is 90."""


# --- the parameters ------------------------------------------------------------------------------


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
    if isinstance(value, str) and not DECIMAL.fullmatch(value.strip()):
        raise ValueError("not a number in plain decimal digits")
    return value


def _printable(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value):
        raise ValueError("has a character that cannot be printed")
    return value


def _place(value: str) -> str:
    located(value or ".")
    return value


def _store(value: str) -> str:
    store_folder(value)
    return value


def _listed(value: object) -> list[Any]:
    """A list, which may come as text, as papermill's `-p` and `llmft run` give it."""
    if isinstance(value, str):
        value = read_yaml(value)
    if not isinstance(value, list | tuple):
        raise ValueError("not a list")
    return list(value)


def _ascending(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("the same value twice")
    return sorted(values)


Whole = Annotated[int, BeforeValidator(_number)]
Even = Annotated[Whole, Field(ge=2, multiple_of=2)]
Real = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, Field(max_length=2_000), AfterValidator(_printable)]
Place = Annotated[Text, AfterValidator(_place)]
"""Text that may be the path of a folder."""

T = TypeVar("T")
Listed = Annotated[list[T], BeforeValidator(_listed), Field(max_length=100)]
Sizes = Annotated[Listed[T], Field(min_length=1), AfterValidator(_ascending)]
"""Different numbers, which are put into ascending order."""


def _about(what: str, **bounds: Any) -> Any:
    return Field(description=what, **bounds)


def _from(least: float, most: float, what: str) -> Any:
    return _about(f"{what}, from {least:,} to {most:,}", ge=least, le=most)


def _above(least: float, most: float, what: str) -> Any:
    return _about(f"{what}, above {least:,} to {most:,}", gt=least, le=most)


class Study(BaseModel):
    """What is measured: one model, one task, the grid's sizes; and where and how it is done.

    Made by `parse`, which says in one line what is wrong.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    study: Text = _about("its name: the parameter file's", min_length=1)
    task: Place = _about("'pocket', 'mnli-hans' or a folder", min_length=1)
    rows: Place = _about("of mnli-hans: the table of the rows that are used; '' is all")
    labels: Text = _about("what other labels mean, such as 'e: entailment, n: drop', or ''")
    model: Place = _about("'pocket', a Hub id or a folder", min_length=1)
    shots: Sizes[Annotated[Even, Field(le=10_000)]] = _about(
        "a list of even numbers of demonstrations, each 2 to 10,000, such as [2, 8]"
    )
    train_shots: Sizes[Annotated[Even, Field(le=1_000_000)]] = _about(
        "a list of even numbers of training examples, each 2 to 1,000,000, such as [2, 8]"
    )
    side_shots: Whole = _from(2, 1_000_000, "training examples of searches and side experiments")
    repeats: Whole = _from(1, 1_000, "how many seeds a point")
    search_draws: Whole = _from(1, 1_000, "draws in a search for a learning rate, at most")
    budget_shots: Sizes[Annotated[Even, Field(le=1_000_000)]] = _about(
        "a list of even numbers of training examples, each 2 to 1,000,000, such as [32, 128]"
    )
    tried_rates: Sizes[Annotated[Real, Field(gt=0, le=1_000)]] = _about(
        "a list of multiples of a method's learning rate, such as [0.1, 1, 10]"
    )
    budget_limit: Whole = _from(
        0, 10_000_000, "evaluation examples a domain in budgets (0 is `limit`)"
    )
    half_from: Whole = _from(0, 1_000_000, "examples from which on a point has half of the seeds")
    without: Listed[Text] = _about("a list of groups of runs to leave out, such as [orders]")
    pattern: Text = _about(
        "a pattern's name, or a text with {premise} and {hypothesis}", min_length=1
    )
    verbalizer: Text = _about("two label words, entailment's first, such as 'Yes, No', or ''")
    limit: Whole = _from(0, 10_000_000, "evaluation examples a domain (0 is all of them)")
    seed: Whole = _from(0, 1_000_000, "where the seeds start")
    learning_rate: Real = _above(0, 100, "full fine-tuning's largest learning rate")
    updates: Whole = _from(1, 1_000_000, "optimiser steps a run, at least")
    epochs: Real = _from(0, 10_000, "passes over a run's examples, at least")
    batch_size: Whole = _from(1, 1_000_000, "most examples an update")
    objective: Literal["label words", "vocabulary", "query", "head"] = _about("the loss")
    selection: Literal["last", "best"] = _about("the weights kept; 'best' is by validation loss")
    lora_learning_rate: Real = _above(0, 100, "LoRA's largest learning rate")
    lora_rank: Whole = _from(1, 10_000, "the rank of LoRA's corrections")
    lora_alpha: Real = _above(0, 1_000_000, "LoRA's scale times its rank")
    lora_targets: Text = _about("names of linear layers with commas between", min_length=1)
    context_shots: Even = _about("demonstrations to distil, from 2 to 10,000", le=10_000)
    context: Literal["demonstrations", "explained"] = _about("what is distilled")
    queries: Sizes[Annotated[Whole, Field(ge=1, le=1_000_000)]] = _about(
        "a list of numbers of unlabelled queries, each 1 to 1,000,000, such as [16, 256]"
    )
    prefixes: Sizes[Annotated[Whole, Field(ge=2, le=1_000_000)]] = _about(
        "a list of numbers of positions of a trained prefix, each 2 to 1,000,000, such as [16, 64]"
    )
    prefix_learning_rate: Real = _above(0, 100, "a trained prefix's largest learning rate")
    rounds: Whole = _from(1, 1_000, "rounds of recursive distillation")
    temperature: Real = _above(0, 1_000, "what softens teacher and student")
    distill_objective: Literal["vocabulary", "label words", "query"] = _about("distillation's loss")
    distill_learning_rate: Real = _above(0, 100, "distillation's largest learning rate")
    distill_updates: Whole = _from(1, 1_000_000, "distillation's optimiser steps a round")
    distill_batch_size: Whole = _from(1, 1_000_000, "most queries an update")
    save_models: bool = _about("True or False")
    device: Text = _about(
        "auto, cpu, cuda, cuda:N or mps", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = _about("the weights' numbers")
    token_budget: Whole = _from(0, 1_000_000_000, "tokens a batch (0 chooses by the device)")
    workers: Whole = _from(0, 1_000, "processes that share a grid (0 chooses)")
    results: Place = _about("folder of the chapters' results; '' is data/results")
    store: Annotated[Text, AfterValidator(_store)] = _about(
        "the folder of finished runs", min_length=1
    )
    # What the prediction of a study's cost assumes (chapters/reproducing.ipynb).
    pair_tokens: Real = _above(0, 1_000_000, "mean tokens of an in-domain pair")
    out_of_domain_tokens: Real = _above(0, 1_000_000, "mean tokens of an out-of-domain pair")
    pattern_tokens: Real = _from(0, 1_000_000, "tokens that a pattern adds to a pair")
    cpu_tflops: Real = _above(0, 1_000_000, "a CPU's peak, TFLOP/s")
    small_gpu_tflops: Real = _above(0, 1_000_000, "a small GPU's peak, TFLOP/s")
    large_gpu_tflops: Real = _above(0, 1_000_000, "a large GPU's peak, TFLOP/s")
    utilisation: Real = _above(0, 1, "share of the peak in use")

    @property
    def folder(self) -> Path:
        """Where a chapter puts its results, made if it is not there, or a UserError.

        The store, or the folder that `llmft run` keeps for this run alone.
        """
        folder = Path(os.environ.get(COLLECT) or store_folder(self.store))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from None
        return folder


def parse(values: Mapping[str, object]) -> Study:
    """The study with these values, all of them.

    Raises:
        UserError: an unknown name (the closest known one is suggested), a wrong type or range, or a
            parameter that is missing.
    """
    for name in values:
        if name not in Study.model_fields:
            raise UserError(unknown(name, Study.model_fields))
    try:
        return Study.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        what = Study.model_fields[name].description
        if name not in values:
            raise UserError(f"parameter {name} is missing: {what}") from None
        why = first["msg"].removeprefix("Value error, ")
        why = why[:1].lower() + why[1:]
        value = abbreviated(values[name])
        raise UserError(f"parameter {name} = {value}: {why}; {name} is {what}") from None


# --- studies -------------------------------------------------------------------------------------


def studies(namespace: Mapping[str, object]) -> list[Study]:
    """The studies that a chapter shows, each with the parameters that were given in place of its.

    Args:
        namespace: `globals()` of the notebook after its `parameters` and injected cells: `studies`
            (names of files in `params/`, or paths), and parameters that are not None.

    Raises:
        UserError: an unknown study or parameter, a wrong value, or the same study twice.
    """
    names = namespace["studies"]
    given = {
        name: namespace[name]
        for name in Study.model_fields
        if name != "study" and namespace.get(name) is not None
    }
    if isinstance(names, list) and names and isinstance(names[0], Study):  # the cell again
        return [parse({**before.model_dump(), **given}) for before in names]
    # papermill only warns of a parameter that the chapter has not. A chapter's own are annotated;
    # Python 3.14 keeps annotations elsewhere: there only what no chapter has is refused.
    known = namespace.get("__annotations__")
    declared = list(known) if isinstance(known, dict) and known else [*Study.model_fields]
    plain = (str, int, float, list, dict, tuple, type(None))
    for name, value in namespace.items():
        ours = name[0] != "_" and name not in ("In", "Out", "studies") and isinstance(value, plain)
        if ours and name not in declared:
            raise UserError(unknown(name, declared))
    return [study(name, given) for name in studies_named(names)]


def studies_named(value: object) -> list[str]:
    """The names in a list of studies, or in its text: "[pocket, opt-125m]", "pocket".

    Raises:
        UserError: it is empty, or no list of different names.
    """
    try:
        names = _listed(f"[{value}]" if isinstance(value, str) and value[:1] != "[" else value)
    except ValueError as error:
        raise UserError(f"parameter studies = {abbreviated(value)}: {error}") from None
    if not names or not all(isinstance(n, str) and n for n in names) or len({*names}) < len(names):
        raise UserError(
            f"parameter studies = {abbreviated(value)}: it must name different studies, such as "
            "[pocket, smoke]"
        )
    return names


def study(name: str, given: Mapping[str, object] | None = None, root: Path = ROOT) -> Study:
    """The study of a parameter file: `pocket.yaml`, what the file says differs, what is `given`.

    Args:
        name: a file in `params/` ("smoke"), or the path of one elsewhere ("my/own.yaml").
        given: parameters that take the place of the study's.
        root: the book's folder.

    Raises:
        UserError: no such study, or a wrong name or value in its file or in `given`.
    """
    file = study_file(name, root)
    usual = load(root / "params" / "pocket.yaml", root)
    return parse({**usual, **load(file, root), "study": file.stem, **(given or {})})


def study_file(name: str, root: Path = ROOT) -> Path:
    """The parameter file of a study, or a UserError."""
    if is_path(name):
        return located(name)
    known = {path.stem: path for path in sorted((root / "params").glob("*.yaml"))}
    known.pop("book", None)  # which lists studies
    if name not in known:
        raise UserError(unknown(name, known, "study"))
    return known[name]


def is_path(study: str) -> bool:
    """Whether a study is named by its file's path."""
    return "/" in study or study.endswith((".yaml", ".yml"))


def published(root: Path = ROOT, chapter: str = "") -> list[str]:
    """The studies of the published book, or those that one of its chapters shows.

    By `params/book.yaml`; a UserError where it is missing or says something else.
    """
    values = load(root / "params" / "book.yaml", root)
    chapters = values.pop("chapters", {})
    if set(values) != {"studies"} or not isinstance(chapters, dict):
        raise UserError(
            "params/book.yaml must hold `studies: [...]`, may hold `chapters: {name: [...]}`, and "
            "nothing else"
        )
    usual = studies_named(values["studies"])
    found = {name: studies_named(names) for name, names in chapters.items()}
    if chapter:
        return found.get(chapter, usual)
    return list(dict.fromkeys(name for names in (usual, *found.values()) for name in names))


def load(file: str | Path, root: Path = ROOT) -> dict[str, object]:
    """The values of a YAML file of parameters, as text; a path in it starts at `root`, the book's.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    path = located(file)
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", error)
        raise UserError(f"parameter file {path}: {why}") from None
    if not isinstance(values, dict):
        raise UserError(f"parameter file {path} must hold lines of `name: value`")
    return {**values, **absolute(values, root)}


def absolute(values: Mapping[str, object], start: Path | None = None) -> dict[str, str]:
    """Those of the values that are paths, from `start` (by default the current folder) on.

    A model's name on the Hub is none: a path has a folder, or begins with `.`, `/` or `~`.
    """
    found = {}
    for name, words in NAMES.items():
        text = values.get(name)
        if isinstance(text, str) and text and text not in words:
            path = located(text, start)
            if name != "model" or text[0] in "~/." or path.is_dir():
                found[name] = str(path)
    return found


# --- places --------------------------------------------------------------------------------------


def located(text: str | Path, start: Path | None = None) -> Path:
    """The absolute path that a user's words name: one rule for every path.

    `~` is a home folder, an absolute path is itself, and a relative one starts at `start`, by
    default the folder that the command was typed in.

    Raises:
        UserError: the path is empty, or cannot be one.
    """
    if not str(text):
        raise UserError("the path is empty (a variable of the shell that is not set?)")
    try:
        # Not `resolve`: a symbolic link in the book's folder is in the book's folder.
        path = Path(os.path.abspath((start or Path()) / Path(text).expanduser()))  # noqa: PTH100
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{abbreviated(str(text))} is not a path: {why}") from None
    return path


def store_folder(store: str | Path, root: Path = ROOT) -> Path:
    """The folder of finished runs; "runs" is the book's, none of its `OWN` may be one."""
    return not_own(root / "runs" if str(store) == "runs" else located(store), root)


def not_own(folder: Path, root: Path = ROOT) -> Path:
    """The folder; a UserError where it is one of the book's own, and something would be lost."""
    for place in (folder, Path(os.path.realpath(folder))):
        if place.is_relative_to(root):
            first = [*place.relative_to(root).parts, ""][0]
            if first in OWN or first.startswith("."):
                raise UserError(f"{folder} is the book's own: choose another folder")
    return folder


# --- text ----------------------------------------------------------------------------------------


def abbreviated(value: object) -> str:
    """A value as Python writes it, on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}..."


def unknown(name: str, known: Iterable[str], kind: str = "parameter") -> str:
    """One line about an unknown name, with the closest known one, or all of them."""
    close = difflib.get_close_matches(name, known := list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {kind} {abbreviated(name)}; {hint}"


class _Loader(yaml.BaseLoader):
    """YAML whose scalars all stay text, as they are written."""

    def construct_scalar(self, node: Any) -> Any:
        if node.style is None and node.value in ("~", "null", "Null", "NULL"):
            raise ValueError(f"has {node.value}: leave the line out, or write ''")
        return super().construct_scalar(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        values = super().construct_mapping(node, deep)
        if len(values) < len(node.value):
            twice = Counter(key.value for key, _ in node.value).most_common(1)[0][0]
            raise ValueError(f"has {abbreviated(twice)} twice")
        return values


def read_yaml(text: str) -> Any:
    """What a text in YAML says: text, lists and mappings; types are settled by `parse`.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
