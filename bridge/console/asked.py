"""Which dead letters or bodies a page is asked for: its query, or the fields of a form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, cast

from bridge.errors import UsageError
from bridge.operations.selection import Filter

MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The texts of a filter as they were given, to be shown and linked again; empty for none."""

    group: str = ""
    device: str = ""
    error: str = ""
    line: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Asked:
        """From a query or a form; `UsageError` for what is too long to be meant."""
        given = {field.name: values.get(field.name, "").strip() for field in fields(cls)}
        for name, text in given.items():
            if len(text) > MAX_CHARS:
                raise UsageError(f"{name} has at most {MAX_CHARS} characters")
        return cls(**given)

    @property
    def wanted(self) -> Filter:
        """The filter; `UsageError` for what is not a time."""
        return Filter.of(
            device=self.device,
            error=self.error,
            line=self.line,
            since=self.since,
            until=self.until,
        )

    @property
    def values(self) -> dict[str, str]:
        """Those that are given, for a link."""
        texts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: text for name, text in texts.items() if text}


def verb_in(values: Mapping[str, str]) -> Literal["replay", "drop"]:
    """What a form asks to be done; `UsageError` for anything else."""
    verb = values.get("verb", "")
    if verb not in ("replay", "drop"):
        raise UsageError("say what to do: verb is replay or drop")
    return cast('Literal["replay", "drop"]', verb)
