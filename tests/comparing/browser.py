"""A real browser on one page, told what to do through its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

KEYS = {"Tab": 9, "Enter": 13}
SECONDS = 60
"""The longest that the browser is waited for."""


class Browser:
    """Debian's chromium, headless.

    Args:
        page: the file that it opens.
        profile: a folder for its own files.
        wide: of its window, in pixels.
        dark: whether its reader likes dark pages.

    Attributes:
        messages: what was written to its console, and exceptions.
    """

    def __init__(self, page: Path, profile: Path, *, wide: int = 1200, dark: bool = False) -> None:
        self.messages: list[str] = []
        self.count, self.rest = 0, b""
        read, to = os.pipe()
        self.answers, write = os.pipe()
        self.asks = to
        command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"),
        ]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *command],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read), os.close(write)
        self.session: str | None = None
        try:
            self._open(page, wide, dark)
        except BaseException:
            self.close()
            raise

    def _open(self, page: Path, wide: int, dark: bool) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": wide, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        likes = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[likes])
        self.call("Page.navigate", url=f"file://{page}")
        self.until("document.readyState === 'complete' && !!document.getElementById('content')")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something, and wait until it is done."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.asks, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return dict(answer["result"])
            if answer.get("method") in (
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
                "Log.entryAdded",
            ):
                self.messages.append(json.dumps(answer["params"]))

    def value(self, script: str) -> Any:
        """What an expression gives."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true, at most ten seconds of the page's time."""
        waiting = (
            "new Promise((done, fail) => { let n = 0; const look = () => { "
            f"if ({script}) done(true);"
            " else if (++n > 200) fail('waited too long'); else setTimeout(look, 50); }; look(); })"
        )
        done = self.call("Runtime.evaluate", expression=waiting, awaitPromise=True)
        assert "exceptionDetails" not in done, script

    def press(self, key: str) -> None:
        """A key of the keyboard."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.answers], [], [], SECONDS)[0], "the browser says nothing"
            more = os.read(self.answers, 2**16)
            assert more, "the browser has ended"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(message))

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        self.process.wait(timeout=SECONDS)
        os.close(self.asks), os.close(self.answers)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
