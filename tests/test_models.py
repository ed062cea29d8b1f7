"""A model is loaded whole or refused in one line."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from llmft import UserError
from llmft.engine import models
from llmft.engine.models import choose_device, folder_digest, identity, load, quiet, weight
from llmft.engine.scoring import score, score_plainly
from llmft.nli import prompts

from .tiny import MODELS, POSITIONS, VOCABULARY, _randomised, small_llama, small_opt


MINIMAL = prompts.PATTERNS["minimal"]


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own, to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def change_weights(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_loads_as_it_was_saved(tiny_checkpoint: Path) -> None:
    result, original = load(str(tiny_checkpoint), device="cpu"), small_opt()
    prompts = [[2, 5, 9, 30], [2, 5, 8]]
    torch.testing.assert_close(
        score(result.model, prompts, (7, 42)), score(original, prompts, (7, 42))
    )
    assert not result.model.training
    assert result.device == torch.device("cpu")
    assert result.max_positions == POSITIONS
    assert result.revision == ""
    assert result.parameters == sum(p.numel() for p in original.parameters())
    assert result.tokenizer("The doctor")["input_ids"][0] == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_the_one_asked_for(tmp_path: Path, tiny_tokenizer: Any, dtype: str) -> None:
    small_opt().to(torch.float16).save_pretrained(tmp_path)  # as the Hub's OPT checkpoints are
    tiny_tokenizer.save_pretrained(tmp_path)
    result = load(str(tmp_path), device="cpu", dtype=dtype)
    assert {p.dtype for p in result.model.parameters()} == {getattr(torch, dtype)}


def test_tied_embeddings_stay_one(tiny_checkpoint: Path) -> None:
    model = load(str(tiny_checkpoint)).model
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_untied_embeddings_stay_two(tmp_path: Path, tiny_tokenizer: Any) -> None:
    small_llama().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    result = load(str(tmp_path))
    assert isinstance(result.model, LlamaForCausalLM)
    assert not torch.equal(result.model.lm_head.weight, result.model.get_input_embeddings().weight)


EMBEDDING, HEAD = "model.decoder.embed_tokens.weight", "lm_head.weight"


def without(*names: str) -> Any:
    return lambda weights: {name: w for name, w in weights.items() if name not in names}


def body_alone(weights: Any) -> Any:
    return {n.removeprefix("model."): w for n, w in weights.items() if n != HEAD}


@pytest.mark.parametrize("shape", ["opt", "opt-post-norm"])
@pytest.mark.parametrize(
    ("published", "line"),
    [
        (lambda weights: weights, ""),
        (body_alone, ""),  # as OPT's own are
        (lambda weights: body_alone(weights) | {HEAD: weights[HEAD]}, ""),
        (without(HEAD), ""),
        (without(EMBEDDING), ""),
        # huggingface/transformers#43159: the tied weight is in neither place, and stays random
        (without(EMBEDDING, HEAD), "2 missing keys"),
        (lambda weights: weights | {HEAD: weights[HEAD] + 1}, "ties input and output embedding, "),
    ],
)
def test_a_pickle_is_whole_however_its_tied_weight_is_stored(
    tmp_path: Path, tiny_tokenizer: Any, shape: str, published: Any, line: str
) -> None:
    model = MODELS[shape]()
    model.config.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    half = {name: weight.half().clone() for name, weight in model.state_dict().items()}
    torch.save(published(half), tmp_path / "pytorch_model.bin")
    if line:
        with pytest.raises(UserError, match=line):
            load(str(tmp_path), device="cpu")
        return
    result = load(str(tmp_path), device="cpu").model
    assert result.lm_head.weight.data_ptr() == result.get_input_embeddings().weight.data_ptr()
    assert torch.equal(result.lm_head.weight, half[HEAD].float())
    assert result.dtype == torch.float32


class Executed:
    """What a pickle could do: it asks to be rebuilt by a call."""

    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_a_pickle_executes_nothing(tmp_path: Path, tiny_tokenizer: Any, capsys: Any) -> None:
    small_opt().config.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    torch.save({EMBEDDING: Executed()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="damaged"):
        load(str(tmp_path))
    assert "executed" not in capsys.readouterr().out


def test_safetensors_are_taken_where_there_are_both(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"not weights")
    assert load(str(copy)).digest == identity(str(copy))[1] == folder_digest(copy)


def small_gpt2() -> Any:
    """Learnt positions; its configuration calls them n_positions."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    ends = {"bos_token_id": 2, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape, **ends))


def small_gpt_neox() -> Any:
    """Rotary positions on a part of each head, parallel layers, an untied output embedding."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    deep = {"num_hidden_layers": 2, "num_attention_heads": 4}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, **shape, **deep))


ANY = MODELS | {"gpt2": small_gpt2, "gpt-neox": small_gpt_neox}


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("shape", sorted(ANY))
def test_any_causal_model_is_loaded_and_scored(
    tmp_path: Path, tiny_tokenizer: Any, shape: str, bos: bool
) -> None:
    """From a folder, with a tokenizer that pads nothing and may or may not begin a text."""
    original = _randomised(ANY[shape]())
    with quiet():
        original.save_pretrained(tmp_path)
    backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    if not bos:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    ends = {"eos_token": "</s>", "unk_token": "</s>"} | ({"bos_token": "</s>"} if bos else {})
    PreTrainedTokenizerFast(tokenizer_object=backend, **ends).save_pretrained(tmp_path)
    result = load(str(tmp_path), device="cpu")
    assert result.tokenizer.pad_token is None
    assert result.max_positions == (64 if shape in ("gpt2", "gpt-neox") else POSITIONS)
    queries = pd.DataFrame(
        {
            "premise": ["The doctor ran .", "The judge saw the actor ."],
            "hypothesis": "The judge ran .",
        }
    )
    texts = prompts.encode(result.tokenizer, MINIMAL, queries, None, result.max_positions)
    assert (texts[0][0] == 2) == bos
    labels = prompts.label_tokens(result.tokenizer, MINIMAL)
    plainly = score_plainly(original, texts, labels)
    torch.testing.assert_close(score(result.model, texts, labels), plainly, atol=1e-4, rtol=0)


def test_the_digest_follows_weights_configuration_and_tokenizer(copy: Path) -> None:
    digests = {load(str(copy)).digest}
    change_weights(copy, lambda w: w["model.decoder.layers.0.fc1.bias"].add_(1e-3))
    digests.add(folder_digest(copy))
    change_config(copy, dropout=0.3)
    digests.add(folder_digest(copy))
    path = copy / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    digests.add(folder_digest(copy))
    (copy / "README.md").write_text("not part of the model")
    digests.add(folder_digest(copy))
    assert len(digests) == 4
    assert all(len(digest) == 16 for digest in digests)


def lose_a_weight(folder: Path) -> None:
    change_weights(folder, lambda w: w.pop("model.decoder.layers.1.fc1.weight"))


def lose_the_embedding(folder: Path) -> None:
    change_weights(folder, lambda w: w.pop("model.decoder.embed_tokens.weight"))


def add_a_weight(folder: Path) -> None:
    change_weights(folder, lambda w: w.update({"model.decoder.layers.7.fc1.bias": torch.ones(3)}))


def reshape_a_weight(folder: Path) -> None:
    change_weights(folder, lambda w: w.update({"model.decoder.layers.0.fc1.bias": torch.ones(3)}))


def cut_the_weights_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lose_a_weight, r"1 missing keys \(model.decoder.layers.1.fc1.weight"),
        (lose_the_embedding, "missing keys"),
        (add_a_weight, r"1 unexpected keys \(model.decoder.layers.7.fc1.bias"),
        (reshape_a_weight, "damaged"),
        (cut_the_weights_short, "damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "missing files or damaged"),
        (lambda f: (f / "config.json").unlink(), "missing files or damaged"),
        (lambda f: (f / "config.json").write_text("{"), "missing files or damaged"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "missing files or damaged"),
        (lambda f: change_config(f, model_type="gpt-17"), "missing files or damaged"),
        (lambda f: change_config(f, vocab_size=100), "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(copy: Path, damage: Any, line: str, capfd: Any) -> None:
    damage(copy)
    with pytest.raises(UserError, match=line) as error:
        load(str(copy))
    assert "\n" not in str(error.value)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_a_token_that_the_embedding_lacks_is_refused_when_it_occurs(copy: Path) -> None:
    """As Gemma 3's image token, which is in its tokenizer and in no text (F8)."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(copy)
    names = [f"<image{i}>" for i in range(VOCABULARY)]
    tokenizer.add_tokens(names)
    tokenizer.save_pretrained(copy)
    result = load(str(copy), device="cpu")
    assert len(result.tokenizer) > VOCABULARY
    texts = prompts.token_ids(result.tokenizer, ["The doctor ran ."])
    assert score(result.model, texts, (7, 42)).isfinite().all()
    with pytest.raises(UserError, match="its tokenizer is another model's, or tokens were added"):
        score(result.model, prompts.token_ids(result.tokenizer, [f"The {names[-1]} ran"]), (7, 42))


@pytest.mark.parametrize("keep", [[], ["tokenizer_config.json"]])
def test_a_folder_without_a_tokenizer_is_one_line(copy: Path, keep: list[str]) -> None:
    for path in copy.glob("*token*"):
        if path.name not in keep:
            path.unlink()
    with pytest.raises(UserError, match=r"no tokenizer files|missing files or damaged") as error:
        load(str(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["_attn_implementation", "attn_implementation"])
def test_attention_is_chosen_here(copy: Path, name: str) -> None:
    """Not by a file, which might name code on the Hub (F24)."""
    change_config(copy, **{name: "nobody/own-kernel"})
    assert load(str(copy), device="cpu").model.config._attn_implementation == "sdpa"


# --- what a model is, without loading it -------------------------------------------------------


def test_a_model_of_the_hub_is_its_commit(copy: Path, monkeypatch: Any) -> None:
    """A branch is asked for once; a commit not at all, and its files need not be here."""
    requests, folder = [], copy.rename(copy.with_name("1" * 40))

    def model(name: str, revision: str) -> Path:
        requests.append(revision)
        return folder

    monkeypatch.setattr("llmft.nli.hub.model", model)
    models._download.cache_clear()
    try:
        commit = "2" * 40
        assert identity("someone/model", commit) == (commit, commit)
        revision_of_book = models.REVISIONS["facebook/opt-125m"]
        assert identity("facebook/opt-125m") == (revision_of_book, revision_of_book)
        assert requests == []
        for _ in range(2):
            assert identity("someone/model") == ("main", "1" * 40)
        result = load("someone/model", device="cpu")
        assert (result.revision, result.digest) == ("main", "1" * 40)
        assert weight("someone/model") == (folder / "model.safetensors").stat().st_size
        assert requests == ["main"]
    finally:
        models._download.cache_clear()


def test_a_model_weighs_what_its_files_do(copy: Path, adapter: Path) -> None:
    bytes_ = (copy / "model.safetensors").stat().st_size
    assert weight(str(copy)) == weight(str(adapter)) == bytes_
    assert bytes_ == pytest.approx(4 * load(str(copy), device="cpu").parameters, rel=0.1)


# --- adapters ----------------------------------------------------------------------------------


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """LoRA on the tiny checkpoint, whose weights are not zero."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False
    )
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(small_opt(), config)
        model.peft_config["default"].base_model_name_or_path = str(tiny_checkpoint)
        model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change_adapter(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_is_loaded_whole(adapter: Path, tiny_checkpoint: Path) -> None:
    plain, result = load(str(tiny_checkpoint), device="cpu"), load(str(adapter), device="cpu")
    texts = [[2, 5, 9, 30], [2, 5, 8]]
    message = score(result.model, texts, (7, 42))
    assert (message - score(plain.model, texts, (7, 42))).abs().max() > 1e-3
    torch.testing.assert_close(message, score_plainly(result.model, texts, (7, 42)))
    assert identity(str(adapter)) == (result.revision, result.digest)
    assert identity(str(tiny_checkpoint)) == (plain.revision, plain.digest)
    assert result.digest not in (plain.digest, folder_digest(adapter))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base_model_name_or_path": None}, "names no model that it stands on"),
        ({"base_model_name_or_path": ""}, "names no model that it stands on"),
        ({"base_model_name_or_path": "no/such/base"}, "stands on another: unknown model 'no/such"),
        ({"task_type": "SEQ_CLS"}, "an adapter for SEQ_CLS, and llmft needs one for CAUSAL_LM"),
    ],
)
def test_a_wrong_adapter_is_one_line(adapter: Path, changes: dict[str, Any], line: str) -> None:
    change_adapter(adapter, **changes)
    for look in (load, identity):
        with pytest.raises(UserError, match=line) as error:
            look(str(adapter))
        assert "\n" not in str(error.value)


def test_an_adapter_stands_on_no_adapter(adapter: Path, tmp_path: Path) -> None:
    """Neither on itself nor on another, nor two on each other."""
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    change_adapter(other, base_model_name_or_path=str(adapter))
    for look in (load, identity, weight):
        with pytest.raises(UserError, match=r"other: what it stands on, .*adapter, is an adapter"):
            look(str(other))
    change_adapter(adapter, base_model_name_or_path=str(adapter))
    for look in (load, identity, weight):
        with pytest.raises(UserError, match="is an adapter, too: name a whole model"):
            look(str(adapter))


def test_an_adapters_weights_must_all_find_their_place(adapter: Path) -> None:
    """A classifier's head, and a correction of a layer that the model does not have (F9)."""
    path = adapter / "adapter_model.safetensors"
    for name in ("base_model.model.score.weight", "base_model.model.h.9.q_proj.lora_A.weight"):
        weights = load_file(path)
        save_file(weights | {name: torch.ones(2, 32)}, path, metadata={"format": "pt"})
        with pytest.raises(UserError, match=rf"1 of the adapter's weights .*{name}"):
            load(str(adapter))
        save_file(weights, path, metadata={"format": "pt"})


def test_an_adapter_of_a_larger_vocabulary_names_both_sizes(adapter: Path) -> None:
    path, name = adapter / "adapter_model.safetensors", "base_model.model.lm_head.weight"
    weights = load_file(path) | {name: torch.ones(VOCABULARY + 7, 32)}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"{VOCABULARY + 7}, 32.*{VOCABULARY}, 32") as error:
        load(str(adapter))
    assert "\n" not in str(error.value)


def test_remote_code_is_refused(copy: Path) -> None:
    (copy / "own.py").write_text("raise SystemExit('executed')")
    change_config(
        copy,
        model_type="own",
        auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    )
    with pytest.raises(UserError, match="damaged"):
        load(str(copy))


@pytest.mark.parametrize("name", ["no/such/folder/here", "", "a b", "../nowhere"])
def test_an_unknown_model_is_one_line(name: str) -> None:
    for look in (load, identity, weight):
        with pytest.raises(
            UserError,
            match=r"unknown model .*: use pocket, .*, a folder, a GGUF file, or a Hugging",
        ):
            look(name)


def test_a_hub_model_without_a_network_is_one_line(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="where there is a network") as error:
        load("facebook/no-such-opt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8': use one of float32, bfloat16, float16"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"device": "meta"}, "no device 'meta'"),
    ],
)
def test_bad_options(tiny_checkpoint: Path, options: dict[str, str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        load(str(tiny_checkpoint), **options)


def test_auto_is_the_best_device_there(monkeypatch: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_the_pocket_checkpoint() -> None:
    result = load("pocket", device="cpu")
    assert 1e6 <= result.parameters <= 5e6
    assert result.max_positions >= 512
    assert result.name == "pocket"
    assert len(result.digest) == 16
