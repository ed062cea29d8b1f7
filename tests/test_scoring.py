"""`score` is `score_plainly`, faster."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft import UserError
from llmft.engine import attention, scoring
from llmft.engine.scoring import common_prefix, distributions, pack, score, score_plainly, text_nll

from .tiny import (
    MODELS,
    POSITIONS,
    UNNAMED,
    VOCABULARY,
    WINDOW,
    WINDOWED,
    small_llama,
    small_opt,
)


LABELS = (7, 42)
CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 0}


def random_prompts(prefix: int, lengths: list[int], seed: int = 0) -> list[list[int]]:
    """Prompts with `prefix` tokens in common and `lengths` of their own, all beginning with 2."""
    draw = np.random.default_rng(seed).integers
    start = [2, *draw(3, VOCABULARY, prefix - 1).tolist()] if prefix else []
    return [[*start, *draw(3, VOCABULARY, n).tolist()] for n in lengths]


CASES = {
    "long prefix": random_prompts(200, [3, 30, 1, 12, 7, 30, 25, 40, 2, 2, 9]),
    "only the BOS in common": random_prompts(1, [5, 9, 60, 200]),
    "nothing in common": random_prompts(0, [4, 4, 8, 1]),
    "one prompt": random_prompts(20, [5]),
    "one token": [[2]],
    "duplicates": random_prompts(10, [6]) * 3 + random_prompts(10, [4]) * 2,
    "prefixes of each other": [[2, 9, 8, 7, 6][:n] for n in (3, 5, 1, 4, 2, 5)],
    "wider than a row": random_prompts(3, [300, 200, 2, 140]),
    "up to the last position": random_prompts(POSITIONS - 4, [4, 1, 2]),
}


@pytest.mark.parametrize("splits", [True, False], ids=["on a CPU", "as on a GPU"])
@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("case", sorted(CASES))
def test_equals_every_prompt_whole_and_alone(
    case: str, name: str, splits: bool, monkeypatch: Any
) -> None:
    model = MODELS[name]()
    monkeypatch.setattr(attention, "splits", lambda _: splits)
    expected = score_plainly(model, CASES[case], LABELS)
    found = score(model, CASES[case], LABELS)
    assert found.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"  # as it was
    torch.testing.assert_close(found, expected, **CLOSE)


def test_the_tiny_models_would_show_a_mistake(tiny_model: Any) -> None:
    # Guards the test above: other positions, or a look at the neighbour, must move the result.
    prompts = CASES["long prefix"]
    expected = score_plainly(tiny_model, prompts, LABELS)
    shifted = score_plainly(tiny_model, [prompt[:50] + prompt[51:] for prompt in prompts], LABELS)
    neighbour = score_plainly(
        tiny_model, [prompts[0][200:][:2] + prompt for prompt in prompts], LABELS
    )
    assert (shifted - expected).abs().max() > 1e-2
    assert (neighbour - expected).abs().max() > 1e-2
    assert expected.std(dim=0).min() > 1e-2


def test_rows_are_log_probabilities_over_the_labels(tiny_model: Any) -> None:
    found = score(tiny_model, CASES["long prefix"], (7, 42, 300))
    assert found.shape == (11, 3)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(11))


@pytest.mark.parametrize("budget", [1, 30, 64, 100, 1000, 100_000])
def test_the_budget_does_not_change_the_result(tiny_model: Any, budget: int) -> None:
    prompts = random_prompts(40, [int(n) for n in np.random.default_rng(1).integers(1, 60, 50)])
    expected = score_plainly(tiny_model, prompts, LABELS)
    found = score(tiny_model, prompts, LABELS, token_budget=budget)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_the_output_bias_counts() -> None:
    model = small_opt()
    model.lm_head.bias = torch.nn.Parameter(torch.linspace(-2, 2, VOCABULARY))
    prompts = CASES["long prefix"]
    torch.testing.assert_close(
        score(model, prompts, LABELS), score_plainly(model, prompts, LABELS), **CLOSE
    )


def test_bfloat16(tiny_model: Any) -> None:
    prompts = CASES["long prefix"]
    exact = score(tiny_model, prompts, LABELS)
    rounded = score(copy.deepcopy(tiny_model).to(torch.bfloat16), prompts, LABELS)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.3, rtol=0)


# peft 0.21 asks transformers 5.23 for a property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_an_adapter_counts() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(small_opt(), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.eval()
    prompts = CASES["long prefix"]
    found = score(model, prompts, LABELS)
    torch.testing.assert_close(found, score_plainly(model, prompts, LABELS), **CLOSE)
    with model.disable_adapter():
        assert (score(model, prompts, LABELS) - found).abs().max() > 1e-2


def test_a_model_in_training_is_scored_without_dropout_and_left_in_training() -> None:
    model = small_opt(dropout=0.5).train()
    found = score(model, CASES["long prefix"], LABELS)
    assert model.training
    expected = score_plainly(model.eval(), CASES["long prefix"], LABELS)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_no_prompts() -> None:
    assert score(small_opt(), [], LABELS).shape == (0, 2)


@pytest.mark.parametrize("make", [small_opt, WINDOWED["gemma3"]], ids=["opt", "gemma3"])
def test_the_prefix_is_run_once(make: Any) -> None:
    model, tokens = make(), []
    prompts = random_prompts(300, [10] * 40)
    score(model, prompts[:1], LABELS)  # the probe has been and gone
    model.model.register_forward_pre_hook(
        lambda _, __, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    score(model, prompts, LABELS)
    assert sum(tokens) <= 300 + 1.2 * 400


def out_of_memory_above(model: Any, limit: int) -> None:
    def refuse(_: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].numel() > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model.model.register_forward_pre_hook(refuse, with_kwargs=True)


def test_out_of_memory_halves_the_budget_and_goes_on() -> None:
    model, prompts = small_opt(), random_prompts(20, [12, 30, 8, 17, 22, 3] * 8)
    expected = score(model, prompts, LABELS)  # the probe has been and gone
    out_of_memory_above(model, 60)
    torch.testing.assert_close(score(model, prompts, LABELS, token_budget=2048), expected, **CLOSE)


def test_out_of_memory_for_good_is_one_line() -> None:
    model = small_opt()
    out_of_memory_above(model, 15)
    with pytest.raises(UserError, match="too little memory for a prompt of 50 tokens"):
        score(model, random_prompts(20, [30, 20, 10]), LABELS)


@pytest.mark.parametrize(
    ("prompts", "labels", "line"),
    [
        ([[2] * (POSITIONS + 1)], LABELS, f"{POSITIONS + 1} tokens, .* sees {POSITIONS}"),
        ([[2]], (7, VOCABULARY), "label tokens"),
        ([[2, 5], [2, VOCABULARY, 4]], LABELS, f"token {VOCABULARY}, and the model has tokens 0"),
    ],
)
def test_bad_input(prompts: Any, labels: tuple[int, ...], line: str) -> None:
    with pytest.raises(UserError, match=line):
        score(small_opt(), prompts, labels)


# --- layers that see a window ------------------------------------------------------------------

LONG_AND_SHORT = {
    "within the window": random_prompts(10, [4, 9, 7, 14, 3] * 4),
    "up to the window": random_prompts(8, [WINDOW - 8, 3, WINDOW - 8, 5]),
    "longer than the window": random_prompts(19, [4, 9, 7, 16, 3] * 4),
    "a long prefix": random_prompts(190, [10] * 40),  # F25's own
    "nothing in common": random_prompts(0, [40, 4, 60, 8, 30]),
    "queries longer than the window": random_prompts(30, [40, 4, 60, 24, 23, 25, 7, 150]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(LONG_AND_SHORT))
@pytest.mark.parametrize("name", sorted(WINDOWED.keys() - UNNAMED))
@pytest.mark.parametrize("splits", [True, False], ids=["on a CPU", "as on a GPU"])
def test_local_attention_is_scored_as_plainly(
    name: str, case: str, splits: bool, monkeypatch: Any
) -> None:
    model, prompts = WINDOWED[name](), LONG_AND_SHORT[case]
    monkeypatch.setattr(attention, "splits", lambda _: splits)
    expected = score_plainly(model, prompts, LABELS)
    torch.testing.assert_close(score(model, prompts, LABELS), expected, **CLOSE)
    torch.testing.assert_close(score(model, prompts, LABELS, token_budget=70), expected, **CLOSE)
    last = [1 + i % 3 for i in range(len(prompts))]
    found = distributions(model, prompts, last)
    torch.testing.assert_close(found, whole_plainly(model, prompts, last), **CLOSE)


@pytest.mark.parametrize("name", sorted(WINDOWED))
def test_local_attention_that_is_not_kept_is_refused(name: str, monkeypatch: Any) -> None:
    """Where layers leave it to a mask, or count by the place in the row (F25), or were ignored."""
    model, prompts = WINDOWED[name](), random_prompts(190, [10] * 40)
    monkeypatch.setattr(
        attention._Behind, "reach", lambda self, _: (None, self.prefix.get_seq_length())
    )
    lines = "other log-probabilities with a shared prefix|cannot be packed: use another model"
    with pytest.raises(UserError, match=lines):
        score(model, prompts, LABELS)


def test_an_attention_that_is_not_pytorchs_is_refused() -> None:
    with pytest.raises(UserError, match="opt does not leave its attention to PyTorch"):
        score(small_opt(attn_implementation="eager"), [[2, 3]], LABELS)


def test_a_model_is_probed_again_only_when_rows_become_longer(monkeypatch: Any) -> None:
    model, lengths = small_llama(), []
    gap = scoring._gap
    monkeypatch.setattr(
        scoring, "_gap", lambda model, length: lengths.append(length) or gap(model, length)
    )
    for n in (3, 30, 100, 250, 300, 10, 505):
        score(model, random_prompts(n, [4, 7]), LABELS)
    assert lengths == [64, 128, 256, 512]


def test_chunked_attention_is_refused() -> None:
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    deep = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    rest = {"intermediate_size_mlp": 64, "attention_chunk_size": WINDOW, "num_local_experts": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    model = Llama4ForCausalLM(Llama4TextConfig(**shape, **deep, **rest, **ends))
    with pytest.raises(UserError, match=r"llama4_text cannot be scored .* use another model"):
        score(model, random_prompts(10, [7, 4]), LABELS)


# --- models and tokens that cannot be ----------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "advice"), [("float16", "use dtype float32"), ("float32", "weights are damaged")]
)
def test_no_number_is_named_by_its_cause(dtype: str, advice: str) -> None:
    """Activations beyond float16's 65,504, and the same model in float32; then a broken one."""
    model, prompts = small_llama(), random_prompts(9, [4, 7])
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(300)
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(1e5)
    assert score(model, prompts, LABELS).isfinite().all()
    if dtype == "float32":
        with torch.no_grad():
            model.model.norm.weight[0] = float("nan")
    for ask in (
        lambda model: score(model, prompts, LABELS),
        lambda model: distributions(model, prompts),
    ):
        with pytest.raises(UserError, match=f"NaN or infinity.*{advice}"):
            ask(copy.deepcopy(model).to(getattr(torch, dtype)))


def test_an_architecture_that_ignores_the_mask_is_refused() -> None:
    from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

    bloom = BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2))
    for model in (bloom, mamba):
        with pytest.raises(UserError, match=r"(bloom|mamba) .* use another model"):
            score(model, random_prompts(10, [7, 4]), LABELS)


def test_a_head_that_is_not_what_it_seems_is_refused() -> None:
    """As of models that scale or cap their logits after it."""
    model = small_opt()
    model.lm_head.register_forward_hook(lambda _, __, output: 3 * output)
    with pytest.raises(UserError, match="gives other log-probabilities with a shared prefix"):
        score(model, [[2, 3]], LABELS)


# --- whole distributions -----------------------------------------------------------------------


@torch.no_grad()
def whole_plainly(model: Any, prompts: list[list[int]], last: list[int]) -> torch.Tensor:
    """Every prompt alone, all logits, and of these the last tokens'."""
    rows = [model(input_ids=torch.tensor([prompt])).logits[0] for prompt in prompts]
    ends = [row[len(row) - n :].float().log_softmax(-1) for row, n in zip(rows, last, strict=True)]
    return torch.cat(ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("case", sorted(CASES))
def test_distributions_are_those_of_every_prompt_whole_and_alone(case: str, name: str) -> None:
    """At some last tokens of each, all behind the prefix; and at so many that some are in it."""
    model, prompts = MODELS[name](), CASES[case]
    few = [min(i % 4, len(prompt) - common_prefix(prompts)) for i, prompt in enumerate(prompts)]
    many = [len(prompt) if i % 3 == 0 else 1 for i, prompt in enumerate(prompts)]
    for last in (few, many):
        found = distributions(model, prompts, last)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, whole_plainly(model, prompts, last), **CLOSE)
    answers = whole_plainly(model, prompts, [1] * len(prompts))
    torch.testing.assert_close(distributions(model, prompts), answers, **CLOSE)
    some = answers[:, list(LABELS)].log_softmax(-1)
    torch.testing.assert_close(some, score(model, prompts, LABELS), **CLOSE)


@pytest.mark.parametrize("budget", [1, 64, 1000, 100_000])
def test_the_budget_does_not_change_distributions(tiny_model: Any, budget: int) -> None:
    prompts = random_prompts(40, [int(n) for n in np.random.default_rng(1).integers(1, 60, 20)])
    last = [1 + i % min(7, len(prompt) - 40) for i, prompt in enumerate(prompts)]
    found = distributions(tiny_model, prompts, last, token_budget=budget)
    torch.testing.assert_close(found, whole_plainly(tiny_model, prompts, last), **CLOSE)


def test_no_prompts_have_no_distributions() -> None:
    assert distributions(small_opt(), []).shape == (0, VOCABULARY)


def test_the_likelihood_of_texts_is_transformers_loss_by_tokens(tiny_model: Any) -> None:
    """A token is a token: a long text counts for more. A text of one token says nothing."""
    texts = random_prompts(1, [int(n) for n in np.random.default_rng(3).integers(1, 30, 150)])
    losses, weights = [], []
    for text in texts:
        ids = torch.tensor([text])
        with torch.no_grad():
            losses.append(float(tiny_model(input_ids=ids, labels=ids).loss))
        weights.append(len(text) - 1)
    expected = np.average(losses, weights=weights)
    assert abs(expected - np.mean(losses)) > 1e-3
    assert text_nll(tiny_model, texts) == pytest.approx(expected, abs=1e-4)
    mixed = [[2], *texts, [2], [5]]
    assert text_nll(tiny_model, mixed, token_budget=100) == pytest.approx(expected, abs=1e-4)
    assert text_nll(tiny_model, [[2], [5]]) == text_nll(tiny_model, []) == 0


# --- prefixes and rows -------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8))
def test_common_prefix_is_the_longest(prompts: list[list[int]]) -> None:
    shared = common_prefix(prompts)
    assert all(len(prompt) > shared for prompt in prompts)
    assert len({tuple(prompt[:shared]) for prompt in prompts}) == 1
    longer = {tuple(prompt[: shared + 1]) for prompt in prompts}
    assert len(longer) > 1 or min(map(len, prompts)) == shared + 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=80), st.integers(40, 120))
def test_packing_places_each_item_once_and_wastes_little(lengths: list[int], width: int) -> None:
    rows = pack(lengths, width)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= width for row in rows)
    # Of any two rows, the second's items did not fit the first: more than half is used on average.
    assert len(rows) <= 1 or sum(lengths) > len(rows) * width / 2
