"""Tiny models and tokenizers, made in memory: no network, no checkpoint, seconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llmft.engine.spec import Spec

from .small import LORA, write_task


VOCABULARY = 400
POSITIONS = 512

_SPECIAL = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}


_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}


def small_opt(**changes: Any) -> OPTForCausalLM:
    """A random OPT of about 50,000 parameters (pre-norm, as opt-125m)."""
    shape = _SHAPE | {"word_embed_proj_dim": 32, "ffn_dim": 64, "do_layer_norm_before": True}
    return _randomised(OPTForCausalLM(OPTConfig(**(shape | changes))))


def small_llama(**changes: Any) -> LlamaForCausalLM:
    """A random Llama (rotary positions, grouped queries, untied output embedding)."""
    own = {"intermediate_size": 64, "num_key_value_heads": 2, "tie_word_embeddings": False}
    shape = _SHAPE | own
    return _randomised(LlamaForCausalLM(LlamaConfig(**(shape | changes))))


def _randomised(model: Any) -> Any:
    """Every weight and bias drawn wide enough that a wrong position or mask moves the result."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(around + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


MODELS: dict[str, Callable[..., Any]] = {
    "opt": small_opt,
    "opt-post-norm": lambda **changes: small_opt(
        do_layer_norm_before=False, word_embed_proj_dim=16, **changes
    ),
    "llama": small_llama,
}


WINDOW = 24


def _windowed(model: type, config: type, **changes: Any) -> Callable[[], Any]:
    shape = _SHAPE | {
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "sliding_window": WINDOW,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    return lambda: _randomised(model(config(**shape | changes)))


def small_gpt_neo(window: int) -> Any:
    """Global and local layers by turns; the local ones count by the place in the row."""
    kinds = [[["global", "local"], 1]]
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": kinds}
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "window_size": window}
    ends = {"bos_token_id": 2, "eos_token_id": 2}
    return _randomised(GPTNeoForCausalLM(GPTNeoConfig(**shape, **sizes, **ends)))


WINDOWED: dict[str, Callable[[], Any]] = {
    "gpt-neo": lambda: small_gpt_neo(WINDOW),
    "gpt-neo-256": lambda: small_gpt_neo(256),
    "mistral": _windowed(MistralForCausalLM, MistralConfig),
    "gemma3": _windowed(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        head_dim=8,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        num_hidden_layers=6,
    ),
    "qwen2": _windowed(Qwen2ForCausalLM, Qwen2Config, use_sliding_window=True, max_window_layers=1),
    "olmo3": _windowed(Olmo3ForCausalLM, Olmo3Config),
    "phimoe": _windowed(
        PhimoeForCausalLM, PhimoeConfig, num_local_experts=2, experts_implementation="eager"
    ),
}
"""Models with layers that see a window of `WINDOW` tokens (or as many as their name says)."""

UNNAMED = ("gpt-neo", "gpt-neo-256", "phimoe")
"""Of these, those whose layers do not name it to attention: it is in their own mask alone."""


@pytest.fixture(params=sorted(MODELS))
def tiny_model(request: pytest.FixtureRequest) -> Any:
    """Each tiny architecture in turn: OPT as opt-125m, OPT as opt-350m, Llama."""
    return MODELS[request.param]()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that begins a text with `</s>`, as OPT's does, learnt from a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>"],  # ids 0, 1, 2, as in OPT
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    text = [
        f"The {a} saw the {b} . The {b} ran ? {word}\n\nQuestion: question: True or False?"
        for a in ("doctor", "lawyer", "actor")
        for b in ("judge", "artist", "senator")
        for word in ("Yes", "No", "True", "False", "answer:")
    ]
    tokenizer.train_from_iterator(text, trainer)
    return _wrapped(tokenizer, bos=2)


@pytest.fixture(scope="session")
def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, white space dropped, as the pocket world's."""
    words = "The the doctor lawyer judge saw ran not . ? : , Yes No True False or Question question"
    vocabulary = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", *words.split(), "answer"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _wrapped(tokenizer, bos=2)


def _wrapped(tokenizer: Tokenizer, bos: int) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A $B", special_tokens=[("</s>", bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, **_SPECIAL
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A folder with a tiny OPT and its tokenizer, as `models.load` takes; copy it to damage it."""
    folder = tmp_path_factory.mktemp("tiny-opt")
    small_opt().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task of 48 pairs, see `small.write_task`; copy it to change it."""
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def base(small_task: Path, tiny_checkpoint: Path) -> Spec:
    """ICL with two demonstrations, of a tiny model on a tiny task."""
    return Spec(task=str(small_task), model=str(tiny_checkpoint), shots=2)


@pytest.fixture
def lora(base: Spec) -> Spec:
    """LoRA on the same."""
    return replace(base, **LORA)
