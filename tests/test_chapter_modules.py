"""What the chapters compute: data, pocket world, bugs, the earlier study, reproducing."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import ROOT, UserError, params
from llmft.nli import tasks
from llmft.params import Study
from llmft.pocket import data as world_data
from llmft.pocket import text as world_text
from llmft.report import prior, sections, tables
from llmft.report.chapters import bugs, data, earlier_study, icl, pocket, reproducing
from llmft.study import metrics
from llmft.study.results import Results


WORLD = ROOT / "data" / "pocket"


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Markdown that is shown."""
    found: list[str] = []
    monkeypatch.setattr(tables, "say", found.append)
    return found


@pytest.fixture
def plain(tmp_path: Path) -> Study:
    """A study of a folder task without an out-of-domain set."""
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_bytes((WORLD / name).read_bytes())
    return params.study("smoke", {"task": str(tmp_path), "limit": 40})


# --- several studies ---------------------------------------------------------------------------


def test_frames_of_several_studies_stand_below_each_other() -> None:
    studies = [params.study("smoke"), params.study("pocket")]
    found = sections.each(studies, lambda study: pd.DataFrame({"n": study.shots[:2]}))
    assert found.to_dict("list") == {"study": ["smoke"] * 2 + ["pocket"] * 2, "n": [2, 4, 2, 4]}


def test_accuracy_beside_a_base_stands_domain_by_domain() -> None:
    lines: list[dict[str, Any]] = [
        {"domain": domain, "kind": kind, "draw": draw, "id": str(i), "label": i % 2}
        | {"correct": float(kind == "b" or i < 2)}
        for kind in ("a", "b")
        for domain in tasks.DOMAINS
        for draw in ("0-0-0", "1-0-0")
        for i in range(4)
    ]
    found = sections.against(pd.DataFrame(lines), ["domain", "kind"], {"kind": "a"})
    assert found["domain"].tolist() == ["in-domain"] * 2 + ["out-of-domain"] * 2
    assert found["kind"].tolist() == ["a", "b"] * 2
    assert found["difference"].tolist() == ["–", "0.50 (2 draws: 0.50 to 0.50)"] * 2
    assert found["shown from"].tolist() == ["–", "–"] * 2  # of two draws nothing is shown


def test_a_mean_over_draws_keeps_to_what_its_columns_name_allows() -> None:
    nats = pd.Series([0.0, 0.0, 0.0, 0.0, 0.5])
    assert "-" in sections.over(nats.rename("gap"))
    assert "-" not in sections.over(nats.rename("held_out_kl"))


def test_the_results_of_another_run_are_found_by_their_names() -> None:
    here, there = params.study("smoke"), params.study("smoke", {"results": "/tmp/other"})
    files = ["data/results/icl.csv"]
    assert sections.result_files(files, [here, here]) == [ROOT / files[0]]
    assert sections.result_files(files, [there, here]) == [
        Path("/tmp/other/icl.csv"),
        ROOT / files[0],
    ]


# --- the data ----------------------------------------------------------------------------------


def test_a_task_without_an_out_of_domain_set_is_shown(plain: Study, output: list[str]) -> None:
    worth = data.cue_accuracies([plain])
    assert set(worth["domain"]) == {"in-domain"}
    for show in (data.labels, data.sets, data.in_domain, data.out_of_domain, data.cue_table):
        show([plain])
    data.best_cues(worth, [plain])
    data.summary(worth, [plain])
    text = "\n".join(output)
    assert "no out-of-domain set: these are in-domain pairs" in text
    assert "| `entailment` | 20 |" in text
    assert "out-of-domain test" not in text


def test_bars_of_a_label_add_up_to_all(plain: Study) -> None:
    for figure in (data.overlap([plain]), data.lengths([plain])):
        rows = pd.DataFrame(next(iter(figure.to_dict()["datasets"].values())))
        assert np.allclose(rows.groupby("series").sum(numeric_only=True).to_numpy(), 100)


# --- the pocket world --------------------------------------------------------------------------


def test_a_text_with_a_test_premise_is_refused(
    monkeypatch: pytest.MonkeyPatch, output: list[str]
) -> None:
    pocket.separation(WORLD)
    assert "0 are premises of a validation or test pair" in output[0]
    pool = world_text.pool(0, 5_000, world_data.reported_premises(WORLD))
    ids = pool["sentence"].ids[0][0]
    sentence = " ".join(world_text.VOCABULARY[i] for i in ids[:-1]) + "."
    monkeypatch.setattr(world_text, "pool", lambda *_: pool)
    monkeypatch.setattr(world_data, "reported_premises", lambda _: {sentence})
    with pytest.raises(UserError, match="has a test premise"):
        pocket.separation(WORLD)


# --- the earlier study -------------------------------------------------------------------------


def test_what_the_published_numbers_say(output: list[str]) -> None:
    published = prior.read()
    accuracy = prior.summary(published, ["method", "model", "shots", "domain"])
    assert earlier_study.constants_of(published) == pytest.approx([0.46, 0.54])
    assert earlier_study.apart(accuracy).empty
    earlier_study.chance(accuracy)
    earlier_study.constants(published)
    assert output[0].startswith("Of the 68 points, none can be told from chance.")
    assert "With 16 demonstrations, 32 of 40 evaluations are of a constant and 8" in output[1]


def test_a_look_at_few_pairs_of_constant_predictions() -> None:
    """ICL is always right and zero-shot never: no look can stray, and none flips the order."""
    study = params.study("smoke")
    frames = []
    for shots, draws in ((0, [""]), (2, ["0-0-0", "1-0-0"]), (4, ["0-0-0", "1-0-0"])):
        for domain, pairs in sections.task_of(study).domains.items():
            right = pairs["label"] if shots else 1 - pairs["label"]
            logp = np.where(right.to_numpy()[:, None] == [0, 1], -0.1, -2.0)
            values: dict[str, Any] = dict(zip(metrics.LOGP, logp.T, strict=True))
            frames += [
                pairs[["id", "label"]].assign(
                    **values, study="smoke", domain=domain, shots=shots, draw=d, key=f"{shots} {d}"
                )
                for d in draws
            ]
    icl = metrics.with_scores(pd.concat(frames, ignore_index=True))
    looks = bugs.fifty(icl, [study])
    assert set(looks["domain"]) == set(tasks.DOMAINS)
    zero, fewer = looks[looks["domain"] == "in-domain"].to_dict("records")
    assert (zero["other"], fewer["other"]) == ("zero-shot", "ICL, 2 shots")
    assert (zero["low"], zero["high"], zero["flipped"]) == (1, 1, 0)
    assert zero["difference"].mean == 1
    assert fewer["flipped"] == 1  # equal, so no better
    assert zero["pairs"] == study.limit


# --- reproducing -------------------------------------------------------------------------------


def test_sums_of_the_prediction_are_stored(tmp_path: Path, output: list[str]) -> None:
    lines = [
        {"study": s, "chapter": c, "smaller": m, "runs": 2, "PFLOP": 1.0, "score": 0.5}
        | {f"{device} (h)": 3.0 for device in reproducing.SPEEDS}
        for s in ("a", "b")
        for c in ("icl", "lora")
        for m in (False, True)
    ]
    reproducing.hours_table(pd.DataFrame(lines), [params.study("smoke", {"store": str(tmp_path)})])
    whole = pd.read_csv(tmp_path / "reproducing.csv")
    assert len(output) == 1
    assert whole["chapter"].tolist() == ["icl", "lora", "all"] * 2 + ["all"]
    assert whole["runs"].tolist() == [2, 2, 4, 2, 2, 4, 8]
    assert whole["CPU (h)"].iloc[-1] == 12


def test_a_given_parameter_counts_for_the_large_studies_too() -> None:
    files = ["params/opt-125m.yaml", "params/opt-350m.yaml"]
    found = reproducing.large_studies(files, {"pair_tokens": "40", "studies": ["smoke"]})
    assert [study.study for study in found] == ["opt-125m", "opt-350m"]
    assert {study.pair_tokens for study in found} == {40}
    assert {study.limit for study in found} == {0}


def test_a_study_without_runs_is_one_line(tmp_path: Path) -> None:
    study = params.study("smoke", {"results": str(tmp_path)})
    with pytest.raises(UserError, match=r"run the chapter icl\s+first"):
        reproducing.read(["data/results/icl.csv"], [study])


def test_a_correction_of_label_bias_moves_accuracy_and_leaves_the_auc() -> None:
    rng, n = np.random.default_rng(0), 20
    parts = []
    for key, shots, split in (("z", 0, "test"), ("a", 2, "test"), ("v", 2, "validation")):
        domains = ["validation"] if split == "validation" else ["in-domain", "content-free"]
        for domain in domains:
            odds = rng.normal(-3, 1, n) + np.arange(n) % 2
            part = pd.DataFrame({"id": [f"{domain}-{i}" for i in range(n)]})
            part["logp_entailment"], part["logp_not"] = (
                -np.log1p(np.exp(s * odds)) for s in (-1, 1)
            )
            label = -1 if domain == "content-free" else 1 - np.arange(n) % 2
            parts.append(
                part.assign(
                    study="s", key=key, domain=domain, label=label, shots=shots, data_seed=0,
                    split=split, draw="",
                )
            )  # fmt: skip
    predictions = pd.concat(parts, ignore_index=True)
    rows = predictions[["study", "key"]].drop_duplicates()
    groups = {"zero-shot": {"s": ["z"]}, "ICL": {"s": ["a"]}, "validation": {"s": ["v"]}}
    bias = icl.corrected(Results(rows, predictions, groups))
    means = bias.groupby(["key", "correction"])[["correct", "auc"]].mean()
    inside = predictions.query("key == 'a' and domain == 'in-domain'")
    plain = metrics.auc_parts(inside[metrics.LOGP], inside["label"])
    assert means.loc["a"]["auc"].tolist() == pytest.approx([plain.mean()] * 4)
    assert means.loc["a"]["correct"]["batch"] > means.loc["a"]["correct"]["none"] == 0.5
    assert set(means.loc["z"].index) == {"none", "contextual", "batch"}
