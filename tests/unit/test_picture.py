"""What is drawn is what the plans say, whatever driver made them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from attaching import gateway_network

from netplug.cli.graph import print_picture
from netplug.draw import Link, Plug, Scene, Seen, render_text, scene_of
from netplug.errors import InputError
from netplug.fixtures import load
from netplug.kernel.rtmessages import Link as KernelLink
from netplug.model import Attachment, Facts, Lease, LeasedAddress, Port, Result, ResultAddress
from netplug.picture import SHARED, compute_scene
from netplug.plan import Plan
from netplug.plugins.bridge import driver
from netplug.state import Record

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Upper:
    """Stands for a link on a host's link, of a driver that this test does not know."""

    ifname: str
    parent: str
    kind: str = "macvlan"
    mtu: int = 1500


@dataclass(frozen=True)
class Tunnel:
    name: str
    vni: int
    alias: str = ""
    bridge: str = ""
    port: int = 4789
    mtu: int = 1450


def record(network: str, container: str, address: str, *steps: Any, **wishes: Any) -> Record:
    attachment = Attachment(network, container, wishes.pop("ifname", "eth0"), **wishes)
    result = Result(ips=(ResultAddress(ip_interface(address)),))
    return Record("h", attachment, "ready", "", 0, 0.0, Plan(steps), {}, result)


def bridged(container: str, address: str, name: str = "lan", **wishes: Any) -> Record:
    """As ADD of the bridge driver leaves it."""
    network = gateway_network(name)
    attachment = Attachment(name, container, wishes.pop("ifname", "eth0"), **wishes)
    lease = Lease((LeasedAddress(ip_interface(address), None),))
    plan = driver.plan_link(network, attachment, Facts())
    plan += driver.plan_network(network, attachment, lease, Facts())
    result = driver.result(network, attachment, lease, Facts())
    return Record("h", attachment, "ready", "", 0, 0.0, plan, network.raw, result)


def find_links(scene: Scene, kind: str) -> list[Link]:
    return [link for link in scene.links if link.kind == kind]


def test_a_bridge_network() -> None:
    web = bridged("web", "10.1.0.2/24", ports=(Port(8080, 80),))
    scene = compute_scene("demo", [web, bridged("db", "10.1.0.3/24")], uplink="eth0")
    text = render_text(scene)
    for words in ("br0  10.1.0.1/24", "eth0 10.1.0.2/24", ":8080 → 80/tcp", "NAT", "host demo"):
        assert words in text
    assert len(find_links(scene, "cable")) == 2
    assert Link(Plug("door eth0", nat=True), Plug("network lan"), "uplink") in scene.links


def test_a_container_on_two_networks_is_one_box() -> None:
    both = [
        bridged("api", "10.1.0.2/24"),
        bridged("api", "10.1.0.3/24", "back", ifname="eth1"),
    ]
    scene = compute_scene("demo", both, uplink="eth0")
    (api,) = [box for box in scene.boxes if box.title == "api"]
    assert api.lines == ("eth0 10.1.0.2/24", "eth1 10.1.0.3/24")
    assert {link.b for link in find_links(scene, "cable")} == {
        Plug(api.name, "eth0"),
        Plug(api.name, "eth1"),
    }


def test_what_the_kernel_lost_is_down() -> None:
    web, db = bridged("web", "10.1.0.2/24"), bridged("db", "10.1.0.3/24")
    port = web.attachment.host_name
    links = [
        KernelLink("br0", 1, "bridge", "", 1500, True),
        KernelLink("eth0", 2, "", "", 1500, True),
        KernelLink(port, 3, "veth", "", 1500, False),
    ]
    scene = compute_scene("demo", [web, db], uplink="eth0", links=links)
    assert [link.up for link in find_links(scene, "cable")] == [False, False]
    fine = [replace(links[2], up=True), KernelLink(db.attachment.host_name, 4, "veth", "", 1, True)]
    scene = compute_scene("demo", [web, db], uplink="eth0", links=[*links[:2], *fine])
    assert all(link.up for link in scene.links)


def test_a_link_on_a_link_reaches_its_door() -> None:
    found = record("wan", "web", "192.0.2.9/24", Upper("eth0", "eth1"))
    scene = compute_scene("demo", [found], uplink="eth0")
    assert "macvlan on eth1" in render_text(scene)
    assert Link(Plug("door eth1"), Plug("network wan"), "uplink") in scene.links
    assert not any(box.title == "eth0" for box in scene.boxes)


def test_a_tunnel_leaves_by_a_door_of_its_own() -> None:
    pod = bridged("pod", "10.1.0.2/24", "pods")
    for tunnel in (Tunnel("vx-pods", 42, "netplug/pods/tunnel"), Tunnel("vx", 42, bridge="br0")):
        scene = compute_scene("demo", [pod], uplink="eth0", node_steps=[tunnel])  # type: ignore[list-item]
        assert len(find_links(scene, "tunnel")) == 2
        text = render_text(scene)
        assert "VNI 42" in text and tunnel.name in text and "udp 4789" in text
    other = Tunnel("vx-other", 7, "netplug/other/tunnel")
    assert not find_links(compute_scene("demo", [pod], node_steps=[other]), "tunnel")  # type: ignore[list-item]


def test_a_container_of_the_hosts_network_stands_alone() -> None:
    scene = compute_scene("demo", [record("host", "web", "192.0.2.2/24")], uplink="eth0")
    (web,) = scene.boxes
    assert web.lines == (SHARED,) and not scene.links
    assert SHARED in render_text(scene)


def test_a_topology_as_the_kernel_has_it() -> None:
    topology = load("two-routers")
    ends = [(link, end) for link in topology.links for end in link.ends]
    seen = {(end.at, end.interface): Seen(True, link.mtu, end.addresses) for link, end in ends}
    assert scene_of(topology, seen) == scene_of(topology)
    del seen["left", "eth0"]
    seen["r2", "eth1"] = Seen(True, 1300)
    scene = scene_of(topology, seen)
    assert [link.up for link in scene.links] == [False, True, True]
    assert scene.links[2].note in ("mtu 1300/1400", "mtu 1300/1500")
    assert "10.0.1.2" not in render_text(scene)


def test_graph_refuses_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    scene = compute_scene("demo", [])
    print_picture(scene, svg=str(tmp_path / "a.svg"), ascii_=False, title="x")
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    with pytest.raises(InputError, match="cannot be written"):
        print_picture(scene, svg=str(tmp_path / "no" / "a.svg"), ascii_=False, title="x")


def test_pictures_of_the_docs_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/pictures.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"run: python docs/pictures.py\n{done.stdout}{done.stderr}"
