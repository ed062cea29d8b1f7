"""Grids on a tiny model and task: keys, resuming after a kill, sharing, damage, full disk."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from llmft import ROOT, UserError, files, hardware, params, provenance
from llmft.book import stamp
from llmft.engine import models, scoring
from llmft.engine.spec import Spec
from llmft.nli import prompts, tasks
from llmft.study import grids, methods, metrics, results, runs, store
from llmft.study.methods import Result

from .small import (
    BITFIT,
    DISTILLATION,
    FINE_TUNING,
    LORA,
    MEASURED,
    QUERIES,
    ZERO_SHOT,
    run,
    stored,
)


QUERY = {"objective": "query"}
OWN = {"pattern": "{hypothesis}\nfollows from {premise} ?", "verbalizer": "True, False"}
ICL = {field.name: field.default for field in fields(Spec) if field.name in LORA}

SCRIPT = """
import json, sys, time
from pathlib import Path
from llmft import UserError
from llmft.engine.spec import Spec
from llmft.study import grids, methods, runs
bases, store, n, partners, workers = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
specs = [s for b in json.loads(bases) for s in grids.product(Spec(**b), data_seed=range(n))]
methods.model_of(specs[0].model, "", "cpu", "float32")
ready = Path(store).parent
(ready / f"ready-{id(ready)}-{time.time_ns()}").touch()
while len(list(ready.glob("ready-*"))) < partners:
    time.sleep(0.01)
try:
    runs.run_grid(specs, store=store, device="cpu", workers=workers)
except UserError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


Elsewhere = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Starts a grid, `n` draws of each run, in another process; `script` is a file of its own."""
    processes = []

    def start(
        bases: Sequence[Spec],
        store: Path,
        n: int,
        partners: int = 1,
        workers: int = 1,
        script: Path | None = None,
    ) -> subprocess.Popen[str]:
        if script:
            script.write_text(SCRIPT)
        program = [str(script)] if script else ["-c", SCRIPT]
        words = [json.dumps([*map(asdict, bases)]), str(store), *map(str, (n, partners, workers))]
        processes.append(
            subprocess.Popen(
                [sys.executable, *program, *words],
                cwd=ROOT,
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for(process: subprocess.Popen[str], store: Path, n: int) -> None:
    """Until it has stored `n` runs."""
    while len(stored(store)) < n:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


LONG = 900
"""Seconds that another process may take at most, on a machine that does much else."""


def execute(spec: Spec) -> Result:
    return methods.execute(spec, device="cpu")


# --- a run -------------------------------------------------------------------------------------


def test_a_row_is_what_its_predictions_say(base: Spec, tmp_path: Path):
    found = run([base], tmp_path)
    [row], answers = found.rows.to_dict("records"), found.predictions
    for domain, stem, n in (("in-domain", "in_domain", 10), ("out-of-domain", "out_of_domain", 8)):
        part = answers[answers["domain"] == domain]
        logp, labels = part[metrics.LOGP].to_numpy(), part["label"].to_numpy()
        assert len(part) == row[f"{stem}_n"] == n
        assert row[f"{stem}_accuracy"] == metrics.accuracy(logp, labels)
        assert row[f"{stem}_nll"] == pytest.approx(metrics.nll(logp, labels), abs=1e-6)
    assert (answers["domain"] == "content-free").sum() == len(prompts.CONTENT_FREE)
    assert answers[metrics.LOGP].dtypes.eq("float32").all()
    assert row["examples_per_second"] == pytest.approx(QUERIES / row["eval_seconds"])
    assert 0 < row["in_domain_seconds"] + row["out_of_domain_seconds"] < row["eval_seconds"]
    by_domain = [row["in_domain_peak_memory_mib"], row["out_of_domain_peak_memory_mib"]]
    assert row["peak_memory_mib"] >= max(by_domain) > 50
    assert row["memory_kind"] in ("resident", "resident since start")
    assert len(row["examples"].split()) == 2


def test_a_row_says_what_computed_it(
    base: Spec, lora: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")  # TF32
    half = [replace(spec, dtype="bfloat16") for spec in (base, lora)]
    rows = run([base, lora, *half], tmp_path).rows
    assert rows["train_dtype"].tolist() == ["", "float32", "", "bfloat16"]
    assert rows["device"].eq("cpu").all()
    assert rows["float32_matmul"].eq("high").all()
    assert rows["protocol"].eq(runs.PROTOCOL).all()
    assert rows["versions"].str.match(r"python 3\.").all()
    for package in ("torch", "transformers", "tokenizers", "peft", "numpy"):
        assert rows["versions"].str.contains(f"{package} {version(package)}", regex=False).all()


def test_a_small_model_computes_on_one_thread(base: Spec, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run([base], tmp_path).rows.loc[0, "threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("words", [{}, OWN], ids=["usual", "own"])
@pytest.mark.parametrize(
    "change",
    [{}, {"shots": 4, "data_seed": 3}, ZERO_SHOT, FINE_TUNING, LORA | QUERY, BITFIT, DISTILLATION],
)
def test_a_run_scores_the_prompts_one_would_write_by_hand(
    base: Spec, change: dict[str, Any], words: dict[str, str]
):
    """Of every method, in its usual words and in one's own; nothing is learnt at this rate."""
    little = {"learning_rate": 1e-12} if "updates" in change else {}
    spec = replace(base, **change | little | words)
    template, labels = ("{p} {h} ?", ["Yes", "No"])
    if words:
        template, labels = ("{h}\nfollows from {p} ?", ["True", "False"])
    found = execute(spec)
    assert found.row["verbalizer"] == words.get("verbalizer", "")
    model, task = methods.model_of(base.model, "", "cpu", "float32"), methods.task_of(base.task, 0)
    head = ""
    if spec.method == "icl":
        shown = methods.examples(task, spec)
        head = "".join(
            f"{template.format(p=p, h=h)} {labels[label]}\n\n"
            for p, h, label in zip(shown.premise, shown.hypothesis, shown.label, strict=True)
        )
    pool = task.in_domain
    texts = [
        head + template.format(p=p, h=h) for p, h in zip(pool.premise, pool.hypothesis, strict=True)
    ]
    tokens = [model.tokenizer(f" {word}", add_special_tokens=False).input_ids for word in labels]
    assert [len(token) for token in tokens] == [1, 1]
    ids = model.tokenizer(texts)["input_ids"]
    plain = scoring.score_plainly(model.model, ids, [token[0] for token in tokens])
    answers = found.predictions.query("domain == 'in-domain'")
    assert answers["id"].tolist() == pool["id"].tolist()
    assert np.allclose(answers[metrics.LOGP].to_numpy(), plain, atol=1e-4)


@pytest.mark.parametrize("change", [FINE_TUNING, FINE_TUNING | QUERY, DISTILLATION])
def test_training_learns_in_ones_own_words(base: Spec, change: dict[str, Any]):
    """What it learns from is in the pattern, and so is what it then says."""
    learnt = {"learning_rate": 3e-3, "updates": 12}
    usual, own = (execute(replace(base, **change | learnt | words)) for words in ({}, OWN))
    first, *_, last = own.row["curve"]
    assert last["train_loss"] < first["train_loss"] - 0.05
    assert first["train_loss"] != pytest.approx(usual.row["curve"][0]["train_loss"], abs=1e-4)


def test_a_task_in_words_that_the_model_does_not_know_is_one_line(
    base: Spec, word_tokenizer: Any, tmp_path: Path
):
    """And with a model that spells them, as is advised, it runs (F27)."""
    folder = Path(shutil.copytree(base.model, tmp_path / "model"))
    for path in folder.glob("token*"):
        path.unlink()
    word_tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"\d\d% of the tokens of task .* unknown .* byte-level"):
        execute(replace(base, model=str(folder)))
    assert execute(base).row["in_domain_n"] == 10


def test_an_order_shows_the_same_demonstrations_otherwise(base: Spec):
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
    base: Spec, change: dict[str, Any], words: str, tmp_path: Path
):
    spec = replace(base, **change)
    with pytest.raises(UserError, match=words):
        run([base, spec], tmp_path)
    # The run before it is kept, where it was not known at once.
    assert len(stored(tmp_path)) == ("unknown" not in words)


# --- keys --------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "labels": ({}, "non-entailment: not entailment"),
    "method": ({}, "bitfit"),
    "pattern": ({}, OWN["pattern"]),
    "verbalizer": ({}, "True, False"),
    "shots": ({}, 4),
    "data_seed": ({}, 1),
    "order_seed": ({}, 1),
    "limit": ({}, 4),
    "dtype": ({}, "bfloat16"),
    "split": ({}, "validation"),
    "learning_rate": (LORA, 0.1),
    "updates": (LORA, 4),
    "batch_size": (LORA, 3),
    "objective": (LORA, "head"),
    "selection": (LORA, "best"),
    "init_seed": (LORA, 1),
    "rank": (LORA, 3),
    "alpha": (LORA, 3.0),
    "targets": (LORA, "q_proj"),
    "context": (DISTILLATION, "explained"),
    "queries": (DISTILLATION, 5),
    "rounds": (DISTILLATION, 2),
    "temperature": (DISTILLATION, 2.0),
    "divergence": (DISTILLATION, "reverse"),
    "teacher": (DISTILLATION, "first"),
    "fresh": (DISTILLATION, 1),
    "context_share": (DISTILLATION, 0.5),
    "scoring": (DISTILLATION, "context"),
    "prefix": (DISTILLATION | {"rank": 0, "alpha": 0.0, "targets": ""}, 4),
    "purity": ({}, 0.75),
    "mixed": ({}, 0.5),
}
"""For each field of a run, the change of the base that has it, and another value."""

WHERE = ("task", "model")


FIELDS = {field.name for field in fields(Spec)} - {"task", "rows", "model", "revision"}
"""The others: digests stand for these."""


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_is_in_the_key(base: Spec, name: str):
    change, value = CHANGES[name]
    before = replace(base, **change)
    other = {"method": FINE_TUNING | {"method": value}}.get(name, {name: value})
    assert runs.key_of(replace(before, **other)) != runs.key_of(before)


def test_the_same_task_and_model_elsewhere_are_the_same_runs(
    base: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Their results are told by the names that they have where they are read."""
    copies = {name: shutil.copytree(getattr(base, name), tmp_path / name) for name in WHERE}
    there = replace(base, **{name: str(copy) for name, copy in copies.items()})
    run([there], tmp_path / "store")
    for copy in copies.values():
        shutil.rmtree(copy)
    capsys.readouterr()
    found = run([base], tmp_path / "store", study="here")
    assert capsys.readouterr().err == ""
    [row] = found.rows.to_dict("records")
    assert {name: row[name] for name in WHERE} == {name: getattr(base, name) for name in WHERE}
    chosen = results.select(found, {"here": {"ICL": [base]}})
    assert len(chosen.predictions) == QUERIES


def test_a_revision_is_in_the_key_and_the_pinned_one_is_the_usual() -> None:
    pinned = models.REVISIONS["facebook/opt-125m"]
    usual = Spec(model="facebook/opt-125m")
    assert runs.key_of(usual) == runs.key_of(replace(usual, revision=pinned))
    assert runs.key_of(usual) != runs.key_of(replace(usual, revision="0" * 40))


def test_a_key_changes_with_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of PROTOCOL 1: who changes them throws away all that was ever stored.

    If that is meant (measured numbers change), raise PROTOCOL and write the new keys here.
    """
    monkeypatch.setattr(models, "identity", lambda *_: ("", "weights"))
    empty = pd.DataFrame()
    task = tasks.Task("a task", empty, empty, empty, empty, "data")
    monkeypatch.setattr(methods, "task_of", lambda *_: task)
    assert runs.key_of(Spec()) == "f5676cc440ac5bdd95be2551"
    assert runs.key_of(Spec(**DISTILLATION)) == "1310ca62719ba7375937d444"
    monkeypatch.setattr(runs, "PROTOCOL", 2)
    assert runs.key_of(Spec()) == "937e7b2a96152177d6165e12"


def test_the_key_follows_weights_and_data_while_the_process_lives(base: Spec, tmp_path: Path):
    """And so does what is measured: no model or task of before is taken for that of now."""
    model = Path(shutil.copytree(base.model, tmp_path / "model"))
    task = Path(shutil.copytree(base.task, tmp_path / "task"))
    spec = replace(base, model=str(model), task=str(task))
    folder = tmp_path / "store"
    found = [run([spec], folder).rows.iloc[0]]

    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 0x20  # a weight of another size
    weights.write_bytes(content)
    found.append(run([spec], folder).rows.iloc[0])

    with (task / "test.csv").open("a") as file:
        file.write("The doctor ran .,The doctor ran .,0,77\nThe actor ran .,The actor sat .,2,78\n")
    found.append(run([spec], folder).rows.iloc[0])
    assert len({row["key"] for row in found}) == len(stored(folder)) == 3
    assert found[0]["in_domain_nll"] != found[1]["in_domain_nll"]
    assert [row["in_domain_n"] for row in found] == [10, 10, 12]


def test_what_is_stored_is_had_without_loading_a_model(
    base: Spec, lora: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nor is anything written, so a store that may only be read will do."""
    before = run([base, lora], tmp_path)
    methods._model.cache_clear()

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    for module, name in ((models, "load"), (store, "claim"), (files, "write")):
        monkeypatch.setattr(module, name, never)
    after = run([base, lora], tmp_path, workers=0)
    pd.testing.assert_frame_equal(after.rows, before.rows)
    pd.testing.assert_frame_equal(after.predictions, before.predictions)


def test_key_covers_every_module_that_a_run_imports() -> None:
    """`llmft check` would not notice a change in a module that `MEASURES` lacks."""
    run = {
        "cells": [
            {"cell_type": "code", "metadata": {}, "source": "from llmft.study import methods"}
        ]
    }
    imported = {
        file.removeprefix("llmft/").removesuffix(".py")
        for file in stamp.module_digests(run, ROOT)
        if not file.endswith("__init__.py")
    }
    # `hub` fetches the files of models and data, whose digests are in the key; `files` keeps what
    # was measured as it is; `params` says where a folder is.
    assert imported - {"nli/hub", "files", "params"} == set(provenance.MEASURES)


# --- grids -------------------------------------------------------------------------------------


def test_a_grid_is_done_once_and_returned_in_order(
    base: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    specs = grids.product(base, data_seed=[2, 0, 1])
    first = run([*specs, specs[0]], tmp_path).rows
    assert first["data_seed"].tolist() == [2, 0, 1]
    assert capsys.readouterr().err.count("draw") == 3
    before = stored(tmp_path)
    again = run(specs[::-1], tmp_path).rows
    assert capsys.readouterr().err == ""
    assert stored(tmp_path) == before
    pd.testing.assert_frame_equal(again.iloc[::-1].reset_index(drop=True), first)
    for nothing in ([], {}, {"ICL": []}):
        with pytest.raises(UserError, match="no runs"):
            run(nothing, tmp_path)


def test_two_spellings_of_one_run_are_one(
    base: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As an empty revision and the pinned one."""
    monkeypatch.setattr(models, "identity", lambda *_: ("pinned", "digest"))
    both = [base, replace(base, revision="pinned")]
    found = run({"one": both[:1], "other": both[1:]}, tmp_path)
    assert len(found.rows) == len(stored(tmp_path)) == 1
    assert len(found.predictions) == QUERIES
    assert found.part("other").rows["key"].tolist() == found.rows["key"].tolist()


def study(base: Spec, **changes: Any) -> params.Study:
    given = {"task": base.task, "model": base.model, "limit": 0, "device": "cpu", "workers": 1}
    return params.study("smoke", given | {"context_shots": 2} | changes)


def test_a_chapters_runs_are_done_for_each_study(base: Spec, tmp_path: Path):
    """Also for two that share runs, and use them for different things."""
    folder = tmp_path / "store"
    one, other = (
        study(base, store=str(folder), study=name, shots=shots)
        for name, shots in (("one", [2, 4]), ("other", [4, 8]))
    )

    def grid(study: params.Study) -> grids.Grid:
        at = grids.product(grids.spec(study, "icl"), shots=study.shots)
        return {"all": at, "middle": at[len(study.shots) // 2 :], "none": []}

    found = runs.run(grid, [one, other], "icl")
    assert len(stored(folder)) == 3
    assert list(zip(found.rows["study"], found.rows["shots"], strict=True)) == [
        ("one", 2), ("one", 4), ("other", 4), ("other", 8),
    ]  # fmt: skip
    middle = found.part("middle")
    assert middle.rows[["study", "shots"]].to_numpy().tolist() == [["one", 4], ["other", 8]]
    assert middle.predictions.groupby("study", sort=False)["shots"].unique().map(list).tolist() == [
        [4], [8],
    ]  # fmt: skip
    assert found.part("none", "all").rows["group"].tolist() == ["all"] * 4
    assert len(pd.read_parquet(folder / "icl.parquet")) == 3 * QUERIES  # the shared one is once
    read = results.select(
        results.read([folder / "icl.csv"]), {"one": grid(one), "other": grid(other)}
    )
    for name in ("all", "middle"):
        columns = [*results.ANSWER, "study", "shots", "draw", "subcase"]
        pd.testing.assert_frame_equal(
            read.part(name).predictions[columns], found.part(name).predictions[columns]
        )


def test_results_are_put_where_llmft_run_collects_them(
    base: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(params.COLLECT, str(tmp_path / "mine"))
    where = study(base, store=str(tmp_path / "store"))
    runs.run(lambda study: {"ICL": [grids.spec(study, "icl")]}, [where], "icl")
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {"icl.csv", "icl.parquet"}
    assert not list((tmp_path / "store").glob("icl.*"))


def test_the_book_s_own_folders_are_no_store(base: Spec):
    with pytest.raises(UserError, match="the book's own"):
        run([base], ROOT / "data" / "results")


def test_a_task_without_an_out_of_domain_set_has_no_such_rows(
    base: Spec, lora: Spec, small_task: Path, tmp_path: Path
):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("train", "validation", "test"):
        shutil.copy(small_task / f"{name}.csv", alone)
    both = [base, lora, replace(base, task=str(alone)), replace(lora, task=str(alone))]
    found = run(both, tmp_path / "store")
    rows = found.rows
    assert rows["out_of_domain_n"].tolist() == [8, 8, 0, 0]
    assert rows["out_of_domain_accuracy"].isna().tolist() == [False, False, True, True]
    assert rows["in_domain_accuracy"][0] == rows["in_domain_accuracy"][2]
    long = results.by_domain(rows)
    assert long["domain"].tolist() == ["in-domain"] * 4 + ["out-of-domain"] * 2
    mine = found.predictions["key"].isin(rows.loc[rows["task"] == str(alone), "key"])
    assert set(found.predictions[mine]["domain"]) == {"in-domain", "content-free"}
    assert set(found.predictions[~mine]["domain"]) > {"out-of-domain"}


def test_what_labels_mean_is_part_of_a_run(base: Spec, tmp_path: Path):
    turned = "entailment: not entailment, contradiction: entailment, non-entailment: entailment"
    plain = replace(base, **ZERO_SHOT)
    found = run([plain, replace(plain, labels=turned)], tmp_path)
    one, other = found.rows["in_domain_accuracy"]
    assert one + other == 1
    assert len(found.predictions) == 2 * QUERIES


# --- faults ------------------------------------------------------------------------------------


def test_resumes_after_a_kill(elsewhere: Elsewhere, base: Spec, tmp_path: Path):
    """`kill -9` in mid-grid: what was done stays as it is, the rest is done, the rows are right."""
    store, bases, n = tmp_path / "store", [base, replace(base, **LORA)], 8
    process = elsewhere(bases, store, n)
    wait_for(process, store, n + 3)
    process.kill()
    process.communicate()
    before = stored(store)
    assert n + 3 <= len(before) < 2 * n
    specs = [spec for one in bases for spec in grids.product(one, data_seed=range(n))]
    rows = run(specs, store).rows
    after = stored(store)
    assert len(after) == 2 * n
    assert {key: after[key] for key in before} == before
    whole = run(specs, tmp_path / "other").rows
    for column in MEASURED:
        assert np.allclose(rows[column], whole[column], atol=1e-5)


def test_two_processes_share_a_grid(elsewhere: Elsewhere, base: Spec, tmp_path: Path):
    """Both come to the end, and each run was done once: their progress lines add up to the grid."""
    store, bases, n = tmp_path / "store", [base, replace(base, **LORA)], 10
    processes = [elsewhere(bases, store, n, partners=2) for _ in range(2)]
    done = [process.communicate(timeout=LONG)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    counts = [[text.count(f"{one.method} of") for text in done] for one in bases]
    assert [sum(count) for count in counts] == [n, n]
    assert len(stored(store)) == 2 * n


def test_damaged_and_swapped_records_are_done_again(
    base: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    specs = grids.product(base, data_seed=range(4))
    rows = run(specs, tmp_path).rows
    before = stored(tmp_path)
    good, cut, one, other = (tmp_path / "records" / key for key in rows["key"])
    cut.with_suffix(".json").write_bytes(cut.with_suffix(".json").read_bytes()[:100])
    for suffix in (".json", ".parquet"):
        kept = one.with_suffix(suffix).read_bytes()
        other.with_suffix(suffix).replace(one.with_suffix(suffix))
        other.with_suffix(suffix).write_bytes(kept)
    capsys.readouterr()
    again = run(specs, tmp_path).rows
    lines = capsys.readouterr().err
    assert "damaged" in lines
    assert lines.count("icl of") == 3
    assert np.allclose(again[MEASURED], rows[MEASURED], atol=1e-5)
    assert stored(tmp_path)[good.name] == before[good.name]


def test_a_finished_run_is_read_once(base: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    specs = grids.product(base, data_seed=range(3))
    rows = run(specs, tmp_path).rows
    keys, read = [], store.read

    def counted(folder: Path, key: str, *, since: int = 0) -> dict[str, Any] | None:
        keys.append(key)
        return read(folder, key, since=since)

    monkeypatch.setattr(store, "read", counted)
    assert run(specs, tmp_path).rows.equals(rows)
    assert keys == rows["key"].tolist()


def since(store: Path) -> str:
    """Now, by the clock of the store's file system."""
    mark = store / "mark"
    mark.touch()
    return str(mark.stat().st_mtime_ns)


def test_forced_runs_are_done_again_once_and_no_others(
    base: Spec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    specs = grids.product(base, data_seed=range(3))
    run(specs, tmp_path)
    before = stored(tmp_path)
    time.sleep(0.05)
    monkeypatch.setenv(params.SINCE, since(tmp_path))
    time.sleep(0.05)
    capsys.readouterr()
    rows = run(specs[:2], tmp_path).rows
    assert capsys.readouterr().err.count("icl of") == 2
    changed = {key for key, when in stored(tmp_path).items() if when != before[key]}
    assert changed == set(rows["key"])
    run(specs[:2], tmp_path)
    assert capsys.readouterr().err == ""


def test_another_process_goes_on_while_runs_are_forced(
    elsewhere: Elsewhere, base: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both come to the end, whoever writes over whose records."""
    store = tmp_path / "store"
    specs = grids.product(base, data_seed=range(10))
    run(specs, store)
    process = elsewhere([base], store, 20)
    wait_for(process, store, 12)
    monkeypatch.setenv(params.SINCE, since(store))
    assert len(run(specs, store).rows) == 10
    lines = process.communicate(timeout=LONG)[1]
    assert process.returncode == 0, lines
    assert "damaged" not in lines
    assert len(stored(store)) == 20


def test_full_disk_keeps_what_was_done(base: Spec, tmp_path: Path):
    rows = run([base], tmp_path).rows
    before = stored(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(UserError, match=r"^cannot write [^\n]*make room[^\n]*$"):
            run(grids.product(base, data_seed=range(3)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stored(tmp_path) == before
    assert not list((tmp_path / "records").glob(".*"))
    again = run(grids.product(base, data_seed=range(3)), tmp_path).rows
    assert again["key"][0] == rows["key"][0]


# --- several processes -------------------------------------------------------------------------


def test_workers_give_the_same_rows_and_predictions(tmp_path: Path) -> None:
    """On the pocket world, each method; the rounds of a distillation are one piece."""
    small = params.study("smoke")
    distilled = grids.spec(small, "distillation")
    grid = {
        "ICL": grids.product(grids.spec(small, "icl"), data_seed=[0, 1]),
        "LoRA": grids.product(grids.spec(small, "lora"), init_seed=[0, 1]),
        "distillation": grids.product(distilled, rounds=[1, 2]),
    }
    one, two = (run(grid, tmp_path / str(n), workers=n) for n in (1, 2))
    assert one.rows["key"].tolist() == two.rows["key"].tolist()
    for column in [*MEASURED, "curve", "train_tokens", "threads", "examples"]:
        pd.testing.assert_series_equal(two.rows[column], one.rows[column])
    pd.testing.assert_frame_equal(two.predictions, one.predictions)
    assert one.groups == two.groups


def children(process: subprocess.Popen[str]) -> list[int]:
    """The workers of a process: what it started, but what multiprocessing keeps beside them."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found}
    return [pid for pid, command in commands.items() if b"spawn_main" in command]


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_an_interrupt_while_workers_start_is_one_line(
    elsewhere: Elsewhere, base: Spec, tmp_path: Path
) -> None:
    process = elsewhere([base], tmp_path / "store", 400, workers=2, script=tmp_path / "script.py")
    end = time.monotonic() + LONG
    while len(children(process)) < 2:
        assert time.monotonic() < end, "no workers"
        time.sleep(0.01)
    workers = children(process)
    process.send_signal(signal.SIGINT)
    lines = process.communicate(timeout=LONG)[1]
    assert process.returncode != 0
    assert "Traceback" not in lines
    while not all(map(gone, workers)):
        assert time.monotonic() < end, "workers go on alone"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (lambda process: process.kill(), ""),
        (lambda process: process.send_signal(signal.SIGINT), "interrupted"),
        (lambda process: os.kill(children(process)[0], signal.SIGKILL), "a worker died.*set work"),
    ],
    ids=["kill", "Ctrl-C", "a worker"],
)
def test_workers_end_with_the_one_that_started_them(
    elsewhere: Elsewhere, base: Spec, fault: Callable[[Any], None], line: str, tmp_path: Path
):
    """From a script as a person writes it, which workers must not run again."""
    store = tmp_path / "store"
    process = elsewhere([base], store, 400, workers=2, script=tmp_path / "script.py")
    wait_for(process, store, 3)
    workers = children(process)
    assert len(workers) == 2
    fault(process)
    lines = process.communicate(timeout=LONG)[1]
    assert process.returncode != 0
    assert "Traceback" not in lines
    last = [text for text in lines.splitlines() if "resource_tracker" not in text][-1]
    assert pd.Series([last]).str.contains(line).all()
    end = time.monotonic() + 60
    while not all(map(gone, workers)):
        assert time.monotonic() < end, "workers go on alone"
        time.sleep(0.05)
    kept = stored(store)
    assert 3 <= len(kept) < 400
    assert len(list(tmp_path.glob("ready-*"))) == 1, "workers ran the script again"
    some = grids.product(base, data_seed=range(3))
    run(some, store)
    assert {key: at for key, at in stored(store).items() if key in kept} == kept


def test_a_run_that_fails_in_a_worker_is_the_same_line(base: Spec, tmp_path: Path):
    specs = [replace(base, shots=100), *grids.product(base, data_seed=range(2))]
    with pytest.raises(UserError, match=r"^run icl of .*cannot draw 100") as caught:
        run(specs, tmp_path, workers=2)
    assert "\n" not in str(caught.value)
    assert len(run(specs[1:], tmp_path).rows) == 2


def test_workers_are_as_many_as_cores_memory_and_work(base: Spec, monkeypatch: pytest.MonkeyPatch):
    pieces = [[spec] for spec in grids.product(base, data_seed=range(100))]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)

    def free(gib: int) -> None:
        memory = SimpleNamespace(available=gib * 2**30)
        monkeypatch.setattr(runs.psutil, "virtual_memory", lambda: memory)

    free(100)
    assert runs._workers(pieces, "cpu") == 8
    assert runs._workers(pieces[:11], "cpu") == 2
    assert runs._workers(pieces[:1], "cpu") == 1
    monkeypatch.setattr(models, "weight", lambda *_: 2**30)
    assert runs._workers(pieces, "cpu") == 8
    monkeypatch.setattr(models, "weight", lambda *_: 2**31)
    assert runs._workers(pieces, "cpu") == 4
    free(1)
    assert runs._workers(pieces, "cpu") == 1
    monkeypatch.setattr(models, "choose_device", torch.device)
    assert runs._workers(pieces, "cuda") == 1


def test_the_rounds_of_a_distillation_are_one_piece(base: Spec):
    first, *later = grids.product(replace(base, **DISTILLATION), rounds=[1, 2, 3])
    other = replace(first, data_seed=1)
    shown = grids.product(base, data_seed=[0, 1])
    pieces = methods.recursions([*later, other, *shown, first])
    assert pieces == [[*later, first], [other], shown[:1], shown[1:]]


# --- trained runs ------------------------------------------------------------------------------


def test_a_trained_run_says_what_it_learnt_and_what_it_cost(lora: Spec, tmp_path: Path):
    found = run([replace(lora, **change) for change in (LORA, FINE_TUNING, BITFIT, ICL)], tmp_path)
    rows = found.rows
    task, model = methods.task_of(lora.task, 0), methods.model_of(lora.model, "", "cpu", "float32")
    shown = methods.examples(task, lora)
    ids = prompts.encode(model.tokenizer, lora.wording, shown, None, 512)
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


def test_a_run_can_be_scored_on_held_out_pairs(lora: Spec, tmp_path: Path):
    found = run([replace(lora, split="validation")], tmp_path)
    rows, answers = found.rows, found.predictions
    held_out = answers[answers["domain"] == "validation"]
    assert set(answers["domain"]) == {"validation", "content-free"}
    assert held_out["id"].tolist() == methods.task_of(lora.task, 0).validation["id"].tolist()
    logp, labels = held_out[metrics.LOGP].to_numpy(), held_out["label"].to_numpy()
    assert rows["validation_accuracy"][0] == metrics.accuracy(logp, labels)
    assert not [name for name in rows if "in_domain" in name or "out_of_domain" in name]


def test_an_order_trains_on_the_same_examples_otherwise(lora: Spec, tmp_path: Path):
    spec = replace(lora, shots=4)
    rows = run(grids.product(spec, order_seed=[0, 1]), tmp_path).rows
    assert rows["examples"][0] == rows["examples"][1]
    assert abs(rows["in_domain_nll"][0] - rows["in_domain_nll"][1]) > 1e-5


@pytest.mark.parametrize("change", [LORA, FINE_TUNING | {"objective": "head"}])
def test_what_is_trained_is_kept_when_asked(
    base: Spec, change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A run whose model is gone is done again; one whose model is there is not."""
    specs = grids.product(replace(base, **change), init_seed=[0, 1])
    rows = run(specs, tmp_path, save_models=True).rows
    folders = [tmp_path / "models" / key for key in rows["key"]]
    assert sorted((tmp_path / "models").iterdir()) == sorted(folders)
    for spec, folder, key in zip(specs, folders, rows["key"], strict=True):
        assert json.loads((folder / "run.json").read_text()) == spec.record()
        plain = replace(base, method="zero-shot", shots=0, model=str(folder))
        answers = store.answers(tmp_path, [key])
        again = execute(plain).predictions
        assert np.allclose(answers[metrics.LOGP], again[metrics.LOGP], atol=1e-5)
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
    lora: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Later runs of this process ask the same model."""
    model = methods.model_of(lora.model, "", "cpu", "float32").model
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def full(*_: object) -> None:
        raise UserError("cannot write")

    monkeypatch.setattr(store, "keep", full)
    with pytest.raises(UserError, match="cannot write") as caught:
        run(grids.product(lora, data_seed=[0, 1]), tmp_path)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert caught.traceback  # which holds on to all that was in use where it failed


def test_two_that_claim_the_same_runs_in_other_orders_both_end(
    lora: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As two machines with one store may."""
    specs = grids.product(lora, data_seed=range(4))
    done: list[Spec] = []
    claimed = store.claim

    @contextmanager
    def slowly(*args: Any, **options: Any) -> Iterator[bool]:
        with claimed(*args, **options) as mine:
            time.sleep(0.05)
            yield mine

    def at_once(some: Sequence[Spec], **_: object) -> Iterator[tuple[Spec, Result]]:
        for spec in some:
            done.append(spec)
            yield spec, Result({}, pd.DataFrame({"id": []}))

    monkeypatch.setattr(store, "claim", slowly)
    monkeypatch.setattr(methods, "execute_all", at_once)
    folder, ends = store.prepare(tmp_path), []

    def finish(order: list[Spec]) -> None:
        how: dict[str, Any] = {"device": "cpu", "token_budget": 0, "save_models": False, "since": 0}
        ends.append(len(runs.finish(order, folder=folder, wait=True, **how)))

    runs.key_of(lora)  # reads the task before either begins
    workers = [Thread(target=finish, args=(o,), daemon=True) for o in (specs, specs[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=10)
    assert ends == [4, 4], "they wait for each other"
    assert sorted(done) == specs
