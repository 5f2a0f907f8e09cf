"""A headless browser for tests: Qt's Chromium, which comes as a Python package (`pip install -e '.[browser]'`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest


class NoBrowser(RuntimeError):
    """There is none, or it does not start; the message says why."""


def without_browser(reason: NoBrowser) -> NoReturn:
    """End a test that needs a browser: it fails where `SPO_REQUIRE_BROWSER` is set (by make), or is skipped."""
    end = pytest.fail if os.environ.get("SPO_REQUIRE_BROWSER") else pytest.skip
    end(str(reason))


class Browser:
    """A browser in a process of its own; what it is told to do: `tests.browser_child`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def open(self, page: Path) -> float:
        """Load a file; returns the milliseconds until it was on the screen."""
        return self._do(open=str(page.resolve()))

    def run(self, script: str) -> Any:
        """The value of an expression on the page; JSON is made of it there, so that any plain value arrives."""
        return json.loads(self._do(run=f"JSON.stringify(({script}) ?? null)"))

    def press(self, *keys: str) -> None:
        self._do(keys=keys)

    def picture(self, file: Path) -> None:
        self._do(picture=str(file))

    def seen(self) -> dict[str, list[str]]:
        """Requests, console messages and dialogs since the page was opened."""
        return self._do(seen=True)

    def _do(self, **command: Any) -> Any:
        print(json.dumps(command), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline() or '{"error": "the browser ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]


@contextlib.contextmanager
def browser(log: Path, dark: bool = False) -> Iterator[Browser]:
    """Start a browser, and end it.

    Args:
        log: file for what it says.
        dark: tell pages that the system prefers dark colours.

    Raises:
        NoBrowser: it is not installed, or a system library is missing.
    """
    # The sandbox does not start for root, as in a container; what is opened here is our own page.
    flags = ["--no-sandbox", "--disable-gpu", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("browser_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_CHROMIUM_FLAGS": " ".join(flags)},
        )
        try:
            if process.stdout.readline() != '"ready"\n':
                process.wait(timeout=10)
                said = log.read_text().strip().splitlines() or ["it ended without a word"]
                raise NoBrowser(f"no headless browser: {said[-1]} (it comes with pip install -e '.[browser]')")
            yield Browser(process)
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
