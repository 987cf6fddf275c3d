"""What `send` sends."""

from __future__ import annotations

import io
import json
from collections import defaultdict

import pytest

from bridge.cli.sending.traffic import FORMS, LIFE_OF_A_COMMAND, play, read
from bridge.platform import recognition
from bridge.platform.forms.nb import accept_command_status


def test_each_command_of_a_device_lives_its_life_before_the_next() -> None:
    lives: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for callback in play(devices=3, count=20, statuses=LIFE_OF_A_COMMAND):
        notification = accept_command_status(callback.body)
        assert notification.device == callback.device
        lives[callback.device].append((notification.command, notification.status))

    assert sorted(len(life) for life in lives.values()) == [6, 7, 7]
    for life in lives.values():
        for start in range(0, len(life), 3):
            one = life[start : start + 3]
            assert {command for command, _ in one} == {one[0][0]}
            assert [status for _, status in one] == list(LIFE_OF_A_COMMAND)[: len(one)]
    assert len({command for life in lives.values() for command, _ in life}) == 8


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognised_and_in_order_per_device(form: str) -> None:
    lives: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for callback in play(devices=3, count=18, statuses=LIFE_OF_A_COMMAND, form=form):
        notification = recognition.accept(callback.body)
        lives[callback.device].append((notification.command, notification.status))
        lines = read(io.BytesIO(callback.body))
        assert [line.device for line in lines] == [notification.device]
    for life in lives.values():
        assert [status for _, status in life] == [*LIFE_OF_A_COMMAND] * 2
        assert [command for command, _ in life] == [life[0][0]] * 3 + [life[3][0]] * 3
    assert len({command for life in lives.values() for command, _ in life}) == 6


def test_a_second_run_has_the_same_devices_and_other_commands() -> None:
    first, second = (list(play(devices=2, count=4, statuses=("SENT",))) for _ in range(2))
    assert [each.device for each in first] == [each.device for each in second]
    assert not {each.body for each in first} & {each.body for each in second}


def test_lines_of_a_file_go_as_they_are() -> None:
    lines = [b'{"deviceId": "a"}', b"", b"not json \xff", b' {"deviceId":"a"} ', b"[1]"]
    callbacks = read(io.BytesIO(b"\r\n".join(lines)))
    assert [each.body for each in callbacks] == [line for line in lines if line]
    devices = [callback.device for callback in callbacks]
    assert devices[0] == devices[2] == "a"
    assert len(set(devices)) == 3


@pytest.mark.parametrize("body", [b'{"deviceId": 5}', b"{}", b"[" * 100_000])
def test_a_line_without_a_device_is_sent_all_the_same(body: bytes) -> None:
    assert [each.body for each in read(io.BytesIO(body))] == [body]


def test_bodies_are_plain_json() -> None:
    (callback,) = play(devices=1, count=1, statuses=("FAILED",))
    assert json.loads(callback.body)["result"] == {"resultCode": "FAILED", "resultDetail": None}
