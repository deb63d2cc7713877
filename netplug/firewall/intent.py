"""What a driver wants of the firewall, said without any firewall's words.

Backends (`nft`, `iptables`, `none`) compile these values. Each value is one
kernel transaction; `key` is set where several attachments share it, `None`
where one attachment owns it (then `owner` is in every element's comment).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netplug.model import Family, IPAddress, IPNetwork, Protocol


@dataclass(frozen=True, slots=True)
class Base:
    """The empty frame of one family: table, sets, maps, chains, and the guard of 127.0.0.0/8."""

    family: Family | Literal["bridge"]

    @property
    def key(self) -> str:
        return f"firewall:{self.family}"


@dataclass(frozen=True, slots=True)
class BridgePolicy:
    """What may cross the border of one bridge.

    Replies always may, published ports may unless `internal`.
    internal: nothing else comes in or goes out, not even to another bridge.
    isolated: nothing to or from other bridges of ours.
    routed: hosts outside may open connections to container addresses; without it
    only published ports are reachable from outside.
    tunnel: a link to the same network on other nodes; what crosses it stays inside.
    """

    bridge: str
    family: Family
    internal: bool = False
    isolated: bool = False
    routed: bool = False
    tunnel: str = ""

    @property
    def key(self) -> str:
        return f"firewall:policy:{self.family}:{self.bridge}"


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet behind a bridge.

    masquerade: packets from it to anywhere but itself and multicast leave with the
    host's address. Hairpin (a container that reaches a published port of its own
    subnet) is masqueraded in any case. `whole`: the range of the network on all nodes,
    which then counts as "itself".
    """

    subnet: IPNetwork
    bridge: str
    masquerade: bool = False
    whole: IPNetwork | None = None

    @property
    def key(self) -> str:
        return f"subnet:{self.subnet}"


@dataclass(frozen=True, slots=True)
class Accept:
    """Traffic of a bridge must survive foreign forward and input chains that drop by policy.

    Without `forward` it is only its questions to the host's name server.
    """

    bridge: str
    family: Family
    forward: bool = True

    @property
    def key(self) -> str:
        return f"firewall:accept:{self.family}:{self.bridge}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """(host_ip or any address of the host, protocol, host_port) -> (address, port)."""

    protocol: Protocol
    host_port: int
    address: IPAddress
    port: int
    host_ip: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """The published ports of one attachment, one family."""

    owner: str  # Attachment.tag
    family: Family
    mappings: tuple[Mapping, ...]

    @property
    def key(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class SpoofGuard:
    """Frames from `device` (host end of a veth) must carry `mac` as source."""

    owner: str  # Attachment.tag
    device: str
    mac: str

    @property
    def key(self) -> None:
        return None


Intent = Base | BridgePolicy | Subnet | Accept | Publish | SpoofGuard
