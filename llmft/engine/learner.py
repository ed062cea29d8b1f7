"""A model in training: which of its weights change, and how its logits are read.

All of them (fine-tuning), new ones beside a few (LoRA and its like), the biases (BitFit), a new
head alone (a linear probe), or none but keys and values of a prefix that stands before every
prompt. The loop that changes them (`training.py`) knows only names of weights: it is one for all.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional as F  # noqa: N812 (the usual name)

from llmft import UserError, files
from llmft.engine import attention, models
from llmft.engine.models import Model
from llmft.engine.spec import ADAPTERS, Spec


HEAD_STD = 0.02
"""Spread of a new classification head's weights: OPT's and GPT-2's `init_std`."""

ALL_LAYERS = "all-linear"
"""LoRA's target that stands for every linear layer of a model's body (PEFT's name for it)."""

FEEDFORWARD = ("fc2", "down_proj")
"""What layers are called that read a block's hidden activations: OPT's, Llama's."""

KEYS_VALUES_HIDDEN = "keys-values-hidden"
"""IA3's target that stands for the layers of its paper: keys, values, and `FEEDFORWARD`."""

CHANGES: dict[str, Callable[[str], bool]] = {
    "fine-tuning": lambda _: True,
    "lora": lambda name: ".lora_" in name,
    "rslora": lambda name: ".lora_" in name,
    "dora": lambda name: ".lora_" in name,
    "vera": lambda name: ".vera_lambda_" in name,
    "ia3": lambda name: ".ia3_" in name,
    "bitfit": lambda name: name.endswith(".bias"),
    "prefix": lambda name: name.endswith(".trainable_embedding"),
    "probe": lambda _: False,
}
"""Which of a model's parameters a method changes, by their names; a new head is none of them.

BitFit: Ben Zaken et al. 2022, arXiv:2106.10199.
"""

SINK = 1
"""First positions of a prefix that stay as they are: every prompt attends to its beginning, and to
train that is not stable (Eyuboglu et al. 2025, arXiv:2506.06266)."""


@dataclass(frozen=True)
class Learner:
    """A model in training: which of its weights change, and how its logits are read.

    `base` is the model as it came, `model` what is scored afterwards (around the same weights),
    `reader` gives logits at places, `names` are the reader's parameters that change: the only ones
    with a gradient. `dtype` is the model's own number type; weights that change are float32 during
    training.
    """

    base: Model
    model: Model
    reader: "Reader"
    names: list[str]
    spec: Spec
    dtype: torch.dtype


class Reader(torch.nn.Module):
    """Logits at some places: of some classes (rows of the output embedding), or of all.

    A new classification `head` has rows of its own instead. `whole` is the PEFT model around the
    causal LM, if there is one: where it has a prefix, prompts are read behind that.
    """

    def __init__(
        self, causal_lm: Any, classes: Sequence[int] | None, *, head: bool, whole: Any = None
    ) -> None:
        super().__init__()
        self.prefix = getattr(whole, "prompt_encoder", None)
        self.before = partial(attention.own_prefix, whole)
        self.body = causal_lm.base_model
        self.output = causal_lm.get_output_embeddings()
        self.classes = None if classes is None else torch.tensor(classes, device=causal_lm.device)
        self.head = None
        if head:
            shape = len(classes or ()), self.output.weight.shape[1]
            self.head = torch.nn.Parameter(self.output.weight.new_empty(shape))

    def forward(self, prompts: Sequence[Sequence[int]], places: torch.Tensor) -> torch.Tensor:
        """Float32 logits (reads, classes) at `places` (prompts, most places; -1: none) of prompts.

        Prompt after prompt, place after place; the prompts are packed, so none is padded.
        """
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        begins = (lengths.cumsum(0) - lengths).unsqueeze(1).to(places.device)
        hidden = attention.run_packed(self.body, prompts, self.before())
        at = (begins + places)[places >= 0].to(hidden.device)
        weight, bias = self.output.weight, self.output.bias
        if self.head is not None:
            weight, bias = self.head, None
        elif self.classes is not None:
            weight, bias = weight[self.classes], None if bias is None else bias[self.classes]
        return F.linear(hidden.index_select(0, at), weight, bias).float()


@contextmanager
def learner(
    model: Model, spec: Spec, label_ids: Sequence[int], context: Sequence[int] = ()
) -> Iterator[Learner]:
    """`model` prepared for a method that trains, and as it was afterwards (but for requires_grad).

    A prefix begins as the keys and values of the first tokens of `context`.

    Raises:
        UserError: targets that the model lacks, a model without biases for BitFit, a context with
            fewer tokens than the prefix has positions, or an adapter.
    """
    if isinstance(model.model, peft.PeftModel):
        raise UserError(f"model {model.name} is an adapter: train the model it stands on")
    base, inner = model.model, model.model
    head = spec.objective == "head"
    classes = None if spec.objective in ("vocabulary", "query") else label_ids
    output = inner.get_output_embeddings()
    try:
        if head:  # an output embedding of its own, to hold the rows that are learnt
            inner.set_output_embeddings(copy.deepcopy(output))
        if spec.changes in ADAPTERS:
            inner = _with_adapter(model, spec)
        if spec.changes == "prefix":
            inner = with_prefix(model, spec, context)
        reader = Reader(base, classes, head=head, whole=inner).eval()
        names = [name for name, _ in reader.named_parameters() if CHANGES[spec.changes](name)]
        if head:  # new rows are learnt in place of the output embedding's
            names = ["head", *(n for n in names if n != "head" and not n.startswith("output."))]
        if spec.changes == "bitfit" and not set(names) - {"head"}:
            raise UserError(f"model {model.name} has no biases: use another method than bitfit")
        for name, parameter in reader.named_parameters():
            parameter.requires_grad_(name in names)
        places = model.max_positions - spec.prefix
        changed = replace(model, model=inner, max_positions=places)
        yield Learner(model, changed, reader, names, spec, base.dtype)
    finally:
        if spec.changes in ADAPTERS and inner is not base:
            inner.unload()
            vars(base).pop("peft_config", None)  # else PEFT warns of a second adapter
        base.set_output_embeddings(output)
        base.eval()


def _with_adapter(model: Model, spec: Spec) -> Any:
    """The model with new weights beside the targets (`adapter`): it computes the same until then.

    By PEFT.
    """
    layers = linear_layers(model)
    names = targets(spec.targets, layers)
    if missing := [name for name in names if name not in layers]:
        raise UserError(
            f"model {model.name} has no linear layer {missing[0]!r} for {spec.changes}: its "
            f"layers are {', '.join(layers)}"
        )
    with torch.random.fork_rng(), models.quiet():
        # `start` draws its weights again.
        return peft.get_peft_model(model.model, adapter(spec, names)).eval()


def adapter(spec: Spec, names: list[str]) -> peft.PeftConfig:
    """PEFT's name for what stands beside each layer W of these `names`.

    Where x is read and W x would be written:

    - LoRA: W x + (alpha / rank) B A x, with B = 0 (Hu et al. 2022, arXiv:2106.09685)
    - rsLoRA: alpha / sqrt(rank) in place of alpha / rank (Kalajdzievski 2023, arXiv:2312.03732)
    - DoRA: each row of W + (alpha / rank) B A at a length of its own, which is learnt, too (Liu et
      al. 2024, arXiv:2402.09353)
    - VeRA: W x + b * B (d * A x), with A and B fixed at random, the same for all layers, b = 0 and
      d = 0.1 (Kopiczko et al. 2024, arXiv:2310.11454); `init_seed` draws A and B
    - IA3: l * W x, its bias included, or W (l * x) in the layers `FEEDFORWARD`, with l = 1 (Liu et
      al. 2022, arXiv:2205.05638)
    """
    common: dict[str, Any] = {"task_type": peft.TaskType.CAUSAL_LM, "target_modules": names}
    if spec.changes == "ia3":
        read = [name for name in names if name in FEEDFORWARD]
        return peft.IA3Config(**common, feedforward_modules=read)
    if spec.changes == "vera":
        return peft.VeraConfig(**common, r=spec.rank, projection_prng_key=spec.init_seed)
    return peft.LoraConfig(
        **common,
        r=spec.rank,
        lora_alpha=spec.alpha,  # PEFT divides it: any number will do
        lora_dropout=0.0,
        use_rslora=spec.changes == "rslora",
        use_dora=spec.changes == "dora",
    )


def with_prefix(model: Model, spec: Spec, context: Sequence[int]) -> Any:
    """The model behind keys and values that are trained, at first those of `context`'s beginning.

    Prefix tuning without its reparameterisation (Li & Liang 2021, arXiv:2101.00190), begun and
    trained as a cartridge (Eyuboglu et al. 2025, arXiv:2506.06266), by PEFT.
    """
    if len(context) < spec.prefix:
        raise UserError(
            f"a prefix of {spec.prefix} positions begins as so many tokens of the context, and "
            f"this one has {len(context)}: use fewer positions or more shots"
        )
    config = peft.CartridgeConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        num_virtual_tokens=spec.prefix,
        num_frozen_tokens=SINK,
    )
    with torch.random.fork_rng(), models.quiet(), torch.no_grad():
        wrapper = peft.get_peft_model(model.model, config).eval()
        cache = attention.run_prefix(model.model.base_model, context[: spec.prefix])
        layers: Any = cache.layers
        first = [(layer.keys, layer.values) for layer in layers]
        peft.initialize_kv_prefix_from_past_key_values(wrapper, past_key_values=first)
    return wrapper


def targets(text: str, layers: Iterable[str]) -> list[str]:
    """The layers that `targets` name; `ALL_LAYERS` and `KEYS_VALUES_HIDDEN` stand for several."""
    if text == ALL_LAYERS:
        return list(layers)
    if text == KEYS_VALUES_HIDDEN:
        return [name for name in layers if name in ("k_proj", "v_proj", *FEEDFORWARD)]
    return [name.strip() for name in text.split(",")]


def linear_layers(model: Model) -> dict[str, tuple[tuple[int, int], int]]:
    """The linear layers of the model's body, by the last part of their name: (shape, number).

    The shape is that of the first such layer's weight.
    """
    layers: dict[str, tuple[tuple[int, int], int]] = {}
    for name, module in model.model.base_model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2 or isinstance(module, torch.nn.Embedding):
            continue
        last = name.rsplit(".", 1)[-1]
        shape, n = layers.get(last, (tuple(weight.shape), 0))
        layers[last] = shape, n + 1
    return layers


def start(learner: Learner, seed: int) -> dict[str, torch.Tensor]:
    """A copy of the weights that change, as they are before training.

    `seed` draws LoRA's new weights, as PEFT does (Kaiming-uniform A, B = 0), and a head's; those of
    VeRA and IA3 start at numbers of their own. All are float32, whatever the model's type: an
    update is smaller than bfloat16 can add.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in learner.reader.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters("default", True)
        if learner.reader.head is not None:
            torch.nn.init.normal_(learner.reader.head, std=HEAD_STD)
    weights = dict(learner.reader.named_parameters())
    return {name: weights[name].detach().to(torch.float32, copy=True) for name in learner.names}


@contextmanager
def holding(
    learner: Learner, weights: Mapping[str, torch.Tensor]
) -> Iterator[list[torch.nn.Parameter]]:
    """The reader's parameters that hold these very tensors, not copies, while the block runs.

    What trains the parameters trains the tensors.
    """
    by_name = dict(learner.reader.named_parameters())
    parameters = [by_name[name] for name in weights]
    before = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, weights.values(), strict=True):
            parameter.data = value
        yield parameters
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.grad = None
            parameter.data = value


@contextmanager
def with_weights(learner: Learner, weights: Mapping[str, torch.Tensor]) -> Iterator[Model]:
    """The model with these weights, in its own number type, while the block runs."""
    reader = learner.reader
    types = {name: parameter.dtype for name, parameter in reader.named_parameters()}
    rows = reader.output.weight.data
    with holding(learner, {name: value.to(types[name]) for name, value in weights.items()}):
        try:
            if reader.head is not None:
                reader.output.weight.data = rows.index_copy(0, reader.classes, reader.head.data)
            yield learner.model
        finally:
            reader.output.weight.data = rows


def save(learner: Learner, folder: Path, record: Mapping[str, Any]) -> None:
    """Write the model as it is now, or its adapter alone, with the `record` of its run.

    `models.load` reads it back. The folder is there whole or not at all.

    Raises:
        UserError: the folder cannot be written, or an adapter has a head of its own.
    """
    model, config = learner.model.model, learner.base.model.config
    beside, head = isinstance(model, peft.PeftModel), learner.reader.head is not None
    if beside and head:
        raise UserError("an adapter with a head cannot be saved: use objective 'label words'")
    partial = folder.with_name(f".{folder.name}.part")
    tied = config.tie_word_embeddings
    with files.writing(folder):
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        try:
            config.tie_word_embeddings = tied and not head
            with models.quiet():
                if beside:
                    adapter_config = model.peft_config["default"]
                    adapter_config.base_model_name_or_path = learner.model.name
                    adapter_config.revision = learner.model.revision or None
                    model.save_pretrained(partial, save_embedding_layers=False)
                else:
                    model.save_pretrained(partial)
                learner.model.tokenizer.save_pretrained(partial)
            (partial / "run.json").write_text(json.dumps(dict(record), indent=1) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        finally:
            config.tie_word_embeddings = tied
            shutil.rmtree(partial, ignore_errors=True)
