"""Version 0.1 of a folder or of this repository's history, to be measured beside this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final

from consuming import ROOT
from rows import Measure
from takeover import Program

sys.path.append(str(ROOT / "tests" / "chaos"))  # where a run takes older releases from
CASE: Final = "nb-bridge 0.1"


def program(named: str = "") -> Program:
    """Of the folder or revision `named`; `RuntimeError` says why it cannot be had."""
    import release

    try:
        found = release.older(named or release.FIRST_RELEASE)
    except (ValueError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"0.1 cannot be had: {error}") from error
    return Program(python=found.python, tree=found.tree)


def case(measure: Callable[[Program], Mapping[str, float]], named: str = "") -> Measure:
    """A case that is given the release; where there is none, its row says why."""
    return lambda: measure(program(named))
