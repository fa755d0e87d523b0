"""A headless Chromium, driven over its debugging pipe: no driver program, no port, no library.

Chromium reads commands of the DevTools protocol from its file descriptor 3 and writes
answers and events to 4, each a JSON object ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

#: where it may be found
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
TIMEOUT = 60.0  # seconds, for one answer


def find() -> str | None:
    """The browser's program, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class ChromiumError(Exception):
    """It answered with an error, not in time, or ended."""


class Chromium:
    """One browser with one page. A context manager: it ends with the block.

    ``problems``: what went wrong in the page since it was opened: errors and warnings on the
    console, exceptions. ``requests``: addresses asked for other than the page's own.
    """

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="k210-chromium-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [*FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"]
        # A shell puts the pipes where Chromium expects them.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.problems: list[str] = []
        self.requests: list[str] = []
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for descriptor in (self._write, self._read):
            os.close(descriptor)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for _ in range(20):  # its helpers may still be writing there
            try:
                self._folder.cleanup()
                break
            except OSError:
                time.sleep(0.1)

    # -- the page ------------------------------------------------------------------------

    def size(self, width: int, height: int = 900, scale: float = 1.0) -> None:
        """The window's size in CSS pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def scheme(self, name: str, media: str = "screen") -> None:
        """The user's preference, "light" or "dark"; ``media``: "screen" or "print"."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self._call("Emulation.setEmulatedMedia", media=media, features=[feature])

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is there."""
        self.problems, self.requests, self._loaded = [], [], False
        url = path.resolve().as_uri()
        answer = self._call("Page.navigate", url=url)
        if "errorText" in answer:
            raise ChromiumError(f"{path}: {answer['errorText']}")
        deadline = time.monotonic() + TIMEOUT
        while not self._loaded:
            self._event(self._message(deadline))
        self.js("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        self.requests = [r for r in self.requests if r != url and not r.startswith("data:")]

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, once it is there."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise ChromiumError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(
        self, path: Path, *, whole: bool = False, selector: str | None = None, margin: int = 0
    ) -> None:
        """The window, the whole page, or the first element that matches, as a PNG."""
        more: dict[str, Any] = {}
        if selector is not None:
            box = self.js(
                f"(r => [r.x + scrollX - {margin}, r.y + scrollY - {margin},"
                f" r.width + {2 * margin}, r.height + {2 * margin}])"
                f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
            )
            more = {"clip": dict(zip(("x", "y", "width", "height"), box, strict=True))}
            more["clip"]["scale"] = 1
        elif whole:
            width, height = self.js("[innerWidth, document.documentElement.scrollHeight]")
            more = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True, **more)
        path.write_bytes(base64.b64decode(answer["data"]))

    # -- the protocol --------------------------------------------------------------------

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + TIMEOUT
        while True:
            answer = self._message(deadline)
            if answer.get("id") != self._number:
                self._event(answer)
                continue
            if "error" in answer:
                raise ChromiumError(f"{method}: {answer['error']}")
            return dict(answer["result"])

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise ChromiumError(f"no answer within {TIMEOUT:.0f} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise ChromiumError("it has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _event(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(told["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(told["args"])[:500])
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.problems.append(told["entry"]["text"])
