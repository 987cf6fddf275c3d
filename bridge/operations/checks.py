"""Everything that `check` looks at, in the order in which it is shown.

The settings are what is checked here: so these functions take all of them. Findings say what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from bridge.errors import BridgeError, RedisRefusesError, RedisUnavailableError
from bridge.operations import check_machine, check_namespace, check_redis
from bridge.operations.findings import Finding, problem
from bridge.operations.namespace import Namespace
from bridge.settings import Settings

Role = Literal["ingress", "worker", "console"]


def here(settings: Settings, environ: Mapping[str, str], role: Role | None) -> list[Finding]:
    """This machine and the settings, as far as a program of `role` needs them; `None`: an ingress
    or a worker.
    """
    findings = [check_machine.variables(environ), *check_machine.imports(settings)]
    if role == "console":
        return findings
    if role != "ingress":
        findings.append(check_machine.receiver(settings))
    if role != "worker":
        findings += check_machine.certificate(settings)
        findings.append(check_machine.access(settings))
        findings += check_machine.spool(settings)
    return findings


def are_imports_shadowed(findings: list[Finding]) -> bool:
    """Whether a file here stands in the way of a library: then nothing else can be believed."""
    return any(
        finding.name == "imports.shadowed" and finding.level == "problem" for finding in findings
    )


async def of_redis(connected: Namespace, settings: Settings) -> list[Finding]:
    """The server, and the namespace on it. Raises `RedisUnavailableError`."""
    found = await check_redis.check(connected, settings)
    return found + await check_namespace.check(connected, settings)


def unreachable(error: BridgeError) -> Finding:
    """The finding where `of_redis` could not be asked, or could not go on."""
    if isinstance(error, RedisRefusesError):
        return problem("redis.reachable", str(error), error.advice)
    if isinstance(error, RedisUnavailableError):
        advice = "start it, or set NB_BRIDGE_REDIS_URL; meanwhile callbacks are spooled"
        return problem("redis.reachable", str(error), advice)
    return problem("namespace.meta", str(error), "see what it says")
