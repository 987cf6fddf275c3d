"""Keeps a SQLite table of the latest status of every command.

    COMMAND_STATE_DB=state.sqlite3 nb-bridge worker \\
        --receiver consumers.examples.sqlite_state:StateReceiver
    sqlite3 state.sqlite3 'SELECT * FROM command_state'

Shows two things that every receiver with a memory has to do:

- A notification may be delivered twice (a worker died before it could say "handled"), so what was
  seen is remembered by `delivery.notification_id`, in the same transaction as its effect.
- The platform promises no order: DELIVERED may arrive after SUCCESSFUL. Then it carries
  `delivery.late`, is kept in the history, and does not become the command's status.
"""

from __future__ import annotations

import os
import sqlite3
from threading import Lock

from consumers import NotifyNBCommandStatusChangedDTO, PushMessageReceiver, delivery

SCHEMA = """
CREATE TABLE IF NOT EXISTS history (
    notification_id TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    command TEXT NOT NULL,
    status TEXT NOT NULL,
    received_at REAL NOT NULL,
    late INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS command_state (
    device TEXT NOT NULL,
    command TEXT NOT NULL,
    status TEXT NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (device, command)
);
"""
REMEMBER = "INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?, ?, ?)"
PUT = "INSERT OR REPLACE INTO command_state VALUES (?, ?, ?, ?)"
PUT_IF_NONE = "INSERT OR IGNORE INTO command_state VALUES (?, ?, ?, ?)"


class StateReceiver(PushMessageReceiver):
    """Tables `command_state` and `history` in the file that COMMAND_STATE_DB names."""

    def setup(self) -> None:
        """Opens the database. Sync handlers run in threads, so they share it under a lock."""
        path = os.environ.get("COMMAND_STATE_DB", "command-state.sqlite3")
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._lock = Lock()
        self._database.executescript(SCHEMA)

    def teardown(self) -> None:
        """Closes it."""
        self._database.close()

    def handleNBCommandStateChanged(self, notification: NotifyNBCommandStatusChangedDTO) -> None:
        """The typed form. An exception rolls back, and the notification comes again."""
        device, command = notification.deviceId, notification.commandId
        status, received_at = notification.status.value, delivery.received_at
        # A replayed dead letter comes after what is newer, just like a late one.
        is_old = delivery.late or delivery.replayed
        with self._lock, self._database as transaction:
            remembered = transaction.execute(
                REMEMBER,
                (delivery.notification_id, device, command, status, received_at, is_old),
            )
            if remembered.rowcount == 0:
                return  # delivered before, and its effect with it
            put = PUT_IF_NONE if is_old else PUT
            transaction.execute(put, (device, command, status, received_at))
