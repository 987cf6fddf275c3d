"""How commands report: a table for people, `--json` for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import click

JSON_SCHEMA: Final = 1
_WIDTH_IN_A_PIPE: Final = 200  # nothing is gained by folding what `grep` reads

json_option = click.option(
    "--json", "as_json", is_flag=True, help='Print JSON, with "schema": 1, instead of a table.'
)


def print_json(**document: object) -> None:
    """One JSON object on stdout, its version first."""
    click.echo(json.dumps({"schema": JSON_SCHEMA, **document}, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A table on stdout, as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a value are no markup
    Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE).print(table)
