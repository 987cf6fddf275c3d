"""An installation, and a user before it with a browser that reports every fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from bridge.store.embedded import EmbeddedServer
from support import browser as browsers
from support.browser import Visit
from support.installation import Installation
from support.programs import Programs

Visiting = Callable[..., Visit]


@pytest.fixture
def browser() -> Iterator[Browser]:
    """One of this test's own: Playwright's loop must not outlive a test that is no coroutine."""
    with browsers.opened() as opened:
        yield opened


@pytest.fixture
def installation(real_server: EmbeddedServer, programs: Programs) -> Installation:
    """A namespace of this test's own on the shared server; nothing of it runs yet."""
    return Installation(real_server, programs)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visiting]:
    """Begins visits to a site; the test fails for whatever the browser found at fault in them."""
    begun: list[Visit] = []

    def begin(origin: str, **options: Any) -> Visit:
        begun.append(Visit(browser, origin, **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.context.close()
    for each in begun:
        each.check()
