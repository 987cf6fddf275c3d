"""`nb-bridge worker`: the parent process of a worker, until SIGTERM."""

from __future__ import annotations

import click

from bridge.cli import options


@click.command()
@options.settings_options("worker")
@click.option(
    "--show-deliveries", is_flag=True, help="Print a line per delivery: what, outcome, time, error."
)
def command(show_deliveries: bool) -> int:
    """Run the receiver for each notification, in order per device, until SIGTERM or Ctrl-C.

    \b
    --receiver takes
      path/to/file.py:Class   a class in a file
      module:Class            a class in a module that can be imported
      name                    one that an installed package offers (nb-bridge receivers)
    """
    settings = options.load()

    from bridge.telemetry import logs
    from consumers.worker.process import parent

    logs.configure(level=settings.log_level, format=settings.log_format)
    return parent.main(settings, show_deliveries=show_deliveries)
