"""A certificate that cannot be read for a moment is loaded when it can, whatever has changed."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest
import structlog.testing
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from bridge.errors import UsageError
from bridge.http.tls import TlsFiles
from bridge.http.tls_reloader import TlsReloader
from support.waiting import wait_until


def files(folder: Path) -> TlsFiles:
    issued = trustme.CA().issue_cert("example.com")
    it = TlsFiles(cert=folder / "chain.pem", key=folder / "key.pem")
    it.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    it.key.write_bytes(issued.private_key_pem.bytes())
    return it


async def test_what_could_not_be_loaded_is_tried_until_it_can_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = files(tmp_path)
    served: list[ssl.SSLContext] = []
    tries = 0
    context = TlsFiles.context

    def unreadable_at_first(self: TlsFiles) -> ssl.SSLContext:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise UsageError("NB_BRIDGE_TLS_KEY cannot be read: Permission denied")
        return context(self)

    monkeypatch.setattr(TlsFiles, "context", unreadable_at_first)
    reloader = TlsReloader(it, served.append, interval_s=0.001)
    with structlog.testing.capture_logs() as logged:
        watching = asyncio.create_task(reloader.run())
        it.cert.write_bytes(it.cert.read_bytes() + b"\n")
        await wait_until(lambda: served, "it to be served")
        await asyncio.sleep(0.01)
        watching.cancel()
    assert len(served) == 1
    assert [line["event"] for line in logged] == ["tls_reload_failed", "tls_reloaded"]


def test_a_change_of_mode_or_owner_is_a_change(tmp_path: Path) -> None:
    it = files(tmp_path)
    before = it.state()
    os.chmod(it.key, 0o640)
    assert it.state() != before


@pytest.mark.parametrize(
    "format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["PKCS 8", "traditional"]
)
def test_an_encrypted_key_is_called_what_it_is(tmp_path: Path, format: PrivateFormat) -> None:
    it = files(tmp_path)
    key = load_pem_private_key(it.key.read_bytes(), password=None)
    it.key.write_bytes(key.private_bytes(Encoding.PEM, format, BestAvailableEncryption(b"secret")))
    with pytest.raises(UsageError, match="is encrypted: store it without a password"):
        it.context()
