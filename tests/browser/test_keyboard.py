"""Journey: an operator without a mouse searches, reads, goes back, and replays."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from support.installation import Installation
from support.waiting import wait_until_sync

from .conftest import Visiting

pytestmark = pytest.mark.real

MOST_STOPS = 120
# What a browser shows of itself, or the style sheet in its place.
IS_SEEN = """() => {
  const style = getComputedStyle(document.activeElement);
  const hasOutline = style.outlineStyle !== "none" && style.outlineWidth !== "0px";
  return document.activeElement.matches(":focus-visible")
    && (hasOutline || style.boxShadow !== "none");
}"""


def tab_to(page: Page, wanted: Locator) -> None:
    """Presses Tab until `wanted` has the focus, which is seen at every stop on the way."""
    expect(wanted).to_be_visible()
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            continue  # once around
        where = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        assert page.evaluate(IS_SEEN), f"nobody sees that the focus is on {where}"
        if wanted.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"Tab does not come to {wanted}")


def test_everything_on_the_way_to_a_replay_is_reached_by_keys_alone(
    installation: Installation, visit: Visiting
) -> None:
    installation.start_ingress()
    installation.start_worker()
    installation.send("lamp-1", "turn-on-1", error="no: the fuse is blown")
    installation.has_dead(1)
    installation.mend()
    page = visit(installation.start_console().url).page()
    page.goto("/")
    heading = page.get_by_role("heading", level=1)

    # The first stop leads past the navigation.
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()

    tab_to(page, page.get_by_role("searchbox"))
    page.keyboard.type("turn-on-1")
    page.keyboard.press("Enter")
    # Not only "search for turn-on-1", which a busy machine shows before it goes on from there.
    expect(heading).to_contain_text("command turn-on-1")
    page.go_back()  # by whatever key the browser has for it
    expect(page).to_have_title("Overview · nb-bridge")

    tab_to(page, page.get_by_role("navigation").get_by_role("link", name="Dead letters"))
    page.keyboard.press("Enter")
    expect(heading).to_contain_text("Dead letters")
    tab_to(page, page.get_by_role("link", name=str(installation.dead()[0]["id"]), exact=True))
    page.keyboard.press("Enter")
    expect(heading).to_contain_text("Dead letter")
    page.go_back()

    tab_to(page, page.get_by_role("combobox", name="group"))
    page.keyboard.type("default")
    tab_to(page, page.get_by_role("button", name="Filter"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Replay dead letters"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Replay 1 dead letters"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Done")
    wait_until_sync(lambda: not installation.dead(), "no dead letter to be left", bound_s=60)
