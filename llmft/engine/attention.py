"""Attention of prompts that are packed, not padded.

For training, `run_packed` lays whole prompts end to end: to every layer but attention they are one
row of tokens, none of which is padding. In attention each prompt is a row of its own, behind a
trained prefix where the model has one (`own_prefix`).

For scoring, `run_behind` has packed rows see a prefix that all share, without a copy of it in each.
Attention over [prefix, own] is a mixture of attention over the prefix and attention over the own
keys, weighted by the two softmax normalisers (as in Hydragen, Juravsky et al. 2024,
arXiv:2402.05099). So all tokens of a batch meet the prefix at once, as one long row with nothing
to mask, and each row meets itself. On the CPU that is how it is done, through the kernel that
PyTorch's own attention uses, which gives the normalisers, too. Elsewhere the rows' keys are put
behind the prefix, layer by layer, and a mask does the rest.

Both need a model that calls its attention by a name (transformers' attention interface). Layers
that see only a window of the last tokens name it in that call: there only so much is met. Whether a
model is then run as it should be, `scoring.probe` finds out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from transformers import AttentionInterface, DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llmft import UserError


_batch: ContextVar[Any] = ContextVar("llmft_batch")
"""What the attention functions are to know of the tokens that a model is being run on."""


@contextmanager
def _attending(body: Any, name: str, batch: Any) -> Iterator[None]:
    """Have the model attend by the function registered as `name`, which reads `batch`.

    Raises:
        UserError: a model without transformers' attention interface.
    """
    config = body.config
    usual = config._attn_implementation
    if usual != "sdpa" or not body._supports_attention_backend:
        raise UserError(
            f"{config.model_type} does not leave its attention to PyTorch by transformers' "
            "attention interface, so its prompts cannot be packed: use another model"
        )
    token = _batch.set(batch)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        _batch.reset(token)


# --- whole prompts end to end --------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Prompts in two forms: end to end, and a row each, padded on the right.

    `real` (prompts, width) says which tokens of the rows are no padding; `slots` (prompts * width,)
    is each one's number end to end, for padding that of the token before it; `places` (tokens,)
    turns that round. All prompts see the `prefix`, None for nothing.
    """

    real: torch.Tensor
    slots: torch.Tensor
    places: torch.Tensor
    prefix: DynamicCache | None

    def rows(self, states: torch.Tensor) -> torch.Tensor:
        """(1, heads, tokens, head size) as (prompts, heads, width, head size)."""
        padded = states[0].transpose(0, 1).index_select(0, self.slots)
        return padded.view(*self.real.shape, *padded.shape[1:]).transpose(1, 2)


def run_packed(
    body: Any, prompts: Sequence[Sequence[int]], prefix: DynamicCache | None = None
) -> torch.Tensor:
    """Hidden states (tokens, hidden) of whole `prompts`, one after another, nothing padded.

    `body` is a causal LM without its head, in any mode: dropout and gradients are its own. Each
    prompt comes after `prefix`, whose keys and values may have gradients, too.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    real = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    slots, places = real.flatten().cumsum(0) - 1, real.flatten().nonzero().squeeze(1)
    ids = torch.tensor([token for prompt in prompts for token in prompt], device=body.device)
    positions = (real.cumsum(1) - 1 + _length(prefix))[real].to(body.device)
    real, slots, places = (part.to(body.device) for part in (real, slots, places))
    layout = _Layout(real, slots, places, prefix)
    with _attending(body, "llmft_packed", layout):
        output = body(input_ids=ids[None], position_ids=positions[None], use_cache=False)
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden


def _packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _: torch.Tensor | None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer: its own call of PyTorch's attention, a row a prompt.

    `query`, `key` and `value` are (1, own number of heads, tokens, head size); returns (1, tokens,
    heads, head size). Rows are padded on the right, where no token of the prompt looks, so they
    need no mask but a window's, or a prefix's: PyTorch's causal mask is square. One row with a mask
    between the prompts computes all that it masks: on a CPU it takes three times as long for 16
    prompts of 20 tokens, and five times for 16 of 15 to 120.
    """
    layout: _Layout = _batch.get()
    width, ahead, mask = layout.real.shape[1], _length(layout.prefix), None
    if ahead or (sliding_window and sliding_window < width):
        mask = layout.real.new_ones(width, ahead + width).tril(ahead)
    if mask is not None and sliding_window:
        mask = mask.triu(ahead + 1 - sliding_window)
    rows = [layout.rows(states) for states in (query, key, value)]
    if layout.prefix is not None:
        layer: Any = layout.prefix.layers[module.layer_idx]
        for i, states in enumerate((layer.keys, layer.values), start=1):
            rows[i] = torch.cat([states.expand(len(rows[i]), -1, -1, -1), rows[i]], dim=2)
    output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *rows, mask, **options)
    return output.flatten(0, 1).index_select(0, layout.places)[None], None


# --- behind a prefix -----------------------------------------------------------------------------


def own_prefix(model: Any) -> DynamicCache | None:
    """The keys and values that a PEFT model has before every prompt; None for other models.

    Those of prefix tuning (Li & Liang 2021, arXiv:2101.00190) and of a cartridge (Eyuboglu et al.
    2025, arXiv:2506.06266): a new cache each time, with the gradients of the trained prefix, and
    whole in every layer (PEFT's own is cut to a window where a layer has one).
    """
    if not prefix_length(model):
        return None
    config, encoder = model.active_peft_config, model.prompt_encoder[model.active_adapter]
    tokens = model.prompt_tokens[model.active_adapter].to(model.device)
    flat = encoder.embedding.weight if config.inference_mode else encoder(tokens[None])[0]
    # PEFT's layout: (positions, keys and values by turns, layer by layer, heads, head size).
    states = flat.to(model.dtype).view(
        len(flat), 2 * config.num_layers, config.num_attention_heads, -1
    )
    layers = states.permute(1, 2, 0, 3).unsqueeze(1).split(2)
    return DynamicCache([(keys, values) for keys, values in layers])


def prefix_length(model: Any) -> int:
    """Positions of a model's `own_prefix`; 0 where it has none."""
    config = model.active_peft_config if isinstance(model, peft.PeftModel) else None
    kinds = peft.PeftType.PREFIX_TUNING, peft.PeftType.CARTRIDGE
    return int(config.num_virtual_tokens) if config and config.peft_type in kinds else 0


def _length(prefix: DynamicCache | None) -> int:
    return 0 if prefix is None else prefix.get_seq_length()


def run_prefix(body: Any, ids: Sequence[int], before: DynamicCache | None = None) -> DynamicCache:
    """The keys and values of the tokens `ids`, run through a causal LM without its head.

    Those of `before`, which they come after, are in front of them.
    """
    cache = DynamicCache() if before is None else before
    inputs = torch.tensor([list(ids)], device=body.device)
    body(input_ids=inputs, past_key_values=cache, use_cache=True)
    return cache


def run_behind(
    body: Any,
    prefix: DynamicCache | None,
    ids: torch.Tensor,
    positions: torch.Tensor,
    owners: torch.Tensor,
) -> torch.Tensor:
    """Hidden states (rows, width, hidden) of rows of tokens that come after `prefix`.

    `body` is as in `run_prefix`; every token sees the prefix, None for nothing. `ids`, `positions`
    and `owners` (rows, width) are each token's id, its position in its prompt, and its prompt: in
    its row a token sees those of its own prompt up to itself.
    """
    seen = (owners[:, :, None] == owners[:, None, :]).tril()
    behind = _Behind(prefix, positions, seen, body.dtype)
    with _attending(body, "llmft_split" if splits(body) else "llmft_joined", behind):
        output = body(input_ids=ids, position_ids=positions, use_cache=False)
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def splits(body: Any) -> bool:
    """Whether attention behind a prefix is done in two parts."""
    return bool(body.device.type == "cpu")


@dataclass(frozen=True)
class _Behind:
    """Rows of tokens behind a prefix, and the masks made of them, by window and number of keys.

    `seen` (rows, width, width) says which tokens of its row a token sees.
    """

    prefix: DynamicCache | None
    positions: torch.Tensor
    seen: torch.Tensor
    dtype: torch.dtype
    masks: dict[tuple[int | None, int, int], torch.Tensor] = field(default_factory=dict)

    def reach(self, window: int | None) -> tuple[int | None, int]:
        """A layer's window, None where it hides nothing; how many of the prefix's last it sees."""
        length = _length(self.prefix)
        if not window or window >= length + self.seen.shape[1]:
            return None, length
        return window, min(length, window - 1)

    def last(self, module: Any, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the prefix's last `n` tokens in a layer: (1, key heads, n, size)."""
        layer: Any = self.prefix.layers[module.layer_idx]  # type: ignore[union-attr]
        return layer.keys[:, :, -n:], layer.values[:, :, -n:]

    def mask(self, window: int | None, ahead: int, own: int) -> torch.Tensor:
        """Of the prefix's last `ahead` tokens and the row's first `own`, which a token sees.

        (rows, 1, width, ahead + own), to be added to the attention scores: 0 = seen, most
        negative = not.
        """
        if (window, ahead, own) not in self.masks:
            rows, width = self.positions.shape
            sees = torch.cat([self.seen.new_ones(rows, width, ahead), self.seen[:, :, :own]], dim=2)
            if window:
                # The prefix's positions end where the first token of a row begins.
                before = self.positions[:, :1] + torch.arange(-ahead, 0, device=sees.device)
                places = torch.cat([before, self.positions[:, :own]], dim=1)
                sees &= self.positions[:, :, None] - places[:, None, :] < window
            hidden = torch.zeros(sees.shape, dtype=self.dtype, device=sees.device)
            hidden.masked_fill_(~sees, torch.finfo(self.dtype).min)
            self.masks[window, ahead, own] = hidden.unsqueeze(1)
        return self.masks[window, ahead, own]


def _split_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer, in its form, with the prefix ahead of the keys.

    `query` is (rows, heads, width, head size), `key` and `value` have their own number of heads;
    returns (rows, width, heads, head size).
    """
    rows, heads, width, size = query.shape
    behind: _Behind = _batch.get()
    window, ahead = behind.reach(sliding_window)
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    group = heads // key.shape[1]
    # To itself: row by row.
    keys, values = repeat_kv(key, group), repeat_kv(value, group)
    mask = behind.mask(window, 0, width)
    own, own_sum = attend(query, keys, values, attn_mask=mask, scale=scaling)
    own = own.transpose(1, 2)
    if not ahead:
        return own, None
    # To the prefix: every token of every row, as one row.
    keys, values = (repeat_kv(states, group) for states in behind.last(module, ahead))
    one_row = query.transpose(1, 2).reshape(1, rows * width, heads, size).transpose(1, 2)
    hides = behind.mask(window, ahead, 0).view(1, 1, -1, ahead) if window else None
    other, other_sum = attend(one_row, keys, values, attn_mask=hides, scale=scaling)
    other = other.transpose(1, 2).reshape(rows, width, heads, size)
    other_sum = other_sum.transpose(1, 2).reshape(rows, width, heads, 1)
    # exp(sum) are the two normalisers; the share of the prefix in their total is a sigmoid.
    share = torch.sigmoid(other_sum - own_sum.transpose(1, 2).unsqueeze(-1))
    return torch.lerp(own, other, share.to(own.dtype)), None


def _joined_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _: torch.Tensor | None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What `_split_attention` gives, without the normalisers: each row has the prefix's keys."""
    behind: _Behind = _batch.get()
    window, ahead = behind.reach(sliding_window)
    if ahead:
        keys, values = (
            states.expand(len(key), -1, -1, -1) for states in behind.last(module, ahead)
        )
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
    mask = behind.mask(window, ahead, query.shape[2])
    output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)
    return output, None


AttentionInterface.register("llmft_packed", _packed_attention)
AttentionInterface.register("llmft_split", _split_attention)
AttentionInterface.register("llmft_joined", _joined_attention)
