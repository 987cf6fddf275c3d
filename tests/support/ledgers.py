"""The ledger of a namespace, written as ingresses and workers do: by their scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bridge.contract import ledger
from bridge.contract.entries import DeadLetter, Entry, EntryId
from bridge.contract.keys import partition_of
from bridge.contract.ledger import Became, Noted, Record
from bridge.outbox.publisher import Publisher
from bridge.outbox.records import Arrival
from bridge.platform.forms.nb import accept_command_status
from consumers.worker import scripts
from support import servers
from support.ingresses import body

TOKEN = "w:1"
LETTER = DeadLetter(
    reason="rejected",
    attempts=3,
    error_type="Reject",
    error="no",
    traceback="",
    dead_at_ms=1,
    entry_id=EntryId(b"1-1"),
)


class Ledger:
    """What was published and settled; and what the ledger says of command `c1` of `d1`."""

    def __init__(self, redis: servers.Redis, *, partitions: int = 1, **limits: Any) -> None:
        self.redis, self.keys, self.client = redis, redis.keys, redis.client
        self._partitions = partitions
        self.to = Publisher(
            redis.link(),
            redis.keys,
            partitions=partitions,
            **{
                "dedupe_window_s": 3600.0,
                "ledger_max_records": 1000,
                "quarantine_max_entries": 3,
                **limits,
            },
        )

    async def publish(self, code: str = "SENT", **more: Any) -> Entry:
        """The entry; it may be a duplicate."""
        notification = accept_command_status(body(code=code, **more))
        await self.to.publish([Arrival(notification, 5)], timeout_s=10)
        return Entry(
            notification.id,
            notification.type,
            notification.device,
            notification.command,
            notification.status,
            5,
            notification.body,
        )

    async def settle(
        self,
        *handled: tuple[Entry, Became, int],
        group: str = "g",
        dead: Sequence[tuple[Entry, bytes]] = (),
        dead_max: int = 100,
        acknowledged: Sequence[bytes] = (),
        device: str = "d1",
    ) -> Any:
        """Outcomes of entries of one partition, that of `device`."""
        number = partition_of(device, self._partitions)
        await self.client.set(self.keys.lease(number, group), TOKEN)
        notes = ledger.encode_notes(ledger.note_of(*each) for each in handled)
        outcomes: list[Any] = [len(acknowledged), 0, 0, len(dead)]
        outcomes += [ledger.group_digest(group), notes, *acknowledged]
        for entry, entry_id in dead:
            note = ledger.encode_notes([ledger.note_of(entry, Became.DEAD, 3)])
            fields = [*entry.encode(), *replace(LETTER, entry_id=EntryId(entry_id)).encode()]
            outcomes += [entry_id, b"3:0", note, len(fields), *fields]
        call = scripts.settle(
            self.keys,
            group,
            number,
            token=TOKEN,
            ttl_ms=60_000,
            dead_max=dead_max,
            outcomes=outcomes,
        )
        return await self.redis.link().one(call, timeout_s=10)

    async def record(self, device: str = "d1", command: str = "c1") -> Record:
        field = accept_command_status(body(device, command)).ledger_field
        names = self.keys.ledger(partition_of(device, self._partitions))
        pages = [await self.client.hget(page, field) for page in names]  # type: ignore[misc]
        return ledger.read([page for page in pages if page is not None])

    async def noted(self, group: str = "g") -> list[Noted | None]:
        """Of each mark, oldest first."""
        record = await self.record()
        return [mark.groups.get(ledger.group_digest(group)) for mark in record.marks]

    async def is_later_than(self, at_ms: int) -> bool:
        """Whether it is, by the server's clock."""
        seconds, micros = await self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000 > at_ms

    async def turn(self) -> None:
        """The first partition's current page becomes the previous one."""
        current, previous = self.keys.ledger(0)
        await self.client.rename(current, previous)
