"""The Kubernetes manifests, as kustomize builds them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.cli import COMMANDS
from bridge.settings import Settings
from consumers.worker.process.generation import SILENT_S, STOP_SLACK_S
from support.deploy_tools import DEPLOY, check, documents
from support.deployed_settings import taken

KUBERNETES = DEPLOY / "kubernetes"
BUILT = ["base", "overlays/example"]
CONSOLE = "nb-bridge-console"
PROGRAMS = [
    *((name, program) for name in BUILT for program in ("nb-bridge-ingress", "nb-bridge-worker")),
    ("overlays/example", CONSOLE),
]
# Kinds of operators: Kubernetes itself has no schema for them.
FOREIGN = {"ScaledObject", "PodMonitor"}


@cache
def build(name: str) -> str:
    return check("kubectl", "kustomize", KUBERNETES / name)


def pod(name: str, program: str) -> dict[str, Any]:
    """The pod template of a program."""
    (found,) = (
        document
        for document in documents(build(name))
        if document["kind"] in ("StatefulSet", "Deployment")
        and document["metadata"]["name"] == program
    )
    template: dict[str, Any] = found["spec"]["template"]["spec"]
    return template


def environ(name: str, program: str) -> dict[str, str]:
    """The environment of a program's container, its ConfigMap included."""
    (container,) = pod(name, program)["containers"]
    (source,) = container["envFrom"]
    (config,) = (
        document
        for document in documents(build(name))
        if document["kind"] == "ConfigMap"
        and document["metadata"]["name"] == source["configMapRef"]["name"]
    )
    return config["data"] | {each["name"]: each["value"] for each in container.get("env", [])}


def test_kubernetes_knows_every_field(tmp_path: Path) -> None:
    files = []
    for name in BUILT:
        known = [document for document in documents(build(name)) if document["kind"] not in FOREIGN]
        file = tmp_path / f"{Path(name).name}.yaml"
        file.write_text(yaml.safe_dump_all(known))
        files.append(file)
    check("kubernetes-validate", "--strict", "--quiet", *files)


KUSTOMIZATIONS = sorted(KUBERNETES.rglob("kustomization.yaml"))


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=lambda file: file.parent.name)
def test_every_file_a_kustomization_lists_exists(file: Path) -> None:
    (kustomization,) = documents(file.read_text())
    listed = [*kustomization.get("resources", []), *kustomization.get("components", [])]
    assert listed
    for each in listed:
        assert (file.parent / each).exists(), each


@pytest.mark.parametrize(("name", "program"), PROGRAMS)
def test_a_program_takes_its_settings(name: str, program: str, tmp_path: Path) -> None:
    settings = taken(environ(name, program), tmp_path)
    template = pod(name, program)
    assert template["terminationGracePeriodSeconds"] > settings.grace_s + STOP_SLACK_S
    (container,) = template["containers"]
    assert container["args"][0] in COMMANDS
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    if program == CONSOLE:
        assert ports == {"console": settings.console_port}
    else:
        assert ports["admin"] == settings.admin_port


@pytest.mark.parametrize(("name", "program"), PROGRAMS)
def test_a_secret_a_program_reads_is_mounted_in_its_container(name: str, program: str) -> None:
    template = pod(name, program)
    volumes = {volume["name"]: volume for volume in template["volumes"]}
    mounted = {
        mount["mountPath"]: volumes[mount["name"]]["secret"]
        for mount in template["containers"][0]["volumeMounts"]
        if "secret" in volumes.get(mount["name"], {})
    }
    for variable, value in environ(name, program).items():
        if variable.endswith("_FILE"):
            secret = mounted[str(Path(value).parent)]
            items = [item["path"] for item in secret.get("items", [])]
            assert not items or Path(value).name in items


@pytest.mark.parametrize(("name", "program"), PROGRAMS)
def test_a_pod_has_no_privileges_and_no_injected_variables(name: str, program: str) -> None:
    template = pod(name, program)
    assert template["enableServiceLinks"] is False
    assert template["automountServiceAccountToken"] is False
    assert template["securityContext"]["runAsNonRoot"] is True
    assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = template["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


def test_the_spool_is_on_a_volume_of_each_pod(tmp_path: Path) -> None:
    (stateful,) = (
        document for document in documents(build("base")) if document["kind"] == "StatefulSet"
    )
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"NB_BRIDGE_SPOOL_DIR={mounts[claim['metadata']['name']]}/" in dockerfile
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) * 2**30 > Settings().spool_max_bytes
    kept = stateful["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_no_probe_is_quicker_than_the_parent_with_a_child_that_hangs() -> None:
    (container,) = pod("base", "nb-bridge-worker")["containers"]
    probe = container["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > SILENT_S


def test_there_are_never_more_workers_than_partitions(tmp_path: Path) -> None:
    built = documents(build("overlays/example"))
    (scaled,) = (each for each in built if each["kind"] == "ScaledObject")
    settings = taken(environ("overlays/example", "nb-bridge-worker"), tmp_path)
    assert scaled["spec"]["maxReplicaCount"] == settings.partitions
    assert f'group="{settings.group}"' in scaled["spec"]["triggers"][0]["metadata"]["query"]
    target = scaled["spec"]["scaleTargetRef"]["name"]
    (workers,) = (
        each
        for each in built
        if each["kind"] == "Deployment" and each["metadata"]["name"] == target
    )
    assert "replicas" not in workers["spec"]  # else each `apply` would set it back


def test_only_the_callback_paths_come_in_from_outside() -> None:
    built = documents(build("overlays/example"))
    (route,) = (each for each in built if each["kind"] == "Ingress")
    paths = [path for rule in route["spec"]["rules"] for path in rule["http"]["paths"]]
    assert {path["pathType"] for path in paths} == {"Exact"}
    settings = Settings()
    assert {path["path"] for path in paths} == {*settings.callback_paths, *settings.notify_paths}


def test_the_console_is_inside_the_cluster_behind_a_log_in_and_only_shows(tmp_path: Path) -> None:
    built = documents(build("overlays/example"))
    (service,) = (
        each for each in built if each["kind"] == "Service" and each["metadata"]["name"] == CONSOLE
    )
    assert service["spec"]["type"] == "ClusterIP"
    (route,) = (each for each in built if each["kind"] == "Ingress")
    assert CONSOLE not in yaml.safe_dump(route)
    (policy,) = (
        each
        for each in built
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == CONSOLE
    )
    assert policy["spec"]["ingress"] == []
    settings = taken(environ("overlays/example", CONSOLE), tmp_path)
    assert settings.console_tokens == ("secret",)
    assert settings.console_actions == "off"


def test_the_console_may_ask_the_ingresses_and_they_let_it(tmp_path: Path) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in documents(build("overlays/example"))
        if each["kind"] == "NetworkPolicy"
    }
    settings = taken(environ("overlays/example", "nb-bridge-ingress"), tmp_path)
    asked = policies[CONSOLE]["egress"][-1]
    allowed = policies[f"{CONSOLE}-asks-ingresses"]
    assert asked["ports"] == [{"port": settings.admin_port}]
    assert asked["to"][0]["podSelector"] == allowed["podSelector"]
    assert allowed["ingress"][0]["from"][0]["podSelector"] == policies[CONSOLE]["podSelector"]


@pytest.mark.parametrize("name", BUILT)
def test_everything_that_selects_pods_selects_some(name: str) -> None:
    built = documents(build(name))
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in built
        if each["kind"] in ("StatefulSet", "Deployment")
    ]
    selectors = [each["spec"]["selector"] for each in built if each["kind"] == "Service"]
    for each in built:
        if each["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            selectors.append(each["spec"]["selector"]["matchLabels"])
        if each["kind"] == "NetworkPolicy":
            selectors.append(each["spec"]["podSelector"]["matchLabels"])
    assert len(selectors) >= 6
    for selector in selectors:
        assert any(selector.items() <= pod_labels.items() for pod_labels in labels), selector
