"""Bytes that are almost HTTP, written to a running ingress.

Whatever came before, the process lives, the next callback on a new connection is answered 200 and
published once, no request hidden in another's body is published, and the log holds neither a
traceback nor what a caller wrote.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.store.embedded import EmbeddedServer
from support.raw_http import HEAD, PATH, Target, body, chunked, request, send_and_read, statuses

pytestmark = pytest.mark.real

HIDDEN = "hidden"
INNER = request(HIDDEN)  # a whole callback, where only a body's bytes should be
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def target(
    real_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    found = Target(tmp_path_factory.mktemp("ingress"), real_server, body_timeout_s="0.5")
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _no_harm_was_done(target: Target) -> Iterator[None]:
    yield
    unharmed(target)


def unharmed(target: Target) -> None:
    """What holds after anything that a caller may do."""
    device = f"after-{uuid.uuid4()}"
    answer = target.exchange(request(device, b"Connection: close"))
    assert statuses(answer) == [200]
    assert target.published(device) == 1
    assert target.published(HIDDEN) == 0
    assert target.complaints() == []


def with_length(*lines: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


LENGTH = b"Content-Length: %d" % len(INNER)

# --- what frames a body in two ways ---------------------------------------------------------------

SMUGGLING = {
    "length, then chunked": with_length(LENGTH, CHUNKED[:-2]) + chunked() + INNER,
    "chunked, then length": with_length(CHUNKED[:-2], b"Content-Length: 5") + chunked() + INNER,
    "chunked twice": with_length(CHUNKED[:-2], CHUNKED[:-2]) + chunked() + INNER,
    "chunked, chunked": with_length(b"Transfer-Encoding: chunked, chunked") + chunked() + INNER,
    "chunked not last": with_length(b"Transfer-Encoding: chunked, gzip") + chunked() + INNER,
    "an unknown coding": with_length(b"Transfer-Encoding: xchunked", LENGTH) + INNER,
    "identity and length": with_length(b"Transfer-Encoding: identity", LENGTH) + INNER,
    "chunked in quotes": with_length(b'Transfer-Encoding: "chunked"', LENGTH) + INNER,
    "chunked after a tab inside": with_length(b"Transfer-Encoding: \x0bchunked", LENGTH) + INNER,
    "a blank before the colon": with_length(b"Transfer-Encoding : chunked", LENGTH) + INNER,
    "a blank before the name": with_length(b"X: y", b" Transfer-Encoding: chunked", LENGTH) + INNER,
    "a bare line feed": with_length(b"X: y\nTransfer-Encoding: chunked", LENGTH) + INNER,
    "a bare carriage return": HEAD + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + INNER,
    "two lengths": with_length(b"Content-Length: 0", LENGTH) + INNER,
    "two lengths in one line": with_length(b"Content-Length: 0, %d" % len(INNER)) + INNER,
    "a length with a sign": with_length(b"Content-Length: +0") + INNER,
    "a negative length": with_length(b"Content-Length: -1") + INNER,
    "a length in hex": with_length(b"Content-Length: 0x0") + INNER,
    "a length with an underscore": with_length(b"Content-Length: 1_0") + INNER,
    "a length in other digits": with_length("Content-Length: ٠".encode()) + INNER,
    "a length with a blank inside": with_length(b"Content-Length: 0 0") + INNER,
    "a length beyond all measure": with_length(b"Content-Length: 1" + b"0" * 5000) + INNER,
    "no length at all": with_length(b"Content-Length:") + INNER,
    "chunked in HTTP/1.0": (
        b"POST " + PATH + b" HTTP/1.0\r\n" + CHUNKED + LENGTH + b"\r\n\r\n" + chunked() + INNER
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SMUGGLING)
def test_a_body_framed_in_two_ways_is_refused_and_the_connection_closed(
    case: str, target: Target
) -> None:
    assert statuses(target.exchange(SMUGGLING[case])) == [400]


BAD_CHUNKS = {
    "no size": b"\r\n" + INNER,
    "a negative size": b"-1\r\n" + INNER,
    "a size with a sign": b"+0\r\n\r\n" + INNER,
    "a size with 0x": b"0x0\r\n\r\n" + INNER,
    "a size with a blank before": b" 0\r\n\r\n" + INNER,
    "a size with an underscore": b"0_0\r\n\r\n" + INNER,
    "a size that wraps 64 bits": b"10000000000000000\r\n\r\n" + INNER,
    "a bare line feed after the size": b"0\n\r\n" + INNER,
    "a line feed in an extension": b"0;x\n\r\n\r\n" + INNER,
    "a chunk longer than it said": b"1\r\nxy\r\n0\r\n\r\n" + INNER,
    "a chunk shorter than it said": b"3\r\nx\r\n0\r\n\r\n" + INNER,
    "a chunk ended by a line feed": b"1\r\nx\n0\r\n\r\n" + INNER,
    "a trailer that is none": b"0\r\nno colon\r\n\r\n" + INNER,
    "a trailer without end": b"0\r\n" + b"X: y\r\n" * 10_000,
    "a trailer with a NUL": b"0\r\nX: \0\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("case", BAD_CHUNKS)
def test_bad_chunking_is_refused_and_the_connection_closed(case: str, target: Target) -> None:
    status = 431 if case == "a trailer without end" else 400
    assert statuses(target.exchange(HEAD + CHUNKED + b"\r\n" + BAD_CHUNKS[case])) == [status]


@pytest.mark.parametrize("line", [b"0" * 20_000, b"1;" + b"x" * 20_000])
def test_the_line_of_a_chunk_that_does_not_end_has_the_time_of_a_body(
    line: bytes, target: Target
) -> None:
    assert statuses(target.exchange(HEAD + CHUNKED + b"\r\n" + line)) == [408]


# --- heads ----------------------------------------------------------------------------------------

BAD_HEADS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    "NUL bytes only": b"\0" * 4096 + b"\r\n\r\n",
    "no version": b"POST " + PATH + b"\r\n\r\n",
    "HTTP/2.0": b"POST " + PATH + b" HTTP/2.0\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version in small letters": b"POST " + PATH + b" http/1.1\r\n\r\n",
    "a NUL in the path": b"POST " + PATH + b"\0 HTTP/1.1\r\n\r\n",
    "a blank in the path": b"POST " + PATH + b" x HTTP/1.1\r\n\r\n",
    "a method that is no token": b"PO(ST " + PATH + b" HTTP/1.1\r\n\r\n",
    "a NUL in a name": HEAD + b"X\0Y: z\r\n\r\n",
    "a NUL in a value": HEAD + b"X: y\0z\r\n\r\n",
    "a carriage return in a value": HEAD + b"X: y\rz\r\n\r\n",
    "a folded line": HEAD + b"X: y\r\n folded\r\n\r\n",
    "no colon": HEAD + b"nothing\r\n\r\n",
    "no name": HEAD + b": value\r\n\r\n",
    "a start line without end": b"POST /" + b"a" * 100_000,
    "a long start line": b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without end": HEAD + b"X: " + b"y" * 100_000,
    "a long header": HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
    "a long name": HEAD + b"X" * 20_000 + b": y\r\n\r\n",
    "many headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
    "65 headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(64)) + b"\r\n",
}
TOO_LARGE = {
    "a start line without end", "a long start line", "a header without end", "a long header",
    "a long name", "many headers", "65 headers",
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_HEADS)
def test_what_is_no_head_is_refused_and_the_connection_closed(case: str, target: Target) -> None:
    received = target.exchange(BAD_HEADS[case], INNER)
    assert statuses(received) == [431 if case in TOO_LARGE else 400]
    assert b"application/problem+json" in received


# --- bodies that nobody reads ---------------------------------------------------------------------

REFUSED = {
    404: b"POST /elsewhere HTTP/1.1\r\nHost: x\r\n" + LENGTH + b"\r\n\r\n" + INNER,
    405: b"PUT " + PATH + b" HTTP/1.1\r\nHost: x\r\n" + LENGTH + b"\r\n\r\n" + INNER,
    413: HEAD + b"Content-Length: 99999999\r\n\r\n" + INNER,
    415: HEAD + b"Content-Encoding: gzip\r\n" + LENGTH + b"\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("status", REFUSED)
def test_a_request_in_the_body_of_a_refused_one_stays_a_body(status: int, target: Target) -> None:
    device = f"next-{uuid.uuid4()}"
    # All of them end the connection: of such a body not everything is read.
    assert statuses(target.exchange(REFUSED[status], request(device))) == [status]
    assert target.published(device) == 0


def test_a_request_in_a_body_that_is_no_json_stays_a_body(target: Target) -> None:
    received = target.exchange(HEAD + b"Connection: close\r\n" + LENGTH + b"\r\n\r\n" + INNER)
    assert statuses(received) == [400]


# --- pipelines ------------------------------------------------------------------------------------


def test_pipelined_callbacks_are_answered_and_published_once_each(target: Target) -> None:
    run = uuid.uuid4()
    devices = [f"{run}-{n}" for n in range(50)]
    pipeline = b"".join(map(request, devices[:-1])) + request(devices[-1], b"Connection: close")
    assert statuses(target.exchange(pipeline)) == [200] * 50
    assert [target.published(device) for device in devices] == [1] * 50


def test_a_pipeline_ends_where_it_stops_being_http(target: Target) -> None:
    before, after = f"before-{uuid.uuid4()}", f"behind-{uuid.uuid4()}"
    found = statuses(target.exchange(request(before) + b"NO HTTP\r\n\r\n" + request(after)))
    # What came in one piece with it is not answered 200 (aiohttp parses a piece whole or not at
    # all), and then it was not published either: its sender repeats it.
    assert found in ([400], [200, 400])
    assert target.published(before) == found.count(200)
    assert target.published(after) == 0


def test_what_follows_the_last_request_of_a_connection_is_not_handled(target: Target) -> None:
    last = f"last-{uuid.uuid4()}"
    found = statuses(target.exchange(request(last, b"Connection: close") + INNER))
    assert found in ([400], [200])  # as above
    assert target.published(last) == found.count(200)


OFFERS = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "websocket": (b"Connection: Upgrade", b"Upgrade: websocket"),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_to_change_the_protocol_is_ignored_and_the_connection_goes_on(
    offer: tuple[bytes, ...], target: Target
) -> None:
    devices = [f"offer-{uuid.uuid4()}" for _ in range(3)]
    with target.connect() as connection:
        for device in devices:
            connection.sendall(request(device, *offer))
            answer = b""
            while not answer.endswith(b"ok"):
                part = connection.recv(4096)
                assert part, "it was closed"
                answer += part
            assert statuses(answer) == [200]
    assert [target.published(device) for device in devices] == [1] * 3


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("before", [b"HTTP/1.1", b"Upgrade: ", b"Content-Length"])
def test_an_offer_in_a_head_that_comes_in_pieces_ends_the_connection(
    offer: tuple[bytes, ...], before: bytes, target: Target
) -> None:
    device = f"offer-{uuid.uuid4()}"
    whole = request(device, *offer)
    cut = whole.index(before)
    found = statuses(target.exchange(whole[:cut], whole[cut:] + INNER, pause_s=0.05))
    assert found == [200]
    assert target.published(device) == 1


def test_of_a_pipeline_of_offers_no_request_is_lost_in_silence(target: Target) -> None:
    devices = [f"offer-{uuid.uuid4()}" for _ in range(3)]
    whole = b"".join(request(device, *OFFERS["h2c"]) for device in devices)
    # The second ends the connection: its sender sends the third again.
    assert statuses(target.exchange(whole)) == [200, 200]
    assert [target.published(device) for device in devices] == [1, 1, 0]


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_body_that_comes_after_the_head_with_an_offer_is_its_body(
    offer: tuple[bytes, ...], target: Target
) -> None:
    device = f"offer-{uuid.uuid4()}"
    head, _, body_ = request(device, *offer, b"Connection: close").partition(b"\r\n\r\n")
    assert statuses(target.exchange(head + b"\r\n\r\n", body_)) == [200]
    assert target.published(device) == 1


def test_what_a_body_says_of_an_upgrade_stays_in_it(target: Target) -> None:
    device = f"offer-{uuid.uuid4()}"
    head, _, body_ = request(device, b"Connection: close").partition(b"\r\n\r\n")
    said = body_[:-1] + b', "x": "\\r\\nUpgrade: h2c\\r\\n"}'
    head = head.replace(b"Content-Length: %d" % len(body_), b"Content-Length: %d" % len(said))
    assert statuses(target.exchange(head + b"\r\n\r\n" + said)) == [200]
    assert target.published(device) == 1


def test_what_is_sent_through_a_tunnel_that_was_refused_is_not_handled(target: Target) -> None:
    assert statuses(target.exchange(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + INNER)) == [404]


# --- slow and gone --------------------------------------------------------------------------------


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_a_callback_that_comes_byte_by_byte_in_time_is_taken(target: Target) -> None:
    device = f"slow-{uuid.uuid4()}"
    whole = bytewise(request(device, b"Connection: close"))
    assert statuses(target.exchange(*whole)) == [200]
    assert target.published(device) == 1


def test_a_chunked_callback_of_single_bytes_is_taken(target: Target) -> None:
    device = f"chunks-{uuid.uuid4()}"
    head = HEAD + CHUNKED + b"Connection: close\r\n\r\n"
    assert statuses(target.exchange(head, chunked(*bytewise(body(device))))) == [200]
    assert target.published(device) == 1


def test_a_head_that_takes_too_long_ends_without_an_answer(target: Target) -> None:
    drops = [b"X-%d: y\r\n" % n for n in range(60)]
    assert target.exchange(HEAD, *drops, pause_s=0.05) == b""


def test_a_body_that_takes_too_long_is_answered_408_and_closed(target: Target) -> None:
    drops = [b"x"] * 60
    received = target.exchange(HEAD + b"Content-Length: 999\r\n\r\n", *drops, pause_s=0.05)
    assert statuses(received) == [408]


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("how", ["closed", "half-closed", "reset"])
def test_a_caller_that_goes_early_publishes_nothing(part: float, how: str, target: Target) -> None:
    device = f"gone-{uuid.uuid4()}"
    whole = request(device)
    with target.connect() as connection:
        connection.sendall(whole[: int(len(whole) * part)])
        if how == "half-closed":
            connection.shutdown(socket.SHUT_WR)
            assert 200 not in statuses(send_and_read(connection, []))
        elif how == "reset":
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    unharmed(target)
    assert target.published(device) == 0


# --- anything -------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(HEAD, INNER[:60], CHUNKED, b"Content-Length: 5\r\n", b"Content-Length: 0\r\n"),
        *(b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0\r\n\r\n", b"5\r\nhello\r\n", b"{}"),
        *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.1", b"GET / ", b"\xff"),
    ]
)
ALMOST_HTTP = st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=12).map(b"".join)


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sent=st.one_of(st.binary(max_size=300), ALMOST_HTTP))
def test_random_bytes_do_no_harm(target: Target, sent: bytes) -> None:
    with target.connect() as connection:
        connection.sendall(sent)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        found = statuses(send_and_read(connection, []))
    assert set(found) <= {100, 200, 400, 404, 405}
    unharmed(target)
