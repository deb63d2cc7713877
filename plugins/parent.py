"""The link below, and what drivers share whose containers' packets pass by the host."""

from __future__ import annotations

from collections.abc import Iterable

from netplug.errors import ConfigError, NotFound, UnsupportedError
from netplug.model import (
    Attachment,
    Facts,
    Family,
    Interface,
    IPAddress,
    Lease,
    LinkFact,
    Network,
    Result,
    ResultAddress,
    Route,
    Wanted,
)
from netplug.plan import Plan
from netplug.plugins.inside import compute_routes, plan_inside

MTU_LIMIT = 65535


def parent_facts(network: Network, kind: str, *, addresses: bool = False) -> Wanted:
    """The parent, on the host or (`linkInContainer`) inside, and whether the kernel has such
    links. `addresses`: the parent's own too."""
    options = network.options
    return Wanted(
        links=(options.master,) if options.master else (),
        place="sandbox" if options.link_in_container else "host",
        egress=not options.master,
        addresses=addresses,
        kind=kind,
    )


def find_parent(network: Network, master: str, facts: Facts) -> LinkFact:
    """The network's `master`, else the interface of the default route. Raises UnsupportedError
    for a kind of link that this kernel lacks, NotFound for a parent that is not there."""
    demand_kind(network, facts)
    if master == "lo":
        raise ConfigError("'master' is lo", "loopback has no link layer", "name another interface")
    found = facts.link(master) if master else facts.egress
    if found is not None:
        return found
    if master:
        raise NotFound(
            f"interface {master} is gone",
            f"it is the 'master' of network {network.name}",
            "bring it back, or set 'master' to one that ip link shows",
        )
    raise NotFound(
        f"network {network.name} has no parent interface",
        "'master' is not set, and there is no default route whose interface could serve",
        "set 'master' to the interface to live on",
    )


def demand_kind(network: Network, facts: Facts) -> None:
    """Raises UnsupportedError where the kernel has no links of the driver's kind."""
    if not facts.kind_known:
        raise UnsupportedError(
            f"driver {network.driver!r} cannot be served",
            f"this kernel has no {network.driver} links (CONFIG_{network.driver.upper()})",
            "use a kernel that has them, or another 'driver'",
        )


def demand_addresses(network: Network, *, dhcp: bool = True) -> None:
    """For kinds of link that are no use without; `dhcp`: a server can be reached through it.
    Raises ConfigError."""
    if network.ipam is not None and network.ipam.dhcp is not None and not dhcp:
        raise ConfigError(
            f"no DHCP server can be on network {network.name}",
            f"an interface of driver {network.driver!r} leads to no other host",
            "let 'ipam' lease from ranges",
        )
    if network.ipam is None:
        raise ConfigError(
            f"network {network.name} gives no addresses",
            f"an interface of driver {network.driver!r} needs one",
            """add "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.1.0.0/24"}]]}""",
        )


def compute_mtu(attachment: Attachment, mtu: int, parent: LinkFact) -> int:
    """Bytes: what was asked for, else the parent's. Raises ConfigError above the parent's."""
    wanted = attachment.mtu or mtu or parent.mtu
    if wanted > parent.mtu:
        raise ConfigError(
            f"'mtu' is {wanted}",
            f"the parent interface {parent.name} has {parent.mtu}, and what lives on it no more",
            f"lower 'mtu', or run: ip link set {parent.name} mtu {wanted}",
        )
    return wanted


def demand_mtu(mtu: int) -> None:
    if mtu and not 68 <= mtu <= MTU_LIMIT:
        raise ConfigError(
            f"'mtu' is {mtu}", f"it must be 0 (the parent's) or 68 to {MTU_LIMIT}", "correct it"
        )


def demand_mac(key: str, mac: str) -> None:
    """Six octets, of one station (IEEE 802: the lowest bit of the first octet is 0)."""
    octets = mac.split(":")
    hexadecimal = all(len(octet) == 2 and octet.isalnum() for octet in octets)
    try:
        well_formed = len(octets) == 6 and hexadecimal and not bytes.fromhex("".join(octets))[0] & 1
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ConfigError(
            f"'{key}' has {mac!r}",
            "that is no MAC of one station",
            "write six octets such as 02:00:00:00:00:01, the first of them even",
        )


def refuse(network: Network, wishes: Iterable[tuple[str, object, str, str]]) -> None:
    """(what, whether it is asked for, why not, what to do instead); raises ConfigError."""
    for what, asked, why, instead in wishes:
        if asked:
            raise ConfigError(f"{what} cannot be served on network {network.name}", why, instead)


def refuse_host_side(network: Network, attachment: Attachment) -> None:
    """Ports and limits work on the host's end of a cable, and there is none."""
    around = f"the container's packets pass by the host ({network.driver})"
    refuse(
        network,
        (
            (
                "published ports",
                attachment.ports,
                f"the container is reached at its own address, and {around}",
                "remove them; or use a bridge network",
            ),
            (
                "a bandwidth limit",
                attachment.bandwidth,
                around,
                "remove it; or use a bridge network",
            ),
        ),
    )


def compute_own_routes(lease: Lease) -> tuple[Route, ...]:
    """IPAM's routes, through its gateways."""
    gateways: dict[Family, IPAddress] = {}
    for leased in lease.addresses:
        if leased.gateway is not None:
            gateways.setdefault(leased.gateway.version, leased.gateway)
    return compute_routes(lease, gateways, default=False)


def plan_own_inside(network: Network, attachment: Attachment, lease: Lease) -> Plan:
    """All there is to do where the host routes nothing: the container's inside."""
    routes = compute_own_routes(lease)
    return Plan(plan_inside(attachment, lease, routes, sysctl=network.options.sysctl))


def own_result(attachment: Attachment, lease: Lease, *, mac: str, mtu: int) -> Result:
    """The container's interface alone, as the reference plugins of these kinds answer."""
    inner = Interface(attachment.ifname, mac, mtu, attachment.sandbox)
    addresses = tuple(ResultAddress(a.address, a.gateway, interface=0) for a in lease.addresses)
    return Result((inner,), addresses, compute_own_routes(lease))
