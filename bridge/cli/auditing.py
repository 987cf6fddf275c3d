"""What commands that act leave in the audit: who they are, and that it never stops them."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import AbstractAsyncContextManager

import click

from bridge.errors import BridgeError
from bridge.operations import audit
from bridge.operations.audit import Account, Actor
from bridge.operations.namespace import Namespace


def audited(connected: Namespace, action: str, what: str) -> AbstractAsyncContextManager[Account]:
    """Writes before and after; where that fails, a line on stderr says so, and the command acts."""
    return audit.audited(connected, _actor(), action, what, unwritten=_say, must_begin=False)


def _actor() -> Actor:
    """The user by the operating system, and the machine: as good as a shell knows."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        user = f"uid {os.getuid()}"
    return Actor(who=f"{user}@{socket.gethostname()}", by=audit.COMMAND_LINE)


def _say(error: BridgeError) -> None:
    click.echo(f"nb-bridge: this is not in the audit: {error}", err=True)
