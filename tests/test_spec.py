"""What goes together in a run's specification, and what is refused in one line."""

from dataclasses import fields, replace
from typing import Any

import pytest

from llmft import UserError
from llmft.engine.spec import ADAPTERS, OBJECTIVES, SELECTIONS, Spec

from .training import spec


@pytest.mark.parametrize("method", ["fine-tuning", *ADAPTERS, "bitfit"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_training_has_a_specification(method: str, objective: str, selection: str) -> None:
    assert method in str(spec(method, objective, selection=selection))


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        ("icl", {"shots": -2}, "shots = -2 is not a number from 0 up"),
        ("icl", {"shots": 0}, "does not go with shots = 0"),
        ("icl", {"shots": "8"}, "type int"),
        ("icl", {"shots": True}, "type int"),
        ("icl", {"method": "magic"}, "zero-shot, icl, fine-tuning, lora, .*bitfit, probe"),
        ("icl", {"method": "zero-shot"}, "does not go with shots"),
        ("icl", {"pattern": "maximal"}, "minimal, gpt-3"),
        ("icl", {"split": "train"}, "unknown split 'train': use one of test, validation"),
        ("icl", {"learning_rate": 1e-3}, "icl has no learning_rate"),
        ("icl", {"updates": 5}, "icl has no updates"),
        ("icl", {"batch_size": 5}, "icl has no batch_size"),
        ("icl", {"objective": "head"}, "icl has no objective"),
        ("icl", {"selection": "best"}, "icl has no selection"),
        ("icl", {"init_seed": 1}, "icl has no init_seed"),
        ("icl", {"rank": 2}, "icl has no rank"),
        ("icl", {"purity": 1.5}, "purity is a share of the labelled examples"),
        ("icl", {"method": "zero-shot", "shots": 0, "mixed": 0.5}, "mixed is a share of the label"),
        ("icl", {"prefix": 4}, "prefix = 4: a prefix is trained by distillation"),
        ("fine-tuning", {"shots": 0}, "does not go with shots = 0"),
        ("fine-tuning", {"learning_rate": 0.0}, "fine-tuning needs learning_rate"),
        ("fine-tuning", {"learning_rate": 1}, "type float"),
        ("fine-tuning", {"learning_rate": float("nan")}, "not a number"),
        ("fine-tuning", {"learning_rate": float("inf")}, "not a number"),
        ("fine-tuning", {"updates": 0}, "needs updates"),
        ("fine-tuning", {"batch_size": 0}, "needs batch_size"),
        ("fine-tuning", {"objective": ""}, "needs objective"),
        ("fine-tuning", {"objective": "words"}, "one of label words, vocabulary, query, head"),
        ("fine-tuning", {"selection": ""}, "needs selection"),
        ("fine-tuning", {"selection": "first"}, "one of last, best"),
        ("fine-tuning", {"rank": 2}, "fine-tuning has no rank"),
        ("bitfit", {"targets": "q_proj"}, "bitfit has no targets"),
        ("bitfit", {"alpha": 1.0}, "bitfit has no alpha"),
        ("lora", {"rank": 0}, "lora needs rank"),
        ("lora", {"alpha": 0.0}, "needs alpha"),
        ("lora", {"targets": ""}, "needs targets"),
        ("rslora", {"rank": 0}, "rslora needs rank"),
        ("dora", {"alpha": 0.0}, "needs alpha"),
        ("vera", {"alpha": 1.0}, "vera has no alpha"),
        ("vera", {"targets": ""}, "vera needs targets"),
        ("ia3", {"rank": 2}, "ia3 has no rank"),
        ("ia3", {"targets": ""}, "ia3 needs targets"),
        ("probe", {"rank": 2}, "probe has no rank"),
        ("probe", {"objective": "query"}, "probe learns a new head alone: use objective 'head'"),
    ],
)
def test_a_wrong_specification_is_one_line(base: str, change: dict[str, Any], words: str) -> None:
    right = Spec() if base == "icl" else spec(base, "head" if base == "probe" else "label words")
    with pytest.raises(UserError, match=words) as error:
        replace(right, **change)
    assert "\n" not in str(error.value)


def test_a_run_names_its_purity_only_where_it_has_one() -> None:
    assert Spec(method="zero-shot", shots=0).record().keys().isdisjoint({"purity", "mixed"})
    assert Spec(purity=0.75).record()["purity"] == 0.75


def test_a_run_is_told_from_its_neighbours() -> None:
    base = spec("lora")
    several = [replace(base, **{seed: 3}) for seed in ("data_seed", "order_seed", "init_seed")]
    several += [base, replace(base, rank=4), replace(base, learning_rate=0.1)]
    assert len(set(map(str, several))) == len(several)


OWN = "{premise} So: {hypothesis} ?"


def test_one_run_has_one_spelling_of_its_label_words() -> None:
    assert Spec(verbalizer=" Yes,No") == Spec(verbalizer="Yes, No") == Spec()
    assert Spec(pattern="eval-harness", verbalizer="True,False").verbalizer == ""
    own = Spec(pattern=OWN, verbalizer="True ,False")
    assert own.verbalizer == "True, False"
    assert own.wording.verbalizer == ("True", "False")
    assert str(own).endswith("label words True, False")
    assert "\n" not in str(Spec(pattern="{premise}\n{hypothesis}:"))


@pytest.mark.parametrize(
    "change", [{"pattern": "{premise}"}, {"pattern": OWN + " "}, {"verbalizer": "Yes"}]
)
def test_a_wrong_wording_is_refused_before_anything_is_done(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"pattern|verbalizer") as error:
        Spec(**change)
    assert "\n" not in str(error.value)


def test_a_later_field_at_its_default_is_in_no_record() -> None:
    """Else every run of before would have another key."""
    later = [field for field in fields(Spec) if "later" in field.metadata]
    record = Spec().record()
    assert not {field.name for field in later} & set(record)
    assert Spec(**record) == Spec()
