"""What a running topology has become: its interfaces as the kernel has them now."""

from __future__ import annotations

from contextlib import closing

from netplug.draw.topology import Seen
from netplug.fixtures.running import Running
from netplug.kernel.rtnl import Rtnl


def read_seen(running: Running) -> dict[tuple[str, str], Seen]:
    """Every interface of `running` by (node or switch, name), for `draw.scene_of`.

    Link-local IPv6 addresses, which every interface has, are left out.
    """
    found: dict[tuple[str, str], Seen] = {}
    for name, place in running.nodes.items():
        with closing(Rtnl(place.fd)) as rtnl:
            for link in rtnl.links():
                held = [address.interface for address in rtnl.addresses(link.index)]
                kept = tuple(one for one in held if one.version == 4 or not one.is_link_local)
                found[name, link.name] = Seen(link.up, link.mtu, kept)
    topology = running.topology
    with closing(Rtnl(running.wire.fd)) as rtnl:
        ports = {link.name: link for link in rtnl.links()}
    for switch in topology.switches:
        for end in topology.ends(switch.name):
            if port := ports.get(end.interface):
                found[switch.name, end.interface] = Seen(port.up, port.mtu)
    return found
