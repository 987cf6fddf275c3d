"""What has an id that somebody found somewhere: a device, a command, a notification. Read-only."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from bridge.operations import device, ledger, trace
from bridge.operations.namespace import Namespace
from bridge.operations.progress import Bar, no_bar
from bridge.operations.search import Found, Search
from bridge.store.link import command

SHORT: Final = 20_000
"""Entries in all streams that are read in less time than somebody waits for a search."""
_NOTIFICATION_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """Commands and devices that have this id, or a notification of theirs does."""

    asked: str
    commands: tuple[str, ...]
    devices: tuple[str, ...]
    is_complete: bool
    """Whether a command that the ledger has forgotten would have been found, too."""

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it."""
        return asdict(self)


async def look(connected: Namespace, asked: str, *, bar: Bar = no_bar) -> Hits:
    """Looks for a device, then for a command, and for a notification if it may be the id of one.

    For a command the ledger is asked; streams are looked through where they hold `SHORT` at most.
    Raises what `Namespace.ask` raises.
    """
    commands, devices = [], []
    is_short = sum(await _lengths(connected)) <= SHORT
    by_device = await device.look(connected, asked, bar=bar)
    if by_device.notifications or by_device.remembered.commands:
        devices.append(asked)
    if is_short:
        is_command = (await trace.trace(connected, asked, bar=bar)).is_found
    else:
        is_command = bool(await ledger.of_command(connected, asked, bar=bar))
    if is_command:
        commands.append(asked)
    if not commands and not devices and _NOTIFICATION_ID.fullmatch(asked.lower()):
        for found in await of_notification(connected, asked.lower(), bar=bar):
            if found.entry.command:
                commands.append(found.entry.command)
            elif found.entry.device:
                devices.append(found.entry.device)
    return Hits(
        asked=asked,
        commands=tuple(dict.fromkeys(commands)),
        devices=tuple(dict.fromkeys(devices)),
        is_complete=is_short,
    )


async def of_notification(connected: Namespace, id_: str, *, bar: Bar = no_bar) -> list[Found]:
    """The entries with a notification's id (a replay has one of its own), through all streams."""
    search = Search(connected, await connected.groups(), lambda entry: entry.id == id_)
    found: list[Found] = []
    with bar(sum(await _lengths(connected))) as advance:
        for partition in range(connected.partitions):
            found += await search.through(partition, None, advance)
    return found


async def _lengths(connected: Namespace) -> list[int]:
    streams = map(connected.keys.stream, range(connected.partitions))
    lengths = await connected.ask(*(command("XLEN", stream) for stream in streams))
    return [length for length in lengths if isinstance(length, int)]
