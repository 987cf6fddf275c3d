"""Certificates for tests: a CA of their own, servers and clients it vouches for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate chain and its key."""

    cert: Path
    key: Path


class Authority:
    """A CA and what it issues, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        folder.mkdir(parents=True, exist_ok=True)
        self.pem = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.pem))

    def issue(self, name: str, *identities: str) -> Pair:
        """A certificate for `identities`, in files that begin with `name`."""
        issued = self._ca.issue_cert(*(identities or ("127.0.0.1", "localhost")))
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(pair.key))
        return pair

    def client_context(self, own: Pair | None = None) -> ssl.SSLContext:
        """A client that trusts this CA, and shows `own`."""
        context = ssl.create_default_context(cafile=str(self.pem))
        if own is not None:
            context.load_cert_chain(own.cert, own.key)
        return context
