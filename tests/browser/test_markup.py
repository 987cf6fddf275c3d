"""Journey: ids and errors that are markup are shown as the text that they are, on every page."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from support.installation import Installation

from .conftest import Visiting

pytestmark = pytest.mark.real

MARKUP = "<img src=x onerror=alert(1)>"
COMMAND = f"{MARKUP}-command"
DEVICE = f"{MARKUP}-device"
ERROR = f"{MARKUP}</td></table><script>alert(2)</script>-error"


def shows(page: Page, *texts: str) -> None:
    """Each text is there to be read, and none of it became an element."""
    for text in texts:
        expect(page.get_by_role("main")).to_contain_text(text)
    expect(page.locator("img")).to_have_count(0)
    expect(page.get_by_role("main").locator("script")).to_have_count(0)


@pytest.fixture
def busy(installation: Installation) -> Installation:
    """With a dead letter, a delivery that waits for its next attempt, and something quarantined."""
    installation.start_ingress()
    installation.start_worker(max_attempts=50, backoff_base_s=300, backoff_max_s=300)
    installation.send(DEVICE, COMMAND, error=f"no: {ERROR}")
    installation.send(f"{DEVICE}-2", f"{COMMAND}-2", error=ERROR)
    installation.post(f'{{"deviceId": "{DEVICE}", "of": "{MARKUP}"}}'.encode())
    installation.post(f'{{"{MARKUP}": 1}}'.encode())
    installation.has_dead(1)
    return installation


def find(page: Page, text: str) -> None:
    """What an operator does who has an id."""
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("button", name="Find").click()


def test_markup_is_text_on_what_moves_and_what_is_found(
    busy: Installation, visit: Visiting
) -> None:
    user = visit(busy.start_console().url)
    user.expect_error("status of 404")  # of what nothing is known
    page = user.page()
    page.goto("/")
    shows(page, f"{DEVICE}-2", ERROR)  # what fails now

    find(page, COMMAND)
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"command {COMMAND}")
    shows(page, COMMAND, DEVICE, ERROR)

    page.get_by_role("link", name=DEVICE, exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"device {DEVICE}")
    shows(page, COMMAND, DEVICE, ERROR)

    find(page, f"{MARKUP}-nowhere")
    shows(page, f"{MARKUP}-nowhere")


def test_markup_is_text_among_what_was_given_up(busy: Installation, visit: Visiting) -> None:
    page = visit(busy.start_console().url).page()
    page.goto("/dead?group=default")
    page.get_by_label("error has").fill(MARKUP)
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_label("error has")).to_have_value(MARKUP)
    shows(page, COMMAND, DEVICE, ERROR)

    page.get_by_role("link", name=str(busy.dead()[0]["id"]), exact=True).click()
    shows(page, COMMAND, DEVICE, ERROR)
    page.get_by_role("link", name="Show the body").click()
    shows(page, "resultDetail", MARKUP)

    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("given back")
    page.goto("/audit")
    shows(page, "dead replay")


def test_markup_is_text_in_quarantine(busy: Installation, visit: Visiting) -> None:
    page = visit(busy.start_console().url).page()
    page.goto("/quarantine")
    shows(page, DEVICE)
    for kept in busy.quarantined():
        page.goto("/quarantine")
        page.get_by_role("link", name=str(kept["id"]), exact=True).first.click()
        page.get_by_role("link", name="Show the body").click()
        shows(page, MARKUP)
        page.go_back()
        page.goto(f"/quarantine/{kept['id']}")
        page.get_by_role("link", name="Mend it").click()
        expect(page.get_by_role("textbox", name="Body")).to_have_value(
            re.compile(re.escape(MARKUP))
        )
        expect(page.locator("img")).to_have_count(0)
