"""The pocket world: its labels are true, its out-of-domain set has no cue, its text does not leak.

Sentences are read back here by a parser that shares no code with the grammar, so that a label is
checked against what its text says, not against what the generator believed.
"""

import json
import re
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

from llmft import ROOT
from llmft.nli import cues, tasks
from llmft.pocket import crossed, data, grammar, pretrain, text


POCKET = ROOT / "data" / "pocket"
Fact = tuple[str, str, str, bool]
"""Subject, verb, object or "", and whether it is said to have happened."""


def meaning(sentence: str) -> set[Fact]:
    """What a sentence says, read off its words by its own few rules."""
    words = sentence.rstrip(".").lower()
    words = re.sub(rf"\b({'|'.join(grammar.ADJECTIVES)}) ", "", words)
    words = re.sub(rf" ({'|'.join(grammar.PREPOSITIONS)}) the \w+", "", words)
    facts: set[Fact] = set()
    if inner := re.search(r"the (\w+) who (\w+) the (\w+)", words):
        facts.add((inner[1], inner[2], inner[3], True))
        words = words.replace(inner[0], f"the {inner[1]}")
    happened = " never " not in words
    words = words.replace(" never", "")
    if passive := re.fullmatch(r"the (\w+) was (\w+) by the (\w+)(?: and the (\w+))?", words):
        done_to, verb, *doers = passive.groups()
        return facts | {(by, verb, done_to, happened) for by in doers if by}
    plain = re.fullmatch(
        r"the (\w+)(?: and the (\w+))? (\w+)(?: the (\w+)(?: and the (\w+))?)?", words
    )
    assert plain, f"cannot read {sentence!r}"
    first, second, verb, *objects = plain.groups()
    done_to = [o for o in objects if o] or [""]
    return facts | {(s, verb, o, happened) for s in (first, second) if s for o in done_to}


@pytest.fixture(scope="module")
def task() -> tasks.Task:
    return tasks.load("pocket")


PAIRS = 10_000
"""Of the text's 100,000: the first ones, made in the same way."""


@pytest.fixture(scope="module")
def pool() -> text.Pool:
    return text.pool(0, PAIRS, data.reported_premises(POCKET))


def said(ids: list[int]) -> str:
    words = [text.VOCABULARY[i] for i in ids]
    return " ".join(words[:-1]) + words[-1]


def test_every_label_is_what_the_sentences_say(task: tasks.Task) -> None:
    for frame in (task.train, task.validation, task.in_domain, task.out_of_domain):
        for pair in frame.itertuples():
            entailed = meaning(pair.hypothesis) <= meaning(pair.premise)
            assert entailed == (pair.label == 0), f"{pair.premise} / {pair.hypothesis}"


def test_seed_makes_the_committed_data_sets_again(tmp_path: Path) -> None:
    data.write(tmp_path)
    for name in ("train.csv", "validation.csv", "test.csv", "hans.tsv"):
        assert (tmp_path / name).read_bytes() == (POCKET / name).read_bytes(), name


def test_in_domain_cues_go_with_the_label_but_not_always(task: tasks.Task) -> None:
    for frame in (task.train, task.in_domain):
        found = cues.accuracies(frame, grammar.PEOPLE)
        assert 0.75 < found["negation"] < 0.95
        assert 0.75 < found["overlap"] < 0.95
        assert 0.49 < frame["label"].mean() < 0.51


def test_out_of_domain_no_single_cue_beats_55_percent(task: tasks.Task) -> None:
    found = cues.accuracies(task.out_of_domain, grammar.PEOPLE)
    assert len(found) == 12
    assert found.max() <= 0.55, found
    assert cues.table(task.out_of_domain)["overlap"].all()
    assert not cues.table(task.out_of_domain)["negation"].any()


def test_out_of_domain_has_hans_columns_and_equal_subcases(task: tasks.Task) -> None:
    frame = pd.read_csv(POCKET / "hans.tsv", sep="\t")
    assert {"gold_label", "sentence1", "sentence2", "pairID", "heuristic", "subcase"} <= set(frame)
    sizes = task.out_of_domain.groupby("subcase").agg(n=("id", "size"), label=("label", "mean"))
    assert len(sizes) == 10
    assert set(sizes["n"]) == {data.PER_SUBCASE}
    assert all(label == name.startswith("ln_") for name, label in sizes["label"].items())


def test_no_two_sets_share_a_premise(task: tasks.Task) -> None:
    sets = [set(f["premise"]) for f in (task.train, task.validation, task.in_domain)]
    sets.append(set(task.out_of_domain["premise"]))
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_no_reported_premise_is_in_the_pretraining_text(pool: text.Pool, task: tasks.Task) -> None:
    reported = {*task.validation["premise"], *task.in_domain["premise"]}
    reported |= set(task.out_of_domain["premise"])
    assert len(pool["pair"].ids) == PAIRS < pretrain.POOL
    assert not reported & {said(ids) for (ids,) in pool["sentence"].ids}
    careless = text.pool(0, PAIRS, set())
    assert len(reported & {said(ids) for (ids,) in careless["sentence"].ids}) > 100


def test_no_rule_of_the_text_asks_the_nli_question(pool: text.Pool) -> None:
    """A rule gets no meaning; none agrees with entailment on nine pairs in ten, either way up."""
    few = list(range(0, len(pool["pair"].ids), 25))
    pairs = [tuple(said(ids) for ids in pool["pair"].ids[i]) for i in few]
    truth = np.array([meaning(h) <= meaning(p) for p, h in pairs])
    for name, column in zip(pool["pair"].names, pool["pair"].features[few].T, strict=True):
        agrees = (column[truth].mean() + (~column[~truth]).mean()) / 2
        assert 0.1 < agrees < 0.9, name
    assert not {"entailed", "entailment", "follows"} & set(text.VOCABULARY)


def test_documents_hold_what_their_rule_says(pool: text.Pool) -> None:
    """In-context labels follow one rule in each document, up to naming and the noise drawn."""
    mix = text.Mix(plain=0, quiz=0, noise=(0.0,), hinted=0.0, minimal=1.0, rules=("passive",))
    ids, kinds, rules = next(text.batches(pool, mix, documents=20, length=200, seed=3))
    assert rules == ["passive"] * 20
    for document, kind in zip(ids, kinds, strict=True):
        means: dict[bool, set[int]] = {True: set(), False: set()}
        start = 1
        for end in np.flatnonzero(kind == text.LABEL):
            first = text.VOCABULARY.index(".")
            premise = document[start:end][: list(document[start:end]).index(first)]
            means[text.ID["was"] in premise].add(int(document[end]))
            start = end + 2
        assert len(means[True]) <= 1
        assert len(means[False]) <= 1
        assert not means[True] & means[False]


def test_the_checkpoint_is_small_and_reads_all_of_the_data(task: tasks.Task) -> None:
    record = json.loads((POCKET / "training.json").read_text())
    assert 1e6 <= record["parameters"] <= 5e6
    files = list((POCKET / "model").iterdir())
    assert sum(f.stat().st_size for f in files) <= 15e6
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "model")
    sentences = [*task.train["premise"], *task.in_domain["hypothesis"]]
    sentences += [*task.out_of_domain["premise"], *task.out_of_domain["hypothesis"]]
    for ids in tokenizer(sentences)["input_ids"]:
        assert ids[0] == 2
        assert tokenizer.unk_token_id not in ids
    assert tokenizer("A. B")["input_ids"] == text.tokenizer()("A. B")["input_ids"]


@pytest.fixture
def tiny() -> OPTForCausalLM:
    return pretrain.initial(0, layers=2, hidden=16, heads=2).eval()


def test_growing_keeps_the_function_and_doubles_the_width(tiny: OPTForCausalLM) -> None:
    wide = pretrain.grow(tiny, 0).eval()
    assert wide.config.hidden_size == 2 * tiny.config.hidden_size
    ids = torch.randint(4, len(text.VOCABULARY), (3, 20))
    with torch.no_grad():
        assert torch.allclose(tiny(ids).logits, wide(ids).logits, atol=1e-4)
        copies = wide.model.decoder.layers[0].fc1.weight.chunk(2, dim=1)
    assert not torch.allclose(copies[0], copies[1])  # so that training can tell them apart


def test_loss_is_the_weighted_sum_of_means_over_kinds(tiny: OPTForCausalLM) -> None:
    ids = torch.randint(4, 40, (2, 6))
    kinds = torch.tensor([[0, 0, 1, 2, 0, 2], [0, 1, 0, 0, 2, 0]])
    loss, nll, right = pretrain.losses(tiny, ids, kinds, torch.zeros(2, dtype=torch.long))
    logp = tiny(ids).logits.log_softmax(-1)
    by_hand = -logp[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    assert torch.allclose(nll, by_hand, atol=1e-5)
    want = sum(w * by_hand[kinds[:, 1:] == k].mean() for k, w in pretrain.WEIGHTS.items())
    assert torch.allclose(loss, torch.as_tensor(want), atol=1e-5)
    assert right.shape == (2, 5)


def test_pretraining_writes_a_checkpoint_its_curve_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "POOL", 200)
    mix = text.Mix(units=(0.2, 0.2, 0.2, 0.2, 0.2))
    first = pretrain.Phase("first", 2, mix, documents=2, length=32)
    second = pretrain.Phase("second", 2, mix, documents=2, length=32, grown=True, decay=1.0)
    for file in ("train.csv", "validation.csv", "test.csv", "hans.tsv"):
        shutil.copy(POCKET / file, tmp_path)
    pretrain.pretrain(tmp_path, phases=(first, second))
    log = pd.read_csv(tmp_path / "training.csv")
    assert list(log["phase"]) == ["first", "second"]
    assert list(log["tokens"]) == [2 * 2 * 32, 2 * 2 * 2 * 32]
    assert log["nli_8"].notna().all()
    assert json.loads((tmp_path / "training.json").read_text())["tokens"] == 2 * 2 * 2 * 32
    config = OPTConfig.from_pretrained(tmp_path / "model")
    assert (config.hidden_size, config.dropout) == (128, 0.1)


@pytest.fixture(scope="module")
def rules() -> tasks.Task:
    return tasks.load("pocket-rules")


def test_in_the_task_on_rules_labels_are_true_and_cross_with_negation(rules: tasks.Task) -> None:
    for frame in rules.sets.values():
        found = zip(frame["premise"], frame["hypothesis"], strict=True)
        assert [0 if meaning(h) <= meaning(p) else 1 for p, h in found] == frame["label"].tolist()
    for frame in (rules.train, rules.validation, rules.in_domain):
        negated = [frame[side].str.contains(" never ") for side in ("premise", "hypothesis")]
        assert not (negated[0] & ~negated[1]).any()
        counts = pd.crosstab(frame["label"], negated[1])
        assert (counts == len(frame) // 4).to_numpy().all()


def test_pairs_without_a_cue_have_none_and_share_no_construction(rules: tasks.Task) -> None:
    out, mixed = rules.out_of_domain, rules.mixed
    scored = {name: out[out["heuristic"] == name] for name in out["heuristic"].unique()}
    assert set(scored) == {"seen", "unseen"}
    assert set(scored["seen"]["subcase"]) == set(mixed["subcase"])
    assert not set(scored["unseen"]["subcase"]) & set(mixed["subcase"])
    for part in (mixed, *scored.values()):
        assert part["label"].mean() == 0.5
        assert cues.accuracies(part, grammar.PEOPLE).max() <= 0.52
    premises = [set(frame["premise"]) for frame in rules.sets.values()]
    assert len(set.union(*premises)) == sum(map(len, premises))


def test_scored_pairs_of_the_task_on_rules_are_not_in_the_text(
    rules: tasks.Task, pool: text.Pool
) -> None:
    scored = [rules.validation, rules.in_domain, rules.out_of_domain]
    premises = {premise for frame in scored for premise in frame["premise"]}
    assert not premises & {said(ids) for (ids,) in pool["sentence"].ids}


def test_the_task_on_rules_is_made_again_by_its_seed() -> None:
    taken = {*tasks.load("pocket-rules").out_of_domain["premise"]}
    first, again = (crossed.crossed(Random(3), 40, set(taken)) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not taken & set(first["premise"])
    assert first["premise"].is_unique
