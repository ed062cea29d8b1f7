"""A Hugging Face Hub on the loopback device: enough of its HTTP API for the real clients.

It serves repositories from memory the way the Hub does: a listing with checksums, small files in
place, large ones by a redirect to a "CDN" that understands ranges, errors with their codes in a
header. Faults (too many requests, a transfer that breaks) can be ordered for a path. Every request
is logged, so a test can say what was and what was not transferred.
"""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


LARGE = (".bin", ".safetensors", ".parquet", ".msgpack")
"""What lies in large-file storage."""


@dataclass
class Repository:
    """Files of one commit; `gated` and `private` answer as the Hub does without a token."""

    commit: str
    files: dict[str, bytes]
    refs: tuple[str, ...] = ("main",)
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False


@dataclass
class Hub:
    """A running server: `url`, what it serves, and what was asked of it."""

    url: str
    repositories: dict[str, Repository]  # "models/facebook/opt-125m", "datasets/nyu-mll/glue"
    elsewhere: dict[str, bytes]  # other paths, such as a file on another site
    faults: dict[str, list[str]]  # by the end of a path: "429", "503" or "break", used up in turn
    log: list[tuple[str, str, int, str]]  # method, path, status, range
    wrong: set[str] = field(default_factory=set)  # names whose content is not what is listed

    @property
    def cdn(self) -> str:
        """On another host, as the Hub's: the clients must not look for the Hub's headers there."""
        return self.url.replace("127.0.0.1", "localhost") + "/cdn"

    def transfers(self, name: str) -> list[tuple[int, str]]:
        """Status and range of each GET that brought bytes of files whose path ends with `name`."""
        return [
            (status, ranged)
            for method, path, status, ranged in self.log
            if method == "GET" and path.endswith(name) and status in (200, 206)
        ]


@contextmanager
def serve(
    repositories: dict[str, Repository], elsewhere: dict[str, bytes] | None = None
) -> Iterator[Hub]:
    """A hub that runs until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_port}"
    hub = Hub(url, repositories, elsewhere or {}, defaultdict(list), [])
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git_hash(content: bytes) -> str:
    """A file's name in git's object store."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in a listing."""
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    found["oid"] = git_hash(content)
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        path = unquote(parts.path).strip("/")
        fault = next((f for end, f in self.hub.faults.items() if f and path.endswith(end)), None)
        if fault and self.command == "GET" and fault[0] != "break":
            status = int(fault.pop(0))
            headers = {"Retry-After": "0"} if status == 429 else {}
            return self.answer(b"", status, headers)
        if path in self.hub.elsewhere:
            return self.answer(self.hub.elsewhere[path])
        words = path.split("/")
        if words[0] == "cdn":
            return self.large(words[1], words[-1], fault)
        if words[0] == "api" and len(words) >= 4:
            return self.api("/".join(words[1:4]), words[4:], body, parse_qs(parts.query))
        if "resolve" in words:
            at = words.index("resolve")
            kind = [] if words[0] in ("datasets", "spaces") else ["models"]
            return self.resolve("/".join(kind + words[:at]), "/".join(words[at + 1 :]))
        return self.failed(404, "EntryNotFound")

    do_HEAD = do_GET  # noqa: N815
    do_POST = do_GET  # noqa: N815

    def api(self, name: str, rest: list[str], body: bytes, query: dict[str, list[str]]) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:  # the Hub does not tell a private one from none
            return self.failed(401, "RepoNotFound")
        verb = rest[0] if rest else "revision"
        known = [*repository.refs, repository.commit]
        revision = "/".join(rest[1:]) or "main"
        found = next((r for r in known if revision == r or revision.startswith(f"{r}/")), None)
        if found is None:
            return self.failed(404, "RevisionNotFound")
        inside = revision.removeprefix(found).strip("/")
        listed = [entry(path, content) for path, content in sorted(repository.files.items())]
        if verb == "revision":
            return self.json(
                {
                    "_id": "0",
                    "id": name.partition("/")[2],
                    "sha": repository.commit,
                    "private": False,
                    "gated": "manual" if repository.gated else False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "lastModified": "2024-01-01T00:00:00.000Z",
                    "createdAt": "2024-01-01T00:00:00.000Z",
                    "cardData": repository.card,
                    "siblings": [{"rfilename": item["path"]} for item in listed],
                }
            )
        folders = {p.rpartition("/")[0] for p in repository.files if "/" in p}
        listed += [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders]
        if verb == "tree":
            below = f"{inside}/" if inside else ""
            deep = query.get("recursive", [""])[0].lower() in ("true", "1")
            here = [e for e in listed if e["path"].startswith(below) and e["path"] != inside]
            if not deep:
                here = [e for e in here if "/" not in e["path"][len(below) :]]
            if below and not here:
                return self.failed(404, "EntryNotFound")
            return self.json(here)
        if verb == "paths-info":
            try:
                asked = json.loads(body)["paths"]
            except ValueError:
                asked = parse_qs(body.decode())["paths"]
            return self.json([e for e in listed if e["path"] in asked])
        return self.failed(404, "EntryNotFound")

    def resolve(self, name: str, rest: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.failed(401, "RepoNotFound")
        if repository.gated:
            return self.failed(403 if "Authorization" in self.headers else 401, "GatedRepo")
        known = [*repository.refs, repository.commit]
        revision = next((r for r in known if rest.startswith(f"{r}/")), None)
        if revision is None:
            return self.failed(404, "RevisionNotFound")
        path = rest[len(revision) + 1 :]
        if path not in repository.files:
            return self.failed(404, "EntryNotFound")
        content = repository.files[path]
        item, headers = entry(path, content), {"X-Repo-Commit": repository.commit}
        if "lfs" not in item:
            return self.answer(content, 200, headers | {"ETag": f'"{item["oid"]}"'})
        sha256, file = item["lfs"]["oid"], path.rpartition("/")[2]
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
        return self.answer(b"", 302, headers | {"Location": f"{self.hub.cdn}/{sha256}/{file}"})

    def large(self, sha256: str, name: str, fault: list[str] | None) -> None:
        everything = [c for r in self.hub.repositories.values() for c in r.files.values()]
        content = next(c for c in everything if hashlib.sha256(c).hexdigest() == sha256)
        if name in self.hub.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        ranged, total = self.headers.get("Range", ""), len(content)
        start = int(ranged.removeprefix("bytes=").split("-")[0]) if ranged else 0
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        broken = self.command == "GET" and bool(fault) and fault.pop(0) == "break"  # type: ignore[union-attr]
        self.answer(content[start:], 206 if ranged else 200, headers, broken=broken)

    def json(self, value: Any) -> None:
        self.answer(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def failed(self, status: int, code: str) -> None:
        self.answer(b"", status, {"X-Error-Code": code, "X-Error-Message": code})

    def answer(
        self,
        content: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        *,
        broken: bool = False,
    ) -> None:
        """Send it; `broken` promises all of it, sends half, and hangs up."""
        self.hub.log.append((self.command, self.path, status, self.headers.get("Range", "")))
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if broken else content)
        if broken:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
