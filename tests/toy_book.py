"""A book of one small chapter, to try the freeze and the gate on."""

import json
import shutil
from pathlib import Path
from typing import Any

from llmft import ROOT


PARAMS = ("params/pocket.yaml", "params/smoke.yaml")

QUARTO = """
book:
  title: Toy
  chapters:
    - index.qmd
    - part: Methods
      chapters: [chapters/toy.ipynb]
"""

INDEX = """---
title: Preface
---

See @fig-line and @sec-toy, after @brown2020 [and @zhao2021].

- a [link](chapters/toy.ipynb)

![A picture](data/results/toy.svg)

::: {#refs}
:::
"""

BIBLIOGRAPHY = """@misc{brown2020,
  title = {Language Models are Few-Shot Learners},
  author = {Brown, Tom and Mann, Benjamin and Ryder, Nick},
  year = {2020},
  url = {https://arxiv.org/abs/2005.14165},
}

@misc{zhao2021,
  title = {Calibrate Before Use},
  author = {Zhao, Zihao and Wallace, Eric},
  year = {2021},
}
"""

TITLE = """# A toy {#sec-toy}

See @tbl-runs. `@nothing` is code. Mail me@example.org.

$$a^2$$ {#eq-a}"""

PARAMETERS = """studies: list[str] = ["pocket"]  # names of files in params/
shots: list[int] = None  # numbers of demonstrations
repeats: int = None  # draws a point
store: str = None  # the folder of finished runs"""

SET_UP = "from llmft import params\n\n[p] = params.studies(globals())"

FIGURE = """#| label: fig-line
#| fig-cap: A line.
#| fig-alt: A diagonal line.
from IPython.display import SVG

picture = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0,0L9,9"/></svg>'
SVG(picture)"""

TABLE = """#| label: tbl-runs
#| tbl-cap: Runs, see @eq-a.
import sys

from IPython.display import Markdown

print("progress", file=sys.stderr)
(p.folder / "toy.csv").write_text(f"repeats\\n{p.repeats}\\n")
(p.folder / "toy.svg").write_text(picture)
display(Markdown(f"| repeats | shots |\\n|--|--|\\n| {p.repeats} | {sum(p.shots)} |"))"""


OTHER = """# Another {#sec-other}

It has none of the first one's parameters."""


def cell(kind: str, source: str, **metadata: Any) -> dict[str, Any]:
    made = {"cell_type": kind, "id": f"{kind}-{abs(hash(source))}", "source": source}
    made["metadata"] = metadata
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def make(root: Path) -> Path:
    """Write the book; the path of its chapter."""
    for folder in ("chapters", "params", "llmft", "data/pocket", "data/results"):
        (root / folder).mkdir(parents=True)
    for file in (*PARAMS, "llmft/__init__.py", "llmft/params.py", "llmft/provenance.py"):
        shutil.copyfile(ROOT / file, root / file)
    (root / "params" / "book.yaml").write_text("studies: [pocket]\n")
    (root / "llmft" / "other.py").write_text("x = 1\n")
    (root / "data" / "pocket" / "test.csv").write_text("premise\n")
    (root / "_quarto.yml").write_text(QUARTO)
    (root / "index.qmd").write_text(INDEX)
    (root / "references.bib").write_text(BIBLIOGRAPHY)
    cells = [
        cell("markdown", TITLE),
        cell("code", PARAMETERS, tags=["parameters"]),
        cell("code", SET_UP),
        cell("code", FIGURE),
        cell("code", TABLE),
    ]
    path = root / "chapters" / "toy.ipynb"
    about = {"language_info": {"name": "python"}}
    write(path, {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5})
    return path


def add_other(root: Path) -> Path:
    """A second chapter, which has but its studies and a seed; its path."""
    listing = (root / "_quarto.yml").read_text()
    (root / "_quarto.yml").write_text(listing + "    - chapters/other.ipynb\n")
    declares = 'studies: list[str] = ["pocket"]  # studies\nseed: int = None  # a seed'
    cells = [
        cell("markdown", OTHER),
        cell("code", declares, tags=["parameters"]),
        cell("code", SET_UP),
        cell("code", "p.seed"),
    ]
    path = root / "chapters" / "other.ipynb"
    write(path, {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    return path


def read(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def write(path: Path, notebook: dict[str, Any]) -> None:
    path.write_text(json.dumps(notebook))
