"""Tables and numbers from code: Markdown, never HTML, so that the book needs no network.

The one place (with `stats.number`) that decides how a number is printed. Text in a table is shown
literally; in a sentence of `say`, only what went through `inert.escape` is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from llmft import inert
from llmft.report import stats


def with_interval(frame: pd.DataFrame, name: str = "accuracy", digits: int = 2) -> pd.DataFrame:
    """The frame with each interval as one column of text (`stats.as_text`), and its sample as n.

    `frame`: of `stats.summary`; its other columns stay.
    """
    counts = [
        " × ".join(f"{int(k):,}" for k in (row["draws"], row["examples"]) if k)
        for _, row in frame.iterrows()
    ]
    texts = [stats.as_text(row, digits) for _, row in frame.iterrows()]
    others = frame.drop(columns=[c for c in stats.FIELDS if c in frame])
    return others.assign(**{name: texts, "n": counts})


def markdown(
    frame: pd.DataFrame, formats: Mapping[str, str | Callable[[Any], str]] | None = None
) -> str:
    """The frame as a Markdown pipe table, numbers to the right.

    `formats`: column -> a format specification (".3f") or a function; other floats get two
    decimals, whole numbers thousands separators, missing values a dash. All text is escaped, that
    of a function too, unless it is `inert.Markdown` (`inert.code`).
    """
    formats = formats or {}

    def cell(column: str, value: Any) -> str:
        form = formats.get(column)
        if callable(form):
            text = form(value)
        elif pd.api.types.is_scalar(value) and pd.isna(value):
            text = "–"
        elif form is not None:
            text = format(value, form)
        elif isinstance(value, int | float | np.integer | np.floating) and not isinstance(
            value, bool
        ):
            text = stats.number(float(value) if isinstance(value, float | np.floating) else value)
        else:
            text = value
        return inert.escape(text)

    def is_number(column: str) -> bool:
        kind = frame[column].dtype
        return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)

    columns = [str(column) for column in frame.columns]
    lines = [
        [inert.escape(column) for column in frame.columns],
        ["---:" if is_number(c) else ":---" for c in frame.columns],
    ]
    lines += [
        [cell(c, v) for c, v in zip(columns, row, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(
    frame: pd.DataFrame, formats: Mapping[str, str | Callable[[Any], str]] | None = None
) -> None:
    """Show the frame as a Markdown table (see `markdown`).

    Never HTML: Quarto adds scripts from a network to it.
    """
    say(markdown(frame, formats))


def say(text: str) -> None:
    """Show Markdown from code: so a chapter states a number, which is never typed in prose.

    Text of the data must go through `inert.escape`, `inert.code` or `inert.fence`.
    """
    display(Markdown(text))  # type: ignore[no-untyped-call]
