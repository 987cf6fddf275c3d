"""Memory of an ingress under callers who send long bodies slowly, all at once."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import psutil
import pytest

from support import servers
from support.ingresses import body, post
from support.ports import free_port
from support.programs import Programs
from support.waiting import wait_until

pytestmark = pytest.mark.real

CONNECTIONS = 1500
SENT_BYTES = 300_000
"""Of each: together seven times what may be in memory."""
MOST_MIB = 160


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CONNECTIONS:
        pytest.skip(f"the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_slow_senders_of_long_bodies_fill_no_memory_and_keep_nobody_out(
    real_redis: servers.Redis, programs: Programs, tmp_path: Path, many_descriptors: None
) -> None:
    port = free_port()
    settings = {
        "REDIS_URL": real_redis.url, "NAMESPACE": real_redis.namespace, "HOST": "127.0.0.1",
        "PORT": port, "ADMIN_PORT": 0, "SPOOL_DIR": tmp_path / "spool", "DRAIN_DELAY_S": 0,
        "LOG_FORMAT": "json",
    }  # fmt: skip
    environ = {f"NB_BRIDGE_{name}": str(value) for name, value in settings.items()}
    ingress = programs.start("serve", environ=environ)
    await wait_until(lambda: "ingress_listening" in ingress.errors, "the ingress")
    process = psutil.Process(ingress.process.pid)
    before = process.memory_info().rss
    path = "/v1.0.0/messageReceiver/cmd"
    long = body("slow", detail="x" * (2**20 - 1000))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(long)}\r\n\r\n".encode()
    grown = 0
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(CONNECTIONS)
        ]
        async with aiohttp.ClientSession() as session:
            sent = 0
            for piece in (head, *[long[:30_000]] * (SENT_BYTES // 30_000)):
                for connection in slow:
                    connection.setblocking(False)
                    try:
                        sent += connection.send(piece)
                    except OSError:  # it takes no more, or was ended in favour of others
                        pass
                url = f"http://127.0.0.1:{port}{path}"
                assert await post(session, url, body("good", f"c{sent}")) == 200
                grown = max(grown, process.memory_info().rss - before)
    assert sent > CONNECTIONS * SENT_BYTES / 2
    assert grown < MOST_MIB * 2**20
    assert ingress.stop() == 0
