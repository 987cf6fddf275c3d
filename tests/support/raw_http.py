"""A caller that writes bytes, not requests, and an ingress process to write them to."""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import redis

from bridge.contract.entries import Entry
from bridge.contract.keys import Keys, partition_of
from bridge.store.embedded import EmbeddedServer
from support.processes import Serve, environ_for

PATH = b"/v1.0.0/messageReceiver/cmd"
HEAD = b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\n"
MARK = "no-log-may-hold-this"
PARTITIONS = 16
BOUND_S = 20.0


def body(device: str) -> bytes:
    """A notification of this device, with a mark by which it is known in a log."""
    result = {"resultCode": "SENT", "resultDetail": MARK}
    return json.dumps({"deviceId": device, "commandId": "c", "result": result}).encode()


def request(device: str, *headers: bytes) -> bytes:
    """A proper callback."""
    sent = body(device)
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(sent) + sent


def chunked(*pieces: bytes) -> bytes:
    """A proper chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(it), it) for it in (*pieces, b""))


class Target:
    """A running ingress, and what it has published."""

    def __init__(self, folder: Path, server: EmbeddedServer, **settings: str) -> None:
        namespace = f"t{uuid.uuid4().hex[:12]}"
        self.keys = Keys(namespace=namespace)
        self._client = redis.Redis.from_url(server.url)
        self.process = Serve(environ_for(folder, server.url, namespace, **settings))
        url = urlsplit(self.process.url)
        self._address = (str(url.hostname), int(url.port or 0))

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self._client.close()

    def connect(self) -> socket.socket:
        """A new connection; reading from it is bounded."""
        return socket.create_connection(self._address, timeout=BOUND_S)

    def exchange(self, *pieces: bytes, pause_s: float = 0.0) -> bytes:
        """Sends piece by piece and half-closes nothing: what comes until the server closes."""
        with self.connect() as connection:
            return send_and_read(connection, pieces, pause_s)

    def published(self, device: str) -> int:
        """How many entries there are of a device."""
        entries = self._client.xrange(self.keys.stream(partition_of(device, PARTITIONS)))
        return sum(Entry.decode(fields).device == device for _, fields in entries)

    def published_in_all(self) -> set[str]:
        """The devices of which there is an entry."""
        found = set()
        for partition in range(PARTITIONS):
            for _, fields in self._client.xrange(self.keys.stream(partition)):
                found.add(Entry.decode(fields).device)
        return found

    def complaints(self) -> list[str]:
        """Log lines that tell of a defect, or repeat what a caller wrote."""
        lines = [json.dumps(line) for line in list(self.process.lines)]
        return [it for it in lines if any(bad in it for bad in ("Traceback", "failed", MARK))]


def send_and_read(
    connection: socket.socket, pieces: Sequence[bytes], pause_s: float = 0.0
) -> bytes:
    """As `Target.exchange`, on a connection that is open; a reset counts as a close."""
    received = b""
    try:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
    except ConnectionError:
        pass  # closed already: what it said before is read below
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionError:
        pass
    return received


def statuses(received: bytes) -> list[int]:
    """The status of each answer in what was received; no body of ours has such a line."""
    return [int(status) for status in re.findall(rb"HTTP/[0-9]\.[0-9] ([0-9]{3}) ", received)]
