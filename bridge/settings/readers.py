"""What a value may look like: each function makes one row of the table (`table`).

All take the default and the text that `--help` and the documentation show, and `halves`, the
programs that use the setting. `default_text` says a default that a value alone does not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from marshmallow import ValidationError, validate

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED_BITS: Final = 96  # RFC 4291, 2.5.5.2
_NAMED_SEGMENT: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")


def setting(
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
    """Any text. A setting that `closes` the door must not be set and empty."""
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


def number(default: float | None, doc: str, *, low: float, high: float, **more: Any) -> Any:
    """A number within bounds: whole, unless its default is a float."""
    kind = "float" if isinstance(default, float) else "int"
    between = validate.Range(min=low, max=high, error=f"must be between {low:g} and {high:g}")
    return setting(default, doc, read=kind, validate=between, **more)


def one_of(*choices: str, doc: str, default: str | None = None, **more: Any) -> Any:
    """One of some words; the first, unless another is the default."""
    listed = validate.OneOf(choices, error="must be one of {choices}")
    return setting(default or choices[0], doc, validate=listed, **more)


def matching(default: str, doc: str, pattern: str, message: str, **more: Any) -> Any:
    """Text of a form."""
    return setting(default, doc, validate=validate.Regexp(pattern, error=message), **more)


def redis_url(default: str, doc: str) -> Any:
    """Where Redis is; may hold a password, so it is a secret."""
    return setting(default, doc, validate=_redis_url, secret=True)


def words(doc: str, **more: Any) -> Any:
    """Words separated by commas or lines."""
    return setting((), doc, read="list", validate=_nonempty, convert=_strings, **more)


def header_names(doc: str, **more: Any) -> Any:
    """Names of HTTP headers, separated by commas or lines."""
    return setting((), doc, read="list", validate=_header_names, convert=_strings, **more)


def paths(default: tuple[str, ...], doc: str, **more: Any) -> Any:
    """Paths of URLs, separated by commas or lines; a segment may be `{name}`."""
    return setting(default, doc, read="list", validate=_paths, convert=_plain_paths, **more)


def health_path(doc: str, **more: Any) -> Any:
    """One path of a URL, with nothing in braces; none unless it is said."""
    return setting(None, doc, validate=_literal_path, convert=_plain_path, **more)


def pairs(doc: str, **more: Any) -> Any:
    """Each `name:secret`, separated by commas or lines."""
    return setting((), doc, read="list", validate=_pairs, convert=_strings, secret=True, **more)


def networks(doc: str, **more: Any) -> Any:
    """Networks, separated by commas or lines."""
    return setting((), doc, read="list", validate=_networks, convert=_as_networks, **more)


def path(doc: str, **more: Any) -> Any:
    """A file or a folder; none unless it is said."""
    return setting(None, doc, validate=_path, convert=_as_path, **more)


# --- judging and converting


def _redis_url(value: str) -> None:
    if raw := _raw_in_password(value):
        # Read on, what stands before them would be taken for the server's address, and be shown.
        shown = " and ".join(f"{char} as %{ord(char):02X}" for char in raw)
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
    return [char for char in "/?#[]" if char in userinfo]


def _networks(values: list[str]) -> None:
    for value in values:
        try:
            ipaddress.ip_network(value.strip())
        except ValueError as error:
            raise ValidationError(
                f"{value.strip()!r} is not a network; examples: 192.0.2.0/24, 2001:db8::/32"
            ) from error


def _paths(values: list[str]) -> None:
    for value in values:
        if not value.strip().startswith("/") or re.search(r"[\s?#]", value.strip()):
            raise ValidationError("each path must start with / and contain no space, ? or #")
        names = []
        for segment in value.strip().split("/"):
            if named := _NAMED_SEGMENT.fullmatch(segment):
                names.append(named[1])
            elif "{" in segment or "}" in segment:
                raise ValidationError(
                    f"{segment!r} is not a segment: a name in braces must be all of it, such as "
                    "{tenant}, of letters, digits and _"
                )
        if len(set(names)) < len(names):
            raise ValidationError(f"{value.strip()} has a name in braces twice")


def _plain_paths(values: list[str]) -> tuple[str, ...]:
    return tuple(map(_plain_path, values))


def _plain_path(value: str) -> str:
    """Without a slash too many: so a path is written in one way only."""
    return "/" + "/".join(part for part in value.strip().split("/") if part)


def _literal_path(value: str) -> None:
    _paths([value])
    if "{" in value:
        raise ValidationError("must be one path: nothing in braces")


def _header_names(values: list[str]) -> None:
    for value in values:
        if not _TOKEN.fullmatch(value.strip()):
            raise ValidationError(f"{value.strip()!r} is not the name of a header")


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
