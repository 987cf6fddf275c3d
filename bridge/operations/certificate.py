"""A throw-away certificate for `dev --tls`, with a CA of its own that `curl --cacert` can trust."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bridge.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """PEM files."""

    ca: Path
    chain: Path
    key: Path


def make(folder: Path) -> Certificate:
    """A new certificate for localhost in `folder`; `UsageError` without the `tls` extra."""
    try:
        import trustme
    except ImportError as error:
        raise UsageError("--tls needs: pip install 'nb-command-bridge[tls]'") from error
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = Certificate(
        ca=folder / "ca.pem", chain=folder / "certificate.pem", key=folder / "key.pem"
    )
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", "::1")
    files.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(files.key))
    files.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(str(files.ca))
    return files
