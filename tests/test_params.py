from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmft import ROOT, UserError, params


def test_defaults_are_the_pocket_file() -> None:
    values = params.load(ROOT / "params" / "pocket.yaml")
    assert list(values) == list(params.Params.model_fields)
    assert params.parse(values) == params.parse({})


@pytest.mark.parametrize("name", ["pocket", "smoke", "opt"])
def test_each_file_names_its_profile(name: str) -> None:
    assert params.parse(params.load(ROOT / "params" / f"{name}.yaml")).profile == name


def test_opt_file_survives_yaml() -> None:
    opt = params.parse(params.load(ROOT / "params" / "opt.yaml"))
    assert opt.models == ["facebook/opt-125m", "facebook/opt-350m"]
    assert opt.task == "mnli-hans"
    assert (opt.limit, opt.repeats, opt.queries) == (0, 10, [16, 4096])
    assert (min(opt.train_shots), max(opt.train_shots)) == (2, 128)
    assert opt.context_shots in opt.shots  # the teacher is a point of the curve
    assert opt.context_shots in opt.train_shots  # and so is its rival
    assert opt.distill_updates * opt.distill_batch_size == max(opt.queries)


def test_text_becomes_typed() -> None:
    made = params.validate(
        {"shots": "[2, 8]", "models": "[pocket, facebook/opt-125m]", "repeats": "3", "limit": 5.0}
    )
    assert (made.shots, made.repeats, made.limit) == ([2, 8], 3, 5)
    assert made.models == ["pocket", "facebook/opt-125m"]


@given(st.lists(st.integers(1, 64).map(lambda n: 2 * n), min_size=1, unique=True))
def test_any_list_survives_as_text(shots: list[int]) -> None:
    assert params.parse({"shots": str(shots)}).shots == shots


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shotz": 2}, "did you mean 'shots'?"),
        ({"zebra": 2}, "known: profile, task"),
        ({"shots": 8}, "not a list"),
        ({"shots": "many"}, "not a list"),
        ({"shots": "[2, 4"}, "not a list"),
        ({"shots": [2, -4]}, "less than 2"),
        ({"shots": [3]}, "odd"),
        ({"shots": [2, 2]}, "twice"),
        ({"shots": [True, 2]}, "boolean"),
        ({"shots": []}, "at least 1"),
        ({"models": "pocket"}, "not a list"),
        ({"models": []}, "at least 1"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"repeats": "yes"}, "integer"),
        ({"repeats": True}, "boolean"),
        ({"repeats": 2.5}, "integer"),
        ({"limit": -1}, "greater than or equal to 0"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"dtype": "float64"}, "bfloat16"),
        ({"profile": "mine"}, "'pocket'"),
        ({"pattern": ""}, "at least 1"),
    ],
)
def test_wrong_values_are_one_clear_line(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        params.parse(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("shots: [2,", "not YAML"),
        ("- shots", "name: value"),
        ("shots: [yes, 2]", "boolean"),
        ("shot: [2]", "did you mean 'shots'?"),
        ("dtype: no", "dtype"),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        params.load(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match="No such file"):
        params.load("nowhere.yaml")


def test_notebook_namespace_takes_parameters_only() -> None:
    cells = ["", "repeats: int = 10  # draws", "# Parameters\nrepeats = 2\n", "n = 5", "import os"]
    namespace = {"In": cells, "Out": {}, "repeats": 2, "n": 5, "_": 1}
    assert params.validate(namespace).repeats == 2


def test_notebook_namespace_refuses_an_injected_unknown_name() -> None:
    cells = [
        "",
        "repeats: int = 10",
        "# Parameters\nrepeat = 2\n",
        "p = params.validate(globals())",
    ]
    with pytest.raises(UserError, match="did you mean 'repeats'"):
        params.validate({"In": cells, "repeats": 10, "repeat": 2})


def test_relative_store_starts_at_the_book() -> None:
    assert params.parse({}).folder == ROOT / "runs"
    assert params.parse({"store": "/elsewhere"}).folder == Path("/elsewhere")


def test_yaml_traps_are_real() -> None:
    """Why the files quote words and write 1.0e-5: what YAML 1.1 makes of them otherwise."""
    assert yaml.safe_load("a: [Yes, No]") == {"a": [True, False]}
    assert yaml.safe_load("a: 1e-5") == {"a": "1e-5"}
