"""`nb-bridge serve`: the ingress, until SIGTERM."""

from __future__ import annotations

import asyncio

import click

from bridge.cli import lean, options, running


@click.command()
@options.settings_options("ingress")
def command() -> int:
    """Answer the platform's callbacks and publish them to Redis, until SIGTERM or Ctrl-C.

    Tokens, passwords and secret headers are set by environment only: NB_BRIDGE_TOKENS,
    NB_BRIDGE_BASIC_CREDENTIALS, NB_BRIDGE_SECRET_HEADERS, or each with _FILE for a file's content.

    With --processes, several processes answer on one port. One that ends is started again; their
    admin ports follow each other.
    """
    lean.import_structlog()
    settings = options.load()

    from bridge.cli import processes
    from bridge.ingress import app
    from bridge.telemetry import logs

    logs.configure(level=settings.log_level, format=settings.log_format)

    if processes.how_many(settings) > 1:
        return processes.run(settings, "ingress", ("serve",), app.sockets(settings))

    async def serve(stop: asyncio.Event) -> int:
        ingress = app.Ingress(settings)
        await ingress.start()
        try:
            await running.first_of(stop.wait(), ingress.failed())
        finally:
            await ingress.stop()
        return 0 if stop.is_set() else 1

    return running.run(serve)
