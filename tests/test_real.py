"""OPT's real shapes and tokenizer on real MultiNLI, where they are there; weights are random."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, OPTForCausalLM

from llmft import ROOT
from llmft.engine import models
from llmft.engine.spec import Spec
from llmft.nli import prompts, selection, tasks
from llmft.nli.tasks import Task
from llmft.study import methods

from .conftest import SHARED
from .pairs import pairs_of


@pytest.fixture(scope="module")
def mnli() -> Task:
    """A handful of real pairs, as `tasks.load` would give them."""
    sets = {
        name: pairs_of(
            pd.read_json(
                SHARED / "data" / "mnli" / f"{name}.jsonl.gz", lines=True, dtype=False, nrows=400
            ),
            name,
        )
        for name in ("train", "validation")
    }
    kept, validation = sets["train"].head(200), sets["train"].iloc[200:202]
    asked = sets["validation"].head(3)
    return Task("mnli", kept, validation, asked, asked.iloc[:0], "")


@pytest.mark.parametrize(
    ("name", "parameters"), [("opt-125m", 125_239_296), ("opt-350m", 331_196_416)]
)
def test_mnli_is_scored_by_opts_real_shape(
    name: str, parameters: int, shared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = AutoConfig.from_pretrained(shared / "opt" / name)
    with torch.device("meta"):
        assert OPTForCausalLM(config).num_parameters() == parameters
    config.num_hidden_layers = 2  # one layer is as the other
    torch.manual_seed(0)
    OPTForCausalLM(config).half().save_pretrained(tmp_path)  # published in float16, too
    AutoTokenizer.from_pretrained(shared / "opt" / "tokenizer").save_pretrained(tmp_path)

    loaded = models.load(str(tmp_path), device="cpu")
    assert loaded.parameters == OPTForCausalLM(config).num_parameters()
    assert loaded.max_positions == 2048
    assert loaded.model.dtype == torch.float32
    tokens = prompts.label_tokens(loaded.tokenizer, prompts.PATTERNS["gpt-3"])
    assert loaded.tokenizer.convert_ids_to_tokens(tokens) == ["ĠYes", "ĠNo"]

    task = request.getfixturevalue("mnli")
    spec = Spec(task="mnli", model=str(tmp_path), shots=2, pattern="gpt-3")
    shown = tasks.sample(task.train, 2, 0)
    row, said = methods.evaluate(loaded, task, spec, shown)
    assert (row["in_domain_n"], row["out_of_domain_n"]) == (3, 0)
    assert set(said["domain"]) == {"in-domain", "content-free"}

    # One of them again, read whole by the model's own forward pass.
    [ids] = prompts.encode(
        loaded.tokenizer, prompts.PATTERNS["gpt-3"], task.in_domain.head(1), shown, 2048
    )
    assert ids[0] == loaded.tokenizer.bos_token_id == 2
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids])).logits[0, -1, list(tokens)]
    own = said[["logp_entailment", "logp_not"]].iloc[0].to_numpy(dtype="float32")
    torch.testing.assert_close(torch.tensor(own), logits.log_softmax(0), atol=1e-4, rtol=0)


def test_no_sentence_of_the_real_data_is_in_a_chapter(shared: Path) -> None:
    rows = selection.load(selection.ROWS_FILE, str(shared / "data"))
    texts = {*rows["premise"], *rows["hypothesis"]}
    length = 40  # shorter ones may be anybody's
    begins = {text[:length] for text in texts if len(text) >= length}

    def quotes(text: str) -> set[str]:
        return begins & {text[at : at + length] for at in range(len(text) - length)}

    assert quotes(f"as in {next(iter(begins))} ...")
    for path in sorted(ROOT.glob("chapters/*.ipynb")):
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False)
        assert not quotes(text.replace('\\"', '"')), path.name
