"""How commands report: a table for people, `--json` for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import click

from bridge.operations import documents, time_expressions
from bridge.terminal import visible, visible_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_WIDTH_IN_A_PIPE: Final = 200  # nothing is gained by folding what `grep` reads

json_option = click.option(
    "--json", "as_json", is_flag=True, help='Print JSON, with "schema": 1, instead of a table.'
)


def print_json(**document: object) -> None:
    """One JSON object on stdout, its version first."""
    click.echo(documents.written(**document))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A table on stdout, as wide as the terminal."""
    show(table(columns, rows, title))


def print_fields(document: Mapping[str, object]) -> None:
    """A line for each field on stdout; what ends with `_ms` is a moment."""
    for name, value in document.items():
        shown = time_expressions.shown(cast("int | None", value)) if name.endswith("_ms") else value
        click.echo(visible_line(f"{name:16} {'–' if shown is None else shown}"))


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

    made = Table(
        title=Text(visible_line(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_header=any(columns),
    )
    for column in columns:
        # In a narrow terminal nothing is cut off, and what is there to be copied is not broken.
        widest = max(map(len, column.split()), default=None)
        made.add_column(column, overflow="fold", no_wrap=column in ("id", "file"), min_width=widest)
    for row in rows:
        made.add_row(*(Text(visible_line(cell)) for cell in row))  # Text: brackets are no markup
    return made


def line(text: str) -> Text:
    """A line that rich can print or show live as it is."""
    from rich.text import Text

    return Text(visible(text))
