"""A headless Chromium driven over its debugging pipe (two file descriptors, no socket, no dependency), and what it saw go wrong."""

from __future__ import annotations

import base64
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
)


class Browser:
    """One tab. `errors` are uncaught exceptions and console errors of the page, `requests` the addresses that it asked for."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._count = write, read, b"", 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        return self._call(method, self._session, **params)

    def _call(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._count += 1
        sent = {"id": self._count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(sent).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._count:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            got = os.read(self._read, 1 << 20)
            assert got, "the browser is gone"
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _note(self, message: Any) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:600])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.01)

    def open(self, file: Path, width: int = 1280, height: int = 900, *, mark: str = "", dark: bool = False) -> None:
        """A page, and everything on it ready."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        look = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=look)
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=file.as_uri() + mark)
        self.wait("document.documentElement?.dataset.transcripts !== undefined")

    def click(self, css: str) -> None:
        """A click of the mouse in the middle of the first element that fits, scrolled to where it can be seen."""
        # Again until it stays where it is: what comes into view may be laid out only then, and move the rest.
        spot = f"""(async () => {{
            for (let i = 0, last = NaN; i < 60; i++) {{
                const found = document.querySelector({json.dumps(css)});
                found.scrollIntoView({{block: "center", behavior: "instant"}});
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                const box = found.getClientRects()[0];
                if (!box) continue;  // Not laid out yet, or no longer: a list may be written anew meanwhile.
                const x = box.x + box.width / 2, y = box.y + box.height / 2;
                if (y === last && found.contains(document.elementFromPoint(x, y))) return [x, y];
                last = y;
            }}
            throw new Error("it does not stay in view: " + {json.dumps(css)});
        }})()"""
        x, y = self.run(spot)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def text(self) -> str:
        """All text of the page but scripts: what can be read, found, copied or printed, on the screen or off it."""
        copy = "const copy = document.body.cloneNode(true); copy.querySelectorAll('script').forEach((s) => s.remove());"
        return str(self.run(f"(() => {{ {copy} return copy.textContent; }})()"))

    def shoot(self, out: Path, css: str = "body", most: int = 4000) -> None:
        """A picture of one element."""
        box = self.run(
            f"(() => {{ const b = document.querySelector({json.dumps(css)}).getBoundingClientRect();"
            "return [b.x + scrollX, b.y + scrollY, b.width, b.height]; })()"
        )
        clip = {"x": box[0], "y": box[1], "width": box[2], "height": min(box[3], most), "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()

    def place() -> None:
        os.dup2(to_read, 3)
        os.dup2(to_write, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The pipe's ends may not be 3 and 4 themselves before they are put there.
        moved = [os.dup(fd) for fd in (to_read, to_write)]
        to_read, to_write = moved
        process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={profile}"],
            preexec_fn=place, close_fds=True, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Browser(write, read)
        finally:
            process.terminate()
            process.wait(timeout=20)
            for fd in (write, read):
                os.close(fd)
