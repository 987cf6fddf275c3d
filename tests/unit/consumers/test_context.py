"""`request` and `delivery`: what a handler sees, and only its own."""

from __future__ import annotations

import asyncio
import json
import threading
from contextvars import copy_context
from typing import Any

import pytest

from bridge.contract.entries import Entry
from bridge.platform.forms.form import Documented
from consumers import delivery, request
from consumers.context import Current, Delivery
from support.entries import entry


def made(one: Entry | None = None, *, epoch: int = 7, **changes: Any) -> Delivery:
    return Delivery(one or entry(**changes), attempt=2, group="g", partition=3, epoch=epoch)


def test_outside_of_a_handler_they_say_how_to_test_one() -> None:
    for look in (
        lambda: request.json,
        lambda: request.data,
        lambda: request.get_json(),
        lambda: delivery.attempt,
        lambda: delivery.lost,
    ):
        with pytest.raises(RuntimeError, match=r"consumers\.testing"):
            look()


def test_everything_about_a_delivery_can_be_asked() -> None:
    one = entry("dév", type="t", late=True, replayed=True, received_at_ms=1_700_000_000_123)
    mine = made(one)
    with Current(mine):
        seen = (
            delivery.notification_id, delivery.type, delivery.attempt, delivery.group,
            delivery.partition, delivery.epoch, delivery.received_at, delivery.late,
            delivery.replayed, delivery.lost,
        )  # fmt: skip
        assert seen == (one.id, "t", 2, "g", 3, 7, 1_700_000_000.123, True, True, False)
        mine.lost = True
        assert delivery.lost


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 18446744073709551617, "b": 1.10, "c": "\\ud83d\\ude00", "d": null}',
        b'\xef\xbb\xbf{"a": "b"}',
        '{"ü": "\U0001f600"}'.encode(),
        b'{"a": 1, "a": 2}',
    ],
)
def test_the_body_is_read_exactly_as_the_standard_library_reads_it(body: bytes) -> None:
    with Current(made(body=body)):
        assert request.json == json.loads(body)
        assert request.get_json(force=True) == json.loads(body)
        assert request.data == request.get_data() == body
        assert request.json is request.json  # as Flask: what is read once stays


def test_what_one_delivery_changes_no_other_sees() -> None:
    one = entry()
    with Current(made(one)):
        request.json["deviceId"] = "changed"
    with Current(made(one)):
        assert request.json["deviceId"] == "d"


def test_nested_deliveries_end_in_the_one_before() -> None:
    with Current(made(epoch=1)):
        with Current(made(epoch=2)):
            assert delivery.epoch == 2
        assert delivery.epoch == 1


async def test_tasks_and_threads_of_a_handler_see_its_delivery() -> None:
    async def in_task() -> int:
        return delivery.epoch

    with Current(made(epoch=9)):
        assert await asyncio.create_task(in_task()) == 9
        assert await asyncio.to_thread(lambda: delivery.epoch) == 9
        context = copy_context()
    assert context.run(lambda: delivery.epoch) == 9


async def test_deliveries_beside_each_other_see_their_own() -> None:
    both = threading.Barrier(2)

    async def handle(epoch: int) -> tuple[int, int]:
        with Current(made(epoch=epoch)):
            before = delivery.epoch
            await asyncio.to_thread(both.wait, 10)
            return before, delivery.epoch

    assert await asyncio.gather(handle(1), handle(2)) == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("changes", "path", "args"),
    [
        ({}, "/v1.0.0/messageReceiver/cmd", {}),
        ({"type": "deviceAdded"}, "/v1.0.0/messageReceiver", {}),
        ({"path": "/own"}, "/own", {}),
        ({"path": "//iot/a%2Fb/"}, "/iot/a/b/", {}),
        ({"path": "/own?a=1&b=&a=2&c=%20%C3%BC"}, "/own", {"a": "1", "b": "", "c": " ü"}),
        ({"path": "/own?%%%=&;"}, "/own", {"%%%": "", ";": ""}),
    ],
)
def test_where_it_came_to_can_be_asked(
    changes: dict[str, Any], path: str, args: dict[str, str]
) -> None:
    with Current(made(**changes)):
        assert (request.path, request.args) == (path, args)


@pytest.mark.parametrize("raw", [None, "", "{", "[]", '{"a": 7}', "7"])
def test_circumstances_that_cannot_be_read_are_none(raw: str | None) -> None:
    with Current(made(path_params=raw, headers=raw)):
        assert (request.path_params, request.headers) == ({}, {})


def test_circumstances_are_those_that_the_ingress_wrote() -> None:
    with Current(made(path_params='{"tenant": "acme"}', headers='{"X-A": "b"}')):
        assert (request.path_params, request.headers) == ({"tenant": "acme"}, {"X-A": "b"})


def test_a_body_in_another_form_comes_in_the_shape_that_the_handler_knows() -> None:
    one = made(body=b'{"a": 1}')
    one.documented = Documented("t", lambda document: {"b": document["a"]})
    with Current(one):
        assert request.json == request.get_json() == {"b": 1}
        assert request.data == b'{"a": 1}'
