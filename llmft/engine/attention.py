"""Attention of prompts that are packed, not padded.

For training, `run_packed` lays whole prompts end to end: to every layer but attention they are one
row of tokens, none of which is padding. In attention each prompt is a row of its own.

For scoring, `run_behind` has packed rows see a prefix that all share, without a copy of it in each.
Attention over [prefix, own] is a mixture of attention over the prefix and attention over the own
keys, weighted by the two softmax normalisers (as in Hydragen, Juravsky et al. 2024,
arXiv:2402.05099). So all tokens of a batch meet the prefix at once, as one long row with nothing
to mask, and each row meets itself. On the CPU that is how it is done, through the kernel that
PyTorch's own attention uses, which gives the normalisers, too. Elsewhere, or with an attention that
somebody chose, the rows' keys are put behind the prefix, layer by layer, and a mask does the rest.

Layers that see only a window of the last tokens (sliding attention) name it to the attention that
they call (`windows`): there only so much of the prefix is met, and a mask has the window in it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


_SPLIT = "llmft_shared_prefix"
_JOINED = "llmft_prefix_and_own"
_EACH = "llmft_each_prompt"

_behind: ContextVar["_Behind"] = ContextVar(_SPLIT)
_layout: ContextVar["_Layout"] = ContextVar(_EACH)

_windows: WeakKeyDictionary[torch.nn.Module, set[int]] = WeakKeyDictionary()


# --- whole prompts end to end --------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Prompts in two forms: end to end, and a row each, padded on the right.

    `real` (prompts, width) says which tokens of the rows are no padding; `slots` (prompts * width,)
    is each one's number end to end, for padding that of the token before it; `places` (tokens,)
    turns that round. `masks` has the mask for each window that a layer has named.
    """

    real: torch.Tensor
    slots: torch.Tensor
    places: torch.Tensor
    masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)

    def rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """(tokens, ...) as (prompts, width, ...)."""
        return tokens.index_select(0, self.slots).view(*self.real.shape, *tokens.shape[1:])

    def end_to_end(self, rows: torch.Tensor) -> torch.Tensor:
        """(prompts, width, ...) as (tokens, ...)."""
        return rows.flatten(0, 1).index_select(0, self.places)

    def mask(self, window: int | None) -> torch.Tensor | None:
        """Which tokens of its row a token sees, (width, width) bool; None: all before it."""
        if window not in self.masks:
            width, self.masks[window] = self.real.shape[1], None
            if window and window < width:
                self.masks[window] = self.real.new_ones(width, width).tril().triu(1 - window)
        return self.masks[window]


def _lay_out(prompts: Sequence[Sequence[int]], device: torch.device) -> _Layout:
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    real = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    flat = real.flatten()
    slots, places = flat.cumsum(0) - 1, flat.nonzero().squeeze(1)
    return _Layout(real.to(device), slots.to(device), places.to(device))


def run_packed(body: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Hidden states (tokens, hidden) of whole `prompts`, one after another, nothing padded.

    Args:
        body: a causal LM without its head, for which `packs` holds, in any mode: dropout and
            gradients are its own.
        prompts: token ids; none longer than the window of a layer that does not name it
            (`windows`).
    """
    output = _run_packed(body, prompts, _lay_out(prompts, body.device))
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden


def _run_packed(body: Any, prompts: Sequence[Sequence[int]], layout: _Layout) -> Any:
    """What the model gives for `prompts` as one row, laid out as `layout` in attention."""
    ids = torch.tensor([token for prompt in prompts for token in prompt], device=body.device)
    positions = (layout.real.cumsum(1) - 1)[layout.real]
    with _attending(_EACH, _layout, layout, body.config):
        return body(input_ids=ids[None], position_ids=positions[None], use_cache=False)


def run_padded(body: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """What `run_packed` gives, of any causal LM: rows padded on the right, under its own mask."""
    layout = _lay_out(prompts, body.device)
    ids = torch.tensor([token for prompt in prompts for token in prompt], device=body.device)
    output = body(input_ids=layout.rows(ids), use_cache=False)
    return layout.end_to_end(output.last_hidden_state)


def packs(body: Any) -> bool:
    """Whether a model's prompts can be packed: it calls attention by a name, and by PyTorch's.

    What mixes tokens besides attention (recurrences, convolutions) `scoring.probe` refuses.
    """
    named = body._supports_attention_backend
    return bool(named and body.config._attn_implementation == "sdpa")


def windows(body: Any) -> set[int]:
    """The windows, in tokens, that the layers of a model for which `packs` holds name to attention.

    A layer with a window of n sees a token and the n - 1 before it. Some architectures name none,
    and leave it to their mask: so a model is run once, on one token, to hear them.
    """
    if body not in _windows:
        layout = _lay_out([[0]], body.device)
        with torch.no_grad():
            _run_packed(body, [[0]], layout)
        _windows[body] = {window for window in layout.masks if window}
    return _windows[body]


def _each_prompt(
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
    need no mask but a window's. One row with a mask between the prompts computes all that it masks:
    on a CPU it takes three times as long for 16 prompts of 20 tokens, and five times for 16 of 15
    to 120.
    """
    layout = _layout.get()
    rows = (
        layout.rows(states[0].transpose(0, 1)).transpose(1, 2) for states in (query, key, value)
    )
    mask = layout.mask(sliding_window)
    output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *rows, mask, **options)
    return layout.end_to_end(output)[None], None


# --- behind a prefix -----------------------------------------------------------------------------


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
        prefix: what every token sees, but for the layers' windows; None for nothing.
        ids: (rows, width) token ids.
        positions: (rows, width), each token's position in its prompt.
        seen: (rows, width, width) bool, which tokens of its row a token sees, itself at least, and
            again but for the layers' windows, which only models that name them keep (`windows`).
    """
    behind = _Behind(prefix, positions, seen, body.dtype)
    inputs = {"input_ids": ids, "position_ids": positions}
    if packs(body):
        name = _SPLIT if splits(body) else _JOINED
        with _attending(name, _behind, behind, body.config):
            output = body(**inputs, use_cache=False)
    else:
        inputs["attention_mask"] = behind.mask(None, behind.length, ids.shape[1])
        cache = Cache(layers=[_FixedLayer(*layer) for layer in prefix.layers]) if prefix else None
        output = body(**inputs, past_key_values=cache, use_cache=prefix is not None)
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def splits(body: Any) -> bool:
    """Whether attention is done in two parts: on the CPU, where nobody chose another attention."""
    return body.device.type == "cpu" and packs(body)


@dataclass(frozen=True)
class _Behind:
    """Rows of tokens behind a prefix: what `run_behind` takes, and the masks made of it."""

    prefix: Prefix | None
    positions: torch.Tensor
    seen: torch.Tensor
    dtype: torch.dtype
    masks: dict[tuple[int | None, int, int], torch.Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens of the prefix."""
        return self.prefix.length if self.prefix else 0

    def reach(self, window: int | None) -> tuple[int | None, int]:
        """A layer's window, None where it hides nothing; how many of the prefix's last it sees."""
        if not window or window >= self.length + self.seen.shape[1]:
            return None, self.length
        return window, min(self.length, window - 1)

    def mask(self, window: int | None, ahead: int, own: int) -> torch.Tensor:
        """Of the prefix's last `ahead` tokens and the row's first `own`, which a token sees.

        (rows, 1, width, ahead + own), to be added to the attention scores (eager attention can only
        add): 0 = seen, most negative = not.
        """
        made = self.masks.get((window, ahead, own))
        if made is None:
            rows, width = self.positions.shape
            sees = torch.cat([self.seen.new_ones(rows, width, ahead), self.seen[:, :, :own]], dim=2)
            if window:
                before = torch.arange(self.length - ahead, self.length, device=sees.device)
                places = torch.cat([before.expand(rows, -1), self.positions[:, :own]], dim=1)
                sees &= self.positions[:, :, None] - places[:, None, :] < window
            made = torch.zeros(sees.shape, dtype=self.dtype, device=sees.device)
            made = made.masked_fill_(~sees, torch.finfo(self.dtype).min).unsqueeze(1)
            self.masks[window, ahead, own] = made
        return made


@contextmanager
def _attending(name: str, variable: ContextVar[Any], value: Any, config: Any) -> Iterator[None]:
    """Have a model with this `config` attend by the function `name`, which reads `variable`."""
    token, usual = variable.set(value), config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        variable.reset(token)


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
    behind = _behind.get()
    window, seen = behind.reach(sliding_window)
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    group = heads // key.shape[1]
    # To itself: row by row.
    mask = behind.mask(window, 0, width)
    own, own_sum = attend(
        query, _heads(key, group), _heads(value, group), attn_mask=mask, scale=scaling
    )
    own = own.transpose(1, 2)
    if not seen:
        return own, None
    # To the prefix: every token of every row, as one row.
    kept_key, kept_value = _kept(module, seen)
    one_row = query.transpose(1, 2).reshape(1, rows * width, heads, size).transpose(1, 2)
    hides = behind.mask(window, seen, 0).view(1, 1, -1, seen) if window else None
    ahead, ahead_sum = attend(
        one_row, _heads(kept_key, group), _heads(kept_value, group), attn_mask=hides, scale=scaling
    )
    # exp(sum) are the two normalisers; the share of the prefix in their total is a sigmoid.
    ahead_sum = ahead_sum.transpose(1, 2).reshape(rows, width, heads, 1)
    share = torch.sigmoid(ahead_sum - own_sum.transpose(1, 2).unsqueeze(-1))
    ahead = ahead.transpose(1, 2).reshape(rows, width, heads, size)
    return torch.lerp(own, ahead, share.to(own.dtype)), None


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
    behind = _behind.get()
    window, seen = behind.reach(sliding_window)
    if seen:
        kept = (states.expand(len(key), -1, -1, -1) for states in _kept(module, seen))
        key, value = (torch.cat(pair, dim=2) for pair in zip(kept, (key, value), strict=True))
    mask = behind.mask(window, seen, query.shape[2])
    output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)
    return output, None


def _kept(module: torch.nn.Module, last: int) -> Iterator[torch.Tensor]:
    """Keys and values of the prefix's `last` tokens in a layer."""
    prefix = _behind.get().prefix
    assert prefix, "there is a token to see"
    return (states[:, :, -last:] for states in prefix.layers[int(module.layer_idx)])  # type: ignore[arg-type]


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


AttentionInterface.register(_SPLIT, _split_attention)
AttentionInterface.register(_JOINED, _joined_attention)
AttentionInterface.register(_EACH, _each_prompt)
