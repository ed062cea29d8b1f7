"""Tables and numbers from code: Markdown, never HTML, so that the book needs no network.

The one place (with `stats.number`) that decides how a number is printed. Texts in a table are shown
literally; in a sentence of `say`, they are where they went through `inert.escape`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from llmft import inert
from llmft.report import stats


def with_interval(frame: pd.DataFrame, name: str = "accuracy", digits: int = 2) -> pd.DataFrame:
    """An interval's fields folded into one column of text (`stats.shown`), and its sample into n.

    `frame`: as `stats.summary` makes it; its other columns stay.
    """
    counts = [
        " × ".join(f"{int(k):,}" for k in (row["draws"], row["examples"]) if k)
        for _, row in frame.iterrows()
    ]
    texts = [stats.shown(row, digits) for _, row in frame.iterrows()]
    kept = frame.drop(columns=[c for c in stats.FIELDS if c in frame])
    return kept.assign(**{name: texts, "n": counts})


def markdown(
    frame: pd.DataFrame, formats: Mapping[str, str | Callable[[Any], str]] | None = None
) -> str:
    """The frame as a Markdown pipe table, numbers to the right.

    `formats`: column -> a format specification (".3f") or a function; other floats get two
    decimals, whole numbers thousands separators, missing values a dash. Texts are escaped, and
    the columns' names; what a function makes is too, unless it is `inert.Markdown` (`inert.code`).
    """
    formats = formats or {}

    def cell(column: str, value: Any) -> str:
        how = formats.get(column)
        if callable(how):
            text = how(value)
        elif pd.api.types.is_scalar(value) and pd.isna(value):
            text = "–"
        elif how is not None:
            text = format(value, how)
        elif isinstance(value, int | float | np.integer | np.floating) and not isinstance(
            value, bool
        ):
            text = stats.number(float(value) if isinstance(value, float | np.floating) else value)
        else:
            text = value
        return inert.escape(text)

    def right(column: str) -> bool:
        kind = frame[column].dtype
        return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)

    columns = [str(column) for column in frame.columns]
    lines = [
        [inert.escape(column) for column in frame.columns],
        ["---:" if right(c) else ":---" for c in frame.columns],
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
    """Show Markdown from code: the way a chapter states a number, which is never typed in prose.

    A text of the data or a name in it belongs through `inert.escape`, `inert.code`, `inert.fence`.
    """
    display(Markdown(text))  # type: ignore[no-untyped-call]
