"""`/devices/{id}`: why does this device not move."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from bridge.console import parts
from bridge.console.looking import Answer, looked_up
from bridge.console.page import ID, id_in
from bridge.operations import device
from bridge.operations.device import Device
from bridge.operations.progress import Bar

LIMIT: Final = 50
"""Notifications shown, the newest: as many as `nb-bridge device` shows."""


async def show(request: web.Request) -> web.StreamResponse:
    """What `nb-bridge device` says. A device that nobody knows has a partition all the same."""
    id_ = id_in(request)

    async def find(bar: Bar) -> Device:
        async with parts.of(request).opened() as connected:
            return await device.look(connected, id_, bar=bar)

    return await looked_up(request, f"device {id_}", find, _answer)


def _answer(found: Device) -> Answer:
    return Answer(
        template="device.html",
        context={"device": found, "newest": found.newest(LIMIT)[::-1]},
        document=found.document(LIMIT),
    )


ROUTES: Final = (web.get(f"/devices/{ID}", show),)
