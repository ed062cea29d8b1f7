"""Distillation: the teacher's words, where they are read, and what the student makes of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llmft import UserError
from llmft.engine import distill, models, training
from llmft.engine.distill import divergence, queries, shared_tokens, teacher_targets
from llmft.engine.learner import holding, learner, start
from llmft.engine.models import Model
from llmft.engine.spec import DISTILLATION_OBJECTIVES, Spec
from llmft.engine.training import Examples
from llmft.nli import prompts
from llmft.nli.prompts import EXPLANATIONS, INSTRUCTION, PATTERNS, context, encode
from llmft.study import grids, methods, metrics, runs

from .conftest import SHARED
from .tiny import MODELS
from .training import spec, tiny


PEOPLE = ["doctor", "lawyer", "judge", "artist", "senator", "actor"]


def pairs(n: int, seed: int) -> pd.DataFrame:
    """Pairs of several lengths, in the columns of MultiNLI."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        a, b = rng.choice(PEOPLE, 2, replace=False)
        premise = f"The {a} {'and the actor ' * int(rng.integers(3))}saw the {b} ."
        rows.append((premise, f"The {b} ran .", 2 * (i % 2), i))
    return pd.DataFrame(rows, columns=["premise", "hypothesis", "label", "idx"])


PAIRS = pairs(9, 0).assign(label=[0, 1] * 4 + [0], id=[f"pair-{i}" for i in range(9)])
CONTEXT, QUERIES = PAIRS[:3], PAIRS[3:]


LOW_RANK = {"rank": 2, "alpha": 4.0, "targets": "q_proj,v_proj", "learning_rate": 0.03}
STUDENTS = pytest.mark.parametrize("student", [{}, LOW_RANK], ids=["all weights", "low rank"])


def distilling(**changes: Any) -> Spec:
    fields: dict[str, Any] = {"shots": 2, "queries": 8, "rounds": 1, "temperature": 1.0}
    return spec("distillation", changes.pop("objective", "vocabulary"), **fields | changes)


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Model:
    return replace(tiny(request.param), tokenizer=tiny_tokenizer)


def update(
    model: Model, spec: Spec, examples: Examples, temperature: float = 1.0
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of the untrained student, and its gradient."""
    labels = prompts.label_tokens(model.tokenizer, spec.wording)
    with learner(model, spec, labels) as learning:
        weights = start(learning, 0)
        with holding(learning, weights) as parameters:
            loss = divergence(temperature)
            value, _ = training.backward(learning, examples, loss, [0], len(examples))
            gradients = [parameter.grad for parameter in parameters]
    pairs = zip(weights, gradients, strict=True)
    return value, {name: gradient for name, gradient in pairs if gradient is not None}


def largest(gradient: dict[str, torch.Tensor]) -> float:
    return max(float(value.abs().max()) for value in gradient.values())


# --- the divergence ----------------------------------------------------------------------------

HALF, QUARTER = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
NINE = torch.tensor([[0.9, 0.1]]).log()


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "expected"),
    [
        (QUARTER, HALF, 1.0, 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        (HALF, QUARTER, 1.0, 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)),  # not symmetric
        # Softened by 2, 9 : 1 is 3 : 1.
        (HALF, NINE, 2.0, 4 * (0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2))),
        (NINE, HALF, 2.0, 4 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))),
    ],
)
def test_the_divergence_is_kl_of_the_teacher_from_the_student(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, expected: float
) -> None:
    result = divergence(temperature)(student + 3, teacher)  # logits: a constant says nothing
    assert result.shape == (1,)
    assert result.item() == pytest.approx(expected, abs=1e-6)


logits = st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5).map(torch.tensor)


@settings(deadline=None)
@given(logits, logits, st.floats(0.5, 8))
def test_the_divergence_is_positive_and_zero_for_equals(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> None:
    kl = divergence(temperature)
    assert kl(student, teacher.log_softmax(0)).item() >= -1e-5 * temperature**2
    assert kl(teacher + 1, teacher.log_softmax(0)).item() == pytest.approx(0, abs=1e-3)
    if float((student.softmax(0) - teacher.softmax(0)).abs().max()) > 0.05:
        assert kl(student, teacher.log_softmax(0)).item() > 1e-4


def test_the_divergence_of_label_words_is_that_of_the_renormalised() -> None:
    student, teacher = torch.randn(2, 6, 400, generator=torch.Generator().manual_seed(0)) * 3
    words = [7, 42]
    p, q = (x.softmax(-1)[:, words] for x in (teacher, student))
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    result = divergence(1.0)(student[:, words], teacher.log_softmax(-1)[:, words])
    torch.testing.assert_close(result, (p * (p / q).log()).sum(-1), atol=1e-5, rtol=0)


# --- what the teacher says ---------------------------------------------------------------------


@pytest.mark.parametrize("objective", DISTILLATION_OBJECTIVES)
@STUDENTS
def test_without_a_context_there_is_nothing_to_learn(
    model: Model, objective: str, student: dict[str, Any]
) -> None:
    spec = distilling(objective=objective, **student)
    for temperature in (1.0, 2.0):
        with_context, without = (
            update(model, spec, teacher_targets(model, spec, QUERIES, context), temperature)
            for context in (CONTEXT, CONTEXT[:0])
        )
        assert abs(without[0]) < 1e-6 * temperature**2
        assert with_context[0] > 1e-3
        assert largest(without[1]) < 1e-3 * largest(with_context[1])
    assert all(parameter.grad is None for parameter in model.model.parameters())


@pytest.mark.parametrize("objective", DISTILLATION_OBJECTIVES)
def test_the_teachers_words_are_plain_numbers(model: Model, objective: str) -> None:
    model.model.requires_grad_()
    result = teacher_targets(model, distilling(objective=objective), QUERIES, CONTEXT)
    for tensor in (result.targets, result.places):
        assert not tensor.requires_grad
        assert not tensor.is_inference()  # such a one would stop autograd


def by_hand(model: Model, spec: Spec) -> Iterator[tuple[Examples, int, torch.Tensor, int]]:
    """Each example, and what the model says by plain passes of the whole prompt of the teacher.

    That is a row a token, and how many tokens it has more than the student's prompt.
    """
    explained = spec.context == "explained"
    behind, alone = (
        encode(model.tokenizer, spec.wording, QUERIES, demonstrations, 9999, explained=explained)
        for demonstrations in (CONTEXT, None)
    )
    result = teacher_targets(model, spec, QUERIES, CONTEXT)
    assert result.prompts == alone
    for i, (ids, own) in enumerate(zip(behind, alone, strict=True)):
        with torch.no_grad():
            said_plainly = model.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        yield result, i, said_plainly, len(ids) - len(own)


@pytest.mark.parametrize("explained", ["", "explained"])
@pytest.mark.parametrize("objective", DISTILLATION_OBJECTIVES)
def test_the_teacher_says_what_plain_passes_of_the_whole_prompt_say(
    model: Model, objective: str, explained: str
) -> None:
    """At the answer position; for the query at each of its tokens, too, and nowhere else."""
    labels = list(prompts.label_tokens(model.tokenizer, prompts.PATTERNS["minimal"]))
    spec = distilling(objective=objective, context=explained)
    for result, i, plainly, more in by_hand(model, spec):
        places = [int(place) for place in result.places[i] if place >= 0]
        last = len(result.prompts[i]) - 1
        first = 1 if objective == "query" else last  # token 0 begins the text
        assert places == list(range(first, last + 1))
        expected = plainly[[place + more for place in places]]
        if objective == "label words":
            expected = expected[:, labels].log_softmax(-1)
        torch.testing.assert_close(result.targets[i, : len(places)], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("source", ["pocket", "opt"])
@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@pytest.mark.parametrize("explained", [False, True])
def test_a_query_is_aligned_with_itself_behind_the_context(
    source: str, pattern: str, explained: bool
) -> None:
    folder = models.POCKET if source == "pocket" else SHARED / "opt" / "tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    behind, alone = (
        encode(tokenizer, PATTERNS[pattern], PAIRS, demonstrations, 9999, explained=explained)
        for demonstrations in (CONTEXT, None)
    )
    for ids, own, n in zip(behind, alone, shared_tokens(behind, alone), strict=True):
        assert ids[-n:] == own[-n:]
        assert own[-n - 1] == tokenizer.bos_token_id  # all but the beginning of the text
        assert len(ids) > len(own)


def test_alignment_ends_where_the_tokens_differ() -> None:
    behind = [[2, 9, 5, 6, 7], [2, 9, 8, 6, 7], [5, 6, 7], [2, 9, 5, 6, 1]]
    assert shared_tokens(behind, [[2, 5, 6, 7], [2, 5, 6, 7], [2, 5, 6, 7], [2, 5, 6, 7]]) == [
        3,
        2,
        3,
        0,
    ]
    assert shared_tokens([[2, 5], [2]], [[2, 5], [3, 2]]) == [2, 1]


# --- places and padding ------------------------------------------------------------------------


def test_what_is_said_at_no_place_counts_for_nothing(model: Model) -> None:
    spec = distilling(objective="query")
    result = teacher_targets(model, spec, QUERIES, CONTEXT)
    none = result.places < 0
    assert 0 < none.sum() < none.numel()
    noise = 3 * torch.randn(result.targets.shape, generator=torch.Generator().manual_seed(0))
    noisy = Examples(
        result.prompts, torch.where(none.unsqueeze(-1), noise, result.targets), result.places
    )
    loss, gradient = update(model, spec, result)
    other, others = update(model, spec, noisy)
    assert other == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(others, gradient, atol=1e-6, rtol=1e-5)
    somewhere = Examples(result.prompts, torch.where(none.unsqueeze(-1), result.targets, noise))
    changed, _ = update(model, spec, replace(somewhere, places=result.places))
    assert abs(changed - loss) > 1e-3


@pytest.mark.parametrize("objective", DISTILLATION_OBJECTIVES)
def test_padding_and_company_count_for_nothing(model: Model, objective: str) -> None:
    """A batch's loss and gradient are the means of each prompt's alone."""
    spec = distilling(objective=objective)
    result = teacher_targets(model, spec, QUERIES, CONTEXT)
    assert len(set(map(len, result.prompts))) > 1
    loss, gradient = update(model, spec, result)
    alone = []
    for i in range(len(result)):
        one = result.part([i])
        there = one.places[0] >= 0
        one = Examples(one.prompts, one.targets[:, there], one.places[:, there])
        alone.append(update(model, spec, one))
    assert loss == pytest.approx(np.mean([value for value, _ in alone]), rel=1e-5)
    for name, value in gradient.items():
        mean = torch.stack([one[name] for _, one in alone]).mean(0)
        torch.testing.assert_close(value, mean, atol=1e-5 * largest(gradient), rtol=0)


# --- queries -----------------------------------------------------------------------------------


def test_teachers_agree_where_their_answers_do() -> None:
    """At the last place that a prompt has; what they expect within the query is not asked."""
    places = torch.tensor([[0, 1], [1, -1]])
    first = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [9.0, 0.0]]])
    other = first.clone()
    other[0, 0] = torch.tensor([1.0, 0.0])  # within the query
    a, b = (training.Examples([[1, 2], [1, 2]], t, places) for t in (first, other))
    assert distill.agreement(a, b) == 1.0
    other[1, 0] = torch.tensor([1.0, 0.0])  # an answer; the place behind it is none
    assert distill.agreement(a, b) == 0.5


def test_queries_are_unlabelled_distinct_and_none_of_the_context() -> None:
    pool = pd.concat([PAIRS.assign(id=[f"{k}-{i}" for i in range(9)]) for k in range(4)])
    demonstrations = pool[3:13]
    result = queries(pool, 26, 0, demonstrations)
    assert set(result["id"]) == set(pool["id"]) - set(demonstrations["id"])
    assert "label" not in result
    assert result["id"].is_unique
    few = queries(pool, 5, 3, demonstrations)
    assert few.equals(queries(pool, 5, 3, demonstrations))
    assert list(few["id"]) != list(queries(pool, 5, 4, demonstrations)["id"])
    text = pool.set_index("id").loc[few["id"], "premise"]
    assert list(text) == list(few["premise"])
    with pytest.raises(UserError, match=r"cannot draw 27 queries: .* 26 besides") as error:
        queries(pool, 27, 0, demonstrations)
    assert "\n" not in str(error.value)


def test_queries_are_chosen_without_their_labels() -> None:
    shuffled = PAIRS.assign(label=list(PAIRS["label"])[::-1])
    assert queries(PAIRS, 5, 1, CONTEXT).equals(queries(shuffled, 5, 1, CONTEXT))


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    for name, n, seed, end in (
        ("train", 24, 1, "."),
        ("validation", 8, 2, "?"),  # other ends: no pair stands in two sets
        ("test", 6, 3, ": ."),
        ("out-of-domain", 4, 4, ": ?"),
    ):
        own = pairs(n, seed)
        own["hypothesis"] = own["hypothesis"].str.removesuffix(".") + end
        own.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def base(task_folder: Path, tiny_checkpoint: Path) -> Spec:
    return distilling(
        task=str(task_folder), model=str(tiny_checkpoint), learning_rate=3e-3, updates=4
    )


def done(specs: list[Spec]) -> list[methods.Result]:
    """The results in the order of `specs`."""
    results = dict(methods.execute_all(specs, device="cpu"))
    return [results[one] for one in specs]


def apart(one: methods.Result, other: methods.Result) -> float:
    """The largest difference of what two runs said."""
    assert list(one.predictions["id"]) == list(other.predictions["id"])
    result = one.predictions[metrics.LOGP] - other.predictions[metrics.LOGP]
    return float(result.abs().to_numpy().max())


def rounds_of(base: Spec, *rounds: int) -> list[Spec]:
    return grids.product(base, rounds=rounds)


@pytest.mark.parametrize(
    ("change", "least"),
    [
        ({}, 0.5),
        ({"objective": "label words"}, 0.5),
        ({"objective": "query"}, 0.7),
        (LOW_RANK | {"learning_rate": 0.1}, 0.7),
        ({"temperature": 2.0}, 0.5),
        ({"context": "explained"}, 0.5),
        ({"prefix": 12, "learning_rate": 0.1}, 0.7),
    ],
)
def test_training_moves_the_student_towards_its_teacher(
    base: Spec, change: dict[str, Any], least: float
) -> None:
    """On queries that it was not trained on."""
    spec = replace(base, **{"updates": 24, "batch_size": 8, "queries": 16} | change)
    row = methods.execute(spec, device="cpu").row
    first, last = row["curve"][0]["validation_loss"], row["curve"][-1]["validation_loss"]
    assert last < least * first
    assert row["train_kl"] < least * row["curve"][0]["train_loss"]
    if spec.temperature == 1:
        assert row["held_out_kl"] == row["first_kl"] == pytest.approx(last, rel=1e-4)
        assert row["held_out_agreement"] == pytest.approx(row["curve"][-1]["validation_accuracy"])


def test_labels_are_not_used_but_the_contexts(base: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    task = methods.task_of(base.task, 0)
    demonstrations = methods.examples(task, base)
    monkeypatch.setattr(methods, "examples", lambda *_: demonstrations)
    [right] = done([base])
    train, validation = (
        part.assign(label=1 - part["label"]) for part in (task.train, task.validation)
    )
    flipped = replace(task, train=train, validation=validation)
    monkeypatch.setattr(methods, "task_of", lambda *_: flipped)
    [wrong] = done([base])
    assert apart(right, wrong) < 1e-5
    curves = (pd.DataFrame(one.row["curve"]) for one in (right, wrong))
    pd.testing.assert_frame_equal(*curves, atol=1e-5)
    demonstrations = demonstrations.assign(label=1 - demonstrations["label"])
    assert apart(right, done([base])[0]) > 1e-3  # the context's are


@STUDENTS
def test_rounds_asked_together_are_those_asked_alone(base: Spec, student: dict[str, Any]) -> None:
    base = replace(base, **student)
    first, second, third = done(rounds_of(base, 1, 2, 3))
    for together, rounds in ((first, 1), (third, 3)):
        [alone] = done(rounds_of(base, rounds))
        assert apart(together, alone) < 1e-6
        assert together.row["curve"] == alone.row["curve"]
        assert together.row["first_kl"] == pytest.approx(alone.row["first_kl"])
    assert min(apart(first, second), apart(second, third)) > 1e-3
    updates = [point["update"] for point in third.row["curve"]]
    assert updates == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12]
    assert second.row["curve"] == third.row["curve"][:10]
    assert [r.row["kept_update"] for r in (first, second, third)] == [4, 8, 12]
    assert third.row["curve"][-1]["epoch"] == 3 * first.row["curve"][-1]["epoch"]
    tokens = [r.row["train_tokens"] for r in (first, second, third)]
    assert tokens[0] < tokens[1] < tokens[2]
    assert first.row["held_out_kl"] == first.row["first_kl"]
    assert third.row["held_out_kl"] != third.row["first_kl"]


def tail(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By names that a model, a PEFT model around it, and its reader have in common."""
    return {
        name.partition("decoder.")[2].replace(".base_layer", ""): weight
        for name, weight in weights.items()
    }


@STUDENTS
def test_the_teacher_of_a_round_is_the_student_of_the_round_before(
    base: Spec, student: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is asked once a set and round, however many epochs there are."""
    base = replace(base, **student)
    calls: list[tuple[str, dict[str, torch.Tensor]]] = []
    students: list[training.Trained] = []

    def record_teacher(teacher: Model, spec: Spec, frame: pd.DataFrame, *rest: Any) -> Examples:
        weights = {n: p.detach().clone() for n, p in teacher.model.named_parameters()}
        calls.append((" ".join(frame["id"]), tail(weights)))
        return teacher_targets(teacher, spec, frame, *rest)

    def record_student(
        learning: Any, job: training.Job, loss: Any, **options: Any
    ) -> training.Trained:
        result = train(learning, job, loss, **options)
        if job.round:  # it goes on
            begin = training.measure(learning, students[-1].weights, job.train, loss)
            assert result.curve[0]["train_loss"] == pytest.approx(begin["loss"], rel=1e-3)
        students.append(result)
        return result

    train = training.train
    monkeypatch.setattr(distill, "teacher_targets", record_teacher)
    monkeypatch.setattr(training, "train", record_student)
    specs = grids.product(base, data_seed=[0, 1], rounds=[3], batch_size=[8], updates=[5])
    done(specs)
    assert len(students) == 2 * 3  # runs, rounds
    assert len(calls) == 2 * 3 * 2  # and training and held-out queries
    query_ids, teachers = zip(*calls, strict=True)
    pool = methods.task_of(base.task, 0).train
    for first, run_spec in zip((0, 6), specs, strict=True):
        demonstrations = methods.examples(methods.task_of(base.task, 0), run_spec)
        assert query_ids[first] == " ".join(
            queries(pool, 8, run_spec.data_seed, demonstrations)["id"]
        )
        own = query_ids[first : first + 6]
        assert own[:2] == own[2:4] == own[4:]  # the same queries every round
    untrained = tail(dict(models.load(base.model, device="cpu").model.named_parameters()))
    for i, teacher in enumerate(teachers):
        number = i // 2  # of the round, of all runs
        before = tail(students[number - 1].weights) if number % 3 else untrained
        if number % 3:
            changes = [(teacher[n] - w).abs().max() for n, w in untrained.items() if n in before]
            assert student or max(changes) > 1e-3
        there = [name for name in before if name in teacher]
        assert len(there) >= len(before) - 1  # a tied embedding has one name
        for name in there:
            assert torch.equal(teacher[name], before[name])


def nearer(
    monkeypatch: pytest.MonkeyPatch, distances: dict[int, list[float]]
) -> list[training.Job]:
    """Have each run (by its seed) be as far from its first teacher as said, round by round.

    The jobs that were trained come to stand in what is returned.
    """
    usual, train = methods._fidelity, training.train
    jobs: list[training.Job] = []

    def fidelity(learning: Any, one: Any, job: training.Job, first: Any) -> dict[str, float]:
        return usual(learning, one, job, first) | {"first_kl": distances[job.init_seed][job.round]}

    def noted(learning: Any, job: training.Job, *rest: Any, **options: Any) -> Any:
        jobs.append(job)
        return train(learning, job, *rest, **options)

    monkeypatch.setattr(methods, "_fidelity", fidelity)
    monkeypatch.setattr(training, "train", noted)
    return jobs


def test_best_stops_at_the_round_after_which_the_first_teacher_is_farther(
    base: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run by itself; later rounds report the best one's weights."""
    base = replace(base, selection="best")
    jobs = nearer(monkeypatch, {0: [3.0, 2.0, 2.5, 0.1], 1: [3.0, 2.0, 1.0, 0.5]})
    specs = grids.product(base, init_seed=[0, 1], rounds=[1, 2, 3, 4])
    result = done(specs)
    assert [(job.init_seed, job.round) for job in jobs] == [
        *((0, number) for number in range(3)),
        *((1, number) for number in range(4)),
    ]
    stopped, going = result[:4], result[4:]
    assert [r.row["first_kl"] for r in stopped] == [3.0, 2.0, 2.0, 2.0]
    assert [r.row["first_kl"] for r in going] == [3.0, 2.0, 1.0, 0.5]
    assert apart(stopped[0], stopped[1]) > 1e-3
    for later in stopped[2:]:
        assert later.predictions.equals(stopped[1].predictions)
        for name in ("curve", "kept_update", "held_out_kl"):
            assert later.row[name] == stopped[1].row[name]
    # The third round was thrown away, and paid; there was no fourth.
    for name in ("train_tokens", "teacher_tokens", "train_seconds", "teacher_seconds"):
        paid = [r.row[name] for r in stopped]
        assert paid[0] < paid[1] < paid[2] == paid[3]
    for name in ("train_tokens", "teacher_tokens"):
        assert stopped[2].row[name] == pytest.approx(3 * stopped[0].row[name], rel=0.2)
    assert apart(going[0], going[3]) > 1e-3
    assert [len(r.row["curve"]) for r in going] == [5, 10, 15, 20]


def test_best_ends_when_no_run_goes_on(base: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = nearer(monkeypatch, {0: [1.0, 2.0]})
    first, last = done(rounds_of(replace(base, selection="best"), 1, 4))
    assert len(jobs) == 2
    assert apart(first, last) == 0


def test_last_goes_on_whatever_the_distance(base: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = nearer(monkeypatch, {0: [1.0, 2.0, 3.0]})
    result = done(rounds_of(base, 2, 3))
    assert len(jobs) == 3
    assert apart(*result) > 1e-3
    assert [r.row["first_kl"] for r in result] == [2.0, 3.0]


@STUDENTS
def test_a_saved_student_says_what_the_run_said(
    base: Spec, student: dict[str, Any], tmp_path: Path
) -> None:
    specs = rounds_of(replace(base, **student), 1, 2)
    results = runs.run_grid(specs, store=tmp_path, device="cpu", save_models=True)
    rows, predictions = results.rows, results.predictions
    task = methods.task_of(base.task, 0)
    for key, rounds in zip(rows["key"], rows["rounds"], strict=True):
        folder = models.load(str(tmp_path / "models" / key), device="cpu")
        _, again = methods.evaluate(folder, task, base, task.train.iloc[:0])
        expected = predictions[predictions["rounds"] == rounds]
        assert list(again["id"]) == list(expected["id"])
        torch.testing.assert_close(
            *(torch.tensor(frame[metrics.LOGP].to_numpy()) for frame in (again, expected)),
            atol=1e-5,
            rtol=0,
        )


# --- a prefix ---------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", DISTILLATION_OBJECTIVES)
def test_a_prefix_has_the_targets_of_other_students_at_the_same_tokens(
    model: Model, objective: str
) -> None:
    one = distilling(objective=objective)
    usual = teacher_targets(model, one, QUERIES, CONTEXT)
    behind = teacher_targets(model, replace(one, prefix=4), QUERIES, CONTEXT)
    assert behind.targets.equal(usual.targets)
    assert behind.read == usual.read
    separator = prompts.token_ids(model.tokenizer, ["\n\n"], special=False)[0]
    for i, (own, other) in enumerate(zip(behind.prompts, usual.prompts, strict=True)):
        assert own == [*separator, *other[1:]]  # other[0] begins the text
        ends = (
            [len(part.prompts[i]) - int(place) for place in part.places[i] if place >= 0]
            for part in (behind, usual)
        )
        assert next(ends) == next(ends)


def test_a_prefix_of_the_whole_context_begins_at_its_teacher(model: Model) -> None:
    one = distilling(objective="query")
    ids = distill.context_ids(model, one, CONTEXT)
    whole = replace(one, prefix=len(ids))
    targets = teacher_targets(model, whole, QUERIES, CONTEXT)
    labels = prompts.label_tokens(model.tokenizer, one.wording)
    with learner(model, whole, labels, ids) as learning:
        found = training.measure(learning, start(learning, 0), targets, divergence(1.0))
    assert found["loss"] < 1e-6
    assert found["accuracy"] == 1
    with learner(model, replace(one, prefix=4), labels, ids) as learning:
        assert (
            training.measure(learning, start(learning, 0), targets, divergence(1.0))["loss"] > 1e-3
        )


def test_a_run_with_a_prefix_is_what_its_adapter_says(base: Spec, tmp_path: Path) -> None:
    """Text as well; the teacher is the model as it came; beside it, the model is as it was."""
    one = replace(base, prefix=8, learning_rate=0.1)
    specs = [replace(base, method="zero-shot", shots=0, **NOTHING), one]
    results = runs.run_grid(specs, store=tmp_path, device="cpu", save_models=True)
    zero, row = (results.rows.iloc[i] for i in (0, 1))
    folder = models.load(str(tmp_path / "models" / row["key"]), device="cpu")
    task = methods.task_of(base.task, 0)
    again, answers = methods.evaluate(folder, task, one, task.train.iloc[:0])
    expected = results.predictions[results.predictions["key"] == row["key"]]
    torch.testing.assert_close(
        *(torch.tensor(frame[metrics.LOGP].to_numpy()) for frame in (answers, expected)),
        atol=1e-5,
        rtol=0,
    )
    assert again["text_nll"] == pytest.approx(row["text_nll"], abs=1e-5)
    assert abs(row["text_nll"] - zero["text_nll"]) > 1e-3
    assert row["trainable_parameters"] == (8 - 1) * 2 * 2 * 32  # keys, values; layers; hidden
    assert again["query_tokens"] + again["prefix_tokens"] < 30  # the prefix is not read
    usual = methods.execute(base, device="cpu").row
    for name in ("teacher_tokens", "teacher_agreement"):
        assert row[name] == usual[name]


NOTHING: dict[str, Any] = {
    "learning_rate": 0.0, "updates": 0, "batch_size": 0, "objective": "", "selection": "",
    "queries": 0, "rounds": 0, "temperature": 0.0,
}  # fmt: skip


# --- an explained context ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_an_explained_context_has_an_instruction_and_reasons(
    name: str, tiny_tokenizer: Any
) -> None:
    pattern = PATTERNS[name]
    demonstrations = PAIRS.iloc[[1, 4, 3]]
    text = context(pattern, demonstrations, explained=True)
    begin, *blocks = text.split(pattern.separator)
    assert begin == INSTRUCTION
    plain = context(pattern, demonstrations).split(pattern.separator)
    assert [pattern.verbalizer.index(block.split()[-1]) for block in plain] == [1, 0, 1]
    for block, bare, label in zip(blocks, plain, demonstrations["label"], strict=True):
        assert block == f"{bare}, {EXPLANATIONS[label]}."
    assert context(pattern, demonstrations[:0], explained=True) == ""
    result = encode(tiny_tokenizer, pattern, QUERIES, demonstrations, 9999, explained=True)
    for ids, query in zip(result, QUERIES.itertuples(), strict=True):
        whole = text + pattern.separator + pattern.fill(str(query.premise), str(query.hypothesis))
        assert ids == tiny_tokenizer(whole)["input_ids"]
    # A demonstration's label word is the token that is scored, also where a reason follows.
    words = prompts.label_tokens(tiny_tokenizer, pattern)
    assert [i for i in result[0] if i in words][-3:] == [
        words[label] for label in demonstrations["label"]
    ]


def test_an_explained_context_is_shown_and_taught_but_not_asked(
    base: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ICL reads it before every query; of distillation the teacher does, and not the student."""
    icl = Spec(task=base.task, model=base.model, shots=2)
    plain, explained = done([icl, replace(icl, context="explained")])
    tokenizer = methods.model_of(base.model, "", "cpu", "float32").tokenizer
    demonstrations = methods.examples(methods.task_of(base.task, 0), icl)
    more, fewer = (
        len(tokenizer(context(PATTERNS["minimal"], demonstrations, explained=how))["input_ids"])
        for how in (True, False)
    )
    assert explained.row["prefix_tokens"] - plain.row["prefix_tokens"] == more - fewer
    assert apart(plain, explained) > 1e-2
    bare, taught_more = done([base]) + done([replace(base, context="explained")])
    assert apart(bare, taught_more) > 1e-3
    assert (
        taught_more.row["prefix_tokens"] == bare.row["prefix_tokens"] < plain.row["prefix_tokens"]
    )
    assert taught_more.row["query_tokens"] == bare.row["query_tokens"]


# --- specifications ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries": 0}, "distillation needs queries"),
        ({"rounds": 0}, "distillation needs rounds"),
        ({"temperature": 0.0}, "distillation needs temperature"),
        ({"temperature": float("nan")}, "temperature = nan is not a number"),
        ({"queries": -1}, "queries = -1 is not a number from 0 up"),
        ({"rounds": 1.0}, "rounds = 1.0 must be of type int"),
        ({"objective": "head"}, "unknown objective 'head': use one of .*vocabulary"),
        ({"objective": ""}, "needs objective"),
        ({"context": "long"}, "unknown context 'long': use one of explained"),
        ({"shots": 0}, "distillation does not go with shots = 0"),
        ({"learning_rate": 0.0}, "distillation needs learning_rate"),
        ({"alpha": 1.0}, "distillation has no alpha: leave it out"),
        (LOW_RANK | {"alpha": 0.0}, "distillation needs alpha"),
        ({"prefix": 1}, "prefix = 1: a prefix is trained by distillation of one round"),
        ({"prefix": 4, "rounds": 2}, "prefix = 4: a prefix is trained by .* of one round"),
        (LOW_RANK | {"prefix": 4}, "has no rank"),
        ({"method": "fine-tuning"}, "fine-tuning has no queries: leave it out"),
        ({"method": "fine-tuning", "objective": "query"}, "no queries: leave it out"),
    ],
)
def test_a_wrong_distillation_is_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        replace(distilling(), **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Spec(method="zero-shot", shots=0, context="explained"),
        lambda: spec("fine-tuning", context="explained"),
        lambda: spec("lora", context="explained"),
        lambda: spec("bitfit", context="explained"),
    ],
)
def test_methods_without_a_context_have_none_to_explain(make: Callable[[], Spec]) -> None:
    with pytest.raises(UserError, match="has no context to be explained") as error:
        make()
    assert "\n" not in str(error.value)


def test_an_impossible_distillation_is_one_line_that_names_the_run(base: Spec) -> None:
    with pytest.raises(UserError, match=r"run distillation .* 23 queries.*cannot draw 23") as error:
        done([replace(base, queries=23)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"queries": 9},
        {"rounds": 2},
        {"temperature": 2.0},
        {"context": "explained"},
        {"prefix": 4},
    ],
)
def test_what_is_distilled_is_in_the_key(base: Spec, change: dict[str, Any]) -> None:
    assert runs.key_of(replace(base, **change)) != runs.key_of(base)
