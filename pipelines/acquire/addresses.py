"""Which network addresses may be asked while acquiring: public ones, unless the operator says else.

A name is resolved once, all its addresses are checked, and the connection goes to a checked one, so
that a second answer of a hostile name server (DNS rebinding) changes nothing.
"""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from animaray.platform.errors import RefusedError, ServiceError

SCHEMES = frozenset({"http", "https"})
_PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    Addresses that carry another one (IPv4-mapped, 6to4, Teredo, NAT64) are judged by both.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = [parsed.ipv4_mapped, parsed.sixtofour]
        inner += list(parsed.teredo or ())
        if parsed in ipaddress.ip_network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return is_public(str(parsed.ipv4_mapped))
    parts = [parsed, *(part for part in inner if part is not None)]
    return all(part.is_global and not part.is_multicast for part in parts)


def split_url(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    Raises:
        RefusedError: It is no plain http or https address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise RefusedError(f"{url} is no valid address.", reason="bad_address") from error
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise RefusedError(
            f"Only http and https addresses are fetched, got {url[:200]}.", reason="bad_address"
        )
    if parts.username is not None or parts.password is not None:
        raise RefusedError(
            f"The address of {parts.hostname} holds a password.", reason="bad_address"
        )
    return parts.scheme, parts.hostname, port


async def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Return the addresses of a host, after checking every one of them.

    Raises:
        RefusedError: One of them is not public.
        ServiceError: The name has no address.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ServiceError(f"No address is known for {host}: {error}.", reason="no_host") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    refuse_private(host, addresses, allow_private=allow_private)
    return addresses


def refuse_private(host: str, addresses: list[str], *, allow_private: bool) -> None:
    """Refuse a host with an address that is not public.

    Raises:
        RefusedError: It has one, or none at all.
    """
    private = [address for address in addresses if not is_public(address)]
    if not addresses or (private and not allow_private):
        raise RefusedError(
            f"{host} is at {', '.join(private) or 'no address'}, which is not public.",
            fix="If it is yours, pass --allow-private-hosts.",
            reason="refused_address",
        )
