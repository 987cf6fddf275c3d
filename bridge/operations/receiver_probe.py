"""`python -m bridge.operations.receiver_probe [SPEC]`: whether a receiver loads, as for a worker.

A process of its own, for it runs the user's code, which may hang, print or exit. Prints what is
wrong on stderr; exit code 0 fine, 2 not.
"""

from __future__ import annotations

import sys

from bridge.errors import BridgeError


def main(spec: str | None) -> int:
    """Loads the receiver and looks at its handlers."""
    from consumers.worker.delivery.handler import Handlers
    from consumers.worker.process import loading

    try:
        Handlers(loading.load(spec))
    except BridgeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
