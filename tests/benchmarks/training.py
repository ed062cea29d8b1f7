"""How fast `llmft.engine.training` is: python -m tests.benchmarks.training [--json FILE].

Tokens a second of fine-tuning all weights, ours against transformers' `Trainer` with dynamic
padding (batches padded to their own longest prompt, an attention mask, PyTorch's attention), and
what share of the processor's matrix multiplications that is: 6 N operations a token, N being all
parameters, over the rate of a float32 product of two 1024 x 1024 matrices measured beside it.

Both have the same prompts, batches, fused AdamW, schedule, clipping and loss, and neither computes
logits but the label words' at the answer position (`Trainer` with its usual loss computes all, and
is slower). Copies of weights count; tokenising does not, nor do our learning curves, as the Trainer
has none. The two take turns in one process on other batches each time, and ratios are medians of
the rounds' own, with their range, so that a machine that slows down slows both; in the CPU's time,
too, which other processes disturb less. Their weights after a round are compared; the pocket
model's differ by what dropout dropped.

- "mnli": SmolLM2-135M and MultiNLI's pairs as zero-shot prompts, which `llmft fetch smollm2` puts
  on this machine. Batches of 16.
- "pocket": the pocket checkpoint and its pairs, about 20 tokens each. Batches of 8.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from torch.nn import functional as F  # noqa: N812 (the usual name)

from llmft import UserError
from llmft.engine import learner, models, training
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.engine.training import Examples, Job
from llmft.hardware import device_name
from llmft.nli import prompts, tasks
from tests.benchmarks.common import SIDE, machine, product, real, timed


Weights = dict[str, torch.Tensor]
"""What was learnt, by the names that `training.Trained` has for it."""


@dataclass(frozen=True)
class Case:
    """A model, how it is trained, on what, and for how many rounds."""

    model: Model
    spec: Spec
    labels: tuple[int, ...]
    examples: Examples
    rounds: int

    def job(self, number: int) -> Job:
        """The examples of a round, each of which comes up once."""
        size = self.spec.updates * self.spec.batch_size
        part = self.examples.part(range(number * size, (number + 1) * size))
        return Job(part, part.part([0]))


def main() -> int:
    """Measure the cases and print what was found."""
    options = _options()
    torch.set_num_threads(options.threads)
    log: Any = transformers.logging
    log.set_verbosity_error()
    about = machine(options.threads) | {"processor": device_name(torch.device("cpu"))}
    found = {}
    try:
        for name in options.cases:
            found[name] = measure(name, CASES[name](options))
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(about | {"cases": found}, indent=1) + "\n")
    return 0


def measure(name: str, case: Case) -> dict[str, Any]:
    """Seconds (wall, CPU) of each round's two contenders and of a product, tokens, and weights."""
    rounds = []
    for number in range(case.rounds):
        job = case.job(number)
        (ours_took, ours), square, (theirs_took, theirs) = (
            _ours(case, job),
            product(),
            _trainer(case, job),
        )
        tokens = sum(map(len, job.train.prompts))
        rounds.append({"tokens": tokens, "ours": ours_took, "Trainer": theirs_took, "1": square})
        print(
            f"{name}, round {number + 1} of {case.rounds}: {tokens} tokens, ours "
            f"{ours_took[0]:.3g} s, Trainer {theirs_took[0]:.3g} s",
            file=sys.stderr,
        )
        begin = {n: w.detach() for n, w in _named(case.model.model).items()}
        norms = [_norm(ours, theirs), _norm(ours, begin)]
    return {"parameters": case.model.parameters, "rounds": rounds, "difference": norms}


def report(found: dict[str, dict[str, Any]]) -> str:
    """The numbers as Markdown."""
    lines = [
        "",
        "| case | clock | ours / Trainer | tokens a second, ours | Trainer's | share of the "
        "product's rate, ours | Trainer's |",
        "| --- " * 7 + "|",
    ]
    for name, case in found.items():
        for clock, word in enumerate(("wall", "CPU")):
            rates = {
                who: [one["tokens"] / one[who][clock] for one in case["rounds"]]
                for who in ("ours", "Trainer")
            }
            ratios = [a / b for a, b in zip(rates["ours"], rates["Trainer"], strict=True)]
            shares = {
                who: [
                    6 * case["parameters"] * rate * one["1"][clock] / (2 * SIDE**3)
                    for rate, one in zip(rates[who], case["rounds"], strict=True)
                ]
                for who in rates
            }
            cells = [name, word, *map(_spread, (ratios, rates["ours"], rates["Trainer"]))]
            cells += [_spread(shares[who]) for who in rates]
            lines.append(f"| {' | '.join(cells)} |")
        apart, moved = case["difference"]
        lines.append(
            f"\n{name}: weights {apart:.1e} apart after a round that moved them {moved:.1e}"
        )
    return "\n".join([*lines, "", "Medians of the rounds, in brackets the least and the most."])


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


# --- the contenders ----------------------------------------------------------------------------


def _ours(case: Case, job: Job) -> tuple[tuple[float, float], Weights]:
    """`training.train`, without the learning curve."""
    nothing = {"train_loss": 0.0, "validation_loss": 0.0}
    with (
        mock.patch.object(training, "_point", return_value=nothing),
        learner.learner(case.model, case.spec, case.labels) as learning,
    ):
        took, trained = timed(partial(training.train, learning, job, training.cross_entropy))
    return took, trained.weights


def _trainer(case: Case, job: Job) -> tuple[tuple[float, float], Weights]:
    """`Trainer` on a copy of the model, nothing logged, saved or evaluated."""
    spec, model = case.spec, copy.deepcopy(case.model.model)
    order = training._order(len(job.train), len(job.train), [job.order_seed, job.round])
    targets = job.train.targets[:, 0].tolist()
    rows = [{"input_ids": list(job.train.prompts[i]), "target": targets[i]} for i in order]
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=training.BETAS, weight_decay=training.WEIGHT_DECAY, fused=True
    )
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate
    factor = partial(training._schedule, updates=spec.updates)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=spec.updates,
            per_device_train_batch_size=spec.batch_size,
            max_grad_norm=training.CLIP,
            use_cpu=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = _Trainer(
            model,
            arguments,
            partial(_collated, padding=case.model.model.config.pad_token_id or 0),
            rows,  # type: ignore[arg-type]  # a list is a data set
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
        )
        trainer.labels = list(case.labels)
        trainer.remove_callback(transformers.PrinterCallback)
        took, _ = timed(trainer.train)
    return took, {name: weight.detach() for name, weight in _named(model).items()}


class _Trainer(transformers.Trainer):
    """`Trainer` with the label words' cross-entropy at the answer, on rows in their order."""

    labels: list[int]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 (as in transformers' signature)
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        mask = inputs["attention_mask"]
        body = model.base_model(inputs["input_ids"], attention_mask=mask, use_cache=False)
        hidden = body.last_hidden_state[torch.arange(len(mask)), mask.sum(dim=1) - 1]
        logits = F.linear(hidden, model.get_output_embeddings().weight[self.labels])
        return F.cross_entropy(logits, inputs["target"])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(train_dataset)


def _collated(rows: list[dict[str, Any]], padding: int) -> dict[str, torch.Tensor]:
    """A batch padded on the right to its own longest prompt."""
    width = max(len(row["input_ids"]) for row in rows)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    padded = [row["input_ids"] + [padding] * (width - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": torch.tensor(padded),
        "attention_mask": (torch.arange(width) < lengths[:, None]).long(),
        "target": torch.tensor([row["target"] for row in rows]),
    }


def _named(model: Any) -> Weights:
    return dict(model.base_model.named_parameters(prefix="body"))


def _norm(some: Weights, others: Weights) -> float:
    """The norm of all differences."""
    return float(torch.stack([(some[name] - others[name]).norm() for name in some]).norm())


# --- the cases ---------------------------------------------------------------------------------


def mnli(options: argparse.Namespace) -> Case:
    """SmolLM2-135M and MultiNLI's first pairs.

    Raises:
        UserError: they are not on this machine.
    """
    study, model, task = real()
    spec = replace(_spec(model, options, study.learning_rate, 16), pattern=study.pattern)
    frame = task.train.iloc[: options.rounds * spec.updates * spec.batch_size]
    words = prompts.label_tokens(model.tokenizer, spec.wording)
    return Case(model, spec, words, training.labelled(frame, spec, model), options.rounds)


def pocket(options: argparse.Namespace) -> Case:
    """The pocket checkpoint and its pairs."""
    model, task = models.load("pocket", device="cpu"), tasks.load("pocket")
    spec = _spec(model, options, 5e-4, 8)
    spec = replace(spec, updates=20 * spec.updates)
    frame = task.train.iloc[: options.rounds * spec.updates * spec.batch_size]
    words = prompts.label_tokens(model.tokenizer, spec.wording)
    return Case(model, spec, words, training.labelled(frame, spec, model), options.rounds)


CASES: dict[str, Callable[[argparse.Namespace], Case]] = {"mnli": mnli, "pocket": pocket}


def _spec(model: Model, options: argparse.Namespace, learning_rate: float, size: int) -> Spec:
    return Spec(
        model=model.name,
        method="fine-tuning",
        shots=2,
        learning_rate=learning_rate,
        updates=options.updates,
        batch_size=size,
        objective="label words",
        selection="last",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "cases", nargs="*", default=list(CASES), help="mnli, pocket; by default both"
    )
    parser.add_argument("--updates", type=int, default=2, help="of a round (pocket: 20 times)")
    parser.add_argument("--rounds", type=int, default=5, help="of a case")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, for all")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
