"""What `check` looks at here: settings, imports, receiver, certificate, access, spool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bridge import settings as settings_module
from bridge.errors import BridgeError, UsageError
from bridge.operations import shadowed_imports, spool_reading
from bridge.operations.findings import Finding, ok, problem, skipped, warning
from bridge.operations.spool_reading import SpoolFile
from bridge.settings import Settings

RECEIVER_TIMEOUT_S: Final = 30.0
EXPIRES_SOON_S: Final = 14 * 86400.0
SLOW_SYNC_S: Final = 0.1
# SQLite's log needs memory shared between processes, which these do not have or do not keep.
_NETWORK: Final = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "ncpfs",
        "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.rclone", "fuse.ceph",
    )
)  # fmt: skip
_PASSING: Final = {
    "tmpfs": "is in memory and gone with a restart",
    "ramfs": "is in memory and gone with a restart",
    "overlay": "is the container's own layer, gone with the container",
}


def variables(environ: Mapping[str, str]) -> Finding:
    """Whether every NB_BRIDGE_ variable names a setting."""
    found = settings_module.unknown_variables(environ)
    if found:
        return warning("settings.variables", "; ".join(found), "rename or remove them")
    return ok("settings.variables", "every NB_BRIDGE_ variable names a setting")


def imports(settings: Settings) -> list[Finding]:
    """Whether a file takes the place of a library, or could."""
    if found := shadowed_imports.find():
        return [
            problem(
                "imports.shadowed", "a library is not what it seems", shadowed_imports.advice(found)
            )
        ]
    folders = {Path.cwd()}
    source = (settings.receiver or "").rpartition(":")[0]
    if source.endswith(".py"):
        folders.add(Path(source).expanduser().resolve().parent)
    alike = [path for folder in sorted(folders) for path in shadowed_imports.named_alike(folder)]
    if alike:
        names = ", ".join(map(str, alike))
        return [
            warning(
                "imports.shadowed",
                f"{names}: named like a library",
                "rename it: with its folder on PYTHONPATH it would be imported in the place of "
                "that library, and otherwise a receiver beside it gets the library",
            )
        ]
    return [ok("imports.shadowed", "every library is imported from where it is installed")]


def receiver(settings: Settings) -> Finding:
    """Whether a worker here could load its receiver."""
    from consumers.worker.process import loading

    name = "receiver"
    if settings.receiver is None and not loading.available():
        return skipped(name, "none is named and none is installed: no worker can start here")
    spec = [] if settings.receiver is None else [settings.receiver]
    try:
        # Our own module, by this interpreter; nothing of it comes from outside.
        done = subprocess.run(  # noqa: S603 # nosec B603
            [sys.executable, "-P", "-m", "bridge.operations.receiver_probe", *spec],
            capture_output=True,
            text=True,
            timeout=RECEIVER_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return problem(
            name,
            f"does not load within {RECEIVER_TIMEOUT_S:g} s",
            "move what takes so long from its module into `setup`",
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        why = lines[-1] if lines else f"its process ended with {done.returncode}"
        return problem(name, why, "fix it, or name another in NB_BRIDGE_RECEIVER")
    return ok(name, f"{settings.receiver or 'the only one installed'} loads")


def certificate(settings: Settings) -> list[Finding]:
    """Whether the certificate can be used, now and for a while."""
    from bridge.http.certificate_expiry import validity_s
    from bridge.http.tls import TlsFiles

    name = "tls.certificate"
    if settings.tls_cert is None or settings.tls_key is None:
        return [
            warning(
                name,
                "none: callbacks come without TLS",
                "set NB_BRIDGE_TLS_CERT and NB_BRIDGE_TLS_KEY, or have a proxy in front do it",
            )
        ]
    files = TlsFiles(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca)
    try:
        files.context()
        begins_s, ends_s = validity_s(settings.tls_cert)
    except (UsageError, ValueError, OSError) as error:
        return [
            problem(name, str(error), "without a usable certificate the ingress does not start")
        ]
    now_s = time.time()
    until = f"{time.strftime('%Y-%m-%d', time.gmtime(ends_s))}"
    if ends_s <= now_s:
        return [problem(name, f"it expired on {until}", "renew it: the platform refuses it")]
    if begins_s > now_s:
        return [problem(name, "it is not valid yet", "wait, or set this machine's clock")]
    if ends_s - now_s < EXPIRES_SOON_S:
        return [warning(name, f"it expires on {until}", "renew it; it is read again by itself")]
    return [ok(name, f"belongs to its key, valid until {until}")]


def access(settings: Settings) -> Finding:
    """Whether anybody may call."""
    name = "endpoint.access"
    ways = {
        "tokens": settings.tokens,
        "basic credentials": settings.basic_credentials,
        "secret headers": settings.secret_headers,
        "networks": settings.allowed_networks,
        "client certificates": settings.tls_client_ca,
    }
    used = [way for way, value in ways.items() if value]
    if not used:
        return warning(
            name,
            "open: anybody who reaches the port may call",
            "set NB_BRIDGE_TOKENS, NB_BRIDGE_ALLOWED_NETWORKS or NB_BRIDGE_TLS_CLIENT_CA",
        )
    if settings.auth_mode == "log":
        return warning(
            name,
            f"{', '.join(used)}: wrong callers are logged and let through",
            "set NB_BRIDGE_AUTH_MODE=enforce once the log shows none that should be let in",
        )
    return ok(name, f"by {', '.join(used)}")


# --- the spool


def spool(settings: Settings) -> list[Finding]:
    """Whether the spool can take callbacks, and what is in it."""
    folder = settings.spool_path
    if not folder.is_dir():
        parent = next((parent for parent in folder.parents if parent.exists()), Path("/"))
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return [ok("spool.folder", f"{folder} will be made"), _disk(parent)]
        return [problem("spool.folder", f"{folder} cannot be made in {parent}", _ANOTHER)]
    try:
        files = spool_reading.files(folder)
    except BridgeError as error:
        return [problem("spool.folder", str(error), _ANOTHER)]
    return [_writable(folder), _disk(folder), _room(settings, folder, files), _files(files)]


_ANOTHER: Final = "set NB_BRIDGE_SPOOL_DIR to a folder on a local disk that this user may write to"


def _writable(folder: Path) -> Finding:
    name = "spool.folder"
    began_s = time.perf_counter()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return problem(name, f"{folder} cannot be written to: {error.strerror}", _ANOTHER)
    took_s = time.perf_counter() - began_s
    if took_s > SLOW_SYNC_S:
        return warning(
            name,
            f"{folder}: a disk sync takes {took_s * 1000:.0f} ms",
            "each callback that is spooled waits for one: use a faster disk",
        )
    return ok(name, f"{folder}: a disk sync takes {took_s * 1000:.1f} ms")


def _disk(folder: Path) -> Finding:
    name = "spool.disk"
    kind = filesystem(folder, _mounts())
    if kind is None:
        return skipped(name, "this system does not say what the folder is on")
    if kind in _NETWORK:
        return problem(name, f"{kind}: a network file system", _ANOTHER)
    if kind in _PASSING:
        return warning(name, f"{kind}: {_PASSING[kind]}", "mount a disk or a volume there")
    return ok(name, f"{kind}, local")


def _mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text(errors="replace")
    except OSError:
        return ""


def filesystem(folder: Path, mounts: str) -> str | None:
    """The type of the file system a folder is on, by the lines of /proc/self/mounts (fstab(5))."""
    path = folder.resolve()
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        mounted = Path(place.replace("\\040", " "))
        if path.is_relative_to(mounted) and (best is None or len(mounted.parts) >= best[0]):
            best = len(mounted.parts), kind
    return None if best is None else best[1]


def _room(settings: Settings, folder: Path, files: Sequence[SpoolFile]) -> Finding:
    used = sum(file.bytes for file in files)
    free, wanted = shutil.disk_usage(folder).free, settings.spool_max_bytes - used
    found = f"{free / 2**20:.0f} MiB free, {max(0, wanted) / 2**20:.0f} MiB may be needed"
    if free < wanted:
        advice = "make room, or lower NB_BRIDGE_SPOOL_MAX_BYTES: a full disk means 503"
        return warning("spool.room", found, advice)
    return ok("spool.room", found)


def _files(files: Sequence[SpoolFile]) -> Finding:
    name = "spool.file_set"
    damaged = [file.name for file in files if file.state in ("damaged", "unreadable")]
    aside = sum(file.set_aside or 0 for file in files)
    dead = sum(file.entries or 0 for file in files if file.state == "dead")
    if damaged:
        return problem(
            name, f"damaged: {', '.join(damaged)}", "keep a copy; `sqlite3 FILE .recover` may help"
        )
    if aside:
        return warning(
            name,
            f"{aside} rows that could not be published were set aside",
            "nb-bridge spool export --aside",
        )
    if dead:
        return warning(
            name,
            f"{dead} entries of ingresses that have ended",
            "start an ingress here, which adopts them, or nb-bridge spool drain",
        )
    waiting = sum(file.entries or 0 for file in files)
    return ok(name, f"{waiting} entries wait for Redis")
