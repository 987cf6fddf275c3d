"""`nb-bridge check`: looks for what is wrong, and says what to do for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import click

from bridge.cli import options, redis_commands, report
from bridge.errors import BridgeError, RedisUnavailableError
from bridge.operations import checks
from bridge.operations.findings import Finding, problem

_MARKS: Final = {"ok": "ok", "skipped": "–", "warning": "WARNING", "problem": "PROBLEM"}


@click.command()
@options.setting_option("namespace")
@options.setting_option("redis_url")
@options.setting_option("receiver")
@options.setting_option("spool_dir")
@click.option(
    "--role",
    type=click.Choice(("ingress", "worker", "console")),
    help="Leave out what only the other programs need.  [default: ingress and worker]",
)
@report.json_option
def command(role: checks.Role | None, as_json: bool) -> int:
    """Look for what is wrong with Redis, the settings and this machine, and say what to do.

    \b
    Exit code 1: a problem was found (warnings are risks that somebody may have chosen).
    Exit code 3: Redis cannot be reached; the rest was looked at.
    """
    settings = options.load()
    findings = checks.here(settings, os.environ, role)
    exit_code = 0
    if checks.are_imports_shadowed(findings):
        findings.insert(0, problem("redis.reachable", "not tried", "fix imports.shadowed first"))
    else:
        try:
            found = redis_commands.run(
                lambda connected: checks.of_redis(connected, settings), settings
            )
        except BridgeError as error:
            found = [checks.unreachable(error)]
            if isinstance(error, RedisUnavailableError):
                exit_code = error.exit_code
        findings = [*found, *findings]
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        report.print_json(ok=not problems, findings=[asdict(finding) for finding in findings])
    else:
        _print(findings)
    return exit_code or (1 if problems else 0)


def _print(findings: Sequence[Finding]) -> None:
    report.print_table(
        ("", "what", "found", "what to do"),
        [
            (_MARKS[finding.level], finding.name, finding.found, finding.advice)
            for finding in findings
        ],
    )
    counts = Counter(finding.level for finding in findings)
    click.echo(", ".join(_counted(counts[level], level) for level in ("problem", "warning")))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
