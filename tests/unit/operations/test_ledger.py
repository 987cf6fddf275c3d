"""Reading the ledger's records; what publish.lua writes is held against it in the integration."""

from __future__ import annotations

from bridge.contract.digests import canonical_json, notification_digest
from bridge.operations import ledger
from bridge.operations.ledger import Accepted


def mark(digest: bytes, at_ms: int) -> bytes:
    return digest + at_ms.to_bytes(6, "big")


A, B = b"A" * 8, b"B" * 8


def test_both_pages_are_one_record_oldest_first() -> None:
    current = b"\x02" + mark(B, 2000)
    previous = b"\x04" + mark(A, 1000) + mark(B, 500)
    found = ledger.read([current, previous])
    assert found.rank == 4
    assert found.accepted == (Accepted(digest=A, at_ms=1000), Accepted(digest=B, at_ms=2000))


def test_a_record_that_is_cut_short_is_read_as_far_as_it_goes() -> None:
    assert ledger.read([b"\x01" + mark(A, 7) + b"rest"]).accepted == (Accepted(digest=A, at_ms=7),)


def test_a_status_is_named_by_its_digest_for_every_usual_detail() -> None:
    names = ledger.usual_names("d", "c")
    for code in ("SENT", "SUCCESS", "SUCCESSFUL", "TIMEOUT"):
        for detail in (b"", canonical_json(None), canonical_json("None")):
            assert names[notification_digest("d", "c", code, detail)[:8]] == code
    assert notification_digest("d", "c", "SENT", b'"else"')[:8] not in names
