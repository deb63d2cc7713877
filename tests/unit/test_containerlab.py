"""To containerlab and back: what is said is the same, and what is lost is named."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from netplug.errors import ConfigError
from netplug.fixtures import load, names, parse_topology
from netplug.fixtures.containerlab import export_containerlab, import_containerlab
from netplug.fixtures.topology import StaticRoute, Topology

GOLDEN = Path(__file__).parents[1] / "golden" / "containerlab"


def plain(topology: Topology) -> Topology:
    """Without what containerlab's file has no place for, its comments apart."""
    links = tuple(replace(link, loss=0.0) for link in topology.links)
    return replace(topology, about="", links=links)


def check_round_trip(topology: Topology) -> None:
    found = import_containerlab(export_containerlab(topology))
    assert found.topology == plain(topology)
    assert all("'image'" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", names())
def test_shipped_topologies_come_back(name: str) -> None:
    check_round_trip(load(name))


@pytest.mark.parametrize("name", ["home", "dual-stack"])
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.clab.yml"
    text = export_containerlab(load(name))
    if os.environ.get("NETPLUG_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any small one: hosts on switches, a router between two of them, a cable beside."""
    count = draw(st.integers(1, 4))
    hosts = {f"h{i}": [f"10.0.{i % 2}.{i + 2}/24", f"fd00:{i % 2}::{i + 2}/64"] for i in range(4)}
    chosen = {name: draw(st.sampled_from([hosts[name], hosts[name][:1]])) for name in hosts}
    switches = {"br0": ["h0", "h2"], "br1": ["h1", "h3"]}
    keys: dict[str, object] = {"hosts": chosen, "switches": switches}
    if draw(st.booleans()):
        router: dict[str, object] = {"br0": ["10.0.0.1/24", "fd00:0::1/64"], "br1": "10.0.1.1/24"}
        if draw(st.booleans()):
            router["nat"] = "br1"
        keys["routers"] = {"r": router}
    links: list[dict[str, object]] = []
    for i in range(count):
        mtu = draw(st.sampled_from([1500, 1400]))
        link: dict[str, object] = {"a": f"h{i}", "b": f"br{i % 2}", "mtu": mtu}
        links.append(
            {**link, "up": draw(st.booleans()), "loss": draw(st.sampled_from(["0%", "2%"]))}
        )
    return parse_topology({**keys, "links": links}, name=draw(st.sampled_from(["lab", "on", "7"])))


@settings(deadline=None, max_examples=40)
@given(topologies())
def test_any_topology_comes_back(topology: Topology) -> None:
    text = export_containerlab(topology)
    data = yaml.safe_load(text)
    assert set(data) == {"name", "topology"}
    ends = [end for link in data["topology"]["links"] for end in link["endpoints"]]
    assert len(set(ends)) == len(ends)
    assert {end.partition(":")[0] for end in ends} <= set(data["topology"]["nodes"])
    found = import_containerlab(text).topology
    assert found == plain(topology)


WORDS = ["ip", "addr", "add", "route", "via", "dev", "link", "set", "eth0", "10.0.0.1/8"]
FOREIGN = """
name: shop
prefix: ""
topology:
  defaults: {kind: linux, image: "alpine:3"}
  kinds:
    linux: {exec: ["ip link set lo mtu 1400"]}
  nodes:
    web:
      exec:
        - ip addr add 10.0.1.2/24 dev eth1
        - ip route replace default via 10.0.1.1 dev eth1
        - nginx -g daemon
    db:
      binds: ["./db:/db"]
      exec: ["sh -c 'ip a a 10.0.2.2/24 dev eth1; ip r a default via 10.0.2.1 && true'"]
    gw:
      sysctls: {net.ipv4.ip_forward: 1, net.core.somaxconn: 9}
      exec:
        - ip address add 10.0.1.1/24 dev eth1
        - ip address add 10.0.2.1/24 dev eth2
        - iptables -t nat -A POSTROUTING -o eth2 -j MASQUERADE
        - ip route add 10.9.0.0/16 via 10.8.0.1
    srl: {kind: nokia_srlinux}
    br-lan: {kind: bridge}
  links:
    - endpoints: ["web:eth1", "br-lan:web1"]
    - endpoints: ["gw:eth1", "br-lan:gw1"]
    - {type: veth, endpoints: [{node: gw, interface: eth2}, {node: db, interface: eth1}], mtu: 1400}
    - endpoints: ["gw:eth3", "srl:e1-1"]
    - {type: vxlan, endpoint: {node: web, interface: eth9}, vni: 7}
"""


def test_a_foreign_file() -> None:
    found = import_containerlab(FOREIGN)
    topology = found.topology
    assert topology.name == "shop"
    assert [(node.name, node.kind) for node in topology.nodes] == [
        ("web", "host"),
        ("db", "host"),
        ("gw", "router"),
    ]
    assert topology.node("gw").nat == "eth2"
    default = ip_network("0.0.0.0/0")
    assert topology.node("web").routes == (StaticRoute(default, ip_address("10.0.1.1")),)
    assert topology.node("db").routes == (StaticRoute(default, ip_address("10.0.2.1")),)
    assert topology.address("db") == ip_address("10.0.2.2")
    assert [switch.name for switch in topology.switches] == ["br-lan"]
    assert [link.mtu for link in topology.links] == [1500, 1500, 1400]
    for words in (
        "web: `nginx -g daemon` is left out",
        "db: `true` is left out",
        "db: 'binds' is left out",
        "prefix: left out",
        "gw: sysctl net.core.somaxconn is left out",
        "gw: the route to 10.9.0.0/16 is left out: 10.8.0.1 is on none of its links",
        "srl: kind nokia_srlinux is left out, with its links",
        "topology.links.3: left out, it ends at srl",
        "topology.links.4: a link of type vxlan is left out",
    ):
        assert words in found.warnings, found.warnings
    assert any("'image'" in warning for warning in found.warnings)


def test_a_node_that_others_send_through_is_a_router() -> None:
    text = FOREIGN.replace("net.ipv4.ip_forward: 1, ", "").replace("iptables", "true")
    assert import_containerlab(text).topology.node("gw").kind == "router"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: {}", "is no containerlab topology"),
        ("[", "line 1"),
        ("topology: {nodes: {7: {}}}", "the name of a node"),
        ("topology: {nodes: {wire: {}}}", "the name of a node"),
        ("topology: {nodes: {a: []}}", "keys of a node"),
        ("topology: {nodes: {a: {}}, links: [x]}", "endpoints are expected"),
        ("topology: {nodes: {a: {}}, links: [{endpoints: [a:e]}]}", "two endpoints"),
        ("topology: {nodes: {a: {}}, links: [{endpoints: [a, a:e]}]}", "is no endpoint"),
        ("topology: {nodes: {a: {}}, links: [{endpoints: [a:e, 'b:e']}]}", "there is no node b"),
        ("topology: {nodes: {a: {}}, links: [{endpoints: [a:e, a:e]}]}", "has a link already"),
        (
            "topology: {nodes: {a: {}}, links: [{endpoints: [a:e, a:abcdefghijklmnop]}]}",
            "1 to 15 bytes",
        ),
        ("topology: {nodes: {a: {}}, links: [{endpoints: [a:e, a:f], mtu: x}]}", "is no MTU"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_containerlab(text)
    assert words in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(
    st.text(max_size=60),
    st.lists(st.sampled_from(["ip", "addr", "add", "route", "via", "dev", "link", "set"])),
)
def test_no_command_confuses_it(text: str, words: list[str]) -> None:
    """Any line is read or named, never a fault."""
    for command in (text, " ".join(words), f"sh -c {text!r}"):
        data = {"topology": {"nodes": {"a": {"exec": [command]}}}}
        import_containerlab(yaml.safe_dump(data))
