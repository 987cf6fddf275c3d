"""The folder of spool files: which are ours, which are a dead process's, and which are damaged.

Every file `X.db` has a lock file `X.lock` beside it that its process keeps flocked: the kernel
gives the lock up when the process ends, however it ends. Not the database itself is locked, for
closing that anywhere in the process would drop SQLite's own locks on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_DATABASE, _LOCK = ".db", ".lock"
_ORDINAL: Final = re.compile(r"spool-(\d{8,})-")


class FileLock:
    """A flocked lock file; `take` it, and `release` it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def database(self) -> Path:
        """The spool file this lock guards."""
        return self.path.with_suffix(_DATABASE)

    @property
    def is_there(self) -> bool:
        """Whether the lock file still has its name: else another process may take that."""
        try:
            return os.stat(self.path).st_ino == os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            return False

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """Creates the lock file if need be and locks it; `None` if another process has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed it between our open and our lock.
            is_there = os.fstat(descriptor).st_ino == os.stat(path).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_there = False
        except BaseException:
            os.close(descriptor)
            raise
        if not is_there:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def release(self, *, remove: bool) -> None:
        """Unlocks; with `remove` the database, its log and the lock file go as well."""
        try:
            if remove:
                for suffix in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{self.database}{suffix}")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
        finally:
            os.close(self._descriptor)


def is_held(lock: Path) -> bool:
    """Whether a living process has the file. Looks from outside, and takes nothing away."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # not ours to look at; not adopting it is the safe guess
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def new_lock(folder: Path) -> FileLock:
    """A lock on a name nobody has used; makes the folder. `OSError` where that cannot be.

    Names begin with a number that is higher than all there: clocks may be set back between two
    processes, so only this says in which order they lived.
    """
    _make(folder)
    while True:
        number = max(map(ordinal, folder.glob(f"spool-*{_DATABASE}")), default=0) + 1
        lock = FileLock.take(folder / f"spool-{number:08d}-{uuid.uuid4().hex[:12]}{_LOCK}")
        if lock is not None:
            sync(folder)
            return lock


def ordinal(path: Path) -> int:
    """The number in the name of a spool file; 0 for one of version 0.1, which has none."""
    found = _ORDINAL.match(path.name)
    return int(found[1]) if found else 0


def dead_locks(
    folder: Path, left: Callable[[Path, OSError], None] = lambda *_: None
) -> Iterator[FileLock]:
    """Locks of the files whose processes have ended; each is now the caller's.

    `left` hears of a lock file that cannot be opened: its database is left where it is.
    """
    names = {path.with_suffix(_LOCK) for path in folder.glob(f"spool-*{_DATABASE}")}
    names |= set(folder.glob(f"spool-*{_LOCK}"))
    for path in sorted(names):
        try:
            lock = FileLock.take(path)
            if lock is None:
                continue
            if not lock.database.exists():
                # Its process ended before it made a file, or after it removed it.
                lock.release(remove=True)
                continue
        except OSError as error:
            left(path, error)
            continue
        yield lock


def put_away(lock: FileLock) -> Path:
    """Renames a damaged file so that nobody opens it again; returns its new name."""
    away = lock.database.with_suffix(".damaged")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{lock.database}{suffix}", f"{away}{suffix}")
    lock.release(remove=True)
    return away


def _make(folder: Path) -> None:
    """Makes the folder and those above it, each in a way that survives a power cut."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync(made.parent)


def sync(folder: Path) -> None:
    """Makes names created in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
