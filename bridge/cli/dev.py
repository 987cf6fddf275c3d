"""`nb-bridge dev`: an embedded server, the ingress, a worker and the console, as one command.

Owns the start, the end and the environment of these; each is the same program as in production.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Final, NoReturn

import click

from bridge.cli import PROGRAM, console, options, running
from bridge.cli.dev_processes import Child
from bridge.errors import BridgeError, RedisUnavailableError, UsageError
from bridge.operations import certificate, dev_environment
from bridge.operations.dev_environment import DevEnvironment
from bridge.store.embedded import EmbeddedServer

READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 60.0
_SERVER_CHECK_S: Final = 0.25


@click.command()
@click.argument("receiver", required=False)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port the callbacks arrive at, on loopback.  "
    f"[default: {dev_environment.PORT}, {dev_environment.TLS_PORT} with --tls]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".data"),
    show_default=True,
    help="Folder of everything that survives a restart.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="Have the worker take the new code when a Python file changes near RECEIVER.",
)
@click.option("--tls", is_flag=True, help="Listen with TLS, by a certificate made for this run.")
def command(receiver: str | None, port: int | None, data: Path, reload: bool, tls: bool) -> int:
    """Run all of it here: a Redis with its data in --data, the ingress, a worker with RECEIVER
    (path/to/file.py:Class, module:Class or a name; else an example that prints what comes), and the
    web console, if its extra is installed.

    NB_BRIDGE_ variables reach them, except those that say where to listen and which Redis to use;
    NB_BRIDGE_CONSOLE_PORT does. Ctrl-C ends everything.
    """
    started_s = time.monotonic()
    around = DevEnvironment.choose(
        options.load(),
        receiver=receiver,
        port=port,
        data=data,
        certificate=certificate.make(data / "tls") if tls else None,
    )
    server = EmbeddedServer(data / "redis", appendfsync="always")
    try:
        server.start()
        dev = Dev(server, around, reload=reload, started_s=started_s)
        return running.run(dev.run)
    finally:
        server.stop()


class Dev:
    """The ingress, the worker and the console beside a running server.

    All end when one of them does, but for the console: it is nobody's promise.
    """

    def __init__(
        self, server: EmbeddedServer, around: DevEnvironment, *, reload: bool, started_s: float
    ) -> None:
        environ = around.environ(server.url)
        self._server = server
        self._around = around
        self._reload = reload
        self._started_s = started_s
        self._ingress = Child("serve", environ=environ, admin_port=around.ingress_admin_port)
        self._worker = Child(
            "worker", "--show-deliveries", environ=environ, admin_port=around.worker_admin_port
        )
        # Asks the ingress' admin listener until a heartbeat says where one is.
        self._console = Child(
            "console", "--quiet", environ=environ, admin_port=around.ingress_admin_port
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until `stop`. Raises `BridgeError` when a part of it ends by itself."""
        await self._ingress.start()
        await self._worker.start()
        try:
            await running.first_of(
                stop.wait(),
                self._greet(),
                self._fail_with(self._ingress),
                self._reload_worker() if self._reload else self._fail_with(self._worker),
                self._fail_with_server(),
            )
        finally:
            # The ingress first, so that the worker can finish what came in.
            await self._ingress.stop(timeout_s=STOP_TIMEOUT_S)
            await self._worker.stop(timeout_s=STOP_TIMEOUT_S)
            await self._console.stop(timeout_s=STOP_TIMEOUT_S)
        return 0

    async def _greet(self) -> NoReturn:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await asyncio.gather(self._ingress.ready(), self._worker.ready())
        except TimeoutError:
            raise BridgeError(f"not ready after {READY_TIMEOUT_S:g} s") from None
        click.echo(_greeting(self._around, self._server, time.monotonic() - self._started_s))
        if not console.is_installed():
            await asyncio.Future()
        await self._console.start()  # only now: it would keep the others waiting for the processor
        code = await self._console.ended()
        click.echo(f"the console ended {_ended(code)}; all else goes on")
        await asyncio.Future()
        raise AssertionError  # pragma: no cover - the future above never has a result

    async def _fail_with(self, child: Child) -> NoReturn:
        code = await child.ended()
        error = BridgeError(f"{child.name} ended {_ended(code)}, so dev ends too")
        # Wrong settings or no Redis stay what they are; it has said what is wrong itself.
        error.exit_code = code if code in (2, 3) else 1
        raise error

    async def _fail_with_server(self) -> NoReturn:
        while self._server.is_running():  # noqa: ASYNC110 - another process has no events
            await asyncio.sleep(_SERVER_CHECK_S)
        raise RedisUnavailableError(
            f"the embedded server ended, so dev ends too; its log: {self._server.log_file}"
        )

    async def _reload_worker(self) -> None:
        try:
            from watchfiles import PythonFilter, awatch
        except ImportError as error:
            raise UsageError("--reload needs: pip install 'nb-command-bridge[reload]'") from error
        telling = asyncio.create_task(self._tell_end_of_worker())
        try:
            async for changes in awatch(self._around.source_folder, watch_filter=PythonFilter()):
                click.echo(f"{Path(min(changes)[1]).name} changed: the worker takes the new code")
                if not self._worker.hang_up():
                    telling.cancel()
                    await self._worker.start()
                    telling = asyncio.create_task(self._tell_how_it_starts())
        finally:
            telling.cancel()

    async def _tell_how_it_starts(self) -> None:
        starting = asyncio.create_task(self._worker.ready())
        ending = asyncio.create_task(self._tell_end_of_worker())
        try:
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                click.echo("the worker is ready again")
            await ending
        finally:
            starting.cancel()
            ending.cancel()

    async def _tell_end_of_worker(self) -> None:
        code = await self._worker.ended()
        click.echo(f"the worker ended {_ended(code)}; it starts again when a file changes")


def _ended(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _greeting(around: DevEnvironment, server: EmbeddedServer, took_s: float) -> str:
    # A new command id in every run: the data survives, and what came before is a duplicate.
    body = (
        f'{{"deviceId":"device-1","commandId":"{uuid.uuid4().hex[:12]}",'
        '"result":{"resultCode":"DELIVERED","resultDetail":"None"}}'
    )
    command = uuid.uuid4().hex[:12]
    push = (
        '{"resource":"device.command.status","event":"update","event_time":"20261101T000000Z",'
        f'"notify_data":{{"header":{{"device_id":"device-1"}},"body":{{"command_id":"{command}",'
        '"status":"DELIVERED"}}}'
    )
    aep_push = (
        f'{{"messageType":"commandResponse","timestamp":{time.time_ns() // 1_000_000},'
        f'"deviceId":"{1:032x}","taskId":{uuid.uuid4().int >> 96},'
        '"result":{"resultCode":"DELIVERED","resultDetail":""}}'
    )
    program = _program()
    trust = f"--cacert {around.certificate.ca} " if around.certificate else ""
    looks = (
        around.console_url if console.is_installed() else f"needs: pip install '{console.EXTRA}'"
    )
    return f"""ready in {took_s:.1f} s, Ctrl-C ends it
  console    {looks}
  callbacks  {around.callback_url}
  receiver   {around.receiver}
  redis      {server.url}, data in {server.data_dir}
  status     {around.admin_url(around.ingress_admin_port)} (ingress), \
{around.admin_url(around.worker_admin_port)} (worker)
try it (a second time it is a duplicate: answered ok, not handled again):
  curl {trust}-H 'Content-Type: application/json' -d '{body}' {around.callback_url}
the same as the platform pushes it today, and as AEP does:
  curl {trust}-d '{push}' {around.callback_url}
  curl {trust}-d '{aep_push}' {around.callback_url}
or play the platform, and look at what became of it:
  {program} send --url {around.origin}{around.send_options}
  {program} status --redis-url {server.url} --spool-dir {shlex.quote(str(around.spool_dir))}
"""


def _program() -> str:
    """How people who started us can call us again: by name, if that is on their PATH."""
    if shutil.which(PROGRAM):
        return PROGRAM
    called = sys.argv[0]
    words = (
        [sys.executable, "-m", "bridge"] if called.endswith(".py") else [os.path.relpath(called)]
    )
    return shlex.join(words)
