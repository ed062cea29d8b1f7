"""Both drawings of a figure on a page: the one for a phone is shown where the page is narrow."""

import base64
from pathlib import Path

import pytest

from llmft.book import phone
from llmft.report import renderings


PAGE = '<svg xmlns="http://www.w3.org/2000/svg" width="640" viewBox="0 0 640 9"><g id="a"/></svg>'
PHONE = '<svg xmlns="http://www.w3.org/2000/svg" width="360" viewBox="0 0 360 9"><g id="b"/></svg>'
WHOLE = renderings.with_phone(PAGE, PHONE)


def test_what_was_put_together_comes_apart() -> None:
    assert phone.apart(WHOLE) == (PAGE, PHONE)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_page_has_both_drawings(tmp_path: Path, as_file: bool) -> None:
    page = tmp_path / "icl.html"
    (tmp_path / "icl_files").mkdir()
    (tmp_path / "icl_files/a b.svg").write_text(WHOLE)
    data = phone.DATA + base64.b64encode(WHOLE.encode()).decode()
    source = "icl_files/a%20b.svg" if as_file else data
    text = phone.finish(f'<head></head><img src="{source}" class="x" alt="A line.">', page)
    assert text.index("<picture><source media=") < text.index('class="phone x" alt="A line."')
    if as_file:
        assert 'srcset="icl_files/a%20b-phone.svg"' in text
        assert (tmp_path / "icl_files/a b.svg").read_text() == PAGE
        assert (tmp_path / "icl_files/a b-phone.svg").read_text() == PHONE
    else:
        for svg in (PAGE, PHONE):
            assert base64.b64encode(svg.encode()).decode() in text


def test_other_images_stay_and_small_drawings_fit(tmp_path: Path) -> None:
    for name, svg in (("wide", PAGE), ("small", PHONE)):
        (tmp_path / f"{name}.svg").write_text(svg)
    images = [f'<img src="{name}">' for name in ("wide.svg", "gone.svg", "https://x.org/small.svg")]
    text = phone.finish("".join([*images, '<img src="small.svg">']), tmp_path / "icl.html")
    assert text == "".join([*images, '<img class="phone" src="small.svg">'])
