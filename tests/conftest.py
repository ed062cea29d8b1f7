"""Tiny models and tokenizers, made in memory: no network, no checkpoint, seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from llmft import ROOT


SHARED = ROOT.parent / "shared"
"""Real data and vocabularies that some workplaces have beside the clone; nothing depends on it."""

VOCABULARY = 400
POSITIONS = 512

_SPECIAL = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}


def small_opt(**changes: Any) -> OPTForCausalLM:
    """A random OPT of about 50,000 parameters (pre-norm, as opt-125m)."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "do_layer_norm_before": True,
    }
    return _randomised(OPTForCausalLM(OPTConfig(**(shape | changes))))


def small_llama(**changes: Any) -> LlamaForCausalLM:
    """A random Llama (rotary positions, grouped queries, untied output embedding)."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": False,
    }
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


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside the clone; a test that asks for it is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    return SHARED
