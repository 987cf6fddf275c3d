"""What processes that a handler forks (a pool of `multiprocessing`, `os.fork`) must not share with
the worker: its signals, and the socket its admin listener accepts on.

asyncio's signal handlers only write to a wake-up socket, which a forked process has, too: a SIGTERM
that ends a pool's process would stop the worker instead, and nothing would end the process, for
which the pool then waits for ever. A pool ends its processes as soon as nothing is left to do,
which may be before they took their first step: so these signals wait until the new process has
handlers of its own. And what keeps a listening socket keeps its port from the worker that comes
after this one.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final

Listening = Callable[[], Iterable[socket.socket]]
"""The sockets that listen at the moment of a fork."""


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def keep_apart(listening: Listening) -> None:
    """From now on, for as long as this process lives."""
    forking = threading.local()  # several threads may fork at a time, each with signals of its own

    def hold_signals() -> None:
        forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def take_signals() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, forking.blocked)

    def in_child() -> None:
        _let_go(listening)
        take_signals()

    os.register_at_fork(before=hold_signals, after_in_parent=take_signals, after_in_child=in_child)


def _let_go(listening: Listening) -> None:
    """In the forked process, whose only thread this is."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    for listener in listening():
        if (descriptor := listener.detach()) >= 0:
            os.close(descriptor)
