"""What is decided before the kernel is touched: address, ports, subnets; all or nothing.

Everything here works inside one transaction of the state file (DESIGN of crash
safety: lease, ports and pending record commit together), or only reads; but for the addresses of
DHCP servers, which are asked for and given back outside of any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from sqlite3 import Connection
from typing import Any

from netplug import ipam, ports
from netplug.errors import Conflict, Unavailable
from netplug.host import Host
from netplug.kernel import Kernel, sockdiag
from netplug.model import DHCP, Attachment, Facts, Lease, Network, overlaps
from netplug.partners import ForeignIpam
from netplug.plan import Plan, from_json
from netplug.plugins import Driver
from netplug.resources.rules import Rules
from netplug.resources.upper import Upper
from netplug.state import Record, State

SUBNET = "subnet:"
DNS_PORT = 53


def commit(state: State, driver: Driver, network: Network, record: Record, facts: Facts) -> Record:
    """Lease, ports and pending record, in one transaction; the record with its whole plan.

    Raises Conflict or Exhausted, and then nothing is taken.
    """
    with state.transaction() as db:
        lease, record = describe(db, driver, network, record, facts)
        demand_no_overlap(state, record.host, record.plan, network)
        demand_unique_mac(db, record)
        reserve(db, record, lease)
        state.put(db, record)
    return record


def describe(
    db: Connection, driver: Driver, network: Network, record: Record, facts: Facts
) -> tuple[Lease, Record]:
    """The lease, and the record with plan and result that follow from it.

    Where somebody else gives the address it is unknown, and the plan is without it.
    """
    section = network.ipam
    ours = section is not None and not section.foreign and section.dhcp is None
    lease = allocate(db, network, record) if ours else Lease()
    return lease, complete(driver, network, record, lease, facts)


def complete(
    driver: Driver, network: Network, record: Record, lease: Lease, facts: Facts
) -> Record:
    """Pure: the record with what the lease adds to its plan, and the result.

    Resolver settings are the engine's, else the network's own, else IPAM's.
    """
    attachment = record.attachment
    more = driver.plan_network(network, attachment, lease, facts)
    result = replace(
        driver.result(network, attachment, lease, facts),
        dns=attachment.dns or network.dns or lease.dns,
    )
    return replace(record, plan=record.plan + more, result=result)


def allocate(db: Connection, network: Network, record: Record) -> Lease:
    assert network.ipam is not None
    return ipam.allocate(
        db,
        host=record.host,
        boot=record.boot,
        segment=network.segment,
        network=network.name,
        owner=record.owner,
        ipam=network.ipam,
        requested=record.attachment.addresses,
        now=record.since,
    )


def reserve(db: Connection, record: Record, lease: Lease) -> None:
    """The ports to publish, for the families that the lease serves. Raises Conflict."""
    wanted = ports.compute_host_ports(record.attachment.ports, lease.families)
    if wanted:
        ports.reserve(db, host=record.host, owner=record.owner, ports=wanted)


def claim_ports(state: State, host: Host, network: Network, attachment: Attachment) -> Attachment:
    """The attachment with the ports that it is to publish: not those which the container has
    published through another network. Raises Conflict where a process of the host listens
    on one (bind(2) rules)."""
    if not attachment.ports:
        return attachment
    wanted = ports.unclaimed(
        state.connection, host=host.id, owner=attachment.owner, ports=attachment.ports
    )
    sockets = ports.compute_host_ports(wanted, network.families)
    sockdiag.check_free(host.fd, sockets, container=attachment.container)
    return replace(attachment, ports=wanted)


def taken_questions(state: State, host: str, servers: tuple[str, ...]) -> Iterator[str]:
    """Warnings: a published port is taken before the name server's socket sees a question."""
    for entry in ports.publishers(state.connection, host=host, port=DNS_PORT):
        family, host_ip, protocol, _ = entry.port
        for server in map(ip_address, servers):
            meets = server.version == family and not server.is_loopback
            if meets and protocol != "sctp" and host_ip in (None, server):
                yield (
                    f"{entry.owner} publishes {entry.port}, so it gets the questions to {server}:"
                    " publish it on one address of the host instead"
                )


def demand_no_overlap(state: State, host: str, wanted: Plan, network: Network) -> None:
    """Overlapping subnets cannot be told apart by one host's routes and rules.

    One subnet may be shared by networks on one bridge: they use the same key.
    """
    for key, step in wanted.keys.items():
        if not key.startswith(SUBNET) or not isinstance(step, Rules) or state.is_used(host, key):
            continue
        subnet = ip_network(key.removeprefix(SUBNET))
        for other_key, other in state.used_keys(host, SUBNET):
            if overlaps(subnet, ip_network(other_key.removeprefix(SUBNET))):
                raise Conflict(
                    f"subnet {subnet} of network {network.name} overlaps"
                    f" {other_key.removeprefix(SUBNET)} of network {other}",
                    "one host cannot route both",
                    "choose another subnet",
                )


def demand_unique_mac(db: Connection, record: Record) -> None:
    """No other container of this host has the MAC on the same parent. Raises Conflict.

    The kernel would refuse to raise the second one, without a word about the first.
    """
    for step in record.plan:
        if not isinstance(step, Upper) or step.kind.name != "macvlan" or step.key is not None:
            continue
        rows = db.execute(
            "SELECT owner, plan FROM records WHERE host=? AND owner<>? AND instr(plan, ?)",
            (record.host, record.owner, f'"{step.mac}"'),
        )
        for owner, stored in rows:
            if any(
                isinstance(other, Upper) and (other.parent, other.mac) == (step.parent, step.mac)
                for other in from_json(json.loads(stored))
            ):
                raise Conflict(
                    f"MAC {step.mac} is in use on {step.parent}",
                    f"{owner} has it",
                    "choose another MAC, or detach that container",
                )


def demand_free_addresses(state: State, host: str, network: Network) -> None:
    """Every range set, which gives one address to each attachment, has one left."""
    if network.ipam is None or network.ipam.foreign or network.ipam.dhcp is not None:
        return
    usage = ipam.usage(state.connection, host=host, segment=network.segment, ipam=network.ipam)
    for number, range_set in enumerate(network.ipam.range_sets):
        if not any(one.free for one in usage if one.range_set == number):
            raise Unavailable(
                f"network {network.name} has no free address",
                f"all of {ipam.render_ranges(range_set)} is leased",
                f"see netplug ipam ls {network.name}; detach containers, run netplug gc,"
                " or widen the range",
            )


# --- addresses of DHCP servers


def dhcp_client(
    kernel: Kernel, state: State, host: str, *, network: Network, attachment: Attachment
) -> ForeignIpam | None:
    """Who asks a DHCP server for the addresses; None where it is not to be asked."""
    if network.ipam is None or network.ipam.dhcp is None:
        return None
    from netplug.dhcp.ipam import DhcpIpam  # few networks need it

    return DhcpIpam(
        kernel,
        state.transaction,
        state.folder,
        host=host,
        attachment=attachment,
        dhcp=network.ipam.dhcp,
    )


def give_back(kernel: Kernel, state: State, record: Record) -> None:
    """The DHCP server is told while the link that it gave the address to is there."""
    if not uses_dhcp(record.config):
        return
    from netplug.dhcp import ipam as client
    from netplug.dhcp import leases

    held = leases.get(state.connection, record.host, record.owner)
    if held is not None:
        client.give_back(kernel, record.attachment.ifname, held)


def uses_dhcp(config: dict[str, Any]) -> bool:
    """Does a network's configuration leave the addresses to a DHCP server?"""
    section = config.get("ipam")
    return isinstance(section, dict) and section.get("type") == DHCP
