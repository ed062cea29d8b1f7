"""The training loop: held to a plain one, alone and stacked, whole and in parts."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from llmft import UserError
from llmft.engine import training
from llmft.engine.dropout import Dropout
from llmft.engine.learner import Reader, applied, learner
from llmft.engine.models import Model
from llmft.engine.scoring import score
from llmft.engine.spec import Spec
from llmft.engine.training import (
    Examples,
    Job,
    Trained,
    _clip,
    _order,
    _schedule,
    cross_entropy,
    precision,
    train,
)

from .conftest import MODELS, VOCABULARY
from .training import LABELS, SHAPES, examples, job, spec, tiny


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in float64, also where the code says float32.

    Adam divides a gradient by its size, so rounding noise where a gradient is zero (the bias of
    attention's keys) moves a weight by up to the learning rate. Noise of 1e-17 is far below Adam's
    epsilon, noise of 1e-9 is not.
    """
    for name in ("float", "float32"):
        monkeypatch.setattr(torch, name, torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def trained(model: Model, said: Spec, jobs: list[Job], **options: Any) -> list[Trained]:
    with learner(model, said, LABELS) as learning:
        return train(learning, jobs, cross_entropy, **options)


def same(some: list[Trained], others: list[Trained], tolerance: float = 1e-9) -> bool:
    """The same weights, none missing, and learning curves."""
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one.weights, other.weights, atol=tolerance, rtol=0)
        for a, b in zip(one.curve, other.curve, strict=True):
            assert a == pytest.approx(b, abs=tolerance)
    return True


def nll(model: Model, given: Examples) -> float:
    """Mean loss of label words, as every method is scored."""
    logp = score(model.model, given.prompts, LABELS)
    return -float(logp.gather(1, given.targets).mean())


# --- what an update is -------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("shape", "method"), [*((shape, "fine-tuning") for shape in MODELS), ("opt", "bitfit")]
)
def test_training_is_what_one_would_write_by_hand(shape: str, method: str) -> None:
    """AdamW, clipped gradients, warm-up and decay, one prompt at a time and nothing padded."""
    said, one = spec(method), job(1)
    [found] = trained(tiny(shape, dtype=torch.float64), said, [one])
    plain = tiny(shape, dtype=torch.float64).model
    named = {f"body.{n}": p for n, p in plain.base_model.named_parameters()}
    if shape == "llama":
        named["output.weight"] = plain.lm_head.weight
    learnt = {n: p for n, p in named.items() if method == "fine-tuning" or n.endswith(".bias")}
    optimizer = torch.optim.AdamW(learnt.values(), betas=(0.9, 0.999), weight_decay=0.01)
    order = _order(4, 15, [one.order_seed, one.round])
    clipped = 0
    for update, factor in enumerate([1, 1, 0.75, 0.5, 0.25]):
        losses = []
        for i in order[3 * update : 3 * update + 3]:
            logits = plain(input_ids=torch.tensor([one.train.prompts[i]])).logits[0, -1]
            losses.append(-logits[list(LABELS)].log_softmax(0)[one.train.targets[i, 0]])
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        norm = torch.stack([p.grad.norm() for p in learnt.values() if p.grad is not None]).norm()
        clipped += bool(norm > 1)
        for parameter in learnt.values():
            if parameter.grad is not None:
                parameter.grad /= max(1.0, float(norm))
        optimizer.param_groups[0]["lr"] = said.learning_rate * factor
        optimizer.step()
    assert clipped, "no gradient was large"
    assert found.weights.keys() == learnt.keys()
    for name, weight in learnt.items():
        torch.testing.assert_close(found.weights[name], weight.detach(), atol=1e-9, rtol=0)


def test_each_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    order = _order(6, 15, [3, 0])
    assert sorted(order[:6]) == sorted(order[6:12]) == list(range(6))
    assert order[:6] != order[6:12]
    assert len(order) == 15
    assert len(set(order[12:])) == 3
    assert order == _order(6, 15, [3, 0])
    assert order != _order(6, 15, [4, 0])


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [_schedule(update, 40) for update in range(40)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert factors[4:] == pytest.approx([(36 - i) / 36 for i in range(36)])
    assert _schedule(0, 1) == 1


def test_a_gradient_is_clipped_by_its_own_runs_norm() -> None:
    """A run without a number in its gradient does not spoil the others either."""
    stack = {"a": torch.zeros(3, 2), "b": torch.zeros(3, 2, 2)}
    stack["a"].grad = torch.tensor([[0.3, 0.4], [3e3, 4e3], [float("nan"), 1]])
    stack["b"].grad = torch.zeros(3, 2, 2)
    stack["b"].grad[1, 0, 0] = 12e3
    _clip(stack)
    assert stack["a"].grad[0].tolist() == pytest.approx([0.3, 0.4])
    assert stack["a"].grad[1].tolist() == pytest.approx([3 / 13, 4 / 13])
    assert stack["b"].grad[1, 0, 0].item() == pytest.approx(12 / 13)


# --- one run of many, one batch in parts -------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("shape", "method", "objective"), SHAPES)
def test_stacked_runs_are_the_runs_one_by_one(shape: str, method: str, objective: str) -> None:
    """Other examples of other lengths, other seeds, other masks of dropout."""
    model = tiny(shape, dropout=0.1, dtype=torch.float64)
    said, jobs = spec(method, objective, updates=3), [job(0), job(1), job(2)]
    together = trained(model, said, jobs)
    alone = trained(model, said, jobs, stack=1)
    assert same(together, alone)
    assert [one.stacked for one in together + alone] == [3, 3, 3, 1, 1, 1]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("token_budget", [1, 30])
def test_a_batch_in_parts_is_the_whole_batch(shape: str, token_budget: int) -> None:
    model, jobs = tiny(shape, dropout=0.1, dtype=torch.float64), [job(0), job(1)]
    whole = trained(model, spec(updates=3), jobs)
    parts = trained(model, spec(updates=3), jobs, token_budget=token_budget)
    assert same(whole, parts)


def test_dropout_is_drawn_by_a_runs_own_seed() -> None:
    model, one = tiny(dropout=0.1), job()
    jobs = [one, replace(one, init_seed=5), one]
    first, other, again = (
        run.weights["body.decoder.layers.0.fc1.weight"] for run in trained(model, spec(), jobs)
    )
    torch.testing.assert_close(first, again)
    assert (first - other).abs().max() > 1e-3
    [without] = trained(tiny(), spec(), [one])
    assert (first - without.weights["body.decoder.layers.0.fc1.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(6 * 40, 50), (6, 40, 50), (6, 4, 40, 40)])
def test_dropout_drops_its_share_and_scales_the_rest(shape: tuple[int, ...]) -> None:
    dropout = Dropout([(0, 0)], 0, 6, [40], torch.device("cpu")).at(0)
    dropout.rows, dropout.width = 6, 40
    with dropout:
        first = F.dropout(torch.ones(shape), 0.25)
        second = F.dropout(torch.ones(shape), 0.25)
        assert torch.equal(F.dropout(torch.ones(shape), 0.25, training=False), torch.ones(shape))
    torch.testing.assert_close(first[first > 0], torch.full_like(first[first > 0], 1 / 0.75))
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(first, second)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("room", "stacked"),
    [(12, [3, 3, 3]), (6, [3, 3, 3]), (3, [3, 3, 3]), (2, [2, 2, 1]), (1, [1, 1, 1])],
)
def test_out_of_memory_it_goes_on_with_less(
    monkeypatch: pytest.MonkeyPatch, room: int, stacked: list[int]
) -> None:
    """Smaller parts first, then fewer runs; `room` is for so many prompts at once."""
    model, jobs = tiny(dropout=0.1, dtype=torch.float64), [job(0), job(1), job(2)]
    whole = trained(model, spec(updates=3), jobs)
    monkeypatch.setattr(training, "_logits", cramped(training._logits, room))
    found = trained(model, spec(updates=3), jobs)
    assert same(found, whole)
    assert [one.stacked for one in found] == stacked


def cramped(ask: Callable[..., torch.Tensor], room: int) -> Callable[..., torch.Tensor]:
    def asked(reader: Any, stack: Any, batches: Any, *dropout: Any) -> torch.Tensor:
        if len(batches) * len(batches[0]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ask(reader, stack, batches, *dropout)

    return asked


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            UserError,
            "cpu has too little memory .* 8 to",
        ),
        (RuntimeError("can't allocate memory: you tried"), UserError, "use method lora, a smaller"),
        (RuntimeError("another matter"), RuntimeError, "another matter"),
    ],
)
def test_no_memory_for_one_example_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, expected: type[Exception], words: str
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Reader, "forward", full)
    with pytest.raises(expected, match=words) as caught:
        trained(tiny(), spec(), [job(0), job(1)])
    assert "\n" not in str(caught.value)


def test_on_the_cpu_a_stack_has_few_runs_and_a_large_model_is_trained_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, jobs = tiny(), [job(0), job(1), job(2)]
    monkeypatch.setattr(training, "STACK", 2)
    assert [one.stacked for one in trained(model, spec(updates=1), jobs)] == [2, 2, 1]
    monkeypatch.setattr(training, "SMALL", model.parameters - 1)
    assert [one.stacked for one in trained(model, spec(updates=1), jobs)] == [1, 1, 1]


# --- what comes of it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "learning_rate"), [("fine-tuning", 3e-3), ("lora", 0.1), ("bitfit", 0.1)]
)
def test_training_learns(method: str, learning_rate: float) -> None:
    """Eight prompts whose last token says the label."""
    given = examples(8, seed=0)
    prompts = [[*p, 11 + int(t)] for p, t in zip(given.prompts, given.targets, strict=True)]
    train_set = Examples(prompts, given.targets)
    model, said = tiny(), spec(method, learning_rate=learning_rate, updates=30, batch_size=8)
    with learner(model, said, LABELS) as learning:
        [found] = train(learning, [Job(train_set, train_set)], cross_entropy)
        with applied(learning, found.weights) as changed:
            right = score(changed.model, prompts, LABELS).argmax(1) == given.targets[:, 0]
            assert nll(changed, train_set) == pytest.approx(found.curve[-1]["train_loss"], abs=1e-4)
    assert right.all()
    assert not (score(model.model, prompts, LABELS).argmax(1) == given.targets[:, 0]).all()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_curve_begins_with_the_untrained_model_and_falls(dropout: float) -> None:
    model, few = tiny(dropout=dropout), examples(2, 0)
    given = Job(few, examples(5, 1))
    [found] = trained(model, spec(updates=8, batch_size=2), [given])
    assert [point["update"] for point in found.curve] == [0, 2, 4, 6, 8]
    assert [point["epoch"] for point in found.curve] == [0, 2, 4, 6, 8]
    assert found.curve[0]["train_loss"] == pytest.approx(nll(model, few), abs=1e-4)
    assert found.curve[0]["validation_loss"] == pytest.approx(
        nll(model, given.validation), abs=1e-4
    )
    logp = score(model.model, given.validation.prompts, LABELS)
    right = (logp.argmax(1) == given.validation.targets[:, 0]).float().mean()
    assert found.curve[0]["validation_accuracy"] == pytest.approx(float(right))
    assert found.curve[-1]["train_loss"] < 0.1 * found.curve[0]["train_loss"]
    assert found.curve[-1]["train_accuracy"] == 1
    assert found.kept == 8
    assert found.tokens == 8 * sum(map(len, few.prompts))


def test_epochs_count_examples_and_short_trainings_have_fewer_points() -> None:
    [found] = trained(tiny(), spec(updates=2, batch_size=3), [job()])
    assert [(p["update"], p["epoch"]) for p in found.curve] == [(0, 0), (1, 0.75), (2, 1.5)]
    [found] = trained(tiny(), spec(updates=1, batch_size=100), [job()])
    assert [(p["update"], p["epoch"]) for p in found.curve] == [(0, 0), (1, 1)]


def test_a_curve_reads_so_many_examples_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CURVE_EXAMPLES", 3)
    monkeypatch.setattr(training, "PART", 2)
    model, one = tiny(), job()
    [found] = trained(model, spec(updates=1), [one])
    first = one.train.part(range(3))
    assert found.curve[0]["train_loss"] == pytest.approx(nll(model, first), abs=1e-4)


def test_best_keeps_the_weights_of_the_lowest_validation_loss() -> None:
    model, said = tiny("opt-post-norm"), spec(learning_rate=3e-3, updates=8, selection="best")
    jobs = [job(seed) for seed in range(4)]
    with learner(model, said, LABELS) as learning:
        found = train(learning, jobs, cross_entropy)
        for one, given in zip(found, jobs, strict=True):
            losses = {point["update"]: point["validation_loss"] for point in one.curve}
            assert losses[one.kept] == min(losses.values())
            with applied(learning, one.weights) as changed:
                assert nll(changed, given.validation) == pytest.approx(losses[one.kept], abs=1e-4)
    assert len({one.kept for one in found}) >= 3, "all were best at the same update"


def test_a_loss_that_is_no_number_is_one_line_with_run_and_update() -> None:
    """Of the run whose loss it is: here the one that has an example of label 1 in its batch."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.where(targets == 1, float("nan"), cross_entropy(logits, targets))

    one = job()
    zeros, mixed = (
        Examples(one.train.prompts, torch.tensor(t).view(4, 1)) for t in ([0] * 4, [0, 0, 0, 1])
    )
    jobs = [Job(zeros, zeros, name="the first"), Job(mixed, zeros, name="the second")]
    match = r"loss is nan nats after \d of 5 updates \(the second\)"
    with pytest.raises(UserError, match=match), learner(tiny(), spec(), LABELS) as learning:
        train(learning, jobs, loss)


@pytest.mark.parametrize(("updates", "at"), [(5, 1), (1, 1)])
def test_a_training_that_diverges_is_one_line(updates: int, at: int) -> None:
    """Also when the last update does it."""
    with pytest.raises(
        UserError, match=rf"nats after {at} of {updates} updates \(job 0\)"
    ) as caught:
        trained(tiny(), spec(learning_rate=1e6, updates=updates), [job()])
    assert "smaller learning rate" in str(caught.value)


def test_a_model_that_is_not_a_number_is_one_line() -> None:
    model = tiny()
    with torch.no_grad():
        model.model.base_model.decoder.layers[0].fc1.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"loss is nan nats after 0 of 5 .* weights are damaged"):
        trained(model, spec(), [job()])
    model.model.half()
    with pytest.raises(UserError, match=r"after 0 of 5 .*: use dtype float32 in place of float16"):
        trained(model, spec(), [job()])


def test_the_seconds_leave_the_curve_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def taking(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any) -> Any:
            nonlocal now
            now += seconds
            return work(*args)

        return done

    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(training, "measure", taking(1000, training.measure))
    monkeypatch.setattr(training, "_accumulate", taking(6, training._accumulate))
    found = trained(tiny(), spec(updates=5), [job(0), job(1), job(2)])
    assert [one.seconds for one in found] == [10, 10, 10]


@pytest.mark.parametrize("shape", MODELS)
def test_a_bfloat16_model_learns_in_float32(shape: str) -> None:
    [found] = trained(tiny(shape, dtype=torch.bfloat16), spec(updates=8), [job()])
    assert {weight.dtype for weight in found.weights.values()} == {torch.float32}
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"] / 2


def test_the_parameter_decides_what_a_model_is_trained_in_and_no_device_does() -> None:
    types = (torch.float32, torch.bfloat16, torch.float16)
    assert [precision(dtype) for dtype in types] == [types[0], types[1], types[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_training_asks_for_autocast_in_half_precision_alone(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    usual = torch.autocast

    def autocast(kind: str, dtype: torch.dtype, enabled: bool) -> Any:
        asked.append((kind, dtype, enabled))
        return usual("cpu", dtype, enabled=enabled)

    monkeypatch.setattr(torch, "autocast", autocast)
    trained(tiny(dtype=dtype), spec(updates=1), [job()])
    assert {(kind, enabled) for kind, _, enabled in asked} == {("cpu", dtype != torch.float32)}
    assert {kind for _, kind, _ in asked} == {precision(dtype)}


def test_a_token_that_the_model_lacks_is_one_line() -> None:
    few = Examples([[2, VOCABULARY]], torch.tensor([[0]]))
    with pytest.raises(UserError, match=f"a text has token {VOCABULARY}"):
        trained(tiny(), spec(), [Job(few, few)])
