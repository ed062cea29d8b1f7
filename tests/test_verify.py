"""Published results are held against the code: some of their runs are done again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import UserError, params, provenance
from llmft.engine.spec import Spec
from llmft.study import grids, runs, verify

from .small import LORA


@pytest.fixture
def study(base: Spec, tmp_path: Path) -> params.Study:
    given = {"task": base.task, "model": base.model, "store": str(tmp_path / "store")}
    small = {"context_shots": 2, "shots": [2, 4], "limit": 0, "study": "tiny"}
    rates = {"lora_learning_rate": LORA["learning_rate"], "updates": 3}
    return params.study("smoke", given | small | rates)


@pytest.fixture
def published(study: params.Study, tmp_path: Path) -> Path:
    """Three runs of in-context learning and two of LoRA."""

    def grid(study: params.Study) -> grids.Grid:
        seeds = range(2)
        return {
            "ICL": grids.product(grids.spec(study, "icl"), data_seed=range(3)),
            "LoRA": grids.product(grids.spec(study, "lora"), data_seed=seeds),
        }

    runs.run(grid, [study], "toy")
    return tmp_path / "store" / "toy.csv"


def alter(file: Path, change: Any) -> None:
    path = file.with_suffix(".parquet")
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def moved(answers: pd.DataFrame, by: float, share: float = 1.0) -> pd.DataFrame:
    """The answers of every run, the first `share` of each moved by so many nats."""
    place = answers.groupby("key").cumcount() / answers.groupby("key")["id"].transform("size")
    logp = answers["logp_entailment"].where(place >= share, answers["logp_entailment"] - by)
    return answers.assign(logp_entailment=logp.astype(np.float32))


def test_what_was_published_is_what_is_measured(
    published: Path, study: params.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    record = verify.verify([published], [study], sample=10, seed=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(record["runs"]) == 5
    assert record["draws"] == [{"seed": 0, "runs": 5, "of": 5}]
    assert lines[0].startswith("llmft: 1/5 ")
    assert all(
        one["same"] and one["largest"] < 1e-5 and not one["changed"] for one in record["runs"]
    )
    assert record["code"] == provenance.code_digest()
    assert record["protocol"] == runs.PROTOCOL
    assert set(runs.PACKAGES) < set(record["versions"])
    assert len({one["device"] for one in record["runs"]}) == 1
    path = verify.write(record, tmp_path)
    assert path == tmp_path / "data" / "results" / "verified.json"
    assert json.loads(path.read_text()) == record


def test_what_the_same_code_was_verified_with_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data" / "results").mkdir(parents=True)
    record = {"code": "a", "protocol": 1, "versions": {"torch": "2"}, "date": "today"}

    def written(code: str, seed: int, **found: float) -> tuple[list[int], dict[str, float]]:
        runs = [{"key": key, "largest": largest} for key, largest in found.items()]
        new = record | {"code": code, "draws": [{"seed": seed}], "runs": runs}
        kept = json.loads(verify.write(new, tmp_path).read_text())
        seeds = [draw["seed"] for draw in kept["draws"]]
        return seeds, {one["key"]: one["largest"] for one in kept["runs"]}

    assert written("a", 0, x=0.1, y=0.2) == ([0], {"x": 0.1, "y": 0.2})
    assert written("a", 1, y=0.3, z=0.4) == ([0, 1], {"x": 0.1, "y": 0.3, "z": 0.4})
    assert written("b", 2, z=0.5) == ([2], {"z": 0.5})


def test_a_sample_is_drawn_by_its_seed(published: Path, study: params.Study) -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        record = verify.verify([published], [study], sample=2, seed=seed)
        return tuple(one["key"] for one in record["runs"])

    assert drawn(0) == drawn(0) != drawn(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: moved(a, 0.01), "is .* and by its published answers .*: run its chapter again"),
        (lambda a: a.assign(label=1 - a["label"].clip(lower=0)), "its published in_domain_acc"),
        (lambda a: a[a["id"] != "test-3"], "by its published answers|answer other queries"),
    ],
    ids=["answers", "labels", "a query gone"],
)
def test_altered_answers_are_refused(
    published: Path, study: params.Study, change: Any, words: str
) -> None:
    alter(published, change)
    with pytest.raises(UserError, match=words) as error:
        verify.verify([published], [study], sample=1, seed=0)
    assert "\n" not in str(error.value)


def test_altered_rows_are_refused(published: Path, study: params.Study) -> None:
    rows = pd.read_csv(published)
    rows.assign(in_domain_ece=rows["in_domain_ece"] + 0.01).to_csv(published, index=False)
    with pytest.raises(UserError, match="its published in_domain_ece is"):
        verify.verify([published], [study], sample=1, seed=0)


def test_code_that_measures_something_else_is_found(
    published: Path,
    study: params.Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of the sample are done, and the first that differs is named."""
    monkeypatch.setattr("llmft.engine.scoring.score", wrong(verify.methods.scoring.score))
    capsys.readouterr()
    with pytest.raises(UserError, match=r"5 of 5 runs differ .* raise PROTOCOL") as error:
        verify.verify([published], [study], sample=5, seed=0)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err.count("largest difference") == 5


def wrong(score: Any) -> Any:
    """Label words in each other's place."""
    return lambda *args, **options: score(*args, **options).flip(1)


def test_results_of_other_weights_or_protocol_are_not_verified(
    published: Path, study: params.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PROTOCOL", 2)
    with pytest.raises(UserError, match="other data, weights or another PROTOCOL than are here"):
        verify.verify([published], [study], sample=1, seed=0)
    with pytest.raises(UserError, match="no published run is of these studies"):
        verify.verify([published], [params.study("smoke")], sample=1, seed=0)


@pytest.mark.parametrize(
    ("method", "largest", "changed", "same"),
    [
        ("icl", 9e-4, 0.0, True),
        ("zero-shot", 2e-3, 0.0, False),
        ("lora", 0.5, 0.019, True),
        ("distillation", 1e-6, 0.021, False),
    ],
)
def test_a_method_that_trains_may_change_some_answers(
    method: str, largest: float, changed: float, same: bool
) -> None:
    assert verify._same(method, {"largest": largest, "changed": changed}) is same


def test_two_runs_are_compared_query_by_query() -> None:
    def answers(*logp: float, ids: str = "abc", labels: Any = 0) -> pd.DataFrame:
        p = np.exp(np.array(logp))
        frame = pd.DataFrame({"domain": "in-domain", "id": list(ids), "label": labels})
        return frame.assign(logp_entailment=np.array(logp), logp_not=np.log1p(-p))

    one = answers(-0.1, -0.2, -3.0)
    shuffled = answers(-3.0, -0.1, -0.2, ids="cab")
    assert verify.compared(one, shuffled) == {"largest": 0.0, "changed": 0.0}
    found = verify.compared(one, answers(-0.1, -0.2, -0.1))
    assert found["largest"] == pytest.approx(2.9)
    assert found["changed"] == pytest.approx(1 / 3)
    for other in (answers(-0.1, -0.2, ids="ab"), answers(-0.1, -0.2, -3.0, ids="abd")):
        with pytest.raises(UserError, match="answer other queries"):
            verify.compared(one, other)
    with pytest.raises(UserError, match="other labels"):
        verify.compared(one, answers(-0.1, -0.2, -3.0, labels=[0, 1, 0]))
