"""A headless Chromium that knows no host, driven over its DevTools protocol by two pipes: nothing to install."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START = "import os, sys; [os.dup2(int(sys.argv[k]), k + 2) for k in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
"""Chromium reads commands from descriptor 3 and answers on 4."""
PATIENCE = 30.0
"""Seconds for what a page is expected to do."""


class Chromium:
    """One page. `errors` are exceptions of its programs, `requests` the addresses that it asked for."""

    def __init__(self, profile: Path) -> None:
        (theirs, out), (back, ours) = os.pipe(), os.pipe()
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(theirs), str(ours), str(PROGRAM), *options], pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs), os.close(ours)
        self.commands, self.answers = os.fdopen(out, "wb", 0), os.fdopen(back, "rb")
        self.session, self.count = "", 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Network"):
            self(f"{part}.enable")

    def __call__(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol, and its result."""
        self.count += 1
        command = {"id": self.count, "method": method, "params": parameters}
        command |= {"sessionId": self.session} if self.session else {}
        self.commands.write(json.dumps(command).encode() + b"\0")
        while (answer := self._answer()).get("id") != self.count:
            told = answer.get("params", {})
            if answer["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(told["exceptionDetails"])[:1000])
            if answer["method"] == "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
        assert "error" not in answer, answer
        return answer["result"]

    def _answer(self) -> Any:
        text = b""
        while not text.endswith(b"\0"):
            byte = self.answers.read(1)
            assert byte, "Chromium has ended"
            text += byte
        return json.loads(text[:-1])

    def __getitem__(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression as soon as it is a true one."""
        end = time.monotonic() + PATIENCE
        while not (value := self[expression]):
            assert time.monotonic() < end, f"{expression} stays {value}; {self.errors}"
            time.sleep(0.05)
        return value

    def open(self, path: Path, fragment: str = "", width: int = 1200, height: int = 900) -> None:
        self.errors.clear(), self.requests.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self("Page.navigate", url="about:blank")
        self("Page.navigate", url=path.as_uri() + fragment)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def place(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """A point inside an element, which is brought into view."""
        box = f"document.querySelector({json.dumps(selector)})"
        self[f"{box}.scrollIntoView({{block: 'center'}})"]
        x, y, width, height = self[
            f"(({{x, y, width, height}}) => [x, y, width, height])({box}.getBoundingClientRect())"
        ]
        return x + across * width, y + down * height

    def mouse(self, kind: str, at: tuple[float, float], **more: Any) -> None:
        self("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **more)

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        at = self.place(selector, across, down)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, at, button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mouseMoved", start)
        self.mouse("mousePressed", start, button="left", buttons=1, clickCount=1)
        for share in (0.25, 0.5, 0.75, 1):
            at = tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", at, button="left", buttons=1)
        self.mouse("mouseReleased", end, button="left", clickCount=1)

    def choose(self, selector: str, value: str) -> None:
        """An option of a select."""
        box = f"document.querySelector({json.dumps(selector)})"
        self[f"({box}.value = {json.dumps(value)}, {box}.dispatchEvent(new Event('change')))"]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self("Browser.close")
        self.process.wait(PATIENCE)
