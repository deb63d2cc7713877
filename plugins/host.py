"""Host network: the container has no network of its own, it shares the host's.

    host
    +-----------------------------+
    |  eth0  192.0.2.10/24        |
    |     |                       |
    |  container, no wall between |
    +-----------------------------+

Nothing is made, so that nothing is removed. The result tells what the host has, and the
record lets `netplug ps`, names and pictures show the container. What would need a
network of its own (ports, addresses, limits) is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from netplug.errors import ConfigError
from netplug.model import (
    Attachment,
    Facts,
    Interface,
    Lease,
    Network,
    Result,
    ResultAddress,
    Wanted,
)
from netplug.plan import Plan


@dataclass(frozen=True, slots=True)
class HostOptions:
    """A host network has no keys of its own."""


class HostDriver:
    name = "host"
    options = HostOptions

    def facts(self, network: Network) -> Wanted:
        return Wanted(host_network=True)

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        """Nothing; raises ConfigError for a container that has its own network, and for wishes
        that need one."""
        if not facts.shares_host:
            raise ConfigError(
                f"{attachment.container} cannot join the host network {network.name}",
                "it has a network namespace of its own, and a container gets the host's network"
                " from its engine, when it is started",
                "start it with --network host (podman, nerdctl, docker) or hostNetwork: true"
                " (Kubernetes)",
            )
        for what, asked, instead in _wishes(network, attachment):
            if asked:
                raise ConfigError(
                    f"{what} cannot be served on the host network {network.name}",
                    "the container uses the host's own interfaces and addresses",
                    instead,
                )
        return Plan()

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        return Plan()

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        """The host's interfaces, all in the container's namespace, and their addresses."""
        interfaces = tuple(
            Interface(link.name, link.mac, link.mtu, attachment.sandbox) for link in facts.links
        )
        addresses = tuple(
            ResultAddress(address, interface=index)
            for index, link in enumerate(facts.links)
            for address in link.addresses
            if not address.is_loopback
        )
        return Result(interfaces, addresses)


driver = HostDriver()


def _wishes(network: Network, attachment: Attachment) -> tuple[tuple[str, object, str], ...]:
    """What cannot apply: its name, whether it was asked for, and what to do instead."""
    change = "remove it, or use another network"
    return (
        ("'ipam'", network.ipam, "remove the key: the addresses are the host's"),
        ("published ports", attachment.ports, "remove them: every port is the host's already"),
        ("a requested address", attachment.addresses, change),
        ("a MAC", attachment.mac, change),
        ("an MTU", attachment.mtu, change),
        ("a bandwidth limit", attachment.bandwidth, change),
    )
