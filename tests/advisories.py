"""Whether a pinned version has a known vulnerability: `make audit`.

pip-audit asks PyPI's database of advisories about each line of requirements.lock. Where it gets no
answer it counts the package as fine; here that is a failure of its own, unless `optional` is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
UNREACHABLE = (
    "audit: the database of advisories could not be reached: {asked} of {all} pinned versions were "
    "not looked up"
)


def judge(packages: list[dict[str, Any]], *, optional: bool) -> tuple[list[str], int]:
    """What is to be said of pip-audit's findings, and the exit code."""
    lines = [
        f"audit: {package['name']} {package['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    code = int(bool(lines))
    unasked = sum("skip_reason" in package for package in packages)
    if unasked or not packages:
        lines.append(UNREACHABLE.format(asked=unasked or "all", all=len(packages) or "the"))
        code = code or int(not optional)
    return lines, code


def main() -> int:
    """Exit code 0: no known vulnerability; 1: there is one, or nobody could be asked."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock", "--disable-pip",
         "--require-hashes", "--progress-spinner", "off", "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    packages = json.loads(asked.stdout)["dependencies"] if asked.stdout else []
    if not packages:
        print(asked.stderr, file=sys.stderr)
    lines, code = judge(packages, optional=sys.argv[1:] == ["optional"])
    print("\n".join(lines) or f"audit: {len(packages)} pinned versions, no known vulnerability")
    return code


if __name__ == "__main__":
    sys.exit(main())
