"""How fast `llmft.engine.scoring` is: python -m tests.benchmarks.scoring [--json FILE].

Two questions, on SmolLM2-135M and MultiNLI's in-domain test pairs (`llmft fetch smollm2`):

1. Examples a second against EleutherAI's lm-evaluation-harness 0.4.13 (its own `HFLM`, batch 8), in
   one process, on the same threads, model and prompts, with 16 demonstrations. `score` does the
   whole test set, as in a run, the harness a sample of it. The chosen label must be the same on
   every example of that, and so the accuracy. And our operations a second as a share of those of a
   float32 product of two 1024 x 1024 matrices: 2 N a token, N being all weights but the embedding,
   and with those of attention, 4 times the width for each token that a token sees, in each layer.
   What the speedup would be if every operation ran at that product's rate is its ceiling.
2. What a query costs with 32 demonstrations, relative to 2.

Both sides start from token ids (the harness's own, checked to be ours), so neither is charged for
tokenising; llmft's time includes the run over the shared prefix. The harness works in slices and
`score` runs between them, so that a machine that slows down slows both. Needs `pip install
.[benchmark]`.
"""

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from llmft import UserError, params
from llmft.engine.scoring import common_prefix, score
from llmft.nli.prompts import PATTERNS, context, encode, label_tokens
from llmft.nli.tasks import sample
from tests.benchmarks.common import SIDE, machine, product, real, table, timed


SPEEDUP, GROWTH = 20.0, 1.5
"""At least this many times the harness's rate; at most this cost of 32 demonstrations over 2."""

PATTERN = PATTERNS[params.study("smollm2").pattern]


def main() -> int:
    """Measure, print a table, and return 0 if both bounds hold and the labels agree."""
    options = _options()
    torch.set_num_threads(options.threads)
    log: Any = transformers.logging
    log.set_verbosity_error()
    try:
        _, whole, task = real()
        model, tokenizer, train, queries = whole.model, whole.tokenizer, task.train, task.in_domain
        found = against_harness(model, tokenizer, train, queries, options)
        found |= growth(model, tokenizer, train, queries[: options.queries], options.repeats)
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    found |= machine(options.threads)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    holds = (
        found["same_label"] == found["examples"]
        and found["speedup"] >= SPEEDUP
        and found["cost_32_over_2"] <= GROWTH
    )
    print(f"speedup >= {SPEEDUP:g}, cost <= {GROWTH:g}, same labels: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


def against_harness(
    model: Any, tokenizer: Any, train: pd.DataFrame, queries: pd.DataFrame, options: Any
) -> dict[str, Any]:
    """Rates of both engines on `queries` with 16 demonstrations, and how far they agree."""
    queries = queries.sample(len(queries), random_state=0)
    some = queries[: options.examples]  # what the harness does
    demonstrations = sample(train, 16, 0)
    labels = label_tokens(tokenizer, PATTERN)
    prompts = encode(tokenizer, PATTERN, queries, demonstrations, 2048)
    harness = _harness(model, tokenizer)
    requests = _requests(harness, some, demonstrations, prompts[: len(some)], labels)

    score(model, prompts[:8], labels)
    ours, theirs, theirs_rows, products = [], [], [], []
    starts = range(0, len(some), options.slice)
    for start in starts:
        part = requests[2 * start : 2 * (start + options.slice)]
        seconds, answers = timed(partial(harness._loglikelihood_tokens, part, disable_tqdm=True))
        theirs.append(seconds)
        theirs_rows += [log_probability for log_probability, _ in answers]
        seconds, rows = timed(lambda: score(model, prompts, labels))
        ours.append(seconds)
        products.append(product()[1])
        print(
            f"{min(start + options.slice, len(some))} of {len(some)} examples: harness "
            f"{len(part) / 2 / theirs[-1][0]:.2f}/s, llmft {len(prompts) / ours[-1][0]:.2f}/s",
            file=sys.stderr,
        )
    rows = rows[: len(some)]
    gold = torch.tensor(some["label"].to_numpy())
    harness_rows = torch.tensor(theirs_rows).view(-1, 2).log_softmax(dim=-1)
    # Slice by slice, so that a machine that slows down half-way does not favour either side.
    sizes = [len(some[start : start + options.slice]) for start in starts]
    speedups = [
        [
            (len(prompts) / own[clock]) / (size / other[clock])
            for size, own, other in zip(sizes, ours, theirs, strict=True)
        ]
        for clock in (0, 1)
    ]
    seconds_each = [cpu for _, cpu in ours]
    shares = {
        name: statistics.median(
            count / seconds * at / (2 * SIDE**3)
            for seconds, at in zip(seconds_each, products, strict=True)
        )
        for name, count in zip(("weights", "all"), operations(model, prompts), strict=True)
    }
    return {
        "examples": len(some),
        "test_set": len(prompts),
        "accuracy": float((rows.argmax(dim=1) == gold).float().mean()),
        "harness_accuracy": float((harness_rows.argmax(dim=1) == gold).float().mean()),
        "share_of_the_product_rate": shares["weights"],
        "share_with_attention": shares["all"],
        "prefix_tokens": common_prefix(prompts),
        "query_tokens_mean": statistics.mean(map(len, prompts)) - common_prefix(prompts),
        "harness_examples_per_second": len(some) / sum(wall for wall, _ in theirs),
        "llmft_examples_per_second": len(ours) * len(prompts) / sum(wall for wall, _ in ours),
        "speedup": statistics.median(speedups[0]),
        "speedup_in_cpu_time": statistics.median(speedups[1]),
        "speedup_at_the_product_s_rate": statistics.median(speedups[1]) / shares["all"],
        "same_label": int((rows.argmax(dim=1) == harness_rows.argmax(dim=1)).sum()),
        "label_0_chosen": int((rows.argmax(dim=1) == 0).sum()),
        "largest_difference": float((rows - harness_rows).abs().max()),
        "spread_over_examples": float(rows[:, 0].std()),
    }


def operations(model: Any, prompts: list[list[int]]) -> tuple[float, float]:
    """Of `score`, which reads the common prefix once: those with weights, and with attention."""
    config, prefix = model.config, common_prefix(prompts)
    body = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    own = [len(prompt) - prefix for prompt in prompts]
    seen = prefix**2 / 2 + sum(n * prefix + n**2 / 2 for n in own)
    weights = 2.0 * body * (prefix + sum(own))
    return weights, weights + 4 * config.hidden_size * config.num_hidden_layers * seen


def growth(
    model: Any, tokenizer: Any, train: pd.DataFrame, queries: pd.DataFrame, repeats: int
) -> dict[str, Any]:
    """Seconds per query with 2 and with 32 demonstrations, the prefix's run included."""
    labels = label_tokens(tokenizer, PATTERN)
    prompts = {n: encode(tokenizer, PATTERN, queries, sample(train, n, 0), 2048) for n in (2, 32)}
    times: dict[int, list[tuple[float, float]]] = {2: [], 32: []}
    for _ in range(repeats):
        for shots, several in times.items():
            several.append(timed(partial(score, model, prompts[shots], labels))[0])
    wall, cpu = (
        {n: statistics.median(pair[i] for pair in times[n]) / len(queries) for n in times}
        for i in (0, 1)
    )
    return {
        "queries": len(queries),
        "prefix_tokens_32": common_prefix(prompts[32]),
        "seconds_per_query_2": wall[2],
        "seconds_per_query_32": wall[32],
        "cost_32_over_2": wall[32] / wall[2],
        "cost_32_over_2_in_cpu_time": cpu[32] / cpu[2],
    }


def _harness(model: Any, tokenizer: Any) -> Any:
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError(
            f"lm-eval is not installed ({error}): pip install lm-eval==0.4.13"
        ) from error
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, add_bos_token=False)


def _requests(
    harness: Any,
    queries: pd.DataFrame,
    demonstrations: pd.DataFrame,
    prompts: list[list[int]],
    labels: tuple[int, ...],
) -> list[Any]:
    """The harness's requests, a pair an example, tokenised by itself, and the same as `prompts`."""
    head = context(PATTERN, demonstrations) + PATTERN.separator
    texts = [
        head + PATTERN.fill(premise, hypothesis)
        for premise, hypothesis in zip(queries.premise, queries.hypothesis, strict=True)
    ]
    requests = [
        ((text, f" {word}"), *harness._encode_pair(text, f" {word}"))
        for text in texts
        for word in PATTERN.verbalizer
    ]
    expected = [(prompt, [label]) for prompt in prompts for label in labels]
    if [(request[1], request[2]) for request in requests] != expected:
        raise UserError("the harness tokenises these prompts in another way: nothing to compare")
    return requests


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=96, help="compared with the harness")
    parser.add_argument("--slice", type=int, default=32, help="examples the harness does in a go")
    parser.add_argument("--queries", type=int, default=400, help="for the cost of demonstrations")
    parser.add_argument("--repeats", type=int, default=3, help="of each timing in the second part")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, for both engines")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
