"""Every subcommand: help, options that are explained, --json, one line for wrong use."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from bridge import cli

# They write something else than a report.
WITHOUT_JSON = {("spool", "export"), ("new", "receiver")}


def _subcommands() -> Iterator[tuple[str, str]]:
    for name in cli.COMMANDS:
        command = cli.program.get_command(click.Context(cli.program), name)
        if isinstance(command, click.Group):
            yield from ((name, each) for each in command.commands)


SUBCOMMANDS = list(_subcommands())


def command(group: str, name: str) -> click.Command:
    found = cli.program.get_command(click.Context(cli.program), group)
    assert isinstance(found, click.Group)
    return found.commands[name]


def test_there_are_the_ones_that_are_documented() -> None:
    expected = {
        "dead": {"list", "show", "replay", "drop"},
        "quarantine": {"list", "show", "replay", "drop"},
        "spool": {"status", "export", "import", "retry", "drain"},
        "groups": {"list", "retire", "restore", "pause", "resume", "protect", "unprotect"},
        "partitions": {"change"},
        "new": {"receiver"},
    }
    found = {group: {b for a, b in SUBCOMMANDS if a == group} for group, _ in SUBCOMMANDS}
    assert found == expected


@pytest.mark.parametrize(("group", "name"), SUBCOMMANDS)
def test_each_explains_itself_and_its_options(
    group: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([group, name, "--help"]) == 0
    assert f"nb-bridge {group} {name}" in capsys.readouterr().out
    one = command(group, name)
    assert one.help
    options = [param for param in one.params if isinstance(param, click.Option)]
    assert all(option.help for option in options)
    reports = any("--json" in each.opts for each in options)
    assert reports == ((group, name) not in WITHOUT_JSON)


@pytest.mark.parametrize("group", sorted({group for group, _ in SUBCOMMANDS}))
def test_a_group_without_a_command_is_wrong_use(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([group]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"nb-bridge {group} --help" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead", "show", "no-place"],
        ["dead", "show", "1/2"],
        ["dead", "replay"],
        ["dead", "drop", "--all", "--device", "d"],
        ["dead", "list", "--since", "yesterday"],
        ["quarantine", "show", "1/2-0"],
        ["quarantine", "replay", "--all", "--file", "/dev/null"],
        ["partitions", "change", "0"],
        ["status", "--watch", "--json"],
        ["trace"],
    ],
)
def test_what_is_said_wrongly_is_told_before_anything_is_connected(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.run(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["trace", "c"],
        ["device", "d"],
        ["dead", "list"],
        ["quarantine", "list"],
        ["groups", "list"],
        ["partitions", "change", "8"],
    ],
)
def test_without_a_redis_it_is_one_line_and_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_REDIS_URL", "redis://me:hush@127.0.0.1:1/0")
    assert cli.run(arguments) == 3
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "NB_BRIDGE_REDIS_URL" in captured.err
    assert "hush" not in captured.err
