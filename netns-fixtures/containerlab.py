"""Topologies to and from containerlab's files, as far as plain Linux goes.

Kinds `linux` and `bridge`, links with two endpoints, and the `exec` lines that give addresses,
routes, forwarding and NAT. Sources: containerlab's manual, "Topology definition", "Nodes"
(network-mode, sysctls, exec), "Kinds: bridge" (the bridge must exist on the host).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from netplug.errors import ConfigError
from netplug.fixtures.commands import NodeFacts, read_command
from netplug.fixtures.infer import TAKEN, interface_name
from netplug.fixtures.schema import NAME, did_you_mean, parse_yaml
from netplug.fixtures.topology import (
    DEFAULT_MTU,
    WIRE,
    End,
    Link,
    Node,
    StaticRoute,
    Switch,
    Topology,
)
from netplug.model import derived_mac, link_name_fault

IMAGE = "nicolaka/netshoot"  # has ip and iptables
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
NODE_KEYS = {"kind", "image", "exec", "sysctls", "network-mode", "group"}
LINK_KEYS = {"endpoints", "mtu", "type"}


@dataclass(frozen=True, slots=True)
class Imported:
    """A topology, and in words what could not be taken over."""

    topology: Topology
    warnings: tuple[str, ...] = ()


def export_containerlab(topology: Topology, *, image: str = IMAGE) -> str:
    """The YAML of a containerlab topology file; what it cannot say stands in comments."""
    lines = [f"# {line}".rstrip() for line in topology.about.splitlines()]
    bridges = {switch.name: switch.bridge for switch in topology.switches}
    for bridge in bridges.values():
        lines.append(f"# sudo ip link add {bridge} type bridge && sudo ip link set {bridge} up")
    for link in topology.links:
        lines += _comments(link, bridges)
    lines += [f"name: {_scalar(topology.name)}", "topology:", "  nodes:"]
    if not topology.nodes and not bridges:
        lines[-1] += " {}"
    for bridge in bridges.values():
        lines += [f"    {_scalar(bridge)}:", "      kind: bridge"]
    for node in topology.nodes:
        lines += [f"    {_scalar(node.name)}:", "      kind: linux", f"      image: {image}"]
        lines.append("      network-mode: none  # else eth0 is its management network")
        commands = [json.dumps(command) for command in _commands(topology, node)]
        lines += ["      exec:", *(f"        - {command}" for command in commands)]
    lines.append("  links:" if topology.links else "  links: []")
    for link in topology.links:
        ends = (f"{bridges.get(end.at, end.at)}:{end.interface}" for end in link.ends)
        lines.append(f"    - endpoints: [{', '.join(json.dumps(end) for end in ends)}]")
        if link.mtu != DEFAULT_MTU:
            lines.append(f"      mtu: {link.mtu}")
    return "\n".join(lines) + "\n"


def _scalar(name: str) -> str:
    """A name as YAML: in quotes where YAML would read something else."""
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _comments(link: Link, bridges: Mapping[str, str]) -> Iterator[str]:
    for end in link.ends:
        if link.loss and end.at not in bridges:
            yield (
                f"# containerlab tools netem set -n {end.at} -i {end.interface}"
                f" --loss {link.loss:g}"
            )
    if not link.up and all(end.at in bridges for end in link.ends):
        yield f"# sudo ip link set {link.a.interface} down"


def _commands(topology: Topology, node: Node) -> Iterator[str]:
    """What gives a node its addresses and routes, in an order that the kernel takes."""
    ends = topology.ends(node.name)
    down = {
        end.interface
        for link in topology.links
        for end in link.ends
        if end.at == node.name and not link.up
    }
    forward = int(node.kind == "router")
    yield f"sysctl -w {FORWARDING[4]}={forward}"
    if forward and any(a.version == 6 for end in ends for a in end.addresses):
        yield f"sysctl -w {FORWARDING[6]}=1"
    for end in ends:
        yield f"ip link set dev {end.interface} address {end.mac}"
        for address in end.addresses:
            nodad = " nodad" if address.version == 6 else ""
            yield f"ip addr add {address} dev {end.interface}{nodad}"
        state = "down" if end.interface in down else "up"
        yield f"ip link set dev {end.interface} {state}"
    for route in node.routes:
        family = " -6" if route.destination.version == 6 else ""
        yield f"ip{family} route replace {route.destination} via {route.gateway}"
    if node.nat is not None:
        yield f"iptables -t nat -A POSTROUTING -o {node.nat} -j MASQUERADE"


def import_containerlab(text: str, *, source: str = "containerlab file") -> Imported:
    """The topology of a containerlab file; whatever it cannot hold is named in `warnings`.

    Raises ConfigError where the text is no containerlab topology.
    """
    data = parse_yaml(text, source=source)
    inner = data.get("topology") if isinstance(data, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("nodes"), dict):
        why = "the keys 'topology' and 'nodes' in it are expected"
        raise ConfigError(f"{source} is no containerlab topology", why)
    return _Reader(source, data, inner).read()


@dataclass(slots=True)
class _Reader:
    source: str
    data: dict[str, Any]
    inner: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, NodeFacts] = field(default_factory=dict)
    bridges: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    used: set[tuple[str, str]] = field(default_factory=set)

    def problem(self, path: str, why: str, hint: str = "") -> ConfigError:
        return ConfigError(f"{self.source}: {path}", why, hint)

    def read(self) -> Imported:
        for key in self.data.keys() - {"name", "topology"}:
            self.warnings.append(f"{key}: left out")
        unused: dict[str, list[str]] = {}
        for name, written in self.inner["nodes"].items():
            self._read_node(name, {} if written is None else written, unused)
        links = [link for link in self._links() if link is not None]
        for name, facts in self.facts.items():
            for interface in facts.interfaces.keys() - {i for n, i in self.used if n == name}:
                if interface != "lo" or facts.interfaces[interface].addresses:
                    self.warnings.append(f"{name}: {interface} has no link, and is left out")
        for key, names in unused.items():
            self.warnings.append(f"{', '.join(names)}: {key} is left out")
        gateways = {route.gateway for facts in self.facts.values() for route in facts.routes}
        topology = Topology(
            name=str(self.data.get("name") or "imported"),
            nodes=tuple(self._node(name, links, gateways) for name in self.facts),
            switches=tuple(Switch(name, bridge) for name, bridge in self.bridges.items()),
            links=tuple(links),
        )
        return Imported(topology, tuple(self.warnings))

    def _settings(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """A node's keys over those of its group, its kind, and the defaults."""
        layers: list[Any] = [self.inner.get("defaults")]
        kind = written.get("kind") or (layers[0] or {}).get("kind", "linux")
        layers.append((self.inner.get("kinds") or {}).get(kind))
        layers.append((self.inner.get("groups") or {}).get(written.get("group")))
        found: dict[str, Any] = {}
        commands: list[Any] = []
        for layer in (*layers, written):
            if isinstance(layer, dict):
                found |= layer
                commands += layer.get("exec") or []
        return {**found, "exec": commands, "kind": kind}

    def _read_node(self, name: Any, written: Any, unused: dict[str, list[str]]) -> None:
        path = f"topology.nodes.{name}"
        if not isinstance(name, str) or not NAME.fullmatch(name) or name == WIRE:
            hint = "letters, digits, '-', '_' and '.'; put it in quotes where YAML reads a number"
            raise self.problem(path, "this cannot be the name of a node here", hint)
        if not isinstance(written, dict):
            raise self.problem(path, "keys of a node are expected, such as {kind: linux}")
        settings = self._settings(written)
        if settings["kind"] == "bridge":
            self.bridges[name] = interface_name(name, {*TAKEN, *self.bridges.values()})
            return
        if settings["kind"] != "linux":
            self.left_out.add(name)
            self.warnings.append(f"{name}: kind {settings['kind']} is left out, with its links")
            return
        for key in settings.keys() - NODE_KEYS:
            unused.setdefault(f"'{key}'", []).append(name)
        if "image" in settings:
            unused.setdefault("'image' (programs are this machine's)", []).append(name)
        facts = self.facts[name] = NodeFacts()
        for key, value in (settings.get("sysctls") or {}).items():
            if not facts.set_sysctl(str(key), str(value)):
                self.warnings.append(f"{name}: sysctl {key} is left out")
        for command in settings["exec"]:
            self.warnings += (f"{name}: {why}" for why in read_command(str(command), facts))

    def _links(self) -> Iterator[Link | None]:
        for number, written in enumerate(self.inner.get("links") or []):
            path = f"topology.links.{number}"
            if not isinstance(written, dict):
                raise self.problem(path, "endpoints are expected, such as ['a:eth1', 'b:eth1']")
            if written.get("type", "veth") != "veth":
                self.warnings.append(f"{path}: a link of type {written['type']} is left out")
                continue
            for key in written.keys() - LINK_KEYS:
                self.warnings.append(f"{path}: '{key}' is left out")
            yield self._link(path, written)

    def _link(self, path: str, written: dict[str, Any]) -> Link | None:
        found = written.get("endpoints")
        if not isinstance(found, list) or len(found) != 2:
            raise self.problem(path, "two endpoints are expected, such as ['a:eth1', 'b:eth1']")
        ends = [self._end(path, one) for one in found]
        if ends[0] is None or ends[1] is None:
            return None
        mtu = written.get("mtu", DEFAULT_MTU)
        if not isinstance(mtu, int) or not 68 <= mtu <= 65535:
            raise self.problem(f"{path}.mtu", f"{mtu!r} is no MTU", "68 to 65535 bytes")
        up = True
        for end in ends:
            seen = self.facts.get(end.at) if end else None
            if end and seen and end.interface in seen.interfaces:
                mtu = seen.interfaces[end.interface].mtu or mtu
                up = up and seen.interfaces[end.interface].up
        return Link(ends[0], ends[1], mtu=mtu, up=up)

    def _end(self, path: str, written: Any) -> End | None:
        if isinstance(written, dict):
            node, interface = written.get("node"), written.get("interface")
        else:
            node, _, interface = str(written).partition(":")
        if not node or not interface:
            raise self.problem(path, f"{written!r} is no endpoint", "write NODE:INTERFACE")
        node, interface = str(node), str(interface)
        if node in self.left_out or node in ("host", "mgmt-net", "macvlan"):
            self.warnings.append(f"{path}: left out, it ends at {node}")
            return None
        if node not in self.facts and node not in self.bridges:
            hint = did_you_mean(node, [*self.facts, *self.bridges])
            raise self.problem(path, f"there is no node {node}", hint)
        if fault := link_name_fault(interface):
            raise self.problem(path, f"the interface name {interface} {fault}")
        if (node, interface) in self.used:
            raise self.problem(path, f"{node}:{interface} has a link already")
        self.used.add((node, interface))
        if node in self.bridges:
            # All bridges stand in one namespace here, as they do on containerlab's host.
            others = {name for at, name in self.used if at in self.bridges and at != node}
            port = interface_name(interface, {*TAKEN, *self.bridges.values(), *others})
            return End(node, port, derived_mac("topology", "port", port))
        seen = self.facts[node].interfaces.get(interface)
        mac = (seen.mac if seen else "") or derived_mac("topology", node, interface)
        return End(node, interface, mac, tuple(seen.addresses) if seen else ())

    def _node(self, name: str, links: list[Link], gateways: set[Any]) -> Node:
        """A router forwards by its own word, or because others send by way of it."""
        facts = self.facts[name]
        ends = [end for link in links for end in link.ends if end.at == name]
        mine = {address.ip for end in ends for address in end.addresses}
        forwards = facts.forwards
        if forwards is None:
            forwards = len(ends) > 1 and bool(mine & gateways)
        routes: dict[Any, StaticRoute] = {}
        for route in facts.routes:
            if any(route.gateway in address.network for end in ends for address in end.addresses):
                routes[route.destination] = route
            else:
                self.warnings.append(
                    f"{name}: the route to {route.destination} is left out:"
                    f" {route.gateway} is on none of its links"
                )
        nat = facts.nat if facts.nat in {end.interface for end in ends} else None
        if facts.nat and nat is None:
            self.warnings.append(f"{name}: NAT at {facts.nat} is left out: it has no link")
        kind = Node(name, "router" if forwards or nat else "host", nat=nat)
        return replace(kind, routes=tuple(routes.values()))
