"""A real Chromium, driven through its DevTools protocol: just enough to look at pages.

https://chromedevtools.github.io/devtools-protocol. One small websocket library, and the browser
that the machine has; nothing is downloaded.
"""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless --disable-gpu --disable-dev-shm-usage --no-first-run --no-sandbox --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-port=0"
).split()
LOCAL = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

Event = dict[str, Any]


def find() -> str | None:
    """The browser's command: `$CHROMIUM`, or the first of the usual names on PATH."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser, with what has happened to it since it was last sent somewhere."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.events: list[Event] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its answer; events that come before it are kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        self.socket.settimeout(120)
        while True:
            said = json.loads(self.socket.recv())
            if said.get("id") == number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return dict(said["result"])
            self.events.append(said)

    def show(self, url: str, width: int = 1280, scheme: str = "light") -> None:
        """Go to a page as a desktop or, below 600 px, a phone would, and wait until it is quiet."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=media)
        self.events = []
        self.send("Page.navigate", url=url)
        self.settle(until="Page.loadEventFired")

    def settle(self, quiet: float = 0.2, until: str = "", limit: float = 120) -> None:
        """Wait until an event has come and nothing happens any more.

        Nothing for `quiet` seconds while no request is under way, or for ten times as long: of a
        request that is given up, such as a favicon's, no end is reported.
        """
        begun, last = time.monotonic(), time.monotonic()
        while time.monotonic() < begun + limit:
            self.socket.settimeout(quiet)
            try:
                self.events.append(json.loads(self.socket.recv()))
                last = time.monotonic()
            except websocket.WebSocketTimeoutException:
                came = not until or self.of(until)
                if came and (not self._pending() or time.monotonic() > last + 10 * quiet):
                    return
        raise TimeoutError(f"the page did not come to rest within {limit} s")

    def _pending(self) -> set[str]:
        """The requests that have not ended."""
        ends = [*self.of("Network.loadingFinished"), *self.of("Network.loadingFailed")]
        begun = {e["params"]["requestId"] for e in self.of("Network.requestWillBeSent")}
        return begun - {e["params"]["requestId"] for e in ends}

    def of(self, method: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if event.get("method") == method]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise's included."""
        options = {"returnByValue": True, "awaitPromise": True}
        done = self.send("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def mouse(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle(0.1)


@contextmanager
def tab() -> Iterator[Tab]:
    """A browser with one tab, which reaches this machine only; it ends with the block."""
    command = find()
    assert command, "no Chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = subprocess.Popen(
            [command, *FLAGS, LOCAL, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", running)
            address = _page(f"http://127.0.0.1:{port}/json/list")
            socket = websocket.create_connection(address, suppress_origin=True, timeout=60)
            try:
                yield Tab(socket)
            finally:
                socket.close()
        finally:
            running.terminate()
            running.wait(20)


def _port(file: Path, running: "subprocess.Popen[bytes]") -> int:
    for _ in range(300):
        lines = file.read_text().split() if file.is_file() else []
        if len(lines) == 2:
            return int(lines[0])
        if running.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("Chromium did not start")


def _page(tabs: str) -> str:
    for _ in range(100):
        with urlopen(tabs) as answer:
            pages = [tab for tab in json.load(answer) if tab["type"] == "page"]
        if pages:
            return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise RuntimeError("Chromium opened no page")
