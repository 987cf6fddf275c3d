"""What `make dist` finds in packages, and what it makes of the bill of materials."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bridge import __version__
from packages import completed, expected, faults, vendored

WHEEL = f"nb_command_bridge-{__version__}-py3-none-any.whl"
SDIST = f"nb_command_bridge-{__version__}.tar.gz"


@pytest.mark.parametrize("name", [WHEEL, SDIST])
def test_what_programs_read_at_run_time_is_expected_in_both(name: str) -> None:
    found = [path for path in expected(name) if not path.endswith(".py")]
    for ending in ("py.typed", ".lua", ".html", ".css", ".js", ".svg", ".template"):
        assert any(path.endswith(ending) for path in found), ending


@pytest.mark.parametrize("name", [WHEEL, SDIST])
def test_an_archive_that_is_as_it_should_be_has_no_fault(name: str) -> None:
    assert faults(expected(name), expected(name)) == []


def test_what_is_missing_and_what_is_too_much_is_named() -> None:
    wanted = expected(WHEEL)
    found = [*(set(wanted) - {"bridge/py.typed"}), "tests/conftest.py"]
    assert faults(found, wanted) == [
        "tests/conftest.py does not belong there",
        "bridge/py.typed is missing",
    ]


def test_the_bill_names_the_version_the_wheel_and_what_was_copied_into_it(tmp_path: Path) -> None:
    wheel = tmp_path / WHEEL
    wheel.write_bytes(b"a wheel")
    bill: dict[str, Any] = {
        "metadata": {"component": {"bom-ref": "root", "name": "nb-command-bridge"}},
        "components": [],
        "dependencies": [{"ref": "root", "dependsOn": []}],
    }
    root = completed(bill, wheel)["metadata"]["component"]
    assert bill["serialNumber"].startswith("urn:uuid:")
    assert root["purl"] == f"pkg:pypi/nb-command-bridge@{__version__}"
    assert root["hashes"][0]["content"] == hashlib.sha256(b"a wheel").hexdigest()
    (htmx,) = vendored()
    assert htmx["name"] == "htmx.org"
    assert bill["components"] == [htmx]
    assert bill["dependencies"][0]["dependsOn"] == [htmx["bom-ref"]]
