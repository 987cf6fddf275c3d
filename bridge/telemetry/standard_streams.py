"""The three standard streams of a process: there, and read as they are written to."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_NAMES: Final = ("stdin", "stdout", "stderr")


def open_closed() -> None:
    """Puts /dev/null where a standard stream was closed (`2>&-`).

    Else the next socket or file gets its number, and what is written to stderr, ours or a child's,
    goes there.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def write_lines() -> None:
    """Has stdout written whenever a line ends, also where it is no terminal.

    Else what a receiver prints reaches a container's or a service's log some thousand characters
    later, or never, if the process is killed first.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
