"""llmft: adapting small causal language models to natural language inference, measured honestly.

The book in `chapters/` is the program; this package holds what its chapters share. Its rooms, each
of which imports only those below it (`lint-imports` checks it):

    cli       the command line
    report/   rows in; numbers, figures and sentences out
    pocket/   the synthetic world and its pretraining
    book/     notebooks in; frozen, checked and rendered pages out
    study/    specifications of runs in, one stored row each out
    engine/   token ids in, log-probabilities or trained weights out
    nli/      sentence pairs and prompts in, token ids out
    params, files, inert, dark, hardware, provenance    what all rooms stand on
"""

from pathlib import Path


__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
"""The book's folder (the clone): where `chapters/`, `params/` and `data/` are."""


class UserError(Exception):
    """Something the user can put right; its message is one line that says what and how."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: the one line (and so papermill, too)."""
        return [f"llmft: {self}"]


class LeftOutError(UserError):
    """The studies leave out, by `without`, all that a chapter shows: it has no page of theirs."""
