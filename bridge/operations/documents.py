"""What operators' programs get as JSON, from the command line and the console alike."""

from __future__ import annotations

import json
from typing import Final

JSON_SCHEMA: Final = 1
"""Raised when a field is renamed or removed; more of them may come at any time."""


def written(**document: object) -> str:
    """One JSON object, its version first."""
    return json.dumps({"schema": JSON_SCHEMA, **document}, indent=2, default=str)
