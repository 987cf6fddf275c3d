"""Where a program keeps what outlives it, if nobody says."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.errors import UsageError


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
            "this user has no home folder: set NB_BRIDGE_SPOOL_DIR to a folder on a local disk"
        ) from error
