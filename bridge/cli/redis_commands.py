"""What commands that talk to Redis share: options, connecting, and asking before they act."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from bridge.cli import options
from bridge.errors import BridgeError, UsageError
from bridge.operations.namespace import Namespace, opened
from bridge.settings import Settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def connection_options(command: F) -> F:
    """Options of every command that talks to Redis."""
    for name in ("namespace", "redis_url"):
        command = options.setting_option(name)(command)
    return command


group_option = options.setting_option("group")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do it without asking.")


def run(work: Callable[[Namespace], Awaitable[T]], settings: Settings | None = None) -> T:
    """Runs `work` on the namespace of the settings.

    Raises `RedisUnavailableError` with what to do about it, and `MetaMismatchError` where the
    namespace is not of this program's contract.
    """
    current = settings or options.load()

    async def connected() -> T:
        async with opened(current) as namespace:
            return await work(namespace)

    return asyncio.run(connected())


def confirm(question: str, *, yes: bool) -> None:
    """Returns if it may be done; `BridgeError` if not, `UsageError` where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: say --yes")
    if not click.confirm(question, err=True):
        raise BridgeError("nothing was done")
