"""How fast `llmft.engine.training` is: python -m tests.benchmarks.training [--json FILE].

Repeats per minute of few-shot training, a repeat being one run of a few updates, by

- ours: `training.train` with all repeats stacked, as a chapter has it;
- ours, one by one: the same with `stack=1`;
- a plain PyTorch loop: transformers' model with its own attention and dropout, batches padded on
  the right with an attention mask, one repeat after another, each from a fresh copy of the weights;
- transformers' `Trainer` on such a copy, nothing logged, saved or evaluated.

All four have the same prompts, batches, number type, fused AdamW, schedule, clipping and loss, and
none computes logits but the label words' at the answer position (with `model(...).logits` a step of
OPT-125m on prompts of 20 tokens takes a half more). Copying the weights and adding adapters counts;
tokenising does not, nor do our learning curves, as the others have none. The four run in one
process, in turns, and ratios are medians of the rounds' own, so that a machine that slows down
slows all. With dropout off, their weights after some updates are compared.

The pocket checkpoint, and OPT-125m's published shape (random weights, seeded) on the pocket world's
pairs, whose prompts have about 20 tokens. For the latter OPT's vocabulary and configuration must be
in a folder (`--data`), as `opt/tokenizer` and `opt/opt-125m`; without, its cases are left out.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from peft.tuners.lora import LoraLayer
from torch.nn import functional as F  # noqa: N812 (the usual name)

from llmft import ROOT, UserError
from llmft.engine import learner, models, training
from llmft.engine.models import Model
from llmft.engine.spec import Spec
from llmft.engine.training import Job
from llmft.hardware import device_name, peak_memory
from llmft.nli import prompts, tasks
from tests.benchmarks.common import machine, opt_125m, timed


Weights = dict[str, torch.Tensor]
"""What a repeat has learnt, by the names that `training.Trained` has for it."""

CHECKED = 3
"""Updates after which weights are compared."""

POCKET = {
    "pocket, full, 2 examples": ("fine-tuning", 2),
    "pocket, full, 16 examples": ("fine-tuning", 16),
    "pocket, full, 128 examples": ("fine-tuning", 128),
    "pocket, LoRA, 128 examples": ("lora", 128),
}
OPT = {
    "OPT-125m, full, 16 examples": ("fine-tuning", 16),
    "OPT-125m, LoRA, 16 examples": ("lora", 16),
}
"""Method and examples of each case."""


@dataclass(frozen=True)
class Case:
    """A model, how it is trained, and the repeats."""

    model: Model
    spec: Spec
    jobs: list[Job]
    labels: tuple[int, ...]


def main() -> int:
    """Measure every case and print the tables."""
    options = _options()
    torch.set_num_threads(options.threads)
    log: Any = transformers.logging
    log.set_verbosity_error()
    try:
        device = models.choose_device(options.device)
        found = {name: measure(name, case, rounds) for name, case, rounds in _cases(options)}
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    about = machine(options.threads) | {"device": device_name(device)}
    print(f"\n{', '.join(f'{name} {value}' for name, value in about.items())}\n")
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(about | {"cases": found}, indent=1) + "\n")
    return 0


def measure(name: str, case: Case, rounds: int) -> dict[str, Any]:
    """Rates of all contenders, the median round's ratios, memory, and how far the weights agree."""
    differences, stack = agreement(case), _room(case)
    contenders = {n: work for n, work in CONTENDERS.items() if stack > 1 or n != "one by one"}
    seconds: dict[str, list[tuple[float, float]]] = {contender: [] for contender in contenders}
    memory: dict[str, float] = dict.fromkeys(contenders, 0.0)
    for i in range(rounds):
        for contender, work in contenders.items():
            with peak_memory(case.model.device) as peak:
                took, _ = timed(partial(work, case))
            seconds[contender].append(took)
            memory[contender] = max(memory[contender], peak["peak_memory_mib"])
        walls = ", ".join(f"{contender} {took[-1][0]:.3g} s" for contender, took in seconds.items())
        print(f"{name}, round {i + 1} of {rounds}: {walls}", file=sys.stderr)
    return {
        "repeats": len(case.jobs),
        "updates": case.spec.updates,
        "batch_size": case.spec.batch_size,
        "rounds": rounds,
        "stack": stack,
        "repeats_per_minute": {
            contender: 60 * len(case.jobs) / statistics.median(wall for wall, _ in took)
            for contender, took in seconds.items()
        },
        "ratios": {
            f"{own} / {other}": [
                statistics.median(
                    theirs[clock] / mine[clock]
                    for mine, theirs in zip(seconds[own], seconds[other], strict=True)
                )
                for clock in (0, 1)  # wall, CPU
            ]
            for own in OURS
            for other in THEIRS
            if own in seconds
        },
        "peak_memory_mib": memory,
        "seconds": seconds,
        "difference": differences,
    }


def agreement(case: Case) -> dict[str, list[float]]:
    """How far each contender's weights are from ours stacked, without dropout, after some updates.

    The largest absolute difference, and the norm of all differences; "change" is how far training
    moved ours. AdamW moves a weight whose gradient is rounding alone (a key's bias, on which
    attention does not depend) as far as any other, so the former is never as small as rounding.
    """
    short = replace(
        case, spec=replace(case.spec, updates=min(CHECKED, case.spec.updates)), jobs=case.jobs[:2]
    )
    with _without_dropout(case.model.model):
        trained = {name: work(short) for name, work in CONTENDERS.items()}
        with learner.learner(short.model, short.spec, short.labels) as learning:
            begin = learner.start(learning, [job.init_seed for job in short.jobs])
    base = trained.pop("stacked")
    started = [{name: value[r].detach() for name, value in begin.items()} for r in range(len(base))]
    return {name: _apart(base, other) for name, other in ({"change": started} | trained).items()}


def _apart(ours: list[Weights], theirs: list[Weights]) -> list[float]:
    differences = [
        value.cpu() - other[name].cpu()
        for one, other in zip(ours, theirs, strict=True)
        for name, value in one.items()
    ]
    norms = torch.stack([difference.norm() for difference in differences])
    largest = max(float(difference.abs().max()) for difference in differences)
    return [largest, float(norms.norm())]


def report(found: dict[str, dict[str, Any]]) -> str:
    """The numbers as Markdown tables."""

    def row(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"

    def pair(values: list[float] | None, form: str = ".3g") -> str:
        return f"{values[0]:{form}} ({values[1]:{form}})" if values else ""

    ratios = [f"{own} / {other}" for own in OURS for other in THEIRS]
    lines = [
        "Repeats per minute, and ratios of rates (in brackets: in CPU time)",
        "",
        row("case", "repeats × updates", "stack", *CONTENDERS, *ratios),
        row(*["---"] * (3 + len(CONTENDERS) + len(ratios))),
    ]
    for name, case in found.items():
        rates = [number(case["repeats_per_minute"].get(contender)) for contender in CONTENDERS]
        shown = [pair(case["ratios"].get(ratio)) for ratio in ratios]
        size = f"{case['repeats']} × {case['updates']}"
        lines.append(row(name, size, str(case["stack"]), *rates, *shown))
    lines += ["", "Peak memory, MiB", "", row("case", *CONTENDERS), row(*["---"] * 5)]
    for name, case in found.items():
        lines.append(row(name, *[number(case["peak_memory_mib"].get(n)) for n in CONTENDERS]))
    columns = ["change", *list(CONTENDERS)[1:]]
    lines += [
        "",
        "Largest difference of a weight (in brackets: of all, as a norm) from ours stacked after "
        f"{CHECKED} updates without dropout: of ours before (its change), of the others after",
        "",
        row("case", *columns),
        row(*["---"] * 5),
    ]
    for name, case in found.items():
        lines.append(row(name, *[pair(case["difference"][n], ".1e") for n in columns]))
    return "\n".join(lines)


# --- the contenders ----------------------------------------------------------------------------


def ours(case: Case, stack: int = 0) -> list[Weights]:
    """`training.train`, without the learning curve."""

    def nothing(learner: Any, stack: Any, jobs: list[Job], loss: Any) -> list[dict[str, float]]:
        return [{"train_loss": 0.0, "validation_loss": 0.0} for _ in jobs]

    with (
        mock.patch.object(training, "_point", nothing),
        learner.learner(case.model, case.spec, case.labels) as learning,
    ):
        trained = training.train(learning, case.jobs, training.cross_entropy, stack=stack)
    return [one.weights for one in trained]


def plain(case: Case) -> list[Weights]:
    """One PyTorch loop after another."""
    spec, device, done = case.spec, case.model.device, []
    for job in case.jobs:
        model = _fresh(case, job.init_seed)
        optimizer, scheduler = _optimizer(model, spec)
        order = training._order(len(job.train), spec.updates * _size(case), _seed(job))
        rows, collate = _rows(job), partial(_collated, padding=case.model.tokenizer.pad_token_id)
        for update in range(spec.updates):
            part = order[update * _size(case) : (update + 1) * _size(case)]
            batch = {name: x.to(device) for name, x in collate([rows[i] for i in part]).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = _loss(model, batch, case.labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(_learnt(model), training.CLIP)
            optimizer.step()
            scheduler.step()
        done.append(_weights(model))
    return done


def trainer(case: Case) -> list[Weights]:
    """One `Trainer` after another."""
    spec, device, done = case.spec, case.model.device, []
    for job in case.jobs:
        model = _fresh(case, job.init_seed)
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                max_steps=spec.updates,
                per_device_train_batch_size=spec.batch_size,
                max_grad_norm=training.CLIP,
                seed=job.init_seed,
                bf16=device.type == "cuda",
                use_cpu=device.type == "cpu",
                dataloader_num_workers=0,
                dataloader_pin_memory=False,
                remove_unused_columns=False,
                report_to="none",
                save_strategy="no",
                eval_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            _Trainer(
                model,
                arguments,
                partial(_collated, padding=case.model.tokenizer.pad_token_id),
                _rows(job),
                optimizers=_optimizer(model, spec),
                labels=case.labels,
                order=_seed(job),
            ).train()
        done.append(_weights(model))
    return done


CONTENDERS: dict[str, Callable[[Case], list[Weights]]] = {
    "stacked": ours,
    "one by one": partial(ours, stack=1),
    "plain loop": plain,
    "Trainer": trainer,
}
OURS, THEIRS = ("stacked", "one by one"), ("plain loop", "Trainer")


class _Trainer(transformers.Trainer):
    """`Trainer` with the label words' cross-entropy, and epochs shuffled as ours are."""

    def __init__(
        self, *args: Any, labels: tuple[int, ...], order: list[int], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(transformers.PrinterCallback)
        self.labels, self.order = labels, order

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002 (as in transformers' signature)
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        with self.accelerator.autocast():
            return _loss(model, inputs, self.labels)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return _Epochs(len(train_dataset), self.order)


class _Epochs(torch.utils.data.Sampler[int]):
    """Another shuffle an epoch, as `training._order` draws them."""

    def __init__(self, n: int, seed: list[int]) -> None:
        self.n, self.rng = n, np.random.default_rng(seed)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rng.permutation(self.n).tolist())

    def __len__(self) -> int:
        return self.n


def _fresh(case: Case, seed: int) -> Any:
    """A copy of the model in training mode, with adapters where the method has them."""
    model = copy.deepcopy(case.model.model)
    if case.spec.method == "lora":
        model = learner._with_lora(replace(case.model, model=model), case.spec)
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.reset_lora_parameters("default", True)  # type: ignore[no-untyped-call]
    return model.train()


def _causal_lm(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _learnt(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _weights(model: Any) -> Weights:
    """What has changed, by the names that it has in `learner.Reader`."""
    named = _causal_lm(model).base_model.named_parameters(prefix="body")
    return {name: value.detach() for name, value in named if value.requires_grad}


def _optimizer(model: Any, spec: Spec) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(
        _learnt(model),
        lr=spec.learning_rate,
        betas=training.BETAS,
        weight_decay=training.WEIGHT_DECAY,
        fused=True,
    )
    factor = partial(training._schedule, updates=spec.updates)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _rows(job: Job) -> Any:
    """A job's examples as a data set."""
    targets = job.train.targets[:, 0].tolist()
    return [
        {"input_ids": list(prompt), "target": target}
        for prompt, target in zip(job.train.prompts, targets, strict=True)
    ]


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


def _loss(model: Any, batch: dict[str, Any], labels: tuple[int, ...]) -> torch.Tensor:
    """Cross-entropy of the label words at each prompt's last token."""
    causal_lm, mask = _causal_lm(model), batch["attention_mask"]
    body = causal_lm.base_model(batch["input_ids"], attention_mask=mask, use_cache=False)
    rows, last = torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1
    hidden = body.last_hidden_state[rows, last]
    logits = F.linear(hidden, causal_lm.get_output_embeddings().weight[list(labels)])
    return F.cross_entropy(logits.float(), batch["target"])


# --- the cases ---------------------------------------------------------------------------------


def _cases(options: argparse.Namespace) -> Iterator[tuple[str, Case, int]]:
    """Each case and its rounds, its model made when its turn comes."""
    pocket = models.load("pocket", device=options.device)
    for name, (method, examples) in POCKET.items():
        if options.only in name:
            case = _case(pocket, method, examples, options.repeats, options.updates)
            yield name, case, options.rounds
    if not any(options.only in name for name in OPT):
        return
    try:
        inner, tokenizer = opt_125m(options.data)
    except UserError as error:
        print(f"OPT-125m is left out: {error}", file=sys.stderr)
        return
    opt = replace(
        pocket,
        model=inner.to(pocket.device),
        tokenizer=tokenizer,
        name="opt-125m",
        max_positions=inner.config.max_position_embeddings,
        parameters=sum(parameter.numel() for parameter in inner.parameters()),
    )
    for name, (method, examples) in OPT.items():
        if options.only in name:
            case = _case(opt, method, examples, options.opt_repeats, options.opt_updates)
            yield name, case, options.opt_rounds


def _case(model: Model, method: str, examples: int, repeats: int, updates: int) -> Case:
    lora = {"rank": 4, "alpha": 8.0, "targets": "q_proj,v_proj"} if method == "lora" else {}
    spec = Spec(
        method=method,
        shots=examples,
        learning_rate=1e-2 if lora else 1e-3,
        updates=updates,
        batch_size=8,
        objective="label words",
        selection="last",
        **lora,  # type: ignore[arg-type]  # three types in one dictionary
    )
    labels = prompts.label_tokens(model.tokenizer, spec.pattern)
    task, jobs = tasks.load("pocket"), []
    for repeat in range(repeats):
        drawn = tasks.sample(task.train, examples, repeat)
        train = training.labelled(drawn, spec, model)
        jobs.append(Job(train, train.part([0]), repeat, repeat, f"repeat {repeat}"))
    return Case(model, spec, jobs, labels)


def _seed(job: Job) -> list[int]:
    return [job.order_seed, job.round]


def _size(case: Case) -> int:
    return min(case.spec.batch_size, len(case.jobs[0].train))


def _room(case: Case) -> int:
    """Repeats that are trained together."""
    with learner.learner(case.model, case.spec, case.labels) as learning:
        return max(1, min(len(case.jobs), training._room(learning)))


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    before = {module: module.dropout for module in model.modules() if hasattr(module, "dropout")}
    try:
        for module in before:
            module.dropout = 0.0
        yield
    finally:
        for module, value in before.items():
            module.dropout = value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared", help="OPT's folder")
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    parser.add_argument("--repeats", type=int, default=10, help="of a pocket case")
    parser.add_argument("--updates", type=int, default=20, help="of a pocket case")
    parser.add_argument("--opt-repeats", type=int, default=3, help="of an OPT-125m case")
    parser.add_argument("--opt-updates", type=int, default=3, help="of an OPT-125m case")
    parser.add_argument("--rounds", type=int, default=2, help="of a pocket case")
    parser.add_argument("--opt-rounds", type=int, default=1, help="of an OPT-125m case")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, for all")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
