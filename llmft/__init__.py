"""llmft: adapting small causal language models to natural language inference, measured honestly.

The book in `chapters/` is the program; this package holds what its chapters share. Imports go only
downward: `cli`, `render`, `book`, `gate`, `stamp` (the book); `effort`, `report`, `plots`, `stats`,
`runs`, `methods`, `sanity` (a chapter's own words); `distill`, `finetune`, `learner` (training);
`fetch` (downloads beforehand); `metrics`, `scoring`, `models`, `prompts`, `tasks`, `sources`,
`hub`, `cues`, `params`.
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
