"""Which address each range set must give, when the runtime or the user asks for some. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from netplug.errors import ConfigError
from netplug.ipam.ranges import all_ranges, compute_pools, gateways, render_ranges
from netplug.model import IPAddress, Ipam, IPInterface, LeasedAddress


@dataclass(frozen=True, slots=True)
class Choice:
    """`fixed` addresses belong to no range set; `wanted` has one entry for each set."""

    fixed: tuple[LeasedAddress, ...]
    wanted: tuple[IPAddress | None, ...]


def compute_choice(ipam: Ipam, requested: Sequence[IPInterface | IPAddress]) -> Choice:
    """Requested addresses, each placed with the range set that holds it.

    A network without range sets takes requested addresses as they are; they need a
    prefix length then. With range sets the prefix is the subnet's, whatever was
    asked for (as host-local does). Raises ConfigError when an address fits nowhere
    or when nothing at all would be given.
    """
    fixed = [LeasedAddress(static.address, static.gateway) for static in ipam.addresses]
    pools = compute_pools(ipam)
    wanted: list[IPAddress | None] = [None] * len(pools)
    for request in requested:
        address = _plain(request)
        if address in wanted or any(address == one.address.ip for one in fixed):
            continue
        if not pools:
            fixed.append(LeasedAddress(_with_prefix(request)))
            continue
        index = next((i for i, pool in enumerate(pools) if address in pool), None)
        if index is None:
            raise _refusal(ipam, address)
        if wanted[index] is not None:
            raise ConfigError(
                f"address {address} cannot be given",
                f"{wanted[index]} is asked for too, and a range set gives one address",
                "ask for one of them, or put the second range into a set of its own",
            )
        wanted[index] = address
    if not fixed and not wanted:
        raise ConfigError(
            "ipam gives no address",
            "it has neither ranges nor addresses, and none was asked for",
            'add "ranges": [[{"subnet": "10.1.0.0/24"}]], or remove ipam for a network without'
            " addresses",
        )
    return Choice(tuple(fixed), tuple(wanted))


def _plain(request: IPInterface | IPAddress) -> IPAddress:
    return request.ip if isinstance(request, (IPv4Interface, IPv6Interface)) else request


def _with_prefix(request: IPInterface | IPAddress) -> IPInterface:
    if isinstance(request, (IPv4Interface, IPv6Interface)):
        return request
    raise ConfigError(
        f"address {request} cannot be given",
        "the network has no ranges, so its prefix length is unknown",
        f"ask for {request}/24 (with the right length), or add ranges to ipam",
    )


def _refusal(ipam: Ipam, address: IPAddress) -> ConfigError:
    """Why no range set can give this address."""
    what = f"address {address} cannot be given"
    if address in gateways(ipam):
        return ConfigError(what, "it is the gateway", "ask for another address")
    for one in all_ranges(ipam):
        for net in one.exclude:
            if address in net:
                return ConfigError(
                    what, f"ipam excludes {net} from {one.subnet}", "ask for another address"
                )
    return ConfigError(
        what,
        f"it lies outside every range of the network: {render_ranges(all_ranges(ipam))}",
        "ask for an address inside a range, or leave the choice to netplug",
    )
