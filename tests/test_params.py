from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft import ROOT, UserError, params


POCKET = params.study("pocket").model_dump()


def parse(values: dict[str, object]) -> params.Study:
    return params.parse({**POCKET, **values})


def test_the_pocket_file_is_complete_and_the_only_place_of_defaults() -> None:
    assert {*params.load(ROOT / "params/pocket.yaml"), "study"} == {*params.Study.model_fields}
    assert all(field.is_required() for field in params.Study.model_fields.values())
    with pytest.raises(UserError, match="parameter rounds is missing: rounds of recursive"):
        params.parse({name: value for name, value in POCKET.items() if name != "rounds"})


FILES = {path.stem for path in (ROOT / "params").glob("*.yaml")} - {"pocket", "book"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_other_file_names_what_differs(name: str) -> None:
    study, usual = params.study(name), params.study("pocket")
    assert study.study == name
    for key in params.load(ROOT / "params" / f"{name}.yaml"):
        assert getattr(study, key) != getattr(usual, key), key


def test_opt_files_survive_yaml() -> None:
    small, large = params.study("opt-125m"), params.study("opt-350m")
    assert (small.model, large.model) == ("facebook/opt-125m", "facebook/opt-350m")
    assert small.task == "mnli-hans"
    assert (small.limit, small.repeats, small.queries) == (0, 10, [16, 64, 4096])
    assert (min(small.train_shots), max(small.train_shots)) == (2, 128)
    assert small.context_shots in small.shots  # the teacher is a point of the curve
    assert small.context_shots in small.train_shots  # and so is its rival
    assert small.distill_updates * small.distill_batch_size == max(small.queries)
    of_model = {"study": "", "model": ""}
    assert small.model_copy(update=of_model) == large.model_copy(update=of_model)


def test_the_published_studies_are_listed_in_one_file(tmp_path: Path) -> None:
    assert "pocket" in params.published()
    (tmp_path / "params").mkdir()
    for content in ("studies: []", "studies: [a, a]", "studies: {a: b}", "study: [a]"):
        (tmp_path / "params" / "book.yaml").write_text(content)
        with pytest.raises(UserError) as caught:
            params.published(tmp_path)
        assert "\n" not in str(caught.value)


def test_text_becomes_typed() -> None:
    study = parse({"shots": "[2, 8]", "repeats": "3", "limit": 5.0})
    assert (study.shots, study.repeats, study.limit) == ([2, 8], 3, 5)


@given(st.lists(st.integers(1, 64).map(lambda n: 2 * n), min_size=1, unique=True))
def test_any_list_survives_as_text(shots: list[int]) -> None:
    assert parse({"shots": str(shots)}).shots == sorted(shots)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shotz": 2}, "did you mean 'shots'?"),
        ({"zebra": 2}, "known: study, task"),
        ({"shots": 8}, "not a list"),
        ({"shots": "many"}, "not a list"),
        ({"shots": "[2, 4"}, "not YAML"),
        ({"shots": [2, -4]}, "greater than or equal to 2"),
        ({"shots": [3]}, "multiple of 2"),
        ({"shots": [2, 2]}, "twice"),
        ({"shots": [True, 2]}, "boolean"),
        ({"shots": []}, "at least 1"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"repeats": "yes"}, "plain decimal digits"),
        ({"repeats": True}, "boolean"),
        ({"repeats": 2.5}, "integer"),
        ({"limit": -1}, "greater than or equal to 0"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"dtype": "float64"}, "bfloat16"),
        ({"pattern": ""}, "at least 1"),
        ({"shots": f"[{'9' * 5000}]"}, "integer"),
        ({"shots": "[010]"}, "plain decimal digits"),
        ({"shots": "[1:30]"}, "plain decimal digits"),
        ({"shots": "[0x10]"}, "plain decimal digits"),
        ({"shots": "[[2]]"}, "integer"),
        ({"shots": [2 * n for n in range(1, 102)]}, "at most 100"),
        ({"queries": [0]}, "greater than or equal to 1"),
        ({"queries": [10**7]}, "less than or equal to 1000000"),
        ({"repeats": "9" * 5000}, "integer"),
        ({"repeats": "010"}, "plain decimal digits"),
        ({"repeats": "1_0"}, "plain decimal digits"),
        ({"learning_rate": "1:30.5"}, "plain decimal digits"),
        ({"learning_rate": 10**400}, "learning_rate"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"rows": "~nosuchuser/x"}, "'~nosuchuser/x' is not a path"),
        ({"task": "~nosuchuser/x"}, "'~nosuchuser/x' is not a path"),
        ({"model": "~nosuchuser/x"}, "'~nosuchuser/x' is not a path"),
        ({"store": "~nosuchuser/x"}, "'~nosuchuser/x' is not a path"),
        ({"results": "~nosuchuser/x"}, "'~nosuchuser/x' is not a path"),
        ({"task": "x" * 300}, "name too long"),
        ({"store": "x" * 5000}, "at most 2000"),
        ({"model": "x" * 5000}, "at most 2000"),
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
        parse(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


NUMBERS = [
    name
    for name, value in POCKET.items()
    if isinstance(value, int | float) and not isinstance(value, bool)
]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_an_upper_bound_and_says_it(name: str) -> None:
    for huge in (10**12, 10**30, str(10**12), 1e300):
        with pytest.raises(UserError, match=rf"{name} is .* to [\d,]+") as caught:
            parse({name: huge})
    said = str(caught.value).rpartition(" to ")[2].replace(",", "")
    assert getattr(parse({name: int(said)}), name) == int(said)
    with pytest.raises(UserError):
        parse({name: int(said) + 2})


def test_numbers_of_examples_are_sorted() -> None:
    study = parse({"shots": [8, 2], "train_shots": "[128, 2, 8]", "queries": [64, 16]})
    assert (study.shots, study.train_shots, study.queries) == ([2, 8], [2, 8, 128], [16, 64])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("shots: [2,", "not YAML"),
        ("- shots", "name: value"),
        ("shots: [yes, 2]", "plain decimal digits"),
        ("save_models: 7", "boolean"),
        ("shot: [2]", "did you mean 'shots'?"),
        ("dtype: no", "dtype"),
        ("repeats: 2\nrepeats: 3", "has 'repeats' twice"),
        ('repeats: 2\n"repeats": 3', "has 'repeats' twice"),
        ("<<: {repeats: 3}\nrepeats: 2", "unknown parameter '<<'"),
        ("repeats: 1:30", "repeats = '1:30': not a number in plain decimal digits"),
        ("repeats: 010", "'010': not a number"),
        ("repeats: 0x10", "'0x10': not a number"),
        ("repeats: 1_000", "'1_000': not a number"),
        (f"repeats: {'9' * 5000}", "integer"),
        ("learning_rate: .inf", "not a number"),
        ("learning_rate: 1:30.5", "not a number"),
        ("learning_rate: 1e999", "finite"),
        ("repeats: 2020-99-99", "not a number"),
        ("store: ~", "has ~: leave the line out"),
        ("model: null", "has null: leave the line out"),
        ("repeats: \0", "not YAML"),
        ("", "name: value"),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        params.study(str(file))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/nowhere.yaml: No such file"):
        params.load("nowhere.yaml")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "~nosuchuser/x", "/"])
def test_what_is_no_parameter_file_is_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        params.load(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_file_in_another_code_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes("task: smök".encode("latin-1"))
    with pytest.raises(UserError, match="utf-8"):
        params.load(tmp_path / "mine.yaml")


# What a chapter's cells say


def notebook(declares: str, injected: str = "") -> dict[str, object]:
    """The globals of a notebook's kernel after its parameters and what papermill injected."""
    names: dict[str, object] = {"In": ["", declares], "Out": {}, "_": 1}
    exec(declares, names)
    exec(injected, names)
    return names


CELL = 'studies: list[str] = ["pocket"]\nrepeats: int = None\nshots: list[int] = None'


def test_a_chapter_shows_its_studies_with_their_own_parameters() -> None:
    [study] = params.studies(notebook(CELL))
    assert study == params.study("pocket")
    first, second = params.studies(notebook(CELL, 'studies = "[smoke, pocket]"'))
    assert (first.study, first.repeats) == ("smoke", 2)
    assert (second.study, second.repeats) == ("pocket", 10)


def test_what_is_given_takes_the_place_of_every_study_s_own() -> None:
    cells = notebook(CELL, 'studies = ["smoke", "pocket"]\nrepeats = 3\nshots = "[8, 2]"')
    for study in params.studies(cells):
        assert (study.repeats, study.shots) == (3, [2, 8])
    assert params.studies(cells)[0].updates == params.study("smoke").updates


def test_the_cell_can_be_run_again() -> None:
    names = notebook(CELL)
    names["studies"] = params.studies(names)
    names |= {"number": 3, "repeats": 4, "study": names["studies"][0]}
    assert [study.repeats for study in params.studies(names)] == [4]


def test_a_study_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("repeats: 4\ntask: data/mine\nstore: ~/runs\n")
    [study] = params.studies({"studies": [str(tmp_path / "mine.yaml")]})
    assert (study.study, study.repeats) == ("mine", 4)
    assert study.task == str(ROOT / "data" / "mine")  # from the book's folder, not the current one
    assert study.store == str(Path("~/runs").expanduser())


@pytest.mark.parametrize(
    ("injected", "words"),
    [
        ("repeat = 2", "did you mean 'repeats'"),
        ("zebra = 2", "known: studies, repeats, shots"),
        ("rounds = 2", "unknown parameter 'rounds'; known: studies, repeats, shots"),
        ("studies = ['nowhere']", "unknown study 'nowhere'"),
        ("studies = ['smoek']", "did you mean 'smoke'"),
        ("studies = ['book']", "unknown study 'book'"),
        ("studies = []", "must name different studies"),
        ("studies = ['pocket', 'pocket']", "must name different studies"),
        ("studies = 3", "not a list"),
        ("studies = '[pocket'", "not YAML"),
        ("studies = ['nowhere/x.yaml']", "No such file"),
        ("repeats = 0", "greater than or equal to 1"),
    ],
)
def test_what_a_chapter_cannot_have_is_one_line(injected: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        params.studies(notebook(CELL, injected))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_paths_and_names_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    values = {"task": "rte", "model": "model", "store": "../kept", "results": "", "repeats": 3}
    assert params.absolute(values) == {
        "task": f"{tmp_path}/rte",
        "model": f"{tmp_path}/model",
        "store": f"{tmp_path.parent}/kept",
    }
    names = {"task": "mnli-hans", "model": "org/name", "store": "runs", "results": ""}
    assert params.absolute(names) == {}
    assert params.absolute({"model": "./none"}) == {"model": f"{tmp_path}/none"}


def test_the_folder_of_a_chapter_s_results_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    p = parse({"store": str(tmp_path / "new" / "store")})
    assert p.folder == tmp_path / "new" / "store"
    assert p.folder.is_dir()
    monkeypatch.setenv(params.COLLECT, str(tmp_path / "mine"))
    assert p.folder == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(params.COLLECT, str(tmp_path / "file" / "x"))
    with pytest.raises(UserError, match="cannot write"):
        _ = p.folder


def test_words_of_a_file_are_what_they_look_like(tmp_path: Path) -> None:
    """YAML 1.1 reads a boolean, and a text, where these are written."""
    (tmp_path / "mine.yaml").write_text("verbalizer: Yes\nlearning_rate: 1e-5\n")
    study = params.study(str(tmp_path / "mine.yaml"))
    assert (study.verbalizer, study.learning_rate) == ("Yes", 1e-5)
