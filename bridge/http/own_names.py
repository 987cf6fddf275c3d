"""By which names a listener may be called.

A page in somebody's browser can give a name of its own our address, and then read what it could
not read otherwise (DNS rebinding): so not every name is answered.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address


class OwnNames:
    """Addresses, names without a dot, this machine's name, and `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {socket.gethostname().lower(), *map(str.lower, names)}

    def has(self, host: str) -> bool:
        """Whether the header Host, with or without a port, names us."""
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.split(":")[0]
        name = name.lower().rstrip(".")
        if "." not in name or name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True
