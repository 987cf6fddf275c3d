"""The description of the console's routes: it has all of them, and asks for credentials itself."""

from __future__ import annotations

import re

from bridge.console import health
from bridge.console.description import OPERATIONS

from .conftest import Begin
from .seeding import JSON, OURS

NOT_DESCRIBED = ("/log-in", "/log-out", "/assets/{name}", *health.PATHS)


async def test_every_route_is_described_and_no_other(begin: Begin) -> None:
    client = await begin(tokens=["t"])
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    there = {(method, path) for method, path in routes if path not in NOT_DESCRIBED}
    assert {(operation.method, operation.route) for operation in OPERATIONS} == there


async def test_it_is_for_whoever_is_let_in(begin: Begin) -> None:
    closed = await begin(tokens=["hunter2"])
    assert (await closed.get("/openapi.json", headers=JSON)).status == 401
    answer = await closed.get("/openapi.json", headers=JSON | {"Authorization": "Bearer hunter2"})
    text = await answer.text()
    assert "hunter2" not in text
    assert '"security": [{"bearer": []}, {"basic": []}]' in text
    assert '"security": []' in await (await (await begin()).get("/openapi.json")).text()


async def test_nothing_of_it_answers_whoever_is_not_let_in(begin: Begin) -> None:
    closed = await begin(tokens=["hunter2"], has_actions=True)
    for operation in OPERATIONS:
        path = re.sub(r"{\w+}", "1-1", operation.route)
        answer = await closed.request(operation.method, path, headers=JSON | OURS)
        assert answer.status == 401, operation.route
