"""A real browser for tests: Chromium of the distribution, driven by Playwright.

Playwright's own download of a browser is not used: `make deploy-tools` installs the distribution's.
The blocking interface, for tests that are no coroutines: it runs a loop of its own, and none may
run around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    WebError,
    expect,
    sync_playwright,
)

from support.deploy_tools import program

BOUND_S = 60.0
"""Generous: only what fails ever takes it."""
_NAMES = ("chromium", "google-chrome")
# Beside those that Playwright gives: nothing goes out, whatever network there is.
_FLAGS = ("--disable-quic", "--disable-sync", "--no-pings")
_INSIDE = ("about", "blob", "data")

expect.set_options(timeout=BOUND_S * 1000)


def chromium() -> str:
    """Its path; without it the test is skipped, or fails where CI must have it."""
    return program(*_NAMES, path=os.environ["PATH"], advice="make deploy-tools")


@contextmanager
def opened() -> Iterator[Browser]:
    """A running browser without a window."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=_FLAGS, timeout=BOUND_S * 1000
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One user of one site, in windows that share cookies, and every fault that came up.

    A fault is an error in the browser's console, among them what the page's own policy forbids; an
    exception that no script caught; a dialog; and whatever is asked of another origin.
    """

    def __init__(self, browser: Browser, origin: str, **options: Any) -> None:
        self.origin = origin
        self.faults: list[str] = []
        self._expected: list[str] = []
        self.context: BrowserContext = browser.new_context(
            **{"base_url": origin, "locale": "en-GB", "timezone_id": "Asia/Shanghai", **options}
        )
        self.context.set_default_timeout(BOUND_S * 1000)
        self.context.on("console", self._said)
        self.context.on("weberror", self._raised)
        self.context.on("dialog", self._asked)
        self.context.on("request", self._requested)

    def page(self) -> Page:
        """A new window."""
        return self.context.new_page()

    def expect_error(self, text: str) -> None:
        """An error of this text is what the test wants to see from now on."""
        self._expected.append(text)

    def check(self) -> None:
        """Fails if anything was at fault."""
        assert not self.faults, "the browser found fault:\n" + "\n".join(self.faults)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(text in message.text for text in self._expected):
            self.faults.append(f"console: {message.text}")

    def _raised(self, error: WebError) -> None:
        self.faults.append(f"script: {error.error}")

    def _asked(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in _INSIDE and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.faults.append(f"elsewhere: {request.url}")
