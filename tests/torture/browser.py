"""Chromium, driven over its debugging pipe: what it shows, what it asks for, what it complains of.

See https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
WIDE, PHONE = (1360, 900), (390, 844)


class Browser:
    """A browser with one page.

    Args:
        sent: A pipe on which it takes commands.
        received: That of its replies and events.

    Attributes:
        complaints: What it has written to the console, and violations of the page's policy.
        asked: The addresses that it has asked for.
    """

    def __init__(self, sent: int, received: int) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._sent, self._received = sent, received
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._sent, json.dumps(message).encode() + b"\0")
        give_up_at = time.monotonic() + TIMEOUT
        while True:
            found = self._next(give_up_at)
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def open(self, address: str, size: tuple[int, int] = WIDE, theme: str = "light") -> None:
        """Show a page in a window of a size."""
        self.resize(size)
        self.call(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": theme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def resize(self, size: tuple[int, int], scale: float = 1) -> None:
        """Give the window another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=scale,
            mobile=size[0] < 600,
        )

    def value(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str, holds: Callable[[Any], object] = bool) -> Any:
        """Wait until a condition holds for the value of an expression; return the value."""
        give_up_at = time.monotonic() + TIMEOUT
        while not holds(value := self.value(script)):
            assert time.monotonic() < give_up_at, f"{script} is still {value!r}"
            time.sleep(0.05)
        return value

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def picture(self) -> bytes:
        """Return a picture of the whole page, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def _next(self, give_up_at: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select(
                [self._received], [], [], max(0, give_up_at - time.monotonic())
            )
            assert ready, "the browser does not answer"
            data = os.read(self._received, 1 << 20)
            assert data, "the browser is gone"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        facts = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(facts["request"]["url"])
        elif event["method"] == "Runtime.consoleAPICalled":
            self.complaints.append(str(facts["args"]))
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(facts["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded":
            self.complaints.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Give a browser that keeps what it has in a new directory."""
    name = shutil.which("chromium") or shutil.which("google-chrome")
    assert name, "there is no chromium"
    theirs_in, sent = os.pipe()
    received, theirs_out = os.pipe()
    # It reads descriptor 3 and writes 4; the shell puts the pipes there.
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, name, *_FLAGS, f"--user-data-dir={directory}"],
        pass_fds=(theirs_in, theirs_out),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(sent, received)
    finally:
        os.close(sent)
        os.close(received)
        os.killpg(
            process.pid, signal.SIGKILL
        )  # with its helpers, which would write files for a while
        process.wait(TIMEOUT)
