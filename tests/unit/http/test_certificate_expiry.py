"""When a certificate ends."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from bridge.http.certificate_expiry import expires_at_s
from bridge.http.tls import TlsFiles
from bridge.http.tls_reloader import TlsReloader
from bridge.telemetry import metrics
from support.waiting import wait_until

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


# 2049 is the last year that a certificate writes with two digits (RFC 5280, 4.1.2.5).
@pytest.mark.parametrize("year", [2031, 2049, 2050, 2999])
def test_the_end_of_the_first_certificate_of_a_chain_is_found(tmp_path: Path, year: int) -> None:
    ends = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    issued = trustme.CA().issue_cert("example.com", not_after=ends)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    assert expires_at_s(chain) == ends.timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "no certificate", BEGIN, f"{BEGIN}\n!\n{END}", f"{BEGIN}\nMIIB\n{END}", f"{BEGIN}\n{END}"],
)
def test_what_is_no_certificate_is_a_value_error(tmp_path: Path, text: str) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text(text)
    with pytest.raises(ValueError):
        expires_at_s(chain)


def test_a_certificate_of_a_version_that_is_none_is_a_value_error(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("example.com")
    der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
    version = b"\xa0\x03\x02\x01"  # RFC 5280, 4.1.2.1: [0] EXPLICIT, of which 2 means v3
    assert der.count(version + b"\x02") == 1
    chain = tmp_path / "chain.pem"
    chain.write_text(ssl.DER_cert_to_PEM_cert(der.replace(version + b"\x02", version + b"\x07")))
    with pytest.raises(ValueError):
        expires_at_s(chain)


def test_a_certificate_cut_anywhere_is_a_value_error(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("example.com")
    lines = issued.cert_chain_pems[0].bytes().decode().splitlines()[1:-1]
    chain = tmp_path / "chain.pem"
    for kept in range(len(lines)):
        chain.write_text("\n".join([BEGIN, *lines[:kept], END]))
        with pytest.raises(ValueError):
            expires_at_s(chain)


async def test_the_metric_follows_the_certificate_in_use(tmp_path: Path) -> None:
    files = TlsFiles(cert=tmp_path / "chain.pem", key=tmp_path / "key.pem")
    authority = trustme.CA()
    served: list[ssl.SSLContext] = []

    def issue(year: int) -> float:
        ends = datetime(year, 1, 1, tzinfo=UTC)
        issued = authority.issue_cert("example.com", not_after=ends)
        files.cert.write_bytes(issued.cert_chain_pems[0].bytes())
        files.key.write_bytes(issued.private_key_pem.bytes())
        return ends.timestamp()

    first = issue(2031)
    reloader = TlsReloader(files, served.append, interval_s=0.01)
    assert metrics.tls_expiry._value.get() == first
    watching = asyncio.create_task(reloader.run())
    second = issue(2032)
    await wait_until(lambda: metrics.tls_expiry._value.get() == second, "the metric to follow")
    watching.cancel()
    assert served
