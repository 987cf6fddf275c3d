"""Journey: many dead letters are counted, replayed at a rate, and stopped half-way."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from support.installation import Installation
from support.waiting import wait_until_sync

from .conftest import Visiting

pytestmark = pytest.mark.real

MANY = 40


def test_many_are_replayed_with_progress_until_somebody_stops_it(
    installation: Installation, visit: Visiting
) -> None:
    installation.start_ingress()
    installation.start_worker()
    for number in range(MANY):
        installation.send(f"lamp-{number}", f"turn-on-{number}", error="no: the fuse is blown")
    installation.send("door-1", "open-1", error="no: the key is lost")
    installation.has_dead(MANY + 1)
    installation.mend()

    page = visit(installation.start_console().url).page()
    page.goto("/dead?group=default")
    page.get_by_label("error has").fill("fuse")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("button", name="Replay dead letters").click()

    # The number is known before anything is done, and is part of the question.
    asked = page.get_by_role("button", name=f"Replay {MANY} dead letters")
    expect(asked).to_be_visible()
    assert len(installation.dead()) == MANY + 1
    page.get_by_label("a second at most").fill("2")
    asked.click()

    progress = page.get_by_role("progressbar")
    expect(progress).to_be_visible()
    # It moves by itself.
    first = page.get_by_role("status").inner_text()
    expect(page.get_by_role("status")).not_to_have_text(first)
    expect(page.get_by_role("status")).to_contain_text(f"of {MANY}")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_contain_text("Stopped")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    left = len(installation.dead())
    assert 1 < left < MANY + 1

    # The rest is as it was, and is counted anew.
    page.goto("/dead?group=default&error=fuse")
    page.get_by_role("button", name="Replay dead letters").click()
    page.get_by_role("button", name=f"Replay {left - 1} dead letters").click()
    expect(page.get_by_role("status")).to_contain_text("Done")
    wait_until_sync(lambda: len(installation.dead()) == 1, "one to be left", bound_s=60)
    page.goto("/audit")
    expect(page.get_by_role("main")).to_contain_text("stopped by")
