"""Pages of dead letters, and what is done to one."""

from __future__ import annotations

import re

import pytest
from yarl import URL

from support import servers
from support.entries import entry

from .conftest import Begin, Client, World
from .seeding import JSON, MARKUP, OURS, Seeded


@pytest.fixture
async def seeded(fake: servers.Redis, world: World) -> Seeded:
    found = Seeded(fake, world)
    await found.register("default", "other")
    return found


async def document(client: Client, path: str) -> dict[str, object]:
    answer = await client.get(path, headers=JSON)
    assert answer.status == 200, await answer.text()
    return await answer.json()  # type: ignore[no-any-return]


async def test_none_says_when_there_are_some(client: Client, seeded: Seeded) -> None:
    text = await (await client.get("/dead")).text()
    assert "No dead letters. When a handler fails" in text
    found = await document(client, "/dead")
    assert (found["total"], found["dead"], found["older"]) == (0, [], None)


async def test_they_are_counted_by_group_and_by_what_they_died_of(
    client: Client, seeded: Seeded
) -> None:
    for number in range(3):
        await seeded.bury(device=f"d{number}", error=f"no {number}", id=f"{number + 1}-0")
    await seeded.bury(
        group="other", error_type="Reject", reason="rejected", error="x", traceback=""
    )
    found = await document(client, "/dead")
    assert found["groups"] == [{"name": "default", "dead": 3}, {"name": "other", "dead": 1}]
    assert (found["total"], found["matched"], found["looked_at"]) == (4, 4, 4)
    first, second = found["kinds"]  # type: ignore[misc]
    assert (first["letters"], first["line"], first["error"]) == (3, "handlers.py:42", "no 2")
    assert (second["letters"], second["line"], second["error"]) == (1, None, "x")
    newest = found["dead"][0]  # type: ignore[index]
    assert (newest["group"], newest["error_type"]) == ("other", "Reject")


async def test_each_number_of_a_kind_links_to_what_it_counts(
    client: Client, seeded: Seeded
) -> None:
    await seeded.bury(error="one\nmore")
    await seeded.bury(error_type="KeyError", traceback="", error="'a&b'")
    text = await (await client.get("/dead")).text()
    assert "error=max_attempts%20ValueError&amp;line=handlers.py%3A42" in text
    assert "error=max_attempts%20KeyError%20%27a%26b%27" in text
    for query in (
        {"error": "max_attempts ValueError", "line": "handlers.py:42"},
        {"error": "max_attempts KeyError 'a&b'"},
    ):
        assert (await document(client, str(URL("/dead").with_query(query))))["matched"] == 1


@pytest.mark.parametrize(
    ("query", "matched"),
    [("group=default", 2), ("group=nobody", 0), ("device=d1", 1), ("error=NO", 2),
     ("error=none", 0), ("line=handlers.py:42", 2), ("line=x.py:1", 0), ("since=1h", 2),
     ("until=1h", 0), ("since=", 2)],
)  # fmt: skip
async def test_filters_are_in_the_url(
    client: Client, seeded: Seeded, query: str, matched: int
) -> None:
    await seeded.bury(device="d1")
    await seeded.bury(device="d2")
    assert (await document(client, f"/dead?{query}"))["matched"] == matched


@pytest.mark.parametrize(
    ("query", "words"),
    [("since=yesterday", "is not a time"), (f"since={'9' * 400}s", "is not a time"),
     ("before=x", "not a cursor"), ("before=x,1", "not an ID"),
     ("until=2026-13-01", "is not a time"),
     (f"device={'x' * 501}", "at most 500")],
)  # fmt: skip
async def test_what_cannot_be_meant_is_400_and_says_why(
    client: Client, seeded: Seeded, query: str, words: str
) -> None:
    for path in ("/dead", "/quarantine"):
        if path == "/quarantine" and "before" in query:
            words = "not an ID"
        answer = await client.get(URL(f"{path}?{query}", encoded=True))
        assert answer.status == 400
        assert words in (await answer.text()).replace("&#39;", "'")


async def test_older_ones_are_found_page_by_page(
    client: Client, seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.operations.dead_letter_pages.LOOKED_AT", 10)
    monkeypatch.setattr("bridge.operations.dead_letter_pages.SHOWN", 4)
    for number in range(25):
        await seeded.bury(device=f"d{number}", id=f"{1000 + number}-0")
    seen: list[str] = []
    path = "/dead"
    while True:
        found = await document(client, path)
        seen += [letter["id"].split("/")[1] for letter in found["dead"]]  # type: ignore[attr-defined]
        if not found["older"]:
            break
        path = str(URL("/dead").with_query(before=found["older"]))
    assert seen == [f"{1000 + number}-0" for number in reversed(range(25))]
    text = await (await client.get("/dead?device=d3")).text()
    assert "None of the newest 10 looked at that this filter leaves" in text
    assert "look at older ones" in text


async def test_one_is_shown_without_its_body_which_is_another_page(
    client: Client, seeded: Seeded
) -> None:
    name = await seeded.bury(device="d9")
    answer = await client.get(f"/dead/default/{name}")
    text = await answer.text()
    assert answer.status == 200
    assert "handlers.py:42" in text
    assert "resultCode" not in text
    assert "body" not in await document(client, f"/dead/default/{name}")
    shown = await client.get(f"/dead/default/{name}/body")
    assert "resultCode" in await shown.text()
    assert '"deviceId": "d9"' in str((await document(client, f"/dead/default/{name}/body"))["body"])
    saved = await client.get(f"/dead/default/{name}/body?download=1")
    assert saved.headers["Content-Disposition"].startswith("attachment")
    assert saved.content_type == "application/octet-stream"


@pytest.mark.parametrize("path", ["x/1-0", "1/x", "1/1-", "99999/1-0", f"1/{'9' * 21}-0"])
async def test_what_is_no_name_of_one(client: Client, seeded: Seeded, path: str) -> None:
    answer = await client.get(f"/dead/default/{path}")
    assert answer.status == 400
    assert "is not a PARTITION/ID" in (await answer.text()).replace("&#39;", "'")


async def test_one_that_is_gone_says_so(acting: Client, seeded: Seeded) -> None:
    for path in ("/dead/default/1/1-0", "/dead/default/1/1-0/body", "/dead/default/99/1-0"):
        answer = await acting.get(path)
        assert answer.status == 404
        assert "any more" in await answer.text()
    for verb in ("replay", "drop"):
        answer = await acting.post(f"/dead/default/1/1-0/{verb}", headers=OURS)
        assert answer.status == 200  # where it was sent to
        assert "was already gone: nothing was done" in await answer.text()
        again = await acting.post(f"/dead/default/1/1-0/{verb}", headers=OURS | JSON)
        assert (await again.json())["outcomes"] == {"gone": 1}


async def test_one_is_replayed_once_however_often_it_is_asked_for(
    acting: Client, seeded: Seeded
) -> None:
    name = await seeded.bury(device="d9", letter=entry("d9", "c/1 %"))
    path = f"/dead/default/{name}/replay"
    answer = await acting.post(path, headers=OURS, allow_redirects=False)
    assert answer.status == 303
    after = await acting.get(URL(answer.headers["Location"], encoded=True))
    text = await after.text()
    assert f"{name} was given back to group default" in text
    assert "/commands/c%2F1%20%25" in text
    again = await acting.post(path, headers=OURS)
    assert "already gone" in await again.text()
    (entry_,) = await seeded.published()
    assert (entry_[b"for"], entry_[b"replayed"]) == (b"default", b"1")
    what = ("somebody on this machine", "dead replay", f"group default: {name}")
    assert await seeded.audit() == [(*what, "begun"), (*what, "done")] * 2


async def test_one_is_dropped(acting: Client, seeded: Seeded) -> None:
    name = await seeded.bury()
    answer = await acting.post(f"/dead/default/{name}/drop", headers=OURS | JSON)
    assert await answer.json() == {
        "schema": 1, "matched": 1, "dry_run": False, "outcomes": {"dropped": 1},
    }  # fmt: skip
    assert await seeded.dead() == 0
    assert not await seeded.published()


async def test_nothing_is_replayed_while_partitions_are_changed(
    acting: Client, seeded: Seeded
) -> None:
    name = await seeded.bury()
    await seeded.client.set(seeded.keys.hold, "the partition count is being changed")
    answer = await acting.post(f"/dead/default/{name}/replay", headers=OURS | JSON)
    assert answer.status == 409
    assert await seeded.dead() == 1


@pytest.mark.parametrize("markup", [MARKUP, "a/b", "%", "a b", "x" * 256, "\u202e\x00", "é", ".."])
async def test_whatever_strangers_wrote_is_text_and_links_lead_back(
    acting: Client, seeded: Seeded, markup: str
) -> None:
    await seeded.register(markup)
    letter = entry(markup, markup, markup, type=markup)
    name = await seeded.bury(
        group=markup, device=markup, letter=letter, error=f"{markup}\nmore", error_type=markup,
        traceback=markup,
    )  # fmt: skip
    one = URL("/dead") / markup if markup not in ("..",) else None
    texts = [await (await acting.get("/dead")).text()]
    texts.append(await (await acting.get(URL("/dead").with_query(group=markup))).text())
    if one is not None and "/" not in markup:
        answer = await acting.get(URL(f"{one.raw_path}/{name}", encoded=True))
        assert answer.status == 200
        texts.append(await answer.text())
    for text in texts:
        assert MARKUP not in text
        assert name in text
        assert "\u202e" not in re.sub(r'(value|data-copy)="[^"]*"', "", text)
    found = await document(acting, str(URL("/dead").with_query(device=markup)))
    assert found["matched"] == 1


ACTIONS = ["/dead/default/1/1-0/replay", "/dead/default/1/1-0/drop", "/jobs",
           "/quarantine/1-0/replay", "/quarantine/1-0/drop", "/jobs/x/start",
           "/jobs/x/stop", "/groups/pause", "/groups/resume", "/groups/protect",
           "/groups/unprotect"]  # fmt: skip


@pytest.mark.parametrize("path", ACTIONS)
async def test_nothing_acts_while_actions_are_off_or_from_elsewhere_or_by_get(
    begin: Begin, seeded: Seeded, path: str
) -> None:
    off = await begin()
    answer = await off.post(path, headers=OURS | JSON)
    assert answer.status == 403
    assert "NB_BRIDGE_CONSOLE_ACTIONS=on" in (await answer.json())["detail"]
    on = await begin(has_actions=True)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere"}, {}):
        assert (await on.post(path, headers=headers | JSON)).status == 403
    assert (await on.get(path)).status == (200 if path == "/jobs" else 405)
    assert await seeded.audit() == []


async def test_pages_offer_nothing_that_is_off(client: Client, seeded: Seeded) -> None:
    name = await seeded.bury()
    kept = await seeded.quarantine(b"{}")
    for path in ("/dead", "/dead?group=default", f"/dead/default/{name}", "/quarantine",
                 f"/quarantine/{kept}", f"/quarantine/{kept}/mend"):  # fmt: skip
        text = await (await client.get(path)).text()
        assert 'action="/dead/' not in text
        assert "<button class" not in text
        assert "verb" not in text


async def test_redis_away(client: Client, world: World) -> None:
    for path in ("/dead", "/dead/default/1/1-0", "/quarantine", "/quarantine/1-0", "/audit"):
        answer = await client.get(path, headers=JSON)
        assert answer.status == 503
        assert (await answer.json())["detail"] == str(world.away)


async def test_a_foreign_letter_costs_no_page(client: Client, seeded: Seeded) -> None:
    key = seeded.keys.dead(0, "default")
    await seeded.bury()
    ((_, fields),) = [
        each
        for n in range(4)
        for each in await seeded.client.xrange(seeded.keys.dead(n, "default"))
    ]
    foreign = {b"dead_entry": b"\xff\xfe", b"dead_attempts": b"9" * 400}
    id_ = await seeded.client.xadd(key, {**fields, **foreign})
    for path in ("/dead", f"/dead/default/0/{id_.decode()}"):
        for accept in ("text/html", "application/json"):
            answer = await client.get(path, headers={"Accept": accept})
            assert answer.status == 200, path
