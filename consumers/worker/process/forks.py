"""What processes that a handler forks (a pool of `multiprocessing`, `os.fork`) must not share with
the worker: its signals, and the socket its admin listener accepts on.

asyncio's signal handlers only write to a wake-up socket, which a forked process has, too: a SIGTERM
that ends a pool's process would stop the worker instead, and nothing would end the process. And
what keeps a listening socket keeps its port from the worker that comes after this one.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable
from functools import partial

Listening = Callable[[], Iterable[socket.socket]]
"""The sockets that listen at the moment of a fork."""


def keep_apart(listening: Listening) -> None:
    """From now on, for as long as this process lives."""
    os.register_at_fork(after_in_child=partial(_let_go, listening))


def _let_go(listening: Listening) -> None:
    """In the forked process, whose only thread this is."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for one in listening():
        if (descriptor := one.detach()) >= 0:
            os.close(descriptor)
