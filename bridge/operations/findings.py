"""What `check` finds: one line each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "skipped", "warning", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`name` is stable, `what.of_it`; `advice` is empty where nothing is to be done.

    A `problem` breaks a promise or keeps a program from starting; a `warning` is a risk that
    somebody may have chosen.
    """

    name: str
    level: Level
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """Nothing to be done."""
    return Finding(name=name, level="ok", found=found)


def skipped(name: str, found: str) -> Finding:
    """Could not be looked at, or does not concern this machine."""
    return Finding(name=name, level="skipped", found=found)


def warning(name: str, found: str, advice: str) -> Finding:
    """A risk."""
    return Finding(name=name, level="warning", found=found, advice=advice)


def problem(name: str, found: str, advice: str) -> Finding:
    """Has to be fixed."""
    return Finding(name=name, level="problem", found=found, advice=advice)
