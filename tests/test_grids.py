"""Which runs a chapter shows: valid specifications for every study of the book."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmft import UserError, params
from llmft.engine.spec import METHODS, Spec
from llmft.nli import prompts
from llmft.study import grids


STUDIES = ("pocket", "smoke", "opt-125m", "opt-350m")

ALL = grids.CHAPTERS | {"comparison": grids.comparison}


def of(name: str, **changes: Any) -> params.Study:
    return params.study(name, changes)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("chapter", sorted(ALL))
def test_every_chapter_has_runs_of_every_study(chapter: str, name: str) -> None:
    study = of(name)
    found = ALL[chapter](study)
    assert all(found.values()), "a group without runs"
    for group, specs in found.items():
        assert len(set(specs)) == len(specs), f"{group}: a run twice"
        for spec in specs:  # which are valid: a wrong one is refused when it is built
            assert (spec.task, spec.model, spec.limit) == (study.task, study.model, study.limit)
            reported = study.seed + study.repeats
            if spec.split == "test":
                assert spec.data_seed < reported
            else:
                assert spec.data_seed >= study.seed + 1_000, "a search sees a reported draw"
    if "search" in found:
        assert {spec.split for spec in found["search"]} == {"validation"}
        assert study.repeats < 3 or len({spec.data_seed for spec in found["search"]}) >= 2


@pytest.mark.parametrize("name", STUDIES)
def test_no_name_stands_for_two_things(name: str) -> None:
    """A name that came up twice in a chapter would lose its first list of runs."""
    study = of(name)
    assert [*grids.icl(study)] == ["zero-shot", "ICL", "orders", "patterns"]
    assert len(grids.few_shot(study)) == len(grids.lora(study)) == 8
    found = grids.context_distillation(study)
    assert len(found) == 7 + len(study.queries) + (study.rounds - 1) + 2 * 3
    assert len(grids.text_term(study)) == 2 * 3


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("changes", [{}, {"rounds": 1}, {"context": "explained"}, {"repeats": 1}])
def test_what_the_comparison_shows_the_chapters_do(name: str, changes: dict[str, Any]) -> None:
    study = of(name, **changes)
    made = {
        spec for grid in grids.CHAPTERS.values() for specs in grid(study).values() for spec in specs
    }
    shown = {spec for specs in grids.comparison(study).values() for spec in specs}
    assert not shown - made


def test_the_runs_of_the_published_icl_chapter() -> None:
    study = of("pocket")
    draws, middle = range(10), 8
    assert grids.icl(study) == {
        "zero-shot": [Spec(method="zero-shot", shots=0)],
        "ICL": [Spec(shots=k, data_seed=n) for k in (2, 4, 8, 16, 32) for n in draws],
        "orders": [Spec(shots=middle, data_seed=n, order_seed=o) for n in draws for o in (1, 2)],
        "patterns": [
            Spec(shots=middle, data_seed=n, pattern=other)
            for other in prompts.PATTERNS
            for n in draws
            if other != "minimal"
        ],
    }


def test_product_is_every_combination_and_refuses_unknown_names() -> None:
    specs = grids.product(Spec(), shots=[2, 4], data_seed=range(3))
    assert [(s.shots, s.data_seed) for s in specs] == [
        (2, 0), (2, 1), (2, 2), (4, 0), (4, 1), (4, 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match="no 'shot'"):
        grids.product(Spec(), shot=[2])


@pytest.mark.parametrize("method", METHODS)
def test_a_study_describes_a_run_of_every_method(method: str) -> None:
    study = of("pocket", model="m", labels="e: entailment", verbalizer="True, False", limit=5)
    study = study.model_copy(update={"task": "here", "context_shots": 8})
    one = grids.spec(study, method)
    assert (one.method, one.task, one.model, one.limit) == (method, "here", "m", 5)
    assert (one.labels, one.verbalizer) == ("e: entailment", "True, False")
    assert one.shots == (0 if method == "zero-shot" else 8)
    assert grids.spec(study, method, data_seed=3) == replace(one, data_seed=3)


def test_each_method_has_its_own_parameters() -> None:
    study = of("pocket", learning_rate=0.1, lora_learning_rate=0.2, lora_rank=7)
    assert grids.spec(study, "fine-tuning").learning_rate == 0.1
    one = grids.spec(study, "lora")
    assert (one.learning_rate, one.rank, one.alpha) == (0.2, 7, study.lora_alpha)
    assert grids.low_rank(study)["rank"] == 7
    study = of("pocket", context="explained", distill_learning_rate=0.3, temperature=2)
    one = grids.spec(study, "distillation")
    assert (one.context, one.learning_rate, one.temperature) == ("explained", 0.3, 2.0)


def test_every_query_comes_up_at_least_once() -> None:
    study = of("pocket", queries=[16, 40, 100], distill_updates=4, distill_batch_size=16)
    assert grids.spec(study, "distillation").queries == 40
    for queries, updates in ((16, 4), (40, 4), (64, 4), (65, 5), (100, 7)):
        assert grids.spec(study, "distillation", queries=queries).updates == updates


@pytest.mark.parametrize(
    ("choose", "sizes", "chosen"),
    [
        (grids.middle, [2], 2),
        (grids.middle, [2, 4], 4),
        (grids.middle, [2, 4, 8, 16, 32], 8),
        (grids.upper, [2], 2),
        (grids.upper, [2, 4], 4),
        (grids.upper, [2, 4, 8], 8),
        (grids.upper, [2, 4, 8, 16, 32], 16),
    ],
)
def test_sizes_between(choose: Callable[[list[int]], int], sizes: list[int], chosen: int) -> None:
    assert choose(sizes) == chosen
