"""The command line's frame: help without weight, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields

import click
import pytest

from bridge import __version__, cli
from bridge.cli import COMMANDS
from bridge.errors import BridgeError, RedisUnavailableError, UsageError
from bridge.settings import Settings, variable


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options write into the environment; what they add must not reach the next test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from bridge.cli import run; run(['--help']); "
        "print(*[m for m in ('aiohttp', 'redis', 'structlog', 'marshmallow', 'rich', 'asyncio')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == []
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_explained(name: str) -> None:
    command = cli.program.get_command(click.Context(cli.program), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told([name, "--help"], capsys)
    assert code == 0
    assert f"nb-bridge {name}" in out


@pytest.mark.parametrize(("half", "other"), [("serve", "worker"), ("worker", "ingress")])
def test_a_half_has_an_option_for_each_of_its_settings_that_is_no_secret(
    half: str, other: str
) -> None:
    command = cli.program.get_command(click.Context(cli.program), half)
    assert command is not None
    explained = {
        name: p.help for p in command.params if isinstance(p, click.Option) for name in p.opts
    }
    for spec in fields(Settings):
        option = f"--{spec.name.replace('_', '-')}"
        is_hidden = spec.metadata["secret"] and spec.name != "redis_url"
        if spec.metadata["halves"] in (other, "console") or is_hidden:
            assert option not in explained
        else:
            assert variable(spec.name) in explained[option]


def test_an_option_overrides_its_variable_and_its_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["NB_BRIDGE_GROUP"] = "from-environment"
    os.environ["NB_BRIDGE_RECEIVER_FILE"] = "/nowhere"
    seen = {}

    def main(settings: Settings, *, show_deliveries: bool) -> int:
        seen["group"], seen["receiver"] = settings.group, settings.receiver
        return 0

    monkeypatch.setattr("consumers.worker.process.parent.main", main)
    code, _, _ = told(["worker", "--group", "from-option", "--receiver", "x:Y"], capsys)
    assert code == 0
    assert seen == {"group": "from-option", "receiver": "x:Y"}


def test_without_a_command_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told([], capsys)
    assert code == 2
    assert "Commands:" in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["--version"], capsys) == (0, f"nb-bridge {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["serve", "--nope"], ["send", "--count", "many"], ["dev", "a", "b"], ["--nope"]],
)
def test_wrong_use_is_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(arguments, capsys)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--help" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [(BridgeError("a\nb"), 1), (UsageError("a\nb"), 2), (RedisUnavailableError("a\nb"), 3)],
)
def test_an_expected_error_is_one_line_and_its_exit_code(
    error: BridgeError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("bridge.settings.shown", fail)
    assert told(["settings"], capsys) == (code, "", "nb-bridge: a b\n")


def test_all_wrong_settings_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["NB_BRIDGE_PORT"] = "many"
    os.environ["NB_BRIDGE_LATE"] = "never"
    code, _, err = told(["serve", "--grace-s", "0"], capsys)
    assert code == 2
    assert err.count("\n") == 1
    for name in ("PORT", "LATE", "GRACE_S"):
        assert f"NB_BRIDGE_{name} " in err


def test_an_unknown_variable_is_warned_of_and_does_not_stop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.environ["NB_BRIDGE_PROT"] = "1"
    code, _, err = told(["settings"], capsys)
    assert code == 0
    assert "NB_BRIDGE_PROT" in err
    assert "NB_BRIDGE_PORT?" in err


def test_settings_hide_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["NB_BRIDGE_TOKENS"] = "hush-1,hush-2"
    os.environ["NB_BRIDGE_REDIS_URL"] = "redis://user:hush-3@127.0.0.1/0"
    for arguments in (["settings"], ["settings", "--json"]):
        code, out, err = told(arguments, capsys)
        assert code == 0
        assert "NB_BRIDGE_TOKENS" in out
        assert "hush" not in out + err


def test_settings_as_json_have_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["NB_BRIDGE_GROUP"] = "audit"
    _, out, _ = told(["settings", "--json"], capsys)
    document = json.loads(out)
    rows = {row["name"]: row for row in document["settings"]}
    assert document["schema"] == 1
    assert rows.keys() == {spec.name for spec in fields(Settings)}
    assert (rows["group"]["value"], rows["group"]["default"]) == ("audit", "default")
    assert rows["group"]["source"] == "environment"


def test_receivers_lists_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from consumers.worker.process.loading import Available

    found = [Available(name="audit", target="shop.audit:Audit", distribution="shop")]
    monkeypatch.setattr("consumers.worker.process.loading.available", lambda: found)
    _, out, _ = told(["receivers", "--json"], capsys)
    assert json.loads(out) == {
        "schema": 1,
        "receivers": [{"name": "audit", "target": "shop.audit:Audit", "distribution": "shop"}],
    }
    _, table, _ = told(["receivers"], capsys)
    assert "shop.audit:Audit" in table


def test_receivers_says_what_to_do_without_any(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("consumers.worker.process.loading.available", list)
    code, out, _ = told(["receivers"], capsys)
    assert code == 0
    assert "file.py:Class" in out
