"""Ports for servers that are told which to take."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below those that Linux gives to outgoing connections (`ip_local_port_range`, from 32768): nobody
# takes one by chance between our look and the server's start. Nor does another test at the same
# time: so many are there. Not `random` itself, which begins alike in every process of the tests.
_RANGE: Final = range(10_240, 32_768)
_DICE: Final = random.SystemRandom()


def free_port(*, below: int = _RANGE.stop) -> int:
    """A loopback port that nobody listens on."""
    while True:
        port = _DICE.randrange(_RANGE.start, below)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
