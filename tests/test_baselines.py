"""What needs no model, against values known by hand or by other code."""

import ast

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from llmft import ROOT, provenance
from llmft.nli import cues, tasks
from llmft.report import stats
from llmft.study import baselines, metrics


@pytest.fixture(scope="module")
def pocket() -> tasks.Task:
    return tasks.load("pocket")


def pairs(*sentences: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(sentences, columns=["premise", "hypothesis", "label"])


def test_alignment_by_hand() -> None:
    result = baselines.alignment("the cat saw the dog".split(), "the dog saw the bird".split())
    assert result == {
        "one negated": 0,
        "premise negated": 0,
        "copied whole": 0,
        "share of word pairs": 2 / 4,  # "the dog" and "saw the" of four
        "new words": 1,  # bird
        "same first word": 1,
        "same order": 1 / 3,  # places 0, 4, 2, 0: one step of three goes on
    }
    assert baselines.alignment("a b c".split(), "b c".split())["copied whole"] == 1
    assert baselines.alignment("ab c".split(), "b c".split())["copied whole"] == 0


def test_the_negation_rule() -> None:
    frame = pairs(
        ("The cat ran.", "The cat never ran.", 1),
        ("The cat never ran.", "The cat ran.", 1),
        ("The cat never ran.", "The cat never ran.", 0),
        ("The cat ran.", "The cat ran.", 0),
    )
    assert baselines.negations(frame).tolist() == [1, 1, 2, 0]
    assert baselines.negation_rule(frame).tolist() == [1, 1, 1, 0]


def test_the_pocket_worlds_floors(pocket: tasks.Task) -> None:
    """Values of an audit by other code: overlap .886, exactly one negated .869."""
    assert baselines.best_rule(pocket.train) == baselines.Rule("overlap", 0.0, 0)
    floors = baselines.floors(pocket).set_index(["domain", "rule"])["accuracy"]
    assert floors["in-domain", "best cue: overlap"] == pytest.approx(0.8858, abs=1e-4)
    assert floors["out-of-domain", "best cue: overlap"] == 0.5
    assert floors["in-domain", "constant"] == floors["out-of-domain", "constant"] == 0.5
    label, count = pocket.in_domain["label"], baselines.negations(pocket.in_domain)
    assert ((count == 1) == label).mean() == pytest.approx(0.8692, abs=1e-4)
    either = baselines.negation_rule(pocket.in_domain)
    assert (either == label).mean() == pytest.approx(0.855, abs=1e-4)


def test_the_best_rule_is_chosen_on_the_pairs_it_is_given() -> None:
    frame = pairs(*[("a b c", "a", 1), ("a b c", "d", 0)] * 3)
    rule = baselines.best_rule(frame)
    assert (rule.labels(frame) == frame["label"]).all()
    flipped = frame.assign(label=1 - frame["label"])
    assert (baselines.best_rule(flipped).labels(frame) == flipped["label"]).all()


def test_where_no_cue_varies_the_best_rule_is_the_larger_label() -> None:
    same = pairs(*[("a b c", "a b", label) for label in (1, 1, 0)])
    other = pairs(("a b c", "d", 0), ("a never b", "a b", 1))
    assert baselines.best_rule(same).labels(other).tolist() == [1, 1]
    flipped = same.assign(label=1 - same["label"])
    assert baselines.best_rule(flipped).labels(other).tolist() == [0, 0]


def test_the_classifier_learns_from_the_methods_own_samples(pocket: tasks.Task) -> None:
    small = tasks.load("pocket", limit=200)
    result = baselines.classifier(small, [2, 32], [0, 1])
    assert len(result) == 4 * 400
    assert np.exp(result[metrics.LOGP]).sum(axis=1).to_numpy() == pytest.approx(1)
    scored = metrics.with_scores(result).query("domain == 'in-domain'")
    accuracy = scored.groupby("shots")["correct"].mean()
    assert accuracy[32] > 0.85
    # The sample is `tasks.sample`'s: a pool of no more than that sample gives the same answers.
    sample = tasks.sample(small.train, 32, 1)
    alone = tasks.Task("t", sample, small.validation, small.in_domain, small.out_of_domain, "d")
    again = baselines.classifier(alone, [32], [5])
    own = result[(result["shots"] == 32) & (result["data_seed"] == 1)]
    assert again[metrics.LOGP].to_numpy() == pytest.approx(own[metrics.LOGP].to_numpy(), abs=1e-6)


# --- AUC ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [9, 40, 301])
def test_auc_is_scikit_learns(n: int) -> None:
    rng = np.random.default_rng(n)
    score = rng.normal(size=n).round(1)  # with ties
    labels = rng.integers(0, 2, n)
    logp = np.stack([score, np.zeros(n)], axis=1)
    assert metrics.auc_parts(logp, labels).mean() == pytest.approx(
        roc_auc_score(labels == 0, score)
    )


def test_auc_of_a_perfect_ranking_a_constant_and_one_label() -> None:
    labels = np.array([0, 1, 0, 1])
    perfect = np.array([[2.0, 0], [1, 0], [3, 0], [0, 0]])
    assert metrics.auc_parts(perfect, labels).mean() == 1  # also where all are called entailed
    assert metrics.auc_parts(np.zeros((4, 2)), labels).mean() == 0.5
    assert np.isnan(metrics.auc_parts(perfect, np.zeros(4, dtype=int))).all()


def test_auc_parts_have_delongs_variance() -> None:
    rng = np.random.default_rng(1)
    labels = (np.arange(90) % 3 == 0).astype(int)  # 60 entailed, 30 not
    score = rng.normal(size=90) + np.where(labels == 0, 0.8, 0)
    logp = np.stack([score, np.zeros(90)], axis=1)
    a, b = score[labels == 0], score[labels == 1]
    wins = (a[:, None] > b[None, :]).astype(float)
    variance = wins.mean(1).var(ddof=1) / len(a) + wins.mean(0).var(ddof=1) / len(b)
    frame = pd.DataFrame(
        {"draw": "", "id": range(90), "label": labels, "auc": metrics.auc_parts(logp, labels)}
    )
    result = stats.interval(stats.sample(frame, "auc"))
    assert result.se == pytest.approx(np.sqrt(variance))


def test_scores_are_of_each_run_and_domain() -> None:
    rows = pd.DataFrame(
        {
            "key": ["k"] * 6,
            "domain": ["in-domain"] * 2 + ["out-of-domain"] * 2 + ["content-free"] * 2,
            "label": [0, 1, 0, 1, -1, -1],
            metrics.LOGP[0]: np.log([0.9, 0.8, 0.1, 0.2, 0.5, 0.5]),
            metrics.LOGP[1]: np.log([0.1, 0.2, 0.9, 0.8, 0.5, 0.5]),
        }
    )
    result = metrics.with_scores(rows)
    assert result["auc"].tolist() == [1, 1, 0, 0]
    assert result["correct"].tolist() == [1, 0, 0, 1]


# --- what the code of a run is -----------------------------------------------------------------


def test_comments_and_docstrings_are_no_code() -> None:
    plain = 'def f(x):\n    return x + "# no comment"\n'
    same = (
        '"""Module."""\n\n# Why.\ndef f(x):  # here\n    """What."""\n\n'
        '    return x + "# no comment"\n'
    )
    assert provenance.code_only(same) == provenance.code_only(plain)
    assert provenance.code_only(plain.replace("+", "-")) != provenance.code_only(plain)
    assert provenance.code_only('X = 1\n"""What X is."""\n') == "X = 1"


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("def f(x: int) -> int: ...\n", "def f(x: str) -> int: ...\n"),
        ('x = 1; "why"\n', 'x = 2; "why"\n'),
        ('def f(): "what"\n', 'def g(): "what"\n'),
        ('X = """a\n\nb"""\n', 'X = """a\nb"""\n'),  # an empty line of a text is no layout
        ('X = """a  \nb"""\n', 'X = """a\nb"""\n'),
        ('X = f"""{a}\n\nb"""\n', 'X = f"""{a}\nb"""\n'),
        ('f("""\n# a\n""")\n', 'f("""\n# b\n""")\n'),
        ("if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n"),
    ],
)
def test_no_change_of_code_is_taken_for_one_of_comments(code: str, changed: str) -> None:
    assert provenance.code_only(code) != provenance.code_only(changed)
    assert provenance.code_only(f"# Why.\n\n{code}") == provenance.code_only(code)


def test_every_measuring_module_keeps_its_code_and_nothing_else() -> None:
    """The syntax tree without lone texts is the same, and the comments are gone."""

    def tree(source: str) -> str:
        result = ast.parse(source)
        for node in ast.walk(result):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [  # type: ignore[attr-defined]
                    part
                    for part in body
                    if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
                ]
        return ast.dump(result)

    for module in provenance.MEASURES:
        source = (ROOT / "llmft" / f"{module}.py").read_text()
        result = provenance.code_only(source)
        assert tree(result) == tree(source), module
        assert '    """' not in result
        assert len(result) < len(source)
        assert provenance.code_only(result) == result


def test_the_classifier_follows_a_pure_cue_and_gives_up_one_that_says_nothing() -> None:
    task = tasks.load("pocket-rules")
    wrong = {*task.in_domain["id"][~cues.negation_is_right(task.in_domain)]}
    accuracy = {}
    for purity in (0.5, 1.0):
        found = metrics.with_scores(baselines.classifier(task, [128], [0, 1], purity))
        accuracy[purity] = found[found["id"].isin(wrong)]["correct"].mean()
    assert accuracy[1.0] < 0.25 < 0.6 < accuracy[0.5]
    mixed = baselines.classifier(task, [32], [0], 0.75, 1.0)
    assert mixed["domain"].value_counts().to_dict() == {"out-of-domain": 440, "in-domain": 400}


def test_a_pair_unlike_the_sample_has_finite_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.load("pocket")
    plain = baselines.features
    monkeypatch.setattr(
        baselines, "features", lambda pairs: plain(pairs) * (1e9 if "domain" in pairs else 1)
    )
    found = baselines.classifier(task, [32], [0])
    logp = found[metrics.LOGP].to_numpy()
    assert np.isfinite(logp).all()
    assert logp.min() == baselines.LEAST
