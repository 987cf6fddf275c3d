"""TLS of the public listener: the server context, and noticing that its files have changed.

Owns which protocol versions and ciphers are spoken. Must not touch connections: a change means a
new context for new ones.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.errors import UsageError

# Forward secrecy and authenticated encryption only; TLS 1.3 has nothing else anyway.
_TLS_1_2_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: certificate chain, private key, and the CAs of clients if they must show one."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A server context of these files as they are now; `UsageError` says what is wrong."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_TLS_1_2_CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        for name, path in (("TLS_CERT", self.cert), ("TLS_KEY", self.key)):
            _readable(name, path)
        try:
            # An empty password: without one OpenSSL would ask on the terminal.
            context.load_cert_chain(self.cert, self.key, password="")  # nosec B106
        except ssl.SSLError as error:
            raise UsageError(self._advice(error)) from error
        if self.client_ca is not None:
            _readable("TLS_CLIENT_CA", self.client_ca)
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise UsageError(
                    f"NB_BRIDGE_TLS_CLIENT_CA {self.client_ca} holds no PEM certificate"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def state(self) -> tuple[object, ...]:
        """Something that changes when a file does, symlinks followed; `OSError` if one is gone."""
        paths = (self.cert, self.key, *((self.client_ca,) if self.client_ca else ()))
        # Owner and mode, too: what could not be read may be readable now.
        names = ("ino", "mtime_ns", "ctime_ns", "size", "uid", "gid", "mode")
        stats = [os.stat(path) for path in paths]
        return tuple(getattr(stat, f"st_{name}") for stat in stats for name in names)

    def _advice(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return (
                f"the key in NB_BRIDGE_TLS_KEY {self.key} does not belong to the first "
                f"certificate in NB_BRIDGE_TLS_CERT {self.cert}"
            )
        if b"ENCRYPTED" in self.key.read_bytes():  # in its label (RFC 7468), or a header (RFC 1421)
            return (
                f"the key in NB_BRIDGE_TLS_KEY {self.key} is encrypted: "
                "store it without a password, readable by this user only"
            )
        return (
            f"NB_BRIDGE_TLS_CERT {self.cert} and NB_BRIDGE_TLS_KEY {self.key} cannot be used "
            f"({error.reason or 'not PEM'}): both must be PEM files, the server's certificate first"
        )


def _readable(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"NB_BRIDGE_{name} {path} cannot be read: {error.strerror}") from error
