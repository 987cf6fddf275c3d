"""Anything as a callback, to a running ingress, on every path that it takes callbacks on.

Never a server error. Exactly one thing becomes of each: it is published, recognised as a duplicate,
put into quarantine, or refused with a status that the contract names; the counters say the same as
the stream, the ledger and the quarantine.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import pytest
import redis
from hypothesis import Phase, event, example, given, settings
from hypothesis import strategies as st

from bridge.contract import ledger
from bridge.contract.entries import Entry
from bridge.contract.keys import Keys, partition_of
from bridge.outbox.records import QuarantinedBody
from bridge.platform import recognition
from bridge.platform.strict_json import MAX_JSON_DEPTH
from bridge.store.embedded import EmbeddedServer
from support.near_misses import NOTIFICATIONS, bodies
from support.raw_http import PARTITIONS, Target, chunked, statuses

pytestmark = pytest.mark.real

MAX_BODY_BYTES: Final = 65_536
KEPT_BYTES: Final = 1000
PATHS: Final = (
    b"/v1.0.0/messageReceiver/cmd",
    b"/v1.0.0/messageReceiver",
    b"/push",
    b"/tenants/{tenant}/push/{name}",
)
EXAMPLES: Final = 3 * settings().max_examples


@dataclass(frozen=True)
class Request:
    """What is sent, and all that decides whether its body is looked at."""

    body: bytes
    target: bytes = PATHS[0]
    method: bytes = b"POST"
    encoding: bytes | None = None
    is_chunked: bool = False
    headers: tuple[bytes, ...] = ()

    @property
    def refused(self) -> int | None:
        """The status that is answered whatever the body says."""
        if self.target.startswith(b"/elsewhere"):
            return 404
        if self.method != b"POST":
            return 405
        if (self.encoding or b"").strip().lower() not in (b"", b"identity"):
            return 415
        return 413 if len(self.body) > MAX_BODY_BYTES else None

    def written(self) -> bytes:
        """As bytes, on a connection of its own."""
        lines = [self.method + b" " + self.target + b" HTTP/1.1", b"Host: x", b"Connection: close"]
        if self.encoding is not None:
            lines.append(b"Content-Encoding: " + self.encoding)
        lines += self.headers
        if self.is_chunked:
            half = len(self.body) // 2
            pieces = [piece for piece in (self.body[:half], self.body[half:]) if piece]
            lines.append(b"Transfer-Encoding: chunked")
            return b"\r\n".join(lines) + b"\r\n\r\n" + chunked(*pieces)
        lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def _segment(name: bytes) -> bytes:
    # `.` and `..` are names to us, and to nobody else.
    return quote(name, safe="").encode()


segments = st.binary(min_size=1, max_size=12).map(_segment)
queries = st.one_of(st.just(b""), segments.map(lambda text: b"?" + text), st.just(b"?a=b&a=%00%0A"))
targets = st.one_of(
    st.sampled_from(PATHS[:3]),
    st.sampled_from(PATHS[:3]),
    st.builds(lambda path, query: path + query, st.sampled_from(PATHS[:3]), queries),
    st.builds(lambda a, b, query: b"/tenants/" + a + b"/push/" + b + query,
              segments, segments, queries),
    st.sampled_from(
        [
            b"//v1.0.0//messageReceiver///cmd/", b"/v1.0.0%2FmessageReceiver%2Fcmd", b"/push/",
            b"/v1.0.0/messageReceiver/%63md", b"http://x/push?a", b"HTTPS://x:1/v1.0.0/messageReceiver",
        ]
    ),
    queries.map(lambda query: b"/elsewhere" + query),
)  # fmt: skip
# What a field of a header may be (RFC 9110, 5.5), whatever its bytes mean.
field_values = (
    st.lists(st.sampled_from([*range(0x21, 0x7F), *range(0x80, 0x100), 0x20, 0x09]), max_size=30)
    .map(bytes)
    .map(lambda value: value.strip(b" \t"))
)
content_types = st.sampled_from(
    [
        b"application/json", b"application/json;charset=UTF-8", b"text/plain; charset=gbk",
        b"application/json; charset=utf-16", b"application/json; charset=nothing", b"text/xml",
        b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"", b";",
    ]
)  # fmt: skip
headers = st.lists(
    st.one_of(
        (content_types | field_values).map(lambda value: b"Content-Type: " + value),
        st.builds(
            lambda name, value: name + b": " + value,
            st.sampled_from(
                [b"X-Trace", b"X-Trace", b"traceparent", b"Cookie", b"Accept", b"Content-Language"]
            ),
            field_values | st.just(b"00-%s-%s-01" % (b"a" * 32, b"b" * 16)),
        ),
    ),
    max_size=4,
    # Some that come twice aiohttp does not take for HTTP; that is in test_raw_http.py.
    unique_by=lambda line: line.partition(b":")[0],
).map(tuple)
encodings = st.sampled_from(
    [b"gzip", b"identity", b"IDENTITY ", b"", b"deflate, gzip", b"br", b"utf-8", b"\xff"]
)
requests = st.builds(
    Request,
    bodies,
    target=targets,
    method=st.sampled_from([*[b"POST"] * 9, b"PUT", b"GET", b"DELETE", b"PATCH"]),
    encoding=st.sampled_from([*[st.none()] * 4, encodings]).flatmap(lambda chosen: chosen),
    is_chunked=st.booleans(),
    headers=headers,
)


def is_object(body: bytes) -> bool:
    """Whether it is a JSON object of the bounds that are documented; by the standard library."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        text = body.decode().removeprefix("\ufeff")
        if depth(text) > MAX_JSON_DEPTH:
            return False
        return type(json.loads(text, parse_constant=refuse)) is dict
    except ValueError:  # a number of too many digits is one, and so is what has no UTF-8 form
        return False


def depth(text: str) -> int:
    """How deep brackets are nested, outside of texts."""
    deepest = now = 0
    for char in re.sub(r'"(?:[^"\\]|\\.)*"?', "", text, flags=re.DOTALL):
        now += (char in "[{") - (char in "]}")
        deepest = max(deepest, now)
    return deepest


@dataclass(frozen=True)
class Seen:
    """What counters and Redis say at one moment."""

    counted: Counter[str]
    streams: tuple[int, ...]
    ledger: int
    quarantined: int


class World:
    """The ingress, and what it has published so far."""

    def __init__(self, target: Target, client: redis.Redis, keys: Keys) -> None:
        self.target, self._client, self._keys = target, client, keys
        self.published: set[str] = set()
        self.before = self.look()

    def look(self) -> Seen:
        """All of it, in one round trip each."""
        with urllib.request.urlopen(f"{self.target.process.admin_url}/metrics") as response:
            text = response.read().decode()
        counted: Counter[str] = Counter()
        for line in text.splitlines():
            if line.startswith(("nb_bridge_callbacks_total", "nb_bridge_quarantined_total")):
                name, _, number = line.rpartition(" ")
                counted[" ".join(re.findall(r'="([^"]*)"', name))] += int(float(number))
        asked = self._client.pipeline(transaction=False)
        for number in range(PARTITIONS):
            asked.xlen(self._keys.stream(number))
        for number in range(PARTITIONS):
            for page in (*self._keys.ledger(number), *self._keys.platform_ledger(number)):
                asked.hlen(page)
        asked.xlen(self._keys.quarantine)
        asked.get(self._keys.quarantine_dropped)
        *lengths, quarantined, dropped = asked.execute()
        return Seen(
            counted=counted,
            streams=tuple(lengths[:PARTITIONS]),
            ledger=sum(lengths[PARTITIONS:]),
            quarantined=quarantined + int(dropped or 0),
        )

    def entry(self, before: Seen, after: Seen) -> Entry | None:
        """The one that was published between two looks, if one was."""
        grown = [n for n in range(PARTITIONS) if after.streams[n] > before.streams[n]]
        if not grown:
            return None
        (number,) = grown
        assert after.streams[number] == before.streams[number] + 1
        ((_, fields),) = self._client.xrevrange(self._keys.stream(number), count=1)
        return Entry.decode(fields)

    def newest_quarantined(self) -> QuarantinedBody:
        """The last body that was put there."""
        ((_, fields),) = self._client.xrevrange(self._keys.quarantine, count=1)
        return QuarantinedBody.decode(fields)

    def is_remembered(self, entry: Entry) -> bool:
        """Whether the ledger would know an equal notification again."""
        found = recognition.accept(entry.body, arrival_id=entry.id)
        partition = partition_of(entry.ordered_by, PARTITIONS)
        if not entry.command:
            page, _ = self._keys.platform_ledger(partition)
            return bool(self._client.hexists(page, found.ledger_field))
        page, _ = self._keys.ledger(partition)
        record = ledger.read([self._client.hget(page, found.ledger_field) or b""])
        return found.digest[:8] in {mark.digest for mark in record.marks}


@pytest.fixture(scope="module")
def world(real_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    target = Target(
        tmp_path_factory.mktemp("ingress"),
        real_server,
        callback_paths=b",".join(PATHS).decode(),
        keep_headers="X-Trace,Content-Type",
        max_body_bytes=str(MAX_BODY_BYTES),
        quarantine_max_body_bytes=str(KEPT_BYTES),
        quarantine_max_entries="50",
        publish_timeout_s="10",  # nothing is spooled because a machine is slow
    )
    with redis.Redis.from_url(real_server.url) as client:
        yield World(target, client, target.keys)
    assert target.complaints() == []
    target.close()


STATUS: Final = json.dumps(NOTIFICATIONS[0]).encode()


@settings(max_examples=EXAMPLES, phases=set(Phase) - {Phase.explain})
@given(body=bodies, target=st.sampled_from(PATHS), times=st.sampled_from([1, 1, 2]))
def test_exactly_one_thing_becomes_of_any_body(
    world: World, body: bytes, target: bytes, times: int
) -> None:
    for _ in range(times):
        becomes_one_thing(world, Request(body, target))


@settings(max_examples=EXAMPLES, phases=set(Phase) - {Phase.explain})
@given(request=requests, times=st.sampled_from([1, 1, 2]))
@example(request=Request(STATUS), times=2)
@example(request=Request(STATUS, target=PATHS[3]), times=1)
@example(request=Request(STATUS, encoding=b"gzip"), times=1)
@example(request=Request(STATUS, method=b"PUT"), times=1)
@example(request=Request(STATUS, target=b"/elsewhere"), times=1)
@example(request=Request(b" " * MAX_BODY_BYTES + STATUS), times=1)
@example(request=Request(b" " * MAX_BODY_BYTES + STATUS, is_chunked=True), times=1)
@example(request=Request(b'{"notifyType": "deviceAdded", "deviceId": "d"}'), times=2)
@example(request=Request(b'{"notifyType": "deviceAdded", "requestId": "7"}'), times=2)
@example(request=Request(b'{"hello": "world"}'), times=2)
@example(request=Request(b"[]"), times=1)
@example(request=Request(b""), times=1)
def test_exactly_one_thing_becomes_of_any_request(
    world: World, request: Request, times: int
) -> None:
    for _ in range(times):
        becomes_one_thing(world, request)


def becomes_one_thing(world: World, request: Request) -> None:
    before = world.before
    received = world.target.exchange(request.written())
    world.before = after = world.look()
    (status,) = statuses(received)
    text = received.partition(b"\r\n\r\n")[2]
    counted = after.counted - before.counted
    entry = world.entry(before, after)
    kept = after.quarantined - before.quarantined
    if request.refused is not None:
        assert status == request.refused
        assert counted == Counter({f"{status} rejected": 1})
        assert (entry, kept, after.ledger) == (None, 0, before.ledger)
    elif not is_object(request.body):
        assert status == 400
        assert counted == Counter({"400 rejected": 1, "not_json": 1})
        assert (entry, kept, after.ledger) == (None, 1, before.ledger)
        is_kept(world, request.body, "not_json")
    elif text == b"quarantined":
        assert status == 200
        assert counted == Counter({"200 quarantined": 1, "not_a_notification": 1})
        assert (entry, kept, after.ledger) == (None, 1, before.ledger)
        is_kept(world, request.body, "not_a_notification")
    elif entry is None:
        assert (status, text, kept) == (200, b"ok", 0)
        assert counted == Counter({"200 duplicate": 1})
        assert after.ledger == before.ledger
        assert recognition.accept(request.body).id in world.published
    else:
        assert (status, text, kept) == (200, b"ok", 0)
        outcome = "late" if entry.late else "published"
        assert counted == Counter({f"200 {outcome}": 1})
        assert entry.body == request.body
        assert entry.id not in world.published
        assert world.is_remembered(entry)
        world.published.add(entry.id)
    event(min(counted))


def is_kept(world: World, body: bytes, reason: str) -> None:
    """The newest body in quarantine is this one."""
    found = world.newest_quarantined()
    assert found.reason == reason
    assert found.body == body[:KEPT_BYTES]
    assert (found.length_bytes, found.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert found.details
