"""`nb-bridge console`: the operators' web console, until SIGTERM."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Final

import click

from bridge.cli import lean, options, redis_commands, running
from bridge.errors import UsageError

EXTRA: Final = "nb-command-bridge[console]"
_NEEDED: Final = ("aiohttp_jinja2", "aiohttp_sse", "jinja2")


@click.command()
@options.setting_option("console_host", "--host")
@options.setting_option("console_port", "--port")
@options.setting_option("console_names")
@options.setting_option("console_actions")
@redis_commands.connection_options
@options.setting_option("spool_dir")
@options.setting_option("trusted_proxies")
@options.setting_option("log_level")
@options.setting_option("log_format")
@click.option("--quiet", is_flag=True, hidden=True, help="Do not say where it is: `dev` does.")
def command(quiet: bool) -> int:
    """Show in a browser what status, trace, device, dead, quarantine and the like show, and with
    --console-actions on do what they do.

    Listens on loopback. On any other address it starts only with tokens or user:password pairs,
    which are set by environment: NB_BRIDGE_CONSOLE_TOKENS, NB_BRIDGE_CONSOLE_BASIC_CREDENTIALS, or
    each with _FILE for a file's content. It speaks no TLS: have a proxy in front do that.

    Programs get JSON, as --json writes it, with the header Accept: application/json.
    """
    lean.import_structlog()
    settings = options.load()
    if not is_installed():
        raise UsageError(f"the console needs: pip install '{EXTRA}'")

    from bridge.console.app import Console
    from bridge.telemetry import logs

    logs.configure(level=settings.log_level, format=settings.log_format)

    async def serve(stop: asyncio.Event) -> int:
        console = Console(settings)
        await console.start()
        try:
            if not quiet:
                click.echo(f"the console is at {console.url}, Ctrl-C ends it")
            await stop.wait()
        finally:
            await console.stop()
        return 0

    return running.run(serve)


def is_installed() -> bool:
    """Whether what the extra brings is here."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)
