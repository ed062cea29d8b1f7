"""Which runs a chapter shows: valid specifications for every study of the book."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmft import ROOT, UserError, params
from llmft.engine.spec import METHODS, Spec
from llmft.nli import prompts
from llmft.study import grids


STUDIES = ("pocket", "smoke", "opt-125m", "opt-350m", "smollm2")

ALL = grids.CHAPTERS | {"comparison": grids.comparison}


def of(name: str, **changes: Any) -> params.Study:
    return params.study(name, changes)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("chapter", sorted(ALL))
def test_every_chapter_has_runs_of_every_study(chapter: str, name: str) -> None:
    study = of(name)
    found = ALL[chapter](study)
    task = "pocket-rules" if chapter == "rules" and not study.rows else study.task
    limit = grids.with_fewer_pairs(study).limit if chapter == "budgets" else study.limit
    assert all(found.values()), "a group without runs"
    for group, specs in found.items():
        assert len(set(specs)) == len(specs), f"{group}: a run twice"
        for spec in specs:  # which are valid: a wrong one is refused when it is built
            assert (spec.task, spec.limit) == (task, limit)
            assert spec.model in (grids.CHECKPOINTS if chapter == "checkpoints" else [study.model])
            reported = study.seed + study.repeats
            if "search" in group:
                assert spec.data_seed >= study.seed + 1_000, "a search sees a reported draw"
            else:
                assert spec.data_seed < reported
            assert (spec.split == "validation") == ("search" in group or "validation, " in group)
    if "search" in found:
        drawn = len({spec.data_seed for spec in found["search"]})
        most = 2 if chapter == "context-distillation" else study.search_draws
        assert drawn == min(most, study.search_draws, study.repeats)


def test_two_chapters_show_the_same_runs_that_do_not_learn() -> None:
    study = of("pocket")
    slow = grids.not_learning(study)
    assert grids.lora(study)["not learning"] == grids.bugs(study)["not learning"] == slow
    assert {(one.method, one.rank, one.learning_rate) for one in slow} == {("lora", 4, 1e-5)}
    assert [one.data_seed for one in slow] == list(grids.few(study))


@pytest.mark.parametrize("name", STUDIES[:-1])
def test_no_name_stands_for_two_things(name: str) -> None:
    """A name that came up twice in a chapter would lose its first list of runs."""
    study = of(name, without=["placebo, distillation"] if name.startswith("opt") else [])
    ends = ["validation, 0 shots", f"validation, {study.shots[-1]} shots", "orders", "patterns"]
    assert [*grids.icl(study)][:2] == ["zero-shot", "ICL"]
    assert [name for name in grids.icl(study) if name in ends] == ends
    assert len(grids.few_shot(study)) == len(grids.lora(study)) == 8
    found, placebos = (
        grids.context_distillation(study),
        2 - ("placebo, distillation" in study.without),
    )
    assert len(found) == 7 + len(study.queries) + (study.rounds - 1) + 2 * 3 + placebos
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
    draws, few, middle = range(10), range(5), 8
    curve = [Spec(shots=k, data_seed=n) for k in (2, 4, 8, 16, 32) for n in draws]
    start = Spec(method="zero-shot", shots=0)
    assert grids.icl(study) == {
        "zero-shot": [start],
        "ICL": curve,
        "validation, 0 shots": [replace(start, split="validation")],
        **{
            f"validation, {k} shots": [
                replace(spec, split="validation") for spec in curve if spec.shots == k
            ]
            for k in (2, 4, 8, 16, 32)
        },
        "orders": [Spec(shots=middle, data_seed=n, order_seed=o) for n in few for o in (1, 2)],
        "patterns": [
            Spec(shots=middle, data_seed=n, pattern=other)
            for other in prompts.PATTERNS
            for n in few
            if other != "minimal"
        ],
    }


def test_large_samples_have_half_of_the_draws_and_enough_passes() -> None:
    study = of("pocket", train_shots=[16, 128, 1024], half_from=1024, epochs=2, updates=32)
    study = study.model_copy(update={"batch_size": 16})
    found = grids.curve(study, "fine-tuning", study.train_shots)
    sizes = [spec.shots for spec in found]
    assert [sizes.count(size) for size in study.train_shots] == [10, 10, 5]
    assert {(spec.shots, spec.updates) for spec in found} == {(16, 32), (128, 32), (1024, 128)}
    assert grids.curve(study, "icl", [2])[0].updates == 0


def test_many_queries_have_half_of_the_draws_in_every_round() -> None:
    study = of("pocket", queries=[16, 256], rounds=2).model_copy(update={"half_from": 256})
    found = grids.context_distillation(study)
    groups = ("distillation, 16 queries", "distillation, 256 queries", "round 2", "ICL")
    assert [len(found[name]) for name in groups] == [10, 5, 5, 10]
    assert set(grids.comparison(study)["distillation"]) <= set(found["distillation, 256 queries"])


def test_the_first_page_says_what_was_measured() -> None:
    """Its numbers are typed: they are those of the study and of its rows."""
    page = (ROOT / "index.qmd").read_text(encoding="utf-8")
    study, rows = of("smollm2"), pd.read_csv(ROOT / "data" / "mnli-hans" / "rows.csv")
    tested = {name: own["size"].min() for name, own in rows.groupby("set")}
    few, many = study.train_shots[0], study.train_shots[-1]
    for text in (
        f"{study.shots[0]} to {study.shots[-1]} as solved examples",
        f"{few} to {many:,} as training data",
        f"{tested['in-domain']} other pairs of MultiNLI",
        f"{tested['out-of-domain']} pairs of HANS",
    ):
        assert text in page
    assert (len(grids.draws(study, few)), len(grids.draws(study, many))) == (10, 5)
    assert "were drawn ten times, five times where training takes longest" in page


def test_the_readme_gives_the_computed_answer() -> None:
    answer = (ROOT / "data/results/comparison-answer.md").read_text("utf-8").strip("*\n")
    assert f"> {answer}\n" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("limit", "there", "asked"), [(0, 0, 0), (0, 8, 8), (6, 0, 6), (6, 8, 6)])
def test_a_budget_is_asked_the_fewer_pairs(limit: int, there: int, asked: int) -> None:
    study = grids.with_fewer_pairs(of("pocket", limit=limit, budget_limit=there))
    assert study.limit == asked == grids.with_fewer_pairs(study).limit


def test_another_divergence_is_tried_at_the_published_rate_alone() -> None:
    study = of("pocket")
    found = grids.recursion(study)
    for name, changes in grids.VARIANTS.items():
        specs = found[f"recursion, {name}"]
        draws = {
            rate: {spec.data_seed for spec in specs if spec.learning_rate == rate}
            for rate in sorted({spec.learning_rate for spec in specs})
        }
        assert max(draws) == study.distill_learning_rate
        assert [*map(len, draws.values())] == ([5] if "divergence" in changes else [10, 5])
    published = found["recursion, as published, slow"]
    assert {*found["recursion by rate, all weights"]} & {*published}
    assert {spec.data_seed for spec in published} == {*range(10)}


def test_variants_are_compared_at_the_size_nearest_to_the_study_s() -> None:
    for sizes, nearest in (([2, 32, 128], 32), ([8, 16], 16), ([16, 64], 16), ([128], 128)):
        assert grids.side(of("pocket", train_shots=sizes)) == nearest


def test_a_study_leaves_groups_out_of_every_grid() -> None:
    left = ["orders", "*, * the text term", "distillation"]
    study = of("pocket", without=left)
    grids.check(study)
    assert [*grids.icl(study)][-2:] == ["validation, 32 shots", "patterns"]
    assert not grids.text_term(study)
    assert "recursive distillation" in grids.comparison(study)
    assert "distillation" not in grids.comparison(study)
    assert "distillation, 16 queries" in grids.context_distillation(study)
    grids.check(of("pocket", model="some/other", without=["checkpoints, LoRA"]))
    with pytest.raises(UserError, match="is without 'order', and no chapter has such runs: use"):
        grids.check(of("pocket", without=["order"]))


def test_a_study_leaves_a_whole_chapter_out() -> None:
    study = of("pocket", without=["chapter context-distillation", "chapter r*"])
    grids.check(study)
    assert [name for name, grid in grids.CHAPTERS.items() if not grid(study)] == [
        "context-distillation",
        "recursion",
        "rules",
    ]
    assert "distillation" in grids.comparison(study)
    with pytest.raises(UserError, match="is without 'chapter lore', and no chapter"):
        grids.check(of("pocket", without=["chapter lore"]))


def test_the_chapter_on_rules_varies_the_examples_and_nothing_else() -> None:
    found = grids.rules(of("pocket"))
    sizes = {name: {spec.shots for spec in specs} for name, specs in found.items()}
    assert sizes["purity, ICL"] == sizes["purity, LoRA"] == {32}
    assert sizes["purity, full fine-tuning"] == {32, 128}
    for name, seeds in (("purity, ICL", range(10)), ("mixed, LoRA", range(5))):
        alike = {replace(spec, purity=0.0, mixed=0.0) for spec in found[name]}
        assert {spec.data_seed for spec in alike} == {*seeds}
        assert len(alike) == len(seeds)
    for name, specs in found.items():
        shares = {"purity": {0.0}, "mixed,": {*grids.SHARES}}.get(name[:6], {0.0})
        assert {spec.mixed for spec in specs} == shares
    assert {*found["mixed, LoRA"]} & {*found["purity, LoRA"]}  # a share of 0 is a purity's run
    few = grids.rules(of("smoke"))["mixed, ICL"]  # of 4 examples .25 and .5 are 2
    assert {spec.mixed for spec in few} == {0.0, 0.25, 1.0}
    assert {spec.purity for spec in found["mixed, ICL"]} == {grids.BESIDE} <= {*grids.PURITIES}


def test_real_pairs_are_mixed_into_the_runs_of_other_chapters() -> None:
    study = of("smollm2")
    assert [*grids.rules(study)] == ["zero-shot", "mixed, ICL", "mixed, full fine-tuning"]
    found = grids.rules(of("smollm2", without=["purity, *"]))
    shown = {"mixed, ICL": 16, "mixed, full fine-tuning": 128, "mixed, LoRA": 128}
    assert [*found] == ["zero-shot", *shown]
    for name, size in shown.items():
        assert {(s.task, s.rows, s.shots, s.purity) for s in found[name]} == {
            ("mnli-hans", "data/mnli-hans/rows.csv", size, 0.0)
        }
        shares = {s.mixed: sum(t.mixed == s.mixed for t in found[name]) for s in found[name]}
        none = 5 if name == "mixed, LoRA" else 10
        assert shares == dict.fromkeys(grids.FEWER_SHARES, 5) | {0.0: none}
    others = [
        spec for chapter in ("icl", "few-shot", "lora") for spec in grids.every(study)[chapter]
    ]
    assert {spec for own in found.values() for spec in own if not spec.mixed} <= {*others}


def test_a_run_has_the_same_rows_in_every_clone() -> None:
    study = of("smollm2")
    assert Path(study.rows).is_absolute()
    assert grids.spec(study, "icl").rows == "data/mnli-hans/rows.csv"
    other = study.model_copy(update={"rows": "/elsewhere/rows.csv"})
    assert grids.spec(other, "icl").rows == "/elsewhere/rows.csv"


def test_product_is_every_combination() -> None:
    specs = grids.product(Spec(), shots=[2, 4], data_seed=range(3))
    assert [(s.shots, s.data_seed) for s in specs] == [
        (2, 0), (2, 1), (2, 2), (4, 0), (4, 1), (4, 2),
    ]  # fmt: skip


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


@pytest.mark.parametrize(("sizes", "chosen"), [([2], 2), ([2, 4], 4), ([2, 4, 8, 16, 32], 8)])
def test_sizes_between(sizes: list[int], chosen: int) -> None:
    assert grids.middle(sizes) == chosen


def test_every_method_has_the_same_budget() -> None:
    study = of("pocket", budget_shots=[8, 32], tried_rates=[0.1, 1, 10], without=[])
    found = grids.budgets(study)
    plain = [specs for name, specs in found.items() if not name.endswith(grids.AND_TEXT)]
    for specs in plain[1:]:
        rates = sorted({spec.learning_rate for spec in specs})
        assert rates[2] / rates[1] == pytest.approx(10) == pytest.approx(rates[1] / rates[0])
        runs = [(spec.shots, rates.index(spec.learning_rate), spec.data_seed) for spec in specs]
        assert sorted(runs) == [(n, i, d) for n in (8, 32) for i in range(3) for d in range(5)]
    for name in grids.WITH_TEXT:
        with_text = found[f"{grids.RATES_OF}{name}{grids.AND_TEXT}"]
        without = found[f"{grids.RATES_OF}{name}"]
        assert [replace(s, objective=study.objective) for s in with_text] == [
            spec for spec in without if spec.shots == 8
        ]


def test_a_context_that_has_no_quarters_has_no_placebos() -> None:
    assert "placebo, icl" in grids.context_distillation(of("pocket", context_shots=4))
    odd = grids.context_distillation(of("pocket", context_shots=2))
    assert not [name for name in odd if "placebo" in name]


def test_checkpoints_are_of_the_pocket_model_alone() -> None:
    """Every checkpoint has the same runs; another model has no other seeds."""
    assert grids.checkpoints(of("smollm2")) == {}
    for name, specs in grids.checkpoints(of("smoke")).items():
        by_model = {model: [s for s in specs if s.model == model] for model in grids.CHECKPOINTS}
        first, *others = ([replace(s, model="") for s in some] for some in by_model.values())
        assert first, name
        assert all(other == first for other in others)
