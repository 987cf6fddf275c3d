"""What has an id that somebody found somewhere: a device, a command, a notification. Read-only."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from bridge.operations import device, trace
from bridge.operations.namespace import Namespace
from bridge.operations.progress import Bar, no_bar
from bridge.operations.search import Found, Search
from bridge.store.link import command

_NOTIFICATION_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """Commands and devices that have this id, or a notification of theirs does."""

    asked: str
    commands: tuple[str, ...]
    devices: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return asdict(self)


async def look(connected: Namespace, asked: str, *, bar: Bar = no_bar) -> Hits:
    """Looks for a device, then for a command, and for a notification if it may be the id of one.

    Raises what `Namespace.ask` raises.
    """
    commands, devices = [], []
    by_device = await device.look(connected, asked, bar=bar)
    if by_device.notifications or by_device.remembered.commands:
        devices.append(asked)
    if (await trace.trace(connected, asked, bar=bar)).is_found:
        commands.append(asked)
    if not commands and not devices and _NOTIFICATION_ID.fullmatch(asked.lower()):
        for found in await of_notification(connected, asked.lower(), bar=bar):
            if found.entry.command:
                commands.append(found.entry.command)
            elif found.entry.device:
                devices.append(found.entry.device)
    return Hits(
        asked=asked, commands=tuple(dict.fromkeys(commands)), devices=tuple(dict.fromkeys(devices))
    )


async def of_notification(connected: Namespace, id_: str, *, bar: Bar = no_bar) -> list[Found]:
    """The entries with a notification's id (a replay has one of its own), through all streams."""
    search = Search(connected, await connected.groups(), lambda entry: entry.id == id_)
    partitions, keys = range(connected.partitions), connected.keys
    lengths = await connected.ask(*(command("XLEN", keys.stream(number)) for number in partitions))
    found: list[Found] = []
    with bar(sum(length for length in lengths if isinstance(length, int))) as advance:
        for partition in partitions:
            found += await search.through(partition, None, advance)
    return found
