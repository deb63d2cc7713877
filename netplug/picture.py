"""What is attached, as a scene to draw: records and plans in, values out. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface

from netplug.draw import AttachmentScene, NetworkScene, Scene
from netplug.firewall.intent import BridgePolicy, Subnet
from netplug.model import IPInterface
from netplug.resources.links import Bridge, Veth
from netplug.resources.rules import Rules
from netplug.state import Record


def compute_scene(host: str, records: Iterable[Record], *, uplink: str = "") -> Scene:
    """The host with its networks, each with its attachments in the order of their making."""
    by_network: dict[str, list[Record]] = {}
    for record in records:
        if record.phase == "ready":
            by_network.setdefault(record.attachment.network, []).append(record)
    networks = (_network(name, found, uplink) for name, found in sorted(by_network.items()))
    return Scene(host, tuple(networks))


def _network(name: str, records: list[Record], uplink: str) -> NetworkScene:
    steps = [step for record in records for step in record.plan]
    bridges = [step for step in steps if isinstance(step, Bridge)]
    intents = [step.intent for step in steps if isinstance(step, Rules)]
    internal = any(isinstance(i, BridgePolicy) and i.internal for i in intents)
    veths = [step for step in steps if isinstance(step, Veth)]
    return NetworkScene(
        name=name,
        driver=str(records[0].config.get("driver", "bridge")),
        bridge=bridges[0].name if bridges else "",
        gateways=_gateways(records),
        mtu=min((veth.mtu for veth in veths), default=None),
        masquerade=any(isinstance(i, Subnet) and i.masquerade for i in intents),
        internal=internal,
        uplink="" if internal else uplink,
        attachments=tuple(_attachment(record) for record in records),
    )


def _gateways(records: list[Record]) -> tuple[IPInterface, ...]:
    found = {
        ip_interface(f"{ip.gateway}/{ip.address.network.prefixlen}")
        for record in records
        for ip in (record.result.ips if record.result else ())
        if ip.gateway is not None
    }
    return tuple(sorted(found, key=lambda address: (address.version, address)))


def _attachment(record: Record) -> AttachmentScene:
    a = record.attachment
    veth = next((step for step in record.plan if isinstance(step, Veth)), None)
    return AttachmentScene(
        container=a.name or a.container[:12],
        ifname=a.ifname,
        host_name=veth.host_name if veth else "",
        addresses=tuple(ip.address for ip in record.result.ips) if record.result else (),
        mac=veth.mac if veth else "",
        ports=a.ports,
    )
