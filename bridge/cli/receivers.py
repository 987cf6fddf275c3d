"""`nb-bridge receivers`: what `--receiver name` can name."""

from __future__ import annotations

from dataclasses import asdict

import click

from bridge.cli import report


@click.command()
@report.json_option
def command(as_json: bool) -> None:
    """List the receivers that installed packages offer (entry-point group nb_bridge.receivers)."""
    from consumers.worker.process import loading

    found = loading.available()
    if as_json:
        report.print_json(receivers=[asdict(receiver) for receiver in found])
    elif found:
        report.print_table(
            ("name", "target", "distribution"),
            [(receiver.name, receiver.target, receiver.distribution) for receiver in found],
        )
    else:
        click.echo("none installed; a worker can also be given path/to/file.py:Class")
