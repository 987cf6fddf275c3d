"""stderr that fails (a full disk, a reader that died or stopped, none at all) ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.store.embedded import EmbeddedServer
from support import history
from support.ingresses import body, get_json, post
from support.ports import free_port
from support.waiting import wait_until

pytestmark = pytest.mark.real

KINDS = ("full", "dead reader", "no reader", "closed")


@contextmanager
def stderr_of(kind: str) -> Iterator[tuple[Any, list[str]]]:
    """What Popen takes for stderr, and words before the command."""
    if kind == "full":
        with open("/dev/full", "wb") as full:
            yield full, []
    elif kind == "closed":
        yield None, ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    else:
        read, write = os.pipe()
        if kind == "dead reader":
            os.close(read)
        yield write, []
        os.close(write)
        if kind != "dead reader":
            os.close(read)


@contextmanager
def program(kind: str, *words: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    environ = {key: text for key, text in os.environ.items() if not key.startswith("NB_BRIDGE_")}
    environ |= {f"NB_BRIDGE_{name.upper()}": str(value) for name, value in settings.items()}
    with stderr_of(kind) as (stderr, before):
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "bridge", *words],
            env=environ, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def answers(session: aiohttp.ClientSession, url: str, status: int) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == status
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("kind", KINDS)
async def test_an_ingress_goes_through_an_outage_without_its_log(
    tmp_path: Path, own_server: EmbeddedServer, kind: str
) -> None:
    port, admin_port = free_port(), free_port()
    admin = f"http://127.0.0.1:{admin_port}"
    url = f"http://127.0.0.1:{port}/v1.0.0/messageReceiver/cmd"
    with program(
        kind, "serve", redis_url=own_server.url, host="127.0.0.1", port=port,
        admin_port=admin_port, drain_delay_s=0, spool_dir=tmp_path / "spool", log_level="debug",
    ) as process:  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await wait_until(lambda: answers(session, f"{admin}/readyz", 200), "the ingress")
            own_server.kill()
            for number in range(300):
                assert await post(session, url, body(f"d{number}", "x" * 200)) == 200
            own_server.start()

            async def is_direct() -> bool:
                status = await get_json(session, f"{admin}/status")
                return bool(status["path"] == "direct" and status["spool"]["entries"] == 0)

            await wait_until(is_direct, "the direct path")
            assert await post(session, url, body("last")) == 200
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_goes_through_an_outage_without_its_log(
    tmp_path: Path, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv(history.FOLDER_VARIABLE, str(tmp_path))
    admin_port = free_port()
    ready = f"http://127.0.0.1:{admin_port}/readyz"
    with program(
        kind, "worker", "--receiver", history.ASYNC, redis_url=own_server.url,
        admin_port=admin_port, lease_ttl_s=1, log_level="debug",
    ) as process:  # fmt: skip
        async with aiohttp.ClientSession() as session:
            await wait_until(lambda: answers(session, ready, 200), "the worker")
            own_server.kill()
            own_server.start()
            await wait_until(lambda: answers(session, ready, 200), "the worker, still")
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("words", "code"), [(("settings",), 0), (("serve",), 2), (("nothing",), 2), (("worker",), 2)]
)
def test_commands_keep_their_exit_codes(kind: str, words: tuple[str, ...], code: int) -> None:
    with program(kind, *words, lease_ttl_s="never" if code else 5) as process:
        assert process.wait(30) == code
