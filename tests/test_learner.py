"""A model made ready to learn, read, put back as it was, and saved."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmft import UserError
from llmft.engine import models
from llmft.engine.learner import (
    ALL_LAYERS,
    Learner,
    holding,
    learner,
    save,
    start,
    with_weights,
)
from llmft.engine.models import Model
from llmft.engine.scoring import score, score_plainly
from llmft.engine.spec import ADAPTERS, OBJECTIVES, Spec
from llmft.engine.training import (
    Examples,
    cross_entropy,
    labelled,
    logits,
    total_loss,
    train,
)
from llmft.nli import prompts

from .tiny import MODELS, POSITIONS, VOCABULARY, WINDOWED
from .training import LABELS, LEARNERS, SHAPES, job, spec, tiny


PROMPTS = [[2, 5, 9, 30, 8], [2, 7, 7], [2, 40, 41, 42]]


@pytest.fixture
def base(tiny_checkpoint: Path) -> Model:
    return models.load(str(tiny_checkpoint), device="cpu")


# --- logits and losses -------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["label words", "vocabulary", "head"])
@pytest.mark.parametrize("shape", MODELS)
def test_the_loss_is_minus_log_softmax_at_the_answer_position(shape: str, objective: str) -> None:
    """In one batch, and by hand for each prompt alone."""
    model, run_spec = tiny(shape), spec(objective=objective)
    model.model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, VOCABULARY))
    targets = [0, 1, 1]
    classes = [LABELS[i] for i in targets] if objective == "vocabulary" else targets
    batch = Examples(PROMPTS, torch.tensor(classes).unsqueeze(1))
    with learner(model, run_spec, LABELS) as learning, torch.no_grad():
        weights = start(learning, 3)
        with holding(learning, weights):
            found_logits = logits(learning, batch)
    losses = [
        total_loss(found_logits[[i]], batch.part([i]), cross_entropy).item() for i in range(3)
    ]
    for prompt, target, result in zip(PROMPTS, targets, losses, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            at = model.model(input_ids=ids).logits[0, -1]
            hidden = model.model.base_model(input_ids=ids).last_hidden_state[0, -1]
            head = weights.get("head", torch.zeros(2, len(hidden)))
        by_hand = {
            "label words": at[list(LABELS)].log_softmax(0)[target],
            "vocabulary": at.log_softmax(0)[LABELS[target]],
            "head": (head @ hidden).log_softmax(0)[target],
        }[objective]
        assert result == pytest.approx(-by_hand.item(), abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_example_is_the_zero_shot_prompt_and_its_label(base: Model, objective: str) -> None:
    frame = pd.DataFrame(
        {"premise": ["The judge ran ."], "hypothesis": ["The judge ."], "label": 1}
    )
    result = labelled(frame, spec(objective=objective), base)
    assert result.prompts == [base.tokenizer("The judge ran . The judge . ?")["input_ids"]]
    [no] = base.tokenizer(" No", add_special_tokens=False)["input_ids"]
    [ids] = result.prompts
    if objective == "query":
        assert result.targets.tolist() == [[*ids[1:], no]]
        assert result.places.tolist() == [list(range(len(ids)))]
    else:
        assert result.targets.tolist() == [[no if objective == "vocabulary" else 1]]
        assert result.places.tolist() == [[len(ids) - 1]]


@pytest.mark.parametrize("method", ["fine-tuning", "lora"])
def test_objective_query_is_the_answers_loss_and_that_of_the_text(base: Model, method: str) -> None:
    """Value and gradient, against transformers' own loss of each prompt alone, nothing padded."""
    frame = pd.DataFrame(
        {
            "premise": ["The judge ran .", "The doctor saw the lawyer . The actor ran ."],
            "hypothesis": ["The judge .", "The artist saw the senator ."],
            "label": [1, 0],
        }
    )
    run_spec = spec(method, "query")
    words = prompts.label_tokens(base.tokenizer, run_spec.wording)
    batch = labelled(frame, run_spec, base)
    assert len({len(prompt) for prompt in batch.prompts}) == 2
    with learner(base, run_spec, words) as learning:
        for name, parameter in learning.reader.named_parameters():
            if "lora_A" in name:  # else B = 0, and A has no gradient
                torch.nn.init.normal_(parameter)
        loss = total_loss(logits(learning, batch), batch, cross_entropy)
        weight = dict(learning.reader.named_parameters())[max(learning.names)]
        [result] = torch.autograd.grad(loss, weight)
        plain = learning.model.model
        by_hand = torch.zeros(())
        for prompt, label in zip(batch.prompts, frame["label"], strict=True):
            ids = torch.tensor([prompt])
            output = plain(input_ids=ids, labels=ids)
            answer = output.logits[0, -1].log_softmax(0)[words[label]]
            by_hand = by_hand + output.loss - answer
        [expected] = torch.autograd.grad(by_hand, weight)
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-4)
    assert expected.abs().max() > 0
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


def test_the_answer_counts_as_much_as_the_other_places_together() -> None:
    model, run_spec = tiny(), spec()
    batch = Examples(
        PROMPTS[:2],
        torch.tensor([[0, 1, 1], [1, 0, 0]]),
        places=torch.tensor([[0, 2, 4], [1, -1, -1]]),
    )
    with learner(model, run_spec, LABELS) as learning, torch.no_grad():
        result = total_loss(logits(learning, batch), batch, cross_entropy).item()
        logp = [
            model.model(input_ids=torch.tensor([p])).logits[0][:, list(LABELS)].log_softmax(-1)
            for p in PROMPTS
        ]
    by_hand = -(logp[0][0, 0] + logp[0][2, 1]) / 2 - logp[0][4, 1] - logp[1][1, 1]
    assert result == pytest.approx(by_hand.item(), abs=1e-5)


# --- weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", MODELS)
def test_lora_starts_as_the_model_itself(shape: str) -> None:
    model = tiny(shape)
    before = score(model.model, PROMPTS, LABELS)
    with learner(model, spec("lora"), LABELS) as learning:
        first, other, again = (start(learning, seed) for seed in (0, 1, 0))
        with with_weights(learning, first) as changed:
            scores = score(changed.model, PROMPTS, LABELS)
            torch.testing.assert_close(scores, before, atol=1e-6, rtol=0)
    a = [name for name in first if ".lora_A" in name]
    assert len(a) == len(first) / 2 == 4
    assert not any(torch.equal(first[name], other[name]) for name in a)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_head_starts_as_its_seed_draws_it() -> None:
    with learner(tiny(), spec(objective="head"), LABELS) as learning:
        first, other, again = (start(learning, seed)["head"] for seed in (0, 1, 0))
    assert not torch.equal(first, other)
    assert torch.equal(first, again)


@pytest.mark.parametrize("shape", MODELS)
def test_lora_adds_alpha_over_rank_b_a(shape: str) -> None:
    model, run_spec = tiny(shape), spec("lora", rank=3, alpha=7.0, targets="v_proj, q_proj")
    with learner(model, run_spec, LABELS) as learning:
        weights = train(learning, job(), cross_entropy).weights
        with with_weights(learning, weights) as changed:
            result = score(changed.model, PROMPTS, LABELS)
    assert (score(model.model, PROMPTS, LABELS) - result).abs().max() > 1e-2
    by_hand = tiny(shape).model
    with torch.no_grad():
        for name, layer in by_hand.base_model.named_modules():
            if name.endswith(("q_proj", "v_proj")):
                a, b = (weights[f"body.{name}.lora_{x}.default.weight"] for x in "AB")
                layer.weight += 7 / 3 * b @ a
    torch.testing.assert_close(score_plainly(by_hand, PROMPTS, LABELS), result, atol=1e-4, rtol=0)


def changed_by_hand(method: str, learning: Learner, name: str, layer: Any, new: Any) -> None:
    """Put what a method has learnt beside one layer into the layer's own weight, by its paper."""
    alpha, rank = learning.spec.alpha, learning.spec.rank
    if method == "ia3":
        scale = new["ia3_l.default"]
        layer.weight *= scale
        if "fc2" not in name and "down_proj" not in name and layer.bias is not None:
            layer.bias *= scale.flatten()
        return
    if method == "vera":
        tuner = learning.model.model.base_model
        d_out, d_in = layer.weight.shape
        a, b = tuner.vera_A["default"][:, :d_in], tuner.vera_B["default"][:d_out]
        rows, columns = new["vera_lambda_b.default"], new["vera_lambda_d.default"]
        layer.weight += rows[:, None] * (b @ (columns[:, None] * a))
        return
    scale = alpha / rank**0.5 if method == "rslora" else alpha / rank
    layer.weight += scale * new["lora_B.default.weight"] @ new["lora_A.default.weight"]
    if method == "dora":
        length = new["lora_magnitude_vector.default.weight"]
        layer.weight *= (length / layer.weight.norm(dim=1))[:, None]


@pytest.mark.parametrize("method", ["rslora", "dora", "vera", "ia3"])
@pytest.mark.parametrize("shape", MODELS)
def test_a_method_computes_what_its_paper_says(shape: str, method: str) -> None:
    """At the start it is the model itself; trained, it is one with other weights in its layers."""
    model = tiny(shape)
    by_hand, before = tiny(shape).model, score(model.model, PROMPTS, LABELS)
    changes = {} if method == "ia3" else {"targets": ALL_LAYERS}
    with learner(model, spec(method, learning_rate=0.1, **changes), LABELS) as learning:
        with with_weights(learning, start(learning, 0)) as changed:
            scores = score(changed.model, PROMPTS, LABELS)
            torch.testing.assert_close(scores, before, atol=1e-6, rtol=0)
        weights = train(learning, job(), cross_entropy).weights
        with with_weights(learning, weights) as changed:
            result = score(changed.model, PROMPTS, LABELS)
        with torch.no_grad():
            for name, layer in by_hand.base_model.named_modules():
                start_of = f"body.{name}."
                own = {n: w for n, w in weights.items() if n.startswith(start_of)}
                if own and isinstance(layer, torch.nn.Linear):
                    new = {n.removeprefix(start_of): w for n, w in own.items()}
                    changed_by_hand(method, learning, name, layer, new)
    assert (result - before).abs().max() > 1e-2
    torch.testing.assert_close(score_plainly(by_hand, PROMPTS, LABELS), result, atol=1e-4, rtol=0)


def test_veras_fixed_weights_are_drawn_by_the_runs_seed() -> None:
    drawn = []
    for seed in (0, 1, 0):
        with learner(tiny(), spec("vera", init_seed=seed), LABELS) as learning:
            drawn.append(learning.model.model.base_model.vera_A["default"].clone())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(("method", "objective"), LEARNERS)
def test_only_what_the_method_names_changes(method: str, objective: str) -> None:
    model = tiny()
    own = {f"body.{name}" for name, _ in model.model.base_model.named_parameters()}
    with learner(model, spec(method, objective), LABELS) as learning:
        names = set(learning.names)
    layers = [f"body.decoder.layers.{i}" for i in range(2)]
    queries_values = [f"{layer}.self_attn.{x}_proj" for layer in layers for x in "qv"]
    scaled = [f"{layer}.{x}" for layer in layers for x in ("self_attn.k_proj", "self_attn.v_proj")]
    scaled += [f"{layer}.fc2" for layer in layers]
    low_rank = {f"{name}.lora_{x}.default.weight" for name in queries_values for x in "AB"}
    lengths = {f"{name}.lora_magnitude_vector.default.weight" for name in queries_values}
    expected = {
        "fine-tuning": own,
        "lora": low_rank,
        "rslora": low_rank,
        "dora": low_rank | lengths,
        "vera": {f"{name}.vera_lambda_{x}.default" for name in queries_values for x in "bd"},
        "ia3": {f"{name}.ia3_l.default" for name in scaled},
        "bitfit": {name for name in own if name.endswith(".bias")},
        "probe": set(),
    }[method]
    assert names == expected | ({"head"} if objective == "head" else set())


# --- a prefix ---------------------------------------------------------------------------------


CONTEXT = [2, 11, 48, 9, 33, 7, 60, 61, 62]


def prefix_spec(positions: int = 6, **changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "prefix": positions, "queries": 4, "rounds": 1, "temperature": 1.0, "learning_rate": 0.1
    }  # fmt: skip
    return spec("distillation", **fields | changes)


@pytest.mark.parametrize("shape", MODELS)
def test_a_prefix_begins_as_the_context_in_the_prompt(shape: str) -> None:
    """Scored, scored plainly (PEFT's own forward), and as training reads it; all of the context."""
    model = tiny(shape)
    in_the_prompt = score_plainly(model.model, [[*CONTEXT, *p] for p in PROMPTS], LABELS)
    others = score_plainly(model.model, PROMPTS, LABELS)
    assert (in_the_prompt - others).abs().max() > 1e-2
    places = torch.tensor([[len(prompt) - 1] for prompt in PROMPTS])
    with learner(model, prefix_spec(len(CONTEXT)), LABELS, CONTEXT) as learning:
        with with_weights(learning, start(learning, 0)) as behind:
            for found in (
                score(behind.model, PROMPTS, LABELS),
                score_plainly(behind.model, PROMPTS, LABELS),
                learning.reader(PROMPTS, places).log_softmax(dim=-1),
            ):
                torch.testing.assert_close(found, in_the_prompt, atol=1e-5, rtol=0)
        assert behind.max_positions == model.max_positions - len(CONTEXT)
        with pytest.raises(UserError, match=f"the model sees {POSITIONS - len(CONTEXT)}"):
            score(behind.model, [[5] * (POSITIONS - len(CONTEXT) + 1)], LABELS)
    assert score_plainly(model.model, PROMPTS, LABELS).equal(others)


def test_a_prefix_is_the_context_s_first_tokens_and_all_but_the_first_learn() -> None:
    model = tiny("llama")
    first = score_plainly(model.model, [[*CONTEXT[:6], *p] for p in PROMPTS], LABELS)
    with learner(model, prefix_spec(6), LABELS, CONTEXT) as learning:
        begin = start(learning, 0)
        with with_weights(learning, begin) as behind:
            torch.testing.assert_close(
                score(behind.model, PROMPTS, LABELS), first, atol=1e-5, rtol=0
            )
        trained = train(learning, job(), cross_entropy)
        with with_weights(learning, trained.weights) as behind:
            torch.testing.assert_close(
                score(behind.model, PROMPTS, LABELS),
                score_plainly(behind.model, PROMPTS, LABELS),
                atol=1e-5,
                rtol=0,
            )
            assert (score(behind.model, PROMPTS, LABELS) - first).abs().max() > 1e-2
        learns = [name for name, p in learning.reader.named_parameters() if p.requires_grad]
    assert learns == [*begin] == ["prefix.default.trainable_embedding"]
    # Keys and values of two layers, two heads of eight numbers each.
    assert begin[learns[0]].shape == (6 - 1, 2 * 2 * 2 * 8)
    assert (trained.weights[learns[0]] != begin[learns[0]]).all()
    for parameter in model.model.parameters():
        assert parameter.grad is None


@pytest.mark.parametrize("shape", ["mistral", "gemma3"])
def test_training_behind_a_prefix_sees_its_window(shape: str) -> None:
    """Prompts and prefix longer than the window; those that the layer names are met there, too."""
    causal_lm = WINDOWED[shape]()
    model = Model(causal_lm, None, shape, "", "", torch.device("cpu"), POSITIONS, 0)
    context = [2, *range(10, 40)]
    long = [[*range(100, 130)], [*range(50, 61)]]
    plain = score_plainly(causal_lm, [[*context, *prompt] for prompt in long], LABELS)
    places = torch.tensor([[len(prompt) - 1] for prompt in long])
    with learner(model, prefix_spec(len(context)), LABELS, context) as learning, torch.no_grad():
        found = learning.reader(long, places).log_softmax(dim=-1)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=0)


def test_a_context_shorter_than_the_prefix_is_one_line() -> None:
    with (
        pytest.raises(UserError, match="this one has 9: use fewer positions"),
        learner(tiny(), prefix_spec(10), LABELS, CONTEXT),
    ):
        pass


# --- as it was ---------------------------------------------------------------------------------


def snapshot(model: Any) -> dict[str, Any]:
    return {
        "gradients": [p.grad for p in model.parameters()],
        "modules": [(n, type(module), sorted(vars(module))) for n, module in model.named_modules()],
        "training": [module.training for module in model.modules()],
        "tied": model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        "config": model.config.to_dict(),
        "attention": model.config._attn_implementation,
    }


@pytest.mark.parametrize("shape", MODELS)
def test_the_model_is_after_a_prefix_as_it_was(shape: str) -> None:
    model = tiny(shape)
    before, weights = snapshot(model.model), model.model.state_dict()
    weights = {name: value.clone() for name, value in weights.items()}
    with learner(model, prefix_spec(), LABELS, CONTEXT) as learning:
        trained = train(learning, job(), cross_entropy)
        with with_weights(learning, trained.weights) as changed:
            score(changed.model, PROMPTS, LABELS)
    assert snapshot(model.model) == before
    after = model.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items())


@pytest.mark.parametrize(("shape", "method", "objective"), SHAPES)
def test_the_model_is_afterwards_as_it_was(shape: str, method: str, objective: str) -> None:
    """After training and scoring, a loss that runs away, and an error inside."""
    model = tiny(shape)
    before = snapshot(model.model)
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    assert before["tied"] == (shape != "llama")

    def as_it_was() -> bool:
        assert snapshot(model.model) == before
        after = model.model.state_dict()
        assert after.keys() == weights.keys()
        return all(torch.equal(after[name], value) for name, value in weights.items())

    with learner(model, spec(method, objective), LABELS) as learning:
        trained = train(learning, job(), cross_entropy)
        with with_weights(learning, trained.weights) as changed:
            score(changed.model, PROMPTS, LABELS)
    assert as_it_was()
    run_spec = spec(method, objective)
    with pytest.raises(UserError, match="nats"), learner(model, run_spec, LABELS) as learning:
        train(learning, job(), lambda logits, _: logits[:, 0] * float("nan"))
    assert as_it_was()
    with suppress(KeyboardInterrupt), learner(model, run_spec, LABELS) as learning:
        begin = start(learning, 7)
        with with_weights(learning, {name: value + 1 for name, value in begin.items()}):
            raise KeyboardInterrupt
    assert as_it_was()


@pytest.mark.parametrize(
    ("shape", "method", "changes", "line"),
    [
        ("llama", "bitfit", {}, "model llama has no biases"),
        ("llama", "bitfit", {"objective": "head"}, "model llama has no biases"),
        (
            "opt",
            "lora",
            {"targets": "q_proj,w_proj"},
            "'w_proj' .* k_proj, v_proj, q_proj, out_pro",
        ),
        ("llama", "lora", {"targets": "fc1"}, "layers are q_proj, k_proj, v_proj, o_proj, gate_pr"),
        ("opt", "lora", {"targets": "lm_head"}, "'lm_head'"),
        ("opt", "lora", {"targets": "q_proj,"}, "no linear layer ''"),
    ],
)
def test_what_a_model_lacks_is_one_line(
    shape: str, method: str, changes: dict[str, Any], line: str
) -> None:
    model = tiny(shape)
    before = snapshot(model.model)
    run_spec = spec(method, **changes)
    with pytest.raises(UserError, match=line) as error, learner(model, run_spec, LABELS):
        pass
    assert "\n" not in str(error.value)
    assert snapshot(model.model) == before


# --- saved -------------------------------------------------------------------------------------


def trained(learning: Learner, folder: Path) -> torch.Tensor:
    """Save what a short training gives, and how it scores."""
    weights = train(learning, job(), cross_entropy).weights
    with with_weights(learning, weights) as changed:
        save(learning, folder, asdict(learning.spec))
        return score(changed.model, PROMPTS, LABELS)


@pytest.mark.parametrize(
    ("method", "objective"), [learner for learner in LEARNERS if learner != ("lora", "head")]
)
def test_what_is_saved_loads_and_scores_the_same(
    base: Model, method: str, objective: str, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "key"
    run_spec = spec(method, objective)
    before, config = score(base.model, PROMPTS, LABELS), base.model.config.to_dict()
    with learner(base, run_spec, LABELS) as learning:
        result = trained(learning, folder)
        assert (result - before).abs().max() > 1e-2
    assert base.model.config.to_dict() == config
    again = models.load(str(folder), device="cpu")
    torch.testing.assert_close(score(again.model, PROMPTS, LABELS), result, atol=1e-5, rtol=0)
    assert json.loads((folder / "run.json").read_text()) == asdict(run_spec)
    assert again.name == str(folder)
    assert again.digest != base.digest
    assert again.tokenizer("The doctor")["input_ids"] == base.tokenizer("The doctor")["input_ids"]
    assert (folder / "model.safetensors").exists() == (method not in ADAPTERS)
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


def test_a_saved_prefix_loads_and_scores_the_same(base: Model, tmp_path: Path) -> None:
    with learner(base, prefix_spec(), LABELS, CONTEXT) as learning:
        result = trained(learning, tmp_path / "prefix")
    again = models.load(str(tmp_path / "prefix"), device="cpu")
    torch.testing.assert_close(score(again.model, PROMPTS, LABELS), result, atol=1e-5, rtol=0)
    assert again.max_positions == base.max_positions - 6
    assert not (tmp_path / "prefix" / "model.safetensors").exists()


def test_a_saved_model_is_trained_on(base: Model, tmp_path: Path) -> None:
    """A whole one; of an adapter, its line says what to do."""
    for method in ("fine-tuning", "lora"):
        with learner(base, spec(method), LABELS) as learning:
            trained(learning, tmp_path / method)
    whole, adapter = (models.load(str(tmp_path / m), device="cpu") for m in ("fine-tuning", "lora"))
    with learner(whole, spec("lora"), LABELS) as learning:
        train(learning, job(), cross_entropy)
    with pytest.raises(UserError, match="adapter"), learner(adapter, spec("lora"), LABELS):
        pass


def test_what_cannot_be_saved_is_one_line_and_leaves_nothing(
    base: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with learner(base, spec("lora", "head"), LABELS) as learning:
        start(learning, 0)
        with pytest.raises(UserError, match="an adapter with a head cannot be saved"):
            save(learning, tmp_path / "head", {})
    with learner(base, spec(objective="head"), LABELS) as learning:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        start(learning, 0)
        monkeypatch.setattr(base.model, "save_pretrained", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            save(learning, tmp_path / "full", {})
        assert base.model.config.tie_word_embeddings
    assert not list(tmp_path.iterdir())


def test_saving_again_takes_the_place_of_what_was_there(base: Model, tmp_path: Path) -> None:
    folder, leftover = tmp_path / "key", tmp_path / ".key.part"
    for path in (folder, leftover):  # an older model, and what a killed process left half-written
        path.mkdir()
        (path / "old").touch()
    with learner(base, spec("lora"), LABELS) as learning:
        trained(learning, folder)
    assert not (folder / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def lose_a_weight(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    weights.popitem()
    save_file(weights, path, metadata={"format": "pt"})


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "saved"
    with learner(models.load(str(tiny_checkpoint), device="cpu"), spec("lora"), LABELS) as learning:
        trained(learning, folder)
    return folder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "adapter_config.json").write_text("{"), "files or damaged: restore it"),
        (
            lambda f: (f / "adapter_config.json").write_text("{}"),
            "names no model",
        ),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "files or damaged: restore it"),
        (lambda f: change_config(f, lambda c: c | {"r": "many"}), "damaged"),
        (lambda f: change_config(f, lambda c: c | {"base_model_name_or_path": "/a b"}), "'/a b'"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "missing files or damaged"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"short"), "damaged"),
        (lose_a_weight, "damaged"),
    ],
)
def test_a_damaged_adapter_is_one_line(
    adapter: Path, tmp_path: Path, damage: Callable[[Path], Any], line: str
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "copy"))
    assert models.load(str(folder), device="cpu").model
    damage(folder)
    with pytest.raises(UserError, match=line) as error:
        models.load(str(folder), device="cpu")
    assert "\n" not in str(error.value)


def test_the_digest_of_an_adapter_follows_its_weights_and_its_model(
    adapter: Path, base: Model, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    other = Path(shutil.copytree(base.name, tmp_path / "other"))
    change_config(copy, lambda config: config | {"base_model_name_or_path": str(other)})
    digests = [base.digest, models.load(str(copy), device="cpu").digest]
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    digests.append(models.load(str(copy), device="cpu").digest)
    weights = copy / "adapter_model.safetensors"
    save_file({n: w + 1 for n, w in load_file(weights).items()}, weights, {"format": "pt"})
    digests.append(models.load(str(copy), device="cpu").digest)
    assert len(set(digests)) == 4
