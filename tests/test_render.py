import errno
import re
import sys
from pathlib import Path

import pytest

from llmft import UserError
from llmft.book import gate, pages, plain, render
from tests import toy_book
from tests.toy_book import cell, read, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A book whose chapter was not run, with outputs put in by hand."""
    path = toy_book.make(tmp_path / "book")
    notebook = read(path)
    table = {"text/markdown": "| a | b |\n|--|--|\n| 1 | 2 |\n"}
    picture = {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'></svg>"}
    for index, data in ((3, picture), (4, table)):
        notebook["cells"][index]["outputs"] = [
            {"output_type": "display_data", "metadata": {}, "data": data}
        ]
    more = "## Part {#sec-part}\n\nIn @sec-part: $\\hat{y} = \\arg\\max_c p(c)$, \\$5.\n\n"
    more += '::: {.callout-note title="Again"}\nRun `papermill $x @no`.\n:::\n\n'
    more += "The [preface](../index.qmd)."
    notebook["cells"].append(cell("markdown", more))
    notebook["cells"].append(cell("code", "#| echo: false\nhidden = 1"))
    write(path, notebook)
    (tmp_path / "book/data/results/toy.svg").write_text("<svg></svg>")
    return tmp_path / "book"


def test_plain_pages_need_no_network(root: Path) -> None:
    plain.write(root, root / "_book")
    assert (root / "_book" / "index.html").is_file()
    for path in (root / "_book").rglob("*.html"):
        page = path.read_text()
        assert "<script" not in page
        loaded = re.findall(r"<(?:img|link|iframe)[^>]+(?:src|href)=\"(?!data:)([^\"]+)", page)
        loaded += re.findall(r"url\(([^)]+)\)|@import", page)
        assert all("://" not in address for address in loaded)


def test_a_page_may_include_results_and_show_a_stored_figure(root: Path) -> None:
    (root / "data/results/toy.md").write_text("- **It is so.** By 0.5 [0.4, 0.6].\n")
    (root / "data/results/toy.tex").write_text("a table")
    more = (
        "\n{{< include data/results/toy.md >}}\n\nIn @fig-key.\n\n"
        '![A key.](data/results/toy.svg){#fig-key fig-alt="Two lines."}\n\n'
        "A [table](data/results/toy.tex).\n"
    )
    index = root / "index.qmd"
    index.write_text(index.read_text() + more)
    plain.write(root, root / "_book")
    page = (root / "_book/index.html").read_text()
    assert "<strong>It is so.</strong> By 0.5 [0.4, 0.6]." in page
    assert "Figure 1: </strong>A key." in page
    assert '<img src="data/results/toy.svg" alt="Two lines."' in page
    assert "#fig-key" in page
    for name in ("toy.svg", "toy.tex"):
        assert (root / "_book/data/results" / name).is_file()


def test_plain_links_lead_somewhere(root: Path) -> None:
    plain.write(root, root / "_book")
    links_lead_somewhere(root / "_book")


def links_lead_somewhere(book: Path) -> None:
    for path in book.rglob("*.html"):
        page = path.read_text()
        for target in re.findall(r"(?:href|src)=\"(?!data:|http)([^\"]+)\"", page):
            file, _, anchor = target.partition("#")
            there = (path.parent / file) if file else path
            assert there.is_file(), target
            if anchor:
                assert f'id="{anchor}"' in there.read_text(), target


def test_plain_pages_read_like_the_book(root: Path) -> None:
    plain.write(root, root / "_book")
    index = (root / "_book/index.html").read_text()
    assert "<title>Preface – Toy</title>" in index
    assert '<a href="chapters/toy.html">1 A toy</a>' in index
    assert '<a href="chapters/toy.html#fig-line">Figure 1.1</a>' in index
    assert '<a href="chapters/toy.html#sec-toy">Chapter 1</a>' in index
    assert 'Brown et al. (<a href="#ref-brown2020" role="doc-biblioref">2020</a>' in index
    assert "Zhao, Zihao, and Eric Wallace. 2021. <em>Calibrate Before Use</em>." in index
    page = (root / "_book/chapters/toy.html").read_text()
    assert '<figure id="fig-line">' in page
    assert "<strong>Figure 1.1: </strong>A line." in page
    assert 'alt="A diagonal line."' in page
    assert page.count("<table>") == 1
    assert '<strong>Table 1.1: </strong>Runs, see <a href="#eq-a">Equation 1.1</a>.' in page
    assert '<h2 id="sec-part">1.1 Part</h2>' in page
    assert '<a href="#sec-part">Section 1.1</a>' in page
    assert '<a href="../index.html">preface</a>' in page
    assert page.count("<math") == 2
    assert re.search(r'id="eq-a" class="equation"><math.*</math><span>\(1\.1\)</span></span>', page)
    assert '<div class="note">\n<p><strong>Again</strong></p>' in page
    assert "papermill $x @no" in page
    assert "<summary>\nCode\n</summary>" in page
    assert "hidden = 1" not in page
    assert "<code>@nothing</code>" in page
    assert "{#" not in page


def test_references_of_every_form(root: Path) -> None:
    more = (
        "\n\nOf [@fig-line; @tbl-runs], as @sec-other and @sec-more [@zhao2021] say; @sec-toy "
        "[on top], [see @brown2020, p. 2], [left of @fig-line, below]; @gone.\n\n"
        "# Not here {#sec-no .unnumbered}\n\nOf @sec-no."
    )
    index = root / "index.qmd"
    index.write_text(index.read_text() + more)
    toy_book.add_other(root)
    notebook = read(root / "chapters/other.ipynb")
    notebook["cells"].append(cell("markdown", "### Deep {#sec-deep}\n\n## More {#sec-more}"))
    write(root / "chapters/other.ipynb", notebook)
    listing = (root / "_quarto.yml").read_text().replace("    - chapters/other.ipynb\n", "")
    (root / "_quarto.yml").write_text(f"{listing}  appendices: [chapters/other.ipynb]\n")
    plain.write(root, root / "_book")
    text = " ".join(re.sub("<[^>]*>", "", (root / "_book/index.html").read_text()).split())
    assert "Of Figure 1.1, Table 1.1, as Appendix A and Section A.1 (Zhao and Wallace 2021)" in text
    assert "Chapter 1 on top, (see Brown et al. 2020, 2), left of Figure 1.1, below;" in text
    assert "(gone?)." in text
    assert "Of “Not here”." in text
    assert 'href="#ref-gone"' not in (root / "_book/index.html").read_text()


def test_a_chapter_offers_its_files(root: Path) -> None:
    (root / "data/results/toy.csv").write_text("a\n1\n")
    [first], _ = render.render(root, plain=True)
    page = (root / "_book/chapters/toy.html").read_text()
    for file in ("chapters/toy.ipynb", "data/results/toy.csv"):
        assert f'<a href="../{file}" download>' in page
        assert (root / "_book" / file).read_bytes() == (root / file).read_bytes()
    assert "toy.parquet" not in page
    assert "downloads" not in first.read_text().partition("<body>")[2]
    assert not (root / "_book/vega.js").exists()  # no figure asks for it


@pytest.fixture
def here(root: Path, tmp_path: Path) -> Path:
    """What a run of one of the book's two chapters on this machine left."""
    toy_book.add_other(root)
    (root / "data/results/toy.csv").write_text("published\n")
    (root / "data/results/toy.parquet").write_text("published\n")
    folder = tmp_path / "build" / "here"
    folder.mkdir(parents=True)
    notebook = read(root / "chapters/toy.ipynb")
    table = notebook["cells"][4]["outputs"][0]["data"]
    table["text/markdown"] = table["text/markdown"].replace("| 2 |", "| 77 |")
    given = cell("code", 'studies = ["<b>mine"]', tags=["injected-parameters", "remove-cell"])
    notebook["cells"].insert(2, given)
    about = {"device": "<A> processor", "date": "2026-11-28T23:20:00+00:00", "seconds": 61.4}
    notebook["metadata"]["llmft"] = about
    write(folder / "toy.ipynb", notebook)
    (folder / "toy.csv").write_text("here\n")
    return folder


def test_the_book_of_this_machine_stands_beside_the_published_one(root: Path, here: Path) -> None:
    render.render(root, plain=True)
    published = {p.relative_to(root): p.read_bytes() for p in (root / "_book").rglob("*.*")}
    pages, _ = render.render(root, plain=True, folders=[here])
    assert pages == [root / "_book/index.html", root / "_book/here/index.html"]
    assert published == {
        p.relative_to(root): p.read_bytes()
        for p in (root / "_book").rglob("*.*")
        if not p.is_relative_to(root / "_book/here")
    }
    links_lead_somewhere(root / "_book")
    index, toy, other = (
        (root / f"_book/here/{page}.html").read_text()
        for page in ("index", "chapters/toy", "chapters/other")
    )
    assert "<td>77</td>" in toy
    assert "numbers (&lt;A&gt; processor, 2026-11-28)." in toy.partition("<h1")[0]
    assert '<a href="../../chapters/toy.html">The published page</a>' in toy.partition("<h1")[0]
    assert '<a href="../index.html">The published page</a>' in index.partition("<h1")[0]
    assert "As published: this chapter was not run" in other.partition("<h1")[0]
    assert "studies: &lt;b&gt;mine" in index
    assert (root / "_book/here/chapters/toy.ipynb").read_bytes() == (
        here / "toy.ipynb"
    ).read_bytes()
    assert (root / "_book/here/data/results/toy.csv").read_text() == "here\n"
    assert "toy.parquet" not in toy
    assert not [p for p in root.iterdir() if p.name.startswith("_book.")]


def test_its_first_page_says_what_the_comparison_found(root: Path, here: Path) -> None:
    (root / "chapters/other.ipynb").rename(root / "chapters/comparison.ipynb")
    listing = (root / "_quarto.yml").read_text().replace("other", "comparison")
    (root / "_quarto.yml").write_text(listing)
    (root / "data/results/comparison.md").write_text("- **As published.**\n")
    notebook = read(root / "chapters/comparison.ipynb")
    notebook["metadata"]["llmft"] = read(here / "toy.ipynb")["metadata"]["llmft"]
    write(here / "comparison.ipynb", notebook)
    (here / "comparison.md").write_text("- **As found here.** See @sec-toy.\n")
    (here / "comparison.svg").write_text("<svg></svg>")
    render.render(root, plain=True, folders=[here])
    page = (root / "_book/here/index.html").read_text()
    assert "<strong>As found here.</strong> See <a" in page
    assert "As published." not in page
    assert '<img src="data/results/comparison.svg"' in page
    links_lead_somewhere(root / "_book/here")


def fake_quarto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A `quarto` on PATH that says what the real one says."""
    command = tmp_path / "bin" / "quarto"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")


def test_quarto_renders_without_executing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo "$@" > {tmp_path}/said; cd "$2"; mkdir -p "$7"; echo new > "$7/index.html"'
    fake_quarto(tmp_path, monkeypatch, script)
    [page], how = render.render(root)
    assert page == root / "_book" / "index.html"
    assert page.read_text() == "new\n"
    assert not list(root.glob("_book.*"))
    assert "quarto" in how
    assert "--no-execute" in (tmp_path / "said").read_text()


def test_quarto_renders_each_format_beside_the_others(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (root / "_quarto.yml").open("a") as file:
        file.write("format:\n  html: default\n  typst: default\n")
    script = f'echo "$5 $8" >> {tmp_path}/said; cd "$2"; mkdir -p "$7"; echo > "$7/index.html"'
    fake_quarto(tmp_path, monkeypatch, script)
    render.render(root)
    assert (tmp_path / "said").read_text() == "html --no-clean\ntypst --no-clean\n"


def test_a_pdf_that_fails_leaves_the_pages(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (root / "_quarto.yml").open("a") as file:
        file.write("format:\n  html: default\n  typst: default\n")
    script = '[ "$5" = html ] || { echo "error: unknown symbol" >&2; exit 1; }\n'
    fake_quarto(tmp_path, monkeypatch, script + 'cd "$2"; mkdir -p "$7"; echo > "$7/index.html"')
    render.render(root)
    assert "the pages are made, but not typst: quarto render failed" in capsys.readouterr().err


ALL_PAGES = """cd "$2"; mkdir -p "$7/chapters"; for page in index.qmd chapters/*.ipynb; do
(echo '<html><main class="content" id="main">'; cat "$page"; echo '</main></html>') \
    > "$7/${page%.*}.html"; done"""


def test_quarto_renders_the_book_of_this_machine_by_itself(
    root: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_quarto(tmp_path, monkeypatch, f'pwd >> {tmp_path}/at; echo "$@" >&2; {ALL_PAGES}')
    render.render(root, folders=[here])
    assert (
        '<main class="content" id="main">\n---\ntitle: Preface'
        in (root / "_book/index.html").read_text()
    )
    index = (root / "_book/here/index.html").read_text()
    assert re.search(r"<main [^>]*><p style[^\n]*</p>\n# Run on this machine", index)
    assert "| 77 |" in (root / "_book/here/chapters/toy.html").read_text()
    assert "| 77 |" not in (root / "_book/chapters/toy.html").read_text()
    published, own = (tmp_path / "at").read_text().splitlines()
    assert published == str(root)
    assert not Path(own).is_relative_to(root)
    assert not Path(own).exists()


def test_what_is_wrong_with_the_book_of_this_machine_is_said_of_it(
    root: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render.render(root, plain=True)
    before = {file: file.read_bytes() for file in (root / "_book").rglob("*.html")}

    def wrong(words: str, *folders: Path) -> None:
        with pytest.raises(UserError, match=words) as caught:
            render.render(root, plain=True, folders=folders)
        assert "\n" not in str(caught.value)
        assert before == {file: file.read_bytes() for file in (root / "_book").rglob("*.html")}

    wrong("nowhere has no chapter: `llmft run --out .*nowhere` runs them", tmp_path / "nowhere")
    wrong("_book/ has another here: rename the folder", here, here)
    wrong("_book/ has another chapters", here.rename(here.parent / "chapters"))
    here = (here.parent / "chapters").rename(here)
    (here / "toy.ipynb").write_bytes((root / "chapters/toy.ipynb").read_bytes())
    wrong("toy.ipynb has no stamp: `llmft run toy --out", here)
    (here / "toy.ipynb").write_text("{")
    wrong("toy.ipynb is not a notebook", here)


def test_a_warning_about_the_book_of_this_machine_names_its_folder(
    root: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warns = f'if [ "$2" != "{root}" ]; then echo "WARN: unable to resolve @fig-x"; fi; {ALL_PAGES}'
    fake_quarto(tmp_path, monkeypatch, warns)
    with pytest.raises(UserError, match=rf"{here}: quarto render warns: .*@fig-x"):
        render.render(root, folders=[here])
    assert not list(root.glob("_book*"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'WARN: icl.ipynb: Unable to resolve crossref @fig-x' >&2", "crossref @fig-x"),
        ("echo '[WARNING] Citeproc: citation smith not found' >&2", "citation smith"),
        ("echo 'ERROR: bad yaml' >&2; exit 1", "bad yaml"),
        ("true", "wrote no index.html"),
    ],
)
def test_what_quarto_says_is_an_error_and_leaves_the_book(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    render.render(root, plain=True)
    before = {file: file.read_bytes() for file in (root / "_book").rglob("*.html")}
    fake_quarto(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match=words):
        render.render(root)
    assert before == {file: file.read_bytes() for file in (root / "_book").rglob("*.html")}
    assert not list(root.glob("_book.*"))


@pytest.mark.parametrize("full", ["write", "finish"])
def test_a_full_disk_leaves_the_book(
    root: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    render.render(root, plain=True)
    before = {file: file.read_bytes() for file in (root / "_book").rglob("*.html")}

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "page.html")

    monkeypatch.setattr(plain if full == "write" else pages, full, write)
    with pytest.raises(UserError, match=r"No space left .* is as it was: make room") as caught:
        render.render(root, plain=True)
    assert "\n" not in str(caught.value)
    assert before == {file: file.read_bytes() for file in (root / "_book").rglob("*.html")}


def test_a_folder_that_may_not_be_written_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system", str(root))

    monkeypatch.setattr(render.tempfile, "mkdtemp", refuse)
    with pytest.raises(UserError, match="Read-only file system"):
        render.render(root, plain=True)


def test_without_quarto_there_are_pages_and_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "find", lambda: None)
    [page], how = render.render(root)
    assert page.is_file()
    assert f"install it (version {render.QUARTO}: https://quarto.org" in how
    assert "\n" not in how


def test_without_pandoc_the_way_out_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypandoc", None)
    with pytest.raises(UserError, match=r"needs Quarto, or pandoc: `pip install") as caught:
        render.render(root, plain=True)
    assert "\n" not in str(caught.value)
    assert not list(root.glob("_book*"))


def test_what_pandoc_cannot_read_is_one_line(root: Path) -> None:
    (root / "index.qmd").write_text("---\ntitle: [\n---\n\n# Preface\n")
    with pytest.raises(UserError, match=r"pandoc failed: .*YAML") as caught:
        render.render(root, plain=True)
    assert "\n" not in str(caught.value)


def test_every_entry_of_the_bibliography_can_be_cited(root: Path) -> None:
    entries = (gate.ROOT / "references.bib").read_text()
    keys = re.findall(r"(?m)^@\w+\{([^,]+),", entries)
    (root / "references.bib").write_text(entries + toy_book.BIBLIOGRAPHY.replace("{", "{x", 1))
    index = root / "index.qmd"
    index.write_text(f"{index.read_text()}\n[{'; '.join('@' + key for key in keys)}]\n")
    plain.write(root, root / "_book")
    page = (root / "_book/index.html").read_text()
    assert len(keys) > 30
    for key in keys:
        assert f'<div id="ref-{key}" class="csl-entry"' in page
    assert "Schick and Schütze 2021" in page
    references = page.partition('<div id="refs"')[2].partition("</main>")[0]
    assert not re.search(r"[\\{}]", references)
