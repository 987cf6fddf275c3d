"""Quarantined bodies where they lie: finding them, publishing them after all, removing them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bridge.contract.digests import arrival_id
from bridge.errors import BridgeError
from bridge.http.paths import CallbackPaths
from bridge.operations import namespace, stream_ids
from bridge.operations.namespace import Namespace
from bridge.operations.publishing import publisher_for
from bridge.operations.selection import Filter
from bridge.outbox.records import NOTHING_MORE, Arrival, QuarantinedBody
from bridge.platform import recognition
from bridge.platform.forms import v5
from bridge.platform.notification import NotANotificationError, Notification
from bridge.platform.strict_json import NotJsonError
from bridge.settings import Settings
from bridge.store.link import Refused, command

PUBLISH_TIMEOUT_S = 5.0


class NotReplayableError(ValueError):
    """It cannot be published as it is; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One body in its place; `body` is `None` where the entry is not of ours."""

    id: bytes
    body: QuarantinedBody | None

    @property
    def device(self) -> str | None:
        """The device in the body, if that is so much as JSON and says one where a form has it."""
        try:
            document = json.loads(self.body.body) if self.body else {}
            if isinstance(document.get("notify_data"), dict):
                device = v5.device_of(document) or None
            else:
                device = document["deviceId"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return device if isinstance(device, str) and _has_bytes(device) else None

    @property
    def looks(self) -> str:
        """What is wrong with it in a few words: the same for bodies that are alike."""
        if self.body is None:
            return "unreadable"
        if self.body.reason == "not_json":
            return "is not a JSON object"
        return self.body.details.partition("; ")[0]

    @property
    def at_ms(self) -> int:
        """When it arrived."""
        return int(self.id.partition(b"-")[0]) if self.body is None else self.body.received_at_ms

    def document(self) -> dict[str, Any]:
        """As docs/commands.md has it: everything but the body."""
        body = self.body
        return {
            "id": self.id.decode(),
            "received_at_ms": self.at_ms,
            "path": None if body is None else body.path,
            "reason": "unreadable" if body is None else body.reason,
            "details": None if body is None else body.details,
            "device": self.device,
            "length_bytes": None if body is None else body.length_bytes,
            "whole": body is not None and body.is_whole,
            "sha256": None if body is None else body.sha256,
        }


async def matching(connected: Namespace, wanted: Filter) -> AsyncIterator[Kept]:
    """The selected bodies, oldest first."""
    async for page in connected.pages(connected.keys.quarantine):
        for id_, flat in page:
            kept = kept_in(id_, flat)
            if is_matched(kept, wanted):
                yield kept


def is_matched(kept: Kept, wanted: Filter) -> bool:
    """Whether a filter leaves a body."""
    error = f"{kept.body.reason} {kept.body.details}" if kept.body else ""
    device = kept.device if wanted.device is not None else None
    return wanted.matches(device=device, error=error, at_ms=kept.at_ms)


@dataclass(slots=True, kw_only=True)
class Alike:
    """Bodies with the same thing wrong; `example` is the id of the newest."""

    reason: str
    looks: str
    bodies: int = 0
    oldest_at_ms: int = 0
    newest_at_ms: int = 0
    example: str = ""

    def add(self, kept: Kept) -> None:
        """One more, newer than those before."""
        self.bodies += 1
        self.oldest_at_ms = self.oldest_at_ms or kept.at_ms
        self.newest_at_ms, self.example = kept.at_ms, kept.id.decode()


async def by_reason(found: AsyncIterator[Kept]) -> list[Alike]:
    """Groups bodies that are alike, the most frequent first."""
    return alike([kept async for kept in found])


def alike(found: Iterable[Kept]) -> list[Alike]:
    """The same of bodies that are at hand, oldest first."""
    groups: dict[tuple[str, str], Alike] = {}
    for kept in found:
        reason = "unreadable" if kept.body is None else kept.body.reason
        kind = Alike(reason=reason, looks=kept.looks)
        groups.setdefault((reason, kept.looks), kind).add(kept)
    return sorted(groups.values(), key=lambda kind: -kind.bodies)


async def find(connected: Namespace, id_: bytes) -> Kept | None:
    """One body; `None` if it is not there (any more)."""
    found = await connected.get(command("XRANGE", connected.keys.quarantine, id_, id_))
    return kept_in(*found[0]) if found else None


async def get(connected: Namespace, id_: bytes) -> Kept:
    """As `find`; `BridgeError` if it is not there (any more)."""
    found = await find(connected, id_)
    if found is None:
        raise BridgeError(
            f"there is no {id_.decode()} in quarantine; see `nb-bridge quarantine list`"
        )
    return found


def id_of(name: str) -> bytes:
    """Reads an id as `list` shows it; `UsageError` for anything else."""
    return stream_ids.parse(name)


async def remove(connected: Namespace, id_: bytes) -> bool:
    """Deletes one for good; False if it is not there (any more)."""
    keys = connected.keys
    removed, left = await connected.ask(
        command("XDEL", keys.quarantine, id_), command("XLEN", keys.quarantine)
    )
    if left == 0:  # what was dropped before is history with the last one
        await connected.ask(command("DEL", keys.quarantine_dropped))
    return bool(namespace.value(removed))


def kept_in(id_: bytes, flat: list[bytes]) -> Kept:
    """A body as it lies in the stream."""
    try:
        return Kept(id=id_, body=QuarantinedBody.decode(namespace.fields_of(flat)))
    except (KeyError, ValueError):
        return Kept(id=id_, body=None)


class Replayer:
    """Publishes bodies as the ingress would have."""

    def __init__(self, connected: Namespace, settings: Settings) -> None:
        self._connected = connected
        self._paths = CallbackPaths(settings.all_callback_paths)
        self._is_ready = False
        self._publisher = publisher_for(connected, settings)

    async def replay(self, kept: Kept, mended: bytes | None) -> str:
        """Publishes one, then removes it: what is interrupted between is a duplicate next time.

        Returns `replayed` or `duplicate`; `NotReplayableError` if it is still no notification.
        """
        notification = self._judge(kept, mended)
        if not self._is_ready:
            await self._publisher.probe(timeout_s=PUBLISH_TIMEOUT_S)
            self._is_ready = True
        # Its path without the query: that is not kept with what is no notification.
        path = "" if kept.body is None else quote(kept.body.path, safe="/%")  # 0.1 decoded it
        more = self._paths.find(path)
        arrival = Arrival(notification, kept.at_ms, more or NOTHING_MORE)
        (result,) = await self._publisher.publish([arrival], timeout_s=PUBLISH_TIMEOUT_S)
        if isinstance(result, Refused):
            raise BridgeError(f"Redis refused: {result.text}")
        await remove(self._connected, kept.id)
        return "duplicate" if result.value == "duplicate" else "replayed"

    def _judge(self, kept: Kept, mended: bytes | None) -> Notification:
        """Recognised anew: this version may know more forms than the one that kept it."""
        body = mended
        if body is None:
            if kept.body is None or not kept.body.is_whole:
                raise NotReplayableError("it was not kept whole: give the body with --file")
            body = kept.body.body
        try:
            # An id that is the same when a replay that was interrupted is tried again.
            return recognition.accept(body, arrival_id=arrival_id(kept.at_ms, body))
        except (NotJsonError, NotANotificationError) as error:
            raise NotReplayableError(f"still no notification: {error}") from None


def _has_bytes(text: str) -> bool:
    """Whether a text can be written at all: JSON may say half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
