"""Address blocks. Host bits are masked off, as every enforcer does; IPv4-mapped IPv6 counts as IPv4."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from kubectl_genainet.policy.where import Where

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(r"\.".join([_OCTET] * 4))
_IPV4_PREFIX = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})/(\d{1,2})")


class Address(msgspec.Struct, frozen=True):
    """An address as its family (4 or 6) and its value."""

    version: int
    value: int

    def __str__(self) -> str:
        return str(ipaddress.IPv4Address(self.value) if self.version == 4 else ipaddress.IPv6Address(self.value))


def address_of(text: str) -> Address | None:
    """The address that `text` spells, or None."""
    ipv4 = _IPV4.fullmatch(text)
    if ipv4:
        a, b, c, d = map(int, ipv4.groups())
        return Address(4, a << 24 | b << 16 | c << 8 | d)
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    final = mapped or parsed
    return Address(final.version, int(final))


class AddressBlock(msgspec.Struct, frozen=True):
    """A range of addresses of one family; `text` is how the policy spells it."""

    version: int
    first: int
    last: int
    text: str = ""

    def holds(self, address: Address) -> bool:
        return address.version == self.version and self.first <= address.value <= self.last

    def includes(self, other: AddressBlock) -> bool:
        return other.version == self.version and self.first <= other.first and other.last <= self.last

    def __str__(self) -> str:
        return self.text


def block_of(text: str, where: Where) -> AddressBlock:
    """Reads a CIDR. Raises InputError for what isn't one ("10.0.0.0", "10.0.0.0/33", "example.com/8")."""
    if not re.search(r"/\d{1,3}$", text):
        raise where.error(f"{text!r} is not a CIDR", 'A CIDR is an address and a prefix length: "10.0.0.0/8".')
    plain = text
    ipv4 = _IPV4_PREFIX.fullmatch(text)
    if ipv4:  # the API server reads leading zeros as decimal (net.ParseCIDRSloppy)
        plain = ".".join(str(int(part)) for part in ipv4.groups()[:4]) + "/" + ipv4.group(5)
    try:
        network = ipaddress.ip_network(plain, strict=False)
    except ValueError as error:
        raise where.error(f"{text!r} is not a CIDR: {error}") from None
    first, last, version = int(network.network_address), int(network.broadcast_address), network.version
    if version == 6 and network.prefixlen >= 96 and first >> 32 == 0xFFFF:
        first, last, version = first & 0xFFFFFFFF, last & 0xFFFFFFFF, 4
    return AddressBlock(version, first, last, text)


def as_spelled(block: AddressBlock) -> AddressBlock:
    """A block of IPv4-mapped addresses as one of IPv6, for what does not count them as IPv4."""
    if block.version == 6 or ":" not in block.text:
        return block
    return AddressBlock(6, block.first | 0xFFFF << 32, block.last | 0xFFFF << 32, block.text)


def excepts_of(cidr: AddressBlock, texts: tuple[str, ...], where: Where) -> tuple[AddressBlock, ...]:
    """Reads `except`: each must be a strict part of `cidr` (API validation of IPBlock)."""
    excepts = []
    for i, text in enumerate(texts):
        block = block_of(text, where.item(i))
        if not cidr.includes(block) or (block.first, block.last) == (cidr.first, cidr.last):
            raise where.item(i).error(f"{text!r} is not a strict part of {cidr.text!r}")
        excepts.append(block)
    return tuple(excepts)
