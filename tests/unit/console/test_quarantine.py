"""Pages of quarantined bodies: read, mended, published, dropped."""

from __future__ import annotations

import json

import pytest
from aiohttp import FormData

from support import servers
from support.ingresses import body

from .conftest import Client, World
from .seeding import JSON, MARKUP, OURS, Seeded

NEARLY = b'{\r\n  "deviceId": "d9",\n  "result": {"resultCode": "SENT"}}\r\n'


@pytest.fixture
def seeded(fake: servers.Redis, world: World) -> Seeded:
    return Seeded(fake, world)


def form(text: str) -> FormData:
    """As a browser sends it."""
    return FormData({"body": text.replace("\r\n", "\n").replace("\n", "\r\n")})


async def test_nothing_says_what_it_is_for(client: Client, seeded: Seeded) -> None:
    assert "Nothing in quarantine" in await (await client.get("/quarantine")).text()


async def test_they_are_counted_by_what_is_wrong(client: Client, seeded: Seeded) -> None:
    await seeded.quarantine(b"{}")
    await seeded.quarantine(b"{}")
    last = await seeded.quarantine(MARKUP.encode(), reason="not_json", details=(MARKUP,))
    await seeded.client.xadd(seeded.keys.quarantine, {"x": "y"})
    found = await (await client.get("/quarantine", headers=JSON)).json()
    assert [(kind["bodies"], kind["reason"]) for kind in found["reasons"]] == [
        (2, "not_a_notification"), (1, "not_json"), (1, "unreadable"),
    ]  # fmt: skip
    assert found["total"] == found["matched"] == 4
    text = await (await client.get("/quarantine")).text()
    assert MARKUP not in text
    assert "error=not_a_notification%20looks%20like" in text
    assert last in text


async def test_one_is_shown_without_its_body(client: Client, seeded: Seeded) -> None:
    id_ = await seeded.quarantine(NEARLY)
    text = await (await client.get(f"/quarantine/{id_}")).text()
    assert "without commandId" in text
    assert "resultCode" not in text
    shown = await (await client.get(f"/quarantine/{id_}/body")).text()
    assert "resultCode" in shown
    saved = await client.get(f"/quarantine/{id_}/body?download=1")
    assert await saved.read() == NEARLY
    assert (await client.get("/quarantine/1-0")).status == 404
    assert (await client.get("/quarantine/x")).status == 400


async def test_a_body_is_mended_and_what_was_not_touched_keeps_its_bytes(
    acting: Client, seeded: Seeded
) -> None:
    id_ = await seeded.quarantine(NEARLY)
    page = await (await acting.get(f"/quarantine/{id_}/mend")).text()
    shown = page.partition("<textarea")[2].partition(">\n")[2].partition("</textarea>")[0]
    mended = shown.replace("&#34;", '"').replace("SENT", "DELIVERED").replace(
        '"deviceId"', '"commandId": "c9", "deviceId"'
    )  # fmt: skip
    answer = await acting.post(f"/quarantine/{id_}/replay", headers=OURS, data=form(mended))
    assert "is published" in await answer.text()
    (entry,) = await seeded.published()
    expected = NEARLY.replace(b"SENT", b"DELIVERED").replace(
        b'"deviceId"', b'"commandId": "c9", "deviceId"'
    )
    assert entry[b"body"] == expected
    assert await seeded.client.xlen(seeded.keys.quarantine) == 0
    again = await acting.post(f"/quarantine/{id_}/replay", headers=OURS, data=form(mended))
    assert "was already gone" in await again.text()
    assert [record[1:] for record in await seeded.audit()][:2] == [
        ("quarantine replay", f"{id_}, mended", "begun"),
        ("quarantine replay", f"{id_}, mended", "done"),
    ]


async def test_what_still_is_no_notification_stays_and_the_form_keeps_what_was_typed(
    acting: Client, seeded: Seeded
) -> None:
    id_ = await seeded.quarantine(NEARLY)
    typed = '{"deviceId": "<typed>"}'
    answer = await acting.post(f"/quarantine/{id_}/replay", headers=OURS, data=form(typed))
    text = await answer.text()
    assert answer.status == 422
    assert "still no notification" in text
    assert "&lt;typed&gt;" in text
    asis = await acting.post(f"/quarantine/{id_}/replay", headers=OURS | JSON)
    document = await asis.json()
    assert document["outcomes"] == {"left": 1}
    assert "still no notification" in document["reason"]
    assert await seeded.client.xlen(seeded.keys.quarantine) == 1
    assert not await seeded.published()


async def test_one_of_which_only_the_beginning_is_kept_needs_the_whole_body(
    acting: Client, seeded: Seeded
) -> None:
    id_ = await seeded.quarantine(body("d9"), keep_bytes=5)
    assert "Replay as it is" not in await (await acting.get(f"/quarantine/{id_}")).text()
    answer = await acting.post(f"/quarantine/{id_}/replay", headers=OURS | JSON)
    assert "only its beginning" in (await answer.json())["reason"]
    whole = form(body("d9").decode())
    done = await acting.post(f"/quarantine/{id_}/replay", headers=OURS | JSON, data=whole)
    assert (await done.json())["outcomes"] == {"replayed": 1}


async def test_what_was_accepted_before_is_a_duplicate(acting: Client, seeded: Seeded) -> None:
    for expected in ("replayed", "duplicate"):
        id_ = await seeded.quarantine(body("d9"))
        answer = await acting.post(f"/quarantine/{id_}/replay", headers=OURS | JSON)
        assert (await answer.json())["outcomes"] == {expected: 1}
    assert len(await seeded.published()) == 1


async def test_one_is_dropped(acting: Client, seeded: Seeded) -> None:
    id_ = await seeded.quarantine(b"{}")
    for expected in ("dropped", "gone"):
        answer = await acting.post(f"/quarantine/{id_}/drop", headers=OURS | JSON)
        assert (await answer.json())["outcomes"] == {expected: 1}


@pytest.mark.parametrize("raw", [b"\xff\0<", b"[" * 5000, json.dumps("é" * 10).encode(), b""])
async def test_any_bytes_can_be_looked_at(acting: Client, seeded: Seeded, raw: bytes) -> None:
    id_ = await seeded.quarantine(raw, reason="not_json")
    for page in ("", "/body", "/mend"):
        assert (await acting.get(f"/quarantine/{id_}{page}")).status == 200
    unreadable = (await seeded.client.xadd(seeded.keys.quarantine, {"x": "y"})).decode()
    for page in ("", "/body", "/mend"):
        assert (await acting.get(f"/quarantine/{unreadable}{page}")).status == 200


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [("text/plain", b"body=x", 415), ("multipart/form-data; boundary=x", b"x", 415),
     ("application/x-www-form-urlencoded; charset=none", b"a=b", 400),
     ("application/x-www-form-urlencoded", b"a=\xff", 400)],
)  # fmt: skip
async def test_a_form_that_cannot_be_read(
    acting: Client, seeded: Seeded, kind: str, data: bytes, status: int
) -> None:
    id_ = await seeded.quarantine(NEARLY)
    headers = OURS | JSON | {"Content-Type": kind}
    answer = await acting.post(f"/quarantine/{id_}/replay", headers=headers, data=data)
    assert answer.status == status


async def test_half_a_character_in_a_body_does_not_cost_its_page(
    client: Client, seeded: Seeded
) -> None:
    id_ = await seeded.quarantine(b'{"deviceId": "\\ud800", "result": 1}')
    for path in ("/quarantine", f"/quarantine/{id_}", f"/quarantine/{id_}/mend"):
        assert (await client.get(path)).status == 200, path
