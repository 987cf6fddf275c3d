"""Tables in a narrow terminal: nothing of them is cut off, and ids can be copied."""

from __future__ import annotations

from rich.console import Console

from bridge.cli import report


def shown(columns: tuple[str, ...], *rows: tuple[str, ...], width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(report.table(columns, rows))
    return captured.get()


def test_an_id_is_whole_and_nothing_else_is_lost() -> None:
    command, error = "81249733358e41f089f2e70e4480d997", "TimeoutError: " + "no answer, " * 5
    columns = ("id", "command", "status", "error")
    text = shown(columns, ("9/1795438561534-0", command, "SENT", error), width=60)
    assert "9/1795438561534-0" in text
    assert "…" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert all(name in lines[1] for name in columns)
    (start, end) = (lines[1].index("command"), lines[1].index("status"))
    assert "".join(line[start:end].strip() for line in lines[3:]) == command


def test_a_table_without_names_of_columns_has_no_line_for_them() -> None:
    lines = shown(("", ""), ("callbacks", "3"), width=60).splitlines()
    assert [line.split() for line in lines if line.strip()] == [["callbacks", "3"]]


def test_a_line_end_in_an_id_forges_no_line_and_brackets_no_style() -> None:
    forged = "d1\nin the spool here: [red]SENT[/red]\tof d2"
    console = Console(width=120)
    with console.capture() as captured:
        console.print(report.table(("device",), [(forged,)], forged))
    lines = captured.get().splitlines()
    escaped = r"d1\nin the spool here: [red]SENT[/red]\tof d2"
    assert [line.strip() for line in lines if escaped in line] == [escaped, escaped]
    assert len([line for line in lines if line.strip(" ─")]) == 3
