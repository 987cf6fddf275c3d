"""`nb-bridge check`: looks for what is wrong, and says what to do for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import click

from bridge.cli import connection, options, report
from bridge.errors import BridgeError, RedisRefusesError, RedisUnavailableError
from bridge.operations import check_here
from bridge.operations.findings import Finding, problem
from bridge.settings import Settings

_MARKS: Final = {"ok": "ok", "skipped": "–", "warning": "WARNING", "problem": "PROBLEM"}


@click.command()
@options.setting_option("namespace")
@options.setting_option("redis_url")
@options.setting_option("receiver")
@options.setting_option("spool_dir")
@click.option(
    "--role",
    type=click.Choice(("ingress", "worker")),
    help="Leave out what only the other program needs.  [default: both]",
)
@report.json_option
def command(role: str | None, as_json: bool) -> int:
    """Look for what is wrong with Redis, the settings and this machine, and say what to do.

    \b
    Exit code 1: a problem was found (warnings are risks that somebody may have chosen).
    Exit code 3: Redis cannot be reached; the rest was looked at.
    """
    settings = options.load()
    findings = _here(settings, role)
    away = None
    if any(
        finding.name == "imports.shadowed" and finding.level == "problem" for finding in findings
    ):
        findings.insert(0, problem("redis.reachable", "not tried", "mend imports.shadowed first"))
    else:
        found, away = _redis(settings)
        findings = [*found, *findings]
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        report.print_json(ok=not problems, findings=[asdict(finding) for finding in findings])
    else:
        _print(findings)
    if away is not None:
        return away.exit_code
    return 1 if problems else 0


def _here(settings: Settings, role: str | None) -> list[Finding]:
    findings = [check_here.variables(os.environ), *check_here.imports(settings)]
    if role != "ingress":
        findings.append(check_here.receiver(settings))
    if role != "worker":
        findings += check_here.certificate(settings)
        findings.append(check_here.access(settings))
        findings += check_here.spool(settings)
    return findings


def _redis(settings: Settings) -> tuple[list[Finding], RedisUnavailableError | None]:
    """What was found there, and the error if it is away."""
    from bridge.operations import check_namespace, check_redis, namespace

    async def look(connected: namespace.Namespace) -> list[Finding]:
        found = await check_redis.check(connected, settings)
        return found + await check_namespace.check(connected, settings)

    try:
        return connection.run(look, settings), None
    except RedisRefusesError as error:
        return [problem("redis.reachable", str(error), error.advice)], error
    except RedisUnavailableError as error:
        advice = "start it, or set NB_BRIDGE_REDIS_URL; meanwhile callbacks are spooled"
        return [problem("redis.reachable", str(error), advice)], error
    except BridgeError as error:
        return [problem("namespace.meta", str(error), "see what it says")], None


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
