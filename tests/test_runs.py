"""Grids on a tiny model and task: keys, resuming after a kill, sharing, damage, full disk, Dask."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from llmft import ROOT, UserError, hardware, params
from llmft.book import stamp
from llmft.engine import scoring
from llmft.engine.spec import METHODS
from llmft.nli import prompts
from llmft.study import methods, metrics, runs, store


PEOPLE = ["doctor", "lawyer", "judge", "artist", "senator", "actor"]

MEASURED = [
    "in_domain_accuracy",
    "in_domain_nll",
    "in_domain_ece",
    "out_of_domain_accuracy",
    "out_of_domain_nll",
    "content_free_p_entailment",
    "prefix_tokens",
]

LORA: dict[str, Any] = {
    "method": "lora",
    "learning_rate": 1e-2,
    "updates": 3,
    "batch_size": 2,
    "objective": "label words",
    "selection": "last",
    "rank": 2,
    "alpha": 4.0,
    "targets": "q_proj,v_proj",
}
FINE_TUNING = LORA | {"method": "fine-tuning", "rank": 0, "alpha": 0.0, "targets": ""}
BITFIT = FINE_TUNING | {"method": "bitfit"}
QUERY = {"objective": "query"}
DISTILLATION = LORA | {
    "method": "distillation",
    "objective": "query",
    "queries": 4,
    "rounds": 1,
    "temperature": 1.0,
}
OWN = {"pattern": "{hypothesis}\nfollows from {premise} ?", "verbalizer": "True, False"}
ICL = {field.name: field.default for field in fields(runs.Spec) if field.name in LORA}

SCRIPT = """
import json, sys, time
from pathlib import Path
from llmft import UserError
from llmft.study import methods, runs
base, store, n, partners, stack = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
specs = runs.grid(runs.Spec(**json.loads(base)), data_seed=range(n))
methods.model_of(specs[0].model, "", "cpu", "float32")
ready = Path(store).parent
(ready / f"ready-{id(ready)}-{time.time_ns()}").touch()
while len(list(ready.glob("ready-*"))) < partners:
    time.sleep(0.01)
try:
    runs.run_grid(specs, store=store, device="cpu", stack=stack)
except UserError as error:
    sys.exit(str(error))
"""


def pairs(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        a, b = rng.choice(PEOPLE, 2, replace=False)
        label = i % 2
        rows.append(
            {
                "premise": f"The {a} saw the {b} {'in ' * (seed + i)}.",
                "hypothesis": f"The {b} ran ." if label else f"The {a} saw the {b} .",
                "label": 2 * label,
                "idx": i,
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    pairs(24, 1).to_csv(folder / "train.csv", index=False)
    pairs(6, 2).to_csv(folder / "validation.csv", index=False)
    pairs(10, 3).to_csv(folder / "test.csv", index=False)
    hans = pairs(8, 4).rename(
        columns={"premise": "sentence1", "hypothesis": "sentence2", "idx": "pairID"}
    )
    hans = hans.assign(
        gold_label=hans["label"].map({0: "entailment", 2: "non-entailment"}),
        heuristic="lexical_overlap",
        subcase=["swap", "passive"] * 4,
    )
    hans.drop(columns="label").to_csv(folder / "hans.tsv", sep="\t", index=False)
    return folder


@pytest.fixture
def base(task_folder: Path, tiny_checkpoint: Path) -> runs.Spec:
    return runs.Spec(task=str(task_folder), model=str(tiny_checkpoint), shots=2)


@pytest.fixture
def lora(base: runs.Spec) -> runs.Spec:
    return replace(base, **LORA)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """A test may change a checkpoint or a data file: what a process remembers must not leak."""
    yield
    methods.task_of.cache_clear()
    methods.model_of.cache_clear()
    runs._code_digest.cache_clear()


def run(specs: list[runs.Spec], store: Path, **options: object) -> pd.DataFrame:
    return runs.run_grid(specs, store=store, device="cpu", **options)  # type: ignore[arg-type]


def elsewhere(
    base: runs.Spec,
    store: Path,
    n: int,
    partners: int = 1,
    stack: int = 0,
    file_size: int = 0,
) -> subprocess.Popen[str]:
    """The grid of `n` draws in another process."""
    numbers = map(str, (n, partners, stack))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(asdict(base)), str(store), *numbers],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(
            (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size)))
            if file_size
            else None
        ),
    )


def stored(store: Path) -> dict[str, int]:
    """The finished runs and when each was written."""
    return {p.stem: p.stat().st_mtime_ns for p in (store / "records").glob("*.json")}


# --- a run -------------------------------------------------------------------------------------


def test_a_row_is_what_its_predictions_say(base: runs.Spec, tmp_path: Path):
    rows = run([base], tmp_path)
    said = runs.predictions(rows, tmp_path, ["shots"])
    row = rows.iloc[0]
    for domain, stem, n in (("in-domain", "in_domain", 10), ("out-of-domain", "out_of_domain", 8)):
        part = said[said["domain"] == domain]
        logp, labels = part[metrics.LOGP].to_numpy(), part["label"].to_numpy()
        assert len(part) == row[f"{stem}_n"] == n
        assert row[f"{stem}_accuracy"] == metrics.accuracy(logp, labels)
        assert row[f"{stem}_nll"] == pytest.approx(metrics.nll(logp, labels), abs=1e-6)
    assert (said["domain"] == "content-free").sum() == len(prompts.CONTENT_FREE)
    assert said[metrics.LOGP].dtypes.eq("float32").all()
    assert set(said.loc[said["domain"] == "out-of-domain", "subcase"]) == {"swap", "passive"}
    assert said.loc[said["domain"] == "in-domain", "subcase"].isna().all()
    assert set(said["shots"]) == {2}
    assert row["examples_per_second"] == pytest.approx(21 / row["eval_seconds"])
    assert row["peak_memory_mib"] > 50
    assert row["memory_kind"] in ("resident", "resident since start")
    assert row["threads"] == 1  # a small model
    assert len(row["examples"].split()) == 2


def test_the_key_follows_versions_and_how_exactly_is_multiplied(
    base: runs.Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keys = [runs.key_of(base)]
    for package in ("torch", "transformers", "tokenizers", "peft", "numpy"):
        with monkeypatch.context() as patch:
            patch.setattr(
                runs, "version", lambda name, p=package: "0.0" if name == p else version(name)
            )
            keys.append(runs.key_of(base))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_float32_matmul_precision", lambda: "high")  # TF32
        keys.append(runs.key_of(base))
        [row] = run([base], tmp_path).to_dict("records")
        assert row["float32_matmul"] == "high"
    assert len(set(keys)) == 7
    [row] = run([base], tmp_path).to_dict("records")
    assert row["float32_matmul"] == "highest"
    assert f"torch {version('torch')}" in row["versions"]
    assert row["versions"].startswith("python 3.")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_says_what_it_was_trained_in(lora: runs.Spec, dtype: str, tmp_path: Path):
    shown = {field.name: field.default for field in fields(runs.Spec) if field.name in LORA}
    both = [replace(lora, dtype=dtype), replace(lora, dtype=dtype, **shown)]  # type: ignore[arg-type]
    assert run(both, tmp_path)["train_dtype"].tolist() == [dtype, ""]


@pytest.mark.parametrize("change", [{}, FINE_TUNING, LORA | QUERY, BITFIT, DISTILLATION])
def test_every_method_has_patterns_and_label_words_of_ones_own(
    base: runs.Spec, change: dict[str, Any]
):
    """A model at its start (nothing is learnt at this rate) is asked in one's own words."""
    little = {"learning_rate": 1e-12} if change else {}
    spec = replace(base, **change | little | OWN)
    found = runs.execute(spec, device="cpu")
    assert (found.row["pattern"], found.row["verbalizer"]) == (OWN["pattern"], "True, False")
    model, task = methods.model_of(base.model, "", "cpu", "float32"), methods.task_of(base.task, 0)
    head = ""
    if not change:
        shown = methods.examples(task, spec)
        filled = [
            f"{h}\nfollows from {p} ? {['True', 'False'][label]}\n\n"
            for p, h, label in zip(shown.premise, shown.hypothesis, shown.label, strict=True)
        ]
        head = "".join(filled)
    asked = task.in_domain
    texts = [
        f"{head}{h}\nfollows from {p} ?"
        for p, h in zip(asked.premise, asked.hypothesis, strict=True)
    ]
    words = [
        model.tokenizer(f" {w}", add_special_tokens=False).input_ids for w in ("True", "False")
    ]
    assert [len(word) for word in words] == [1, 1]
    ids = model.tokenizer(texts)["input_ids"]
    plain = scoring.score_plainly(model.model, ids, [word[0] for word in words])
    said = found.predictions.query("domain == 'in-domain'")[metrics.LOGP].to_numpy()
    assert np.allclose(said, plain, atol=1e-4)


@pytest.mark.parametrize("change", [FINE_TUNING, FINE_TUNING | QUERY, DISTILLATION])
def test_training_learns_in_ones_own_words(base: runs.Spec, change: dict[str, Any]):
    """What it learns from is in the pattern, and so is what it then says."""
    learnt = {"learning_rate": 3e-3, "updates": 12}
    usual, own = (
        runs.execute(replace(base, **change | learnt | words), device="cpu") for words in ({}, OWN)
    )
    first, *_, last = own.row["curve"]
    assert last["train_loss"] < first["train_loss"] - 0.05
    assert first["train_loss"] != pytest.approx(usual.row["curve"][0]["train_loss"], abs=1e-4)


def test_a_task_in_words_that_the_model_does_not_know_is_one_line(
    base: runs.Spec, word_tokenizer: Any, tmp_path: Path
):
    """And with a model that spells them, as is advised, it runs (F27)."""
    folder = Path(shutil.copytree(base.model, tmp_path / "model"))
    for path in folder.glob("token*"):
        path.unlink()
    word_tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"\d\d% of the tokens of task .* unknown .* byte-level"):
        runs.execute(replace(base, model=str(folder)), device="cpu")
    assert runs.execute(base, device="cpu").row["in_domain_n"] == 10


@pytest.mark.parametrize("shots", [0, 4])
def test_a_run_scores_the_prompts_one_would_write_by_hand(base: runs.Spec, shots: int):
    spec = replace(base, method="icl" if shots else "zero-shot", shots=shots, data_seed=3)
    result = runs.execute(spec, device="cpu")
    model = methods.model_of(spec.model, "", "cpu", "float32")
    task = methods.task_of(spec.task, 0)
    shown = methods.examples(task, spec)
    pattern = prompts.PATTERNS["minimal"]
    head = "".join(
        f"{d.premise} {d.hypothesis} ? {'Yes' if d.label == 0 else 'No'}\n\n"
        for d in shown.itertuples()
    )
    texts = [f"{head}{q.premise} {q.hypothesis} ?" for q in task.in_domain.itertuples()]
    ids = [model.tokenizer(text)["input_ids"] for text in texts]
    plain = scoring.score_plainly(model.model, ids, prompts.label_tokens(model.tokenizer, pattern))
    said = result.predictions[result.predictions["domain"] == "in-domain"]
    assert said["id"].tolist() == task.in_domain["id"].tolist()
    assert np.allclose(said[metrics.LOGP].to_numpy(), plain.numpy(), atol=1e-4)


def test_an_order_shows_the_same_demonstrations_otherwise(base: runs.Spec):
    task = methods.task_of(base.task, 0)
    spec = replace(base, shots=8)
    orders = [
        methods.examples(task, replace(spec, order_seed=seed))["id"].tolist() for seed in (0, 1, 2)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2]


def test_memory_of_a_run_is_its_own():
    """A large allocation counts while it lives, and not in the run after it."""
    with hardware.peak_memory(torch.device("cpu")) as before:
        pass
    with hardware.peak_memory(torch.device("cpu")) as large:
        block = np.ones(200 * 2**17)  # 200 MiB, touched
        del block
    with hardware.peak_memory(torch.device("cpu")) as after:
        pass
    if before["memory_kind"] == "resident":
        assert large["peak_memory_mib"] > before["peak_memory_mib"] + 180
        assert after["peak_memory_mib"] < large["peak_memory_mib"] - 180


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shots": 100}, "100 shots.*cannot draw 100"),
        ({"shots": 24, "pattern": "gpt-3"}, "24 shots.*512"),
        ({"shots": 100} | FINE_TUNING, "run fine-tuning of .*100 shots.*cannot draw 100"),
        ({"shots": 3} | FINE_TUNING, "run fine-tuning of .*cannot draw 3 .*an even number"),
        (FINE_TUNING | {"learning_rate": 1e6}, "run fine-tuning of .*nats after . of 3 updates"),
        (LORA | {"targets": "w_proj"}, "run lora of .*'w_proj'"),
        ({"model": "/nowhere/at all"}, "unknown model"),
        ({"task": "nowhere"}, "unknown task"),
    ],
)
def test_an_impossible_run_is_one_line_and_leaves_no_record(
    base: runs.Spec, change: dict[str, object], words: str, tmp_path: Path
):
    spec = replace(base, **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words):
        run([base, spec], tmp_path)
    assert len(stored(tmp_path)) == 1  # the run before it is kept


# --- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"shots": 4},
        {"data_seed": 1},
        {"order_seed": 1},
        {"pattern": "gpt-3"},
        {"pattern": OWN["pattern"]},
        {"verbalizer": "True, False"},
        {"limit": 4},
        {"dtype": "bfloat16"},
        {"method": "zero-shot", "shots": 0},
    ],
)
def test_every_field_is_in_the_key(base: runs.Spec, change: dict[str, object]):
    assert runs.key_of(replace(base, **change)) != runs.key_of(base)  # type: ignore[arg-type]


def test_every_field_of_training_is_in_the_key(lora: runs.Spec):
    changes: dict[str, Any] = {
        "asked": "validation",
        "learning_rate": 0.1,
        "updates": 4,
        "batch_size": 3,
        "objective": "head",
        "selection": "best",
        "init_seed": 1,
        "rank": 3,
        "alpha": 3.0,
        "targets": "q_proj",
    }
    keys = {runs.key_of(replace(lora, **{name: value})) for name, value in changes.items()}
    assert len({*keys, runs.key_of(lora)}) == 1 + len(changes)


def test_the_key_stays_where_nothing_that_counts_changes(base: runs.Spec):
    key = runs.key_of(base)
    _fresh()
    assert runs.key_of(base) == key
    assert runs.key_of(base, device="cpu") == key or torch.cuda.is_available()


def _fresh() -> None:
    methods.task_of.cache_clear()
    methods.model_of.cache_clear()
    runs._code_digest.cache_clear()


def test_the_key_follows_weights_data_and_code(
    base: runs.Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = Path(shutil.copytree(base.model, tmp_path / "model"))
    task = Path(shutil.copytree(base.task, tmp_path / "task"))
    spec = replace(base, model=str(model), task=str(task))
    keys = [runs.key_of(spec)]

    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    _fresh()
    keys.append(runs.key_of(spec))

    with (task / "test.csv").open("a") as file:
        file.write("The doctor ran .,The doctor ran .,0,77\n")
    _fresh()
    keys.append(runs.key_of(spec))

    code = Path(shutil.copytree(ROOT / "llmft", tmp_path / "llmft")) / "engine/scoring.py"
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    _fresh()
    assert runs.key_of(spec) == keys[-1]  # the same code elsewhere
    code.write_text(code.read_text() + "# a comment\n")
    _fresh()
    assert runs.key_of(spec) == keys[-1]
    code.write_text(code.read_text() + "CHANGED = True\n")
    _fresh()
    keys.append(runs.key_of(spec))
    assert len(set(keys)) == 4


# --- grids -------------------------------------------------------------------------------------


def test_grid_is_the_product_and_refuses_unknown_names(base: runs.Spec):
    specs = runs.grid(base, shots=[2, 4], data_seed=range(3))
    assert [(s.shots, s.data_seed) for s in specs] == [
        (2, 0), (2, 1), (2, 2), (4, 0), (4, 1), (4, 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match="no 'shot'"):
        runs.grid(base, shot=[2])


def test_a_grid_is_done_once_and_returned_in_order(
    base: runs.Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    specs = runs.grid(base, data_seed=[2, 0, 1])
    first = run([*specs, specs[0]], tmp_path, name="icl")
    assert first["data_seed"].tolist() == [2, 0, 1]
    assert capsys.readouterr().err.count("draw") == 3
    before = stored(tmp_path)
    again = run(specs[::-1], tmp_path)
    assert capsys.readouterr().err == ""
    assert stored(tmp_path) == before
    pd.testing.assert_frame_equal(again.iloc[::-1].reset_index(drop=True), first)
    table = pd.read_csv(tmp_path / "icl.csv", keep_default_na=False)
    assert table["key"].tolist() == first["key"].tolist()
    assert len(pd.read_parquet(tmp_path / "icl.parquet")) == 3 * 21
    with pytest.raises(UserError, match="no runs"):
        run([], tmp_path)


def test_select_and_by_domain(base: runs.Spec, tmp_path: Path):
    curve = runs.grid(base, shots=[2, 4], data_seed=[0, 1])
    orders = runs.grid(base, order_seed=[0, 1])
    rows = run([*curve, *orders], tmp_path)
    assert len(rows) == 5  # one run is in both
    assert runs.select(rows, orders)["order_seed"].tolist() == [0, 1]
    long = runs.by_domain(runs.select(rows, curve))
    assert len(long) == 8
    part = long[long["domain"] == "out-of-domain"].reset_index()
    assert part["accuracy"].tolist() == rows["out_of_domain_accuracy"].tolist()[:4]
    assert part["n"].eq(8).all()


def test_a_task_without_an_out_of_domain_set_has_no_such_rows(
    base: runs.Spec, lora: runs.Spec, task_folder: Path, tmp_path: Path
):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("train", "validation", "test"):
        shutil.copy(task_folder / f"{name}.csv", alone)
    both = [base, lora, replace(base, task=str(alone)), replace(lora, task=str(alone))]
    rows = run(both, tmp_path / "store")
    assert rows["out_of_domain_n"].tolist() == [8, 8, 0, 0]
    assert rows["out_of_domain_accuracy"].isna().tolist() == [False, False, True, True]
    assert rows["in_domain_accuracy"][0] == rows["in_domain_accuracy"][2]
    long = runs.by_domain(rows)
    assert long["domain"].tolist() == ["in-domain"] * 4 + ["out-of-domain"] * 2
    said = runs.predictions(rows, tmp_path / "store", ["task"])
    assert set(said[said["task"] == str(alone)]["domain"]) == {"in-domain", "content-free"}
    assert set(said[said["task"] == str(task_folder)]["domain"]) > {"out-of-domain"}


def test_what_labels_mean_is_part_of_a_run(base: runs.Spec, tmp_path: Path):
    turned = replace(
        base,
        labels="entailment: not entailment, contradiction: entailment, non-entailment: entailment",
    )
    assert runs.key_of(turned, device="cpu") != runs.key_of(base, device="cpu")
    rows = run(
        [replace(base, method="zero-shot", shots=0), replace(turned, method="zero-shot", shots=0)],
        tmp_path,
    )
    one, other = rows["in_domain_accuracy"]
    assert one + other == 1
    said = runs.predictions(rows, tmp_path)
    assert len(said) == 2 * 21


def test_costs_of_two_devices_are_not_compared(base: runs.Spec, tmp_path: Path):
    rows = run(runs.grid(base, data_seed=[0, 1]), tmp_path)
    assert runs.comparable(rows) is rows
    with pytest.raises(UserError, match="device_name is a and b"):
        runs.comparable(rows.assign(device_name=["a", "b"]))


@pytest.mark.parametrize(("change", "n", "stack"), [({}, 40, 0), (LORA, 12, 5)])
def test_resumes_after_a_kill(
    base: runs.Spec, change: dict[str, Any], n: int, stack: int, tmp_path: Path
):
    """`kill -9` in mid-grid: what was done stays as it is, the rest is done, the rows are right.

    Of runs that are trained together, those that are left are trained in another company.
    """
    store, base = tmp_path / "store", replace(base, **change)
    process = elsewhere(base, store, n, stack=stack)
    while len(stored(store)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = stored(store)
    assert 3 <= len(before) < n
    specs = runs.grid(base, data_seed=range(n))
    rows = run(specs, store)
    after = stored(store)
    assert len(after) == n
    assert {key: after[key] for key in before} == before
    whole = run(specs, tmp_path / "other")
    for column in MEASURED:
        assert np.allclose(rows[column], whole[column], atol=1e-5)


@pytest.mark.parametrize(("change", "n", "stacks"), [({}, 30, (0, 0)), (LORA, 12, (3, 4))])
def test_two_processes_share_a_grid(
    base: runs.Spec, change: dict[str, Any], n: int, stacks: Sequence[int], tmp_path: Path
):
    """Both come to the end, and each run was done once: their progress lines add up to the grid.

    Also when they train together what the other wants in another company.
    """
    store, base = tmp_path / "store", replace(base, **change)
    processes = [elsewhere(base, store, n, partners=2, stack=stack) for stack in stacks]
    done = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    counts = [text.count(f"{base.method} of") for text in done]
    assert sum(counts) == len(stored(store)) == n
    assert min(counts) > 0, "one process did it all: they never met"


def test_damaged_records_are_done_again(
    base: runs.Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    specs = runs.grid(base, data_seed=range(3))
    rows = run(specs, tmp_path)
    before = stored(tmp_path)
    record = tmp_path / "records" / f"{rows['key'][1]}.json"
    record.write_bytes(record.read_bytes()[:100])
    capsys.readouterr()
    again = run(specs, tmp_path)
    said = capsys.readouterr().err
    assert "damaged" in said
    assert said.count("icl of") == 1
    assert again[MEASURED].equals(rows[MEASURED])
    changed = {key for key, when in stored(tmp_path).items() if when != before[key]}
    assert changed == {rows["key"][1]}


def test_swapped_records_are_done_again(base: runs.Spec, tmp_path: Path):
    specs = runs.grid(base, data_seed=range(2))
    rows = run(specs, tmp_path)
    one, other = (tmp_path / "records" / key for key in rows["key"])
    for suffix in (".json", ".parquet"):
        kept = one.with_suffix(suffix).read_bytes()
        other.with_suffix(suffix).replace(one.with_suffix(suffix))
        other.with_suffix(suffix).write_bytes(kept)
    assert run(specs, tmp_path)[MEASURED].equals(rows[MEASURED])


def since(store: Path) -> str:
    """Now, by the clock of the store's file system."""
    mark = store / "mark"
    mark.touch()
    return str(mark.stat().st_mtime_ns)


def test_forced_runs_are_done_again_once_and_no_others(
    base: runs.Spec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    specs = runs.grid(base, data_seed=range(3))
    run(specs, tmp_path)
    before = stored(tmp_path)
    time.sleep(0.05)
    monkeypatch.setenv(params.SINCE, since(tmp_path))
    time.sleep(0.05)
    capsys.readouterr()
    rows = run(specs[:2], tmp_path)
    assert capsys.readouterr().err.count("icl of") == 2
    changed = {key for key, when in stored(tmp_path).items() if when != before[key]}
    assert changed == set(rows["key"])
    run(specs[:2], tmp_path)
    assert capsys.readouterr().err == ""


def test_another_process_goes_on_while_runs_are_forced(
    base: runs.Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both come to the end, whoever writes over whose records."""
    store = tmp_path / "store"
    specs = runs.grid(base, data_seed=range(20))
    run(specs, store)
    process = elsewhere(base, store, 40)
    while len(stored(store)) < 22:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    monkeypatch.setenv(params.SINCE, since(store))
    assert len(run(specs, store)) == 20
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    assert "damaged" not in said
    assert len(stored(store)) == 40


def test_results_are_put_where_llmft_run_collects_them(
    base: runs.Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(params.COLLECT, str(tmp_path / "mine"))
    run([base], tmp_path / "store", name="icl")
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {"icl.csv", "icl.parquet"}
    assert not list((tmp_path / "store").glob("icl.*"))


def test_the_book_s_own_folders_are_no_store(base: runs.Spec):
    with pytest.raises(UserError, match="the book's own"):
        runs.run_grid([base], store=ROOT / "data" / "results", device="cpu")


def test_full_disk_keeps_what_was_done(base: runs.Spec, tmp_path: Path):
    store = tmp_path / "store"
    rows = run([base], store)
    before = stored(store)
    process = elsewhere(base, store, 3, file_size=500)
    line = process.communicate(timeout=240)[1].splitlines()[-1]
    assert process.returncode != 0
    assert line.startswith("cannot write")
    assert "make room" in line
    assert stored(store) == before
    assert not list((store / "records").glob(".*"))
    assert run(runs.grid(base, data_seed=range(3)), store)["key"][0] == rows["key"][0]


# --- trained runs ------------------------------------------------------------------------------


def test_a_trained_run_says_what_it_learnt_and_what_it_cost(lora: runs.Spec, tmp_path: Path):
    rows = run([replace(lora, **change) for change in (LORA, FINE_TUNING, BITFIT, ICL)], tmp_path)
    task, model = methods.task_of(lora.task, 0), methods.model_of(lora.model, "", "cpu", "float32")
    shown = methods.examples(task, lora)
    ids = prompts.encode(model.tokenizer, lora.pattern, shown, None, 512)
    biases = sum(p.numel() for n, p in model.model.named_parameters() if n.endswith(".bias"))
    trained = rows.iloc[:3]
    assert rows["trainable_parameters"].tolist() == [
        2 * 2 * 2 * (32 + 32), model.parameters, biases, 0,
    ]  # fmt: skip
    assert rows["train_tokens"].tolist() == [3 * sum(map(len, ids))] * 3 + [0]
    assert rows["examples"].tolist() == [" ".join(shown["id"])] * 4
    assert rows["kept_update"].tolist() == [3, 3, 3, 0]
    assert rows["curve"].map(len).tolist() == [4, 4, 4, 0]
    assert trained["train_seconds"].gt(0).all()
    assert trained["train_peak_memory_mib"].gt(50).all()
    assert (trained["peak_memory_mib"] >= trained["train_peak_memory_mib"]).all()
    assert rows["train_peak_memory_mib"][3] == rows["train_seconds"][3] == 0
    assert len(set(trained["query_tokens"])) == 1, "all are asked the zero-shot prompt"
    assert len(set(trained["in_domain_nll"])) == 3


def test_a_run_can_be_asked_held_out_pairs(lora: runs.Spec, tmp_path: Path):
    rows = run([replace(lora, asked="validation")], tmp_path)
    said = runs.predictions(rows, tmp_path)
    held_out = said[said["domain"] == "validation"]
    assert set(said["domain"]) == {"validation", "content-free"}
    assert held_out["id"].tolist() == methods.task_of(lora.task, 0).validation["id"].tolist()
    logp, labels = held_out[metrics.LOGP].to_numpy(), held_out["label"].to_numpy()
    assert rows["validation_accuracy"][0] == metrics.accuracy(logp, labels)
    assert not [name for name in rows if "in_domain" in name or "out_of_domain" in name]


def test_a_task_without_validation_pairs_of_both_labels_is_one_line(
    lora: runs.Spec, tmp_path: Path
):
    folder = Path(shutil.copytree(lora.task, tmp_path / "task"))
    one = pairs(6, 2).query("label == 0").assign(label="entailment")
    one.to_csv(folder / "validation.csv", index=False)
    with pytest.raises(UserError, match=r"validation .* has only entailment pairs"):
        run([replace(lora, task=str(folder))], tmp_path / "store")


def test_runs_of_other_seeds_are_trained_together_and_no_others(lora: runs.Spec):
    seeds = runs.grid(lora, data_seed=[0, 1], order_seed=[0, 1], init_seed=[0, 1])
    other = runs.grid(replace(lora, rank=3), data_seed=[0, 1])
    shown = runs.grid(replace(lora, **ICL), data_seed=[0, 1])
    mixed = [*seeds[:3], *other, *shown, *seeds[3:]]
    assert runs._groups(mixed, 0) == [seeds, other, shown[:1], shown[1:]]
    assert runs._groups(seeds, 3) == [seeds[:3], seeds[3:6], seeds[6:]]
    assert runs._groups(mixed, 1) == [[spec] for spec in [*seeds, *other, *shown]]


@pytest.mark.parametrize(
    "change", [LORA, FINE_TUNING, LORA | QUERY, FINE_TUNING | QUERY, BITFIT | QUERY]
)
def test_the_company_changes_no_number_but_the_cost(
    base: runs.Spec, change: dict[str, Any], tmp_path: Path
):
    specs = runs.grid(replace(base, **change), data_seed=[0, 1], init_seed=[0, 1])
    together, alone = (run(specs, tmp_path / str(stack), stack=stack) for stack in (0, 1))
    assert together["key"].tolist() == alone["key"].tolist()
    assert (together["stacked"].tolist(), alone["stacked"].tolist()) == ([4] * 4, [1] * 4)
    for column in MEASURED:
        assert np.allclose(together[column], alone[column], atol=1e-4)
    assert together["in_domain_nll"].nunique() == 4
    with pytest.raises(UserError, match="stacked is 4 and 1"):
        runs.comparable(pd.concat([together, alone]))


def test_curves_are_a_row_a_run_and_measurement(lora: runs.Spec, tmp_path: Path):
    rows = run(runs.grid(lora, init_seed=[0, 1]), tmp_path, name="lora")
    curves = runs.curves(rows, ["init_seed"])
    assert curves["init_seed"].tolist() == [0] * 4 + [1] * 4
    assert curves["update"].tolist() == [0, 1, 2, 3] * 2
    assert curves["epoch"].tolist() == [0, 1, 2, 3] * 2
    assert curves["validation_loss"].tolist()[:4] == [
        p["validation_loss"] for p in rows["curve"][0]
    ]
    assert curves["train_loss"][0] == pytest.approx(curves["train_loss"][4]), "no LoRA as yet"
    frozen = pd.read_csv(tmp_path / "lora.csv", keep_default_na=False)
    assert runs.curves(frozen.assign(curve=frozen["curve"].map(json.loads)), ["init_seed"]).equals(
        curves
    )


def test_an_order_trains_on_the_same_examples_otherwise(lora: runs.Spec, tmp_path: Path):
    spec = replace(lora, shots=4)
    rows = run(runs.grid(spec, order_seed=[0, 1]), tmp_path)
    assert rows["examples"][0] == rows["examples"][1]
    assert abs(rows["in_domain_nll"][0] - rows["in_domain_nll"][1]) > 1e-5


@pytest.mark.parametrize("change", [LORA, FINE_TUNING | {"objective": "head"}])
def test_what_is_trained_is_kept_when_asked(
    base: runs.Spec, change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A run whose model is gone is done again; one whose model is there is not."""
    specs = runs.grid(replace(base, **change), init_seed=[0, 1])
    rows = run(specs, tmp_path, save_models=True)
    folders = [tmp_path / "models" / key for key in rows["key"]]
    assert sorted((tmp_path / "models").iterdir()) == sorted(folders)
    for spec, folder, key in zip(specs, folders, rows["key"], strict=True):
        assert json.loads((folder / "run.json").read_text()) == asdict(spec)
        plain = replace(base, method="zero-shot", shots=0, model=str(folder))
        said = store.answers(tmp_path, [key])
        again = runs.execute(plain, device="cpu").predictions
        assert np.allclose(said[metrics.LOGP], again[metrics.LOGP], atol=1e-5)
    shutil.rmtree(folders[1])
    before, since = stored(tmp_path), folders[0].stat().st_mtime_ns
    capsys.readouterr()
    run(specs, tmp_path)
    assert capsys.readouterr().err == ""
    run(specs, tmp_path, save_models=True)
    assert capsys.readouterr().err.count(" of ") == 1
    assert [key for key, at in stored(tmp_path).items() if at != before[key]] == [rows["key"][1]]
    assert folders[0].stat().st_mtime_ns == since
    assert (folders[1] / "run.json").exists()


def test_a_run_that_cannot_be_kept_leaves_the_model_as_it_was(
    lora: runs.Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Later runs of this process ask the same model."""
    model = methods.model_of(lora.model, "", "cpu", "float32").model
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def full(*_: object) -> None:
        raise UserError("cannot write")

    monkeypatch.setattr(store, "keep", full)
    with pytest.raises(UserError, match="cannot write") as caught:
        run(runs.grid(lora, data_seed=[0, 1]), tmp_path)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert caught.traceback  # which holds on to all that was in use where it failed


def test_two_that_claim_the_same_runs_in_other_orders_both_end(
    lora: runs.Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As two clusters with one store may."""
    specs = runs.grid(lora, data_seed=range(4))
    done: list[runs.Spec] = []
    claimed = store.claimed

    @contextmanager
    def slowly(*args: Any, **options: Any) -> Iterator[bool]:
        with claimed(*args, **options) as mine:
            time.sleep(0.05)
            yield mine

    def at_once(some: Sequence[runs.Spec], **_: object) -> Iterator[tuple[runs.Spec, runs.Result]]:
        for spec in some:
            done.append(spec)
            yield spec, runs.Result({}, pd.DataFrame({"id": []}))

    monkeypatch.setattr(store, "claimed", slowly)
    monkeypatch.setattr(methods, "execute_together", at_once)
    folder, ends = store.opened(tmp_path), []

    def finish(order: list[runs.Spec]) -> None:
        ends.append(len(runs.finish(order, folder, wait=True, device="cpu")))

    runs.key_of(lora, device="cpu")  # loads the model before either begins
    workers = [Thread(target=finish, args=(o,), daemon=True) for o in (specs, specs[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=10)
    assert ends == [4, 4], "they wait for each other"
    assert sorted(done) == specs


# --- Dask --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """What `scheduler="local"` starts, kept for several tests: its workers take long to start."""
    with runs._cluster(pytest.importorskip("distributed"), "local") as here:
        yield here.scheduler_address


@pytest.mark.parametrize("change", [{}, LORA])
def test_dask_gives_the_same_rows(
    base: runs.Spec, change: dict[str, Any], tmp_path: Path, cluster: str
):
    specs = runs.grid(replace(base, **change), data_seed=range(4))
    here = run(specs, tmp_path / "here")
    there = run(specs, tmp_path / "there", scheduler=cluster)
    assert there["key"].tolist() == here["key"].tolist()
    for column in MEASURED:
        assert np.allclose(there[column], here[column], atol=1e-5)
    assert runs.run_grid(specs, store=tmp_path / "there", device="cpu").equals(there)


def test_a_run_that_fails_on_a_worker_is_the_same_line(
    base: runs.Spec, tmp_path: Path, cluster: str
):
    with pytest.raises(UserError, match="cannot draw 100"):
        run([base, replace(base, shots=100)], tmp_path, scheduler=cluster)
    assert len(stored(tmp_path)) == 1


def test_no_scheduler_there_is_one_line(base: runs.Spec, tmp_path: Path):
    pytest.importorskip("distributed")
    with pytest.raises(UserError, match="no Dask scheduler"):
        run([base], tmp_path, scheduler="nonsense://here")


def test_key_covers_every_module_that_a_run_imports() -> None:
    """A module left out of `CODE` could change without its finished runs being done again."""
    run = {
        "cells": [
            {"cell_type": "code", "metadata": {}, "source": "from llmft.study import methods"}
        ]
    }
    imported = {
        file.removeprefix("llmft/").removesuffix(".py").replace("/", ".")
        for file in stamp.module_digests(run, ROOT)
        if not file.endswith("__init__.py")
    }
    # `hub` fetches the files of models and data, whose digests are in the key; `files` keeps what
    # was measured as it is.
    assert imported - {"nli.hub", "files"} == set(runs.CODE)


def test_what_a_grid_left_is_read_back(base: runs.Spec, lora: runs.Spec, tmp_path: Path) -> None:
    first = run([base, lora], tmp_path, name="first")
    second = run([base, replace(base, data_seed=1)], tmp_path, name="second")
    rows, answers = runs.stored([tmp_path / "first.csv", tmp_path / "second.csv"])
    assert rows["key"].tolist() == [*first["key"], second["key"].iloc[1]]
    for spec in (base, lora, replace(base, data_seed=1)):
        assert runs.select(rows, [spec])["key"].tolist() == [runs.key_of(spec, device="cpu")]
    for name in ("curve", "in_domain_accuracy", "eval_seconds", "objective", "alpha"):
        assert runs.select(rows, [lora])[name].tolist() == runs.select(first, [lora])[name].tolist()
    pd.testing.assert_frame_equal(
        runs.predictions(rows, answers, ["shots"]).sort_values(["key", "domain", "id"]),
        runs.predictions(rows, tmp_path, ["shots"]).sort_values(["key", "domain", "id"]),
        check_like=True,
    )
    with pytest.raises(UserError, match=r"the results have no run icl .* draw 7"):
        runs.select(rows, [replace(base, data_seed=7)])


def test_results_that_are_not_there_are_one_line(base: runs.Spec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv.*run the chapter none first"):
        runs.stored([tmp_path / "none.csv"])
    run([base], tmp_path, name="half")
    pd.read_parquet(tmp_path / "half.parquet").iloc[:0].to_parquet(tmp_path / "half.parquet")
    with pytest.raises(UserError, match="no answers of run"):
        runs.stored([tmp_path / "half.csv"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="curve"), "no column curve"),
        (lambda t: t.drop(columns="shots"), "no column shots"),
        (lambda t: t.drop(columns="key"), "no column key"),
        (lambda t: t.rename(columns={"method": "way"}), "no column method"),
        (lambda t: t.assign(curve="rubbish"), "Expecting value"),
        (lambda t: t.assign(curve="3"), "JSON object"),
        (lambda t: t.assign(curve="[3]"), "its curve is none"),
        (lambda t: t.assign(curve="[" * 100_000), "recursion"),
        (lambda t: t.assign(curve=None), "JSON object"),
        (lambda t: t.assign(shots="many"), "must be of type int"),
        (lambda t: t.assign(learning_rate=-1.0), "not a number from 0 up"),
        (lambda t: t.assign(method="magic"), "unknown method"),
    ],
)
def test_results_with_rubbish_are_one_line(
    base: runs.Spec, tmp_path: Path, change: Any, words: str
) -> None:
    run([base], tmp_path, name="icl")
    table = pd.read_csv(tmp_path / "icl.csv", keep_default_na=False)
    change(table).to_csv(tmp_path / "icl.csv", index=False)
    with pytest.raises(UserError, match=words) as caught:
        runs.stored([tmp_path / "icl.csv"])
    assert "run the chapter icl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answers_with_rubbish_are_one_line(base: runs.Spec, tmp_path: Path) -> None:
    run([base], tmp_path, name="icl")
    said = pd.read_parquet(tmp_path / "icl.parquet")
    said.drop(columns="logp_not").to_parquet(tmp_path / "icl.parquet")
    with pytest.raises(UserError, match=r"no column logp_not in the \.parquet"):
        runs.stored([tmp_path / "icl.csv"])
    (tmp_path / "icl.parquet").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="run the chapter icl"):
        runs.stored([tmp_path / "icl.csv"])
    (tmp_path / "icl.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="run the chapter icl"):
        runs.stored([tmp_path / "icl.csv"])


def test_time_and_memory_are_measured_by_domain(base: runs.Spec, tmp_path: Path) -> None:
    row = run([base], tmp_path).iloc[0]
    assert 0 < row["in_domain_seconds"] + row["out_of_domain_seconds"] < row["eval_seconds"]
    assert (
        row["peak_memory_mib"]
        == max(row["in_domain_peak_memory_mib"], row["out_of_domain_peak_memory_mib"])
        or row["peak_memory_mib"] > row["in_domain_peak_memory_mib"]
    )


def test_a_small_model_computes_on_one_thread(base: runs.Spec, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run([base], tmp_path).loc[0, "threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_ask_for_a_run_of_every_method(method: str) -> None:
    p = params.parse({"task": "here", "models": ["m", "n"], "context_shots": 8, "limit": 5})
    one = runs.asked_for(p, method)
    assert (one.method, one.task, one.model, one.limit) == (method, "here", "m", 5)
    assert one.shots == (0 if method == "zero-shot" else 8)
    assert runs.asked_for(p, method, data_seed=3) == replace(one, data_seed=3)


def test_each_method_has_its_own_parameters() -> None:
    p = params.parse({"learning_rate": 0.1, "lora_learning_rate": 0.2, "lora_rank": 7})
    assert runs.asked_for(p, "fine-tuning").learning_rate == 0.1
    assert (runs.asked_for(p, "lora").learning_rate, runs.asked_for(p, "lora").rank) == (0.2, 7)
    assert runs.low_rank(p)["rank"] == 7
    p = params.parse({"context": "explained", "distill_learning_rate": 0.3, "temperature": 2})
    one = runs.asked_for(p, "distillation")
    assert (one.context, one.learning_rate, one.temperature) == ("explained", 0.3, 2.0)


def test_every_query_comes_up_at_least_once() -> None:
    p = params.parse({"queries": [16, 40, 100], "distill_updates": 4, "distill_batch_size": 16})
    assert runs.asked_for(p, "distillation").queries == 40
    for queries, updates in ((16, 4), (40, 4), (64, 4), (65, 5), (100, 7)):
        assert runs.asked_for(p, "distillation", queries=queries).updates == updates
