"""What the engine does as plugin `dnsname` of a chain: names for what another plugin attached.

The attachment has a record of its own beside that of the main plugin (owner .../names). Its
plan is what the name server stands on: the host's addresses of the network, and accepts for
questions in chains that would drop them. What is there already is used, and never removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface

from netplug.engine import Engine
from netplug.errors import CheckFailed
from netplug.firewall.intent import Accept
from netplug.kernel import Kernel
from netplug.model import Attachment, IPInterface, Network, Result
from netplug.plan import Plan
from netplug.resources import Resource
from netplug.resources.addresses import Addresses
from netplug.resources.rules import Rules
from netplug.state import Record


def add(engine: Engine, network: Network, attachment: Attachment, previous: Result) -> Result:
    """`previous` with the servers that know the names; as it is where nobody would answer.

    Raises Conflict for a living attachment, and leaves nothing behind then.
    """
    main = main_record(engine, attachment)
    if main is not None and main.config.get("names"):
        engine.log(
            f"network {network.name}: its plugin {main.config.get('type')} has names already"
            " (key 'names'); dnsname adds nothing"
        )
        return previous
    if main is not None and main.config.get("internal"):
        network = replace(network, raw={**network.raw, "internal": True})

    def describe(kernel: Kernel) -> tuple[Plan, Result]:
        steps = shared_steps(main) if main else compute_steps(engine, kernel, previous)
        return Plan(tuple(steps)), previous

    return engine.add_planned(network, attachment, describe)


def delete(engine: Engine, attachment: Attachment) -> None:
    """The names are gone when this returns, also the second time."""
    engine.delete(attachment)


def check(engine: Engine, attachment: Attachment) -> None:
    """Raises CheckFailed where the names are not there, or nobody would answer for them."""
    main = main_record(engine, attachment)
    if main is not None and main.config.get("names"):
        return
    engine.check(attachment)
    if fault := engine.names_fault():
        raise CheckFailed(f"nobody answers for {attachment.owner}", fault, "")


def main_record(engine: Engine, attachment: Attachment) -> Record | None:
    """The record of the chain's main plugin, where that is ours and gave the interface."""
    record = engine.state.get(engine.host.id, replace(attachment, via="cni").owner)
    return record if record is not None and record.plan.steps else None


def shared_steps(main: Record) -> Iterator[Resource]:
    """What the main plugin made, and we use with it."""
    for step in main.plan:
        gateway = isinstance(step, Addresses) and step.place == "host"
        if gateway or (isinstance(step, Rules) and isinstance(step.intent, Accept)):
            yield step


def compute_steps(engine: Engine, kernel: Kernel, previous: Result) -> Iterator[Resource]:
    """The gateways of `previous` that a link of the host in it really has."""
    backend = engine.host.choose_firewall("auto")
    for device, gateway in host_gateways(kernel, previous):
        yield Addresses("host", device, (gateway,), shared=True)
        yield Rules(backend, Accept(device, gateway.version, forward=False))


def host_gateways(kernel: Kernel, previous: Result) -> Iterator[tuple[str, IPInterface]]:
    wanted = {ip.gateway for ip in previous.ips}
    for interface in previous.interfaces:
        link = kernel.link(interface.name) if not interface.sandbox else None
        for held in kernel.addresses(link) if link else ():
            if ip_interface(held.interface).ip in wanted:
                yield interface.name, held.interface
