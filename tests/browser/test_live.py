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


def test_a_page_that_hears_nothing_says_of_when_it_is(
    installation: Installation, visit: Visiting
) -> None:
    page = visit(installation.start_console().url).page()
    page.clock.install()
    held: list[Route] = []
    page.route("**/live/overview", lambda route: held.append(route))
    page.goto("/")
    warning = page.get_by_role("alert").filter(has_text="The console has said nothing new")
    page.clock.run_for(10_000)
    expect(warning).to_be_hidden()
    page.clock.run_for(10_000)
    expect(warning).to_be_visible()
    held[0].continue_()
    expect(warning).to_be_hidden()
