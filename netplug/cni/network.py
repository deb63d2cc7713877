"""What the caller of ADD asks for one attachment, gathered from the three side channels.

CNI_ARGS, `args.cni` and `runtimeConfig` can all name a MAC or addresses. For a MAC the
last of them wins; addresses accumulate; for bandwidth the configuration beats the caller
(as the reference plugins bridge, host-local and bandwidth do).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from netplug.cni.golang import parse_cidr, parse_ip, parse_mac
from netplug.cni.protocol import Request
from netplug.cni.reader import Reader, join
from netplug.cni.resolver import parse_runtime_dns
from netplug.cni.schema import BANDWIDTH
from netplug.errors import NetplugError
from netplug.model import (
    Attachment,
    Bandwidth,
    Dns,
    IPAddress,
    IPInterface,
    Network,
    Port,
    Protocol,
    Via,
)

T = TypeVar("T")
BURST_LIMIT = (2**32 - 1) * 8  # bits: tbf takes the burst as 32 bits of bytes
RATE_LIMIT = 2**64 - 1  # bits/s
MTU_RANGE = (68, 65535)  # bytes: RFC 791's minimum; IP's longest packet
_PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp", "sctp")


def parse_attachment(request: Request, network: Network, *, via: Via = "cni") -> Attachment:
    """The attachment that a request is about. Raises ConfigError naming the wrong value.

    For other verbs than ADD a wrong value is ignored: it must not hinder a clean-up.
    """
    config = request.config
    strict = request.command == "ADD"

    def field(parse: Callable[[], T], default: T) -> T:
        try:
            return parse()
        except NetplugError:
            if strict:
                raise
            return default

    nothing: Mapping[str, Any] = {}
    args = field(lambda: _section(config, "args", "cni"), nothing)
    runtime = field(lambda: _section(config, "runtimeConfig"), nothing)
    return Attachment(
        network=network.name,
        container=request.container,
        ifname=request.ifname,
        sandbox=request.netns,
        name=request.args.get("K8S_POD_NAME", ""),
        mac=field(lambda: parse_macs(request.args, args, runtime), None),
        mtu=field(lambda: _parse_mtu(args), None),
        addresses=field(lambda: parse_addresses(request.args, args, runtime), ()),
        ports=field(lambda: parse_ports(runtime), ()),
        bandwidth=field(lambda: parse_bandwidth(config, runtime), Bandwidth()),
        aliases=field(lambda: parse_aliases(runtime, network.name), ()),
        dns=field(lambda: parse_runtime_dns(runtime, _RUNTIME), Dns()),
        via=via,
    )


_RUNTIME = Reader("runtimeConfig")
_ARGS_CNI = Reader("args.cni")
_CNI_ARGS = Reader("CNI_ARGS")
_CONFIG = Reader("")


def _section(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The object at a path of keys; empty where absent."""
    at = ""
    for key in keys:
        at = join(at, key)
        config = _CONFIG.mapping(config.get(key, {}), at)
    return config


def parse_macs(
    args: Mapping[str, str], args_cni: Mapping[str, Any], runtime: Mapping[str, Any]
) -> str | None:
    """The MAC that was asked for last: CNI_ARGS < args.cni < runtimeConfig."""
    found = [
        _CNI_ARGS.optional(parse_mac, args, "MAC"),
        _ARGS_CNI.optional(parse_mac, args_cni, "mac"),
        _RUNTIME.optional(parse_mac, runtime, "mac"),
    ]
    return next((mac for mac in reversed(found) if mac), None)


def _parse_mtu(args_cni: Mapping[str, Any]) -> int | None:
    mtu = _ARGS_CNI.number(args_cni, "mtu")
    least, most = MTU_RANGE
    if mtu and not least <= mtu <= most:
        raise _ARGS_CNI.wrong("mtu", mtu, f"is not between {least} and {most} bytes")
    return mtu or None


def parse_addresses(
    args: Mapping[str, str], args_cni: Mapping[str, Any], runtime: Mapping[str, Any]
) -> tuple[IPInterface | IPAddress, ...]:
    """All requested addresses, in the order CNI_ARGS, args.cni, runtimeConfig, each once.

    An address that is named both with and without its prefix length keeps it.
    """
    found: dict[IPAddress, IPInterface | IPAddress] = {}

    def add(reader: Reader, path: str, value: Any) -> None:
        address = reader.parse(_address, value, path)
        if isinstance(address, IPInterface):  # tested first: it is a kind of address too
            found[address.ip] = address
        else:
            found.setdefault(address, address)

    for text in filter(None, args.get("IP", "").split(",")):
        add(_CNI_ARGS, "IP", text.strip())
    for reader, section in ((_ARGS_CNI, args_cni), (_RUNTIME, runtime)):
        for path, item in reader.items(section, "ips"):
            add(reader, path, item)
    return tuple(found.values())


def _address(text: str) -> IPInterface | IPAddress:
    return parse_cidr(text) if "/" in text else parse_ip(text)


def parse_ports(runtime: Mapping[str, Any]) -> tuple[Port, ...]:
    """The port mappings, each once; those with hostPort 0 mean "not published" (Kubernetes).

    A hostIP of 0.0.0.0 or :: stays as it is: any address, of that family alone.
    """
    ports: dict[tuple[IPAddress | None, Protocol, int], Port] = {}
    for path, item in _RUNTIME.items(runtime, "portMappings"):
        port = _parse_port(_RUNTIME.mapping(item, path), path)
        if port is None:
            continue
        key = port.host_ip, port.protocol, port.host_port
        if ports.setdefault(key, port) != port:
            raise _RUNTIME.wrong(
                path,
                item,
                f"maps host port {port.host_port}/{port.protocol} a second time",
                "map each host port once",
            )
    return tuple(ports.values())


def _parse_port(entry: Mapping[str, Any], path: str) -> Port | None:
    host_port = _RUNTIME.number(entry, "hostPort", path, most=65535)
    if not host_port:
        return None
    container_port = _RUNTIME.number(entry, "containerPort", path, most=65535)
    if not container_port:
        raise _RUNTIME.wrong(join(path, "containerPort"), container_port, "is not 1 to 65535")
    name = (_RUNTIME.text(entry, "protocol", path) or "tcp").lower()
    protocol = next((known for known in _PROTOCOLS if known == name), None)
    if protocol is None:
        raise _RUNTIME.wrong(
            join(path, "protocol"), name, "is no protocol with ports", "use tcp, udp or sctp"
        )
    return Port(
        host_port=host_port,
        container_port=container_port,
        protocol=protocol,
        host_ip=_RUNTIME.optional(parse_ip, entry, "hostIP", path),
    )


def parse_bandwidth(config: Mapping[str, Any], runtime: Mapping[str, Any]) -> Bandwidth:
    """The limits of the configuration if it has any, else those of runtimeConfig.bandwidth.

    Bursts are cut to what the kernel can hold: Kubernetes asks for the longest there is.
    """
    reader, entry, at = _CONFIG, config, ""
    if not any(key in config for key in BANDWIDTH):
        reader, at = _RUNTIME, "bandwidth"
        entry = reader.mapping(runtime.get(at, {}), at)
    limits: dict[str, int] = {}
    for direction in ("ingress", "egress"):
        rate = reader.number(entry, f"{direction}Rate", at, most=RATE_LIMIT) or 0
        burst = reader.number(entry, f"{direction}Burst", at, most=RATE_LIMIT) or 0
        if burst and not rate:
            raise reader.wrong(
                join(at, f"{direction}Burst"),
                burst,
                f"is a burst without {direction}Rate",
                f"set {direction}Rate (bits per second) too",
            )
        limits[f"{direction}_rate"] = rate
        limits[f"{direction}_burst"] = min(burst, BURST_LIMIT)
    return Bandwidth(**limits)


def parse_aliases(runtime: Mapping[str, Any], network: str) -> tuple[str, ...]:
    """Names under `aliases`: a list, or an object with a list for each network (podman)."""
    aliases = runtime.get("aliases")
    if isinstance(aliases, dict):
        return _unique(_RUNTIME.texts(aliases, network, "aliases"))
    return _unique(_RUNTIME.texts(runtime, "aliases"))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, names)))
