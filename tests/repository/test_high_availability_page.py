"""What docs/high-availability.md shows is what the program and the server take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.store.cluster import ClusterLink
from bridge.store.connect import open_link
from bridge.store.embedded import EmbeddedServer
from bridge.store.sentinel import SentinelLink
from support import servers

PAGE = (Path(__file__).parents[2] / "docs" / "high-availability.md").read_text()
URLS = re.findall(r"`(redis\+\w+://[^`]+)`", PAGE)


def test_there_are_examples_of_both_kinds() -> None:
    kinds = {type(open_link(url, name="test")) for url in URLS}
    assert kinds == {SentinelLink, ClusterLink}


@pytest.mark.parametrize("options", re.findall(r"`([?&]\w+=[^`]*)`", PAGE))
def test_each_option_is_one_that_is_known(options: str) -> None:
    tls = "" if "ssl=" in options or options.startswith("?sentinel") else "?ssl=true"
    open_link(f"{URLS[0]}{tls}{options}", name="test")


@pytest.mark.real
async def test_the_server_takes_the_settings(own_server: EmbeddedServer) -> None:
    (block,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    redis = servers.real_redis(own_server)
    for line in block.splitlines():
        name, _, value = line.partition(" ")
        assert await redis.client.config_set(name, value)
    await redis.aclose()
