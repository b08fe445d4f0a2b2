"""Which addresses may be asked: those of the public internet, and what the operator allows.

A feed's address is chosen by whoever may add feeds, and a provider may redirect; neither is to
reach the service's own network. So the name is looked up once, what is found is checked, and the
connection goes to that very address: a second look-up could answer otherwise.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeAlias

from pals_grid.core.errors import FeedRejected

Network: TypeAlias = IPv4Network | IPv6Network
Lookup: TypeAlias = Callable[[str, int], Sequence[str]]
"""From a host name and a port to numeric addresses; raises OSError where there are none."""

# Public by their numbers, and yet not of the internet: protocol assignments, where a cloud has its
# metadata, and the platform service of another cloud.
_HOST_SERVICES = (IPv4Network("192.0.0.0/24"), IPv4Network("168.63.129.16/32"))
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is an address of the public internet, one that carries another looked through.

    Loopback, private, link-local, unique-local, shared (100.64.0.0/10), multicast, reserved and
    unspecified addresses are not, nor are those of clouds' metadata services.
    """
    if isinstance(address, IPv4Address):
        special = address.is_multicast or address.is_reserved
        is_host_service = any(address in network for network in _HOST_SERVICES)
        return address.is_global and not special and not is_host_service
    inside = _carried(address)
    if inside is not None:
        return is_public(inside)
    return address in _GLOBAL_UNICAST and address.is_global


@dataclass(frozen=True, slots=True)
class AddressRule:
    """The public internet, and ``allowed`` networks besides."""

    allowed: tuple[Network, ...] = ()

    def permits(self, text: str) -> bool:
        """Whether the numeric address ``text`` may be asked."""
        address = ip_address(text.partition("%")[0])
        inside = _carried(address) if isinstance(address, IPv6Address) else None
        plain = inside or address
        return any(plain in network for network in self.allowed) or is_public(plain)

    def require(self, host: str, addresses: Sequence[str]) -> list[str]:
        """Those of a host's ``addresses`` that may be asked.

        Raises:
            FeedRejected: when there is none.
        """
        permitted = [text for text in addresses if self.permits(text)]
        if not permitted:
            raise FeedRejected(
                f"{host} leads to {', '.join(addresses)[:100]}, which is not on the public "
                "internet; the operator may allow it by PALS_GRID_FEED_NETWORKS"
            )
        return permitted


def read_network(text: str) -> Network:
    """Read a network such as ``10.1.0.0/16``, or a single address.

    Raises:
        ValueError: for anything else.
    """
    return ip_network(text)


def look_up(host: str, port: int) -> list[str]:
    """Numeric addresses of ``host`` by the system's resolver, in its order, each once.

    Raises:
        OSError: when it knows none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def look_up_within(lookup: Lookup, host: str, port: int, timeout_s: float | None) -> Sequence[str]:
    """``lookup`` bounded in time, since the system's resolver has no bound of ours.

    Raises:
        OSError: when there is no address, or none in time.
    """
    answer: SimpleQueue[Sequence[str] | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            answer.put(lookup(host, port))
        except (OSError, UnicodeError) as error:
            answer.put(OSError(f"{host} cannot be looked up: {error}"))

    Thread(target=ask, name="look-up", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"{host} was not looked up within {timeout_s:g} s") from None
    if isinstance(found, OSError):
        raise found
    return found


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for: mapped, NAT64 or 6to4."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
