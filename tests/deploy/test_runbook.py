"""deploy/README.md: an entry per alert, and nothing in it that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from bridge import settings
from bridge.cli import program
from support.deploy_tools import DEPLOY, ROOT
from support.promql import exposed

README = (DEPLOY / "README.md").read_text()
RULES = (DEPLOY / "prometheus/alerts.yml").read_text()
RUNBOOKS = re.findall(r"runbook_url: (\S+)", RULES)
ALERTS = re.findall(r"^ *- alert: (\w+)$", RULES, re.MULTILINE)
HEADINGS = re.findall(r"^#+ (.+)$", README, re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown (GitHub, GitLab)."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands() -> list[str]:
    """Every `nb-bridge …` of the text, in code or not."""
    return sorted(set(re.findall(r"nb-bridge ((?:[a-z]+ ?)+(?:--[\w-]+ ?\w* ?)*)", README)))


def test_every_alert_has_its_entry_and_every_entry_its_alert() -> None:
    entries = [heading for heading in HEADINGS if heading.startswith("NbBridge")]
    assert sorted(entries) == sorted(ALERTS)


@pytest.mark.parametrize("url", RUNBOOKS)
def test_the_anchor_of_a_runbook_url_exists(url: str) -> None:
    address, _, fragment = url.partition("#")
    path = address.removeprefix("https://example.com/nb-command-bridge/")
    assert (ROOT / path) == DEPLOY / "README.md"
    assert fragment in {anchor(heading) for heading in HEADINGS}


def test_each_alert_points_to_its_own_entry() -> None:
    assert [url.partition("#")[2] for url in RUNBOOKS] == [alert.lower() for alert in ALERTS]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_a_link_leads_somewhere(target: str) -> None:
    if target.startswith("#"):
        assert target[1:] in {anchor(heading) for heading in HEADINGS}
    else:
        assert (DEPLOY / target).exists()


def test_settings_and_metrics_that_it_names_exist() -> None:
    named = set(re.findall(r"NB_BRIDGE_\w+", README)) - {"NB_BRIDGE_X", "NB_BRIDGE_X_FILE"}
    assert named
    assert settings.unknown_variables(dict.fromkeys(named, "")) == []
    metrics = set(re.findall(r"\bnb_bridge_\w+", README))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()}
    assert metrics <= families


@pytest.mark.parametrize("words", commands())
def test_a_command_that_it_names_exists_with_its_options(words: str) -> None:
    command: click.Command = program
    context = click.Context(program)
    arguments = words.split()
    while isinstance(command, click.Group) and arguments:
        found = command.get_command(context, arguments[0])
        assert found is not None, f"nb-bridge {words}"
        command, arguments = found, arguments[1:]
    options = {name for param in command.params for name in param.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_log_lines_that_it_names_are_written() -> None:
    files: list[Path] = [*(ROOT / "bridge").rglob("*.py"), *(ROOT / "consumers").rglob("*.py")]
    code = "".join(file.read_text() for file in files)
    named = re.findall(r"`([a-z]+_[a-z_]+)`", README)
    events = [each for each in named if not each.startswith("nb_bridge_")]
    assert len(events) >= 6
    assert [each for each in events if f'"{each}"' not in code] == []
