"""Callback paths: which are taken, and what an entry keeps of them."""

from __future__ import annotations

import json

import pytest

from bridge.http.paths import CallbackPaths, plain_path, without_query

COMMAND, GENERAL = "/v1.0.0/messageReceiver/cmd", "/v1.0.0/messageReceiver"
PATHS = CallbackPaths(
    [COMMAND, GENERAL, "/own", "/t/{tenant}/{kind}", "/t/fixed/x", "/ü/{name}/", "/%C3%A4/{name}"]
)


@pytest.mark.parametrize("asked", [COMMAND, GENERAL, f"{COMMAND}/", f"//v1.0.0{COMMAND[7:]}",
                                   "/v1.0.0/messageReceiver%2Fcmd"])  # fmt: skip
def test_of_the_documented_paths_nothing_is_kept(asked: str) -> None:
    assert PATHS.find(asked) == {}


@pytest.mark.parametrize("asked", ["/own", "/own/", f"{GENERAL}?a=1", "/own?a=1&b=", "/t/fixed/x"])
def test_another_path_or_a_query_is_kept_as_it_was_asked_for(asked: str) -> None:
    assert PATHS.find(asked) == {"path": asked}


@pytest.mark.parametrize(
    ("asked", "params"),
    [
        ("/t/acme/meter", {"tenant": "acme", "kind": "meter"}),
        ("//t/acme/meter/?x=1", {"tenant": "acme", "kind": "meter"}),
        ("/t/a%20b/c%2Fd", {"tenant": "a b", "kind": "c/d"}),
        ("/t/fixed/y", {"tenant": "fixed", "kind": "y"}),
        ("/t/%E2%82%AC/%0A", {"tenant": "€", "kind": "\n"}),
        ("/%74/acme/meter", {"tenant": "acme", "kind": "meter"}),
        ("/%C3%BC/x", {"name": "x"}),
        ("/ä/x", {"name": "x"}),
    ],
)
def test_a_segment_may_have_a_name(asked: str, params: dict[str, str]) -> None:
    found = PATHS.find(asked)
    assert found is not None
    assert found["path"] == asked
    assert json.loads(found["path_params"]) == params
    assert "\n" not in found["path_params"]


@pytest.mark.parametrize("asked", ["/", "", "*", "/t", "/t/a", "/t/a/b/c", "/T/a/b", "/ownx",
                                   "http://[", "/v1.0.0"])  # fmt: skip
def test_other_paths_are_none(asked: str) -> None:
    assert PATHS.find(asked) is None


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (f"http://example.com{COMMAND}", {}),
        (f"HTTPS://example.com:8443{GENERAL}?a", {"path": f"{GENERAL}?a"}),
        ("http://t/acme/meter/x", None),
        ("http://example.com", None),
    ],
)
def test_the_absolute_form_is_taken(asked: str, found: dict[str, str] | None) -> None:
    assert PATHS.find(asked) == found


@pytest.mark.parametrize(
    ("target", "kept", "plain"),
    [
        ("//iot/a%2Fb/?token=s3cret", "/iot/a%2Fb", "/iot/a/b"),
        ("http://h/iot", "/iot", "/iot"),
        ("/iot/a\nb", "/iot/a%0Ab", "/iot/a\nb"),
        ("*", "/*", "/*"),
    ],
)
def test_what_is_told_of_a_path(target: str, kept: str, plain: str) -> None:
    assert (without_query(target), plain_path(target)) == (kept, plain)


def test_a_target_that_is_not_text_can_be_stored_all_the_same() -> None:
    found = PATHS.find("/own?\udcff")
    assert found == {"path": "/own?\\udcff"}
