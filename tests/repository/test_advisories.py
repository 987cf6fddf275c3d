"""What `make audit` makes of pip-audit's findings: silence of the database is no good news."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

judge = runpy.run_path(str(Path(__file__).parents[1] / "advisories.py"))["judge"]

FINE = {"name": "redis", "version": "8.1.0", "vulns": []}
FAULTY = {
    "name": "requests",
    "version": "2.19.0",
    "vulns": [{"id": "PYSEC-2018-28", "fix_versions": ["2.20.0"]}],
}
UNASKED = {"name": "idna", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "required", "optional", "told"),
    [
        ([FINE], 0, 0, ""),
        ([FINE, FAULTY], 1, 1, "requests 2.19.0: PYSEC-2018-28, mended in 2.20.0"),
        ([FINE, UNASKED], 1, 0, "could not be reached: 1 of 2 pinned versions"),
        ([FAULTY, UNASKED], 1, 1, "PYSEC-2018-28"),
        ([], 1, 0, "could not be reached"),
    ],
)
def test_only_an_answer_for_every_version_is_a_pass(
    packages: list[dict[str, Any]], required: int, optional: int, told: str
) -> None:
    lines, code = judge(packages, optional=False)
    assert (code, judge(packages, optional=True)[1]) == (required, optional)
    assert told in "\n".join(lines)
    assert bool(told) == bool(lines)
