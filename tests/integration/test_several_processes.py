"""`--processes`: one command, several processes, one port; whichever dies, nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.cli import processes
from bridge.store.embedded import EmbeddedServer
from support import servers, streams
from support.ports import free_port
from support.processes import environ_for
from support.programs import Program, Programs, children, descendants, is_alive
from support.sending import Platform
from support.waiting import wait_until, wait_until_sync
from support.workers import Fleet, logged

pytestmark = pytest.mark.real

INGRESSES = 2


@pytest.fixture
async def redis(own_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    connected = servers.real_redis(own_server)
    yield connected
    await connected.aclose()


def serve(programs: Programs, redis: servers.Redis, folder: Path, **more: str) -> Program:
    environ = environ_for(folder, redis.url, redis.namespace, drain_delay_s="0", **more)
    return programs.start(
        "serve", "--processes", str(INGRESSES), "--host", "127.0.0.1", "--log-format", "json",
        environ=environ,
    )  # fmt: skip


async def listening(program: Program, count: int = INGRESSES) -> list[str]:
    """Where they listen, once `count` processes have said so."""
    await wait_until(lambda: len(logged(program, "ingress_listening")) >= count)
    return [str(line["url"]) for line in logged(program, "ingress_listening")]


async def test_ingresses_killed_in_turn_under_traffic_lose_nothing_and_keep_order(
    programs: Programs, redis: servers.Redis, tmp_path: Path
) -> None:
    program = serve(programs, redis, tmp_path, port="0", admin_port="0")
    urls = await listening(program)
    assert len(set(urls)) == 1
    async with Platform(urls[0], devices=30, rate=300) as platform:
        for number, victim in enumerate(children(program.process.pid), 1):
            await asyncio.sleep(0.3)
            os.kill(victim, signal.SIGKILL)
            await listening(program, INGRESSES + number)
        await platform.finish()
    assert {answer for answer in platform.answers if isinstance(answer, int)} == {200}
    assert program.stop() == 0
    assert [line["code"] for line in logged(program, "process_ended")] == [-9] * INGRESSES
    reported = await streams.reported(redis.client, redis.keys)
    for device, promised in platform.promised.items():
        assert list(dict.fromkeys(reported[device])) == promised
    assert await redis.client.hlen(redis.keys.ingresses) <= INGRESSES  # of those killed


async def test_workers_killed_in_turn_lose_nothing_and_keep_order(
    programs: Programs, redis: servers.Redis
) -> None:
    fleet = Fleet(redis, programs)
    worker = fleet.start(processes=2)
    await wait_until(lambda: len(logged(worker, "worker_started")) == 2)
    for victim in children(worker.process.pid):
        ids = [await fleet.say(f"d{number % 12}") for number in range(60)]
        os.kill(victim, signal.SIGKILL)
        await fleet.handled(*ids)
    await fleet.settled()
    await wait_until(lambda: len(logged(worker, "worker_started")) == 4)
    assert worker.stop() == 0
    fleet.history.check(fleet.published)
    assert set(await fleet.owners()) == {None}


async def test_their_admin_ports_follow_each_other_and_ping_asks_all(
    programs: Programs, redis: servers.Redis, tmp_path: Path
) -> None:
    first = free_port()
    program = serve(programs, redis, tmp_path, port="0", admin_port=str(first))
    await listening(program)
    ports = {
        int(line["admin_url"].rpartition(":")[2]) for line in logged(program, "ingress_listening")
    }
    assert ports == {first + number for number in range(INGRESSES)}

    def ping(processes: int) -> int:
        words = ("ping", "--url", f"http://127.0.0.1:{first}", "--processes", str(processes))
        return int(programs.run(*words).ends())

    await wait_until(lambda: ping(INGRESSES) == 0)
    assert ping(INGRESSES + 1) == 1
    assert program.stop() == 0


def test_what_cannot_work_as_set_up_ends_them_all_with_2(
    programs: Programs, redis: servers.Redis, tmp_path: Path
) -> None:
    fleet = Fleet(redis, programs)
    worker = fleet.start("no_such_module:Receiver", processes=2)
    assert worker.ends() == 2
    assert "no_such_module" in worker.errors
    (tmp_path / "file").touch()
    program = serve(
        programs, redis, tmp_path, port="0", admin_port="0", spool_dir=str(tmp_path / "file")
    )
    assert program.ends() == 2
    assert "NB_BRIDGE_SPOOL_DIR" in program.errors
    assert "Traceback" not in program.errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_none_outlives_the_supervisor(
    programs: Programs, redis: servers.Redis, tmp_path: Path, number: signal.Signals
) -> None:
    program = serve(programs, redis, tmp_path, port="0", admin_port="0")
    await listening(program)
    below = descendants(program.process.pid)
    assert len(below) == INGRESSES
    program.signal(number)
    assert program.ends() == (-9 if number == signal.SIGKILL else 0)
    await wait_until(lambda: not any(map(is_alive, below)), "the processes to end")
    await wait_until(lambda: len(logged(program, "ingress_stopped")) == INGRESSES)


async def test_a_number_of_processes_out_of_bounds_is_refused(programs: Programs) -> None:
    program = programs.run("serve", "--processes", "65")
    assert program.ends() == 2
    assert "NB_BRIDGE_PROCESSES must be between 0 and 64" in program.errors


async def test_one_that_cannot_be_started_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop, starts = asyncio.Event(), []

    def start(self: processes.Supervisor, number: int) -> subprocess.Popen[bytes]:
        starts.append(number)
        if len(starts) <= 2:
            raise BlockingIOError(errno.EAGAIN, "no process to be had")
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    monkeypatch.setattr(processes.Supervisor, "_start", start)
    supervisor = processes.Supervisor(("serve",), (0, 0), (), stop_bound_s=10)
    running = asyncio.create_task(supervisor.run(stop))
    await wait_until(lambda: len(starts) == 4, "both to be started again")
    stop.set()
    assert await running == 0


def test_a_number_from_a_file_is_for_the_supervisor_alone(
    programs: Programs, redis: servers.Redis, tmp_path: Path
) -> None:
    (tmp_path / "number").write_text("2")
    environ = environ_for(tmp_path, redis.url, redis.namespace, port="0", admin_port="0")
    environ |= {
        "NB_BRIDGE_PROCESSES_FILE": str(tmp_path / "number"),
        "NB_BRIDGE_HOST": "127.0.0.1",
        "NB_BRIDGE_LOG_FORMAT": "json",
    }
    program = programs.start("serve", environ=environ)
    wait_until_sync(lambda: len(logged(program, "ingress_listening")) == 2)
    assert program.stop() == 0


async def test_workers_take_new_code_at_a_signal_to_the_supervisor(
    redis: servers.Redis, programs: Programs
) -> None:
    fleet = Fleet(redis, programs)
    worker = fleet.start(processes=2)
    await fleet.handled(await fleet.say("d0"))
    worker.signal(signal.SIGHUP)
    await wait_until(lambda: len(logged(worker, "child_replaced")) == 2, "new children")
    await fleet.handled(await fleet.say("d0"))
    assert worker.stop() == 0
