"""Anything in a form of the console, on every route that takes one.

Never a server error; nothing is done for who may not act, or from elsewhere than the console's own
pages; and whatever is done stands in the audit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from yarl import URL

from bridge.console.door.authentication import ANYBODY, LOG_IN, LOG_OUT
from bridge.contract.keys import partition_of
from bridge.operations.dead_letters import DeadBatch
from bridge.operations.selection import Filter
from support import servers
from support.ingresses import body

from .conftest import Begin, Client, World
from .seeding import JSON, OURS, PARTITIONS, Seeded

TOKEN: Final = "hunter2"
FORM: Final = "application/x-www-form-urlencoded"
LETTER, BODY = "0/1-1", "1-1"
JOB: Final = "{job}"
"""Stands in a path for the id of a job that has counted."""
MENDED: Final = body().decode()
DROP_ALL: Final = DeadBatch(group="default", verb="drop", wanted=Filter())
DEVICES: Final = [
    next(f"d{n}" for n in range(99) if partition_of(f"d{n}", PARTITIONS) == partition)
    for partition in range(PARTITIONS)
]
"""One in each partition."""


@dataclass(frozen=True)
class Form:
    """A path, and what is sent to it."""

    path: str
    data: bytes = b""
    content_type: str = FORM

    @classmethod
    def of(cls, path: str, *fields: tuple[str, str]) -> Form:
        return cls(path, urlencode(fields).encode())


ACTING: Final = [
    Form.of("/groups/pause", ("group", "default")),
    Form.of("/groups/resume", ("group", "paused")),
    Form.of("/groups/protect", ("group", "default")),
    Form.of("/groups/unprotect", ("group", "paused")),
    Form.of(f"/dead/default/{LETTER}/replay"),
    Form.of(f"/dead/default/{LETTER}/drop"),
    Form.of(f"/quarantine/{BODY}/replay", ("body", MENDED)),
    Form.of(f"/quarantine/{BODY}/drop"),
    Form.of(f"/jobs/{JOB}/start", ("rate", "")),
]
"""Each of them changes something in Redis."""
OTHERS: Final = [
    Form.of("/jobs", ("of", "dead"), ("group", "default"), ("verb", "drop")),
    Form.of("/jobs", ("of", "quarantine"), ("verb", "replay"), ("since", "1h")),
    Form.of(f"/jobs/{JOB}/stop"),
    Form.of(LOG_IN, ("token", TOKEN), ("next", "/dead")),
    Form.of(LOG_IN, ("user", "ada"), ("password", "x")),
    Form.of(LOG_OUT),
]


class Place:
    """A console with something to act on, made anew for each example."""

    def __init__(self, seeded: Seeded) -> None:
        self._seeded, self._world = seeded, seeded.world

    async def fill(self) -> str:
        """The id of a job that has counted."""
        await self._seeded.client.flushall()
        await self._seeded.register("default", "paused")
        keys = self._seeded.keys
        await self._seeded.client.sadd(keys.paused, "paused")  # type: ignore[misc]
        await self._seeded.client.sadd(keys.protected, "paused")  # type: ignore[misc]
        for device in DEVICES:
            await self._seeded.bury(device=device, id="1-1")
        await self._seeded.quarantine(b"{\xff}", id=BODY)
        job = await self._world.jobs.count("ada", DROP_ALL)
        await self.rest()
        return job.id

    async def rest(self) -> None:
        """Until no job runs."""
        while self._world.jobs._tasks:
            await asyncio.wait(set(self._world.jobs._tasks))

    async def held(self) -> dict[str, Any]:
        """All that Redis holds, but for the audit."""
        client, found = self._seeded.client, {}
        for key in sorted(await client.keys()):
            if key == self._seeded.keys.audit.encode():
                continue
            kind = await client.type(key)
            if kind == b"set":
                found[key] = sorted(await client.smembers(key))  # type: ignore[misc]
            elif kind == b"stream":
                found[key] = await client.xrange(key)
            elif kind == b"hash":
                found[key] = await client.hgetall(key)  # type: ignore[misc]
            else:
                found[key] = await client.get(key)
        return found


@pytest.fixture
async def seeded(fake: servers.Redis, world: World) -> AsyncIterator[Seeded]:
    found = Seeded(fake, world)
    yield found
    await world.jobs.stop()


async def send(client: Client, form: Form, job: str, headers: dict[str, str]) -> int:
    """The status of the answer, which was read to its end."""
    async with client.post(
        URL(form.path.replace(JOB, job), encoded=True),
        data=form.data,
        headers={**({"Content-Type": form.content_type} if form.content_type else {}), **headers},
        skip_auto_headers=["Content-Type"],
        allow_redirects=False,
    ) as answer:
        await answer.read()
        return answer.status


# --- what is sent

names = st.sampled_from(
    ["group", "body", "rate", "of", "verb", "device", "error", "line", "since", "until", "token",
     "user", "password", "next", "", "x"]
)  # fmt: skip
words = st.sampled_from(
    ["default", "paused", "dead", "quarantine", "replay", "drop", "1h", "1e9", "nan", "inf", "-1",
     "1", "2026-11-01T00:00", "9" * 400, "1e-320", TOKEN, "/dead", "//x", "\\", "\0", "\n", " ",
     "\u202e", "<b>", "x" * 257, "x" * 501, "x" * 20_000, MENDED, "{", "%", "%zz", "+", "１"]
)  # fmt: skip
texts = words.map(str.encode) | st.text(max_size=20).map(
    lambda text: text.encode(errors="surrogatepass")
) | st.binary(max_size=20)  # fmt: skip
pairs = st.lists(
    st.builds(
        lambda name, value: name.encode() + b"=" + quote_from_bytes(value).encode(), names, texts
    ),
    max_size=6,
).map(b"&".join)
data = pairs | pairs | st.binary(max_size=60) | st.builds(lambda a, b: a + b"&" + b, pairs, texts)
charsets = st.sampled_from(
    ["utf-8", "latin-1", "utf-16", "utf-7", "utf-32", "gbk", "idna", "punycode", "undefined",
     "unicode_escape", "raw_unicode_escape", "zlib", "hex", "rot13", "nothing", '"', "a" * 300,
     "utf-8-sig", "mbcs", "charmap", "\u00e9"]
).map(lambda charset: f"{FORM}; charset={charset}")  # fmt: skip
OTHER_TYPES: Final = ("", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain",
                      "application/json", "x", ";", f"{FORM};charset")  # fmt: skip
content_types = st.sampled_from([*[FORM] * 6, None]).flatmap(
    lambda chosen: st.just(chosen) if chosen else charsets | st.sampled_from(OTHER_TYPES)
)
segments = st.binary(min_size=1, max_size=12).map(lambda name: quote_from_bytes(name, safe=""))
ids = st.sampled_from(
    ["1-1", "0-0", "1", "-", "1-", f"{2**64}-0", "%EF%BC%91-1", "1-1%0A", "+", "%28", "1-1-1"]
)
paths = st.one_of(
    st.sampled_from([form.path for form in (*ACTING, *OTHERS)]),
    st.builds(
        lambda group, partition, id_, verb: f"/dead/{group}/{partition}/{id_}/{verb}",
        st.just("default") | segments,
        st.sampled_from(["0", "3", "4", "-1", "256", "0x0", "%D9%A0", "9" * 30]) | segments,
        ids | segments,
        st.sampled_from(["replay", "drop"]),
    ),
    st.builds(lambda id_, verb: f"/quarantine/{id_}/{verb}", ids | segments,
              st.sampled_from(["replay", "drop"])),
    st.builds(lambda id_, verb: f"/jobs/{id_}/{verb}", segments,
              st.sampled_from(["start", "stop"])),
)  # fmt: skip
anything = st.builds(Form, paths, data, content_types)
varied = st.builds(
    lambda form, more, content_type: replace(
        form, data=form.data + (more and b"&" + more), content_type=content_type
    ),
    st.sampled_from([*ACTING, *OTHERS]),
    st.just(b"") | pairs,
    content_types,
)
forms = varied | anything
UNTIMED: Final = settings(
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# --- what becomes of it


async def test_each_route_that_takes_a_form_is_tried(begin: Begin) -> None:
    client = await begin(tokens=[TOKEN])
    there = {
        route.resource.canonical
        for route in client.app.router.routes()
        if route.method == "POST" and route.resource is not None
    }
    tried = {form.path for form in (*ACTING, *OTHERS)}
    assert {
        path.replace(f"default/{LETTER}", "{group}/{partition}/{id}")
        .replace(BODY, "{id}")
        .replace(JOB, "{id}")
        for path in tried
    } == there


@pytest.mark.parametrize("form", ACTING, ids=lambda form: form.path)
async def test_what_acts_is_done_and_stands_in_the_audit(
    acting: Client, seeded: Seeded, form: Form
) -> None:
    place = Place(seeded)
    job = await place.fill()
    before = await place.held()
    assert await send(acting, form, job, OURS | JSON) == 200
    await place.rest()
    assert await place.held() != before
    assert {who for who, *_ in await seeded.audit()} == {ANYBODY}


@UNTIMED
@given(form=forms, accept=st.sampled_from([JSON, {}]))
async def test_no_form_is_a_server_error_and_what_is_done_stands_in_the_audit(
    acting: Client, seeded: Seeded, form: Form, accept: dict[str, str]
) -> None:
    place = Place(seeded)
    job = await place.fill()
    before = await place.held()
    status = await send(acting, form, job, OURS | accept)
    await place.rest()
    assert status < 500
    told = await seeded.audit()
    if await place.held() != before:
        assert told
    for who, action, what, outcome in told:
        assert who == ANYBODY
        assert action
        assert what
        assert outcome
    outcomes = [outcome for *_, outcome in told]
    assert outcomes.count("begun") * 2 == len(outcomes)  # and each says how it ended


STRANGERS: Final = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "https://evil.example.com"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {},
    {**OURS, "Host": "evil.example.com"},
]
"""Not from a page of ours; with the right token."""
UNKNOWN: Final = [
    {},
    {"Authorization": "Bearer x"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": f"bearer\t{TOKEN}"},
    {"Authorization": ""},
    {"Authorization": "\u00e9"},
    {"Cookie": "console=x"},
    {"Cookie": f"console={TOKEN}; console="},
    {"Cookie": "=;;=\u00e9"},
    {"X-Token": TOKEN},
]
"""From our page; with no token, or a wrong one."""
KNOWN: Final = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def closed(begin: Begin) -> Client:
    """Of a console that acts, for who knows its token."""
    return await begin(tokens=[TOKEN], has_actions=True)


@pytest.mark.parametrize("form", ACTING, ids=lambda form: form.path)
async def test_who_may_act_does(closed: Client, seeded: Seeded, form: Form) -> None:
    """So what the next test sees refused would have been done."""
    job = await Place(seeded).fill()
    assert await send(closed, form, job, OURS | KNOWN | JSON) == 200
    assert {who[:6] for who, *_ in await seeded.audit()} == {"token "}


@UNTIMED
@given(
    form=forms,
    headers=st.sampled_from([{**KNOWN, **it} for it in STRANGERS] + [OURS | it for it in UNKNOWN]),
    accept=st.sampled_from([JSON, {}]),
)
async def test_no_form_does_anything_for_who_may_not_act(
    closed: Client, seeded: Seeded, form: Form, headers: dict[str, str], accept: dict[str, str]
) -> None:
    place = Place(seeded)
    job = await place.fill()
    before = await place.held()
    seeded.world.clock.now_s += 1000  # how often credentials were wrong is forgotten
    closed.session.cookie_jar.clear()  # and so is who logged in
    status = await send(closed, form, job, headers | accept)
    await place.rest()
    if form.path == LOG_IN:  # the right token lets in, and does nothing
        assert status < 500
    else:
        assert status in (401, 403, 404, 421)
    assert await place.held() == before
    assert await seeded.audit() == []


@UNTIMED
@given(form=forms, accept=st.sampled_from([JSON, {}]))
async def test_a_console_that_only_shows_does_nothing(
    client: Client, seeded: Seeded, form: Form, accept: dict[str, str]
) -> None:
    place = Place(seeded)
    job = await place.fill()
    before = await place.held()
    status = await send(client, form, job, OURS | accept)
    await place.rest()
    assert status in (403, 404, 413)
    assert await place.held() == before
    assert await seeded.audit() == []
