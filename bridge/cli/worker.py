"""`nb-bridge worker`: the parent process of a worker, until SIGTERM."""

from __future__ import annotations

import click

from bridge.cli import lean, options


@click.command()
@options.settings_options("worker")
@click.option(
    "--show-deliveries", is_flag=True, help="Print a line per delivery: what, outcome, time, error."
)
def command(show_deliveries: bool) -> int:
    """Run the receiver for each notification, in order per device, until SIGTERM or Ctrl-C.

    With --processes, several workers share the partitions; their admin ports follow each other.

    \b
    --receiver takes
      path/to/file.py:Class   a class in a file
      module:Class            a class in a module that can be imported
      name                    one that an installed package offers (nb-bridge receivers)
    """
    lean.import_structlog()
    settings = options.load()

    from bridge.cli import processes
    from bridge.telemetry import logs
    from consumers.worker.process import parent

    logs.configure(level=settings.log_level, format=settings.log_format)
    if processes.how_many(settings) > 1:
        words = ("worker", "--show-deliveries") if show_deliveries else ("worker",)
        return processes.run(settings, "worker", words)
    return parent.main(settings, show_deliveries=show_deliveries)
