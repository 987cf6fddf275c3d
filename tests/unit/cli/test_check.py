"""What `check` makes of a server, of this machine, and of files with other libraries' names."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.operations import check_machine, check_namespace, check_redis, shadowed_imports
from bridge.operations.check_redis import Server
from bridge.operations.findings import Finding
from bridge.operations.group_progress import Group, Share
from bridge.outbox.spool.file import SpoolFile
from bridge.outbox.spool.row import Row
from bridge.settings import Settings

INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "maxmemory": str(2**30),
    "maxmemory_policy": "noeviction",
    "total_system_memory": str(2**33),
    "connected_slaves": "0",
    "tcp_port": "6379",
}
CONFIG = {"appendfsync": "always", "min-replicas-to-write": "0"}


def levels(found: list[Finding]) -> dict[str, str]:
    return {each.name: each.level for each in found if each.level != "ok"}


def judged(
    info: dict[str, str], config: dict[str, str] | None = CONFIG, needed_bytes: int = 2**20
) -> dict[str, str]:
    found = check_redis.judge(Server(info=INFO | info, config=config), needed_bytes)
    for each in found:
        assert bool(each.advice) == (each.level in ("warning", "problem")), each
    return levels(found)


def test_a_server_as_documented_is_fine() -> None:
    assert judged({}) == {}
    assert judged({"valkey_version": "9.1.0"}) == {}


@pytest.mark.parametrize(
    ("info", "name", "level"),
    [
        ({"redis_version": "6.0.16"}, "redis.version", "problem"),
        ({"redis_version": "6.2.0"}, "redis.version", None),
        ({"redis_version": "unknown"}, "redis.version", "skipped"),
        ({"role": "slave"}, "redis.role", "problem"),
        ({"aof_enabled": "0"}, "redis.persistence", "problem"),
        ({"aof_last_write_status": "err"}, "redis.persistence", "problem"),
        ({"maxmemory_policy": "allkeys-lru"}, "redis.eviction", "problem"),
        ({"maxmemory": "0"}, "redis.memory", "warning"),
        ({"maxmemory": str(2**20)}, "redis.memory", "warning"),
        ({"connected_slaves": "1"}, "redis.replicas", "warning"),
    ],
)
def test_what_breaks_a_promise_is_a_problem_and_what_may_be_chosen_a_warning(
    info: dict[str, str], name: str, level: str | None
) -> None:
    assert judged(info) == ({} if level is None else {name: level})


def test_what_config_alone_tells_is_judged_where_it_may_be_seen() -> None:
    assert judged({}, CONFIG | {"appendfsync": "everysec"}) == {"redis.persistence": "warning"}
    replicated = {"connected_slaves": "1"}
    assert judged(replicated, CONFIG | {"min-replicas-to-write": "1"}) == {}
    assert judged(replicated, None) == {"redis.persistence": "skipped", "redis.replicas": "skipped"}


def test_the_projection_counts_both_pages_of_the_ledger_and_the_backlog() -> None:
    settings = Settings(ledger_max_records=1000, max_backlog=500)
    assert check_redis.projected_bytes(settings, 16) == 16 * 2 * 1000 * 240 + 500 * 400


# --- the namespace


@pytest.mark.parametrize(
    ("group", "share", "level"),
    [
        ({}, {}, "ok"),
        ({"workers": {}}, {}, "warning"),
        ({"workers": {}}, {"waiting": 1}, "problem"),
        ({"workers": {}}, {"parked": 1}, "problem"),
        ({"paused": True, "workers": {}}, {"waiting": 1}, "warning"),
        ({"registered": False}, {}, "warning"),
        ({}, {"dead": 9}, "ok"),
        ({}, {"dead": 10}, "problem"),
    ],
)
def test_a_group_that_nobody_serves_is_a_problem(
    group: dict[str, Any], share: dict[str, int], level: str
) -> None:
    made = {"name": "g", "registered": True, "paused": False, "workers": {"w": 0}} | group
    one = Group(**made, shares=[Share(partition=0), Share(partition=1, **share)])
    assert check_namespace.judge(one, dead_max_entries=10).level == level


# --- this machine


def test_an_endpoint_without_any_credentials_is_open() -> None:
    assert check_machine.access(Settings()).level == "warning"
    assert check_machine.access(Settings(tokens=("t",))).level == "ok"
    assert check_machine.access(Settings(tokens=("t",), auth_mode="log")).level == "warning"


def issued(folder: Path, name: str, **dates: datetime) -> dict[str, Any]:
    certificate = trustme.CA().issue_cert("example.com", **dates)
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))
    return {"tls_cert": chain, "tls_key": key}


def test_a_certificate_is_judged_by_its_dates_and_its_key(tmp_path: Path) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    fine = issued(tmp_path, "fine", not_after=now + 90 * day)
    other = issued(tmp_path, "other", not_after=now + 90 * day)
    cases = {
        "ok": [fine],
        "warning": [{}, issued(tmp_path, "soon", not_after=now + 3 * day)],
        "problem": [
            issued(tmp_path, "over", not_before=now - 9 * day, not_after=now - day),
            issued(tmp_path, "early", not_before=now + day, not_after=now + 9 * day),
            fine | {"tls_key": other["tls_key"]},
            fine | {"tls_cert": tmp_path / "nowhere.pem"},
        ],
    }
    for level, all_of_it in cases.items():
        for settings in all_of_it:
            (found,) = check_machine.certificate(Settings(**settings))
            assert found.level == level, (settings, found)


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/share /mnt/with\\040blank nfs4 rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sdb1 /run/disk xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/var/lib", "ext4"), ("/mnt/with blank/spool", "nfs4"), ("/run/spool", "tmpfs"),
     ("/run/disk/spool", "xfs"), ("/running", "ext4")],
)  # fmt: skip
def test_the_file_system_is_that_of_the_nearest_mount(folder: str, kind: str) -> None:
    assert check_machine.filesystem(Path(folder), MOUNTS) == kind


def test_a_file_system_that_is_not_told_is_none() -> None:
    assert check_machine.filesystem(Path("/var"), "") is None


def spool_levels(settings: Settings) -> dict[str, str]:
    found = levels(check_machine.spool(settings))
    found.pop("spool.disk", None)  # whatever the tests run on
    return found


def test_the_spool_folder_and_what_is_in_it(tmp_path: Path) -> None:
    settings = Settings(spool_dir=tmp_path / "spool", spool_max_bytes=2**18)
    assert spool_levels(settings) == {}
    (tmp_path / "spool").mkdir()
    assert spool_levels(settings) == {}
    assert list((tmp_path / "spool").iterdir()) == []  # nothing is left of the look
    file = SpoolFile(tmp_path / "spool" / "spool-1.db", max_bytes=2**20)
    file.write([Row(1, 0, 5, None, b"{}")])
    file.close()
    assert spool_levels(settings) == {"spool.file_set": "warning"}  # its process has ended
    (tmp_path / "spool" / "spool-2.damaged").touch()
    assert spool_levels(settings) == {"spool.file_set": "problem"}
    huge = Settings(spool_dir=tmp_path / "other", spool_max_bytes=2**40)
    (tmp_path / "other").mkdir()
    assert spool_levels(huge) == {"spool.room": "warning"}


def test_a_folder_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(spool_dir=tmp_path / "file" / "spool")
    assert spool_levels(settings) == {"spool.folder": "problem"}


@pytest.mark.parametrize(
    ("source", "level"),
    [
        ("def handleNBCommandStateChanged(self): ...", "ok"),
        ("def handleNBCommandStateChanged(self, a, b): ...", "problem"),
        ("x = 1 / 0", "problem"),
        ("import os; os._exit(7)", "problem"),
    ],
)
def test_a_receiver_is_loaded_as_a_worker_would(tmp_path: Path, source: str, level: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from consumers import PushMessageReceiver\n"
        f"class Own(PushMessageReceiver):\n    {source}\n"
    )
    found = check_machine.receiver(Settings(receiver=f"{file}:Own"))
    assert found.level == level, found


# --- shadowed imports


def test_nothing_is_shadowed_here() -> None:
    assert shadowed_imports.find() == []


def test_files_with_the_names_of_libraries_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "redis.py").touch()
    (tmp_path / "queue.py").touch()
    (tmp_path / "fine.py").touch()
    (tmp_path / "logging").mkdir()  # no package: never imported before the standard library's
    assert [each.name for each in shadowed_imports.named_alike(tmp_path)] == [
        "queue.py",
        "redis.py",
    ]


@pytest.mark.parametrize("name", ["redis", "marshmallow"])
def test_a_command_that_gets_the_wrong_library_says_which_file_it_is(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / f"{name}.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "check"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / f"{name}.py") in done.stderr
