"""The operators' commands on a running system: they tell what is so, and do what they say."""

from __future__ import annotations

import json
import math
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bridge import __version__
from bridge.contract.keys import Keys, partition_of
from bridge.store.embedded import EmbeddedServer
from support.history import open_gate
from support.operating import PARTITIONS, System, check_shape, documented
from support.processes import Serve
from support.programs import Program, Programs
from support.waiting import wait_until_sync

pytestmark = pytest.mark.real

JUNK = b'{"deviceId": "junk", "result": {"resultCode": "SENT"}}'


@pytest.fixture
def system_of_own(
    own_server: EmbeddedServer,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[System]:
    """On a server that may be hurt, and that is set up as it should be."""
    made = System(own_server.url, "ops", programs, monkeypatch)
    yield made
    made.stop()


def handled(system: System) -> list[str]:
    """Devices of the deliveries that ended well."""
    return [run.device for run in system.history.runs if run.how == "handled"]


def audited(system: System) -> tuple[str, dict[str, int]]:
    """The newest action in the audit, which ended well, and what it counted."""
    ((_, fields),) = system.client.xrevrange(f"{system.namespace}:audit", count=1)  # type: ignore[misc,union-attr]
    assert fields[b"outcome"] == b"done"
    return fields[b"action"].decode(), json.loads(fields[b"counts"])


# --- one system, and what every command shows of it -----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Busy:
    """A running system: three devices went well, two are dead letters, two entries wait of one.

    `before_ms` and `after_ms` are the moments around the oldest entry without an outcome.
    """

    system: System
    ingress: Serve
    worker: Program
    group: Any
    before_ms: int
    after_ms: int


@pytest.fixture(scope="module")
def busy(real_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """Shared: commands that only look at it."""
    programs = Programs(tmp_path_factory.mktemp("busy"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        system = System(real_server.url, f"busy-{uuid.uuid4().hex[:12]}", programs, monkeypatch)
        yield _busy(system)
        system.stop()
        programs.kill_all()


def _busy(system: System) -> Busy:
    ingress = system.start_ingress()
    # It lives for as long as this file's tests take, whatever runs between them.
    worker = system.start_worker(backoff_base_s=3600, backoff_max_s=3600)
    for device in ("ok-1", "ok-2", "ok-3"):
        system.send(device, command=f"of-{device}", code="DELIVERED")
    system.send("ok-1", command="of-ok-1", code="SENT")  # late
    for device in ("no-1", "no-2"):
        system.send(device, {"do": "reject"}, command=f"of-{device}")
    before_ms = math.floor(time.time() * 1000)
    system.send("bad", {"do": "fail"}, command="of-bad")
    after_ms = math.ceil(time.time() * 1000)
    system.send("bad", command="behind")
    assert system.post(JUNK) == (200, b"quarantined")
    return Busy(
        system=system,
        ingress=ingress,
        worker=worker,
        group=system.unhandled_is(2),
        before_ms=before_ms,
        after_ms=after_ms,
    )


@pytest.fixture(autouse=True)
def _environ_of_busy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings, which are taken from the environment before every test."""
    if "busy" in request.fixturenames:
        for name, value in request.getfixturevalue("busy").system.environ.items():
            monkeypatch.setenv(name, value)


def test_status_counts_what_is_where(busy: Busy) -> None:
    group = busy.group
    assert (group["waiting"], group["dead"], len(group["workers"])) == (0, 2, 1)
    assert group["workers"][0]["version"] == __version__
    assert group["pending"] + group["parked"] == 2
    assert busy.before_ms <= group["oldest_unhandled_at_ms"] <= busy.after_ms
    for name in ("waiting", "pending", "parked", "parked_devices", "dead", "unhandled"):
        assert group[name] == sum(partition[name] for partition in group["partitions"])
    # A heartbeat is two seconds old at most.
    wait_until_sync(
        lambda: busy.system.json("status")["ingresses"][0]["answers"], "answers to be counted"
    )
    status = busy.system.json("status")
    check_shape(status, documented("`nb-bridge status`"))
    assert status["namespace"] == {"name": busy.system.namespace, "partitions": 4, "held": None}
    assert status["quarantine"] == {"entries": 1, "dropped": 0}
    assert [ingress["url"] for ingress in status["ingresses"]] == [busy.ingress.url]


def test_dead_list_shows_those_that_are_asked_for(busy: Busy) -> None:
    dead = busy.system.json("dead", "list")
    check_shape(dead, documented("`nb-bridge dead list`"))
    assert dead["total"] == 2
    assert {
        (letter["device"], letter["reason"], letter["error_type"]) for letter in dead["dead"]
    } == {
        ("no-1", "rejected", "Reject"),
        ("no-2", "rejected", "Reject"),
    }
    assert busy.system.json("dead", "list", "--device", "no-2")["total"] == 1
    assert busy.system.json("dead", "list", "--error", "NO USE")["total"] == 2
    assert busy.system.json("dead", "list", "--until", "1h")["total"] == 0


def test_quarantine_list_shows_the_body_and_whose_it_may_be(busy: Busy) -> None:
    document = busy.system.json("quarantine", "list")
    check_shape(document, documented("`nb-bridge quarantine list`"))
    (body,) = document["quarantine"]
    assert (body["device"], body["length_bytes"]) == ("junk", len(JUNK))
    counted = busy.system.json("quarantine", "list", "--by-reason")
    check_shape(counted, documented("`nb-bridge quarantine list`", 1))
    (alike,) = counted["reasons"]
    assert (alike["bodies"], alike["example"]) == (1, body["id"])
    assert alike["looks"] == "looks like a command status callback without commandId"
    assert alike["looks"] in busy.system.nb("quarantine", "list", "--by-reason").out


def test_trace_tells_of_attempts_and_when_the_next_is_due(busy: Busy) -> None:
    failing = busy.system.json("trace", "of-bad")
    check_shape(failing, documented("`nb-bridge trace"))
    (found,) = failing["notifications"]
    assert (found["device"], found["partition"]) == ("bad", partition_of("bad", PARTITIONS))
    assert busy.before_ms <= found["received_at_ms"] <= busy.after_ms
    assert found["groups"]["default"]["state"] in ("pending", "parked")
    assert found["groups"]["default"]["attempts"] == 1
    assert found["groups"]["default"]["due_at_ms"] > found["received_at_ms"]
    assert failing["spooled"] == []


def test_trace_leads_to_the_dead_letter(busy: Busy) -> None:
    found = busy.system.json("trace", "of-no-1")["notifications"][0]["groups"]["default"]
    (letter,) = busy.system.json("dead", "list", "--device", "no-1")["dead"]
    assert (found["state"], found["dead_id"]) == ("dead", letter["id"])


def test_trace_knows_what_was_handled_from_the_ledger(busy: Busy) -> None:
    found = busy.system.json("trace", "of-ok-1")
    named = busy.system.json("trace", "of-ok-1", "--device", "ok-1")
    for it in (found, named):
        del it["notifications"]  # what is still in its stream, which is trimmed at some time
    assert named == found
    (device,) = found["devices"]
    assert device["furthest"] == "delivered"
    accepted = [(status["status"], status["handled"]) for status in device["accepted"]]
    assert accepted == [("DELIVERED", True), ("SENT", True)]
    for status in device["accepted"]:
        outcome = status["groups"]["default"]
        assert (outcome["state"], outcome["attempts"]) == ("handled", 1)
        assert outcome["handled_at_ms"] >= status["accepted_at_ms"]
    assert "handled" in busy.system.nb("trace", "of-ok-1").out
    assert busy.system.nb("trace", "of-nobody").code == 1


def test_trace_and_status_say_why_something_is_tried_again(busy: Busy) -> None:
    """Parked or not."""
    (device,) = busy.system.json("trace", "of-bad")["devices"]
    failed = device["accepted"][0]["groups"]["default"]["last_failure"]
    assert (failed["error_type"], failed["error"]) == (
        "ValueError", "failed on purpose, attempt 1",
    )  # fmt: skip
    assert failed["where"].startswith("history.py:")
    assert "failed on purpose" in busy.system.nb("trace", "of-bad").out
    failing = busy.system.json("status")["failing"]
    (error,) = failing["errors"]
    assert (failing["total"], error["devices"], error["example"]) == (1, 1, "bad")
    assert (error["error_type"], error["where"]) == ("ValueError", failed["where"])
    assert error["since_ms"] == error["last_ms"] == failed["at_ms"]
    assert failed["where"] in busy.system.nb("status").out


def test_device_shows_what_waits_for_it_and_who_owns_it(busy: Busy) -> None:
    device = busy.system.json("device", "bad")
    (queue,) = device["groups"]
    assert (device["total"], queue["owner"]) == (2, busy.group["workers"][0]["id"])
    assert queue["waiting"] + queue["pending"] + queue["parked"] == 2
    notifications = busy.system.json("trace", "of-bad")["notifications"]
    check_shape(device, documented("`nb-bridge device") | {"notifications": notifications})


def test_groups_list_counts_what_is_unhandled(busy: Busy) -> None:
    listed = busy.system.json("groups", "list")
    check_shape(listed, documented("`nb-bridge groups list`"))
    assert listed["groups"][0]["unhandled"] == 2


def test_ping_asks_the_program_that_is_named(busy: Busy) -> None:
    pinged = busy.system.json("ping", "--url", busy.ingress.admin_url)
    check_shape(pinged, documented("`nb-bridge ping`"))


@pytest.mark.parametrize(
    "words",
    ["status --partitions", "dead list", "quarantine list", "check", "trace of-bad", "device bad",
     "groups list"],
)  # fmt: skip
def test_no_command_shows_a_payload_unasked(busy: Busy, words: str) -> None:
    shown = busy.system.nb(*words.split())
    assert shown.out
    assert "resultCode" not in shown.out


def test_check_finds_a_group_without_workers(system: System) -> None:
    def group_finding() -> Any:
        document = system.nb("check", "--json").document
        check_shape(document, documented("`nb-bridge check`"))
        (found,) = [find for find in document["findings"] if find["name"] == "group.default"]
        return found

    system.start_ingress()
    worker = system.start_worker()
    system.send("bad", {"do": "fail"})
    system.unhandled_is(1)
    assert group_finding()["level"] == "ok"
    worker.stop()
    without = group_finding()
    assert without["level"] == "problem"
    assert "1 unhandled" in without["found"]


# --- systems that are hurt or changed -------------------------------------------------------------


def test_what_is_told_in_an_outage_is_true(
    system_of_own: System, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = system_of_own
    monkeypatch.setenv("NB_BRIDGE_PARTITIONS", str(PARTITIONS))  # `check` compares it
    ingress = system.start_ingress()
    system.send("before")
    healthy = system.json("check", "--role", "ingress")
    assert healthy["ok"], healthy
    check_shape(healthy, documented("`nb-bridge check`"))

    own_server.kill()
    for number in range(5):
        system.send(f"d{number}", command="spooled")
    said = system.nb("status", "--json")
    assert said.code == 3
    assert said.err.count("\n") == 1
    assert said.document["redis"]["up"] is False
    check_shape(said.document["spool"], documented("`nb-bridge status`")["spool"])
    assert said.document["spool"]["entries"] == 5
    spool = system.json("spool", "status")
    check_shape(spool, documented("`nb-bridge spool status`"))
    assert [(it["state"], it["entries"]) for it in spool["files"]] == [("live", 5)]
    checked = system.nb("check", "--json", "--role", "ingress")
    assert (checked.code, checked.document["ok"]) == (3, False)
    assert system.nb("trace", "spooled").code == 3

    ingress.kill()
    spool = system.json("spool", "status")
    assert [(it["state"], it["entries"]) for it in spool["files"]] == [("dead", 5)]
    exported = [json.loads(line) for line in system.nb("spool", "export").out.splitlines()]
    assert [json.loads(it["body"])["deviceId"] for it in exported] == [f"d{n}" for n in range(5)]

    own_server.start()
    traced = system.json("trace", "spooled")
    check_shape(traced["spooled"], documented("`nb-bridge trace")["spooled"])
    assert {it["device"] for it in traced["spooled"]} == {f"d{n}" for n in range(5)}
    assert system.json("spool", "drain", "--dry-run")["entries"] == 5
    assert system.nb("spool", "drain").code == 2  # nobody can be asked
    drained = system.json("spool", "drain", "--yes")
    assert drained == {"schema": 1, "entries": 5, "left": 0, "dry_run": False}
    assert system.json("spool", "status")["entries"] == 0
    assert audited(system) == ("spool drain", {"published": 5, "left": 0})
    assert system.json("status")["entries"] == 6  # no group has handled them: all are kept


def test_a_dead_letter_is_replayed_and_handled_and_a_quarantined_body_mended(
    system: System,
) -> None:
    system.start_ingress()
    worker = system.start_worker(max_attempts=1)
    fail_once = {"do": "fail", "times": 1}
    system.send("a", fail_once, command="failed")
    system.send("b", {"do": "reject"})
    assert system.post(JUNK)[0] == 200
    assert system.post(b"no json at all")[0] == 400
    wait_until_sync(lambda: system.json("dead", "list")["total"] == 2, "both to be given up")
    worker.stop()
    system.start_worker(backoff_base_s=0.05, backoff_max_s=0.05)

    (letter,) = system.json("dead", "list", "--device", "a")["dead"]
    shown = system.json("dead", "show", letter["id"])
    assert "failed on purpose" in shown["error"]
    assert "ValueError" in shown["traceback"]
    assert "body" not in shown
    with_body = system.json("dead", "show", letter["id"], "--body")
    assert json.loads(with_body["body"])["commandId"] == "failed"
    more = set(with_body) - set(documented("`nb-bridge dead list`")["dead"][0])
    assert more == {"schema", "group", "traceback", "body"}
    assert system.json("dead", "replay", "--all", "--dry-run")["matched"] == 2
    replayed = system.json("dead", "replay", letter["id"], "--rate", "100")
    assert replayed["outcomes"] == {"replayed": 1}
    check_shape(replayed, documented("`nb-bridge dead list`", 1))
    again = system.nb("dead", "replay", letter["id"], "--json")
    assert (again.code, again.document["outcomes"]) == (1, {"gone": 1})
    assert system.nb("dead", "drop", "--device", "b").code == 2  # nobody can be asked
    assert system.json("dead", "drop", "--device", "b", "--yes")["outcomes"] == {"dropped": 1}
    assert system.json("dead", "list")["total"] == 0

    junk, text = system.json("quarantine", "list")["quarantine"]
    assert (junk["reason"], text["reason"]) == ("not_a_notification", "not_json")
    left = system.nb("quarantine", "replay", junk["id"], "--json")
    assert (left.code, left.document["outcomes"]) == (1, {"left": 1})
    mended = system.folder / "mended.json"
    system.json("quarantine", "show", junk["id"], "--out", str(mended))
    assert mended.read_bytes() == JUNK
    mended.write_text(json.dumps(json.loads(JUNK) | {"commandId": "mended"}))
    done = system.json("quarantine", "replay", junk["id"], "--file", str(mended))
    assert done["outcomes"] == {"replayed": 1}
    assert system.json("quarantine", "drop", "--all", "--yes")["outcomes"] == {"dropped": 1}
    assert system.json("quarantine", "list")["total"] == 0

    wait_until_sync(lambda: {"a", "junk"} <= set(handled(system)), "both to be handled")
    (device,) = system.json("trace", "failed", "--device", "a")["devices"]
    assert device["accepted"][0]["status"] == "SENT"


def test_a_paused_group_starts_nothing_until_it_is_resumed(system: System) -> None:
    system.start_ingress()
    worker = system.start_worker()
    system.unhandled_is(0)
    assert system.json("groups", "pause", "default") == {
        "schema": 1, "group": "default", "changed": True,
    }  # fmt: skip
    assert not system.json("groups", "pause", "default", "--yes")["changed"]
    wait_until_sync(
        lambda: len(system.group()["unowned"]) == PARTITIONS, "every lease to be given up"
    )
    system.send("d")
    group = system.group()
    assert (group["paused"], group["waiting"], len(group["workers"])) == (True, 1, 1)
    assert system.json("groups", "resume", "default")["changed"]
    system.unhandled_is(0)

    assert system.nb("groups", "retire", "nobody").code == 1
    assert system.nb("groups", "retire", "default").code == 2  # nobody can be asked
    assert system.json("groups", "retire", "default", "--yes")["retired"] is True
    assert worker.ends() == 2
    assert system.json("groups", "list") == {"schema": 1, "groups": [], "retired": ["default"]}
    assert system.json("groups", "restore", "default")["changed"]
    assert system.json("groups", "list")["retired"] == []


def test_the_partition_count_is_changed_under_traffic_unless_something_is_pending(
    system: System,
) -> None:
    ingress = system.start_ingress()
    worker = system.start_worker()
    devices = [f"d{number}" for number in range(12)]
    for device in devices:
        system.send(device, {"do": "reject"}, command="dead")
    system.send("late", {"do": "sleep", "until": "gate"}, command="slow")
    system.unhandled_is(1)
    refused = system.nb("partitions", "change", "8", "--yes", "--timeout-s", "0", "--json")
    assert refused.code == 1
    assert "nothing was changed" in refused.err
    assert refused.document["changed"] is False
    open_gate("gate", system.folder)

    changing = system.start("partitions", "change", "8", "--yes", "--json")
    wait_until_sync(lambda: system.json("status")["namespace"]["held"], "the hold")
    for device in devices:
        system.send(device, command="meanwhile")
    wait_until_sync(lambda: system.json("status")["namespace"]["partitions"] == 8, "the switch")
    ingress.terminate()
    assert ingress.ended() == 0
    worker.stop()
    system.start_ingress(partitions="8")
    system.start_worker(partitions=8)
    assert changing.ends() == 0
    changed = json.loads(changing.output)
    check_shape(changed, documented("`nb-bridge partitions change"))
    assert (changed["from"], changed["to"], changed["changed"]) == (4, 8, True)
    moved = [it for it in devices if partition_of(it, 4) != partition_of(it, 8)]
    assert changed["dead_moved"] == len(moved) > 0
    assert audited(system) == ("partitions change", {})

    system.unhandled_is(0)
    assert sorted(handled(system)) == sorted([*devices, "late"])
    dead = system.json("dead", "list")["dead"]
    assert len(dead) == len(devices)
    assert all(letter["partition"] == partition_of(letter["device"], 8) for letter in dead)


def test_a_change_that_was_killed_leaves_nothing_held_for_ever(system: System) -> None:
    system.start_ingress()
    system.send("d")
    keys = Keys(namespace=system.namespace)
    changing = system.start("partitions", "change", "8", "--yes")
    wait_until_sync(lambda: system.json("status")["namespace"]["held"], "the hold")
    assert 0 < system.client.pttl(keys.hold) <= 30_000
    assert system.nb("partitions", "change", "2", "--yes").code == 1  # one at a time
    changing.signal(signal.SIGINT)
    assert changing.ends() == 130
    assert system.client.exists(keys.hold) == 0
    assert system.json("status")["namespace"]["partitions"] == PARTITIONS
