"""Tables and numbers from code: Markdown, never HTML, so that the book needs no network.

The one place (with `stats.number`) that decides how a number is printed. Text in a table is shown
literally; in a sentence of `say`, only what went through `inert.escape` is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from llmft import inert
from llmft.report import stats


POWER = re.compile(r"a true difference of (\S+) would have been shown with 80 % power")
"""What stands beside a difference that is not shown, at its first time on a page."""

explained: set[str] = set()
"""What this page, that is the process of its notebook, has said in full already."""


def with_interval(frame: pd.DataFrame, name: str = "accuracy", digits: int = 2) -> pd.DataFrame:
    """The frame with each interval as one column of text (`stats.as_text`), and its sample as n.

    `frame`: of `stats.summary`; its other columns stay.
    """
    intervals = [stats.Interval(*row) for row in frame[list(stats.FIELDS)].itertuples(index=False)]
    texts = [stats.as_text(vars(interval), digits) for interval in intervals]
    sizes = [interval.n for interval in intervals]
    return frame.drop(columns=list(stats.FIELDS)).assign(**{name: texts, "n": sizes})


def markdown(
    frame: pd.DataFrame,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    heads: Sequence[str] = (),
) -> str:
    """The frame as a Markdown pipe table, numbers to the right.

    `formats`: column -> a format specification (".3f") or a function; other floats get two
    decimals, whole numbers thousands separators, missing values a dash. All text is escaped, that
    of a function too, unless it is `inert.Markdown` (`inert.code`). `heads` says of each row what
    it belongs to: a row with that alone, in bold, comes before the first of those that share it.
    """
    formats = formats or {}
    columns: list[list[Any]] = []
    for name, values in frame.items():
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        cells = [_cell(value, formats.get(str(name))) for value in values]
        right = is_number and not (len(heads) and not columns)  # a head stands in the first column
        columns.append([name, inert.Markdown("---:" if right else ":---"), *cells])
    lines = list(zip(*columns, strict=True))
    for at in reversed(range(len(heads))):
        if not at or heads[at] != heads[at - 1]:
            head = inert.Markdown(f"**{inert.escape(heads[at])}**")
            lines.insert(at + 2, (head, *[""] * (len(columns) - 1)))
    return "\n".join(f"| {' | '.join(map(inert.escape, line))} |" for line in lines)


def _cell(value: Any, form: str | Callable[[Any], str] | None) -> Any:
    if callable(form):
        return form(value)
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if form is not None:
        return format(value, form)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return value
    return stats.number(value)


def table(
    frame: pd.DataFrame,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    heads: Sequence[str] = (),
) -> None:
    """Show the frame as a Markdown table (see `markdown`)."""
    say(markdown(frame, formats, heads))


def say(text: str) -> None:
    """Show Markdown from code: so a chapter states a number, which is never typed in prose.

    Text of the data must go through `inert.escape`, `inert.code` or `inert.fence`.
    """
    display(Markdown(briefly(text)))  # type: ignore[no-untyped-call]


def briefly(text: str) -> str:
    """The text; how well a null was looked for is said in full once a page, then by its number."""

    def short(match: re.Match[str]) -> str:
        if "power" in explained:
            return f"{match[1]} would have been shown"
        explained.add("power")
        return match[0]

    return POWER.sub(short, text)
