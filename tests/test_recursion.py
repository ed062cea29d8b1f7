"""Arms of recursion, divergences and placebo contexts: each does what its name says."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft import UserError
from llmft.engine import distill, training
from llmft.engine.distill import divergence, next_teacher, teacher_targets
from llmft.engine.models import Model
from llmft.engine.spec import DISTILLATION_OBJECTIVES, PLACEBOS, Spec
from llmft.engine.training import Examples
from llmft.nli import placebo, prompts
from llmft.nli.cues import words
from llmft.study import grids, methods, metrics, runs

from .small import DISTILLATION, write_task


P, Q = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.25, 0.75]]).log()


# --- divergences -------------------------------------------------------------------------------


def by_hand(p: Any, q: Any) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergences_in_closed_form(temperature: float) -> None:
    """`P` is the teacher, `Q` the student; a constant added to logits says nothing."""
    p, q = ((x / temperature).softmax(-1)[0].tolist() for x in (P, Q))
    mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    expected = {
        "": by_hand(p, q),
        "reverse": by_hand(q, p),
        "jsd": (by_hand(p, mean) + by_hand(q, mean)) / 2,
    }
    for kind, value in expected.items():
        found = divergence(temperature, kind)(Q + 3, P)
        assert found.shape == (1,)
        assert found.item() == pytest.approx(temperature**2 * value, abs=1e-6)


def test_the_usual_divergence_has_the_very_bits_that_it_had() -> None:
    logits, targets = torch.randn(2, 64, 80, generator=torch.manual_seed(0))
    for temperature in (1.0, 2.0):
        student = (logits / temperature).log_softmax(dim=-1)
        teacher = (targets / temperature).log_softmax(dim=-1)
        before = temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=-1)
        assert torch.equal(divergence(temperature)(logits, targets), before)


def test_gradients_of_the_divergences() -> None:
    """By the student's logits z at temperature 1; q = softmax(z), and m is the mean of p and q."""
    z, teacher = torch.randn(2, 3, 7, generator=torch.manual_seed(1), dtype=torch.float64)
    p, q = teacher.softmax(-1), z.softmax(-1)
    m = (p + q) / 2

    def centred(ratio: torch.Tensor) -> torch.Tensor:
        return q * (ratio - (q * ratio).sum(-1, keepdim=True))

    expected = {"": q - p, "reverse": centred((q / p).log()), "jsd": centred((q / m).log()) / 2}
    for kind, gradient in expected.items():
        own = z.clone().requires_grad_()
        divergence(1.0, kind)(own, teacher).sum().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(own.grad, gradient)


logits = st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5).map(torch.tensor)


@settings(deadline=None)
@given(logits, logits)
def test_jensen_shannon_is_symmetric_and_at_most_ln_2(a: torch.Tensor, b: torch.Tensor) -> None:
    jsd = divergence(1.0, "jsd")
    one, other = jsd(a, b.log_softmax(0)).item(), jsd(b, a.log_softmax(0)).item()
    assert one == pytest.approx(other, abs=1e-4)
    assert -1e-5 <= one <= math.log(2) + 1e-5
    assert divergence(1.0, "reverse")(a, a.log_softmax(0)).item() == pytest.approx(0, abs=1e-4)


# --- the arms ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def base(folder: Path, tiny_checkpoint: Path) -> Spec:
    fields: dict[str, Any] = DISTILLATION | {"rank": 0, "alpha": 0.0, "targets": ""}
    return Spec(task=str(folder), model=str(tiny_checkpoint), shots=4, **fields)


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `teacher_targets` was given and gave, training and held-out in turn."""
    calls: list[dict[str, Any]] = []

    def record(
        teacher: Model, spec: Spec, frame: pd.DataFrame, context: pd.DataFrame, *rest: Any
    ) -> Any:
        made = teacher_targets(teacher, spec, frame, context, *rest)
        weights = {n: p.detach().clone() for n, p in teacher.model.named_parameters()}
        calls.append({"queries": frame, "context": context, "made": made, "weights": weights})
        return made

    monkeypatch.setattr(distill, "teacher_targets", record)
    return calls


def tail(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By names that a model and its reader have in common."""
    return {name.partition("decoder.")[2]: weight for name, weight in weights.items()}


def run(*specs: Spec) -> list[methods.Result]:
    found = dict(methods.execute_all(specs, device="cpu"))
    return [found[spec] for spec in specs]


def test_an_anchored_round_has_the_first_rounds_targets(
    base: Spec, targets: list[dict[str, Any]]
) -> None:
    run(replace(base, rounds=3, teacher="first"), replace(base, rounds=3))
    anchored, live = targets[:6], targets[6:]
    for part in (0, 1):
        assert torch.equal(anchored[part]["made"].targets, live[part]["made"].targets)
        for later in (2, 4):
            first = anchored[part]["made"]
            assert torch.equal(anchored[part + later]["made"].targets, first.targets)
            assert not torch.equal(live[part + later]["made"].targets, first.targets)


def test_an_average_teacher_is_half_of_the_last_one(
    base: Spec, targets: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    students, train = [], training.train

    def record(*args: Any, **options: Any) -> training.Trained:
        students.append(train(*args, **options))
        return students[-1]

    monkeypatch.setattr(training, "train", record)
    run(replace(base, rounds=3, teacher="average"))
    teachers = [tail(call["weights"]) for call in targets[::2]]
    for number in (1, 2):
        student = tail(students[number - 1].weights)
        there = [name for name in student if name in teachers[0]]
        assert len(there) >= len(student) - 1  # a tied embedding has one name
        for name in there:
            expected = (teachers[number - 1][name] + student[name]) / 2
            torch.testing.assert_close(teachers[number][name], expected)


def test_the_next_teacher() -> None:
    old, new = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    assert next_teacher("", old, new) is new
    assert next_teacher("first", None, new) is None
    average = next_teacher("average", old, new)
    assert average is not None
    assert average["w"].tolist() == [0.5, 0.5]


def test_a_fresh_context_is_another_draw_each_round_and_the_queries_stay(
    base: Spec, targets: list[dict[str, Any]]
) -> None:
    run(replace(base, rounds=3, fresh=1))
    contexts = [" ".join(call["context"]["id"]) for call in targets[::2]]
    assert len(set(contexts)) == 3
    asked = {" ".join(call["queries"]["id"]) for call in targets[::2]}
    assert len(asked) == 1
    for call in targets[::2]:
        assert not set(call["context"]["id"]) & set(targets[0]["queries"]["id"])
        assert sorted(call["context"]["label"]) == [0, 0, 1, 1]


@pytest.mark.parametrize("objective", DISTILLATION_OBJECTIVES)
def test_a_share_of_the_queries_stands_behind_the_context(
    base: Spec, targets: list[dict[str, Any]], objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in `EVERY`, with the same targets at the same tokens; held-out ones are asked alone."""
    monkeypatch.setattr(distill, "EVERY", 2)
    base = replace(base, objective=objective)
    run(base, replace(base, context_share=0.75))
    alone, mixed, held_out = targets[0]["made"], targets[2]["made"], targets[3]["made"]
    assert mixed.weights.tolist() == [1.5, 0.5, 1.5, 0.5]
    assert not len(held_out.weights)
    assert not len(alone.weights)
    assert torch.equal(mixed.targets, alone.targets)
    for i, (one, other) in enumerate(zip(alone.prompts, mixed.prompts, strict=True)):
        assert (len(other) > len(one)) == bool(mixed.weights[i] > 1)
        for a, b in zip(alone.places[i], mixed.places[i], strict=True):
            if a >= 0:
                assert one[int(a)] == other[int(b)]


def test_heavy_prompts_run_apart_and_count_by_their_weight() -> None:
    weights, targets = (
        torch.tensor([0.5, 2.0, 0.5, 2.0, 2.0]),
        torch.tensor([[0], [1], [2], [0], [1]]),
    )
    examples = Examples([[i] * (3 if i % 2 else 1) for i in range(5)], targets, weights=weights)
    parts = list(examples.parts(2))
    assert [[prompt[0] for prompt in part.prompts] for part in parts] == [[0, 2], [1, 3], [4]]
    assert [part.targets.flatten().tolist() for part in parts] == [[0, 2], [1, 0], [1]]
    plain = Examples(examples.prompts, targets)
    assert [len(part) for part in plain.parts(2)] == [2, 2, 1]
    some = torch.randn(5, 3, generator=torch.manual_seed(2))
    each = training.cross_entropy(some, targets.flatten())
    total = training.total_loss(some, examples, training.cross_entropy)
    torch.testing.assert_close(total, (weights * each).sum())
    torch.testing.assert_close(training.total_loss(some, plain, training.cross_entropy), each.sum())


def test_a_student_asked_behind_the_context_is_trained_once_and_reads_it(
    base: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, train = [], training.train

    def record(*args: Any, **options: Any) -> training.Trained:
        trained.append(train(*args, **options))
        return trained[-1]

    monkeypatch.setattr(training, "train", record)
    specs = grids.product(base, rounds=[1, 2], scoring=["", "context"])
    assert methods.recursions(specs) == [specs]
    alone, behind, *_ = run(*specs)
    assert len(trained) == 2
    icl = Spec(task=base.task, model=base.model, shots=base.shots)
    [shown] = run(icl)
    assert behind.row["prefix_tokens"] == shown.row["prefix_tokens"] > alone.row["prefix_tokens"]
    assert behind.row["first_kl"] == alone.row["first_kl"]
    gap = alone.predictions[metrics.LOGP] - behind.predictions[metrics.LOGP]
    assert gap.abs().to_numpy().max() > 1e-3


def test_arms_are_recursions_of_their_own(base: Spec) -> None:
    arms = [replace(base, **differs, rounds=2) for differs in grids.ARMS.values()]
    assert [len(piece) for piece in methods.recursions(arms)] == [1] * len(arms)
    assert len({runs.key_of(spec) for spec in arms}) == len(arms)
    assert len({str(spec) for spec in arms}) == len(arms)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": "best"}, "unknown teacher 'best': use one of first, average"),
        ({"divergence": "kl"}, "unknown divergence 'kl': use one of reverse, jsd"),
        ({"fresh": 2}, "unknown fresh 2: use one of 1"),
        ({"context_share": 1.5}, "context_share = 1.5 is not a share"),
        ({"scoring": "alone"}, "unknown scoring 'alone'"),
        ({"context": "filler", "shots": 2}, "use a multiple of 4"),
    ],
)
def test_a_wrong_arm_is_one_line(base: Spec, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        replace(base, **change)
    assert "\n" not in str(error.value)


def test_other_methods_have_no_arms() -> None:
    for name, value in {"teacher": "first", "fresh": 1, "scoring": "context"}.items():
        with pytest.raises(UserError, match=f"has no {name}: leave it out"):
            Spec(**{name: value})


# --- placebos ----------------------------------------------------------------------------------


def pool(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        length = int(rng.integers(1, 9))
        rows.append((f"{'the judge ' * length}ran.", "The judge ran.", i % 2, f"p{i}"))
    return pd.DataFrame(rows, columns=["premise", "hypothesis", "label", "id"])


@pytest.mark.parametrize("n", [4, 8, 32])
def test_shuffled_labels_are_wrong_for_half_of_each_label(n: int) -> None:
    drawn = pool().head(n)
    found = placebo.shuffled(drawn, 3)
    assert found.drop(columns="label").equals(drawn.drop(columns="label"))
    wrong = found["label"] != drawn["label"]
    assert wrong.groupby(drawn["label"]).sum().tolist() == [n // 4, n // 4]
    assert found["label"].value_counts().tolist() == [n // 2, n // 2]
    assert placebo.shuffled(drawn, 3).equals(found)


def test_another_task_s_labels_say_whether_the_premise_is_long() -> None:
    pairs = pool()
    found = placebo.other_task(pairs, 16, 1)
    middle = pairs["premise"].map(lambda text: len(words(text))).median()
    length = found["premise"].map(lambda text: len(words(text)))
    assert ((length <= middle).astype(int) == found["label"]).all()
    assert found["label"].value_counts().tolist() == [8, 8]
    with pytest.raises(UserError, match="use another context"):
        placebo.other_task(pairs.assign(premise="The judge ran."), 4, 0)


def test_filler_is_plain_text_of_as_many_tokens(tiny_tokenizer: Any) -> None:
    pairs, pattern = pool(), prompts.PATTERNS["minimal"]
    drawn = pairs.head(16)
    found = placebo.filler(pairs, drawn, 0, tiny_tokenizer, pattern)
    assert "label" not in found
    assert not set(found["id"]) & set(drawn["id"])
    text = prompts.context(pattern, found)
    assert text.split(pattern.separator) == found["premise"].tolist()
    most, own = (
        len(ids)
        for ids in prompts.token_ids(tiny_tokenizer, [prompts.context(pattern, drawn), text])
    )
    shortest = pattern.separator + "the judge ran."
    left = len(prompts.token_ids(tiny_tokenizer, [shortest], special=False)[0])
    assert most - left < own <= most


@pytest.mark.parametrize("context", PLACEBOS)
def test_a_placebo_is_read_by_icl_and_taught_by_a_teacher(
    base: Spec, targets: list[dict[str, Any]], context: str
) -> None:
    icl = Spec(task=base.task, model=base.model, shots=base.shots)
    plain, other = run(icl, replace(icl, context=context))
    gap = plain.predictions[metrics.LOGP] - other.predictions[metrics.LOGP]
    assert gap.abs().to_numpy().max() > 1e-4
    if context == "shuffled":
        assert other.row["examples"] == plain.row["examples"]
    run(replace(base, context=context))
    assert other.row["examples"] == " ".join(targets[0]["context"]["id"])
    assert ("label" in targets[0]["context"]) == (context != "filler")
