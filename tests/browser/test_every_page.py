"""Every page as wide as a phone and a desk, light and dark, with nothing to show and with much."""

from __future__ import annotations

from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from support.installation import Installation

from .conftest import Visiting

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SEVERE = ("serious", "critical")
LOOKS: Final[tuple[tuple[int, Literal["light", "dark"]], ...]] = ((360, "light"), (1440, "dark"))
"""Each width and each colour scheme once: what a scheme may hide from people no width does."""
PAGES = ("/", "/dead", "/quarantine", "/groups", "/workers")
OTHERS = ("/search?q=nowhere", "/settings", "/audit", "/jobs", "/no-such-page")


def busy_pages(installation: Installation) -> list[str]:
    """Addresses of things that there are; ids are as long as the platform's."""
    device, command = "7b0a8e2c-5f0e-4d3a-9f65-2b8d4a1c6e90", "e1c7a9d4f2b84c0e9a6d3f5b7c8e0a12"
    error = "the lamp at https://lamps.example.com/v2/lamps/7b0a8e2c5f0e4d3a9f652b8d4a is away"
    installation.start_ingress()
    installation.start_worker()
    installation.send(device, command)
    for number in range(3):
        installation.send(device, f"{command}-{number}", error=error)
    installation.post(b'{"deviceId": 1, "of": "' + b"x" * 300 + b'"}')
    installation.has_dead(3)
    dead = f"/dead/default/{installation.dead()[0]['id']}"
    quarantined = f"/quarantine/{installation.quarantined()[0]['id']}"
    return [
        f"/commands/{command}", f"/commands/{command}-0", f"/devices/{device}",
        f"/dead?device={device}", "/dead?group=default", dead, f"{dead}/body",
        quarantined, f"{quarantined}/body", f"{quarantined}/mend",
    ]  # fmt: skip


def check(page: Page, what: str) -> None:
    """Nobody has to scroll sideways, and those who cannot see or point are not kept out."""
    width, room = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= room, f"{what} is {width} px wide, in {room}"
    severe = [
        f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']][:5]}"
        for each in Axe().run(page).response["violations"]
        if each["impact"] in SEVERE
    ]
    assert not severe, f"{what}:\n" + "\n".join(severe)


def look_at(page: Page, *addresses: str) -> None:
    """Opens each, and looks at it in every way."""
    for address in addresses:
        page.goto(address)
        look(page)


def look(page: Page) -> None:
    """At the page that is open, in every way."""
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        check(page, f"{page.url} at {width} px, {scheme}")


def test_a_page_with_nothing_to_show_fits_and_keeps_nobody_out(
    installation: Installation, visit: Visiting
) -> None:
    user = visit(installation.start_console().url)
    user.expect_error("status of 404")
    look_at(user.page(), *PAGES, *OTHERS)


def test_a_page_with_much_to_show_fits_and_keeps_nobody_out(
    installation: Installation, visit: Visiting
) -> None:
    addresses = busy_pages(installation)
    page = visit(installation.start_console().url).page()
    look_at(page, *PAGES, *addresses)


def test_what_is_asked_and_what_was_done_fits_and_keeps_nobody_out(
    installation: Installation, visit: Visiting
) -> None:
    busy_pages(installation)
    page = visit(installation.start_console().url).page()
    page.goto("/dead?group=default")
    page.get_by_role("button", name="Drop dead letters").click()
    drop = page.get_by_role("button", name="Drop 3 dead letters")
    expect(drop).to_be_visible()
    look(page)
    drop.click()
    expect(page.get_by_role("status")).to_contain_text("Done")
    look(page)
    look_at(page, "/jobs", "/audit")


def test_the_log_in_form_fits_and_keeps_nobody_out(
    installation: Installation, visit: Visiting
) -> None:
    console = installation.start_console(
        console_tokens="sesame-sesame", console_basic_credentials="ada:sesame-sesame"
    )
    look_at(visit(console.url).page(), "/log-in")
