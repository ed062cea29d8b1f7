"""What the comparison computes, on frames counted by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmft import params
from llmft.report import sections, tables
from llmft.report.chapters import comparison
from llmft.report.stats import Interval
from llmft.study import metrics
from llmft.study.results import FIELDS, Results


INSIDE, OUTSIDE = "in-domain", "out-of-domain"
STUDY = params.study("smoke", {"context_shots": 4, "shots": [4], "train_shots": [2, 8]})


def answers(shares: dict[tuple[str, int], float], draws: int = 5) -> pd.DataFrame:
    """Answers in both domains; of each label's 20 pairs, a draw gets such a share right or less."""
    parts = []
    for (method, shots), share in shares.items():
        for domain in (INSIDE, OUTSIDE):
            for draw in range(draws if shots else 1):
                pair = np.arange(40)
                right = pair // 2 < 20 * share - draw % 2
                p = np.where((pair % 2 == 0) == right, 0.8, 0.2)
                logp = dict(zip(metrics.LOGP, np.log([p, 1 - p]), strict=True))
                about = {"study": STUDY.study, "method": method, "shots": shots, "domain": domain}
                about |= {"key": f"{method} {shots} {draw}", "draw": f"{draw}-0-0" if shots else ""}
                pairs = pd.DataFrame({"id": [f"{domain} {i}" for i in pair], "label": pair % 2})
                parts.append(pairs.assign(**logp, **about))
    return metrics.with_scores(pd.concat(parts, ignore_index=True))


COMPARED = answers(
    {
        ("zero-shot", 0): 0.5,
        ("ICL", 4): 0.75,
        ("full fine-tuning", 2): 0.6,
        ("full fine-tuning", 8): 1.0,
        (comparison.CUES, 4): 0.75,
    }
)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(tables, "say", texts.append)
    return texts


def test_the_table_is_shown_and_stored_with_its_intervals(
    tmp_path: Path, messages: list[str]
) -> None:
    comparison.table(COMPARED, [STUDY.model_copy(update={"store": str(tmp_path)})])
    back = pd.read_csv(tmp_path / "comparison.csv")
    assert back["method"].tolist()[::2] == [
        comparison.CUES, "zero-shot", "ICL", "full fine-tuning",
    ]  # fmt: skip
    assert back["examples"].tolist()[::2] == [4, 0, 4, 8]
    assert back["domain"].tolist() == [INSIDE, OUTSIDE] * 4
    assert back["accuracy"].tolist()[::2] == pytest.approx([0.73, 0.5, 0.73, 0.98])
    assert (back["accuracy_lo"] < back["accuracy"]).all()
    whole = (
        f"{back['accuracy'][4]:.2f} [{back['accuracy_lo'][4]:.2f}, {back['accuracy_hi'][4]:.2f}]"
    )
    text = (tmp_path / "comparison.tex").read_text()
    assert whole in text
    assert whole in messages[0]
    assert r"\toprule" in text


def test_a_claim_rests_on_one_difference_and_is_left_out_without_its_runs(
    messages: list[str], tmp_path: Path
) -> None:
    found = comparison.claims(COMPARED, [STUDY])
    assert found["domain"].unique().tolist() == [INSIDE, OUTSIDE]
    own = found[found["domain"] == INSIDE].set_index("claim")["difference"]
    cues = "with the same few labels, a cue classifier ranks pairs better than ICL"
    assert list(own.index) == [
        comparison.ICL_HELPS,
        comparison.TRAINING_HELPS,
        comparison.APART,
        cues,
    ]
    a, b = {"method": comparison.CUES, "domain": INSIDE}, {"method": "ICL", "domain": INSIDE}
    assert own[cues] == sections.difference(COMPARED, a, b, "auc", 1 - 0.05 / 8)
    up, null = (Interval(0.1, lo, 0.3, "two-way t", 5, 40, se=0.01, df=4) for lo in (0.05, -0.1))
    first_study = STUDY.model_copy(update={"store": str(tmp_path)})
    studies = [first_study, STUDY.model_copy(update={"study": "other"})]
    both = pd.concat(
        [found.assign(difference=up), found[1:].assign(study="other", difference=null)]
    )
    comparison.both(both, studies)
    first, second = messages[0].replace("&#91;", "[").replace("&#93;", "]").splitlines()[2:4]
    assert first.endswith(f"{comparison.ICL_HELPS} | {up} | – | in smoke |")
    assert second.endswith(
        f"| {up} | {null} ({null.detectable:.2f}) | in smoke; not shown either way in other |"
    )

    claim, other = json.loads((tmp_path / "comparison-claims.json").read_text())[:2]
    whole = {"difference": 0.1, "low": 0.05, "high": 0.3}
    assert claim["studies"] == {"smoke": whole}
    assert (claim["claim"], claim["domain"], claim["holds"]) == (
        comparison.ICL_HELPS,
        INSIDE,
        "in smoke",
    )
    detectable = round(null.detectable, 4)
    assert other["studies"]["other"] == whole | {"low": -0.1, "shown_from": detectable}


def test_facing_pairs_the_domains() -> None:
    frame = pd.DataFrame(
        {
            "method": ["a", "a", "b"],
            "domain": [INSIDE, OUTSIDE, INSIDE],
            "mean": [0.8, 0.5, 0.9],
            "lo": [0.7, 0.4, 0.8],
            "hi": [0.9, 0.6, 1.0],
        }
    )
    found = comparison.facing(frame, ["method"])
    assert found.to_numpy().tolist() == [["a", 0.8, 0.7, 0.9, 0.5, 0.4, 0.6]]


def test_costs_are_those_of_the_nearest_size() -> None:
    one: dict[str, Any] = dict.fromkeys(FIELDS, "") | {
        "key": "k",
        "study": STUDY.study,
        "parameters": 1_000,
        "trainable_parameters": 0,
        "prefix_tokens": 2,
        "query_tokens": 8.0,
        "train_tokens": 0,
        "examples_per_second": 500.0,
        "peak_memory_mib": 600.0,
        "device_name": "a machine",
        "threads": 2,
        "clock": "wall",
        "memory_kind": "resident",
    }
    runs = [("ICL", 4, 0.0), ("LoRA", 2, 2.0), ("LoRA", 2, 3.0), ("LoRA", 32, 9.0)]
    rows = [one | {"method": m, "shots": k, "train_seconds": s} for m, k, s in runs]
    found = comparison.costs(Results(pd.DataFrame(rows), pd.DataFrame(), {}), [STUDY])
    assert found["method"].tolist() == ["ICL", "LoRA"]
    assert found["examples"].tolist() == [4, 2]
    assert found["to adapt (s)"].tolist() == [0.0, 2.5]
    assert found["1,000 answers (s)"].tolist() == [2.0, 2.0]
    assert found["runs"].tolist() == [1, 2]
