"""The one parameter set that all chapters share: typed and validated once.

papermill hands a list or a boolean over as a string (`-p shots "[2, 8]"`), and only warns about a
name that a chapter does not know. So each chapter declares in its `parameters` cell the fields it
uses, and its next cell turns them into one `Params`:

    p = params.validate(globals())
"""

import ast
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from llmft import ROOT, UserError


EXECUTION = frozenset(
    {"profile", "device", "token_budget", "store", "results", "scheduler", "save_models"}
)
"""Fields that say where and how a run is made, never what it measures."""


def _no_boolean(value: object) -> object:
    """`yes` is a boolean in YAML 1.1, and a boolean is a number in Python: refuse that pair."""
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
    return value


Whole = Annotated[int, BeforeValidator(_no_boolean)]
Real = Annotated[float, BeforeValidator(_no_boolean)]


class Params(BaseModel):
    """What a chapter can be asked to do. The defaults are the pocket profile.

    Raises:
        pydantic.ValidationError: use `parse` or `validate`, which say it in one line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: Literal["pocket", "smoke", "opt", "custom"] = Field(
        "pocket", description="the name of the parameter set; smoke is never frozen"
    )
    task: str = Field("pocket", min_length=1, description="'pocket', 'mnli-hans' or a folder")
    labels: str = Field(
        "", description="what other labels mean, such as 'e: entailment, n: drop', or ''"
    )
    models: list[str] = Field(
        ["pocket"], min_length=1, description="a list: 'pocket', Hub ids or folders"
    )
    shots: list[Whole] = Field(
        [2, 4, 8, 16, 32],
        min_length=1,
        description="a list of even numbers of demonstrations, each at least 2, such as [2, 8]",
    )
    train_shots: list[Whole] = Field(
        [2, 4, 8, 16, 32, 64, 128],
        min_length=1,
        description="a list of even numbers of training examples, each at least 2, such as [2, 8]",
    )
    repeats: Whole = Field(10, ge=1, description="how many seeds a point, at least 1")
    pattern: str = Field(
        "minimal",
        min_length=1,
        description="a prompt pattern's name, or a text with {premise} and {hypothesis}",
    )
    verbalizer: str = Field(
        "", description="two label words, entailment's first, such as 'Yes, No', or ''"
    )
    limit: Whole = Field(0, ge=0, description="evaluation examples a domain; 0 is all of them")
    seed: Whole = Field(0, ge=0, description="where the seeds start, at least 0")
    learning_rate: Real = Field(
        5e-4, gt=0, description="full fine-tuning's largest learning rate, above 0"
    )
    updates: Whole = Field(50, ge=1, description="optimiser steps a run, at least 1")
    batch_size: Whole = Field(8, ge=1, description="examples an update at most, at least 1")
    objective: Literal["label words", "vocabulary", "query", "head"] = Field(
        "label words", description="'label words', 'vocabulary', 'query' or 'head'"
    )
    selection: Literal["last", "best"] = Field(
        "last", description="the weights kept: 'last', or 'best' by validation loss"
    )
    lora_learning_rate: Real = Field(
        1e-2, gt=0, description="LoRA's largest learning rate, above 0"
    )
    lora_rank: Whole = Field(4, ge=1, description="the rank of LoRA's corrections, at least 1")
    lora_alpha: Real = Field(8.0, gt=0, description="LoRA's scale times its rank, above 0")
    lora_targets: str = Field(
        "q_proj,v_proj", min_length=1, description="names of linear layers with commas between"
    )
    context_shots: Whole = Field(
        32, ge=2, multiple_of=2, description="demonstrations to distil, even, at least 2"
    )
    context: Literal["demonstrations", "explained"] = Field(
        "demonstrations", description="'demonstrations' or 'explained'"
    )
    queries: list[Whole] = Field(
        [16, 256, 4096],
        min_length=1,
        description="a list of numbers of unlabelled queries, each at least 1, such as [16, 256]",
    )
    rounds: Whole = Field(3, ge=1, description="rounds of recursive distillation, at least 1")
    temperature: Real = Field(1.0, gt=0, description="what softens teacher and student, above 0")
    distill_objective: Literal["vocabulary", "label words", "query"] = Field(
        "query", description="'query', 'vocabulary' or 'label words'"
    )
    distill_learning_rate: Real = Field(
        2e-3, gt=0, description="distillation's largest learning rate, above 0"
    )
    distill_updates: Whole = Field(48, ge=1, description="optimiser steps a round, at least 1")
    distill_batch_size: Whole = Field(16, ge=1, description="queries an update, at least 1")
    save_models: bool = Field(
        False, description="true to keep what is trained under <store>/models, or false"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:N or mps",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="float32, bfloat16 or float16"
    )
    token_budget: Whole = Field(0, ge=0, description="tokens a batch; 0 chooses by the device")
    results: str = Field("", description="folder of the chapters' results; '' is data/results")
    store: str = Field("runs", min_length=1, description="the folder of finished runs")
    scheduler: str = Field("", description="'' is here, 'local', or a Dask scheduler's address")
    # What the prediction of a large run assumes.
    pair_tokens: Real = Field(36.0, gt=0, description="mean tokens of an in-domain pair, above 0")
    out_of_domain_tokens: Real = Field(
        15.0, gt=0, description="mean tokens of an out-of-domain pair, above 0"
    )
    pattern_tokens: Real = Field(8.0, ge=0, description="tokens that a pattern adds to a pair")
    cpu_tflops: Real = Field(0.5, gt=0, description="a CPU's peak, TFLOP/s, above 0")
    small_gpu_tflops: Real = Field(10.0, gt=0, description="a small GPU's peak, TFLOP/s, above 0")
    large_gpu_tflops: Real = Field(60.0, gt=0, description="a large GPU's peak, TFLOP/s, above 0")
    utilisation: Real = Field(0.3, gt=0, le=1, description="share of the peak in use, above 0 to 1")

    @field_validator("models", "shots", "train_shots", "queries", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        """A list may come as text, as papermill's `-p` and a YAML string give it."""
        if isinstance(value, str):
            try:
                value = yaml.safe_load(value)
            except yaml.YAMLError:
                raise ValueError("not a list") from None
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        return list(value)

    @field_validator("models", "shots", "train_shots", "queries")
    @classmethod
    def _distinct(cls, value: list[Any]) -> list[Any]:
        if len(set(value)) < len(value):
            raise ValueError("the same value twice")
        return value

    @field_validator("shots", "train_shots")
    @classmethod
    def _balanced(cls, value: list[int]) -> list[int]:
        if any(n < 2 for n in value):
            raise ValueError("less than 2")
        if any(n % 2 for n in value):
            raise ValueError("odd, so the two labels cannot be balanced")
        return value

    @field_validator("queries")
    @classmethod
    def _some(cls, value: list[int]) -> list[int]:
        if any(n < 1 for n in value):
            raise ValueError("less than 1")
        return value

    @property
    def folder(self) -> Path:
        """The store as an absolute path: a relative one starts at the book's folder."""
        return ROOT / Path(self.store).expanduser()


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
        raise UserError(f"parameter {name} = {values[name]!r}: {why}; it must be {what}") from None


def unknown(name: str, known: Mapping[str, object] | list[str], kind: str = "parameter") -> str:
    """One line about an unknown name, with the closest known one, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def load(path: str | Path) -> dict[str, object]:
    """The values of a YAML file of parameters, names and types checked by `parse`.

    Raises:
        UserError: no such file, not YAML, not a mapping, or a wrong name or value.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"parameter file {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"parameter file {path} is not YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"parameter file {path} must hold lines of `name: value`")
    named = {str(name): value for name, value in values.items()}
    checked = parse(named)
    return {name: getattr(checked, name) for name in named}


def validate(namespace: Mapping[str, object]) -> Params:
    """The parameters among a notebook's globals, checked.

    Args:
        namespace: `globals()` of the notebook, after its `parameters` and injected cells.

    Raises:
        UserError: see `parse`.
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
    given: dict[str, None] = {}
    for source in cells:
        names = _assigned(source)
        if re.match(r"#\s*Parameters\b", source) or any(n in Params.model_fields for n in names):
            given.update(dict.fromkeys(names))
    return list(given)


def _assigned(source: str) -> list[str]:
    """The names that a cell assigns, when it does nothing else."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
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
