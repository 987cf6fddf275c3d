"""Ports for servers that are told which to take."""

from __future__ import annotations

import os
import random
import socket
from itertools import count
from typing import Final

# Below those that Linux gives to outgoing connections (`ip_local_port_range`, from 32768): nobody
# takes one by chance between our look and the server's start. Nor does another test at the same
# time: each process of the tests has ports of its own, and takes them in turn. Not `random`
# itself, which begins alike in every process of the tests.
_RANGE: Final = range(10_240, 32_768)
_PROCESSES: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OURS: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_TURNS: Final = count(random.SystemRandom().randrange(len(_RANGE)))


def free_port(*, below: int = _RANGE.stop) -> int:
    """A loopback port that nobody listens on."""
    ours = range(_RANGE.start + _OURS, below, _PROCESSES)
    for turn in _TURNS:
        port = ours[turn % len(ours)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("counting never ends")
