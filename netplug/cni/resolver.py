"""Resolver settings as JSON states them: in a network, in a result, in runtimeConfig."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from netplug.cni.reader import Reader
from netplug.model import Dns


def parse_dns(parent: Mapping[str, Any], reader: Reader) -> Dns:
    """The section `dns` of a result; what another plugin says of its servers is not judged."""
    dns = reader.mapping(parent.get("dns", {}), "dns")
    return Dns(
        nameservers=reader.texts(dns, "nameservers", "dns"),
        domain=reader.text(dns, "domain", "dns"),
        search=reader.texts(dns, "search", "dns"),
        options=reader.texts(dns, "options", "dns"),
    )


def parse_network_dns(config: Mapping[str, Any], reader: Reader) -> Dns:
    """The section `dns` of a configuration; raises ConfigError for a server without address."""
    dns = parse_dns(config, reader)
    _demand_addresses(dns, reader, "nameservers")
    return dns


def parse_runtime_dns(runtime: Mapping[str, Any], reader: Reader) -> Dns:
    """What overrides the network's; the CNI conventions have other keys for it, and no domain."""
    section = reader.mapping(runtime.get("dns", {}), "dns")
    dns = Dns(
        nameservers=reader.texts(section, "servers", "dns"),
        search=reader.texts(section, "searches", "dns"),
        options=reader.texts(section, "options", "dns"),
    )
    _demand_addresses(dns, reader, "servers")
    return dns


def _demand_addresses(dns: Dns, reader: Reader, key: str) -> None:
    for index, server in enumerate(dns.nameservers):
        reader.parse(ip_address, server, f"dns.{key}[{index}]")
