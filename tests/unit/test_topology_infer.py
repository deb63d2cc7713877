"""What a topology file leaves out, and netplug decides."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netplug.fixtures import Topology, load, parse_topology
from netplug.fixtures.blueprint import plan_requests
from netplug.fixtures.infer import interface_name
from netplug.fixtures.schema import parse_yaml
from netplug.kernel.batch import FIRST_INDEX


def topology(text: str) -> Topology:
    return parse_topology(parse_yaml(text, source="t"), name="t")


def routes(topology: Topology, node: str) -> dict[str, str]:
    return {str(r.destination): str(r.gateway) for r in topology.node(node).routes}


def test_the_example_of_the_readme() -> None:
    made = topology(
        """
        hosts: {web: [10.0.1.2/24], db: [10.0.2.2/24]}
        switches: {br0: [web], br1: [db]}
        routers: {r: {br0: 10.0.1.1/24, br1: 10.0.2.1/24, nat: br1}}
        links: [{a: web, b: br0, mtu: 1450, loss: 2%}]
        """
    )
    assert [(link.a.at, link.b.at) for link in made.links] == [
        ("web", "br0"),
        ("db", "br1"),
        ("r", "br0"),
        ("r", "br1"),
    ]
    assert (made.links[0].mtu, made.links[0].loss) == (1450, 2.0)
    assert made.links[1].mtu == 1500
    assert routes(made, "web") == {"0.0.0.0/0": "10.0.1.1"}
    assert routes(made, "db") == {}, "a router is no gateway on the side of its NAT"
    assert made.node("r").nat == "eth1"


def test_macs_come_from_addresses() -> None:
    red = load("two-hosts").ends("red")[0]
    assert red.mac == "02:00:0a:00:01:02"
    six = load("ipv6-only").ends("web")[0]
    assert six.mac == load("ipv6-only").ends("web")[0].mac
    assert int(six.mac[:2], 16) & 3 == 2, "locally administered, unicast"


def test_one_link_takes_all_addresses_several_take_one_item_each() -> None:
    made = topology(
        """
        hosts:
          one: [10.0.0.1/24, fd00::1/64]
          two: [[10.0.0.2/24, fd00::2/64], 10.1.0.2/24]
          three: [[], 10.1.0.3/24]
        switches: {s: [one, two, three], t: [two, three]}
        """
    )
    found = {
        (end.at, end.interface): [str(a) for a in end.addresses]
        for node in made.nodes
        for end in made.ends(node.name)
    }
    assert found == {
        ("one", "eth0"): ["10.0.0.1/24", "fd00::1/64"],
        ("two", "eth0"): ["10.0.0.2/24", "fd00::2/64"],
        ("two", "eth1"): ["10.1.0.2/24"],
        ("three", "eth0"): [],
        ("three", "eth1"): ["10.1.0.3/24"],
    }


def test_gateways_of_both_families_and_explicit_routes() -> None:
    made = topology(
        """
        hosts: {a: [10.0.0.2/24, fd00::2/64], b: [10.0.0.3/24], c: [10.9.0.3/24]}
        switches: {s: [a, b, c]}
        routers: {r: {s: [10.0.0.1/24, fd00::1/64]}, late: {s: 10.0.0.254/24}}
        routes: {b: {default: 10.0.0.254, 10.88.0.0/16: 10.0.0.2}}
        """
    )
    assert routes(made, "a") == {"0.0.0.0/0": "10.0.0.1", "::/0": "fd00::1"}
    assert routes(made, "b") == {"0.0.0.0/0": "10.0.0.254", "10.88.0.0/16": "10.0.0.2"}
    assert routes(made, "c") == {}, "no router in its subnet"


def test_routers_know_every_subnet_but_those_behind_nat() -> None:
    made = topology(
        """
        hosts: {a: [10.1.0.2/24], b: [10.2.0.2/24], hidden: [10.3.0.2/24]}
        routers:
          r1: {a: 10.1.0.1/24, r2: 10.9.0.1/30}
          r2: {r1: 10.9.0.2/30, r3: 10.9.0.5/30, home: 10.9.1.1/24}
          r3: {r2: 10.9.0.6/30, b: 10.2.0.1/24}
          r4: {hidden: 10.3.0.1/24, home: 10.9.1.2/24, nat: home}
        switches: {home: []}
        """
    )
    assert routes(made, "r1") == {
        "10.9.0.4/30": "10.9.0.2",
        "10.9.1.0/24": "10.9.0.2",
        "10.2.0.0/24": "10.9.0.2",
    }
    assert routes(made, "r3") == {
        "10.9.0.0/30": "10.9.0.5",
        "10.9.1.0/24": "10.9.0.5",
        "10.1.0.0/24": "10.9.0.5",
    }
    assert routes(made, "r4")["10.2.0.0/24"] == "10.9.1.1"


def test_trunks_join_switches_into_one_segment() -> None:
    made = topology(
        """
        hosts: {a: [10.0.0.2/24]}
        switches: {top: [left], left: [a]}
        routers: {r: {top: 10.0.0.1/24}}
        """
    )
    trunk = made.link("left", "top")
    assert trunk is not None
    assert (trunk.a.interface, trunk.b.interface) == ("left-top", "top-left")
    assert routes(made, "a") == {"0.0.0.0/0": "10.0.0.1"}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,30}", fullmatch=True), unique=True))
def test_names_of_ports_fit_and_differ(hosts: list[str]) -> None:
    hosts = [name for name in hosts if name not in ("wire", "s")]
    data: dict[str, Any] = {"hosts": dict.fromkeys(hosts), "switches": {"s": hosts}}
    made = parse_topology(data, name="t")
    wire = [s.bridge for s in made.switches] + [e.interface for e in made.ends("s")]
    assert len(set(wire)) == len(wire)
    assert all(0 < len(name) <= 15 for name in wire)


def test_names_the_kernel_refuses_are_not_used() -> None:
    assert interface_name("web-eth0") == "web-eth0"
    assert interface_name("lo") != "lo"
    long = interface_name("a-rather-long-name-eth0")
    assert len(long) == 15
    assert long.startswith("a-rath-")


def test_inference_is_deterministic() -> None:
    assert load("neighbour") == load("neighbour")


def test_a_link_that_starts_down_is_not_raised_nor_routed_over() -> None:
    text = """
    hosts: {a: [10.0.0.2/24]}
    switches: {s: [a]}
    routers: {r: {s: 10.0.0.1/24}}
    links: [{a: a, b: s, up: %s}]
    """
    descriptors = {"a": 7, "r": 8}
    up = plan_requests(topology(text % "true"), descriptors)
    down = plan_requests(topology(text % "false"), descriptors)
    said = [request.what for request in up.settings["a"]]
    assert said == [
        "link lo cannot be changed",
        "link eth0 cannot be changed",
        "address 10.0.0.2/24 cannot be added",
        "route to 0.0.0.0/0 via 10.0.0.1 cannot be added",
    ]
    assert [request.what for request in down.settings["a"]] == [said[0], said[2]]
    assert up.indexes["a", "eth0"] == FIRST_INDEX
    assert len(up.watched["wire"]) == 2
    assert len(down.watched["wire"]) == 1
