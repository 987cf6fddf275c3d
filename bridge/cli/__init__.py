"""The command line `nb-bridge`: names its commands, imports only the one that is called.

Owns exit codes and how errors are reported: one line on stderr, no traceback. Each command is a
module beside this one with a click command named `command`; it returns its exit code (None: 0).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any, Final, NoReturn

import click

from bridge import __version__
from bridge.errors import BridgeError, UsageError
from bridge.telemetry import standard_streams

PROGRAM: Final = "nb-bridge"
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it

# The short texts stand here and not in the modules, so that --help imports none of them.
COMMANDS: Final = {
    "dev": "All in one, to try things: a Redis, the ingress, a worker.",
    "serve": "The ingress: answer the platform's callbacks, publish them to Redis.",
    "worker": "A worker: run the receiver for each notification, in order per device.",
    "send": "Play the platform: send callbacks, repeat what is not answered 200.",
    "status": "What is going on: backlog, leases, workers, ingresses, spool, dead letters.",
    "check": "Look for what is wrong with Redis, the settings and this machine.",
    "ping": "Whether the program here is ready, for health checks of containers.",
    "console": "The operators' web console: the same questions, in a browser.",
    "trace": "Where is my command: accepted, waiting, tried, parked, dead, handled.",
    "device": "What is known of a device, and what waits for it.",
    "dead": "Dead letters: list, show, replay, drop.",
    "quarantine": "Bodies that are not notifications: list, show, fix and replay, drop.",
    "spool": "The queue on this machine's disk: status, export, import, drain.",
    "groups": "Consumer groups: list, retire, restore, pause, resume.",
    "partitions": "Change into how many streams devices are spread.",
    "new": "Write the beginnings of a receiver's package.",
    "settings": "Show every setting: variable, value, default, source.",
    "receivers": "List the receivers that installed packages offer.",
}


_IN_FOLDERS: Final = {"send": "bridge.cli.sending.send"}


class Commands(click.Group):
    """A group that imports `bridge.cli.<name>` when `<name>` is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; `None` for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(_IN_FOLDERS.get(cmd_name, f"bridge.cli.{cmd_name}"))
        except Exception:
            from bridge.operations import shadowed_imports

            if found := shadowed_imports.find():
                raise UsageError(shadowed_imports.advice(found)) from None
            raise
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in --help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def program(ctx: click.Context) -> int | None:
    """Answers the IoT platform's command callbacks at once, keeps them in Redis streams, and runs
    your handler for each of them, in order per device.

    Every setting is an environment variable NB_BRIDGE_…; an option of a command overrides it.
    `nb-bridge settings` shows them all.

    \b
    Exit codes: 0 fine, 1 a problem was found, 2 wrong use or settings, 3 Redis unreachable.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return 2
    return None


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code. Errors that we expect become one line."""
    standard_streams.open_closed()
    try:
        code: Any = program.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        return _report(_one_line(error.format_message()) + _hint(error), error.exit_code)
    except BridgeError as error:
        return _report(_one_line(str(error)), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # `nb-bridge settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code or 0


def _report(text: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # nobody reads it: the exit code says it, too
        click.echo(f"{PROGRAM}: {text}", err=True)
    return exit_code


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _hint(error: click.ClickException) -> str:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return ""
    return f" Try: {error.ctx.command_path} --help"
