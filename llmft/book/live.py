"""The pocket model in a page: its files beside the pages, and the line that loads its script.

A page asks for it with `<div class="pocket-model">`, which holds what stands there without scripts;
with `class="pocket-model students"` two distilled students (`pocket/students.py`) answer beside it.
The forward pass is `model.js`, what a reader does with it `live.js`. Everything comes from the
site itself; the weights are float16, those of students differences of 8 bits from them, and are
loaded when the reader asks for them.
"""

import json
import shutil
from pathlib import Path


MARK = 'class="pocket-model'
"""What a page has where the model goes."""

HEAD = """<link rel="stylesheet" href="../live.css">
<script type="module" src="../live.js"></script>
"""
"""What such a page, in a folder of the site, loads."""

PAIRS = 200
"""Pairs of each set that a reader can take."""


def write(root: Path, folder: Path) -> None:
    """Put the scripts, the model and its pairs into the site.

    Args:
        root: the book's folder, with `data/pocket`.
        folder: the site's.
    """
    import pandas as pd  # here, as the commands that render nothing begin faster without
    from safetensors.numpy import load_file, save

    data, out = root / "data" / "pocket", folder / "pocket"
    (out / "model").mkdir(parents=True, exist_ok=True)
    for name in ("model.js", "live.js", "live.css"):
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
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
