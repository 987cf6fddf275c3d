"""The admin listener answers to addresses and known names, not to names that somebody chose."""

from __future__ import annotations

import aiohttp
import pytest

from bridge.http.admin import AdminListener
from bridge.http.listener import bind_admin


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8081", 200),
        ("[::1]:8081", 200),
        ("10.1.2.3", 200),
        ("localhost:8081", 200),
        ("ingress:8081", 200),
        ("ingress.bridge.svc", 200),
        ("Ingress.Bridge.SVC.:8081", 200),
        ("evil.example.com", 421),
        ("127.0.0.1.evil.example.com:8081", 421),
    ],
)
async def test_it_answers_to_addresses_plain_names_and_those_that_are_set(
    host: str, status: int
) -> None:
    admin = AdminListener(
        "127.0.0.1",
        listen=lambda: bind_admin("127.0.0.1", 0),
        ready=tuple,
        live=tuple,
        status=dict,
        names=["ingress.bridge.svc"],
    )
    await admin.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{admin.url}/livez", headers={"Host": host}) as answer,
        ):
            assert answer.status == status
            assert "NB_BRIDGE_ADMIN_NAMES" in await answer.text() or status == 200
    finally:
        await admin.stop()
