"""A simulated host for firewall tests, and the few things that its inhabitants do.

    out (192.0.2.2) ---- eth0 host ---- br0: one (10.1.0.2), two (10.1.0.3)
                              `-------- br1: three (10.2.0.2)

IPv6 likewise: fd00:9::2, fd00:1::2, fd00:1::3, fd00:2::2. Everything is built by `ip`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from netplug.firewall import Firewall
from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Mapping,
    Publish,
    Subnet,
)
from netplug.model import Family, Protocol

PATIENCE = 0.4  # seconds until silence counts as a drop: everything here is one machine
SUBNETS: dict[str, dict[Family, str]] = {
    "br0": {4: "10.1.0.0/24", 6: "fd00:1::/64"},
    "br1": {4: "10.2.0.0/24", 6: "fd00:2::/64"},
}
HOST: dict[Family, str] = {4: "192.0.2.1", 6: "fd00:9::1"}
ONE: dict[Family, str] = {4: "10.1.0.2", 6: "fd00:1::2"}
TWO: dict[Family, str] = {4: "10.1.0.3", 6: "fd00:1::3"}
THREE: dict[Family, str] = {4: "10.2.0.2", 6: "fd00:2::2"}
OUT: dict[Family, str] = {4: "192.0.2.2", 6: "fd00:9::2"}
ANY: dict[Family, str] = {4: "0.0.0.0", 6: "::"}
OWNER = "0123456789abcdef01234567"
OTHER = "fedcba98765432100fedcba9"


@dataclass(frozen=True)
class World:
    """The five namespaces (a Host of conftest)."""

    host: Any
    one: Any
    two: Any
    three: Any
    out: Any


def build_world(host: Any) -> World:
    one, two, three, out = (host.container(name) for name in ("one", "two", "three", "out"))
    ports = ((one, "br0", 1, 2), (two, "br0", 1, 3), (three, "br1", 2, 2))
    lines = [
        # Another index than the peer's, or the kernel tells of the carrier up to a second late.
        f"link add eth0 index 100 type veth peer name eth0 netns {out.name}",
        "address add 192.0.2.1/24 dev eth0",
        "address add 192.0.2.10/24 dev eth0",
        "address add fd00:9::1/64 dev eth0",
        "link set eth0 up",
    ]
    for number, bridge in ((1, "br0"), (2, "br1")):
        lines += [
            f"link add {bridge} type bridge",
            f"link set {bridge} up",
            f"address add 10.{number}.0.1/24 dev {bridge}",
            f"address add fd00:{number}::1/64 dev {bridge}",
        ]
    for part, bridge, number, last in ports:
        port = f"v{number}{last}"
        lines += [
            f"link add {port} master {bridge} up type veth peer name eth0 netns {part.name}",
            f"link set {port} type bridge_slave hairpin on",  # for a container's own port
        ]
    _configure(host, "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", lines)
    host.run("sysctl -qw net.ipv4.conf.br0.route_localnet=1 net.ipv4.conf.br1.route_localnet=1")
    for part, _, number, last in ports:
        _inhabit(part, f"10.{number}.0.{last}", f"fd00:{number}::{last}", "default")
    _inhabit(out, OUT[4], OUT[6], "10.0.0.0/8", "fd00::/16")
    for place in (host, one, two, three, out):
        _await_links(place)
    return World(host, one, two, three, out)


def _inhabit(place: Any, v4: str, v6: str, *routes: str) -> None:
    gateways = (v4[: v4.rindex(".")] + ".1", v6[: v6.rindex(":")] + ":1")
    lines = [f"address add {v4}/24 dev eth0", f"address add {v6}/64 dev eth0", "link set eth0 up"]
    lines += [
        f"route add {route} via {gateway}"
        for route, gateway in zip((routes * 2)[:2], gateways, strict=True)
    ]
    _configure(place, "net.ipv6.conf.eth0.accept_dad=0", lines)


def _configure(place: Any, sysctls: str, lines: list[str]) -> None:
    """One `ip -batch`; without DAD, so that addresses (link-local ones too) work at once."""
    no_dad = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"
    batch = "\n".join(lines)
    place.run(f"sysctl -qw {no_dad} {sysctls} && ip -batch - <<'END'\n{batch}\nEND")


def _await_links(place: Any) -> None:
    """The kernel tells IPv6 of a carrier up to a second late (linkwatch)."""
    deadline = time.monotonic() + 5
    while "state DOWN" in (links := place.run("ip -o link")) or "LOWERLAYERDOWN" in links:
        assert time.monotonic() < deadline, links
        time.sleep(0.01)


def network(bridge: str = "br0", *, masquerade: bool = True, **policy: Any) -> list[Intent]:
    """The intents of a bridge network, both families."""
    families: tuple[Family, ...] = (4, 6)
    steps: list[Intent] = []
    for family in families:
        subnet = ip_network(SUBNETS[bridge][family])
        steps += [
            Base(family),
            BridgePolicy(bridge, family, **policy),
            Subnet(subnet, bridge, masquerade),
            Accept(bridge, family),
        ]
    return steps


def publish(
    port: int,
    to: str,
    to_port: int,
    protocol: Protocol = "tcp",
    *,
    host_ip: str = "",
    owner: str = OWNER,
) -> Publish:
    address = ip_address(to)
    host = ip_address(host_ip) if host_ip else None
    return Publish(owner, address.version, (Mapping(protocol, port, address, to_port, host),))


def apply(firewall: Firewall, *steps: Intent) -> None:
    for step in steps:
        firewall.apply(step)


def _domain(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def dial(client: Any, to: tuple[str, int], server: Any, port: int, *, bind: str = "") -> str | None:
    """A TCP connection: the client's address as the server sees it, None when nothing came."""
    domain = _domain(to[0])
    listener = server.call(
        lambda: socket.create_server((bind or ANY[6 if ":" in to[0] else 4], port), family=domain)
    )

    def connect() -> bool:
        with socket.socket(domain, socket.SOCK_STREAM) as stream:
            stream.settimeout(PATIENCE)
            try:
                stream.connect(to)
            except OSError:
                return False
            return True

    with listener:
        if not client.call(connect):
            return None
        listener.settimeout(PATIENCE)
        stream, peer = listener.accept()
        stream.close()
        return str(peer[0])


def udp_socket(place: Any, address: str, port: int = 0) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(_domain(address), socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(PATIENCE)
        return made

    made: socket.socket = place.call(make)
    return made


def echo(client: socket.socket, to: tuple[str, int], server: socket.socket) -> str | None:
    """A datagram and its answer: the client's address as the server sees it, None for silence."""
    try:
        client.sendto(b"question", to)
        while select.select([server], [], [], PATIENCE)[0]:
            _, peer = server.recvfrom(100)
            server.sendto(b"answer", peer)
            client.recv(100)
            return str(peer[0])
    except OSError:
        pass
    return None


def ask(client: Any, to: tuple[str, int], server: Any, port: int) -> str | None:
    """`echo` with fresh sockets."""
    any_ = ANY[6 if ":" in to[0] else 4]
    with udp_socket(client, any_) as asking, udp_socket(server, any_, port) as answering:
        return echo(asking, to, answering)


def sctp_init(source: int, destination: int) -> bytes:
    """An SCTP packet with one INIT chunk and a right checksum (RFC 9260, 3.3.2)."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 0x5678)
    packet = struct.pack("!HHII", source, destination, 0, 0) + chunk
    return packet[:8] + struct.pack("<I", crc32c(packet)) + packet[12:]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
