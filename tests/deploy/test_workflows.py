"""The workflows: what every change passes, and how a tag becomes a release."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.deploy_tools import ROOT, check, tool
from support.programs import Programs

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
RELEASE: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
JOBS: dict[str, Any] = RELEASE["jobs"]


def steps(*jobs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        yield from job.get("steps", ())


def before(name: str) -> set[str]:
    """The jobs of a release that have to pass before one begins."""
    needed = JOBS[name].get("needs", [])
    direct = [needed] if isinstance(needed, str) else needed
    return {*direct, *(further for job in direct for further in before(job))}


# --- both


def test_actionlint_finds_no_fault() -> None:
    check("actionlint", "-shellcheck", tool("shellcheck"), cwd=ROOT)


def test_zizmor_finds_no_way_in() -> None:
    check("zizmor", "--offline", "--no-progress", "--quiet", ".github", cwd=ROOT)


def test_dependabot_is_asked_in_its_own_words() -> None:
    schema = ("--builtin-schema", "vendor.dependabot")
    check("check-jsonschema", *schema, ".github/dependabot.yml", cwd=ROOT)


@pytest.mark.parametrize("script", [".ci/run", "deploy/ci-tools.sh"])
def test_shellcheck_finds_no_fault(script: str) -> None:
    check("shellcheck", script, cwd=ROOT)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_named_by_its_commit_and_says_its_version(path: Path) -> None:
    used = re.findall(r"uses: (\S+@.+)", path.read_text())
    assert len(used) == path.read_text().count("@")
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_a_version_of_an_action_is_the_same_everywhere() -> None:
    used = {
        tuple(action.split("@"))
        for path in WORKFLOWS
        for action in re.findall(r"uses: (\S+@\S+)", path.read_text())
    }
    assert len({name for name, _ in used}) == len(used)


def test_the_workflow_of_a_new_receiver_is_fine_too(programs: Programs) -> None:
    programs.run("new", "receiver", "shop")
    check("actionlint", "shop/.github/workflows/ci.yml", cwd=programs.folder)


# --- ci


def test_ci_makes_what_a_change_has_to_pass() -> None:
    jobs = CI["jobs"]["check"], CI["jobs"]["image"]
    made = " ".join(step.get("run", "") for job in jobs for step in steps(job)).split()
    of_machine = re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert set(of_machine) - {"matrix"} <= set(made)  # which has a job of its own
    assert CI["permissions"] == {"contents": "read"}


# --- a release


def test_nothing_is_published_that_did_not_pass_ci_or_has_no_attestation() -> None:
    assert JOBS["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in CI[True]  # YAML 1.1 takes `on` for a truth value
    assert {"ci", "build", "attest"} <= before("publish")
    assert "publish" in before("announce")


def test_a_release_is_of_a_tag_and_of_its_version() -> None:
    assert RELEASE[True] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    (compared,) = [it for it in steps(JOBS["build"]) if "GITHUB_REF_NAME" in it.get("run", "")]
    assert ".venv/bin/nb-bridge --version" in compared["run"]


def test_a_job_may_only_what_it_is_there_for() -> None:
    assert RELEASE["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "ci": {"contents": "read"},
        "build": {"contents": "read"},
        "attest": {"id-token": "write", "attestations": "write", "artifact-metadata": "write"},
        "publish": {"id-token": "write"},
        "announce": {"contents": "write"},
    }
    assert JOBS["publish"]["environment"]["name"] == "pypi"


def test_who_may_write_runs_nothing_of_the_repository() -> None:
    writing = [job for job in JOBS.values() if "write" in job["permissions"].values()]
    assert len(writing) == 3
    for step in steps(*writing):
        assert "actions/checkout" not in step.get("uses", "")
        assert "make" not in step.get("run", "")


def test_what_is_published_is_what_was_tried() -> None:
    assert [step["run"] for step in steps(JOBS["build"]) if "make" in step.get("run", "")] == [
        "make dist PYTHON=python"
    ]
    kept = {it["with"]["name"]: it["with"] for it in steps(JOBS["build"]) if "upload" in str(it)}
    assert kept["packages"]["path"].split() == ["dist/*.whl", "dist/*.tar.gz"]
    # PyPI takes packages, and refuses everything else that lies beside them.
    (taken,) = [it["with"] for it in steps(JOBS["publish"]) if "download" in str(it)]
    assert taken == {"name": "packages", "path": "dist"}
    assert kept["bill-of-materials"]["path"] == "dist/*.cdx.json"


def test_packages_are_attested_with_their_origin_and_with_what_they_are_made_of() -> None:
    attested = [it["with"] for it in steps(JOBS["attest"]) if "actions/attest@" in it["uses"]]
    assert [it.get("sbom-path") for it in attested] == [None, "dist/nb-command-bridge.cdx.json"]
