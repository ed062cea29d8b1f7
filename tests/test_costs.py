"""What runs take: counts that can be made by hand, and the chapters' own grids."""

from dataclasses import asdict, replace
from typing import Any

import pandas as pd
import pytest
import transformers

from llmft import UserError, params
from llmft.engine import learner
from llmft.engine.spec import Spec
from llmft.report import costs, sections
from llmft.study import grids

from .conftest import SHARED


SMALL, LARGE = "facebook/opt-125m", "facebook/opt-350m"
TUNED = grids.spec(params.study("pocket"), "fine-tuning", model=SMALL)


# which runs


def test_a_run_of_two_chapters_is_the_first_ones() -> None:
    smoke = params.study("smoke")
    every = grids.every(smoke)
    assert [*every] == [*grids.CHAPTERS]
    specs = [spec for own in every.values() for spec in own]
    assert len(specs) == len(set(specs))
    shared = set(every["few-shot"]) & {spec for own in grids.lora(smoke).values() for spec in own}
    assert {spec.method for spec in shared} == {"fine-tuning"}  # on the same draws
    assert not shared & set(every["lora"])
    assert set(specs) == {
        s for f in grids.CHAPTERS.values() for own in f(smoke).values() for s in own
    }


@pytest.mark.parametrize("name", ["opt-125m", "opt-350m"])
def test_a_large_study_can_be_counted_without_its_model(name: str) -> None:
    study = params.study(name)
    specs = [spec for own in grids.every(study).values() for spec in own]
    assert {spec.model for spec in specs} == {study.model}
    result = costs.count(costs.predict(specs, costs.Texts(44, 23, *costs.MNLI_HANS)))
    assert (result["flops"] > 0).all()
    wide = result[result["targets"] == learner.ALL_LAYERS]  # LoRA on every layer: OPT's own
    narrow = result[(result["method"] == "lora") & (result["targets"] == study.lora_targets)]
    assert wide["trainable_parameters"].min() > narrow["trainable_parameters"].max()


# what they take


@pytest.mark.parametrize(("name", "weights"), [(SMALL, 125_239_296), (LARGE, 331_196_416)])
def test_the_outline_of_opt_has_its_published_weights(name: str, weights: int) -> None:
    shape = costs.outline(name)
    assert shape.parameters == weights
    published = SHARED / "opt" / name.rpartition("/")[2] / "config.json"
    if published.is_file():
        own = shape.model.config.to_dict()
        config = transformers.OPTConfig.from_json_file(str(published)).to_dict()
        keys = [k for k in config if "size" in k or "num" in k or "dim" in k or "norm" in k]
        assert {k: own[k] for k in keys} == {k: config[k] for k in keys}


def test_another_model_has_no_outline() -> None:
    with pytest.raises(UserError, match="someone/else"):
        costs.outline("someone/else")


def test_weights_that_change() -> None:
    shape = costs.outline(SMALL)
    lora: dict[str, Any] = {"method": "lora", "rank": 8, "alpha": 16.0, "targets": "q_proj, v_proj"}
    assert costs.trainable(replace(TUNED, **lora), shape) == 8 * (768 + 768) * 12 * 2
    wide = lora | {"rank": 1, "targets": "fc1"}
    assert costs.trainable(replace(TUNED, **wide), shape) == (768 + 3072) * 12
    assert costs.trainable(TUNED, shape) == shape.parameters
    # Of each layer: four of attention, two of the feed-forward part, two norms; and the last norm.
    biases = 12 * (4 * 768 + 3072 + 768 + 2 * 768) + 768
    assert costs.trainable(replace(TUNED, method="bitfit"), shape) == biases
    rows = 12 * (4 * 768 + 3072 + 768)  # rows of weights in all linear layers
    both = 12 * (4 * 2 * 768 + 2 * (3072 + 768))
    everywhere = lora | {"rank": 2, "targets": learner.ALL_LAYERS}
    assert costs.trainable(replace(TUNED, **everywhere | {"method": "rslora"}), shape) == 2 * both
    dora = replace(TUNED, **everywhere | {"method": "dora"})
    assert costs.trainable(dora, shape) == 2 * both + rows
    vera = replace(dora, method="vera", alpha=0.0)
    assert costs.trainable(vera, shape) == 2 * 12 * 6 + rows
    ia3 = replace(vera, method="ia3", rank=0, targets=learner.KEYS_VALUES_HIDDEN)
    assert costs.trainable(ia3, shape) == 12 * (2 * 768 + 3072)
    assert costs.trainable(replace(TUNED, method="probe", objective="head"), shape) == 2 * 768
    assert costs.trainable(Spec(method="zero-shot", shots=0), shape) == 0
    student = replace(grids.spec(params.study("pocket"), "distillation", model=SMALL), prefix=16)
    assert costs.trainable(student, shape) == (16 - 1) * 12 * 2 * 768


def test_a_count_made_by_hand() -> None:
    texts, n = costs.Texts(10, 6, pairs=4, pairs_out=8), 125_239_296
    specs = [
        Spec(model=SMALL, shots=2),
        replace(TUNED, shots=4, updates=3, batch_size=8),
        replace(TUNED, shots=4, updates=3, batch_size=2, split="validation"),
    ]
    icl, tuning, search = costs.count(costs.predict(specs, texts)).to_dict("records")
    # Each of two domains and the content-free set reads the demonstrations once.
    mean = (4 * 10 + 8 * 6) / 12
    assert icl["score"] == pytest.approx(2 * n * (3 * (1 + 2 * 12) + 15 * mean))
    assert icl["flops"] == icl["score"]
    assert tuning["adapt"] == pytest.approx(6 * n * 3 * 4 * 11)
    assert tuning["flops"] == pytest.approx(tuning["adapt"] + 2 * n * (3 * 1 + 15 * mean))
    assert search["adapt"] == pytest.approx(tuning["adapt"] / 2)
    assert search["score"] == pytest.approx(2 * n * (2 * 1 + (texts.validation + 3) * 10))


def test_a_teacher_reads_its_context_once_and_every_query() -> None:
    spec = grids.spec(params.study("pocket"), "distillation", model=SMALL, queries=5, shots=2)
    row = costs.predict([spec], costs.Texts(10, 6, 4)).iloc[0]
    assert row["teacher_tokens"] == 1 + 2 * 12 + 5 * 10
    assert row["train_tokens"] == spec.updates * 5 * 11
    gib = 5 * 10 * 50_272 * 4 / 2**30
    assert costs.teacher_targets(spec, costs.Texts(10, 6, 4), 50_272) == pytest.approx(gib)
    answer = replace(spec, objective="vocabulary")
    assert costs.teacher_targets(answer, costs.Texts(10, 6, 4), 50_272) == pytest.approx(gib / 10)


def test_a_round_is_counted_once() -> None:
    base = grids.spec(params.study("pocket"), "distillation")
    rows = pd.DataFrame(
        [
            asdict(replace(base, rounds=rounds, data_seed=seed))
            | {"train_seconds": seconds, "train_tokens": 10 * rounds, "teacher_tokens": 3 * rounds}
            | {"examples_per_second": 50.0, "eval_seconds": 0.1}
            for rounds, seed, seconds in ((3, 0, 9.0), (1, 0, 2.0), (2, 0, 5.0), (1, 1, 4.0))
        ]
    )
    result = sections.own_costs(rows)
    assert result["train_seconds"].tolist() == [4.0, 2.0, 3.0, 4.0]
    assert result["train_tokens"].tolist() == [10] * 4
    assert result["teacher_tokens"].tolist() == [3] * 4
    assert result["answers"].tolist() == [5] * 4


def test_hours_and_memory() -> None:
    assert costs.hours(3.6e15, tflops=10, utilisation=0.1) == pytest.approx(1)
    assert costs.memory(2**30) == 4
    assert costs.memory(2**30, 2**29) == 12


def test_ranges_and_versions() -> None:
    assert costs.spans([3, 1, 2, 1, 7, 1001, 1000]) == "1–3, 7, 1000–1001"
    rows = pd.DataFrame(
        {"versions": ["python 3.11.7, torch 2.13.0+cpu", "python 3.12.1, torch 2.13.0+cpu"]}
    )
    assert costs.versions(rows) == {"python": "3.11.7, 3.12.1", "torch": "2.13.0+cpu"}
