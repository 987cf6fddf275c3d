"""nginx and Caddy with their files from deploy/, on ports and in a folder of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trustme

from bridge.store.embedded import die_with_parent
from support.deploy_tools import DEPLOY, tool
from support.ports import free_port

CONSOLE: Final = "console.localhost"
"""Of its site: this machine everywhere, and a name that Caddy makes a certificate for by itself."""
_PORTS: Final = ("proxy", "upstream", "admin", "console_proxy", "console")


def free_ports() -> dict[str, int]:
    """Where the proxy and those behind it listen."""
    return {name: free_port() for name in _PORTS}


def nginx(folder: Path, ports: dict[str, int]) -> tuple[list[str], dict[str, str]]:
    """Its command and environment, with nginx.conf moved to `folder` and to these ports."""
    text = (DEPLOY / "nginx.conf").read_text()
    issued = trustme.CA().issue_cert("localhost")
    for site in ("callbacks", "console"):
        issued.private_key_and_cert_chain_pem.write_to_path(folder / f"{site}.pem")
    for written, wanted in {
        "/etc/nginx/tls/callbacks.key": f"{folder}/callbacks.pem",
        "/etc/nginx/tls/console.key": f"{folder}/console.pem",
        "/etc/nginx/tls": str(folder),
        "listen 8443": f"listen 127.0.0.1:{ports['proxy']}",
        "listen [::]:8443": f"listen [::1]:{ports['proxy']}",
        "listen 8444": f"listen 127.0.0.1:{ports['console_proxy']}",
        "listen [::]:8444": f"listen [::1]:{ports['console_proxy']}",
        "server_name console.example.com": f"server_name {CONSOLE}",
        "127.0.0.1:8080": f"127.0.0.1:{ports['upstream']}",
        "127.0.0.1:8079": f"127.0.0.2:{ports['upstream']}",
        "127.0.0.1:8090": f"127.0.0.1:{ports['console']}",
    }.items():
        assert written in text
        text = text.replace(written, wanted)
    whole = folder / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    whole.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{text}\n}}\n"
    )
    return ["nginx", "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(whole)], {}


def caddy(folder: Path, ports: dict[str, int]) -> tuple[list[str], dict[str, str]]:
    """Its command and environment, with the Caddyfile moved to `folder` and to these ports."""
    text = (DEPLOY / "Caddyfile").read_text()
    for written, wanted in {
        "localhost}:8443": f"localhost}}:{ports['proxy']}",
        "localhost}:8444": f"localhost}}:{ports['console_proxy']}",
        "health_port 8081": f"health_port {ports['admin']}",
    }.items():
        assert written in text
        text = text.replace(written, wanted)
    (folder / "Caddyfile").write_text(text)
    upstreams = " ".join(f"127.0.0.{n}:{ports['upstream']}" for n in (1, 2))
    homes = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    console = f"127.0.0.1:{ports['console']}"
    return command, {**homes, "CALLBACK_UPSTREAMS": upstreams, "CONSOLE_UPSTREAM": console}


@asynccontextmanager
async def process(command: list[str], environ: dict[str, str], log: Path) -> AsyncIterator[None]:
    """Runs it; what it says goes into `log`."""
    with log.open("wb") as output:
        running = await asyncio.create_subprocess_exec(
            tool(command[0]), *command[1:], env={"PATH": "/usr/bin:/bin", **environ},
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            preexec_fn=die_with_parent(),
        )  # fmt: skip
    try:
        yield
    finally:
        running.kill()
        await running.wait()
