"""Where `dev` puts things: ports, folders, and the environment of the programs it starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from bridge import settings
from bridge.errors import UsageError
from bridge.operations.certificate import Certificate
from bridge.settings import PREFIX, Settings
from bridge.store.embedded import free_port

EXAMPLE_RECEIVER: Final = "consumers.examples.log:LogReceiver"
PORT: Final = 8080
TLS_PORT: Final = 8443
INGRESS_ADMIN_PORT: Final = 8081
WORKER_ADMIN_PORT: Final = 8082
HOST: Final = "127.0.0.1"

# What is nicer while trying things; a variable of the user's own goes before. The short lease:
# after a kill of everything, the new worker need not wait long for what the old one still holds.
# The network: nobody else can reach the port anyway, and so nothing warns that it is open.
_DEFAULTS: Final = {
    "LOG_LEVEL": "warning",
    "DRAIN_DELAY_S": "0",
    "LEASE_TTL_S": "2",
    "ALLOWED_NETWORKS": "127.0.0.0/8",
    "CONSOLE_ACTIONS": "on",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DevEnvironment:
    """What `dev` decides for its children; everything listens on loopback."""

    receiver: str
    callback_path: str
    port: int
    ingress_admin_port: int
    worker_admin_port: int
    console_port: int
    data: Path
    certificate: Certificate | None

    @classmethod
    def choose(
        cls,
        loaded: Settings,
        *,
        receiver: str | None,
        port: int | None,
        data: Path,
        certificate: Certificate | None,
    ) -> DevEnvironment:
        """Decides; `UsageError` where the port is taken. The others give way, that one not:
        it is what people paste. NB_BRIDGE_ADMIN_PORT=0 means any free ones here, too.
        """
        chosen = port or (TLS_PORT if certificate else PORT)
        if not _is_free(chosen):
            raise UsageError(
                f"port {chosen} is taken, perhaps by another dev: end that, or choose another "
                "with --port (make run ARGS='--port 8090')"
            )
        return cls(
            receiver=receiver or loaded.receiver or EXAMPLE_RECEIVER,
            callback_path=loaded.callback_paths[0],
            port=chosen,
            ingress_admin_port=_admin_port(INGRESS_ADMIN_PORT, loaded, taken=chosen),
            worker_admin_port=_admin_port(WORKER_ADMIN_PORT, loaded, taken=chosen),
            console_port=_console_port(loaded, taken=chosen),
            data=data.resolve(),
            certificate=certificate,
        )

    @property
    def origin(self) -> str:
        """Scheme, host and port of the callback listener."""
        # The certificate is for both names; people know this one.
        return (
            f"https://localhost:{self.port}" if self.certificate else f"http://{HOST}:{self.port}"
        )

    @property
    def callback_url(self) -> str:
        """Where callbacks go."""
        return self.origin + self.callback_path

    @staticmethod
    def admin_url(port: int) -> str:
        """The status page of a child."""
        return f"http://{HOST}:{port}/status"

    @property
    def console_url(self) -> str:
        """Where the console is, if it is installed."""
        return f"http://{HOST}:{self.console_port}/"

    @property
    def spool_dir(self) -> Path:
        """Where the ingress spools."""
        return self.data / "spool"

    @property
    def send_options(self) -> str:
        """What `nb-bridge send` needs besides `--url`."""
        return f" --ca {self.certificate.ca}" if self.certificate else ""

    @property
    def source_folder(self) -> Path:
        """Where a receiver's Python files are: a file's own folder, else where we are."""
        source = self.receiver.rpartition(":")[0]
        return Path(source).expanduser().resolve().parent if source.endswith(".py") else Path.cwd()

    def environ(self, redis_url: str) -> Mapping[str, str]:
        """The environment of the children: the user's settings, then what `dev` decided."""
        decided = {
            "REDIS_URL": redis_url,
            "HOST": HOST,
            "PORT": str(self.port),
            "ADMIN_HOST": HOST,
            "CONSOLE_HOST": HOST,
            "CONSOLE_PORT": str(self.console_port),
            "PROCESSES": "1",
            "RECEIVER": self.receiver,
            "SPOOL_DIR": str(self.spool_dir),
            "TLS_CERT": str(self.certificate.chain) if self.certificate else "",
            "TLS_KEY": str(self.certificate.key) if self.certificate else "",
        }
        environ = {name: value for name, value in os.environ.items() if _reaches(name, decided)}
        for name, value in _DEFAULTS.items():
            environ.setdefault(PREFIX + name, value)
        return environ | {PREFIX + name: value for name, value in decided.items() if value}


def _reaches(variable: str, decided: Mapping[str, str]) -> bool:
    """Whether a variable is passed on. Unknown ones are not: `dev` has warned of them already."""
    if not variable.startswith(PREFIX):
        return True
    name = variable.removeprefix(PREFIX).removesuffix("_FILE")
    return name not in decided and name.lower() in {spec.name for spec in fields(settings.Settings)}


def _admin_port(usual: int, loaded: Settings, *, taken: int) -> int:
    return _free(usual, wants_any=loaded.admin_port == 0, taken=taken)


def _console_port(loaded: Settings, *, taken: int) -> int:
    return _free(loaded.console_port, wants_any=loaded.console_port == 0, taken=taken)


def _free(usual: int, *, wants_any: bool, taken: int) -> int:
    return free_port() if wants_any or usual == taken or not _is_free(usual) else usual


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do it: what an ended one left in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
