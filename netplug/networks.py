"""Networks as files: a network is its conflist, which every CNI engine sees as well.

Pure choices (`compute_conflist`, `choose_subnet`) and the folders where files live.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from netplug import plugins
from netplug.cni.conflist import Conflist
from netplug.cni.protocol import check_network_name
from netplug.config import driver_name, is_ours, parse_network
from netplug.errors import ConfigError, Exhausted, NetplugError
from netplug.kernel import namespaces
from netplug.kernel.rtnl import Rtnl
from netplug.model import DHCP, IPNetwork, Network, digest, overlaps

ENGINE_FOLDER = "/etc/cni/net.d"
POOL: IPNetwork = ip_network("10.89.0.0/16")  # subnets are taken from here when none is asked for
POOL_PREFIX = 24
POOLED = ("bridge", "ptp", "dummy")  # drivers whose addresses are this host's affair alone
CAPABILITIES = ("portMappings", "ips", "ipRanges", "mac", "bandwidth", "aliases", "dns")
VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]  # podman 4 refuses a list that says 1.1.0 alone


@dataclass(frozen=True, slots=True)
class NewNetwork:
    """What a user says of a new network; the rest is chosen."""

    name: str
    driver: str = "bridge"
    subnets: tuple[IPNetwork, ...] = ()
    gateways: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    ipv6: bool = False
    masquerade: bool = True
    dhcp: bool = False
    dns: tuple[str, ...] = ()
    names: bool = True
    options: tuple[tuple[str, Any], ...] = ()  # driver options by their JSON key


def conf_folders(named: str | None, netconfpath: str | None, state: Path) -> tuple[str, ...]:
    """Where networks are looked up: --conf-dir alone, else NETCONFPATH or the engines' folder,
    then the private one that engines do not see."""
    if named:
        return (named,)
    return (netconfpath or ENGINE_FOLDER, private_folder(state))


def private_folder(state: Path) -> str:
    return str(state / "networks")


def choose_subnet(used: Iterable[IPNetwork]) -> IPNetwork:
    """The first /24 of 10.89.0.0/16 that overlaps nothing in use. Raises Exhausted."""
    taken = tuple(used)
    for candidate in POOL.subnets(new_prefix=POOL_PREFIX):
        if not any(overlaps(candidate, other) for other in taken):
            return candidate
    raise Exhausted(
        f"no free /{POOL_PREFIX} is left in {POOL}",
        "every one overlaps a route or network of this host",
        "name one with --subnet",
    )


def unique_local_subnet() -> IPNetwork:
    """A random /64 of fd00::/8 (RFC 4193)."""
    return ip_network((bytes([0xFD]) + secrets.token_bytes(5) + bytes(10), 64))


def bridge_name(network: str) -> str:
    """np-NETWORK, hashed where that is too long for a link."""
    name = f"np-{network}"
    return name if len(name.encode()) <= 15 else "np-" + digest("bridge", network)[:12]


def compute_conflist(new: NewNetwork) -> dict[str, Any]:
    """The file's content. Raises ConfigError for what does not fit together."""
    check_network_name(new.name)
    options = dict(new.options)
    plugin: dict[str, Any] = {"type": "netplug", "driver": new.driver}
    if new.driver == "bridge":
        plugin |= {
            "bridge": bridge_name(new.name),
            "isDefaultGateway": not new.dhcp,
            "ipMasq": new.masquerade and not new.dhcp and not options.get("internal", False),
            "hairpinMode": True,
            "mtu": "auto",
        }
    elif new.driver == "ptp":
        plugin["ipMasq"] = new.masquerade
    elif new.driver == "overlay":
        plugin |= {} if new.masquerade else {"ipMasq": False}
        if not new.subnets:
            raise ConfigError(
                "an overlay network needs a subnet",
                "all its nodes share the range, so that it cannot be chosen here",
                "add --subnet 10.200.0.0/16",
            )
        if new.gateways or new.ip_ranges:
            raise ConfigError(
                "an overlay network takes neither --gateway nor --ip-range",
                "each node leases from a subnet of its own, whose first address is the gateway",
                "remove the option",
            )
    plugin |= options
    if new.dhcp:
        _demand_no_ranges(new)
        plugin["ipam"] = {"type": DHCP}
    elif new.subnets:
        plugin["ipam"] = {"type": "netplug", "ranges": _ranges(new)}
        if routes := _default_routes(new):
            plugin["ipam"]["routes"] = routes
    if new.names and "names" not in options and (new.subnets or new.dhcp):
        plugin["names"] = True
    if new.dns:
        plugin["dns"] = {"nameservers": list(new.dns)}
    plugin["capabilities"] = dict.fromkeys(CAPABILITIES, True)
    conflist = {
        "cniVersion": "1.0.0",
        "cniVersions": VERSIONS,
        "name": new.name,
        "plugins": [plugin],
    }
    parse_network(
        {**plugin, "name": new.name}, plugins.get_driver(new.driver).options, strict_unknown=True
    )
    return conflist


def _demand_no_ranges(new: NewNetwork) -> None:
    if new.subnets or new.gateways or new.ip_ranges:
        raise ConfigError(
            "a DHCP server and subnets exclude each other",
            "the server gives addresses and names the gateway",
            "leave out --subnet, --gateway, --ip-range and --ipv6, or --dhcp",
        )


def _default_routes(new: NewNetwork) -> list[dict[str, str]]:
    """Where no driver makes them: with ptp always, else to each gateway that was named."""
    if new.driver == "bridge":
        return []
    named = new.subnets if new.driver == "ptp" else [ip_address(text) for text in new.gateways]
    families = sorted({item.version for item in named})
    return [{"dst": "0.0.0.0/0" if family == 4 else "::/0"} for family in families]


def _ranges(new: NewNetwork) -> list[list[dict[str, str]]]:
    """One range set for each subnet, with the gateway and the range that lie in it."""
    gateways = [ip_address(text) for text in new.gateways]
    spans = [_span(text) for text in new.ip_ranges]
    sets = []
    for subnet in new.subnets:
        entry = {"subnet": str(subnet)}
        for gateway in [g for g in gateways if g in subnet]:
            entry["gateway"] = str(gateway)
            gateways.remove(gateway)
        for start, end in [span for span in spans if span[0] in subnet]:
            entry |= {"rangeStart": str(start), "rangeEnd": str(end)}
            spans.remove((start, end))
        sets.append([entry])
    stray = [str(g) for g in gateways] + [f"{start}-{end}" for start, end in spans]
    if stray:
        raise ConfigError(
            f"{', '.join(stray)} lies in none of the subnets",
            f"there are {', '.join(map(str, new.subnets))}",
            "correct --gateway, --ip-range or --subnet",
        )
    return sets


def _span(text: str) -> tuple[Any, Any]:
    """START-END, or a CIDR, as first and last address."""
    try:
        if "/" in text:
            network = ip_network(text)
            return network[0], network[-1]
        start, _, end = text.partition("-")
        return ip_address(start), ip_address(end)
    except ValueError as error:
        raise ConfigError(
            f"IP range {text!r} is wrong", str(error), "write START-END or a CIDR"
        ) from error


def parse_subnets(texts: Sequence[str]) -> tuple[IPNetwork, ...]:
    found: list[IPNetwork] = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            fix = ""
            try:
                fix = f"did you mean {ip_interface(text).network}?"
            except ValueError:
                fix = "write it as 10.1.0.0/24"
            raise ConfigError(f"subnet {text!r} is wrong", str(error), fix) from error
    return tuple(found)


def parse_conflist_network(conflist: Conflist) -> tuple[Network, list[str]]:
    """The network of a file with one plugin, ours. Raises ConfigError for another chain."""
    types = [str(plugin.get("type", "")) for plugin in conflist.plugins]
    if len(types) != 1 or not is_ours(types[0]):
        raise ConfigError(
            f"network {conflist.name} is not netplug's alone",
            f"its plugins are {', '.join(types)} ({conflist.path})",
            "netplug connects networks of one netplug plugin; cnitool runs other chains",
        )
    config = conflist.request_config()
    return parse_network(config, plugins.get_driver(driver_name(config)).options)


def subnets_of(network: Network) -> tuple[IPNetwork, ...]:
    if network.ipam is None:
        return ()
    return tuple(one.subnet for range_set in network.ipam.range_sets for one in range_set)


def read_used_subnets(networks: list[Conflist]) -> list[IPNetwork]:
    """Subnets of other networks and what this host has routes to."""
    used: list[IPNetwork] = []
    for conflist in networks:
        try:
            used += subnets_of(parse_conflist_network(conflist)[0])
        except NetplugError:
            continue
    own = namespaces.own_namespace()
    rtnl = Rtnl(own)
    try:
        used += [route.dst for route in rtnl.routes() if route.dst.prefixlen]
    finally:
        rtnl.close()
        namespaces.close(own)
    return used
