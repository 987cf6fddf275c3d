"""docs/metrics.md has every metric of the registry, with its type, labels, unit and process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from time import monotonic
from typing import cast

import pytest
from prometheus_client.metrics import MetricWrapperBase

from bridge.outbox.group_commit import GroupCommit
from bridge.outbox.publisher import Publisher
from bridge.outbox.spool.spool import Spool
from bridge.telemetry import metrics
from bridge.telemetry.histogram import Durations

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "metrics.md").read_text()
# Where in the bridge it is that both programs run it.
IN_BOTH = (
    "bridge/telemetry/",
    "bridge/store/health.py",
    "bridge/store/link.py",
    "bridge/store/sentinel.py",
    "bridge/store/cluster.py",
    "bridge/store/connect.py",
    "bridge/store/ownership.py",
    "bridge/http/admin.py",
)
UNITS = {"seconds": "seconds", "bytes": "bytes", "ratio": "ratio"}


Metric = MetricWrapperBase | Durations


def defined() -> dict[str, Metric]:
    """Every metric that we define, by the name it has in the code."""
    return {name: value for name, value in vars(metrics).items() if isinstance(value, Metric)}


@cache
def used() -> dict[str, set[str]]:
    """The files of both packages that say `metrics.<name>`, by name."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in ("bridge", "consumers"):
        for path in (ROOT / package).rglob("*.py"):
            for name in re.findall(r"\bmetrics\.(\w+)", path.read_text()):
                found[name].add(path.relative_to(ROOT).as_posix())
    return found


def users(variable: str) -> set[str]:
    return used().get(variable, set())


def process(variable: str) -> str:
    halves = set()
    for file in users(variable) or {"bridge/telemetry/metrics.py"}:
        if file.startswith("consumers/"):
            halves.add("worker")
        else:
            halves |= {"ingress", "worker"} if file.startswith(IN_BOTH) else {"ingress"}
    return "both" if len(halves) == 2 else halves.pop()


def unit(name: str) -> str:
    words = name.removesuffix("_total").split("_")
    if "timestamp" in words:
        return "epoch seconds"
    return UNITS.get(words[-1], "–")


def row(variable: str, metric: Metric) -> str:
    (family,) = metric.describe()
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "–"
    shown = (
        f"`{name}`", family.type, labels, unit(name), process(variable), family.documentation,
    )  # fmt: skip
    return f"| {' | '.join(shown)} |"


def rows() -> list[str]:
    return [line for line in TEXT.splitlines() if line.startswith("| `nb_bridge_")]


@pytest.mark.parametrize("variable", defined())
def test_the_table_has_the_metric(variable: str) -> None:
    assert row(variable, defined()[variable]) in rows()


def test_the_table_has_nothing_else_and_each_once() -> None:
    assert sorted(rows()) == sorted(row(*each) for each in defined().items())


def test_every_metric_of_the_registry_is_one_of_ours_or_of_the_process() -> None:
    ours = {family.name for metric in defined().values() for family in metric.describe()}
    exposed = {family.name for family in metrics.registry.collect()}
    assert {name for name in exposed - ours if not name.startswith("process_")} == set()


def test_every_metric_is_set_somewhere() -> None:
    unused = {variable for variable in defined() if not users(variable)}
    assert unused == {"build_info"}  # it is set where it is made


def test_a_program_without_a_spool_does_not_say_that_its_spool_is_broken() -> None:
    # Every program shows the metrics without labels of the other, as they are at its start; 0
    # would raise NbBridgeSpoolUnable for each worker.
    code = "from bridge.telemetry import metrics; print(metrics.render().decode())"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    lines = shown.stdout.splitlines()
    assert "nb_bridge_spool_able 1.0" in lines
    assert "nb_bridge_direct_path_open 1.0" in lines


def test_the_direct_path_counts_as_closed_before_redis_has_answered(tmp_path: Path) -> None:
    metrics.direct_path.set(1)
    GroupCommit(
        cast(Publisher, None), Spool(tmp_path, max_bytes=2**20), timeout_s=1, clock=monotonic
    )
    assert metrics.registry.get_sample_value("nb_bridge_direct_path_open") == 0


def test_a_name_in_the_text_is_one_of_the_table() -> None:
    named = set(re.findall(r"`(nb_bridge_\w+)`", TEXT))
    table = {re.findall(r"`(\w+)`", line)[0] for line in rows()}
    assert named == table
