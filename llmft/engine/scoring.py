"""Label log-probabilities: the one way in which every method of the book is evaluated.

A prompt ends where the label word would come next, so a prediction is the log-probability of each
label's token at that place, normalised over the labels. In-context prompts share one long prefix
(the demonstrations) and differ in a short query, so a query should cost what the query costs:

- the longest common token prefix is run once, and its keys and values are kept (`attention.py`);
- what is left of the prompts is packed, not padded (Krell et al. 2021, arXiv:2107.02027): several
  queries share a row, and a mask lets each see the prefix and itself only;
- only the label rows of the output embedding are applied, and only at the last position.

`score_plainly` runs every prompt whole and alone: the definition, which the tests hold `score` to,
and which every model is held to (`probe`) before its answers at a length are believed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from llmft import UserError
from llmft.engine.attention import own_prefix, prefix_length, run_behind, run_prefix


ROW = {"cpu": 32, "cuda": 512, "mps": 256}
"""Tokens in a packed row, at most: a wider row wastes attention between queries, a narrower one
wastes space at its end and, off the CPU, copies the prefix more often (once per row and layer)."""

BUDGET = {"cpu": 1_024, "cuda": 16_384, "mps": 4_096}
"""Tokens in a batch of rows when the caller names no budget."""

_probed: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()
"""The longest packed rows, in tokens, at which a model was held to `score_plainly`."""


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
            not the result. Out of memory, it is halved.

    Returns:
        float32 (prompts, labels) on the CPU, in the prompts' order.

    Raises:
        UserError: a too long prompt, a token or label outside the vocabulary, an architecture that
            gives other numbers here than when it is run plainly, no numbers at all, or too little
            memory.
    """
    return _log_probabilities(model, prompts, label_ids, [1] * len(prompts), token_budget)


def distributions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    last: Sequence[int] | None = None,
    *,
    token_budget: int = 0,
) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary after the last tokens of each prompt.

    As `score`; `last` says how many of each prompt's last tokens, by default one each, the answer
    position. Float32 (sum of last, vocabulary) on the CPU: prompt after prompt, token after token.
    """
    return _log_probabilities(model, prompts, None, last or [1] * len(prompts), token_budget)


def text_nll(model: Any, texts: Sequence[Sequence[int]], *, token_budget: int = 0) -> float:
    """Mean negative log-likelihood, nats a token, of every token of `texts` but the first.

    As `score`. Its exponential is the perplexity.
    """
    total, tokens = 0.0, 0
    for start in range(0, len(texts), 64):  # whole distributions: a few at a time
        some = [text for text in texts[start : start + 64] if len(text) > 1]
        counts = [len(text) - 1 for text in some]
        begins = [text[:-1] for text in some]
        logp = distributions(model, begins, counts, token_budget=token_budget)
        following = torch.tensor([token for text in some for token in text[1:]])
        total -= float(logp.gather(1, following.unsqueeze(1)).double().sum())
        tokens += len(following)
    return total / max(1, tokens)


@torch.inference_mode()
def score_plainly(
    model: Any, prompts: Sequence[Sequence[int]], label_ids: Sequence[int]
) -> torch.Tensor:
    """What `score` gives, by definition: every prompt whole and alone, by the model's own head.

    The model must be in evaluation mode.
    """
    logits = torch.empty(len(prompts), len(label_ids))
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([list(prompt)], device=model.device)
        logits[i] = model(input_ids=ids, logits_to_keep=1).logits[0, -1, list(label_ids)]
    return logits.log_softmax(dim=-1)


# --- shared prefix and packed rows -------------------------------------------------------------


@torch.inference_mode()
def _log_probabilities(
    model: Any,
    prompts: Sequence[Sequence[int]],
    classes: Sequence[int] | None,
    last: Sequence[int],
    token_budget: int,
) -> torch.Tensor:
    """Of `classes` (None: the vocabulary) after the `last` tokens of each prompt, all checked."""
    check(model, prompts, classes)
    training = model.training
    model.eval()
    try:
        with memory_suffices(model.device, f"for a prompt of {_longest(prompts)} tokens"):
            probe(model, prompts)
            logits = _logits(model, prompts, classes, last, token_budget)
        return _finite(model, logits.log_softmax(dim=-1))
    finally:
        model.train(training)


def _logits(
    model: Any,
    prompts: Sequence[Sequence[int]],
    classes: Sequence[int] | None,
    last: Sequence[int],
    token_budget: int = 0,
) -> torch.Tensor:
    """Float32 logits (sum of last, classes) on the CPU, prompt after prompt."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    body, head = causal_lm.base_model, causal_lm.get_output_embeddings()
    rows = slice(None) if classes is None else list(classes)
    # Float32 whatever the model's type: two label logits differ by less than bfloat16 can hold.
    weight = head.weight[rows].float()
    bias = None if head.bias is None else head.bias[rows].float()
    # What is read lies behind the prefix: the model's own, and what the prompts begin with.
    before = [len(prompt) - n for prompt, n in zip(prompts, last, strict=True)]
    shared = min([common_prefix(prompts), *before])
    prefix, ahead = own_prefix(model), shared + prefix_length(model)
    if shared:
        prefix = run_prefix(body, prompts[0][:shared], prefix)
    suffixes = [prompt[shared:] for prompt in prompts]
    places = torch.split(torch.arange(sum(last)), list(last))  # in the result
    logits = torch.empty(sum(last), len(weight))

    def fill(budget: int) -> None:
        width = min(ROW[model.device.type], budget, _positions(model) - shared)
        if not shared:  # nothing is shared by a row: two queries will do
            width = min(width, 2 * sorted(map(len, suffixes))[len(suffixes) // 2])
        width = max(_longest(suffixes), width)
        packed = pack(list(map(len, suffixes)), width)
        packed.sort(key=lambda row: -sum(len(suffixes[i]) for i in row))
        per_batch = max(1, budget // width)
        for start in range(0, len(packed), per_batch):
            batch = packed[start : start + per_batch]
            hidden = _last_hidden(body, prefix, ahead, suffixes, batch, last)
            there = torch.cat([places[i] for row in batch for i in row])
            logits[there] = torch.nn.functional.linear(hidden.float(), weight, bias).cpu()

    if prompts:
        halving(fill, token_budget or BUDGET[model.device.type])
    return logits


def _last_hidden(
    body: Any,
    prefix: Any,
    ahead: int,
    suffixes: Sequence[Sequence[int]],
    batch: list[list[int]],
    last: Sequence[int],
) -> torch.Tensor:
    """Hidden states (positions, hidden) of each query's `last` tokens, rows after rows.

    `batch` has rows of numbers of `suffixes`, which come after `prefix`, of `ahead` tokens.
    """
    width = max(sum(len(suffixes[i]) for i in row) for row in batch)
    ids = np.zeros((len(batch), width), dtype=np.int64)
    positions = np.full((len(batch), width), ahead, dtype=np.int64)
    owners = np.full((len(batch), width), -1, dtype=np.int64)  # padding's owner is -1
    read_rows: list[int] = []
    read: list[int] = []
    for r, row in enumerate(batch):
        end = 0
        for i in row:
            start, end = end, end + len(suffixes[i])
            ids[r, start:end] = suffixes[i]
            positions[r, start:end] = range(ahead, ahead + end - start)
            owners[r, start:end] = i
            read_rows += [r] * last[i]
            read += range(end - last[i], end)
    inputs = (torch.from_numpy(array).to(body.device) for array in (ids, positions, owners))
    return run_behind(body, prefix, *inputs)[read_rows, read]


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all `prompts` begin with, leaving each at least one of its own."""
    if not prompts:
        return 0
    ids = [list(prompt) for prompt in prompts]
    # The smallest and the largest in dictionary order differ first, so they decide for all.
    return min(in_common(min(ids), max(ids)), min(map(len, ids)) - 1)


def in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are the same in both."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


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


# --- what is refused ---------------------------------------------------------------------------


def check(
    model: Any, prompts: Sequence[Sequence[int]], classes: Sequence[int] | None = None
) -> None:
    """Refuse what would fail late, or on a GPU with a device-side assertion, in one line.

    A tokenizer may know more tokens than the model has embeddings of: only those that occur count.
    """
    size = model.config.vocab_size
    if not all(0 <= i < size for i in classes or ()):
        raise UserError(f"label tokens {list(classes or ())} are not all in 0..{size - 1}")
    if not all(prompts):
        raise UserError("a prompt is empty: use a pattern with words of its own")
    largest = max(map(max, prompts), default=0)
    if largest >= size:
        raise UserError(
            f"a text has token {largest}, and the model has tokens 0 to {size - 1}: "
            "its tokenizer is another model's, or tokens were added that the model did not learn"
        )
    longest = _longest(prompts)
    if longest > _positions(model):
        raise UserError(
            f"a prompt has {longest} tokens, and the model sees {_positions(model)}: use fewer "
            "shots or shorter texts (nothing is ever truncated)"
        )


def _finite(model: Any, logp: torch.Tensor) -> torch.Tensor:
    """The log-probabilities, where they are numbers."""
    if logp.isfinite().all():
        return logp
    if model.dtype == torch.float32:
        raise UserError(
            "the model gives NaN or infinity: its weights are damaged, or its training went wrong"
        )
    name = str(model.dtype).removeprefix("torch.")
    raise UserError(f"the model gives NaN or infinity in {name}: use dtype float32")


@torch.inference_mode()
def probe(model: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse an architecture for which packing behind a shared prefix is not the plain way.

    Not every causal LM takes positions and a mask as given (ALiBi, recurrences, prompt tuning,
    local attention that its layers leave to a mask), and some change their logits after the output
    embedding. Two prompts in a row that is as long as what is to be believed show it, whatever the
    reason is; a model, in evaluation mode, is held to it anew only when rows become longer, and
    then at the next power of two.

    Raises:
        UserError: it gives other numbers packed than plainly.
    """
    row = ROW[model.device.type]
    length = min(_positions(model), 1 << (_longest(prompts) + row).bit_length())
    if length <= _probed.get(model, 0):
        return
    try:
        gap = _gap(model, length)
    except Exception as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise UserError(
            f"{model.config.model_type} cannot be scored with a shared prefix "
            f"({type(error).__name__}): use another model"
        ) from error
    if not gap < (1e-3 if model.dtype == torch.float32 else 0.3):
        raise UserError(
            f"{model.config.model_type} gives other log-probabilities with a shared prefix "
            f"than without (by {gap:.2g}, in {length} tokens): use another model"
        )
    _probed[model] = length


def _gap(model: Any, length: int) -> float:
    """The largest difference between packed and plain scores of two prompts in a row.

    Between the second's few tokens and the prefix lies the first: a window by the place in the row
    is filled with what must not be seen, and lacks what must.
    """
    vocabulary = model.config.vocab_size
    token = [(11 + 7919 * i) % vocabulary for i in range(length)]
    prefix = length - min(ROW[model.device.type], length // 2)
    first = length - min(3, length // 4)
    prompts = [token[:first], token[:prefix] + token[first:]]
    label_ids = sorted(set(token[:16]) | set(range(min(vocabulary, 32))))
    plainly = _finite(model, score_plainly(model, prompts, label_ids))
    packed = _logits(model, prompts, label_ids, [1, 1]).log_softmax(dim=-1)
    return float((packed - plainly).abs().max())


def _positions(model: Any) -> int:
    """Tokens that a prompt may have; a model that does not say may be asked anything."""
    most = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    return int(most) - prefix_length(model)


def _longest(prompts: Sequence[Sequence[int]]) -> int:
    return max(map(len, prompts), default=0)


# --- memory ------------------------------------------------------------------------------------


def out_of_memory(error: Exception) -> bool:
    """CUDA has a class for it; MPS and the CPU only say so."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


def halving(work: Callable[[int], Any], size: int) -> tuple[Any, int]:
    """What `work(size)` gives, with half the size whenever memory runs out, and the last size."""
    while True:
        try:
            return work(size), size
        except RuntimeError as error:
            if size == 1 or not out_of_memory(error):
                raise
        size = (size + 1) // 2


@contextmanager
def memory_suffices(device: torch.device, purpose: str) -> Iterator[None]:
    """Turn running out of memory into one line."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"{device} has too little memory {purpose}: use a smaller model, fewer shots, dtype "
            "bfloat16, another device, or where all weights are trained method lora"
        ) from error
