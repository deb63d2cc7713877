"""Draws the pictures of docs/*.svg, from plans that the drivers make, on no machine at all.

python docs/pictures.py            draws them anew
python docs/pictures.py --check    says which are out of date, and ends with status 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

from netplug.config import parse_network
from netplug.draw import Scene, render_svg, scene_of
from netplug.fixtures import load
from netplug.model import Attachment, Facts, Lease, LeasedAddress, Network, Port
from netplug.picture import compute_scene
from netplug.plugins import get_driver
from netplug.state import Record

FOLDER = Path(__file__).parent
HOST = "laptop"


def make_network(name: str, subnet: str, **keys: object) -> Network:
    """What `netplug network create NAME --subnet SUBNET` makes."""
    config = {
        "cniVersion": "1.0.0",
        "name": name,
        "type": "netplug",
        "bridge": f"np-{name}",
        "ipam": {"type": "netplug", "ranges": [[{"subnet": subnet}]]},
        **({"isDefaultGateway": True, "ipMasq": True} | keys),
    }
    return parse_network(config, get_driver("bridge").options, strict_unknown=True)[0]


def attach(
    network: Network, container: str, address: str, *ports: Port, ifname: str = "eth0"
) -> Record:
    """The record of an attachment, as ADD would leave it."""
    driver, facts = get_driver(network.driver), Facts()
    attachment = Attachment(
        network.name, container, ifname, sandbox=f"/run/netns/{container}", ports=ports
    )
    inside = ip_interface(address)
    gateway = ip_address(int(inside.network.network_address) + 1)
    lease = Lease((LeasedAddress(inside, gateway),))
    plan = driver.plan_link(network, attachment, facts)
    plan += driver.plan_network(network, attachment, lease, facts)
    result = driver.result(network, attachment, lease, facts)
    return Record(HOST, attachment, "ready", "", 0, 0.0, plan, network.raw, result)


def make_networks() -> Scene:
    """Two networks: web is published, api is on both, db cannot be reached from outside."""
    lan = make_network("lan", "10.1.0.0/24")
    back = make_network("back", "10.2.0.0/24", internal=True)
    records = [
        attach(lan, "web", "10.1.0.2/24", Port(8080, 80)),
        attach(lan, "api", "10.1.0.3/24"),
        attach(back, "api", "10.2.0.2/24", ifname="eth1"),
        attach(back, "db", "10.2.0.3/24"),
    ]
    return compute_scene(HOST, records, uplink="wlan0")


def draw_all() -> Iterator[tuple[Path, str]]:
    """Each file with its text of today."""
    words = "Host laptop: web and api on network lan, api and db on network back"
    yield FOLDER / "networks.svg", render_svg(make_networks(), title=words)
    home = load("home")
    yield FOLDER / "home.svg", render_svg(scene_of(home), title=home.about)


def main(arguments: list[str]) -> int:
    stale = []
    for path, text in draw_all():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            path.write_text(text)
    verb = "out of date" if "--check" in arguments else "drawn"
    print("\n".join(f"{name}: {verb}" for name in stale) or "every picture is up to date")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
