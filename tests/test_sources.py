"""Sources: every format and origin gives the same pairs, and refuses the same damage by its row."""

import gzip
import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from papermill.cli import _resolve_type as papermill_value

from llmft import UserError, params
from llmft.book import freeze
from llmft.nli.sources import HANS_SHA256, hans_file, meanings, parse, read
from llmft.nli.tasks import load
from tests.pairs import FORMATS, mnli, pairs_of


def rows(*changes: dict[str, Any], n: int = 6) -> list[dict[str, Any]]:
    """`n` rows in MNLI's columns with words as labels; the last ones with changes."""
    words = ["entailment", "neutral", "contradiction"]
    plain = [
        {"premise": f"p{i}", "hypothesis": f"h{i}", "label": words[i % 3], "id": str(i)}
        for i in range(n)
    ]
    unchanged = n - len(changes)
    return plain[:unchanged] + [
        row | change for row, change in zip(plain[unchanged:], changes, strict=True)
    ]


def pairs_in(path: Path, labels: str = "") -> pd.DataFrame:
    return pairs_of(read(path), "train", labels)


def refusal(path: Path, labels: str = "") -> str:
    with pytest.raises(UserError) as error:
        pairs_in(path, labels)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


# Every format


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_reads_alike(tmp_path: Path, suffix: str) -> None:
    texts = [
        'He said "hi 0" .',
        '"Quoted," he said.',
        '5" disk',
        "a, b",
        "n/a",
        "null",
        "é 你 \u2028",
    ]
    records = rows(*({"premise": text} for text in texts), n=9)
    FORMATS[suffix](records, tmp_path / f"train{suffix}")
    expected = pairs_of(pd.DataFrame(records), "train")
    pd.testing.assert_frame_equal(pairs_in(tmp_path / f"train{suffix}"), expected)
    assert '"Quoted," he said.' in set(expected.premise)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["premise", "hypothesis"])
@pytest.mark.parametrize("empty", [None, "", " ", "\xa0\u200b"])
def test_a_missing_text_is_refused_by_its_row_and_can_be_dropped(
    tmp_path: Path, suffix: str, name: str, empty: str | None
) -> None:
    path = tmp_path / f"train{suffix}"
    FORMATS[suffix](rows({name: empty}, {}), path)
    assert f"train: the {name} is missing in row 5" in refusal(path)
    assert refusal(path).endswith('"missing: drop"')
    result = pairs_in(path, "missing: drop")  # row 5 would be neutral
    assert list(result.id) == ["train-0", "train-2", "train-3", "train-5"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_missing_label_is_refused_by_its_row_and_can_be_dropped(
    tmp_path: Path, suffix: str, empty: str | None
) -> None:
    path = tmp_path / f"train{suffix}"
    FORMATS[suffix](rows({"label": empty}, {}, {"label": empty}), path)
    assert "train: label missing in row 4; " in refusal(path)
    assert list(pairs_in(path, "missing: drop").id) == ["train-0", "train-2"]
    both = "neutral: not entailment, missing: drop"
    assert refusal(path, "neutral: not entailment").endswith(f'"{both}"')
    assert list(pairs_in(path, both).label) == [0, 1, 1, 1]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_numbers_with_holes_are_still_numbers(tmp_path: Path, suffix: str) -> None:
    # pandas makes floats of whole numbers beside a missing one, and writes 0.0
    path = tmp_path / f"train{suffix}"
    frame = mnli(6).assign(label=[0, 1, 2, np.nan, 1, 2])
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    assert "label missing in row 4" in refusal(path)
    assert list(pairs_in(path, "missing: drop").id) == ["train-0", "train-2", "train-5"]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1, 2], "list"),
        ({"a": "b"}, "dict"),
        (7, "int"),
        (1.5, "float"),
        (True, "bool"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, suffix: str, value: Any, kind: str) -> None:
    path = tmp_path / f"train{suffix}"
    records = rows(*[{"hypothesis": value}] * 5, n=5)
    FORMATS[suffix](records, path)
    assert refusal(path) == (
        f"train: the hypothesis in row 1 is of type {kind}, not text: correct or remove the row"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["label", "id", "subcase"])
def test_a_list_is_no_label_id_or_subcase(tmp_path: Path, suffix: str, name: str) -> None:
    FORMATS[suffix](rows(*[{name: ["entailment"]}] * 3, n=3), tmp_path / f"train{suffix}")
    assert f"the {name} in row 1 is of type list" in refusal(tmp_path / f"train{suffix}")


def test_bytes_are_no_text() -> None:
    assert "row 2 is of type bytes, not text" in frame_refusal(
        pd.DataFrame(rows(n=3)).assign(premise=["a", b"b", "c"])
    )


def frame_refusal(frame: pd.DataFrame, labels: str = "") -> str:
    with pytest.raises(UserError) as error:
        pairs_of(frame, "train", labels)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["premise", "label", "id"])
@pytest.mark.parametrize("text", ["a\0b", "half \ud83d pair", "\udfff"])
def test_text_that_no_file_takes_is_refused(tmp_path: Path, name: str, text: str) -> None:
    labels = "" if name != "label" else f"{text}: drop"
    frame = pd.DataFrame(rows({name: text}), dtype=object)
    line = f"the {name} in row 6 is not text: it holds NUL or half a surrogate pair"
    assert line in frame_refusal(frame, labels)
    path = tmp_path / "train.jsonl"
    FORMATS[".jsonl"](rows({name: text}), path)  # written as escapes
    assert line in refusal(path, labels)


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        '{"premise": "\\ud83d\\ude00", "hypothesis": "h", "label": "entailment"}\n'
    )
    assert list(pairs_in(tmp_path / "train.jsonl").premise) == ["😀"]


# Columns


@pytest.mark.parametrize("suffix", FORMATS)
def test_columns_may_be_in_capitals(tmp_path: Path, suffix: str) -> None:
    capitals = [
        {
            "Premise": r["premise"],
            "HYPOTHESIS": r["hypothesis"],
            "Gold_Label": r["label"],
            "ID": r["id"],
        }
        for r in rows()
    ]
    FORMATS[suffix](capitals, tmp_path / f"train{suffix}")
    pd.testing.assert_frame_equal(
        pairs_in(tmp_path / f"train{suffix}"), pairs_of(pd.DataFrame(rows()), "train")
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_unknown_columns_are_shown_beside_those_wanted(tmp_path: Path, suffix: str) -> None:
    FORMATS[suffix]([{"text_a": "a", "text_b": "b", "label": "neutral"}], tmp_path / f"t{suffix}")
    line = refusal(tmp_path / f"t{suffix}")
    assert "no column premise, hypothesis (needed: premise, hypothesis, label;" in line
    assert "there: text_a, text_b, label" in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "premise,premise,hypothesis,label\na,b,c,neutral\n"),
        ("train.csv", "Premise,premise ,hypothesis,label\na,b,c,neutral\n"),
        ("train.tsv", "premise\tpremise\thypothesis\tlabel\na\tb\tc\tneutral\n"),
        (
            "train.jsonl",
            '{"premise": "a", "Premise": "b", "hypothesis": "c", "label": "neutral"}\n',
        ),
    ],
)
def test_a_column_that_occurs_twice(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert "the column 'premise' occurs twice" in refusal(tmp_path / name)


def test_a_column_that_occurs_twice_in_parquet(tmp_path: Path) -> None:
    column = pa.array(["a"])
    names = ["premise", "premise", "hypothesis", "label"]
    pq.write_table(pa.Table.from_arrays([column] * 4, names=names), tmp_path / "train.parquet")
    assert "the column 'premise' occurs twice" in refusal(tmp_path / "train.parquet")


# Ids and groups


def test_ids_are_normalised_whatever_type_a_format_gives_them() -> None:
    frame = pd.DataFrame(rows(n=3))
    for ids in ([7, 8, 9], [7.0, 8.0, 9.0], ["7", " 8", "9.0"], ["7", 8, 9.0]):
        result = pairs_of(frame.assign(id=pd.Series(ids, dtype=object)), "train")
        assert list(result.id) == ["train-7", "train-9"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_id_is_refused_by_its_row(tmp_path: Path, suffix: str) -> None:
    FORMATS[suffix](rows({"id": None}, {}), tmp_path / f"train{suffix}")
    assert "the id is missing in row 5: complete the ids, or remove the column" in refusal(
        tmp_path / f"train{suffix}"
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_subcase_is_a_group_of_its_own(tmp_path: Path, suffix: str) -> None:
    FORMATS[suffix](
        [row | {"subcase": "a" if i else None} for i, row in enumerate(rows())],
        tmp_path / f"train{suffix}",
    )
    assert list(pairs_in(tmp_path / f"train{suffix}").subcase) == ["no subcase", "a", "a", "a"]


# Labels


@pytest.mark.parametrize("written", ["0.0", "0", "0.00"])
def test_numbers_may_be_mapped_as_they_are_written(tmp_path: Path, written: str) -> None:
    path = tmp_path / "train.csv"
    mnli(6).assign(label=[0.0, 1.0] * 3).to_csv(path, index=False)
    labels = f"{written}: entailment, 1.0: not entailment"
    assert list(pairs_in(path, labels).label) == [0, 1] * 3


def test_zero_and_one_are_ambiguous_once_others_are_dropped() -> None:
    frame = mnli(6).assign(label=[0, 1, 0, 1, 0, -1])
    line = frame_refusal(frame, "-1: drop")
    assert "labels 0 and 1 can mean neutral or not" in line
    message = line.rpartition(", such as ")[2].strip('"')
    assert message == "-1: drop, 0: entailment, 1: not entailment"
    assert list(pairs_of(frame, labels=message).label) == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("values", [[1, 2], [0], [1], [2], [0, 1, 2, 3], [1, 2, 3]])
def test_numbers_are_mnlis_only_if_they_can_be_nothing_else(values: list[int]) -> None:
    line = frame_refusal(mnli(6).assign(label=(values * 6)[:6]))
    advice = line.rpartition("parameter labels: ")[2].strip('"')
    assert advice == ", ".join(f"{value}: ?" for value in values)
    message = advice.replace("?", "entailment")
    assert len(pairs_of(mnli(6).assign(label=(values * 6)[:6]), labels=message)) == 6


def test_all_unknown_labels_are_named_at_once(tmp_path: Path) -> None:
    frame = mnli(4).assign(label=["e", "n", "Both, or: none", None])
    line = frame_refusal(frame, "neutral: drop")
    assert (
        "unknown labels 'e' (row 1), 'n' (row 2), 'both, or: none' (row 3), 'missing' (row 4)"
        in line
    )
    message = line.rpartition("parameter labels: ")[2].strip('"')
    assert message == "neutral: drop, e: ?, n: ?, both, or: none: ?, missing: drop"
    # what it says works, once the question marks are answered
    frame = frame.assign(label=["e", "n", "both, or none", None])
    message = "e: entailment, n: not entailment, both, or none: drop, missing: drop"
    assert list(pairs_of(frame, labels=message).label) == [0, 1]


def test_many_or_long_unknown_labels_stay_one_line() -> None:
    line = frame_refusal(mnli(60).assign(label=[f"{i}" * 50 + "x" for i in range(60)]))
    assert "and 50 more" in line
    assert len(line) < 2000


def test_booleans_are_labels_that_are_asked_for(tmp_path: Path) -> None:
    labels = "true: entailment, False: not entailment"
    records = [row | {"label": i % 2 == 0} for i, row in enumerate(rows())]
    for suffix, write in FORMATS.items():
        path = tmp_path / f"train{suffix}"
        write(records, path)
        assert "unknown labels 'true' (row 1), 'false' (row 2)" in refusal(path)
        assert list(pairs_in(path, labels).label) == [0, 1] * 3


@pytest.mark.parametrize(
    "word",
    ["not_entailment", "not-entailment", "Not  Entailment", "NON_ENTAILMENT", "contradiction "],
)
def test_the_usual_words_in_their_spellings(word: str) -> None:
    assert set(pairs_of(mnli(2).assign(label=word)).label) == {1}


@pytest.mark.parametrize(
    "spelled", ["missing: drop", "Missing :drop,", "-1: drop, 0: entailment, missing: drop"]
)
def test_a_mapping_comes_through_every_kind_of_parameter(tmp_path: Path, spelled: str) -> None:
    path = tmp_path / "p.yaml"
    for line in (f"labels: {json.dumps(spelled)}", f"labels: >-\n  {spelled}"):
        path.write_text(line + "\n")
        assert params.load(path)["labels"] == spelled
    values = [freeze.assignments((f"labels={spelled}",))["labels"], papermill_value(spelled)]
    assert values == [spelled] * 2
    frame = mnli(6).assign(label=[0, 0, 0, -1, None, "contradiction"])
    if spelled.startswith("-1"):
        assert list(pairs_of(frame, labels=spelled).label) == [0, 0, 0, 1]
    else:
        assert list(pairs_of(frame.iloc[4:], labels=spelled).label) == [1]


def test_labels_say_what_they_were_taken_to_mean() -> None:
    _, result = parse(mnli(7).assign(label=[2, 0, 1, 2, 0, 1, 2]), "train")
    assert result.to_dict("records") == [
        {"label": "2", "meaning": "not entailment", "rows": 3, "premise": "p0", "hypothesis": "h0"},
        {"label": "0", "meaning": "entailment", "rows": 2, "premise": "p1", "hypothesis": "h1"},
        {"label": "1", "meaning": "drop", "rows": 2, "premise": "p2", "hypothesis": "h2"},
    ]


# Files

HEADER = "premise,hypothesis,label\n"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".jsonl.gz"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    FORMATS[suffix](rows(), path)
    content = path.read_bytes()
    if suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + gzip.decompress(content)))
    else:
        path.write_bytes(b"\xef\xbb\xbf" + content)
    assert len(pairs_in(path)) == 4


def test_quotes_of_a_tsv_are_the_texts_own_unless_a_writer_doubled_them(tmp_path: Path) -> None:
    values = {
        '"He said ""hi 0"" ."': 'He said "hi 0" .',
        '"""Hi"" ."': '"Hi" .',
        '"I am fine."': '"I am fine."',  # a whole sentence in quotes, as MNLI's own
        '"Hello," he said.': '"Hello," he said.',
        '5" disk': '5" disk',
        '"': '"',
        '""Hi""': '""Hi""',
        '"x"""y"': '"x"""y"',
    }
    path = tmp_path / "train.tsv"
    lines = [f"{value}\th\tentailment" for value in values]
    path.write_text("\n".join(["premise\thypothesis\tlabel", *lines]))
    assert list(pairs_in(path).premise) == [*values.values()]


def test_a_tsv_with_all_values_in_quotes(tmp_path: Path) -> None:
    frame = pd.DataFrame(rows()).assign(premise='a "b"\tc\nd')
    frame.to_csv(tmp_path / "train.tsv", sep="\t", index=False, quoting=1)
    assert set(pairs_in(tmp_path / "train.tsv").premise) == {'a "b"\tc\nd'}


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("t.csv", HEADER + "a,b,neutral\na,b\n", "row 2 has 2 values and the header 3"),
        ("t.csv", HEADER + "a,b,neutral,x\n", "row 1 has 4 values and the header 3"),
        ("t.csv", HEADER + '"a,b,neutral\n', "cannot be read (line 2: unexpected end"),
        ("t.csv", HEADER + '"a"b,c,neutral\n', "cannot be read (line 2: "),
        ("t.tsv", "premise\thypothesis\tlabel\na\tb\n", "row 1 has 2 values and the header 3"),
        ("t.tsv", 'premise\thypothesis\tlabel\n"a\nb"\tc\tneutral\n', "row 1 has 1 values"),
        ("t.csv", "", "no header"),
        ("t.jsonl", "", "no examples"),
        ("t.jsonl", '{"premise": "a"\n', "cannot be read (line 1: "),
        ("t.jsonl", '{"premise": "a"}\n[1, 2]\n', "line 2 is not an object"),
        ("t.jsonl", "[" * 100_000 + "\n", "cannot be read"),
        ("t.jsonl", '{"premise": ' + "1" * 5000 + "}\n", "cannot be read (line 1: "),
        ("t.parquet", "PAR1 and then nothing", "cannot be read"),
    ],
)  # fmt: skip
def test_damaged_files(tmp_path: Path, name: str, content: str, line: str) -> None:
    (tmp_path / name).write_text(content)
    assert line in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_off_anywhere_is_one_line_or_lacks_whole_rows_only(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"train{suffix}"
    FORMATS[suffix](rows(n=30), path)
    content, whole = path.read_bytes(), pairs_in(path)
    for end in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:end])
        with suppress(UserError):
            # a text file may end between two rows, or in the last one's id
            result = pairs_in(path)
            assert suffix in (".csv", ".tsv", ".jsonl")
            assert list(result.premise) == list(whole.premise[: len(result)])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_other_encodings_are_one_line(tmp_path: Path, suffix: str, encoding: str) -> None:
    path = tmp_path / f"train{suffix}"
    FORMATS[suffix](rows(), path)
    path.write_bytes(path.read_text().replace("p5", "é").encode(encoding))
    assert "is not UTF-8 text" in refusal(path)
    assert refusal(path).endswith("save it as UTF-8")


def test_parquet_is_read_as_it_is_now_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    # `datasets` would keep a copy by path and time, and take the path for a pattern.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", "/proc/no such folder")
    path = tmp_path / "v[1]*" / "train.parquet"
    path.parent.mkdir()
    for n in (6, 9):
        FORMATS[".parquet"](rows(n=n), path)
        os.utime(path, (0, 0))
        assert len(pairs_in(path)) == n * 2 // 3
    assert [*tmp_path.rglob("*")] == [path.parent, path]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blank_lines_and_ends_of_lines_do_not_matter(
    tmp_path: Path, suffix: str, end: bytes
) -> None:
    path = tmp_path / f"train{suffix}"
    FORMATS[suffix](rows(), path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(end * 2 + end.join([lines[0], b"", *lines[1:]]) + end * 3)
    assert list(pairs_in(path).id) == ["train-0", "train-2", "train-3", "train-5"]


# MNLI's and HANS's own


def test_mnlis_numbers_become_binary_and_neutral_goes() -> None:
    result = pairs_of(mnli(6), "train")
    assert list(result.columns) == ["id", "premise", "hypothesis", "label"]
    assert list(result.id) == ["train-0", "train-2", "train-3", "train-5"]
    assert list(result.label) == [0, 1, 0, 1]
    assert list(result.premise) == ["p0", "p2", "p3", "p5"]


def test_labels_can_be_said_to_mean_something_else() -> None:
    frame = mnli(6)
    neutral_kept = pairs_of(frame, labels="neutral: not entailment")
    assert list(neutral_kept.label) == [0, 1, 1] * 2
    letters = frame.assign(label=frame.label.map(list("ENC").__getitem__))
    message = pairs_of(letters, labels="e: entailment, n: drop, c: not entailment")
    pd.testing.assert_frame_equal(message, pairs_of(frame))
    two = frame.assign(label=[1, 0, 1, 0, 1, 0])
    assert list(pairs_of(two, labels="1: entailment, 0: not entailment").label) == [0, 1] * 3
    as_float = two.assign(label=two.label.astype(float))
    assert list(pairs_of(as_float, labels="0:entailment,1:not entailment").label) == [1, 0] * 3
    colon = frame.assign(label="a:b")
    assert set(pairs_of(colon, labels="a:b: not entailment").label) == {1}


def test_numbers_that_are_said_stand_in_place_of_mnlis() -> None:
    with pytest.raises(UserError, match=r"unknown label '2' \(row 3\)"):
        pairs_of(mnli(6), labels="0: entailment, 1: not entailment")


@pytest.mark.parametrize(
    "labels", ["e", "e: yes", ": drop", "e: drop, E: entailment", "e=drop", "missing: entailment"]
)
def test_mappings_that_cannot_be_read(labels: str) -> None:
    with pytest.raises(UserError, match="is not one of LABEL: entailment") as error:
        meanings(labels)
    assert "\n" not in str(error.value)


def test_the_columns_of_rte_and_of_mnlis_own_files() -> None:
    frame = mnli(6).rename(columns={"premise": "sentence1", "hypothesis": "sentence2"})
    pd.testing.assert_frame_equal(pairs_of(frame), pairs_of(mnli(6)))
    own = frame.rename(columns={"label": "gold_label", "idx": "pairID"})
    pd.testing.assert_frame_equal(pairs_of(own), pairs_of(mnli(6)))
    pairs = pairs_of(mnli(6).assign(subcase="genre"))
    assert set(pairs.subcase) == {"genre"}


def test_hans_is_checked_and_cached(shared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    source = shared / "data" / "hans" / "heuristics_evaluation_set.txt.gz"
    (tmp_path / "llmft").mkdir()
    cache = tmp_path / "llmft" / "heuristics_evaluation_set.txt"
    with gzip.open(source) as archive, cache.open("wb") as plain:
        shutil.copyfileobj(archive, plain)
    path = hans_file()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == HANS_SHA256
    result = pairs_of(read(path), "hans")
    assert len(result) == 30_000
    assert result.groupby(["heuristic", "label"]).size().tolist() == [5000] * 6
    assert result.heuristic.value_counts().tolist() == [10_000] * 3
    assert result.label.value_counts().tolist() == [15_000] * 2
    assert result.subcase.value_counts().tolist() == [1000] * 30
    assert result.id.is_unique
    for subcase, part in result.groupby("subcase"):
        assert set(part.label) == {int(str(subcase)[1] == "n")}


def no_network(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("Name or service not known")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    """An empty cache, and no Hub behind it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def test_no_network_is_one_line(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    (home / "llmft").mkdir()
    (home / "llmft" / "heuristics_evaluation_set.txt").write_text("cut short")
    with pytest.raises(UserError, match=r"HANS cannot be downloaded .* or put https") as error:
        load("mnli-hans")
    assert "\n" not in str(error.value)


def test_another_file_than_the_pinned_one_is_refused(home: Path, monkeypatch: Any) -> None:
    (home / "other").write_text("gold_label\n")
    real = urllib.request.urlopen
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: real((home / "other").as_uri()))
    with pytest.raises(UserError, match="not the pinned file"):
        hans_file()
