"""The namespace's meta value: set once, then compared before anything is published or fetched.

Used by both halves; must not know what they do with a namespace that is not theirs.
"""

from __future__ import annotations

from typing import Final

from bridge.contract.keys import Keys
from bridge.contract.meta import ContractError, Meta
from bridge.errors import MetaMismatchError
from bridge.store.link import Link, Refused, command
from bridge.store.reply_errors import refused_state

_ELSEWHERE: Final = "choose another NB_BRIDGE_NAMESPACE"


async def guard(
    link: Link,
    keys: Keys,
    partitions: int,
    *,
    timeout_s: float,
    also_full: bool = False,
) -> None:
    """Claims the namespace for this contract, or makes sure that it was claimed for the same.

    Call it after every reconnect: a server restarted empty has to be claimed again. As a write it
    also shows whether the server takes writes; but to workers, who free a full one, it is enough
    that the namespace was claimed before (`also_full`). Raises `MetaMismatchError` with advice, and
    what `Link.run` raises.
    """
    ours = Meta(partitions=partitions)
    tolerated = ("OOM",) if also_full else ()
    claim = command("SET", keys.meta, ours.encode(), "NX", tolerated=tolerated)
    claimed, raw = await link.run((claim, command("GET", keys.meta)), timeout_s=timeout_s)
    if isinstance(raw, Refused):
        if raw.code == "WRONGTYPE":
            raise MetaMismatchError(f"{keys.meta} is not ours ({raw.text}): {_ELSEWHERE}")
        raise refused_state(raw.text, "GET")  # a proxy that answers for its server: a quota
    if raw is None and isinstance(claimed, Refused):
        raise refused_state(claimed.text, claim.name)
    try:
        theirs = Meta.decode(raw or b"")
    except ContractError as error:
        raise MetaMismatchError(f"{keys.meta} is not ours ({error}): {_ELSEWHERE}") from error
    if theirs != ours:
        raise MetaMismatchError(_advice(keys.namespace, theirs, ours))


def _advice(namespace: str, theirs: Meta, ours: Meta) -> str:
    if theirs.version != ours.version or theirs.hash != ours.hash:
        return (
            f"namespace {namespace!r} follows contract version {theirs.version} ({theirs.hash}), "
            f"this program version {ours.version} ({ours.hash}): "
            "run the matching version, or choose another NB_BRIDGE_NAMESPACE"
        )
    return (
        f"namespace {namespace!r} has {theirs.partitions} partitions, this program is set to "
        f"{ours.partitions}: set NB_BRIDGE_PARTITIONS={theirs.partitions}, "
        "or choose another NB_BRIDGE_NAMESPACE"
    )
