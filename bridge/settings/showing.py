"""Settings as people may see them: where each value comes from, and no secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from bridge.settings.environment import variable
from bridge.settings.table import Settings


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

    After a password that is not percent-encoded, an address cannot be recognized: nothing is shown.
    """
    parts = urlsplit(url)
    if "@" in parts.path + parts.query + parts.fragment:
        return f"{parts.scheme}://***"
    _, at, address = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{'***@' if at else ''}{address}{parts.path}"
