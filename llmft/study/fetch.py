"""Download what a parameter set names, beforehand: its models, its data, checked and reported.

The same functions find the files later (`models.load`, `tasks.load`), so what was fetched is what
is used. What is complete is kept, so a fetch that was interrupted goes on with what is missing.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers

from llmft import UserError
from llmft.engine import models
from llmft.nli import hub, sources
from llmft.params import Study


@dataclass(frozen=True)
class Fetched:
    """A model or data set that is on this machine now: `size` in bytes, `about` in words."""

    name: str
    revision: str
    size: int
    licence: str
    about: str


def fetch(studies: Sequence[Study], home: Path | None = None) -> Iterator[Fetched]:
    """Download the models and data of studies, one after the other; progress is said on stderr.

    Args:
        studies: of each its `model` and `task`.
        home: the folder to use in HF_HOME's place.

    Raises:
        UserError: as `hub.model` and `sources.hans_file` do; a file that is not what the Hub says.
    """
    if hub.is_offline():
        raise UserError("HF_HUB_OFFLINE is set, which forbids the network: unset it to fetch")
    for name in dict.fromkeys(study.model for study in studies):
        yield from _model(name, "", home)
    for task in dict.fromkeys(study.task for study in studies):
        if task == "mnli-hans":
            yield _glue(home)
            yield _hans(home)
        else:
            _say(f"task {task}: on this machine already, nothing to fetch")


def _model(name: str, revision: str, home: Path | None) -> Iterator[Fetched]:
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").is_file():
        _say(f"model {name}: an adapter, on this machine already")
        yield from _model(*models.adapted(name, folder), home)
        return
    if name == "pocket" or folder.is_dir():
        _say(f"model {name}: on this machine already, nothing to fetch")
        return
    revision = revision or models.PINNED.get(name, "main")
    licence = _licence("model", name, revision)
    folder = hub.model(name, revision, home=home, progress=hub.lines)
    _verify("model", name, folder)
    with models.one_line(name, folder):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    about = f"{config.model_type}, {len(tokenizer):,} tokens in the vocabulary"
    yield Fetched(name, folder.name, _size(folder), licence, about)


def _glue(home: Path | None) -> Fetched:
    name, revision = sources.GLUE
    licence = _licence("dataset", name, revision)
    files = list(sources.MNLI.values())
    folder = hub.snapshot("dataset", name, revision, files, home=home, progress=hub.lines)
    _verify("dataset", name, folder)
    train, matched = sources.glue_mnli(home=home)
    about = f"{len(train):,} training and {len(matched):,} matched pairs without neutral"
    return Fetched(f"{name} (mnli)", folder.name, _size(folder), licence, about)


def _hans(home: Path | None) -> Fetched:
    _say(f"HANS: {sources.HANS_URL}")
    path = sources.hans_file(home)
    about = f"{len(sources.from_hans(sources.read(path))):,} pairs"
    return Fetched("HANS", sources.HANS_SHA256[:16], path.stat().st_size, "MIT", about)


def _licence(kind: str, name: str, revision: str) -> str:
    """What the card says, at the revision that is downloaded."""
    _say(f"{name} at {revision[:8]} ...")
    with hub.one_line(kind, name, revision):
        info: Any = huggingface_hub.HfApi().repo_info(name, repo_type=kind, revision=revision)
    card = info.card_data.to_dict() if info.card_data else {}
    found = card.get("license_name") or card.get("license")
    words = ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")
    return words if words not in ("", "other", "unknown") else f"see {hub.page(kind, name)}"


def _verify(kind: str, name: str, folder: Path) -> None:
    """Compare every file with the checksum that the Hub has for it; remove one that differs."""
    with hub.one_line(kind, name, folder.name):
        found = huggingface_hub.HfApi().verify_repo_checksums(
            name,
            repo_type=kind,
            revision=folder.name,
            cache_dir=folder.parents[2],  # over models--NAME/snapshots/COMMIT
        )
    for wrong in found.mismatches:
        path = folder / wrong["path"]
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    if found.mismatches:
        raise UserError(
            f"{name}: {found.mismatches[0]['path']} is damaged (wrong checksum) and was removed: "
            "run it again"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
