"""The alert rules, the dashboard, and that both speak of metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.deploy_tools import DEPLOY, check, documents
from support.promql import TARGET_LABELS, exposed, names

PROMETHEUS = DEPLOY / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SCALED_OBJECT = DEPLOY / "kubernetes/components/keda/scaled-object.yaml"


def queries() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), \w+\)", variable["query"]["query"])
            assert asked is not None
            yield variable["name"], asked[1]
    for scaled in documents(SCALED_OBJECT.read_text()):
        for trigger in scaled["spec"]["triggers"]:
            yield "ScaledObject", trigger["metadata"]["query"]


@cache
def known() -> dict[str, frozenset[str]]:
    recorded = {rule["record"]: names(rule["expr"]).grouped for rule in RULES if "record" in rule}
    return {**exposed(), **recorded}


@pytest.mark.parametrize("query", [pytest.param(each, id=where) for where, each in queries()])
def test_every_query_names_metrics_and_labels_that_exist(query: str) -> None:
    named, series = names(query), known()
    assert named.metrics
    assert named.metrics <= series.keys()
    for metric, label in named.selected:
        assert label in series[metric], f"{metric} has no label {label}"
    labels = set().union(*(series[metric] for metric in named.metrics))
    assert named.grouped <= labels | TARGET_LABELS


def test_a_query_is_read_as_prometheus_reads_it() -> None:
    query = """
        histogram_quantile(0.9, sum by (le, group) (rate(a_bucket{b="c{d}", e!~"f"}[5m])))
        / on (group) group_left (h) max_over_time(i:j:k[1d] offset 5m) unless Inf > sum(l)
    """
    named = names(query)
    assert named.metrics == {"a_bucket", "i:j:k", "l"}
    assert named.selected == {("a_bucket", "b"), ("a_bucket", "e")}
    assert named.grouped == {"le", "group", "h"}


# --- alerts ---------------------------------------------------------------------------------------


def test_promtool_finds_no_fault_in_the_rules_and_the_configuration() -> None:
    check("promtool", "check", "rules", PROMETHEUS / "alerts.yml")
    check("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


def test_the_rules_pass_their_own_tests() -> None:
    check("promtool", "test", "rules", PROMETHEUS / "alerts_test.yml")


def test_each_alert_is_seen_firing_and_not_firing() -> None:
    fires, is_quiet = set(), set()
    for case in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]:
        for looked in case["alert_rule_test"]:
            (fires if looked.get("exp_alerts") else is_quiet).add(looked["alertname"])
    expected = {rule["alert"] for rule in ALERTS}
    assert fires == expected
    assert is_quiet >= expected - {"NbBridgeSpoolFullSoon"}  # there beside one that fires


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_it_means(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}


def test_the_jobs_are_called_as_the_rules_have_them() -> None:
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    jobs = {job["job_name"] for job in scraped}
    monitors = documents(
        (DEPLOY / "kubernetes/components/pod-monitors/pod-monitors.yaml").read_text()
    )
    relabelled = {
        each["replacement"]
        for monitor in monitors
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        for each in endpoint["relabelings"]
        if each["targetLabel"] == "job"
    }
    assert jobs == relabelled == {"nb-bridge-ingress", "nb-bridge-worker"}


# --- dashboard ------------------------------------------------------------------------------------


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = []
    for number, (_, query) in enumerate(queries()):
        query = query.replace("$__rate_interval", "1m").replace("$group", ".*")
        rules.append({"record": f"query:{number}", "expr": query})
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    check("promtool", "check", "rules", file)


def test_the_dashboard_has_a_row_for_each_thing_to_look_after() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row.partition(":")[0] for row in rows] == [
        "The promise", "Broker and spool", "Backlog by group", "Handlers", "Workers",
    ]  # fmt: skip


def family(series: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", series)


def test_the_dashboard_shows_every_metric_of_the_bridge() -> None:
    shown = {
        family(name)
        for panel in PANELS
        for target in panel["targets"]
        for name in names(target["expr"]).metrics
    }
    ours = {family(name) for name in exposed() if name.startswith("nb_bridge_")}
    assert ours - shown == {"nb_bridge_brake_on"}  # deprecated


def test_panels_have_numbers_and_places_of_their_own() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_the_chosen_prometheus_and_names_its_unit(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    for asked in (panel, *panel["targets"]):
        assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
