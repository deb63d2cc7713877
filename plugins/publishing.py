"""Published ports: from what was asked for to mappings that an address can serve."""

from __future__ import annotations

from netplug.errors import ConfigError
from netplug.firewall.intent import Mapping
from netplug.model import Attachment, Family, Lease


def compute_mappings(attachment: Attachment, lease: Lease) -> dict[Family, tuple[Mapping, ...]]:
    """Mappings by family. A mapping without host address serves every family of the lease.

    Raises ConfigError for one that no address of the container can serve.
    """
    targets = {leased.address.version: leased.address.ip for leased in reversed(lease.addresses)}
    found: dict[Family, list[Mapping]] = {}
    for port in attachment.ports:
        ip = port.host_ip
        if ip is not None and ip.version == 6 and ip.is_loopback:
            raise ConfigError(
                f"port {port.host_port} cannot be published on ::1",
                "the kernel does not route ::1 (there is no route_localnet for IPv6)",
                "publish on 127.0.0.1, or on an IPv6 address of the host",
            )
        families = [ip.version] if ip is not None else sorted(targets)
        for family in families:
            if family not in targets:
                raise ConfigError(
                    f"port {port.host_port} cannot be published on {ip}",
                    f"the container has no IPv{family} address",
                    "add a range of that family to 'ipam', or choose another host address",
                )
            found.setdefault(family, []).append(
                Mapping(
                    port.protocol,
                    port.host_port,
                    targets[family],
                    port.container_port,
                    None if ip is None or ip.is_unspecified else ip,
                )
            )
    if attachment.ports and not targets:
        raise ConfigError("ports cannot be published", "the container has no address", "set 'ipam'")
    return {family: tuple(mappings) for family, mappings in found.items()}


def serves_localhost(mapping: Mapping) -> bool:
    """Is the mapping reachable at 127.0.0.1 of the host?"""
    ip = mapping.host_ip
    return ip is None or ip.is_unspecified or ip.is_loopback
