"""Sending as the platform does, through an ingress and two workers, as real processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from support import recording
from support.ports import free_port
from support.programs import Program, Programs
from support.servers import Redis
from support.waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.real

PARTITIONS = 16


@pytest.fixture
def environ(real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that all programs of a test share."""
    for name, value in {
        "NB_BRIDGE_REDIS_URL": real_redis.url,
        "NB_BRIDGE_NAMESPACE": real_redis.namespace,
        "NB_BRIDGE_ADMIN_PORT": "0",
        "NB_BRIDGE_SPOOL_DIR": str(tmp_path / "spool"),
        recording.FOLDER_VARIABLE: str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)


class Bridge:
    """An ingress and workers on one namespace."""

    def __init__(self, programs: Programs, redis: Redis) -> None:
        self._programs = programs
        self._redis = redis
        self.port, self._admin_port = free_port(), free_port()
        self.ingress = programs.start(
            "serve", "--host", "127.0.0.1", "--port", str(self.port),
            "--admin-port", str(self._admin_port),
        )  # fmt: skip
        wait_until_sync(self._is_ready, "the ingress to be ready")

    def _is_ready(self) -> bool:
        assert self.ingress.process.poll() is None, self.ingress.errors
        try:
            with urlopen(f"http://127.0.0.1:{self._admin_port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def workers(self, count: int) -> list[Program]:
        """That many workers, sharing the partitions."""
        started = [
            self._programs.start(
                "worker", "--receiver", recording.RECEIVER, name=f"worker-{number}"
            )
            for number in range(count)
        ]
        await wait_until(lambda: self._is_shared_by(count), f"{count} workers to share")
        return started

    async def _is_shared_by(self, count: int) -> bool:
        keys = [self._redis.keys.lease(p, "default") for p in range(PARTITIONS)]
        held = Counter(
            lease.split(b":")[0] for lease in await self._redis.client.mget(keys) if lease
        )
        return len(held) == count and held.total() == PARTITIONS

    async def assert_empty(self) -> None:
        """Nothing pending, and every stream trimmed to nothing."""
        for partition in range(PARTITIONS):
            stream = self._redis.keys.stream(partition)
            pending = await self._redis.client.xpending(stream, "default")
            assert (pending["pending"], await self._redis.client.xlen(stream)) == (0, 0)


@pytest.fixture
def bridge(programs: Programs, real_redis: Redis, environ: None) -> Bridge:
    return Bridge(programs, real_redis)


def sent(record: Path) -> list[dict[str, Any]]:
    """The bodies that were answered 200, in that order."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return [json.loads(line["body"]) for line in lines if line["code"] == 200]


async def everything_is_handled(folder: Path, count: int) -> None:
    await wait_until(
        lambda: (
            sum(file.read_bytes().count(b"\n") for file in folder.glob("*.deliveries")) >= count
        ),
        f"{count} deliveries",
        bound_s=90,
    )


async def test_ten_thousand_are_handled_once_each_in_order_and_leave_nothing(
    bridge: Bridge, programs: Programs, tmp_path: Path
) -> None:
    workers = await bridge.workers(2)
    send = programs.run(
        "send", "--url", bridge.url, "--devices", "200", "--count", "10000",
        "--record", "record", "--json",
    )  # fmt: skip
    assert send.process.returncode == 0, send.errors
    assert json.loads(send.output)["answers"] == {"200": 10_000}
    await everything_is_handled(tmp_path, 10_000)

    assert [program.stop() for program in (bridge.ingress, *workers)] == [0, 0, 0]
    delivered = recording.deliveries(tmp_path)
    assert len({each["id"] for each in delivered}) == len(delivered) == 10_000
    assert len({each["pid"] for each in delivered}) == 2
    assert recording.by_device(each["body"] for each in delivered) == recording.by_device(
        sent(tmp_path / "record")
    )
    await bridge.assert_empty()


async def test_a_worker_that_stops_hands_over_without_a_loss_or_a_repeat(
    bridge: Bridge, programs: Programs, tmp_path: Path
) -> None:
    first, second = await bridge.workers(2)
    send = programs.start(
        "send", "--url", bridge.url, "--devices", "100", "--count", "3000", "--rate", "1000",
        "--record", "record",
    )  # fmt: skip
    await everything_is_handled(tmp_path, 1000)
    assert first.stop() == 0
    assert send.ends() == 0, send.errors
    await everything_is_handled(tmp_path, 3000)

    assert [program.stop() for program in (bridge.ingress, second)] == [0, 0]
    delivered = recording.deliveries(tmp_path)
    assert len({each["id"] for each in delivered}) == len(delivered) == 3000
    assert recording.by_device(each["body"] for each in delivered) == recording.by_device(
        sent(tmp_path / "record")
    )
    await bridge.assert_empty()


async def test_a_worker_that_is_killed_loses_nothing(
    bridge: Bridge, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_LEASE_TTL_S", "1")
    first, second = await bridge.workers(2)
    send = programs.start(
        "send", "--url", bridge.url, "--devices", "100", "--count", "3000", "--rate", "1000"
    )
    await everything_is_handled(tmp_path, 1000)
    first.kill()
    assert send.ends() == 0, send.errors
    await wait_until(
        lambda: len({delivery["id"] for delivery in recording.deliveries(tmp_path)}) == 3000,
        "all of them to be handled",
        bound_s=90,
    )
    assert [program.stop() for program in (bridge.ingress, second)] == [0, 0]
    await bridge.assert_empty()


async def test_bodies_of_a_file_are_sent_as_they_are(
    bridge: Bridge, programs: Programs, tmp_path: Path
) -> None:
    lines = [
        b'{"deviceId":"a","commandId":"1","result":{"resultCode":"SENT"},"x": [1.0, "\xc3\xa9"]}',
        b'{"no": "notification"}',
        b'  {"result":{"resultCode":"X"},"commandId":"2","deviceId":"a"}',
    ]
    (tmp_path / "bodies").write_bytes(b"\n".join(lines))
    await bridge.workers(1)
    send = programs.run("send", "--url", bridge.url, "--file", "bodies", "--json")
    assert send.process.returncode == 0, send.errors
    assert json.loads(send.output)["answers"] == {"200": 3}
    await everything_is_handled(tmp_path, 2)
    delivered = recording.deliveries(tmp_path)
    assert [each["body"] for each in delivered] == [json.loads(lines[0]), json.loads(lines[2])]


def test_a_refused_connection_ends_with_exit_1_and_a_summary(programs: Programs) -> None:
    send = programs.run(
        "send", "--url", f"http://127.0.0.1:{free_port()}", "--give-up-s", "0.2", "--json"
    )
    assert send.process.returncode == 1
    assert "no connection" in send.errors
    summary = json.loads(send.output)
    assert (summary["schema"], summary["accepted"], summary["unanswered"]) == (1, 0, 3)


def test_a_worker_without_a_server_says_so_and_exits_3(programs: Programs) -> None:
    worker = programs.run(
        "worker", "--receiver", recording.RECEIVER,
        "--redis-url", f"redis://127.0.0.1:{free_port()}/0", "--admin-port", "0",
    )  # fmt: skip
    assert worker.process.returncode == 3
    assert "Traceback" not in worker.errors
    assert worker.errors.splitlines()[-1].startswith("nb-bridge: ")


def test_programs_that_differ_in_partitions_are_told_what_to_do(
    programs: Programs, bridge: Bridge
) -> None:
    assert programs.run("send", "--url", bridge.url, "--count", "1").process.returncode == 0
    worker = programs.run("worker", "--receiver", recording.RECEIVER, "--partitions", "4")
    assert worker.process.returncode == 2
    assert "Traceback" not in worker.errors
    assert f"NB_BRIDGE_PARTITIONS={PARTITIONS}" in worker.errors.splitlines()[-1]
