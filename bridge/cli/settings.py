"""`nb-bridge settings`: every setting as this process would see it, secrets hidden."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from bridge import settings
from bridge.cli import options, report


@click.command()
@report.json_option
def command(as_json: bool) -> None:
    """Show every setting: variable, value, default, source, meaning. Secrets are hidden."""
    rows = settings.shown(options.load(), os.environ)
    if as_json:
        report.print_json(settings=[asdict(row) for row in rows])
        return
    report.print_table(
        ("variable", "value", "default", "source", "used by", "meaning"),
        [
            (row.variable, _text(row.value), _text(row.default), row.source, row.used_by, row.doc)
            for row in rows
        ],
    )


def _text(value: object) -> str:
    return "–" if value is None or value == "" else str(value)
