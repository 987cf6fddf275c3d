"""Whether a child process has been silent for too long. Pure: asks no clock and no process."""

from __future__ import annotations


class SilenceDetector:
    """Counts looks at a child that gave no sign since the last one.

    Not seconds of a clock: after the machine slept, or the child was stopped, the last sign is old
    although nobody was silent.
    """

    def __init__(self, *, looks: int) -> None:
        self._looks = looks
        self._beat_s = 0.0
        self._silent_looks = 0

    def is_silent(self, beat_s: float, *, is_stopped: bool) -> bool:
        """One look: whether it was the last of `looks` in a row without a sign, or comes after it.

        `beat_s` is when the child gave its last sign; 0 until the first, for a child may take as
        long as it likes to load the receiver. One that is stopped (SIGSTOP, a debugger) cannot
        give any.
        """
        if beat_s != self._beat_s or not beat_s or is_stopped:
            self._beat_s, self._silent_looks = beat_s, 0
        else:
            self._silent_looks += 1
        return self._silent_looks > self._looks
