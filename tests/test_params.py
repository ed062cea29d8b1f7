import os
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
    assert (opt.limit, opt.repeats, opt.queries) == (0, 10, [16, 64, 4096])
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
    assert params.parse({"shots": str(shots)}).shots == sorted(shots)


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
        ({"repeats": "yes"}, "plain decimal digits"),
        ({"repeats": True}, "boolean"),
        ({"repeats": 2.5}, "integer"),
        ({"limit": -1}, "greater than or equal to 0"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"dtype": "float64"}, "bfloat16"),
        ({"profile": "mine"}, "'pocket'"),
        ({"pattern": ""}, "at least 1"),
        ({"shots": "[" * 3000}, "nested too deeply"),
        ({"shots": f"[{'9' * 5000}]"}, "plain decimal digits"),
        ({"shots": [10**5000]}, "more than 10,000"),
        ({"shots": "[010]"}, "plain decimal digits"),
        ({"shots": "[1:30]"}, "plain decimal digits"),
        ({"shots": "[0x10]"}, "plain decimal digits"),
        ({"shots": "[&a 2, *a]"}, "alias"),
        ({"shots": "[[2]]"}, "integer"),
        ({"shots": [2 * n for n in range(1, 102)]}, "at most 100"),
        ({"queries": [0]}, "less than 1"),
        ({"queries": [10**7]}, "more than 1,000,000"),
        ({"repeats": "9" * 5000}, "integer"),
        ({"repeats": 10**5000}, "1,000"),
        ({"repeats": "010"}, "plain decimal digits"),
        ({"repeats": "1_0"}, "plain decimal digits"),
        ({"learning_rate": "1:30.5"}, "plain decimal digits"),
        ({"learning_rate": 10**400}, "learning_rate"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"task": "~nosuchuser/x"}, "no such user"),
        ({"models": ["~nosuchuser/x"]}, "no such user"),
        ({"store": "~nosuchuser/x"}, "no such user"),
        ({"results": "~nosuchuser/x"}, "no such user"),
        ({"task": "x" * 300}, "name too long"),
        ({"store": "x" * 5000}, "at most 2000"),
        ({"models": ["x" * 5000]}, "at most 2000"),
        ({"store": "a\0b"}, "cannot be printed"),
        ({"task": "a\nb"}, "cannot be printed"),
        ({"labels": "a\udcff"}, "unicode"),
        ({"store": ""}, "at least 1"),
        ({"store": "."}, "the book's own"),
        ({"store": "data/results"}, "the book's own"),
        ({"store": str(ROOT / "chapters" / ".." / "llmft")}, "the book's own"),
    ],
)
def test_wrong_values_are_one_clear_line(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        params.parse(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


NUMBERS = [
    name
    for name, field in params.Params.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_an_upper_bound_and_says_it(name: str) -> None:
    for huge in (10**12, 10**30, str(10**12), 1e300):
        with pytest.raises(UserError, match=rf"{name} is .* to [\d,]+") as caught:
            params.parse({name: huge})
    said = str(caught.value).rpartition(" to ")[2].replace(",", "")
    assert getattr(params.parse({name: int(said)}), name) == int(said)
    with pytest.raises(UserError):
        params.parse({name: int(said) + 2})


def test_numbers_of_examples_are_sorted_and_models_are_not() -> None:
    made = params.parse(
        {
            "shots": [8, 2],
            "train_shots": "[128, 2, 8]",
            "queries": [64, 16],
            "models": ["org/b", "org/a"],
        }
    )
    assert (made.shots, made.train_shots, made.queries) == ([2, 8], [2, 8, 128], [16, 64])
    assert made.models == ["org/b", "org/a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("shots: [2,", "not YAML"),
        ("- shots", "name: value"),
        ("shots: [yes, 2]", "boolean"),
        ("shot: [2]", "did you mean 'shots'?"),
        ("dtype: no", "dtype"),
        ("repeats: 2\nrepeats: 3", "has 'repeats' twice"),
        ('repeats: 2\n"repeats": 3', "has 'repeats' twice"),
        ("<<: {repeats: 3}\nrepeats: 2", "merge key"),
        ("repeats: 1:30", "'1:30', which is not a number in plain decimal digits"),
        ("repeats: 010", "'010', which is not"),
        ("repeats: 0x10", "'0x10', which is not"),
        ("repeats: 1_000", "'1_000', which is not"),
        (f"repeats: {'9' * 5000}", "which is not a number"),
        ("learning_rate: .inf", "which is not a number"),
        ("learning_rate: 1:30.5", "which is not a number"),
        ("shots: " + "[" * 3000, "nested too deeply"),
        ("repeats: 2020-99-99", "parameter file"),
        ("a: &a [1]\nb: *a", "has an alias"),
        ("x: " + "y" * 70_000, "longer than 65,536 characters"),
        ("repeats: \0", "not YAML"),
        ("", "name: value"),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        params.load(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_that_grow_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="has an alias") as caught:
        params.load(tmp_path / "mine.yaml")
    assert len(str(caught.value)) < 300


def test_missing_file_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/nowhere.yaml: No such file"):
        params.load("nowhere.yaml")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "~nosuchuser/x", "/dev/zero", "/"])
def test_what_is_no_parameter_file_is_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        params.load(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_pipe_is_no_parameter_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a file"):
        params.load(tmp_path / "pipe")


def test_a_file_in_another_code_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes("profile: smök".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        params.load(tmp_path / "mine.yaml")


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


def notebook(
    *injected: str, declares: str = "repeats: int = 10\nprofile: str = 'pocket'"
) -> dict[str, object]:
    """The globals of a notebook with two parameters, and what papermill injected."""
    cells = ["", declares, "# Parameters\n" + "\n".join(injected) + "\n", "params.validate(...)"]
    names: dict[str, object] = {"In": cells}
    for cell in cells[1:3]:
        exec(cell, {}, names)
    return names


def test_a_parameter_that_the_chapter_has_not_is_refused() -> None:
    with pytest.raises(UserError, match="no parameter 'learning_rate'; it has repeats, profile"):
        params.validate(notebook("learning_rate = 1"))
    # The value of a file that is for all chapters does not concern this one: `-f params/opt.yaml`.
    assert params.validate(notebook("profile = 'opt'", "updates = 320")).profile == "opt"
    with pytest.raises(UserError, match="no parameter 'updates'"):
        params.validate(notebook("profile = 'opt'", "updates = 321"))


def test_the_whole_file_for_all_chapters_suits_each() -> None:
    values = yaml.safe_load((ROOT / "params" / "opt.yaml").read_text())
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    assert params.validate(notebook(*lines)).repeats == 10


# Paths


def test_one_rule_for_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for text, path in (
        ("~/x", "/home/me/x"),
        ("/a/b", "/a/b"),
        ("x", f"{tmp_path}/x"),
        ("../x", f"{tmp_path.parent}/x"),
        (".", f"{tmp_path}"),
    ):
        assert params.located(text) == Path(path)
        assert params.store_folder(text) == Path(path)
        assert params.parse({"results": text}).results == path
    assert params.store_folder("runs") == ROOT / "runs"
    assert params.store_folder("./runs") == tmp_path / "runs"


@pytest.mark.parametrize("folder", ["data", "data/results", "chapters/x", ".git", ".", "_book"])
def test_the_book_s_own_folders_hold_no_runs(folder: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(ROOT / folder)
    for name in (ROOT / folder, link):
        with pytest.raises(UserError, match="the book's own: choose another"):
            params.store_folder(name)
    assert params.store_folder(ROOT / "mine") == ROOT / "mine"
    assert params.store_folder(ROOT.parent) == ROOT.parent


def test_a_path_in_the_book_is_written_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "book" / "data" / "rte").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "book" / "data")
    names = {"task": "rte", "models": ["pocket", "org/name", "../../model"], "store": "../kept"}
    made = params.placed(params.parse(names), tmp_path / "book")
    assert made.task == "data/rte"
    assert made.models == ["pocket", "org/name", str(tmp_path / "model")]
    assert (made.store, made.results) == ("./kept", "")
    usual = params.parse({})
    assert params.placed(usual) == usual


def test_the_folder_of_a_chapter_s_results_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    p = params.parse({"store": str(tmp_path / "new" / "store")})
    assert p.folder == tmp_path / "new" / "store"
    assert p.folder.is_dir()
    monkeypatch.setenv(params.COLLECT, str(tmp_path / "mine"))
    assert p.folder == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(params.COLLECT, str(tmp_path / "file" / "x"))
    with pytest.raises(UserError, match="cannot write"):
        _ = p.folder


def test_yaml_traps_are_real() -> None:
    """Why the files quote words and write 1.0e-5: what YAML 1.1 makes of them otherwise."""
    assert yaml.safe_load("a: [Yes, No]") == {"a": [True, False]}
    assert yaml.safe_load("a: 1e-5") == {"a": "1e-5"}
