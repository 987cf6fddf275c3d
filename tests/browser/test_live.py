"""What moves on a page moves on whatever way the page's files arrive."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from support.installation import Installation

from .conftest import Visiting

pytestmark = pytest.mark.real


def test_a_page_moves_also_if_one_script_arrives_long_before_the_other(
    installation: Installation, visit: Visiting
) -> None:
    installation.start_ingress()
    page = visit(installation.start_console().url).page()
    late: list[Route] = []
    page.route("**/hx-sse*", lambda route: late.append(route))
    page.goto("/", wait_until="commit")
    page.wait_for_function("window.htmx !== undefined")
    # Long enough for whatever htmx puts off until the next turn.
    page.evaluate("new Promise(done => setTimeout(() => setTimeout(done)))")
    with page.expect_response("**/live/overview"):
        late[0].continue_()
    installation.send("lamp-1", "turn-on-1")
    answered = page.get_by_role("main").locator("dl > div").filter(has_text="answered 200")
    expect(answered).to_contain_text("1")
