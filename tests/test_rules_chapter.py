"""The chapter on rules: what it says of answers whose truth is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.nli import cues, selection, tasks
from llmft.report import sections, tables
from llmft.report.chapters import rules
from llmft.study import baselines, grids, metrics, results, runs


STUDY = params.study("smoke", {"without": []})

DRAWS = range(5)


def answers(share: float, method: str, skill: dict[str, float], lean: float = 0.0) -> pd.DataFrame:
    """Five draws on 40 pairs a kind; `skill` moves scores towards the label, `lean` to entailed."""
    rng, parts = np.random.default_rng([int(100 * share), len(method)]), []
    for draw in DRAWS:
        for kind in rules.PARTS.values():
            label = np.arange(40) % 2
            odds = rng.normal(0, 1, 40) + skill.get(kind, 0.0) * (1 - 2 * label) + lean
            domain = tasks.DOMAINS[bool(kind)]
            part = pd.DataFrame({"id": [f"{kind}-{i}" for i in range(40)], "label": label})
            logp = np.stack([-np.log1p(np.exp(-odds)), -np.log1p(np.exp(odds))], axis=1)
            about = {"domain": domain, "constructions": kind, "draw": f"{draw}-0-0"}
            parts.append(part.assign(**about, **dict(zip(metrics.LOGP, logp.T, strict=True))))
    key = [f"{method} {share} {one['draw'].iloc[0]}" for one in parts]
    frame = pd.concat([one.assign(key=k) for one, k in zip(parts, key, strict=True)])
    point = {"study": "smoke", "method": method, "shots": 32, "purity": 0.75, "mixed": share}
    return frame.assign(**point, learned=True)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a function says, text and tables, in the place of a page."""
    said: list[str] = []
    monkeypatch.setattr(tables, "say", said.append)
    return said


@pytest.fixture(name="answered")
def _answered() -> pd.DataFrame:
    """Full fine-tuning learns what constructions share at 1, LoRA only those that it saw."""
    full, some = {rules.UNSEEN: 2.0, rules.SEEN: 2.0}, {rules.SEEN: 2.0}
    parts = [
        answers(0.0, rules.FULL, {}),
        answers(0.25, rules.FULL, {}, lean=-3.0),
        answers(1.0, rules.FULL, full),
        answers(0.0, "LoRA", {}),
        answers(1.0, "LoRA", some),
        *(answers(share, baselines.CLASSIFIER, {}) for share in (0.0, 0.25, 1.0)),
    ]
    return pd.concat(parts, ignore_index=True)


def test_where_a_curve_leaves_one_half_is_said(answered: pd.DataFrame, output: list[str]) -> None:
    rules.leave(answered, [STUDY])
    full, lora, classifier = output[0].split("\n- ")[1:]
    assert full.startswith("Full fine-tuning with 32 examples: ")
    assert (
        "above .50 at 1; not shown to differ from one half at 0 and 0.25 (a true distance" in full
    )
    assert "Against a share of 0, higher at 1; no change is shown at 0.25 (" in full
    assert ". The change at 1 is " in full
    for line in (lora, classifier):
        assert "above" not in line
        assert "no change is shown at 1 (" in line or "no change is shown at 0.25 and 1 (" in line
    rules.summary(answered.iloc[:0], answered.iloc[:0], answered, [STUDY])
    unseen, seen = output[1].split("Of the constructions that examples have")
    assert "full fine-tuning with 32 examples better at 1; at no share LoRA with 32 ex" in unseen
    assert "full fine-tuning with 32 examples better at 1; LoRA with 32 examples better at" in seen


def test_what_is_learned_of_seen_constructions_alone_is_told_apart(
    answered: pd.DataFrame, output: list[str]
) -> None:
    gains = {n: rules._gains(rules.out_of_domain(answered, k)) for n, k in rules.PARTS.items()}
    at = ("LoRA", 32)
    assert gains["seen"][at][1.0].lo > 0
    for name in ("unseen", "in-domain"):
        assert gains[name][at][1.0].lo < 0 < gains[name][at][1.0].hi
    called = rules._gains(rules.out_of_domain(answered), "called")[rules.FULL, 32]
    assert called[0.25].hi < -0.3  # a lean is no gain
    assert called[1.0].lo < 0 < called[1.0].hi
    rules.explain(answered, [STUDY])
    assert "Full fine-tuning with 32 examples is above it at 1; not shown to differ" in output[0]
    rules.leaving_table(answered, [STUDY])
    rules.beside_table(answered, [STUDY])
    lines = [text.split("\n")[2:] for text in output[1:]]
    assert [len(rows) for rows in lines] == [8, 8]
    assert all("–" in row for row in lines[0] if "| 0 |" in row)
    assert output[2].split("\n")[0].endswith("| n, unseen; seen; in-domain |")
    assert all("| 5 × 40; 5 × 40; 5 × 40 |" in row for row in lines[1])


def test_a_missing_effect_is_claimed_of_trained_runs_alone(
    answered: pd.DataFrame, output: list[str]
) -> None:
    """An effect that is there stays, whatever its training loss."""
    at_1 = answered["mixed"] == 1.0
    untrained = answered.assign(learned=~at_1 | (answered["method"] == baselines.CLASSIFIER))
    rules.leave(untrained, [STUDY])
    full, lora, classifier = output[0].split("\n- ")[1:]
    assert "above .50 at 1; not shown to differ from one half at 0 and 0.25 (" in full
    assert "higher at 1; no change is shown at 0.25" in full
    assert "one half at 0 (a true distance" in lora
    assert "; left open (not shown to be trained) at 1." in lora
    assert "Against a share of 0, left open (not shown to be trained) at 1." in lora
    assert "left open" not in classifier
    none = answered.iloc[:0]
    rules.summary(none, none, untrained, [STUDY])
    half, moved, trained = output[1].split("\n- ")
    assert "full fine-tuning with 32 examples above at 1; at no share LoRA with 32 exa" in half
    assert "LoRA with 32 examples (trained at 0) and the cue classifier with 32 examples (" in half
    assert "; left open (not shown to be trained): LoRA with 32 examples. Of the con" in moved
    assert "a missing effect is no finding" in trained
    rules.summary(none, none, answered, [STUDY])
    assert "rained" not in output[2]


def test_an_untrained_start_leaves_every_change_open(
    answered: pd.DataFrame, output: list[str]
) -> None:
    lora = answered["method"] == "LoRA"
    rules.leave(answered.assign(learned=~lora | (answered["mixed"] > 0)), [STUDY])
    assert "Against a share of 0, left open (not shown to be trained) at 1." in output[0]


@pytest.mark.parametrize(
    ("some", "words"),
    [
        ([0.5], "at 0.5"),
        ([1.0], "at 1"),
        ([0.5, 0.625], "up to 0.625"),
        ([0.625, 0.75], "at 0.625 and 0.75"),
        ([0.5, 0.75, 1.0], "at 0.5 and from 0.75 on"),
        ([0.5, 0.625, 1.0], "up to 0.625 and at 1"),
        ([0.5, 0.625, 0.75, 1.0], "from 0.5 to 1"),
    ],
)
def test_where_a_curve_is_elsewhere_is_said_by_its_ends(some: list[float], words: str) -> None:
    assert rules._where(some, [1.0, 0.5, 0.625, 0.75]) == words
    assert rules._where([1.0], [1.0]) == "at 1"


def test_a_training_has_learned_if_its_loss_is_shown_below_a_guess() -> None:
    rng, rows = np.random.default_rng(0), []
    for share, loss in ((0.0, 0.1), (1.0, 0.68)):
        for draw in DRAWS:
            last = loss + rng.normal(0, 0.02)
            curve = [{"update": at, "train_loss": last} for at in (0, 50)]
            point = {"study": "smoke", "shots": 32, "purity": 0.75, "mixed": share}
            rows.append(point | {"key": f"{share} {draw}", "curve": curve})
    frame = pd.DataFrame(rows).assign(updates=50, batch_size=8)
    group = {"mixed, full fine-tuning": {"smoke": list(frame["key"])}}
    found = results.Results(frame, frame[["study", "key"]], group)
    study = STUDY.model_copy(update={"without": ["purity, *", "mixed, [IlL]*"]})
    place = (rules.FULL, 32, 0.75)
    assert rules._trainings(found, study) == {(*place, 0.0): True, (*place, 1.0): False}
    both = pd.concat([answers(share, rules.FULL, {}) for share in (0.0, 1.0)])
    told = rules._with_learned(both.drop(columns="learned"), found, [study])
    assert told.groupby("mixed")["learned"].unique().map(list).to_dict() == {0: [True], 1: [False]}
    none = study.model_copy(update={"without": ["purity, *", "mixed, [flL]*"]})
    assert rules._trainings(found, none) == {}


def test_less_often_than_not_is_said_and_each_number_has_its_pairs(output: list[str]) -> None:
    """By the meaning at a purity of one half, by the cue at 1."""
    [study] = rules.crossed([STUDY], "data/pocket-rules")
    pairs = sections.task_of(study).in_domain
    right = cues.negation_is_right(pairs)
    label, rng, parts = pairs["label"].to_numpy(), np.random.default_rng(1), []
    for purity, says in ((0.5, label), (1.0, np.where(right, label, 1 - label))):
        for draw in DRAWS:
            odds = rng.normal(0, 0.5, len(pairs)) + 2 * (1 - 2 * says)
            logp = np.stack([-np.log1p(np.exp(-odds)), -np.log1p(np.exp(odds))], axis=1)
            about = {"study": "smoke", "method": "ICL", "shots": 32, "mixed": 0.0}
            about |= {"domain": tasks.DOMAINS[0], "key": f"{purity} {draw}"}
            part = pairs[["id", "label"]].assign(purity=purity, draw=f"{draw}-0-0", **about)
            parts.append(part.assign(**dict(zip(metrics.LOGP, logp.T, strict=True))))
    main = pd.concat(parts, ignore_index=True).assign(learned=True)
    misled, none = rules.where_cue(main, [study], right=False), main.iloc[:0]
    rules.summary(misled, main, none, [study])
    followed, beyond = output[0].split("\n- ")
    assert "ICL with 32 examples above at 1 and below at 0.5." in followed
    assert "ICL with 32 examples above at 0.5." in beyond
    rules.following_table(misled, main, [study])
    head, _, *lines = output[1].split("\n")
    assert head.endswith("| n, cue misleads | n, all pairs |")
    sizes = f"| 5 × {(~right).sum()} | 5 × {len(pairs)} |"
    assert lines
    assert all(line.endswith(sizes) for line in lines)
    rules.extent(main, none, [study])
    assert "the purity of the cue varies for ICL with 32 examples (5 draws). Left" in output[2]
    assert "Left out are full fine-tuning, LoRA, distillation and other numbers" in output[2]
    same, more = main.assign(mixed=main["purity"]), main.assign(mixed=1.0, shots=64)
    rules.extent(main, pd.concat([same, more]), [study])
    both = "cue varies for the same and ICL with 64 examples at 1 alone (5 draws). Left"
    assert both in output[3]
    assert "examples: 2 and 4 examples cannot have all 5 purities, and all" in output[2]


def test_samples_that_have_no_share_of_0_have_no_difference(answered: pd.DataFrame) -> None:
    alone = sections.rows_at(answered, mixed=1.0)
    assert rules._gains(rules.out_of_domain(alone)) == {}
    assert rules.out_of_domain(answered.iloc[:0]).empty


def test_studies_of_real_pairs_have_no_purity(output: list[str]) -> None:
    studies = rules.crossed([params.study("smollm2"), STUDY], "data/pocket-rules")
    assert [study.task for study in studies] == ["mnli-hans", "pocket-rules"]
    assert rules.with_purity(studies) == studies[1:]
    assert "**smollm2.** Its examples are real pairs as they come" in output[0]
    nothing: Any = results.Results(pd.DataFrame(), shared_columns(), {})
    main = rules.by_purity(nothing, [])
    misled = rules.where_cue(main, [], right=False)
    assert rules.following(misled) is None
    rules.following_table(misled, main, [])
    rules.kinds([])
    rules.usual_purity([])
    assert len(output) == 1


def shared_columns() -> pd.DataFrame:
    return answers(0.0, "LoRA", {}).iloc[:0]


def test_a_real_pair_is_seen_or_not_by_its_subcase(tmp_path: Any) -> None:
    """As pocket's is by its heuristic."""
    grid = {n: s for n, s in grids.rules(STUDY).items() if n in ("mixed, ICL", "zero-shot")}
    found = runs.run_grid(grid, study="smoke", store=tmp_path, device="cpu")
    [study] = rules.crossed([STUDY], "data/pocket-rules")
    study = study.model_copy(update={"without": ["purity, *", "mixed, [flL]*"]})
    shared = rules.by_share(found, [study])
    kinds = shared.groupby("domain")["constructions"].unique()
    assert [{*kinds[name]} for name in tasks.DOMAINS] == [{""}, {rules.SEEN, rules.UNSEEN}]
    real = found.predictions.copy()
    out = real["domain"] == tasks.DOMAINS[1]
    real.loc[out, "heuristic"] = "lexical_overlap"
    real.loc[out, "subcase"] = np.where(out[out].index % 2, "le_passive", "ln_relative_clause")
    other = rules.by_share(results.Results(found.rows, real, found.groups), [study])
    own = other[(other["domain"] == tasks.DOMAINS[1]) & (other["method"] == "ICL")]
    assert {*own["constructions"][own["subcase"].isin(selection.SEEN)]} == {rules.SEEN}
    assert {*own["constructions"][own["subcase"] == "ln_relative_clause"]} == {rules.UNSEEN}
