"""Where a request comes from, with proxies of ours in between.

Owns which proxies are believed, and how X-Forwarded-For is read. Must not refuse anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import web

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_MAX_FORWARDED_CHARS: Final = 4096
_MAX_HOPS: Final = 32


class Sources:
    """`of` a request: the last address before our own proxies."""

    def __init__(self, trusted_proxies: Sequence[Network] = ()) -> None:
        self._proxies = tuple(trusted_proxies)

    def is_proxy(self, address: Address) -> bool:
        """Whether a proxy of ours has this address."""
        return is_in(address, self._proxies)

    def is_proxied(self, request: web.BaseRequest) -> bool:
        """Whether a proxy of ours sent this request, which so may say more of the caller."""
        if not request.remote:  # a unix socket: the file system lets callers in
            return True
        peer = address_in(request.remote)
        return peer is not None and self.is_proxy(peer)

    def of(self, request: web.BaseRequest) -> Address | None:
        """The address of the caller: the last one that is not a proxy of ours.

        Every proxy appends who called it, so only what stands right of the first address we do not
        trust was written by us; anything further left may be invented by the caller. Read from the
        right, and no further than any chain of proxies is long.
        """
        if getattr(request.protocol, "is_for_nobody", False) is True:
            # The proxy writes no such line: who called it did.
            return address_in(request.remote or "")
        lines = request.headers.getall("X-Forwarded-For", ())
        text = ",".join(line[-_MAX_FORWARDED_CHARS:] for line in lines[-_MAX_HOPS:])
        hops = text[-_MAX_FORWARDED_CHARS:].rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        if not lines:
            return address_in(request.remote or "")
        source = address_in(request.remote) if request.remote else address_in(hops.pop())
        while source is not None and hops and self.is_proxy(source):
            source = address_in(hops.pop())
        return source


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of some networks."""
    return any(address.version == network.version and address in network for network in networks)


def address_in(text: str) -> Address | None:
    """An address as written by proxies: with or without port, IPv6 perhaps in brackets."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
