"""The JDK's HTTP client, which most of the platforms' own programs are likely to be built on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from support import servers
from support.ingresses import running, settings_for
from support.operating import run

JAVA = shutil.which("java")
SOURCE = Path(__file__).parents[1] / "data" / "Push.java"
COUNT = 300

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(JAVA is None, reason="no java here"),
]


@pytest.mark.parametrize("version", ["1.1", "as it comes"])
async def test_each_push_is_answered_200_on_one_connection(
    version: str, real_redis: servers.Redis, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, real_redis.url, real_redis.namespace)
    async with running(settings) as ingress:
        taken: list[object] = []
        take = ingress._http.take
        ingress._listener._take = lambda sock, tls: (taken.append(sock), take(sock, tls))[1]
        words = (str(JAVA), str(SOURCE), ingress.callback_url, str(COUNT), version)
        ended = await asyncio.to_thread(lambda: run(*words, folder=tmp_path))
        assert ended.stdout.split() == [str(COUNT), "0"], ended.stderr
        assert len(taken) == 1
