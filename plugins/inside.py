"""What every driver does inside the container: settings, addresses, routes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from netplug.model import Attachment, Family, IPAddress, IPNetwork, Lease, Route
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Routes, Sysctl

DEFAULT: dict[Family, IPNetwork] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

ON_LINK = (253, 254)  # scopes link and host: the kernel refuses a gateway there


def plan_inside(
    attachment: Attachment,
    lease: Lease,
    routes: tuple[Route, ...],
    *,
    dad: bool = False,
    up: bool = True,
    sysctl: dict[str, str] | None = None,
) -> tuple[Resource, ...]:
    """The interface with its addresses, up, loopback too, then its routes.

    `dad`: wait for IPv6 duplicate address detection. `sysctl`: further settings, IFNAME
    standing for the interface's name.
    """
    addresses = tuple(leased.address for leased in lease.addresses)
    settings = compute_sysctls(attachment.ifname, lease, dad=dad, more=sysctl or {})
    steps: list[Resource] = [
        Sysctl("sandbox", settings),
        Addresses("sandbox", "lo", ()),
        Addresses("sandbox", attachment.ifname, addresses, dad=dad, up=up),
    ]
    if routes:
        steps.append(Routes("sandbox", attachment.ifname, routes))
    return tuple(steps)


def compute_sysctls(
    ifname: str, lease: Lease, *, dad: bool, more: dict[str, str]
) -> tuple[tuple[str, str], ...]:
    """Neighbours learn of us at once (arp_notify, ndisc_notify); IPv6 is on, and without DAD
    an address serves from the first packet."""
    values = {f"net/ipv4/conf/{ifname}/arp_notify": "1"}
    if 6 in lease.families:
        detection = "1" if dad else "0"
        values |= {
            "net/ipv6/conf/lo/disable_ipv6": "0",
            f"net/ipv6/conf/{ifname}/disable_ipv6": "0",
            f"net/ipv6/conf/{ifname}/accept_dad": detection,
            f"net/ipv6/conf/{ifname}/enhanced_dad": detection,
            f"net/ipv6/conf/{ifname}/keep_addr_on_down": "1",
            f"net/ipv6/conf/{ifname}/ndisc_notify": "1",
        }
    for key, value in more.items():
        values[key.replace(".", "/").replace("IFNAME", ifname, 1)] = value
    return tuple(values.items())


def compute_routes(
    lease: Lease, gateways: dict[Family, IPAddress], *, default: bool
) -> tuple[Route, ...]:
    """IPAM's routes, through their family's gateway where they name none and reach beyond the
    link; with `default`, a default route for each family that has none with a gateway."""
    routes = [
        route
        if route.gw or route.scope in ON_LINK
        else replace(route, gw=gateways.get(route.dst.version))
        for route in lease.routes
    ]
    if default:
        for family, gateway in sorted(gateways.items()):
            if not any(route.dst == DEFAULT[family] and route.gw for route in routes):
                routes.append(Route(DEFAULT[family], gateway))
    return tuple(dict.fromkeys(routes))
