"""docs/receivers.md: its receiver and its test run as they stand, and its tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from consumers.context import CurrentDelivery

TEXT = (Path(__file__).parents[2] / "docs" / "receivers.md").read_text()


def test_the_receiver_and_its_test_run_as_they_stand(tmp_path: Path) -> None:
    files = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL)
    assert [name for name, _ in files] == ["receiver.py", "test_receiver.py"]
    for name, source in files:
        (tmp_path / name).write_text(source)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_receiver.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_the_table_has_everything_a_delivery_tells() -> None:
    for name in (name for name in vars(CurrentDelivery) if not name.startswith("_")):
        assert f"`{name}`" in TEXT
