"""The audit's page, and what is done to groups."""

from __future__ import annotations

import jinja2
import pytest
from yarl import URL

from bridge.console import filters
from bridge.operations import audit
from bridge.operations.audit import Actor
from support import servers

from .conftest import Begin, Client, World
from .seeding import JSON, MARKUP, OURS, Seeded


@pytest.fixture
async def seeded(fake: servers.Redis, world: World) -> Seeded:
    found = Seeded(fake, world)
    await found.register("default", MARKUP)
    return found


async def test_the_audit_is_shown_newest_first_and_page_by_page(
    client: Client, seeded: Seeded
) -> None:
    assert "Nothing yet" in await (await client.get("/audit")).text()
    for number in range(150):
        actor = Actor(who=MARKUP, by=audit.COMMAND_LINE)
        await audit.begin(seeded.connected, actor, "dead drop", f"{MARKUP} {number}")
    text = await (await client.get("/audit")).text()
    assert MARKUP not in text
    first = await (await client.get("/audit", headers=JSON)).json()
    assert (first["total"], len(first["audit"])) == (150, 100)
    assert first["audit"][0]["what"].endswith(" 149")
    second = await (await client.get(f"/audit?before={first['older']}", headers=JSON)).json()
    assert second["audit"][-1]["what"].endswith(" 0")
    assert second["older"] is None
    assert f"before={first['older']}" in text
    assert (await client.get("/audit?before=x")).status == 400


@pytest.mark.parametrize("name", ["default", MARKUP])
async def test_a_group_is_paused_and_resumed(acting: Client, seeded: Seeded, name: str) -> None:
    for verb, changed in (("pause", True), ("pause", False), ("resume", True), ("resume", False)):
        answer = await acting.post(f"/groups/{verb}", data={"group": name}, headers=OURS | JSON)
        assert await answer.json() == {"schema": 1, "group": name, "changed": changed}
        paused = await seeded.client.smembers(seeded.keys.paused)  # type: ignore[misc]
        assert paused == ({name.encode()} if verb == "pause" else set())
    records = await seeded.audit()
    assert [record[1:] for record in records[:4]] == [
        ("groups pause", f"group {name}", "begun"),
        ("groups pause", f"group {name}", "done"),
        ("groups pause", f"group {name}", "begun"),
        ("groups pause", f"group {name}", "nothing to do"),
    ]


async def test_a_group_is_protected(acting: Client, seeded: Seeded) -> None:
    for verb, members in (("protect", {b"default"}), ("unprotect", set())):
        form = {"group": "default"}
        answer = await acting.post(
            f"/groups/{verb}", data=form, headers=OURS, allow_redirects=False
        )
        assert answer.status == 303
        assert URL(answer.headers["Location"]).path == "/groups"
        assert await seeded.client.smembers(seeded.keys.protected) == members  # type: ignore[misc]


@pytest.mark.parametrize(("name", "status"), [("", 400), ("x" * 257, 400), ("nobody", 409)])
async def test_a_group_that_is_none(acting: Client, seeded: Seeded, name: str, status: int) -> None:
    answer = await acting.post("/groups/pause", data={"group": name}, headers=OURS | JSON)
    assert answer.status == status


def test_the_buttons_of_a_group() -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bridge.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(filters.FILTERS)
    buttons = environment.get_template("group_actions.html").module.buttons  # type: ignore[attr-defined]
    group = {"name": MARKUP, "registered": True, "paused": False, "protected": True}
    text = buttons(group)
    assert 'action="/groups/pause"' in text
    assert 'action="/groups/unprotect"' in text
    assert "resume" not in text.lower().partition("<button")[2].partition("</button>")[0]
    assert MARKUP not in text
    assert 'action="/groups/resume"' in buttons(group | {"paused": True, "protected": False})
    assert buttons(group | {"registered": False}).strip() == ""


async def test_a_note_is_what_was_done_and_not_what_a_link_says(
    begin: Begin, seeded: Seeded
) -> None:
    client = await begin(has_actions=True)
    name = await seeded.bury()
    answer = await client.post(f"/dead/default/{name}/drop", headers=OURS, allow_redirects=False)
    place = answer.headers["Location"]
    assert "is dropped" in await (await client.get(URL(place, encoded=True))).text()
    assert "is dropped" not in await (await client.get("/dead?note=is%20dropped")).text()
