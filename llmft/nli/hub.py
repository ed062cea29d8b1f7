"""Repositories of the Hugging Face Hub: downloaded once by its own client, then found offline.

`huggingface_hub` downloads, resumes, caches, and shows its progress in a terminal. Ours is the
choice of files (of a model its configuration, tokenizer and weights in one format, never its code),
and one line in place of whatever its client raises. HF_HOME says where everything is.
"""

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from llmft import UserError


CONFIGURATION = ("*.json", "*.txt", "*.model")
"""A model's configuration and tokenizer, and the index of weights that are in parts."""

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""Formats of weights: the first that a repository has is taken, and no other."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM)


def model(name: str, revision: str) -> Path:
    """The folder with the model's files, named by the commit; see `snapshot`."""
    for weights in WEIGHTS:  # the second call is cheap: the client keeps the list of files
        folder = snapshot("model", name, revision, [*CONFIGURATION, weights])
        if any(folder.glob(weights)):
            return folder
    raise UserError(f"model {name}: {folder} has no {' or '.join(WEIGHTS)}: use another revision")


def snapshot(kind: str, name: str, revision: str, files: Sequence[str]) -> Path:
    """The folder with a repository's files, downloaded where they are not in the cache.

    It is a "model" or "dataset", by its id on the Hub and a commit, branch or tag. `files` are
    patterns of those that are needed; a model's subfolders are left out.

    Raises:
        UserError: no network, no such repository or revision, no access, a broken transfer, a full
            disk.
    """
    if not sys.stderr.isatty():  # the client would draw a bar in a log or a chapter, too
        disable_progress_bars()
    with one_line(kind, name, revision):
        folder = huggingface_hub.snapshot_download(
            name,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(files),
            ignore_patterns=["*/*"] if kind == "model" else None,
        )
    return Path(folder)


def verify(kind: str, name: str, folder: Path) -> None:
    """Compare a snapshot's files with the Hub's checksums; remove and refuse those that differ."""
    with one_line(kind, name, folder.name):
        result = huggingface_hub.HfApi().verify_repo_checksums(
            name,
            repo_type=kind,
            revision=folder.name,
            cache_dir=folder.parents[2],  # over models--NAME/snapshots/COMMIT
        )
    for wrong in result.mismatches:
        path = folder / wrong["path"]
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    if result.mismatches:
        damaged = f"{result.mismatches[0]['path']} is damaged (wrong checksum)"
        raise UserError(f"{name}: {damaged} and was removed: run it again")


def licence(kind: str, name: str, revision: str) -> str:
    """What the repository's card says at that revision, or where to look."""
    with one_line(kind, name, revision):
        info: Any = huggingface_hub.HfApi().repo_info(name, repo_type=kind, revision=revision)
    card = info.card_data.to_dict() if info.card_data else {}
    terms = card.get("license_name") or card.get("license")
    words = ", ".join(map(str, terms)) if isinstance(terms, list) else str(terms or "")
    return words if words not in ("", "other", "unknown") else f"see {_page(kind, name)}"


@contextmanager
def one_line(kind: str, name: str, revision: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line that says what to do.

    Its warnings (retries) are kept out of a chapter's output.
    """
    log: Any = huggingface_hub.logging
    verbosity = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    except Exception as error:  # dozens of kinds, often one inside another
        label = "model" if kind == "model" else "data set"
        raise UserError(f"{label} {name}: {_why(error, kind, name, revision)}") from error
    finally:
        log.set_verbosity(verbosity)


def _why(error: BaseException, kind: str, name: str, revision: str) -> str:
    """The cause of an error and the way out, by the first sign that there is of it."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) and inner not in chain:
        chain.append(inner)
    names = {base.__name__ for link in chain for base in type(link).__mro__}
    status = next((e.response.status_code for e in chain if hasattr(e, "response")), 0)
    disk = next((e for e in chain if isinstance(e, OSError) and e.errno in _DISK), OSError())
    detail = (str(chain[-1]).strip() or type(chain[-1]).__name__).splitlines()[0][:200]
    login = "log in with `hf auth login`, or set HF_TOKEN"
    absent = "it is not whole on this machine, and"
    fetch = "run `llmft fetch` where there is a network"
    signs = [
        ("GatedRepoError" in names,
         f"it is gated: accept its terms at {_page(kind, name)}, and {login}"),
        ("RevisionNotFoundError" in names,
         f"the Hub has no revision {revision!r} of it: check the name, or leave it out"),
        ("RepositoryNotFoundError" in names,
         f"the Hub has none by this name, or it is private: check the name, or {login}"),
        ("OfflineModeIsEnabled" in names, f"{absent} HF_HUB_OFFLINE is set: {fetch}"),
        (status == 429,
         "the Hub takes no more requests for now (429): run it again in some minutes"),
        (status in (401, 403), f"the Hub refuses it ({status}): {login}"),
        (status, f"the Hub answers with an error ({status}): run it again later"),
        (disk.errno,
         f"{disk.strerror} ({disk.filename or 'while writing'}): make room, or choose another "
         "disk with `llmft fetch --to` or HF_HOME, and run it again"),
        (names & {"ConnectError", "ConnectTimeout", "ProxyError"},
         f"{absent} {constants.ENDPOINT} cannot be reached: {fetch}"),
        ("TransportError" in names or "Consistency check" in detail,
         f"the transfer broke: run it again, and it goes on with what is missing ({detail})"),
    ]  # fmt: skip
    usual = f"it cannot be downloaded: check its name, and the network ({detail})"
    return next((line for sign, line in signs if sign), usual)


def _page(kind: str, name: str) -> str:
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"


def use(home: Path) -> None:
    """Put everything into this folder from now on, and look for it there, in HF_HOME's place."""
    constants.HF_HOME, constants.HF_HUB_CACHE = str(home), str(home / "hub")


def cache() -> Path:
    """The folder of files from elsewhere: beside the Hub's, in HF_HOME."""
    return Path(constants.HF_HOME) / "llmft"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


def exports(home: Path | None) -> dict[str, str]:
    """The variables with which a later command finds what is in `home`, without the network."""
    variables = {"HF_HUB_OFFLINE": "1"}
    if home:
        variables["HF_HOME"] = str(home)
        stronger = [n for n in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if n in os.environ]
        variables |= dict.fromkeys(stronger, str(home / "hub"))
    return variables
