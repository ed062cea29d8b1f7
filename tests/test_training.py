"""The training loop: held to a plain one, packed and padded, whole and in parts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import DynamicCache

from llmft import UserError
from llmft.engine import attention, scoring, training
from llmft.engine.learner import Reader, holding, learner, start, with_weights
from llmft.engine.models import Model
from llmft.engine.scoring import score
from llmft.engine.spec import Spec
from llmft.engine.training import (
    Examples,
    Job,
    Trained,
    _order,
    _schedule,
    backward,
    cross_entropy,
    precision,
    train,
)

from .tiny import MODELS, POSITIONS, UNNAMED, VOCABULARY, WINDOW, WINDOWED
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
    monkeypatch.setattr(scoring, "probe", lambda *_: None)  # it is of float32


def trained(model: Model, said: Spec, one: Job, **options: Any) -> Trained:
    with learner(model, said, LABELS) as learning:
        return train(learning, one, cross_entropy, **options)


def same(one: Trained, other: Trained, tolerance: float = 1e-9) -> bool:
    """The same weights, none missing, and learning curves."""
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
    found = trained(tiny(shape, dtype=torch.float64), said, one)
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
                parameter.grad *= min(1.0, 1 / (float(norm) + 1e-6))
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


# --- packed and padded, one batch in parts -------------------------------------------------------


def one_by_one(
    body: Any, prompts: Sequence[Sequence[int]], prefix: DynamicCache | None = None
) -> torch.Tensor:
    """What `run_packed` gives: each prompt alone behind the prefix, under the model's own mask."""
    alone = []
    for prompt in prompts:
        layers: Any = prefix.layers if prefix else []
        kept = DynamicCache([(layer.keys, layer.values) for layer in layers]) if prefix else None
        found = body(input_ids=torch.tensor([prompt]), past_key_values=kept)
        alone.append(found.last_hidden_state[0])
    return torch.cat(alone)


def gradients(
    model: Model, said: Spec, batch: Examples, context: Sequence[int] = ()
) -> dict[str, torch.Tensor]:
    """Of the batch's mean loss, by the names of the weights that change."""
    with learner(model, said, LABELS, context) as learning:
        weights = start(learning, 3)
        for name, value in weights.items():
            if ".lora_B" in name:  # else A has no gradient
                value.copy_(torch.linspace(-1, 1, value.numel()).view(value.shape))
        with holding(learning, weights) as parameters:
            backward(learning, batch, cross_entropy, [0], len(batch))
            return {
                name: parameter.grad.clone()
                for name, parameter in zip(weights, parameters, strict=True)
                if parameter.grad is not None
            }


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("shape", "method", "objective"), SHAPES)
def test_gradients_of_packed_prompts_are_those_of_each_alone(
    shape: str, method: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, of prompts of one token up to forty, one of them twice."""
    model = tiny(shape, dtype=torch.float64)
    given = examples(9, seed=1, longest=40)
    batch = Examples([[7], *given.prompts, given.prompts[0]], given.targets[[0, *range(9), 0]])
    packed = gradients(model, spec(method, objective), batch)
    monkeypatch.setattr(attention, "run_packed", one_by_one)
    plain = gradients(model, spec(method, objective), batch)
    least = 1e-3 if method == "vera" else 1e-2  # its vectors start at zero and at a tenth
    assert max(float(gradient.abs().max()) for gradient in plain.values()) > least
    torch.testing.assert_close(packed, plain, atol=1e-10, rtol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shape", MODELS)
def test_gradients_of_a_prefix_are_those_of_each_prompt_alone_behind_it(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(shape, dtype=torch.float64)
    teacher: dict[str, Any] = {"queries": 4, "rounds": 1, "temperature": 1.0}
    said = spec("distillation", prefix=6, **teacher)
    batch = examples(9, seed=1, longest=40)
    packed = gradients(model, said, batch, range(20, 27))
    monkeypatch.setattr(attention, "run_packed", one_by_one)
    plain = gradients(model, said, batch, range(20, 27))
    assert max(float(gradient.abs().max()) for gradient in plain.values()) > 1e-3
    torch.testing.assert_close(packed, plain, atol=1e-10, rtol=1e-10)


LONG = Examples(
    [list(range(5, 5 + n)) for n in (3, WINDOW, 70, 9)], torch.tensor([[0], [1], [0], [1]])
)


def windowed(name: str) -> Model:
    return Model(WINDOWED[name](), None, name, "", "", torch.device("cpu"), POSITIONS, 0)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", sorted(WINDOWED.keys() - UNNAMED))
def test_local_attention_is_trained_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = windowed(name)
    model.model.double()
    packed = gradients(model, spec(), LONG)
    monkeypatch.setattr(attention, "run_packed", one_by_one)
    torch.testing.assert_close(packed, gradients(model, spec(), LONG), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", UNNAMED)
def test_local_attention_that_no_layer_names_is_not_trained(name: str) -> None:
    lines = "cannot be packed: use another model|gives other log-probabilities"
    with pytest.raises(UserError, match=lines):
        trained(windowed(name), spec(), Job(LONG, LONG))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("token_budget", [1, 30])
def test_a_batch_in_parts_is_the_whole_batch(shape: str, token_budget: int) -> None:
    model = tiny(shape, dtype=torch.float64)
    whole = trained(model, spec(updates=3), job(1))
    parts = trained(model, spec(updates=3), job(1), token_budget=token_budget)
    assert same(whole, parts)


@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("token_budget", [0, 30])
def test_dropout_is_drawn_by_a_runs_own_seed(shape: str, token_budget: int) -> None:
    """And whatever was drawn before; the process's own generator is left where it was."""
    model, one = tiny(shape, dropout=0.1), job(1)
    torch.manual_seed(0)
    first = trained(model, spec(), one, token_budget=token_budget)
    drawn = torch.rand(1)
    other = trained(model, spec(), replace(one, init_seed=5), token_budget=token_budget)
    round_2 = trained(model, spec(), replace(one, round=1, order_seed=1), token_budget=token_budget)
    again = trained(model, spec(), one, token_budget=token_budget)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    for name, value in again.weights.items():  # bits depend on addresses
        torch.testing.assert_close(value, first.weights[name], atol=1e-5, rtol=0)
    pd.testing.assert_frame_equal(pd.DataFrame(again.curve), pd.DataFrame(first.curve), atol=1e-6)
    without = trained(tiny(shape), spec(), one, token_budget=token_budget)
    for changed in (other, round_2, without):
        differences = [(first.weights[n] - w).abs().max() for n, w in changed.weights.items()]
        assert max(differences) > 1e-3


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_dropout_drops_as_transformers_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean and spread of many losses with dropout are those of each prompt alone."""
    model = tiny("opt")
    for module in model.model.modules():
        if hasattr(module, "dropout"):
            attends = "Attention" in type(module).__name__
            module.dropout = 0.3 if attends == (kind == "attention_dropout") else 0.0
    few, draws = examples(6, 0, longest=12), []
    with learner(model, spec(), LABELS) as learning, torch.no_grad():
        for run in (attention.run_packed, one_by_one):
            monkeypatch.setattr(attention, "run_packed", run)
            torch.manual_seed(0)
            some = [training.logits(learning, few, dropout=True) for _ in range(400)]
            draws.append(torch.stack(some))
    packed, plain = draws
    noise = plain.std(0) / 20
    assert ((packed.mean(0) - plain.mean(0)).abs() < 6 * noise).all()
    torch.testing.assert_close(packed.std(0), plain.std(0), rtol=0.25, atol=0)
    assert (plain.std(0) > 1e-2).all()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("room", [3, 2, 1])
def test_out_of_memory_it_goes_on_with_smaller_parts(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """`room` is for so many prompts at once."""
    model = tiny(dtype=torch.float64)
    whole = trained(model, spec(updates=3), job(1))
    monkeypatch.setattr(Reader, "forward", cramped(Reader.forward, room))
    assert same(trained(model, spec(updates=3), job(1)), whole)


def cramped(forward: Callable[..., torch.Tensor], room: int) -> Callable[..., torch.Tensor]:
    def cramped_forward(reader: Any, prompts: Any, places: Any) -> torch.Tensor:
        if len(prompts) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(reader, prompts, places)

    return cramped_forward


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            UserError,
            "cpu has too little memory .* 8 to",
        ),
        (RuntimeError("can't allocate memory: you tried"), UserError, "use a smaller model, fewer"),
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
        trained(tiny(), spec(), job())
    assert "\n" not in str(caught.value)


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
        found = train(learning, Job(train_set, train_set), cross_entropy)
        with with_weights(learning, found.weights) as changed:
            right = score(changed.model, prompts, LABELS).argmax(1) == given.targets[:, 0]
            assert nll(changed, train_set) == pytest.approx(found.curve[-1]["train_loss"], abs=1e-4)
    assert right.all()
    assert not (score(model.model, prompts, LABELS).argmax(1) == given.targets[:, 0]).all()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_curve_begins_with_the_untrained_model_and_falls(dropout: float) -> None:
    model, few = tiny(dropout=dropout), examples(2, 0)
    given = Job(few, examples(5, 1))
    found = trained(model, spec(updates=8, batch_size=2), given)
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
    assert found.update == 8
    assert found.tokens == 8 * sum(map(len, few.prompts))


def test_epochs_count_examples_and_short_trainings_have_fewer_points() -> None:
    found = trained(tiny(), spec(updates=2, batch_size=3), job())
    assert [(p["update"], p["epoch"]) for p in found.curve] == [(0, 0), (1, 0.75), (2, 1.5)]
    found = trained(tiny(), spec(updates=1, batch_size=100), job())
    assert [(p["update"], p["epoch"]) for p in found.curve] == [(0, 0), (1, 1)]


def test_a_curve_reads_so_many_examples_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CURVE_EXAMPLES", 3)
    monkeypatch.setattr(training, "PART", 2)
    model, one = tiny(), job()
    found = trained(model, spec(updates=1), one)
    first = one.train.part(range(3))
    assert found.curve[0]["train_loss"] == pytest.approx(nll(model, first), abs=1e-4)


def test_best_keeps_the_weights_of_the_lowest_validation_loss() -> None:
    model, said = tiny("opt-post-norm"), spec(learning_rate=3e-3, updates=8, selection="best")
    jobs = [job(seed) for seed in range(4)]
    with learner(model, said, LABELS) as learning:
        found = [train(learning, one, cross_entropy) for one in jobs]
        for one, given in zip(found, jobs, strict=True):
            losses = {point["update"]: point["validation_loss"] for point in one.curve}
            assert losses[one.update] == min(losses.values())
            with with_weights(learning, one.weights) as changed:
                assert nll(changed, given.validation) == pytest.approx(losses[one.update], abs=1e-4)
    assert len({one.update for one in found}) >= 3, "all were best at the same update"


def test_a_loss_that_is_no_number_is_one_line_with_run_and_update() -> None:
    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.where(targets == 1, float("nan"), cross_entropy(logits, targets))

    prompts = job().train.prompts
    zeros, mixed = (Examples(prompts, torch.tensor(t).view(4, 1)) for t in ([0] * 4, [0, 0, 0, 1]))
    match = r"loss is nan nats after \d of 5 updates: "
    with learner(tiny(), spec(), LABELS) as learning:
        train(learning, Job(zeros, zeros), loss)
        with pytest.raises(UserError, match=match):
            train(learning, Job(mixed, zeros), loss)


@pytest.mark.parametrize(
    ("dtype", "way_out"), [("float32", "weights are damaged"), ("bfloat16", "use dtype float32")]
)
def test_a_loss_that_is_wrong_before_any_update_is_not_the_learning_rate_s(
    dtype: str, way_out: str
) -> None:
    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return logits.sum() * torch.nan

    found = pytest.raises(UserError, match=f"after 0 of .*{way_out}")
    with learner(tiny(), spec(dtype=dtype), LABELS) as learning, found:
        train(learning, job(), loss)


@pytest.mark.parametrize(("updates", "at"), [(5, 1), (1, 1)])
def test_a_training_that_diverges_is_one_line(updates: int, at: int) -> None:
    """Also when the last update does it."""
    with pytest.raises(UserError, match=rf"nats after {at} of {updates} updates: use") as caught:
        trained(tiny(), spec(learning_rate=1e6, updates=updates), job())
    assert "smaller learning rate" in str(caught.value)


def test_a_model_that_is_not_a_number_is_one_line() -> None:
    model = tiny()
    with torch.no_grad():
        model.model.base_model.decoder.layers[0].fc1.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"gives NaN or infinity: its weights are damaged"):
        trained(model, spec(), job())
    model.model.half()
    with pytest.raises(UserError, match="gives NaN or infinity in float16: use dtype float32"):
        trained(model, spec(), job())


def test_the_seconds_leave_the_curve_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def taking(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any) -> Any:
            nonlocal now
            now += seconds
            return work(*args)

        return done

    monkeypatch.setattr(training, "clock", lambda _device: (now, "wall"))
    monkeypatch.setattr(training, "measure", taking(1000, training.measure))
    monkeypatch.setattr(training, "backward", taking(6, training.backward))
    assert trained(tiny(), spec(updates=5), job()).seconds == 30


@pytest.mark.parametrize("shape", MODELS)
def test_a_bfloat16_model_learns_in_float32(shape: str) -> None:
    found = trained(tiny(shape, dtype=torch.bfloat16), spec(updates=8), job())
    assert {weight.dtype for weight in found.weights.values()} == {torch.float32}
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"] / 2


def test_the_parameter_decides_what_a_model_is_trained_in_and_no_device_does() -> None:
    types = (torch.float32, torch.bfloat16, torch.float16)
    assert [precision(dtype) for dtype in types] == [types[0], types[1], types[1]]


def test_a_token_that_the_model_lacks_is_one_line() -> None:
    few = Examples([[2, VOCABULARY]], torch.tensor([[0]]))
    with pytest.raises(UserError, match=f"a text has token {VOCABULARY}"):
        trained(tiny(), spec(), Job(few, few))
