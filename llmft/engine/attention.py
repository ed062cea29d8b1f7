"""Attention of packed rows to a prefix that all of them share, without a copy of it in each row.

Attention over [prefix, own] is a mixture of attention over the prefix and attention over the own
keys, weighted by the two softmax normalisers (as in Hydragen, Juravsky et al. 2024,
arXiv:2402.05099). So all tokens of a batch meet the prefix at once, as one long row with nothing
to mask, and each row meets itself. On the CPU that is how it is done, through the kernel that
PyTorch's own attention uses, which gives the normalisers, too. Elsewhere, or with an attention that
somebody chose, the rows' keys are put behind the prefix, layer by layer, and a mask does the rest.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer


_NAME = "llmft_shared_prefix"

_shared: ContextVar[list[tuple[torch.Tensor, torch.Tensor]]] = ContextVar(_NAME)


@dataclass(frozen=True)
class Prefix:
    """A prefix that was run once: `length` tokens, and by layer its keys and values.

    Keys and values are (1, key heads, length, head size), and nothing changes them.
    """

    length: int
    layers: list[tuple[torch.Tensor, torch.Tensor]]


def run_prefix(body: Any, ids: Sequence[int]) -> Prefix:
    """Run a causal LM without its head (`model.base_model`) over the prefix `ids`."""
    cache = DynamicCache()
    body(
        input_ids=torch.tensor([list(ids)], device=body.device),
        past_key_values=cache,
        use_cache=True,
    )
    layers: list[Any] = [*cache.layers]
    return Prefix(len(ids), [(layer.keys, layer.values) for layer in layers])


def run_behind(
    body: Any,
    prefix: Prefix | None,
    ids: torch.Tensor,
    positions: torch.Tensor,
    seen: torch.Tensor,
) -> torch.Tensor:
    """Hidden states (rows, width, hidden) of rows of tokens that come after `prefix`.

    Args:
        body: as in `run_prefix`.
        prefix: what every token sees; None for nothing.
        ids: (rows, width) token ids.
        positions: (rows, width), each token's position in its prompt.
        seen: (rows, width, width) bool, which tokens of its row a token sees, itself at least.
    """
    length = prefix.length if prefix else 0
    split = prefix is not None and splits(body)
    # Added to the attention scores (eager attention can only add): 0 = seen, most negative = not.
    rows, width = ids.shape
    ahead = 0 if split else length
    mask = torch.zeros(rows, 1, width, ahead + width, dtype=body.dtype, device=body.device)
    mask[:, 0, :, ahead:].masked_fill_(~seen, torch.finfo(body.dtype).min)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    if prefix is None:
        output = body(**inputs, use_cache=False)
    elif split:
        with _attending_to(prefix, body.config):
            output = body(**inputs, use_cache=False)
    else:
        cache = Cache(layers=[_FixedLayer(*layer) for layer in prefix.layers])
        output = body(**inputs, past_key_values=cache, use_cache=True)
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def splits(body: Any) -> bool:
    """Whether attention is done in two parts: on the CPU, where nobody chose another attention."""
    return bool(body.device.type == "cpu" and body.config._attn_implementation == "sdpa")


@contextmanager
def _attending_to(prefix: Prefix, config: Any) -> Iterator[None]:
    """Have a model with this `config` see `prefix` before its own tokens."""
    token, usual = _shared.set(prefix.layers), config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
        _shared.reset(token)


def _split_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer, in its form, with the prefix ahead of the keys.

    `query` is (rows, heads, width, head size), `key` and `value` have their own number of heads,
    `attention_mask` is (rows, 1, width, width); returns (rows, width, heads, head size).
    """
    rows, heads, width, size = query.shape
    kept_key, kept_value = _shared.get()[int(module.layer_idx)]  # type: ignore[arg-type]
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    group = heads // key.shape[1]
    # To the prefix: every token of every row, as one row.
    one_row = query.transpose(1, 2).reshape(1, rows * width, heads, size).transpose(1, 2)
    ahead, ahead_sum = attend(
        one_row, _heads(kept_key, group), _heads(kept_value, group), scale=scaling
    )
    # To itself: row by row.
    own, own_sum = attend(
        query, _heads(key, group), _heads(value, group), attn_mask=attention_mask, scale=scaling
    )
    # exp(sum) are the two normalisers; the share of the prefix in their total is a sigmoid.
    ahead_sum = ahead_sum.transpose(1, 2).reshape(rows, width, heads, 1)
    share = torch.sigmoid(ahead_sum - own_sum.transpose(1, 2).unsqueeze(-1))
    ahead = ahead.transpose(1, 2).reshape(rows, width, heads, size)
    return torch.lerp(own.transpose(1, 2), ahead, share.to(own.dtype)), None


def _heads(states: torch.Tensor, group: int) -> torch.Tensor:
    """Each key head once for each of its `group` query heads."""
    return states if group == 1 else states.repeat_interleave(group, dim=1)


class _FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The prefix's keys and values of one layer, lent to every row and never added to.

    transformers' own layer appends what it is shown; here a batch's keys live as long as its layer.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prefix = keys, values
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix in front of `key_states` and `value_states` (rows, heads, row, head size)."""
        keys, values = (kept.expand(len(key_states), -1, -1, -1) for kept in self.prefix)
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


AttentionInterface.register(_NAME, _split_attention)
