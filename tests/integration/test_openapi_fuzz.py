"""Schemathesis plays callers against the ingress, guided by the description that it serves.

Each request's answer must be one that is described: status, media type, headers, schema; none may
be a server error, and none may come without credentials where these are needed.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from bridge.ingress import openapi
from support import fuzzing, servers, streams
from support.processes import Serve, environ_for

pytestmark = pytest.mark.real

TOKEN = "only-for-this-test"
REJECTING = {"on_invalid": "reject", "tokens": TOKEN}
EXAMPLES = "15"


def served(tmp_path: Path, redis: servers.Redis, **settings: str) -> Serve:
    return Serve(environ_for(tmp_path, redis.url, redis.namespace, **settings))


def fuzz(ingress: Serve, folder: Path, *options: str) -> None:
    fuzzing.fuzz(
        f"{ingress.admin_url}/openapi.json",
        ingress.url.rpartition("/v1")[0],
        folder,
        *("--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES),
        *options,
        bound_s=280,
    )


def test_the_ingress_serves_the_description_of_its_own_settings(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    ingress = served(
        tmp_path,
        real_redis,
        callback_paths="/a/cmd,/b/cmd",
        notify_paths="/a",
        max_body_bytes="4321",
        secret_headers=f"X-Key: {TOKEN}, X-Key: other",
    )
    try:
        with urllib.request.urlopen(f"{ingress.admin_url}/openapi.json") as response:
            text = response.read()
        assert response.headers["Content-Type"] == "application/json"
        assert json.loads(text) == openapi.describe(
            paths=["/a/cmd", "/b/cmd", "/a"],
            server_url=ingress.url.removesuffix("/a/cmd"),
            max_body_bytes=4321,
            security=openapi.Security(headers=["X-Key"]),
        )
        assert TOKEN.encode() not in text
    finally:
        ingress.kill()


async def reached(redis: servers.Redis) -> tuple[int, int]:
    """How many notifications were published, and how many bodies went into quarantine."""
    entries = await streams.published(redis.client, redis.keys)
    return sum(map(len, entries.values())), await redis.client.xlen(redis.keys.quarantine)


async def test_no_caller_gets_an_answer_that_is_not_described(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    ingress = served(tmp_path, real_redis)
    try:
        # What is not a notification is answered 200 here, as the platform must be.
        fuzz(ingress, tmp_path, "--exclude-checks", "negative_data_rejection")
        assert min(await reached(real_redis)) >= 10  # it did not stop at the door
        assert not ingress.logged("callback_failed")
    finally:
        ingress.kill()


async def test_what_does_not_follow_the_schemas_is_refused_where_that_is_asked_for(
    real_redis: servers.Redis, tmp_path: Path
) -> None:
    ingress = served(tmp_path, real_redis, **REJECTING)
    try:
        fuzz(ingress, tmp_path, "--header", f"Authorization: Bearer {TOKEN}")
        assert min(await reached(real_redis)) >= 10
        assert not ingress.logged("callback_failed")
    finally:
        ingress.kill()
