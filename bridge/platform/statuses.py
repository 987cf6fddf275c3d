"""The statuses of a command: how each is spelled, and which comes after which."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class CommandStatus(StrEnum):
    """Where a command is, whichever of the platform's spellings the code came in.

    Source: the API page (SENT, DELIVERED, SUCCESS, FAIL), the platform's status table, field logs.
    """

    PENDING = "PENDING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    EXPIRED = "EXPIRED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def of(cls, result_code: str) -> CommandStatus:
        """The status a raw `resultCode` stands for; `UNKNOWN` for codes that are not documented."""
        return _STATUS_BY_CODE.get(result_code, cls.UNKNOWN)

    @property
    def rank(self) -> int | None:
        """Position in a command's life, 1 to 4; `None` for `UNKNOWN`. All final ones share 4."""
        return _RANKS.get(self)

    @property
    def is_final(self) -> bool:
        """Whether nothing more is expected for the command."""
        return self.rank == _FINAL_RANK


_FINAL_RANK: Final = 4
_RANKS: Final = {
    CommandStatus.PENDING: 1,
    CommandStatus.SENT: 2,
    CommandStatus.DELIVERED: 3,
    CommandStatus.SUCCESSFUL: _FINAL_RANK,
    CommandStatus.FAILED: _FINAL_RANK,
    CommandStatus.TIMEOUT: _FINAL_RANK,
    CommandStatus.EXPIRED: _FINAL_RANK,
    CommandStatus.CANCELED: _FINAL_RANK,
}
_STATUS_BY_CODE: Final = {
    **{status.value: status for status in _RANKS},
    "SUCCESS": CommandStatus.SUCCESSFUL,
    "FAIL": CommandStatus.FAILED,
    "DEFAULT": CommandStatus.PENDING,
}
RANK_BY_CODE: Final = {code: status.rank for code, status in _STATUS_BY_CODE.items()}
KNOWN_RESULT_CODES: Final = tuple(_STATUS_BY_CODE)
"""Every spelling of `resultCode` that stands for a status."""
