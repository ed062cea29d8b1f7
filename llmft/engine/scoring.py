"""Label log-probabilities: the one way in which every method of the book is evaluated.

A prompt ends where the label word would come next, so a prediction is the log-probability of each
label's token at that place, normalised over the labels. In-context prompts share one long prefix
(the demonstrations) and differ in a short query, so a query should cost what the query costs:

- the longest common token prefix is run once, and its keys and values are kept (`attention.py`);
- what is left of the prompts is packed, not padded (Krell et al. 2021, arXiv:2107.02027): several
  queries share a row, and a mask lets each see the prefix and itself only;
- only the label rows of the output embedding are applied, and only at the last position.

Some models have layers that see only so many tokens (local, sliding or chunked attention). Most
name their window to the attention that they call, and there it is kept. Others leave it to a mask,
or count by the place in the row: of these no packed row, prefix and all, is longer than the window,
and prompts longer than it are run whole, padded on the right, under the model's own mask.

`score_plainly` runs every prompt whole and alone: the definition, which the tests hold `score` to,
and which every model is held to (`probe`) before its answers at a length are believed.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from llmft import UserError
from llmft.engine import attention
from llmft.engine.attention import Prefix, run_behind, run_prefix


ROW = {"cpu": 128, "cuda": 512, "mps": 256}
"""Tokens in a packed row, at most: a wider row wastes attention between queries, a narrower one
wastes space at its end and, off the CPU, copies the prefix more often (once per row and layer)."""

BUDGET = {"cpu": 1_024, "cuda": 16_384, "mps": 4_096}
"""Tokens in a batch of rows when the caller names no budget."""

_RESHAPED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier")

WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "window_size",
    "attention_window_size",
    "attention_chunk_size",
    "local_attention",
)
"""What configurations call the number of tokens that their local layers see."""

_probed: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()
"""The longest packed rows, in tokens, at which a model was held to `score_plainly`."""


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all `prompts` begin with, leaving each at least one of its own."""
    if not prompts:
        return 0
    # The smallest and the largest in dictionary order differ first, so they decide for all.
    first, last = min(map(list, prompts)), max(map(list, prompts))
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    shortest = min(map(len, prompts))
    return min(shortest - 1, len(first) if shared is None else shared)


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Rows of item indices, each row's lengths adding up to at most `width`: best fit decreasing.

    Longest items first, each into the fullest row that still has space for it (Johnson 1974: at
    most 11/9 of the fewest rows possible). `width` must be at least the largest length.
    """
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(width + 1)]  # row numbers by space left
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[item]
        space = next((s for s in range(length, width + 1) if by_space[s]), None)
        if space is None:
            rows.append([])
            by_space[width].append(len(rows) - 1)
            space = width
        row = by_space[space].pop()
        rows[row].append(item)
        by_space[space - length].append(row)
    return rows


@torch.inference_mode()
def score(
    model: Any,
    prompts: Sequence[Sequence[int]],
    label_ids: Sequence[int],
    *,
    token_budget: int = 0,
) -> torch.Tensor:
    """Log-probabilities of the labels after each prompt, normalised over the labels.

    Args:
        model: a transformers causal language model, or a PEFT model around one, on any device; it
            is run in evaluation mode and left in the mode it was in.
        prompts: whole prompts as token ids, as `prompts.encode` gives them.
        label_ids: one token id per label.
        token_budget: tokens in a batch, 0 = the device's default. It changes speed and memory,
            not the result. Out of memory, it is halved and the work goes on.

    Returns:
        float32 (prompts, labels) on the CPU, in the prompts' order.

    Raises:
        UserError: an empty or too long prompt, a token or label outside the vocabulary, an
            architecture that gives other numbers here than when it is run plainly, no numbers at
            all, or too little memory.
    """
    _check(model, prompts, label_ids, token_budget)
    with _evaluating(model):
        probe(model, prompts)
        logits = _logits(model, prompts, label_ids, token_budget)
        return _finite(model, logits.log_softmax(dim=-1))


@torch.inference_mode()
def distributions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    last: Sequence[int] | None = None,
    *,
    token_budget: int = 0,
) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary after the last tokens of each prompt.

    Args:
        model: as in `score`.
        prompts: as in `score`.
        token_budget: as in `score`.
        last: how many of each prompt's last tokens; None is one each, the answer position.

    Returns:
        float32 (sum of last, vocabulary) on the CPU: prompt after prompt, token after token.

    Raises:
        UserError: as `score` does.
    """
    _check(model, prompts, [0], token_budget)
    with _evaluating(model):
        probe(model, prompts)
        logits = _logits(model, prompts, None, token_budget, last)
        return _finite(model, logits.log_softmax(dim=-1))


def text_nll(model: Any, texts: Sequence[Sequence[int]], *, token_budget: int = 0) -> float:
    """Mean negative log-likelihood, nats a token, of every token of `texts` but the first.

    Its exponential is the perplexity. Takes and raises what `score` does.
    """
    total, tokens = 0.0, 0
    for start in range(0, len(texts), 64):  # whole distributions: a few at a time
        some = [text for text in texts[start : start + 64] if len(text) > 1]
        logp = distributions(
            model,
            [text[:-1] for text in some],
            [len(text) - 1 for text in some],
            token_budget=token_budget,
        )
        following = torch.tensor([token for text in some for token in text[1:]])
        total -= float(logp.gather(1, following.unsqueeze(1)).double().sum())
        tokens += len(following)
    return total / max(1, tokens)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The model in evaluation mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.inference_mode()
def score_plainly(
    model: Any, prompts: Sequence[Sequence[int]], label_ids: Sequence[int]
) -> torch.Tensor:
    """What `score` gives, by definition: every prompt whole and alone, and all of its logits.

    Takes and returns what `score` does; the model must be in evaluation mode.
    """
    labels = torch.tensor(list(label_ids), device=model.device)
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    # The vocabulary's logits at every place of a long prompt may be gigabytes.
    able = "logits_to_keep" in inspect.signature(causal_lm.forward).parameters
    last = {"logits_to_keep": 1} if able else {}
    rows = [
        model(input_ids=torch.tensor([list(prompt)], device=model.device), **last).logits[
            0, -1, labels
        ]
        for prompt in prompts
    ]
    logits = torch.stack(rows) if rows else torch.empty(0, len(labels))
    return logits.float().log_softmax(dim=-1).cpu()


def _logits(
    model: Any,
    prompts: Sequence[Sequence[int]],
    classes: Sequence[int] | None,
    token_budget: int,
    last: Sequence[int] | None = None,
) -> torch.Tensor:
    """Float32 logits of `classes` (None: all) after the `last` tokens of each prompt (None: one).

    (sum of last, classes) on the CPU, prompt after prompt: prefix, rows, batches, output rows.
    """
    device: torch.device = model.device
    budget = token_budget or BUDGET.get(device.type, BUDGET["cpu"])
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    body, head = causal_lm.base_model, causal_lm.get_output_embeddings()
    rows = slice(None) if classes is None else torch.tensor(list(classes), device=device)
    # Float32 whatever the model's type: two label logits differ by less than bfloat16 can hold.
    weight = head.weight[rows].float()
    bias = None if head.bias is None else head.bias[rows].float()

    counts = list(last) if last is not None else [1] * len(prompts)
    ends = np.cumsum(counts)
    places = [range(end - n, end) for end, n in zip(ends, counts, strict=True)]  # in the result
    # What is read lies behind the prefix.
    before = [len(prompt) - n for prompt, n in zip(prompts, counts, strict=True)]
    room = _room(model)
    whole = _longest(prompts) > room
    shared = 0 if whole else min([common_prefix(prompts), *before])
    suffixes = [prompt[shared:] for prompt in prompts]
    logits = torch.empty(sum(counts), len(weight))
    pending = list(range(len(prompts)))
    try:
        prefix = run_prefix(body, prompts[0][:shared]) if shared else None
        while pending:
            lengths = sorted(len(suffixes[i]) for i in pending)
            longest = lengths[-1]
            width = min(_row(model), budget, room - shared)
            if prefix is None:  # nothing is shared by a row: two queries will do
                width = min(width, 2 * lengths[len(lengths) // 2])
            width = max(longest, width)
            try:
                for batch in _batches(pending, suffixes, width, budget, alone=whole):
                    hidden = _last_hidden(body, prefix, suffixes, batch, counts, alone=whole)
                    done = [i for row in batch for i in row]
                    there = [place for i in done for place in places[i]]
                    logits[there] = torch.nn.functional.linear(hidden.float(), weight, bias).cpu()
                    pending = sorted(set(pending).difference(done))
            except RuntimeError as error:
                if not out_of_memory(error) or budget <= longest:
                    raise
                budget //= 2
                torch.cuda.empty_cache()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"{device} has too little memory for a prompt of {max(map(len, prompts))} tokens: "
            "use fewer shots, a smaller model, dtype bfloat16 or another device"
        ) from error
    return logits


def _batches(
    pending: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    width: int,
    budget: int,
    *,
    alone: bool,
) -> Iterator[list[list[int]]]:
    """Batches of packed rows of prompt numbers: the fullest rows first, `budget` tokens a batch.

    A row has one prompt where each is `alone`.
    """
    if alone:
        rows = [[i] for i in pending]
    else:
        packed = pack([len(suffixes[i]) for i in pending], width)
        rows = [[pending[i] for i in row] for row in packed]
    rows.sort(key=lambda row: -sum(len(suffixes[i]) for i in row))
    per_batch = max(1, budget // width)
    for start in range(0, len(rows), per_batch):
        yield rows[start : start + per_batch]


def _last_hidden(
    body: Any,
    prefix: Prefix | None,
    suffixes: Sequence[Sequence[int]],
    batch: list[list[int]],
    counts: Sequence[int],
    *,
    alone: bool,
) -> torch.Tensor:
    """Hidden states (positions, hidden) of the last `counts` of each query, rows after rows.

    A row that is one prompt `alone` is masked as the model masks it.
    """
    width = max(sum(len(suffixes[i]) for i in row) for row in batch)
    before = prefix.length if prefix else 0
    ids = np.zeros((len(batch), width), dtype=np.int64)
    positions = np.full((len(batch), width), before, dtype=np.int64)
    owner = np.full((len(batch), width), -1, dtype=np.int64)  # padding's owner is -1
    row_of: list[int] = []
    last: list[int] = []
    for r, row in enumerate(batch):
        end = 0
        for i in row:
            start, end = end, end + len(suffixes[i])
            ids[r, start:end] = suffixes[i]
            positions[r, start:end] = range(before, before + end - start)
            owner[r, start:end] = i
            row_of += [r] * counts[i]
            last += range(end - counts[i], end)
    if alone:
        inputs = torch.from_numpy(ids).to(body.device)
        return body(input_ids=inputs, use_cache=False).last_hidden_state[row_of, last]  # type: ignore[no-any-return]
    # Every token sees the prefix; in its row it sees its own query up to itself.
    owned = torch.from_numpy(owner).to(body.device)
    hidden = run_behind(
        body,
        prefix,
        torch.from_numpy(ids).to(body.device),
        torch.from_numpy(positions).to(body.device),
        (owned[:, :, None] == owned[:, None, :]).tril(),
    )
    return hidden[row_of, last]


def _check(
    model: Any, prompts: Sequence[Sequence[int]], label_ids: Sequence[int], token_budget: int
) -> None:
    """Refuse what would fail late, or on a GPU with a device-side assertion, in one line."""
    config = model.config
    if token_budget < 0:
        raise UserError(f"token_budget is {token_budget}: give a number, or 0 for the default")
    if not label_ids or not all(0 <= i < config.vocab_size for i in label_ids):
        raise UserError(f"label tokens {list(label_ids)} are not all in 0..{config.vocab_size - 1}")
    if not all(prompts):
        raise UserError("a prompt is empty: a prompt needs at least one token to predict from")
    reshaped = [k for k in _RESHAPED_LOGITS if getattr(config, k, None) not in (None, 1, 1.0)]
    if reshaped:
        raise UserError(
            f"{config.model_type} changes its logits after the output embedding ({reshaped[0]}), "
            "which llmft does not do: use another model"
        )
    check_tokens(config, prompts)
    longest = _longest(prompts)
    limit = getattr(config, "max_position_embeddings", None) or longest
    if longest > limit:
        raise UserError(
            f"a prompt has {longest} tokens, and the model sees {limit}: use fewer shots "
            "(nothing is ever truncated)"
        )


def check_tokens(config: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse a token that the model has no embedding of; its tokenizer may know more tokens."""
    largest = max(map(max, prompts), default=0)
    if largest >= config.vocab_size:
        raise UserError(
            f"a text has token {largest}, and the model has tokens 0 to {config.vocab_size - 1}: "
            "its tokenizer is another model's, or tokens were added that the model did not learn"
        )


def _finite(model: Any, logp: torch.Tensor) -> torch.Tensor:
    """The log-probabilities, where they are numbers."""
    if not logp.isfinite().all():
        raise UserError(f"the model {_no_number(model.dtype)}")
    return logp


def _no_number(dtype: torch.dtype) -> str:
    """What is to be said of a model that gives no number."""
    if dtype == torch.float32:
        return "gives NaN or infinity: its weights are damaged, or its training went wrong"
    name = str(dtype).removeprefix("torch.")
    return f"gives NaN or infinity in {name}: use dtype float32"


def window(config: Any) -> int | None:
    """The tokens that every layer of a model with this configuration sees; None: as many as come.

    A model with layers that see only so many of the last tokens says so in its configuration, under
    one of the names `WINDOWS`.
    """
    if not getattr(config, "use_sliding_window", True):
        return None
    sizes = [getattr(config, name, None) for name in WINDOWS]
    return min((n for n in sizes if isinstance(n, int) and n > 0), default=None)


def packable(body: Any) -> int:
    """Tokens of the longest prompt that a causal LM without its head may be given in a packed row.

    A window that its layers do not name to attention ends it: only the model's own mask has that.
    """
    size = window(body.config)
    if size is None or (attention.packs(body) and size in attention.windows(body)):
        return sys.maxsize
    return size


def _room(model: Any) -> int:
    """Tokens that a packed row, its prefix included, may have."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    return min(positions, packable(causal_lm.base_model))


def _row(model: Any) -> int:
    return ROW.get(model.device.type, ROW["cpu"])


def _longest(prompts: Sequence[Sequence[int]]) -> int:
    return max(map(len, prompts), default=0)


@torch.inference_mode()
def probe(model: Any, asked: Sequence[Sequence[int]]) -> None:
    """Refuse an architecture for which packing behind a shared prefix is not the plain way.

    Not every causal LM takes positions and a mask as given (ALiBi, recurrences, prompt tuning,
    adapters on the output embedding, local attention by the place in the row). Two prompts in a row
    that is as long as what is to be believed show it, whatever the reason is; a model is held to it
    anew only when rows become longer, and then at the next power of two.

    Args:
        model: as in `score`, in evaluation mode.
        asked: the prompts whose scores are to be believed.

    Raises:
        UserError: it gives other numbers packed than plainly.
    """
    wanted = length = min(_room(model), 1 << (_longest(asked) + _row(model)).bit_length())
    while length > _probed.get(model, 0):
        try:
            gap = _gap(model, length)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, UserError) else error
            if isinstance(cause, RuntimeError) and out_of_memory(cause):
                length //= 2  # what is asked may fit: rows are as short as the memory needs
                continue
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{model.config.model_type} cannot be scored with a shared prefix "
                f"({type(error).__name__}): use another model"
            ) from error
        tolerance = 1e-3 if model.dtype == torch.float32 else 0.3
        if not gap < tolerance:
            raise UserError(
                f"{model.config.model_type} gives other log-probabilities with a shared prefix "
                f"than without (by {gap:.2g}, in {length} tokens): use another model"
            )
        _probed[model] = wanted


def _gap(model: Any, length: int) -> float:
    """The largest difference between packed and plain scores of two prompts in a row.

    Between the second's few tokens and the prefix lies the first: a window by the place in the row
    is filled with what must not be seen, and lacks what must.
    """
    vocabulary = model.config.vocab_size
    token = [(11 + 7919 * i) % vocabulary for i in range(length)]
    prefix, first = length - min(_row(model), length // 2), length - min(3, length // 4)
    prompts = [token[:first], token[:prefix] + token[first:]]
    label_ids = sorted(set(token[:16]) | set(range(min(vocabulary, 32))))
    plainly = _finite(model, score_plainly(model, prompts, label_ids))
    packed = _logits(model, prompts, label_ids, 0).log_softmax(dim=-1)
    return float((packed - plainly).abs().max())


def out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; MPS and the CPU only say so."""
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )
