"""A small file system of its own, to be filled: tmpfs with a size. Needs root, and Linux."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

FILLER: Final = "filler"
_PIECE: Final = bytes(2**16)


class Volume:
    """Mounted at `folder`, which it makes, until `unmount`."""

    def __init__(self, folder: Path, *, size: str = "64m") -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            check=True, capture_output=True,
        )  # fmt: skip

    def fill(self) -> None:
        """Leaves no byte, also none in a page that is partly used by the filler itself."""
        with contextlib.suppress(OSError), open(self.folder / FILLER, "ab", buffering=0) as file:
            while True:
                file.write(_PIECE)

    def free(self) -> None:
        """Takes the filling out."""
        (self.folder / FILLER).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Once; what is left on it is copied to where it was mounted."""
        with tempfile.TemporaryDirectory() as kept:
            self.free()
            shutil.copytree(self.folder, kept, dirs_exist_ok=True, copy_function=_copy)
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
            shutil.copytree(kept, self.folder, dirs_exist_ok=True)


def _copy(source: str, target: str) -> str:
    """A file may go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)
    return target


def can_mount() -> bool:
    """Whether this machine lets us."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            Volume(Path(folder) / "volume", size="1m").unmount()
        except (OSError, subprocess.CalledProcessError):
            return False
    return True
