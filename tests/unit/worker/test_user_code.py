"""Where the user's own code stands."""

from __future__ import annotations

import asyncio
import sysconfig
import threading
import time
from pathlib import Path

import pytest

import bridge
from consumers.worker.delivery.user_code import MAX_CODE_CHARS, UserCode


class Receiver:
    pass


CODE = UserCode(Receiver())
HERE = Path(__file__).name


@pytest.mark.parametrize(
    ("file", "is_users"),
    [
        (__file__, True),
        ("/srv/app/shop.py", True),
        ("/srv/consumers/shop.py", True),
        (f"{sysconfig.get_path('stdlib')}/asyncio/tasks.py", False),
        ("/srv/.venv/lib/python3.13/site-packages/redis/client.py", False),
        (bridge.__file__, False),
        (asyncio.__file__, False),
        ("<frozen runpy>", False),
    ],
)
def test_which_files_are_the_users_own(file: str, is_users: bool) -> None:
    assert CODE.has(file) == is_users


def test_an_installed_receiver_is_the_users_own() -> None:
    from consumers.examples.log import LogReceiver

    assert UserCode(LogReceiver()).has(
        str(Path(bridge.__file__).parents[1] / "consumers/examples/log.py")
    )


def test_a_thread_stands_at_the_users_line() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()  # in the standard library

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        while (place := CODE.of_thread(thread.ident)) is None or "wait" not in place.code:
            time.sleep(0.01)  # it is between the two lines
    finally:
        go_on.set()
        thread.join()
    assert place.code == "go_on.wait()  # in the standard library"
    assert str(place) == f"{HERE}:{place.line}"
    assert CODE.of_thread(thread.ident) is None
    assert CODE.of_thread(None) is None


async def test_a_coroutine_stands_at_the_users_line_whatever_it_awaits() -> None:
    async def deep() -> None:
        await asyncio.wait_for(asyncio.sleep(60), 60)

    task = asyncio.create_task(deep())
    await asyncio.sleep(0)
    place = CODE.of_coroutine(task.get_coro())
    task.cancel()
    assert place is not None
    assert place.code == "await asyncio.wait_for(asyncio.sleep(60), 60)"


def test_a_line_is_bounded_and_may_be_unknown() -> None:
    scope: dict[str, object] = {}
    exec(compile("import sys\nfind()", "/srv/app/gone.py", "exec"), {
        "find": lambda: scope.update(place=CODE.of_thread(threading.get_ident()))
    })  # fmt: skip
    place = scope["place"]
    assert str(place) == f"{HERE}:{place.line}"  # type: ignore[attr-defined]
    assert len(place.code) <= MAX_CODE_CHARS  # type: ignore[attr-defined]
