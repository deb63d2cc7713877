"""macvlan: each container an interface of its own, with its own MAC, on a link of the host.

    LAN ---- eth1 (parent) ---- macvlan eth0 (container)
              |        `------- macvlan eth0 (container)
              |        `------- macvlan shim (host, with hostAccess)
             host

The containers are on the parent's LAN as the host itself is: no bridge, no NAT, no
gateway of ours, and at wire speed. By the kernel's design parent and macvlans do not
hear each other; with `hostAccess` the host gets a macvlan too, and a route to each
container through it. Every key of the reference `macvlan` plugin means the same here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network

from netplug.errors import ConfigError
from netplug.model import (
    Attachment,
    Facts,
    Lease,
    LinkFact,
    Network,
    Result,
    Route,
    Wanted,
    derived_mac,
    digest,
)
from netplug.plan import Plan
from netplug.plugins.macvlan_options import MacvlanOptions
from netplug.plugins.parent import (
    compute_mtu,
    find_parent,
    own_result,
    parent_facts,
    plan_own_inside,
    refuse,
    refuse_host_side,
)
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Routes, Sysctl
from netplug.resources.upper import Kind, Upper


class MacvlanDriver:
    name = "macvlan"
    options = MacvlanOptions

    def facts(self, network: Network) -> Wanted:
        options: MacvlanOptions = network.options
        return parent_facts(network, "macvlan", addresses=options.host_access)

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        """One link, born inside the container under its final name."""
        options: MacvlanOptions = network.options
        parent = find_parent(network, options.master, facts)
        refuse_host_side(network, attachment)
        refuse(network, _macs_in_the_way(options, attachment, parent))
        return Plan(
            (
                Upper(
                    attachment.ifname,
                    Kind(
                        "macvlan",
                        options.mode,
                        queue=options.bcqueuelen,
                        sources=tuple(sorted(mac.lower() for mac in options.source_macs)),
                    ),
                    parent.name,
                    _mac(options, attachment, parent),
                    compute_mtu(attachment, options.mtu, parent),
                    attachment.mark,
                    parent_place="sandbox" if options.link_in_container else "host",
                ),
            )
        )

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        """The container's inside; with `hostAccess` the host's own macvlan and a route to it."""
        options: MacvlanOptions = network.options
        inside = plan_own_inside(network, attachment, lease)
        if not options.host_access or not lease.addresses:
            return inside
        parent = find_parent(network, options.master, facts)
        return inside + Plan(tuple(_host_side(options, parent, lease)))

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        options: MacvlanOptions = network.options
        parent = find_parent(network, options.master, facts)
        return own_result(
            attachment,
            lease,
            mac=_mac(options, attachment, parent),
            mtu=compute_mtu(attachment, options.mtu, parent),
        )


driver = MacvlanDriver()


def _mac(options: MacvlanOptions, attachment: Attachment, parent: LinkFact) -> str:
    """The caller's wish, else the network's, else by identity; in passthru the parent's."""
    if options.mode == "passthru":
        return parent.mac
    return replace(attachment, mac=attachment.mac or options.mac.lower() or None).hardware_address


def _macs_in_the_way(
    options: MacvlanOptions, attachment: Attachment, parent: LinkFact
) -> Iterator[tuple[str, object, str, str]]:
    asked = attachment.mac or options.mac.lower()
    if options.mode == "passthru":
        why = f"a passthru interface has the MAC of its parent {parent.name}"
        yield "a MAC", asked, why, "remove it, or choose another 'mode'"
    else:
        why = "the parent itself has it"
        yield f"MAC {asked}", asked == parent.mac, why, "choose another one"


def _host_side(options: MacvlanOptions, parent: LinkFact, lease: Lease) -> Iterator[Resource]:
    """The host's macvlan has the parent's addresses again (or `hostAddresses`), and answers for
    them only those that it has a route to: the containers (arp_filter)."""
    shim = "shim" + digest("shim", parent.name)[:11]
    mac = derived_mac("shim", parent.name)
    yield Upper(
        shim, Kind("macvlan", "bridge"), parent.name, mac, 0, f"netplug/shim/{shim}", "host"
    )
    yield Sysctl("host", ((f"net/ipv4/conf/{shim}/arp_filter", "1"),))
    quiet = tuple((f"net/ipv6/conf/{shim}/{key}", "0") for key in ("accept_ra", "accept_dad"))
    yield Sysctl("host", quiet, optional=True)
    own = options.host_addresses or tuple(ip_interface(a.ip) for a in parent.addresses)
    for address in own:
        if any(address.ip == leased.address.ip for leased in lease.addresses):
            raise ConfigError(
                f"address {address.ip} is the host's and the container's",
                "'hostAddresses' or the parent interface has it, and 'ipam' leased it",
                "exclude it from the range ('exclude')",
            )
        yield Addresses("host", shim, (address,), shared=True)
    targets = tuple(Route(ip_network(leased.address.ip)) for leased in lease.addresses)
    yield Routes("host", shim, targets)
