"""Look at the rendered book as a reader would: every page in a real Chromium, on a desktop and on a
phone, in light and in dark.

    python -m tests.site [FOLDER [BASE]]      # _book/ unless another is named; served at /BASE/

A line a problem, and exit status 1 when there is one: console errors, requests to another host,
what cannot be loaded, links and anchors that lead nowhere, what is wider than its column without a
scroll box of its own, images without alt text, headings out of order, text of too little contrast,
a dark theme that stays light. `tests/site.js` is what is asked of a page.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from tests import chromium


SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
TWO_VIEWS = [(1280, "light"), (390, "dark")]
"""Each width and each theme once, in half the time."""


class Quiet(SimpleHTTPRequestHandler):
    """The folder's files under a base, as a project's pages are published, without a word."""

    def __init__(self, *args: Any, base: str = "/", **options: Any) -> None:
        self.base = base
        super().__init__(*args, **options)

    def translate_path(self, path: str) -> str:
        """The file of an address; none outside the base."""
        inside = path.startswith(self.base)
        return super().translate_path(f"/{path[len(self.base) :]}" if inside else "/outside")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextmanager
def served(folder: Path, base: str = "/") -> Iterator[str]:
    """The address at which this machine, and no other, gets the folder."""
    handler = partial(Quiet, directory=str(folder), base=base)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{base}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Seen:
    """One page: what is wrong with it, in which views, and what it holds."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


def look(
    folder: Path, base: str = "/", views: Sequence[tuple[int, str]] = VIEWS
) -> dict[str, Seen]:
    """See every page of the folder in these views; page -> what was seen."""
    pages = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.html"))
    pages = [p for p in pages if not p.startswith("site_libs/")]
    found = {page: Seen() for page in pages}
    with served(folder, base) as address, chromium.tab() as tab:
        for page, seen in found.items():
            for width, scheme in views:
                tab.show(address + page, width, scheme)
                made = tab.run(SCRIPT)
                lines = [*made["wrong"], *_events(tab, address)]
                if made["dark"] != (scheme == "dark"):
                    lines.append(f"is not {scheme}")
                for line in lines:
                    seen.wrong.setdefault(line, []).append(f"{width} {scheme}")
                seen.ids |= set(made["ids"])
                seen.links = made["links"]
        for seen in found.values():
            for line in _links(seen.links, address, folder, found):
                seen.wrong[line] = []
    return found


def _events(tab: chromium.Tab, address: str) -> list[str]:
    """What went wrong while the page was loaded."""
    lines = []
    for event in tab.of("Network.requestWillBeSent"):
        url = event["params"]["request"]["url"]
        if not url.startswith((address, "data:", "blob:", "about:")):
            lines.append(f"requests {url}")
    for event in tab.of("Network.responseReceived"):
        answer = event["params"]["response"]
        if answer["status"] >= 400:
            lines.append(f"{answer['status']} for {answer['url'].removeprefix(address)}")
    for event in tab.of("Runtime.exceptionThrown"):
        details = event["params"]["exceptionDetails"]
        thrown = details.get("exception", {}).get("description", details["text"])
        lines.append(f"exception: {thrown.splitlines()[0]}")
    for event in tab.of("Runtime.consoleAPICalled"):
        if event["params"]["type"] in ("error", "assert"):
            words = [str(a.get("value", a.get("description"))) for a in event["params"]["args"]]
            lines.append(f"console: {' '.join(words)}")
    for event in tab.of("Log.entryAdded"):
        entry = event["params"]["entry"]
        if entry["level"] == "error" and entry["source"] != "network":  # these are said above
            lines.append(f"console: {entry['text']}")
    return lines


def _links(links: list[str], address: str, folder: Path, pages: dict[str, Seen]) -> Iterator[str]:
    """The links within the site that lead nowhere."""
    for link in dict.fromkeys(links):
        if not link.startswith(address):
            if urlsplit(link).hostname == "127.0.0.1" or link.startswith("file:"):
                yield f"links to {link}"
            continue
        path, anchor = urldefrag(unquote(link.removeprefix(address)))
        path = path.partition("?")[0]
        page = f"{path}index.html" if path == "" or path.endswith("/") else path
        if not (folder / page).is_file():
            yield f"links to {page}, which does not exist"
        elif anchor and page in pages and anchor not in pages[page].ids:
            yield f"links to {page}#{anchor}, which does not exist"


def problems(found: dict[str, Seen]) -> list[str]:
    """A line a problem."""
    lines = []
    for page, seen in found.items():
        for what, views in seen.wrong.items():
            where = "" if len(views) in (0, len(VIEWS)) else f" [{', '.join(views)}]"
            lines.append(f"{page}{where}: {what}")
    return lines


def main() -> int:
    """Look at the folder that the command line names."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "_book")
    if not folder.is_dir():
        print(f"no folder {folder}: render the book first, `llmft render`", file=sys.stderr)
        return 1
    if not chromium.find():
        print("no Chromium on PATH, nor in $CHROMIUM: nothing was looked at", file=sys.stderr)
        return 1
    base = sys.argv[2].strip("/") if len(sys.argv) > 2 else ""
    found = look(folder.resolve(), f"/{base}/" if base else "/")
    lines = problems(found)
    print(f"{len(found)} pages in {len(VIEWS)} views, {len(lines)} problems")
    print("\n".join(lines))
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
