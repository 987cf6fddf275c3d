"""What a program costs: CPU and memory of its process and of all below it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import psutil


def cpu_s(pid: int) -> float:
    """Seconds of CPU so far, user and system."""
    return _sum(pid, lambda process: sum(process.cpu_times()[:2]))


def pss_mib(pid: int) -> float:
    """Memory now: what is its own, and its share of the rest (Pss of proc_pid_smaps(5))."""
    return _sum(pid, lambda process: process.memory_full_info().pss) / 2**20


def give_cores(pid: int, cores: Iterable[int]) -> None:
    """All of its processes may run on these."""
    first = psutil.Process(pid)
    for process in (first, *first.children(recursive=True)):
        process.cpu_affinity(list(cores))


def _sum(pid: int, of: Callable[[psutil.Process], float]) -> float:
    """Over those that are there; some end while they are looked at."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += of(process)
    return total
