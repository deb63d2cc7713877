"""From a parsed CNI request to the engine: the network, its foreign IPAM, the IPAM role.

Imported once a request needs work done; VERSION and the about text never come here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from netplug import admission, ipam, plugins
from netplug.cni.delegate import Delegate
from netplug.cni.network import parse_attachment
from netplug.cni.protocol import Request
from netplug.config import driver_name, parse_network
from netplug.engine import Engine
from netplug.errors import ConfigError
from netplug.host import Host, default_state_folder
from netplug.model import Lease, LeasedAddress, Network, Result
from netplug.state import State

Log = Callable[[str], None]
IPAM_NAME = "netplug-ipam"
PREFIX = "netplug-"


class ClosingEngine(Engine):
    """An engine that owns its state and host."""

    def close(self) -> None:
        self.state.close()
        self.host.close()


def open_engine(log: Log, folder: Any = None) -> ClosingEngine:
    return ClosingEngine(State(folder or default_state_folder()), Host(), log)


def is_ipam_call(request: Request, program: str) -> bool:
    """A main plugin executed us for its `ipam` section: by our IPAM name, or by an ipam type
    that is ours while the main type is not."""
    main_type = str(request.config.get("type", ""))
    ipam_type = str((request.config.get("ipam") or {}).get("type", ""))
    ours = main_type == "netplug" or main_type.startswith(PREFIX)
    return program == IPAM_NAME or (ipam_type in ("netplug", IPAM_NAME) and not ours)


def parse_own_network(request: Request, program: str, log: Log) -> tuple[Network, Foreign | None]:
    """The network of the request and, where its IPAM is not ours, the delegate."""
    config = dict(request.config)
    if program.startswith(PREFIX) and program != IPAM_NAME:
        config.setdefault("driver", program.removeprefix(PREFIX))
    driver = plugins.get_driver(driver_name(config))
    network, warnings = parse_network(config, driver.options)
    for warning in warnings:
        log(f"network {network.name}: {warning}")
    return network, make_foreign(request, network)


def make_foreign(request: Request, network: Network) -> Foreign | None:
    """The IPAM plugin of a network where it is not ours."""
    if network.ipam is None or not network.ipam.foreign:
        return None
    return Foreign(request, network.ipam.type)


class Foreign:
    """`engine.ForeignIpam` over the CNI exec interface."""

    def __init__(self, request: Request, kind: str) -> None:
        self._delegate = Delegate(request, kind)

    def add(self) -> Lease:
        result = self._delegate.add()
        addresses = tuple(LeasedAddress(ip.address, ip.gateway) for ip in result.ips)
        return Lease(addresses, result.routes, result.dns)

    def delete(self) -> None:
        self._delegate.run("DEL")

    def check(self) -> None:
        self._delegate.run("CHECK")

    def status(self) -> None:
        self._delegate.run("STATUS")

    def gc(self) -> None:
        self._delegate.run("GC")


def serve_ipam(request: Request, log: Log) -> Result | None:
    """Answers as an IPAM plugin: addresses and routes, no interfaces."""
    network = _parse_ipam_network(request, log)
    attachment = parse_attachment(request, network, via="ipam")
    engine = open_engine(log)
    try:
        if request.command == "ADD":
            return engine.lease(network, attachment)
        if request.command == "DEL":
            engine.delete(attachment)
        elif request.command == "CHECK":
            engine.check_lease(attachment)
        elif request.command == "GC":
            for owner in engine.gc(network.name, request.valid_attachments):
                log(f"released the addresses of {owner}")
        elif request.command == "STATUS":
            admission.demand_free_addresses(engine.state, engine.host.id, network)
    finally:
        engine.close()
    return None


def _parse_ipam_network(request: Request, log: Log) -> Network:
    section = request.config.get("ipam")
    if not isinstance(section, dict):
        raise ConfigError(
            "the key 'ipam' is missing", "this plugin was called as IPAM", 'add "ipam": {...}'
        )
    runtime = request.config.get("runtimeConfig") or {}
    parsed = ipam.parse_ipam(section, ip_ranges=runtime.get("ipRanges") or ())
    for key in ipam.unknown_keys(section):
        log(f"network {request.config['name']}: {key}")
    return Network(request.config["name"], "ipam", None, ipam=replace(parsed, type="netplug"))
