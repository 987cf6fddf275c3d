"""The console as operators act with it: on real servers and workers, by the forms of its pages."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio

from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer
from support import given_up
from support.operating import PARTITIONS, System, check_shape, documented
from support.programs import Program, Programs
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real

JUNK = b'{"deviceId": "junk",\r\n "result": {"resultCode": "SENT"}}'
MARKUP = "<img src=x onerror=alert(1)>"


class Console:
    """A console that acts, called as its own pages call it."""

    def __init__(self, system: System) -> None:
        self.program: Program = system.start(
            "console", "--port", "0", "--console-actions", "on", "--log-level", "debug"
        )
        self.program.prints("Ctrl-C ends it")
        self.url = self.program.output.split()[4].rstrip(",")

    def call(
        self, path: str, form: dict[str, str] | None = None, *, accept: str
    ) -> tuple[int, str]:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        headers = {"Accept": accept, "Sec-Fetch-Site": "same-origin"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def json(self, path: str, form: dict[str, str] | None = None) -> Any:
        status, text = self.call(path, form, accept="application/json")
        assert status == 200, text
        return json.loads(text)

    def page(self, path: str, form: dict[str, str] | None = None) -> str:
        status, text = self.call(path, form, accept="text/html")
        assert status == 200, text
        return text

    def counted(self, **form: str) -> Any:
        """A job that waits for a yes."""
        id_ = self.json("/jobs", form)["id"]
        wait_until_sync(lambda: self.json(f"/jobs/{id_}")["state"] == "counted", "the count")
        return self.json(f"/jobs/{id_}")


@pytest.fixture
def system_of_own(
    own_server: EmbeddedServer, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> Iterator[System]:
    """On a server that may be hurt."""
    made = System(own_server.url, "ops", programs, monkeypatch)
    yield made
    made.stop()


def bury(system: System, count: int) -> None:
    """So many dead letters, which no worker has anything to do with."""
    keys = Keys(namespace=system.namespace)

    async def write() -> None:
        client = redis.asyncio.Redis.from_url(system.environ["NB_BRIDGE_REDIS_URL"], protocol=2)
        await client.sadd(keys.groups, "default")  # type: ignore[misc]
        for number in range(count):
            await given_up.bury(client, keys, partitions=PARTITIONS, device=f"d{number}")
        await client.aclose()

    asyncio.run(write())


def test_what_failed_is_seen_given_back_and_handled_and_the_audit_has_it(system: System) -> None:
    system.start_ingress()
    worker = system.start_worker(max_attempts=1)
    for number in range(3):
        system.send(f"d{number}", {"do": "fail", "times": 1}, command=f"of-{number}")
    system.send(MARKUP, {"do": "reject"}, command=MARKUP)
    assert system.post(JUNK)[0] == 200
    wait_until_sync(lambda: system.json("dead", "list")["total"] == 4, "all to be given up")
    worker.stop()
    console = Console(system)

    dead = console.json("/dead")
    check_shape(dead, documented("Dead letters, quarantine and groups there"))
    assert (dead["total"], dead["matched"], dead["groups"]) == (
        4, 4, [{"name": "default", "dead": 4}],
    )  # fmt: skip
    (kind,) = [kind for kind in dead["kinds"] if kind["error_type"] == "ValueError"]
    assert (kind["letters"], kind["line"].startswith("history.py:")) == (3, True)
    assert MARKUP not in console.page("/dead")
    (letter,) = [letter for letter in dead["dead"] if letter["device"] == "d0"]
    shown = console.json(f"/dead/default/{letter['id']}")
    assert shown == system.json("dead", "show", letter["id"])
    with_body = system.json("dead", "show", letter["id"], "--body")
    assert console.json(f"/dead/default/{letter['id']}/body")["body"] == with_body["body"]

    system.start_worker(backoff_base_s=0.05, backoff_max_s=0.05)
    assert "was given back" in console.page(f"/dead/default/{letter['id']}/replay", {})
    job = console.counted(
        of="dead", verb="replay", group="default", error=f"{kind['reason']} {kind['error_type']}",
        line=kind["line"],
    )  # fmt: skip
    example = documented("Dead letters, quarantine and groups there", 1)
    check_shape(job, example | {"outcomes": {}})
    assert job["matched"] == 2
    console.page(f"/jobs/{job['id']}/start", {"rate": "50"})
    wait_until_sync(lambda: console.json(f"/jobs/{job['id']}")["state"] == "done", "the job")

    (body,) = console.json("/quarantine")["quarantine"]
    path = f"/quarantine/{body['id']}"
    assert "still no notification" in console.call(f"{path}/replay", {}, accept="text/html")[1]
    mended = JUNK.decode().replace('"deviceId"', '"commandId": "mended", "deviceId"')
    assert "is published" in console.page(f"{path}/replay", {"body": mended})
    system.unhandled_is(0)
    handled = {run.device for run in system.history.runs if run.how == "handled"}
    assert handled == {"d0", "d1", "d2", "junk"}
    assert [letter["device"] for letter in console.json("/dead")["dead"]] == [MARKUP]

    audit = console.json("/audit")
    check_shape(audit | {"audit": audit["audit"][:1]}, documented("The audit"))
    ends = [line for line in audit["audit"] if line["begun"]]
    assert [(line["action"], line["by"], line["counts"]) for line in ends] == [
        ("quarantine replay", "console", {"replayed": 1}),
        ("quarantine replay", "console", {"left": 1}),
        ("dead replay", "console", {"replayed": 2}),
        ("dead replay", "console", {"replayed": 1}),
    ]
    assert console.program.stop() == 0
    for unsaid in ("resultCode", "failed on purpose", "mended", MARKUP):
        assert unsaid not in console.program.errors


def test_commands_are_in_the_audit_too(system: System) -> None:
    bury(system, 3)
    system.json("dead", "drop", "--device", "d0", "--yes")
    assert system.nb("dead", "drop", "9/1-0", "--yes").code == 1
    system.json("groups", "pause", "default")
    system.json("groups", "pause", "default")
    system.json("groups", "retire", "default", "--yes")
    system.json("dead", "replay", "--all", "--dry-run")
    lines = Console(system).json("/audit")["audit"]
    assert {line["by"] for line in lines} == {"command line"}
    assert all("@" in line["who"] for line in lines)
    ends = [line for line in lines if line["begun"]][::-1]
    assert len(lines) == 2 * len(ends)
    assert [(line["action"], line["outcome"], line["counts"]) for line in ends] == [
        ("dead drop", "done", {"dropped": 1}),
        ("dead drop", "done", {"gone": 1}),
        ("groups pause", "done", {}),
        ("groups pause", "nothing to do", {}),
        ("groups retire", "done", {}),
    ]
    assert ends[0]["what"] == "1 dead letters of group default: of device d0"
    assert ends[1]["what"] == "1 dead letters of group default: 9/1-0"


def test_a_command_acts_where_the_audit_cannot_be_written(system: System) -> None:
    bury(system, 1)
    system.client.set(f"{system.namespace}:audit", "in the way")
    said = system.nb("groups", "pause", "default")
    assert said.code == 0
    assert said.err.count("\n") == 1
    assert "not in the audit" in said.err
    console = Console(system)
    (letter,) = console.json("/dead")["dead"]
    assert console.call(f"/dead/default/{letter['id']}/drop", {}, accept="text/html")[0] == 409
    assert console.json("/dead")["total"] == 1


def test_a_job_ends_with_the_console_and_says_how_far_it_came(system: System) -> None:
    bury(system, 40)
    console = Console(system)
    job = console.counted(of="dead", verb="drop", group="default")
    console.json(f"/jobs/{job['id']}/start", {"rate": "5"})
    wait_until_sync(lambda: console.json(f"/jobs/{job['id']}")["done"] >= 2, "some to be dropped")
    began_s = time.monotonic()
    assert console.program.stop() == 0
    assert time.monotonic() - began_s < 15
    (end, _) = Console(system).json("/audit")["audit"]
    left = system.json("dead", "list")["total"]
    assert end["counts"] == {"dropped": 40 - left}
    assert end["outcome"] == f"stopped by the end of the console after {40 - left} of 40"


def test_a_job_goes_on_when_redis_is_back(
    system_of_own: System, own_server: EmbeddedServer
) -> None:
    bury(system_of_own, 12)
    console = Console(system_of_own)
    job = console.counted(of="dead", verb="drop", group="default")
    path = f"/jobs/{job['id']}"
    console.json(f"{path}/start", {"rate": "10"})
    wait_until_sync(lambda: console.json(path)["done"] >= 1, "the first to be dropped")
    own_server.kill()
    wait_until_sync(lambda: "waits for Redis" in (console.json(path)["note"] or ""), "the outage")
    assert console.call("/dead", accept="text/html")[0] == 503
    own_server.start()
    wait_until_sync(lambda: console.json(path)["state"] == "done", "the job")
    assert sum(console.json(path)["outcomes"].values()) == 12
    assert console.json("/dead")["total"] == 0
    assert console.program.stop() == 0
