"""The pictures of ideas: words within the picture, legible on a phone, light and dark."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from llmft import inert
from llmft.report import renderings, schematics


PICTURES = [
    schematics.prompt,
    schematics.low_rank,
    schematics.distillation,
    schematics.recursion,
]


@pytest.mark.parametrize("draw", PICTURES)
def test_a_picture_is_read_on_a_phone_and_without_eyes(draw: Callable[[], renderings.Svg]) -> None:
    (svg,) = draw()._repr_mimebundle_().values()
    assert not list(inert.svg_problems(svg))
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert len(root.get("aria-label", "")) > 60
    width = float(root.get("viewBox", "").split()[2])
    assert width <= 362  # on a phone, a unit is a pixel
    anchors = ["start", "middle", "end"]
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        size = float(text.get("font-size", ""))
        wide = 0.62 * size * len(text.text or "")  # of a wide font
        left = float(text.get("x", "")) - wide * anchors.index(text.get("text-anchor", "")) / 2
        assert size >= 12
        assert left >= -1, text.text
        assert left + wide <= width + 1, text.text


@pytest.mark.parametrize("draw", PICTURES)
def test_every_colour_of_a_picture_has_one_for_the_dark(
    draw: Callable[[], renderings.Svg],
) -> None:
    body = draw().svg.partition("</style>")[2]
    assert set(re.findall('(?:fill|stroke)="([^"]+)"', body)) - {"none"} <= set(renderings.DARK)
