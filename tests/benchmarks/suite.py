"""How long who changes something waits for all tests."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from consuming import ROOT
from rows import Extent, Row, alternate

SECTION: Final = "tests"
CASE: Final = "make test"
BOUND_S: Final = 1800.0


def sections(extent: Extent) -> dict[str, Callable[[], list[Row]]]:
    """One section, and one round of it: it takes minutes, and differs little."""
    of = "tests/repository" if extent.is_quick else ""
    return {SECTION: lambda: alternate(SECTION, {CASE: partial(_took, of)}, rounds=1)}


def _took(of: str) -> Mapping[str, float]:
    """Tests that fail are an error: what they took says nothing."""
    # What `make bench` was told is not meant for this one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    began_s = time.monotonic()
    ended = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), "test", f"ARGS={of}"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=BOUND_S,
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError(" / ".join(ended.stdout.strip().splitlines()[-3:]) or "it said nothing")
    return {"took_s": time.monotonic() - began_s}
