"""Causal language models and their tokenizers: loaded whole, checked, never running remote code.

Checkpoints have faults that load without an error: another number type than expected (OPT's are
float16), missing weights that stay random, an output embedding that is no longer tied to the input
embedding (huggingface/transformers#43159), an adapter's weights that have no place, no tokenizer.
Each is refused here, in one line.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from llmft import ROOT, UserError, files
from llmft.engine import attention, gguf
from llmft.nli import hub


POCKET = ROOT / "data" / "pocket" / "model"
"""The pocket world's checkpoint, from seed 0; that of another seed N is `pocket-N`, beside it."""

REVISIONS = {
    "facebook/opt-125m": "27dcfa74d334bc871f3234de431e71c6eeba5dd6",
    "facebook/opt-350m": "08ab08cc4b72ff5593870b5d527cf4230323703c",
}
"""The pinned revisions, for runs that name none."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

COMMIT = re.compile("[0-9a-f]{40}")
"""A revision that never moves."""

_CONTENT = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt")


@dataclass(frozen=True)
class Model:
    """A model ready to be scored or trained: in evaluation mode, on its device.

    `digest` says which weights, configuration and tokenizer these are: for a folder or GGUF file a
    SHA-256 (16 hex digits) of its files, else the revision. `max_positions` counts tokens;
    `parameters` counts weights, tied ones once.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str
    digest: str
    device: torch.device
    max_positions: int
    parameters: int


def load(name: str, *, revision: str = "", device: str = "auto", dtype: str = "float32") -> Model:
    """Load the causal language model `name` with its tokenizer.

    Args:
        name: "pocket" ("pocket-1": of another seed), a published model (`gguf.PUBLISHED`), a folder
            (a checkpoint, or an adapter), a GGUF file, or an id on the Hugging Face Hub.
        revision: a commit, branch or tag on the Hub; empty = the pinned one where there is one.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.
        dtype: "float32", "bfloat16" or "float16", whatever the checkpoint was stored in.

    Raises:
        UserError: an unknown model, device or dtype; a checkpoint that is missing, damaged,
            incomplete, or needs remote code.
    """
    target = choose_device(device)
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    folder, revision = _files(name, revision)
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(name, folder, device, dtype)
    with one_line(name, folder):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        # Transformers chooses anew: what the file names might be code from the Hub.
        config._attn_implementation = None
        # From a folder, never an id: transformers would look for converted weights of another
        # revision. Pickles are read without executing anything.
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        auto: Any = transformers.AutoModelForCausalLM
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            trust_remote_code=False,
            use_safetensors=any(folder.glob(hub.WEIGHTS[0])),
            weights_only=True,
            output_loading_info=True,
        )
    _check_whole(name, model, info)
    max_positions = getattr(model.config, "max_position_embeddings", None)
    if not max_positions:
        raise UserError(f"model {name}: its configuration has no max_position_embeddings")
    if not set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()):
        raise UserError(
            f"model {name}: {folder} has no tokenizer files (such as tokenizer.json): put those of "
            "the model there"
        )
    model.to(target)
    model.eval()
    return Model(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        digest=folder.name if revision or gguf.is_one(name) else folder_digest(folder),
        device=target,
        max_positions=int(max_positions),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def own_folder(name: str) -> Path | None:
    """The folder of a pocket checkpoint, which may yet have to be made; None for another model."""
    found = re.fullmatch(r"pocket(-[1-9]\d*)?", name)
    return POCKET.with_name(f"{POCKET.name}{found[1] or ''}") if found else None


def _locate(name: str, revision: str) -> tuple[Path | None, str]:
    """The folder of that name, which a GGUF file may yet have to become; None for one of the Hub's.

    And its revision, "" for a folder.
    """
    if gguf.is_one(name):
        return gguf.folder(name), ""
    own = own_folder(name)
    folder = own or Path(name).expanduser()
    if name and folder.is_dir():
        return folder, ""
    if own:
        seed = name.removeprefix("pocket").replace("-", " --seed ")
        raise UserError(
            f"no pocket checkpoint in {own}: git checkout it, or run `llmft pocket{seed}`"
        )
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise UserError(
            f"unknown model {name!r}: use pocket, {', '.join(gguf.PUBLISHED)}, "
            "a folder, a GGUF file, or a Hugging Face Hub id"
        )
    return None, revision or REVISIONS.get(name, "main")


def _files(name: str, revision: str) -> tuple[Path, str]:
    """The folder of a model's files, fetched if need be, and its revision ("" for a folder)."""
    folder, revision = _locate(name, revision)
    if gguf.is_one(name):
        folder = gguf.checkpoint(name)
    return folder or _download(name, revision), revision


@lru_cache(maxsize=16)
def _download(name: str, revision: str) -> Path:
    """The folder of a Hub model's files, looked up once a process: a branch may move."""
    return hub.model(name, revision)


def identity(name: str, revision: str = "") -> tuple[str, str]:
    """The revision ("" for a folder) and the digest of a model, as of `load`, without loading it.

    A commit on the Hub is its own digest: its files need not be on this machine.
    """
    folder, revision = _locate(name, revision)
    if folder is None:
        commit = COMMIT.fullmatch(revision)
        return revision, revision if commit else _download(name, revision).name
    if gguf.is_one(name):
        return "", gguf.digest(name)
    if not (folder / "adapter_config.json").is_file():
        return "", folder_digest(folder)
    base = adapter_base(name, folder)
    with _naming_adapter(name):
        _, begin = identity(*base)
    return "", folder_digest(folder, begin)


def weight(name: str, revision: str = "") -> int:
    """Bytes of a model's weights as they are stored."""
    folder, _ = _files(name, revision)
    if (folder / "adapter_config.json").is_file():
        return weight(*adapter_base(name, folder))
    paths = {path for kind in hub.WEIGHTS for path in folder.glob(kind)}
    return sum(path.stat().st_size for path in paths)


@contextmanager
def _naming_adapter(name: str) -> Iterator[None]:
    """An error of the model that an adapter stands on names the adapter."""
    try:
        yield
    except UserError as error:
        raise UserError(f"model {name} stands on another: {error}") from error


def _load_adapter(name: str, folder: Path, device: str, dtype: str) -> Model:
    """The adapter in `folder`, on the model that it was trained on."""
    base_name, revision = adapter_base(name, folder)
    with _naming_adapter(name):
        base = load(base_name, revision=revision, device=device, dtype=dtype)
    with one_line(name, folder):
        warnings.filterwarnings("error", "Found missing adapter keys")  # would stay random
        model = peft.PeftModel.from_pretrained(base.model, str(folder))
        # Once more, for what PEFT does not report: the weights that have no place.
        weights = peft.load_peft_weights(str(folder), device="cpu")
        homeless = peft.set_peft_model_state_dict(model, weights).unexpected_keys
    if attention.prefix_length(model):  # it is one tensor, which PEFT has put into place
        homeless = [name for name in homeless if name != "prompt_embeddings"]
    if homeless:
        raise UserError(
            f"model {name}: {len(homeless)} of the adapter's weights have no place in {base_name} "
            f"({homeless[0]}, ...): it is another model's, or no causal language model's"
        )
    model.eval()
    return replace(
        base,
        model=model,
        name=name,
        digest=folder_digest(folder, begin=base.digest),
        revision="",
        max_positions=base.max_positions - attention.prefix_length(model),
    )


def adapter_base(name: str, folder: Path) -> tuple[str, str]:
    """Name and revision (or "") of the model that the adapter in `folder` stands on."""
    with one_line(name, folder):
        config = peft.PeftConfig.from_pretrained(str(folder))
    if config.task_type not in (None, "CAUSAL_LM"):
        raise UserError(
            f"model {name}: it is an adapter for {config.task_type}, and llmft needs one for "
            "CAUSAL_LM"
        )
    base = str(config.base_model_name_or_path or "")
    if not base:
        raise UserError(
            f"model {name}: its adapter_config.json names no model that it stands on: restore it"
        )
    if (Path(base).expanduser() / "adapter_config.json").is_file():
        raise UserError(
            f"model {name}: what it stands on, {base}, is an adapter, too: name a whole model in "
            "base_model_name_or_path of its adapter_config.json"
        )
    return base, config.revision or ""


def choose_device(name: str) -> torch.device:
    """The torch device `name`, "auto" being CUDA, else MPS, else CPU."""
    if name == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps)
    try:
        torch.empty(0, device=name)
        known = torch.device(name).type in ("cpu", "cuda", "mps")
    except (RuntimeError, AssertionError):  # an AssertionError of torch without CUDA
        known = False
    if not known:
        raise UserError(f"this machine has no device {name!r}: use auto, cpu, cuda or mps")
    return torch.device(name)


def folder_digest(folder: Path, begin: str = "") -> str:
    """SHA-256 (16 hex digits) of a checkpoint's weights, configuration and tokenizer files.

    `begin` is hashed before them: the digest of the model that an adapter stands on.
    """
    digest = hashlib.sha256(begin.encode())
    for path in sorted({path for kind in _CONTENT for path in folder.glob(kind)}):
        digest.update(path.name.encode() + bytes.fromhex(files.sha256(path)))
    return digest.hexdigest()[:16]


def _check_whole(name: str, model: Any, info: dict[str, Any]) -> None:
    """Refuse weights that were missing, left over or of another shape, and a lost tie."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, info.get(kind) or ())):
            raise UserError(
                f"model {name}: the checkpoint has {len(keys)} {kind.replace('_', ' ')} "
                f"({keys[0]}, ...): it is damaged or another architecture's"
            )
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"model {name} has no output embedding: it is no causal language model")
    tied = head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    if getattr(model.config, "tie_word_embeddings", False) and not tied:
        raise UserError(
            f"model {name}: its configuration ties input and output embedding, and they are two"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' reports and progress bars out of a chapter's frozen output."""
    log: Any = transformers.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks transformers 5.23 by a name that is about to change.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


@contextmanager
def one_line(name: str, folder: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint raises (a dozen kinds) into one line."""
    try:
        with quiet():
            yield
    except Exception as error:
        detail = (" ".join(str(error).split()) or type(error).__name__)[:400]
        raise UserError(
            f"model {name}: the checkpoint in {folder} is missing files or damaged: restore it "
            f"({detail})"
        ) from error
