"""The one parameter set that all chapters share: typed and validated once.

papermill hands a list or a boolean over as a string (`-p shots "[2, 8]"`), and only warns about a
name that a chapter does not know. So each chapter declares in its `parameters` cell the fields it
uses, and its next cell turns them into one `Params`:

    p = params.validate(globals())
"""

import ast
import difflib
import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from llmft import ROOT, UserError


COLLECT = "LLMFT_COLLECT"
"""The environment variable by which `llmft run` names the private folder of a chapter's results."""

SINCE = "LLMFT_SINCE"
"""The one by which `llmft run --force` says which runs are to be measured again: those before it
began, at this nanosecond."""

LIMIT = 65_536
"""Characters of a parameter file or of a list written as text, at most."""

OWN = ("chapters", "data", "llmft", "params", "tests", "_book")
"""The book's own folders: no run is stored there, and nothing put out."""

EXECUTION = frozenset(
    {"profile", "device", "token_budget", "store", "results", "scheduler", "save_models"}
)
"""Fields that say where and how a run is made, never what it measures."""


DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?", re.ASCII)
"""How a number must be written: `010` is 8 in YAML 1.1 and 10 elsewhere, `1:30` is 90."""


def _number(value: object) -> object:
    """`yes` is a boolean in YAML 1.1, and a boolean is a number in Python: refuse that pair."""
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
    try:
        located(value or ".")
    except UserError as error:
        raise ValueError(str(error)) from None
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, Field(max_length=2_000), AfterValidator(_printable)]
Place = Annotated[Text, AfterValidator(_place)]
"""Text that may be the path of a folder."""


def _from(default: float, least: float, most: float, what: str) -> Any:
    """A number from `least` to `most`, both included."""
    return Field(default, ge=least, le=most, description=f"{what}, from {least:,} to {most:,}")


def _above(default: float, least: float, most: float, what: str) -> Any:
    """A number above `least`, up to `most`."""
    return Field(default, gt=least, le=most, description=f"{what}, above {least:,} to {most:,}")


def _list(default: list[Any], what: str) -> Any:
    return Field(default, min_length=1, max_length=100, description=what)


class Params(BaseModel):
    """What a chapter can be asked to do. The defaults are the pocket profile.

    Raises:
        pydantic.ValidationError: use `parse` or `validate`, which say it in one line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: Literal["pocket", "smoke", "opt", "custom"] = Field(
        "pocket", description="the name of the parameter set; smoke is never frozen"
    )
    task: Place = Field("pocket", min_length=1, description="'pocket', 'mnli-hans' or a folder")
    labels: Text = Field(
        "", description="what other labels mean, such as 'e: entailment, n: drop', or ''"
    )
    models: list[Place] = _list(["pocket"], "a list: 'pocket', Hub ids or folders")
    shots: list[Whole] = _list(
        [2, 4, 8, 16, 32],
        "a list of even numbers of demonstrations, each 2 to 10,000, such as [2, 8]",
    )
    train_shots: list[Whole] = _list(
        [2, 4, 8, 16, 32, 64, 128],
        "a list of even numbers of training examples, each 2 to 1,000,000, such as [2, 8]",
    )
    repeats: Whole = _from(10, 1, 1_000, "how many seeds a point")
    pattern: Text = Field(
        "minimal",
        min_length=1,
        description="a prompt pattern's name, or a text with {premise} and {hypothesis}",
    )
    verbalizer: Text = Field(
        "", description="two label words, entailment's first, such as 'Yes, No', or ''"
    )
    limit: Whole = _from(0, 0, 10_000_000, "evaluation examples a domain (0 is all of them)")
    seed: Whole = _from(0, 0, 1_000_000, "where the seeds start")
    learning_rate: Real = _above(5e-4, 0, 100, "full fine-tuning's largest learning rate")
    updates: Whole = _from(50, 1, 1_000_000, "optimiser steps a run")
    batch_size: Whole = _from(8, 1, 1_000_000, "most examples an update")
    objective: Literal["label words", "vocabulary", "query", "head"] = Field(
        "label words", description="'label words', 'vocabulary', 'query' or 'head'"
    )
    selection: Literal["last", "best"] = Field(
        "last", description="the weights kept: 'last', or 'best' by validation loss"
    )
    lora_learning_rate: Real = _above(1e-2, 0, 100, "LoRA's largest learning rate")
    lora_rank: Whole = _from(4, 1, 10_000, "the rank of LoRA's corrections")
    lora_alpha: Real = _above(8.0, 0, 1_000_000, "LoRA's scale times its rank")
    lora_targets: Text = Field(
        "q_proj,v_proj", min_length=1, description="names of linear layers with commas between"
    )
    context_shots: Annotated[Whole, Field(multiple_of=2)] = _from(
        32, 2, 10_000, "demonstrations to distil, even"
    )
    context: Literal["demonstrations", "explained"] = Field(
        "demonstrations", description="'demonstrations' or 'explained'"
    )
    queries: list[Whole] = _list(
        [16, 256, 4096],
        "a list of numbers of unlabelled queries, each 1 to 1,000,000, such as [16, 256]",
    )
    rounds: Whole = _from(3, 1, 1_000, "rounds of recursive distillation")
    temperature: Real = _above(1.0, 0, 1_000, "what softens teacher and student")
    distill_objective: Literal["vocabulary", "label words", "query"] = Field(
        "query", description="'query', 'vocabulary' or 'label words'"
    )
    distill_learning_rate: Real = _above(2e-3, 0, 100, "distillation's largest learning rate")
    distill_updates: Whole = _from(48, 1, 1_000_000, "optimiser steps a round")
    distill_batch_size: Whole = _from(16, 1, 1_000_000, "queries an update")
    save_models: bool = Field(
        False, description="true to keep what is trained under <store>/models, or false"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$",
        description="auto, cpu, cuda, cuda:N or mps",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="float32, bfloat16 or float16"
    )
    token_budget: Whole = _from(0, 0, 1_000_000_000, "tokens a batch (0 chooses by the device)")
    results: Place = Field("", description="folder of the chapters' results; '' is data/results")
    store: Place = Field("runs", min_length=1, description="the folder of finished runs")
    scheduler: Text = Field("", description="'' is here, 'local', or a Dask scheduler's address")
    # What the prediction of a large run assumes.
    pair_tokens: Real = _above(36.0, 0, 1_000_000, "mean tokens of an in-domain pair")
    out_of_domain_tokens: Real = _above(15.0, 0, 1_000_000, "mean tokens of an out-of-domain pair")
    pattern_tokens: Real = _from(8.0, 0, 1_000_000, "tokens that a pattern adds to a pair")
    cpu_tflops: Real = _above(0.5, 0, 1_000_000, "a CPU's peak, TFLOP/s")
    small_gpu_tflops: Real = _above(10.0, 0, 1_000_000, "a small GPU's peak, TFLOP/s")
    large_gpu_tflops: Real = _above(60.0, 0, 1_000_000, "a large GPU's peak, TFLOP/s")
    utilisation: Real = _above(0.3, 0, 1, "share of the peak in use")

    @field_validator("models", "shots", "train_shots", "queries", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """A list may come as text, as papermill's `-p` and a YAML string give it."""
        if isinstance(value, str):
            try:
                value = read_yaml(value)
            except ValueError as error:
                raise ValueError(f"not a list: it {error}") from None
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        return list(value)

    @field_validator("models", "shots", "train_shots", "queries")
    @classmethod
    def _distinct(cls, value: list[Any]) -> list[Any]:
        if len(set(value)) < len(value):
            raise ValueError("the same value twice")
        return value

    @field_validator("shots", "train_shots", "queries")
    @classmethod
    def _numbers(cls, value: list[int], info: ValidationInfo) -> list[int]:
        """Numbers of examples come in ascending order, whatever the order they are given in."""
        least, most = {"shots": (2, 10_000), "queries": (1, 1_000_000)}.get(
            str(info.field_name), (2, 1_000_000)
        )
        if min(value) < least:
            raise ValueError(f"less than {least}")
        if max(value) > most:
            raise ValueError(f"more than {most:,}")
        if least == 2 and any(n % 2 for n in value):
            raise ValueError("odd, so the two labels cannot be balanced")
        return sorted(value)

    @field_validator("store")
    @classmethod
    def _no_own_folder(cls, value: str) -> str:
        try:
            store_folder(value)
        except UserError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("results")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return str(located(value)) if value else ""

    @property
    def folder(self) -> Path:
        """Where a chapter puts its table, its figure, its text; made if it is not there.

        The store, or the folder that `llmft run` keeps for this run alone.

        Raises:
            UserError: it cannot be made.
        """
        folder = Path(os.environ.get(COLLECT) or store_folder(self.store))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from None
        return folder


# --- places ------------------------------------------------------------------------------------


def located(text: str | Path) -> Path:
    """The absolute path that a user's words name: one rule for every path.

    `~` is a home folder, an absolute path is itself, and a relative one starts at the folder that
    the command was typed in.

    Raises:
        UserError: the path is empty, or cannot be one.
    """
    if not str(text):
        raise UserError("the path is empty (a variable of the shell that is not set?)")
    short = abbreviated(str(text))
    try:
        # Not `resolve`: a symbolic link in the book's folder is in the book's folder.
        path = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100
    except RuntimeError:
        raise UserError(f"{short}: there is no such user") from None
    except OSError:
        raise UserError(f"{short}: the folder that this starts at is gone") from None
    try:
        path.lstat()
    except ValueError:
        raise UserError(f"{short} is not a path") from None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise UserError(f"{short}: {error.strerror}") from None
    return path


def store_folder(store: str | Path, root: Path = ROOT) -> Path:
    """The folder of finished runs; "runs" is the book's.

    Raises:
        UserError: it cannot be a path, or is one of the book's own folders.
    """
    return not_own(root / "runs" if str(store) == "runs" else located(store), root)


def not_own(folder: Path, root: Path = ROOT) -> Path:
    """The folder, unless it is the book's or in one of its own, where something would be lost.

    Raises:
        UserError: it is.
    """
    for place in (folder, Path(os.path.realpath(folder))):
        if place.is_relative_to(root):
            first = [*place.relative_to(root).parts, ""][0]
            if first in ("", *OWN) or first.startswith("."):
                raise UserError(f"{folder} is the book's own: choose another folder")
    return folder


def placed(p: Params, root: Path = ROOT) -> Params:
    """The same parameters, their paths written from the book's folder where they are in it.

    So a frozen chapter, whose kernel starts at that folder, names no machine's path. A name
    ("pocket", "mnli-hans", a model on the Hub, the store "runs") stays as it is.
    """

    def place(text: str, *names: str) -> str:
        if text in names:
            return text
        path = located(text)
        for at in (path, Path(os.path.realpath(path))):
            if at.is_relative_to(root):
                inside = at.relative_to(root).as_posix()
                return inside if "/" in inside else f"./{inside}"
        return str(path)

    def on_the_hub(model: str) -> bool:
        return model[0] not in "~/." and not located(model).is_dir()

    return p.model_copy(
        update={
            "task": place(p.task, "pocket", "mnli-hans"),
            "models": [m if on_the_hub(m) else place(m, "pocket") for m in p.models],
            "store": place(p.store, "runs"),
            "results": place(p.results, ""),
        }
    )


def outside(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Those of the `placed` parameters that lie outside the book's folder, with their paths."""
    return [
        (name, str(text))
        for name in ("task", "models", "store", "results")
        for value in [values.get(name, "")]
        for text in (value if isinstance(value, list) else [value])
        if Path(str(text)).is_absolute()
    ]


# --- values ------------------------------------------------------------------------------------


def parse(values: Mapping[str, object]) -> Params:
    """The parameter set with these values, the others at their defaults.

    Raises:
        UserError: an unknown name (the closest known one is suggested), a wrong type or range.
    """
    for name in values:
        if name not in Params.model_fields:
            raise UserError(unknown(name, Params.model_fields))
    try:
        return Params.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        why = first["msg"].removeprefix("Value error, ")
        why = why[:1].lower() + why[1:]
        what = Params.model_fields[name].description
        value = abbreviated(values[name])
        raise UserError(f"parameter {name} = {value}: {why}; {name} is {what}") from None


def abbreviated(value: object) -> str:
    """A value as Python writes it, on one line, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list of lists ...
        return f"({type(value).__name__} too long to show)"
    return text if len(text) <= 100 else f"{text[:80]}..."


def unknown(name: str, known: Mapping[str, object] | list[str], kind: str = "parameter") -> str:
    """One line about an unknown name, with the closest known one, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {kind} {abbreviated(name)}; {hint}"


class _Loader(yaml.SafeLoader):
    """YAML without what grows, and without what is read as other than it looks."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("has an alias (*name): write its value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag.endswith(":merge"):
                raise ValueError("has a merge key (<<): write its values out")
            if str(key.value) in seen:
                raise ValueError(f"has {abbreviated(key.value)} twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def number(self, node: Any) -> int | float:
        if not DECIMAL.fullmatch(node.value) or len(node.value) > 100:
            shown = abbreviated(node.value)
            raise ValueError(f"has {shown}, which is not a number in plain decimal digits")
        return float(node.value) if node.tag.endswith(":float") else int(node.value)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


def read_yaml(text: str) -> Any:
    """What a text in YAML says.

    Raises:
        ValueError: what is wrong with it, after an "it".
    """
    if len(text) > LIMIT:
        raise ValueError(f"is longer than {LIMIT:,} characters")
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from None


def load(file: str | Path) -> dict[str, object]:
    """The values of a YAML file of parameters, names and types checked by `parse`.

    Raises:
        UserError: no such file, not YAML, not a mapping, or a wrong name or value.
    """
    path = located(file)
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise UserError(f"parameter file {path} is not a file")
        with path.open(encoding="utf-8") as stream:
            values = read_yaml(stream.read(LIMIT + 1))
    except OSError as error:
        raise UserError(f"parameter file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"parameter file {path} is not text in UTF-8") from None
    except ValueError as error:
        raise UserError(f"parameter file {path} {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"parameter file {path} must hold lines of `name: value`")
    named = {str(name): value for name, value in values.items()}
    try:
        checked = parse(named)
    except UserError as error:
        raise UserError(f"parameter file {path}: {error}") from None
    return {name: getattr(checked, name) for name in named}


def validate(namespace: Mapping[str, object]) -> Params:
    """The parameters among a notebook's globals, checked.

    Args:
        namespace: `globals()` of the notebook, after its `parameters` and injected cells.

    Raises:
        UserError: see `parse`; or papermill was given a parameter that the chapter does not have.
    """
    return parse({name: namespace[name] for name in _given(namespace) if name in namespace})


def _given(namespace: Mapping[str, object]) -> list[str]:
    """Names that were given as parameters.

    In a notebook these are the names assigned in the cells that hold nothing but assignments and
    either set a known parameter or were injected by papermill: a chapter's own variables do not
    count, so the cell that validates can be run again. In a plain dictionary every public name of
    plain data counts.
    """
    cells = namespace.get("In")
    if not isinstance(cells, list):
        plain = (str, int, float, list, dict, tuple, type(None))
        return [n for n, v in namespace.items() if n[0] != "_" and isinstance(v, plain)]
    declared: dict[str, None] = {}
    injected: dict[str, None] = {}
    for source in cells:
        names = dict.fromkeys(_assigned(source))
        if declared and re.match(r"#\s*Parameters\b", source):
            injected |= names
        elif any(n in Params.model_fields for n in names):
            declared |= names
    _declared_only({n: namespace[n] for n in injected if n in namespace}, declared)
    return list(declared)


def _declared_only(injected: Mapping[str, object], declared: Mapping[str, object]) -> None:
    """Refuse what papermill would inject in vain.

    A file of parameters (`papermill -f params/opt.yaml`) is for all chapters, so what it says of
    others does not count.
    """
    file = ROOT / "params" / f"{injected.get('profile')}.yaml"
    shared = load(file) if file.is_file() else {}
    for name, value in injected.items():
        if name in declared:
            continue
        if name not in Params.model_fields:
            raise UserError(unknown(name, declared))
        if name not in shared or parse({name: value}) != parse({name: shared[name]}):
            has = ", ".join(declared)
            raise UserError(f"this chapter has no parameter {name!r}; it has {has}")


def _assigned(source: str) -> list[str]:
    """The names that a cell assigns, when it does nothing else."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = []
    for statement in body:
        targets = (
            statement.targets
            if isinstance(statement, ast.Assign)
            else ([statement.target] if isinstance(statement, ast.AnnAssign) else [])
        )
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            return []
        names.append(targets[0].id)
    return names
