"""Settings: environment variables `NB_BRIDGE_*`, read once into one frozen object per process.

Every problem is reported at once, never only the first, and never with a secret's value. Only
composition roots (`bridge.ingress.app`, the worker's two processes, `bridge.cli`) see the whole
object; everything below them is given plain values.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError, validate

from bridge.errors import SettingsError, UsageError

PREFIX: Final = "NB_BRIDGE_"
COMMAND_STATUS_PATH: Final = "/v1.0.0/messageReceiver/cmd"
NOTIFY_PATH: Final = "/v1.0.0/messageReceiver"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_BITS: Final = 96  # RFC 4291, 2.5.5.2
_MAX_BODY_BYTES: Final = 2**20  # as long as a message of a device may be
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
# What Kubernetes injects for a Service named "nb-bridge": NB_BRIDGE_PORT=tcp://10.0.0.1:8080 and
# a family of NB_BRIDGE_PORT_8080_TCP… and NB_BRIDGE_SERVICE_… variables.
_SERVICE_LINK: Final = re.compile(r"^(?:SERVICE_(?:HOST|PORT)|PORT_\d+_)")


# --- readers: what a value may look like ----------------------------------------------------------


def _number(kind: str, *, low: float, high: float) -> dict[str, Any]:
    message = f"must be between {low:g} and {high:g}"
    return {"read": kind, "validate": validate.Range(min=low, max=high, error=message)}


def _one_of(*choices: str) -> dict[str, Any]:
    return {"read": "str", "validate": validate.OneOf(choices, error="must be one of {choices}")}


def _matching(pattern: str, message: str) -> dict[str, Any]:
    return {"read": "str", "validate": validate.Regexp(pattern, error=message)}


def _redis_url(value: str) -> None:
    if raw := _raw_in_password(value):
        # Read on, what stands before them would be taken for the server's address, and be told.
        shown = " and ".join(f"{each} as %{ord(each):02X}" for each in raw)
        raise ValidationError(f"has a password with {' or '.join(raw)} in it: write {shown}")
    try:
        parts = urlsplit(value)
        port_readable = parts.scheme in ("redis+sentinel", "redis+cluster") or parts.port != 0
    except ValueError as error:
        raise ValidationError("is not a URL; example: redis://127.0.0.1:6379/0") from error
    if parts.scheme not in _REDIS_SCHEMES or not port_readable:
        raise ValidationError(
            "must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    if parts.scheme == "unix" and not parts.path:
        raise ValidationError("unix:// needs the path of a socket, as in unix:///run/redis.sock")


# A host, or an IPv6 address in brackets, and a port.
_ADDRESS: Final = re.compile(r"(\[[^]]*\]|[^:\[\]]+)(:\d+)?")


def _raw_in_password(value: str) -> list[str]:
    """The characters that end the address of a URL, or may not be in it, before a password's @."""
    scheme, _, rest = value.partition("://")
    userinfo, _, _ = rest.rpartition("@")
    address, query = re.split(r"[/?#]", rest, maxsplit=1)[0], rest.partition("?")[2]
    if scheme == "unix" and not address:
        return []
    is_option = "@" in query and "#" not in query and "@" not in rest[len(address) : -len(query)]
    if is_option and all(map(_ADDRESS.fullmatch, address.rpartition("@")[2].split(","))):
        return []
    return [each for each in "/?#[]" if each in userinfo]


def _networks(values: list[str]) -> None:
    for value in values:
        try:
            ipaddress.ip_network(value.strip())
        except ValueError as error:
            raise ValidationError(
                f"{value.strip()!r} is no network; examples: 192.0.2.0/24, 2001:db8::/32"
            ) from error


def _paths(values: list[str]) -> None:
    for value in values:
        if not value.strip().startswith("/") or re.search(r"[\s?#]", value.strip()):
            raise ValidationError("each path must start with / and contain no space, ? or #")


def _pairs(values: list[str]) -> None:
    pairs = [value.partition(":") for value in values]
    if any(not colon for _, colon, _ in pairs):
        raise ValidationError("each must be written as name:secret")
    if any(not name.strip() or not secret.strip() for name, _, secret in pairs):
        raise ValidationError("has an empty name or secret; each must be written as name:secret")


def _nonempty(values: list[str]) -> None:
    if any(not value.strip() for value in values):
        raise ValidationError("has an empty value between its commas")


def _strings(values: list[str]) -> tuple[str, ...]:
    return tuple(value.strip() for value in values)


def _as_networks(values: list[str]) -> tuple[Network, ...]:
    return tuple(_unmapped(ipaddress.ip_network(value.strip())) for value in values)


def _unmapped(network: Network) -> Network:
    """IPv4 written as IPv6 (::ffff:192.0.2.0/120) as what it is: callers are compared so, too."""
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and network.prefixlen >= _MAPPED_BITS:
        mapped = first.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _path(value: str) -> None:
    try:
        Path(value).expanduser()
    except RuntimeError as error:
        raise ValidationError(f"{value!r} begins with the home of a user nobody knows") from error


def _as_path(value: str) -> Path:
    return Path(value).expanduser()


_PATH: Final[dict[str, Any]] = {"validate": _path, "convert": _as_path}


def _setting(
    default: Any,
    doc: str,
    *,
    read: str = "str",
    validate: Callable[[Any], Any] | None = None,
    convert: Callable[[Any], Any] | None = None,
    secret: bool = False,
    closes: bool = False,
    halves: str = "both",
    default_text: str | None = None,
) -> Any:
    """One row of the table below.

    `halves` says which program uses it; one that `closes` the door must not be set and empty.
    """
    metadata = {
        "doc": doc,
        "read": read,
        "validate": validate,
        "convert": convert,
        "secret": secret,
        "closes": closes,
        "halves": halves,
        "default_text": default_text,
    }
    return field(default=default, metadata=metadata, repr=not secret)


def default_state_dir() -> Path:
    """Where state goes if nobody says: systemd's StateDirectory, else the XDG state folder."""
    # STATE_DIRECTORY: systemd.exec(5); it may list several, separated by colons.
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0])
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "nb-bridge"
    try:
        return Path.home() / ".local" / "state" / "nb-bridge"
    except RuntimeError as error:  # no HOME, and nobody knows this user
        raise UsageError(
            f"this user has no home folder: set {PREFIX}SPOOL_DIR to a folder on a local disk"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of both halves. The variable is the field's name in capitals, prefixed."""

    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "Redis or Valkey: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
        validate=_redis_url,
        secret=True,
    )
    namespace: str = _setting(
        "nbcmd",
        "prefix of every key in Redis; several bridges may share a server under several names",
        **_matching(r"^[A-Za-z0-9_.:-]{1,64}$", "may hold letters, digits and _ . : - only"),
    )
    partitions: int = _setting(
        16,
        "streams that devices are spread over; fixed once the namespace is in use",
        **_number("int", low=1, high=256),
    )
    log_level: str = _setting(
        "info", "least severe log line shown", **_one_of("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "auto",
        "log lines for people or for machines; auto: console on a terminal, else json",
        **_one_of("auto", "console", "json"),
    )
    grace_s: float = _setting(
        25.0, "seconds to stop in, DRAIN_DELAY_S included", **_number("float", low=1, high=3600)
    )
    admin_host: str = _setting(
        "127.0.0.1", "address of the admin listener (/livez /readyz /metrics /status)"
    )
    admin_names: tuple[str, ...] = _setting(
        (),
        "names with a dot by which the admin listener may be called, besides addresses",
        read="list",
        validate=_nonempty,
        convert=_strings,
    )
    admin_port: int | None = _setting(
        None,
        "port of the admin listener; 0: any free one",
        **_number("int", low=0, high=65535),
        default_text="8081 ingress, 8082 worker",
    )

    # --- ingress
    # Every address: the platform calls from outside. Start-up and `check` tell what is open.
    host: str = _setting("0.0.0.0", "address the callbacks arrive at", halves="ingress")  # noqa: S104
    port: int | None = _setting(
        None,
        "port the callbacks arrive at; 0: any free one",
        **_number("int", low=0, high=65535),
        halves="ingress",
        default_text="8443 with TLS, 8080 without",
    )
    callback_paths: tuple[str, ...] = _setting(
        (COMMAND_STATUS_PATH,),
        "paths of command status callbacks, separated by commas",
        read="list",
        validate=_paths,
        convert=_strings,
        halves="ingress",
    )
    notify_paths: tuple[str, ...] = _setting(
        (NOTIFY_PATH,),
        "paths of the platform's other notifications, separated by commas",
        read="list",
        validate=_paths,
        convert=_strings,
        halves="ingress",
    )
    notify_types: tuple[str, ...] = _setting(
        (),
        "notifyTypes to keep, separated by commas; others are answered 200 and not kept",
        read="list",
        validate=_nonempty,
        convert=_strings,
        halves="ingress",
        default_text="all",
    )
    max_body_bytes: int = _setting(
        _MAX_BODY_BYTES,
        "longest callback body",
        **_number("int", low=256, high=16 * 2**20),
        halves="ingress",
        default_text="1048576, or half of SPOOL_MAX_BYTES if that is less",
    )
    body_timeout_s: float = _setting(
        10.0,
        "seconds a caller may take to send a head, and again to send a body",
        **_number("float", low=0.1, high=15),
        halves="ingress",
    )
    max_connections: int = _setting(
        4096,
        "open connections at once; fewer where the limit of open files has no room for them",
        **_number("int", low=1, high=1_000_000),
        halves="ingress",
    )
    tls_cert: Path | None = _setting(
        None, "PEM file of the certificate chain", **_PATH, halves="ingress"
    )
    tls_key: Path | None = _setting(None, "PEM file of the private key", **_PATH, halves="ingress")
    tls_client_ca: Path | None = _setting(
        None,
        "PEM file of CAs that must have signed the caller's certificate (mutual TLS)",
        **_PATH,
        halves="ingress",
    )
    tokens: tuple[str, ...] = _setting(
        (),
        "bearer tokens that let a caller in, separated by commas or lines",
        read="list",
        closes=True,
        validate=_nonempty,
        convert=_strings,
        secret=True,
        halves="ingress",
    )
    basic_credentials: tuple[str, ...] = _setting(
        (),
        "user:password pairs that let a caller in, separated by commas or lines",
        read="list",
        closes=True,
        validate=_pairs,
        convert=_strings,
        secret=True,
        halves="ingress",
    )
    secret_headers: tuple[str, ...] = _setting(
        (),
        "Header-Name:value pairs that let a caller in, separated by commas or lines",
        read="list",
        closes=True,
        validate=_pairs,
        convert=_strings,
        secret=True,
        halves="ingress",
    )
    allowed_networks: tuple[Network, ...] = _setting(
        (),
        "networks callers may come from, separated by commas or lines",
        read="list",
        closes=True,
        validate=_networks,
        convert=_as_networks,
        halves="ingress",
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        (),
        "networks of our own proxies, whose X-Forwarded-For is believed",
        read="list",
        validate=_networks,
        convert=_as_networks,
        halves="ingress",
    )
    auth_mode: Literal["enforce", "log"] = _setting(
        "enforce",
        "log: let wrong callers through and log them, to try new credentials",
        **_one_of("enforce", "log"),
        halves="ingress",
    )
    on_invalid: Literal["quarantine", "reject"] = _setting(
        "quarantine",
        "answer to a JSON object that is no notification: 200 and quarantine, or 400",
        **_one_of("quarantine", "reject"),
        halves="ingress",
    )
    publish_timeout_s: float = _setting(
        0.25,
        "seconds a callback waits for Redis before it is spooled",
        **_number("float", low=0.01, high=10),
        halves="ingress",
    )
    drain_delay_s: float = _setting(
        5.0,
        "seconds the ingress still answers after SIGTERM made it unready",
        **_number("float", low=0, high=600),
        halves="ingress",
    )
    spool_dir: Path | None = _setting(
        None,
        "folder of the spool, on a local disk",
        **_PATH,
        halves="ingress",
        default_text="spool in the state folder",
    )
    spool_max_bytes: int = _setting(
        2**30,
        "size of the spool at which callbacks get 503",
        **_number("int", low=2**18, high=2**40),
        halves="ingress",
    )
    max_backlog: int = _setting(
        1_000_000,
        "entries in Redis a group may be behind before callbacks are spooled",
        **_number("int", low=1, high=10**9),
        halves="ingress",
    )
    dedupe_window_s: float = _setting(
        86400.0,
        "seconds for which a repeated notification is recognised",
        **_number("float", low=1, high=30 * 86400),
        halves="ingress",
    )
    ledger_max_records: int = _setting(
        65536,
        "commands the ledger of one partition remembers before it starts a new page",
        **_number("int", low=16, high=10**7),
        halves="ingress",
    )
    quarantine_max_entries: int = _setting(
        10_000,
        "bodies kept in quarantine; beyond, the oldest goes",
        **_number("int", low=1, high=10**6),
        halves="ingress",
    )
    quarantine_max_body_bytes: int = _setting(
        16384,
        "bytes kept of one quarantined body; of a longer one its length and SHA-256 are kept",
        **_number("int", low=0, high=16 * 2**20),
        halves="ingress",
    )

    # --- worker
    receiver: str | None = _setting(
        None,
        "the plugin: an entry-point name, module:Class or path/to/file.py:Class",
        halves="worker",
        default_text="the only one installed",
    )
    group: str = _setting(
        "default",
        "consumer group of this worker; every group sees every notification",
        **_matching(r"^[A-Za-z0-9_.-]{1,64}$", "may hold letters, digits and _ . - only"),
        halves="worker",
    )
    concurrency: int = _setting(
        64,
        "deliveries running at once in one worker",
        **_number("int", low=1, high=4096),
        halves="worker",
    )
    handler_timeout_s: float = _setting(
        60.0,
        "seconds a handler may take",
        **_number("float", low=0.01, high=86400),
        halves="worker",
    )
    max_attempts: int = _setting(
        10,
        "attempts before a notification becomes a dead letter",
        **_number("int", low=1, high=1000),
        halves="worker",
    )
    give_up_after_s: float = _setting(
        3600.0,
        "seconds after which failures count although nothing else succeeds; 0: at once",
        **_number("float", low=0, high=86400 * 30),
        halves="worker",
    )
    backoff_base_s: float = _setting(
        1.0,
        "upper bound of the wait before the second attempt; doubles from there",
        **_number("float", low=0.001, high=3600),
        halves="worker",
    )
    backoff_max_s: float = _setting(
        300.0,
        "upper bound of any wait between attempts",
        **_number("float", low=0.001, high=86400),
        halves="worker",
    )
    lease_ttl_s: float = _setting(
        10.0,
        "seconds after which a silent worker's partitions pass to others",
        **_number("float", low=0.5, high=600),
        halves="worker",
    )
    late: Literal["deliver", "skip"] = _setting(
        "deliver",
        "skip: count late notifications as handled without a call",
        **_one_of("deliver", "skip"),
        halves="worker",
    )
    dead_max_entries: int = _setting(
        100_000,
        "dead letters per partition; a full one holds its devices",
        **_number("int", low=1, high=10**8),
        halves="worker",
    )
    window_max_entries: int = _setting(
        4096,
        "entries a worker has fetched and not settled",
        **_number("int", low=16, high=10**6),
        halves="worker",
    )
    window_max_bytes: int = _setting(
        16 * 2**20,
        "bytes a worker has fetched and not settled; slow deliveries come on top",
        **_number("int", low=2**16, high=2**34),
        halves="worker",
    )

    @property
    def spool_path(self) -> Path:
        """`spool_dir`, or its default."""
        return self.spool_dir or default_state_dir() / "spool"


# --- reading --------------------------------------------------------------------------------------


def variable(name: str) -> str:
    """The environment variable of a field: `redis_url` → `NB_BRIDGE_REDIS_URL`."""
    return PREFIX + name.upper()


def load() -> Settings:
    """Settings from `os.environ`; `SettingsError` lists everything that is wrong with it.

    `NB_BRIDGE_X_FILE` gives the value of `NB_BRIDGE_X` as the content of a file.
    """
    env = FileAwareEnv(eager=False, prefix=PREFIX, strip_whitespace=True)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for spec in fields(Settings):
        name, meta = spec.name.upper(), spec.metadata
        raw = os.environ.get(PREFIX + name, "")
        if not meta["secret"] and re.match(r"^(tcp|udp|sctp)://", raw):
            problems.append(
                f"{PREFIX}{name} is {raw!r}, which Kubernetes injects for a Service of that name: "
                "set enableServiceLinks: false in the pod"
            )
            continue
        try:
            if meta["read"] == "list":
                value: Any = _list(env, name, meta, problems)
            else:
                value = getattr(env, meta["read"])(name, default=None, validate=meta["validate"])
        except UnicodeDecodeError:
            problems.append(
                f"{PREFIX}{name}_FILE {os.environ[f'{PREFIX}{name}_FILE']} is not UTF-8"
            )
            continue
        except ValueError as error:  # a file that cannot be read
            problems.append(str(error))
            continue
        if value is None or value == "":
            continue  # unset, or wrong: then `seal` tells
        values[spec.name] = meta["convert"](value) if meta["convert"] else value
    try:
        env.seal()
    except EnvValidationError as error:
        problems += _told(error.error_messages)
    if not problems:
        if "max_body_bytes" not in values and "spool_max_bytes" in values:
            half = values["spool_max_bytes"] // 2
            values["max_body_bytes"] = min(_MAX_BODY_BYTES, half)
        settings = Settings(**values)
        problems += _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _list(
    env: FileAwareEnv, name: str, meta: Mapping[str, Any], problems: list[str]
) -> list[str] | None:
    """Values separated by commas, by lines, or both; `None` if there are none to be used."""
    text = env.str(name, default=None)
    if text is None:
        return None
    if not text.strip():
        if meta["closes"]:  # a variable or a file that somebody forgot to fill in
            problems.append(f"{PREFIX}{name} is set, but empty: give it a value, or unset it")
        return None
    values = [value for line in text.splitlines() if line.strip() for value in line.split(",")]
    try:
        meta["validate"](values)
    except ValidationError as error:
        problems.append(f"{PREFIX}{name} {'; '.join(map(str, error.messages))}")
        return None
    return values


def _told(messages: Any) -> list[str]:
    lines = []
    for name, texts in messages.items():
        told = "; ".join(text[0].lower() + text[1:] for text in map(str, texts)).rstrip(".")
        lines.append(f"{name} {told}")
    return lines


def _contradictions(settings: Settings) -> list[str]:
    """What each value alone does not show."""
    problems = []
    if (settings.tls_cert is None) != (settings.tls_key is None):
        problems.append(f"{PREFIX}TLS_CERT and {PREFIX}TLS_KEY go together: set both or neither")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        problems.append(f"{PREFIX}TLS_CLIENT_CA needs {PREFIX}TLS_CERT and {PREFIX}TLS_KEY")
    if twice := set(settings.callback_paths) & set(settings.notify_paths):
        problems.append(
            f"{PREFIX}CALLBACK_PATHS and {PREFIX}NOTIFY_PATHS both have {', '.join(sorted(twice))}"
        )
    if 2 * settings.max_body_bytes > settings.spool_max_bytes:
        problems.append(
            f"{PREFIX}SPOOL_MAX_BYTES must be at least twice {PREFIX}MAX_BODY_BYTES: the longest "
            "callbacks could not be kept while Redis is away"
        )
    if settings.backoff_max_s < settings.backoff_base_s:
        problems.append(f"{PREFIX}BACKOFF_MAX_S is less than {PREFIX}BACKOFF_BASE_S")
    return problems


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One warning per `NB_BRIDGE_*` variable that names no setting, with the nearest that does."""
    known = {variable(spec.name) for spec in fields(Settings)}
    known |= {f"{name}_FILE" for name in known}
    warnings = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _SERVICE_LINK.match(name[len(PREFIX) :]):
            continue
        # Compared without the prefix, which would make everything alike.
        bare = [each.removeprefix(PREFIX) for each in known]
        nearest = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1)
        hint = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
        warnings.append(f"{name} is no setting{hint}")
    return warnings


# --- showing --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One setting as people may see it: secrets hidden."""

    name: str
    variable: str
    value: Any
    default: Any
    source: Literal["default", "environment", "file"]
    used_by: str
    doc: str


def shown(settings: Settings, environ: Mapping[str, str]) -> list[Shown]:
    """Every setting with variable, default, value and source."""
    rows = []
    for spec in fields(Settings):
        value, meta = getattr(settings, spec.name), spec.metadata
        name = variable(spec.name)
        source: Literal["default", "environment", "file"] = "default"
        if f"{name}_FILE" in environ:
            source = "file"
        elif environ.get(name):
            source = "environment"
        rows.append(
            Shown(
                name=spec.name,
                variable=name,
                value=_hidden(spec.name, value) if meta["secret"] else _plain(value),
                default=meta["default_text"] or _plain(spec.default),
                source=source,
                used_by=meta["halves"],
                doc=meta["doc"],
            )
        )
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value) if isinstance(value, Path) else value


def _hidden(name: str, value: Any) -> str:
    if name == "redis_url":
        return without_password(value)
    return f"({len(value)} hidden)" if value else ""


def without_password(url: str) -> str:
    """A Redis URL that may be logged: user and password replaced by `***`, the query left out.

    After a password that is not percent-encoded, an address cannot be told: nothing is shown.
    """
    parts = urlsplit(url)
    if "@" in parts.path + parts.query + parts.fragment:
        return f"{parts.scheme}://***"
    _, at, address = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{'***@' if at else ''}{address}{parts.path}"
