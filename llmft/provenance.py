"""Where a number comes from: the commit, and the code that measured it, without its comments."""

import ast
import hashlib
import io
import subprocess
import tokenize
from functools import lru_cache
from pathlib import Path

from llmft import ROOT


MEASURES = tuple(
    "hardware nli/sources nli/selection nli/cues nli/tasks nli/placebo nli/prompts "
    "engine/gguf engine/models engine/spec engine/attention engine/scoring engine/learner "
    "engine/training engine/distill study/metrics study/methods".split()
)
"""The modules whose code decides a run's numbers."""


def code_digest(root: Path = ROOT) -> str:
    """16 hex digits of the code that measures: a better sentence in it changes nothing."""
    digest = hashlib.sha256()
    for module in MEASURES:
        source = (root / "llmft" / f"{module}.py").read_text(encoding="utf-8")
        digest.update(f"{module}\n{code_only(source)}".encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=256)
def code_only(source: str) -> str:
    """A module without its comments, its docstrings and other lone texts, and its empty lines.

    By their places in the text, not by writing the syntax tree again, which each Python does in its
    own way.
    """
    lines, inside = io.StringIO(source).readlines(), set()  # of a text: rows that go on in the next
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column]
        elif token.type in (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)):
            inside |= set(range(row - 1, token.end[0] - 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            if "".join(lines[first:last]).strip() == ast.get_source_segment(source, node):
                lines[first:last] = [""] * (last - first)  # it stands alone
                inside -= set(range(first, last))
    numbered = [(row, line.removesuffix("\n")) for row, line in enumerate(lines)]
    return "\n".join(
        line if row in inside else line.rstrip()
        for row, line in numbered
        if row in inside or line.strip()
    )


@lru_cache(maxsize=4)
def commit(folder: Path) -> str:
    """The commit that `folder` is at, with a + when files differ from it; "" outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
