"""Journey: Redis is killed while somebody looks at the overview, and comes back."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from bridge.store.embedded import EmbeddedServer
from support.installation import Installation
from support.programs import Programs

from .conftest import Visiting

pytestmark = pytest.mark.real


def test_the_page_says_that_redis_is_away_and_goes_on_when_it_is_back(
    own_server: EmbeddedServer, programs: Programs, visit: Visiting
) -> None:
    installation = Installation(own_server, programs)
    installation.start_ingress()
    installation.start_worker()
    console = installation.start_console()
    installation.send("lamp-1", "turn-on-1")
    page = visit(console.url).page()
    page.goto("/")
    content = page.get_by_role("main")
    expect(content).to_contain_text("The promise is kept")
    expect(content).to_contain_text("default")  # the worker's group
    page.evaluate("window.isTheSamePage = true")

    own_server.kill()
    expect(content).to_contain_text("Redis is away")
    installation.send("lamp-1", "turn-off-1")
    expect(content).to_contain_text("1 spooled")

    own_server.start()
    expect(content).not_to_contain_text("Redis is away")
    expect(content).to_contain_text("The promise is kept")
    expect(content).to_contain_text("0 spooled")
    assert page.evaluate("window.isTheSamePage") is True
