"""What a figure's output is: one SVG, in light and in dark, for a page and for a phone.

In the dark, a style sheet within the SVG exchanges the book's colours. For a phone, where there is
less room, a figure is drawn a second time; that drawing lies within the first, hidden, as the
element `phone`, and `pages.finish` shows it on narrow pages. A notebook shows the first.
"""

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import wraps
from typing import Any

import altair as alt
import vl_convert
from altair.utils import schemapi

from llmft import dark
from llmft.report import theme


DARK = {"white": dark.COLOURS["#ffffff"], **dark.COLOURS}
"""What the colours become on a dark page; the others stay."""

STYLE = "".join(
    f'[{part}="{light}"]{{{part}:{other}}}'
    for light, other in DARK.items()
    for part in ("fill", "stroke")
)


@dataclass(frozen=True)
class Svg:
    """A figure as a notebook shows it: SVG alone."""

    svg: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"image/svg+xml": self.svg}

    def __repr__(self) -> str:
        return "a figure"  # as plain text: not the whole SVG


@dataclass(frozen=True)
class Figure:
    """A chart, drawn for a page and for a phone."""

    page: Any
    phone: Any

    @property
    def svg(self) -> str:
        """Both as one SVG, of which the page's is visible."""
        return with_phone(drawn(self.page), drawn(self.phone, padding=8))

    def to_dict(self) -> dict[str, Any]:
        """The page's chart as a specification of Vega-Lite."""
        return dict(self.page.to_dict())

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"image/svg+xml": self.svg}

    def __repr__(self) -> str:
        return "a figure"


def twice(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns a chart, as one that returns a `Figure`.

    Where it is called by another such function, it returns the part of the chart that is drawn.
    """

    def drawing(phone: bool, *args: Any, **options: Any) -> Any:
        theme.ON_A_PHONE.set(phone)
        with schemapi.debug_mode(False):  # `drawn` checks the whole once, not each part as it comes
            return draw(*args, **options)

    @wraps(draw)
    def figure(*args: Any, **options: Any) -> Any:
        if theme.ON_A_PHONE.get() is not None:
            return draw(*args, **options)
        return Figure(
            *(copy_context().run(drawing, phone, *args, **options) for phone in (False, True))
        )

    return figure


def part(chart: Any) -> Any:
    """What is drawn now of a chart that may be drawn twice: that for a page or for a phone."""
    if not isinstance(chart, Figure):
        return chart
    return chart.phone if theme.phone() else chart.page


def drawn(chart: Any, **properties: Any) -> str:
    """An Altair chart, with other properties in place of its own, as SVG for light and dark pages.

    Raises:
        altair.utils.schemapi.SchemaValidationError: Vega-Lite has no such chart.
    """
    with alt.data_transformers.disable_max_rows():
        spec = chart.to_dict() | properties
    version = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return in_the_dark(vl_convert.vegalite_to_svg(spec, vl_version=version))


def in_the_dark(svg: str) -> str:
    """The SVG with the style sheet for dark pages."""
    head, end, rest = svg.partition(">")
    style = f"<style>@media (prefers-color-scheme:dark){{{STYLE}}}</style>"
    return f"{head}{end}{style}{rest}"


def with_phone(page: str, phone: str) -> str:
    """The page's SVG with that for a phone hidden in it."""
    head, _, rest = page.rpartition("</svg>")
    hidden = phone.replace("<svg ", '<svg id="phone" display="none" ', 1)
    return f"{head}{hidden}</svg>{rest}"
