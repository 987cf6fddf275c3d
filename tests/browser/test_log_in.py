"""Journey: somebody logs in with a token, after a wrong one, and logs out."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from support.installation import Installation

from .conftest import Visiting

pytestmark = pytest.mark.real

TOKEN = "correct-horse-battery"


def log_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_who_has_the_token_comes_in_to_the_page_wanted_and_goes(
    installation: Installation, visit: Visiting
) -> None:
    console = installation.start_console(console_tokens=TOKEN)
    user = visit(console.url)
    page = user.page()
    page.goto("/settings")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()

    user.expect_error("status of 401")
    log_in(page, "a-wrong-one")
    expect(page.get_by_role("alert")).to_contain_text("wrong")

    log_in(page, TOKEN)
    expect(page.get_by_role("heading", level=1, name="Settings")).to_be_visible()
    assert TOKEN not in page.content()

    page.get_by_role("button", name="log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto("/settings")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert TOKEN not in console.program.errors + console.program.output


def test_who_guesses_is_told_to_wait(installation: Installation, visit: Visiting) -> None:
    console = installation.start_console(console_tokens=TOKEN)
    user = visit(console.url)
    user.expect_error("status of 401")
    user.expect_error("status of 429")
    page = user.page()
    page.goto("/log-in")
    for number in range(11):
        log_in(page, f"guess-{number}")
        expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("too many wrong credentials")
    log_in(page, TOKEN)
    expect(page.get_by_role("alert")).to_contain_text("too many wrong credentials")
