"""Credentials that let a caller in: bearer tokens and basic pairs, compared in constant time.

Owns how a presented secret is compared. Must not answer, count or log: callers decide what a wrong
one means.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from hashlib import blake2b


class Credentials:
    """Digests of the valid ones: the secrets themselves are not kept."""

    def __init__(
        self, *, tokens: Sequence[str] = (), basic_credentials: Sequence[str] = ()
    ) -> None:
        self.tokens = [digest(token) for token in tokens]
        self.pairs = [digest(pair) for pair in basic_credentials]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.tokens or self.pairs)

    def is_token(self, presented: str) -> bool:
        """Whether this is one of the tokens."""
        return is_among(presented, self.tokens)

    def is_pair(self, presented: str) -> bool:
        """Whether this is one of the pairs, written as `user:password`."""
        return is_among(presented, self.pairs)

    def are_in(self, headers: Mapping[str, str]) -> bool:
        """Whether the header Authorization has a valid one, of either scheme."""
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        scheme = scheme.lower()
        if scheme == "bearer":
            return self.is_token(value.strip())
        return scheme == "basic" and self.is_pair(decoded_pair(value))


def digest(secret: str) -> bytes:
    """What is kept and compared of a secret: it has one length for all."""
    return blake2b(secret.encode("utf-8", "surrogateescape"), digest_size=32).digest()


def is_among(presented: str, digests: Sequence[bytes]) -> bool:
    """Compares digests of one length, and all of them: the time says nothing of the secrets."""
    found = False
    shown = digest(presented)
    for valid in digests:
        found |= hmac.compare_digest(shown, valid)
    return found


def decoded_pair(value: str) -> str:
    """`user:password` of a basic credential (RFC 7617); empty if it is not one."""
    try:
        return base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
