"""What is attached, as a scene to draw: records, their plans and the kernel's links in. Pure.

A plan is what is drawn. A link resource says by its fields what it joins: `bridge` or `parent`
is what it hangs from, `ifname` the container's end, `vni` makes it a tunnel. So a driver that
makes its links of such resources is drawn without a word about it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from netplug.draw.scene import Box, Link, Plug, Scene, describe_addresses
from netplug.firewall.intent import BridgePolicy, Publish, Subnet
from netplug.kernel.rtmessages import Link as KernelLink
from netplug.model import MARK, IPInterface, Port
from netplug.resources import Resource
from netplug.resources.rules import Rules
from netplug.state import Record

OUTSIDE = "outside"
SHARED = "the host's own network"
BESIDE = ("ipam", "names")  # somebody else's attachments, whose links we do not know


@dataclass(slots=True)
class _Host:
    """The host that is drawn: its kernel's links by name; None where they are not known."""

    name: str
    links: Mapping[str, KernelLink] | None
    uplink: str
    boxes: dict[str, Box] = field(default_factory=dict)
    drawn: list[Link] = field(default_factory=list)

    def up(self, device: str) -> bool:
        """Is it up? A link that is gone is not."""
        if self.links is None or not device:
            return True
        link = self.links.get(device)
        return link is not None and link.up

    def door(self, device: str) -> str:
        """The box of an interface on the host's border, made once."""
        name = f"door {device}"
        if name not in self.boxes:
            self.boxes[name] = Box(name, "door", device, host=self.name, up=self.up(device))
        return name

    def outside(self) -> str:
        self.boxes.setdefault(OUTSIDE, Box(OUTSIDE, "outside", "outside"))
        return OUTSIDE


def compute_scene(
    host: str,
    records: Iterable[Record],
    *,
    uplink: str = "",
    links: Iterable[KernelLink] | None = None,
    node_steps: Iterable[Resource] = (),
) -> Scene:
    """The host with its networks, each with its attachments in the order of their making.

    `links` are those of the host's kernel; what is gone or down is then drawn so. `node_steps`
    are steps of plans that belong to the host and no container, such as an overlay's device.
    """
    known = None if links is None else {link.name: link for link in links}
    drawing = _Host(host, known, uplink)
    ready = [
        record
        for record in records
        if record.phase == "ready" and record.attachment.via not in BESIDE
    ]
    by_network: dict[str, list[Record]] = {}
    for record in ready:
        by_network.setdefault(record.attachment.network, []).append(record)
    for name, found in sorted(by_network.items()):
        _draw_network(drawing, name, found, tuple(node_steps))
    _draw_containers(drawing, ready)
    doors = [box for box in drawing.boxes.values() if box.kind == "door"]
    others = [box for box in drawing.boxes.values() if box.kind != "door"]
    return Scene((*doors, *others), tuple(drawing.drawn), (host,))


def _steps(records: Iterable[Record]) -> list[Resource]:
    """Every step once."""
    return list(dict.fromkeys(step for record in records for step in record.plan))


def _field(step: object, *names: str) -> Any:
    """The first of these fields that the step has and that says something."""
    return next((value for name in names if (value := getattr(step, name, None))), None)


def _is_leg(step: Resource) -> bool:
    """Does the step put an interface into the sandbox?"""
    place = _field(step, "peer_place", "place")
    return bool(_field(step, "ifname")) and place in (None, "sandbox")


def _draw_network(
    host: _Host, network: str, records: list[Record], node_steps: Sequence[Resource]
) -> None:
    steps = _steps(records)
    intents = [step.intent for step in steps if isinstance(step, Rules)]
    internal = any(isinstance(i, BridgePolicy) and i.internal for i in intents)
    masquerade = any(isinstance(i, Subnet) and i.masquerade for i in intents)
    legs = [step for step in steps if _is_leg(step)]
    if not legs:
        return  # its containers share what the host has
    bridges = list(dict.fromkeys(b for leg in legs if (b := _field(leg, "bridge"))))
    parents = list(dict.fromkeys(p for leg in legs if (p := _field(leg, "parent"))))
    box = f"network {network}"
    up = all(host.up(bridge) for bridge in bridges)
    mtu = min((m for leg in legs if (m := _field(leg, "mtu"))), default=0)
    words = bridges or [_describe_legs(legs, parents)]
    words += [str(gateway) for gateway in _gateways(records)]
    words += [f"mtu {mtu}"] if mtu else []
    words += ["internal"] if internal else []
    words += [] if up else ["down"]
    host.boxes[box] = Box(box, "bridge", network, tuple(words), host=host.name, up=up)
    for tunnel in (*steps, *node_steps):
        if _is_tunnel_of(tunnel, network, bridges):
            _draw_tunnel(host, box, tunnel)
    for parent in parents:
        door = host.door(parent)
        host.drawn.append(Link(Plug(door), Plug(box), "uplink", up=host.up(parent)))
        _reach_outside(host, door)
    if host.uplink and not parents and not internal:
        door = host.door(host.uplink)
        host.drawn.append(Link(Plug(door, nat=masquerade), Plug(box), "uplink"))
        _reach_outside(host, door)


def _is_tunnel_of(step: Resource, network: str, bridges: Sequence[str]) -> bool:
    """A tunnel says whose it is by its bridge, or by our mark in its alias."""
    if getattr(step, "vni", None) is None:
        return False
    marked = str(_field(step, "alias") or "").removeprefix(MARK).partition("/")[0] == network
    return marked or _field(step, "bridge") in bridges


def _reach_outside(host: _Host, door: str) -> None:
    link = Link(Plug(host.outside()), Plug(door), "uplink")
    if link not in host.drawn:
        host.drawn.append(link)


def _describe_legs(legs: Sequence[Resource], parents: Sequence[str]) -> str:
    """What the containers' interfaces are, where no bridge holds them: `macvlan on eth1`."""
    kinds = list(dict.fromkeys(_kind_name(leg) for leg in legs))
    where = f" on {', '.join(parents)}" if parents else ""
    return f"{'/'.join(kinds)}{where}"


def _kind_name(leg: Resource) -> str:
    kind = _field(leg, "kind")
    return str(kind if isinstance(kind, str) else getattr(kind, "name", type(leg).__name__.lower()))


def _draw_tunnel(host: _Host, box: str, tunnel: Resource) -> None:
    """A dashed network beyond the host's border, which every host with this VNI would meet."""
    vni = _field(tunnel, "vni")
    segment = f"vni {vni}"
    words = [f"udp {port}" for port in [_field(tunnel, "port")] if port]
    words += [f"mtu {mtu}" for mtu in [_field(tunnel, "mtu")] if mtu]
    host.boxes.setdefault(segment, Box(segment, "segment", f"VNI {vni}", tuple(words)))
    device = str(_field(tunnel, "name", "ifname") or segment)
    door, up = host.door(device), host.up(device)
    host.drawn.append(Link(Plug(segment), Plug(door), "tunnel", f"VNI {vni}", up))
    host.drawn.append(Link(Plug(door), Plug(box), "tunnel", up=up))


def _gateways(records: Iterable[Record]) -> tuple[IPInterface, ...]:
    found = {
        ip_interface(f"{ip.gateway}/{ip.address.network.prefixlen}")
        for record in records
        for ip in (record.result.ips if record.result else ())
        if ip.gateway is not None
    }
    return tuple(sorted(found, key=lambda address: (address.version, address)))


def _draw_containers(host: _Host, records: Sequence[Record]) -> None:
    """One box for each container, whatever the number of its networks."""
    by_container: dict[str, list[Record]] = {}
    for record in records:
        by_container.setdefault(record.attachment.container, []).append(record)
    for container, found in by_container.items():
        box = f"container {container}"
        lines: list[str] = []
        brief: list[str] = []
        for record in found:
            leg = next((step for step in record.plan if _is_leg(step)), None)
            addresses = [ip.address for ip in record.result.ips] if record.result else []
            if leg is None:
                lines.append(SHARED)
                brief.append(SHARED)
                continue
            lines += describe_addresses(record.attachment.ifname, addresses)
            brief += (str(address.ip) for address in addresses)
            port = _field(leg, "host_name") or ""
            named = record.attachment.ifname if len(found) > 1 else ""
            host.drawn.append(
                Link(
                    Plug(f"network {record.attachment.network}", port),
                    Plug(box, named),
                    up=host.up(port),
                )
            )
        published = dict.fromkeys(port for record in found for port in _published(record))
        lines += map(_publication, published)
        a = found[0].attachment
        title = a.name or a.container[:12]
        host.boxes[box] = Box(box, "namespace", title, tuple(lines), tuple(brief), host.name)


def _published(record: Record) -> Iterator[Port]:
    """The ports that the plan publishes; where two networks ask for one, only one has it."""
    served = {
        (mapping.host_port, mapping.protocol)
        for step in record.plan
        if isinstance(step, Rules) and isinstance(step.intent, Publish)
        for mapping in step.intent.mappings
    }
    for port in record.attachment.ports:
        if (port.host_port, port.protocol) in served:
            yield port


def _publication(port: Port) -> str:
    host = "" if port.host_ip is None else str(port.host_ip)
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port.host_port} → {port.container_port}/{port.protocol}"
