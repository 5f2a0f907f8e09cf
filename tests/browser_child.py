"""A headless browser (Qt's Chromium) that obeys JSON lines: what `tests.browser` starts. Imports nothing of ours.

{"open": FILE}              -> the milliseconds until the page was loaded
{"run": JAVASCRIPT}         -> its value
{"keys": [KEY, ...]}        -> presses real keys, such as "Down", "Shift+N" or "/"
{"picture": FILE}           -> saves what the window shows
{"seen": true}              -> requests, console messages and dialogs so far
"""

from __future__ import annotations

import json
import os
import sys
import time

from PySide6.QtCore import QEventLoop, QTimer, QUrl
from PySide6.QtGui import QKeySequence
from PySide6.QtTest import QTest
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineUrlRequestInterceptor
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

SECONDS = 60
seen: dict[str, list[str]] = {"requests": [], "console": [], "dialogs": []}


#: So that one knows when the page has dealt with a key; Shift alone is none.
COUNT_KEYS = """window.released = 0;
addEventListener("keyup", (event) => { window.released += event.key !== "Shift"; }, true); 1"""


class Requests(QWebEngineUrlRequestInterceptor):
    def interceptRequest(self, info):
        seen["requests"].append(info.requestUrl().toString())


class Page(QWebEnginePage):
    def javaScriptConsoleMessage(self, level, message, line, source):
        seen["console"].append(f"{level.name}: {message}")

    def javaScriptAlert(self, url, message):
        seen["dialogs"].append(message)

    def javaScriptConfirm(self, url, message):
        seen["dialogs"].append(message)
        return False


def wait_for(connect) -> object:
    """What a callback gets."""
    loop, got = QEventLoop(), []
    QTimer.singleShot(SECONDS * 1000, loop.quit)
    connect(lambda value=None: (got.append(value), loop.quit()))
    loop.exec()
    if not got:
        raise TimeoutError(f"no answer after {SECONDS} s")
    return got[0]


def wait_until(page: QWebEnginePage, condition: str) -> None:
    """Until an expression on the page is true."""
    started = time.monotonic()
    while not wait_for(lambda done: page.runJavaScript(condition, done)):
        if time.monotonic() - started > SECONDS:
            raise TimeoutError(f"{condition} was not true after {SECONDS} s")
        QTest.qWait(5)


def obey(view: QWebEngineView, command: dict) -> object:
    page = view.page()
    if "open" in command:
        seen.update({name: [] for name in seen})
        started = time.monotonic()

        def load(done):
            page.loadFinished.connect(done)
            page.load(QUrl.fromLocalFile(command["open"]))

        if not wait_for(load):
            raise RuntimeError(f"{command['open']} did not load")
        # Two frames later what the script has made is on the screen.
        page.runJavaScript(
            "window.painted = false; requestAnimationFrame(() => requestAnimationFrame(() => painted = true))"
        )
        wait_until(page, "window.painted")
        milliseconds = 1000 * (time.monotonic() - started)
        wait_for(lambda done: page.runJavaScript(COUNT_KEYS, done))
        return milliseconds
    if "run" in command:
        return wait_for(lambda done: page.runJavaScript(command["run"], done))
    if "keys" in command:
        for key in command["keys"]:
            combination = QKeySequence.fromString(key)[0]
            before = wait_for(lambda done: page.runJavaScript("window.released", done))
            QTest.keyClick(view.focusProxy(), combination.key(), combination.keyboardModifiers())
            # A key's release comes after all that its press did, and on a busy machine late.
            wait_until(page, f"window.released > {before}")
        return None
    if "picture" in command:
        QTest.qWait(1000)
        return view.grab().save(command["picture"])
    return seen


def main() -> None:
    application = QApplication(sys.argv)
    profile = QWebEngineProfile()  # keeps nothing on disk
    requests = Requests()
    profile.setUrlRequestInterceptor(requests)
    view = QWebEngineView()
    page = Page(profile, view)
    view.setPage(page)
    view.resize(1280, 860)
    view.show()
    view.setFocus()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        try:
            answer = {"value": obey(view, json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    view.setPage(None)
    page.deleteLater()
    application.processEvents()
    os._exit(0)  # Qt's own teardown of Chromium may hang


if __name__ == "__main__":
    main()
