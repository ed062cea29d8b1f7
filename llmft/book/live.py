"""Boxes of a page that a reader uses: their files beside the pages, and the line that loads them.

A page asks for one with a `<div>`, which holds what stands there without scripts. Everything comes
from the site itself.

`class="pocket-model"`: the pocket model; with `class="pocket-model students"` two distilled
students (`pocket/students.py`) answer beside it. The forward pass is `model.js`, what a reader does
with it `live.js`. The weights are float16, those of students differences of 8 bits from them, and
are loaded when the reader asks for them.

`class="recompute"`: the difference between two methods, computed by `recompute.js` from the answers
that the comparison chapter left.
"""

import json
import shutil
from pathlib import Path


PAIRS = 200
"""Pairs of each set that a reader can take."""


def boxes(page: str, root: Path, folder: Path) -> str:
    """What the head of a page needs for the boxes that it has, whose files are put into the site.

    The page is in a folder of the site, `folder`.
    """
    scripts = []
    if 'class="pocket-model' in page:
        write_model(root, folder)
        scripts += ["live.js", "model.js"]
    answers = root / "data" / "results" / "comparison-answers.json"
    if 'class="recompute"' in page and answers.is_file():
        shutil.copyfile(answers, folder / "answers.json")
        scripts += ["recompute.js"]
    for name in [*scripts, "live.css"] if scripts else []:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    style = '<link rel="stylesheet" href="../live.css">\n' if scripts else ""
    return style + "".join(f'<script type="module" src="../{name}"></script>\n' for name in scripts)


def write_model(root: Path, folder: Path) -> None:
    """Put the model, its students and its pairs into the site."""
    import pandas as pd  # here, as the commands that render nothing begin faster without
    from safetensors.numpy import load_file, save

    data, out = root / "data" / "pocket", folder / "pocket"
    (out / "model").mkdir(parents=True, exist_ok=True)
    if (root / "data" / "students").is_dir():
        shutil.copytree(root / "data" / "students", out / "students", dirs_exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(data / "model" / name, out / "model" / name)
    weights = load_file(data / "model" / "model.safetensors")
    halves = {name: values.astype("float16") for name, values in weights.items()}
    (out / "model" / "model.safetensors").write_bytes(save(halves))
    hans = pd.read_csv(data / "hans.tsv", sep="\t")
    names = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}
    sets = {
        "train": pd.read_csv(data / "train.csv"),
        "in-domain": pd.read_csv(data / "test.csv"),
        "out-of-domain": hans.rename(columns=names),
    }
    pairs = {}
    for name, frame in sets.items():
        some = frame.sample(PAIRS, random_state=0)[["premise", "hypothesis", "label"]]
        entailed = some.pop("label").isin([0, "entailment"])
        pairs[name] = some.assign(entailed=entailed).to_dict("records")
    (out / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
