"""What every program on one namespace agrees on first: version, partitions, hash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from bridge.contract.digests import canonical_json

CONTRACT_VERSION: Final = 1
PARTITION_HASH: Final = "crc32"


class ContractError(Exception):
    """An entry or a record that does not follow this contract."""


class NewerContractError(ContractError):
    """An entry written by a newer program; not broken, only not ours to handle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What every program on one namespace must agree on before it publishes or fetches."""

    version: int = CONTRACT_VERSION
    partitions: int
    hash: str = PARTITION_HASH

    def encode(self) -> bytes:
        """The value of `Keys.meta`."""
        return canonical_json(
            {"version": self.version, "partitions": self.partitions, "hash": self.hash}
        )

    @classmethod
    def decode(cls, raw: bytes) -> Meta:
        """Reads the value of `Keys.meta`; `ContractError` where it is not one."""
        try:
            value = json.loads(raw)
            version, partitions, hash_ = value["version"], value["partitions"], value["hash"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ContractError("the namespace's meta value cannot be read") from error
        if (
            type(version) is not int
            or type(partitions) is not int
            or not isinstance(hash_, str)
            or partitions < 1
        ):
            raise ContractError("the namespace's meta value has fields of the wrong type")
        return cls(version=version, partitions=partitions, hash=hash_)
