"""The network that carries the tunnels: by which link and address other nodes reach this one."""

from __future__ import annotations

from dataclasses import dataclass

from netplug.errors import Unavailable
from netplug.kernel import tunnels
from netplug.kernel.rtnl import Rtnl
from netplug.model import IPAddress, IPNetwork
from netplug.overlay.settings import Settings


@dataclass(frozen=True, slots=True)
class Underlay:
    """`networks`: those of the link, whose other addresses need no router."""

    link: str
    address: IPAddress
    mtu: int
    networks: tuple[IPNetwork, ...]


def read_underlay(rtnl: Rtnl, settings: Settings) -> Underlay:
    """As agent.toml says: the link of `address`, or `interface` with its first address, else
    the link of the default route. Raises Unavailable where there is none."""
    held = tunnels.read_addresses(rtnl)
    wanted, named = settings.underlay_address, settings.overlay.interface
    index = None
    if wanted is not None:
        index = next((link for link, address in held if address.ip == wanted), None)
    elif named:
        index = rtnl.index(named)
    else:
        default = rtnl.default_interface()
        index = default.index if default else None
    link = tunnels.link_at(rtnl, index) if index is not None else None
    own = [address for number, address in held if link and number == link.index]
    if link is None or not own:
        what = wanted or named or "the default route"
        raise Unavailable(
            "this node has no address by which other nodes could reach it",
            f"there is no link with an address for {what}",
            "set overlay.address or overlay.interface in agent.toml",
        )
    address = wanted or own[0].ip
    return Underlay(link.name, address, link.mtu, tuple(one.network for one in own))
