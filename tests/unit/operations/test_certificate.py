"""The certificate of `dev --tls`."""

from __future__ import annotations

import ssl
import stat
import sys
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.operations import certificate


def test_a_client_that_trusts_its_ca_accepts_it_and_nobody_else_reads_its_key(
    tmp_path: Path,
) -> None:
    files = certificate.make(tmp_path / "tls")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.chain, files.key)
    client = ssl.create_default_context(cafile=str(files.ca))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert ("DNS", "localhost") in ours.getpeercert()["subjectAltName"]  # type: ignore[index]
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700


def test_without_the_extra_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(UsageError, match=r"nb-command-bridge\[tls\]"):
        certificate.make(tmp_path)
