"""Settings: environment variables `NB_BRIDGE_*`, read once into one frozen object per process.

Every problem is reported at once, never only the first, and never with a secret's value. Only
composition roots (`bridge.ingress.app`, the worker's two processes, `bridge.cli`) see the whole
object; everything below them is given plain values. Start reading at `table.py`.
"""

from bridge.settings.environment import load, unknown_variables, variable
from bridge.settings.readers import Network
from bridge.settings.showing import Shown, shown, without_password
from bridge.settings.state_dir import default_state_dir
from bridge.settings.table import PREFIX, Settings

__all__ = [
    "PREFIX",
    "Network",
    "Settings",
    "Shown",
    "default_state_dir",
    "load",
    "shown",
    "unknown_variables",
    "variable",
    "without_password",
]
