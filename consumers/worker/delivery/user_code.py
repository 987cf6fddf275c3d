"""Where the user's code stands: of a thread's stack or a coroutine's, the line to show.

Pure but for reading source files. Must not import the receiver, nor keep a frame.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType, FrameType, GeneratorType
from typing import Any, Final

MAX_CODE_CHARS: Final = 100

_LIBRARIES: Final = ("site-packages", "dist-packages")
_STANDARD: Final = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))
_OURS: Final = tuple(f"{Path(__file__).parents[3] / name}/" for name in ("bridge", "consumers"))


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source. `code` is its text, bounded; empty where the file cannot be read."""

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


class UserCode:
    """Which files are the user's: the receiver's, and what is neither installed nor Python's."""

    def __init__(self, receiver: object) -> None:
        module = sys.modules.get(type(receiver).__module__)
        self._file = getattr(module, "__file__", None)
        package = type(receiver).__module__.partition(".")[0]
        folder = getattr(sys.modules.get(package), "__path__", None)
        self._package = f"{next(iter(folder))}/" if folder and package != "consumers" else None

    def has(self, file: str) -> bool:
        """Whether a file is the user's own."""
        if file == self._file or (self._package is not None and file.startswith(self._package)):
            return True
        if file.startswith("<") or any(name in file for name in _LIBRARIES):
            return False
        return not file.startswith((*_STANDARD, *_OURS))

    def of_thread(self, thread_id: int | None) -> Place | None:
        """Where a thread stands; `None` if it has ended."""
        frame = sys._current_frames().get(thread_id) if thread_id is not None else None
        frames = []
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        return self._innermost(frames)

    def of_coroutine(self, coroutine: Any) -> Place | None:
        """Where a coroutine that waits stands, through what it awaits."""
        frames: list[FrameType] = []
        while isinstance(coroutine, CoroutineType | GeneratorType):
            if isinstance(coroutine, CoroutineType):
                frame, coroutine = coroutine.cr_frame, coroutine.cr_await
            else:
                frame, coroutine = coroutine.gi_frame, coroutine.gi_yieldfrom
            if frame is not None:
                frames.insert(0, frame)
        return self._innermost(frames)

    def _innermost(self, frames: list[FrameType]) -> Place | None:
        """The innermost line of the user's own code, else the innermost one."""
        for frame in frames:
            if self.has(frame.f_code.co_filename):
                return _place(frame)
        return _place(frames[0]) if frames else None


def _place(frame: FrameType) -> Place:
    file, line = frame.f_code.co_filename, frame.f_lineno or 0
    code = linecache.getline(file, line).strip()
    return Place(file, line, code[:MAX_CODE_CHARS])
