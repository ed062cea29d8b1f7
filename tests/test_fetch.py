"""Models and data come from the Hub whole, once, and are found again without a network.

The real clients talk to `hub.py` on the loopback device; its repositories have the structure of the
published ones (float16 pickles or safetensors, GLUE's tables), and HANS's file lies elsewhere.
"""

import gzip
import hashlib
import io
import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub.utils.tqdm import enable_progress_bars

from llmft import ROOT, UserError, params
from llmft.engine import models
from llmft.nli import hub, selection, sources
from llmft.study import fetch

from .hub import Hub, Repository, serve
from .pairs import chooser
from .tiny import small_opt


PRE_NORM, POST_NORM = "facebook/opt-125m", "facebook/opt-350m"
GLUE = "datasets/nyu-mll/glue"

CARD = {"license": "other", "license_name": "opt-175b-license"}


def tokenizer_files(tokenizer: Any, folder: Path) -> dict[str, bytes]:
    """As OPT's repositories have them: vocabulary and merges, and no tokenizer.json."""
    tokenizer.backend_tokenizer.model.save(str(folder))
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    about = special | {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}
    return {
        "vocab.json": (folder / "vocab.json").read_bytes(),
        "merges.txt": (folder / "merges.txt").read_bytes(),
        "special_tokens_map.json": json.dumps(special).encode(),
        "tokenizer_config.json": json.dumps(about).encode(),
    }


def pickled(model: Any) -> bytes:
    """Weights as OPT's were published: float16, of the body alone, the output embedding tied."""
    weights = {
        name.removeprefix("model."): weight.to(torch.float16).clone()
        for name, weight in model.state_dict().items()
        if name != "lm_head.weight"
    }
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def mnli(rows: int, first: str) -> bytes:
    """GLUE's columns and types; a hypothesis "n/a" is text."""
    number = range(rows)
    frame = pd.DataFrame(
        {
            "premise": [f"{first} {i}" for i in number],
            "hypothesis": ["n/a" if i == 2 else f"a hypothesis {i}" for i in number],
            "label": np.array([i % 3 for i in number], dtype="int64"),
            "idx": np.array(number, dtype="int32"),
        }
    )
    return parquet(frame)


def hans_rows(rows: int) -> pd.DataFrame:
    """HANS as its authors publish it."""
    number = range(rows)
    columns: dict[str, Any] = {
        "gold_label": [("non-entailment", "entailment")[i % 2] for i in number],
        "sentence1_binary_parse": "( ( The doctor ) ( ran . ) )",
        "sentence2_binary_parse": "( ( The judge ) ( ran . ) )",
        "sentence1_parse": "(ROOT (S (NP The doctor) (VP ran) (. .)))",
        "sentence2_parse": "(ROOT (S (NP The judge) (VP ran) (. .)))",
        "sentence1": [f"The doctor {i} ran ." for i in number],
        "sentence2": [f'The "judge" {i} ran .' for i in number],
        "pairID": [f"ex{i}" for i in number],
        "heuristic": [("lexical_overlap", "constituent")[i % 4 // 2] for i in number],
        "subcase": [f"subcase{i % 4}" for i in number],
        "template": "temp1",
    }
    return pd.DataFrame(columns)


def official(frame: pd.DataFrame) -> bytes:
    rows = [list(frame.columns), *frame.to_numpy().tolist()]
    return "".join("\t".join(row) + "\n" for row in rows).encode()


HANS = hans_rows(24)
HANS_FILE = official(HANS)
HANS_PATH = "hans/heuristics_evaluation_set.txt"
HANS_SHA256 = hashlib.sha256(HANS_FILE).hexdigest()

GLUE_PARTS = {"train": "train", "matched": "validation_matched"}

GLUE_CARD = """---
configs:
- config_name: mnli
  data_files:
  - split: train
    path: mnli/train-*
  - split: validation_matched
    path: mnli/validation_matched-*
---
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: Any, tiny_tokenizer: Any) -> Iterator[Hub]:
    """The hub, with the two models and GLUE, and HANS on a site beside it."""
    folder = tmp_path_factory.mktemp("repositories")
    files = tokenizer_files(tiny_tokenizer, folder)
    pre = small_opt()
    post = small_opt(do_layer_norm_before=False, word_embed_proj_dim=16)
    with models.quiet():
        post.save_pretrained(folder / "post")
    config = json.loads(pre.config.to_json_string(use_diff=False)) | {"torch_dtype": "float16"}
    glue = {
        f"mnli/{part}-00000-of-00001.parquet": mnli(30, part)
        for part in ("train", "validation_matched", "validation_mismatched", "test_matched")
    }
    repositories = {
        f"models/{PRE_NORM}": Repository(
            models.REVISIONS[PRE_NORM],
            files
            | {
                "config.json": json.dumps(config).encode(),
                "pytorch_model.bin": pickled(pre),
                "flax_model.msgpack": b"another format",
                "README.md": b"# OPT",
            },
            card=CARD,
        ),
        f"models/{POST_NORM}": Repository(
            models.REVISIONS[POST_NORM],
            files
            | {
                name: (folder / "post" / name).read_bytes()
                for name in ("config.json", "model.safetensors")
            }
            | {"pytorch_model.bin": pickled(post), "onnx/config.json": b"{}"},
            card=CARD,
        ),
        "models/facebook/locked": Repository("1" * 40, {"config.json": b"{}"}, gated=True),
        "models/facebook/empty": Repository("2" * 40, {"config.json": b"{}", "tf_model.h5": b"x"}),
        GLUE: Repository(sources.GLUE[1], glue | {"README.md": GLUE_CARD.encode()}),
    }
    with serve(repositories, {HANS_PATH: HANS_FILE}) as result:
        yield result


@pytest.fixture
def server(running: Hub, monkeypatch: Any, tmp_path: Path) -> Hub:
    """The hub, with this process's clients turned to it and to an empty cache."""
    running.log.clear()
    running.faults.clear()
    running.wrong.clear()
    for name, value in {
        "ENDPOINT": running.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": running.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
        "HF_HUB_OFFLINE": False,
        "DOWNLOAD_CHUNK_SIZE": 4096,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("time.sleep", lambda _: None)  # the clients wait before they try again
    monkeypatch.setattr(sources, "HANS_URL", f"{running.url}/{HANS_PATH}")
    monkeypatch.setattr(sources, "HANS_SHA256", HANS_SHA256)
    return running


def studies(*names: str, **changes: str) -> list[params.Study]:
    """A study a model, on the pocket world's pairs if nothing else is said."""
    usual = params.study("pocket")
    return [usual.model_copy(update={"model": name, **changes}) for name in names]


def use(home: Path, monkeypatch: Any) -> None:
    """An empty cache until the test is over."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "")
    hub.use(home)


def fetched(*names: str, task: str = "pocket") -> list[fetch.Fetched]:
    return list(fetch.fetch(studies(*names, task=task)))


COMMAND = """
import sys
from huggingface_hub import constants
from llmft import cli
from llmft.nli import sources
constants.DOWNLOAD_CHUNK_SIZE = 4096  # so that a small file comes in many pieces, too
sources.HANS_URL, sources.HANS_SHA256 = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
cli.main()
"""

OFFLINE = """
import json, sys
from llmft.engine import models, scoring
from llmft.nli import prompts, sources, tasks
sources.HANS_SHA256 = sys.argv[1]
task = tasks.load("mnli-hans")
found = {"sizes": [len(f) for f in (task.train, task.validation, task.in_domain)]}
found["hans"] = task.out_of_domain.to_dict("list")
for name in sys.argv[2:]:
    model = models.load(name, device="cpu")
    texts = prompts.encode(
        model.tokenizer, prompts.PATTERNS["gpt-3"], task.in_domain, None, model.max_positions
    )
    fast = scoring.score(model.model, texts, (7, 42))
    plain = scoring.score_plainly(model.model, texts, (7, 42))
    weight = model.model.model.decoder.layers[0].fc1.weight
    found[name] = {
        "digest": model.digest, "gap": float((fast - plain).abs().max()),
        "dtype": str(weight.dtype), "sum": float(weight.double().sum()),
        "first": texts[0][0],
    }
print(json.dumps(found))
"""


def python(code: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the clients read their variables once, when they are imported."""
    environment = {
        n: v
        for n, v in os.environ.items()
        if not n.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))
    }
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment | {"NO_PROXY": "127.0.0.1,localhost"} | variables,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_fetched_through_the_hub_and_used_without_it(running: Hub, tmp_path: Path) -> None:
    """End to end, by the command, with the Hub's clients as they come: faults, then no network."""
    running.log.clear()
    running.faults["merges.txt"] = ["429"]
    running.faults["pytorch_model.bin"] = ["break"]
    own = tmp_path / "pocket-model.yaml"
    own.write_text("task: mnli-hans\n")
    names = ("opt-125m", "opt-350m", str(own))
    words = ("fetch", *names, "--to", str(tmp_path / "to go"))
    online = {"HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "home")}
    process = python(COMMAND, f"{running.url}/{HANS_PATH}", HANS_SHA256, *words, **online)
    assert process.returncode == 0, process.stderr
    assert shlex.split(process.stdout) == [
        "export",
        "HF_HUB_OFFLINE=1",
        f"HF_HOME={tmp_path / 'to go'}",
    ]
    for message in (
        f"{PRE_NORM} {models.REVISIONS[PRE_NORM][:16]}: 0.1 MB, licence opt-175b-license",
        "30 training and 30 matched pairs",
        "licence MIT",
        f"licence see {running.url}/datasets/nyu-mll/glue",
        "24 pairs",
        "model pocket: on this machine already",
    ):
        assert message in process.stderr
    # Half of it came, and the other half, from where it broke; nothing that is not needed came.
    whole, rest = running.transfers("pytorch_model.bin")
    assert whole == (200, "")
    assert rest[0] == 206
    assert int(rest[1].removeprefix("bytes=").rstrip("-")) >= 4096
    for needless in (
        "msgpack",
        "mismatched-00000-of-00001.parquet",
        "README.md",
        "onnx/config.json",
    ):
        assert not running.transfers(needless)
    assert len(running.transfers("model.safetensors")) == 1
    assert not list((tmp_path / "home").rglob("*.safetensors"))

    variables = dict(pair.split("=", 1) for pair in shlex.split(process.stdout)[1:])
    requests = len(running.log)
    dead = {"HF_ENDPOINT": running.url} | variables
    offline_process = python(OFFLINE, HANS_SHA256, PRE_NORM, POST_NORM, **dead)
    assert offline_process.returncode == 0, offline_process.stderr
    assert len(running.log) == requests
    result = json.loads(offline_process.stdout)
    assert result["sizes"] == [18, 2, 20]
    assert result["hans"]["id"] == [f"hans-ex{i}" for i in range(24)]
    for name, model in (
        (PRE_NORM, small_opt().half()),
        (POST_NORM, small_opt(do_layer_norm_before=False, word_embed_proj_dim=16)),
    ):
        weight = model.model.decoder.layers[0].fc1.weight
        assert result[name]["sum"] == pytest.approx(weight.double().sum().item(), abs=1e-9)
        assert result[name]["dtype"] == "torch.float32"
        assert result[name]["digest"] == models.REVISIONS[name]
        assert result[name]["gap"] < 1e-4
        assert result[name]["first"] == 2


def test_the_data_sets_library_reads_the_same_rows(server: Hub, tmp_path: Path) -> None:
    """`datasets` agrees about GLUE's tables, which llmft reads without it."""
    code = (
        "import sys, datasets; datasets.disable_progress_bars();"
        f"glue = datasets.load_dataset({sources.GLUE[0]!r}, 'mnli', revision={sources.GLUE[1]!r});"
        "[glue[part].to_parquet(f'{sys.argv[1]}/{part}.parquet') for part in glue]"
    )
    process = python(code, str(tmp_path), HF_ENDPOINT=server.url, HF_HOME=str(tmp_path / "other"))
    assert process.returncode == 0, process.stderr
    for part, ours in sources.glue().items():
        theirs = pd.read_parquet(tmp_path / f"{GLUE_PARTS[part]}.parquet")
        pd.testing.assert_frame_equal(ours.infer_objects(), theirs[[*ours]], check_dtype=False)
        assert "n/a" in set(ours.hypothesis)


def test_rows_are_the_same_from_the_hub_and_from_a_folder(
    server: Hub, tmp_path: Path, monkeypatch: Any
) -> None:
    sizes = {"train": (8,), "validation": (4,), "in-domain": (4, 8), "out-of-domain": (8, 16)}
    words = ["entailment", "neutral", "contradiction"]
    for name, part in (("train", "train"), ("validation", "validation_matched")):
        table = pd.read_parquet(io.BytesIO(mnli(30, part))).drop(columns="idx")
        table["label"] = table["label"].map(words.__getitem__)
        table["premise"] = "  " + table["premise"].str.replace(" ", "  ")
        (tmp_path / "mnli").mkdir(exist_ok=True)
        table.to_csv(tmp_path / "mnli" / f"{name}.csv", index=False)
    (tmp_path / "hans").mkdir()
    archive = tmp_path / "hans" / "heuristics_evaluation_set.txt.gz"
    archive.write_bytes(gzip.compress(HANS_FILE))
    rows = tmp_path / "rows.csv"
    chooser().choose(selection.pools_of(str(tmp_path)), 0, sizes).to_csv(rows, index=False)
    monkeypatch.setattr(selection, "ROWS_FILE", rows)

    use(tmp_path / "here", monkeypatch)
    here = selection.load(rows, str(tmp_path))
    assert not server.log
    own = studies("pocket", task="mnli-hans", rows=str(rows))
    [about] = fetch.fetch(own, str(tmp_path))
    assert about.about == "8 train, 4 validation, 8 in-domain, 16 out-of-domain"
    use(tmp_path / "there", monkeypatch)
    there = selection.load(rows)
    assert server.transfers("train-00000-of-00001.parquet")
    pd.testing.assert_frame_equal(here, there)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_download_is_drawn_on_a_terminal_and_nowhere_else(
    server: Hub, tmp_path: Path, monkeypatch: Any
) -> None:
    enable_progress_bars()
    for stream, has_bar in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        use(tmp_path / str(has_bar), monkeypatch)
        fetched(POST_NORM)
        assert ("Downloading bytes" in stream.getvalue()) is has_bar
        assert ("\r" in stream.getvalue()) is has_bar


def test_an_interrupted_fetch_goes_on_with_what_is_missing(server: Hub) -> None:
    server.faults["pytorch_model.bin"] = ["break"] * 20
    with pytest.raises(
        UserError, match=r"model facebook/opt-125m: the transfer broke: run it again"
    ):
        fetched(PRE_NORM)
    server.faults.clear()
    server.log.clear()
    [model] = fetched(PRE_NORM)
    assert model.revision == models.REVISIONS[PRE_NORM]
    assert len(server.transfers("pytorch_model.bin")) == 1
    assert not server.transfers("vocab.json")  # which was there
    server.log.clear()
    assert fetched(PRE_NORM) == [model]
    assert not any(method == "GET" and "/api/" not in path for method, path, _, _ in server.log)


def test_a_file_that_is_not_what_the_hub_lists_is_refused(server: Hub) -> None:
    server.wrong.add("model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors is damaged \(wrong checksum\)"):
        fetched(POST_NORM)
    server.wrong.clear()
    assert len(fetched(POST_NORM)) == 1  # it was removed, and comes again


def test_a_full_disk_is_one_line(server: Hub) -> None:
    """RLIMIT_FSIZE stands in for the disk: the kernel refuses the write in the same way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(UserError, match=r"File too large .*: make room, or choose") as error:
            fetched(POST_NORM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)


def test_hans_of_another_content_is_refused(server: Hub, monkeypatch: Any) -> None:
    monkeypatch.setitem(server.elsewhere, HANS_PATH, HANS_FILE.replace(b"ran", b"run"))
    with pytest.raises(UserError, match=r"not the pinned file \(wrong SHA-256\)"):
        sources.hans_file()
    assert not list(hub.cache().glob("*"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("facebook/no-such", "the Hub has none by this name, or it is private: check the name, or"),
        ("facebook/locked", r"it is gated: accept its terms at http.*/facebook/locked, and log in"),
        ("facebook/empty", r"has no model\*.safetensors or pytorch_model\*.bin"),
        ("a--b/..c", "cannot be downloaded: check its name"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line(server: Hub, name: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        fetched(name)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"model {name}: ")


def test_other_failures_are_one_line(server: Hub, monkeypatch: Any, capfd: Any) -> None:
    def check(line: str, revision: str = "") -> None:
        with pytest.raises(UserError, match=line) as error:
            models.load(PRE_NORM, revision=revision)
        assert "\n" not in str(error.value)

    check("the Hub has no revision 'v2' of it", "v2")
    server.faults["config.json"] = ["429"] * 20
    check(r"the Hub takes no more requests for now \(429\): run it again in some minutes")
    server.faults["config.json"] = ["503"] * 20
    check(r"the Hub answers with an error \(503\): run it again later")
    server.faults["config.json"] = ["401"]
    check(r"the Hub refuses it \(401\): log in with")
    server.faults.clear()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    check(r"http://127.0.0.1:9 cannot be reached: run `llmft fetch` where there is a network")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check("HF_HUB_OFFLINE is set: run `llmft fetch` where there is a network")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        sources.hans_file()
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, which forbids the network"):
        fetched(PRE_NORM)
    out, err = capfd.readouterr()
    assert out + err == ""  # a chapter's output stays clean
