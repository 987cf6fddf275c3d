"""How commands report: a table for people, `--json` for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

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
    show(table(columns, rows, title))


def show(what: RenderableType) -> None:
    """Prints a table, or a line, on stdout."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE
    Console(width=width).print(what, markup=False, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """The same as something that rich can print or show live."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))  # Text: brackets are no markup
    return made


def line(text: str) -> Text:
    """A line that rich can print or show live as it is."""
    from rich.text import Text

    return Text(visible(text))


def visible(text: str) -> str:
    """`text` without what a terminal would obey: ids and bodies come from strangers."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text
    )
