"""Schemathesis plays visitors of the console, guided by the description that it serves.

Each answer must be one that is described, and none a server error, with actions on and things there
to be acted on. Without credentials, as ten wrong ones would end it; that all routes ask for them is
held by tests/unit/console/test_description.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support import fuzzing, given_up, servers
from support.programs import Program, Programs

pytestmark = pytest.mark.real

EXAMPLES = "10"
# A stream ends with its page; and what a filter may be is more than a schema can say.
NOT_FUZZED = "^/live/"
NOT_CHECKED = "negative_data_rejection,positive_data_acceptance"


def begun(programs: Programs, redis: servers.Redis) -> tuple[Program, str]:
    program = programs.start(
        "console", "--port", "0", "--redis-url", redis.url, "--namespace", redis.namespace,
        "--console-actions", "on",
    )  # fmt: skip
    program.prints("Ctrl-C ends it")
    return program, program.output.split()[4].rstrip(",")


def fuzz(url: str, folder: Path, accept: str, phases: str) -> None:
    fuzzing.fuzz(
        f"{url}/openapi.json",
        url,
        folder,
        # One: in threads Python 3.11 at times loses count of how deep it parses (gh-106905).
        *("--phases", phases, "--workers", "1", "--max-examples", EXAMPLES),
        *("--exclude-path-regex", NOT_FUZZED, "--exclude-checks", NOT_CHECKED),
        *("--header", "Sec-Fetch-Site: same-origin", "--header", f"Accept: {accept}"),
        bound_s=200,
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("accept", "phases"),
    [("application/json", "coverage,fuzzing"), ("text/html", "fuzzing")],
)
async def test_no_visitor_gets_an_answer_that_is_not_described(
    real_redis: servers.Redis, programs: Programs, tmp_path: Path, accept: str, phases: str
) -> None:
    await real_redis.client.sadd(real_redis.keys.groups, "default")  # type: ignore[misc]
    for number in range(20):
        await given_up.bury(
            real_redis.client, real_redis.keys, partitions=16, device=f"d{number}",
            id=f"{number + 1}-1",
        )  # fmt: skip
        await given_up.quarantine(
            real_redis.client, real_redis.keys, b"\xff{}", id=f"{number + 1}-1"
        )
    program, url = begun(programs, real_redis)
    fuzz(url, tmp_path, accept, phases)
    assert "console_page_failed" not in program.errors
    assert await real_redis.client.xlen(real_redis.keys.audit) > 10  # it did not stop at the door
    assert program.stop() == 0
