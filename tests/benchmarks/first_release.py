"""Version 0.1 of a folder or of this repository's history, to be measured beside this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from consuming import ROOT
from rows import Measure

sys.path.append(str(ROOT / "tests" / "chaos"))  # where a run takes older releases from
if TYPE_CHECKING:
    from release import Release

CASE: Final = "nb-bridge 0.1"


def case(measure: Callable[[Release], Mapping[str, float]], named: str = "") -> Measure:
    """A case that is given the release; where there is none, its row says why."""

    def measured() -> Mapping[str, float]:
        import release

        try:
            found = release.older(named or release.FIRST_RELEASE)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"its environment could not be made: {error}") from error
        return measure(found)

    return measured
