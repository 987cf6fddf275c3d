"""What long-running programs do not import: each has it in memory for as long as it runs."""

from __future__ import annotations

import sys


def import_structlog() -> None:
    """Imports structlog without rich, which it takes for tracebacks of its own wherever that is
    installed: more than 4 MiB, and our lines have plain ones.

    Not in the process that runs a receiver, whose code may want them.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # to import it is an ImportError now
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
