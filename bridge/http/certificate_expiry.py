"""When a certificate begins and ends, read from its PEM file.

Pure but for reading the file. Reads its validity, and judges nothing: whether a certificate can be
used is OpenSSL's to say (`tls`).
"""

from __future__ import annotations

from pathlib import Path


def expires_at_s(chain: Path) -> float:
    """The end of the first certificate in a PEM file; as `validity_s`."""
    return validity_s(chain)[1]


def validity_s(chain: Path) -> tuple[float, float]:
    """From when to when the first certificate in a PEM file is valid, epoch seconds.

    `ValueError` if the file holds none that can be read; `OSError`.
    Source: RFC 5280, section 4.1.2.5.
    """
    from cryptography import x509  # takes some time to load, and only TLS needs it

    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    except x509.InvalidVersion as error:  # not a ValueError, unlike all else it finds wrong
        raise ValueError(f"the certificate cannot be read: {error}") from error
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins.timestamp(), ends.timestamp()
