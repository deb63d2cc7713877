"""What the nodes of a cluster tell each other: keys and values in the store.

    ROOT/vni/N                   NETWORK          a VNI is given once
    ROOT/net/NETWORK             NetworkRecord    what all nodes must agree on; made once
    ROOT/own/NETWORK/SLOT        Claim            whose subnet number SLOT is; stays for good
    ROOT/node/NETWORK/NODE       Advert           where that node is now; goes with its lease
    ROOT/name/NETWORK/NODE/ID    NameRecord       a container of that node: names, addresses

Ownership and liveness are two records: a node that is silent keeps its subnet. The
revision at which a claim was made is its epoch. An advert names the epoch that it speaks
for, and one that speaks for an older epoch than the claim's is ignored (fencing).

Slot S is the S-th subnet of the node's size in each of the network's ranges, so that one
compare-and-set takes an IPv4 and an IPv6 subnet at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from ipaddress import ip_address, ip_network
from typing import Any, Literal, TypeVar

from netplug.codec import decode, encode
from netplug.errors import Conflict
from netplug.model import IPAddress, IPInterface, IPNetwork, digest

T = TypeVar("T")
DEFAULT_ROOT = "/netplug/1"
FIRST_VNI, LAST_VNI = 4096, (1 << 24) - 1  # below lie the numbers that people choose
IPV6_NODE_PREFIX = 64  # what a link is made for (RFC 4291, 2.5.1)


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    ranges: tuple[IPNetwork, ...]
    node_prefix: int
    vni: int
    mode: Literal["routed", "bridged"] = "routed"
    port: int = 4789
    encrypt: str = ""

    def prefix_of(self, whole: IPNetwork) -> int:
        if whole.version == 4:
            return self.node_prefix
        return max(IPV6_NODE_PREFIX, min(whole.prefixlen + 16, 126))

    @property
    def slots(self) -> int:
        """How many nodes fit."""
        return min(1 << max(0, self.prefix_of(r) - r.prefixlen) for r in self.ranges)

    def subnets(self, slot: int) -> tuple[IPNetwork, ...]:
        """The subnets of a slot, one for each range."""
        return tuple(_nth(whole, self.prefix_of(whole), slot) for whole in self.ranges)


def _nth(whole: IPNetwork, prefix: int, number: int) -> IPNetwork:
    step = 1 << (whole.max_prefixlen - prefix)
    first = ip_address(int(whole.network_address) + number * step)
    return ip_network(f"{first}/{prefix}")


@dataclass(frozen=True, slots=True)
class Claim:
    """`instance` tells apart two machines that call themselves alike; `since`: epoch seconds."""

    node: str
    instance: str
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Advert:
    node: str
    instance: str
    address: IPAddress
    slot: int
    epoch: int
    mac: str
    key: str = ""  # WireGuard's public key


@dataclass(frozen=True, slots=True)
class NameRecord:
    node: str
    owner: str
    names: tuple[str, ...]
    addresses: tuple[IPInterface, ...]
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of keys below a root; several clusters may share one store."""

    root: str = DEFAULT_ROOT

    def vni(self, number: int) -> str:
        return f"{self.root}/vni/{number}"

    def network(self, network: str) -> str:
        return f"{self.root}/net/{network}"

    def claim(self, network: str, slot: int | str) -> str:
        return f"{self.root}/own/{network}/{slot}"

    def advert(self, network: str, node: str) -> str:
        return f"{self.root}/node/{network}/{node}"

    def name(self, network: str, node: str, owner: str = "") -> str:
        return f"{self.root}/name/{network}/{node}/" + (digest(owner)[:24] if owner else "")

    def split(self, key: str) -> tuple[str, str, str]:
        """(kind, network, rest) of a key below the root."""
        kind, _, rest = key.removeprefix(self.root + "/").partition("/")
        network, _, rest = rest.partition("/")
        return kind, network, rest


def pack(value: Any) -> bytes:
    return json.dumps(encode(value), sort_keys=True).encode()


def unpack(kind: type[T], value: bytes) -> T | None:
    """None for what no netplug wrote; a newer one's further fields are left out."""
    try:
        return decode(kind, json.loads(value))
    except (ValueError, TypeError, KeyError):
        return None


def slot_order(node: str, slots: int) -> Iterator[int]:
    """Every slot once, from one that depends on the node: little contention, few surprises."""
    start = int(digest("slot", node)[:12], 16) % slots
    return (number % slots for number in range(start, start + slots))


def vni_order(network: str) -> Iterator[int]:
    count = LAST_VNI - FIRST_VNI + 1
    start = int(digest("vni", network)[:12], 16) % count
    return (FIRST_VNI + number % count for number in range(start, start + count))


def demand_equal(network: str, wanted: NetworkRecord, known: NetworkRecord) -> None:
    """Raises Conflict for what this node's file says otherwise than the cluster."""
    for field in (one.name for one in fields(NetworkRecord)):
        mine, value = encode(getattr(wanted, field)), encode(getattr(known, field))
        if mine != value and (field != "vni" or wanted.vni):
            raise Conflict(
                f"network {network} is known to the cluster with another '{field}'",
                f"there it is {value}, in this node's file {mine}",
                "correct the file, or choose another name for the network",
            )
