"""Whether a program takes the settings that a file in deploy/ gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge import settings
from consumers.worker.process.loading import load

# What the files that secrets come from hold.
_SECRETS = {"NB_BRIDGE_REDIS_URL_FILE": "redis://user:secret@redis:6379/0"}


def taken(environ: Mapping[str, str], folder: Path) -> settings.Settings:
    """The settings of a program with this environment; fails if it complains of any of it, or
    where the receiver is one of our examples that is not there.

    Files that `NB_BRIDGE_X_FILE` names are made in `folder`.
    """
    assert settings.unknown_variables(environ) == []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            if name.endswith("_FILE"):
                file = folder / Path(value).name
                file.write_text(_SECRETS.get(name, "secret"))
                value = str(file)
            patch.setenv(name, value)
        found = settings.load()
    if (found.receiver or "").startswith("consumers."):  # others are the user's to bring
        load(found.receiver)
    return found
