"""When a certificate begins and ends, read from its PEM file by the standard library alone.

Pure but for reading the file. Reads its validity, and judges nothing: whether a certificate can be
used is OpenSSL's to say (`tls`).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_OPTIONAL_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17  # two digits of the year; GeneralizedTime has four
_VALIDITY: Final = 3  # after the serial number, the algorithm and the issuer


def expires_at_s(chain: Path) -> float:
    """The end of the first certificate in a PEM file; as `validity_s`."""
    return validity_s(chain)[1]


def validity_s(chain: Path) -> tuple[float, float]:
    """From when to when the first certificate in a PEM file is valid, epoch seconds.

    `ValueError` if the file holds none that can be read; `OSError`.
    Source: RFC 5280, sections 4.1 and 4.1.2.5.
    """
    pem = chain.read_text(errors="replace")
    begin = pem.index(_BEGIN)
    der = ssl.PEM_cert_to_DER_cert(pem[begin : pem.index(_END, begin) + len(_END)])
    try:
        (_, certificate), *_ = _elements(der)
        (_, to_be_signed), *_ = _elements(certificate)
        fields = [value for tag, value in _elements(to_be_signed) if tag != _OPTIONAL_VERSION]
        begin_at, end_at = _elements(fields[_VALIDITY])
    except IndexError as error:
        raise ValueError("the certificate is cut off") from error
    return _moment_s(*begin_at), _moment_s(*end_at)


def _moment_s(tag: int, text: bytes) -> float:
    year = "%y" if tag == _UTC_TIME else "%Y"
    moment = datetime.strptime(text.decode("ascii"), f"{year}%m%d%H%M%SZ")
    return moment.replace(tzinfo=UTC).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each DER element, one after the other; `IndexError` where one is cut."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:  # a long one: so many bytes tell its size
            told = size & 0x7F
            size, at = int.from_bytes(der[at : at + told], "big"), at + told
        if at + size > len(der):
            raise IndexError("an element ends beyond its end")
        yield tag, der[at : at + size]
        at += size
