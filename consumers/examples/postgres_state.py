"""Keeps the latest status of every command in PostgreSQL.

    pip install 'nb-command-bridge[postgres]'
    COMMAND_STATE_URL=postgresql://bridge@db.example.com/fleet nb-bridge worker \\
        --receiver consumers.examples.postgres_state:StateReceiver
    psql fleet -c 'SELECT * FROM command_state'

For several workers, and several groups, on one database. Each delivery is one transaction:

- A notification may be delivered twice (a worker died before it could say "handled"), so its id is
  written first: the second time nothing else happens.
- The platform promises no order, and a replay comes after what is newer. So the rank decides, and
  of equal ones the time of arrival: a status never takes the place of a later one.

A database that is down makes every delivery fail, and that is no notification's fault: the worker
tries them again, uncharged, until it is back.
"""

from __future__ import annotations

import os
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from consumers import CommandStatus, NotifyNBCommandStatusChangedDTO, PushMessageReceiver, delivery

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS command_history (
    notification_id text PRIMARY KEY,
    device text NOT NULL,
    command text NOT NULL,
    status text NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS command_state (
    device text NOT NULL,
    command text NOT NULL,
    status text NOT NULL,
    rank smallint NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (device, command)
);
"""
# Two workers that start at once would both make the tables, and one of them would fail.
LOCK_SCHEMA: Final = "SELECT pg_advisory_xact_lock(hashtext('command_state'))"
REMEMBER: Final = """
INSERT INTO command_history VALUES (%s, %s, %s, %s, to_timestamp(%s))
ON CONFLICT (notification_id) DO NOTHING
"""
PUT: Final = """
INSERT INTO command_state VALUES (%s, %s, %s, %s, to_timestamp(%s))
ON CONFLICT (device, command) DO UPDATE
SET status = excluded.status, rank = excluded.rank, received_at = excluded.received_at
WHERE (command_state.rank, command_state.received_at) <= (excluded.rank, excluded.received_at)
"""
CONNECTIONS: Final = 8
TIMEOUT_S: Final = 10.0  # shorter than HANDLER_TIMEOUT_S: a failure that says what it is


class StateReceiver(PushMessageReceiver):
    """Tables `command_state` and `command_history` of the database that COMMAND_STATE_URL names."""

    async def setup(self) -> None:
        """Connects, and makes the tables; raises while there is no database: it is tried again."""
        url = os.environ["COMMAND_STATE_URL"]
        try:
            conninfo_to_dict(url)
        except ProgrammingError:  # it would repeat the URL, and so the password
            raise ValueError("COMMAND_STATE_URL is not a postgresql:// URL") from None
        pool = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=TIMEOUT_S,
            reconnect_timeout=TIMEOUT_S,
            kwargs={
                "connect_timeout": int(TIMEOUT_S),
                # Of a database, or a way to it, that says nothing any more.
                "tcp_user_timeout": int(TIMEOUT_S * 1000),
                "options": f"-c statement_timeout={int(TIMEOUT_S * 1000)}",
            },
            open=False,
        )
        try:
            await pool.open(wait=True, timeout=TIMEOUT_S)
            async with pool.connection() as connection:
                await connection.execute(LOCK_SCHEMA)
                await connection.execute(SCHEMA)
        except BaseException:
            await pool.close()
            raise
        self._pool = pool

    async def teardown(self) -> None:
        """Closes the connections."""
        await self._pool.close()

    async def handleNBCommandStateChanged(
        self, notification: NotifyNBCommandStatusChangedDTO
    ) -> None:
        """One transaction: committed where it ends, rolled back by any exception."""
        device, command = notification.deviceId, notification.commandId
        status, received_at = notification.status, delivery.received_at
        async with self._pool.connection() as connection:
            remembered = await connection.execute(
                REMEMBER,
                (delivery.notification_id, device, command, status.value, received_at),
            )
            if remembered.rowcount == 0 or status is CommandStatus.UNKNOWN:
                return  # delivered before, or of no rank: it is in the history
            await connection.execute(PUT, (device, command, status.value, status.rank, received_at))
