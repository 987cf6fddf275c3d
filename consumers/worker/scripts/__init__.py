"""The Lua scripts of a worker: a function for each makes the call, a type says what it replies.

Owns the order of arguments and replies. Each script's own file says what its KEYS and ARGV are,
what it returns, and why it has to be atomic. Must not send anything: callers give the calls to a
`Link`, mostly many in one round trip. Start reading at `settle.lua`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from bridge.contract.keys import Keys
from bridge.store.link import Argument, Call, Script

PACKAGE: Final = "consumers.worker"

ACQUIRE: Final = Script.load(PACKAGE, "acquire")
FETCH: Final = Script.load(PACKAGE, "fetch")
HEARTBEAT: Final = Script.load(PACKAGE, "heartbeat")
LOAD: Final = Script.load(PACKAGE, "load")
MAKE_GROUP: Final = Script.load(PACKAGE, "make_group")
PARK: Final = Script.load(PACKAGE, "park")
REGISTER: Final = Script.load(PACKAGE, "register")
RELEASE: Final = Script.load(PACKAGE, "release")
RENEW: Final = Script.load(PACKAGE, "renew")
REPLAY: Final = Script.load(PACKAGE, "replay")
SETTLE: Final = Script.load(PACKAGE, "settle", behind=("history",))
TRIM: Final = Script.load(PACKAGE, "trim")
UNPARK: Final = Script.load(PACKAGE, "unpark", behind=("history",))

RENEWED: Final = 1
GROUP_MISSING: Final = -1
"""What `trim` replies when a registered group is not on the stream: nothing was removed."""


USUAL_VALUES: Final = 7
RawEntry = tuple[bytes, list[bytes] | None]
"""Id, and field names and values; of an entry with the usual fields (`entries.is_usual`) only these
values, but for `v`: to say the names takes a server longer than all else. `None` where the entry
was deleted while it was pending.
"""


class Acquired(NamedTuple):
    """A lease that is ours now."""

    epoch: int
    clean: bool
    """Whether the last epoch ended cleanly, or is one that we can vouch for."""
    delivered: bytes
    """The group's last-delivered-id."""
    parked: list[bytes]
    """The first parked devices, each followed by when it is due (epoch ms)."""


class Fetched(NamedTuple):
    """Entries of one partition."""

    entries: list[RawEntry]
    records: list[bytes | None]
    """Attempt records of pending entries; empty for new ones."""
    delivered: bytes
    """The group's last-delivered-id before this call."""
    cut: int
    """Bytes of the entry that did not fit, 0 if there is none."""


class Loaded(NamedTuple):
    """The first messages of one parked device."""

    messages: list[bytes]
    records: list[bytes | None]
    cut: int
    """1 where there was no room for the next message."""


class Unparked(NamedTuple):
    """What is left of a parked device after an outcome."""

    length: int
    is_dead_full: int
    """1 where a dead letter was refused, for the dead stream is full."""


# --- leases


def acquire(
    keys: Keys, group: str, number: int, *, worker: str, ttl_ms: int, vouched_epoch: int
) -> Call:
    """Replies what `acquired` reads."""
    names = (
        keys.lease(number, group),
        keys.epoch(number, group),
        keys.retry(number, group),
        keys.stream(number),
        keys.parked(number, group),
        keys.ttl(number, group),
    )
    return ACQUIRE.call(names, (worker, group, ttl_ms, vouched_epoch))


def acquired(reply: list[Any]) -> Acquired | None:
    """`None` where another worker holds the lease."""
    if reply[0] != 1:
        return None
    _, epoch, clean, delivered, parked = reply
    return Acquired(int(epoch), clean == 1, delivered, parked)


def renew(keys: Keys, group: str, number: int, *, token: str, ttl_ms: int) -> Call:
    """Replies `RENEWED`, or something else where the lease is not ours any more."""
    return RENEW.call((keys.lease(number, group),), (token, ttl_ms))


def release(
    keys: Keys,
    group: str,
    number: int,
    *,
    token: str,
    epoch: int,
    records: Mapping[bytes, bytes],
) -> Call:
    """`records`: attempt records to write, by entry id. Replies 1, or 0: not ours."""
    names = (
        keys.lease(number, group),
        keys.retry(number, group),
        keys.stream(number),
        keys.parked(number, group),
    )
    pairs = chain.from_iterable(records.items())
    return RELEASE.call(names, (token, epoch, group, *pairs))


def heartbeat(keys: Keys, group: str, *, worker: str, gone_ms: int) -> Call:
    """Replies the workers that are alive, sorted: `list[bytes]`."""
    return HEARTBEAT.call((keys.workers(group),), (worker, gone_ms))


# --- deliveries


def fetch(
    keys: Keys,
    group: str,
    number: int,
    *,
    token: str,
    consumer: str,
    from_: bytes,
    most_entries: int,
    most_bytes: int,
    delivered: bytes,
    first_whole: bool,
    step: int,
) -> Call:
    """Replies what `fetched` reads, or FENCED. `from_`: `b">"`, or pending ones after this id."""
    names = (keys.lease(number, group), keys.stream(number), keys.retry(number, group))
    fixed = (token, group, consumer, from_, most_entries, most_bytes)
    return FETCH.call(names, (*fixed, delivered, int(first_whole), step))


def fetched(reply: list[Any]) -> Fetched:
    """The entries of a reply one by one."""
    flat, records, delivered, cut = reply
    entries: list[RawEntry] = []
    at = 0
    while at < len(flat):
        entry_id, count = flat[at], flat[at + 1]
        at += 2
        if count < 0:
            entries.append((entry_id, None))
            continue
        entries.append((entry_id, flat[at : at + count]))
        at += count
    return Fetched(entries, records, delivered, cut)


def settle(
    keys: Keys,
    group: str,
    number: int,
    *,
    token: str,
    ttl_ms: int,
    dead_max: int,
    outcomes: Sequence[Argument],
) -> Call:
    """Replies the ids for which the dead stream has no room (`list[bytes]`), or FENCED."""
    names = (
        keys.lease(number, group),
        keys.stream(number),
        keys.retry(number, group),
        keys.dead(number, group),
        *keys.ledger(number),
    )
    return SETTLE.call(names, (token, ttl_ms, group, dead_max, *outcomes))


def trim(keys: Keys, number: int, groups: Sequence[bytes]) -> Call:
    """Replies how many entries are gone, or `GROUP_MISSING`."""
    return TRIM.call((keys.stream(number),), groups)


def replay(keys: Keys, group: str, number: int, dead_id: bytes) -> Call:
    """Replies the id of the new entry, or `None` where there is no such dead letter."""
    return REPLAY.call((keys.dead(number, group), keys.stream(number)), (dead_id, group))


# --- parked devices


def park(
    keys: Keys,
    group: str,
    number: int,
    device: str,
    *,
    token: str,
    ttl_ms: int,
    due_ms: int | str,
    messages: Sequence[Argument],
) -> Call:
    """`messages`: triples of entry id, attempt record, netstrings. Replies the list's length."""
    names = (
        keys.lease(number, group),
        keys.stream(number),
        keys.parked(number, group),
        keys.parked_device(number, group, device),
        keys.retry(number, group),
    )
    return PARK.call(names, (token, ttl_ms, group, device, due_ms, *messages))


def load(
    keys: Keys,
    group: str,
    number: int,
    *,
    devices: Sequence[str],
    pages: Sequence[int],
    most_bytes: int,
    first_whole: bool,
) -> Call:
    """Replies a `Loaded` for each device. `pages`: the most messages of each."""
    lists = [keys.parked_device(number, group, device) for device in devices]
    names = (keys.retry(number, group), *lists)
    return LOAD.call(names, (most_bytes, int(first_whole), *pages))


def unpark(
    keys: Keys,
    group: str,
    number: int,
    device: str,
    *,
    token: str,
    ttl_ms: int,
    beginning: bytes,
    history: tuple[bytes, bytes],
    outcome: Sequence[Argument],
) -> Call:
    """Replies an `Unparked`, FENCED, or WENTBACK. `beginning`: what the message begins with;
    `history`: group and notes as history.lua takes them, empty for none.
    """
    names = (
        keys.lease(number, group),
        keys.parked(number, group),
        keys.parked_device(number, group, device),
        keys.retry(number, group),
        keys.dead(number, group),
        *keys.ledger(number),
    )
    return UNPARK.call(names, (token, ttl_ms, device, beginning, *history, *outcome))


# --- groups, while Redis is full


def register(keys: Keys, group: str) -> Call:
    """Adds `group` to the registered ones."""
    return REGISTER.call((keys.groups,), (group,))


def make_group(keys: Keys, group: str, number: int) -> Call:
    """Makes `group` on a partition's stream."""
    return MAKE_GROUP.call((keys.stream(number),), (group,))
