"""The stream contract: what is written can be read, by us and by what is written elsewhere."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract import digests
from bridge.contract.digests import (
    ExactNumber,
    NotificationId,
    canonical_json,
    ledger_field,
    notification_digest,
)
from bridge.contract.entries import DeadLetter, Entry, EntryId, entry_order, is_entry_id
from bridge.contract.keys import Keys, partition_of
from bridge.contract.meta import ContractError, Meta, NewerContractError
from bridge.contract.whole_numbers import count, moment, whole_number

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
entries = st.builds(
    Entry,
    id=st.binary(min_size=16, max_size=16).map(lambda raw: NotificationId(raw.hex())),
    type=text,
    device=text,
    command=text,
    status=text,
    received_at_ms=st.integers(0, 2**53),
    body=st.binary(max_size=200),
    late=st.booleans(),
    for_group=st.none() | text,
    replayed=st.booleans(),
    traceparent=st.none() | text,
)
dead_letters = st.builds(
    DeadLetter,
    reason=text,
    attempts=st.integers(0, 1000),
    error_type=text,
    error=text,
    traceback=text,
    dead_at_ms=st.integers(0, 2**53),
    entry_id=st.builds(lambda ms, seq: EntryId(b"%d-%d" % (ms, seq)), *[st.integers(0, 2**64)] * 2),
)


def as_mapping(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def sample(**changes: Any) -> Entry:
    fields = {
        "id": NotificationId("0" * 32),
        "type": "nbCommandStateChanged",
        "device": "d",
        "command": "c",
        "status": "SENT",
        "received_at_ms": 1,
        "body": b"{}",
    }
    return Entry(**{**fields, **changes})


# --- entries


@given(entries)
def test_an_entry_reads_as_it_was_written(entry: Entry) -> None:
    assert Entry.decode(as_mapping(entry.encode())) == entry


@given(entries)
def test_an_entry_is_the_same_whichever_way_it_is_read(entry: Entry) -> None:
    assert Entry.read(entry.encode()) == entry


@pytest.mark.parametrize("value", [b"", b"1", b"2", b"\xff", b"body"])
@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_broken_entry_is_the_same_whichever_way_it_is_read(value: bytes, left_out: int) -> None:
    for at in range(16):
        fields = sample().encode()
        fields[at] = value
        fields = fields[: 16 - left_out]
        pairs = dict(zip(fields[::2], fields[1::2], strict=False))
        assert told(Entry.read, fields) == told(Entry.decode, pairs)


def told(read: Any, fields: Any) -> Entry | str:
    """What `read` makes of `fields`, or its error."""
    try:
        return read(fields)  # type: ignore[no-any-return]
    except ContractError as error:
        return f"{type(error).__name__}: {error}"


@given(entries, st.dictionaries(st.binary(max_size=8).map(b"x-".__add__), st.binary(max_size=8)))
def test_fields_nobody_knows_change_nothing(entry: Entry, more: dict[bytes, bytes]) -> None:
    assert Entry.decode(as_mapping(entry.encode()) | more) == entry


def test_optional_fields_are_absent_unless_they_say_something() -> None:
    assert as_mapping(sample().encode()).keys() == {
        b"v", b"type", b"id", b"device", b"command", b"status", b"received_at", b"body",
    }  # fmt: skip
    assert sample().encode()[-2] == b"body"


@pytest.mark.parametrize("field", [name for name in as_mapping(sample().encode()) if name != b"v"])
def test_an_entry_without_a_field_names_it(field: bytes) -> None:
    fields = as_mapping(sample().encode())
    del fields[field]
    with pytest.raises(ContractError, match=field.decode()):
        Entry.decode(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"v", b"x"),
        (b"v", b"0"),
        (b"v", b"-1"),
        (b"v", b""),
        (b"device", b"\xff"),
        (b"device", b"\xed\xa0\x80"),  # a surrogate, as some encoders write it
        (b"id", "ü".encode()),
        (b"received_at", b"soon"),
        (b"received_at", b"9" * 5000),  # beyond what the interpreter converts
        (b"for", b"\xff"),
    ],
)
def test_a_field_of_the_wrong_kind_is_against_the_contract(field: bytes, value: bytes) -> None:
    with pytest.raises(ContractError) as caught:
        Entry.decode(as_mapping(sample().encode()) | {field: value})
    assert not isinstance(caught.value, NewerContractError)


def test_an_entry_of_a_newer_contract_is_told_apart_whatever_else_it_holds() -> None:
    with pytest.raises(NewerContractError):
        Entry.decode({b"v": b"2"})


@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=12)))
def test_whatever_is_in_a_stream_is_an_entry_or_against_the_contract(
    fields: dict[bytes, bytes],
) -> None:
    with pytest.raises(ContractError):
        Entry.decode(fields)


# --- dead letters


@given(entries, dead_letters)
def test_a_dead_letter_reads_as_it_was_written_and_so_does_its_entry(
    entry: Entry, letter: DeadLetter
) -> None:
    fields = as_mapping([*entry.encode(), *letter.encode()])
    assert DeadLetter.decode(fields) == letter
    assert Entry.decode(fields) == entry


def test_an_error_text_that_is_not_unicode_can_be_kept() -> None:
    letter = DeadLetter(
        reason="max_attempts",
        attempts=1,
        error_type="E\ud800",
        error="\ud800",
        traceback="\udfff",
        dead_at_ms=1,
        entry_id=EntryId(b"1-0"),
    )
    assert DeadLetter.decode(as_mapping(letter.encode())).error == "?"


@pytest.mark.parametrize("missing", [b"dead_reason", b"dead_attempts", b"dead_entry"])
def test_a_record_without_its_reasons_is_no_dead_letter(missing: bytes) -> None:
    letter = DeadLetter(
        reason="r",
        attempts=1,
        error_type="",
        error="",
        traceback="",
        dead_at_ms=1,
        entry_id=EntryId(b"1-0"),
    )
    fields = as_mapping(letter.encode())
    del fields[missing]
    with pytest.raises(ContractError):
        DeadLetter.decode(fields)


# --- partitions, ids, digests


def test_the_partition_is_the_well_known_crc32() -> None:
    # The check value of CRC-32/ISO-HDLC, https://reveng.sourceforge.io/crc-catalogue/
    assert partition_of("123456789", 2**32) == 0xCBF43926
    assert partition_of("123456789", 16) == 6
    assert partition_of("dévice", 7) == zlib.crc32("dévice".encode()) % 7


@given(text, st.integers(1, 256))
def test_every_device_has_a_partition(device: str, partitions: int) -> None:
    assert 0 <= partition_of(device, partitions) < partitions


@given(*[st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))] * 2)
def test_stream_ids_order_as_numbers(a: tuple[int, int], b: tuple[int, int]) -> None:
    def order(pair: tuple[int, int]) -> tuple[int, int]:
        return entry_order(b"%d-%d" % pair)

    assert (order(a) < order(b)) == (a < b)


@given(*[st.tuples(text, text, text, st.binary(max_size=20))] * 2)
def test_two_notifications_share_a_digest_only_if_they_are_the_same(a: Any, b: Any) -> None:
    same = notification_digest(*a) == notification_digest(*b)
    assert same == (a == b)


def test_where_one_part_ends_and_the_next_begins_is_part_of_the_digest() -> None:
    assert ledger_field("ab", "c") != ledger_field("a", "bc")
    assert notification_digest("a", "b", "", b"c") != notification_digest("a", "b", "c", b"")
    assert len(ledger_field("a", "b")) == 16
    assert ledger_field("a", "b")[:8] == ledger_field("other", "b")[:8]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_is_ascii_and_loses_nothing(value: Any) -> None:
    assert json.loads(canonical_json(value).decode("ascii")) == value


@given(st.dictionaries(st.text(), json_values, min_size=2))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(turned) == canonical_json(value)


@given(json_values)
def test_canonical_json_is_spelled_as_any_library_can(value: Any) -> None:
    spelled = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    assert canonical_json(value) == spelled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json.encoder, "c_make_encoder", None)  # as on another interpreter
        assert digests._encoder()(value).encode() == spelled


plain_texts = st.text(st.characters(max_codepoint=0x7F), max_size=8) | st.text(max_size=4)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | plain_texts
    | st.just(ExactNumber("1e400")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_texts, inner, max_size=4),
    max_leaves=40,
)  # fmt: skip


@given(plain_values, st.sampled_from([3, digests.MOST_PARTS]))
def test_what_it_was_read_from_changes_nothing(value: Any, most_parts: int) -> None:
    source = json.dumps(value, default=lambda number: number.digits, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "LONG_BYTES", 0)
        patch.setattr(digests, "MOST_PARTS", most_parts)
        found = canonical_json(value, source=source)
    assert found == canonical_json(value)


@pytest.mark.parametrize("text", ["", "x", '"', "\\", "\n", "\x7f", "\x80", "é", "\u2028", "😀"])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_long_text_is_spelled_as_the_encoder_does(text: str, ensure_ascii: bool) -> None:
    value = {"b": ["x" * digests.LONG_BYTES, {}, [], 1.5, True, None], "a": {text: text}}
    source = json.dumps(value, ensure_ascii=ensure_ascii).encode()
    assert canonical_json(value, source=source) == canonical_json(value)


def test_canonical_json_keeps_integers_beyond_what_a_double_counts() -> None:
    assert canonical_json(2**64 + 1) == b"18446744073709551617"
    assert canonical_json(1) != canonical_json(1.0)
    assert canonical_json(1) != canonical_json(True)


# --- keys


def test_every_key_of_a_partition_has_the_same_hash_tag() -> None:
    keys = Keys(namespace="ns")
    of_partition = [
        keys.stream(3),
        *keys.ledger(3),
        keys.lease(3, "g"),
        keys.epoch(3, "g"),
        keys.ttl(3, "g"),
        keys.retry(3, "g"),
        keys.parked(3, "g"),
        keys.parked_device(3, "g", "d}{1"),
        keys.dead(3, "g"),
    ]
    # The tag is what stands between the first "{" and the next "}" (Redis Cluster specification).
    assert {re.match(r"[^{]*\{([^}]*)\}", key)[1] for key in of_partition} == {"ns:03"}  # type: ignore[index]
    assert keys.stream(3) == "{ns:03}:stream"
    assert keys.stream(123) == "{ns:123}:stream"
    assert len(set(of_partition)) == len(of_partition)


# --- meta


def test_meta_reads_as_it_was_written() -> None:
    meta = Meta(partitions=32)
    assert Meta.decode(meta.encode()) == meta
    assert json.loads(meta.encode()) == {"version": 1, "partitions": 32, "hash": "crc32"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'{"version":1}',
        b'{"version":"1","partitions":4,"hash":"crc32"}',
        b'{"version":1,"partitions":0,"hash":"crc32"}',
        b'{"version":true,"partitions":4,"hash":"crc32"}',
        b'{"version":1,"partitions":4.0,"hash":"crc32"}',
        b'{"version":1,"partitions":4,"hash":null}',
        b"\xff",
    ],
)
def test_a_meta_value_that_is_none_is_against_the_contract(raw: bytes) -> None:
    with pytest.raises(ContractError):
        Meta.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"-",
        b"1-",
        b"-1",
        b"1",
        b"x-1",
        b"1-x",
        b"1--1",
        b"1" * 21 + b"-1",
        b"1-1\n",
        b"\xff-1",
    ],
)
def test_what_is_no_stream_id_is_told_from_one(raw: bytes) -> None:
    assert not is_entry_id(raw)
    assert is_entry_id(b"0-0")
    assert is_entry_id(b"%d-%d" % (2**64 - 1, 2**64 - 1))


@pytest.mark.parametrize(
    "written", ["x", "", None, [], b"\xff", float("inf"), float("nan"), 2**63, "9" * 5000, "1e3"]
)
def test_what_is_no_number_of_ours_is_told(written: Any) -> None:
    with pytest.raises(ValueError, match="number"):
        whole_number(written)
    assert [whole_number(it) for it in (b"-7", "7", 7.9, 2**63 - 1)] == [-7, 7, 7, 2**63 - 1]


def test_counters_and_moments_are_read_or_not_there() -> None:
    assert [count(raw) for raw in (None, b"", b"x", b"-1", b"7", b"9" * 5000)] == [0, 0, 0, 0, 7, 0]
    assert [moment(raw) for raw in (None, b"x", b"-1", b"inf", b"nan", b"0", b"1.7e12", b"5")] == [
        None, None, None, None, None, 0, 1_700_000_000_000, 5,
    ]  # fmt: skip
