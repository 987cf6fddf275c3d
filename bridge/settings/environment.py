"""Settings read from the environment: all errors at once, and no secret shown."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError

from bridge.errors import SettingsError
from bridge.settings.common import MAX_PORT
from bridge.settings.ingress import MAX_BODY_BYTES
from bridge.settings.table import PREFIX, Settings

# What Kubernetes injects for a Service named "nb-bridge": NB_BRIDGE_PORT=tcp://10.0.0.1:8080 and
# a family of NB_BRIDGE_PORT_8080_TCP… and NB_BRIDGE_SERVICE_… variables.
_SERVICE_LINK: Final = re.compile(r"^(?:SERVICE_(?:HOST|PORT)|PORT_\d+_)")


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
            continue  # unset, or wrong: then `seal` reports it
        values[spec.name] = meta["convert"](value) if meta["convert"] else value
    try:
        env.seal()
    except EnvValidationError as error:
        problems += _lines(error.error_messages)
    if not problems:
        if "max_body_bytes" not in values and "spool_max_bytes" in values:
            half = values["spool_max_bytes"] // 2
            values["max_body_bytes"] = min(MAX_BODY_BYTES, half)
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


def _lines(messages: Any) -> list[str]:
    lines = []
    for name, texts in messages.items():
        problem = "; ".join(text[0].lower() + text[1:] for text in map(str, texts)).rstrip(".")
        lines.append(f"{name} {problem}")
    return lines


def _contradictions(settings: Settings) -> list[str]:
    """What each value alone does not show."""
    problems = []
    if (settings.tls_cert is None) != (settings.tls_key is None):
        problems.append(f"{PREFIX}TLS_CERT and {PREFIX}TLS_KEY go together: set both or neither")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        problems.append(f"{PREFIX}TLS_CLIENT_CA needs {PREFIX}TLS_CERT and {PREFIX}TLS_KEY")
    if any(_covers(path, settings.health_path) for path in settings.all_callback_paths):
        problems.append(f"{PREFIX}HEALTH_PATH is one of {PREFIX}CALLBACK_PATHS: choose another")
    if settings.proxy_protocol == "on" and not settings.trusted_proxies:
        problems.append(
            f"{PREFIX}PROXY_PROTOCOL needs {PREFIX}TRUSTED_PROXIES: the networks of the proxies "
            "that may say for whom they call"
        )
    if 2 * settings.max_body_bytes > settings.spool_max_bytes:
        problems.append(
            f"{PREFIX}SPOOL_MAX_BYTES must be at least twice {PREFIX}MAX_BODY_BYTES: the longest "
            "callbacks could not be kept while Redis is away"
        )
    if settings.admin_port and settings.admin_port + settings.processes > MAX_PORT + 1:
        problems.append(f"{PREFIX}ADMIN_PORT leaves no room for {settings.processes} processes")
    if settings.backoff_max_s < settings.backoff_base_s:
        problems.append(f"{PREFIX}BACKOFF_MAX_S is less than {PREFIX}BACKOFF_BASE_S")
    return problems


def _covers(pattern: str, path: str | None) -> bool:
    """Whether callbacks of this pattern may come to a path."""
    expected, found = pattern.split("/"), (path or "").split("/")
    return len(expected) == len(found) and all(
        segment == other or segment.startswith("{")
        for segment, other in zip(expected, found, strict=True)
    )


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One warning per `NB_BRIDGE_*` variable that names no setting, with the nearest that does."""
    known = {variable(spec.name) for spec in fields(Settings)}
    known |= {f"{name}_FILE" for name in known}
    warnings = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _SERVICE_LINK.match(name[len(PREFIX) :]):
            continue
        # Compared without the prefix, which would make everything alike.
        bare = [name.removeprefix(PREFIX) for name in known]
        nearest = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1)
        hint = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
        warnings.append(f"{name} is not a setting{hint}")
    return warnings
