"""One connection: replies in order, nothing hidden, nothing reused after doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.errors import RedisUnavailableError
from bridge.store.connect import open_link
from bridge.store.embedded import EmbeddedServer
from bridge.store.health import Health
from bridge.store.link import Call, Link, Refused, Script, command
from support import servers
from support.ports import free_port
from support.waiting import wait_until

PAIR = Script.load("consumers.worker", "renew")  # any script will do
HEARTBEAT = Script.load("consumers.worker", "heartbeat")


@pytest.fixture
async def hurt(own_server: EmbeddedServer) -> AsyncIterator[servers.Redis]:
    """A real server to be frozen and killed."""
    redis = servers.real_redis(own_server)
    yield redis
    servers.thaw(own_server)
    await redis.aclose()


# --- replies


async def test_replies_come_in_the_order_of_the_calls(server: servers.Redis) -> None:
    link = server.link()
    calls = [command("ECHO", f"{n}") for n in range(500)]
    assert await link.run(calls, timeout_s=10) == [b"%d" % n for n in range(500)]
    assert await link.run([], timeout_s=10) == []


async def test_arguments_of_every_kind_arrive_and_bytes_come_back(server: servers.Redis) -> None:
    link = server.link()
    key, value = f"{server.namespace}:ü", b"\x00\xff\r\n$5\r\n"
    assert await link.one(command("SET", key, value), timeout_s=10) == b"OK"
    assert await link.one(command("GET", key), timeout_s=10) == value
    assert await link.one(command("GET", key + "absent"), timeout_s=10) is None
    assert await link.one(command("INCRBY", key + "n", 5), timeout_s=10) == 5


async def test_a_refused_call_has_its_error_in_its_place(server: servers.Redis) -> None:
    link = server.link()
    key = server.namespace
    replies = await link.run(
        [command("SET", key, "x"), command("LPUSH", key, "y"), command("GET", key)], timeout_s=10
    )
    assert replies[::2] == [b"OK", b"x"]
    assert isinstance(replies[1], Refused)
    assert replies[1].code == "WRONGTYPE"
    assert link.generation == 1  # the connection is as good as before


async def test_what_follows_an_unknown_script_is_not_run_before_it(
    server: servers.Redis,
) -> None:
    """Also where the server knows the script that follows, from another client."""
    link = server.link()
    await server.client.script_flush()
    await server.client.script_load(HEARTBEAT.text)
    lease = f"{server.namespace}:lease"
    await server.client.set(lease, "token")
    beat = HEARTBEAT.call([f"{server.namespace}:workers"], ["a", 60_000])
    calls = [PAIR.call([lease], ["token", 60_000]), command("DEL", lease), beat, command("PING")]
    assert await link.run(calls, timeout_s=10) == [1, 1, [b"a"], b"PONG"]
    assert await link.run(calls, timeout_s=10) == [0, 0, [b"a"], b"PONG"]
    assert link.generation == 1


async def test_scripts_that_were_forgotten_are_told_again_in_their_order(
    server: servers.Redis,
) -> None:
    link = server.link()
    workers, lease = f"{server.namespace}:workers", f"{server.namespace}:lease"
    beats = [HEARTBEAT.call([workers], [worker, 60_000]) for worker in ("b", "a")]
    renewal = PAIR.call([lease], ["token", 1000])
    await link.run([renewal, *beats], timeout_s=10)
    await server.client.delete(workers)
    await server.client.script_flush()
    replies = await link.run([command("ECHO", "x"), beats[0], renewal, beats[1]], timeout_s=10)
    assert replies == [b"x", [b"b"], 0, [b"a", b"b"]]
    assert link.generation == 1


async def test_a_batch_of_which_a_part_ran_before_a_forgotten_script_is_in_doubt(
    server: servers.Redis,
) -> None:
    link = server.link()
    beat = HEARTBEAT.call([f"{server.namespace}:workers"], ["a", 60_000])
    calls = [PAIR.call([f"{server.namespace}:lease"], ["token", 1000]), beat]
    await link.run(calls, timeout_s=10)
    await server.client.script_flush()
    await server.client.script_load(HEARTBEAT.text)
    with pytest.raises(RedisUnavailableError, match="forgot scripts"):
        await link.run(calls, timeout_s=10)
    assert await link.run(calls, timeout_s=10) == [0, [b"a"]]
    assert link.generation == 2


# --- turns


async def test_callers_take_turns_and_get_their_own_replies(server: servers.Redis) -> None:
    link = server.link()
    replies = await asyncio.gather(
        *(link.one(command("ECHO", f"{n}"), timeout_s=10) for n in range(100))
    )
    assert replies == [b"%d" % n for n in range(100)]
    assert link.generation == 1


@pytest.mark.real
async def test_who_waits_too_long_for_a_turn_disturbs_nobody(real_redis: servers.Redis) -> None:
    link = real_redis.link()
    first = asyncio.create_task(link.one(command("BLPOP", real_redis.namespace, 0.3), timeout_s=10))
    await asyncio.sleep(0)
    with pytest.raises(RedisUnavailableError, match=r"no answer within 0\.01 s"):
        await link.one(command("PING"), timeout_s=0.01)
    assert await first is None
    assert link.generation == 1


# --- doubt


@pytest.mark.real
async def test_after_a_time_out_the_connection_is_not_used_again(hurt: servers.Redis) -> None:
    assert hurt.server is not None
    link = hurt.link()
    await link.one(command("PING"), timeout_s=10)
    servers.freeze(hurt.server)
    with pytest.raises(RedisUnavailableError, match="no answer"):
        await link.one(command("ECHO", "old"), timeout_s=0.05)
    servers.thaw(hurt.server)
    assert await link.one(command("ECHO", "new"), timeout_s=10) == b"new"
    assert link.generation == 2


@pytest.mark.real
async def test_after_a_cancellation_the_connection_is_not_used_again(
    real_redis: servers.Redis,
) -> None:
    link = real_redis.link()
    name = real_redis.namespace
    blocked = asyncio.create_task(link.one(command("BLPOP", name, 30), timeout_s=60))

    async def is_blocked() -> bool:
        return any(client["cmd"] == "blpop" for client in await real_redis.client.client_list())

    await wait_until(is_blocked)
    blocked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blocked
    assert await link.one(command("ECHO", "mine"), timeout_s=10) == b"mine"
    assert link.generation == 2

    async def is_gone() -> bool:
        return not await is_blocked()

    await wait_until(is_gone, "the abandoned connection to be closed")


@pytest.mark.real
async def test_a_cut_connection_is_an_error_once_and_then_made_anew(
    real_redis: servers.Redis,
) -> None:
    link = real_redis.link()
    id_ = await link.one(command("CLIENT", "ID"), timeout_s=10)
    await real_redis.client.client_kill_filter(_id=id_)
    with pytest.raises(RedisUnavailableError):
        await link.one(command("PING"), timeout_s=10)
    assert await link.one(command("PING"), timeout_s=10) == b"PONG"
    assert link.generation == 2


async def test_no_server_is_an_error_that_names_no_password() -> None:
    link = open_link(f"redis://:s3cret@127.0.0.1:{free_port()}/0", name="test")
    with pytest.raises(RedisUnavailableError) as caught:
        await link.one(command("PING"), timeout_s=10)
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.real
async def test_a_server_without_a_process_to_answer_is_given_up_in_time(
    hurt: servers.Redis,
) -> None:
    assert hurt.server is not None
    servers.freeze(hurt.server)
    with pytest.raises(RedisUnavailableError):
        await hurt.link().one(command("PING"), timeout_s=0.05)


@pytest.mark.real
@pytest.mark.parametrize(
    ("setting", "told"),
    [(("maxmemory", "1"), "OOM"), (("min-replicas-to-write", "1"), "NOREPLICAS")],
)
@pytest.mark.parametrize(
    "call",
    [command("SET", "a", "b"), command("EVAL", "return redis.call('SET', KEYS[1], 'b')", 1, "a")],
    ids=["command", "script"],
)
async def test_what_is_about_the_servers_state_is_no_answer(
    hurt: servers.Redis, call: Call, setting: tuple[str, str], told: str
) -> None:
    """The same call will do later: nobody may take it for a refusal of the call."""
    await hurt.client.config_set(*setting)
    link = hurt.link()
    with pytest.raises(RedisUnavailableError, match=f"now: {told} "):
        await link.run([command("PING"), call], timeout_s=10)
    assert await link.one(command("PING"), timeout_s=10) == b"PONG"


@pytest.mark.real
async def test_a_right_that_a_script_lacks_is_the_servers_state(hurt: servers.Redis) -> None:
    """An operator forgot a command in the user's rights: nothing is wrong with the notification."""
    await hurt.client.acl_setuser(
        "limited", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-time"]
    )
    link = open_link(hurt.url.replace("redis://", "redis://limited:any@"), name="limited")
    with pytest.raises(RedisUnavailableError, match="NOPERM"):
        await link.one(HEARTBEAT.call(["workers"], ["w", 1000]), timeout_s=10)
    await link.close()


@pytest.mark.real
async def test_a_read_only_replica_is_no_server_to_write_to(hurt: servers.Redis) -> None:
    await hurt.client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
    with pytest.raises(RedisUnavailableError, match="READONLY"):
        await hurt.link().one(command("SET", "a", "b"), timeout_s=10)


async def test_a_closed_link_may_be_used_again(server: servers.Redis) -> None:
    link = server.link()
    await link.one(command("PING"), timeout_s=10)
    await link.close()
    await link.close()
    assert await link.one(command("PING"), timeout_s=10) == b"PONG"
    assert link.generation == 2


# --- health


class Told(Health):
    """Keeps the log lines instead of writing them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._log: Any = self

    def info(self, event: str, **_: Any) -> None:
        self.lines.append(event)

    warning = info


@pytest.mark.real
async def test_each_change_is_told_once(hurt: servers.Redis) -> None:
    assert hurt.server is not None
    health = Told()
    links = [Link(hurt.pool, health) for _ in range(2)]
    for link in links:
        await link.one(command("PING"), timeout_s=10)
    assert (health.is_up, health.lines) == (True, [])
    servers.freeze(hurt.server)
    for link in links * 2:
        with pytest.raises(RedisUnavailableError):
            await link.one(command("PING"), timeout_s=0.02)
    assert (health.is_up, health.lines) == (False, ["redis_lost"])
    servers.thaw(hurt.server)
    for link in links * 2:
        await link.one(command("PING"), timeout_s=10)
        await link.close()
    assert (health.is_up, health.lines) == (True, ["redis_lost", "redis_back"])


def test_neither_a_call_nor_a_script_shows_what_is_in_it() -> None:
    shown = repr(command("SET", "key", "s3cret")) + repr(PAIR.call(["key"], ["s3cret"]))
    assert "s3cret" not in shown
    assert "redis.call" not in shown
