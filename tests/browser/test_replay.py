"""Journey: a handler fails; somebody sees why, mends it, replays, and sees the command handled."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from support.installation import Installation
from support.waiting import wait_until_sync

from .conftest import Visiting

pytestmark = pytest.mark.real

DEVICE = "lamp-7"
COMMAND = "turn-on-7"
ERROR = "the lamp answers in a language that nobody knows"
BROKEN = f"""
from consumers import PushMessageReceiver, request

class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        if request.json["result"]["resultCode"] == "DELIVERED":
            raise ValueError("{ERROR}")
"""


def reload_until_it_says(page: Page, text: str) -> None:
    """A page that does not move by itself is loaded again, as users do."""

    def says() -> bool:
        page.reload()
        return text in page.get_by_role("main").inner_text()

    wait_until_sync(says, f"{page.url} to say {text!r}", bound_s=60)


def test_what_failed_is_found_understood_mended_and_replayed(
    installation: Installation, visit: Visiting
) -> None:
    installation.start_ingress()
    installation.start_worker(BROKEN, max_attempts=3)
    page = visit(installation.start_console().url).page()
    page.goto("/")
    installation.send(DEVICE, COMMAND, code="SENT")
    installation.send(DEVICE, COMMAND, code="DELIVERED")

    # The overview shows that something was given up, without being loaded again.
    row = page.get_by_role("row").filter(has_text="default")
    dead = row.get_by_role("link", name="1", exact=True)
    expect(dead.first).to_be_visible()
    page.get_by_role("searchbox").fill(COMMAND)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"command {COMMAND}")
    timeline = page.get_by_role("main")
    expect(timeline).to_contain_text(ERROR)
    for said in ("SENT", "handled", "DELIVERED", "dead", "3 attempts"):
        expect(timeline).to_contain_text(said)

    # Why: error, attempts and the line of the receiver that raised.
    page.get_by_role("link", name=str(installation.dead()[0]["id"])).first.click()
    letter = page.get_by_role("main")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Dead letter")
    for said in (f"ValueError: {ERROR}", "3 attempts", "Traceback", "receiver.py", COMMAND, DEVICE):
        expect(letter).to_contain_text(said)
    expect(letter).not_to_contain_text("resultDetail")  # the payload is nobody's until asked for
    page.get_by_role("link", name="Show the body").click()
    expect(letter).to_contain_text("resultDetail")

    installation.mend()
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("was given back")
    page.get_by_role("link", name="See what becomes of it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"command {COMMAND}")
    wait_until_sync(lambda: not installation.dead(), "no dead letter to be left", bound_s=60)
    reload_until_it_says(page, "handled")
    outcomes = page.get_by_role("listitem").filter(has_text="DELIVERED")
    expect(outcomes.first).to_contain_text("handled")
    expect(page.get_by_role("main")).not_to_contain_text("dead")

    page.goto("/audit")
    line = page.get_by_role("row").filter(has_text="dead replay")
    expect(line.first).to_contain_text("default")
