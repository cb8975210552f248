"""Chromium, driven by its DevTools protocol over a pipe."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from serving import wait_until

# bash gives Chromium the two ends of the pipes by the numbers that it expects.
START = 'exec "${@:3}" 3<&"$1" 4>&"$2"'


@dataclass
class Browser:
    """`console` has what the pages printed, and what they were refused."""

    requests: BinaryIO
    responses: BinaryIO
    number: int = 0
    console: list[str] = field(default_factory=list)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        self.requests.write(json.dumps(message).encode() + b"\0")
        self.requests.flush()
        while (answer := self.read()).get("id") != self.number:
            if answer.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}:
                self.console.append(json.dumps(answer["params"]))
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def read(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\0"):
            part = self.responses.read(1)
            assert part, "the browser has gone"
            data += part
        answer: dict[str, Any] = json.loads(data[:-1])
        return answer

    def open(self, url: str) -> str:
        """Return the session of a new page."""
        return self.attach(self.call("Target.createTarget", url=url)["targetId"])

    def attach(self, target: str) -> str:
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        session: str = found["sessionId"]
        for domain in ("Log", "Runtime", "Page"):
            self.call(f"{domain}.enable", session)
        return session

    def popup(self, url: str) -> str:
        """Wait for a page whose address starts so. Returns its session."""
        found: list[str] = []

        def look() -> bool:
            targets = self.call("Target.getTargets")["targetInfos"]
            found[:] = [each["targetId"] for each in targets if each["url"].startswith(url)]
            return bool(found)

        wait_until(look, lambda: self.console)
        return self.attach(found[0])

    def run(self, session: str, script: str) -> Any:
        """Evaluate JavaScript as after a click, which may open windows."""
        options = {"returnByValue": True, "userGesture": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", session, expression=script, **options)
        return found["result"].get("value")

    def wait(self, session: str, script: str) -> Any:
        """Wait until the value of an expression is true."""
        wait_until(lambda: bool(self.run(session, script)), lambda: (script, self.console))
        return self.run(session, script)

    def click(self, session: str, selector: str) -> None:
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait(session, f"!!{element}")
        self.run(session, f"{element}.click()")


@contextmanager
def browse(directory: Path) -> Iterator[Browser]:
    """Start a browser that reaches 127.0.0.1 only."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Debian's package chromium")
    theirs, ours = os.pipe()
    answers, written = os.pipe()
    options = [
        "--headless",
        "--no-sandbox",  # which root cannot have
        "--remote-debugging-pipe",
        f"--user-data-dir={directory / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    command = ["bash", "-c", START, "bash", str(theirs), str(written), chromium, *options]
    with (
        subprocess.Popen(
            command, pass_fds=(theirs, written), stderr=subprocess.DEVNULL
        ) as process,
        os.fdopen(ours, "wb") as requests,
        os.fdopen(answers, "rb") as responses,
    ):
        os.close(theirs)
        os.close(written)
        browser = Browser(requests, responses)
        try:
            yield browser
            browser.call("Browser.close")
        finally:
            process.terminate()
