"""Files of the Hugging Face Hub: downloaded once by its own client, afterwards found offline.

What is asked for is a repository, a revision and the few files that are needed of it: a model's
configuration, tokenizer and weights in one format, and never its code; a data set's tables. They
lie in the Hub's own cache, so one variable, HF_HOME, says where everything is. Whatever goes wrong
on the way is one line that says what to do.
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
from huggingface_hub import errors as hub
from tqdm import tqdm

from llmft import UserError


CONFIGURATION = ("*.json", "*.txt", "*.model")
"""A model's configuration and tokenizer; an index of its weights, too, where these are in parts."""

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""Formats of weights: the first that a repository has is taken, and no other."""


def model(
    name: str,
    revision: str,
    *,
    home: Path | None = None,
    progress: Any = None,
) -> Path:
    """The folder with the model's files, downloaded where they are not in the cache.

    Args:
        name: its id on the Hub.
        revision: a commit, branch or tag.
        home: the folder to use in HF_HOME's place.
        progress: makes the client's progress bars, as `lines` does; None shows nothing.

    Returns:
        A folder named by the commit.

    Raises:
        UserError: no network, no such model or revision, no access, a broken transfer, a full disk.
    """
    for weights in WEIGHTS:  # two cheap calls: the client keeps the list of files
        files = [*CONFIGURATION, weights]
        folder = snapshot(
            "model", name, revision, files, home=home, progress=progress, only_top=True
        )
        if any(folder.glob(weights)):
            return folder
    raise UserError(f"model {name}: {folder} has no {' or '.join(WEIGHTS)}: use another revision")


def snapshot(
    kind: str,
    name: str,
    revision: str,
    files: Sequence[str],
    *,
    home: Path | None = None,
    progress: Any = None,
    only_top: bool = False,
) -> Path:
    """The folder with a repository's `files` (patterns), downloaded where they are not there yet.

    `kind` is "model" or "dataset"; `only_top` leaves subfolders out. The other arguments, what is
    returned and raised: as for `model`.
    """
    bar: Any = progress or _silent
    with one_line(kind, name, revision), _quiet(unless=progress):
        folder = huggingface_hub.snapshot_download(
            name,
            repo_type=kind,
            revision=revision,
            cache_dir=home / "hub" if home else None,
            allow_patterns=list(files),
            ignore_patterns=["*/*"] if only_top else None,
            tqdm_class=bar,
        )
    return Path(folder)


@contextmanager
def one_line(kind: str, name: str, revision: str) -> Iterator[None]:
    """Turn what the Hub's clients raise into one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # dozens of kinds, often one inside another
        label = "model" if kind == "model" else "data set"
        raise UserError(f"{label} {name}: {_why(error, kind, name, revision)}") from error


def _why(error: BaseException, kind: str, name: str, revision: str) -> str:
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) and inner not in chain:
        chain.append(inner)
    login = "log in with `hf auth login`, or set HF_TOKEN"

    def one(kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    status = next((e.response.status_code for e in chain if isinstance(e, hub.HfHubHTTPError)), 0)
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    written = next((e for e in chain if getattr(e, "errno", None) in _DISK), None)
    if one(hub.GatedRepoError):
        return f"it is gated: accept its terms at {page(kind, name)}, and {login}"
    if one(hub.RevisionNotFoundError):
        return f"the Hub has no revision {revision!r} of it: check the name, or leave it out"
    if one(hub.RepositoryNotFoundError):
        return f"the Hub has none by this name, or it is private: check the name, or {login}"
    if one(hub.OfflineModeIsEnabled):
        return (
            "it is not whole on this machine, and HF_HUB_OFFLINE is set: run `llmft fetch` where "
            "there is a network"
        )
    if status == 429:
        return "the Hub takes no more requests for now (429): run it again in some minutes"
    if status in (401, 403):
        return f"the Hub refuses it ({status}): {login}"
    if status:
        return f"the Hub answers with an error ({status}): run it again later"
    if isinstance(written, OSError):
        return (
            f"{written.strerror} ({written.filename or 'while writing'}): make room, or choose "
            "another disk with `llmft fetch --to` or HF_HOME, and run it again"
        )
    if names & {"ConnectError", "ConnectTimeout", "ProxyError"}:
        return (
            f"it is not whole on this machine, and {constants.ENDPOINT} cannot be reached: run "
            "`llmft fetch` where there is a network"
        )
    detail = (str(chain[-1]).strip() or type(chain[-1]).__name__).splitlines()[0][:200]
    if "TransportError" in names or "Consistency check" in detail:
        return f"the transfer broke: run it again, and it goes on with what is missing ({detail})"
    return f"it cannot be downloaded: check its name, and the network ({detail})"


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM)


EVERY = 10.0
"""Seconds between two lines about a download."""


class _Stream:
    """Where tqdm would draw a bar over and over, lines on the standard error stream."""

    def write(self, text: str) -> None:
        if (line := text.strip()).startswith("Downloading"):  # and no cursor movements
            print(f"  {line}", file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def lines(*args: Any, desc: str = "", **options: Any) -> Any:
    """A progress bar as plain lines, one in `EVERY` seconds, of the bytes that come."""
    plain = {
        "disable": not desc.startswith("Downloading"),
        "file": _Stream(),
        "bar_format": "{desc}: {n_fmt}, {rate_fmt}",
        "mininterval": EVERY,
        "delay": EVERY,
        "leave": False,
    }
    return tqdm(*args, desc=desc, **(options | plain))


def _silent(*args: Any, **options: Any) -> Any:
    return tqdm(*args, **(options | {"disable": True}))


@contextmanager
def _quiet(unless: object) -> Iterator[None]:
    """Keep the client's warnings (retries) out of a chapter's output."""
    log: Any = huggingface_hub.logging
    verbosity = log.get_verbosity()
    if not unless:
        log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)


def page(kind: str, name: str) -> str:
    """Where a repository's card is."""
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"


def cache(home: Path | None = None) -> Path:
    """Where files from elsewhere are kept: beside the Hub's, below `home`, or HF_HOME."""
    return Path(home or constants.HF_HOME) / "llmft"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


def exports(home: Path | None) -> dict[str, str]:
    """The variables with which a later command finds what `home` holds, and asks no network."""
    found = {"HF_HUB_OFFLINE": "1"}
    if home:
        found["HF_HOME"] = str(home)
        stronger = [n for n in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if n in os.environ]
        found |= dict.fromkeys(stronger, str(home / "hub"))
    return found
