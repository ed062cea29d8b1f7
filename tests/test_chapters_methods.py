"""What the chapters on distillation and on the comparison compute, on frames counted by hand."""

import inspect
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.nli import tasks
from llmft.params import Study
from llmft.report import sections
from llmft.report.chapters import comparison, context_distillation
from llmft.study import grids, metrics
from llmft.study.results import Results


STUDIES = [
    params.study("smoke", {"without": []}),
    params.study("smoke", {"distill_objective": "vocabulary", "without": []}).model_copy(
        update={"study": "two"}
    ),
]


def runs_of(study: Study, wanted: grids.Grid) -> Results:
    """A grid's runs; a run's key is what it is, so that two studies share those that are alike.

    Of its four pairs a run is right on the first ones: two, or three with the text term.
    """
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    groups = {}
    for name, specs in wanted.items():
        keys = [f"{s.method} {s.objective} {s.rounds} {s.shots} {s.data_seed}" for s in specs]
        groups[name] = {study.study: keys}
        for spec, key in zip(specs, keys, strict=True):
            if any(row["key"] == key for row in rows):
                continue
            draw = "" if spec.method == "zero-shot" else f"{spec.data_seed}-0-0"
            about: dict[str, Any] = {
                "study": study.study,
                "key": key,
                "method": spec.method,
                "draw": draw,
            }
            about |= {"shots": spec.shots, "rounds": spec.rounds, "split": "test"}
            with_text = spec.objective == "query"
            rows.append(about | {"text_nll": 1.0 if with_text else 2.0 + spec.data_seed})
            for i, label in enumerate((0, 1, 0, 1)):
                right = i < 2 + with_text
                p = 0.8 if (label == 0) == right else 0.2
                logp = dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
                pair = {"domain": "in-domain", "id": str(i), "label": label}
                answers.append(about | pair | logp)
    return Results(pd.DataFrame(rows), pd.DataFrame(answers), groups)


@pytest.fixture(scope="module")
def both() -> Results:
    """What two studies have, one of which calls the main run what is an ablation of the other's."""
    parts = [runs_of(s, grids.comparison(s) | grids.text_term(s)) for s in STUDIES]
    groups = {
        name: {k: v for part in parts for k, v in part.groups[name].items()}
        for name in parts[0].groups
    }
    rows, answers = (pd.concat([getattr(p, f) for p in parts]) for f in ("rows", "predictions"))
    return Results(rows, answers, groups)


def test_methods_stand_in_their_order_and_no_study_has_anothers(both: Results) -> None:
    found = comparison.side_by_side(both, STUDIES)
    for study in STUDIES:
        own = found.rows[found.rows["study"] == study.study]
        assert list(dict.fromkeys(own["method"])) == list(comparison.METHODS)
        assert set(found.predictions["method"]) == set(comparison.METHODS)
        of_method = own[own["method"] == "distillation"]
        assert len(of_method) == study.repeats
        assert of_method["key"].str.contains(study.distill_objective).all()
    assert not found.rows.duplicated(["study", "method", "key"]).any()
    assert not found.predictions.duplicated(["study", "method", "key", "id"]).any()


def test_the_text_terms_effect_is_paired_and_has_the_losses_draw_by_draw(both: Results) -> None:
    text = sections.text_term(both, STUDIES)
    losses, changes = sections.term_effects(text, sections.scored(text), STUDIES[1])
    assert list(losses) == [
        (method, term)
        for method in ("full fine-tuning", "LoRA", "distillation")
        for term in ("without", "with")
    ]
    assert losses["LoRA", "without"].tolist() == [2.0, 3.0]
    assert losses["LoRA", "with"].tolist() == [1.0, 1.0]
    assert {name: gap.mean for name, gap in changes.items()} == dict.fromkeys(changes, 0.25)
    assert sections.start_nll(both, STUDIES[0]) == 2.0


def test_only_methods_with_the_contexts_number_of_examples_are_compared(both: Results) -> None:
    study = STUDIES[0]
    answers = sections.scored(comparison.side_by_side(both, STUDIES))
    found = comparison.places(answers, study, "in-domain")
    assert list(found) == list(comparison.METHODS)
    assert [at["shots"] for at in found.values()] == [0, *[study.context_shots] * 5]
    lacking = answers[(answers["method"] != "ICL") | (answers["shots"] != study.context_shots)]
    assert "ICL" not in comparison.places(lacking, study, "in-domain")
    same = comparison.at_size(answers, STUDIES)
    assert set(same["shots"]) == {0, study.context_shots}


def costs(**changes: Any) -> list[dict[str, Any]]:
    """The chapter's lines of what distilling costs, with these columns of students changed."""
    study = STUDIES[0].model_copy(update={"queries": [4, 8]})
    names = context_distillation.names(study)
    one: dict[str, Any] = {
        "study": study.study,
        "parameters": 100,
        "trainable_parameters": 100,
        "prefix_tokens": 2,
        "query_tokens": 8.0,
        "train_tokens": 30,
        "teacher_tokens": 40.0,
        "teacher_seconds": 1.0,
        "train_seconds": 3.0,
        "eval_seconds": 2.0,
        "in_domain_n": 5,
        "out_of_domain_n": 2,
        "device_name": "a",
        "threads": 1,
        "clock": "processor",
        "memory_kind": "resident",
    }
    teacher = {"prefix_tokens": 92, "eval_seconds": 4.0}
    students = context_distillation.of_students(study)
    rows = [
        one
        | {"method": name}
        | (teacher if name == context_distillation.teacher(study) else {})
        | (changes if name in students else {})
        for name in names.values()
        for _ in range(2)
    ]
    return [*inspect.unwrap(context_distillation._costs)(pd.DataFrame(rows), study)]


def test_distilling_pays_after_what_an_answer_saves() -> None:
    lines = costs()
    assert [line["student"] for line in lines] == [
        "4 queries",
        "8 queries",
        f"8 queries, LoRA of rank {STUDIES[0].lora_rank}",
    ]
    for line in lines:
        assert line["teacher (s)"] == 1
        assert line["training (s)"] == 2
        assert line["tokens an answer, with context"] == 100
        assert line["without"] == 10
        # To adapt: 100 weights x (6 x 30 + 2 x 40); an answer saves 2 x 100 x 90.
        assert line["pays after (operations)"] == pytest.approx(26_000 / 18_000)
        assert line["pays after (seconds)"] == "15"  # 3 s, of 2 s saved on 10 queries
        assert line["runs"] == 2


def test_a_student_that_answers_no_faster_never_pays_in_seconds() -> None:
    assert {line["pays after (seconds)"] for line in costs(eval_seconds=4.0)} == {"never"}


def test_nulls_of_distillation_say_what_would_have_been_shown() -> None:
    study = params.study("smoke", {"without": [], "rounds": 2})
    rng, answers = np.random.default_rng(0), []
    titles = [*context_distillation.names(study).values()]
    for name in titles:
        for draw, domain, i in itertools.product(range(6), tasks.DOMAINS, range(40)):
            about = {"method": name, "domain": domain, "id": str(i), "label": i % 2}
            right = float(rng.random() < 0.5)
            answers.append(about | {"draw": f"{draw}-0-0", "correct": right, "auc": right})
    main = pd.DataFrame(answers)
    lines = [*inspect.unwrap(context_distillation.summary)(main, study)]
    [outside] = [line for line in lines if line.startswith("Out-of-domain")]
    assert outside.count("would have been shown with 80 % power") == 1
    measured = ["held_out_kl", "first_kl", "first_agreement", "teacher_agreement"]
    rows = pd.DataFrame(
        [
            {"method": name} | dict.fromkeys(measured, 0.1 * draw)
            for name in titles
            for draw in range(6)
        ]
    )
    students = Results(rows, main, {})
    text = inspect.unwrap(context_distillation.recursion)(students, main, study)
    change = sections.difference(
        main,
        {"domain": "in-domain", "method": f"recursive, round {study.rounds}"},
        {"domain": "in-domain", "method": context_distillation.student(study)},
    )
    assert f"changes by {change} (paired){sections.unresolved(change)}." in text
    assert sections.unresolved(change)
